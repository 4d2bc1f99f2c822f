//! Programs to go into, and a library to bring along.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use leakline_inject::injection::{Done, Error, Library, Options, call, load};
use tempfile::{TempDir, TempPath};

/// Where the sources of the programs are.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/injection/programs")
        .join(name)
}

/// A directory with the library, and what a program leaves there.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        place.compile("library.c", "library.so", &["-shared", "-fPIC"]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn library(&self) -> CString {
        CString::new(self.path("library.so").as_os_str().as_bytes()).unwrap()
    }

    /// Compiles a program, once.
    pub(crate) fn compile(&self, from: &str, to: &str, options: &[&str]) -> PathBuf {
        if self.path(to).exists() {
            return self.path(to);
        }
        let output = Command::new("cc")
            .args(["-O1", "-o"])
            .arg(self.path(to))
            .arg(source(from))
            .args(options)
            .arg("-pthread")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        self.path(to)
    }

    /// Compiles and starts a program; returns when it says that it is ready.
    pub(crate) fn start(&self, program: &str, arguments: &[&str]) -> Target {
        let name = program.strip_suffix(".c").unwrap();
        let path = self.compile(program, name, &[]);
        self.start_command(Command::new(path).args(arguments))
    }

    pub(crate) fn start_command(&self, command: &mut Command) -> Target {
        let marks = tempfile::Builder::new()
            .prefix("marks")
            .tempfile_in(self.directory.path())
            .unwrap()
            .into_temp_path();
        let mut child = command
            .env("MARKS", &marks)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Target {
            child,
            output,
            marks,
        }
    }
}

/// A program that runs.
pub(crate) struct Target {
    child: Child,
    output: BufReader<ChildStdout>,
    marks: TempPath,
}

impl Target {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What the library told in it.
    pub(crate) fn marks(&self) -> String {
        fs::read_to_string(&self.marks).unwrap()
    }

    pub(crate) fn load(&self, place: &Place) -> Result<Done, Error> {
        load(self.pid(), &place.library(), &Options::default())
    }

    pub(crate) fn call(&self, place: &Place, symbol: &str, text: &str) -> Result<Done, Error> {
        let mut argument = text.as_bytes().to_vec();
        argument.push(0);
        let library = place.library();
        let expected = format!("{text}\n");
        let done = || text.is_empty() || self.marks().ends_with(&expected);
        let mut options = Options::default();
        options.done = Some(&done);
        call(
            self.pid(),
            &Library::Path(&library),
            symbol,
            &argument,
            &options,
        )
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// The state letter of a process.
    pub(crate) fn state(&self) -> char {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("State"))
            .unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .chars()
            .next()
            .unwrap()
    }

    pub(crate) fn wait_for_state(&self, state: char) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.state() != state {
            assert!(
                Instant::now() < until,
                "state {}, not {state}",
                self.state()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it printed, when it has ended well within 20 seconds, and what the
    /// library told in it.
    pub(crate) fn end(mut self) -> (String, String) {
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= until {
                self.child.kill().unwrap();
                panic!("the program does not end");
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(ExitStatus::success(&status), "{status}, {text}");
        (text, self.marks())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It has ended already, unless a test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
