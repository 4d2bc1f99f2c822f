//! `leakline tui`, and `leakline FILE`.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use leakline_tui::{Options, ThemeName, TuiError};

use super::live;
use super::report::{find, utc_offset_seconds};
use crate::CliError;

/// Opens a recording in the terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline tui                          the newest recording here
  leakline tui train.4121.leakline      the same as `leakline train.4121.leakline`
  leakline tui 4121 --theme colour-blind

PID is a process that is being recorded. A recording that is still being written is
followed, and `m` keeps an instant of it. `?` shows the keys.")]
pub(crate) struct Args {
    /// The recording, or a process that is being recorded, or the pid that a
    /// recording here is named after [default: the newest *.leakline here]
    #[arg(value_name = "FILE|PID")]
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

/// Has the allocator take large blocks from the kernel and give them back one by one.
/// By itself glibc keeps blocks of up to 32 MiB in heaps, of which holes stay: of a
/// recording with a million sites, a quarter as much again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt is C's")]
fn give_large_blocks_back() {
    const LEAST_BYTES: libc::c_int = 256 << 10;
    // SAFETY: no other thread runs yet; it sets a number and touches no memory of ours.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LEAST_BYTES);
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_blocks_back() {}

/// Shows it until the user leaves.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    give_large_blocks_back();
    let (path, _) = find(args.file.as_ref())?;
    let theme = match args.theme {
        Some(Theme::ColourBlind) => ThemeName::ColourBlind,
        Some(Theme::Mono) => ThemeName::Mono,
        Some(Theme::Default) => ThemeName::Default,
        None => live::screen::usual_theme(),
    };
    let options = Options {
        theme,
        utc_offset: utc_offset_seconds,
        is_written: live::is_written,
        mark: live::mark,
    };
    leakline_tui::open(&path, options)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error: TuiError| CliError::Report {
            message: error.to_string(),
            hint: error.hint(),
            source: error.source().map(|source| source.to_string().into()),
        })
}
