//! Calls as an icicle: callers above, calls below, as wide as they are heavy.

use leakline_analysis::report::bytes;

use super::canvas::{Canvas, cut_middle, cut_start, width};
use super::nothing_live;
use super::tree::left_out_sites;
use super::words::percent;
use crate::state::State;
use crate::state::layout::{self, FlameBox};
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>) {
    let (title, area, line) = layout::flame((canvas.columns(), canvas.rows()));
    let view = &state.calls;
    let calls = &view.tree.calls;
    let boxes = layout::flame_boxes(view, area.width);
    let zoom = view.find(view.zoom);
    if let Some(y) = title {
        let mut path = String::from("all");
        let mut at = zoom;
        let mut names = Vec::new();
        while let Some(call) = at {
            names.push(&*calls[call].frame.function);
            at = calls[call].parent.map(|parent| parent as usize);
        }
        for name in names.iter().rev() {
            path.push_str(" › ");
            path.push_str(name);
        }
        if let Some(text) = left_out_sites(&view.tree) {
            path = format!("{text}: {path}");
        }
        let room = usize::from(area.width).saturating_sub(2);
        canvas.put(1, y, area.width, &cut_start(&path, room), theme.dim);
    }
    if boxes.is_empty() {
        nothing_live(state, theme, canvas, area);
        return;
    }
    let selected = view.find(view.selected);
    let filter = (!state.search.is_empty()).then(|| leakline_analysis::Filter::new(&state.search));
    for (index, one) in boxes.iter().enumerate() {
        let Some(row) = one.level.checked_sub(view.first) else {
            continue;
        };
        if row >= usize::from(area.height) {
            continue;
        }
        let (x, y) = (area.x + one.x, area.y + row as u16);
        let (text, is_own, is_found) = match one.call {
            Some(call) => {
                let call = &calls[call];
                let found = filter
                    .as_ref()
                    .is_some_and(|filter| filter.matches(&call.frame.function));
                (label(call, one.width), call.frame.own, found)
            }
            None => (format!("all {}", bytes(of(view.tree.bytes))), false, false),
        };
        let turn = (index + one.level) % 2;
        let mut style = theme.boxes[usize::from(!is_own)][turn];
        if is_found {
            style = style.patch(theme.found);
        }
        let is_selected = one.call == selected && (selected.is_some() || one.call.is_none());
        if is_selected {
            style = theme.strong.patch(theme.selected);
        }
        canvas.paint(x, y, one.width, style);
        // A gap tells boxes apart without colour.
        let room = if one.width > 2 {
            one.width - 1
        } else {
            one.width
        };
        canvas.put(x, y, room, &text, style);
        if one.width > 1 {
            canvas.put(x + one.width - 1, y, 1, "▕", style);
        }
    }
    if let Some(y) = line {
        let here = boxes
            .iter()
            .find(|one| one.call == selected)
            .or(boxes.first());
        let text = described(state, here);
        canvas.put(1, y, area.width.saturating_sub(2), &text, theme.strong);
    }
}

fn of(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn label(call: &crate::state::data::CallRow, room: u16) -> String {
    let room = usize::from(room).saturating_sub(1);
    let name = &call.frame.function;
    let size = bytes(of(call.bytes));
    if width(name) + width(&size) < room {
        format!("{name} {size}")
    } else if room >= 3 {
        cut_middle(name, room)
    } else {
        String::new()
    }
}

fn described(state: &State, here: Option<&FlameBox>) -> String {
    let view = &state.calls;
    let Some(call) = here.and_then(|here| here.call) else {
        return format!("all: {}", bytes(of(view.tree.bytes)));
    };
    let call = &view.tree.calls[call];
    let share = if view.tree.bytes > 0 {
        call.bytes as f64 / view.tree.bytes as f64
    } else {
        0.0
    };
    format!(
        "{} {}   {}, {} of all; own {}",
        call.frame.function,
        call.frame.place,
        bytes(of(call.bytes)),
        percent(share),
        bytes(of(call.own))
    )
}
