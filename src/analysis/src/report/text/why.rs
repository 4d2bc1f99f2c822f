//! `why` as text.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::WIDE;
use super::closing::next_commands;
use super::heading::facts;
use super::lost::lost_part;
use super::naming::frame_words;
use crate::frame::Role;
use crate::heap::{Ended, Group, Object, Path, RootKind, Searched, Step, Trust, Why};
use crate::instant::clock;
use crate::leaks::Findings;
use crate::lost::Lost;
use crate::model::Model;
use crate::report::leaks_words::{
    REUSED, frozen_words, garbage_words, hidden_words, lost_words, step_words,
};
use crate::report::table::{BOLD, DIM, Style, WARN, cut, padded, printable};
use crate::report::words::{bytes, counted, signed_bytes};
use crate::stack::Stacks;
use crate::top::process_label;

/// Which graph an answer is of.
#[derive(Debug)]
pub struct Subject<'s> {
    /// What was asked for, as it is to be named; empty where nothing was.
    pub name: &'s str,
    /// The graph's number.
    pub graph: u32,
    /// That of an earlier one of the same process, which it is compared with.
    pub earlier: Option<u32>,
    /// How far to trust the graph.
    pub trust: Trust,
    /// What the objects refer to was asked for, too.
    pub referents: bool,
    /// What is wrong with references, of what was asked for.
    pub findings: &'s Findings,
}

/// Writes `why`.
pub fn why<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    subject: &Subject<'_>,
    why: &Why,
    lost: Option<&Lost<'_>>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    style.wrapped(out, BOLD, 6, &answer(subject, why))?;
    style.wrapped(out, DIM, 6, &graph_words(model, subject))?;
    style.wrapped(out, DIM, 6, &facts(model))?;
    for flaw in flaws(subject.trust) {
        style.wrapped(out, WARN, 6, &flaw)?;
    }
    if let Some(object) = &why.object {
        writeln!(out)?;
        one(subject, object, style, out)?;
    }
    for group in &why.groups {
        for path in &group.paths {
            writeln!(out)?;
            tree(model, stacks, subject, path, style, out)?;
        }
    }
    let mut end = Vec::new();
    closing(model, stacks, subject, why, style, &mut end)?;
    if !end.is_empty() {
        writeln!(out)?;
        out.write_all(&end)?;
    }
    wrong(stacks, subject.findings, style, out)?;
    let garbage = garbage_words(subject.findings);
    let garbage = garbage.into_iter().chain(frozen_words(subject.findings));
    for (at, text) in garbage.enumerate() {
        if at == 0 && end.is_empty() {
            writeln!(out)?;
        }
        let is_off = subject.findings.collects == Some(false);
        style.wrapped(out, if is_off { WARN } else { DIM }, 0, &text)?;
    }
    if let Some(lost) = lost {
        lost_part(model, stacks, lost, style, out)?;
    }
    let next: &[(&str, &str)] = if subject.name.is_empty() {
        &[("leaks", "what of it grows")]
    } else {
        &[("why", "where most memory gathers")]
    };
    next_commands(model, next, style, out)
}

/// Lost references and cycles that are hidden.
fn wrong(
    stacks: &Stacks<'_>,
    findings: &Findings,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    const MOST: usize = 8;
    let lost = findings
        .lost
        .iter()
        .map(|one| ("lost reference", lost_words(stacks, one)));
    let hidden = findings
        .hidden
        .iter()
        .map(|one| ("cycle", hidden_words(stacks, one)));
    let all: Vec<_> = lost.chain(hidden).collect();
    for (word, [what, place, shown]) in all.iter().take(MOST) {
        writeln!(out)?;
        style.wrapped(out, BOLD, 17, &format!("{word:<16} {what}"))?;
        for (name, text) in [("made in", place), ("evidence", shown)] {
            let text = format!("   {name:<13} {text}");
            style.wrapped(out, anstyle::Style::new(), 17, &text)?;
        }
    }
    if all.len() > MOST {
        let more = counted((all.len() - MOST) as u64, "more of these", "more of these");
        writeln!(out, "and {more} (--json has all)")?;
    }
    Ok(())
}

fn answer(subject: &Subject<'_>, why: &Why) -> String {
    let Some(group) = why.groups.first() else {
        return if subject.name.is_empty() {
            format!("nothing holds much of {}", bytes(why.bytes))
        } else {
            format!("{}: no object of it in the heap", subject.name)
        };
    };
    if subject.name.is_empty() {
        let all = why.groups.iter().map(|group| group.retained);
        let mut text = format!(
            "{} in {}; {} of it gathers in {}",
            bytes(why.bytes),
            counted(why.objects, "object", "objects"),
            bytes(all.fold(0, u64::saturating_add)),
            counted(why.groups.len() as u64, "place", "places"),
        );
        if why.garbage.1 > why.bytes / 10 {
            text = format!("{text}, nothing holds {}", bytes(why.garbage.1));
        }
        return text;
    }
    let kinds: Vec<&str> = group
        .types
        .iter()
        .map(|type_| type_.name.as_str())
        .collect();
    let mut text = format!(
        "{}: {} {}, retaining {}",
        subject.name,
        crate::report::blocks(group.count),
        listed(&kinds),
        bytes(group.retained)
    );
    if group.native > 0 {
        text = format!("{text} ({} of it native)", bytes(group.native));
    }
    if let Some(path) = group.paths.first()
        && group.total_paths == 1
    {
        text = format!("{text}, held by {}", holder_words(path));
    }
    text
}

/// What the path of a group comes from, shortly.
fn holder_words(path: &Path) -> String {
    match (path.root, container(path)) {
        (None, _) => "nothing".into(),
        (_, Some(step)) if step.count == 1 => {
            format!(
                "one {}",
                step.types.first().map_or("object", String::as_str)
            )
        }
        (_, Some(step)) => counted(
            step.count,
            step.types.first().map_or("object", String::as_str),
            step.types.first().map_or("objects", String::as_str),
        ),
        (Some(RootKind::Module), None) => "its module".into(),
        (Some(RootKind::Frame), None) => "a function that runs".into(),
        (Some(RootKind::Interpreter), None) => "the interpreter".into(),
        (Some(RootKind::Native), None) => "C code".into(),
        (Some(RootKind::Lost), None) => "a reference that was lost".into(),
    }
}

/// The step before the last, of objects that are no root.
fn container(path: &Path) -> Option<&Step> {
    let at = path.steps.len().checked_sub(2)?;
    (at > 0)
        .then(|| &path.steps[at])
        .filter(|step| step.count > 0)
}

fn listed(names: &[&str]) -> String {
    const MOST: usize = 3;
    match names.len() {
        0..=MOST => names.join(", "),
        more => format!(
            "{} and {} more types",
            names[..MOST].join(", "),
            more - MOST
        ),
    }
}

fn graph_words(model: &Model<'_>, subject: &Subject<'_>) -> String {
    let all = model.heap_graphs();
    let told = |number: u32| {
        let graph = all.iter().find(|graph| graph.graph == number);
        graph.map_or_else(
            || format!("heap graph {number}"),
            |graph| {
                let at = clock(model, graph.at_ns);
                let keys = if graph.values {
                    ", with keys of dicts"
                } else {
                    ""
                };
                format!(
                    "heap graph {number} (`{}`, {at}{keys})",
                    printable(&graph.name)
                )
            },
        )
    };
    let mut text = told(subject.graph);
    if let Some(graph) = all.iter().find(|graph| graph.graph == subject.graph)
        && model.processes().len() > 1
    {
        text = format!("{text} of {}", process_label(model, graph.process));
    }
    if let Some(earlier) = subject.earlier {
        text = format!("{text}, compared with {}", told(earlier));
    }
    let others = all.len() - 1 - usize::from(subject.earlier.is_some());
    // Looks at programs without Python have numbers, too.
    let numbers = || all.iter().map(|graph| graph.graph);
    if others > 0
        && let (Some(first), Some(last)) = (numbers().min(), numbers().max())
    {
        text = format!("{text}; --graph {first} to {last} for others");
    }
    text
}

fn flaws(trust: Trust) -> Vec<String> {
    let mut flaws = Vec::new();
    match trust.ended {
        Some(Ended::Whole) => {}
        Some(Ended::Approximate) => flaws.push(
            "the graph is approximate: it was read from outside while the process ran".into(),
        ),
        Some(Ended::Early(why)) => flaws.push(format!("the graph is not whole: {why}")),
        None => flaws.push("the graph is not whole: it was cut off".into()),
    }
    if trust.ended == Some(Ended::Whole) {
        match trust.searched {
            Some(Searched {
                failed: Some(why), ..
            }) => flaws.push(format!("no lost references can be told: {why}")),
            Some(Searched { left_out, .. }) if left_out > 0 => flaws.push(format!(
                "{} of memory was not searched, lost references may be held there",
                bytes(left_out)
            )),
            _ => {}
        }
    }
    if trust.missing > 0 {
        flaws.push(format!(
            "{} lead to objects that are not in the graph",
            counted(trust.missing, "reference", "references")
        ));
    }
    if trust.keys_left_out > 0 {
        flaws.push(format!(
            "not recorded: {} of dicts (of one dict 2,000 are, of a graph 8 MiB)",
            counted(trust.keys_left_out, "key", "keys")
        ));
    }
    flaws
}

/// The lines of a tree: its words, and a step's figures.
struct Line<'p> {
    lead: String,
    edge: String,
    kind: String,
    step: Option<&'p Step>,
}

fn lines(path: &Path, boxes: bool) -> (String, Vec<Line<'_>>) {
    let (last, fork, bar) = if boxes {
        ("└─ ", "├─ ", "   ")
    } else {
        ("`- ", "|- ", "   ")
    };
    let mut lines = Vec::new();
    let root = path.steps.first().map_or("", |step| step.edge.as_str());
    let root = root.to_owned();
    let is_module = path.root == Some(RootKind::Module);
    for (depth, step) in path.steps.iter().skip(1).enumerate() {
        let edge = step_words(step);
        lines.push(Line {
            lead: format!("{}{last}", bar.repeat(depth)),
            edge: if depth == 0 && is_module {
                edge.strip_prefix('.').unwrap_or(&edge).to_owned()
            } else {
                edge
            },
            kind: kind(step),
            step: Some(step),
        });
    }
    let depth = path.steps.len().saturating_sub(1);
    for (at, step) in path.below.iter().enumerate() {
        let end = if at + 1 == path.below.len() {
            last
        } else {
            fork
        };
        lines.push(Line {
            lead: format!("{}{end}", bar.repeat(depth)),
            edge: step_words(step),
            kind: kind(step),
            step: Some(step),
        });
    }
    (root, lines)
}

/// `dict, keys [str]`.
fn kind(step: &Step) -> String {
    let names: Vec<&str> = step.types.iter().map(String::as_str).collect();
    match (&step.keys, &names[..]) {
        (Some(keys), [one]) => format!("{one}, keys [{keys}]"),
        _ if names.len() > 3 => format!("{}, ...", names[..3].join(", ")),
        _ => names.join(", "),
    }
}

fn tree<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    subject: &Subject<'_>,
    path: &Path,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let (root, lines) = lines(path, style.boxes);
    let is_wide = style.width >= WIDE;
    let since = subject.earlier.map(|earlier| format!("since {earlier}"));
    let mut headers = vec!["count".to_owned(), "retained".into()];
    headers.extend(since);
    if is_wide {
        headers.push("shallow".into());
    }
    let figures = |step: &Step| {
        let mut cells = vec![crate::report::blocks(step.count), bytes(step.retained)];
        if subject.earlier.is_some() {
            cells.push(
                step.since
                    .map_or_else(|| "-".into(), |since| signed_bytes(since.1)),
            );
        }
        if is_wide {
            cells.push(bytes(step.shallow));
        }
        cells
    };
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| line.step.map(figures).unwrap_or_default())
        .collect();
    let widths: Vec<usize> = (0..headers.len())
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells
                .map(|cell| cell.width())
                .max()
                .unwrap_or(0)
                .max(headers[at].len())
        })
        .collect();
    let taken: usize = widths.iter().map(|width| width + 2).sum();
    let made: Vec<String> = lines
        .iter()
        .map(|line| {
            line.step
                .map_or_else(String::new, |step| made_in(model, stacks, step))
        })
        .collect();
    let of_made = if is_wide {
        made.iter()
            .map(|made| made.width())
            .max()
            .unwrap_or(0)
            .clamp(7, 40)
            + 2
    } else {
        0
    };
    let room = style.width.saturating_sub(taken + of_made).max(16);
    let of_edge = lines
        .iter()
        .map(|line| line.lead.width() + printable(&line.edge).width())
        .max()
        .unwrap_or(0)
        .max(12);
    let of_kind = lines
        .iter()
        .map(|line| line.kind.width())
        .max()
        .unwrap_or(0);
    // Where not all has room, the way is cut last.
    let of_edge = of_edge.min(room.saturating_sub(of_kind.min(12) + 2)).max(8);
    let of_kind = room.saturating_sub(of_edge + 2).min(of_kind);
    let left = of_edge + 2 + of_kind;
    let mut head = padded(&cut(&root, left), left);
    for (header, &width) in headers.iter().zip(&widths) {
        let header = format!("  {header:>width$}");
        head.push_str(&header);
    }
    if is_wide {
        head.push_str("  made in");
    }
    writeln!(out, "{}", style.paint(BOLD, &head))?;
    for ((line, row), made) in lines.iter().zip(&rows).zip(&made) {
        let edge_room = of_edge.saturating_sub(line.lead.width());
        let mut text = line.lead.clone();
        text.push_str(&cut(&line.edge, edge_room));
        let mut text = padded(&text, of_edge);
        text.push_str("  ");
        text.push_str(&padded(&cut(&line.kind, of_kind), of_kind));
        for (cell, &width) in row.iter().zip(&widths) {
            let cell = format!("  {cell:>width$}");
            text.push_str(&cell);
        }
        if is_wide {
            text.push_str("  ");
            text.push_str(&cut(made, of_made - 2));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Where most of a step's objects were made.
fn made_in<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, step: &Step) -> String {
    let site = step.site.and_then(|site| model.sites().get(site as usize));
    let Some(site) = site else {
        return String::new();
    };
    let head = stacks.head(model, site.node);
    // The interpreter's own functions make all objects.
    let frame = head.made_in.filter(|&id| {
        let role = stacks.frame(id).role;
        !matches!(role, Role::Interpreter | Role::Allocator | Role::Marker)
    });
    frame.map_or_else(String::new, |id| {
        let (function, place) = frame_words(stacks, id);
        format!("{function} {place}").trim_end().to_owned()
    })
}

fn closing<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    subject: &Subject<'_>,
    why: &Why,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let plain = anstyle::Style::new();
    let more = |count: usize, what: &str| {
        let many = format!("{what}s");
        format!(
            "and {} (--paths N shows more)",
            counted(
                count as u64,
                &format!("more {what}"),
                &format!("more {many}")
            )
        )
    };
    if subject.name.is_empty() {
        if why.total_groups > why.groups.len() {
            let text = more(why.total_groups - why.groups.len(), "place");
            style.wrapped(out, plain, 0, &text)?;
        }
        return Ok(());
    }
    let Some(group) = why.groups.first() else {
        return Ok(());
    };
    if group.total_paths > group.paths.len() {
        style.wrapped(
            out,
            plain,
            0,
            &more(group.total_paths - group.paths.len(), "path"),
        )?;
    }
    for path in &group.paths {
        let is_all = group.total_paths == 1;
        if let Some(text) = sole(path, is_all) {
            style.wrapped(out, plain, 0, &text)?;
        }
    }
    if style.width < WIDE {
        made(model, stacks, group, style, out)?;
    }
    let mut remedies: Vec<&str> = group.paths.iter().filter_map(Path::remedy).collect();
    remedies.dedup();
    for remedy in &remedies {
        style.wrapped(out, plain, 6, &format!("{remedy}."))?;
    }
    if let (Some(advice), true) = (advice(group), remedies.is_empty()) {
        style.wrapped(out, plain, 12, &advice)?;
    }
    Ok(())
}

/// Whether the objects of a path have other holders.
fn sole(path: &Path, is_all: bool) -> Option<String> {
    let step = last(path)?;
    if path.root == Some(RootKind::Lost) && path.steps.len() <= 2 {
        return Some(
            "Nothing holds them: they count references that are nowhere in the process's memory."
                .into(),
        );
    }
    if path.root == Some(RootKind::Native) && path.steps.len() <= 2 {
        return Some("They count references that no object explains: C code has them.".into());
    }
    if path.steps.len() <= 2 || path.root.is_none() {
        return None;
    }
    let others = step.count.saturating_sub(step.only);
    match others {
        0 if is_all => Some("All of them by this path; no second holder.".into()),
        0 => None,
        _ => {
            let all = if others == step.count && is_all {
                "All of them by this path".to_owned()
            } else {
                format!(
                    "{} of {} {}",
                    crate::report::blocks(others),
                    path.words,
                    if others == 1 { "is" } else { "are" }
                )
            };
            let named = path.others.iter();
            let named: Vec<String> = named
                .map(|(words, count)| format!("{words} ({})", crate::report::blocks(*count)))
                .collect();
            Some(match (&named[..], is_all && others == step.count) {
                ([], true) => format!("{all}, and by C code, too."),
                ([], false) => format!("{all} held by C code, too."),
                (_, true) => format!("{all}, and by {}.", named.join(", ")),
                (_, false) => format!("{all} held by others, too: {}.", named.join(", ")),
            })
        }
    }
}

fn last(path: &Path) -> Option<&Step> {
    path.steps.last()
}

/// Every object of the path is kept by what stands before it, and by nothing else.
fn is_only_holder(path: &Path) -> bool {
    path.steps.len() > 2 && last(path).is_some_and(|step| step.only == step.count)
}

/// Where narrow terminals have no column for it.
fn made<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    group: &Group,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let Some(path) = group.paths.first() else {
        return Ok(());
    };
    let from = path.steps.len().saturating_sub(2).max(1);
    let mut is_known = false;
    for step in path.steps.iter().skip(from) {
        let place = made_in(model, stacks, step);
        if place.is_empty() {
            continue;
        }
        is_known = true;
        let verb = if step.count == 1 { "is" } else { "are" };
        let mut text = format!("{} {verb} made in {place}", name_of(step));
        let type_name = step.types.first().map_or("", String::as_str);
        if REUSED.contains(&type_name) {
            text.push_str(" (or their blocks were: free lists reuse them)");
        }
        style.wrapped(out, anstyle::Style::new(), 6, &text)?;
    }
    if !is_known {
        let text = "No site known: made before recording, or in no block of their own.";
        style.wrapped(out, anstyle::Style::new(), 6, text)?;
    }
    Ok(())
}

/// What a step's objects are called: a name of the program's, or else their type.
fn name_of(step: &Step) -> String {
    let is_name = !step.edge.starts_with(['[', '(']);
    let type_name = step.types.first().map_or("", String::as_str);
    if is_name {
        let name = step.edge.trim_start_matches('.');
        name.strip_prefix("closure ").unwrap_or(name).to_owned()
    } else {
        type_name.to_owned()
    }
}

/// What would free it, where that is certain.
fn advice(group: &Group) -> Option<String> {
    let [path] = &group.paths[..] else {
        return None;
    };
    if group.total_paths != 1 || path.root != Some(RootKind::Module) || !is_only_holder(path) {
        return None;
    }
    let container = container(path).filter(|step| step.count == 1)?;
    let kind = container.types.first()?;
    let wrapper = path.steps.iter().find(|step| {
        let type_name = step.types.first().map_or("", String::as_str);
        type_name.ends_with("_lru_cache_wrapper")
    });
    if let Some(wrapper) = wrapper {
        let name = name_of(wrapper);
        return Some(format!(
            "To let go: give the cache of {name} a maxsize, or call {name}.cache_clear(). \
             Without it {} would be free: it is the only holder.",
            bytes(wrapper.retained)
        ));
    }
    let is_collection = [
        "dict",
        "list",
        "set",
        "collections.deque",
        "deque",
        "OrderedDict",
    ];
    let name = name_of(container);
    let how = if is_collection.contains(&kind.as_str()) {
        format!("To let go: take out of {name} what is done with, or give it a bound. ")
    } else {
        String::new()
    };
    Some(format!(
        "{how}Without {name} {} would be free: it is the only holder.",
        bytes(container.retained)
    ))
}

/// One object: what it is, and what refers to it.
fn one(
    subject: &Subject<'_>,
    object: &Object,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let plain = anstyle::Style::new();
    let mut fact =
        |name: &str, text: &str| style.wrapped(out, plain, 17, &format!("   {name:<13} {text}"));
    let title = object
        .title
        .as_deref()
        .map_or_else(String::new, |title| format!(" `{title}`"));
    fact(
        "object",
        &format!("{}{title} at {:#x}", object.type_name, object.address),
    )?;
    fact("size", &bytes(object.bytes))?;
    let references = if object.is_immortal {
        "immortal: not counted".to_owned()
    } else {
        counted(object.references.into(), "reference", "references")
    };
    fact("count", &references)?;
    if object.lost > 0 {
        let text = format!(
            "{} lost: no word of the process's memory is its address",
            counted(object.lost.into(), "reference", "references")
        );
        fact("held by", &text)?;
    }
    if object.unexplained > object.lost {
        let text = format!(
            "C code, {} that no object explains",
            counted(
                (object.unexplained - object.lost).into(),
                "reference",
                "references"
            )
        );
        fact("held by", &text)?;
    }
    let other = |holder: &crate::heap::Holder| {
        format!(
            "{:#x} {} {}   {}",
            holder.address, holder.type_name, holder.edge, holder.words
        )
    };
    for holder in &object.holders {
        fact("held by", &other(holder))?;
    }
    if object.total_holders > object.holders.len() {
        let more = object.total_holders - object.holders.len();
        fact("", &format!("and {}", counted(more as u64, "more", "more")))?;
    }
    if subject.referents {
        for holder in &object.referents {
            fact(
                "refers to",
                &format!(
                    "{} {} at {:#x}",
                    holder.edge, holder.type_name, holder.address
                ),
            )?;
        }
        if object.total_referents > object.referents.len() {
            let more = object.total_referents - object.referents.len();
            fact("", &format!("and {}", counted(more as u64, "more", "more")))?;
        }
    }
    Ok(())
}
