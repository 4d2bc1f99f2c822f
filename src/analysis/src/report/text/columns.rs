//! Which figures a table shows, in which order.

use super::WIDE;
use crate::figures::{Figures, Measure};
use crate::report::table::{Cell, Style};
use crate::report::words::{blocks, bytes, signed_blocks, signed_bytes};

/// A column of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Live,
    LiveBlocks,
    Peak,
    PeakBlocks,
    Total,
    TotalBlocks,
    Growth,
    GrowthBlocks,
    Temporary,
    /// Of survivors: what was born.
    Born,
    BornBlocks,
}

impl Column {
    pub(super) fn header(self) -> &'static str {
        match self {
            Column::Live => "live",
            Column::Peak => "peak",
            Column::Total => "total",
            Column::Growth => "growth",
            Column::LiveBlocks
            | Column::PeakBlocks
            | Column::TotalBlocks
            | Column::GrowthBlocks
            | Column::BornBlocks => "blocks",
            Column::Born => "born",
            Column::Temporary => "temporary",
        }
    }

    pub(super) fn cell(self, figures: &Figures) -> Cell {
        // Below 0 only where a file is damaged.
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        Cell::Figure(match self {
            Column::Live => bytes(positive(figures.live_bytes)),
            Column::LiveBlocks => blocks(positive(figures.live_blocks)),
            Column::Peak => bytes(figures.peak_bytes),
            Column::PeakBlocks => blocks(figures.peak_blocks),
            Column::Total | Column::Born => bytes(figures.total_bytes),
            Column::TotalBlocks | Column::BornBlocks => blocks(figures.total_blocks),
            Column::Growth => signed_bytes(figures.delta_bytes),
            Column::GrowthBlocks => signed_blocks(figures.delta_blocks),
            Column::Temporary => blocks(figures.temporary_blocks),
        })
    }
}

/// What rows are sorted by comes first, with its blocks; then what it is seen
/// against.
pub(super) fn columns(measure: Measure, compared: bool, style: Style) -> Vec<Column> {
    use Column::{
        Growth, GrowthBlocks, Live, LiveBlocks, Peak, PeakBlocks, Temporary, Total, TotalBlocks,
    };
    let mut columns = match (measure, compared) {
        (Measure::Temporary, _) => return vec![Temporary, TotalBlocks, Total, Live],
        (Measure::Live | Measure::Growth, false) => vec![Live, LiveBlocks, Peak, Total],
        (Measure::Live, true) => vec![Live, LiveBlocks, Growth, Total],
        (Measure::Growth, true) => vec![Growth, GrowthBlocks, Live, Total],
        (Measure::Peak, false) => vec![Peak, PeakBlocks, Live, Total],
        (Measure::Peak, true) => vec![Peak, PeakBlocks, Growth, Total],
        (Measure::Total, false) => vec![Total, TotalBlocks, Live, Peak],
        (Measure::Total, true) => vec![Total, TotalBlocks, Growth, Live],
    };
    if style.width >= WIDE {
        columns.push(Temporary);
    }
    columns
}
