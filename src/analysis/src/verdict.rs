//! Is it a leak? Judges how sites grow, from survivors by birth cohort.
//!
//! The evidence is not how much is live, which rises and falls together with
//! its own past, but what became of the blocks that were born at one time. Of
//! a leak a part stays for good, and in each cohort anew; a cache stops taking
//! new entries; of what is replaced in turn the old cohorts die. A site is
//! *leaking* when
//!
//! * beyond some age its blocks have stopped dying: an end of their lives
//!   within the window would have shown (`Evidence::lasting`),
//! * such blocks came in all parts of the window, and
//! * as many in its end as at its beginning: a decline like that of a cache
//!   that fills would have shown (`Evidence::steady`).
//!
//! The chance that what is no leak passes is the larger of two chances; over
//! all sites false discoveries are bounded by the procedure of Benjamini and
//! Hochberg. How often it errs is measured: docs/architecture.md.
//!
//! Time is measured by the clock and on each axis of [`Context::progress`]; a
//! site is judged on the one that shows most.
//!
//! # Invariants
//!
//! * Pure, and never panics: counts that contradict each other (a forked
//!   child's) make evidence weaker, not wrong.
//! * Sites are judged one at a time; only what [`Judge::finish`] needs of them
//!   is kept.

mod statistics;

use crate::survivors::{Held, History};
use statistics::{poisson_at_most, student_95, student_above};

/// What time is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisKind {
    /// Seconds.
    Clock,
    /// Allocations of the whole program.
    Allocations,
    /// Rounds that the program marked.
    Rounds,
}

impl AxisKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            AxisKind::Clock => "clock",
            AxisKind::Allocations => "allocations",
            AxisKind::Rounds => "rounds",
        }
    }
}

/// How far the program had come, by one measure of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The measure.
    pub kind: AxisKind,
    /// Instants in nanoseconds, rising, and how far it had come; never falling.
    /// In between it went on evenly.
    pub points: Vec<(u64, f64)>,
}

impl Progress {
    fn at(&self, ns: u64) -> f64 {
        let after = self.points.partition_point(|point| point.0 <= ns);
        match (
            after.checked_sub(1).map(|at| self.points[at]),
            self.points.get(after),
        ) {
            (None, None) => 0.0,
            (None, Some(first)) => first.1,
            (Some(before), None) => before.1,
            (Some(before), Some(after)) => {
                let part = (ns - before.0) as f64 / (after.0 - before.0) as f64;
                before.1 + part * (after.1 - before.1)
            }
        }
    }
}

/// What all sites of a recording have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Growth counts from here on: the end of warm-up, in nanoseconds.
    pub from_ns: u64,
    /// Up to here.
    pub to_ns: u64,
    /// The mean size of the blocks that are live in the end.
    pub block_bytes: f64,
    /// Measures of time beside the clock.
    pub progress: Vec<Progress>,
    /// Mean bytes between samples; 0 where every block was recorded.
    pub sample_bytes: u64,
}

impl Context {
    /// The same, where so many blocks are one observation.
    fn thinned(&self, weight: u64) -> Self {
        let mut thinned = self.clone();
        for progress in &mut thinned.progress {
            if progress.kind == AxisKind::Allocations {
                for point in &mut progress.points {
                    point.1 /= weight as f64;
                }
            }
        }
        thinned
    }
}

/// What a site's history does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its stack comes from an import, and from nothing that the import calls.
    pub start_up: bool,
    /// When its process had done its work, where that was before
    /// [`Context::to_ns`].
    pub to_ns: Option<u64>,
    /// How many blocks one observation stands for, where they were sampled: what
    /// is judged is how many were seen, not how many they stand for. 0 and 1:
    /// each was recorded.
    pub weight: u64,
}

/// A measure of time at a history's instants, and at the edges of its cohorts.
#[derive(Debug)]
struct Axis {
    kind: AxisKind,
    at_instants: Vec<f64>,
    at_edges: Vec<f64>,
    scatter: Scattered,
}

/// How far a measure of time scatters: what differs from one of its points to the next,
/// without what goes up and down over many of them.
#[derive(Debug, Default)]
struct Scattered {
    /// Instants in nanoseconds, rising, and the sum up to there of variances of a
    /// nanosecond.
    sums: Vec<(u64, f64)>,
}

impl Scattered {
    fn new(points: &[(u64, f64)]) -> Self {
        let steps: Vec<(u64, f64, f64)> = points
            .windows(2)
            .filter(|pair| pair[1].0 > pair[0].0)
            .map(|pair| {
                let width = (pair[1].0 - pair[0].0) as f64;
                (pair[0].0, width, (pair[1].1 - pair[0].1) / width)
            })
            .collect();
        let mut sum = 0.0;
        let pairs = steps.windows(2).map(|pair| {
            let ((_, before, slower), (at, after, faster)) = (pair[0], pair[1]);
            sum += (faster - slower).powi(2) / (1.0 / before + 1.0 / after);
            (at, sum)
        });
        Scattered {
            sums: pairs.collect(),
        }
    }

    /// The variance of what comes in a nanosecond, where enough of it was seen.
    fn within(&self, from_ns: u64, to_ns: u64) -> Option<f64> {
        const FEWEST: usize = 8;
        let at = |ns: u64| self.sums.partition_point(|(at, _)| *at < ns);
        let (first, end) = (at(from_ns), at(to_ns));
        let before = first.checked_sub(1).map_or(0.0, |at| self.sums[at].1);
        let last = end.checked_sub(1)?;
        (end >= first + FEWEST).then(|| (self.sums[last].1 - before) / (end - first) as f64)
    }
}

/// When a history's counts are known, up to the context's end.
#[derive(Debug)]
struct Timing {
    instants: Vec<u64>,
    /// Cohort `j` was born in `edges[j]..edges[j + 1]`.
    edges: Vec<u64>,
    /// How many cohorts end by the last instant. What was born of the next one by then is
    /// known, as what is alive, and not how many these were of.
    whole: usize,
    axes: Vec<Axis>,
    from_ns: u64,
    /// Growth below this is not looked at.
    floor_bytes: u64,
}

impl Timing {
    fn new(context: &Context, to_ns: u64, history: &History) -> Self {
        let instants: Vec<u64> = history
            .instants
            .iter()
            .copied()
            .take_while(|&at| at <= to_ns)
            .collect();
        let begin = history.cohorts.first().map(|cohort| cohort.from_ns);
        let ends = history.cohorts.iter().map(|cohort| cohort.to_ns);
        let mut edges: Vec<u64> = begin.into_iter().chain(ends).collect();
        // As they should be anyway.
        for at in 1..edges.len() {
            edges[at] = edges[at].max(edges[at - 1]);
        }
        // Of a site that has been quiet since, the cohort that lies around the end is all
        // of the quiet time.
        let end = instants.last().copied().unwrap_or(0);
        let whole = edges.partition_point(|&edge| edge <= end).saturating_sub(1);
        if edges.get(whole).is_some_and(|&from| from < end)
            && let Some(to) = edges.get_mut(whole + 1)
        {
            *to = end;
        }
        let clock = |ns: &u64| *ns as f64 / 1e9;
        let mut axes = vec![Axis {
            kind: AxisKind::Clock,
            at_instants: instants.iter().map(clock).collect(),
            at_edges: edges.iter().map(clock).collect(),
            scatter: Scattered::default(),
        }];
        axes.extend(
            context
                .progress
                .iter()
                .filter_map(|progress| match progress.kind {
                    AxisKind::Allocations => besides(progress, history, &instants, &edges),
                    kind => Some(Axis {
                        kind,
                        at_instants: instants.iter().map(|&ns| progress.at(ns)).collect(),
                        at_edges: edges.iter().map(|&ns| progress.at(ns)).collect(),
                        scatter: Scattered::default(),
                    }),
                }),
        );
        Timing {
            instants,
            edges,
            whole,
            axes,
            from_ns: context.from_ns,
            floor_bytes: FLOOR_BYTES,
        }
    }

    fn cohorts(&self) -> usize {
        self.edges.len().saturating_sub(1)
    }

    fn end_ns(&self) -> u64 {
        self.instants.last().copied().unwrap_or(0)
    }
}

/// What the program allocated besides a site's own blocks: by those alone
/// whatever a site does is steady. `None` where that is next to nothing.
fn besides(
    progress: &Progress,
    history: &History,
    instants: &[u64],
    edges: &[u64],
) -> Option<Axis> {
    let mut sum = 0.0;
    let mut own = vec![(edges.first().copied()?, 0.0)];
    for (&edge, born) in edges.iter().skip(1).zip(&history.born) {
        sum += born.blocks as f64;
        own.push((edge, sum));
    }
    let own = Progress {
        kind: progress.kind,
        points: own,
    };
    let along = |at: &[u64]| -> Vec<f64> {
        let mut most = 0.0_f64;
        at.iter()
            .map(|&ns| {
                most = most.max(progress.at(ns) - own.at(ns));
                most
            })
            .collect()
    };
    let at_edges = along(edges);
    let all = at_edges.last().copied().unwrap_or(0.0);
    (all >= 0.1 * sum && all >= 8.0 * edges.len() as f64).then(|| Axis {
        kind: progress.kind,
        at_instants: along(instants),
        at_edges,
        scatter: Scattered::new(&progress.points),
    })
}

fn alive_of(history: &History, instant: usize, cohort: usize) -> Held {
    let cohorts = history.alive.get(instant);
    cohorts
        .and_then(|cohorts| cohorts.get(cohort))
        .map_or(Held::default(), plausible)
}

fn born_in(history: &History, cohort: usize) -> u64 {
    history
        .born
        .get(cohort)
        .map_or(0, |held| plausible(held).blocks)
}

/// So many that sums of them cannot overflow.
fn plausible(held: &Held) -> Held {
    const MOST: u64 = 1 << 48;
    Held {
        blocks: held.blocks.min(MOST),
        bytes: held.bytes.min(MOST),
    }
}

fn live(history: &History, instant: usize) -> Held {
    let mut sum = Held::default();
    for &held in history.alive.get(instant).into_iter().flatten() {
        sum.blocks = sum.blocks.saturating_add(held.blocks);
        sum.bytes = sum.bytes.saturating_add(held.bytes);
    }
    sum
}

/// What a site's growth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// A part of what is made there stays for good, at a steady rate.
    Leaking,
    /// Nothing points to what is left of it: it is lost for good.
    Unreachable,
    /// It grows; whether it will stop cannot be told yet.
    Growing,
    /// It does not fit any of the others.
    Unclear,
    /// It grew, then stopped.
    Plateau,
    /// It grew and came back down.
    Burst,
    /// What imports made.
    StartUp,
}

impl Verdict {
    /// The word for it, as in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Leaking => "leaking",
            Verdict::Unreachable => "unreachable",
            Verdict::Growing => "growing",
            Verdict::Unclear => "unclear",
            Verdict::Plateau => "plateau",
            Verdict::Burst => "burst",
            Verdict::StartUp => "start-up",
        }
    }
}

/// Why growth is not called a leak, or nothing more certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Too few blocks stayed to tell.
    Few,
    /// It began in the last quarter of the recording.
    Recent,
    /// Fewer stay than before: a cache that fills looks like this.
    Slowing,
    /// Old blocks still die.
    Dying,
    /// What stays comes in clumps.
    Irregular,
    /// A block that is made anew each time, larger.
    Renewed,
    /// It stopped when the program stopped allocating, long before the end.
    Idle,
    /// The recording has too few states to judge by.
    Coarse,
    /// Only what was live at some instants is known, not what died in between.
    Unseen,
}

/// Bytes a second that stay, with what they may be in 95 of 100 cases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// The estimate.
    pub bytes_per_second: f64,
    /// Half of the interval's width.
    pub error: f64,
    /// Blocks a second.
    pub blocks_per_second: f64,
    /// Blocks a unit of the axis that it was judged on.
    pub blocks_per_unit: f64,
}

/// A site, judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not *leaking*, where it grows.
    pub doubt: Option<Doubt>,
    /// How fast it grows, where it does.
    pub rate: Option<Rate>,
    /// Since when.
    pub since_ns: u64,
    /// What is live at the end.
    pub live: Held,
    /// How much more is live than at the end of warm-up; may be below 0.
    pub grown_bytes: i64,
    /// The most that it had grown by at any instant.
    pub most_bytes: u64,
    /// Blocks that were born since growth began, and how many of them stay,
    /// among those that are old enough to tell.
    pub kept: (u64, u64),
    /// The age in seconds beyond which none is seen to die.
    pub lasting_seconds: f64,
    /// The measure of time that shows it.
    pub axis: AxisKind,
    /// The chance that something that is no leak looks so: 0 to 1.
    pub chance: f64,
}

/// All sites, judged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judgement {
    /// In the order in which they were shown to the judge; `None` for a site
    /// that did not grow past the floor.
    pub sites: Vec<Option<Judged>>,
    /// Growth below this was not looked at.
    pub floor_bytes: u64,
    /// The smallest growth that would have been listed.
    pub detectable_bytes_per_second: f64,
    /// The span that was judged, in seconds.
    pub seconds: f64,
}

/// Growth below this is not looked at.
pub const FLOOR_BYTES: u64 = 4096;

/// The same where blocks were sampled at a mean: of fewer samples than this is
/// of, how many they are is chance.
pub(crate) fn sampled_floor(sample_bytes: u64) -> u64 {
    const SAMPLES: u64 = 8;
    FLOOR_BYTES.max(SAMPLES.saturating_mul(sample_bytes))
}

/// False discoveries among all that is called leaking.
const FALSE_DISCOVERIES: f64 = 0.005;
/// Blocks of a cohort count as so many at most: those of one batch live and
/// die together.
const UNITS: f64 = 16.0;
/// Fewest blocks that stayed, in a leak.
const FEWEST: f64 = 24.0;
/// Fewest cohorts in its window.
const FEWEST_COHORTS: usize = 8;
/// Deaths in the time since growth began, of each block that is older than the
/// age beyond which it should stay, at most.
const MOST_DEATHS: f64 = 0.25;
/// Ages to try, as parts of the whole.
const AGES: [f64; 7] = [
    0.0,
    1.0 / 64.0,
    1.0 / 32.0,
    1.0 / 16.0,
    1.0 / 8.0,
    1.0 / 4.0,
    1.0 / 2.0,
];
/// Arrivals that decline by more than this, as a power of e, are a cache's...
const CACHE: f64 = 0.5;
/// ...and by less are steady, even where the decline is certain.
const STEADY: f64 = 0.15;
/// Standard deviations of a decline that is certain.
const CERTAIN: f64 = 2.58;
/// Blocks that make growth stand out, where they come at random.
const DETECTABLE_BLOCKS: f64 = 48.0;

/// What one axis says of a site.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    doubt: Option<Doubt>,
    /// The chance of such lasting blocks if they do die.
    lasting: f64,
    /// The chance of such steady arrivals if they do decline.
    steady: f64,
    /// Of arrivals: 1 where they come at random, below where regularly.
    dispersion: f64,
    /// First and last cohort of the window.
    window: (usize, usize),
    kept: (u64, u64),
    /// On the axis.
    age: f64,
    rate: Rate,
    axis: AxisKind,
}

impl Evidence {
    fn chance(&self) -> f64 {
        self.lasting.max(self.steady).min(1.0)
    }
}

/// A history of observations that stand for so many blocks each.
fn thinned(history: &History, weight: u64) -> History {
    let thin = |held: &Held| Held {
        blocks: held.blocks.saturating_add(weight / 2) / weight,
        bytes: held.bytes,
    };
    History {
        born: history.born.iter().map(thin).collect(),
        alive: (history.alive.iter())
            .map(|cohorts| cohorts.iter().map(thin).collect())
            .collect(),
        ..history.clone()
    }
}

impl Judged {
    /// In blocks again, of observations that stand for so many each.
    fn weighed(mut self, weight: u64) -> Self {
        self.live.blocks = self.live.blocks.saturating_mul(weight);
        self.kept.0 = self.kept.0.saturating_mul(weight);
        self.kept.1 = self.kept.1.saturating_mul(weight);
        if let Some(rate) = &mut self.rate {
            rate.blocks_per_second *= weight as f64;
            // Allocations are counted in observations too, rounds are not.
            if self.axis != AxisKind::Allocations {
                rate.blocks_per_unit *= weight as f64;
            }
        }
        self
    }
}

/// Judges sites, one after the other.
#[derive(Debug)]
pub struct Judge<'c> {
    context: &'c Context,
    sites: Vec<Option<Judged>>,
    looked_at: usize,
}

impl<'c> Judge<'c> {
    /// For the sites of a recording.
    pub fn new(context: &'c Context) -> Self {
        Judge {
            context,
            sites: Vec::new(),
            looked_at: 0,
        }
    }

    /// The next site did not grow past the floor, as is known without its
    /// history.
    pub fn pass_over(&mut self) {
        self.sites.push(None);
    }

    /// Looks at the next site.
    pub fn look_at(&mut self, history: &History, facts: Facts) {
        let to_ns = facts.to_ns.unwrap_or(u64::MAX).min(self.context.to_ns);
        let judged = if facts.weight > 1 {
            let (context, history) = (
                self.context.thinned(facts.weight),
                thinned(history, facts.weight),
            );
            let timing = Timing {
                floor_bytes: sampled_floor(context.sample_bytes),
                ..Timing::new(&context, to_ns, &history)
            };
            let judged = judge(&timing, &history, facts.start_up);
            judged.map(|judged| judged.weighed(facts.weight))
        } else {
            let timing = Timing::new(self.context, to_ns, history);
            judge(&timing, history, facts.start_up)
        };
        self.looked_at += usize::from(judged.is_some());
        self.sites.push(judged);
    }

    /// Decides, now that it is known among how many.
    pub fn finish(mut self) -> Judgement {
        let mut chances: Vec<f64> = self
            .sites
            .iter()
            .flatten()
            .filter(|judged| judged.verdict == Verdict::Leaking)
            .map(|judged| judged.chance)
            .collect();
        chances.sort_by(f64::total_cmp);
        // Benjamini and Hochberg: the most of the smallest chances that are
        // still below their share.
        let share = FALSE_DISCOVERIES / self.looked_at.max(1) as f64;
        let passed = chances
            .iter()
            .enumerate()
            .rposition(|(rank, &chance)| chance <= share * (rank + 1) as f64);
        let bound = passed.map_or(0.0, |last| chances[last]);
        for judged in self.sites.iter_mut().flatten() {
            if judged.verdict == Verdict::Leaking && (passed.is_none() || judged.chance > bound) {
                judged.verdict = Verdict::Growing;
                judged.doubt = Some(Doubt::Few);
            }
        }
        let span_ns = self.context.to_ns.saturating_sub(self.context.from_ns);
        let seconds = span_ns as f64 / 1e9;
        let bytes = DETECTABLE_BLOCKS * self.context.block_bytes.clamp(64.0, 65536.0);
        let bytes = bytes
            .max(2.0 * FLOOR_BYTES as f64)
            .max(DETECTABLE_BLOCKS * self.context.sample_bytes as f64);
        Judgement {
            sites: self.sites,
            floor_bytes: sampled_floor(self.context.sample_bytes),
            detectable_bytes_per_second: if seconds > 0.0 { bytes / seconds } else { 0.0 },
            seconds,
        }
    }
}

fn judge(timing: &Timing, history: &History, start_up: bool) -> Option<Judged> {
    let last = timing.instants.len().checked_sub(1)?;
    let level = Level::new(timing, history);
    if level.most < timing.floor_bytes {
        return None;
    }
    let live = live(history, last);
    let evidence: Vec<Evidence> = timing
        .axes
        .iter()
        .filter_map(|axis| evidence(timing, axis, history))
        .collect();
    // What a leak follows is the measure by which it comes most regularly; by
    // another one a filling cache may look steady, with luck.
    let most_regular = evidence
        .iter()
        .map(|evidence| evidence.dispersion)
        .fold(f64::INFINITY, f64::min);
    // Of those, the one that convicts, else the one that comes nearest to it.
    let fitting = evidence
        .iter()
        .filter(|evidence| evidence.dispersion <= 1.5 * most_regular);
    let best = fitting.min_by(|one, other| {
        let key = |evidence: &Evidence| (evidence.doubt.is_some(), evidence.chance());
        let (one, other) = (key(one), key(other));
        one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
    });
    let clock = timing
        .axes
        .first()
        .map_or(AxisKind::Clock, |axis| axis.kind);
    let mut judged = Judged {
        verdict: Verdict::Unclear,
        doubt: None,
        rate: None,
        since_ns: level.began_ns,
        live,
        grown_bytes: level.grown,
        most_bytes: level.most,
        kept: best.map_or((0, 0), |best| best.kept),
        lasting_seconds: 0.0,
        axis: best.map_or(clock, |best| best.axis),
        chance: best.map_or(1.0, Evidence::chance),
    };
    if let Some(best) = best {
        judged.rate = Some(best.rate);
        judged.since_ns = timing.edges[best.window.0];
        judged.lasting_seconds = best.age * seconds_a_unit(timing, best);
        judged.doubt = best.doubt;
        if best.doubt.is_none() && level.grown >= timing.floor_bytes as i64 {
            judged.verdict = Verdict::Leaking;
            return Some(judged);
        }
    }
    judged.verdict = level.verdict(timing, start_up, judged.doubt);
    match judged.verdict {
        Verdict::Growing => {
            let renewed = level.is_renewed;
            judged.doubt = judged.doubt.filter(|_| !renewed).or(Some(if renewed {
                Doubt::Renewed
            } else {
                Doubt::Few
            }));
            if judged.rate.is_none() || renewed {
                judged.rate = level.rate(timing);
                judged.since_ns = level.began_ns;
            }
        }
        Verdict::Unclear => judged.rate = level.rate(timing).or(judged.rate),
        _ => {
            judged.rate = None;
            judged.since_ns = level.began_ns;
        }
    }
    Some(judged)
}

/// What one axis says of a site, unless nothing stays.
fn evidence(timing: &Timing, axis: &Axis, history: &History) -> Option<Evidence> {
    let last = timing.instants.len().checked_sub(1)?;
    let end = axis.at_instants[last];
    let edges = &axis.at_edges;
    let whole = end - edges.first()?;
    if whole <= 0.0 {
        return None;
    }
    let table = LifeTable::new(timing, axis, history, whole);
    let mut nearest: Option<Evidence> = None;
    for part in AGES {
        let age = part * whole;
        // Old enough to tell, and born after warm-up.
        let first = first_counted(timing);
        let after = (first..timing.cohorts())
            .take_while(|&cohort| {
                timing.edges[cohort + 1] <= timing.end_ns() && edges[cohort + 1] <= end - age
            })
            .last()
            .map_or(first, |cohort| cohort + 1);
        let stayed: Vec<Held> = (0..after)
            .map(|cohort| alive_of(history, last, cohort))
            .collect();
        let all: u64 = stayed[first.min(after)..]
            .iter()
            .map(|count| count.blocks)
            .sum();
        if (all as f64) < FEWEST {
            break;
        }
        // What grew before the rest did says nothing of how the rest grows.
        let mut sum = 0;
        let begins = (first..after).find(|&cohort| {
            sum += stayed[cohort].blocks;
            sum as f64 >= 0.05 * all as f64
        })?;
        // The first cohort of those may have begun before them.
        let window = (begins + 1, after.wrapping_sub(1));
        if begins + 1 >= after {
            continue;
        }
        let since = end - edges[begins];
        if age > since / 2.0 {
            break;
        }
        let (deaths, exposure) = table.beyond(age);
        let lasting = poisson_at_most(deaths, exposure / since) * AGES.len() as f64;
        let hazard = if exposure > 0.0 {
            deaths / exposure * since
        } else {
            f64::INFINITY
        };
        let mut found = arrivals(timing, axis, history, &stayed, window, CACHE);
        if found.doubt == Some(Doubt::Slowing) {
            // A cache beside a leak fills first. In a part of the window its decline is
            // less steep by as much.
            const PARTS: [f64; 3] = [7.0 / 8.0, 3.0 / 4.0, 1.0 / 2.0];
            let (begin, whole) = (edges[begins + 1], edges[after] - edges[begins + 1]);
            let later = PARTS.iter().find_map(|part| {
                let from = begin + whole * (1.0 - part);
                let first = edges.partition_point(|&edge| edge < from).min(after - 1);
                let within = (first, after - 1);
                let mut later = arrivals(timing, axis, history, &stayed, within, CACHE * part);
                // One of several chances.
                later.steady *= PARTS.len() as f64;
                (later.doubt.is_none() && later.steady <= 0.01).then_some(later)
            });
            found = later.unwrap_or(found);
        }
        found.rate = mature_rate(timing, axis, &stayed, found.window, age);
        found.age = age;
        found.lasting = lasting;
        if hazard > MOST_DEATHS || lasting > 0.01 {
            found.doubt = Some(if hazard > MOST_DEATHS {
                Doubt::Dying
            } else {
                Doubt::Few
            });
            nearest.get_or_insert(found);
            continue;
        }
        if found.doubt.is_none() && is_recent(timing, begins) {
            found.doubt = Some(Doubt::Recent);
        }
        if found.doubt.is_none() && axis.kind == AxisKind::Allocations {
            found.doubt = by_the_clock(timing, axis, history, &stayed, begins);
        }
        return Some(found);
    }
    nearest
}

/// The rate of what is twice as old as need be: of the short-lived blocks
/// beside a leak a few get old.
fn mature_rate(
    timing: &Timing,
    axis: &Axis,
    stayed: &[Held],
    (first, last): (usize, usize),
    age: f64,
) -> Rate {
    let edges = &axis.at_edges;
    let latest = edges[last + 1] - age;
    let earlier = (first..=last).rfind(|&cohort| edges[cohort + 1] <= latest);
    let enough = earlier.filter(|&earlier| earlier - first >= FEWEST_COHORTS);
    rate(timing, axis, stayed, (first, enough.unwrap_or(last)))
}

/// Growth that began in the last quarter may be a burst that is still to end.
fn is_recent(timing: &Timing, begins: usize) -> bool {
    timing.axes.iter().all(|axis| {
        let end = axis.at_instants.last().copied().unwrap_or(0.0);
        let from = first_counted(timing);
        let whole = end - axis.at_edges.get(from).copied().unwrap_or(0.0);
        end - axis.at_edges[begins] < 0.25 * whole
    })
}

/// Seconds that a unit of the axis took, in the window.
fn seconds_a_unit(timing: &Timing, evidence: &Evidence) -> f64 {
    let (first, last) = evidence.window;
    let axis = timing.axes.iter().find(|axis| axis.kind == evidence.axis);
    let units = axis.map_or(0.0, |axis| axis.at_edges[last + 1] - axis.at_edges[first]);
    let seconds = (timing.edges[last + 1] - timing.edges[first]) as f64 / 1e9;
    if units > 0.0 { seconds / units } else { 0.0 }
}

/// Where all that a program allocates goes with what a cache takes in, that is
/// steady by allocations. So the clock has to agree: growth did not stop long
/// before the end, and until then it was steady, or else faster again after it
/// was slower: then it was the load that changed.
fn by_the_clock(
    timing: &Timing,
    axis: &Axis,
    history: &History,
    stayed: &[Held],
    begins: usize,
) -> Option<Doubt> {
    let clock = timing
        .axes
        .iter()
        .find(|axis| axis.kind == AxisKind::Clock)?;
    let last = stayed.iter().rposition(|count| count.blocks > 0)?;
    let (began, stopped) = (timing.edges[begins], timing.edges[last + 1]);
    // Of what is younger it is not known yet whether it stays.
    let quiet = timing.edges[stayed.len()].saturating_sub(stopped);
    if quiet > (stopped - began) / 3 {
        return Some(Doubt::Idle);
    }
    let window = (begins + 1, last);
    if window.0 > last {
        return None;
    }
    let found = arrivals(timing, clock, history, stayed, window, CACHE);
    found
        .doubt
        .filter(|_| !rises(timing, stayed, window) && !work_rises(timing, axis, window))
}

/// Whether the program did more in some part of a window than in one before: what goes
/// with its work then came faster, too. A few samples of a site do not show it when all
/// that the program allocates does.
fn work_rises(timing: &Timing, axis: &Axis, (first, last): (usize, usize)) -> bool {
    let cohorts: Vec<usize> = (first..=last).collect();
    [4, 8, 16, 32].into_iter().any(|parts| {
        let (mut least, mut least_variance) = (f64::INFINITY, 0.0);
        cohorts
            .chunks_exact(cohorts.len().div_ceil(parts))
            .any(|part| {
                let (first, end) = (part[0], part[part.len() - 1] + 1);
                let (from_ns, to_ns) = (timing.edges[first], timing.edges[end]);
                let Some(scatter) = axis.scatter.within(from_ns, to_ns) else {
                    return false;
                };
                let width = (to_ns - from_ns).max(1) as f64;
                let rate = (axis.at_edges[end] - axis.at_edges[first]) / width;
                let variance = scatter / width;
                let chance = 4.5 * (variance + least_variance).sqrt();
                let is_more = rate - least > chance && rate > 1.3 * least;
                if rate < least {
                    (least, least_variance) = (rate, variance);
                }
                is_more
            })
    })
}

/// Whether more came in some part of a window than in one before, and not by
/// chance.
fn rises(timing: &Timing, stayed: &[Held], (first, last): (usize, usize)) -> bool {
    let cohorts: Vec<usize> = (first..=last).collect();
    [8, 16, 32].into_iter().any(|parts| {
        let (mut least, mut least_square) = (f64::INFINITY, 0.0);
        cohorts
            .chunks_exact(cohorts.len().div_ceil(parts))
            .any(|part| {
                let (first, last) = (part[0], part[part.len() - 1]);
                let width = (timing.edges[last + 1] - timing.edges[first]).max(1) as f64;
                let count: u64 = part.iter().map(|&cohort| stayed[cohort].blocks).sum();
                let (density, square) = (count as f64 / width, count as f64 / width / width);
                let chance = 4.5 * (square + least_square).sqrt();
                let is_more = density - least > chance && density > 1.3 * least;
                if density < least {
                    (least, least_square) = (density, square);
                }
                is_more
            })
    })
}

/// Deaths and time lived, by age.
struct LifeTable {
    deaths: Vec<f64>,
    lived: Vec<f64>,
    whole: f64,
}

impl LifeTable {
    const STEPS: usize = 64;

    fn new(timing: &Timing, axis: &Axis, history: &History, whole: f64) -> Self {
        let mut table = LifeTable {
            deaths: vec![0.0; Self::STEPS + 1],
            lived: vec![0.0; Self::STEPS + 1],
            whole,
        };
        for cohort in 0..timing.whole.min(timing.cohorts()) {
            let born_by = timing.edges[cohort + 1];
            let first = timing.instants.partition_point(|&at| at < born_by);
            let born = born_in(history, cohort);
            let at_first = alive_of(history, first, cohort).blocks.min(born);
            if first >= timing.instants.len() || born == 0 {
                continue;
            }
            // Until then they died at an age that is not known: as young.
            let lasted = axis.at_instants[first] - axis.at_edges[cohort + 1];
            table.add(0.0, born, at_first, born, lasted);
            let mut alive = at_first;
            for instant in first..timing.instants.len() - 1 {
                let later = alive_of(history, instant + 1, cohort).blocks.min(alive);
                let lasted = axis.at_instants[instant + 1] - axis.at_instants[instant];
                let age = axis.at_instants[instant] - axis.at_edges[cohort + 1];
                table.add(age, alive, later, at_first, lasted);
                alive = later;
            }
        }
        table
    }

    /// Adds a time that blocks of an age lived, or not, of so many in their
    /// cohort.
    fn add(&mut self, age: f64, alive: u64, later: u64, of: u64, lasted: f64) {
        if alive == 0 {
            return;
        }
        let unit = (UNITS / of as f64).min(1.0);
        let step = (age / self.whole * Self::STEPS as f64) as usize;
        let step = step.min(Self::STEPS);
        self.deaths[step] += unit * (alive - later) as f64;
        self.lived[step] += unit * f64::midpoint(alive as f64, later as f64) * lasted;
    }

    /// Of blocks older than `age`.
    fn beyond(&self, age: f64) -> (f64, f64) {
        let step = (age / self.whole * Self::STEPS as f64).round() as usize;
        let step = step.min(Self::STEPS);
        (
            self.deaths[step..].iter().sum(),
            self.lived[step..].iter().sum(),
        )
    }
}

/// Judges how what stayed arrived, in the cohorts of `window`.
fn arrivals(
    timing: &Timing,
    axis: &Axis,
    history: &History,
    stayed: &[Held],
    window: (usize, usize),
    cache: f64,
) -> Evidence {
    let (first, last) = window;
    let edges = &axis.at_edges;
    let from = reaching_back(axis, stayed, window, first_counted(timing));
    let (begin, length) = (edges[first], edges[last + 1] - edges[first]);
    let kept: u64 = stayed[first..=last].iter().map(|count| count.blocks).sum();
    let born = |cohort: usize| {
        let is_whole = cohort < timing.whole;
        let born = is_whole.then(|| born_in(history, cohort));
        born.unwrap_or(stayed[cohort].blocks)
    };
    let born: u64 = (first..=last).map(born).sum();
    let mut evidence = Evidence {
        doubt: None,
        lasting: 1.0,
        steady: 1.0,
        dispersion: f64::INFINITY,
        window: (from, last),
        kept: (born.max(kept), kept),
        age: 0.0,
        rate: rate(timing, axis, stayed, (from, last)),
        axis: axis.kind,
    };
    let cohorts: Vec<(f64, f64, f64)> = (first..=last)
        .filter(|&cohort| edges[cohort + 1] > edges[cohort] && length > 0.0)
        .map(|cohort| {
            let (from, to) = (
                (edges[cohort] - begin) / length,
                (edges[cohort + 1] - begin) / length,
            );
            (from, to, stayed[cohort].blocks as f64)
        })
        .collect();
    if cohorts.len() < FEWEST_COHORTS {
        evidence.doubt = Some(Doubt::Coarse);
        return evidence;
    }
    let count = kept as f64;
    if count < FEWEST {
        evidence.doubt = Some(Doubt::Few);
        return evidence;
    }
    let centre = |&(from, to, _): &(f64, f64, f64)| f64::midpoint(from, to);
    let mean = cohorts
        .iter()
        .map(|cohort| cohort.2 * centre(cohort))
        .sum::<f64>()
        / count;
    let spread: f64 = cohorts
        .iter()
        .map(|cohort| (cohort.1 - cohort.0) * (centre(cohort) - 0.5).powi(2))
        .sum();
    let slope = (mean - 0.5) / spread;
    let residuals: Vec<f64> = cohorts
        .iter()
        .map(|cohort| {
            let width = cohort.1 - cohort.0;
            let expected = count * width * (1.0 + slope * (centre(cohort) - 0.5)).max(0.25);
            (cohort.2 - expected) / expected.sqrt()
        })
        .collect();
    let freedom = (cohorts.len() - 2) as f64;
    let dispersion = residuals
        .iter()
        .map(|residual| residual * residual)
        .sum::<f64>()
        / freedom;
    let dispersion = dispersion.max(0.01) * persistence(&residuals);
    evidence.dispersion = dispersion;
    let deviation = (dispersion * spread / count).sqrt();
    evidence.steady = student_above((mean - (0.5 - cache / 12.0)) / deviation, freedom);
    let certain = (mean - 0.5) / deviation < -CERTAIN;
    if mean < 0.5 - STEADY * cache / CACHE / 12.0 && certain {
        evidence.doubt = Some(Doubt::Slowing);
    } else if !comes_throughout(&cohorts) {
        evidence.doubt = Some(Doubt::Irregular);
    } else if evidence.steady > 0.01 {
        evidence.doubt = Some(Doubt::Few);
    }
    evidence
}

/// The first cohort that was born after warm-up.
fn first_counted(timing: &Timing) -> usize {
    timing.edges.partition_point(|&edge| edge < timing.from_ns)
}

/// The window's first cohort, with those before it that are like it: the
/// window was cut at what surely belongs to it.
fn reaching_back(axis: &Axis, stayed: &[Held], window: (usize, usize), least: usize) -> usize {
    let (first, last) = window;
    let edges = &axis.at_edges;
    let blocks = |from: usize, to: usize| -> f64 {
        stayed[from..=to]
            .iter()
            .map(|count| count.blocks as f64)
            .sum()
    };
    let density = blocks(first, last) / (edges[last + 1] - edges[first]).max(f64::MIN_POSITIVE);
    let mut from = first;
    while from > least {
        let expected = density * (edges[from] - edges[from - 1]);
        let there = blocks(from - 1, from - 1);
        // The one in which growth began is not all of it.
        let is_like = there >= 0.6 * expected - 1.0 && there <= 1.6 * expected + 3.0;
        if !is_like {
            break;
        }
        from -= 1;
    }
    from
}

/// What correlation of neighbours adds to the variance of a sum.
fn persistence(residuals: &[f64]) -> f64 {
    let square: f64 = residuals.iter().map(|residual| residual * residual).sum();
    if square <= 0.0 {
        return 1.0;
    }
    let product: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let correlation = product / square;
    if correlation > 0.1 {
        ((1.0 + correlation) / (1.0 - correlation)).min(20.0)
    } else if correlation < -0.2 {
        // What comes regularly: what one cohort lacks the next one has.
        (1.0 + correlation + 0.2) / (1.0 - correlation - 0.2)
    } else {
        1.0
    }
}

/// Whether at least seven eighths of the window have something.
fn comes_throughout(cohorts: &[(f64, f64, f64)]) -> bool {
    const PARTS: usize = 8;
    let mut parts = [0.0; PARTS];
    for &(from, to, count) in cohorts {
        for (part, sum) in parts.iter_mut().enumerate() {
            let (begins, ends) = (part as f64 / PARTS as f64, (part + 1) as f64 / PARTS as f64);
            let shared = to.min(ends) - from.max(begins);
            if shared > 0.0 {
                *sum += count * shared / (to - from);
            }
        }
    }
    parts.iter().filter(|&&sum| sum >= 0.5).count() >= PARTS - 1
}

/// How fast what stayed came, by the clock.
fn rate(timing: &Timing, axis: &Axis, stayed: &[Held], window: (usize, usize)) -> Rate {
    let (first, mut last) = window;
    // By the clock, growth ended with the work.
    while axis.kind != AxisKind::Clock && last > first && stayed[last].blocks == 0 {
        last -= 1;
    }
    let ns = timing.edges[last + 1].saturating_sub(timing.edges[first]);
    let seconds = ns as f64 / 1e9;
    if seconds <= 0.0 {
        return Rate::default();
    }
    let bytes: f64 = stayed[first..=last]
        .iter()
        .map(|count| count.bytes as f64)
        .sum();
    let blocks: f64 = stayed[first..=last]
        .iter()
        .map(|count| count.blocks as f64)
        .sum();
    let units = axis.at_edges[last + 1] - axis.at_edges[first];
    let residuals: Vec<f64> = (first..=last)
        .map(|cohort| {
            let width = (timing.edges[cohort + 1] - timing.edges[cohort]) as f64 / ns as f64;
            stayed[cohort].bytes as f64 - bytes * width
        })
        .collect();
    let count = residuals.len() as f64;
    let square: f64 = residuals.iter().map(|residual| residual * residual).sum();
    let variance = square * count / (count - 1.0).max(1.0) * persistence(&residuals);
    // Where the window's ends lie between two arrivals is not known either.
    let end = bytes / blocks.max(1.0);
    let error = (student_95((count - 1.0).max(1.0)).powi(2) * variance + end * end).sqrt();
    Rate {
        bytes_per_second: bytes / seconds,
        error: error.min(bytes) / seconds,
        blocks_per_second: blocks / seconds,
        blocks_per_unit: if units > 0.0 { blocks / units } else { 0.0 },
    }
}

/// How a site's live bytes went: for words that need no proof.
struct Level {
    at: Vec<u64>,
    bytes: Vec<f64>,
    /// At the end of warm-up.
    base: f64,
    grown: i64,
    most: u64,
    began: usize,
    began_ns: u64,
    is_renewed: bool,
    /// So many blocks are live in the end that they are no few that are made anew.
    has_many: bool,
}

impl Level {
    fn new(timing: &Timing, history: &History) -> Self {
        let from = timing.instants.partition_point(|&at| at < timing.from_ns);
        let from = from.min(timing.instants.len().saturating_sub(1));
        // What was born by then, of what is known to be alive soon after.
        let before = timing.edges.partition_point(|&edge| edge <= timing.from_ns);
        let base: u64 = (0..before.saturating_sub(1))
            .map(|cohort| alive_of(history, from, cohort).bytes)
            .fold(0, u64::saturating_add);
        let base = base as f64;
        let mut level = Level {
            at: vec![timing.from_ns],
            bytes: vec![base],
            base,
            grown: 0,
            most: 0,
            began: 0,
            began_ns: timing.from_ns,
            is_renewed: false,
            has_many: false,
        };
        level.fill(timing, history, from);
        let most = level.bytes.iter().fold(base, |most, &at| most.max(at)) - base;
        let last = level.bytes.last().copied().unwrap_or(base);
        let began = level.bytes.iter().position(|&at| at - base > 0.05 * most);
        level.began = began.unwrap_or(0).saturating_sub(1);
        level.began_ns = level.at[level.began];
        (level.grown, level.most) = ((last - base) as i64, most as u64);
        // Few blocks, larger each time.
        let end = live(history, timing.instants.len().wrapping_sub(1));
        let then = timing.instants.partition_point(|&at| at <= level.began_ns);
        let then = then
            .checked_sub(1)
            .map_or(Held::default(), |then| live(history, then));
        level.has_many = end.blocks as f64 >= FEWEST;
        level.is_renewed = end.blocks < 8 && end.blocks <= then.blocks.max(1).saturating_add(1);
        level
    }

    /// Takes what is live at the instants. Where those are too few, what will
    /// be alive at the end has to do for what lies between them.
    fn fill(&mut self, timing: &Timing, history: &History, from: usize) {
        const FEW: usize = 16;
        let last = timing.instants.len().saturating_sub(1);
        let mut known: Vec<(u64, f64)> = (from..timing.instants.len())
            .map(|instant| {
                (
                    timing.instants[instant],
                    live(history, instant).bytes as f64,
                )
            })
            .collect();
        if known.len() < FEW {
            let mut sum = 0.0;
            for cohort in 0..timing.cohorts() {
                sum += alive_of(history, last, cohort).bytes as f64;
                let end = timing.edges[cohort + 1];
                if end > timing.from_ns && end < timing.end_ns() {
                    known.push((end, sum));
                }
            }
            known.sort_by_key(|(at, _)| *at);
        }
        for (at, bytes) in known {
            if self.at.last() == Some(&at) {
                self.at.pop();
                self.bytes.pop();
            }
            self.at.push(at);
            self.bytes.push(bytes);
        }
    }

    /// When the level is known, on an axis.
    fn along(&self, axis: &Axis, timing: &Timing) -> Vec<f64> {
        let along = |ns: &u64| {
            let at = timing.edges.partition_point(|edge| edge <= ns);
            let instant = timing.instants.binary_search(ns);
            match (instant, at.checked_sub(1)) {
                (Ok(instant), _) => axis.at_instants[instant],
                (Err(_), Some(edge)) => axis.at_edges[edge],
                (Err(_), None) => 0.0,
            }
        };
        self.at.iter().map(along).collect()
    }

    /// Whether nothing came in the last third since growth began, by all measures of
    /// time. Where one block of many was made anew before, larger (the table of a cache
    /// that is full), means of quarters go on rising.
    fn is_flat_in_the_end(&self, timing: &Timing) -> bool {
        const FEWEST_POINTS: usize = 8;
        timing.axes.iter().all(|axis| {
            let at = self.along(axis, timing);
            let (begin, end) = (at[self.began], at.last().copied().unwrap_or(0.0));
            let from = begin + (end - begin) * 2.0 / 3.0;
            let later = at.iter().zip(&self.bytes).filter(|(at, _)| **at >= from);
            let (mut low, mut high, mut count) = (f64::INFINITY, f64::NEG_INFINITY, 0);
            for (_, &bytes) in later {
                (low, high, count) = (bytes.min(low), bytes.max(high), count + 1);
            }
            count >= FEWEST_POINTS && high - low <= 0.01 * self.most as f64
        })
    }

    /// Means of the four quarters, on an axis, since growth began.
    fn quarters(&self, axis: &Axis, timing: &Timing) -> [f64; 4] {
        let at = self.along(axis, timing);
        let (begin, end) = (at[self.began], at.last().copied().unwrap_or(0.0));
        let mut sums = [(0.0, 0.0); 4];
        for point in self.began + 1..at.len() {
            let lasted = (at[point] - at[point - 1]).max(0.0);
            let part = (at[point] - begin) / (end - begin).max(f64::MIN_POSITIVE);
            let quarter = ((part * 4.0).ceil() as usize).clamp(1, 4) - 1;
            sums[quarter].0 += self.bytes[point] * lasted;
            sums[quarter].1 += lasted;
        }
        let mut before = self.base;
        sums.map(|(sum, lasted)| {
            if lasted > 0.0 {
                before = sum / lasted;
            }
            before
        })
    }

    /// The word for growth that is not proven to be a leak.
    fn verdict(&self, timing: &Timing, start_up: bool, doubt: Option<Doubt>) -> Verdict {
        let grown = self.grown as f64;
        if grown < 0.5 * self.most as f64 || self.grown < timing.floor_bytes as i64 {
            return Verdict::Burst;
        }
        if start_up {
            return Verdict::StartUp;
        }
        let stopped = timing.axes.iter().any(|axis| {
            let [_, _, third, fourth] = self.quarters(axis, timing);
            fourth - third <= 0.05 * (fourth - self.base)
        }) || (self.has_many && self.is_flat_in_the_end(timing));
        if stopped && !matches!(doubt, Some(Doubt::Idle | Doubt::Coarse)) {
            return Verdict::Plateau;
        }
        let rises = timing.axes.iter().any(|axis| {
            let quarters = self.quarters(axis, timing);
            quarters.windows(2).all(|pair| pair[1] > pair[0])
        });
        if rises {
            Verdict::Growing
        } else {
            Verdict::Unclear
        }
    }

    /// From the level's two ends: no more than an estimate.
    fn rate(&self, timing: &Timing) -> Option<Rate> {
        let seconds = timing.end_ns().saturating_sub(self.began_ns) as f64 / 1e9;
        let risen = self.bytes.last()? - self.bytes.get(self.began)?;
        (seconds > 0.0 && risen > 0.0).then(|| Rate {
            bytes_per_second: risen / seconds,
            error: risen / seconds,
            blocks_per_second: 0.0,
            blocks_per_unit: 0.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::survivors::Cohort;

    fn held() -> impl Strategy<Value = Held> {
        let figure = || prop_oneof![Just(0), 0..50_u64, any::<u64>()];
        (figure(), figure()).prop_map(|(blocks, bytes)| Held { blocks, bytes })
    }

    proptest! {
        /// Counts that contradict each other, as those of a damaged file, give
        /// some verdict.
        #[test]
        fn any_history_is_judged(
            mut instants in prop::collection::vec(0..1000_u64, 0..20),
            mut edges in prop::collection::vec(0..1000_u64, 0..20),
            born in prop::collection::vec(held(), 0..20),
            alive in prop::collection::vec(prop::collection::vec(held(), 0..20), 0..20),
            mut points in prop::collection::vec((0..1000_u64, 0.0..1e9_f64), 0..5),
            from_ns in 0..1000_u64,
            to_ns in 0..1000_u64,
        ) {
            instants.sort_unstable();
            edges.sort_unstable();
            points.sort_by_key(|point| point.0);
            let history = History {
                instants,
                cohorts: edges
                    .windows(2)
                    .map(|pair| Cohort { from_ns: pair[0], to_ns: pair[1] })
                    .collect(),
                born,
                alive,
                verified_from_ns: 0,
            };
            let context = Context {
                from_ns,
                to_ns,
                block_bytes: 100.0,
                sample_bytes: 0,
                progress: vec![
                    Progress { kind: AxisKind::Allocations, points: points.clone() },
                    Progress { kind: AxisKind::Rounds, points },
                ],
            };
            let mut judge = Judge::new(&context);
            judge.look_at(&history, Facts::default());
            judge.pass_over();
            let judgement = judge.finish();
            prop_assert_eq!(judgement.sites.len(), 2);
        }
    }
}
