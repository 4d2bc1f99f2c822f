//! A thread that is traced for a moment.
//!
//! The kernel lets it go by itself when the thread that traces it ends, whatever
//! state it is in. So each try has such a thread of its own ([`apart`]), and
//! nothing is set here that would outlive it and do harm: no breakpoint, no
//! `PTRACE_O_EXITKILL`.

#![expect(unsafe_code, reason = "ptrace and waitpid")]

use std::cell::Cell;
use std::io;
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_long, c_void};

use crate::filter::Instruction;

/// A stop that was asked for or came with a stop signal, in a wait status.
const EVENT_STOP: c_int = 128;
/// The regset of the vector state.
const NT_X86_XSTATE: usize = 0x202;
/// The older part of it, of fixed size: all that there is without XSAVE.
const NT_PRFPREG: usize = 2;
/// Largest vector state there is room for: with matrix tiles it takes 11 KiB.
const MOST_XSTATE: usize = 64 << 10;
/// Bytes of a kernel's signal set.
const MASK_BYTES: usize = 8;

/// Registers to be filled.
// SAFETY: the structure has integers alone, for which zero is a value.
pub(crate) const NO_REGISTERS: libc::user_regs_struct = unsafe { std::mem::zeroed() };

const EINTR: u64 = -4_i64 as u64;
const ERESTARTSYS: u64 = -512_i64 as u64;
const ERESTARTNOINTR: u64 = -513_i64 as u64;
const ERESTARTNOHAND: u64 = -514_i64 as u64;
const ERESTART_RESTARTBLOCK: u64 = -516_i64 as u64;

/// All that a function call can change of a thread.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) registers: libc::user_regs_struct,
    /// As the kernel gives it: an XSAVE image, or where the processor has no such
    /// thing one of FXSAVE.
    pub(crate) xstate: Vec<u8>,
    /// Signals that are blocked.
    pub(crate) mask: u64,
}

impl State {
    /// Whether the stop came in a system call that is to begin anew.
    pub(crate) fn is_interrupted(&self) -> bool {
        is_interrupted(&self.registers)
    }
}

/// As [`State::is_interrupted`], of its registers alone.
pub(crate) fn is_interrupted(registers: &libc::user_regs_struct) -> bool {
    let restarts = matches!(
        registers.rax,
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK
    );
    registers.orig_rax as i64 >= 0 && restarts
}

/// Whether the kernel keeps vector registers as XSAVE has them. Many virtual machines
/// have processors without (`kvm64`, `x86-64-v2`).
pub(crate) fn has_xsave() -> bool {
    std::arch::is_x86_feature_detected!("xsave")
}

/// The set of registers that has the vector registers.
fn vector_set() -> usize {
    if has_xsave() {
        NT_X86_XSTATE
    } else {
        NT_PRFPREG
    }
}

/// How a wait for a thread ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It stopped because it was asked to.
    Stopped,
    /// It is stopped, together with its process, by this signal.
    GroupStop(c_int),
    /// It begins or ends a system call.
    SystemCall,
    /// A signal is about to be delivered.
    Signal(c_int),
    /// It is no more, or another program.
    Gone,
    /// Nothing happened in time.
    Late,
}

/// A thread that this one traces.
#[derive(Debug)]
pub(crate) struct Tracee {
    tid: c_int,
    /// How often it is looked at: all the time, or after sleeps.
    may_spin: bool,
}

/// Runs what traces in a thread of its own: with its end all is let go, also
/// what did not stop yet but was asked to.
///
/// The thread comes before others where that is permitted: a target that stands
/// still shall not do so for longer because this process waits for its turn.
pub(crate) fn apart<T: Send>(trace: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| {
        let tracer = scope.spawn(|| {
            URGENT.set(hurry());
            trace()
        });
        tracer.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

thread_local! {
    /// Whether this thread comes before all ordinary ones.
    static URGENT: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread the lowest real-time priority, if that is permitted.
fn hurry() -> bool {
    let priority = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads the structure, which is ours; 0 is this thread.
    unsafe { libc::sched_setscheduler(0, policy, &raw const priority) == 0 }
}

/// One call of `ptrace`, with numbers.
fn ptrace(request: libc::c_uint, tid: c_int, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: the requests that this is used with (seize, interrupt, resume,
    // detach) take `data` as a number or not at all: nothing is written here.
    let result = unsafe { libc::ptrace(request, tid, address as *mut c_void, data as *mut c_void) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

impl Tracee {
    /// Begins to trace a thread, without stopping it.
    pub(crate) fn seize(tid: c_int) -> io::Result<Self> {
        let options = libc::PTRACE_O_TRACESYSGOOD as usize;
        ptrace(libc::PTRACE_SEIZE, tid, 0, options)?;
        Ok(Self {
            tid,
            may_spin: !URGENT.get(),
        })
    }

    /// Asks it to stop.
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        ptrace(libc::PTRACE_INTERRUPT, self.tid, 0, 0).map(drop)
    }

    /// Lets it run until its next system call, which delivers `signal` (0: none).
    pub(crate) fn run_to_system_call(&self, signal: c_int) -> io::Result<()> {
        ptrace(libc::PTRACE_SYSCALL, self.tid, 0, signal as usize).map(drop)
    }

    /// Lets it run.
    pub(crate) fn run(&self, signal: c_int) -> io::Result<()> {
        ptrace(libc::PTRACE_CONT, self.tid, 0, signal as usize).map(drop)
    }

    /// Lets it go, which delivers `signal` (0: none). It must be stopped.
    pub(crate) fn detach(&self, signal: c_int) -> io::Result<()> {
        ptrace(libc::PTRACE_DETACH, self.tid, 0, signal as usize).map(drop)
    }

    /// The thread's seccomp filter number `at`, oldest first; `None`: it has no more. It
    /// must be stopped.
    pub(crate) fn seccomp_filter(&self, at: usize) -> io::Result<Option<Vec<Instruction>>> {
        const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
        /// `BPF_MAXINSNS`: longer programs the kernel takes none.
        const MOST_INSTRUCTIONS: usize = 4096;
        let mut program = vec![Instruction::default(); MOST_INSTRUCTIONS];
        let room = program.as_mut_ptr().cast::<c_void>();
        // SAFETY: the kernel writes one filter of the thread there, for which there is
        // room however long it is; any bytes are instructions.
        let length = unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER, self.tid, at, room) };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            let is_last = error.raw_os_error() == Some(libc::ENOENT);
            return if is_last { Ok(None) } else { Err(error) };
        };
        program.truncate(length);
        Ok(Some(program))
    }

    /// Waits for the next event.
    ///
    /// The first milliseconds it asks again and again: a thread that stands
    /// still for a timer's granularity stands still for longer than needed.
    pub(crate) fn wait(&self, until: Instant) -> io::Result<Event> {
        const SOON: Duration = Duration::from_millis(2);
        let started = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: `status` is ours and outlives the call.
            let found =
                unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
            if found == self.tid {
                return Ok(Self::event(status));
            }
            if found == -1 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ECHILD) => return Ok(Event::Gone),
                    _ => return Err(error),
                }
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Event::Late);
            }
            match now - started < SOON {
                true if self.may_spin => thread::yield_now(),
                // Who comes before all others must not keep them waiting.
                true => thread::sleep(Duration::from_micros(10)),
                false => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn event(status: c_int) -> Event {
        if !libc::WIFSTOPPED(status) {
            return Event::Gone;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            EVENT_STOP if signal == libc::SIGTRAP => Event::Stopped,
            EVENT_STOP => Event::GroupStop(signal),
            _ if signal == libc::SIGTRAP | 0x80 => Event::SystemCall,
            _ => Event::Signal(signal),
        }
    }

    /// Its general registers. It must be stopped, here and below.
    pub(crate) fn registers(&self) -> io::Result<libc::user_regs_struct> {
        let mut registers = NO_REGISTERS;
        // SAFETY: the kernel writes one such structure, to which we have the
        // only reference.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGS,
                self.tid,
                null_mut::<c_void>(),
                &raw mut registers,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(registers)
    }

    /// Sets its general registers, in one step.
    pub(crate) fn set_registers(&self, registers: &libc::user_regs_struct) -> io::Result<()> {
        // SAFETY: the kernel reads one such structure.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGS,
                self.tid,
                null_mut::<c_void>(),
                std::ptr::from_ref(registers),
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Its vector registers.
    pub(crate) fn xstate(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; MOST_XSTATE];
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: the kernel writes at most `iov_len` bytes to where the vector
        // points, which is ours, and then the length to `part`.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGSET,
                self.tid,
                vector_set(),
                &raw mut part,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        bytes.truncate(part.iov_len);
        Ok(bytes)
    }

    /// Sets its vector registers.
    pub(crate) fn set_xstate(&self, xstate: &[u8]) -> io::Result<()> {
        let mut part = libc::iovec {
            iov_base: xstate.as_ptr().cast_mut().cast(),
            iov_len: xstate.len(),
        };
        // SAFETY: the kernel only reads the bytes of the slice.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGSET,
                self.tid,
                vector_set(),
                &raw mut part,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The signals that it blocks: in a call that exchanges them for its time,
    /// those from before it.
    pub(crate) fn mask(&self) -> io::Result<u64> {
        let mut mask = 0_u64;
        // SAFETY: the kernel writes the eight bytes that are told, all ours.
        let result =
            unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, self.tid, MASK_BYTES, &raw mut mask) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(mask)
    }

    /// Sets the signals that it blocks.
    pub(crate) fn set_mask(&self, mask: u64) -> io::Result<()> {
        // SAFETY: the kernel reads the eight bytes that are told.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETSIGMASK,
                self.tid,
                MASK_BYTES,
                &raw const mask,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Whether it is within a restartable sequence, which must not be left and
    /// come back to.
    pub(crate) fn restartable_sequence(&self) -> Option<u64> {
        // SAFETY: integers alone, for which zero is a value.
        let mut rseq: libc::ptrace_rseq_configuration = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes at most the bytes that are told.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_RSEQ_CONFIGURATION,
                self.tid,
                size_of_val(&rseq),
                &raw mut rseq,
            )
        };
        (result > 0 && rseq.rseq_abi_pointer != 0).then_some(rseq.rseq_abi_pointer)
    }

    /// All that is to be restored.
    pub(crate) fn state(&self) -> io::Result<State> {
        Ok(State {
            registers: self.registers()?,
            xstate: self.xstate()?,
            mask: self.mask()?,
        })
    }

    /// Makes a wait for events that the stop alone would end go on: the kernel
    /// begins it anew, unless there is a signal to be handled.
    pub(crate) fn keep_waiting(&self) -> io::Result<()> {
        let mut registers = self.registers()?;
        let is_wait = matches!(
            registers.orig_rax as c_long,
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2
        );
        if is_wait && registers.rax == EINTR {
            registers.rax = ERESTARTNOHAND;
            self.set_registers(&registers)?;
        }
        Ok(())
    }
}
