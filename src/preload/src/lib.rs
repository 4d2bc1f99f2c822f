//! The interposed allocator: hooks, stack capture, rings.
//!
//! This library lives inside other people's programs, preloaded by `leakline
//! run`. Its rules, each kept by the module named:
//!
//! * It allocates nothing from the heap it watches, takes no lock that a
//!   signal handler or a forked child could find taken, and keeps `errno`
//!   (`hooks`, `sys`).
//! * It needs only `dl_iterate_phdr`, `__register_atfork`, `__libc_stack_end` and the memory
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
mod got;
mod graph;
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

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

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

/// Bytes of [`leakline_argument`].
const ARGUMENT_BYTES: usize = 512;

/// What an attach and the functions that it calls say to each other: before, a
/// session's invitation; after, `ok` or what went wrong, as text. Both end with a
/// NUL.
#[repr(transparent)]
pub struct Argument(UnsafeCell<[u8; ARGUMENT_BYTES]>);
// SAFETY: written by a debugger while nobody of us looks, and by the one function
// that it calls.
unsafe impl Sync for Argument {}

/// See [`Argument`].
#[unsafe(no_mangle)]
pub static leakline_argument: Argument = Argument(UnsafeCell::new([0; ARGUMENT_BYTES]));

/// What [`leakline_leave`] is asked by.
const LEAVE: &[u8] = b"leave";

/// Takes what is asked, if `is_it`: it is not answered twice. CPython may come to
/// a call that was given up on when the next thing is asked, or nothing.
fn take_request(is_it: impl Fn(&[u8]) -> bool) -> Option<[u8; ARGUMENT_BYTES]> {
    // SAFETY: see `Argument`.
    let room = unsafe { &mut *leakline_argument.0.get() };
    let length = room.iter().position(|byte| *byte == 0)?;
    is_it(&room[..length]).then(|| {
        let request = *room;
        room[0] = 0;
        request
    })
}

fn answer(text: &[u8]) {
    // SAFETY: see `Argument`.
    let room = unsafe { &mut *leakline_argument.0.get() };
    let length = text.len().min(ARGUMENT_BYTES - 1);
    // Its first byte last: before, there is no answer.
    for (to, from) in room.iter_mut().zip(text).skip(1) {
        *to = *from;
    }
    room[length] = 0;
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
    room[0] = text.first().copied().unwrap_or(0);
}

/// Starts recording in a program that is running: see [`session::attach`]. What is
/// asked, and the answer, are in [`leakline_argument`]. Also a function that CPython
/// may call as a pending one: it gives 0.
///
/// # Safety
///
/// To be called by a thread that holds none of libc's or the loader's locks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leakline_attach(_: *const core::ffi::c_char) -> i32 {
    attach(session::ATTACH_PATIENCE_MS)
}

/// As [`leakline_attach`], called by the program itself, which waits for a collector
/// that takes its time.
///
/// # Safety
///
/// As for [`leakline_attach`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leakline_join(_: *const core::ffi::c_char) -> i32 {
    attach(session::OWN_PATIENCE_MS)
}

fn attach(patience_ms: u64) -> i32 {
    if let Some(request) = take_request(session::is_invitation) {
        let length = request.iter().position(|byte| *byte == 0).unwrap_or(0);
        match session::attach(&request[..length], patience_ms) {
            Ok(()) => answer(b"ok"),
            Err(why) => answer(why),
        }
    }
    0
}

/// Puts the program back as it was: see [`session::Session::leave`].
///
/// # Safety
///
/// As for [`leakline_attach`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leakline_leave(_: *const core::ffi::c_char) -> i32 {
    if take_request(|text| text == LEAVE).is_some() {
        session::leave_from_outside();
        // A session that the program was started for is not left, nor is one from
        // within a hook.
        answer(if session::is_joined() {
            b"it is recorded from its start, or a hook is at work on this thread"
        } else {
            b"ok"
        });
    }
    0
}

/// Longest name of a mark; what is longer is cut.
const MARK_BYTES: usize = 200;

/// Marks this instant by a name, `length` bytes of UTF-8, in the session of this
/// process. Gives 0, or -1 where there is no session or the mark was lost.
///
/// # Safety
///
/// `name` must point to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn leakline_mark(name: *const u8, length: usize) -> i32 {
    let sp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    // SAFETY: the caller's.
    let name = unsafe { core::slice::from_raw_parts(name, length.min(MARK_BYTES)) };
    if hooks::mark(name, sp) { 0 } else { -1 }
}

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
