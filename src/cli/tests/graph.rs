//! A heap graph beside what Python says itself: each object's references.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]
#![expect(clippy::print_stderr, reason = "what was compared, or why nothing was")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use leakline_recording::Reader;
use leakline_recording::record::Record;
use leakline_wire::graph::{Entries, Entry, label, status};

/// What a graph says of an object: its type's address, and its edges.
#[derive(Default)]
struct Object {
    type_: u64,
    edges: Vec<(u64, u64)>,
}

fn objects(recording: &Path) -> HashMap<u64, Object> {
    let mut objects: HashMap<u64, Object> = HashMap::new();
    let (mut types, mut last, mut ended) = (Vec::new(), 0, None);
    let mut read = |entries: &[u8]| {
        let mut entries = Entries::new(entries);
        for entry in &mut entries {
            match entry {
                Entry::Type { address, .. } => types.push(address),
                Entry::Node {
                    address,
                    type_number,
                    ..
                } => {
                    last = address;
                    let type_ = types[usize::try_from(type_number).unwrap()];
                    let object = Object {
                        type_,
                        ..Object::default()
                    };
                    assert!(objects.insert(address, object).is_none(), "told of twice");
                }
                Entry::Edge { label, target } => {
                    let object = objects.get_mut(&last).unwrap();
                    object.edges.push((label & label::KIND, target));
                }
                Entry::End { status, .. } => ended = Some(status),
                _ => {}
            }
        }
        assert!(!entries.is_malformed());
    };
    Reader::open(recording)
        .unwrap()
        .read(&mut |record| {
            if let Record::HeapPart(part) = record {
                read(&part.entries);
            }
        })
        .unwrap();
    assert_eq!(ended, Some(status::COMPLETE));
    objects
}

/// What was compared, and what the graph tells besides.
#[derive(Debug, Default)]
struct Compared {
    objects: usize,
    references: usize,
    /// Keys of dicts that are all strings, which CPython does not visit.
    keys: usize,
    /// The type of an object of a class made at run time, which some types do not visit.
    types: usize,
    /// What objects have whose type has no traverse function (code), and static types.
    unasked: usize,
}

/// Compares each object's references with what Python itself says.
fn compare(python: &str, arguments: &[&str]) -> Compared {
    let place = tempfile::tempdir().unwrap();
    let (recording, told) = (place.path().join("a.leakline"), place.path().join("told"));
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs/python/referents.py");
    let status = Command::new(env!("CARGO_BIN_EXE_leakline"))
        .args(["run", "-o"])
        .args([
            &recording,
            Path::new("--"),
            Path::new(python),
            &program,
            &told,
        ])
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success());
    let objects = objects(&recording);
    let words: Vec<u64> = std::fs::read(&told)
        .unwrap()
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let (mut at, mut compared, mut wrong) = (0, Compared::default(), Vec::new());
    while at < words.len() {
        let &[address, type_, is_said, count] = &words[at..at + 4] else {
            unreachable!("of four words")
        };
        at += 4;
        let mut expected = words[at..at + usize::try_from(count).unwrap()].to_vec();
        at += expected.len();
        compared.objects += 1;
        compared.references += expected.len();
        let Some(object) = objects.get(&address) else {
            wrong.push(format!("{address:#x} was not told of"));
            continue;
        };
        if object.type_ != type_ {
            wrong.push(format!("{address:#x} is of another type"));
            continue;
        }
        let mut found = Vec::new();
        let mut edges = object.edges.clone();
        edges.sort_by_key(|(kind, _)| *kind == label::KEY);
        for (kind, target) in &edges {
            match expected.iter().position(|one| one == target) {
                Some(place) => {
                    expected.swap_remove(place);
                }
                None if *kind == label::KEY => compared.keys += 1,
                None if *target == type_ => compared.types += 1,
                None if is_said == 0 && objects.contains_key(target) => compared.unasked += 1,
                None => found.push(*target),
            }
        }
        if !expected.is_empty() || !found.is_empty() {
            wrong.push(format!(
                "{address:#x} of type {type_:#x}: {} missing, {} too many, of {count}",
                expected.len(),
                found.len()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared:?}: {wrong:#?}",
        wrong.len()
    );
    eprintln!("{compared:?}");
    compared
}

fn python() -> String {
    std::env::var("LEAKLINE_TARGET_PYTHON").unwrap_or_else(|_| "python3".into())
}

#[test]
fn edges_are_what_python_says() {
    let compared = compare(&python(), &[]);
    assert!(compared.objects > 40_000, "{compared:?}");
}

/// Skipped where the interpreter does not have both packages.
#[test]
fn edges_of_a_web_application_are_what_python_says() {
    let python = python();
    let has_them = Command::new(&python)
        .args(["-c", "import fastapi, sqlalchemy"])
        .output()
        .unwrap();
    if !has_them.status.success() {
        eprintln!("skipped: {python} has no fastapi or no sqlalchemy");
        return;
    }
    let compared = compare(&python, &["app"]);
    assert!(compared.objects > 100_000, "{compared:?}");
}
