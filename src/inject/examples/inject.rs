//! Makes a process load a library, `inject PID LIBRARY`, or call a function of
//! one that it has loaded, `inject PID LIBRARY FUNCTION ARGUMENT`.
//!
//! With `LEAKLINE_FAULT=STEP` in its environment it kills itself after that
//! step of the injection (`leakline_inject::injection::Step`).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use leakline_inject::injection::{Library, Options, call, load};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let pid = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let library = arguments
        .next()
        .and_then(|library| CString::new(library.into_vec()).ok());
    let (Some(pid), Some(library)) = (pid, library) else {
        eprintln!("usage: inject PID LIBRARY [FUNCTION ARGUMENT]");
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
    let function = arguments.next().and_then(|name| name.into_string().ok());
    let mut argument = arguments.next().unwrap_or_default().into_vec();
    argument.push(0);
    let result = match function {
        Some(function) => call(
            pid,
            &Library::Path(&library),
            &function,
            &argument,
            &options,
        ),
        None => load(pid, &library, &options),
    };
    match result {
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
