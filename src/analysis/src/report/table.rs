//! Lines and tables that fit a width.
//!
//! Widths are columns of a terminal, as `unicode-width` counts them. Control
//! characters, which names in a recording may hold, never reach the output.

use std::borrow::Cow;
use std::io;

use anstyle::Style as Paint;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a text report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns to fill.
    pub width: usize,
    /// Colour, which only repeats what the words say.
    pub colour: bool,
    /// Line-drawing and block characters.
    pub boxes: bool,
}

/// What answers.
pub const BOLD: Paint = Paint::new().bold();
/// What goes with the answer.
pub const DIM: Paint = Paint::new().dimmed();
/// What takes something from it.
pub const WARN: Paint = anstyle::AnsiColor::Yellow.on_default();

impl Style {
    /// `text` in `paint`, where there is colour.
    pub fn paint(self, paint: Paint, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{paint}{text}{paint:#}")
        } else {
            text.to_owned()
        }
    }

    /// Writes `text`, broken at spaces to fit, each further line indented by
    /// `indent`.
    pub fn wrapped(
        self,
        out: &mut dyn io::Write,
        paint: Paint,
        indent: usize,
        text: &str,
    ) -> io::Result<()> {
        let text = printable(text);
        let words = text.trim_start_matches(' ');
        let mut columns = text.len() - words.len();
        let mut line = " ".repeat(columns);
        let mut begins = true;
        for word in words.split(' ') {
            let width = word.width();
            if !begins && columns + 1 + width > self.width {
                writeln!(out, "{}", self.paint(paint, line.trim_end()))?;
                line = " ".repeat(indent);
                columns = indent;
            } else if !begins {
                line.push(' ');
                columns += 1;
            }
            begins = false;
            line.push_str(word);
            columns += width;
        }
        writeln!(out, "{}", self.paint(paint, &line))
    }
}

/// `text` without control characters: safe to show on a terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

/// `text` in at most `width` columns, cut in the middle with `~`.
pub(crate) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    let text = printable(text);
    if text.width() <= width {
        return text;
    }
    if width <= 1 {
        return if width == 0 { "".into() } else { "~".into() };
    }
    // The end of a name (a line, the method of a class) tells more.
    let head_width = (width - 1) / 2;
    let tail_width = width - 1 - head_width;
    let head = fitting(text.chars(), head_width);
    let tail: Vec<char> = fitting(text.chars().rev(), tail_width)
        .chars()
        .rev()
        .collect();
    let mut cut = head;
    cut.push('~');
    cut.extend(tail);
    cut.into()
}

/// `text` in at most `width` columns, cut at its end with `~`.
fn cut_end(text: &str, width: usize) -> Cow<'_, str> {
    let text = printable(text);
    if text.width() <= width {
        return text;
    }
    let mut cut = fitting(text.chars(), width.saturating_sub(1));
    if width > 0 {
        cut.push('~');
    }
    cut.into()
}

/// As many of `chars` as fit.
fn fitting(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut columns = 0;
    chars
        .take_while(|c| {
            columns += c.width().unwrap_or(0);
            columns <= width
        })
        .collect()
}

/// `text` filled with spaces on the right to `width` columns.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// A function and its place, in at most `width` columns: of the two, the
/// longer is cut first.
pub(crate) fn named(function: &str, place: &str, width: usize) -> String {
    if place.is_empty() {
        return cut(function, width).into_owned();
    }
    let (function, place) = (printable(function), printable(place));
    let (of_function, of_place) = (function.width(), place.width());
    if of_function + 1 + of_place <= width {
        return format!("{function} {place}");
    }
    let room = width.saturating_sub(1);
    let half = room / 2;
    let (of_function, of_place) = if of_function <= half {
        (of_function, room - of_function)
    } else if of_place <= half {
        (room - of_place, of_place)
    } else {
        (half, room - half)
    };
    if of_function == 0 {
        return cut(&place, width).into_owned();
    }
    format!("{} {}", cut(&function, of_function), cut(&place, of_place))
}

/// What a cell holds.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A figure, to the right.
    Figure(String),
    /// Text, to the left, cut in the middle where it does not fit.
    Text(String),
    /// Text, to the left, cut at its end where it does not fit.
    Line(String),
    /// A function and its place.
    Named(String, String),
}

impl Cell {
    fn width(&self) -> usize {
        match self {
            Cell::Figure(text) | Cell::Text(text) | Cell::Line(text) => printable(text).width(),
            Cell::Named(function, place) if place.is_empty() => printable(function).width(),
            Cell::Named(function, place) => {
                printable(function).width() + 1 + printable(place).width()
            }
        }
    }

    fn fit(&self, width: usize) -> String {
        match self {
            Cell::Figure(text) => {
                let text = cut(text, width);
                format!("{}{text}", " ".repeat(width - text.width().min(width)))
            }
            Cell::Text(text) => padded(&cut(text, width), width),
            Cell::Line(text) => padded(&cut_end(text, width), width),
            Cell::Named(function, place) => padded(&named(function, place, width), width),
        }
    }
}

/// A table: figures in columns as wide as they need, then texts that share
/// what is left.
#[derive(Clone, Debug)]
pub struct Table {
    headers: Vec<&'static str>,
    /// How many of the columns, from the left, are figures.
    figures: usize,
    rows: Vec<Vec<Cell>>,
    /// Lines below a row, in the first text column.
    below: Vec<Vec<Cell>>,
}

/// Columns between two columns.
const GAP: usize = 2;
/// Narrowest text column that figures do not have to make room for.
const NARROWEST: usize = 24;

impl Table {
    /// An empty one, with the headers of its columns.
    pub fn new(figures: &[&'static str], texts: &[&'static str]) -> Self {
        Table {
            headers: figures.iter().chain(texts).copied().collect(),
            figures: figures.len(),
            rows: Vec::new(),
            below: Vec::new(),
        }
    }

    /// Adds a row, a cell a column. Missing ones stay empty.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
        self.below.push(Vec::new());
    }

    /// Adds a line below the last row, in the first text column.
    pub fn below(&mut self, cell: Cell) {
        if let Some(below) = self.below.last_mut() {
            below.push(cell);
        }
    }

    /// Writes it.
    pub fn write(&self, out: &mut dyn io::Write, style: Style) -> io::Result<()> {
        let mut widths: Vec<usize> = self.headers.iter().map(|header| header.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        for below in self.below.iter().flatten() {
            if let Some(width) = widths.get_mut(self.figures) {
                *width = (*width).max(below.width());
            }
        }
        // Figures go, from the right, until a text has room.
        let mut shown = self.figures;
        let taken = |shown: usize| {
            widths[..shown]
                .iter()
                .map(|width| width + GAP)
                .sum::<usize>()
        };
        while shown > 1 && taken(shown) + NARROWEST > style.width {
            shown -= 1;
        }
        let indent = taken(shown);
        let room = style.width.saturating_sub(indent);
        share(&mut widths[self.figures..], room);

        let columns: Vec<usize> = (0..shown).chain(self.figures..self.headers.len()).collect();
        let mut line = String::new();
        for &column in &columns {
            let header = self.headers[column].to_owned();
            let cell = if column < self.figures {
                Cell::Figure(header)
            } else {
                Cell::Text(header)
            };
            line.push_str(&cell.fit(widths[column]));
            line.push_str("  ");
        }
        writeln!(out, "{}", style.paint(DIM, line.trim_end()))?;
        for (row, below) in self.rows.iter().zip(&self.below) {
            line.clear();
            for &column in &columns {
                match row.get(column) {
                    Some(cell) => line.push_str(&cell.fit(widths[column])),
                    None => line.push_str(&" ".repeat(widths[column])),
                }
                line.push_str("  ");
            }
            writeln!(out, "{}", line.trim_end())?;
            let width = widths.get(self.figures).copied().unwrap_or(0);
            for cell in below {
                let indent = " ".repeat(indent);
                let text = cell.fit(width);
                writeln!(
                    out,
                    "{}",
                    style.paint(DIM, format!("{indent}{text}").trim_end())
                )?;
            }
        }
        Ok(())
    }
}

/// Cuts the wishes of text columns down to `room` columns in all: those that
/// want less than an even share get it, the others share the rest.
fn share(widths: &mut [usize], room: usize) {
    let gaps = widths.len().saturating_sub(1) * GAP;
    let mut room = room.saturating_sub(gaps);
    let mut order: Vec<usize> = (0..widths.len()).collect();
    order.sort_by_key(|&column| widths[column]);
    for (served, &column) in order.iter().enumerate() {
        let even = room / (order.len() - served);
        widths[column] = widths[column].min(even);
        room -= widths[column];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_in_the_middle() {
        assert_eq!(cut("load_session_from_disk", 12), "load_~m_disk");
        assert_eq!(cut("short", 12), "short");
        assert_eq!(cut("anything", 1), "~");
        assert_eq!(cut("anything", 0), "");
        assert_eq!(cut("日本語日本語", 7), "日~語");
        assert_eq!(cut("a\x1b[31mb\n", 20), "a?[31mb?");
    }

    #[test]
    fn of_a_name_and_its_place_the_longer_is_cut() {
        assert_eq!(named("main", "app/main.py:12", 30), "main app/main.py:12");
        assert_eq!(
            named("main", "app/a_very_long_name.py:12", 20),
            "main app/a_v~e.py:12"
        );
        assert_eq!(
            named("a_very_long_function", "main.py:1", 20),
            "a_ve~ction main.py:1"
        );
        for width in 0..30 {
            let text = named("a_very_long_function", "app/a_very_long_name.py:12", width);
            assert!(text.width() <= width, "{width}: {text}");
        }
    }

    #[test]
    fn texts_share_what_figures_leave() {
        let mut widths = [10, 50, 50];
        share(&mut widths, 74);
        assert_eq!(widths, [10, 30, 30]);
    }

    #[test]
    fn words_wrap() {
        let style = Style {
            width: 12,
            colour: false,
            boxes: false,
        };
        let mut out = Vec::new();
        style
            .wrapped(&mut out, BOLD, 2, "one two three four")
            .unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one two\n  three four\n");
    }
}
