//! Models of the free list and of how a ring's chunks are published.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p leakline-wire --test loom`
//!
//! What a chunk holds is a loom cell here, so that an access that is not
//! ordered after the last owner's fails the model.
#![cfg(loom)]
#![expect(unsafe_code, reason = "access to loom's cells")]

use leakline_wire::pool::FreeList;
use leakline_wire::sync::{AtomicU32, AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

/// Event words of a chunk.
const WORDS: usize = 2;

struct Chunk {
    committed: AtomicU32,
    next: AtomicU32,
    words: [UnsafeCell<u32>; WORDS],
}

struct Pool {
    head: AtomicU64,
    count: AtomicU32,
    links: Vec<AtomicU32>,
    chunks: Vec<Chunk>,
}

impl Pool {
    fn new(chunks: u32) -> Arc<Self> {
        let chunk = |_| Chunk {
            committed: AtomicU32::new(0),
            next: AtomicU32::new(0),
            words: [UnsafeCell::new(0), UnsafeCell::new(0)],
        };
        let pool = Pool {
            head: AtomicU64::new(0),
            count: AtomicU32::new(0),
            links: (0..chunks).map(|_| AtomicU32::new(0)).collect(),
            chunks: (0..chunks).map(chunk).collect(),
        };
        (0..chunks).for_each(|chunk| pool.list().push(chunk));
        Arc::new(pool)
    }

    fn list(&self) -> FreeList<'_> {
        FreeList {
            head: &self.head,
            next: &self.links,
            count: &self.count,
        }
    }

    /// Writes a word of a chunk that is ours.
    fn write(&self, chunk: u32, at: usize, word: u32) {
        // SAFETY: loom fails the model if anybody else may look.
        self.chunks[chunk as usize].words[at].with_mut(|place| unsafe { *place = word });
    }

    fn read(&self, chunk: u32, at: usize) -> u32 {
        // SAFETY: as above.
        self.chunks[chunk as usize].words[at].with(|place| unsafe { *place })
    }
}

/// Tries all schedules with at most three preemptions; more take hours.
fn check(story: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(story);
}

/// Whoever takes a chunk has it alone, also when it left and came back between
/// another's look at the list and its exchange.
#[test]
fn a_chunk_is_one_owners() {
    check(|| {
        let pool = Pool::new(2);
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                // Out of order: what was below comes to lie on top.
                let (first, second) = (pool.list().pop(), pool.list().pop());
                for chunk in [first, second].into_iter().flatten() {
                    pool.write(chunk, 0, 1);
                    pool.list().push(chunk);
                }
            })
        };
        for _ in 0..2 {
            if let Some(chunk) = pool.list().pop() {
                pool.write(chunk, 0, 2);
                pool.list().push(chunk);
            }
        }
        other.join().unwrap();
        let left = [pool.list().pop(), pool.list().pop(), pool.list().pop()];
        assert_eq!(left.iter().flatten().count(), 2, "none is lost");
        assert_eq!(pool.count.load(Ordering::Relaxed), 0);
    });
}

/// A producer that writes more than its chunks hold, and the collector: every
/// event comes once, in order, and a chunk that went round is not written
/// while it is read.
#[test]
fn events_go_through_chunks_in_order() {
    const EVENTS: u32 = 5;
    check(|| {
        let pool = Pool::new(2);
        let first = pool.list().pop().unwrap();
        let producer = {
            let pool = pool.clone();
            thread::spawn(move || produce(&pool, first, EVENTS))
        };
        let mut reader = Reader {
            chunk: first,
            copied: 0,
            seen: 0,
        };
        // As many looks as it takes in the worst schedule; the rest after.
        for _ in 0..3 {
            reader.refill(&pool);
            thread::yield_now();
        }
        let written = producer.join().unwrap();
        while reader.refill(&pool) {}
        assert_eq!(reader.seen, written, "nothing that was published is missed");
    });
}

/// As the interposer does: appends events until the pool is empty.
fn produce(pool: &Pool, first: u32, events: u32) -> u32 {
    let (mut chunk, mut position) = (first, 0);
    for event in 0..events {
        if position == WORDS {
            let Some(fresh) = pool.list().pop() else {
                return event;
            };
            let header = &pool.chunks[fresh as usize];
            header.committed.store(0, Ordering::Relaxed);
            header.next.store(0, Ordering::Relaxed);
            // Release pairs with the reader's Acquire: the header is whole.
            pool.chunks[chunk as usize]
                .next
                .store(fresh + 1, Ordering::Release);
            (chunk, position) = (fresh, 0);
        }
        pool.write(chunk, position, event);
        position += 1;
        // Release pairs with the reader's Acquire: the word is there.
        pool.chunks[chunk as usize]
            .committed
            .store(position as u32, Ordering::Release);
    }
    events
}

struct Reader {
    chunk: u32,
    copied: usize,
    seen: u32,
}

impl Reader {
    /// As the collector does: `next` before `committed`, then the words, then
    /// the chunk goes back. True when there was something.
    fn refill(&mut self, pool: &Pool) -> bool {
        let header = &pool.chunks[self.chunk as usize];
        let next = header.next.load(Ordering::Acquire);
        let committed = header.committed.load(Ordering::Acquire) as usize;
        let found = committed > self.copied || next != 0;
        for at in self.copied..committed {
            assert_eq!(pool.read(self.chunk, at), self.seen, "in order, none twice");
            self.seen += 1;
        }
        self.copied = committed;
        if let Some(next) = next.checked_sub(1) {
            pool.list().push(self.chunk);
            self.chunk = next;
            self.copied = 0;
        }
        found
    }
}
