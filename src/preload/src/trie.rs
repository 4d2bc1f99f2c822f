//! Interns stacks into the session's trie (`leakline_wire::trie`).
//!
//! # Invariants
//!
//! * A node is written whole before its id is put anywhere that another
//!   thread can see, and never changes afterwards.
//! * No lock: who loses a race has made a node that nobody names (or a twin
//!   with the same meaning, which the collector folds).

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use leakline_wire::layout::{Slot, TRIE_BLOCKS};
use leakline_wire::trie::{MAX_NODES, NO_STACK, NODES_PER_BLOCK, Node, kind};

use crate::session::Session;
use crate::sys;

const BUCKETS: usize = 1 << 17;

struct Buckets(UnsafeCell<*mut AtomicU32>);
// SAFETY: written once, while the session starts; the words are atomic.
unsafe impl Sync for Buckets {}
static HEADS: Buckets = Buckets(UnsafeCell::new(null_mut()));

/// Chunk index + 1 of each block: this process's own copy of the directory.
static BLOCKS: [AtomicU32; TRIE_BLOCKS] = [const { AtomicU32::new(0) }; TRIE_BLOCKS];
/// The next id to hand out. 0 is the empty stack.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Gets memory for the table. False when there is none.
pub fn set_up() -> bool {
    let Some(memory) = sys::map_private(BUCKETS * 4) else {
        return false;
    };
    // SAFETY: the session is being started: nobody else looks.
    unsafe { *HEADS.0.get() = memory.cast() };
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
    for (to, from) in slot.trie.iter().zip(&BLOCKS) {
        let chunk = from.load(Ordering::Relaxed);
        to.store(chunk, Ordering::Relaxed);
    }
    slot.trie_nodes.store(next as u32, Ordering::Relaxed);
}

/// The node of `frame` called from `parent`, made if need be.
///
/// [`NO_STACK`] when there is no room (counted by the session as a loss of
/// the stack, not of the event).
#[cold]
#[inline(never)]
pub fn intern(session: &Session, parent: u32, node_kind: u32, frame: u64) -> u32 {
    let hash = (frame ^ u64::from(parent) << 32 ^ u64::from(node_kind) << 59 ^ u64::from(parent))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        >> 47;
    // SAFETY: set up before any hook records; the index is below BUCKETS (17
    // bits).
    let head = unsafe { &*(*HEADS.0.get()).add(hash as usize & (BUCKETS - 1)) };
    // Acquire pairs with the Release below: the nodes of the chain are whole.
    let mut first = head.load(Ordering::Acquire);
    if let Some(found) = search(session, first, 0, parent, node_kind, frame) {
        return found;
    }
    let Some(id) = new_id(session) else {
        return NO_STACK;
    };
    let Some(node) = node(session, id) else {
        return NO_STACK;
    };
    node.parent.store(parent, Ordering::Relaxed);
    node.frame.store(frame, Ordering::Relaxed);
    node.kind.store(node_kind, Ordering::Relaxed);
    node.label.store(0, Ordering::Relaxed);
    loop {
        node.chain.store(first, Ordering::Relaxed);
        match head.compare_exchange_weak(first, id, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return id,
            Err(now) => {
                if let Some(found) = search(session, now, first, parent, node_kind, frame) {
                    return found;
                }
                first = now;
            }
        }
    }
}

/// Looks along a chain up to node `end`.
fn search(
    session: &Session,
    mut at: u32,
    end: u32,
    parent: u32,
    node_kind: u32,
    frame: u64,
) -> Option<u32> {
    while at != end && at != NO_STACK {
        let here = node(session, at)?;
        if here.frame.load(Ordering::Relaxed) == frame
            && here.parent.load(Ordering::Relaxed) == parent
            && here.kind.load(Ordering::Relaxed) == node_kind
        {
            return Some(at);
        }
        at = here.chain.load(Ordering::Relaxed);
    }
    None
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
    intern(session, NO_STACK, why, 0)
}
