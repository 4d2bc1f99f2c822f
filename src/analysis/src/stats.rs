//! `stats`: what was counted, per session and per process, by size and over
//! time.

use leakline_recording::record::ProcessTotals;

use crate::figures::Figures;
use crate::instant::Span;
use crate::model::{Model, Totals};

/// An answer of `stats`.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Counters of the session, merged.
    pub totals: Totals,
    /// Every event is in the figures.
    pub complete: bool,
    /// Allocations by size; empty classes at the ends left out.
    pub sizes: Vec<SizeClass>,
    /// Counters of each process, by id.
    pub processes: Vec<ProcessStats>,
    /// Nanoseconds that the recording spans.
    pub duration_ns: u64,
    /// What the sites add up to at the end, if these are estimates.
    pub estimates: Option<Figures>,
}

/// Allocations of a range of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Smallest size in bytes.
    pub min_bytes: u64,
    /// Largest size in bytes.
    pub max_bytes: u64,
    /// How many.
    pub allocations: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counters of a process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessStats {
    /// Its id.
    pub process: u32,
    /// Its counters; live ones hold what it inherited too.
    pub totals: ProcessTotals,
    /// Every event of it is in the figures.
    pub complete: bool,
    /// What its sites add up to at its end, if these are estimates.
    pub estimates: Option<Figures>,
}

impl Stats {
    /// Counts.
    pub fn new(model: &Model<'_>) -> Self {
        let readable = model.origin().ended && model.origin().warnings.is_empty();
        let is_sampled = model.is_sampled();
        let mut estimates = Figures::default();
        let mut of_process = vec![Figures::default(); model.processes().len()];
        if is_sampled {
            model.for_each_figures(&Span::whole(model), |_, site, figures| {
                estimates.add(figures);
                if let Some(process) = of_process.get_mut(site.process as usize) {
                    process.add(figures);
                }
            });
        }
        let processes = (0..)
            .zip(model.processes())
            .map(|(process, facts)| {
                let marked = model
                    .losses()
                    .iter()
                    .filter(|loss| loss.process == process)
                    .fold(0_u64, |sum, loss| sum.saturating_add(loss.events));
                let peak = facts.peak.map_or(0, |peak| peak.live_bytes);
                let totals = ProcessTotals {
                    process,
                    lost_events: facts.totals.lost_events.max(marked),
                    peak_bytes: facts.totals.peak_bytes.max(peak),
                    ..facts.totals
                };
                ProcessStats {
                    process,
                    totals,
                    complete: readable && totals.lost_events == 0 && totals.malformed_events == 0,
                    estimates: of_process
                        .get(process as usize)
                        .copied()
                        .filter(|_| is_sampled),
                }
            })
            .collect();
        Stats {
            totals: model.totals(),
            complete: model.complete(),
            sizes: sizes(model),
            processes,
            duration_ns: model.duration_ns(),
            estimates: is_sampled.then_some(estimates),
        }
    }

    /// How many a second over the recording's span; 0 where it spans nothing.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.duration_ns == 0 {
            0.0
        } else {
            count as f64 / (self.duration_ns as f64 / 1e9)
        }
    }
}

fn sizes(model: &Model<'_>) -> Vec<SizeClass> {
    let Some(sizes) = model.sizes() else {
        return Vec::new();
    };
    let used = |class: &(u64, u64)| class.0 != 0;
    let Some(first) = sizes.classes.iter().position(used) else {
        return Vec::new();
    };
    let last = sizes.classes.iter().rposition(used).unwrap_or(first);
    sizes.classes[first..=last]
        .iter()
        .zip(first..)
        .map(|(&(allocations, bytes), bits)| SizeClass {
            min_bytes: bits.checked_sub(1).map_or(0, shifted),
            max_bytes: shifted(bits).wrapping_sub(1),
            allocations,
            bytes,
        })
        .collect()
}

/// 2 to the power of `bits`, 0 beyond 64 bits.
fn shifted(bits: usize) -> u64 {
    u32::try_from(bits)
        .ok()
        .and_then(|bits| 1_u64.checked_shl(bits))
        .unwrap_or(0)
}
