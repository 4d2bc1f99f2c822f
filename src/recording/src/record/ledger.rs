//! What a process's resident memory was made of, and what pages its blocks keep.

use serde::{Deserialize, Serialize};

use super::Text;

/// What a process's resident memory (RSS) was made of at an instant, as it was read
/// from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Ledger {
    /// Whose memory.
    pub process: u32,
    /// The instant at which the kernel was asked.
    pub at_ns: u64,
    /// Why it was looked: a snapshot's name, `start` or `end`; empty where it was time
    /// again.
    pub name: String,
    /// Microseconds of a processor that it took.
    pub microseconds: u64,
    /// Resident bytes by what they belong to, in the order of [`Part`](Ledger#parts):
    /// those that no other process has mapped, and those that others have mapped, too.
    /// They sum to RSS.
    ///
    /// # Parts
    ///
    /// 0 live blocks of CPython's allocator for small blocks, 1 the rest of its arenas,
    /// 2 live blocks of glibc's malloc, 3 free ones, 4 mappings of other allocators,
    /// 5 other private memory without a file, 6 files and code, 7 stacks of threads,
    /// 8 memory that processes share on purpose, 9 leakline itself, 10 what made no
    /// sense.
    pub parts: Vec<(u64, u64)>,
    /// What was swapped out, and is no part of it.
    pub swapped_bytes: u64,
    /// Arenas of glibc's malloc; 0 where it was not found.
    pub arenas: u64,
    /// What `malloc_trim(0)` would give back.
    pub trimmable_bytes: u64,
    /// What is free in arenas of threads.
    pub free_of_threads_bytes: u64,
    /// Of live blocks of malloc, what was mapped for one block each.
    pub mapped_bytes: u64,
    /// Arenas of CPython.
    pub python_arenas: u64,
    /// Those of which less than a quarter is in use.
    pub sparse_arenas: u64,
    /// What is in use in those.
    pub sparse_live_bytes: u64,
    /// Stacks that were found, beside the main thread's.
    pub stacks: u64,
    /// The file of which most is resident, programs and libraries apart: its base name.
    pub largest_file: Option<(Text, u64)>,
    /// The process runs CPython.
    pub is_python: bool,
    /// Allocators beside libc's, and where one is linked into a library: a name, and what
    /// of the part of other allocators is known to be its: private and shared bytes.
    pub allocators: Vec<(String, u64, u64)>,
    /// Why only the kernel's sums are known; empty where more is.
    pub not_read: String,
}

impl Ledger {
    /// The sum of all parts.
    pub fn rss_bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (private, shared)| {
            sum.saturating_add(private.saturating_add(*shared))
        })
    }
}

/// What lived in a process with CPython at an instant, by type, as it was read from
/// outside while the process ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct Inventory {
    /// Whose objects.
    pub process: u32,
    /// The instant at which they began to be read.
    pub at_ns: u64,
    /// As [`Ledger::name`].
    pub name: String,
    /// Microseconds of a processor that it took.
    pub microseconds: u64,
    /// Those types of which most bytes lived, most first.
    pub types: Vec<OfType>,
    /// All other types together: how many types, objects and bytes.
    pub others: (u64, u64, u64),
    /// Bytes of live small blocks that are no object's, as far as that is known.
    pub rest_bytes: u64,
    /// Bytes of live small blocks that were not read.
    pub unread_bytes: u64,
}

/// What lived of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct OfType {
    /// `module.Class`; without the module where it is built in.
    pub name: String,
    /// How many.
    pub objects: u64,
    /// Of their blocks, and of tables that are theirs alone.
    pub bytes: u64,
}

/// Pages that the live blocks of a process's sites lie in at an instant. A page with
/// blocks of several sites is shared among them by the bytes that each has in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(arbitrary::Arbitrary))]
pub struct PageCost {
    /// Whose blocks.
    pub process: u32,
    /// The instant.
    pub at_ns: u64,
    /// As [`Ledger::name`].
    pub name: String,
    /// Pages that were counted were one of so many: 1 is all of them.
    pub one_of: u32,
    /// Pages that were counted.
    pub pages: u64,
    /// Bytes of blocks in them.
    pub block_bytes: u64,
    /// Sites, rising, and what their blocks keep, in bytes: of all pages, an estimate
    /// where not all were counted.
    pub sites: Vec<(u32, u64)>,
    /// What they keep are pages that were resident; else all of their address space.
    pub is_resident: bool,
    /// Of these, pages that were not asked for: there was no time.
    pub unasked: u64,
}
