//! The live table: address -> block, for one process.
//!
//! # Layout
//!
//! Open addressing with linear probing over entries of 24 bytes, split into
//! [`SHARDS`] by the top bits of the hash, so that no growth moves more than a
//! small part at once. A shard is between 0.5 and 0.75 full (above some
//! thousand entries it grows by half): 32 to 48 bytes a block. Positions rise
//! with the hash, and probing runs on past the nominal end, so nothing wraps
//! and a shard grows in one sweep over its memory.
//!
//! Hits and misses alike mostly touch one cache line, which
//! [`LiveSet::prefetch`] can have fetched some events ahead.
//!
//! # Fork
//!
//! A fork freezes the table into a [`Layer`] that parent and child share. Each
//! writes into a table of its own above it, where a block of the layers below
//! that died has a *tombstone*. Layers are merged so that each is at most half
//! as large as the one below.
//!
//! # Invariants
//!
//! * An entry that *shadows* covers a block of a layer below that is dead to
//!   this process; when it goes, a tombstone takes its place.
//! * A tombstone exists only above a layer that has the address live.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::{Advice, MmapMut};

const SHARDS: usize = 16;
const SHARD_BITS: u32 = SHARDS.ilog2();
/// Entries beyond a shard's nominal size, for probes that run past its end.
const MARGIN: usize = 32;
/// From this size on shards grow by half instead of doubling.
const LARGE: usize = 4096;
/// Tables smaller than this (in entries) live in the second-level cache
/// anyway: prefetching costs more than it brings.
const PREFETCH_FROM: usize = 4096;

/// Sizes are capped here; no allocator of a 47-bit address space gives more.
pub(crate) const MAX_SIZE: u64 = (1 << 47) - 1;

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Requested bytes, at most [`MAX_SIZE`].
    pub(crate) size: u64,
    /// Where it was born.
    pub(crate) site: u32,
    /// Who allocated it.
    pub(crate) thread: u32,
    /// When it was born, in milliseconds of the session, rounded up to the
    /// round of draining that saw it.
    pub(crate) birth_ms: u32,
}

/// Site of a tombstone.
const TOMBSTONE: u32 = u32::MAX;
const SHADOWS: u64 = 1 << 32;

/// A block, or a tombstone, at an address: three words.
///
/// `address:48 size-low:16 | size-high:31 shadows:1 site:32 | thread:32
/// birth:32`. All-zero is vacant.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct Entry([u64; 3]);

impl Entry {
    fn new(address: u64, block: Block, shadows: bool) -> Self {
        let shadows = if shadows { SHADOWS } else { 0 };
        Entry([
            address << 16 | block.size & 0xffff,
            (block.size >> 16) << 33 | shadows | u64::from(block.site),
            u64::from(block.thread) << 32 | u64::from(block.birth_ms),
        ])
    }

    fn tombstone(address: u64) -> Self {
        Entry([address << 16, u64::from(TOMBSTONE), 0])
    }

    fn address(self) -> u64 {
        self.0[0] >> 16
    }

    fn is_vacant(self) -> bool {
        self.address() == 0
    }

    fn is_tombstone(self) -> bool {
        self.0[1] as u32 == TOMBSTONE
    }

    fn shadows(self) -> bool {
        self.0[1] & SHADOWS != 0
    }

    fn with_shadows(self, shadows: bool) -> Self {
        let flag = if shadows { SHADOWS } else { 0 };
        Entry([self.0[0], self.0[1] & !SHADOWS | flag, self.0[2]])
    }

    fn block(self) -> Block {
        Block {
            size: (self.0[1] >> 33) << 16 | self.0[0] & 0xffff,
            site: self.0[1] as u32,
            thread: (self.0[2] >> 32) as u32,
            birth_ms: self.0[2] as u32,
        }
    }
}

/// Spreads an address over 64 bits. The top bits name the shard, the rest the
/// place in it.
#[inline]
fn hash(address: u64) -> u64 {
    let product = u128::from(address) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

#[inline]
fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

/// A shard's memory, vacant at first.
#[derive(Debug)]
enum Entries {
    /// On the heap.
    Small(Box<[Entry]>),
    /// In a mapping: its first so many.
    Large(MmapMut, usize),
}

impl Entries {
    fn vacant(count: usize) -> Self {
        if count >= LARGE
            && let Ok(map) = MmapMut::map_anon(count * size_of::<Entry>())
        {
            // Only a wish: without huge pages it works as well, more slowly.
            let _ = map.advise(Advice::HugePage);
            return Entries::Large(map, count);
        }
        Entries::Small(vec![Entry::default(); count].into())
    }
}

impl Default for Entries {
    fn default() -> Self {
        Entries::Small(Box::default())
    }
}

impl Deref for Entries {
    type Target = [Entry];

    #[inline]
    fn deref(&self) -> &[Entry] {
        match self {
            Entries::Small(entries) => entries,
            // SAFETY: the mapping is `count` entries long (`vacant`), aligned
            // to a page, readable, ours alone, and began zeroed; an entry is
            // three plain words, valid whatever they hold.
            Entries::Large(map, count) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), *count)
            },
        }
    }
}

impl DerefMut for Entries {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Entry] {
        match self {
            Entries::Small(entries) => entries,
            // SAFETY: as in `deref`; the mapping is writable, and `self` is
            // borrowed mutably as long as the slice is.
            Entries::Large(map, count) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), *count)
            },
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    /// `nominal + MARGIN` of them, or none.
    entries: Entries,
    nominal: usize,
    used: usize,
}

/// Where an address is, or would go.
enum Place {
    At(usize),
    Vacant(usize),
    /// The probe ran off the end: the shard must grow first.
    Full,
}

impl Shard {
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << SHARD_BITS) * self.nominal as u128) >> 64) as usize
    }

    #[inline]
    fn find(&self, address: u64, hash: u64) -> Place {
        let home = self.home(hash);
        for (at, entry) in self.entries.iter().enumerate().skip(home) {
            if entry.address() == address {
                return Place::At(at);
            }
            if entry.is_vacant() {
                return Place::Vacant(at);
            }
        }
        Place::Full
    }

    /// Puts an entry into the vacant place found for it.
    #[inline]
    fn put(&mut self, at: usize, entry: Entry) {
        self.entries[at] = entry;
        self.used += 1;
    }

    #[inline]
    fn needs_room(&self) -> bool {
        self.used * 4 >= self.nominal * 3
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let nominal = if self.nominal < LARGE {
            self.nominal * 2
        } else {
            self.nominal / 2 * 3
        };
        self.resize(nominal.max(16));
    }

    fn resize(&mut self, mut nominal: usize) {
        loop {
            let mut wider =
                Shard { entries: Entries::vacant(nominal + MARGIN), nominal, used: 0 };
            if self
                .entries
                .iter()
                .all(|entry| entry.is_vacant() || wider.insert_new(*entry))
            {
                *self = wider;
                return;
            }
            // A run that reaches the end of the margin: rare, and gone in a
            // somewhat larger table.
            nominal += nominal / 4;
        }
    }

    fn insert_new(&mut self, entry: Entry) -> bool {
        match self.find(entry.address(), hash(entry.address())) {
            Place::Vacant(at) => {
                self.put(at, entry);
                true
            }
            Place::At(_) | Place::Full => false,
        }
    }

    /// Takes an entry out and closes the gap: what follows and may stand
    /// nearer to its home moves up.
    #[inline]
    fn remove(&mut self, at: usize) {
        let mut gap = at;
        let mut next = at + 1;
        while let Some(&entry) = self.entries.get(next) {
            if entry.is_vacant() {
                break;
            }
            if self.home(hash(entry.address())) <= gap {
                self.entries[gap] = entry;
                gap = next;
            }
            next += 1;
        }
        self.entries[gap] = Entry::default();
        self.used -= 1;
        if self.used * 8 < self.nominal && self.nominal > LARGE {
            self.resize(self.nominal / 2);
        }
    }
}

/// A table of blocks and tombstones.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Vec<Shard>,
    len: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            len: 0,
        }
    }
}

impl Table {
    #[inline]
    fn get(&self, address: u64) -> Option<Entry> {
        let hash = hash(address);
        let shard = &self.shards[shard_of(hash)];
        match shard.find(address, hash) {
            Place::At(at) => Some(shard.entries[at]),
            Place::Vacant(_) | Place::Full => None,
        }
    }

    /// Inserts or replaces.
    fn set(&mut self, entry: Entry) {
        let hash = hash(entry.address());
        let shard = &mut self.shards[shard_of(hash)];
        loop {
            match shard.find(entry.address(), hash) {
                Place::At(at) => {
                    shard.entries[at] = entry;
                    return;
                }
                Place::Vacant(at) if !shard.needs_room() => {
                    shard.put(at, entry);
                    self.len += 1;
                    return;
                }
                Place::Vacant(_) | Place::Full => shard.grow(),
            }
        }
    }

    fn delete(&mut self, address: u64) {
        let hash = hash(address);
        let shard = &mut self.shards[shard_of(hash)];
        if let Place::At(at) = shard.find(address, hash) {
            shard.remove(at);
            self.len -= 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shards
            .iter()
            .flat_map(|shard| shard.entries.iter().copied())
            .filter(|entry| !entry.is_vacant())
    }

    fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.entries.len() * size_of::<Entry>())
            .sum()
    }

    /// Lays the entries of a table above over this one.
    fn absorb(&mut self, above: &Table) {
        for entry in above.iter() {
            let address = entry.address();
            match self.get(address) {
                None => self.set(entry),
                Some(below) if entry.is_tombstone() => {
                    if below.is_tombstone() {
                    } else if below.shadows() {
                        self.set(Entry::tombstone(address));
                    } else {
                        self.delete(address);
                    }
                }
                Some(below) => {
                    self.set(entry.with_shadows(below.is_tombstone() || below.shadows()));
                }
            }
        }
    }

    fn copy(&self) -> Table {
        let mut copy = Table::default();
        for (to, from) in copy.shards.iter_mut().zip(&self.shards) {
            to.entries = Entries::vacant(from.entries.len());
            to.entries.copy_from_slice(&from.entries);
            to.nominal = from.nominal;
            to.used = from.used;
        }
        copy.len = self.len;
        copy
    }

    #[inline]
    fn prefetch(&self, address: u64) {
        let hash = hash(address);
        let shard = &self.shards[shard_of(hash)];
        let home = shard.home(hash);
        if let (Some(first), Some(next)) = (shard.entries.get(home), shard.entries.get(home + 2)) {
            // The probe's first line, and what it mostly runs on into.
            prefetch(first);
            prefetch(next);
        }
    }
}

#[inline]
fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and cannot fault; the instruction is
    // part of every x86-64 CPU.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// A table that was frozen by a fork, above those of earlier forks.
#[derive(Debug)]
pub(crate) struct Layer {
    table: Table,
    below: Option<Arc<Layer>>,
}

impl Layer {
    fn get(&self, address: u64) -> Option<Block> {
        let mut layer = self;
        loop {
            if let Some(entry) = layer.table.get(address) {
                return (!entry.is_tombstone()).then(|| entry.block());
            }
            layer = layer.below.as_deref()?;
        }
    }
}

/// The live blocks of a process.
#[derive(Debug, Default)]
pub(crate) struct LiveSet {
    own: Table,
    base: Option<Arc<Layer>>,
}

impl LiveSet {
    /// A forked child's: everything that was live in the parent then.
    pub(crate) fn forked(base: Option<Arc<Layer>>) -> Self {
        LiveSet {
            own: Table::default(),
            base,
        }
    }

    /// Whether [`LiveSet::prefetch`] is worth its cost.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.own.len >= PREFETCH_FROM || self.base.is_some()
    }

    /// Starts to fetch what an event at `address` will touch.
    #[inline]
    pub(crate) fn prefetch(&self, address: u64) {
        self.own.prefetch(address);
        if let Some(base) = &self.base {
            base.table.prefetch(address);
        }
    }

    /// Adds a block, or gives back the one that is still live there.
    ///
    /// `address` is not 0, and below 2^48.
    #[inline]
    pub(crate) fn insert(&mut self, address: u64, block: Block) -> Result<(), Block> {
        let hash = hash(address);
        let shard = &mut self.own.shards[shard_of(hash)];
        loop {
            match shard.find(address, hash) {
                Place::Vacant(at) if !shard.needs_room() => {
                    if let Some(base) = &self.base
                        && let Some(inherited) = base.get(address)
                    {
                        return Err(inherited);
                    }
                    shard.put(at, Entry::new(address, block, false));
                    self.own.len += 1;
                    return Ok(());
                }
                Place::Vacant(_) | Place::Full => shard.grow(),
                Place::At(at) => {
                    let entry = shard.entries[at];
                    if !entry.is_tombstone() {
                        return Err(entry.block());
                    }
                    shard.entries[at] = Entry::new(address, block, true);
                    return Ok(());
                }
            }
        }
    }

    /// Takes a block out.
    #[inline]
    pub(crate) fn remove(&mut self, address: u64) -> Option<Block> {
        let hash = hash(address);
        let shard = &mut self.own.shards[shard_of(hash)];
        if let Place::At(at) = shard.find(address, hash) {
            let entry = shard.entries[at];
            if entry.is_tombstone() {
                return None;
            }
            if entry.shadows() {
                shard.entries[at] = Entry::tombstone(address);
            } else {
                shard.remove(at);
                self.own.len -= 1;
            }
            return Some(entry.block());
        }
        let block = self.base.as_ref()?.get(address)?;
        self.own.set(Entry::tombstone(address));
        Some(block)
    }

    /// Freezes the set for a fork: what a child starts from. This set goes on
    /// above the same layer.
    pub(crate) fn freeze(&mut self) -> Option<Arc<Layer>> {
        if self.own.len > 0 {
            let mut table = std::mem::take(&mut self.own);
            let mut below = self.base.take();
            while let Some(layer) = &below
                && table.len * 2 > layer.table.len
            {
                let mut merged = layer.table.copy();
                merged.absorb(&table);
                table = merged;
                below.clone_from(&layer.below.clone());
            }
            self.base = Some(Arc::new(Layer { table, below }));
        }
        self.base.clone()
    }

    /// Takes layers back that nobody shares any more.
    pub(crate) fn unshare(&mut self) {
        while let Some(layer) = self.base.take() {
            match Arc::try_unwrap(layer) {
                Ok(Layer { mut table, below }) => {
                    table.absorb(&self.own);
                    self.own = table;
                    self.base = below;
                }
                Err(shared) => {
                    self.base = Some(shared);
                    return;
                }
            }
        }
    }

    /// Bytes that this set's own table takes (layers count for whoever froze
    /// them, roughly).
    pub(crate) fn bytes(&self) -> usize {
        self.own.bytes() + self.base.as_ref().map_or(0, |layer| layer.table.bytes())
    }

    /// Blocks of the own table that were born before an instant.
    pub(crate) fn born_before(&self, birth_ms: u32) -> u64 {
        self.own
            .iter()
            .filter(|entry| !entry.is_tombstone() && entry.block().birth_ms < birth_ms)
            .count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn block(size: u64, site: u32) -> Block {
        Block {
            size,
            site,
            thread: site ^ 7,
            birth_ms: 3,
        }
    }

    #[test]
    fn an_entry_keeps_all_its_fields() {
        let extreme = Block {
            size: MAX_SIZE,
            site: TOMBSTONE - 1,
            thread: u32::MAX,
            birth_ms: u32::MAX,
        };
        for shadows in [false, true] {
            let entry = Entry::new((1 << 48) - 1, extreme, shadows);
            assert_eq!(entry.address(), (1 << 48) - 1);
            assert_eq!(entry.block(), extreme);
            assert_eq!(entry.shadows(), shadows);
            assert!(!entry.is_tombstone());
        }
    }

    #[test]
    fn a_block_takes_at_most_48_bytes_in_a_large_table() {
        let mut set = LiveSet::default();
        for index in 0..2_000_000u64 {
            set.insert(0x7f00_0000_0000 + index * 48, block(48, 1))
                .unwrap();
            if index > 1_500_000 && index % 50_000 == 0 {
                let each = set.bytes() as f64 / (index + 1) as f64;
                assert!(each <= 49.0, "{each} bytes a block at {index}");
            }
        }
    }

    #[test]
    fn forks_in_a_row_leave_few_layers() {
        let mut set = LiveSet::default();
        let mut children = Vec::new();
        for address in 1..100_000u64 {
            set.insert(address * 16, block(16, 1)).unwrap();
            if address % 100 == 0 {
                children.push(LiveSet::forked(set.freeze()));
            }
        }
        let mut depth = 0;
        let mut layer = set.base.as_deref();
        while let Some(here) = layer {
            depth += 1;
            layer = here.below.as_deref();
        }
        assert!(depth <= 12, "{depth} layers");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u64, u64),
        Remove(u8, u64),
        Fork(u8),
        Exit(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let address = (1..60u64).prop_map(|n| n * 16);
        prop::collection::vec(
            prop_oneof![
                8 => (any::<u8>(), address.clone(), 0..1000u64)
                    .prop_map(|(p, a, s)| Step::Insert(p, a, s)),
                6 => (any::<u8>(), address).prop_map(|(p, a)| Step::Remove(p, a)),
                1 => any::<u8>().prop_map(Step::Fork),
                1 => any::<u8>().prop_map(Step::Exit),
            ],
            0..400,
        )
    }

    proptest! {
        /// Every process of a forking tree sees what a map of its own, copied
        /// at each fork, would show.
        #[test]
        fn overlays_are_as_good_as_copies(steps in steps()) {
            let mut sets = vec![(LiveSet::default(), HashMap::<u64, Block>::new())];
            for (number, step) in steps.into_iter().enumerate() {
                let pick = |process: u8| process as usize % sets.len();
                match step {
                    Step::Insert(process, address, size) => {
                        let at = pick(process);
                        let (set, model) = &mut sets[at];
                        let new = block(size, number as u32);
                        let expected = model.get(&address).copied().map_or(Ok(()), Err);
                        prop_assert_eq!(set.insert(address, new), expected);
                        model.entry(address).or_insert(new);
                    }
                    Step::Remove(process, address) => {
                        let at = pick(process);
                        let (set, model) = &mut sets[at];
                        prop_assert_eq!(set.remove(address), model.remove(&address));
                    }
                    Step::Fork(process) if sets.len() < 6 => {
                        let at = pick(process);
                        let base = sets[at].0.freeze();
                        let model = sets[at].1.clone();
                        sets.push((LiveSet::forked(base), model));
                    }
                    Step::Fork(process) => {
                        let at = pick(process);
                        sets[at].0.unshare();
                    }
                    Step::Exit(process) if sets.len() > 1 => {
                        let at = pick(process);
                        sets.remove(at);
                        for (set, _) in &mut sets {
                            set.unshare();
                        }
                    }
                    Step::Exit(_) => {}
                }
            }
            for (set, model) in &mut sets {
                for address in (1..60u64).map(|n| n * 16) {
                    prop_assert_eq!(set.remove(address), model.remove(&address));
                }
            }
        }
    }

    #[test]
    #[ignore = "speed"]
    fn speed() {
        for live in [10_000_000u64] {
            let huge = || std::fs::read_to_string("/proc/self/smaps_rollup").unwrap().lines().find(|l| l.starts_with("AnonHuge")).unwrap().to_owned();
            let mut set = LiveSet::default();
            let address = |place: u64| 0x7f00_0000_0000 + place * 48;
            let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            for place in 0..live { set.insert(address(place), block(48, 1)).unwrap(); }
            let births = { let n = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime); ((n.tv_sec - t.tv_sec) * 1_000_000_000 + n.tv_nsec - t.tv_nsec) as f64 } / live as f64;
            let mut seed = 1u64;
            let mut mix = || { seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); seed >> 33 };
            let n = 20_000_000u64;
            for ahead in [8usize, 8] {
                let mut queue: std::collections::VecDeque<u64> = (0..ahead.max(1)).map(|_| address(mix() % live)).collect();
                let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                for _ in 0..n {
                    let next = address(mix() % live);
                    if ahead > 0 { set.prefetch(next); }
                    queue.push_back(next);
                    let a = queue.pop_front().unwrap();
                    let b = set.remove(a).unwrap();
                    set.insert(a, b).unwrap();
                }
                println!("{} live {live} births {births:.0} ns; ahead {ahead}: {:.1} ns a pair, {:.1} B", huge(), { let n = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime); ((n.tv_sec - t.tv_sec) * 1_000_000_000 + n.tv_nsec - t.tv_nsec) as f64 } / n as f64, set.bytes() as f64 / live as f64);
            }
        }
    }
}
