//! `leakline diff`.

use std::path::PathBuf;
use std::process::ExitCode;

use leakline_analysis::report::json::DiffSide;
use leakline_analysis::report::{json, text};
use leakline_analysis::{
    Diff, DiffQuery, GroupBy, Instant, Model, Side, Span, Stacks, Survived, Survivors,
};

use super::report::{Input, Output, Rows, instant, open_other, report, resolved};
use super::top::By;
use crate::CliError;

/// Shows what grew, shrank, came and went between two instants, of one
/// recording or from one to another.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline diff --from +60s                      what changed after the first minute
  leakline diff --from deploy --to +1h           from a mark to a time after the start
  leakline diff --by file --filter 'app/*'
  leakline diff --survivors --from +60s          what was born after it and stayed
  leakline diff --from 14:05 --to 14:10 --alive-at end
  leakline diff old.leakline new.leakline        before and after a change of the code
  leakline diff --json --from start")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// Another recording: compare with it, after FILE
    #[arg(value_name = "FILE2")]
    other: Option<PathBuf>,
    /// What a row stands for
    #[arg(long, value_name = "GROUP", default_value = "site")]
    by: By,
    /// From this instant: start, end, peak, a mark's name, +90s, 14:05; of two
    /// recordings, in FILE [default: start; of two recordings, as --to]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    from: Option<Instant>,
    /// To this instant; of two recordings, in FILE2 [default: end, of Python
    /// when its main thread left __main__]
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    to: Option<Instant>,
    /// Of the blocks born between --from and --to, those still alive at the end
    /// (of Python, when its main thread left __main__)
    #[arg(long, conflicts_with = "other")]
    survivors: bool,
    /// ... or alive at another instant; --to is by default the same
    #[arg(long, value_name = "INSTANT", value_parser = instant, conflicts_with = "other")]
    alive_at: Option<Instant>,
    #[command(flatten)]
    rows: Rows,
}

/// Writes the diff to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    const SCREENFUL: usize = 15;
    let query = DiffQuery {
        by: args.by.into(),
        sort: args.rows.asked().map(|(measure, _)| measure),
        unit: args.rows.unit(),
        limit: args.rows.limit(&args.input, SCREENFUL),
        filter: args.rows.filter(),
    };
    let is_of_survivors = args.survivors || args.alive_at.is_some();
    let has_instants = args.from.is_some() || args.to.is_some() || is_of_survivors;
    report(&args.input, |model, stacks, output| {
        if query.by == GroupBy::Thread && (args.other.is_none() || has_instants) {
            return Err(CliError::Usage {
                message: "threads are known for the whole recording only".into(),
                hint: Some(
                    "compare two recordings, without instants, or use another `--by`".into(),
                ),
            });
        }
        if is_of_survivors {
            survivors(args, model, stacks, &query, output)
        } else if let Some(other) = &args.other {
            across(args, model, stacks, other, query, output)
        } else {
            let span = match &args.to {
                None => resolved(Span::since(model, &from(args)))?,
                Some(to) => resolved(Span::between(model, &from(args), to))?,
            };
            let diff = Diff::within(model, stacks, span, query);
            write(None, model, stacks, &span, &diff, output)
        }
    })
}

fn from(args: &Args) -> Instant {
    args.from.clone().unwrap_or(Instant::Start)
}

fn survivors<'a>(
    args: &Args,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    query: &DiffQuery,
    output: Output<'_>,
) -> Result<(), CliError> {
    let Some(survivors) = Survivors::new(model) else {
        return Err(CliError::Report {
            message: "this recording does not tell when the blocks that died were born".into(),
            hint: Some("record again: an older leakline made it, or it ended at once".into()),
            source: None,
        });
    };
    let alive = match &args.alive_at {
        None => Span::usual(model),
        Some(at) => resolved(Span::at(model, at))?,
    };
    let alive_ns = alive.to().resolved_ns();
    let to = args.to.as_ref().or(args.alive_at.as_ref());
    let span = match to {
        None => resolved(Span::since(model, &from(args)))?,
        Some(to) => resolved(Span::between(model, &from(args), to))?,
    };
    if alive_ns < span.to().resolved_ns() {
        return Err(CliError::Usage {
            message: "`--alive-at` names an earlier instant than `--to`".into(),
            hint: Some("what is born later is not alive yet".into()),
        });
    }
    let survived = Survived::new(model, stacks, &survivors, span, alive_ns, query);
    match output {
        Output::Json(out) => json::survived(model, stacks, &survived, out),
        Output::Text(out, style) => text::survived(model, stacks, &survived, style, out),
    }
    .map_err(CliError::Output)
}

fn across<'a>(
    args: &Args,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    other: &PathBuf,
    query: DiffQuery,
    output: Output<'_>,
) -> Result<(), CliError> {
    let opened = open_other(other)?;
    let other_model = opened.model();
    let mut other_stacks = Stacks::new(&other_model);
    let is_whole = query.by == GroupBy::Thread;
    let before = span_at(model, args.from.as_ref(), is_whole)?;
    let after = span_at(&other_model, args.to.as_ref(), is_whole)?;
    let diff = Diff::across(
        &mut Side {
            model,
            stacks,
            span: before,
        },
        &mut Side {
            model: &other_model,
            stacks: &mut other_stacks,
            span: after,
        },
        query,
    );
    let before = DiffSide {
        model,
        stacks,
        span: &before,
    };
    write(
        Some(&before),
        &other_model,
        &other_stacks,
        &after,
        &diff,
        output,
    )
}

fn span_at(model: &Model<'_>, at: Option<&Instant>, is_whole: bool) -> Result<Span, CliError> {
    match at {
        None if is_whole => Ok(Span::whole(model)),
        None => Ok(Span::usual(model)),
        Some(at) => resolved(Span::at(model, at)),
    }
}

fn write<'a>(
    before: Option<&DiffSide<'_, '_>>,
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    span: &Span,
    diff: &Diff,
    output: Output<'_>,
) -> Result<(), CliError> {
    let after = DiffSide {
        model,
        stacks,
        span,
    };
    match output {
        Output::Json(out) => json::diff(before, &after, diff, out),
        Output::Text(out, style) => text::diff(before, &after, diff, style, out),
    }
    .map_err(CliError::Output)
}
