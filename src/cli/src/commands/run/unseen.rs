//! A process that the program which starts it never hears of: no `SIGCHLD`, and
//! nothing for a `waitpid(-1)` of whoever else waits there.
//!
//! A child between starts it and ends. That one is cloned to end without a signal
//! and is waited for by `__WCLONE`, so that nobody else's wait sees it; what it
//! started is then a child of whoever adopts orphans. Both share this process's
//! memory until they are done, as in `vfork`: a fork of a large program takes
//! tens of milliseconds, and doubles what it writes to meanwhile.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::ptr;

use leakline_wire::env;

/// Bytes of stack for each of the two children; they make system calls only.
const STACK_BYTES: usize = 64 * 1024;
const STACK_WORDS: usize = STACK_BYTES / size_of::<u128>();

/// What the children read and write, in memory that all share.
struct Plan {
    program: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    numbers: [(RawFd, RawFd); 3],
    null: RawFd,
    second_stack: *mut libc::c_void,
    /// The process that was started.
    pid: libc::pid_t,
    /// Why it was not.
    error: i32,
}

/// Starts `command` with the descriptors of `numbers` (from, to) and nothing else
/// of this process's but the environment; standard streams are `null`. Gives its
/// pid.
pub(super) fn spawn(
    command: &[OsString],
    numbers: [(RawFd, RawFd); 3],
    null: RawFd,
) -> io::Result<i32> {
    let text = |word: OsString| CString::new(word.into_vec()).map_err(io::Error::from);
    let arguments: Vec<CString> = command
        .iter()
        .map(|word| text(word.clone()))
        .collect::<Result<_, _>>()?;
    let environment: Vec<CString> = std::env::vars_os()
        // The collector is nobody's target.
        .filter(|(name, _)| name != env::PRELOAD && name != env::SESSION)
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect::<Result<_, _>>()?;
    let list = |texts: &[CString]| {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (argument_list, environment_list) = (list(&arguments), list(&environment));
    let program = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut stacks = vec![0_u128; 2 * STACK_WORDS];
    // SAFETY: the end of the allocation.
    let high = unsafe { stacks.as_mut_ptr().add(2 * STACK_WORDS) };
    // SAFETY: its middle.
    let middle = unsafe { stacks.as_mut_ptr().add(STACK_WORDS) };
    let mut plan = Plan {
        program: program.as_ptr(),
        arguments: argument_list.as_ptr(),
        environment: environment_list.as_ptr(),
        numbers,
        null,
        second_stack: middle.cast(),
        pid: 0,
        error: 0,
    };

    let mut all = empty_set();
    let mut before = empty_set();
    // SAFETY: sets of our own. No handler may run on memory that is shared with
    // children, in their place.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    // SAFETY: the child has a stack of its own, and this thread goes on only when
    // it has ended: what it shares stays as it is until then.
    let child = unsafe {
        libc::clone(
            start_another,
            high.cast(),
            flags,
            (&raw mut plan).cast::<libc::c_void>(),
        )
    };
    let failed = (child < 0).then(io::Error::last_os_error);
    if failed.is_none() {
        let mut status = 0;
        // SAFETY: a child of ours that nobody else waits for.
        while unsafe { libc::waitpid(child, &raw mut status, libc::__WCLONE) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    // SAFETY: as it was.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    match (failed, plan.error) {
        (Some(error), _) => Err(error),
        (None, 0) => Ok(plan.pid),
        (None, error) => Err(io::Error::from_raw_os_error(error)),
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: plain bits.
    let mut set = unsafe { std::mem::zeroed() };
    // SAFETY: a set of our own.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(1)
}

/// In the child between: starts the other one, which it does not wait for.
extern "C" fn start_another(plan: *mut libc::c_void) -> libc::c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: the plan lives as long as this process; its second stack is nobody
    // else's. The other child runs until it is another program.
    unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = libc::clone(become_program, (*plan).second_stack, flags, plan.cast());
        if pid < 0 {
            (*plan).error = errno();
        }
        (*plan).pid = pid;
    }
    0
}

/// In the other child: becomes the program.
extern "C" fn become_program(plan: *mut libc::c_void) -> libc::c_int {
    let plan = plan.cast::<Plan>();
    // SAFETY: as above; only system calls are made. Handlers of signals are this
    // process's own copies, and descriptors too.
    unsafe {
        for standard in 0..3 {
            libc::dup2((*plan).null, standard);
        }
        if super::session::become_collector((*plan).numbers).is_err() {
            (*plan).error = errno();
            return 127;
        }
        libc::chdir(c"/".as_ptr());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let none = empty_set();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::execve((*plan).program, (*plan).arguments, (*plan).environment);
        (*plan).error = errno();
    }
    127
}
