//! Signals that somebody sends to `leakline run`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use crate::support::{Place, children, eventually, kill, spawn};

/// Runs a shell script that prints a line when it is ready, and waits for it.
fn ready(place: &Place, script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = spawn(place.sh(script));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    line(&mut stdout);
    (child, stdout)
}

fn line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

const PATIENT: &str = "echo ready; n=0; while [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done";

#[test]
fn are_passed_on() {
    let place = Place::new();
    for (name, signal) in [
        ("TERM", libc::SIGTERM),
        ("INT", libc::SIGINT),
        ("HUP", libc::SIGHUP),
        ("USR1", libc::SIGUSR1),
        ("WINCH", libc::SIGWINCH),
    ] {
        let script = format!("trap 'echo got {name}; exit 3' {name}; {PATIENT}");
        let (mut child, mut stdout) = ready(&place, &script);
        kill(child.id() as i32, signal);
        assert_eq!(line(&mut stdout), format!("got {name}"));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
}

#[test]
fn end_it_when_they_end_the_program() {
    let place = Place::new();
    let (mut child, _stdout) = ready(&place, PATIENT);
    kill(child.id() as i32, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn of_the_programs_own_to_its_group_come_once() {
    let place = Place::new();
    let mut command = place.sh("n=0; trap 'n=$((n+1))' USR1; echo ready; \
         while [ ! -e go ]; do sleep 0.02; done; kill -USR1 0; echo $n; \
         while [ ! -e end ]; do sleep 0.02; done; sleep 0.2; echo $n");
    command.process_group(0);
    let mut child = spawn(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    line(&mut stdout);
    // Late, so that a signal passed on is not taken for the same.
    kill(child.id() as i32, libc::SIGSTOP);
    std::fs::write(place.path().join("go"), "").unwrap();
    assert_eq!(line(&mut stdout), "1");
    kill(child.id() as i32, libc::SIGCONT);
    std::fs::write(place.path().join("end"), "").unwrap();
    assert_eq!(line(&mut stdout), "1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn that_kill_the_supervisor_leave_the_program_alone() {
    let place = Place::new();
    let script = "echo $$; while [ ! -e go ]; do sleep 0.02; done; echo alive > done";
    let mut child = spawn(place.sh(script));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    line(&mut stdout);
    kill(child.id() as i32, libc::SIGKILL);
    child.wait().unwrap();
    std::fs::write(place.path().join("go"), "").unwrap();
    eventually("the program's last words", || {
        std::fs::read_to_string(place.path().join("done"))
            .ok()
            .filter(|text| !text.is_empty())
    });
}

#[test]
fn that_stop_the_program_alone_do_not_stop_what_waits_for_it() {
    let place = Place::new();
    let mut child = spawn(place.sh("echo $$; while [ ! -e go ]; do sleep 0.02; done; exit 9"));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let pid: i32 = line(&mut stdout).parse().unwrap();
    kill(pid, libc::SIGSTOP);
    eventually("the stop", || is_stopped(pid).then_some(()));
    kill(pid, libc::SIGCONT);
    std::fs::write(place.path().join("go"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn that_kill_the_collector_do_not_touch_the_program() {
    let place = Place::new();
    let mut command = place.run([
        "--summary",
        "-o",
        "x.leakline",
        "sh",
        "-c",
        "echo ready; while [ ! -e go ]; do sleep 0.02; done; echo out; exit 5",
    ]);
    command.env("LC_ALL", "C");
    let mut child = spawn(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    line(&mut stdout);
    let collector = children(child.id(), "leakline");
    assert_eq!(collector.len(), 1);
    kill(collector[0], libc::SIGKILL);
    std::fs::write(place.path().join("go"), "").unwrap();
    assert_eq!(line(&mut stdout), "out");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = crate::support::text(&output.stderr);
    assert!(
        said.contains("warning: the collector was killed (SIGKILL); `x.leakline`"),
        "{said}"
    );
}

#[test]
fn that_stop_the_collector_hold_nobody_up_for_long() {
    let place = Place::new();
    let script = "echo ready; while [ ! -e go ]; do sleep 0.02; done; echo out; exit 5";
    let mut child = spawn(place.run(["--summary", "-o", "x.leakline", "sh", "-c", script]));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    line(&mut stdout);
    let collector = children(child.id(), "leakline")[0];
    kill(collector, libc::SIGSTOP);
    std::fs::write(place.path().join("go"), "").unwrap();
    assert_eq!(line(&mut stdout), "out");
    let begun = Instant::now();
    let output = child.wait_with_output().unwrap();
    kill(collector, libc::SIGKILL);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(output.status.code(), Some(5));
    let said = crate::support::text(&output.stderr);
    assert!(
        said.contains("warning: the collector makes no progress; `x.leakline`"),
        "{said}"
    );
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}
