//! The heaps of glibc's malloc, read from outside.
//!
//! `main_arena` has no symbol in a stripped libc, so it is known by its shape:
//! 127 pairs of words that, where a bin is empty, point to themselves. Its list
//! leads to the arenas of threads, whose heaps lie at multiples of 64 MiB. A
//! heap is walked chunk by chunk by the sizes in their headers; that a chunk is
//! free is told by the next one, and for those that the allocator only keeps
//! aside (per-thread caches, fast bins) by the lists that they are in.
//!
//! The process runs meanwhile. What does not add up is read again, then passed
//! over and counted as [`State::Torn`]: nothing is made up. Every loop here is
//! bounded by the memory that it walks over or by a constant.
//!
//! Layouts are those of glibc 2.19 to 2.43 (tried: 2.36 and 2.43); fields are found
//! relative to the bins, since what is before and behind them came and went.

use std::collections::HashSet;
use std::thread::sleep;
use std::time::Duration;

use super::memory::Reader;
use super::pages::PAGE;

/// Largest heap of a thread's arena, and what they are aligned to.
const HEAP_MAX: u64 = 64 << 20;
/// Pairs of words among the bins.
const BINS: u64 = 127;
/// From the bins to the word that leads to the next arena.
const TO_NEXT: u64 = BINS * 16 + 16;
/// From the bins to the end of an arena.
const TO_END: u64 = TO_NEXT + 40;
/// From where an arena begins to its bins: at least, and where it has fast bins (until
/// 2.42).
const LEAST_TO_BINS: u64 = 0x18;
const TO_BINS_WITH_FAST: u64 = 0x60;
/// Most arenas, heaps of one, and chunks on lists that are followed.
const MOST_ARENAS: usize = 1 << 16;
const MOST_HEAPS: usize = 1 << 13;
const MOST_LISTED: usize = 1 << 23;
/// Smallest chunk, and the unit of all.
const LEAST: u64 = 32;
const UNIT: u64 = 16;
/// Times that something odd is read again before it is passed over, and how long
/// it is waited for.
const TRIES: usize = 3;
const A_MOMENT: Duration = Duration::from_micros(200);
/// Size of the header of a free chunk, which `malloc_trim` leaves alone.
const FREE_HEADER: u64 = 48;

/// What a piece of a heap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// In use, as far as its arena knows.
    Live,
    /// In a bin.
    Free,
    /// At the end of its heap, never handed out since it was last there.
    Top,
    /// Could not be walked.
    Torn,
}

/// An arena, and its heaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arena {
    pub(super) is_main: bool,
    pub(super) heaps: Vec<Heap>,
    /// Where its bins are.
    bins: u64,
    has_fast_bins: bool,
}

/// A stretch of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heap {
    /// Where its memory begins, and its first chunk.
    pub(super) start: u64,
    first: u64,
    /// Where its chunks end, and its memory.
    chunks_end: u64,
    pub(super) end: u64,
    /// The chunk at its end, if the arena goes on there.
    top: Option<u64>,
}

/// Finds the arenas: `data` are the places where libc may have its variables,
/// `heap` is what `brk` gave.
pub(super) fn find(
    reader: &mut Reader<'_>,
    data: &[(u64, u64)],
    heap: Option<(u64, u64)>,
) -> Option<Vec<Arena>> {
    let bins = data
        .iter()
        .find_map(|(from, to)| find_bins(reader, *from, *to))?;
    let mut arenas = Vec::new();
    let top = reader.word(bins - 16)?;
    let mut main = Arena {
        is_main: true,
        heaps: Vec::new(),
        bins,
        has_fast_bins: false,
    };
    if let Some((start, end)) = heap {
        let first = start.next_multiple_of(UNIT);
        main.heaps.push(Heap {
            start,
            first,
            chunks_end: end,
            end,
            top: (first..end).contains(&top).then_some(top),
        });
    }
    arenas.push(main);

    let mut list = of_threads(reader, bins);
    for _ in 1..TRIES {
        if list.leads_home {
            break;
        }
        // One came into use just then.
        sleep(A_MOMENT);
        reader.forget_all();
        list = of_threads(reader, bins);
    }
    let has_fast_bins = list.to_bins >= TO_BINS_WITH_FAST;
    arenas[0].has_fast_bins = has_fast_bins;
    for at in list.arenas {
        let bins = at + list.to_bins;
        let arena = (0..TRIES).find_map(|_| {
            let arena = thread_arena(reader, at, bins, has_fast_bins);
            if arena.is_none() {
                sleep(A_MOMENT);
                reader.forget(at);
                reader.forget(bins);
            }
            arena
        });
        // It is one even if it cannot be told what it has.
        arenas.push(arena.unwrap_or(Arena {
            is_main: false,
            heaps: Vec::new(),
            bins,
            has_fast_bins,
        }));
    }
    Some(arenas)
}

/// The arenas of threads that a list leads to.
#[derive(Default)]
struct List {
    arenas: Vec<u64>,
    /// From where an arena begins to its bins.
    to_bins: u64,
    /// It leads back to the main one, as it shall.
    leads_home: bool,
}

/// The arenas of threads, `bins` being those of the main one.
///
/// How far from an arena's beginning its bins are depends on glibc's version. It is
/// known by what does not change once an arena is there: the list leads back to where
/// the main one begins, and the heap that an arena's top is in names the arena. By
/// its bins, an arena of a busy program is often not to be known: they change
/// meanwhile, and lead to memory that is newer than what is known of the mappings.
fn of_threads(reader: &mut Reader<'_>, bins: u64) -> List {
    let Some(first) = reader.word(bins + TO_NEXT) else {
        return List::default();
    };
    let mut best = List::default();
    for to_bins in (LEAST_TO_BINS..0x200).step_by(8) {
        let mut list = List {
            to_bins,
            ..List::default()
        };
        let mut seen = HashSet::new();
        let mut at = first;
        while list.arenas.len() < MOST_ARENAS {
            if at == bins - to_bins {
                list.leads_home = true;
                break;
            }
            let Some(next) = next_arena(reader, at, to_bins) else {
                break;
            };
            if !seen.insert(at) {
                break;
            }
            list.arenas.push(at);
            at = next;
        }
        if list.leads_home {
            return list;
        }
        if list.arenas.len() > best.arenas.len() {
            best = list;
        }
    }
    best
}

/// What the arena that begins at `at` leads to, if there is one.
fn next_arena(reader: &mut Reader<'_>, at: u64, to_bins: u64) -> Option<u64> {
    let bins = at.checked_add(to_bins).filter(|_| at.is_multiple_of(8))?;
    let top = reader.word(bins - 16)?;
    let names_it = reader.word(top & !(HEAP_MAX - 1)) == Some(at);
    let next = reader.word(bins.checked_add(TO_NEXT)?)?;
    names_it.then_some(next)
}

/// Looks for the bins of an arena that is in use.
fn find_bins(reader: &mut Reader<'_>, from: u64, to: u64) -> Option<u64> {
    /// A program's variables may be a gigabyte, glibc's are some 20 KiB.
    const MOST_BYTES: u64 = 8 << 20;
    let to = to.min(from.saturating_add(MOST_BYTES));
    let last = to.checked_sub(TO_END)?;
    let mut at = from.next_multiple_of(8);
    while at <= last {
        if !reader.pages().is_present(at) {
            at = (at / PAGE + 1) * PAGE;
            continue;
        }
        if let Some(bins) = bins_from(reader, at) {
            return Some(bins);
        }
        at += 8;
    }
    None
}

/// Where the bins begin, if there are bins from `from` on, or some pairs of words
/// further.
fn bins_from(reader: &mut Reader<'_>, from: u64) -> Option<u64> {
    /// Bins that make sense; others may be changing just now. Where they lead is
    /// not read: by then they would have changed again.
    const LEAST_GOOD: usize = 119;
    /// Those of the largest chunks, which are looked at first, and how many of
    /// them have to be empty.
    const FIRST: usize = 16;
    const LEAST_EMPTY: usize = 3;
    let (mut good, mut empty) = (0, 0);
    for (done, bin) in (0..BINS).rev().enumerate() {
        let pair = Pair::at(reader, from.checked_add(bin * 16)?)?;
        good += usize::from(pair != Pair::Neither);
        empty += usize::from(pair == Pair::Empty);
        if done + 1 == FIRST && empty < LEAST_EMPTY {
            return None;
        }
    }
    if good < LEAST_GOOD {
        return None;
    }
    // What is before them may look like bins; what is behind them does not.
    let mut bins = from;
    for _ in 0..BINS as usize - LEAST_GOOD + 4 {
        if Pair::at(reader, bins + BINS * 16)? == Pair::Neither {
            break;
        }
        bins += 16;
    }
    Some(bins)
}

/// Two words that may be a bin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pair {
    /// A bin that leads to itself.
    Empty,
    /// One that may lead to chunks.
    Chunks,
    /// No bin, or one that changes just now.
    Neither,
}

impl Pair {
    fn at(reader: &mut Reader<'_>, at: u64) -> Option<Pair> {
        let (first, last) = (reader.word(at)?, reader.word(at.checked_add(8)?)?);
        let head = at.wrapping_sub(16);
        let is_chunk = |at: u64| at.is_multiple_of(UNIT) && reader.pages().is_present(at);
        Some(if first == head && last == head {
            Pair::Empty
        } else if is_chunk(first) && is_chunk(last) {
            Pair::Chunks
        } else {
            Pair::Neither
        })
    }
}

/// The arena of threads that begins at `at`, and its heaps.
fn thread_arena(reader: &mut Reader<'_>, at: u64, bins: u64, has_fast_bins: bool) -> Option<Arena> {
    let top = reader.word(bins.checked_sub(16)?)?;
    let mut starts = Vec::new();
    // The newest heap has the top, and leads to the older ones.
    let mut start = top & !(HEAP_MAX - 1);
    while start != 0 && starts.len() < MOST_HEAPS {
        if !start.is_multiple_of(HEAP_MAX)
            || reader.word(start) != Some(at)
            || starts.contains(&start)
        {
            break;
        }
        starts.push(start);
        start = reader.word(start + 8)?;
    }
    // The arena itself lies behind the header of its oldest heap.
    let header = at.checked_sub(*starts.last()?)?;
    if header > PAGE {
        return None;
    }
    let mut heaps = Vec::new();
    for start in starts {
        let size = reader.word(start + 16)?;
        let writable = reader.word(start + 24)?;
        if size > HEAP_MAX || writable > HEAP_MAX {
            return None;
        }
        let first = if at - at % HEAP_MAX == start {
            (bins + TO_END).next_multiple_of(UNIT)
        } else {
            start + header
        };
        let chunks_end = start + size;
        heaps.push(Heap {
            start,
            first,
            chunks_end,
            end: start + size.max(writable),
            top: (first..chunks_end).contains(&top).then_some(top),
        });
    }
    Some(Arena {
        is_main: false,
        heaps,
        bins,
        has_fast_bins,
    })
}

/// What a walk over a heap came by.
pub(super) struct Walk<'w> {
    /// Told of each stretch, in order and without gaps.
    pub(super) tell: &'w mut dyn FnMut(u64, u64, State),
    /// Told of whole pages inside free chunks, which `malloc_trim` gives back.
    pub(super) whole_pages: &'w mut dyn FnMut(u64, u64),
    /// Chunks in fast bins: `malloc_trim` joins them with free ones first.
    pub(super) fast: &'w [(u64, u64)],
    /// Chunks that may be a thread's cache.
    pub(super) caches: Vec<u64>,
    /// Told of the memory of each chunk in use, and its bytes.
    pub(super) blocks: Option<&'w mut Blocks<'w>>,
}

/// What is told of blocks.
pub(super) type Blocks<'b> = dyn FnMut(&mut Reader<'_>, u64, u64) + 'b;

/// A chunk's header, and whether it is in use.
#[derive(Clone, Copy)]
struct Chunk {
    size: u64,
    in_use: bool,
}

/// What is wrong with a chunk.
enum Wrong {
    /// Nothing: the heap ends here with a fence.
    Fence,
    /// Everything.
    Nonsense,
}

fn chunk(reader: &mut Reader<'_>, heap: &Heap, is_main: bool, at: u64) -> Result<Chunk, Wrong> {
    const IN_USE: u64 = 1;
    const MAPPED: u64 = 2;
    const NOT_MAIN: u64 = 4;
    let field = reader.word(at + 8).ok_or(Wrong::Nonsense)?;
    let size = field & !7;
    let limit = heap.top.unwrap_or(heap.chunks_end);
    if heap.top.is_none() && size <= UNIT && heap.chunks_end - at <= 4 * UNIT {
        return Err(Wrong::Fence);
    }
    if size < LEAST || size % UNIT != 0 || size > limit - at || field & MAPPED != 0 {
        return Err(Wrong::Nonsense);
    }
    let next = at + size;
    let in_use = if next + 16 > heap.chunks_end {
        true
    } else {
        reader.word(next + 8).ok_or(Wrong::Nonsense)? & IN_USE != 0
    };
    let of_threads = field & NOT_MAIN != 0;
    // A chunk that is put into a bin loses the mark.
    if of_threads == is_main && (is_main || in_use) {
        return Err(Wrong::Nonsense);
    }
    if !in_use && reader.word(next) != Some(size) {
        return Err(Wrong::Nonsense);
    }
    Ok(Chunk { size, in_use })
}

/// Walks over a heap.
pub(super) fn walk(reader: &mut Reader<'_>, heap: &Heap, is_main: bool, walk: &mut Walk<'_>) {
    let limit = heap.top.unwrap_or(heap.chunks_end);
    let mut told = Told {
        from: heap.start,
        to: heap.first.min(limit),
        // The headers of the heap and of the arena.
        state: State::Live,
    };
    let mut at = heap.first;
    let mut fast = walk.fast.partition_point(|(fast, _)| *fast < at);
    // Where free chunks in a row began.
    let mut free_from = None;
    // Of all tries in this heap: one that is torn everywhere shall not cost
    // a sleep a chunk.
    let mut patience = 64;
    while at < limit {
        let mut found = chunk(reader, heap, is_main, at);
        for _ in 0..TRIES {
            if !matches!(found, Err(Wrong::Nonsense)) || patience == 0 {
                break;
            }
            patience -= 1;
            sleep(A_MOMENT);
            reader.forget(at);
            found = chunk(reader, heap, is_main, at);
        }
        let (next, state) = match found {
            Ok(Chunk { size, in_use }) => {
                if in_use && Cache::has_size(size) {
                    walk.caches.push(at);
                }
                while walk.fast.get(fast).is_some_and(|(fast, _)| *fast < at) {
                    fast += 1;
                }
                let is_fast = walk.fast.get(fast) == Some(&(at, size));
                if !in_use || is_fast {
                    free_from.get_or_insert(at);
                } else if let Some(from) = free_from.take() {
                    whole_pages(from, at, walk.whole_pages);
                }
                if in_use
                    && !is_fast
                    && let Some(tell) = &mut walk.blocks
                {
                    tell(reader, at + UNIT, size - 8);
                }
                let state = if in_use { State::Live } else { State::Free };
                (at + size, state)
            }
            Err(Wrong::Fence) => (limit, State::Live),
            Err(Wrong::Nonsense) => {
                free_from = None;
                let next = resume(reader, heap, is_main, at, limit);
                (next, State::Torn)
            }
        };
        told.then(next, state, walk.tell);
        at = next;
    }
    if let Some(top) = heap.top {
        told.then(heap.chunks_end, State::Top, walk.tell);
        // Of heaps of threads the end is left alone, and what joins it.
        if is_main {
            let from = free_from.take().unwrap_or(top);
            whole_pages(from, heap.chunks_end, walk.whole_pages);
        }
    } else if let Some(from) = free_from {
        whole_pages(from, limit, walk.whole_pages);
    }
    if told.to < heap.end {
        told.then(heap.end, State::Top, walk.tell);
    }
    told.end(walk.tell);
}

/// What `malloc_trim` would give back of a free chunk.
fn whole_pages(from: u64, to: u64, tell: &mut dyn FnMut(u64, u64)) {
    let from = (from + FREE_HEADER).next_multiple_of(PAGE);
    let to = to - to % PAGE;
    if from < to {
        tell(from, to);
    }
}

/// Stretches of the same state are told as one.
struct Told {
    from: u64,
    to: u64,
    state: State,
}

impl Told {
    fn then(&mut self, to: u64, state: State, tell: &mut dyn FnMut(u64, u64, State)) {
        if state != self.state {
            self.end(tell);
            *self = Told {
                from: self.to,
                to: self.to,
                state,
            };
        }
        self.to = to;
    }

    fn end(&self, tell: &mut dyn FnMut(u64, u64, State)) {
        if self.from < self.to {
            tell(self.from, self.to, self.state);
        }
    }
}

/// The next place from which several chunks in a row make sense.
fn resume(reader: &mut Reader<'_>, heap: &Heap, is_main: bool, from: u64, limit: u64) -> u64 {
    /// Chunks in a row that are believed.
    const ENOUGH: usize = 8;
    let mut at = from + UNIT;
    while at < limit {
        if !reader.pages().is_present(at) {
            let next = reader.pages().next_present(at, limit);
            let Some(next) = next.filter(|next| *next > at) else {
                return limit;
            };
            at = next;
            continue;
        }
        let mut end = at;
        let mut count = 0;
        while count < ENOUGH && end < limit {
            let Ok(chunk) = chunk(reader, heap, is_main, end) else {
                break;
            };
            end += chunk.size;
            count += 1;
        }
        if count == ENOUGH || (count > 1 && end == limit) {
            return at;
        }
        at += UNIT;
    }
    limit
}

/// Chunks in fast bins, which arenas take for used: address and size of each, by
/// address.
pub(super) fn fast(reader: &mut Reader<'_>, arenas: &[Arena]) -> Vec<(u64, u64)> {
    let mut kept = Vec::new();
    // No list is longer than what its heaps have room for: one that leads back
    // into itself ends there.
    let bytes = arenas.iter().flat_map(|arena| &arena.heaps);
    let bytes: u64 = bytes.map(|heap| heap.end - heap.start).sum();
    let most = (bytes / LEAST) as usize;
    for arena in arenas.iter().filter(|arena| arena.has_fast_bins) {
        // Ten lists of single sizes, before the top.
        for list in 0..10 {
            let size = LEAST + list * UNIT;
            let at = arena.bins - 16 - 80 + list * 8;
            if let Some(first) = reader.word(at) {
                follow(reader, first, 0, Some(size), most, &mut kept);
            }
        }
    }
    in_order(kept)
}

/// The same of threads' caches.
pub(super) fn cached(reader: &mut Reader<'_>, caches: &[u64]) -> Vec<(u64, u64)> {
    let mut kept = Vec::new();
    for at in caches {
        Cache::read(reader, *at, &mut kept);
    }
    in_order(kept)
}

/// A list that was torn may have led into another.
fn in_order(mut kept: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    kept.sort_unstable();
    kept.dedup_by_key(|(at, _)| *at);
    kept
}

/// Follows a list of chunks, all of a size if one is given, whose links lead
/// `lead` bytes into the next one. Gives how many it has, or `None` where it
/// does not end as a list does.
fn follow(
    reader: &mut Reader<'_>,
    first: u64,
    lead: u64,
    size: Option<u64>,
    most: usize,
    kept: &mut Vec<(u64, u64)>,
) -> Option<usize> {
    let chunk_at = |reader: &mut Reader<'_>, link: u64| {
        let at = link
            .checked_sub(lead)
            .filter(|at| *at != 0 && at % UNIT == 0)?;
        let found = reader.word(at.checked_add(8)?)? & !7;
        let fits = size.is_none_or(|size| size == found) && (LEAST..HEAP_MAX).contains(&found);
        fits.then_some((at, found))
    };
    let mut link = first;
    let mut count = 0;
    while link != 0 {
        if count >= most || kept.len() >= MOST_LISTED {
            return None;
        }
        let (at, size) = chunk_at(reader, link)?;
        kept.push((at, size));
        count += 1;
        let place = at + UNIT;
        let plain = reader.word(place)?;
        // Since 2.32 links are hidden by their own address.
        let hidden = plain ^ (place >> 12);
        link = if hidden == 0 || chunk_at(reader, hidden).is_some() {
            hidden
        } else {
            plain
        };
    }
    Some(count)
}

/// A thread's cache: counts, then the heads of lists, each of one size. It is
/// a block of the heap that it serves; no symbol leads there.
struct Cache {
    lists: u64,
    /// Of a count.
    width: u64,
    /// What is counted is what may come, not what is there.
    counts_room: bool,
}

impl Cache {
    /// By the size of its chunk: 2.26, 2.30 and 2.42.
    fn of_size(size: u64) -> Option<Cache> {
        let (lists, width, counts_room) = match size {
            0x250 => (64, 1, false),
            0x290 => (64, 2, false),
            0x300 => (76, 2, true),
            _ => return None,
        };
        Some(Cache {
            lists,
            width,
            counts_room,
        })
    }

    fn has_size(size: u64) -> bool {
        Cache::of_size(size).is_some()
    }

    /// Adds what the cache at `at` has, if that is one.
    fn read(reader: &mut Reader<'_>, at: u64, kept: &mut Vec<(u64, u64)>) {
        /// Lists that may be torn.
        const MOST_WRONG: usize = 2;
        /// Links to a chunk's memory, not to its header.
        const TO_MEMORY: u64 = 16;
        let Some(cache) = reader
            .word(at + 8)
            .and_then(|field| Cache::of_size(field & !7))
        else {
            return;
        };
        let before = kept.len();
        let memory = at + TO_MEMORY;
        let mut wrong = 0;
        for list in 0..cache.lists {
            let place = list * cache.width;
            let count = reader
                .word(memory + place / 8 * 8)
                .map_or(0, |word| word >> (place % 8 * 8))
                & ((1 << (cache.width * 8)) - 1);
            let head = memory + cache.lists * cache.width + list * 8;
            let head = reader.word(head).unwrap_or(0);
            let size = (list < 64).then_some(LEAST + list * UNIT);
            let most = if cache.counts_room { 1 << 16 } else { count };
            let mark = kept.len();
            let is_list = follow(reader, head, TO_MEMORY, size, most as usize, kept)
                .is_some_and(|found| cache.counts_room || found as u64 == count);
            if !is_list {
                kept.truncate(mark);
                wrong += 1;
            }
            if wrong > MOST_WRONG {
                // It only has the size of one.
                kept.truncate(before);
                return;
            }
        }
    }
}

/// A block that `malloc` mapped by itself, as the beginning of its first page
/// tells: where it ends, `limit` at most.
pub(super) fn mapped_block(page: u64, bytes: &[u8], limit: u64) -> Option<u64> {
    /// The threshold is 128 KiB unless it was set.
    const SMALLEST: u64 = 64 << 10;
    const MAPPED: u64 = 2;
    // An aligned one begins further on: at most as far as a cache line goes.
    [0, 16, 48, 112].into_iter().find_map(|lead: u64| {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (before, field) = (word(lead as usize)?, word(lead as usize + 8)?);
        let end = page.checked_add(lead)?.checked_add(field & !7)?;
        // Since 2.43 the size is without the header, and the lowest bit of the word
        // before it says whether there are huge pages.
        let end = end.checked_add(if end % PAGE == PAGE - UNIT { UNIT } else { 0 })?;
        let fits = before & !1 == lead
            && field & 7 == MAPPED
            && end % PAGE == 0
            && end <= limit
            && end - page >= SMALLEST;
        fits.then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Image;
    use super::*;

    /// libc's variables, and where the bins are among them.
    const DATA: u64 = 0x7f00_0100_0000;
    const BINS_AT: u64 = DATA + 0x270;
    const MAIN: u64 = BINS_AT - 0x70;
    const HEAP: u64 = 0x5500_0000_0000;
    const HEAP_BYTES: u64 = 0x8_0000;
    const IN_USE: u64 = 1;
    const NOT_MAIN: u64 = 4;

    /// An arena whose bins are at `bins`, all of them empty.
    fn put_arena(image: &mut Image, bins: u64, top: u64, next: u64) {
        image.set(bins - 16, top);
        for bin in 0..BINS {
            let at = bins + bin * 16;
            image.set(at, at - 16);
            image.set(at + 8, at - 16);
        }
        image.set(bins + TO_NEXT, next);
    }

    /// Chunks in a row from `at`: sizes, and whether they are in use. Gives
    /// where they end, and puts the top there.
    fn put_chunks(image: &mut Image, at: u64, end: u64, mark: u64, chunks: &[(u64, bool)]) -> u64 {
        let mut at = at;
        let mut before = IN_USE;
        for (size, in_use) in chunks {
            image.set(at + 8, size | before | if *in_use { mark } else { 0 });
            at += size;
            before = u64::from(*in_use);
            if !in_use {
                image.set(at, *size);
            }
        }
        image.set(at + 8, (end - at) | before);
        at
    }

    /// A program with a main heap of these chunks.
    fn program(chunks: &[(u64, bool)]) -> (Image, u64) {
        let mut image = Image::new(HEAP, HEAP_BYTES as usize).and(DATA, 0x2000);
        let end = HEAP + HEAP_BYTES;
        let top = put_chunks(&mut image, HEAP, end, 0, chunks);
        put_arena(&mut image, BINS_AT, top, MAIN);
        (image, top)
    }

    /// What there is in a program's heaps.
    #[derive(Debug, Default)]
    struct Seen {
        arenas: usize,
        stretches: Vec<(u64, u64, State)>,
        whole_pages: Vec<(u64, u64)>,
        kept: Vec<(u64, u64)>,
    }

    impl Seen {
        fn bytes(&self, state: State) -> u64 {
            let stretches = self.stretches.iter().filter(|(_, _, is)| *is == state);
            stretches.map(|(from, to, _)| to - from).sum()
        }
    }

    fn look(image: &Image) -> Option<Seen> {
        let pages = image.pages();
        let mut reader = Reader::new(image, &pages);
        let data = [(DATA, DATA + 0x2000)];
        let arenas = find(&mut reader, &data, Some((HEAP, HEAP + HEAP_BYTES)))?;
        let mut seen = Seen {
            arenas: arenas.len(),
            ..Seen::default()
        };
        let mut caches = Vec::new();
        let fast = fast(&mut reader, &arenas);
        for arena in &arenas {
            for heap in &arena.heaps {
                let mut at = heap.start;
                let mut to_do = Walk {
                    tell: &mut |from, to, state| {
                        // In order, and without gaps.
                        assert_eq!(from, at);
                        assert!(from < to);
                        at = to;
                        seen.stretches.push((from, to, state));
                    },
                    whole_pages: &mut |from, to| seen.whole_pages.push((from, to)),
                    fast: &fast,
                    caches: Vec::new(),
                    blocks: None,
                };
                walk(&mut reader, heap, arena.is_main, &mut to_do);
                caches.extend(to_do.caches);
                assert_eq!(at, heap.end);
            }
        }
        seen.kept = fast;
        seen.kept.extend(cached(&mut reader, &caches));
        seen.kept.sort_unstable();
        Some(seen)
    }

    fn hide(place: u64, link: u64) -> u64 {
        (place >> 12) ^ link
    }

    #[test]
    fn a_heap_is_walked_to_its_top() {
        let (image, top) = program(&[
            (0x290, true),
            (0x40, true),
            (0x5000, false),
            (0x20, true),
            (0x60, false),
            (0x1000, true),
        ]);
        let seen = look(&image).unwrap();
        assert_eq!(seen.arenas, 1);
        assert_eq!(
            seen.stretches,
            [
                (HEAP, HEAP + 0x2d0, State::Live),
                (HEAP + 0x2d0, HEAP + 0x52d0, State::Free),
                (HEAP + 0x52d0, HEAP + 0x52f0, State::Live),
                (HEAP + 0x52f0, HEAP + 0x5350, State::Free),
                (HEAP + 0x5350, top, State::Live),
                (top, HEAP + HEAP_BYTES, State::Top),
            ]
        );
        // The header of a free chunk stays, and so does the page of it.
        assert_eq!(
            seen.whole_pages,
            [
                (HEAP + 0x1000, HEAP + 0x5000),
                (HEAP + 0x7000, HEAP + HEAP_BYTES)
            ]
        );
    }

    #[test]
    fn a_process_that_does_not_use_malloc_has_no_heap() {
        let image = Image::new(HEAP, HEAP_BYTES as usize).and(DATA, 0x2000);
        assert!(look(&image).is_none());
    }

    /// Words before them, and bins that are used or changing, once led to a place
    /// before the bins: arenas of threads were not found in a busy program.
    #[test]
    fn the_bins_of_a_busy_arena_are_found_where_they_are() {
        let (mut image, top) = program(&[(0x40, true), (0x60, true)]);
        for before in 2..12 {
            image.set(BINS_AT - before * 8, top);
        }
        image.set(BINS_AT - 8, HEAP);
        for bin in 1..110 {
            image.set(BINS_AT + bin * 16, HEAP + 0x40);
            image.set(BINS_AT + bin * 16 + 8, HEAP);
        }
        for changing in [3, 50, 90] {
            image.set(BINS_AT + changing * 16, 0);
        }
        let seen = look(&image).unwrap();
        assert_eq!(seen.arenas, 1);
        assert_eq!(seen.bytes(State::Live), 0xa0);
        let pages = image.pages();
        let mut reader = Reader::new(&image, &pages);
        let found = find_bins(&mut reader, DATA, DATA + 0x2000);
        assert_eq!(found, Some(BINS_AT));
    }

    #[test]
    fn lists_tell_what_is_kept_aside() {
        for hidden in [false, true] {
            let hide = |place, link| if hidden { hide(place, link) } else { link };
            let mut chunks = vec![(0x290, true)];
            chunks.extend([(0x40, true); 6]);
            let (mut image, _) = program(&chunks);
            let block = |at: u64| HEAP + 0x290 + at * 0x40;
            // Two in a fast bin, by the addresses of their headers.
            image.set(BINS_AT - 16 - 80 + 2 * 8, block(1));
            image.set(block(1) + 16, hide(block(1) + 16, block(4)));
            image.set(block(4) + 16, hide(block(4) + 16, 0));
            // Two in the cache, by the addresses of their memory.
            let cache = HEAP + 16;
            image.set(cache, 2 << 32);
            image.set(cache + 128 + 2 * 8, block(2) + 16);
            image.set(block(2) + 16, hide(block(2) + 16, block(5) + 16));
            image.set(block(5) + 16, hide(block(5) + 16, 0));
            let seen = look(&image).unwrap();
            assert_eq!(
                seen.kept,
                [1, 2, 4, 5].map(|at| (block(at), 0x40)),
                "hidden: {hidden}"
            );
        }
    }

    /// A third was missing of what `malloc_trim` gave back.
    #[test]
    fn free_chunks_in_a_row_are_given_back_together() {
        let (mut image, top) = program(&[
            (0x800, true),
            (0xc00, false),
            (0x40, true),
            (0xc00, false),
            (0x800, true),
        ]);
        assert_eq!(
            look(&image).unwrap().whole_pages[0].0,
            (top + 0xfff) & !0xfff
        );
        let between = HEAP + 0x1400;
        image.set(BINS_AT - 16 - 80 + 2 * 8, between);
        image.set(between + 16, hide(between + 16, 0));
        let pages = look(&image).unwrap().whole_pages;
        assert_eq!(pages[0], (HEAP + 0x1000, HEAP + 0x2000));
        // Where the header of a free chunk is, its page stays.
        let (image, _) = program(&[(0x1000, true), (0x3000, false), (0x20, true)]);
        let pages = look(&image).unwrap().whole_pages;
        assert_eq!(pages[0], (HEAP + 0x2000, HEAP + 0x4000));
    }

    #[test]
    fn a_block_of_a_caches_size_is_not_believed_to_be_one() {
        let (mut image, _) = program(&[(0x40, true), (0x290, true), (0x40, true)]);
        for word in 0..80 {
            image.set(HEAP + 0x50 + word * 8, HEAP + 0x10);
        }
        // One of its lists would be one.
        image.set(HEAP + 0x50, 1 << 32);
        assert_eq!(look(&image).unwrap().kept, []);
    }

    #[test]
    fn a_list_that_leads_back_into_itself_ends() {
        let (mut image, _) = program(&[(0x40, true), (0x40, true)]);
        image.set(BINS_AT - 16 - 80 + 2 * 8, HEAP);
        image.set(HEAP + 16, hide(HEAP + 16, HEAP + 0x40));
        image.set(HEAP + 0x50, hide(HEAP + 0x50, HEAP));
        let kept = look(&image).unwrap().kept;
        assert_eq!(kept, [(HEAP, 0x40), (HEAP + 0x40, 0x40)]);
    }

    #[test]
    fn a_heap_that_is_torn_is_walked_on_behind() {
        let mut chunks = vec![(0x100, true); 40];
        chunks.push((0x2000, false));
        chunks.extend([(0x100, true); 40]);
        let (mut image, _) = program(&chunks);
        let whole = look(&image).unwrap();
        image.set(HEAP + 0x508, 0xdead_beef);
        let seen = look(&image).unwrap();
        assert!((1..=0x200).contains(&seen.bytes(State::Torn)), "{seen:?}");
        assert_eq!(seen.bytes(State::Free), 0x2000);
        assert_eq!(
            seen.bytes(State::Live) + seen.bytes(State::Torn),
            whole.bytes(State::Live)
        );
    }

    #[test]
    fn no_bytes_make_a_walk_panic_or_go_on_for_ever() {
        let chunks: Vec<(u64, bool)> = (1..200)
            .map(|at| (0x20 + at % 40 * 0x10, at % 3 != 0))
            .collect();
        let (good, top) = program(&chunks);
        let mut random = 1_u64;
        let mut next = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            random >> 20
        };
        for round in 0..60 {
            let mut image = Image::new(HEAP, HEAP_BYTES as usize).and(DATA, 0x2000);
            image.parts.clone_from(&good.parts);
            for _ in 0..(1 << (round % 10)) {
                let at = HEAP + next() % (top - HEAP) / 8 * 8;
                let word =
                    [next(), 0, u64::MAX, HEAP + next() % HEAP_BYTES, 0x31][(next() % 5) as usize];
                image.set(at, word);
            }
            // Sometimes the arena, too.
            if round % 3 == 0 {
                image.set(BINS_AT - 96 + next() % 16 * 8, HEAP + next() % HEAP_BYTES);
                image.set(BINS_AT + TO_NEXT, next());
            }
            if let Some(seen) = look(&image) {
                let all: u64 = seen.stretches.iter().map(|(from, to, _)| to - from).sum();
                assert_eq!(all, HEAP_BYTES);
            }
        }
    }

    #[test]
    fn arenas_of_threads_are_found_by_the_list() {
        const NEW: u64 = 0x7f00_0400_0000;
        const OLD: u64 = 0x7f00_0800_0000;
        let (mut image, _) = program(&[(0x40, true)]);
        image = image.and(NEW, 0x2_0000).and(OLD, 0x2_0000);
        // The arena lies in its first heap, which is full; it goes on in
        // another.
        let arena = OLD + 0x30;
        for (heap, before) in [(OLD, 0), (NEW, OLD)] {
            image.set(heap, arena);
            image.set(heap + 8, before);
            image.set(heap + 16, 0x2_0000);
            image.set(heap + 24, 0x2_0000);
        }
        let first = (arena + 0x70 + TO_END).next_multiple_of(16);
        let old = [(0x1000, true), (0x3000, false), (0x1_0000, true)];
        let end = put_chunks(&mut image, first, OLD + 0x2_0000, NOT_MAIN, &old);
        // What was left is free, and ends with a fence.
        let rest = OLD + 0x2_0000 - 0x20 - end;
        image.set(end + 8, rest | IN_USE);
        image.set(OLD + 0x2_0000 - 0x20, rest);
        image.set(OLD + 0x2_0000 - 0x18, 0x10);
        image.set(OLD + 0x2_0000 - 8, 1);
        let new = [(0x100, true), (0x200, false), (0x300, true)];
        let top = put_chunks(&mut image, NEW + 0x30, NEW + 0x2_0000, NOT_MAIN, &new);
        put_arena(&mut image, arena + 0x70, top, MAIN);
        image.set(BINS_AT + TO_NEXT, arena);

        let seen = look(&image).unwrap();
        assert_eq!(seen.arenas, 2);
        assert_eq!(seen.bytes(State::Torn), 0);
        assert_eq!(seen.bytes(State::Free), 0x3000 + rest + 0x200);
        assert!(seen.stretches.contains(&(top, NEW + 0x2_0000, State::Top)));
        // The end of a thread's heap is not what `malloc_trim` gives back.
        assert!(
            seen.whole_pages
                .iter()
                .all(|(from, _)| *from < top || *from > NEW + 0x2_0000)
        );

        // Its bins lead to memory that was not there when the kernel was asked.
        for bin in 0..BINS {
            image.set(arena + 0x70 + bin * 16, NEW + 0x2_0000 + bin * 0x400);
            image.set(arena + 0x70 + bin * 16 + 8, NEW + 0x8_0000);
        }
        assert_eq!(look(&image).unwrap().stretches, seen.stretches);
        // What it has cannot be told, but it is one.
        image.set(OLD, 0);
        let unknown = look(&image).unwrap();
        assert_eq!((unknown.arenas, unknown.bytes(State::Free)), (2, 0));
    }

    #[test]
    fn blocks_that_were_mapped_are_known_by_their_header() {
        const AT: u64 = 0x7f00_0000_0000;
        let block = |lead: usize, before: u64, field: u64| {
            let mut bytes = [0; 128];
            bytes[lead..lead + 8].copy_from_slice(&before.to_le_bytes());
            bytes[lead + 8..lead + 16].copy_from_slice(&field.to_le_bytes());
            mapped_block(AT, &bytes, AT + 0x10_0000)
        };
        assert_eq!(block(0, 0, 0x2_1002), Some(AT + 0x2_1000));
        // An aligned one.
        assert_eq!(block(48, 48, 0x2_1002 - 48), Some(AT + 0x2_1000));
        // glibc 2.43's.
        assert_eq!(block(0, 1, 0x2_0ff2), Some(AT + 0x2_1000));
        assert_eq!(block(48, 48, 0x2_0ff2 - 48), Some(AT + 0x2_1000));
        for (before, field) in [
            (8, 0x2_1002),
            (0, 0x2_1003),
            (0, 0x2_1012),
            (0, 0x1002),
            (0, 0x20_0002),
        ] {
            assert_eq!(block(0, before, field), None);
        }
        assert_eq!(mapped_block(AT, &[2; 20], u64::MAX), None);
        assert_eq!(mapped_block(u64::MAX - 4095, &[0xfa; 128], u64::MAX), None);
    }
}
