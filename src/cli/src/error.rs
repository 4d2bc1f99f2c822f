//! What can go wrong, in words for the user, with the way out and the exit
//! status.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use leakline_analysis::report::bytes;
use leakline_inject::inspect::Refused;
use leakline_inject::ledger::Closed;

use crate::commands::run::program::{Lookup, Unrecordable};
use crate::preload::Tried;

/// Why the command could not do what it was asked.
///
/// Prints as one lower-case sentence without a full stop; causes are its
/// [`source`](Error::source)s, the remedy is [`hint`](CliError::hint).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The program to run was not found, or cannot be executed.
    #[error(transparent)]
    Lookup(#[from] Lookup),

    /// The program runs, but cannot be recorded.
    #[error(transparent)]
    Unrecordable(#[from] Unrecordable),

    /// The recording's file exists, and may not be replaced.
    #[error("`{}` already exists", path.display())]
    OutputExists {
        /// The file.
        path: PathBuf,
    },

    /// The recording's file cannot be created.
    #[error("cannot write `{}`", path.display())]
    OutputNotWritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// No place was found to unpack the interposer to.
    #[error("found no place to unpack the interposer to")]
    NoPlaceForPreload(#[source] Tried),

    /// A limit on a resource is too tight to record under.
    #[error(
        "cannot record under a limit of {} on {what}: it takes {}",
        bytes(*allowed),
        bytes(*needed)
    )]
    Limit {
        /// The resource.
        what: &'static str,
        /// The shell's option for it.
        option: &'static str,
        /// Bytes under the limit.
        allowed: u64,
        /// Bytes that are needed.
        needed: u64,
    },

    /// The collector could not start, or gave up before the target began.
    #[error("the collector cannot record: {why}")]
    Collector {
        /// What it said, or what became of it.
        why: String,
    },

    /// A system call that `run` needs failed.
    #[error("cannot {action}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// Why it was not.
        source: io::Error,
    },

    /// Nobody may attach to that process.
    #[error(transparent)]
    Refused(Refused),

    /// Nobody may look into the memory of that process.
    #[error(transparent)]
    Closed(#[from] Closed),

    /// Options that do not go together.
    #[error("{message}")]
    Usage {
        /// What does not go together.
        message: String,
        /// The way out, if there is one to name.
        hint: Option<String>,
    },

    /// A report could not be made.
    #[error("{message}")]
    Report {
        /// What went wrong.
        message: String,
        /// The way out, if there is one to name.
        hint: Option<String>,
        /// Why.
        source: Option<Box<dyn Error + Send + Sync>>,
    },

    /// Standard output cannot be written to.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl CliError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CliError::Lookup(lookup) => lookup.hint(),
            CliError::Unrecordable(refusal) => Some(refusal.hint()),
            CliError::OutputExists { .. } => {
                Some("`-f` replaces it; `-o FILE` records to another file".into())
            }
            CliError::OutputNotWritable { .. } => Some("`-o FILE` records to another file".into()),
            CliError::NoPlaceForPreload(_) => Some(format!(
                "set `{}` to a directory of your own, without space or colon in its path,\n\
                 on a file system without `noexec`",
                leakline_wire::env::PRELOAD_DIR
            )),
            CliError::Limit { option, .. } => Some(format!(
                "raise the limit, as with `ulimit {option} unlimited`"
            )),
            CliError::Refused(refused) => Some(refused.hint()),
            CliError::Closed(closed) => Some(closed.hint()),
            CliError::Usage { hint, .. } | CliError::Report { hint, .. } => hint.clone(),
            CliError::System { source, .. } if source.raw_os_error() == Some(libc::EMFILE) => {
                Some("raise the limit on open files, as with `ulimit -n 64`".into())
            }
            CliError::System { source, .. } if source.raw_os_error() == Some(libc::EAGAIN) => {
                Some("end other processes, or raise the limit on them (`ulimit -u`)".into())
            }
            CliError::Collector { .. } | CliError::System { .. } | CliError::Output(_) => None,
        }
    }

    /// The status to exit with: 125 to 127 for `run`, as `env` has them, and 3
    /// for a report (2 where it was asked for wrongly); 0 where the reader of a
    /// report has seen enough of it.
    pub fn status(&self) -> u8 {
        match self {
            CliError::Lookup(lookup) => lookup.status(),
            CliError::Unrecordable(_)
            | CliError::OutputExists { .. }
            | CliError::OutputNotWritable { .. }
            | CliError::NoPlaceForPreload(_)
            | CliError::Limit { .. }
            | CliError::Collector { .. }
            | CliError::System { .. } => 125,
            CliError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => 0,
            CliError::Usage { .. } => 2,
            CliError::Refused(_)
            | CliError::Closed(_)
            | CliError::Report { .. }
            | CliError::Output(_) => 3,
        }
    }

    /// Prints error, causes and hint to stderr.
    pub(crate) fn print(&self) {
        if self.status() == 0 {
            return;
        }
        // Where stderr cannot be written to, the exit status has to do.
        let _ = self.write(&mut anstream::stderr().lock());
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        const ERROR: Style = AnsiColor::Red.on_default().bold();
        const LABEL: Style = Style::new().bold();
        const HINT: Style = AnsiColor::Cyan.on_default().bold();
        writeln!(to, "{ERROR}error:{ERROR:#} {self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            writeln!(to, "{LABEL}caused by:{LABEL:#} {}", plain(error))?;
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            writeln!(
                to,
                "\n{HINT}hint:{HINT:#} {}",
                hint.replace('\n', "\n      ")
            )?;
        }
        Ok(())
    }
}

/// An error's words, without the number that the standard library adds to
/// the system's.
pub(crate) fn plain(error: &(dyn Error + 'static)) -> String {
    plain_words(&error.to_string())
}

/// The same of a text that may end with an error's words.
pub(crate) fn plain_words(text: &str) -> String {
    let Some((text, _)) = text.split_once(" (os error ") else {
        return text.to_owned();
    };
    let mut words = text.to_owned();
    let start = text.rfind(": ").map_or(0, |colon| colon + 2);
    if let Some(first) = words.get_mut(start..=start) {
        first.make_ascii_lowercase();
    }
    words
}
