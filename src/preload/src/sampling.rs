//! Sampled mode: which blocks are recorded.
//!
//! A thread that samples rests at [`depth::SAMPLING`], so that the hooks tell
//! the two modes apart by the word that they look at anyway. What is not
//! sampled costs a subtraction at its birth and a byte's look-up at its death
//! (`leakline_wire::sampling`). Both are done by the exported functions themselves
//! where nothing else is to be done (`hooks`, "leaving out").
//!
//! What is left of a thread's countdown is the sum of two words, of which one is 0: one
//! in its thread-local storage, that the exported functions count down from, while it
//! rests; and one in its state, while a hook is at work. So the word in thread-local
//! storage is more than 0 only where a block may be left out without a look at anything
//! else of the thread, and a hook that finds it 0 loses nothing but time.
//!
//! # Invariants
//!
//! * A thread at `SAMPLING` has a countdown of 0 or more, but for the
//!   instructions between the block that ends it and the next draw, and for as long
//!   as a handler that left from there is not followed by another block; and the set
//!   of sampled blocks is there.
//! * The word of a thread at rest may be more than 0 at `IDLE`, too, when it was told
//!   by another that all blocks are recorded: nothing is left out by it before
//!   [`LEAVES_OUT`] says so again.
//! * A birth is sampled or not before the real call, by the countdown alone.
//! * From the first block on that was recorded because all are, every death is told,
//!   also when a sample is recorded later: such blocks are in no set, whose filter
//!   denies no block any more. It is full before the first of them is born, so a
//!   thread that is given one finds it full.
//! * A forked child draws anew: siblings that do the same would else sample the
//!   same, and errors add up instead of cancelling out.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use leakline_wire::sampling::{Generator, MAX_MEAN, SampledSet};

use crate::session::Session;
use crate::thread::{Thread, depth};
use crate::{early, python, sys, thread};

static SET: AtomicPtr<SampledSet> = AtomicPtr::new(null_mut());

/// The filter of [`SET`] once that is there, which `free` looks at before anything
/// else. It denies nothing that matters, whatever the thread that frees is at: see the
/// invariants.
pub static FILTER: AtomicPtr<u8> = AtomicPtr::new(null_mut());

/// What this process records, as far as its threads have noticed. (`SeqCst` with
/// [`SET`]: of who makes the set and who notes that all blocks are recorded, one
/// sees the other.)
static REGIME: AtomicU32 = AtomicU32::new(regime::SAMPLED);

/// Values of [`REGIME`].
mod regime {
    /// A sample of the blocks, ever since the session began.
    pub const SAMPLED: u32 = 0;
    /// A sample, after a time in which all were recorded.
    pub const SAMPLED_AGAIN: u32 = 1;
    /// All of them.
    pub const EXACT: u32 = 2;
}

/// Not 0 once a block of CPython's pools was recorded, in this session: the deaths of
/// such are told by the hooks of their domains alone.
static POOLED: AtomicU32 = AtomicU32::new(0);

/// That was done.
pub fn note_pooled() {
    POOLED.store(1, Ordering::Relaxed);
}

/// Whether there may be blocks whose deaths only the hooks of Python's own domains see.
pub fn needs_deaths() -> bool {
    POOLED.load(Ordering::Relaxed) != 0 || was_exact()
}

/// Not 0 while threads may leave blocks out by their countdowns alone: they sample, as
/// far as has been noticed.
pub static LEAVES_OUT: AtomicU32 = AtomicU32::new(0);

/// Sets [`LEAVES_OUT`] by [`REGIME`]: again where that has changed meanwhile, so that what
/// stands in the end is by what stands there.
fn tell_countdowns() {
    loop {
        let regime = REGIME.load(Ordering::SeqCst);
        LEAVES_OUT.store(u32::from(regime != regime::EXACT), Ordering::SeqCst);
        python::set_pool_limit();
        if REGIME.load(Ordering::SeqCst) == regime {
            return;
        }
    }
}

/// Whether all blocks are recorded now.
#[inline(always)]
fn is_exact() -> bool {
    REGIME.load(Ordering::Relaxed) == regime::EXACT
}

/// Where a thread that has sampled rests.
pub fn rest() -> u32 {
    if is_exact() {
        depth::IDLE
    } else {
        depth::SAMPLING
    }
}

/// Whether there may be live blocks that were recorded because all were.
pub fn was_exact() -> bool {
    REGIME.load(Ordering::SeqCst) != regime::SAMPLED
}

/// A block is about to be recorded because all are.
#[inline(always)]
pub fn note_exact() {
    if !is_exact() {
        begin_exact();
    }
}

#[cold]
#[inline(never)]
fn begin_exact() {
    // First for who makes the set; `EXACT` says that the filter is full.
    let _ = REGIME.compare_exchange(
        regime::SAMPLED,
        regime::SAMPLED_AGAIN,
        Ordering::SeqCst,
        Ordering::SeqCst,
    );
    let set = SET.load(Ordering::SeqCst);
    if !set.is_null() {
        // SAFETY: as in `blocks`.
        unsafe { (*set).deny_nothing() };
    }
    REGIME.store(regime::EXACT, Ordering::SeqCst);
    tell_countdowns();
    // Those that rest do not look at the mode until their next sample.
    thread::end_sampling();
}

/// A sample is recorded. Where another thread has only just read that all are, its
/// word stands until the next hook of a thread that rests.
pub fn note_sampled() {
    let _ = REGIME.compare_exchange(
        regime::EXACT,
        regime::SAMPLED_AGAIN,
        Ordering::SeqCst,
        Ordering::Relaxed,
    );
    if LEAVES_OUT.load(Ordering::Relaxed) == 0 {
        tell_countdowns();
    }
}

/// How many bytes the main thread of a Python program allocates until it looks
/// whether `__main__` was left. Its teardown allocates more before it frees
/// the program's first object.
const LOOK_EVERY: u64 = 2048;

/// And until it also looks at the session, as other threads do at each sample: it may be
/// over, and the next sample far.
const SESSION_EVERY: u64 = 64 * LOOK_EVERY;

/// A thread's countdown.
#[repr(C)]
pub struct Countdown {
    /// Bytes until something is to be done, but for what is in thread-local storage.
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
    /// [`Countdown::is_chosen`]. Also where the countdown was negative before: a
    /// handler allocated, or left for good, between the end of one and the next draw.
    #[inline(always)]
    pub fn passes(&mut self, size: usize) -> bool {
        let bytes = (size as u64).wrapping_add(1);
        let (left, passes) = self.until.overflowing_sub(bytes);
        self.until = left;
        passes || left.cast_signed() < 0
    }

    /// Whether the block that has just passed is sampled: then the next
    /// countdown is drawn, and this is the mean that chose it.
    pub fn is_chosen(&mut self, session: &Session, size: usize, looks: bool) -> Option<u64> {
        if self.goes_on(size, looks) {
            return None;
        }
        let mean = self.mean;
        self.draw(session, looks);
        Some(mean)
    }

    /// Where a block ends a piece of the main thread's countdown, at rest, after which the
    /// session need not be looked at: the next piece begins. False: nothing was done.
    #[inline(always)]
    pub fn begins_piece(&mut self, size: usize) -> bool {
        let left = thread::exchange_countdown(LOOK_EVERY);
        // What the block takes from the next piece and those after it.
        let over = (size as u64).wrapping_add(1).wrapping_sub(left);
        let taken = over.wrapping_add(LOOK_EVERY);
        let begins = self.until == 0
            && over <= LOOK_EVERY
            && self.beyond % SESSION_EVERY >= 2 * LOOK_EVERY
            && taken <= self.beyond;
        if begins {
            self.beyond -= taken;
            self.newest = 0;
        } else {
            thread::exchange_countdown(left);
        }
        begins
    }

    /// The block that has just passed ended no more than a piece of a countdown: the
    /// next piece begins. False: it is sampled, and nothing was done.
    fn goes_on(&mut self, size: usize, looks: bool) -> bool {
        let bytes = (size as u64).wrapping_add(1);
        let until = self.until.wrapping_add(bytes).cast_signed().max(0);
        let left = until.unsigned_abs().saturating_add(self.beyond);
        let goes_on = left >= bytes;
        if goes_on {
            self.newest = 0;
            self.set(left - bytes, looks);
        }
        goes_on
    }

    /// A hook of the thread, which is this one, begins: the countdown is here.
    #[inline(always)]
    pub fn hold(&mut self) {
        self.until = self.until.wrapping_add(thread::exchange_countdown(0));
    }

    /// And is left to the exported functions, when the thread rests.
    #[inline(always)]
    pub fn let_go(&mut self) {
        self.hold();
        thread::exchange_countdown(self.until);
        self.until = 0;
    }

    /// Nothing is recorded just now: looks again later.
    pub fn postpone(&mut self) {
        self.hold();
        self.newest = 0;
        self.until = 1 << 16;
        self.beyond = 0;
    }

    fn set(&mut self, left: u64, looks: bool) {
        self.hold();
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

    /// In a forked child, or for a new session.
    pub fn forget(&mut self) {
        self.generator = Generator::default();
    }
}

fn set_up() -> bool {
    thread::set_up_countdowns();
    if are_there() {
        return true;
    }
    let Some(memory) = sys::map_late(size_of::<SampledSet>()) else {
        return false;
    };
    // Blocks lie all over it.
    sys::keep_small_pages(memory, size_of::<SampledSet>());
    // Zeroed memory is an empty set. One that came second stays unused: few of its
    // pages exist.
    let set: *mut SampledSet = memory.cast();
    if was_exact() {
        // SAFETY: as in `blocks`; nobody else has seen it.
        unsafe { (*set).deny_nothing() };
    }
    // SAFETY: as above.
    watch_early(unsafe { &*set });
    let _ = SET.compare_exchange(null_mut(), set, Ordering::SeqCst, Ordering::SeqCst);
    if was_exact() {
        // SAFETY: there is one.
        unsafe { blocks().deny_nothing() };
    }
    // SAFETY: as above.
    let filter = unsafe { blocks() }.filter().cast_mut();
    FILTER.store(filter, Ordering::Release);
    true
}

/// Forgets all blocks, for a new session. No hook may be at work.
pub fn begin_anew() {
    REGIME.store(regime::SAMPLED, Ordering::SeqCst);
    // Until a thread samples: others' countdowns are the last session's.
    LEAVES_OUT.store(0, Ordering::SeqCst);
    POOLED.store(0, Ordering::Relaxed);
    python::set_pool_limit();
    let set = SET.load(Ordering::Relaxed);
    if !set.is_null() {
        sys::empty(set.cast(), size_of::<SampledSet>());
        // SAFETY: as in `blocks`.
        watch_early(unsafe { &*set });
    }
}

/// Has deaths of early blocks looked at closer, which are no libc's to free.
fn watch_early(set: &SampledSet) {
    early::room()
        .step_by(256)
        .for_each(|address| set.watch(address));
}

/// Whether [`blocks`] may be asked for.
pub fn are_there() -> bool {
    !SET.load(Ordering::Acquire).is_null()
}

/// Has the death of this block looked at closer, by threads that sample. (Where there is
/// no set yet all blocks are recorded, and one that comes will deny nothing.)
pub fn watch(address: u64) {
    if are_there() {
        // SAFETY: there is one.
        unsafe { blocks().watch(address) };
    }
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
