//! `leakline flame`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::report::{counted, json, svg};
use leakline_analysis::{FlameQuery, Model, Stacks, Tree, TreeQuery};

use super::report::{Input, Output, Rows, When, report, write_file};
use crate::CliError;

/// Draws who called whom to allocate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline flame                            what is live when it is done, as NAME.svg
  leakline flame --at peak -o peak.svg      what was live at the high-water mark
  leakline flame --from +60s                what grew since the first minute, in colour
  leakline flame --sort total > all.svg     everything that was allocated

A browser shows the picture: click to zoom, Esc for all, / to find.")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// Where to write the picture, - for stdout [default: the recording's name
    /// with .svg, or stdout where that is no terminal]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// From the innermost frame outwards
    #[arg(long)]
    inverted: bool,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rows: Rows,
}

/// Writes the picture, and says where it is.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(&args.input, |model, stacks, output| {
        let query = FlameQuery {
            span: args.when.span(model)?,
            measure: args.rows.measure(&args.when),
            unit: args.rows.unit(),
            inverted: args.inverted,
            filter: args.rows.filter(),
        };
        match output {
            Output::Json(out) => {
                let tree = Tree::new(model, stacks, tree_of(query, args));
                json::tree(model, stacks, &tree, out).map_err(CliError::Output)
            }
            Output::Text(out, _) => match place(args, model) {
                None => svg::flame(model, stacks, &query, out)
                    .map(|_| ())
                    .map_err(CliError::Output),
                Some(path) => write(&path, args.force, model, stacks, &query),
            },
        }
    })
}

/// What it draws, as a tree.
fn tree_of(query: FlameQuery, args: &Args) -> TreeQuery {
    TreeQuery {
        span: query.span,
        measure: query.measure,
        unit: query.unit,
        inverted: query.inverted,
        threshold: 0.0,
        limit: args.rows.limit(&args.input, 0),
        filter: query.filter,
        all_frames: false,
    }
}

/// The file to write; `None` is stdout.
fn place(args: &Args, model: &Model<'_>) -> Option<PathBuf> {
    match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None if !io::stdout().is_terminal() => None,
        None => Path::new(&model.origin().file)
            .with_extension("svg")
            .file_name()
            .map(PathBuf::from),
    }
}

fn write<'a>(
    path: &Path,
    force: bool,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    query: &FlameQuery,
) -> Result<(), CliError> {
    let drawn = write_file(path, force, |out| svg::flame(model, stacks, query, out))?;
    let calls = counted(drawn.calls as u64, "call", "calls");
    // Where stderr cannot be written to, nobody reads it.
    let _ = writeln!(
        anstream::stderr().lock(),
        "wrote {} ({calls}): open it in a browser",
        path.display()
    );
    Ok(())
}
