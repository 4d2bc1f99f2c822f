//! What of a program's values is in a recording's bytes: nothing, unless it is asked for.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::path::Path;
use std::process::Command;

use leakline_recording::Reader;
use leakline_recording::record::Record;

/// The file of a program that was recorded, and all that is in its chunks.
fn bytes_of(options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let place = tempfile::tempdir().unwrap();
    let recording = place.path().join("a.leakline");
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/programs/python/keyed.py");
    let python = std::env::var("LEAKLINE_TARGET_PYTHON").unwrap_or_else(|_| "python3".into());
    let status = Command::new(env!("CARGO_BIN_EXE_leakline"))
        .args(["run", "-o"])
        .arg(&recording)
        .args(options)
        .args([Path::new("--"), Path::new(&python), &program])
        .status()
        .unwrap();
    assert!(status.success());
    let (mut unpacked, mut graphs) = (Vec::new(), 0);
    Reader::open(&recording)
        .unwrap()
        .read(&mut |record| {
            graphs += usize::from(matches!(record, Record::HeapGraph(_)));
            unpacked.extend(postcard::to_stdvec(&record).unwrap());
        })
        .unwrap();
    assert!(graphs > 0);
    (std::fs::read(&recording).unwrap(), unpacked)
}

fn has(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|part| part == wanted)
}

const KEYS: [&str; 6] = [
    "user-42",
    "caf\u{e9}",
    "ключ-日本",
    "smile-\u{1f600}",
    "llllz",
    "many-7",
];
/// What is no key of a dict, or is in one.
const OTHERS: [&str; 4] = ["not-a-key", "in-a-list", "in-a-set", "in-pair"];

#[test]
fn no_value_is_in_a_recording_that_was_not_asked_for() {
    let (packed, unpacked) = bytes_of(&["--no-source"]);
    for secret in KEYS.iter().chain(&OTHERS) {
        assert!(!has(&packed, secret.as_bytes()), "{secret}");
        assert!(!has(&unpacked, secret.as_bytes()), "{secret}");
    }
    // An int as it lies in memory, or would be told.
    assert!(!has(&unpacked, &12_345_678_901_u64.to_le_bytes()));
    assert!(has(&unpacked, b"SESSIONS"));
}

#[test]
fn of_values_only_keys_are_in_one_that_was() {
    let (_, unpacked) = bytes_of(&["--no-source", "--values"]);
    for key in KEYS {
        assert!(has(&unpacked, key.as_bytes()), "{key}");
    }
    assert!(has(&unpacked, &12_345_678_901_u64.to_le_bytes()));
    for secret in OTHERS {
        assert!(!has(&unpacked, secret.as_bytes()), "{secret}");
    }
}
