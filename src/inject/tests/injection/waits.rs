//! Threads that wait: they go on waiting, as long as they would have.

use std::thread;
use std::time::Duration;

use leakline_inject::injection::Way;

use crate::support::Place;

/// Result, error and seconds of a wait that a library was loaded in.
fn wait(way: &str) -> (i32, i32, f64) {
    let place = Place::new();
    let target = place.start("waits.c", &[way]);
    thread::sleep(Duration::from_millis(250));
    let done = target.load(&place).unwrap();
    assert_eq!((done.way, done.tid), (Way::Blocked, target.pid()), "{way}");
    assert!(done.paused <= done.borrowed);
    assert_eq!(target.marks(), "loaded\n", "{way}");
    let done = target.call(&place, "tell", "called").unwrap();
    assert_eq!(done.way, Way::Blocked);
    assert_eq!(target.marks(), "loaded\ncalled\n", "{way}");
    let (text, _) = target.end();
    let mut words = text.split_ascii_whitespace();
    let mut next = || words.next().unwrap();
    (
        next().parse().unwrap(),
        next().parse().unwrap(),
        next().parse().unwrap(),
    )
}

/// It lasts two seconds; the upper bound is for a busy machine, and below what
/// beginning anew would take.
#[track_caller]
fn lasts_two_seconds(way: &str, expected: i32) {
    let (result, error, seconds) = wait(way);
    assert_eq!((result, error), (expected, 0), "{way}");
    assert!((1.99..2.2).contains(&seconds), "{way}: {seconds}");
}

#[test]
fn select() {
    lasts_two_seconds("select", 0);
}

#[test]
fn pselect() {
    lasts_two_seconds("pselect", 0);
}

#[test]
fn poll() {
    lasts_two_seconds("poll", 0);
}

#[test]
fn nanosleep() {
    lasts_two_seconds("nanosleep", 0);
}

#[test]
fn clock_nanosleep() {
    lasts_two_seconds("clock_nanosleep", 0);
}

#[test]
fn epoll_wait() {
    lasts_two_seconds("epoll_wait", 1);
}

#[test]
fn read() {
    lasts_two_seconds("read", 1);
}

#[test]
fn recv() {
    lasts_two_seconds("recv", 1);
}

#[test]
fn waitpid() {
    lasts_two_seconds("waitpid", 1);
}

#[test]
fn cond_timedwait() {
    lasts_two_seconds("cond_timedwait", 0);
}

#[test]
fn sem_timedwait() {
    lasts_two_seconds("sem_timedwait", 0);
}

/// The kernel ends it for any stop, and does not tell how long it had waited:
/// it begins anew, rather than to fail.
#[test]
fn epoll_wait_with_a_timeout_waits_longer() {
    let (result, error, seconds) = wait("epoll_wait_timed");
    assert_eq!((result, error), (0, 0));
    assert!((2.2..4.5).contains(&seconds), "{seconds}");
}

/// A wait that would be ended by a signal is ended by one that comes while the
/// thread is away; begun anew it would last ten seconds.
#[test]
fn a_signal_meanwhile_ends_the_wait() {
    let place = Place::new();
    let program = place.compile("signals.c", "signals", &[]);
    let mut command = std::process::Command::new(program);
    let target = place.start_command(command.arg("wait").env("LOADS_FOR_MS", "400"));
    target.wait_for_state('S');
    thread::scope(|scope| {
        let loading = scope.spawn(|| target.load(&place));
        thread::sleep(Duration::from_millis(200));
        assert_eq!(target.marks(), "");
        target.signal("USR1");
        // Whether it is there before the program has ended is a race.
        let _ = loading.join().unwrap();
    });
    assert_eq!(target.end(), ("-1 1 1\n".into(), "loaded\n".into()));
}

/// What the handler interrupted may be the allocator.
#[test]
fn a_signal_handler_that_waits_is_left_alone() {
    let place = Place::new();
    let target = place.start("signals.c", &["handler"]);
    target.wait_for_state('S');
    let mut options = leakline_inject::injection::Options::default();
    options.timeout = Duration::from_millis(300);
    let result = leakline_inject::injection::load(target.pid(), &place.library(), &options);
    assert!(
        matches!(
            result,
            Err(leakline_inject::injection::Error::NoSafeThread(_))
        ),
        "{result:?}"
    );
    assert_eq!(target.end(), ("good\n".into(), String::new()));
}
