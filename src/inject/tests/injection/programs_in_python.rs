//! CPython, busy and waiting.

use std::process::Command;
use std::thread;
use std::time::Duration;

use leakline_inject::injection::Way;

use crate::support::{Place, Target, source};

pub(crate) fn start(place: &Place, way: &str) -> Target {
    let mut command = Command::new("python3");
    let target = place.start_command(command.arg(source("program.py")).arg(way));
    thread::sleep(Duration::from_millis(150));
    target
}

fn load_and_call(way: &str) -> Way {
    let place = Place::new();
    let target = start(&place, way);
    let done = target.load(&place).unwrap();
    target.call(&place, "tell", "called").unwrap();
    target.signal("USR1");
    let expected = ("good\n".into(), "loaded\ncalled\n".into());
    assert_eq!(target.end(), expected, "{way}");
    done.way
}

#[test]
fn busy() {
    assert_eq!(load_and_call("busy"), Way::PendingCall);
}

#[test]
fn threads() {
    load_and_call("threads");
}

#[test]
fn join() {
    assert_eq!(load_and_call("join"), Way::Blocked);
}

#[test]
fn sleep() {
    assert_eq!(load_and_call("sleep"), Way::Blocked);
}

#[test]
fn select() {
    assert_eq!(load_and_call("select"), Way::Blocked);
}

#[test]
fn asyncio() {
    load_and_call("asyncio");
}
