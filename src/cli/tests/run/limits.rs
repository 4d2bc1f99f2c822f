//! Under tight limits of its own, `leakline run` works or says what is wrong.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use crate::support::{Place, output, text};

/// `leakline run` of `true` under what a shell's `ulimit` sets.
fn under(limit: &str) -> Output {
    let place = Place::new();
    let leakline = place.run(["-o", "x.leakline", "--", "true"]);
    let unpacked = place.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut shell = Command::new("sh");
    shell
        .current_dir(place.path())
        .args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")])
        .arg(leakline.get_program())
        .args(leakline.get_args());
    for (name, value) in leakline.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    // A first run, which has the interposer to unpack.
    shell.env("LEAKLINE_PRELOAD_DIR", &unpacked);
    let output = output(shell);
    let is_there = place.path().join("x.leakline").exists();
    assert_eq!(is_there, output.status.success(), "{limit}: {output:?}");
    output
}

#[test]
fn a_limit_that_is_too_tight_is_named_with_the_way_out() {
    for (limit, error, hint) in [
        (
            "-v 400000",
            "error: cannot record under a limit of 390.6 MiB on address space: it takes 1.00 GiB",
            "ulimit -v unlimited",
        ),
        (
            "-d 100000",
            "error: cannot record under a limit of 97.7 MiB on data: it takes 256.0 MiB",
            "ulimit -d unlimited",
        ),
        (
            "-f 0",
            "error: cannot record under a limit of 0 B on the size of files: it takes 65.0 MiB",
            "ulimit -f unlimited",
        ),
    ] {
        let output = under(limit);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{limit}: {said}");
        assert_eq!(
            said,
            format!("{error}\n\nhint: raise the limit, as with `{hint}`\n"),
            "{limit}"
        );
    }
}

#[test]
fn any_limit_on_open_files_gives_a_recording_or_one_clear_error() {
    let mut refused = 0;
    for files in 4..=24 {
        let output = under(&format!("-n {files}"));
        let said = text(&output.stderr);
        if output.status.success() {
            assert_eq!(said, "", "{files}");
            continue;
        }
        refused += 1;
        assert_eq!(output.status.code(), Some(125), "{files}: {said}");
        assert_eq!(said.matches("error: cannot ").count(), 1, "{files}: {said}");
        assert!(said.contains("caused by: too many open files\n"), "{said}");
        assert!(said.ends_with("as with `ulimit -n 64`\n"), "{said}");
    }
    assert!((1..20).contains(&refused), "{refused}");
}

#[test]
fn limits_that_leave_enough_do_no_harm() {
    for limit in [
        "-v 1100000",
        "-d 300000",
        "-f 140000",
        "-l 0",
        "-c 0",
        "-Sn 20",
    ] {
        let output = under(limit);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{limit}: {said}");
        assert_eq!(said, "", "{limit}");
    }
}

#[test]
fn a_soft_limit_is_the_programs_and_not_the_collectors() {
    // Of 512 bytes or 1 KiB, as the shell has it.
    for limit in ["-Sf 100", "-Sv 500000"] {
        let output = under(limit);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{limit}: {said}");
    }
}

/// A fork that failed was taken for a child of pid -1. Only for others than
/// root is there a limit on processes.
#[test]
fn no_process_to_be_had_is_one_clear_error() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = place.path().join("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let leakline = place.path().join("leakline");
    fs::copy(env!("CARGO_BIN_EXE_leakline"), &leakline).unwrap();
    let mut shell = Command::new("bash");
    shell
        .current_dir(&own)
        .args(["-c", "ulimit -u 1 && exec ../leakline run -o x -- true"])
        .env("LEAKLINE_PRELOAD_DIR", &own)
        .env_remove("LEAKLINE_SESSION")
        .uid(NOBODY)
        .gid(NOBODY);
    let output = output(shell);
    assert_eq!(
        text(&output.stderr),
        "error: cannot start a process\n\
         caused by: resource temporarily unavailable\n\n\
         hint: end other processes, or raise the limit on them (`ulimit -u`)\n"
    );
    assert_eq!(output.status.code(), Some(125));
}
