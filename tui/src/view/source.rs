//! Lines of a source file, with bytes beside them.

use leakline_analysis::report::{blocks, bytes};
use ratatui::style::Style;

use super::canvas::{Canvas, cut_start};
use crate::state::data::SourceOrigin;
use crate::state::layout::Area;
use crate::state::{Phase, State};
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    let view = &state.source;
    let text = &view.text;
    let Some(file) = &text.file else {
        if state.phase == Phase::Ready && !state.waiting {
            let why = "no stack of this recording has a source line";
            canvas.put(1, body.y, body.width, why, theme.dim);
        }
        return;
    };
    // Columns: live of its own, blocks, with all that it called, number.
    let is_wide = body.width >= 60;
    let number = match body.width {
        60.. => 40,
        40.. => 17,
        // The line's number is in the foot.
        _ => 9,
    };
    let mut area = body;
    if body.height >= 4 {
        canvas.put_right(11, body.y, 10, "live", theme.dim);
        if is_wide {
            canvas.put_right(21, body.y, 9, "blocks", theme.dim);
            canvas.put_right(33, body.y, 11, "with calls", theme.dim);
        }
        if number > 9 {
            canvas.put_right(number, body.y, 6, "line", theme.dim);
        }
        let from = match text.from {
            SourceOrigin::Recording => "",
            SourceOrigin::File => "  (from the file)",
            SourceOrigin::Changed => "  (recorded text: the file has changed)",
            SourceOrigin::Nowhere => "  (its text is not known)",
        };
        let room = body.width.saturating_sub(number + 2);
        let name = cut_start(file, usize::from(room).saturating_sub(from.len()));
        let x = canvas.put(number + 2, body.y, room, &name, theme.strong);
        canvas.put(x, body.y, room, from, theme.dim);
        area = body.below(1);
    }
    let filter = (!state.search.is_empty()).then(|| leakline_analysis::Filter::new(&state.search));
    let most = text
        .lines
        .iter()
        .map(|line| line.own.live_bytes)
        .max()
        .unwrap_or(0);
    let mut before: Option<u32> = None;
    let rows = text.lines.iter().enumerate().skip(view.list.first);
    for (y, (at, line)) in (area.y..area.y + area.height).zip(rows) {
        let is_selected = at == view.list.selected;
        if is_selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        let own = line.own.live_bytes;
        if own > 0 {
            let style = if own == most { theme.bad } else { Style::new() };
            let end = if number > 9 { 11 } else { 10 };
            canvas.put_right(end, y, 9, &bytes(own.cast_unsigned()), style);
            if is_wide {
                let count = u64::try_from(line.own.live_blocks).unwrap_or(0);
                canvas.put_right(21, y, 9, &blocks(count), theme.dim);
            }
        }
        if is_wide && line.total_bytes > 0 {
            let total = bytes(line.total_bytes.cast_unsigned());
            canvas.put_right(33, y, 11, &total, theme.dim);
        }
        // A gap in what is known of the file.
        let gap = before.is_some_and(|before| before + 1 != line.line);
        before = Some(line.line);
        let style = if gap { theme.key } else { theme.dim };
        if number > 9 {
            canvas.put_right(number, y, 6, &line.line.to_string(), style);
        }
        let x = number + 2;
        let room = body.width.saturating_sub(x);
        match &line.text {
            Some(text) => {
                let mut style = if own > 0 || line.total_bytes > 0 {
                    theme.strong
                } else {
                    Style::new()
                };
                if filter.as_ref().is_some_and(|filter| filter.matches(text)) {
                    style = style.patch(theme.found);
                }
                // Where there is little room it is not for indentation.
                let text = if number > 9 { text } else { text.trim_start() };
                canvas.put(x, y, room, text, style);
            }
            None => {
                canvas.put(x, y, room, "…", theme.dim);
            }
        }
        if is_selected {
            canvas.paint(0, y, body.width, theme.selected);
        }
    }
}
