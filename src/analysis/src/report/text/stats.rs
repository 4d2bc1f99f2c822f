//! `stats` as text.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::closing::{next_commands, notes};
use super::heading::head;
use super::processes::{by_peak, fate};
use crate::figures::{Measure, Unit};
use crate::instant::Span;
use crate::model::Model;
use crate::report::table::{Cell, DIM, Style, Table, cut, padded};
use crate::report::words::{blocks, blocks_within, bytes, bytes_within, counted, duration, rate};
use crate::stats::Stats;

/// Writes `stats`.
pub fn stats(
    model: &Model<'_>,
    stats: &Stats,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    const MOST_PROCESSES: usize = 20;
    let totals = &stats.totals;
    let error = |measure, unit| {
        let figures = stats.estimates.as_ref();
        figures.and_then(|figures| figures.error(measure, unit))
    };
    let counted_within =
        |count: u64, measure| blocks_within(count, error(measure, Unit::Blocks), style.boxes);
    let sized_within =
        |amount: u64, measure| bytes_within(amount, error(measure, Unit::Bytes), style.boxes);
    // Of snapshots there is nothing to count between them.
    let is_imported = model.is_imported();
    let answer = if is_imported {
        format!(
            "{} of tracemalloc in {}",
            counted(model.bins().len() as u64, "snapshot", "snapshots"),
            duration(stats.duration_ns)
        )
    } else {
        format!(
            "{} allocations ({}) and {} frees in {}",
            blocks(totals.allocations),
            bytes(totals.allocated_bytes),
            blocks(totals.frees),
            duration(stats.duration_ns)
        )
    };
    head(model, &Span::whole(model), &answer, style, out)?;
    writeln!(out)?;
    let peak = model.high_water();
    let per_second = |count: u64| format!("{} a second", rate(stats.per_second(count)));
    let mut facts = vec![
        (
            "allocations",
            counted_within(totals.allocations, Measure::Total),
            per_second(totals.allocations),
        ),
        (
            "allocated",
            sized_within(totals.allocated_bytes, Measure::Total),
            format!(
                "{} a second",
                bytes(stats.per_second(totals.allocated_bytes) as u64)
            ),
        ),
        ("frees", blocks(totals.frees), per_second(totals.frees)),
        (
            "temporary",
            counted_within(totals.temporary_blocks, Measure::Temporary),
            format!(
                "{} of the allocations",
                percent(totals.temporary_blocks, totals.allocations)
            ),
        ),
        ("resized in place", blocks(totals.resizes), String::new()),
        (
            "high-water mark",
            sized_within(totals.peak_bytes, Measure::Peak),
            format!(
                "after {}{}",
                duration(peak.at_ns),
                if peak.exact {
                    ""
                } else {
                    ", sites of the nearest recorded instant"
                }
            ),
        ),
        (
            "live at the end",
            sized_within(totals.live_bytes, Measure::Live),
            match error(Measure::Live, Unit::Blocks) {
                Some(_) => format!(
                    "{} blocks",
                    counted_within(totals.live_blocks, Measure::Live)
                ),
                None => counted(totals.live_blocks, "block", "blocks"),
            },
        ),
        ("events", blocks(totals.events), per_second(totals.events)),
        (
            "lost events",
            blocks(totals.lost_events),
            if totals.lost_events > 0 {
                format!("{} known to be in them", bytes(totals.lost_bytes))
            } else {
                String::new()
            },
        ),
    ];
    if is_imported {
        const KNOWN: [&str; 2] = ["high-water mark", "live at the end"];
        facts.retain(|(name, ..)| KNOWN.contains(name));
        facts.push(("allocations, frees", "not known".into(), String::new()));
    }
    for (name, count, what) in [
        (
            "unknown frees",
            totals.unknown_frees,
            "of blocks never seen born",
        ),
        (
            "implied frees",
            totals.implied_frees,
            "missed, inferred from a birth there",
        ),
        (
            "malformed",
            totals.malformed_events,
            "words that were no event",
        ),
        (
            "truncated stacks",
            totals.truncated_stacks,
            "cut at the depth limit, or no room for them",
        ),
        (
            "broken unwinds",
            totals.broken_unwinds,
            "native stacks that end early",
        ),
    ] {
        if count > 0 {
            facts.push((name, blocks(count), what.into()));
        }
    }
    if totals.stalled_ns > 0 {
        facts.push((
            "stalled",
            duration(totals.stalled_ns),
            "threads waiting for leakline".into(),
        ));
    }
    let value_width = facts
        .iter()
        .map(|(_, value, _)| value.len())
        .max()
        .unwrap_or(0);
    for (name, value, what) in facts {
        let line = format!("{} {value:>value_width$}  {what}", padded(name, 17));
        writeln!(out, "{}", cut(line.trim_end(), style.width))?;
    }

    if !stats.sizes.is_empty() {
        writeln!(out, "\n{}", style.paint(DIM, "          size  allocations"))?;
        let most = stats
            .sizes
            .iter()
            .map(|class| class.allocations)
            .max()
            .unwrap_or(0);
        for class in &stats.sizes {
            let range = if class.min_bytes == class.max_bytes {
                format!("{} B", class.min_bytes)
            } else {
                // 64 - 127 B, 1 - 2 KiB: the upper bound is the next class's lower.
                size_range(class.min_bytes, class.max_bytes)
            };
            let share = percent(class.allocations, totals.allocations.max(1));
            let line = format!(
                "{range:>14}  {:>11}  {share:>6}  ",
                blocks(class.allocations)
            );
            let room = style.width.saturating_sub(line.width()).min(40);
            let bar = bar(class.allocations, most, room, style);
            writeln!(
                out,
                "{}",
                cut(format!("{line}{bar}").trim_end(), style.width)
            )?;
        }
    }

    // The process of an import is none.
    if !stats.processes.is_empty() && !is_imported {
        writeln!(out)?;
        let mut table = Table::new(
            &["pid", "live", "peak", "allocations", "lost"],
            &["process"],
        );
        for &id in by_peak(stats).iter().take(MOST_PROCESSES) {
            let (facts, one) = (
                &model.processes()[id as usize],
                &stats.processes[id as usize],
            );
            table.row(vec![
                Cell::Figure(facts.process.pid.to_string()),
                Cell::Figure(bytes(one.totals.live_bytes)),
                Cell::Figure(bytes(one.totals.peak_bytes)),
                Cell::Figure(blocks(one.totals.allocations)),
                Cell::Figure(blocks(one.totals.lost_events)),
                Cell::Text(format!("{}{}", model.command(id), fate(model, id))),
            ]);
        }
        table.write(out, style)?;
        if stats.processes.len() > MOST_PROCESSES {
            let more = stats.processes.len() - MOST_PROCESSES;
            writeln!(out, "and {more} more with a lower peak (--json has all)")?;
        }
    }
    notes(model, style, out)?;
    next_commands(
        model,
        &[("top", "who allocated"), ("summary", "in short")],
        style,
        out,
    )
}

/// `64-127 B`, `1-2 KiB`.
fn size_range(min: u64, max: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (min.max(1).ilog2() / 10) as usize;
    let scale = 1_u64 << (10 * unit);
    if unit == 0 {
        format!("{min}-{max} B")
    } else {
        format!(
            "{}-{} {}",
            min / scale,
            (max / scale).saturating_add(1),
            UNITS[unit]
        )
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "0 %".into()
    } else {
        format!("{:.1} %", 100.0 * part as f64 / whole as f64)
    }
}

/// A bar of at most `room` columns, never empty for something.
fn bar(part: u64, whole: u64, room: usize, style: Style) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let length = (part as f64 / whole as f64 * room as f64).round().max(1.0) as usize;
    if style.boxes { "█" } else { "#" }.repeat(length.min(room))
}
