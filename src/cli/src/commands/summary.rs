//! `leakline summary`.

use std::process::ExitCode;

use leakline_analysis::Summary;
use leakline_analysis::report::{json, text};

use super::report::{Input, Output, report};
use crate::CliError;

/// Says in a screenful what a recording has to say.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline summary
  leakline summary train.4121.leakline")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// Most sites to name; 0 = all
    #[arg(long, value_name = "N", default_value = "5")]
    limit: usize,
}

/// Writes the summary to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(&args.input, |model, stacks, output| {
        let limit = (args.limit > 0).then_some(args.limit);
        let summary = Summary::new(model, stacks, limit);
        match output {
            Output::Json(out) => json::summary(model, stacks, &summary, out),
            Output::Text(out, style) => text::summary(model, stacks, &summary, style, out),
        }
        .map_err(CliError::Output)
    })
}
