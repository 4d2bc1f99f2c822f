//! Who holds what: places where memory gathers, each with its path.

use leakline_analysis::report::{blocks, bytes, counted, signed_bytes};
use ratatui::style::Style;

use super::canvas::{Canvas, Part, cut_end, cut_middle, cut_start, width};
use super::frame_parts;
use super::words::clock;
use crate::state::data::{About, Place, Step};
use crate::state::layout::{self, Area};
use crate::state::{Phase, State, WhyRow};
use crate::theme::Theme;

/// From this width on where objects were made has a column.
const WIDE: u16 = 100;

/// What is said where there is no heap graph.
const NO_GRAPH: [&str; 3] = [
    "There is no heap graph in this recording: who holds what is not known.",
    "`leakline snapshot PID NAME --heap` takes one of a program that is being recorded.",
    "`leakline run` takes one at the program's end, `leakline attach` when it comes and goes, \
     unless `--heap never` forbids it.",
];

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>) {
    let (head, rows, details) = layout::why((canvas.columns(), canvas.rows()));
    let view = &state.why;
    if state.phase != Phase::Ready {
        return;
    }
    if state.facts.graphs.is_empty() {
        let lines = NO_GRAPH.iter().flat_map(|text| wrapped(text, rows.width));
        for (y, line) in (rows.y..rows.y + rows.height).zip(lines) {
            canvas.put(1, y, rows.width, &line, Style::new());
        }
        return;
    }
    let holders = &view.holders;
    if view.asked.as_ref() != Some(&view.want) || holders.reading {
        return;
    }
    let columns = Columns::new(state, rows.width);
    if let Some(y) = head {
        columns.head(theme, canvas, y);
    }
    let shown = view.rows();
    let mut y = rows.y;
    let end = rows.y + rows.height;
    for (at, row) in shown.iter().enumerate().skip(view.list.first) {
        if y >= end {
            break;
        }
        let is_selected = at == view.list.selected;
        if is_selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        if let Some(place) = holders.places.get(row.place) {
            let is_open = view.open.contains(&row.place);
            columns.row(place, *row, is_open, theme, canvas, y);
        }
        if is_selected {
            canvas.paint(0, y, rows.width, theme.selected);
        }
        y += 1;
    }
    let mut notes = Vec::new();
    if shown.is_empty() && !view.filter.is_empty() {
        notes.push(format!("no place has `{}`", view.filter));
    }
    if holders.left_out > 0 {
        let more = counted(holders.left_out as u64, "lesser place", "lesser places");
        notes.push(format!("and {more}"));
    }
    if holders.garbage.0 > 0 {
        notes.push(format!(
            "{} ({}) held by nothing: in cycles that a gc.collect() would free",
            counted(holders.garbage.0, "object", "objects"),
            bytes(holders.garbage.1)
        ));
    }
    for note in notes.iter().flat_map(|note| wrapped(note, rows.width)) {
        if y < end {
            canvas.put(1, y, rows.width, &note, theme.dim);
            y += 1;
        }
    }
    if let (Some((place, step)), true) = (view.selection(), details.height > 0) {
        canvas.rule(0, details.y, details.width, theme.dim);
        about(place, step, theme, canvas, details.below(1));
    }
}

/// Which figures a row has, and where.
struct Columns {
    /// A name, and the column that it ends before.
    figures: Vec<(String, u16)>,
    has_since: bool,
    /// The columns of what it is of, from 2.
    room: usize,
    /// Where objects were made: the first column.
    made_in: Option<u16>,
    width: u16,
}

impl Columns {
    fn new(state: &State, columns: u16) -> Self {
        let earlier = state.why.holders.earlier;
        let mut figures = Vec::new();
        if columns >= layout::FULL_WIDTH {
            figures.push(("count".to_owned(), 10));
        }
        figures.push(("retained".into(), 11));
        let mut has_since = false;
        if let (Some(earlier), true) = (earlier, columns >= layout::FULL_WIDTH) {
            figures.push((format!("since {earlier}"), 12));
            has_since = true;
        }
        let taken: u16 = figures.iter().map(|(_, room)| *room).sum();
        let made = if columns >= WIDE { columns / 3 } else { 0 };
        let room = columns.saturating_sub(2 + taken + made);
        let mut end = 2 + room;
        for (_, column) in &mut figures {
            end += *column;
            *column = end;
        }
        Columns {
            figures,
            has_since,
            room: room.into(),
            made_in: (made > 0).then_some(end + 2),
            width: columns,
        }
    }

    fn head(&self, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
        canvas.put(2, y, self.room as u16, "held by", theme.dim);
        for (name, end) in &self.figures {
            canvas.put_right(*end, y, 11, name, theme.dim);
        }
        if let Some(x) = self.made_in {
            canvas.put(x, y, self.width.saturating_sub(x), "made in", theme.dim);
        }
    }

    fn row(
        &self,
        place: &Place,
        row: WhyRow,
        is_open: bool,
        theme: &Theme,
        canvas: &mut Canvas<'_>,
        y: u16,
    ) {
        let step = row.step.and_then(|step| place.steps.get(step));
        let parts = match step {
            None => {
                let sign = if is_open { "▾ " } else { "▸ " };
                let words = cut_start(&place.words, self.room.saturating_sub(2));
                let left = self.room.saturating_sub(2 + width(&words) + 2);
                let mut parts = vec![Part(sign.into(), theme.key), Part(words, theme.strong)];
                if left >= 4 {
                    let kind = format!("  {}", cut_end(&place.head.kind, left));
                    parts.push(Part(kind, theme.dim));
                }
                parts
            }
            Some(step) => {
                let depth = usize::from(step.depth).saturating_sub(1);
                let lead = if self.room < 24 {
                    " ".repeat(2 + depth.min(self.room / 4))
                } else {
                    let bar = "   ".repeat(depth.min(self.room / 6));
                    format!("  {bar}{}", if step.forks { "├─ " } else { "└─ " })
                };
                let left = self.room.saturating_sub(width(&lead));
                let edge = cut_middle(&step.edge, left);
                let left = left.saturating_sub(width(&edge) + 2);
                let mut parts = vec![Part(lead, theme.dim), Part(edge, Style::new())];
                if left >= 4 {
                    let kind = format!("  {}", cut_end(&step.kind, left));
                    parts.push(Part(kind, theme.dim));
                }
                parts
            }
        };
        canvas.put_parts(2, y, self.room as u16, &parts);
        let of = step.unwrap_or(&place.head);
        for (at, (name, end)) in self.figures.iter().enumerate() {
            let (text, style) = match name.as_str() {
                "count" => (blocks(of.count), Style::new()),
                "retained" => (bytes(of.retained), Style::new()),
                _ if self.has_since && at + 1 == self.figures.len() => since(of.since, theme),
                _ => (String::new(), Style::new()),
            };
            canvas.put_right(*end, y, 11, &text, style);
        }
        if let (Some(x), Some(frame)) = (self.made_in, &of.made_in) {
            let room = self.width.saturating_sub(x + 1);
            canvas.put_parts(x, y, room, &frame_parts(frame, room.into(), theme));
        }
    }
}

fn since(bytes: Option<i64>, theme: &Theme) -> (String, Style) {
    match bytes {
        None => ("-".into(), theme.dim),
        Some(bytes) if bytes > 0 => (signed_bytes(bytes), theme.bad),
        Some(0) => (signed_bytes(0), theme.dim),
        Some(bytes) => (signed_bytes(bytes), theme.good),
    }
}

/// What is known of the selected objects.
fn about(place: &Place, step: &Step, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) {
    let room = usize::from(area.width.saturating_sub(2));
    let mut kind = step.kind.clone();
    if kind.is_empty() {
        kind.clone_from(&step.edge);
    }
    let mut facts = format!(
        "{} {kind}, {} of their own, retaining {}",
        blocks(step.count),
        bytes(step.shallow),
        bytes(step.retained)
    );
    if step.native > 0 {
        facts = format!("{facts} ({} of it native)", bytes(step.native));
    }
    let others = step.count.saturating_sub(step.only);
    let named = (place.others.iter())
        .filter(|_| *step == place.objects)
        .map(|(words, count)| format!("{words} ({})", blocks(*count)));
    let named: Vec<String> = named.collect();
    let holders = match (&named[..], others) {
        _ if place.words == "nothing" => "held by nothing but each other".to_owned(),
        (_, 0) => "no second holder".to_owned(),
        ([], _) => format!("{} of them held by others, too", blocks(others)),
        _ => format!(
            "{} of them held by others, too: {}",
            blocks(others),
            named.join(", ")
        ),
    };
    canvas.put(1, area.y, area.width, &cut_end(&facts, room), Style::new());
    canvas.put(
        1,
        area.y + 1,
        area.width,
        &cut_end(&holders, room),
        theme.dim,
    );
    let x = canvas.put(1, area.y + 2, area.width, "made in ", theme.dim);
    if let Some(frame) = &step.made_in {
        let room = area.width.saturating_sub(x + 1);
        let parts = frame_parts(frame, room.into(), theme);
        canvas.put_parts(x, area.y + 2, room, &parts);
    } else {
        let why = "no place that is known: before recording, or in no block of their own";
        let room = area.width.saturating_sub(x);
        canvas.put(x, area.y + 2, room, why, theme.dim);
    }
}

/// The line above: what is answered, and by which graph.
pub(super) fn answer(state: &State) -> (String, String) {
    let view = &state.why;
    let Some((number, at)) = state.graph() else {
        return ("no heap graph".into(), String::new());
    };
    let graphs = &state.facts.graphs;
    let graph = &graphs[at];
    let mut when = format!("graph {number}");
    if graphs.len() > 1 {
        when = format!("{when} of {}", graphs.len());
    }
    when = format!(
        "{when}, `{}`, {}",
        graph.name,
        clock(&state.facts, graph.at_ns)
    );
    if state.facts.processes.len() > 1
        && let Some(process) = state.facts.processes.get(graph.process as usize)
    {
        when = format!("{when}, pid {}", process.pid);
    }
    let holders = &view.holders;
    let is_answered = view.asked.as_ref() == Some(&view.want);
    if !is_answered || holders.reading {
        let text = match holders.objects {
            objects if is_answered && objects > 0 => format!(
                "reading heap graph {} ({})...",
                holders.graph,
                counted(objects, "object", "objects")
            ),
            _ => format!("reading heap graph {number}..."),
        };
        return (text, String::new());
    }
    if holders.graph == 0 {
        let flaw = holders.flaw.clone().unwrap_or_default();
        return (flaw, when);
    }
    let name = name(&view.want.about);
    let mut text = match holders.found {
        None => {
            let places = holders.places.iter().map(|place| place.head.retained);
            let gathered = places.fold(0, u64::saturating_add);
            let objects = counted(holders.objects, "object", "objects");
            let text = format!("{} in {objects}", bytes(holders.bytes));
            if state.size.0 >= WIDE {
                let places = counted(holders.places.len() as u64, "place", "places");
                format!("{text}; {} of it gathers in {places}", bytes(gathered))
            } else {
                text
            }
        }
        Some((0, _)) => format!("{name}: no object of it in the heap"),
        Some((count, retained)) => format!(
            "{name}: {}, retaining {}",
            counted(count, "object", "objects"),
            bytes(retained)
        ),
    };
    if let Some(flaw) = &holders.flaw {
        text = format!("{text}; {flaw}");
    }
    (text, when)
}

/// What was asked for.
fn name(about: &About) -> &str {
    match about {
        About::Gathered => "all",
        About::Cause(name, _) | About::Group(_, _, name) | About::Named(name) => name,
        About::Through(frame) => &frame.function,
    }
}

/// In lines of words.
fn wrapped(text: &str, columns: u16) -> Vec<String> {
    let room = usize::from(columns.saturating_sub(2)).max(8);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
