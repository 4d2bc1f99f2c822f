//! Processes, and the threads of the selected one.

use leakline_analysis::report::json::python_version;
use leakline_analysis::report::text::signal_name;
use leakline_analysis::report::{blocks, bytes, duration};
use ratatui::style::Style;

use super::canvas::{Canvas, cut_end};
use crate::state::data::{Fate, ThreadInfo};
use crate::state::{Phase, State, layout};
use crate::theme::Theme;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>) {
    if state.phase != Phase::Ready {
        return;
    }
    let (rows, threads) = layout::procs((canvas.columns(), canvas.rows()));
    let facts = &state.facts;
    let width = rows.width;
    let columns: &[(&str, u16)] = match width {
        0..60 => &[("pid", 8), ("live", 11)],
        60..110 => &[
            ("pid", 8),
            ("live", 11),
            ("RSS", 11),
            ("peak", 11),
            ("end", 11),
        ],
        _ => &[
            ("pid", 8),
            ("live", 11),
            ("blocks", 11),
            ("RSS", 11),
            ("peak", 11),
            ("allocations", 14),
            ("lost", 8),
            ("end", 11),
        ],
    };
    if rows.y > layout::frame((canvas.columns(), canvas.rows())).body.y {
        let mut end = 0;
        for (name, room) in columns {
            end += room;
            canvas.put_right(end + 1, rows.y - 1, *room, name, theme.dim);
        }
        canvas.put(end + 3, rows.y - 1, width, "process", theme.dim);
    }
    let selected = state.procs.selected;
    let all = facts.processes.iter().enumerate().skip(state.procs.first);
    for (y, (at, process)) in (rows.y..rows.y + rows.height).zip(all) {
        let (figures, rss) = state.proc_figures.get(at).copied().unwrap_or_default();
        let of = |value: i64| u64::try_from(value).unwrap_or(0);
        if at == selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        let mut end = 0;
        for (name, room) in columns {
            end += room;
            let (text, style) = match *name {
                "pid" => (process.pid.to_string(), Style::new()),
                "live" => (bytes(of(figures.live_bytes)), Style::new()),
                "blocks" => (blocks(of(figures.live_blocks)), theme.dim),
                "RSS" => (rss.map_or_else(|| "-".into(), bytes), theme.dim),
                "peak" => (bytes(process.peak_bytes), theme.dim),
                "allocations" => (blocks(process.allocations), theme.dim),
                "end" => match process.fate {
                    Fate::Signal(signal) => (signal_name(signal), theme.bad),
                    Fate::Status(0) => ("status 0".into(), theme.dim),
                    Fate::Status(status) => (format!("status {status}"), theme.bad),
                    Fate::Exec => ("exec".into(), theme.dim),
                    Fate::Running => ("running".into(), theme.unclear),
                    Fate::Ended => ("ended".into(), theme.dim),
                    Fate::NotSeen => ("not seen".into(), theme.dim),
                },
                _ if process.lost_events > 0 => (blocks(process.lost_events), theme.bad),
                _ => ("0".into(), theme.dim),
            };
            canvas.put_right(end + 1, y, *room, &text, style);
        }
        let started = match process.started_ns {
            0 => String::new(),
            ns => format!(" from +{}", duration(ns)),
        };
        let until = match process.ended_ns {
            Some(ns) => format!(" until +{}", duration(ns)),
            None => String::new(),
        };
        let python = python_version(process.python_version)
            .map_or_else(String::new, |version| format!("CPython {version}"));
        let what = format!("{python}{started}{until}");
        let x = end + 3;
        let room = usize::from(width.saturating_sub(x));
        let command = cut_end(&process.command, room);
        let x = canvas.put(x, y, width, &command, Style::new());
        canvas.put(x + 2, y, width.saturating_sub(x + 2), &what, theme.dim);
        if at == selected {
            canvas.paint(0, y, width, theme.selected);
        }
    }
    if threads.height > 1 {
        canvas.rule(0, threads.y, width, theme.dim);
        let mut own: Vec<&ThreadInfo> = facts
            .threads
            .iter()
            .filter(|thread| thread.process as usize == selected)
            .collect();
        own.sort_by_key(|thread| std::cmp::Reverse((thread.live.0, thread.total.0)));
        let pid = facts
            .processes
            .get(selected)
            .map_or(0, |process| process.pid);
        let count = own.len();
        let title =
            format!(" threads of {pid}, {count}; of the whole recording, by what they allocated ");
        canvas.put(2, threads.y, width.saturating_sub(2), &title, theme.dim);
        let list = threads.below(1);
        let mut y = list.y;
        if list.height > 1 {
            for (name, end) in [("tid", 9), ("live", 20), ("total", 31)] {
                canvas.put_right(end, y, 10, name, theme.dim);
            }
            canvas.put(33, y, width, "thread", theme.dim);
            y += 1;
        }
        for thread in own {
            if y >= list.y + list.height {
                break;
            }
            canvas.put_right(9, y, 8, &thread.tid.to_string(), Style::new());
            canvas.put_right(20, y, 10, &bytes(thread.live.0), Style::new());
            canvas.put_right(31, y, 10, &bytes(thread.total.0), theme.dim);
            canvas.put(33, y, width.saturating_sub(33), &thread.name, Style::new());
            y += 1;
        }
    }
}
