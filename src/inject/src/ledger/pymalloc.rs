//! CPython's own allocator for small blocks, read from outside.
//!
//! Arenas (1 MiB; 256 KiB before 3.10) are cut into pools (16 KiB; 4 KiB),
//! each of blocks of one size and with a header of 48 bytes that says so twice:
//! by a class of sizes, and by the offset of its last block. So a pool is known
//! by its header, whatever mapping it lies in and whatever symbols there are,
//! and its size is told by it. Only the numbers are used, no link is followed.

use super::pages::PAGE;

/// Bytes of a pool's header.
pub(super) const HEADER: usize = 48;

/// A pool: blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) start: u64,
    /// 16 KiB or 4 KiB.
    pub(super) size: u64,
    /// Which arena it is of, as CPython counts them.
    arena: u32,
    /// Bytes of a block.
    pub(super) block: u64,
    /// Bytes of its blocks in use.
    pub(super) used: u64,
    /// Where the blocks end that were ever handed out.
    pub(super) carved_to: u64,
}

impl Pool {
    /// What `bytes` at `start` are, if they are the header of a pool.
    pub(super) fn parse(start: u64, bytes: &[u8]) -> Option<Pool> {
        /// Blocks above 512 bytes are malloc's.
        const CLASSES: u32 = 32;
        const MOST_ARENAS: u32 = 1 << 24;
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (count, free) = (half(0)?, word(8)?);
        let (arena, class, next, last) = (half(32)?, half(36)?, half(40)?, half(44)?);
        if class >= CLASSES || arena >= MOST_ARENAS {
            return None;
        }
        let block = u64::from(class + 1) * 16;
        let (next, last, count) = (u64::from(next), u64::from(last), u64::from(count));
        let size = last + block;
        let header = HEADER as u64;
        let fits = (size == 4 << 10 || size == 16 << 10)
            && start.is_multiple_of(size)
            && (header + block..=size).contains(&next)
            && (next - header).is_multiple_of(block);
        if !fits {
            return None;
        }
        let carved = (next - header) / block;
        let is_block = (start + header..start + next).contains(&free)
            && (free - start - header).is_multiple_of(block);
        // Without a free block there is none in use less than carved.
        let fits = count <= carved && (is_block || (free == 0 && count == carved));
        fits.then_some(Pool {
            start,
            size,
            arena,
            block,
            used: count * block,
            carved_to: start + next,
        })
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.size
    }

    fn arena_size(&self) -> u64 {
        self.size * 64
    }
}

/// Which blocks of a pool are free of those that were ever handed out: `bytes` is all
/// of it up to there. They are a list that begins in the header.
pub(super) fn free_blocks(pool: &Pool, bytes: &[u8]) -> Vec<bool> {
    let first = pool.start + HEADER as u64;
    let mut free = vec![false; ((pool.carved_to - first) / pool.block) as usize];
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut next = word(8);
    while let Some(at) = next
        && let Some(offset) = at.checked_sub(first)
        && let Some(is_free) = free.get_mut((offset / pool.block) as usize)
        && !*is_free
    {
        *is_free = true;
        next = word((at - pool.start) as usize);
    }
    free
}

/// A piece of a thread's stack of Python frames (3.11 and later), which begins
/// with a link to the piece before, its size, and how far it was in use when
/// the next was begun: where it ends, `limit` at most.
pub(super) fn frames(page: u64, bytes: &[u8], limit: u64) -> Option<u64> {
    const SMALLEST: u64 = 16 << 10;
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (before, size, used) = (word(0)?, word(8)?, word(16)?);
    let end = page.checked_add(size)?;
    let fits = before % PAGE == 0
        && before < 1 << 56
        && size >= SMALLEST
        && size.is_power_of_two()
        && used <= size / 8
        && end <= limit;
    fits.then_some(end)
}

/// Neighbouring pools of one arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arena<'p> {
    pub(super) pools: &'p [Pool],
    /// Up to where its memory is surely its own.
    pub(super) end: u64,
}

impl Arena<'_> {
    /// Bytes of its blocks in use.
    pub(super) fn used(&self) -> u64 {
        self.pools.iter().map(|pool| pool.used).sum()
    }
}

/// Puts pools, by address, together to arenas.
pub(super) fn arenas(pools: &[Pool]) -> Vec<Arena<'_>> {
    let mut arenas: Vec<Arena<'_>> = Vec::new();
    let mut rest = pools;
    while let Some(first) = rest.first() {
        let limit = first.start.saturating_add(first.arena_size());
        let count = rest
            .iter()
            .take_while(|pool| {
                pool.arena == first.arena && pool.size == first.size && pool.end() <= limit
            })
            .count();
        let (pools, others) = rest.split_at(count.max(1));
        // An arena that does not begin on a pool's boundary has a pool less.
        let surely = limit - first.size.max(PAGE);
        let end = pools.last().map_or(first.end(), Pool::end).max(surely);
        let end = others.first().map_or(end, |next| end.min(next.start));
        arenas.push(Arena { pools, end });
        rest = others;
    }
    arenas
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as CPython 3.10 and later write it.
    fn header(start: u64, pool: u32, arena: u32, class: u32, count: u32, carved: u32) -> Vec<u8> {
        let block = (class + 1) * 16;
        let mut bytes = vec![0; HEADER];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &count.to_le_bytes());
        put(4, &[0x7f, 0, 0, 0]);
        if count < carved {
            put(8, &(start + 48 + u64::from(count * block)).to_le_bytes());
        }
        put(32, &arena.to_le_bytes());
        put(36, &class.to_le_bytes());
        put(40, &(48 + carved * block).to_le_bytes());
        put(44, &(pool - block).to_le_bytes());
        bytes
    }

    const AT: u64 = 0x7f00_0010_0000;

    #[test]
    fn a_pool_is_known_by_its_header() {
        let pool = Pool::parse(AT, &header(AT, 16 << 10, 3, 3, 100, 200)).unwrap();
        assert_eq!((pool.size, pool.used), (16 << 10, 6400));
        assert_eq!(pool.carved_to, AT + 48 + 200 * 64);
        let small = Pool::parse(AT + 4096, &header(AT + 4096, 4 << 10, 0, 31, 7, 7)).unwrap();
        assert_eq!((small.size, small.used), (4 << 10, 7 * 512));
        // Empty ones are pools, too.
        assert_eq!(
            Pool::parse(AT, &header(AT, 16 << 10, 0, 0, 0, 9))
                .unwrap()
                .used,
            0
        );
    }

    #[test]
    fn what_contradicts_itself_is_no_pool() {
        let good = header(AT, 16 << 10, 3, 3, 100, 200);
        assert_eq!(Pool::parse(AT + 4096, &good), None);
        assert_eq!(Pool::parse(AT, &[0; HEADER]), None);
        assert_eq!(Pool::parse(AT, &[0xff; HEADER]), None);
        assert_eq!(Pool::parse(AT, &good[..47]), None);
        let mut more_than_carved = good.clone();
        more_than_carved[0] = 201;
        assert_eq!(Pool::parse(AT, &more_than_carved), None);
        for (at, byte) in [(8, 1), (36, 32), (40, 1), (44, 1)] {
            let mut bad = good.clone();
            bad[at] ^= byte;
            assert_eq!(Pool::parse(AT, &bad), None, "byte {at}");
        }
        // No bytes make it panic.
        for at in 0..HEADER {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = Pool::parse(AT, &bytes);
                let _ = Pool::parse(u64::MAX - 16383, &bytes);
            }
        }
    }

    #[test]
    fn pieces_of_frame_stacks_are_known() {
        let bytes = |words: [u64; 3]| words.map(u64::to_le_bytes).concat();
        let frames = |words| frames(AT, &bytes(words), AT + 0x8000);
        assert_eq!(frames([0, 0x4000, 0]), Some(AT + 0x4000));
        assert_eq!(frames([AT - 0x4000, 0x8000, 700]), Some(AT + 0x8000));
        for other in [
            [8, 0x4000, 0],
            [0, 0x4001, 0],
            [0, 0x1_0000, 0],
            [0, 0x4000, 0x801],
        ] {
            assert_eq!(frames(other), None);
        }
    }

    #[test]
    fn pools_are_put_together_to_arenas() {
        let pool =
            |at: u64, arena: u32| Pool::parse(at, &header(at, 16 << 10, arena, 1, 10, 20)).unwrap();
        let mut pools: Vec<Pool> = (0..64).map(|at| pool(AT + at * 0x4000, 0)).collect();
        // The next one follows at once, and is only begun.
        pools.extend((0..3).map(|at| pool(AT + 0x10_0000 + at * 0x4000, 1)));
        // One that does not begin on a pool's boundary has a pool less.
        pools.extend((0..63).map(|at| pool(AT + 0x40_0000 + at * 0x4000, 2)));
        pools.extend((0..2).map(|at| pool(AT + 0x4f_c000 + at * 0x4000, 3)));
        // The same number far away is another interpreter's.
        pools.push(pool(AT + 0x80_0000, 1));
        let found = arenas(&pools);
        let counts: Vec<usize> = found.iter().map(|arena| arena.pools.len()).collect();
        assert_eq!(counts, [64, 3, 63, 2, 1]);
        assert_eq!(found[0].end, AT + 0x10_0000);
        assert_eq!(found[1].end, AT + 0x20_0000 - 0x4000);
        assert_eq!(found[1].used(), 3 * 320);
        assert_eq!(arenas(&[]), []);
    }
}
