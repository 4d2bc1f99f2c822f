//! Deaths by when the blocks were born: a site's cohorts.
//!
//! A block knows the tick of its birth ([`leakline_recording::cohorts`]), a
//! site the *open* cohort, to which belongs what is born now. Births, and
//! deaths in the open cohort, touch nothing here. When a site is first seen in
//! another cohort its open one is closed: what was born in it and what is left
//! of it follow from the site's counters. From then on deaths in it are
//! counted, by cohort, until the recording is told of them.
//!
//! # Invariants
//!
//! * A site none of whose blocks outlived their cohort has no [`Closed`]: it
//!   costs nothing but its place.
//! * What was told and what waits add up, over a site's closed cohorts, to what
//!   of them is alive, so that the site's live figures less that sum are its
//!   open cohort's. All sums wrap; they are right even while the open cohort
//!   and a closed one have become one.
//! * Of cohorts that ended anywhere but at a boundary there are no more than
//!   [`MOST`]: when there would be, the site's level rises, and its cohorts
//!   merge, until they fit.

use leakline_recording::cohorts::{coarsen, cohort_of};
use leakline_recording::record::CohortChange;

/// Most cohorts of a site, those at boundaries not counted. A site that is
/// busy all the time has more than half as many.
const MOST: usize = 64;
/// As many places in which a cohort is looked for first.
const FOUND: usize = MOST;
/// Most boundaries; later marks end no cohort.
const MOST_BOUNDARIES: usize = 64;

/// Blocks and bytes, in wrapping arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    fn less(self, other: Amount) -> Amount {
        Amount {
            blocks: self.blocks.wrapping_sub(other.blocks),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }

    fn add(&mut self, other: Amount) {
        self.blocks = self.blocks.wrapping_add(other.blocks);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// The session's clock of births.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    /// Of what is born now.
    pub(crate) now: u32,
    /// Ticks at which a cohort of every site begins, rising.
    boundaries: Vec<u32>,
}

impl Ticks {
    /// Goes on to a tick, unless it is past.
    pub(crate) fn go_on(&mut self, tick: u32) {
        self.now = self.now.max(tick);
    }

    /// Ends this tick. What is born from now on has a later one, so that it is
    /// told apart from what was, and sites are seen anew.
    pub(crate) fn end(&mut self) {
        self.now = self.now.saturating_add(1);
    }

    /// Whether the end of this tick can be a boundary.
    pub(crate) fn has_boundary_left(&self) -> bool {
        self.boundaries.len() < MOST_BOUNDARIES
    }

    /// Has a cohort of every site begin with this tick, in which nothing was
    /// born yet.
    pub(crate) fn begin_cohort(&mut self) {
        if self.boundaries.last() != Some(&self.now) {
            self.boundaries.push(self.now);
        }
    }

    fn cohort_of(&self, tick: u32, level: u8) -> u32 {
        cohort_of(tick, level, &self.boundaries)
    }
}

/// A site's cohorts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cohorts {
    /// What was born before the open one.
    born: Amount,
    /// First tick of the open one.
    open: u32,
    closed: Option<Box<Closed>>,
}

#[derive(Clone, Debug)]
struct Closed {
    /// Where in `waiting` a cohort was found last, by its number among those
    /// of its width: a search that cannot be foretold costs 20 ns.
    found: [u8; FOUND],
    level: u8,
    /// It is among those that wait to be told.
    is_waiting: bool,
    /// What is alive in all of them.
    alive: Amount,
    /// Their first ticks, rising.
    starts: Vec<u32>,
    /// What the recording is yet to be told, rising.
    waiting: Vec<CohortChange>,
}

impl Closed {
    fn new() -> Box<Self> {
        Box::new(Closed {
            found: [0; FOUND],
            level: 0,
            is_waiting: false,
            alive: Amount::default(),
            starts: Vec::new(),
            waiting: Vec::new(),
        })
    }

    #[inline]
    fn change(&mut self, start: u32) -> &mut CohortChange {
        let place = (start >> self.level) as usize % FOUND;
        let at = usize::from(self.found[place]);
        let at = match self.waiting.get(at) {
            Some(change) if change.start == start => at,
            _ => self.find(start, place),
        };
        &mut self.waiting[at]
    }

    #[cold]
    #[inline(never)]
    fn find(&mut self, start: u32, place: usize) -> usize {
        let found = self
            .waiting
            .binary_search_by_key(&start, |change| change.start);
        let at = found.unwrap_or_else(|at| {
            self.waiting.insert(at, CohortChange::none(start));
            at
        });
        self.found[place] = at.min(255) as u8;
        at
    }

    /// True the first time since the recording was told.
    fn begins_to_wait(&mut self) -> bool {
        !std::mem::replace(&mut self.is_waiting, true)
    }
}

impl Cohorts {
    /// Begins, for a site whose first block is born now.
    pub(crate) fn begin(&mut self, ticks: &Ticks) {
        self.open = ticks.cohort_of(ticks.now, 0);
    }

    fn level(&self) -> u8 {
        self.closed.as_ref().map_or(0, |closed| closed.level)
    }

    /// Whether the open cohort holds nothing and nothing was born in it.
    pub(crate) fn is_open_empty(&self, total: Amount, live: Amount) -> bool {
        let alive = self.closed.as_ref().map_or(live, |c| live.less(c.alive));
        total == self.born && alive == Amount::default()
    }

    /// Closes the open cohort if what is born now belongs to another, or where
    /// nothing comes any more. `total` and `live` are what the site has until
    /// now. True when the site begins to wait for being told.
    pub(crate) fn close(
        &mut self,
        ticks: &Ticks,
        total: Amount,
        live: Amount,
        is_over: bool,
    ) -> bool {
        let open = ticks.cohort_of(ticks.now, self.level());
        if open == self.open && !is_over {
            return false;
        }
        let start = std::mem::replace(&mut self.open, open);
        let before = std::mem::replace(&mut self.born, total);
        let born = total.less(before);
        if self.closed.is_none() {
            if live == Amount::default() {
                return false;
            }
            let mut closed = Closed::new();
            // What came before, in whatever cohorts, is all dead.
            if before != Amount::default() {
                closed.starts.push(0);
                add_born(closed.change(0), before);
            }
            self.closed = Some(closed);
        }
        let Some(closed) = &mut self.closed else {
            return false;
        };
        let alive = live.less(closed.alive);
        if born == Amount::default() && alive == Amount::default() {
            return false;
        }
        closed.alive = live;
        let change = closed.change(start);
        add_born(change, born);
        add_alive(change, alive);
        // Where levels rose meanwhile the open one may be a part of the last.
        if closed.starts.last().is_none_or(|last| *last < start) {
            closed.starts.push(start);
        }
        while closed.starts.len() > MOST + ticks.boundaries.len() && closed.level < 31 {
            closed.level += 1;
            let level = closed.level;
            for start in &mut closed.starts {
                *start = ticks.cohort_of(*start, level);
            }
            closed.starts.dedup();
            coarsen(&mut closed.waiting, level, &ticks.boundaries);
        }
        let level = closed.level;
        let begins = closed.begins_to_wait();
        self.open = ticks.cohort_of(ticks.now, level);
        begins
    }

    /// Counts a change of blocks that were born at `birth`: so many more alive
    /// (wrapping: a negative number for less), and so many bytes more that
    /// count as born. True when the site begins to wait for being told.
    #[inline]
    pub(crate) fn change(
        &mut self,
        ticks: &Ticks,
        birth: u32,
        alive: Amount,
        born_bytes: u64,
    ) -> bool {
        if birth >= self.open {
            return false;
        }
        let Some(closed) = &mut self.closed else {
            // Only where the site's counters are beyond belief.
            return false;
        };
        closed.alive.add(alive);
        let start = ticks.cohort_of(birth, closed.level);
        let change = closed.change(start);
        add_alive(change, alive);
        change.born_bytes = change.born_bytes.wrapping_add_unsigned(born_bytes);
        self.born.bytes = self.born.bytes.wrapping_add(born_bytes);
        closed.begins_to_wait()
    }

    /// What the recording was not told yet, and the level; `None` where that is
    /// nothing.
    pub(crate) fn tell(&mut self) -> Option<(u8, Vec<CohortChange>)> {
        let closed = self.closed.as_mut()?;
        closed.is_waiting = false;
        let mut changes = std::mem::take(&mut closed.waiting);
        changes.retain(|change| !change.is_none());
        (!changes.is_empty()).then_some((closed.level, changes))
    }

    /// Something waits to be told.
    pub(crate) fn is_waiting(&self) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.is_waiting)
    }

    /// How many changes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.closed
            .as_ref()
            .map_or(0, |closed| closed.waiting.len())
    }
}

fn add_born(change: &mut CohortChange, born: Amount) {
    change.born_blocks = change.born_blocks.wrapping_add_unsigned(born.blocks);
    change.born_bytes = change.born_bytes.wrapping_add_unsigned(born.bytes);
}

#[inline]
fn add_alive(change: &mut CohortChange, alive: Amount) {
    change.blocks = change.blocks.wrapping_add_unsigned(alive.blocks);
    change.bytes = change.bytes.wrapping_add_unsigned(alive.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Block;
    use crate::tally::{Scope, Tally};
    use crate::weights::Weighed;
    use leakline_recording::record::SiteCohorts;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SITES: u32 = 3;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Birth(u32, u64),
        Death(usize),
        Resize(usize, u64),
        /// So many ticks pass.
        Wait(u32),
        /// Cohorts are told; where it can wait, perhaps not.
        Tell,
        Mark,
        /// The process ends: nothing more happens at its sites.
        Retire,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let wait = prop_oneof![6 => 1..4_u32, 2 => 1..200_u32, 1 => 1..100_000_u32];
        let step = prop_oneof![
            12 => (0..SITES, 0..500_u64).prop_map(|(site, size)| Step::Birth(site, size)),
            9 => any::<usize>().prop_map(Step::Death),
            2 => (any::<usize>(), 0..500_u64).prop_map(|(at, size)| Step::Resize(at, size)),
            8 => wait.prop_map(Step::Wait),
            2 => Just(Step::Tell),
            1 => Just(Step::Mark),
        ];
        prop::collection::vec(step, 1..900).prop_flat_map(|steps| {
            let length = steps.len();
            (Just(steps), prop::option::weighted(0.2, 0..length)).prop_map(|(mut steps, end)| {
                if let Some(end) = end {
                    steps[end] = Step::Retire;
                    steps[end + 1..].fill(Step::Wait(3));
                    steps.push(Step::Tell);
                }
                steps
            })
        })
    }

    type Sums = BTreeMap<u32, (Amount, Amount)>;

    /// What a reader knows.
    #[derive(Default)]
    struct Reader {
        boundaries: Vec<u32>,
        sites: BTreeMap<u32, (u8, Vec<CohortChange>)>,
    }

    impl Reader {
        fn read(&mut self, told: Vec<SiteCohorts>) {
            for site in told {
                let (level, sums) = self.sites.entry(site.site).or_default();
                assert!(site.level >= *level, "levels never fall");
                *level = site.level;
                sums.extend(site.cohorts);
                for sum in &mut *sums {
                    sum.start = cohort_of(sum.start, *level, &self.boundaries);
                }
                sums.sort_by_key(|sum| sum.start);
                coarsen(sums, *level, &self.boundaries);
            }
        }

        /// Born and alive by cohort, the open one as the rest.
        fn sums(&self, site: u32, tick: u32, total: Amount, live: Amount) -> (u8, Sums) {
            let (level, told) = self.sites.get(&site).cloned().unwrap_or_default();
            let mut sums = Sums::new();
            let (mut total, mut live) = (total, live);
            for change in told {
                let born = Amount {
                    blocks: change.born_blocks.cast_unsigned(),
                    bytes: change.born_bytes.cast_unsigned(),
                };
                let alive = Amount {
                    blocks: change.blocks.cast_unsigned(),
                    bytes: change.bytes.cast_unsigned(),
                };
                (total, live) = (total.less(born), live.less(alive));
                sums.insert(change.start, (born, alive));
            }
            let open = sums
                .entry(cohort_of(tick, level, &self.boundaries))
                .or_default();
            open.0.add(total);
            open.1.add(live);
            (level, sums)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        /// What is told, and the counters, give of every site what is alive of
        /// what was born in each cohort.
        #[test]
        fn what_is_told_is_what_a_model_counts(steps in steps()) {
            let mut tally = Tally::default();
            let mut process = Scope::default();
            let sites: Vec<u32> = (0..SITES)
                .map(|node| tally.site(0, node, 0).unwrap_err())
                .collect();
            let mut reader = Reader::default();
            let mut live: Vec<Block> = Vec::new();
            let mut total = [Amount::default(); SITES as usize];
            // Born, by site and tick.
            let mut born: BTreeMap<(u32, u32), Amount> = BTreeMap::new();
            for step in steps.into_iter().chain([Step::Tell]) {
                let now = tally.ticks.now;
                match step {
                    Step::Birth(site, size) => {
                        let block = Block { size, site, thread: 0, birth: now };
                        tally.born(&mut process, &block, Weighed::itself(block.size), 1);
                        let one = Amount { blocks: 1, bytes: size };
                        total[site as usize].add(one);
                        born.entry((site, now)).or_default().add(one);
                        live.push(block);
                    }
                    Step::Death(at) if !live.is_empty() => {
                        let block = live.swap_remove(at % live.len());
                        tally.died(&mut process, &block, Weighed::itself(block.size), false, 1);
                    }
                    Step::Resize(at, size) if !live.is_empty() => {
                        let at = at % live.len();
                        let block = &mut live[at];
                        tally.resized(&mut process, block, size, 1);
                        let growth = Amount { blocks: 0, bytes: size.saturating_sub(block.size) };
                        total[block.site as usize].add(growth);
                        born.entry((block.site, block.birth)).or_default().add(growth);
                        block.size = size;
                    }
                    Step::Death(_) | Step::Resize(..) => {}
                    Step::Wait(ticks) => tally.ticks.go_on(now + ticks),
                    Step::Retire => tally.retire(&sites, 1),
                    Step::Tell | Step::Mark => {
                        reader.read(tally.cohorts(true));
                        for &site in &sites {
                            let of_site = live.iter().filter(|block| block.site == site);
                            let alive = of_site.clone().fold(Amount::default(), |mut sum, block| {
                                sum.add(Amount { blocks: 1, bytes: block.size });
                                sum
                            });
                            let (level, sums) =
                                reader.sums(site, now, total[site as usize], alive);
                            let start = |tick| cohort_of(tick, level, &reader.boundaries);
                            let mut expected = Sums::new();
                            for block in of_site {
                                let one = Amount { blocks: 1, bytes: block.size };
                                expected.entry(start(block.birth)).or_default().1.add(one);
                            }
                            for (&(_, tick), amount) in born.range((site, 0)..=(site, u32::MAX)) {
                                expected.entry(start(tick)).or_default().0.add(*amount);
                            }
                            // Nothing is known of when what died at once was
                            // born, but that it was before the first survivor.
                            let first = expected.iter().find(|(_, sum)| sum.1.blocks > 0);
                            let first = first.map_or(u32::MAX, |(start, _)| *start);
                            let sum_before = |sums: &Sums| {
                                let mut sum = Amount::default();
                                sums.range(..first).for_each(|(_, (born, _))| sum.add(*born));
                                sum
                            };
                            let is_told = reader.sites.contains_key(&site);
                            let alive_of = |sums: &Sums| -> BTreeMap<u32, Amount> {
                                let alive = sums.iter().map(|(start, sum)| (*start, sum.1));
                                alive.filter(|(_, alive)| *alive != Amount::default()).collect()
                            };
                            prop_assert_eq!(alive_of(&sums), alive_of(&expected), "{}", site);
                            if is_told {
                                prop_assert_eq!(sum_before(&sums), sum_before(&expected));
                                let born_of = |sums: &Sums| -> Vec<(u32, Amount)> {
                                    let born = sums.range(first..).map(|(at, sum)| (*at, sum.0));
                                    born.filter(|(_, born)| *born != Amount::default()).collect()
                                };
                                prop_assert_eq!(born_of(&sums), born_of(&expected), "{}", site);
                            } else {
                                prop_assert!(alive_of(&sums).len() <= 1);
                            }
                            prop_assert!(
                                sums.len() <= MOST + 2 + reader.boundaries.len(),
                                "{} cohorts", sums.len()
                            );
                        }
                        let is_boundary = tally.ticks.has_boundary_left();
                        tally.points(true);
                        if matches!(step, Step::Mark) && is_boundary {
                            tally.ticks.begin_cohort();
                            reader.boundaries.push(now + 1);
                        }
                    }
                }
            }
        }
    }
}
