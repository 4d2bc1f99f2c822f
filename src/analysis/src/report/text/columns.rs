//! Which figures a table shows, in which order.

use super::WIDE;
use crate::figures::{Figures, Measure, Unit};
use crate::report::table::{Cell, Style};
use crate::report::words::{
    blocks, blocks_within, bytes, bytes_within, signed_blocks, signed_bytes,
};

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

    /// The figure and, of an estimate, how far it may be off.
    pub(super) fn cell_within(self, figures: &Figures, style: Style) -> Cell {
        let (measure, unit) = match self {
            Column::Live => (Measure::Live, Unit::Bytes),
            Column::LiveBlocks => (Measure::Live, Unit::Blocks),
            Column::Peak => (Measure::Peak, Unit::Bytes),
            Column::PeakBlocks => (Measure::Peak, Unit::Blocks),
            Column::Total | Column::Born => (Measure::Total, Unit::Bytes),
            Column::TotalBlocks | Column::BornBlocks => (Measure::Total, Unit::Blocks),
            Column::Growth => (Measure::Growth, Unit::Bytes),
            Column::GrowthBlocks => (Measure::Growth, Unit::Blocks),
            Column::Temporary => (Measure::Temporary, Unit::Blocks),
        };
        let error = figures.error(measure, unit);
        if error.is_none_or(|error| error == 0) {
            return self.cell(figures);
        }
        let value = figures.measure(measure, unit);
        let sign = match measure {
            Measure::Growth if value > 0 => "+",
            Measure::Growth if value < 0 => "-",
            _ => "",
        };
        // Below 0 only where it grew, or a file is damaged.
        let amount = if measure == Measure::Growth {
            value.unsigned_abs()
        } else {
            u64::try_from(value).unwrap_or(0)
        };
        let text = match (measure, unit) {
            (Measure::Temporary, _) | (_, Unit::Blocks) => {
                blocks_within(amount, error, style.boxes)
            }
            (_, Unit::Bytes) => bytes_within(amount, error, style.boxes),
        };
        Cell::Figure(format!("{sign}{text}"))
    }

    /// The figure alone.
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

/// The cells of a row. Of an estimate the first figure, by which rows are sorted,
/// comes with its error; where there is room, all do.
pub(super) fn cells(columns: &[Column], figures: &Figures, style: Style) -> Vec<Cell> {
    let cell = |(at, column): (usize, &Column)| {
        if at == 0 || style.width >= WIDE {
            column.cell_within(figures, style)
        } else {
            column.cell(figures)
        }
    };
    columns.iter().enumerate().map(cell).collect()
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
