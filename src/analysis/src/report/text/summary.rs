//! `summary` as text.

use std::io;

use super::closing::{next_commands, notes};
use super::heading::{answer, head};
use super::processes::{by_peak, fate};
use super::top::rows_table;
use crate::figures::{Measure, Unit};
use crate::model::Model;
use crate::report::table::Style;
use crate::report::words::{blocks, blocks_within, bytes, bytes_within, counted, duration};
use crate::stack::Stacks;
use crate::summary::Summary;
use crate::top::process_label;

/// Writes `summary`.
pub fn summary<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    summary: &Summary,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    const MOST_PROCESSES: usize = 4;
    let totals = &summary.stats.totals;
    let peak = model.high_water();
    let span = &summary.top.query.span;
    let answer = format!(
        "peak {} after {}; {}",
        bytes_within(
            totals.peak_bytes,
            summary.top.sum.error(Measure::Peak, Unit::Bytes),
            style.boxes
        ),
        duration(peak.at_ns),
        answer(model, span, Measure::Live, &summary.live(), style)
    );
    head(model, span, &answer, style, out)?;

    writeln!(out)?;
    if summary.top.rows.is_empty() {
        writeln!(out, "Nothing was allocated.")?;
    } else {
        rows_table(model, stacks, &summary.top, style).write(out, style)?;
    }

    writeln!(out)?;
    let fact = |name: &str, text: &str, out: &mut dyn io::Write| fact(name, text, style, out);
    if model.is_imported() {
        let snapshots = counted(model.bins().len() as u64, "snapshot", "snapshots");
        let size = bytes(model.origin().file_bytes);
        let text = format!("{snapshots}; allocations and frees are not known; {size}");
        fact("imported", &text, out)?;
        return closing(model, style, out);
    }
    fact(
        "recorded",
        &format!(
            "{} allocations, {}; {}",
            blocks_within(
                totals.allocations,
                summary
                    .stats
                    .estimates
                    .and_then(|figures| figures.error(Measure::Total, Unit::Blocks)),
                style.boxes
            ),
            if totals.lost_events == 0 && model.is_sampled() {
                "by a sample of them".to_owned()
            } else if totals.lost_events == 0 {
                "all of them".to_owned()
            } else {
                format!("{} events lost", blocks(totals.lost_events))
            },
            bytes(model.origin().file_bytes)
        ),
        out,
    )?;
    for (at, &id) in by_peak(&summary.stats)
        .iter()
        .take(MOST_PROCESSES)
        .enumerate()
    {
        let name = if at == 0 { "processes" } else { "" };
        let peak = bytes(summary.stats.processes[id as usize].totals.peak_bytes);
        let text = format!(
            "{}, peak {peak}{}",
            process_label(model, id),
            fate(model, id)
        );
        fact(name, &text, out)?;
    }
    if model.processes().len() > MOST_PROCESSES {
        let more = model.processes().len() - MOST_PROCESSES;
        fact("", &format!("and {more} more (leakline stats)"), out)?;
    }
    fact("ended", &ending(model), out)?;
    closing(model, style, out)
}

fn fact(name: &str, text: &str, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    let text = format!("{name:<10} {text}");
    style.wrapped(out, anstyle::Style::new(), 11, &text)
}

/// What was wrong, what is to be known, and what to do next.
fn closing(model: &Model<'_>, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    for warning in &model.origin().warnings {
        fact("damaged", warning, style, out)?;
    }
    notes(model, style, out)?;
    next_commands(
        model,
        &[("top", "what is live"), ("tree --at peak", "who called")],
        style,
        out,
    )
}

fn ending(model: &Model<'_>) -> String {
    let at = duration(model.duration_ns());
    match model.end() {
        Some(end) if model.origin().ended => match end.reason.as_str() {
            "exited" => format!("the program's last process, after {at}"),
            reason => format!("{reason} after {at}"),
        },
        _ if model.origin().is_live => format!("not yet: it goes on after {at}"),
        _ => format!(
            "without a farewell after {at}: still recording, or the recorder was killed; what came later is not known"
        ),
    }
}
