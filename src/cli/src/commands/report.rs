//! What the reports have in common: which recording, which instants, and
//! where the answer goes.

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use leakline_analysis::report::Style;
use leakline_analysis::{
    Contents, Filter, Instant, InstantError, Measure, Model, Origin, Span, Stacks, Unit, escaped,
};
use leakline_recording::record::Record;
use leakline_recording::{OpenError, Reader};
use serde_json::json;

use super::live::{self, Live};
use crate::CliError;

/// The recording to report on, and the form of the report.
#[derive(Debug, clap::Args)]
pub(crate) struct Input {
    /// The recording, or a process that is being recorded, or the pid that a
    /// recording here is named after [default: the newest *.leakline here]
    #[arg(value_name = "FILE|PID")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Input {
    /// Of that file, or the newest.
    pub(crate) fn new(file: Option<PathBuf>, json: bool) -> Self {
        Input { file, json }
    }

    /// JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }
}

/// The instants to report on.
#[derive(Debug, clap::Args)]
pub(crate) struct When {
    /// The state at an instant: start, end, peak, a mark's name, +90s, 14:05
    /// [default: end, of Python when its main thread left __main__]
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with_all = ["from", "to"])]
    at: Option<Instant>,
    /// Only what happened after an instant, and the growth since
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Instant>,
    /// Only what happened before an instant [default with --from: as of --at]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<Instant>,
}

impl When {
    /// Two instants are compared.
    pub(crate) fn compares(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Not the whole recording.
    pub(crate) fn is_given(&self) -> bool {
        self.at.is_some() || self.compares()
    }

    /// The recorded instants nearest to those asked for.
    pub(crate) fn span(&self, model: &Model<'_>) -> Result<Span, CliError> {
        let span = match (&self.at, &self.from, &self.to) {
            (Some(at), _, _) => Span::at(model, at),
            (None, None, None) => Ok(Span::usual(model)),
            (None, Some(from), None) => Span::since(model, from),
            (None, from, Some(to)) => {
                Span::between(model, from.as_ref().unwrap_or(&Instant::Start), to)
            }
        };
        resolved(span)
    }
}

/// What there is of the instants asked for, or why there is nothing.
pub(crate) fn resolved<T>(found: Result<T, InstantError>) -> Result<T, CliError> {
    found.map_err(|error| CliError::Report {
        hint: Some(error.hint()),
        message: error.to_string(),
        source: None,
    })
}

pub(crate) fn instant(text: &str) -> Result<Instant, String> {
    Instant::parse(text).map_err(|error| format!("{error}: {}", error.hint()))
}

/// Which rows, in which order.
#[derive(Debug, clap::Args)]
pub(crate) struct Rows {
    /// Largest first by this [default: live, with --from growth]
    #[arg(long, value_name = "FIGURE")]
    sort: Option<Sort>,
    /// Judge by blocks, not bytes
    #[arg(long)]
    blocks: bool,
    /// Most rows; 0 = all [default: what fits a screen; with --json all, top's up
    /// to about 20 MB]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only rows whose function, file, module or process matches: a text to
    /// find, or a pattern with * and ?
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Ok::<_, String>(Filter::new(text)))]
    filter: Option<Filter>,
}

/// Figures to sort by.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Sort {
    /// What is live
    Live,
    /// What was allocated
    Total,
    /// What was live at the high-water mark
    Peak,
    /// Blocks freed before their thread's next allocations
    Temporary,
    /// How much more is live than at --from
    Growth,
}

impl Rows {
    /// The figure that rows are judged by.
    pub(crate) fn measure(&self, when: &When) -> Measure {
        match self.sort {
            None if when.compares() => Measure::Growth,
            None => Measure::Live,
            Some(sort) => sort.measure(),
        }
    }

    /// The figure that was asked for, if any was.
    pub(crate) fn asked(&self) -> Option<(Measure, Unit)> {
        self.sort.map(|sort| (sort.measure(), self.unit()))
    }

    /// Bytes or blocks.
    pub(crate) fn unit(&self) -> Unit {
        if self.blocks {
            Unit::Blocks
        } else {
            Unit::Bytes
        }
    }

    /// Most rows to show, `screenful` where text was asked for and no limit
    /// was.
    pub(crate) fn limit(&self, input: &Input, screenful: usize) -> Option<usize> {
        match self.limit {
            Some(0) => None,
            Some(limit) => Some(limit),
            None if input.json => None,
            None => Some(screenful),
        }
    }

    /// Most frames in the stacks of all rows, where no number of rows was
    /// asked for: a Python program has some 10,000 sites of 100 frames.
    pub(crate) fn most_frames(&self) -> Option<usize> {
        /// About 20 MB of JSON.
        const MOST_FRAMES: usize = 100_000;
        self.limit.is_none().then_some(MOST_FRAMES)
    }

    /// Rows to keep.
    pub(crate) fn filter(&self) -> Option<Filter> {
        self.filter.clone()
    }
}

impl Sort {
    fn measure(self) -> Measure {
        match self {
            Sort::Live => Measure::Live,
            Sort::Total => Measure::Total,
            Sort::Peak => Measure::Peak,
            Sort::Temporary => Measure::Temporary,
            Sort::Growth => Measure::Growth,
        }
    }
}

/// Where a report goes.
pub(crate) enum Output<'o> {
    /// To a program.
    Json(&'o mut dyn Write),
    /// To a reader.
    Text(&'o mut dyn Write, Style),
}

/// Opens the recording, lets `answer` write to stdout, and tells a program of
/// failures in JSON.
pub(crate) fn report(
    input: &Input,
    answer: impl for<'a> FnOnce(&Model<'a>, &mut Stacks<'a>, Output<'_>) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    report_with_file(input, |model, stacks, _, output| {
        answer(model, stacks, output)
    })
}

/// As [`report`], for who has to read more of the file.
pub(crate) fn report_with_file(
    input: &Input,
    answer: impl for<'a> FnOnce(&Model<'a>, &mut Stacks<'a>, &Path, Output<'_>) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    answer_with(input.json, |output| {
        let opened = open(input)?;
        let model = opened.model();
        let mut stacks = Stacks::new(&model);
        answer(&model, &mut stacks, &opened.path, output)
    })
}

/// A recording that cannot be opened.
pub(crate) fn unopened(error: &OpenError) -> CliError {
    CliError::Report {
        message: error.to_string(),
        hint: error.hint().map(Into::into),
        source: None,
    }
}

/// Lets `answer` write to stdout, and tells a program of failures in JSON.
pub(crate) fn answer_with(
    json: bool,
    answer: impl FnOnce(Output<'_>) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let result = answer(if json {
        Output::Json(&mut out)
    } else {
        Output::Text(&mut out, style())
    });
    match result {
        Err(error) if json && error.status() != 0 => {
            // What stands there already is no JSON by itself: leave it to fail.
            let failure = json!({ "error": error.to_string(), "hint": error.hint() });
            writeln!(out, "{failure}")
                .and_then(|()| out.flush())
                .map_err(CliError::Output)?;
            error.print();
            Ok(ExitCode::from(error.status()))
        }
        Err(error) => Err(error),
        Ok(()) => out
            .flush()
            .map(|()| ExitCode::SUCCESS)
            .map_err(CliError::Output),
    }
}

/// Makes a file of what `write` writes.
pub(crate) fn write_file<T>(
    path: &Path,
    force: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> Result<T, CliError> {
    let failed = |error: io::Error| {
        let is_there = error.kind() == io::ErrorKind::AlreadyExists;
        CliError::Report {
            message: format!("cannot write {}: {error}", path.display()),
            hint: is_there.then(|| "-f replaces it, -o names another".into()),
            source: None,
        }
    };
    let mut options = fs::File::options();
    options.write(true).truncate(true);
    let file = if force {
        options.create(true).open(path)
    } else {
        options.create_new(true).open(path)
    };
    let mut out = BufWriter::with_capacity(1 << 16, file.map_err(failed)?);
    write(&mut out)
        .and_then(|written| out.flush().map(|()| written))
        .map_err(failed)
}

/// Width and colour of stdout.
fn style() -> Style {
    const DESIGN_WIDTH: usize = 80;
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let measured = || {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
    };
    Style {
        width: measured().or_else(columns).unwrap_or(DESIGN_WIDTH),
        colour: anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        boxes: io::stdout().is_terminal(),
    }
}

/// A recording in memory.
pub(crate) struct Opened {
    contents: Contents,
    reader: Reader,
    path: PathBuf,
    file: String,
    implied: bool,
    is_live: bool,
}

impl Opened {
    /// The recording, arranged.
    pub(crate) fn model(&self) -> Model<'_> {
        let records = self.contents.records();
        let started = records.iter().find_map(|record| match record {
            Record::Session(session) => Some(session.started_unix_ns),
            _ => None,
        });
        Model::of(
            &self.contents,
            Origin {
                file: self.file.clone(),
                implied: self.implied,
                file_bytes: self.reader.file_bytes(),
                ended: self.reader.ended(),
                is_live: self.is_live,
                warnings: self.reader.damage().warnings(),
                utc_offset_seconds: utc_offset_seconds(started.unwrap_or(0)),
            },
        )
    }
}

/// Seconds east of UTC here, when the recording began.
pub(super) fn utc_offset_seconds(unix_ns: u64) -> i32 {
    let started = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::system().to_offset(started).seconds()
}

/// The recording that a user means, and whether he did not name it.
pub(super) fn find(file: Option<&PathBuf>) -> Result<(PathBuf, bool), CliError> {
    Ok(match file {
        Some(given) => (named(given)?, false),
        None => (newest()?, true),
    })
}

/// A file of that name, or else the recording of that process: the one that is
/// being made, or one here that bears its number.
fn named(given: &Path) -> Result<PathBuf, CliError> {
    let Some(pid) = live::as_pid(given) else {
        return Ok(given.to_owned());
    };
    let being_made = || live::path(Live::of_process(pid)?.status()?.recording);
    being_made().or_else(|why| by_pid(pid).ok_or(why))
}

fn open(input: &Input) -> Result<Opened, CliError> {
    open_file(input.file.as_ref())
}

/// Opens a second recording.
pub(crate) fn open_other(file: &PathBuf) -> Result<Opened, CliError> {
    open_file(Some(file))
}

fn open_file(file: Option<&PathBuf>) -> Result<Opened, CliError> {
    let (path, implied) = find(file)?;
    if file != Some(&path) {
        note(&format!("reading {}", path.display()));
    }
    let open = || Contents::open(&path).map_err(|error| unopened(&error));
    let (mut contents, mut reader) = open()?;
    let live = (!reader.ended())
        .then(|| Live::of_recording(&path))
        .flatten();
    if let Some(live) = live {
        // Up to a second of it may not be in the file yet.
        let flushed = live.flushed();
        (contents, reader) = open()?;
        if let Err(error) = flushed
            && !reader.ended()
        {
            note(&format!("warning: the last second may be missing: {error}"));
        }
    }
    let is_live = live.is_some() && !reader.ended();
    for warning in reader.damage().warnings() {
        note(&format!("warning: {warning}"));
    }
    let file = escaped(path.as_os_str().as_encoded_bytes()).into_owned();
    Ok(Opened {
        contents,
        reader,
        path,
        file,
        implied,
        is_live,
    })
}

/// A line on stderr, beside the report.
fn note(text: &str) {
    // Where stderr cannot be written to, nobody reads notes.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// `4121` means the recording here that is named `PROGRAM.4121.leakline`.
pub(super) fn by_pid(pid: u32) -> Option<PathBuf> {
    let ending = format!(".{pid}.leakline");
    recordings()
        .filter(|(path, _)| path.to_string_lossy().ends_with(&ending))
        .max_by_key(age)
        .map(path)
}

fn newest() -> Result<PathBuf, CliError> {
    recordings()
        .max_by_key(age)
        .map(path)
        .ok_or_else(|| CliError::Report {
            message: "there is no recording (*.leakline) here".into(),
            hint: Some("name one, or make one with `leakline run -- PROGRAM`".into()),
            source: None,
        })
}

fn age((path, modified): &(PathBuf, SystemTime)) -> (SystemTime, PathBuf) {
    (*modified, path.clone())
}

fn path((path, _): (PathBuf, SystemTime)) -> PathBuf {
    path
}

/// Recordings in the current directory.
fn recordings() -> impl Iterator<Item = (PathBuf, SystemTime)> {
    fs::read_dir(".")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = PathBuf::from(entry.file_name());
            let data = entry.metadata().ok()?;
            let is_recording = data.is_file() && path.extension()? == "leakline";
            is_recording.then_some((path, data.modified().ok()?))
        })
}
