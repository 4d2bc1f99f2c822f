//! Who called whom, to open and close.

use leakline_analysis::report::{blocks, bytes};

use super::canvas::{Canvas, Part, width};
use super::words::percent;
use super::{frame_parts, nothing_live};
use crate::state::State;
use crate::state::data::CallTree;
use crate::state::layout::Area;
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    let view = state.shown_calls();
    let mut area = body;
    let is_wide = body.width >= 60;
    if body.height >= 4 {
        canvas.put_right(11, body.y, 10, "live", theme.dim);
        let mut x = 13;
        if is_wide {
            canvas.put_right(17, body.y, 6, "% ", theme.dim);
            canvas.put_right(28, body.y, 10, "own", theme.dim);
            x = 30;
        }
        let head = if state.is_inverted {
            "allocated in, called by (i: from main inwards)"
        } else {
            "called from main inwards (i: from the allocating function)"
        };
        canvas.put(x, body.y, body.width.saturating_sub(x), head, theme.dim);
        area = body.below(1);
    }
    let rows = view.visible();
    if rows.is_empty() {
        nothing_live(state, theme, canvas, area);
        return;
    }
    let calls = &view.tree.calls;
    let selected = view
        .find(view.selected)
        .filter(|at| rows.contains(at))
        .unwrap_or(rows[0]);
    let filter = (!state.search.is_empty()).then(|| leakline_analysis::Filter::new(&state.search));
    let mut y = area.y;
    let end = area.y + area.height;
    for &at in rows.iter().skip(view.first) {
        if y >= end {
            break;
        }
        let call = &calls[at];
        let of = |value: i64| u64::try_from(value).unwrap_or(0);
        if at == selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        canvas.put_right(
            11,
            y,
            10,
            &bytes(of(call.bytes)),
            ratatui::style::Style::new(),
        );
        let mut x = 13;
        if is_wide {
            let share = call.bytes as f64 / view.tree.bytes.max(1) as f64;
            canvas.put_right(17, y, 6, &percent(share), theme.dim);
            if call.own > 0 {
                canvas.put_right(28, y, 10, &bytes(of(call.own)), theme.dim);
            }
            x = 30;
        }
        let is_open = view.open.contains(&call.key);
        let sign = match (call.has_calls, is_open) {
            (true, true) => "▾ ",
            (true, false) => "▸ ",
            (false, _) => "  ",
        };
        // Deep paths keep room for their names.
        let room = usize::from(body.width.saturating_sub(x));
        let most = room / 2;
        let depth = usize::from(call.depth);
        let indent = if depth > most {
            format!(
                "{}{depth}·",
                "·".repeat(most.saturating_sub(width(&depth.to_string()) + 1))
            )
        } else {
            "│".repeat(depth)
        };
        let mut parts = vec![
            Part(indent.clone(), theme.dim),
            Part(sign.into(), theme.key),
        ];
        let left = room.saturating_sub(width(&indent) + 2);
        parts.extend(frame_parts(&call.frame, left, theme));
        if let Some(filter) = &filter
            && filter.matches(&call.frame.function)
        {
            // Its name, where there was room for one.
            if let Some(name) = parts.get_mut(2) {
                name.1 = name.1.patch(theme.found);
            }
        }
        canvas.put_parts(x, y, body.width.saturating_sub(x), &parts);
        if at == selected {
            canvas.paint(0, y, body.width, theme.selected);
        }
        y += 1;
    }
    if y < end && view.tree.left_out > 0 {
        let text = format!("and {} lighter calls", blocks(view.tree.left_out as u64));
        canvas.put(13, y, body.width, &text, theme.dim);
        y += 1;
    }
    if y < end
        && let Some(text) = left_out_sites(&view.tree)
    {
        canvas.put(13, y, body.width, &text, theme.dim);
    }
}

/// What sites there are whose calls were not looked at.
pub(super) fn left_out_sites(tree: &CallTree) -> Option<String> {
    let (sites, held) = tree.left_out_sites;
    let held = u64::try_from(held).unwrap_or(0);
    (sites > 0).then(|| {
        let sites = blocks(sites as u64);
        format!("without {sites} lesser sites, {}", bytes(held))
    })
}
