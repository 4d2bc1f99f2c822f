//! `leaks` as text, and as a table for a ticket.

use std::io;

use super::WIDE;
use super::closing::{next_commands, quoted};
use super::heading::{facts, head, instants, trust};
use super::naming::frame_words;
use crate::frame::FrameId;
use crate::instant::clock;
use crate::leaks::{Cause, Leaks, through};
use crate::model::Model;
use crate::report::leaks_words::{evidence, held_by, named, speed};
use crate::report::table::{BOLD, Cell, DIM, Style, Table, padded, printable};
use crate::report::words::{bytes, counted, duration};
use crate::stack::Stacks;
use crate::verdict::Verdict;

/// Writes `leaks`; each cause in a few lines where `long`, or where there is no
/// room for a table.
pub fn leaks<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    long: bool,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let wide = style.width >= WIDE && !long;
    let mut answer = leaks.answer();
    let forecast = leaks.forecast_words();
    if let (true, Some(forecast)) = (wide, &forecast) {
        answer.push_str("; ");
        answer.push_str(forecast);
    }
    if wide {
        head(model, &leaks.span, &answer, style, out)?;
    } else {
        style.wrapped(out, BOLD, 6, &answer)?;
        if let Some(forecast) = &forecast {
            style.wrapped(out, BOLD, 6, &format!("      {forecast}"))?;
        }
        trust(model, "", style, out)?;
        instants(model, &leaks.span, style, out)?;
    }
    if leaks.suspects.is_empty() {
        grew(leaks, style, out)?;
    } else if wide {
        writeln!(out)?;
        table(model, stacks, leaks).write(out, style)?;
    } else {
        writeln!(out)?;
        for cause in &leaks.suspects {
            one(model, stacks, leaks, cause, style, out)?;
        }
    }
    let more = leaks.total_suspects - leaks.suspects.len();
    if more > 0 {
        writeln!(
            out,
            "and {} (--limit 0 shows all)",
            counted(more as u64, "more", "more")
        )?;
    }
    writeln!(out)?;
    closing(stacks, leaks, style, out)?;
    let source = leaks.suspects.first().and_then(|cause| {
        let head = cause.sites.first()?.head;
        let frame = stacks.frame(head.your_code.or(head.made_in)?);
        let file = stacks.name(frame.file);
        (!file.is_empty() && !file.starts_with('<')).then(|| file.to_owned())
    });
    let from = match leaks.from_ns {
        0 => "top --sort growth --from start".to_owned(),
        ns => format!("top --sort growth --from +{:.3}s", ns as f64 / 1e9),
    };
    let grown = (from.as_str(), "all that grew");
    let is_held = |cause: &&Cause| {
        cause.verdict == Verdict::Unreachable
            || cause.held.as_ref().is_some_and(|held| held.group.is_some())
    };
    if let Some(cause) = leaks.suspects.iter().find(is_held) {
        let why = format!("why {}", cause.id);
        let lines = source.map(|source| format!("lines {}", quoted(&source)));
        let second = lines
            .as_deref()
            .map_or(grown, |lines| (lines, "its source"));
        return next_commands(model, &[(&why, "who holds it"), second], style, out);
    }
    match source {
        Some(source) => {
            let lines = format!("lines {}", quoted(&source));
            next_commands(model, &[(&lines, "its source"), grown], style, out)
        }
        None => next_commands(model, &[grown], style, out),
    }
}

/// A cause in a few lines.
fn one(
    model: &Model<'_>,
    stacks: &Stacks<'_>,
    leaks: &Leaks,
    cause: &Cause,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let head = cause.sites[0].head;
    let title = format!("{} {}", cause.id, cause.word());
    let rate = leaks.pace(cause);
    let mut line = format!(
        "{} {rate}, {}",
        padded(&title, 16),
        since(model, leaks, cause)
    );
    if let (Some(name), true) = (&leaks.rounds, cause.rate.blocks_per_unit > 0.0) {
        line = format!(
            "{line}, {:.2} blocks a `{name}`",
            cause.rate.blocks_per_unit
        );
    }
    style.wrapped(out, BOLD, 17, &line)?;
    let mut fact = |name: &str, text: &str| {
        style.wrapped(
            out,
            anstyle::Style::new(),
            17,
            &format!("   {name:<13} {text}"),
        )
    };
    let is_own = head.made_in == head.your_code;
    let place = |id: FrameId| {
        let (function, place) = frame_words(stacks, id);
        if place.is_empty() {
            function
        } else {
            format!("{function}  {place}")
        }
    };
    if let Some(made_in) = head.made_in {
        let own = if is_own { "  <- your code" } else { "" };
        fact("made in", &format!("{}{own}", place(made_in)))?;
    }
    if let Some(through) = through(stacks, cause) {
        fact("through", &place(through))?;
    }
    if let (Some(own), false) = (head.your_code, is_own) {
        fact("your code", &place(own))?;
    }
    fact("held by", &held_by(cause).unwrap_or_else(|why| why))?;
    let mut words = evidence(model, stacks, cause);
    words.extend(leaks.decides(cause));
    fact("evidence", &words.join("; "))
}

/// `steady since 14:05:02`; of what does not last a minute `since +1.2 s`.
fn since(model: &Model<'_>, leaks: &Leaks, cause: &Cause) -> String {
    let at = if leaks.seconds() < 60.0 {
        format!("+{}", duration(cause.since_ns))
    } else {
        clock(model, cause.since_ns)
    };
    match cause.verdict {
        Verdict::Leaking => format!("steady since {at}"),
        Verdict::Unreachable if cause.rate.bytes_per_second <= 0.0 => "not growing".into(),
        _ => format!("since {at}"),
    }
}

fn table(model: &Model<'_>, stacks: &Stacks<'_>, leaks: &Leaks) -> Table {
    // Headers are fixed; the unit goes with the figures.
    let mut table = Table::new(
        &["verdict", "grows by", "live"],
        &["made in", "your code", "held by"],
    );
    for cause in &leaks.suspects {
        let head = cause.sites[0].head;
        let frame = |id: Option<FrameId>| match id {
            Some(id) => {
                let (function, place) = frame_words(stacks, id);
                Cell::Named(function, place)
            }
            None => Cell::Text("-".into()),
        };
        let own = if head.your_code == head.made_in {
            Cell::Text("the same".into())
        } else {
            frame(head.your_code)
        };
        table.row(vec![
            Cell::Figure(format!("{} {}", cause.id, cause.word())),
            Cell::Figure(leaks.pace(cause)),
            Cell::Figure(bytes(cause.live.bytes)),
            frame(head.made_in),
            own,
            Cell::Text(held_by(cause).unwrap_or_else(|_| "not known".into())),
        ]);
        let mut words = evidence(model, stacks, cause);
        words.remove(0);
        words.insert(0, since(model, leaks, cause));
        words.extend(leaks.decides(cause));
        for line in words {
            table.below(Cell::Line(line));
        }
    }
    table
}

/// Where nothing grows: what the process took, and why that is no leak.
fn grew(leaks: &Leaks, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let (before, after) = leaks.live;
    let mut text = format!(
        "Live memory went from {} to {}",
        bytes(before),
        bytes(after)
    );
    if let Some((before, after)) = leaks.rss {
        let (before, after) = (bytes(before), bytes(after));
        text = format!("{text}, resident memory from {before} to {after}");
    }
    text.push_str(match leaks.snapshots {
        Some(_) => " after the first snapshot.",
        None => " after warm-up.",
    });
    writeln!(out)?;
    style.wrapped(out, anstyle::Style::new(), 0, &text)
}

/// What grew besides, what was kept out, and what would have been seen.
fn closing(
    stacks: &Stacks<'_>,
    leaks: &Leaks,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let plain = anstyle::Style::new();
    let of = |verdict: Verdict| leaks.acquitted.iter().find(|one| one.verdict == verdict);
    let words =
        [Verdict::Plateau, Verdict::Burst, Verdict::StartUp].map(|verdict| match of(verdict) {
            Some(one) => {
                let size = if verdict == Verdict::Burst {
                    format!("up to {}", bytes(one.most_bytes))
                } else {
                    bytes(one.bytes)
                };
                format!(
                    "{} {} {size}",
                    verdict.word(),
                    counted(one.sites as u64, "site", "sites")
                )
            }
            None => format!("{} none", verdict.word()),
        });
    style.wrapped(out, plain, 11, &format!("Not leaks: {}.", words.join(", ")))?;
    if let Some(unclear) = of(Verdict::Unclear) {
        let more = duration(leaks.to_ns.saturating_sub(leaks.from_ns).saturating_mul(2));
        let largest = unclear.largest.as_ref().and_then(|site| site.head.made_in);
        let place = largest.map_or_else(String::new, |id| format!(", first {}", named(stacks, id)));
        let text = format!(
            "Unclear:   {}, {}{place}; {more} more would decide.",
            counted(unclear.sites as u64, "site", "sites"),
            bytes(unclear.bytes)
        );
        style.wrapped(out, plain, 11, &text)?;
    }
    if leaks.lost_besides.blocks > 0 {
        let text = format!(
            "Lost:      {} more, {}, too little for a cause or seen in one look only: see \
             `leakline why`.",
            counted(leaks.lost_besides.blocks, "block", "blocks"),
            bytes(leaks.lost_besides.bytes)
        );
        style.wrapped(out, plain, 11, &text)?;
    }
    for one in &leaks.suppressed {
        let text = format!(
            "Suppressed: {}, {}, by `leak:{}`{}.",
            counted(one.sites as u64, "site", "sites"),
            bytes(one.bytes),
            printable(&one.suppression.pattern),
            if one.suppression.shipped {
                " (of leakline's own list)"
            } else {
                ""
            }
        );
        style.wrapped(out, plain, 12, &text)?;
    }
    let seconds = leaks.seconds();
    if !leaks.suspects.is_empty() && seconds > 0.0 {
        let would_show = speed(leaks.detectable_bytes_per_second, seconds);
        writeln!(out, "Any other growth above {would_show} would show.")?;
    }
    if leaks.from_ns > 0 && leaks.query.from.is_none() && leaks.snapshots.is_none() {
        let text = format!(
            "Warm-up ended after {}; what was made before does not count.",
            duration(leaks.from_ns)
        );
        style.wrapped(out, DIM, 0, &text)?;
    }
    Ok(())
}

/// Writes `check`: whether it passed, and a line for each cause.
pub fn check<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    fails: &[bool],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let failures = fails.iter().filter(|&&fails| fails).count();
    let known = fails.len() - failures;
    let mut answer = if failures == 0 {
        "PASSED: ".to_owned()
    } else {
        format!(
            "FAILED for {}: ",
            counted(failures as u64, "cause", "causes")
        )
    };
    answer.push_str(&leaks.answer());
    if known > 0 {
        let known = counted(known as u64, "cause", "causes");
        answer = format!("{answer} ({known} in the baseline or not certain)");
    }
    head(model, &leaks.span, &answer, style, out)?;
    for (cause, fails) in leaks.suspects.iter().zip(fails) {
        let head = cause.sites[0].head;
        let frame = |id: Option<FrameId>| id.map_or_else(String::new, |id| named(stacks, id));
        let own = if head.your_code == head.made_in {
            String::new()
        } else {
            format!(", your code {}", frame(head.your_code))
        };
        let text = format!(
            "{} {} {} {}, {}{own}",
            if *fails { "fails" } else { "known" },
            cause.id,
            cause.word(),
            leaks.pace(cause),
            frame(head.made_in),
        );
        style.wrapped(out, anstyle::Style::new(), 6, &text)?;
    }
    Ok(())
}

/// Writes `leaks --markdown`: for a ticket.
pub fn leaks_markdown<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let cell = |text: &str| printable(text).replace('|', "\\|");
    write!(out, "**{}**", cell(&leaks.answer()))?;
    match leaks.forecast_words() {
        Some(forecast) => writeln!(out, ", {}", cell(&forecast))?,
        None => writeln!(out)?,
    }
    writeln!(out)?;
    writeln!(out, "{}", cell(&facts(model)))?;
    if !leaks.suspects.is_empty() {
        writeln!(out)?;
        writeln!(
            out,
            "| | verdict | grows by | live | made in | your code | since | evidence |"
        )?;
        writeln!(out, "| --- | --- | ---: | ---: | --- | --- | --- | --- |")?;
    }
    for cause in &leaks.suspects {
        let head = cause.sites[0].head;
        let frame = |id: Option<FrameId>| {
            id.map_or_else(
                || "-".to_owned(),
                |id| format!("`{}`", cell(&named(stacks, id))),
            )
        };
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            cause.id,
            cause.word(),
            leaks.unit().with_name(&cause.rate),
            bytes(cause.live.bytes),
            frame(head.made_in),
            frame(head.your_code),
            since(model, leaks, cause)
                .trim_start_matches("steady ")
                .trim_start_matches("since "),
            cell(&evidence(model, stacks, cause).join("; ")),
        )?;
    }
    writeln!(out)?;
    let plain = Style {
        width: usize::MAX,
        colour: false,
        boxes: false,
    };
    closing(stacks, leaks, plain, out)
}
