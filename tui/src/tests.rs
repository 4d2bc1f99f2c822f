//! Every screen at three sizes, what keys do, and that nothing panics.

mod screens;
mod updates;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use crate::state::State;
use crate::view;

/// The state as a terminal of its size shows it.
fn shown(state: &State) -> String {
    let (width, height) = state.size;
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| view::draw(state, frame.buffer_mut()))
        .unwrap();
    view::text_of(terminal.backend().buffer())
}

/// NO_COLOR means it.
#[test]
fn the_mono_theme_has_no_colour() {
    for screen in crate::state::Screen::ALL {
        let mut state = crate::testing::state(screen, (120, 25));
        state.theme = crate::ThemeName::Mono;
        let mut terminal = Terminal::new(TestBackend::new(120, 25)).unwrap();
        terminal
            .draw(|frame| view::draw(&state, frame.buffer_mut()))
            .unwrap();
        for cell in terminal.backend().buffer().content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
    }
}

fn any_key() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "down",
        "up",
        "left",
        "right",
        "enter",
        "esc",
        "tab",
        "backtab",
        "pagedown",
        "pageup",
        "home",
        "end",
        "backspace",
        "shift-left",
        "shift-right",
        "ctrl-d",
        "ctrl-u",
        "ctrl-w",
    ];
    prop_oneof![
        3 => proptest::char::range(' ', '~').prop_map(String::from),
        2 => proptest::sample::select(NAMES).prop_map(String::from),
        1 => (0_u16..130, 0_u16..30).prop_map(|(x, y)| format!("click {x} {y}")),
        1 => (0_u16..140, 0_u16..40).prop_map(|(x, y)| format!("resize {x} {y}")),
        1 => Just("answer".to_owned()),
        1 => proptest::sample::select(&["paste né\u{301}漢字\n", ":goto peak", ":theme mono", ":group line", "/load"][..]).prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn no_keys_and_no_size_make_it_panic(
        keys in proptest::collection::vec(any_key(), 0..60),
        empty in any::<bool>(),
        width in 0_u16..140,
        height in 0_u16..40,
    ) {
        let mut state = if empty {
            State::new((width, height), crate::ThemeName::Default)
        } else {
            crate::testing::state(crate::state::Screen::Overview, (width, height))
        };
        for key in &keys {
            updates::press(&mut state, key);
            view::text(&state);
            crate::view::selection(&state);
        }
    }
}
