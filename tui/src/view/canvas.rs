//! Cells to write on: what does not fit is cut, and nothing panics.

use ratatui::buffer::Buffer;
use ratatui::style::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// See the module.
pub(crate) struct Canvas<'b> {
    buffer: &'b mut Buffer,
}

/// A piece of text in one style.
#[derive(Clone, Debug)]
pub(crate) struct Part(pub(crate) String, pub(crate) Style);

impl<'b> Canvas<'b> {
    pub(crate) fn new(buffer: &'b mut Buffer) -> Self {
        Canvas { buffer }
    }

    pub(crate) fn columns(&self) -> u16 {
        self.buffer.area.width
    }

    pub(crate) fn rows(&self) -> u16 {
        self.buffer.area.height
    }

    /// Writes text in at most `room` columns; returns the column after it.
    pub(crate) fn put(&mut self, x: u16, y: u16, room: u16, text: &str, style: Style) -> u16 {
        if y >= self.rows() || x >= self.columns() {
            return x;
        }
        let room = room.min(self.columns() - x);
        let (end, _) = self.buffer.set_stringn(x, y, text, room.into(), style);
        end
    }

    /// Writes text that ends before a column.
    pub(crate) fn put_right(&mut self, end: u16, y: u16, room: u16, text: &str, style: Style) {
        let text_width = (width(text) as u16).min(room);
        self.put(end.saturating_sub(text_width), y, text_width, text, style);
    }

    /// Writes pieces one after the other.
    pub(crate) fn put_parts(&mut self, x: u16, y: u16, room: u16, parts: &[Part]) -> u16 {
        let mut at = x;
        for Part(text, style) in parts {
            let left = room.saturating_sub(at - x);
            at = self.put(at, y, left, text, *style);
        }
        at
    }

    /// A line across.
    pub(crate) fn rule(&mut self, x: u16, y: u16, length: u16, style: Style) {
        let end = x.saturating_add(length).min(self.columns());
        for x in x..end {
            self.put(x, y, 1, "─", style);
        }
    }

    /// Adds a style to a row of cells.
    pub(crate) fn paint(&mut self, x: u16, y: u16, length: u16, style: Style) {
        let end = x.saturating_add(length).min(self.columns());
        for x in x..end {
            if let Some(cell) = self.buffer.cell_mut((x, y)) {
                cell.set_style(style);
            }
        }
    }
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The first columns of a text.
fn head(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// The last columns of a text.
fn tail(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

/// `load_sess~` of `load_session`.
pub(crate) fn cut_end(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    match columns {
        0 => String::new(),
        _ => format!("{}~", head(text, columns - 1)),
    }
}

/// `~/views.py:12` of `app/long/views.py:12`.
pub(crate) fn cut_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    match columns {
        0 => String::new(),
        _ => format!("~{}", tail(text, columns - 1)),
    }
}

/// `_call_wit~es_removed` of `_call_with_frames_removed`.
pub(crate) fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    match columns {
        0 => String::new(),
        1..6 => cut_end(text, columns),
        _ => {
            let first = (columns - 1) / 2;
            format!("{}~{}", head(text, first), tail(text, columns - 1 - first))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_they_matter_least() {
        assert_eq!(cut_end("load_session", 6), "load_~");
        assert_eq!(cut_start("app/views.py:12", 9), "~ws.py:12");
        assert_eq!(cut_middle("_call_with_frames_removed", 11), "_call~moved");
        assert_eq!(cut_middle("abc", 3), "abc");
        assert_eq!(cut_end("abc", 0), "");
        // Wide letters take two columns.
        assert_eq!(cut_end("漢字漢字", 5), "漢字~");
        assert_eq!(cut_middle("漢字漢字漢字", 7), "漢~字");
    }
}
