//! `leakline run`: starts a program with the interposer loaded and a collector
//! beside it, and stands in for it until it ends.
//!
//! The steps, so that nothing of the program has run when one fails:
//!
//! 1. find the program and check that it can be recorded ([`program`]);
//! 2. unpack the interposer ([`crate::preload`]);
//! 3. fork the child that waits at a gate ([`target`]): its pid is known;
//! 4. make the recording's file ([`output`]);
//! 5. start the collector and wait until it is ready ([`session`]);
//! 6. open the gate; pass on signals, stops and the end ([`supervise`]);
//! 7. wait until the recording is whole; say what it holds ([`end`]).

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueHint;
use leakline_analysis::escaped;
use leakline_analysis::report::printable;
use leakline_collector::protocol::{Options, ToCollector};
use leakline_collector::steering::{Bounds, FIRST_MEAN};
use leakline_recording::record;
use leakline_wire::env;
use leakline_wire::layout::{CHUNK_BYTES, CHUNK_COUNT, mode};
use leakline_wire::sampling::MAX_MEAN;
use rustix::process::Signal;

use super::heap_at::{self, Heap, HeapAt, parse_heap_at};
use super::live::screen::{self, Afterwards, Side};
use crate::{CliError, preload};
use output::Output;
use program::Lookup;
use session::{Collector, Invitation};
use signals::Signals;
use supervise::Supervisor;
use target::Launch;

pub(super) mod end;
pub(super) mod idle;
pub(crate) mod limits;
pub(crate) mod output;
pub(crate) mod program;
pub(crate) mod session;
pub(super) mod signals;
mod supervise;
pub(super) mod target;
mod unseen;

/// Runs a program and records its allocations.
///
/// The program has the same input, output, signals, terminal and exit status
/// as without leakline. Its child processes are recorded too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline run -- python train.py
  leakline run -o serve.leakline -- python -m http.server
  leakline run --no-python -- ./server --port 8080
  leakline run --sample 512KiB -- gunicorn app:api
  leakline run --live -- python train.py

Exit status: the program's own (a death by signal is passed on); 125 if leakline
failed, 126 if the program cannot be executed, 127 if it was not found.")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of its own on the command line"
)]
pub(crate) struct Args {
    /// Record to FILE [default: PROGRAM.PID.leakline]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,

    /// Record malloc and mmap only, with native stacks only
    #[arg(long, conflicts_with = "no_native")]
    no_python: bool,

    /// Record Python's allocators only, with Python stacks only
    #[arg(long)]
    no_native: bool,

    /// See new objects that CPython makes of freed ones (its free lists),
    /// each with its own stack: CPython 3.13.3 and later; slower
    #[arg(long, conflicts_with = "no_python")]
    objects: bool,

    /// Record a sample of the blocks, one in BYTES allocated on average: cheap
    /// enough for what runs for weeks. Reports give estimates with error bars.
    /// `auto`: as many as take less than 1 % of the program's time
    #[arg(
        long,
        value_name = "BYTES|auto",
        value_parser = parse_sample,
        conflicts_with_all = ["objects", "temporary_window"]
    )]
    sample: Option<Sample>,

    /// Record this process only, not its children
    #[arg(long)]
    no_follow: bool,

    /// Whether heap graphs are taken, for `leakline why`: `auto` after warm-up, as memory
    /// grows and once the main program is done, where there is memory enough for it; or
    /// `never`
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Heap::Auto)]
    heap: Heap,

    /// Take heap graphs then, too, also with `--heap never`: `exit`, once the main program
    /// is done; `peak`, each time that a quarter more lives than at the last one, so
    /// that the newest is of a moment near the peak; or so long after the beginning, as
    /// `+90s`. Several are separated by commas
    #[arg(long, value_name = "exit|peak|+TIME", value_parser = parse_heap_at, value_delimiter = ',')]
    heap_at: Vec<HeapAt>,

    /// Write keys of dicts into heap graphs, as `SESSIONS['user-42']`: texts up to 64
    /// characters, bytes up to 32, numbers; of what the program works with, so they may be
    /// names or secrets of its users. Without it keys are `[str]`, and no value is recorded
    #[arg(long)]
    values: bool,

    /// Take no heap graph of a process that would stand still for longer than TIME
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = super::attach::parse_duration)]
    max_pause: Duration,

    /// Show the recording in the terminal UI while it is made. The program has no
    /// terminal then: it reads nothing, and its output goes to a file beside the
    /// recording (python.4121.out). Leaving the UI does not end the program
    #[arg(long, conflicts_with = "idle")]
    live: bool,

    /// Record nothing until `leakline attach` comes, which then needs no ptrace
    #[arg(long, conflicts_with_all = ["output", "no_python", "no_native", "objects", "no_follow", "summary", "no_source", "sample", "heap_at", "values"])]
    idle: bool,

    /// Print the summary at the end even where stderr is no terminal
    #[arg(long, conflicts_with = "quiet")]
    summary: bool,

    /// Print no summary at the end
    #[arg(short, long)]
    quiet: bool,

    /// Leave source lines out of the recording
    #[arg(long)]
    no_source: bool,

    /// How long the program waits for a collector that makes no progress,
    /// before events are dropped and counted
    #[arg(long, value_name = "SECONDS|forever", default_value = "1", value_parser = parse_wait)]
    wait: WaitStrikes,

    /// Most memory for events that the collector has not read yet
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = parse_ring_size)]
    ring_size: u64,

    /// A block is temporary when freed before its thread's next N allocations
    #[arg(long, value_name = "N", default_value_t = 1)]
    temporary_window: u32,

    /// The program and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "PROGRAM",
        value_hint = ValueHint::CommandWithArguments
    )]
    command: Vec<OsString>,
}

/// Below, nearly every block is sampled, at more than exact mode's cost.
const LEAST_MEAN: u64 = 256;

/// Expired waits of 5 ms without progress until events are dropped;
/// [`u32::MAX`] = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WaitStrikes(u32);

fn parse_wait(text: &str) -> Result<WaitStrikes, String> {
    const A_SECOND: f64 = 200.0;
    /// A day: beyond, `forever` is meant.
    const MOST_SECONDS: f64 = 86_400.0;
    if text == "forever" {
        return Ok(WaitStrikes(u32::MAX));
    }
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MOST_SECONDS).contains(&seconds) => {
            Ok(WaitStrikes((seconds * A_SECOND).ceil() as u32))
        }
        _ => Err("neither a number of seconds (0 to 86400) nor `forever`".into()),
    }
}

pub(super) fn parse_ring_size(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    const MOST: u64 = (CHUNK_COUNT * CHUNK_BYTES) as u64;
    match parse_bytes(text) {
        None => Err("not a size such as `64MiB`".into()),
        Some(bytes) if (LEAST..=MOST).contains(&bytes) => Ok(bytes),
        Some(_) => Err(format!("must be between 1MiB and {}MiB", MOST >> 20)),
    }
}

/// How blocks are sampled: the mean, and whether it follows what samples cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) mean_bytes: u64,
    pub(super) auto: bool,
}

impl Sample {
    /// What moves the mean; `most_share` is the part of the processor time that
    /// samples may take where the user gives one.
    pub(super) fn steering(self, most_share: Option<f64>) -> Option<Bounds> {
        let auto = self.auto.then(Bounds::default);
        let given = most_share.map(|most_share| Bounds {
            least_mean: auto.map_or(self.mean_bytes, |bounds| bounds.least_mean),
            most_share,
        });
        given.or(auto)
    }
}

pub(super) fn parse_sample(text: &str) -> Result<Sample, String> {
    if text == "auto" {
        return Ok(Sample {
            mean_bytes: FIRST_MEAN,
            auto: true,
        });
    }
    match parse_bytes(text) {
        None => Err("neither a size such as `512KiB` nor `auto`".into()),
        Some(bytes) if (LEAST_MEAN..=MAX_MEAN).contains(&bytes) => Ok(Sample {
            mean_bytes: bytes,
            auto: false,
        }),
        Some(_) => Err(format!(
            "must be between {LEAST_MEAN} bytes and {}GiB (without `--sample` every block is \
             recorded)",
            MAX_MEAN >> 30
        )),
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "K" | "KiB" => Some(1 << 10),
        "M" | "MiB" => Some(1 << 20),
        "G" | "GiB" => Some(1 << 30),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(n, unit)| n.checked_mul(unit))
}

/// Runs and records the program. Returns only where the program did not end
/// by a signal and was not replaced by an outer session's.
pub(crate) fn run(args: Args) -> Result<ExitCode, CliError> {
    let path_list = std::env::var_os("PATH");
    let path = program::find(&args.command[0], path_list.as_deref())?;
    let outer = std::env::var_os(env::SESSION);
    if outer.is_some_and(|value| session::is_open(value.as_bytes())) {
        return Err(join_outer_session(&path, args));
    }
    program::check(&path, path_list.as_deref())?;
    if args.idle {
        return run_idle(path, args);
    }
    let link = match args.live.then(|| screen::part(Signal::HUP)).transpose()? {
        Some(Side::Screen(screen)) => return Ok(screen.show(Afterwards::GoesOn)),
        Some(Side::Recorder(link)) => Some(link),
        None => None,
    };
    limits::check()?;
    let interposer = preload::unpack()?;

    let random = |source: rustix::io::Errno| CliError::System {
        action: "get random bytes",
        source: source.into(),
    };
    let invitation = Invitation::new().map_err(random)?;
    let options = args.collector_options(&invitation);
    let is_sampled = args.sample.is_some();
    let command = shown_command(&options.session.command);
    let place = Place {
        program: path.clone(),
        output: args.output,
    };
    let writes_to = args.live.then(|| {
        let place = place.clone();
        Box::new(move |pid| place.of_output(pid)) as Box<dyn Fn(i32) -> PathBuf>
    });
    let launch = Launch {
        path,
        environment: environment(&interposer, env::SESSION, &invitation),
        arguments: args.command,
        only_this_process: args.no_follow,
        writes_to,
    };

    let signals = Signals::take();
    let waiting = launch.fork(&signals)?;
    let pid = waiting.pid();
    let output = Output::create(place.of_recording(pid.as_raw_pid()), args.force)?;
    let written = args
        .live
        .then(|| Output::create(place.of_output(pid.as_raw_pid()), args.force))
        .transpose()?;
    let collector = Collector::start(output.file(), &invitation, options)?;
    collector.send(&ToCollector::Spawned {
        pid: pid.as_raw_pid().unsigned_abs(),
    });
    let started = Instant::now();
    waiting.go().inspect_err(|_| collector.kill())?;

    let recording = output.keep();
    let written = written.map(Output::keep);
    let on_terminal = std::io::stderr().is_terminal();
    let speaks = !args.quiet && (args.summary || on_terminal);
    if let (Some(link), Some(written)) = (link, written) {
        if speaks {
            let written = printable(&escaped(written.as_os_str().as_bytes())).into_owned();
            let mut stderr = anstream::stderr().lock();
            let _ = writeln!(stderr, "leakline: the program's output goes to {written}");
        }
        link.tell(&recording);
    }
    release_standard_streams(speaks);
    collector.close_inherited();
    let mut supervisor = Supervisor::new(signals, pid, collector);
    let ended = supervisor.until_target_ends();
    let lasted = started.elapsed();
    let outcome = end::finish(&mut supervisor, ended, pid, on_terminal && speaks);
    if speaks {
        let finished = matches!(outcome, end::Outcome::Finished(_));
        let findings = finished.then(|| end::findings(&recording));
        let report = end::Report {
            command: &command,
            ended,
            lasted,
            recording: &recording,
            outcome: &outcome,
            is_sampled,
            findings: &findings.unwrap_or_default(),
        };
        // A terminal that went away is nobody to tell.
        let _ = report.write(&mut anstream::stderr().lock());
    }
    Ok(supervisor.end_as(ended))
}

/// Where the files of a run lie.
#[derive(Clone)]
struct Place {
    program: PathBuf,
    /// The recording, as it was asked for.
    output: Option<PathBuf>,
}

impl Place {
    fn of_recording(&self, pid: i32) -> PathBuf {
        let asked = self.output.clone();
        asked.unwrap_or_else(|| output::default_path(&self.program, pid))
    }

    /// Of the program's output, where that has no terminal.
    fn of_output(&self, pid: i32) -> PathBuf {
        let mut path = self.of_recording(pid);
        if path.extension().is_some_and(|ending| ending == "leakline") {
            path.set_extension("out");
        } else {
            path.as_mut_os_string().push(".out");
        }
        path
    }
}

impl Args {
    /// What the collector is to do.
    fn collector_options(&self, invitation: &Invitation) -> Options {
        let arguments: Vec<Vec<u8>> = self
            .command
            .iter()
            .map(|argument| argument.as_bytes().to_vec())
            .collect();
        let mut bits = mode::ON;
        if !self.no_native {
            bits |= mode::NATIVE | mode::NATIVE_STACKS;
        }
        if !self.no_python {
            bits |= mode::PYTHON;
        }
        if !self.no_follow {
            bits |= mode::FOLLOW;
        }
        if self.objects {
            bits |= mode::OBJECTS;
        }
        if self.sample.is_some() {
            bits |= mode::SAMPLED;
        }
        let is_auto = self.heap == Heap::Auto && !self.no_python;
        if is_auto || self.heap_at.contains(&HeapAt::Exit) {
            bits |= mode::GRAPH_AT_END;
        }
        if self.values {
            bits |= mode::VALUES;
        }
        Options {
            session: record::Session {
                // The collector knows better when it starts.
                started_unix_ns: 0,
                leakline: env!("CARGO_PKG_VERSION").into(),
                command: leakline_collector::public_command(&arguments),
                mode: self.sample.map_or("exact", |_| "sampled").into(),
                sample_bytes: self.sample.map_or(0, |sample| sample.mean_bytes),
                python: !self.no_python,
                native: !self.no_native,
                host: host(),
                temporary_window: self.temporary_window,
            },
            token: invitation.token(),
            mode: bits,
            steering: self.sample.and_then(|sample| sample.steering(None)),
            most_share: None,
            wait_strikes: self.wait.0,
            ring_bytes: self.ring_size,
            sources: !self.no_source,
            symbols: true,
            attached: false,
            forking_filters: 0,
            most_pause: self.max_pause,
            graphs: heap_at::plan(is_auto, &self.heap_at),
        }
    }
}

/// The machine and its kernel, as a recording has them.
pub(crate) fn host() -> String {
    let kernel = rustix::system::uname();
    let parts = [
        kernel.nodename(),
        kernel.sysname(),
        kernel.release(),
        kernel.machine(),
    ];
    parts.map(|part| part.to_string_lossy()).join(" ")
}

/// Becomes the program in this process, which an outer session follows
/// already. Returns only what went wrong.
fn join_outer_session(path: &Path, args: Args) -> CliError {
    let mut stderr = anstream::stderr().lock();
    if std::io::stderr().is_terminal() && !args.quiet {
        // A terminal that went away is nobody to tell.
        let _ = writeln!(
            stderr,
            "leakline: already being recorded by an outer `leakline run`, which goes on"
        );
    }
    drop(stderr);
    let launch = Launch {
        path: path.to_owned(),
        arguments: args.command,
        environment: std::env::vars_os().collect(),
        only_this_process: false,
        writes_to: None,
    };
    Lookup::from_exec(path, launch.execute(signals::restore_inherited)).into()
}

/// Runs the program with the interposer switched off.
fn run_idle(path: PathBuf, args: Args) -> Result<ExitCode, CliError> {
    let interposer = preload::unpack()?;
    let invitation = Invitation::new().map_err(|source| CliError::System {
        action: "get random bytes",
        source: source.into(),
    })?;
    let launch = Launch {
        environment: environment(&interposer, env::IDLE, &invitation),
        path,
        arguments: args.command,
        only_this_process: false,
        writes_to: None,
    };
    let signals = Signals::take();
    let waiting = launch.fork(&signals)?;
    let pid = waiting.pid();
    let number = pid.as_raw_pid().unsigned_abs();
    let start = leakline_inject::inspect::Glance::at(number).map_or(0, |it| it.start_ticks);
    let door = idle::open_door(number, start).map_err(|source| CliError::System {
        action: "open a socket",
        source,
    })?;
    let keeper = Collector::start_keeper(&idle::as_file(door), &invitation)?;
    waiting.go().inspect_err(|_| keeper.kill())?;
    release_standard_streams(false);
    keeper.close_inherited();
    let mut supervisor = Supervisor::new(signals, pid, keeper);
    let ended = supervisor.until_target_ends();
    supervisor.collector.kill();
    supervisor.see_collector_off();
    Ok(supervisor.end_as(ended))
}

/// The target's environment: this one, with the way into the session, in the
/// variable `way`.
fn environment(interposer: &Path, way: &str, invitation: &Invitation) -> Vec<(OsString, OsString)> {
    let existing = std::env::var_os(env::PRELOAD);
    let own = [env::PRELOAD, env::SESSION, env::ONLY_PID, env::IDLE];
    std::env::vars_os()
        .filter(|(name, _)| !own.iter().any(|own| name == own))
        .chain([
            (
                env::PRELOAD.into(),
                preload::preload_list(interposer, existing.as_deref()),
            ),
            (way.into(), invitation.to_env().into()),
        ])
        .collect()
}

/// Gives up the standard streams that the target has now: whoever reads the
/// other end of a pipe shall see its end when the target closes it. Stderr is
/// kept where something will be said.
fn release_standard_streams(keep_stderr: bool) {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    // What cannot be released stays open; nothing else depends on it.
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    if !keep_stderr {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The program as people call it: its file's name, and the script or module.
fn shown_command(command: &[Vec<u8>]) -> String {
    let mut words = command.iter().map(|word| escaped(word));
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let shown = words.fold(name.to_owned(), |shown, word| shown + " " + &word);
    printable(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_in_seconds() {
        assert_eq!(parse_wait("1"), Ok(WaitStrikes(200)));
        assert_eq!(parse_wait("0.5"), Ok(WaitStrikes(100)));
        assert_eq!(parse_wait("0"), Ok(WaitStrikes(0)));
        assert_eq!(parse_wait("0.001"), Ok(WaitStrikes(1)));
        assert_eq!(parse_wait("forever"), Ok(WaitStrikes(u32::MAX)));
        for wrong in ["", "-1", "1e9", "NaN", "inf", "1s"] {
            assert!(parse_wait(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ring_sizes_have_units_and_bounds() {
        assert_eq!(parse_ring_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_ring_size("2048K"), Ok(2 << 20));
        assert_eq!(parse_ring_size("1048576"), Ok(1 << 20));
        let most = format!("{}", CHUNK_COUNT * CHUNK_BYTES);
        assert!(parse_ring_size(&most).is_ok());
        for wrong in [
            "",
            "MiB",
            "64 MiB",
            "64MB",
            "-1",
            "1048575",
            "1T",
            "99999999999999999999G",
            "ä",
        ] {
            assert!(parse_ring_size(wrong).is_err(), "{wrong}");
        }
        let too_many = format!("{}", CHUNK_COUNT * CHUNK_BYTES + 1);
        assert!(parse_ring_size(&too_many).is_err());
    }

    #[test]
    fn means_of_sampling_have_units_and_bounds() {
        let mean = |text| parse_sample(text).map(|sample| (sample.mean_bytes, sample.auto));
        assert_eq!(mean("512KiB"), Ok((512 << 10, false)));
        assert_eq!(mean("256"), Ok((256, false)));
        assert_eq!(mean("1G"), Ok((1 << 30, false)));
        assert_eq!(mean("auto"), Ok((512 << 10, true)));
        for wrong in ["", "Auto", "0", "255", "1025MiB", "-1"] {
            assert!(parse_sample(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn output_lies_beside_the_recording() {
        let place = |output: Option<&str>| Place {
            program: "/usr/bin/python3".into(),
            output: output.map(PathBuf::from),
        };
        let files = |output| {
            let place = place(output);
            [place.of_recording(41), place.of_output(41)].map(|path| path.display().to_string())
        };
        assert_eq!(files(None), ["python3.41.leakline", "python3.41.out"]);
        assert_eq!(
            files(Some("/tmp/a.leakline")),
            ["/tmp/a.leakline", "/tmp/a.out"]
        );
        assert_eq!(files(Some("a.out")), ["a.out", "a.out.out"]);
    }

    #[test]
    fn a_command_is_shown_by_its_files_name() {
        let shown = |words: &[&str]| {
            shown_command(
                &words
                    .iter()
                    .map(|word| word.as_bytes().to_vec())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            shown(&["/usr/bin/python3", "-m", "http.server"]),
            "python3 -m http.server"
        );
        assert_eq!(shown(&["./a/b"]), "b");
        assert!(!shown(&["x\x1b[2J"]).contains('\x1b'));
        assert_eq!(shown(&[]), "");
    }
}
