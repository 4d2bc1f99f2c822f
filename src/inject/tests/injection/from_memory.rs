//! A library that lies in no directory.

use std::fs;
use std::path::PathBuf;

use leakline_inject::injection::{Error, Library, Options, Way, call, load_from_memory};

use crate::programs_in_python;
use crate::support::{Place, Target};

/// What the descriptors of a program lead to.
fn descriptors(target: &Target) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{}/fd", target.pid())).unwrap();
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let number = entry.file_name().into_string().unwrap();
            (number, fs::read_link(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Loads the library and calls it; how that was done. The program ends at `signal`, or
/// by itself.
fn load_and_call(place: &Place, target: Target, signal: Option<&str>) -> (Way, String) {
    let before = descriptors(&target);
    let bytes = fs::read(place.path("library.so")).unwrap();
    let name = c"leakline-1/library.so";
    let done = load_from_memory(target.pid(), name, &bytes, &Options::default()).unwrap();
    assert_eq!(target.marks(), "loaded\n");
    assert_eq!(descriptors(&target), before);
    let is_done = || target.marks().ends_with("called\n");
    let mut options = Options::default();
    options.done = Some(&is_done);
    let library = Library::Path(c"/memfd:leakline-1/library.so (deleted)");
    call(target.pid(), &library, "tell", b"called\0", &options).unwrap();
    if let Some(signal) = signal {
        target.signal(signal);
    }
    let (text, marks) = target.end();
    assert_eq!(marks, "loaded\ncalled\n");
    (done.way, text)
}

#[test]
fn of_a_thread_that_waits() {
    let place = Place::new();
    let target = place.start("waits.c", &["poll"]);
    target.wait_for_state('S');
    let (way, text) = load_and_call(&place, target, None);
    assert_eq!(way, Way::Blocked);
    assert!(text.starts_with("0 0 "), "{text}");
}

#[test]
fn of_threads_that_are_busy() {
    let place = Place::new();
    let target = place.start("busy.c", &["4"]);
    let (way, text) = load_and_call(&place, target, Some("USR1"));
    assert_eq!((way, text.as_str()), (Way::Unwound, "good\n"));
}

#[test]
fn of_python() {
    for (program, expected) in [("busy", Way::PendingCall), ("join", Way::Blocked)] {
        let place = Place::new();
        let target = programs_in_python::start(&place, program);
        let (way, text) = load_and_call(&place, target, Some("USR1"));
        assert_eq!((way, text.as_str()), (expected, "good\n"), "{program}");
    }
}

/// The descriptor is closed also when there was nothing to load.
#[test]
fn what_is_no_library() {
    let place = Place::new();
    let target = place.start("waits.c", &["poll"]);
    target.wait_for_state('S');
    let before = descriptors(&target);
    let result = load_from_memory(target.pid(), c"a/text", b"text", &Options::default());
    assert!(matches!(result, Err(Error::LoadFailed)), "{result:?}");
    assert_eq!(descriptors(&target), before);
    let (text, marks) = target.end();
    assert!(text.starts_with("0 0 "), "{text}");
    assert_eq!(marks, "");
}
