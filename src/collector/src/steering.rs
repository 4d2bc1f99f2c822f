//! `--sample auto`: a mean as small as it can be at little cost.
//!
//! Processes tell how long their samples took (`Slot::sampling_ticks`); the
//! kernel tells how long they ran. From time to time the one is divided by the
//! other: well below 1 % the mean is halved, which doubles the cost; above
//! it, doubled. What is between stays, so that the mean does not swing.

use std::collections::BTreeMap;

/// The mean at first.
pub const FIRST_MEAN: u64 = 512 * 1024;
/// Finer is not worth its events.
const LEAST_MEAN: u64 = 8 * 1024;
const MOST_MEAN: u64 = 64 * 1024 * 1024;
/// Of the processor time that processes take, samples may take so much.
const MOST: f64 = 0.01;
/// Below this the mean is halved.
const LITTLE: f64 = 0.004;
/// Processor time that it takes to tell: the kernel counts in steps of 10 ms.
const ENOUGH_NS: u64 = 200_000_000;

/// What a process has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// For samples.
    pub(crate) sampling_ns: u64,
    /// In all.
    pub(crate) cpu_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Steering {
    mean: u64,
    /// By process, when the mean was last decided on.
    before: BTreeMap<u32, Taken>,
}

impl Steering {
    /// From [`FIRST_MEAN`] on.
    pub(crate) fn new() -> Self {
        Steering {
            mean: FIRST_MEAN,
            before: BTreeMap::new(),
        }
    }

    /// Another mean, if that is due by what the living processes have taken.
    pub(crate) fn decide(&mut self, now: BTreeMap<u32, Taken>) -> Option<u64> {
        let (mut sampling, mut cpu) = (0u64, 0u64);
        for (process, taken) in &now {
            let before = self.before.get(process).copied().unwrap_or_default();
            // A target writes what it likes.
            let spent = taken.sampling_ns.saturating_sub(before.sampling_ns);
            let ran = taken.cpu_ns.saturating_sub(before.cpu_ns);
            sampling = sampling.saturating_add(spent);
            cpu = cpu.saturating_add(ran);
        }
        if cpu < ENOUGH_NS {
            return None;
        }
        self.before = now;
        let share = sampling as f64 / cpu as f64;
        let mean = if share > MOST {
            (self.mean * 2).min(MOST_MEAN)
        } else if share < LITTLE {
            (self.mean / 2).max(LEAST_MEAN)
        } else {
            self.mean
        };
        (std::mem::replace(&mut self.mean, mean) != mean).then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes in which a sample takes so long, and so many bytes are
    /// allocated each second: the means over time.
    fn means(sample_ns: f64, bytes_a_second: f64, steps: usize) -> Vec<u64> {
        let mut steering = Steering::new();
        let (mut mean, mut taken) = (FIRST_MEAN, Taken::default());
        let mut all = Vec::new();
        for _ in 0..steps {
            taken.cpu_ns += 500_000_000;
            taken.sampling_ns += (0.5 * bytes_a_second / mean as f64 * sample_ns) as u64;
            if let Some(next) = steering.decide(BTreeMap::from([(0, taken)])) {
                mean = next;
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
            assert!(share <= MOST, "{share}");
            assert!(last == LEAST_MEAN || share >= LITTLE, "{share} at {last}");
        }
    }

    #[test]
    fn nothing_is_decided_by_a_process_that_sleeps() {
        assert!(means(0.0, 0.0, 1)[0] < FIRST_MEAN);
        let mut steering = Steering::new();
        let taken = Taken {
            sampling_ns: 0,
            cpu_ns: ENOUGH_NS - 1,
        };
        for _ in 0..100 {
            assert_eq!(steering.decide(BTreeMap::from([(0, taken)])), None);
        }
    }

    #[test]
    fn nonsense_from_a_target_does_no_more_than_coarsen() {
        let mut steering = Steering::new();
        for step in 1..100u64 {
            let taken = Taken {
                sampling_ns: u64::MAX / 100 * step,
                cpu_ns: step * ENOUGH_NS,
            };
            steering.decide(BTreeMap::from([(0, taken), (1, taken)]));
        }
        assert_eq!(steering.mean, MOST_MEAN);
    }
}
