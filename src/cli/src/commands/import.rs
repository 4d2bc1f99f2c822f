//! `leakline import`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::report::{blocks, bytes, counted, printable};
use serde_json::json;

use super::report::{Output, answer_with};
use crate::CliError;
use crate::tracemalloc::{Import, Taken};

/// Makes a recording of what another tool has written.
///
/// Of `tracemalloc`: files of `Snapshot.dump()`, the earliest first. Each becomes an
/// instant of the recording, under its file's name. The files are not trusted: they
/// are pickles, but nothing in them is run, and what is no part of a snapshot is
/// refused. No Python is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline import tracemalloc before.dump after.dump -o app.leakline
  leakline diff --from before --to after app.leakline
  leakline app.leakline

Exit status: 0 when the recording is written, 2 if it was asked for wrongly, 3 if a
file is no dump, or the recording cannot be written. Then there is no recording.")]
pub(crate) struct Args {
    /// What wrote the files
    #[arg(value_name = "TOOL")]
    tool: Tool,
    /// Files of `Snapshot.dump()`, in the order in which they were written
    #[arg(value_name = "DUMP", required = true, value_hint = clap::ValueHint::FilePath)]
    dumps: Vec<PathBuf>,
    /// The recording to write [default: the first dump's name with .leakline]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, short)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be imported from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tool {
    /// Files of Python's tracemalloc.Snapshot.dump()
    Tracemalloc,
}

/// Writes the recording, and says what is in it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let Tool::Tracemalloc = args.tool;
    answer_with(args.json, |output| {
        let path = match &args.output {
            Some(path) => path.clone(),
            None => default_name(&args.dumps[0])?,
        };
        if path.as_os_str() == "-" {
            return Err(CliError::Usage {
                message: "a recording cannot be written to stdout".into(),
                hint: Some("name a file with `-o FILE`".into()),
            });
        }
        // Said before work is done for nothing.
        if !args.force && path.exists() {
            return Err(not_written(&path, &io::ErrorKind::AlreadyExists.into()));
        }
        let mut import = Import::default();
        for dump in &args.dumps {
            import.read(dump).map_err(|error| CliError::Report {
                message: error.to_string(),
                hint: Some(
                    "what `tracemalloc.take_snapshot().dump(FILE)` writes can be imported".into(),
                ),
                source: std::error::Error::source(&error).map(|why| why.to_string().into()),
            })?;
        }
        let told: Vec<Told> = import.taken().iter().map(Told::new).collect();
        write(import, &path, args.force)?;
        match output {
            Output::Json(out) => {
                let snapshots = told.iter().map(|one| {
                    json!({
                        "name": one.name,
                        "dump": one.dump,
                        "live_bytes": one.live_bytes,
                        "live_blocks": one.live_blocks,
                    })
                });
                let answer = json!({
                    "schema": "leakline.import",
                    "version": 1,
                    "file": path.to_string_lossy(),
                    "snapshots": snapshots.collect::<Vec<_>>(),
                });
                writeln!(out, "{answer}").map_err(CliError::Output)
            }
            Output::Text(out, _) => text(&told, &path, out).map_err(CliError::Output),
        }
    })
}

/// A snapshot, to be told of when the recording is written.
struct Told {
    name: String,
    dump: String,
    live_bytes: u64,
    live_blocks: u64,
}

impl Told {
    fn new(taken: &Taken) -> Told {
        Told {
            name: taken.name.clone(),
            dump: taken.file.to_string_lossy().into_owned(),
            live_bytes: taken.live_bytes,
            live_blocks: taken.live_blocks,
        }
    }
}

fn text(told: &[Told], path: &Path, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "wrote {} ({})\n",
        path.display(),
        counted(told.len() as u64, "snapshot", "snapshots")
    )?;
    let width = told.iter().map(|one| one.name.chars().count()).max();
    for one in told {
        writeln!(
            out,
            "{:<width$}  {:>12} in {:>9} blocks  {}",
            printable(&one.name),
            bytes(one.live_bytes),
            blocks(one.live_blocks),
            printable(&one.dump),
            width = width.unwrap_or(0)
        )?;
    }
    let file = path.to_string_lossy();
    let words = match told {
        [first, .., last] => vec![
            "leakline",
            "diff",
            "--from",
            &first.name,
            "--to",
            &last.name,
            &file,
        ],
        _ => vec!["leakline", "top", &file],
    };
    let command = shlex::try_join(words).unwrap_or_default();
    writeln!(out, "\nnext: {command}")
}

fn default_name(dump: &Path) -> Result<PathBuf, CliError> {
    let name = dump.with_extension("leakline");
    name.file_name()
        .map(PathBuf::from)
        .ok_or_else(|| CliError::Usage {
            message: format!("{} is no file's name", dump.display()),
            hint: None,
        })
}

fn not_written(path: &Path, error: &io::Error) -> CliError {
    let is_there = error.kind() == io::ErrorKind::AlreadyExists;
    CliError::Report {
        message: format!(
            "cannot write `{}`: {}",
            path.display(),
            if is_there {
                "it is there".to_owned()
            } else {
                crate::error::plain(error)
            }
        ),
        hint: is_there.then(|| "-f replaces it, -o names another".into()),
        source: None,
    }
}

fn write(import: Import, path: &Path, force: bool) -> Result<(), CliError> {
    let mut options = fs::File::options();
    // As recordings are: for their owner alone.
    options.read(true).write(true).mode(0o600);
    let file = if force {
        options.create(true).truncate(true).open(path)
    } else {
        options.create_new(true).open(path)
    };
    let file = file.map_err(|error| not_written(path, &error))?;
    let is_file = file.metadata().is_ok_and(|about| about.is_file());
    import.write(file).map_err(|error| {
        // Half of it would look like a recording.
        if is_file {
            let _ = fs::remove_file(path);
        }
        not_written(path, &error)
    })
}
