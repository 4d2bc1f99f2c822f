//! Programs that cannot be started, or not recorded. Each refusal is checked
//! with its words and status, and leaves no file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::support::{Place, output, text};

/// Runs `program`, expects a failure that leaves nothing, and returns what was
/// said, with the place's path as `HERE`.
#[track_caller]
fn refused(place: &Place, program: impl AsRef<Path>, status: i32) -> String {
    let output = output(place.run([Path::new("--"), program.as_ref(), Path::new("argument")]));
    let said = text(&output.stderr).replace(&place.path().display().to_string(), "HERE");
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(place.recordings(), [""; 0]);
    said
}

/// An executable that only differs from a good one in what `change` does.
fn changed(place: &Place, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = fs::read("/bin/true").unwrap();
    change(&mut bytes);
    place.program(name, bytes)
}

/// Where the program header for the interpreter is.
fn interpreter_header(elf: &[u8]) -> usize {
    let word = |at: usize| u16::from_le_bytes([elf[at], elf[at + 1]]);
    let (first, size, count) = (64, usize::from(word(0x36)), usize::from(word(0x38)));
    (0..count)
        .map(|n| first + n * size)
        .find(|at| elf[*at] == 3)
        .unwrap()
}

fn set_interpreter(elf: &mut [u8], path: &[u8]) {
    let header = interpreter_header(elf);
    let at = usize::from(u16::from_le_bytes([elf[header + 8], elf[header + 9]]));
    let length = usize::from(elf[header + 32]);
    elf[at..at + length].fill(0);
    elf[at..at + path.len()].copy_from_slice(path);
}

#[test]
fn a_program_that_is_not_there() {
    let place = Place::new();
    insta::assert_snapshot!(refused(&place, "no-such-program", 127), @"error: `no-such-program` was not found in PATH");
    insta::assert_snapshot!(refused(&place, "./no-such-program", 127), @"error: `./no-such-program` was not found");
    place.program("here", "#!/bin/sh\n");
    insta::assert_snapshot!(refused(&place, "here", 127), @"
    error: `here` was not found in PATH

    hint: it is in this directory: `leakline run -- ./here`
    ");
    insta::assert_snapshot!(refused(&place, "", 127), @"error: `` was not found in PATH");
}

#[test]
fn a_program_that_cannot_be_executed() {
    let place = Place::new();
    let path = place.program("text", "no program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    insta::assert_snapshot!(refused(&place, &path, 126), @"
    error: cannot execute `HERE/text`
    caused by: permission denied

    hint: `chmod +x HERE/text`, or name its interpreter
    ");
    insta::assert_snapshot!(refused(&place, place.path(), 126), @"
    error: cannot execute `HERE`
    caused by: is a directory
    ");
}

#[test]
fn a_script_whose_interpreter_is_not_there() {
    let place = Place::new();
    let script = place.program("script", "#!/no/such/interpreter -x\n");
    insta::assert_snapshot!(refused(&place, script, 127), @"error: cannot execute `HERE/script`: its interpreter `/no/such/interpreter` was not found");
    let elf = changed(&place, "elf", |elf| {
        set_interpreter(elf, b"/lib64/ld-nosuch.so.2");
    });
    insta::assert_snapshot!(refused(&place, elf, 127), @"error: cannot execute `HERE/elf`: its interpreter `/lib64/ld-nosuch.so.2` was not found");
}

#[test]
fn a_static_program() {
    let place = Place::new();
    let elf = changed(&place, "static", |elf| {
        let header = interpreter_header(elf);
        elf[header] = 0;
    });
    insta::assert_snapshot!(refused(&place, elf, 125), @"
    error: cannot record `HERE/static`: it is statically linked, and LD_PRELOAD cannot reach it

    hint: link it dynamically (without `-static`)
    ");
}

#[test]
fn a_musl_program() {
    let place = Place::new();
    let elf = changed(&place, "musl", |elf| {
        set_interpreter(elf, b"/lib/ld-musl-x86_64.so.1");
    });
    insta::assert_snapshot!(refused(&place, elf, 125), @"
    error: cannot record `HERE/musl`: it is linked against musl, and only glibc is supported

    hint: build it for glibc, or run it in an image that has glibc
    ");
}

#[test]
fn a_32_bit_program() {
    let place = Place::new();
    let elf = changed(&place, "narrow", |elf| elf[4] = 1);
    insta::assert_snapshot!(refused(&place, elf, 125), @"
    error: cannot record `HERE/narrow`: it is a 32-bit program, and only 64-bit ones are supported

    hint: build it for 64 bits
    ");
}

#[test]
fn a_program_for_another_machine() {
    let place = Place::new();
    let elf = changed(&place, "foreign", |elf| {
        elf[18..20].copy_from_slice(&[243, 0]);
    });
    let said = refused(&place, elf, 125);
    assert!(
        said.starts_with(
            "error: cannot record `HERE/foreign`: it is for another machine (riscv64)"
        ),
        "{said}"
    );
}

#[test]
fn a_setuid_program() {
    let place = Place::new();
    // SAFETY: asks.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        // Only root can make a file somebody else's.
        return;
    }
    let owner = changed(&place, "owner", |_| {});
    chown(&owner, Some(12_345), None).unwrap();
    fs::set_permissions(&owner, fs::Permissions::from_mode(0o4755)).unwrap();
    insta::assert_snapshot!(refused(&place, owner, 125), @"
    error: cannot record `HERE/owner`: it runs with other user rights (setuid) than yours, and the dynamic loader ignores LD_PRELOAD in such programs

    hint: run leakline as the program's owner
    ");
    let group = changed(&place, "group", |_| {});
    chown(&group, None, Some(12_345)).unwrap();
    fs::set_permissions(&group, fs::Permissions::from_mode(0o2755)).unwrap();
    insta::assert_snapshot!(refused(&place, group, 125), @"
    error: cannot record `HERE/group`: it runs with other group rights (setgid) than yours, and the dynamic loader ignores LD_PRELOAD in such programs

    hint: run leakline as the program's owner
    ");
}

#[test]
fn a_setuid_program_of_ones_own_is_fine() {
    let place = Place::new();
    let own = changed(&place, "own", |_| {});
    fs::set_permissions(&own, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(output(place.run([own])).status.code(), Some(0));
}

#[test]
fn a_script_is_as_good_as_its_interpreter() {
    let place = Place::new();
    let narrow = changed(&place, "narrow", |elf| elf[4] = 1);
    let script = place.program("script", format!("#!{}\n", narrow.display()));
    let said = refused(&place, &script, 125);
    assert!(
        said.starts_with("error: cannot record `HERE/narrow`: it is a 32-bit"),
        "{said}"
    );

    let nested = place.program("nested", format!("#!{}\n", script.display()));
    assert_eq!(refused(&place, &nested, 125), said);

    place.program("through-env", "#!/usr/bin/env -S X=1 narrow -v\n");
    let mut command = place.run(["./through-env"]);
    command.env("PATH", place.path());
    let output = output(command);
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn scripts_run() {
    let place = Place::new();
    let script = place.program(
        "script",
        "#!/bin/sh -e\necho \"$0 $1\"; false; echo not reached\n",
    );
    let output_of = |path: &Path| output(place.run([path, Path::new("a b")]));
    let output = output_of(&script);
    assert_eq!(text(&output.stdout), format!("{} a b\n", script.display()));
    assert_eq!(output.status.code(), Some(1));

    let through_env = place.program("through-env", "#!/usr/bin/env sh\necho env $1\n");
    assert_eq!(text(&output_of(&through_env).stdout), "env a b\n");

    // As a shell does, and `execvp`.
    let bare = place.program("bare", "echo bare $1; exit 4\n");
    let output = output_of(&bare);
    assert_eq!(text(&output.stdout), "bare a b\n");
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn the_search_goes_past_what_cannot_be_executed() {
    let place = Place::new();
    for (directory, mode) in [("first", 0o644), ("second", 0o755)] {
        fs::create_dir(place.path().join(directory)).unwrap();
        let path = place.program(&format!("{directory}/tool"), "#!/bin/sh\necho \"$0\"\n");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = place.run(["tool"]);
    command.env("PATH", "/nowhere:first:second");
    assert_eq!(text(&output(command).stdout), "second/tool\n");

    let mut command = place.run(["tool"]);
    command.env("PATH", "/nowhere:first");
    assert_eq!(output(command).status.code(), Some(126));
}

#[test]
fn the_loader_may_be_the_program() {
    let place = Place::new();
    let loader = "/lib64/ld-linux-x86-64.so.2";
    if Path::new(loader).exists() {
        assert_eq!(
            output(place.run([loader, "/bin/true"])).status.code(),
            Some(0)
        );
    }
}
