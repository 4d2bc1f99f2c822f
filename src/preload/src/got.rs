//! Redirects the calls of objects that were linked before we came: their
//! global offset tables hold the addresses of the functions that we observe.
//!
//! # Invariants
//!
//! * Only a word that holds the address of the real function, or leads the
//!   first call there, is changed, and only one that holds ours is changed back.
//!   So whatever else the program put there stays. Where more than one object
//!   defines a function, it is not known where a first call would lead: such
//!   words are left until it was made.
//! * A word is changed by one store: who calls meanwhile gets to the one
//!   function or to the other, and both are right at any time.
//! * Nothing is changed in an object that is being relocated, and no page gets
//!   other rights than it had: pages that shall become read-only and are not yet
//!   tell of one that the loader is still busy with.
//! * Everything here runs with the loader's list locked (`elf::each_object`), so
//!   that no object goes away meanwhile.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::hooks::{self, OBSERVED};
use crate::{elf, sys};

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the real functions to ours.
    In,
    /// And back.
    Out,
}

/// What the program calls without us, in the order of
/// [`hooks::observed`]; 0 where there is no such function.
static REAL: [AtomicU64; OBSERVED] = [const { AtomicU64::new(0) }; OBSERVED];
/// Objects that define each of them.
static DEFINERS: [AtomicU32; OBSERVED] = [const { AtomicU32::new(0) }; OBSERVED];
/// Words that should be changed and cannot be written to.
static OUT_OF_REACH: AtomicU32 = AtomicU32::new(0);
/// Whether this process is redirected: 1 from when it begins.
static IS_ON: AtomicU32 = AtomicU32::new(0);
/// Whether objects that come are to be redirected.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed) != 0
}

/// Finds the functions that are to be redirected. Objects are, as they are
/// looked at (`modules`).
///
/// Not to be called from within [`elf::each_object`].
pub fn begin() {
    look_up();
    IS_ON.store(1, Ordering::Release);
}

fn look_up() {
    let is_with_free = |address: u64, free: u64| {
        let (start, end) = elf::span_of(free);
        (start..end).contains(&address)
    };
    let free = elf::find(c"free");
    for (place, (name, _)) in REAL.iter().zip(hooks::observed()) {
        let mut address = elf::find(name);
        // What only some library defines, for blocks of its own allocator.
        let is_rare = [c"cfree", c"free_sized", c"free_aligned_sized"].contains(name);
        if is_rare && !is_with_free(address, free) {
            address = 0;
        }
        place.store(address, Ordering::Release);
    }
    count_definers();
}

/// Looks who defines the functions: again when libraries came.
fn count_definers() {
    let mut definers = [0; OBSERVED];
    elf::each_object(|object| {
        if !object.is_ours() && !is_loader(object) {
            for (count, (name, _)) in definers.iter_mut().zip(hooks::observed()) {
                *count += u32::from(object.symbol(name) != 0);
            }
        }
        false
    });
    for (place, count) in DEFINERS.iter().zip(definers) {
        place.store(count, Ordering::Relaxed);
    }
}

/// Libraries were loaded since. Not to be called from within
/// [`elf::each_object`].
pub fn libraries_came() {
    if is_on() {
        count_definers();
    }
}

/// Words that could not be changed, once.
pub fn take_out_of_reach() -> u32 {
    OUT_OF_REACH.swap(0, Ordering::Relaxed)
}

/// Puts everything back as it was. Words that still lead to us afterwards are
/// copies that the program made: they go on doing what they should. False where
/// the loader's list is lost.
pub fn end() -> bool {
    IS_ON.store(0, Ordering::Relaxed);
    elf::each_object(|object| {
        let _ = redirect(object, Direction::Out, true);
        false
    })
}

/// Changes the words of one object. False: it may be that it is being relocated,
/// and it has to be looked at again; unless `is_settled`, when its pages are as
/// they will be, whatever they are.
///
/// To be called from within [`elf::each_object`].
pub fn redirect(object: &elf::PhdrInfo, direction: Direction, is_settled: bool) -> bool {
    if object.is_ours() || is_loader(object) {
        return true;
    }
    let Some(tables) = object.relocations() else {
        return true;
    };
    let (start, end) = object.read_only_after_relocation();
    // Another tool may have left them so.
    let is_open_anyway = start < end && sys::is_writable(start);
    if is_open_anyway && !is_settled {
        return false;
    }
    let own = object.span();
    let mut is_open = is_open_anyway;
    // SAFETY: the object is in the loader's list, which is locked.
    unsafe {
        tables.each(|reference| {
            let slot = reference.slot;
            if !slot.is_multiple_of(8) || slot < own.0 || slot + 8 > own.1 {
                return;
            }
            let now = sys::word(slot);
            let Some(new) = replacement(now, reference, own, direction) else {
                return;
            };
            let is_in_reach = if (start..end).contains(&slot) {
                is_open = is_open || sys::protect(start, end - start, true);
                is_open
            } else {
                sys::is_writable(slot)
            };
            if !is_in_reach {
                OUT_OF_REACH.fetch_add(1, Ordering::Relaxed);
            }
            if is_in_reach {
                // The program may be reading the word: one store.
                (*(slot as *const AtomicU64)).store(new, Ordering::Release);
            }
        });
        if is_open && !is_open_anyway {
            sys::protect(start, end - start, false);
        }
    }
    true
}

/// What belongs into a word that holds `now`; `None`: it is to stay.
fn replacement(
    now: u64,
    reference: &elf::Reference<'_>,
    own: (u64, u64),
    direction: Direction,
) -> Option<u64> {
    // Names are compared last: there are thousands of words, and a few values.
    let is_unbound = direction == Direction::In
        && !reference.is_own
        && reference
            .lazy_number
            .is_some_and(|number| (own.0..own.1).contains(&now) && leads_to_binding(now, number));
    let mut observed = REAL.iter().zip(&DEFINERS).zip(hooks::observed());
    observed.find_map(|((real, definers), (name, hook))| {
        let real = real.load(Ordering::Relaxed);
        let hook = *hook as *const () as u64;
        let (is_it, new) = match direction {
            Direction::In => {
                let is_sure = definers.load(Ordering::Relaxed) == 1;
                (now == real || is_unbound && is_sure, hook)
            }
            Direction::Out => (now == hook, real),
        };
        (is_it && real != 0 && reference.name == *name).then_some(new)
    })
}

/// Whether the code at an address, of the object that refers to it, is what has
/// reference `number` bound: `push NUMBER`, behind a landing pad perhaps.
fn leads_to_binding(address: u64, number: u32) -> bool {
    const LANDING_PAD: u32 = u32::from_le_bytes([0xf3, 0x0f, 0x1e, 0xfa]);
    const PUSH: u8 = 0x68;
    // SAFETY: code of an object that is loaded: 9 bytes of it, on a page that was
    // called through until now, or the next one.
    unsafe {
        let mut at = address;
        if (at as *const u32).read_unaligned() == LANDING_PAD {
            at += 4;
        }
        (at as *const u8).read() == PUSH && ((at + 1) as *const u32).read_unaligned() == number
    }
}

/// The loader calls its own allocator, or libc's by pointers of its own; and
/// it must not be changed while it works.
fn is_loader(object: &elf::PhdrInfo) -> bool {
    let path = object.name().to_bytes();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    name.starts_with(b"ld-linux") || name.starts_with(b"ld-2.") || name.starts_with(b"ld.so")
}
