//! Events: what a hook writes into a ring, in words of eight bytes.
//!
//! Word 0 of every event is `kind << 56 | detail << 48 | value`, with a 48-bit
//! value (mostly an address); word 1 is the stamp. What follows depends on the
//! kind, see [`Event`].
//!
//! # Order
//!
//! Within a ring, stamps never fall. Between rings of a process: a death is
//! stamped and published *before* the real `free`, a birth *after* the real
//! `malloc`. So whatever an event depends on (the birth of what it frees, the
//! death of what lay at its address) was published before that event was
//! stamped. A consumer that notes the clock, then reads every ring's head, and
//! takes only events stamped before the note, has a consistent cut. The clock
//! read may drift over a locked instruction by some tens of nanoseconds: a
//! birth at a live address, or a death of an unknown one, may have to wait for
//! its partner from another ring.

/// Bits below the kind and detail of word 0.
pub const VALUE_MASK: u64 = 0xffff_ffff_ffff;

/// Kinds of event (word 0, top byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A block was born: address; detail = domain; w2 = size << 32 | stack.
    Alloc = 1,
    /// As `Alloc` with w2 = stack, w3 = size.
    AllocLarge = 2,
    /// A block died: address; detail = domain.
    Free = 3,
    /// A realloc of this block was begun: it is dead until the next event of
    /// the ring that ends the realloc.
    ReallocStart = 4,
    /// It ended well: new address; detail = domain; w2 = size << 32 | stack.
    /// At the old address: a resize. Elsewhere: a death and a birth.
    ReallocEnd = 5,
    /// As `ReallocEnd` with w2 = stack, w3 = size.
    ReallocEndLarge = 6,
    /// It failed: the old block (address) lives on.
    ReallocFail = 7,
    /// Memory was mapped: address; w2 = stack; w3 = length in bytes.
    Map = 8,
    /// Memory was unmapped: address; w2 = length in bytes.
    Unmap = 9,
    /// Memory was moved or resized by mremap: new address; w2 = stack;
    /// w3 = new length; w4 = old address; w5 = old length; w6 = a stamp from
    /// before the call. The event's own is from after it: what another thread
    /// maps where the old mapping was has one in between.
    Remap = 10,
    /// From here on the ring is this thread's: tid; w2, w3 = its name (16
    /// bytes, NUL-padded).
    Thread = 11,
    /// Events were lost here: how many since the last such mark.
    Loss = 12,
    /// A piece of a definition: detail = [`BlobKind`], value = id;
    /// w2 = total bytes << 32 | offset; w3 = bytes in this piece; then the
    /// bytes, padded to words.
    Blob = 13,
    /// The process is about to fork: value = fork sequence number;
    /// detail = [`FOR_GRAPH`] or 0.
    Fork = 14,
    /// An instant to keep: detail = [`MarkKind`].
    Mark = 15,
    /// A block that lay in a free list is an object again: address;
    /// w2 = stack.
    Reborn = 16,
    /// A block was born and sampled: address; detail = domain; w2 = stack;
    /// w3 = size; w4 = the mean of the countdown that chose it, in bytes.
    Sample = 17,
    /// A sampled block died: address; detail = domain, and [`IS_TEMPORARY`].
    SampleFree = 18,
    /// The realloc begun ended well, and was of a sampled block: that one
    /// (address) is dead. If the new one is sampled its birth follows.
    ReallocGone = 19,
}

/// In the detail byte of [`Kind::SampleFree`]: its thread allocated nothing
/// since the block's birth. Of blocks that were not sampled the consumer does
/// not know.
pub const IS_TEMPORARY: u8 = 0x80;

/// In the detail byte of [`Kind::SampleFree`] and [`Kind::ReallocGone`]: the block was
/// not sampled. It may have been recorded before the session sampled, when every
/// block was; most were not.
pub const IS_UNSURE: u8 = 0x40;

impl Kind {
    /// The kind of word 0, if it is one.
    pub const fn of(word: u64) -> Option<Kind> {
        Some(match (word >> 56) as u8 {
            1 => Kind::Alloc,
            2 => Kind::AllocLarge,
            3 => Kind::Free,
            4 => Kind::ReallocStart,
            5 => Kind::ReallocEnd,
            6 => Kind::ReallocEndLarge,
            7 => Kind::ReallocFail,
            8 => Kind::Map,
            9 => Kind::Unmap,
            10 => Kind::Remap,
            11 => Kind::Thread,
            12 => Kind::Loss,
            13 => Kind::Blob,
            14 => Kind::Fork,
            15 => Kind::Mark,
            16 => Kind::Reborn,
            17 => Kind::Sample,
            18 => Kind::SampleFree,
            19 => Kind::ReallocGone,
            _ => return None,
        })
    }

    /// Words of an event of this kind (a `Blob`: without its bytes).
    pub const fn words(self) -> usize {
        match self {
            Kind::Free
            | Kind::ReallocStart
            | Kind::ReallocFail
            | Kind::Loss
            | Kind::Fork
            | Kind::Mark
            | Kind::SampleFree
            | Kind::ReallocGone => 2,
            Kind::Alloc | Kind::ReallocEnd | Kind::Unmap | Kind::Reborn => 3,
            Kind::AllocLarge | Kind::ReallocEndLarge | Kind::Map | Kind::Thread | Kind::Blob => 4,
            Kind::Sample => 5,
            Kind::Remap => 7,
        }
    }
}

/// Where a block came from (the detail byte of births and deaths).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Domain {
    /// malloc and its family.
    Native = 0,
    /// `PyMem_RawMalloc`.
    Raw = 1,
    /// `PyMem_Malloc`.
    Mem = 2,
    /// `PyObject_Malloc`.
    Obj = 3,
    /// mmap.
    Map = 4,
}

impl Domain {
    /// The domain of a detail byte, if it is one.
    pub const fn of(detail: u8) -> Option<Domain> {
        Some(match detail {
            0 => Domain::Native,
            1 => Domain::Raw,
            2 => Domain::Mem,
            3 => Domain::Obj,
            4 => Domain::Map,
            _ => return None,
        })
    }
}

/// What a [`Kind::Blob`] defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// A [`crate::blob::ModuleDef`].
    Module = 1,
    /// A [`crate::blob::CodeDef`].
    Code = 2,
    /// UTF-8 text for the user, from inside the target.
    Note = 3,
    /// An instant to keep that has a name: the name, UTF-8.
    Mark = 4,
    /// Entries of a [heap graph](crate::graph).
    Graph = 5,
}

/// Detail of a [`Kind::Fork`]: the child tells of the heap, and is none of the program's.
pub const FOR_GRAPH: u8 = 1;

/// What a [`Kind::Mark`] marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MarkKind {
    /// The interpreter is up: Python's start is over.
    PythonReady = 1,
    /// The main thread has left `__main__`; nothing is torn down yet.
    MainLeft = 2,
    /// The process is about to exit (exit handlers may still run).
    Exiting = 3,
}

/// A decoded event. Addresses and lengths in bytes, as the kinds say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those that `Kind` describes")]
pub enum Event<'a> {
    /// See [`Kind::Alloc`].
    Alloc {
        address: u64,
        domain: Domain,
        size: u64,
        stack: u32,
    },
    /// See [`Kind::Free`].
    Free { address: u64, domain: Domain },
    /// See [`Kind::ReallocStart`].
    ReallocStart { address: u64 },
    /// See [`Kind::ReallocEnd`].
    ReallocEnd {
        address: u64,
        domain: Domain,
        size: u64,
        stack: u32,
    },
    /// See [`Kind::ReallocFail`].
    ReallocFail { address: u64 },
    /// See [`Kind::Map`].
    Map {
        address: u64,
        length: u64,
        stack: u32,
    },
    /// See [`Kind::Unmap`].
    Unmap { address: u64, length: u64 },
    /// See [`Kind::Remap`].
    Remap {
        address: u64,
        length: u64,
        stack: u32,
        old_address: u64,
        old_length: u64,
        began: u64,
    },
    /// See [`Kind::Thread`].
    Thread { tid: u32, name: [u8; 16] },
    /// See [`Kind::Loss`].
    Loss { events: u64 },
    /// See [`Kind::Blob`]. `words` holds `length` bytes, padded.
    Blob {
        kind: u8,
        id: u32,
        total: u32,
        offset: u32,
        length: u32,
        words: &'a [u64],
    },
    /// See [`Kind::Fork`].
    Fork { sequence: u32, is_for_graph: bool },
    /// See [`Kind::Mark`].
    Mark { kind: u8 },
    /// See [`Kind::Reborn`].
    Reborn { address: u64, stack: u32 },
    /// See [`Kind::Sample`].
    Sample {
        address: u64,
        domain: Domain,
        size: u64,
        stack: u32,
        mean: u64,
    },
    /// See [`Kind::SampleFree`].
    SampleFree {
        address: u64,
        is_temporary: bool,
        is_unsure: bool,
    },
    /// See [`Kind::ReallocGone`].
    ReallocGone { address: u64, is_unsure: bool },
}

/// Why words are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No such kind, domain or length.
    Unknown,
    /// The event reaches beyond the published words.
    Short,
}

/// Decodes the event at the start of `words`: its stamp, itself, its length
/// in words.
///
/// # Errors
///
/// [`Malformed`] for words that no interposer of this version writes.
pub fn decode(words: &[u64]) -> Result<(u64, Event<'_>, usize), Malformed> {
    let w0 = *words.first().ok_or(Malformed::Short)?;
    let kind = Kind::of(w0).ok_or(Malformed::Unknown)?;
    let mut length = kind.words();
    if words.len() < length {
        return Err(Malformed::Short);
    }
    let value = w0 & VALUE_MASK;
    let detail = (w0 >> 48) as u8;
    let domain = || Domain::of(detail).ok_or(Malformed::Unknown);
    let event = match kind {
        Kind::Alloc => Event::Alloc {
            address: value,
            domain: domain()?,
            size: words[2] >> 32,
            stack: words[2] as u32,
        },
        Kind::AllocLarge => Event::Alloc {
            address: value,
            domain: domain()?,
            size: words[3],
            stack: words[2] as u32,
        },
        Kind::Free => Event::Free {
            address: value,
            domain: domain()?,
        },
        Kind::ReallocStart => Event::ReallocStart { address: value },
        Kind::ReallocEnd => Event::ReallocEnd {
            address: value,
            domain: domain()?,
            size: words[2] >> 32,
            stack: words[2] as u32,
        },
        Kind::ReallocEndLarge => Event::ReallocEnd {
            address: value,
            domain: domain()?,
            size: words[3],
            stack: words[2] as u32,
        },
        Kind::ReallocFail => Event::ReallocFail { address: value },
        Kind::Map => Event::Map {
            address: value,
            length: words[3],
            stack: words[2] as u32,
        },
        Kind::Unmap => Event::Unmap {
            address: value,
            length: words[2],
        },
        Kind::Remap => Event::Remap {
            address: value,
            length: words[3],
            stack: words[2] as u32,
            old_address: words[4],
            old_length: words[5],
            began: words[6],
        },
        Kind::Thread => {
            let mut name = [0; 16];
            name[..8].copy_from_slice(&words[2].to_le_bytes());
            name[8..].copy_from_slice(&words[3].to_le_bytes());
            Event::Thread {
                tid: value as u32,
                name,
            }
        }
        Kind::Loss => Event::Loss { events: value },
        Kind::Blob => {
            let bytes = words[3];
            if bytes > (words.len() as u64) * 8 {
                return Err(Malformed::Short);
            }
            let data = (bytes as usize).div_ceil(8);
            let end = length + data;
            if words.len() < end {
                return Err(Malformed::Short);
            }
            let blob = Event::Blob {
                kind: detail,
                id: value as u32,
                total: (words[2] >> 32) as u32,
                offset: words[2] as u32,
                length: bytes as u32,
                words: &words[length..end],
            };
            length = end;
            blob
        }
        Kind::Fork => Event::Fork {
            sequence: value as u32,
            is_for_graph: detail & FOR_GRAPH != 0,
        },
        Kind::Mark => Event::Mark { kind: detail },
        Kind::Reborn => Event::Reborn {
            address: value,
            stack: words[2] as u32,
        },
        Kind::Sample => Event::Sample {
            address: value,
            domain: domain()?,
            size: words[3],
            stack: words[2] as u32,
            mean: words[4],
        },
        Kind::SampleFree => Event::SampleFree {
            address: value,
            is_temporary: detail & IS_TEMPORARY != 0,
            is_unsure: detail & IS_UNSURE != 0,
        },
        Kind::ReallocGone => Event::ReallocGone {
            address: value,
            is_unsure: detail & IS_UNSURE != 0,
        },
    };
    Ok((words[1], event, length))
}

/// Word 0 of an event.
pub const fn head(kind: Kind, detail: u8, value: u64) -> u64 {
    (kind as u64) << 56 | (detail as u64) << 48 | (value & VALUE_MASK)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a target writes, decoding ends within the words given.
        #[test]
        fn decoding_never_reads_beyond(words in prop::collection::vec(any::<u64>(), 0..12)) {
            if let Ok((_, _, length)) = decode(&words) {
                prop_assert!(length >= 2 && length <= words.len());
            }
        }

        #[test]
        fn births_come_back(address in 0u64..=VALUE_MASK, size: u32, stack: u32, stamp: u64) {
            let words = [
                head(Kind::Alloc, Domain::Obj as u8, address),
                stamp,
                u64::from(size) << 32 | u64::from(stack),
            ];
            let expected = Event::Alloc { address, domain: Domain::Obj, size: size.into(), stack };
            prop_assert_eq!(decode(&words), Ok((stamp, expected, 3)));
        }
    }
}
