//! Native blocks that nothing points to, by a conservative look at all memory of a process.
//!
//! What is looked at is a forked child of the process, which stands still meanwhile
//! ([`target`]). Which blocks are live in it, and which of them are native, the live table
//! says as it was at the fork.
//!
//! # What counts as a pointer
//!
//! A word at an address that is a multiple of 8, whose value lies in a block: at its
//! beginning or anywhere in it, as LeakSanitizer has it. Pointers begin at the *roots*:
//! data of modules, stacks, registers, thread-local storage, whatever else is mapped, and
//! all blocks of Python's domains: what an object holds is not lost, be the object garbage
//! or not. From there they are followed through live blocks, and through nothing else of
//! the heap: what a freed block still holds does not count.
//!
//! # Where the heap is
//!
//! No allocator is asked. Memory of the heap is what lies between two blocks without
//! a whole page of it, all of `brk`'s memory from the first block on, what the header of
//! one of glibc's heaps claims, and a pool of CPython's. All other memory is a root: so a
//! page that was freed as a whole may keep a block from being called lost, but no block is
//! called lost for what was not understood.
//!
//! Where not all blocks are known (blocks were born before the recording began, are
//! sampled, or events were lost), everything but the known blocks is a root.
//!
//! # What a lost block is not
//!
//! Certain: other threads may have the only pointer in a register, or have moved it while
//! the kernel copied pages. That is what two looks are for, which is not decided here.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

pub(crate) mod target;

/// What a look costs at most; then there is no answer.
const MOST_NS: u64 = 15_000_000_000;
/// Most blocks of a look: some 40 bytes each.
const MOST_BLOCKS: usize = 1 << 24;
/// Most that is read at once.
const PIECE: u64 = 1 << 20;
/// Blocks so near to each other are read together.
const NEAR: u64 = 4096;
const PAGE: u64 = 4096;
const WORD: u64 = 8;

/// Addresses, half open.
pub(crate) type Range = (u64, u64);

/// A live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) kind: NodeKind,
}

/// What a block is to a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// Lost, if nothing points to it.
    Native,
    /// The same; other blocks may lie in it.
    Mapping,
    /// Python's: never lost.
    Python,
}

/// What is looked at.
pub(crate) trait Memory {
    /// Reads what lies from `at` on. False: it cannot be read.
    fn read(&self, at: u64, to: &mut [u8]) -> bool;
    /// Nanoseconds since the look began.
    fn elapsed_ns(&self) -> u64;
}

/// Where memory is, and what it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// What may be read: rising, disjoint, at bounds of pages.
    pub(crate) resident: Vec<Range>,
    /// What of it may hold pointers of no block: rising, disjoint.
    pub(crate) roots: Vec<Range>,
    /// `brk`'s memory.
    pub(crate) brk: Option<Range>,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Rising by address.
    pub(crate) lost: Vec<LostBlock>,
    /// Addresses of blocks that are reached, but whose beginnings are not pointed to.
    pub(crate) inner: Vec<u64>,
    pub(crate) root_bytes: u64,
    pub(crate) block_bytes: u64,
    pub(crate) unread_bytes: u64,
    /// Threads of the process beside the one that forked.
    pub(crate) threads: u32,
    pub(crate) took_ns: u64,
}

/// A block that nothing reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostBlock {
    pub(crate) start: u64,
    /// Another lost block points to it.
    pub(crate) is_indirect: bool,
}

/// Bits of a block's state.
mod state {
    pub(super) const REACHED: u8 = 1;
    pub(super) const AT_START: u8 = 2;
    pub(super) const INDIRECT: u8 = 4;
}

/// Blocks by address.
struct Index {
    /// Those that lie in no other: rising.
    nodes: Vec<Node>,
    /// Rising, disjoint; their numbers follow those of `nodes`.
    mappings: Vec<Node>,
    /// By 2 MiB of addresses: for each page and the end the first node that begins there
    /// or behind.
    regions: FxHashMap<u64, Box<[u32; PAGES + 1]>>,
    /// Nodes too large for `regions`: their numbers, rising.
    large: Vec<u32>,
    lowest: u64,
    highest: u64,
}

const REGION_SHIFT: u32 = 21;
const PAGES: usize = 1 << (REGION_SHIFT - 12);
/// Nodes of more bytes are in [`Index::large`].
const LARGE: u64 = 64 << 20;

impl Index {
    fn new(mut blocks: Vec<Node>) -> Self {
        blocks.sort_unstable_by_key(|node| node.start);
        let (mut mappings, mut nodes): (Vec<Node>, Vec<Node>) = blocks
            .into_iter()
            .partition(|node| node.kind == NodeKind::Mapping);
        nodes.dedup_by_key(|node| node.start);
        mappings.dedup_by_key(|node| node.start);
        let end = |node: &Node| node.start + node.bytes;
        let all = || nodes.iter().chain(&mappings);
        let lowest = all().map(|node| node.start).min().unwrap_or(u64::MAX);
        let highest = all().map(|node| end(node) + WORD).max().unwrap_or(0);
        let mut index = Index {
            lowest,
            highest,
            mappings,
            regions: FxHashMap::default(),
            large: Vec::new(),
            nodes,
        };
        let mut at = 0;
        while at < index.nodes.len() {
            let region = index.nodes[at].start >> REGION_SHIFT;
            at = index.add_region(region, at);
        }
        // Blocks that reach into regions in which none begins.
        for number in 0..index.nodes.len() {
            let node = index.nodes[number];
            if node.bytes > LARGE {
                index.large.push(number as u32);
                continue;
            }
            let last = end(&node) >> REGION_SHIFT;
            for region in (node.start >> REGION_SHIFT) + 1..=last {
                if !index.regions.contains_key(&region) {
                    index.add_region(region, number + 1);
                }
            }
        }
        index
    }

    /// Lists the nodes of a region, the first of which, if there are any, is `at`. Gives
    /// the number of the first behind it.
    fn add_region(&mut self, region: u64, mut at: usize) -> usize {
        let mut pages = Box::new([0; PAGES + 1]);
        for (page, place) in pages.iter_mut().enumerate() {
            let begin = (region << REGION_SHIFT) + page as u64 * PAGE;
            while self.nodes.get(at).is_some_and(|node| node.start < begin) {
                at += 1;
            }
            *place = at as u32;
        }
        self.regions.insert(region, pages);
        at
    }

    fn get(&self, number: u32) -> &Node {
        let number = number as usize;
        match number.checked_sub(self.nodes.len()) {
            None => &self.nodes[number],
            Some(mapping) => &self.mappings[mapping],
        }
    }

    fn len(&self) -> usize {
        self.nodes.len() + self.mappings.len()
    }

    /// The block that an address lies in. Of no bytes it is one, and the end of one of a
    /// word belongs to it: that is what a C++ array of nothing is known by.
    fn find(&self, word: u64) -> Option<u32> {
        if word < self.lowest || word >= self.highest {
            return None;
        }
        let covers = |node: &Node| {
            let offset = word.wrapping_sub(node.start);
            offset < node.bytes.max(1) || offset == WORD && node.bytes == WORD
        };
        if let Some(pages) = self.regions.get(&(word >> REGION_SHIFT)) {
            let page = (word >> 12) as usize % PAGES;
            let (from, to) = (pages[page] as usize, pages[page + 1] as usize);
            let within = self.nodes[from..to].partition_point(|node| node.start <= word);
            // The one before may end where this begins.
            let last = (from + within).checked_sub(1);
            if let Some(last) = last
                && covers(&self.nodes[last])
            {
                return Some(last as u32);
            }
            if let Some(before) = last.and_then(|last| last.checked_sub(1))
                && self.nodes[before].bytes == WORD
                && covers(&self.nodes[before])
            {
                return Some(before as u32);
            }
        }
        let after = (self.large).partition_point(|&large| self.nodes[large as usize].start <= word);
        if let Some(&large) = after.checked_sub(1).and_then(|last| self.large.get(last))
            && covers(&self.nodes[large as usize])
        {
            return Some(large);
        }
        let after = self.mappings.partition_point(|node| node.start <= word);
        let mapping = after.checked_sub(1)?;
        covers(&self.mappings[mapping]).then(|| (self.nodes.len() + mapping) as u32)
    }
}

/// Parts of `from` that lie in none of `without`; both rise and are disjoint.
pub(crate) fn subtract(from: &[Range], without: &[Range]) -> Vec<Range> {
    let mut rest = Vec::new();
    let mut first = 0;
    for &(start, end) in from {
        let mut at = start;
        while without.get(first).is_some_and(|range| range.1 <= start) {
            first += 1;
        }
        for &(hole, hole_end) in &without[first..] {
            if hole >= end {
                break;
            }
            if hole > at {
                rest.push((at, hole));
            }
            at = at.max(hole_end);
        }
        if at < end {
            rest.push((at, end));
        }
    }
    rest
}

/// Makes ranges rise, and one of those that touch.
pub(crate) fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| range.0 < range.1);
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// A look at a process.
struct Look<'a, M: Memory> {
    memory: &'a M,
    index: Index,
    resident: &'a [Range],
    states: Vec<u8>,
    /// Blocks that were reached, and are to be looked into.
    waiting: Vec<u32>,
    buffer: Vec<u8>,
    unread: u64,
    is_late: bool,
}

/// Looks for blocks that nothing points to. `knows_all`: there are no blocks but these.
///
/// # Errors
///
/// Why there is no answer.
pub(crate) fn look(
    memory: &impl Memory,
    layout: &Layout,
    blocks: Vec<Node>,
    knows_all: bool,
) -> Result<Found, String> {
    if blocks.len() > MOST_BLOCKS {
        return Err(format!("there are more than {MOST_BLOCKS} blocks"));
    }
    let index = Index::new(blocks);
    let mut look = Look {
        memory,
        states: vec![0; index.len()],
        index,
        resident: &layout.resident,
        waiting: Vec::new(),
        buffer: vec![0; PIECE as usize],
        unread: 0,
        is_late: false,
    };
    let heap = if knows_all {
        look.heap(layout.brk)
    } else {
        let all = look.index.nodes.iter().chain(&look.index.mappings);
        merge(
            all.map(|node| (node.start, node.start + node.bytes))
                .collect(),
        )
    };
    let roots = subtract(&layout.roots, &heap);
    let mut found = Found::default();
    for &range in &roots {
        found.root_bytes += look.read(range, |look, at, bytes| look.words(at, bytes, None));
    }
    for number in 0..look.index.len() as u32 {
        if look.index.get(number).kind == NodeKind::Python {
            look.reach(number, state::AT_START);
        }
    }
    found.block_bytes = look.follow();
    look.indirect();
    if look.is_late {
        return Err(format!("it took more than {} s", MOST_NS / 1_000_000_000));
    }
    for number in 0..look.index.len() as u32 {
        let (node, state) = (look.index.get(number), look.states[number as usize]);
        if state & state::REACHED == 0 {
            found.lost.push(LostBlock {
                start: node.start,
                is_indirect: state & state::INDIRECT != 0,
            });
        } else if state & state::AT_START == 0 && node.kind == NodeKind::Native {
            found.inner.push(node.start);
        }
    }
    found.lost.sort_unstable_by_key(|lost| lost.start);
    found.unread_bytes = look.unread;
    Ok(found)
}

impl<M: Memory> Look<'_, M> {
    /// What belongs to allocators (see the module): rising, disjoint.
    fn heap(&mut self, brk: Option<Range>) -> Vec<Range> {
        /// Of CPython's allocator for small blocks.
        const POOL: u64 = 16 << 10;
        let mut heap: Vec<Range> = Vec::new();
        let mut was_python = false;
        for node in &self.index.nodes {
            let (start, end) = (node.start, node.start + node.bytes);
            let is_python = node.kind == NodeKind::Python;
            match heap.last_mut() {
                // Another mapping between them would take a page; and in a pool there is none.
                Some(last)
                    if start.saturating_sub(last.1.next_multiple_of(PAGE)) < PAGE
                        || is_python && was_python && last.1 / POOL == start / POOL =>
                {
                    last.1 = last.1.max(end);
                }
                _ => heap.push((start, end)),
            }
            was_python = is_python;
        }
        let mappings = &self.index.mappings;
        heap.extend(
            mappings
                .iter()
                .map(|node| (node.start, node.start + node.bytes)),
        );
        if let Some((start, end)) = brk {
            let first = self.index.nodes.partition_point(|node| node.start < start);
            if let Some(node) = self.index.nodes.get(first).filter(|node| node.start < end) {
                heap.push((node.start, end));
            }
        }
        heap.extend(self.arenas());
        merge(heap)
    }

    /// The heaps of glibc's arenas but the main one: each begins at a multiple of 64 MiB,
    /// with a header, and the blocks in it are marked.
    fn arenas(&self) -> Vec<Range> {
        const HEAP: u64 = 64 << 20;
        const NOT_MAIN: u64 = 4;
        let mut found = Vec::new();
        let mut last = 0;
        for node in &self.index.nodes {
            let base = node.start & !(HEAP - 1);
            if base == last || node.kind != NodeKind::Native || base == 0 {
                continue;
            }
            last = base;
            let mut header = [0; 8];
            let mut heap = [0; 32];
            if !self.memory.read(node.start - WORD, &mut header)
                || !self.memory.read(base, &mut heap)
            {
                continue;
            }
            let word = |at: usize| word_at(&heap, at);
            let (arena, size, reserved) = (word(0), word(2), word(3));
            let is_one = word_at(&header, 0) & NOT_MAIN != 0
                && arena != 0
                && arena.is_multiple_of(WORD)
                && size.is_multiple_of(PAGE)
                && size <= reserved
                && reserved <= HEAP
                && base + size >= node.start + node.bytes;
            if is_one {
                found.push((base, base + reserved.next_multiple_of(PAGE)));
            }
        }
        found
    }

    /// Hands on what is there of a range, in pieces; gives how many bytes that were.
    fn read(&mut self, range: Range, mut each: impl FnMut(&mut Self, u64, &[u8])) -> u64 {
        let mut sum = 0;
        let first = self.resident.partition_point(|here| here.1 <= range.0);
        for &(start, end) in &self.resident[first..] {
            if start >= range.1 {
                break;
            }
            let (mut at, end) = (start.max(range.0), end.min(range.1));
            while at < end && !self.is_late {
                let length = (end - at).min(PIECE);
                let mut buffer = std::mem::take(&mut self.buffer);
                let piece = &mut buffer[..length as usize];
                if self.memory.read(at, piece) {
                    sum += length;
                    each(self, at, piece);
                } else {
                    self.unread += length;
                }
                self.buffer = buffer;
                at += length;
                self.is_late = self.memory.elapsed_ns() > MOST_NS;
            }
        }
        sum
    }

    /// Follows the words of memory that was read. `from`: they are those of a block, to
    /// which pointers of its own do not count.
    fn words(&mut self, at: u64, bytes: &[u8], from: Option<u32>) {
        let skip = (at.next_multiple_of(WORD) - at) as usize;
        let (lowest, highest) = (self.index.lowest, self.index.highest);
        for chunk in bytes.get(skip..).unwrap_or_default().chunks_exact(8) {
            let word = word_at(chunk, 0);
            if word < lowest || word >= highest {
                continue;
            }
            if let Some(number) = self.index.find(word)
                && from != Some(number)
            {
                let is_start = self.index.get(number).start == word;
                self.reach(number, if is_start { state::AT_START } else { 0 });
            }
        }
    }

    fn reach(&mut self, number: u32, how: u8) {
        let state = &mut self.states[number as usize];
        if *state & state::REACHED == 0 {
            self.waiting.push(number);
        }
        *state |= state::REACHED | how;
    }

    /// Looks into all blocks that were reached, and into those that are reached by that.
    fn follow(&mut self) -> u64 {
        let mut sum = 0;
        while !self.waiting.is_empty() && !self.is_late {
            let mut blocks: VecDeque<u32> = std::mem::take(&mut self.waiting).into();
            blocks.make_contiguous().sort_unstable();
            while let Some(first) = blocks.pop_front() {
                let node = *self.index.get(first);
                let mut end = node.start + node.bytes;
                if node.kind == NodeKind::Mapping {
                    sum += self.mapping(first, node);
                    continue;
                }
                // What lies near is read with it.
                let mut run = vec![first];
                while let Some(&next) = blocks.front() {
                    let next_node = self.index.get(next);
                    let next_end = next_node.start + next_node.bytes;
                    if next_node.kind == NodeKind::Mapping
                        || next_node.start > end + NEAR
                        || next_end - node.start > PIECE
                    {
                        break;
                    }
                    end = end.max(next_end);
                    run.push(next);
                    blocks.pop_front();
                }
                self.read((node.start, end), |look, at, bytes| {
                    for &number in &run {
                        let node = *look.index.get(number);
                        let from = node.start.max(at);
                        let to = (node.start + node.bytes).min(at + bytes.len() as u64);
                        if from < to {
                            sum += to - from;
                            let part = &bytes[(from - at) as usize..(to - at) as usize];
                            look.words(from, part, Some(number));
                        }
                    }
                });
            }
        }
        sum
    }

    /// Looks into a mapping, but for the blocks in it, which are reached by themselves.
    fn mapping(&mut self, number: u32, node: Node) -> u64 {
        let end = node.start + node.bytes;
        let first = self
            .index
            .nodes
            .partition_point(|inner| inner.start < node.start);
        let inner = self.index.nodes[first..]
            .iter()
            .take_while(|inner| inner.start < end)
            .map(|inner| (inner.start, inner.start + inner.bytes))
            .collect();
        let parts = subtract(&[(node.start, end)], &merge(inner));
        let mut sum = 0;
        for part in parts {
            sum += self.read(part, |look, at, bytes| look.words(at, bytes, Some(number)));
        }
        sum
    }

    /// Finds those lost blocks that others of them point to.
    fn indirect(&mut self) {
        let lost: Vec<u32> = (0..self.index.len() as u32)
            .filter(|number| self.states[*number as usize] & state::REACHED == 0)
            .collect();
        for number in lost {
            let node = *self.index.get(number);
            let range = (node.start, node.start + node.bytes);
            self.read(range, |look, at, bytes| {
                let skip = (at.next_multiple_of(WORD) - at) as usize;
                for chunk in bytes.get(skip..).unwrap_or_default().chunks_exact(8) {
                    let other = look.index.find(word_at(chunk, 0));
                    if let Some(other) = other.filter(|other| *other != number) {
                        let state = &mut look.states[other as usize];
                        if *state & state::REACHED == 0 {
                            *state |= state::INDIRECT;
                        }
                    }
                }
            });
        }
    }
}

/// The `at`-th word of some bytes; 0 where they end.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(part) = bytes.get(8 * at..8 * at + 8) {
        word.copy_from_slice(part);
    }
    u64::from_ne_bytes(word)
}

#[cfg(test)]
mod tests;
