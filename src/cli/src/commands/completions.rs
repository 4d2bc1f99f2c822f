//! `leakline completions SHELL`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{Cli, CliError};

/// Prints a completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline completions bash > ~/.local/share/bash-completion/completions/leakline
  leakline completions zsh > ~/.zfunc/_leakline
  leakline completions fish > ~/.config/fish/completions/leakline.fish")]
pub(crate) struct Args {
    /// The shell to print it for
    shell: Shell,
}

/// Writes the script to stdout.
pub(crate) fn run(args: &Args) -> Result<(), CliError> {
    // Made in memory first: clap_complete panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "leakline", &mut script);
    std::io::stdout()
        .lock()
        .write_all(&script)
        .map_err(CliError::Output)
}
