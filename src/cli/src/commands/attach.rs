//! `leakline attach`: records processes that are running already, and leaves
//! them as they were.
//!
//! The steps, so that nothing is touched where one fails:
//!
//! 1. look at the process: whatever would stop us is told ([`inspect`]);
//! 2. make the recording's file, start the collector ([`super::run::session`]);
//! 3. one process of the tree after the other: have a thread of it load the
//!    interposer, and join ([`entry`]);
//! 4. wait for an end: the user's, the time's, the processes' own;
//! 5. have all of them leave; fetch those that do not come by themselves;
//! 6. say what was recorded.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueHint;
use leakline_analysis::escaped;
use leakline_analysis::ledger::{self, Ledger};
use leakline_analysis::report::{blocks, bytes, duration, printable, signed_bytes};
use leakline_collector::protocol::{FromCollector, GraphState, Options, Summary, ToCollector};
use leakline_inject::inspect::{self, Glance, Namespace, NoPlace, Obstacle, Process};
use leakline_recording::record;
use leakline_wire::layout::mode;
use rustix::process::Signal;

use super::heap_at::{self, Heap, HeapAt, parse_heap_at};
use super::live::screen::{self, Afterwards, Side};
use super::run::output::{self, Output};
use super::run::session::{Answer, Collector, Invitation};
use super::run::signals::Signals;
use super::run::{Sample, end, host, idle};
use super::snapshot::graph_words;
use crate::{CliError, preload};
use control::Door;
use entry::Entry;
use graphs::Graphs;
use tree::{Arrivals, tree};

pub(super) mod control;
mod entry;
mod graphs;
mod tree;

pub(super) use entry::fetch;

/// Records processes that are running already.
///
/// Takes the process and all its children, those to come too. Nothing has to be
/// installed or restarted there. When it ends, by Ctrl-C, SIGTERM, a lost
/// terminal, `leakline detach` or --duration, every process is left as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline attach 4121
  leakline attach 4121 --duration 10m -o worker.leakline
  leakline attach 4121 --exact --duration 30s
  leakline attach 4121 --max-overhead 0.5
  leakline attach 4121 --live
  leakline attach 4121 --background && leakline detach 4121

Exit status: 0 when all were left as they were, 3 if nothing could be recorded
or a process could not be left.")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(crate) struct Args {
    /// The process
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pid: u32,

    /// Record to FILE, or to standard output with `-` [default: PROGRAM.PID.leakline]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,

    /// Leave after this time, as `90s`, `10m` or `1h`
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Leave when the recording has this size
    #[arg(long, value_name = "BYTES", value_parser = super::size)]
    max_size: Option<u64>,

    /// Record a sample of the blocks, one in BYTES allocated on average, with error
    /// bars in reports. `auto`: as many as take less than 1 % of the program's time
    #[arg(
        long,
        value_name = "BYTES|auto",
        default_value = "auto",
        value_parser = super::run::parse_sample,
        conflicts_with = "exact"
    )]
    sample: Sample,

    /// Record every block instead of a sample: slower, and exact
    #[arg(long)]
    exact: bool,

    /// Take fewer samples while they take more than PERCENT of the processor time that
    /// the processes use [default: 1 with `--sample auto`, else no limit]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, conflicts_with = "exact")]
    max_overhead: Option<f64>,

    /// Record malloc and mmap only, with native stacks only
    #[arg(long, conflicts_with = "no_native")]
    no_python: bool,

    /// Record Python's allocators only, with Python stacks only
    #[arg(long)]
    no_native: bool,

    /// Record this process only, not its children
    #[arg(long)]
    no_follow: bool,

    /// Whether heap graphs are taken, for `leakline why`: `auto` at the beginning, as
    /// memory grows and at the end, where there is memory enough for it; or `never`. A
    /// process stands still as long as a fork of it takes: about 20 ms a GiB
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Heap::Auto)]
    heap: Heap,

    /// Take heap graphs then, too, also with `--heap never`: `exit`, at the end; `peak`,
    /// each time that a quarter more lives than at the last one, so that the newest is
    /// of a moment near the peak; or so long after the beginning, as `+90s`. Several are
    /// separated by commas
    #[arg(long, value_name = "exit|peak|+TIME", value_parser = parse_heap_at, value_delimiter = ',')]
    heap_at: Vec<HeapAt>,

    /// Write keys of dicts into heap graphs, as `SESSIONS['user-42']`: texts up to 64
    /// characters, bytes up to 32, numbers; of what the program works with, so they may be
    /// names or secrets of its users. Without it keys are `[str]`, and no value is recorded
    #[arg(long)]
    values: bool,

    /// Take no heap graph of a process that would stand still for longer than TIME
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = parse_duration)]
    max_pause: Duration,

    /// Attach although a seccomp filter limits the process's system calls: those of
    /// Docker, containerd and systemd let a library be loaded, others may kill the
    /// process for it
    #[arg(long)]
    despite_seccomp: bool,

    /// Show the recording in the terminal UI; leaving that detaches
    #[arg(long, conflicts_with = "background")]
    live: bool,

    /// Go on in the background once all processes are recorded
    #[arg(long)]
    background: bool,

    /// Leave source lines out of the recording
    #[arg(long)]
    no_source: bool,

    /// Say nothing but what goes wrong
    #[arg(short, long)]
    quiet: bool,

    /// Most memory for events that the collector has not read yet
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = super::run::parse_ring_size)]
    ring_size: u64,
}

/// A part of a whole, given in percent: `0.5`, `2%`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.01..=100.0).contains(&percent) => Ok(percent / 100.0),
        Ok(_) => Err("must be between 0.01 and 100".into()),
        Err(_) => Err("not a number of percent such as `1` or `0.5`".into()),
    }
}

/// A time as users write it: `90s`, `10m`, `1h30m`, `45` (seconds).
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a time such as `90s`, `10m` or `1h`".to_owned();
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        seconds += number
            * match &rest[digits..unit_end] {
                "" | "s" => 1.0,
                "ms" => 0.001,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(wrong)
}

/// Why an attached session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The user, or whoever sends signals, wants it to.
    Asked,
    /// Its time is over.
    Time,
    /// The file is as large as it may be.
    Size,
    /// All processes have ended by themselves.
    Exited,
    /// The collector is gone.
    CollectorGone,
}

/// Records until an end comes.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut target = Process::look(args.pid).map_err(CliError::Refused)?;
    let keeper = keeper_of(&target);
    if keeper.is_none() {
        target = look(args.pid, args.despite_seccomp)?;
    }
    let tree = if args.no_follow || keeper.is_some() {
        vec![target.pid]
    } else {
        tree(target.pid)
    };
    super::run::limits::check().map_err(as_report)?;
    let program = program_path(&target);
    let invitation = invitation(&target)?;
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    let mut link = None;
    if args.live && to_stdout {
        return Err(CliError::Usage {
            message: "with `--live` standard output is the screen, and no place for a recording"
                .into(),
            hint: Some("`-o FILE` names another".into()),
        });
    }
    if args.live {
        match screen::part(Signal::TERM).map_err(as_report)? {
            Side::Screen(screen) => return Ok(screen.show(Afterwards::Detaches)),
            Side::Recorder(to_screen) => link = Some(to_screen),
        }
    }
    let path = match &args.output {
        _ if to_stdout => temporary_path()?,
        Some(path) => path.clone(),
        None => output::default_path(&program, target.pid.cast_signed()),
    };
    let file = Output::create(path, args.force).map_err(as_report)?;
    let door = Door::open(&target).map_err(|source| failed("open a socket", source))?;
    let signals = Signals::take();
    let options = args.collector_options(&invitation, &target);
    let collector = Collector::start(file.file(), &invitation, options).map_err(as_report)?;
    collector.send(&ToCollector::Spawned { pid: target.pid });

    let mut session = Session {
        collector,
        entries: Vec::new(),
        staying: Vec::new(),
        coarser: None,
        graphs: Graphs::default(),
        looked: Vec::new(),
        found: Vec::new(),
        finished: None,
        failure: None,
    };
    let says = Says {
        is_on: !args.quiet,
        on_terminal: io::stderr().is_terminal(),
    };
    says.line(&describe(&target, tree.len()));
    let entered = match &keeper {
        Some(keeper) => session.wake(keeper, &target, &invitation, &says),
        None => session.take(&target, &invitation),
    };
    if let Err(error) = entered {
        invitation.remove();
        session.collector.kill();
        return Err(error);
    }
    for pid in tree.iter().filter(|pid| **pid != target.pid) {
        // One that ended meanwhile, or cannot be recorded, is told of; the
        // others are.
        match look(*pid, args.despite_seccomp).and_then(|child| session.take(&child, &invitation)) {
            Ok(()) => {}
            Err(error) => says.line(&format!("  {pid} left out: {error}")),
        }
    }
    let arrivals = (!args.no_follow && keeper.is_none()).then(|| Arrivals::after(&tree));
    if arrivals.is_none() {
        invitation.remove();
    }
    let recording = file.keep();
    says.pauses(&session.entries);
    if !door.is_found() {
        says.line(
            "`leakline detach` will not find this session, whose name is taken: SIGTERM to \
             this command ends it",
        );
    }
    let shown = if to_stdout {
        "standard output".to_owned()
    } else {
        printable(&recording.to_string_lossy()).into_owned()
    };
    says.line(&format!(
        "recording to {shown}; {} detaches",
        if args.background {
            format!("`leakline detach {}`", target.pid)
        } else if args.live {
            "leaving what shows it".to_owned()
        } else {
            "Ctrl-C or losing this terminal".to_owned()
        }
    ));
    if args.background && become_background()? {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(link) = link {
        link.tell(&recording);
    }

    if args.takes_graphs() {
        session.ask_for_graphs("attach");
    }
    let began = Instant::now();
    let mut newcomers = arrivals.map(|arrivals| Newcomers {
        arrivals,
        invitation: &invitation,
        left_out: 0,
    });
    let ends = Ends {
        signals: &signals,
        door: &door,
        recording: &recording,
    };
    let end = session.until(&ends, newcomers.as_mut(), args, began, &says);
    invitation.remove();
    let left_out = newcomers.map_or(0, |newcomers| newcomers.left_out);
    let told = if args.live { 0 } else { MOST_TOLD };
    if left_out > told {
        let untold = left_out - told;
        says.line(&format!(
            "{untold} more programs came later, and were left out"
        ));
    }
    let is_asked = args.heap_at.contains(&HeapAt::Exit);
    if (args.takes_graphs() || is_asked) && session.finished.is_none() && session.failure.is_none()
    {
        session.take_last_graphs(&signals, args, &says);
    }
    let left = session.leave(&signals);
    let lasted = began.elapsed();
    if to_stdout && session.finished.is_some() {
        hand_over(&recording).map_err(CliError::Output)?;
    }
    says.end(&session, end, left, lasted, &recording, to_stdout);
    door.answer(left.is_whole());
    match (&session.finished, session.failure.take()) {
        (Some(_), _) if left.is_whole() => Ok(ExitCode::SUCCESS),
        (Some(_), _) => Ok(ExitCode::from(3)),
        (None, why) => Err(CliError::Report {
            message: format!(
                "the collector ended early: {}",
                why.unwrap_or_else(|| "it did not say why".into())
            ),
            hint: Some(format!(
                "`{}` holds what was recorded up to there",
                recording.display()
            )),
            source: None,
        }),
    }
}

/// Looks at a process; what would stop an attach is the error.
fn look(pid: u32, despite_seccomp: bool) -> Result<Process, CliError> {
    let refused = |refused: inspect::Refused| CliError::Refused(refused);
    let process = Process::look(pid).map_err(refused)?;
    let stops = |obstacle: &Obstacle| !(despite_seccomp && matches!(obstacle, Obstacle::Seccomp));
    let found = process.obstacles().into_iter().find(stops);
    let forbidden = || {
        if despite_seccomp {
            None
        } else {
            process.forbidden()
        }
    };
    match found.or_else(forbidden) {
        None => check_room(pid).map(|()| process),
        Some(obstacle) => Err(refused(inspect::Refused { pid, obstacle })),
    }
}

/// Refuses where a limit on the process's address space would be used up by the
/// session's map, and the program's own allocations would fail.
fn check_room(pid: u32) -> Result<(), CliError> {
    const NEEDED: u64 = 1 << 30;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let limits = read("limits").unwrap_or_default();
    let limit: Option<u64> = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))
        .and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    let pages: u64 = read("statm")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .next()
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let used = pages * rustix::param::page_size() as u64;
    match limit {
        Some(limit) if limit.saturating_sub(used) < NEEDED => Err(CliError::Report {
            message: format!(
                "cannot attach to process {pid}: its address space is limited to {} (`ulimit -v`), \
                 of which {} are in use, and the session takes 576 MiB of it",
                bytes(limit),
                bytes(used)
            ),
            hint: Some(format!(
                "raise the limit, as with `prlimit --pid {pid} --as=unlimited`"
            )),
            source: None,
        }),
        _ => Ok(()),
    }
}

/// The program started with `run --idle` that a process is of, if one keeps it:
/// the process itself, or what it descends from.
fn keeper_of(process: &Process) -> Option<Glance> {
    let mut pid = process.pid;
    // The interposer's page is in the memory of all of them.
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let name = b"/memfd:leakline-idle";
    if !maps.is_empty() && !maps.windows(name.len()).any(|part| part == name) {
        return None;
    }
    for _ in 0..32 {
        let glance = Glance::at(pid)?;
        if idle::is_kept(pid, glance.start_ticks) {
            return Some(glance);
        }
        pid = Process::look(pid).ok()?.parent_pid;
    }
    None
}

fn program_path(target: &Process) -> PathBuf {
    let path = target.program.as_ref().map(|program| program.path.clone());
    path.filter(|path| path.file_name().is_some())
        .unwrap_or_else(|| PathBuf::from(&target.name))
}

/// How the processes find the session.
fn invitation(target: &Process) -> Result<Invitation, CliError> {
    let made = if target.namespaces.network == Namespace::Other || !target.has_our_files() {
        // Abstract names are another network namespace's own.
        let place = target
            .socket_place()
            .map_err(|error| no_place(target.pid, error))?;
        let root = PathBuf::from(format!("/proc/{}/root", target.pid));
        preload::open_below(&root, &place).and_then(|ours| Invitation::below(ours, &place))
    } else {
        Invitation::new()
    };
    made.map_err(|error| failed("make a way into the session", error.into()))
}

fn no_place(pid: u32, error: NoPlace) -> CliError {
    CliError::Report {
        message: format!("cannot attach to process {pid}"),
        hint: None,
        source: Some(Box::new(error)),
    }
}

fn failed(action: &'static str, source: io::Error) -> CliError {
    CliError::Report {
        message: format!("cannot {action}"),
        hint: None,
        source: Some(Box::new(source)),
    }
}

/// What `run` fails by, with a report's exit status.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands where a function is called with an error"
)]
fn as_report(error: CliError) -> CliError {
    let hint = error.hint();
    CliError::Report {
        message: error.to_string(),
        hint,
        source: std::error::Error::source(&error).map(|source| source.to_string().into()),
    }
}

impl Args {
    /// Whether heap graphs are taken by themselves.
    fn takes_graphs(&self) -> bool {
        self.heap == Heap::Auto && !self.no_python
    }

    fn collector_options(&self, invitation: &Invitation, target: &Process) -> Options {
        let mut bits = mode::ON;
        if self.heap_at.contains(&HeapAt::Exit) {
            bits |= mode::GRAPH_AT_END;
        }
        if self.values {
            bits |= mode::VALUES;
        }
        if !self.no_native {
            bits |= mode::NATIVE | mode::NATIVE_STACKS;
        }
        if !self.no_python {
            bits |= mode::PYTHON;
        }
        if !self.no_follow {
            bits |= mode::FOLLOW;
        }
        let sample = (!self.exact).then_some(self.sample);
        if sample.is_some() {
            bits |= mode::SAMPLED;
        }
        Options {
            session: record::Session {
                started_unix_ns: 0,
                leakline: env!("CARGO_PKG_VERSION").into(),
                command: leakline_collector::public_command(&target.arguments),
                mode: sample.map_or("exact", |_| "sampled").into(),
                sample_bytes: sample.map_or(0, |sample| sample.mean_bytes),
                python: !self.no_python,
                native: !self.no_native,
                host: host(),
                temporary_window: 1,
            },
            token: invitation.token(),
            mode: bits,
            steering: sample.and_then(|sample| sample.steering(self.max_overhead)),
            most_share: self.max_overhead,
            wait_strikes: WAIT_STRIKES,
            ring_bytes: self.ring_size,
            sources: !self.no_source,
            symbols: true,
            attached: true,
            forking_filters: target.forking_filters(),
            most_pause: self.max_pause,
            graphs: heap_at::plan(self.takes_graphs(), &self.heap_at),
        }
    }
}

/// Waits of 5 ms for a collector that does not get on, before a process drops
/// events: 100 ms in all.
const WAIT_STRIKES: u32 = 20;

/// An attached session, as its supervisor sees it.
struct Session {
    collector: Collector,
    entries: Vec<Entry>,
    /// Processes that are to leave, and do not come by.
    staying: Vec<u32>,
    /// The mean in bytes that samples are taken at, and what part of the time those
    /// at a smaller one took: not told yet.
    coarser: Option<(u64, f64)>,
    graphs: Graphs,
    /// What processes' memory was made of, as far as it was not told yet.
    looked: Vec<(u32, Box<record::Ledger>)>,
    /// What lived in processes, by type, as far as it was not told yet.
    found: Vec<(u32, Vec<record::OfType>)>,
    finished: Option<Summary>,
    failure: Option<String>,
}

/// By what a session can end.
struct Ends<'a> {
    signals: &'a Signals,
    door: &'a Door,
    recording: &'a Path,
}

/// Programs to come, and how they find the session.
struct Newcomers<'a> {
    arrivals: Arrivals,
    invitation: &'a Invitation,
    /// How many could not be recorded.
    left_out: usize,
}

/// Of so many programs that came later and could not be recorded it is told why; of
/// the rest, how many they were.
const MOST_TOLD: usize = 8;

/// How the processes were left.
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    /// Those that had to be fetched and could not.
    unreached: usize,
    /// The longest that one was stopped for it.
    longest: Duration,
}

impl Left {
    fn is_whole(self) -> bool {
        self.unreached == 0
    }
}

impl Session {
    /// Has a process join.
    fn take(&mut self, process: &Process, invitation: &Invitation) -> Result<(), CliError> {
        let entry = Entry::make(process, invitation)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Wakes a program that was started to be; it joins when it next makes or frees
    /// a block.
    fn wake(
        &mut self,
        keeper: &Glance,
        process: &Process,
        invitation: &Invitation,
        says: &Says,
    ) -> Result<(), CliError> {
        const SOON: Duration = Duration::from_millis(500);
        const PATIENCE: Duration = Duration::from_secs(30);
        let refused = |source| failed("wake the program", source);
        if !idle::wake(keeper.pid, keeper.start_ticks, &invitation.to_env()).map_err(refused)? {
            return Err(refused(io::ErrorKind::NotFound.into()));
        }
        let began = Instant::now();
        let mut is_told = false;
        loop {
            if self.hears_of(process.pid) {
                self.entries.push(Entry {
                    pid: process.pid,
                    start_ticks: process.start_ticks,
                    paused: Duration::ZERO,
                });
                return Ok(());
            }
            let waited = began.elapsed();
            if waited > SOON && !std::mem::replace(&mut is_told, true) {
                says.line("woken; it joins when it next makes or frees a block");
            }
            if waited > PATIENCE {
                return Err(CliError::Report {
                    message: format!("process {} does not wake", process.pid),
                    hint: Some(
                        "it made and freed no block in 30 s: try again when it works".into(),
                    ),
                    source: None,
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the collector has told that this process joined.
    fn hears_of(&self, pid: u32) -> bool {
        matches!(
            self.collector.receive(Duration::ZERO),
            Answer::Message(FromCollector::Joined { pid: joined }) if joined == pid
        )
    }

    /// Waits for an end.
    fn until(
        &mut self,
        ends: &Ends<'_>,
        mut newcomers: Option<&mut Newcomers<'_>>,
        args: &Args,
        began: Instant,
        says: &Says,
    ) -> End {
        const STEP: Duration = Duration::from_millis(100);
        let Ends {
            signals,
            door,
            recording,
        } = ends;
        let mut looked = Instant::now();
        let mut growth = Growth::of(&self.entries);
        loop {
            if let Some(received) = signals.wait(Some(STEP)) {
                match received.signal {
                    libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => {
                        return End::Asked;
                    }
                    libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                        signals.suffer(received.signal);
                    }
                    _ => {}
                }
            }
            while !matches!(self.hear(Duration::ZERO), Heard::Nothing) {
                if let Some((mean, share)) = self.coarser.take()
                    && args.max_overhead.is_some()
                    && !args.live
                {
                    says.line(&format!(
                        "samples took {:.1} % of the time: one in {} from now on",
                        share * 100.0,
                        bytes(mean)
                    ));
                }
                if self.finished.is_some() {
                    return End::Exited;
                }
                if self.failure.is_some() {
                    return End::CollectorGone;
                }
            }
            self.tell_of_graphs(args, says);
            self.tell_what_was_there(args, says);
            if door.knocks() {
                return End::Asked;
            }
            if let Some(newcomers) = &mut newcomers {
                self.take_newcomer(newcomers, args, says);
            }
            // With --live what is said comes at the end only.
            if !args.live
                && let Some(line) = growth.due(&self.entries, recording)
            {
                says.progress(&line);
            }
            if args.duration.is_some_and(|most| began.elapsed() >= most) {
                return End::Time;
            }
            if let Some(most) = args.max_size
                && looked.elapsed() >= Duration::from_secs(1)
            {
                looked = Instant::now();
                if recording.metadata().is_ok_and(|data| data.len() >= most) {
                    return End::Size;
                }
            }
        }
    }

    /// Goes to one of the programs that processes of the tree have started: whoever
    /// wants the session to end waits meanwhile.
    fn take_newcomer(&mut self, newcomers: &mut Newcomers<'_>, args: &Args, says: &Says) {
        let Some((pid, start_ticks)) = newcomers.arrivals.next() else {
            return;
        };
        let taken = look(pid, args.despite_seccomp).and_then(|child| {
            if child.start_ticks == start_ticks {
                self.take(&child, newcomers.invitation)?;
            }
            Ok(child)
        });
        let line = match taken {
            // It has gone, and so may have its number.
            Ok(child) if child.start_ticks != start_ticks => return,
            Err(_) if Glance::at(pid).is_none() => return,
            Ok(child) => format!(
                "{pid:>8} {} came later, and is recorded: paused {}",
                printable(&child.name),
                milliseconds(self.entries.last().map_or(Duration::ZERO, |one| one.paused))
            ),
            Err(error) => {
                newcomers.left_out += 1;
                match newcomers.left_out {
                    ..=MOST_TOLD => format!("  {pid} came later, and is left out: {error}"),
                    _ => return,
                }
            }
        };
        if !args.live {
            says.line(&line);
        }
    }

    fn hear(&mut self, at_most: Duration) -> Heard {
        match self.collector.receive(at_most) {
            Answer::Nothing => return Heard::Nothing,
            Answer::Gone => {
                self.failure
                    .get_or_insert_with(|| "its process is gone".into());
            }
            Answer::Message(FromCollector::Finished(summary)) => self.finished = Some(summary),
            Answer::Message(FromCollector::Failed { error }) => self.failure = Some(error),
            Answer::Message(FromCollector::Staying { pids }) => self.staying = pids,
            Answer::Message(FromCollector::Coarser { mean_bytes, share }) => {
                self.coarser = Some((mean_bytes, share));
            }
            Answer::Message(FromCollector::Graphs(states)) => self.graphs.update(states),
            Answer::Message(FromCollector::NoGraphs { why }) => self.graphs.refuse(why),
            Answer::Message(FromCollector::Looked { pid, ledger }) => {
                self.looked.push((pid, ledger));
            }
            Answer::Message(FromCollector::Found { pid, types }) => self.found.push((pid, types)),
            Answer::Message(FromCollector::Ready | FromCollector::Joined { .. }) => {}
        }
        Heard::Something
    }

    fn ask_for_graphs(&mut self, name: &str) {
        self.graphs.is_expected = self
            .collector
            .send(&ToCollector::TakeGraphs { name: name.into() });
        self.graphs.name = name.into();
    }

    /// Says what became of heap graphs since this was last called.
    fn tell_of_graphs(&mut self, args: &Args, says: &Says) {
        let settled: Vec<GraphState> = self.graphs.take_settled();
        // With --live what is said comes at the end only.
        if !args.live {
            for state in settled {
                says.line(&graph_words(&state));
            }
        }
    }

    /// Says what lived in processes when they joined.
    fn tell_what_was_there(&mut self, args: &Args, says: &Says) {
        let is_one = self.entries.len() < 2;
        for (pid, ledger) in std::mem::take(&mut self.looked) {
            let ledger = Ledger::of(&ledger);
            let words = ledger::judge(&ledger, None).words;
            let whose = if is_one {
                String::new()
            } else {
                format!("{pid:>8} ")
            };
            if !args.live {
                says.line(&format!(
                    "{whose}RSS {}: {words}",
                    bytes(ledger.rss_bytes())
                ));
            }
        }
        for (pid, types) in std::mem::take(&mut self.found) {
            if args.live || types.is_empty() {
                continue;
            }
            let types = types.iter().map(|one| {
                format!(
                    "{} {}, {}",
                    blocks(one.objects),
                    printable(&one.name),
                    bytes(one.bytes)
                )
            });
            let types: Vec<String> = types.collect();
            let whose = if is_one {
                String::new()
            } else {
                format!(" in {pid}")
            };
            says.line(&format!("already there{whose}: {}", types.join("; ")));
        }
    }

    /// Has heap graphs taken before the processes are left. Who does not come by for it
    /// is not waited for.
    fn take_last_graphs(&mut self, signals: &Signals, args: &Args, says: &Says) {
        /// Until one is begun, and until it is there.
        const PATIENCE: Duration = Duration::from_secs(2);
        const LONGEST: Duration = Duration::from_secs(65);
        self.ask_for_graphs("detach");
        let mut since = Instant::now();
        let mut progress = self.graphs.progress();
        while self.graphs.is_expected && self.finished.is_none() && self.failure.is_none() {
            self.hear(Duration::from_millis(50));
            self.tell_of_graphs(args, says);
            let now = self.graphs.progress();
            if now != progress {
                progress = now;
                since = Instant::now();
            }
            let patience = if self.graphs.is_any_begun() {
                LONGEST
            } else {
                PATIENCE
            };
            // Who asks to end once more does not want to wait.
            let is_asked = std::iter::from_fn(|| signals.wait(Some(Duration::ZERO)))
                .any(|received| matches!(received.signal, libc::SIGINT | libc::SIGQUIT));
            if since.elapsed() > patience || is_asked {
                break;
            }
        }
        if !args.live {
            for line in self.graphs.missing() {
                says.line(&line);
            }
        }
    }

    /// Has all processes leave, and waits until the recording is whole.
    fn leave(&mut self, signals: &Signals) -> Left {
        const LONGEST: Duration = Duration::from_secs(130);
        let mut left = Left::default();
        if self.finished.is_some() {
            return left;
        }
        if !self.collector.send(&ToCollector::Leave) || self.failure.is_some() {
            // Nobody is there to tell them: they are fetched, all of them.
            self.staying = self.entries.iter().map(|entry| entry.pid).collect();
            self.fetch(&mut left);
            return left;
        }
        let began = Instant::now();
        while self.finished.is_none() && began.elapsed() < LONGEST {
            self.hear(Duration::from_millis(100));
            if self.failure.is_some() {
                self.staying = self.entries.iter().map(|entry| entry.pid).collect();
            }
            self.fetch(&mut left);
            if self.failure.is_some() {
                break;
            }
            while let Some(received) = signals.wait(Some(Duration::ZERO)) {
                if matches!(received.signal, libc::SIGINT | libc::SIGQUIT)
                    && began.elapsed() > Duration::from_secs(3)
                {
                    return left;
                }
            }
        }
        left
    }

    /// When a process that was made to join had started; `None` of a child that came
    /// later.
    fn start_of(&self, pid: u32) -> Option<u64> {
        // The last: the number may have been another's before.
        let entry = self.entries.iter().rev().find(|entry| entry.pid == pid)?;
        Some(entry.start_ticks)
    }

    /// Goes to the processes that did not come by.
    fn fetch(&mut self, left: &mut Left) {
        for pid in std::mem::take(&mut self.staying) {
            match entry::fetch(pid, self.start_of(pid)) {
                Ok(paused) => left.longest = left.longest.max(paused),
                Err(_) => left.unreached += 1,
            }
        }
    }
}

/// What is said each minute of a session on a terminal: how the processes' memory
/// has changed, and what may be the reason.
struct Growth {
    began: Instant,
    /// Minutes that were told of.
    told: u64,
    /// Resident bytes of all processes at the beginning.
    resident: u64,
}

impl Growth {
    fn of(entries: &[Entry]) -> Growth {
        Growth {
            began: Instant::now(),
            told: 0,
            resident: resident(entries),
        }
    }

    /// The line, when it is time for one: after 1, 2, 4, 8 and each further 8 minutes.
    fn due(&mut self, entries: &[Entry], recording: &Path) -> Option<String> {
        let minutes = self.began.elapsed().as_secs() / 60;
        let is_due =
            minutes > self.told && (minutes.is_power_of_two() || minutes.is_multiple_of(8));
        if !is_due {
            return None;
        }
        self.told = minutes;
        let now = resident(entries);
        let change = now.cast_signed() - self.resident.cast_signed();
        let verdict = end::findings(recording).verdict.unwrap_or_default();
        let line = format!(
            "{minutes:>3} min   RSS {}   {verdict}",
            signed_bytes(change)
        );
        Some(line.trim_end().to_owned())
    }
}

/// Resident bytes of the processes that there are still.
fn resident(entries: &[Entry]) -> u64 {
    let glances = entries.iter().filter_map(|entry| Glance::at(entry.pid));
    glances.map(|glance| glance.rss_bytes).sum()
}

enum Heard {
    Something,
    Nothing,
}

/// Where a recording is written that goes to standard output.
fn temporary_path() -> Result<PathBuf, CliError> {
    let random = crate::random().map_err(|error| failed("get random bytes", error.into()))?;
    let name = format!("leakline-{:016x}.leakline", u64::from_ne_bytes(random));
    Ok(std::env::temp_dir().join(name))
}

/// Copies the recording to standard output, and removes it.
fn hand_over(recording: &Path) -> io::Result<()> {
    let mut file = std::fs::File::open(recording)?;
    std::fs::remove_file(recording)?;
    io::copy(&mut file, &mut io::stdout().lock())?;
    io::stdout().lock().flush()
}

/// Goes on in a child that no terminal and no shell knows of. True in the parent,
/// which is to end.
fn become_background() -> Result<bool, CliError> {
    // SAFETY: one thread runs in this process; the child goes on with everything
    // that it has.
    match unsafe { libc::fork() } {
        -1 => Err(failed(
            "go on in the background",
            io::Error::last_os_error(),
        )),
        0 => {
            let _ = rustix::process::setsid();
            if let Ok(null) = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
            {
                let _ = rustix::stdio::dup2_stdin(&null);
                let _ = rustix::stdio::dup2_stdout(&null);
                let _ = rustix::stdio::dup2_stderr(&null);
            }
            Ok(false)
        }
        _ => Ok(true),
    }
}

/// What the process is, in a line.
fn describe(target: &Process, processes: usize) -> String {
    let mut words = vec![format!(
        "{} (pid {})",
        printable(&escaped(
            program_path(target)
                .file_name()
                .unwrap_or(OsStr::new("?"))
                .as_bytes()
        )),
        target.pid
    )];
    match processes {
        0 | 1 => {}
        2 => words[0] += " and 1 child",
        more => words[0] = format!("{} and {} children", words[0], more - 1),
    }
    if let Some(program) = &target.program {
        if let Some(python) = &program.python {
            words.push(format!("CPython {}", python.version.text));
        }
        if let Some(glibc) = &program.glibc {
            words.push(format!("glibc {glibc}"));
        }
        for own in &program.allocators {
            words.push(own.allocator.name().to_owned());
        }
    }
    if let Some(limit) = target.memory_limit {
        words.push(format!("limit {}", bytes(limit.limit_bytes)));
    }
    words.join(", ")
}

/// What is said on the way.
struct Says {
    is_on: bool,
    on_terminal: bool,
}

impl Says {
    fn line(&self, text: &str) {
        if self.is_on {
            // A terminal that went away is nobody to tell.
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        }
    }

    /// A line while it goes on: on a terminal only.
    fn progress(&self, text: &str) {
        if self.on_terminal {
            self.line(text);
        }
    }

    /// How long each process was stopped.
    fn pauses(&self, entries: &[Entry]) {
        let mut line = String::new();
        for (at, entry) in entries.iter().enumerate() {
            let word = if at == 0 { " paused" } else { "" };
            let next = format!("  {}{word} {}", entry.pid, milliseconds(entry.paused));
            if line.len() + next.len() > 78 {
                self.line(&line);
                line.clear();
            }
            line.push_str(&next);
        }
        self.line(&line);
    }

    fn end(
        &self,
        session: &Session,
        end: End,
        left: Left,
        lasted: Duration,
        recording: &Path,
        to_stdout: bool,
    ) {
        let Some(summary) = &session.finished else {
            return;
        };
        let all = summary.processes as usize;
        let why = match end {
            End::Asked | End::CollectorGone => "detached",
            End::Time => "detached (its time is over)",
            End::Size => "detached (the recording has the size allowed)",
            End::Exited => "all processes ended",
        };
        let longest = session
            .entries
            .iter()
            .map(|entry| entry.paused)
            .chain([left.longest])
            .max()
            .unwrap_or_default()
            .max(session.graphs.longest_pause());
        let lost = match summary.lost_events {
            0 => "0 events lost".to_owned(),
            lost => format!("{} events LOST", blocks(lost)),
        };
        let how = if end == End::Exited {
            String::new()
        } else {
            format!(": {} of {all} as before", all - left.unreached.min(all))
        };
        self.line(&format!(
            "{why}{how}, longest pause {}, {lost}",
            milliseconds(longest)
        ));
        if left.unreached > 0 {
            self.line("those that are not leave by themselves when they next make or free a block");
        }
        self.line(&format!(
            "{} allocations in {}",
            blocks(summary.allocations),
            duration(lasted.as_nanos() as u64)
        ));
        if let Some(error) = &summary.write_error {
            self.line(&format!("not all was written: {error}"));
        }
        if to_stdout {
            return;
        }
        if self.on_terminal
            && let Some(verdict) = end::findings(recording).verdict
        {
            self.line(&format!("verdict: {verdict}"));
        }
        self.line(&format!(
            "{}, {}.  next: leakline leaks",
            printable(&recording.to_string_lossy()),
            bytes(summary.file_bytes)
        ));
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| parse_duration(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("90s"), Ok(90.0));
        assert_eq!(seconds("45"), Ok(45.0));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(seconds("1.5m"), Ok(90.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        for wrong in ["", "0", "m", "10x", "-1s", "1e99", "10m?"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
