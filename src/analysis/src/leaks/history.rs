//! Where histories come from: the recording's cohorts, or, where it has none,
//! its time bins.

use leakline_recording::record::Point;

use crate::model::Model;
use crate::survivors::{Cohort, Held, History, Survivors};

/// A site's counters after a bin.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    bin: u32,
    live: (i64, i64),
    born: (i64, i64),
}

/// What each bin says of each site that ever held anything.
pub(super) struct SeriesOfSites {
    of_site: Vec<Vec<State>>,
    most_bytes: Vec<u64>,
    /// Blocks born in each bin.
    births: Vec<u64>,
}

/// Sites below this are not worth their points.
const LEAST_BYTES: u64 = 256;

/// One pass over the bins to see who is worth it, and one to keep those.
pub(super) fn series(model: &Model<'_>) -> SeriesOfSites {
    let sites = model.sites().len();
    let mut live = vec![0_i64; sites];
    let mut most_bytes = vec![0_u64; sites];
    let mut births = vec![0_u64; model.bins().len()];
    for (bin, births) in births.iter_mut().enumerate() {
        model.for_each_point(bin, |point| {
            *births = births.saturating_add(u64::try_from(point.total_blocks).unwrap_or(0));
            if let Some(live) = live.get_mut(point.site as usize) {
                *live = live.wrapping_add(point.live_bytes);
                let most = &mut most_bytes[point.site as usize];
                *most = (*most).max(u64::try_from(*live).unwrap_or(0));
            }
        });
    }
    let mut of_site = vec![Vec::new(); sites];
    let mut now = vec![State::default(); sites];
    for bin in 0..model.bins().len() {
        model.for_each_point(bin, |point: &Point| {
            let site = point.site as usize;
            if most_bytes
                .get(site)
                .is_some_and(|&most| most >= LEAST_BYTES)
            {
                let state = &mut now[site];
                state.bin = u32::try_from(bin).unwrap_or(u32::MAX);
                state.live.0 = state.live.0.wrapping_add(point.live_blocks);
                state.live.1 = state.live.1.wrapping_add(point.live_bytes);
                state.born.0 = state.born.0.wrapping_add(point.total_blocks);
                state.born.1 = state.born.1.wrapping_add(point.total_bytes);
                of_site[site].push(*state);
            }
        });
    }
    SeriesOfSites {
        of_site,
        most_bytes,
        births,
    }
}

impl SeriesOfSites {
    pub(super) fn most_bytes(&self, site: u32) -> u64 {
        self.most_bytes.get(site as usize).copied().unwrap_or(0)
    }

    /// Blocks born by each instant, of the whole program: as closely as the
    /// histories of some sites tell it, and by bins for all others.
    pub(super) fn allocations(
        &self,
        model: &Model<'_>,
        told: &[(&[u32], &History)],
    ) -> Vec<(u64, f64)> {
        let bins = model.bin_ends();
        let mut by_bins: Vec<f64> = self.births.iter().map(|&births| births as f64).collect();
        // How many more a nanosecond from an instant on.
        let mut speeds: Vec<(u64, f64)> = Vec::new();
        let mut add = |from: u64, to: u64, births: f64| {
            if to > from && births != 0.0 {
                let speed = births / (to - from) as f64;
                speeds.extend([(from, speed), (to, -speed)]);
            }
        };
        for (sites, history) in told {
            for &site in *sites {
                let mut before = 0;
                for state in &self.of_site[site as usize] {
                    by_bins[state.bin as usize] -= (state.born.0 - before) as f64;
                    before = state.born.0;
                }
            }
            for (cohort, born) in history.cohorts.iter().zip(&history.born) {
                add(cohort.from_ns, cohort.to_ns, born.blocks as f64);
            }
        }
        let mut begin = 0;
        for (&end, births) in bins.iter().zip(by_bins) {
            add(begin, end, births);
            begin = end;
        }
        speeds.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let (mut at, mut speed, mut sum) = (0, 0.0, 0.0);
        let mut points = vec![(0, 0.0)];
        for (ns, change) in speeds {
            if ns > at {
                sum += (speed * (ns - at) as f64).max(0.0);
                at = ns;
                points.push((at, sum));
            }
            speed += change;
        }
        points
    }
}

/// Gives the history of any sites together.
pub(super) struct Histories<'s> {
    series: &'s SeriesOfSites,
    bin_ends: Vec<u64>,
    survivors: Option<Survivors>,
}

/// A history, with what the judge asks besides.
pub(super) struct Found {
    pub(super) history: History,
    to_ns: u64,
}

impl Found {
    /// Whether all that is alive at the end was born by then.
    pub(super) fn is_born_by(&self, ns: u64) -> bool {
        let known = self
            .history
            .instants
            .partition_point(|&at| at <= self.to_ns);
        let alive = self.history.alive[..known].last();
        let cohorts = self.history.cohorts.iter();
        cohorts
            .zip(alive.into_iter().flatten())
            .all(|(cohort, held)| held.blocks == 0 || cohort.from_ns <= ns)
    }
}

impl<'s> Histories<'s> {
    pub(super) fn new(model: &Model<'_>, series: &'s SeriesOfSites) -> Self {
        Histories {
            series,
            bin_ends: model.bin_ends().to_vec(),
            survivors: Survivors::new(model),
        }
    }

    /// What sites hold at an instant.
    pub(super) fn live(&self, sites: &[u32], ns: u64) -> Held {
        let bins = self.bin_ends.partition_point(|&end| end <= ns);
        let state = self.state(sites, bins);
        Held {
            blocks: u64::try_from(state.live.0).unwrap_or(0),
            bytes: u64::try_from(state.live.1).unwrap_or(0),
        }
    }

    /// Counters of sites together after so many bins.
    fn state(&self, sites: &[u32], bins: usize) -> State {
        let mut sum = State::default();
        for &site in sites {
            let states = &self.series.of_site[site as usize];
            let after = states.partition_point(|state| (state.bin as usize) < bins);
            if let Some(state) = after.checked_sub(1).map(|at| states[at]) {
                sum.live.0 += state.live.0;
                sum.live.1 += state.live.1;
                sum.born.0 += state.born.0;
                sum.born.1 += state.born.1;
            }
        }
        sum
    }

    /// The history of sites together, up to an instant.
    pub(super) fn of(&self, sites: &[u32], to_ns: u64) -> Found {
        match &self.survivors {
            Some(survivors) => Found {
                history: survivors.history(sites),
                to_ns,
            },
            None => self.of_bins(sites, to_ns),
        }
    }

    /// When sites had made all but a twentieth of what they made by an instant;
    /// 0 where that was little.
    pub(super) fn nearly_all(&self, sites: &[u32], to_ns: u64) -> u64 {
        const FEWEST: u64 = 1000;
        let history = self.of(sites, to_ns).history;
        let cohorts = || {
            let born = history.cohorts.iter().zip(&history.born);
            born.take_while(|(cohort, _)| cohort.from_ns < to_ns)
        };
        let all: u64 = cohorts().map(|(_, born)| born.blocks).sum();
        if all < FEWEST {
            return 0;
        }
        let mut sum = 0;
        let nearly = cohorts().find(|(_, born)| {
            sum += born.blocks;
            sum >= all - all / 20
        });
        nearly.map_or(0, |(cohort, _)| cohort.to_ns.min(to_ns))
    }

    /// The same where the recording does not tell of cohorts. Which of them
    /// died is not known then: the oldest, which is the worst for who would see
    /// a leak.
    fn of_bins(&self, sites: &[u32], to_ns: u64) -> Found {
        const COHORTS: u64 = 60;
        const INSTANTS: u64 = 64;
        let bins = self.bin_ends.partition_point(|&end| end <= to_ns);
        let states = || {
            sites
                .iter()
                .map(|&site| &self.series.of_site[site as usize])
        };
        let first = states()
            .filter_map(|states| states.first())
            .map(|state| state.bin)
            .min();
        let first = first.unwrap_or(0) as usize;
        let last = states()
            .flat_map(|states| states.windows(2))
            .filter(|pair| pair[1].born.0 > pair[0].born.0 && (pair[1].bin as usize) < bins)
            .map(|pair| pair[1].bin as usize)
            .max()
            .unwrap_or(first)
            .max(first);
        let begins = first
            .checked_sub(1)
            .map_or(0, |before| self.bin_ends[before]);
        let ends = self.bin_ends.get(last).copied().unwrap_or(to_ns);
        // Bins (as counts of them) that end nearest to evenly spread instants.
        let spread = |from: u64, to: u64, parts: u64| {
            let mut chosen: Vec<usize> = (0..=parts)
                .map(|part| {
                    let at = from
                        + (u128::from(to.saturating_sub(from)) * u128::from(part)
                            / u128::from(parts)) as u64;
                    self.bin_ends.partition_point(|&end| end <= at)
                })
                .filter(|&at| at > 0 && at <= bins)
                .collect();
            chosen.dedup();
            chosen
        };
        let mut edges = spread(begins, ends, COHORTS);
        if edges.last() != Some(&bins) {
            edges.push(bins);
        }
        let mut at = spread(begins, to_ns, INSTANTS);
        if at.last() != Some(&bins) {
            at.push(bins);
        }
        let end_of = |bins: usize| bins.checked_sub(1).map_or(0, |bin| self.bin_ends[bin]);
        let born_by: Vec<State> = edges.iter().map(|&edge| self.state(sites, edge)).collect();
        let mut cohorts = Vec::new();
        let mut born = Vec::new();
        let mut before = (0, State::default());
        for (&edge, &state) in edges.iter().zip(&born_by) {
            cohorts.push(Cohort {
                from_ns: before.0,
                to_ns: end_of(edge),
            });
            born.push(Held {
                blocks: positive(state.born.0 - before.1.born.0),
                bytes: positive(state.born.1 - before.1.born.1),
            });
            before = (end_of(edge), state);
        }
        let alive = at
            .iter()
            .map(|&bins| {
                let state = self.state(sites, bins);
                let mut left = (positive(state.live.0), positive(state.live.1));
                let mut alive = vec![Held::default(); cohorts.len()];
                for (cohort, alive) in alive.iter_mut().enumerate().rev() {
                    let from = if cohort == 0 {
                        State::default()
                    } else {
                        born_by[cohort - 1]
                    };
                    let until = if edges[cohort] <= bins {
                        born_by[cohort]
                    } else {
                        state
                    };
                    let blocks = positive(until.born.0 - from.born.0).min(left.0);
                    let bytes = positive(until.born.1 - from.born.1).min(left.1);
                    *alive = Held { blocks, bytes };
                    left = (left.0 - blocks, left.1 - bytes);
                }
                alive
            })
            .collect();
        Found {
            history: History {
                instants: at.iter().map(|&bins| end_of(bins)).collect(),
                cohorts,
                born,
                alive,
                verified_from_ns: 0,
            },
            to_ns,
        }
    }
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
