//! A compacted recording says, of what it still tells, what the whole one did.

use super::*;
use crate::cohorts::{coarsen, cohort_of};
use crate::ids::{Ids, placeholder};
use crate::record::{
    CohortChange, Cohorts, Domain, End, Inherited, Ledger, Note, Packed, Peak, Point, ProcessEnd,
    ProcessTotals, Session, Site, SiteCohorts, Sizes, Thread, ThreadTotals,
};
use crate::{OpenError, Reader, Recording};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use tempfile::NamedTempFile;

const SITES: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// After so many nanoseconds; with points; complete.
    Bin(u64, Vec<(u32, i64)>, bool),
    Mark,
    Peak(Option<u32>),
    Totals(u64),
    Sizes(u64),
    Threads(u32),
    Inherited(u64),
    Note,
    Site,
    /// The process ends, with these last points; another, with sites of its
    /// own, is what points are of from then on.
    Succeed(Vec<(u32, i64)>),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop::sample::select(vec![
        0,
        1_000_000,
        300_000_000,
        SECOND_NS,
        9 * SECOND_NS,
        400 * SECOND_NS,
        30_000 * SECOND_NS,
    ]);
    let change = prop_oneof![
        -200i64..2000,
        60_000i64..200_000,
        Just(-65_536i64),
        Just(1_000_000i64),
        Just(20_000_000i64)
    ];
    let points = prop::collection::vec((0..SITES, change), 0..4);
    let last = points.clone();
    let step = prop_oneof![
        8 => (gap, points, any::<bool>()).prop_map(|(gap, points, all)| Step::Bin(gap, points, all)),
        1 => Just(Step::Mark),
        1 => prop::option::of(0..1u32).prop_map(Step::Peak),
        1 => any::<u64>().prop_map(Step::Totals),
        1 => any::<u64>().prop_map(Step::Sizes),
        1 => (0..2u32).prop_map(Step::Threads),
        1 => any::<u64>().prop_map(Step::Inherited),
        1 => Just(Step::Note),
        1 => Just(Step::Site),
        1 => last.prop_map(Step::Succeed),
        2 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..80)
}

fn session() -> Record {
    Record::Session(Session {
        started_unix_ns: 0,
        leakline: String::new(),
        command: vec![],
        mode: "exact".into(),
        sample_bytes: 0,
        python: false,
        native: true,
        host: String::new(),
        temporary_window: 1,
    })
}

fn site(process: u32) -> Record {
    Record::Site(Site {
        process,
        node: 0,
        domain: Domain::Native,
    })
}

fn point(site: u32, bytes: i64) -> Point {
    Point {
        site,
        live_bytes: bytes,
        live_blocks: bytes.signum(),
        total_bytes: bytes.max(0),
        total_blocks: 1,
        temporary_blocks: i64::from(bytes < 0),
        resizes: 0,
    }
}

/// What a collector would write; `None` stands for a flush.
fn written(steps: &[Step]) -> Vec<Option<Record>> {
    let thread = Record::Thread(Thread {
        process: 0,
        tid: 1,
        name: String::new(),
        at_ns: 0,
    });
    let mut records = vec![session(), placeholder(kind::PROCESS).unwrap()];
    records.extend([thread.clone(), thread]);
    records.extend((0..SITES).map(|_| site(0)));
    let mut records: Vec<_> = records.into_iter().map(Some).collect();
    let mut end_ns = 0;
    let mut live = 0i64;
    let (mut process, mut sites, mut first_site) = (0, SITES, 0);
    for step in steps {
        let mut end = None;
        let record = match step {
            Step::Bin(..) | Step::Succeed(_) => {
                let (gap, points, complete) = match step {
                    Step::Bin(gap, points, complete) => (*gap, points, *complete),
                    Step::Succeed(points) => (SECOND_NS, points, true),
                    _ => unreachable!(),
                };
                if matches!(step, Step::Succeed(_)) {
                    end = Some(process);
                }
                end_ns += gap;
                let mut points: Vec<_> = points
                    .iter()
                    .map(|&(site, bytes)| point(first_site + site, bytes))
                    .collect();
                points.sort_by_key(|point| point.site);
                points.dedup_by_key(|point| point.site);
                live += points.iter().map(|point| point.live_bytes).sum::<i64>();
                Record::Bin(Bin {
                    end_ns,
                    live_bytes: live.unsigned_abs(),
                    live_blocks: points.len() as u64,
                    max_bytes: live.unsigned_abs() + gap % 1000,
                    rss: points.first().map(|_| (0, end_ns)).into_iter().collect(),
                    points,
                    complete,
                })
            }
            Step::Mark => Record::Mark(Mark {
                name: "mark".into(),
                at_ns: end_ns,
                process: None,
            }),
            Step::Peak(process) => Record::Peak(Peak {
                process: *process,
                at_ns: end_ns.saturating_sub(SECOND_NS / 2),
                live_bytes: live.unsigned_abs(),
                live_blocks: 1,
                sites: vec![(0, live.unsigned_abs(), 1)],
            }),
            Step::Totals(events) => Record::Totals(ProcessTotals {
                process: 0,
                events: *events,
                ..ProcessTotals::default()
            }),
            Step::Sizes(bytes) => Record::Sizes(Sizes {
                classes: vec![(1, *bytes)],
            }),
            Step::Threads(thread) => Record::ThreadTotals(ThreadTotals {
                thread: *thread,
                counters: Counters {
                    live_bytes: end_ns,
                    ..Counters::default()
                },
            }),
            Step::Inherited(bytes) => Record::Inherited(Inherited {
                process: 0,
                sites: vec![(0, *bytes, 1)],
            }),
            Step::Note => Record::Note(Note {
                at_ns: end_ns,
                text: "noted".into(),
            }),
            Step::Site => {
                sites += 1;
                site(process)
            }
            Step::Flush => {
                records.push(None);
                continue;
            }
        };
        if let Some(ended) = end {
            records.push(Some(Record::ProcessEnd(ProcessEnd {
                process: ended,
                at_ns: end_ns,
                exit_status: None,
                signal: None,
                exec: false,
            })));
            records.push(Some(record));
            records.push(placeholder(kind::PROCESS));
            process += 1;
            (first_site, sites) = (sites, sites + SITES);
            records.extend((0..SITES).map(|_| Some(site(process))));
        } else {
            records.push(Some(record));
        }
    }
    records
}

/// A writer to which this was written, and its file.
fn write(records: &[Option<Record>]) -> (Writer, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
    push(&mut writer, records);
    (writer, file)
}

fn push(writer: &mut Writer, records: &[Option<Record>]) {
    for record in records {
        match record {
            Some(record) => writer.push(record.clone()),
            None => writer.flush().unwrap(),
        }
    }
    writer.flush().unwrap();
}

fn compacted(writer: &Writer, detail: Detail) -> (Compacted, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    let source = writer.source().unwrap();
    let copy = compact(&source, file.reopen().unwrap(), detail, &|| true).unwrap();
    (copy, file)
}

fn read(path: &Path) -> Vec<Record> {
    let recording = Recording::open(path).unwrap();
    assert_eq!(recording.warnings(), &[] as &[String]);
    recording.records().to_vec()
}

/// The end of each bin, never falling, and where all sites stand after it.
fn states(records: &[Record]) -> Vec<(u64, &Bin, Vec<Counters>)> {
    let is_site = |record: &&Record| matches!(record, Record::Site(_));
    let count = records.iter().filter(is_site).count();
    let mut sites = vec![Counters::default(); count];
    let mut end_ns = 0;
    let mut states = Vec::new();
    for record in records {
        if let Record::Bin(bin) = record {
            for point in &bin.points {
                advance(&mut sites[point.site as usize], point);
            }
            end_ns = end_ns.max(bin.end_ns);
            states.push((end_ns, bin, sites.clone()));
        }
    }
    states
}

/// What bins with this end say, as one.
fn together(states: &[(u64, &Bin, Vec<Counters>)], end_ns: u64) -> Bin {
    let mut bins = states.iter().filter(|(end, ..)| *end == end_ns);
    let mut whole = bins.next().unwrap().1.clone();
    for (_, bin, _) in bins {
        whole.max_bytes = whole.max_bytes.max(bin.max_bytes);
        (whole.live_bytes, whole.live_blocks) = (bin.live_bytes, bin.live_blocks);
        whole.complete = bin.complete;
        if !bin.rss.is_empty() {
            whole.rss.clone_from(&bin.rss);
        }
    }
    whole
}

/// The key of a record that a later one replaces.
fn key(record: &Record) -> Option<(u8, Option<u32>)> {
    replaced_by(&postcard::to_stdvec(record).unwrap()).unwrap()
}

fn check(before: &[Record], after: &[Record], detail: Detail) {
    let plain = |records: &[Record]| -> Vec<Record> {
        let others = records.iter().filter(|record| key(record).is_none());
        others
            .filter(|record| !matches!(record, Record::Bin(_)))
            .cloned()
            .collect()
    };
    assert_eq!(plain(after), plain(before), "all else is there, in order");
    let last = |records: &[Record]| -> Vec<Record> {
        let mut last = BTreeMap::new();
        for record in records {
            key(record).and_then(|key| last.insert(key, record.clone()));
        }
        last.into_values().collect()
    };
    assert_eq!(last(after), last(before));
    let kept = after.iter().filter(|record| key(record).is_some()).count();
    assert_eq!(kept, last(before).len(), "and only the last");

    let (old, new) = (states(before), states(after));
    assert!(new.len() <= old.len());
    let points = |states: &[(u64, &Bin, Vec<Counters>)]| -> usize {
        states.iter().map(|(_, bin, _)| bin.points.len()).sum()
    };
    assert!(points(&new) <= points(&old));
    let mut from = 0;
    for (at, (end_ns, _, sites)) in new.iter().enumerate() {
        // Bins that end together count as one.
        if new.get(at + 1).is_some_and(|(next, ..)| next == end_ns) {
            continue;
        }
        let bin = &together(&new, *end_ns);
        let merged: Vec<_> = old[from..]
            .iter()
            .take_while(|(end, ..)| end <= end_ns)
            .collect();
        from += merged.len();
        let (last_ns, last_bin, last_sites) = merged.last().unwrap();
        assert_eq!(last_ns, end_ns, "a bin ends where one ended");
        let max = merged.iter().map(|(_, bin, _)| bin.max_bytes).max();
        assert_eq!(Some(bin.max_bytes), max);
        assert_eq!(
            (bin.live_bytes, bin.live_blocks),
            (last_bin.live_bytes, last_bin.live_blocks)
        );
        let rss = merged.iter().rev().find(|(_, bin, _)| !bin.rss.is_empty());
        assert_eq!(
            bin.rss,
            rss.map(|(_, bin, _)| bin.rss.clone()).unwrap_or_default()
        );
        assert!(last_bin.complete || !bin.complete);
        if bin.complete || detail == Detail::Full || at + 1 == new.len() {
            assert_eq!(bin.complete, last_bin.complete);
            assert_eq!(sites, last_sites);
        }
        for (site, truth) in sites.iter().zip(last_sites) {
            let off = site.live_bytes.abs_diff(truth.live_bytes);
            assert!(off <= MOVED_BYTES.max(site.live_bytes / 100), "{off}");
        }
    }
    assert_eq!(from, old.len());
    let ends: BTreeSet<u64> = new.iter().map(|(end, ..)| *end).collect();
    for record in before {
        if let Record::Mark(mark) = record
            && let Some((_, _, truth)) = old.iter().rfind(|(end, ..)| *end == mark.at_ns)
        {
            assert!(ends.contains(&mark.at_ns), "a mark stays");
            let at = new.iter().rfind(|(end, ..)| *end == mark.at_ns);
            assert_eq!(&at.unwrap().2, truth, "and is exact");
        }
    }
}

fn detail() -> impl Strategy<Value = Detail> {
    prop::sample::select(vec![Detail::Full, Detail::Thinned, Detail::Coarse])
}

proptest! {
    #[test]
    fn what_is_left_is_true(steps in steps(), detail in detail()) {
        let (writer, file) = write(&written(&steps));
        let (copy, compact) = compacted(&writer, detail);
        check(&read(file.path()), &read(compact.path()), detail);
        prop_assert_eq!(copy.bytes(), fs::metadata(compact.path()).unwrap().len());
        // Unpacked: what is in another order packs a little differently.
        let unpacked = |path: &Path| -> usize {
            let records = read(path);
            records.iter().map(|record| postcard::to_stdvec(record).unwrap().len()).sum()
        };
        prop_assert!(unpacked(compact.path()) <= unpacked(file.path()));
    }

    /// At the same age, a second time changes nothing.
    #[test]
    fn compacting_is_stable(steps in steps(), detail in detail()) {
        let (writer, _file) = write(&written(&steps));
        let (once, first) = compacted(&writer, detail);
        let (_, second) = compacted(&once.writer, detail);
        prop_assert_eq!(fs::read(first.path()).unwrap(), fs::read(second.path()).unwrap());
    }

    /// Recording goes on while the copy is made, and in it afterwards; again
    /// and again.
    #[test]
    fn a_writer_goes_on_in_the_copy(
        steps in steps(),
        cuts in prop::collection::vec((0..100usize, 0..100usize, detail()), 1..4),
    ) {
        let records = written(&steps);
        let (mut writer, mut file) = write(&[]);
        let mut at = 0;
        for (before, during, detail) in cuts {
            let begin = (at + before).min(records.len());
            push(&mut writer, &records[at..begin]);
            let (copy, new) = compacted(&writer, detail);
            at = (begin + during).min(records.len());
            push(&mut writer, &records[begin..at]);
            // What waits has not reached any file.
            let next = (at + 1).min(records.len());
            records[at..next].iter().flatten().for_each(|record| writer.push(record.clone()));
            at = next;
            writer.adopt(copy, || Ok(())).unwrap();
            file = new;
        }
        push(&mut writer, &records[at..]);
        let all: Vec<_> = records.into_iter().flatten().collect();
        check_loosely(&all, &read(file.path()));
        prop_assert_eq!(writer.bytes(), fs::metadata(file.path()).unwrap().len());
    }
}

/// Ledgers are fewer with age, and no other record is touched by that.
#[test]
fn old_looks_at_memory_are_left_out() {
    let ledger = |minute: u64| {
        Record::Ledger(Ledger {
            at_ns: minute * MINUTE_NS,
            ..Ledger::default()
        })
    };
    let bin = |minute: u64| {
        Record::Bin(Bin {
            end_ns: minute * MINUTE_NS,
            ..Bin::default()
        })
    };
    let mut records = vec![session(), placeholder(kind::PROCESS).unwrap()];
    records.extend((0..30).map(ledger));
    records.push(bin(3 * 24 * 60));
    let records: Vec<_> = records.into_iter().map(Some).collect();
    let (writer, _file) = write(&records);
    let (_, file) = compacted(&writer, Detail::Full);
    let left = read(file.path());
    let looks = left.iter().filter_map(|record| match record {
        Record::Ledger(ledger) => Some(ledger.at_ns / MINUTE_NS),
        _ => None,
    });
    assert_eq!(looks.collect::<Vec<_>>(), [0, 9, 19, 29]);
    assert_eq!(left.len(), 2 + 4 + 1);
}

/// What holds after several compactions at several ages.
fn check_loosely(before: &[Record], after: &[Record]) {
    let numbered = |records: &[Record]| {
        let mut ids = Ids::default();
        for record in records {
            ids.count(postcard::to_stdvec(record).unwrap()[0]);
        }
        ids
    };
    assert_eq!(numbered(before), numbered(after));
    let (old, new) = (states(before), states(after));
    assert_eq!(
        old.last().map(|last| &last.2),
        new.last().map(|last| &last.2)
    );
    let marks: Vec<_> = before
        .iter()
        .filter_map(|record| match record {
            Record::Mark(mark) => Some(mark.at_ns),
            _ => None,
        })
        .collect();
    for (end_ns, bin, sites) in &new {
        let truth = old.iter().rfind(|(end, ..)| end == end_ns);
        let (_, _, truth) = truth.expect("a bin ends where one ended");
        if bin.complete && new.iter().filter(|(end, ..)| end == end_ns).count() == 1 {
            assert_eq!(sites, truth);
        }
    }
    for mark in marks {
        let truth = old.iter().rfind(|(end, ..)| *end == mark);
        let at = new.iter().rfind(|(end, ..)| *end == mark);
        assert_eq!(truth.map(|at| &at.2), at.map(|at| &at.2));
    }
}

#[test]
fn bins_grow_with_their_age() {
    let day = 24 * 3600;
    let second = |at: u64| {
        Some(Record::Bin(Bin {
            end_ns: at * SECOND_NS,
            points: vec![point(0, 100)],
            complete: true,
            ..Bin::default()
        }))
    };
    let records: Vec<_> = written(&[])
        .into_iter()
        .chain((1..=2 * day).map(second))
        .collect();
    let (writer, _file) = write(&records);
    let within = |detail, ages: [u64; 4]| -> Vec<usize> {
        let (_copy, file) = compacted(&writer, detail);
        let records = read(file.path());
        let ends = states(&records);
        let mut from = 0;
        let mut counts = Vec::new();
        for to in ages {
            let ages = ends.iter().map(|(end, ..)| 2 * day - end / SECOND_NS);
            counts.push(ages.filter(|age| (from..to).contains(age)).count());
            from = to;
        }
        counts
    };
    let usual = [600, 660, 22 * 60, 24 * 6];
    assert_eq!(within(Detail::Full, [600, 7200, day, 2 * day]), usual);
    assert_eq!(within(Detail::Thinned, [600, 7200, day, 2 * day]), usual);
    let coarse = within(Detail::Coarse, [60, 600, 7200, 2 * day]);
    assert_eq!(coarse, [60, 54, 110, 46 * 6]);
}

#[test]
fn a_short_run_has_some_hundred_bins_at_any_length() {
    for milliseconds in [400, 1000, 3000, 10_000, 60_000, 200_000, 400_000] {
        let step = (milliseconds / 10_000).max(1);
        let bin = |at: u64| {
            Some(Record::Bin(Bin {
                end_ns: at * MILLISECOND_NS,
                complete: at / 1000 > (at - step) / 1000,
                ..Bin::default()
            }))
        };
        let records: Vec<_> = (1..=milliseconds / step).map(|at| bin(at * step)).collect();
        let (writer, _file) = write(&records);
        let (_copy, file) = compacted(&writer, Detail::Full);
        let records = read(file.path());
        let states = states(&records);
        assert!(
            (150..=512).contains(&states.len()),
            "{} in {milliseconds} ms",
            states.len()
        );
        let complete = states.iter().filter(|(_, bin, _)| bin.complete).count();
        assert_eq!(
            complete as u64,
            milliseconds / 1000,
            "those of each second stay"
        );
    }
}

/// The high-water mark is asked for by the bin that it lies in.
#[test]
fn the_bin_of_the_peak_stays() {
    let bin = |at: u64| Step::Bin(at, vec![(0, 100)], true);
    let mut steps: Vec<Step> = (0..50).map(|_| bin(SECOND_NS)).collect();
    steps.push(Step::Peak(None));
    steps.extend((0..7).map(|_| bin(SECOND_NS)));
    steps.push(bin(20_000 * SECOND_NS));
    let (writer, _file) = write(&written(&steps));
    let (_copy, file) = compacted(&writer, Detail::Thinned);
    let records = read(file.path());
    let ends: Vec<u64> = states(&records)
        .iter()
        .map(|(end, ..)| end / SECOND_NS)
        .collect();
    assert_eq!(ends, [50, 20_057]);
}

/// What a writer once had to drop stays a hole, and no more than it was.
#[test]
fn holes_stay_holes() {
    let bin = |at: u64, bytes: i64| Step::Bin(at, vec![(0, bytes)], true);
    let (mut writer, file) = write(&written(&[bin(SECOND_NS, 100), bin(SECOND_NS, 200)]));
    let mut later = writer.pushed();
    later.sites += 3;
    writer.skip_to(later).unwrap();
    let rest = written(&[bin(4 * SECOND_NS, 50), bin(50_000 * SECOND_NS, 7)]);
    push(&mut writer, &rest[9..]);
    let damage = |path: &Path| {
        let mut reader = Reader::open(path).unwrap();
        reader.read(&mut |_| {})?;
        Ok::<_, OpenError>(reader.damage())
    };
    let before = damage(file.path()).unwrap();
    assert_eq!((before.dropped, before.placeholders), (1, 3));
    let (copy, compact) = compacted(&writer, Detail::Thinned);
    assert_eq!(damage(compact.path()).unwrap(), before);
    assert_eq!(copy.writer.pushed(), writer.pushed());
}

#[test]
fn the_end_stays_the_last_record() {
    let mut records = written(&[Step::Bin(SECOND_NS, vec![(1, 5)], true)]);
    records.push(Some(Record::End(End {
        at_ns: SECOND_NS,
        reason: "exited".into(),
    })));
    let (writer, _file) = write(&records);
    let (_copy, file) = compacted(&writer, Detail::Thinned);
    let recording = Recording::open(file.path()).unwrap();
    assert!(recording.ended());
    assert!(matches!(recording.records().last(), Some(Record::End(_))));
    assert_eq!(recording.records().len(), records.len());
}

/// Only what is understood is replaced.
#[test]
fn a_damaged_file_is_not_compacted() {
    let (writer, file) = write(&written(&[Step::Bin(1, vec![(1, 5)], true), Step::Flush]));
    let bytes = fs::read(file.path()).unwrap();
    let target = NamedTempFile::new().unwrap();
    let refused = |bytes: &[u8]| {
        let mut broken = NamedTempFile::new().unwrap();
        broken.write_all(bytes).unwrap();
        let source = Source {
            file: broken.reopen().unwrap(),
            end: writer.bytes(),
        };
        compact(&source, target.reopen().unwrap(), Detail::Thinned, &|| true).map(|_| ())
    };
    refused(&bytes).unwrap();
    for at in FILE_HEADER_BYTES..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        assert!(
            matches!(refused(&broken), Err(CompactError::Damaged)),
            "byte {at}"
        );
    }
    assert!(matches!(
        refused(&bytes[..bytes.len() - 1]),
        Err(CompactError::Read(_))
    ));
    // A bin of sites that there are not.
    let mut stranger = written(&[]);
    stranger.push(Some(Record::Bin(Bin {
        points: vec![point(1 << 30, 1)],
        ..Bin::default()
    })));
    let (writer, _file) = write(&stranger);
    let source = writer.source().unwrap();
    let result = compact(&source, target.reopen().unwrap(), Detail::Full, &|| true);
    assert!(matches!(result, Err(CompactError::Damaged)));
}

#[test]
fn what_fails_leaves_the_writer_where_it_was() {
    let records = written(&[Step::Bin(1, vec![(1, 5)], true)]);
    let (mut writer, file) = write(&records);
    let target = NamedTempFile::new().unwrap();
    let source = writer.source().unwrap();
    let result = compact(&source, target.reopen().unwrap(), Detail::Full, &|| false);
    assert!(matches!(result, Err(CompactError::Cancelled)));
    // A copy that cannot be written.
    let readonly = File::open(target.path()).unwrap();
    let result = compact(&source, readonly, Detail::Full, &|| true);
    assert!(matches!(result, Err(CompactError::Write(_))));
    // One that cannot be put in its place.
    let (copy, _compact) = compacted(&writer, Detail::Full);
    let result = writer.adopt(copy, || Err(io::Error::other("moved")));
    assert!(matches!(result, Err(CompactError::Write(_))));
    push(&mut writer, &[Some(site(0))]);
    let mut expected: Vec<_> = records.into_iter().flatten().collect();
    expected.push(site(0));
    assert_eq!(read(file.path()), expected);
}

#[test]
fn empty_time_is_no_chunk() {
    let file = NamedTempFile::new().unwrap();
    let writer = Writer::new(file.reopen().unwrap()).unwrap();
    let (copy, compact) = compacted(&writer, Detail::Full);
    assert_eq!(copy.bytes(), FILE_HEADER_BYTES as u64);
    let bytes = fs::read(compact.path()).unwrap();
    let reader = Reader::new(Cursor::new(bytes), Path::new("x")).unwrap();
    assert_eq!(Recording::new(reader).unwrap().records(), &[]);
}

/// How the collector tells of cohorts, without its reasons.
#[derive(Clone, Debug)]
struct Told {
    gap_ns: u64,
    is_boundary: bool,
    /// Site, how far back the cohort began, blocks; and levels that rise.
    changes: Vec<(u32, u32, i64)>,
    rises: Vec<u32>,
}

fn told() -> impl Strategy<Value = Vec<Told>> {
    let gap = prop::sample::select(vec![
        2_000_000,
        64_000_000,
        SECOND_NS,
        30 * SECOND_NS,
        2000 * SECOND_NS,
    ]);
    let changes = prop::collection::vec((0..SITES, 0..200_000_u32, -9..9_i64), 0..6);
    let rises = prop::collection::vec(0..SITES, 0..2);
    let one = (gap, prop::bool::weighted(0.05), changes, rises);
    let one = one.prop_map(|(gap_ns, is_boundary, changes, rises)| Told {
        gap_ns,
        is_boundary,
        changes,
        rises,
    });
    prop::collection::vec(one, 1..300)
}

fn telling(all: &[Told]) -> Vec<Option<Record>> {
    let mut records = written(&[]);
    let (mut end_ns, mut tick) = (0, 0);
    let mut boundaries = Vec::new();
    let mut levels = [0_u8; SITES as usize];
    for told in all {
        end_ns += told.gap_ns;
        tick = tick.max(((end_ns - 1) / MILLISECOND_NS) as u32);
        for &site in &told.rises {
            levels[site as usize] = (levels[site as usize] + 1).min(20);
        }
        let mut sites: BTreeMap<u32, Vec<CohortChange>> = BTreeMap::new();
        for &(site, back, blocks) in &told.changes {
            let level = levels[site as usize];
            let changes = sites.entry(site).or_default();
            changes.push(CohortChange {
                start: cohort_of(tick.saturating_sub(back), level, &boundaries),
                born_blocks: blocks.max(0),
                born_bytes: 10,
                blocks,
                bytes: blocks * 16,
            });
            changes.sort_by_key(|change| change.start);
            coarsen(changes, level, &boundaries);
        }
        let points = sites.keys().map(|site| point(*site, 100)).collect();
        records.push(Some(Record::Bin(Bin {
            end_ns,
            points,
            complete: true,
            ..Bin::default()
        })));
        let sites: Vec<_> = sites
            .into_iter()
            .map(|(site, cohorts)| SiteCohorts {
                site,
                level: levels[site as usize],
                cohorts,
            })
            .collect();
        records.push(Some(Record::Cohorts(Cohorts {
            at_ns: end_ns,
            tick,
            is_boundary: told.is_boundary,
            sites: Packed::new(&sites),
        })));
        tick += 1;
        if told.is_boundary {
            boundaries.push(tick);
        }
    }
    records
}

type Sums = BTreeMap<(u32, u32), CohortChange>;

/// By instant, all sums by site and cohort, at levels that are nobody's finer;
/// and the points of that instant.
fn cohort_sums(records: &[Record]) -> BTreeMap<u64, (bool, Sums)> {
    const COARSEST: u8 = 20;
    let mut sums = Sums::new();
    let mut boundaries = Vec::new();
    let mut instants = BTreeMap::new();
    for record in records {
        let Record::Cohorts(cohorts) = record else {
            continue;
        };
        for site in cohorts.sites.unpack() {
            assert!(site.level <= COARSEST);
            for change in site.cohorts {
                let start = cohort_of(change.start, COARSEST, &boundaries);
                let sum = sums.entry((site.site, start));
                sum.or_insert(CohortChange::none(start)).add(&change);
            }
        }
        if cohorts.is_boundary {
            boundaries.push(cohorts.tick + 1);
        }
        let known: Sums = sums
            .iter()
            .filter(|(_, sum)| !sum.is_none())
            .map(|(key, sum)| (*key, *sum))
            .collect();
        instants.insert(cohorts.at_ns, (cohorts.is_boundary, known));
    }
    instants
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// At the instants at which cohorts are still told they are what they were,
    /// the bin that ends there tells everything, and no more than so many are.
    #[test]
    fn cohorts_are_what_they_were(all in told()) {
        let (writer, file) = write(&telling(&all));
        let before = read(file.path());
        let whole = cohort_sums(&before);
        for detail in [Detail::Full, Detail::Thinned, Detail::Coarse] {
            let (copy, file) = compacted(&writer, detail);
            let after = read(file.path());
            let few = cohort_sums(&after);
            for (at_ns, sums) in &few {
                prop_assert_eq!(&sums.1, &whole[at_ns].1, "{} {:?}", at_ns, detail);
            }
            let marks = whole.iter().filter(|(_, (is_boundary, _))| *is_boundary);
            for (at_ns, _) in marks.clone() {
                prop_assert!(few[at_ns].0, "a boundary stays one");
            }
            prop_assert_eq!(few.keys().last(), whole.keys().last());
            let most = if detail == Detail::Coarse { 16 } else { 64 };
            prop_assert!(few.len() <= most + marks.count() + 2, "{} {:?}", few.len(), detail);
            let (states, all_states) = (states(&after), states(&before));
            for at_ns in few.keys() {
                let (_, bin, sites) = states.iter().rfind(|state| state.0 == *at_ns).unwrap();
                prop_assert!(bin.complete);
                let all = all_states.iter().rfind(|state| state.0 == *at_ns).unwrap();
                prop_assert_eq!(sites, &all.2);
            }
            // To do it again changes nothing.
            let (_, again) = compacted(&copy.writer, detail);
            prop_assert_eq!(cohort_sums(&read(again.path())), few);
        }
    }
}
