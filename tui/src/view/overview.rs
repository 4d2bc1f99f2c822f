//! The recording over time, and what holds most at the instant.

use leakline_analysis::report::{blocks, bytes, duration, signed_bytes};
use ratatui::style::Style;

use super::canvas::{Canvas, cut_end, width};
use super::words::{BARS, instant};
use super::{frame_parts, per_second, rows, rss, words};
use crate::state::data::{Cause, Facts, Verdict, Verdicts};
use crate::state::layout::{self, Area};
use crate::state::{Phase, State};
use crate::theme::Theme;

/// Columns from which there is room for what memory is made of, and rows that are left
/// for facts.
const ROOM_FOR_RSS: u16 = 120;
const LEAST_FACTS: u16 = 8;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>) {
    // The curve is known long before the sites of a large recording.
    if state.facts.times.is_empty() && !state.answered {
        return;
    }
    let parts = layout::overview(state);
    if let Some(y) = parts.title {
        let scale = Scale::of(&state.facts);
        let mut x = canvas.put(1, y, parts.plot.width, "live bytes", theme.strong);
        x = canvas.put(x + 2, y, 2, "█", theme.plot);
        x = canvas.put(x + 1, y, 20, "live", theme.dim);
        if scale.has_rss {
            x = canvas.put(x + 2, y, 2, "·", theme.rss);
            x = canvas.put(x + 1, y, 4, "RSS", theme.dim);
        }
        if let Some(growth) = recent_growth(state) {
            canvas.put(
                x + 3,
                y,
                parts.plot.width.saturating_sub(x),
                &growth,
                theme.dim,
            );
        }
    }
    if parts.plot.height > 0 {
        plot(state, theme, canvas, parts.plot);
        if let Some(y) = parts.axis {
            axis(state, theme, canvas, parts.plot, y);
        }
    }
    if let Some(y) = parts.rule {
        canvas.rule(0, y, parts.rows.width, theme.dim);
    }
    if let Some(verdicts) = state.verdicts.as_ref().filter(|_| parts.causes.height > 0) {
        causes(verdicts, theme, canvas, parts.causes);
    }
    if state.answered {
        rows::draw(state, theme, canvas);
    }
    if parts.facts.height > 0 && state.phase == Phase::Ready {
        facts(state, theme, canvas, parts.facts, parts.is_wide);
    }
}

/// What is drawn from bottom to top.
struct Scale {
    low: u64,
    high: u64,
    has_rss: bool,
}

impl Scale {
    fn of(facts: &Facts) -> Self {
        let rss = facts.times.iter().filter_map(|time| time.rss_bytes).max();
        let live = facts.times.iter().map(|time| time.max_bytes).max();
        let high = live
            .unwrap_or(0)
            .max(rss.unwrap_or(0))
            .max(facts.peak.bytes);
        Scale {
            low: 0,
            high: high.max(1),
            has_rss: rss.is_some(),
        }
    }

    /// Eighths of a row, of `rows` rows.
    fn eighths(&self, value: u64, rows: u16) -> u64 {
        let above = u128::from(value.saturating_sub(self.low));
        let range = u128::from((self.high - self.low).max(1));
        let eighths = (above * u128::from(rows) * 8).div_ceil(range);
        u64::try_from(eighths).unwrap_or(0).min(u64::from(rows) * 8)
    }
}

fn plot(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) {
    let facts = &state.facts;
    let scale = Scale::of(facts);
    let cursor = layout::column_of(state.at.ns, area.width, facts.duration_ns);
    for (row, value) in [(0, scale.high), (area.height.saturating_sub(1), scale.low)] {
        if row == 0 || area.height > 1 {
            canvas.put_right(area.x - 2, area.y + row, area.x, &bytes(value), theme.dim);
        }
    }
    for row in 0..area.height {
        let tick = if row + 1 == area.height {
            "┼"
        } else if row == 0 {
            "┤"
        } else {
            "│"
        };
        canvas.put(area.x - 1, area.y + row, 1, tick, theme.dim);
    }
    let mut times = facts.times.iter().peekable();
    let (mut live, mut rss) = (0, None);
    for column in 0..area.width {
        // What is recorded up to the middle between this column and the next.
        let until = layout::instant_of(2 * column + 1, 2 * area.width - 1, facts.duration_ns);
        let until = if column + 1 == area.width {
            u64::MAX
        } else {
            until
        };
        let mut most = live;
        let mut any = false;
        while let Some(time) = times.next_if(|time| time.end_ns <= until) {
            most = if any {
                most.max(time.max_bytes)
            } else {
                time.max_bytes
            };
            any = true;
            live = time.live_bytes;
            rss = time.rss_bytes.or(rss);
        }
        let x = area.x + column;
        let eighths = scale.eighths(most, area.height);
        let is_cursor = column == cursor;
        let style = if is_cursor { theme.key } else { theme.plot };
        for row in 0..area.height {
            let below = u64::from(area.height - 1 - row) * 8;
            let level = eighths.saturating_sub(below).min(8);
            let y = area.y + row;
            if level > 0 {
                canvas.put(x, y, 1, BARS[level as usize], style);
            } else if is_cursor {
                canvas.put(x, y, 1, "│", theme.key);
            }
        }
        if let Some(rss) = rss {
            let level = scale.eighths(rss, area.height).max(1) - 1;
            let row = area.height - 1 - (level / 8) as u16;
            if u64::from(area.height - row) * 8 > eighths + 7 || eighths == 0 {
                canvas.put(x, area.y + row, 1, "·", theme.rss);
            }
        }
    }
}

/// The axis with the cursor, and below it marks and times.
fn axis(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: Area, y: u16) {
    let facts = &state.facts;
    let column = |ns| area.x + layout::column_of(ns, area.width, facts.duration_ns);
    canvas.put(area.x - 1, y, 1, "└", theme.dim);
    canvas.rule(area.x, y, area.width, theme.dim);
    for (at, _) in &facts.losses {
        canvas.put(column(*at), y, 1, "!", theme.bad);
    }
    for mark in &facts.marks {
        canvas.put(column(mark.at_ns), y, 1, "┬", theme.dim);
    }
    // The first free places get their labels, the more important first.
    let mut labels: Vec<(u16, String, Style)> = Vec::new();
    let cursor = column(state.at.ns);
    labels.push((cursor, instant(facts, state.at.ns), theme.key));
    labels.push((area.x, instant(facts, 0), theme.dim));
    let end = area.x + area.width - 1;
    labels.push((end, instant(facts, facts.duration_ns), theme.dim));
    labels.push((column(facts.peak.at_ns), "peak".into(), theme.dim));
    let mut names: Vec<&str> = Vec::new();
    for mark in &facts.marks {
        // Of many processes' marks the first is named.
        if !names.contains(&mark.name.as_str()) {
            names.push(&mark.name);
            labels.push((column(mark.at_ns), mark.name.clone(), theme.dim));
        }
    }
    let mut taken: Vec<(u16, u16)> = Vec::new();
    for (at, text, style) in labels {
        let length = width(&text) as u16;
        let x = at
            .saturating_sub(length / 2)
            .min((area.x + area.width).saturating_sub(length))
            .max(area.x.min(at));
        let free = taken.iter().all(|&(from, to)| x + length < from || x > to);
        if free && x + length <= area.x + area.width {
            canvas.put(x, y + 1, length, &text, style);
            taken.push((x, x + length));
        }
    }
    canvas.put(cursor, y, 1, "▲", theme.key);
}

/// What live memory did in the minute before the instant, or in the time that
/// there was.
fn recent_growth(state: &State) -> Option<String> {
    const MINUTE: u64 = 60_000_000_000;
    let times = &state.facts.times;
    let at = |ns: u64| {
        let after = times.partition_point(|time| time.end_ns <= ns);
        after.checked_sub(1).map(|before| times[before])
    };
    let now = at(state.at.ns)?;
    let before = at(state.at.ns.saturating_sub(MINUTE)).unwrap_or_default();
    let span = now
        .end_ns
        .checked_sub(before.end_ns)
        .filter(|&span| span > 0)?;
    let change = now
        .live_bytes
        .cast_signed()
        .saturating_sub(before.live_bytes.cast_signed());
    Some(format!(
        "{} in the {} before",
        signed_bytes(change),
        duration(span)
    ))
}

fn facts(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: Area, is_wide: bool) {
    let facts = &state.facts;
    let totals = &facts.totals;
    let mut lines: Vec<(&str, String, Style)> = Vec::new();
    let plain = Style::new();
    let rate = per_second(totals.allocations, facts.duration_ns);
    let temporary = if totals.allocations == 0 {
        0.0
    } else {
        totals.temporary_blocks as f64 / totals.allocations as f64
    };
    let temporary = words::percent(temporary);
    let (allocated, blocks_allocated) = (bytes(totals.allocated_bytes), blocks(totals.allocations));
    let freed = blocks(totals.frees);
    if let Some(snapshots) = facts.snapshots() {
        let text = format!("not known, nor what was freed: made of {snapshots} snapshots");
        lines.push(("allocated", text, plain));
    } else if is_wide {
        let allocated = format!("{allocated}, {rate} blocks/s");
        lines.push(("allocated", allocated, plain));
        lines.push((
            "blocks",
            format!("{blocks_allocated}, {temporary} temporary"),
            plain,
        ));
        lines.push(("freed", format!("{freed} blocks"), plain));
    } else {
        let allocated = format!("{allocated} in {blocks_allocated} blocks, {rate}/s");
        lines.push(("allocated", allocated, plain));
        let freed = format!("{freed} blocks; {temporary} of all at once (temporary)");
        lines.push(("freed", freed, plain));
    }
    let before = facts
        .times
        .partition_point(|time| time.end_ns <= state.at.ns);
    let rss = facts.times[..before]
        .iter()
        .rev()
        .find_map(|time| time.rss_bytes);
    if let Some(rss) = rss.filter(|_| is_wide) {
        lines.push(("RSS", format!("{} at the cursor", bytes(rss)), plain));
    }
    let lost = blocks(totals.lost_events);
    if totals.lost_events > 0 {
        let all = totals.events.saturating_add(totals.lost_events);
        let text = format!("{lost} of {} events", blocks(all));
        lines.push(("lost", text, theme.bad));
    } else {
        let text = format!("nothing of {} events", blocks(totals.events));
        lines.push(("lost", text, theme.good));
    }
    for warning in &facts.warnings {
        lines.push(("damaged", warning.clone(), theme.bad));
    }
    if is_wide {
        for y in area.y..area.y + area.height {
            canvas.put(area.x - 1, y, 1, "│", theme.dim);
        }
    } else {
        canvas.rule(0, area.y, area.width, theme.dim);
    }
    let mut y = area.y + u16::from(!is_wide);
    let end = area.y + area.height;
    if is_wide && canvas.columns() >= ROOM_FOR_RSS && area.height > rss::PANE_ROWS + LEAST_FACTS {
        let rows = rss::pane(state, theme, canvas, area);
        if rows > 0 {
            canvas.rule(area.x, y + rows, area.width, theme.dim);
            y += rows + 1;
        }
    }
    let x = area.x + 1;
    for (name, text, style) in lines {
        if y >= end {
            return;
        }
        let left = (area.x + area.width).saturating_sub(x + 11);
        canvas.put(x, y, 10, name, theme.dim);
        canvas.put(x + 11, y, left, &cut_end(&text, left.into()), style);
        y += 1;
    }
    if !is_wide {
        return;
    }
    canvas.rule(area.x, y, area.width, theme.dim);
    y += 1;
    canvas.put(x, y, area.width, "process", theme.dim);
    canvas.put_right(area.x + area.width - 1, y, 10, "peak", theme.dim);
    y += 1;
    for process in &facts.processes {
        if y >= end {
            return;
        }
        let name = format!("{} {}", process.pid, process.command);
        let left = area.width.saturating_sub(14);
        canvas.put(x, y, left, &cut_end(&name, left.into()), plain);
        let peak = bytes(process.peak_bytes);
        canvas.put_right(area.x + area.width - 1, y, 10, &peak, theme.dim);
        y += 1;
    }
    for note in facts.notes.iter().take(3) {
        if y + 1 >= end {
            return;
        }
        canvas.put(
            x,
            y + 1,
            area.width - 2,
            &cut_end(note, usize::from(area.width - 2)),
            theme.unclear,
        );
        y += 1;
    }
}

/// Cards of causes, above the largest sites.
fn causes(verdicts: &Verdicts, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) {
    const HELD: u16 = 16;
    canvas.put(4, area.y, 10, "verdict", theme.dim);
    canvas.put_right(32, area.y, 14, "MiB/min", theme.dim);
    canvas.put_right(43, area.y, 10, "live", theme.dim);
    canvas.put(45, area.y, 10, "made in", theme.dim);
    let held_at = area.width.saturating_sub(HELD);
    canvas.put(held_at, area.y, HELD, "held by", theme.dim);
    let rows = area.below(1);
    for (y, cause) in (rows.y..rows.y + rows.height).zip(&verdicts.causes) {
        let Cause {
            id,
            verdict,
            rate,
            live_bytes,
            made_in,
            held_by,
            members: _,
        } = cause;
        let style = match verdict {
            Verdict::Leaking | Verdict::Unreachable => theme.bad,
            Verdict::Growing | Verdict::Unclear => theme.unclear,
            Verdict::Plateau | Verdict::Burst | Verdict::StartUp => theme.good,
        };
        canvas.put(1, y, 3, id, style);
        canvas.put(4, y, 12, verdict.word(), style);
        let per_minute = |bytes: f64| bytes * 60.0 / f64::from(1 << 20);
        let rate = rate.map_or_else(
            || "-".to_owned(),
            |(rate, off)| format!("{:.2} ±{:.2}", per_minute(rate), per_minute(off)),
        );
        canvas.put_right(32, y, 14, &rate, style);
        let live = bytes(u64::try_from(*live_bytes).unwrap_or(0));
        canvas.put_right(43, y, 10, &live, Style::new());
        let room = held_at.saturating_sub(46);
        canvas.put_parts(45, y, room, &frame_parts(made_in, room.into(), theme));
        let held_by = held_by.as_deref().unwrap_or("not known");
        canvas.put(held_at, y, HELD, &cut_end(held_by, HELD.into()), theme.dim);
    }
    let (sites, risen) = verdicts.not_judged;
    let y = usize::from(rows.y) + verdicts.causes.len();
    if sites > 0 && y < usize::from(rows.y + rows.height) {
        let text = format!(
            "not judged here: {} sites that rose less, {} in all (`leakline leaks` does)",
            blocks(sites as u64),
            bytes(risen)
        );
        canvas.put(4, y as u16, area.width.saturating_sub(4), &text, theme.dim);
    }
}
