//! The subcommands, a module each: `Args` (what clap parses) and `run`.

use std::process::ExitCode;

use crate::CliError;

mod collector;
mod completions;
mod export;
mod flame;
mod lines;
mod report;
pub(crate) mod run;
mod stats;
mod summary;
mod top;
mod tree;
mod tui;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a program and record its allocations
    Run(run::Args),
    /// Say in a screenful what a recording has to say
    Summary(summary::Args),
    /// List what allocated, largest first
    Top(top::Args),
    /// Show who called whom to allocate
    Tree(tree::Args),
    /// Draw who called whom to allocate, for a browser
    Flame(flame::Args),
    /// Write a page or a profile to share
    Export(export::Args),
    /// Show a source file with what each line allocated
    Lines(lines::Args),
    /// Print what was counted
    Stats(stats::Args),
    /// Open a recording in the terminal
    Tui(tui::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// The collector's process: started by `run`, not by people
    #[command(name = "__collector", hide = true)]
    Collector,
}

impl Command {
    /// Does it; returns the status to exit with.
    pub(crate) fn run(self) -> Result<ExitCode, CliError> {
        match self {
            Command::Run(args) => run::run(args),
            Command::Summary(args) => summary::run(&args),
            Command::Top(args) => top::run(&args),
            Command::Tree(args) => tree::run(&args),
            Command::Flame(args) => flame::run(&args),
            Command::Export(args) => export::run(&args),
            Command::Lines(args) => lines::run(&args),
            Command::Stats(args) => stats::run(&args),
            Command::Tui(args) => tui::run(&args),
            Command::Completions(args) => completions::run(&args).map(|()| ExitCode::SUCCESS),
            Command::Collector => Ok(collector::run()),
        }
    }
}
