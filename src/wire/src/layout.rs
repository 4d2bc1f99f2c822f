//! Where things lie in the session map, and the words of its control part.

use crate::sync::{AtomicU32, AtomicU64};

/// First eight bytes of a session map: `leakline` in ASCII, little endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"leakline");

/// Version of everything in this crate. A process whose interposer was built
/// from another version is refused at the handshake.
pub const VERSION: u32 = 8;

/// Size of a chunk in bytes: a piece of a ring, or a block of trie nodes.
///
/// Small enough that the two or three chunks a keeping-up collector cycles
/// through stay in the second-level cache, and that ten thousand idle threads
/// fit in the pool.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Most chunks a session can have (512 MiB; pages come into being on use).
pub const CHUNK_COUNT: usize = 32 * 1024;
/// Bytes of a ring chunk before its first event word.
pub const CHUNK_HEADER_BYTES: usize = 128;
/// Event words (of 8 bytes) in a ring chunk.
pub const CHUNK_WORDS: usize = (CHUNK_BYTES - CHUNK_HEADER_BYTES) / 8;

/// Processes a session can hold at once; slots of ended ones are used again.
pub const SLOT_COUNT: usize = 512;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 64 * 1024;
/// Most trie blocks of one process.
pub const TRIE_BLOCKS: usize = 8 * 1024;

/// Where the free list's links begin.
pub const NEXT_TABLE_OFFSET: usize = 64 * 1024;
/// Where the slots begin.
pub const SLOTS_OFFSET: usize = 1024 * 1024;
/// Where the chunks begin.
pub const CHUNKS_OFFSET: usize = 64 * 1024 * 1024;
/// Size of the whole map in bytes.
pub const MAP_BYTES: usize = CHUNKS_OFFSET + CHUNK_COUNT * CHUNK_BYTES;

/// Bits of [`Header::mode`].
pub mod mode {
    /// Events are recorded. Clear: every hook passes through.
    pub const ON: u32 = 1;
    /// Native stacks are taken.
    pub const NATIVE_STACKS: u32 = 2;
    /// Python's domains are hooked and Python stacks are taken.
    pub const PYTHON: u32 = 4;
    /// The native domain (malloc family, mmap) is recorded.
    pub const NATIVE: u32 = 8;
    /// Forked and executed children are followed.
    pub const FOLLOW: u32 = 16;
    /// Objects that come from CPython's free lists are told of.
    pub const OBJECTS: u32 = 32;
    /// Blocks are sampled ([`super::Header::sample_mean`]); mappings are not. May
    /// change during a session: a process notices with its next block, or its next
    /// sample.
    pub const SAMPLED: u32 = 64;
    /// Processes that were running before they were recorded put everything
    /// back as it was, and say so in their slots ([`super::Slot::left`]).
    pub const LEAVE: u32 = 128;
    /// A heap graph is taken when `__main__` was left ([`super::Slot::may_graph`]).
    pub const GRAPH_AT_END: u32 = 256;
    /// No birth of the native domain is told of, though deaths are. May change during a
    /// session, as the next.
    pub const NO_NATIVE_BIRTHS: u32 = 512;
    /// No birth of Python's domains is told of, though deaths are.
    pub const NO_PYTHON_BIRTHS: u32 = 1024;
    /// Heap graphs tell what keys of dicts are, not only of which type. Without it a
    /// process tells so where it is asked to for one graph ([`super::Slot::values_wanted`]).
    pub const VALUES: u32 = 2048;

    /// The bit that keeps births of a domain from being told of. (A reallocated
    /// block's is told of: whether the block was known, the collector knows.)
    #[inline]
    pub const fn no_births(domain: crate::event::Domain) -> u32 {
        use crate::event::Domain;
        match domain {
            Domain::Native | Domain::Map => NO_NATIVE_BIRTHS,
            Domain::Raw | Domain::Mem | Domain::Obj => NO_PYTHON_BIRTHS,
        }
    }
}

/// Where event stamps come from: [`Header::clock`].
pub mod clock {
    /// The CPU's time-stamp counter, in ticks.
    pub const TSC: u32 = 0;
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub const MONOTONIC: u32 = 1;
}

/// The session's control words, at the start of the map. Written by the
/// collector unless said otherwise.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// One of [`clock`].
    pub clock: AtomicU32,
    /// Bits of [`mode`].
    pub mode: AtomicU32,
    /// Expired 5 ms waits without progress before a process goes lossy
    /// (200 = 1 s); `u32::MAX` waits for ever.
    pub wait_strikes: AtomicU32,
    /// Pid of the collector, in its own pid namespace.
    pub collector_pid: AtomicU32,
    /// Forked processes that found no free slot. Written by them.
    pub turned_away: AtomicU32,
    /// Mean bytes between samples, of 1 to [`crate::sampling::MAX_MEAN`]; 0 in
    /// exact mode. It may change at any time: a thread looks at it when it draws
    /// its next countdown.
    pub sample_mean: AtomicU64,
    #[doc(hidden)]
    pub pad0: [u32; 6],
    /// Head of the free list: tag in the high half, chunk index + 1 in the low
    /// (0 = empty). Written by everyone, see [`crate::pool`].
    pub free_head: AtomicU64,
    /// Free chunks, roughly. Written by everyone.
    pub free_count: AtomicU32,
    /// Threads now waiting for a chunk. Written by producers.
    pub waiters: AtomicU32,
    #[doc(hidden)]
    pub pad1: [u32; 12],
    /// Futex word: bumped when chunks were freed while somebody waited.
    pub wake: AtomicU32,
    /// Bumped by a producer that claimed a slot after fork.
    pub claims: AtomicU32,
    /// Grows while waiting for a chunk makes sense (one was freed or added, the
    /// collector is at something long): what a waiter reads to tell slow from
    /// dead.
    pub progress: AtomicU64,
    /// Grows ten times a second while the collector runs: what processes that
    /// were running before look at, to leave when it is gone.
    pub beats: AtomicU32,
    /// Heap graphs of [`mode::GRAPH_AT_END`] that are being taken of processes with Python,
    /// and looks at ends of those without, roughly: added to by producers, set by the
    /// collector. There are to be [`MOST_END_GRAPHS`] of each kind: about a program of Python
    /// there may be dozens of others, all short, as where a shell script starts it.
    pub end_graphs: [AtomicU32; 2],
    /// Not 0: there were enough of those, but for large processes.
    pub enough_ends: [AtomicU32; 2],
    /// What a process's [`Slot::may_graph`] is until it was looked at: it is small then.
    pub may_graph: AtomicU32,
    /// Processes without Python at whose ends nothing was looked at, though that was
    /// wanted. Written by them.
    pub missed_ends: AtomicU32,
    #[doc(hidden)]
    pub pad2: [u32; 5],
}

/// States of [`Slot::state`].
pub mod slot_state {
    /// Nobody's.
    pub const FREE: u32 = 0;
    /// Somebody is filling it in.
    pub const CLAIMED: u32 = 1;
    /// A process writes under it.
    pub const LIVE: u32 = 2;
}

/// See [`Header::end_graphs`].
pub const MOST_END_GRAPHS: u32 = 2;

/// Values of [`Slot::may_graph`].
pub mod may_graph {
    /// No: there is not memory enough, or something else speaks against it.
    pub const NO: u32 = 0;
    /// Yes, but for [`Header::enough_ends`](super::Header::enough_ends).
    pub const YES: u32 = 1;
    /// The session has enough of them.
    pub const ENOUGH: u32 = 2;
    /// Yes: it is large.
    pub const LARGE: u32 = 3;
}

/// Values of [`Slot::scan`].
pub mod scan {
    /// The collector has not looked yet.
    pub const WAITS: u32 = 0;
    /// It knows what is mapped: the child may map more, and change what it mapped.
    pub const GO_ON: u32 = 1;
    /// It is done, or will not look.
    pub const DONE: u32 = 2;
}

/// Mappings that are leakline's own, in the memory of a target.
#[repr(C)]
pub struct OwnMemory {
    /// How many there were; more than [`OWN_MAPPINGS`] were not all noted.
    pub count: AtomicU32,
    #[doc(hidden)]
    pub pad: u32,
    /// Address and bytes of each.
    pub mappings: [[AtomicU64; 2]; OWN_MAPPINGS],
}

/// Most mappings of an [`OwnMemory`].
pub const OWN_MAPPINGS: usize = 4096;

/// [`Slot::graph_wanted`] of a child that takes the graph of [`mode::GRAPH_AT_END`].
pub const END_GRAPH: u32 = u32::MAX;

/// A process of the session.
///
/// The collector claims one for a process that shook hands (start or exec),
/// a forked child claims its own (`FREE` -> `CLAIMED` by compare-exchange),
/// and only the collector frees.
#[repr(C)]
pub struct Slot {
    /// One of [`slot_state`].
    pub state: AtomicU32,
    /// Pid as the process sees it.
    pub pid: AtomicU32,
    /// Slot index of the process that forked this one, or `u32::MAX`.
    pub parent_slot: AtomicU32,
    /// [`Slot::forks`] of the parent at that fork: names the `Fork` event
    /// that marks the instant in the parent's ring. 0 = not known (a raw
    /// clone that ran no fork handlers).
    pub fork_seq: AtomicU32,
    /// Stamp taken in the child right after the fork, or at start.
    pub start_stamp: AtomicU64,
    /// Codes (of [`crate::blob::CodeDef`]) inherited from the parent: ids
    /// below are the parent's.
    pub inherited_codes: AtomicU32,
    /// Modules inherited from the parent: ids below are the parent's.
    pub inherited_modules: AtomicU32,
    /// Forks prepared so far by this process.
    pub forks: AtomicU32,
    /// 1 while the process drops events instead of waiting.
    pub lossy: AtomicU32,
    /// Events dropped (allocations, frees, everything).
    pub lost_events: AtomicU64,
    /// Bytes of the allocations among them.
    pub lost_bytes: AtomicU64,
    /// Nested events (a signal handler's) dropped.
    pub lost_nested: AtomicU64,
    /// Nanoseconds that threads waited for the collector.
    pub stalled_ns: AtomicU64,
    /// Stacks cut at the depth limit, and those that there was no room for in
    /// the trie.
    pub truncated_stacks: AtomicU64,
    /// Native unwinds that ended for want of unwind information.
    pub broken_unwinds: AtomicU64,
    /// Head of the list of rings' first chunks not yet seen by the collector:
    /// chunk index + 1, linked through [`ChunkHeader::link`]. Producers push,
    /// the collector takes the whole list by swapping in 0.
    pub new_rings: AtomicU32,
    /// Trie nodes handed out (ids are below; some may be unused).
    pub trie_nodes: AtomicU32,
    /// 1 once Python's allocators are hooked; `PY_VERSION_HEX` above it.
    pub python_version: AtomicU32,
    /// 1 once the process left the session ([`mode::LEAVE`]).
    pub left: AtomicU32,
    /// Ticks of the session's clock that samples took, in sampled mode.
    pub sampling_ticks: AtomicU64,
    /// About how many blocks were left out, in sampled mode: each sampled one stands for
    /// others of its size.
    pub left_out: AtomicU64,
    /// The heap graph that this process is to take: 0 for none, else its number. Written
    /// by the collector. In the slot of a child that takes one: [`END_GRAPH`] or the number.
    pub graph_wanted: AtomicU32,
    /// The number of the last that was begun, or could not be.
    pub graph_begun: AtomicU32,
    /// Why the last could not be: an error number of Linux's, or 0.
    pub graph_error: AtomicU32,
    /// Whether one may be taken at the end: one of [`may_graph`]. Written by the collector.
    pub may_graph: AtomicU32,
    /// 1: not a process of the program's but a child that tells of its parent's heap.
    pub is_graph: AtomicU32,
    /// How far the collector is with its look at the memory of such a child: one of
    /// [`scan`].
    pub scan: AtomicU32,
    /// Such a child's stack from here on, with all registers that a caller may have put
    /// something into, is as it was at the fork.
    pub scan_stack: AtomicU64,
    /// Where in its memory the [`OwnMemory`] lies; 0 for nowhere.
    pub scan_own: AtomicU64,
    /// Threads of the process, beside the one that forked, that are known to allocate.
    pub scan_threads: AtomicU32,
    /// The number of the heap graph that is to tell what keys of dicts are, though the
    /// session's do not; 0 for none. Written by the collector before [`Slot::graph_wanted`].
    /// In the slot of a child that takes one: its number, if it tells that.
    pub values_wanted: AtomicU32,
    #[doc(hidden)]
    pub pad: [u32; 4057],
    /// Trie block directory: chunk index + 1 of node ids
    /// `i * NODES_PER_BLOCK ..`; 0 = none. A forked child starts with a copy
    /// of its parent's.
    pub trie: [AtomicU32; TRIE_BLOCKS],
}

/// What a ring chunk begins with. Written by its producer.
#[repr(C)]
pub struct ChunkHeader {
    /// Event words published so far: everything below is whole events.
    pub committed: AtomicU32,
    /// Chunk index + 1 of the ring's next chunk; 0 = this is the last. Stored
    /// (Release) after the last event of this chunk was committed.
    pub next: AtomicU32,
    #[doc(hidden)]
    pub pad: [u32; 14],
    /// Slot of the process that writes.
    pub slot: AtomicU32,
    /// Ring number, unique in its process.
    pub ring: AtomicU32,
    /// Place in the ring's chain, from 0.
    pub sequence: AtomicU32,
    /// Next in the list that starts at [`Slot::new_rings`].
    pub link: AtomicU32,
    #[doc(hidden)]
    pub pad2: [u32; 12],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<ChunkHeader>() == CHUNK_HEADER_BYTES);
    assert!(size_of::<Slot>() <= SLOT_BYTES);
    assert!(size_of::<Header>() <= 4096);
    assert!(SLOTS_OFFSET + SLOT_COUNT * SLOT_BYTES <= CHUNKS_OFFSET);
    assert!(NEXT_TABLE_OFFSET + CHUNK_COUNT * 4 <= SLOTS_OFFSET);
};

/// What a program that was started with `leakline run --idle` looks at: a sealed
/// memfd of one page, written by its supervisor.
#[repr(C)]
pub struct IdlePage {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// Grows when there is an invitation to a session: odd while it is written.
    pub turn: AtomicU32,
    /// The invitation, as the environment would have it, ended by a NUL.
    pub invitation: [AtomicU64; IDLE_WORDS],
}

/// Words of an [`IdlePage`]'s invitation.
pub const IDLE_WORDS: usize = 64;
/// Bytes of an [`IdlePage`]'s memfd.
pub const IDLE_BYTES: usize = 4096;

/// First message of a process to the collector, as sent over the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Pid as the process sees it.
    pub pid: u32,
    /// The session's secret, from the environment.
    pub token: [u8; 16],
}

/// The collector's answer; the map's file descriptor travels with it
/// (`SCM_RIGHTS`) when `status` is [`Welcome::OK`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`Welcome::OK`] or a refusal.
    pub status: u32,
    /// The slot that is this process's.
    pub slot: u32,
}

impl Welcome {
    /// Go on.
    pub const OK: u32 = 0;
    /// The session is over, or all slots are taken.
    pub const FULL: u32 = 1;
    /// Another [`VERSION`].
    pub const VERSION: u32 = 2;
    /// The session follows another process only (`--no-follow`).
    pub const NOT_FOLLOWED: u32 = 3;
}

/// Byte offset of chunk `index` in the map.
pub const fn chunk_offset(index: u32) -> usize {
    CHUNKS_OFFSET + index as usize * CHUNK_BYTES
}

/// Byte offset of slot `index` in the map.
pub const fn slot_offset(index: u32) -> usize {
    SLOTS_OFFSET + index as usize * SLOT_BYTES
}
