//! Files in memory, for readers that map what they read.
//!
//! A map of a file that is cut short in place faults (SIGBUS) where it lacks
//! pages; a copy that is read once cannot change.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::read::elf::ElfFile64;
use object::read::{Object as _, ObjectSection as _, ReadCache};
use rustix::fs::{MemfdFlags, memfd_create};

/// Larger files are not copied: they take as much memory as long as they are
/// kept.
const MOST_COPIED_BYTES: u64 = 64 << 20;

/// Bytes in memory, with a path by which this process can open them.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Keeps the path alive.
    _memory: File,
    path: PathBuf,
}

impl Copied {
    /// Copies a file of `bytes` bytes, if it is of a size for that and may be
    /// read from another place: what looks for further files beside it needs
    /// it where it is.
    pub(crate) fn of_file(path: &Path, bytes: u64) -> Option<Self> {
        let mut with_ending = path.as_os_str().to_owned();
        with_ending.push(".dwp");
        if bytes > MOST_COPIED_BYTES || Path::new(&with_ending).exists() {
            return None;
        }
        let mut file = File::open(path).ok()?;
        if links_to_others(&file) {
            return None;
        }
        file.rewind().ok()?;
        let name = path.file_name().and_then(|name| name.to_str());
        Self::of(name.unwrap_or(""), &mut file, MOST_COPIED_BYTES).ok()
    }

    /// Copies what `bytes` gives, at most `most`.
    ///
    /// # Errors
    ///
    /// It gives more or cannot be read, or there is no memory.
    pub(crate) fn of(name: &str, bytes: &mut dyn Read, most: u64) -> io::Result<Self> {
        const LONGEST_NAME: usize = 200;
        let name: String = name.chars().filter(char::is_ascii).collect();
        let name = &name[..name.len().min(LONGEST_NAME)];
        let mut memory = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
        let mut part = vec![0; 1 << 18];
        let mut left = most;
        loop {
            let count = match bytes.read(&mut part) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            left = left
                .checked_sub(count as u64)
                .ok_or(io::ErrorKind::FileTooLarge)?;
            memory.write_all(&part[..count])?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
        Ok(Copied {
            _memory: memory,
            path,
        })
    }

    /// Opens the copy.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether parts of its debug information are in other files.
fn links_to_others(file: &File) -> bool {
    let cache = ReadCache::new(file);
    let elf: Result<ElfFile64<'_, Endianness, _>, _> = ElfFile64::parse(&cache);
    elf.is_ok_and(|elf| {
        elf.sections().any(|section| {
            matches!(
                section.name_bytes(),
                Ok(b".gnu_debuglink" | b".gnu_debugaltlink" | b".debug_sup")
            )
        })
    })
}
