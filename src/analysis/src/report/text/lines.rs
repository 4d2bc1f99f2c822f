//! `lines` as text.

use std::io;

use super::WIDE;
use super::closing::{next_commands, quoted};
use super::heading::{answer, head};
use super::top::{figure_cells, figure_headers};
use crate::figures::Measure;
use crate::lines::{Lines, SourceFrom};
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
    /// Lines shown around one that allocated.
    const AROUND: u32 = 2;
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
        answer(model, &query.span, measure, &lines.sum),
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

    let compared = query.span.from().is_some();
    let wide = style.width >= WIDE;
    let mut headers = figure_headers(measure, compared, wide);
    // The number keeps its place beside the text, whatever else goes.
    let number_width = lines
        .rows
        .iter()
        .map(|row| row.line.to_string().len())
        .max()
        .unwrap_or(1);
    if style.width < WIDE / 2 {
        headers.truncate(1);
    }
    let shown = headers.len();
    let mut table = Table::new(&headers, &["line"]);
    let text = |line: u32, text: Option<&str>| {
        let text = text.unwrap_or_default().replace('\t', "    ");
        Cell::Text(
            format!("{line:>number_width$}  {text}")
                .trim_end()
                .to_owned(),
        )
    };
    let mut last = 0;
    for row in &lines.rows {
        if query.sort.is_none() {
            let from = row.line.saturating_sub(AROUND).max(last + 1);
            if last > 0 && from > last + 1 {
                table.row(empty(shown, Cell::Text("...".into())));
            }
            for (&line, known) in lines.text.range(from..row.line) {
                table.row(empty(shown, text(line, Some(known))));
            }
        }
        let mut cells = figure_cells(&row.figures, measure, compared, wide);
        cells.truncate(shown);
        cells.push(text(row.line, row.text.as_deref()));
        table.row(cells);
        last = row.line;
        if query.sort.is_none() {
            let next = lines
                .rows
                .iter()
                .map(|row| row.line)
                .find(|&line| line > row.line);
            let to = next
                .unwrap_or(u32::MAX)
                .min(row.line.saturating_add(AROUND + 1));
            for (&line, known) in lines.text.range(row.line.saturating_add(1)..to) {
                table.row(empty(shown, text(line, Some(known))));
                last = line;
            }
        }
    }
    let left_out = lines.total_rows - lines.rows.len();
    if left_out > 0 {
        let mut cells = figure_cells(&lines.rest, measure, compared, wide);
        cells.truncate(shown);
        cells.push(Cell::Text(format!(
            "rest: {}",
            counted(left_out as u64, "line", "lines")
        )));
        table.row(cells);
    }
    table.write(out, style)?;
    let filter = format!("top --filter {}", quoted(base_name(&lines.file)));
    let next = [
        ("top --by line", "all files' lines"),
        (filter.as_str(), "with their stacks"),
    ];
    next_commands(model, &next, style, out)
}

/// A row with nothing but a text.
fn empty(figures: usize, text: Cell) -> Vec<Cell> {
    let mut cells: Vec<Cell> = (0..figures).map(|_| Cell::Figure(String::new())).collect();
    cells.push(text);
    cells
}
