//! What is lost, as text: a part of `why`.

use std::cmp::Reverse;
use std::io;

use leakline_recording::record::Lost as Look;

use super::closing::next_commands;
use super::heading::facts;
use super::naming::frame_words;
use crate::frame::FrameId;
use crate::instant::clock;
use crate::lost::{Lost, LostGroup, is_certain};
use crate::model::Model;
use crate::report::leaks_words::named;
use crate::report::table::{BOLD, Cell, DIM, Style, Table, WARN, padded, printable};
use crate::report::words::{bytes, counted};
use crate::stack::Stacks;
use crate::top::process_label;

/// Most looks that are told of one by one: of a program that starts many there are many.
const MOST_LOOKS: usize = 3;
/// Most rows of the table.
const MOST_ROWS: usize = 8;
/// Most frames of a stack.
const MOST_FRAMES: usize = 12;

/// Writes `why` of a recording in which there is no heap graph.
pub fn lost_alone(
    model: &Model<'_>,
    stacks: &Stacks<'_>,
    lost: &Lost<'_>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    style.wrapped(out, BOLD, 6, &answer(stacks, lost))?;
    style.wrapped(out, DIM, 6, &facts(model))?;
    details(model, stacks, lost, style, out)?;
    next_commands(model, &[("leaks", "what grows")], style, out)
}

/// Writes what is lost behind what a heap graph tells; nothing where nobody looked.
pub fn lost_part(
    model: &Model<'_>,
    stacks: &Stacks<'_>,
    lost: &Lost<'_>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    if lost.looks.is_empty() && lost.failed.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    style.wrapped(out, BOLD, 6, &answer(stacks, lost))?;
    details(model, stacks, lost, style, out)
}

/// `lost: 14,201 blocks, 3.2 MiB, all from parse_header`.
fn answer(stacks: &Stacks<'_>, lost: &Lost<'_>) -> String {
    let all = lost.figures().all();
    let Some(first) = lost.groups.first() else {
        return if lost.looks.is_empty() {
            "lost: not known".into()
        } else {
            let asked = lost.asked().blocks;
            format!(
                "lost: nothing; something points to each of {}",
                counted(asked, "native block", "native blocks")
            )
        };
    };
    let place = first.head.made_in.or(first.head.your_code);
    let place = place.map_or_else(|| "one place".into(), |id| named(stacks, id));
    let share = if lost.groups.len() == 1 {
        format!("all from {place}")
    } else {
        format!(
            "most from {place}, {}",
            counted(lost.groups.len() as u64, "place", "places")
        )
    };
    format!(
        "lost: {}, {}, {share}",
        counted(all.blocks, "block", "blocks"),
        bytes(all.bytes)
    )
}

fn details(
    model: &Model<'_>,
    stacks: &Stacks<'_>,
    lost: &Lost<'_>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    for line in looked(model, lost) {
        style.wrapped(out, DIM, 6, &line)?;
    }
    for look in &lost.failed {
        let text = format!(
            "Of {} it could not be found out{}: {}.",
            process_label(model, look.process),
            if model
                .lost()
                .iter()
                .any(|one| { one.process == look.process && one.why.is_empty() })
            {
                " again"
            } else {
                ""
            },
            printable(&look.why)
        );
        style.wrapped(out, WARN, 6, &text)?;
    }
    if !lost.groups.is_empty() {
        writeln!(out)?;
        table(stacks, lost).write(out, style)?;
        let more = lost.groups.len().saturating_sub(MOST_ROWS);
        if more > 0 {
            writeln!(out, "and {more} more (--json has all)")?;
        }
        let all = lost.figures();
        if all.sure != all.all() {
            let unsure = all.all().blocks.saturating_sub(all.sure.blocks);
            let text = format!(
                "Not certain of {}: lost in one look, at a process with other threads, whose \
                 registers are not seen, or with memory that could not be read. A second look \
                 decides: `leakline snapshot PID NAME --heap`.",
                counted(unsure, "block", "blocks"),
            );
            writeln!(out)?;
            style.wrapped(out, DIM, 0, &text)?;
        }
    }
    let inner = lost.inner();
    if inner.blocks > 0 {
        let text = format!(
            "Possibly lost: {}, {}, to whose beginnings nothing points, but into which something does.",
            counted(inner.blocks, "block", "blocks"),
            bytes(inner.bytes)
        );
        style.wrapped(out, DIM, 0, &text)?;
    }
    Ok(())
}

/// What was looked at, and what was not: where something is lost, and what has most.
fn looked(model: &Model<'_>, lost: &Lost<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told = lost.looks.clone();
    told.sort_by_key(|look| Reverse((!look.sites.is_empty(), look.block_bytes)));
    let others = told.split_off(MOST_LOOKS.min(told.len()));
    told.sort_by_key(|look| look.graph);
    for look in told {
        let before = if look.before > 0 {
            format!(", compared with look {}", look.before)
        } else {
            String::new()
        };
        let mut text = format!(
            "look {} (`{}`, {}) at {}{before}: {} of data, stacks and other memory, {} in blocks; \
             {} asked for",
            look.graph,
            printable(&look.name),
            clock(model, look.at_ns),
            process_label(model, look.process),
            bytes(look.root_bytes),
            bytes(look.block_bytes),
            counted(look.blocks, "native block", "native blocks"),
        );
        if look.threads > 0 {
            text = format!(
                "{text}; the registers of {} were not seen",
                counted(look.threads.into(), "other thread", "other threads")
            );
        }
        if look.unread_bytes > 0 {
            text = format!("{text}; {} could not be read", bytes(look.unread_bytes));
        }
        if !look.knows_all {
            text.push_str(
                "; not all blocks are known, so all other memory was taken for one that may \
                 hold pointers",
            );
        }
        lines.push(text);
    }
    if !others.is_empty() {
        let sum = |of: &dyn Fn(&Look) -> u64| -> u64 { others.iter().map(|look| of(look)).sum() };
        lines.push(format!(
            "and {}, each at another process: {} in blocks; {} asked for (--json has all)",
            counted(others.len() as u64, "look", "looks"),
            bytes(sum(&|look| look.block_bytes)),
            counted(sum(&|look| look.blocks), "native block", "native blocks"),
        ));
    }
    lines
}

fn table(stacks: &Stacks<'_>, lost: &Lost<'_>) -> Table {
    let mut table = Table::new(
        &["blocks", "lost", "of it by others"],
        &["made in", "your code"],
    );
    for group in lost.groups.iter().take(MOST_ROWS) {
        let frame = |id: Option<FrameId>| match id {
            Some(id) => {
                let (function, place) = frame_words(stacks, id);
                Cell::Named(function, place)
            }
            None => Cell::Text("-".into()),
        };
        let own = if group.head.your_code == group.head.made_in {
            Cell::Text("the same".into())
        } else {
            frame(group.head.your_code)
        };
        let all = group.figures.all();
        table.row(vec![
            Cell::Figure(crate::report::blocks(all.blocks)),
            Cell::Figure(bytes(all.bytes)),
            Cell::Figure(if group.figures.indirect.blocks > 0 {
                bytes(group.figures.indirect.bytes)
            } else {
                "-".into()
            }),
            frame(group.head.made_in),
            own,
        ]);
    }
    table
}

/// Writes `why` of sites whose blocks are lost.
pub fn lost_sites(
    model: &Model<'_>,
    stacks: &Stacks<'_>,
    name: &str,
    lost: &Lost<'_>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let figures = lost.figures();
    let all = figures.all();
    let text = format!(
        "{}: {} in {} that nothing reaches: lost by native code",
        printable(name),
        bytes(all.bytes),
        counted(all.blocks, "block", "blocks"),
    );
    style.wrapped(out, BOLD, 6, &text)?;
    style.wrapped(out, DIM, 6, &facts(model))?;
    for line in looked(model, lost) {
        style.wrapped(out, DIM, 6, &line)?;
    }
    for group in &lost.groups {
        writeln!(out)?;
        one(stacks, group, style, out)?;
    }
    writeln!(out)?;
    let place = lost.groups.first().and_then(|group| group.head.made_in);
    let place = place.map_or_else(|| "it".into(), |id| frame_words(stacks, id).0);
    let known = figures.known;
    let others = if known.1 < known.0 {
        format!(
            " Of {} that live {} lost.",
            counted(known.0, "block", "blocks"),
            if known.1 == 1 {
                "1 is".into()
            } else {
                format!("{} are", crate::report::blocks(known.1))
            }
        )
    } else {
        String::new()
    };
    let text = format!("Look for a way out of {place} or its callers without free().{others}");
    style.wrapped(out, anstyle::Style::new(), 0, &text)?;
    next_commands(
        model,
        &[("why", "where most memory gathers, and all that is lost")],
        style,
        out,
    )
}

fn one(
    stacks: &Stacks<'_>,
    group: &LostGroup,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let figures = &group.figures;
    let mut text = counted(figures.direct.blocks, "block", "blocks");
    text = format!(
        "{text}, {}, that nothing points to",
        bytes(figures.direct.bytes)
    );
    if figures.indirect.blocks > 0 {
        text = format!(
            "{text}; {}, {}, that only lost blocks point to",
            counted(figures.indirect.blocks, "block", "blocks"),
            bytes(figures.indirect.bytes)
        );
    }
    if figures.sure != figures.all() {
        text = format!(
            "{text}; certain of {}",
            counted(figures.sure.blocks, "block", "blocks")
        );
    }
    style.wrapped(out, anstyle::Style::new(), 6, &text)?;
    let frames: Vec<(String, String)> = group
        .stack
        .iter()
        .filter(|id| stacks.is_shown(**id))
        .take(MOST_FRAMES)
        .map(|id| frame_words(stacks, *id))
        .collect();
    let width = frames.iter().map(|frame| frame.0.len()).max().unwrap_or(0);
    for (function, place) in frames {
        let line = format!("   {}  {place}", padded(&function, width.min(40)));
        writeln!(out, "{}", line.trim_end())?;
    }
    if !group.examples.is_empty() {
        let examples: Vec<String> = (group.examples.iter().take(4))
            .map(|at| format!("{at:#x}"))
            .collect();
        style.wrapped(out, DIM, 6, &format!("   at {}", examples.join(", ")))?;
    }
    Ok(())
}

/// What shows that blocks are unreachable, in a sentence.
pub(crate) fn lost_evidence(lost: &Lost<'_>) -> String {
    let figures = lost.figures();
    let looks: Vec<String> = lost
        .looks
        .iter()
        .filter(|look| {
            let is_of_it = |site: u32| {
                lost.groups
                    .iter()
                    .any(|group| group.sites.binary_search(&site).is_ok())
            };
            look.sites.iter().any(|site| is_of_it(site.site))
        })
        .flat_map(|look| [(look.before > 0).then_some(look.before), Some(look.graph)])
        .flatten()
        .map(|number| number.to_string())
        .collect();
    let (known, gone) = figures.known;
    let blocks = match known {
        1 => "the block".to_owned(),
        _ if gone == known => format!("any of the {} blocks", crate::report::blocks(known)),
        _ => format!(
            "{} of the {} blocks",
            crate::report::blocks(gone),
            crate::report::blocks(known)
        ),
    };
    let mut text = format!("nothing points to {blocks}");
    if figures.indirect.blocks > 0 {
        text = format!(
            "{text}, but other lost ones to {}",
            crate::report::blocks(figures.indirect.blocks)
        );
    }
    let certain = lost.looks.iter().all(|look| is_certain(look));
    match looks.len() {
        0 => text,
        1 => format!(
            "{text} (look {}{})",
            looks[0],
            if certain { "" } else { ", one look only" }
        ),
        _ => format!("{text} (looks {})", looks.join(", ")),
    }
}
