//! The recording's file, made before the target begins.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::CliError;

/// A new, empty recording. Removed again when dropped, unless it was
/// [kept](Output::keep).
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    kept: bool,
}

/// Where a program's recording goes by default: `PROGRAM.PID.leakline` here.
pub(crate) fn default_path(program: &Path, pid: i32) -> PathBuf {
    let mut name: OsString = super::target::base_name(program).to_owned();
    name.push(format!(".{pid}.leakline"));
    name.into()
}

impl Output {
    /// Creates the file, readable by its owner alone. One that exists is
    /// replaced by a new one only with `force`, and only a regular file: what
    /// others have open or mapped of the old one stays whole.
    pub(crate) fn create(path: PathBuf, force: bool) -> Result<Output, CliError> {
        let not_writable = |path: &Path, source| CliError::OutputNotWritable {
            path: path.into(),
            source,
        };
        loop {
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            match created {
                Ok(file) => {
                    return Ok(Output {
                        path,
                        file,
                        kept: false,
                    });
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(not_writable(&path, error));
                }
                Err(_) if !force => return Err(CliError::OutputExists { path }),
                Err(_) => {
                    if fs::symlink_metadata(&path).is_ok_and(|old| !old.is_file()) {
                        let error = io::Error::other("it exists, and is not a regular file");
                        return Err(not_writable(&path, error));
                    }
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(not_writable(&path, error));
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The target has begun: the file stays. Returns its path.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.kept = true;
        std::mem::take(&mut self.path)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.kept {
            // Whoever removed it first did our work.
            let _ = fs::remove_file(&self.path);
        }
    }
}
