//! `--live`: the terminal UI over a recording while it is being made.
//!
//! Two processes share the work. This one, which the shell knows, shows; a child
//! in a session of its own records, as without `--live`. So the terminal's keys
//! are the UI's alone, a stop (ctrl-z) stops the UI alone, and the end of either
//! is no accident to the other.
//!
//! The child tells where the recording is once it is being made; what it says
//! after that is kept back until the UI was left.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::super::report::utc_offset_seconds;
use super::{is_written, mark, shown};
use crate::CliError;

/// What becomes of this process.
pub(in crate::commands) enum Side {
    /// It records, and tells of it.
    Recorder(Link),
    /// It shows.
    Screen(Screen),
}

/// The recorder's way to the screen.
pub(in crate::commands) struct Link {
    told: OwnedFd,
    said: OwnedFd,
}

/// The screen's way to the recorder.
pub(in crate::commands) struct Screen {
    recorder: Pid,
    told: File,
    said: File,
}

/// What happens when the UI is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::commands) enum Afterwards {
    /// The program goes on, and is waited for.
    GoesOn,
    /// The processes are left, too.
    Detaches,
}

/// Parts the process in two. `on_loss` comes to the recorder when the screen is
/// no more.
pub(in crate::commands) fn part(on_loss: Signal) -> Result<Side, CliError> {
    for (is_terminal, stream) in [
        (io::stdin().is_terminal(), "input"),
        (io::stdout().is_terminal(), "output"),
    ] {
        if !is_terminal {
            return Err(CliError::Usage {
                message: format!("`--live` needs a terminal, and standard {stream} is none"),
                hint: Some(
                    "leave it out; `leakline PID` shows the recording in another terminal".into(),
                ),
            });
        }
    }
    let failed = |source: io::Error| CliError::System {
        action: "start a process",
        source,
    };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()));
    let ((told, tells), (said, says)) = (pipe()?, pipe()?);
    let own = rustix::process::getpid();
    // SAFETY: one thread runs in this process, which only reads the command line
    // so far; the child goes on with everything that it has.
    match unsafe { libc::fork() } {
        ..0 => Err(failed(io::Error::last_os_error())),
        0 => {
            drop((told, said));
            let _ = rustix::process::setsid();
            let _ = rustix::process::set_parent_process_death_signal(Some(on_loss));
            if rustix::process::getppid() != Some(own) {
                return Err(failed(io::Error::other("who started it is no more")));
            }
            Ok(Side::Recorder(Link {
                told: tells,
                said: says,
            }))
        }
        pid @ 1.. => match Pid::from_raw(pid) {
            Some(recorder) => Ok(Side::Screen(Screen {
                recorder,
                told: told.into(),
                said: said.into(),
            })),
            None => unreachable!("it is not 0"),
        },
    }
}

impl Link {
    /// Tells where the recording is. What is said from now on is kept back.
    pub(in crate::commands) fn tell(self, recording: &Path) {
        // Who is gone does not listen; the recording is made all the same.
        let _ = File::from(self.told).write_all(recording.as_os_str().as_bytes());
        let _ = rustix::stdio::dup2_stderr(&self.said);
    }
}

impl Screen {
    /// Shows the recording until the user leaves, then sees the recorder off.
    /// Returns its status; where it died of a signal, so does this process.
    pub(in crate::commands) fn show(mut self, afterwards: Afterwards) -> ExitCode {
        let mut path = Vec::new();
        // What cannot be read is as if it were not told.
        let _ = self.told.read_to_end(&mut path);
        let mut error = None;
        let mut ended = None;
        if !path.is_empty() {
            let recording = PathBuf::from(OsString::from_vec(path));
            let options = leakline_tui::Options {
                theme: usual_theme(),
                utc_offset: utc_offset_seconds,
                is_written,
                mark,
            };
            error = leakline_tui::open(&recording, options).err();
            ended = self.ended(WaitOptions::NOHANG);
            if ended.is_none() {
                pass_signals_on(self.recorder);
            }
            match afterwards {
                _ if ended.is_some() => {}
                Afterwards::Detaches => {
                    // It is not reaped: the pid is its own.
                    let _ = kill_process(self.recorder, Signal::TERM);
                }
                Afterwards::GoesOn => note(&format!(
                    "the program goes on, and on being recorded; ctrl-c reaches it\n          \
                     `leakline {}` shows it again",
                    shown(&recording)
                )),
            }
        }
        // Until its end.
        let _ = io::copy(&mut self.said, &mut io::stderr().lock());
        if let Some(error) = error {
            note(&format!("the recording could not be shown: {error}"));
        }
        let ended = ended.or_else(|| self.ended(WaitOptions::empty()));
        let status = match ended {
            Some(ended) => match (ended.exit_status(), ended.terminating_signal()) {
                (Some(status), _) => status,
                (None, Some(signal)) => {
                    die_by(signal);
                    128 + signal
                }
                (None, None) => 125,
            },
            None => 125,
        };
        ExitCode::from(u8::try_from(status).unwrap_or(125))
    }

    /// How the recorder ended, if it did.
    fn ended(&self, options: WaitOptions) -> Option<WaitStatus> {
        loop {
            match waitpid(Some(self.recorder), options) {
                Ok(found) => return found.map(|(_, status)| status),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Colours where none were asked for.
pub(in crate::commands) fn usual_theme() -> leakline_tui::ThemeName {
    match std::env::var_os("NO_COLOR") {
        Some(_) => leakline_tui::ThemeName::Mono,
        None => leakline_tui::ThemeName::Default,
    }
}

/// A line to the user. A terminal that went away is nobody to tell.
fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "leakline: {text}");
}

/// Who gets the signals that come to this process.
static RECORDER: AtomicI32 = AtomicI32::new(0);

/// From here on, what would end this process is the recorder's to decide.
fn pass_signals_on(recorder: Pid) {
    extern "C" fn pass_on(signal: libc::c_int) {
        // SAFETY: takes numbers; may be called in a handler. The pid is that of a
        // child that was not waited for.
        unsafe { libc::kill(RECORDER.load(Ordering::Relaxed), signal) };
    }
    RECORDER.store(recorder.as_raw_nonzero().get(), Ordering::Relaxed);
    let passed = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ];
    for signal in passed {
        // SAFETY: a handler that calls nothing but `kill` and keeps errno, as far
        // as `kill` of a child that is there succeeds.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = pass_on as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    // SAFETY: installs no handler: the UI's was there.
    unsafe { libc::signal(libc::SIGTSTP, libc::SIG_DFL) };
}

/// Ends this process by a signal, unless that does not end processes.
fn die_by(signal: i32) {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: takes numbers, and a structure that lives. The program has dumped
    // its own core, if any.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
