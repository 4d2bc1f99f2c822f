//! What grew between two instants.

use super::canvas::Canvas;
use super::rows;
use super::words::{BARS, instant};
use crate::state::State;
use crate::state::layout::{self, Area};
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    let strip = body.top(layout::diff_strip((canvas.columns(), canvas.rows())));
    if strip.height >= 1 {
        let facts = &state.facts;
        let (from, to) = (state.diff_at.ns, state.at.ns);
        if strip.height >= 4 {
            let plot = Area {
                x: 1,
                width: strip.width.saturating_sub(2),
                height: 3,
                ..strip
            };
            timeline(state, theme, canvas, plot, (from, to));
        }
        let y = strip.y + strip.height - 1;
        let text = format!("A {}   B {}", instant(facts, from), instant(facts, to));
        let x = canvas.put(1, y, strip.width, &text, theme.key);
        let how = if state.diff_to.is_none() {
            "B goes with the cursor; a b set them where it is"
        } else {
            "a b set them at the cursor"
        };
        let now = format!(
            "   cursor {}   {how}",
            instant(facts, state.ns_of(state.moment))
        );
        canvas.put(x, y, strip.width.saturating_sub(x), &now, theme.dim);
    }
    rows::draw(state, theme, canvas);
}

/// Live bytes, and below them A, B and the cursor.
fn timeline(
    state: &State,
    theme: &Theme,
    canvas: &mut Canvas<'_>,
    area: Area,
    (from, to): (u64, u64),
) {
    let facts = &state.facts;
    let most = facts.times.iter().map(|time| time.max_bytes).max();
    let most = u128::from(most.unwrap_or(0).max(1));
    let mut times = facts.times.iter().peekable();
    let mut live = 0;
    let column = |ns| layout::column_of(ns, area.width, facts.duration_ns);
    let (first, last) = (column(from), column(to));
    for x in 0..area.width {
        let until = layout::instant_of(2 * x + 1, 2 * area.width - 1, facts.duration_ns);
        let until = if x + 1 == area.width { u64::MAX } else { until };
        let mut highest = live;
        while let Some(time) = times.next_if(|time| time.end_ns <= until) {
            highest = highest.max(time.max_bytes);
            live = time.live_bytes;
        }
        let level = (u128::from(highest) * 16).div_ceil(most).min(16) as usize;
        let style = if (first..=last).contains(&x) {
            theme.plot
        } else {
            theme.dim
        };
        canvas.put(area.x + x, area.y, 1, BARS[level.saturating_sub(8)], style);
        canvas.put(area.x + x, area.y + 1, 1, BARS[level.min(8)], style);
    }
    let y = area.y + 2;
    canvas.rule(area.x, y, area.width, theme.dim);
    canvas.put(
        area.x + column(state.ns_of(state.moment)),
        y,
        1,
        "▲",
        theme.key,
    );
    canvas.put(area.x + first, y, 1, "A", theme.key);
    canvas.put(area.x + last, y, 1, "B", theme.key);
}
