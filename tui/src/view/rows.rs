//! Tables of figures: Sites, and the rows of Overview and Diff.

use leakline_analysis::report::text::noun;
use leakline_analysis::report::{
    blocks, bytes, bytes_within, counted, signed_blocks, signed_bytes,
};
use leakline_analysis::{Figures, GroupBy, Measure, Unit};
use ratatui::style::Style;

use super::canvas::{Canvas, Part, cut_middle, cut_start, width};
use super::frame_parts;
use super::words::spark;
use crate::state::data::{Column, GroupInfo, GroupName, TREND_STEPS, TableRow};
use crate::state::layout::{self, Area};
use crate::state::{Screen, State, TableView};
use crate::theme::Theme;

/// A column of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Figure(Column),
    /// Live bytes or growth of an estimate, and by how much they may be off.
    Within(Column),
    /// Of the live bytes, its own.
    Own,
    /// New or gone.
    Change,
    Trend,
}

impl Shown {
    fn width(self) -> u16 {
        match self {
            Shown::Figure(Column::Blocks) => 9,
            Shown::Figure(Column::Growth) => 11,
            Shown::Figure(_) | Shown::Own => 10,
            Shown::Within(_) => 19,
            Shown::Change => 4,
            Shown::Trend => 8,
        }
    }

    /// The column that rows can be sorted by.
    fn column(self) -> Option<Column> {
        match self {
            Shown::Figure(column) | Shown::Within(column) => Some(column),
            _ => None,
        }
    }

    fn head(self, inclusive: bool) -> &'static str {
        match self {
            Shown::Figure(Column::Live) | Shown::Within(Column::Live) if inclusive => "live, all",
            Shown::Figure(column) | Shown::Within(column) => column.name(),
            Shown::Own => "own",
            Shown::Change => "",
            Shown::Trend => "trend",
        }
    }
}

/// Columns of the terminal from which on estimates are shown with their errors.
const FOR_ERRORS: u16 = 60;

/// The columns that fit, besides what the row stands for.
fn columns(state: &State, view: &TableView, room: u16) -> Vec<Shown> {
    let of_threads = view.want.by == GroupBy::Thread;
    let is_diff = state.screen == Screen::Diff;
    let mut wanted: Vec<Shown> = Vec::new();
    if is_diff {
        wanted.extend([
            Shown::Figure(Column::Growth),
            Shown::Change,
            Shown::Figure(Column::Live),
            Shown::Figure(Column::Blocks),
            Shown::Figure(Column::Total),
        ]);
    } else {
        wanted.push(Shown::Figure(Column::Live));
        if view.want.inclusive {
            wanted.push(Shown::Own);
        }
        wanted.push(Shown::Figure(Column::Blocks));
        if !of_threads {
            wanted.push(Shown::Trend);
            wanted.push(Shown::Figure(Column::Peak));
        }
        wanted.push(Shown::Figure(Column::Total));
        if room >= 150 {
            wanted.push(Shown::Figure(Column::Temporary));
        }
    }
    // The one that rows are sorted by is always there.
    let sorted = Shown::Figure(view.want.sort);
    if view.want.sort != Column::Name && !wanted.contains(&sorted) {
        wanted.insert(1, sorted);
    }
    let is_estimate = |row: &TableRow| row.figures.is_estimate();
    if room >= FOR_ERRORS && view.table.rows.iter().any(is_estimate) {
        wanted[0] = Shown::Within(if is_diff {
            Column::Growth
        } else {
            Column::Live
        });
    }
    let for_name = if room >= layout::WIDE {
        room / 2
    } else {
        (room * 11 / 20).max(16)
    };
    let mut left = room.saturating_sub(for_name);
    let mut shown = Vec::new();
    for (at, column) in wanted.into_iter().enumerate() {
        let needs = column.width() + 1;
        if needs <= left || at == 0 {
            left = left.saturating_sub(needs);
            shown.push(column);
        } else if column == sorted
            && let Some(last) = shown.last_mut()
        {
            *last = column;
        }
    }
    shown
}

/// The column of a click.
pub(super) fn column_at(state: &State, x: u16) -> Option<Column> {
    let view = state.shown_table()?;
    let mut at = 1;
    for column in columns(state, view, layout::table(state).1.width) {
        at += column.width() + 1;
        if x < at {
            return column.column();
        }
    }
    Some(Column::Name)
}

/// Draws the rows of the screen's table.
pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>) {
    let Some(view) = state.shown_table() else {
        return;
    };
    if !state.answered {
        return;
    }
    let (head, mut area) = layout::table(state);
    // Apart from a pane at the side.
    area.width -= u16::from(area.width < canvas.columns() && area.width > 0);
    let shown = columns(state, view, area.width);
    let is_wide = area.width >= layout::WIDE && view.want.by == GroupBy::Site;
    let names: u16 = shown.iter().map(|column| column.width() + 1).sum::<u16>() + 1;
    let room = area.width.saturating_sub(names + 1);
    let for_made = if is_wide { room * 11 / 20 } else { room };
    if let Some(y) = head {
        let mut end = area.x;
        for column in &shown {
            end += column.width() + 1;
            let is_sorted = column.column() == Some(view.want.sort);
            let name = column.head(view.want.inclusive);
            let (text, style) = if is_sorted && state.screen != Screen::Overview {
                let sign = if view.want.ascending { "▴" } else { "▾" };
                (format!("{sign}{name}"), theme.strong)
            } else {
                (name.to_owned(), theme.dim)
            };
            canvas.put_right(end, y, column.width(), &text, style);
        }
        let name = match view.want.by {
            GroupBy::Site => "made in".to_owned(),
            by => noun(by).0.to_owned(),
        };
        let mut x = canvas.put(area.x + names + 1, y, for_made, &name, theme.dim);
        if is_wide {
            canvas.put(
                area.x + names + 1 + for_made,
                y,
                room,
                "your code",
                theme.dim,
            );
        } else if state.screen != Screen::Overview {
            let (one, many) = noun(view.want.by);
            let rows = view.table.rows.len() + view.table.left_out.0;
            let count = counted(rows as u64, one, many);
            let mut more = format!("   {count}");
            if !view.want.filter.is_empty() {
                more.push_str(" with ");
                more.push_str(&view.want.filter);
            }
            if view.want.by == GroupBy::Thread {
                more.push_str(", whole recording");
            }
            let left = (area.x + area.width).saturating_sub(x);
            x = canvas.put(x, y, left, &more, theme.dim);
        }
        let _ = x;
    }
    if view.table.rows.is_empty() {
        let text = if state.waiting {
            ""
        } else if !view.want.filter.is_empty() {
            "no row has this: esc shows all"
        } else if state.screen == Screen::Diff {
            "nothing grew or shrank between A and B"
        } else {
            "nothing was allocated by then"
        };
        canvas.put(area.x + 1, area.y, area.width, text, theme.dim);
        return;
    }
    let rows = view.table.rows.iter().enumerate().skip(view.list.first);
    let shown_rows = view.table.rows.len() - view.list.first.min(view.table.rows.len());
    if state.screen != Screen::Overview {
        let y = area
            .y
            .saturating_add(u16::try_from(shown_rows).unwrap_or(u16::MAX));
        left_out(
            view,
            theme,
            canvas,
            Area { y, ..area },
            area.y + area.height,
        );
    }
    for (y, (at, row)) in (area.y..area.y + area.height).zip(rows) {
        let Some(group) = view.table.groups.get(row.group as usize) else {
            continue;
        };
        let is_selected = at == view.list.selected;
        if is_selected {
            canvas.put(area.x, y, 1, ">", theme.key);
        }
        let mut end = area.x;
        for column in &shown {
            end += column.width() + 1;
            let (text, style) = figure(*column, view, row, theme);
            canvas.put_right(end, y, column.width(), &text, style);
        }
        let x = area.x + names + 1;
        name(
            canvas,
            theme,
            Area {
                x,
                y,
                width: for_made.saturating_sub(u16::from(is_wide) * 2),
                height: 1,
            },
            group,
        );
        if is_wide {
            let x = x + for_made;
            let left = (area.x + area.width).saturating_sub(x);
            match &group.your_code {
                Some(own) => {
                    let parts = frame_parts(own, left.into(), theme);
                    canvas.put_parts(x, y, left, &parts);
                }
                None if is_own(group) => {
                    canvas.put(x, y, left, "the same", theme.dim);
                }
                None => {
                    canvas.put(x, y, left, "-", theme.dim);
                }
            }
        }
        if is_selected {
            canvas.paint(area.x, y, area.width, theme.selected);
        }
    }
}

/// Says below the last row what further rows there are.
fn left_out(view: &TableView, theme: &Theme, canvas: &mut Canvas<'_>, area: Area, end: u16) {
    let (rows, held) = view.table.left_out;
    if rows == 0 || area.y >= end {
        return;
    }
    let text = format!(
        "and {} further rows, {}: / finds them",
        blocks(rows as u64),
        signed_bytes(held)
    );
    canvas.put(area.x + 1, area.y, area.width, &text, theme.dim);
}

fn is_own(group: &GroupInfo) -> bool {
    matches!(&group.name, GroupName::Site(frame) if frame.own)
}

fn grown(delta: i64, theme: &Theme) -> Style {
    match delta {
        0 => Style::new(),
        1.. => theme.bad,
        _ => theme.good,
    }
}

fn figure(column: Shown, view: &TableView, row: &TableRow, theme: &Theme) -> (String, Style) {
    let plain = Style::new();
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let Figures {
        live_bytes,
        live_blocks,
        ..
    } = row.figures;
    let compared = view.want.sort == Column::Growth || row.figures.delta_bytes != live_bytes;
    match column {
        Shown::Figure(Column::Live) => (bytes(unsigned(live_bytes)), plain),
        Shown::Within(Column::Growth) => {
            let delta = row.figures.delta_bytes;
            let error = row.figures.error(Measure::Growth, Unit::Bytes);
            let sign = match delta {
                0 => "",
                1.. => "+",
                _ => "-",
            };
            let words = bytes_within(delta.unsigned_abs(), error, true);
            (format!("{sign}{words}"), grown(delta, theme))
        }
        Shown::Within(_) => {
            let error = row.figures.error(Measure::Live, Unit::Bytes);
            (bytes_within(unsigned(live_bytes), error, true), plain)
        }
        Shown::Figure(Column::Blocks) if compared => {
            (signed_blocks(row.figures.delta_blocks), theme.dim)
        }
        Shown::Figure(Column::Blocks) => (blocks(unsigned(live_blocks)), theme.dim),
        Shown::Figure(Column::Peak) => (bytes(row.figures.peak_bytes), theme.dim),
        Shown::Figure(Column::Total) => (bytes(row.figures.total_bytes), theme.dim),
        Shown::Figure(Column::Temporary) => (blocks(row.figures.temporary_blocks), theme.dim),
        Shown::Figure(Column::Growth | Column::Name) => {
            let delta = row.figures.delta_bytes;
            (signed_bytes(delta), grown(delta, theme))
        }
        Shown::Own => (bytes(unsigned(row.own_bytes)), theme.dim),
        Shown::Change => {
            let before = live_bytes.saturating_sub(row.figures.delta_bytes);
            let blocks_before = live_blocks.saturating_sub(row.figures.delta_blocks);
            if before == 0 && blocks_before == 0 {
                ("new".into(), theme.bad)
            } else if live_bytes == 0 && live_blocks == 0 {
                ("gone".into(), theme.good)
            } else {
                (String::new(), plain)
            }
        }
        Shown::Trend => {
            let trend = (view.table.trends.as_ref())
                .and_then(|trends| trends.get(row.group as usize))
                .map_or_else(String::new, |trend| spark(trend, TREND_STEPS / 2));
            (trend, theme.plot)
        }
    }
}

/// Writes what a row stands for.
fn name(canvas: &mut Canvas<'_>, theme: &Theme, at: Area, group: &GroupInfo) {
    let room = usize::from(at.width);
    let parts = match &group.name {
        GroupName::Line(frame) if !frame.place.is_empty() && frame.line != 0 => {
            let style = if frame.own { theme.own } else { Style::new() };
            let place = cut_start(&frame.place, room);
            let left = room.saturating_sub(width(&place) + 1);
            vec![
                Part(place, style),
                Part(format!(" {}", cut_middle(&frame.function, left)), theme.dim),
            ]
        }
        GroupName::Site(frame) | GroupName::Line(frame) => frame_parts(frame, room, theme),
        GroupName::Function(frame) => {
            let mut frame = (**frame).clone();
            if let Some((file, _)) = frame.place.rsplit_once(':') {
                frame.place = file.into();
            }
            frame_parts(&frame, room, theme)
        }
        GroupName::Text(text) => vec![Part(cut_start(text, room), Style::new())],
        GroupName::Process(command, pid) => {
            let pid = format!(" (pid {pid})");
            let left = room.saturating_sub(width(&pid));
            vec![
                Part(cut_middle(command, left), Style::new()),
                Part(pid, theme.dim),
            ]
        }
        GroupName::Thread(name, tid, pid) => {
            let ids = format!(" (tid {tid} of {pid})");
            let left = room.saturating_sub(width(&ids));
            vec![
                Part(cut_middle(name, left), Style::new()),
                Part(ids, theme.dim),
            ]
        }
        GroupName::Domain(domain) => {
            use leakline_recording::record::Domain;
            let of = match domain {
                Domain::Native => "malloc and its family",
                Domain::Raw => "PyMem_RawMalloc",
                Domain::Mem => "PyMem_Malloc",
                Domain::Obj => "PyObject_Malloc",
                Domain::Mmap => "anonymous mappings",
                Domain::Python => "Python's allocators",
                Domain::Numpy => "NumPy's arrays",
                Domain::Foreign => "told to tracemalloc",
            };
            vec![
                Part(domain.name().to_owned(), Style::new()),
                Part(format!("  {of}"), theme.dim),
            ]
        }
        GroupName::Unknown => vec![Part("not known".to_owned(), theme.dim)],
    };
    canvas.put_parts(at.x, at.y, at.width, &parts);
}
