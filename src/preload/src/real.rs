//! The real functions: the next definitions in lookup order after ours (libc's,
//! or those of a preloaded or linked jemalloc, tcmalloc, mimalloc).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::elf;

macro_rules! reals {
    ($($index:ident = $name:literal),* $(,)?) => {
        /// Which function.
        #[derive(Clone, Copy)]
        #[repr(usize)]
        #[expect(non_camel_case_types, reason = "the functions' own names")]
        pub enum Real { $($index),* }
        const NAMES: &[&core::ffi::CStr] = &[$($name),*];
        /// Their addresses, see [`address`].
        pub static REALS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
    };
}

reals! {
    malloc = c"malloc",
    calloc = c"calloc",
    realloc = c"realloc",
    free = c"free",
    posix_memalign = c"posix_memalign",
    aligned_alloc = c"aligned_alloc",
    memalign = c"memalign",
    valloc = c"valloc",
    pvalloc = c"pvalloc",
    mmap = c"mmap",
    munmap = c"munmap",
    mremap = c"mremap",
    dlclose = c"dlclose",
    pthread_getattr_np = c"pthread_getattr_np",
    start_main = c"__libc_start_main",
    exit = c"exit",
    quick_exit = c"quick_exit",
    exit_at_once = c"_exit",
}

/// The executable's own `realloc` and `free`, 0 without. Whoever calls a function
/// of the family that we export and it does not must get to its allocator: what
/// calls its functions in turn is not recorded, they may call on through ours.
static OWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// 1 where we were loaded into a program that was running already, as the last
/// in lookup order: the real functions are what it calls without us.
static LATE: AtomicU32 = AtomicU32::new(0);

/// Whether that is so.
pub fn is_late() -> bool {
    LATE.load(Ordering::Relaxed) != 0
}

/// Looks all of them up in a program that was running when we came.
pub fn resolve_for_late_start() {
    LATE.store(1, Ordering::Relaxed);
    resolve();
}

/// 1 where blocks are libc's own: it calls none of our hooks from within, as another
/// allocator does for its pages.
pub static IS_LIBC: AtomicU32 = AtomicU32::new(0);

/// Whether the real functions that give blocks call no hook.
#[inline(always)]
pub fn is_libc() -> bool {
    IS_LIBC.load(Ordering::Relaxed) != 0
}

/// Looks all of them up.
pub fn resolve() {
    for which in 0..NAMES.len() {
        look_up(which);
    }
    note_libc();
    for (place, name) in OWN.iter().zip([c"realloc", c"free"]) {
        place.store(elf::find_own(name), Ordering::Release);
    }
}

/// The executable's own `realloc`.
pub fn own_realloc() -> Option<u64> {
    Some(OWN[0].load(Ordering::Relaxed)).filter(|&address| address != 0)
}

/// The executable's own `free`.
pub fn own_free() -> Option<u64> {
    Some(OWN[1].load(Ordering::Relaxed)).filter(|&address| address != 0)
}

fn note_libc() {
    let (start, end) = elf::span_of(address(Real::start_main));
    let is_there = address(Real::malloc) != 0 && address(Real::realloc) != 0;
    let is_libc = [
        Real::malloc,
        Real::calloc,
        Real::realloc,
        Real::posix_memalign,
        Real::aligned_alloc,
        Real::memalign,
        Real::valloc,
        Real::pvalloc,
    ]
    .into_iter()
    .all(|which| matches!(address(which), 0) || (start..end).contains(&address(which)));
    IS_LIBC.store((is_there && is_libc).into(), Ordering::Relaxed);
}

fn look_up(which: usize) {
    let address = if LATE.load(Ordering::Relaxed) == 0 {
        elf::find_next(NAMES[which])
    } else {
        elf::find(NAMES[which])
    };
    REALS[which].store(address, Ordering::Release);
}

/// Looks up what was not there at the start.
pub fn resolve_missing() {
    for (which, place) in REALS.iter().enumerate() {
        if place.load(Ordering::Relaxed) == 0 {
            look_up(which);
        }
    }
}

/// Looks a function up that was not there at the start.
pub fn resolve_late(which: Real) {
    if REALS[which as usize].load(Ordering::Relaxed) == 0 {
        look_up(which as usize);
    }
}

/// Address of a real function; 0 while not resolved, or where libc has none.
#[inline(always)]
pub fn address(which: Real) -> u64 {
    REALS[which as usize].load(Ordering::Relaxed)
}
