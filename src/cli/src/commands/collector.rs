//! `leakline __collector`: the process that drains a session's rings.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

use leakline_collector::protocol::{CONTROL_FD, LISTENER_FD, OUTPUT_FD};

/// Serves one session with the descriptors it was started with. What goes
/// wrong is told to the supervisor over the control socket: this process has
/// no terminal.
pub(crate) fn run() -> ExitCode {
    // `ps` and `pgrep` would know it as `exe`, the name it was executed by.
    let _ = rustix::thread::set_name(c"leakline");
    super::run::limits::raise_own();
    let mut owned = [OUTPUT_FD, LISTENER_FD, CONTROL_FD].map(|number| {
        // SAFETY: asks about a number; the answer for one that is not open
        // is an error.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        // SAFETY: open (just checked), and nobody else in this process uses
        // these numbers: nothing ran before this, and what it inherited at
        // them is, by the protocol, its own.
        open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
    });
    let (Some(output), Some(listener), Some(control)) =
        (owned[0].take(), owned[1].take(), owned[2].take())
    else {
        return ExitCode::from(2);
    };
    leakline_collector::serve(
        File::from(output),
        listener,
        control,
        Some(super::ledger::reader),
    )
}
