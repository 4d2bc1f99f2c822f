//! The free list of chunks: a lock-free stack that every process shares.
//!
//! # Invariants
//!
//! * The head holds a tag that every change increments, so that a chunk which
//!   left and came back between a load and the exchange is noticed.
//! * A chunk is in the list or somebody's, never both. A process killed
//!   between taking a chunk and using it loses that chunk until the session
//!   ends: bounded, and no list is ever left half-changed.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The list over its words, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct FreeList<'a> {
    /// Tag << 32 | index + 1.
    pub head: &'a AtomicU64,
    /// Links: entry `i` is the index + 1 of the chunk below chunk `i`.
    pub next: &'a [AtomicU32],
    /// How many are free, roughly.
    pub count: &'a AtomicU32,
}

impl FreeList<'_> {
    /// Takes a chunk, or `None` when there is none.
    ///
    /// Lock-free and async-signal-safe.
    pub fn pop(&self) -> Option<u32> {
        // Acquire pairs with the Release in `push`: the link read below was
        // written before the head that names its chunk.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let index = (head as u32).checked_sub(1)?;
            // A chunk index from another process: checked, never trusted.
            let below = self.next.get(index as usize)?.load(Ordering::Relaxed);
            let tag = (head >> 32).wrapping_add(1);
            match self.head.compare_exchange_weak(
                head,
                tag << 32 | u64::from(below),
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Some(index);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Gives chunk `index` back.
    pub fn push(&self, index: u32) {
        let Some(link) = self.next.get(index as usize) else {
            return;
        };
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(head as u32, Ordering::Relaxed);
            let tag = (head >> 32).wrapping_add(1);
            // Release pairs with the Acquire in `pop`: whoever takes the
            // chunk sees the link, and the last owner's writes.
            match self.head.compare_exchange_weak(
                head,
                tag << 32 | u64::from(index + 1),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(now) => head = now,
            }
        }
    }
}
