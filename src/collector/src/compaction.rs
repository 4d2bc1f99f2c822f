//! Keeps the recording's file small: has it compacted beside the work, and
//! puts the copy in its place.
//!
//! A thread of low priority writes the copy beside the file, under a name of
//! its own, from what the file holds already. The next flush after that adds
//! what came since and exchanges the two names at once.
//!
//! # Invariants
//!
//! * At every instant the file's name leads to a whole recording of all that
//!   was flushed, so being killed costs nothing. What is left over is one file,
//!   named after the recording, and the next compaction removes it.
//! * A name that leads to anything but our own file is not touched. That the
//!   user moved the file does not matter: its name is asked for each time.
//! * Whatever fails, recording goes on in the file as it is, and the recording
//!   says so once.
//!
//! The copy is synced before it takes the file's place: else a machine that
//! loses power could lose all of the recording and not its last seconds.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use leakline_recording::record::Record;
use leakline_recording::{CompactError, Compacted, Detail, Source, Writer, compact};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid, fchmod, fchown, fstat,
    openat, readlinkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::output::Sink;

/// A recording whose file is compacted as it grows.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    /// The recording, once more: to ask for its name.
    file: File,
    running: Option<Running>,
    note: Option<String>,
    is_told: bool,
}

/// A copy that is being made.
#[derive(Debug)]
struct Running {
    thread: Option<JoinHandle<Result<Compacted, String>>>,
    goes_on: Arc<AtomicBool>,
    place: Place,
    file: File,
}

impl Recorder {
    /// Records with `writer`, into `file`.
    pub(crate) fn new(writer: Writer, file: File) -> Self {
        if let Ok(place) = Place::of(&file) {
            place.remove_copy();
        }
        Recorder {
            writer,
            file,
            running: None,
            note: None,
            is_told: false,
        }
    }

    /// Takes a finished copy, or has one begun when it is due.
    fn tend(&mut self) {
        let result = match self.running.take() {
            Some(running) if running.is_finished() => self.take_over(running),
            Some(running) => {
                self.running = Some(running);
                return;
            }
            None => match self.writer.compaction_due() {
                Some(detail) => self.begin(detail),
                None => return,
            },
        };
        if let Err(reason) = result {
            self.writer.postpone_compaction();
            if !std::mem::replace(&mut self.is_told, true) {
                self.note = Some(format!(
                    "the recording's file is larger than need be, as what is old in it could not be summed up: {reason}"
                ));
            }
        }
    }

    fn begin(&mut self, detail: Detail) -> Result<(), String> {
        let source = self.writer.source().map_err(plain)?;
        let place = Place::of(&self.file)?;
        let file = place.create_copy(&self.file).map_err(plain)?;
        let mut running = Running {
            thread: None,
            goes_on: Arc::new(AtomicBool::new(true)),
            place,
            file,
        };
        running.start(source, detail).map_err(plain)?;
        self.running = Some(running);
        Ok(())
    }

    fn take_over(&mut self, mut running: Running) -> Result<(), String> {
        let copy = running.join()?;
        let file = running.file.try_clone().map_err(plain)?;
        let result = self
            .writer
            .adopt(copy, || running.place.install(&self.file, &running.file));
        result.map_err(in_words)?;
        self.file = file;
        Ok(())
    }
}

impl Sink for Recorder {
    fn push(&mut self, record: Record) {
        self.writer.push(record);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.tend();
        Ok(())
    }

    fn path(&self) -> Option<PathBuf> {
        let stat = fstat(&self.file).ok().filter(|stat| stat.st_nlink > 0)?;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()?;
        let named = rustix::fs::stat(&path).ok()?;
        // A name that leads to another file is not ours any more.
        let is_ours = (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino);
        is_ours.then_some(path)
    }

    fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    fn dropped(&self) -> u64 {
        self.writer.dropped().records
    }

    fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}

impl Running {
    fn start(&mut self, source: Source, detail: Detail) -> io::Result<()> {
        let file = self.file.try_clone()?;
        let goes_on = self.goes_on.clone();
        let work = move || {
            // What the target or the rounds need comes first. Of this thread
            // only, whatever the call's name says; without it, it works too.
            let _ = rustix::process::setpriority_process(None, 19);
            let synced = file.try_clone().map_err(plain)?;
            let copy = compact(&source, file, detail, &|| goes_on.load(Ordering::Relaxed))
                .map_err(in_words)?;
            synced.sync_data().map_err(plain)?;
            Ok(copy)
        };
        let thread = std::thread::Builder::new().name("compaction".to_owned());
        self.thread = Some(thread.spawn(work)?);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(&mut self) -> Result<Compacted, String> {
        let result = self.thread.take().map(JoinHandle::join);
        match result {
            Some(Ok(result)) => result,
            _ => Err("it ended early".to_owned()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        let _ = self.join();
        // The copy, where it was not taken.
        self.place.remove_copy();
    }
}

/// Where a recording lies, and its copy beside it.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    name: OsString,
    copy: OsString,
}

impl Place {
    /// Where `file` lies now.
    fn of(file: &File) -> Result<Self, String> {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = readlinkat(CWD, link, Vec::new()).map_err(|error| plain(error.into()))?;
        let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err("its file has no name".to_owned());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            openat(CWD, parent, flags, Mode::empty()).map_err(|error| plain(error.into()))?;
        let mut copy = OsString::from(".");
        copy.push(name);
        copy.push(".compacting");
        let place = Place {
            directory,
            name: name.to_owned(),
            copy,
        };
        let status = fstat(file).map_err(|error| plain(error.into()))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("it is no regular file".to_owned());
        }
        if !place.is_at(&place.name, &status) {
            return Err("its file was removed".to_owned());
        }
        if status.st_nlink != 1 {
            return Err("its file has several names".to_owned());
        }
        Ok(place)
    }

    /// Whether a name leads to a file.
    fn is_at(&self, name: &OsString, status: &Stat) -> bool {
        statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino))
    }

    /// Creates the copy, for those who may have the recording.
    fn create_copy(&self, file: &File) -> io::Result<File> {
        self.remove_copy();
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let copy = openat(&self.directory, &self.copy, flags, private)?;
        let dressed = || {
            let (old, new) = (fstat(file)?, fstat(&copy)?);
            if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) {
                let (user, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
                fchown(&copy, Some(user), Some(group))?;
            }
            fchmod(&copy, Mode::from_raw_mode(old.st_mode))
        };
        let result = dressed();
        if result.is_err() {
            self.remove_copy();
        }
        result?;
        Ok(File::from(copy))
    }

    /// Removes the copy, be it an earlier one's.
    fn remove_copy(&self) {
        // Mostly, there is none.
        let _ = unlinkat(&self.directory, &self.copy, AtFlags::empty());
    }

    /// Gives the copy `new` the name of the recording `old`, which loses it.
    fn install(&self, old: &File, new: &File) -> io::Result<()> {
        let (old, new) = (fstat(old)?, fstat(new)?);
        if !self.is_at(&self.name, &old) || !self.is_at(&self.copy, &new) {
            return Err(io::Error::other("its file was moved or replaced"));
        }
        let exchange = || {
            let flags = RenameFlags::EXCHANGE;
            renameat_with(
                &self.directory,
                &self.copy,
                &self.directory,
                &self.name,
                flags,
            )
        };
        match exchange() {
            Ok(()) if self.is_at(&self.copy, &old) => {}
            // Somebody put a file of theirs there just now: they have it back.
            Ok(()) => {
                exchange()?;
                return Err(io::Error::other("its file was moved or replaced"));
            }
            // File systems need not know how to exchange.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                renameat(&self.directory, &self.copy, &self.directory, &self.name)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.remove_copy();
        Ok(())
    }
}

/// Why there is no copy, for a sentence.
fn in_words(error: CompactError) -> String {
    match error {
        CompactError::Read(error) | CompactError::Write(error) => plain(error),
        other => other.to_string(),
    }
}

/// The system's words without "(os error 13)", in lower case.
#[expect(
    clippy::needless_pass_by_value,
    reason = "for `map_err`, which gives it away"
)]
fn plain(error: io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error") {
        text.truncate(end);
    }
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

#[cfg(test)]
mod tests;
