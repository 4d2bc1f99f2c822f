//! `top` as text.

use std::io;

use super::WIDE;
use super::closing::next_commands;
use super::columns::{Column, cells, columns};
use super::heading::{answer, head};
use super::naming::{frame_cell, frame_words, noun};
use crate::figures::{Figures, Measure};
use crate::model::Model;
use crate::report::table::{Cell, Style, Table};
use crate::report::words::{bytes, counted};
use crate::stack::{Head, Stacks};
use crate::top::{GroupBy, Row, Top};

/// Writes `top`.
pub fn top<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    top: &Top,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let query = &top.query;
    let answer = format!(
        "{}, in {}",
        answer(model, &query.span, query.measure, &top.sum, style),
        counted(top.total_rows as u64, noun(query.by).0, noun(query.by).1)
    );
    head(model, &query.span, &answer, style, out)?;
    if top.rows.is_empty() {
        return writeln!(out, "\nNothing to show: no allocation matches.");
    }
    writeln!(out)?;
    rows_table(model, stacks, top, style).write(out, style)?;
    let is_by_address = |row: &Row| row.page_bytes.is_some_and(|pages| !pages.1);
    if style.width >= WIDE && top.rows.iter().any(is_by_address) {
        writeln!(
            out,
            "\npages: all that blocks lie in; which of them were resident is not known of all"
        )?;
    }
    let next = match query.by {
        GroupBy::Thread => [("top --by process", "by process"), ("summary", "in short")],
        _ if query.measure == Measure::Peak => [
            ("tree --at peak", "who called"),
            ("top --by line --sort peak", "by line"),
        ],
        _ => [
            ("tree", "who called"),
            ("top --sort peak", "at the high-water mark"),
        ],
    };
    next_commands(model, &next, style, out)
}

pub(super) fn rows_table<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    top: &Top,
    style: Style,
) -> Table {
    let compared = top.query.span.from().is_some();
    table_of(
        model,
        stacks,
        top,
        &columns(top.query.measure, compared, style),
        style,
    )
}

/// The same with these columns of figures.
pub(super) fn table_of<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    top: &Top,
    columns: &[Column],
    style: Style,
) -> Table {
    let query = &top.query;
    let wide = style.width >= WIDE;
    let row_cells = |figures: &Figures| -> Vec<Cell> {
        let mut cells = cells(columns, figures, style);
        for (cell, column) in cells.iter_mut().zip(columns) {
            if query.by == GroupBy::Thread && matches!(column, Column::Peak | Column::PeakBlocks) {
                *cell = Cell::Figure("-".into());
            }
        }
        cells
    };
    let two_frames = matches!(query.by, GroupBy::Site | GroupBy::Line | GroupBy::Function);
    let texts: &[&'static str] = match query.by {
        _ if two_frames && wide => &["made in", "your code"],
        _ if two_frames => &["made in"],
        by => &[noun(by).0],
    };
    let mut headers: Vec<&'static str> = columns.iter().map(|column| column.header()).collect();
    let has_pages = wide && top.rows.iter().any(|row| row.page_bytes.is_some());
    if has_pages {
        headers.push("pages");
    }
    let pages = |page_bytes: Option<u64>| {
        has_pages.then(|| Cell::Figure(page_bytes.map_or_else(|| "-".into(), bytes)))
    };
    let mut table = Table::new(&headers, texts);
    for row in &top.rows {
        let mut cells = row_cells(&row.figures);
        cells.extend(pages(row.page_bytes.map(|pages| pages.0)));
        cells.push(row_cell(stacks, query.by, row));
        if two_frames && wide {
            cells.push(your_code_cell(stacks, row.head));
            table.row(cells);
        } else {
            table.row(cells);
            if let Some(own) = row.head.your_code
                && two_frames
                && row.head.made_in != row.head.your_code
            {
                let (function, place) = frame_words(stacks, own);
                table.below(Cell::Named(format!("  your code: {function}"), place));
            }
        }
        if query.by == GroupBy::Process
            && let Some(facts) = row
                .processes
                .first()
                .and_then(|&id| model.processes().get(id as usize))
            && facts.inherited.1 > 0
            && facts.end.is_none()
        {
            let inherited = bytes(facts.inherited.0);
            table.below(Cell::Text(format!("  and {inherited} inherited by fork")));
        }
    }
    let left_out = top.total_rows - top.rows.len();
    if left_out > 0 {
        let mut cells = row_cells(&top.rest);
        cells.extend(pages(None));
        let (one, many) = noun(query.by);
        cells.push(Cell::Text(format!(
            "rest: {}",
            counted(left_out as u64, one, many)
        )));
        table.row(cells);
    }
    table
}

pub(super) fn row_cell(stacks: &Stacks<'_>, by: GroupBy, row: &Row) -> Cell {
    match (by, row.head.made_in) {
        (GroupBy::Site, Some(made_in)) => frame_cell(stacks, made_in),
        (GroupBy::Line, Some(made_in)) => {
            let (function, place) = frame_words(stacks, made_in);
            if place.is_empty() {
                Cell::Text(function)
            } else {
                Cell::Named(place, function)
            }
        }
        (GroupBy::Function, Some(made_in)) => {
            let (function, place) = frame_words(stacks, made_in);
            let file = place
                .rsplit_once(':')
                .map_or(place.as_str(), |(file, _)| file);
            Cell::Named(function, file.to_owned())
        }
        _ if row.label.is_empty() => Cell::Text("not known".into()),
        _ => Cell::Text(row.label.clone()),
    }
}

pub(super) fn your_code_cell(stacks: &Stacks<'_>, head: Head) -> Cell {
    match head.your_code {
        None => Cell::Text("-".into()),
        own if own == head.made_in => Cell::Text("the same".into()),
        Some(own) => frame_cell(stacks, own),
    }
}
