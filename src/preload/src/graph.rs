//! The heap graph: what a forked child of the target tells of its objects, and of
//! what holds them (format: [`leakline_wire::graph`]).
//!
//! The target stands still as long as a fork takes. The child has a copy of all its
//! memory, as it was while one thread held the GIL: it walks that, tells of it in a
//! ring of its own, and ends.
//!
//! # Rules
//!
//! * The child is alone: other threads are not in it, and whatever lock they held
//!   stays locked. It calls nothing that takes a lock, and allocates from nobody's heap:
//!   of foreign code only `tp_traverse` and `tp_is_gc`, as a collection would, and
//!   functions of CPython that read.
//! * What it does to the target's structures it does to its copy. If it meets nonsense
//!   and dies, the graph is cut off, and nothing else happens.
//! * It holds none of the target's descriptors, raises no signal (also not SIGCHLD),
//!   leaves no core, runs no handler, and ends by itself after [`MOST_NS`].

use core::sync::atomic::{AtomicU32, Ordering};

use leakline_wire::event::{self, BlobKind, Kind};
use leakline_wire::graph::Writer;

use self::cpython::Functions;
use self::search::Search;
use self::walk::Walk;
use crate::python::Interpreter;
use crate::session::Session;
use crate::sys;
use crate::thread::{self, Thread};

mod cpython;
mod memory;
mod search;
mod walk;

/// How long a walk may take.
const MOST_NS: u64 = 20_000_000_000;
/// As long as there are so many the pool does not grow: what a walk waits for, but for no
/// more than so many turns of so many nanoseconds a blob.
const PLENTY_OF_CHUNKS: u32 = 112;
const MOST_TURNS: u32 = 8;
const TURN_NS: u64 = 100_000;
/// Most bytes of a blob.
const BLOB_BYTES: usize = 64 * 1024;

/// Children that were not waited for yet. One that has told everything may take some time
/// to give its memory back.
static CHILDREN: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];

/// Waits, without waiting, for the children that have ended: nobody else can.
pub fn reap() {
    for place in &CHILDREN {
        let child = place.load(Ordering::Relaxed);
        if child != 0 && sys::has_ended(child) {
            let _ = place.compare_exchange(child, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// Ends the children: who leaves a session will not come by again. Waits for them, but
/// not for long.
pub fn end_all() {
    const TURNS: u32 = 50;
    for place in &CHILDREN {
        let child = place.load(Ordering::Relaxed);
        if child != 0 && !sys::has_ended(child) {
            sys::kill_child(child);
            for _ in 0..TURNS {
                if sys::has_ended(child) {
                    break;
                }
                sys::pause(1);
            }
        }
        place.store(0, Ordering::Relaxed);
    }
}

/// In a forked child: those that are at it are its parent's.
pub fn after_fork() {
    for place in &CHILDREN {
        place.store(0, Ordering::Relaxed);
    }
}

/// Has a child take the graph `number`. Gives an error number where there is none.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` `HOOK`, nothing being written to its
/// ring, and the thread hold the GIL.
pub unsafe fn take(
    t: *mut Thread,
    session: &Session,
    python: &Interpreter,
    number: u32,
) -> Result<(), i32> {
    const EAGAIN: i32 = 11;
    const ENOSYS: i32 = 38;
    reap();
    let place = CHILDREN
        .iter()
        .find(|place| place.load(Ordering::Relaxed) == 0)
        .ok_or(EAGAIN)?;
    // SAFETY: the caller's.
    unsafe {
        let functions = Functions::get().ok_or(ENOSYS)?;
        let sequence = session.slot().forks.fetch_add(1, Ordering::Relaxed) + 1;
        let stamp = thread::stamp(t, session);
        // Between this event and the fork this thread does nothing that it would tell
        // of; what others do is told, or not, as for any fork.
        let word = event::head(Kind::Fork, event::FOR_GRAPH, sequence.into());
        if !thread::emit(t, session, [word, stamp]) {
            return Err(EAGAIN);
        }
        let mask = sys::block_signals();
        let forked = sys::fork_quietly();
        if forked == Ok(0) {
            // Nothing of what is below returns.
            let forked = session.now();
            let fork = Fork { sequence, forked };
            let status = in_child(t, session, python, functions, fork, number);
            sys::exit_group(status);
        }
        // Before a handler runs, which may not come back.
        if let Ok(child) = forked {
            place.store(child, Ordering::Relaxed);
        }
        sys::restore_signals(mask);
        forked.map(|_| ()).map_err(|error| error.0)
    }
}

/// How a child came to be.
#[derive(Clone, Copy)]
pub struct Fork {
    /// Of the event that marks its instant.
    pub sequence: u32,
    /// When it ran first, as a stamp.
    pub forked: u64,
}

unsafe fn in_child(
    t: *mut Thread,
    session: &Session,
    python: &Interpreter,
    functions: &Functions,
    fork: Fork,
    number: u32,
) -> i32 {
    let Some(files) = sys::be_a_quiet_child(MOST_NS.div_ceil(1_000_000_000) + 12) else {
        return 1;
    };
    // SAFETY: this is the child's one thread, whose state `t` is.
    if !unsafe { session.begin_graph(t, fork, number) } {
        return 1;
    }
    let began = sys::monotonic_ns();
    let Some(buffer) = sys::map_private(BLOB_BYTES) else {
        return 1;
    };
    // SAFETY: just mapped, and nobody else's.
    let buffer = unsafe { core::slice::from_raw_parts_mut(buffer, BLOB_BYTES) };
    let hand_on = |blob: &[u8]| {
        // The target's rings come first; and a pool that grew stays so, with pages that come
        // to be the target's, too.
        let mut turns = 0;
        loop {
            if session.free_chunks() >= PLENTY_OF_CHUNKS || turns >= MOST_TURNS {
                break;
            }
            sys::pause_ns(TURN_NS);
            turns += 1;
        }
        // SAFETY: this thread's state, and a ring of the child's own.
        unsafe { thread::emit_blob(t, session, BlobKind::Graph, number, blob) }
    };
    let out = Writer::new(buffer, hand_on);
    let mut walk = Walk::new(python, functions, out, began);
    // SAFETY: the caller held the GIL, and this is a copy of that instant.
    unsafe { walk.all() };
    let took = sys::monotonic_ns().saturating_sub(began) / 1000;
    let (nodes, edges) = (walk.nodes, walk.edges);
    walk.out.end(walk.status, nodes, edges, took);
    // The graph is told by now, whatever becomes of what follows.
    // SAFETY: as above.
    unsafe { Search::run(&mut walk, files) };
    i32::from(walk.out.has_failed())
}
