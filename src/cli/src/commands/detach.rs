//! `leakline detach`: ends what `leakline attach` began.

use std::process::ExitCode;
use std::time::Duration;

use leakline_inject::inspect::Process;

use super::attach::{self, control::Asked};
use crate::CliError;

/// Leaves a process, and all that are recorded with it, as they were.
///
/// Ends the `leakline attach` that records them, wherever that runs, and waits
/// until its recording is whole. If it is gone without having left, the process
/// is left all the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline detach 4121

Exit status: 0 when it was left, 3 if nobody records it or it cannot be left.")]
pub(crate) struct Args {
    /// The process that was attached to
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pid: u32,
}

/// How long the end may take: what is under way is drained, symbols are looked up.
const PATIENCE: Duration = Duration::from_secs(180);

/// Does it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let pid = args.pid;
    let process = Process::look(pid).map_err(CliError::Refused)?;
    let error = |message: String, hint: Option<&str>| CliError::Report {
        message,
        hint: hint.map(str::to_owned),
        source: None,
    };
    match attach::control::ask(pid, process.start_ticks, PATIENCE) {
        Asked::Whole => Ok(ExitCode::SUCCESS),
        Asked::NotWhole => Err(error(
            format!("process {pid} is recorded no more, but not everything is as it was"),
            Some("what is left goes when its processes next make or free a block"),
        )),
        Asked::Silent => Err(error(
            format!("the `leakline attach` of process {pid} does not answer"),
            Some("end it with `kill`; this command then leaves the process by itself"),
        )),
        Asked::Nobody => match attach::fetch(pid, Some(process.start_ticks)) {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(leakline_inject::injection::Error::NotLoaded) => Err(error(
                format!("process {pid} is not being recorded by `leakline attach`"),
                Some(
                    "`leakline ps` says which processes are; where another process was named\n\
                      to `leakline attach`, name that one",
                ),
            )),
            Err(why) => Err(error(format!("cannot leave process {pid}: {why}"), None)),
        },
    }
}
