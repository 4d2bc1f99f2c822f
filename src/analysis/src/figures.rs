//! The figures of a row, whatever the row stands for.

use leakline_recording::record::Counters;

use crate::scatter::Scatter;

/// Figures of a site, or of several together, at an instant or between two.
///
/// Live figures are those at the later instant, or at the end of a process
/// that ended before. Totals count from the earlier
/// instant where there is one, else from the start. Sums saturate.
///
/// What is live was allocated: of one instant totals are never below the live
/// figures, and between two never below the growth. Where a bin lacks a site's
/// last changes, or ends after the high-water mark that live figures are of,
/// totals are raised to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes live. Negative only in a damaged recording.
    pub live_bytes: i64,
    /// Blocks live.
    pub live_blocks: i64,
    /// Bytes allocated.
    pub total_bytes: u64,
    /// Blocks born.
    pub total_blocks: u64,
    /// Blocks freed before their thread's next allocations.
    pub temporary_blocks: u64,
    /// Calls that resized a block in place.
    pub resizes: u64,
    /// Bytes live at the session's high-water mark.
    pub peak_bytes: u64,
    /// Blocks live at the session's high-water mark.
    pub peak_blocks: u64,
    /// Live bytes at the later instant less those at the earlier.
    pub delta_bytes: i64,
    /// Live blocks likewise.
    pub delta_blocks: i64,
    /// Of the live bytes, those of processes that had ended by then, while
    /// others went on: they went with them.
    pub ended_bytes: i64,
    /// Of the live blocks likewise.
    pub ended_blocks: i64,
    /// How far they may be off, in a sampled recording.
    pub scatter: Scatter,
}

impl Figures {
    /// Figures at one instant, or since `before`.
    pub(crate) fn new(
        to: &Counters,
        before: Option<&Counters>,
        peak_bytes: u64,
        peak_blocks: u64,
        has_ended: bool,
    ) -> Self {
        let zero = Counters::default();
        let from = before.unwrap_or(&zero);
        let delta_bytes = (to.live_bytes as i64).saturating_sub(from.live_bytes as i64);
        let delta_blocks = (to.live_blocks as i64).saturating_sub(from.live_blocks as i64);
        let at_least = |total: u64, grown: i64| total.max(u64::try_from(grown).unwrap_or(0));
        Figures {
            live_bytes: to.live_bytes as i64,
            live_blocks: to.live_blocks as i64,
            total_bytes: at_least(to.total_bytes.saturating_sub(from.total_bytes), delta_bytes),
            total_blocks: at_least(
                to.total_blocks.saturating_sub(from.total_blocks),
                delta_blocks,
            ),
            temporary_blocks: to.temporary_blocks.saturating_sub(from.temporary_blocks),
            resizes: to.resizes.saturating_sub(from.resizes),
            peak_bytes,
            peak_blocks,
            delta_bytes,
            delta_blocks,
            ended_bytes: if has_ended { to.live_bytes as i64 } else { 0 },
            ended_blocks: if has_ended { to.live_blocks as i64 } else { 0 },
            scatter: Scatter::default(),
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Figures) {
        self.live_bytes = self.live_bytes.saturating_add(other.live_bytes);
        self.live_blocks = self.live_blocks.saturating_add(other.live_blocks);
        self.total_bytes = self.total_bytes.saturating_add(other.total_bytes);
        self.total_blocks = self.total_blocks.saturating_add(other.total_blocks);
        self.temporary_blocks = self.temporary_blocks.saturating_add(other.temporary_blocks);
        self.resizes = self.resizes.saturating_add(other.resizes);
        self.peak_bytes = self.peak_bytes.saturating_add(other.peak_bytes);
        self.peak_blocks = self.peak_blocks.saturating_add(other.peak_blocks);
        self.delta_bytes = self.delta_bytes.saturating_add(other.delta_bytes);
        self.delta_blocks = self.delta_blocks.saturating_add(other.delta_blocks);
        self.ended_bytes = self.ended_bytes.saturating_add(other.ended_bytes);
        self.ended_blocks = self.ended_blocks.saturating_add(other.ended_blocks);
        self.scatter.add(&other.scatter);
    }

    /// The one to sort by or to weigh with.
    pub fn measure(&self, measure: Measure, unit: Unit) -> i64 {
        let unsigned = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match (measure, unit) {
            (Measure::Live, Unit::Bytes) => self.live_bytes,
            (Measure::Live, Unit::Blocks) => self.live_blocks,
            (Measure::Total, Unit::Bytes) => unsigned(self.total_bytes),
            (Measure::Total, Unit::Blocks) => unsigned(self.total_blocks),
            (Measure::Peak, Unit::Bytes) => unsigned(self.peak_bytes),
            (Measure::Peak, Unit::Blocks) => unsigned(self.peak_blocks),
            (Measure::Temporary, _) => unsigned(self.temporary_blocks),
            (Measure::Growth, Unit::Bytes) => self.delta_bytes,
            (Measure::Growth, Unit::Blocks) => self.delta_blocks,
        }
    }

    /// Whether there is anything to show: something happened between the
    /// instants compared, or was there by the only one. What the high-water
    /// mark had counts only where `by_peak`: it may come later.
    pub(crate) fn is_idle(&self, compared: bool, by_peak: bool) -> bool {
        let still = Figures {
            delta_bytes: self.delta_bytes,
            delta_blocks: self.delta_blocks,
            total_bytes: self.total_bytes,
            total_blocks: self.total_blocks,
            temporary_blocks: self.temporary_blocks,
            resizes: self.resizes,
            ..Figures::default()
        };
        let absent = self.live_bytes == 0 && self.live_blocks == 0;
        let peakless = self.peak_bytes == 0 && self.peak_blocks == 0;
        still == Figures::default() && (compared || absent) && (!by_peak || peakless)
    }
}

/// Which of its figures a row is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// What is live at the instant.
    Live,
    /// What was ever allocated, or allocated between two instants.
    Total,
    /// What was live at the session's high-water mark.
    Peak,
    /// Blocks freed before their thread's next allocations.
    Temporary,
    /// How much more is live than at the earlier instant.
    Growth,
}

impl Measure {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Measure::Live => "live",
            Measure::Total => "total",
            Measure::Peak => "peak",
            Measure::Temporary => "temporary",
            Measure::Growth => "growth",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    #[default]
    Bytes,
    /// Blocks.
    Blocks,
}
