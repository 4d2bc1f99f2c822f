//! The records of a recording, arranged for queries.
//!
//! A model borrows its records; the points of the time bins, by far the most of
//! them, lie packed in a [`Timeline`] and are summed when a query names an
//! instant, one process after the other.
//!
//! # Invariants
//!
//! * A node's parent, and a pair's Python stack, have smaller ids than the
//!   node itself (0 where a damaged file says otherwise), so every walk ends.
//! * Counters wrap as the writer's did and are read as signed where they go up
//!   and down, so a damaged bin gives wrong figures, never a panic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use leakline_recording::record::{
    Bin, Code, Cohorts, Counters, Domain, End, HeapGraph, Inventory, Ledger, Limits, Loss, Lost,
    Mark, Note, PageCost, Peak, Point, Process, ProcessEnd, ProcessTotals, Record, Sampling,
    Session, Site, SiteScatter, Sizes, SymbolFrame, Thread, ThreadTotals,
};
use rustc_hash::FxHashMap;

use crate::contents::Contents;
use crate::figures::Figures;
use crate::instant::{At, MAIN_LEFT, Span};
use crate::names::{base_name, escaped};
use crate::nodes::Nodes;
use crate::redact::Redaction;
use crate::scatter::{PerSite, Scatter};
use crate::timeline::{Packed, Timeline, apply};

/// What a recording's file says beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file as the user named it, for headings and next commands.
    pub file: String,
    /// The user did not name it: next commands need not either.
    pub implied: bool,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// The recording ended well.
    pub ended: bool,
    /// It did not yet: somebody is writing it.
    pub is_live: bool,
    /// What could not be read, a sentence each.
    pub warnings: Vec<String>,
    /// Seconds east of UTC of the clock times to show and to understand.
    pub utc_offset_seconds: i32,
}

/// A process, with what was learned of it later.
#[derive(Debug)]
pub struct ProcessFacts<'a> {
    /// As it joined.
    pub process: &'a Process,
    /// What became of it.
    pub end: Option<&'a ProcessEnd>,
    /// Its counters.
    pub totals: ProcessTotals,
    /// Its own high-water mark.
    pub peak: Option<&'a Peak>,
    /// Bytes and blocks that it still has of what it inherited by fork.
    pub inherited: (u64, u64),
}

/// A thread, with its counters.
#[derive(Debug)]
pub struct ThreadFacts<'a> {
    /// As it was first seen.
    pub thread: &'a Thread,
    /// Its allocations' counters, at the end.
    pub counters: Counters,
}

/// An ELF file, by name.
#[derive(Debug)]
pub(crate) struct ModuleFacts<'a> {
    pub(crate) path: String,
    pub(crate) build_id: &'a [u8],
}

/// Counters of the whole session, merged over its processes; inherited blocks
/// count once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that allocated: births and resizes in place.
    pub allocations: u64,
    /// Blocks freed.
    pub frees: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// High-water mark of live bytes.
    pub peak_bytes: u64,
    /// Blocks freed before their thread's next allocations.
    pub temporary_blocks: u64,
    /// Calls that resized a block in place.
    pub resizes: u64,
    /// Frees of blocks never seen born.
    pub unknown_frees: u64,
    /// Frees that were missed and inferred from a birth at the same address.
    pub implied_frees: u64,
    /// Events read.
    pub events: u64,
    /// Events lost.
    pub lost_events: u64,
    /// Bytes of the allocations among the lost.
    pub lost_bytes: u64,
    /// Nanoseconds that threads waited for the collector.
    pub stalled_ns: u64,
    /// Stacks cut at the depth limit, or that there was no room for.
    pub truncated_stacks: u64,
    /// Unwinds that ended early.
    pub broken_unwinds: u64,
    /// Words that were no event.
    pub malformed_events: u64,
}

/// The high-water mark of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HighWater {
    /// Live bytes at it.
    pub bytes: u64,
    /// Live blocks at it.
    pub blocks: u64,
    /// When it was, nanoseconds since the start.
    pub at_ns: u64,
    /// What each site held is known for this very instant. Else it is that of
    /// the end of a bin near it.
    pub exact: bool,
    source: HighWaterSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HighWaterSource {
    Nothing,
    Record,
    Bin(usize),
}

/// The instant at which a process's main thread left `__main__`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftMain {
    /// When.
    pub(crate) at_ns: u64,
    /// The last bin that had ended by then.
    bin: Option<usize>,
}

/// A recording, arranged.
#[derive(Debug)]
pub struct Model<'a> {
    origin: Origin,
    records: &'a [Record],
    session: Option<&'a Session>,
    processes: Vec<ProcessFacts<'a>>,
    threads: Vec<ThreadFacts<'a>>,
    modules: Vec<ModuleFacts<'a>>,
    codes: Vec<&'a Code>,
    nodes: Cow<'a, Nodes>,
    sites: Cow<'a, [Site]>,
    symbols: FxHashMap<(u32, u64), &'a [SymbolFrame]>,
    symbol_notes: Vec<(u32, &'a str)>,
    bins: Vec<&'a Bin>,
    bin_ends: Vec<u64>,
    cohorts: Vec<&'a Cohorts>,
    /// The points of the bins.
    timeline: Cow<'a, Timeline>,
    peak: Option<&'a Peak>,
    sizes: Option<&'a Sizes>,
    samplings: Vec<Sampling>,
    scatter: FxHashMap<u32, SiteScatter>,
    losses: Vec<Loss>,
    limits: Vec<&'a Limits>,
    heap_graphs: Vec<&'a HeapGraph>,
    lost: Vec<&'a Lost>,
    ledgers: Vec<&'a Ledger>,
    inventories: Vec<&'a Inventory>,
    page_costs: Vec<&'a PageCost>,
    marks: Vec<&'a Mark>,
    notes: Vec<&'a Note>,
    sources: BTreeMap<&'a str, BTreeMap<u32, &'a str>>,
    end: Option<&'a End>,
    last_ns: u64,
    /// Found when first asked for.
    left_main: OnceLock<Vec<Option<LeftMain>>>,
}

impl<'a> Model<'a> {
    /// Arranges `records`. Costs one pass over them, and packs their points;
    /// who reads a large recording has [`Contents`] do that as it is read.
    pub fn new(records: &'a [Record], origin: Origin) -> Self {
        Model::arranged(
            records,
            Cow::Owned(Nodes::new()),
            Cow::Owned(Vec::new()),
            Cow::Owned(Timeline::new()),
            origin,
        )
    }

    /// As [`Model::new`].
    pub fn of(contents: &'a Contents, origin: Origin) -> Self {
        Model::arranged(
            contents.records(),
            Cow::Borrowed(contents.nodes()),
            Cow::Borrowed(contents.sites()),
            Cow::Borrowed(contents.timeline()),
            origin,
        )
    }

    fn arranged(
        records: &'a [Record],
        nodes: Cow<'a, Nodes>,
        sites: Cow<'a, [Site]>,
        timeline: Cow<'a, Timeline>,
        origin: Origin,
    ) -> Self {
        let mut model = Model::empty(records, nodes, sites, timeline, origin);
        for record in records {
            model.add(record);
        }
        model
    }

    /// Before its records are added; nodes, sites and timeline are those of
    /// contents, or empty ones of its own.
    fn empty(
        records: &'a [Record],
        nodes: Cow<'a, Nodes>,
        sites: Cow<'a, [Site]>,
        timeline: Cow<'a, Timeline>,
        origin: Origin,
    ) -> Self {
        Model {
            origin,
            records,
            session: None,
            processes: Vec::new(),
            threads: Vec::new(),
            modules: Vec::new(),
            codes: Vec::new(),
            nodes,
            sites,
            symbols: FxHashMap::default(),
            symbol_notes: Vec::new(),
            bins: Vec::new(),
            bin_ends: Vec::new(),
            cohorts: Vec::new(),
            timeline,
            peak: None,
            sizes: None,
            samplings: Vec::new(),
            scatter: FxHashMap::default(),
            losses: Vec::new(),
            limits: Vec::new(),
            heap_graphs: Vec::new(),
            lost: Vec::new(),
            ledgers: Vec::new(),
            inventories: Vec::new(),
            page_costs: Vec::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            sources: BTreeMap::new(),
            end: None,
            last_ns: 0,
            left_main: OnceLock::new(),
        }
    }

    /// What to read in place of what tells too much.
    pub fn redaction(&self) -> Redaction {
        Redaction::new(self.records)
    }

    /// The same recording, redacted. Spans of this model are its, too.
    pub fn redacted<'r>(&self, redaction: &'r Redaction) -> Model<'r>
    where
        'a: 'r,
    {
        let records: &'r [Record] = self.records;
        let (nodes, sites, timeline) = match (&self.nodes, &self.sites, &self.timeline) {
            (Cow::Borrowed(nodes), Cow::Borrowed(sites), Cow::Borrowed(timeline)) => (
                Cow::Borrowed(*nodes),
                Cow::Borrowed(*sites),
                Cow::Borrowed(*timeline),
            ),
            _ => (
                Cow::Owned(Nodes::new()),
                Cow::Owned(Vec::new()),
                Cow::Owned(Timeline::new()),
            ),
        };
        let origin = Redaction::origin(&self.origin);
        let mut model = Model::empty(records, nodes, sites, timeline, origin);
        for (at, record) in records.iter().enumerate() {
            model.add(redaction.at(at, record));
        }
        model
    }

    fn add(&mut self, record: &'a Record) {
        match record {
            Record::Session(session) => {
                self.session.get_or_insert(session);
            }
            Record::Process(process) => {
                self.seen(process.at_ns);
                self.processes.push(ProcessFacts {
                    process,
                    end: None,
                    totals: ProcessTotals::default(),
                    peak: None,
                    inherited: (process.inherited_bytes, process.inherited_blocks),
                });
            }
            Record::ProcessEnd(end) => {
                self.seen(end.at_ns);
                if let Some(facts) = self.processes.get_mut(end.process as usize) {
                    facts.end = Some(end);
                }
            }
            Record::Thread(thread) => {
                self.seen(thread.at_ns);
                self.threads.push(ThreadFacts {
                    thread,
                    counters: Counters::default(),
                });
            }
            Record::Module(module) => {
                self.modules.push(ModuleFacts {
                    path: escaped(&module.path).into_owned(),
                    build_id: &module.build_id,
                });
            }
            Record::Code(code) => self.codes.push(code),
            Record::Node(node) => self.nodes.to_mut().push(*node),
            Record::Site(site) => {
                self.timeline.to_mut().add_site(site);
                self.sites.to_mut().push(*site);
            }
            Record::Symbols(symbols) => {
                for (address, frames) in &symbols.addresses {
                    self.symbols.insert((symbols.module, *address), frames);
                }
                if let Some(note) = &symbols.note {
                    // The last of a module counts, as its figures grow.
                    self.symbol_notes
                        .retain(|(module, _)| *module != symbols.module);
                    self.symbol_notes.push((symbols.module, note));
                }
            }
            Record::Bin(bin) => {
                self.seen(bin.end_ns);
                let before = self.bin_ends.last().copied().unwrap_or(0);
                self.bin_ends.push(bin.end_ns.max(before));
                self.bins.push(bin);
                // Of contents, the timeline has it.
                if let Cow::Owned(timeline) = &mut self.timeline {
                    timeline.push(&bin.points);
                }
            }
            Record::Peak(peak) => match peak.process {
                None => self.peak = Some(peak),
                Some(process) => {
                    if let Some(facts) = self.processes.get_mut(process as usize) {
                        facts.peak = Some(peak);
                    }
                }
            },
            Record::Sizes(sizes) => self.sizes = Some(sizes),
            Record::Totals(totals) => {
                if let Some(facts) = self.processes.get_mut(totals.process as usize) {
                    facts.totals = *totals;
                }
            }
            Record::ThreadTotals(ThreadTotals { thread, counters }) => {
                if let Some(facts) = self.threads.get_mut(*thread as usize) {
                    facts.counters = *counters;
                }
            }
            Record::Loss(loss) => {
                self.seen(loss.at_ns);
                self.losses.push(*loss);
            }
            Record::Mark(mark) => {
                self.seen(mark.at_ns);
                self.marks.push(mark);
            }
            Record::Source(source) => {
                let lines = self.sources.entry(&source.file).or_default();
                lines.extend(
                    source
                        .lines
                        .iter()
                        .map(|(line, text)| (*line, text.as_str())),
                );
            }
            Record::Note(note) => self.notes.push(note),
            Record::End(end) => {
                self.seen(end.at_ns);
                self.end = Some(end);
            }
            Record::Inherited(inherited) => {
                if let Some(facts) = self.processes.get_mut(inherited.process as usize) {
                    facts.inherited =
                        inherited
                            .sites
                            .iter()
                            .fold((0, 0), |sum, &(_, bytes, blocks)| {
                                (sum.0.saturating_add(bytes), sum.1.saturating_add(blocks))
                            });
                }
            }
            Record::Sampling(sampling) => {
                self.seen(sampling.at_ns);
                self.samplings.push(*sampling);
            }
            Record::Limits(limits) => {
                self.seen(limits.at_ns);
                self.limits.push(limits);
            }
            Record::Scatter(scatter) => {
                let told = scatter.sites.iter().map(|site| (site.site, *site));
                self.scatter.extend(told);
            }
            Record::Cohorts(cohorts) => {
                self.seen(cohorts.at_ns);
                self.cohorts.push(cohorts);
            }
            Record::HeapGraph(graph) => {
                self.seen(graph.at_ns);
                self.heap_graphs.push(graph);
            }
            Record::Lost(lost) => {
                self.seen(lost.at_ns);
                self.lost.push(lost);
            }
            Record::Ledger(ledger) => self.ledgers.push(ledger),
            Record::Inventory(inventory) => self.inventories.push(inventory),
            Record::PageCost(cost) => self.page_costs.push(cost),
            // Kinds of later versions say nothing to this one.
            _ => {}
        }
    }

    fn seen(&mut self, at_ns: u64) {
        self.last_ns = self.last_ns.max(at_ns);
    }

    /// The file's own facts.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How the recording was made; `None` for a file without a session record.
    pub fn session(&self) -> Option<&'a Session> {
        self.session
    }

    /// Processes, by id.
    pub fn processes(&self) -> &[ProcessFacts<'a>] {
        &self.processes
    }

    /// Threads, by id.
    pub fn threads(&self) -> &[ThreadFacts<'a>] {
        &self.threads
    }

    /// Sites, by id.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Time bins, in order.
    pub fn bins(&self) -> &[&'a Bin] {
        &self.bins
    }

    /// When each bin ended, never falling.
    pub(crate) fn bin_ends(&self) -> &[u64] {
        &self.bin_ends
    }

    /// What became of blocks by when they were born, in order.
    pub(crate) fn cohorts(&self) -> &[&'a Cohorts] {
        &self.cohorts
    }

    /// Named instants, in order.
    pub fn marks(&self) -> &[&'a Mark] {
        &self.marks
    }

    /// What the recorder wants known, in order.
    pub fn notes(&self) -> &[&'a Note] {
        &self.notes
    }

    /// What the recorder says of modules without symbols: their paths, and a
    /// sentence.
    pub fn symbol_notes(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.symbol_notes.iter().map(|&(module, note)| {
            (
                self.modules
                    .get(module as usize)
                    .map_or("", |module| module.path.as_str()),
                note,
            )
        })
    }

    /// Losses, in order.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// Heap graphs, in order.
    pub fn heap_graphs(&self) -> &[&'a HeapGraph] {
        &self.heap_graphs
    }

    /// What looks for lost blocks have found, in order.
    pub fn lost(&self) -> &[&'a Lost] {
        &self.lost
    }

    /// What processes' memory was made of, in the order in which it was found out.
    pub fn ledgers(&self) -> &[&'a Ledger] {
        &self.ledgers
    }

    /// What lived in processes by type, in the order in which it was found out.
    pub fn inventories(&self) -> &[&'a Inventory] {
        &self.inventories
    }

    /// Which pages live blocks kept, in the order in which it was found out.
    pub fn page_costs(&self) -> &[&'a PageCost] {
        &self.page_costs
    }

    /// Allocations by size.
    pub fn sizes(&self) -> Option<&'a Sizes> {
        self.sizes
    }

    /// The recording's last record, when it ended well.
    pub fn end(&self) -> Option<&'a End> {
        self.end
    }

    /// Recorded lines of source files: path as in frames, lines by number.
    pub fn sources(&self) -> &BTreeMap<&'a str, BTreeMap<u32, &'a str>> {
        &self.sources
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(crate) fn modules(&self) -> &[ModuleFacts<'a>] {
        &self.modules
    }

    pub(crate) fn codes(&self) -> &[&'a Code] {
        &self.codes
    }

    /// Source files that native frames name, in no order, more than once.
    pub(crate) fn symbol_files(&self) -> impl Iterator<Item = &'a str> {
        self.symbols
            .values()
            .flat_map(|frames| frames.iter().map(|frame| frame.file.as_str()))
    }

    pub(crate) fn symbols(&self, module: u32, address: u64) -> &'a [SymbolFrame] {
        self.symbols
            .get(&(module, address))
            .copied()
            .unwrap_or_default()
    }

    /// The last instant that the recording tells of, nanoseconds since its
    /// start.
    pub fn duration_ns(&self) -> u64 {
        self.last_ns
    }

    /// Every event up to the end is in the figures: none was lost, all of the
    /// file could be read, and it ended well.
    pub fn complete(&self) -> bool {
        let totals = self.totals();
        self.origin.ended
            && self.origin.warnings.is_empty()
            && totals.lost_events == 0
            && totals.malformed_events == 0
    }

    /// Counters of the session.
    pub fn totals(&self) -> Totals {
        let mut merged = Totals::default();
        let mut lost_by_marks = vec![0_u64; self.processes.len()];
        for loss in &self.losses {
            match lost_by_marks.get_mut(loss.process as usize) {
                Some(lost) => *lost = lost.saturating_add(loss.events),
                None => merged.lost_events = merged.lost_events.saturating_add(loss.events),
            }
        }
        let mut inherited = (0_u64, 0_u64);
        for (facts, lost) in self.processes.iter().zip(lost_by_marks) {
            let one = &facts.totals;
            for (sum, more) in [
                (&mut merged.allocations, one.allocations),
                (&mut merged.frees, one.frees),
                (&mut merged.allocated_bytes, one.allocated_bytes),
                (&mut merged.live_blocks, one.live_blocks),
                (&mut merged.live_bytes, one.live_bytes),
                (&mut merged.temporary_blocks, one.temporary_blocks),
                (&mut merged.resizes, one.resizes),
                (&mut merged.unknown_frees, one.unknown_frees),
                (&mut merged.implied_frees, one.implied_frees),
                (&mut merged.events, one.events),
                // Of a process that was killed the marks may say more.
                (&mut merged.lost_events, one.lost_events.max(lost)),
                (&mut merged.lost_bytes, one.lost_bytes),
                (&mut merged.stalled_ns, one.stalled_ns),
                (&mut merged.truncated_stacks, one.truncated_stacks),
                (&mut merged.broken_unwinds, one.broken_unwinds),
                (&mut merged.malformed_events, one.malformed_events),
                (&mut inherited.0, facts.inherited.1),
                (&mut inherited.1, facts.inherited.0),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
        if let Some(bin) = self.bins.last() {
            // The only exact count of what processes share.
            merged.live_blocks = bin.live_blocks;
            merged.live_bytes = bin.live_bytes;
        } else {
            merged.live_blocks = merged.live_blocks.saturating_sub(inherited.0);
            merged.live_bytes = merged.live_bytes.saturating_sub(inherited.1);
        }
        merged.peak_bytes = self.high_water().bytes.max(merged.live_bytes);
        merged
    }

    /// The high-water mark: from its record, or, where a killed recorder left
    /// none or an old one, from the bins.
    pub fn high_water(&self) -> HighWater {
        let mut highest = 0;
        let mut highest_at = 0;
        let mut best: Option<(usize, &Bin)> = None;
        for (index, bin) in self.bins.iter().enumerate() {
            if bin.max_bytes.max(bin.live_bytes) > highest {
                highest = bin.max_bytes.max(bin.live_bytes);
                highest_at = self.bin_ends[index];
            }
            if best.is_none_or(|(_, best)| bin.live_bytes > best.live_bytes) {
                best = Some((index, bin));
            }
        }
        match (self.peak, best) {
            (Some(peak), _) if peak.live_bytes >= highest => HighWater {
                bytes: peak.live_bytes,
                blocks: peak.live_blocks,
                at_ns: peak.at_ns,
                exact: true,
                source: HighWaterSource::Record,
            },
            (Some(peak), best) if best.is_none_or(|(_, bin)| bin.live_bytes <= peak.live_bytes) => {
                HighWater {
                    bytes: highest,
                    blocks: peak.live_blocks,
                    at_ns: highest_at,
                    exact: false,
                    source: HighWaterSource::Record,
                }
            }
            (_, Some((index, bin))) => HighWater {
                bytes: highest,
                blocks: bin.live_blocks,
                at_ns: highest_at,
                exact: false,
                source: HighWaterSource::Bin(index),
            },
            (_, None) => HighWater {
                bytes: 0,
                blocks: 0,
                at_ns: 0,
                exact: true,
                source: HighWaterSource::Nothing,
            },
        }
    }

    /// Shows `each` the points of a bin, by its index.
    pub fn for_each_point(&self, bin: usize, each: impl FnMut(&Point)) {
        self.timeline.for_each(bin, each);
    }

    /// Counters of every site at the end of bin `bin`; all 0 before the first.
    pub fn counters(&self, bin: Option<usize>) -> Vec<Counters> {
        match bin {
            Some(bin) => self.timeline.counters(bin, self.sites.len()),
            None => vec![Counters::default(); self.sites.len()],
        }
    }

    /// Counters of one site over time: a bin's index and the counters at its
    /// end, for each bin in which the site has a point.
    pub fn series(&self, site: u32) -> Vec<(usize, Counters)> {
        let mut counters = Counters::default();
        let mut series = Vec::new();
        if let Some(of) = self.sites.get(site as usize) {
            self.timeline.for_each_of(of.process, |bin, point| {
                if point.site == site {
                    apply(&mut counters, point);
                    series.push((bin, counters));
                }
            });
        }
        series
    }

    /// For each process, when its main thread left `__main__`, if it is one of
    /// those that ended their work with that.
    ///
    /// One that came to hold more afterwards, by a tenth, went on in other
    /// threads.
    pub(crate) fn left_main(&self) -> &[Option<LeftMain>] {
        self.left_main.get_or_init(|| {
            let mut left: Vec<Option<LeftMain>> = vec![None; self.processes.len()];
            for mark in self.marks.iter().filter(|mark| mark.name == MAIN_LEFT) {
                let Some(left) = mark.process.and_then(|id| left.get_mut(id as usize)) else {
                    continue;
                };
                let ended = self.bin_ends.partition_point(|&end| end <= mark.at_ns);
                // The last one: what looked like it before was not.
                *left = Some(LeftMain {
                    at_ns: mark.at_ns,
                    bin: ended.checked_sub(1),
                });
            }
            if left.iter().any(Option::is_some) {
                self.drop_those_that_went_on(&mut left);
            }
            left
        })
    }

    fn drop_those_that_went_on(&self, left: &mut [Option<LeftMain>]) {
        for (process, left) in (0..).zip(left) {
            let Some(LeftMain { bin: left_at, .. }) = *left else {
                continue;
            };
            // Live bytes at the end of that bin, and the most at a later one's.
            let (mut live, mut then, mut most) = (0_i64, 0_i64, i64::MIN);
            let mut at = None;
            self.timeline.for_each_of(process, |bin, point| {
                if at != Some(bin) && at > left_at {
                    most = most.max(live);
                }
                at = Some(bin);
                live = live.wrapping_add(point.live_bytes);
                if at <= left_at {
                    then = live;
                }
            });
            most = most.max(live);
            if most > then.saturating_add(then / 10) {
                *left = None;
            }
        }
    }

    /// The program that was recorded: what the first process became.
    pub(crate) fn first_process(&self) -> Option<usize> {
        let identity = |facts: &ProcessFacts<'_>| (facts.process.pid, facts.process.start_ticks);
        let first = identity(self.processes.first()?);
        self.processes
            .iter()
            .rposition(|facts| identity(facts) == first)
    }

    /// Whether all other processes had ended by then.
    pub(crate) fn is_alone(&self, process: Option<usize>, at_ns: u64) -> bool {
        self.processes.iter().enumerate().all(|(id, facts)| {
            Some(id) == process || facts.end.is_some_and(|end| end.at_ns <= at_ns)
        })
    }

    /// Whether a process had not left `__main__` before bin `bin`.
    fn was_in_main(&self, process: usize, bin: Option<usize>) -> bool {
        let left = self.left_main().get(process);
        left.copied().flatten().is_none_or(|left| bin <= left.bin)
    }

    /// Counters of the sites in a process's lane at an instant, where `peaks`
    /// is what they held at the high-water mark.
    fn state_of(
        &self,
        (lane, process): (usize, usize),
        at: &At,
        peaks: &[(u64, u64)],
    ) -> Vec<Counters> {
        let is_in_main = !at.is_as_left() || self.was_in_main(process, at.bin());
        let left = self.left_main_if(at, process);
        let bin = left.map_or(at.bin(), |left| at.bin().min(left.bin));
        let bins = bin.map_or(0, |bin| bin.saturating_add(1));
        let mut counters = self.timeline.counters_of(lane, bins);
        if at.is_peak() && is_in_main {
            for (counters, peak) in counters.iter_mut().zip(peaks) {
                (counters.live_bytes, counters.live_blocks) = *peak;
            }
        }
        counters
    }

    /// When a process left `__main__`, where an instant is to be as it was
    /// then.
    fn left_main_if(&self, at: &At, process: usize) -> Option<LeftMain> {
        if !at.is_as_left() {
            return None;
        }
        self.left_main().get(process).copied().flatten()
    }

    /// Bytes and blocks that each site of a lane held at the high-water mark;
    /// `rows` are those of its record, rising.
    fn peaks_of(
        &self,
        lane: usize,
        source: HighWaterSource,
        rows: &[(u32, u64, u64)],
    ) -> Vec<(u64, u64)> {
        let sites = self.timeline.sites_of(lane);
        match source {
            HighWaterSource::Record => {
                let mut told = Told::new(rows, sites);
                sites.iter().map(|&site| told.of(site)).collect()
            }
            HighWaterSource::Bin(bin) => {
                let counters = self.timeline.counters_of(lane, bin.saturating_add(1));
                let positive = |value: u64| (value as i64).max(0) as u64;
                counters
                    .iter()
                    .map(|of| (positive(of.live_bytes), positive(of.live_blocks)))
                    .collect()
            }
            HighWaterSource::Nothing => vec![(0, 0); sites.len()],
        }
    }

    /// Shows `each` every site, process by process, with its id and its
    /// figures over `span`. Takes the memory that one process's sites need.
    pub fn for_each_figures(&self, span: &Span, mut each: impl FnMut(u32, &Site, &Figures)) {
        let looking = Looking::new(self, span);
        for (lane, process) in self.timeline.processes().enumerate() {
            let state = looking.state_of((lane, process as usize));
            looking.show((lane, process as usize), &state, &mut each);
        }
    }

    /// Counters of all sites at the ends of `span`, for who looks more than once.
    pub fn look(&self, span: &Span) -> Look {
        let looking = Looking::new(self, span);
        let lanes = self.timeline.processes().enumerate();
        let states = lanes.map(|(lane, process)| looking.state_of((lane, process as usize)));
        Look {
            span: *span,
            lanes: states.collect(),
        }
    }

    /// As [`for_each_figures`](Self::for_each_figures), of what was looked at.
    pub fn for_each_looked(&self, look: &Look, mut each: impl FnMut(u32, &Site, &Figures)) {
        let looking = Looking::new(self, &look.span);
        let lanes = self.timeline.processes().enumerate();
        for ((lane, process), state) in lanes.zip(&look.lanes) {
            looking.show((lane, process as usize), state, &mut each);
        }
    }

    /// How far a site's figures may be off.
    pub(crate) fn scatter_of(
        &self,
        id: u32,
        site: &Site,
        figures: &Figures,
        to: &Counters,
        before: Option<&Counters>,
    ) -> Scatter {
        if site.domain == Domain::Mmap {
            return Scatter::exact_part();
        }
        let per_site = match self.scatter.get(&id) {
            Some(told) => PerSite::told(told),
            // All that samples were taken of were told of by the end.
            None if self.was_exact() && self.end.is_some() => return Scatter::exact_part(),
            None => PerSite::guessed(to, self.sample_bytes()),
        };
        Scatter::new(figures, before, per_site)
    }

    /// The recording holds samples, and figures are estimates.
    pub fn is_sampled(&self) -> bool {
        self.sample_bytes() > 0
    }

    /// There were times in which every block was recorded.
    pub fn was_exact(&self) -> bool {
        let first = self.session.map_or(0, |session| session.sample_bytes);
        first == 0 || self.samplings.iter().any(|later| later.mean_bytes == 0)
    }

    /// Mean bytes between samples, at first; 0 where every block was recorded.
    pub fn sample_bytes(&self) -> u64 {
        let first = self.session.map_or(0, |session| session.sample_bytes);
        let later = self.samplings.iter().map(|sampling| sampling.mean_bytes);
        [first]
            .into_iter()
            .chain(later)
            .find(|mean| *mean > 0)
            .unwrap_or(0)
    }

    /// What was recorded last, where that was switched or steered: the mean bytes between
    /// samples, 0 for every block.
    pub fn newest_mean(&self) -> Option<u64> {
        self.samplings.last().map(|sampling| sampling.mean_bytes)
    }

    /// The largest and the smallest of the means between samples.
    pub fn sample_range(&self) -> (u64, u64) {
        let means = self.samplings.iter().map(|sampling| sampling.mean_bytes);
        let means = means.filter(|mean| *mean > 0);
        let first = self.sample_bytes();
        let (low, high) = means.fold((first, first), |(low, high), mean| {
            (low.min(mean), high.max(mean))
        });
        (high, low)
    }

    /// It was made of another tool's snapshots: nothing is known of what was between
    /// them.
    pub fn is_imported(&self) -> bool {
        self.session
            .is_some_and(|session| session.mode == "imported")
    }

    /// How blocks were recorded: `exact`, `sampled`, or `mixed` where first one and
    /// then the other.
    pub fn mode(&self) -> &str {
        match (self.is_sampled(), self.was_exact()) {
            (true, true) => "mixed",
            (true, false) => "sampled",
            (false, _) => self.session.map_or("", |session| session.mode.as_str()),
        }
    }

    /// What limited processes' memory, as it was told.
    pub(crate) fn limits(&self) -> &[&'a Limits] {
        &self.limits
    }

    /// When the mean between samples changed; 0 where it was every block from then on.
    pub fn samplings(&self) -> &[Sampling] {
        &self.samplings
    }

    /// Every site's figures over `span`, by id.
    pub fn figures(&self, span: &Span) -> Vec<Figures> {
        let mut all = vec![Figures::default(); self.sites.len()];
        self.for_each_figures(span, |id, _, figures| all[id as usize] = *figures);
        all
    }

    /// Which processes had ended by then, while others went on.
    fn ended_processes(&self, at_ns: u64) -> Vec<bool> {
        let end = |facts: &ProcessFacts<'_>| facts.end.map_or(u64::MAX, |end| end.at_ns);
        let last = self.processes.iter().map(end).max().unwrap_or(u64::MAX);
        self.processes
            .iter()
            .map(|facts| end(facts) <= at_ns && end(facts) < last)
            .collect()
    }

    /// A process's program and arguments, as far as known: the program by its
    /// last part. A fork that was gone before it could be asked has its
    /// parent's.
    pub fn command(&self, process: u32) -> String {
        // Parents come first; a damaged file may say otherwise.
        let mut at = process;
        for _ in 0..self.processes.len() {
            let Some(facts) = self.processes.get(at as usize) else {
                break;
            };
            let process = facts.process;
            if let Some(program) = process.command.first().or(Some(&process.executable))
                && !program.is_empty()
            {
                return words(&process.command, &process.executable);
            }
            match process.parent {
                Some(parent) if !process.exec => at = parent,
                _ => break,
            }
        }
        "unknown program".into()
    }

    /// The program that was recorded, with its arguments.
    pub fn target(&self) -> String {
        match self.session {
            Some(session) if !session.command.is_empty() => words(&session.command, b""),
            _ => self.command(0),
        }
    }
}

/// See [`Model::look`].
#[derive(Clone, Debug)]
pub struct Look {
    span: Span,
    lanes: Vec<LaneState>,
}

/// What sites of a lane had at the ends of a span, and held at the high-water mark.
#[derive(Clone, Debug)]
struct LaneState {
    to: Packed,
    from: Option<Packed>,
    /// Empty where the record of the high-water mark tells them.
    peaks: Vec<(u64, u64)>,
}

/// What the high-water mark's record tells of sites that are asked for rising.
struct Told<'r> {
    rows: std::slice::Iter<'r, (u32, u64, u64)>,
    row: Option<&'r (u32, u64, u64)>,
}

impl<'r> Told<'r> {
    fn new(rows: &'r [(u32, u64, u64)], sites: &[u32]) -> Self {
        let first = sites.first().copied().unwrap_or(0);
        let mut rows = rows[rows.partition_point(|row| row.0 < first)..].iter();
        let row = rows.next();
        Told { rows, row }
    }

    /// Bytes and blocks that it held.
    fn of(&mut self, site: u32) -> (u64, u64) {
        while self.row.is_some_and(|row| row.0 < site) {
            self.row = self.rows.next();
        }
        let row = self.row.filter(|row| row.0 == site);
        row.map_or((0, 0), |row| (row.1, row.2))
    }
}

/// What figures over a span are made with.
struct Looking<'m, 'a> {
    model: &'m Model<'a>,
    span: Span,
    source: HighWaterSource,
    /// Of the high-water mark's record, rising.
    rows: Cow<'a, [(u32, u64, u64)]>,
    ended: Vec<bool>,
    may_lack: bool,
}

impl<'m, 'a> Looking<'m, 'a> {
    fn new(model: &'m Model<'a>, span: &Span) -> Self {
        let high_water = model.high_water();
        let mut rows: Cow<'a, [(u32, u64, u64)]> =
            Cow::Borrowed(model.peak.map_or(&[], |peak| &peak.sites));
        // A recorder writes them so.
        if !rows.is_sorted_by_key(|row| row.0) {
            rows.to_mut().sort_by_key(|row| row.0);
        }
        Looking {
            model,
            span: *span,
            source: high_water.source,
            rows,
            ended: model.ended_processes(span.to().resolved_ns()),
            // A site may lack its last changes: it was given what it held before.
            may_lack: !span.to().exact() && span.to().resolved_ns() >= high_water.at_ns,
        }
    }

    fn state_of(&self, of: (usize, usize)) -> LaneState {
        let model = self.model;
        let ends = || {
            [Some(self.span.to()), self.span.from()]
                .into_iter()
                .flatten()
        };
        let are_asked = self.may_lack || ends().any(At::is_peak);
        let mut peaks = match self.source {
            // The record is looked at again where they are shown.
            HighWaterSource::Record if !are_asked => Vec::new(),
            source => model.peaks_of(of.0, source, &self.rows),
        };
        let mut to = model.state_of(of, self.span.to(), &peaks);
        if self.may_lack {
            for (counters, (bytes, blocks)) in to.iter_mut().zip(&peaks) {
                counters.total_bytes = counters.total_bytes.max(*bytes);
                counters.total_blocks = counters.total_blocks.max(*blocks);
            }
        }
        let to = model.timeline.pack(of.0, &to);
        let from = self.span.from().map(|from| {
            let from = model.state_of(of, from, &peaks);
            model.timeline.pack(of.0, &from)
        });
        if self.source == HighWaterSource::Record {
            peaks = Vec::new();
        }
        LaneState { to, from, peaks }
    }

    fn show(
        &self,
        (lane, process): (usize, usize),
        state: &LaneState,
        each: &mut impl FnMut(u32, &Site, &Figures),
    ) {
        let model = self.model;
        let has_ended = self.ended.get(process).copied().unwrap_or(false);
        let is_sampled = model.is_sampled();
        let sites = model.timeline.sites_of(lane);
        let mut told = Told::new(&self.rows, sites);
        let mut to = model.timeline.unpack(lane, &state.to);
        let from = state.from.as_ref();
        let mut from = from.map(|from| model.timeline.unpack(lane, from));
        for (at, &id) in sites.iter().enumerate() {
            let to = to.at(at);
            let before = from.as_mut().map(|from| from.at(at));
            let peak = match self.source {
                HighWaterSource::Record => told.of(id),
                _ => state.peaks.get(at).copied().unwrap_or_default(),
            };
            let mut figures = Figures::new(&to, before.as_ref(), peak.0, peak.1, has_ended);
            if let Some(site) = model.sites.get(id as usize) {
                if is_sampled {
                    figures.scatter = model.scatter_of(id, site, &figures, &to, before.as_ref());
                }
                each(id, site, &figures);
            }
        }
    }
}

/// A command as a line of text.
fn words(command: &[Vec<u8>], executable: &[u8]) -> String {
    let program = escaped(command.first().map_or(executable, Vec::as_slice));
    let mut text = base_name(&program).to_owned();
    for argument in command.iter().skip(1) {
        text.push(' ');
        text.push_str(&escaped(argument));
    }
    text
}
