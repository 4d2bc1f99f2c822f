//! After the target's end: waiting until the recording is whole, and what is
//! said about it.

use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use leakline_collector::protocol::{FromCollector, Summary, ToCollector};
use rustix::process::Pid;

use super::session::Answer;
use super::supervise::{Ended, Supervisor};

/// What became of the recording.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is whole, up to the target's end.
    Finished(Summary),
    /// The collector gave up, and said why.
    Failed(String),
    /// The collector's process was killed.
    CollectorGone,
    /// The collector lives, but does not get on.
    CollectorStuck,
    /// The user did not want to wait.
    NotWaitedFor,
}

/// Tells the collector that the target ended, and waits until the recording is
/// whole: as long as the collector gets on with it, however slowly.
pub(super) fn finish(supervisor: &mut Supervisor, ended: Ended, target: Pid, progress: bool) -> Outcome {
    const STEP: Duration = Duration::from_millis(100);
    const SILENT_FOR: Duration = Duration::from_secs(1);
    let (status, signal) = match ended {
        Ended::Exited(status) => (Some(status), None),
        Ended::Killed(signal) => (None, Some(signal)),
    };
    let pid = target.as_raw_pid().unsigned_abs();
    supervisor.collector.send(&ToCollector::Exited { pid, status, signal });

    let mut pulse = Pulse::new(supervisor.collector.pid());
    let began = Instant::now();
    let mut line = ProgressLine::default();
    let mut failure = None;
    let outcome = loop {
        match supervisor.collector.receive(STEP) {
            Answer::Message(FromCollector::Finished(summary)) => break Outcome::Finished(summary),
            Answer::Message(FromCollector::Failed { error }) => failure = Some(error),
            Answer::Message(FromCollector::Ready) => {}
            Answer::Gone => break failure.map_or(Outcome::CollectorGone, Outcome::Failed),
            Answer::Nothing if supervisor.interrupted() => break Outcome::NotWaitedFor,
            Answer::Nothing if !pulse.beats() => break Outcome::CollectorStuck,
            Answer::Nothing => {
                let waited = began.elapsed();
                if progress && waited >= SILENT_FOR {
                    line.show(&format!("leakline: finishing the recording, {}", duration(waited)));
                }
            }
        }
    };
    line.clear();
    if matches!(&outcome, Outcome::Finished(summary) if summary.still_running == 0) {
        supervisor.see_collector_off();
    }
    outcome
}

/// Whether a process gets on: uses processor time, or was so a moment ago.
struct Pulse {
    stat: String,
    last: Option<u64>,
    changed: Instant,
}

impl Pulse {
    /// A collector under a small quota, or before a slow disk, gets on.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn new(pid: Pid) -> Pulse {
        let stat = format!("/proc/{}/stat", pid.as_raw_pid());
        Pulse { stat, last: None, changed: Instant::now() }
    }

    fn beats(&mut self) -> bool {
        let (stopped, ticks) = std::fs::read_to_string(&self.stat)
            .ok()
            .and_then(|stat| parse_stat(&stat))
            .unwrap_or_default();
        if self.last != Some(ticks) {
            self.last = Some(ticks);
            self.changed = Instant::now();
        }
        let patience = if stopped { Duration::from_secs(1) } else { Self::PATIENCE };
        self.changed.elapsed() < patience
    }
}

/// Of a line of `/proc/PID/stat`: whether the process is stopped, and the
/// clock ticks it has used.
fn parse_stat(stat: &str) -> Option<(bool, u64)> {
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((matches!(state, "T" | "t"), user + system))
}

/// One line of a terminal that is written over.
#[derive(Default)]
struct ProgressLine {
    shown: String,
}

impl ProgressLine {
    fn show(&mut self, text: &str) {
        if self.shown != text {
            // Nothing depends on it.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
            text.clone_into(&mut self.shown);
        }
    }

    fn clear(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// What is printed at the end.
pub(super) struct Report<'a> {
    /// The program, and script or module.
    pub(super) command: &'a str,
    pub(super) ended: Ended,
    pub(super) lasted: Duration,
    pub(super) recording: &'a Path,
    pub(super) outcome: &'a Outcome,
}

impl Report<'_> {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        const NAME: Style = Style::new().bold();
        let lasted = duration(self.lasted);
        write!(to, "{NAME}leakline:{NAME:#} {} ", self.command)?;
        match self.ended {
            Ended::Exited(status) => writeln!(to, "ended with status {status} after {lasted}")?,
            Ended::Killed(signal) => {
                writeln!(to, "was killed ({}) after {lasted}", signal_name(signal))?;
            }
        }
        match self.outcome {
            Outcome::Finished(summary) => self.write_summary(summary, to),
            Outcome::Failed(why) => self.warn(to, &format!("the collector gave up: {why}")),
            Outcome::CollectorGone => self.warn(to, "the collector was killed"),
            Outcome::CollectorStuck => self.warn(to, "the collector makes no progress"),
            Outcome::NotWaitedFor => {
                warning(to, "the recording is being finished in the background")?;
                self.next(to)
            }
        }
    }

    fn write_summary(&self, summary: &Summary, to: &mut impl Write) -> io::Result<()> {
        if summary.never_joined {
            return warning(
                to,
                "nothing was recorded: the program did not load leakline's library \
                 (is LD_PRELOAD dropped from its environment?)",
            );
        }
        let peak_at = duration(Duration::from_nanos(summary.peak_at_ns));
        writeln!(to, "  peak      {} at {peak_at}", bytes(summary.peak_bytes))?;
        let blocks = count(summary.live_blocks);
        writeln!(to, "  at exit   {} live in {blocks} blocks", bytes(summary.live_bytes))?;
        let allocations = count(summary.allocations);
        write!(to, "  recorded  {allocations} allocations, ")?;
        match summary.lost_events {
            0 => write!(to, "all of them")?,
            lost => write!(to, "{} events lost", count(lost))?,
        }
        writeln!(to, "; {}, {}", self.recording.display(), bytes(summary.file_bytes))?;
        if summary.lost_events > 0 {
            warning(to, "events were lost: the figures are less than the truth")?;
        }
        if let Some(why) = &summary.write_error {
            warning(to, &format!("the recording ends early: {why}"))?;
        }
        if summary.still_running > 0 {
            let n = summary.still_running;
            let processes = if n == 1 { "process goes" } else { "processes go" };
            writeln!(to, "  running   {n} {processes} on, and on being recorded")?;
        }
        self.next(to)
    }

    fn warn(&self, to: &mut impl Write, what: &str) -> io::Result<()> {
        warning(to, &format!("{what}; `{}` holds what was recorded until then", self.recording.display()))?;
        self.next(to)
    }

    fn next(&self, to: &mut impl Write) -> io::Result<()> {
        let file = self.recording.to_string_lossy();
        let file = shlex::try_quote(&file).unwrap_or(Cow::Borrowed("FILE"));
        writeln!(to, "  next      leakline top {file}    leakline summary {file}")
    }
}

fn warning(to: &mut impl Write, what: &str) -> io::Result<()> {
    const WARNING: Style = AnsiColor::Yellow.on_default().bold();
    writeln!(to, "{WARNING}warning:{WARNING:#} {what}")
}

/// `SIGKILL` for 9.
fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 23] = [
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGIO, "SIGIO"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGPROF, "SIGPROF"),
        (libc::SIGPWR, "SIGPWR"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGSTKFLT, "SIGSTKFLT"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGVTALRM, "SIGVTALRM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
    ];
    NAMES
        .iter()
        .find(|(signal, _)| *signal == number)
        .map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

/// Bytes in the largest fitting unit, with one decimal or three digits.
fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    // Not 1024: what rounds up to it is better said in the next unit.
    while value >= 1023.5
        && let Some(larger) = units.next()
    {
        value /= 1024.0;
        unit = larger;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {unit}")
}

/// A number with a comma every three digits.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `740 ms`, `3.2 s`, `12 min 04 s`, `5 h 33 min`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", (time.as_secs_f64() * 10.0).floor() / 10.0),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}
