//! `lines` as text.

use std::io;

use super::NARROW;
use super::closing::{next_commands, quoted};
use super::columns::{cells, columns};
use super::heading::{answer, head};
use crate::figures::{Figures, Measure};
use crate::lines::{LineRow, Lines, SourceFrom};
use crate::model::Model;
use crate::names::base_name;
use crate::report::table::{Cell, DIM, Style, Table, WARN};
use crate::report::words::counted;

/// Writes `lines`.
pub fn lines(
    model: &Model<'_>,
    lines: &Lines,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let query = &lines.query;
    let measure = query.sort.map_or(
        if query.span.from().is_some() {
            Measure::Growth
        } else {
            Measure::Live
        },
        |(measure, _)| measure,
    );
    let answer = format!(
        "{}: {}, by {}{}",
        base_name(&lines.file),
        answer(model, &query.span, measure, &lines.sum, style),
        counted(lines.total_rows as u64, "line", "lines"),
        if query.inclusive {
            " (with all they called: lines overlap)"
        } else {
            ""
        }
    );
    head(model, &query.span, &answer, style, out)?;
    match lines.source {
        SourceFrom::Nowhere => style.wrapped(
            out,
            DIM,
            6,
            &format!(
                "{}: no text, it is neither in the recording nor here",
                lines.file
            ),
        )?,
        SourceFrom::RecordingOnly => style.wrapped(
            out,
            WARN,
            6,
            &format!("{} has changed since: text from the recording", lines.file),
        )?,
        SourceFrom::Recording | SourceFrom::File => {
            style.wrapped(out, DIM, 6, &lines.file)?;
        }
    }
    if lines.rows.is_empty() {
        return writeln!(out, "\nNothing to show: no line of it allocated.");
    }
    writeln!(out)?;

    let mut columns = columns(measure, query.span.from().is_some(), style);
    if style.width < NARROW {
        columns.truncate(1);
    }
    let row_cells = |figures: Option<&Figures>, text: String| -> Vec<Cell> {
        let mut row = match figures {
            Some(figures) => cells(&columns, figures, style),
            None => columns
                .iter()
                .map(|_| Cell::Figure(String::new()))
                .collect(),
        };
        row.push(Cell::Line(text));
        row
    };
    let headers: Vec<&'static str> = columns.iter().map(|column| column.header()).collect();
    let mut table = Table::new(&headers, &["line"]);
    // The number keeps its place beside the text, whatever else goes.
    let last = lines.rows.iter().map(|row| row.line).max().unwrap_or(0);
    let digits = last.saturating_add(AROUND).to_string().len();
    let text = |line: u32, text: Option<&str>| {
        let text = text.unwrap_or_default().replace('\t', "    ");
        format!("{line:>digits$}  {text}").trim_end().to_owned()
    };
    for entry in entries(lines) {
        table.row(match entry {
            Entry::Row(row) => row_cells(Some(&row.figures), text(row.line, row.text.as_deref())),
            Entry::Context(line, known) => row_cells(None, text(line, Some(known))),
            Entry::Gap => row_cells(None, "...".into()),
        });
    }
    let left_out = lines.total_rows - lines.rows.len();
    if left_out > 0 {
        let words = format!("rest: {}", counted(left_out as u64, "line", "lines"));
        table.row(row_cells(Some(&lines.rest), words));
    }
    table.write(out, style)?;
    let filter = format!("top --filter {}", quoted(base_name(&lines.file)));
    let next = [
        ("top --by line", "all files' lines"),
        (filter.as_str(), "with their stacks"),
    ];
    next_commands(model, &next, style, out)
}

/// Lines shown around one that allocated.
const AROUND: u32 = 2;

/// A line of the table.
enum Entry<'l> {
    /// One that allocated.
    Row(&'l LineRow),
    /// One beside it that did not: its number and text.
    Context(u32, &'l str),
    /// Lines left out.
    Gap,
}

/// The lines that allocated, in the file's order among those around them; or
/// as they are sorted, alone.
fn entries(lines: &Lines) -> Vec<Entry<'_>> {
    if lines.query.sort.is_some() {
        return lines.rows.iter().map(Entry::Row).collect();
    }
    let mut entries = Vec::new();
    let context = |from: u32, to: u32| {
        // A range may not begin after its end.
        let lines = lines.text.range(from.min(to)..to);
        lines.map(|(&line, text)| Entry::Context(line, text))
    };
    let mut shown = None;
    for (at, row) in lines.rows.iter().enumerate() {
        let next = lines.rows.get(at + 1).map_or(u32::MAX, |next| next.line);
        let before = row.line.saturating_sub(AROUND).max(1);
        let from = match shown {
            Some(shown) if before > shown => {
                entries.push(Entry::Gap);
                before
            }
            Some(shown) => shown,
            None => before,
        };
        entries.extend(context(from, row.line));
        entries.push(Entry::Row(row));
        let after = row.line.saturating_add(1);
        let to = after.saturating_add(AROUND).min(next);
        entries.extend(context(after, to));
        shown = Some(to);
    }
    entries
}
