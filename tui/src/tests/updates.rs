//! What keys do.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use leakline_analysis::GroupBy;

use super::shown;
use crate::keys;
use crate::message::{Effect, Message};
use crate::state::data::{About, Cause, Column, Moment, Subject, Verdict, Verdicts};
use crate::state::{Notice, Screen, State, ThemeName};
use crate::testing::{SECOND, answer_to, state};
use crate::update::update;

/// Presses a key by its name; what begins with a colon or a slash is typed and
/// entered; `answer` lets the engine answer.
pub(super) fn press(state: &mut State, key: &str) -> Option<Effect> {
    let words: Vec<&str> = key.split(' ').collect();
    let number = |at: usize| words[at].parse::<u16>().unwrap();
    match words[0] {
        "answer" => {
            let answer = answer_to(&state.want());
            return update(state, Message::Answer(Box::new(answer)));
        }
        "click" => return update(state, Message::Click(number(1), number(2))),
        "resize" => return update(state, Message::Resize(number(1), number(2))),
        "paste" => return feed(state, Event::Paste(key[6..].into())),
        _ => {}
    }
    if key.len() > 1 && key.starts_with([':', '/']) {
        for letter in key.chars() {
            press(state, &letter.to_string());
        }
        return press(state, "enter");
    }
    let (modifiers, name) = match key.split_once('-') {
        Some(("ctrl", name)) => (KeyModifiers::CONTROL, name),
        Some(("shift", name)) => (KeyModifiers::SHIFT, name),
        _ => (KeyModifiers::NONE, key),
    };
    let code = match name {
        "down" => KeyCode::Down,
        "up" => KeyCode::Up,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "backtab" => KeyCode::BackTab,
        "pagedown" => KeyCode::PageDown,
        "pageup" => KeyCode::PageUp,
        "home" => KeyCode::Home,
        "end" => KeyCode::End,
        "backspace" => KeyCode::Backspace,
        _ => KeyCode::Char(name.chars().next().unwrap()),
    };
    feed(state, Event::Key(KeyEvent::new(code, modifiers)))
}

fn feed(state: &mut State, event: Event) -> Option<Effect> {
    keys::message(state, event).and_then(|message| update(state, message))
}

/// Several, apart by spaces.
pub(super) fn press_all(state: &mut State, keys: &str) {
    for key in keys.split(' ').filter(|key| !key.is_empty()) {
        press(state, key);
    }
}

fn after(screen: Screen, keys: &str) -> State {
    let mut state = state(screen, (80, 24));
    press_all(&mut state, keys);
    state
}

#[test]
fn digits_and_tab_change_the_screen() {
    assert_eq!(after(Screen::Overview, "4").screen, Screen::Tree);
    assert_eq!(after(Screen::Overview, "8").screen, Screen::Procs);
    assert_eq!(after(Screen::Overview, "7").screen, Screen::Why);
    assert_eq!(after(Screen::Source, "tab").screen, Screen::Why);
    assert_eq!(after(Screen::Procs, "tab").screen, Screen::Rss);
    assert_eq!(after(Screen::Rss, "tab").screen, Screen::Overview);
    assert_eq!(after(Screen::Overview, "backtab").screen, Screen::Rss);
}

#[test]
fn the_time_cursor_is_that_of_every_screen() {
    let mut state = after(Screen::Sites, "left");
    // A hundredth of two minutes, at the next recorded instant.
    assert_eq!(state.moment, Moment::At(118 * SECOND));
    assert!(state.waiting);
    press_all(&mut state, "4");
    assert_eq!(state.want().moment, Moment::At(118 * SECOND));
    press_all(&mut state, "right right");
    assert_eq!(state.moment, Moment::Usual);
    press(&mut state, "<");
    assert_eq!(state.moment, Moment::At(119 * SECOND));
    press(&mut state, "^");
    assert_eq!(state.moment, Moment::Start);
    press(&mut state, "right");
    assert_eq!(state.moment, Moment::At(2 * SECOND));
    press_all(&mut state, "left left");
    assert_eq!(state.moment, Moment::Start);
    press_all(&mut state, "] ]");
    assert_eq!(state.moment, Moment::At(50 * SECOND));
    press(&mut state, "]");
    assert_eq!(state.moment, Moment::Peak);
    press(&mut state, "]");
    assert_eq!(state.notice, Some(Notice::NoMark));
    press(&mut state, "$");
    assert_eq!(state.moment, Moment::End);
}

#[test]
fn enter_leads_from_a_site_to_its_stack_to_its_source() {
    let mut state = after(Screen::Overview, "enter answer");
    assert!(shown(&state).contains("load_session app/sessions.py:41"));
    press_all(&mut state, "enter answer");
    assert_eq!(state.screen, Screen::Source);
    let line = &state.source.text.lines[state.source.list.selected];
    assert_eq!(line.line, 41);
    // A frame without a line leads nowhere, and says so.
    let state = after(Screen::Overview, "enter answer G enter");
    assert_eq!(state.notice, Some(Notice::NoSource));
    assert!(state.stack.is_some());
}

#[test]
fn rows_are_filtered_as_one_types_and_sorted_by_column() {
    let mut state = after(Screen::Sites, "/ j s o");
    assert_eq!(state.sites.want.filter, "jso");
    press(&mut state, "esc");
    assert_eq!(state.sites.want.filter, "");
    press_all(&mut state, "/json o p");
    assert_eq!(state.sites.want.filter, "json");
    assert_eq!(state.sites.want.sort, Column::Peak);
    press_all(&mut state, "o p");
    assert!(state.sites.want.ascending);
    press_all(&mut state, "g f i");
    assert_eq!(state.sites.want.by, GroupBy::Function);
    assert!(state.sites.want.inclusive);
    // The head of the first column.
    press(&mut state, "click 8 5");
    assert_eq!(state.sites.want.sort, Column::Live);
}

#[test]
fn commands_do_what_they_say_or_say_why_not() {
    let mut state = after(Screen::Overview, "");
    press(&mut state, ":goto deploy");
    assert_eq!(state.moment, Moment::At(50 * SECOND));
    press(&mut state, ":goto 14:06");
    assert_eq!(state.moment, Moment::At(58 * SECOND));
    press(&mut state, ":g +90s");
    let Some(Notice::Failed(why)) = &state.notice else {
        panic!("`g` could be two commands");
    };
    assert!(why.contains("goto"));
    press(&mut state, ":sort temporary");
    assert_eq!(state.screen, Screen::Sites);
    assert_eq!(state.sites.want.sort, Column::Temporary);
    press(&mut state, ":group library");
    assert_eq!(state.sites.want.by, GroupBy::Library);
    press(&mut state, ":theme colour-blind");
    assert_eq!(state.theme, ThemeName::ColourBlind);
    for (wrong, says) in [
        (":goto nowhere", "deploy"),
        (":goto 03:00", "does not reach"),
        (":sort size", "temporary"),
        (":group none", "library"),
        (":theme dark", "mono"),
    ] {
        press(&mut state, wrong);
        let Some(Notice::Failed(why)) = &state.notice else {
            panic!("{wrong} went well");
        };
        assert!(why.contains(says), "{wrong}: {why}");
    }
    let effect = press(&mut state, ":export a.txt");
    assert_eq!(effect, Some(Effect::Export(Some("a.txt".into()))));
    press(&mut state, ":quit");
    assert!(state.quit);
}

#[test]
fn the_diff_is_between_two_instants_of_the_cursor() {
    let mut state = after(Screen::Overview, "^ ] a $ 5");
    assert_eq!(state.diff_from, Moment::At(SECOND));
    assert_eq!(state.want().moment, Moment::End);
    press_all(&mut state, "[ b .");
    assert_eq!(state.want().moment, Moment::Peak);
    press(&mut state, "x");
    assert_eq!(state.diff_from, Moment::Peak);
}

#[test]
fn the_tree_opens_what_follows_from_a_call_and_closes_it() {
    let mut state = after(Screen::Tree, "enter");
    assert!(shown(&state).contains("login"));
    // Only what holds nearly all of it is opened too.
    press_all(&mut state, "/parse");
    let at = state.calls.find(state.calls.selected).unwrap();
    assert_eq!(&*state.calls.tree.calls[at].frame.function, "parse_header");
    press_all(&mut state, "home h");
    assert!(!shown(&state).contains("login"));
    press(&mut state, "i");
    assert!(state.is_inverted);
}

#[test]
fn the_flame_zooms_by_keys_and_by_clicks() {
    let mut state = after(Screen::Flame, "j j j enter");
    let at = state.calls.find(state.calls.zoom).unwrap();
    assert_eq!(&*state.calls.tree.calls[at].frame.function, "login");
    assert!(!shown(&state).contains("_find_and_load"));
    press_all(&mut state, "esc esc esc");
    assert_eq!(state.calls.zoom, None);
    press_all(&mut state, "j j");
    press(&mut state, "click 79 7");
    let at = state.calls.find(state.calls.selected).unwrap();
    assert_eq!(
        &*state.calls.tree.calls[at].frame.function,
        "_find_and_load"
    );
}

#[test]
fn a_selection_stays_with_its_group_when_rows_move() {
    let mut state = after(Screen::Sites, "j");
    let key = state.sites.selection().unwrap().key;
    let mut answer = answer_to(&state.want());
    if let crate::state::data::Content::Table(table) = &mut answer.content {
        std::sync::Arc::make_mut(table).rows.reverse();
    }
    update(&mut state, Message::Answer(Box::new(answer)));
    assert_eq!(state.sites.selection().unwrap().key, key);
    assert_eq!(state.sites.list.selected, 2);
}

#[test]
fn an_answer_to_an_older_question_does_not_end_the_wait() {
    let mut state = state(Screen::Sites, (80, 24));
    let old = answer_to(&state.want());
    press(&mut state, "left");
    update(&mut state, Message::Answer(Box::new(old)));
    assert!(state.waiting);
    press(&mut state, "answer");
    assert!(!state.waiting);
}

#[test]
fn what_a_key_opens_waits_for_the_rows_that_were_asked_for() {
    let mut state = after(Screen::Sites, "/row enter enter");
    assert!(state.waiting && state.stack.is_none());
    press(&mut state, "answer");
    assert!(state.stack.is_some());
    // Another key in between: it is not wanted any more.
    let mut state = after(Screen::Sites, "/row enter enter j answer");
    assert!(state.stack.is_none());
    press(&mut state, "enter");
    assert!(state.stack.is_some());
}

#[test]
fn quit_first_leaves_the_help() {
    let mut state = after(Screen::Overview, "? q");
    assert!(!state.help && !state.quit);
    press(&mut state, "q");
    assert!(state.quit);
    assert!(after(Screen::Overview, "/ x ctrl-c").quit);
    // A letter of a prompt is no key.
    assert!(!after(Screen::Sites, "/ q").quit);
}

#[test]
fn colour_only_repeats_words() {
    let mut state = after(Screen::Diff, "");
    let coloured = shown(&state);
    press(&mut state, ":theme mono");
    assert_eq!(shown(&state), coloured);
}

#[test]
fn a_mark_is_set_while_the_recording_is_made() {
    let mut state = after(Screen::Overview, "");
    // It has ended: there is nothing to type a name for.
    press(&mut state, "m");
    assert!(state.prompt.is_none());
    assert!(matches!(&state.notice, Some(Notice::Failed(why)) if why.contains("ended")));
    std::sync::Arc::make_mut(&mut state.facts).ended = false;
    press(&mut state, "m");
    assert!(shown(&state).contains("name of this instant"));
    // As in any line of input, a letter is no key.
    press_all(&mut state, "q 2");
    let effect = press(&mut state, "enter");
    assert_eq!(effect, Some(Effect::Mark("q2".into())));
    assert!(state.prompt.is_none() && !state.quit);
    update(&mut state, Message::Marked(Ok("q2".into())));
    assert!(shown(&state).contains("kept as `q2`"));
    let effect = press(&mut state, ":mark before it");
    assert_eq!(effect, Some(Effect::Mark("before it".into())));
    update(&mut state, Message::Marked(Err("no".into())));
    assert_eq!(state.notice, Some(Notice::Failed("no".into())));
    assert_eq!(press(&mut state, ":mark"), None);
    press(&mut state, "m");
    assert_eq!(press(&mut state, "enter"), None);
}

#[test]
fn how_the_program_ended_is_said_and_stays() {
    let mut state = after(Screen::Overview, "");
    let mut facts = (*state.facts).clone();
    std::sync::Arc::make_mut(&mut state.facts).ended = false;
    facts.processes[0].fate = crate::state::data::Fate::Signal(9);
    update(
        &mut state,
        Message::Facts(std::sync::Arc::new(facts.clone())),
    );
    assert_eq!(state.notice, Some(Notice::Ended));
    let screen = shown(&state);
    assert!(
        screen.contains("the program was killed (SIGKILL) at"),
        "{screen}"
    );
    press(&mut state, "j");
    assert!(
        shown(&state).contains("   SIGKILL "),
        "the header goes on saying it"
    );
    // One that had ended before says nothing of it.
    update(&mut state, Message::Facts(std::sync::Arc::new(facts)));
    assert_eq!(state.notice, None);
}

fn asked(state: &State) -> &About {
    let Subject::Why(want) = &state.want().subject else {
        panic!("not about a heap: {:?}", state.want());
    };
    assert_eq!(*want, state.why.want);
    &state.why.want.about
}

#[test]
fn w_asks_who_holds_what_is_selected_and_esc_leads_back() {
    let mut state = after(Screen::Sites, "j w");
    assert_eq!(state.screen, Screen::Why);
    assert!(matches!(asked(&state), About::Group(GroupBy::Site, 1, _)));
    assert!(state.waiting);
    press_all(&mut state, "answer");
    assert!(shown(&state).contains("9,000 objects, retaining 33.0 MiB"));
    press(&mut state, "esc");
    assert_eq!(state.screen, Screen::Sites);
    // 7 is of all that lives, whatever was asked before.
    press_all(&mut state, "w answer 1 7");
    assert_eq!(*asked(&state), About::Gathered);
    press(&mut state, "esc");
    assert_eq!(state.screen, Screen::Why);

    let state = after(Screen::Tree, "j w");
    let About::Through(frame) = asked(&state) else {
        panic!("{:?}", asked(&state));
    };
    assert_eq!(&*frame.function, "_find_and_load");
    let state = after(Screen::Source, "j w");
    let About::Named(place) = asked(&state) else {
        panic!("{:?}", asked(&state));
    };
    assert!(place.starts_with("/srv/app/sessions.py:"));
    let state = after(Screen::Procs, "w");
    assert_eq!(state.screen, Screen::Procs);
    assert_eq!(state.notice, Some(Notice::NoQuestion));
}

#[test]
fn w_on_the_overview_asks_of_the_leak_that_a_site_is_of() {
    let mut state = after(Screen::Overview, "");
    let members: std::sync::Arc<[u32]> = [0].as_slice().into();
    state.verdicts = Some(std::sync::Arc::new(Verdicts {
        causes: vec![Cause {
            id: "L1".into(),
            verdict: Verdict::Leaking,
            rate: None,
            live_bytes: 1,
            made_in: std::sync::Arc::default(),
            held_by: None,
            members: members.clone(),
        }],
        limit: None,
        not_judged: (0, 0),
    }));
    let cause = About::Cause("L1".into(), members);
    press(&mut state, "w");
    assert_eq!(*asked(&state), cause);
    press_all(&mut state, "answer esc");
    assert_eq!(state.screen, Screen::Overview);
    press_all(&mut state, "answer j w");
    assert!(matches!(asked(&state), About::Group(GroupBy::Site, 1, _)));
    // By name, too.
    press(&mut state, ":why L1");
    assert_eq!(*asked(&state), cause);
    press(&mut state, ":why L9");
    assert!(matches!(state.notice, Some(Notice::Failed(_))));
    assert_eq!(*asked(&state), cause);
    press(&mut state, ":why app.Session");
    assert_eq!(*asked(&state), About::Named("app.Session".into()));
    press(&mut state, ":why");
    assert_eq!(*asked(&state), About::Gathered);
}

#[test]
fn brackets_choose_a_heap_graph() {
    let mut state = after(Screen::Why, "]");
    assert_eq!(state.notice, Some(Notice::NoGraph));
    press(&mut state, "[");
    assert_eq!(state.why.want.graph, Some(1));
    assert!(state.waiting);
    press(&mut state, "answer");
    assert!(!shown(&state).contains("since"));
    press(&mut state, "[");
    assert_eq!(state.notice, Some(Notice::NoGraph));
    press_all(&mut state, "] answer");
    assert_eq!(state.why.want.graph, Some(2));
    assert!(shown(&state).contains("since 1"));
    // The cursor of the others stays where it is.
    assert_eq!(state.moment, Moment::Usual);
}

#[test]
fn places_open_and_close_and_lead_on() {
    let mut state = after(Screen::Why, "");
    // The first is open.
    assert_eq!(state.why.rows().len(), 3 + 4);
    press(&mut state, "enter");
    assert_eq!(state.why.rows().len(), 3);
    press_all(&mut state, "j l");
    assert_eq!(state.why.rows().len(), 3 + 2);
    press_all(&mut state, "l l");
    assert_eq!(state.why.selection().unwrap().1.kind, "app.jobs.Job");
    press(&mut state, "enter");
    assert_eq!(state.notice, Some(Notice::NoSite));
    press_all(&mut state, "h h");
    assert_eq!(state.why.list.selected, 1);
    assert_eq!(state.why.rows().len(), 3);
    // A step's objects have a stack, and a line of source.
    press_all(&mut state, "k l l l enter");
    assert_eq!(state.stack.as_ref().unwrap().site, 1);
    press_all(&mut state, "esc answer s");
    assert_eq!(state.screen, Screen::Source);
    assert_eq!(state.source.file.as_deref(), Some("/srv/app/views.py"));
}

#[test]
fn a_filter_leaves_the_places_that_match() {
    let mut state = after(Screen::Why, "/jobs");
    assert_eq!(state.why.rows().len(), 1);
    assert_eq!(state.screen, Screen::Why);
    assert!(shown(&state).contains("app.jobs.QUEUE[*]"));
    press(&mut state, "esc");
    assert_eq!(state.why.rows().len(), 7);
    // By what made them, too.
    press(&mut state, "/load_session");
    assert_eq!(state.why.rows().len(), 5);
    press(&mut state, ":filter nonsense");
    assert!(shown(&state).contains("no place has `nonsense`"));
}
