//! When a heap graph of a process is worth taking though nobody asks for it at that
//! instant: after warm-up, when memory is first seen to grow and as it grows on, and near
//! the peak.
//!
//! Decided by what the collector knows at no cost: how much is live, how many stacks
//! allocate, and whether anything was allocated. The judge of
//! `leakline leaks` looks at every site's cohorts; that is no work for each second of a
//! recording, and a graph too many harms nobody.
//!
//! # Invariants
//!
//! * Values in, values out: no clock, no process, no file.
//! * Of a process that does not grow there is one graph at most (*warm*). Of one that
//!   grows there are no more than doublings, of what it grew by and of the time it took
//!   (*growth*), or steps of a quarter (*peak*).
//!
//! What becomes of an occasion (memory, pauses, how many graphs a session may have) is
//! `engine::graphs`' business.

/// Warm-up is over no sooner, ...
const FIRST_NS: u64 = 10_000_000_000;
/// ... and no later.
const LAST_NS: u64 = 60_000_000_000;
/// It is over when only one in so many stacks that allocate is new since half of the time:
/// imports, and first requests, come by new ones all along.
const NEW_SITES: u32 = 16;
/// Between two looks.
pub(crate) const LOOK_EVERY_NS: u64 = 1_000_000_000;
/// What is less is no growth, and what part of what is live.
const LEAST_GROWTH: u64 = 1 << 20;
const LEAST_PART: u64 = 256;
/// The same of samples, in means: the noise of as many is a quarter of it.
const LEAST_SAMPLES: u64 = 16;
/// For a graph near the peak a quarter more has to live than at the last, and so much more.
const PEAK_PERCENT: u64 = 125;
const PEAK_BYTES: u64 = 16 << 20;
/// For the last one before memory is too short, so much more than at the last.
const SHORT_PERCENT: u64 = 110;
/// After a refusal it is tried again after twice as long as before, up to an hour.
const RETRY_NS: u64 = 10_000_000_000;
const MOST_RETRIES: u32 = 8;

/// Why a graph is worth taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Occasion {
    /// The process has done what it does once.
    Warm,
    /// It grows.
    Growth,
    /// More lives than ever.
    Peak,
}

impl Occasion {
    /// What the graph is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Occasion::Warm => "warm",
            Occasion::Growth => "growth",
            Occasion::Peak => "peak",
        }
    }
}

/// Which occasions are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) warm: bool,
    pub(crate) growth: bool,
    pub(crate) peak: bool,
}

/// What is known of a process at an instant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look {
    pub(crate) now_ns: u64,
    pub(crate) live_bytes: u64,
    /// Stacks that it ever allocated at.
    pub(crate) sites: u32,
    /// What it ever did.
    pub(crate) allocations: u64,
    /// Mean bytes between samples; 0 where all blocks are recorded.
    pub(crate) sample_bytes: u64,
}

impl Look {
    fn least_growth(&self, level: u64) -> u64 {
        LEAST_GROWTH
            .max(level / LEAST_PART)
            .max(self.sample_bytes.saturating_mul(LEAST_SAMPLES))
    }
}

/// An instant, and what lived then.
#[derive(Clone, Copy, Debug)]
struct Point {
    ns: u64,
    level: u64,
}

/// A process, as far as occasions go.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What it had besides what is known to live.
    base_bytes: u64,
    began_ns: u64,
    looked_ns: u64,
    /// How many stacks there were, a second each, until it is warm.
    sites: Vec<u32>,
    warm: Option<Point>,
    minima: Minima,
    allocations: u64,
    /// The last look that showed something allocated since the one before.
    active_ns: u64,
    /// The last graph of it, or its beginning.
    last: u64,
    has_warm_graph: bool,
    /// The last graph that growth was the reason for.
    grown: Option<Point>,
    /// The last one before memory was short is there.
    has_last_chance: bool,
    refusals: u32,
    is_refusal_told: bool,
    retry_ns: u64,
}

impl Subject {
    /// A process that is seen for the first time. Where it was there long before, with
    /// `base_bytes` that are not known to live, nothing is left of its warm-up.
    pub(crate) fn new(look: &Look, base_bytes: u64, is_warm: bool) -> Self {
        let level = base_bytes.saturating_add(look.live_bytes);
        let point = Point {
            ns: look.now_ns,
            level,
        };
        Subject {
            base_bytes,
            began_ns: look.now_ns,
            looked_ns: look.now_ns,
            sites: vec![look.sites],
            warm: is_warm.then_some(point),
            minima: Minima::new(look.now_ns),
            allocations: look.allocations,
            active_ns: u64::MAX,
            last: level,
            has_warm_graph: is_warm,
            grown: None,
            has_last_chance: false,
            refusals: 0,
            is_refusal_told: false,
            retry_ns: 0,
        }
    }

    /// How much it has.
    pub(crate) fn level(&self, look: &Look) -> u64 {
        self.base_bytes.saturating_add(look.live_bytes)
    }

    /// Takes in what is known, ten times a second or less often.
    pub(crate) fn see(&mut self, look: &Look) {
        let level = self.level(look);
        self.minima.see(look.now_ns, level);
        if look.now_ns.saturating_sub(self.looked_ns) < LOOK_EVERY_NS {
            return;
        }
        self.looked_ns = look.now_ns;
        if look.allocations != self.allocations {
            self.allocations = look.allocations;
            self.active_ns = look.now_ns;
        }
        if self.warm.is_some() {
            return;
        }
        self.sites.push(look.sites);
        let age_ns = look.now_ns.saturating_sub(self.began_ns);
        let before = self.sites.get(self.sites.len() / 2).copied().unwrap_or(0);
        let new = look.sites.saturating_sub(before);
        let is_calm = new <= look.sites / NEW_SITES;
        if age_ns >= LAST_NS || age_ns >= FIRST_NS && is_calm {
            self.warm = Some(Point {
                ns: look.now_ns,
                level,
            });
            self.minima = Minima::new(look.now_ns);
            self.sites = Vec::new();
        }
    }

    /// Whether there is an occasion now. `runs_short` is asked only where it matters:
    /// whether so little memory is left that soon none could be taken.
    pub(crate) fn occasion(
        &self,
        wanted: Wanted,
        look: &Look,
        runs_short: impl FnOnce() -> bool,
    ) -> Option<Occasion> {
        // One that does nothing would not come by.
        let is_active = self.active_ns == self.looked_ns;
        if !is_active || look.now_ns < self.retry_ns {
            return None;
        }
        let level = self.level(look);
        let rose_by = |percent: u64, bytes: u64| {
            level >= self.last.saturating_add(bytes) && level / percent >= self.last / 100
        };
        let least = look.least_growth(level);
        if wanted.peak && rose_by(PEAK_PERCENT, PEAK_BYTES) {
            return Some(Occasion::Peak);
        }
        if self.looked_ns != look.now_ns {
            return None;
        }
        if wanted.growth && self.has_grown(level, least, look.now_ns) {
            return Some(Occasion::Growth);
        }
        let is_late = self.warm.is_some() || wanted.peak;
        if (wanted.growth || wanted.peak)
            && is_late
            && !self.has_last_chance
            && rose_by(SHORT_PERCENT, least)
            && runs_short()
        {
            return Some(if wanted.peak {
                Occasion::Peak
            } else {
                Occasion::Growth
            });
        }
        (wanted.warm && self.warm.is_some() && !self.has_warm_graph).then_some(Occasion::Warm)
    }

    /// Whether it grows, and has grown enough, or for long enough, since a graph was last
    /// taken for it.
    fn has_grown(&self, level: u64, least: u64, now_ns: u64) -> bool {
        let Some(warm) = self.warm.filter(|_| self.minima.rise(least)) else {
            return false;
        };
        let Some(last) = self.grown else {
            return true;
        };
        let (age, age_then) = (now_ns - self.began_ns, last.ns - self.began_ns);
        let (grown, grown_then) = (
            level.saturating_sub(warm.level),
            last.level.saturating_sub(warm.level),
        );
        let is_much = grown >= 2 * grown_then && level / PEAK_PERCENT >= last.level / 100;
        level >= self.last.saturating_add(least) && (age >= 2 * age_then || is_much)
    }

    /// A graph was taken of it when it had so much.
    pub(crate) fn taken(&mut self, occasion: Occasion, ns: u64, level: u64, ran_short: bool) {
        self.last = self.last.max(level);
        if self.warm.is_some() {
            // What comes later is nothing to compare with one after warm-up.
            self.has_warm_graph = true;
            if occasion != Occasion::Warm {
                self.grown = Some(Point { ns, level });
            }
        }
        self.has_last_chance |= ran_short;
        self.refusals = 0;
        self.is_refusal_told = false;
    }

    /// None could be taken; `is_worth` telling why. Whether that is news.
    pub(crate) fn refused(&mut self, now_ns: u64, is_worth: bool) -> bool {
        self.retry_ns = now_ns.saturating_add(RETRY_NS << self.refusals.min(MOST_RETRIES));
        self.refusals = self.refusals.saturating_add(1);
        is_worth && !std::mem::replace(&mut self.is_refusal_told, true)
    }
}

/// The lowest levels of spans of time that are as long as each other, the later half of
/// which is never less than half of all: spans get longer as time goes on.
#[derive(Debug)]
struct Minima {
    width_ns: u64,
    from_ns: u64,
    now: Option<u64>,
    spans: Vec<u64>,
}

/// Spans that are looked at, and twice as many.
const SPANS: usize = 8;
const MOST_SPANS: usize = 2 * SPANS;

impl Minima {
    fn new(now_ns: u64) -> Self {
        Minima {
            width_ns: LOOK_EVERY_NS,
            from_ns: now_ns,
            now: None,
            spans: Vec::new(),
        }
    }

    fn see(&mut self, now_ns: u64, level: u64) {
        if now_ns.saturating_sub(self.from_ns) >= self.width_ns {
            self.spans.extend(self.now.take());
            self.from_ns = now_ns;
            if self.spans.len() == MOST_SPANS {
                let halved = self.spans.chunks(2).map(|two| two[0].min(two[1])).collect();
                self.spans = halved;
                self.width_ns *= 2;
            }
        }
        self.now = Some(self.now.map_or(level, |least| least.min(level)));
    }

    /// Whether they rise, by so much in all: each of the last spans but one is above the
    /// one before, and what they fall is little beside what they rise.
    fn rise(&self, least: u64) -> bool {
        let Some(first) = self.spans.len().checked_sub(SPANS) else {
            return false;
        };
        let last = &self.spans[first..];
        let rise = last[SPANS - 1].saturating_sub(last[0]);
        let steps = || last.windows(2).map(|two| (two[0], two[1]));
        let rises = steps().filter(|(before, after)| after > before).count();
        let falls: u64 = steps()
            .map(|(before, after)| before.saturating_sub(after))
            .sum();
        rise >= least && rises + 1 >= SPANS - 1 && falls <= rise / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MIB: u64 = 1 << 20;
    const AUTO: Wanted = Wanted {
        warm: true,
        growth: true,
        peak: false,
    };
    const PEAK: Wanted = Wanted {
        warm: false,
        growth: false,
        peak: true,
    };

    /// When graphs of a process are taken whose live bytes and stacks go so, by the second.
    fn occasions(
        wanted: Wanted,
        seconds: u64,
        live: impl Fn(f64) -> u64,
        sites: impl Fn(f64) -> u32,
    ) -> Vec<(u64, Occasion)> {
        let look = |tenth: u64| {
            let at = tenth as f64 / 10.0;
            Look {
                now_ns: tenth * SECOND / 10,
                live_bytes: live(at),
                sites: sites(at),
                allocations: tenth,
                sample_bytes: 0,
            }
        };
        let mut subject = Subject::new(&look(0), 0, false);
        let mut taken = Vec::new();
        for tenth in 1..=seconds * 10 {
            let look = look(tenth);
            subject.see(&look);
            if let Some(occasion) = subject.occasion(wanted, &look, || false) {
                subject.taken(occasion, look.now_ns, subject.level(&look), false);
                taken.push((tenth / 10, occasion));
            }
        }
        taken
    }

    fn few(_: f64) -> u32 {
        1000
    }

    /// Different each time, and always the same: 0 to 1.
    fn noise(at: f64) -> f64 {
        ((at * 12.9898).sin() * 43_758.545).fract().abs()
    }

    #[test]
    fn what_does_not_grow_has_one_graph() {
        let flat = |_: f64| 50 * MIB;
        let noisy = |at: f64| 50 * MIB + (noise(at) * 20.0 * MIB as f64) as u64;
        let saw = |at: f64| 50 * MIB + (at % 30.0) as u64 * MIB;
        // It fills, and is full.
        let cache = |at: f64| 50 * MIB + (at.min(9.0) * 4.0) as u64 * MIB;
        assert_eq!(
            occasions(AUTO, 36_000, flat, few),
            [(10, Occasion::Warm)],
            "flat"
        );
        assert_eq!(occasions(AUTO, 36_000, noisy, few).len(), 1, "noisy");
        assert_eq!(occasions(AUTO, 3_600, cache, few).len(), 1, "cache");
        // Of its teeth the first may look like growth.
        assert!(occasions(AUTO, 36_000, saw, few).len() <= 3, "saw");
    }

    #[test]
    fn short_runs_have_none() {
        let leak = |at: f64| (at * MIB as f64 * 3.0) as u64;
        assert_eq!(occasions(AUTO, 9, leak, few), []);
    }

    #[test]
    fn growth_has_one_soon_and_then_ever_fewer() {
        let leak = |at: f64| 50 * MIB + (at * MIB as f64) as u64;
        let taken = occasions(AUTO, 36_000, leak, few);
        assert_eq!(taken[0], (10, Occasion::Warm));
        assert_eq!(taken[1].1, Occasion::Growth);
        assert!((16..24).contains(&taken[1].0), "{taken:?}");
        assert!(taken.len() < 16, "{taken:?}");
        // The last one is of the second half, whenever the process is killed.
        for pair in taken[1..].windows(2) {
            assert!(pair[1].0 <= 2 * pair[0].0 + 8, "{pair:?}");
        }
        assert!(taken.last().unwrap().0 > 18_000, "{taken:?}");
    }

    #[test]
    fn a_leak_beneath_noise_is_seen_in_time() {
        // 20 MiB a minute beneath what comes and goes with each second.
        let leak = |at: f64| {
            let churn = noise(at) * 60.0 * MIB as f64;
            50 * MIB + (at * MIB as f64 / 3.0 + churn) as u64
        };
        let taken = occasions(AUTO, 1_200, leak, few);
        let first = taken.iter().find(|(_, why)| *why == Occasion::Growth);
        assert!(first.unwrap().0 < 300, "{taken:?}");
    }

    #[test]
    fn warm_up_lasts_as_long_as_new_stacks_come() {
        let flat = |_: f64| 50 * MIB;
        // Imports for 25 s.
        let sites = |at: f64| 100 + (at.min(25.0) * 400.0) as u32;
        let [(at, Occasion::Warm)] = occasions(AUTO, 600, flat, sites)[..] else {
            panic!("one is expected");
        };
        assert!((25..60).contains(&at), "{at}");
        // It never ends.
        let sites = |at: f64| 100 + (at * at) as u32;
        assert_eq!(occasions(AUTO, 600, flat, sites), [(60, Occasion::Warm)]);
    }

    #[test]
    fn peaks_are_a_quarter_apart() {
        let leak = |at: f64| (at * 5.0 * MIB as f64) as u64;
        let taken = occasions(PEAK, 1_000, leak, few);
        assert!(taken.iter().all(|(_, why)| *why == Occasion::Peak));
        // 16 MiB, 32, 48, 64, 80, 100 and on to 5 GiB.
        assert!((20..28).contains(&taken.len()), "{taken:?}");
        // What comes and goes is a peak once.
        let saw = |at: f64| ((at % 30.0) * 10.0 * MIB as f64) as u64;
        let once = occasions(PEAK, 30, saw, few).len();
        let more = occasions(PEAK, 3_600, saw, few).len();
        assert!(more <= once + 1, "{once} and {more}");
    }

    #[test]
    fn what_was_there_before_counts_as_there() {
        let look = |second: u64, live_bytes: u64| Look {
            now_ns: second * SECOND,
            live_bytes,
            allocations: second,
            ..Look::default()
        };
        let mut subject = Subject::new(&look(0, 0), 1 << 30, true);
        for second in 1..100 {
            // 2 MiB a second, of which the first 200 are no fifth of a GiB.
            let look = look(second, second * 2 * MIB);
            subject.see(&look);
            assert_eq!(subject.occasion(PEAK, &look, || false), None);
        }
        let look = look(200, 300 * MIB);
        subject.see(&look);
        assert_eq!(
            subject.occasion(PEAK, &look, || false),
            Some(Occasion::Peak)
        );
        // It was warm when it was first seen, and that graph the attach took.
        assert_eq!(
            subject.occasion(AUTO, &look, || false),
            Some(Occasion::Growth)
        );
    }

    #[test]
    fn samples_have_to_show_more() {
        let look = |second: u64, sample_bytes: u64| Look {
            now_ns: second * SECOND,
            live_bytes: second * MIB / 2,
            allocations: second,
            sample_bytes,
            ..Look::default()
        };
        let first_of = |sample_bytes: u64| {
            let mut subject = Subject::new(&look(0, 0), 0, true);
            (1..200).find(|&second| {
                let look = look(second, sample_bytes);
                subject.see(&look);
                subject.occasion(AUTO, &look, || false).is_some()
            })
        };
        let (exact, sampled) = (first_of(0).unwrap(), first_of(512 << 10).unwrap());
        assert!(exact < 12 && sampled > 16, "{exact} and {sampled}");
    }

    #[test]
    fn where_memory_runs_short_one_is_taken_and_no_more() {
        let look = |second: u64, live_bytes: u64| Look {
            now_ns: second * SECOND,
            live_bytes,
            allocations: second,
            ..Look::default()
        };
        let mut subject = Subject::new(&look(0, 100 * MIB), 0, true);
        // It rose, but not again and again.
        let later = look(3, 130 * MIB);
        subject.see(&later);
        assert_eq!(subject.occasion(AUTO, &later, || false), None);
        assert_eq!(
            subject.occasion(AUTO, &later, || true),
            Some(Occasion::Growth)
        );
        subject.taken(Occasion::Growth, later.now_ns, 130 * MIB, true);
        let later = look(6, 300 * MIB);
        subject.see(&later);
        assert_eq!(subject.occasion(AUTO, &later, || true), None);
    }

    #[test]
    fn refusals_are_told_once_and_tried_ever_less_often() {
        let mut tries = Vec::new();
        let mut told = 0;
        let look = |second: u64| Look {
            now_ns: second * SECOND,
            live_bytes: second * 20 * MIB,
            allocations: second,
            ..Look::default()
        };
        let mut subject = Subject::new(&look(0), 0, false);
        for second in 1..1_000 {
            let look = look(second);
            subject.see(&look);
            if subject.occasion(PEAK, &look, || false).is_some() {
                tries.push(second);
                // At first it was idle.
                told += u32::from(subject.refused(look.now_ns, second > 1));
            }
        }
        assert_eq!(told, 1);
        assert_eq!(tries, [1, 11, 31, 71, 151, 311, 631]);
    }

    #[test]
    fn who_does_nothing_is_not_asked() {
        let look = |second: u64| Look {
            now_ns: second * SECOND,
            live_bytes: 50 * MIB,
            sites: 1000,
            allocations: 7,
            sample_bytes: 0,
        };
        let mut subject = Subject::new(&look(0), 0, false);
        for second in 1..100 {
            subject.see(&look(second));
            assert_eq!(subject.occasion(AUTO, &look(second), || true), None);
        }
    }
}
