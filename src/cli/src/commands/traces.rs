//! `leakline __traces`: what `leakline.tracemalloc` asks of a recording, as JSON that
//! names each frame once. Not for people.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use leakline_analysis::{FrameKind, Instant, Span};
use leakline_recording::record::Domain;
use serde_json::{Value, json};

use super::report::{Input, Output, instant, report, resolved};
use crate::CliError;

/// What lived at an instant, by Python stacks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recording
    file: PathBuf,
    /// The instant
    #[arg(long, value_parser = instant)]
    at: Instant,
    /// Most frames of a stack, the innermost
    #[arg(long)]
    frames: Option<usize>,
    /// Say the most that lived at once since an instant, and no stacks
    #[arg(long, value_parser = instant)]
    peak_since: Option<Instant>,
}

/// Writes it to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report(
        &Input::new(Some(args.file.clone()), true),
        |model, stacks, output| {
            let (Output::Json(out) | Output::Text(out, _)) = output;
            let span = resolved(Span::at(model, &args.at))?;
            let to_ns = span.to().resolved_ns();
            if let Some(since) = &args.peak_since {
                let from_ns = resolved(Span::at(model, since))?.to().resolved_ns();
                let bins = model.bins().iter();
                let within = bins.filter(|bin| bin.end_ns > from_ns && bin.end_ns <= to_ns);
                let at_end = model.bins().iter().rfind(|bin| bin.end_ns <= to_ns);
                let live = at_end.map_or(0, |bin| bin.live_bytes);
                let peak = within.map(|bin| bin.max_bytes).max().unwrap_or(0);
                let answer = json!({ "live_bytes": live, "peak_bytes": peak.max(live) });
                return writeln!(out, "{answer}").map_err(CliError::Output);
            }
            let mut places: Vec<Value> = Vec::new();
            let mut numbers = HashMap::new();
            // Blocks, bytes, and how many frames there were. By domain: blocks of one
            // are of a size more often.
            let mut held: HashMap<(&str, Vec<usize>), (i64, i64, usize)> = HashMap::new();
            let mut sites = Vec::new();
            model.for_each_figures(&span, |_, site, figures| {
                let is_python = matches!(site.domain, Domain::Raw | Domain::Mem | Domain::Obj);
                if is_python && figures.live_blocks > 0 {
                    sites.push((
                        site.domain.name(),
                        site.node,
                        figures.live_blocks,
                        figures.live_bytes,
                    ));
                }
            });
            for (domain, node, blocks, bytes) in sites {
                let mut stack = stacks.stack(model, node);
                stack.retain(|id| stacks.frame(*id).kind == FrameKind::Python);
                let total = stack.len();
                stack.truncate(args.frames.unwrap_or(usize::MAX));
                let stack: Vec<usize> = stack
                    .into_iter()
                    .map(|id| {
                        *numbers.entry(id).or_insert_with(|| {
                            let frame = stacks.frame(id);
                            places.push(json!([stacks.name(frame.file), frame.line]));
                            places.len() - 1
                        })
                    })
                    .collect();
                let sum = held.entry((domain, stack)).or_default();
                (sum.0, sum.1, sum.2) = (sum.0 + blocks, sum.1 + bytes, sum.2.max(total));
            }
            let told: Vec<Value> = held
                .into_iter()
                .map(|((_, stack), (blocks, bytes, total))| json!([blocks, bytes, stack, total]))
                .collect();
            let answer = json!({ "frames": places, "stacks": told });
            writeln!(out, "{answer}").map_err(CliError::Output)
        },
    )
}
