//! Sessions: one inside another, one that is over, one process alone.

use crate::support::{Place, output, text};

#[test]
fn a_run_inside_a_run_joins_it() {
    let place = Place::new();
    let leakline = env!("CARGO_BIN_EXE_leakline");
    let output = output(place.run([
        leakline,
        "run",
        "-o",
        "inner.leakline",
        "sh",
        "-c",
        "exit 6",
    ]));
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let recordings = place.recordings();
    assert!(
        matches!(&recordings[..], [one] if one.starts_with("leakline.")),
        "{recordings:?}"
    );
}

#[test]
fn a_session_that_is_over_is_not_joined() {
    let place = Place::new();
    let mut command = place.run(["sh", "-c", "echo $LEAKLINE_SESSION; echo $LD_PRELOAD"]);
    let over = "leakline-1-0123456789abcdef:00000000000000000000000000000000";
    command.env("LEAKLINE_SESSION", over);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0));
    assert!(!text(&output.stdout).contains(over));
    assert_eq!(place.recordings().len(), 1);
}

#[test]
fn one_process_alone_is_told_its_pid() {
    let place = Place::new();
    let output = output(place.run(["--no-follow", "sh", "-c", "echo $$ $LEAKLINE_ONLY_PID"]));
    let said = text(&output.stdout).trim();
    let (own, told) = said.split_once(' ').unwrap();
    assert_eq!(own, told);
}

#[test]
fn a_summary_in_a_pipe_only_when_asked_for() {
    let place = Place::new();
    let quiet = output(place.run(["sh", "-c", ":"]));
    assert_eq!(text(&quiet.stderr), "");
    let asked = output(place.run(["--summary", "-o", "x.leakline", "sh", "-c", "exit 3"]));
    let said = text(&asked.stderr);
    assert!(
        said.starts_with("leakline: sh -c ended with status 3 after "),
        "{said}"
    );
    assert!(said.contains(" of it in "), "{said}");
    assert!(said.contains("  recorded  "), "{said}");
    assert!(
        said.contains(" allocations, all of them; x.leakline, "),
        "{said}"
    );
    assert!(said.ends_with("next      leakline leaks x.leakline    leakline x.leakline\n"));
    assert!(!said.contains('\x1b'), "{said}");
}
