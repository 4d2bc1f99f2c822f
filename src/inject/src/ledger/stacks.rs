//! The stacks of threads.
//!
//! A thread's stack is where its stack pointer leads, or lies above pages that
//! nobody may touch. glibc keeps the thread's own block at the upper end: it
//! points to itself twice, and says where the stack begins and how large it is.
//! That matters where the kernel has merged the stack with what follows it.

use super::maps::Map;
use super::memory::Reader;
use super::pages::PAGE;

/// Looks for stacks; `pointers` are the stack pointers of threads. Ranges come
/// by address, disjoint.
pub(super) fn find(reader: &mut Reader<'_>, maps: &[Map], pointers: &mut [u64]) -> Vec<(u64, u64)> {
    /// Without a thread's block only what may be no more than a stack is one.
    const LARGEST_UNKNOWN: u64 = 64 << 20;
    /// Pages that nobody may touch, below a stack.
    const LARGEST_GUARD: u64 = 1 << 20;
    pointers.sort_unstable();
    let mut found = Vec::new();
    for (at, map) in maps.iter().enumerate() {
        if !map.is_data() || map.rss == 0 {
            continue;
        }
        let is_guarded = at.checked_sub(1).is_some_and(|before| {
            let guard = &maps[before];
            guard.end == map.start
                && guard.is_private_memory()
                && !(guard.readable || guard.writable || guard.executable)
                && guard.end - guard.start <= LARGEST_GUARD
        });
        let from = pointers.partition_point(|pointer| *pointer < map.start);
        let to = pointers.partition_point(|pointer| *pointer < map.end);
        let within = &pointers[from..to];
        let begin = is_guarded.then_some(map.start);
        let mut last_end = map.start;
        for scan in begin.into_iter().chain(within.iter().copied()) {
            if scan < last_end {
                continue;
            }
            let range = if let Some(block) = thread_block(reader, scan, map.end) {
                let (low, high) = extent(reader, block).unwrap_or((map.start, block + PAGE));
                (
                    low.clamp(last_end, map.end),
                    high.next_multiple_of(PAGE).clamp(last_end, map.end),
                )
            } else if within.contains(&scan) && map.end - map.start <= LARGEST_UNKNOWN {
                (last_end, map.end)
            } else {
                continue;
            };
            if range.0 < range.1 {
                found.push(range);
                last_end = range.1;
            }
        }
    }
    found
}

/// The first thread's block at or above `from`.
fn thread_block(reader: &mut Reader<'_>, from: u64, to: u64) -> Option<u64> {
    /// What `malloc` and Python call a deep stack is a tenth of it.
    const MOST_PAGES: usize = 1 << 14;
    let mut page = from & !(PAGE - 1);
    for _ in 0..MOST_PAGES {
        page = reader.pages().next_present(page, to)?;
        for at in (page..page + PAGE).step_by(64) {
            if reader.word(at) == Some(at) && reader.word(at + 16) == Some(at) {
                return Some(at);
            }
        }
        page += PAGE;
    }
    None
}

/// Where the stack of the thread whose block is at `at` begins and ends.
fn extent(reader: &mut Reader<'_>, at: u64) -> Option<(u64, u64)> {
    /// The block has some 2,300 bytes, and lies at the very end.
    const BLOCK: u64 = 0xa00;
    const LEAST_STACK: u64 = 4 * PAGE;
    (at + 0x100..at + BLOCK).step_by(8).find_map(|place| {
        let low = reader.word(place)?;
        let size = reader.word(place + 8)?;
        let high = low.checked_add(size)?;
        let fits = low % PAGE == 0
            && size % PAGE == 0
            && size >= LEAST_STACK
            && low < at
            && (at..=at + BLOCK + PAGE).contains(&high);
        fits.then_some((low, high))
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::Image;
    use super::super::pages::tests::data;
    use super::*;

    const LOW: u64 = 0x7f00_0000_0000;

    /// A stack of 64 KiB that the kernel merged with what follows.
    fn merged() -> (Image, Map, u64) {
        let mut image = Image::new(LOW, 0x4_0000);
        let block = LOW + 0xf6c0;
        image.set(block, block);
        image.set(block + 16, block);
        image.set(block + 0x690, LOW);
        image.set(block + 0x698, 0x1_0000);
        let map = data(LOW, LOW + 0x4_0000);
        (image, map, block)
    }

    #[test]
    fn a_stack_ends_where_its_thread_says() {
        let (image, map, _) = merged();
        let pages = image.pages();
        let mut reader = Reader::new(&image, &pages);
        let maps = [map.clone()];
        let found = find(&mut reader, &maps, &mut [LOW + 0xf000]);
        assert_eq!(found, [(LOW, LOW + 0x1_0000)]);
        // Neither a pointer nor pages to fall into: no stack.
        assert_eq!(find(&mut reader, &maps, &mut []), []);
        let guard = Map {
            start: LOW - PAGE,
            end: LOW,
            ..Map::default()
        };
        let guarded = [guard, map];
        assert_eq!(
            find(&mut reader, &guarded, &mut []),
            [(LOW, LOW + 0x1_0000)]
        );
    }

    #[test]
    fn a_thread_without_a_block_has_all_of_its_map() {
        let (mut image, map, block) = merged();
        image.set(block + 16, 0);
        let pages = image.pages();
        let mut reader = Reader::new(&image, &pages);
        let found = find(&mut reader, &[map], &mut [LOW + 0xf000, LOW + 0xf800]);
        assert_eq!(found, [(LOW, LOW + 0x4_0000)]);
    }
}
