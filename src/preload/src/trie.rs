//! Interns stacks into the session's trie (`leakline_wire::trie`).
//!
//! # Invariants
//!
//! * A node is written whole before its id is put anywhere that another
//!   thread can see, and never changes afterwards.
//! * No lock: who loses a race, or does not find a node while the table grows,
//!   makes a twin with the same meaning, which the collector folds.
//!
//! # The table
//!
//! Open addressing, so that a node that is not there costs one cache miss:
//! the start of a large program makes a million of them, each met once. A
//! table that is half full is followed by one of twice its size. Nobody moves
//! anything at that moment: who misses in the new table looks in the one
//! before, and carries over what is there. Tables stay mapped; those before
//! the last two give their pages back.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use leakline_wire::layout::{Slot, TRIE_BLOCKS};
use leakline_wire::trie::{MAX_NODES, NO_STACK, NODES_PER_BLOCK, Node, kind};

use crate::session::Session;
use crate::sys;

/// Entries of the first table: 64 KiB.
const FIRST_BITS: u32 = 13;
/// Up to one with two entries for each node: no table is ever more than half
/// full, or a few nodes before the end lookups would miss and make twins.
const LEVELS: usize = (MAX_NODES.trailing_zeros() - FIRST_BITS + 2) as usize;
/// Places after its own where an entry may lie: two cache lines.
const PROBES: usize = 16;

/// An entry is 32 bits of the node's hash above the node's id; 0 = empty.
static TABLES: [AtomicPtr<AtomicU64>; LEVELS] = [const { AtomicPtr::new(null_mut()) }; LEVELS];
/// Index of the last of them.
static LEVEL: AtomicU32 = AtomicU32::new(0);
/// The id at which the next table is due.
static GROW_AT: AtomicU32 = AtomicU32::new(1 << (FIRST_BITS - 1));

/// Chunk index + 1 of each block: this process's own copy of the directory.
static BLOCKS: [AtomicU32; TRIE_BLOCKS] = [const { AtomicU32::new(0) }; TRIE_BLOCKS];
/// The next id to hand out. 0 is the empty stack.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The node of a stack that has no place, see [`fold`]; [`NO_STACK`] before
/// there was one.
static FOLDED: AtomicU32 = AtomicU32::new(NO_STACK);
/// 1 once this process said that all ids are used up.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// Gets memory for the first table, and a place for what will have none later.
/// False when there is no memory.
pub fn set_up(session: &Session) -> bool {
    if !add_table(0) {
        return false;
    }
    // Without a chunk now, `fold` tries again.
    let _ = folded(session);
    true
}

/// Forgets all nodes, for a new session. No hook may be at work.
pub fn begin_anew() {
    for (level, table) in TABLES.iter().enumerate() {
        let table = table.load(Ordering::Relaxed);
        if !table.is_null() {
            let bytes = size_of::<AtomicU64>() << (FIRST_BITS as usize + level);
            sys::empty(table.cast(), bytes);
        }
    }
    LEVEL.store(0, Ordering::Relaxed);
    GROW_AT.store(1 << (FIRST_BITS - 1), Ordering::Relaxed);
    for block in &BLOCKS {
        block.store(0, Ordering::Relaxed);
    }
    NEXT.store(1, Ordering::Relaxed);
    FOLDED.store(NO_STACK, Ordering::Relaxed);
    TOLD.store(0, Ordering::Relaxed);
}

/// Adds the table of a level, unless it is there.
fn add_table(level: usize) -> bool {
    let place = &TABLES[level];
    if place.load(Ordering::Acquire).is_null() {
        let bytes = size_of::<AtomicU64>() << (FIRST_BITS as usize + level);
        let memory = if level == 0 {
            sys::map_private(bytes)
        } else {
            sys::map_late(bytes)
        };
        let Some(memory) = memory else {
            return false;
        };
        // Release pairs with the Acquire in `entries`: zeroed pages, all
        // empty. Who loses has mapped memory that nobody touches.
        let _ = place.compare_exchange(
            null_mut(),
            memory.cast(),
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
    LEVEL.fetch_max(level as u32, Ordering::Release);
    true
}

/// In a forked child: nodes so far stay readable where they are (the parent
/// never changes them), new ones go to blocks of our own.
pub fn after_fork(slot: &Slot) {
    let next = NEXT.load(Ordering::Relaxed) as usize;
    NEXT.store(
        (next.div_ceil(NODES_PER_BLOCK) * NODES_PER_BLOCK) as u32,
        Ordering::Relaxed,
    );
    // A thread of the parent's may have been about to begin a block.
    for block in &BLOCKS[next.div_ceil(NODES_PER_BLOCK).min(TRIE_BLOCKS)..] {
        block.store(0, Ordering::Relaxed);
    }
    for (to, from) in slot.trie.iter().zip(&BLOCKS) {
        let chunk = from.load(Ordering::Relaxed);
        to.store(chunk, Ordering::Relaxed);
    }
    slot.trie_nodes.store(next as u32, Ordering::Relaxed);
    TOLD.store(0, Ordering::Relaxed);
}

/// The node of `frame` called from `parent`, made if need be. `None` when there
/// is no room: see [`fold`].
#[cold]
#[inline(never)]
pub fn intern(session: &Session, parent: u32, node_kind: u32, frame: u64) -> Option<u32> {
    let wanted = Wanted {
        parent,
        kind: node_kind,
        frame,
    };
    let hash = wanted.hash();
    let level = LEVEL.load(Ordering::Acquire) as usize;
    if let Some(found) = wanted.search(session, level, hash) {
        return Some(found);
    }
    if let Some(before) = level.checked_sub(1)
        && let Some(found) = wanted.search(session, before, hash)
    {
        put(level, hash, found);
        return Some(found);
    }
    let id = new_id(session)?;
    let node = node(session, id)?;
    node.parent.store(parent, Ordering::Relaxed);
    node.frame.store(frame, Ordering::Relaxed);
    node.kind.store(node_kind, Ordering::Relaxed);
    node.label.store(0, Ordering::Relaxed);
    put(level, hash, id);
    if id >= GROW_AT.load(Ordering::Relaxed) {
        grow(level, id);
    }
    Some(id)
}

/// What a node is to be.
struct Wanted {
    parent: u32,
    kind: u32,
    frame: u64,
}

impl Wanted {
    fn hash(&self) -> u64 {
        let caller = (u64::from(self.kind) << 32 | u64::from(self.parent))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.frame ^ caller).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    /// The id of the node in a table.
    fn search(&self, session: &Session, level: usize, hash: u64) -> Option<u32> {
        for entry in entries(level, hash) {
            // Acquire pairs with the Release in `put`: the node is whole.
            let entry = entry.load(Ordering::Acquire);
            if entry == 0 {
                return None;
            }
            if entry >> 32 == hash & 0xffff_ffff {
                let id = entry as u32;
                let here = node(session, id)?;
                if here.frame.load(Ordering::Relaxed) == self.frame
                    && here.parent.load(Ordering::Relaxed) == self.parent
                    && here.kind.load(Ordering::Relaxed) == self.kind
                {
                    return Some(id);
                }
            }
        }
        None
    }
}

/// Puts a node where it will be found, if there is a place: else it will be
/// made again.
fn put(level: usize, hash: u64, id: u32) {
    let new = (hash & 0xffff_ffff) << 32 | u64::from(id);
    for entry in entries(level, hash) {
        // Release pairs with the Acquire in `search`.
        if entry.load(Ordering::Relaxed) == 0
            && entry
                .compare_exchange(0, new, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        {
            return;
        }
    }
}

/// The places where an entry may lie, in order.
fn entries(level: usize, hash: u64) -> impl Iterator<Item = &'static AtomicU64> {
    let bits = FIRST_BITS + level as u32;
    let table = TABLES[level].load(Ordering::Acquire);
    let first = (hash >> (u64::BITS - bits)) as usize;
    let mask = (1usize << bits) - 1;
    // SAFETY: a level that was read from `LEVEL`, or the one before, has a
    // table of `1 << bits` entries, which is never unmapped.
    (0..PROBES).map(move |i| unsafe { &*table.add((first + i) & mask) })
}

/// Adds the next table, unless another thread does.
#[cold]
fn grow(level: usize, id: u32) {
    let due = GROW_AT.load(Ordering::Relaxed);
    let next = level + 1;
    if next >= LEVELS || id < due {
        return;
    }
    // A quarter of the next table: as many are in this one, and may all be
    // carried over. Beyond one half more and more find no place within reach
    // (a twentieth between 0.6 and 0.75), and are made again.
    let then = id.saturating_add(1 << (FIRST_BITS as usize + next - 2));
    if GROW_AT
        .compare_exchange(due, then, Ordering::Relaxed, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    if !add_table(next) {
        // No memory now: perhaps later.
        GROW_AT.store(id.saturating_add(4096), Ordering::Relaxed);
    } else if let Some(old) = level.checked_sub(1) {
        let bytes = size_of::<AtomicU64>() << (FIRST_BITS as usize + old);
        // Who still looks there finds nothing.
        sys::empty(TABLES[old].load(Ordering::Relaxed).cast(), bytes);
    }
}

fn node(session: &Session, id: u32) -> Option<&Node> {
    let block = BLOCKS
        .get(id as usize / NODES_PER_BLOCK)?
        .load(Ordering::Acquire);
    let chunk = session.chunk(block.checked_sub(1)?);
    // SAFETY: a chunk of the map that is a trie block since it is in the
    // directory; the index is below NODES_PER_BLOCK.
    Some(unsafe { &*chunk.cast::<Node>().add(id as usize % NODES_PER_BLOCK) })
}

fn new_id(session: &Session) -> Option<u32> {
    loop {
        let id = NEXT.load(Ordering::Relaxed);
        if id as usize >= MAX_NODES {
            return None;
        }
        let at = id as usize / NODES_PER_BLOCK;
        if BLOCKS[at].load(Ordering::Acquire) == 0 {
            let chunk = session.take_chunk(true)?;
            // Release pairs with the Acquire in `node`.
            if BLOCKS[at]
                .compare_exchange(0, chunk + 1, Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                session.give_back(chunk);
            }
        }
        // By everyone who takes an id, not by the winner alone: the collector
        // must find the block before any node of it is named.
        session.slot().trie[at].store(BLOCKS[at].load(Ordering::Acquire), Ordering::Release);
        if NEXT
            .compare_exchange(id, id + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            session.slot().trie_nodes.store(id + 1, Ordering::Relaxed);
            return Some(id);
        }
    }
}

/// A stack whose outermost known frame is a note on why it ends there.
pub fn root(session: &Session, why: u32) -> u32 {
    debug_assert!(matches!(
        why,
        kind::TRUNCATED | kind::BROKEN | kind::SWITCHED
    ));
    match intern(session, NO_STACK, why, 0) {
        Some(id) => id,
        None => fold(session),
    }
}

/// The stack for an event whose own there is no room for: its ids are used up,
/// or the pool is empty. It is a truncated one without frames; what is above or
/// below a missing frame would have another meaning without it.
#[cold]
#[inline(never)]
pub fn fold(session: &Session) -> u32 {
    session
        .slot()
        .truncated_stacks
        .fetch_add(1, Ordering::Relaxed);
    if NEXT.load(Ordering::Relaxed) as usize >= MAX_NODES && TOLD.swap(1, Ordering::Relaxed) == 0 {
        session.tell(
            b"stacks that first came when there was no room for more frames (4,194,304 \
              of a process) are shown as [truncated]",
        );
    }
    folded(session)
}

fn folded(session: &Session) -> u32 {
    let known = FOLDED.load(Ordering::Relaxed);
    if known != NO_STACK {
        return known;
    }
    let id = intern(session, NO_STACK, kind::TRUNCATED, 0).unwrap_or(NO_STACK);
    FOLDED.store(id, Ordering::Relaxed);
    id
}

const _: () = assert!(MAX_NODES == 4_194_304);
