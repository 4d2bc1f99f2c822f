//! When memory will have run out: what leaks, against what limits it.

use std::collections::BTreeMap;

use leakline_recording::record::{Limited, Limits};

use crate::model::Model;
use crate::verdict::Rate;

use super::{Cause, Leaks};

/// What a limit on memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    /// Told by the user; of all processes.
    Given,
    /// A control group's, of all its processes together.
    ControlGroup,
    /// `RLIMIT_AS`, of one process, by its id.
    AddressSpace(u32),
    /// `RLIMIT_DATA`, of one process, by its id.
    Data(u32),
}

impl LimitOf {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            LimitOf::Given => "given",
            LimitOf::ControlGroup => "control group",
            LimitOf::AddressSpace(_) => "RLIMIT_AS",
            LimitOf::Data(_) => "RLIMIT_DATA",
        }
    }

    /// The process, where it is the limit of one.
    pub const fn process(self) -> Option<u32> {
        match self {
            LimitOf::Given | LimitOf::ControlGroup => None,
            LimitOf::AddressSpace(process) | LimitOf::Data(process) => Some(process),
        }
    }
}

/// When memory will have run out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// What sets the limit.
    pub of: LimitOf,
    /// Bytes that may be taken.
    pub limit_bytes: u64,
    /// What of it was taken at the end.
    pub used_bytes: u64,
    /// Resident bytes of its processes then, where known; else what is live.
    pub rss_bytes: u64,
    /// Seconds from the end; `None` where nothing leaks.
    pub reached_in_seconds: Option<f64>,
    /// At the interval's ends; the later may be never.
    pub interval: Option<(f64, Option<f64>)>,
}

/// A limit, and what counts towards it.
struct Candidate {
    of: LimitOf,
    limit_bytes: u64,
    used_bytes: u64,
    /// By id, rising.
    processes: Vec<u32>,
}

impl Forecast {
    fn new(candidate: &Candidate, rss_bytes: u64, rate: Rate) -> Forecast {
        let left = candidate.limit_bytes.saturating_sub(candidate.used_bytes) as f64;
        let is_leaking = rate.bytes_per_second > 0.0;
        let after = |speed: f64| left / speed;
        Forecast {
            of: candidate.of,
            limit_bytes: candidate.limit_bytes,
            used_bytes: candidate.used_bytes,
            rss_bytes,
            reached_in_seconds: is_leaking.then(|| after(rate.bytes_per_second)),
            interval: is_leaking.then(|| {
                let slowest = rate.bytes_per_second - rate.error;
                let latest = (slowest > 0.0).then(|| after(slowest));
                (after(rate.bytes_per_second + rate.error), latest)
            }),
        }
    }

    /// What is left, in bytes.
    fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

impl Leaks {
    /// The limit that the user told, or of those that were recorded the one which is
    /// reached first; where nothing leaks, the nearest.
    pub(super) fn forecast(&self, model: &Model<'_>) -> Option<Forecast> {
        if let Some(limit_bytes) = self.query.memory_limit {
            // Where no resident size is known, what is live is the least of it.
            let rss_bytes = self.rss.map_or(self.live.1, |(_, rss)| rss);
            let given = Candidate {
                of: LimitOf::Given,
                limit_bytes,
                used_bytes: rss_bytes,
                processes: Vec::new(),
            };
            return Some(Forecast::new(&given, rss_bytes, self.leaking.1));
        }
        let candidates = candidates(model, self.to_ns);
        let forecasts = candidates.iter().map(|candidate| {
            let rss = candidate.processes.iter();
            let rss = rss.filter_map(|&process| rss_of(model, process, self.to_ns));
            let rate = self.rate_of(&candidate.processes);
            Forecast::new(candidate, rss.fold(0, u64::saturating_add), rate)
        });
        forecasts.min_by(|one, other| {
            let seconds = |forecast: &Forecast| forecast.reached_in_seconds.unwrap_or(f64::MAX);
            let order = seconds(one).total_cmp(&seconds(other));
            order.then(one.left_bytes().cmp(&other.left_bytes()))
        })
    }

    /// How fast some processes (rising) grow, by their shares in what leaks.
    fn rate_of(&self, processes: &[u32]) -> Rate {
        let mut sum = Rate::default();
        for cause in self.leaking_causes() {
            let part = part_of(cause, processes);
            sum.bytes_per_second += cause.rate.bytes_per_second * part;
            sum.error = sum.error.hypot(cause.rate.error * part);
        }
        sum
    }
}

/// The part of a cause's growth that is these processes'.
fn part_of(cause: &Cause, processes: &[u32]) -> f64 {
    let (mut theirs, mut all) = (0.0, 0.0);
    for share in &cause.shares {
        let grown = share.grown_bytes.max(0) as f64;
        all += grown;
        if processes.binary_search(&share.process).is_ok() {
            theirs += grown;
        }
    }
    if all > 0.0 { theirs / all } else { 0.0 }
}

/// The limits of the processes that lived to an instant.
fn candidates(model: &Model<'_>, to_ns: u64) -> Vec<Candidate> {
    // The last that was known then, else the first.
    let mut known: BTreeMap<u32, &Limits> = BTreeMap::new();
    for &limits in model.limits() {
        let is_in_time = limits.at_ns <= to_ns;
        let kept = known.entry(limits.process).or_insert(limits);
        if is_in_time {
            *kept = limits;
        }
    }
    known.retain(|&process, _| {
        let facts = model.processes().get(process as usize);
        let end = facts.map(|facts| facts.end.map_or(to_ns, |end| end.at_ns));
        // One that ends with the recording has not left before it.
        end.is_some_and(|end| end >= to_ns - to_ns / 10)
    });
    let mut groups: BTreeMap<u32, Vec<(&Limits, u64, u64)>> = BTreeMap::new();
    let mut all = Vec::new();
    for (&process, limits) in &known {
        for limit in &limits.limits {
            let of = match limit.of {
                Limited::ControlGroup(group) => {
                    let members = groups.entry(group).or_default();
                    members.push((limits, limit.bytes, limit.used_bytes));
                    continue;
                }
                Limited::AddressSpace => LimitOf::AddressSpace(process),
                Limited::Data => LimitOf::Data(process),
            };
            all.push(Candidate {
                of,
                limit_bytes: limit.bytes,
                used_bytes: moved(limit.used_bytes, grown(model, limits, process, to_ns)),
                processes: vec![process],
            });
        }
    }
    for members in groups.values() {
        let Some(&(latest, limit_bytes, used)) =
            members.iter().max_by_key(|(limits, ..)| limits.at_ns)
        else {
            continue;
        };
        let processes: Vec<u32> = members.iter().map(|(limits, ..)| limits.process).collect();
        let grown = processes
            .iter()
            .map(|&process| grown(model, latest, process, to_ns))
            .fold(0, i64::saturating_add);
        all.push(Candidate {
            of: LimitOf::ControlGroup,
            limit_bytes,
            used_bytes: moved(used, grown),
            processes,
        });
    }
    all
}

/// How much larger a process is than when `limits` were looked at.
fn grown(model: &Model<'_>, limits: &Limits, process: u32, to_ns: u64) -> i64 {
    let then = if process == limits.process {
        Some(limits.rss_bytes)
    } else {
        // One that came later was not there.
        let facts = model.processes().get(process as usize);
        let is_there = facts.is_some_and(|facts| facts.process.at_ns <= limits.at_ns);
        if is_there {
            rss_of(model, process, limits.at_ns)
        } else {
            Some(0)
        }
    };
    let now = rss_of(model, process, to_ns);
    now.zip(then)
        .map_or(0, |(now, then)| (now as i64).saturating_sub(then as i64))
}

fn moved(bytes: u64, by: i64) -> u64 {
    bytes.saturating_add_signed(by)
}

/// Resident bytes of a process at about an instant.
fn rss_of(model: &Model<'_>, process: u32, ns: u64) -> Option<u64> {
    let after = model.bin_ends().partition_point(|&end| end <= ns);
    let (before, after) = model.bins().split_at(after);
    before.iter().rev().chain(after).find_map(|bin| {
        // One that has just ended has none.
        let mut known = bin.rss.iter().filter(|(_, bytes)| *bytes > 0);
        let known = known.find(|(id, _)| *id == process);
        known.map(|(_, bytes)| *bytes)
    })
}
