//! What happens to the state, and nothing else: no clock, no file, no terminal.

mod command;
mod why;

pub(crate) use command::COMMANDS;

use std::sync::Arc;

use leakline_analysis::GroupBy;

use crate::message::{Action, Effect, Message, Move, Time};
use crate::state::data::{About, Column, GroupName, Moment};
use crate::state::{
    COLUMNS, Chord, GROUPS, List, Notice, Phase, Prompt, PromptKind, Screen, StackView, State,
    layout,
};

/// Why no mark can be set.
const ENDED: &str = "the recording has ended: marks can be set while it is made";

/// Takes a message; says what else there is to do.
pub fn update(state: &mut State, message: Message) -> Option<Effect> {
    let before = state.want();
    let effect = take(state, message);
    if let Phase::Reading(..) = state.phase {
        // No answer says it yet.
        state.at.ns = state.ns_of(state.moment);
    }
    if state.want() != before {
        state.waiting = true;
    }
    effect
}

fn take(state: &mut State, message: Message) -> Option<Effect> {
    match message {
        Message::Resize(width, height) => {
            state.size = (width, height);
            keep_in_sight(state);
        }
        Message::Progress(read, of) => state.phase = Phase::Reading(read, of),
        Message::Skimmed(facts) => {
            if let Phase::Reading(..) = state.phase {
                state.facts = facts;
            }
        }
        Message::Facts(facts) => {
            if state.phase == Phase::Ready && facts.ended && !state.facts.ended {
                state.notice = Some(Notice::Ended);
            }
            state.phase = Phase::Ready;
            state.facts = facts;
        }
        Message::Verdicts(verdicts) => {
            state.verdicts = Some(verdicts);
            keep_in_sight(state);
        }
        Message::Answer(answer) => {
            state.take(*answer);
            if !state.waiting
                && let Some(action) = state.due.take()
            {
                return act(state, action);
            }
        }
        Message::Exported(Ok(name)) => state.notice = Some(Notice::Exported(name)),
        Message::Exported(Err(why)) | Message::Marked(Err(why)) => {
            state.notice = Some(Notice::Failed(why));
        }
        Message::Marked(Ok(name)) => state.notice = Some(Notice::Marked(name)),
        Message::Key(action) => {
            state.notice = None;
            state.due = None;
            return act(state, action);
        }
        Message::Click(x, y) => {
            state.notice = None;
            state.due = None;
            click(state, x, y);
        }
        Message::Wheel(_, _, down) => {
            let rows = if down { 3 } else { -3 };
            move_by(state, Move::Rows(rows));
        }
    }
    None
}

fn act(state: &mut State, action: Action) -> Option<Effect> {
    if let Action::Redraw = action {
        return Some(Effect::Redraw);
    }
    if let Action::Suspend = action {
        return Some(Effect::Suspend);
    }
    if let Action::Quit = action {
        if state.help {
            state.help = false;
        } else {
            state.quit = true;
        }
        return None;
    }
    if state.prompt.is_some() {
        return in_prompt(state, action);
    }
    if let Some(chord) = state.chord.take() {
        if let Action::Second(letter) = action {
            second(state, chord, letter);
        }
        return None;
    }
    if state.help {
        match action {
            Action::Move(by) => move_by(state, by),
            Action::Help | Action::Back | Action::Enter => state.help = false,
            _ => {}
        }
        return None;
    }
    match action {
        // The rows on the screen are not those that were asked for.
        Action::Enter | Action::Source | Action::Why if state.waiting && state.stack.is_none() => {
            state.due = Some(action);
        }
        Action::Show(Screen::Why) => why::ask(state, About::Gathered),
        Action::Show(screen) => show(state, screen),
        Action::Time(Time::Mark(steps)) if state.screen == Screen::Why && state.stack.is_none() => {
            why::other_graph(state, steps);
        }
        Action::Why => why::of_selection(state),
        Action::Cycle(forward) => {
            let all = Screen::ALL.len();
            let at = Screen::ALL
                .iter()
                .position(|&screen| screen == state.screen);
            let step = if forward { 1 } else { all - 1 };
            show(state, Screen::ALL[(at.unwrap_or(0) + step) % all]);
        }
        Action::Move(by) => move_by(state, by),
        Action::Side(right) => sideways(state, right),
        Action::Time(by) => move_in_time(state, by),
        Action::Enter => enter(state),
        Action::Back => back(state),
        Action::Source => to_source(state),
        Action::Diff => show(state, Screen::Diff),
        Action::SetA => {
            state.diff_from = state.moment;
            state.notice = Some(Notice::SetA);
        }
        Action::SetB => {
            state.diff_to = Some(state.moment);
            state.notice = Some(Notice::SetB);
        }
        Action::Swap => {
            let to = state.diff_to.unwrap_or(state.moment);
            state.diff_to = Some(state.diff_from);
            state.diff_from = to;
        }
        Action::Inclusive => match state.screen {
            Screen::Tree => state.is_inverted = !state.is_inverted,
            Screen::Sites => state.sites.want.inclusive = !state.sites.want.inclusive,
            Screen::Diff => state.diff.want.inclusive = !state.diff.want.inclusive,
            _ => {}
        },
        Action::Group => state.chord = Some(Chord::Group),
        Action::Order => state.chord = Some(Chord::Order),
        Action::Reverse => {
            if let Some(table) = state.sortable() {
                table.want.ascending = !table.want.ascending;
            }
        }
        Action::Prompt(PromptKind::Mark) if state.facts.ended => {
            state.notice = Some(Notice::Failed(ENDED.into()));
        }
        Action::Prompt(kind) => {
            let before = match (kind, state.screen) {
                (PromptKind::Search, Screen::Sites) => state.sites.want.filter.clone(),
                (PromptKind::Search, Screen::Diff) => state.diff.want.filter.clone(),
                (PromptKind::Search, Screen::Why) => state.why.filter.clone(),
                _ => String::new(),
            };
            state.prompt = Some(Prompt {
                kind,
                text: before.clone(),
                before,
            });
        }
        Action::Next(forward) => find(state, forward, false),
        Action::Copy => {
            state.notice = Some(Notice::Copied);
            return Some(Effect::Copy);
        }
        Action::Export => return Some(Effect::Export(None)),
        Action::Help => {
            state.help = true;
            state.help_first = 0;
        }
        _ => {}
    }
    None
}

impl State {
    /// The table that can be sorted and filtered, on the screens with one.
    fn sortable(&mut self) -> Option<&mut crate::state::TableView> {
        match self.screen {
            Screen::Sites => Some(&mut self.sites),
            Screen::Diff => Some(&mut self.diff),
            _ => None,
        }
    }
}

fn show(state: &mut State, screen: Screen) {
    state.stack = None;
    state.screen = screen;
    keep_in_sight(state);
}

/// What is selected stays on the screen when the screen changes.
fn keep_in_sight(state: &mut State) {
    let height = layout::list_height(state);
    if let Some(table) = state.shown_table_mut() {
        let len = table.table.rows.len();
        table.list.select(table.list.selected, len, height);
    }
    match state.screen {
        Screen::Source => {
            let len = state.source.text.lines.len();
            let list = &mut state.source.list;
            list.select(list.selected, len, height);
        }
        Screen::Procs => {
            let len = state.facts.processes.len();
            state.procs.select(state.procs.selected, len, height);
        }
        Screen::Rss => {
            let len = state.ledgers.accounts.len();
            state.ledger.select(state.ledger.selected, len, height);
        }
        Screen::Flame | Screen::Tree | Screen::Why => move_by(state, Move::Rows(0)),
        _ => {}
    }
}

fn moved(selected: usize, len: usize, height: usize, by: Move) -> usize {
    let step = |rows: i64| {
        let to = (selected as i64).saturating_add(rows).max(0);
        usize::try_from(to).unwrap_or(0).min(len.saturating_sub(1))
    };
    let height = height as i64;
    match by {
        Move::Rows(rows) => step(rows.into()),
        Move::Pages(pages) => step(i64::from(pages) * (height - 1).max(1)),
        Move::Half(halves) => step(i64::from(halves) * (height / 2).max(1)),
        Move::First => 0,
        Move::Last => len.saturating_sub(1),
    }
}

fn move_by(state: &mut State, by: Move) {
    let height = layout::list_height(state);
    if state.help {
        let height = layout::frame(state.size).body.height.into();
        let len = crate::view::help_lines(state);
        state.help_first = moved(state.help_first, len, height, by);
        return;
    }
    if let Some(stack) = &mut state.stack {
        let len = stack.frames.as_ref().map_or(0, |frames| frames.len());
        let row = moved(stack.list.selected, len, height, by);
        stack.list.select(row, len, height);
        return;
    }
    match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            if let Some(table) = state.shown_table_mut() {
                let len = table.table.rows.len();
                table.select(moved(table.list.selected, len, height, by), height);
            }
        }
        Screen::Tree => {
            let view = state.shown_calls_mut();
            let rows = view.visible();
            let at = view.find(view.selected);
            let row = at.and_then(|at| rows.iter().position(|&row| row == at));
            let row = moved(row.unwrap_or(0), rows.len(), height, by);
            view.selected = rows.get(row).map(|&row| view.tree.calls[row].key);
            let mut list = List {
                selected: row,
                first: view.first,
            };
            list.select(row, rows.len(), height);
            view.first = list.first;
        }
        Screen::Flame => move_in_flame(state, by, height),
        Screen::Source => {
            let len = state.source.text.lines.len();
            let list = &mut state.source.list;
            list.select(moved(list.selected, len, height, by), len, height);
        }
        Screen::Why => {
            let len = state.why.rows().len();
            let list = &mut state.why.list;
            list.select(moved(list.selected, len, height, by), len, height);
        }
        Screen::Procs => {
            let len = state.facts.processes.len();
            let row = moved(state.procs.selected, len, height, by);
            state.procs.select(row, len, height);
        }
        Screen::Rss => {
            let len = state.ledgers.accounts.len();
            let row = moved(state.ledger.selected, len, height, by);
            state.ledger.select(row, len, height);
        }
    }
}

/// Up and down in the flame: to the caller, and to the heaviest call.
fn move_in_flame(state: &mut State, by: Move, height: usize) {
    let view = &mut state.calls;
    let calls = &view.tree.calls;
    let zoom = view.find(view.zoom);
    let steps = match by {
        Move::Rows(rows) => rows,
        Move::Pages(pages) => pages.saturating_mul(height as i32),
        Move::Half(halves) => halves.saturating_mul(height as i32 / 2),
        Move::First => i32::MIN,
        Move::Last => i32::MAX,
    };
    let mut at = view.find(view.selected);
    for _ in 0..steps.unsigned_abs().min(u32::from(u16::MAX)) {
        let next = if steps < 0 {
            if at == zoom {
                break;
            }
            at.and_then(|at| calls[at].parent)
                .map(|parent| parent as usize)
                .or(zoom)
        } else {
            match at {
                // The first below is the heaviest.
                Some(at) if calls[at].has_calls => Some(at + 1),
                None if !calls.is_empty() => Some(zoom.unwrap_or(0)),
                _ => break,
            }
        };
        at = next;
        if at.is_none() {
            break;
        }
    }
    view.selected = at.map(|at| calls[at].key);
    let base = zoom.map_or(0, |zoom| usize::from(calls[zoom].depth) + 1);
    let level = at.map_or(0, |at| {
        (usize::from(calls[at].depth) + 1).saturating_sub(base)
    });
    if level < view.first {
        view.first = level;
    } else if level >= view.first + height.max(1) {
        view.first = level + 1 - height.max(1);
    }
}

fn sideways(state: &mut State, right: bool) {
    match state.screen {
        Screen::Tree => {
            let view = state.shown_calls_mut();
            let Some(at) = view
                .find(view.selected)
                .or_else(|| view.visible().first().copied())
            else {
                return;
            };
            let call = &view.tree.calls[at];
            let (key, has_calls, parent) = (call.key, call.has_calls, call.parent);
            view.selected = Some(key);
            if right {
                if has_calls && !view.open.contains(&key) {
                    open(view, at);
                } else if has_calls {
                    move_by(state, Move::Rows(1));
                }
            } else if !view.open.remove(&key)
                && let Some(parent) = parent
            {
                view.selected = Some(view.tree.calls[parent as usize].key);
                move_by(state, Move::Rows(0));
            }
        }
        Screen::Flame => {
            let width = layout::frame(state.size).body.width;
            let boxes = layout::flame_boxes(&state.calls, width);
            let view = &mut state.calls;
            let at = view.find(view.selected);
            let Some(here) = boxes.iter().find(|one| one.call == at).copied() else {
                return;
            };
            let level = boxes.iter().filter(|one| one.level == here.level);
            let next = if right {
                level.filter(|one| one.x > here.x).min_by_key(|one| one.x)
            } else {
                level.filter(|one| one.x < here.x).max_by_key(|one| one.x)
            };
            if let Some(call) = next.and_then(|next| next.call) {
                view.selected = Some(view.tree.calls[call].key);
            }
        }
        Screen::Why => why::sideways(state, right),
        _ => {}
    }
}

/// Opens a call, and below it as long as there is but one that matters.
fn open(view: &mut crate::state::CallsView, at: usize) {
    let calls = &view.tree.calls;
    let mut at = at;
    loop {
        view.open.insert(calls[at].key);
        let Some(first) = calls.get(at + 1).filter(|_| calls[at].has_calls) else {
            return;
        };
        // Nine tenths of it go on to one call.
        if first.bytes < calls[at].bytes / 10 * 9 || !first.has_calls {
            return;
        }
        at += 1;
    }
}

fn move_in_time(state: &mut State, by: Time) {
    let facts = &state.facts;
    let now = state.ns_of(state.moment);
    let times = &facts.times;
    let after = |ns: u64| times.iter().map(|time| time.end_ns).find(|&end| end > ns);
    let before = |ns: u64| {
        let earlier = times.iter().rev().map(|time| time.end_ns);
        earlier.into_iter().find(|&end| end < ns).unwrap_or(0)
    };
    state.moment = match by {
        Time::Start => Moment::Start,
        Time::End => Moment::End,
        Time::Usual => Moment::Usual,
        Time::Instant(steps) | Time::Step(steps) => {
            let least = match by {
                Time::Step(_) => facts.duration_ns / 100,
                _ => 0,
            };
            let to = if steps > 0 {
                // At least as far as asked for, and at least one instant.
                let at_least = now.saturating_add(least.max(1)) - 1;
                after(at_least.min(facts.duration_ns.saturating_sub(1)).max(now))
                    .unwrap_or(facts.duration_ns)
            } else {
                before(now.saturating_sub(least.max(1)).saturating_add(1))
            };
            at(state, to)
        }
        Time::Mark(steps) => {
            let mut instants: Vec<u64> = facts.marks.iter().map(|mark| mark.at_ns).collect();
            instants.push(facts.peak.at_ns);
            instants.sort_unstable();
            let found = if steps > 0 {
                instants.into_iter().find(|&at| at > now)
            } else {
                instants.into_iter().rev().find(|&at| at < now)
            };
            match found {
                Some(at) if at == facts.peak.at_ns => Moment::Peak,
                Some(found) => at(state, found),
                None => {
                    state.notice = Some(Notice::NoMark);
                    state.moment
                }
            }
        }
    };
}

/// The moment of an instant: the ends by their names, to go along with a
/// recording that goes on.
fn at(state: &State, ns: u64) -> Moment {
    if ns == 0 {
        Moment::Start
    } else if ns == state.facts.usual_ns {
        Moment::Usual
    } else if ns >= state.facts.duration_ns {
        Moment::End
    } else {
        Moment::At(ns)
    }
}

fn enter(state: &mut State) {
    if state.stack.is_some() {
        to_source(state);
        return;
    }
    match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            let Some(group) = state.shown_table().and_then(|table| table.selection()) else {
                return;
            };
            let site = match &group.name {
                // Rows of lines lead to their line.
                GroupName::Line(frame) if frame.line != 0 => {
                    let (file, line) = (Arc::clone(&frame.file), frame.line);
                    return open_source(state, file, line);
                }
                _ => group.site,
            };
            if let Some(site) = site {
                state.stack = Some(StackView {
                    site,
                    ..StackView::default()
                });
            }
        }
        Screen::Flame => {
            let view = &mut state.calls;
            if view.selected.is_some() {
                view.zoom = view.selected;
                view.first = 0;
            }
        }
        Screen::Tree => {
            let view = state.shown_calls_mut();
            let at = view
                .find(view.selected)
                .or_else(|| view.visible().first().copied());
            if let Some(at) = at {
                let key = view.tree.calls[at].key;
                view.selected = Some(key);
                if !view.open.remove(&key) {
                    open(view, at);
                }
            }
        }
        Screen::Why => why::enter(state),
        Screen::Procs | Screen::Source | Screen::Rss => {}
    }
}

fn back(state: &mut State) {
    if state.stack.take().is_some() {
        return;
    }
    match state.screen {
        Screen::Flame if state.calls.zoom.is_some() => {
            let view = &mut state.calls;
            let zoom = view.find(view.zoom);
            let parent = zoom.and_then(|zoom| view.tree.calls[zoom].parent);
            view.zoom = parent.map(|parent| view.tree.calls[parent as usize].key);
            view.first = 0;
        }
        Screen::Sites | Screen::Diff => {
            if let Some(table) = state.sortable() {
                table.want.filter.clear();
            }
        }
        Screen::Why => why::back(state),
        _ => {}
    }
}

fn to_source(state: &mut State) {
    let frame = if let Some(stack) = &state.stack {
        let frames = stack.frames.as_ref();
        frames
            .and_then(|frames| frames.get(stack.list.selected))
            .map(|frame| (Arc::clone(&frame.file), frame.line))
    } else {
        match state.screen {
            Screen::Overview | Screen::Sites | Screen::Diff => state
                .shown_table()
                .and_then(|table| table.selection())
                .and_then(|group| {
                    let own = group.your_code.as_ref();
                    match &group.name {
                        GroupName::Site(frame) => Some(own.unwrap_or(frame)),
                        GroupName::Line(frame) | GroupName::Function(frame) => Some(frame),
                        _ => None,
                    }
                })
                .map(|frame| (Arc::clone(&frame.file), frame.line)),
            Screen::Flame | Screen::Tree => {
                let view = state.shown_calls();
                view.find(view.selected).map(|at| {
                    let frame = &view.tree.calls[at].frame;
                    (Arc::clone(&frame.file), frame.line)
                })
            }
            Screen::Why => (state.why.selection())
                .and_then(|(_, step)| step.made_in.as_ref())
                .map(|frame| (Arc::clone(&frame.file), frame.line)),
            Screen::Source | Screen::Procs | Screen::Rss => None,
        }
    };
    match frame {
        Some((file, line)) if !file.is_empty() && line != 0 => open_source(state, file, line),
        _ => state.notice = Some(Notice::NoSource),
    }
}

fn open_source(state: &mut State, file: Arc<str>, line: u32) {
    state.stack = None;
    if state.source.text.file.as_ref() == Some(&file) {
        let lines = &state.source.text.lines;
        let row = lines.partition_point(|known| known.line < line);
        state.screen = Screen::Source;
        let height = layout::list_height(state);
        let len = state.source.text.lines.len();
        state.source.list.select(row, len, height);
        let first = row.saturating_sub(height / 2);
        state.source.list.first = first.min(len.saturating_sub(height));
    }
    state.source.go_to = Some(line);
    state.source.file = Some(file);
    state.screen = Screen::Source;
}

fn second(state: &mut State, chord: Chord, letter: char) {
    match chord {
        Chord::Group if letter == 'g' => move_by(state, Move::First),
        Chord::Group => {
            if let Some((_, by)) = GROUPS.iter().find(|(key, _)| *key == letter) {
                group_by(state, *by);
            }
        }
        Chord::Order if letter == 'r' => {
            act(state, Action::Reverse);
        }
        Chord::Order => {
            if let Some((_, column)) = COLUMNS.iter().find(|(key, _)| *key == letter) {
                sort_by(state, *column);
            }
        }
    }
}

/// Shows rows of a group: on the screen that has some, else on Sites.
fn group_by(state: &mut State, by: GroupBy) {
    let screen = match state.screen {
        // Threads are known for the whole recording only.
        Screen::Diff if by != GroupBy::Thread => Screen::Diff,
        _ => Screen::Sites,
    };
    show(state, screen);
    if let Some(table) = state.sortable() {
        table.want.by = by;
        table.key = None;
        table.list = List::default();
    }
}

fn sort_by(state: &mut State, column: Column) {
    if !matches!(state.screen, Screen::Sites | Screen::Diff) {
        show(state, Screen::Sites);
    }
    if let Some(table) = state.sortable() {
        if table.want.sort == column {
            table.want.ascending = !table.want.ascending;
        } else {
            table.want.sort = column;
            table.want.ascending = false;
        }
        table.key = None;
        table.list = List::default();
    }
}

fn in_prompt(state: &mut State, action: Action) -> Option<Effect> {
    let mut prompt = state.prompt.take()?;
    match action {
        Action::Enter => {
            match prompt.kind {
                PromptKind::Command => return command::run(state, &prompt.text),
                PromptKind::Mark => return mark(state, &prompt.text),
                PromptKind::Search => {}
            }
            if state.sortable().is_none() && state.screen != Screen::Why {
                state.search = prompt.text;
                find(state, true, true);
            }
            return None;
        }
        Action::Back => {
            if prompt.kind == PromptKind::Search {
                filter(state, &prompt.before);
            }
            return None;
        }
        Action::Type(letter) => prompt.text.push(letter),
        Action::Paste(text) => {
            let line = text.lines().next().unwrap_or("");
            prompt.text.extend(line.chars().filter(|c| !c.is_control()));
        }
        // Nothing left to erase: out of it.
        Action::Erase if prompt.text.pop().is_none() => return None,
        Action::EraseWord => {
            let kept = prompt.text.trim_end();
            let end = kept.rfind(' ').map_or(0, |space| space + 1);
            prompt.text.truncate(end);
        }
        Action::EraseAll => prompt.text.clear(),
        Action::Complete if prompt.kind == PromptKind::Command => {
            command::complete(&mut prompt.text);
        }
        Action::Move(by) => move_by(state, by),
        _ => {}
    }
    if prompt.kind == PromptKind::Search {
        let text = prompt.text.clone();
        filter(state, &text);
    }
    state.prompt = Some(prompt);
    None
}

/// Has this instant kept under a name; without one nothing is done.
fn mark(state: &mut State, name: &str) -> Option<Effect> {
    let name = name.trim();
    if state.facts.ended {
        state.notice = Some(Notice::Failed(ENDED.into()));
        return None;
    }
    (!name.is_empty()).then(|| Effect::Mark(name.to_owned()))
}

/// Tables show what matches as one types.
fn filter(state: &mut State, text: &str) {
    if state.screen == Screen::Why {
        why::filter(state, text);
        return;
    }
    if let Some(table) = state.sortable()
        && table.want.filter != text
    {
        text.clone_into(&mut table.want.filter);
        table.key = None;
        table.list = List::default();
    }
}

/// Selects the next call or line that has what was searched for.
fn find(state: &mut State, forward: bool, from_here: bool) {
    if state.search.is_empty() || state.stack.is_some() {
        return;
    }
    let filter = leakline_analysis::Filter::new(&state.search);
    let found = match state.screen {
        Screen::Flame | Screen::Tree => {
            let view = state.shown_calls();
            let at = view.find(view.selected).unwrap_or(0);
            next_match(view.tree.calls.len(), at, forward, from_here, |at| {
                let frame = &view.tree.calls[at].frame;
                filter.matches(&frame.function) || filter.matches(&frame.place)
            })
        }
        Screen::Source => {
            let (text, list) = (&state.source.text, state.source.list);
            next_match(text.lines.len(), list.selected, forward, from_here, |at| {
                let text = text.lines[at].text.as_ref();
                text.is_some_and(|text| filter.matches(text))
            })
        }
        Screen::Procs => {
            let processes = &state.facts.processes;
            let at = state.procs.selected;
            next_match(processes.len(), at, forward, from_here, |at| {
                let process = &processes[at];
                filter.matches(&format!("{} (pid {})", process.command, process.pid))
            })
        }
        _ => return,
    };
    let Some(at) = found else {
        state.notice = Some(Notice::NotFound(state.search.clone()));
        return;
    };
    let height = layout::list_height(state);
    match state.screen {
        Screen::Source => {
            let len = state.source.text.lines.len();
            state.source.list.select(at, len, height);
        }
        Screen::Procs => {
            let len = state.facts.processes.len();
            state.procs.select(at, len, height);
        }
        _ => {
            select_call(state, at);
        }
    }
}

/// Selects a call, and opens or zooms out until it is shown.
fn select_call(state: &mut State, at: usize) {
    let screen = state.screen;
    let view = state.shown_calls_mut();
    let calls = &view.tree.calls;
    view.selected = calls.get(at).map(|call| call.key);
    let mut callers = Vec::new();
    let mut caller = calls.get(at).and_then(|call| call.parent);
    while let Some(at) = caller {
        callers.push(calls[at as usize].key);
        caller = calls[at as usize].parent;
    }
    if screen == Screen::Tree {
        view.open.extend(callers);
    } else if view.zoom != view.selected && view.zoom.is_some_and(|zoom| !callers.contains(&zoom)) {
        view.zoom = None;
    }
    move_by(state, Move::Rows(0));
}

fn next_match(
    len: usize,
    at: usize,
    forward: bool,
    from_here: bool,
    matches: impl Fn(usize) -> bool,
) -> Option<usize> {
    let skip = usize::from(!from_here);
    (skip..len + skip)
        .map(|step| {
            if forward {
                (at + step) % len
            } else {
                (at + len - step % len) % len
            }
        })
        .find(|&at| matches(at))
}

fn click(state: &mut State, x: u16, y: u16) {
    let frame = layout::frame(state.size);
    if state.help {
        state.help = false;
        return;
    }
    if frame.tabs == Some(y) {
        let tabs = layout::tabs(state.size.0);
        if let Some((screen, ..)) = tabs
            .iter()
            .find(|(_, at, width)| (*at..at + width).contains(&x))
        {
            show(state, *screen);
        }
        return;
    }
    if !frame.body.holds(x, y) {
        return;
    }
    if let Some(stack) = &mut state.stack {
        let row = usize::from(y.saturating_sub(frame.body.y + 1)) + stack.list.first;
        stack.list.selected = row.min(
            stack
                .frames
                .as_ref()
                .map_or(0, |frames| frames.len().saturating_sub(1)),
        );
        return;
    }
    match state.screen {
        Screen::Overview | Screen::Sites | Screen::Diff => {
            if state.screen == Screen::Overview {
                let plot = layout::overview(state).plot;
                if plot.holds(x, y) {
                    let ns = layout::instant_of(x - plot.x, plot.width, state.facts.duration_ns);
                    state.moment = at(state, ns);
                    return;
                }
            }
            let (head, rows) = layout::table(state);
            if head == Some(y) {
                if let Some(column) = crate::view::column_at(state, x) {
                    sort_by(state, column);
                }
            } else if rows.holds(x, y) {
                let height = layout::list_height(state);
                if let Some(table) = state.shown_table_mut() {
                    let row = usize::from(y - rows.y) + table.list.first;
                    if row == table.list.selected {
                        enter(state);
                    } else if row < table.table.rows.len() {
                        table.select(row, height);
                    }
                }
            }
        }
        Screen::Flame => {
            let (_, boxes, _) = layout::flame(state.size);
            if boxes.holds(x, y) {
                let level = usize::from(y - boxes.y) + state.calls.first;
                let all = layout::flame_boxes(&state.calls, boxes.width);
                let hit = all
                    .iter()
                    .find(|one| one.level == level && (one.x..one.x + one.width).contains(&x));
                let view = &mut state.calls;
                if let Some(hit) = hit {
                    let key = hit.call.map(|call| view.tree.calls[call].key);
                    if key == view.selected || key.is_none() {
                        view.zoom = key;
                        view.first = 0;
                    }
                    view.selected = key;
                }
            }
        }
        Screen::Tree => {
            let top = frame.body.y + u16::from(frame.body.height >= 4);
            let view = state.shown_calls_mut();
            let rows = view.visible();
            let Some(row) = y.checked_sub(top).map(|row| usize::from(row) + view.first) else {
                return;
            };
            if let Some(&call) = rows.get(row) {
                let key = Some(view.tree.calls[call].key);
                if view.selected == key {
                    enter(state);
                } else {
                    view.selected = key;
                }
            }
        }
        Screen::Source => {
            let top = frame.body.y + u16::from(frame.body.height >= 4);
            if let Some(row) = y.checked_sub(top) {
                let row = usize::from(row) + state.source.list.first;
                let len = state.source.text.lines.len();
                state.source.list.selected = row.min(len.saturating_sub(1));
            }
        }
        Screen::Why => {
            let (_, rows, _) = layout::why(state.size);
            if rows.holds(x, y) {
                let row = usize::from(y - rows.y) + state.why.list.first;
                if row == state.why.list.selected {
                    enter(state);
                } else if row < state.why.rows().len() {
                    state.why.list.selected = row;
                }
            }
        }
        Screen::Procs => {
            let (rows, _) = layout::procs(state.size);
            if rows.holds(x, y) {
                let row = usize::from(y - rows.y) + state.procs.first;
                let len = state.facts.processes.len();
                state.procs.selected = row.min(len.saturating_sub(1));
            }
        }
        Screen::Rss => {
            let (rows, _) = layout::rss(state);
            if rows.holds(x, y) {
                let row = usize::from(y - rows.y) + state.ledger.first;
                let len = state.ledgers.accounts.len();
                state.ledger.selected = row.min(len.saturating_sub(1));
            }
        }
    }
}
