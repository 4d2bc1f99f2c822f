//! The way into one process, and out again: the interposer put where it can load
//! it, a thread that loads it, and one that has the process join.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use leakline_inject::injection::{self, Library};
use leakline_inject::inspect::{Delivery, Glance, Obstacle, Process, Refused};

use super::no_place;
use crate::commands::run::session::Invitation;
use crate::{CliError, preload};

/// How long to look for a thread that may be used, and to wait for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the collector's door may take to answer us.
const DOOR_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked to join, where only the collector was late, or a thread.
const ATTEMPTS: u32 = 3;
/// What the interposer answers when the collector was.
const NO_ANSWER: &[u8] = b"the collector did not answer";
/// What it answers when a thread that is in a hook since the last session got no processor
/// to leave it by.
const STILL_INSIDE: &[u8] = b"a thread is still inside of the last session";
/// How long that thread is given between two attempts.
const INSIDE_PATIENCE: Duration = Duration::from_millis(300);
/// What it is asked to leave by.
const LEAVE: &[u8] = b"leave\0";
/// What the interposer answers when all is well.
const OK: &[u8] = b"ok";

/// A process that was made to join.
pub(super) struct Entry {
    /// Which.
    pub(super) pid: u32,
    /// When it had started.
    pub(super) start_ticks: u64,
    /// The longest that a thread of it was stopped.
    pub(super) paused: Duration,
}

impl Entry {
    /// Has a process join.
    pub(super) fn make(process: &Process, invitation: &Invitation) -> Result<Entry, CliError> {
        let pid = process.pid;
        let found = find(process)?;
        if !is_still(pid, process.start_ticks) {
            return Err(CliError::Refused(Refused {
                pid,
                obstacle: Obstacle::Gone,
            }));
        }
        let fails = |error: injection::Error| CliError::Report {
            message: format!("cannot attach to process {pid}: {error}"),
            hint: hint(&error, pid),
            source: None,
        };
        let mut paused = Duration::ZERO;
        let mut options = injection::Options::default();
        options.timeout = PATIENCE;
        let pid_now = pid.cast_signed();
        let library = match found {
            Found::Loaded(library) => library,
            Found::File(library) => {
                let done = injection::load(pid_now, &library.path, &options).map_err(fails)?;
                paused = paused.max(done.paused);
                // As the process's mappings have it: overlay file systems have two
                // numbers for a file.
                loaded(pid).unwrap_or(library)
            }
            Found::Nowhere => {
                let (name, bytes) = preload::in_memory()
                    .map_err(|error| super::failed("name the interposer", error.into()))?;
                let done =
                    injection::load_from_memory(pid_now, &name, bytes, &options).map_err(fails)?;
                paused = paused.max(done.paused);
                loaded(pid).ok_or_else(|| fails(injection::Error::NotLoaded))?
            }
        };
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
        let mut words = Vec::new();
        for _ in 0..ATTEMPTS {
            let done = injection::call(
                pid_now,
                &library.identity(),
                "leakline_attach",
                &argument,
                &options,
            )
            .map_err(fails)?;
            paused = paused.max(done.paused);
            words = answer.take().unwrap_or_default();
            if words == OK {
                return Ok(Entry {
                    pid,
                    start_ticks: process.start_ticks,
                    paused,
                });
            }
            // Where a machine is busy the collector or a thread may take longer than a
            // process waits for them. We can wait.
            let may_do = match words.as_slice() {
                NO_ANSWER => invitation.is_answered_within(DOOR_PATIENCE),
                STILL_INSIDE => {
                    std::thread::sleep(INSIDE_PATIENCE);
                    true
                }
                _ => false,
            };
            if !may_do {
                break;
            }
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
pub(in crate::commands) fn fetch(
    pid: u32,
    start_ticks: Option<u64>,
) -> Result<Duration, injection::Error> {
    if start_ticks.is_some_and(|start| !is_still(pid, start)) {
        return Err(injection::Error::Gone);
    }
    let Some(library) = loaded(pid) else {
        return Err(injection::Error::NotLoaded);
    };
    let mut options = injection::Options::default();
    options.timeout = PATIENCE;
    let answer = RefCell::new(Vec::new());
    let is_done = || {
        *answer.borrow_mut() = answered(pid, &library).unwrap_or_default();
        let words = answer.borrow();
        !words.is_empty() && *words != LEAVE[..LEAVE.len() - 1]
    };
    options.done = Some(&is_done);
    let leave = |symbol| {
        injection::call(
            pid.cast_signed(),
            &library.identity(),
            symbol,
            LEAVE,
            &options,
        )
    };
    let done = leave("leakline_leave")?;
    let words = answer.into_inner();
    if words == OK {
        Ok(done.paused)
    } else {
        let words = String::from_utf8_lossy(&words).into_owned();
        Err(injection::Error::Io(std::io::Error::other(words)))
    }
}

/// What an invitation looks like, and no other text: the buffer has it until the
/// function reads it.
fn is_invitation(words: &[u8]) -> bool {
    words
        .rsplit(|byte| *byte == b':')
        .next()
        .is_some_and(|token| token.len() == 32 && token.iter().all(u8::is_ascii_hexdigit))
}

/// Whether the pid is that process's still.
fn is_still(pid: u32, start_ticks: u64) -> bool {
    Glance::at(pid).is_some_and(|glance| glance.start_ticks == start_ticks)
}

/// An interposer in the file system of a process.
struct Interposer {
    /// As the process sees it.
    path: CString,
    device: u64,
    inode: u64,
}

impl Interposer {
    fn identity(&self) -> Library<'_> {
        Library::file(self.device, self.inode)
    }
}

/// The interposer, for a process.
enum Found {
    /// It has loaded it.
    Loaded(Interposer),
    /// It can load it.
    File(Interposer),
    /// It has no place for it, but for its memory.
    Nowhere,
}

/// Where the interposer lies for the process.
fn find(process: &Process) -> Result<Found, CliError> {
    let pid = process.pid;
    if let Some(there) = loaded(pid) {
        let path = Path::new(OsStr::from_bytes(there.path.to_bytes()));
        if preload::is_this_builds(path) {
            return Ok(Found::Loaded(there));
        }
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let path = if process.has_our_files() {
        preload::unpack().map_err(super::as_report)?
    } else {
        match process.delivery().map_err(|error| no_place(pid, error))? {
            Delivery::Directory(place) => {
                preload::unpack_below(&root, &place).map_err(super::as_report)?
            }
            Delivery::Memory => return Ok(Found::Nowhere),
        }
    };
    let ours = root.join(path.strip_prefix("/").unwrap_or(&path));
    let file =
        std::fs::metadata(&ours).map_err(|error| super::failed("find the interposer", error))?;
    let path = CString::new(path.into_os_string().into_vec()).map_err(|_| CliError::Report {
        message: format!("cannot attach to process {pid}: the interposer's path has a NUL"),
        hint: None,
        source: None,
    })?;
    Ok(Found::File(Interposer {
        path,
        device: file.dev(),
        inode: file.ino(),
    }))
}

/// A line of `/proc/PID/maps`: where it begins, device and inode, and path.
fn mapping(line: &[u8]) -> Option<(u64, u64, u64, &[u8])> {
    let text =
        std::str::from_utf8(line.get(..line.iter().position(|byte| *byte == b'/')?)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let start = u64::from_str_radix(fields.next()?.split('-').next()?, 16).ok()?;
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = rustix::fs::makedev(number(major)?, number(minor)?);
    let inode = fields.next()?.parse().ok()?;
    let path = &line[text.len()..];
    Some((
        start,
        device,
        inode,
        path.strip_suffix(b" (deleted)").unwrap_or(path),
    ))
}

/// An interposer that the process has loaded; of this build rather than another.
fn loaded(pid: u32) -> Option<Interposer> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let mut found: Vec<_> = maps
        .split(|byte| *byte == b'\n')
        .filter_map(mapping)
        .filter(|(.., path)| preload::is_interposer(Path::new(OsStr::from_bytes(path))))
        .collect();
    found.sort_by_key(|(.., path)| !preload::is_this_builds(Path::new(OsStr::from_bytes(path))));
    let (_, device, inode, path) = found.first()?;
    Some(Interposer {
        path: CString::new(*path).ok()?,
        device: *device,
        inode: *inode,
    })
}

/// What the interposer of this build says in its buffer.
fn answered(pid: u32, library: &Interposer) -> Option<Vec<u8>> {
    let (offset, size) = preload::symbol("leakline_argument")?;
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let (start, ..) = maps
        .split(|byte| *byte == b'\n')
        .filter_map(mapping)
        .find(|(_, device, inode, _)| (*device, *inode) == (library.device, library.inode))?;
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
