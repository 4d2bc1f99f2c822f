//! The reading end of a ring: a chain of chunks in shared memory.
//!
//! # Invariants
//!
//! * Words are copied out of shared memory, once, before anything looks at
//!   them; what is decoded cannot change any more.
//! * A chunk goes back to the pool when all of it was copied and its producer
//!   has gone on to the next: nobody writes to it then.
//! * Whatever is not as the producers' code leaves it makes the ring
//!   *quarantined*: it is never read again.

use leakline_wire::layout::CHUNK_WORDS;
use leakline_wire::sync::Ordering;
use leakline_wire::{Kind, event};

use crate::live::Block;
use crate::session::{Pool, SessionMap};

/// A ring that is not as producers write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Position in a ring.
#[derive(Debug)]
pub(crate) struct Cursor {
    slot: u32,
    chunk: u32,
    sequence: u32,
    /// Words copied out of the chunk.
    copied: u32,
    /// The chunk is back in the pool, or another's: there is none to read.
    is_closed: bool,
    /// Copied words.
    words: Vec<u64>,
    /// The next event.
    at: usize,
    /// The next event to look ahead at.
    ahead: usize,
    /// Events from `at` to `ahead`.
    lead: u32,
}

/// How many events ahead memory is fetched.
const LOOK_AHEAD: u32 = 16;

impl Cursor {
    /// Opens a ring at its first chunk.
    pub(crate) fn open(
        session: &SessionMap,
        pool: &mut Pool,
        slot: u32,
        chunk: u32,
    ) -> Result<Self, Malformed> {
        let cursor = Cursor {
            slot,
            chunk,
            sequence: 0,
            copied: 0,
            is_closed: false,
            words: Vec::new(),
            at: 0,
            ahead: 0,
            lead: 0,
        };
        cursor.enter(session, pool)?;
        Ok(cursor)
    }

    /// Checks the chunk that the cursor has come to and takes it.
    fn enter(&self, session: &SessionMap, pool: &mut Pool) -> Result<(), Malformed> {
        let header = session.chunk_header(self.chunk).ok_or(Malformed)?;
        let is_ours = header.slot.load(Ordering::Relaxed) == self.slot
            && header.sequence.load(Ordering::Relaxed) == self.sequence;
        if is_ours && pool.take(session, self.chunk) {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    /// The copied words from the next event on.
    #[inline]
    pub(crate) fn words(&self) -> &[u64] {
        self.words.get(self.at..).unwrap_or_default()
    }

    /// Goes past an event of `length` words.
    #[inline]
    pub(crate) fn advance(&mut self, length: usize) {
        self.at += length;
        if self.lead > 0 {
            self.lead -= 1;
        } else {
            self.ahead = self.at;
        }
    }

    /// Whether all that was copied was consumed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.words.len()
    }

    /// The stamp of the next event.
    #[inline]
    pub(crate) fn stamp(&self) -> Option<u64> {
        self.words.get(self.at + 1).copied()
    }

    /// Calls `touch` with the addresses of events that come up.
    #[inline]
    pub(crate) fn look_ahead(&mut self, mut touch: impl FnMut(u64)) {
        // At most two a call: the lead builds up without a hitch.
        for _ in 0..2 {
            if self.lead >= LOOK_AHEAD {
                return;
            }
            let Some(&head) = self.words.get(self.ahead) else {
                return;
            };
            let Some(kind) = Kind::of(head) else {
                return;
            };
            let mut length = kind.words();
            match kind {
                Kind::Alloc
                | Kind::AllocLarge
                | Kind::Free
                | Kind::ReallocStart
                | Kind::ReallocEnd
                | Kind::Reborn
                | Kind::Sample
                | Kind::SampleFree => touch(head & event::VALUE_MASK),
                Kind::Blob => {
                    let bytes = self.words.get(self.ahead + 3).copied().unwrap_or(0);
                    length += (bytes as usize).min(CHUNK_WORDS * 8).div_ceil(8);
                }
                _ => {}
            }
            self.ahead += length;
            self.lead += 1;
        }
    }

    /// Copies what was published since. False when there is nothing.
    ///
    /// To be called when all that was copied is consumed.
    pub(crate) fn refill(
        &mut self,
        session: &SessionMap,
        pool: &mut Pool,
    ) -> Result<bool, Malformed> {
        if self.is_closed {
            return Ok(false);
        }
        loop {
            let header = session.chunk_header(self.chunk).ok_or(Malformed)?;
            // `next` before `committed`: it is stored after the last event of
            // the chunk was committed, so if it is there, what is read next
            // is all. Both Acquires pair with the producer's Releases.
            let next = header.next.load(Ordering::Acquire);
            let committed = header.committed.load(Ordering::Acquire);
            if committed < self.copied || committed as usize > CHUNK_WORDS {
                return Err(Malformed);
            }
            let has_more = committed > self.copied;
            if has_more {
                self.words.clear();
                self.at = 0;
                self.ahead = 0;
                self.lead = 0;
                session.copy_words(self.chunk, self.copied, committed, &mut self.words);
                self.copied = committed;
            }
            if let Some(next) = next.checked_sub(1) {
                pool.give_back(session, self.chunk);
                self.chunk = next;
                self.sequence = self.sequence.wrapping_add(1);
                self.copied = 0;
                if self.enter(session, pool).is_err() {
                    self.is_closed = true;
                    return if has_more { Ok(true) } else { Err(Malformed) };
                }
            }
            if has_more {
                return Ok(true);
            }
            if next == 0 {
                return Ok(false);
            }
        }
    }

    /// Gives up the buffer of copied words, if it holds nothing any more.
    pub(crate) fn release_buffer(&mut self) {
        if self.is_empty() {
            self.words = Vec::new();
            self.at = 0;
            self.ahead = 0;
            self.lead = 0;
        }
    }

    /// Puts the chunks of a dead process's ring back.
    pub(crate) fn close(&mut self, session: &SessionMap, pool: &mut Pool) {
        while !self.is_closed {
            let next = session.chunk_header(self.chunk).map_or(0, |header| {
                // Relaxed: nobody writes any more.
                header.next.load(Ordering::Relaxed)
            });
            pool.give_back(session, self.chunk);
            match next.checked_sub(1) {
                Some(next) => {
                    self.chunk = next;
                    self.sequence = self.sequence.wrapping_add(1);
                    self.is_closed = self.enter(session, pool).is_err();
                }
                None => self.is_closed = true,
            }
        }
    }
}

/// A definition that arrives in pieces.
#[derive(Debug)]
pub(crate) struct Assembly {
    kind: u8,
    id: u32,
    total: usize,
    bytes: Vec<u8>,
}

/// Most bytes of a definition.
const MAX_BLOB_BYTES: u32 = 4 << 20;

/// What was learned from a ring so far.
#[derive(Debug)]
pub(crate) struct RingState {
    /// Id of the thread whose events these are; `u32::MAX` before it said.
    pub(crate) thread: u32,
    /// The block whose realloc was begun, if it was known.
    pub(crate) realloc: Option<(u64, Option<Block>)>,
    /// Addresses of the thread's latest births, newest at `latest`.
    recent: Box<[u64]>,
    latest: usize,
    assembly: Option<Assembly>,
}

impl RingState {
    pub(crate) fn new(temporary_window: u32) -> Self {
        RingState {
            thread: u32::MAX,
            realloc: None,
            recent: vec![0; temporary_window.clamp(1, 64) as usize].into(),
            latest: 0,
            assembly: None,
        }
    }

    /// Notes a birth.
    #[inline]
    pub(crate) fn remember(&mut self, address: u64) {
        self.latest += 1;
        if self.latest >= self.recent.len() {
            self.latest = 0;
        }
        self.recent[self.latest] = address;
    }

    /// Forgets a birth: its block is not temporary.
    pub(crate) fn forget(&mut self, address: u64) {
        for recent in &mut self.recent {
            if *recent == address {
                *recent = 0;
            }
        }
    }

    /// Whether the block that now dies at `address` by this ring is one of
    /// its latest births: temporary.
    #[inline]
    pub(crate) fn is_temporary(&mut self, address: u64, block: &Block) -> bool {
        if block.thread != self.thread {
            return false;
        }
        match self.recent.iter_mut().find(|recent| **recent == address) {
            Some(recent) => {
                *recent = 0;
                true
            }
            None => false,
        }
    }

    /// Takes a piece of a definition; gives the whole once it is complete.
    pub(crate) fn assemble(
        &mut self,
        piece: &event::Event<'_>,
    ) -> Result<Option<(u8, u32, Vec<u8>)>, Malformed> {
        let event::Event::Blob {
            kind,
            id,
            total,
            offset,
            length,
            words,
        } = *piece
        else {
            return Err(Malformed);
        };
        if total > MAX_BLOB_BYTES {
            return Err(Malformed);
        }
        if offset == 0 {
            self.assembly = Some(Assembly {
                kind,
                id,
                total: total as usize,
                bytes: Vec::new(),
            });
        }
        let Some(assembly) = &mut self.assembly else {
            // The first piece was lost.
            return Ok(None);
        };
        let fits = assembly.kind == kind
            && assembly.id == id
            && assembly.total == total as usize
            && assembly.bytes.len() == offset as usize
            && assembly.bytes.len() + length as usize <= assembly.total;
        if !fits {
            self.assembly = None;
            return Ok(None);
        }
        let end = assembly.bytes.len() + length as usize;
        assembly
            .bytes
            .extend(words.iter().flat_map(|word| word.to_le_bytes()));
        assembly.bytes.truncate(end);
        if assembly.bytes.len() < assembly.total {
            return Ok(None);
        }
        Ok(self
            .assembly
            .take()
            .map(|whole| (whole.kind, whole.id, whole.bytes)))
    }
}
