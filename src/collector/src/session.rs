//! The session's shared map and its pool of chunks.
//!
//! # Invariants
//!
//! * The map is longer than the memfd, which grows as chunks are handed out and
//!   is sealed against shrinking. [`SessionMap::extend`] alone makes it longer,
//!   and notes how far: no access to one of those chunks can be a SIGBUS. Nor
//!   can a target's, which has all chunk numbers from the free list: they come
//!   there after their memory. (A program that locks its memory populates all
//!   of the map that is backed: with the whole length of the memfd, 576 MiB.)
//! * Every reference handed out covers words that are all atomic (padding is
//!   never touched), so that a target may write to them at any time.
//! * A chunk goes to the free list only when [`Pool`] has it down as taken by
//!   a ring: a target that names a chunk twice cannot have it handed out
//!   twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use leakline_wire::layout::{
    self, CHUNK_BYTES, CHUNK_COUNT, CHUNK_HEADER_BYTES, CHUNK_WORDS, CHUNKS_OFFSET, ChunkHeader,
    Header, MAP_BYTES, NEXT_TABLE_OFFSET, SLOT_BYTES, SLOT_COUNT, SLOTS_OFFSET, Slot,
};
use leakline_wire::mapped;
use leakline_wire::pool::FreeList;
use leakline_wire::sync::{AtomicU32, AtomicU64, Ordering};
use leakline_wire::trie::{NODES_PER_BLOCK, Node};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::process::{Resource, Rlimit};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SessionError {
    /// No memfd.
    #[error("cannot create shared memory: {0}")]
    Create(#[source] io::Error),
    /// The file size limit covers memfds too.
    #[error(
        "the file size limit (`ulimit -f`) allows {allowed} KiB, \
         and shared memory needs {needed} KiB"
    )]
    FileSizeLimit {
        /// Under the limit.
        allowed: u64,
        /// At least.
        needed: u64,
    },
    /// No pages for what must be there from the start.
    #[error("cannot reserve {bytes} bytes of shared memory: {source}")]
    Reserve {
        /// How many.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// No address space.
    #[error("cannot map {mib} MiB of shared memory (see `ulimit -v`): {source}")]
    Map {
        /// How much.
        mib: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// The map of a session.
#[derive(Debug)]
pub(crate) struct SessionMap {
    map: MmapRaw,
    memfd: File,
    /// Chunks that fit under the file size limit.
    chunks: u32,
    /// Chunks that the memfd is long enough for. Written by the drain loop.
    backed: AtomicU32,
    /// The drain loop is at something long, see [`while_busy`].
    busy: AtomicBool,
    /// Processes that were gone from the door before they were let in.
    unanswered: Mutex<BTreeSet<i32>>,
}

/// Chunks that a session has at least, or is refused.
const LEAST_CHUNKS: u32 = 32;

impl SessionMap {
    /// Creates the shared memory, empty but for the header's first words.
    pub(crate) fn create() -> Result<Self, SessionError> {
        let length = length_allowed()?;
        let memfd = rustix::fs::memfd_create(
            mapped::SESSION,
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map_err(|error| SessionError::Create(error.into()))?;
        rustix::fs::ftruncate(&memfd, CHUNKS_OFFSET as u64)
            .map_err(|error| SessionError::Create(error.into()))?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::SEAL)
            .map_err(|error| SessionError::Create(error.into()))?;
        let memfd = File::from(memfd);
        let map = MmapOptions::new()
            .len(length as usize)
            .map_raw(&memfd)
            .map_err(|source| SessionError::Map {
                mib: length >> 20,
                source,
            })?;
        let chunks = ((length as usize - CHUNKS_OFFSET) / CHUNK_BYTES) as u32;
        let session = SessionMap {
            map,
            memfd,
            chunks,
            backed: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            unanswered: Mutex::default(),
        };
        // Whatever producers touch exists beforehand: a page that cannot be
        // had would be a SIGBUS in them.
        session.reserve(0, NEXT_TABLE_OFFSET + CHUNK_COUNT * size_of::<u32>())?;
        let header = session.header();
        header.magic.store(layout::MAGIC, Ordering::Relaxed);
        header.version.store(layout::VERSION, Ordering::Relaxed);
        Ok(session)
    }

    /// Has the kernel set pages aside, charged to us.
    fn reserve(&self, offset: usize, length: usize) -> Result<(), SessionError> {
        rustix::fs::fallocate(
            &self.memfd,
            FallocateFlags::empty(),
            offset as u64,
            length as u64,
        )
        .map_err(|source| SessionError::Reserve {
            bytes: length as u64,
            source: source.into(),
        })
    }

    /// Has pages set aside for a slot.
    pub(crate) fn reserve_slot(&self, index: u32) -> Result<(), SessionError> {
        self.reserve(layout::slot_offset(index), SLOT_BYTES)
    }

    /// Has there be `count` more chunks, and gives the first of them.
    fn extend(&self, count: u32) -> Result<u32, SessionError> {
        let first = self.backed();
        self.reserve(layout::chunk_offset(first), count as usize * CHUNK_BYTES)?;
        self.backed.store(first + count, Ordering::Relaxed);
        Ok(first)
    }

    /// Chunks that there are, below [`SessionMap::chunks`].
    fn backed(&self) -> u32 {
        self.backed.load(Ordering::Relaxed)
    }

    /// The descriptor that targets get.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// A process, by its pid, did not wait any longer to be let in; or it was let in, at
    /// another attempt maybe.
    pub(crate) fn note_answer(&self, pid: i32, is_there: bool) {
        let mut unanswered = self.lock_unanswered();
        if is_there {
            unanswered.remove(&pid);
        } else {
            unanswered.insert(pid);
        }
    }

    /// How many did not wait, and did not come again.
    pub(crate) fn unanswered(&self) -> u32 {
        self.lock_unanswered().len() as u32
    }

    fn lock_unanswered(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Chunks that there can be.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// The control words.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the map begins with a header's bytes, page-aligned, and
        // lives as long as `self`; its words are atomic.
        unsafe { &*self.map.as_ptr().cast() }
    }

    /// A process's words.
    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        if index as usize >= SLOT_COUNT {
            return None;
        }
        // SAFETY: all slots lie below the chunks, which the map covers
        // (`length_allowed`) and the memfd from the start (`create`), at
        // multiples of their 64 KiB; words are atomic.
        Some(unsafe { &*self.map.as_ptr().add(layout::slot_offset(index)).cast() })
    }

    /// What a ring chunk begins with.
    pub(crate) fn chunk_header(&self, index: u32) -> Option<&ChunkHeader> {
        if index >= self.backed() {
            return None;
        }
        // SAFETY: chunk `index` lies in the map and the memfd, aligned to its
        // 16 KiB; words are atomic.
        Some(unsafe { &*self.map.as_ptr().add(layout::chunk_offset(index)).cast() })
    }

    /// The event words of a ring chunk.
    pub(crate) fn words(&self, index: u32) -> Option<&[AtomicU64; CHUNK_WORDS]> {
        if index >= self.backed() {
            return None;
        }
        let offset = layout::chunk_offset(index) + CHUNK_HEADER_BYTES;
        // SAFETY: these are the bytes of chunk `index` behind its header, up
        // to its end, in the map and the memfd, and aligned to eight.
        Some(unsafe { &*self.map.as_ptr().add(offset).cast() })
    }

    /// Copies the words `from..to` of a ring chunk behind those of `out`. The
    /// caller has seen them published (Acquire).
    pub(crate) fn copy_words(&self, index: u32, from: u32, to: u32, out: &mut Vec<u64>) {
        if let Some(words) = self.words(index)
            && let Some(published) = words.get(from as usize..to as usize)
        {
            out.extend(published.iter().map(|word| word.load(Ordering::Relaxed)));
        }
    }

    /// A trie node of the process in `slot`.
    pub(crate) fn node(&self, slot: &Slot, id: u32) -> Option<&Node> {
        let block = slot.trie.get(id as usize / NODES_PER_BLOCK)?;
        // Acquire pairs with the producer's Release: a block is in the
        // directory before a node of it is named.
        let chunk = block.load(Ordering::Acquire).checked_sub(1)?;
        if chunk >= self.backed() {
            return None;
        }
        let offset =
            layout::chunk_offset(chunk) + id as usize % NODES_PER_BLOCK * size_of::<Node>();
        // SAFETY: a node's bytes within chunk `chunk` of the map and the memfd,
        // aligned to their size of 32; words are atomic.
        Some(unsafe { &*self.map.as_ptr().add(offset).cast() })
    }

    /// The free list of chunks.
    pub(crate) fn free_list(&self) -> FreeList<'_> {
        let header = self.header();
        // SAFETY: the table of links lies between the header and the slots,
        // page-aligned; its words are atomic.
        let next: &[AtomicU32; CHUNK_COUNT] =
            unsafe { &*self.map.as_ptr().add(NEXT_TABLE_OFFSET).cast() };
        FreeList {
            head: &header.free_head,
            next,
            count: &header.free_count,
        }
    }
}

/// How long the memfd may be, by RLIMIT_FSIZE: that limit covers memfds.
fn length_allowed() -> Result<u64, SessionError> {
    let limit = rustix::process::getrlimit(Resource::Fsize);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = if limit.current == limit.maximum {
        limit.current
    } else if rustix::process::setrlimit(Resource::Fsize, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    let least = (CHUNKS_OFFSET + LEAST_CHUNKS as usize * CHUNK_BYTES) as u64;
    match allowed {
        Some(allowed) if allowed < least => Err(SessionError::FileSizeLimit {
            allowed: allowed / 1024,
            needed: least / 1024,
        }),
        Some(allowed) if allowed < MAP_BYTES as u64 => {
            Ok(allowed - (allowed - CHUNKS_OFFSET as u64) % CHUNK_BYTES as u64)
        }
        _ => Ok(MAP_BYTES as u64),
    }
}

const _: () = assert!(SLOTS_OFFSET + SLOT_COUNT * SLOT_BYTES <= CHUNKS_OFFSET);

/// Chunks reserved and handed over at a time.
const STEP: u32 = 64;
/// Chunks that a session begins with: what a busy thread fills in the few
/// milliseconds that an idle collector may sleep.
const FIRST: u32 = 256;
/// Below this many free chunks the pool grows, if it may.
const LOW: u32 = 96;

/// The collector's view of who has which chunk.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Most ring chunks at once, those being written to aside.
    ring_limit: u32,
    /// Chunks that known rings hold, by index.
    taken: Vec<bool>,
    /// No more could be reserved: why.
    exhausted: Option<String>,
}

impl Pool {
    /// Hands the first chunks over.
    ///
    /// # Errors
    ///
    /// Not even those could be reserved.
    pub(crate) fn new(session: &SessionMap, ring_bytes: u64) -> Result<Self, SessionError> {
        let ring_limit = u32::try_from(ring_bytes / CHUNK_BYTES as u64).unwrap_or(u32::MAX);
        let pool = Pool {
            ring_limit: ring_limit.max(LEAST_CHUNKS),
            taken: vec![false; session.chunks() as usize],
            exhausted: None,
        };
        let first = FIRST.min(pool.ring_limit).min(session.chunks());
        Self::feed(session, first)?;
        Ok(pool)
    }

    fn feed(session: &SessionMap, count: u32) -> Result<(), SessionError> {
        let count = count.min(session.chunks() - session.backed());
        if count == 0 {
            return Ok(());
        }
        let first = session.extend(count)?;
        let list = session.free_list();
        // From the top, so that the lowest is handed out first.
        for index in (first..first + count).rev() {
            list.push(index);
        }
        show_progress(session);
        wake_waiters(session);
        Ok(())
    }

    /// Free chunks, as far as the shared count can be believed.
    fn free(session: &SessionMap) -> u32 {
        let free = session.header().free_count.load(Ordering::Relaxed);
        // Producers count down after they took: it may be below zero for an
        // instant.
        if free > session.backed() { 0 } else { free }
    }

    /// Hands more chunks over when few are left. Those that are `held` do not
    /// count as rings: trie blocks, and of each ring the chunk that it writes
    /// to, which no draining brings back. Returns why none could be had, once.
    pub(crate) fn keep_fed(
        &mut self,
        session: &SessionMap,
        held: impl FnOnce() -> u32,
    ) -> Option<String> {
        let (free, given) = (Self::free(session), session.backed());
        if free >= LOW || given == session.chunks() || self.exhausted.is_some() {
            return None;
        }
        let limit = self.ring_limit.saturating_add(held());
        if given >= limit {
            return None;
        }
        let error = Self::feed(session, STEP.min(limit - given)).err()?;
        let text = format!("{error}; going on with {} KiB of rings", given * 16);
        self.exhausted = Some(text.clone());
        Some(text)
    }

    /// Notes that a ring holds `index`. False when that cannot be: it is out
    /// of range or another ring's.
    #[must_use]
    pub(crate) fn take(&mut self, session: &SessionMap, index: u32) -> bool {
        index < session.backed()
            && self
                .taken
                .get_mut(index as usize)
                .is_some_and(|taken| !std::mem::replace(taken, true))
    }

    /// Puts a ring's chunk back into the free list.
    pub(crate) fn give_back(&mut self, session: &SessionMap, index: u32) {
        if let Some(taken) = self.taken.get_mut(index as usize)
            && std::mem::replace(taken, false)
        {
            session.free_list().push(index);
            show_progress(session);
            wake_waiters(session);
        }
    }

    /// Puts a dead process's trie block back.
    pub(crate) fn give_back_block(&mut self, session: &SessionMap, index: u32) {
        // One that a ring holds as well was named by nonsense.
        if index < session.backed() && self.taken.get(index as usize) == Some(&false) {
            session.free_list().push(index);
        }
    }
}

/// Wakes threads that wait for a chunk.
fn wake_waiters(session: &SessionMap) {
    let header = session.header();
    // SeqCst on both sides (a waiter counts itself, reads `wake`, then looks
    // at the list; we push, then read `waiters`): either it sees the chunk or
    // we see the waiter. The list's exchange is a full barrier on x86-64; the
    // fence makes it one everywhere.
    std::sync::atomic::fence(Ordering::SeqCst);
    if header.waiters.load(Ordering::SeqCst) != 0 {
        header.wake.fetch_add(1, Ordering::SeqCst);
        // A futex wake on a mapped word cannot fail in a way that matters: a
        // waiter looks again every 5 ms by itself.
        let _ = rustix::thread::futex::wake(
            &header.wake,
            rustix::thread::futex::Flags::empty(),
            i32::MAX.cast_unsigned(),
        );
    }
}

/// Tells waiting producers that it is worth waiting: a chunk was freed or
/// added, or the collector is at something long. Not that it only looked: with
/// nothing to free they would wait for ever.
fn show_progress(session: &SessionMap) {
    session.header().progress.fetch_add(1, Ordering::Relaxed);
}

/// Does what keeps the collector from its rings, perhaps for longer than a
/// waiting producer believes in it: [`heartbeat`] speaks for it meanwhile.
pub(crate) fn while_busy<T>(session: &SessionMap, work: impl FnOnce() -> T) -> T {
    session.busy.store(true, Ordering::Relaxed);
    let result = work();
    session.busy.store(false, Ordering::Relaxed);
    result
}

/// Shows that the collector lives, and progress while it is busy, until the
/// session is gone. A stopped or killed collector's heart stops with it.
pub(crate) fn heartbeat(session: &Weak<SessionMap>) {
    while let Some(session) = session.upgrade() {
        session.header().beats.fetch_add(1, Ordering::Relaxed);
        if session.busy.load(Ordering::Relaxed) {
            show_progress(&session);
        }
        drop(session);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits the size of files of this test's process.
    fn limit_file_size(bytes: u64) {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        rustix::process::setrlimit(Resource::Fsize, limit).unwrap();
    }

    #[test]
    fn a_tight_file_size_limit_is_refused_in_words() {
        limit_file_size(1 << 20);
        let error = SessionMap::create().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file size limit (`ulimit -f`) allows 1024 KiB, \
             and shared memory needs 66048 KiB"
        );
    }

    #[test]
    fn a_looser_one_makes_a_smaller_session() {
        limit_file_size(100 << 20);
        let session = SessionMap::create().unwrap();
        assert_eq!(session.chunks(), (36 << 20) / CHUNK_BYTES as u32);
        assert!(session.chunk_header(session.chunks()).is_none());
        Pool::new(&session, u64::MAX).unwrap();
        assert_eq!(Pool::free(&session), FIRST);
    }

    /// A program that locks its memory had all of it made resident.
    #[test]
    fn the_memfd_is_as_long_as_its_chunks_take() {
        let session = SessionMap::create().unwrap();
        let length = || session.memfd.metadata().unwrap().len();
        assert_eq!(length(), CHUNKS_OFFSET as u64);
        assert!(session.chunk_header(0).is_none());
        let mut pool = Pool::new(&session, 1 << 30).unwrap();
        assert_eq!(length(), layout::chunk_offset(FIRST) as u64);
        while Pool::free(&session) > 0 {
            session.free_list().pop();
        }
        assert_eq!(pool.keep_fed(&session, || 0), None);
        let there = FIRST + STEP;
        assert_eq!(length(), layout::chunk_offset(there) as u64);
        // Zeros, if it is there to be read.
        assert_eq!(
            session.words(there - 1).unwrap()[0].load(Ordering::Relaxed),
            0
        );
        // What a target could name.
        assert!(session.chunk_header(there).is_none());
        assert!(session.words(there).is_none());
        session.slot(0).unwrap().trie[0].store(there + 1, Ordering::Relaxed);
        assert!(session.node(session.slot(0).unwrap(), 1).is_none());
    }

    #[test]
    fn chunks_are_taken_and_given_back_once() {
        let session = SessionMap::create().unwrap();
        let mut pool = Pool::new(&session, 1 << 20).unwrap();
        let chunk = session.free_list().pop().unwrap();
        assert!(pool.take(&session, chunk));
        assert!(!pool.take(&session, chunk), "it is another ring's");
        assert!(
            !pool.take(&session, session.chunks()),
            "there is no such chunk"
        );
        let free = Pool::free(&session);
        pool.give_back(&session, chunk);
        pool.give_back(&session, chunk);
        assert_eq!(Pool::free(&session), free + 1);
    }
}
