//! Why a recording does not open, in words for the user.

use std::io;
use std::path::{Path, PathBuf};

/// Why a recording could not be opened or read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("cannot open `{}`: there is no such file", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// It is a directory.
    #[error("cannot open `{}`: it is a directory", path.display())]
    Directory {
        /// The path as given.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("`{}` is empty", path.display())]
    Empty {
        /// The path as given.
        path: PathBuf,
    },
    /// The file begins as no recording does.
    #[error("`{}` is not a leakline recording", path.display())]
    Foreign {
        /// The path as given.
        path: PathBuf,
    },
    /// A newer leakline wrote it.
    #[error("`{}` has format version {found}; this leakline reads up to {supported}", path.display())]
    Version {
        /// The path as given.
        path: PathBuf,
        /// Its format version.
        found: u16,
        /// The newest version that this library reads.
        supported: u16,
    },
    /// An older leakline wrote it.
    #[error("`{}` has format version {found}; this leakline reads version {supported}", path.display())]
    Older {
        /// The path as given.
        path: PathBuf,
        /// Its format version.
        found: u16,
        /// The version that this library reads.
        supported: u16,
    },
    /// It needs a feature of the format that this library does not have.
    #[error("`{}` uses features of the format that this leakline does not know ({unknown:#x})", path.display())]
    Feature {
        /// The path as given.
        path: PathBuf,
        /// The bits that are not known.
        unknown: u64,
    },
    /// It became shorter than what was read of it already.
    #[error("`{}` was cut or replaced while it was being read", path.display())]
    Changed {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system would not read it.
    #[error("cannot read `{}`: {}", path.display(), plain(source))]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// What the user can do about it, as a sentence without its full stop.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OpenError::NotFound { .. } => {
                Some("recordings are named `PROGRAM.PID.leakline` unless `-o` said otherwise")
            }
            OpenError::Directory { .. } => Some("name a recording in it"),
            OpenError::Empty { .. } => {
                Some("the recorder was stopped before it wrote anything; record again")
            }
            OpenError::Foreign { .. } => {
                Some("make a recording with `leakline run -o FILE -- PROGRAM`")
            }
            OpenError::Version { .. } | OpenError::Feature { .. } => {
                Some("install a newer leakline, or record again with this one")
            }
            OpenError::Older { .. } => {
                Some("open it with the leakline that recorded it, or record again with this one")
            }
            OpenError::Changed { .. } => Some("open it again"),
            OpenError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("recordings are readable by the user who made them only")
                }
                _ => None,
            },
        }
    }

    /// Gives an operating system's error its place here.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => OpenError::NotFound { path },
            io::ErrorKind::IsADirectory => OpenError::Directory { path },
            _ => OpenError::Io { path, source },
        }
    }
}

/// The system's words without "(os error 13)", in lower case.
fn plain(error: &io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error") {
        text.truncate(end);
    }
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}
