//! `leakline top`.

use std::process::ExitCode;

use leakline_analysis::report::{json, text};
use leakline_analysis::{GroupBy, Span, Top, TopQuery};

use super::report::{Input, Output, Rows, When, report};
use crate::CliError;

/// Lists what allocated, largest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline top                            sites by what is live when the program is done
  leakline top --at end                   and what Python's own end left of it
  leakline top --sort peak --at peak      who made the high-water mark
  leakline top --by function --sort total
  leakline top --from +60s --to end       what grew after the first minute
  leakline top --filter 'app/*' --json
  leakline top --json --limit 0           all sites, however many")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// What a row stands for
    #[arg(long, value_name = "GROUP", default_value = "site")]
    by: By,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rows: Rows,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(crate) enum By {
    /// A stack that allocated
    Site,
    /// A source line
    Line,
    /// A function
    Function,
    /// A source file
    File,
    /// A native library or Python package
    Library,
    /// A process
    Process,
    /// A thread
    Thread,
    /// malloc, one of Python's allocators, or mmap
    Domain,
}

impl From<By> for GroupBy {
    fn from(by: By) -> Self {
        match by {
            By::Site => GroupBy::Site,
            By::Line => GroupBy::Line,
            By::Function => GroupBy::Function,
            By::File => GroupBy::File,
            By::Library => GroupBy::Library,
            By::Process => GroupBy::Process,
            By::Thread => GroupBy::Thread,
            By::Domain => GroupBy::Domain,
        }
    }
}

/// Writes the table to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    const SCREENFUL: usize = 15;
    report(&args.input, |model, stacks, output| {
        if args.by == By::Thread && args.when.is_given() {
            return Err(CliError::Usage {
                message: "threads are known for the whole recording only".into(),
                hint: Some("leave out `--at`, `--from` and `--to`, or use another `--by`".into()),
            });
        }
        let span = if args.by == By::Thread {
            Span::whole(model)
        } else {
            args.when.span(model)?
        };
        let query = TopQuery {
            span,
            by: args.by.into(),
            measure: args.rows.measure(&args.when),
            unit: args.rows.unit(),
            limit: args.rows.limit(&args.input, SCREENFUL),
            most_frames: args.rows.most_frames(),
            filter: args.rows.filter(),
        };
        let top = Top::new(model, stacks, query);
        match output {
            Output::Json(out) => json::top(model, stacks, &top, out),
            Output::Text(out, style) => text::top(model, stacks, &top, style, out),
        }
        .map_err(CliError::Output)
    })
}
