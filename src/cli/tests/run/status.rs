//! Exit statuses and deaths.

use std::os::unix::process::ExitStatusExt;

use crate::support::{Place, output, text};

#[test]
fn the_programs_status_is_passed_on() {
    let place = Place::new();
    for status in [0, 1, 7, 125, 255] {
        let output = output(place.sh(&format!("exit {status}")));
        assert_eq!(output.status.code(), Some(status));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn a_death_by_signal_is_passed_on_without_a_core_of_our_own() {
    let place = Place::new();
    for signal in [
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGRTMIN(),
    ] {
        let output = output(place.sh(&format!("kill -{signal} $$")));
        assert_eq!(output.status.signal(), Some(signal));
        assert!(!output.status.core_dumped());
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn wrong_use_is_status_2() {
    let place = Place::new();
    let cases: [&[&str]; 7] = [
        &["run"],
        &["run", "--bogus", "true"],
        &["run", "--no-python", "--no-native", "true"],
        &["run", "--wait", "soon", "true"],
        &["run", "--ring-size", "1KiB", "true"],
        &["run", "--ring-size", "64 potatoes", "true"],
        &["fly"],
    ];
    for arguments in cases {
        let mut command = place.leakline();
        command.args(arguments);
        let output = output(command);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{arguments:?}");
    }
    assert!(place.recordings().is_empty());
}

#[test]
fn the_dashes_before_the_program_may_be_left_out() {
    let place = Place::new();
    let output = output(place.run(["echo", "--help", "-o", "x", "--", "y"]));
    assert_eq!(text(&output.stdout), "--help -o x -- y\n");
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    let place = Place::new();
    let cases: [(&[&str], &str); 6] = [
        (&[], "Usage: leakline"),
        (&["--help"], "Usage: leakline"),
        (&["run", "--help"], "Examples:"),
        (&["--version"], "leakline "),
        (&["completions", "bash"], "_leakline()"),
        (&["completions", "fish"], "complete -c leakline"),
    ];
    for (arguments, expected) in cases {
        let mut command = place.leakline();
        command.args(arguments);
        let output = output(command);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains(expected), "{arguments:?}");
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn a_shell_takes_the_completions() {
    let place = Place::new();
    let script = "source <(\"$0\" completions bash) && complete -p leakline";
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_leakline")])
        .current_dir(place.path());
    let output = output(bash);
    assert!(
        text(&output.stdout).contains("_leakline"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_hidden_command_needs_its_descriptors() {
    let place = Place::new();
    let mut command = place.leakline();
    command.arg("__collector");
    assert_eq!(output(command).status.code(), Some(2));
}
