//! Colours, by what they say. They only repeat what words and signs say.

use ratatui::style::{Color, Modifier, Style};

use crate::state::ThemeName;

/// Styles by meaning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    /// The answer, headings.
    pub(crate) strong: Style,
    /// What matters less.
    pub(crate) dim: Style,
    /// Grown, leaking, lost.
    pub(crate) bad: Style,
    /// Shrunk, fine, complete.
    pub(crate) good: Style,
    /// Unclear, goes on.
    pub(crate) unclear: Style,
    /// The user's own code.
    pub(crate) own: Style,
    /// Bytes over time.
    pub(crate) plot: Style,
    /// RSS.
    pub(crate) rss: Style,
    /// The cursor in time, and keys.
    pub(crate) key: Style,
    /// The selected row.
    pub(crate) selected: Style,
    /// What matches a search.
    pub(crate) found: Style,
    /// Boxes of the flame, in turn: own code, and other.
    pub(crate) boxes: [[Style; 2]; 2],
}

const PLAIN: Style = Style::new();

/// The styles of a theme.
pub(crate) fn theme(name: ThemeName) -> Theme {
    let dim = PLAIN.add_modifier(Modifier::DIM);
    let strong = PLAIN.add_modifier(Modifier::BOLD);
    let reversed = PLAIN.add_modifier(Modifier::REVERSED);
    let mono = Theme {
        strong,
        dim,
        bad: strong,
        good: PLAIN,
        unclear: PLAIN,
        own: strong,
        plot: PLAIN,
        rss: dim,
        key: strong,
        selected: reversed,
        found: PLAIN.add_modifier(Modifier::UNDERLINED),
        boxes: [
            [
                strong.add_modifier(Modifier::REVERSED),
                strong.add_modifier(Modifier::UNDERLINED),
            ],
            [reversed, PLAIN.add_modifier(Modifier::UNDERLINED)],
        ],
    };
    let on = |colour: u8| PLAIN.fg(Color::Indexed(16)).bg(Color::Indexed(colour));
    match name {
        ThemeName::Mono => mono,
        ThemeName::Default => Theme {
            bad: PLAIN.fg(Color::Red),
            good: PLAIN.fg(Color::Green),
            unclear: PLAIN.fg(Color::Yellow),
            own: PLAIN.fg(Color::Cyan),
            plot: PLAIN.fg(Color::Blue),
            rss: PLAIN.fg(Color::Yellow),
            key: PLAIN.fg(Color::Cyan).add_modifier(Modifier::BOLD),
            found: PLAIN.fg(Color::Yellow).add_modifier(Modifier::UNDERLINED),
            boxes: [[on(215), on(209)], [on(187), on(180)]],
            ..mono
        },
        // Orange and blue are told apart by everybody.
        ThemeName::ColourBlind => Theme {
            bad: PLAIN.fg(Color::Indexed(208)),
            good: PLAIN.fg(Color::Indexed(75)),
            unclear: PLAIN.fg(Color::Indexed(229)),
            own: PLAIN.fg(Color::Indexed(75)),
            plot: PLAIN.fg(Color::Indexed(75)),
            rss: PLAIN.fg(Color::Indexed(208)),
            key: PLAIN.fg(Color::Indexed(75)).add_modifier(Modifier::BOLD),
            found: PLAIN
                .fg(Color::Indexed(229))
                .add_modifier(Modifier::UNDERLINED),
            boxes: [[on(75), on(69)], [on(252), on(248)]],
            ..mono
        },
    }
}
