use super::pickle::{Dump, PickleError};
use super::*;

use leakline_recording::Reader;
use tempfile::TempDir;

/// A snapshot as CPython 3.9 to 3.14 write it: two blocks of one stack, one of NumPy's.
const SNAPSHOT: &[u8] = b"\x80\x05\x95\x80\0\0\0\0\0\0\0\x8c\x0btracemalloc\x94\x8c\x08Snapshot\x94\
\x93\x94)\x81\x94}\x94(\x8c\x06traces\x94h\x00\x8c\x07_Traces\x94\x93\x94)\x81\x94}\x94\x8c\x07_traces\
\x94]\x94((K\x00K\x64\x8c\x04a.py\x94K\x07\x86\x94h\x0cK\x09\x86\x94\x86\x94K\x02t\x94(K\x00K\x14h\x0f\
K\x02t\x94(J\xb7\xef\x05\x00M\xe8\x03h\x0d\x85\x94K\x05t\x94esb\x8c\x0ftraceback_limit\x94K\x02ub.";

/// A pickle that a reader of pickles would run.
fn malicious(call: &[u8]) -> PickleError {
    Dump::parse(call).expect_err("it is no snapshot")
}

fn sum(dump: &Dump<'_>) -> (u64, usize) {
    let traces: Vec<_> = dump.traces().map(|trace| trace.expect("a trace")).collect();
    (traces.iter().map(|trace| trace.bytes).sum(), traces.len())
}

#[test]
fn a_snapshot_is_read() {
    let dump = Dump::parse(SNAPSHOT).expect("it is one");
    assert_eq!(sum(&dump), (1120, 3));
    assert_eq!((dump.limit(), dump.len(), dump.bytes_behind()), (2, 3, 0));
    let traces: Vec<_> = dump.traces().flatten().collect();
    let frames: Vec<_> = dump.frames(traces[0].frames).flatten().collect();
    assert_eq!(frames, [("a.py".into(), 7), ("a.py".into(), 9)]);
    assert!(
        traces[0].frames == traces[1].frames,
        "one stack is one number"
    );
    assert_eq!((traces[2].domain, traces[2].total_frames), (NUMPY, Some(5)));
}

#[test]
fn what_calls_something_is_refused_by_its_name() {
    for (pickle, name) in [
        (&b"cos\nsystem\n(S'true'\ntR."[..], "os.system"),
        (
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
            "posix.system",
        ),
        (b"(S'true'\nios\nsystem\n.", ""),
        (b"(ios\nsystem\n.", "os.system"),
        (b"ctracemalloc\nos.system\n.", "tracemalloc.os.system"),
        (
            b"\x80\x04\x8c\x0btracemalloc\x8c\x05start\x93)R.",
            "tracemalloc.start",
        ),
        (b"cbuiltins\neval\n.", "builtins.eval"),
    ] {
        match malicious(pickle) {
            PickleError::Name(found) => assert_eq!(found, name),
            PickleError::Holds("a text of Python 2", 1) => assert_eq!(name, ""),
            other => panic!("{other}"),
        }
    }
    let said = malicious(b"cos\nsystem\n.").to_string();
    assert_eq!(
        said,
        "refused: the dump names `os.system`, which is no part of a tracemalloc snapshot"
    );
}

#[test]
fn names_that_are_known_are_not_called_otherwise_either() {
    // Snapshot(...) with arguments, a reconstructor of something else, a call of a
    // snapshot, a state for a class.
    for pickle in [
        &b"\x80\x02ctracemalloc\nSnapshot\nK\x01\x85\x81."[..],
        b"ccopyreg\n_reconstructor\n(ctracemalloc\nSnapshot\nctracemalloc\nSnapshot\nNtR.",
        b"ctracemalloc\nSnapshot\n)R.",
        b"ccopyreg\n_reconstructor\n)\x81.",
        b"ctracemalloc\nSnapshot\n}b.",
    ] {
        let why = malicious(pickle);
        let is_refused = matches!(why, PickleError::Holds(..) | PickleError::Damaged { .. });
        assert!(is_refused, "{why}");
    }
}

#[test]
fn what_is_no_pickle_or_of_something_else_is_said() {
    assert_eq!(
        malicious(b"").to_string(),
        "the dump is cut short: it ends at byte 0, within a value"
    );
    assert!(matches!(
        malicious(b"\x7fELF"),
        PickleError::NoOpcode { byte: 0x7f, at: 0 }
    ));
    assert!(matches!(
        malicious(b"\x80\x05}."),
        PickleError::Shape("it is of something else")
    ));
    assert!(matches!(
        malicious(b"\x80\x09."),
        PickleError::Damaged { .. }
    ));
    assert!(matches!(malicious(b"."), PickleError::Shape(_)));
}

/// Small files that would become large, or deep.
#[test]
fn bombs_are_refused() {
    let deep = [&b"\x80\x04"[..], &b"(".repeat(5000)].concat();
    assert!(matches!(malicious(&deep), PickleError::TooLarge(_)));
    let lists = [&b"\x80\x04"[..], &b"]".repeat(5000)].concat();
    assert!(matches!(malicious(&lists), PickleError::TooLarge(_)));
    // A place in the memo far away, a text that says to be huge.
    assert!(matches!(
        malicious(b"\x80\x02Nr\xff\xff\xff\x7f."),
        PickleError::Damaged { .. }
    ));
    assert!(matches!(
        malicious(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"),
        PickleError::CutShort(_)
    ));
    assert!(matches!(
        malicious(b"\x8b\xff\xff\xff\xff"),
        PickleError::CutShort(_)
    ));
    // Tuples of tuples, each twice: of no use for a list of traces.
    let laughs = [
        &b"\x80\x04N\x85\x94"[..],
        &b"h\x00h\x00\x86q\x00".repeat(60),
        b".",
    ]
    .concat();
    assert!(matches!(malicious(&laughs), PickleError::Shape(_)));
    // A list that is in itself.
    assert!(matches!(
        malicious(b"\x80\x04]\x94h\x00a."),
        PickleError::Shape(_)
    ));
}

/// Numbers from a seed: SplitMix64.
fn numbers(mut state: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % below.max(1)
    }
}

/// Whatever bytes there are: an answer, and what is read can be imported.
#[test]
fn mutated_snapshots_never_panic() {
    let mut number = numbers(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let mut bytes = SNAPSHOT.to_vec();
        for _ in 0..=number(4) {
            let at = number(bytes.len());
            match number(5) {
                0 => bytes[at] = number(256) as u8,
                1 => bytes[at] = SNAPSHOT[number(SNAPSHOT.len())],
                2 => {
                    bytes.remove(at);
                }
                3 => bytes.insert(at, number(256) as u8),
                _ => bytes.truncate(at),
            }
            if bytes.is_empty() {
                break;
            }
        }
        match Import::default().take(&bytes) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} and {refused}");
}

#[test]
fn random_opcodes_never_panic() {
    const OPCODES: &[u8] =
        b".(N)]}tl d a e s u \x94q\x00h\x00j\0\0\0\0K\x01M\x01\x02\x85\x86\x87\x93\x81Rb\
        I1\nL1L\nVa\\u0041\ncos\nx\n\x8c\x01a\x88\x8a\x01\x05";
    let mut number = numbers(2);
    for _ in 0..100_000 {
        let length = number(40);
        let bytes: Vec<u8> = (0..length)
            .map(|_| OPCODES[number(OPCODES.len())])
            .collect();
        let _ = Import::default().take(&bytes);
    }
}

fn imported(dumps: &[(&str, &[u8])]) -> (Vec<Record>, Vec<String>) {
    let directory = TempDir::new().expect("a directory");
    let mut import = Import::default();
    for (name, bytes) in dumps {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().expect("one")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        import.read(&path).expect("a snapshot");
    }
    let names = import
        .taken()
        .iter()
        .map(|taken| taken.name.clone())
        .collect();
    let path = directory.path().join("out.leakline");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .expect("a file");
    import.write(file).expect("written");
    let mut reader = Reader::open(&path).expect("a recording");
    let mut records = Vec::new();
    reader
        .read(&mut |record| records.push(record))
        .expect("records");
    assert!(reader.ended() && reader.damage().warnings().is_empty());
    (records, names)
}

#[test]
fn blocks_of_a_stack_are_a_site() {
    let (records, _) = imported(&[("one.dump", SNAPSHOT)]);
    let bins: Vec<&Bin> = records
        .iter()
        .filter_map(|record| match record {
            Record::Bin(bin) => Some(bin),
            _ => None,
        })
        .collect();
    assert_eq!(bins.len(), 1);
    assert_eq!((bins[0].live_bytes, bins[0].live_blocks), (1120, 3));
    let points: Vec<_> = bins[0]
        .points
        .iter()
        .map(|point| (point.live_bytes, point.live_blocks))
        .collect();
    assert_eq!(points, [(120, 2), (1000, 1)]);
    let domains: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Site(site) => Some(site.domain),
            _ => None,
        })
        .collect();
    assert_eq!(domains, [Domain::Python, Domain::Numpy]);
    // The second stack had five frames, of which one is known.
    let is_cut =
        |record: &&Record| matches!(record, Record::Node(node) if node.frame == Frame::Truncated);
    assert_eq!(records.iter().filter(is_cut).count(), 1);
}

#[test]
fn names_are_different_and_mean_no_other_instant() {
    let names = imported(&[
        ("a/x.dump", SNAPSHOT),
        ("b/x.dump", SNAPSHOT),
        ("end.dump", SNAPSHOT),
        ("+5s.dump", SNAPSHOT),
    ])
    .1;
    assert_eq!(names, ["x", "x-2", "dump end", "dump +5s"]);
}

#[test]
fn a_snapshot_without_blocks_is_one() {
    let empty: &[u8] =
        b"\x80\x04ctracemalloc\nSnapshot\n)\x81}(X\x06\0\0\0tracesctracemalloc\n_Traces\n)\x81}\
        X\x07\0\0\0_traces]sbX\x0f\0\0\0traceback_limitK\x01ub.";
    let (records, _) = imported(&[("full.dump", SNAPSHOT), ("empty.dump", empty)]);
    let bins = records.iter().filter_map(|record| match record {
        Record::Bin(bin) => Some((bin.live_bytes, bin.points.len())),
        _ => None,
    });
    assert_eq!(bins.collect::<Vec<_>>(), [(1120, 2), (0, 2)]);
}
