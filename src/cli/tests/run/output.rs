//! The recording's file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Place, output, text};

#[test]
fn the_default_name_is_the_programs_with_its_pid() {
    let place = Place::new();
    let output = output(place.sh("echo $$"));
    let pid = text(&output.stdout).trim();
    assert_eq!(place.recordings(), [format!("sh.{pid}.leakline")]);
}

#[test]
fn only_the_owner_may_read_it() {
    let place = Place::new();
    output(place.run(["-o", "x.leakline", "true"]));
    let mode = fs::metadata(place.path().join("x.leakline"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn it_replaces_nothing_unless_asked_to() {
    let place = Place::new();
    let path = place.path().join("x.leakline");
    fs::write(&path, "old").unwrap();
    let refused = output(place.run(["-o", "x.leakline", "--", "touch", "ran"]));
    insta::assert_snapshot!(text(&refused.stderr), @"
    error: `x.leakline` already exists

    hint: `-f` replaces it; `-o FILE` records to another file
    ");
    assert_eq!(refused.status.code(), Some(125));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert!(!place.path().join("ran").exists());

    let forced = output(place.run(["-f", "-o", "x.leakline", "--", "touch", "ran"]));
    assert_eq!(forced.status.code(), Some(0), "{}", text(&forced.stderr));
    assert_ne!(fs::read(&path).unwrap(), b"old");
    assert!(place.path().join("ran").exists());
}

#[test]
fn force_replaces_regular_files_only() {
    let place = Place::new();
    fs::create_dir(place.path().join("x.leakline")).unwrap();
    let refused = output(place.run(["-f", "-o", "x.leakline", "true"]));
    insta::assert_snapshot!(text(&refused.stderr), @"
    error: cannot write `x.leakline`
    caused by: it exists, and is not a regular file

    hint: `-o FILE` records to another file
    ");
    assert_eq!(refused.status.code(), Some(125));
    let refused = output(place.run(["-f", "-o", "/dev/null", "true"]));
    assert_eq!(refused.status.code(), Some(125));
    assert!(fs::metadata("/dev/null").unwrap().permissions().mode() & 0o444 != 0);
}

#[test]
fn where_it_cannot_be_the_program_does_not_run() {
    let place = Place::new();
    let refused = output(place.run(["-o", "no/such/x.leakline", "--", "touch", "ran"]));
    insta::assert_snapshot!(text(&refused.stderr), @"
    error: cannot write `no/such/x.leakline`
    caused by: no such file or directory

    hint: `-o FILE` records to another file
    ");
    assert_eq!(refused.status.code(), Some(125));
    assert!(!place.path().join("ran").exists());
}

#[test]
fn the_interposer_needs_a_path_that_the_loader_does_not_split() {
    let place = Place::new();
    for name in ["with space", "with:colon"] {
        let directory = place.path().join(name);
        fs::create_dir(&directory).unwrap();
        let mut command = place.run(["touch", "ran"]);
        command.env("LEAKLINE_PRELOAD_DIR", &directory);
        let output = output(command);
        assert_eq!(output.status.code(), Some(125));
        let said = text(&output.stderr).replace(directory.to_str().unwrap(), "THERE");
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @"
            error: found no place to unpack the interposer to
            caused by: `THERE` has a space or a colon, where `ld.so` would split it

            hint: set `LEAKLINE_PRELOAD_DIR` to a directory of your own, without space or colon in its path,
                  on a file system without `noexec`
            ");
        }
        assert!(!place.path().join("ran").exists());
    }
}

#[test]
fn the_interposer_is_unpacked_where_asked_and_mended() {
    let place = Place::new();
    let directory = place.path().join("preload");
    let run = || {
        let mut command = place.run(["sh", "-c", "echo $LD_PRELOAD"]);
        command.env("LEAKLINE_PRELOAD_DIR", &directory);
        let output = output(command);
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout).trim().to_owned()
    };
    let library = run();
    assert!(
        library.starts_with(directory.to_str().unwrap()),
        "{library}"
    );
    assert_eq!(
        fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
        0o755
    );
    let whole = fs::read(&library).unwrap();
    fs::write(&library, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(run(), library);
    assert_eq!(fs::read(&library).unwrap(), whole);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn a_directory_that_others_may_write_to_is_not_used() {
    let place = Place::new();
    let directory = place.path().join("preload");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = place.run(["true"]);
    command.env("LEAKLINE_PRELOAD_DIR", &directory);
    let output = output(command);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("may be written to by others"));
}
