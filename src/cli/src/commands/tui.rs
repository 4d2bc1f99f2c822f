//! `leakline tui`, and `leakline FILE`.

use std::env;
use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use leakline_tui::{Options, ThemeName, TuiError};

use super::report::{find, utc_offset_seconds};
use crate::CliError;

/// Opens a recording in the terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline tui                          the newest recording here
  leakline tui train.4121.leakline      the same as `leakline train.4121.leakline`
  leakline tui 4121 --theme colour-blind

A recording that is still being written is followed. `?` shows the keys.")]
pub(crate) struct Args {
    /// The recording, or the pid it is named after [default: the newest
    /// *.leakline here]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Colours [default: default, with NO_COLOR mono]
    #[arg(long, value_name = "NAME")]
    theme: Option<Theme>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Theme {
    /// Red, green, yellow
    Default,
    /// Orange and blue
    #[value(alias = "color-blind")]
    ColourBlind,
    /// No colours
    Mono,
}

/// Shows it until the user leaves.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (path, _) = find(args.file.as_ref())?;
    let no_colour = env::var_os("NO_COLOR").is_some();
    let theme = match args.theme {
        Some(Theme::ColourBlind) => ThemeName::ColourBlind,
        Some(Theme::Mono) => ThemeName::Mono,
        None if no_colour => ThemeName::Mono,
        Some(Theme::Default) | None => ThemeName::Default,
    };
    let options = Options {
        theme,
        utc_offset: utc_offset_seconds,
    };
    leakline_tui::open(&path, options)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error: TuiError| CliError::Report {
            message: error.to_string(),
            hint: error.hint(),
            source: error.source().map(|source| source.to_string().into()),
        })
}
