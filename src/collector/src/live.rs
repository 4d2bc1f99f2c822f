//! The live table: address -> block, for one process.
//!
//! # Layout
//!
//! Hashing into buckets of five entries, two cache lines together: one byte of
//! each entry's hash stands in the first line, so that what is not there is
//! mostly known from that line alone. What does not fit goes to a bucket
//! behind, and the buckets it passed count it: a look-up ends where nothing
//! passed, and a death only clears its place. (Linear probing over bare
//! entries had to close gaps, which at a load of 0.6 reads four entries on
//! average beyond the dead one: 350 ns a pair at 10 M live.)
//!
//! [`LiveSet::prefetch`] has the bucket fetched some events ahead. The table is
//! split into [`SHARDS`] by the top bits of the hash, so that no growth moves
//! more than a small part at once; a shard is between 0.53 and 0.8 full (large
//! ones grow by half): 32 to 48 bytes a block. Large shards lie in mappings of
//! their own, in huge pages where the kernel gives them: at millions of live
//! blocks nearly every access misses the TLB otherwise, and a mapping goes
//! back to the kernel whole when its shard has grown out of it.
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
/// Entries of a bucket.
const SLOTS: usize = 5;
/// Entries a bucket is to hold on average before its shard grows.
const FULL: usize = 4;
/// Buckets beyond a shard's nominal size, for what its last ones cannot hold.
const MARGIN: usize = 8;
/// From this many buckets on shards lie in mappings, and grow by half instead
/// of doubling.
const LARGE: usize = 1024;
/// Tables smaller than this (in blocks) live in the second-level cache anyway:
/// prefetching costs more than it brings.
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
    /// When it was born, as a tick ([`crate::cohorts::Ticks`]).
    pub(crate) birth: u32,
}

/// Site of a tombstone.
const TOMBSTONE: u32 = u32::MAX;
const SHADOWS: u64 = 1 << 32;

/// A block, or a tombstone, at an address: three words.
///
/// `address:48 size-low:16 | size-high:31 shadows:1 site:32 | thread:32
/// birth:32`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct Entry([u64; 3]);

impl Entry {
    fn new(address: u64, block: Block, shadows: bool) -> Self {
        let shadows = if shadows { SHADOWS } else { 0 };
        Entry([
            address << 16 | block.size & 0xffff,
            (block.size >> 16) << 33 | shadows | u64::from(block.site),
            u64::from(block.thread) << 32 | u64::from(block.birth),
        ])
    }

    fn tombstone(address: u64) -> Self {
        Entry([address << 16, u64::from(TOMBSTONE), 0])
    }

    fn address(self) -> u64 {
        self.0[0] >> 16
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
            birth: self.0[2] as u32,
        }
    }
}

/// Spreads an address over 64 bits: the top ones name the shard, then come
/// those for the bucket; [`mark`] takes its byte from below. Two rounds: one
/// multiplication alone puts some strides (48, 4096) into dense runs.
#[inline]
fn hash(address: u64) -> u64 {
    let once = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (once ^ (once >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[inline]
fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

/// A byte of the hash, never 0.
#[inline]
fn mark(hash: u64) -> u8 {
    ((hash >> 24) as u8).max(1)
}

/// A bit for each of five bytes.
const EACH: u64 = 0x01_0101_0101;
/// Where the count of passed entries stands in [`Bucket::marks`].
const PASSED: u32 = 40;
/// From here on a count of passed entries stays: it is not known any more.
const MANY: u64 = 255;

/// Five entries. All-zero is vacant.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
struct Bucket {
    /// A byte each: the marks of the entries, 0 where vacant; then how many
    /// entries passed this bucket for one behind.
    marks: u64,
    entries: [Entry; SLOTS],
}

impl Bucket {
    /// The top bit of a byte for each entry with this mark, and no other: a
    /// vacant place still holds the address of what was there.
    #[inline]
    fn with_mark(&self, mark: u8) -> u64 {
        let differing = (self.marks ^ (u64::from(mark) * EACH)) & (EACH * 0xff);
        // No sum carries into the next byte.
        let low_bits = (differing & (EACH * 0x7f)) + EACH * 0x7f;
        !(low_bits | differing) & (EACH * 0x80)
    }

    #[inline]
    fn position(&self, address: u64, mark: u8) -> Option<usize> {
        let mut candidates = self.with_mark(mark);
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize / 8;
            if self.entries[slot].address() == address {
                return Some(slot);
            }
            candidates &= candidates - 1;
        }
        None
    }

    #[inline]
    fn passed(&self) -> u64 {
        self.marks >> PASSED
    }

    #[inline]
    fn set_mark(&mut self, slot: usize, mark: u8) {
        let shift = slot * 8;
        self.marks = self.marks & !(0xff << shift) | u64::from(mark) << shift;
    }
}

/// A shard's memory, vacant at first.
#[derive(Debug)]
enum Buckets {
    /// On the heap.
    Small(Box<[Bucket]>),
    /// In a mapping: its first so many.
    Large(MmapMut, usize),
}

impl Buckets {
    fn vacant(count: usize) -> Self {
        if count >= LARGE
            && let Ok(map) = MmapMut::map_anon(count * size_of::<Bucket>())
        {
            // Only a wish: without huge pages it works as well, more slowly.
            let _ = map.advise(Advice::HugePage);
            return Buckets::Large(map, count);
        }
        Buckets::Small(vec![Bucket::default(); count].into())
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets::Small(Box::default())
    }
}

impl Deref for Buckets {
    type Target = [Bucket];

    #[inline]
    fn deref(&self) -> &[Bucket] {
        match self {
            Buckets::Small(buckets) => buckets,
            // SAFETY: the mapping is `count` buckets long (`vacant`), aligned
            // to a page, readable, ours alone, and began zeroed; a bucket is
            // plain words, valid whatever they hold.
            Buckets::Large(map, count) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), *count)
            },
        }
    }
}

impl DerefMut for Buckets {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Bucket] {
        match self {
            Buckets::Small(buckets) => buckets,
            // SAFETY: as in `deref`; the mapping is writable, and `self` is
            // borrowed mutably as long as the slice is.
            Buckets::Large(map, count) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), *count)
            },
        }
    }
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: usize,
    slot: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// `nominal + MARGIN` of them, or none.
    buckets: Buckets,
    nominal: usize,
    used: usize,
}

impl Shard {
    /// Rises with the hash, so that a shard grows in one sweep over its
    /// memory.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << SHARD_BITS) * self.nominal as u128) >> 64) as usize
    }

    #[inline]
    fn find(&self, address: u64, hash: u64) -> Option<Place> {
        let (home, mark) = (self.home(hash), mark(hash));
        for (bucket, here) in (home..).zip(self.buckets.get(home..)?) {
            if let Some(slot) = here.position(address, mark) {
                return Some(Place { bucket, slot });
            }
            if here.passed() == 0 {
                return None;
            }
        }
        None
    }

    #[inline]
    fn at(&mut self, place: Place) -> &mut Entry {
        &mut self.buckets[place.bucket].entries[place.slot]
    }

    /// Adds an entry for an address that has none.
    #[inline]
    fn add(&mut self, entry: Entry, hash: u64) {
        while self.used >= self.nominal * FULL || !self.put(entry, hash) {
            self.grow();
        }
    }

    /// Puts an entry into the first bucket with room. False when there is
    /// none up to the end.
    #[inline]
    fn put(&mut self, entry: Entry, hash: u64) -> bool {
        let home = self.home(hash);
        let room = self.buckets[home..]
            .iter()
            .position(|bucket| bucket.with_mark(0) != 0);
        let Some(distance) = room else {
            return false;
        };
        for passed in &mut self.buckets[home..home + distance] {
            if passed.passed() < MANY {
                passed.marks += 1 << PASSED;
            }
        }
        let bucket = &mut self.buckets[home + distance];
        let slot = bucket.with_mark(0).trailing_zeros() as usize / 8;
        bucket.set_mark(slot, mark(hash));
        bucket.entries[slot] = entry;
        self.used += 1;
        true
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let nominal = if self.nominal < LARGE {
            self.nominal * 2
        } else {
            self.nominal / 2 * 3
        };
        self.resize(nominal.max(4));
    }

    fn resize(&mut self, mut nominal: usize) {
        loop {
            let mut wider = Shard {
                buckets: Buckets::vacant(nominal + MARGIN),
                nominal,
                used: 0,
            };
            if self
                .iter()
                .all(|entry| wider.put(entry, hash(entry.address())))
            {
                *self = wider;
                return;
            }
            // A crowd at the very end: rare, and gone in a larger table.
            nominal += nominal / 4;
        }
    }

    /// Takes an entry out.
    #[inline]
    fn remove(&mut self, place: Place, hash: u64) {
        let home = self.home(hash);
        for passed in &mut self.buckets[home..place.bucket] {
            if passed.passed() < MANY {
                passed.marks -= 1 << PASSED;
            }
        }
        self.buckets[place.bucket].set_mark(place.slot, 0);
        self.used -= 1;
        if self.nominal > LARGE && self.used < self.nominal {
            self.resize(self.nominal / 2);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.buckets.iter().flat_map(|bucket| {
            (0..SLOTS)
                .filter(|slot| bucket.marks >> (slot * 8) & 0xff != 0)
                .map(|slot| bucket.entries[slot])
        })
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
            shards: std::iter::repeat_with(Shard::default)
                .take(SHARDS)
                .collect(),
            len: 0,
        }
    }
}

impl Table {
    #[inline]
    fn get(&self, address: u64) -> Option<Entry> {
        let hash = hash(address);
        let shard = &self.shards[shard_of(hash)];
        let place = shard.find(address, hash)?;
        Some(shard.buckets[place.bucket].entries[place.slot])
    }

    /// Inserts or replaces.
    fn set(&mut self, entry: Entry) {
        let hash = hash(entry.address());
        let shard = &mut self.shards[shard_of(hash)];
        if let Some(place) = shard.find(entry.address(), hash) {
            *shard.at(place) = entry;
        } else {
            shard.add(entry, hash);
            self.len += 1;
        }
    }

    fn delete(&mut self, address: u64) {
        let hash = hash(address);
        let shard = &mut self.shards[shard_of(hash)];
        if let Some(place) = shard.find(address, hash) {
            shard.remove(place, hash);
            self.len -= 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.shards.iter().flat_map(Shard::iter)
    }

    fn bytes(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| size_of_val(&*shard.buckets))
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
        let copy = |from: &Shard| {
            let mut buckets = Buckets::vacant(from.buckets.len());
            buckets.copy_from_slice(&from.buckets);
            Shard {
                buckets,
                nominal: from.nominal,
                used: from.used,
            }
        };
        Table {
            shards: self.shards.iter().map(copy).collect(),
            len: self.len,
        }
    }

    #[inline]
    fn prefetch(&self, address: u64) {
        let hash = hash(address);
        let shard = &self.shards[shard_of(hash)];
        if let Some(bucket) = shard.buckets.get(shard.home(hash)) {
            prefetch(&bucket.marks);
            prefetch(&bucket.entries[SLOTS - 1]);
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
    /// All blocks that are live in it, in no order.
    pub(crate) fn each(&self, mut found: impl FnMut(u64, Block)) {
        let mut above: Vec<&Table> = Vec::new();
        let mut layer = Some(self);
        while let Some(here) = layer {
            for entry in here.table.iter() {
                let address = entry.address();
                let is_covered = above.iter().any(|table| table.get(address).is_some());
                if !is_covered && !entry.is_tombstone() {
                    found(address, entry.block());
                }
            }
            above.push(&here.table);
            layer = here.below.as_deref();
        }
    }

    pub(crate) fn get(&self, address: u64) -> Option<Block> {
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
        if let Some(place) = shard.find(address, hash) {
            let entry = shard.at(place);
            if !entry.is_tombstone() {
                return Err(entry.block());
            }
            *entry = Entry::new(address, block, true);
            return Ok(());
        }
        if let Some(base) = &self.base
            && let Some(inherited) = base.get(address)
        {
            return Err(inherited);
        }
        shard.add(Entry::new(address, block, false), hash);
        self.own.len += 1;
        Ok(())
    }

    /// The block that begins at `address`.
    pub(crate) fn get(&self, address: u64) -> Option<Block> {
        match self.own.get(address) {
            Some(entry) => (!entry.is_tombstone()).then(|| entry.block()),
            None => self.base.as_ref()?.get(address),
        }
    }

    /// Takes a block out.
    #[inline]
    pub(crate) fn remove(&mut self, address: u64) -> Option<Block> {
        let hash = hash(address);
        let shard = &mut self.own.shards[shard_of(hash)];
        if let Some(place) = shard.find(address, hash) {
            let entry = *shard.at(place);
            if entry.is_tombstone() {
                return None;
            }
            if entry.shadows() {
                *shard.at(place) = Entry::tombstone(address);
            } else {
                shard.remove(place, hash);
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

    /// What the blocks of the own table that were born before a tick count for.
    pub(crate) fn born_before(&self, tick: u32, count: impl Fn(&Block) -> u64) -> u64 {
        self.own
            .iter()
            .filter(|entry| !entry.is_tombstone())
            .map(Entry::block)
            .filter(|block| block.birth < tick)
            .map(|block| count(&block))
            .fold(0, u64::wrapping_add)
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
            birth: 3,
        }
    }

    #[test]
    fn an_entry_keeps_all_its_fields() {
        let extreme = Block {
            size: MAX_SIZE,
            site: TOMBSTONE - 1,
            thread: u32::MAX,
            birth: u32::MAX,
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
    fn marks_are_told_apart_exactly() {
        // Of entries with neighbouring marks, vacant places among them.
        for marks in [
            [1, 0, 1, 0, 2],
            [0, 1, 0, 0, 0],
            [3, 2, 3, 2, 0],
            [0; 5],
            [255; 5],
        ] {
            let mut bucket = Bucket {
                marks: MANY << PASSED,
                ..Bucket::default()
            };
            for (slot, mark) in marks.into_iter().enumerate() {
                bucket.set_mark(slot, mark);
            }
            assert_eq!(bucket.passed(), MANY);
            for mark in [0, 1, 2, 3, 254, 255] {
                let bits = bucket.with_mark(mark);
                for (slot, here) in marks.into_iter().enumerate() {
                    assert_eq!(
                        bits >> (slot * 8 + 7) & 1 == 1,
                        here == mark,
                        "{marks:?} {mark}"
                    );
                }
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
                        let mut all = HashMap::new();
                        if let Some(layer) = &base {
                            layer.each(|address, block| {
                                assert_eq!(all.insert(address, block), None);
                            });
                        }
                        prop_assert_eq!(&all, &model);
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
}
