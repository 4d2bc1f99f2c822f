//! The `leakline` command.
//!
//! [`run`] is the whole command as a function: arguments in, exit status out.
//! Each subcommand is a module of `commands`; what goes wrong is a
//! [`CliError`], which knows its exit status and its hint.
#![expect(
    unsafe_code,
    reason = "starting the target and the collector takes fork, signals and inherited descriptors"
)]

mod commands;
mod error;
mod preload;
pub mod recorder;
mod tracemalloc;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{CommandFactory, Parser};
use rustix::rand::{GetRandomFlags, getrandom};

pub use commands::run::program::{Lookup, Unrecordable};
pub use error::CliError;
pub use preload::Tried;

/// Finds where memory grows, why it stays, and whether it is a leak.
#[derive(Debug, Parser)]
#[command(name = "leakline", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<commands::Command>,
}

const EXAMPLES: &str = "\
Examples:
  leakline run -- python train.py      record every allocation of a program
  leakline summary                     what the newest recording here says
  leakline top --sort peak             sites by what they held at the peak
  leakline python.4121.leakline        open a recording in the terminal

`leakline COMMAND --help` has examples for each command.";

/// Runs the command line `arguments` (the first is the command's own name)
/// and returns the status to exit with.
///
/// May not return: `run` ends as its target did, by a signal if need be, and
/// becomes the target itself when a session is already recording. `run` also
/// takes over the process's signals and standard streams, and forks: it
/// refuses to where other threads run.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(with_tui(arguments.into_iter().collect())) {
        Ok(cli) => cli,
        // Also `--help` and `--version`, which go to stdout with status 0.
        Err(message) => {
            let status = message.exit_code();
            // A reader that went away is nobody to complain to.
            let _ = message.print();
            return ExitCode::from(u8::try_from(status).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Some(command) => command.run(),
        None => Cli::command()
            .print_help()
            .map(|()| ExitCode::SUCCESS)
            .map_err(CliError::Output),
    };
    result.unwrap_or_else(|error| {
        error.print();
        ExitCode::from(error.status())
    })
}

/// How this command starts itself anew, where that is not by its own executable.
static OWN_COMMAND: OnceLock<Vec<OsString>> = OnceLock::new();

/// As [`run`], in a program that is not `leakline`: `command`, an absolute path and
/// arguments, starts what goes on as `leakline` with the arguments that follow.
pub fn run_as(command: Vec<OsString>, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Of several callers, which would be of one program, the first is as good.
    let _ = OWN_COMMAND.set(command);
    run(arguments)
}

/// What the resident memory of a process is made of, as `leakline ledger PID --json` says
/// it. A process may always look at itself.
pub fn ledger(pid: u32) -> Result<String, CliError> {
    commands::ledger(pid)
}

/// `leakline FILE` is `leakline tui FILE`: a sole argument that is no command
/// and no option, and is or looks like a file.
fn with_tui(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if let [_, only] = &arguments[..] {
        let bytes = only.as_encoded_bytes();
        let is_option = bytes.starts_with(b"-") || bytes.is_empty();
        let is_command = only == "help"
            || Cli::command()
                .get_subcommands()
                .any(|command| only == command.get_name());
        let is_pid = bytes.iter().all(u8::is_ascii_digit);
        // A word that is neither was meant as a command.
        let is_file = is_pid
            || bytes.contains(&b'/')
            || bytes.contains(&b'.')
            || std::path::Path::new(only).exists();
        if !is_option && !is_command && is_file {
            arguments.insert(1, "tui".into());
        }
    }
    arguments
}

/// Random bytes from the kernel.
fn random<const N: usize>() -> Result<[u8; N], rustix::io::Errno> {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_sole_file_is_opened_in_the_terminal() {
        let given = |only: &str| {
            let arguments = with_tui(vec!["leakline".into(), only.into()]);
            arguments.len() == 3 && arguments[1] == "tui"
        };
        for file in ["train.4121.leakline", "./recording", "4121", "/tmp", "src"] {
            assert!(given(file), "{file}");
        }
        for other in [
            "summary", "run", "help", "sumary", "--help", "-h", "", "tui",
        ] {
            assert!(!given(other), "{other}");
        }
        let two = vec!["leakline".into(), "a.leakline".into(), "--json".into()];
        assert_eq!(with_tui(two.clone()), two);
    }

    /// The reference page names every command and option, and no other.
    #[test]
    fn the_reference_page_is_up_to_date() {
        let page = include_str!("../../../docs/cli.md");
        let mut options = vec!["--help".to_owned(), "--version".to_owned()];
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            if command.is_hide_set() {
                continue;
            }
            let heading = format!("# leakline {name}\n");
            assert!(
                page.contains(&heading),
                "docs/cli.md has no section on `{name}`"
            );
            for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                let option = format!("--{option}");
                assert!(
                    page.contains(&option),
                    "docs/cli.md does not name `{name} {option}`"
                );
                options.push(option);
            }
        }
        let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        for word in words.filter(|word| word.len() > 2 && word.starts_with("--")) {
            let known = options.iter().any(|option| option == word) || word.starts_with("---");
            assert!(known, "docs/cli.md names `{word}`, which there is not");
        }
    }
}
