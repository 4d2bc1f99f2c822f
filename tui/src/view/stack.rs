//! A site's stack, the innermost frame first.

use leakline_analysis::report::counted;

use super::canvas::Canvas;
use super::frame_parts;
use crate::state::State;
use crate::state::layout::Area;
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    let Some(stack) = &state.stack else {
        return;
    };
    let Some(frames) = &stack.frames else {
        return;
    };
    let text = format!(
        "stack of {}, the one that allocated first; bold is your code",
        counted(frames.len() as u64, "frame", "frames")
    );
    canvas.put(1, body.y, body.width, &text, theme.dim);
    let area = if body.height > 1 { body.below(1) } else { body };
    let rows = frames.iter().enumerate().skip(stack.list.first);
    for (y, (at, frame)) in (area.y..area.y + area.height).zip(rows) {
        let is_selected = at == stack.list.selected;
        canvas.paint(0, y, body.width, ratatui::style::Style::new());
        if is_selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        canvas.put_right(4, y, 3, &at.to_string(), theme.dim);
        let mark = if frame.own { "•" } else { " " };
        canvas.put(5, y, 1, mark, theme.own);
        let room = body.width.saturating_sub(8);
        let mut parts = frame_parts(frame, room.into(), theme);
        if frame.own
            && let Some(name) = parts.first_mut()
        {
            name.1 = name.1.patch(theme.strong);
        }
        let x = canvas.put_parts(7, y, room, &parts);
        if !frame.python && frame.file.is_empty() {
            let left = body.width.saturating_sub(x + 2);
            canvas.put(x + 2, y, left, "native", theme.dim);
        }
        if is_selected {
            canvas.paint(0, y, body.width, theme.selected);
        }
    }
}
