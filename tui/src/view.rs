//! Draws the state. A file a screen; what they share is here.
//!
//! # Invariants
//!
//! * Drawn from `&State` alone: the same state, the same cells.
//! * No size makes it panic: what does not fit is cut.

mod canvas;
mod diff;
mod flame;
mod help;
mod overview;
mod procs;
mod rows;
mod rss;
mod selection;
mod source;
mod stack;
mod tree;
mod why;
mod words;

use leakline_analysis::report::text::signal_name;
use leakline_analysis::report::{
    blocks, bytes, bytes_within, duration, rate, signed_blocks, signed_bytes,
};
use leakline_analysis::{Measure, Unit};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::state::data::{Column, Facts, Fate, Moment, TimePoint, Usual, Verdict};
use crate::state::{COLUMNS, Chord, GROUPS, Notice, Phase, PromptKind, Screen, State, layout};
use crate::theme::{Theme, theme};
use canvas::{Canvas, Part};
pub(crate) use selection::selection;
use words::{clock, instant, percent};

/// Draws everything.
pub fn draw(state: &State, buffer: &mut Buffer) {
    let area = buffer.area;
    let theme = theme(state.theme);
    let mut canvas = Canvas::new(buffer);
    let frame = layout::frame((area.width, area.height));
    if let Some(y) = frame.header {
        header(state, &theme, &mut canvas, y);
    }
    if let Some(y) = frame.tabs {
        tab_bar(state, &theme, &mut canvas, y);
    }
    for y in frame.rules.into_iter().flatten() {
        canvas.rule(0, y, area.width, theme.dim);
    }
    answer(state, &theme, &mut canvas, frame.answer);
    if state.help {
        help::draw(state, &theme, &mut canvas, frame.body);
    } else if state.stack.is_some() {
        stack::draw(state, &theme, &mut canvas, frame.body);
    } else if !state.is_due() || state.screen == Screen::Overview {
        match state.screen {
            Screen::Overview => overview::draw(state, &theme, &mut canvas),
            Screen::Sites => rows::draw(state, &theme, &mut canvas),
            Screen::Flame => flame::draw(state, &theme, &mut canvas),
            Screen::Tree => tree::draw(state, &theme, &mut canvas, frame.body),
            Screen::Diff => diff::draw(state, &theme, &mut canvas, frame.body),
            Screen::Source => source::draw(state, &theme, &mut canvas, frame.body),
            Screen::Why => why::draw(state, &theme, &mut canvas),
            Screen::Procs => procs::draw(state, &theme, &mut canvas),
            Screen::Rss => rss::draw(state, &theme, &mut canvas, frame.body),
        }
    }
    if let Some(y) = frame.foot {
        foot(state, &theme, &mut canvas, y);
    }
}

/// The screen as lines of text, without spaces at their ends.
pub fn text(state: &State) -> String {
    let (width, height) = state.size;
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw(state, &mut buffer);
    text_of(&buffer)
}

/// The cells as lines of text, without spaces at their ends.
pub fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let mut line = String::new();
        // A wide letter covers the cell after it.
        let mut covered = 0;
        for cell in row {
            if covered > 0 {
                covered -= 1;
                continue;
            }
            line.push_str(cell.symbol());
            covered = canvas::width(cell.symbol()).saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How many lines the help on a screen has.
pub(crate) fn help_lines(state: &State) -> usize {
    help::wrapped(state.screen, state.size.0).len()
}

/// The column whose head is at a place.
pub(crate) fn column_at(state: &State, x: u16) -> Option<Column> {
    rows::column_at(state, x)
}

/// Below this width a row has room for a figure and half a name.
const NARROW: u16 = 40;

fn header(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let facts = &state.facts;
    let width = canvas.columns();
    // How it ended, and what was lost, may not be known yet.
    let is_read = state.phase == Phase::Ready;
    if !is_read && facts.times.is_empty() {
        return;
    }
    let others = facts.processes.len().saturating_sub(1);
    let pid = facts.processes.first().map_or(0, |first| first.pid);
    let mut parts: Vec<(String, ratatui::style::Style)> = Vec::new();
    let processes = match others {
        0 => format!("pid {pid}"),
        1 => format!("pid {pid} +1 process"),
        _ => format!("pid {pid} +{others} processes"),
    };
    // The process of an import is none.
    if facts.snapshots().is_none() {
        parts.push((processes, theme.dim));
    }
    let length = duration(facts.duration_ns);
    if !is_read {
        parts.push((format!("reading {length}"), theme.dim));
    } else if facts.ended {
        let (text, style) = match first_fate(facts) {
            Some(Fate::Status(0)) | None => (format!("ended {length}"), theme.dim),
            Some(Fate::Status(status)) => (format!("status {status} {length}"), theme.bad),
            Some(Fate::Signal(signal)) => (format!("{} {length}", signal_name(signal)), theme.bad),
            Some(_) => (format!("ended {length}"), theme.dim),
        };
        parts.push((text, style));
    } else if facts.growing {
        parts.push((format!("LIVE {length}"), theme.unclear));
    } else {
        parts.push((format!("no farewell {length}"), theme.unclear));
    }
    let mode = if facts.sample_bytes > 0 {
        format!("{} 1/{}", facts.mode, bytes(facts.sample_bytes))
    } else {
        facts.mode.clone()
    };
    parts.push((mode, theme.dim));
    if !facts.warnings.is_empty() {
        parts.push(("damaged".to_owned(), theme.bad));
    }
    let lost = facts.totals.lost_events;
    let style = if lost > 0 { theme.bad } else { theme.dim };
    if is_read || lost > 0 {
        parts.push((format!("lost {}", blocks(lost)), style));
    }
    let right: usize = parts.iter().map(|(text, _)| canvas::width(text) + 3).sum();
    let room = usize::from(width).saturating_sub(right + 1).max(8);
    let mut x = canvas.put(
        1,
        y,
        room as u16,
        &canvas::cut_end(&facts.program, room),
        theme.strong,
    );
    for (text, style) in parts {
        x += 3;
        x = canvas.put(x, y, width.saturating_sub(x), &text, style);
    }
}

/// How the program that was recorded first ended.
fn first_fate(facts: &Facts) -> Option<Fate> {
    // What went on as another program did so under the same pid.
    let first = facts.processes.first()?;
    let last = facts.processes.iter().rev();
    last.filter(|process| process.pid == first.pid)
        .map(|process| process.fate)
        .next()
}

/// How the recording came to its end, and whether that is bad.
fn ending(facts: &Facts) -> (String, bool) {
    match first_fate(facts) {
        Some(Fate::Status(status)) => {
            let text = format!("the program ended with status {status}");
            (text, status != 0)
        }
        Some(Fate::Signal(signal)) => {
            let text = format!("the program was killed ({})", signal_name(signal));
            (text, true)
        }
        _ => ("the recording ended".to_owned(), false),
    }
}

fn tab_bar(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let mut end = 0;
    for (screen, x, width) in layout::tabs(canvas.columns()) {
        let is_here = screen == state.screen;
        let name = if width > 1 {
            format!("{} {}", screen.digit(), screen.name())
        } else {
            screen.digit().to_string()
        };
        let style = if is_here { theme.selected } else { theme.dim };
        end = canvas.put(x, y, width, &name, style);
    }
    if canvas.columns() < layout::FULL_WIDTH {
        let left = canvas.columns().saturating_sub(end + 2);
        canvas.put(end + 2, y, left, state.screen.name(), theme.strong);
    }
    if state.waiting && state.phase == Phase::Ready {
        let x = canvas.columns().saturating_sub(2);
        canvas.put(x, y, 1, "…", theme.dim);
    }
}

/// The first line: what this instant has to say.
fn answer(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let width = canvas.columns();
    if let Phase::Reading(read, of) = state.phase {
        let share = if of == 0 {
            0.0
        } else {
            read as f64 / of as f64
        };
        let text = format!("reading, {} of {}", percent(share), bytes(of));
        let x = canvas.put(1, y, width, &text, theme.strong);
        if state.screen == Screen::Overview
            && let Some(time) = time_at(&state.facts, state.at.ns)
        {
            let text = format!(
                "{} live in {} blocks",
                bytes(time.live_bytes),
                blocks(time.live_blocks)
            );
            let x = canvas.put(x + 3, y, width.saturating_sub(x + 3), &text, theme.strong);
            let when = clock(&state.facts, time.end_ns);
            canvas.put(x + 2, y, width.saturating_sub(x + 2), &when, theme.key);
        }
        return;
    }
    let is_full = width >= layout::FULL_WIDTH;
    let mut x = u16::from(is_full);
    if state.screen == Screen::Why && state.stack.is_none() {
        let (text, when) = why::answer(state);
        let most = usize::from(width.saturating_sub(x));
        let x = canvas.put(x, y, width, &canvas::cut_end(&text, most), theme.strong);
        let room = width.saturating_sub(x + 3);
        let when = canvas::cut_end(&when, room.into());
        canvas.put(x + 3, y, room, &when, theme.key);
        return;
    }
    if !state.answered || state.is_due() {
        canvas.put(x, y, width, "adding up", theme.dim);
        return;
    }
    if state.screen == Screen::Rss && state.stack.is_none() {
        return rss::answer(state, theme, canvas, x, y);
    }
    if let Some(verdicts) = &state.verdicts
        && state.screen == Screen::Overview
    {
        let leaks = verdicts
            .causes
            .iter()
            .filter(|cause| matches!(cause.verdict, Verdict::Leaking | Verdict::Unreachable));
        let (count, rate) = leaks.fold((0, 0.0), |(count, sum), cause| {
            (count + 1, sum + cause.rate.map_or(0.0, |(rate, _)| rate))
        });
        let is_grown = verdicts
            .causes
            .iter()
            .any(|cause| cause.verdict == Verdict::Growing);
        // As few as `leaks` does not judge by.
        let few = state.facts.snapshots().filter(|snapshots| *snapshots < 8);
        let mut text = match (count, few) {
            (0, Some(few)) => format!("UNCLEAR from {few} snapshots"),
            (0, None) if is_grown => "No leak found yet".to_owned(),
            (0, None) => "No leak found".to_owned(),
            (1, _) => format!("LEAK  1 cause, {}", words::per_minute(rate)),
            _ => format!("LEAK  {count} causes, {}", words::per_minute(rate)),
        };
        if verdicts.not_judged.0 > 0 && width >= 80 {
            text.push_str(" among the sites that rose most");
        }
        if let Some((limit, seconds)) = verdicts.limit {
            let ns = (seconds.max(0.0) * 1e9) as u64;
            text.push_str("   limit ");
            if width >= 100 {
                text.push_str("of ");
                text.push_str(&bytes(limit));
                text.push(' ');
            }
            text.push_str("in ");
            text.push_str(&duration(ns));
        }
        let style = match count {
            0 if is_grown || few.is_some() => theme.unclear,
            0 => theme.good,
            _ => theme.bad,
        };
        x = canvas.put(x, y, width, &text, style) + 3;
    }
    let live = u64::try_from(state.sum.live_bytes).unwrap_or(0);
    let live = if is_full {
        bytes_within(live, state.sum.error(Measure::Live, Unit::Bytes), true)
    } else {
        bytes(live)
    };
    let count = state.sum.live_blocks;
    let (text, when) = if state.screen == Screen::Diff && state.stack.is_none() {
        let sum = &state.sum;
        let grew = if sum.delta_bytes < 0 { "fell" } else { "grew" };
        let text = if is_full {
            format!(
                "live memory {grew} by {} ({} blocks)",
                bytes_within(
                    sum.delta_bytes.unsigned_abs(),
                    sum.error(Measure::Growth, Unit::Bytes),
                    true
                ),
                signed_blocks(sum.delta_blocks)
            )
        } else {
            format!("{} {}", signed_bytes(sum.delta_bytes), state.screen.name())
        };
        let from = clock(&state.facts, state.diff_at.ns);
        (
            text,
            format!("{from} to {}", clock(&state.facts, state.at.ns)),
        )
    } else if is_full && x == 1 {
        let blocks = blocks(u64::try_from(count).unwrap_or(0));
        (format!("{live} live in {blocks} blocks"), when(state))
    } else if is_full {
        (format!("{live} live"), when(state))
    } else {
        let at = format!("+{}", duration(state.at.ns));
        (format!("{live} live"), at)
    };
    let x = canvas.put(x, y, width, &text, theme.strong);
    let room = width.saturating_sub(x + 2);
    let x = canvas.put(
        x + 2,
        y,
        room,
        &canvas::cut_end(&when, room.into()),
        theme.key,
    );
    let peak = format!(
        "peak {} at {}",
        bytes(state.facts.totals.peak_bytes),
        instant(&state.facts, state.facts.peak.at_ns)
    );
    let room = width.saturating_sub(x + 3);
    if canvas::width(&peak) <= room.into() && is_full {
        let at = width - canvas::width(&peak) as u16 - 1;
        canvas.put(at, y, room, &peak, theme.dim);
    }
}

/// The instant, in words.
fn when(state: &State) -> String {
    let facts = &state.facts;
    let clock = clock(facts, state.at.ns);
    let name = match state.moment {
        Moment::Usual if facts.growing => "now",
        Moment::Usual if facts.usual == Usual::MainLeft => "when main left",
        Moment::Usual if facts.usual == Usual::EachLeft => "when each process was done",
        Moment::Usual | Moment::End if state.at.ns == facts.duration_ns => "at the end",
        Moment::Peak => "at the peak",
        Moment::Start => "at the start",
        _ => match facts.marks.iter().find(|mark| mark.at_ns == state.at.ns) {
            Some(mark) => return format!("{clock} at `{}`", mark.name),
            None => return format!("at {clock}, +{}", duration(state.at.ns)),
        },
    };
    format!("{name}, {clock}")
}

fn foot(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, y: u16) {
    let width = canvas.columns();
    if let Some(prompt) = &state.prompt {
        let (sign, hint) = match prompt.kind {
            PromptKind::Search
                if matches!(state.screen, Screen::Sites | Screen::Diff | Screen::Why) =>
            {
                ("/", "rows with this; enter keeps, esc undoes")
            }
            PromptKind::Search => ("/", "enter finds, n next, N back"),
            PromptKind::Command => (":", "tab completes, enter runs, esc leaves"),
            PromptKind::Mark => ("m", "name of this instant; enter keeps it, esc leaves"),
        };
        let x = canvas.put(0, y, 1, sign, theme.key);
        let text = canvas::cut_start(&prompt.text, usize::from(width).saturating_sub(2));
        let x = canvas.put(x, y, width, &text, theme.strong);
        let x = canvas.put(x, y, 1, "▏", theme.key);
        let room = width.saturating_sub(x + 3);
        if canvas::width(hint) <= room.into() {
            canvas.put(x + 3, y, room, hint, theme.dim);
        }
        return;
    }
    if let Some(chord) = state.chord {
        let (what, choices): (_, Vec<(char, &str)>) = match chord {
            Chord::Group => {
                let mut all: Vec<_> = GROUPS.iter().map(|(key, by)| (*key, by.name())).collect();
                all.push(('g', "top"));
                ("group", all)
            }
            Chord::Order => {
                let mut all: Vec<_> = COLUMNS
                    .iter()
                    .map(|(key, column)| (*key, column.name()))
                    .collect();
                all.push(('r', "reverse"));
                ("sort", all)
            }
        };
        let mut x = canvas.put(0, y, width, what, theme.strong);
        for (key, name) in choices {
            x = canvas.put(x + 2, y, width, &key.to_string(), theme.key);
            x = canvas.put(x + 1, y, width, name, theme.dim);
        }
        return;
    }
    if let Some(notice) = &state.notice {
        let (text, style) = notice_words(state, notice, theme);
        canvas.put(
            u16::from(width >= layout::FULL_WIDTH),
            y,
            width,
            &text,
            style,
        );
        return;
    }
    if width < NARROW && !state.help {
        // The rows have room for little: here is where the selected one is.
        let text = selection::place(state);
        if !text.is_empty() {
            canvas.put(
                0,
                y,
                width,
                &canvas::cut_start(&text, width.into()),
                theme.own,
            );
            return;
        }
    }
    let keys: &[(&str, &str)] = if state.help {
        &[("esc", "back"), ("j k", "scroll"), ("q", "back")]
    } else if state.stack.is_some() {
        &[
            ("enter", "source"),
            ("esc", "back"),
            ("y", "copy"),
            ("e", "export"),
            ("?", "help"),
            ("q", "quit"),
        ]
    } else {
        match state.screen {
            Screen::Overview => &[
                ("enter", "stack"),
                ("s", "source"),
                ("w", "why"),
                ("←→", "time"),
                ("[ ]", "marks"),
                ("d", "diff"),
                ("?", "help"),
                ("q", "quit"),
                (":", "command"),
                ("y", "copy"),
                ("e", "export"),
            ],
            Screen::Sites => &[
                ("enter", "stack"),
                ("s", "source"),
                ("w", "why"),
                ("←→", "time"),
                ("g", "group"),
                ("o", "sort"),
                ("/", "filter"),
                ("?", "help"),
                ("q", "quit"),
                ("i", "own/total"),
                (":", "command"),
                ("y", "copy"),
            ],
            Screen::Flame => &[
                ("enter", "zoom"),
                ("esc", "out"),
                ("h j k l", "move"),
                ("←→", "time"),
                ("s", "source"),
                ("?", "help"),
                ("q", "quit"),
                ("/", "find"),
                ("y", "copy"),
            ],
            Screen::Tree => &[
                ("enter", "open"),
                ("h l", "close, open"),
                ("i", "invert"),
                ("←→", "time"),
                ("s", "source"),
                ("w", "why"),
                ("?", "help"),
                ("q", "quit"),
                ("/", "find"),
                ("y", "copy"),
            ],
            Screen::Diff => &[
                ("←→", "time"),
                ("a", "A here"),
                ("b", "B here"),
                ("x", "swap"),
                ("g", "group"),
                ("enter", "stack"),
                ("?", "help"),
                ("q", "quit"),
                ("s", "source"),
                ("/", "filter"),
            ],
            Screen::Source => &[
                ("j k", "move"),
                ("←→", "time"),
                ("/", "find"),
                ("g f", "functions"),
                ("?", "help"),
                ("q", "quit"),
                ("y", "copy"),
            ],
            Screen::Why => &[
                ("enter", "open"),
                ("[ ]", "graphs"),
                ("s", "source"),
                ("/", "filter"),
                ("esc", "back"),
                ("?", "help"),
                ("q", "quit"),
                (":", "command"),
                ("y", "copy"),
                ("e", "export"),
            ],
            Screen::Rss => &[
                ("j k", "process"),
                ("←→", "time"),
                ("a", "since here"),
                ("[ ]", "marks"),
                ("?", "help"),
                ("q", "quit"),
                ("y", "copy"),
                ("e", "export"),
            ],
            Screen::Procs => &[
                ("j k", "move"),
                ("←→", "time"),
                ("g t", "threads"),
                ("g p", "processes"),
                ("?", "help"),
                ("q", "quit"),
                ("y", "copy"),
            ],
        }
    };
    let mut keys = keys.to_vec();
    if state.facts.growing && !state.help && state.stack.is_none() {
        keys.insert(keys.len().min(3), ("m", "mark"));
    }
    let mut x = u16::from(width >= layout::FULL_WIDTH);
    for (key, name) in keys {
        let needs = (canvas::width(key) + canvas::width(name) + 1) as u16;
        if x + needs > width {
            break;
        }
        x = canvas.put(x, y, width, key, theme.key);
        x = canvas.put(x + 1, y, width, name, theme.dim) + 2;
    }
}

fn notice_words(state: &State, notice: &Notice, theme: &Theme) -> (String, ratatui::style::Style) {
    match notice {
        Notice::Copied => ("copied, if the terminal allows it".into(), theme.good),
        Notice::Exported(name) => (format!("written to {name}"), theme.good),
        Notice::Failed(why) => (why.clone(), theme.bad),
        Notice::SetA => {
            let at = instant(&state.facts, state.ns_of(state.diff_from));
            (format!("A is {at}"), theme.good)
        }
        Notice::SetB => {
            let at = instant(
                &state.facts,
                state.ns_of(state.diff_to.unwrap_or(state.moment)),
            );
            (format!("B is {at}"), theme.good)
        }
        Notice::NotFound(text) => (format!("nothing has `{text}`"), theme.unclear),
        Notice::Marked(name) => (format!("this instant is kept as `{name}`"), theme.good),
        Notice::Ended => {
            let (how, is_bad) = ending(&state.facts);
            let clock = clock(&state.facts, state.facts.duration_ns);
            let style = if is_bad { theme.bad } else { theme.strong };
            (
                format!("{how} at {clock}; this stays until you leave (q)"),
                style,
            )
        }
        Notice::NoMark => ("no further mark".into(), theme.unclear),
        Notice::NoSource => (
            "the recording names no source line for this".into(),
            theme.unclear,
        ),
        Notice::NoSite => ("where these were made is not known".into(), theme.unclear),
        Notice::NoGraph => ("no further heap graph".into(), theme.unclear),
        Notice::NoQuestion => (
            "w asks of a site, a line, a function or a call".into(),
            theme.unclear,
        ),
    }
}

/// A frame's name in so many columns: the function gives way first.
fn frame_parts(frame: &crate::state::data::FrameName, room: usize, theme: &Theme) -> Vec<Part> {
    let place_width = canvas::width(&frame.place);
    let name_width = canvas::width(&frame.function);
    let gap = usize::from(place_width > 0);
    // In so little room a name says more than two halves; the foot has the rest.
    let few = 16;
    let style = if frame.own {
        theme.own
    } else {
        ratatui::style::Style::new()
    };
    if name_width + gap + place_width <= room {
        return vec![
            Part(frame.function.to_string(), style),
            Part(" ".repeat(gap), style),
            Part(frame.place.to_string(), theme.dim),
        ];
    }
    if room < few {
        return vec![Part(canvas::cut_end(&frame.function, room), style)];
    }
    // The place says where to look: it stays whole as long as it can.
    let for_name = room
        .saturating_sub(gap + place_width)
        .max(name_width.min(room / 2));
    let for_place = room.saturating_sub(for_name + gap);
    vec![
        Part(canvas::cut_middle(&frame.function, for_name), style),
        Part(" ".repeat(gap), style),
        Part(canvas::cut_start(&frame.place, for_place), theme.dim),
    ]
}

/// The session at the end of the last bin until an instant.
fn time_at(facts: &Facts, ns: u64) -> Option<&TimePoint> {
    let after = facts.times.partition_point(|time| time.end_ns <= ns);
    facts.times.get(after.checked_sub(1)?)
}

/// A rate over the whole recording.
/// What Flame and Tree say when they have no calls.
fn nothing_live(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: layout::Area) {
    if state.phase == Phase::Ready && !state.waiting {
        let text = "nothing is live at this instant";
        canvas.put(1, area.y, area.width, text, theme.dim);
    }
}

fn per_second(count: u64, duration_ns: u64) -> String {
    if duration_ns == 0 {
        return "0".into();
    }
    rate(count as f64 / (duration_ns as f64 / 1e9))
}
