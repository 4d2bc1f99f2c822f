//! What a recording survives, from the outside: through files only.

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, FILE_HEADER_BYTES, KIND_RECORDS, put_length};
use crate::ids::{Ids, kind, placeholder};
use crate::record::{
    Bin, Code, CohortChange, Counters, Domain, End, Frame, Mark, Module, Node, Packed, PageCost,
    Point, ProcessEnd, Record, Session, Site, SiteCohorts, Thread,
};
use crate::{Damage, OpenError, Reader, Recording, Writer};
use arbitrary::{Arbitrary as _, Unstructured};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use tempfile::NamedTempFile;

/// Shared with the fuzz target.
#[path = "../../../tests/fuzz/src/body.rs"]
mod body;

fn of(record: &Record) -> u8 {
    postcard::to_stdvec(record).unwrap()[0]
}

fn session() -> Record {
    Record::Session(Session {
        started_unix_ns: 1_700_000_000_000_000_000,
        leakline: "0.1.0".into(),
        command: vec![b"python3".to_vec(), b"app.py".to_vec()],
        mode: "exact".into(),
        sample_bytes: 0,
        python: true,
        native: true,
        host: "box".into(),
        temporary_window: 1,
    })
}

fn process() -> Record {
    placeholder(kind::PROCESS).unwrap()
}

fn site(node: u32) -> Record {
    Record::Site(Site {
        process: 0,
        node,
        domain: Domain::Native,
    })
}

fn mark(name: &str) -> Record {
    Record::Mark(Mark {
        name: name.into(),
        at_ns: 7,
        process: None,
    })
}

fn bin(end_ns: u64, moves: &[(u32, i64)]) -> Record {
    let points = moves.iter().map(|&(site, live_bytes)| Point {
        site,
        live_bytes,
        live_blocks: 1,
        total_bytes: live_bytes.abs(),
        total_blocks: 1,
        temporary_blocks: 0,
        resizes: 0,
    });
    Record::Bin(Bin {
        end_ns,
        points: points.collect(),
        ..Bin::default()
    })
}

fn end() -> Record {
    Record::End(End {
        at_ns: 9,
        reason: "exited".into(),
    })
}

/// Writes a chunk for each group of records; the file's bytes.
fn written<'a>(groups: impl IntoIterator<Item = &'a [Record]>) -> Vec<u8> {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    for group in groups {
        for record in group {
            writer.push(record.clone());
        }
        writer.flush().unwrap();
    }
    let bytes = fs::read(file.path()).unwrap();
    assert_eq!(writer.bytes(), bytes.len() as u64);
    bytes
}

fn read(bytes: &[u8]) -> Result<Recording<Cursor<&[u8]>>, OpenError> {
    Recording::new(Reader::new(Cursor::new(bytes), Path::new("x.leakline"))?)
}

/// Where the chunks of an undamaged file begin and end.
fn chunks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = FILE_HEADER_BYTES;
    let mut chunks = Vec::new();
    while at < bytes.len() {
        let header = ChunkHeader::decode(bytes[at..].first_chunk().unwrap()).unwrap();
        let end = at + header.chunk_bytes() as usize;
        chunks.push(at..end);
        at = end;
    }
    chunks
}

/// A chunk of framed records, made by hand.
fn chunk_of(sequence: u64, base: Ids, records: &[&[u8]]) -> Vec<u8> {
    let mut content = Vec::new();
    for record in records {
        put_length(&mut content, record.len());
        content.extend_from_slice(record);
    }
    let payload = zstd::bulk::compress(&content, 1).unwrap();
    let header = ChunkHeader {
        kind: KIND_RECORDS,
        flags: 0,
        payload_bytes: payload.len() as u32,
        content_bytes: content.len() as u32,
        checksum: crc32fast::hash(&payload),
        sequence,
        records: records.len() as u32,
        base,
    };
    [&header.encode()[..], &payload].concat()
}

/// Any record, of a few hundred bytes at most.
fn record() -> impl Strategy<Value = Record> {
    proptest::collection::vec(any::<u8>(), 8..400)
        .prop_map(|bytes| Record::arbitrary(&mut Unstructured::new(&bytes)).unwrap())
}

/// Makes an arbitrary record name only ids that exist.
fn fit(record: &mut Record, ids: Ids) -> bool {
    fn below(id: &mut u32, count: u32) -> bool {
        *id = id.checked_rem(count).unwrap_or(0);
        count > 0
    }
    fn maybe(id: &mut Option<u32>, count: u32) {
        *id = id.and_then(|id| id.checked_rem(count));
    }
    match record {
        Record::Process(process) => maybe(&mut process.parent, ids.processes),
        Record::ProcessEnd(end) => return below(&mut end.process, ids.processes),
        Record::Thread(thread) => return below(&mut thread.process, ids.processes),
        Record::Node(node) => {
            below(&mut node.parent, ids.nodes + 1);
            return match &mut node.frame {
                Frame::Native { module, .. } => {
                    maybe(module, ids.modules);
                    true
                }
                Frame::Python { code, .. } => below(code, ids.codes),
                Frame::Pair { python } => below(python, ids.nodes + 1),
                Frame::Truncated | Frame::Broken | Frame::Switched => true,
            };
        }
        Record::Site(site) => {
            below(&mut site.node, ids.nodes + 1);
            return below(&mut site.process, ids.processes);
        }
        Record::Symbols(symbols) => return below(&mut symbols.module, ids.modules),
        Record::Bin(bin) => {
            bin.rss
                .retain_mut(|(process, _)| below(process, ids.processes));
            bin.points
                .retain_mut(|point| below(&mut point.site, ids.sites));
            bin.points.sort_by_key(|point| point.site);
            bin.points.dedup_by_key(|point| point.site);
        }
        Record::Scatter(scatter) => {
            let sites = &mut scatter.sites;
            sites.retain_mut(|site| below(&mut site.site, ids.sites));
            sites.sort_by_key(|site| site.site);
            sites.dedup_by_key(|site| site.site);
        }
        Record::Peak(peak) => {
            maybe(&mut peak.process, ids.processes);
            peak.sites.retain_mut(|(site, ..)| below(site, ids.sites));
        }
        Record::Inherited(inherited) => {
            inherited
                .sites
                .retain_mut(|(site, ..)| below(site, ids.sites));
            return below(&mut inherited.process, ids.processes);
        }
        Record::Cohorts(cohorts) => {
            // Hardly any bytes are a list.
            let mut sites = vec![SiteCohorts {
                site: cohorts.tick,
                level: 3,
                cohorts: vec![CohortChange::none(cohorts.tick)],
            }];
            sites.retain_mut(|site| below(&mut site.site, ids.sites));
            cohorts.sites = Packed::new(&sites);
        }
        Record::HeapGraph(graph) => return below(&mut graph.process, ids.processes),
        Record::Limits(limits) => return below(&mut limits.process, ids.processes),
        Record::Lost(lost) => {
            let sites = &mut lost.sites;
            sites.retain_mut(|site| below(&mut site.site, ids.sites));
            sites.sort_by_key(|site| site.site);
            sites.dedup_by_key(|site| site.site);
            return below(&mut lost.process, ids.processes);
        }
        Record::Ledger(ledger) => return below(&mut ledger.process, ids.processes),
        Record::Inventory(inventory) => return below(&mut inventory.process, ids.processes),
        Record::PageCost(cost) => {
            let sites = &mut cost.sites;
            sites.retain_mut(|(site, _)| below(site, ids.sites));
            sites.sort_by_key(|(site, _)| *site);
            sites.dedup_by_key(|(site, _)| *site);
            return below(&mut cost.process, ids.processes);
        }
        Record::Totals(totals) => return below(&mut totals.process, ids.processes),
        Record::ThreadTotals(totals) => return below(&mut totals.thread, ids.threads),
        Record::Loss(loss) => return below(&mut loss.process, ids.processes),
        Record::Mark(mark) => maybe(&mut mark.process, ids.processes),
        Record::Session(_)
        | Record::Module(_)
        | Record::Code(_)
        | Record::Sizes(_)
        | Record::Source(_)
        | Record::Note(_)
        | Record::Sampling(_)
        | Record::HeapPart(_)
        | Record::End(_) => {}
    }
    true
}

/// A sequence of records that a collector could have written.
fn sensible(arbitrary: Vec<Record>) -> Vec<Record> {
    let mut ids = Ids::default();
    let mut records = vec![session()];
    for mut record in arbitrary {
        if fit(&mut record, ids) {
            ids.count(of(&record));
            records.push(record);
        }
    }
    records
}

/// The naive reading of points: sums by site.
fn live_bytes(records: &[Record]) -> BTreeMap<u32, i64> {
    let mut sums = BTreeMap::new();
    for record in records {
        if let Record::Bin(bin) = record {
            for point in &bin.points {
                *sums.entry(point.site).or_default() += point.live_bytes;
            }
        }
    }
    sums
}

/// Ten chunks with every numbered kind.
fn example() -> (Vec<Vec<Record>>, Vec<u8>) {
    let mut groups = vec![vec![session(), process()]];
    for i in 0..8 {
        groups.push(vec![
            Record::Thread(Thread {
                process: 0,
                tid: i,
                name: format!("worker-{i}"),
                at_ns: 3,
            }),
            Record::Module(Module {
                path: vec![b'a'; 9],
                build_id: vec![i as u8; 20],
            }),
            Record::Code(Code {
                file: "app.py".into(),
                name: format!("f{i}"),
                first_line: i,
                lines: vec![(0, 1), (6, 2)],
            }),
            Record::Node(Node {
                parent: i,
                frame: Frame::Python {
                    code: i,
                    offset: 2,
                    entry: true,
                },
            }),
            site(i + 1),
            bin(
                u64::from(i),
                &[(0, 100), (i, 1000 + i64::from(i))][usize::from(i == 0)..],
            ),
        ]);
    }
    groups.push(vec![end()]);
    let bytes = written(groups.iter().map(Vec::as_slice));
    (groups, bytes)
}

#[test]
fn kinds_have_the_numbers_of_the_format() {
    assert_eq!(of(&session()), kind::SESSION);
    for numbered in [
        kind::PROCESS,
        kind::THREAD,
        kind::MODULE,
        kind::CODE,
        kind::NODE,
        kind::SITE,
    ] {
        assert_eq!(of(&placeholder(numbered).unwrap()), numbered);
    }
    assert_eq!(of(&Record::Bin(Bin::default())), kind::BIN);
    assert_eq!(of(&end()), kind::END);
}

/// docs/format.md says what each byte means: with all of them 1, every list
/// and option has one entry, and a field that moves, or changes its type,
/// shows.
#[test]
fn fields_are_those_of_the_format() {
    let mut words = String::new();
    for kind in 0..=kind::LAST {
        let mut bytes = [1; 100];
        bytes[0] = kind;
        let (record, rest): (Record, _) = postcard::take_from_bytes(&bytes).unwrap();
        writeln!(words, "{} {record:?}", bytes.len() - rest.len()).unwrap();
    }
    insta::assert_snapshot!(words, @r#"
    15 Session(Session { started_unix_ns: 1, leakline: "\u{1}", command: [[1]], mode: "\u{1}", sample_bytes: 1, python: true, native: true, host: "\u{1}", temporary_window: 1 })
    16 Process(Process { pid: 1, start_ticks: 1, parent: Some(1), parent_pid: 1, at_ns: 1, executable: [1], command: [[1]], exec: true, python_version: 1, inherited_blocks: 1, inherited_bytes: 1 })
    8 ProcessEnd(ProcessEnd { process: 1, at_ns: 1, exit_status: Some(-1), signal: Some(-1), exec: true })
    6 Thread(Thread { process: 1, tid: 1, name: "\u{1}", at_ns: 1 })
    5 Module(Module { path: [1], build_id: [1] })
    9 Code(Code { file: "\u{1}", name: "\u{1}", first_line: 1, lines: [(1, 1)] })
    6 Node(Node { parent: 1, frame: Python { code: 1, offset: 1, entry: true } })
    4 Site(Site { process: 1, node: 1, domain: Raw })
    15 Symbols(Symbols { module: 1, addresses: [(1, [SymbolFrame { function: "\u{1}", file: "\u{1}", line: 1, inlined: true, beyond: 1 }])], note: Some("\u{1}") })
    13 Bin(Bin { end_ns: 1, live_bytes: 1, live_blocks: 1, max_bytes: 1, rss: [(1, 1)], points: [Point { site: 1, live_bytes: -1, live_blocks: 0, total_bytes: 0, total_blocks: 0, temporary_blocks: 0, resizes: 0 }], complete: true })
    10 Peak(Peak { process: Some(1), at_ns: 1, live_bytes: 1, live_blocks: 1, sites: [(1, 1, 0)] })
    4 Sizes(Sizes { classes: [(1, 1)] })
    19 Totals(ProcessTotals { process: 1, allocations: 1, frees: 1, allocated_bytes: 1, live_blocks: 1, live_bytes: 1, peak_bytes: 1, temporary_blocks: 1, resizes: 1, unknown_frees: 1, implied_frees: 1, events: 1, lost_events: 1, lost_bytes: 1, stalled_ns: 1, truncated_stacks: 1, broken_unwinds: 1, malformed_events: 1 })
    8 ThreadTotals(ThreadTotals { thread: 1, counters: Counters { live_bytes: 1, live_blocks: 1, total_bytes: 1, total_blocks: 1, temporary_blocks: 1, resizes: 1 } })
    4 Loss(Loss { process: 1, at_ns: 1, events: 1 })
    6 Mark(Mark { name: "\u{1}", at_ns: 1, process: Some(1) })
    7 Source(Source { file: "\u{1}", lines: [(1, "\u{1}")] })
    4 Note(Note { at_ns: 1, text: "\u{1}" })
    4 End(End { at_ns: 1, reason: "\u{1}" })
    6 Inherited(Inherited { process: 1, sites: [(1, 1, 0)] })
    6 Cohorts(Cohorts { at_ns: 1, tick: 1, is_boundary: true, sites: Packed([1]) })
    3 Sampling(Sampling { at_ns: 1, mean_bytes: 1 })
    7 Scatter(Scatter { sites: [SiteScatter { site: 1, live_bytes: 1, live_blocks: 1, total_bytes: 1, total_blocks: 1 }] })
    8 HeapGraph(HeapGraph { graph: 1, process: 1, at_ns: 1, name: "\u{1}", paused_ns: 1, values: true })
    6 HeapPart(HeapPart { graph: 1, entries: [1], sites: [1] })
    32 Lost(Lost { graph: 1, process: 1, at_ns: 1, name: "\u{1}", paused_ns: 1, why: "\u{1}", knows_all: true, threads: 1, before: 1, blocks: 1, bytes: 1, root_bytes: 1, block_bytes: 1, unread_bytes: 1, microseconds: 1, sites: [LostSite { site: 1, known: 1, lost: 1, direct_blocks: 1, direct_bytes: 1, indirect_blocks: 1, indirect_bytes: 1, again_blocks: 1, again_bytes: 1, inner_blocks: 1, inner_bytes: 1, examples: [1] }] })
    8 Limits(Limits { process: 1, at_ns: 1, rss_bytes: 1, limits: [Limit { of: AddressSpace, bytes: 1, used_bytes: 1 }] })
    30 Ledger(Ledger { process: 1, at_ns: 1, name: "\u{1}", microseconds: 1, parts: [(1, 1)], swapped_bytes: 1, arenas: 1, trimmable_bytes: 1, free_of_threads_bytes: 1, mapped_bytes: 1, python_arenas: 1, sparse_arenas: 1, sparse_live_bytes: 1, stacks: 1, largest_file: Some(([1], 1)), is_python: true, allocators: [("\u{1}", 1, 1)], not_read: "\u{1}" })
    13 PageCost(PageCost { process: 1, at_ns: 1, name: "\u{1}", one_of: 1, pages: 1, block_bytes: 1, sites: [(1, 1)], is_resident: true, unasked: 1 })
    16 Inventory(Inventory { process: 1, at_ns: 1, name: "\u{1}", microseconds: 1, types: [OfType { name: "\u{1}", objects: 1, bytes: 1 }], others: (1, 1, 1), rest_bytes: 1, unread_bytes: 1 })
    "#);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn records_come_back_as_they_were(
        arbitrary in proptest::collection::vec(record(), 0..60),
        chunk in 1usize..20,
    ) {
        let records = sensible(arbitrary);
        let bytes = written(records.chunks(chunk));
        let recording = read(&bytes).unwrap();
        prop_assert_eq!(recording.records(), &records);
        prop_assert_eq!(recording.warnings(), &[] as &[String]);
        prop_assert_eq!(recording.ended(), records.iter().any(|r| matches!(r, Record::End(_))));
    }

    #[test]
    fn any_content_of_a_whole_chunk_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        body::run(&bytes);
    }

    #[test]
    fn any_records_of_a_whole_chunk_are_survived(
        records in proptest::collection::vec(record(), 0..40),
    ) {
        let records: Vec<_> = records.iter().map(|r| postcard::to_stdvec(r).unwrap()).collect();
        let records: Vec<_> = records.iter().map(Vec::as_slice).collect();
        body::check(&[&written([&[session()][..]])[..], &chunk_of(1, Ids::default(), &records)].concat());
    }
}

/// One way to spoil a file.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: usize, mask: u8 },
    Cut { at: usize },
    Delete { at: usize, length: usize },
    Insert { at: usize, bytes: Vec<u8> },
    Zero { at: usize, length: usize },
    Repeat { at: usize, length: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || any::<usize>();
    prop_oneof![
        (at(), 1u8..).prop_map(|(at, mask)| Mutation::Flip { at, mask }),
        at().prop_map(|at| Mutation::Cut { at }),
        (at(), 1usize..200).prop_map(|(at, length)| Mutation::Delete { at, length }),
        (at(), proptest::collection::vec(any::<u8>(), 1..100))
            .prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        (at(), 1usize..5000).prop_map(|(at, length)| Mutation::Zero { at, length }),
        (at(), 1usize..500).prop_map(|(at, length)| Mutation::Repeat { at, length }),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, length: usize| {
            let at = at % (bytes.len() + 1);
            at..(at + length).min(bytes.len())
        };
        match self {
            Mutation::Flip { at, mask } => {
                let at = at.checked_rem(bytes.len()).unwrap_or(0);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Mutation::Cut { at } => bytes.truncate(place(*at, 0).start),
            Mutation::Delete { at, length } => drop(bytes.drain(place(*at, *length))),
            Mutation::Insert { at, bytes: new } => {
                drop(bytes.splice(place(*at, 0), new.iter().copied()));
            }
            Mutation::Zero { at, length } => {
                let place = place(*at, *length);
                bytes[place].fill(0);
            }
            Mutation::Repeat { at, length } => {
                let place = place(*at, *length);
                let again = bytes[place.clone()].to_vec();
                drop(bytes.splice(place.end..place.end, again));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic_and_are_never_silent(
        mutations in proptest::collection::vec(mutation(), 1..4),
    ) {
        thread_local!(static EXAMPLE: (Vec<Vec<Record>>, Vec<u8>) = example());
        let (groups, whole) = EXAMPLE.with(Clone::clone);
        let mut bytes = whole.clone();
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        body::check(&bytes);
        if let Ok(recording) = read(&bytes)
            && recording.warnings().is_empty()
        {
            // Only what a kill leaves, a file that ends after some chunk, is
            // without a warning (a repeated empty span changes nothing).
            let all = groups.concat();
            prop_assert!(all.starts_with(recording.records()));
            prop_assert_eq!(recording.ended(), recording.records().len() == all.len());
        }
    }
}

#[test]
fn a_file_cut_anywhere_holds_every_whole_chunk() {
    let (groups, bytes) = example();
    let ends: Vec<_> = chunks(&bytes).into_iter().map(|chunk| chunk.end).collect();
    for length in 0..bytes.len() {
        let whole = ends.iter().filter(|&&end| end <= length).count();
        match read(&bytes[..length]) {
            Ok(recording) => {
                assert_eq!(
                    recording.records(),
                    groups[..whole].concat(),
                    "cut at {length}"
                );
                assert!(!recording.ended());
                let cut = length
                    - if whole == 0 {
                        FILE_HEADER_BYTES
                    } else {
                        ends[whole - 1]
                    };
                assert_eq!(
                    recording.warnings().len(),
                    usize::from(cut > 0),
                    "cut at {length}"
                );
            }
            Err(error) => {
                assert!(length < FILE_HEADER_BYTES, "cut at {length}: {error}");
                assert!(matches!(error, OpenError::Empty { .. }));
            }
        }
    }
}

#[test]
fn a_damaged_chunk_shifts_no_ids_and_is_counted() {
    let (groups, whole) = example();
    let places = chunks(&whole);
    for (i, place) in places.iter().enumerate().take(places.len() - 1) {
        for at in [place.start, place.start + 30, place.end - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            let recording = read(&bytes).unwrap();
            // Numbered records keep their numbers; what is lost is empty.
            let numbered = |records: &[Record], of_kind: u8| -> Vec<Record> {
                records
                    .iter()
                    .filter(|record| of(record) == of_kind)
                    .cloned()
                    .collect()
            };
            for of_kind in [
                kind::PROCESS,
                kind::THREAD,
                kind::MODULE,
                kind::CODE,
                kind::NODE,
                kind::SITE,
            ] {
                let mut expected = numbered(&groups.concat(), of_kind);
                let before = numbered(&groups[..i].concat(), of_kind).len();
                let lost = numbered(&groups[i], of_kind).len();
                expected[before..before + lost].fill(placeholder(of_kind).unwrap());
                assert_eq!(
                    numbered(recording.records(), of_kind),
                    expected,
                    "chunk {i}"
                );
            }
            assert!(matches!(recording.records()[0], Record::Session(_)));
            assert!(recording.ended());
            let damage = recording.reader().damage();
            assert_eq!(damage.skipped_chunks, 1, "chunk {i} at {at}");
            assert_eq!(damage.skipped_bytes, place.len() as u64);
            assert!(damage.sites_off);
            assert!(!recording.warnings().is_empty());
        }
    }
}

#[test]
fn the_next_chunk_is_found_wherever_it_begins() {
    // The search goes by 64 KiB: a header may lie across two steps.
    let bytes = written([&[session()][..], &[mark("found")][..]]);
    let place = chunks(&bytes)[1].start;
    for length in (1..100).chain(65_536 - 70..65_536 + 70) {
        let mut longer = bytes.clone();
        drop(longer.splice(place..place, std::iter::repeat_n(0xb7, length)));
        let recording = read(&longer).unwrap();
        assert_eq!(recording.records(), [session(), mark("found")], "{length}");
        assert_eq!(recording.reader().damage().skipped_bytes, length as u64);
    }
}

#[test]
fn figures_are_right_again_after_a_restatement() {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    let mut all = vec![session(), process(), site(0), site(0)];
    for record in &all {
        writer.push(record.clone());
    }
    for i in 0..200i64 {
        let record = bin(i as u64, &[(0, 10 + i), (1, -3)]);
        writer.push(record.clone());
        all.push(record);
        writer.flush().unwrap();
    }
    let mut bytes = fs::read(file.path()).unwrap();
    assert_eq!(
        live_bytes(read(&bytes).unwrap().records()),
        live_bytes(&all)
    );

    let lost = chunks(&bytes)[5].clone();
    bytes[lost.end - 1] ^= 1;
    let recording = read(&bytes).unwrap();
    assert_eq!(live_bytes(recording.records()), live_bytes(&all));
    assert!(!recording.reader().damage().sites_off);
    insta::assert_debug_snapshot!(recording.warnings(), @r#"
    [
        "1 chunk of the file damaged or missing (94 bytes skipped): what happened then is not in the figures",
    ]
    "#);
}

/// A process that is over is left out of restatements, and so is what a reader
/// missed of it.
#[test]
fn what_was_lost_of_a_process_that_is_over_stays_lost_and_is_told() {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    let mut all = vec![session(), process(), site(0)];
    let of_process = |process: u32| {
        let site = |record| match record {
            Record::Site(of) => Record::Site(Site { process, ..of }),
            other => other,
        };
        site(super::tests::site(0))
    };
    all.extend([process(), of_process(1), process(), of_process(2)]);
    for record in &all {
        writer.push(record.clone());
    }
    let mut push = |record: Record| {
        writer.push(record.clone());
        all.push(record);
        writer.flush().unwrap();
    };
    push(bin(1, &[(1, 50), (2, 70)]));
    let end_of = |process| {
        Record::ProcessEnd(ProcessEnd {
            process,
            at_ns: 2,
            exit_status: None,
            signal: None,
            exec: false,
        })
    };
    let last = |end_ns, moves: &[_]| match bin(end_ns, moves) {
        Record::Bin(bin) => Record::Bin(Bin {
            complete: true,
            ..bin
        }),
        other => other,
    };
    // Chunks 0 to 3: the first bin, then one's end and last points.
    push(end_of(1));
    push(last(2, &[(1, -20)]));
    // Chunk 3: the other's, who goes on with both.
    push(bin(3, &[(2, 1)]));
    for at in 0..100 {
        push(bin(4 + at, &[(0, 3), (2, 1)]));
    }
    push(end_of(2));
    push(last(200, &[(2, -9)]));
    for at in 0..100 {
        push(bin(300 + at, &[(0, 1)]));
    }
    let bytes = fs::read(file.path()).unwrap();
    assert_eq!(
        live_bytes(read(&bytes).unwrap().records()),
        live_bytes(&all)
    );
    let is_restatement = |chunk: &std::ops::Range<usize>| bytes[chunk.start + 8] == 2;
    let restatements = chunks(&bytes).into_iter().filter(is_restatement);
    assert!(restatements.count() > 3);

    // What is lost of one that goes on is mended, also of what ended before.
    let without = |chunk: usize| {
        let mut bytes = bytes.clone();
        let lost = chunks(&bytes)[chunk].clone();
        bytes[lost.end - 1] ^= 1;
        let recording = read(&bytes).unwrap();
        let off = recording.reader().damage().sites_off;
        (live_bytes(recording.records()), off)
    };
    let truth = live_bytes(&all);
    assert_eq!(without(3), (truth.clone(), false));
    // The last points of one that ended are not.
    let (found, off) = without(2);
    assert_eq!((found[&0], found[&2]), (truth[&0], truth[&2]));
    assert_eq!((found[&1], off), (50, true));
}

#[test]
fn a_recording_is_followed_while_it_is_written() {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    let mut recording = Recording::open(file.path()).unwrap();
    assert_eq!(recording.records(), []);

    writer.push(session());
    assert_eq!(recording.refresh().unwrap(), 0, "not flushed yet");
    writer.flush().unwrap();
    assert_eq!(recording.refresh().unwrap(), 1);
    assert_eq!(recording.refresh().unwrap(), 0);

    // A chunk that is only half there when the reader comes by.
    let whole = fs::read(file.path()).unwrap();
    writer.push(mark("a"));
    writer.push(end());
    writer.flush().unwrap();
    let longer = fs::read(file.path()).unwrap();
    for length in whole.len()..longer.len() {
        fs::write(file.path(), &longer[..length]).unwrap();
        assert_eq!(recording.refresh().unwrap(), 0);
        assert!(!recording.ended());
    }
    fs::write(file.path(), &longer).unwrap();
    assert_eq!(recording.refresh().unwrap(), 2);
    assert!(recording.ended());
    assert_eq!(recording.warnings(), &[] as &[String]);
    assert_eq!(recording.file_bytes(), longer.len() as u64);

    fs::write(file.path(), &whole).unwrap();
    assert!(matches!(
        recording.refresh(),
        Err(OpenError::Changed { .. })
    ));
}

#[test]
fn what_is_skimmed_is_of_all_of_the_recording() {
    let of_kind = |kind| placeholder(kind).unwrap();
    let first = [session(), process(), site(0), bin(1, &[(0, 5)]), mark("a")];
    let second = [
        of_kind(kind::CODE),
        of_kind(kind::NODE),
        of_kind(kind::THREAD),
        site(1),
        bin(2, &[(0, -5), (1, 7)]),
        mark("b"),
        end(),
    ];
    let bytes = written([&first[..], &second]);
    let read = |skims: bool| {
        let mut reader = Reader::new(Cursor::new(&bytes), Path::new("a")).unwrap();
        let mut records = Vec::new();
        let mut each = |record| records.push(record);
        if skims {
            reader.skim(&mut each).unwrap();
        } else {
            reader.read(&mut each).unwrap();
        }
        (records, reader.ended())
    };
    let (mut all, ended) = read(false);
    all.retain(|record| {
        matches!(
            record,
            Record::Session(_)
                | Record::Process(_)
                | Record::ProcessEnd(_)
                | Record::Thread(_)
                | Record::Bin(_)
                | Record::Totals(_)
                | Record::ThreadTotals(_)
                | Record::Loss(_)
                | Record::Mark(_)
                | Record::Note(_)
                | Record::End(_)
                | Record::Sampling(_)
                | Record::HeapGraph(_)
        )
    });
    for record in &mut all {
        if let Record::Bin(bin) = record {
            (bin.points, bin.complete) = (Vec::new(), false);
        }
    }
    assert!(all.len() > 5);
    assert_eq!(read(true), (all, ended));
}

#[test]
fn many_records_become_chunks_of_their_own_accord() {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    let name = "x".repeat(1000);
    writer.push(session());
    for _ in 0..5000 {
        writer.push(mark(&name));
    }
    assert!(writer.bytes() > FILE_HEADER_BYTES as u64);
    writer.flush().unwrap();
    let recording = Recording::open(file.path()).unwrap();
    assert_eq!(recording.records().len(), 5001);
    assert_eq!(chunks(&fs::read(file.path()).unwrap()).len(), 5);
}

#[test]
fn a_large_record_gets_a_chunk_of_its_own() {
    let large = Record::Module(Module {
        path: vec![b'x'; 6 << 20],
        build_id: vec![],
    });
    let records = [session(), large.clone(), process(), large, mark("last")];
    let recording = written([&records[..]]);
    let recording = read(&recording).unwrap();
    assert_eq!(recording.records(), records);
    assert_eq!(recording.warnings(), &[] as &[String]);
}

#[test]
fn what_a_file_held_before_is_gone() {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), example().1).unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    writer.push(session());
    writer.flush().unwrap();
    let recording = Recording::open(file.path()).unwrap();
    assert_eq!(recording.records(), [session()]);
    assert_eq!(recording.warnings(), &[] as &[String]);
}

#[test]
fn a_record_beyond_the_limit_is_dropped_and_the_file_says_so() {
    let huge = Record::Module(Module {
        path: vec![b'x'; 33 << 20],
        build_id: vec![],
    });
    let small = Record::Module(Module {
        path: b"/lib/b.so".to_vec(),
        build_id: vec![],
    });
    let bytes = written([&[session(), huge, small.clone()][..]]);
    let recording = read(&bytes).unwrap();
    assert_eq!(
        recording.records()[1..],
        [placeholder(kind::MODULE).unwrap(), small]
    );
    insta::assert_debug_snapshot!(recording.warnings(), @r#"
    [
        "the recorder could not write all (disk full, or a file size limit): what happened then is not in the figures",
    ]
    "#);
}

#[test]
fn what_a_newer_minor_version_adds_is_skipped_and_counted() {
    let mut bytes = written([&[session(), process()][..]]);
    let mut longer = postcard::to_stdvec(&mark("kept")).unwrap();
    longer.extend_from_slice(&[1, 2, 3]);
    let base = Ids {
        processes: 1,
        ..Ids::default()
    };
    bytes.extend(chunk_of(1, base, &[&[kind::LAST + 1, 9, 9], &longer]));
    let mut strange = chunk_of(2, base, &[&longer]);
    strange[8] = 77;
    let checksum = crc32fast::hash(&strange[..60]);
    strange[60..CHUNK_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes.extend(strange);
    let recording = read(&bytes).unwrap();
    assert_eq!(recording.records(), [session(), process(), mark("kept")]);
    assert_eq!(
        recording.reader().damage(),
        Damage {
            unknown: 2,
            ..Damage::default()
        }
    );
    insta::assert_debug_snapshot!(recording.warnings(), @r#"
    [
        "2 records left out that only a newer leakline knows",
    ]
    "#);
}

#[test]
fn fields_that_an_older_minor_version_lacks_are_zero() {
    let cost = PageCost {
        pages: 300,
        sites: vec![(0, 4096)],
        is_resident: true,
        unasked: 7,
        ..PageCost::default()
    };
    let mut shorter = postcard::to_stdvec(&Record::PageCost(cost.clone())).unwrap();
    shorter.truncate(shorter.len() - 2);
    let mut bytes = written([&[session(), process(), site(0)][..]]);
    let base = Ids {
        processes: 1,
        sites: 1,
        ..Ids::default()
    };
    bytes.extend(chunk_of(1, base, &[&shorter]));
    let now = read(&bytes).unwrap();
    assert_eq!(now.reader().damage().skipped_records, 1);
    bytes[10] = 5;
    let checksum = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
    let older = read(&bytes).unwrap();
    assert_eq!(older.reader().damage(), Damage::default());
    let expected = Record::PageCost(PageCost {
        is_resident: false,
        unasked: 0,
        ..cost
    });
    assert_eq!(older.records().last(), Some(&expected));
}

#[test]
fn records_that_name_unknown_ids_are_not_handed_on() {
    let far = postcard::to_stdvec(&site(5)).unwrap();
    let near = postcard::to_stdvec(&bin(1, &[(0, 5)])).unwrap();
    let twice = postcard::to_stdvec(&bin(2, &[(0, 5), (0, 6)])).unwrap();
    let mut bytes = written([&[session(), process()][..]]);
    bytes.extend(chunk_of(
        1,
        Ids {
            processes: 1,
            ..Ids::default()
        },
        &[&far, &near, &twice],
    ));
    let recording = read(&bytes).unwrap();
    // The site keeps its number, so the bin still finds it.
    assert_eq!(
        recording.records(),
        [
            session(),
            process(),
            placeholder(kind::SITE).unwrap(),
            bin(1, &[(0, 5)])
        ]
    );
    assert_eq!(recording.reader().damage().skipped_records, 2);
}

#[test]
fn lies_about_ids_cost_no_memory() {
    let mut bytes = written([&[session(), process()][..]]);
    let nodes = Ids {
        processes: 1,
        nodes: u32::MAX,
        ..Ids::default()
    };
    let mark = postcard::to_stdvec(&mark("x")).unwrap();
    bytes.extend(chunk_of(1, nodes, &[&mark]));
    let recording = read(&bytes).unwrap();
    assert_eq!(recording.records(), [session(), process()]);
    assert_eq!(recording.reader().damage().skipped_chunks, 1);
}

#[test]
fn a_recording_appended_to_another_is_not_mixed_in() {
    let one = written([&[session(), mark("one"), end()][..]]);
    let two = written([&[session(), mark("two"), end()][..]]);
    let both = [one, two].concat();
    let recording = read(&both).unwrap();
    assert_eq!(recording.records(), [session(), mark("one"), end()]);
    assert!(!recording.warnings().is_empty());
}

#[test]
fn what_does_not_open_says_why_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut words = String::new();
    let mut tell = |bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let error = Recording::open(&path).unwrap_err();
        writeln!(words, "error: {error}\nhint: {}", error.hint().unwrap()).unwrap();
    };
    tell(None);
    tell(Some(b""));
    tell(Some(&written([])[..20]));
    tell(Some(b"\x7fELF"));
    tell(Some(b"#!/bin/sh\nexec python3 -c 'print(1)'\n"));
    let header = |major: u16, required: u64| {
        let mut header = written([])[..FILE_HEADER_BYTES].to_vec();
        header[8..10].copy_from_slice(&major.to_le_bytes());
        header[16..24].copy_from_slice(&required.to_le_bytes());
        let checksum = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&checksum.to_le_bytes());
        header
    };
    tell(Some(&header(3, 0)));
    tell(Some(&header(1, 0)));
    tell(Some(&header(2, 6)));
    let error = Recording::open(directory.path()).unwrap_err();
    writeln!(words, "error: {error}\nhint: {}", error.hint().unwrap()).unwrap();
    let words = words.replace(&*directory.path().to_string_lossy(), "DIR");
    insta::assert_snapshot!(words, @"
    error: cannot open `DIR/x.leakline`: there is no such file
    hint: recordings are named `PROGRAM.PID.leakline` unless `-o` said otherwise
    error: `DIR/x.leakline` is empty
    hint: the recorder was stopped before it wrote anything; record again
    error: `DIR/x.leakline` is empty
    hint: the recorder was stopped before it wrote anything; record again
    error: `DIR/x.leakline` is not a leakline recording
    hint: make a recording with `leakline run -o FILE -- PROGRAM`
    error: `DIR/x.leakline` is not a leakline recording
    hint: make a recording with `leakline run -o FILE -- PROGRAM`
    error: `DIR/x.leakline` has format version 3; this leakline reads up to 2
    hint: install a newer leakline, or record again with this one
    error: `DIR/x.leakline` has format version 1; this leakline reads version 2
    hint: open it with the leakline that recorded it, or record again with this one
    error: `DIR/x.leakline` uses features of the format that this leakline does not know (0x6)
    hint: install a newer leakline, or record again with this one
    error: cannot open `DIR`: it is a directory
    hint: name a recording in it
    ");
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(
        Recording::open(&path),
        Err(OpenError::Foreign { .. })
    ));
}

#[test]
fn a_file_with_a_damaged_header_is_read_all_the_same() {
    let (groups, mut bytes) = example();
    bytes[9] ^= 0x80;
    let recording = read(&bytes).unwrap();
    assert_eq!(recording.records(), groups.concat());
    assert_eq!(recording.warnings().len(), 1);
}

#[test]
fn counters_wrap_as_they_were_written() {
    let most = Point {
        site: 0,
        live_bytes: i64::MIN,
        live_blocks: i64::MAX,
        total_bytes: -1,
        total_blocks: 1,
        temporary_blocks: 0,
        resizes: i64::MIN,
    };
    let mut counters = Counters::default();
    for _ in 0..5 {
        crate::chunk::advance(&mut counters, &most);
    }
    assert_eq!(counters.total_bytes, 5u64.wrapping_neg());
    assert_eq!(counters.live_bytes, 5u64.wrapping_mul(1 << 63));
}
