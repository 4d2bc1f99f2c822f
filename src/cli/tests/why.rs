//! `leakline why` and the holders of `leakline leaks`, over files written by hand.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use leakline_recording::Writer;
use leakline_recording::record::{
    Code, Domain, End, Frame, HeapGraph, HeapPart, Node, Process, Record, Session, Site,
};
use leakline_wire::graph::{self, label, node_flag, root, status};
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;

/// A module `app` whose `JOBS`, a list, holds so many jobs of site 0.
fn part(number: u32, jobs: u64, how: u64) -> HeapPart {
    let mut entries = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    let mut writer = graph::Writer::new(&mut buffer, |blob: &[u8]| {
        entries.extend_from_slice(blob);
        true
    });
    let at = |number: u64| 0x7f00_0000_0000 + 64 * number;
    for name in ["module", "dict", "list", "app.Job"] {
        writer.type_(0, 0, name.as_bytes());
    }
    writer.name(b"__dict__");
    writer.name(b"JOBS");
    writer.root(root::MODULE, 0, b"app", b"", at(0));
    writer.node(at(0), 0, 72, 1, node_flag::TRACKED);
    writer.edge(label::ATTRIBUTE, at(1));
    writer.node(at(1), 1, 232, 1, node_flag::TRACKED);
    writer.edge(1 << label::BITS | label::NAMED_ITEM, at(2));
    writer.node(at(2), 2, 8 * jobs, 1, node_flag::TRACKED);
    for job in 0..jobs {
        writer.edge(job << label::BITS | label::INDEX, at(3 + job));
    }
    for job in 0..jobs {
        writer.node(at(3 + job), 3, 1024, 1, node_flag::TRACKED);
    }
    writer.end(how, 3 + jobs, 2 + jobs, 1000);
    let nodes = 3 + jobs;
    HeapPart {
        graph: number,
        entries,
        sites: (0..nodes).map(|node| u8::from(node >= 3)).collect(),
    }
}

fn record(path: &Path, graphs: &[(u32, u64, u64)]) {
    let mut writer = Writer::new(File::create_new(path).unwrap()).unwrap();
    let program = vec![b"python".to_vec(), b"app.py".to_vec()];
    writer.push(Record::Session(Session {
        started_unix_ns: 1_700_000_000 * SECOND,
        leakline: "0.1.0".into(),
        command: program.clone(),
        mode: "exact".into(),
        sample_bytes: 0,
        python: true,
        native: true,
        host: String::new(),
        temporary_window: 1,
    }));
    writer.push(Record::Process(Process {
        pid: 21,
        start_ticks: 1,
        parent: None,
        parent_pid: 1,
        at_ns: 0,
        executable: b"/usr/bin/python3".to_vec(),
        command: program,
        exec: false,
        python_version: 0,
        inherited_blocks: 0,
        inherited_bytes: 0,
    }));
    writer.push(Record::Code(Code {
        file: "/srv/app/jobs.py".into(),
        name: "submit".into(),
        first_line: 40,
        lines: vec![(0, 41)],
    }));
    writer.push(Record::Node(Node {
        parent: 0,
        frame: Frame::Python {
            code: 0,
            offset: 0,
            entry: true,
        },
    }));
    writer.push(Record::Site(Site {
        process: 0,
        node: 1,
        domain: Domain::Obj,
    }));
    for &(number, jobs, how) in graphs {
        writer.push(Record::HeapGraph(HeapGraph {
            graph: number,
            process: 0,
            at_ns: u64::from(number) * SECOND,
            name: format!("g{number}"),
            paused_ns: 0,
            values: false,
        }));
        writer.push(Record::HeapPart(part(number, jobs, how)));
    }
    writer.push(Record::End(End {
        at_ns: 10 * SECOND,
        reason: "exited".into(),
    }));
    writer.flush().unwrap();
}

fn why(place: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leakline"))
        .current_dir(place.path())
        .env("TZ", "UTC")
        .env_remove("COLUMNS")
        .arg("why")
        .args(arguments)
        .output()
        .unwrap()
}

fn with(graphs: &[(u32, u64, u64)]) -> TempDir {
    let place = TempDir::new().unwrap();
    record(&place.path().join("x.leakline"), graphs);
    place
}

#[test]
fn the_last_whole_graph_is_compared_with_the_first() {
    let place = with(&[
        (1, 10, status::COMPLETE),
        (2, 30, status::COMPLETE),
        (3, 50, status::OUT_OF_TIME),
    ]);
    // A sole word that names no file is the question.
    let output = why(&place, &["Job"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r"
    Job: 30 app.Job, retaining 30.0 KiB, held by one list
    heap graph 2 (`g2`, 22:13:22), compared with heap graph 1 (`g1`, 22:13:21);
          --graph 1 to 3 for others
    python app.py (pid 21), 22:13:20-22:13:30 (10.0 s), exact, complete

    module app             count  retained    since 1
    `- JOBS       list         1  30.2 KiB  +20.2 KiB
       `- [*]     app.Job     30  30.0 KiB  +20.0 KiB

    All of them by this path; no second holder.
    app.Job are made in submit app/jobs.py:41
    To let go: take out of JOBS what is done with, or give it a bound. Without JOBS
                30.2 KiB would be free: it is the only holder.

    next: leakline why   (where most memory gathers)
    ");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn questions_are_types_places_functions_sites_and_addresses() {
    let place = with(&[(1, 10, status::COMPLETE)]);
    for question in [
        "Job",
        "app.Job",
        "jobs.py:41",
        "app/jobs.py:41",
        "submit",
        "0",
    ] {
        let output = why(&place, &["x.leakline", question, "--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("\"words\":\"app.JOBS[*]\""),
            "{question}: {text}"
        );
        assert!(text.contains("\"count\":10,"), "{question}: {text}");
    }
    let output = why(&place, &["x.leakline", "0x7f0000000080"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("object        list at 0x7f0000000080"),
        "{text}"
    );
    let none = why(&place, &["x.leakline"]);
    let text = String::from_utf8_lossy(&none.stdout);
    assert!(text.contains("JOBS"), "{text}");
}

#[test]
fn graphs_have_numbers_and_names() {
    let place = with(&[(1, 10, status::COMPLETE), (2, 30, status::COMPLETE)]);
    for name in ["1", "g1"] {
        let output = why(&place, &["x.leakline", "Job", "--graph", name]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("Job: 10 app.Job"), "{text}");
    }
    let output = why(&place, &["x.leakline", "Job", "--graph", "3"]);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r"
    error: there is no heap graph `3`

    hint: there are 1 (`g1`), 2 (`g2`)
    ");
}

#[test]
fn what_is_not_there_is_said_with_the_way_out() {
    let place = with(&[]);
    let output = why(&place, &["x.leakline"]);
    assert_eq!(output.status.code(), Some(3));
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r"
    error: there is no heap graph in x.leakline

    hint: `leakline snapshot PID NAME --heap` takes one of a program that is being recorded,
          `leakline run` one at the program's end
    ");
    let place = with(&[(1, 10, status::COMPLETE)]);
    for (question, status) in [("Nothing", 3), ("L1", 3), ("0x10", 3), ("0xyz", 2)] {
        let output = why(&place, &["x.leakline", question]);
        assert_eq!(output.status.code(), Some(status), "{question}");
    }
    let output = why(&place, &["x.leakline", "Nothing"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r"
    error: no object, no place and no function is named `Nothing`

    hint: types that live are `app.Job`, `dict`, `list`, `module`; places look like `app.py:41`, names like `app.cache.SESSIONS`
    ");
}
