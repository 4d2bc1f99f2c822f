//! `diff` as text.

use std::io;

use super::closing::next_commands;
use super::columns::Column;
use super::heading::{instants, trust, when};
use super::naming::{frame_words, noun};
use super::top::{row_cell, table_of, your_code_cell};
use super::{NARROW, WIDE};
use crate::diff::{Change, Diff, DiffRow, Survived};
use crate::figures::{Measure, Unit};
use crate::instant::clock;
use crate::matching::Matched;
use crate::model::Model;
use crate::report::json::DiffSide;
use crate::report::table::{BOLD, Cell, DIM, Style, Table, WARN};
use crate::report::words::{blocks, bytes, bytes_within, counted, duration, signed_blocks};
use crate::stack::Stacks;
use crate::top::GroupBy;

/// Writes `diff`; `before` is the earlier recording, of two.
pub fn diff(
    before: Option<&DiffSide<'_, '_>>,
    after: &DiffSide<'_, '_>,
    diff: &Diff,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let sum = &diff.sum;
    let between = match before {
        None => when(after.model, after.span),
        Some(side) => format!(
            "from {} {} to {} {}",
            side.model.origin().file,
            when(side.model, side.span),
            after.model.origin().file,
            when(after.model, after.span),
        ),
    };
    let answer = format!(
        "live memory {} by {} ({} blocks) {between}: {}",
        if sum.delta_bytes < 0 { "fell" } else { "grew" },
        bytes_within(
            sum.delta_bytes.unsigned_abs(),
            sum.error(Measure::Growth, Unit::Bytes),
            style.boxes
        ),
        signed_blocks(sum.delta_blocks),
        tallies(diff)
    );
    style.wrapped(out, BOLD, 6, &answer)?;
    if let Some(side) = before {
        trust(side.model, "before: ", style, out)?;
        trust(after.model, "after: ", style, out)?;
        let both = format!(
            "instants: {} and {}",
            clock(side.model, side.span.to().resolved_ns()),
            clock(after.model, after.span.to().resolved_ns())
        );
        style.wrapped(out, DIM, 10, &both)?;
        style.wrapped(out, DIM, 10, &pairs(diff))?;
    } else {
        trust(after.model, "", style, out)?;
        instants(after.model, after.span, style, out)?;
    }
    if diff.rows.is_empty() {
        return writeln!(out, "\nNothing to show: nothing that matches has changed.");
    }
    writeln!(out)?;
    table(before, after, diff, style).write(out, style)?;
    let next = match before {
        Some(_) => [
            ("tree", "who called, after"),
            ("diff --survivors --from start", "what stayed"),
        ],
        None => [
            ("tree --from start", "who called"),
            (
                "diff --survivors --from start",
                "what stayed of what was born",
            ),
        ],
    };
    next_commands(after.model, &next, style, out)
}

/// `3 sites grew by 1.5 MiB, 1 is new with 0.2 MiB, 2 shrank by 0.4 MiB`.
fn tallies(diff: &Diff) -> String {
    let (one, many) = noun(diff.query.by);
    let mut words = Vec::new();
    for change in Change::ALL {
        let tally = diff.tallies[change as usize];
        if tally.rows == 0 {
            continue;
        }
        // The noun stands once.
        let rows = if words.is_empty() {
            counted(tally.rows as u64, one, many)
        } else {
            blocks(tally.rows as u64)
        };
        let amount = bytes(tally.bytes.unsigned_abs());
        let is = if tally.rows == 1 { "is" } else { "are" };
        words.push(match change {
            Change::Grew => format!("{rows} grew by {amount}"),
            Change::New => format!("{rows} {is} new with {amount}"),
            Change::Shrank => format!("{rows} shrank by {amount}"),
            Change::Gone => format!("{rows} {is} gone with {amount}"),
        });
    }
    if words.is_empty() {
        format!("no {one} changed")
    } else {
        words.join(", ")
    }
}

/// What was done to see the same in two recordings.
fn pairs(diff: &Diff) -> String {
    let mut words = vec![
        "rows are matched by function, file and line, and where lines moved, by their text"
            .to_owned(),
    ];
    for rename in diff.renames.iter().take(3) {
        words.push(format!("{} was {} before", rename.to, rename.from));
    }
    if diff.renames.len() > 3 {
        words.push(format!("{} more were renamed", diff.renames.len() - 3));
    }
    for moved in diff.moves.iter().take(2) {
        words.push(format!("{} was {} before", moved.to, moved.from));
    }
    if diff.moves.len() > 2 {
        words.push(format!("{} more files have moved", diff.moves.len() - 2));
    }
    words.join("; ")
}

fn table(
    before: Option<&DiffSide<'_, '_>>,
    after: &DiffSide<'_, '_>,
    diff: &Diff,
    style: Style,
) -> Table {
    let by = diff.query.by;
    let wide = style.width >= WIDE;
    let two_frames = matches!(by, GroupBy::Site | GroupBy::Line | GroupBy::Function);
    let figures: &[&'static str] = if style.width < NARROW {
        &["change"]
    } else {
        &["change", "blocks", "before", "after", ""]
    };
    let texts: &[&'static str] = match by {
        _ if two_frames && wide => &["made in", "your code"],
        _ if two_frames => &["made in"],
        by => &[noun(by).0],
    };
    let mut table = Table::new(figures, texts);
    for row in &diff.rows {
        let sums = &row.row.figures;
        let now = u64::try_from(sums.live_bytes).unwrap_or(0);
        let mut cells = vec![
            Column::Growth.cell_within(sums, style),
            Cell::Figure(signed_blocks(sums.delta_blocks)),
            Cell::Figure(bytes(row.before.bytes)),
            Cell::Figure(bytes(now)),
            Cell::Figure(row.change.name().into()),
        ];
        cells.truncate(figures.len());
        let is_only_before = row.change == Change::Gone && row.was.is_none();
        match before.filter(|_| is_only_before) {
            Some(side) => name(side.stacks, by, row, wide && two_frames, &mut cells),
            None => name(after.stacks, by, row, wide && two_frames, &mut cells),
        }
        table.row(cells);
        if let (Some(was), Some(matched), Some(side)) = (&row.was, row.matched, before)
            && matched != Matched::Stack
            && two_frames
            && let Some(made_in) = was.head.made_in
        {
            let (function, place) = frame_words(side.stacks, made_in);
            let here = row.row.head.made_in.map(|id| frame_words(after.stacks, id));
            // Elsewhere in the stack, it may have changed as well.
            if here.as_ref() != Some(&(function.clone(), place.clone())) {
                table.below(Cell::Named(format!("  was {function}"), place));
            }
        }
    }
    let left_out = diff.total_rows - diff.rows.len();
    if left_out > 0 {
        let (one, many) = noun(by);
        let mut cells = vec![
            Column::Growth.cell_within(&diff.rest, style),
            Cell::Figure(signed_blocks(diff.rest.delta_blocks)),
            Cell::Figure(String::new()),
            Cell::Figure(String::new()),
            Cell::Figure(String::new()),
        ];
        cells.truncate(figures.len());
        let left_out = counted(left_out as u64, one, many);
        cells.push(Cell::Text(format!("rest: {left_out}")));
        table.row(cells);
    }
    table
}

fn name(stacks: &Stacks<'_>, by: GroupBy, row: &DiffRow, with_code: bool, cells: &mut Vec<Cell>) {
    cells.push(row_cell(stacks, by, &row.row));
    if with_code {
        cells.push(your_code_cell(stacks, row.row.head));
    }
}

/// Writes `diff --survivors`.
pub fn survived<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    survived: &Survived,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let top = &survived.top;
    let after = |ns: u64| {
        if ns == 0 {
            "the start".to_owned()
        } else {
            format!("+{}", duration(ns))
        }
    };
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let answer = format!(
        "{} in {} born from {} to {} are alive at {}, in {}; {} in {} were born",
        bytes(positive(top.sum.live_bytes)),
        counted(positive(top.sum.live_blocks), "block", "blocks"),
        after(survived.from_ns),
        after(survived.to_ns),
        after(survived.alive_ns),
        counted(
            top.total_rows as u64,
            noun(top.query.by).0,
            noun(top.query.by).1
        ),
        bytes(survived.born.bytes),
        counted(survived.born.blocks, "block", "blocks"),
    );
    style.wrapped(out, BOLD, 6, &answer)?;
    trust(model, "", style, out)?;
    let text = format!(
        "instants: born {}-{}, alive at {}; the nearest that tell all births apart",
        clock(model, survived.from_ns),
        clock(model, survived.to_ns),
        clock(model, survived.alive_ns)
    );
    style.wrapped(out, DIM, 10, &text)?;
    if survived.verified_from_ns > survived.from_ns {
        let text = format!(
            "blocks born before {} may have died unseen: events were lost",
            clock(model, survived.verified_from_ns)
        );
        style.wrapped(out, WARN, 6, &text)?;
    }
    if top.rows.is_empty() {
        return writeln!(out, "\nNothing to show: nothing that matches survived.");
    }
    writeln!(out)?;
    let columns = [
        Column::Live,
        Column::LiveBlocks,
        Column::Born,
        Column::BornBlocks,
    ];
    table_of(model, stacks, top, &columns, style).write(out, style)?;
    let next = [
        ("tree --from start", "who called"),
        ("diff --from start", "what grew and what shrank"),
    ];
    next_commands(model, &next, style, out)
}
