//! A file that cannot grow: the writer goes on, keeps what it can and tells.
//!
//! A file size limit stands for a full disk: it needs no privilege and gives
//! the same short write, then an error. The limit is the whole process's, so
//! this is the only test here, and it runs in a process of its own.
#![expect(clippy::unwrap_used, reason = "a test")]

use leakline_recording::record::{
    Bin, Domain, End, Frame, Mark, Module, Node, Note, Point, Process, Record, Session, Site,
};
use leakline_recording::{Recording, Writer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

const CHILD: &str = "LEAKLINE_TEST_FULL_DISK";

#[test]
fn a_full_disk_loses_only_what_it_must_and_is_survived() {
    if let Some(path) = std::env::var_os(CHILD) {
        return fill(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    // The shell ignores SIGXFSZ for us, as the recorder does for itself.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_full_disk_loses_only_what_it_must_and_is_survived",
        ])
        .env(CHILD, &path)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Lets the file grow to at most this.
fn limit(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes.or(maximum),
            maximum,
        },
    )
    .unwrap();
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

fn process() -> Record {
    Record::Process(Process {
        pid: 1,
        start_ticks: 0,
        parent: None,
        parent_pid: 0,
        at_ns: 0,
        executable: vec![],
        command: vec![],
        exec: false,
        python_version: 0,
        inherited_blocks: 0,
        inherited_bytes: 0,
    })
}

fn node(parent: u32) -> Record {
    Record::Node(Node {
        parent,
        frame: Frame::Native {
            module: None,
            offset: u64::from(parent),
            exact: false,
            evaluator: false,
        },
    })
}

fn bin(end_ns: u64, site: u32) -> Record {
    let point = Point {
        site,
        live_bytes: 7,
        live_blocks: 1,
        total_bytes: 7,
        total_blocks: 1,
        temporary_blocks: 0,
        resizes: 0,
    };
    Record::Bin(Bin {
        end_ns,
        points: vec![point],
        ..Bin::default()
    })
}

/// Text that does not compress.
fn noise(length: usize) -> String {
    let mut state = 88_172_645_463_325_252_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b' ' + (state % 90) as u8)
        })
        .collect()
}

/// No room even for what is never dropped first: ids stay right all the same.
fn no_room_for_names(writer: &mut Writer) {
    limit(Some(writer.bytes()));
    let path = noise(1 << 20).into_bytes();
    let module = |i: u8| {
        Record::Module(Module {
            path: path.clone(),
            build_id: vec![i],
        })
    };
    for i in 0..50 {
        writer.push(module(i));
    }
    limit(None);
    writer.push(module(50));
    writer.flush().unwrap();
}

fn fill(path: &Path) {
    let mut writer = Writer::new(File::create_new(path).unwrap()).unwrap();
    let mut pushed = vec![session(), process()];
    pushed
        .iter()
        .cloned()
        .for_each(|record| writer.push(record));
    writer.flush().unwrap();
    let whole = writer.bytes();

    // A chunk that does not fit: an error, and the file as before.
    limit(Some(whole + 1000));
    let mark = Record::Mark(Mark {
        name: noise(5000),
        at_ns: 1,
        process: None,
    });
    writer.push(mark.clone());
    pushed.push(mark);
    for _ in 0..3 {
        let error = writer.flush().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
        assert!(writer.error().is_some());
        assert_eq!(fs::metadata(path).unwrap().len(), whole);
    }
    assert_eq!(Recording::open(path).unwrap().records(), &pushed[..2]);

    // There is room again: nothing is missing.
    limit(None);
    writer.flush().unwrap();
    assert!(writer.error().is_none());
    let recording = Recording::open(path).unwrap();
    assert_eq!(recording.records(), pushed);
    assert_eq!(recording.warnings(), &[] as &[String]);

    // No room for long: what waits is bounded. Stacks and sites are kept, so
    // ids stay right; bins go, and the sites are restated.
    limit(Some(writer.bytes()));
    let note = noise(100_000);
    for i in 0..1000 {
        for record in [
            node(i),
            Record::Site(Site {
                process: 0,
                node: i + 1,
                domain: Domain::Native,
            }),
            bin(u64::from(i), i),
            Record::Note(Note {
                at_ns: 0,
                text: note.clone(),
            }),
        ] {
            writer.push(record);
        }
        if i % 50 == 0 {
            let _ = writer.flush();
        }
    }
    assert!(writer.error().is_some());
    let dropped = writer.dropped();
    assert!(
        dropped.records > 500 && dropped.bytes > 30 << 20,
        "{dropped:?}"
    );
    limit(None);
    writer.flush().unwrap();
    no_room_for_names(&mut writer);
    writer.push(Record::End(End {
        at_ns: 1000,
        reason: "exited".into(),
    }));
    writer.flush().unwrap();

    let recording = Recording::open(path).unwrap();
    assert!(recording.ended());
    assert_eq!(recording.warnings().len(), 2, "{:?}", recording.warnings());
    assert!(recording.warnings()[0].contains("disk full"));
    assert!(recording.warnings()[1].contains("names"));
    let modules: Vec<_> = recording
        .records()
        .iter()
        .filter_map(|record| match record {
            Record::Module(module) => Some(module.build_id.as_slice()),
            _ => None,
        })
        .collect();
    assert_eq!(modules.len(), 51);
    assert!(modules[0].is_empty());
    assert_eq!(modules[50], [50]);
    let nodes: Vec<_> = recording
        .records()
        .iter()
        .filter(|r| matches!(r, Record::Node(_)))
        .cloned()
        .collect();
    assert_eq!(nodes, (0..1000).map(node).collect::<Vec<_>>());
    let mut live = vec![0; 1000];
    for record in recording.records() {
        if let Record::Bin(bin) = record {
            bin.points
                .iter()
                .for_each(|point| live[point.site as usize] += point.live_bytes);
        }
    }
    assert_eq!(live, [7; 1000]);
}
