//! `leakline ledger`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use leakline_analysis::instant::clock;
use leakline_analysis::ledger::{self, Accounts, Inventory, Ledger};
use leakline_analysis::report::text::About;
use leakline_analysis::report::{bytes, duration, json as report_json, text};
use leakline_analysis::{Instant, Leaks, LeaksQuery, Model, Stacks, Suppression};
use leakline_collector::{LedgerReader, ReadsMemory};
use leakline_inject::inspect::{Inspector, Process};
use leakline_inject::ledger::{Closed, Part, Survey, heap_graph, survey, survey_with_types};
use leakline_recording::record::{Inventory as Listed, Ledger as Recorded, OfType};
use serde_json::{Value, json};

use super::leaks::look_into;
use super::live::{self, Live};
use super::processes::{command, libc, python};
use super::report::{
    Input, Output, answer_with, by_pid, instant, open_other, report_with_file, resolved,
};
use crate::CliError;

/// Says what the resident memory (RSS) of a process is made of: live Python objects,
/// live malloc, what is free but held, files, stacks, ..., in lines that sum to it.
///
/// Of a running process nothing has to be recorded. It is read from outside: it is not
/// stopped, not written to, and runs nothing for us. While it is recorded, what changed
/// since the recording began is shown, and what is live of causes that `leaks` names.
///
/// A recording has ledgers of all its processes, over time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline ledger 4121
  leakline ledger 4121 --interval 60     what grew in a minute, line by line
  leakline ledger 4121 --json | jq '.lines[] | {name, bytes}'
  leakline ledger app.4121.leakline --from deploy --to +2h")]
pub(crate) struct Args {
    /// The recording, or the process [default: the newest *.leakline here]
    #[arg(value_name = "FILE|PID")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Look at a running process twice, this long apart, and show what changed [default: one
    /// look]
    #[arg(long, value_name = "SECONDS", value_parser = interval, conflicts_with_all = ["from", "to"])]
    interval: Option<Duration>,
    /// Of a recording: show what changed since an instant [default: since each process was
    /// first looked at]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Instant>,
    /// Of a recording: the ledger of an instant [default: as late as can be]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<Instant>,
    /// Of a recording: only of this process
    #[arg(long, value_name = "PID")]
    process: Option<u32>,
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
    let ledger = Ledger::of(&record(&process, &survey(&process)?));
    let judgement = ledger::judge(&ledger, None);
    let mut text = Vec::new();
    report_json::ledger(&ledger, &judgement, None, &whose(&process), None, &mut text)
        .map_err(CliError::Output)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes the ledger to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    // A pid is that of a running process, or it may be in the name of a recording.
    let pid = args.file.as_deref().and_then(live::as_pid);
    let is_running = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
    let running =
        pid.filter(|pid| args.to.is_none() && (is_running(*pid) || by_pid(*pid).is_none()));
    match running {
        Some(pid) => answer_with(args.json, |output| of_process(args, pid, output)),
        None if args.interval.is_some() => Err(CliError::Usage {
            message: "`--interval` looks at a running process".into(),
            hint: Some("`leakline ps` lists processes and their pids".into()),
        }),
        None => of_recording(args),
    }
}

/// Ledgers that were recorded.
fn of_recording(args: &Args) -> Result<ExitCode, CliError> {
    let input = Input::new(args.file.clone(), args.json);
    report_with_file(&input, |model, stacks, file, output| {
        let found = Accounts::new(model, args.from.as_ref(), args.to.as_ref(), args.process);
        let mut accounts = found.map_err(|error| CliError::Report {
            hint: Some(error.hint()),
            message: error.to_string(),
            source: None,
        })?;
        let leaks = causes(args, model, stacks, file)?;
        accounts.look_into(model, &leaks);
        match output {
            Output::Json(out) => report_json::ledgers(model, &accounts, out),
            Output::Text(out, style) => text::ledgers(model, &accounts, style, out),
        }
        .map_err(CliError::Output)
    })
}

/// What leaks, and who holds it: of all until the instant that is shown, since what
/// happened before the other decides, too.
fn causes<'a>(
    args: &Args,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    file: &Path,
) -> Result<Leaks, CliError> {
    let query = LeaksQuery {
        to: args.to.clone(),
        suppressions: Suppression::shipped(),
        ..LeaksQuery::default()
    };
    let mut leaks = resolved(Leaks::new(model, stacks, query))?;
    look_into(&mut leaks, model, stacks, file)?;
    Ok(leaks)
}

/// The ledger of a running process.
fn of_process(args: &Args, pid: u32, output: Output<'_>) -> Result<(), CliError> {
    let mut inspector = Inspector::new();
    let mut look = || -> Result<(Process, Survey), CliError> {
        let process = inspector.look(pid).map_err(Closed::from)?;
        let survey = survey_with_types(&process)?;
        Ok((process, survey))
    };
    let begun = std::time::Instant::now();
    let (mut process, first) = look()?;
    if args.interval.is_none()
        && let Ok(live) = Live::of_process(pid)
        && let Ok(path) = live
            .status()
            .and_then(|status| live::path(status.recording))
    {
        return of_recorded(args, &path, &process, &first, output);
    }
    if args.from.is_some() {
        return Err(CliError::Report {
            message: format!("process {pid} is not being recorded: nothing is known from before"),
            hint: Some(format!("`leakline ledger {pid} --interval 60` looks twice")),
            source: None,
        });
    }
    let mut now = Ledger::of(&record(&process, &first));
    let mut listed = list(&first);
    let mut earlier = None;
    let mut listed_before = None;
    if let Some(interval) = args.interval {
        let waiting = Waiting::show(pid, &now, interval);
        sleep(interval.saturating_sub(begun.elapsed()));
        drop(waiting);
        let (later, second) = look()?;
        if later.start_ticks != process.start_ticks {
            return Err(CliError::Report {
                message: format!("process {pid} ended within the interval"),
                hint: Some("its pid is another process's by now; `leakline ps` lists them".into()),
                source: None,
            });
        }
        process = later;
        listed_before = std::mem::replace(&mut listed, list(&second));
        earlier = Some((
            std::mem::replace(&mut now, Ledger::of(&record(&process, &second))),
            begun.elapsed(),
        ));
    }
    let before = earlier.as_ref().map(|(earlier, _)| earlier);
    let inventory = listed.map(|listed| Inventory::of(&listed, listed_before.as_ref()));
    let mut judgement = ledger::judge(&now, before);
    if let (Some(before), Some(inventory)) = (before, &inventory) {
        judgement.name_type(&now, before, inventory);
    }
    match output {
        Output::Json(out) => {
            let earlier = earlier
                .as_ref()
                .map(|(earlier, apart)| (earlier, apart.as_secs_f64()));
            let inventory = inventory.as_ref();
            report_json::ledger(&now, &judgement, inventory, &whose(&process), earlier, out)
        }
        Output::Text(out, style) => {
            let apart = earlier.as_ref().map_or(Duration::ZERO, |(_, apart)| *apart);
            let about = About {
                process: words(&process),
                earlier: before,
                inventory: inventory.as_ref(),
                since: format!("in {}", duration(apart.as_nanos() as u64)),
                next: match args.interval {
                    None => format!("leakline ledger {pid} --interval 60"),
                    Some(_) => format!("leakline attach {pid}"),
                },
            };
            text::ledger(&now, &judgement, &about, style, out)
        }
    }
    .map_err(CliError::Output)
}

/// The ledger of a running process that is being recorded.
fn of_recorded(
    args: &Args,
    path: &Path,
    process: &Process,
    survey: &Survey,
    output: Output<'_>,
) -> Result<(), CliError> {
    let opened = open_other(&path.to_owned())?;
    let model = opened.model();
    let mut stacks = Stacks::new(&model);
    let identity = (process.pid, process.start_ticks);
    let read = record(process, survey);
    let found = Accounts::of_now(
        &model,
        identity,
        (read.clone(), list(survey)),
        args.from.as_ref(),
    );
    let mut account = None;
    if let Some(mut accounts) = resolved(found)? {
        let leaks = causes(args, &model, &mut stacks, path)?;
        accounts.look_into(&model, &leaks);
        account = accounts.processes.pop();
    }
    let now = account
        .as_ref()
        .map_or_else(|| Ledger::of(&read), |account| account.now.clone());
    let judgement = match &account {
        Some(account) => account.judgement.clone(),
        None => ledger::judge(&now, None),
    };
    let earlier = account
        .as_ref()
        .and_then(|account| account.earlier.as_ref());
    let inventory = account
        .as_ref()
        .and_then(|account| account.inventory.as_ref());
    match output {
        Output::Json(out) => {
            let apart = |since: u64| model.duration_ns().saturating_sub(since) as f64 / 1e9;
            let earlier = earlier.map(|(earlier, ns)| (earlier, apart(*ns)));
            report_json::ledger(&now, &judgement, inventory, &whose(process), earlier, out)
        }
        Output::Text(out, style) => {
            let since = earlier.map(|(_, ns)| format!("since {}", clock(&model, *ns)));
            let leak = account
                .iter()
                .flat_map(|one| &one.causes)
                .find(|one| one.is_leak);
            let pid = process.pid;
            let about = About {
                process: words(process),
                earlier: earlier.map(|(earlier, _)| earlier),
                inventory,
                since: since.unwrap_or_default(),
                next: match leak {
                    Some(leak) => format!("leakline why {pid} {}", leak.id),
                    None => format!("leakline leaks {pid}"),
                },
            };
            text::ledger(&now, &judgement, &about, style, out)
        }
    }
    .map_err(CliError::Output)
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

/// What was found, as recordings have it: of no process and no instant yet.
pub(crate) fn record(process: &Process, survey: &Survey) -> Recorded {
    /// In the order of the format.
    const PARTS: [Part; 11] = [
        Part::PythonLive,
        Part::PythonFree,
        Part::MallocLive,
        Part::MallocFree,
        Part::OtherAllocator,
        Part::Anonymous,
        Part::Files,
        Part::Stacks,
        Part::SharedMemory,
        Part::Leakline,
        Part::Unexplained,
    ];
    let (heaps, arenas) = (
        survey.heaps.unwrap_or_default(),
        survey.python.unwrap_or_default(),
    );
    let python = process
        .program
        .as_ref()
        .and_then(|program| program.python.as_ref());
    Recorded {
        parts: PARTS
            .map(|part| {
                let share = survey.part(part);
                (share.private, share.shared)
            })
            .to_vec(),
        swapped_bytes: survey.swapped_bytes,
        arenas: heaps.arenas,
        trimmable_bytes: heaps.trimmable_bytes,
        free_of_threads_bytes: heaps.free_of_threads_bytes,
        mapped_bytes: heaps.mapped_bytes,
        python_arenas: arenas.arenas,
        sparse_arenas: arenas.sparse_arenas,
        sparse_live_bytes: arenas.sparse_live_bytes,
        stacks: survey.stacks,
        largest_file: survey.largest_file.as_ref().map(|(path, bytes)| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            (name.to_vec(), *bytes)
        }),
        is_python: python.is_some(),
        allocators: allocators(process, survey),
        not_read: survey
            .not_read
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        ..Recorded::default()
    }
}

/// What lives by type, as recordings have it: of no process and no instant yet.
fn list(survey: &Survey) -> Option<Listed> {
    let found = survey.types.as_ref()?;
    let types = found.types.iter().map(|one| OfType {
        name: one.name.clone(),
        objects: one.objects,
        bytes: one.bytes,
    });
    Some(Inventory::recorded(
        types.collect(),
        found.rest_bytes,
        found.unread_bytes,
    ))
}

/// Allocators beside libc's, by name: those inside libraries with what is theirs; of
/// others that is not told apart.
fn allocators(process: &Process, survey: &Survey) -> Vec<(String, u64, u64)> {
    let inside = survey.inside_libraries.iter();
    let mut inside: Vec<_> = inside
        .map(|(name, share)| (name.clone(), share.private, share.shared))
        .filter(|(_, private, shared)| private + shared > 0)
        .collect();
    let Some(program) = &process.program else {
        return inside;
    };
    let own = program.allocators.iter();
    let mut names: Vec<String> = own.map(|own| own.allocator.name().into()).collect();
    let python = program.python.as_ref();
    if python.is_some_and(|python| python.version.is_free_threaded) {
        names.push("CPython's mimalloc".into());
    }
    names.dedup();
    inside.extend(names.into_iter().map(|name| (name, 0, 0)));
    inside
}

/// Looks at processes for their recording.
struct Reader(Inspector);

impl Reader {
    fn look(&mut self, pid: u32, start_ticks: u64) -> Option<Process> {
        let process = self.0.look(pid).ok()?;
        (process.start_ticks == start_ticks).then_some(process)
    }
}

impl ReadsMemory for Reader {
    fn ledger(&mut self, pid: u32, start_ticks: u64) -> Option<Recorded> {
        let process = self.look(pid, start_ticks)?;
        let survey = survey(&process).ok()?;
        Some(record(&process, &survey))
    }

    fn inventory(&mut self, pid: u32, start_ticks: u64) -> Option<Listed> {
        let process = self.look(pid, start_ticks)?;
        process.program.as_ref()?.python.as_ref()?;
        list(&survey_with_types(&process).ok()?)
    }

    fn heap(&mut self, pid: u32, start_ticks: u64, hand_on: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let Some(process) = self.look(pid, start_ticks) else {
            return false;
        };
        heap_graph(&process, hand_on).is_ok()
    }
}

/// What looks at them.
pub(crate) fn reader() -> LedgerReader {
    Box::new(Reader(Inspector::new()))
}
