//! ELF images in another process's memory: symbols, free bytes, code.
//!
//! Only what is mapped is read, never a file: so it does not matter in which
//! mount namespace the process lives, and whether its files were replaced.

use std::io;
use std::sync::OnceLock;

use object::elf;

use crate::target::{Mapping, Process};

/// Most bytes of a table that is read: what a damaged image may cost us.
const MOST_BYTES: u64 = 64 << 20;

/// A loaded object.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// What is added to a stated address.
    pub(crate) bias: u64,
    segments: Vec<Segment>,
    dynamic: Option<(u64, u64)>,
    frame_header: Option<(u64, u64)>,
    symbols: OnceLock<Symbols>,
}

/// A loadable segment, at its actual addresses.
#[derive(Debug, Clone, Copy)]
struct Segment {
    start: u64,
    end: u64,
    writable: bool,
    executable: bool,
}

/// The symbols of an image, and their names, as they lie in its memory.
#[derive(Debug, Default)]
struct Symbols {
    table: Vec<u8>,
    names: Vec<u8>,
}

/// A defined symbol, at its actual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) address: u64,
    pub(crate) size: u64,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 2)
        .map_or(0, |part| u64::from(part[0]) | u64::from(part[1]) << 8)
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// Reads the headers of all files that are mapped with code.
///
/// An image that cannot be understood is left out.
pub(crate) fn images(process: &Process, mappings: &[Mapping]) -> Vec<Image> {
    let mut images = Vec::new();
    for (index, first) in mappings.iter().enumerate() {
        let is_image = first.inode != 0
            && first.offset == 0
            && first.readable
            && mappings[index..]
                .iter()
                .take_while(|map| map.inode == 0 || map.inode == first.inode)
                .any(|map| map.executable && map.inode == first.inode);
        if is_image && let Ok(image) = Image::read(process, first) {
            images.push(image);
        }
    }
    images
}

/// Whether the program of a process is of the 64-bit x86 kind.
pub(crate) fn is_x86_64(process: &Process, mappings: &[Mapping]) -> bool {
    mappings
        .iter()
        .filter(|map| map.inode != 0 && map.offset == 0 && map.readable)
        .find_map(|map| {
            let header = process.bytes(map.start, 64).ok()?;
            header.starts_with(&elf::ELFMAG).then(|| {
                header[4] == elf::ELFCLASS64.0 && u16_at(&header, 18) == u64::from(elf::EM_X86_64.0)
            })
        })
        .unwrap_or(false)
}

impl Image {
    fn read(process: &Process, first: &Mapping) -> io::Result<Self> {
        let header = process.bytes(first.start, 64)?;
        if !header.starts_with(&elf::ELFMAG) || header[4] != elf::ELFCLASS64.0 {
            return Err(invalid("not a 64-bit image"));
        }
        let offset = u64_at(&header, 32);
        let count = u16_at(&header, 56) as usize;
        if u16_at(&header, 54) != 56 || offset > 4096 || count > 64 {
            return Err(invalid("unusual program headers"));
        }
        let table = process.bytes(first.start + offset, count * 56)?;
        let mut image = Self {
            name: String::from_utf8_lossy(first.file_name()).into_owned(),
            device: first.device,
            inode: first.inode,
            bias: 0,
            segments: Vec::new(),
            dynamic: None,
            frame_header: None,
            symbols: OnceLock::new(),
        };
        let kind = |entry: &[u8]| u32_at(entry, 0) as u32;
        let lowest = table
            .chunks_exact(56)
            .find(|entry| kind(entry) == elf::PT_LOAD.0)
            .ok_or_else(|| invalid("nothing is loaded"))?;
        // The file's first page is mapped by the segment that begins with it.
        image.bias = first
            .start
            .wrapping_sub(u64_at(lowest, 16).wrapping_sub(u64_at(lowest, 8)));
        for entry in table.chunks_exact(56) {
            let start = image.bias.wrapping_add(u64_at(entry, 16));
            let bytes = u64_at(entry, 40);
            match kind(entry) {
                kind if kind == elf::PT_LOAD.0 => image.segments.push(Segment {
                    start,
                    end: start.wrapping_add(bytes),
                    writable: u32_at(entry, 4) & u64::from(elf::PF_W.0) != 0,
                    executable: u32_at(entry, 4) & u64::from(elf::PF_X.0) != 0,
                }),
                kind if kind == elf::PT_DYNAMIC.0 => image.dynamic = Some((start, bytes)),
                kind if kind == elf::PT_GNU_EH_FRAME.0 => {
                    image.frame_header = Some((start, bytes));
                }
                _ => {}
            }
        }
        Ok(image)
    }

    /// Whether the address lies in a segment of it.
    pub(crate) fn holds(&self, address: u64) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.start <= address && address < segment.end)
    }

    /// Where the table of its unwind rules begins, and its size.
    pub(crate) fn frame_header(&self) -> Option<(u64, u64)> {
        self.frame_header
    }

    /// The end of the segment that the address lies in.
    pub(crate) fn segment_end(&self, address: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|segment| segment.start <= address && address < segment.end)
            .map(|segment| segment.end)
    }

    /// A symbol that it defines and exports.
    pub(crate) fn symbol(&self, process: &Process, name: &str) -> Option<Symbol> {
        if self.symbols.get().is_none() {
            // One that cannot be read has none.
            let symbols = self.read_symbols(process).unwrap_or_default();
            self.symbols.get_or_init(|| symbols);
        }
        let symbols = self.symbols.get()?;
        symbols.table.chunks_exact(24).find_map(|entry| {
            let rest = symbols.names.get(u32_at(entry, 0) as usize..)?;
            if !rest.starts_with(name.as_bytes()) || rest.get(name.len()) != Some(&0) {
                return None;
            }
            let address = u64_at(entry, 8);
            // An undefined function whose address a program takes has that of
            // its PLT stub here. What only a resolver knows is left out.
            let is_defined =
                u16_at(entry, 6) != 0 && address != 0 && matches!(entry[4] & 0xf, 0..=2);
            is_defined.then(|| Symbol {
                address: self.bias.wrapping_add(address),
                size: u64_at(entry, 16),
            })
        })
    }

    fn read_symbols(&self, process: &Process) -> io::Result<Symbols> {
        let (start, bytes) = self.dynamic.ok_or_else(|| invalid("no dynamic section"))?;
        let dynamic = process.bytes(start, bytes.min(1 << 16) as usize)?;
        let entry = |tag: i64| {
            dynamic
                .chunks_exact(16)
                .take_while(|entry| u64_at(entry, 0) != 0)
                .find(|entry| u64_at(entry, 0) as i64 == tag)
                .map(|entry| u64_at(entry, 8))
        };
        // glibc adds the bias to these pointers in place, others do not.
        let pointer = |tag: i64| {
            entry(tag).map(|value| {
                if self.holds(value) {
                    value
                } else {
                    value.wrapping_add(self.bias)
                }
            })
        };
        let table = pointer(elf::DT_SYMTAB.0).ok_or_else(|| invalid("no symbols"))?;
        let strings = pointer(elf::DT_STRTAB.0).ok_or_else(|| invalid("no names"))?;
        let strings_bytes = entry(elf::DT_STRSZ.0).unwrap_or(0);
        let count = match pointer(elf::DT_HASH.0) {
            Some(hash) => u32_at(&process.bytes(hash, 8)?, 4),
            None => match pointer(elf::DT_GNU_HASH.0) {
                Some(hash) => gnu_symbol_count(process, hash)?,
                None => return Err(invalid("no hash table")),
            },
        };
        if count * 24 > MOST_BYTES || strings_bytes > MOST_BYTES {
            return Err(invalid("an enormous symbol table"));
        }
        Ok(Symbols {
            table: process.bytes(table, count as usize * 24)?,
            names: process.bytes(strings, strings_bytes as usize)?,
        })
    }

    /// Zero bytes between the end of its data and the end of their page, which
    /// nobody uses: at least `count`, at a multiple of 16.
    ///
    /// Not for the loader, which allocates from there.
    pub(crate) fn slack(
        &self,
        process: &Process,
        mappings: &[Mapping],
        count: usize,
    ) -> Option<u64> {
        let last = self.segments.iter().rfind(|segment| segment.writable)?;
        let page_end = last.end.next_multiple_of(4096);
        let start = last.end.next_multiple_of(16);
        let mapping = mappings
            .iter()
            .find(|map| map.start <= start && page_end <= map.end)?;
        let is_private = mapping.writable && mapping.readable && !mapping.shared;
        if start >= page_end || (page_end - start) < count as u64 || !is_private {
            return None;
        }
        let bytes = process.bytes(start, (page_end - start) as usize).ok()?;
        // Another text may lie there from an earlier injection: what was not
        // used yet must stay.
        (0..=bytes.len() - count)
            .step_by(16)
            .find(|&at| bytes[at..at + count].iter().all(|&byte| byte == 0))
            .map(|at| start + at as u64)
    }

    /// Where `code` occurs in its code.
    pub(crate) fn find_code(&self, process: &Process, code: &[u8]) -> Option<u64> {
        self.segments
            .iter()
            .filter(|segment| segment.executable)
            .find_map(|segment| {
                let count = (segment.end - segment.start).min(MOST_BYTES) as usize;
                let bytes = process.bytes(segment.start, count).ok()?;
                let at = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| **byte == code[0])
                    .find(|(at, _)| bytes[*at..].starts_with(code))?
                    .0;
                Some(segment.start + at as u64)
            })
    }
}

/// How many symbols a table has, from the hash table over it.
fn gnu_symbol_count(process: &Process, hash: u64) -> io::Result<u64> {
    let header = process.bytes(hash, 16)?;
    let (buckets, first) = (u32_at(&header, 0), u32_at(&header, 4));
    let bloom_words = u32_at(&header, 8);
    if buckets * 4 > MOST_BYTES || bloom_words * 8 > MOST_BYTES {
        return Err(invalid("an enormous hash table"));
    }
    let start = hash + 16 + bloom_words * 8;
    let heads = process.bytes(start, buckets as usize * 4)?;
    let Some(mut last) = heads.chunks_exact(4).map(|head| u32_at(head, 0)).max() else {
        return Ok(first);
    };
    if last < first {
        return Ok(first);
    }
    // The chain of the last bucket ends with the last symbol.
    let chains = start + buckets * 4;
    while last * 24 <= MOST_BYTES {
        let link = process.bytes(chains + (last - first) * 4, 4)?;
        last += 1;
        if link[0] & 1 == 1 {
            return Ok(last);
        }
    }
    Err(invalid("a hash chain without an end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> (Process, Vec<Mapping>, Vec<Image>) {
        let process = Process::open(std::process::id() as i32).unwrap();
        let mappings = process.mappings().unwrap();
        let images = images(&process, &mappings);
        (process, mappings, images)
    }

    #[test]
    fn symbols_are_where_the_loader_says() {
        let (process, _, images) = ourselves();
        let found: Vec<_> = images
            .iter()
            .filter_map(|image| image.symbol(&process, "getppid"))
            .collect();
        assert_eq!(found[0].address, libc::getppid as *const () as u64);
        assert!(found[0].size > 0);
    }

    #[test]
    fn this_program_is_one_of_them() {
        let (process, mappings, images) = ourselves();
        assert!(is_x86_64(&process, &mappings));
        let here = this_program_is_one_of_them as *const () as u64;
        assert_eq!(images.iter().filter(|image| image.holds(here)).count(), 1);
    }

    #[test]
    fn slack_is_zero_and_beyond_the_data() {
        let (process, mappings, images) = ourselves();
        let mut found = 0;
        for image in &images {
            if let Some(at) = image.slack(&process, &mappings, 16) {
                found += 1;
                assert!(!image.holds(at), "{}", image.name);
                assert_eq!(process.bytes(at, 16).unwrap(), [0; 16]);
            }
        }
        assert!(found > 0);
    }
}
