//! What a sampled block stands for.
//!
//! A block of `s` bytes that a countdown of mean `T` chose was chosen with the
//! probability `p = 1 - exp(-(s + 1) / T)`. So it stands for `1 / p` blocks and
//! `s / p` bytes: over all that might have been chosen such sums are right on
//! average (Horvitz and Thompson). Weights are taken block by block; a site's
//! average size would be biased where sizes differ.
//!
//! Counters are integers. Bytes are rounded; `1 / p` is rounded up as often as
//! its fraction says, by a hash of the block's address and stamp, so that sums
//! stay right on average, and a death takes away what the birth added.
//!
//! # Where a weight is kept
//!
//! In the size that the live table has for a block anyway: 47 bits, of which a
//! sampled block's size takes 40 (more is cut), the number of its mean six,
//! and whether its count was rounded up the last. Number 0 is no mean: blocks
//! of an exact session, and mappings, count as they are.

use leakline_recording::record::{Record, Scatter, SiteScatter};
use leakline_wire::sampling::MAX_MEAN;
use rustc_hash::FxHashMap;

use crate::cohorts::Amount;
use crate::live::Block;

const SIZE_BITS: u32 = 40;
const ROUNDED_UP: u64 = 1 << SIZE_BITS;
const MEAN_SHIFT: u32 = SIZE_BITS + 1;
/// Most means of a session; later ones count as the nearest of them.
const MOST_MEANS: usize = 63;

/// A block as it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// What was asked for.
    pub(crate) size: u64,
    /// What it stands for.
    pub(crate) amount: Amount,
}

impl Weighed {
    /// One block that stands for itself.
    #[inline]
    pub(crate) fn itself(size: u64) -> Self {
        Weighed {
            size,
            amount: Amount {
                blocks: 1,
                bytes: size,
            },
        }
    }
}

/// A sampled block's figures.
#[derive(Clone, Copy, Debug)]
struct Sample {
    weighed: Weighed,
    /// What it adds to the variance of its site's bytes, and of its blocks.
    variance: [f64; 2],
}

impl Sample {
    fn new(size: u64, mean: u64, is_rounded_up: bool) -> Self {
        let p = probability(size, mean);
        let blocks = 1.0 / p;
        let rest = blocks.fract();
        let bytes = size as f64 / p;
        Sample {
            weighed: Weighed {
                size,
                amount: Amount {
                    blocks: blocks as u64 + u64::from(is_rounded_up),
                    bytes: bytes.round() as u64,
                },
            },
            // Of the estimate sum of w over what was chosen, estimated from
            // what was chosen: sum of w^2 (1 - p). Rounding adds its own.
            variance: [
                bytes * bytes * (1.0 - p),
                blocks * blocks * (1.0 - p) + rest * (1.0 - rest),
            ],
        }
    }
}

/// With which a block of this size is chosen.
fn probability(size: u64, mean: u64) -> f64 {
    -(-(size as f64 + 1.0) / mean as f64).exp_m1()
}

/// Sums of a site's samples.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    amount: [f64; 2],
    variance: [f64; 2],
}

impl Sums {
    fn add(&mut self, sample: &Sample, sign: f64) {
        let amount = sample.weighed.amount;
        self.amount[0] += sign * amount.bytes as f64;
        self.amount[1] += sign * amount.blocks as f64;
        self.variance[0] += sign * sample.variance[0];
        self.variance[1] += sign * sample.variance[1];
    }

    /// Variance for each byte and each block of the estimate.
    fn scatter(&self) -> [f64; 2] {
        [0, 1].map(|at| {
            if self.amount[at] > 0.5 {
                (self.variance[at] / self.amount[at]).max(0.0)
            } else {
                0.0
            }
        })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct SiteSums {
    live: Sums,
    total: Sums,
    samples: u64,
    /// Samples when the recording was last told.
    told: u64,
    is_listed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    means: Vec<u64>,
    sites: FxHashMap<u32, SiteSums>,
    /// Sites of which there is news.
    changed: Vec<u32>,
}

impl Weights {
    /// The size that a sampled block has in the live table; `None` for a mean
    /// that no interposer uses.
    pub(crate) fn encode(&mut self, size: u64, mean: u64, address: u64, stamp: u64) -> Option<u64> {
        if !(1..=MAX_MEAN).contains(&mean) {
            return None;
        }
        let number = self.number_of(mean);
        let size = size.min(ROUNDED_UP - 1);
        let rest = (1.0 / probability(size, self.means[number - 1])).fract();
        let rounds_up = unit(address, stamp) < rest;
        let flag = if rounds_up { ROUNDED_UP } else { 0 };
        Some(size | flag | (number as u64) << MEAN_SHIFT)
    }

    fn number_of(&mut self, mean: u64) -> usize {
        if let Some(at) = self.means.iter().position(|known| *known == mean) {
            return at + 1;
        }
        if self.means.len() < MOST_MEANS {
            self.means.push(mean);
            return self.means.len();
        }
        let distance = |known: u64| (known as f64 / mean as f64).ln().abs();
        let nearest = (0..self.means.len())
            .min_by(|a, b| distance(self.means[*a]).total_cmp(&distance(self.means[*b])));
        nearest.unwrap_or(0) + 1
    }

    /// What [`Weights::weigh`] needs, for another thread.
    pub(crate) fn scale(&self) -> Weights {
        Weights {
            means: self.means.clone(),
            ..Weights::default()
        }
    }

    /// Whether any block was sampled so far.
    pub(crate) fn has_samples(&self) -> bool {
        !self.means.is_empty()
    }

    /// Whether a block of the live table may be a sample: false is certain.
    #[inline]
    pub(crate) fn is_sample(block: &Block) -> bool {
        block.size >> SIZE_BITS != 0
    }

    /// The bytes of a block of the live table, of that one alone.
    pub(crate) fn size_of(block: &Block) -> u64 {
        if Self::is_sample(block) {
            block.size & (ROUNDED_UP - 1)
        } else {
            block.size
        }
    }

    /// What a block of the live table counts for.
    pub(crate) fn weigh(&self, block: &Block) -> Weighed {
        self.weigh_sample(block.size)
            .map_or(Weighed::itself(block.size), |sample| sample.weighed)
    }

    fn weigh_sample(&self, size: u64) -> Option<Sample> {
        let number = (size >> MEAN_SHIFT) as usize;
        let mean = self.means.get(number.checked_sub(1)?)?;
        let is_rounded_up = size & ROUNDED_UP != 0;
        Some(Sample::new(size & (ROUNDED_UP - 1), *mean, is_rounded_up))
    }

    /// As [`Weights::weigh`], of a block that is born.
    pub(crate) fn weigh_birth(&mut self, block: &Block) -> Weighed {
        self.note(block, 1.0)
    }

    /// As [`Weights::weigh`], of a block that dies.
    pub(crate) fn weigh_death(&mut self, block: &Block) -> Weighed {
        self.note(block, -1.0)
    }

    fn note(&mut self, block: &Block, sign: f64) -> Weighed {
        let Some(sample) = self.weigh_sample(block.size) else {
            return Weighed::itself(block.size);
        };
        let sums = self.sites.entry(block.site).or_default();
        sums.live.add(&sample, sign);
        if sign > 0.0 {
            sums.total.add(&sample, sign);
            sums.samples += 1;
        }
        if !std::mem::replace(&mut sums.is_listed, true) {
            self.changed.push(block.site);
        }
        sample.weighed
    }

    /// How far sites' estimates scatter, where that is news: of sites with
    /// twice as many samples as when it was last told, or of all that changed.
    pub(crate) fn scatter(&mut self, is_all: bool) -> Option<Record> {
        let (sites, mut told) = (&mut self.sites, Vec::new());
        self.changed.retain(|site| {
            let Some(sums) = sites.get_mut(site) else {
                return false;
            };
            if !is_all && sums.samples < sums.told * 2 {
                return true;
            }
            sums.told = sums.samples;
            sums.is_listed = false;
            let total = sums.total.scatter();
            let live = if sums.live.amount[1] > 0.5 {
                sums.live.scatter()
            } else {
                total
            };
            told.push(SiteScatter {
                site: *site,
                live_bytes: live[0].round() as u64,
                live_blocks: (live[1] * SiteScatter::BLOCK_UNIT).round() as u64,
                total_bytes: total[0].round() as u64,
                total_blocks: (total[1] * SiteScatter::BLOCK_UNIT).round() as u64,
            });
            false
        });
        told.sort_unstable_by_key(|site| site.site);
        (!told.is_empty()).then_some(Record::Scatter(Scatter { sites: told }))
    }
}

/// A number of 0 to 1, all alike, that an address and a stamp always give.
fn unit(address: u64, stamp: u64) -> f64 {
    let mut mixed = address.rotate_left(32) ^ stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::MAX_SIZE;
    use proptest::prelude::*;

    fn block(size: u64) -> Block {
        Block {
            size,
            site: 0,
            thread: 0,
            birth: 0,
        }
    }

    proptest! {
        #[test]
        fn a_death_takes_what_the_birth_added(
            size in 0..1u64 << 40, mean in 1..=MAX_MEAN, address: u64, stamp: u64,
        ) {
            let mut weights = Weights::default();
            weights.encode(1, 77, 0, 0).unwrap();
            let size_field = weights.encode(size, mean, address, stamp).unwrap();
            prop_assert!(size_field <= MAX_SIZE);
            let born = weights.weigh_birth(&block(size_field));
            prop_assert_eq!(weights.weigh_death(&block(size_field)), born);
            prop_assert_eq!(born.size, size);
            let p = probability(size, mean);
            prop_assert!((born.amount.bytes as f64 - size as f64 / p).abs() <= 0.5 + size as f64 / p * 1e-12);
            prop_assert!((born.amount.blocks as f64 - 1.0 / p).abs() < 1.0 + 1e-6);
            prop_assert!(born.amount.blocks >= 1);
        }

        #[test]
        fn exact_blocks_count_as_they_are(size in 0..=MAX_SIZE) {
            let mut weights = Weights::default();
            prop_assert_eq!(weights.weigh_birth(&block(size)), Weighed::itself(size));
            prop_assert_eq!(weights.weigh(&block(size)), Weighed::itself(size));
        }
    }

    /// Of many samples of a size, the counts add up to what was allocated: also
    /// where rounding down would lose a third.
    #[test]
    fn counts_are_rounded_without_bias() {
        let (size, mean) = (600u64, 512u64);
        let mut weights = Weights::default();
        let blocks: u64 = (0..100_000u64)
            .map(|at| {
                let field = weights
                    .encode(size, mean, 0x1000 + at * 608, at * 91)
                    .unwrap();
                weights.weigh(&block(field)).amount.blocks
            })
            .sum();
        let mean_blocks = blocks as f64 / 100_000.0;
        let exact = 1.0 / probability(size, mean);
        assert!(
            (mean_blocks - exact).abs() < 0.006,
            "{mean_blocks} for {exact}"
        );
    }

    #[test]
    fn nonsense_means_are_refused_and_too_many_are_rounded() {
        let mut weights = Weights::default();
        assert_eq!(weights.encode(1, 0, 1, 1), None);
        assert_eq!(weights.encode(1, MAX_MEAN + 1, 1, 1), None);
        for mean in 1..1000u64 {
            let field = weights.encode(5000, mean * 1000, 1, 1).unwrap();
            assert!(field <= MAX_SIZE);
        }
        assert_eq!(weights.means.len(), MOST_MEANS);
    }

    #[test]
    fn scatter_is_told_when_samples_have_doubled() {
        let mut weights = Weights::default();
        let mut told = Vec::new();
        for at in 0..100u64 {
            let field = weights.encode(64, 1 << 19, at * 64, at).unwrap();
            weights.weigh_birth(&block(field));
            if let Some(Record::Scatter(scatter)) = weights.scatter(false) {
                told.push((at + 1, scatter.sites[0].live_bytes));
            }
        }
        let instants: Vec<u64> = told.iter().map(|told| told.0).collect();
        assert_eq!(instants, [1, 2, 4, 8, 16, 32, 64]);
        // Small blocks: each byte of the estimate adds the mean.
        assert!(
            told.iter()
                .all(|told| told.1.abs_diff((1 << 19) * 64 / 65) < 64),
            "{told:?}"
        );
        assert!(weights.scatter(true).is_some());
        assert!(weights.scatter(true).is_none());
    }
}
