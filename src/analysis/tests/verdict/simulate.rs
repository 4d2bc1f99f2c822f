//! Made-up processes, healthy and leaking, as streams of births and deaths.
//!
//! A stream is turned into a history as the recorder does it: births and
//! deaths counted by cohort, at some 64 instants.

use leakline_analysis::verdict::{AxisKind, Context, Facts, Judge, Judged, Judgement, Progress};
use leakline_analysis::{Cohort, Held, History};

/// Length of every simulated recording, in seconds, unless it says otherwise.
pub(crate) const SPAN: f64 = 3600.0;

/// Random numbers (SplitMix64): the same for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        random.bits();
        random
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Evenly spread over magnitudes.
    pub(crate) fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        (self.between(low.ln(), high.ln())).exp()
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound - 1)
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.unit()).cos()
    }
}

/// A block's life.
#[derive(Clone, Copy)]
struct Block {
    born: f64,
    died: f64,
    bytes: u64,
    /// How many it stands for.
    count: u64,
}

/// A site's blocks, and what the program did meanwhile.
pub(crate) struct Stream {
    blocks: Vec<Block>,
    /// When the program allocated, and how much it did, besides.
    work: Vec<(f64, f64)>,
    span: f64,
    /// When imports end.
    warm: f64,
    /// Mean bytes between samples; 0 where each block is recorded.
    sample_bytes: u64,
    /// Bytes a second that leak, and since when.
    pub(crate) truth: Option<(f64, f64)>,
}

const FOREVER: f64 = f64::INFINITY;

impl Stream {
    fn new(span: f64) -> Self {
        Stream {
            blocks: Vec::new(),
            work: Vec::new(),
            span,
            warm: 0.0,
            sample_bytes: 0,
            truth: None,
        }
    }

    fn add(&mut self, born: f64, lived: f64, bytes: u64) {
        if born < self.span {
            self.blocks.push(Block {
                born,
                died: born + lived,
                bytes,
                count: 1,
            });
        }
    }

    /// Work that goes with `load`, with noise of its own.
    fn works(mut self, random: &mut Random, load: &dyn Fn(f64) -> f64) -> Self {
        const STEPS: usize = 720;
        for step in 0..STEPS {
            let at = self.span * (step as f64 + 0.5) / STEPS as f64;
            let noise = (0.1 * random.normal()).exp();
            self.work.push((at, 1000.0 * load(at / self.span) * noise));
        }
        self
    }

    /// As a recorder with so many cohorts would tell it.
    pub(crate) fn history(&self, cohorts: usize) -> History {
        const INSTANTS: usize = 64;
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        // A site that was busy for a while has its cohorts there.
        let births = || self.blocks.iter().map(|block| block.born);
        let first = births().fold(self.span, f64::min);
        let last = births().fold(0.0, f64::max).max(first + self.span * 1e-6);
        let within = cohorts - 2;
        let edge = |cohort: usize| match cohort {
            0 => 0.0,
            cohort if cohort == cohorts => self.span,
            1 if first >= self.span => self.span * 0.5,
            cohort => first + (last - first) * (cohort - 1) as f64 / within as f64,
        };
        let cohort_of = |born: f64| {
            let part = (born - first) / (last - first) * within as f64;
            1 + (part as usize).min(within - 1)
        };
        let instants: Vec<f64> = (1..=INSTANTS)
            .map(|at| self.span * at as f64 / INSTANTS as f64)
            .collect();
        let mut born = vec![Held::default(); cohorts];
        // What is born before an instant and dies after it.
        let mut alive = vec![vec![Held::default(); cohorts]; INSTANTS];
        for block in &self.blocks {
            let cohort = cohort_of(block.born);
            born[cohort].blocks += block.count;
            born[cohort].bytes += block.bytes;
            let first = (block.born / self.span * INSTANTS as f64) as usize;
            let last = (block.died / self.span * INSTANTS as f64).min(INSTANTS as f64) as usize;
            for alive in &mut alive[first.min(last)..last] {
                alive[cohort].blocks += block.count;
                alive[cohort].bytes += block.bytes;
            }
        }
        History {
            instants: instants.into_iter().map(ns).collect(),
            cohorts: (0..cohorts)
                .map(|cohort| Cohort {
                    from_ns: ns(edge(cohort)),
                    to_ns: ns(edge(cohort + 1)),
                })
                .collect(),
            born,
            alive,
            verified_from_ns: 0,
        }
    }

    /// What all sites have in common.
    pub(crate) fn context(&self) -> Context {
        let mut sum = 0.0;
        let mut points = vec![(0, 0.0)];
        let steps = self.work.len().max(1) as f64;
        let step = self.span / steps;
        let mut own = vec![0.0; self.work.len()];
        for block in &self.blocks {
            let at = (block.born / self.span * steps) as usize;
            own[at.min(self.work.len() - 1)] += block.count as f64;
        }
        for (&(at, work), own) in self.work.iter().zip(own) {
            sum += work + own;
            points.push((((at + step / 2.0) * 1e9) as u64, sum));
        }
        Context {
            from_ns: (self.warm * 1e9) as u64,
            to_ns: (self.span * 1e9) as u64,
            sample_bytes: self.sample_bytes,
            block_bytes: {
                let live = self.blocks.iter().filter(|block| block.died > self.span);
                let bytes: u64 = live.clone().map(|block| block.bytes).sum();
                let count: u64 = live.map(|block| block.count).sum();
                bytes as f64 / count.max(1) as f64
            },
            progress: vec![Progress {
                kind: AxisKind::Allocations,
                points,
            }],
        }
    }

    /// How many of its blocks never die.
    pub(crate) fn staying(&self) -> usize {
        let stay = self.blocks.iter().filter(|block| block.died == FOREVER);
        stay.count()
    }

    /// A healthy process, recorded as a sample of 24 to 1,000 of its blocks.
    pub(crate) fn healthy_sample(self, random: &mut Random) -> Self {
        let samples = random.magnitude(24.0, 1000.0);
        self.thinned(random, samples)
    }

    /// A leak, recorded as a sample of so many of the blocks that stay, or more, and
    /// of one in ten at least; `None` where it has not that many.
    pub(crate) fn leaking_sample(self, random: &mut Random, samples: f64) -> Option<Self> {
        let (all, staying) = (self.blocks.len() as f64, self.staying() as f64);
        let part = random.magnitude(0.1, 0.9).max(samples / staying);
        (part <= 0.9).then(|| self.thinned(random, all * part))
    }

    /// As a recorder tells it that takes a sample at a mean: each block with the
    /// chance that its size gives it, and as what it then stands for.
    pub(crate) fn sampled(mut self, random: &mut Random, mean_bytes: u64) -> Self {
        let chosen = |bytes: u64| -(-(bytes as f64 + 1.0) / mean_bytes as f64).exp_m1();
        let all = std::mem::take(&mut self.blocks);
        for block in all {
            let p = chosen(block.bytes);
            if random.unit() < p {
                let count = (1.0 / p + random.unit()).floor() as u64;
                let bytes = (block.bytes as f64 / p).round() as u64;
                self.blocks.push(Block {
                    bytes,
                    count,
                    ..block
                });
            }
        }
        // Other sites' blocks are of the usual size.
        let p = chosen(256);
        for (_, work) in &mut self.work {
            // Of many, nearly normal.
            let seen = *work * p + (*work * p * (1.0 - p)).sqrt() * random.normal();
            *work = seen.max(0.0) / p;
        }
        self.sample_bytes = mean_bytes;
        self
    }

    /// As [`Stream::sampled`], with a mean at which about so many of its blocks are
    /// samples.
    pub(crate) fn thinned(self, random: &mut Random, samples: f64) -> Self {
        let blocks = self.blocks.len().max(1) as f64;
        let bytes: u64 = self.blocks.iter().map(|block| block.bytes).sum();
        let p = (samples / blocks).min(0.9);
        let mean = (bytes as f64 / blocks + 1.0) / -(-p).ln_1p();
        self.sampled(random, mean.ceil() as u64)
    }

    /// How many blocks an observation stands for, as `leaks` finds it.
    fn weight(&self) -> u64 {
        if self.sample_bytes == 0 {
            return 1;
        }
        let bytes: u64 = self.blocks.iter().map(|block| block.bytes).sum();
        let count: u64 = self.blocks.iter().map(|block| block.count).sum();
        let size = bytes as f64 / count.max(1) as f64;
        let p = -(-(size + 1.0) / self.sample_bytes as f64).exp_m1();
        (1.0 / p).ceil() as u64
    }

    /// What the judge says.
    pub(crate) fn judged(&self, cohorts: usize) -> (Option<Judged>, Judgement) {
        self.judged_until(1.0, cohorts)
    }

    /// What it says of the first part: the recording goes on, as after `main left`.
    pub(crate) fn judged_until(&self, part: f64, cohorts: usize) -> (Option<Judged>, Judgement) {
        let mut context = self.context();
        context.to_ns = (context.to_ns as f64 * part) as u64;
        let mut judge = Judge::new(&context);
        let facts = Facts {
            weight: self.weight(),
            ..Facts::default()
        };
        judge.look_at(&self.history(cohorts), facts);
        let judgement = judge.finish();
        (judgement.sites[0], judgement)
    }
}

/// A kind of process: its name, and how to make one.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) make: fn(&mut Random) -> Stream,
}

fn even(_: f64) -> f64 {
    1.0
}

/// A day or two, quiet at night.
fn day(random: &mut Random) -> impl Fn(f64) -> f64 + use<> {
    let (days, depth, phase) = (
        random.between(1.0, 3.0),
        random.between(0.3, 0.95),
        random.unit(),
    );
    move |at| 1.0 + depth * (2.0 * std::f64::consts::PI * (days * at + phase)).sin()
}

/// Arrivals at random, as many as `load` says.
fn arrivals(random: &mut Random, count: f64, span: f64, load: &dyn Fn(f64) -> f64) -> Vec<f64> {
    let most = (0..200)
        .map(|at| load(f64::from(at) / 200.0))
        .fold(0.0, f64::max)
        * 1.02;
    let mean = (0..200).map(|at| load(f64::from(at) / 200.0)).sum::<f64>() / 200.0;
    let mut at = 0.0;
    let mut all = Vec::new();
    loop {
        at += random.exponential(span / count * mean / most);
        if at >= span {
            return all;
        }
        if random.unit() * most < load(at / span) {
            all.push(at);
        }
    }
}

/// A stationary AR(1) series of so many steps.
fn autoregressive(random: &mut Random, steps: usize, phi: f64) -> Vec<f64> {
    let mut now = random.normal();
    (0..steps)
        .map(|_| {
            now = phi * now + (1.0 - phi * phi).sqrt() * random.normal();
            now
        })
        .collect()
}

fn size(random: &mut Random) -> u64 {
    random.magnitude(48.0, 8192.0) as u64
}

fn lifetimes(random: &mut Random, life: &mut dyn FnMut(&mut Random, f64) -> f64) -> Stream {
    let mut stream = Stream::new(SPAN);
    let mean = SPAN * random.between(0.1, 0.5);
    let (count, bytes) = (random.magnitude(100.0, 5000.0), size(random));
    let load = day(random);
    let varies = random.unit() < 0.5;
    let load = move |at: f64| if varies { load(at) } else { 1.0 };
    for at in arrivals(random, count, SPAN, &load) {
        let lived = life(random, mean);
        stream.add(at, lived, bytes);
    }
    stream.works(random, &load)
}

fn exponential_lives(random: &mut Random) -> Stream {
    lifetimes(random, &mut |random, mean| random.exponential(mean))
}

fn fixed_lives(random: &mut Random) -> Stream {
    lifetimes(random, &mut |_, mean| mean)
}

fn heavy_tailed_lives(random: &mut Random) -> Stream {
    let power = random.between(1.5, 3.0);
    lifetimes(random, &mut |random, mean| {
        mean * (power - 1.0) / power * (1.0 - random.unit()).powf(-1.0 / power)
    })
}

fn lognormal_lives(random: &mut Random) -> Stream {
    lifetimes(random, &mut |random, mean| {
        mean * (random.normal() - 0.5).exp()
    })
}

/// Arrivals in waves that remember the last one, lives of some length.
fn autoregressive_births(random: &mut Random) -> Stream {
    let phi = random.between(0.5, 0.97);
    let steps = 200 + random.below(2000);
    let wave = autoregressive(random, steps, phi);
    let load = move |at: f64| (0.6 * wave[((at * steps as f64) as usize).min(steps - 1)]).exp();
    let (count, bytes) = (random.magnitude(100.0, 5000.0), size(random));
    let mean = SPAN * random.between(0.02, 0.5);
    let mut stream = Stream::new(SPAN);
    for at in arrivals(random, count, SPAN, &load) {
        let lived = random.exponential(mean);
        stream.add(at, lived, bytes);
    }
    stream.works(random, &load)
}

/// A level that wanders about its mean: last in, first out, first in, first
/// out, or a victim at random.
fn autoregressive_level(random: &mut Random) -> Stream {
    let phi = random.between(0.5, 0.97);
    let steps = 200 + random.below(2000);
    let (mean, bytes) = (random.magnitude(30.0, 500.0), size(random));
    let wave = autoregressive(random, steps, phi);
    let discipline = random.below(3);
    let mut stream = Stream::new(SPAN);
    let mut live: Vec<f64> = Vec::new();
    for (step, value) in wave.into_iter().enumerate() {
        let at = SPAN * step as f64 / steps as f64;
        let wanted = (mean * (1.0 + 0.3 * value)).max(0.0) as usize;
        while live.len() > wanted {
            let victim = match discipline {
                0 => live.len() - 1,
                1 => 0,
                _ => random.below(live.len()),
            };
            let born = live.remove(victim);
            stream.add(born, at - born, bytes);
        }
        while live.len() < wanted {
            live.push(at + random.unit() * SPAN / steps as f64 * 0.5);
        }
    }
    for born in live {
        stream.add(born, FOREVER, bytes);
    }
    stream.works(random, &even)
}

/// A buffer that is made anew in another size all the time.
fn resized_buffer(random: &mut Random) -> Stream {
    let phi = random.between(0.5, 0.97);
    let steps = 200 + random.below(2000);
    let mean = random.magnitude(1e4, 1e6);
    let wave = autoregressive(random, steps, phi);
    let mut stream = Stream::new(SPAN);
    for (step, value) in wave.into_iter().enumerate() {
        let at = SPAN * step as f64 / steps as f64;
        let bytes = (mean * (1.0 + 0.3 * value)).max(64.0) as u64;
        stream.add(at, SPAN / steps as f64, bytes);
    }
    stream.works(random, &even)
}

/// A dictionary of all keys seen: new ones get rarer.
fn filling_dictionary(random: &mut Random) -> Stream {
    let keys = random.magnitude(50.0, 5000.0);
    let fill = random.magnitude(0.03, 2.0);
    let varies = random.unit() < 0.5;
    dictionary(random, keys, fill, varies)
}

fn dictionary(random: &mut Random, keys: f64, fill: f64, varies: bool) -> Stream {
    let load = day(random);
    let load = move |at: f64| if varies { load(at) } else { 1.0 };
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    let mut held = 0.0;
    for at in arrivals(random, keys / fill, SPAN, &load) {
        if random.unit() * keys >= held {
            held += 1.0;
            stream.add(at, FOREVER, bytes);
        }
    }
    stream.works(random, &load)
}

/// As all of these, where a hit allocates nothing: by the program's
/// allocations it stays steady.
fn free_hits(random: &mut Random) -> Stream {
    let mut stream = match random.below(2) {
        0 => {
            let (keys, fill) = (random.magnitude(50.0, 5000.0), random.magnitude(0.03, 2.0));
            dictionary(random, keys, fill, false)
        }
        // One that fills just before the end looks like a leak, and then the
        // end of all work.
        _ => filled_by(random, 0.7),
    };
    let steps = stream.work.len();
    let span = stream.span;
    stream.work.iter_mut().for_each(|work| work.1 = 0.0);
    for block in &stream.blocks {
        let at = (block.born / span * steps as f64) as usize;
        stream.work[at.min(steps - 1)].1 += 20.0;
    }
    stream
}

/// Entries at a steady rate up to a bound, then none, or each in the place of
/// the oldest, or of any.
fn bounded_cache(random: &mut Random) -> Stream {
    filled_by(random, 0.85)
}

fn filled_by(random: &mut Random, latest: f64) -> Stream {
    let bound = random.magnitude(30.0, 3000.0) as usize;
    let fill = random.between(0.03, latest);
    let eviction = random.below(3);
    let regular = random.unit() < 0.5;
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    let mut live: std::collections::VecDeque<f64> = std::collections::VecDeque::new();
    let count = bound as f64 / fill;
    let all = if regular {
        (0..count as usize)
            .map(|at| SPAN * at as f64 / count)
            .collect()
    } else {
        arrivals(random, count, SPAN, &even)
    };
    for at in all {
        if live.len() < bound {
            live.push_back(at);
        } else if eviction > 0 {
            let victim = if eviction == 1 {
                0
            } else {
                random.below(bound)
            };
            if let Some(born) = live.remove(victim) {
                stream.add(born, at - born, bytes);
            }
            live.push_back(at);
        }
    }
    for born in live {
        stream.add(born, FOREVER, bytes);
    }
    stream.works(random, &even)
}

/// A cache that is full after a moment, and then a long time in which nothing comes.
pub(crate) fn soon_full(random: &mut Random) -> Stream {
    let entries = random.magnitude(100.0, 3000.0);
    let fill = SPAN * random.between(0.005, 0.2);
    let mut stream = Stream::new(SPAN);
    for entry in 0..entries as usize {
        let at = fill * (entry as f64 + 0.2 * random.unit()) / entries;
        stream.add(at, FOREVER, 4000);
    }
    stream.works(random, &even)
}

/// A cache that fills, and its table at the same stack: made anew while it fills, and
/// once more, twice as large, when entries have long been replaced only.
pub(crate) fn cache_with_table(random: &mut Random) -> Stream {
    let entries = random.magnitude(200.0, 3000.0);
    let fill = SPAN * random.between(0.1, 0.45);
    let mut stream = Stream::new(SPAN);
    for at in arrivals(random, entries, fill, &even) {
        stream.add(at, FOREVER, 72);
    }
    let (mut room, mut at) = (8.0, 0.0);
    while room < entries {
        let next = fill * room / entries;
        stream.add(at, next - at, (room * 40.0) as u64);
        at = next;
        room *= 2.0;
    }
    let again = random.between(fill, SPAN * 0.62);
    stream.add(at, again - at, (room * 40.0) as u64);
    stream.add(again, FOREVER, (room * 80.0) as u64);
    stream.works(random, &even)
}

/// The least recently used goes; some keys are asked for more than others.
fn lru_cache(random: &mut Random) -> Stream {
    let keys = random.magnitude(200.0, 3000.0) as usize;
    let bound = (keys as f64 * random.between(0.1, 0.6)) as usize;
    let power = random.between(0.6, 1.2);
    let requests = keys as f64 * random.magnitude(3.0, 30.0);
    let bytes = size(random);
    let mut weights: Vec<f64> = (1..=keys).map(|rank| (rank as f64).powf(-power)).collect();
    let mut sum = 0.0;
    for weight in &mut weights {
        sum += *weight;
        *weight = sum;
    }
    let mut stream = Stream::new(SPAN);
    // By key: when it was made, and last used.
    let mut held: Vec<Option<(f64, u64)>> = vec![None; keys];
    let mut by_use = std::collections::BTreeMap::<u64, usize>::new();
    for (tick, at) in (0_u64..).zip(arrivals(random, requests, SPAN, &even)) {
        let pick = random.unit() * sum;
        let key = weights
            .partition_point(|&weight| weight < pick)
            .min(keys - 1);
        if let Some((born, used)) = held[key] {
            by_use.remove(&used);
            held[key] = Some((born, tick));
        } else {
            held[key] = Some((at, tick));
            if by_use.len() >= bound
                && let Some((_, victim)) = by_use.pop_first()
                && let Some((born, _)) = held[victim].take()
            {
                stream.add(born, at - born, bytes);
            }
        }
        by_use.insert(tick, key);
    }
    for (born, _) in held.into_iter().flatten() {
        stream.add(born, FOREVER, bytes);
    }
    stream.works(random, &even)
}

/// Growth that comes back down, a few times; the last may still be to do so.
fn bursts(random: &mut Random) -> Stream {
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    for _ in 0..=random.below(5) {
        let begin = SPAN * random.unit();
        let length = SPAN * random.between(0.01, 0.12);
        let count = random.magnitude(50.0, 2000.0);
        for at in arrivals(random, count, length, &even) {
            stream.add(begin + at, length - at, bytes);
        }
    }
    stream.works(random, &even)
}

/// Something is loaded, in one or a few goes, and stays.
fn loads(random: &mut Random) -> Stream {
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    for _ in 0..=random.below(4) {
        let begin = SPAN * random.between(0.0, 0.9);
        let length = SPAN * random.between(0.001, 0.08);
        let count = random.magnitude(50.0, 5000.0);
        for at in arrivals(random, count, length, &even) {
            stream.add(begin + at, FOREVER, bytes);
        }
    }
    stream.works(random, &even)
}

/// What is loaded takes the place of what was loaded before.
fn reloads(random: &mut Random) -> Stream {
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    let times = 2 + random.below(40);
    let count = random.magnitude(30.0, 1000.0);
    for time in 0..times {
        let begin = SPAN * time as f64 / times as f64;
        for at in arrivals(random, count, SPAN / times as f64 * 0.2, &even) {
            stream.add(begin + at, SPAN / times as f64, bytes);
        }
    }
    stream.works(random, &even)
}

/// Grows while the program starts.
fn start_up(random: &mut Random) -> Stream {
    let bytes = size(random);
    let length = SPAN * random.between(0.02, 0.3);
    let count = random.magnitude(50.0, 20000.0);
    let mut stream = Stream::new(SPAN);
    for at in arrivals(random, count, length, &even) {
        stream.add(at, FOREVER, bytes);
    }
    stream.works(random, &|at| if at * SPAN < length { 8.0 } else { 1.0 })
}

/// As many objects as were ever in use at once.
fn pool(random: &mut Random) -> Stream {
    let steps = 200 + random.below(4000);
    let phi = random.between(0.0, 0.97);
    let mean = random.magnitude(20.0, 1000.0);
    let wave = autoregressive(random, steps, phi);
    let bytes = size(random);
    let mut stream = Stream::new(SPAN);
    let mut made = 0;
    for (step, value) in wave.into_iter().enumerate() {
        let wanted = (mean * (1.0 + 0.3 * value)).max(0.0) as usize;
        while made < wanted {
            made += 1;
            stream.add(SPAN * step as f64 / steps as f64, FOREVER, bytes);
        }
    }
    stream.works(random, &even)
}

/// A list that takes a bounded number of items, in a block that is made anew
/// an eighth or twice as large.
fn bounded_list(random: &mut Random) -> Stream {
    let factor = if random.unit() < 0.5 { 1.125 } else { 2.0 };
    let items = random.magnitude(1000.0, 1e6);
    let fill = random.between(0.05, 0.8) * SPAN;
    let mut stream = Stream::new(SPAN);
    let (mut room, mut at) = (16.0, 0.0);
    while room < items {
        let next = fill * room / items;
        stream.add(at, next - at, (room * 8.0) as u64);
        at = next;
        room *= factor;
    }
    stream.add(at, FOREVER, (room * 8.0) as u64);
    stream.works(random, &even)
}

/// Sessions that expire a fixed time after they were last used.
fn expiring(random: &mut Random) -> Stream {
    let bytes = size(random);
    let (count, idle) = (
        random.magnitude(100.0, 3000.0),
        SPAN * random.between(0.05, 0.3),
    );
    let load = day(random);
    let mut stream = Stream::new(SPAN);
    for at in arrivals(random, count, SPAN, &load) {
        let mut lived = idle;
        while random.unit() < 0.3 {
            lived += idle * random.unit();
        }
        stream.add(at, lived, bytes);
    }
    stream.works(random, &load)
}

/// What must not be called a leak.
pub(crate) const HEALTHY: [Kind; 19] = [
    Kind {
        name: "lives, exponential",
        make: exponential_lives,
    },
    Kind {
        name: "lives, fixed",
        make: fixed_lives,
    },
    Kind {
        name: "lives, heavy-tailed",
        make: heavy_tailed_lives,
    },
    Kind {
        name: "lives, log-normal",
        make: lognormal_lives,
    },
    Kind {
        name: "expiring sessions",
        make: expiring,
    },
    Kind {
        name: "AR(1) births",
        make: autoregressive_births,
    },
    Kind {
        name: "AR(1) level",
        make: autoregressive_level,
    },
    Kind {
        name: "AR(1) buffer",
        make: resized_buffer,
    },
    Kind {
        name: "cache, dictionary",
        make: filling_dictionary,
    },
    Kind {
        name: "cache, bounded",
        make: bounded_cache,
    },
    Kind {
        name: "cache, free hits",
        make: free_hits,
    },
    Kind {
        name: "cache, LRU",
        make: lru_cache,
    },
    Kind {
        name: "bursts",
        make: bursts,
    },
    Kind {
        name: "loads that stay",
        make: loads,
    },
    Kind {
        name: "reloads",
        make: reloads,
    },
    Kind {
        name: "start-up",
        make: start_up,
    },
    Kind {
        name: "pool",
        make: pool,
    },
    Kind {
        name: "bounded list",
        make: bounded_list,
    },
    Kind {
        name: "nothing",
        make: |random| Stream::new(SPAN).works(random, &even),
    },
];

/// A leak of `count` blocks, each after the same time or at random, and work.
fn leak(
    random: &mut Random,
    count: f64,
    regular: bool,
    since: f64,
    load: &dyn Fn(f64) -> f64,
) -> Stream {
    let bytes = size(random).max((3.0 * 4096.0 / count) as u64);
    let mut stream = Stream::new(SPAN);
    let all: Vec<f64> = if regular {
        let all = arrivals(random, count * 8.0, SPAN, load);
        all.into_iter().step_by(8).collect()
    } else {
        arrivals(random, count, SPAN, load)
    };
    let mut leaked = 0.0;
    for at in all {
        if at >= since * SPAN {
            stream.add(at, FOREVER, bytes);
            leaked += bytes as f64;
        }
    }
    stream.truth = Some((leaked / (SPAN * (1.0 - since)), since * SPAN));
    stream.works(random, load)
}

fn regular_leak(random: &mut Random) -> Stream {
    let count = random.magnitude(200.0, 20000.0);
    leak(random, count, true, 0.0, &even)
}

fn random_leak(random: &mut Random) -> Stream {
    let count = random.magnitude(1500.0, 20000.0);
    leak(random, count, false, 0.0, &even)
}

fn slow_leak(random: &mut Random) -> Stream {
    let bytes = 1024;
    let count = random.between(80.0, 200.0);
    let mut stream = Stream::new(SPAN);
    let every = SPAN / count;
    for step in 0..count as usize {
        stream.add(every * (step as f64 + 0.2 * random.unit()), FOREVER, bytes);
    }
    stream.truth = Some((bytes as f64 / every, 0.0));
    stream.works(random, &even)
}

fn late_leak(random: &mut Random) -> Stream {
    let (count, since) = (random.magnitude(4000.0, 20000.0), random.between(0.1, 0.6));
    leak(random, count, false, since, &even)
}

fn leak_under_load(random: &mut Random) -> Stream {
    let count = random.magnitude(2500.0, 20000.0);
    let load = day(random);
    leak(random, count, false, 0.0, &load)
}

/// A timer leaks, whatever the load.
fn timed_leak(random: &mut Random) -> Stream {
    let mut stream = Stream::new(SPAN);
    for second in 0..SPAN as usize {
        stream.add(second as f64, FOREVER, 200);
    }
    stream.truth = Some((200.0, 0.0));
    let load = day(random);
    stream.works(random, &load)
}

/// Beside blocks that are made and die at the same stack.
fn leak_beside_churn(random: &mut Random) -> Stream {
    let count = random.magnitude(4000.0, 8000.0);
    let load = day(random);
    let varies = random.unit() < 0.5;
    let load = move |at: f64| if varies { load(at) } else { 1.0 };
    let mut stream = leak(random, count, false, 0.0, &load);
    let mean = SPAN * random.magnitude(0.0005, 0.03);
    let bytes = stream.blocks.first().map_or(64, |block| block.bytes);
    let times = random.magnitude(2.0, 20.0);
    for at in arrivals(random, count * times, SPAN, &load) {
        let lived = random.exponential(mean);
        stream.add(at, lived, bytes);
    }
    stream
}

/// Beside a cache that fills at the same stack.
fn leak_beside_cache(random: &mut Random) -> Stream {
    let count = random.magnitude(5000.0, 15000.0);
    let fill = random.between(0.01, 0.05);
    let mut stream = dictionary(random, count * 0.04, fill, false);
    let leaking = leak(random, count, false, 0.0, &even);
    let bytes = leaking.blocks.first().map_or(64, |block| block.bytes);
    for block in &mut stream.blocks {
        block.bytes = bytes;
    }
    stream.blocks.extend(leaking.blocks);
    stream.truth = leaking.truth;
    stream.work = leaking.work;
    stream
}

fn autoregressive_leak(random: &mut Random) -> Stream {
    let phi = random.between(0.5, 0.97);
    let steps = 200 + random.below(2000);
    let wave = autoregressive(random, steps, phi);
    let load = move |at: f64| (0.6 * wave[((at * steps as f64) as usize).min(steps - 1)]).exp();
    let count = random.magnitude(3000.0, 20000.0);
    leak(random, count, false, 0.0, &load)
}

/// Imports, a loop of 200 steps that loses 1 KiB in each, and a quiet tail.
fn short_program(random: &mut Random) -> Stream {
    let imports = random.between(0.2, 2.0);
    let length = random.between(0.3, 3.0);
    let tail = length * random.between(0.0, 0.25);
    let span = imports + length + tail;
    let mut stream = Stream::new(span);
    stream.warm = imports;
    for step in 0..200 {
        let at = imports + length * (f64::from(step) + 0.3 * random.unit()) / 200.0;
        stream.add(at, FOREVER, 1024);
    }
    stream.truth = Some((200.0 * 1024.0 / length, imports));
    let work = move |at: f64| {
        let at = at * span;
        if at < imports {
            500.0
        } else if at < imports + length {
            1.0
        } else {
            0.0
        }
    };
    stream.works(random, &work)
}

/// What must be called one.
pub(crate) const LEAKS: [Kind; 11] = [
    Kind {
        name: "every request",
        make: regular_leak,
    },
    Kind {
        name: "one in N",
        make: random_leak,
    },
    Kind {
        name: "slow, regular",
        make: slow_leak,
    },
    Kind {
        name: "started late",
        make: late_leak,
    },
    Kind {
        name: "under a load curve",
        make: leak_under_load,
    },
    Kind {
        name: "AR(1) load",
        make: autoregressive_leak,
    },
    Kind {
        name: "by a timer",
        make: timed_leak,
    },
    Kind {
        name: "beside churn",
        make: leak_beside_churn,
    },
    Kind {
        name: "beside a cache",
        make: leak_beside_cache,
    },
    Kind {
        name: "200 steps",
        make: short_program,
    },
    Kind {
        name: "bounded in time",
        make: |random| leak(random, 5000.0, true, 0.3, &even),
    },
];

/// A leak of so many blocks, at random or regularly.
pub(crate) fn leak_of(random: &mut Random, count: f64, regular: bool) -> Stream {
    leak(random, count, regular, 0.0, &even)
}

/// A leak of just the rate that the judge says would have shown.
pub(crate) fn detectable_leak(random: &mut Random, bytes_per_second: f64, bytes: u64) -> Stream {
    let count = bytes_per_second * SPAN / bytes as f64;
    let mut stream = Stream::new(SPAN);
    for at in arrivals(random, count, SPAN, &even) {
        stream.add(at, FOREVER, bytes);
    }
    stream.works(random, &even)
}
