//! A thread's state, and its ring.
//!
//! # Invariants
//!
//! * A `Thread` is used by one thread at a time: the one whose thread-local
//!   word points to it. Nobody else reads it, but for its `owner`.
//! * `depth` is not 0 while a hook of this thread is at work. A signal handler
//!   that allocates then finds it so and leaves everything but `side` alone.
//! * States are never unmapped: a thread that is about to die goes on using
//!   its state in whatever runs after our key's destructor, and the state is
//!   given to another thread only once the kernel says that *it* is gone: the
//!   taker's exchange compares the whole of `owner`, thread and status, so it
//!   fails where the state had another owner meanwhile.

use core::arch::{asm, global_asm};
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, compiler_fence};

use leakline_wire::layout::{self, CHUNK_HEADER_BYTES, CHUNK_WORDS, ChunkHeader};
use leakline_wire::{Kind, event};

use crate::sampling::Countdown;
use crate::session::{self, FLUSH, Session};
use crate::{modules, python, sys, unwind};

/// Most native frames of a stack.
pub const MAX_NATIVE: usize = 4096;
/// Most Python frames of a stack.
pub const MAX_PYTHON: usize = 2048;
/// Entries of the cache (caller's node, frame) -> node: 128 KiB, of which a
/// thread with few stacks touches few pages.
pub const NODE_CACHE: usize = 8192;

/// Values of [`Thread::depth`].
pub mod depth {
    /// No hook is at work.
    pub const IDLE: u32 = 0;
    /// A hook records: whatever comes now comes from a signal handler.
    pub const HOOK: u32 = 1;
    /// Python's own allocator is at work below one of its hooks: what it asks
    /// of malloc and mmap is part of the block already recorded.
    pub const PYTHON: u32 = 2;
    /// The real malloc is at work.
    pub const NATIVE: u32 = 3;
    /// libc or the loader is asked something; their own blocks are not the
    /// program's.
    pub const QUIET: u32 = 4;
    /// A hook begins: what it was called from is being written down.
    pub const BEGINNING: u32 = 5;
    /// As `IDLE`, of a thread that samples. What ends at `IDLE` in sampled mode
    /// comes back here with the next hook.
    pub const SAMPLING: u32 = 6;
}

/// Whose a state is, in one word: thread id << 2 | one of the constants.
mod owner {
    pub const FREE: u64 = 0;
    pub const USED: u64 = 1;
    pub const DYING: u64 = 2;

    /// The word for a thread.
    pub const fn of(tid: u32, status: u64) -> u64 {
        (tid as u64) << 2 | status
    }

    /// What a word says: the thread and the status.
    pub const fn parts(word: u64) -> (u32, u64) {
        ((word >> 2) as u32, word & 3)
    }
}

/// The writing end of a ring: a chain of chunks.
#[repr(C)]
pub struct Ring {
    /// The chunk's first event word; null before the first.
    data: *mut u64,
    header: *mut ChunkHeader,
    /// Words written to the chunk.
    position: usize,
    /// Events lost since the last mark of it.
    pending_loss: u64,
    number: u32,
    sequence: u32,
    /// It is going on to another chunk.
    is_switching: bool,
    /// Whose events come from here on was not said yet.
    is_unnamed: bool,
}

/// An entry of the node cache; `key` 0 = empty.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cached {
    pub key: u64,
    /// The caller's node and, of Python's frames, a [`unwind::mark`].
    pub parent: u32,
    pub node: u32,
}

/// Recent pairs of a native and a Python stack that are at hand.
pub const PAIRS: usize = 64;

/// One of them; `node` 0 = none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pair {
    pub native: u32,
    pub python: u32,
    pub node: u32,
}

/// See the module.
#[repr(C, align(64))]
pub struct Thread {
    /// One of [`depth`].
    pub depth: u32,
    /// Marks cached Python frames; see [`unwind::mark`].
    pub generation: u32,
    /// Where the hook now at work was called from: the slot of its return
    /// address.
    pub entered: u64,
    /// The word there, as long as that hook has not returned.
    returns_to: u64,
    /// [`crate::session::FLUSH`] as it was when the caches below were filled.
    pub flush: u64,
    last_stamp: u64,
    pub ring: Ring,
    /// In sampled mode.
    pub countdown: Countdown,
    /// Where the last block of Python's obj domain was born, until an object
    /// is seen to be made of it.
    pub newest_object: u64,
    /// Native frames kept of the last stack.
    pub native_length: usize,
    /// Python frames kept of the last stack.
    pub python_length: usize,
    /// The process's main thread: its outermost Python frame is `__main__`'s.
    pub is_main: bool,
    /// Code object of its outermost Python frame at the last event, 0 for none.
    pub outermost: u64,
    /// A frame of the Python stack now taken could not be told.
    pub is_incomplete: bool,
    /// `__main__` runs.
    pub in_main: bool,
    /// Where its frame lies, and its code.
    pub main_frame: u64,
    pub main_code: u64,
    /// Number of the fork that this thread is making, 0 for none.
    pub fork: u32,
    /// It keeps the list of modules as it is meanwhile.
    pub holds_modules: bool,
    /// It is at work on the list of modules.
    pub updates_modules: bool,
    /// A realloc was done that whoever asked for it does not know of yet.
    pub is_reallocating: bool,
    /// Where this thread's own stack lies.
    pub stack_low: u64,
    pub stack_high: u64,
    /// That is still to be asked: see [`ask_for_bounds`].
    pub asks_bounds: bool,
    /// A handler is writing to `side`.
    side_busy: bool,
    /// As `last_stamp`, of `side`.
    side_stamp: u64,
    /// Where a signal handler's events go that interrupt a hook.
    side: Ring,
    /// See [`owner`].
    owner: AtomicU64,
    /// Nodes of recent pairs of stacks, by the native one.
    pub pairs: [Pair; PAIRS],
    pub cache: [Cached; NODE_CACHE],
    /// Room to encode a code object's definition.
    pub scratch: [u8; 64 * 1024],
    pub native: unwind::Kept,
    pub python: python::Kept,
}

global_asm!(
    // Initial-exec thread-local storage: `thread_local!` would go through
    // `__tls_get_addr`, whose first call in a thread may allocate. One word of state,
    // the words of countdowns, see `UNTIL`, one for `was_counted` and one for
    // `hand_on`.
    ".section .tbss,\"awT\",@nobits",
    ".globl leakline_thread",
    ".hidden leakline_thread",
    ".type leakline_thread,@object",
    ".size leakline_thread,8",
    ".globl leakline_until",
    ".hidden leakline_until",
    ".type leakline_until,@object",
    ".size leakline_until,32",
    ".p2align 3",
    "leakline_thread:",
    ".zero 8",
    "leakline_until:",
    ".zero 32",
    ".globl leakline_counted",
    ".hidden leakline_counted",
    ".type leakline_counted,@object",
    ".size leakline_counted,8",
    "leakline_counted:",
    ".zero 8",
    ".globl leakline_handed_on",
    ".hidden leakline_handed_on",
    ".type leakline_handed_on,@object",
    ".size leakline_handed_on,8",
    "leakline_handed_on:",
    ".zero 8",
    ".text",
);

/// This thread's state, or null.
#[inline(always)]
pub fn current() -> *mut Thread {
    let thread;
    // SAFETY: reads the word above at its fixed offset from the thread
    // pointer, which exists in every thread from its start.
    unsafe {
        asm!(
            "mov {t}, qword ptr [rip + leakline_thread@GOTTPOFF]",
            "mov {t}, qword ptr fs:[{t}]",
            t = out(reg) thread,
            options(nostack, preserves_flags, readonly)
        );
    }
    thread
}

fn set_current(thread: *mut Thread) {
    // SAFETY: as above; only this thread reads the word.
    unsafe {
        asm!(
            "mov {t}, qword ptr [rip + leakline_thread@GOTTPOFF]",
            "mov qword ptr fs:[{t}], {v}",
            t = out(reg) _,
            v = in(reg) thread,
            options(nostack, preserves_flags)
        );
    }
}

/// Where threads have the word of their countdowns, from the thread pointer: one of
/// [`UNTIL_WORDS`], another for each session, so that none begins with what is left in a
/// thread of the last. 0: nobody has one.
pub static UNTIL: AtomicU64 = AtomicU64::new(0);

const UNTIL_WORDS: u64 = 4;

/// Gives threads the word of their countdowns, before the first is drawn.
pub fn set_up_countdowns() {
    if UNTIL.load(Ordering::Relaxed) == 0 {
        UNTIL.store(until_offset(), Ordering::Release);
    }
}

/// And another, for a new session. (Who has not met a session since the fourth last goes
/// on with what it had.)
fn renew_countdowns() {
    let now = UNTIL.load(Ordering::Relaxed);
    if now != 0 {
        let first = until_offset();
        let at = (now.wrapping_sub(first) / 8 + 1) % UNTIL_WORDS;
        UNTIL.store(first.wrapping_add(8 * at), Ordering::Release);
    }
}

fn until_offset() -> u64 {
    let offset;
    // SAFETY: reads a constant of the loaded object.
    unsafe {
        asm!(
            "mov {offset}, qword ptr [rip + leakline_until@GOTTPOFF]",
            offset = out(reg) offset,
            options(nostack, preserves_flags, readonly)
        );
    }
    offset
}

/// Counts bytes down from this thread's word of its countdown, see `sampling`. True:
/// there were not as many; then nothing was counted.
///
/// A thread must have been prepared for sampling.
#[inline(always)]
pub fn count_down(bytes: u64) -> bool {
    let at = UNTIL.load(Ordering::Relaxed);
    let (borrows, is_negative): (u8, u8);
    // SAFETY: `at` is where every thread has a word, since one was prepared; only the
    // thread itself writes it.
    unsafe {
        asm!(
            "sub qword ptr fs:[{at}], {bytes}",
            "setb {borrows}",
            "sets {is_negative}",
            at = in(reg) at,
            bytes = in(reg) bytes,
            borrows = out(reg_byte) borrows,
            is_negative = out(reg_byte) is_negative,
            options(nostack)
        );
    }
    let ends = borrows | is_negative != 0;
    if ends {
        // SAFETY: as above.
        unsafe {
            asm!(
                "add qword ptr fs:[{at}], {bytes}",
                at = in(reg) at,
                bytes = in(reg) bytes,
                options(nostack)
            );
        }
    }
    ends
}

/// Puts a value into this thread's word of its countdown, if there is one; what was there.
#[inline(always)]
pub fn exchange_countdown(value: u64) -> u64 {
    let at = UNTIL.load(Ordering::Relaxed);
    if at == 0 {
        return 0;
    }
    let was;
    // SAFETY: as above. (Not one instruction: no other thread writes it, and what a
    // handler in between counts is lost as it would be if it were not counted.)
    unsafe {
        asm!(
            "mov {was}, qword ptr fs:[{at}]",
            "mov qword ptr fs:[{at}], {value}",
            at = in(reg) at,
            was = out(reg) was,
            value = in(reg) value,
            options(nostack, preserves_flags)
        );
    }
    was
}

/// Whether this block is the one that Python's mem or obj domain was last asked, by this
/// thread, to make one of a pool, and that was counted there: its own allocator hands the
/// call on to the raw domain where the old block was none of a pool. True once.
///
/// (Where the old block was of a pool the word stays: no other of its address can be had
/// from the raw domain before an arena was given back, and a block missing from the
/// countdown is all that could come of it.)
#[inline(always)]
pub fn was_counted(block: u64) -> bool {
    let counted: u64;
    // SAFETY: as in `current`.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + leakline_counted@GOTTPOFF]",
            "mov {counted}, qword ptr fs:[{at}]",
            at = out(reg) _,
            counted = out(reg) counted,
            options(nostack, preserves_flags, readonly)
        );
    }
    if counted != block {
        return false;
    }
    // SAFETY: as above; only this thread writes the word.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + leakline_counted@GOTTPOFF]",
            "mov qword ptr fs:[{at}], 0",
            at = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
    true
}

/// The block that is to be reallocated into a pool is the one that [`was_counted`] tells of.
#[inline(always)]
pub fn count_in(block: u64) {
    // SAFETY: as in `current`; only this thread reads and writes the word.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + leakline_counted@GOTTPOFF]",
            "mov qword ptr fs:[{at}], {block}",
            at = out(reg) _,
            block = in(reg) block,
            options(nostack, preserves_flags)
        );
    }
}

/// A block of so many bytes was counted, which the allocator below will ask the raw domain
/// for, once: there it is not counted again. See `python::hands_on`.
#[inline(always)]
pub fn hand_on(bytes: u64) {
    // SAFETY: as in `current`; only this thread reads and writes the word.
    unsafe {
        asm!(
            "mov {at}, qword ptr [rip + leakline_handed_on@GOTTPOFF]",
            "mov qword ptr fs:[{at}], {bytes}",
            at = out(reg) _,
            bytes = in(reg) bytes,
            options(nostack, preserves_flags)
        );
    }
}

const MAX_THREADS: usize = 64 * 1024;
static THREADS: [AtomicPtr<Thread>; MAX_THREADS] =
    [const { AtomicPtr::new(null_mut()) }; MAX_THREADS];
static THREAD_COUNT: AtomicU32 = AtomicU32::new(0);
static DYING: AtomicU32 = AtomicU32::new(0);
static CURSOR: AtomicU32 = AtomicU32::new(0);
static RING_NUMBER: AtomicU32 = AtomicU32::new(0);

/// Sets `depth` so that a signal handler on this thread sees it in order.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn set_depth(t: *mut Thread, value: u32) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: `t` is valid and this thread's.
    unsafe { addr_of_mut!((*t).depth).write_volatile(value) };
    compiler_fence(Ordering::SeqCst);
}

/// `depth`, which a signal handler may have to see.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn get_depth(t: *mut Thread) -> u32 {
    // SAFETY: `t` is valid and this thread's.
    unsafe { addr_of!((*t).depth).read_volatile() }
}

/// Whether the hook that `depth` tells of was left by `siglongjmp` from a
/// signal handler: this call, from `sp`, does not come from below it. If so,
/// the thread is idle again.
///
/// A hook's own frames, and those of a handler that interrupts it, lie below
/// the slot that it was called from, and that slot holds the return address
/// until it returns. After a jump further out a call may lie below as well, and
/// the slot may still hold that word: then the thread stays as it is until one
/// of these is not so, and what it does is counted as lost or goes to the side
/// ring.
///
/// # Safety
///
/// `t` must be this thread's state; `sp` the slot of the caller's return
/// address.
#[cold]
pub unsafe fn was_abandoned(t: *mut Thread, sp: u64) -> bool {
    // SAFETY: the caller's. `entered` is read only where it lies on the
    // thread's own stack.
    unsafe {
        let own = (*t).stack_low..(*t).stack_high;
        let entered = (*t).entered;
        // While a thread is adopted there is no hook to be left.
        if entered == u64::MAX || !own.contains(&sp) {
            return false;
        }
        // One on a coroutine's stack that we are not on was left for good.
        // While it begins the word is not known; nothing is half done then.
        let may_go_on = own.contains(&entered)
            && sp < entered
            && (get_depth(t) == depth::BEGINNING || sys::word(entered) == (*t).returns_to);
        // A program may have put its signal stack into its own stack: above
        // the hook that the handler interrupted.
        if may_go_on || sys::is_on_signal_stack() {
            return false;
        }
        abandon(t, sp);
        true
    }
}

/// Whether a hook of `depth::PYTHON` is at work, was not left, and led to this call: what
/// [`was_abandoned`] would find, for most calls.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub unsafe fn is_below_python(t: *mut Thread, sp: u64) -> bool {
    // SAFETY: the caller's. `entered` is read only where it lies on the thread's own
    // stack, above what is in use.
    unsafe {
        let entered = (*t).entered;
        get_depth(t) == depth::PYTHON
            && (*t).stack_low <= sp
            && sp < entered
            && entered < (*t).stack_high
            && sys::word(entered) == (*t).returns_to
    }
}

/// As [`was_abandoned`], where a hook of `depth::PYTHON` cannot have led to this
/// call.
///
/// # Safety
///
/// As there.
#[cold]
pub unsafe fn was_left(t: *mut Thread, sp: u64) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let own = (*t).stack_low..(*t).stack_high;
        let is_left =
            get_depth(t) == depth::PYTHON && own.contains(&sp) && !sys::is_on_signal_stack();
        if is_left {
            abandon(t, sp);
        }
        is_left
    }
}

/// The thread is idle again.
///
/// # Safety
///
/// As for [`forget_half_done`]; `sp` the slot of the return address of a hook
/// that is about to begin.
unsafe fn abandon(t: *mut Thread, sp: u64) {
    // SAFETY: the caller's.
    unsafe {
        forget_half_done(t);
        let session = session::get();
        let is_new = (*t).ring.data.is_null();
        if let Some(session) = session
            && is_new
        {
            begin(t, depth::HOOK, sp);
            announce(t, session);
        }
        set_depth(t, depth::IDLE);
    }
}

/// What a hook was writing when it was left may be half written: the caches
/// are emptied, the rings stand where they were published.
///
/// # Safety
///
/// `t` must be this thread's state, and no hook of it be at work.
unsafe fn forget_half_done(t: *mut Thread) {
    // SAFETY: the caller's.
    unsafe {
        (*t).flush = 0;
        let pairs = addr_of_mut!((*t).pairs).cast::<Pair>();
        for i in 0..PAIRS {
            (*pairs.add(i)).node = 0;
        }
        (*t).ring.recover();
        (*t).side.recover();
        (*t).side_busy = false;
        (*t).newest_object = 0;
        (*t).is_reallocating = false;
        if core::mem::take(&mut (*t).updates_modules) {
            modules::end_update();
        }
    }
}

/// A hook is about to begin, perhaps: says so, and where it was called from, as
/// far as that is known without looking there.
///
/// # Safety
///
/// `t` must be this thread's state, and rest; `sp` the slot of the hook's return
/// address.
#[inline(always)]
pub unsafe fn arrive(t: *mut Thread, sp: u64) {
    // SAFETY: the caller's.
    unsafe {
        // Before, for a handler that comes after the next line; and after it, for
        // one that came before, and had hooks of its own.
        (*t).entered = sp;
        set_depth(t, depth::BEGINNING);
        (*t).entered = sp;
    }
}

/// A hook begins that has [arrived](arrive).
///
/// # Safety
///
/// As there; the word at `sp` must be the hook's return address.
#[inline(always)]
pub unsafe fn proceed(t: *mut Thread, value: u32, sp: u64) {
    // SAFETY: the caller's.
    unsafe {
        (*t).returns_to = sys::word(sp);
        set_depth(t, value);
    }
}

/// A hook begins: says so, and where it was called from.
///
/// # Safety
///
/// `t` must be this thread's state; `sp` the slot of the hook's return
/// address.
#[inline(always)]
pub unsafe fn begin(t: *mut Thread, value: u32, sp: u64) {
    // SAFETY: the caller's: the word at `sp` is the hook's return address.
    unsafe {
        // A handler in between sees neither the last hook's word with this
        // one's depth, nor half of a place. (`enter` has set it once already:
        // but one may have come since, with hooks of its own.)
        set_depth(t, depth::BEGINNING);
        (*t).entered = sp;
        (*t).returns_to = sys::word(sp);
        set_depth(t, value);
    }
}

/// Whether the calling thread is the state's own, and not the child of a
/// `vfork` that runs in its place.
///
/// # Safety
///
/// `t` must be the state that this thread finds.
pub unsafe fn is_own(t: *mut Thread) -> bool {
    // SAFETY: the caller's; the word is atomic.
    sys::gettid() == unsafe { tid_of(t) }
}

/// The thread that a state is, or was, of.
///
/// # Safety
///
/// `t` must be a state.
unsafe fn tid_of(t: *mut Thread) -> u32 {
    // SAFETY: the caller's: states are never unmapped; the word is atomic.
    owner::parts(unsafe { (*t).owner.load(Ordering::Relaxed) }).0
}

/// The process that the states belong to.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Whether they are the calling process's, and it is not the child of a `vfork`.
pub fn are_of_this_process() -> bool {
    sys::getpid() == PROCESS.load(Ordering::Relaxed)
}

/// From now on states belong to the calling process.
pub fn belong_here() {
    PROCESS.store(sys::getpid(), Ordering::Relaxed);
}

/// Gives this thread a state: one that a dead thread left, or a new one.
/// Null when there is no memory.
#[cold]
pub fn adopt(session: &Session) -> *mut Thread {
    if !are_of_this_process() {
        // The child of a `vfork` in the place of a thread that never allocated:
        // to it all our threads look gone, and the state it took would stay
        // behind as its parent's.
        return null_mut();
    }
    let tid = sys::gettid();
    let dead = take_dead(tid);
    let is_new = dead.is_none();
    let t = dead.unwrap_or_else(|| new_state(tid));
    if t.is_null() {
        return t;
    }
    // SAFETY: `t` is ours since `take_dead` or `new_state`: nobody else has
    // it. Its ring, if it has one, goes on under the new thread's name.
    unsafe {
        (*t).native_length = 0;
        (*t).python_length = 0;
        (*t).stack_low = 0;
        (*t).stack_high = 0;
        (*t).asks_bounds = false;
        (*t).is_main = tid == PROCESS.load(Ordering::Relaxed);
        (*t).outermost = 0;
        (*t).in_main = false;
        // Its last thread may have died inside a hook, and elsewhere on the
        // stack. Nothing that comes now is below a hook's call.
        (*t).entered = u64::MAX;
        if is_new {
            // All caches are empty: to empty them would touch their pages.
            (*t).flush = FLUSH.load(Ordering::Acquire);
        } else {
            forget_half_done(t);
        }
        (*t).side.is_unnamed = true;
        set_depth(t, depth::QUIET);
        set_current(t);
        if session.may_ask_for_stack() {
            let (low, high) = session.stack_of_this_thread();
            (*t).stack_low = low;
            (*t).stack_high = high;
        } else {
            (*t).asks_bounds = true;
        }
        session.watch_exit(t);
        set_depth(t, depth::HOOK);
        announce(t, session);
        set_depth(t, depth::IDLE);
    }
    t
}

/// Asks where the thread's stack lies, in a program that was running before us,
/// where this is not called from libc: it may be `pthread_getattr_np` that asks for
/// memory, with the very lock held that it takes. Until then the stack is one of
/// which nothing is known.
///
/// # Safety
///
/// `t` must be this thread's state at `HOOK`, by a function of the malloc family or
/// of Python's that was called from `sp`.
#[cold]
#[inline(never)]
pub unsafe fn ask_for_bounds(t: *mut Thread, session: &Session, sp: u64) {
    // SAFETY: the caller's.
    unsafe {
        if session.is_in_libc(sys::word(sp)) {
            return;
        }
        (*t).asks_bounds = false;
        set_depth(t, depth::QUIET);
        let (low, high) = session.stack_of_this_thread();
        set_depth(t, depth::HOOK);
        (*t).stack_low = low;
        (*t).stack_high = high;
    }
}

/// Writes whose the ring's events are from now on. If there is no room, that
/// comes before the next event.
///
/// # Safety
///
/// `t` must be this thread's state.
unsafe fn announce(t: *mut Thread, session: &Session) {
    // SAFETY: the caller's.
    unsafe {
        (*t).ring.is_unnamed = false;
        let stamp = stamp(t, session);
        if !emit(t, session, naming(tid_of(t), stamp)) {
            (*t).ring.is_unnamed = true;
            // Also of what would fit into the chunk: see `go_on_in`.
            (*t).ring.position = CHUNK_WORDS;
        }
    }
}

/// The event that says so.
fn naming(tid: u32, stamp: u64) -> [u64; 4] {
    let name = sys::thread_name();
    let half = |at: usize| {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(&name[at..at + 8]) {
            *to = *from;
        }
        u64::from_le_bytes(bytes)
    };
    [
        event::head(Kind::Thread, 0, tid.into()),
        stamp,
        half(0),
        half(8),
    ]
}

fn take_dead(own_tid: u32) -> Option<*mut Thread> {
    if DYING.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let pid = sys::getpid();
    let count = THREAD_COUNT.load(Ordering::Acquire).min(MAX_THREADS as u32);
    for _ in 0..count.min(64) {
        let at = CURSOR.fetch_add(1, Ordering::Relaxed) % count;
        let t = THREADS[at as usize].load(Ordering::Acquire);
        if t.is_null() {
            continue;
        }
        // SAFETY: states are never unmapped; the field is atomic.
        let word = unsafe { &(*t).owner };
        let was = word.load(Ordering::Acquire);
        let (tid, status) = owner::parts(was);
        let gone =
            status == owner::FREE || (status == owner::DYING && sys::thread_is_gone(pid, tid));
        // The exchange makes one taker win. It compares the thread as well: it
        // is *that* thread which was seen to be gone. If another had the state
        // meanwhile, and is dying too, it may still be freeing. (One with the
        // same number would have to come and go while we stand here: the kernel
        // gives a number out again after all others.) Acquire pairs with the
        // Release of the dying thread's destructor; what it did after that is
        // over, since the kernel has seen it end.
        if gone
            && word
                .compare_exchange(
                    was,
                    owner::of(own_tid, owner::USED),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
        {
            DYING.fetch_sub(1, Ordering::Relaxed);
            return Some(t);
        }
    }
    None
}

fn new_state(tid: u32) -> *mut Thread {
    let at = THREAD_COUNT.load(Ordering::Relaxed);
    if at as usize >= MAX_THREADS {
        return null_mut();
    }
    let Some(memory) = sys::map_late(size_of::<Thread>()) else {
        return null_mut();
    };
    // Few of its pages are used: they must not be made one huge one.
    sys::keep_small_pages(memory, size_of::<Thread>());
    let t = memory.cast::<Thread>();
    // SAFETY: zeroed memory of the right size and alignment (a page), for
    // which all-zero is a valid state: empty caches, no chunk.
    unsafe {
        (*t).depth = depth::QUIET;
        (*t).ring.number = RING_NUMBER.fetch_add(1, Ordering::Relaxed);
        (*t).side.number = RING_NUMBER.fetch_add(1, Ordering::Relaxed);
        (*t).owner
            .store(owner::of(tid, owner::USED), Ordering::Relaxed);
    }
    let at = THREAD_COUNT.fetch_add(1, Ordering::AcqRel) as usize;
    if let Some(place) = THREADS.get(at) {
        place.store(t, Ordering::Release);
    }
    t
}

/// Our key's destructor: this thread is about to end, but other destructors
/// and libc's own may still allocate and free.
pub extern "C" fn leaving(t: sys::Pointer) {
    let t = t.cast::<Thread>();
    if !t.is_null() {
        DYING.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the key's value is this thread's state.
        unsafe {
            let dying = owner::of(tid_of(t), owner::DYING);
            (*t).owner.store(dying, Ordering::Release);
        }
    }
}

/// Whether no thread that has a state is in a hook, `but` left out.
///
/// What it finds holds for good only where every hook that begins looks, after
/// it said so, whether there is a session, and finds none.
pub fn are_idle(but: *mut Thread) -> bool {
    let pid = sys::getpid();
    let count = THREAD_COUNT.load(Ordering::Acquire).min(MAX_THREADS as u32);
    THREADS[..count as usize].iter().all(|place| {
        let t = place.load(Ordering::Acquire);
        if t.is_null() || t == but {
            return true;
        }
        // SAFETY: states are never unmapped; `depth` is a word that its thread
        // may be changing.
        unsafe {
            let (tid, status) = owner::parts((*t).owner.load(Ordering::Acquire));
            matches!(get_depth(t), depth::IDLE | depth::SAMPLING)
                || status == owner::FREE
                || sys::thread_is_gone(pid, tid)
        }
    })
}

/// How many threads have a state, beside one: those that allocated, and are not known to
/// have ended.
pub fn others(but: *mut Thread) -> u32 {
    let count = THREAD_COUNT.load(Ordering::Acquire).min(MAX_THREADS as u32);
    let is_other = |place: &&AtomicPtr<Thread>| {
        let t = place.load(Ordering::Acquire);
        // SAFETY: states are never unmapped.
        !t.is_null()
            && t != but
            && unsafe { owner::parts((*t).owner.load(Ordering::Acquire)).1 == owner::USED }
    };
    THREADS[..count as usize].iter().filter(is_other).count() as u32
}

/// Has threads that rest look at the mode with their next hook, and not only with
/// their next sample: all but those at work just now, which overwrite it.
pub fn end_sampling() {
    let count = THREAD_COUNT.load(Ordering::Acquire).min(MAX_THREADS as u32);
    for place in &THREADS[..count as usize] {
        let t = place.load(Ordering::Acquire);
        if !t.is_null() {
            // SAFETY: states are never unmapped. Whether its thread finds `SAMPLING`
            // or `IDLE`, it is at rest.
            let word = unsafe { AtomicU32::from_ptr(addr_of_mut!((*t).depth)) };
            let _ = word.compare_exchange(
                depth::SAMPLING,
                depth::IDLE,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

/// Forgets what every thread had of the last session.
///
/// # Safety
///
/// No thread may be in a hook, or get into one meanwhile.
pub unsafe fn begin_anew() {
    renew_countdowns();
    let count = THREAD_COUNT.load(Ordering::Relaxed).min(MAX_THREADS as u32);
    for place in &THREADS[..count as usize] {
        let t = place.load(Ordering::Relaxed);
        if !t.is_null() {
            // SAFETY: the caller's.
            unsafe {
                (*t).ring.forget();
                (*t).side.forget();
                forget_half_done(t);
                (*t).native_length = 0;
                (*t).python_length = 0;
                (*t).outermost = 0;
                (*t).in_main = false;
                (*t).fork = 0;
                (*t).holds_modules = false;
                (*t).countdown.forget();
                (*t).depth = depth::IDLE;
            }
        }
    }
}

/// In a forked child: only this thread lives, and no chunk is ours.
///
/// # Safety
///
/// Only the one thread of a forked child may call it.
pub unsafe fn after_fork(own: *mut Thread) {
    let count = THREAD_COUNT.load(Ordering::Relaxed).min(MAX_THREADS as u32);
    let mut free = 0;
    for place in &THREADS[..count as usize] {
        let t = place.load(Ordering::Relaxed);
        if t.is_null() {
            continue;
        }
        // SAFETY: the child's private copies; no other thread exists.
        unsafe {
            (*t).ring.forget();
            (*t).side.forget();
            (*t).countdown.forget();
            if (*t).depth == depth::SAMPLING {
                (*t).depth = depth::IDLE;
            }
            if t != own {
                (*t).owner.store(owner::FREE, Ordering::Relaxed);
                (*t).depth = depth::IDLE;
                // What it was about to do with the list of modules, or a fork
                // of its own, is not this process's.
                (*t).updates_modules = false;
                (*t).holds_modules = false;
                (*t).fork = 0;
                free += 1;
            }
        }
    }
    DYING.store(free, Ordering::Relaxed);
    if !own.is_null() {
        // SAFETY: this thread's state. Where it stood in `__main__` is where
        // the parent did. Its word of the countdown is not the parent's.
        unsafe {
            (*own).countdown.hold();
            let owner = owner::of(sys::gettid(), owner::USED);
            (*own).owner.store(owner, Ordering::Relaxed);
            (*own).is_main = true;
        }
    }
}

/// Names this thread to the new process's collector side.
///
/// # Safety
///
/// `t` must be this thread's state.
pub unsafe fn introduce_child(t: *mut Thread, session: &Session) {
    // SAFETY: the caller's.
    unsafe { announce(t, session) };
}

impl Ring {
    /// Goes back to what was published, or begins anew where that is not sure.
    fn recover(&mut self) {
        if core::mem::take(&mut self.is_switching) {
            self.forget();
        } else if !self.header.is_null() {
            // SAFETY: the header of the ring's own chunk.
            let committed = unsafe { (*self.header).committed.load(Ordering::Relaxed) };
            self.position = if self.is_unnamed {
                CHUNK_WORDS
            } else {
                committed as usize
            };
        }
    }

    fn forget(&mut self) {
        self.data = null_mut();
        self.header = null_mut();
        self.position = 0;
        self.sequence = 0;
        self.pending_loss = 0;
        self.is_unnamed = true;
    }
}

/// A stamp, never before the thread's last.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn stamp(t: *mut Thread, session: &Session) -> u64 {
    let now = session.now();
    // SAFETY: the caller's.
    unsafe {
        // A thread that moved to another CPU may find its counter some ticks
        // behind.
        let stamp = now.max((*t).last_stamp);
        (*t).last_stamp = stamp;
        stamp
    }
}

/// Appends one event and publishes it. Waits for room in exact mode; counts a
/// loss, and gives false, when there is none.
///
/// # Safety
///
/// `t` must be this thread's state, and `depth` be `HOOK`.
#[inline(always)]
pub unsafe fn emit<const N: usize>(t: *mut Thread, session: &Session, words: [u64; N]) -> bool {
    // SAFETY: the caller's; the ring is only this thread's.
    unsafe {
        let ring = addr_of_mut!((*t).ring);
        if ((*ring).data.is_null() || (*ring).position + N > CHUNK_WORDS)
            && !next_chunk(ring, session, true, words[1])
        {
            return false;
        }
        put(ring, words);
    }
    true
}

/// As [`emit`] for a signal handler that interrupted a hook of its thread:
/// writes to the side ring and never waits. It stamps the event: another
/// handler may write one before signals are blocked here.
///
/// # Safety
///
/// `t` must be this thread's state.
pub unsafe fn emit_nested<const N: usize>(t: *mut Thread, session: &Session, mut words: [u64; N]) {
    // SAFETY: as above; only handlers that interrupted a hook use `side`, and
    // one that interrupted another of them leaves it alone.
    unsafe {
        // A handler that interrupts this one waits; only one for a fault of
        // our own could still come, or an event from before the mask was set.
        let mask = sys::block_signals();
        let busy = addr_of_mut!((*t).side_busy);
        if busy.read_volatile() {
            session.slot().lost_nested.fetch_add(1, Ordering::Relaxed);
            sys::restore_signals(mask);
            return;
        }
        busy.write_volatile(true);
        compiler_fence(Ordering::SeqCst);
        let stamp = session.now().max((*t).side_stamp);
        (*t).side_stamp = stamp;
        words[1] = stamp;
        let ring = addr_of_mut!((*t).side);
        let room = !(*ring).data.is_null() && (*ring).position + N + 4 <= CHUNK_WORDS;
        if room || next_chunk(ring, session, false, stamp) {
            if core::mem::take(&mut (*ring).is_unnamed) {
                put(ring, naming(tid_of(t), stamp));
            }
            put(ring, words);
        }
        compiler_fence(Ordering::SeqCst);
        busy.write_volatile(false);
        sys::restore_signals(mask);
    }
}

#[inline(always)]
unsafe fn put<const N: usize>(ring: *mut Ring, words: [u64; N]) {
    // SAFETY: the caller made room for N words in the chunk, and the words
    // from `position` on are unpublished: nobody reads them.
    unsafe {
        let at = (*ring).data.add((*ring).position);
        let mut i = 0;
        while i < N {
            at.add(i).write_volatile(words[i]);
            i += 1;
        }
        let end = (*ring).position + N;
        (*ring).position = end;
        // Release pairs with the collector's Acquire load of `committed`: it
        // sees the words, and any trie node they name.
        (*(*ring).header)
            .committed
            .store(end as u32, Ordering::Release);
    }
}

/// Appends a definition in as many pieces as it takes. False: it is lost.
///
/// # Safety
///
/// As for [`emit`].
pub unsafe fn emit_blob(
    t: *mut Thread,
    session: &Session,
    kind: event::BlobKind,
    id: u32,
    bytes: &[u8],
) -> bool {
    // SAFETY: as for `emit`.
    unsafe {
        let ring = addr_of_mut!((*t).ring);
        let mut offset = 0;
        loop {
            let mut room = CHUNK_WORDS.saturating_sub((*ring).position);
            if (*ring).data.is_null() || room < 5 {
                if !next_chunk(ring, session, true, stamp(t, session)) {
                    return false;
                }
                room = CHUNK_WORDS - (*ring).position;
            }
            let piece = (bytes.len() - offset).min((room - 4) * 8);
            let data = (*ring).data.add((*ring).position);
            data.write_volatile(event::head(Kind::Blob, kind as u8, id.into()));
            data.add(1).write_volatile(stamp(t, session));
            data.add(2)
                .write_volatile((bytes.len() as u64) << 32 | offset as u64);
            data.add(3).write_volatile(piece as u64);
            for (i, chunk) in bytes[offset..offset + piece].chunks(8).enumerate() {
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(chunk) {
                    *to = *from;
                }
                data.add(4 + i).write_volatile(u64::from_le_bytes(word));
            }
            (*ring).position += 4 + piece.div_ceil(8);
            (*(*ring).header)
                .committed
                .store((*ring).position as u32, Ordering::Release);
            offset += piece;
            if offset >= bytes.len() {
                return true;
            }
        }
    }
}

/// Makes room in the ring's chunk for a definition of so many bytes, in one
/// piece; waits for it only if it `may`. False: there is none.
///
/// # Safety
///
/// As for [`emit`].
pub unsafe fn make_room(t: *mut Thread, session: &Session, bytes: usize, may_wait: bool) -> bool {
    // SAFETY: as for `emit`.
    unsafe {
        let ring = addr_of_mut!((*t).ring);
        let words = 4 + bytes.div_ceil(8);
        if !(*ring).data.is_null() && (*ring).position + words <= CHUNK_WORDS {
            return true;
        }
        let Some(index) = session.take_chunk(may_wait) else {
            return false;
        };
        go_on_in(ring, session, index, stamp(t, session));
    }
    true
}

/// Goes on in a new chunk. False when there is none: the event is lost and
/// counted.
#[cold]
#[inline(never)]
unsafe fn next_chunk(ring: *mut Ring, session: &Session, may_wait: bool, stamp: u64) -> bool {
    python::look_for_graph(session);
    let Some(index) = session.take_chunk(may_wait) else {
        session.count_loss(may_wait);
        // SAFETY: this thread's ring.
        unsafe { (*ring).pending_loss += 1 };
        return false;
    };
    // SAFETY: this thread's ring.
    unsafe { go_on_in(ring, session, index, stamp) };
    true
}

/// Goes on in a chunk that was taken from the free list. `stamp` is not later
/// than that of the event to come: what is written before it has the same.
unsafe fn go_on_in(ring: *mut Ring, session: &Session, index: u32, stamp: u64) {
    let chunk = session.chunk(index);
    // SAFETY: the chunk is ours alone since it left the free list; the old
    // one is ours until `next` is stored below.
    unsafe {
        let header = chunk.cast::<ChunkHeader>();
        (*header).committed.store(0, Ordering::Relaxed);
        (*header).next.store(0, Ordering::Relaxed);
        (*header)
            .slot
            .store(session.slot_index(), Ordering::Relaxed);
        (*header).ring.store((*ring).number, Ordering::Relaxed);
        (*header)
            .sequence
            .store((*ring).sequence, Ordering::Relaxed);
        let old = (*ring).header;
        addr_of_mut!((*ring).is_switching).write_volatile(true);
        compiler_fence(Ordering::SeqCst);
        (*ring).data = chunk.add(CHUNK_HEADER_BYTES).cast();
        (*ring).header = header;
        (*ring).position = 0;
        (*ring).sequence = (*ring).sequence.wrapping_add(1);
        if core::mem::take(&mut (*ring).is_unnamed) {
            put(ring, naming(sys::gettid(), stamp));
        }
        if (*ring).pending_loss != 0 {
            let lost = (*ring).pending_loss;
            (*ring).pending_loss = 0;
            put(ring, [event::head(Kind::Loss, 0, lost), stamp]);
        }
        if old.is_null() {
            session.announce_ring(index, &*header);
        } else {
            // Release pairs with the collector's Acquire: it sees the header
            // written above.
            (*old).next.store(index + 1, Ordering::Release);
        }
        compiler_fence(Ordering::SeqCst);
        addr_of_mut!((*ring).is_switching).write_volatile(false);
    }
}

const _: () = assert!(layout::CHUNK_BYTES.is_multiple_of(64));
