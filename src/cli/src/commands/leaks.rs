//! `leakline leaks`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::heap::{Graph, Heap, read_last};
use leakline_analysis::leaks::Findings;
use leakline_analysis::report::{json, text};
use leakline_analysis::{Filter, Instant, Leaks, LeaksQuery, Model, Stacks, Suppression};
use leakline_recording::record::HeapGraph;

use super::report::{Input, Output, instant, report_with_file, resolved, unopened};
use super::size;
use super::why::earlier;
use crate::CliError;

/// Says which places leak, how fast, and which only look like it.
///
/// Exits with 0 whatever it finds: `leakline check` is the gate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline leaks
  leakline leaks --long                     each cause in a few lines
  leakline leaks --from +10m                what was there by then does not count
  leakline leaks --memory-limit 2GiB        and when it is reached
  leakline leaks --suppressions known.txt   without what is known
  leakline leaks --markdown > ticket.md")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    question: Question,
    /// Most causes; 0 = all [default: 10; with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Each cause in a few lines, however wide the terminal is
    #[arg(long, conflicts_with = "json")]
    long: bool,
    /// A table for a ticket
    #[arg(long, conflicts_with_all = ["json", "long"])]
    markdown: bool,
}

/// What `leaks` and `check` are asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Question {
    /// Growth counts from here on: start, a mark's name, +90s, 14:05 [default:
    /// when imports were done]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Instant>,
    /// Up to here [default: end, of Python when its main thread left __main__]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<Instant>,
    /// Only causes whose function, file, module or process matches: a text to
    /// find, or a pattern with * and ?
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Ok::<_, String>(Filter::new(text)))]
    filter: Option<Filter>,
    /// What the program may take: says when that is reached (`--limit` is the
    /// number of rows, as ever)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    memory_limit: Option<u64>,
    /// Leave out what a file names, in LeakSanitizer's format: lines
    /// `leak:PATTERN`
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    suppressions: Vec<PathBuf>,
    /// Do not leave out what leakline's own list names
    #[arg(long)]
    no_default_suppressions: bool,
}

impl Question {
    /// The answer.
    pub(crate) fn ask<'a>(
        &self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        limit: Option<usize>,
    ) -> Result<Leaks, CliError> {
        let mut suppressions = Vec::new();
        for path in &self.suppressions {
            let failed = |message: String| CliError::Report {
                message,
                hint: Some("a suppression is a line such as `leak:parse_header`".into()),
                source: None,
            };
            let text = fs::read_to_string(path).map_err(|error| CliError::Report {
                message: format!("cannot read `{}`", path.display()),
                hint: None,
                source: Some(error.into()),
            })?;
            let read = Suppression::parse(&text)
                .map_err(|error| failed(format!("`{}`: {error}", path.display())))?;
            suppressions.extend(read);
        }
        if !self.no_default_suppressions {
            suppressions.extend(Suppression::shipped());
        }
        let query = LeaksQuery {
            from: self.from.clone(),
            to: self.to.clone(),
            limit,
            filter: self.filter.clone(),
            memory_limit: self.memory_limit,
            suppressions,
            most_sites: None,
        };
        resolved(Leaks::new(model, stacks, query))
    }
}

/// The heap graphs of the process that has most of the most serious cause; where there are
/// none, all.
fn of_most<'a>(leaks: &Leaks, model: &Model<'a>) -> Vec<&'a HeapGraph> {
    let all = model.heap_graphs();
    let shares = leaks.suspects.first().map(|cause| &cause.shares);
    let most = shares.and_then(|shares| shares.first());
    let mut found = all.to_vec();
    found.retain(|graph| most.is_some_and(|share| share.process == graph.process));
    if found.is_empty() {
        all.to_vec()
    } else {
        found
    }
}

/// The last heap graph of the process that has most of the most serious cause; where there
/// is none, the last.
pub(crate) fn last_graph(
    leaks: &Leaks,
    model: &Model<'_>,
    file: &Path,
) -> Result<Option<(u32, Graph)>, CliError> {
    let all = model.heap_graphs();
    let of_most = of_most(leaks, model);
    let found = read_last(file, &of_most).and_then(|found| match found {
        None if of_most.len() < all.len() => read_last(file, all),
        found => Ok(found),
    });
    found.map_err(|error| unopened(&error))
}

/// Has a heap graph say what it knows ([`last_graph`]), with an earlier one of its process.
pub(crate) fn look_into<'a>(
    leaks: &mut Leaks,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    file: &Path,
) -> Result<(), CliError> {
    // What is wrong in the earlier one is found out before the last is read: two at once take
    // twice the memory. The last is whole, as a rule.
    let before = |number: u32| {
        let found = earlier(number, model, file);
        found.map(|found| found.map(|(_, heap)| heap.references()))
    };
    let Some(expected) = of_most(leaks, model).last().map(|told| told.graph) else {
        leaks.limit();
        return Ok(());
    };
    let mut earlier = before(expected)?;
    if let Some((number, graph)) = last_graph(leaks, model, file)? {
        if number != expected {
            earlier = before(number)?;
        }
        let heap = Heap::new(graph);
        let told = (number, heap.references());
        let findings = Findings::new(model, stacks, told, earlier.as_ref());
        leaks.look_into(model, stacks, &heap, &findings);
    }
    leaks.limit();
    Ok(())
}

/// Writes the causes to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    const SCREENFUL: usize = 10;
    let limit = match args.limit {
        Some(0) => None,
        Some(limit) => Some(limit),
        None if args.input.is_json() => None,
        None => Some(SCREENFUL),
    };
    report_with_file(&args.input, |model, stacks, file, output| {
        let mut leaks = args.question.ask(model, stacks, limit)?;
        look_into(&mut leaks, model, stacks, file)?;
        match output {
            Output::Json(out) => json::leaks(model, stacks, &leaks, out),
            Output::Text(out, _) if args.markdown => {
                text::leaks_markdown(model, stacks, &leaks, out)
            }
            Output::Text(out, style) => text::leaks(model, stacks, &leaks, args.long, style, out),
        }
        .map_err(CliError::Output)
    })
}
