//! What a program finds is what it finds without leakline.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, output, spawn, text};

/// Runs a program bare and recorded, with `prepare` run in the child before
/// either is executed, and expects the same output.
#[track_caller]
fn same(program: &[&str], prepare: fn()) {
    let place = Place::new();
    let mut bare = Command::new(program[0]);
    bare.args(&program[1..])
        .current_dir(place.path())
        .stdin(Stdio::null());
    let mut recorded = place.run(program);
    for command in [&mut bare, &mut recorded] {
        // SAFETY: what is prepared below makes system calls only.
        unsafe {
            command.pre_exec(move || {
                prepare();
                Ok(())
            });
        }
    }
    let (bare, recorded) = (output(bare), output(recorded));
    assert_eq!(text(&recorded.stdout), text(&bare.stdout));
    assert!(!bare.stdout.is_empty());
    assert_eq!(text(&recorded.stderr), text(&bare.stderr));
}

// No shell between: it has ways of its own with signals and descriptors.
const SIGNALS: [&str; 3] = ["grep", "^Sig[BIC]", "/proc/self/status"];
const DESCRIPTORS: [&str; 2] = ["ls", "/proc/self/fd"];

#[test]
fn signals() {
    same(&SIGNALS, || {});
}

#[test]
fn ignored_and_blocked_signals() {
    same(&SIGNALS, || {
        // SAFETY: changes this process's own signals.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            let mut set = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        }
    });
}

#[test]
fn descriptors() {
    same(&DESCRIPTORS, || {
        // SAFETY: duplicates and closes this process's own descriptors.
        unsafe {
            libc::dup2(1, 4);
            libc::dup2(1, 77);
        }
    });
}

#[test]
fn a_closed_standard_descriptor() {
    same(&DESCRIPTORS, || {
        // SAFETY: closes this process's own descriptor.
        unsafe { libc::close(0) };
    });
}

#[test]
fn limits_directory_session_and_group() {
    let script = "cat /proc/self/limits; umask; pwd; ps -o sid= -p $$";
    same(&["sh", "-c", script], || {});
}

#[test]
fn arguments() {
    let place = Place::new();
    let arguments = ["a b", "", "*", "-x", "--", "ä\n"];
    let output = output(place.run([&["printf", "<%s>"], &arguments[..]].concat()));
    assert_eq!(text(&output.stdout), "<a b><><*><-x><--><ä\n>");
}

#[test]
fn the_environment_but_for_the_way_in() {
    let place = Place::new();
    let mut bare = Command::new("env");
    let mut recorded = place.run(["env"]);
    for command in [&mut bare, &mut recorded] {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("X", "a=b")
            .env("EMPTY", "");
        command.env("LD_PRELOAD", "/lib/x86_64-linux-gnu/libm.so.6");
        command.stdin(Stdio::null()).current_dir(place.path());
    }
    let (bare, recorded) = (output(bare), output(recorded));
    let mut expected: Vec<&str> = text(&bare.stdout).lines().collect();
    let mut seen: Vec<&str> = text(&recorded.stdout).lines().collect();
    seen.retain(|line| !line.starts_with("LEAKLINE_SESSION="));
    let preload = seen
        .iter()
        .position(|line| line.starts_with("LD_PRELOAD="))
        .unwrap();
    let (ours, theirs) = seen[preload].split_once(':').unwrap();
    assert!(ours.contains("libleakline_preload"), "{ours}");
    let theirs = format!("LD_PRELOAD={theirs}");
    seen[preload] = &theirs;
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn input_and_output_are_passed_through() {
    let place = Place::new();
    let input: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut command = place.run(["cat"]);
    command.stdin(Stdio::piped());
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let input = input.clone();
        move || stdin.write_all(&input).unwrap()
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
    assert!(output.stdout == input);
}

#[test]
fn a_pipe_ends_when_the_program_closes_it() {
    let place = Place::new();
    let mut extra = [0; 2];
    // SAFETY: makes two descriptors, which the two files own.
    let (mut extra_read, extra_write) = unsafe {
        assert_eq!(libc::pipe2(extra.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(extra[0]), File::from_raw_fd(extra[1]))
    };
    let mut command = place.sh("exec >&- 2>&- 9>&-; sleep 30");
    let number = extra_write.as_raw_fd();
    // SAFETY: dup2 only.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(number, 9);
            Ok(())
        });
    }
    let begun = Instant::now();
    let mut child = spawn(command);
    drop(extra_write);
    let mut all = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut all).unwrap();
    extra_read.read_to_end(&mut all).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "only the program's end closed a pipe"
    );
    assert!(child.try_wait().unwrap().is_none());
    assert_eq!(all, b"");
    crate::support::kill(child.id() as i32, libc::SIGTERM);
    child.wait().unwrap();
}

#[test]
fn a_broken_pipe_kills_the_program_as_ever() {
    let place = Place::new();
    let mut shell = Command::new("bash");
    shell.args(["-c", "\"$0\" run yes | head -n 1; echo ${PIPESTATUS[0]}"]);
    shell
        .arg(env!("CARGO_BIN_EXE_leakline"))
        .current_dir(place.path());
    assert_eq!(text(&output(shell).stdout), "y\n141\n");
}
