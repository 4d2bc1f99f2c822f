//! Survivors: of the blocks that were born in a span of time, how many are
//! alive at which instant.
//!
//! The recorder counts, for each site, births and deaths by *cohort*: the
//! blocks of one span of birth. A [`History`] is what became of a site's, or
//! of several sites' together.
//!
//! # Invariants
//!
//! * Cohorts rise, do not overlap, and cover the recording from its start to
//!   the last instant; those in which nothing was born are there too.
//! * In exact mode all counts are exact: a block is in the cohort it was born
//!   in, whatever became of it. A block that was resized in place stays in its
//!   cohort, and its growth counts as bytes born there.
//! * `alive` never counts what was born after the instant: such cohorts hold 0.

use std::collections::BTreeMap;

use leakline_recording::cohorts::{INSTANTS, Sum, TICK_NS, cohort_end, cohort_of, instants_every};
use leakline_recording::record::{CohortChange, Cohorts, Counters};

use crate::model::Model;
use crate::timeline::{apply, take};

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A span of birth: after `from_ns`, up to and with `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// Where it begins, nanoseconds since the start.
    pub from_ns: u64,
    /// Where it ends.
    pub to_ns: u64,
}

/// What became of the blocks of a site, by when they were born.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The instants at which counts are known, nanoseconds since the start,
    /// rising: marks, the last one, and some 64 in between, evenly spread.
    pub instants: Vec<u64>,
    /// The cohorts. How wide they are depends on the site: a site that was
    /// busy for a moment has narrow ones then (1 ms at least), one that was
    /// busy all the time has 32 to 64 over the recording; a mark always ends
    /// one.
    pub cohorts: Vec<Cohort>,
    /// What was born in each cohort. What was born before any block of a site
    /// outlived its cohort is known by instants, not by cohorts, and stands in
    /// the cohort of the next instant or of the first survivor.
    pub born: Vec<Held>,
    /// For each instant, what was alive then of each cohort.
    pub alive: Vec<Vec<Held>>,
    /// Blocks born before this may have died unseen: events were lost then. 0
    /// where none were.
    pub verified_from_ns: u64,
}

impl History {
    /// The last instant's row of `alive`; empty where nothing is known.
    pub fn last_alive(&self) -> &[Held] {
        self.alive.last().map_or(&[], Vec::as_slice)
    }
}

/// An instant at which cohorts are known.
#[derive(Clone, Copy, Debug)]
struct Known {
    ns: u64,
    /// Of what was born last.
    tick: u32,
}

/// Where a cohort of every site ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// When, nanoseconds since the start.
    pub ns: u64,
    /// The first tick after it.
    tick: u32,
}

/// What became of a site's blocks that were born between two edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The site's id.
    pub site: u32,
    /// What was born between the edges; known to the nearest instant for what
    /// died before any block of the site survived its cohort.
    pub born: Held,
    /// What of it is alive.
    pub alive: Held,
}

/// Survivors of all sites, packed.
///
/// A site takes some 60 bytes, and about 10 more for each instant at which it
/// changed and for each cohort that did.
#[derive(Debug)]
pub struct Survivors {
    instants: Vec<Known>,
    /// Ticks at which a cohort of every site begins, and when that is.
    boundaries: Vec<u32>,
    boundary_ns: Vec<u64>,
    sites: Vec<Track>,
    /// Where each site's track is, `u32::MAX` where it has none; empty where each has
    /// its own.
    slots: Vec<u32>,
    /// Ticks at which a cohort of some site does not begin: of ranges that
    /// neither overlap nor touch, the first and last.
    within: Vec<(u32, u32)>,
    /// By process: when events were last lost.
    verified_from: Vec<u64>,
    /// Ends of bins, and how many blocks had been born in all by then.
    births: Vec<(u64, u64)>,
}

/// A site's moments, packed.
#[derive(Clone, Debug, Default)]
struct Track {
    process: u32,
    /// Its cohorts are of `2^level` ticks.
    level: u8,
    /// Blocks of it survived their cohort.
    has_survivors: bool,
    packed: Box<[u8]>,
}

/// Blocks and bytes, as changes that add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    blocks: i64,
    bytes: i64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.blocks = self.blocks.wrapping_add(other.blocks);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }

    fn less(self, other: Amount) -> Amount {
        Amount {
            blocks: self.blocks.wrapping_sub(other.blocks),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }

    fn is_nothing(self) -> bool {
        self == Amount::default()
    }

    /// Below 0 only where a file is damaged.
    fn held(self) -> Held {
        Held {
            blocks: u64::try_from(self.blocks).unwrap_or(0),
            bytes: u64::try_from(self.bytes).unwrap_or(0),
        }
    }
}

/// What is known of a site from an instant on.
#[derive(Debug)]
struct Moment {
    instant: usize,
    live: Amount,
    total: Amount,
    changes: Vec<CohortChange>,
}

/// A site's story: sums by cohort, at its own level or a coarser one.
#[derive(Debug, Default)]
struct Story {
    /// By first tick.
    born: BTreeMap<u32, Amount>,
    /// From an instant on, so much more of a cohort is alive.
    alive: Vec<(usize, u32, Amount)>,
}

impl Survivors {
    /// Of a recording; `None` where it does not tell of cohorts.
    pub fn new(model: &Model<'_>) -> Option<Self> {
        Survivors::build(model, None)
    }

    /// Of these sites of a recording alone, which rise: of others nothing is known.
    pub(crate) fn of_sites(model: &Model<'_>, sites: &[u32]) -> Option<Self> {
        Survivors::build(model, Some(sites))
    }

    fn build(model: &Model<'_>, only: Option<&[u32]>) -> Option<Self> {
        let records = model.cohorts();
        let last = records.last()?;
        let mut survivors = Survivors {
            instants: chosen(records),
            boundaries: Vec::new(),
            boundary_ns: Vec::new(),
            sites: Vec::new(),
            slots: Vec::new(),
            within: Vec::new(),
            verified_from: vec![0; model.processes().len()],
            births: Vec::new(),
        };
        for record in records.iter().filter(|record| record.is_boundary) {
            let tick = record.tick.saturating_add(1);
            if survivors.boundaries.last().is_none_or(|last| *last < tick) {
                survivors.boundaries.push(tick);
                survivors.boundary_ns.push(record.at_ns);
            }
        }
        for loss in model.losses() {
            if let Some(from) = survivors.verified_from.get_mut(loss.process as usize) {
                *from = loss.at_ns.max(*from);
            }
        }
        survivors.take(model, only);
        if only.is_none() {
            survivors.find_within(last.tick);
        }
        Some(survivors)
    }

    fn track(&self, site: u32) -> Option<&Track> {
        let slot = if self.slots.is_empty() {
            site
        } else {
            *self.slots.get(site as usize)?
        };
        self.sites.get(slot as usize)
    }

    /// Packs what bins and cohorts say, instant by instant.
    fn take(&mut self, model: &Model<'_>, only: Option<&[u32]>) {
        #[derive(Clone, Default)]
        struct Last {
            live: Amount,
            total: Amount,
            at: usize,
            is_moved: bool,
            packed: Vec<u8>,
        }
        if let Some(only) = only {
            self.slots = vec![u32::MAX; model.sites().len()];
            for (slot, &site) in (0..).zip(only) {
                if let Some(place) = self.slots.get_mut(site as usize) {
                    *place = slot;
                }
            }
        }
        let slots = std::mem::take(&mut self.slots);
        let slot_of = |site: u32| match only {
            None => site as usize,
            Some(_) => slots
                .get(site as usize)
                .map_or(usize::MAX, |&slot| slot as usize),
        };
        let mut sites = vec![Last::default(); only.map_or(model.sites().len(), <[u32]>::len)];
        let mut counters = vec![Counters::default(); sites.len()];
        let mut levels = vec![0_u8; sites.len()];
        let mut has_survivors = vec![false; sites.len()];
        let (mut bin, mut record) = (0, 0);
        let mut births = 0_u64;
        let mut sum = Sum::default();
        let mut moved: Vec<u32> = Vec::new();
        for (at, known) in self.instants.iter().enumerate() {
            while model
                .bin_ends()
                .get(bin)
                .is_some_and(|end| *end <= known.ns)
            {
                model.for_each_point(bin, |point| {
                    births = births.wrapping_add_signed(point.total_blocks);
                    let id = slot_of(point.site);
                    let Some(site) = counters.get_mut(id) else {
                        return;
                    };
                    apply(site, point);
                    if !std::mem::replace(&mut sites[id].is_moved, true) {
                        moved.push(point.site);
                    }
                });
                self.births.push((model.bin_ends()[bin], births));
                bin += 1;
            }
            while let Some(cohorts) = model.cohorts().get(record)
                && cohorts.at_ns <= known.ns
            {
                for site in cohorts.sites.unpack() {
                    if slot_of(site.site) < sites.len() {
                        sum.add(site, &self.boundaries);
                    }
                }
                record += 1;
            }
            let mut told = sum.take().peekable();
            moved.sort_unstable();
            let mut moves = moved.drain(..).peekable();
            loop {
                let (next_told, next_moved) = (told.peek().map(|t| t.site), moves.peek().copied());
                let Some(id) = [next_told, next_moved].into_iter().flatten().min() else {
                    break;
                };
                let told = told.next_if(|told| told.site == id);
                moves.next_if(|moved| *moved == id);
                let slot = slot_of(id);
                let Some(site) = sites.get_mut(slot) else {
                    continue;
                };
                site.is_moved = false;
                let now = counters[slot];
                let (live, total) = (
                    amount(now.live_blocks, now.live_bytes),
                    amount(now.total_blocks, now.total_bytes),
                );
                let changes = told.as_ref().map_or(&[][..], |told| &told.cohorts);
                put(&mut site.packed, (at - site.at) as u64);
                put_amount(&mut site.packed, live.less(site.live));
                put_amount(&mut site.packed, total.less(site.total));
                put(&mut site.packed, changes.len() as u64);
                let mut start = 0;
                for change in changes {
                    put(&mut site.packed, change.start.wrapping_sub(start).into());
                    start = change.start;
                    put_amount(&mut site.packed, born_of(change));
                    put_amount(&mut site.packed, alive_of(change));
                }
                (site.at, site.live, site.total) = (at, live, total);
                if let Some(told) = told {
                    levels[slot] = told.level;
                    has_survivors[slot] = true;
                }
            }
        }
        let process_of = |slot: usize| {
            let site = only.map_or(slot, |only| only[slot] as usize);
            model.sites().get(site).map_or(0, |site| site.process)
        };
        let tracks = sites.into_iter().enumerate().zip(levels);
        self.sites = tracks
            .zip(has_survivors)
            .map(|(((slot, last), level), has_survivors)| Track {
                process: process_of(slot),
                level,
                has_survivors,
                packed: last.packed.into(),
            })
            .collect();
        self.slots = slots;
    }

    fn moments(&self, site: u32) -> Vec<Moment> {
        let mut moments = Vec::new();
        let Some(track) = self.track(site) else {
            return moments;
        };
        let mut rest: &[u8] = &track.packed;
        let (mut at, mut live, mut total) = (0, Amount::default(), Amount::default());
        while let Some(moment) = take_moment(&mut rest, &mut at, &mut live, &mut total) {
            moments.push(moment);
        }
        moments
    }

    /// A site's story at a level that is not below its own.
    fn story(&self, site: u32, level: u8) -> Story {
        let of = |tick| cohort_of(tick, level, &self.boundaries);
        let moments = self.moments(site);
        let mut story = Story::default();
        let (mut told_born, mut told_alive) = (Amount::default(), Amount::default());
        // What is open, and since which instant it is known to be so.
        let mut open: Option<(u32, Amount)> = None;
        // What died before any block survived, told as of tick 0.
        let mut early = Amount::default();
        let mut is_early = true;
        let mut first = u32::MAX;
        for moment in &moments {
            let at = moment.instant;
            if let Some((start, amount)) = open.take() {
                let back = Amount::default().less(amount);
                story.alive.push((at, start, back));
            }
            for change in &moment.changes {
                let (born, alive) = (born_of(change), alive_of(change));
                told_born.add(born);
                told_alive.add(alive);
                if change.start == 0 {
                    early.add(born);
                    is_early &= alive.is_nothing();
                } else {
                    first = first.min(change.start);
                    story.born.entry(of(change.start)).or_default().add(born);
                }
                if !alive.is_nothing() {
                    story.alive.push((at, of(change.start), alive));
                }
            }
            let rest = moment.live.less(told_alive);
            if !rest.is_nothing()
                && let Some(known) = self.instants.get(at)
            {
                let start = of(known.tick);
                story.alive.push((at, start, rest));
                open = Some((start, rest));
            }
        }
        let Some(last) = moments.last() else {
            return story;
        };
        let end = self.instants.last().map_or(0, |known| known.tick);
        if self.has_survivors(site) {
            let rest = last.total.less(told_born);
            story.born.entry(of(end)).or_default().add(rest);
        } else {
            early = last.total;
        }
        if !early.is_nothing() {
            self.place_early(&moments, early, is_early, first, of, &mut story.born);
        }
        story.born.retain(|_, born| !born.is_nothing());
        story
    }

    /// Places what was born before any block of a site survived (`first` is
    /// where that one's cohort begins) at the instants at which it is known.
    fn place_early(
        &self,
        moments: &[Moment],
        early: Amount,
        is_early: bool,
        first: u32,
        of: impl Fn(u32) -> u32,
        born: &mut BTreeMap<u32, Amount>,
    ) {
        let mut rest = early;
        if is_early {
            let mut before = Amount::default();
            for moment in moments {
                let Some(known) = self.instants.get(moment.instant) else {
                    break;
                };
                let more = moment.total.less(before);
                if known.tick >= first || more.blocks > rest.blocks {
                    break;
                }
                born.entry(of(known.tick)).or_default().add(more);
                rest = rest.less(more);
                before = moment.total;
            }
        }
        let end = self.instants.last().map_or(0, |known| known.tick);
        let place = match first {
            _ if !is_early => 0,
            u32::MAX => of(end),
            first => of(first.saturating_sub(1)),
        };
        born.entry(place).or_default().add(rest);
    }

    /// How many sites there are.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Whether blocks of a site survived their cohort. All blocks of any other
    /// died within a millisecond or so, but for those that were born last.
    pub fn has_survivors(&self, site: u32) -> bool {
        let track = self.track(site);
        track.is_some_and(|track| track.has_survivors)
    }

    /// How many blocks had been born by an instant, at all sites: the clock of
    /// allocations. Between bins' ends, in proportion.
    pub fn births_by(&self, ns: u64) -> u64 {
        let after = self.births.partition_point(|(end, _)| *end < ns);
        let (from, before) = after.checked_sub(1).map_or((0, 0), |at| self.births[at]);
        match self.births.get(after) {
            Some((to, born)) if *to > from => {
                let share = (ns - from) as f64 / (to - from) as f64;
                before.saturating_add((born.saturating_sub(before) as f64 * share) as u64)
            }
            _ => before,
        }
    }

    /// The history of a site, or of several together: those of one stack in
    /// several processes, or of one cause.
    pub fn history(&self, sites: &[u32]) -> History {
        let tracks = sites.iter().filter_map(|id| self.track(*id));
        let level = tracks.clone().map(|track| track.level).max().unwrap_or(0);
        let verified_from = |track: &Track| self.verified_from.get(track.process as usize);
        let verified_from_ns = tracks.filter_map(verified_from).max().copied();
        let mut sum = Story::default();
        for &site in sites {
            let story = self.story(site, level);
            for (start, born) in story.born {
                sum.born.entry(start).or_default().add(born);
            }
            sum.alive.extend(story.alive);
        }
        let mut starts: Vec<u32> = sum.born.keys().copied().collect();
        starts.extend(sum.alive.iter().map(|(_, start, _)| *start));
        starts.sort_unstable();
        starts.dedup();
        // Cohorts and what lies between them, one after the other.
        let mut edges = vec![0];
        for &start in &starts {
            let end = cohort_end(start, level, &self.boundaries);
            edges.extend([start, end]);
        }
        let end = self.end();
        edges.retain(|edge| *edge < end);
        edges.push(end);
        edges.sort_unstable();
        edges.dedup();
        let at = |start: &u32| edges.partition_point(|edge| edge <= start) - 1;
        let count = edges.len() - 1;
        let mut born = vec![Amount::default(); count];
        for (start, amount) in &sum.born {
            born[at(start).min(count - 1)].add(*amount);
        }
        sum.alive.sort_by_key(|(instant, ..)| *instant);
        let mut now = vec![Amount::default(); count];
        let mut changes = sum.alive.iter().peekable();
        let mut alive = Vec::with_capacity(self.instants.len());
        for instant in 0..self.instants.len() {
            while let Some((_, start, amount)) = changes.next_if(|(at, ..)| *at <= instant) {
                now[at(start).min(count - 1)].add(*amount);
            }
            alive.push(now.iter().map(|amount| amount.held()).collect());
        }
        let span = |pair: &[u32]| Cohort {
            from_ns: self.ns(pair[0]),
            to_ns: self.ns(pair[1]),
        };
        History {
            instants: self.instants.iter().map(|known| known.ns).collect(),
            cohorts: edges.windows(2).map(span).collect(),
            born: born.into_iter().map(Amount::held).collect(),
            alive,
            verified_from_ns: verified_from_ns.unwrap_or(0),
        }
    }

    /// The tick after the last one.
    fn end(&self) -> u32 {
        let last = self.instants.last();
        last.map_or(1, |known| known.tick.saturating_add(1))
    }

    /// When a tick begins, nanoseconds since the start.
    fn ns(&self, tick: u32) -> u64 {
        let last = self.instants.last();
        match self.boundaries.binary_search(&tick) {
            Ok(at) => self.boundary_ns[at],
            Err(_) => match last {
                Some(last) if tick > last.tick => last.ns,
                Some(last) => (u64::from(tick) * TICK_NS).min(last.ns),
                None => 0,
            },
        }
    }

    /// Notes which ticks lie within a cohort of some site.
    fn find_within(&mut self, last: u32) {
        let mut ranges = Vec::new();
        for (id, track) in (0..).zip(&self.sites) {
            if track.level == 0 {
                continue;
            }
            let of = |tick| cohort_of(tick, track.level, &self.boundaries);
            let moments = self.moments(id);
            let changes = moments.iter().flat_map(|moment| &moment.changes);
            let mut starts: Vec<u32> = changes.map(|change| of(change.start)).collect();
            starts.push(of(last));
            starts.sort_unstable();
            starts.dedup();
            for start in starts {
                let end = cohort_end(start, track.level, &self.boundaries);
                let end = end.min(last.saturating_add(1));
                if end > start.saturating_add(1) {
                    ranges.push((start + 1, end - 1));
                }
            }
        }
        ranges.sort_unstable();
        for (first, last) in ranges {
            match self.within.last_mut() {
                Some(range) if first <= range.1 => range.1 = range.1.max(last),
                _ => self.within.push((first, last)),
            }
        }
    }

    /// The edge nearest to an instant: births before and after it are told
    /// apart, at every site.
    pub fn edge(&self, ns: u64) -> Edge {
        let end = self.end();
        let wanted = match self.boundary_ns.binary_search(&ns) {
            Ok(at) => self.boundaries[at],
            Err(_) => u32::try_from(ns.div_ceil(TICK_NS)).map_or(end, |tick| tick.min(end)),
        };
        let after = self.within.partition_point(|(_, last)| *last < wanted);
        let range = self.within.get(after).filter(|(first, _)| *first <= wanted);
        let nearest = [
            range.map(|range| range.0 - 1),
            range.map(|range| range.1 + 1),
        ];
        let edge = |tick: u32| Edge {
            ns: self.ns(tick),
            tick,
        };
        let distance = |edge: &Edge| edge.ns.abs_diff(ns);
        let edges = nearest.into_iter().flatten().map(edge);
        edges.min_by_key(distance).unwrap_or_else(|| edge(wanted))
    }

    /// The number of the known instant nearest to `ns`, and when that is.
    pub fn instant(&self, ns: u64) -> (usize, u64) {
        let known = self.instants.iter().map(|known| known.ns).enumerate();
        known
            .min_by_key(|(_, at)| at.abs_diff(ns))
            .unwrap_or((0, 0))
    }

    /// Of every site, what was born between two edges and what of it is alive
    /// at a known instant, by its number. Sites without either are left out.
    pub fn between(&self, from: Edge, to: Edge, instant: usize) -> Vec<Survivor> {
        let mut survivors = Vec::new();
        for (site, track) in (0..).zip(&self.sites) {
            let story = self.story(site, track.level);
            let is_between = |start: u32| (from.tick..to.tick).contains(&start);
            let (mut born, mut alive) = (Amount::default(), Amount::default());
            for (start, amount) in &story.born {
                if is_between(*start) {
                    born.add(*amount);
                }
            }
            for (at, start, amount) in &story.alive {
                if *at <= instant && is_between(*start) {
                    alive.add(*amount);
                }
            }
            if !born.is_nothing() || !alive.is_nothing() {
                survivors.push(Survivor {
                    site,
                    born: born.held(),
                    alive: alive.held(),
                });
            }
        }
        survivors
    }

    /// Of every site that has any, what is alive at the end of what was born in
    /// each of the spans between edges, which rise.
    pub fn left_between(&self, edges: &[Edge]) -> Vec<(u32, Vec<Held>)> {
        let mut left = Vec::new();
        for (site, track) in (0..).zip(&self.sites) {
            let mut spans = vec![Amount::default(); edges.len().saturating_sub(1)];
            for (_, start, amount) in self.story(site, track.level).alive {
                let after = edges.partition_point(|edge| edge.tick <= start);
                if let Some(span) = after.checked_sub(1).and_then(|at| spans.get_mut(at)) {
                    span.add(amount);
                }
            }
            if spans.iter().any(|span| span.blocks > 0) {
                left.push((site, spans.into_iter().map(Amount::held).collect()));
            }
        }
        left
    }

    /// Bytes that it takes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        let packed: usize = self.sites.iter().map(|track| track.packed.len()).sum();
        packed + self.sites.len() * (size_of::<Track>() + 16)
    }
}

/// The instants to keep: marks, the last, and those that hold a multiple of
/// a width which there are enough of.
fn chosen(records: &[&Cohorts]) -> Vec<Known> {
    let last_ns = records.last().map_or(0, |record| record.at_ns);
    let width_ns = instants_every(last_ns, INSTANTS);
    let mut chosen: Vec<Known> = Vec::new();
    let mut before_ns = 0;
    for record in records {
        let holds_multiple = record.at_ns / width_ns > before_ns / width_ns;
        before_ns = before_ns.max(record.at_ns);
        let known = Known {
            ns: record.at_ns,
            tick: record.tick,
        };
        match chosen.last_mut() {
            // Several records of one instant, or marks at once.
            Some(last) if known.ns <= last.ns => last.tick = last.tick.max(known.tick),
            _ if record.is_boundary || holds_multiple || known.ns == last_ns => {
                chosen.push(known);
            }
            _ => {}
        }
    }
    chosen
}

fn amount(blocks: u64, bytes: u64) -> Amount {
    Amount {
        blocks: blocks.cast_signed(),
        bytes: bytes.cast_signed(),
    }
}

fn born_of(change: &CohortChange) -> Amount {
    Amount {
        blocks: change.born_blocks,
        bytes: change.born_bytes,
    }
}

fn alive_of(change: &CohortChange) -> Amount {
    Amount {
        blocks: change.blocks,
        bytes: change.bytes,
    }
}

/// Seven bits a byte, the lowest first, the top bit for "more follows".
fn put(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_amount(to: &mut Vec<u8>, amount: Amount) {
    for value in [amount.blocks, amount.bytes] {
        put(to, ((value << 1) ^ (value >> 63)).cast_unsigned());
    }
}

fn take_amount(from: &mut &[u8]) -> Option<Amount> {
    let mut signed = || {
        let value = take(from)?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    };
    Some(Amount {
        blocks: signed()?,
        bytes: signed()?,
    })
}

fn take_moment(
    from: &mut &[u8],
    at: &mut usize,
    live: &mut Amount,
    total: &mut Amount,
) -> Option<Moment> {
    *at = at.saturating_add(take(from)? as usize);
    live.add(take_amount(from)?);
    total.add(take_amount(from)?);
    let mut start = 0;
    let changes = (0..take(from)?)
        .map(|_| {
            start = take(from)?.wrapping_add(u64::from(start)) as u32;
            let (born, alive) = (take_amount(from)?, take_amount(from)?);
            Some(CohortChange {
                start,
                born_blocks: born.blocks,
                born_bytes: born.bytes,
                blocks: alive.blocks,
                bytes: alive.bytes,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Moment {
        instant: *at,
        live: *live,
        total: *total,
        changes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Builder, origin};
    use leakline_recording::record::{Domain, Packed, Record, SiteCohorts};
    use proptest::prelude::*;

    const SITES: usize = 2;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Birth(usize, u64),
        Death(usize),
        Wait(u32),
        Tell,
        Mark,
        /// A site's level rises by so much.
        Rise(usize, u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            9 => (0..SITES, 1..50_u64).prop_map(|(site, bytes)| Step::Birth(site, bytes)),
            6 => any::<usize>().prop_map(Step::Death),
            6 => (1..9_u32).prop_map(Step::Wait),
            2 => Just(Step::Tell),
            1 => Just(Step::Mark),
            1 => (0..SITES, 0..3_u8).prop_map(|(site, by)| Step::Rise(site, by)),
        ];
        prop::collection::vec(step, 1..250)
    }

    #[derive(Clone, Copy)]
    struct Block {
        site: usize,
        bytes: u64,
        born_ns: u64,
        tick: u32,
        died: Option<usize>,
    }

    /// What the recorder knows of a site.
    #[derive(Default)]
    struct Told {
        level: u8,
        /// Where the cohort of the first survivor began.
        first: u32,
        sums: BTreeMap<u32, (Amount, Amount)>,
    }

    /// A program, recorded in the simplest way: at each instant, all sums by
    /// cohort are made anew, and the differences told.
    #[derive(Default)]
    struct Program {
        blocks: Vec<Block>,
        tick: u32,
        now_ns: u64,
        boundaries: Vec<u32>,
        told: [Told; SITES],
        instants: Vec<u64>,
    }

    impl Program {
        fn tell(&mut self, b: &mut Builder, ids: &[u32], is_boundary: bool) {
            let mut points = Vec::new();
            let mut sites = Vec::new();
            for (site, &id) in ids.iter().enumerate() {
                let blocks = self.blocks.iter().filter(|block| block.site == site);
                let mut counters = Counters::default();
                let told = &mut self.told[site];
                let of = |tick| cohort_of(tick, told.level, &self.boundaries);
                let mut sums: BTreeMap<u32, (Amount, Amount)> = BTreeMap::new();
                for block in blocks {
                    counters.total_blocks += 1;
                    counters.total_bytes += block.bytes;
                    let one = amount(1, block.bytes);
                    if block.died.is_none() {
                        counters.live_blocks += 1;
                        counters.live_bytes += block.bytes;
                    }
                    let is_early = block.tick < told.first;
                    let start = if is_early { 0 } else { of(block.tick) };
                    if is_early || start != of(self.tick) {
                        let sum = sums.entry(start).or_default();
                        sum.0.add(one);
                        if block.died.is_none() {
                            sum.1.add(one);
                        }
                    }
                }
                points.push((id, counters));
                if told.sums.is_empty() {
                    let survived = sums.iter().find(|(_, sum)| !sum.1.is_nothing());
                    let Some((&first, _)) = survived else {
                        continue;
                    };
                    told.first = first;
                    // What came before the first survivor is told as of tick 0.
                    let early: Vec<u32> = sums.range(1..first).map(|(at, _)| *at).collect();
                    for start in early {
                        let sum = sums.remove(&start).unwrap();
                        sums.entry(0).or_default().0.add(sum.0);
                    }
                }
                let mut coarse: BTreeMap<u32, (Amount, Amount)> = BTreeMap::new();
                for (start, sum) in std::mem::take(&mut told.sums) {
                    let place = coarse.entry(of(start)).or_default();
                    place.0.add(sum.0);
                    place.1.add(sum.1);
                }
                told.sums = coarse;
                let mut changes = Vec::new();
                for (start, sum) in &sums {
                    let before = told.sums.get(start).copied().unwrap_or_default();
                    let (born, alive) = (sum.0.less(before.0), sum.1.less(before.1));
                    let change = CohortChange {
                        start: *start,
                        born_blocks: born.blocks,
                        born_bytes: born.bytes,
                        blocks: alive.blocks,
                        bytes: alive.bytes,
                    };
                    if !change.is_none() {
                        changes.push(change);
                    }
                }
                // What is open again, as levels rose, stays told as it is.
                told.sums.extend(sums);
                sites.push(SiteCohorts {
                    site: id,
                    level: told.level,
                    cohorts: changes,
                });
            }
            b.bin(self.now_ns, &points);
            b.records.push(Record::Cohorts(Cohorts {
                at_ns: self.now_ns,
                tick: self.tick,
                is_boundary,
                sites: Packed::new(&sites),
            }));
            self.instants.push(self.now_ns);
            self.tick += 1;
            if is_boundary {
                self.boundaries.push(self.tick);
            }
        }

        fn wait(&mut self, ticks: u32) {
            self.now_ns = (self.now_ns / TICK_NS + u64::from(ticks)) * TICK_NS;
            let natural = u32::try_from(self.now_ns.saturating_sub(1) / TICK_NS).unwrap();
            self.tick = self.tick.max(natural);
        }

        fn sum(&self, site: usize, counts: impl Fn(&Block) -> bool) -> Held {
            let blocks = self
                .blocks
                .iter()
                .filter(|block| block.site == site && counts(block));
            blocks.fold(Held::default(), |sum, block| Held {
                blocks: sum.blocks + 1,
                bytes: sum.bytes + block.bytes,
            })
        }
    }

    fn record(steps: &[Step]) -> (Program, Vec<Record>, Vec<u32>) {
        let mut b = Builder::new(&["app"]);
        let process = b.process(10, &["app"]);
        let node = b.native(0, 0, 0x10);
        let ids: Vec<u32> = (0..SITES)
            .map(|_| b.site(process, node, Domain::Native))
            .collect();
        let mut program = Program::default();
        program.wait(1);
        for step in steps.iter().chain([&Step::Wait(1), &Step::Tell]) {
            match *step {
                Step::Birth(site, bytes) => {
                    program.now_ns += 1;
                    let natural = u32::try_from((program.now_ns - 1) / TICK_NS).unwrap();
                    program.tick = program.tick.max(natural);
                    program.blocks.push(Block {
                        site,
                        bytes,
                        born_ns: program.now_ns,
                        tick: program.tick,
                        died: None,
                    });
                }
                Step::Death(at) => {
                    let instant = program.instants.len();
                    let living = program
                        .blocks
                        .iter_mut()
                        .filter(|block| block.died.is_none());
                    let mut living: Vec<_> = living.collect();
                    let count = living.len().max(1);
                    if let Some(block) = living.get_mut(at % count) {
                        block.died = Some(instant);
                    }
                }
                Step::Wait(ticks) => program.wait(ticks),
                Step::Tell | Step::Mark => {
                    let is_mark = matches!(step, Step::Mark);
                    // Bins end with a millisecond, marks anywhere; both are
                    // seldom enough for ticks to be those of the time.
                    program.wait(2);
                    program.now_ns += u64::from(is_mark);
                    program.tell(&mut b, &ids, is_mark);
                    if is_mark {
                        b.mark("mark", program.now_ns, process);
                    }
                }
                Step::Rise(site, by) => {
                    let told = &mut program.told[site];
                    told.level += if told.sums.is_empty() { 0 } else { by };
                }
            }
        }
        (program, b.records, ids)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        /// A history says of every cohort and instant what a count of all
        /// blocks says.
        #[test]
        fn histories_are_what_is_counted(steps in steps()) {
            let (program, records, ids) = record(&steps);
            let model = Model::new(&records, origin());
            let survivors = Survivors::new(&model).unwrap();
            let wholes: Vec<Vec<u32>> = vec![ids[..1].into(), ids[1..].into(), ids.clone()];
            for of in wholes {
                let history = survivors.history(&of);
                let sum = |counts: &dyn Fn(&Block) -> bool| {
                    of.iter().fold(Held::default(), |sum, id| {
                        let at = ids.iter().position(|other| other == id).unwrap();
                        let more = program.sum(at, counts);
                        Held { blocks: sum.blocks + more.blocks, bytes: sum.bytes + more.bytes }
                    })
                };
                prop_assert_eq!(history.cohorts[0].from_ns, 0);
                prop_assert_eq!(history.cohorts.last().unwrap().to_ns, program.now_ns);
                prop_assert!(history.cohorts.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns));
                let mut first = usize::MAX;
                for (instant, at_ns) in history.instants.iter().enumerate() {
                    let number = program.instants.iter().position(|ns| ns == at_ns).unwrap();
                    for (cohort, span) in history.cohorts.iter().enumerate() {
                        let alive = sum(&|block| {
                            block.born_ns > span.from_ns && block.born_ns <= span.to_ns
                                && block.born_ns <= *at_ns
                                && block.died.is_none_or(|died| died > number)
                        });
                        prop_assert_eq!(history.alive[instant][cohort], alive, "{} {:?}", at_ns, span);
                        if alive.blocks > 0 && of.len() == 1 {
                            first = first.min(cohort);
                        }
                    }
                }
                let born = |span: &Cohort| sum(&|block: &Block| {
                    block.born_ns > span.from_ns && block.born_ns <= span.to_ns
                });
                let total = history.born.iter().map(|held| held.bytes).sum::<u64>();
                prop_assert_eq!(total, sum(&|_| true).bytes);
                // Of what died before any block survived only the sum is known,
                // and that it came first.
                if first < history.cohorts.len() && survivors.has_survivors(of[0]) {
                    for (cohort, span) in history.cohorts.iter().enumerate().skip(first + 1) {
                        prop_assert_eq!(history.born[cohort], born(span), "born {:?}", span);
                    }
                }
            }
        }

        /// Between any two edges, those that survive are those that do.
        #[test]
        fn survivors_between_edges_are_what_is_counted(
            steps in steps(), from in 0.0..1.0_f64, to in 0.0..1.0_f64, at in any::<prop::sample::Index>()
        ) {
            let (program, records, ids) = record(&steps);
            let model = Model::new(&records, origin());
            let survivors = Survivors::new(&model).unwrap();
            let ns = |share: f64| (program.now_ns as f64 * share) as u64;
            let (from, to) = (survivors.edge(ns(from.min(to))), survivors.edge(ns(from.max(to))));
            prop_assert!(from.ns <= to.ns);
            let (instant, at_ns) = survivors.instant(*at.get(&program.instants));
            let number = program.instants.iter().position(|ns| *ns == at_ns).unwrap();
            let between = survivors.between(from, to, instant);
            for (site, id) in ids.iter().enumerate() {
                let found = between.iter().find(|survivor| survivor.site == *id);
                let expected = program.sum(site, |block| {
                    block.born_ns > from.ns && block.born_ns <= to.ns && block.born_ns <= at_ns
                        && block.died.is_none_or(|died| died > number)
                });
                prop_assert_eq!(found.map_or(Held::default(), |found| found.alive), expected);
            }
        }
    }

    /// A mark is an edge whatever the levels are.
    #[test]
    fn marks_are_edges() {
        let mut steps = vec![Step::Birth(0, 10), Step::Wait(5), Step::Birth(0, 10)];
        steps.extend([
            Step::Rise(0, 6),
            Step::Mark,
            Step::Birth(0, 7),
            Step::Wait(3),
        ]);
        let (program, records, ids) = record(&steps);
        let model = Model::new(&records, origin());
        let survivors = Survivors::new(&model).unwrap();
        let mark = survivors.edge(program.instants[0]);
        assert_eq!(mark.ns, program.instants[0]);
        let end = survivors.edge(u64::MAX);
        let after = survivors.between(mark, end, survivors.instants.len() - 1);
        assert_eq!(after[0].site, ids[0]);
        assert_eq!(
            after[0].alive,
            Held {
                blocks: 1,
                bytes: 7
            }
        );
        assert_eq!(survivors.births_by(program.now_ns), 3);
    }
}
