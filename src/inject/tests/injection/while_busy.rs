//! Threads that never wait.

use std::process::Command;
use std::time::{Duration, Instant};

use leakline_inject::injection::{Error, Options, Way, load};

use crate::support::Place;

#[test]
fn one_thread_that_allocates() {
    let place = Place::new();
    let target = place.start("busy.c", &["1"]);
    let done = target.load(&place).unwrap();
    assert_eq!(done.way, Way::Unwound);
    assert_eq!(target.marks(), "loaded\n");
    target.call(&place, "tell", "called").unwrap();
    assert_eq!(target.marks(), "loaded\ncalled\n");
    target.signal("USR1");
    assert_eq!(target.end().0, "good\n");
}

#[test]
fn sixteen_threads_that_allocate() {
    let place = Place::new();
    let target = place.start("busy.c", &["16"]);
    let done = target.load(&place).unwrap();
    assert_eq!(done.way, Way::Unwound);
    assert_eq!(target.marks(), "loaded\n");
    target.signal("USR1");
    assert_eq!(target.end().0, "good\n");
}

/// Its own code was called from libc's, which may hold any lock.
#[test]
fn a_thread_that_libc_called() {
    let place = Place::new();
    let target = place.start("sorts.c", &[]);
    let mut options = Options::default();
    options.timeout = Duration::from_millis(500);
    let result = load(target.pid(), &place.library(), &options);
    assert!(matches!(result, Err(Error::NoSafeThread(_))), "{result:?}");
    assert_eq!(target.end(), ("good\n".into(), String::new()));
}

/// Registers of all kinds come back, whatever the function did to them.
#[test]
fn results_stay_right() {
    let place = Place::new();
    let target = place.start("vectors.c", &[]);
    target.load(&place).unwrap();
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < Duration::from_millis(1500) {
        let done = target.call(&place, "spoil", "").unwrap();
        assert_eq!(done.way, Way::Unwound);
        calls += 1;
    }
    assert!(calls > 10, "{calls}");
    target.signal("USR1");
    assert!(target.end().0.starts_with("right "));
}

/// A thread that holds the lock of the queue cannot put anything there: it gets
/// back to where it was, and is asked again later.
#[test]
fn a_queue_that_is_locked() {
    let place = Place::new();
    // A program shows its symbols to others if it is told to.
    let program = place.compile("interpreter.c", "interpreter", &["-rdynamic"]);
    let target = place.start_command(&mut Command::new(program));
    let mut options = Options::default();
    options.timeout = Duration::from_millis(900);
    let started = Instant::now();
    // This interpreter does not really load anything.
    let result = load(target.pid(), &place.library(), &options);
    assert!(matches!(result, Err(Error::Unfinished(_))), "{result:?}");
    assert!(started.elapsed() >= options.timeout);
    assert_eq!(target.end().0, "1\n");
}

/// One that was never started has no queue.
#[test]
fn an_interpreter_that_does_not_run() {
    let place = Place::new();
    let program = place.compile("interpreter.c", "interpreter", &["-rdynamic"]);
    let target = place.start_command(Command::new(program).arg("none"));
    assert_eq!(target.load(&place).unwrap().way, Way::Unwound);
    assert_eq!(target.end(), ("0\n".into(), "loaded\n".into()));
}
