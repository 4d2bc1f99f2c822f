//! Answers as JSON: the keys are documented in docs/json.md, and scripts rely
//! on them.
//!
//! Rows are written one at a time, so that a table of every site of a large
//! recording needs no copy of itself.

mod leaks;
mod ledger;
mod lost;
mod why;

pub use leaks::{check, leaks};
pub use ledger::{ledger, ledgers};
pub use lost::lost;
pub use why::why;

use std::cell::OnceCell;
use std::io;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use leakline_recording::record::Domain;

use crate::diff::{Change, Diff, DiffRow, Survived};
use crate::figures::{Figures, Measure, Unit};
use crate::frame::{Frame, FrameId};
use crate::instant::Span;
use crate::lines::Lines;
use crate::matching::Matched;
use crate::model::{Model, ProcessFacts};
use crate::names::{Name, escaped};
use crate::scatter::CONFIDENCE;
use crate::stack::Stacks;
use crate::stats::{ProcessStats, Stats};
use crate::summary::Summary;
use crate::top::{GroupBy, Row, Top};
use crate::tree::{Tree, TreeRow};

/// Version of the keys: rises when one changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// Writes a report's JSON and a newline.
fn write(out: &mut dyn io::Write, report: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    out.write_all(b"\n")
}

/// What every report begins with.
#[derive(Serialize)]
struct Header<'m> {
    schema: &'static str,
    version: u32,
    file: &'m str,
    leakline: &'m str,
    mode: &'m str,
    #[serde(flatten)]
    sampling: Option<SamplingJson>,
    started_unix_seconds: f64,
    duration_seconds: f64,
    complete: bool,
    lost_events: u64,
    ended: bool,
    end_reason: Option<&'m str>,
    resolved_from: Option<f64>,
    resolved_to: f64,
    resolution_seconds: f64,
    as_left_main: bool,
    warnings: &'m [String],
}

/// How blocks were sampled.
#[derive(Serialize)]
struct SamplingJson {
    /// Mean bytes between samples, and the smallest of the means if it changed.
    sample_bytes: u64,
    least_sample_bytes: u64,
    /// How often the true figure is within the error.
    confidence: f64,
}

impl SamplingJson {
    fn new(model: &Model<'_>) -> Option<Self> {
        let (sample_bytes, least_sample_bytes) = model.sample_range();
        model.is_sampled().then_some(SamplingJson {
            sample_bytes,
            least_sample_bytes,
            confidence: CONFIDENCE,
        })
    }
}

impl<'m> Header<'m> {
    fn new(schema: &'static str, model: &'m Model<'_>, span: &Span) -> Self {
        let origin = model.origin();
        let session = model.session();
        Header {
            schema,
            version: VERSION,
            file: &origin.file,
            leakline: session.map_or("", |session| session.leakline.as_str()),
            mode: model.mode(),
            sampling: SamplingJson::new(model),
            started_unix_seconds: session.map_or(0.0, |session| seconds(session.started_unix_ns)),
            duration_seconds: seconds(model.duration_ns()),
            complete: model.complete(),
            lost_events: model.totals().lost_events,
            ended: origin.ended,
            end_reason: model.end().map(|end| end.reason.as_str()),
            resolved_from: span.from().map(|from| seconds(from.resolved_ns())),
            resolved_to: seconds(span.to().resolved_ns()),
            resolution_seconds: seconds(span.resolution_ns()),
            as_left_main: span.is_as_left(),
            warnings: &origin.warnings,
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Live figures are below 0 only where a file is damaged.
fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[derive(Serialize)]
struct FiguresJson {
    live_bytes: u64,
    live_blocks: u64,
    total_bytes: u64,
    total_blocks: u64,
    /// `null` where it is not known, as of threads.
    peak_bytes: Option<u64>,
    peak_blocks: Option<u64>,
    temporary_blocks: u64,
    resizes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_blocks: Option<i64>,
    ended_bytes: u64,
    ended_blocks: u64,
    #[serde(flatten)]
    errors: Option<ErrorsJson>,
}

/// By how much the figures of a sampled recording may be off.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the JSON")]
struct ErrorsJson {
    live_bytes_error: u64,
    live_blocks_error: u64,
    total_bytes_error: u64,
    total_blocks_error: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes_error: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_blocks_error: Option<u64>,
    temporary_blocks_error: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_bytes_error: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta_blocks_error: Option<u64>,
}

impl ErrorsJson {
    fn of(figures: &Figures, compared: bool) -> Option<Self> {
        let error = |measure, unit| figures.error(measure, unit).unwrap_or(0);
        let delta = |unit| compared.then(|| error(Measure::Growth, unit));
        figures.is_estimate().then(|| ErrorsJson {
            live_bytes_error: error(Measure::Live, Unit::Bytes),
            live_blocks_error: error(Measure::Live, Unit::Blocks),
            total_bytes_error: error(Measure::Total, Unit::Bytes),
            total_blocks_error: error(Measure::Total, Unit::Blocks),
            peak_bytes_error: Some(error(Measure::Peak, Unit::Bytes)),
            peak_blocks_error: Some(error(Measure::Peak, Unit::Blocks)),
            temporary_blocks_error: error(Measure::Temporary, Unit::Blocks),
            delta_bytes_error: delta(Unit::Bytes),
            delta_blocks_error: delta(Unit::Blocks),
        })
    }
}

impl FiguresJson {
    fn new(figures: &Figures, span: &Span) -> Self {
        Self::of(figures, span.from().is_some())
    }

    /// With what they grew by where `compared`.
    fn of(figures: &Figures, compared: bool) -> Self {
        FiguresJson {
            live_bytes: positive(figures.live_bytes),
            live_blocks: positive(figures.live_blocks),
            total_bytes: figures.total_bytes,
            total_blocks: figures.total_blocks,
            peak_bytes: Some(figures.peak_bytes),
            peak_blocks: Some(figures.peak_blocks),
            temporary_blocks: figures.temporary_blocks,
            resizes: figures.resizes,
            delta_bytes: compared.then_some(figures.delta_bytes),
            delta_blocks: compared.then_some(figures.delta_blocks),
            ended_bytes: positive(figures.ended_bytes),
            ended_blocks: positive(figures.ended_blocks),
            errors: ErrorsJson::of(figures, compared),
        }
    }
}

/// A frame, with `null` for what is not known.
#[derive(Serialize)]
struct FrameJson<'s> {
    function: &'s str,
    file: Option<&'s str>,
    line: Option<u32>,
    module: Option<&'s str>,
    kind: &'static str,
}

impl<'s> FrameJson<'s> {
    fn new(stacks: &'s Stacks<'_>, id: FrameId) -> Self {
        let frame = stacks.frame(id);
        FrameJson {
            function: stacks.name(frame.function),
            file: known(stacks, frame.file),
            line: line(frame),
            module: known(stacks, frame.module),
            kind: frame.kind.name(),
        }
    }
}

fn known<'s>(stacks: &'s Stacks<'_>, name: Name) -> Option<&'s str> {
    (!name.is_empty()).then(|| stacks.name(name))
}

fn line(frame: &Frame) -> Option<u32> {
    (frame.line != 0).then_some(frame.line)
}

#[derive(Serialize)]
struct Place<'s> {
    function: &'s str,
    file: Option<&'s str>,
    line: Option<u32>,
}

impl<'s> Place<'s> {
    fn new(stacks: &'s Stacks<'_>, id: FrameId) -> Self {
        let FrameJson {
            function,
            file,
            line,
            ..
        } = FrameJson::new(stacks, id);
        Place {
            function,
            file,
            line,
        }
    }
}

/// The JSON of each frame, made when it is first written: a frame stands in
/// thousands of stacks.
struct Frames<'s, 'a> {
    stacks: &'s Stacks<'a>,
    texts: Vec<OnceCell<Option<Box<RawValue>>>>,
}

impl<'s, 'a> Frames<'s, 'a> {
    fn new(stacks: &'s Stacks<'a>) -> Self {
        Frames {
            stacks,
            texts: (0..stacks.frame_count()).map(|_| OnceCell::new()).collect(),
        }
    }

    fn get(&self, id: FrameId) -> Option<&RawValue> {
        let text = self.texts.get(id.index())?;
        text.get_or_init(|| serde_json::value::to_raw_value(&FrameJson::new(self.stacks, id)).ok())
            .as_deref()
    }
}

struct StackJson<'s, 'a> {
    frames: &'s Frames<'s, 'a>,
    stack: &'s [FrameId],
}

impl Serialize for StackJson<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.stack.iter().map(|&id| self.frames.get(id)))
    }
}

/// A process: pid and start time.
#[derive(Serialize)]
struct ProcessJson {
    pid: u32,
    start_ticks: u64,
}

impl ProcessJson {
    fn new(model: &Model<'_>, process: u32) -> Option<Self> {
        let process = model.processes().get(process as usize)?.process;
        Some(ProcessJson {
            pid: process.pid,
            start_ticks: process.start_ticks,
        })
    }
}

#[derive(Serialize)]
struct ThreadJson<'m> {
    tid: u32,
    name: &'m str,
    pid: Option<u32>,
}

/// Names of a row: the keys that say what it stands for.
#[derive(Default, Serialize)]
struct RowNames<'s> {
    name: Option<&'s str>,
    function: Option<&'s str>,
    file: Option<&'s str>,
    line: Option<u32>,
    module: Option<&'s str>,
    domain: Option<&'static str>,
}

#[derive(Serialize)]
struct RowJson<'s, 'a> {
    #[serde(flatten)]
    names: RowNames<'s>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site_kind: Option<&'static str>,
    #[serde(flatten)]
    figures: FiguresJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    inherited_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inherited_blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_bytes_are_resident: Option<bool>,
    site: Option<u32>,
    sites: usize,
    processes: Vec<ProcessJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadJson<'s>>,
    your_code: Option<Place<'s>>,
    stack: StackJson<'s, 'a>,
}

/// Where a row of a group was made, as far as the group has it in common.
fn row_names<'s>(stacks: &'s Stacks<'_>, row: &'s Row, by: GroupBy) -> RowNames<'s> {
    let domain = row.domain.map(Domain::name);
    let label = (!row.label.is_empty()).then_some(row.label.as_str());
    let Some(made_in) = row.head.made_in else {
        return RowNames {
            name: label,
            domain,
            ..RowNames::default()
        };
    };
    let frame = FrameJson::new(stacks, made_in);
    let function = Some(frame.function);
    let (file, line, module) = (frame.file, frame.line, frame.module);
    match by {
        GroupBy::Site | GroupBy::Line => RowNames {
            name: None,
            function,
            file,
            line,
            module,
            domain,
        },
        GroupBy::Function => RowNames {
            name: None,
            function,
            file,
            line: None,
            module,
            domain,
        },
        GroupBy::File => RowNames {
            name: label,
            file,
            module,
            domain,
            ..RowNames::default()
        },
        GroupBy::Library => RowNames {
            name: label,
            module,
            domain,
            ..RowNames::default()
        },
        GroupBy::Process | GroupBy::Thread | GroupBy::Domain => RowNames {
            name: label,
            domain,
            ..RowNames::default()
        },
    }
}

fn row_json<'s, 'a>(
    model: &'s Model<'a>,
    frames: &'s Frames<'s, 'a>,
    by: GroupBy,
    compared: bool,
    row: &'s Row,
) -> RowJson<'s, 'a> {
    let stacks = frames.stacks;
    let mut figures = FiguresJson::of(&row.figures, compared);
    let thread = row
        .thread
        .and_then(|thread| model.threads().get(thread as usize));
    if thread.is_some() {
        (figures.peak_bytes, figures.peak_blocks) = (None, None);
        if let Some(errors) = &mut figures.errors {
            (errors.peak_bytes_error, errors.peak_blocks_error) = (None, None);
        }
    }
    let inherited = match (by, row.processes.first()) {
        (GroupBy::Process, Some(&process)) => model.processes().get(process as usize),
        _ => None,
    };
    RowJson {
        names: row_names(stacks, row, by),
        // Free lists hand a block on without telling its allocator: the site
        // is that of the block's first birth.
        site_kind: (row.domain == Some(Domain::Obj)).then_some("block"),
        figures,
        inherited_bytes: inherited.map(|facts| facts.inherited.0),
        inherited_blocks: inherited.map(|facts| facts.inherited.1),
        page_bytes: row.page_bytes.map(|pages| pages.0),
        page_bytes_are_resident: row.page_bytes.map(|pages| pages.1),
        site: row.site,
        sites: row.sites,
        processes: row
            .processes
            .iter()
            .filter_map(|&process| ProcessJson::new(model, process))
            .collect(),
        thread: thread.map(|facts| ThreadJson {
            tid: facts.thread.tid,
            name: &facts.thread.name,
            pid: ProcessJson::new(model, facts.thread.process).map(|process| process.pid),
        }),
        your_code: row.head.your_code.map(|id| Place::new(stacks, id)),
        stack: StackJson {
            frames,
            stack: &row.stack,
        },
    }
}

/// A sequence that is made while it is written.
struct Each<F>(F);

impl<I, F> Serialize for Each<F>
where
    I: Iterator<Item: Serialize>,
    F: Fn() -> I,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for item in (self.0)() {
            sequence.serialize_element(&item)?;
        }
        sequence.end()
    }
}

#[derive(Serialize)]
struct Rest {
    rows: usize,
    #[serde(flatten)]
    figures: FiguresJson,
}

/// `null` where no row was left out.
fn rest(left_out: usize, figures: &Figures, span: &Span) -> Option<Rest> {
    (left_out > 0).then(|| Rest {
        rows: left_out,
        figures: FiguresJson::new(figures, span),
    })
}

/// Writes `top --json`.
pub fn top<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    top: &Top,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, R> {
        #[serde(flatten)]
        header: Header<'m>,
        by: &'static str,
        sort: &'static str,
        peak_exact: bool,
        total_rows: usize,
        sum: FiguresJson,
        rest: Option<Rest>,
        rows: R,
    }
    let span = &top.query.span;
    let frames = Frames::new(stacks);
    write(
        out,
        &Report {
            header: Header::new("leakline.top", model, span),
            by: top.query.by.name(),
            sort: top.query.measure.name(),
            peak_exact: model.high_water().exact,
            total_rows: top.total_rows,
            sum: FiguresJson::new(&top.sum, span),
            rest: rest(top.total_rows - top.rows.len(), &top.rest, span),
            rows: Each(|| {
                top.rows
                    .iter()
                    .map(|row| row_json(model, &frames, top.query.by, span.from().is_some(), row))
            }),
        },
    )
}

/// Rows that changed in one way.
#[derive(Serialize)]
struct TallyJson {
    rows: usize,
    delta_bytes: i64,
    delta_blocks: i64,
}

impl TallyJson {
    fn new(diff: &Diff, change: Change) -> Self {
        let tally = diff.tallies[change as usize];
        TallyJson {
            rows: tally.rows,
            delta_bytes: tally.bytes,
            delta_blocks: tally.blocks,
        }
    }
}

#[derive(Serialize)]
struct RenameJson<'d> {
    from: &'d str,
    to: &'d str,
    file: &'d str,
}

#[derive(Serialize)]
struct MoveJson<'d> {
    from: &'d str,
    to: &'d str,
}

/// A row of a diff, of the recording that has it.
#[derive(Serialize)]
struct OneOf<'s, 'a, 'b> {
    change: &'static str,
    #[serde(flatten)]
    before: Option<RowJson<'s, 'b>>,
    #[serde(flatten)]
    after: Option<RowJson<'s, 'a>>,
    from_bytes: u64,
    from_blocks: u64,
    matched_by: Option<&'static str>,
    was: Option<Place<'s>>,
}

/// One side of a diff, to be written.
pub struct DiffSide<'s, 'a> {
    /// The recording.
    pub model: &'s Model<'a>,
    /// Its stacks.
    pub stacks: &'s Stacks<'a>,
    /// The instant, or of one recording both.
    pub span: &'s Span,
}

/// Writes `diff --json`; `before` is the earlier recording, of two.
pub fn diff(
    before: Option<&DiffSide<'_, '_>>,
    after: &DiffSide<'_, '_>,
    diff: &Diff,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, R> {
        #[serde(flatten)]
        header: Header<'m>,
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Header<'m>>,
        by: &'static str,
        sort: &'static str,
        peak_exact: bool,
        total_rows: usize,
        unchanged_rows: usize,
        grew: TallyJson,
        new: TallyJson,
        shrank: TallyJson,
        gone: TallyJson,
        #[serde(skip_serializing_if = "Option::is_none")]
        renamed: Option<Vec<RenameJson<'m>>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        moved: Option<Vec<MoveJson<'m>>>,
        sum: FiguresJson,
        rest: Option<Rest>,
        rows: R,
    }
    let by = diff.query.by;
    let frames = Frames::new(after.stacks);
    let earlier = before.map(|side| (side, Frames::new(side.stacks)));
    let mut header = Header::new("leakline.diff", after.model, after.span);
    if let Some(side) = before {
        header.resolved_from = Some(seconds(side.span.to().resolved_ns()));
    }
    let row = |row| {
        let row: &DiffRow = row;
        let is_only_before = row.change == Change::Gone && row.was.is_none();
        let earlier = earlier.as_ref();
        OneOf {
            before: earlier
                .filter(|_| is_only_before)
                .map(|(side, frames)| row_json(side.model, frames, by, true, &row.row)),
            after: (!is_only_before || earlier.is_none())
                .then(|| row_json(after.model, &frames, by, true, &row.row)),
            change: row.change.name(),
            from_bytes: row.before.bytes,
            from_blocks: row.before.blocks,
            matched_by: row.matched.map(Matched::name),
            was: earlier.and_then(|(side, _)| {
                let made_in = row.was.as_ref()?.head.made_in?;
                Some(Place::new(side.stacks, made_in))
            }),
        }
    };
    write(
        out,
        &Report {
            header,
            before: before.map(|side| Header::new("leakline.diff", side.model, side.span)),
            by: by.name(),
            sort: diff.query.sort.map_or("change", Measure::name),
            peak_exact: after.model.high_water().exact,
            total_rows: diff.total_rows,
            unchanged_rows: diff.unchanged,
            grew: TallyJson::new(diff, Change::Grew),
            new: TallyJson::new(diff, Change::New),
            shrank: TallyJson::new(diff, Change::Shrank),
            gone: TallyJson::new(diff, Change::Gone),
            renamed: before.map(|_| {
                let renames = diff.renames.iter();
                renames
                    .map(|rename| RenameJson {
                        from: &rename.from,
                        to: &rename.to,
                        file: &rename.file,
                    })
                    .collect()
            }),
            moved: before.map(|_| {
                let moves = diff.moves.iter();
                moves
                    .map(|moved| MoveJson {
                        from: &moved.from,
                        to: &moved.to,
                    })
                    .collect()
            }),
            sum: FiguresJson::of(&diff.sum, true),
            rest: (diff.total_rows > diff.rows.len()).then(|| Rest {
                rows: diff.total_rows - diff.rows.len(),
                figures: FiguresJson::of(&diff.rest, true),
            }),
            rows: Each(|| diff.rows.iter().map(row)),
        },
    )
}

/// Writes `diff --survivors --json`.
pub fn survived<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    survived: &Survived,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, R> {
        #[serde(flatten)]
        header: Header<'m>,
        survivors: bool,
        resolved_alive_at: f64,
        verified_from: f64,
        by: &'static str,
        sort: &'static str,
        born_bytes: u64,
        born_blocks: u64,
        total_rows: usize,
        sum: FiguresJson,
        rest: Option<Rest>,
        rows: R,
    }
    let top = &survived.top;
    let frames = Frames::new(stacks);
    let mut header = Header::new("leakline.diff", model, &top.query.span);
    header.resolved_from = Some(seconds(survived.from_ns));
    header.resolved_to = seconds(survived.to_ns);
    write(
        out,
        &Report {
            header,
            survivors: true,
            resolved_alive_at: seconds(survived.alive_ns),
            verified_from: seconds(survived.verified_from_ns),
            by: top.query.by.name(),
            sort: top.query.measure.name(),
            born_bytes: survived.born.bytes,
            born_blocks: survived.born.blocks,
            total_rows: top.total_rows,
            sum: FiguresJson::of(&top.sum, true),
            rest: (top.total_rows > top.rows.len()).then(|| Rest {
                rows: top.total_rows - top.rows.len(),
                figures: FiguresJson::of(&top.rest, true),
            }),
            rows: Each(|| {
                let rows = top.rows.iter();
                rows.map(|row| row_json(model, &frames, top.query.by, true, row))
            }),
        },
    )
}

#[derive(Serialize)]
struct TreeRowJson<'s, 'a> {
    id: usize,
    parent: Option<usize>,
    depth: usize,
    #[serde(flatten)]
    frame: FrameJson<'s>,
    domain: Option<&'static str>,
    #[serde(flatten)]
    figures: FiguresJson,
    /// Of the measure sorted by: what the frame allocated itself.
    #[serde(rename = "self")]
    own: i64,
    share: f64,
    stack: StackJson<'s, 'a>,
}

/// Writes `tree --json`.
pub fn tree<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    tree: &Tree,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, R> {
        #[serde(flatten)]
        header: Header<'m>,
        inverted: bool,
        sort: &'static str,
        threshold: f64,
        peak_exact: bool,
        total_rows: usize,
        sum: FiguresJson,
        rest: Option<Rest>,
        rows: R,
    }
    let span = &tree.query.span;
    let frames = Frames::new(stacks);
    let row_json = |id: usize| {
        let row = &tree.rows[id];
        let mut stack = tree.path(id);
        // A path leads away from the roots; a stack begins innermost, which
        // in an inverted tree is the root.
        if !tree.query.inverted {
            stack.reverse();
        }
        OwnedStackRow {
            frames: &frames,
            row,
            id,
            share: tree.share(row),
            span,
            stack,
        }
    };
    write(
        out,
        &Report {
            header: Header::new("leakline.tree", model, span),
            inverted: tree.query.inverted,
            sort: tree.query.measure.name(),
            threshold: tree.query.threshold,
            peak_exact: model.high_water().exact,
            total_rows: tree.total_rows,
            sum: FiguresJson::new(&tree.sum, span),
            rest: rest(tree.total_rows - tree.rows.len(), &tree.rest, span),
            rows: Each(|| (0..tree.rows.len()).map(row_json)),
        },
    )
}

/// A row of a tree that holds the frames its JSON borrows.
struct OwnedStackRow<'s, 'a> {
    frames: &'s Frames<'s, 'a>,
    row: &'s TreeRow,
    id: usize,
    share: f64,
    span: &'s Span,
    stack: Vec<FrameId>,
}

impl Serialize for OwnedStackRow<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        TreeRowJson {
            id: self.id,
            parent: self.row.parent,
            depth: self.row.depth,
            frame: FrameJson::new(self.frames.stacks, self.row.frame),
            domain: self.row.domain.map(Domain::name),
            figures: FiguresJson::new(&self.row.figures, self.span),
            own: self.row.own,
            share: self.share,
            stack: StackJson {
                frames: self.frames,
                stack: &self.stack,
            },
        }
        .serialize(serializer)
    }
}

/// Writes `lines --json`.
pub fn lines(model: &Model<'_>, lines: &Lines, out: &mut dyn io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct LineJson<'l> {
        line: u32,
        text: Option<&'l str>,
        #[serde(flatten)]
        figures: FiguresJson,
    }
    #[derive(Serialize)]
    struct Report<'m, R> {
        #[serde(flatten)]
        header: Header<'m>,
        source_file: &'m str,
        source_from: &'static str,
        inclusive: bool,
        peak_exact: bool,
        total_rows: usize,
        sum: FiguresJson,
        rest: Option<Rest>,
        rows: R,
    }
    let span = &lines.query.span;
    let rows = || {
        lines.rows.iter().map(|row| LineJson {
            line: row.line,
            text: row.text.as_deref(),
            figures: FiguresJson::new(&row.figures, span),
        })
    };
    write(
        out,
        &Report {
            header: Header::new("leakline.lines", model, span),
            source_file: &lines.file,
            source_from: lines.source.name(),
            inclusive: lines.query.inclusive,
            peak_exact: model.high_water().exact,
            total_rows: lines.total_rows,
            sum: FiguresJson::new(&lines.sum, span),
            rest: rest(lines.total_rows - lines.rows.len(), &lines.rest, span),
            rows: Each(rows),
        },
    )
}

/// Counters, of the session or of a process.
#[derive(Serialize)]
struct TotalsJson {
    allocations: u64,
    frees: u64,
    allocated_bytes: u64,
    live_blocks: u64,
    live_bytes: u64,
    peak_bytes: u64,
    temporary_blocks: u64,
    resizes: u64,
    unknown_frees: u64,
    implied_frees: u64,
    events: u64,
    lost_events: u64,
    lost_bytes: u64,
    malformed_events: u64,
    truncated_stacks: u64,
    broken_unwinds: u64,
    stalled_seconds: f64,
    complete: bool,
    #[serde(flatten)]
    errors: Option<TotalsErrorsJson>,
}

/// By how much the counters of a sampled recording may be off.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the JSON")]
struct TotalsErrorsJson {
    allocations_error: u64,
    /// At most.
    frees_error: u64,
    allocated_bytes_error: u64,
    live_blocks_error: u64,
    live_bytes_error: u64,
    peak_bytes_error: u64,
    temporary_blocks_error: u64,
}

impl TotalsErrorsJson {
    fn new(figures: Option<&Figures>) -> Option<Self> {
        let figures = figures?;
        let error = |measure, unit| figures.error(measure, unit).unwrap_or(0);
        let allocations_error = error(Measure::Total, Unit::Blocks);
        Some(TotalsErrorsJson {
            allocations_error,
            frees_error: allocations_error,
            allocated_bytes_error: error(Measure::Total, Unit::Bytes),
            live_blocks_error: error(Measure::Live, Unit::Blocks),
            live_bytes_error: error(Measure::Live, Unit::Bytes),
            peak_bytes_error: error(Measure::Peak, Unit::Bytes),
            temporary_blocks_error: error(Measure::Temporary, Unit::Blocks),
        })
    }
}

impl TotalsJson {
    fn of_session(stats: &Stats) -> Self {
        let (totals, complete) = (&stats.totals, stats.complete);
        TotalsJson {
            allocations: totals.allocations,
            frees: totals.frees,
            allocated_bytes: totals.allocated_bytes,
            live_blocks: totals.live_blocks,
            live_bytes: totals.live_bytes,
            peak_bytes: totals.peak_bytes,
            temporary_blocks: totals.temporary_blocks,
            resizes: totals.resizes,
            unknown_frees: totals.unknown_frees,
            implied_frees: totals.implied_frees,
            events: totals.events,
            lost_events: totals.lost_events,
            lost_bytes: totals.lost_bytes,
            malformed_events: totals.malformed_events,
            truncated_stacks: totals.truncated_stacks,
            broken_unwinds: totals.broken_unwinds,
            stalled_seconds: seconds(totals.stalled_ns),
            complete,
            errors: TotalsErrorsJson::new(stats.estimates.as_ref()),
        }
    }

    fn of_process(stats: &ProcessStats) -> Self {
        let (totals, complete) = (&stats.totals, stats.complete);
        TotalsJson {
            allocations: totals.allocations,
            frees: totals.frees,
            allocated_bytes: totals.allocated_bytes,
            live_blocks: totals.live_blocks,
            live_bytes: totals.live_bytes,
            peak_bytes: totals.peak_bytes,
            temporary_blocks: totals.temporary_blocks,
            resizes: totals.resizes,
            unknown_frees: totals.unknown_frees,
            implied_frees: totals.implied_frees,
            events: totals.events,
            lost_events: totals.lost_events,
            lost_bytes: totals.lost_bytes,
            malformed_events: totals.malformed_events,
            truncated_stacks: totals.truncated_stacks,
            broken_unwinds: totals.broken_unwinds,
            stalled_seconds: seconds(totals.stalled_ns),
            complete,
            errors: TotalsErrorsJson::new(stats.estimates.as_ref()),
        }
    }
}

/// What became of a process, and its counters.
struct ProcessReport<'m, 'a> {
    process: u32,
    facts: &'m ProcessFacts<'a>,
    totals: TotalsJson,
    model: &'m Model<'a>,
}

impl Serialize for ProcessReport<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let process = self.facts.process;
        let end = self.facts.end;
        let arguments: Vec<_> = process.command.iter().map(|text| escaped(text)).collect();
        let parent = process
            .parent
            .and_then(|parent| ProcessJson::new(self.model, parent));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &process.pid)?;
        map.serialize_entry("start_ticks", &process.start_ticks)?;
        map.serialize_entry("parent", &parent)?;
        map.serialize_entry("parent_pid", &process.parent_pid)?;
        map.serialize_entry("command", &self.model.command(self.process))?;
        map.serialize_entry("arguments", &arguments)?;
        map.serialize_entry("executable", &escaped(&process.executable))?;
        map.serialize_entry("python", &python_version(process.python_version))?;
        map.serialize_entry("by_exec", &process.exec)?;
        map.serialize_entry("started_seconds", &seconds(process.at_ns))?;
        map.serialize_entry("ended_seconds", &end.map(|end| seconds(end.at_ns)))?;
        map.serialize_entry("exit_status", &end.and_then(|end| end.exit_status))?;
        map.serialize_entry("signal", &end.and_then(|end| end.signal))?;
        map.serialize_entry("ended_by_exec", &end.is_some_and(|end| end.exec))?;
        map.serialize_entry("inherited_bytes", &self.facts.inherited.0)?;
        map.serialize_entry("inherited_blocks", &self.facts.inherited.1)?;
        map.serialize_entry("totals", &self.totals)?;
        map.end()
    }
}

/// `3.13.1` of a `PY_VERSION_HEX`; `None` of 0.
pub fn python_version(hex: u32) -> Option<String> {
    let [major, minor, micro, _] = hex.to_be_bytes();
    (hex != 0).then(|| format!("{major}.{minor}.{micro}"))
}

fn processes<'m, 'a>(
    model: &'m Model<'a>,
    stats: &'m Stats,
) -> impl Iterator<Item = ProcessReport<'m, 'a>> {
    stats
        .processes
        .iter()
        .zip(model.processes())
        .map(|(stats, facts)| ProcessReport {
            process: stats.process,
            facts,
            totals: TotalsJson::of_process(stats),
            model,
        })
}

#[derive(Serialize)]
struct At<'m> {
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

impl At<'_> {
    fn new(ns: u64) -> Self {
        At {
            seconds: seconds(ns),
            name: None,
            text: None,
            events: None,
            pid: None,
        }
    }
}

fn pid(model: &Model<'_>, process: u32) -> Option<u32> {
    model
        .processes()
        .get(process as usize)
        .map(|facts| facts.process.pid)
}

/// Writes `stats --json`.
pub fn stats(model: &Model<'_>, stats: &Stats, out: &mut dyn io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Class {
        min_bytes: u64,
        max_bytes: u64,
        allocations: u64,
        bytes: u64,
    }
    #[derive(Serialize)]
    struct Rates {
        #[serde(rename = "allocations_per_second")]
        allocations: f64,
        #[serde(rename = "allocated_bytes_per_second")]
        allocated_bytes: f64,
        #[serde(rename = "events_per_second")]
        events: f64,
    }
    #[derive(Serialize)]
    struct Report<'m, P, S, L, M, N> {
        #[serde(flatten)]
        header: Header<'m>,
        totals: TotalsJson,
        rates: Rates,
        peak: PeakJson,
        sites: usize,
        threads: usize,
        file_bytes: u64,
        sizes: S,
        losses: L,
        marks: M,
        notes: N,
        processes: P,
    }
    let totals = &stats.totals;
    write(
        out,
        &Report {
            header: Header::new("leakline.stats", model, &Span::whole(model)),
            totals: TotalsJson::of_session(stats),
            rates: Rates {
                allocations: stats.per_second(totals.allocations),
                allocated_bytes: stats.per_second(totals.allocated_bytes),
                events: stats.per_second(totals.events),
            },
            peak: PeakJson::new(model),
            sites: model.sites().len(),
            threads: model.threads().len(),
            file_bytes: model.origin().file_bytes,
            sizes: Each(|| {
                stats.sizes.iter().map(|class| Class {
                    min_bytes: class.min_bytes,
                    max_bytes: class.max_bytes,
                    allocations: class.allocations,
                    bytes: class.bytes,
                })
            }),
            losses: Each(|| {
                model.losses().iter().map(|loss| At {
                    events: Some(loss.events),
                    pid: pid(model, loss.process),
                    ..At::new(loss.at_ns)
                })
            }),
            marks: Each(|| {
                model.marks().iter().map(|mark| At {
                    name: Some(&mark.name),
                    pid: mark.process.and_then(|process| pid(model, process)),
                    ..At::new(mark.at_ns)
                })
            }),
            notes: Each(|| {
                model.notes().iter().map(|note| At {
                    text: Some(&note.text),
                    ..At::new(note.at_ns)
                })
            }),
            processes: Each(|| processes(model, stats)),
        },
    )
}

#[derive(Serialize)]
struct PeakJson {
    bytes: u64,
    blocks: u64,
    seconds: f64,
    exact: bool,
}

impl PeakJson {
    fn new(model: &Model<'_>) -> Self {
        let peak = model.high_water();
        PeakJson {
            bytes: peak.bytes,
            blocks: peak.blocks,
            seconds: seconds(peak.at_ns),
            exact: peak.exact,
        }
    }
}

/// Writes `summary --json`.
pub fn summary<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    summary: &Summary,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, R, P> {
        #[serde(flatten)]
        header: Header<'m>,
        totals: TotalsJson,
        peak: PeakJson,
        file_bytes: u64,
        total_rows: usize,
        rest: Option<Rest>,
        rows: R,
        processes: P,
        notes: Vec<&'m str>,
    }
    let top = &summary.top;
    let frames = Frames::new(stacks);
    write(
        out,
        &Report {
            header: Header::new("leakline.summary", model, &top.query.span),
            totals: TotalsJson::of_session(&summary.stats),
            peak: PeakJson::new(model),
            file_bytes: model.origin().file_bytes,
            total_rows: top.total_rows,
            rest: rest(top.total_rows - top.rows.len(), &top.rest, &top.query.span),
            rows: Each(|| {
                top.rows
                    .iter()
                    .map(|row| row_json(model, &frames, top.query.by, false, row))
            }),
            processes: Each(|| processes(model, &summary.stats)),
            notes: model
                .notes()
                .iter()
                .map(|note| note.text.as_str())
                .collect(),
        },
    )
}
