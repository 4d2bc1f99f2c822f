//! The bytes of a file: its header, and the headers of its chunks.
//!
//! All numbers are little endian. docs/format.md is the full description;
//! whoever changes a line here changes it there.

use crate::ids::Ids;
use crate::record::{Counters, Point};
use serde::{Deserialize, Serialize};

/// Format version: a reader refuses a newer major one. A minor one adds record
/// kinds and chunk kinds, which older readers skip and count, and fields at
/// the end of records, which older readers do not see.
pub(crate) const MAJOR: u16 = 2;
/// See [`MAJOR`].
pub(crate) const MINOR: u16 = 8;

/// Begins a file. As in PNG, the first byte is no text and the rest shows what
/// a transfer in text mode would break.
pub(crate) const FILE_MAGIC: [u8; 8] = *b"\x8bLKLN\r\n\x1a";
/// Bytes of the file's header.
pub(crate) const FILE_HEADER_BYTES: usize = 32;

/// Begins a chunk.
pub(crate) const CHUNK_MAGIC: [u8; 8] = *b"\xb7chunk\r\n";
/// Bytes of a chunk's header.
pub(crate) const CHUNK_HEADER_BYTES: usize = 64;

/// Most bytes that a chunk of one record may unpack to, whatever its header
/// says. Decoded, a record takes up to 28 times its bytes.
pub(crate) const MAX_CONTENT_BYTES: usize = 32 << 20;
/// Most bytes that any other chunk may unpack to: many small records take up
/// to 50 times their bytes.
pub(crate) const MAX_SHARED_BYTES: usize = 4 << 20;
/// Most bytes of a chunk's payload: zstd adds less than this to what it cannot
/// compress.
pub(crate) const MAX_PAYLOAD_BYTES: usize = MAX_CONTENT_BYTES + (1 << 20);

/// The chunk holds records.
pub(crate) const KIND_RECORDS: u8 = 1;
/// The chunk holds a [`Restatement`].
pub(crate) const KIND_RESTATEMENT: u8 = 2;

/// Flag: the writer had to drop records that belong just before this chunk.
pub(crate) const FLAG_DROPPED: u8 = 1;

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// Where the first chunk begins.
    pub(crate) header_bytes: u32,
    /// Bits that a reader must know to read the file; none exist yet.
    pub(crate) required: u64,
    /// Its checksum is right.
    pub(crate) intact: bool,
}

impl FileHeader {
    /// The header that this version writes.
    pub(crate) fn encode() -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        bytes[10..12].copy_from_slice(&MINOR.to_le_bytes());
        bytes[12..16].copy_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
        // 16..24: required features, 24..28: reserved; both 0.
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header, `None` when the bytes begin no recording.
    pub(crate) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Option<Self> {
        if bytes[..8] != FILE_MAGIC {
            return None;
        }
        Some(FileHeader {
            major: u16::from_le_bytes([bytes[8], bytes[9]]),
            minor: u16::from_le_bytes([bytes[10], bytes[11]]),
            header_bytes: u32_at(bytes, 12),
            required: u64_at(bytes, 16),
            intact: crc32fast::hash(&bytes[..28]) == u32_at(bytes, 28),
        })
    }
}

/// What a chunk's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Bytes that follow the header.
    pub(crate) payload_bytes: u32,
    /// Bytes that they unpack to.
    pub(crate) content_bytes: u32,
    /// CRC-32 of the payload.
    pub(crate) checksum: u32,
    /// Counts the chunks of a file from 0.
    pub(crate) sequence: u64,
    /// Records in the chunk.
    pub(crate) records: u32,
    /// Ids given out before this chunk.
    pub(crate) base: Ids,
}

impl ChunkHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..8].copy_from_slice(&CHUNK_MAGIC);
        bytes[8] = self.kind;
        bytes[9] = self.flags;
        // 10..12: reserved, 0.
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.content_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.records.to_le_bytes());
        for (place, count) in bytes[36..60].chunks_exact_mut(4).zip(self.base.to_array()) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header, `None` when the bytes are none or damaged.
    ///
    /// The lengths of a header that is returned are within the format's limits.
    pub(crate) fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Option<Self> {
        if bytes[..8] != CHUNK_MAGIC || crc32fast::hash(&bytes[..60]) != u32_at(bytes, 60) {
            return None;
        }
        let header = ChunkHeader {
            kind: bytes[8],
            flags: bytes[9],
            payload_bytes: u32_at(bytes, 12),
            content_bytes: u32_at(bytes, 16),
            checksum: u32_at(bytes, 20),
            sequence: u64_at(bytes, 24),
            records: u32_at(bytes, 32),
            base: Ids::from_array([
                u32_at(bytes, 36),
                u32_at(bytes, 40),
                u32_at(bytes, 44),
                u32_at(bytes, 48),
                u32_at(bytes, 52),
                u32_at(bytes, 56),
            ]),
        };
        let most = if header.kind == KIND_RECORDS && header.records > 1 {
            MAX_SHARED_BYTES
        } else {
            MAX_CONTENT_BYTES
        };
        (header.payload_bytes as usize <= MAX_PAYLOAD_BYTES
            && header.content_bytes as usize <= most)
            .then_some(header)
    }

    /// Bytes of the whole chunk.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        CHUNK_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }
}

/// Content of a [`KIND_RESTATEMENT`] chunk: where the sites of processes stand
/// that may still move them, so that a reader that lost points is right again
/// from here on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restatement {
    /// End of the last bin before.
    pub(crate) end_ns: u64,
    /// That bin's `live_bytes`.
    pub(crate) live_bytes: u64,
    /// That bin's `live_blocks`.
    pub(crate) live_blocks: u64,
    /// Ids of those processes, rising. The sites of others stand where they
    /// did when their process was over.
    pub(crate) processes: Vec<u32>,
    /// Counters of their sites by id, rising; one left out stands at 0.
    #[serde(with = "crate::packed::counters")]
    pub(crate) sites: Vec<(u32, Counters)>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Appends a length as postcard does: seven bits a byte, low ones first.
pub(crate) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Splits the first framed record off: its bytes, and what follows.
pub(crate) fn split_record(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for (i, &byte) in content.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return content[i + 1..].split_at_checked(length);
        }
    }
    None
}

/// Adds a point to a site's counters.
pub(crate) fn advance(counters: &mut Counters, point: &Point) {
    let add = |counter: &mut u64, change: i64| *counter = counter.wrapping_add_signed(change);
    add(&mut counters.live_bytes, point.live_bytes);
    add(&mut counters.live_blocks, point.live_blocks);
    add(&mut counters.total_bytes, point.total_bytes);
    add(&mut counters.total_blocks, point.total_blocks);
    add(&mut counters.temporary_blocks, point.temporary_blocks);
    add(&mut counters.resizes, point.resizes);
}

/// The way from one state of a site to another.
pub(crate) fn difference(site: u32, from: &Counters, to: &Counters) -> Point {
    let change = |from: u64, to: u64| to.wrapping_sub(from) as i64;
    Point {
        site,
        live_bytes: change(from.live_bytes, to.live_bytes),
        live_blocks: change(from.live_blocks, to.live_blocks),
        total_bytes: change(from.total_bytes, to.total_bytes),
        total_blocks: change(from.total_blocks, to.total_blocks),
        temporary_blocks: change(from.temporary_blocks, to.temporary_blocks),
        resizes: change(from.resizes, to.resizes),
    }
}
