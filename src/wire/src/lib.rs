//! The contract in shared memory between a traced process and the collector.
//!
//! A session is one sealed memfd that every process of a target tree maps, and
//! one collector drains. Its parts, in order of address:
//!
//! | part | at | what it holds |
//! | --- | --- | --- |
//! | [`Header`](layout::Header) | 0 | magic, version, mode, the free list's head, futex words |
//! | next table | [`NEXT_TABLE_OFFSET`](layout::NEXT_TABLE_OFFSET) | the free list's links, a `u32` a chunk |
//! | [`Slot`](layout::Slot)s | [`SLOTS_OFFSET`](layout::SLOTS_OFFSET) | one a process: identity, losses, its trie's block directory |
//! | chunks | [`CHUNKS_OFFSET`](layout::CHUNKS_OFFSET) | 16 KiB each: a piece of a ring, or a block of trie nodes |
//!
//! # Invariants
//!
//! * Everything is position-independent: chunks are named by index, never by
//!   address, and no pointer crosses a process.
//! * A word has one writer. Producers publish with `Release` stores, the
//!   collector reads with `Acquire` loads; what was published never changes
//!   until its chunk has gone back to the free list.
//! * The collector trusts nothing that a target wrote: it copies, checks, uses.
//!
//! This crate depends on nothing, allocates nothing and calls nothing: both
//! the interposer (`no_std`, inside other people's programs) and the collector
//! link it.
#![cfg_attr(not(any(test, loom)), no_std)]

pub mod blob;
pub mod cpython;
pub mod env;
pub mod event;
pub mod graph;
pub mod layout;
pub mod mapped;
pub mod pool;
pub mod sampling;
pub mod sync;
pub mod trie;

pub use event::{Domain, Event, Kind};
