//! `leakline tree`.

use std::process::ExitCode;

use leakline_analysis::report::{json, text};
use leakline_analysis::{Tree, TreeQuery};

use super::report::{Input, Output, Rows, When, report};
use crate::CliError;

/// Shows who called whom to allocate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline tree                          from main to what is live when it is done
  leakline tree --inverted               from the allocating function outwards
  leakline tree --at peak --threshold 5  only what held 5 % of the peak")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// From the innermost frame outwards
    #[arg(long)]
    inverted: bool,
    /// Sum up branches below this share of the whole
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    threshold: f64,
    /// Show the interpreter's and allocators' own frames too
    #[arg(long)]
    all_frames: bool,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rows: Rows,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err("not from 0 to 100".into())
    }
}

/// Writes the tree to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    const SCREENFUL: usize = 60;
    report(&args.input, |model, stacks, output| {
        let query = TreeQuery {
            span: args.when.span(model)?,
            measure: args.rows.measure(&args.when),
            unit: args.rows.unit(),
            inverted: args.inverted,
            threshold: args.threshold,
            limit: args.rows.limit(&args.input, SCREENFUL),
            filter: args.rows.filter(),
            all_frames: args.all_frames,
        };
        let tree = Tree::new(model, stacks, query);
        match output {
            Output::Json(out) => json::tree(model, stacks, &tree, out),
            Output::Text(out, style) => text::tree(model, stacks, &tree, style, out),
        }
        .map_err(CliError::Output)
    })
}
