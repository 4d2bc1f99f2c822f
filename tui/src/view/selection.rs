//! What is selected, as text to copy.

use leakline_analysis::report::{bytes, bytes_within};
use leakline_analysis::{Measure, Unit};

use super::rss;
use crate::state::data::{FrameName, GroupName};
use crate::state::{Screen, State};

/// See the module.
pub(crate) fn selection(state: &State) -> String {
    let frame = |frame: &FrameName| {
        if frame.file.is_empty() {
            format!("{} {}", frame.function, frame.place)
                .trim_end()
                .to_owned()
        } else {
            format!("{} {}:{}", frame.function, frame.file, frame.line)
        }
    };
    let of = |value: i64| bytes(u64::try_from(value).unwrap_or(0));
    if let Some(stack) = &state.stack {
        let frames = stack.frames.iter().flat_map(|frames| frames.iter());
        return frames.map(|one| frame(one) + "\n").collect();
    }
    match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            let Some(view) = state.shown_table() else {
                return String::new();
            };
            let (Some(group), Some(row)) =
                (view.selection(), view.table.rows.get(view.list.selected))
            else {
                return String::new();
            };
            let name = match &group.name {
                GroupName::Site(name) | GroupName::Line(name) | GroupName::Function(name) => {
                    frame(name)
                }
                GroupName::Text(text) => text.to_string(),
                GroupName::Process(command, pid) => format!("{command} (pid {pid})"),
                GroupName::Thread(name, tid, pid) => format!("{name} (tid {tid} of {pid})"),
                GroupName::Domain(domain) => domain.name().to_owned(),
                GroupName::Unknown => "not known".to_owned(),
            };
            let error = row.figures.error(Measure::Live, Unit::Bytes);
            let live = u64::try_from(row.figures.live_bytes).unwrap_or(0);
            format!("{name} {}", bytes_within(live, error, true))
        }
        Screen::Flame | Screen::Tree => {
            let view = state.shown_calls();
            let call = view.find(view.selected).map(|at| &view.tree.calls[at]);
            call.map_or_else(String::new, |call| {
                format!("{} {}", frame(&call.frame), of(call.bytes))
            })
        }
        Screen::Source => {
            let text = &state.source.text;
            let (Some(file), Some(line)) = (&text.file, text.lines.get(state.source.list.selected))
            else {
                return String::new();
            };
            format!("{file}:{}", line.line)
        }
        Screen::Why => {
            let Some((place, step)) = state.why.selection() else {
                return String::new();
            };
            format!("{} ({}) {}", place.words, step.kind, bytes(step.retained))
        }
        Screen::Procs => state
            .facts
            .processes
            .get(state.procs.selected)
            .map_or_else(String::new, |process| process.pid.to_string()),
        Screen::Rss => rss::shown(state).map_or_else(String::new, |account| {
            let bytes = bytes(account.now.rss_bytes());
            format!("RSS {bytes}: {}", account.judgement.words)
        }),
    }
}

/// Where the selected row is made, in short; nothing where that is no place.
pub(super) fn place(state: &State) -> String {
    let words = |frame: &FrameName| {
        if frame.place.is_empty() {
            frame.function.to_string()
        } else {
            format!("{} {}", frame.function, frame.place)
        }
    };
    if let Some(stack) = &state.stack {
        let frame = stack
            .frames
            .as_ref()
            .and_then(|frames| frames.get(stack.list.selected));
        return frame.map_or_else(String::new, words);
    }
    match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            let group = state.shown_table().and_then(|view| view.selection());
            match group.map(|group| &group.name) {
                Some(GroupName::Site(name) | GroupName::Line(name) | GroupName::Function(name)) => {
                    words(name)
                }
                _ => String::new(),
            }
        }
        Screen::Flame | Screen::Tree => {
            let view = state.shown_calls();
            let at = view.find(view.selected);
            at.map_or_else(String::new, |at| words(&view.tree.calls[at].frame))
        }
        Screen::Source => selection(state),
        Screen::Why => {
            (state.why.selection()).map_or_else(String::new, |(place, _)| place.words.clone())
        }
        Screen::Procs | Screen::Rss => String::new(),
    }
}
