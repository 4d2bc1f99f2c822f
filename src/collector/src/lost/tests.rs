//! Against memory made by hand, and against a model that looks at every pair of blocks.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Pages of words.
#[derive(Debug, Default)]
struct Made {
    pages: BTreeMap<u64, Vec<u64>>,
    elapsed_ns: u64,
    reads: Cell<u64>,
}

impl Made {
    fn set(&mut self, at: u64, word: u64) {
        let page = self.pages.entry(at & !(PAGE - 1));
        let words = page.or_insert_with(|| vec![0; PAGE as usize / 8]);
        words[(at % PAGE / 8) as usize] = word;
    }

    fn map(&mut self, start: u64, end: u64) {
        for page in (start..end).step_by(PAGE as usize) {
            self.set(page, 0);
        }
    }

    fn layout(&self, roots: &[Range]) -> Layout {
        let pages = self.pages.keys().map(|page| (*page, page + PAGE));
        Layout {
            resident: merge(pages.collect()),
            roots: roots.to_vec(),
            brk: None,
        }
    }
}

impl Memory for Made {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        self.reads.set(self.reads.get() + 1);
        for (at, byte) in (at..).zip(to) {
            let Some(page) = self.pages.get(&(at & !(PAGE - 1))) else {
                return false;
            };
            *byte = page[(at % PAGE / 8) as usize].to_ne_bytes()[(at % 8) as usize];
        }
        true
    }

    fn elapsed_ns(&self) -> u64 {
        self.elapsed_ns
    }
}

const ROOT: u64 = 0x10_0000;
const HEAP: u64 = 0x5555_0000_0000;

fn native(start: u64, bytes: u64) -> Node {
    Node {
        start,
        bytes,
        kind: NodeKind::Native,
    }
}

fn lost(found: &Found) -> Vec<(u64, bool)> {
    found
        .lost
        .iter()
        .map(|lost| (lost.start - HEAP, lost.is_indirect))
        .collect()
}

fn made() -> Made {
    let mut memory = Made::default();
    memory.map(ROOT, ROOT + PAGE);
    memory.map(HEAP, HEAP + 16 * PAGE);
    memory
}

const ROOTS: [Range; 2] = [(ROOT, ROOT + PAGE), (HEAP, HEAP + 16 * PAGE)];

#[test]
fn direct_indirect_and_reached_blocks_are_told_apart() {
    let mut memory = made();
    // 0 from a root, 0x40 from inside of 0, 0x80 nothing, 0xc0 and 0x100 by 0x80, and
    // a ring of two.
    memory.set(ROOT + 24, HEAP);
    memory.set(HEAP + 8, HEAP + 0x47);
    memory.set(HEAP + 0x80, HEAP + 0xc0);
    memory.set(HEAP + 0xc8, HEAP + 0x108);
    memory.set(HEAP + 0x140, HEAP + 0x180);
    memory.set(HEAP + 0x180, HEAP + 0x140);
    // Itself does not count, nor does what is free.
    memory.set(HEAP + 0x1c0, HEAP + 0x1c0);
    memory.set(HEAP + 0x138, HEAP + 0x1c0);
    let blocks = (0..8).map(|at| native(HEAP + at * 0x40, 0x30)).collect();
    let found = look(&memory, &memory.layout(&ROOTS), blocks, true).unwrap();
    assert_eq!(
        lost(&found),
        [
            (0x80, false),
            (0xc0, true),
            (0x100, true),
            (0x140, true),
            (0x180, true),
            (0x1c0, false),
        ]
    );
    assert_eq!(found.inner, [HEAP + 0x40]);
}

#[test]
fn ends_are_outside_but_for_words() {
    let mut memory = made();
    memory.set(ROOT, HEAP + 0x30);
    memory.set(ROOT + 8, HEAP + 0x48);
    // Of no bytes it is one.
    memory.set(ROOT + 16, HEAP + 0x80);
    // No word begins here.
    memory.set(ROOT + 24, HEAP.rotate_left(32));
    let blocks = vec![
        native(HEAP, 0x30),
        native(HEAP + 0x40, 8),
        native(HEAP + 0x80, 0),
    ];
    let found = look(&memory, &memory.layout(&ROOTS), blocks, true).unwrap();
    assert_eq!(lost(&found), [(0, false)]);
}

#[test]
fn what_python_has_is_followed_whoever_holds_it() {
    let mut memory = made();
    memory.set(HEAP + 0x40, HEAP);
    let blocks = vec![
        native(HEAP, 0x30),
        Node {
            kind: NodeKind::Python,
            ..native(HEAP + 0x40, 0x30)
        },
    ];
    let found = look(&memory, &memory.layout(&ROOTS), blocks, true).unwrap();
    assert_eq!(lost(&found), []);
}

#[test]
fn unknown_blocks_may_hold_what_is_known() {
    let mut memory = made();
    memory.set(HEAP + 0x40, HEAP);
    let layout = memory.layout(&ROOTS);
    let blocks = || vec![native(HEAP, 0x30), native(HEAP + 0x80, 0x30)];
    // All blocks are known: what lies between them is free.
    let found = look(&memory, &layout, blocks(), true).unwrap();
    assert_eq!(lost(&found), [(0, false), (0x80, false)]);
    let found = look(&memory, &layout, blocks(), false).unwrap();
    assert_eq!(lost(&found), [(0x80, false)]);
}

#[test]
fn a_page_without_blocks_is_no_heap() {
    let mut memory = made();
    // A thread's stack may lie between two blocks.
    memory.set(HEAP + 2 * PAGE, HEAP);
    let blocks = vec![native(HEAP, 0x30), native(HEAP + 5 * PAGE, 0x30)];
    let mut layout = memory.layout(&ROOTS);
    let found = look(&memory, &layout, blocks.clone(), true).unwrap();
    assert_eq!(lost(&found), [(5 * PAGE, false)]);
    // But not in `brk`'s memory.
    layout.brk = Some((HEAP, HEAP + 16 * PAGE));
    let found = look(&memory, &layout, blocks, true).unwrap();
    assert_eq!(lost(&found), [(0, false), (5 * PAGE, false)]);
}

#[test]
fn arenas_of_glibc_are_heap() {
    const ARENA: u64 = 0x7f00_0000_0000;
    let mut memory = made();
    memory.map(ARENA, ARENA + 16 * PAGE);
    memory.set(ARENA, ARENA + 0x30);
    memory.set(ARENA + 16, 16 * PAGE);
    memory.set(ARENA + 24, 16 * PAGE);
    // The chunk's header: size, and that its arena is not the main one.
    memory.set(ARENA + 0x1000 - 8, 0x45);
    // Free memory far from any block.
    memory.set(ARENA + 9 * PAGE, ARENA + 0x1000);
    let blocks = vec![native(ARENA + 0x1000, 0x38)];
    let layout = memory.layout(&[(ROOT, ROOT + PAGE), (ARENA, ARENA + 16 * PAGE)]);
    let found = look(&memory, &layout, blocks.clone(), true).unwrap();
    assert_eq!(found.lost.len(), 1);
    memory.set(ARENA + 0x1000 - 8, 0x41);
    let found = look(&memory, &layout, blocks, true).unwrap();
    assert_eq!(found.lost.len(), 0, "not glibc's: it may be anything");
}

#[test]
fn mappings_are_blocks_with_blocks_in_them() {
    let mut memory = made();
    let mapping = |start, pages: u64| Node {
        start,
        bytes: pages * PAGE,
        kind: NodeKind::Mapping,
    };
    let blocks = vec![
        mapping(HEAP, 4),
        native(HEAP + 0x100, 0x40),
        mapping(HEAP + 8 * PAGE, 2),
        mapping(HEAP + 12 * PAGE, 1),
    ];
    // Into the first, which holds the second; what a lost block in it holds is lost.
    memory.set(ROOT, HEAP + 3 * PAGE);
    memory.set(HEAP + 2 * PAGE, HEAP + 9 * PAGE);
    memory.set(HEAP + 0x110, HEAP + 12 * PAGE);
    let found = look(&memory, &memory.layout(&ROOTS), blocks, true).unwrap();
    assert_eq!(lost(&found), [(0x100, false), (12 * PAGE, true)]);
}

#[test]
fn a_look_that_takes_too_long_finds_nothing() {
    let mut memory = made();
    memory.elapsed_ns = MOST_NS + 1;
    let layout = memory.layout(&ROOTS);
    let error = look(&memory, &layout, vec![native(HEAP, 8)], true).unwrap_err();
    assert_eq!(error, "it took more than 15 s");
}

#[test]
fn what_cannot_be_read_is_counted() {
    let mut memory = made();
    memory.set(ROOT, HEAP);
    let mut layout = memory.layout(&ROOTS);
    layout.resident.push((HEAP + 32 * PAGE, HEAP + 33 * PAGE));
    layout.roots.push((HEAP + 32 * PAGE, HEAP + 33 * PAGE));
    let found = look(&memory, &layout, vec![native(HEAP, 8)], true).unwrap();
    assert_eq!((found.unread_bytes, found.lost.len()), (PAGE, 0));
}

#[test]
fn neighbours_are_read_together() {
    let mut memory = made();
    let blocks: Vec<Node> = (0..200).map(|at| native(HEAP + at * 0x40, 0x30)).collect();
    for at in 0..200 {
        memory.set(ROOT + 8 * at, HEAP + at * 0x40);
    }
    let layout = memory.layout(&ROOTS[..1]);
    let found = look(&memory, &layout, blocks, true).unwrap();
    assert_eq!(found.lost, []);
    assert!(memory.reads.get() < 10, "{} reads", memory.reads.get());
}

proptest! {
    #[test]
    fn ranges_are_what_single_addresses_say(
        from in prop::collection::vec((0..100_u64, 0..20_u64), 0..8),
        without in prop::collection::vec((0..100_u64, 0..20_u64), 0..8),
    ) {
        let ranges = |list: Vec<(u64, u64)>| merge(list.iter().map(|(a, n)| (*a, a + n)).collect());
        let (from, without) = (ranges(from), ranges(without));
        let rest = subtract(&from, &without);
        let has = |ranges: &[Range], at| ranges.iter().any(|range| (range.0..range.1).contains(&at));
        for at in 0..130 {
            prop_assert_eq!(has(&rest, at), has(&from, at) && !has(&without, at));
        }
        prop_assert!(rest.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }

    /// Blocks of all sizes, wherever: each address finds what a plain search finds.
    #[test]
    fn addresses_find_their_blocks(
        steps in prop::collection::vec((0..7_u32, 0..2_000_u64), 1..60),
        probes in prop::collection::vec(any::<u64>(), 50),
    ) {
        let mut at = HEAP;
        let mut blocks = Vec::new();
        for (size, gap) in steps {
            let bytes = [0, 8, 24, 500, 70_000, 3 << 20, LARGE + 5][size as usize];
            blocks.push(native(at, bytes));
            at += (bytes.max(1) + 16 + gap * gap).next_multiple_of(16);
        }
        let end = at;
        let index = Index::new(blocks.clone());
        let near = blocks.iter().flat_map(|node| {
            let end = node.start + node.bytes;
            [node.start - 1, node.start, node.start + 1, end.wrapping_sub(1), end, end + 8]
        });
        let far = probes.iter().map(|probe| HEAP + probe % (end - HEAP));
        for word in near.chain(far) {
            let plain = blocks.iter().find(|node| {
                let offset = word.wrapping_sub(node.start);
                offset < node.bytes.max(1) || offset == 8 && node.bytes == 8
            });
            let found = index.find(word).map(|number| *index.get(number));
            prop_assert_eq!(found, plain.copied(), "{:#x}", word);
        }
    }

    /// Any graph of blocks: reached is what a closure over all pairs says.
    #[test]
    fn any_graph_is_followed(
        count in 1..60_u64,
        edges in prop::collection::vec((0..60_u64, 0..60_u64), 0..120),
        roots in prop::collection::vec(0..60_u64, 0..6),
    ) {
        let mut memory = made();
        let address = |block: u64| HEAP + block * 0x200;
        let edges: Vec<(u64, u64)> =
            edges.into_iter().filter(|edge| edge.0 < count && edge.1 < count).collect();
        let mut used = vec![0; 60];
        for &(from, to) in &edges {
            if used[from as usize] < 0x1f8 {
                memory.set(address(from) + used[from as usize], address(to) + 8 * (to % 3));
                used[from as usize] += 8;
            }
        }
        for (place, root) in (0..).zip(roots.iter().filter(|root| **root < count)) {
            memory.set(ROOT + 8 * place, address(*root));
        }
        let mut reached: Vec<bool> = (0..count).map(|block| roots.contains(&block)).collect();
        for _ in 0..count {
            for &(from, to) in &edges {
                reached[to as usize] |= reached[from as usize];
            }
        }
        let expected: Vec<(u64, bool)> = (0..count)
            .filter(|block| !reached[*block as usize])
            .map(|block| {
                let by_other = |&(from, to): &(u64, u64)| {
                    to == block && from != to && !reached[from as usize]
                };
                (address(block) - HEAP, edges.iter().any(by_other))
            })
            .collect();
        let blocks = (0..count).map(|block| native(address(block), 0x1f8)).collect();
        let found = look(&memory, &memory.layout(&ROOTS), blocks, true).unwrap();
        prop_assert_eq!(lost(&found), expected);
    }
}
