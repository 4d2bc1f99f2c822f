//! CPython: its allocator domains, and its stacks.
//!
//! Everything is found by symbol at run time; structure offsets are those of
//! the interpreter's minor version (each printed from that version's headers
//! with `offsetof`), which CPython keeps within a minor release.
//!
//! # Invariants
//!
//! * Hooks never use their `ctx`: it is handed on as the original's, so a
//!   table that another thread sees half-written is valid all the same. The
//!   originals are stored before the hooks are published.
//! * A thread's frame chain is changed by that thread only, so it may be read
//!   in that thread's own hooks without a lock. Kept frames are read only when
//!   the live chain led to them.
//! * A code object's id is never used again for another. Its death is seen by a hook
//!   of its type's deallocator, or else by the obj domain's free hook, before the memory
//!   goes back.
//! * A block of CPython's pools is recorded in sampled mode only where its death is
//!   told: it is set apart ([`sets_apart`]), or the mem and obj domains have our free
//!   hooks, which are there from the first such block on, or the first that is recorded
//!   because all are.

use core::cell::UnsafeCell;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use leakline_wire::blob::{CodeDef, Encoder};
use leakline_wire::event::{self, BlobKind, Kind, MarkKind};
use leakline_wire::layout::mode;
use leakline_wire::trie::{NO_STACK, kind, python_frame};

use crate::session::{self, CODE_DIED, FLUSH, Session};
use crate::thread::{self, MAX_PYTHON, Thread, depth};
use crate::{elf, graph, hooks, modules, sampling, sys, trie, unwind};

/// `PyMemAllocatorEx`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub struct Allocator {
    pub context: sys::Pointer,
    pub malloc: u64,
    pub calloc: u64,
    pub realloc: u64,
    pub free: u64,
}

const NO_ALLOCATOR: Allocator = Allocator {
    context: null_mut(),
    malloc: 0,
    calloc: 0,
    realloc: 0,
    free: 0,
};

/// The allocators below our hooks: raw, mem, obj, and the three again for a
/// second layer. A tool that wrapped our hooks may be wrapped by that layer;
/// one layer for both would call itself for ever.
#[repr(transparent)]
pub struct Originals(UnsafeCell<[Allocator; 2 * DOMAINS]>);
// SAFETY: an entry is written before its hooks are published, by a thread that
// nobody races (start-up, or under the GIL).
unsafe impl Sync for Originals {}

pub static ORIGINALS: Originals = Originals(UnsafeCell::new([NO_ALLOCATOR; 2 * DOMAINS]));

/// `PyObjectArenaAllocator`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub struct Arenas {
    pub context: sys::Pointer,
    pub allocate: u64,
    free: u64,
}

const NO_ARENAS: Arenas = Arenas {
    context: null_mut(),
    allocate: 0,
    free: 0,
};

/// What gives arenas below our hook.
struct OriginalArenas(UnsafeCell<Arenas>);
// SAFETY: as of `Originals`.
unsafe impl Sync for OriginalArenas {}

static ORIGINAL_ARENAS: OriginalArenas = OriginalArenas(UnsafeCell::new(NO_ARENAS));

/// CPython's `SMALL_REQUEST_THRESHOLD`.
pub const LARGEST_POOLED: u64 = 512;

/// See [`is_pooled`].
static POOLED: AtomicU64 = AtomicU64::new(0);

/// As [`POOLED`] while blocks are left out by a thread's countdown alone, and else 0.
pub static POOL_LIMIT: AtomicU64 = AtomicU64::new(0);

/// As [`POOL_LIMIT`], of the blocks above it where [`hands_on`], and else 0.
pub static HANDED_ON_LIMIT: AtomicU64 = AtomicU64::new(0);

/// Larger ones are left to the hooks.
const LARGEST_HANDED_ON: u64 = 1 << 30;

/// Sets [`POOL_LIMIT`] and [`HANDED_ON_LIMIT`]: again where what they depend on has changed
/// meanwhile.
pub fn set_pool_limit() {
    let limits = || {
        let pooled = match sampling::LEAVES_OUT.load(Ordering::SeqCst) {
            0 => 0,
            _ => POOLED.load(Ordering::SeqCst),
        };
        match HANDS_ON.load(Ordering::SeqCst) {
            FITS if pooled != 0 => (pooled, LARGEST_HANDED_ON),
            _ => (pooled, 0),
        }
    };
    loop {
        let set = limits();
        POOL_LIMIT.store(set.0, Ordering::SeqCst);
        HANDED_ON_LIMIT.store(set.1, Ordering::SeqCst);
        if limits() == set {
            return;
        }
    }
}

/// Whether a block that is too large for the pools is counted by libc's function, from
/// which it comes by the raw domain's below our hook: `NOT_TRIED`, `FITS` or `DOES_NOT_FIT`.
///
/// Then the pools' own allocator, which hands such a block on to the raw domain's hook and
/// does nothing else for it, need not be known to be at work meanwhile: the hook that was
/// asked first counts the block, says so ([`thread::hand_on`]) and is the allocator; the raw
/// domain's takes that back and is *its* allocator; and libc's function counts it.
static HANDS_ON: AtomicU32 = AtomicU32::new(NOT_TRIED);

/// The main thread's state, which is in [`Thread::in_main`], where CPython has it in its own
/// static data (from 3.11 on): there it is never freed. Else 0.
static MAIN_STATE: AtomicU64 = AtomicU64::new(0);

/// What is asked for in place of a block that is set apart: more than pools give.
pub const APART: usize = LARGEST_POOLED as usize + 1;

/// Whether blocks can be set apart: `NOT_TRIED`, `FITS` or `DOES_NOT_FIT`.
static SETS_APART: AtomicU32 = AtomicU32::new(NOT_TRIED);

/// A block that is being freed to see whether we are told, or [`SEEN`].
static PROBE: AtomicU64 = AtomicU64::new(0);
/// We were.
const SEEN: u64 = 1;

/// Not 0 while the mem and obj domains have their own free functions.
static RELEASED: AtomicU32 = AtomicU32::new(0);

/// The deallocator of code objects below our hook.
static CODE_DEATH: AtomicU64 = AtomicU64::new(0);
/// Not 0 while our hook is told of their deaths.
static CODES_ARE_TOLD: AtomicU32 = AtomicU32::new(0);

/// Python's allocator domains.
pub const DOMAINS: usize = 3;

/// Where things lie in the interpreter's structures, in bytes.
pub struct Layout {
    /// From the thread state to the frame, or to the C frame that has it.
    pub state_frame: u64,
    /// From there to the frame, if there is a C frame between.
    pub c_frame: Option<u64>,
    pub frame_code: u64,
    pub frame_previous: u64,
    /// The instruction: a pointer, or (before 3.11) an index.
    frame_instruction: u64,
    /// One byte: who owns the frame (3.12 on); 0 = there is none.
    frame_owner: u64,
    /// One byte: entered by a fresh call of the evaluator (3.11); 0 = none.
    frame_is_entry: u64,
    code_first_line: u64,
    code_file: u64,
    pub code_name: u64,
    code_lines: u64,
    /// First instruction, where instructions are pointers.
    code_instructions: u64,
    /// Data of a compact ASCII string, and of another compact one.
    pub text_ascii: u64,
    pub text_other: u64,
    /// Bytes a unit of an instruction index (before 3.11).
    index_unit: u64,
    line_format: u8,
}

const V39: Layout = Layout {
    state_frame: 24,
    c_frame: None,
    frame_code: 32,
    frame_previous: 24,
    frame_instruction: 104,
    frame_owner: 0,
    frame_is_entry: 0,
    code_first_line: 40,
    code_file: 104,
    code_name: 112,
    code_lines: 120,
    code_instructions: 0,
    text_ascii: 48,
    text_other: 72,
    index_unit: 1,
    line_format: 9,
};
const V310: Layout = Layout {
    frame_instruction: 96,
    index_unit: 2,
    line_format: 10,
    ..V39
};
const V311: Layout = Layout {
    state_frame: 56,
    c_frame: Some(8),
    frame_code: 32,
    frame_previous: 48,
    frame_instruction: 56,
    frame_owner: 69,
    frame_is_entry: 68,
    code_first_line: 72,
    code_file: 112,
    code_name: 128,
    code_lines: 136,
    code_instructions: 184,
    text_ascii: 48,
    text_other: 72,
    index_unit: 0,
    line_format: 11,
};
const V312: Layout = Layout {
    c_frame: Some(0),
    frame_code: 0,
    frame_previous: 8,
    frame_owner: 70,
    frame_is_entry: 0,
    code_first_line: 68,
    code_instructions: 192,
    text_ascii: 40,
    text_other: 56,
    ..V311
};
const V313: Layout = Layout {
    state_frame: 72,
    c_frame: None,
    code_instructions: 200,
    ..V312
};

/// 3.15 too.
const V314: Layout = Layout {
    frame_owner: 74,
    code_instructions: 208,
    ..V313
};

/// Owners of a frame that is no Python frame but a boundary (3.12 on).
const FIRST_BOUNDARY_OWNER: u8 = 3;

/// What was found of the interpreter.
pub struct Interpreter {
    pub layout: Layout,
    /// Of the version: 3.MINOR.
    pub minor: u8,
    /// Where CPython's own code and static data lie.
    span: (u64, u64),
    get_allocator: u64,
    set_allocator: u64,
    get_arenas: u64,
    set_arenas: u64,
    /// Thread state of the GIL's holder (before 3.12) or of this thread.
    current_state: u64,
    /// Thread state of this thread, holding the GIL or not.
    this_thread_state: u64,
    code_type: u64,
    is_initialized: u64,
    is_finalizing: u64,
    /// `PyRefTracer_SetTracer` and `PyRefTracer_GetTracer`, of a version in
    /// which they are sound; else 0.
    set_tracer: u64,
    get_tracer: u64,
}

struct Global(UnsafeCell<Interpreter>);
// SAFETY: written before `READY` says so, and again only after it was unloaded.
unsafe impl Sync for Global {}

static PYTHON: Global = Global(UnsafeCell::new(Interpreter {
    layout: V313,
    minor: 0,
    span: (0, 0),
    get_allocator: 0,
    set_allocator: 0,
    get_arenas: 0,
    set_arenas: 0,
    current_state: 0,
    this_thread_state: 0,
    code_type: 0,
    is_initialized: 0,
    is_finalizing: 0,
    set_tracer: 0,
    get_tracer: 0,
}));
/// Whether there is an interpreter: what [`PYTHON`] says is then whole.
static READY: AtomicU32 = AtomicU32::new(NOT_FOUND);
const NOT_FOUND: u32 = 0;
const FOUND: u32 = 1;
/// It is over, and may be unloaded at any moment.
const PUT_ASIDE: u32 = 2;
/// Where an interpreter lies that was found and did not run yet; the end is 0
/// without one.
static PENDING_START: AtomicU64 = AtomicU64::new(0);
static PENDING_END: AtomicU64 = AtomicU64::new(0);
/// 1 when there is an interpreter that is not supported, and we said so.
static REFUSED: AtomicU32 = AtomicU32::new(0);
/// 1 from when the interpreter was found until it is up.
pub static STARTING: AtomicU32 = AtomicU32::new(0);
/// What is to be done by the next thread that holds the GIL: [`SET`] the reference
/// tracer when `__main__` runs, [`LOOK`] at it when that is left, a [`GRAPH`].
static DUE: AtomicU32 = AtomicU32::new(0);
const SET: u32 = 1;
const LOOK: u32 = 2;
/// A heap graph is to be taken.
const GRAPH: u32 = 4;
/// 1: the graph of the end is.
static END_IS_DUE: AtomicU32 = AtomicU32::new(0);
/// 1 once it is ours.
static TRACER_IS_OURS: AtomicU32 = AtomicU32::new(0);
/// See [`has_plain_domains`].
static PLAIN: AtomicU32 = AtomicU32::new(1);
/// 1 once the greenlet library is loaded.
static GREENLETS: AtomicU32 = AtomicU32::new(0);
/// See [`begin_late`].
static IS_LATE: AtomicU32 = AtomicU32::new(0);
/// Whether frames lie where the version says.
static FIT: AtomicU32 = AtomicU32::new(NOT_TRIED);
const NOT_TRIED: u32 = 0;
const FITS: u32 = 1;
const DOES_NOT_FIT: u32 = 2;

/// A frame of the last Python stack (or a boundary), `0` the outermost.
#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    at: u64,
    /// The instruction word as it lies in the frame.
    instruction: u64,
    node: u32,
    boundary: bool,
}

/// The newest frames of a recent Python stack, down to a kept frame.
#[derive(Clone, Copy)]
#[repr(C)]
struct Memo {
    /// Innermost first. How many; 0 = empty.
    count: u32,
    /// [`Thread::generation`] at that time.
    generation: u32,
    /// The kept frame that they lead to, and what it was.
    join: u32,
    join_node: u32,
    join_boundary: bool,
    /// The stack's node.
    node: u32,
    at: [u64; MEMO_FRAMES],
    instruction: [u64; MEMO_FRAMES],
}

/// Stacks that a thread remembers the newest frames of.
const MEMOS: usize = 256;
/// Most frames of a memo: of longer ways the kept stack is made new.
const MEMO_FRAMES: usize = 4;

/// A thread's last Python stack, and room for the next.
#[repr(C)]
pub struct Kept {
    frames: [Frame; MAX_PYTHON],
    fresh: [Frame; MAX_PYTHON],
    memos: [Memo; MEMOS],
}

/// The greenlet library was loaded: frame chains may be exchanged.
pub fn greenlets_came() {
    GREENLETS.store(1, Ordering::Relaxed);
}

/// Empties a thread's memos.
///
/// # Safety
///
/// `t` must be this thread's state.
pub unsafe fn forget_memos(t: *mut Thread) {
    // SAFETY: the caller's.
    unsafe {
        let memos = addr_of_mut!((*t).python.memos).cast::<Memo>();
        for i in 0..MEMOS {
            if (*memos.add(i)).count != 0 {
                (*memos.add(i)).count = 0;
            }
        }
    }
}

// ---------------------------------------------------------------- hooks

fn interpreter() -> Option<&'static Interpreter> {
    // Acquire pairs with the Release in `install`.
    (READY.load(Ordering::Acquire) == FOUND).then(|| {
        // SAFETY: whole since `FOUND`, and only read from then on.
        unsafe { &*PYTHON.0.get() }
    })
}

/// Where the block of a live object begins: some types keep words before it.
///
/// # Safety
///
/// `object` must be a live object of a GIL build.
#[inline(always)]
pub unsafe fn block_of(object: u64) -> u64 {
    const TYPE_FLAGS: u64 = 168;
    const HAVE_GC: u64 = 1 << 14;
    const MANAGED_WEAKREF_OR_DICT: u64 = 1 << 3 | 1 << 4;
    // SAFETY: an object's second word is its type; both are live.
    let flags = unsafe { sys::word(sys::word(object + 8) + TYPE_FLAGS) };
    let mut before = 0;
    if flags & HAVE_GC != 0 {
        before += 16;
    }
    if flags & MANAGED_WEAKREF_OR_DICT != 0 {
        before += 16;
    }
    object - before
}

/// Has the heap graph taken that the collector wants, if it wants one. To be called now
/// and then.
pub fn look_for_graph(session: &Session) {
    let slot = session.slot();
    let wanted = slot.graph_wanted.load(Ordering::Relaxed);
    if wanted != slot.graph_begun.load(Ordering::Relaxed) {
        if is_absent() {
            modules::look_soon();
        } else {
            DUE.fetch_or(GRAPH, Ordering::Relaxed);
        }
    }
    graph::reap();
}

/// Whether a heap graph is to be taken by the next thread that holds the GIL.
pub fn is_graph_due() -> bool {
    DUE.load(Ordering::Relaxed) & GRAPH != 0
}

/// Whether this is a program without Python, as far as is known.
pub fn is_absent() -> bool {
    READY.load(Ordering::Relaxed) == NOT_FOUND && PENDING_END.load(Ordering::Relaxed) == 0
}

/// Whether an interpreter was found.
pub fn is_there() -> bool {
    READY.load(Ordering::Relaxed) == FOUND
}

/// Whether `__main__` runs on this thread, and Python code in it: what
/// [`look_at_main`] finds most often.
///
/// # Safety
///
/// `t` must be this thread's state, and the thread hold the GIL.
#[inline(always)]
pub unsafe fn runs_main(t: *mut Thread) -> bool {
    // SAFETY: the caller's.
    unsafe { runs_main_at(t, MAIN_STATE.load(Ordering::Relaxed)) || runs_main_by_call(t) }
}

/// As [`runs_main`], where the thread's state is known: calls nothing.
///
/// # Safety
///
/// As for [`runs_main`].
#[inline(always)]
pub unsafe fn surely_runs_main(t: *mut Thread) -> bool {
    // SAFETY: the caller's.
    unsafe { runs_main_at(t, MAIN_STATE.load(Ordering::Relaxed)) }
}

/// As [`runs_main`], of the state that CPython says is this thread's.
#[cold]
#[inline(never)]
unsafe fn runs_main_by_call(t: *mut Thread) -> bool {
    let state = interpreter().map_or(0, |python| python.state(true, true));
    // SAFETY: the caller's.
    unsafe { runs_main_at(t, state) }
}

/// # Safety
///
/// As for [`runs_main`]; `state` must be the thread's, or 0.
#[inline(always)]
unsafe fn runs_main_at(t: *mut Thread, state: u64) -> bool {
    // SAFETY: the caller's; the thread's own state and frame (see the invariants). What
    // was found of the interpreter is whole, since it fits.
    unsafe {
        if state == 0 || !(*t).in_main || FIT.load(Ordering::Relaxed) != FITS {
            return false;
        }
        let python = &*PYTHON.0.get();
        let frame = python.frame_of(state);
        frame != 0 && !python.is_boundary(frame)
    }
}

/// In sampled mode, where stacks are taken too seldom to tell: looks whether
/// `__main__` runs, or was left.
///
/// # Safety
///
/// `t` must be the main thread's state with `depth` `HOOK`, and that thread the
/// caller, with the GIL.
#[cold]
pub unsafe fn look_at_main(t: *mut Thread, session: &Session) {
    let Some(python) = interpreter() else { return };
    let layout = &python.layout;
    let state = python.state(true, true);
    if state == 0 {
        return;
    }
    // SAFETY: the thread's own state and frame chain (see the invariants).
    unsafe {
        let mut frame = python.frame_of(state);
        if frame != 0 && !python.fits(session, frame) {
            return;
        }
        let mut outermost = 0;
        for _ in 0..MAX_PYTHON {
            if frame == 0 {
                break;
            }
            // That something runs says nothing: it may be what prints the error that
            // `__main__` was left by (3.13 on), or an exit handler.
            if !python.is_boundary(frame) {
                outermost = frame;
            }
            frame = sys::word(frame + layout.frame_previous);
        }
        if outermost == 0 {
            python.watch_main(t, session, 0, 0);
        } else if frame == 0 {
            let code = sys::word(outermost + layout.frame_code);
            python.watch_main(t, session, code, outermost);
        }
        if DUE.load(Ordering::Relaxed) & GRAPH != 0 {
            python.see_to_dues(t, session);
        }
        let own = python.span.0..python.span.1;
        if (*t).in_main && own.contains(&state) {
            MAIN_STATE.store(state, Ordering::Relaxed);
        }
    }
}

/// Whether below our hooks there are CPython's own allocators alone: none of
/// them calls the hooks of the mem and obj domains.
pub fn has_plain_domains() -> bool {
    PLAIN.load(Ordering::Relaxed) != 0
}

/// The allocator below the hooks numbered `hooks`: domain + layer * `DOMAINS`.
#[inline(always)]
pub fn original(hooks: usize) -> &'static Allocator {
    // SAFETY: hooks run only after the entry was written.
    unsafe { &(*ORIGINALS.0.get())[hooks] }
}

/// What gives arenas below our hook.
pub fn original_arenas() -> &'static Arenas {
    // SAFETY: the hook runs only after this was written.
    unsafe { &*ORIGINAL_ARENAS.0.get() }
}

/// Whether the mem and obj domains take a block of this size from CPython's pools
/// without a call of another hook but the arenas': then nothing needs to know that
/// they are at work.
///
/// (What the pools' own tables take from the raw domain is sampled for what it is:
/// a table for each so many arenas.)
#[inline(always)]
pub fn is_pooled(size: usize) -> bool {
    // CPython asks malloc for blocks of no bytes.
    (size as u64).wrapping_sub(1) < POOLED.load(Ordering::Relaxed)
}

/// Finds the interpreter, if the process has one, and hooks its domains: if it
/// `may_run`, and else once it does.
///
/// The loader lists an object before it is relocated and before its thread-local
/// storage is known, and allocates in between: then nothing of it may be called.
/// Once its own code runs it is whole.
pub fn install(session: &Session, may_run: bool) {
    if READY.load(Ordering::Relaxed) != NOT_FOUND || REFUSED.load(Ordering::Relaxed) != 0 {
        return;
    }
    let version = elf::find(c"Py_GetVersion");
    let set_allocator = elf::find(c"PyMem_SetAllocator");
    let get_allocator = elf::find(c"PyMem_GetAllocator");
    if version == 0 || set_allocator == 0 || get_allocator == 0 {
        return;
    }
    if !may_run {
        let (start, end) = elf::span_of(get_allocator);
        PENDING_START.store(start, Ordering::Relaxed);
        PENDING_END.store(end, Ordering::Release);
        return;
    }
    // SAFETY: CPython's function; returns a static string "3.11.7 (...".
    let text = unsafe {
        let version: extern "C" fn() -> *const core::ffi::c_char = core::mem::transmute(version);
        core::ffi::CStr::from_ptr(version()).to_bytes()
    };
    if text.windows(14).any(|words| words == b"free-threading") {
        REFUSED.store(1, Ordering::Relaxed);
        session.tell(b"free-threaded Python is not supported yet: native frames only");
        return;
    }
    let mut parts = text.split(|byte| !byte.is_ascii_digit());
    let mut number = || {
        parts
            .next()
            .unwrap_or(b"")
            .iter()
            .fold(0u32, |value, digit| {
                value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
            })
    };
    let (major, minor, micro) = (number(), number(), number());
    let layout = match (major, minor) {
        (3, 9) => V39,
        (3, 10) => V310,
        (3, 11) => V311,
        (3, 12) => V312,
        (3, 13) => V313,
        (3, 14 | 15) => V314,
        _ => {
            REFUSED.store(1, Ordering::Relaxed);
            session.tell(b"this Python's version is not supported: native frames only");
            return;
        }
    };
    let current_state = [
        c"PyThreadState_GetUnchecked",
        c"_PyThreadState_UncheckedGet",
    ]
    .iter()
    .map(|name| elf::find(name))
    .find(|address| *address != 0)
    .unwrap_or(0);
    // SAFETY: nobody reads before `FOUND`.
    unsafe {
        *PYTHON.0.get() = Interpreter {
            layout,
            minor: minor as u8,
            span: elf::span_of(get_allocator),
            get_allocator,
            set_allocator,
            get_arenas: elf::find(c"PyObject_GetArenaAllocator"),
            set_arenas: elf::find(c"PyObject_SetArenaAllocator"),
            current_state,
            this_thread_state: elf::find(c"PyGILState_GetThisThreadState"),
            code_type: elf::find(c"PyCode_Type"),
            is_initialized: elf::find(c"Py_IsInitialized"),
            is_finalizing: [c"Py_IsFinalizing", c"_Py_IsFinalizing"]
                .iter()
                .map(|name| elf::find(name))
                .find(|address| *address != 0)
                .unwrap_or(0),
            set_tracer: if minor > 13 || minor == 13 && micro >= 3 {
                elf::find(c"PyRefTracer_SetTracer")
            } else {
                0
            },
            get_tracer: elf::find(c"PyRefTracer_GetTracer"),
        };
    }
    let hexadecimal = major << 24 | minor << 16 | micro << 8 | 0xf0;
    session
        .slot()
        .python_version
        .store(hexadecimal, Ordering::Relaxed);
    READY.store(FOUND, Ordering::Release);
    STARTING.store(1, Ordering::Relaxed);
    unwind::mark_evaluator();
    if let Some(python) = interpreter() {
        if IS_LATE.load(Ordering::Relaxed) == 0 {
            python.hook_domains();
        } else {
            python.hook_soon();
        }
    }
}

/// The interpreter has long been running: its domains are hooked by a thread
/// that holds the GIL, whichever of them comes by first.
pub fn begin_late() {
    IS_LATE.store(1, Ordering::Relaxed);
}

/// A frame at `address` is on this thread's stack: an interpreter that was
/// found, and could not run then, is hooked. True: it is this one.
pub fn runs_at(session: &Session, address: u64) -> bool {
    let end = PENDING_END.load(Ordering::Acquire);
    if address >= end || address < PENDING_START.load(Ordering::Relaxed) {
        return false;
    }
    let is_ours = PENDING_END
        .compare_exchange(end, 0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok();
    if is_ours {
        install(session, true);
    }
    is_ours
}

/// A library is about to be unloaded. An interpreter that is over may be it:
/// nothing of it is called until [`after_unloading`].
pub fn before_unloading() {
    let Some(python) = interpreter() else { return };
    if python.is_initialized == 0 {
        return;
    }
    // SAFETY: CPython's function; it reads a flag.
    let initialized = unsafe {
        let initialized: extern "C" fn() -> i32 = core::mem::transmute(python.is_initialized);
        initialized() != 0
    };
    if !initialized {
        let _ = READY.compare_exchange(FOUND, PUT_ASIDE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// It was, and the list of modules read again: unless [`forget`] was called,
/// the interpreter is still there.
pub fn after_unloading() {
    let _ = READY.compare_exchange(PUT_ASIDE, FOUND, Ordering::Release, Ordering::Relaxed);
}

/// The module of these addresses is gone: if it was the interpreter, nothing of
/// it is called any more, and another one may come.
pub fn forget(start: u64, end: u64) {
    if PENDING_END.load(Ordering::Relaxed) == end {
        PENDING_END.store(0, Ordering::Relaxed);
    }
    if READY.load(Ordering::Acquire) == NOT_FOUND {
        return;
    }
    // SAFETY: whole since `FOUND`.
    let function = unsafe { (*PYTHON.0.get()).get_allocator };
    if !(start..end).contains(&function) {
        return;
    }
    READY.store(NOT_FOUND, Ordering::Relaxed);
    for word in [&STARTING, &DUE, &END_IS_DUE, &TRACER_IS_OURS] {
        word.store(0, Ordering::Relaxed);
    }
    PLAIN.store(1, Ordering::Relaxed);
    POOLED.store(0, Ordering::SeqCst);
    HANDS_ON.store(NOT_TRIED, Ordering::SeqCst);
    set_pool_limit();
    RELEASED.store(0, Ordering::Relaxed);
    SETS_APART.store(NOT_TRIED, Ordering::Relaxed);
    CODES_ARE_TOLD.store(0, Ordering::Relaxed);
    FIT.store(NOT_TRIED, Ordering::Relaxed);
    unwind::forget_evaluator();
    // SAFETY: the hooks' callers were in what is gone.
    unsafe {
        *ORIGINALS.0.get() = [NO_ALLOCATOR; 2 * DOMAINS];
        *ORIGINAL_ARENAS.0.get() = NO_ARENAS;
    }
}

/// PYTHONMALLOC and `-X dev` replace all three tables while the interpreter
/// starts: looks, until that is over, whether the hooks are still there.
#[inline(always)]
pub fn watch_start() {
    if is_starting() {
        recheck();
    }
}

/// Whether [`watch_start`] looks.
#[inline(always)]
pub fn is_starting() -> bool {
    STARTING.load(Ordering::Relaxed) != 0
}

#[cold]
fn recheck() {
    let Some(python) = interpreter() else { return };
    if IS_LATE.load(Ordering::Relaxed) != 0 {
        if python.holds_gil() && STARTING.swap(0, Ordering::Relaxed) != 0 {
            python.hook_domains();
            if !session::is_joined() {
                // Another thread left meanwhile, and may have come too early.
                unhook();
            }
        }
        return;
    }
    if python.is_initialized == 0 || sys::gettid() != sys::getpid() {
        return;
    }
    // SAFETY: CPython's function; it reads a flag.
    let initialized = unsafe {
        let initialized: extern "C" fn() -> i32 = core::mem::transmute(python.is_initialized);
        initialized() != 0
    };
    if initialized {
        STARTING.store(0, Ordering::Relaxed);
    }
    python.hook_domains();
}

/// Whether a block that is too large for CPython's pools comes from the raw domain, and is
/// freed there, by the same address: then the death of a sampled one is seen without a hook
/// of its own domain's `free`. (CPython has always done it so; but that is its own affair.)
///
/// # Safety
///
/// The thread must hold the GIL, and be at `depth::PYTHON`; mem and obj have CPython's own
/// allocators below our hooks ([`is_pooled`]).
pub unsafe fn sets_apart() -> bool {
    match SETS_APART.load(Ordering::Relaxed) {
        NOT_TRIED => {
            // SAFETY: the caller's.
            let fits = unsafe { try_apart() };
            SETS_APART.store(if fits { FITS } else { DOES_NOT_FIT }, Ordering::Relaxed);
            fits
        }
        known => known == FITS,
    }
}

#[cold]
unsafe fn try_apart() -> bool {
    const OBJ: usize = 2;
    let obj = original(OBJ);
    // SAFETY: CPython's own functions, with their context. (The set of sampled blocks is
    // there: one has been chosen.) Nobody knows of this block but us.
    unsafe {
        let malloc: extern "C" fn(sys::Pointer, usize) -> u64 = core::mem::transmute(obj.malloc);
        let free: extern "C" fn(sys::Pointer, u64) = core::mem::transmute(obj.free);
        let block = malloc(obj.context, APART);
        if block == 0 {
            return false;
        }
        // So that the raw domain's hook does not let it pass unseen.
        let is_in = sampling::blocks().insert(block);
        PROBE.store(block, Ordering::Relaxed);
        free(obj.context, block);
        if is_in {
            sampling::blocks().remove(block);
        }
        PROBE.swap(0, Ordering::Relaxed) == SEEN
    }
}

/// Whether a block of so many bytes, which was counted, is to be handed on.
#[inline(always)]
pub fn hands_on(size: usize) -> bool {
    (size as u64).wrapping_sub(1) < HANDED_ON_LIMIT.load(Ordering::Relaxed)
}

/// Tries [`HANDS_ON`], if that is not known. To be called where a block is too large for
/// the pools.
///
/// # Safety
///
/// The thread must be at `depth::SAMPLING`, hold the GIL, and be in a hook of the mem or
/// the obj domain.
#[inline(always)]
pub unsafe fn try_handing_on() {
    // (While Python starts, libc's functions look whether it has.)
    if HANDS_ON.load(Ordering::Relaxed) == NOT_TRIED
        && POOL_LIMIT.load(Ordering::Relaxed) != 0
        && !is_starting()
    {
        // SAFETY: the caller's.
        unsafe { try_handing_on_now() };
    }
}

#[cold]
#[inline(never)]
unsafe fn try_handing_on_now() {
    const RAW: usize = 0;
    const LARGER: usize = APART + 64;
    const PLENTY: u64 = 1 << 20;
    let raw = original(RAW);
    // So that none of them is sampled.
    let left = thread::exchange_countdown(PLENTY);
    let counted = || PLENTY - thread::exchange_countdown(PLENTY);
    // SAFETY: CPython's own functions (there are pools only above those), with their
    // context. Nobody knows of these blocks but us.
    let fits = unsafe {
        let malloc: extern "C" fn(sys::Pointer, usize) -> u64 = core::mem::transmute(raw.malloc);
        let calloc: extern "C" fn(sys::Pointer, usize, usize) -> u64 =
            core::mem::transmute(raw.calloc);
        let realloc: extern "C" fn(sys::Pointer, u64, usize) -> u64 =
            core::mem::transmute(raw.realloc);
        let free: extern "C" fn(sys::Pointer, u64) = core::mem::transmute(raw.free);
        let first = malloc(raw.context, APART);
        let by_malloc = counted();
        let second = calloc(raw.context, 1, APART);
        let by_calloc = counted();
        let third = match first {
            0 => 0,
            _ => realloc(raw.context, first, LARGER),
        };
        let by_realloc = counted();
        for block in [if third == 0 { first } else { third }, second] {
            if block != 0 {
                free(raw.context, block);
            }
        }
        second != 0
            && third != 0
            && [by_malloc, by_calloc, by_realloc]
                == [APART, APART, LARGER].map(|bytes| bytes as u64 + 1)
    };
    thread::exchange_countdown(left);
    HANDS_ON.store(if fits { FITS } else { DOES_NOT_FIT }, Ordering::SeqCst);
    set_pool_limit();
}

/// The raw domain's hook is told of the death of a block that is none of the program's
/// own: that of [`try_apart`], perhaps.
#[inline(always)]
pub fn note_probe(block: u64) {
    if PROBE.load(Ordering::Relaxed) == block {
        PROBE.store(SEEN, Ordering::Relaxed);
    }
}

/// Cuts a block that was set apart to its own size. Where that cannot be it stays as it is.
///
/// # Safety
///
/// The block must be one of [`APART`] bytes from a domain that [`sets_apart`], or null.
pub unsafe fn cut(block: *mut u8, size: usize) -> *mut u8 {
    const RAW: usize = 0;
    if block.is_null() {
        return block;
    }
    let raw = original(RAW);
    // SAFETY: the raw domain's function, with its context; it gave the block.
    let less = unsafe {
        let realloc: extern "C" fn(sys::Pointer, *mut u8, usize) -> *mut u8 =
            core::mem::transmute(raw.realloc);
        realloc(raw.context, block, size)
    };
    if less.is_null() { block } else { less }
}

/// Blocks are set apart: if no other death is to be told, the mem and obj domains get
/// their own `free` back, and free at no cost.
///
/// # Safety
///
/// The thread must hold the GIL.
pub unsafe fn release_frees() {
    if RELEASED.load(Ordering::Relaxed) != 0
        || is_starting()
        || sampling::needs_deaths()
        || CODES_ARE_TOLD.load(Ordering::Relaxed) == 0
    {
        return;
    }
    RELEASED.store(1, Ordering::Relaxed);
    // SAFETY: the caller's.
    unsafe {
        set_frees(|hooks| original(hooks).free);
    }
    // Who has seen meanwhile that all blocks are recorded may have come too early.
    if sampling::needs_deaths() {
        // SAFETY: as above.
        unsafe { set_frees(|hooks| hooks::python_hooks(hooks).free) };
        RELEASED.store(0, Ordering::Relaxed);
    }
    if !session::is_joined() {
        // Another thread left meanwhile, and may have come too early.
        unhook();
    }
}

/// A block of the mem or obj domain is about to be recorded because all are: its death
/// is to be told.
///
/// # Safety
///
/// The thread must hold the GIL.
#[inline(always)]
pub unsafe fn claim_frees(session: &Session) {
    if RELEASED.load(Ordering::Relaxed) != 0 {
        // SAFETY: the caller's.
        unsafe { claim_released(session) };
    }
}

#[cold]
#[inline(never)]
unsafe fn claim_released(session: &Session) {
    // SAFETY: the caller's.
    let are_ours = unsafe { set_frees(|hooks| hooks::python_hooks(hooks).free) };
    RELEASED.store(0, Ordering::Relaxed);
    if !are_ours {
        session.tell(
            b"another tool took Python's allocators from leakline while it sampled: \
              what is freed from now on may be shown as live",
        );
        session.count_loss(true);
    }
    if !session::is_joined() {
        unhook();
    }
}

/// Sets the free functions of the mem and obj domains, where our hooks are uppermost.
/// False: not of both.
///
/// # Safety
///
/// The thread must hold the GIL.
unsafe fn set_frees(free: impl Fn(usize) -> u64) -> bool {
    let Some(python) = interpreter() else {
        return false;
    };
    // SAFETY: CPython's functions; a table that is half written is valid all the same.
    unsafe {
        let get: extern "C" fn(u32, *mut Allocator) = core::mem::transmute(python.get_allocator);
        let set: extern "C" fn(u32, *const Allocator) = core::mem::transmute(python.set_allocator);
        // Mem and obj, in the first layer: with a second one blocks are not set apart.
        let mut are_set = true;
        for domain in 1..DOMAINS {
            let mut now = NO_ALLOCATOR;
            get(domain as u32, &raw mut now);
            if now.malloc == hooks::python_hooks(domain).malloc {
                now.free = free(domain);
                set(domain as u32, &raw const now);
            } else {
                are_set = false;
            }
        }
        are_set
    }
}

/// Gives the domains back what was below our hooks, where those are uppermost:
/// who wrapped them goes on calling them, and they pass on.
pub fn unhook() {
    STARTING.store(0, Ordering::Relaxed);
    let Some(python) = interpreter() else { return };
    // SAFETY: CPython's functions. A table that is half written is valid all the
    // same: our hooks have the originals' contexts.
    unsafe {
        let get: extern "C" fn(u32, *mut Allocator) = core::mem::transmute(python.get_allocator);
        let set: extern "C" fn(u32, *const Allocator) = core::mem::transmute(python.set_allocator);
        for domain in 0..DOMAINS {
            let mut now = NO_ALLOCATOR;
            get(domain as u32, &raw mut now);
            for layer in [domain, domain + DOMAINS] {
                if now.malloc == hooks::python_hooks(layer).malloc {
                    set(domain as u32, original(layer));
                }
            }
        }
        python.unhook_arenas();
        python.unhook_codes();
    }
    RELEASED.store(0, Ordering::Relaxed);
    SETS_APART.store(NOT_TRIED, Ordering::Relaxed);
}

/// Looks, where the interpreter was running before us, whether the domains still
/// lead to us: tracemalloc, say, was at work when we came, and gives back what it
/// found when it ends. To be called now and then.
///
/// # Safety
///
/// `t` must be this thread's state, and `depth` be `HOOK`.
pub unsafe fn look_after_domains(t: *mut Thread, session: &Session, stamp: u64) {
    if IS_LATE.load(Ordering::Relaxed) == 0 || STARTING.load(Ordering::Relaxed) != 0 {
        return;
    }
    let Some(python) = interpreter() else { return };
    if !python.holds_gil() || python.are_domains_hooked() {
        return;
    }
    session.tell(
        b"another tool took Python's allocators away from leakline for a while: \
          what was freed meanwhile may be shown as live",
    );
    session.count_loss(true);
    // SAFETY: the caller's.
    unsafe {
        thread::emit(t, session, [event::head(Kind::Loss, 0, 1), stamp]);
    }
    python.hook_domains();
    if !session::is_joined() {
        // Another thread left meanwhile, and may have come too early.
        unhook();
    }
}

/// What CPython calls for us when it comes to it.
extern "C" fn when_pending(_: sys::Pointer) -> i32 {
    recheck();
    0
}

/// Whether what a domain leads to is our hook, or wraps it.
fn is_hooked(domain: usize, now: &Allocator) -> bool {
    let is_ours = |function: u64| {
        [domain, domain + DOMAINS]
            .iter()
            .any(|hooks| hooks::python_hooks(*hooks).malloc == function)
    };
    // What wraps us (tracemalloc, the debug hooks) keeps the allocator below it at
    // the start of its context. A context need not be a pointer.
    let context = now.context as u64;
    let may_wrap =
        || context.is_multiple_of(8) && sys::is_readable(context) && sys::is_readable(context + 40);
    // SAFETY: what is readable may be looked at.
    is_ours(now.malloc)
        || may_wrap() && (0..6).any(|i| is_ours(unsafe { sys::word(context + 8 * i) }))
}

impl Interpreter {
    /// Whether this thread holds the GIL.
    fn holds_gil(&self) -> bool {
        if self.current_state == 0 || self.this_thread_state == 0 {
            return false;
        }
        // SAFETY: CPython's functions without arguments, which allocate nothing
        // and take no lock.
        unsafe {
            let current: extern "C" fn() -> u64 = core::mem::transmute(self.current_state);
            let own: extern "C" fn() -> u64 = core::mem::transmute(self.this_thread_state);
            let current = current();
            // Before 3.12 it is the state of whoever holds it.
            current != 0 && (self.minor >= 12 || current == own())
        }
    }

    /// Has the domains hooked by the main thread when it comes to the evaluator's
    /// next safe point, unless another thread that holds the GIL asks libc for
    /// memory before.
    fn hook_soon(&self) {
        let add = elf::find(c"Py_AddPendingCall");
        if add == 0 || self.is_initialized == 0 {
            return;
        }
        // SAFETY: CPython's functions of these types; the second may be called
        // by any thread, and does no more than to note our function down.
        unsafe {
            let initialized: extern "C" fn() -> i32 = core::mem::transmute(self.is_initialized);
            if initialized() != 0 {
                let add: extern "C" fn(extern "C" fn(sys::Pointer) -> i32, sys::Pointer) -> i32 =
                    core::mem::transmute(add);
                add(when_pending, null_mut());
            }
        }
    }

    /// Whether each domain leads to us: our hook is uppermost, or wrapped.
    fn are_domains_hooked(&self) -> bool {
        // SAFETY: CPython's function of this type.
        let get: extern "C" fn(u32, *mut Allocator) =
            unsafe { core::mem::transmute(self.get_allocator) };
        (0..DOMAINS).all(|domain| {
            let mut now = NO_ALLOCATOR;
            get(domain as u32, &raw mut now);
            now.malloc == 0 || is_hooked(domain, &now)
        })
    }

    fn hook_domains(&self) {
        // SAFETY: CPython's functions, which may be called before the
        // interpreter is up; while it starts, there is one thread.
        unsafe {
            let get: extern "C" fn(u32, *mut Allocator) = core::mem::transmute(self.get_allocator);
            let set: extern "C" fn(u32, *const Allocator) =
                core::mem::transmute(self.set_allocator);
            for domain in 0..DOMAINS {
                let mut now = NO_ALLOCATOR;
                get(domain as u32, &raw mut now);
                if now.malloc == 0 || is_hooked(domain, &now) {
                    continue;
                }
                let layers = [domain, domain + DOMAINS];
                let Some(hooks) = layers
                    .into_iter()
                    .find(|hooks| matches!(original(*hooks).malloc, 0) || *original(*hooks) == now)
                else {
                    continue;
                };
                (*ORIGINALS.0.get())[hooks] = now;
                let ours = Allocator {
                    context: now.context,
                    ..hooks::python_hooks(hooks)
                };
                let (start, end) = self.span;
                if !(start..end).contains(&now.malloc) {
                    PLAIN.store(0, Ordering::Relaxed);
                }
                core::sync::atomic::fence(Ordering::SeqCst);
                set(domain as u32, &raw const ours);
            }
            let has_pools = Self::has_pools() && self.hook_arenas();
            let pooled = if has_pools { LARGEST_POOLED } else { 0 };
            POOLED.store(pooled, Ordering::SeqCst);
            HANDS_ON.store(NOT_TRIED, Ordering::SeqCst);
            set_pool_limit();
            SETS_APART.store(NOT_TRIED, Ordering::Relaxed);
            self.hook_codes();
        }
    }

    /// Has the deaths of code objects told by their type's deallocator. Where that is not
    /// CPython's own, or cannot be found, the obj domain's free hook sees them.
    fn hook_codes(&self) {
        let Some(place) = self.code_deallocator() else {
            return;
        };
        let (start, end) = self.span;
        let now = place.load(Ordering::Relaxed);
        if (start..end).contains(&now) {
            CODE_DEATH.store(now, Ordering::Release);
            place.store(hooks::code_hook(), Ordering::Release);
        }
        let is_ours = place.load(Ordering::Relaxed) == hooks::code_hook();
        CODES_ARE_TOLD.store(is_ours.into(), Ordering::Relaxed);
    }

    /// Gives the type its deallocator back, unless somebody has taken our place.
    fn unhook_codes(&self) {
        CODES_ARE_TOLD.store(0, Ordering::Relaxed);
        let own = CODE_DEATH.load(Ordering::Relaxed);
        if own != 0
            && let Some(place) = self.code_deallocator()
        {
            let _ = place.compare_exchange(
                hooks::code_hook(),
                own,
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
    }

    /// `PyCode_Type.tp_dealloc`.
    fn code_deallocator(&self) -> Option<&'static AtomicU64> {
        /// The same in all versions.
        const DEALLOCATOR: u64 = 48;
        (self.code_type != 0).then(|| {
            // SAFETY: a static type of the interpreter, which is there; CPython changes its
            // types itself, so they can be written to. The word is aligned, and read by
            // CPython with the GIL held.
            unsafe { AtomicU64::from_ptr((self.code_type + DEALLOCATOR) as *mut u64) }
        })
    }

    /// Whether below our hooks of mem and obj there is CPython's allocator of small
    /// blocks: one for both (no debug hooks, which have contexts; nor malloc, which
    /// is the raw domain's as well; nor mimalloc, which has one for each).
    fn has_pools() -> bool {
        const RAW: usize = 0;
        const MEM: usize = 1;
        const OBJ: usize = 2;
        let (raw, mem, obj) = (original(RAW), original(MEM), original(OBJ));
        has_plain_domains()
            && obj.malloc != 0
            && obj == mem
            && obj.context.is_null()
            && obj.malloc != raw.malloc
            && raw.malloc != 0
            && original(OBJ + DOMAINS).malloc == 0
            && original(MEM + DOMAINS).malloc == 0
    }

    /// Hooks what gives arenas. False: it cannot be, or is not what it was.
    ///
    /// # Safety
    ///
    /// As for `hook_domains`.
    unsafe fn hook_arenas(&self) -> bool {
        if self.get_arenas == 0 || self.set_arenas == 0 {
            return false;
        }
        // SAFETY: CPython's functions of these types; they copy a table that the caller
        // may change. One that is half written is valid: the context stays what it is.
        unsafe {
            let get: extern "C" fn(*mut Arenas) = core::mem::transmute(self.get_arenas);
            let set: extern "C" fn(*const Arenas) = core::mem::transmute(self.set_arenas);
            let mut now = NO_ARENAS;
            get(&raw mut now);
            if now.allocate == hooks::arena_hook() {
                return true;
            }
            let before = *ORIGINAL_ARENAS.0.get();
            if now.allocate == 0 || before.allocate != 0 && before != now {
                return false;
            }
            *ORIGINAL_ARENAS.0.get() = now;
            let ours = Arenas {
                allocate: hooks::arena_hook(),
                ..now
            };
            core::sync::atomic::fence(Ordering::SeqCst);
            set(&raw const ours);
        }
        true
    }

    /// Gives back what gave arenas, unless somebody has taken our place.
    ///
    /// # Safety
    ///
    /// As for [`unhook`].
    unsafe fn unhook_arenas(&self) {
        POOLED.store(0, Ordering::SeqCst);
        HANDS_ON.store(NOT_TRIED, Ordering::SeqCst);
        set_pool_limit();
        if original_arenas().allocate == 0 {
            return;
        }
        // SAFETY: as in `hook_arenas`, which has looked the functions up.
        unsafe {
            let get: extern "C" fn(*mut Arenas) = core::mem::transmute(self.get_arenas);
            let set: extern "C" fn(*const Arenas) = core::mem::transmute(self.set_arenas);
            let mut now = NO_ARENAS;
            get(&raw mut now);
            if now.allocate == hooks::arena_hook() {
                set(original_arenas());
            }
        }
    }

    /// The calling thread's state, or 0.
    #[inline(always)]
    fn state(&self, holds_gil: bool, is_main: bool) -> u64 {
        // SAFETY: CPython's functions without arguments, which allocate
        // nothing and take no lock.
        unsafe {
            // Before 3.12 the first function answers for whoever holds the
            // GIL: right only in the domains that need it.
            if self.current_state != 0 && (self.minor >= 12 || holds_gil) {
                let get: extern "C" fn() -> u64 = core::mem::transmute(self.current_state);
                let state = get();
                if state != 0 || holds_gil {
                    return state;
                }
            }
            if self.this_thread_state == 0 {
                return 0;
            }
            // While the interpreter ends, the main thread frees the states of
            // threads that still run outside the GIL.
            if !is_main && self.is_finalizing != 0 {
                let finalizing: extern "C" fn() -> i32 = core::mem::transmute(self.is_finalizing);
                if finalizing() != 0 {
                    return 0;
                }
            }
            let get: extern "C" fn() -> u64 = core::mem::transmute(self.this_thread_state);
            get()
        }
    }
}

// ---------------------------------------------------------------- stacks

/// The node of this thread's Python stack.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` not `IDLE`; with `holds_gil`
/// the thread must hold the GIL.
#[inline(always)]
pub unsafe fn stack(t: *mut Thread, session: &Session, holds_gil: bool) -> u32 {
    let Some(python) = interpreter() else {
        return NO_STACK;
    };
    if STARTING.load(Ordering::Relaxed) != 0 && IS_LATE.load(Ordering::Relaxed) != 0 {
        // Until the domains are hooked the death of a code object is not seen: its
        // name would be the next one's.
        return NO_STACK;
    }
    // SAFETY: this thread's state.
    let is_main = unsafe { (*t).is_main };
    let state = python.state(holds_gil, is_main);
    if state == 0 {
        return NO_STACK;
    }
    // SAFETY: the thread's own state and frame chain (see the invariants).
    unsafe {
        let frame = python.frame_of(state);
        let fits = frame != 0 && python.fits(session, frame);
        if holds_gil && DUE.load(Ordering::Relaxed) != 0 {
            python.see_to_dues(t, session);
        }
        if !fits {
            python.watch_main(t, session, 0, 0);
            return NO_STACK;
        }
        let node = match python.recall(t, frame) {
            Some(node) => node,
            None => python.walk(t, session, frame),
        };
        if (*t).python_length == 0 {
            // Deeper than what is kept: who is outermost is not known.
            return node;
        }
        // The outermost frames were just walked or verified: they are live.
        let mut outermost = addr_of!((*t).python.frames).cast::<Frame>();
        let mut length = (*t).python_length;
        while length > 0 && (*outermost).boundary {
            outermost = outermost.add(1);
            length -= 1;
        }
        if length > 0 {
            let at = (*outermost).at;
            let code = sys::word(at + python.layout.frame_code);
            python.watch_main(t, session, code, at);
        } else {
            // From 3.15 on a thread has a base frame when nothing runs.
            python.watch_main(t, session, 0, 0);
        }
        node
    }
}

impl Interpreter {
    /// A thread's innermost frame, or 0.
    ///
    /// # Safety
    ///
    /// `state` must be 0 or the calling thread's state.
    #[inline(always)]
    unsafe fn frame_of(&self, state: u64) -> u64 {
        if state == 0 {
            return 0;
        }
        // SAFETY: the caller's.
        unsafe {
            let frame = sys::word(state + self.layout.state_frame);
            match self.layout.c_frame {
                Some(offset) if frame != 0 => sys::word(frame + offset),
                _ => frame,
            }
        }
    }

    /// Marks the instant at which the main thread is first seen outside
    /// `__main__` after it was in it: exit handlers and the teardown of
    /// modules are still to come. `code` is that of the outermost frame, which
    /// lies `at`, or 0.
    #[inline(always)]
    unsafe fn watch_main(&self, t: *mut Thread, session: &Session, code: u64, at: u64) {
        // SAFETY: this thread's state.
        unsafe {
            if (*t).outermost != code && (*t).is_main {
                self.outermost_changed(t, session, code, at);
            }
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn outermost_changed(&self, t: *mut Thread, session: &Session, code: u64, at: u64) {
        // SAFETY: this thread's state; `code` is 0 or what a live frame holds.
        unsafe {
            (*t).outermost = code;
            if (*t).in_main {
                // A greenlet's frames begin elsewhere, or it has none yet:
                // `__main__` has only been put aside, or is back.
                let is_back = code == (*t).main_code;
                let is_elsewhere = at == 0 || at != (*t).main_frame;
                if is_back || is_elsewhere && GREENLETS.load(Ordering::Relaxed) != 0 {
                    return;
                }
                (*t).in_main = false;
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::Mark, MarkKind::MainLeft as u8, 0);
                thread::emit(t, session, [word, stamp]);
                if TRACER_IS_OURS.load(Ordering::Relaxed) != 0 {
                    DUE.fetch_or(LOOK, Ordering::Relaxed);
                }
                if session.mode() & mode::GRAPH_AT_END != 0 {
                    END_IS_DUE.store(1, Ordering::Relaxed);
                    DUE.fetch_or(GRAPH, Ordering::Relaxed);
                }
            }
            // Of another main thread, in a forked child.
            MAIN_STATE.store(0, Ordering::Relaxed);
            (*t).in_main = code != 0 && self.is_main_code(code & !7);
            (*t).main_frame = at;
            (*t).main_code = code;
            if (*t).in_main && session.mode() & mode::OBJECTS != 0 {
                DUE.fetch_or(SET, Ordering::Relaxed);
            }
        }
    }

    /// Does what is due.
    ///
    /// # Safety
    ///
    /// `t` must be this thread's state, nothing being written to its ring, and the thread
    /// hold the GIL.
    #[cold]
    #[inline(never)]
    unsafe fn see_to_dues(&self, t: *mut Thread, session: &Session) {
        // SAFETY: the caller's. The child of a vfork has its parent's thread's state, and
        // leaves what is due to that.
        let due = unsafe {
            if !thread::is_own(t) {
                return;
            }
            DUE.swap(0, Ordering::Relaxed)
        };
        if due & GRAPH != 0 {
            // SAFETY: as above.
            unsafe { self.see_to_graph(t, session) };
        }
        if due & (SET | LOOK) != 0 {
            self.see_to_tracer(session, due & (SET | LOOK));
        }
    }

    /// Whether the interpreter is being taken down.
    fn is_ending(&self) -> bool {
        self.is_finalizing != 0 && {
            // SAFETY: CPython's function; it reads a flag.
            unsafe {
                let finalizing: extern "C" fn() -> i32 = core::mem::transmute(self.is_finalizing);
                finalizing() != 0
            }
        }
    }

    /// Takes the heap graph that is wanted.
    unsafe fn see_to_graph(&self, t: *mut Thread, session: &Session) {
        const ENOSYS: i32 = 38;
        // SAFETY: the caller's.
        unsafe {
            let fit = FIT.load(Ordering::Relaxed);
            if (*t).is_reallocating || fit == NOT_TRIED {
                // What holds the old block still does: not the instant to look at it. Nor is
                // one at which it is not known yet where things lie.
                DUE.fetch_or(GRAPH, Ordering::Relaxed);
                return;
            }
            let slot = session.slot();
            let wanted = slot.graph_wanted.load(Ordering::Acquire);
            if wanted != slot.graph_begun.load(Ordering::Relaxed) && wanted != 0 {
                // Whatever comes of it, it is not begun twice.
                slot.graph_error.store(0, Ordering::Relaxed);
                let taken = if fit == FITS && !self.is_ending() {
                    graph::take(t, session, Some(self), wanted)
                } else {
                    Err(ENOSYS)
                };
                let error = taken.err().unwrap_or(0);
                slot.graph_error
                    .store(error.cast_unsigned(), Ordering::Relaxed);
                // Release pairs with the collector's Acquire: it sees the error.
                slot.graph_begun.store(wanted, Ordering::Release);
            }
            if END_IS_DUE.swap(0, Ordering::Relaxed) != 0 {
                // Mostly this is early in the interpreter's end: nothing is taken down yet.
                graph::take_last(t, session, Some(self), fit == FITS);
            }
        }
    }

    /// Has CPython tell of each new object, unless it tells another tool: there
    /// is one place for one, and who is replaced does not hear of it.
    fn see_to_tracer(&self, session: &Session, due: u32) {
        if self.set_tracer == 0 || self.get_tracer == 0 {
            session.tell(
                b"this Python does not tell of objects from its free lists (3.13.3 and later do)",
            );
            return;
        }
        // SAFETY: CPython's functions of these types, and the caller holds the
        // GIL.
        unsafe {
            let get: extern "C" fn(*mut sys::Pointer) -> u64 =
                core::mem::transmute(self.get_tracer);
            let set: extern "C" fn(u64, sys::Pointer) -> i32 =
                core::mem::transmute(self.set_tracer);
            let mut data = null_mut();
            let there = get(&raw mut data);
            if due == LOOK {
                if there != hooks::reference_tracer() {
                    session.tell(
                        b"some objects from free lists have their blocks' sites: \
                          another tool (tracemalloc?) took the reference tracer",
                    );
                }
            } else if there == 0 {
                TRACER_IS_OURS.store(1, Ordering::Relaxed);
                set(hooks::reference_tracer(), null_mut());
            } else if there != hooks::reference_tracer() {
                session.tell(
                    b"objects from free lists have their blocks' sites: \
                      another tool (tracemalloc?) has the reference tracer",
                );
            }
        }
    }

    /// A script's or a command's code runs outermost; a module's (`-m`) below
    /// a function of runpy.
    unsafe fn is_main_code(&self, code: u64) -> bool {
        let mut text = [0u8; 32];
        // SAFETY: `code` is a live object.
        unsafe {
            if sys::word(code + 8) != self.code_type {
                return false;
            }
            match self.text(sys::word(code + self.layout.code_name), &mut text) {
                b"_run_module_as_main" => true,
                // The interpreter's own start-up code is frozen.
                b"<module>" => !self
                    .text(sys::word(code + self.layout.code_file), &mut text)
                    .starts_with(b"<frozen"),
                _ => false,
            }
        }
    }

    /// Whether a frame is still being set up (3.11 on): CPython itself does not
    /// show it, and what is allocated belongs to its caller.
    unsafe fn is_incomplete(&self, frame: &Frame, code: u64, offset: u64) -> bool {
        const GENERATOR: u8 = 1;
        if self.layout.index_unit != 0 {
            return false;
        }
        // `_co_firsttraceable` lies two words before the instructions, and
        // counts them in units of two bytes.
        // SAFETY: the frame and its code are live.
        unsafe {
            let first = ((code + self.layout.code_instructions - 16) as *const u32).read();
            let owner = ((frame.at + self.layout.frame_owner) as *const u8).read();
            owner != GENERATOR && (offset as i64) < i64::from(first) * 2
        }
    }

    /// Whether the first frame ever met is one, with a code object where the
    /// version says. A debug or patched build has other structures: none of
    /// its frames is read.
    #[inline(always)]
    fn fits(&self, session: &Session, frame: u64) -> bool {
        match FIT.load(Ordering::Relaxed) {
            FITS => true,
            NOT_TRIED => self.try_fit(session, frame),
            _ => false,
        }
    }

    #[cold]
    fn try_fit(&self, session: &Session, frame: u64) -> bool {
        // SAFETY: the thread's innermost frame: larger than the offsets read
        // in every build of a known version.
        let fits = unsafe {
            if self.is_boundary(frame) {
                return false;
            }
            // From 3.14 on the low bits are a tag.
            let code = sys::word(frame + self.layout.frame_code) & !7;
            code > 4096 && sys::word(code + 8) == self.code_type
        };
        FIT.store(if fits { FITS } else { DOES_NOT_FIT }, Ordering::Relaxed);
        if !fits {
            session.tell(b"this build of Python is not understood: no Python frames");
        }
        fits
    }

    #[inline(always)]
    unsafe fn instruction(&self, frame: u64) -> u64 {
        // SAFETY: `frame` is live, as the caller vouches.
        unsafe {
            let word = sys::word(frame + self.layout.frame_instruction);
            if self.layout.frame_is_entry != 0 {
                // Whether the evaluator was entered for it is compared too.
                let entry = ((frame + self.layout.frame_is_entry) as *const u8).read();
                word | u64::from(entry) << 63
            } else if self.layout.index_unit == 0 {
                word
            } else {
                // An index names no code: join it with the code's address
                // (aligned to 16, below 2^47).
                let code = sys::word(frame + self.layout.frame_code);
                (code >> 4) << 21 | u64::from(word as u32) & 0x1f_ffff
            }
        }
    }

    #[inline(always)]
    pub unsafe fn is_boundary(&self, frame: u64) -> bool {
        // SAFETY: `frame` is live, as the caller vouches.
        self.layout.frame_owner != 0
            && unsafe { ((frame + self.layout.frame_owner) as *const u8).read() }
                >= FIRST_BOUNDARY_OWNER
    }

    #[inline(always)]
    fn memo_index(at: u64, instruction: u64) -> usize {
        ((instruction ^ at.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
            & (MEMOS - 1)
    }

    /// The node of a stack that was met before, if the chain leads the same
    /// way.
    #[inline(always)]
    unsafe fn recall(&self, t: *mut Thread, innermost: u64) -> Option<u32> {
        // SAFETY: every frame read is reached from the innermost one by
        // `previous`.
        unsafe {
            let kept = addr_of!((*t).python);
            let instruction = self.instruction(innermost);
            let memo = addr_of!((*kept).memos)
                .cast::<Memo>()
                .add(Self::memo_index(innermost, instruction));
            let count = (*memo).count as usize;
            if count == 0
                || (*memo).at[0] != innermost
                || (*memo).instruction[0] != instruction
                || (*memo).generation != (*t).generation
                || (*memo).join as usize >= (*t).python_length
            {
                return None;
            }
            let frames = addr_of!((*kept).frames).cast::<Frame>();
            let join = frames.add((*memo).join as usize);
            if (*join).node != (*memo).join_node || (*join).boundary != (*memo).join_boundary {
                return None;
            }
            let mut at = innermost;
            let mut i = 1;
            while i < count.min(MEMO_FRAMES) {
                at = sys::word(at + self.layout.frame_previous);
                if at != (*memo).at[i] || self.instruction(at) != (*memo).instruction[i] {
                    return None;
                }
                i += 1;
            }
            at = sys::word(at + self.layout.frame_previous);
            if at != (*join).at || self.instruction(at) != (*join).instruction {
                return None;
            }
            (self.verify(frames, (*memo).join as usize + 1) == 0).then_some((*memo).node)
        }
    }

    /// Remembers the frames above kept frame `join`: those of the stack that
    /// was just kept, `length` frames in all.
    #[inline(always)]
    unsafe fn memorize(t: *mut Thread, join: usize, length: usize, node: u32) {
        let count = length - 1 - join;
        if count > MEMO_FRAMES {
            return;
        }
        // SAFETY: the caller's; frames up to `length` are written.
        unsafe {
            let kept = addr_of_mut!((*t).python);
            let frames = addr_of!((*kept).frames).cast::<Frame>();
            let (top, joined) = (frames.add(length - 1), frames.add(join));
            let memo = addr_of_mut!((*kept).memos)
                .cast::<Memo>()
                .add(Self::memo_index((*top).at, (*top).instruction));
            (*memo).count = count as u32;
            (*memo).generation = (*t).generation;
            (*memo).join = join as u32;
            (*memo).join_node = (*joined).node;
            (*memo).join_boundary = (*joined).boundary;
            (*memo).node = node;
            let mut i = 0;
            while i < count {
                (*memo).at[i] = (*top.sub(i)).at;
                (*memo).instruction[i] = (*top.sub(i)).instruction;
                i += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn walk(&self, t: *mut Thread, session: &Session, innermost: u64) -> u32 {
        // SAFETY: every frame read is reached from the innermost one by
        // `previous`, or is a kept one that the chain was just seen to lead
        // to.
        unsafe {
            let kept = addr_of_mut!((*t).python);
            let frames = addr_of_mut!((*kept).frames).cast::<Frame>();
            let fresh = addr_of_mut!((*kept).fresh).cast::<Frame>();
            let mut length = (*t).python_length;
            let mut at = innermost;
            let mut count = 0;
            let mut root = NO_STACK;
            loop {
                let instruction = self.instruction(at);
                // The kept frame that this one could be: the newest, or one
                // of the next if some have returned since.
                let mut candidate = length;
                let stop = length.saturating_sub(if count == 0 { 64 } else { 8 });
                while candidate > stop && (*frames.add(candidate - 1)).at != at {
                    candidate -= 1;
                }
                if candidate > stop {
                    let frame = frames.add(candidate - 1);
                    if (*frame).instruction == instruction {
                        let good = self.verify(frames, candidate);
                        length = candidate;
                        if good == 0 {
                            break;
                        }
                        // The chain leaves the kept one `good` frames out: up
                        // to there everything is fresh.
                        let bad = candidate - good;
                        let mut i = candidate;
                        let mut full = false;
                        while i > bad {
                            if count == MAX_PYTHON {
                                full = true;
                                break;
                            }
                            fresh.add(count).write(*frames.add(i - 1));
                            count += 1;
                            i -= 1;
                        }
                        let last = (*frames.add(bad)).at;
                        length = bad;
                        at = sys::word(last + self.layout.frame_previous);
                        if full {
                            root = truncated(session);
                            length = 0;
                            break;
                        }
                        if at == 0 {
                            length = 0;
                            break;
                        }
                        continue;
                    }
                    length = candidate - 1;
                }
                if count == MAX_PYTHON {
                    root = truncated(session);
                    length = 0;
                    break;
                }
                fresh.add(count).write(Frame {
                    at,
                    instruction,
                    node: 0,
                    boundary: self.is_boundary(at),
                });
                count += 1;
                at = sys::word(at + self.layout.frame_previous);
                if at == 0 {
                    length = 0;
                    break;
                }
            }
            self.append(t, session, length, count, root)
        }
    }

    /// Follows the live chain from kept frame `length - 1` outwards. 0: all
    /// kept frames are on it as they were. Else: the first `n` (innermost)
    /// are, the one before is not.
    #[inline(always)]
    unsafe fn verify(&self, frames: *const Frame, length: usize) -> usize {
        let mut i = length - 1;
        // SAFETY: frame i is live; the next one is read only after the chain
        // was seen to lead there.
        unsafe {
            loop {
                let previous = sys::word((*frames.add(i)).at + self.layout.frame_previous);
                if i == 0 {
                    return if previous == 0 { 0 } else { length };
                }
                let older = frames.add(i - 1);
                if previous != (*older).at || self.instruction(previous) != (*older).instruction {
                    return length - i;
                }
                i -= 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn append(
        &self,
        t: *mut Thread,
        session: &Session,
        mut length: usize,
        mut count: usize,
        root: u32,
    ) -> u32 {
        // SAFETY: as in `walk`.
        unsafe {
            let kept = addr_of_mut!((*t).python);
            let frames = addr_of_mut!((*kept).frames).cast::<Frame>();
            let fresh = addr_of_mut!((*kept).fresh).cast::<Frame>();
            let joined = length;
            let (mut node, mut behind_boundary) = if length > 0 {
                let frame = frames.add(length - 1);
                ((*frame).node, (*frame).boundary)
            } else {
                (root, true)
            };
            while count > 0 {
                count -= 1;
                let new = fresh.add(count);
                if !(*new).boundary {
                    let here = self.node_of(t, session, node, &*new, behind_boundary);
                    let Some(here) = here else {
                        (*t).is_incomplete = false;
                        (*t).python_length = 0;
                        return trie::fold(session);
                    };
                    node = here;
                }
                behind_boundary = (*new).boundary;
                (*new).node = node;
                if length < MAX_PYTHON {
                    frames.add(length).write(*new);
                    length += 1;
                } else {
                    // Deeper than we keep: start anew next time.
                    (*t).python_length = 0;
                    length = MAX_PYTHON;
                }
            }
            (*t).python_length = if length == MAX_PYTHON { 0 } else { length };
            if core::mem::take(&mut (*t).is_incomplete) {
                (*t).python_length = 0;
                return node;
            }
            if joined > 0 && (joined + 1..MAX_PYTHON).contains(&length) && node != NO_STACK {
                Self::memorize(t, joined - 1, length, node);
            }
            node
        }
    }

    #[inline(always)]
    unsafe fn node_of(
        &self,
        t: *mut Thread,
        session: &Session,
        parent: u32,
        frame: &Frame,
        behind_boundary: bool,
    ) -> Option<u32> {
        // SAFETY: the caller's: the frame is live.
        unsafe {
            let entry = if self.layout.frame_is_entry != 0 {
                frame.instruction >> 63 != 0
            } else {
                self.layout.frame_owner == 0 || behind_boundary
            };
            // Instructions are aligned to two bytes, or have the top bit set
            // and are entries all.
            let key = if self.layout.index_unit == 0 {
                frame.instruction << 1 | u64::from(entry)
            } else {
                frame.instruction
            };
            let key = key | 1 << 63;
            let place = parent | unwind::mark(t);
            if let Some(node) = unwind::cached(t, place, key) {
                return Some(node);
            }
            let node = self.intern(t, session, parent, frame, entry)?;
            if node == NO_STACK {
                (*t).is_incomplete = true;
            } else if node != parent {
                unwind::remember(t, place, key, node);
            }
            Some(node)
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn intern(
        &self,
        t: *mut Thread,
        session: &Session,
        parent: u32,
        frame: &Frame,
        entry: bool,
    ) -> Option<u32> {
        // SAFETY: the frame is live, so its code is.
        unsafe {
            let code = sys::word(frame.at + self.layout.frame_code) & !7;
            if code == 0 || (self.code_type != 0 && sys::word(code + 8) != self.code_type) {
                return Some(parent);
            }
            let id = self.code_id(t, session, code);
            if id == 0 {
                // There is no room just now: the frame is left out, and not
                // kept as if it were not there.
                (*t).is_incomplete = true;
                return Some(parent);
            }
            let offset = if self.layout.index_unit == 0 {
                (frame.instruction & !(1 << 63)).wrapping_sub(code + self.layout.code_instructions)
            } else {
                (frame.instruction & 0x1f_ffff) * self.layout.index_unit
            };
            if self.is_incomplete(frame, code, offset) {
                return Some(parent);
            }
            // Before the first instruction the index is -1 or below.
            let offset = if offset < 1 << 24 { offset as u32 } else { 0 };
            let node_kind = if entry {
                kind::PYTHON_ENTRY
            } else {
                kind::PYTHON
            };
            trie::intern(session, parent, node_kind, python_frame(id, offset))
        }
    }
}

#[cold]
fn truncated(session: &Session) -> u32 {
    session
        .slot()
        .truncated_stacks
        .fetch_add(1, Ordering::Relaxed);
    trie::root(session, kind::TRUNCATED)
}

// ---------------------------------------------------------------- codes

const CODES: usize = 1 << 17;

/// A code object that was seen on a stack. `address` is a code object's or one
/// of [`code`].
///
/// A code object may be here twice, see [`Interpreter::code_id`]; all its
/// entries lie before the first that was never used.
struct Code {
    address: AtomicU64,
    id: AtomicU32,
}

/// Addresses of [`Code`] that are no code object's.
mod code {
    /// The entry was never used.
    pub const NEVER: u64 = 0;
    /// Its code object died.
    pub const DEAD: u64 = 1;
    /// A thread is writing it.
    pub const WRITING: u64 = 2;
}

struct Codes(UnsafeCell<*mut Code>);
// SAFETY: written once, while the session starts; the words are atomic.
unsafe impl Sync for Codes {}
static CODE_TABLE: Codes = Codes(UnsafeCell::new(null_mut()));
static NEXT_CODE: AtomicU32 = AtomicU32::new(1);
/// A bit for each hash of a code object's address: a free that meets no bit
/// frees no code.
static FILTER: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

/// Gets memory for the table. False when there is none.
pub fn set_up() -> bool {
    // SAFETY: as below.
    if unsafe { !(*CODE_TABLE.0.get()).is_null() } {
        return true;
    }
    let Some(memory) = sys::map_private(CODES * size_of::<Code>()) else {
        return false;
    };
    // SAFETY: the session is being started: nobody else looks.
    unsafe { *CODE_TABLE.0.get() = memory.cast() };
    true
}

/// Forgets every code object and the interpreter, for a new session. No hook may
/// be at work.
pub fn begin_anew() {
    // SAFETY: the caller's; 0 is an entry that was never used.
    let table = unsafe { *CODE_TABLE.0.get() };
    if !table.is_null() {
        sys::empty(table.cast(), CODES * size_of::<Code>());
    }
    NEXT_CODE.store(1, Ordering::Relaxed);
    for word in &FILTER {
        word.store(0, Ordering::Relaxed);
    }
    for word in [
        &READY,
        &REFUSED,
        &STARTING,
        &DUE,
        &END_IS_DUE,
        &TRACER_IS_OURS,
    ] {
        word.store(0, Ordering::Relaxed);
    }
}

/// Code ids handed out so far.
pub fn code_count() -> u32 {
    NEXT_CODE.load(Ordering::Relaxed)
}

#[inline(always)]
fn hash(address: u64) -> usize {
    ((address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

fn probe(address: u64, mut visit: impl FnMut(&Code) -> bool) {
    let start = hash(address) << 1;
    for i in 0..64 {
        // SAFETY: set up before any hook records; the index is below CODES.
        let code = unsafe { &*(*CODE_TABLE.0.get()).add((start + i) & (CODES - 1)) };
        if visit(code) {
            return;
        }
    }
}

/// Where [`died`] goes on that was told by a code object's type.
pub fn original_code_death() -> u64 {
    CODE_DEATH.load(Ordering::Acquire)
}

/// Is told of every block that the obj domain frees, by threads that sample of those that
/// [`sampling::watch`] was told of; not all are where code objects are told of by their type.
#[inline(always)]
pub fn perhaps_code_died(address: u64) {
    if CODES_ARE_TOLD.load(Ordering::Relaxed) == 0 {
        died(address);
    }
}

/// A code object may be about to die.
#[inline(always)]
pub fn died(address: u64) {
    let bit = hash(address);
    if FILTER[bit >> 6].load(Ordering::Relaxed) & 1 << (bit & 63) != 0 {
        code_died(address);
    }
}

#[cold]
#[inline(never)]
fn code_died(address: u64) {
    probe(address, |code| {
        let here = code.address.load(Ordering::Relaxed);
        if here == address {
            code.address.store(code::DEAD, Ordering::Release);
            // Caches name frames by instruction: those of this code are void.
            FLUSH.fetch_add(CODE_DIED, Ordering::Release);
        }
        // Not only the first: two threads may have placed it.
        here == code::NEVER
    });
}

impl Interpreter {
    /// The id of a code object; tells the collector of a new one. 0 when there
    /// are too many.
    unsafe fn code_id(&self, t: *mut Thread, session: &Session, address: u64) -> u32 {
        let mut id = 0;
        probe(address, |code| {
            let here = code.address.load(Ordering::Acquire);
            if here == address {
                id = code.id.load(Ordering::Acquire);
                return true;
            }
            here == code::NEVER
        });
        if id != 0 {
            return id;
        }
        // Two threads may both get here without the GIL: then the code has two
        // ids with the same meaning.
        let id = NEXT_CODE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's: the code object is live.
        if !unsafe { self.define(t, session, address, id) } {
            return 0;
        }
        let mut placed = false;
        probe(address, |code| {
            let here = code.address.load(Ordering::Relaxed);
            if here == address {
                // By the other thread: its id is as good.
                placed = true;
                return true;
            }
            if here != code::NEVER && here != code::DEAD {
                return false;
            }
            // One writer: what it found becomes `WRITING` only once. The id
            // first: whoever sees the address (Acquire) sees the id.
            if code
                .address
                .compare_exchange(here, code::WRITING, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                code.id.store(id, Ordering::Relaxed);
                code.address.store(address, Ordering::Release);
                placed = true;
            }
            placed
        });
        let bit = hash(address);
        FILTER[bit >> 6].fetch_or(1 << (bit & 63), Ordering::Relaxed);
        if CODES_ARE_TOLD.load(Ordering::Relaxed) == 0 {
            sampling::watch(address);
        }
        if !placed {
            // No room to watch for its death: nothing of it may be cached.
            FLUSH.fetch_add(CODE_DIED, Ordering::Release);
        }
        id
    }

    unsafe fn define(&self, t: *mut Thread, session: &Session, code: u64, id: u32) -> bool {
        let layout = &self.layout;
        // SAFETY: the code object is live, and so are its strings and its line
        // table (immutable bytes); the scratch room is this thread's, and
        // nothing called from here uses it.
        unsafe {
            let buffer = &mut *addr_of_mut!((*t).scratch);
            let (texts, buffer) = buffer.split_at_mut(8 * 1024);
            let (first, second) = texts.split_at_mut(4 * 1024);
            let file = self.text(sys::word(code + layout.code_file), first);
            let name = self.text(sys::word(code + layout.code_name), second);
            let lines = sys::word(code + layout.code_lines);
            let lines = if lines == 0 {
                &[]
            } else {
                let length = sys::word(lines + 16) as usize;
                core::slice::from_raw_parts((lines + 32) as *const u8, length)
            };
            // A table too long for the buffer is left out: the lines of that
            // one code object are its first line.
            let lines = if lines.len() > 40 * 1024 {
                &lines[..0]
            } else {
                lines
            };
            let first_line = ((code + layout.code_first_line) as *const u32).read();
            let mut out = Encoder::new(buffer);
            CodeDef {
                line_format: layout.line_format,
                first_line,
                file,
                name,
                lines,
            }
            .encode(&mut out);
            let length = out.needed().min(buffer.len());
            let was = thread::get_depth(t);
            thread::set_depth(t, depth::HOOK);
            let told = thread::emit_blob(t, session, BlobKind::Code, id, &buffer[..length]);
            thread::set_depth(t, was);
            told
        }
    }

    /// A string object as UTF-8, cut to the buffer.
    pub unsafe fn text<'a>(&self, object: u64, buffer: &'a mut [u8]) -> &'a [u8] {
        if object == 0 {
            return b"?";
        }
        // SAFETY: a live, compact string object (names and file names are).
        unsafe {
            let length = sys::word(object + 16) as usize;
            let state = ((object + 32) as *const u32).read();
            let (character_kind, compact, ascii) = (state >> 2 & 7, state >> 5 & 1, state >> 6 & 1);
            if compact == 0 {
                return b"?";
            }
            let data = object
                + if ascii != 0 {
                    self.layout.text_ascii
                } else {
                    self.layout.text_other
                };
            let mut end = 0;
            for i in 0..length {
                let character = match character_kind {
                    1 => u32::from((data as *const u8).add(i).read()),
                    2 => u32::from((data as *const u16).add(i).read()),
                    _ => (data as *const u32).add(i).read(),
                };
                // Surrogates stand for bytes that are not UTF-8 in a path.
                let character = char::from_u32(character).unwrap_or('\u{fffd}');
                let bytes = character.len_utf8();
                let Some(place) = buffer.get_mut(end..end + bytes) else {
                    break;
                };
                character.encode_utf8(place);
                end += bytes;
            }
            &buffer[..end]
        }
    }
}
