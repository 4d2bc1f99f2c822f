//! `top` as text.

use std::io;

use super::WIDE;
use super::closing::next_commands;
use super::heading::{answer, head};
use super::naming::{frame_cell, frame_words, noun};
use crate::figures::{Figures, Measure};
use crate::model::Model;
use crate::report::table::{Cell, Style, Table};
use crate::report::words::{blocks, bytes, counted, signed_blocks, signed_bytes};
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
        answer(model, &query.span, query.measure, &top.sum),
        counted(top.total_rows as u64, noun(query.by).0, noun(query.by).1)
    );
    head(model, &query.span, &answer, style, out)?;
    if top.rows.is_empty() {
        return writeln!(out, "\nNothing to show: no allocation matches.");
    }
    writeln!(out)?;
    rows_table(model, stacks, top, style).write(out, style)?;
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

/// The cells of a row's figures, in the columns of [`figure_headers`].
pub(super) fn figure_cells(
    figures: &Figures,
    measure: Measure,
    compared: bool,
    wide: bool,
) -> Vec<Cell> {
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let live = bytes(positive(figures.live_bytes));
    let total = bytes(figures.total_bytes);
    let cells = if measure == Measure::Temporary {
        vec![
            blocks(figures.temporary_blocks),
            blocks(figures.total_blocks),
            total,
            live,
        ]
    } else if compared {
        let delta = signed_bytes(figures.delta_bytes);
        let mut cells = vec![delta, signed_blocks(figures.delta_blocks), live, total];
        if wide {
            cells.push(blocks(figures.total_blocks));
        }
        cells
    } else {
        let peak = bytes(figures.peak_bytes);
        let mut cells = vec![live, blocks(positive(figures.live_blocks)), peak, total];
        if wide {
            cells.push(blocks(figures.total_blocks));
        }
        cells
    };
    cells.into_iter().map(Cell::Figure).collect()
}

pub(super) fn figure_headers(measure: Measure, compared: bool, wide: bool) -> Vec<&'static str> {
    let mut headers = if measure == Measure::Temporary {
        return vec!["temporary", "blocks", "total", "live"];
    } else if compared {
        vec!["growth", "blocks", "live", "total"]
    } else {
        vec!["live", "blocks", "peak", "total"]
    };
    if wide {
        headers.push("total blocks");
    }
    headers
}

pub(super) fn rows_table<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    top: &Top,
    style: Style,
) -> Table {
    let query = &top.query;
    let wide = style.width >= WIDE;
    let compared = query.span.from().is_some();
    let figures = figure_headers(query.measure, compared, wide);
    let two_frames = matches!(query.by, GroupBy::Site | GroupBy::Line | GroupBy::Function);
    let texts: &[&'static str] = match query.by {
        _ if two_frames && wide => &["made in", "your code"],
        _ if two_frames => &["made in"],
        by => &[noun(by).0],
    };
    let mut table = Table::new(&figures, texts);
    for row in &top.rows {
        let mut cells = figure_cells(&row.figures, query.measure, compared, wide);
        if row.thread.is_some() && query.measure != Measure::Temporary {
            // Not known of a thread.
            cells[2] = Cell::Figure("-".into());
        }
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
        let mut cells = figure_cells(&top.rest, query.measure, compared, wide);
        if query.by == GroupBy::Thread && query.measure != Measure::Temporary {
            cells[2] = Cell::Figure("-".into());
        }
        let (one, many) = noun(query.by);
        cells.push(Cell::Text(format!(
            "rest: {}",
            counted(left_out as u64, one, many)
        )));
        table.row(cells);
    }
    table
}

fn row_cell(stacks: &Stacks<'_>, by: GroupBy, row: &Row) -> Cell {
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

fn your_code_cell(stacks: &Stacks<'_>, head: Head) -> Cell {
    match head.your_code {
        None => Cell::Text("-".into()),
        own if own == head.made_in => Cell::Text("the same".into()),
        Some(own) => frame_cell(stacks, own),
    }
}
