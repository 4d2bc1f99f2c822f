//! Values in words.

use leakline_analysis::report::{duration, signed_bytes};

use crate::state::data::{Facts, TREND_STEPS, Trend};

/// The time of day at an instant.
pub(super) fn clock(facts: &Facts, ns: u64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let at = facts
        .started_local_ns
        .saturating_add(i64::try_from(ns).unwrap_or(i64::MAX));
    let seconds = at.div_euclid(SECOND).rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// An instant as short as it can be: what lasts less than a minute is told
/// apart by the time since its start.
pub(super) fn instant(facts: &Facts, ns: u64) -> String {
    if facts.duration_ns < 60_000_000_000 {
        format!("+{}", duration(ns))
    } else {
        clock(facts, ns)
    }
}

/// `98 %`, `0.4 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent != 0.0 && percent.abs() < 0.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// `+1.2 MiB/min`.
pub(super) fn per_minute(bytes_per_second: f64) -> String {
    format!("{}/min", signed_bytes((bytes_per_second * 60.0) as i64))
}

/// Bars of eighths.
pub(super) const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// A trend in so many columns.
pub(super) fn spark(trend: &Trend, columns: usize) -> String {
    let columns = columns.clamp(1, TREND_STEPS);
    (0..columns)
        .map(|column| {
            let steps =
                &trend[column * TREND_STEPS / columns..(column + 1) * TREND_STEPS / columns];
            let most = steps.iter().copied().max().unwrap_or(0);
            // What is there at all is seen.
            BARS[usize::from(most).div_ceil(32).min(8)]
        })
        .collect()
}
