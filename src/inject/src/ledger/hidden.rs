//! Allocators inside libraries: jemalloc or mimalloc, linked into an extension module, or
//! both of them (pyarrow has both; which it uses is a matter of its settings).
//!
//! No symbol tells of them, but what they would say of errors does, in the file. What is
//! theirs is found by what they note of it themselves: a mapping is an allocator's if a word
//! of its library's variables, or of a mapping that is its own already, leads to the
//! mapping's first page, and nobody else has explained it. Metadata comes first in what
//! they map, so only the beginning of each is read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use super::maps::Map;
use super::memory::Memory;
use super::pages::{PAGE, Pages};
use crate::inspect::{Allocator, open_inside};

/// Most bytes of a library's constants, of the beginning of a mapping and of all of them
/// that are read.
const MOST_CONSTANTS: u64 = 64 << 20;
const MOST_OF_MAP: u64 = 16 << 20;
const MOST_OF_ALL: u64 = 128 << 20;

/// What each allocator says of errors.
const SAID: [(&[u8], Allocator); 2] = [
    (b"<jemalloc>: ", Allocator::Jemalloc),
    (b"mimalloc: error: ", Allocator::Mimalloc),
];

/// A library that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    /// Which; of several it is not known whose a mapping is.
    pub(super) allocators: Vec<Allocator>,
    /// The library's path.
    path: Vec<u8>,
}

impl Hidden {
    /// `jemalloc inside polars.so`, `jemalloc or mimalloc inside libarrow.so.2600`.
    pub(super) fn name(&self) -> String {
        let names: Vec<&str> = self.allocators.iter().map(|one| one.name()).collect();
        let file = self.path.rsplit(|byte| *byte == b'/').next();
        let file = String::from_utf8_lossy(file.unwrap_or_default());
        format!("{} inside {file}", names.join(" or "))
    }
}

/// Device, inode and time of change of a file.
type Identity = (u64, u64, i64);
/// What is known of libraries: they are read once.
static KNOWN: Mutex<Option<HashMap<Identity, Vec<Allocator>>>> = Mutex::new(None);

/// The libraries of a process that have an allocator inside.
pub(super) fn libraries(pid: u32, maps: &[Map]) -> Vec<Hidden> {
    let is_library = |map: &&Map| {
        let name = map.file_name();
        map.executable
            && map.inode != 0
            && name.windows(3).any(|part| part == b".so")
            && Allocator::of_library(name).is_none()
    };
    let paths: BTreeSet<&[u8]> = maps.iter().filter(is_library).map(Map::path).collect();
    let hidden = paths.into_iter().filter_map(|path| {
        let path_of_it = Path::new(std::ffi::OsStr::from_bytes(path));
        let file = open_inside(pid, path_of_it, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let allocators = inside(&File::from(file), path, maps);
        (!allocators.is_empty()).then(|| Hidden {
            allocators,
            path: path.to_vec(),
        })
    });
    hidden.collect()
}

/// The allocators in a file, of which parts are mapped.
fn inside(file: &File, path: &[u8], maps: &[Map]) -> Vec<Allocator> {
    let Some(facts) = file.metadata().ok().filter(std::fs::Metadata::is_file) else {
        return Vec::new();
    };
    let of_path = || maps.iter().filter(|map| map.path() == path);
    // The name may be another file's by now.
    if !of_path().all(|map| map.inode == facts.ino()) {
        return Vec::new();
    }
    let identity = (facts.dev(), facts.ino(), facts.mtime());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(found) = known.get(&identity) {
        return found.clone();
    }
    let mut left = MOST_CONSTANTS;
    let mut found = BTreeSet::new();
    for map in of_path().filter(|map| map.readable && !map.writable && !map.executable) {
        let bytes = (map.end - map.start).min(left);
        left -= bytes;
        said_in(file, map.offset, bytes, &mut found);
    }
    let found: Vec<Allocator> = found.into_iter().map(|at| SAID[at].1).collect();
    known.insert(identity, found.clone());
    found
}

/// Adds the allocators whose words are there, by their places in [`SAID`].
fn said_in(file: &File, from: u64, bytes: u64, found: &mut BTreeSet<usize>) {
    const CHUNK: usize = 1 << 20;
    const LONGEST: usize = 32;
    let mut buffer = vec![0; CHUNK + LONGEST];
    let mut at = 0;
    while at < bytes && found.len() < SAID.len() {
        let wanted = ((bytes - at) as usize).min(buffer.len());
        let Ok(read) = file.read_at(&mut buffer[..wanted], from + at) else {
            return;
        };
        let text = &buffer[..read];
        // All of them begin with one of two letters, which are rare.
        for (number, (words, _)) in SAID.iter().enumerate() {
            let mut rest = text;
            while let Some(next) = rest.iter().position(|byte| *byte == words[0]) {
                rest = &rest[next..];
                if rest.starts_with(words) {
                    found.insert(number);
                    break;
                }
                rest = &rest[1..];
            }
        }
        if read < wanted {
            break;
        }
        at += CHUNK as u64;
    }
}

/// Which mappings are whose: by the mapping's number, the library's. `may_be`: nobody has
/// explained the mapping.
pub(super) fn mappings(
    libraries: &[Hidden],
    maps: &[Map],
    memory: &dyn Memory,
    pages: &Pages,
    may_be: &dyn Fn(usize, &Map) -> bool,
) -> BTreeMap<usize, usize> {
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    let mut left = MOST_OF_ALL;
    for (number, library) in libraries.iter().enumerate() {
        let mut to_read: Vec<usize> = Vec::new();
        for (at, map) in maps.iter().enumerate() {
            // Variables that are 0 at first lie behind the file's.
            let is_behind = at > 0 && {
                let before = &maps[at - 1];
                map.is_data() && before.end == map.start && is_variables(before, library)
            };
            if is_variables(map, library) || is_behind {
                to_read.push(at);
            }
        }
        let variables: BTreeSet<usize> = to_read.iter().copied().collect();
        let mut page_bytes = vec![0; PAGE as usize];
        while let Some(at) = to_read.pop() {
            let map = &maps[at];
            let (mut page, end) = (map.start, map.end.min(map.start + MOST_OF_MAP));
            while let Some(present) = pages.next_present(page, end) {
                page = present + PAGE;
                if left < PAGE {
                    return found;
                }
                left -= PAGE;
                if !memory.read(present, &mut page_bytes) {
                    continue;
                }
                for word in page_bytes.chunks_exact(8) {
                    let word = word.try_into().map_or(0, u64::from_le_bytes);
                    let before = maps.partition_point(|map| map.start <= word);
                    let Some(to) = before.checked_sub(1) else {
                        continue;
                    };
                    let is_new = word - maps[to].start < PAGE
                        && word < maps[to].end
                        && !variables.contains(&to)
                        && !found.contains_key(&to)
                        && may_be(to, &maps[to]);
                    if is_new {
                        found.insert(to, number);
                        to_read.push(to);
                    }
                }
            }
        }
    }
    found
}

fn is_variables(map: &Map, library: &Hidden) -> bool {
    map.writable && !map.is_shared && map.inode != 0 && map.path() == library.path
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::memory::tests::Image;
    use super::*;

    #[test]
    fn an_allocator_is_known_by_what_it_says() {
        let mut file = tempfile::tempfile().unwrap();
        let mut text = vec![b'<'; 3 << 20];
        // Across the end of what is read at once.
        text[(1 << 20) - 4..][..12].copy_from_slice(b"<jemalloc>: ");
        file.write_all(&text).unwrap();
        let length = text.len() as u64;
        let said = |from: u64, bytes: u64| {
            let mut found = BTreeSet::new();
            said_in(&file, from, bytes, &mut found);
            let found = found.into_iter().map(|at| SAID[at].1);
            found.collect::<Vec<Allocator>>()
        };
        assert_eq!(said(0, length), [Allocator::Jemalloc]);
        assert_eq!(said(1 << 20, length), []);
        assert_eq!(said(0, 1 << 19), []);
        // One may have both.
        file.write_at(b"mimalloc: error: ", 5 << 19).unwrap();
        assert_eq!(said(0, length), [Allocator::Jemalloc, Allocator::Mimalloc]);
        assert_eq!(said(2 << 20, 1 << 20), [Allocator::Mimalloc]);
    }

    #[test]
    fn mappings_are_whose_words_lead_to_them() {
        const AT: u64 = 0x7f00_0000_0000;
        const EACH: u64 = 0x10_0000;
        // Variables, the rest of them behind, and five mappings.
        let mut image = Image::new(AT, 0x1000).and(AT + 0x1000, 0x1000);
        for number in 1..6 {
            image = image.and(AT + number * EACH, 0x3000);
        }
        let mut maps = image.maps();
        maps[0].inode = 7;
        maps[0].name = b"/x/polars.so".to_vec();
        image.set(AT + 0x1010, AT + EACH + 0x40);
        // From one to the next, but not from where nobody leads to.
        image.set(AT + EACH + 0x2008, AT + 2 * EACH);
        image.set(AT + 2 * EACH + 8, AT + 3 * EACH + 0x1000);
        image.set(AT + 3 * EACH, AT + 4 * EACH);
        image.set(AT + 2 * EACH + 16, AT + 5 * EACH);
        let library = Hidden {
            allocators: vec![Allocator::Jemalloc],
            path: b"/x/polars.so".to_vec(),
        };
        assert_eq!(library.name(), "jemalloc inside polars.so");
        let both = Hidden {
            allocators: vec![Allocator::Jemalloc, Allocator::Mimalloc],
            ..library.clone()
        };
        assert_eq!(both.name(), "jemalloc or mimalloc inside polars.so");
        // The last is explained by others.
        let may_be = |at: usize, _: &Map| at != 6;
        let found = mappings(&[library], &maps, &image, &image.pages(), &may_be);
        assert_eq!(found, BTreeMap::from([(2, 0), (3, 0)]));
    }
}
