//! After the target's end: waiting until the recording is whole, and what is
//! said about it.

use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use leakline_analysis::report::{blocks, bytes, duration, printable};
use leakline_analysis::{
    Contents, GroupBy, Leaks, LeaksQuery, Measure, Model, Origin, Span, Stacks, Suppression, Top,
    TopQuery, Unit, escaped,
};
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
    /// The collector's process ended without a word; how, where it is known.
    CollectorGone(Option<Ended>),
    /// The collector lives, but does not get on.
    CollectorStuck,
    /// The user did not want to wait.
    NotWaitedFor,
}

/// Tells the collector that the target ended, and waits until the recording is
/// whole: as long as the collector gets on with it, however slowly.
pub(super) fn finish(
    supervisor: &mut Supervisor,
    ended: Ended,
    target: Pid,
    progress: bool,
) -> Outcome {
    const STEP: Duration = Duration::from_millis(100);
    const SILENT_FOR: Duration = Duration::from_secs(1);
    let (status, signal) = match ended {
        Ended::Exited(status) => (Some(status), None),
        Ended::Killed(signal) => (None, Some(signal)),
    };
    let pid = target.as_raw_pid().unsigned_abs();
    supervisor.collector.send(&ToCollector::Exited {
        pid,
        status,
        signal,
    });

    let mut pulse = Pulse::new(supervisor.collector.pid());
    let began = Instant::now();
    let mut line = ProgressLine::default();
    let mut failure = None;
    let outcome = loop {
        match supervisor.collector.receive(STEP) {
            Answer::Message(FromCollector::Finished(summary)) => break Outcome::Finished(summary),
            Answer::Message(FromCollector::Failed { error }) => failure = Some(error),
            Answer::Message(
                FromCollector::Ready
                | FromCollector::Joined { .. }
                | FromCollector::Coarser { .. }
                | FromCollector::Graphs(_)
                | FromCollector::Looked { .. }
                | FromCollector::Found { .. }
                | FromCollector::NoGraphs { .. }
                | FromCollector::Staying { .. },
            ) => {}
            Answer::Gone => {
                let ended = supervisor.see_collector_off();
                break failure.map_or(Outcome::CollectorGone(ended), Outcome::Failed);
            }
            Answer::Nothing if supervisor.interrupted() => break Outcome::NotWaitedFor,
            Answer::Nothing if !pulse.beats() => break Outcome::CollectorStuck,
            Answer::Nothing => {
                let waited = began.elapsed();
                if progress && waited >= SILENT_FOR {
                    let seconds = waited.as_secs();
                    line.show(&format!("leakline: finishing the recording, {seconds} s"));
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
        Pulse {
            stat,
            last: None,
            changed: Instant::now(),
        }
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
        let patience = if stopped {
            Duration::from_secs(1)
        } else {
            Self::PATIENCE
        };
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
    /// Figures are estimates.
    pub(super) is_sampled: bool,
    /// See [`findings`].
    pub(super) findings: &'a Findings,
}

/// What a look at a finished recording says.
#[derive(Debug, Default)]
pub(in crate::commands) struct Findings {
    /// Whether something leaks.
    pub(in crate::commands) verdict: Option<String>,
    /// The line that held most of the high-water mark, and how much: `1.2 GiB
    /// of it in load_batch  train.py:57`.
    most_of_peak: Option<String>,
}

/// Looks at a finished recording; sees nothing where that takes too long.
pub(in crate::commands) fn findings(recording: &Path) -> Findings {
    /// Read in about a tenth of a second.
    const LARGEST: u64 = 2 << 20;
    let is_small = recording.metadata().is_ok_and(|data| data.len() <= LARGEST);
    let Some((contents, _)) = is_small.then(|| Contents::open(recording).ok()).flatten() else {
        return Findings::default();
    };
    let model = Model::of(&contents, Origin::default());
    let mut stacks = Stacks::new(&model);
    let query = LeaksQuery {
        suppressions: Suppression::shipped(),
        ..LeaksQuery::default()
    };
    let leaks = Leaks::new(&model, &mut stacks, query).ok();
    let verdict = leaks.map(|leaks| printable(&leaks.brief(&stacks)).into_owned());
    Findings {
        verdict,
        most_of_peak: most_of_peak(&model, &mut stacks),
    }
}

fn most_of_peak<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>) -> Option<String> {
    let query = TopQuery {
        span: Span::whole(model),
        by: GroupBy::Line,
        measure: Measure::Peak,
        unit: Unit::Bytes,
        limit: Some(1),
        most_frames: None,
        filter: None,
    };
    let top = Top::new(model, stacks, query);
    let row = top.rows.first().filter(|row| row.figures.peak_bytes > 0)?;
    let frame = stacks.frame(row.head.made_in?);
    let file = stacks.name(frame.file);
    let here = std::env::current_dir().ok();
    let place = here.and_then(|here| Path::new(file).strip_prefix(here).ok()?.to_str());
    let place = match (place.unwrap_or(file), frame.line) {
        ("", _) => String::new(),
        (file, 0) => format!("  {file}"),
        (file, line) => format!("  {file}:{line}"),
    };
    let text = format!(
        "{} of it in {}{place}",
        bytes(row.figures.peak_bytes),
        stacks.name(frame.function)
    );
    Some(printable(&text).into_owned())
}

impl Report<'_> {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        const NAME: Style = Style::new().bold();
        let lasted = duration(nanoseconds(self.lasted));
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
            Outcome::CollectorGone(ended) => {
                let how = match ended {
                    Some(Ended::Killed(signal)) => format!("was killed ({})", signal_name(*signal)),
                    Some(Ended::Exited(status)) => format!("failed with status {status}"),
                    None => "ended".into(),
                };
                self.warn(to, &format!("the collector {how}"))
            }
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
        if let Some(verdict) = &self.findings.verdict {
            writeln!(to, "  verdict   {verdict}")?;
        }
        let peak_at = duration(summary.peak_at_ns);
        write!(to, "  peak      {} at {peak_at}", bytes(summary.peak_bytes))?;
        match &self.findings.most_of_peak {
            Some(most) => writeln!(to, ", {most}")?,
            None => writeln!(to)?,
        }
        let live = blocks(summary.live_blocks);
        writeln!(
            to,
            "  at exit   {} live in {live} blocks",
            bytes(summary.live_bytes)
        )?;
        let allocations = blocks(summary.allocations);
        let about = if self.is_sampled { "about " } else { "" };
        write!(to, "  recorded  {about}{allocations} allocations, ")?;
        match summary.lost_events {
            0 if self.is_sampled => write!(to, "by a sample of them")?,
            0 => write!(to, "all of them")?,
            lost => write!(to, "{} events lost", blocks(lost))?,
        }
        writeln!(to, "; {}, {}", self.file(), bytes(summary.file_bytes))?;
        if summary.still_running > 0 {
            let n = summary.still_running;
            let processes = if n == 1 {
                "process goes"
            } else {
                "processes go"
            };
            writeln!(to, "  running   {n} {processes} on, and on being recorded")?;
        }
        if summary.unanswered > 0 {
            let n = summary.unanswered;
            let processes = if n == 1 {
                "process was"
            } else {
                "processes were"
            };
            let why = "the collector did not answer in time";
            warning(to, &format!("{n} {processes} not recorded: {why}"))?;
        }
        if summary.lost_events > 0 {
            warning(to, "events were lost: the figures are less than the truth")?;
        }
        if let Some(why) = &summary.write_error {
            warning(to, &format!("the recording ends early: {why}"))?;
        }
        self.next(to)
    }

    fn warn(&self, to: &mut impl Write, what: &str) -> io::Result<()> {
        warning(
            to,
            &format!(
                "{what}; `{}` holds what was recorded until then",
                self.file()
            ),
        )?;
        self.next(to)
    }

    /// The recording's path, safe to print.
    fn file(&self) -> String {
        printable(&escaped(self.recording.as_os_str().as_bytes())).into_owned()
    }

    fn next(&self, to: &mut impl Write) -> io::Result<()> {
        let file = self.file();
        let file = shlex::try_quote(&file).unwrap_or(Cow::Borrowed("FILE"));
        writeln!(to, "  next      leakline leaks {file}    leakline {file}")
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
        .map_or_else(
            || format!("signal {number}"),
            |(_, name)| (*name).to_owned(),
        )
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ended: Ended, outcome: &Outcome) -> String {
        let report = Report {
            command: "python train.py",
            ended,
            lasted: Duration::from_secs(192),
            recording: Path::new("python.4121.leakline"),
            is_sampled: false,
            outcome,
            findings: &Findings {
                verdict: Some("no leak found; growth above 40.0 KiB/min would have shown".into()),
                most_of_peak: Some("1.20 GiB of it in load_batch  train.py:57".into()),
            },
        };
        let mut bytes = Vec::new();
        report
            .write(&mut anstream::StripStream::new(&mut bytes))
            .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn summary() -> Summary {
        Summary {
            processes: 1,
            allocations: 48_201_337,
            peak_bytes: 2 << 30,
            peak_at_ns: 127_000_000_000,
            live_bytes: 61 << 20,
            live_blocks: 1234,
            file_bytes: 3_250_586,
            ..Summary::default()
        }
    }

    #[test]
    fn a_program_that_ended_well() {
        let outcome = Outcome::Finished(summary());
        insta::assert_snapshot!(report(Ended::Exited(0), &outcome), @"
        leakline: python train.py ended with status 0 after 3 min 12 s
          verdict   no leak found; growth above 40.0 KiB/min would have shown
          peak      2.00 GiB at 2 min 07 s, 1.20 GiB of it in load_batch  train.py:57
          at exit   61.0 MiB live in 1,234 blocks
          recorded  48,201,337 allocations, all of them; python.4121.leakline, 3.1 MiB
          next      leakline leaks python.4121.leakline    leakline python.4121.leakline
        ");
    }

    #[test]
    fn a_program_that_was_killed_while_others_go_on() {
        let outcome = Outcome::Finished(Summary {
            lost_events: 12_345,
            still_running: 2,
            unanswered: 3,
            write_error: Some("no space left on device".into()),
            ..summary()
        });
        insta::assert_snapshot!(report(Ended::Killed(libc::SIGKILL), &outcome), @"
        leakline: python train.py was killed (SIGKILL) after 3 min 12 s
          verdict   no leak found; growth above 40.0 KiB/min would have shown
          peak      2.00 GiB at 2 min 07 s, 1.20 GiB of it in load_batch  train.py:57
          at exit   61.0 MiB live in 1,234 blocks
          recorded  48,201,337 allocations, 12,345 events lost; python.4121.leakline, 3.1 MiB
          running   2 processes go on, and on being recorded
        warning: 3 processes were not recorded: the collector did not answer in time
        warning: events were lost: the figures are less than the truth
        warning: the recording ends early: no space left on device
          next      leakline leaks python.4121.leakline    leakline python.4121.leakline
        ");
    }

    #[test]
    fn a_program_that_was_not_recorded() {
        let outcome = Outcome::Finished(Summary {
            never_joined: true,
            ..Summary::default()
        });
        insta::assert_snapshot!(report(Ended::Exited(1), &outcome), @"
        leakline: python train.py ended with status 1 after 3 min 12 s
        warning: nothing was recorded: the program did not load leakline's library (is LD_PRELOAD dropped from its environment?)
        ");
    }

    #[test]
    fn a_collector_that_did_not_live_to_the_end() {
        let gone = Outcome::CollectorGone(Some(Ended::Killed(libc::SIGKILL)));
        insta::assert_snapshot!(report(Ended::Exited(0), &gone), @"
        leakline: python train.py ended with status 0 after 3 min 12 s
        warning: the collector was killed (SIGKILL); `python.4121.leakline` holds what was recorded until then
          next      leakline leaks python.4121.leakline    leakline python.4121.leakline
        ");
        let failed = Outcome::Failed("no space left on device".into());
        assert!(report(Ended::Exited(0), &failed).contains("the collector gave up: no space left"));
        let stuck = report(Ended::Killed(libc::SIGRTMIN()), &Outcome::CollectorStuck);
        assert!(stuck.contains("was killed (signal 34)"), "{stuck}");
        assert!(
            stuck.contains("the collector makes no progress; `python"),
            "{stuck}"
        );
        let left = report(Ended::Exited(0), &Outcome::NotWaitedFor);
        assert!(left.contains("in the background"), "{left}");
    }

    #[test]
    fn the_kernels_line_about_a_process_is_read() {
        let stat = "77 (a) b (c)) T 1 77 77 0 -1 4194304 109 0 0 0 7 5 0 0 20 0 1 0 1234 0 0";
        assert_eq!(parse_stat(stat), Some((true, 12)));
        assert_eq!(parse_stat(&stat.replace(" T ", " R ")), Some((false, 12)));
        assert_eq!(parse_stat("77 (a) T 1"), None);
        assert_eq!(parse_stat(""), None);
        assert!(Pulse::new(rustix::process::getpid()).beats());
    }
}
