//! The real functions: the next definitions in lookup order after ours (libc's,
//! or those of a preloaded or linked jemalloc, tcmalloc, mimalloc).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::elf;

macro_rules! reals {
    ($($index:ident = $name:literal),* $(,)?) => {
        /// Which function.
        #[derive(Clone, Copy)]
        #[repr(usize)]
        #[expect(non_camel_case_types, reason = "the functions' own names")]
        pub enum Real { $($index),* }
        const NAMES: &[&core::ffi::CStr] = &[$($name),*];
        static REALS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
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

/// Looks all of them up.
pub fn resolve() {
    for (place, name) in REALS.iter().zip(NAMES) {
        place.store(elf::find_real(name), Ordering::Release);
    }
}

/// Looks a function up that was not there at the start.
pub fn resolve_late(which: Real) {
    let place = &REALS[which as usize];
    if place.load(Ordering::Relaxed) == 0 {
        place.store(elf::find_real(NAMES[which as usize]), Ordering::Release);
    }
}

/// Address of a real function; 0 while not resolved, or where libc has none.
#[inline(always)]
pub fn address(which: Real) -> u64 {
    REALS[which as usize].load(Ordering::Relaxed)
}
