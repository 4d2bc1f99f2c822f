//! `leakline export`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::report::{collapsed, counted, html, pprof, speedscope};
use leakline_analysis::{Exported, Model, Selection, Stacks};
use serde_json::json;

use super::report::{Input, Output, Rows, When, report, write_file};
use crate::CliError;

/// Writes a page or a profile to share.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline export                           a page for a browser, as NAME.html
  leakline export --redact -o leak.html     the same without paths and labels
  leakline export --at peak -o x.pb.gz      what was live at the high-water mark, for pprof
  leakline export -o x.speedscope.json      for https://www.speedscope.app
  leakline export --format collapsed -o -   a line a stack, to stdout

The page needs no network: timeline, sites, flame, and the difference between any two instants.")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// What to write, - for stdout: the format is that of its ending [default:
    /// the recording's name with the format's ending]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write it as [default: what the ending of --output says, else html]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// Leave out paths, command lines, names of threads and marks, and source
    /// lines; functions stay
    #[arg(long)]
    redact: bool,
    #[command(flatten)]
    when: When,
    #[command(flatten)]
    rows: Rows,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A page for a browser (.html)
    Html,
    /// For speedscope (.speedscope.json)
    Speedscope,
    /// For pprof (.pb.gz)
    Pprof,
    /// A line a stack, for flame graph tools (.collapsed, .folded)
    Collapsed,
}

impl Format {
    const ENDINGS: [(&str, Format); 6] = [
        (".html", Format::Html),
        (".htm", Format::Html),
        (".speedscope.json", Format::Speedscope),
        (".pb.gz", Format::Pprof),
        (".collapsed", Format::Collapsed),
        (".folded", Format::Collapsed),
    ];

    fn of(path: &Path) -> Option<Format> {
        let name = path.to_string_lossy();
        Self::ENDINGS
            .into_iter()
            .find(|(ending, _)| name.ends_with(ending))
            .map(|(_, format)| format)
    }

    /// Without its dot.
    fn ending(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Speedscope => "speedscope.json",
            Format::Pprof => "pb.gz",
            Format::Collapsed => "collapsed",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Speedscope => "speedscope",
            Format::Pprof => "pprof",
            Format::Collapsed => "collapsed",
        }
    }

    fn write<'a>(
        self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        selection: &Selection,
        out: &mut dyn Write,
    ) -> io::Result<Exported> {
        match self {
            Format::Html => html::page(model, stacks, selection, out),
            Format::Speedscope => speedscope::speedscope(model, stacks, selection, out),
            Format::Pprof => pprof::pprof(model, stacks, selection, out),
            Format::Collapsed => collapsed::collapsed(model, stacks, selection, out),
        }
    }
}

/// Writes the file, and says where it is.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(&args.input, |model, stacks, output| {
        let format = format(args)?;
        let place = place(args, model, format);
        let span = args.when.span(model)?;
        let measure = (args.rows.measure(&args.when), args.rows.unit());
        let filter = args.rows.filter();
        // Asked for by the names that are left out, too.
        let mut selection = Selection::new(model, stacks, span, measure, filter.as_ref());
        selection.limit = args.rows.limit(&args.input, usize::MAX);
        if args.redact {
            let redaction = model.redaction();
            let model = model.redacted(&redaction);
            let mut stacks = Stacks::new(&model);
            return send(
                format,
                place,
                args,
                (&model, &mut stacks),
                &selection,
                output,
            );
        }
        send(format, place, args, (model, stacks), &selection, output)
    })
}

/// What to write.
fn format(args: &Args) -> Result<Format, CliError> {
    let given = args
        .output
        .as_deref()
        .filter(|path| path.as_os_str() != "-");
    match (args.format, given) {
        (Some(format), _) => Ok(format),
        (None, Some(path)) => Format::of(path).ok_or_else(|| CliError::Usage {
            message: format!("the ending of {} says no format", path.display()),
            hint: Some(
                "endings are .html, .speedscope.json, .pb.gz and .collapsed; or name it with --format"
                    .into(),
            ),
        }),
        (None, None) => Ok(Format::Html),
    }
}

/// The file to write; `None` is stdout.
fn place(args: &Args, model: &Model<'_>, format: Format) -> Option<PathBuf> {
    match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None if !io::stdout().is_terminal() && !args.input.json => None,
        None => Path::new(&model.origin().file)
            .with_extension(format.ending())
            .file_name()
            .map(PathBuf::from),
    }
}

fn send<'a>(
    format: Format,
    place: Option<PathBuf>,
    args: &Args,
    (model, stacks): (&Model<'a>, &mut Stacks<'a>),
    selection: &Selection,
    output: Output<'_>,
) -> Result<(), CliError> {
    match (output, place) {
        (Output::Json(_), None) => Err(CliError::Usage {
            message: "--json says what was written, so it cannot be written to stdout too".into(),
            hint: Some("name a file with -o, or leave --json out".into()),
        }),
        (Output::Json(out), Some(path)) => {
            let exported = write_file(&path, args.force, |out| {
                format.write(model, stacks, selection, out)
            })?;
            let told = json!({
                "schema": "leakline.export",
                "version": 1,
                "file": path.to_string_lossy(),
                "format": format.name(),
                "stacks": exported.stacks,
                "left_out": exported.left_out,
            });
            writeln!(out, "{told}").map_err(CliError::Output)
        }
        (Output::Text(out, _), None) => format
            .write(model, stacks, selection, out)
            .map(|_| ())
            .map_err(CliError::Output),
        (Output::Text(..), Some(path)) => {
            let exported = write_file(&path, args.force, |out| {
                format.write(model, stacks, selection, out)
            })?;
            let stacks = counted(exported.stacks as u64, "stack", "stacks");
            let rest = match exported.left_out {
                0 => String::new(),
                left_out => format!(
                    ", {} more summed up",
                    leakline_analysis::report::blocks(left_out as u64)
                ),
            };
            let next = match format {
                Format::Html => ": open it in a browser",
                Format::Speedscope => ": open it at https://www.speedscope.app",
                Format::Pprof => ": open it with `go tool pprof -http=: FILE`",
                Format::Collapsed => "",
            };
            // Where stderr cannot be written to, nobody reads it.
            let _ = writeln!(
                anstream::stderr().lock(),
                "wrote {} ({stacks}{rest}){next}",
                path.display()
            );
            Ok(())
        }
    }
}
