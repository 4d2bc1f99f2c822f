//! Threads that take and give back chunks as fast as they can.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use leakline_wire::pool::FreeList;

const CHUNKS: usize = 8;
const TURNS: u32 = 200_000;

#[test]
fn no_chunk_is_handed_out_twice_and_none_is_lost() {
    let head = AtomicU64::new(0);
    let count = AtomicU32::new(0);
    let next: Vec<AtomicU32> = (0..CHUNKS).map(|_| AtomicU32::new(0)).collect();
    let taken: Vec<AtomicBool> = (0..CHUNKS).map(|_| AtomicBool::new(false)).collect();
    let list = FreeList {
        head: &head,
        next: &next,
        count: &count,
    };
    (0..CHUNKS as u32).for_each(|chunk| list.push(chunk));

    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let taken = &taken;
            scope.spawn(move || {
                let mut held = Vec::new();
                for turn in 0..TURNS {
                    // Now one, now several at a time: the order of the list
                    // changes under the others.
                    if held.len() < 1 + (turn + thread) as usize % 3 {
                        if let Some(chunk) = list.pop() {
                            let was = taken[chunk as usize].swap(true, Ordering::AcqRel);
                            assert!(!was, "chunk {chunk} is somebody's");
                            held.push(chunk);
                        }
                    } else if let Some(chunk) = held.pop() {
                        taken[chunk as usize].store(false, Ordering::Release);
                        list.push(chunk);
                    }
                }
                for chunk in held {
                    taken[chunk as usize].store(false, Ordering::Release);
                    list.push(chunk);
                }
            });
        }
    });

    assert_eq!(count.load(Ordering::Relaxed) as usize, CHUNKS);
    let mut left: Vec<u32> = std::iter::from_fn(|| list.pop()).collect();
    left.sort_unstable();
    assert_eq!(left, (0..CHUNKS as u32).collect::<Vec<_>>());
}
