use std::collections::{BTreeMap, HashMap};

use leakline_recording::record::{Counters, Frame, Peak, ProcessTotals, Record};
use leakline_wire::Kind;
use leakline_wire::event::{Domain, head};
use leakline_wire::layout::CHUNK_WORDS;
use leakline_wire::sync::Ordering::Relaxed;
use proptest::prelude::*;

use super::*;
use crate::output::Sink;
use crate::testing::{FakeProcess, FakeRing, Records, engine};

const RING_BYTES: u64 = 16 << 20;

fn end(engine: &mut Engine) {
    engine.end_all();
    engine.settle();
    engine.finish("exited");
}

fn totals(records: &Records, process: u32) -> ProcessTotals {
    let mut all = records.pick(|record| match record {
        Record::Totals(totals) if totals.process == process => Some(*totals),
        _ => None,
    });
    all.pop().expect("totals of the process")
}

fn peak(records: &Records, process: Option<u32>) -> Peak {
    let mut all = records.pick(|record| match record {
        Record::Peak(peak) if peak.process == process => Some(peak.clone()),
        _ => None,
    });
    all.pop().expect("a peak")
}

/// The site that a stack of one native frame at `offset` has in a process.
fn site_at(records: &Records, process: u32, wanted: u64) -> u32 {
    let nodes = records.pick(|record| match record {
        Record::Node(node) => Some(*node),
        _ => None,
    });
    let sites = records.pick(|record| match record {
        Record::Site(site) => Some(*site),
        _ => None,
    });
    let at = sites.iter().position(|site| {
        let frame = nodes
            .get((site.node as usize).wrapping_sub(1))
            .map(|node| node.frame);
        site.process == process
            && matches!(frame, Some(Frame::Native { offset, .. }) if offset == wanted)
    });
    at.expect("a site at that offset") as u32
}

#[test]
fn only_a_block_of_the_object_domain_is_reborn() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 100);
    let mut ring = process.thread(100);
    let module = process.define_module(&mut ring, "/bin/python");
    let stacks = [0x100, 0x200].map(|offset| process.native(module, offset));
    for (address, domain) in [(0x1000, Domain::Native), (0x2000, Domain::Obj)] {
        ring.emit(&[
            head(Kind::Alloc, domain as u8, address),
            process.now(),
            32 << 32 | u64::from(stacks[0]),
        ]);
        ring.emit(&[
            head(Kind::Reborn, Domain::Obj as u8, address),
            process.now(),
            stacks[1].into(),
        ]);
    }
    end(&mut engine);
    let counters = records.counters();
    let held = |blocks, total| Counters {
        live_bytes: 32 * blocks,
        live_blocks: blocks,
        total_bytes: 32 * total,
        total_blocks: total,
        ..Counters::default()
    };
    let sites: Vec<_> = counters.values().copied().collect();
    // The native one; the object before, and after it was reborn.
    assert_eq!(sites, [held(1, 1), held(0, 1), held(1, 1)]);
}

/// Blocks of both kinds die, and are resized, in times of either: none is left, none
/// dies twice, and blocks that were never recorded are not missed.
#[test]
fn all_blocks_and_a_sample_by_turns() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 100);
    let mut ring = process.thread(100);
    let stack = process.native(0, 1);
    let native = Domain::Native as u8;
    let sample = |process: &mut FakeProcess, ring: &mut FakeRing, address| {
        let word = head(Kind::Sample, native, address);
        // Of this size and mean one block of two is sampled, nearly.
        ring.emit(&[word, process.now(), stack.into(), 999, 1443]);
    };
    process.alloc(&mut ring, 0x1000, 10, stack);
    process.alloc(&mut ring, 0x2000, 20, stack);
    engine.sample(1443, false).unwrap();
    sample(&mut process, &mut ring, 0x3000);
    sample(&mut process, &mut ring, 0x4000);
    let unsure = native | leakline_wire::event::IS_UNSURE;
    // The first block, recorded as one of all; one that never was.
    for address in [0x1000, 0x9000] {
        ring.emit(&[head(Kind::SampleFree, unsure, address), process.now()]);
    }
    for address in [0x2000, 0x9010] {
        ring.emit(&[head(Kind::ReallocStart, unsure, address), process.now()]);
        ring.emit(&[head(Kind::ReallocGone, unsure, address), process.now()]);
    }
    engine.record_all().unwrap();
    // Sampled ones: one is freed, the other resized in place.
    process.free(&mut ring, 0x3000);
    ring.emit(&[head(Kind::ReallocStart, native, 0x4000), process.now()]);
    ring.emit(&[
        head(Kind::ReallocEnd, native, 0x4000),
        process.now(),
        7 << 32 | u64::from(stack),
    ]);
    end(&mut engine);
    let totals = totals(&records, 0);
    assert_eq!((totals.live_blocks, totals.live_bytes), (1, 7));
    assert_eq!((totals.unknown_frees, totals.implied_frees), (0, 0));
    assert_eq!(records.counters()[&site_at(&records, 0, 1)].live_bytes, 7);
    let means = records.pick(|record| match record {
        Record::Sampling(sampling) => Some(sampling.mean_bytes),
        _ => None,
    });
    assert_eq!(means, [1443, 0]);
    assert_eq!(engine.sample(0, true), Err("no such mean".to_owned()));
    engine.most_share = Some(0.005);
    engine.sample(1 << 20, false).unwrap();
    let bounds = |engine: &Engine| engine.steering.as_ref().map(|one| one.bounds);
    let kept = |least_mean| {
        let most_share = 0.005;
        Some(Bounds {
            least_mean,
            most_share,
        })
    };
    assert_eq!(bounds(&engine), kept(1 << 20));
    engine.record_all().unwrap();
    engine.sample(1 << 20, true).unwrap();
    assert_eq!(bounds(&engine), kept(LEAST_MEAN));
    engine.switch_off();
    assert!(engine.record_all().is_err());
}

#[test]
fn a_process_is_told_from_start_to_end() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 77);
    let mut ring = process.thread(77);
    let module = process.define_module(&mut ring, "/lib/a.so");
    let code = process.define_code(&mut ring, "handler", &[0xe9, 0x02, 0xe9, 0x02]);
    let outer = process.native(module, 0x10);
    let inner = process.node(
        outer,
        leakline_wire::trie::kind::NATIVE,
        u64::from(module) << 48 | 0x20,
    );
    let python = process.python(code, 4);
    let pair = process.node(inner, leakline_wire::trie::kind::PAIR, python.into());
    process.alloc(&mut ring, 0x1000, 100, pair);
    process.alloc(&mut ring, 0x2000, 50, outer);
    process.free(&mut ring, 0x1000);
    engine.round();
    end(&mut engine);

    let kinds: Vec<Record> = records.all();
    let nodes = records.pick(|record| match record {
        Record::Node(node) => Some(*node),
        _ => None,
    });
    assert_eq!(nodes.len(), 4);
    assert!(
        matches!(nodes[3].frame, Frame::Pair { python: 3 }),
        "{nodes:?}"
    );
    assert!(matches!(
        nodes[0].frame,
        Frame::Native {
            module: Some(0),
            offset: 0x10,
            ..
        }
    ));
    assert!(matches!(
        nodes[2].frame,
        Frame::Python {
            code: 0,
            offset: 4,
            entry: true
        }
    ));
    let codes = records.pick(|record| match record {
        Record::Code(code) => Some(code.clone()),
        _ => None,
    });
    assert_eq!(
        (codes[0].name.as_str(), codes[0].lines.as_slice()),
        ("handler", &[(0, 11), (4, 12)][..])
    );
    assert!(matches!(kinds[0], Record::Process(_)));
    assert!(matches!(kinds.last(), Some(Record::End(_))));
    let counters = records.counters();
    assert_eq!(
        counters[&0],
        Counters {
            total_bytes: 100,
            total_blocks: 1,
            ..Counters::default()
        }
    );
    assert_eq!(
        counters[&1],
        Counters {
            live_bytes: 50,
            live_blocks: 1,
            total_bytes: 50,
            total_blocks: 1,
            ..Counters::default()
        }
    );
    let peak = peak(&records, None);
    assert_eq!(
        (peak.live_bytes, peak.sites),
        (150, vec![(0, 100, 1), (1, 50, 1)])
    );
    let totals = totals(&records, 0);
    assert_eq!(
        (totals.allocations, totals.frees, totals.live_bytes),
        (2, 1, 50)
    );
    assert_eq!(totals.malformed_events, 0);
    let summary = engine.summary();
    assert_eq!(
        (summary.processes, summary.allocations, summary.live_bytes),
        (1, 2, 50)
    );
}

#[test]
fn rings_go_on_through_chunks_and_give_them_back() {
    let (mut engine, _) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let free_before = engine.shared.session.header().free_count.load(Relaxed);
    let mut ring = process.thread(1);
    let stack = process.native(0, 1);
    for turn in 0..50u64 {
        for event in 0..CHUNK_WORDS as u64 / 3 {
            process.alloc(&mut ring, 0x1000 + (turn << 32 | event << 4), 8, stack);
        }
        engine.round();
    }
    assert_eq!(engine.summary().allocations, 50 * (CHUNK_WORDS as u64 / 3));
    let free_now = engine.shared.session.header().free_count.load(Relaxed);
    // One chunk for the ring, one for the trie.
    assert_eq!(free_before - free_now, 2);
    end(&mut engine);
    let after = engine.shared.session.header().free_count.load(Relaxed);
    assert_eq!(after, free_before, "all chunks come back with the process");
    assert_eq!(engine.summary().allocations, 50 * (CHUNK_WORDS as u64 / 3));
}

#[test]
fn a_full_pool_grows_and_waiters_are_woken() {
    let (mut engine, _) = engine(32 * 16 * 1024, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    let session = process.session.clone();
    let (words, mut published) = ([head(Kind::Free, 0, 0x10), process.now()], 0u64);
    while ring.emit(&words) {
        published += 1;
    }
    let header = session.header();
    let wake = header.wake.load(Relaxed);
    header.waiters.fetch_add(1, Relaxed);
    engine.round();
    assert!(header.wake.load(Relaxed) > wake, "whoever waits is woken");
    assert!(ring.emit(&words), "there is room again");
    header.waiters.fetch_sub(1, Relaxed);
    engine.round();
    let process = engine.processes.values().next().unwrap();
    assert_eq!(process.image.totals.events, published + 2);
}

/// Rings that were read up but for the chunk that they write to took the whole
/// pool, and each round in which nothing came back counted as progress: the
/// target waited for ever.
#[test]
fn idle_rings_leave_the_pool_to_others() {
    let (mut engine, _) = engine(32 * 16 * 1024, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    for tid in 0..150 {
        // Fails when there is no chunk left.
        process.thread(tid);
        engine.round();
    }
    let header = process.session.header();
    assert!(header.free_count.load(Relaxed) >= 31, "as many as before");
    let progress = header.progress.load(Relaxed);
    engine.round();
    assert_eq!(header.progress.load(Relaxed), progress, "nothing was freed");
}

#[test]
fn malformed_rings_are_left_alone_and_counted() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut good = process.thread(1);
    let mut bad = process.thread(2);
    let wild = process.thread(3);
    let stack = process.native(0, 1);
    process.alloc(&mut good, 0x10, 1, stack);
    let now = process.now();
    bad.emit(&[0xff << 56, now, 0]);
    process
        .session
        .chunk_header(wild.chunk())
        .unwrap()
        .committed
        .store(1 << 20, Relaxed);
    engine.round();
    process.alloc(&mut good, 0x20, 1, stack);
    process.alloc(&mut bad, 0x30, 1, stack);
    engine.round();
    end(&mut engine);
    let totals = totals(&records, 0);
    assert_eq!((totals.allocations, totals.malformed_events), (2, 2));
}

#[test]
fn a_stack_that_makes_no_sense_ends_as_broken() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    let stack = process.native(9, 0x77);
    let slot = process.session.slot(process.slot).unwrap();
    let node = process.session.node(slot, stack).unwrap();
    node.parent.store(stack, Relaxed);
    process.alloc(&mut ring, 0x10, 1, stack);
    process.alloc(&mut ring, 0x20, 1, 3_000_000);
    process.alloc(&mut ring, 0x30, 1, u32::MAX);
    engine.round();
    end(&mut engine);
    let totals = totals(&records, 0);
    assert_eq!((totals.allocations, totals.malformed_events), (3, 2));
    let frames = records.pick(|record| match record {
        Record::Node(node) => Some(node.frame),
        _ => None,
    });
    assert!(frames.contains(&Frame::Truncated), "the cycle");
    assert!(frames.contains(&Frame::Broken), "no such node");
}

/// The free of one thread and the allocation of the next at its address, with
/// stamps that are some nanoseconds wrong, and right.
#[test]
fn an_address_that_goes_from_thread_to_thread() {
    for free_first in [false, true] {
        for split in [false, true] {
            let (mut engine, records) = engine(RING_BYTES, 1);
            let mut process = FakeProcess::join(&mut engine, 1);
            let (mut a, mut b) = (process.thread(1), process.thread(2));
            let (old, new) = (process.native(0, 1), process.native(0, 2));
            process.alloc(&mut a, 0x5000, 100, old);
            engine.round();
            let stamp = process.now();
            let (freed, born) = if free_first {
                (stamp, stamp + 20)
            } else {
                (stamp + 20, stamp)
            };
            b.emit(&[
                head(Kind::Alloc, Domain::Native as u8, 0x5000),
                born,
                7 << 32 | u64::from(new),
            ]);
            if split {
                // Between the two stamps a round may begin.
                engine.drain(stamp + 10, false);
            }
            a.emit(&[head(Kind::Free, 0, 0x5000), freed]);
            engine.round();
            end(&mut engine);
            let totals = totals(&records, 0);
            assert_eq!((totals.live_blocks, totals.live_bytes), (1, 7));
            assert_eq!((totals.unknown_frees, totals.implied_frees), (0, 0));
            assert_eq!(records.counters()[&site_at(&records, 0, 2)].live_bytes, 7);
        }
    }
}

#[test]
fn deaths_that_were_missed_are_implied_and_counted() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    let stack = process.native(0, 1);
    process.alloc(&mut ring, 0x10, 1, stack);
    process.alloc(&mut ring, 0x10, 2, stack);
    process.free(&mut ring, 0x10);
    process.free(&mut ring, 0x10);
    process.alloc(&mut ring, 0x10, 3, stack);
    engine.round();
    std::thread::sleep(std::time::Duration::from_millis(1));
    engine.round();
    end(&mut engine);
    let totals = totals(&records, 0);
    assert_eq!((totals.implied_frees, totals.unknown_frees), (1, 1));
    assert_eq!(
        (totals.live_blocks, totals.live_bytes, totals.frees),
        (1, 3, 2)
    );
}

#[test]
fn after_a_loss_nothing_waits_for_a_partner() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    let stack = process.native(0, 1);
    process.alloc(&mut ring, 0x10, 1, stack);
    process.alloc(&mut ring, 0x20, 1, stack);
    engine.round();
    std::thread::sleep(std::time::Duration::from_millis(3));
    ring.emit(&[head(Kind::Loss, 0, 5), process.now()]);
    process.alloc(&mut ring, 0x10, 2, stack);
    process.free(&mut ring, 0x90);
    engine.round();
    end(&mut engine);
    let totals = totals(&records, 0);
    assert_eq!(
        (
            totals.implied_frees,
            totals.unknown_frees,
            totals.lost_events
        ),
        (1, 1, 5)
    );
    let notes = records.pick(|record| match record {
        Record::Note(note) => Some(note.text.clone()),
        _ => None,
    });
    assert!(
        notes[0].starts_with("1 blocks of process 1 were born before"),
        "{notes:?}"
    );
}

#[test]
fn mappings_are_blocks_with_pieces() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    let (first, second) = (process.native(0, 1), process.native(0, 2));
    let page = 4096u64;
    let map = |ring: &mut FakeRing, start: u64, pages: u64, stack: u32| {
        ring.emit(&[
            head(Kind::Map, 0, start),
            process.now(),
            stack.into(),
            pages * page,
        ]);
    };
    map(&mut ring, 0x10_0000, 10, first);
    // A hole in the middle: two pieces.
    ring.emit(&[head(Kind::Unmap, 0, 0x10_2000), process.now(), 2 * page]);
    // Over the second piece.
    map(&mut ring, 0x10_4000, 6, second);
    // Grows in place.
    ring.emit(&[
        head(Kind::Remap, 0, 0x10_4000),
        process.now(),
        u64::from(first),
        8 * page,
        0x10_4000,
        6 * page,
        process.now(),
    ]);
    // Moves.
    ring.emit(&[
        head(Kind::Remap, 0, 0x90_0000),
        process.now(),
        u64::from(first),
        page,
        0x10_0000,
        2 * page,
        process.now(),
    ]);
    engine.round();
    end(&mut engine);
    let counters = records.counters();
    let first = counters[&site_at(&records, 0, 1)];
    assert_eq!((first.live_blocks, first.live_bytes), (1, page));
    assert_eq!((first.total_blocks, first.total_bytes), (2, 11 * page));
    let second = counters[&site_at(&records, 0, 2)];
    assert_eq!(
        (second.live_blocks, second.live_bytes, second.resizes),
        (1, 8 * page, 1)
    );
    assert_eq!(totals(&records, 0).live_bytes, 9 * page);
}

/// A move is stamped after the call: what another thread mapped meanwhile in
/// the place that it left was taken for moved.
#[test]
fn a_mapping_in_the_place_that_another_has_left() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 1);
    let (mut one, mut other) = (process.thread(1), process.thread(2));
    let (moved, kept) = (process.native(0, 1), process.native(0, 2));
    let page = 4096u64;
    let map = |ring: &mut FakeRing, start: u64, pages: u64, stack: u32| {
        ring.emit(&[
            head(Kind::Map, 0, start),
            process.now(),
            stack.into(),
            pages * page,
        ]);
    };
    map(&mut one, 0x10_0000, 10, moved);
    let began = process.now();
    map(&mut other, 0x10_2000, 3, kept);
    one.emit(&[
        head(Kind::Remap, 0, 0x90_0000),
        process.now(),
        moved.into(),
        20 * page,
        0x10_0000,
        10 * page,
        began,
    ]);
    // Not what was there before.
    map(&mut other, 0x20_0000, 4, moved);
    let began = process.now();
    one.emit(&[
        head(Kind::Remap, 0, 0xa0_0000),
        process.now(),
        moved.into(),
        4 * page,
        0x20_0000,
        4 * page,
        began,
    ]);
    engine.round();
    end(&mut engine);
    let counters = records.counters();
    let kept = counters[&site_at(&records, 0, 2)];
    assert_eq!((kept.live_blocks, kept.live_bytes), (1, 3 * page));
    let moved = counters[&site_at(&records, 0, 1)];
    assert_eq!((moved.live_blocks, moved.live_bytes), (2, 24 * page));
}

#[test]
fn children_have_what_their_parents_had() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut parent = FakeProcess::join(&mut engine, 100);
    let mut ring = parent.thread(100);
    let stack = parent.native(0, 1);
    for block in 0..10u64 {
        parent.alloc(&mut ring, 0x1000 + block * 16, 10, stack);
    }
    let fork = parent.prepare_fork(&mut ring);
    // A pid that lives.
    let mut child = parent.fork(fork, std::process::id());
    let mut child_ring = child.thread(101);
    let own = child.native(0, 2);
    // After the fork: neither sees what the other does.
    for block in 0..4u64 {
        parent.free(&mut ring, 0x1000 + block * 16);
    }
    parent.alloc(&mut ring, 0x8000, 1000, stack);
    child.free(&mut child_ring, 0x1000);
    child.free(&mut child_ring, 0x1090);
    child.alloc(&mut child_ring, 0x1000, 77, own);
    child.alloc(&mut child_ring, 0x8000, 5, stack);
    let fork = child.prepare_fork(&mut child_ring);
    let mut grandchild = child.fork(fork, std::process::id());
    let mut last_ring = grandchild.thread(102);
    grandchild.free(&mut last_ring, 0x1000);
    grandchild.free(&mut last_ring, 0x1010);
    engine.round();
    assert_eq!(engine.living(), 3);
    end(&mut engine);

    let processes = records.pick(|record| match record {
        Record::Process(process) => Some(process.clone()),
        _ => None,
    });
    assert_eq!(processes[1].parent, Some(0));
    assert_eq!(
        (processes[1].inherited_blocks, processes[1].inherited_bytes),
        (10, 100)
    );
    assert_eq!(processes[2].parent, Some(1));
    assert_eq!(
        (processes[2].inherited_blocks, processes[2].inherited_bytes),
        (10, 162)
    );
    let figures = |process| {
        let totals = totals(&records, process);
        assert_eq!(
            (totals.unknown_frees, totals.implied_frees),
            (0, 0),
            "process {process}"
        );
        (totals.live_blocks, totals.live_bytes, totals.frees)
    };
    assert_eq!(figures(0), (7, 1060, 4));
    assert_eq!(figures(1), (10, 162, 2));
    assert_eq!(figures(2), (8, 75, 2));
    // Sites count what was born in their own process.
    let counters = records.counters();
    assert_eq!(counters[&site_at(&records, 0, 1)].live_bytes, 1060);
    assert_eq!(counters[&site_at(&records, 1, 2)].live_bytes, 77);
    let inherited = records.pick(|record| match record {
        Record::Inherited(inherited) => Some((inherited.process, inherited.sites.clone())),
        _ => None,
    });
    let site = site_at(&records, 0, 1);
    assert!(
        inherited.contains(&(1, vec![(site, 80, 8)])),
        "{inherited:?}"
    );
    let at_peak = peak(&records, Some(1));
    assert_eq!(at_peak.live_bytes, 162);
    let bytes: u64 = at_peak.sites.iter().map(|site| site.1).sum();
    assert_eq!(bytes, 162);
    // Merged, each block counts once: for whom it was born.
    let summary = engine.summary();
    assert_eq!((summary.live_blocks, summary.live_bytes), (9, 1142));
}

#[test]
fn peaks_name_no_site_that_comes_after_them() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut first = FakeProcess::join(&mut engine, 100);
    let _second = FakeProcess::join(&mut engine, 101);
    let mut ring = first.thread(100);
    let stack = first.native(0, 1);
    first.alloc(&mut ring, 0x10, 1000, stack);
    (engine.chores_ns, engine.peaks_ns) = (0, 0);
    engine.round();
    end(&mut engine);
    let mut sites = 0;
    let mut peaks = 0;
    for record in records.all() {
        match record {
            Record::Site(_) => sites += 1,
            Record::Peak(peak) => {
                assert!(peak.sites.iter().all(|site| site.0 < sites), "{peak:?}");
                peaks += usize::from(!peak.sites.is_empty());
            }
            _ => {}
        }
    }
    assert!(peaks >= 2, "of the session and of the process: {peaks}");
}

#[test]
fn an_ended_process_leaves_the_merged_figures_and_keeps_its_own() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut first = FakeProcess::join(&mut engine, 100);
    let mut second = FakeProcess::join(&mut engine, 101);
    let (mut a, mut b) = (first.thread(100), second.thread(101));
    let (x, y) = (first.native(0, 1), second.native(0, 2));
    first.alloc(&mut a, 0x10, 1000, x);
    second.alloc(&mut b, 0x10, 100, y);
    engine.round();
    engine.died(
        0,
        Ending {
            status: Some(3),
            ..Ending::default()
        },
    );
    engine.round();
    assert_eq!(engine.summary().live_bytes, 100);
    second.alloc(&mut b, 0x20, 500, y);
    engine.round();
    engine.died(1, Ending::default());
    engine.round();
    engine.settle();
    assert_eq!(engine.living(), 0);
    assert_eq!(
        engine.summary().live_bytes,
        600,
        "what the last process held"
    );
    let peak = peak(&records, None);
    assert_eq!(peak.live_bytes, 1100);
    assert_eq!(peak.sites, [(0, 1000, 1), (1, 100, 1)]);
    assert_eq!(records.counters()[&0].live_bytes, 1000, "as of its end");
    let ends = records.pick(|record| match record {
        Record::ProcessEnd(end) => Some((end.process, end.exit_status)),
        _ => None,
    });
    assert_eq!(ends, [(0, Some(3)), (1, None)]);
}

#[test]
fn exec_ends_one_program_and_starts_the_next() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut before = FakeProcess::join(&mut engine, 100);
    let mut ring = before.thread(100);
    let stack = before.native(0, 1);
    before.alloc(&mut ring, 0x10, 1000, stack);
    let mut after = FakeProcess::join(&mut engine, 100);
    let mut ring = after.thread(100);
    let stack = after.native(0, 1);
    after.alloc(&mut ring, 0x10, 1, stack);
    engine.round();
    end(&mut engine);
    let processes = records.pick(|record| match record {
        Record::Process(process) => Some(process.exec),
        Record::ProcessEnd(end) => Some(end.exec),
        _ => None,
    });
    assert_eq!(processes, [false, true, true, false]);
    assert_eq!(totals(&records, 0).live_bytes, 1000);
    assert_eq!(totals(&records, 1).live_bytes, 1);
    assert_eq!(engine.summary().live_bytes, 1);
}

#[test]
fn slots_and_stacks_of_the_dead_come_back_when_nobody_needs_them() {
    let (mut engine, _) = engine(RING_BYTES, 1);
    let free = |engine: &Engine| engine.shared.session.header().free_count.load(Relaxed);
    let before = free(&engine);
    let mut parent = FakeProcess::join(&mut engine, 100);
    let mut ring = parent.thread(100);
    let stack = parent.native(0, 1);
    parent.alloc(&mut ring, 0x10, 1, stack);
    let fork = parent.prepare_fork(&mut ring);
    let mut child = parent.fork(fork, 4_000_001);
    let mut child_ring = child.thread(4_000_001);
    child.alloc(&mut child_ring, 0x20, 1, stack);
    // 4,000,001 is nobody's pid: the child is found dead at once, and stays
    // readable until drained.
    engine.round();
    engine.died(0, Ending::default());
    engine.round();
    assert_eq!(engine.past.allocations, 2);
    assert_eq!(free(&engine), before);
    let slots = (0..SLOT_COUNT as u32)
        .filter(|slot| is_live(engine.shared.session.slot(*slot).unwrap()))
        .count();
    assert_eq!(slots, 0);
}

#[test]
fn a_file_that_cannot_be_written_for_a_while_is_told_of() {
    struct Faulty(Records, u32);
    impl Sink for Faulty {
        fn push(&mut self, record: Record) {
            self.0.push(record);
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.1 += 1;
            if self.1 < 3 {
                Err(std::io::Error::other("disk full"))
            } else {
                Ok(())
            }
        }
        fn bytes(&self) -> u64 {
            0
        }
        fn dropped(&self) -> u64 {
            7
        }
    }
    let (mut engine, _) = engine(RING_BYTES, 1);
    let records = Records::default();
    engine.output = Output::new(Box::new(Faulty(records.clone(), 0)));
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    process.alloc(&mut ring, 0x10, 1, 0);
    engine.round();
    engine.settle();
    engine.settle();
    process.alloc(&mut ring, 0x20, 1, 0);
    engine.round();
    end(&mut engine);
    assert_eq!(engine.summary().write_error.as_deref(), Some("disk full"));
    assert_eq!(
        totals(&records, 0).allocations,
        2,
        "the rest is recorded all the same"
    );
    let notes = records.pick(|record| match record {
        Record::Note(note) => Some(note.text.clone()),
        _ => None,
    });
    assert_eq!(
        notes,
        [
            "the recording could not be written for some time: disk full",
            "7 records were dropped: the file could not be written"
        ]
    );
}

#[test]
fn a_table_that_would_use_up_memory_ends_the_recording() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    engine.memory_limit = 1 << 20;
    let mut process = FakeProcess::join(&mut engine, 1);
    let mut ring = process.thread(1);
    for block in 1..40_000u64 {
        process.alloc(&mut ring, block << 8, 1, 0);
        if block % 1000 == 0 {
            engine.round();
        }
    }
    engine.chores();
    end(&mut engine);
    let mode = engine.shared.session.header().mode.load(Relaxed);
    assert_eq!(mode & leakline_wire::layout::mode::ON, 0);
    let notes = records.pick(|record| match record {
        Record::Note(note) => Some(note.text.clone()),
        _ => None,
    });
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("recording stopped here"), "{notes:?}");
}

/// What a step of the story below does.
#[derive(Clone, Debug)]
enum Step {
    Alloc {
        ring: usize,
        address: u64,
        size: u64,
        stack: usize,
    },
    Free {
        ring: usize,
        address: u64,
    },
    Resize {
        ring: usize,
        address: u64,
        size: u64,
    },
    Move {
        ring: usize,
        address: u64,
        to: u64,
        size: u64,
        stack: usize,
    },
    Fail {
        ring: usize,
        address: u64,
    },
    Round,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (ring, stack) = (0..3usize, 0..4usize);
    let address = || (1..24u64).prop_map(|n| n << 12);
    prop::collection::vec(
        prop_oneof![
            6 => (ring.clone(), address(), 0..5000u64, stack.clone())
                .prop_map(|(ring, address, size, stack)| Step::Alloc { ring, address, size, stack }),
            5 => (ring.clone(), address())
                .prop_map(|(ring, address)| Step::Free { ring, address }),
            1 => (ring.clone(), address(), 0..5000u64)
                .prop_map(|(ring, address, size)| Step::Resize { ring, address, size }),
            1 => (ring.clone(), address(), address(), 0..5000u64, stack)
                .prop_map(|(ring, address, to, size, stack)| {
                    Step::Move { ring, address, to, size, stack }
                }),
            1 => (ring, address()).prop_map(|(ring, address)| Step::Fail { ring, address }),
            1 => Just(Step::Round),
        ],
        1..200,
    )
}

#[derive(Clone, Copy, Debug)]
struct ModelBlock {
    size: u64,
    stack: usize,
    ring: usize,
    /// Births of its ring until it was born.
    birth: u64,
}

/// The same story, told by maps.
#[derive(Default)]
struct Model {
    window: u64,
    live: HashMap<u64, ModelBlock>,
    sites: [Counters; 4],
    threads: [Counters; 3],
    births: [u64; 3],
    allocations: u64,
    frees: u64,
    peak: u64,
    at_peak: [(u64, u64); 4],
}

impl Model {
    fn birth(&mut self, address: u64, ring: usize, size: u64, stack: usize) {
        self.births[ring] += 1;
        self.allocations += 1;
        let block = ModelBlock {
            size,
            stack,
            ring,
            birth: self.births[ring],
        };
        self.live.insert(address, block);
        for counters in [&mut self.sites[stack], &mut self.threads[ring]] {
            counters.live_bytes += size;
            counters.live_blocks += 1;
            counters.total_bytes += size;
            counters.total_blocks += 1;
        }
        self.look_at_peak();
    }

    fn death(&mut self, address: u64, ring: usize) {
        let block = self.live.remove(&address).unwrap();
        self.frees += 1;
        let is_temporary = block.ring == ring && self.births[ring] - block.birth < self.window;
        for counters in [&mut self.sites[block.stack], &mut self.threads[block.ring]] {
            counters.live_bytes -= block.size;
            counters.live_blocks -= 1;
            counters.temporary_blocks += u64::from(is_temporary);
        }
    }

    fn resize(&mut self, address: u64, size: u64) {
        let block = self.live.get_mut(&address).unwrap();
        let old = std::mem::replace(&mut block.size, size);
        let block = *block;
        self.allocations += 1;
        for counters in [&mut self.sites[block.stack], &mut self.threads[block.ring]] {
            counters.live_bytes = counters.live_bytes + size - old;
            counters.total_bytes += size.saturating_sub(old);
            counters.resizes += 1;
        }
        self.look_at_peak();
    }

    fn look_at_peak(&mut self) {
        let live: u64 = self.sites.iter().map(|site| site.live_bytes).sum();
        if live > self.peak {
            self.peak = live;
            for (at, site) in self.at_peak.iter_mut().zip(&self.sites) {
                *at = (site.live_bytes, site.live_blocks);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever three threads do with common addresses, all figures equal
    /// those of a map that was told the same.
    #[test]
    fn figures_equal_the_truth(steps in steps(), window in 1..4u32) {
        let (mut engine, records) = engine(RING_BYTES, window);
        let mut process = FakeProcess::join(&mut engine, 1);
        let mut rings: Vec<FakeRing> = (0..3).map(|tid| process.thread(tid)).collect();
        let stacks: Vec<u32> = (0..4).map(|at| process.native(0, 0x100 + at)).collect();
        let mut model = Model { window: window.into(), ..Model::default() };
        for step in steps {
            match step {
                Step::Alloc { ring, address, size, stack } if !model.live.contains_key(&address) => {
                    process.alloc(&mut rings[ring], address, size, stacks[stack]);
                    model.birth(address, ring, size, stack);
                }
                Step::Free { ring, address } if model.live.contains_key(&address) => {
                    process.free(&mut rings[ring], address);
                    model.death(address, ring);
                }
                Step::Resize { ring, address, size } if model.live.contains_key(&address) => {
                    rings[ring].emit(&[head(Kind::ReallocStart, 0, address), process.now()]);
                    rings[ring].emit(&[
                        head(Kind::ReallocEndLarge, 0, address),
                        process.now(),
                        stacks[0].into(),
                        size,
                    ]);
                    model.resize(address, size);
                }
                Step::Move { ring, address, to, size, stack }
                    if model.live.contains_key(&address) && !model.live.contains_key(&to) =>
                {
                    rings[ring].emit(&[head(Kind::ReallocStart, 0, address), process.now()]);
                    rings[ring].emit(&[
                        head(Kind::ReallocEnd, 0, to),
                        process.now(),
                        size << 32 | u64::from(stacks[stack]),
                    ]);
                    model.death(address, ring);
                    model.birth(to, ring, size, stack);
                }
                Step::Fail { ring, address } if model.live.contains_key(&address) => {
                    rings[ring].emit(&[head(Kind::ReallocStart, 0, address), process.now()]);
                    rings[ring].emit(&[head(Kind::ReallocFail, 0, address), process.now()]);
                }
                Step::Round => drop(engine.round()),
                _ => {}
            }
        }
        engine.round();
        end(&mut engine);

        let counters = records.counters();
        let mut expected_peak = Vec::new();
        for (at, truth) in model.sites.iter().enumerate() {
            if truth.total_blocks == 0 {
                continue;
            }
            let site = site_at(&records, 0, 0x100 + at as u64);
            prop_assert_eq!(&counters[&site], truth);
            let (bytes, blocks) = model.at_peak[at];
            if blocks > 0 {
                expected_peak.push((site, bytes, blocks));
            }
        }
        expected_peak.sort_unstable();
        let threads: BTreeMap<u32, Counters> = records
            .pick(|record| match record {
                Record::ThreadTotals(totals) => Some((totals.thread, totals.counters)),
                _ => None,
            })
            .into_iter()
            .collect();
        let tids = records.pick(|record| match record {
            Record::Thread(thread) => Some(thread.tid),
            _ => None,
        });
        for (thread, tid) in (0..).zip(tids) {
            let told = threads.get(&thread).copied().unwrap_or_default();
            prop_assert_eq!(told, model.threads[tid as usize]);
        }
        let totals = totals(&records, 0);
        prop_assert_eq!(totals.allocations, model.allocations);
        prop_assert_eq!(totals.frees, model.frees);
        prop_assert_eq!(totals.live_blocks, model.live.len() as u64);
        prop_assert_eq!((totals.unknown_frees, totals.implied_frees), (0, 0));
        prop_assert_eq!(totals.peak_bytes, model.peak);
        if model.peak > 0 {
            prop_assert_eq!(peak(&records, None).sites, expected_peak);
        }
    }

    /// Any words at all: no panic, and the collector goes on.
    #[test]
    fn any_words_are_survived(
        words in prop::collection::vec(
            prop_oneof![
                any::<u64>(),
                (0..17u64, 0..6u64, 0..64u64).prop_map(|(kind, detail, value)| {
                    kind << 56 | detail << 48 | value << 4
                }),
                0..200u64,
            ],
            1..300,
        ),
    ) {
        let (mut engine, _) = engine(RING_BYTES, 1);
        let mut process = FakeProcess::join(&mut engine, 1);
        let mut ring = process.thread(1);
        process.native(0, 1);
        ring.emit(&words);
        engine.round();
        end(&mut engine);
    }
}

#[test]
fn a_snapshot_is_exact_whenever_it_is_taken() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let mut process = FakeProcess::join(&mut engine, 77);
    let mut ring = process.thread(77);
    let module = process.define_module(&mut ring, "/lib/a.so");
    let stack = process.native(module, 0x10);
    for block in 0..10 {
        process.alloc(&mut ring, 0x1000 + block * 64, 48, stack);
    }
    let before = engine.snapshot("before").unwrap();
    assert_eq!((before.live_blocks, before.live_bytes), (10, 480));
    for block in 10..17 {
        process.alloc(&mut ring, 0x1000 + block * 64, 48, stack);
    }
    process.free(&mut ring, 0x1000);
    let after = engine.snapshot("after").unwrap();
    assert_eq!((after.live_blocks, after.processes), (16, 1));
    assert!(after.at_ns > before.at_ns);
    process.alloc(&mut ring, 0x9000, 48, stack);
    end(&mut engine);
    // At each mark a bin ends, and what all bins up to there tell is the truth.
    let mut seen = Counters::default();
    let mut told = BTreeMap::new();
    let mut bin_ns = 0;
    for record in records.all() {
        match record {
            Record::Bin(bin) => {
                assert!(bin.end_ns >= bin_ns, "bins go back in time");
                bin_ns = bin.end_ns;
                for point in &bin.points {
                    seen.live_blocks = seen.live_blocks.wrapping_add_signed(point.live_blocks);
                    seen.total_blocks = seen.total_blocks.wrapping_add_signed(point.total_blocks);
                }
            }
            Record::Mark(mark) => {
                assert_eq!((mark.at_ns, mark.process), (bin_ns, None));
                told.insert(mark.name, (mark.at_ns, seen));
            }
            _ => {}
        }
    }
    for (snapshot, name, live, total) in [(&before, "before", 10, 10), (&after, "after", 16, 17)] {
        let (at_ns, counters) = told[name];
        assert_eq!(at_ns, snapshot.at_ns);
        assert_eq!((counters.live_blocks, counters.total_blocks), (live, total));
    }
    assert_eq!(seen.live_blocks, 17);
    // What was born after a mark is told apart from what was born before it.
    let cohorts = records.pick(|record| match record {
        Record::Cohorts(cohorts) => Some((cohorts.at_ns, cohorts.is_boundary)),
        _ => None,
    });
    assert!(cohorts.contains(&(before.at_ns, true)));
    assert!(cohorts.contains(&(after.at_ns, true)));
}

#[test]
fn names_of_snapshots_are_of_use() {
    let (mut engine, records) = engine(RING_BYTES, 1);
    let long = "x".repeat(65);
    for wrong in ["", " ", " a", "a\n", "\x1b[2J", "main left", long.as_str()] {
        assert!(engine.snapshot(wrong).is_err(), "{wrong:?}");
    }
    assert!(engine.snapshot("deploy 4711, dévelopment").is_ok());
    assert!(engine.snapshot(&long[1..]).is_ok());
    let twice = engine.snapshot(&long[1..]).unwrap_err();
    assert!(twice.contains("already"), "{twice}");
    let status = engine.status(true);
    assert_eq!(
        status.snapshots,
        ["deploy 4711, dévelopment", &long[1..]].map(str::to_owned)
    );
    assert!(status.attached && status.is_on);
    end(&mut engine);
    let marks = records.pick(|record| matches!(record, Record::Mark(_)).then_some(()));
    assert_eq!(marks.len(), 2);
}
