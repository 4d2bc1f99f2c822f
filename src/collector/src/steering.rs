//! A mean as small as it can be at little cost: `--sample auto`, `--max-overhead`.
//!
//! Processes tell how long their samples took (`Slot::sampling_ticks`) and about how many
//! blocks they left out; the kernel tells how long they ran. From time to time the one is
//! divided by the other: well below what samples may take (1 %) the mean is halved, which
//! doubles the cost; above it, doubled. What is between stays, so that the mean does not
//! swing. Leaving blocks out costs the same with any mean: a program that it slows down
//! most already is not slowed down further by more samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The mean at first.
pub const FIRST_MEAN: u64 = 512 * 1024;
/// Finer is not worth its events.
pub const LEAST_MEAN: u64 = 8 * 1024;
const MOST_MEAN: u64 = 64 * 1024 * 1024;
/// Of the processor time that processes take, samples may take so much.
pub const MOST_SHARE: f64 = 0.01;
/// Below this part of what they may the mean is halved.
const LITTLE: f64 = 0.4;
/// Processor time that it takes to tell: the kernel counts in steps of 10 ms.
const ENOUGH_NS: u64 = 200_000_000;
/// What leaving a block out takes: one of CPython's pools, with all hooks there (Python
/// that only allocates, 45 million blocks a second, loses 4 %).
const LEFT_OUT_NS: f64 = 1.0;

/// What a process has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// For samples.
    pub(crate) sampling_ns: u64,
    /// So many blocks were left out.
    pub(crate) left_out: u64,
    /// In all.
    pub(crate) cpu_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Steering {
    pub(crate) bounds: Bounds,
    mean: u64,
    /// By process, when the mean was last decided on.
    before: BTreeMap<u32, Taken>,
}

/// Between what a mean may move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// It is no smaller, in bytes.
    pub least_mean: u64,
    /// Of the processor time that processes take, samples may take so much.
    pub most_share: f64,
}

impl Default for Bounds {
    /// Of `--sample auto`.
    fn default() -> Self {
        Bounds {
            least_mean: LEAST_MEAN,
            most_share: MOST_SHARE,
        }
    }
}

/// Another mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// In bytes.
    pub(crate) mean: u64,
    /// Of the processor time, samples took so much at the last one.
    pub(crate) share: f64,
    /// It is larger than the last one.
    pub(crate) is_up: bool,
}

impl Steering {
    /// From this mean on.
    pub(crate) fn new(bounds: Bounds, mean: u64) -> Self {
        Steering {
            bounds,
            mean,
            before: BTreeMap::new(),
        }
    }

    /// Another mean, if that is due by what the living processes have taken.
    pub(crate) fn decide(&mut self, now: BTreeMap<u32, Taken>) -> Option<Step> {
        let (mut sampling, mut left_out, mut cpu) = (0u64, 0u64, 0u64);
        for (process, taken) in &now {
            // What it took before it was seen (it may have been attached to) says
            // nothing.
            let before = *self.before.entry(*process).or_insert(*taken);
            // A target writes what it likes.
            let spent = taken.sampling_ns.saturating_sub(before.sampling_ns);
            let ran = taken.cpu_ns.saturating_sub(before.cpu_ns);
            sampling = sampling.saturating_add(spent);
            left_out = left_out.saturating_add(taken.left_out.saturating_sub(before.left_out));
            cpu = cpu.saturating_add(ran);
        }
        if cpu < ENOUGH_NS {
            return None;
        }
        self.before = now;
        let share = sampling as f64 / cpu as f64;
        let least = left_out as f64 * LEFT_OUT_NS / cpu as f64;
        let most = self.bounds.most_share;
        let mean = if share > most {
            (self.mean * 2).min(MOST_MEAN).max(self.mean)
        } else if share < LITTLE * most && 2.0 * share + least <= most {
            (self.mean / 2).max(self.bounds.least_mean).min(self.mean)
        } else {
            self.mean
        };
        let before = std::mem::replace(&mut self.mean, mean);
        (before != mean).then_some(Step {
            mean,
            share,
            is_up: mean > before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes in which a sample takes so long, and so many bytes are
    /// allocated each second: the means over time.
    fn means(sample_ns: f64, bytes_a_second: f64, steps: usize) -> Vec<u64> {
        let mut steering = Steering::new(Bounds::default(), FIRST_MEAN);
        let (mut mean, mut taken) = (FIRST_MEAN, Taken::default());
        let mut all = Vec::new();
        for _ in 0..steps {
            taken.cpu_ns += 500_000_000;
            taken.sampling_ns += (0.5 * bytes_a_second / mean as f64 * sample_ns) as u64;
            if let Some(next) = steering.decide(BTreeMap::from([(0, taken)])) {
                assert_eq!(next.is_up, next.mean > mean);
                mean = next.mean;
            }
            all.push(mean);
        }
        all
    }

    #[test]
    fn the_mean_comes_to_rest_where_the_cost_is_bounded() {
        // 100 MB a second, 5 us a sample: 1 % is at 50 KB.
        for (sample_ns, rate) in [(5e3, 1e8), (1e3, 4e9), (2e4, 1e8), (1e3, 1e5)] {
            let means = means(sample_ns, rate, 40);
            let last = means[means.len() - 1];
            assert!(means[20..].iter().all(|mean| *mean == last), "{means:?}");
            let share = rate / last as f64 * sample_ns / 1e9;
            assert!(share <= MOST_SHARE, "{share}");
            let is_worth_it = share >= LITTLE * MOST_SHARE;
            assert!(last == LEAST_MEAN || is_worth_it, "{share} at {last}");
        }
    }

    #[test]
    fn leaving_blocks_out_is_part_of_the_cost_but_never_a_reason_to_coarsen() {
        // Of the time that may be taken; and so much is taken by samples of the first mean.
        for (by_leaving_out, by_samples, halved) in [(0.0, 0.1, 2), (0.7, 0.1, 1), (4.0, 0.1, 0)] {
            let mut steering = Steering::new(Bounds::default(), FIRST_MEAN);
            let mut taken = Taken::default();
            for _ in 0..10 {
                let share = by_samples * FIRST_MEAN as f64 / steering.mean as f64;
                let ns = MOST_SHARE * ENOUGH_NS as f64;
                taken.cpu_ns += ENOUGH_NS;
                taken.sampling_ns += (share * ns) as u64;
                taken.left_out += (by_leaving_out * ns / LEFT_OUT_NS) as u64;
                steering.decide(BTreeMap::from([(0, taken)]));
            }
            assert_eq!(steering.mean, FIRST_MEAN >> halved, "{by_leaving_out}");
        }
    }

    #[test]
    fn nothing_is_decided_by_a_process_that_sleeps() {
        assert_eq!(means(0.0, 0.0, 1), [FIRST_MEAN], "only seen");
        assert!(means(0.0, 0.0, 2)[1] < FIRST_MEAN);
        let mut steering = Steering::new(Bounds::default(), FIRST_MEAN);
        let taken = Taken {
            cpu_ns: ENOUGH_NS - 1,
            ..Taken::default()
        };
        for _ in 0..100 {
            assert_eq!(steering.decide(BTreeMap::from([(0, taken)])), None);
        }
    }

    #[test]
    fn nonsense_from_a_target_does_no_more_than_coarsen() {
        let mut steering = Steering::new(Bounds::default(), FIRST_MEAN);
        for step in 1..100u64 {
            let taken = Taken {
                sampling_ns: u64::MAX / 100 * step,
                left_out: u64::MAX / 100 * step,
                cpu_ns: step * ENOUGH_NS,
            };
            steering.decide(BTreeMap::from([(0, taken), (1, taken)]));
        }
        assert_eq!(steering.mean, MOST_MEAN);
    }

    #[test]
    fn a_mean_that_was_given_is_left_only_while_it_costs_too_much() {
        let bounds = Bounds {
            least_mean: 4096,
            most_share: 0.1,
        };
        let mut steering = Steering::new(bounds, 4096);
        let mut taken = Taken::default();
        assert_eq!(steering.decide(BTreeMap::from([(0, taken)])), None);
        let mut after = |share: f64| {
            taken.cpu_ns += ENOUGH_NS;
            taken.sampling_ns += (ENOUGH_NS as f64 * share) as u64;
            let step = steering.decide(BTreeMap::from([(0, taken)]));
            step.map(|step| (step.mean, (step.share * 100.0).round() as u32))
        };
        assert_eq!(after(0.01), None);
        assert_eq!(after(0.2), Some((8192, 20)));
        assert_eq!(after(0.12), Some((16384, 12)));
        assert_eq!(after(0.06), None);
        assert_eq!(after(0.01), Some((8192, 1)));
        assert_eq!(after(0.01), Some((4096, 1)));
        assert_eq!(after(0.01), None);
    }
}
