//! `leakline stats`.

use std::process::ExitCode;

use leakline_analysis::Stats;
use leakline_analysis::report::{json, text};

use super::report::{Input, Output, report};
use crate::CliError;

/// Prints what was counted: totals, sizes, rates, processes, losses.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline stats
  leakline stats --json train.4121.leakline")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
}

/// Writes the counts to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(&args.input, |model, _, output| {
        let stats = Stats::new(model);
        match output {
            Output::Json(out) => json::stats(model, &stats, out),
            Output::Text(out, style) => text::stats(model, &stats, style, out),
        }
        .map_err(CliError::Output)
    })
}
