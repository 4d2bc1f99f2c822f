//! Sampled mode: which blocks are recorded.
//!
//! A thread that samples rests at [`depth::SAMPLING`], so that the hooks tell
//! the two modes apart by the word that they look at anyway. What is not
//! sampled costs a subtraction at its birth and a byte's look-up at its death
//! (`leakline_wire::sampling`).
//!
//! # Invariants
//!
//! * A thread at `SAMPLING` has a countdown of 0 or more, but for the
//!   instructions between the block that ends it and the next draw; and the set
//!   of sampled blocks is there.
//! * A birth is sampled or not before the real call, by the countdown alone.
//! * A forked child draws anew: siblings that do the same would else sample the
//!   same, and errors add up instead of cancelling out.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use leakline_wire::sampling::{Generator, MAX_MEAN, SampledSet};

use crate::session::Session;
use crate::thread::Thread;
use crate::{python, sys};

#[cfg(doc)]
use crate::thread::depth;

static SET: AtomicPtr<SampledSet> = AtomicPtr::new(null_mut());

/// How many bytes the main thread of a Python program allocates until it looks
/// whether `__main__` was left. Its teardown allocates more before it frees
/// the program's first object.
const LOOK_EVERY: u64 = 2048;

/// A thread's countdown.
#[repr(C)]
pub struct Countdown {
    /// Bytes until something is to be done.
    until: u64,
    /// Bytes from then on until the next sample.
    beyond: u64,
    /// The mean of the distribution that it was drawn from.
    mean: u64,
    generator: Generator,
    /// The sampled block that is the thread's latest allocation so far, if
    /// `until` still is what it was then.
    newest: u64,
    newest_until: u64,
}

impl Countdown {
    /// Counts a block. True: something is to be done, see
    /// [`Countdown::is_chosen`].
    #[inline(always)]
    pub fn passes(&mut self, size: usize) -> bool {
        let bytes = (size as u64).wrapping_add(1);
        let (left, passes) = self.until.overflowing_sub(bytes);
        self.until = left;
        passes
    }

    /// Whether the block that has just passed is sampled: then the next
    /// countdown is drawn, and this is the mean that chose it.
    pub fn is_chosen(&mut self, session: &Session, size: usize, looks: bool) -> Option<u64> {
        let bytes = (size as u64).wrapping_add(1);
        let left = self.until.wrapping_add(bytes).saturating_add(self.beyond);
        if left >= bytes {
            self.newest = 0;
            self.set(left - bytes, looks);
            return None;
        }
        let mean = self.mean;
        self.draw(session, looks);
        Some(mean)
    }

    /// Nothing is recorded just now: looks again later.
    pub fn postpone(&mut self) {
        self.newest = 0;
        self.until = 1 << 16;
        self.beyond = 0;
    }

    fn set(&mut self, left: u64, looks: bool) {
        let until = if looks { left.min(LOOK_EVERY) } else { left };
        self.beyond = left - until;
        self.until = until;
    }

    fn draw(&mut self, session: &Session, looks: bool) {
        if !self.generator.is_seeded() {
            let place = &raw const *self as u64;
            let thread = u64::from(sys::getpid()) << 32 | u64::from(sys::gettid());
            let mixed = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.rotate_left(20);
            self.generator = Generator::seeded(mixed ^ sys::tsc());
        }
        let mean = session.header().sample_mean.load(Ordering::Relaxed);
        self.mean = mean.clamp(1, MAX_MEAN);
        self.newest = 0;
        let left = self.generator.countdown(self.mean);
        self.set(left.unsigned_abs(), looks);
    }

    /// Begins, or goes on where the thread left. False: there is no memory.
    pub fn prepare(&mut self, session: &Session, looks: bool) -> bool {
        if !set_up() {
            return false;
        }
        if !self.generator.is_seeded() {
            self.draw(session, looks);
        }
        true
    }

    /// A sampled block was born.
    pub fn remember(&mut self, address: u64) {
        self.newest = address;
        self.newest_until = self.until;
    }

    /// Whether nothing was allocated since this sampled block was born.
    pub fn is_temporary(&self, address: u64) -> bool {
        self.newest == address && self.newest_until == self.until
    }

    /// In a forked child.
    pub fn forget(&mut self) {
        self.generator = Generator::default();
    }
}

fn set_up() -> bool {
    if are_there() {
        return true;
    }
    let Some(memory) = sys::map_late(size_of::<SampledSet>()) else {
        return false;
    };
    // Blocks lie all over it.
    sys::keep_small_pages(memory, size_of::<SampledSet>());
    // Zeroed memory is an empty set. One that came second stays unused: none
    // of its pages exists.
    let _ = SET.compare_exchange(
        null_mut(),
        memory.cast(),
        Ordering::AcqRel,
        Ordering::Acquire,
    );
    true
}

/// Forgets all blocks, for a new session. No hook may be at work.
pub fn begin_anew() {
    let set = SET.load(Ordering::Relaxed);
    if !set.is_null() {
        sys::empty(set.cast(), size_of::<SampledSet>());
    }
}

/// Whether [`blocks`] may be asked for.
pub fn are_there() -> bool {
    !SET.load(Ordering::Acquire).is_null()
}

/// The sampled blocks of this process.
///
/// # Safety
///
/// A thread must have been prepared: [`Countdown::prepare`].
#[inline(always)]
pub unsafe fn blocks() -> &'static SampledSet {
    // SAFETY: not null since `set_up`, zeroed then, and never unmapped; a page
    // is aligned enough.
    unsafe { &*SET.load(Ordering::Relaxed) }
}

/// Whether a thread looks after `__main__`.
///
/// # Safety
///
/// `t` must be this thread's state.
pub unsafe fn looks(t: *mut Thread) -> bool {
    // SAFETY: the caller's.
    unsafe { (*t).is_main && python::is_there() }
}
