//! Help: the keys of a screen, and those of all.

use ratatui::style::Style;

use super::canvas::{Canvas, width};
use crate::state::layout::Area;
use crate::state::{Screen, State};
use crate::theme::Theme;
use crate::update::COMMANDS;

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    let lines = wrapped(state.screen, body.width);
    let rows = lines.iter().skip(state.help_first);
    for (y, (key, text)) in (body.y..body.y + body.height).zip(rows) {
        if text.is_empty() {
            canvas.put(1, y, body.width, key, theme.strong);
        } else {
            canvas.put(1, y, key_width(body.width) - 1, key, theme.key);
            let x = 1 + key_width(body.width);
            canvas.put(x, y, body.width.saturating_sub(x), text, Style::new());
        }
    }
}

fn key_width(columns: u16) -> u16 {
    if columns >= 40 { 16 } else { 7 }
}

/// The lines as they fit into so many columns.
pub(super) fn wrapped(screen: Screen, columns: u16) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (key, text) in lines(screen) {
        let is_heading = text.is_empty();
        let before = if is_heading {
            1
        } else {
            1 + key_width(columns)
        };
        let room = usize::from(columns.saturating_sub(before)).max(8);
        let mut key = key;
        let words = if is_heading {
            std::mem::take(&mut key)
        } else {
            text
        };
        let mut row = String::new();
        let mut push = |row: String, key: String| {
            rows.push(if is_heading { (row, key) } else { (key, row) });
        };
        for word in words.split(' ') {
            if !row.is_empty() && width(&row) + 1 + width(word) > room {
                push(std::mem::take(&mut row), std::mem::take(&mut key));
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        push(row, key);
    }
    rows
}

/// Keys, and what they do; headings have no second part.
fn lines(screen: Screen) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let heading = |lines: &mut Vec<(String, String)>, text: String| {
        if !lines.is_empty() {
            lines.push((String::new(), String::new()));
        }
        lines.push((text, String::new()));
    };
    let add = |lines: &mut Vec<(String, String)>, keys: &[(&str, &str)]| {
        let keys = keys
            .iter()
            .map(|(key, text)| ((*key).into(), (*text).into()));
        lines.extend(keys);
    };
    let (what, keys): (&str, &[(&str, &str)]) = match screen {
        Screen::Overview => (
            "live bytes over time, and the sites that hold most at the cursor",
            &[
                ("enter", "the stack of the selected site"),
                ("s", "its line of source"),
                ("click", "on the curve: that instant"),
            ],
        ),
        Screen::Sites => (
            "who holds what at the cursor's instant",
            &[
                ("enter", "the stack of the row; of a line, its source"),
                ("s", "the line of source, of your code"),
                (
                    "/",
                    "filter as you type; * and ? are patterns; esc shows all",
                ),
                (
                    "g + letter",
                    "group: s site, l line, f function, i file, b library, t thread, ...",
                ),
                (
                    "o + letter",
                    "sort: l live, b blocks, p peak, t total, m temporary, n name",
                ),
                ("r", "the other way round"),
                (
                    "i",
                    "with all that was called (function, line, file, library)",
                ),
            ],
        ),
        Screen::Flame => (
            "callers above, calls below, as wide as they are heavy",
            &[
                ("j k", "to the heaviest call, to the caller"),
                ("h l", "to the neighbours"),
                ("enter, click", "zoom in (click twice)"),
                ("esc", "zoom out"),
                ("/ n N", "find a function"),
                ("s", "its line of source"),
            ],
        ),
        Screen::Tree => (
            "who called whom",
            &[
                ("enter, l", "open, also what follows from it"),
                ("h", "close, or to the caller"),
                ("i", "from the allocating function outwards, and back"),
                ("/ n N", "find a function"),
                ("s", "its line of source"),
            ],
        ),
        Screen::Diff => (
            "what grew (+) and shrank (-) between A and B",
            &[
                ("a, b", "A or B is the cursor's instant"),
                ("x", "exchange them"),
                ("enter, s", "the stack of the row, its line of source"),
                ("g, o, /", "group, sort, filter, as on Sites"),
            ],
        ),
        Screen::Source => (
            "a source file, with what each line allocated",
            &[
                ("/ n N", "find a text"),
                ("gl", "all lines of all files, largest first"),
            ],
        ),
        Screen::Why => (
            "who holds what lives, by a heap graph: where most memory gathers, or of what w asked",
            &[
                (
                    "enter",
                    "open, close; of a step, the stack that made its objects",
                ),
                ("h l", "close, open"),
                ("[ ]", "the heap graph before, the next"),
                ("s", "the line of source that made the objects"),
                ("/", "only places with a text; esc shows all"),
                ("esc", "back to where w was pressed"),
            ],
        ),
        Screen::Procs => (
            "processes at the cursor's instant, and threads",
            &[("gp, gt", "the same as a table to sort")],
        ),
        Screen::Rss => (
            "what resident memory is made of, by the last look until the cursor's instant",
            &[
                ("j k", "another process, the largest growth first"),
                ("a", "the column since A counts from the cursor's instant"),
            ],
        ),
    };
    heading(&mut lines, format!("{}: {what}", screen.name()));
    add(&mut lines, keys);
    heading(&mut lines, "time".into());
    add(
        &mut lines,
        &[
            ("← →", "the instant that every screen shows, back and on"),
            ("< >", "by one recorded instant (shift ← →)"),
            ("[ ]", "to the mark before, to the next; the peak is one"),
            (
                "^ $ .",
                "to the start, the end, and when the program was done",
            ),
        ],
    );
    heading(&mut lines, "everywhere".into());
    add(
        &mut lines,
        &[
            ("1-8, tab", "screens"),
            (
                "j k, ↑ ↓",
                "move; ctrl-d ctrl-u half a screen; gg G first, last",
            ),
            (
                "w",
                "who holds it: what is selected, or the leak that it is of",
            ),
            ("d", "growth until this instant"),
            ("m", "while it is recorded: keep this instant, under a name"),
            ("y", "copy what is selected (OSC 52)"),
            ("e", "write the screen to a text file"),
            (":", "a command"),
            (
                "q, ctrl-c",
                "leave; ctrl-z stops, `fg` goes on; ctrl-l draws anew",
            ),
        ],
    );
    heading(&mut lines, "commands".into());
    for (name, argument, text) in COMMANDS {
        let key = format!(":{name} {argument}");
        lines.push((key.trim_end().into(), text.into()));
    }
    lines
}
