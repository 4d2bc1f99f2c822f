//! A process's rings, merged by stamp.
//!
//! The clock is noted, then every ring's head is read, then the events stamped
//! before the note are taken, smallest stamp first: whatever such an event
//! depends on was published before it was stamped, so it is among what was
//! read (see `leakline_wire::event`, "Order").
//!
//! A process that allocates in one thread at a time has one ring with news in
//! most rounds: that one is read straight through, without any merging.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use leakline_wire::layout::CHUNK_COUNT;
use leakline_wire::layout::Slot;
use leakline_wire::sync::Ordering;

use crate::image::{Image, Shared, Stop};
use crate::ring::{Cursor, RingState};

/// With more rings than this, those that are read up give their buffers back.
const BUFFERS_KEPT: usize = 32;

#[derive(Debug)]
struct Ring {
    cursor: Cursor,
    state: RingState,
    /// It was found malformed and is not read any more.
    is_quarantined: bool,
}

/// The rings of a process.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    rings: Vec<Ring>,
    /// Next stamp and ring, smallest first; empty between rounds.
    queue: BinaryHeap<Reverse<(u64, usize)>>,
}

/// What a round over a process's rings found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Events were handled.
    pub(crate) any: bool,
    /// Events are left, stamped at the limit or later.
    pub(crate) more: bool,
}

impl Rings {
    /// Opens the rings that the process has announced since last time.
    fn discover(&mut self, shared: &mut Shared, image: &mut Image, slot: &Slot, index: u32) {
        // Acquire pairs with the producers' Release: headers and links of the
        // listed chunks are there. Relaxed first: mostly there is nothing.
        if slot.new_rings.load(Ordering::Relaxed) == 0 {
            return;
        }
        let session = shared.session.clone();
        let mut next = slot.new_rings.swap(0, Ordering::Acquire);
        for _ in 0..CHUNK_COUNT {
            let Some(chunk) = next.checked_sub(1) else {
                return;
            };
            match Cursor::open(&session, &mut shared.pool, index, chunk) {
                Ok(cursor) => self.rings.push(Ring {
                    cursor,
                    state: RingState::new(shared.temporary_window),
                    is_quarantined: false,
                }),
                Err(_) => image.totals.malformed_events += 1,
            }
            next = session
                .chunk_header(chunk)
                .map_or(0, |header| header.link.load(Ordering::Relaxed));
        }
    }

    /// Handles the process's events stamped before `limit`, in order.
    ///
    /// `limit` is at most a stamp noted before this is called.
    pub(crate) fn drain(
        &mut self,
        shared: &mut Shared,
        image: &mut Image,
        slot: &Slot,
        index: u32,
        limit: u64,
    ) -> Found {
        self.discover(shared, image, slot, index);
        let mut found = Found::default();
        for (number, ring) in self.rings.iter_mut().enumerate() {
            if ring.is_quarantined {
                continue;
            }
            if ring.cursor.is_empty() {
                match ring.cursor.refill(&shared.session, &mut shared.pool) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(_) => {
                        ring.is_quarantined = true;
                        image.totals.malformed_events += 1;
                        continue;
                    }
                }
            }
            // Words too few for a stamp are for `run` to find malformed.
            let stamp = ring.cursor.stamp().unwrap_or(0);
            if stamp < limit {
                self.queue.push(Reverse((stamp, number)));
            } else {
                found.more = true;
            }
        }
        found.any = !self.queue.is_empty();
        while let Some(Reverse((_, number))) = self.queue.pop() {
            // As far as no other ring has an earlier event.
            let until = match self.queue.peek() {
                Some(Reverse((stamp, _))) => limit.min(stamp.saturating_add(1)),
                None => limit,
            };
            let ring = &mut self.rings[number];
            match image.run(shared, &mut ring.cursor, &mut ring.state, until) {
                Ok(Stop::At(stamp)) if stamp < limit => {
                    self.queue.push(Reverse((stamp, number)));
                }
                Ok(Stop::At(_)) => found.more = true,
                Ok(Stop::End) => {}
                Err(_) => {
                    ring.is_quarantined = true;
                    image.totals.malformed_events += 1;
                }
            }
        }
        if self.rings.len() > BUFFERS_KEPT {
            self.rings
                .iter_mut()
                .for_each(|ring| ring.cursor.release_buffer());
        }
        image.settle(shared, limit);
        found
    }

    /// How many there are. Each holds the chunk that it writes to.
    pub(crate) fn open(&self) -> u32 {
        self.rings.len() as u32
    }

    /// Puts the chunks of a dead process's rings back.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        let session = shared.session.clone();
        for ring in &mut self.rings {
            ring.cursor.close(&session, &mut shared.pool);
        }
        self.rings.clear();
    }
}
