//! Counters by site, by thread, of processes and of the session, and the
//! exact state at the high-water mark.
//!
//! # The state at the peak, at O(1) an event
//!
//! A [`Scope`] (a process, or the session) knows its live bytes and the most
//! there ever were. While it stands at its peak, what the sites hold *is* the
//! state at the peak. The first change that leaves the peak starts a new
//! *epoch*; from then on, a site that changes first saves what it holds,
//! under that epoch, unless it has. So the state at the peak is, for each
//! site, what it saved under the scope's epoch, or else what it holds now.
//! A new peak makes all that was saved void at once.
//!
//! All sums wrap: a hostile target's nonsense sizes must not stop us.

use leakline_recording::record::{
    Counters, Point, Record, SiteCohorts, Sizes, Thread, ThreadTotals,
};
use rustc_hash::FxHashMap;

use crate::cohorts::{Amount, Cohorts, Ticks};
use crate::live::Block;
use crate::weights::Weighed;

/// A site's move is worth a point from this many bytes on, or from 1 % of
/// what it holds.
const MOVED_BYTES: u64 = 64 * 1024;

/// Most changes of cohorts that are told at an instant where that can wait:
/// 200 KB, once a second.
const MOST_CHANGES: usize = 1 << 15;

/// Live bytes and blocks, and the most bytes there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Bytes now live.
    pub(crate) live_bytes: u64,
    /// Blocks now live.
    pub(crate) live_blocks: u64,
    /// Most bytes ever live.
    pub(crate) peak_bytes: u64,
    /// Blocks live at that instant.
    pub(crate) peak_blocks: u64,
    /// Stamp of that instant.
    pub(crate) peak_stamp: u64,
    /// Numbers the times that the peak was left; sites that never saved
    /// anything have 0.
    pub(crate) epoch: u32,
    /// The peak lies in the past.
    pub(crate) below: bool,
}

impl Scope {
    /// Adds to what is live (wrapping: a negative number takes away). True
    /// when the scope is below its peak afterwards, so that what changed must
    /// have been saved before.
    #[inline]
    pub(crate) fn shift(&mut self, bytes: u64, blocks: u64, stamp: u64) -> bool {
        self.live_bytes = self.live_bytes.wrapping_add(bytes);
        self.live_blocks = self.live_blocks.wrapping_add(blocks);
        if self.live_bytes > self.peak_bytes {
            self.peak_bytes = self.live_bytes;
            self.peak_blocks = self.live_blocks;
            self.peak_stamp = stamp;
            self.below = false;
        } else if !self.below {
            self.below = true;
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.below
    }
}

/// What a site held when a scope was last at its peak, if it changed since.
#[derive(Clone, Copy, Debug, Default)]
struct Saved {
    bytes: u64,
    blocks: u64,
}

/// Tick of a site that has seen none.
const NEVER: u32 = u32::MAX;

/// A site's counters. The first cache line is what every event touches.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Site {
    live_bytes: u64,
    live_blocks: u64,
    total_bytes: u64,
    total_blocks: u64,
    temporary_blocks: u64,
    /// Live bytes in its last point.
    pointed_bytes: u64,
    /// Its process.
    pub(crate) process: u32,
    process_epoch: u32,
    session_epoch: u32,
    /// The last tick in which it changed.
    tick: u32,
    resizes: u64,
    process_saved: Saved,
    session_saved: Saved,
    /// It is in [`Tally::moved`].
    is_listed: bool,
    /// It is in [`Tally::far`].
    is_far: bool,
    /// It is in [`Tally::open`].
    is_open: bool,
    /// Its process has ended, with this site's blocks.
    is_over: bool,
    /// Its blocks' domain, as events give it.
    domain: u8,
}

impl Site {
    fn new(process: u32, domain: u8) -> Self {
        Site {
            live_bytes: 0,
            live_blocks: 0,
            total_bytes: 0,
            total_blocks: 0,
            temporary_blocks: 0,
            pointed_bytes: 0,
            process,
            process_epoch: 0,
            session_epoch: 0,
            tick: NEVER,
            resizes: 0,
            process_saved: Saved::default(),
            session_saved: Saved::default(),
            is_listed: false,
            is_far: false,
            is_open: false,
            is_over: false,
            domain,
        }
    }

    fn total(&self) -> Amount {
        Amount {
            blocks: self.total_blocks,
            bytes: self.total_bytes,
        }
    }

    fn live(&self) -> Amount {
        Amount {
            blocks: self.live_blocks,
            bytes: self.live_bytes,
        }
    }

    fn counters(&self) -> Counters {
        Counters {
            live_bytes: self.live_bytes,
            live_blocks: self.live_blocks,
            total_bytes: self.total_bytes,
            total_blocks: self.total_blocks,
            temporary_blocks: self.temporary_blocks,
            resizes: self.resizes,
        }
    }
}

/// Sites by id, in sheets: those of processes that are over are given up
/// sheet by sheet, so that a session of ten thousand short processes holds
/// what the living ones need.
#[derive(Debug, Default)]
struct Sites {
    sheets: Vec<Option<Box<Sheet>>>,
    count: u32,
    /// Sheets all of whose sites are over.
    over: Vec<usize>,
}

const SITES_PER_SHEET: usize = 1024;

#[derive(Debug)]
struct Sheet {
    sites: Vec<Site>,
    /// Counters in each site's last point.
    pointed: Vec<Counters>,
    cohorts: Vec<Cohorts>,
    /// Sites that are over.
    over: usize,
}

impl Sites {
    /// Adds a site: its id.
    fn push(&mut self, site: Site) -> u32 {
        let id = self.count;
        self.count += 1;
        if (id as usize).is_multiple_of(SITES_PER_SHEET) {
            self.sheets.push(Some(Box::new(Sheet {
                sites: Vec::with_capacity(SITES_PER_SHEET),
                pointed: Vec::with_capacity(SITES_PER_SHEET),
                cohorts: Vec::with_capacity(SITES_PER_SHEET),
                over: 0,
            })));
        }
        // A sheet is given up only when it is full.
        if let Some(Some(sheet)) = self.sheets.last_mut() {
            sheet.sites.push(site);
            sheet.pointed.push(Counters::default());
            sheet.cohorts.push(Cohorts::default());
        }
        id
    }

    #[inline]
    fn get(&self, id: u32) -> Option<&Site> {
        let sheet = self.sheets.get(id as usize / SITES_PER_SHEET)?.as_ref()?;
        sheet.sites.get(id as usize % SITES_PER_SHEET)
    }

    #[inline]
    fn get_mut(&mut self, id: u32) -> Option<&mut Site> {
        let sheet = self
            .sheets
            .get_mut(id as usize / SITES_PER_SHEET)?
            .as_mut()?;
        sheet.sites.get_mut(id as usize % SITES_PER_SHEET)
    }

    /// A site and the counters in its last point.
    fn with_point(&mut self, id: u32) -> Option<(&mut Site, &mut Counters)> {
        let sheet = self
            .sheets
            .get_mut(id as usize / SITES_PER_SHEET)?
            .as_mut()?;
        let at = id as usize % SITES_PER_SHEET;
        Some((sheet.sites.get_mut(at)?, sheet.pointed.get_mut(at)?))
    }

    /// A site and its cohorts.
    fn with_cohorts(&mut self, id: u32) -> Option<(&mut Site, &mut Cohorts)> {
        let sheet = self
            .sheets
            .get_mut(id as usize / SITES_PER_SHEET)?
            .as_mut()?;
        let at = id as usize % SITES_PER_SHEET;
        Some((sheet.sites.get_mut(at)?, sheet.cohorts.get_mut(at)?))
    }

    #[inline]
    fn cohorts_mut(&mut self, id: u32) -> Option<&mut Cohorts> {
        let sheet = self
            .sheets
            .get_mut(id as usize / SITES_PER_SHEET)?
            .as_mut()?;
        sheet.cohorts.get_mut(id as usize % SITES_PER_SHEET)
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Site)> {
        let sheets = (0u32..).step_by(SITES_PER_SHEET).zip(&self.sheets);
        sheets
            .filter_map(|(first, sheet)| Some((first, sheet.as_ref()?)))
            .flat_map(|(first, sheet)| (first..).zip(&sheet.sites))
    }

    /// Notes that a site is over.
    fn close(&mut self, id: u32) {
        let at = id as usize / SITES_PER_SHEET;
        if let Some(Some(sheet)) = self.sheets.get_mut(at) {
            sheet.over += 1;
            if sheet.over == SITES_PER_SHEET {
                self.over.push(at);
            }
        }
    }

    /// Gives up sheets that are over and of which `is_needed` finds nothing.
    fn give_up(&mut self, is_needed: impl Fn(&Site, &Cohorts) -> bool) {
        let sheets = &mut self.sheets;
        self.over.retain(|&at| {
            let needed = sheets[at].as_ref().is_some_and(|sheet| {
                let mut all = sheet.sites.iter().zip(&sheet.cohorts);
                all.any(|(site, cohorts)| is_needed(site, cohorts))
            });
            if !needed {
                sheets[at] = None;
            }
            needed
        });
    }

    #[cfg(test)]
    fn sheets(&self) -> usize {
        self.sheets.iter().flatten().count()
    }
}

/// How an event changes a block's site and its cohort.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// So much more is alive (wrapping: a negative number takes away).
    alive: Amount,
    /// Bytes more that count as allocated, of a block that is not born now.
    born_bytes: u64,
}

impl Change {
    fn of(bytes: u64, blocks: u64) -> Self {
        Change {
            alive: Amount { blocks, bytes },
            born_bytes: 0,
        }
    }
}

/// A thread's counters.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadState {
    counters: Counters,
    /// It changed since it was last reported.
    is_changed: bool,
}

/// Births and their bytes by the size's significant bits.
#[derive(Debug)]
struct Classes([(u64, u64); 48]);

impl Default for Classes {
    fn default() -> Self {
        Classes([(0, 0); 48])
    }
}

/// The session's counters.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sites: Sites,
    /// Sites that changed since their last point.
    moved: Vec<u32>,
    /// Those of them that stood [`MOVED_BYTES`] from their last point at some
    /// time since: what an incomplete bin looks at. A program's start makes a
    /// hundred thousand sites that move, and bins of a millisecond.
    far: Vec<u32>,
    /// Tells when blocks are born.
    pub(crate) ticks: Ticks,
    /// Sites whose open cohort has something.
    open: Vec<u32>,
    /// Sites whose cohorts have something to tell.
    waiting: Vec<u32>,
    threads: Vec<ThreadState>,
    /// The session, merged: blocks count for the process that bore them, as
    /// long as it lives and has them.
    pub(crate) session: Scope,
    /// Most live bytes since the last bin began.
    pub(crate) bin_max: u64,
    sizes: Classes,
    sizes_changed: bool,
    /// By process, then by node and domain.
    by_key: FxHashMap<u32, FxHashMap<(u32, u8), u32>>,
}

impl Tally {
    /// The site of a stack in a process and domain; `Err`: it is new and has
    /// this id, the caller tells the recording.
    pub(crate) fn site(&mut self, process: u32, node: u32, domain: u8) -> Result<u32, u32> {
        let known = self.by_key.entry(process).or_default();
        match known.entry((node, domain)) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(*entry.get()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let id = self.sites.push(Site::new(process, domain));
                Err(*entry.insert(id))
            }
        }
    }

    /// Adds a thread: its id.
    pub(crate) fn add_thread(&mut self) -> u32 {
        self.threads.push(ThreadState::default());
        self.threads.len() as u32 - 1
    }

    /// The process that a site belongs to.
    #[inline]
    pub(crate) fn process_of(&self, site: u32) -> u32 {
        self.sites.get(site).map_or(u32::MAX, |site| site.process)
    }

    /// The domain of a site's blocks, as events give it.
    pub(crate) fn domain_of(&self, site: u32) -> Option<u8> {
        self.sites.get(site).map(|site| site.domain)
    }

    /// The domain of each site, by id; of those that are over, any.
    pub(crate) fn domains(&self) -> Vec<u8> {
        (0..self.sites.count)
            .map(|id| self.domain_of(id).unwrap_or(u8::MAX))
            .collect()
    }

    /// Moves a site and the scopes around it by a block's change, and then
    /// does to the site whatever else the event does.
    #[expect(
        clippy::inline_always,
        reason = "an event's hot path: a call is 5 % of it"
    )]
    #[inline(always)]
    fn shift(
        &mut self,
        process: &mut Scope,
        block: &Block,
        change: Change,
        stamp: u64,
        then: impl FnOnce(&mut Site),
    ) {
        let (bytes, blocks) = (change.alive.bytes, change.alive.blocks);
        let save_process = process.shift(bytes, blocks, stamp);
        let save_session = self.session.shift(bytes, blocks, stamp);
        self.bin_max = self.bin_max.max(self.session.live_bytes);
        let site = block.site;
        let state = match self.sites.get_mut(site) {
            Some(state) if state.tick == self.ticks.now => state,
            Some(_) => {
                self.wake(site);
                match self.sites.get_mut(site) {
                    Some(state) => state,
                    None => return,
                }
            }
            None => return,
        };
        let held = Saved {
            bytes: state.live_bytes,
            blocks: state.live_blocks,
        };
        if save_process && state.process_epoch != process.epoch {
            state.process_epoch = process.epoch;
            state.process_saved = held;
        }
        if save_session && state.session_epoch != self.session.epoch {
            state.session_epoch = self.session.epoch;
            state.session_saved = held;
        }
        state.live_bytes = state.live_bytes.wrapping_add(bytes);
        state.live_blocks = state.live_blocks.wrapping_add(blocks);
        if state.live_bytes.abs_diff(state.pointed_bytes) > MOVED_BYTES && !state.is_far {
            state.is_far = true;
            self.far.push(site);
        }
        then(state);
        if block.birth != self.ticks.now
            && let Some(cohorts) = self.sites.cohorts_mut(site)
            && cohorts.change(&self.ticks, block.birth, change.alive, change.born_bytes)
        {
            self.waiting.push(site);
        }
    }

    /// A site is about to change for the first time in this tick.
    #[cold]
    #[inline(never)]
    fn wake(&mut self, id: u32) {
        let Some((site, cohorts)) = self.sites.with_cohorts(id) else {
            return;
        };
        if site.tick == NEVER {
            cohorts.begin(&self.ticks);
        } else if cohorts.close(&self.ticks, site.total(), site.live(), false) {
            self.waiting.push(id);
        }
        site.tick = self.ticks.now;
        if !site.is_listed {
            site.is_listed = true;
            self.moved.push(id);
        }
        if !site.is_open {
            site.is_open = true;
            self.open.push(id);
        }
    }

    /// Counts a birth.
    #[expect(clippy::inline_always, reason = "with constants it is half as long")]
    #[inline(always)]
    pub(crate) fn born(
        &mut self,
        process: &mut Scope,
        block: &Block,
        weighed: Weighed,
        stamp: u64,
    ) {
        let Amount { blocks, bytes } = weighed.amount;
        let class = (u64::BITS - weighed.size.leading_zeros()) as usize;
        // Sizes are capped: the class exists.
        if let Some(class) = self.sizes.0.get_mut(class) {
            class.0 = class.0.wrapping_add(blocks);
            class.1 = class.1.wrapping_add(bytes);
        }
        self.sizes_changed = true;
        if let Some(thread) = self.threads.get_mut(block.thread as usize) {
            let counters = &mut thread.counters;
            counters.live_bytes = counters.live_bytes.wrapping_add(bytes);
            counters.live_blocks = counters.live_blocks.wrapping_add(blocks);
            counters.total_bytes = counters.total_bytes.wrapping_add(bytes);
            counters.total_blocks = counters.total_blocks.wrapping_add(blocks);
            thread.is_changed = true;
        }
        self.shift(process, block, Change::of(bytes, blocks), stamp, |site| {
            site.total_bytes = site.total_bytes.wrapping_add(bytes);
            site.total_blocks = site.total_blocks.wrapping_add(blocks);
        });
    }

    /// Counts a death.
    #[expect(clippy::inline_always, reason = "with constants it is half as long")]
    #[inline(always)]
    pub(crate) fn died(
        &mut self,
        process: &mut Scope,
        block: &Block,
        weighed: Weighed,
        is_temporary: bool,
        stamp: u64,
    ) {
        let bytes = weighed.amount.bytes.wrapping_neg();
        let blocks = weighed.amount.blocks;
        let temporary = if is_temporary { blocks } else { 0 };
        if let Some(thread) = self.threads.get_mut(block.thread as usize) {
            let counters = &mut thread.counters;
            counters.live_bytes = counters.live_bytes.wrapping_add(bytes);
            counters.live_blocks = counters.live_blocks.wrapping_sub(blocks);
            counters.temporary_blocks = counters.temporary_blocks.wrapping_add(temporary);
            thread.is_changed = true;
        }
        let change = Change::of(bytes, blocks.wrapping_neg());
        self.shift(process, block, change, stamp, |site| {
            site.temporary_blocks = site.temporary_blocks.wrapping_add(temporary);
        });
    }

    /// Counts a resize in place.
    pub(crate) fn resized(&mut self, process: &mut Scope, block: &Block, size: u64, stamp: u64) {
        let change = size.wrapping_sub(block.size);
        let growth = size.saturating_sub(block.size);
        if let Some(thread) = self.threads.get_mut(block.thread as usize) {
            let counters = &mut thread.counters;
            counters.live_bytes = counters.live_bytes.wrapping_add(change);
            counters.total_bytes = counters.total_bytes.wrapping_add(growth);
            counters.resizes += 1;
            thread.is_changed = true;
        }
        let change = Change {
            born_bytes: growth,
            ..Change::of(change, 0)
        };
        self.shift(process, block, change, stamp, |site| {
            site.total_bytes = site.total_bytes.wrapping_add(growth);
            site.resizes += 1;
        });
    }

    /// Counts blocks and bytes that come or go without a birth or death of
    /// their own: a mapping that was split, or lost a part.
    pub(crate) fn reshaped(
        &mut self,
        process: &mut Scope,
        block: &Block,
        bytes: u64,
        blocks: u64,
        stamp: u64,
    ) {
        if let Some(thread) = self.threads.get_mut(block.thread as usize) {
            let counters = &mut thread.counters;
            counters.live_bytes = counters.live_bytes.wrapping_add(bytes);
            counters.live_blocks = counters.live_blocks.wrapping_add(blocks);
            thread.is_changed = true;
        }
        self.shift(process, block, Change::of(bytes, blocks), stamp, |_| {});
    }

    /// A process ended while others live on: what its sites hold is gone from
    /// the session. They keep their counters as of its end.
    pub(crate) fn retire(&mut self, sites: &[u32], stamp: u64) {
        let (bytes, blocks) = sites.iter().filter_map(|id| self.sites.get(*id)).fold(
            (0u64, 0u64),
            |(bytes, blocks), site| {
                (
                    bytes.wrapping_add(site.live_bytes),
                    blocks.wrapping_add(site.live_blocks),
                )
            },
        );
        let below = self
            .session
            .shift(bytes.wrapping_neg(), blocks.wrapping_neg(), stamp);
        for &id in sites {
            if let Some(site) = self.sites.get_mut(id) {
                if below && site.session_epoch != self.session.epoch {
                    site.session_epoch = self.session.epoch;
                    site.session_saved = Saved {
                        bytes: site.live_bytes,
                        blocks: site.live_blocks,
                    };
                }
                if !std::mem::replace(&mut site.is_over, true) {
                    let process = site.process;
                    self.sites.close(id);
                    self.by_key.remove(&process);
                    // Nothing dies any more, and nothing is born.
                    if let Some((site, cohorts)) = self.sites.with_cohorts(id)
                        && site.tick != NEVER
                        && cohorts.close(&self.ticks, site.total(), site.live(), true)
                    {
                        self.waiting.push(id);
                    }
                }
            }
        }
    }

    /// What each of some sites holds now: id, bytes, blocks. Sites without
    /// live blocks are left out.
    pub(crate) fn live_by_site(&self, sites: &[u32]) -> Vec<(u32, u64, u64)> {
        sites
            .iter()
            .filter_map(|id| {
                let site = self.sites.get(*id)?;
                (site.live_blocks != 0).then_some((*id, site.live_bytes, site.live_blocks))
            })
            .collect()
    }

    /// What each of a process's own sites held at that process's peak.
    pub(crate) fn process_peak(&self, sites: &[u32], scope: &Scope) -> Vec<(u32, u64, u64)> {
        let held = |id: &u32| {
            let site = self.sites.get(*id)?;
            let held = if scope.below && site.process_epoch == scope.epoch {
                site.process_saved
            } else {
                Saved {
                    bytes: site.live_bytes,
                    blocks: site.live_blocks,
                }
            };
            (held.blocks != 0).then_some((*id, held.bytes, held.blocks))
        };
        sites.iter().filter_map(held).collect()
    }

    /// What each site held at the session's peak.
    pub(crate) fn session_peak(&self) -> Vec<(u32, u64, u64)> {
        let scope = &self.session;
        let held = |(id, site): (u32, &Site)| {
            let held = if scope.below && site.session_epoch == scope.epoch {
                site.session_saved
            } else if site.is_over {
                Saved::default()
            } else {
                Saved {
                    bytes: site.live_bytes,
                    blocks: site.live_blocks,
                }
            };
            (held.blocks != 0).then_some((id, held.bytes, held.blocks))
        };
        self.sites.iter().filter_map(held).collect()
    }

    /// What became of blocks by when they were born, since it was last told:
    /// for the bin that ends now and is complete, before its points are taken.
    /// Rising by site. Where it is much and `is_all` is not asked for, nothing:
    /// it waits.
    pub(crate) fn cohorts(&mut self, is_all: bool) -> Vec<SiteCohorts> {
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&id| {
            let Some((site, cohorts)) = self.sites.with_cohorts(id) else {
                return false;
            };
            let (total, live) = (site.total(), site.live());
            if cohorts.close(&self.ticks, total, live, false) {
                self.waiting.push(id);
            }
            site.is_open = !cohorts.is_open_empty(total, live);
            site.is_open
        });
        self.open = open;
        if !is_all {
            let cohorts = |id: &u32| self.sites.cohorts_mut(*id).map_or(0, |c| c.waiting());
            let changes: usize = self.waiting.iter().map(cohorts).sum();
            if changes > MOST_CHANGES {
                return Vec::new();
            }
        }
        self.waiting.sort_unstable();
        let mut told = Vec::with_capacity(self.waiting.len());
        for site in self.waiting.drain(..) {
            let cohorts = self.sites.cohorts_mut(site);
            if let Some((level, cohorts)) = cohorts.and_then(Cohorts::tell) {
                told.push(SiteCohorts {
                    site,
                    level,
                    cohorts,
                });
            }
        }
        told
    }

    /// Points for a bin: of all sites that changed, or of those that moved
    /// enough. Rising by site. All: ends the tick.
    pub(crate) fn points(&mut self, all: bool) -> Vec<Point> {
        let mut ids = std::mem::take(&mut self.far);
        if all {
            for id in ids.drain(..) {
                if let Some(site) = self.sites.get_mut(id) {
                    site.is_far = false;
                }
            }
            ids = std::mem::take(&mut self.moved);
        }
        ids.sort_unstable();
        let mut points = Vec::new();
        for &id in &ids {
            let Some((site, last)) = self.sites.with_point(id) else {
                continue;
            };
            site.is_far = false;
            if all {
                site.is_listed = false;
            } else {
                // It stays among the moved: what it does later counts too.
                let moved_bytes = site.live_bytes.abs_diff(last.live_bytes);
                if moved_bytes <= MOVED_BYTES.max(last.live_bytes / 100) {
                    continue;
                }
            }
            let now = site.counters();
            if now == *last {
                continue;
            }
            let change = |now: u64, last: u64| now.wrapping_sub(last).cast_signed();
            points.push(Point {
                site: id,
                live_bytes: change(now.live_bytes, last.live_bytes),
                live_blocks: change(now.live_blocks, last.live_blocks),
                total_bytes: change(now.total_bytes, last.total_bytes),
                total_blocks: change(now.total_blocks, last.total_blocks),
                temporary_blocks: change(now.temporary_blocks, last.temporary_blocks),
                resizes: change(now.resizes, last.resizes),
            });
            site.pointed_bytes = now.live_bytes;
            *last = now;
        }
        // Their room is used again.
        ids.clear();
        if all {
            self.moved = ids;
            // What the state at the peak is still told from stays.
            let Scope { epoch, below, .. } = self.session;
            self.ticks.end();
            self.sites.give_up(|site, cohorts| {
                site.is_listed
                    || cohorts.is_waiting()
                    || below && site.session_epoch == epoch && site.session_saved.blocks != 0
            });
        } else {
            self.far = ids;
        }
        points
    }

    /// Records of the threads that changed since they were last asked for,
    /// and of the sizes likewise.
    pub(crate) fn changed_totals(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for (thread, state) in (0..).zip(&mut self.threads) {
            if std::mem::take(&mut state.is_changed) {
                records.push(Record::ThreadTotals(ThreadTotals {
                    thread,
                    counters: state.counters,
                }));
            }
        }
        if std::mem::take(&mut self.sizes_changed) {
            let sizes = &self.sizes.0;
            let used = sizes
                .iter()
                .rposition(|class| class.0 > 0)
                .map_or(0, |at| at + 1);
            records.push(Record::Sizes(Sizes {
                classes: sizes[..used].to_vec(),
            }));
        }
        records
    }
}

/// The record of a thread's first event.
pub(crate) fn thread_record(process: u32, tid: u32, name: &[u8; 16], at_ns: u64) -> Record {
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Record::Thread(Thread {
        process,
        tid,
        name: crate::names::plain_text(&name[..end]),
        at_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn born(tally: &mut Tally, process: &mut Scope, block: &Block, stamp: u64) {
        tally.born(process, block, Weighed::itself(block.size), stamp);
    }

    fn died(tally: &mut Tally, process: &mut Scope, block: &Block, stamp: u64) {
        tally.died(process, block, Weighed::itself(block.size), false, stamp);
    }

    #[test]
    fn small_moves_wait_and_add_up() {
        let mut tally = Tally::default();
        let mut process = Scope::default();
        let site = tally.site(0, 1, 0).unwrap_err();
        let block = |size| Block {
            size,
            site,
            thread: 0,
            birth: 0,
        };
        born(&mut tally, &mut process, &block(40_000), 1);
        assert!(tally.points(false).is_empty());
        born(&mut tally, &mut process, &block(40_000), 2);
        let points = tally.points(false);
        assert_eq!((points[0].live_bytes, points[0].live_blocks), (80_000, 2));
        died(&mut tally, &mut process, &block(40_000), 3);
        assert!(tally.points(false).is_empty(), "half of it is no point yet");
        assert_eq!(
            tally.points(true)[0].live_bytes,
            -40_000,
            "unless all are asked for"
        );
        assert!(tally.points(true).is_empty());
    }

    #[test]
    fn what_ended_processes_held_is_given_up() {
        let mut tally = Tally::default();
        let many = 3 * SITES_PER_SHEET as u32;
        let block = |site| Block {
            size: 10,
            site,
            thread: 0,
            birth: 0,
        };
        let run = |tally: &mut Tally, process: u32| -> Vec<u32> {
            let mut scope = Scope::default();
            let sites: Vec<u32> = (1..=many)
                .map(|node| tally.site(process, node, 0).unwrap_err())
                .collect();
            for &site in &sites {
                born(tally, &mut scope, &block(site), 1);
            }
            sites
        };
        let first = run(&mut tally, 0);
        tally.retire(&first, 2);
        assert_eq!(tally.cohorts(true).len(), many as usize);
        tally.points(true);
        assert_eq!(
            tally.sites.sheets(),
            3,
            "the high-water mark is told from them"
        );
        assert_eq!(tally.session_peak().len(), many as usize);

        // A higher one makes them void.
        let second = run(&mut tally, 1);
        let mut scope = Scope::default();
        born(&mut tally, &mut scope, &block(second[0]), 3);
        tally.points(true);
        assert_eq!(tally.sites.sheets(), 3, "the first process's are gone");
        let peak: u64 = tally.session_peak().iter().map(|row| row.2).sum();
        assert_eq!(peak, u64::from(many) + 1);
        assert_eq!(tally.process_of(first[0]), u32::MAX);
        assert_eq!(tally.process_of(second[0]), 1);
    }

    proptest! {
        /// The saved state equals a copy of everything taken at each new peak.
        #[test]
        fn the_peak_by_site_is_exact(steps in prop::collection::vec((0..5u32, 0..100u64, any::<bool>()), 1..300)) {
            let mut tally = Tally::default();
            let mut process = Scope::default();
            for node in 0..5 {
                tally.site(0, node, 0).unwrap_err();
            }
            let mut live: Vec<Block> = Vec::new();
            let mut now: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            let (mut peak, mut at_peak) = (0, BTreeMap::new());
            for (stamp, (site, size, birth)) in (0..).zip(steps) {
                if birth || live.is_empty() {
                    let block = Block { size, site, thread: 0, birth: 0 };
                    live.push(block);
                    born(&mut tally, &mut process, &block, stamp);
                    let held = now.entry(site).or_default();
                    *held = (held.0 + size, held.1 + 1);
                } else {
                    let block = live.swap_remove(size as usize % live.len());
                    died(&mut tally, &mut process, &block, stamp);
                    let held = now.entry(block.site).or_default();
                    *held = (held.0 - block.size, held.1 - 1);
                }
                let bytes: u64 = now.values().map(|held| held.0).sum();
                if bytes > peak {
                    peak = bytes;
                    at_peak.clone_from(&now);
                }
            }
            let expected: Vec<(u32, u64, u64)> = at_peak
                .into_iter()
                .filter(|(_, held)| held.1 != 0)
                .map(|(site, held)| (site, held.0, held.1))
                .collect();
            prop_assert_eq!(process.peak_bytes, peak);
            // A scope that never rose above 0 has no peak to ask for.
            if peak > 0 {
                prop_assert_eq!(&tally.session_peak(), &expected);
                prop_assert_eq!(&tally.process_peak(&[0, 1, 2, 3, 4], &process), &expected);
            }
        }
    }
}
