//! `tree` as text.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::NARROW;
use super::closing::next_commands;
use super::columns::Column;
use super::heading::{answer, head};
use super::naming::frame_words;
use crate::figures::{Figures, Measure, Unit};
use crate::model::Model;
use crate::report::table::{Cell, Style, cut, named};
use crate::report::words::{blocks, bytes, counted, signed_blocks, signed_bytes};
use crate::stack::Stacks;
use crate::tree::Tree;

/// Writes `tree`.
pub fn tree<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    tree: &Tree,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let query = &tree.query;
    let direction = if query.inverted {
        "innermost frame first"
    } else {
        "outermost frame first"
    };
    let answer = format!(
        "{}, {direction}",
        answer(model, &query.span, query.measure, &tree.sum, style)
    );
    head(model, &query.span, &answer, style, out)?;
    if tree.rows.is_empty() && tree.rest_roots == 0 {
        return writeln!(out, "\nNothing to show: no allocation matches.");
    }
    writeln!(out)?;
    Drawing {
        stacks,
        tree,
        style,
    }
    .write(out)?;
    let next = if query.inverted {
        [("tree", "from the outermost frame"), ("top", "as a list")]
    } else {
        [
            ("tree --inverted", "from the allocating function"),
            ("top", "as a list"),
        ]
    };
    next_commands(model, &next, style, out)
}

/// A line of a drawn tree.
enum Branch {
    /// A row.
    Row(usize),
    /// What is not shown.
    Rest { count: usize, figures: Figures },
}

struct Drawing<'d, 'a> {
    stacks: &'d Stacks<'a>,
    tree: &'d Tree,
    style: Style,
}

impl Drawing<'_, '_> {
    fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.tree.rows.len()];
        let mut roots = Vec::new();
        for (id, row) in self.tree.rows.iter().enumerate() {
            match row.parent {
                Some(parent) => children[parent].push(id),
                None => roots.push(id),
            }
        }
        // What is still to draw, the next last: the branch, what stands before
        // it, and what will stand before its own branches.
        let mut pending: Vec<(Branch, String, String)> = Vec::new();
        let rest = (self.tree.rest_roots, self.tree.rest_of_roots);
        self.push_level(&mut pending, &roots, rest, "");
        // What was written last, not to write the same figures all the way down.
        let mut above = None;
        while let Some((branch, before, inside)) = pending.pop() {
            match branch {
                Branch::Row(id) => {
                    let row = &self.tree.rows[id];
                    let (function, place) = frame_words(self.stacks, row.frame);
                    let same = row.parent.is_some() && above == Some((row.parent, row.figures));
                    let figures = if same { None } else { Some(&row.figures) };
                    self.write_line(figures, &before, &function, &place, out)?;
                    above = Some((Some(id), row.figures));
                    let rest = (row.rest_branches, row.rest);
                    self.push_level(&mut pending, &children[id], rest, &inside);
                }
                Branch::Rest { count, figures } => {
                    self.write_line(Some(&figures), &before, &rest_words(count), "", out)?;
                }
            }
        }
        Ok(())
    }

    /// Draws a level next. A frame with one shown caller or callee is followed
    /// by it in the same column: a deep stack is a list, not a staircase. What
    /// is not shown beside it is below the threshold and left to arithmetic.
    fn push_level(
        &self,
        pending: &mut Vec<(Branch, String, String)>,
        rows: &[usize],
        rest: (usize, Figures),
        inside: &str,
    ) {
        if let &[row] = rows {
            pending.push((Branch::Row(row), inside.to_owned(), inside.to_owned()));
            return;
        }
        let mut level: Vec<Branch> = rows.iter().map(|&row| Branch::Row(row)).collect();
        if rest.0 > 0 && !level.is_empty() {
            level.push(Branch::Rest {
                count: rest.0,
                figures: rest.1,
            });
        }
        let last = level.len().saturating_sub(1);
        for (at, branch) in level.into_iter().enumerate().rev() {
            let (fork, below) = match (self.style.boxes, at == last) {
                (false, _) => ("- ", "  "),
                (true, false) => ("├─ ", "│  "),
                (true, true) => ("└─ ", "   "),
            };
            pending.push((
                branch,
                format!("{inside}{fork}"),
                format!("{inside}{below}"),
            ));
        }
    }

    fn write_line(
        &self,
        figures: Option<&Figures>,
        before: &str,
        function: &str,
        place: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let size = figures.map_or_else(String::new, |figures| self.size(figures));
        let share = match figures {
            Some(figures) if self.style.width >= NARROW => {
                format!("{:>5.0} %", 100.0 * self.tree.share_of(figures))
            }
            None if self.style.width >= NARROW => " ".repeat(7),
            _ => String::new(),
        };
        let column = if self.tree.sum.is_estimate() { 18 } else { 10 };
        let figures = format!("{size:>column$}{share}");
        let room = self.style.width.saturating_sub(figures.width() + 2);
        // A name keeps some room, however deep it stands.
        let before = cut(before, room / 2);
        let label = named(function, place, room.saturating_sub(before.width()));
        writeln!(out, "{}", format!("{figures}  {before}{label}").trim_end())
    }

    fn size(&self, figures: &Figures) -> String {
        let (measure, unit) = (self.tree.query.measure, self.tree.query.unit);
        if figures.error(measure, unit).is_some_and(|error| error > 0) {
            let column = match (measure, unit) {
                (Measure::Live, Unit::Bytes) => Column::Live,
                (Measure::Live, Unit::Blocks) => Column::LiveBlocks,
                (Measure::Total, Unit::Bytes) => Column::Total,
                (Measure::Total, Unit::Blocks) => Column::TotalBlocks,
                (Measure::Peak, Unit::Bytes) => Column::Peak,
                (Measure::Peak, Unit::Blocks) => Column::PeakBlocks,
                (Measure::Growth, Unit::Bytes) => Column::Growth,
                (Measure::Growth, Unit::Blocks) => Column::GrowthBlocks,
                (Measure::Temporary, _) => Column::Temporary,
            };
            if let Cell::Figure(text) = column.cell_within(figures, self.style) {
                return text;
            }
        }
        let value = figures.measure(self.tree.query.measure, self.tree.query.unit);
        match (self.tree.query.measure, self.tree.query.unit) {
            (Measure::Growth, Unit::Bytes) => signed_bytes(value),
            (Measure::Growth, Unit::Blocks) => signed_blocks(value),
            (Measure::Temporary, _) | (_, Unit::Blocks) => blocks(value.max(0) as u64),
            (_, Unit::Bytes) => bytes(value.max(0) as u64),
        }
    }
}

fn rest_words(count: usize) -> String {
    format!(
        "rest: {}",
        counted(count as u64, "smaller branch", "smaller branches")
    )
}
