//! A thread that is borrowed for one function call.
//!
//! # Invariants
//!
//! * Whenever the thread can run, it is either where it was, or will come back
//!   there by itself, whether this process lives or not.
//! * Signals are delivered as they come. Those that arrive while the thread is
//!   away wait for the moment of its return, but for faults.
//!
//! While this process lives it brings the thread back itself where it was taken
//! out of a system call: then the kernel knows how long the call had waited, and
//! ends it for a signal that came meanwhile. The signal frame alone has it begin
//! anew.

use std::io;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::{self, Frame};
use crate::target::Process;
use crate::tracee::{self, Event, State, Tracee};

/// A step of an injection, after which a test can have the injector killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Step {
    Chosen,
    TextWritten,
    Seized,
    Stopped,
    FrameWritten,
    RegistersSet,
    SignalsBlocked,
    Running,
    Returned,
    Held,
    HeldStopped,
    VectorsRestored,
    SignalsRestored,
    RegistersRestored,
    Detached,
}

impl Step {
    /// All of them, as they follow one another.
    pub const ALL: [Self; 15] = [
        Self::Chosen,
        Self::TextWritten,
        Self::Seized,
        Self::Stopped,
        Self::FrameWritten,
        Self::RegistersSet,
        Self::SignalsBlocked,
        Self::Running,
        Self::Returned,
        Self::Held,
        Self::HeldStopped,
        Self::VectorsRestored,
        Self::SignalsRestored,
        Self::RegistersRestored,
        Self::Detached,
    ];
}

impl FromStr for Step {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|step| format!("{step:?}") == name)
            .ok_or_else(|| format!("no step of an injection: `{name}`"))
    }
}

/// Kills this process, if that is what is wanted after this step.
pub(crate) fn reached(fault: Option<Step>, step: Step) {
    if fault == Some(step) {
        // It cannot fail, and if it did the test would see it.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// How long a thread that was asked to stop may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// Signals that a borrowed thread takes: faults, which would kill it when
/// blocked, and the one by which libc has all threads change their user: a
/// thread that waits for it may hold a lock that the loader takes.
const TAKEN_SIGNALS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    33,
];

fn borrowed_mask() -> u64 {
    TAKEN_SIGNALS
        .iter()
        .fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)))
}

/// A function call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) function: u64,
    pub(crate) first: First<'a>,
    pub(crate) second: u64,
}

/// The first argument of a call.
#[derive(Clone, Copy)]
pub(crate) enum First<'a> {
    Value(u64),
    /// The address of these bytes, which live as long as the call.
    Data(&'a [u8]),
}

/// Whether a stopped thread, with these registers, may make the call: then how
/// many bytes its stack has below.
pub(crate) type Suits<'a> = dyn Fn(&Tracee, &libc::user_regs_struct) -> Option<u64> + Sync + 'a;

/// What came of a try with a thread.
pub(crate) enum Outcome {
    /// The function returned, and the thread is back.
    Returned {
        paused: Duration,
        borrowed: Duration,
    },
    /// The function goes on without us; the thread will come back by itself.
    Running { paused: Duration, since: Instant },
    /// The thread is as it was.
    Unsuitable,
}

/// Why a try broke off.
pub(crate) enum Error {
    /// The thread ended, or its process runs another program.
    Gone,
    /// Its process is stopped by a signal.
    Stopped,
    /// Something was not as it has to be.
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// What a thread is to do.
pub(crate) struct Plan<'a> {
    pub(crate) tid: i32,
    pub(crate) call: Call<'a>,
    /// Bytes of stack that it takes.
    pub(crate) stack: u64,
    /// How long it is stayed with, unless it is taken back below.
    pub(crate) until: Instant,
    /// How long the call may wait for a lock, before which it changes nothing:
    /// the thread may hold that itself, further out. `None`: as long as it takes.
    pub(crate) lock_patience: Option<Duration>,
    pub(crate) fault: Option<Step>,
}

/// What there is in libc for the way back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WayBack {
    /// Where `__restore_rt` lies.
    pub(crate) restorer: u64,
    /// Where `swab` lies, and each thread's `errno`, from its thread pointer on.
    pub(crate) errno: Option<(u64, u64)>,
}

/// A thread that is away from what it was at.
struct Visit<'a> {
    process: &'a Process,
    errno: Option<frame::Errno>,
    restorer: u64,
    state: &'a State,
    frame: &'a Frame,
    stopped: Instant,
    paused: Duration,
}

impl Plan<'_> {
    /// Stops the thread and, if it `suits`, has it make the call.
    pub(crate) fn carry_out(
        &self,
        process: &Process,
        back: &WayBack,
        suits: &Suits<'_>,
    ) -> Result<Outcome, Error> {
        tracee::apart(|| self.borrow(process, back, suits))
    }

    fn borrow(
        &self,
        process: &Process,
        back: &WayBack,
        suits: &Suits<'_>,
    ) -> Result<Outcome, Error> {
        let tracee = match self.seize() {
            Ok(tracee) => tracee,
            // It ended since it was looked at.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Ok(Outcome::Unsuitable);
            }
            Err(error) => return Err(Error::Io(error)),
        };
        reached(self.fault, Step::Seized);
        let Some(stopped) = stop(&tracee)? else {
            return Ok(Outcome::Unsuitable);
        };
        // Before all else: the kernel would end such a wait when we die.
        tracee.keep_waiting()?;
        reached(self.fault, Step::Stopped);
        let state = tracee.state()?;
        let errno = errno(process, &state, back);
        let Some(frame) = self.frame(&tracee, &state, back.restorer, errno.as_ref(), suits) else {
            tracee.detach(0)?;
            return Ok(Outcome::Unsuitable);
        };
        process.write(frame.sp, &frame.bytes)?;
        reached(self.fault, Step::FrameWritten);
        tracee.set_registers(&calling(&state, &frame, &self.call))?;
        reached(self.fault, Step::RegistersSet);
        tracee.set_mask(borrowed_mask())?;
        reached(self.fault, Step::SignalsBlocked);
        tracee.run_to_system_call(0)?;
        let visit = Visit {
            process,
            errno,
            restorer: back.restorer,
            state: &state,
            frame: &frame,
            stopped,
            paused: stopped.elapsed(),
        };
        reached(self.fault, Step::Running);
        self.attend(&tracee, &visit)
    }

    /// Begins to trace the thread, which the last try may not have left quite yet.
    fn seize(&self) -> io::Result<Tracee> {
        const TRIES: u32 = 5;
        let mut tries = 1;
        loop {
            match Tracee::seize(self.tid) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && tries < TRIES => {
                    tries += 1;
                    thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }

    /// The frame for a stopped thread, if that suits and has room for it.
    fn frame(
        &self,
        tracee: &Tracee,
        state: &State,
        restorer: u64,
        errno: Option<&frame::Errno>,
        suits: &Suits<'_>,
    ) -> Option<Frame> {
        /// The code segment of 64-bit programs.
        const NATIVE: u64 = 0x33;
        if state.registers.cs != NATIVE {
            return None;
        }
        let room = suits(tracee, &state.registers)?;
        let data = match self.call.first {
            First::Data(data) => data,
            First::Value(_) => &[],
        };
        // With a system call that is to go on, its detour would make the kernel
        // forget how long that has waited: we write it, and lose it with us.
        let errno = errno.filter(|_| !state.is_interrupted());
        let frame = frame::build(state, restorer, data, errno).ok()?;
        let taken = state.registers.rsp - frame.sp + self.stack;
        (taken <= room).then_some(frame)
    }

    /// Stays with a thread until the call returns, and brings it back.
    fn attend(&self, tracee: &Tracee, visit: &Visit<'_>) -> Result<Outcome, Error> {
        let running = Outcome::Running {
            paused: visit.paused,
            since: visit.stopped,
        };
        let until = || match self.lock_patience {
            Some(patience) => Instant::now() + patience,
            None => self.until,
        };
        let mut deadline = until();
        loop {
            match tracee.wait(deadline)? {
                Event::SystemCall => {
                    let registers = tracee.registers()?;
                    let is_back = registers.orig_rax as i64 == libc::SYS_rt_sigreturn
                        && registers.rsp == visit.frame.last + 8;
                    if is_back {
                        reached(self.fault, Step::Returned);
                        return self.bring_back(tracee, visit, registers);
                    }
                    tracee.run_to_system_call(0)?;
                }
                Event::Stopped => tracee.run_to_system_call(0)?,
                Event::Signal(signal) => tracee.run_to_system_call(signal)?,
                // It goes on when its process does.
                Event::GroupStop(_) => {
                    tracee.detach(0)?;
                    return Ok(running);
                }
                Event::Gone => return Err(Error::Gone),
                Event::Late => {
                    if stop(tracee)?.is_none() {
                        return Ok(running);
                    }
                    let registers = tracee.registers()?;
                    if registers.rsp > visit.frame.last + 8 {
                        // It came back by its frame just now.
                        tracee.detach(0)?;
                        return Ok(Outcome::Returned {
                            paused: visit.paused,
                            borrowed: visit.stopped.elapsed(),
                        });
                    }
                    if self.lock_patience.is_none() {
                        tracee.detach(0)?;
                        return Ok(running);
                    }
                    if registers.orig_rax as i64 == libc::SYS_futex
                        && tracee::is_interrupted(&registers)
                    {
                        self.restore(tracee, visit)?;
                        tracee.detach(0)?;
                        return Ok(Outcome::Unsuitable);
                    }
                    // It had no processor yet. Left now, it might wait for itself.
                    tracee.run_to_system_call(0)?;
                    deadline = until();
                }
            }
        }
    }

    /// Restores a thread that is about to leave the call by its frame.
    fn bring_back(
        &self,
        tracee: &Tracee,
        visit: &Visit<'_>,
        mut registers: libc::user_regs_struct,
    ) -> Result<Outcome, Error> {
        let returned = |paused| Outcome::Returned {
            paused,
            borrowed: visit.stopped.elapsed(),
        };
        if !visit.state.is_interrupted() {
            tracee.detach(0)?;
            reached(self.fault, Step::Detached);
            return Ok(returned(visit.paused));
        }
        // It shall stop where the kernel decides on interrupted calls, which
        // `rt_sigreturn` would make it forget: so it makes another call first,
        // one that does nothing and that loading a library needs as well, lest
        // a filter of calls object. After it comes the same `rt_sigreturn`,
        // should we be no more.
        registers.orig_rax = libc::SYS_close as u64;
        registers.rdi = u64::MAX;
        registers.rip = visit.restorer;
        tracee.set_registers(&registers)?;
        reached(self.fault, Step::Held);
        tracee.interrupt()?;
        tracee.run(0)?;
        let until = Instant::now() + PATIENCE;
        match tracee.wait(until)? {
            Event::Stopped => {}
            Event::Gone => return Err(Error::Gone),
            Event::Late => return Ok(returned(visit.paused)),
            // By its frame, then, after what this is about.
            Event::Signal(signal) => {
                tracee.detach(signal)?;
                return Ok(returned(visit.paused));
            }
            Event::SystemCall | Event::GroupStop(_) => {
                tracee.detach(0)?;
                return Ok(returned(visit.paused));
            }
        }
        let held = Instant::now();
        reached(self.fault, Step::HeldStopped);
        self.restore(tracee, visit)?;
        tracee.detach(0)?;
        reached(self.fault, Step::Detached);
        Ok(returned(visit.paused + held.elapsed()))
    }

    /// Gives a stopped thread all that it had. Until the last step it would come
    /// back by its frame.
    fn restore(&self, tracee: &Tracee, visit: &Visit<'_>) -> io::Result<()> {
        let state = visit.state;
        if let Some(errno) = &visit.errno {
            visit.process.write(errno.address, &errno.value)?;
        }
        tracee.set_xstate(&state.xstate)?;
        reached(self.fault, Step::VectorsRestored);
        tracee.set_mask(state.mask)?;
        reached(self.fault, Step::SignalsRestored);
        tracee.set_registers(&state.registers)?;
        reached(self.fault, Step::RegistersRestored);
        Ok(())
    }
}

/// A stopped thread's `errno`, where it can be found.
fn errno(process: &Process, state: &State, back: &WayBack) -> Option<frame::Errno> {
    let (swab, offset) = back.errno?;
    let address = state.registers.fs_base.wrapping_add(offset);
    let mut value = [0; 4];
    process.read(address, &mut value).ok()?;
    Some(frame::Errno {
        swab,
        address,
        value,
        mask: borrowed_mask(),
    })
}

/// Stops a thread; tells since when it stands still. `None`: it did not stop in
/// time, or is gone.
fn stop(tracee: &Tracee) -> Result<Option<Instant>, Error> {
    tracee.interrupt()?;
    let until = Instant::now() + PATIENCE;
    loop {
        match tracee.wait(until)? {
            Event::Stopped => return Ok(Some(Instant::now())),
            Event::GroupStop(_) => return Err(Error::Stopped),
            // Any other stop makes the kernel forget that this one is wanted.
            Event::Signal(signal) => {
                tracee.interrupt()?;
                tracee.run(signal)?;
            }
            Event::SystemCall => {
                tracee.interrupt()?;
                tracee.run(0)?;
            }
            Event::Gone | Event::Late => return Ok(None),
        }
    }
}

/// The registers of a thread that has just been called to do it.
fn calling(state: &State, frame: &Frame, call: &Call<'_>) -> libc::user_regs_struct {
    let mut registers = state.registers;
    registers.rip = call.function;
    registers.rsp = frame.sp;
    registers.rdi = match call.first {
        First::Value(value) => value,
        First::Data(_) => frame.data,
    };
    registers.rsi = call.second;
    registers.rax = 0;
    registers.eflags &= !frame::UNWANTED_FLAGS;
    // No system call is to begin anew in the function.
    registers.orig_rax = u64::MAX;
    registers
}
