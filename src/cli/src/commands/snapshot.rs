//! `leakline snapshot`: keeps an instant of a recording that is being made.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use leakline_analysis::report::{blocks, bytes, duration, printable};
use leakline_collector::protocol::{GraphOutcome, GraphState, Snapshot};
use serde_json::json;

use super::live::{self, Live};
use super::report::{Output, answer_with};
use crate::CliError;

/// Keeps this instant of a recording that is being made, exactly, under a name.
///
/// Reports take the name wherever they take an instant: what every site holds is
/// known to the block there. The process is not stopped, and need not do anything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline snapshot 4121 before
  leakline snapshot 4121 after
  leakline diff 4121 --from before --to after
  leakline top 4121 --at before
  leakline snapshot 4121 noon --heap && leakline why 4121
  leakline snapshot 4121 later --heap --outside    without a fork

Exit status: 0 when it is kept, 2 for a name that will not do, 3 if the process is
not being recorded, the name was given before, or no heap graph could be taken.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Args {
    /// A process that is being recorded, or its recording
    #[arg(value_name = "PID")]
    process: PathBuf,

    /// What to call it: printable, at most 64 bytes, and new
    #[arg(value_name = "NAME")]
    name: String,

    /// Take a heap graph, too: which objects there are, what holds them, and which
    /// native blocks nothing points to. Each process stands still as long as a fork
    /// of it takes
    #[arg(long)]
    heap: bool,

    /// Write keys of dicts into this heap graph, as `SESSIONS['user-42']`: texts up to 64
    /// characters, bytes up to 32, numbers; of what the program works with, so they may be
    /// names or secrets of its users. Without it keys are `[str]`, and no value is recorded
    #[arg(long, requires = "heap")]
    values: bool,

    /// Read the heap graph from outside while the process runs: nothing is forked, and a
    /// process that sleeps has one, too. It is approximate: what changes meanwhile may be
    /// there twice or not at all, and lost references and garbage are not looked for
    #[arg(long, requires = "heap", conflicts_with = "values")]
    outside: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let live = Live::named(&args.process)?;
        let taken = live.snapshot(&args.name)?;
        let recording = taken.recording.clone();
        // That it cannot be reached from here does not undo it.
        let file = live::path(recording).ok().map(|path| live::shown(&path));
        match output {
            Output::Json(out) => {
                let graphs = if args.heap {
                    live.take_graphs(&args.name, args.values, args.outside, |_| {})?
                } else {
                    Vec::new()
                };
                let has_failed = args.heap && !graphs.iter().any(is_there);
                let at = Duration::from_nanos(taken.at_ns);
                let started = Duration::from_nanos(taken.started_unix_ns);
                let answer = json!({
                    "schema": "leakline.snapshot",
                    "version": 1,
                    "file": file,
                    "name": args.name,
                    "seconds": at.as_secs_f64(),
                    "unix_seconds": (started + at).as_secs_f64(),
                    "live_bytes": taken.live_bytes,
                    "live_blocks": taken.live_blocks,
                    "processes": taken.processes,
                    "estimated": taken.is_sampled,
                    "heap_graphs": graphs.iter().map(graph_json).collect::<Vec<_>>(),
                });
                writeln!(out, "{answer}").map_err(CliError::Output)?;
                if has_failed {
                    return Err(none_taken(&args.name));
                }
                Ok(())
            }
            Output::Text(out, _) => {
                let about = if taken.is_sampled { "about " } else { "" };
                let shared = match taken.processes {
                    0 | 1 => String::new(),
                    more => format!(" of {more} processes"),
                };
                writeln!(
                    out,
                    "`{}`: {about}{} live in {} blocks{shared} at +{} ({})",
                    printable(&args.name),
                    bytes(taken.live_bytes),
                    blocks(taken.live_blocks),
                    duration(taken.at_ns),
                    clock(&taken),
                )
                .map_err(CliError::Output)?;
                let process = live::shown(&args.process);
                let words = if args.heap {
                    let mut told = Ok(());
                    let graphs =
                        live.take_graphs(&args.name, args.values, args.outside, |state| {
                            if told.is_ok() {
                                told = writeln!(out, "{}", graph_words(state));
                            }
                        })?;
                    told.map_err(CliError::Output)?;
                    if !graphs.iter().any(is_there) {
                        return Err(none_taken(&args.name));
                    }
                    vec!["leakline", "why", &process]
                } else {
                    vec!["leakline", "diff", &process, "--from", &args.name]
                };
                let command = shlex::try_join(words).unwrap_or_default();
                writeln!(out, "\nnext: {command}").map_err(CliError::Output)
            }
        }
    })
}

fn is_there(state: &GraphState) -> bool {
    matches!(
        state.outcome,
        GraphOutcome::Taken { .. } | GraphOutcome::Outside { .. } | GraphOutcome::CutOff(_)
    )
}

fn none_taken(name: &str) -> CliError {
    live::error(
        format!(
            "no heap graph was taken; the snapshot `{}` is there",
            printable(name)
        ),
        "the reasons stand above, a process a line; `--heap --outside` reads one without a fork",
    )
}

/// What became of a heap graph, in a line.
pub(super) fn graph_words(state: &GraphState) -> String {
    let GraphState { number, pid, .. } = state;
    match &state.outcome {
        GraphOutcome::Waiting | GraphOutcome::Begun => {
            format!("heap graph {number} of process {pid}: not there yet")
        }
        GraphOutcome::Taken {
            nodes,
            bytes: size,
            paused_ns,
            ..
        } => {
            let objects = if state.has_objects {
                format!(
                    "heap graph {number} of process {pid}: {} objects, {}",
                    blocks(*nodes),
                    bytes(*size)
                )
            } else {
                format!("memory of process {pid} (look {number})")
            };
            let paused = *paused_ns as f64 / 1e6;
            format!("{objects}; paused {paused:.1} ms{}", lost_words(state))
        }
        GraphOutcome::Outside {
            nodes,
            bytes: size,
            why,
            ..
        } => {
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            format!(
                "heap graph {number} of process {pid}: {} objects, {}; read from outside, \
                 approximate{why}",
                blocks(*nodes),
                bytes(*size)
            )
        }
        GraphOutcome::CutOff(why) => {
            format!("heap graph {number} of process {pid} is not whole: {why}")
        }
        GraphOutcome::Refused(why) => format!("no heap graph of process {pid}: {why}"),
    }
}

/// What is lost, as the end of a line.
fn lost_words(state: &GraphState) -> String {
    match &state.lost {
        None => String::new(),
        Some(Ok(lost)) if lost.blocks == 0 => {
            format!("; lost: none of {} native blocks", blocks(lost.of))
        }
        Some(Ok(lost)) => format!(
            "; lost: {} of {} native blocks, {}",
            blocks(lost.blocks),
            blocks(lost.of),
            bytes(lost.bytes)
        ),
        Some(Err(why)) => format!("; what is lost could not be found out: {why}"),
    }
}

fn graph_json(state: &GraphState) -> serde_json::Value {
    let mut json = json!({ "graph": state.number, "pid": state.pid });
    match &state.outcome {
        GraphOutcome::Waiting | GraphOutcome::Begun => json["outcome"] = "waiting".into(),
        GraphOutcome::Taken {
            nodes,
            edges,
            bytes,
            paused_ns,
        } => {
            json["outcome"] = "taken".into();
            json["objects"] = (*nodes).into();
            json["references"] = (*edges).into();
            json["bytes"] = (*bytes).into();
            json["paused_seconds"] = (*paused_ns as f64 / 1e9).into();
            match &state.lost {
                None => {}
                Some(Ok(lost)) => {
                    json["lost_blocks"] = lost.blocks.into();
                    json["lost_bytes"] = lost.bytes.into();
                    json["native_blocks"] = lost.of.into();
                }
                Some(Err(why)) => json["lost_error"] = why.as_str().into(),
            }
        }
        GraphOutcome::Outside {
            nodes,
            edges,
            bytes,
            why,
        } => {
            json["outcome"] = "outside".into();
            json["objects"] = (*nodes).into();
            json["references"] = (*edges).into();
            json["bytes"] = (*bytes).into();
            if !why.is_empty() {
                json["why"] = why.as_str().into();
            }
        }
        GraphOutcome::CutOff(why) => {
            json["outcome"] = "cut off".into();
            json["why"] = why.as_str().into();
        }
        GraphOutcome::Refused(why) => {
            json["outcome"] = "refused".into();
            json["why"] = why.as_str().into();
        }
    }
    json
}

/// The time of day.
fn clock(taken: &Snapshot) -> String {
    let ns = i128::from(taken.started_unix_ns) + i128::from(taken.at_ns);
    let at = Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}
