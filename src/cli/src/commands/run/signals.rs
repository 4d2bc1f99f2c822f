//! Signals and descriptors as this process found them, and the supervisor's
//! own way with signals.
//!
//! A target shall find what it would find without leakline. Rust's runtime
//! changes two things before `main`: SIGPIPE is ignored, and a closed
//! descriptor 0, 1 or 2 is opened on `/dev/null`. Both are looked at before
//! that, by a function in `.init_array`. The rest is changed here, and kept
//! to be undone in the child.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// SIGPIPE was ignored when the process began.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
/// Bit n: descriptor n (0, 1, 2) was closed when the process began.
static CLOSED: AtomicU8 = AtomicU8::new(0);

#[used]
// SAFETY: the C runtime calls what `.init_array` holds, once, before `main`;
// `look_around` needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
static LOOK_AROUND: extern "C" fn() = look_around;

extern "C" fn look_around() {
    SIGPIPE_IGNORED.store(disposition(libc::SIGPIPE) == libc::SIG_IGN, Relaxed);
    for number in 0..3_u8 {
        // SAFETY: asks about a number.
        if unsafe { libc::fcntl(number.into(), libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << number, Relaxed);
        }
    }
}

/// What a process does on `signal`: a handler, `SIG_DFL` or `SIG_IGN`.
fn disposition(signal: libc::c_int) -> libc::sighandler_t {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition, into memory that is ours. All zero
    // is a valid sigaction, should the call fail.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction
    }
}

fn set_disposition(signal: libc::c_int, to: libc::sighandler_t) {
    // SAFETY: SIG_DFL or SIG_IGN (the callers are below): no code runs in a
    // handler.
    unsafe { libc::signal(signal, to) };
}

/// Signals that keep their way in the supervisor: a crash is a crash. All
/// others it waits for, instead of dying or stopping of them.
const LEFT_ALONE: [libc::c_int; 7] = [
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// The process's signals, taken over by [`take`](Signals::take).
pub(in crate::commands) struct Signals {
    waited_for: libc::sigset_t,
    mask_before: libc::sigset_t,
    sigchld_before: libc::sighandler_t,
}

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Received {
    /// Which.
    pub(in crate::commands) signal: libc::c_int,
    /// The process that sent it; `None` when the kernel did (the terminal, to
    /// the whole foreground process group).
    pub(in crate::commands) sender: Option<libc::pid_t>,
}

impl Signals {
    /// Blocks the signals that the supervisor waits for, so that none is
    /// missed or kills it from here on.
    pub(in crate::commands) fn take() -> Signals {
        let mut waited_for = MaybeUninit::uninit();
        let mut mask_before = MaybeUninit::uninit();
        // SAFETY: sigfillset initializes the set that sigdelset and
        // sigprocmask then read; sigprocmask fills the old mask in (it fails
        // only for an unknown `how`). One thread runs in this process.
        let (waited_for, mask_before) = unsafe {
            libc::sigfillset(waited_for.as_mut_ptr());
            for signal in LEFT_ALONE {
                libc::sigdelset(waited_for.as_mut_ptr(), signal);
            }
            libc::sigprocmask(
                libc::SIG_BLOCK,
                waited_for.as_ptr(),
                mask_before.as_mut_ptr(),
            );
            (waited_for.assume_init(), mask_before.assume_init())
        };
        let sigchld_before = disposition(libc::SIGCHLD);
        // A parent that ignores SIGCHLD hands that down, and the kernel would
        // reap the target before its exit status was asked for.
        set_disposition(libc::SIGCHLD, libc::SIG_DFL);
        Signals {
            waited_for,
            mask_before,
            sigchld_before,
        }
    }

    /// In the forked child: makes signals and standard descriptors what they
    /// were when this process began. A signal that came meanwhile takes its
    /// effect here.
    pub(in crate::commands) fn restore(&self) {
        restore_inherited();
        if self.sigchld_before == libc::SIG_IGN {
            set_disposition(libc::SIGCHLD, libc::SIG_IGN);
        }
        // SAFETY: a mask that the kernel gave us.
        unsafe {
            libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const self.mask_before,
                std::ptr::null_mut(),
            )
        };
    }

    /// Waits for the next signal, with `at_most` no longer than that.
    pub(in crate::commands) fn wait(&self, at_most: Option<Duration>) -> Option<Received> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let timeout = at_most.map(|time| libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: time.subsec_nanos().into(),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the set is whole, `info` is ours to fill, and `timeout` is
        // null or points to a value that outlives the call.
        let signal =
            unsafe { libc::sigtimedwait(&raw const self.waited_for, info.as_mut_ptr(), timeout) };
        if signal <= 0 {
            return None;
        }
        // SAFETY: all zero is a valid siginfo_t, and the kernel has filled it
        // in.
        let info = unsafe { info.assume_init() };
        // SI_USER, SI_QUEUE and SI_TKILL are not positive; what the kernel
        // sends is.
        // SAFETY: signals with these codes carry the sender's pid.
        let sender = (info.si_code <= 0).then(|| unsafe { info.si_pid() });
        Some(Received { signal, sender })
    }

    /// Lets `signal` do to this process what it does by default: stop it
    /// (then this returns when the process goes on) or end it.
    pub(in crate::commands) fn suffer(&self, signal: libc::c_int) {
        set_disposition(signal, libc::SIG_DFL);
        let mut only = MaybeUninit::uninit();
        // SAFETY: sigemptyset initializes the set before the others read it;
        // raising a signal at its default disposition runs none of our code.
        unsafe {
            libc::sigemptyset(only.as_mut_ptr());
            libc::sigaddset(only.as_mut_ptr(), signal);
            libc::raise(signal);
            libc::sigprocmask(libc::SIG_UNBLOCK, only.as_ptr(), std::ptr::null_mut());
            libc::sigprocmask(
                libc::SIG_BLOCK,
                &raw const self.waited_for,
                std::ptr::null_mut(),
            );
        }
    }
}

/// Undoes what Rust's runtime did to SIGPIPE and to the standard descriptors.
/// To be called right before an exec only: other code of this process may
/// rest on both.
pub(in crate::commands) fn restore_inherited() {
    let sigpipe = if SIGPIPE_IGNORED.load(Relaxed) {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    set_disposition(libc::SIGPIPE, sigpipe);
    let closed = CLOSED.load(Relaxed);
    for number in (0..3).filter(|number| closed & 1 << number != 0) {
        // SAFETY: the number is open on `/dev/null` by the runtime; nothing
        // writes to it between here and the exec.
        unsafe { libc::close(number) };
    }
}
