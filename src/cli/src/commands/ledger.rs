//! `leakline ledger`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use leakline_analysis::ledger::{self, Ledger, Line, LineKind};
use leakline_analysis::report::text::About;
use leakline_analysis::report::{bytes, counted, json as report_json, text};
use leakline_analysis::{escaped, report};
use leakline_inject::inspect::{Inspector, Process};
use leakline_inject::ledger::{Closed, Part, Survey, survey};
use serde_json::{Value, json};

use super::processes::{command, libc, python};
use super::report::{Output, answer_with};
use crate::CliError;

/// Says what the resident memory (RSS) of a running process is made of: live
/// Python objects, live malloc, what is free but held, files, stacks, ..., in
/// lines that sum to it.
///
/// Nothing has to be recorded. The process is read from outside: it is not
/// stopped, not written to, and runs nothing for us.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline ledger 4121
  leakline ledger 4121 --interval 60     what grew in a minute, line by line
  leakline ledger 4121 --json | jq '.lines[] | {name, bytes}'")]
pub(crate) struct Args {
    /// The process
    pid: OsString,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look twice, this long apart, and show what changed [default: one look]
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    interval: Option<Duration>,
}

fn interval(text: &str) -> Result<Duration, String> {
    /// A day.
    const MOST: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= MOST => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds, up to a day".into()),
    }
}

/// The ledger of a process after one look, as `--json` writes it.
pub(crate) fn json_of(pid: u32) -> Result<String, CliError> {
    let process = Inspector::new().look(pid).map_err(Closed::from)?;
    let ledger = of_survey(&process, &survey(&process)?);
    let judgement = ledger::judge(&ledger, None);
    let mut text = Vec::new();
    report_json::ledger(&ledger, &judgement, &whose(&process), None, &mut text)
        .map_err(CliError::Output)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes the ledger to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let pid = pid(args)?;
        let mut inspector = Inspector::new();
        let mut look = || -> Result<(Process, Survey), CliError> {
            let process = inspector.look(pid).map_err(Closed::from)?;
            let survey = survey(&process)?;
            Ok((process, survey))
        };
        let begun = Instant::now();
        let (mut process, first) = look()?;
        let mut now = of_survey(&process, &first);
        let mut earlier = None;
        if let Some(interval) = args.interval {
            let waiting = Waiting::show(pid, &now, interval);
            sleep(interval.saturating_sub(begun.elapsed()));
            drop(waiting);
            let (later, second) = look()?;
            if later.start_ticks != process.start_ticks {
                return Err(CliError::Report {
                    message: format!("process {pid} ended within the interval"),
                    hint: Some(
                        "its pid is another process's by now; `leakline ps` lists them".into(),
                    ),
                    source: None,
                });
            }
            process = later;
            earlier = Some((
                std::mem::replace(&mut now, of_survey(&process, &second)),
                begun.elapsed(),
            ));
        }
        let judgement = ledger::judge(&now, earlier.as_ref().map(|(earlier, _)| earlier));
        match output {
            Output::Json(out) => {
                let earlier = earlier
                    .as_ref()
                    .map(|(earlier, apart)| (earlier, apart.as_secs_f64()));
                report_json::ledger(&now, &judgement, &whose(&process), earlier, out)
            }
            Output::Text(out, style) => {
                let about = About {
                    process: words(&process),
                    pid,
                    earlier: earlier
                        .as_ref()
                        .map(|(earlier, apart)| (earlier, apart.as_nanos() as u64)),
                };
                text::ledger(&now, &judgement, &about, style, out)
            }
        }
        .map_err(CliError::Output)
    })
}

/// The process that is meant.
fn pid(args: &Args) -> Result<u32, CliError> {
    let text = args.pid.to_string_lossy();
    let pid = text.parse::<i32>().ok().filter(|pid| *pid > 0);
    pid.map(i32::cast_unsigned).ok_or_else(|| CliError::Usage {
        message: format!("`{text}` is no pid"),
        hint: Some(if text.ends_with(".leakline") {
            "a ledger is that of a running process; `leakline summary FILE` is for recordings"
                .into()
        } else {
            "`leakline ps` lists processes and their pids".into()
        }),
    })
}

/// A line on the terminal while there is nothing to show yet.
struct Waiting;

impl Waiting {
    fn show(pid: u32, ledger: &Ledger, interval: Duration) -> Option<Waiting> {
        let mut out = io::stderr();
        if !out.is_terminal() {
            return None;
        }
        let text = format!(
            "process {pid}: RSS {}, looking again in {} s",
            bytes(ledger.rss_bytes()),
            interval.as_secs_f64()
        );
        // A line that wraps could not be taken back.
        let width = rustix::termios::tcgetwinsize(&out).map_or(80, |size| size.ws_col);
        let text: String = text.chars().take(usize::from(width).max(2) - 1).collect();
        write!(out, "{text}").and_then(|()| out.flush()).ok()?;
        Some(Waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Back to the line's beginning, and empty it.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// `python app.py (pid 21), CPython 3.12.1, glibc 2.36`.
fn words(process: &Process) -> String {
    let mut parts = vec![format!(
        "{} (pid {})",
        command(&process.arguments, &process.name),
        process.pid
    )];
    if let Some(program) = &process.program {
        parts.extend(python(program));
        parts.push(libc(program));
    }
    parts.join(", ")
}

/// The keys that say whose ledger it is.
fn whose(process: &Process) -> Value {
    let program = process.program.as_ref();
    json!({
        "pid": process.pid,
        "start_ticks": process.start_ticks,
        "command": command(&process.arguments, &process.name),
        "python": program
            .and_then(|program| program.python.as_ref())
            .map(|python| &python.version.text),
        "libc": program.map(libc),
    })
}

/// The lines of what was found.
fn of_survey(process: &Process, survey: &Survey) -> Ledger {
    const KINDS: [(Part, LineKind); 11] = [
        (Part::PythonLive, LineKind::PythonLive),
        (Part::PythonFree, LineKind::PythonFree),
        (Part::MallocLive, LineKind::MallocLive),
        (Part::MallocFree, LineKind::MallocFree),
        (Part::OtherAllocator, LineKind::OtherAllocator),
        (Part::Anonymous, LineKind::Anonymous),
        (Part::Files, LineKind::Files),
        (Part::Stacks, LineKind::Stacks),
        (Part::SharedMemory, LineKind::SharedMemory),
        (Part::Leakline, LineKind::Leakline),
        (Part::Unexplained, LineKind::Unexplained),
    ];
    let mut lines: Vec<Line> = Vec::new();
    let mut forked = Line {
        kind: LineKind::CopyOnWrite,
        title: None,
        bytes: 0,
        shared_bytes: 0,
        note: String::new(),
        of_it: Vec::new(),
    };
    for (part, kind) in KINDS {
        let share = survey.part(part);
        let is_forked = part.is_own() && part != Part::Leakline;
        let (bytes, shared_bytes) = if is_forked {
            (share.private, 0)
        } else {
            (share.total(), share.shared)
        };
        let line = Line {
            kind,
            title: title(process, survey, kind),
            bytes,
            shared_bytes,
            note: note(process, survey, kind),
            of_it: of_it(survey, kind),
        };
        if is_forked && share.shared > 0 {
            forked.bytes += share.shared;
            forked.of_it.push((line.title().to_owned(), share.shared));
        }
        lines.push(line);
    }
    forked.shared_bytes = forked.bytes;
    forked
        .of_it
        .retain(|(_, bytes)| *bytes >= (1 << 20).min(forked.bytes));
    // Before our own and what is not explained.
    lines.insert(lines.len() - 2, forked);
    let (heaps, arenas) = (
        survey.heaps.unwrap_or_default(),
        survey.python.unwrap_or_default(),
    );
    Ledger {
        lines,
        swapped_bytes: survey.swapped_bytes,
        arenas: heaps.arenas,
        trimmable_bytes: heaps.trimmable_bytes,
        free_of_threads_bytes: heaps.free_of_threads_bytes,
        python_arenas: arenas.arenas,
        sparse_arenas: (arenas.sparse_arenas, arenas.sparse_live_bytes),
        not_read: survey.not_read.as_ref().map(ToString::to_string),
    }
}

/// A better name than a line's own.
fn title(process: &Process, survey: &Survey, kind: LineKind) -> Option<String> {
    match kind {
        LineKind::OtherAllocator => {
            let program = process.program.as_ref()?;
            let mut names: Vec<&str> = program
                .allocators
                .iter()
                .map(|own| own.allocator.name())
                .collect();
            let python = program.python.as_ref();
            if python.is_some_and(|python| python.version.is_free_threaded) {
                names.push("CPython's mimalloc");
            }
            names.dedup();
            (!names.is_empty()).then(|| format!("maps of {}", names.join(", ")))
        }
        LineKind::Anonymous if survey.not_read.is_some() && survey.heaps.is_none() => {
            Some("heap and anonymous maps".into())
        }
        _ => None,
    }
}

fn note(process: &Process, survey: &Survey, kind: LineKind) -> String {
    let is_python = process
        .program
        .as_ref()
        .is_some_and(|program| program.python.is_some());
    match kind {
        LineKind::PythonLive => "of up to 512 bytes".into(),
        LineKind::PythonFree => survey.python.map_or(String::new(), |python| {
            counted(python.arenas, "arena", "arenas")
        }),
        LineKind::MallocLive if is_python => "and larger objects".into(),
        LineKind::MallocFree => survey.heaps.map_or(String::new(), |heaps| {
            counted(heaps.arenas, "arena", "arenas")
        }),
        LineKind::OtherAllocator => "live: not known".into(),
        LineKind::Files => {
            let shared = survey.part(Part::Files).shared;
            if shared == 0 {
                String::new()
            } else {
                format!("{} shared", bytes(shared))
            }
        }
        LineKind::Stacks if survey.not_read.is_none() => {
            // Beside the main thread's.
            counted(survey.stacks + 1, "stack", "stacks")
        }
        _ => String::new(),
    }
}

/// What a line has that is worth a line of its own.
fn of_it(survey: &Survey, kind: LineKind) -> Vec<(String, u64)> {
    /// Of all that is resident.
    const PART: u64 = 10;
    let matters = |bytes: u64| bytes > 0 && bytes * PART >= survey.rss_bytes;
    match kind {
        LineKind::Files => survey
            .largest_file
            .iter()
            .filter(|(_, bytes)| matters(*bytes))
            .map(|(path, bytes)| {
                let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
                (report::printable(&escaped(name)).into_owned(), *bytes)
            })
            .collect(),
        LineKind::MallocLive => survey
            .heaps
            .iter()
            .map(|heaps| heaps.mapped_bytes)
            .filter(|bytes| matters(*bytes))
            .map(|bytes| ("mapped for one block each".into(), bytes))
            .collect(),
        _ => Vec::new(),
    }
}
