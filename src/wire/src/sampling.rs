//! Choosing blocks in sampled mode, and knowing which were chosen.
//!
//! A thread counts down over the bytes that it allocates, one more for each
//! block so that empty ones count too, and samples the block that takes the
//! countdown below zero. Countdowns are drawn from an exponential distribution
//! of some mean `T`. That distribution has no memory: a block of `s` bytes is
//! sampled with probability `1 - exp(-(s + 1) / T)` whatever came before, also
//! where a countdown is thrown away half-way and drawn anew.
//!
//! The deaths of sampled blocks are found in a [`SampledSet`]: a filter that
//! every `free` asks, small enough for the second-level cache, and a table
//! behind it. A block is put in after the real allocation and taken out before
//! the real `free`, so whoever takes it out is its one owner.
//!
//! Nothing here is shared between processes, locks, or waits: a signal handler
//! may come at any instant, and a forked child goes on with its copy.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Largest mean, in bytes.
pub const MAX_MEAN: u64 = 1 << 30;

/// A thread's source of countdowns. Zeroed memory is one that was not seeded.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Generator(u64);

impl Generator {
    /// One that goes its own way for each seed.
    pub const fn seeded(seed: u64) -> Self {
        // Seeds that differ in a bit must not begin alike (splitmix64).
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Generator((state ^ (state >> 31)) | 1)
    }

    /// Whether it was seeded.
    pub const fn is_seeded(self) -> bool {
        self.0 != 0
    }

    /// A number of 1 to 2^64 - 1, all alike (xorshift; the product hides its
    /// linearity).
    fn next(&mut self) -> u64 {
        let mut state = self.0;
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0 = state;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).max(1)
    }

    /// Bytes until the next sample, rounded down.
    pub fn countdown(&mut self, mean: u64) -> i64 {
        let unit = negative_log(self.next());
        let mean = mean.clamp(1, MAX_MEAN);
        ((u128::from(mean) * u128::from(unit)) >> 32) as i64
    }
}

/// `-ln(number / 2^64)` in units of 2^-32; `number` is not 0.
///
/// Bit by bit, by squaring: a sample takes so much longer than these 32 steps
/// that no table is worth its lines of cache.
fn negative_log(number: u64) -> u64 {
    const LN_2: u128 = 0xb172_17f8; // 2^32 ln 2
    let zeros = number.leading_zeros();
    // 1 to 2, in units of 2^-63.
    let mut mantissa = number << zeros;
    let mut fraction = 0u64;
    let mut bit = 0;
    while bit < 32 {
        let square = u128::from(mantissa) * u128::from(mantissa);
        fraction <<= 1;
        if square >> 127 != 0 {
            fraction |= 1;
            mantissa = (square >> 64) as u64;
        } else {
            mantissa = (square >> 63) as u64;
        }
        bit += 1;
    }
    let log_2 = ((u64::from(zeros) + 1) << 32) - fraction;
    ((u128::from(log_2) * LN_2) >> 32) as u64
}

/// Counters of the filter.
pub const CELLS: usize = 1 << 16;
/// Bytes of address space to a counter, as a shift: neighbours share a line of
/// cache, and 32 MiB on the counters are used again.
pub const CELL_SHIFT: u32 = 9;
/// A counter that has come here stays: how many are behind it is not known.
const MANY: u8 = u8::MAX;

/// Slots of a bucket: a line of cache.
const WAYS: usize = 8;
const BUCKETS: usize = 1 << 16;

/// Most sampled blocks that live at once, roughly: a block has two buckets, and
/// there is room as long as one of them has some.
pub const CAPACITY: usize = BUCKETS * WAYS;

/// The sampled blocks of a process that live.
///
/// Zeroed memory is an empty one: 4 MiB and 64 KiB, of which few blocks touch
/// few pages.
#[derive(Debug)]
pub struct SampledSet {
    filter: [AtomicU8; CELLS],
    slots: [AtomicU64; CAPACITY],
}

impl SampledSet {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "three instructions of every `free`")]
    fn cell(&self, address: u64) -> &AtomicU8 {
        &self.filter[(address >> CELL_SHIFT) as usize % CELLS]
    }

    /// Whether a block may be one of them: false is certain.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "three instructions of every `free`")]
    pub fn may_have(&self, address: u64) -> bool {
        self.cell(address).load(Ordering::Relaxed) != 0
    }

    /// The filter: [`CELLS`] counters, in turns for each `1 << CELL_SHIFT` bytes of
    /// address space. One that is 0 denies.
    pub fn filter(&self) -> *const u8 {
        self.filter.as_ptr().cast()
    }

    /// Has [`SampledSet::may_have`] say of every block, from now on, that it may be
    /// one of them.
    pub fn deny_nothing(&self) {
        for cell in &self.filter {
            cell.store(MANY, Ordering::Relaxed);
        }
    }

    /// Has [`SampledSet::may_have`] say of this block, and of its neighbours, that it
    /// may be one of them, from now on: another cause to look closer at its death.
    pub fn watch(&self, address: u64) {
        self.cell(address).store(MANY, Ordering::Relaxed);
    }

    /// The slots in which a block may be.
    fn places(&self, address: u64) -> [&[AtomicU64]; 2] {
        let hash = (address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let first = (hash >> 48) as usize % BUCKETS;
        let second = (first ^ (1 + (hash >> 32) as usize % (BUCKETS - 1))) % BUCKETS;
        [first, second].map(|bucket| &self.slots[bucket * WAYS..][..WAYS])
    }

    /// Adds a block; false when there is no room for it. `address` is not 0.
    pub fn insert(&self, address: u64) -> bool {
        let places = self.places(address);
        let has = |slot: &AtomicU64| slot.load(Ordering::Relaxed) == address;
        if places.iter().any(|bucket| bucket.iter().any(has)) {
            // Its death was missed: the block that is there now takes over.
            return true;
        }
        // First, so that no slot is ever taken behind a filter that denies it.
        let cell = self.cell(address);
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count != MANY).then(|| count + 1)
        });
        let free = |bucket: &&[AtomicU64]| {
            let is_free = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) == 0;
            bucket.iter().filter(is_free).count()
        };
        let [first, second] = places;
        let (better, other) = if free(&second) > free(&first) {
            (second, first)
        } else {
            (first, second)
        };
        let taken = better.iter().chain(other).any(|slot| {
            slot.compare_exchange(0, address, Ordering::Release, Ordering::Relaxed)
                .is_ok()
        });
        if !taken {
            self.discount(address);
        }
        taken
    }

    /// Takes a block out; false when it is not there. Of several that ask at
    /// once, one is told that it was.
    pub fn remove(&self, address: u64) -> bool {
        let taken = self.places(address).into_iter().flatten().any(|slot| {
            slot.compare_exchange(address, 0, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        });
        if taken {
            self.discount(address);
        }
        taken
    }

    fn discount(&self, address: u64) {
        let cell = self.cell(address);
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count != MANY && count != 0).then(|| count - 1)
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn logarithms_are_right() {
        let exact = |number: u64| -(number as f64 / 2f64.powi(64)).ln() * 2f64.powi(32);
        for number in [
            1,
            2,
            3,
            1 << 20,
            1 << 63,
            u64::MAX / 3,
            u64::MAX - 1,
            u64::MAX,
        ] {
            let difference = negative_log(number) as f64 - exact(number);
            assert!(difference.abs() < 24.0, "{number}: {difference}");
        }
    }

    /// Mean, variance and the whole distribution, over 400,000 draws.
    #[test]
    fn countdowns_are_exponential() {
        const DRAWS: usize = 400_000;
        const MEAN: u64 = 512 * 1024;
        let mut generator = Generator::seeded(7);
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| generator.countdown(MEAN) as f64 / MEAN as f64)
            .collect();
        let mean = drawn.iter().sum::<f64>() / DRAWS as f64;
        let squares = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        let variance = squares / DRAWS as f64;
        // Four standard errors: of the mean 1, of the variance sqrt(8).
        let error = 4.0 / (DRAWS as f64).sqrt();
        assert!((mean - 1.0).abs() < error, "mean {mean}");
        assert!(
            (variance - 1.0).abs() < error * 8f64.sqrt(),
            "variance {variance}"
        );
        // Kolmogorov and Smirnov: 1.95 / sqrt(n) at a level of one in 1,000.
        drawn.sort_by(f64::total_cmp);
        let distance = drawn.iter().enumerate().map(|(at, x)| {
            let share = 1.0 - (-x).exp();
            let (below, above) = (at as f64 / DRAWS as f64, (at + 1) as f64 / DRAWS as f64);
            (share - below).abs().max((above - share).abs())
        });
        let most = distance.fold(0.0, f64::max);
        assert!(most < 1.95 / (DRAWS as f64).sqrt(), "distance {most}");
    }

    /// What follows a draw does not depend on it.
    #[test]
    fn countdowns_are_independent() {
        const DRAWS: usize = 200_000;
        let mut generator = Generator::seeded(1);
        let drawn: Vec<f64> = (0..DRAWS)
            .map(|_| generator.countdown(1 << 20) as f64 / f64::from(1 << 20) - 1.0)
            .collect();
        let products = drawn.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>();
        let correlation = products / DRAWS as f64;
        assert!(
            correlation.abs() < 4.0 / (DRAWS as f64).sqrt(),
            "{correlation}"
        );
    }

    #[test]
    fn neighbouring_seeds_begin_differently() {
        let mean = (0..10_000)
            .map(|seed| Generator::seeded(seed).countdown(1 << 20) as f64 / f64::from(1 << 20))
            .sum::<f64>()
            / 10_000.0;
        assert!((mean - 1.0).abs() < 0.04, "{mean}");
    }

    /// Blocks of each size are chosen as often as is said, from a mix.
    #[test]
    fn blocks_are_chosen_by_their_size() {
        const MEAN: u64 = 4096;
        const ROUNDS: u64 = 400_000;
        let sizes = [0u64, 15, 100, 1000, 4095, 20_000];
        let mut chosen = [0u64; 6];
        let mut generator = Generator::seeded(3);
        let mut until = generator.countdown(MEAN);
        for _ in 0..ROUNDS {
            for (size, chosen) in sizes.iter().zip(&mut chosen) {
                until -= *size as i64 + 1;
                if until < 0 {
                    *chosen += 1;
                    until = generator.countdown(MEAN);
                }
            }
        }
        for (size, chosen) in sizes.iter().zip(chosen) {
            let p = -(-((size + 1) as f64) / MEAN as f64).exp_m1();
            let expected = ROUNDS as f64 * p;
            let deviation = (expected * (1.0 - p)).sqrt().max(1.0);
            let off = (chosen as f64 - expected) / deviation;
            assert!(off.abs() < 4.5, "{size}: {chosen} for {expected}");
        }
    }

    #[test]
    fn a_full_set_refuses_and_goes_on() {
        let set = SampledSet::boxed();
        let address = |at: u64| 0x7f00_0000_0000 + at * 48;
        let mut held = Vec::new();
        let mut refused = 0;
        for at in 0..CAPACITY as u64 + 10_000 {
            if set.insert(address(at)) {
                held.push(at);
            } else {
                refused += 1;
            }
        }
        assert!(refused > 0);
        assert!(held.len() > CAPACITY * 8 / 10, "{} held", held.len());
        assert!(
            held.iter()
                .all(|at| set.may_have(address(*at)) && set.remove(address(*at)))
        );
        assert!(held.iter().all(|at| !set.remove(address(*at))));
        assert!(set.insert(address(1)) && set.remove(address(1)));
    }

    #[test]
    fn a_filter_that_denies_nothing_stays_so() {
        let set = SampledSet::boxed();
        assert!(set.insert(0x1000));
        set.deny_nothing();
        assert!(set.insert(0x2000));
        assert!(set.remove(0x1000) && set.remove(0x2000) && !set.remove(0x3000));
        assert!([0x1000, 0x2000, 0x3000].iter().all(|at| set.may_have(*at)));
    }

    #[test]
    fn a_watched_block_is_never_denied() {
        let set = SampledSet::boxed();
        set.watch(0x1000);
        assert!(set.may_have(0x1000) && !set.may_have(0x2000));
        assert!(!set.remove(0x1000) && set.insert(0x1008) && set.remove(0x1008));
        assert!(set.may_have(0x1000));
    }

    #[test]
    fn one_of_several_takers_gets_it() {
        let set = SampledSet::boxed();
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (set, taken) = (&set, &taken);
                scope.spawn(move || {
                    for round in 0..20_000u64 {
                        let own = 0x1000 + (thread * 20_000 + round) * 16;
                        assert!(set.insert(own));
                        // Two ask for each.
                        let other = 0x1000 + ((thread ^ 1) * 20_000 + round) * 16;
                        for address in [own, other] {
                            taken.fetch_add(set.remove(address).into(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let left = (0..80_000u64)
            .filter(|at| set.remove(0x1000 + at * 16))
            .count() as u64;
        assert_eq!(taken.into_inner() + left, 80_000);
        assert!(set.filter.iter().all(|cell| {
            let count = cell.load(Ordering::Relaxed);
            count == 0 || count == MANY
        }));
    }

    impl SampledSet {
        fn boxed() -> Box<Self> {
            let mut set = Box::<Self>::new_uninit();
            // SAFETY: zero is a valid value of every atomic in it, and all of
            // it is written.
            #[expect(unsafe_code, reason = "4 MiB do not fit on a test's stack")]
            unsafe {
                set.as_mut_ptr().write_bytes(0, 1);
                set.assume_init()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 1u64..64), 0..400)) {
            let set = SampledSet::boxed();
            let mut known = HashSet::new();
            for (is_birth, at) in steps {
                let address = at * 0x1_0010;
                if is_birth {
                    prop_assert!(set.insert(address));
                    known.insert(address);
                } else {
                    prop_assert_eq!(set.remove(address), known.remove(&address));
                }
                prop_assert!(known.iter().all(|address| set.may_have(*address)));
            }
        }
    }
}
