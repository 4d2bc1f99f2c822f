//! Snapshots.

use insta::assert_snapshot;

use super::shown;
use super::updates::press_all;
use crate::message::{Action, Message, Time};
use crate::state::data::{Cause, Content, Holders, Verdict, Verdicts};
use crate::state::{Phase, Screen, State, ThemeName};
use crate::testing::{MIB, frame, state};
use crate::update::update;

const SIZES: [(u16, u16); 4] = [(20, 5), (80, 24), (120, 25), (300, 80)];

/// A screen at each size, after some keys.
fn at_sizes(name: &str, screen: Screen, keys: &str) {
    for (width, height) in SIZES {
        let mut state = state(screen, (width, height));
        press_all(&mut state, keys);
        assert_snapshot!(format!("{name}_{width}x{height}"), shown(&state));
    }
}

#[test]
fn overview() {
    at_sizes("overview", Screen::Overview, "");
}

#[test]
fn sites() {
    at_sizes("sites", Screen::Sites, "j");
}

/// Of samples: with their errors where there is room.
#[test]
fn estimates() {
    for (screen, name) in [(Screen::Sites, "sites"), (Screen::Diff, "diff")] {
        for (width, height) in SIZES {
            let mut state = state(screen, (width, height));
            for view in [&mut state.sites, &mut state.diff] {
                for row in &mut std::sync::Arc::make_mut(&mut view.table).rows {
                    row.figures = row.figures.sampled_at(512 << 10);
                }
            }
            state.sum = state.sum.sampled_at(512 << 10);
            let name = format!("estimates_{name}_{width}x{height}");
            assert_snapshot!(name, shown(&state));
        }
    }
}

#[test]
fn flame() {
    at_sizes("flame", Screen::Flame, "j j");
}

#[test]
fn tree() {
    at_sizes("tree", Screen::Tree, "enter j");
}

#[test]
fn diff() {
    at_sizes("diff", Screen::Diff, "");
}

#[test]
fn source() {
    at_sizes("source", Screen::Source, "");
}

#[test]
fn why() {
    at_sizes("why", Screen::Why, "j j");
}

/// What `w` asks for on Sites.
#[test]
fn why_of_a_site() {
    at_sizes("why_of_a_site", Screen::Sites, "w answer");
}

#[test]
fn why_without_a_heap_graph() {
    let mut state = state(Screen::Why, (80, 24));
    std::sync::Arc::make_mut(&mut state.facts).graphs.clear();
    assert_snapshot!("why_without", shown(&state));
}

/// Dominators of millions of objects take seconds.
#[test]
fn why_while_the_graph_is_read() {
    let mut state = state(Screen::Why, (80, 24));
    press_all(&mut state, "[");
    let line = |state: &State| shown(state).lines().nth(3).unwrap().to_owned();
    assert_eq!(line(&state), " reading heap graph 1...");
    let mut answer = crate::testing::answer_to(&state.want());
    answer.content = Content::Why(std::sync::Arc::new(Holders {
        graph: 1,
        reading: true,
        objects: 426_272,
        ..Holders::default()
    }));
    state.take(answer);
    assert!(state.waiting);
    let expected = " reading heap graph 1 (426,272 objects)...";
    assert_eq!(line(&state), expected);
}

#[test]
fn procs() {
    at_sizes("procs", Screen::Procs, "");
}

#[test]
fn rss() {
    at_sizes("rss", Screen::Rss, "j");
}

/// Of recordings that have no ledgers.
#[test]
fn rss_without_a_ledger() {
    let mut state = state(Screen::Rss, (80, 24));
    state.ledgers = std::sync::Arc::new(crate::state::data::Ledgers {
        failure: Some("this recording has no ledger of its processes' memory".into()),
        ..Default::default()
    });
    assert_snapshot!("rss_without", shown(&state));
}

#[test]
fn stack() {
    at_sizes("stack", Screen::Sites, "enter answer");
}

#[test]
fn help() {
    at_sizes("help", Screen::Sites, "?");
}

#[test]
fn an_earlier_instant() {
    at_sizes("earlier", Screen::Overview, "[ [ answer");
}

#[test]
fn while_it_is_read() {
    let mut state = State::new((80, 24), ThemeName::Default);
    state.phase = Phase::Reading(30 * MIB, 120 * MIB);
    assert_snapshot!("reading", shown(&state));
}

/// What is not known yet is no 0: of a large recording an answer takes a while.
#[test]
fn a_screen_that_was_never_answered_is_added_up() {
    for screen in Screen::ALL {
        if matches!(screen, Screen::Overview | Screen::Why) {
            continue;
        }
        let mut state = state(screen, (80, 24));
        state.known = [false; 9];
        state.waiting = true;
        let lines = shown(&state);
        let body: Vec<&str> = lines.lines().skip(3).take(20).collect();
        assert_eq!(body[0], " adding up", "{screen:?}: {lines}");
        let is_empty = body[2..].iter().all(|line| line.is_empty());
        assert!(is_empty, "{screen:?}: {lines}");
        // The last answer stays where there was one.
        state.known = [true; 9];
        assert!(!shown(&state).contains("adding up"), "{screen:?}");
    }
}

/// The curve is there before the sites, and the cursor goes along it.
#[test]
fn while_sites_are_read() {
    let mut state = State::new((80, 24), ThemeName::Default);
    state.phase = Phase::Reading(30 * MIB, 120 * MIB);
    let facts = std::sync::Arc::new(crate::testing::facts());
    update(&mut state, Message::Skimmed(facts));
    update(&mut state, Message::Progress(60 * MIB, 120 * MIB));
    update(&mut state, Message::Key(Action::Time(Time::Start)));
    update(&mut state, Message::Key(Action::Time(Time::Step(60))));
    assert_snapshot!("skimmed", shown(&state));
}

/// What a large recording has more of is told.
#[test]
fn what_is_left_out_is_said() {
    let mut state = state(Screen::Sites, (80, 24));
    let table = std::sync::Arc::make_mut(&mut state.sites.table);
    table.left_out = (980_000, 12 * MIB as i64);
    let sites = shown(&state);
    assert!(
        sites.contains("and 980,000 further rows, +12.0 MiB: / finds them"),
        "{sites}"
    );
    state.screen = Screen::Tree;
    let tree = std::sync::Arc::make_mut(&mut state.calls.tree);
    tree.left_out_sites = (500_000, 3 * MIB as i64);
    for screen in [Screen::Tree, Screen::Flame] {
        state.screen = screen;
        let calls = shown(&state);
        assert!(
            calls.contains("without 500,000 lesser sites, 3.0 MiB"),
            "{calls}"
        );
    }
}

/// What is lost or damaged is said on every screen.
#[test]
fn losses_and_damage() {
    let mut state = state(Screen::Overview, (80, 24));
    let facts = std::sync::Arc::make_mut(&mut state.facts);
    facts.totals.lost_events = 1234;
    facts.losses = vec![(60 * crate::testing::SECOND, 1234)];
    facts.warnings = vec!["1 chunk of the file damaged or missing".into()];
    facts.ended = false;
    facts.growing = true;
    assert_snapshot!("losses", shown(&state));
}

/// What leaks comes first, at each size.
#[test]
fn verdicts() {
    let cause = |id: &str, verdict, rate| Cause {
        id: id.into(),
        verdict,
        rate,
        live_bytes: 14_600_000,
        made_in: frame("load_session", "/srv/app/sessions.py", 41, true),
        held_by: (!id.is_empty()).then(|| "SESSIONS".into()),
        members: [0, 1].as_slice().into(),
    };
    for (width, height) in SIZES {
        let mut state = state(Screen::Overview, (width, height));
        state.verdicts = Some(std::sync::Arc::new(Verdicts {
            causes: vec![
                cause("L1", Verdict::Leaking, Some((21_146.0, 1922.0))),
                cause("", Verdict::Plateau, None),
            ],
            limit: Some((2 << 30, 18_000.0)),
            not_judged: (0, 0),
        }));
        assert_snapshot!(format!("verdicts_{width}x{height}"), shown(&state));
    }
}
