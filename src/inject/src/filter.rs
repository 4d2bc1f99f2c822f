//! What a process's seccomp filters let through.
//!
//! A filter is a small program that the kernel runs at each system call. Who may read
//! it (`CAP_SYS_ADMIN`, with no filter of its own) can run it for the calls that loading
//! the interposer makes, before any of them is made.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use libc::c_int;

use crate::tracee::{self, Event, Tracee};

/// What the filters of a process do with the calls that recording it makes.
#[derive(Debug)]
pub enum Filters {
    /// They let all of them through.
    Allowing {
        /// Forks as well, as a heap graph takes one.
        forks: bool,
        /// Files in memory as well, from which a library is loaded where there is no
        /// place for it.
        memory_files: bool,
        /// How many there are, of the thread that has most.
        count: u32,
    },
    /// Not this one.
    Forbidding {
        /// Its name.
        call: &'static str,
        /// The process would be killed for it, or left waiting; else it only fails.
        kills: bool,
    },
    /// They cannot be read.
    Unreadable(io::Error),
}

/// Whether this process may read others' filters, as far as that can be told.
pub fn are_readable() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
    };
    let capabilities = value("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok());
    value("Seccomp:") == Some("0") && capabilities.is_some_and(|set| set >> CAP_SYS_ADMIN & 1 != 0)
}

/// Reads the filters of all threads of a process. Each thread whose filters may differ
/// is stopped for as long as that takes, some tens of microseconds.
pub fn look(pid: u32) -> Filters {
    match tracee::apart(|| read_all(pid)) {
        Ok((programs, count)) => judge(&programs, count),
        Err(error) => Filters::Unreadable(error),
    }
}

fn judge(programs: &BTreeSet<Vec<Instruction>>, count: u32) -> Filters {
    let mut failing = None;
    for call in CALLS {
        for program in programs {
            match program_says(program, call) {
                Answer::Allows => {}
                Answer::Fails if !call.must => {}
                Answer::Fails => failing = failing.or(Some(call.name)),
                Answer::Kills => {
                    return Filters::Forbidding {
                        call: call.name,
                        kills: true,
                    };
                }
            }
        }
    }
    if let Some(call) = failing {
        return Filters::Forbidding { call, kills: false };
    }
    let all_allow = |call| {
        programs
            .iter()
            .all(|program| program_says(program, call) == Answer::Allows)
    };
    Filters::Allowing {
        forks: all_allow(&FORK),
        memory_files: all_allow(&must("memfd_create", libc::SYS_memfd_create)),
        count,
    }
}

/// All programs, each once, and the most that a thread has.
fn read_all(pid: u32) -> io::Result<(BTreeSet<Vec<Instruction>>, u32)> {
    let mut programs = BTreeSet::new();
    let mut most = 0;
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        let Some(tid) = name.to_str().and_then(|name| name.parse::<c_int>().ok()) else {
            continue;
        };
        // Threads that were given as many have the same, but for those that were
        // made to differ.
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"));
        let Ok(status) = status else { continue };
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"));
        if let Some(count) = count
            && !seen.insert(count.trim().to_owned())
        {
            continue;
        }
        match read(tid) {
            Ok(found) => {
                most = most.max(found.len() as u32);
                programs.extend(found);
            }
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((programs, most))
}

/// The filters of a thread.
fn read(tid: c_int) -> io::Result<Vec<Vec<Instruction>>> {
    const PATIENCE: Duration = Duration::from_millis(100);
    let tracee = Tracee::seize(tid)?;
    tracee.interrupt()?;
    let signal = match tracee.wait(Instant::now() + PATIENCE)? {
        Event::Stopped | Event::GroupStop(_) | Event::SystemCall => 0,
        Event::Signal(signal) => signal,
        Event::Gone => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
        // With the end of this thread it is let go.
        Event::Late => return Err(io::ErrorKind::TimedOut.into()),
    };
    let programs = (0..MOST_FILTERS)
        .map_while(|at| tracee.seccomp_filter(at).transpose())
        .collect();
    tracee.detach(signal)?;
    programs
}

/// More filters than the kernel lets a process have instructions in.
const MOST_FILTERS: usize = 4096;

/// An instruction of classic BPF, as in `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) k: u32,
}

/// A system call that recording makes.
struct Call {
    name: &'static str,
    number: u32,
    /// `None`: it has all sorts of values.
    arguments: [Option<u64>; 6],
    /// Nothing works where it fails.
    must: bool,
}

const ANY: [Option<u64>; 6] = [None; 6];

const fn must(name: &'static str, number: i64) -> Call {
    call(name, number, true, ANY)
}

const fn may(name: &'static str, number: i64) -> Call {
    call(name, number, false, ANY)
}

const fn call(name: &'static str, number: i64, must: bool, arguments: [Option<u64>; 6]) -> Call {
    Call {
        name,
        number: number as u32,
        arguments,
        must,
    }
}

const fn mapping(protection: c_int, flags: c_int) -> Call {
    let arguments = [
        None,
        None,
        Some(protection as u64),
        Some(flags as u64),
        None,
        None,
    ];
    call("mmap", libc::SYS_mmap, true, arguments)
}

const fn protection(protection: c_int) -> Call {
    let arguments = [None, None, Some(protection as u64), None, None, None];
    call("mprotect", libc::SYS_mprotect, true, arguments)
}

const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// Those of the loader when it loads a library, of the interposer, and of a child that
/// tells of the heap.
const CALLS: &[Call] = &[
    must("openat", libc::SYS_openat),
    must("read", libc::SYS_read),
    must("pread64", libc::SYS_pread64),
    must("fstat", libc::SYS_fstat),
    must("newfstatat", libc::SYS_newfstatat),
    must("close", libc::SYS_close),
    mapping(
        libc::PROT_READ,
        libc::MAP_PRIVATE | libc::MAP_DENYWRITE | libc::MAP_FIXED,
    ),
    mapping(
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_DENYWRITE | libc::MAP_FIXED,
    ),
    mapping(READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    mapping(READ_WRITE, libc::MAP_SHARED),
    protection(libc::PROT_NONE),
    protection(libc::PROT_READ),
    protection(READ_WRITE),
    must("munmap", libc::SYS_munmap),
    call(
        "socket",
        libc::SYS_socket,
        true,
        [
            Some(libc::AF_UNIX as u64),
            Some((libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64),
            Some(0),
            None,
            None,
            None,
        ],
    ),
    must("connect", libc::SYS_connect),
    must("sendto", libc::SYS_sendto),
    must("sendmsg", libc::SYS_sendmsg),
    must("recvmsg", libc::SYS_recvmsg),
    must("futex", libc::SYS_futex),
    must("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    must("getpid", libc::SYS_getpid),
    must("gettid", libc::SYS_gettid),
    may("open", libc::SYS_open),
    may("write", libc::SYS_write),
    may("brk", libc::SYS_brk),
    may("mremap", libc::SYS_mremap),
    may("munlock", libc::SYS_munlock),
    may("madvise", libc::SYS_madvise),
    may("rt_sigaction", libc::SYS_rt_sigaction),
    may("sigaltstack", libc::SYS_sigaltstack),
    may("bind", libc::SYS_bind),
    may("setsockopt", libc::SYS_setsockopt),
    may("getrlimit", libc::SYS_getrlimit),
    may("prctl", libc::SYS_prctl),
    may("clock_gettime", libc::SYS_clock_gettime),
    may("tgkill", libc::SYS_tgkill),
    may("kill", libc::SYS_kill),
    may("wait4", libc::SYS_wait4),
    may("setitimer", libc::SYS_setitimer),
    may("setpriority", libc::SYS_setpriority),
    may("close_range", libc::SYS_close_range),
    may("exit_group", libc::SYS_exit_group),
];

/// That of a heap graph's child: no flag, the same stack.
const FORK: Call = call(
    "clone",
    libc::SYS_clone,
    false,
    [Some(0), Some(0), Some(0), Some(0), Some(0), None],
);

/// What a filter does with a call, the worst of what its arguments may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Allows,
    Fails,
    Kills,
}

impl Answer {
    fn of(returned: u32) -> Self {
        match returned & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG => Answer::Allows,
            libc::SECCOMP_RET_ERRNO => Answer::Fails,
            // A tracer or a supervisor decides, or a handler; or nobody any more.
            _ => Answer::Kills,
        }
    }
}

/// A filter in the midst of being run. Values that depend on an argument which may be
/// anything are not known.
#[derive(Clone)]
struct Machine {
    at: usize,
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; 16],
}

/// Runs a filter for a call, both ways where it branches on what is not known.
fn program_says(program: &[Instruction], call: &Call) -> Answer {
    /// Jumps lead forward only; what branches more than this is not a filter that
    /// anybody wrote.
    const MOST_STEPS: usize = 1 << 20;
    let zero = Some(0);
    let mut open = vec![Machine {
        at: 0,
        a: zero,
        x: zero,
        memory: [zero; 16],
    }];
    let mut worst = Answer::Allows;
    let mut steps = 0;
    while let Some(mut machine) = open.pop() {
        loop {
            steps += 1;
            if steps > MOST_STEPS {
                return Answer::Kills;
            }
            match machine.step(program, call) {
                Step::On => {}
                Step::Either(other) => {
                    let mut second = machine.clone();
                    second.at = other;
                    open.push(second);
                }
                Step::Returns(value) => {
                    worst = worst.max(value.map_or(Answer::Kills, Answer::of));
                    break;
                }
                Step::MakesNoSense => return Answer::Kills,
            }
        }
        if worst == Answer::Kills {
            break;
        }
    }
    worst
}

enum Step {
    /// Goes on.
    On,
    /// Goes on, and there as well.
    Either(usize),
    /// Ends with this value, if it is known.
    Returns(Option<u32>),
    /// The kernel takes no such filter.
    MakesNoSense,
}

impl Machine {
    fn step(&mut self, program: &[Instruction], call: &Call) -> Step {
        let Some(&Instruction {
            code,
            if_true,
            if_false,
            k,
        }) = program.get(self.at)
        else {
            return Step::MakesNoSense;
        };
        self.at += 1;
        let by_x = code & 0x08 != 0;
        // Class, then what it is of: `linux/bpf_common.h`.
        match code & 0x07 {
            // BPF_LD, BPF_LDX
            class @ (0 | 1) => {
                let value = match code & 0xe0 {
                    0x00 => Some(k),
                    0x20 if class == 0 => match data(call, k) {
                        Ok(value) => value,
                        Err(Outside) => return Step::MakesNoSense,
                    },
                    0x60 => match self.memory.get(k as usize) {
                        Some(value) => *value,
                        None => return Step::MakesNoSense,
                    },
                    0x80 => Some(DATA_BYTES),
                    _ => return Step::MakesNoSense,
                };
                *if class == 0 { &mut self.a } else { &mut self.x } = value;
            }
            // BPF_ST, BPF_STX
            class @ (2 | 3) => {
                let value = if class == 2 { self.a } else { self.x };
                match self.memory.get_mut(k as usize) {
                    Some(place) => *place = value,
                    None => return Step::MakesNoSense,
                }
            }
            // BPF_ALU
            4 => {
                let operand = if by_x { self.x } else { Some(k) };
                let known = self.a.zip(operand);
                self.a = match code & 0xf0 {
                    0x80 => self.a.map(u32::wrapping_neg),
                    operation => match known.map(|(a, b)| compute(operation, a, b)) {
                        Some(None) => return Step::MakesNoSense,
                        value => value.flatten(),
                    },
                };
            }
            // BPF_JMP
            5 => {
                let operation = code & 0xf0;
                if operation == 0x00 {
                    self.at = self.at.saturating_add(k as usize);
                    return Step::On;
                }
                let operand = if by_x { self.x } else { Some(k) };
                let (yes, no) = (
                    self.at + usize::from(if_true),
                    self.at + usize::from(if_false),
                );
                let Some((a, b)) = self.a.zip(operand) else {
                    self.at = yes;
                    return Step::Either(no);
                };
                let is_so = match operation {
                    0x10 => a == b,
                    0x20 => a > b,
                    0x30 => a >= b,
                    0x40 => a & b != 0,
                    _ => return Step::MakesNoSense,
                };
                self.at = if is_so { yes } else { no };
            }
            // BPF_RET
            6 => {
                return Step::Returns(match code & 0x18 {
                    0x00 => Some(k),
                    0x10 => self.a,
                    _ => return Step::MakesNoSense,
                });
            }
            // BPF_MISC
            _ => match code & 0xf8 {
                0x00 => self.x = self.a,
                0x80 => self.a = self.x,
                _ => return Step::MakesNoSense,
            },
        }
        Step::On
    }
}

fn compute(operation: u16, a: u32, b: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        // The kernel ends a filter that divides by 0, with 0: the call kills.
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.checked_shl(b)?,
        0x70 => a.checked_shr(b)?,
        0x90 => a.checked_rem(b)?,
        0xa0 => a ^ b,
        _ => return None,
    })
}

/// Size of `struct seccomp_data`.
const DATA_BYTES: u32 = 64;

/// There is no such word.
struct Outside;

/// A word of `struct seccomp_data`: the call's number, the architecture, the
/// instruction's address, the arguments. `None`: it is not known.
fn data(call: &Call, offset: u32) -> Result<Option<u32>, Outside> {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    if !offset.is_multiple_of(4) || offset >= DATA_BYTES {
        return Err(Outside);
    }
    Ok(match offset {
        0 => Some(call.number),
        4 => Some(AUDIT_ARCH_X86_64),
        8 | 12 => None,
        _ => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            let is_high = offset % 8 == 4;
            argument.map(|value| (if is_high { value >> 32 } else { value }) as u32)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: u16 = 0x20;
    const EQUALS: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;

    fn does(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
        Instruction {
            code,
            if_true,
            if_false,
            k,
        }
    }

    /// Lets through what is not this call; that leads to `action`.
    fn but(number: i64, action: u32) -> Vec<Instruction> {
        vec![
            does(LOAD, 4, 0, 0),
            does(EQUALS, 0xc000_003e, 1, 0),
            does(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            does(LOAD, 0, 0, 0),
            does(EQUALS, number as u32, 0, 1),
            does(RETURN, action, 0, 0),
            does(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        ]
    }

    fn said(program: Vec<Instruction>) -> (Option<&'static str>, bool) {
        match judge(&BTreeSet::from([program]), 1) {
            Filters::Allowing { .. } => (None, false),
            Filters::Forbidding { call, kills } => (Some(call), kills),
            Filters::Unreadable(_) => unreachable!(),
        }
    }

    #[test]
    fn what_is_not_called_may_be_forbidden() {
        let kill = libc::SECCOMP_RET_KILL_PROCESS;
        assert_eq!(said(but(libc::SYS_ptrace, kill)), (None, false));
        assert_eq!(said(but(libc::SYS_connect, kill)), (Some("connect"), true));
        let fail = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        assert_eq!(said(but(libc::SYS_connect, fail)), (Some("connect"), false));
        assert_eq!(said(but(libc::SYS_madvise, fail)), (None, false));
        assert_eq!(said(but(libc::SYS_madvise, kill)), (Some("madvise"), true));
    }

    #[test]
    fn forks_are_another_matter() {
        let forks = |call| {
            let program = but(call, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
            match judge(&BTreeSet::from([program]), 1) {
                Filters::Allowing { forks, .. } => forks,
                other => panic!("{other:?}"),
            }
        };
        assert!(forks(libc::SYS_ptrace) && !forks(libc::SYS_clone));
    }

    #[test]
    fn a_filter_may_look_at_arguments() {
        let forbid = |call: i64, at: u32, bits: u32| {
            vec![
                does(LOAD, 0, 0, 0),
                does(EQUALS, call as u32, 0, 3),
                does(LOAD, at, 0, 0),
                does(ANY_BIT, bits, 0, 1),
                does(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
                does(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
            ]
        };
        // mprotect to executable is what systemd's MemoryDenyWriteExecute forbids.
        let executable = libc::PROT_EXEC as u32;
        assert_eq!(
            said(forbid(libc::SYS_mprotect, 32, executable)),
            (None, false)
        );
        let writable = libc::PROT_WRITE as u32;
        let answer = said(forbid(libc::SYS_mprotect, 32, writable));
        assert_eq!(answer, (Some("mprotect"), true));
        // Which address is not known.
        let answer = said(forbid(libc::SYS_mprotect, 16, 1 << 31));
        assert_eq!(answer, (Some("mprotect"), true));
    }

    #[test]
    fn what_makes_no_sense_allows_nothing() {
        for program in [
            vec![],
            vec![does(LOAD, 3, 0, 0)],
            vec![does(LOAD, 64, 0, 0)],
            vec![does(EQUALS, 0, 200, 200)],
            vec![does(0x34, 0, 0, 0)],
        ] {
            assert_eq!(said(program.clone()), (Some("openat"), true), "{program:?}");
        }
        let branches = [does(LOAD, 16, 0, 0), does(EQUALS, 1, 0, 1)].repeat(40);
        assert!(said(branches).1);
    }

    proptest::proptest! {
        #[test]
        fn no_program_is_too_much(words in proptest::collection::vec(proptest::num::u64::ANY, 0..60)) {
            let program: Vec<_> = words.iter().map(|word| {
                let [code, _, if_true, if_false, a, b, c, d] = word.to_le_bytes();
                does(code.into(), u32::from_le_bytes([a, b, c & 1, d & 1]), if_true % 8, if_false % 8)
            }).collect();
            for call in CALLS {
                let _ = program_says(&program, call);
            }
        }
    }
}
