//! What keys do about who holds what.

use std::sync::Arc;

use leakline_analysis::GroupBy;

use super::show;
use crate::state::data::{About, GroupInfo, GroupName};
use crate::state::{List, Notice, Screen, StackView, State, layout};

/// Asks, and shows the answer.
pub(super) fn ask(state: &mut State, about: About) {
    if state.screen != Screen::Why {
        state.why.from = Some(state.screen);
    }
    state.why.want.about = about;
    state.why.filter.clear();
    show(state, Screen::Why);
}

/// Asks by a cause's name, or whatever else the user names; of all by nothing.
pub(super) fn named(state: &mut State, text: &str) {
    let causes = state.verdicts.iter().flat_map(|verdicts| &verdicts.causes);
    let cause = causes.into_iter().find(|cause| cause.id == text);
    let is_cause = (text.strip_prefix('L'))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if is_cause && cause.is_none() {
        state.notice = Some(Notice::Failed(format!(
            "the overview has no cause {text} (yet)"
        )));
        return;
    }
    let about = match cause {
        _ if text.is_empty() => About::Gathered,
        Some(cause) => About::Cause(text.into(), Arc::clone(&cause.members)),
        None => About::Named(text.into()),
    };
    ask(state, about);
}

/// Asks about what is selected.
pub(super) fn of_selection(state: &mut State) {
    let about = match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            let view = state.shown_table();
            let by = match state.screen {
                Screen::Overview => GroupBy::Site,
                _ => view.map_or(GroupBy::Site, |view| view.want.by),
            };
            let group = view.and_then(|view| view.selection());
            group.and_then(|group| of_group(state, by, group))
        }
        Screen::Flame | Screen::Tree => {
            let view = state.shown_calls();
            let first = || (state.screen == Screen::Tree).then(|| view.visible().first().copied());
            let at = view.find(view.selected).or_else(|| first().flatten());
            at.map(|at| About::Through(Arc::clone(&view.tree.calls[at].frame)))
        }
        Screen::Source => {
            let text = &state.source.text;
            let line = text.lines.get(state.source.list.selected);
            let place = text.file.as_ref().zip(line);
            place.map(|(file, line)| About::Named(format!("{file}:{}", line.line).into()))
        }
        Screen::Why => return,
        Screen::Procs | Screen::Rss => None,
    };
    match about {
        Some(about) => ask(state, about),
        None => state.notice = Some(Notice::NoQuestion),
    }
}

/// Of a site that the overview says leaks, the cause; threads are not known.
fn of_group(state: &State, by: GroupBy, group: &GroupInfo) -> Option<About> {
    if by == GroupBy::Thread {
        return None;
    }
    if let (Screen::Overview, Some(site), Some(verdicts)) =
        (state.screen, group.site, &state.verdicts)
    {
        let cause = (verdicts.causes.iter())
            .find(|cause| !cause.id.is_empty() && cause.members.binary_search(&site).is_ok());
        if let Some(cause) = cause {
            return Some(About::Cause(
                cause.id.as_str().into(),
                Arc::clone(&cause.members),
            ));
        }
    }
    let words: Arc<str> = match &group.name {
        GroupName::Site(frame) | GroupName::Line(frame) | GroupName::Function(frame) => {
            format!("{} {}", frame.function, frame.place)
                .trim_end()
                .into()
        }
        GroupName::Text(text) => Arc::clone(text),
        GroupName::Process(_, pid) => format!("pid {pid}").into(),
        GroupName::Thread(name, ..) => Arc::clone(name),
        GroupName::Domain(domain) => domain.name().into(),
        GroupName::Unknown => "not known".into(),
    };
    Some(About::Group(by, group.key, words))
}

/// To the heap graph after this one, or before.
pub(super) fn other_graph(state: &mut State, steps: i32) {
    let to = state.graph().and_then(|(_, at)| {
        let to = if steps > 0 {
            at.checked_add(1)
        } else {
            at.checked_sub(1)
        };
        state.facts.graphs.get(to?)
    });
    match to {
        Some(graph) => state.why.want.graph = Some(graph.number),
        None => state.notice = Some(Notice::NoGraph),
    }
}

/// Opens and closes a place; of a step, the stack that made its objects.
pub(super) fn enter(state: &mut State) {
    let Some(row) = state.why.row() else {
        return;
    };
    if row.step.is_none() {
        if !state.why.open.remove(&row.place) {
            state.why.open.insert(row.place);
        }
        keep(state);
        return;
    }
    match state.why.selection().and_then(|(_, step)| step.site) {
        Some(site) => {
            state.stack = Some(StackView {
                site,
                ..StackView::default()
            });
        }
        None => state.notice = Some(Notice::NoSite),
    }
}

/// Opens a place, or goes on to what is below; closes it, or goes up to it.
pub(super) fn sideways(state: &mut State, right: bool) {
    let Some(row) = state.why.row() else {
        return;
    };
    let view = &mut state.why;
    if right {
        if !view.open.insert(row.place) {
            view.list.selected += 1;
        }
    } else if row.step.is_none() {
        view.open.remove(&row.place);
    } else {
        let rows = view.rows();
        let place = rows.iter().position(|other| other.place == row.place);
        view.list.selected = place.unwrap_or(0);
    }
    keep(state);
}

/// Out of a filter, then out of a question to where it was asked.
pub(super) fn back(state: &mut State) {
    if !state.why.filter.is_empty() {
        filter(state, "");
    } else if state.why.want.about != About::Gathered {
        state.why.want.about = About::Gathered;
        if let Some(from) = state.why.from.take() {
            show(state, from);
        }
    }
}

/// Shows only places that match.
pub(super) fn filter(state: &mut State, text: &str) {
    if state.why.filter != text {
        text.clone_into(&mut state.why.filter);
        state.why.list = List::default();
    }
}

/// What is selected stays on the screen.
fn keep(state: &mut State) {
    let height = layout::list_height(state);
    let len = state.why.rows().len();
    let list = &mut state.why.list;
    list.select(list.selected, len, height);
}
