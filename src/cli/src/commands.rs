//! The subcommands, a module each: `Args` (what clap parses) and `run`.

use std::process::ExitCode;

use crate::CliError;

mod attach;
mod check;
mod collector;
mod completions;
mod detach;
mod diff;
mod doctor;
mod export;
mod flame;
mod heap_at;
mod import;
mod leaks;
mod ledger;
mod lines;
pub(crate) mod live;
mod mode;
mod origins;
mod processes;
mod ps;
mod report;
pub(crate) mod run;
mod snapshot;
mod stats;
mod summary;
mod top;
mod traces;
mod tree;
mod tui;
mod why;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a program and record its allocations
    Run(run::Args),
    /// Record a process that is running already, and its children
    Attach(attach::Args),
    /// Leave a process that is attached to as it was
    Detach(detach::Args),
    /// Keep this instant of a recording that is being made
    Snapshot(snapshot::Args),
    /// Switch a recording that is being made between all blocks and a sample
    Mode(mode::Args),
    /// Say in a screenful what a recording has to say
    Summary(summary::Args),
    /// Say which places leak, and which only look like it
    Leaks(leaks::Args),
    /// Say who holds what lives: a leak, a type, a place's objects, or where most gathers
    Why(why::Args),
    /// Fail where a recording shows a leak: the gate for CI
    Check(check::Args),
    /// List what allocated, largest first
    Top(top::Args),
    /// Show who called whom to allocate
    Tree(tree::Args),
    /// Draw who called whom to allocate, for a browser
    Flame(flame::Args),
    /// Write a page or a profile to share
    Export(export::Args),
    /// Make a recording of snapshots that tracemalloc has written
    Import(import::Args),
    /// Show a source file with what each line allocated
    Lines(lines::Args),
    /// Show what grew, shrank, came and went between two instants
    Diff(diff::Args),
    /// Print what was counted
    Stats(stats::Args),
    /// Say what the resident memory of a process is made of
    Ledger(ledger::Args),
    /// List processes: what they are, which grow, which may be attached to
    Ps(ps::Args),
    /// Say what would stop an attach or spoil symbols, and how to mend it
    Doctor(doctor::Args),
    /// Open a recording in the terminal
    Tui(tui::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// The collector's process: started by `run`, not by people
    #[command(name = "__collector", hide = true)]
    Collector,
    /// What `leakline.tracemalloc` asks: not for people
    #[command(name = "__traces", hide = true)]
    Traces(traces::Args),
    /// What `leakline.allocated_at` asks: not for people
    #[command(name = "__origins", hide = true)]
    Origins(origins::Args),
    /// The process that wakes a program started with `run --idle`: not for people
    #[command(name = "__keeper", hide = true)]
    Keeper,
}

impl Command {
    /// Does it; returns the status to exit with.
    pub(crate) fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Command::Run(args) => run::run(args),
            Command::Attach(args) => attach::run(&args),
            Command::Detach(args) => detach::run(&args),
            Command::Snapshot(args) => snapshot::run(&args),
            Command::Mode(args) => mode::run(&args),
            Command::Summary(args) => summary::run(&args),
            Command::Leaks(args) => leaks::run(&args),
            Command::Why(args) => why::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Top(args) => top::run(&args),
            Command::Tree(args) => tree::run(&args),
            Command::Flame(args) => flame::run(&args),
            Command::Export(args) => export::run(&args),
            Command::Import(args) => import::run(&args),
            Command::Lines(args) => lines::run(&args),
            Command::Diff(args) => diff::run(&args),
            Command::Stats(args) => stats::run(&args),
            Command::Ledger(args) => ledger::run(&args),
            Command::Ps(args) => ps::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Tui(args) => tui::run(&args),
            Command::Completions(args) => completions::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Traces(args) => traces::run(&args),
            Command::Origins(args) => origins::run(&args),
            Command::Collector => Ok(collector::run()),
            Command::Keeper => Ok(run::idle::keep()),
        }
    }
}

pub(crate) use ledger::json_of as ledger;

/// A size as users write it: `64MiB`, `2G`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return Err("units are K, M, G and T (or KiB, MiB, GiB, TiB)".into()),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * unit as f64) as u64),
        _ => Err("not a size such as `64MiB`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("1.5M"), Ok(3 << 19));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "2GB", "x", "0", "-1", "1.2.3K"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
