//! On a terminal: keys reach the program once, and job control works.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};

use crate::support::{Place, eventually, kill};

/// A terminal whose session leader is the command.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn run(mut command: Command) -> Terminal {
        let (mut master, mut slave) = (0, 0);
        // SAFETY: openpty makes two descriptors, which the files own.
        let (master, slave) = unsafe {
            let (name, settings, size) = (null_mut(), null(), null());
            let opened = libc::openpty(&raw mut master, &raw mut slave, name, settings, size);
            assert_eq!(opened, 0);
            (File::from_raw_fd(master), File::from_raw_fd(slave))
        };
        let number = slave.as_raw_fd();
        command.stdin(slave.try_clone().unwrap());
        command
            .stdout(slave.try_clone().unwrap())
            .stderr(slave.try_clone().unwrap());
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                libc::ioctl(number, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.env("NO_COLOR", "1").spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, shown) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The last process's end is an error here.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                shown
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Terminal {
            keyboard: master,
            screen,
            child,
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        eventually(&format!("{text:?} in {:?}", self.screen()), || {
            self.screen().contains(text).then_some(())
        });
    }
}

const CTRL_C: &[u8] = b"\x03";
const CTRL_Z: &[u8] = b"\x1a";

#[test]
fn an_interrupt_comes_once() {
    let place = Place::new();
    let mut terminal = Terminal::run(place.sh("n=0; trap 'n=$((n+1))' INT; echo ready; \
         i=0; while [ $i -lt 30 ]; do sleep 0.02; i=$((i+1)); done; echo seen:$n; exit 4"));
    terminal.shows("ready");
    terminal.press(CTRL_C);
    terminal.shows("seen:1");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(4));
    terminal.shows("leakline: sh -c ended with status 4");
}

#[test]
fn a_summary_is_shown_unless_quiet() {
    let place = Place::new();
    let mut terminal = Terminal::run(place.run(["-q", "echo", "hello"]));
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    terminal.shows("hello");
    assert!(
        !terminal.screen().contains("leakline"),
        "{}",
        terminal.screen()
    );
}

#[test]
fn a_stop_is_seen_by_the_shell_and_undone_by_it() {
    let place = Place::new();
    // The program starts none: a child that stops between vfork and exec
    // would keep its parent from stopping, bare as well.
    let script = format!(
        "set -m; {} run -q sh -c 'trap \"echo back\" CONT; echo ready; \
         while [ ! -e go ]; do :; done; exit 4'; echo stopped:$?; fg; echo ended:$?",
        env!("CARGO_BIN_EXE_leakline")
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(place.path());
    let mut terminal = Terminal::run(bash);
    terminal.shows("ready");
    terminal.press(CTRL_Z);
    // 128 + SIGTSTP.
    terminal.shows("stopped:148");
    terminal.shows("\nback");
    std::fs::write(place.path().join("go"), "").unwrap();
    terminal.shows("ended:4");
    terminal.child.wait().unwrap();
}

#[test]
fn a_program_that_stops_itself_gives_the_terminal_back() {
    let place = Place::new();
    let script = format!(
        "set -m; {} run -q sh -c 'kill -STOP $$; exit 4'; echo stopped:$?; fg; echo ended:$?",
        env!("CARGO_BIN_EXE_leakline")
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(place.path());
    let mut terminal = Terminal::run(bash);
    // 128 + SIGSTOP.
    terminal.shows("stopped:147");
    terminal.shows("ended:4");
    terminal.child.wait().unwrap();
}

#[test]
fn continuing_the_supervisor_continues_the_program() {
    let place = Place::new();
    let mut terminal = Terminal::run(
        place.sh("echo ready; i=0; while [ $i -lt 50 ]; do sleep 0.02; i=$((i+1)); done; exit 4"),
    );
    terminal.shows("ready");
    let supervisor = terminal.child.id() as i32;
    let program = crate::support::children(terminal.child.id(), "sh")[0];
    // Of an orphaned process group, as this one is, the terminal's stop is
    // ignored; this one is not.
    kill(program, libc::SIGSTOP);
    eventually("the stop", || {
        // SAFETY: asks about a child, and leaves its state for later calls.
        let (got, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
            (
                libc::waitid(libc::P_PID, supervisor as u32, &raw mut info, options),
                info,
            )
        };
        (got == 0 && info.si_code == libc::CLD_STOPPED).then_some(())
    });
    kill(supervisor, libc::SIGCONT);
    assert_eq!(terminal.child.wait().unwrap().code(), Some(4));
}
