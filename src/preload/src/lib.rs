//! The interposed allocator: hooks, stack capture, rings.
//!
//! This library lives inside other people's programs, preloaded by `leakline
//! run`. Its rules, each kept by the module named:
//!
//! * It allocates nothing from the heap it watches, takes no lock that a
//!   signal handler or a forked child could find taken, and keeps `errno`
//!   (`hooks`, `sys`).
//! * It needs only `dl_iterate_phdr`, `__libc_stack_end` and the memory
//!   functions of libc by link, and finds the rest at run time, so that it
//!   loads into any glibc (`elf`).
//! * It holds no descriptor after start, starts no thread, changes no signal
//!   (`session`).
//! * Each event is whole and published before the program goes on (`thread`).
//! * What it cannot do it counts (`Slot` in `leakline-wire`), and says once.
#![no_std]
#![expect(
    unsafe_code,
    reason = "an interposed allocator is made of raw memory; every block argues its own case"
)]
#![expect(
    unreachable_pub,
    reason = "a cdylib: what is exported is the list in hooks.rs"
)]
#![expect(
    clippy::inline_always,
    reason = "the hot path is one function a hook: calls within it showed in its profile"
)]
#![expect(
    clippy::cast_ptr_alignment,
    reason = "memory from mmap and the session map's parts are aligned to pages or better"
)]

mod cfi;
mod early;
mod elf;
mod hooks;
mod modules;
mod python;
mod real;
mod sampling;
mod session;
mod sys;
mod thread;
mod trie;
mod unwind;

use core::arch::global_asm;

/// A bug of ours must not take the program down with it: the thread stops
/// here, which is bad enough to be found by every test.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::complain(&[b"internal error in the interposer; this thread cannot go on"]);
    loop {
        let _ = sys::futex_wait((&raw const FOREVER).cast(), 0, 999_999_999);
    }
}

static FOREVER: u32 = 0;

global_asm!(
    // core was built to unwind and names this; we never do.
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    "rust_eh_personality: ud2",
    ".weak _Unwind_Resume",
    ".hidden _Unwind_Resume",
    "_Unwind_Resume: ud2",
);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = session::constructor;
