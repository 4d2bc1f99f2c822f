//! Where histories come from: the recording's cohorts, or, where it has none,
//! its time bins.

use std::ops::Range;

use leakline_recording::record::Point;
use rustc_hash::FxHashMap;

use crate::model::Model;
use crate::survivors::{Cohort, Held, History, Survivors};

/// A site's counters after a bin.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    bin: u32,
    live: (i64, i64),
    born: (i64, i64),
}

/// How far each site's live bytes went since warm-up.
#[derive(Default)]
pub(super) struct Levels {
    rises: Vec<u64>,
    most: Vec<u64>,
    /// What was ever born.
    born: Vec<(i64, i64)>,
    /// Live bytes at the end of the time that is judged.
    last: Vec<i64>,
    /// Whose these are, rising, where not all sites'.
    sites: Option<Vec<u32>>,
}

impl Levels {
    /// One pass over the bins. `is_brief` for who goes on with a few of many sites: what
    /// is not needed to choose them is then found for these alone.
    pub(super) fn new(model: &Model<'_>, from_ns: u64, to_ns: u64, is_brief: bool) -> Self {
        let sites = model.sites().len();
        let mut live = vec![0_i64; sites];
        // The lowest since warm-up, and how far above it the site ever was.
        let mut lowest = vec![0_i64; sites];
        let mut levels = Levels {
            rises: vec![0; sites],
            most: vec![0; if is_brief { 0 } else { sites }],
            born: vec![(0, 0); if is_brief { 0 } else { sites }],
            ..Levels::default()
        };
        let to = model.bin_ends().partition_point(|&end| end <= to_ns);
        let from = model.bin_ends().partition_point(|&end| end < from_ns);
        for bin in 0..model.bins().len() {
            if bin == from {
                lowest.clone_from(&live);
            }
            if bin == to {
                levels.last.clone_from(&live);
            }
            model.for_each_point(bin, |point| {
                let site = point.site as usize;
                let Some(live) = live.get_mut(site) else {
                    return;
                };
                *live = live.wrapping_add(point.live_bytes);
                if let (Some(born), Some(most)) =
                    (levels.born.get_mut(site), levels.most.get_mut(site))
                {
                    add_born(born, point);
                    *most = positive(*live).max(*most);
                }
                if bin >= from {
                    lowest[site] = lowest[site].min(*live);
                    let rise = positive(live.saturating_sub(lowest[site]));
                    levels.rises[site] = levels.rises[site].max(rise);
                }
            });
        }
        if levels.last.is_empty() {
            levels.last = live;
        }
        levels
    }

    /// Of these sites alone, which rise.
    pub(super) fn of(&self, model: &Model<'_>, sites: &[u32]) -> Levels {
        let (mut born, mut most) = (vec![(0, 0); sites.len()], vec![0; sites.len()]);
        let mut live = vec![0_i64; sites.len()];
        let places: FxHashMap<u32, usize> = sites.iter().copied().zip(0..).collect();
        for bin in 0..model.bins().len() {
            model.for_each_point(bin, |point| {
                if let Some(&at) = places.get(&point.site) {
                    live[at] = live[at].wrapping_add(point.live_bytes);
                    add_born(&mut born[at], point);
                    most[at] = positive(live[at]).max(most[at]);
                }
            });
        }
        Levels {
            rises: sites.iter().map(|&site| self.rise(site)).collect(),
            most,
            born,
            last: sites
                .iter()
                .map(|&site| self.at(site, &self.last))
                .collect(),
            sites: Some(sites.to_vec()),
        }
    }

    fn at<T: Copy + Default>(&self, site: u32, values: &[T]) -> T {
        let at = match &self.sites {
            None => Some(site as usize),
            Some(sites) => sites.binary_search(&site).ok(),
        };
        at.and_then(|at| values.get(at).copied())
            .unwrap_or_default()
    }

    /// Live bytes of a site at the end of the time that is judged.
    pub(super) fn last(&self, site: u32) -> u64 {
        positive(self.at(site, &self.last))
    }

    /// How far a site rose above what it had before.
    pub(super) fn rise(&self, site: u32) -> u64 {
        self.at(site, &self.rises)
    }

    /// What was ever born at a site.
    pub(super) fn born(&self, site: u32) -> Held {
        let (blocks, bytes) = self.at(site, &self.born);
        Held {
            blocks: positive(blocks),
            bytes: positive(bytes),
        }
    }

    /// The most that a site ever held.
    pub(super) fn most(&self, site: u32) -> u64 {
        self.at(site, &self.most)
    }
}

fn add_born(born: &mut (i64, i64), point: &Point) {
    *born = (
        born.0.wrapping_add(point.total_blocks),
        born.1.wrapping_add(point.total_bytes),
    );
}

/// Blocks born by each instant, of the whole program: by bins, and in a short
/// run as closely as the histories of some sites tell it.
pub(super) fn allocations(
    model: &Model<'_>,
    told: &[&[u32]],
    history_of: impl Fn(&[u32]) -> History,
) -> Vec<(u64, f64)> {
    let mut is_told = vec![false; model.sites().len()];
    for &site in told.iter().copied().flatten() {
        is_told[site as usize] = true;
    }
    // How many more a nanosecond from an instant on.
    let mut speeds: Vec<(u64, f64)> = Vec::new();
    let mut add = |from: u64, to: u64, births: f64| {
        if to > from && births != 0.0 {
            let speed = births / (to - from) as f64;
            speeds.extend([(from, speed), (to, -speed)]);
        }
    };
    for sites in told {
        let history = history_of(sites);
        for (cohort, born) in history.cohorts.iter().zip(&history.born) {
            add(cohort.from_ns, cohort.to_ns, born.blocks as f64);
        }
    }
    let mut begin = 0;
    for (bin, &end) in model.bin_ends().iter().enumerate() {
        let mut births = 0_i64;
        model.for_each_point(bin, |point| {
            if is_told.get(point.site as usize) == Some(&false) {
                births = births.saturating_add(point.total_blocks);
            }
        });
        add(begin, end, births as f64);
        begin = end;
    }
    speeds.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    let (mut at, mut speed, mut sum) = (0, 0.0, 0.0);
    let mut points = vec![(0, 0.0)];
    for (ns, change) in speeds {
        if ns > at {
            sum += f64::max(speed * (ns - at) as f64, 0.0);
            at = ns;
            points.push((at, sum));
        }
        speed += change;
    }
    points
}

/// Gives the history of any sites together.
pub(super) struct Histories<'m, 'a> {
    model: &'m Model<'a>,
    source: Source,
}

enum Source {
    Cohorts(Box<Survivors>),
    Bins(States),
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
        let alive = known
            .checked_sub(1)
            .and_then(|last| self.history.alive.get(last));
        let cohorts = self.history.cohorts.iter();
        cohorts
            .zip(alive.into_iter().flatten())
            .all(|(cohort, held)| held.blocks == 0 || cohort.from_ns <= ns)
    }
}

impl<'m, 'a> Histories<'m, 'a> {
    pub(super) fn new(model: &'m Model<'a>) -> Self {
        let source = match Survivors::new(model) {
            Some(survivors) => Source::Cohorts(Box::new(survivors)),
            None => Source::Bins(states(model, 0..model.sites().len() as u32, None)),
        };
        Histories { model, source }
    }

    /// Of these sites alone, which rise: of others nothing is known.
    pub(super) fn of_sites(model: &'m Model<'a>, sites: &[u32]) -> Self {
        /// States in memory, of 40 bytes each.
        const MOST_STATES: usize = 1_280_000;
        let source = if let Some(survivors) = Survivors::of_sites(model, sites) {
            Source::Cohorts(Box::new(survivors))
        } else {
            let most = (MOST_STATES / sites.len().max(1)).max(64);
            Source::Bins(states(model, sites.iter().copied(), Some(most)))
        };
        Histories { model, source }
    }

    /// What sites hold at an instant.
    pub(super) fn live(&self, sites: &[u32], ns: u64) -> Held {
        let mut sum = Held::default();
        match &self.source {
            Source::Cohorts(survivors) => {
                let history = survivors.history(sites);
                let after = history.instants.partition_point(|&at| at <= ns);
                let last = after
                    .checked_sub(1)
                    .and_then(|last| history.alive.get(last));
                for held in last.into_iter().flatten() {
                    sum.blocks = sum.blocks.saturating_add(held.blocks);
                    sum.bytes = sum.bytes.saturating_add(held.bytes);
                }
            }
            Source::Bins(states) => {
                let bins = self.model.bin_ends().partition_point(|&end| end <= ns);
                let state = state(states, sites, bins);
                sum.blocks = positive(state.live.0);
                sum.bytes = positive(state.live.1);
            }
        }
        sum
    }

    /// The history of sites together, up to an instant.
    pub(super) fn of(&self, sites: &[u32], to_ns: u64) -> Found {
        match &self.source {
            Source::Cohorts(survivors) => Found {
                history: survivors.history(sites),
                to_ns,
            },
            Source::Bins(states) => of_bins(self.model.bin_ends(), states, sites, to_ns),
        }
    }

    /// When sites had made all but a twentieth of what they made by an instant;
    /// 0 where that was little.
    pub(super) fn nearly_all(&self, sites: &[u32], to_ns: u64) -> u64 {
        const FEWEST: u64 = 1000;
        // When blocks were born that died at once is not known closely.
        let sites: Vec<u32> = match &self.source {
            Source::Cohorts(survivors) => {
                let told = sites.iter().copied();
                told.filter(|&site| survivors.has_survivors(site)).collect()
            }
            Source::Bins(_) => sites.to_vec(),
        };
        let history = self.of(&sites, to_ns).history;
        let cohorts = || {
            let born = history.cohorts.iter().zip(&history.born);
            born.take_while(|(cohort, _)| cohort.from_ns < to_ns)
        };
        let all = cohorts().fold(0_u64, |sum, (_, born)| sum.saturating_add(born.blocks));
        if all < FEWEST {
            return 0;
        }
        let mut sum = 0;
        let nearly = cohorts().find(|(_, born)| {
            sum = u64::saturating_add(sum, born.blocks);
            sum >= all - all / 20
        });
        nearly.map_or(0, |(cohort, _)| cohort.to_ns.min(to_ns))
    }
}

/// Sites' counters after the bins in which they changed, or after some of these.
#[derive(Default)]
struct States {
    /// One site's after the other's.
    all: Vec<State>,
    /// Where each site's are.
    of_site: FxHashMap<u32, Range<usize>>,
}

impl States {
    fn get(&self, site: u32) -> Option<&[State]> {
        let range = self.of_site.get(&site)?;
        self.all.get(range.clone())
    }
}

/// Counters of sites after the bins in which they changed: of each, or after the last of
/// those that end in one of so many equal spans of time.
fn states(model: &Model<'_>, sites: impl Iterator<Item = u32>, most: Option<usize>) -> States {
    /// Where the next state of a site goes, and the span of its last.
    #[derive(Clone, Copy, Default)]
    struct Place {
        count: usize,
        span: Option<usize>,
    }
    let width = most.map(|most| (model.duration_ns() / most.max(1) as u64).saturating_add(1));
    let ends = model.bin_ends();
    let span_of = |bin: usize| width.map_or(bin, |width| (ends[bin] / width) as usize);
    let mut places: FxHashMap<u32, Place> = sites.map(|site| (site, Place::default())).collect();
    for bin in 0..ends.len() {
        model.for_each_point(bin, |point| {
            if let Some(place) = places.get_mut(&point.site) {
                let span = Some(span_of(bin));
                place.count += usize::from(place.span != span);
                place.span = span;
            }
        });
    }
    let mut states = States::default();
    let mut begins = 0;
    #[expect(
        clippy::iter_over_hash_type,
        reason = "whose states come first makes no difference"
    )]
    for (&site, place) in &mut places {
        let ends = begins + place.count;
        states.of_site.insert(site, begins..ends);
        *place = Place {
            count: begins,
            span: None,
        };
        begins = ends;
    }
    states.all = vec![State::default(); begins];
    for bin in 0..ends.len() {
        model.for_each_point(bin, |point| {
            let Some(place) = places.get_mut(&point.site) else {
                return;
            };
            let begins = states
                .of_site
                .get(&point.site)
                .map_or(0, |range| range.start);
            let span = Some(span_of(bin));
            let before = place
                .count
                .checked_sub(1)
                .filter(|&before| before >= begins);
            let mut state = before.map_or(State::default(), |before| states.all[before]);
            state.bin = u32::try_from(bin).unwrap_or(u32::MAX);
            state.live.0 = state.live.0.wrapping_add(point.live_blocks);
            state.live.1 = state.live.1.wrapping_add(point.live_bytes);
            state.born.0 = state.born.0.wrapping_add(point.total_blocks);
            state.born.1 = state.born.1.wrapping_add(point.total_bytes);
            let at = match before {
                Some(before) if place.span == span => before,
                _ => {
                    place.count += 1;
                    place.count - 1
                }
            };
            place.span = span;
            states.all[at] = state;
        });
    }
    states
}

/// Counters of sites together after so many bins.
fn state(of_site: &States, sites: &[u32], bins: usize) -> State {
    let mut sum = State::default();
    for &site in sites {
        let Some(states) = of_site.get(site) else {
            continue;
        };
        let after = states.partition_point(|state| (state.bin as usize) < bins);
        if let Some(state) = after.checked_sub(1).map(|at| states[at]) {
            sum.live.0 = sum.live.0.saturating_add(state.live.0);
            sum.live.1 = sum.live.1.saturating_add(state.live.1);
            sum.born.0 = sum.born.0.saturating_add(state.born.0);
            sum.born.1 = sum.born.1.saturating_add(state.born.1);
        }
    }
    sum
}

/// The history of sites of a recording that does not tell of cohorts. Which of
/// their blocks died is not known then: the oldest, which is the worst for who
/// would see a leak.
fn of_bins(bin_ends: &[u64], of_site: &States, sites: &[u32], to_ns: u64) -> Found {
    const COHORTS: u64 = 60;
    const INSTANTS: u64 = 64;
    let bins = bin_ends.partition_point(|&end| end <= to_ns);
    let states = || sites.iter().filter_map(|&site| of_site.get(site));
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
    let begins = first.checked_sub(1).map_or(0, |before| bin_ends[before]);
    let ends = bin_ends.get(last).copied().unwrap_or(to_ns);
    // Bins (as counts of them) that end nearest to evenly spread instants.
    let spread = |from: u64, to: u64, parts: u64| {
        let mut chosen: Vec<usize> = (0..=parts)
            .map(|part| {
                let at = from
                    + (u128::from(to.saturating_sub(from)) * u128::from(part) / u128::from(parts))
                        as u64;
                bin_ends.partition_point(|&end| end <= at)
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
    let end_of = |bins: usize| bins.checked_sub(1).map_or(0, |bin| bin_ends[bin]);
    let born_by: Vec<State> = edges
        .iter()
        .map(|&edge| state(of_site, sites, edge))
        .collect();
    let mut cohorts = Vec::new();
    let mut born = Vec::new();
    let mut before = (0, State::default());
    for (&edge, &state) in edges.iter().zip(&born_by) {
        cohorts.push(Cohort {
            from_ns: before.0,
            to_ns: end_of(edge),
        });
        born.push(Held {
            blocks: positive(state.born.0.wrapping_sub(before.1.born.0)),
            bytes: positive(state.born.1.wrapping_sub(before.1.born.1)),
        });
        before = (end_of(edge), state);
    }
    let alive = at
        .iter()
        .map(|&bins| {
            let state = state(of_site, sites, bins);
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
                let blocks = positive(until.born.0.wrapping_sub(from.born.0)).min(left.0);
                let bytes = positive(until.born.1.wrapping_sub(from.born.1)).min(left.1);
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

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
