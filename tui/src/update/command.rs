//! Commands, typed after `:`.

use leakline_analysis::Instant;

use super::{filter, group_by, show, sort_by};
use crate::message::Effect;
use crate::state::data::Moment;
use crate::state::{COLUMNS, GROUPS, Notice, Screen, State, ThemeName};

/// The commands: a name, what follows it, and what it does.
pub(crate) const COMMANDS: [(&str, &str, &str); 10] = [
    (
        "goto",
        "INSTANT",
        "to start, end, peak, done, a mark, +90s, 14:05",
    ),
    (
        "sort",
        "COLUMN",
        "by live, blocks, peak, total, temporary, growth, name",
    ),
    (
        "group",
        "GROUP",
        "by site, line, function, file, library, thread, process, domain",
    ),
    ("filter", "TEXT", "only rows with this; alone: all rows"),
    (
        "why",
        "[WHAT]",
        "who holds a cause (L1), a type, a place (app.py:41), a function",
    ),
    ("mark", "NAME", "keep this instant, while it is recorded"),
    ("export", "[FILE]", "the screen as a text file"),
    ("theme", "NAME", "default, colour-blind or mono"),
    ("help", "", "this"),
    ("quit", "", "leave"),
];

/// Runs a command line.
pub(super) fn run(state: &mut State, line: &str) -> Option<Effect> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if name.is_empty() {
        return None;
    }
    let known: Vec<&str> = COMMANDS
        .iter()
        .map(|(known, ..)| *known)
        .filter(|known| known.starts_with(name))
        .collect();
    let [command] = known[..] else {
        let names: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
        let why = format!("no command `{name}`: there are {}", names.join(", "));
        return failed(state, why);
    };
    match command {
        "goto" => match moment(state, rest) {
            Ok(moment) => state.moment = moment,
            Err(why) => return failed(state, why),
        },
        "sort" => {
            if let Some((_, column)) = COLUMNS.iter().find(|(_, column)| column.name() == rest) {
                if state
                    .sortable()
                    .is_none_or(|table| table.want.sort != *column)
                {
                    sort_by(state, *column);
                }
            } else {
                let names: Vec<_> = COLUMNS.iter().map(|(_, column)| column.name()).collect();
                return failed(state, format!("sort by one of {}", names.join(", ")));
            }
        }
        "group" => {
            if let Some((_, by)) = GROUPS.iter().find(|(_, by)| by.name() == rest) {
                group_by(state, *by);
            } else {
                let names: Vec<_> = GROUPS.iter().map(|(_, by)| by.name()).collect();
                return failed(state, format!("group by one of {}", names.join(", ")));
            }
        }
        "filter" => {
            if state.sortable().is_none() && state.screen != Screen::Why {
                show(state, Screen::Sites);
            }
            filter(state, rest);
        }
        "why" => super::why::named(state, rest),
        "mark" if rest.is_empty() => return failed(state, "a mark needs a name".into()),
        "mark" => return super::mark(state, rest),
        "export" => {
            let name = (!rest.is_empty()).then(|| rest.to_owned());
            return Some(Effect::Export(name));
        }
        "theme" => match rest {
            "default" => state.theme = ThemeName::Default,
            "colour-blind" | "color-blind" => state.theme = ThemeName::ColourBlind,
            "mono" => state.theme = ThemeName::Mono,
            _ => return failed(state, "themes are default, colour-blind, mono".into()),
        },
        "help" => {
            state.help = true;
            state.help_first = 0;
        }
        _ => state.quit = true,
    }
    None
}

fn failed(state: &mut State, why: String) -> Option<Effect> {
    state.notice = Some(Notice::Failed(why));
    None
}

/// The moment that a text means.
fn moment(state: &State, text: &str) -> Result<Moment, String> {
    const DAY_SECONDS: i64 = 86_400;
    if matches!(text, "done" | "now") {
        return Ok(Moment::Usual);
    }
    let facts = &state.facts;
    match Instant::parse(text).map_err(|error| format!("{error}: {}", error.hint()))? {
        Instant::Start => Ok(Moment::Start),
        Instant::End => Ok(Moment::End),
        Instant::Peak => Ok(Moment::Peak),
        Instant::After(ns) => Ok(super::at(state, ns.min(facts.duration_ns))),
        Instant::Clock(seconds) => {
            let second = 1_000_000_000;
            let started = facts.started_local_ns.div_euclid(second);
            let ahead = (i64::from(seconds) - started).rem_euclid(DAY_SECONDS);
            let at = (started + ahead) * second - facts.started_local_ns;
            let at = u64::try_from(at.max(0)).unwrap_or(0);
            if at > facts.duration_ns {
                return Err(format!("the recording does not reach {text}"));
            }
            Ok(super::at(state, at))
        }
        Instant::Mark(name) => {
            let known = facts.marks.iter().find(|mark| mark.name == name);
            match known {
                Some(mark) => Ok(super::at(state, mark.at_ns)),
                None if facts.marks.is_empty() => Err(format!(
                    "no instant `{name}`: try start, end, peak, +90s, 14:05"
                )),
                None => {
                    let mut names: Vec<&str> =
                        facts.marks.iter().map(|mark| mark.name.as_str()).collect();
                    names.dedup();
                    let names = names.join(", ");
                    Err(format!(
                        "no instant `{name}`: try start, end, peak, {names}"
                    ))
                }
            }
        }
    }
}

/// Completes a command's name, or the word after it, as far as that is clear.
pub(super) fn complete(text: &mut String) {
    let typed = text.clone();
    let (before, word) = match typed.rsplit_once(' ') {
        Some((before, word)) => (before.trim(), word),
        None => ("", typed.as_str()),
    };
    let words: Vec<&str> = match before {
        "" => COMMANDS.iter().map(|(name, ..)| *name).collect(),
        "sort" => COLUMNS.iter().map(|(_, column)| column.name()).collect(),
        "group" => GROUPS.iter().map(|(_, by)| by.name()).collect(),
        "goto" => vec!["start", "end", "peak", "done"],
        "theme" => vec!["default", "colour-blind", "mono"],
        _ => return,
    };
    let fits: Vec<&str> = words
        .into_iter()
        .filter(|other| other.starts_with(word))
        .collect();
    if let [only] = fits[..] {
        let rest = only[word.len()..].to_owned();
        text.push_str(&rest);
        if before.is_empty() {
            text.push(' ');
        }
    }
}
