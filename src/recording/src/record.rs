//! What a recording says, record by record, in the order it was learned.
//!
//! A chunk of the file holds a sequence of these, `postcard`-encoded and
//! zstd-compressed. Ids are implicit: the n-th `Process`, `Thread`, `Module`,
//! `Code`, `Node`, `Site` of the file has id n, counted from 0, except that
//! node 0 is the empty stack and is never written (the first `Node` record
//! has id 1). A record names only ids that came before it.
//!
//! Times are nanoseconds since the session began (`Session::started_unix_ns`).

mod ledger;

pub use ledger::{Inventory, Ledger, OfType, PageCost};

use serde::{Deserialize, Serialize};

/// Bytes that are text where the file system and the programs behave: paths
/// and arguments. Kept as they are.
pub type Text = Vec<u8>;

/// One fact.
///
/// The order of the variants is that of the file's kinds: new ones go to the
/// end (docs/format.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
#[non_exhaustive]
pub enum Record {
    /// First record of every file.
    Session(Session),
    /// A process joined.
    Process(Process),
    /// What became of a process. May come more than once (at most one per
    /// exec); the last counts.
    ProcessEnd(ProcessEnd),
    /// A thread made its first event.
    Thread(Thread),
    /// An ELF file that frames lie in.
    Module(Module),
    /// A Python code object that frames lie in.
    Code(Code),
    /// A frame under its caller, or a pair of stacks.
    Node(Node),
    /// A stack that allocated, in one process and domain.
    Site(Site),
    /// What frames of a module mean.
    Symbols(Symbols),
    /// What happened in a span of time.
    Bin(Bin),
    /// The state at the high-water mark so far; the last of its scope counts.
    Peak(Peak),
    /// Allocations by size class, cumulative; the last counts.
    Sizes(Sizes),
    /// Counters of a process, cumulative; the last of its process counts.
    Totals(ProcessTotals),
    /// Counters of threads, cumulative; the last of its thread counts.
    ThreadTotals(ThreadTotals),
    /// Events were lost.
    Loss(Loss),
    /// A named instant.
    Mark(Mark),
    /// Lines of a source file that frames point to.
    Source(Source),
    /// Something the user should know, in words.
    Note(Note),
    /// Last record of a recording that ended well.
    End(End),
    /// What a process still has of what it inherited by fork; the last of its
    /// process counts.
    Inherited(Inherited),
    /// What became of blocks by when they were born.
    Cohorts(Cohorts),
    /// From now on blocks are sampled at another mean.
    Sampling(Sampling),
    /// How far the estimates of sampled sites scatter; the last of its site
    /// counts.
    Scatter(Scatter),
    /// A heap graph begins.
    HeapGraph(HeapGraph),
    /// A part of it.
    HeapPart(HeapPart),
    /// Which native blocks nothing pointed to at an instant.
    Lost(Lost),
    /// What limits a process's memory; the last of its process counts.
    Limits(Limits),
    /// What a process's resident memory was made of at an instant.
    Ledger(Ledger),
    /// What pages a process's live blocks kept at an instant.
    PageCost(PageCost),
    /// What lived in a process at an instant, by type.
    Inventory(Inventory),
}

/// How the recording was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Session {
    /// Wall clock at time 0, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// Version of the leakline that recorded.
    pub leakline: String,
    /// Program and arguments as given (cut after the program or module).
    pub command: Vec<Text>,
    /// `exact` or `sampled`.
    pub mode: String,
    /// Mean bytes between samples; 0 when exact.
    pub sample_bytes: u64,
    /// Python domains and stacks were asked for.
    pub python: bool,
    /// The native domain and stacks were asked for.
    pub native: bool,
    /// Host name, kernel and machine, for the reader's orientation.
    pub host: String,
    /// A block counts as temporary when freed before this many further
    /// allocations of its thread.
    pub temporary_window: u32,
}

/// A process of the target tree: one program image, from start or exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Process {
    /// Pid in the collector's pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid, an identity.
    pub start_ticks: u64,
    /// Process (id) that forked this one, if it is of the session.
    pub parent: Option<u32>,
    /// Pid of the parent, in the session or not.
    pub parent_pid: u32,
    /// When it joined.
    pub at_ns: u64,
    /// Path of its executable.
    pub executable: Text,
    /// Its arguments (cut after the program or module).
    pub command: Vec<Text>,
    /// It began by exec in a process that was already in the session.
    pub exec: bool,
    /// `PY_VERSION_HEX` of its interpreter, 0 without one.
    pub python_version: u32,
    /// Blocks and bytes that it inherited live from its parent by fork.
    pub inherited_blocks: u64,
    /// See `inherited_blocks`.
    pub inherited_bytes: u64,
}

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct ProcessEnd {
    /// Which.
    pub process: u32,
    /// When.
    pub at_ns: u64,
    /// Its exit status, where known.
    pub exit_status: Option<i32>,
    /// The signal that killed it, where known.
    pub signal: Option<i32>,
    /// It went on as another program (exec).
    pub exec: bool,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Thread {
    /// Its process.
    pub process: u32,
    /// Its tid, as the process sees it.
    pub tid: u32,
    /// Its name when it made its first event.
    pub name: String,
    /// When that was.
    pub at_ns: u64,
}

/// An ELF file. One record per path and build-id, whatever address it was
/// loaded at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Module {
    /// Path in the target's mount namespace.
    pub path: Text,
    /// Build-id note; empty when it has none.
    pub build_id: Vec<u8>,
}

/// A Python code object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Code {
    /// `co_filename`.
    pub file: String,
    /// `co_qualname` or `co_name`.
    pub name: String,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// Instruction offsets in bytes and the line that begins there, rising.
    pub lines: Vec<(u32, u32)>,
}

/// A frame under its caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Node {
    /// The caller (node id); 0 at the outermost frame.
    pub parent: u32,
    /// What the frame is.
    pub frame: Frame,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub enum Frame {
    /// A native frame.
    Native {
        /// Module id, or `None` for an address in no known module.
        module: Option<u32>,
        /// Offset in the module's virtual addresses (or the address itself).
        /// A return address unless `exact`: look up `offset - 1`.
        offset: u64,
        /// `offset` is the instruction itself.
        exact: bool,
        /// The frame evaluates Python bytecode: it stands for Python frames
        /// up to and including one with `entry`.
        evaluator: bool,
    },
    /// A Python frame.
    Python {
        /// Code id.
        code: u32,
        /// Offset of the instruction in bytes.
        offset: u32,
        /// Outermost frame of one run of the evaluator.
        entry: bool,
    },
    /// Two stacks of one instant: the native one is `parent`, the Python one
    /// is this node id.
    Pair {
        /// Python stack (node id).
        python: u32,
    },
    /// The stack went on, beyond the depth limit.
    Truncated,
    /// The unwinder could not go on.
    Broken,
    /// The stack goes on elsewhere (signal stack, coroutine).
    Switched,
}

/// Where blocks of a site come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub enum Domain {
    /// malloc and its family.
    Native,
    /// `PyMem_RawMalloc`.
    Raw,
    /// `PyMem_Malloc`.
    Mem,
    /// `PyObject_Malloc`.
    Obj,
    /// mmap.
    Mmap,
    /// Any of Python's three: tracemalloc does not tell which.
    Python,
    /// NumPy's arrays, as it tells tracemalloc of them.
    Numpy,
    /// What other extensions tell tracemalloc of.
    Foreign,
}

impl Domain {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Domain::Native => "native",
            Domain::Raw => "raw",
            Domain::Mem => "mem",
            Domain::Obj => "obj",
            Domain::Mmap => "mmap",
            Domain::Python => "python",
            Domain::Numpy => "numpy",
            Domain::Foreign => "foreign",
        }
    }
}

/// A stack that allocated, in one process and domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Site {
    /// Its process.
    pub process: u32,
    /// Its stack (node id); 0 = not known.
    pub node: u32,
    /// Its domain.
    pub domain: Domain,
}

/// What addresses of a module mean. An address is looked up as written in a
/// node (`offset` of a return address minus one).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Symbols {
    /// The module.
    pub module: u32,
    /// Address looked up and its frames, innermost (most inlined) first.
    pub addresses: Vec<(u64, Vec<SymbolFrame>)>,
    /// Some of these come from a module without symbols for them: the names
    /// are the nearest known, with `offset` bytes past it.
    pub note: Option<String>,
}

/// One function at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct SymbolFrame {
    /// Demangled name; empty when nothing is known.
    pub function: String,
    /// Source file; empty when not known.
    pub file: String,
    /// Line, 0 when not known.
    pub line: u32,
    /// It was inlined into the next.
    pub inlined: bool,
    /// Bytes past the symbol's start when the address lies beyond the
    /// symbol's stated size (nearest symbol of a stripped library), else 0.
    pub beyond: u32,
}

/// Counters of a site, cumulative since its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Counters {
    /// Bytes now live.
    pub live_bytes: u64,
    /// Blocks now live.
    pub live_blocks: u64,
    /// Bytes ever allocated (a block that grew in place adds its growth).
    pub total_bytes: u64,
    /// Blocks ever born.
    pub total_blocks: u64,
    /// Blocks freed before the thread's next allocations.
    pub temporary_blocks: u64,
    /// Calls that resized a block in place.
    pub resizes: u64,
}

/// Changed counters of a site: new value minus the value in its last point
/// (0 for its first), wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Point {
    /// Which site. Rising within a bin.
    pub site: u32,
    /// Change of `live_bytes`.
    pub live_bytes: i64,
    /// Change of `live_blocks`.
    pub live_blocks: i64,
    /// Change of `total_bytes`.
    pub total_bytes: i64,
    /// Change of `total_blocks`.
    pub total_blocks: i64,
    /// Change of `temporary_blocks`.
    pub temporary_blocks: i64,
    /// Change of `resizes`.
    pub resizes: i64,
}

/// A span of time, from the end of the bin before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Bin {
    /// Its end.
    pub end_ns: u64,
    /// Live bytes of the session at its end (exact, merged over processes,
    /// inherited blocks counted once).
    pub live_bytes: u64,
    /// Live blocks likewise.
    pub live_blocks: u64,
    /// Most live bytes at any instant within.
    pub max_bytes: u64,
    /// RSS at about its end: process id and bytes.
    pub rss: Vec<(u32, u64)>,
    /// Sites that moved. A site that moved by less than max(64 KiB, 1 %)
    /// since its last point may be left out, unless `complete`.
    #[serde(with = "crate::packed::points")]
    pub points: Vec<Point>,
    /// Every site that changed since its last point is in `points`: counters
    /// are exact at this bin's end.
    pub complete: bool,
}

/// The state at the high-water mark of live bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Peak {
    /// `None`: of the whole session, merged. Else of that process.
    pub process: Option<u32>,
    /// When it was.
    pub at_ns: u64,
    /// Live bytes then.
    pub live_bytes: u64,
    /// Live blocks then.
    pub live_blocks: u64,
    /// Sites that were live then: id, bytes, blocks. Exact.
    #[serde(with = "crate::packed::held")]
    pub sites: Vec<(u32, u64, u64)>,
}

/// Allocations by size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Sizes {
    /// Class n: sizes of n significant bits (0, 1, 2-3, 4-7, ...): how many
    /// allocations, and their bytes.
    pub classes: Vec<(u64, u64)>,
}

/// Counters of a process, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct ProcessTotals {
    /// Which.
    pub process: u32,
    /// Calls that allocated: births and resizes in place.
    pub allocations: u64,
    /// Deaths (a realloc that moved is one).
    pub frees: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Blocks now live, inherited ones too.
    pub live_blocks: u64,
    /// Bytes now live, inherited ones too.
    pub live_bytes: u64,
    /// High-water mark of `live_bytes`.
    pub peak_bytes: u64,
    /// Temporary blocks.
    pub temporary_blocks: u64,
    /// Calls that resized in place.
    pub resizes: u64,
    /// Deaths of blocks never seen born.
    pub unknown_frees: u64,
    /// Births at an address that was still live: a death was missed.
    pub implied_frees: u64,
    /// Events read.
    pub events: u64,
    /// Events lost.
    pub lost_events: u64,
    /// Bytes of the allocations among them.
    pub lost_bytes: u64,
    /// Nanoseconds that its threads waited for the collector.
    pub stalled_ns: u64,
    /// Stacks cut at the depth limit, or that there was no room for.
    pub truncated_stacks: u64,
    /// Unwinds that ended early.
    pub broken_unwinds: u64,
    /// Words that were no event (0 unless the target scribbled on the map).
    pub malformed_events: u64,
}

/// Counters of a thread, cumulative. A death counts for the thread that
/// allocated the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct ThreadTotals {
    /// Which.
    pub thread: u32,
    /// Its allocations' counters.
    pub counters: Counters,
}

/// Events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Loss {
    /// Whose.
    pub process: u32,
    /// When the mark after the gap was made.
    pub at_ns: u64,
    /// How many.
    pub events: u64,
}

/// A named instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Mark {
    /// Its name: a user's, or `python ready`, `main left`, `exiting`.
    pub name: String,
    /// When.
    pub at_ns: u64,
    /// Whose; `None` = the session's.
    pub process: Option<u32>,
}

/// Lines of a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Source {
    /// Path as in frames.
    pub file: String,
    /// Line number and text, rising.
    pub lines: Vec<(u32, String)>,
}

/// Something the user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Note {
    /// When.
    pub at_ns: u64,
    /// In words, a sentence.
    pub text: String,
}

/// The end of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct End {
    /// When.
    pub at_ns: u64,
    /// Why: `exited`, `detached`, `stopped`.
    pub reason: String,
}

/// What a forked process still has of the blocks that were live in its parent.
///
/// Counters of sites are of blocks born in the site's own process; these
/// blocks are on top of them, and only in views of one process: in merged
/// figures they count for the process that bore them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Inherited {
    /// The process that inherited.
    pub process: u32,
    /// Sites of its ancestors: id, bytes, blocks. Rising by id.
    #[serde(with = "crate::packed::held")]
    pub sites: Vec<(u32, u64, u64)>,
}

/// What became of blocks by when they were born, since the record before:
/// changes, which add up.
///
/// A site's cohorts are told once they have ended, that is, once what is born
/// belongs to the next. What is left of its counters in the bin that ends at
/// the same instant is the *open* cohort's, to which `tick` belongs. A site all
/// of whose blocks die in the cohort that they were born in is not told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Cohorts {
    /// The instant: the end of a complete bin.
    pub at_ns: u64,
    /// The tick of what was born last (see [`crate::cohorts`]).
    pub tick: u32,
    /// The next tick begins a cohort of every site: a mark's.
    pub is_boundary: bool,
    /// Sites with something to tell, as [`SiteCohorts`], packed: there are many,
    /// and few readers look.
    pub sites: Packed,
}

/// A list of sites' cohorts as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Packed(Vec<u8>);

impl Packed {
    /// Packs sites, which rise by id.
    pub fn new(sites: &[SiteCohorts]) -> Self {
        let mut sites = sites.to_vec();
        let mut before = (0, 0);
        for site in &mut sites {
            let here = (site.site, site.cohorts.first().map(|cohort| cohort.start));
            site.site = site.site.wrapping_sub(before.0);
            let mut start = before.1;
            for cohort in &mut site.cohorts {
                let gap = cohort.start.wrapping_sub(start).cast_signed();
                start = cohort.start;
                cohort.start = (gap << 1 ^ gap >> 31).cast_unsigned();
            }
            before = (here.0, here.1.unwrap_or(before.1));
        }
        // Numbers and lists always can be written.
        Packed(postcard::to_stdvec(&sites).unwrap_or_else(|_| vec![0]))
    }

    /// The sites; none where the bytes make no sense, which no reader hands
    /// on.
    pub fn unpack(&self) -> Vec<SiteCohorts> {
        self.try_unpack().unwrap_or_default()
    }

    pub(crate) fn try_unpack(&self) -> Option<Vec<SiteCohorts>> {
        let (mut sites, rest) = postcard::take_from_bytes::<Vec<SiteCohorts>>(&self.0).ok()?;
        let mut before = (0_u32, 0_u32);
        for site in &mut sites {
            site.site = site.site.wrapping_add(before.0);
            let mut start = before.1;
            for cohort in &mut site.cohorts {
                let gap = cohort.start >> 1 ^ (cohort.start & 1).wrapping_neg();
                start = start.wrapping_add(gap);
                cohort.start = start;
            }
            let first = site.cohorts.first().map(|cohort| cohort.start);
            before = (site.site, first.unwrap_or(before.1));
        }
        rest.is_empty().then_some(sites)
    }
}

/// Cohorts of a site that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct SiteCohorts {
    /// Which.
    pub site: u32,
    /// Its cohorts are of `2^level` ticks from now on. Never falls.
    pub level: u8,
    /// Those that changed, rising.
    pub cohorts: Vec<CohortChange>,
}

/// Blocks are sampled at a mean that differs from the one before
/// (`Session::sample_bytes` at first). Threads that were counting down when it
/// changed take one more sample at the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Sampling {
    /// Since when.
    pub at_ns: u64,
    /// Mean bytes between samples.
    pub mean_bytes: u64,
}

/// How far estimates scatter, see [`SiteScatter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Scatter {
    /// Sites with news, rising.
    pub sites: Vec<SiteScatter>,
}

/// The variance of a site's estimates, divided by the estimate: what another
/// byte, or block, of the same mix of sizes adds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct SiteScatter {
    /// Which.
    pub site: u32,
    /// Of `live_bytes`, in bytes.
    pub live_bytes: u64,
    /// Of `live_blocks`, in 1 / 1,024 of a block.
    pub live_blocks: u64,
    /// Of `total_bytes`, in bytes.
    pub total_bytes: u64,
    /// Of `total_blocks`, in 1 / 1,024 of a block.
    pub total_blocks: u64,
}

impl SiteScatter {
    /// The unit of blocks' figures.
    pub const BLOCK_UNIT: f64 = 1024.0;
}

/// What lives on a process's heap, and what holds it, at an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct HeapGraph {
    /// Its number: from 1, in the order in which they were asked for.
    pub graph: u32,
    /// Whose heap.
    pub process: u32,
    /// The instant.
    pub at_ns: u64,
    /// Why it was taken: a snapshot's name, or a mark's.
    pub name: String,
    /// How long the process stood still for it, where known; else 0.
    pub paused_ns: u64,
    /// It was to tell what keys of dicts are (`--values`), not only names in the code.
    pub values: bool,
}

/// A part of a heap graph: parts come in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct HeapPart {
    /// [`HeapGraph::graph`].
    pub graph: u32,
    /// Whole entries of the graph, as the target told of them (docs/format.md).
    #[serde(with = "serde_bytes")]
    pub entries: Vec<u8>,
    /// For each node and pointer among them, in their order: 0, or the site (id + 1) of
    /// the live block that it is; for a pointer's site also the block's bytes. Varints.
    #[serde(with = "serde_bytes")]
    pub sites: Vec<u8>,
}

/// Which native blocks of a process nothing pointed to, by a look at all of its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Lost {
    /// Its number: a heap graph's that was taken at the same instant, or, of a process
    /// without Python, its own among theirs.
    pub graph: u32,
    /// Whose memory.
    pub process: u32,
    /// The instant.
    pub at_ns: u64,
    /// Why it was looked: a snapshot's name, or a mark's.
    pub name: String,
    /// How long the process stood still for it.
    pub paused_ns: u64,
    /// Why it could not be found out; empty where it was.
    pub why: String,
    /// All blocks of the process are known. Else what lies between those that are was
    /// taken for memory that may hold pointers.
    pub knows_all: bool,
    /// Other threads of the process: what only their registers held was not seen.
    pub threads: u32,
    /// The look before at the same process, with which it was compared; 0 for none.
    pub before: u32,
    /// Blocks of which it was asked whether anything points to them.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were looked at where pointers begin: data, stacks, registers.
    pub root_bytes: u64,
    /// Bytes that were looked at in blocks which were reached.
    pub block_bytes: u64,
    /// Bytes that could not be looked at: swapped out, or not to be read.
    pub unread_bytes: u64,
    /// Microseconds that it took, while the process went on.
    pub microseconds: u64,
    /// Sites with something to tell, rising.
    pub sites: Vec<LostSite>,
}

/// Blocks of a site to which nothing pointed. Of sampled blocks figures are estimates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct LostSite {
    /// Which.
    pub site: u32,
    /// Blocks of which it was asked, as many as are known.
    pub known: u64,
    /// Of them, lost ones.
    pub lost: u64,
    /// Lost blocks to which nothing points at all.
    pub direct_blocks: u64,
    /// Their bytes.
    pub direct_bytes: u64,
    /// Lost blocks to which only other lost blocks point.
    pub indirect_blocks: u64,
    /// Their bytes.
    pub indirect_bytes: u64,
    /// Of all of these, those that were lost in the look before, too.
    pub again_blocks: u64,
    /// Their bytes.
    pub again_bytes: u64,
    /// Blocks that are not lost, but to whose beginnings nothing points.
    pub inner_blocks: u64,
    /// Their bytes.
    pub inner_bytes: u64,
    /// Addresses of some lost blocks, direct ones first.
    pub examples: Vec<u64>,
}

/// What limits a process's memory, and how near it was to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Limits {
    /// Which.
    pub process: u32,
    /// When it was looked at.
    pub at_ns: u64,
    /// Resident bytes of the process then.
    pub rss_bytes: u64,
    /// Its limits; none where there were some before.
    pub limits: Vec<Limit>,
}

/// A limit on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Limit {
    /// What it is a limit of.
    pub of: Limited,
    /// The limit, in bytes.
    pub bytes: u64,
    /// What was taken of it.
    pub used_bytes: u64,
}

/// What a limit on memory limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub enum Limited {
    /// All processes of a control group and of those below it, together. The number
    /// stands for the group in all of the recording.
    ControlGroup(u32),
    /// The process's address space (`RLIMIT_AS`).
    AddressSpace,
    /// The process's private writable memory (`RLIMIT_DATA`).
    Data,
}

/// How a cohort changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct CohortChange {
    /// Its first tick. In a site's first record 0 may also stand for all until
    /// the site's next cohort, none of which was alive any more.
    pub start: u32,
    /// Change of the blocks born in it.
    pub born_blocks: i64,
    /// Change of their bytes; growth in place counts.
    pub born_bytes: i64,
    /// Change of the blocks that are alive.
    pub blocks: i64,
    /// Change of their bytes.
    pub bytes: i64,
}
