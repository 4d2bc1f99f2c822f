//! A directory to run leakline in, and programs to run.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where one test runs.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `leakline` here, without what an outer session or user set.
    pub(crate) fn leakline(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leakline"));
        command.current_dir(self.path()).stdin(Stdio::null());
        for name in [
            "LEAKLINE_SESSION",
            "LEAKLINE_ONLY_PID",
            "LEAKLINE_PRELOAD_DIR",
            "LD_PRELOAD",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// `leakline run ARGUMENTS`.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.leakline();
        command.arg("run").args(arguments);
        command
    }

    /// `leakline run -- sh -c SCRIPT`.
    pub(crate) fn sh(&self, script: &str) -> Command {
        self.run(["--", "sh", "-c", script])
    }

    /// An executable file.
    pub(crate) fn program(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The recordings that are here now.
    pub(crate) fn recordings(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".leakline"))
            .collect();
        names.sort();
        names
    }
}

/// Runs a command to its end.
pub(crate) fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

/// Starts a command whose stdout and stderr are pipes.
pub(crate) fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Waits until `condition` gives a value.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The children of a process that are called `name`.
pub(crate) fn children(parent: u32, name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((before, after)) = stat.rsplit_once(") ") else {
            continue;
        };
        let is_called = before.split_once('(').is_some_and(|(_, comm)| comm == name);
        let ppid = after
            .split(' ')
            .nth(1)
            .and_then(|field| field.parse::<u32>().ok());
        if is_called && ppid == Some(parent) {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: sends a signal.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}");
}
