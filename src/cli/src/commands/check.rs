//! `leakline check`: the gate for CI.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::Verdict;
use leakline_analysis::report::ci::{Baseline, github, junit};
use leakline_analysis::report::{json, text};

use super::leaks::Question;
use super::report::{Input, Output, report};
use crate::CliError;

/// Fails with status 1 where a recording shows a leak.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline check                              status 1 if something leaks
  leakline check --strict                     also if something grows
  leakline check --baseline leaks.json --write-baseline    remember what is known
  leakline check --baseline leaks.json        status 1 for what is new or worse
  leakline check --junit leaks.xml --github   for the machines of CI")]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    question: Question,
    /// Fail also for what grows, though whether it stops cannot be told yet
    #[arg(long)]
    strict: bool,
    /// Do not fail for causes that this file knows, unless they became worse
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    baseline: Option<PathBuf>,
    /// Write what is found to the --baseline's file, and do not fail
    #[arg(long, requires = "baseline")]
    write_baseline: bool,
    /// Write the outcome as JUnit's XML
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    junit: Option<PathBuf>,
    /// Print GitHub's annotations
    #[arg(long, conflicts_with = "json")]
    github: bool,
}

/// Writes the outcome, and gives it as the status.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let failed = Cell::new(false);
    let known = match &args.baseline {
        Some(path) if !args.write_baseline => Some(read(path)?),
        _ => None,
    };
    let status = report(&args.input, |model, stacks, output| {
        let leaks = args.question.ask(model, stacks, None)?;
        if let (Some(path), true) = (&args.baseline, args.write_baseline) {
            write(path, Baseline::of(stacks, &leaks).text().as_bytes())?;
        }
        let fails: Vec<bool> = leaks
            .suspects
            .iter()
            .map(|cause| {
                let is_known = known
                    .as_ref()
                    .is_some_and(|known| known.knows(stacks, cause));
                let is_leak = matches!(cause.verdict, Verdict::Leaking | Verdict::Unreachable);
                let counts = is_leak || args.strict;
                counts && !is_known && !args.write_baseline
            })
            .collect();
        failed.set(fails.contains(&true));
        if let Some(path) = &args.junit {
            let mut xml = Vec::new();
            junit(model, stacks, &leaks, &fails, &mut xml).map_err(CliError::Output)?;
            write(path, &xml)?;
        }
        let baseline = args
            .baseline
            .as_ref()
            .map(|path| path.display().to_string());
        match output {
            Output::Json(out) => {
                json::check(model, stacks, &leaks, &fails, baseline.as_deref(), out)
            }
            Output::Text(out, style) => text::check(model, stacks, &leaks, &fails, style, out)
                .and_then(|()| {
                    if args.github {
                        let root = root();
                        github(model, stacks, &leaks, &fails, &root, out)?;
                    }
                    Ok(())
                }),
        }
        .map_err(CliError::Output)
    })?;
    Ok(if failed.get() {
        ExitCode::from(1)
    } else {
        status
    })
}

/// Where GitHub has the sources, or else here.
fn root() -> String {
    std::env::var("GITHUB_WORKSPACE")
        .ok()
        .or_else(|| Some(std::env::current_dir().ok()?.display().to_string()))
        .unwrap_or_default()
}

fn read(path: &Path) -> Result<Baseline, CliError> {
    let text = fs::read_to_string(path).map_err(|error| CliError::Report {
        message: format!("cannot read `{}`", path.display()),
        hint: Some("`--write-baseline` makes it".into()),
        source: Some(error.into()),
    })?;
    Baseline::parse(&text).map_err(|error| CliError::Report {
        message: format!("cannot use `{}` as a baseline: {error}", path.display()),
        hint: Some("`--write-baseline` replaces it".into()),
        source: None,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    fs::File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| CliError::Report {
            message: format!("cannot write `{}`", path.display()),
            hint: None,
            source: Some(error.into()),
        })
}
