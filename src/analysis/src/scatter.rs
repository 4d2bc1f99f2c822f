//! How far the estimates of a sampled recording may be off.
//!
//! A block that stands for `w` others like it adds `w^2 (1 - p)` to the variance
//! of the sum that it is part of, and sites are sampled independently of each
//! other: variances add up as figures do. The recorder tells for each site what
//! a byte or block of its mix of sizes adds; where it does not (a file that
//! ends early, a thread's figures) the average size has to do, which is right
//! where all blocks are of one size.
//!
//! An error is half the width of an interval that holds the true figure in 95 of
//! 100 recordings. One more sample is allowed for than were seen: where few
//! were, their own variance is too often too small.

use std::hash::{Hash, Hasher};

use leakline_recording::record::{Counters, SiteScatter};

use crate::figures::{Figures, Measure, Unit};

/// How often the true figure lies within the error.
pub const CONFIDENCE: f64 = 0.95;
/// Standard deviations to either side of that.
const DEVIATIONS: f64 = 1.959_964;

/// A variance: not negative. Equal where the bits are.
#[derive(Clone, Copy, Debug, Default)]
struct Variance(f32);

impl PartialEq for Variance {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Variance {}

impl Hash for Variance {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Variance {
    fn of(amount: u64, each: f64) -> Self {
        Variance((amount as f64 * each) as f32)
    }

    fn add(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn raise(&mut self, other: Self) {
        self.0 = self.0.max(other.0);
    }
}

/// Of bytes, and of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Both {
    bytes: Variance,
    blocks: Variance,
}

impl Both {
    fn of(bytes: u64, blocks: u64, each: Each) -> Self {
        Both {
            bytes: Variance::of(bytes, each.bytes),
            blocks: Variance::of(blocks, each.blocks),
        }
    }

    fn add(&mut self, other: Self) {
        self.bytes.add(other.bytes);
        self.blocks.add(other.blocks);
    }
}

/// What another byte, or block, adds to a variance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Each {
    bytes: f64,
    blocks: f64,
}

impl Each {
    /// Of blocks of an average size that were sampled at a mean.
    fn of_average(bytes: u64, blocks: u64, mean: u64) -> Self {
        if mean == 0 || blocks == 0 {
            return Each::default();
        }
        let size = bytes as f64 / blocks as f64;
        let p = -(-(size + 1.0) / mean as f64).exp_m1();
        // The recorder rounds a block's count up or down.
        let rest = (1.0 / p).fract();
        Each {
            bytes: size * (1.0 - p) / p,
            blocks: (1.0 - p) / p + p * rest * (1.0 - rest),
        }
    }
}

/// What a site's figures add to variances.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PerSite {
    live: Each,
    total: Each,
}

impl PerSite {
    /// As the recorder tells.
    pub(crate) fn told(told: &SiteScatter) -> Self {
        let each = |bytes: u64, blocks: u64| Each {
            bytes: bytes as f64,
            blocks: blocks as f64 / SiteScatter::BLOCK_UNIT,
        };
        PerSite {
            live: each(told.live_bytes, told.live_blocks),
            total: each(told.total_bytes, told.total_blocks),
        }
    }

    /// By the average size of its blocks.
    pub(crate) fn guessed(counters: &Counters, mean: u64) -> Self {
        PerSite {
            live: Each::of_average(counters.live_bytes, counters.live_blocks, mean),
            total: Each::of_average(counters.total_bytes, counters.total_blocks, mean),
        }
    }
}

/// The variances of [`Figures`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scatter {
    is_estimate: bool,
    live: Both,
    total: Both,
    peak: Both,
    delta: Both,
    temporary: Variance,
    /// Of one more sample: of the site where that is most.
    sample: Both,
}

impl Scatter {
    /// Of a site's figures over a span before which `before` was live.
    pub(crate) fn new(figures: &Figures, before: Option<&Counters>, site: PerSite) -> Self {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let (live_bytes, live_blocks) =
            (positive(figures.live_bytes), positive(figures.live_blocks));
        // Blocks that live at both instants are the same samples: only those
        // that came or went between them count. Of the two bounds for their
        // number the lower one.
        let changed = |live: u64, before: u64, total: u64, delta: i64| {
            let died = (i128::from(total) - i128::from(delta)).max(0) as u64;
            live.saturating_add(before).min(total.saturating_add(died))
        };
        let (from_bytes, from_blocks) =
            before.map_or((0, 0), |before| (before.live_bytes, before.live_blocks));
        let delta_bytes = changed(
            live_bytes,
            from_bytes,
            figures.total_bytes,
            figures.delta_bytes,
        );
        let delta_blocks = changed(
            live_blocks,
            from_blocks,
            figures.total_blocks,
            figures.delta_blocks,
        );
        let most = |one: f64, other: f64| Variance(one.max(other).powi(2) as f32);
        Scatter {
            is_estimate: true,
            live: Both::of(live_bytes, live_blocks, site.live),
            total: Both::of(figures.total_bytes, figures.total_blocks, site.total),
            peak: Both::of(figures.peak_bytes, figures.peak_blocks, site.live),
            delta: Both::of(delta_bytes, delta_blocks, site.live),
            temporary: Variance::of(figures.temporary_blocks, site.total.blocks),
            sample: Both {
                bytes: most(site.live.bytes, site.total.bytes),
                blocks: most(site.live.blocks, site.total.blocks),
            },
        }
    }

    /// Of figures that count mappings: they are exact, in an estimate.
    pub(crate) fn exact_part() -> Self {
        Scatter {
            is_estimate: true,
            ..Scatter::default()
        }
    }

    pub(crate) fn add(&mut self, other: &Scatter) {
        if !other.is_estimate {
            return;
        }
        self.is_estimate = true;
        self.live.add(other.live);
        self.total.add(other.total);
        self.peak.add(other.peak);
        self.delta.add(other.delta);
        self.temporary.add(other.temporary);
        self.sample.bytes.raise(other.sample.bytes);
        self.sample.blocks.raise(other.sample.blocks);
    }

    /// What is live here has grown from what was live there, in another
    /// recording.
    pub(crate) fn grow_from(&mut self, other: Option<&Scatter>) {
        self.delta = self.live;
        if let Some(other) = other.filter(|other| other.is_estimate) {
            self.is_estimate = true;
            self.delta.add(other.live);
            self.sample.bytes.raise(other.sample.bytes);
            self.sample.blocks.raise(other.sample.blocks);
        }
    }
}

impl Figures {
    /// The same as an estimate, from a sample of one block in `mean` bytes, as if all
    /// blocks were of the average size.
    #[must_use]
    pub fn sampled_at(mut self, mean: u64) -> Self {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let counters = Counters {
            live_bytes: positive(self.live_bytes),
            live_blocks: positive(self.live_blocks),
            total_bytes: self.total_bytes,
            total_blocks: self.total_blocks,
            ..Counters::default()
        };
        self.scatter = Scatter::new(&self, None, PerSite::guessed(&counters, mean));
        self
    }

    /// They come from samples.
    pub fn is_estimate(&self) -> bool {
        self.scatter.is_estimate
    }

    /// By how much a figure may be off, [`CONFIDENCE`] of the time; `None` where
    /// it is no estimate.
    pub fn error(&self, measure: Measure, unit: Unit) -> Option<u64> {
        let scatter = &self.scatter;
        if !scatter.is_estimate {
            return None;
        }
        let both = match measure {
            Measure::Live => scatter.live,
            Measure::Total => scatter.total,
            Measure::Peak => scatter.peak,
            Measure::Growth => scatter.delta,
            Measure::Temporary => Both {
                bytes: scatter.temporary,
                blocks: scatter.temporary,
            },
        };
        let (variance, sample) = match (measure, unit) {
            (Measure::Temporary, _) | (_, Unit::Blocks) => (both.blocks, scatter.sample.blocks),
            (_, Unit::Bytes) => (both.bytes, scatter.sample.bytes),
        };
        let variance = f64::from(variance.0) + f64::from(sample.0);
        Some((DEVIATIONS * variance.sqrt()).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: u64 = 512 * 1024;

    /// Numbers of 0 to 1.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) as f64 / 2f64.powi(64)
        }
    }

    /// How often, in 1,000 recordings of these blocks (size and number), the
    /// true bytes and blocks lie within the error; and the estimate's bias in
    /// its own deviations.
    fn coverage(blocks: &[(u64, u64)], is_told: bool) -> [f64; 3] {
        const RUNS: u32 = 1000;
        let mut random = Random(blocks.len() as u64);
        let truth = |of: fn(&(u64, u64)) -> u64| blocks.iter().map(of).sum::<u64>();
        let bytes = truth(|(size, count)| size * count);
        let count = truth(|(_, count)| *count);
        let (mut covered, mut off, mut squares) = ([0u32; 2], 0.0, 0.0);
        for _ in 0..RUNS {
            let (mut sums, mut variances) = ([0.0f64; 2], [0.0f64; 2]);
            for &(size, count) in blocks {
                let p = -(-(size as f64 + 1.0) / MEAN as f64).exp_m1();
                // Gaps between samples are geometric.
                let gap = |random: &mut Random| {
                    (random.next().max(1e-300).ln() / (-p).ln_1p()).floor() as u64
                };
                let mut at = gap(&mut random);
                while at < count {
                    let rest = (1.0 / p).fract();
                    let up = f64::from(u8::from(random.next() < rest));
                    sums[0] += (size as f64 / p).round();
                    sums[1] += (1.0 / p).floor() + up;
                    variances[0] += (size as f64 / p).powi(2) * (1.0 - p);
                    variances[1] += (1.0 - p) / (p * p) + rest * (1.0 - rest);
                    at = at.saturating_add(1).saturating_add(gap(&mut random));
                }
            }
            let counters = Counters {
                live_bytes: sums[0] as u64,
                live_blocks: sums[1] as u64,
                total_bytes: sums[0] as u64,
                total_blocks: sums[1] as u64,
                ..Counters::default()
            };
            let site = if is_told && sums[1] > 0.0 {
                let each = Each {
                    bytes: variances[0] / sums[0],
                    blocks: variances[1] / sums[1],
                };
                PerSite {
                    live: each,
                    total: each,
                }
            } else {
                PerSite::guessed(&counters, MEAN)
            };
            let mut figures = Figures::new(&counters, None, 0, 0, false);
            figures.scatter = Scatter::new(&figures, None, site);
            for (at, (unit, truth)) in [(Unit::Bytes, bytes), (Unit::Blocks, count)]
                .into_iter()
                .enumerate()
            {
                let error = figures.error(Measure::Live, unit).unwrap();
                let is_covered = (sums[at] - truth as f64).abs() <= error as f64;
                covered[at] += u32::from(is_covered);
            }
            off += sums[0] - bytes as f64;
            squares += (sums[0] - bytes as f64).powi(2);
        }
        let deviation = (squares / f64::from(RUNS)).sqrt();
        let bias = off / f64::from(RUNS).sqrt() / deviation;
        [
            f64::from(covered[0]) / f64::from(RUNS),
            f64::from(covered[1]) / f64::from(RUNS),
            bias,
        ]
    }

    fn check(blocks: &[(u64, u64)], is_told: bool) {
        let [bytes, count, bias] = coverage(blocks, is_told);
        for share in [bytes, count] {
            assert!(
                (share - CONFIDENCE).abs() <= 0.02,
                "{blocks:?}: {bytes} {count}"
            );
        }
        assert!(bias.abs() < 4.0, "{blocks:?}: bias {bias}");
    }

    #[test]
    fn errors_of_blocks_of_one_size_are_right() {
        for blocks in [
            (100, 1_000_000),
            (10_000, 10_000),
            (400_000, 500),
            (1_000_000, 2000),
        ] {
            check(&[blocks], true);
            check(&[blocks], false);
        }
    }

    #[test]
    fn errors_of_a_mix_of_sizes_are_right() {
        check(&[(48, 1_000_000), (5000, 10_000), (700_000, 300)], true);
        check(&[(500_000, 400), (3_000_000, 400)], true);
    }

    /// What an average size would say of large blocks beside larger ones.
    #[test]
    fn an_average_size_is_not_enough_for_a_mix() {
        let [bytes, ..] = coverage(&[(500_000, 400), (6_000_000, 400)], false);
        assert!(bytes < 0.9, "{bytes}");
    }

    #[test]
    fn few_samples_have_an_error_too() {
        // 5 expected; and none seen.
        let [bytes, count, _] = coverage(&[(64, 40_960)], true);
        assert!(bytes > 0.92 && count > 0.92, "{bytes} {count}");
        let each = Each {
            bytes: MEAN as f64,
            blocks: 1.0,
        };
        let site = PerSite {
            live: each,
            total: each,
        };
        let mut figures = Figures::default();
        figures.scatter = Scatter::new(&figures, None, site);
        let error = figures.error(Measure::Live, Unit::Bytes).unwrap();
        assert!(error > MEAN && error < 3 * MEAN);
    }

    #[test]
    fn what_stays_adds_nothing_to_the_error_of_growth() {
        let site = PerSite {
            live: Each {
                bytes: MEAN as f64,
                blocks: 100.0,
            },
            total: Each::default(),
        };
        let counters = |live: u64, total: u64| Counters {
            live_bytes: live,
            live_blocks: live / 100,
            total_bytes: total,
            total_blocks: total / 100,
            ..Counters::default()
        };
        let error = |before: Counters, after: Counters| {
            let mut figures = Figures::new(&after, Some(&before), 0, 0, false);
            figures.scatter = Scatter::new(&figures, Some(&before), site);
            figures.error(Measure::Growth, Unit::Bytes).unwrap()
        };
        let large = 1 << 32;
        let grown = error(
            counters(large, large),
            counters(large + (1 << 20), large + (1 << 20)),
        );
        let churned = error(counters(1 << 20, 1 << 20), counters(1 << 20, 1 << 40));
        assert!(grown < 4 << 20, "{grown}");
        assert!(churned < 4 << 20, "{churned}");
    }
}
