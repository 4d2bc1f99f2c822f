use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leakline_recording::Recording;
use leakline_recording::record::{Bin, Mark};

use super::*;

/// Bins after which the writer thinks of compacting.
const MANY: u64 = 1100;

fn recorder(path: &Path) -> Recorder {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let writer = Writer::new(file.try_clone().unwrap()).unwrap();
    Recorder::new(writer, file)
}

fn copy_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!(".{name}.compacting"))
}

/// Bins of a millisecond each, and something to find again.
fn fill(recorder: &mut Recorder, milliseconds: std::ops::Range<u64>) {
    for at in milliseconds {
        recorder.push(bin(at));
    }
    recorder.push(mark("here"));
    recorder.flush().unwrap();
}

fn bin(at: u64) -> Record {
    Record::Bin(Bin {
        end_ns: (at + 1) * 1_000_000,
        live_bytes: at,
        max_bytes: at,
        complete: true,
        ..Bin::default()
    })
}

fn mark(name: &str) -> Record {
    Record::Mark(Mark {
        name: name.to_owned(),
        at_ns: 0,
        process: None,
    })
}

/// Flushes until no copy is being made.
fn settle(recorder: &mut Recorder) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.running.is_some() {
        assert!(Instant::now() < deadline, "{recorder:?}");
        std::thread::sleep(Duration::from_millis(1));
        recorder.flush().unwrap();
    }
}

fn bins_and_marks(path: &Path) -> (usize, usize) {
    let recording = Recording::open(path).unwrap();
    assert_eq!(recording.warnings(), &[] as &[String]);
    let count = |pick: fn(&Record) -> bool| recording.records().iter().filter(|r| pick(r)).count();
    (
        count(|record| matches!(record, Record::Bin(_))),
        count(|record| matches!(record, Record::Mark(_))),
    )
}

#[test]
fn a_file_with_many_bins_is_compacted_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut recorder = recorder(&path);
    let inode = fs::metadata(&path).unwrap().ino();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fill(&mut recorder, 0..MANY);
    // Comes while the copy is made, and waits in the tail.
    fill(&mut recorder, MANY..MANY + 3);
    settle(&mut recorder);
    let status = fs::metadata(&path).unwrap();
    assert_ne!(status.ino(), inode);
    assert_eq!(status.mode() & 0o777, 0o640);
    assert_eq!(status.len(), recorder.bytes());
    assert!(!copy_of(&path).exists());
    let (bins, marks) = bins_and_marks(&path);
    assert!((200..500).contains(&bins), "{bins} bins");
    assert_eq!(marks, 2);
    // And it goes on in the new one.
    fill(&mut recorder, MANY + 3..MANY + 4);
    assert_eq!(bins_and_marks(&path), (bins + 1, 3));
    // And once more.
    let inode = status.ino();
    fill(&mut recorder, MANY + 4..3 * MANY);
    settle(&mut recorder);
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    let (bins, marks) = bins_and_marks(&path);
    assert!((200..500).contains(&bins), "{bins} bins");
    assert_eq!(marks, 4);
    assert_eq!(recorder.take_note(), None);
}

#[test]
fn who_reads_the_old_file_goes_on_seeing_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut recorder = recorder(&path);
    fill(&mut recorder, 0..MANY);
    let mut old = Recording::open(&path).unwrap();
    let before = old.records().to_vec();
    settle(&mut recorder);
    assert_eq!(old.refresh().unwrap(), 0);
    assert_eq!(old.records(), before);
    assert_eq!(old.warnings(), &[] as &[String]);
}

#[test]
fn a_copy_left_half_written_by_a_killed_collector_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut first = recorder(&path);
    fill(&mut first, 0..10);
    // As a kill leaves it: nothing was cleaned up.
    let bytes = fs::read(&path).unwrap();
    fs::write(copy_of(&path), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(bins_and_marks(&path), (10, 1));
    fill(&mut first, 10..MANY);
    settle(&mut first);
    assert!(!copy_of(&path).exists());
    assert!(bins_and_marks(&path).0 < 500);
    // A later recording of the same name clears up, too.
    fs::write(copy_of(&path), b"x").unwrap();
    drop(recorder(&path));
    assert!(!copy_of(&path).exists());
}

#[test]
fn a_moved_file_is_compacted_where_it_is_now() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut recorder = recorder(&path);
    let moved = directory.path().join("sub").join("y.leakline");
    fs::create_dir(moved.parent().unwrap()).unwrap();
    fs::rename(&path, &moved).unwrap();
    fill(&mut recorder, 0..MANY);
    settle(&mut recorder);
    assert!(bins_and_marks(&moved).0 < 500);
    assert!(!path.exists() && !copy_of(&moved).exists());
}

#[test]
fn a_file_moved_or_replaced_meanwhile_is_left_alone() {
    for replace in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.leakline");
        let mut recorder = recorder(&path);
        fill(&mut recorder, 0..MANY);
        assert!(recorder.running.is_some());
        let moved = directory.path().join("y.leakline");
        fs::rename(&path, &moved).unwrap();
        if replace {
            fs::write(&path, b"theirs").unwrap();
        }
        settle(&mut recorder);
        assert_eq!(bins_and_marks(&moved), (MANY as usize, 1));
        assert!(!copy_of(&path).exists());
        if replace {
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
        } else {
            assert!(!path.exists());
        }
        assert!(
            recorder
                .take_note()
                .unwrap()
                .ends_with("its file was moved or replaced")
        );
    }
}

#[test]
fn without_a_place_for_the_copy_recording_goes_on_and_says_so_once() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("x.leakline");
    let mut recorder = recorder(&path);
    // A directory at the copy's name: it cannot be made, even by root.
    fs::create_dir(copy_of(&path)).unwrap();
    fill(&mut recorder, 0..MANY);
    assert_eq!(
        recorder.take_note().as_deref(),
        Some(
            "the recording's file is larger than need be, as what is old in it could not be summed up: file exists"
        )
    );
    assert_eq!(bins_and_marks(&path), (MANY as usize, 1));
    fs::remove_dir(copy_of(&path)).unwrap();
    fill(&mut recorder, MANY..MANY + 3);
    assert!(recorder.running.is_none(), "it is not tried at every flush");
    fs::create_dir(copy_of(&path)).unwrap();
    fill(&mut recorder, MANY + 3..2 * MANY);
    fill(&mut recorder, 2 * MANY..4 * MANY);
    assert_eq!(recorder.take_note(), None, "it was told");
    assert_eq!(bins_and_marks(&path), (4 * MANY as usize, 4));
    // In time, it is tried again.
    fs::remove_dir(copy_of(&path)).unwrap();
    fill(&mut recorder, 4 * MANY..9 * MANY);
    settle(&mut recorder);
    assert!(bins_and_marks(&path).0 < 600);
}

#[test]
fn a_file_without_a_name_or_with_two_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut removed = recorder(&path);
    fs::remove_file(&path).unwrap();
    fill(&mut removed, 0..MANY);
    assert!(removed.take_note().unwrap().ends_with("was removed"));
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());

    let mut twice = recorder(&path);
    let other = directory.path().join("other.leakline");
    fs::hard_link(&path, &other).unwrap();
    fill(&mut twice, 0..MANY);
    assert!(twice.take_note().unwrap().ends_with("several names"));
    assert_eq!(bins_and_marks(&other), (MANY as usize, 1));
}

#[test]
fn the_end_leaves_no_copy_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.leakline");
    let mut recorder = recorder(&path);
    fill(&mut recorder, 0..MANY);
    assert!(copy_of(&path).exists());
    drop(recorder);
    assert!(!copy_of(&path).exists());
    assert_eq!(bins_and_marks(&path), (MANY as usize, 1));
}
