//! What every report begins with: the answer, and how far to trust it.

use std::io;

use crate::figures::{Figures, Measure, Unit};
use crate::instant::{At, Span, clock};
use crate::model::Model;
use crate::report::table::{BOLD, DIM, Style, WARN};
use crate::report::words::{
    blocks, blocks_within, bytes, bytes_within, counted, duration, signed_blocks,
};
use crate::scatter::CONFIDENCE;

/// The first line of a report over rows.
pub(super) fn answer(
    model: &Model<'_>,
    span: &Span,
    measure: Measure,
    sum: &Figures,
    style: Style,
) -> String {
    let sized = |amount: u64| bytes_within(amount, sum.error(measure, Unit::Bytes), style.boxes);
    let within = |count: u64| blocks_within(count, sum.error(measure, Unit::Blocks), style.boxes);
    let counted = |count: u64, one: &str, many: &str| {
        if sum.is_estimate() {
            format!("{} {many}", within(count))
        } else {
            counted(count, one, many)
        }
    };
    let live = u64::try_from(sum.live_bytes).unwrap_or(0);
    let live_blocks = u64::try_from(sum.live_blocks).unwrap_or(0);
    let when = when(model, span);
    match measure {
        Measure::Live => format!(
            "{} live in {} {when}{}",
            sized(live),
            counted(live_blocks, "block", "blocks"),
            match u64::try_from(sum.ended_bytes).unwrap_or(0) {
                0 => String::new(),
                ended => format!(" ({} of it in processes that had ended)", bytes(ended)),
            }
        ),
        Measure::Growth if span.from().is_some() => format!(
            "live memory {} by {} ({} blocks) {when}",
            if sum.delta_bytes < 0 { "fell" } else { "grew" },
            sized(sum.delta_bytes.unsigned_abs()),
            signed_blocks(sum.delta_blocks)
        ),
        Measure::Growth => format!("{} live {when}, grown from nothing", sized(live)),
        Measure::Total => format!(
            "{} allocated in {} {}",
            sized(sum.total_bytes),
            counted(sum.total_blocks, "block", "blocks"),
            match until_left(span) {
                Some(until) if span.from().is_none() => until.into(),
                None if span.from().is_none() && span.reaches_end(model) => "in all".into(),
                _ => when,
            }
        ),
        Measure::Peak => {
            let peak = model.high_water();
            format!(
                "{} live in {} at the high-water mark, after {}",
                sized(sum.peak_bytes),
                counted(sum.peak_blocks, "block", "blocks"),
                duration(peak.at_ns)
            )
        }
        Measure::Temporary => format!(
            "{} of {} temporary {when}",
            within(sum.temporary_blocks),
            counted(sum.total_blocks, "block", "blocks")
        ),
    }
}

/// `at the end`, `after 1 min 30 s`, `from 1 min 00 s to the end`.
pub(super) fn when(model: &Model<'_>, span: &Span) -> String {
    let to = span.to();
    match span.from() {
        None if span.is_as_first_left() => "when the main thread left __main__".into(),
        None if span.is_as_each_left() => "when each process left __main__ or ended".into(),
        None if span.reaches_end(model) => "at the end".into(),
        None if to.is_peak() => "at the high-water mark".into(),
        None => format!("after {}", duration(to.resolved_ns())),
        Some(from) => {
            let from = instant(model, span, from);
            match until_left(span) {
                Some(until) => format!("from {from} {until}"),
                None => format!("from {from} to {}", instant(model, span, to)),
            }
        }
    }
}

/// Until when, where that is not an instant as users name one.
fn until_left(span: &Span) -> Option<&'static str> {
    if span.is_as_first_left() {
        Some("until the main thread left __main__")
    } else if span.is_as_each_left() {
        Some("until each process left __main__ or ended")
    } else {
        None
    }
}

fn instant(model: &Model<'_>, span: &Span, at: &At) -> String {
    if at == span.to() && span.reaches_end(model) {
        "the end".into()
    } else if at.is_peak() {
        "the high-water mark".into()
    } else {
        format!("+{}", duration(at.resolved_ns()))
    }
}

/// The answer, and how far to trust it.
pub(super) fn head(
    model: &Model<'_>,
    span: &Span,
    answer: &str,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    style.wrapped(out, BOLD, 6, answer)?;
    trust(model, "", style, out)?;
    instants(model, span, style, out)
}

/// The instants, unless the answer says all of them.
pub(super) fn instants(
    model: &Model<'_>,
    span: &Span,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    // The answer says when where that is not one instant of the session.
    let is_told = span.reaches_end(model) || span.is_as_each_left();
    if span.from().is_some() || !is_told {
        let mut text = String::from("instants: ");
        if let Some(from) = span.from() {
            text.push_str(&clock(model, from.resolved_ns()));
            text.push('-');
        }
        text.push_str(&clock(model, span.to().resolved_ns()));
        match span.resolution_ns() {
            0 => text.push_str(", exact"),
            resolution => {
                text.push_str(", the nearest recorded (every ");
                text.push_str(&duration(resolution));
                text.push(')');
            }
        }
        let all_exact = span.from().is_none_or(At::exact) && span.to().exact();
        if !all_exact {
            text.push_str("; a site's figures are within 64 KiB or 1 %");
        }
        style.wrapped(out, DIM, 10, &text)?;
    }
    Ok(())
}

/// `python train.py (pid 4121), 14:05:02-14:17:06, exact, complete`.
pub(super) fn trust(
    model: &Model<'_>,
    lead: &str,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let paint = if model.complete() { DIM } else { WARN };
    style.wrapped(out, paint, 6, &format!("{lead}{}", facts(model)))
}

/// How far to trust a recording.
pub(super) fn facts(model: &Model<'_>) -> String {
    let mode = match model.mode() {
        "" => "mode not known",
        "mixed" => "every block at times, at others sampled",
        mode => mode,
    };
    let mode = match model.session() {
        Some(_) if model.is_sampled() => {
            let mean = match model.sample_range() {
                (high, low) if high == low => bytes(high),
                (high, low) => format!("{} to {}", bytes(high), bytes(low)),
            };
            format!(
                "{mode}, one in {mean} on average (errors at {:.0} %)",
                CONFIDENCE * 100.0
            )
        }
        _ => mode.to_owned(),
    };
    format!(
        "{}, {}-{} ({}), {mode}, {}",
        target(model),
        clock(model, 0),
        clock(model, model.duration_ns()),
        duration(model.duration_ns()),
        completeness(model)
    )
}

/// The program, its pid, and how many other processes.
fn target(model: &Model<'_>) -> String {
    let program = model.target();
    if model.is_imported() {
        return program;
    }
    let others = model.processes().len().saturating_sub(1);
    let pid = match model.processes().first() {
        Some(facts) => format!("pid {}", facts.process.pid),
        None => "no process".into(),
    };
    match others {
        0 => format!("{program} ({pid})"),
        1 => format!("{program} ({pid} and 1 more process)"),
        _ => format!("{program} ({pid} and {others} more processes)"),
    }
}

/// `complete`, or everything that is not.
fn completeness(model: &Model<'_>) -> String {
    let totals = model.totals();
    let mut flaws = Vec::new();
    if totals.lost_events > 0 {
        flaws.push(format!(
            "{} of {} events lost",
            blocks(totals.lost_events),
            blocks(totals.events.saturating_add(totals.lost_events))
        ));
    }
    if totals.malformed_events > 0 {
        flaws.push(format!(
            "{} unreadable events",
            blocks(totals.malformed_events)
        ));
    }
    if !model.origin().warnings.is_empty() {
        flaws.push("parts of the file are unreadable".into());
    }
    if model.origin().is_live {
        flaws.push("goes on".into());
    } else if !model.origin().ended {
        flaws.push("ends without a farewell".into());
    }
    if flaws.is_empty() {
        "complete".into()
    } else {
        flaws.join(", ")
    }
}
