//! MiniDebugInfo: symbols of a stripped file's own functions, as Fedora and
//! its like ship them: an ELF file, compressed with xz, in `.gnu_debugdata`.

use std::fs::File;
use std::path::Path;

use lzma_rust2::XzReader;
use object::Endianness;
use object::read::elf::ElfFile64;
use object::read::{Object as _, ObjectSection as _, ReadCache};

use crate::copied::{Copied, PACKED};

/// Most bytes that are unpacked. A stranger's file may unpack to anything.
const MOST_BYTES: u64 = 64 << 20;

/// Most memory that the unpacker may take, in KiB.
const MOST_DICTIONARY_KIB: u32 = 64 << 10;

/// Unpacks the symbols that a file carries; `None` where it has none, or none
/// that can be read.
pub(crate) fn unpack(path: &Path) -> Option<Copied> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).ok()?;
    let packed = elf
        .section_by_name(".gnu_debugdata")
        .or_else(|| elf.section_by_name(PACKED))?
        .data()
        .ok()?;
    let mut reader = XzReader::new_mem_limit(packed, false, MOST_DICTIONARY_KIB);
    Copied::of("symbols", &mut reader, MOST_BYTES).ok()
}
