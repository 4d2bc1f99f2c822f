//! A process image: from events to its live blocks and counters.
//!
//! # Order
//!
//! Events come merged by stamp over the process's rings. Two stamps on two
//! CPUs may stand some tens of nanoseconds wrong: so a birth where a block
//! still lives waits ([`Image::settle`] bounds how long) for the death from
//! another ring, and a death where nothing lives waits for a birth. After
//! events were lost neither waits: the death was lost, or the birth was.
//!
//! # Whose block
//!
//! Counters of a site are its own process's: births there, and their deaths
//! there. What a forked child inherited stays on its parent's sites; the child
//! keeps its own account of it ([`Inherited`]). In merged figures a block
//! counts for the process that bore it, until that one frees it or ends.

use std::sync::Arc;

use leakline_recording::cohorts::in_pieces;
use leakline_recording::record::{
    self, Bin, Inherited as InheritedRecord, Loss, Mark, Note, Packed, ProcessTotals, Record,
    SiteCohorts,
};
use leakline_wire::event::{BlobKind, Domain, Event, MarkKind};
use leakline_wire::layout::{Slot, mode};
use leakline_wire::sync::Ordering;
use leakline_wire::trie::MAX_NODES;
use leakline_wire::{Kind, event};
use rustc_hash::FxHashMap;

use crate::clock::Clock;
use crate::cohorts::Amount;
use crate::graph::Graph;
use crate::live::{Block, Layer, LiveSet, MAX_SIZE};
use crate::maps::Mappings;
use crate::names::{LocalNames, Names, plain_text};
use crate::ring::{Cursor, Malformed, RingState};
use crate::session::{Pool, SessionMap};
use crate::tally::{Scope, Tally, thread_record};
use crate::weights::{Weighed, Weights};

/// How far two CPUs' stamps may be apart.
const DRIFT_NS: u64 = 1_000;
/// Most births and most deaths that wait for their partner.
const MAX_PARKED: usize = 1024;
/// Most notes that a process may leave in the recording.
const MAX_NOTES: u32 = 20;
/// Most forks whose children have not shown up.
const MAX_FORKS: usize = 512;
/// Names of the instants that are marked in a process.
pub(crate) const MARKS: [&str; 3] = ["python ready", "main left", "exiting"];
/// "Not met yet" among sites.
const UNKNOWN: u32 = u32::MAX;

/// What all processes of the session share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) session: Arc<SessionMap>,
    pub(crate) pool: Pool,
    pub(crate) clock: Clock,
    pub(crate) tally: Tally,
    pub(crate) weights: Weights,
    pub(crate) names: Names,
    /// Records to write, in this order.
    pub(crate) records: Vec<Record>,
    /// See [`record::Session::temporary_window`].
    pub(crate) temporary_window: u32,
    /// [`DRIFT_NS`] in ticks.
    drift: u64,
}

impl Shared {
    pub(crate) fn new(
        session: Arc<SessionMap>,
        pool: Pool,
        clock: Clock,
        temporary_window: u32,
    ) -> Self {
        let drift = clock.ticks(DRIFT_NS);
        Shared {
            session,
            pool,
            clock,
            tally: Tally::default(),
            weights: Weights::default(),
            names: Names::default(),
            records: Vec::new(),
            temporary_window,
            drift,
        }
    }

    /// Whether blocks of this domain are not recorded now, in a session that does
    /// record them at other times. Who told of one may not have known yet.
    fn leaves_out(&self, domain: Domain) -> bool {
        self.session.header().mode.load(Ordering::Relaxed) & mode::no_births(domain) != 0
    }

    /// Marks an instant, up to which all events were handled and no further:
    /// what changed by then is told, in a bin that ends there.
    pub(crate) fn mark(
        &mut self,
        name: &str,
        at_ns: u64,
        process: Option<u32>,
        rss: Vec<(u32, u64)>,
    ) {
        let ticks = &self.tally.ticks;
        let (tick, is_boundary) = (ticks.now, ticks.has_boundary_left());
        let cohorts = self.tally.cohorts(true);
        let points = self.tally.points(true);
        let session = &self.tally.session;
        let (live_bytes, live_blocks) = (session.live_bytes, session.live_blocks);
        let max_bytes = std::mem::replace(&mut self.tally.bin_max, live_bytes);
        self.records.push(Record::Bin(Bin {
            end_ns: at_ns,
            live_bytes,
            live_blocks,
            max_bytes: max_bytes.max(live_bytes),
            rss,
            points,
            complete: true,
        }));
        let cohorts = cohort_records(at_ns, tick, is_boundary, cohorts);
        self.records.extend(cohorts);
        if is_boundary {
            self.tally.ticks.begin_cohort();
        }
        self.records.push(Record::Mark(Mark {
            name: name.to_owned(),
            at_ns,
            process,
        }));
    }
}

/// A birth or death whose partner is still in another ring.
#[derive(Clone, Copy, Debug)]
struct Parked {
    address: u64,
    /// The block born; nothing for a death.
    block: Option<Block>,
    thread: u32,
    stamp: u64,
}

/// Blocks that a child has from its parent, by the parent's sites.
#[derive(Debug)]
struct Inherited {
    /// At the fork: site, bytes, blocks; rising by site.
    at_fork: Arc<[(u32, u64, u64)]>,
    /// Sites of which something died since.
    changed: FxHashMap<u32, Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    blocks: u64,
    /// What was held at the peak before `epoch` of the process's scope.
    saved: (u64, u64),
    epoch: u32,
}

impl Inherited {
    /// The held bytes and blocks of each site, by `pick`.
    fn rows(&self, pick: impl Fn(&Held) -> (u64, u64)) -> Vec<(u32, u64, u64)> {
        self.at_fork
            .iter()
            .map(|row| match self.changed.get(&row.0) {
                Some(held) => {
                    let (bytes, blocks) = pick(held);
                    (row.0, bytes, blocks)
                }
                None => *row,
            })
            .filter(|row| row.2 != 0)
            .collect()
    }
}

/// What a process was when it forked: what its child starts from.
#[derive(Debug)]
pub(crate) struct ForkPoint {
    /// Of the fork.
    pub(crate) sequence: u32,
    /// When, as a stamp.
    pub(crate) stamp: u64,
    base: Option<Arc<Layer>>,
    mappings: Mappings,
    live_bytes: u64,
    live_blocks: u64,
    held: Arc<[(u32, u64, u64)]>,
}

impl ForkPoint {
    /// The blocks themselves: those of allocators, and mappings.
    pub(crate) fn blocks(&self) -> (Option<Arc<Layer>>, Mappings) {
        (self.base.clone(), self.mappings.clone())
    }

    /// Live blocks and bytes at the fork.
    pub(crate) fn live(&self) -> (u64, u64) {
        (self.live_blocks, self.live_bytes)
    }
}

/// A process's live blocks at an instant.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) process: u32,
    pub(crate) at_ns: u64,
    /// What the instant is called.
    pub(crate) name: String,
    pub(crate) live_bytes: u64,
    pub(crate) live_blocks: u64,
    pub(crate) live: Option<Arc<Layer>>,
    pub(crate) mappings: Mappings,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Image {
    /// Id of the process.
    pub(crate) process: u32,
    slot: u32,
    live: LiveSet,
    mappings: Mappings,
    pub(crate) names: LocalNames,
    /// Sites by domain, then by the process's stack id.
    sites: [Vec<u32>; 5],
    /// Sites of this process, rising.
    pub(crate) own_sites: Vec<u32>,
    pub(crate) scope: Scope,
    pub(crate) totals: ProcessTotals,
    /// What was live when it came to its end, until somebody asks.
    left: Option<Frozen>,
    has_left: bool,
    inherited: Option<Inherited>,
    inherited_changed: bool,
    parked: Vec<Parked>,
    /// Events were lost, the last ones in this tick: see "Order".
    lossy_since: Option<u32>,
    /// Sum of the loss marks.
    pub(crate) lost_marks: u64,
    threads: FxHashMap<(u32, [u8; 16]), u32>,
    pub(crate) forks: Vec<ForkPoint>,
    notes: u32,
    /// Of a child that tells of its parent's heap: nothing else of it counts.
    pub(crate) graph: Option<Graph>,
}

/// Where a run over a ring's events stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At an event with this stamp.
    At(u64),
    /// At the end of what was published.
    End,
}

impl Image {
    /// A process image that starts from nothing.
    pub(crate) fn new(process: u32, slot: u32, names: LocalNames) -> Self {
        Image {
            process,
            slot,
            live: LiveSet::default(),
            mappings: Mappings::default(),
            names,
            sites: Default::default(),
            own_sites: Vec::new(),
            scope: Scope::default(),
            totals: ProcessTotals {
                process,
                ..ProcessTotals::default()
            },
            left: None,
            has_left: false,
            inherited: None,
            inherited_changed: false,
            parked: Vec::new(),
            lossy_since: None,
            lost_marks: 0,
            threads: FxHashMap::default(),
            forks: Vec::new(),
            notes: 0,
            graph: None,
        }
    }

    /// Makes it the image of a child that tells of its parent's heap, as that was at a fork.
    pub(crate) fn take_graph(&mut self, fork: Option<&ForkPoint>, graph: Graph) {
        self.live = LiveSet::forked(fork.and_then(|fork| fork.base.clone()));
        self.graph = Some(graph);
    }

    /// Gives a forked child what its parent had.
    pub(crate) fn inherit(&mut self, fork: &ForkPoint, names: LocalNames) {
        self.live = LiveSet::forked(fork.base.clone());
        self.mappings = fork.mappings.clone();
        self.names = names;
        self.scope
            .shift(fork.live_bytes, fork.live_blocks, fork.stamp);
        self.inherited = Some(Inherited {
            at_fork: fork.held.clone(),
            changed: FxHashMap::default(),
        });
        self.inherited_changed = true;
    }

    /// The blocks that a child of a fork now would inherit.
    fn fork_point(&mut self, shared: &Shared, sequence: u32, stamp: u64) -> ForkPoint {
        let mut held = self.inherited.as_ref().map_or_else(Vec::new, |inherited| {
            inherited.rows(|held| (held.bytes, held.blocks))
        });
        held.extend(shared.tally.live_by_site(&self.own_sites));
        held.sort_unstable();
        ForkPoint {
            sequence,
            stamp,
            base: self.live.freeze(),
            mappings: self.mappings.clone(),
            live_bytes: self.scope.live_bytes,
            live_blocks: self.scope.live_blocks,
            held: held.into(),
        }
    }

    /// What is live now, by the name of the instant.
    pub(crate) fn freeze_blocks(&mut self, name: &str, at_ns: u64) -> Frozen {
        Frozen {
            process: self.process,
            at_ns,
            name: name.to_owned(),
            live_bytes: self.scope.live_bytes,
            live_blocks: self.scope.live_blocks,
            live: self.live.freeze(),
            mappings: self.mappings.clone(),
        }
    }

    /// What was live when the process came to its end: once, if it has.
    pub(crate) fn take_left(&mut self) -> Option<Frozen> {
        self.left.take()
    }

    /// Takes what a fork left for its child.
    pub(crate) fn take_fork(
        &mut self,
        shared: &Shared,
        sequence: u32,
        now: u64,
    ) -> Option<ForkPoint> {
        if sequence == 0 {
            // A raw clone: nothing marks its instant. Now is near.
            return Some(self.fork_point(shared, 0, now));
        }
        let at = self
            .forks
            .iter()
            .position(|fork| fork.sequence == sequence)?;
        Some(self.forks.remove(at))
    }

    /// Forgets forks from before a stamp, and takes back what nobody shares.
    pub(crate) fn expire_forks(&mut self, before: u64) {
        self.forks.retain(|fork| fork.stamp >= before);
        self.live.unshare();
    }

    /// Bytes that the live table takes.
    pub(crate) fn table_bytes(&self) -> usize {
        self.live.bytes()
    }

    /// Gives up the tables of an ended process; its counters and forks stay.
    pub(crate) fn forget_blocks(&mut self) {
        self.live = LiveSet::default();
        self.left = None;
        self.mappings = Mappings::default();
        self.sites = Default::default();
        self.inherited = None;
    }

    /// Whether events of it were lost.
    pub(crate) fn has_losses(&self) -> bool {
        self.lossy_since.is_some()
    }

    /// Blocks born before events were lost: they may have died unseen.
    pub(crate) fn unverified_blocks(&self, weights: &Weights) -> u64 {
        let count = |block: &Block| weights.weigh(block).amount.blocks;
        self.lossy_since
            .map_or(0, |since| self.live.born_before(since, count))
    }

    /// Handles the events of a ring that are stamped before `until`.
    pub(crate) fn run(
        &mut self,
        shared: &mut Shared,
        cursor: &mut Cursor,
        ring: &mut RingState,
        until: u64,
    ) -> Result<Stop, Malformed> {
        const ALLOC: u64 = Kind::Alloc as u64;
        const FREE: u64 = Kind::Free as u64;
        if self.graph.is_some() {
            return self.run_graph(shared, cursor, ring, until);
        }
        let look_ahead = self.live.is_large();
        loop {
            if cursor.is_empty() && !cursor.refill(&shared.session, &mut shared.pool)? {
                return Ok(Stop::End);
            }
            if look_ahead {
                cursor.look_ahead(|address| self.live.prefetch(address));
            }
            // The two kinds that are nearly all of what comes, decoded here;
            // everything else goes through `event::decode`.
            let length = match *cursor.words() {
                [head, stamp, rest, ..] if head >> 56 == ALLOC => {
                    if stamp >= until {
                        return Ok(Stop::At(stamp));
                    }
                    let domain = Domain::of((head >> 48) as u8).ok_or(Malformed)?;
                    let address = head & event::VALUE_MASK;
                    self.alloc(
                        shared,
                        ring,
                        address,
                        domain,
                        rest >> 32,
                        rest as u32,
                        stamp,
                    );
                    Kind::Alloc.words()
                }
                [head, stamp, ..] if head >> 56 == FREE => {
                    if stamp >= until {
                        return Ok(Stop::At(stamp));
                    }
                    self.free(shared, ring, head & event::VALUE_MASK, stamp);
                    Kind::Free.words()
                }
                _ => {
                    let (stamp, event, length) =
                        event::decode(cursor.words()).map_err(|_| Malformed)?;
                    if stamp >= until {
                        return Ok(Stop::At(stamp));
                    }
                    self.handle(shared, ring, &event, stamp)?;
                    length
                }
            };
            self.totals.events += 1;
            cursor.advance(length);
        }
    }

    /// As [`Image::run`], of a child that tells of its parent's heap: whatever else it
    /// writes is no process's, and counts for nothing.
    fn run_graph(
        &mut self,
        shared: &mut Shared,
        cursor: &mut Cursor,
        ring: &mut RingState,
        until: u64,
    ) -> Result<Stop, Malformed> {
        loop {
            if cursor.is_empty() && !cursor.refill(&shared.session, &mut shared.pool)? {
                return Ok(Stop::End);
            }
            let (stamp, event, length) = event::decode(cursor.words()).map_err(|_| Malformed)?;
            if stamp >= until {
                return Ok(Stop::At(stamp));
            }
            let Some(graph) = &mut self.graph else {
                return Err(Malformed);
            };
            if let Event::Loss { .. } = event {
                graph.has_losses = true;
            }
            if matches!(event, Event::Blob { .. })
                && let Some((kind, _, bytes)) = ring.assemble(&event)?
                && kind == BlobKind::Graph as u8
            {
                self.graph_part(shared, &bytes);
            }
            cursor.advance(length);
        }
    }

    #[inline(never)]
    fn handle(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        event: &Event<'_>,
        stamp: u64,
    ) -> Result<(), Malformed> {
        match *event {
            Event::Alloc {
                address,
                domain,
                size,
                stack,
            } => {
                self.alloc(shared, ring, address, domain, size, stack, stamp);
            }
            Event::Free { address, .. } => self.free(shared, ring, address, stamp),
            Event::ReallocStart { address } => self.realloc_start(shared, ring, address, stamp),
            Event::ReallocEnd {
                address,
                domain,
                size,
                stack,
            } => {
                self.realloc_end(shared, ring, address, domain, size, stack, stamp);
            }
            Event::ReallocFail { address } => self.realloc_fail(ring, address),
            Event::Map {
                address,
                length,
                stack,
            } => {
                self.cut(shared, address, length, stamp, u64::MAX);
                self.map(shared, ring, address, length, stack, stamp);
            }
            Event::Unmap { address, length } => {
                self.cut(shared, address, length, stamp, u64::MAX);
            }
            Event::Remap {
                address,
                length,
                stack,
                old_address,
                old_length,
                began,
            } => {
                self.remap(
                    shared,
                    ring,
                    (address, length),
                    stack,
                    (old_address, old_length),
                    (began, stamp),
                );
            }
            Event::Thread { tid, name } => self.thread(shared, ring, tid, name, stamp),
            Event::Loss { events } => self.loss(shared, events, stamp),
            Event::Blob { .. } => {
                if let Some((kind, id, bytes)) = ring.assemble(event)? {
                    self.define(shared, kind, id, &bytes, stamp);
                }
            }
            // Children that are not followed start from nothing.
            Event::Fork {
                is_for_graph: false,
                ..
            } if shared.session.header().mode.load(Ordering::Relaxed) & mode::FOLLOW == 0 => {}
            Event::Fork { sequence, .. } => {
                if self.forks.len() >= MAX_FORKS {
                    self.forks.remove(0);
                }
                let fork = self.fork_point(shared, sequence, stamp);
                self.forks.push(fork);
            }
            Event::Mark { kind } => self.mark_kind(shared, kind, stamp),
            Event::Reborn { address, stack } => self.reborn(shared, ring, address, stack, stamp),
            Event::Sample {
                address,
                domain,
                size,
                stack,
                mean,
            } => {
                let weights = &mut shared.weights;
                let Some(size) = weights.encode(size, mean, address, stamp) else {
                    self.totals.malformed_events += 1;
                    return Ok(());
                };
                self.alloc(shared, ring, address, domain, size, stack, stamp);
            }
            Event::SampleFree {
                address,
                is_unsure: true,
                ..
            } => {
                ring.forget(address);
                self.free_unsure(shared, ring, address, stamp);
            }
            Event::SampleFree {
                address,
                is_temporary,
                ..
            } => {
                // Whether the thread allocated since, it knows itself.
                if !is_temporary {
                    ring.forget(address);
                }
                self.free(shared, ring, address, stamp);
            }
            Event::ReallocGone { address, is_unsure } => {
                self.realloc_gone(shared, ring, address, is_unsure, stamp);
            }
        }
        Ok(())
    }

    #[inline]
    fn site(&mut self, shared: &mut Shared, domain: Domain, stack: u32) -> u32 {
        match self.sites[domain as usize].get(stack as usize) {
            Some(site) if *site != UNKNOWN => *site,
            _ => self.new_site(shared, domain, stack),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_site(&mut self, shared: &mut Shared, domain: Domain, stack: u32) -> u32 {
        let session = shared.session.clone();
        let Some(slot) = session.slot(self.slot) else {
            return UNKNOWN;
        };
        let is_readable =
            stack == 0 || (stack as usize) < MAX_NODES && session.node(slot, stack).is_some();
        if !is_readable {
            self.totals.malformed_events += 1;
        }
        let node = shared.names.stack(&session, slot, &mut self.names, stack);
        shared.names.hand_over(&mut shared.records);
        let site = match shared.tally.site(self.process, node, domain as u8) {
            Ok(site) => site,
            Err(site) => {
                shared.records.push(Record::Site(record::Site {
                    process: self.process,
                    node,
                    domain: recorded(domain),
                }));
                self.own_sites.push(site);
                site
            }
        };
        if is_readable {
            let sites = &mut self.sites[domain as usize];
            if sites.len() <= stack as usize {
                sites.resize(stack as usize + 1, UNKNOWN);
            }
            sites[stack as usize] = site;
        }
        site
    }

    #[inline]
    #[expect(
        clippy::too_many_arguments,
        reason = "an event's fields, on the hot path"
    )]
    fn alloc(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        address: u64,
        domain: Domain,
        size: u64,
        stack: u32,
        stamp: u64,
    ) {
        if address == 0 {
            self.totals.malformed_events += 1;
            return;
        }
        let block = Block {
            size: size.min(MAX_SIZE),
            site: self.site(shared, domain, stack),
            thread: ring.thread,
            birth: shared.tally.ticks.now,
        };
        ring.remember(address);
        if !self.parked.is_empty() && self.meets_parked_death(shared, address, &block, stamp) {
            return;
        }
        match self.live.insert(address, block) {
            Ok(()) => self.count_birth(shared, &block, stamp),
            Err(_) => self.birth_at_live(shared, address, block, stamp),
        }
    }

    #[inline]
    fn count_birth(&mut self, shared: &mut Shared, block: &Block, stamp: u64) {
        if Weights::is_sample(block) {
            return self.count_sample(shared, block, stamp);
        }
        self.count_birth_of(shared, block, Weighed::itself(block.size), stamp);
    }

    #[cold]
    #[inline(never)]
    fn count_sample(&mut self, shared: &mut Shared, block: &Block, stamp: u64) {
        let weighed = shared.weights.weigh_birth(block);
        self.count_birth_of(shared, block, weighed, stamp);
    }

    // Always: where a block stands for itself, most of it is constant.
    #[expect(clippy::inline_always, reason = "an event's hot path, 5 % of it")]
    #[inline(always)]
    fn count_birth_of(&mut self, shared: &mut Shared, block: &Block, weighed: Weighed, stamp: u64) {
        let Amount { blocks, bytes } = weighed.amount;
        self.totals.allocations = self.totals.allocations.wrapping_add(blocks);
        self.totals.allocated_bytes = self.totals.allocated_bytes.wrapping_add(bytes);
        shared.tally.born(&mut self.scope, block, weighed, stamp);
    }

    #[inline]
    fn count_death(&mut self, shared: &mut Shared, block: &Block, is_temporary: bool, stamp: u64) {
        if Weights::is_sample(block) {
            return self.count_sample_death(shared, block, is_temporary, stamp);
        }
        let weighed = Weighed::itself(block.size);
        self.count_death_of(shared, block, weighed, is_temporary, stamp);
    }

    #[cold]
    #[inline(never)]
    fn count_sample_death(
        &mut self,
        shared: &mut Shared,
        block: &Block,
        is_temporary: bool,
        stamp: u64,
    ) {
        let weighed = if shared.tally.process_of(block.site) == self.process {
            shared.weights.weigh_death(block)
        } else {
            shared.weights.weigh(block)
        };
        self.count_death_of(shared, block, weighed, is_temporary, stamp);
    }

    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn count_death_of(
        &mut self,
        shared: &mut Shared,
        block: &Block,
        weighed: Weighed,
        is_temporary: bool,
        stamp: u64,
    ) {
        let Amount { blocks, bytes } = weighed.amount;
        self.totals.frees = self.totals.frees.wrapping_add(blocks);
        if shared.tally.process_of(block.site) == self.process {
            let temporary = if is_temporary { blocks } else { 0 };
            self.totals.temporary_blocks = self.totals.temporary_blocks.wrapping_add(temporary);
            shared
                .tally
                .died(&mut self.scope, block, weighed, is_temporary, stamp);
        } else {
            self.inherited_shift(block, bytes.wrapping_neg(), blocks.wrapping_neg(), stamp);
        }
    }

    /// Moves an inherited block's account by so many bytes and blocks.
    fn inherited_shift(&mut self, block: &Block, bytes: u64, blocks: u64, stamp: u64) {
        let below = self.scope.shift(bytes, blocks, stamp);
        let Some(inherited) = &mut self.inherited else {
            return;
        };
        let at_fork = &inherited.at_fork;
        let held = inherited.changed.entry(block.site).or_insert_with(|| {
            let at = at_fork.binary_search_by_key(&block.site, |row| row.0);
            let (bytes, blocks) = at.map_or((0, 0), |at| (at_fork[at].1, at_fork[at].2));
            Held {
                bytes,
                blocks,
                saved: (0, 0),
                epoch: 0,
            }
        });
        if below && held.epoch != self.scope.epoch {
            held.epoch = self.scope.epoch;
            held.saved = (held.bytes, held.blocks);
        }
        held.bytes = held.bytes.wrapping_add(bytes);
        held.blocks = held.blocks.wrapping_add(blocks);
        self.inherited_changed = true;
    }

    /// An object was made of a block that lay in a free list: what was there
    /// died, whenever that was, and the new one is born.
    fn reborn(
        &mut self,
        shared: &mut Shared,
        ring: &RingState,
        address: u64,
        stack: u32,
        stamp: u64,
    ) {
        // Objects that no allocator gave (static ones) are told of as well,
        // and those of types with an allocator of their own, whose blocks have
        // just been born elsewhere: free lists hold blocks of the object domain.
        let Some(old) = self.live.remove(address) else {
            return;
        };
        if shared.tally.domain_of(old.site) != Some(Domain::Obj as u8) {
            let _ = self.live.insert(address, old);
            return;
        }
        self.count_death(shared, &old, false, stamp);
        let block = Block {
            size: old.size,
            site: self.site(shared, Domain::Obj, stack),
            thread: ring.thread,
            birth: shared.tally.ticks.now,
        };
        if self.live.insert(address, block).is_ok() {
            self.count_birth(shared, &block, stamp);
        }
    }

    #[inline]
    fn free(&mut self, shared: &mut Shared, ring: &mut RingState, address: u64, stamp: u64) {
        if !self.parked.is_empty() && self.meets_parked_birth(shared, ring, address, stamp) {
            return;
        }
        match self.live.remove(address) {
            Some(block) => {
                let is_temporary = ring.is_temporary(address, &block);
                self.count_death(shared, &block, is_temporary, stamp);
            }
            None => self.death_of_unknown(ring, address, stamp),
        }
    }

    /// As [`Image::free`], where the block may be none that was ever recorded.
    fn free_unsure(&mut self, shared: &mut Shared, ring: &mut RingState, address: u64, stamp: u64) {
        if !self.parked.is_empty() && self.meets_parked_birth(shared, ring, address, stamp) {
            return;
        }
        if let Some(block) = self.live.remove(address) {
            self.count_death(shared, &block, false, stamp);
        }
    }

    /// A birth where a block lives: its death is still to come from another
    /// ring, or was lost.
    #[cold]
    fn birth_at_live(&mut self, shared: &mut Shared, address: u64, block: Block, stamp: u64) {
        let waits = self.lossy_since.is_none() && self.parked.len() < MAX_PARKED;
        let parked = Parked {
            address,
            block: Some(block),
            thread: block.thread,
            stamp,
        };
        let earlier = self
            .parked
            .iter()
            .position(|parked| parked.address == address && parked.block.is_some())
            .map(|at| self.parked.swap_remove(at));
        if let Some(earlier) = earlier {
            self.imply_death(shared, earlier);
        }
        if waits {
            self.parked.push(parked);
        } else {
            self.imply_death(shared, parked);
        }
    }

    /// Ends the wait of a birth: what lived there died unseen.
    fn imply_death(&mut self, shared: &mut Shared, parked: Parked) {
        let Some(block) = parked.block else { return };
        if let Some(old) = self.live.remove(parked.address) {
            self.totals.implied_frees += 1;
            self.count_death(shared, &old, false, parked.stamp);
        }
        let block = born_now(shared, block);
        if self.live.insert(parked.address, block).is_ok() {
            self.count_birth(shared, &block, parked.stamp);
        }
    }

    #[cold]
    fn death_of_unknown(&mut self, ring: &RingState, address: u64, stamp: u64) {
        if self.lossy_since.is_some() || self.parked.len() >= MAX_PARKED {
            self.totals.unknown_frees += 1;
        } else {
            self.parked.push(Parked {
                address,
                block: None,
                thread: ring.thread,
                stamp,
            });
        }
    }

    /// A birth at an address whose death waits: the two belong together if
    /// they come from two threads at nearly the same time.
    #[cold]
    fn meets_parked_death(
        &mut self,
        shared: &mut Shared,
        address: u64,
        block: &Block,
        stamp: u64,
    ) -> bool {
        let Some(at) = self
            .parked
            .iter()
            .position(|parked| parked.address == address && parked.block.is_none())
        else {
            return false;
        };
        let death = self.parked.swap_remove(at);
        let near = stamp.saturating_sub(death.stamp) <= shared.drift;
        if near && death.thread != block.thread {
            self.count_birth(shared, block, death.stamp);
            self.count_death(shared, block, false, death.stamp);
            return true;
        }
        self.totals.unknown_frees += 1;
        false
    }

    /// A death at an address where a birth waits: it is the old block's, and
    /// the new one's birth follows, if they come from two threads at nearly
    /// the same time; else the old one's death was missed.
    #[cold]
    fn meets_parked_birth(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        address: u64,
        stamp: u64,
    ) -> bool {
        let Some(at) = self
            .parked
            .iter()
            .position(|parked| parked.address == address && parked.block.is_some())
        else {
            return false;
        };
        let birth = self.parked.swap_remove(at);
        let near = stamp.saturating_sub(birth.stamp) <= shared.drift;
        if !near || birth.thread == ring.thread {
            self.imply_death(shared, birth);
            return false;
        }
        if let Some(old) = self.live.remove(address) {
            let is_temporary = ring.is_temporary(address, &old);
            self.count_death(shared, &old, is_temporary, stamp);
        }
        if let Some(block) = birth.block.map(|block| born_now(shared, block))
            && self.live.insert(address, block).is_ok()
        {
            self.count_birth(shared, &block, stamp);
        }
        true
    }

    /// Ends the waits of births and deaths whose partner cannot come any more
    /// once all events before `limit` were seen.
    pub(crate) fn settle(&mut self, shared: &mut Shared, limit: u64) {
        let mut at = 0;
        while let Some(parked) = self.parked.get(at).copied() {
            if parked.stamp.saturating_add(shared.drift) >= limit {
                at += 1;
                continue;
            }
            self.parked.swap_remove(at);
            if parked.block.is_some() {
                self.imply_death(shared, parked);
            } else {
                self.totals.unknown_frees += 1;
            }
        }
    }

    fn realloc_start(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        address: u64,
        stamp: u64,
    ) {
        // One that never ended (a longjmp out of it): the block's fate is not
        // known, so it stays as it was.
        if let Some((old, Some(block))) = ring.realloc.take() {
            let _ = self.live.insert(old, block);
        }
        if !self.parked.is_empty() {
            let waiting = self
                .parked
                .iter()
                .position(|parked| parked.address == address && parked.block.is_some())
                .map(|at| self.parked.swap_remove(at));
            if let Some(birth) = waiting {
                self.imply_death(shared, Parked { stamp, ..birth });
            }
        }
        ring.realloc = Some((address, self.live.remove(address)));
    }

    #[expect(clippy::too_many_arguments, reason = "an event's fields")]
    fn realloc_end(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        address: u64,
        domain: Domain,
        size: u64,
        stack: u32,
        stamp: u64,
    ) {
        let size = size.min(MAX_SIZE);
        match ring.realloc.take() {
            // A sampled block is one of all from now on: another one.
            Some((old, Some(block)))
                if old == address
                    && !Weights::is_sample(&block)
                    && shared.tally.process_of(block.site) == self.process =>
            {
                let resized = Block { size, ..block };
                self.totals.allocations += 1;
                self.totals.resizes += 1;
                let growth = size.saturating_sub(block.size);
                self.totals.allocated_bytes = self.totals.allocated_bytes.wrapping_add(growth);
                shared.tally.resized(&mut self.scope, &block, size, stamp);
                if self.live.insert(address, resized).is_err() {
                    // Somebody was born there meanwhile: only nonsense does.
                    self.totals.implied_frees += 1;
                    self.count_death(shared, &resized, false, stamp);
                }
                return;
            }
            // Moved; or an inherited block that was resized, which makes it
            // this process's own.
            Some((old, Some(block))) => {
                let is_temporary = ring.is_temporary(old, &block);
                self.count_death(shared, &block, is_temporary, stamp);
            }
            Some((_, None)) => {
                self.totals.unknown_frees += 1;
                if shared.leaves_out(domain) {
                    return;
                }
            }
            None => {}
        }
        self.alloc(shared, ring, address, domain, size, stack, stamp);
    }

    /// A sampled block was reallocated. In place or not: what comes of it is
    /// sampled anew, by its size.
    fn realloc_gone(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        address: u64,
        is_unsure: bool,
        stamp: u64,
    ) {
        match ring.realloc.take() {
            Some((old, Some(block))) => {
                if old != address {
                    self.totals.malformed_events += 1;
                }
                self.count_death(shared, &block, false, stamp);
            }
            Some((_, None)) if !is_unsure => self.totals.unknown_frees += 1,
            _ => {}
        }
    }

    fn realloc_fail(&mut self, ring: &mut RingState, address: u64) {
        if let Some((old, Some(block))) = ring.realloc.take() {
            if old != address {
                self.totals.malformed_events += 1;
            }
            let _ = self.live.insert(old, block);
        }
    }

    fn map(
        &mut self,
        shared: &mut Shared,
        ring: &RingState,
        address: u64,
        length: u64,
        stack: u32,
        stamp: u64,
    ) {
        let block = Block {
            size: length.min(MAX_SIZE),
            site: self.site(shared, Domain::Map, stack),
            thread: ring.thread,
            birth: shared.tally.ticks.now,
        };
        self.mappings.map(address, block, stamp);
        self.count_birth_of(shared, &block, Weighed::itself(block.size), stamp);
    }

    /// Takes a range out of the mappings, but for what was mapped after `until`.
    fn cut(&mut self, shared: &mut Shared, address: u64, length: u64, stamp: u64, until: u64) {
        for cut in self.mappings.unmap(address, length, until) {
            let block = cut.block;
            if cut.left == 0 {
                let weighed = Weighed::itself(block.size);
                self.count_death_of(shared, &block, weighed, false, stamp);
                continue;
            }
            let (bytes, blocks) = (cut.bytes.wrapping_neg(), cut.left - 1);
            if shared.tally.process_of(block.site) == self.process {
                shared
                    .tally
                    .reshaped(&mut self.scope, &block, bytes, blocks, stamp);
            } else {
                self.inherited_shift(&block, bytes, blocks, stamp);
            }
        }
    }

    fn remap(
        &mut self,
        shared: &mut Shared,
        ring: &RingState,
        (address, length): (u64, u64),
        stack: u32,
        (old_address, old_length): (u64, u64),
        (began, stamp): (u64, u64),
    ) {
        let length = length.min(MAX_SIZE);
        if address == old_address
            && let Some(block) = self.mappings.exact(old_address, old_length)
            && shared.tally.process_of(block.site) == self.process
        {
            if length > old_length {
                // What lies in the way is gone, whether we saw it go or not.
                let (end, growth) = (address + old_length, length - old_length);
                self.cut(shared, end, growth, stamp, u64::MAX);
            }
            self.totals.allocations += 1;
            self.totals.resizes += 1;
            let growth = length.saturating_sub(block.size);
            self.totals.allocated_bytes = self.totals.allocated_bytes.wrapping_add(growth);
            shared.tally.resized(&mut self.scope, &block, length, stamp);
            self.mappings.resize(address, length);
            return;
        }
        let is_known = self.mappings.exact(old_address, old_length).is_some();
        // Before this event was stamped another thread may have mapped, and
        // told of it, what the call had left: not before it began.
        self.cut(shared, old_address, old_length, stamp, began);
        self.cut(shared, address, length, stamp, u64::MAX);
        if !is_known && shared.leaves_out(Domain::Map) {
            return;
        }
        self.map(shared, ring, address, length, stack, stamp);
    }

    fn thread(
        &mut self,
        shared: &mut Shared,
        ring: &mut RingState,
        tid: u32,
        name: [u8; 16],
        stamp: u64,
    ) {
        let process = self.process;
        ring.thread = *self.threads.entry((tid, name)).or_insert_with(|| {
            let at_ns = shared.clock.ns(stamp);
            shared
                .records
                .push(thread_record(process, tid, &name, at_ns));
            shared.tally.add_thread()
        });
    }

    fn loss(&mut self, shared: &mut Shared, events: u64, stamp: u64) {
        let at_ns = shared.clock.ns(stamp);
        self.lossy_since = Some(shared.tally.ticks.now);
        self.lost_marks = self.lost_marks.saturating_add(events);
        shared.records.push(Record::Loss(Loss {
            process: self.process,
            at_ns,
            events,
        }));
    }

    fn define(&mut self, shared: &mut Shared, kind: u8, id: u32, bytes: &[u8], stamp: u64) {
        const MODULE: u8 = BlobKind::Module as u8;
        const CODE: u8 = BlobKind::Code as u8;
        const NOTE: u8 = BlobKind::Note as u8;
        const MARK: u8 = BlobKind::Mark as u8;
        let is_understood = match kind {
            MODULE => shared.names.define_module(&mut self.names, id, bytes),
            CODE => shared.names.define_code(&mut self.names, id, bytes),
            NOTE => {
                self.notes += 1;
                if self.notes <= MAX_NOTES {
                    let at_ns = shared.clock.ns(stamp);
                    let text = plain_text(bytes);
                    shared.records.push(Record::Note(Note { at_ns, text }));
                }
                true
            }
            MARK => {
                self.mark(shared, &plain_text(bytes), stamp);
                true
            }
            _ => false,
        };
        shared.names.hand_over(&mut shared.records);
        if !is_understood {
            self.totals.malformed_events += 1;
        }
    }

    /// Writes a part of a graph down, with the sites of what it tells of.
    fn graph_part(&mut self, shared: &mut Shared, bytes: &[u8]) {
        let Some(graph) = self.graph.as_mut().filter(|graph| !graph.is_dropped) else {
            return;
        };
        let (live, tally) = (&self.live, &shared.tally);
        let part = graph.part(bytes, |address| {
            let block = live.get(address)?;
            Some((block, tally.domain_of(block.site)?))
        });
        shared.records.extend(part.map(Record::HeapPart));
    }

    /// The same of a graph of this process that was read from outside.
    pub(crate) fn outside_part(&self, shared: &mut Shared, graph: &mut Graph, bytes: &[u8]) {
        let (live, tally) = (&self.live, &shared.tally);
        let part = graph.part(bytes, |address| {
            let block = live.get(address)?;
            Some((block, tally.domain_of(block.site)?))
        });
        shared.records.extend(part.map(Record::HeapPart));
    }

    fn mark_kind(&mut self, shared: &mut Shared, kind: u8, stamp: u64) {
        const READY: u8 = MarkKind::PythonReady as u8;
        const LEFT: u8 = MarkKind::MainLeft as u8;
        const EXITING: u8 = MarkKind::Exiting as u8;
        let [ready, left, exiting] = MARKS;
        let name = match kind {
            READY => ready,
            LEFT => left,
            EXITING => exiting,
            _ => {
                self.totals.malformed_events += 1;
                return;
            }
        };
        self.mark(shared, name, stamp);
        // A program that is not Python's has the second only.
        if kind != READY && !std::mem::replace(&mut self.has_left, true) {
            self.left = Some(self.freeze_blocks("end", shared.clock.ns(stamp)));
        }
    }

    /// Puts a named instant into the recording.
    fn mark(&self, shared: &mut Shared, name: &str, stamp: u64) {
        let at_ns = shared.clock.ns(stamp);
        shared.mark(name, at_ns, Some(self.process), Vec::new());
    }

    /// The process's totals, with what it counts itself in its slot.
    pub(crate) fn current_totals(&self, slot: Option<&Slot>) -> ProcessTotals {
        let relaxed = Ordering::Relaxed;
        let mut totals = ProcessTotals {
            live_blocks: self.scope.live_blocks,
            live_bytes: self.scope.live_bytes,
            peak_bytes: self.scope.peak_bytes,
            ..self.totals
        };
        if let Some(slot) = slot {
            let nested = slot.lost_nested.load(relaxed);
            totals.lost_events = slot.lost_events.load(relaxed).saturating_add(nested);
            totals.lost_bytes = slot.lost_bytes.load(relaxed);
            totals.stalled_ns = slot.stalled_ns.load(relaxed);
            totals.truncated_stacks = slot.truncated_stacks.load(relaxed);
            totals.broken_unwinds = slot.broken_unwinds.load(relaxed);
        }
        totals.lost_events = totals.lost_events.max(self.lost_marks);
        totals
    }

    /// Sites live at the process's peak, what it inherited among them.
    pub(crate) fn peak_sites(&self, tally: &Tally) -> Vec<(u32, u64, u64)> {
        let mut sites = tally.process_peak(&self.own_sites, &self.scope);
        if let Some(inherited) = &self.inherited {
            let (below, epoch) = (self.scope.below, self.scope.epoch);
            sites.extend(inherited.rows(|held| {
                if below && held.epoch == epoch {
                    held.saved
                } else {
                    (held.bytes, held.blocks)
                }
            }));
            sites.sort_unstable();
        }
        sites
    }

    /// What is left of what the process inherited, if that changed since it
    /// was last asked for.
    pub(crate) fn changed_inherited(&mut self) -> Option<Record> {
        let inherited = self.inherited.as_ref()?;
        std::mem::take(&mut self.inherited_changed).then(|| {
            Record::Inherited(InheritedRecord {
                process: self.process,
                sites: inherited.rows(|held| (held.bytes, held.blocks)),
            })
        })
    }
}

/// The records of what became of cohorts by an instant; one at least.
pub(crate) fn cohort_records(
    at_ns: u64,
    tick: u32,
    is_boundary: bool,
    sites: Vec<SiteCohorts>,
) -> Vec<Record> {
    let mut pieces = in_pieces(sites);
    if pieces.is_empty() {
        pieces.push(Vec::new());
    }
    let last = pieces.len().saturating_sub(1);
    let record = |(at, sites): (usize, Vec<SiteCohorts>)| {
        Record::Cohorts(record::Cohorts {
            at_ns,
            tick,
            is_boundary: is_boundary && at == last,
            sites: Packed::new(&sites),
        })
    };
    pieces.into_iter().enumerate().map(record).collect()
}

/// A block whose birth is counted only now: it belongs to what is.
fn born_now(shared: &Shared, block: Block) -> Block {
    Block {
        birth: shared.tally.ticks.now,
        ..block
    }
}

fn recorded(domain: Domain) -> record::Domain {
    match domain {
        Domain::Native => record::Domain::Native,
        Domain::Raw => record::Domain::Raw,
        Domain::Mem => record::Domain::Mem,
        Domain::Obj => record::Domain::Obj,
        Domain::Map => record::Domain::Mmap,
    }
}
