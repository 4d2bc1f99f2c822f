//! Has a thread of a running process load a library, or call a function of one.
//!
//! One thread is stopped, its registers are set once, and it goes on in the
//! function: no code is written, and no other thread stands still. How it comes
//! back, also when this process is killed at any point of the way, is told in
//! `borrow`.
//!
//! Which thread, and how ([`Way`]): loading takes the loader's and the
//! allocator's locks, so it must begin where the thread holds none of them.
//!
//! # Invariants
//!
//! * A thread that is not understood is left alone.
//! * What is written into the target lies below the stack pointer's red zone,
//!   in bytes that nobody uses, or in a buffer of our own library.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

pub use crate::borrow::Step;
use crate::borrow::{Call, Error as BorrowError, First, Outcome, Plan, Suits, WayBack, reached};
use crate::frame;
use crate::image::{self, Image, Symbol};
use crate::python;
use crate::target::{self, Activity, Mapping, Process, Syscall};
use crate::tracee::{Tracee, has_xsave};
use crate::unwind::{Unwinder, Walk};

/// How a thread was chosen, and what it was made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// It was blocked in a system call that nobody makes with a lock held.
    Blocked,
    /// The Python interpreter was asked to do it where it looks for signals.
    PendingCall,
    /// It ran code that is neither libc's nor an allocator's, and was not called
    /// from such code.
    Unwound,
}

/// What an injection may take and how it is known to be done.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Options<'a> {
    /// How long to look for a thread, and for it to do what it was made to.
    pub timeout: Duration,
    /// Says that the work is done, where its caller can see that: beside the
    /// library's mappings when it is loaded, alone when a function is called.
    pub done: Option<&'a dyn Fn() -> bool>,
    /// For tests: kill this process after that step.
    pub fault: Option<Step>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            done: None,
            fault: None,
        }
    }
}

/// An injection that was done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Done {
    /// The thread that did it, or was made to ask for it.
    pub tid: i32,
    /// How.
    pub way: Way,
    /// How long that thread stood still.
    pub paused: Duration,
    /// How long it was away from what it was at, the function included.
    pub borrowed: Duration,
}

/// A library that is mapped into a process.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Library<'a> {
    /// By the path that its mappings show.
    Path(&'a CStr),
    /// By the file's device and inode, as `stat` and the mappings tell them.
    File {
        /// As `makedev` has it.
        device: u64,
        /// On that device.
        inode: u64,
    },
}

impl Library<'_> {
    /// By the file's device and inode, as `stat` tells them.
    pub fn file(device: u64, inode: u64) -> Self {
        Library::File { device, inode }
    }
}

/// Why nothing was injected. The target is as it was, if not said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none of that number.
    #[error("there is no such process")]
    NoProcess,
    /// The number is that of a thread.
    #[error("this is a thread of process {0}")]
    Thread(i32),
    /// It ended while it was looked at.
    #[error("the process ended, or runs another program now")]
    Gone,
    /// It has ended, but its parent does not know yet.
    #[error("the process has ended")]
    Zombie,
    /// It has no memory of its own.
    #[error("this is a thread of the kernel")]
    KernelThread,
    /// By a stop signal: nothing can run in it.
    #[error("the process is stopped by a signal")]
    Stopped,
    /// Only one can.
    #[error("process {0} is tracing it already")]
    Traced(i32),
    /// By the kernel's rules for debuggers.
    #[error("the kernel does not permit it: {0}")]
    NotPermitted(io::Error),
    /// Another instruction set than this process's.
    #[error("it is not a 64-bit x86 program")]
    OtherArchitecture,
    /// It is linked statically, or with another C library.
    #[error("the process does not use glibc")]
    NoGlibc,
    /// Return addresses are checked by the processor.
    #[error("the process uses a shadow stack")]
    ShadowStack,
    /// It loads or unloads libraries, or never came to its end with that.
    #[error("the process is loading libraries")]
    LoaderBusy,
    /// Its functions can be called.
    #[error("the library is loaded already")]
    AlreadyLoaded,
    /// The target's directory is not this process's.
    #[error("the library's path is not absolute")]
    RelativePath,
    /// No mapping shows it.
    #[error("the library is not loaded")]
    NotLoaded,
    /// The library does not export it.
    #[error("the library has no symbol `{0}`")]
    NoSymbol(String),
    /// It would not fit where the library wants it.
    #[error("an argument of {given} bytes does not fit into {room}")]
    ArgumentTooLong {
        /// Its length.
        given: usize,
        /// That of the buffer.
        room: u64,
    },
    /// There are too few unused bytes for a text.
    #[error("there is no room for the text that loads the library")]
    NoRoom,
    /// None was at a point where it may load a library, for as long as was
    /// waited.
    #[error("no thread came to a safe point in {} ms", .0.as_millis())]
    NoSafeThread(Duration),
    /// The loader refused.
    #[error("the process could not load the library")]
    LoadFailed,
    /// The kernel refused.
    #[error("the process could not make a file in its memory (`memfd_create`)")]
    NoMemoryFile,
    /// It was asked for in good order, but did not happen yet. It may still.
    #[error("a thread was made to do it, but did not come to its end in {} ms", .0.as_millis())]
    Unfinished(Duration),
    /// Something was not as it has to be.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes a process load a library, by its absolute path as that process sees it.
///
/// Returns when the library is loaded. Its constructors must neither block nor
/// need the Python interpreter; they have run by then, but for
/// [`Way::PendingCall`], where only [`Options::done`] can tell.
///
/// # Errors
///
/// See [`Error`].
pub fn load(pid: i32, library: &CStr, options: &Options<'_>) -> Result<Done, Error> {
    if !library.to_bytes().starts_with(b"/") {
        return Err(Error::RelativePath);
    }
    let mut target = Target::open(pid)?;
    let identity = target.process.identity(library);
    load_as(&mut target, library, identity, options)
}

/// The same, of a file whose device and inode are known.
fn load_as(
    target: &mut Target,
    library: &CStr,
    identity: Option<(u64, u64)>,
    options: &Options<'_>,
) -> Result<Done, Error> {
    let is_loaded = |process: &Process| -> io::Result<bool> {
        Ok(process.mappings()?.iter().any(|map| {
            map.path == library.to_bytes()
                || map.inode != 0 && identity == Some((map.device, map.inode))
        }))
    };
    if is_loaded(&target.process)? {
        return Err(Error::AlreadyLoaded);
    }
    let dlopen = target
        .dlopen
        .ok_or_else(|| unless_ended(&target.process, Error::NoGlibc))?;
    let mut path = library.to_bytes_with_nul().to_vec();
    path.resize(path.len().next_multiple_of(16), 0);
    let job = Job {
        direct: Call {
            function: dlopen.function,
            first: First::Data(&path),
            second: dlopen.flags,
        },
        pending: Pending::Text(python::load_text(library)),
        is_done: &|process| {
            is_loaded(process).unwrap_or(false) && options.done.is_none_or(|done| done())
        },
        fails: Error::LoadFailed,
    };
    target.run(&job, options)
}

/// Makes a process load a library that it can have in no directory: from a file in its
/// memory, which it is made to open, and close when it is done. Its mappings show the
/// file as `/memfd:NAME`.
///
/// That takes three injections; what is told of pauses is the longest of them. A process
/// whose injector is killed between them keeps a descriptor that no program of it
/// inherits. If the descriptor was closed meanwhile, another one of its number is not.
///
/// # Errors
///
/// See [`Error`].
pub fn load_from_memory(
    pid: i32,
    name: &CStr,
    library: &[u8],
    options: &Options<'_>,
) -> Result<Done, Error> {
    let mut target = Target::open(pid)?;
    let of_libc = |target: &Target, symbol: &str| {
        let libc = target.images.iter().find(|image| is_libc(image));
        libc.and_then(|image| image.symbol(&target.process, symbol))
            .map(|symbol| symbol.address)
            .ok_or_else(|| unless_ended(&target.process, Error::NoSymbol(symbol.to_owned())))
    };
    let create = of_libc(&target, "memfd_create")?;
    let close = of_libc(&target, "close")?;
    // What the link of its descriptor says.
    let mut link = b"/memfd:".to_vec();
    link.extend_from_slice(name.to_bytes());
    link.extend_from_slice(b" (deleted)");
    let held = |process: &Process| process.descriptor_of(&link);
    let mut argument = name.to_bytes_with_nul().to_vec();
    argument.resize(argument.len().next_multiple_of(16), 0);
    let made = target.run(
        &Job {
            direct: Call {
                function: create,
                first: First::Data(&argument),
                second: libc::MFD_CLOEXEC.into(),
            },
            pending: Pending::Text(python::memory_file_text(name)),
            is_done: &|process| held(process).is_some(),
            fails: Error::NoMemoryFile,
        },
        options,
    )?;
    let number = held(&target.process).ok_or(Error::NoMemoryFile)?;
    let filled = target.process.fill(number, &link, library).map_err(refusal);
    let loaded = filled.and_then(|identity| {
        let path = CString::new(format!("/proc/self/fd/{number}")).map_err(io::Error::from)?;
        load_as(&mut target, &path, Some(identity), options)
    });
    // Whatever came of it.
    let closed = target.run(
        &Job {
            direct: Call {
                function: close,
                first: First::Value(number.into()),
                second: 0,
            },
            pending: Pending::Text(python::close_text(number, &link)),
            // There may be another one, where a text was run twice.
            is_done: &|process| {
                let found = process.descriptor(process.pid, number.into());
                !found.is_ok_and(|found| found.as_os_str().as_bytes() == link)
            },
            fails: Error::Unfinished(options.timeout),
        },
        options,
    );
    let (loaded, closed) = (loaded?, closed?);
    Ok(Done {
        paused: loaded.paused.max(made.paused).max(closed.paused),
        ..loaded
    })
}

/// Makes a process call a function of a library that it has loaded, with bytes
/// that are written to the library's buffer `leakline_argument` before.
///
/// The function is an `extern "C" fn(*const u8) -> c_int` that returns 0 and
/// neither blocks nor panics. The interpreter may call it once more, later, where it
/// was asked first: then it has to find in the buffer that there is nothing to do. It may run with Python's lock held
/// ([`Way::PendingCall`]) or on any thread. In the first case only
/// [`Options::done`] can tell when it has run: without it, that it was asked for
/// is all that is waited for. The next call must not come before.
///
/// # Errors
///
/// See [`Error`].
pub fn call(
    pid: i32,
    library: &Library<'_>,
    symbol: &str,
    argument: &[u8],
    options: &Options<'_>,
) -> Result<Done, Error> {
    let mut target = Target::open(pid)?;
    let image = target.library(library).ok_or(Error::NotLoaded)?;
    let find = |name: &str| {
        image
            .symbol(&target.process, name)
            .ok_or_else(|| unless_ended(&target.process, Error::NoSymbol(name.to_owned())))
    };
    let function = find(symbol)?.address;
    let buffer = find("leakline_argument")?;
    if argument.len() as u64 > buffer.size {
        return Err(Error::ArgumentTooLong {
            given: argument.len(),
            room: buffer.size,
        });
    }
    let is_buffer = target.mappings.iter().any(|map| {
        map.start <= buffer.address
            && buffer.address + buffer.size <= map.end
            && map.writable
            && !map.shared
    });
    if !is_buffer {
        return Err(Error::NoSymbol("leakline_argument".to_owned()));
    }
    target.process.write(buffer.address, argument)?;
    reached(options.fault, Step::TextWritten);
    let job = Job {
        direct: Call {
            function,
            first: First::Value(buffer.address),
            second: 0,
        },
        pending: Pending::Function {
            function,
            argument: buffer.address,
        },
        is_done: &|_| options.done.is_none_or(|done| done()),
        fails: Error::Unfinished(options.timeout),
    };
    target.run(&job, options)
}

/// What is to be done, in the ways that there are.
struct Job<'a> {
    /// On a thread that holds no lock.
    direct: Call<'a>,
    /// By the Python interpreter.
    pending: Pending,
    is_done: &'a dyn Fn(&Process) -> bool,
    /// What it means when a direct call returned and nothing was done.
    fails: Error,
}

/// What Python's main thread runs when it comes to it.
enum Pending {
    /// A program, which needs room in the target.
    Text(Vec<u8>),
    /// A function of a library.
    Function { function: u64, argument: u64 },
}

/// `dlopen` or what there was before it was in libc, and its second argument.
#[derive(Debug, Clone, Copy)]
struct Dlopen {
    function: u64,
    flags: u64,
}

/// Bytes of stack that a call of the loader may need.
const LOADER_STACK: u64 = 64 << 10;
/// Bytes of stack for `Py_AddPendingCall`.
const SMALL_STACK: u64 = 8 << 10;
/// Most bytes of a stack that are searched for signal frames.
const MOST_SEARCHED: u64 = 4 << 20;
/// How long after a library was seen it must still be there.
const SECOND_LOOK: Duration = Duration::from_millis(5);
/// How long a thread is looked for that waits, before the interpreter is asked:
/// what it is asked it does when it comes to it, and a wait comes to an end.
const BLOCKED_FIRST: Duration = Duration::from_millis(20);
/// How long the interpreter may take until waiting threads are looked at again.
const BLOCKED_AGAIN: Duration = Duration::from_millis(50);
/// How long the interpreter's queue may be locked.
const LOCK_PATIENCE: Duration = Duration::from_millis(30);

/// A process that passed what is asked of every one.
struct Target {
    process: Process,
    mappings: Vec<Mapping>,
    images: Vec<Image>,
    back: WayBack,
    dlopen: Option<Dlopen>,
    /// The loader's word that says whether it is at work.
    loader_state: Option<u64>,
    /// libc's `syscall`, where another allocator than libc's is in use.
    foreign_waits: Option<Symbol>,
    /// Index of the image of the Python interpreter.
    python: Option<usize>,
}

fn is_libc(image: &Image) -> bool {
    let name = image.name.as_str();
    name == "libc.so.6" || name.starts_with("libc-2.")
}

fn is_libpthread(image: &Image) -> bool {
    image.name.starts_with("libpthread")
}

fn refusal(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::NotPermitted(error),
        Some(libc::ESRCH | libc::ENOENT) => Error::Gone,
        _ => Error::Io(error),
    }
}

/// Whether a process has ended, or begun to: then it has no memory any more.
fn has_ended(process: &Process) -> bool {
    let has_memory = target::status(process.pid).is_ok_and(|status| status.has_memory);
    !has_memory || process.mappings().map_or(true, |maps| maps.is_empty())
}

/// Why something is not found in a process: it may just have ended.
fn unless_ended(process: &Process, error: Error) -> Error {
    if has_ended(process) {
        Error::Gone
    } else {
        error
    }
}

/// Where libc's `swab` lies, and `errno`, counted from a thread's pointer.
///
/// The latter only `__errno_location` knows: `mov N(%rip), %rax; add %fs:0, %rax`.
fn find_errno(process: &Process, libc: &Image) -> Option<(u64, u64)> {
    const LANDING_PAD: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
    let swab = libc.symbol(process, "swab")?.address;
    let mut at = libc.symbol(process, "__errno_location")?.address;
    let code = process.bytes(at, 20).ok()?;
    let code = match code.strip_prefix(LANDING_PAD) {
        Some(rest) => {
            at += LANDING_PAD.len() as u64;
            rest
        }
        None => &code[..],
    };
    let distance = code.strip_prefix(&[0x48, 0x8b, 0x05])?;
    let (distance, rest) = distance.split_first_chunk::<4>()?;
    if !rest.starts_with(&[0x64, 0x48, 0x03, 0x04, 0x25, 0, 0, 0, 0]) {
        return None;
    }
    let slot = (at + 7).wrapping_add_signed(i32::from_le_bytes(*distance).into());
    Some((swab, process.word(slot).ok()?))
}

impl Target {
    fn open(pid: i32) -> Result<Self, Error> {
        let status = target::status(pid).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoProcess,
            _ => refusal(error),
        })?;
        match status.state {
            'Z' | 'X' => return Err(Error::Zombie),
            'T' => return Err(Error::Stopped),
            _ => {}
        }
        if status.tgid != pid {
            return Err(Error::Thread(status.tgid));
        }
        if status.tracer != 0 {
            return Err(Error::Traced(status.tracer));
        }
        if !status.has_memory {
            return Err(match status.is_kernel_thread {
                Some(false) => Error::Gone,
                _ => Error::KernelThread,
            });
        }
        if status.has_shadow_stack {
            return Err(Error::ShadowStack);
        }
        let process = Process::open(pid).map_err(refusal)?;
        let mappings = process.mappings().map_err(refusal)?;
        if mappings.is_empty() {
            return Err(Error::Gone);
        }
        if !image::is_x86_64(&process, &mappings) {
            return Err(unless_ended(&process, Error::OtherArchitecture));
        }
        let images = image::images(&process, &mappings);
        let libc = images.iter().find(|image| is_libc(image)).ok_or_else(|| {
            if has_ended(&process) {
                Error::Gone
            } else if images
                .iter()
                .any(|image| image.name.starts_with("ld-linux"))
            {
                // It comes to that yet.
                Error::LoaderBusy
            } else {
                Error::NoGlibc
            }
        })?;
        let restorer = libc
            .find_code(&process, &frame::RESTORER)
            .ok_or_else(|| unless_ended(&process, Error::NoGlibc))?;
        let errno = find_errno(&process, libc);
        let dlopen = Self::find_dlopen(&process, &images);
        let loader_state = images
            .iter()
            .filter(|image| image.name.starts_with("ld-"))
            .find_map(|image| image.symbol(&process, "_r_debug"))
            // Version, list of objects, breakpoint, state.
            .map(|symbol| symbol.address + 24);
        let has_foreign = images.iter().any(|image| {
            !is_libc(image)
                && !image.name.starts_with("ld-")
                && image.symbol(&process, "malloc").is_some()
        });
        let foreign_waits = libc.symbol(&process, "syscall").filter(|_| has_foreign);
        let is_python = |image: &&Image| {
            image.symbol(&process, "Py_AddPendingCall").is_some()
                && image.symbol(&process, "PyRun_SimpleString").is_some()
        };
        // It may be part of any program, but mostly is not.
        let python = images
            .iter()
            .filter(|image| image.name.contains("python"))
            .chain(&images)
            .find(is_python)
            .and_then(|found| images.iter().position(|image| std::ptr::eq(image, found)));
        Ok(Self {
            process,
            mappings,
            images,
            back: WayBack { restorer, errno },
            dlopen,
            loader_state,
            foreign_waits,
            python,
        })
    }

    fn find_dlopen(process: &Process, images: &[Image]) -> Option<Dlopen> {
        const FLAGS: u64 = libc::RTLD_NOW as u64 | libc::RTLD_LOCAL as u64;
        /// Says that the caller is not to be asked for.
        const INTERNAL: u64 = 0x8000_0000;
        let of = |is_one: &dyn Fn(&Image) -> bool, symbol: &str| {
            let image = images.iter().find(|image| is_one(image))?;
            Some(image.symbol(process, symbol)?.address)
        };
        of(&is_libc, "dlopen")
            .or_else(|| of(&|image| image.name.starts_with("libdl"), "dlopen"))
            .map(|function| Dlopen {
                function,
                flags: FLAGS,
            })
            .or_else(|| {
                of(&is_libc, "__libc_dlopen_mode").map(|function| Dlopen {
                    function,
                    flags: FLAGS | INTERNAL,
                })
            })
    }

    fn library(&self, library: &Library<'_>) -> Option<&Image> {
        let (device, inode) = match library {
            Library::File { device, inode } => (*device, *inode),
            Library::Path(path) => {
                let map = self
                    .mappings
                    .iter()
                    .find(|map| map.path == path.to_bytes())?;
                (map.device, map.inode)
            }
        };
        self.images
            .iter()
            .find(|image| (image.device, image.inode) == (device, inode))
    }

    /// Whether the loader's list of objects is in order.
    fn is_loader_at_rest(&self) -> bool {
        self.loader_state
            .and_then(|at| self.process.word(at).ok())
            .is_some_and(|state| state as u32 == 0)
    }

    fn run(&mut self, job: &Job<'_>, options: &Options<'_>) -> Result<Done, Error> {
        let began = Instant::now();
        let until = began + options.timeout;
        reached(options.fault, Step::Chosen);
        let mut was_at_rest = false;
        let mut unwinder = Unwinder::default();
        loop {
            let is_at_rest = self.is_loader_at_rest();
            was_at_rest |= is_at_rest;
            if is_at_rest && let Some(done) = self.try_blocked(job, options, until)? {
                return Ok(done);
            }
            let python = self
                .python
                .filter(|&python| python::is_running(&self.process, &self.images[python]));
            let done = match python {
                // One that was just run for a moment waits again.
                Some(_) if began.elapsed() < BLOCKED_FIRST => None,
                Some(python) => self.try_pending(python, job, options, until)?,
                // Between a call that failed and a look at why, `errno` counts.
                None if is_at_rest && self.back.errno.is_some() => {
                    self.try_unwound(&mut unwinder, job, options, until)?
                }
                None => None,
            };
            if let Some(done) = done {
                return Ok(done);
            }
            if Instant::now() >= until {
                return Err(if was_at_rest {
                    Error::NoSafeThread(options.timeout)
                } else {
                    Error::LoaderBusy
                });
            }
            thread::sleep(Duration::from_millis(1));
            // New threads have new stacks.
            self.mappings = self.process.mappings().map_err(refusal)?;
            if self.mappings.is_empty() {
                return Err(Error::Gone);
            }
        }
    }

    /// Has a blocked thread do it, if there is one.
    fn try_blocked(
        &self,
        job: &Job<'_>,
        options: &Options<'_>,
        until: Instant,
    ) -> Result<Option<Done>, Error> {
        let mut candidates = Vec::new();
        for tid in self.process.threads().map_err(refusal)? {
            // A thread that ended meanwhile is no candidate.
            if let Ok(Activity::Blocked(syscall)) = self.process.activity(tid)
                && self.is_safe(tid, &syscall)
            {
                candidates.push((is_timed(&syscall), tid != self.process.pid, tid));
            }
        }
        // One that goes on waiting is there for sure when it is stopped.
        candidates.sort_unstable();
        for (_, _, tid) in candidates {
            let suits = |tracee: &Tracee, registers: &libc::user_regs_struct| {
                let is_safe = self.is_loader_at_rest()
                    && syscall_of(registers).is_some_and(|syscall| self.is_safe(tid, &syscall))
                    && !self.is_on_signal_frame(registers.rsp)
                    && !self.is_in_sequence(tracee, registers);
                is_safe.then(|| self.room_below(tid, registers))
            };
            if let Some(done) = self.try_thread(tid, Way::Blocked, &suits, job, options, until)? {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// Has a thread do it that runs code which holds no lock of the loader or
    /// an allocator, if one is met at such a point.
    fn try_unwound(
        &self,
        unwinder: &mut Unwinder,
        job: &Job<'_>,
        options: &Options<'_>,
        until: Instant,
    ) -> Result<Option<Done>, Error> {
        for tid in self.process.threads().map_err(refusal)? {
            if !matches!(self.process.activity(tid), Ok(Activity::Running)) {
                continue;
            }
            let needed = OnceLock::new();
            let suits = |tracee: &Tracee, registers: &libc::user_regs_struct| {
                let is_free = match unwinder.walk(&self.process, &self.images, registers) {
                    Walk::Whole(frames) => self.are_free_of_locks(&frames),
                    Walk::NeedsRules(index) => {
                        needed.get_or_init(|| index);
                        false
                    }
                    Walk::Unknown => false,
                };
                let is_safe =
                    is_free && self.is_loader_at_rest() && !self.is_in_sequence(tracee, registers);
                is_safe.then(|| self.room_below(tid, registers))
            };
            let done = self.try_thread(tid, Way::Unwound, &suits, job, options, until)?;
            if done.is_some() {
                return Ok(done);
            }
            if let Some(&index) = needed.get() {
                unwinder.learn(&self.process, &self.images, index);
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(None)
    }

    /// Whether frames, by the images that they lie in, hold no lock that loading
    /// takes: all of libc's may, but for the two by which a thread began.
    fn are_free_of_locks(&self, frames: &[usize]) -> bool {
        let is_ours =
            |frame: &&usize| is_libc(&self.images[**frame]) || is_libpthread(&self.images[**frame]);
        // `_start` of the program lies beyond libc's, in the first thread.
        let frames = match frames {
            [inner @ .., last] if !is_ours(&last) => inner,
            all => all,
        };
        let starts = frames.iter().rev().take(2).take_while(is_ours).count();
        starts > 0
            && frames[..frames.len() - starts].iter().all(|&frame| {
                let image = &self.images[frame];
                let is_system = is_ours(&&frame)
                    || image.name.starts_with("ld-")
                    || image.name.starts_with("libdl");
                !is_system && image.symbol(&self.process, "malloc").is_none()
            })
    }

    /// Has a thread do it, if it `suits` when it is stopped.
    fn try_thread(
        &self,
        tid: i32,
        way: Way,
        suits: &Suits<'_>,
        job: &Job<'_>,
        options: &Options<'_>,
        until: Instant,
    ) -> Result<Option<Done>, Error> {
        let plan = Plan {
            tid,
            call: job.direct,
            stack: LOADER_STACK,
            until,
            lock_patience: None,
            fault: options.fault,
        };
        let done = |paused, borrowed| Done {
            tid,
            way,
            paused,
            borrowed,
        };
        match self.borrow(&plan, suits)? {
            Outcome::Unsuitable => Ok(None),
            Outcome::Returned { paused, borrowed } => self
                .confirm(job, options, done(paused, borrowed), until)
                .map(Some),
            Outcome::Running { paused, since } => {
                if self.wait_until_done(job, until)? {
                    Ok(Some(done(paused, since.elapsed())))
                } else {
                    Err(Error::Unfinished(options.timeout))
                }
            }
        }
    }

    fn borrow(&self, plan: &Plan<'_>, suits: &Suits<'_>) -> Result<Outcome, Error> {
        plan.carry_out(&self.process, &self.back, suits)
            .map_err(|error| match error {
                BorrowError::Gone => Error::Gone,
                BorrowError::Stopped => Error::Stopped,
                BorrowError::Io(error) => match target::status(self.process.pid) {
                    Ok(status) if status.tracer != 0 => Error::Traced(status.tracer),
                    Ok(status) if !status.has_memory => Error::Gone,
                    _ => refusal(error),
                },
            })
    }

    /// Says that a call that returned did what it should.
    fn confirm(
        &self,
        job: &Job<'_>,
        options: &Options<'_>,
        done: Done,
        until: Instant,
    ) -> Result<Done, Error> {
        // A library is mapped when `dlopen` returns; what its caller waits for
        // may take longer.
        if self.wait_until_done(job, grace(options, until))? {
            return Ok(done);
        }
        Err(match job.fails {
            Error::LoadFailed => Error::LoadFailed,
            Error::NoMemoryFile => Error::NoMemoryFile,
            _ => Error::Unfinished(options.timeout),
        })
    }

    fn wait_until_done(&self, job: &Job<'_>, until: Instant) -> Result<bool, Error> {
        loop {
            if (job.is_done)(&self.process) {
                return Ok(true);
            }
            if has_ended(&self.process) {
                return Err(Error::Gone);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has the Python interpreter do it, if its main thread can be asked.
    fn try_pending(
        &self,
        python: usize,
        job: &Job<'_>,
        options: &Options<'_>,
        until: Instant,
    ) -> Result<Option<Done>, Error> {
        let image = &self.images[python];
        let find = |name: &str| {
            image
                .symbol(&self.process, name)
                .map(|symbol| symbol.address)
        };
        let Some(add) = find("Py_AddPendingCall") else {
            return Ok(None);
        };
        let mut text_at = None;
        let (function, argument) = match &job.pending {
            Pending::Function { function, argument } => (*function, *argument),
            Pending::Text(text) => {
                let Some(run) = find("PyRun_SimpleString") else {
                    return Ok(None);
                };
                let at = self.room_for(python, text.len()).ok_or(Error::NoRoom)?;
                self.process.write(at, text)?;
                text_at = Some(at);
                reached(options.fault, Step::TextWritten);
                (run, at)
            }
        };
        let erase = |count: usize| {
            if let Some(at) = text_at {
                // A process that is gone needs no cleaning.
                let _ = self.process.write(at, &vec![0; count]);
            }
        };
        let text_bytes = match &job.pending {
            Pending::Text(text) => text.len(),
            Pending::Function { .. } => 0,
        };
        let tid = self.process.pid;
        let suits = |tracee: &Tracee, registers: &libc::user_regs_struct| {
            let is_safe = !self.is_in_sequence(tracee, registers);
            is_safe.then(|| self.room_below(tid, registers))
        };
        let plan = Plan {
            tid,
            call: Call {
                function: add,
                first: First::Value(function),
                second: argument,
            },
            stack: SMALL_STACK,
            until,
            lock_patience: Some(LOCK_PATIENCE),
            fault: options.fault,
        };
        let (paused, borrowed) = match self.borrow(&plan, &suits)? {
            Outcome::Unsuitable => {
                erase(text_bytes);
                return Ok(None);
            }
            Outcome::Returned { paused, borrowed } => (paused, borrowed),
            Outcome::Running { paused, since } => (paused, since.elapsed()),
        };
        while !self.wait_until_done(job, until.min(Instant::now() + BLOCKED_AGAIN))? {
            // Should the interpreter still come to it, it finds nothing to do.
            // The rest stays: the same place must not get another text.
            if Instant::now() >= until {
                erase(1);
                return Err(Error::Unfinished(options.timeout));
            }
            // It may wait for something by now, and perhaps for long.
            if self.is_loader_at_rest()
                && let Some(done) = self.try_blocked(job, options, until)?
            {
                erase(1);
                return Ok(Some(done));
            }
        }
        erase(text_bytes);
        // One that the loader does not like is mapped for a moment, too.
        thread::sleep(SECOND_LOOK);
        if !(job.is_done)(&self.process) {
            return Err(unless_ended(&self.process, Error::LoadFailed));
        }
        Ok(Some(Done {
            tid,
            way: Way::PendingCall,
            paused,
            borrowed,
        }))
    }

    /// Bytes in the target that nobody uses.
    fn room_for(&self, python: usize, count: usize) -> Option<u64> {
        let first = std::iter::once(&self.images[python]);
        first
            .chain(self.images.iter().take(1))
            .chain(self.images.iter().filter(|image| is_libc(image)))
            .find_map(|image| image.slack(&self.process, &self.mappings, count))
    }

    /// Whether a thread that is in this system call holds no lock.
    fn is_safe(&self, tid: i32, syscall: &Syscall) -> bool {
        // The loader reads files with its lock held, by calls of its own.
        let is_libc = self
            .images
            .iter()
            .any(|image| (is_libc(image) || is_libpthread(image)) && image.holds(syscall.pc));
        is_libc
            && match syscall.number as i64 {
                libc::SYS_select
                | libc::SYS_pselect6
                | libc::SYS_poll
                | libc::SYS_ppoll
                | libc::SYS_epoll_wait
                | libc::SYS_epoll_pwait
                | libc::SYS_epoll_pwait2
                | libc::SYS_nanosleep
                | libc::SYS_clock_nanosleep
                | libc::SYS_wait4
                | libc::SYS_waitid
                | libc::SYS_pause
                | libc::SYS_rt_sigsuspend
                | libc::SYS_accept
                | libc::SYS_accept4
                | libc::SYS_recvfrom
                | libc::SYS_recvmsg
                // One of the timed ones, interrupted before.
                | libc::SYS_restart_syscall => true,
                // Condition variables, semaphores; the plain operation may be
                // a lock of the allocator.
                libc::SYS_futex => syscall.arguments[1] & 0x7f == 9 && !self.is_foreign(syscall.pc),
                libc::SYS_read => self.is_stream(tid, syscall.arguments[0]),
                _ => false,
            }
    }

    /// Whether a wait may be for a lock of an allocator other than libc's: those
    /// reach the kernel through `syscall`, with whatever operation they like.
    fn is_foreign(&self, pc: u64) -> bool {
        self.foreign_waits
            .is_some_and(|syscall| pc.wrapping_sub(syscall.address) <= syscall.size)
    }

    /// Whether a descriptor is of what one waits at, not of a file.
    fn is_stream(&self, tid: i32, descriptor: u64) -> bool {
        let Ok(name) = self.process.descriptor(tid, descriptor) else {
            return false;
        };
        let name = name.to_string_lossy();
        [
            "socket:",
            "pipe:",
            "/dev/pts/",
            "/dev/tty",
            "anon_inode:[eventfd]",
            "anon_inode:[timerfd]",
        ]
        .iter()
        .any(|start| name.starts_with(start))
    }

    /// The private memory that an address lies in.
    fn memory(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|map| {
            map.start <= address && address < map.end && map.readable && map.writable && !map.shared
        })
    }

    /// Bytes that a thread's own stack has below its stack pointer. On another
    /// stack (of a coroutine, a signal handler) nobody can tell: none.
    fn room_below(&self, tid: i32, registers: &libc::user_regs_struct) -> u64 {
        let sp = registers.rsp;
        let Some(map) = self.memory(sp) else {
            return 0;
        };
        match map.path.as_slice() {
            // It grows, towards the mapping below.
            b"[stack]" if tid == self.process.pid => {
                let lowest = self
                    .mappings
                    .iter()
                    .rfind(|other| other.end <= map.start)
                    .map_or(0, |other| other.end)
                    .max(map.start.saturating_sub(1 << 20));
                sp - lowest
            }
            b"[heap]" | b"[stack]" => 0,
            // glibc has the thread's own data at the upper end of its stack.
            _ if sp < registers.fs_base && registers.fs_base < map.end => sp - map.start,
            _ => 0,
        }
    }

    /// Whether a signal handler is running: what it interrupted may be the
    /// allocator. Also when in doubt.
    fn is_on_signal_frame(&self, sp: u64) -> bool {
        let Some(map) = self.memory(sp) else {
            return true;
        };
        let end = map.end.min(sp + MOST_SEARCHED);
        let start = sp & !7;
        let Ok(bytes) = self.process.bytes(start, (end - start) as usize) else {
            return true;
        };
        bytes.chunks_exact(8).enumerate().any(|(index, chunk)| {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            u64::from_le_bytes(word) == self.back.restorer
                && self.is_signal_frame(start + index as u64 * 8)
        })
    }

    /// Whether what begins at the address is as the kernel builds a frame. Words
    /// of old ones lie about in every stack, seldom a whole one.
    fn is_signal_frame(&self, at: u64) -> bool {
        let word = |offset: usize| self.process.word(at + offset as u64).unwrap_or(0);
        let xstate = word(frame::CONTEXT_FPSTATE);
        let description = xstate.wrapping_add(frame::DESCRIPTION as u64);
        // Without XSAVE nothing marks it, and what only looks like one counts, too.
        let is_marked = || {
            let word = self.process.word(description);
            word.is_ok_and(|word| word as u32 == frame::XSTATE_MAGIC1)
        };
        xstate % 64 == 0
            && self.memory(xstate).is_some()
            && (!has_xsave() || is_marked())
            && self.memory(word(frame::CONTEXT_RSP)).is_some()
            && self.mappings.iter().any(|map| {
                map.executable && (map.start..map.end).contains(&word(frame::CONTEXT_RIP))
            })
    }

    /// Whether a thread is within a restartable sequence: the kernel restarts
    /// one that is interrupted, but sees only where the thread is then.
    fn is_in_sequence(&self, tracee: &Tracee, registers: &libc::user_regs_struct) -> bool {
        let Some(area) = tracee.restartable_sequence() else {
            return false;
        };
        let Ok(description) = self.process.word(area + 8) else {
            return true;
        };
        if description == 0 {
            return false;
        }
        let word = |offset| self.process.word(description + offset);
        match (word(8), word(16)) {
            (Ok(start), Ok(length)) => registers.rip.wrapping_sub(start) < length,
            _ => true,
        }
    }
}

/// Until when what a call did may take to show.
fn grace(options: &Options<'_>, until: Instant) -> Instant {
    match options.done {
        Some(_) => until,
        None => Instant::now() + Duration::from_millis(20),
    }
}

/// The system call that a stopped thread is in.
fn syscall_of(registers: &libc::user_regs_struct) -> Option<Syscall> {
    (registers.orig_rax as i64 >= 0).then_some(Syscall {
        number: registers.orig_rax,
        arguments: [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ],
        sp: registers.rsp,
        pc: registers.rip,
    })
}

/// Whether a wait ends by itself.
fn is_timed(syscall: &Syscall) -> bool {
    let argument = syscall.arguments;
    let is_negative = |word: u64| (word as u32).cast_signed() < 0;
    match syscall.number as i64 {
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep | libc::SYS_restart_syscall => true,
        libc::SYS_select | libc::SYS_pselect6 => argument[4] != 0,
        libc::SYS_poll => !is_negative(argument[2]),
        libc::SYS_ppoll => argument[2] != 0,
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => !is_negative(argument[3]),
        libc::SYS_epoll_pwait2 | libc::SYS_futex => argument[3] != 0,
        _ => false,
    }
}
