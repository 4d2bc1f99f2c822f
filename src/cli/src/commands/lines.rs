//! `leakline lines`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use leakline_analysis::report::{json, text};
use leakline_analysis::{Lines, LinesQuery};

use super::report::{Input, Output, Rows, When, report};
use crate::CliError;

/// Shows a source file with what each line allocated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline lines train.py
  leakline lines app/views.py --inclusive     with all that a line called
  leakline lines train.py --sort peak --limit 10")]
pub(crate) struct Args {
    /// The source file: a path as in stacks, or the end of one
    source: String,
    #[command(flatten)]
    input: Input,
    /// Count all that a line called too
    #[arg(long)]
    inclusive: bool,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rows: Rows,
}

/// Writes the file's lines to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(&args.input, |model, stacks, output| {
        let file =
            Lines::find_file(model, stacks, &args.source).map_err(|error| CliError::Report {
                hint: Some(error.hint()),
                message: error.to_string(),
                source: None,
            })?;
        let query = LinesQuery {
            span: args.when.span(model)?,
            inclusive: args.inclusive,
            sort: args.rows.asked(),
            limit: args.rows.limit(&args.input, usize::MAX),
            filter: args.rows.filter(),
        };
        let on_disk = text_of(Path::new(&file));
        let lines = Lines::new(model, stacks, query, file, on_disk.as_deref());
        match output {
            Output::Json(out) => json::lines(model, &lines, out),
            Output::Text(out, style) => text::lines(model, &lines, style, out),
        }
        .map_err(CliError::Output)
    })
}

/// The text of a source file, where it is one and is here. The path comes from
/// a recording and may name anything.
fn text_of(file: &Path) -> Option<String> {
    const MOST_BYTES: u64 = 16 << 20;
    let data = fs::metadata(file).ok()?;
    let readable = data.is_file() && data.len() <= MOST_BYTES;
    readable.then(|| fs::read_to_string(file).ok()).flatten()
}
