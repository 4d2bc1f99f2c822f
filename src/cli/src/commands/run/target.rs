//! The target's process: forked first, executed when everything else is ready.
//!
//! The child waits at a gate between fork and exec. So its pid, which names
//! the recording, is known while nothing of the program has run yet, and what
//! goes wrong until then (the file, the collector) leaves no trace of it.
//!
//! `std::process::Command` cannot do this: its `spawn` returns after the exec,
//! it empties the signal mask, and it sets SIGPIPE to its default.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use leakline_wire::env;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::program::Lookup;
use super::signals::Signals;
use crate::CliError;

/// What to execute.
pub(super) struct Launch {
    /// Its file, as found.
    pub(super) path: PathBuf,
    /// Its arguments, the name it was called by first.
    pub(super) arguments: Vec<OsString>,
    /// Its environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Record this process alone: tell it its pid.
    pub(super) only_this_process: bool,
    /// It has no terminal: it reads nothing, and writes to the file that this
    /// names by its pid.
    pub(super) writes_to: Option<Box<dyn Fn(i32) -> PathBuf>>,
}

/// Puts nothing in the place of standard input, and a file in that of output and
/// errors.
fn redirect(path: &Path) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let file = File::options().append(true).open(path)?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&file)?;
    rustix::stdio::dup2_stderr(&file)?;
    Ok(())
}

/// A forked child that waits to become the target. Dropped, it ends without
/// having been anything else.
pub(super) struct Waiting {
    pid: Pid,
    path: PathBuf,
    gate: Option<OwnedFd>,
    failure: File,
}

impl Launch {
    /// Forks the child. Fails where other threads run in this process.
    pub(super) fn fork(self, signals: &Signals) -> Result<Waiting, CliError> {
        let action = "start a process";
        let fail = |error: rustix::io::Errno| CliError::System {
            action,
            source: error.into(),
        };
        let (gate_child, gate) = pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
        let (failure, failure_child) = pipe_with(PipeFlags::CLOEXEC).map_err(fail)?;
        if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            let source = io::Error::other("other threads run in this process");
            return Err(CliError::System { action, source });
        }
        // SAFETY: this process has one thread (just counted), so the child
        // inherits no lock held and no state half changed: it may do what the
        // parent may.
        match unsafe { libc::fork() } {
            0 => {
                // Else the child would keep its own gate open.
                drop(gate);
                drop(failure);
                self.become_target(gate_child.into(), failure_child.into(), signals)
            }
            // `Pid::from_raw` takes no -1.
            ..0 => Err(CliError::System {
                action,
                source: io::Error::last_os_error(),
            }),
            pid @ 1.. => match Pid::from_raw(pid) {
                Some(pid) => Ok(Waiting {
                    pid,
                    path: self.path,
                    gate: Some(gate),
                    failure: failure.into(),
                }),
                None => unreachable!("it is not 0"),
            },
        }
    }

    /// The child's whole life.
    fn become_target(self, mut gate: File, mut failure: File, signals: &Signals) -> ! {
        let mut go = [0];
        // The end of the pipe: the supervisor gave up, or is no more.
        if matches!(gate.read(&mut go), Ok(1)) {
            let redirected = match &self.writes_to {
                Some(named) => redirect(&named(std::process::id().cast_signed())),
                None => Ok(()),
            };
            let error = match redirected {
                Ok(()) => self.execute(|| signals.restore()),
                Err(error) => error,
            };
            let number = error.raw_os_error().unwrap_or(libc::EINVAL);
            // Nothing is left to do for a parent that does not listen.
            let _ = failure.write_all(&number.to_ne_bytes());
        }
        // SAFETY: ends the process at once; what the parent registered to run
        // at its exit is the parent's to run.
        unsafe { libc::_exit(125) }
    }

    /// Becomes the program in this process; `prepare` runs last before that.
    /// Returns why the kernel refused.
    pub(super) fn execute(mut self, prepare: impl FnOnce()) -> io::Error {
        if self.only_this_process {
            self.environment
                .push((env::ONLY_PID.into(), std::process::id().to_string().into()));
        }
        let environment = self.environment.into_iter().map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            entry
        });
        let (Ok(path), Ok(arguments), Ok(environment)) = (
            CString::new(self.path.as_os_str().as_bytes()),
            Strings::new(self.arguments),
            Strings::new(environment),
        ) else {
            return io::ErrorKind::InvalidInput.into();
        };
        // What the shell runs when the kernel does not know the format: `sh`
        // with the file in the place of the name.
        let shell = Strings::new(
            [OsString::from("sh"), self.path.into()].into_iter().chain(
                arguments
                    .entries
                    .iter()
                    .skip(1)
                    .map(|entry| OsStr::from_bytes(entry.to_bytes()).to_owned()),
            ),
        );
        prepare();
        // SAFETY: strings end with NUL and vectors with null, and all live
        // until the calls return.
        unsafe {
            libc::execve(path.as_ptr(), arguments.pointers(), environment.pointers());
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOEXEC)
                && let Ok(shell) = shell
            {
                libc::execve(
                    c"/bin/sh".as_ptr(),
                    shell.pointers(),
                    environment.pointers(),
                );
            }
            error
        }
    }
}

impl Waiting {
    /// The pid that the target will have.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Opens the gate. Returns once the program has begun, or why it has not.
    pub(super) fn go(mut self) -> Result<Pid, CliError> {
        let Some(gate) = self.gate.take() else {
            return Ok(self.pid);
        };
        let failed = |source| CliError::System {
            action: "start the program",
            source,
        };
        File::from(gate).write_all(&[1]).map_err(failed)?;
        let mut number = Vec::new();
        // The exec closes the pipe.
        (&self.failure).read_to_end(&mut number).map_err(failed)?;
        match <[u8; 4]>::try_from(number.as_slice()) {
            Err(_) => Ok(self.pid),
            Ok(number) => {
                let error = io::Error::from_raw_os_error(i32::from_ne_bytes(number));
                self.reap();
                Err(Lookup::from_exec(&self.path, error).into())
            }
        }
    }

    fn reap(&self) {
        // Fails only when there is no such child, and then it was reaped.
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Still at the gate: nothing of the program has run.
        if self.gate.take().is_some() {
            let _ = kill_process(self.pid, Signal::KILL);
            self.reap();
        }
    }
}

/// A vector of C strings with its null-terminated vector of pointers.
struct Strings {
    entries: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(strings: impl IntoIterator<Item = OsString>) -> Result<Strings, std::ffi::NulError> {
        let entries = strings
            .into_iter()
            .map(|string| CString::new(string.into_vec()))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = entries
            .iter()
            .map(|entry| entry.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Ok(Strings { entries, pointers })
    }

    fn pointers(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// `PROGRAM` of the recording's default name.
pub(in crate::commands) fn base_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("program"))
}
