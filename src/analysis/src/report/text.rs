//! Answers as plain text: the answer first, then how far to trust it, then
//! the rows, then how to go on.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::table::{BOLD, Cell, DIM, Style, Table, WARN, cut, padded};
use super::words::{blocks, bytes, counted, duration, rate, signed_blocks, signed_bytes};
use crate::figures::{Figures, Measure, Unit};
use crate::frame::FrameId;
use crate::instant::{At, Span, clock};
use crate::lines::{Lines, SourceFrom};
use crate::model::Model;
use crate::names::base_name;
use crate::report::json::python_version;
use crate::stack::{Head, Stacks};
use crate::stats::Stats;
use crate::summary::Summary;
use crate::top::{GroupBy, Row, Top, process_label, words};
use crate::tree::{Tree, TreeRow};

/// Narrowest width at which tables get the columns for roomy terminals.
const WIDE: usize = 100;

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

/// What rows of a table stand for, one and many.
fn noun(by: GroupBy) -> (&'static str, &'static str) {
    match by {
        GroupBy::Site => ("site", "sites"),
        GroupBy::Line => ("line", "lines"),
        GroupBy::Function => ("function", "functions"),
        GroupBy::File => ("file", "files"),
        GroupBy::Library => ("library", "libraries"),
        GroupBy::Process => ("process", "processes"),
        GroupBy::Thread => ("thread", "threads"),
    }
}

/// The first line of a report over rows.
fn answer(model: &Model<'_>, span: &Span, measure: Measure, sum: &Figures) -> String {
    let live = u64::try_from(sum.live_bytes).unwrap_or(0);
    let live_blocks = u64::try_from(sum.live_blocks).unwrap_or(0);
    let when = when(model, span);
    match measure {
        Measure::Live => format!(
            "{} live in {} {when}",
            bytes(live),
            counted(live_blocks, "block", "blocks")
        ),
        Measure::Growth if span.from().is_some() => format!(
            "live memory {} by {} ({} blocks) {when}",
            if sum.delta_bytes < 0 { "fell" } else { "grew" },
            bytes(sum.delta_bytes.unsigned_abs()),
            signed_blocks(sum.delta_blocks)
        ),
        Measure::Growth => format!("{} live {when}, grown from nothing", bytes(live)),
        Measure::Total => format!(
            "{} allocated in {} {}",
            bytes(sum.total_bytes),
            counted(sum.total_blocks, "block", "blocks"),
            if span.from().is_some() || !span.reaches_end(model) {
                when
            } else {
                "in all".into()
            }
        ),
        Measure::Peak => {
            let peak = model.high_water();
            format!(
                "{} live in {} at the high-water mark, after {}",
                bytes(sum.peak_bytes),
                counted(sum.peak_blocks, "block", "blocks"),
                duration(peak.at_ns)
            )
        }
        Measure::Temporary => format!(
            "{} of {} temporary {when}",
            blocks(sum.temporary_blocks),
            counted(sum.total_blocks, "block", "blocks")
        ),
    }
}

/// `at the end`, `after 1 min 30 s`, `from 1 min 00 s to the end`.
fn when(model: &Model<'_>, span: &Span) -> String {
    let to = span.to();
    match span.from() {
        None if span.reaches_end(model) => "at the end".into(),
        None if to.is_peak() => "at the high-water mark".into(),
        None => format!("after {}", duration(to.resolved_ns())),
        Some(from) => format!(
            "from {} to {}",
            instant(model, span, from),
            instant(model, span, to)
        ),
    }
}

fn instant(model: &Model<'_>, span: &Span, at: &At) -> String {
    if at == span.to() && span.reaches_end(model) {
        "the end".into()
    } else if at.is_peak() {
        "the high-water mark".into()
    } else {
        format!("+{}", duration(at.resolved_ns()))
    }
}

/// The answer, and how far to trust it.
fn head(
    model: &Model<'_>,
    span: &Span,
    answer: &str,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    style.wrapped(out, BOLD, 6, answer)?;
    trust(model, style, out)?;
    if span.from().is_some() || !span.reaches_end(model) {
        let mut text = String::from("instants: ");
        if let Some(from) = span.from() {
            text.push_str(&clock(model, from.resolved_ns()));
            text.push('-');
        }
        text.push_str(&clock(model, span.to().resolved_ns()));
        match span.resolution_ns() {
            0 => text.push_str(", exact"),
            resolution => {
                text.push_str(&format!(
                    ", the nearest recorded (every {})",
                    duration(resolution)
                ));
            }
        }
        let all_exact = span.from().is_none_or(At::exact) && span.to().exact();
        if !all_exact {
            text.push_str("; a site's figures are within 64 KiB or 1 %");
        }
        style.wrapped(out, DIM, 10, &text)?;
    }
    Ok(())
}

/// `python train.py (pid 4121), 14:05:02-14:17:06, exact, complete`.
fn trust(model: &Model<'_>, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let mode = model
        .session()
        .map_or("mode not known", |session| session.mode.as_str());
    let mode = match model.session() {
        Some(session) if session.sample_bytes > 0 => {
            format!("{mode} 1/{}", bytes(session.sample_bytes))
        }
        _ => mode.to_owned(),
    };
    let facts = format!(
        "{}, {}-{} ({}), {mode}, {}",
        target(model),
        clock(model, 0),
        clock(model, model.duration_ns()),
        duration(model.duration_ns()),
        completeness(model)
    );
    let paint = if model.complete() { DIM } else { WARN };
    style.wrapped(out, paint, 6, &facts)
}

/// The program, its pid, and how many other processes.
fn target(model: &Model<'_>) -> String {
    let program = match (model.processes().first(), model.session()) {
        (_, Some(session)) if !session.command.is_empty() => words(&session.command, b""),
        (Some(facts), _) => words(&facts.process.command, &facts.process.executable),
        (None, _) => "program not known".into(),
    };
    let others = model.processes().len().saturating_sub(1);
    let pid = match model.processes().first() {
        Some(facts) => format!("pid {}", facts.process.pid),
        None => "no process".into(),
    };
    match others {
        0 => format!("{program} ({pid})"),
        1 => format!("{program} ({pid} and 1 more process)"),
        _ => format!("{program} ({pid} and {others} more processes)"),
    }
}

/// `complete`, or everything that is not.
fn completeness(model: &Model<'_>) -> String {
    let totals = model.totals();
    let mut flaws = Vec::new();
    if totals.lost_events > 0 {
        flaws.push(format!(
            "{} of {} events lost",
            blocks(totals.lost_events),
            blocks(totals.events.saturating_add(totals.lost_events))
        ));
    }
    if totals.malformed_events > 0 {
        flaws.push(format!(
            "{} unreadable events",
            blocks(totals.malformed_events)
        ));
    }
    if !model.origin().warnings.is_empty() {
        flaws.push("parts of the file are unreadable".into());
    }
    if !model.origin().ended {
        flaws.push("ends without a farewell".into());
    }
    if flaws.is_empty() {
        "complete".into()
    } else {
        flaws.join(", ")
    }
}

/// At most two commands to go on with.
fn next_commands(
    model: &Model<'_>,
    commands: &[(&str, &str)],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let origin = model.origin();
    let file = if origin.implied {
        String::new()
    } else {
        format!(" {}", quoted(&origin.file))
    };
    writeln!(out)?;
    for (at, (command, why)) in commands.iter().enumerate() {
        let lead = if at == 0 { "next: " } else { "      " };
        let command = format!("leakline {command}{file}");
        let why = format!("({why})");
        // Never cut: it is there to be pasted.
        if lead.len() + command.width() + 3 + why.width() <= style.width {
            writeln!(out, "{lead}{command}   {}", style.paint(DIM, &why))?;
        } else {
            writeln!(out, "{lead}{command}")?;
        }
    }
    Ok(())
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-/+:@%,=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", super::table::printable(path).replace('\'', "'\\''"))
}

/// A frame's function without its arguments, and its place.
fn frame_cell(stacks: &Stacks<'_>, id: FrameId) -> Cell {
    let (function, place) = frame_words(stacks, id);
    Cell::Named(function, place)
}

fn frame_words(stacks: &Stacks<'_>, id: FrameId) -> (String, String) {
    let frame = stacks.frame(id);
    let function = without_arguments(stacks.name(frame.function));
    let file = stacks.name(frame.file);
    let module = base_name(stacks.name(frame.module));
    let place = if !file.is_empty() {
        let file = last_parts(file);
        if frame.line == 0 {
            file.to_owned()
        } else {
            format!("{file}:{}", frame.line)
        }
    } else if function.starts_with(module) {
        // `fastparse.so+0x3c1a` says it all.
        String::new()
    } else {
        module.to_owned()
    };
    (function.to_owned(), place)
}

/// A file and its directory: `app/sessions.py`.
fn last_parts(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at);
    match (slashes.next(), slashes.next()) {
        (Some(_), Some(second)) => &file[second + 1..],
        _ => file.trim_start_matches('/'),
    }
}

/// `ns::make<int>` of `ns::make<int>(int, char*)`; names that end otherwise
/// stay as they are.
fn without_arguments(function: &str) -> &str {
    let trimmed = function.trim_end_matches(" const");
    if !trimmed.ends_with(')') {
        return function;
    }
    let mut depth = 0_usize;
    for (at, c) in trimmed.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            let name = trimmed[..at].trim_end();
            // `(anonymous namespace)` is a name, `operator()` too.
            return if name.is_empty() || name.ends_with("::") || name.ends_with("operator") {
                function
            } else {
                name
            };
        }
    }
    function
}

/// The cells of a row's figures, in the columns of [`figure_headers`].
fn figure_cells(figures: &Figures, measure: Measure, compared: bool, wide: bool) -> Vec<Cell> {
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

fn figure_headers(measure: Measure, compared: bool, wide: bool) -> Vec<&'static str> {
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

fn rows_table<'a>(model: &Model<'a>, stacks: &Stacks<'a>, top: &Top, style: Style) -> Table {
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
            && facts.process.inherited_blocks > 0
        {
            let inherited = bytes(facts.process.inherited_bytes);
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
        answer(model, &query.span, query.measure, &tree.sum)
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
    /// A row; `joined` where it continues the line above it: an only child.
    Row { row: usize, joined: bool },
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
        self.push_level(
            &mut pending,
            &roots,
            (self.tree.rest_roots, self.tree.rest_of_roots),
            None,
            "",
        );
        while let Some((branch, before, inside)) = pending.pop() {
            match branch {
                Branch::Row { row: id, joined } => {
                    let row = &self.tree.rows[id];
                    self.write_row(row, &before, joined, out)?;
                    let rest = (row.rest_branches, row.rest);
                    self.push_level(&mut pending, &children[id], rest, Some(row), &inside);
                }
                Branch::Rest { count, figures } => {
                    self.write_line(&figures, &before, &rest_words(count), "", out)?;
                }
            }
        }
        Ok(())
    }

    fn push_level(
        &self,
        pending: &mut Vec<(Branch, String, String)>,
        rows: &[usize],
        rest: (usize, Figures),
        parent: Option<&TreeRow>,
        inside: &str,
    ) {
        let mut level: Vec<Branch> = rows
            .iter()
            .map(|&row| Branch::Row { row, joined: false })
            .collect();
        if rest.0 > 0 {
            level.push(Branch::Rest {
                count: rest.0,
                figures: rest.1,
            });
        }
        // An only child with nothing beside it stays in its parent's column: a
        // deep stack is a list, not a staircase.
        if let ([Branch::Row { joined, .. }], Some(parent)) = (&mut level[..], parent)
            && parent.own == 0
        {
            *joined = true;
            let branch = level.remove(0);
            pending.push((branch, inside.to_owned(), inside.to_owned()));
            return;
        }
        let last = level.len().saturating_sub(1);
        for (at, branch) in level.into_iter().enumerate().rev() {
            let (fork, below) = match (parent, self.style.boxes, at == last) {
                (None, ..) => ("", ""),
                (_, false, _) => ("  ", "  "),
                (_, true, false) => ("├─ ", "│  "),
                (_, true, true) => ("└─ ", "   "),
            };
            pending.push((
                branch,
                format!("{inside}{fork}"),
                format!("{inside}{below}"),
            ));
        }
    }

    fn write_row(
        &self,
        row: &TreeRow,
        before: &str,
        joined: bool,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let (function, place) = frame_words(self.stacks, row.frame);
        if joined {
            self.write_label(
                &" ".repeat(self.figures_width()),
                before,
                &function,
                &place,
                out,
            )
        } else {
            self.write_line(&row.figures, before, &function, &place, out)
        }
    }

    fn write_line(
        &self,
        figures: &Figures,
        before: &str,
        function: &str,
        place: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let value = figures.measure(self.tree.query.measure, self.tree.query.unit);
        let size = match (self.tree.query.measure, self.tree.query.unit) {
            (Measure::Growth, Unit::Bytes) => signed_bytes(value),
            (Measure::Growth, Unit::Blocks) => signed_blocks(value),
            (Measure::Temporary, _) | (_, Unit::Blocks) => blocks(value.max(0) as u64),
            (_, Unit::Bytes) => bytes(value.max(0) as u64),
        };
        let share = 100.0 * self.tree.share_of(figures);
        let shown = if self.style.width < WIDE / 2 {
            format!("{size:>10}")
        } else {
            format!("{size:>10} {share:>4.0} %")
        };
        self.write_label(&shown, before, function, place, out)
    }

    fn figures_width(&self) -> usize {
        if self.style.width < WIDE / 2 { 10 } else { 17 }
    }

    fn write_label(
        &self,
        figures: &str,
        before: &str,
        function: &str,
        place: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let room = self.style.width.saturating_sub(self.figures_width() + 2);
        // A name keeps some room, however deep it stands.
        let before = cut(before, room / 2);
        let label = super::table::named(function, place, room.saturating_sub(before.width()));
        writeln!(out, "{}", format!("{figures}  {before}{label}").trim_end())
    }
}

fn rest_words(count: usize) -> String {
    format!(
        "rest: {}",
        counted(count as u64, "smaller branch", "smaller branches")
    )
}

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

/// Writes `stats`.
pub fn stats(
    model: &Model<'_>,
    stats: &Stats,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let totals = &stats.totals;
    let answer = format!(
        "{} allocations ({}) and {} frees in {}",
        blocks(totals.allocations),
        bytes(totals.allocated_bytes),
        blocks(totals.frees),
        duration(stats.duration_ns)
    );
    head(model, &Span::whole(model), &answer, style, out)?;
    writeln!(out)?;
    let peak = model.high_water();
    let per_second = |count: u64| format!("{} a second", rate(stats.per_second(count)));
    let mut facts = vec![
        (
            "allocations",
            blocks(totals.allocations),
            per_second(totals.allocations),
        ),
        (
            "allocated",
            bytes(totals.allocated_bytes),
            format!(
                "{} a second",
                bytes(stats.per_second(totals.allocated_bytes) as u64)
            ),
        ),
        ("frees", blocks(totals.frees), per_second(totals.frees)),
        (
            "temporary",
            blocks(totals.temporary_blocks),
            format!(
                "{} of the allocations",
                percent(totals.temporary_blocks, totals.allocations)
            ),
        ),
        ("resized in place", blocks(totals.resizes), String::new()),
        (
            "high-water mark",
            bytes(totals.peak_bytes),
            format!(
                "after {}{}",
                duration(peak.at_ns),
                if peak.exact {
                    ""
                } else {
                    ", sites of the nearest recorded instant"
                }
            ),
        ),
        (
            "live at the end",
            bytes(totals.live_bytes),
            counted(totals.live_blocks, "block", "blocks"),
        ),
        ("events", blocks(totals.events), per_second(totals.events)),
        (
            "lost events",
            blocks(totals.lost_events),
            if totals.lost_events > 0 {
                format!("{} known to be in them", bytes(totals.lost_bytes))
            } else {
                String::new()
            },
        ),
    ];
    for (name, count, what) in [
        (
            "unknown frees",
            totals.unknown_frees,
            "of blocks never seen born",
        ),
        (
            "implied frees",
            totals.implied_frees,
            "missed, inferred from a birth there",
        ),
        (
            "malformed",
            totals.malformed_events,
            "words that were no event",
        ),
        (
            "truncated stacks",
            totals.truncated_stacks,
            "cut at the depth limit",
        ),
        (
            "broken unwinds",
            totals.broken_unwinds,
            "native stacks that end early",
        ),
    ] {
        if count > 0 {
            facts.push((name, blocks(count), what.into()));
        }
    }
    if totals.stalled_ns > 0 {
        facts.push((
            "stalled",
            duration(totals.stalled_ns),
            "threads waiting for leakline".into(),
        ));
    }
    let value_width = facts
        .iter()
        .map(|(_, value, _)| value.len())
        .max()
        .unwrap_or(0);
    for (name, value, what) in facts {
        let line = format!("{} {value:>value_width$}  {what}", padded(name, 17));
        writeln!(out, "{}", cut(line.trim_end(), style.width))?;
    }

    if !stats.sizes.is_empty() {
        writeln!(out, "\n{}", style.paint(DIM, "          size  allocations"))?;
        let most = stats
            .sizes
            .iter()
            .map(|class| class.allocations)
            .max()
            .unwrap_or(0);
        for class in &stats.sizes {
            let range = if class.min_bytes == class.max_bytes {
                format!("{} B", class.min_bytes)
            } else {
                // 64 - 127 B, 1 - 2 KiB: the upper bound is the next class's lower.
                size_range(class.min_bytes, class.max_bytes)
            };
            let share = percent(class.allocations, totals.allocations.max(1));
            let line = format!(
                "{range:>14}  {:>11}  {share:>6}  ",
                blocks(class.allocations)
            );
            let room = style.width.saturating_sub(line.width()).min(40);
            let bar = bar(class.allocations, most, room, style);
            writeln!(
                out,
                "{}",
                cut(format!("{line}{bar}").trim_end(), style.width)
            )?;
        }
    }

    if !stats.processes.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(
            &["pid", "live", "peak", "allocations", "lost"],
            &["process"],
        );
        for one in &stats.processes {
            let facts = &model.processes()[one.process as usize];
            let label = format!(
                "{}{}",
                words(&facts.process.command, &facts.process.executable),
                fate(model, one.process)
            );
            table.row(vec![
                Cell::Figure(facts.process.pid.to_string()),
                Cell::Figure(bytes(one.totals.live_bytes)),
                Cell::Figure(bytes(one.totals.peak_bytes)),
                Cell::Figure(blocks(one.totals.allocations)),
                Cell::Figure(blocks(one.totals.lost_events)),
                Cell::Text(label),
            ]);
        }
        table.write(out, style)?;
    }
    notes(model, style, out)?;
    next_commands(
        model,
        &[("top", "who allocated"), ("summary", "in short")],
        style,
        out,
    )
}

/// `64-127 B`, `1-2 KiB`.
fn size_range(min: u64, max: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (min.max(1).ilog2() / 10) as usize;
    let scale = 1_u64 << (10 * unit);
    if unit == 0 {
        format!("{min}-{max} B")
    } else {
        format!(
            "{}-{} {}",
            min / scale,
            (max / scale).saturating_add(1),
            UNITS[unit]
        )
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "0 %".into()
    } else {
        format!("{:.1} %", 100.0 * part as f64 / whole as f64)
    }
}

/// A bar of at most `room` columns, never empty for something.
fn bar(part: u64, whole: u64, room: usize, style: Style) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let length = (part as f64 / whole as f64 * room as f64).round().max(1.0) as usize;
    if style.boxes { "█" } else { "#" }.repeat(length.min(room))
}

/// `, status 1`, `, killed (SIGKILL)`, `, CPython 3.13.1`.
fn fate(model: &Model<'_>, process: u32) -> String {
    let facts = &model.processes()[process as usize];
    let mut text = String::new();
    if let Some(version) = python_version(facts.process.python_version) {
        text.push_str(&format!(", CPython {version}"));
    }
    match facts.end {
        Some(end) if end.exec => text.push_str(", went on as another program"),
        Some(end) => match (end.signal, end.exit_status) {
            (Some(signal), _) => text.push_str(&format!(", killed by {}", signal_name(signal))),
            (None, Some(0)) => {}
            (None, Some(status)) => text.push_str(&format!(", status {status}")),
            (None, None) => text.push_str(", ended"),
        },
        None => text.push_str(", end not seen"),
    }
    text
}

/// Linux's numbers on the machines that can be recorded.
fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(signal)
        .ok()
        .and_then(|signal| NAMES.get(signal))
    {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => format!("signal {signal}"),
    }
}

/// What the recorder wants known.
fn notes(model: &Model<'_>, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let texts: Vec<&str> = model
        .notes()
        .iter()
        .map(|note| note.text.as_str())
        .chain(model.symbol_notes().iter().copied())
        .collect();
    const MOST: usize = 5;
    if !texts.is_empty() {
        writeln!(out)?;
    }
    for text in texts.iter().take(MOST) {
        style.wrapped(out, DIM, 6, &format!("note: {text}"))?;
    }
    if texts.len() > MOST {
        writeln!(
            out,
            "note: and {} more (--json has all)",
            texts.len() - MOST
        )?;
    }
    Ok(())
}

/// Writes `summary`.
pub fn summary<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    summary: &Summary,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let totals = &summary.stats.totals;
    let peak = model.high_water();
    let answer = format!(
        "peak {} after {}; {} live at the end in {}",
        bytes(totals.peak_bytes),
        duration(peak.at_ns),
        bytes(totals.live_bytes),
        counted(totals.live_blocks, "block", "blocks")
    );
    head(model, &Span::whole(model), &answer, style, out)?;

    writeln!(out)?;
    if summary.top.rows.is_empty() {
        writeln!(out, "Nothing was allocated.")?;
    } else {
        rows_table(model, stacks, &summary.top, style).write(out, style)?;
    }

    writeln!(out)?;
    let fact = |name: &str, text: &str, out: &mut dyn io::Write| {
        style.wrapped(
            out,
            anstyle::Style::new(),
            11,
            &format!("{name:<10} {text}"),
        )
    };
    fact(
        "recorded",
        &format!(
            "{} allocations, {}; {}",
            blocks(totals.allocations),
            if totals.lost_events == 0 {
                "all of them".to_owned()
            } else {
                format!("{} events lost", blocks(totals.lost_events))
            },
            bytes(model.origin().file_bytes)
        ),
        out,
    )?;
    const MOST_PROCESSES: usize = 4;
    for (id, _) in (0..).zip(model.processes().iter().take(MOST_PROCESSES)) {
        let name = if id == 0 { "processes" } else { "" };
        fact(
            name,
            &format!("{}{}", process_label(model, id), fate(model, id)),
            out,
        )?;
    }
    if model.processes().len() > MOST_PROCESSES {
        let more = model.processes().len() - MOST_PROCESSES;
        fact("", &format!("and {more} more (leakline stats)"), out)?;
    }
    fact("ended", &ending(model), out)?;
    for warning in &model.origin().warnings {
        fact("damaged", warning, out)?;
    }
    notes(model, style, out)?;
    next_commands(
        model,
        &[("top", "what is live"), ("tree --at peak", "who called")],
        style,
        out,
    )
}

fn ending(model: &Model<'_>) -> String {
    let at = duration(model.duration_ns());
    match model.end() {
        Some(end) if model.origin().ended => match end.reason.as_str() {
            "exited" => format!("the program's last process, after {at}"),
            reason => format!("{reason} after {at}"),
        },
        _ => format!(
            "without a farewell after {at}: still recording, or the recorder was killed; what came later is not known"
        ),
    }
}
