//! The way into one process, and out again: the interposer put where it can load
//! it, a thread that loads it, and one that has the process join.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leakline_inject::injection::{self, Library};
use leakline_inject::inspect::Process;

use super::has_our_files;
use crate::commands::run::session::Invitation;
use crate::{CliError, preload};

/// How long to look for a thread that may be used, and to wait for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the interposer answers when all is well.
const OK: &[u8] = b"ok";

/// A process that was made to join.
pub(super) struct Entry {
    /// Which.
    pub(super) pid: u32,
    /// The longest that a thread of it was stopped.
    pub(super) paused: Duration,
}

impl Entry {
    /// Has a process join.
    pub(super) fn make(process: &Process, invitation: &Invitation) -> Result<Entry, CliError> {
        let pid = process.pid;
        let (library, load) = place(process)?;
        let fails = |error: injection::Error| CliError::Report {
            message: format!("cannot attach to process {pid}: {error}"),
            hint: hint(&error, pid),
            source: None,
        };
        let mut paused = Duration::ZERO;
        let mut options = injection::Options::default();
        options.timeout = PATIENCE;
        if load {
            let done = injection::load(pid.cast_signed(), &library, &options).map_err(fails)?;
            paused = paused.max(done.paused);
        }
        // Until the function has run, its buffer has the invitation, or nothing.
        let answer = RefCell::new(None);
        let is_done = || {
            let words = answered(pid, &library);
            let is_said = |words: &Vec<u8>| !words.is_empty() && !is_invitation(words);
            *answer.borrow_mut() = words.filter(is_said);
            answer.borrow().is_some()
        };
        options.done = Some(&is_done);
        let mut argument = invitation.to_env().into_bytes();
        argument.push(0);
        let done = injection::call(
            pid.cast_signed(),
            &Library::Path(&library),
            "leakline_attach",
            &argument,
            &options,
        )
        .map_err(fails)?;
        let words = answer.into_inner().unwrap_or_default();
        if words == OK {
            return Ok(Entry {
                pid,
                paused: paused.max(done.paused),
            });
        }
        Err(CliError::Report {
            message: format!(
                "cannot attach to process {pid}: {}",
                String::from_utf8_lossy(&words)
            ),
            hint: None,
            source: None,
        })
    }
}

/// Has a process leave that does not come by itself. Gives how long a thread of
/// it was stopped.
pub(in crate::commands) fn fetch(pid: u32) -> Result<Duration, injection::Error> {
    let Some(library) = loaded(pid) else {
        return Err(injection::Error::NotLoaded);
    };
    let mut options = injection::Options::default();
    options.timeout = PATIENCE;
    let is_done = || answered(pid, &library).is_some_and(|words| words == OK);
    options.done = Some(&is_done);
    let leave = |symbol| {
        injection::call(
            pid.cast_signed(),
            &Library::Path(&library),
            symbol,
            b"leave\0",
            &options,
        )
    };
    leave("leakline_leave").map(|done| done.paused)
}

/// What an invitation looks like, and no other text: the buffer has it until the
/// function reads it.
fn is_invitation(words: &[u8]) -> bool {
    words
        .rsplit(|byte| *byte == b':')
        .next()
        .is_some_and(|token| token.len() == 32 && token.iter().all(u8::is_ascii_hexdigit))
}

/// Where the interposer lies for the process, and whether it has to be loaded.
fn place(process: &Process) -> Result<(CString, bool), CliError> {
    let pid = process.pid;
    if let Some(there) = loaded(pid) {
        let path = Path::new(std::ffi::OsStr::from_bytes(there.to_bytes()));
        if preload::is_this_builds(path) {
            return Ok((there, false));
        }
    }
    let path = if has_our_files(process) {
        preload::unpack().map_err(super::as_report)?
    } else {
        let place = process.place().map_err(|error| CliError::Report {
            message: format!("cannot attach to process {pid}"),
            hint: None,
            source: Some(Box::new(error)),
        })?;
        preload::unpack_below(&PathBuf::from(format!("/proc/{pid}/root")), &place)
            .map_err(super::as_report)?
    };
    let path = CString::new(path.into_os_string().into_vec()).map_err(|_| CliError::Report {
        message: format!("cannot attach to process {pid}: the interposer's path has a NUL"),
        hint: None,
        source: None,
    })?;
    Ok((path, true))
}

/// The path of an interposer that the process has loaded; of this build rather
/// than another.
fn loaded(pid: u32) -> Option<CString> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut paths: Vec<&[u8]> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'/')?;
            let path = &line[at..];
            Some(path.strip_suffix(b" (deleted)").unwrap_or(path))
        })
        .filter(|path| preload::is_interposer(Path::new(std::ffi::OsStr::from_bytes(path))))
        .collect();
    paths
        .sort_by_key(|path| !preload::is_this_builds(Path::new(std::ffi::OsStr::from_bytes(path))));
    CString::new(paths.first()?.to_vec()).ok()
}

/// What the interposer of this build says in its buffer.
fn answered(pid: u32, library: &CStr) -> Option<Vec<u8>> {
    let (offset, size) = preload::symbol("leakline_argument")?;
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let start = maps
        .split(|byte| *byte == b'\n')
        .find(|line| line.ends_with(library.to_bytes()))
        .and_then(|line| {
            let text = std::str::from_utf8(line).ok()?;
            u64::from_str_radix(text.split('-').next()?, 16).ok()
        })?;
    let mut words = vec![0; size];
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    memory.read_exact_at(&mut words, start + offset).ok()?;
    let end = words.iter().position(|byte| *byte == 0)?;
    words.truncate(end);
    Some(words)
}

fn hint(error: &injection::Error, pid: u32) -> Option<String> {
    match error {
        injection::Error::NoSafeThread(_) => Some(
            "no thread of it came to a point where a library may be loaded; try again when it\n\
             waits for something, or start it under `leakline run`"
                .into(),
        ),
        injection::Error::LoadFailed => {
            Some(format!("`leakline doctor {pid}` says what may stop it"))
        }
        _ => None,
    }
}
