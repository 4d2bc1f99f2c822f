//! Files in memory, for readers that map what they read.
//!
//! A map of a file that is cut short in place faults (SIGBUS) where it lacks
//! pages; a copy that is read once cannot change.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::read::SectionIndex;
use object::read::elf::{ElfFile64, FileHeader as _, SectionHeader as _};
use object::read::{Object as _, ObjectSection as _, ReadCache};
use rustix::fs::{MemfdFlags, memfd_create};

/// Larger files are not copied: they take as much memory as long as they are
/// kept.
const MOST_COPIED_BYTES: u64 = 64 << 20;

/// Larger ones that carry packed symbols are not.
const MOST_PACKED_BYTES: u64 = 256 << 20;

/// What the section of packed symbols is called in a copy: blazesym reads no
/// file that has one by its own name.
pub(crate) const PACKED: &str = "_gnu_debugdata";

/// Bytes in memory, with a path by which this process can open them.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Keeps the path alive.
    memory: File,
    path: PathBuf,
}

impl Copied {
    /// Copies a file of `bytes` bytes, if it is of a size for that and may be
    /// read from another place: what looks for further files beside it needs
    /// it where it is.
    pub(crate) fn of_file(path: &Path, bytes: u64) -> Option<Self> {
        let mut with_ending = path.as_os_str().to_owned();
        with_ending.push(".dwp");
        let mut file = File::open(path).ok()?;
        let parts = Parts::of(&file).unwrap_or_default();
        let may_move = !parts.are_elsewhere && !Path::new(&with_ending).exists();
        let most = match parts.packed_name {
            Some(_) => MOST_PACKED_BYTES,
            None if may_move => MOST_COPIED_BYTES,
            None => return None,
        };
        if bytes > most {
            return None;
        }
        file.rewind().ok()?;
        let name = path.file_name().and_then(|name| name.to_str());
        let copy = Self::of(name.unwrap_or(""), &mut file, most).ok()?;
        if let Some(place) = parts.packed_name {
            copy.memory
                .write_all_at(&PACKED.as_bytes()[..1], place)
                .ok()?;
        }
        Some(copy)
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
        Ok(Copied { memory, path })
    }

    /// Opens the copy.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What of a file decides how it can be read.
#[derive(Default)]
struct Parts {
    /// Parts of its debug information are in other files.
    are_elsewhere: bool,
    /// Where in the file the name of the section of packed symbols stands.
    packed_name: Option<u64>,
}

impl Parts {
    fn of(file: &File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).ok()?;
        let endian = elf.endian();
        let mut parts = Parts::default();
        for section in elf.sections() {
            match section.name_bytes() {
                Ok(b".gnu_debuglink" | b".gnu_debugaltlink" | b".debug_sup") => {
                    parts.are_elsewhere = true;
                }
                Ok(b".gnu_debugdata") => {
                    let names = elf.elf_header().shstrndx(endian, &cache).ok()?;
                    let names = elf.section_by_index(SectionIndex(names as usize)).ok()?;
                    let (start, _) = names.file_range()?;
                    let name = section.elf_section_header().sh_name(endian);
                    parts.packed_name = start.checked_add(u64::from(name));
                }
                _ => {}
            }
        }
        Some(parts)
    }
}

/// Where to look for debug information of a file that is read as a copy.
pub(crate) fn debug_directories(path: &Path, build_id: Option<&[u8]>) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(own) = path.parent() {
        directories.extend([own.to_owned(), own.join(".debug")]);
    }
    for root in ["/usr/lib/debug", "/lib/debug"].map(Path::new) {
        if let Some(first) = build_id.and_then(|id| id.first()) {
            directories.push(root.join(format!(".build-id/{first:02x}")));
        }
        let own = path.canonicalize().ok();
        let below = own
            .as_deref()
            .and_then(|own| own.parent()?.strip_prefix("/").ok());
        if let Some(below) = below {
            directories.push(root.join(below));
        }
        directories.push(root.to_owned());
    }
    directories
}
