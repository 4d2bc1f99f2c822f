//! `leakline mode`: switches a recording that is being made between every block and
//! a sample of them.

use std::path::PathBuf;
use std::process::ExitCode;

use leakline_analysis::report::bytes;
use leakline_collector::protocol::{Domains, Status};
use serde_json::json;

use super::live::Live;
use super::report::{Output, answer_with};
use super::run::{Sample, parse_sample};
use crate::CliError;

/// Says whether every block is recorded or a sample of them, and whose; switches.
///
/// What was recorded before stays as it was, and its deaths are seen whatever is
/// recorded now: a recording may have exact stretches and sampled ones. The process
/// is not stopped. A thread notices with its next block or, where it samples, when
/// the first thread of its process comes to its next sample.
///
/// Once every block was recorded, each free and realloc is told of until the session
/// ends: a sample costs far more then than one from the start.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline mode 4121
  leakline mode 4121 --exact
  leakline mode 4121 --sample auto
  leakline mode 4121 --sample 64KiB
  leakline mode 4121 --domains native     # of Python's, only what dies
  leakline mode 4121 --domains all

Exit status: 0 when it is as wanted, 3 if the process is not being recorded or
cannot be switched.")]
pub(crate) struct Args {
    /// A process that is being recorded, or its recording
    #[arg(value_name = "PID")]
    process: PathBuf,

    /// Record every block from now on
    #[arg(long, conflicts_with = "sample")]
    exact: bool,

    /// Record a sample from now on, one in BYTES allocated on average, or as many as
    /// take less than 1 % of the program's time
    #[arg(long, value_name = "BYTES|auto", value_parser = parse_sample)]
    sample: Option<Sample>,

    /// Record new blocks of these domains only from now on, of those that the recording
    /// was begun with
    #[arg(long, value_name = "DOMAINS")]
    domains: Option<Which>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Domains to record.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Which {
    /// malloc's family and mmap's, and CPython's three
    All,
    /// malloc's family and mmap's
    Native,
    /// CPython's three
    Python,
}

/// Does it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let live = || Live::named(&args.process);
        let to = args.sample.map(|sample| (sample.mean_bytes, sample.auto));
        let mut status = live()?.status()?;
        if let Some(which) = args.domains {
            let begun = status.begun_with;
            let wanted = match which {
                Which::All => begun,
                Which::Native => Domains {
                    native: true,
                    python: false,
                },
                Which::Python => Domains {
                    native: false,
                    python: true,
                },
            };
            status = live()?.switch_domains(wanted)?;
        }
        if args.exact || to.is_some() {
            status = live()?.switch(to)?;
        }
        match output {
            Output::Json(out) => {
                let answer = json!({
                    "schema": "leakline.mode",
                    "version": 1,
                    "mode": status.mode,
                    "sample_bytes": (status.sample_bytes > 0).then_some(status.sample_bytes),
                    "domains": names(status.domains),
                    "is_on": status.is_on,
                });
                writeln!(out, "{answer}")
            }
            Output::Text(out, _) => writeln!(out, "{}", words(&status)),
        }
        .map_err(CliError::Output)
    })
}

fn words(status: &Status) -> String {
    if !status.is_on {
        return "nothing is recorded any more".to_owned();
    }
    let of = match (status.domains == status.begun_with, status.domains.native) {
        (true, _) => "",
        (false, true) => ", of native memory only",
        (false, false) => ", of Python's memory only",
    };
    match status.sample_bytes {
        0 => format!("every block is recorded{of}"),
        mean => format!(
            "a sample is recorded: one in {} on average{of}",
            bytes(mean)
        ),
    }
}

fn names(domains: Domains) -> Vec<&'static str> {
    let native = domains.native.then_some("native");
    native
        .into_iter()
        .chain(domains.python.then_some("python"))
        .collect()
}
