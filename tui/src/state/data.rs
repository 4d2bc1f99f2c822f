//! What the recording says, as values that screens are drawn from.
//!
//! The engine makes them, and a test can by hand. Nothing here is formatted:
//! bytes are numbers, instants are nanoseconds since the recording's start.

use std::sync::Arc;

use leakline_analysis::ledger::{Account, Blamed};
use leakline_analysis::model::Totals;
use leakline_analysis::{Figures, GroupBy};
use leakline_recording::record::Domain;

/// A frame by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FrameName {
    /// Its function, without arguments.
    pub function: Arc<str>,
    /// Where that is, in short: `app/views.py:12`, a library's name, or nothing.
    pub place: Arc<str>,
    /// Its source file, as recorded; empty where not known.
    pub file: Arc<str>,
    /// Its line; 0 where not known.
    pub line: u32,
    /// Part of the user's own code.
    pub own: bool,
    /// Written in Python.
    pub python: bool,
}

/// The recording as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The file, as the user named it.
    pub file: String,
    /// Program and arguments.
    pub program: String,
    /// `exact` or `sampled`.
    pub mode: String,
    /// Mean bytes between samples; 0 when exact.
    pub sample_bytes: u64,
    /// Local time of the start, in nanoseconds since midnight of some day.
    pub started_local_ns: i64,
    /// How long it is.
    pub duration_ns: u64,
    /// The instant shown where none is asked for.
    pub usual_ns: u64,
    /// Which that is.
    pub usual: Usual,
    /// It ended well.
    pub ended: bool,
    /// Something was added within the last seconds.
    pub growing: bool,
    /// What could not be read, a sentence each.
    pub warnings: Vec<String>,
    /// What the recorder wants known, a sentence each.
    pub notes: Vec<String>,
    /// Counters of the whole session.
    pub totals: Totals,
    /// The high-water mark.
    pub peak: Peak,
    /// The end of each time bin.
    pub times: Arc<Vec<TimePoint>>,
    /// Named instants.
    pub marks: Vec<MarkAt>,
    /// When events were lost, and how many.
    pub losses: Vec<(u64, u64)>,
    /// Processes, by id.
    pub processes: Vec<ProcessInfo>,
    /// Threads, by id.
    pub threads: Vec<ThreadInfo>,
    /// Some of the program is Python.
    pub python: bool,
    /// Heap graphs, in the order in which they were taken.
    pub graphs: Vec<GraphAt>,
}

impl Facts {
    /// Made of snapshots of another tool: how many. Between them nothing is known.
    pub(crate) fn snapshots(&self) -> Option<usize> {
        (self.mode == "imported").then_some(self.times.len())
    }
}

/// A heap graph that the recording has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphAt {
    /// Its number.
    pub number: u32,
    /// Why it was taken.
    pub name: String,
    /// When.
    pub at_ns: u64,
    /// Of which process (id).
    pub process: u32,
}

/// When a program was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usual {
    /// At its end.
    #[default]
    End,
    /// When its main thread left `__main__`.
    MainLeft,
    /// Each process when it left `__main__`, or at its end.
    EachLeft,
}

/// The high-water mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Live bytes.
    pub bytes: u64,
    /// Live blocks.
    pub blocks: u64,
    /// When.
    pub at_ns: u64,
}

/// The session at the end of a time bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimePoint {
    /// When.
    pub end_ns: u64,
    /// Live bytes.
    pub live_bytes: u64,
    /// Live blocks.
    pub live_blocks: u64,
    /// Most live bytes within the bin.
    pub max_bytes: u64,
    /// RSS of all processes together, where it was looked at.
    pub rss_bytes: Option<u64>,
}

/// A named instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkAt {
    /// Its name.
    pub name: String,
    /// When.
    pub at_ns: u64,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It ran when last heard of.
    Running,
    /// The recording ended, and nothing is known of its end.
    NotSeen,
    /// It went on as another program.
    Exec,
    /// A signal killed it.
    Signal(i32),
    /// It exited with a status.
    Status(i32),
    /// It ended, somehow.
    Ended,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its pid.
    pub pid: u32,
    /// Program and arguments.
    pub command: String,
    /// `PY_VERSION_HEX`, 0 without Python.
    pub python_version: u32,
    /// When it joined.
    pub started_ns: u64,
    /// When it ended.
    pub ended_ns: Option<u64>,
    /// How it ended.
    pub fate: Fate,
    /// Its high-water mark.
    pub peak_bytes: u64,
    /// Calls that allocated, in the whole recording.
    pub allocations: u64,
    /// Events lost.
    pub lost_events: u64,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// Its process (id).
    pub process: u32,
    /// Its tid.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Of what it allocated: bytes and blocks live at the recording's end.
    pub live: (u64, u64),
    /// Bytes and blocks ever allocated.
    pub total: (u64, u64),
}

/// An instant as the user means it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Moment {
    /// When the program was done, or the newest instant of a recording that
    /// goes on.
    #[default]
    Usual,
    /// The recording's start.
    Start,
    /// Its end.
    End,
    /// The high-water mark.
    Peak,
    /// Nanoseconds after the start.
    At(u64),
}

/// The recorded instant nearest to a [`Moment`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// When, nanoseconds since the start.
    pub ns: u64,
    /// Nanoseconds between recorded instants here.
    pub resolution_ns: u64,
    /// Every site's figures are exact then.
    pub exact: bool,
}

/// Columns to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Column {
    /// Live bytes.
    #[default]
    Live,
    /// Live blocks.
    Blocks,
    /// Bytes live at the high-water mark.
    Peak,
    /// Bytes ever allocated.
    Total,
    /// Temporary blocks.
    Temporary,
    /// Growth in bytes, between two instants.
    Growth,
    /// Its name.
    Name,
}

/// What a screen needs of the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// When.
    pub moment: Moment,
    /// What.
    pub subject: Subject,
}

/// See [`Want`].
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// The first screen.
    Overview(LedgerWant),
    /// Rows by group.
    Table(TableWant),
    /// Growth by group, from an instant to `Want::moment`.
    Diff(Moment, TableWant),
    /// Who called whom.
    Calls {
        /// From the allocating frame outwards.
        inverted: bool,
    },
    /// A source file, or the one that matters most.
    Source(Option<Arc<str>>),
    /// Processes.
    Processes,
    /// The stack of a site.
    Stack(u32),
    /// Who holds what, by a heap graph.
    Why(WhyWant),
    /// What resident memory is made of.
    Ledgers(LedgerWant),
}

/// What ledgers are to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerWant {
    /// They are compared with those of this instant; of the start: with the first looks.
    pub from: Moment,
    /// Causes of growth that are told in them.
    pub causes: Vec<Blamed>,
}

/// What resident memory is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledgers {
    /// All together where there are several, then a process each, the largest growth first.
    pub accounts: Vec<Account>,
    /// The first is of all together.
    pub has_sum: bool,
    /// Why there is none.
    pub failure: Option<String>,
}

/// Of which heap graph, and what of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhyWant {
    /// Its number; `None`: the last whole one.
    pub graph: Option<u32>,
    /// What.
    pub about: About,
}

/// What a question about a heap is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum About {
    /// Where most memory gathers.
    #[default]
    Gathered,
    /// A cause: its name, and its sites, rising.
    Cause(Arc<str>, Arc<[u32]>),
    /// A group of sites, by its key, and its name.
    Group(GroupBy, u64, Arc<str>),
    /// All sites whose stack goes through a frame.
    Through(Arc<FrameName>),
    /// What the user named: a type, a place or a function.
    Named(Arc<str>),
}

/// Which rows, in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct TableWant {
    /// What a row stands for.
    pub by: GroupBy,
    /// A row has what it called, too.
    pub inclusive: bool,
    /// What rows are sorted by.
    pub sort: Column,
    /// Smallest first.
    pub ascending: bool,
    /// Only rows that match.
    pub filter: String,
}

impl Default for TableWant {
    fn default() -> Self {
        TableWant {
            by: GroupBy::Site,
            inclusive: false,
            sort: Column::Live,
            ascending: false,
            filter: String::new(),
        }
    }
}

/// What the engine found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The question.
    pub want: Want,
    /// The instant that it is of.
    pub at: Resolved,
    /// The earlier instant of a diff.
    pub from: Option<Resolved>,
    /// What all sites hold then.
    pub sum: Figures,
    /// The rest.
    pub content: Content,
}

/// See [`Answer`].
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The largest sites, and the ledger of the process that grew most.
    Overview(Arc<Table>, Arc<Ledgers>),
    /// Rows, also of a diff.
    Table(Arc<Table>),
    /// Calls.
    Calls(Arc<CallTree>),
    /// A source file.
    Source(Arc<SourceText>),
    /// Figures of processes by id: their own, and RSS.
    Processes(Arc<Vec<(Figures, Option<u64>)>>),
    /// A stack, the innermost frame first.
    Stack(Arc<Vec<FrameName>>),
    /// Who holds what.
    Why(Arc<Holders>),
    /// What resident memory is made of.
    Ledgers(Arc<Ledgers>),
}

/// Who holds what, in a heap graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holders {
    /// The graph's number; 0 where there is none, or none with anything in it.
    pub graph: u32,
    /// It is still being read; nothing else is known yet but, from some point on,
    /// how many objects it has.
    pub reading: bool,
    /// That of an earlier graph, which it is compared with.
    pub earlier: Option<u32>,
    /// How many objects it has; 0 as long as that is not known.
    pub objects: u64,
    /// Bytes of them and of the native blocks that they point to.
    pub bytes: u64,
    /// Objects that nothing holds, and their bytes.
    pub garbage: (u64, u64),
    /// Why it is not whole, or cannot be read.
    pub flaw: Option<String>,
    /// Of what was asked for: how many objects, and bytes that would be free without
    /// them; nothing where all was asked for.
    pub found: Option<(u64, u64)>,
    /// The places that hold it, the one that retains most first.
    pub places: Vec<Place>,
    /// Places that are not held here.
    pub left_out: usize,
}

/// Where objects are held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The path in a line: `app.cache.SESSIONS[*]`; empty: nothing holds them.
    pub words: String,
    /// What stands for it: that which memory gathers in, or the objects themselves.
    pub head: Step,
    /// The objects that the path leads to.
    pub objects: Step,
    /// What leads to them, from the root's first reference, they, and what they hold.
    pub steps: Vec<Step>,
    /// What else refers to them, and to how many.
    pub others: Vec<(String, u64)>,
}

/// Objects that the same step leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// How many steps it is below the root.
    pub depth: u16,
    /// Others follow that the same objects hold.
    pub forks: bool,
    /// The reference, in words.
    pub edge: String,
    /// Their types, and of a dict what its keys are.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// Their own bytes.
    pub shallow: u64,
    /// Bytes that would be free without them.
    pub retained: u64,
    /// Of these, native blocks'.
    pub native: u64,
    /// How many of them only the step before keeps.
    pub only: u64,
    /// Bytes by which they grew since the earlier graph.
    pub since: Option<i64>,
    /// The site that most of them come from.
    pub site: Option<u32>,
    /// The frame that made them, where that is known and says something.
    pub made_in: Option<Arc<FrameName>>,
}

/// Rows of figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What rows stand for, by their `group`.
    pub groups: Arc<Vec<GroupInfo>>,
    /// The rows, sorted.
    pub rows: Vec<TableRow>,
    /// Live bytes over time, by group: parts of 255 of the group's own most.
    pub trends: Option<Arc<Vec<Trend>>>,
    /// Rows that are not held here, being further down, and what they hold together (or
    /// grew by).
    pub left_out: (usize, i64),
}

/// Live bytes over the recording's length, in equal steps, 255 being the most.
pub type Trend = [u8; TREND_STEPS];

/// How many steps.
pub const TREND_STEPS: usize = 16;

/// What a row stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Tells it from others, and stays the same when the recording grows.
    pub key: u64,
    /// Its name.
    pub name: GroupName,
    /// The innermost frame of the user's own code, where that is another.
    pub your_code: Option<Arc<FrameName>>,
    /// Its domain, where all its sites agree.
    pub domain: Option<Domain>,
    /// Its first site.
    pub site: Option<u32>,
}

/// Names of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupName {
    /// A site, by the frame that made it.
    Site(Arc<FrameName>),
    /// A line.
    Line(Arc<FrameName>),
    /// A function.
    Function(Arc<FrameName>),
    /// A file or a library.
    Text(Arc<str>),
    /// A process: its command, and its pid.
    Process(Arc<str>, u32),
    /// A thread: its name, tid and process's pid.
    Thread(Arc<str>, u32, u32),
    /// A domain.
    Domain(Domain),
    /// Stacks without frames.
    Unknown,
}

/// A row of figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableRow {
    /// Index of what it stands for.
    pub group: u32,
    /// Its figures.
    pub figures: Figures,
    /// Of the live bytes, those allocated by itself.
    pub own_bytes: i64,
}

/// Calls, depth first, the heaviest branches first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallTree {
    /// The calls.
    pub calls: Vec<CallRow>,
    /// Bytes of all sites.
    pub bytes: i64,
    /// Calls that are not held here, being lighter than all these.
    pub left_out: usize,
    /// Sites whose calls are not looked at, being too many, and their bytes.
    pub left_out_sites: (usize, i64),
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// Tells its path from others, at any instant.
    pub key: u64,
    /// Index of its caller.
    pub parent: Option<u32>,
    /// How many callers it has.
    pub depth: u16,
    /// Its frame.
    pub frame: Arc<FrameName>,
    /// Live bytes of it and all that it called.
    pub bytes: i64,
    /// Live bytes of its own.
    pub own: i64,
    /// It has calls below it here.
    pub has_calls: bool,
}

/// A source file with figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceText {
    /// The file, as in frames; `None` where the recording has no lines at all.
    pub file: Option<Arc<str>>,
    /// What is known of its text.
    pub from: SourceOrigin,
    /// Its lines, rising: number and text, or nothing for a line that is not
    /// known.
    pub lines: Vec<SourceLine>,
}

/// Where text comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceOrigin {
    /// The recording.
    Recording,
    /// The file, which agrees with the recording.
    File,
    /// The recording, since the file has changed.
    Changed,
    /// Nowhere.
    #[default]
    Nowhere,
}

/// A line of source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceLine {
    /// Its number.
    pub line: u32,
    /// Its text, where known.
    pub text: Option<Arc<str>>,
    /// What it allocated itself.
    pub own: Figures,
    /// Live bytes of it and all that it called.
    pub total_bytes: i64,
}

/// What is to be said about leaks, once there is an analysis that says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Causes, the most serious first.
    pub causes: Vec<Cause>,
    /// A limit on memory, in bytes, and the seconds until it is reached.
    pub limit: Option<(u64, f64)>,
    /// Sites that rose less than others, and are too many to be judged here; and by how
    /// much they rose, each, together.
    pub not_judged: (usize, u64),
}

/// Sites that leak together, or one that does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `L1`; empty for what is no leak.
    pub id: String,
    /// How serious.
    pub verdict: Verdict,
    /// Bytes a second, and how far off that may be (95 %).
    pub rate: Option<(f64, f64)>,
    /// Live bytes.
    pub live_bytes: i64,
    /// Where it was made.
    pub made_in: Arc<FrameName>,
    /// Who holds it; `None` where that is not known.
    pub held_by: Option<String>,
    /// Its sites, rising; empty where it is no leak.
    pub members: Arc<[u32]>,
}

/// The word for a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It grows, and will.
    Leaking,
    /// It grows; what of that stays cannot be said yet.
    Growing,
    /// It grew, then stopped.
    Plateau,
    /// It came and went.
    Burst,
    /// The program's start made it.
    StartUp,
    /// Nothing points to it.
    Unreachable,
    /// It takes longer to tell.
    Unclear,
}

impl Verdict {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Leaking => "leaking",
            Verdict::Growing => "growing",
            Verdict::Plateau => "plateau",
            Verdict::Burst => "burst",
            Verdict::StartUp => "start-up",
            Verdict::Unreachable => "unreachable",
            Verdict::Unclear => "unclear",
        }
    }
}
