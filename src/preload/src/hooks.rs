//! Every function that the interposer exports, in one list, and what happens
//! in them.
//!
//! An exported function is three instructions, but for those that leave blocks
//! out: it hands its stack pointer (the slot of its return address) and the
//! caller's rbp to the hook behind it as further arguments, so that no frame of
//! ours is ever unwound. The compiler never sees a function called `malloc`,
//! about which it has ideas of its own.
//!
//! # Rules
//!
//! * Nothing is allocated, no lock is taken, `errno` is left alone.
//! * A death is recorded *before* the real call: once the block is back,
//!   another thread may be handed its address and record the birth first. A
//!   birth is recorded *after* the real call.
//! * A hook entered while a hook of its thread is at work: below Python's own
//!   allocator it passes through (the block above is the one that counts);
//!   otherwise it is a signal handler's, and goes to the side ring.

use core::arch::naked_asm;
use core::ffi::CStr;
use core::mem::offset_of;
use core::ptr::addr_of_mut;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use leakline_wire::Domain;
use leakline_wire::event::{self, BlobKind, Kind, MarkKind};
use leakline_wire::layout::mode;
use leakline_wire::sampling::{CELL_SHIFT, CELLS};
use leakline_wire::trie::{NO_STACK, kind};

use crate::python::{self, Allocator};
use crate::real::{self, Real};
use crate::session::{self, Session};
use crate::thread::{self, PAIRS, Pair, Thread, depth};
use crate::{early, graph, modules, sampling, sys, trie, unwind};

type Block = *mut u8;

// ---------------------------------------------------------------- exports

macro_rules! export {
    ($($(#[$doc:meta])* $name:ident($stack:literal, $frame:literal) => $hook:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As for the function of that name.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                concat!("mov ", $stack, ", rsp"),
                concat!("mov ", $frame, ", rbp"),
                "jmp {hook}",
                ".cfi_endproc",
                hook = sym $hook,
            )
        }
    )*};
}

export! {
    /// `calloc(3)`, observed.
    calloc("rdx", "rcx") => on_calloc;
    /// `reallocarray(3)`, observed.
    reallocarray("rcx", "r8") => on_reallocarray;
    /// `cfree`, observed (gone from glibc 2.26, alive in old binaries).
    cfree("rsi", "rdx") => on_cfree;
    /// `free_sized` (C23), observed.
    free_sized("rdx", "rcx") => on_free_sized;
    /// `free_aligned_sized` (C23), observed.
    free_aligned_sized("rcx", "r8") => on_free_aligned_sized;
    /// `posix_memalign(3)`, observed.
    posix_memalign("rcx", "r8") => on_posix_memalign;
    /// `aligned_alloc(3)`, observed.
    aligned_alloc("rdx", "rcx") => on_aligned_alloc;
    /// `memalign(3)`, observed.
    memalign("rdx", "rcx") => on_memalign;
    /// `valloc(3)`, observed.
    valloc("rsi", "rdx") => on_valloc;
    /// `pvalloc(3)`, observed.
    pvalloc("rsi", "rdx") => on_pvalloc;
    /// `munmap(2)`, observed.
    munmap("rdx", "rcx") => on_munmap;
    /// `pthread_getattr_np(3)`: has the thread adopted first. It allocates
    /// while it holds the thread's own lock, which adoption takes.
    pthread_getattr_np("rdx", "rcx") => on_getattr;
    /// `dlclose(3)`, observed: unloaded code's addresses may be used again.
    dlclose("rsi", "rdx") => on_dlclose;
    /// `exit(3)`: marks the instant before exit handlers run.
    exit("rsi", "rdx") => on_exit;
    /// `quick_exit(3)`: as `exit`.
    quick_exit("rsi", "rdx") => on_quick_exit;
    /// `_exit(2)`: as `exit`.
    _exit("rsi", "rdx") => on_exit_at_once;
    /// `_Exit(3)`: as `exit`.
    _Exit("rsi", "rdx") => on_exit_at_once;
}

// -------------------------------------------------------------- leaving out

// In sampled mode nearly all blocks are left out. `malloc`, `free` and what CPython
// calls for its objects see for themselves that a block is, and are the real function
// then; in all other cases they change nothing, and the hook decides.
//
// * A birth: the thread rests and its countdown does not end, which the word in its
//   thread-local storage tells, blocks may be left out at all, and the real function
//   calls no hook.
// * A death: the filter of sampled blocks denies the block. It denies none that was
//   recorded, whatever the thread is at and was told of the mode, see `sampling`.
//
// A handler that comes between a subtraction and its addition makes the countdown
// negative, or leaves it so: that is an end, too (`Countdown::passes`).

/// To `2` where the filter does not deny the block in this register, of which the lower
/// half tells.
macro_rules! denied {
    ($block:literal) => {
        concat!(
            "mov rax, qword ptr [rip + {filter}]\n",
            "test rax, rax\n",
            "je 2f\n",
            concat!("mov ecx, ", $block, "\n"),
            "shr ecx, {shift}\n",
            "movzx ecx, cx\n",
            "cmp byte ptr [rax + rcx], 0\n",
            "jne 2f",
        )
    };
}

const _: () = assert!(CELLS == 1 << 16 && CELL_SHIFT <= 16);

/// `malloc(3)`, observed.
///
/// # Safety
///
/// As for the function of that name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn malloc() {
    naked_asm!(
        ".cfi_startproc",
        "cmp dword ptr [rip + {leaves_out}], 0",
        "je 2f",
        "cmp dword ptr [rip + {starting}], 0",
        "jne 2f",
        "cmp dword ptr [rip + {is_libc}], 0",
        "je 2f",
        "mov rax, qword ptr [rip + {word}]",
        "lea rdx, [rdi + 1]",
        "sub qword ptr fs:[rax], rdx",
        // More than there is, or than can be.
        "jb 3f",
        "js 3f",
        "jmp qword ptr [rip + {reals} + {malloc}]",
        "3:",
        "add qword ptr fs:[rax], rdx",
        "2:",
        "mov rsi, rsp",
        "mov rdx, rbp",
        "jmp {hook}",
        ".cfi_endproc",
        leaves_out = sym sampling::LEAVES_OUT,
        word = sym thread::UNTIL,
        starting = sym python::STARTING,
        is_libc = sym real::IS_LIBC,
        reals = sym real::REALS,
        malloc = const Real::malloc as usize * size_of::<u64>(),
        hook = sym on_malloc,
    )
}

/// `free(3)`, observed.
///
/// # Safety
///
/// As for the function of that name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn free() {
    naked_asm!(
        ".cfi_startproc",
        denied!("edi"),
        "jmp qword ptr [rip + {reals} + {free}]",
        "2:",
        "mov rsi, rsp",
        "mov rdx, rbp",
        "jmp {hook}",
        ".cfi_endproc",
        filter = sym sampling::FILTER,
        shift = const CELL_SHIFT,
        reals = sym real::REALS,
        free = const Real::free as usize * size_of::<u64>(),
        hook = sym on_free,
    )
}

/// `realloc(3)`, observed.
///
/// # Safety
///
/// As for the function of that name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn realloc() {
    naked_asm!(
        ".cfi_startproc",
        "cmp dword ptr [rip + {leaves_out}], 0",
        "je 2f",
        "cmp dword ptr [rip + {starting}], 0",
        "jne 2f",
        "cmp dword ptr [rip + {is_libc}], 0",
        "je 2f",
        // A birth, or a death.
        "test rdi, rdi",
        "je 2f",
        "test rsi, rsi",
        "je 2f",
        denied!("edi"),
        "mov rax, qword ptr [rip + {word}]",
        "lea rcx, [rsi + 1]",
        "sub qword ptr fs:[rax], rcx",
        "jb 3f",
        "js 3f",
        "jmp qword ptr [rip + {reals} + {realloc}]",
        "3:",
        "add qword ptr fs:[rax], rcx",
        "2:",
        "mov rdx, rsp",
        "mov rcx, rbp",
        "jmp {hook}",
        ".cfi_endproc",
        leaves_out = sym sampling::LEAVES_OUT,
        word = sym thread::UNTIL,
        starting = sym python::STARTING,
        is_libc = sym real::IS_LIBC,
        filter = sym sampling::FILTER,
        shift = const CELL_SHIFT,
        reals = sym real::REALS,
        realloc = const Real::realloc as usize * size_of::<u64>(),
        hook = sym on_realloc,
    )
}

macro_rules! export_mmap {
    ($($name:ident => $hook:ident;)*) => {$(
        /// `mmap(2)`, observed. All six argument registers are taken: ours go
        /// on the stack.
        ///
        /// # Safety
        ///
        /// As for the function of that name.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "mov rax, rsp",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                "push rax",
                ".cfi_adjust_cfa_offset 8",
                "call {hook}",
                "add rsp, 24",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_endproc",
                hook = sym $hook,
            )
        }
    )*};
}

export_mmap! {
    mmap => on_mmap;
    mmap64 => on_mmap;
}

/// `mremap(2)`, observed. Its fifth argument is optional: handed on as it
/// came.
///
/// # Safety
///
/// As for the function of that name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn mremap() {
    naked_asm!(
        ".cfi_startproc",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "lea r9, [rsp + 8]",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        "call {hook}",
        "add rsp, 24",
        ".cfi_adjust_cfa_offset -24",
        "ret",
        ".cfi_endproc",
        hook = sym on_mremap,
    )
}

/// How many there are of [`observed`].
pub const OBSERVED: usize = 23;

/// What the objects of a program that was running before us are redirected to:
/// name and function. (`__libc_start_main` was called long ago.)
pub fn observed() -> &'static [(&'static CStr, unsafe extern "C" fn()); OBSERVED] {
    &FUNCTIONS
}

static FUNCTIONS: [(&CStr, unsafe extern "C" fn()); OBSERVED] = [
    (c"malloc", malloc),
    (c"calloc", calloc),
    (c"realloc", realloc),
    (c"reallocarray", reallocarray),
    (c"free", free),
    (c"cfree", cfree),
    (c"free_sized", free_sized),
    (c"free_aligned_sized", free_aligned_sized),
    (c"posix_memalign", posix_memalign),
    (c"aligned_alloc", aligned_alloc),
    (c"memalign", memalign),
    (c"valloc", valloc),
    (c"pvalloc", pvalloc),
    (c"mmap", mmap),
    (c"mmap64", mmap64),
    (c"munmap", munmap),
    (c"mremap", mremap),
    (c"pthread_getattr_np", pthread_getattr_np),
    (c"dlclose", dlclose),
    (c"exit", exit),
    (c"quick_exit", quick_exit),
    (c"_exit", _exit),
    (c"_Exit", _Exit),
];

// ---------------------------------------------------------------- entering

/// Where a hook finds itself.
enum Entry {
    /// Record.
    Record(*mut Thread, &'static Session),
    /// In a signal handler that interrupted a hook of this thread: record
    /// aside.
    Nested(*mut Thread, &'static Session),
    /// The thread samples: nothing was looked at but that.
    Sampling(*mut Thread),
    /// Pass through.
    Pass,
}

/// What a hook looks at first: in sampled mode that is all, and the hook ends
/// before any register has to be saved for the rest of it.
#[derive(Clone, Copy)]
struct Arrival {
    t: *mut Thread,
    /// `QUIET` without a thread: the slow path looks again.
    depth: u32,
}

impl Arrival {
    #[inline(always)]
    fn new() -> Self {
        let t = thread::current();
        let depth = if t.is_null() {
            depth::QUIET
        } else {
            // SAFETY: a word that is not null is this thread's state.
            unsafe { thread::get_depth(t) }
        };
        Arrival { t, depth }
    }

    /// The thread samples, and nothing is at work on it.
    #[inline(always)]
    fn is_sampling(self) -> bool {
        self.depth == depth::SAMPLING
    }

    /// What Python's allocator asks for a block that is not from a pool: part of a block
    /// that a hook of Python's is at work for.
    #[inline(always)]
    fn is_below_python(self, sp: u64) -> bool {
        // SAFETY: this thread's state; `sp` is an exported function's.
        self.depth == depth::PYTHON && unsafe { thread::is_below_python(self.t, sp) }
    }
}

/// The fast path: adopted, idle, alive, switched on.
#[inline(always)]
fn enter(at: Arrival, needed: u32, sp: u64) -> Entry {
    if at.depth == depth::IDLE {
        let session = session::joined();
        // First it is said that a hook is at work, then it is looked whether there
        // is a session: who ends one looks in the other order.
        // SAFETY: the state of this thread, which has one.
        unsafe { thread::arrive(at.t, sp) };
        if session.is_alive() && session.mode() & (needed | mode::SAMPLED) == needed {
            sampling::note_exact();
            return Entry::Record(at.t, session);
        }
        // SAFETY: as above.
        unsafe { thread::set_depth(at.t, depth::IDLE) };
    }
    enter_slowly(needed, sp)
}

/// As [`enter`], for what is recorded in sampled mode too, each time.
fn enter_exactly(needed: u32, sp: u64) -> Entry {
    match enter(Arrival::new(), needed, sp) {
        // SAFETY: this thread's state, at rest.
        Entry::Sampling(t) => match unsafe { recording(t, needed, sp) } {
            Some(session) => Entry::Record(t, session),
            None => Entry::Pass,
        },
        entry => entry,
    }
}

/// What [`enter`] leaves out of a thread that samples: whether this process
/// records what is `needed`. If so the thread is at `BEGINNING`.
///
/// # Safety
///
/// `t` must be this thread's state, and no hook of it be at work.
unsafe fn recording(t: *mut Thread, needed: u32, sp: u64) -> Option<&'static Session> {
    // SAFETY: the caller's.
    unsafe {
        // What it may lead to (an invitation) wants this thread at rest.
        let found = session::get()?;
        thread::arrive(t, sp);
        (*t).countdown.hold();
        let session = Some(found).filter(|session| {
            if !session::is_joined() {
                return false;
            }
            if session.shall_leave() {
                leave(session);
                return false;
            }
            (session.is_alive() || session.child()) && session.mode() & needed == needed
        });
        if session.is_none() {
            thread::set_depth(t, depth::SAMPLING);
            (*t).countdown.let_go();
        }
        session
    }
}

/// Threads without a state that may be looking at the session.
static NEWCOMERS: AtomicU32 = AtomicU32::new(0);

/// One of them, as long as this lives.
pub struct Newcomer;

impl Newcomer {
    pub fn new() -> Newcomer {
        NEWCOMERS.fetch_add(1, Ordering::SeqCst);
        Newcomer
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // Not below 0: in a forked child they are counted anew.
        let _ = NEWCOMERS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            count.checked_sub(1)
        });
    }
}

/// Whether no thread looks at the session, or could: see [`thread::are_idle`].
pub fn are_idle() -> bool {
    NEWCOMERS.load(Ordering::SeqCst) == 0 && thread::are_idle(core::ptr::null_mut())
}

/// The same of all threads but this one, which may have come without a state.
pub fn are_idle_but_this() -> bool {
    let t = thread::current();
    let own = u32::from(t.is_null() && IS_NEWCOMER_LEAVING.load(Ordering::Relaxed) != 0);
    NEWCOMERS.load(Ordering::SeqCst) == own && thread::are_idle(t)
}

/// 1 while a newcomer is the one that leaves.
static IS_NEWCOMER_LEAVING: AtomicU32 = AtomicU32::new(0);

#[cold]
#[inline(never)]
fn enter_slowly(needed: u32, sp: u64) -> Entry {
    let t = thread::current();
    // What Python's allocator asks for a block that is not from a pool.
    // SAFETY: this thread's state; `sp` is an exported function's.
    if !t.is_null() && unsafe { thread::is_below_python(t, sp) } {
        return Entry::Pass;
    }
    let Some(session) = session::get() else {
        return Entry::Pass;
    };
    if t.is_null() {
        return enter_first(session, needed, sp);
    }
    // SAFETY: this thread's state; `sp` is an exported function's.
    unsafe {
        let mut now = thread::get_depth(t);
        if !matches!(now, depth::IDLE | depth::SAMPLING) {
            if !session.is_alive() && !session.child() || session.mode() & needed != needed {
                return Entry::Pass;
            }
            if thread::was_abandoned(t, sp) {
                now = depth::IDLE;
            }
        }
        match now {
            depth::IDLE | depth::SAMPLING => enter_at_rest(t, needed, sp),
            depth::PYTHON | depth::QUIET => Entry::Pass,
            _ => Entry::Nested(t, session),
        }
    }
}

/// [`enter_slowly`] of a thread that has no state.
#[cold]
fn enter_first(session: &'static Session, needed: u32, sp: u64) -> Entry {
    let newcomer = Newcomer::new();
    let mut t = core::ptr::null_mut();
    if session::is_joined() && session.shall_leave() {
        IS_NEWCOMER_LEAVING.store(1, Ordering::Relaxed);
        session.leave();
        IS_NEWCOMER_LEAVING.store(0, Ordering::Relaxed);
    } else if session::is_joined()
        && (session.is_alive() || session.child())
        && session.mode() & needed == needed
    {
        t = thread::adopt(session);
        if t.is_null() {
            session.count_loss(true);
        }
    }
    drop(newcomer);
    if t.is_null() {
        return Entry::Pass;
    }
    // SAFETY: this thread's state, just adopted.
    unsafe { enter_at_rest(t, needed, sp) }
}

/// Records, if there is a session and it records what is `needed`.
///
/// # Safety
///
/// `t` must be this thread's state, at rest; `sp` an exported function's.
unsafe fn enter_at_rest(t: *mut Thread, needed: u32, sp: u64) -> Entry {
    // SAFETY: the caller's.
    unsafe {
        thread::arrive(t, sp);
        let session = session::joined();
        if session::is_joined() && session.shall_leave() {
            leave(session);
        }
        let is_there = session::is_joined() && (session.is_alive() || session.child());
        let mode = if is_there { session.mode() } else { 0 };
        if mode & needed != needed {
            thread::set_depth(t, depth::IDLE);
            return Entry::Pass;
        }
        if mode & mode::SAMPLED == 0 {
            sampling::note_exact();
            return Entry::Record(t, session);
        }
        sampling::note_sampled();
        if !(*t).countdown.prepare(session, sampling::looks(t)) {
            session.count_loss(true);
            thread::set_depth(t, depth::IDLE);
            return Entry::Pass;
        }
        thread::set_depth(t, depth::SAMPLING);
        (*t).countdown.let_go();
        Entry::Sampling(t)
    }
}

/// The session is over before the program: see [`Session::leave`].
#[cold]
#[inline(never)]
fn leave(session: &Session) {
    let t = thread::current();
    if t.is_null() {
        return;
    }
    // SAFETY: this thread's state.
    unsafe {
        let was = thread::get_depth(t);
        // Not from a signal handler that interrupted a hook of ours.
        if matches!(was, depth::IDLE | depth::SAMPLING | depth::BEGINNING) {
            thread::set_depth(t, depth::QUIET);
            session.leave();
            thread::set_depth(t, was);
        }
    }
}

const NATIVE: u32 = mode::ON | mode::NATIVE;
const PYTHON: u32 = mode::ON | mode::PYTHON;

// ---------------------------------------------------------------- recording

/// Where an observed function was called from.
#[derive(Clone, Copy)]
struct Caller {
    /// The slot of the return address.
    sp: u64,
    /// The caller's rbp.
    bp: u64,
}

/// The node of this instant's stacks.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` `HOOK`; `caller` that of a
/// hook that has not returned.
#[inline(always)]
unsafe fn capture(t: *mut Thread, session: &Session, caller: Caller, holds_gil: bool) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        unwind::check_flush(t);
        let mode = session.mode();
        let native = if mode & mode::NATIVE_STACKS != 0 {
            unwind::stack(t, session, caller.sp, caller.bp)
        } else {
            NO_STACK
        };
        let python = if mode & mode::PYTHON != 0 {
            python::stack(t, session, holds_gil)
        } else {
            NO_STACK
        };
        if python == NO_STACK {
            return native;
        }
        let recent = addr_of_mut!((*t).pairs)
            .cast::<Pair>()
            .add(native as usize % PAIRS);
        if (*recent).native == native && (*recent).python == python && (*recent).node != 0 {
            return (*recent).node;
        }
        let key = 1 << 62 | u64::from(python);
        let pair = if let Some(node) = unwind::cached(t, native, key) {
            node
        } else {
            let Some(node) = trie::intern(session, native, kind::PAIR, python.into()) else {
                return trie::fold(session);
            };
            unwind::remember(t, native, key, node);
            node
        };
        recent.write(Pair {
            native,
            python,
            node: pair,
        });
        pair
    }
}

/// Records a birth.
///
/// # Safety
///
/// As for [`capture`].
#[inline(always)]
unsafe fn born(
    t: *mut Thread,
    session: &Session,
    kinds: (Kind, Kind),
    domain: Domain,
    block: Block,
    size: usize,
    caller: Caller,
) {
    let is_known = matches!(kinds.0, Kind::ReallocEnd);
    if !is_known && session.mode() & mode::no_births(domain) != 0 {
        // SAFETY: the caller's.
        return unsafe { pass_by(t, session, domain, caller) };
    }
    // SAFETY: the caller's.
    unsafe {
        let holds_gil = matches!(domain, Domain::Mem | Domain::Obj);
        if (*t).asks_bounds {
            thread::ask_for_bounds(t, session, caller.sp);
        }
        let stack = u64::from(capture(t, session, caller, holds_gil));
        let stamp = thread::stamp(t, session);
        let address = block as u64;
        if matches!(domain, Domain::Obj) {
            (*t).newest_object = address;
        }
        let recorded = if u32::try_from(size).is_ok() {
            let word = event::head(kinds.0, domain as u8, address);
            thread::emit(t, session, [word, stamp, (size as u64) << 32 | stack])
        } else {
            let word = event::head(kinds.1, domain as u8, address);
            thread::emit(t, session, [word, stamp, stack, size as u64])
        };
        modules::look(t, session, stamp);
        if !recorded {
            session
                .slot()
                .lost_bytes
                .fetch_add(size as u64, Ordering::Relaxed);
        }
    }
}

/// What is done at a birth that its domain keeps from being told of: heap graphs are taken,
/// and libraries found whose calls are to be redirected, as at any other.
///
/// # Safety
///
/// As for [`capture`].
#[cold]
#[inline(never)]
unsafe fn pass_by(t: *mut Thread, session: &Session, domain: Domain, caller: Caller) {
    /// About a millisecond, whichever clock stamps are of.
    const EVERY: u64 = 1 << 20;
    /// When it was last looked whether a graph is wanted, which may ask the kernel.
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    // SAFETY: the caller's.
    unsafe {
        let stamp = thread::stamp(t, session);
        if stamp.wrapping_sub(LOOKED.load(Ordering::Relaxed)) > EVERY {
            LOOKED.store(stamp, Ordering::Relaxed);
            python::look_for_graph(session);
        }
        if python::is_graph_due() {
            let holds_gil = matches!(domain, Domain::Mem | Domain::Obj);
            capture(t, session, caller, holds_gil);
        }
        modules::look(t, session, stamp);
    }
}

const BIRTH: (Kind, Kind) = (Kind::Alloc, Kind::AllocLarge);
const REBIRTH: (Kind, Kind) = (Kind::ReallocEnd, Kind::ReallocEndLarge);

/// Runs a real function that gives a block, and records the birth.
#[inline(always)]
fn observe(size: usize, caller: Caller, call: impl FnOnce(usize) -> Block) -> Block {
    let at = Arrival::new();
    if at.is_sampling() {
        if count(size) {
            return sample_of(size, caller, at.t, call);
        }
        if real::is_libc() && !python::is_starting() {
            return call(size);
        }
        leave_out(size, caller, at.t, call)
    } else if at.is_below_python(caller.sp) || at.t.is_null() && session::is_waiting() {
        call(size)
    } else {
        observe_at(size, caller, at, call)
    }
}

// The arguments stay in the registers that the hook has them in, and where nothing
// is to be done after the real call the hook ends with it.

/// [`observe`] of a block that ended a countdown.
#[cold]
#[inline(never)]
fn sample_of(
    size: usize,
    caller: Caller,
    t: *mut Thread,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: as in `observe`.
    let block = unsafe { sample(t, NATIVE_CALL, size, caller, call) };
    python::watch_start();
    block
}

/// [`observe`] of a block that is not sampled, where the real function may call other
/// hooks for it.
#[inline(never)]
fn leave_out(
    size: usize,
    caller: Caller,
    t: *mut Thread,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: as in `observe`.
    let block = unsafe { pass_below(t, NATIVE_CALL, caller, || call(size)) };
    python::watch_start();
    block
}

#[inline(never)]
fn observe_at(
    size: usize,
    caller: Caller,
    at: Arrival,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    let call = || call(size);
    match enter(at, NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the exported
            // function's.
            unsafe {
                thread::proceed(t, depth::NATIVE, caller.sp);
                let block = call();
                if !block.is_null() {
                    thread::set_depth(t, depth::HOOK);
                    born(t, session, BIRTH, Domain::Native, block, size, caller);
                }
                python::watch_start();
                thread::set_depth(t, depth::IDLE);
                block
            }
        }
        // SAFETY: this thread's resting state; `sp` is the exported function's.
        Entry::Sampling(t) => unsafe {
            let block = perhaps_sample(t, NATIVE_CALL, size, caller, |_| call());
            python::watch_start();
            block
        },
        Entry::Nested(t, session) => {
            let block = call();
            if !block.is_null() {
                // SAFETY: this thread's state, in a handler.
                unsafe { born_nested(t, session, block, size) };
            }
            block
        }
        Entry::Pass => {
            python::watch_start();
            call()
        }
    }
}

unsafe fn born_nested(t: *mut Thread, session: &Session, block: Block, size: usize) {
    if session.mode() & mode::SAMPLED != 0 {
        // SAFETY: the caller's.
        return unsafe { sample_nested(t, session, block, size) };
    }
    // The handler may be the first to notice that all blocks are recorded.
    sampling::note_exact();
    if session.mode() & mode::NO_NATIVE_BIRTHS != 0 {
        return;
    }
    let word = event::head(Kind::AllocLarge, Domain::Native as u8, block as u64);
    // SAFETY: the caller's.
    unsafe { thread::emit_nested(t, session, [word, 0, 0, size as u64]) };
}

unsafe fn died_nested(t: *mut Thread, session: &Session, block: Block) {
    let domain = Domain::Native as u8;
    let (kind, detail) = if session.mode() & mode::SAMPLED == 0 {
        (Kind::Free, domain)
    } else if take_out(block) {
        let unsure = u8::from(sampling::was_exact()) * event::IS_UNSURE;
        (Kind::SampleFree, domain | unsure)
    } else if sampling::was_exact() && !block.is_null() {
        (Kind::SampleFree, domain | event::IS_UNSURE)
    } else {
        return;
    };
    let word = event::head(kind, detail, block as u64);
    // SAFETY: the caller's.
    unsafe { thread::emit_nested(t, session, [word, 0]) };
}

/// Records a death, then runs the real function.
#[inline(always)]
fn observe_death(block: Block, caller: Caller, at: Arrival, call: impl FnOnce(Block)) {
    if at.is_sampling() {
        // SAFETY: this thread's resting state; `sp` is the exported function's.
        unsafe { perhaps_died(at.t, NATIVE_CALL, block, caller) };
        return call(block);
    }
    if at.t.is_null() && session::is_waiting() {
        return call(block);
    }
    observe_death_at(block, caller, at, call);
}

#[inline(never)]
fn observe_death_at(block: Block, caller: Caller, at: Arrival, call: impl FnOnce(Block)) {
    let call = || call(block);
    match enter(at, NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state.
            unsafe {
                thread::proceed(t, depth::HOOK, caller.sp);
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::Free, Domain::Native as u8, block as u64);
                thread::emit(t, session, [word, stamp]);
                thread::set_depth(t, depth::NATIVE);
                call();
                thread::set_depth(t, depth::IDLE);
            }
        }
        // SAFETY: this thread's resting state; `sp` is the exported function's.
        Entry::Sampling(t) => unsafe {
            perhaps_died(t, NATIVE_CALL, block, caller);
            call();
        },
        Entry::Nested(t, session) => {
            // SAFETY: this thread's state, in a handler.
            unsafe { died_nested(t, session, block) };
            call();
        }
        Entry::Pass => call(),
    }
}

// ---------------------------------------------------------------- sampling

/// What an observed function is.
#[derive(Clone, Copy)]
struct Call {
    domain: Domain,
    /// The bits of [`mode`] that it needs.
    needed: u32,
    /// The thread's depth below it.
    below: u32,
}

impl Call {
    /// Whether only a thread that holds the GIL calls it.
    #[inline(always)]
    fn holds_gil(self) -> bool {
        matches!(self.domain, Domain::Mem | Domain::Obj)
    }
}

const NATIVE_CALL: Call = Call {
    domain: Domain::Native,
    needed: NATIVE,
    below: depth::NATIVE,
};

const fn python_call(domain: Domain) -> Call {
    Call {
        domain,
        needed: PYTHON,
        below: depth::PYTHON,
    }
}

/// Runs a real function that gives a block, and records the birth if the
/// countdown says so.
///
/// # Safety
///
/// `t` must be this thread's state at `SAMPLING`; `caller` that of a hook that
/// has not returned.
#[inline(always)]
unsafe fn perhaps_sample(
    t: *mut Thread,
    what: Call,
    size: usize,
    caller: Caller,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: the caller's.
    unsafe {
        if count(size) {
            return sample(t, what, size, caller, call);
        }
        pass_below(t, what, caller, || call(size))
    }
}

/// Counts a block on a thread that rests. True: it may be one that ends the countdown.
#[inline(always)]
fn count(size: usize) -> bool {
    thread::count_down((size as u64).wrapping_add(1))
}

/// A thread that has sampled rests.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
unsafe fn rest(t: *mut Thread) {
    // SAFETY: the caller's.
    unsafe {
        thread::set_depth(t, sampling::rest());
        (*t).countdown.let_go();
    }
}

/// Runs a real function for a block that is not sampled: what it asks other hooks for
/// is part of that block.
///
/// # Safety
///
/// As for [`perhaps_sample`].
#[inline(always)]
unsafe fn pass_below(
    t: *mut Thread,
    what: Call,
    caller: Caller,
    call: impl FnOnce() -> Block,
) -> Block {
    // SAFETY: the caller's.
    unsafe {
        (*t).countdown.hold();
        thread::begin(t, what.below, caller.sp);
        let block = call();
        thread::set_depth(t, depth::SAMPLING);
        (*t).countdown.let_go();
        block
    }
}

/// Whether a block ended no more than a piece of the main thread's countdown, as most
/// ends of countdowns are, and `__main__` runs: then the next piece has begun.
///
/// # Safety
///
/// `t` must be this thread's state at `SAMPLING`, and the thread hold the GIL.
#[inline(always)]
unsafe fn goes_on(t: *mut Thread, size: usize) -> bool {
    // SAFETY: the caller's.
    unsafe { (*t).in_main && python::runs_main(t) && (*t).countdown.begins_piece(size) }
}

/// As [`goes_on`], where that is known without a call: then no register has to be saved.
///
/// # Safety
///
/// As for [`goes_on`].
#[inline(always)]
unsafe fn surely_goes_on(t: *mut Thread, size: usize) -> bool {
    // SAFETY: the caller's.
    unsafe { python::surely_runs_main(t) && (*t).countdown.begins_piece(size) }
}

/// A block that may end the countdown. `call` runs the real function for a block of so
/// many bytes.
///
/// # Safety
///
/// As for [`perhaps_sample`].
#[cold]
#[inline(never)]
unsafe fn sample(
    t: *mut Thread,
    what: Call,
    size: usize,
    caller: Caller,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: the caller's.
    unsafe {
        if what.holds_gil() && goes_on(t, size) {
            if python::is_pooled(size) {
                return call(size);
            }
            if python::hands_on(size) {
                thread::hand_on(size as u64);
                return call(size);
            }
            return pass_below(t, what, caller, || call(size));
        }
        (*t).countdown.hold();
        if !(*t).countdown.passes(size) {
            return pass_below(t, what, caller, || call(size));
        }
        let chosen = choose(t, what, size, caller);
        thread::begin(t, what.below, caller.sp);
        let block = match chosen {
            Some((session, _)) => set_apart(session, what, size, call),
            None => call(size),
        };
        if let Some((session, mean)) = chosen
            && !block.is_null()
        {
            thread::set_depth(t, depth::HOOK);
            sampled(t, session, what.domain, block, size, mean, caller);
        }
        rest(t);
        block
    }
}

/// Runs a real function for a block that was chosen. One of CPython's pools is had from
/// the raw domain instead: its death is seen there, see [`python::sets_apart`].
///
/// # Safety
///
/// The thread must be at `what.below`, and hold the GIL where that is said of `what`.
unsafe fn set_apart(
    session: &Session,
    what: Call,
    size: usize,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // CPython's domains have none of no bytes from a pool either.
    if !what.holds_gil() || size == 0 || size as u64 > python::LARGEST_POOLED {
        return call(size);
    }
    // SAFETY: the caller's.
    unsafe {
        if !python::is_pooled(size) || !python::sets_apart() {
            // First, so that nobody releases what is claimed.
            sampling::note_pooled();
            python::claim_frees(session);
            return call(size);
        }
        let block = python::cut(call(python::APART), size);
        python::release_frees();
        block
    }
}

/// Whether the block that a thread's countdown has just passed is to be
/// recorded: where, and the mean that chose it.
unsafe fn choose(
    t: *mut Thread,
    what: Call,
    size: usize,
    caller: Caller,
) -> Option<(&'static Session, u64)> {
    // SAFETY: the callers'.
    unsafe {
        let looks = sampling::looks(t);
        let Some(session) = recording(t, what.needed, caller.sp) else {
            (*t).countdown.postpone();
            return None;
        };
        if session.mode() & mode::SAMPLED == 0 {
            // From the next block on.
            sampling::note_exact();
        }
        let mean = (*t).countdown.is_chosen(session, size, looks);
        if looks && what.holds_gil() {
            thread::begin(t, depth::HOOK, caller.sp);
            python::look_at_main(t, session);
        }
        if session.mode() & mode::no_births(what.domain) != 0 {
            thread::begin(t, depth::HOOK, caller.sp);
            pass_by(t, session, what.domain, caller);
            return None;
        }
        Some((session, mean?))
    }
}

/// Records the birth of a block that was chosen.
unsafe fn sampled(
    t: *mut Thread,
    session: &Session,
    domain: Domain,
    block: Block,
    size: usize,
    mean: u64,
    caller: Caller,
) {
    let address = block as u64;
    let began = session.now();
    python::look_for_graph(session);
    // SAFETY: as for `born`; the thread was prepared.
    unsafe {
        let has_room = sampling::blocks().insert(address);
        if (*t).asks_bounds {
            thread::ask_for_bounds(t, session, caller.sp);
        }
        let is_told = has_room && {
            let holds_gil = matches!(domain, Domain::Mem | Domain::Obj);
            let stack = capture(t, session, caller, holds_gil);
            let stamp = thread::stamp(t, session);
            modules::look(t, session, stamp);
            let word = event::head(Kind::Sample, domain as u8, address);
            let words = [word, stamp, stack.into(), size as u64, mean];
            thread::emit(t, session, words)
        };
        if is_told {
            (*t).countdown.remember(address);
            count_cost(session, began, size, mean);
            return;
        }
        if has_room {
            sampling::blocks().remove(address);
        } else {
            session.count_loss(true);
        }
        session
            .slot()
            .lost_bytes
            .fetch_add(size as u64, Ordering::Relaxed);
    }
}

/// Adds what a sample took, and how many blocks it stands for, to what the process tells:
/// the mean may depend on it. (Its death, and the cold code and data that both meet, are
/// as much again.)
fn count_cost(session: &Session, began: u64, size: usize, mean: u64) {
    /// No sample takes 50 us: the thread lost its processor meanwhile.
    const MOST_TICKS: u64 = 1 << 17;
    let ticks = session.now().saturating_sub(began).min(MOST_TICKS);
    let sum = &session.slot().sampling_ticks;
    sum.fetch_add(2 * ticks, Ordering::Relaxed);
    let others = mean / (size as u64).saturating_add(1);
    session.slot().left_out.fetch_add(others, Ordering::Relaxed);
}

unsafe fn sample_nested(t: *mut Thread, session: &Session, block: Block, size: usize) {
    // SAFETY: the caller's. A thread that is at work in sampled mode was
    // prepared, but for one that was just adopted.
    unsafe {
        let countdown = &mut (*t).countdown;
        let looks = sampling::looks(t);
        if !countdown.prepare(session, looks) || !countdown.passes(size) {
            return;
        }
        let Some(mean) = countdown.is_chosen(session, size, looks) else {
            return;
        };
        if session.mode() & mode::NO_NATIVE_BIRTHS != 0 {
            return;
        }
        if sampling::blocks().insert(block as u64) {
            let word = event::head(Kind::Sample, Domain::Native as u8, block as u64);
            thread::emit_nested(t, session, [word, 0, 0, size as u64, mean]);
        } else {
            session.count_loss(false);
        }
    }
}

/// Takes a block out of those that were sampled, if it is one.
fn take_out(block: Block) -> bool {
    sampling::are_there() && {
        // SAFETY: there are some.
        let blocks = unsafe { sampling::blocks() };
        blocks.may_have(block as u64) && blocks.remove(block as u64)
    }
}

/// Records the death of a block if it was sampled: before the real function.
///
/// # Safety
///
/// `t` must be this thread's state at `SAMPLING`.
#[inline(always)]
unsafe fn perhaps_died(t: *mut Thread, what: Call, block: Block, caller: Caller) {
    // SAFETY: the caller's.
    unsafe {
        if sampling::blocks().may_have(block as u64) {
            sampled_died(t, what, block, caller);
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn sampled_died(t: *mut Thread, what: Call, block: Block, caller: Caller) {
    // SAFETY: the caller's.
    unsafe {
        let is_sampled = take_out(block);
        if !is_sampled && (!sampling::was_exact() || block.is_null()) {
            return;
        }
        let Some(session) = recording(t, what.needed, caller.sp) else {
            return;
        };
        thread::begin(t, depth::HOOK, caller.sp);
        let mut detail = what.domain as u8;
        // Also one that was sampled before, and died when all blocks were recorded: it
        // is in the set still.
        if sampling::was_exact() {
            detail |= event::IS_UNSURE;
        } else if (*t).countdown.is_temporary(block as u64) {
            detail |= event::IS_TEMPORARY;
        }
        let stamp = thread::stamp(t, session);
        let word = event::head(Kind::SampleFree, detail, block as u64);
        thread::emit(t, session, [word, stamp]);
        rest(t);
    }
}

/// A block that the raw domain is asked to resize for a block that a hook is at work for
/// is a table of CPython's pools, or was told of by that hook. Such a table may have been
/// sampled, when it was asked for by a block that was left out.
///
/// # Safety
///
/// `t` must be this thread's state at `PYTHON`.
#[inline(always)]
unsafe fn died_below(t: *mut Thread, block: Block) {
    if take_out(block) {
        // SAFETY: the caller's.
        unsafe { tell_death_below(t, block) };
    }
}

/// # Safety
///
/// As for [`died_below`].
#[cold]
#[inline(never)]
unsafe fn tell_death_below(t: *mut Thread, block: Block) {
    // The thread is at work, and has been since before this is read: nobody takes the
    // session away meanwhile.
    let session = session::joined();
    if !session::is_joined() || !session.is_alive() || session.mode() & PYTHON != PYTHON {
        return;
    }
    let mut detail = Domain::Raw as u8;
    if sampling::was_exact() {
        detail |= event::IS_UNSURE;
    }
    // SAFETY: the caller's; the hook at work has written no part of an event.
    unsafe {
        thread::set_depth(t, depth::HOOK);
        let stamp = thread::stamp(t, session);
        let word = event::head(Kind::SampleFree, detail, block as u64);
        thread::emit(t, session, [word, stamp]);
        thread::set_depth(t, depth::PYTHON);
    }
}

/// A realloc: the death of the old block, if it was sampled, and the birth of
/// another, wherever it lies.
///
/// # Safety
///
/// As for [`perhaps_sample`].
#[inline(always)]
unsafe fn resample(
    t: *mut Thread,
    what: Call,
    old: Block,
    size: usize,
    caller: Caller,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: the caller's.
    unsafe {
        let ends = count(size);
        if ends || sampling::blocks().may_have(old as u64) {
            return resample_slowly(t, what, old, size, ends, caller, call);
        }
        pass_below(t, what, caller, || call(size))
    }
}

#[cold]
#[inline(never)]
unsafe fn resample_slowly(
    t: *mut Thread,
    what: Call,
    old: Block,
    size: usize,
    ends: bool,
    caller: Caller,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    // SAFETY: the caller's.
    unsafe {
        if ends && what.holds_gil() && !sampling::blocks().may_have(old as u64) && goes_on(t, size)
        {
            return pass_below(t, what, caller, || call(size));
        }
        (*t).countdown.hold();
        let chosen = if ends && (*t).countdown.passes(size) {
            choose(t, what, size, caller)
        } else {
            None
        };
        // Who has been let in is not to ask again: it might leave, with the session
        // in its hands.
        let is_sampled = take_out(old);
        let dies_in = match chosen {
            _ if !is_sampled && !sampling::was_exact() => None,
            Some((session, _)) => Some(session),
            None => recording(t, what.needed, caller.sp),
        };
        thread::begin(t, depth::HOOK, caller.sp);
        let mut detail = what.domain as u8;
        if sampling::was_exact() {
            detail |= event::IS_UNSURE;
        }
        let tell = |session: &Session, kind: Kind| {
            let stamp = thread::stamp(t, session);
            let word = event::head(kind, detail, old as u64);
            thread::emit(t, session, [word, stamp]);
        };
        if let Some(session) = dies_in {
            tell(session, Kind::ReallocStart);
        }
        thread::set_depth(t, what.below);
        let new = match chosen {
            Some((session, _)) => set_apart(session, what, size, call),
            None => call(size),
        };
        thread::set_depth(t, depth::HOOK);
        if let Some(session) = dies_in {
            if !new.is_null() {
                tell(session, Kind::ReallocGone);
            } else if !is_sampled || sampling::blocks().insert(old as u64) {
                tell(session, Kind::ReallocFail);
            } else {
                session.count_loss(true);
            }
        }
        if let Some((session, mean)) = chosen
            && !new.is_null()
        {
            (*t).is_reallocating = true;
            sampled(t, session, what.domain, new, size, mean, caller);
            (*t).is_reallocating = false;
        }
        rest(t);
        new
    }
}

macro_rules! real {
    ($which:ident($($argument:expr),*) as fn($($type:ty),*) -> $result:ty) => {{
        let address = real::address(Real::$which);
        // SAFETY: the next definition of the function, of the type that the
        // standard or the manual gives it; the arguments are the caller's.
        unsafe {
            let function: extern "C" fn($($type),*) -> $result = core::mem::transmute(address);
            function($($argument),*)
        }
    }};
}

// ---------------------------------------------------------------- malloc family

extern "C" fn on_malloc(size: usize, sp: u64, bp: u64) -> Block {
    observe(size, Caller { sp, bp }, move |size| {
        let address = real::address(Real::malloc);
        if address == 0 {
            return early::allocate(size, 16);
        }
        // SAFETY: as in `real!`. (The word is read once.)
        unsafe {
            let malloc: extern "C" fn(usize) -> Block = core::mem::transmute(address);
            malloc(size)
        }
    })
}

extern "C" fn on_calloc(count: usize, size: usize, sp: u64, bp: u64) -> Block {
    // The real one checks the product; ours is used only if it gave a block.
    observe(count.wrapping_mul(size), Caller { sp, bp }, move |_| {
        if real::address(Real::calloc) == 0 {
            return early::allocate(count.wrapping_mul(size), 16);
        }
        real!(calloc(count, size) as fn(usize, usize) -> Block)
    })
}

extern "C" fn on_realloc(old: Block, size: usize, sp: u64, bp: u64) -> Block {
    reallocate(old, size, Caller { sp, bp }, move || {
        real!(realloc(old, size) as fn(Block, usize) -> Block)
    })
}

extern "C" fn on_reallocarray(old: Block, count: usize, size: usize, sp: u64, bp: u64) -> Block {
    if let Some(own) = real::own_realloc() {
        // SAFETY: the executable's definition of it, of the standard's type.
        let realloc: extern "C" fn(Block, usize) -> Block = unsafe { core::mem::transmute(own) };
        return realloc(old, count.saturating_mul(size));
    }
    // glibc's own would call our realloc from within.
    reallocate(
        old,
        count.saturating_mul(size),
        Caller { sp, bp },
        move || {
            // An overflow asks for what no allocator has: it fails as it should,
            // and sets errno.
            let bytes = count.saturating_mul(size);
            real!(realloc(old, bytes) as fn(Block, usize) -> Block)
        },
    )
}

/// `realloc(p, 0)` frees; some allocators then give an empty block.
#[cold]
fn reallocate_to_nothing(old: Block, caller: Caller, call: impl FnOnce() -> Block) -> Block {
    let mut new = core::ptr::null_mut();
    observe_death(old, caller, Arrival::new(), |_| new = call());
    if new.is_null() {
        return new;
    }
    observe(0, caller, |_| new)
}

#[inline(always)]
fn reallocate(old: Block, size: usize, caller: Caller, call: impl FnOnce() -> Block) -> Block {
    if early::owns(old) {
        return early::leave(old, size, |size| real!(malloc(size) as fn(usize) -> Block));
    }
    if old.is_null() {
        return observe(size, caller, |_| call());
    }
    if size == 0 {
        return reallocate_to_nothing(old, caller, call);
    }
    let at = Arrival::new();
    if at.is_sampling() {
        // SAFETY: this thread's resting state; `sp` is the exported function's.
        return unsafe { resample(at.t, NATIVE_CALL, old, size, caller, |_| call()) };
    }
    if at.is_below_python(caller.sp) {
        return call();
    }
    reallocate_at(at, old, size, caller, call)
}

#[inline(never)]
fn reallocate_at(
    at: Arrival,
    old: Block,
    size: usize,
    caller: Caller,
    call: impl FnOnce() -> Block,
) -> Block {
    match enter(at, NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the exported
            // function's.
            unsafe {
                thread::proceed(t, depth::HOOK, caller.sp);
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::ReallocStart, 0, old as u64);
                thread::emit(t, session, [word, stamp]);
                thread::set_depth(t, depth::NATIVE);
                let new = call();
                thread::set_depth(t, depth::HOOK);
                if new.is_null() {
                    // It failed: the old block lives.
                    let stamp = thread::stamp(t, session);
                    let word = event::head(Kind::ReallocFail, Domain::Native as u8, old as u64);
                    thread::emit(t, session, [word, stamp]);
                } else {
                    born(t, session, REBIRTH, Domain::Native, new, size, caller);
                }
                thread::set_depth(t, depth::IDLE);
                new
            }
        }
        // SAFETY: this thread's resting state; `sp` is the exported function's.
        Entry::Sampling(t) => unsafe { resample(t, NATIVE_CALL, old, size, caller, |_| call()) },
        Entry::Nested(t, session) => {
            // SAFETY: this thread's state, in a handler.
            unsafe {
                died_nested(t, session, old);
                let new = call();
                if !new.is_null() {
                    born_nested(t, session, new, size);
                }
                new
            }
        }
        Entry::Pass => call(),
    }
}

extern "C" fn on_free(block: Block, sp: u64, bp: u64) {
    let at = Arrival::new();
    // SAFETY: a thread that samples was prepared. (Early blocks are watched.)
    if at.is_sampling() && !unsafe { sampling::blocks() }.may_have(block as u64) {
        return real!(free(block) as fn(Block) -> ());
    }
    if block.is_null() || early::owns(block) {
        return;
    }
    observe_death(block, Caller { sp, bp }, at, |block| {
        real!(free(block) as fn(Block) -> ());
    });
}

/// The other forms (their sizes are promises that nothing here needs).
fn free_as(block: Block, sp: u64, bp: u64) {
    if let Some(own) = real::own_free() {
        // SAFETY: the executable's definition of it, of the standard's type.
        let free: extern "C" fn(Block) = unsafe { core::mem::transmute(own) };
        return free(block);
    }
    on_free(block, sp, bp);
}

extern "C" fn on_cfree(block: Block, sp: u64, bp: u64) {
    free_as(block, sp, bp);
}

extern "C" fn on_free_sized(block: Block, _: usize, sp: u64, bp: u64) {
    free_as(block, sp, bp);
}

extern "C" fn on_free_aligned_sized(block: Block, _: usize, _: usize, sp: u64, bp: u64) {
    free_as(block, sp, bp);
}

extern "C" fn on_posix_memalign(
    out: *mut Block,
    alignment: usize,
    size: usize,
    sp: u64,
    bp: u64,
) -> i32 {
    let mut status = 0;
    observe(size, Caller { sp, bp }, |_| {
        status = real!(posix_memalign(out, alignment, size) as fn(*mut Block, usize, usize) -> i32);
        if status != 0 {
            return core::ptr::null_mut();
        }
        // SAFETY: on success the real function has written there.
        unsafe { *out }
    });
    status
}

extern "C" fn on_aligned_alloc(alignment: usize, size: usize, sp: u64, bp: u64) -> Block {
    observe(size, Caller { sp, bp }, move |size| {
        real!(aligned_alloc(alignment, size) as fn(usize, usize) -> Block)
    })
}

extern "C" fn on_memalign(alignment: usize, size: usize, sp: u64, bp: u64) -> Block {
    observe(size, Caller { sp, bp }, move |size| {
        if real::address(Real::memalign) == 0 {
            return early::allocate(size, alignment);
        }
        real!(memalign(alignment, size) as fn(usize, usize) -> Block)
    })
}

extern "C" fn on_valloc(size: usize, sp: u64, bp: u64) -> Block {
    observe(size, Caller { sp, bp }, move |size| {
        real!(valloc(size) as fn(usize) -> Block)
    })
}

extern "C" fn on_pvalloc(size: usize, sp: u64, bp: u64) -> Block {
    observe(size, Caller { sp, bp }, move |size| {
        real!(pvalloc(size) as fn(usize) -> Block)
    })
}

// ---------------------------------------------------------------- mappings

const MAP_FAILED: u64 = u64::MAX;

/// Anonymous memory that can be touched: what counts as the program's own.
fn is_memory(protection: i32, flags: i32) -> bool {
    const MAP_ANONYMOUS: i32 = 0x20;
    protection != 0 && flags & MAP_ANONYMOUS != 0
}

/// Whether such a mapping is told of.
fn counts(session: &Session, protection: i32, flags: i32) -> bool {
    is_memory(protection, flags) && session.mode() & mode::NO_NATIVE_BIRTHS == 0
}

extern "C" fn on_mmap(
    address: u64,
    length: usize,
    protection: i32,
    flags: i32,
    fd: i32,
    offset: i64,
    sp: u64,
    bp: u64,
) -> u64 {
    let caller = Caller { sp, bp };
    let call = || {
        real!(mmap(address, length, protection, flags, fd, offset)
            as fn(u64, usize, i32, i32, i32, i64) -> u64)
    };
    if real::address(Real::mmap) == 0 {
        // Another library's constructor comes before ours.
        let _ = session::get();
    }
    match enter_exactly(NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the exported
            // function's.
            unsafe {
                thread::proceed(t, depth::NATIVE, caller.sp);
                let at = call();
                if at != MAP_FAILED {
                    thread::set_depth(t, depth::HOOK);
                    if counts(session, protection, flags) {
                        let stack = capture(t, session, caller, false);
                        let stamp = thread::stamp(t, session);
                        let word = event::head(Kind::Map, Domain::Map as u8, at);
                        thread::emit(t, session, [word, stamp, stack.into(), length as u64]);
                    } else {
                        // It may have replaced memory that counted.
                        unmapped(t, session, at, length);
                    }
                }
                thread::set_depth(t, depth::IDLE);
                at
            }
        }
        // Below malloc it is the real allocator's own: its blocks count.
        Entry::Nested(t, session) if !is_below_malloc(t) => {
            let at = call();
            if at != MAP_FAILED && counts(session, protection, flags) {
                let word = event::head(Kind::Map, Domain::Map as u8, at);
                // SAFETY: this thread's state, in a handler.
                unsafe {
                    thread::emit_nested(t, session, [word, 0, 0, length as u64]);
                }
            }
            at
        }
        _ => call(),
    }
}

/// Whether a nested call comes from the real malloc.
fn is_below_malloc(t: *mut Thread) -> bool {
    // SAFETY: this thread's state.
    unsafe { thread::get_depth(t) == depth::NATIVE }
}

unsafe fn unmapped(t: *mut Thread, session: &Session, address: u64, length: usize) {
    let word = event::head(Kind::Unmap, Domain::Map as u8, address);
    // SAFETY: the caller's.
    unsafe {
        let stamp = thread::stamp(t, session);
        thread::emit(t, session, [word, stamp, length as u64]);
    }
}

extern "C" fn on_munmap(address: u64, length: usize, sp: u64, bp: u64) -> i32 {
    let caller = Caller { sp, bp };
    let call = || real!(munmap(address, length) as fn(u64, usize) -> i32);
    if !address.is_multiple_of(4096) || length == 0 {
        // What the kernel refuses unmaps nothing.
        return call();
    }
    match enter_exactly(NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state.
            unsafe {
                thread::proceed(t, depth::HOOK, caller.sp);
                unmapped(t, session, address, length);
                thread::set_depth(t, depth::NATIVE);
                let result = call();
                thread::set_depth(t, depth::IDLE);
                result
            }
        }
        Entry::Nested(t, session) if !is_below_malloc(t) => {
            let word = event::head(Kind::Unmap, Domain::Map as u8, address);
            // SAFETY: this thread's state, in a handler.
            unsafe { thread::emit_nested(t, session, [word, 0, length as u64]) };
            call()
        }
        _ => call(),
    }
}

extern "C" fn on_mremap(
    old: u64,
    old_length: usize,
    length: usize,
    flags: i32,
    target: u64,
    sp: u64,
    bp: u64,
) -> u64 {
    let caller = Caller { sp, bp };
    let call = || {
        real!(mremap(old, old_length, length, flags, target)
            as fn(u64, usize, usize, i32, u64) -> u64)
    };
    match enter_exactly(NATIVE, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the exported
            // function's.
            unsafe {
                thread::proceed(t, depth::NATIVE, caller.sp);
                let began = thread::stamp(t, session);
                let at = call();
                if at != MAP_FAILED {
                    thread::set_depth(t, depth::HOOK);
                    let stack = capture(t, session, caller, false);
                    let stamp = thread::stamp(t, session);
                    let word = event::head(Kind::Remap, Domain::Map as u8, at);
                    thread::emit(
                        t,
                        session,
                        [
                            word,
                            stamp,
                            stack.into(),
                            length as u64,
                            old,
                            old_length as u64,
                            began,
                        ],
                    );
                }
                thread::set_depth(t, depth::IDLE);
                at
            }
        }
        // A handler's: rare, and not told of.
        Entry::Nested(t, session) if !is_below_malloc(t) => {
            let at = call();
            if at != MAP_FAILED {
                session.count_loss(false);
            }
            at
        }
        _ => call(),
    }
}

extern "C" fn on_getattr(thread: u64, attributes: *mut u64, sp: u64) -> i32 {
    if let Entry::Record(t, _) = enter(Arrival::new(), mode::ON, sp) {
        // It has a state now, and that is all.
        // SAFETY: this thread's state, in which nothing was begun.
        unsafe { thread::set_depth(t, depth::IDLE) };
    }
    real::resolve_late(Real::pthread_getattr_np);
    if real::address(Real::pthread_getattr_np) == 0 {
        const ENOSYS: i32 = 38;
        return ENOSYS;
    }
    real!(pthread_getattr_np(thread, attributes) as fn(u64, *mut u64) -> i32)
}

extern "C" fn on_dlclose(handle: sys::Pointer, sp: u64) -> i32 {
    // Before glibc 2.34 it comes with libdl, perhaps long after us.
    real::resolve_late(Real::dlclose);
    if real::address(Real::dlclose) == 0 {
        // The library stays.
        return -1;
    }
    python::before_unloading();
    let result = real!(dlclose(handle) as fn(sys::Pointer) -> i32);
    if let Entry::Record(t, session) = enter_exactly(mode::ON, sp) {
        // SAFETY: this thread's idle state.
        unsafe {
            thread::proceed(t, depth::QUIET, sp);
            modules::refresh(t, session);
            thread::set_depth(t, depth::IDLE);
        }
    }
    python::after_unloading();
    result
}

// ---------------------------------------------------------------- the end

/// The program's own `main`.
static MAIN: AtomicU64 = AtomicU64::new(0);
/// The mark was set.
static IS_EXITING: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    /// What the program's `main` returns to.
    #[link_name = "leakline_main_returned"]
    static MAIN_RETURNED: u8;
}

/// The address that the program's `main` returns to: a frame of ours, to be
/// left out of stacks.
pub fn main_returns_to() -> u64 {
    &raw const MAIN_RETURNED as u64
}

/// `__libc_start_main`: puts [`run_main`] in `main`'s place, so that the
/// instant is seen at which `main` has returned and no exit handler has run.
///
/// # Safety
///
/// As for the function of that name: it is called by a program's entry point,
/// with libc's own arguments (the seventh, on the stack, is handed on as it
/// lies).
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn __libc_start_main() {
    naked_asm!(
        ".cfi_startproc",
        "mov [rip + {main}], rdi",
        "lea rdi, [rip + {run_main}]",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "push rcx",
        ".cfi_adjust_cfa_offset 8",
        "push r8",
        ".cfi_adjust_cfa_offset 8",
        "push r9",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {real}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop r9",
        ".cfi_adjust_cfa_offset -8",
        "pop r8",
        ".cfi_adjust_cfa_offset -8",
        "pop rcx",
        ".cfi_adjust_cfa_offset -8",
        "pop rdx",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        "jmp rax",
        ".cfi_endproc",
        main = sym MAIN,
        run_main = sym run_main,
        real = sym real_start_main,
    )
}

extern "C" fn real_start_main() -> u64 {
    // Every program that gets here was linked against a libc that has it.
    let _ = session::get();
    real::resolve_late(Real::start_main);
    real::address(Real::start_main)
}

/// Runs the program's `main` and sets the mark.
#[unsafe(naked)]
unsafe extern "C" fn run_main() {
    naked_asm!(
        ".cfi_startproc",
        "sub rsp, 24",
        ".cfi_adjust_cfa_offset 24",
        "call qword ptr [rip + {main}]",
        ".globl leakline_main_returned",
        ".hidden leakline_main_returned",
        "leakline_main_returned:",
        "mov [rsp + 8], eax",
        "lea rdi, [rsp + 24]",
        "call {mark}",
        "mov eax, [rsp + 8]",
        "add rsp, 24",
        ".cfi_adjust_cfa_offset -24",
        "ret",
        ".cfi_endproc",
        main = sym MAIN,
        mark = sym mark_exiting,
    )
}

/// In a forked child: it is not the process that began to exit.
pub fn after_fork() {
    NEWCOMERS.store(0, Ordering::SeqCst);
    IS_NEWCOMER_LEAVING.store(0, Ordering::Relaxed);
    begin_anew();
}

/// For a new session: it has not begun to exit in that.
pub fn begin_anew() {
    IS_EXITING.store(0, Ordering::Relaxed);
}

/// Marks the instant at which the process begins to exit, once.
extern "C" fn mark_exiting(sp: u64) {
    // A thread that never allocated: not worth what adopting it takes, in what
    // may be a signal handler.
    if thread::current().is_null() {
        return;
    }
    if let Entry::Record(t, session) = enter_exactly(mode::ON, sp) {
        // SAFETY: this thread's idle state. The child of a vfork is not the
        // process that it runs in.
        unsafe {
            if thread::is_own(t) && IS_EXITING.swap(1, Ordering::Relaxed) == 0 {
                thread::proceed(t, depth::HOOK, sp);
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::Mark, MarkKind::Exiting as u8, 0);
                thread::emit(t, session, [word, stamp]);
                // What Python has is looked at when `__main__` is left.
                if session.mode() & mode::GRAPH_AT_END != 0 && python::is_absent() {
                    graph::take_last(t, session, None, true);
                }
            }
            thread::set_depth(t, depth::IDLE);
        }
    }
}

/// Marks this instant by a name. False where nothing is recorded, or the mark was
/// lost.
pub fn mark(name: &[u8], sp: u64) -> bool {
    let Entry::Record(t, session) = enter_exactly(mode::ON, sp) else {
        return false;
    };
    // SAFETY: this thread's idle state.
    unsafe {
        thread::proceed(t, depth::HOOK, sp);
        let is_told = thread::emit_blob(t, session, BlobKind::Mark, 0, name);
        thread::set_depth(t, depth::IDLE);
        is_told
    }
}

extern "C" fn on_exit(status: i32, sp: u64) {
    mark_exiting(sp);
    real::resolve_late(Real::exit);
    if real::address(Real::exit) == 0 {
        sys::exit_group(status);
    }
    real!(exit(status) as fn(i32) -> ());
}

extern "C" fn on_quick_exit(status: i32, sp: u64) {
    mark_exiting(sp);
    real::resolve_late(Real::quick_exit);
    if real::address(Real::quick_exit) == 0 {
        sys::exit_group(status);
    }
    real!(quick_exit(status) as fn(i32) -> ());
}

extern "C" fn on_exit_at_once(status: i32, sp: u64) {
    mark_exiting(sp);
    real::resolve_late(Real::exit_at_once);
    if real::address(Real::exit_at_once) == 0 {
        sys::exit_group(status);
    }
    real!(exit_at_once(status) as fn(i32) -> ());
}

// ---------------------------------------------------------------- Python

/// The hooks numbered `hooks` (see [`python::original`]); `context` is the
/// caller's to fill in.
pub fn python_hooks(hooks: usize) -> Allocator {
    type Four = [unsafe extern "C" fn(); 4];
    const HOOKS: [Four; 2 * python::DOMAINS] = [
        [raw_malloc, raw_calloc, raw_realloc, raw_free],
        [mem_malloc, mem_calloc, mem_realloc, mem_free],
        [obj_malloc, obj_calloc, obj_realloc, obj_free],
        [raw_malloc_2, raw_calloc_2, raw_realloc_2, raw_free_2],
        [mem_malloc_2, mem_calloc_2, mem_realloc_2, mem_free_2],
        [obj_malloc_2, obj_calloc_2, obj_realloc_2, obj_free_2],
    ];
    let [malloc, calloc, realloc, free] = HOOKS[hooks].map(|hook| hook as *const () as u64);
    Allocator {
        context: core::ptr::null_mut(),
        malloc,
        calloc,
        realloc,
        free,
    }
}

/// Where [`python::ORIGINALS`] has this word of an allocator. (Not its context: our hooks
/// have the originals', and are called with them.)
macro_rules! original_word {
    ($hooks:literal, $field:ident) => {
        $hooks * size_of::<Allocator>() + offset_of!(Allocator, $field)
    };
}

/// To `2` where the block of so many bytes in this register is not the one that the pools'
/// allocator was asked for last and hands on, see [`python::hands_on`]. Else it is counted
/// by libc's function, and no longer by the hook that was asked first.
macro_rules! handed_on {
    ($size:literal) => {
        concat!(
            concat!("cmp ", $size, ", {largest}\n"),
            "jbe 2f\n",
            "mov rax, qword ptr [rip + leakline_handed_on@GOTTPOFF]\n",
            concat!("cmp qword ptr fs:[rax], ", $size, "\n"),
            "jne 2f\n",
            "mov qword ptr fs:[rax], 0\n",
            "mov rax, qword ptr [rip + {word}]\n",
            concat!("lea rcx, [", $size, " + 1]\n"),
            "add qword ptr fs:[rax], rcx",
        )
    };
}

/// What CPython calls for a block of the raw domain.
macro_rules! python_raw_malloc {
    ($hooks:literal: $malloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $malloc() {
            naked_asm!(
                ".cfi_startproc",
                handed_on!("rsi"),
                "jmp qword ptr [rip + {originals} + {malloc}]",
                "2:",
                "mov rdx, rsp",
                "mov rcx, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                largest = const python::LARGEST_POOLED,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                malloc = const original_word!($hooks, malloc),
                hook = sym py_malloc::<$hooks>
            )
        }
    };
}

/// Of a domain whose blocks may be CPython's pools': these are left out as by [`malloc`],
/// and so are those that the pools' allocator hands on.
macro_rules! python_pool_malloc {
    ($hooks:literal: $malloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $malloc() {
            naked_asm!(
                ".cfi_startproc",
                // Below the limit, which is small: 1 is borrowed, so that `sbb` takes
                // one byte more than the block has.
                "lea rdx, [rsi - 1]",
                "cmp rdx, qword ptr [rip + {limit}]",
                "jae 4f",
                "mov rax, qword ptr [rip + {word}]",
                "sbb qword ptr fs:[rax], rsi",
                // Also where it was negative before.
                "jl 3f",
                "jmp qword ptr [rip + {originals} + {malloc}]",
                "3:",
                "lea rdx, [rsi + 1]",
                "add qword ptr fs:[rax], rdx",
                "mov rdx, rsp",
                "mov rcx, rbp",
                "jmp {ends}",
                "4:",
                "cmp rdx, qword ptr [rip + {handed_on}]",
                "jae 2f",
                "mov rax, qword ptr [rip + {word}]",
                "sbb qword ptr fs:[rax], rsi",
                "jl 5f",
                "mov rax, qword ptr [rip + leakline_handed_on@GOTTPOFF]",
                "mov qword ptr fs:[rax], rsi",
                "jmp qword ptr [rip + {originals} + {malloc}]",
                "5:",
                "lea rdx, [rsi + 1]",
                "add qword ptr fs:[rax], rdx",
                "2:",
                "mov rdx, rsp",
                "mov rcx, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                limit = sym python::POOL_LIMIT,
                handed_on = sym python::HANDED_ON_LIMIT,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                malloc = const original_word!($hooks, malloc),
                ends = sym py_malloc_ends::<$hooks>,
                hook = sym py_malloc::<$hooks>
            )
        }
    };
}

/// As [`python_pool_malloc`], of `calloc`.
macro_rules! python_pool_calloc {
    ($hooks:literal: $calloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $calloc() {
            naked_asm!(
                ".cfi_startproc",
                "mov rcx, rsi",
                "imul rcx, rdx",
                "jo 2f",
                "lea r8, [rcx - 1]",
                "cmp r8, qword ptr [rip + {limit}]",
                "jae 4f",
                "mov rax, qword ptr [rip + {word}]",
                "sbb qword ptr fs:[rax], rcx",
                "jl 3f",
                "jmp qword ptr [rip + {originals} + {calloc}]",
                "4:",
                "cmp r8, qword ptr [rip + {handed_on}]",
                "jae 2f",
                "mov rax, qword ptr [rip + {word}]",
                "sbb qword ptr fs:[rax], rcx",
                "jl 3f",
                "mov rax, qword ptr [rip + leakline_handed_on@GOTTPOFF]",
                "mov qword ptr fs:[rax], rcx",
                "jmp qword ptr [rip + {originals} + {calloc}]",
                "3:",
                "inc rcx",
                "add qword ptr fs:[rax], rcx",
                "2:",
                "mov rcx, rsp",
                "mov r8, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                limit = sym python::POOL_LIMIT,
                handed_on = sym python::HANDED_ON_LIMIT,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                calloc = const original_word!($hooks, calloc),
                hook = sym py_calloc::<$hooks>
            )
        }
    };
}

/// As [`python_raw_malloc`], of `calloc`.
macro_rules! python_raw_calloc {
    ($hooks:literal: $calloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $calloc() {
            naked_asm!(
                ".cfi_startproc",
                "mov rcx, rsi",
                "imul rcx, rdx",
                "jo 2f",
                handed_on!("rcx"),
                "jmp qword ptr [rip + {originals} + {calloc}]",
                "2:",
                "mov rcx, rsp",
                "mov r8, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                largest = const python::LARGEST_POOLED,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                calloc = const original_word!($hooks, calloc),
                hook = sym py_calloc::<$hooks>
            )
        }
    };
}

/// As [`python_raw_malloc`], of `realloc`.
macro_rules! python_raw_realloc {
    ($hooks:literal: $realloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $realloc() {
            naked_asm!(
                ".cfi_startproc",
                handed_on!("rdx"),
                "jmp qword ptr [rip + {originals} + {realloc}]",
                "2:",
                "mov rcx, rsp",
                "mov r8, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                largest = const python::LARGEST_POOLED,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                realloc = const original_word!($hooks, realloc),
                hook = sym py_realloc::<$hooks>
            )
        }
    };
}

/// As [`python_pool_malloc`], of `realloc`: a block whose old one was not sampled, and that
/// is not itself, is left out, as by [`malloc`] and [`free`].
macro_rules! python_pool_realloc {
    ($hooks:literal: $realloc:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $realloc() {
            naked_asm!(
                ".cfi_startproc",
                "lea rcx, [rdx - 1]",
                "cmp rcx, qword ptr [rip + {limit}]",
                "jae 4f",
                denied!("esi"),
                "mov rax, qword ptr [rip + {word}]",
                "lea rcx, [rdx + 1]",
                "sub qword ptr fs:[rax], rcx",
                // Also where it was negative before.
                "jl 3f",
                // If it is no block of a pool, the raw domain is asked next.
                "mov rax, qword ptr [rip + leakline_counted@GOTTPOFF]",
                "mov qword ptr fs:[rax], rsi",
                "jmp qword ptr [rip + {originals} + {realloc}]",
                "4:",
                "cmp rcx, qword ptr [rip + {handed_on}]",
                "jae 2f",
                denied!("esi"),
                "mov rax, qword ptr [rip + {word}]",
                "lea rcx, [rdx + 1]",
                "sub qword ptr fs:[rax], rcx",
                "jl 3f",
                "mov rax, qword ptr [rip + leakline_handed_on@GOTTPOFF]",
                "mov qword ptr fs:[rax], rdx",
                "jmp qword ptr [rip + {originals} + {realloc}]",
                "3:",
                "add qword ptr fs:[rax], rcx",
                "mov rcx, rsp",
                "mov r8, rbp",
                "jmp {ends}",
                "2:",
                "mov rcx, rsp",
                "mov r8, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                limit = sym python::POOL_LIMIT,
                handed_on = sym python::HANDED_ON_LIMIT,
                filter = sym sampling::FILTER,
                shift = const CELL_SHIFT,
                word = sym thread::UNTIL,
                originals = sym python::ORIGINALS,
                realloc = const original_word!($hooks, realloc),
                ends = sym py_realloc_ends::<$hooks>,
                hook = sym py_realloc::<$hooks>
            )
        }
    };
}

macro_rules! python_free {
    ($hooks:literal: $free:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $free() {
            naked_asm!(
                ".cfi_startproc",
                denied!("esi"),
                "jmp qword ptr [rip + {originals} + {free}]",
                "2:",
                "mov rdx, rsp",
                "mov rcx, rbp",
                "jmp {hook}",
                ".cfi_endproc",
                filter = sym sampling::FILTER,
                shift = const CELL_SHIFT,
                originals = sym python::ORIGINALS,
                free = const original_word!($hooks, free),
                hook = sym py_free::<$hooks>
            )
        }
    };
}

python_raw_malloc!(0: raw_malloc);
python_pool_malloc!(1: mem_malloc);
python_pool_malloc!(2: obj_malloc);
python_raw_malloc!(3: raw_malloc_2);
python_pool_malloc!(4: mem_malloc_2);
python_pool_malloc!(5: obj_malloc_2);
python_raw_calloc!(0: raw_calloc);
python_pool_calloc!(1: mem_calloc);
python_pool_calloc!(2: obj_calloc);
python_raw_calloc!(3: raw_calloc_2);
python_pool_calloc!(4: mem_calloc_2);
python_pool_calloc!(5: obj_calloc_2);
python_raw_realloc!(0: raw_realloc);
python_free!(0: raw_free);
python_pool_realloc!(1: mem_realloc);
python_free!(1: mem_free);
python_pool_realloc!(2: obj_realloc);
python_free!(2: obj_free);
python_raw_realloc!(3: raw_realloc_2);
python_free!(3: raw_free_2);
python_pool_realloc!(4: mem_realloc_2);
python_free!(4: mem_free_2);
python_pool_realloc!(5: obj_realloc_2);
python_free!(5: obj_free_2);

const fn domain_of(hooks: usize) -> Domain {
    match hooks % python::DOMAINS {
        0 => Domain::Raw,
        1 => Domain::Mem,
        _ => Domain::Obj,
    }
}

macro_rules! original {
    ($hooks:expr, $which:ident($($argument:expr),*) as fn($($type:ty),*) -> $result:ty) => {{
        let original = python::original($hooks);
        // SAFETY: the allocator that was there before, of CPython's type for
        // it, with its own context.
        unsafe {
            let function: extern "C" fn(sys::Pointer, $($type),*) -> $result =
                core::mem::transmute(original.$which);
            function(original.context, $($argument),*)
        }
    }};
}

/// As [`enter`] for a hook of a domain. One of the mem and obj domains never
/// leads to another: where that seems so, the other one was left.
#[inline(always)]
fn enter_python(at: Arrival, domain: Domain, sp: u64) -> Entry {
    match enter(at, PYTHON, sp) {
        Entry::Pass if !matches!(domain, Domain::Raw) => enter_left(sp),
        entry => entry,
    }
}

#[cold]
#[inline(never)]
fn enter_left(sp: u64) -> Entry {
    let t = thread::current();
    // At work, so that nobody takes the session away meanwhile.
    // SAFETY: this thread's state, if it has one.
    let is_at_work = !t.is_null() && unsafe { thread::get_depth(t) } == depth::PYTHON;
    if is_at_work
        && let Some(session) = session::get()
        && session.is_alive()
        && session.mode() & PYTHON == PYTHON
        && python::has_plain_domains()
        // SAFETY: this thread's state; `sp` is an exported function's.
        && unsafe { thread::was_left(t, sp) }
    {
        return enter(Arrival::new(), PYTHON, sp);
    }
    Entry::Pass
}

#[inline(always)]
fn observe_python<const HOOKS: usize>(
    size: usize,
    caller: Caller,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    let at = Arrival::new();
    if at.is_sampling() {
        if count(size) {
            return sample_of_python::<HOOKS>(size, caller, at.t, call);
        }
        if !matches!(domain_of(HOOKS), Domain::Raw) && python::is_pooled(size) {
            return call(size);
        }
        leave_out_python::<HOOKS>(size, caller, at.t, call)
    } else if matches!(domain_of(HOOKS), Domain::Raw) && at.is_below_python(caller.sp) {
        call(size)
    } else {
        observe_python_at::<HOOKS>(size, caller, at, call)
    }
}

/// [`observe_python`] of a block that ended a countdown.
#[cold]
#[inline(never)]
fn sample_of_python<const HOOKS: usize>(
    size: usize,
    caller: Caller,
    t: *mut Thread,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    let what = python_call(domain_of(HOOKS));
    // SAFETY: as in `observe_python`.
    unsafe { sample(t, what, size, caller, call) }
}

/// [`observe_python`] of a block that is not sampled, where the allocator below may
/// call other hooks for it.
#[inline(never)]
fn leave_out_python<const HOOKS: usize>(
    size: usize,
    caller: Caller,
    t: *mut Thread,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    let what = python_call(domain_of(HOOKS));
    // SAFETY: as in `observe_python`; in the mem and obj domains it holds the GIL.
    unsafe {
        if what.holds_gil() {
            python::try_handing_on();
        }
        pass_below(t, what, caller, || call(size))
    }
}

#[inline(never)]
fn observe_python_at<const HOOKS: usize>(
    size: usize,
    caller: Caller,
    at: Arrival,
    call: impl FnOnce(usize) -> Block,
) -> Block {
    let domain = domain_of(HOOKS);
    match enter_python(at, domain, caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the hook's own slot. In the mem
            // and obj domains it holds the GIL.
            unsafe {
                thread::proceed(t, depth::PYTHON, caller.sp);
                if !matches!(domain, Domain::Raw) {
                    python::claim_frees(session);
                }
                let block = call(size);
                if !block.is_null() {
                    thread::set_depth(t, depth::HOOK);
                    born(t, session, BIRTH, domain, block, size, caller);
                }
                thread::set_depth(t, depth::IDLE);
                block
            }
        }
        // SAFETY: this thread's resting state; `sp` is the hook's own slot.
        Entry::Sampling(t) => unsafe { perhaps_sample(t, python_call(domain), size, caller, call) },
        Entry::Nested(_, session) => {
            let block = call(size);
            lose(domain, session, !block.is_null());
            block
        }
        Entry::Pass => call(size),
    }
}

/// Counts what Python does while one of our hooks was left half-way and this is
/// not known yet. What the raw domain gives comes from malloc, and is recorded
/// there.
#[cold]
fn lose(domain: Domain, session: &Session, is_event: bool) {
    if is_event && !matches!(domain, Domain::Raw) {
        session.count_loss(false);
    }
}

extern "C" fn py_malloc<const HOOKS: usize>(
    _: sys::Pointer,
    size: usize,
    sp: u64,
    bp: u64,
) -> Block {
    observe_python::<HOOKS>(size, Caller { sp, bp }, |size| {
        original!(HOOKS, malloc(size) as fn(usize) -> Block)
    })
}

/// [`py_malloc`] of a block of CPython's pools that ended a countdown: most often no more
/// than a piece of the main thread's.
extern "C" fn py_malloc_ends<const HOOKS: usize>(
    context: sys::Pointer,
    size: usize,
    sp: u64,
    bp: u64,
) -> Block {
    let at = Arrival::new();
    // SAFETY: this thread's resting state; it holds the GIL.
    if at.is_sampling() && unsafe { surely_goes_on(at.t, size) } {
        return original!(HOOKS, malloc(size) as fn(usize) -> Block);
    }
    py_malloc::<HOOKS>(context, size, sp, bp)
}

extern "C" fn py_calloc<const HOOKS: usize>(
    _: sys::Pointer,
    count: usize,
    size: usize,
    sp: u64,
    bp: u64,
) -> Block {
    let own = count.saturating_mul(size);
    observe_python::<HOOKS>(own, Caller { sp, bp }, move |bytes| {
        let (count, size) = if bytes == own {
            (count, size)
        } else {
            (1, bytes)
        };
        original!(HOOKS, calloc(count, size) as fn(usize, usize) -> Block)
    })
}

extern "C" fn py_realloc<const HOOKS: usize>(
    _: sys::Pointer,
    old: Block,
    size: usize,
    sp: u64,
    bp: u64,
) -> Block {
    let caller = Caller { sp, bp };
    let call = move |size| original!(HOOKS, realloc(old, size) as fn(Block, usize) -> Block);
    if old.is_null() {
        return observe_python::<HOOKS>(size, caller, call);
    }
    let at = Arrival::new();
    if at.is_sampling() {
        let what = python_call(domain_of(HOOKS));
        // SAFETY: this thread's resting state; `sp` is the hook's own slot; in the mem and obj
        // domains it holds the GIL.
        return unsafe {
            let is_part = matches!(what.domain, Domain::Raw)
                && size as u64 <= python::LARGEST_POOLED
                && thread::was_counted(old as u64);
            if is_part {
                pass_below(at.t, what, caller, || call(size))
            } else {
                if what.holds_gil() && !python::is_pooled(size) {
                    // (A program that is attached to may grow lists and do nothing else.)
                    python::try_handing_on();
                }
                resample(at.t, what, old, size, caller, call)
            }
        };
    }
    if matches!(domain_of(HOOKS), Domain::Raw) && at.is_below_python(caller.sp) {
        // SAFETY: this thread's state; a hook of Python's is at work on it.
        unsafe { died_below(at.t, old) };
        return call(size);
    }
    py_realloc_at::<HOOKS>(old, size, caller, at)
}

/// [`py_realloc`] of a block that ended a countdown and whose old one was not sampled, as
/// [`py_malloc_ends`].
extern "C" fn py_realloc_ends<const HOOKS: usize>(
    context: sys::Pointer,
    old: Block,
    size: usize,
    sp: u64,
    bp: u64,
) -> Block {
    let at = Arrival::new();
    // SAFETY: this thread's resting state; it holds the GIL.
    if at.is_sampling() && python::hands_on(size) && unsafe { surely_goes_on(at.t, size) } {
        if python::is_pooled(size) {
            thread::count_in(old as u64);
        } else {
            thread::hand_on(size as u64);
        }
        return original!(HOOKS, realloc(old, size) as fn(Block, usize) -> Block);
    }
    py_realloc::<HOOKS>(context, old, size, sp, bp)
}

#[inline(never)]
fn py_realloc_at<const HOOKS: usize>(
    old: Block,
    size: usize,
    caller: Caller,
    at: Arrival,
) -> Block {
    let call = move |size| original!(HOOKS, realloc(old, size) as fn(Block, usize) -> Block);
    match enter_python(at, domain_of(HOOKS), caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state; `sp` is the hook's own slot.
            unsafe {
                thread::proceed(t, depth::HOOK, caller.sp);
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::ReallocStart, 0, old as u64);
                thread::emit(t, session, [word, stamp]);
                thread::set_depth(t, depth::PYTHON);
                if !matches!(domain_of(HOOKS), Domain::Raw) {
                    python::claim_frees(session);
                }
                let new = call(size);
                thread::set_depth(t, depth::HOOK);
                if new.is_null() {
                    let stamp = thread::stamp(t, session);
                    let word = event::head(Kind::ReallocFail, 0, old as u64);
                    thread::emit(t, session, [word, stamp]);
                } else {
                    (*t).is_reallocating = true;
                    born(t, session, REBIRTH, domain_of(HOOKS), new, size, caller);
                    (*t).is_reallocating = false;
                }
                thread::set_depth(t, depth::IDLE);
                new
            }
        }
        // SAFETY: this thread's resting state; `sp` is the hook's own slot.
        Entry::Sampling(t) => unsafe {
            resample(t, python_call(domain_of(HOOKS)), old, size, caller, call)
        },
        Entry::Nested(_, session) => {
            let new = call(size);
            lose(domain_of(HOOKS), session, !new.is_null());
            new
        }
        Entry::Pass => call(size),
    }
}

extern "C" fn py_free<const HOOKS: usize>(_: sys::Pointer, block: Block, sp: u64, bp: u64) {
    let caller = Caller { sp, bp };
    let call = move || original!(HOOKS, free(block) as fn(Block) -> ());
    let at = Arrival::new();
    if at.is_sampling() {
        // SAFETY: this thread was prepared.
        if unsafe { sampling::blocks() }.may_have(block as u64) {
            return py_free_perhaps::<HOOKS>(block, caller, at.t);
        }
        return call();
    }
    if block.is_null() {
        return call();
    }
    if matches!(domain_of(HOOKS), Domain::Obj) {
        python::perhaps_code_died(block as u64);
    }
    py_free_at::<HOOKS>(block, caller, at);
}

/// [`py_free`] on a thread that samples, of a block that the filter does not deny.
#[inline(never)]
fn py_free_perhaps<const HOOKS: usize>(block: Block, caller: Caller, t: *mut Thread) {
    if !block.is_null() {
        if matches!(domain_of(HOOKS), Domain::Obj) {
            python::perhaps_code_died(block as u64);
        }
        // SAFETY: this thread's resting state; `sp` is the hook's own slot.
        unsafe { sampled_died(t, python_call(domain_of(HOOKS)), block, caller) };
    }
    original!(HOOKS, free(block) as fn(Block) -> ());
}

#[inline(never)]
fn py_free_at<const HOOKS: usize>(block: Block, caller: Caller, at: Arrival) {
    let call = move || original!(HOOKS, free(block) as fn(Block) -> ());
    match enter_python(at, domain_of(HOOKS), caller.sp) {
        Entry::Record(t, session) => {
            // SAFETY: this thread's idle state.
            unsafe {
                if (*t).newest_object == block as u64 {
                    (*t).newest_object = 0;
                }
                thread::proceed(t, depth::HOOK, caller.sp);
                let stamp = thread::stamp(t, session);
                let word = event::head(Kind::Free, domain_of(HOOKS) as u8, block as u64);
                thread::emit(t, session, [word, stamp]);
                thread::set_depth(t, depth::PYTHON);
                call();
                thread::set_depth(t, depth::IDLE);
            }
        }
        // SAFETY: this thread's resting state; `sp` is the hook's own slot.
        Entry::Sampling(t) => unsafe {
            perhaps_died(t, python_call(domain_of(HOOKS)), block, caller);
            call();
        },
        Entry::Nested(_, session) => {
            lose(domain_of(HOOKS), session, true);
            call();
        }
        Entry::Pass => {
            if matches!(domain_of(HOOKS), Domain::Raw) {
                python::note_probe(block as u64);
            }
            call();
        }
    }
}

/// Address of what CPython is to call for a code object that nobody holds any more.
pub fn code_hook() -> u64 {
    on_code_death as *const () as u64
}

extern "C" fn on_code_death(code: u64) {
    python::died(code);
    let address = python::original_code_death();
    // SAFETY: `tp_dealloc` of the type that this object has.
    unsafe {
        let function: extern "C" fn(u64) = core::mem::transmute(address);
        function(code);
    }
}

/// Address of what CPython is to ask for an arena.
pub fn arena_hook() -> u64 {
    arena_allocated as *const () as u64
}

#[unsafe(naked)]
unsafe extern "C" fn arena_allocated() {
    naked_asm!(
        ".cfi_startproc",
        "mov rdx, rsp",
        "mov rcx, rbp",
        "jmp {hook}",
        ".cfi_endproc",
        hook = sym on_arena,
    )
}

/// An arena is allocated: not by the program, which is given its blocks.
extern "C" fn on_arena(_: sys::Pointer, size: usize, sp: u64, bp: u64) -> Block {
    let call = || {
        let original = python::original_arenas();
        // SAFETY: what was there before, of CPython's type for it, with its own context.
        unsafe {
            let allocate: extern "C" fn(sys::Pointer, usize) -> Block =
                core::mem::transmute(original.allocate);
            allocate(original.context, size)
        }
    };
    let at = Arrival::new();
    if !at.is_sampling() {
        // In exact mode the hook above has said that Python's allocator is at work.
        return call();
    }
    let what = python_call(Domain::Obj);
    // SAFETY: this thread's resting state; `sp` is the hook's own slot.
    unsafe { pass_below(at.t, what, Caller { sp, bp }, call) }
}

/// Address of the function that CPython's reference tracing is to call.
pub fn reference_tracer() -> u64 {
    traced as *const () as u64
}

#[unsafe(naked)]
unsafe extern "C" fn traced() {
    naked_asm!(
        ".cfi_startproc",
        "mov rdx, rsp",
        "mov rcx, rbp",
        "jmp {hook}",
        ".cfi_endproc",
        hook = sym on_reference,
    )
}

/// An object was made, or dies. What was made of a block that was just
/// allocated is known already; any other block comes from a free list.
extern "C" fn on_reference(object: u64, what: i32, sp: u64, bp: u64) -> i32 {
    const CREATE: i32 = 0;
    if what != CREATE || object == 0 {
        return 0;
    }
    // SAFETY: CPython passes a live object.
    let block = unsafe { python::block_of(object) };
    if let Entry::Record(t, session) = enter(Arrival::new(), PYTHON, sp) {
        // SAFETY: this thread's idle state; `sp` is the tracer's own slot.
        unsafe {
            if (*t).newest_object == block {
                (*t).newest_object = 0;
                thread::set_depth(t, depth::IDLE);
                return 0;
            }
            thread::proceed(t, depth::HOOK, sp);
            let stack = capture(t, session, Caller { sp, bp }, true);
            let stamp = thread::stamp(t, session);
            let word = event::head(Kind::Reborn, Domain::Obj as u8, block);
            thread::emit(t, session, [word, stamp, stack.into()]);
            thread::set_depth(t, depth::IDLE);
        }
    }
    0
}
