//! The heap graph: what a forked child of the target tells of its objects, and of
//! what holds them (format: [`leakline_wire::graph`]).
//!
//! The target stands still as long as a fork takes. The child has a copy of all its
//! memory, as it was while one thread held the GIL: it walks that, tells of it in a
//! ring of its own, and ends.
//!
//! While it lives the collector reads its memory, too, for blocks that nothing points to.
//! It first waits until the collector knows what is mapped, so that what it maps itself is
//! not taken for the target's, and does not end before the collector is done. A child of
//! a program without Python does nothing else.
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
//!   leaves no core, runs no handler, and ends by itself after [`MOST_BY_CLOCK_NS`] at the latest.

use core::sync::atomic::{AtomicU32, Ordering};

use leakline_wire::event::{self, BlobKind, Kind};
use leakline_wire::graph::{Writer, status};
use leakline_wire::layout::{END_GRAPH, MOST_END_GRAPHS, may_graph, mode, scan};

use self::cpython::Functions;
use self::keys::Keys;
use self::search::Search;
use self::walk::Walk;
use crate::python::{self, Interpreter};
use crate::session::Session;
use crate::sys;
use crate::thread::{self, Thread};

mod cpython;
mod keys;
mod memory;
mod search;
mod walk;

/// How long a walk may take of a processor, and by the clock: on a machine that others
/// use, too, it is the last to get one.
const MOST_NS: u64 = 20_000_000_000;
const MOST_BY_CLOCK_NS: u64 = 60_000_000_000;
/// As long as there are so many the pool does not grow: what a walk waits for, but for no
/// more than so many turns of so many nanoseconds a blob.
const PLENTY_OF_CHUNKS: u32 = 112;
const MOST_TURNS: u32 = 8;
const TURN_NS: u64 = 100_000;
/// How long the collector may take to look what is mapped: it may be busy, and comes to
/// know of the child only when it has read what was told before the fork.
const LOOK_NS: u64 = 5_000_000_000;

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

/// In a program without Python: has the graph taken that is wanted.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` `HOOK`, and nothing being written to its
/// ring.
pub unsafe fn take_wanted(t: *mut Thread, session: &Session) {
    // SAFETY: the caller's. The child of a vfork has its parent's thread's state.
    unsafe {
        let slot = session.slot();
        let wanted = slot.graph_wanted.load(Ordering::Acquire);
        let begun = slot.graph_begun.load(Ordering::Relaxed);
        // Two threads may come by at once.
        if wanted == begun
            || wanted == 0
            || !python::is_absent()
            || !thread::is_own(t)
            || slot
                .graph_begun
                .compare_exchange(begun, BEGINS, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let error = take(t, session, None, wanted).err().unwrap_or(0);
        slot.graph_error
            .store(error.cast_unsigned(), Ordering::Relaxed);
        // Release pairs with the collector's Acquire: it sees the error.
        slot.graph_begun.store(wanted, Ordering::Release);
    }
}

/// [`Slot::graph_begun`](leakline_wire::layout::Slot::graph_begun) while that is being
/// done: no graph's number.
const BEGINS: u32 = u32::MAX - 1;

/// Has the graph of a process's end taken, where that may be and it is understood, or says
/// why not.
///
/// # Safety
///
/// As for [`take`].
pub unsafe fn take_last(
    t: *mut Thread,
    session: &Session,
    python: Option<&Interpreter>,
    is_understood: bool,
) {
    let header = session.header();
    let kind = usize::from(python.is_none());
    let taking = &header.end_graphs[kind];
    let has_enough = header.enough_ends[kind].load(Ordering::Relaxed) != 0;
    let may = session.slot().may_graph.load(Ordering::Relaxed);
    if may == may_graph::ENOUGH || may == may_graph::YES && has_enough {
        return;
    }
    // SAFETY: the caller's.
    let is_taken = unsafe {
        is_understood
            && matches!(may, may_graph::YES | may_graph::LARGE)
            && taking.fetch_add(1, Ordering::Relaxed) < MOST_END_GRAPHS
            && take(t, session, python, END_GRAPH).is_ok()
    };
    if !is_taken && python.is_none() && is_understood {
        // There may be thousands of them.
        header.missed_ends.fetch_add(1, Ordering::Relaxed);
    } else if !is_taken {
        session.tell(
            b"no heap graph was taken at the end: there was not enough memory, \
              others were being taken, or this process cannot bear a fork",
        );
    }
}

/// Has a child take the graph `number`, of `python`'s objects if there is one. Gives an
/// error number where there is none.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` `HOOK`, nothing being written to its
/// ring, and the thread hold the GIL of `python`.
#[inline(never)]
pub unsafe fn take(
    t: *mut Thread,
    session: &Session,
    python: Option<&Interpreter>,
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
        let python = match python {
            Some(python) => Some((python, Functions::get().ok_or(ENOSYS)?)),
            None => None,
        };
        let tells_values = session.mode() & mode::VALUES != 0
            || session.slot().values_wanted.load(Ordering::Relaxed) == number;
        let sequence = session.slot().forks.fetch_add(1, Ordering::Relaxed) + 1;
        let stamp = thread::stamp(t, session);
        // Between this event and the fork this thread does nothing that it would tell
        // of; what others do is told, or not, as for any fork.
        let word = event::head(Kind::Fork, event::FOR_GRAPH, sequence.into());
        if !thread::emit(t, session, [word, stamp]) {
            return Err(EAGAIN);
        }
        let threads = thread::others(t);
        let mask = sys::block_signals();
        let mut registers = [0; 7];
        let forked = sys::fork_quietly(&mut registers);
        if forked == Ok(0) {
            // Nothing of what is below returns, so that this frame and those above stay
            // as they are.
            let fork = Fork {
                sequence,
                forked: session.now(),
                stack: core::hint::black_box(&registers)[6],
                threads,
                tells_values,
            };
            let status = in_child(t, session, python, fork, number);
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
    /// From here on its stack is as it was, registers among it.
    pub stack: u64,
    /// Other threads that were there, among those that are known.
    pub threads: u32,
    /// Its graph is to tell what keys of dicts are.
    pub tells_values: bool,
}

#[inline(never)]
unsafe fn in_child(
    t: *mut Thread,
    session: &Session,
    python: Option<(&Interpreter, &Functions)>,
    fork: Fork,
    number: u32,
) -> i32 {
    let reader = session.header().collector_pid.load(Ordering::Relaxed);
    let seconds = MOST_BY_CLOCK_NS.div_ceil(1_000_000_000) + 12;
    let Some(files) = sys::be_a_quiet_child(seconds, reader) else {
        return 1;
    };
    // SAFETY: this is the child's one thread, whose state `t` is.
    if !unsafe { session.begin_graph(t, fork, number) } {
        return 1;
    }
    let began = sys::monotonic_ns();
    await_scan(session, scan::GO_ON, began + LOOK_NS);
    // Foreign code runs from here on, and may crash.
    sys::leave_no_core();
    let map = || {
        let buffer = sys::map_private(BLOB_BYTES)?;
        // SAFETY: just mapped, and nobody else's.
        Some(unsafe { core::slice::from_raw_parts_mut(buffer, BLOB_BYTES) })
    };
    let Some(buffer) = map() else {
        return 1;
    };
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
    let mut out = Writer::new(buffer, hand_on);
    let took = || sys::monotonic_ns().saturating_sub(began) / 1000;
    let has_failed = if let Some((python, functions)) = python {
        let keys = if fork.tells_values {
            let Some(buffer) = map() else {
                return 1;
            };
            Some(Keys::new(functions.kinds(python), buffer))
        } else {
            None
        };
        let mut walk = Walk::new(python, functions, out, keys, began);
        // SAFETY: the caller held the GIL, and this is a copy of that instant.
        unsafe { walk.all() };
        walk.end_keys();
        let (nodes, edges) = (walk.nodes, walk.edges);
        walk.out.end(walk.status, nodes, edges, took());
        // The graph is told by now, whatever becomes of what follows.
        // SAFETY: as above.
        unsafe { Search::run(&mut walk, files) };
        walk.out.has_failed()
    } else {
        out.end(status::COMPLETE, 0, 0, took());
        out.has_failed()
    };
    await_scan(session, scan::DONE, began + MOST_BY_CLOCK_NS);
    i32::from(has_failed)
}

/// Waits until the collector has come so far, or an instant of the monotonic clock, or
/// the collector's heart has stopped.
fn await_scan(session: &Session, step: u32, until_ns: u64) {
    const HEART_NS: u64 = 2_000_000_000;
    let beats = &session.header().beats;
    let (mut last, mut at) = (beats.load(Ordering::Relaxed), sys::monotonic_ns());
    while !session.has_scanned(step) {
        let (beat, now) = (beats.load(Ordering::Relaxed), sys::monotonic_ns());
        if beat != last {
            (last, at) = (beat, now);
        }
        if now >= until_ns || now.saturating_sub(at) > HEART_NS {
            return;
        }
        sys::pause_ns(TURN_NS);
    }
}
