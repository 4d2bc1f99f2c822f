//! `leakline snapshot`: keeps an instant of a recording that is being made.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use leakline_analysis::report::{blocks, bytes, duration, printable};
use leakline_collector::protocol::Snapshot;
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

Exit status: 0 when it is kept, 2 for a name that will not do, 3 if the process is
not being recorded or the name was given before.")]
pub(crate) struct Args {
    /// A process that is being recorded, or its recording
    #[arg(value_name = "PID")]
    process: PathBuf,

    /// What to call it: printable, at most 64 bytes, and new
    #[arg(value_name = "NAME")]
    name: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let taken = Live::named(&args.process)?.snapshot(&args.name)?;
        let recording = taken.recording.clone();
        // That it cannot be reached from here does not undo it.
        let file = live::path(recording).ok().map(|path| live::shown(&path));
        match output {
            Output::Json(out) => {
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
                });
                writeln!(out, "{answer}")
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
                .and_then(|()| {
                    let process = live::shown(&args.process);
                    let words = ["leakline", "diff", &process, "--from", &args.name];
                    let command = shlex::try_join(words).unwrap_or_default();
                    writeln!(out, "\nnext: {command}")
                })
            }
        }
        .map_err(CliError::Output)
    })
}

/// The time of day.
fn clock(taken: &Snapshot) -> String {
    let ns = i128::from(taken.started_unix_ns) + i128::from(taken.at_ns);
    let at = Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}
