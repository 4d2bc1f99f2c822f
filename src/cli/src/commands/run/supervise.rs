//! Standing in for the target: whoever started `leakline run` sees the
//! target's stops and its end, and what they send arrives there.
//!
//! Supervisor and target share a process group and a terminal, as a shell's
//! job does, so what the terminal sends (Ctrl-C, Ctrl-Z, a new size) reaches
//! the target by itself. What a process sends to the supervisor alone is
//! passed on. The two are told apart by the sender: the kernel has none.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, getsid, kill_process,
    set_dumpable_behavior, wait,
};

use super::session::Collector;
use super::signals::{Received, Signals};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// `None` of a process that only stopped, or went on.
    fn from_status(status: WaitStatus) -> Option<Ended> {
        let exited = status.exit_status().map(Ended::Exited);
        exited.or_else(|| status.terminating_signal().map(Ended::Killed))
    }
}

/// The supervisor, from the target's begin on.
pub(super) struct Supervisor {
    signals: Signals,
    target: Pid,
    target_stopped: bool,
    /// The stop that this process has not followed yet.
    stop_to_follow: Option<i32>,
    target_ended: Option<Ended>,
    /// The collector.
    pub(super) collector: Collector,
    collector_ended: Option<Ended>,
}

impl Supervisor {
    pub(super) fn new(signals: Signals, target: Pid, collector: Collector) -> Supervisor {
        Supervisor {
            signals,
            target,
            target_stopped: false,
            stop_to_follow: None,
            target_ended: None,
            collector,
            collector_ended: None,
        }
    }

    /// Waits for the target's end. Reads no message of the collector meanwhile:
    /// whatever becomes of it, the target goes on.
    pub(super) fn until_target_ends(&mut self) -> Ended {
        loop {
            self.reap();
            if let Some(ended) = self.target_ended {
                return ended;
            }
            if let Some(signal) = self
                .stop_to_follow
                .take()
                .filter(|signal| stops_job(*signal))
            {
                // Returns when the job is continued; SIGCONT is then waiting.
                self.signals.suffer(signal);
            }
            if let Some(received) = self.signals.wait(None) {
                self.pass_on(received);
            }
        }
    }

    /// Takes note of children that ended, stopped or went on. All children: as
    /// the first process of a container, this one inherits orphans.
    fn reap(&mut self) {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        while let Ok(Some((pid, status))) = rustix::io::retry_on_intr(|| wait(options)) {
            if pid == self.target {
                self.note_target(status);
            } else if pid == self.collector.pid() {
                self.collector_ended = Ended::from_status(status);
            }
        }
    }

    fn note_target(&mut self, status: WaitStatus) {
        self.target_ended = Ended::from_status(status);
        self.stop_to_follow = status.stopping_signal();
        self.target_stopped = self.stop_to_follow.is_some();
    }

    fn pass_on(&mut self, Received { signal, sender }: Received) {
        let passed_on = match signal {
            libc::SIGCHLD => false,
            libc::SIGCONT => {
                // A shell continues the whole job: then the target runs.
                self.reap();
                self.target_stopped
            }
            // The timers of a process that executed leakline count on.
            libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF => true,
            // The terminal hangs up on the leader of the session alone.
            libc::SIGHUP if sender.is_none() => getsid(None).is_ok_and(|leader| leader == getpid()),
            // A target that signals its process group has got it as well.
            _ => sender.is_some_and(|sender| sender != self.target.as_raw_pid()),
        };
        if passed_on && self.target_ended.is_none() {
            // SAFETY: a number that the kernel gave us as a signal; the C
            // library's own are not among those that arrive here.
            let signal = unsafe { Signal::from_raw_unchecked(signal) };
            // The target is not reaped, so the pid is still its own.
            let _ = kill_process(self.target, signal);
        }
    }

    /// Whether the user wants to wait no longer. Only after the target's end:
    /// before, the user speaks to the target.
    pub(super) fn interrupted(&self) -> bool {
        const IMPATIENT: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
        while let Some(received) = self.signals.wait(Some(Duration::ZERO)) {
            if IMPATIENT.contains(&received.signal) {
                return true;
            }
        }
        false
    }

    /// Waits a moment for the collector's process to end, so that it does not
    /// stay behind as a zombie where nobody reaps orphans. Returns how it ended,
    /// if it did.
    pub(super) fn see_collector_off(&mut self) -> Option<Ended> {
        let deadline = Instant::now() + Duration::from_millis(250);
        loop {
            self.reap();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.collector_ended.is_some() || left.is_zero() {
                return self.collector_ended;
            }
            // SIGCHLD wakes.
            self.signals.wait(Some(left));
        }
    }

    /// Ends this process as the target ended: by the same signal, or with the
    /// status returned.
    pub(super) fn end_as(&self, ended: Ended) -> ExitCode {
        let status = match ended {
            Ended::Exited(status) => status,
            Ended::Killed(signal) => {
                // The core to look at is the target's. (A limit of 0 would
                // not keep a core handler from being started.)
                let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
                self.signals.suffer(signal);
                // Still here: the first process of a container does not die
                // of its own signals. What a shell makes of it, then.
                128 + signal
            }
        };
        ExitCode::from(status as u8)
    }
}

/// Whether a stop by `signal` is a stop of the job, that the shell is to
/// see. SIGSTOP is one on a terminal (an editor that suspends itself); else
/// somebody holds the target and will continue it alone.
fn stops_job(signal: i32) -> bool {
    match signal {
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => true,
        _ => std::fs::File::open("/dev/tty")
            .is_ok_and(|tty| rustix::termios::tcgetpgrp(tty).is_ok_and(|group| group == getpgrp())),
    }
}
