//! The interposer, carried inside this executable and unpacked for the
//! dynamic loader of each target.
//!
//! # Invariants
//!
//! * A file is used only when it is this build's, byte for byte, and nobody
//!   but the user (or root) could have written it or can exchange it: targets
//!   run its code.
//! * The path has no space and no colon: `ld.so` splits `LD_PRELOAD` there and
//!   goes on without us.
//! * Everybody may read file and directory, for children that change their
//!   user.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use leakline_wire::env;
use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::CliError;

/// The interposer as build.rs made it.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libleakline_preload.so"));

/// How the name of every unpacked interposer begins.
const NAME_PREFIX: &str = leakline_wire::mapped::INTERPOSER_PREFIX;

/// The places that were tried, each with what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join(", "))]
pub struct Tried(Vec<String>);

/// Why a place does not serve; words that follow its path.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("has a space or a colon, where `ld.so` would split it")]
    Separator,
    #[error("is not an absolute path")]
    Relative,
    #[error("is mounted `noexec`")]
    NoExec,
    #[error("is not a directory")]
    NotADirectory,
    #[error("belongs to user {0}")]
    Foreign(u32),
    #[error("may be written to by others")]
    Writable,
    #[error("cannot be used ({})", crate::error::plain(.0))]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Unfit {
    fn from(error: rustix::io::Errno) -> Unfit {
        Unfit::Io(error.into())
    }
}

/// Unpacks the interposer, unless that was done before, and returns the path
/// for `LD_PRELOAD`.
///
/// `$LEAKLINE_PRELOAD_DIR` is the only place tried when it is set; else the
/// user's runtime directory and the usual directories for temporary files are,
/// in this order.
pub(crate) fn unpack() -> Result<PathBuf, CliError> {
    let mut tried = Vec::new();
    for place in places() {
        match unpack_to(&place) {
            Ok(path) => return Ok(path),
            Err(unfit) => tried.push(format!("`{}` {unfit}", place.display())),
        }
    }
    Err(CliError::NoPlaceForPreload(Tried(tried)))
}

/// Unpacks the interposer into the directory `place` of another file system, whose
/// root is `root`. Returns its path there.
///
/// Nothing of a path is followed that somebody there could exchange for a link,
/// which would lead into our own files.
pub(crate) fn unpack_below(root: &Path, place: &Path) -> Result<PathBuf, CliError> {
    let own = format!("leakline-{}", geteuid().as_raw());
    let seen = place.join(&own);
    let unpack = || {
        let above = open_below(root, place)?;
        match rustix::fs::mkdirat(&above, own.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Unfit::from(error)),
        }
        let directory = open_below(root, &seen)?;
        unpack_in(Path::new(&format!(
            "/proc/self/fd/{}/.",
            directory.as_raw_fd()
        )))
    };
    match unpack() {
        Ok(path) => Ok(seen.join(path.file_name().unwrap_or_default())),
        Err(unfit) => Err(CliError::NoPlaceForPreload(Tried(vec![format!(
            "`{}` {unfit}",
            seen.display()
        )]))),
    }
}

/// Opens a directory of another file system by its path there, without following
/// a link.
pub(crate) fn open_below(root: &Path, path: &Path) -> rustix::io::Result<OwnedFd> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// The interposer for a process that has no place for it, and the name that its file in
/// memory gets: as any other's, below a directory that tells attempts apart.
pub(crate) fn in_memory() -> rustix::io::Result<(CString, &'static [u8])> {
    let unique = u64::from_ne_bytes(crate::random()?);
    let name = format!("leakline-{unique:016x}/{}", file_name());
    Ok((CString::new(name).map_err(|_| Errno::INVAL)?, LIBRARY))
}

/// Whether a file is named like an interposer, of whichever build.
pub(crate) fn is_interposer(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_bytes().starts_with(NAME_PREFIX.as_bytes()))
}

/// Whether it is named like that of this build.
pub(crate) fn is_this_builds(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(&file_name()))
}

/// Where a symbol that the interposer of this build exports lies in it, and its
/// size in bytes.
pub(crate) fn symbol(name: &str) -> Option<(u64, usize)> {
    use object::{Object, ObjectSymbol};
    let library = object::File::parse(LIBRARY).ok()?;
    let symbol = library
        .dynamic_symbols()
        .find(|symbol| symbol.name() == Ok(name))?;
    Some((symbol.address(), usize::try_from(symbol.size()).ok()?))
}

/// The value of `LD_PRELOAD` that loads `interposer` before what `existing`
/// loads. Interposers of sessions that are over are left out.
pub(crate) fn preload_list(interposer: &Path, existing: Option<&OsStr>) -> OsString {
    let mut list = interposer.as_os_str().to_owned();
    let existing = existing.map_or(&[][..], OsStr::as_bytes);
    for entry in existing.split(|byte| matches!(byte, b':' | b' ')) {
        let name = entry
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        if !entry.is_empty() && !name.starts_with(NAME_PREFIX.as_bytes()) {
            list.push(":");
            list.push(OsStr::from_bytes(entry));
        }
    }
    list
}

fn places() -> Vec<PathBuf> {
    if let Some(place) = std::env::var_os(env::PRELOAD_DIR) {
        return vec![place.into()];
    }
    let uid = geteuid().as_raw();
    let mut places = Vec::new();
    // Closed to other users, so not for root, whose programs may become them.
    if uid != 0
        && let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR")
    {
        places.push(Path::new(&runtime).join("leakline"));
    }
    places.extend(
        ["/tmp", "/var/tmp", "/dev/shm"]
            .map(|base| PathBuf::from(format!("{base}/leakline-{uid}"))),
    );
    places
}

fn unpack_to(place: &Path) -> Result<PathBuf, Unfit> {
    if place
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| matches!(byte, b' ' | b':'))
    {
        return Err(Unfit::Separator);
    }
    if !place.is_absolute() {
        return Err(Unfit::Relative);
    }
    // Leaves a directory alone that exists; `check_owner` looks at it.
    match DirBuilder::new().mode(0o755).create(place) {
        // A strict umask would keep out children that change their user.
        Ok(()) => fs::set_permissions(place, fs::Permissions::from_mode(0o755))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    unpack_in(place)
}

/// The rest of it, where the directory is there.
fn unpack_in(place: &Path) -> Result<PathBuf, Unfit> {
    let directory = fs::symlink_metadata(place)?;
    if !directory.is_dir() {
        return Err(Unfit::NotADirectory);
    }
    check_owner(&directory)?;
    if rustix::fs::statvfs(place)?
        .f_flag
        .contains(StatVfsMountFlags::NOEXEC)
    {
        return Err(Unfit::NoExec);
    }

    let path = place.join(file_name());
    if !is_ours(&path) {
        let limit = raise_file_size();
        let written = write(place, &path);
        // The program gets the limit that we were given.
        let _ = setrlimit(Resource::Fsize, limit);
        written?;
    }
    Ok(path)
}

/// How the file of this build is called.
fn file_name() -> String {
    format!(
        "{NAME_PREFIX}{}-{}.so",
        env!("CARGO_PKG_VERSION"),
        env!("LEAKLINE_PRELOAD_HASH")
    )
}

/// Lifts the soft limit on file sizes, under which the interposer may not fit
/// (a write beyond it ends the process); gives the limit as it was.
fn raise_file_size() -> Rlimit {
    let limit = getrlimit(Resource::Fsize);
    let _ = setrlimit(
        Resource::Fsize,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    limit
}

/// Nobody but root and this user can have put something here.
fn check_owner(metadata: &fs::Metadata) -> Result<(), Unfit> {
    let owner = metadata.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(Unfit::Foreign(owner));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Unfit::Writable);
    }
    Ok(())
}

/// Whether the file is there, whole and untouched. Compares the contents: the
/// hash in the name only keeps builds apart, and a full disk or a crash may
/// have cut the file.
fn is_ours(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
    else {
        return false;
    };
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    if !metadata.is_file()
        || metadata.len() != LIBRARY.len() as u64
        || metadata.mode() & 0o444 != 0o444
        || check_owner(&metadata).is_err()
    {
        return false;
    }
    let mut contents = Vec::with_capacity(LIBRARY.len());
    let mut limited: io::Take<File> = file.take(LIBRARY.len() as u64 + 1);
    limited.read_to_end(&mut contents).is_ok() && contents == LIBRARY
}

/// Writes the file under another name and renames it, so that a target that
/// starts meanwhile finds it whole or not at all.
fn write(place: &Path, path: &Path) -> Result<(), Unfit> {
    // Not the pid: containers with pids of their own may share the directory.
    let temporary = place.join(format!(
        ".unpacking-{:016x}",
        u64::from_ne_bytes(crate::random()?)
    ));
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&temporary)?;
        file.write_all(LIBRARY)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        fs::rename(&temporary, path)
    })();
    if result.is_err() {
        // What cannot be removed was not made, or is out of our hands.
        let _ = fs::remove_file(&temporary);
    }
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_what_was_there_but_older_interposers() {
        let list = |existing: &str| {
            preload_list(Path::new("/p/ours.so"), Some(OsStr::new(existing)))
                .into_string()
                .unwrap()
        };
        assert_eq!(preload_list(Path::new("/p/ours.so"), None), "/p/ours.so");
        assert_eq!(list(""), "/p/ours.so");
        assert_eq!(list("a.so b.so:c.so"), "/p/ours.so:a.so:b.so:c.so");
        assert_eq!(
            list("/tmp/leakline-0/libleakline_preload-0.0.9-ff.so:a.so"),
            "/p/ours.so:a.so"
        );
    }

    #[test]
    fn the_embedded_interposer_is_a_library() {
        assert!(LIBRARY.starts_with(b"\x7fELF"));
        assert!(
            LIBRARY
                .windows(15)
                .any(|bytes| bytes == b"\0posix_memalign")
        );
    }
}
