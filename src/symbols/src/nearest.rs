//! The function symbols of a file, for addresses that none of them covers.

use object::read::elf::ElfFile64;
use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache};
use object::{Endianness, SymbolKind};
use std::fs::File;
use std::path::Path;

/// Where functions start: 8 bytes a function.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// First and past-the-last address of each section.
    sections: Vec<(u64, u64)>,
    /// Rising.
    addresses: Vec<u64>,
}

impl Starts {
    /// Reads a file's symbols; none when it cannot be read.
    pub(crate) fn read(path: &Path) -> Self {
        Self::try_read(path).unwrap_or_default()
    }

    fn try_read(path: &Path) -> Option<Self> {
        let cache = ReadCache::new(File::open(path).ok()?);
        let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).ok()?;
        let mut addresses: Vec<_> = elf
            .symbols()
            .chain(elf.dynamic_symbols())
            .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
            .map(|symbol| symbol.address())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let sections = elf
            .sections()
            .map(|section| {
                (
                    section.address(),
                    section.address().saturating_add(section.size()),
                )
            })
            .filter(|&(start, _)| start > 0)
            .collect();
        Some(Starts {
            sections,
            addresses,
        })
    }

    /// Adds the functions of another file with the same addresses.
    pub(crate) fn add(&mut self, other: &Starts) {
        self.addresses.extend(&other.addresses);
        self.addresses.sort_unstable();
        self.addresses.dedup();
    }

    /// Whether two addresses lie in the same section.
    pub(crate) fn in_one_section(&self, one: u64, other: u64) -> bool {
        self.sections
            .iter()
            .any(|&(start, end)| (start..end).contains(&one) && (start..end).contains(&other))
    }

    /// Start of the function nearest below `address`, in the same section:
    /// the last function of `.init` says nothing about a stub in `.plt`.
    pub(crate) fn below(&self, address: u64) -> Option<u64> {
        let &(first, _) = self
            .sections
            .iter()
            .find(|&&(start, end)| (start..end).contains(&address))?;
        let count = self.addresses.partition_point(|&start| start <= address);
        let start = *self.addresses[..count].last()?;
        (start >= first).then_some(start)
    }
}
