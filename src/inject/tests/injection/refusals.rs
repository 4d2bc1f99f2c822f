//! What is refused, with the target as it was.

use std::fs;
use std::process::Command;
use std::time::Duration;

use leakline_inject::injection::{Error, Library, Options, call, load};

use crate::support::Place;

#[test]
fn a_stopped_program_stays_stopped() {
    let place = Place::new();
    let target = place.start("waits.c", &["nanosleep"]);
    target.signal("STOP");
    target.wait_for_state('T');
    assert!(matches!(target.load(&place), Err(Error::Stopped)));
    assert_eq!(target.state(), 'T');
    target.signal("CONT");
    let (text, marks) = target.end();
    assert!(text.starts_with("0 0 "), "{text}");
    assert_eq!(marks, "");
}

#[test]
fn a_program_without_a_loader() {
    let place = Place::new();
    let program = place.compile("waits.c", "waits", &["-static"]);
    let target = place.start_command(Command::new(program).arg("poll"));
    assert!(matches!(target.load(&place), Err(Error::NoGlibc)));
    assert!(target.end().0.starts_with("0 0 "));
}

#[test]
fn who_is_no_process() {
    let place = Place::new();
    let library = place.library();
    let refused = |pid| load(pid, &library, &Options::default());
    assert!(matches!(refused(i32::MAX), Err(Error::NoProcess)));

    let target = place.start("busy.c", &["2"]);
    let is_other = |tid: &i32| *tid != target.pid();
    let thread = loop {
        let threads = fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
        let mut numbers = threads.map(|thread| thread.unwrap().file_name().into_string().unwrap());
        if let Some(thread) = numbers.find_map(|number| number.parse().ok().filter(is_other)) {
            break thread;
        }
    };
    let process = target.pid();
    assert!(matches!(refused(thread), Err(Error::Thread(pid)) if pid == process));
    target.signal("USR1");
    target.end();

    let mut ended = Command::new("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(matches!(refused(ended.id() as i32), Err(Error::Zombie)));
    ended.wait().unwrap();

    // Outside of containers.
    let is_kernel = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
    if is_kernel {
        assert!(matches!(refused(2), Err(Error::KernelThread)));
    }
}

#[test]
fn what_cannot_be_loaded() {
    let place = Place::new();
    let target = place.start("waits.c", &["nanosleep"]);
    let load = |path: &std::ffi::CStr| load(target.pid(), path, &Options::default());
    assert!(matches!(
        load(c"/there/is/no/such.so"),
        Err(Error::LoadFailed)
    ));
    assert!(matches!(load(c"such.so"), Err(Error::RelativePath)));
    fs::write(place.path("text.so"), "text").unwrap();
    let text = std::ffi::CString::new(place.path("text.so").to_str().unwrap()).unwrap();
    assert!(matches!(load(&text), Err(Error::LoadFailed)));
    assert!(load(&place.library()).is_ok());
    assert!(matches!(load(&place.library()), Err(Error::AlreadyLoaded)));
    let (text, marks) = target.end();
    assert!(text.starts_with("0 0 "), "{text}");
    assert_eq!(marks, "loaded\n");
}

#[test]
fn what_cannot_be_called() {
    let place = Place::new();
    let target = place.start("waits.c", &["nanosleep"]);
    let path = place.library();
    let library = Library::Path(&path);
    let call = |symbol, argument: &[u8]| {
        call(
            target.pid(),
            &library,
            symbol,
            argument,
            &Options::default(),
        )
    };
    assert!(matches!(call("tell", b"\0"), Err(Error::NotLoaded)));
    target.load(&place).unwrap();
    let missing = call("missing", b"\0");
    assert!(matches!(&missing, Err(Error::NoSymbol(name)) if name == "missing"));
    let long = call("tell", &[0; 513]);
    assert!(matches!(
        long,
        Err(Error::ArgumentTooLong {
            given: 513,
            room: 512
        })
    ));
    let (text, marks) = target.end();
    assert!(text.starts_with("0 0 "), "{text}");
    assert_eq!(marks, "loaded\n");
}
