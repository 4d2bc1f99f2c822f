//! Where things are on a screen of a given size: what is drawn there and what
//! a click means are decided by the same numbers.

use super::{CallsView, Screen, State};

/// A rectangle of cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Its left column.
    pub x: u16,
    /// Its top row.
    pub y: u16,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Area {
    /// Whether a cell lies in it.
    pub fn holds(&self, x: u16, y: u16) -> bool {
        (self.x..self.x.saturating_add(self.width)).contains(&x)
            && (self.y..self.y.saturating_add(self.height)).contains(&y)
    }

    /// Without its first rows.
    #[must_use]
    pub fn below(&self, rows: u16) -> Area {
        let rows = rows.min(self.height);
        Area {
            y: self.y + rows,
            height: self.height - rows,
            ..*self
        }
    }

    /// Its first rows.
    #[must_use]
    pub fn top(&self, rows: u16) -> Area {
        Area {
            height: rows.min(self.height),
            ..*self
        }
    }
}

/// Narrowest width with all that there is.
pub const FULL_WIDTH: u16 = 60;
/// Fewest rows with all that there is.
const FULL_HEIGHT: u16 = 16;
/// Fewest rows with a tab bar.
const TABS_HEIGHT: u16 = 8;
/// Narrowest width with a pane at the side, and with more columns.
pub const WIDE: u16 = 110;

/// The parts that all screens have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The line that says what the recording is.
    pub header: Option<u16>,
    /// The tab bar.
    pub tabs: Option<u16>,
    /// The answer.
    pub answer: u16,
    /// Lines across.
    pub rules: [Option<u16>; 2],
    /// What the screen itself draws.
    pub body: Area,
    /// Keys, input or a notice; `None` where there is but one row.
    pub foot: Option<u16>,
}

/// The parts for a size.
pub fn frame((width, height): (u16, u16)) -> Frame {
    let body = |y: u16| Area {
        x: 0,
        y,
        width,
        height: height.saturating_sub(y + 1),
    };
    let foot = height.checked_sub(1).filter(|&foot| foot > 0);
    if width >= FULL_WIDTH && height >= FULL_HEIGHT {
        Frame {
            header: Some(0),
            tabs: Some(1),
            answer: 3,
            rules: [Some(2), Some(4)],
            body: body(5),
            foot,
        }
    } else if height >= TABS_HEIGHT {
        Frame {
            header: None,
            tabs: Some(1),
            answer: 0,
            rules: [None, None],
            body: body(2),
            foot,
        }
    } else {
        Frame {
            answer: 0,
            body: body(1),
            foot,
            ..Frame::default()
        }
    }
}

/// Each screen's tab: where it begins and how wide it is.
pub fn tabs(width: u16) -> Vec<(Screen, u16, u16)> {
    let names = Screen::ALL.map(|screen| screen.name().len() as u16 + 2);
    let roomy = names.iter().map(|name| name + 2).sum::<u16>() < width;
    let mut x = 1;
    let mut tabs = Vec::new();
    for (screen, name) in Screen::ALL.into_iter().zip(names) {
        let width = if roomy { name } else { 1 };
        tabs.push((screen, x, width));
        x += width + if roomy { 2 } else { 1 };
    }
    tabs
}

/// The parts of the overview.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Its title and legend.
    pub title: Option<u16>,
    /// Bytes over time, without the labels to its left.
    pub plot: Area,
    /// The axis, and the line with marks and times below it.
    pub axis: Option<u16>,
    /// A line across.
    pub rule: Option<u16>,
    /// What is said about leaks, with a line of column heads.
    pub causes: Area,
    /// Column heads.
    pub head: Option<u16>,
    /// Rows.
    pub rows: Area,
    /// Facts, below the rows or at the side.
    pub facts: Area,
    /// They are at the side.
    pub is_wide: bool,
}

/// Columns for labels at the left of the plot.
pub const PLOT_LABELS: u16 = 11;

/// The parts of the overview.
pub fn overview(state: &State) -> Overview {
    let mut parts = overview_of(state.size);
    let causes = state
        .verdicts
        .as_ref()
        .map_or(0, |verdicts| match verdicts.causes.len() {
            0 => 0,
            // What was not judged is told below.
            causes => causes + usize::from(verdicts.not_judged.0 > 0),
        });
    if let (Some(head), true) = (parts.head, causes > 0 && parts.rows.height > 4) {
        let most = u16::try_from(causes).unwrap_or(u16::MAX).saturating_add(1);
        let height = most.min((parts.rows.height / 2).max(3));
        parts.causes = Area {
            y: head,
            height,
            ..parts.rows
        };
        parts.head = Some(head + height);
        parts.rows = parts.rows.below(height);
    }
    parts
}

/// The parts of the overview for a size, where nothing is said about leaks.
fn overview_of(size: (u16, u16)) -> Overview {
    let body = frame(size).body;
    let is_full = frame(size).header.is_some();
    if !is_full {
        if body.height < 9 || body.width < 30 {
            return Overview {
                rows: body,
                ..Overview::default()
            };
        }
        let plot = Area {
            x: PLOT_LABELS,
            width: body.width - PLOT_LABELS,
            ..body.top(3)
        };
        return Overview {
            plot,
            axis: Some(body.y + 3),
            rows: body.below(5),
            ..Overview::default()
        };
    }
    let is_wide = body.width >= WIDE;
    let side = if is_wide { 41 } else { 0 };
    let left = Area {
        width: body.width - side,
        ..body
    };
    // Title, axis, labels, a line, column heads; facts below where narrow.
    let facts = if is_wide { 0 } else { 4 };
    let plot_rows = (left.height.saturating_sub(5 + facts) / 2).clamp(2, 16);
    let plot = Area {
        x: PLOT_LABELS,
        y: left.y + 1,
        width: left.width - PLOT_LABELS - 1,
        height: plot_rows,
    };
    let head = plot.y + plot_rows + 3;
    let rows = Area {
        y: head + 1,
        height: left.height.saturating_sub(plot_rows + 5 + facts),
        ..left
    };
    Overview {
        title: Some(left.y),
        plot,
        axis: Some(plot.y + plot_rows),
        rule: Some(head - 1),
        causes: Area::default(),
        head: Some(head),
        rows,
        facts: if is_wide {
            Area {
                x: left.width + 1,
                width: side - 1,
                ..body
            }
        } else {
            body.below(body.height.saturating_sub(facts))
        },
        is_wide,
    }
}

/// The instant of a column of `columns`.
pub fn instant_of(column: u16, columns: u16, duration_ns: u64) -> u64 {
    let steps = u128::from(columns.saturating_sub(1).max(1));
    let ns = u128::from(duration_ns) * u128::from(column) / steps;
    u64::try_from(ns).unwrap_or(u64::MAX).min(duration_ns)
}

/// The column of an instant.
pub fn column_of(ns: u64, columns: u16, duration_ns: u64) -> u16 {
    let steps = u128::from(columns.saturating_sub(1));
    let duration = u128::from(duration_ns.max(1));
    let column = (u128::from(ns) * steps + duration / 2) / duration;
    u16::try_from(column)
        .unwrap_or(u16::MAX)
        .min(columns.saturating_sub(1))
}

/// Column heads, and rows, of a table screen.
pub fn table(state: &State) -> (Option<u16>, Area) {
    if state.screen == Screen::Overview {
        let parts = overview(state);
        return (parts.head, parts.rows);
    }
    let mut body = frame(state.size).body;
    if state.screen == Screen::Diff {
        body = body.below(diff_strip(state.size));
    }
    if body.height < 4 {
        (None, body)
    } else {
        (Some(body.y), body.below(1))
    }
}

/// Rows of the diff's timeline.
pub fn diff_strip(size: (u16, u16)) -> u16 {
    match frame(size).body.height {
        0..4 => 0,
        4..12 => 1,
        _ => 4,
    }
}

/// Rows of the list that keys move in.
pub fn list_height(state: &State) -> usize {
    let body = frame(state.size).body;
    let rows = if state.stack.is_some() {
        body.height.saturating_sub(1).max(1)
    } else {
        match state.screen {
            Screen::Overview | Screen::Sites | Screen::Diff => table(state).1.height,
            Screen::Flame => flame(state.size).1.height,
            Screen::Tree | Screen::Source => body.below(u16::from(body.height >= 4)).height,
            Screen::Why => why(state.size).1.height,
            Screen::Procs => procs(state.size).0.height,
            Screen::Rss => rss(state).0.height,
        }
    };
    usize::from(rows)
}

/// Column heads, rows of holders, and what is said about the selected one.
pub fn why(size: (u16, u16)) -> (Option<u16>, Area, Area) {
    /// With a line across.
    const DETAILS: u16 = 4;
    let body = frame(size).body;
    if body.height < 4 {
        return (None, body, Area::default());
    }
    let list = body.below(1);
    if body.height < 12 {
        return (Some(body.y), list, Area::default());
    }
    let rows = list.height - DETAILS;
    (Some(body.y), list.top(rows), list.below(rows))
}

/// Rows of processes, and of the threads of the selected one.
pub fn procs(size: (u16, u16)) -> (Area, Area) {
    let body = frame(size).body;
    if body.height < 8 {
        return (body.below(u16::from(body.height >= 4)), Area::default());
    }
    let upper = body.height / 2;
    (body.top(upper).below(1), body.below(upper))
}

/// Rows of processes, where there are several, and the ledger of the selected one.
pub fn rss(state: &State) -> (Area, Area) {
    let body = frame(state.size).body;
    let accounts = u16::try_from(state.ledgers.accounts.len()).unwrap_or(u16::MAX);
    if accounts < 2 || body.height < 6 {
        return (body.top(0), body);
    }
    let rows = accounts.min((body.height / 4).max(2));
    // With a line of column heads, and one across.
    (body.below(1).top(rows), body.below(rows + 2))
}

/// The line that says where one is, the boxes, and the line on the selected.
pub fn flame(size: (u16, u16)) -> (Option<u16>, Area, Option<u16>) {
    let body = frame(size).body;
    if body.height < 5 {
        return (None, body, None);
    }
    let boxes = Area {
        height: body.height - 2,
        ..body.below(1)
    };
    (Some(body.y), boxes, Some(boxes.y + boxes.height))
}

/// A call's box in the flame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlameBox {
    /// Index of the call; `None`: all of them together.
    pub call: Option<usize>,
    /// Its left column.
    pub x: u16,
    /// Its level below the call that is zoomed to.
    pub level: usize,
    /// Columns.
    pub width: u16,
}

/// The boxes of the flame, callers first: of the call that it is zoomed to,
/// or of all.
pub fn flame_boxes(view: &CallsView, width: u16) -> Vec<FlameBox> {
    let calls = &view.tree.calls;
    let zoom = view.find(view.zoom);
    let whole = zoom.map_or(view.tree.bytes, |zoom| calls[zoom].bytes);
    if whole <= 0 || width == 0 {
        return Vec::new();
    }
    let scale = f64::from(width) / whole as f64;
    let mut boxes = vec![FlameBox {
        call: zoom,
        x: 0,
        level: 0,
        width,
    }];
    // For each call in the zoom: where it begins, and where its next call does.
    let mut next: Vec<Option<f64>> = vec![None; calls.len()];
    let mut next_root = 0.0;
    if let Some(zoom) = zoom {
        next[zoom] = Some(0.0);
    }
    let begins = zoom.map_or(0, |zoom| zoom + 1);
    let depth = zoom.map_or(0, |zoom| usize::from(calls[zoom].depth) + 1);
    for (at, call) in calls.iter().enumerate().skip(begins) {
        if usize::from(call.depth) < depth {
            break;
        }
        let left = match call.parent {
            Some(parent) => next[parent as usize].as_mut(),
            None if zoom.is_none() => Some(&mut next_root),
            None => None,
        };
        let Some(left) = left else { continue };
        let from = *left;
        *left += call.bytes.max(0) as f64 * scale;
        let (x, end) = (from.round() as u16, left.round() as u16);
        next[at] = Some(from);
        if end > x {
            boxes.push(FlameBox {
                call: Some(at),
                x,
                level: usize::from(call.depth) + 1 - depth,
                width: (end - x).min(width.saturating_sub(x)),
            });
        }
    }
    boxes
}
