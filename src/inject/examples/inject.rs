//! Makes a process load a library: `inject PID LIBRARY`.
//!
//! With `LEAKLINE_FAULT=STEP` in its environment it kills itself after that
//! step of the injection (`leakline_inject::injection::Step`).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use leakline_inject::injection::{Options, load};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let pid = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let library = arguments
        .next()
        .and_then(|library| CString::new(library.into_vec()).ok());
    let (Some(pid), Some(library)) = (pid, library) else {
        eprintln!("usage: inject PID LIBRARY");
        return ExitCode::from(2);
    };
    let mut options = Options::default();
    if let Ok(step) = std::env::var("LEAKLINE_FAULT") {
        match step.parse() {
            Ok(step) => options.fault = Some(step),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        }
    }
    match load(pid, &library, &options) {
        Ok(done) => {
            println!(
                "thread {} {:?} paused {} us, borrowed {} us",
                done.tid,
                done.way,
                done.paused.as_micros(),
                done.borrowed.as_micros()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}
