//! What a process is, read from outside, and what would stop an attach.
//!
//! [`Process::look`] reads `/proc` and the ELF files that the process runs,
//! [`Process::obstacles`] says why nobody may attach to it, first the one to
//! name, and [`Inspector::warnings`] what an attach would lack. Nothing here
//! stops the process, signals it or changes it: the only question that the
//! kernel logs (where Yama refuses) is whether its memory may be read.
//!
//! Everything can be out of date as soon as it is read. Who attaches has to
//! bear a process that ends or execs meanwhile; `pid` and `start_ticks`
//! together name it for good.

mod cgroup;
mod image;
mod obstacle;
mod procfs;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use leakline_wire::mapped;
use object::elf;
use rustix::fs::{Access, AtFlags, CWD, OFlags, StatVfsMountFlags, accessat, fstatvfs};

pub use cgroup::MemoryLimit;
pub use image::{Allocator, PythonVersion};
pub(crate) use image::{open_inside, open_mapped};
pub use obstacle::{Denied, NoPlace, Obstacle, Refused, Warning};

use crate::filter::{self, Filters};
use cgroup::{Group, Mounts};
use image::{Depth, Image, Images, sanitizer_of_library};
use procfs::{Mapping, Stat, Status};

/// `CAP_SYS_PTRACE` among the bits of a set of capabilities.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// On a processor, or waiting for one.
    #[default]
    Running,
    /// Waiting for something.
    Sleeping,
    /// Waiting for something, and not to be interrupted.
    Uninterruptible,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by its tracer.
    Traced,
    /// Ended, but its parent has not asked.
    Zombie,
}

impl State {
    fn of(letter: u8) -> State {
        match letter {
            b'S' | b'I' => State::Sleeping,
            b'D' => State::Uninterruptible,
            b'T' => State::Stopped,
            b't' => State::Traced,
            b'Z' | b'X' | b'x' => State::Zombie,
            _ => State::Running,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Sleeping => "sleeping",
            State::Uninterruptible => "waiting (uninterruptible)",
            State::Stopped => "stopped",
            State::Traced => "stopped by its tracer",
            State::Zombie => "zombie",
        }
    }
}

/// A namespace of a process, compared with ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// The same.
    Ours,
    /// Another one.
    Other,
    /// Not to be seen.
    #[default]
    Unknown,
}

/// The namespaces that matter to an attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// What files it sees.
    pub mount: Namespace,
    /// What it calls processes.
    pub pid: Namespace,
    /// Where its capabilities count.
    pub user: Namespace,
    /// Which abstract sockets it sees.
    pub network: Namespace,
}

/// Who traces a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracer {
    /// Its pid.
    pub pid: u32,
    /// The kernel's name of it; `?` where it is not to be seen.
    pub name: String,
}

/// What a process may ask of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// Everything.
    #[default]
    Off,
    /// Almost nothing.
    Strict,
    /// What a filter lets through.
    Filter,
}

/// Where CPython is in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// Which one.
    pub version: PythonVersion,
    /// The file that has the interpreter: the program or a library.
    pub path: PathBuf,
    /// The program is another one than `python`.
    pub is_embedded: bool,
}

/// An allocator beside libc's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAllocator {
    /// Which one.
    pub allocator: Allocator,
    /// Part of the program itself, not a shared library.
    pub is_linked_in: bool,
}

/// The program of a process: what its memory shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not exclude one another"
)]
pub struct Program {
    /// The executable, as the process sees it.
    pub path: PathBuf,
    /// glibc's version, if that is its libc.
    pub glibc: Option<String>,
    /// CPython, if there is one in it.
    pub python: Option<Python>,
    /// Allocators beside libc's that are known by name.
    pub allocators: Vec<OwnAllocator>,
    /// The program itself defines `malloc`.
    pub defines_malloc: bool,
    /// A sanitizer that brings an allocator.
    pub sanitizer: Option<&'static str>,
    /// Valgrind or rr, if it runs in one of them.
    pub supervisor: Option<&'static str>,
    /// The interposer, if it is loaded already: as the process sees it.
    pub interposer: Option<PathBuf>,
    /// The inode of the session that it has mapped, if any.
    pub session: Option<u64>,
    is_64_bit: bool,
    machine: u16,
    has_loader: bool,
    is_musl: bool,
    has_glibc: bool,
    own_symbols: bool,
}

/// A process, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not exclude one another"
)]
pub struct Process {
    /// In our pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Whether it runs.
    pub state: State,
    /// The kernel's name of its main thread: at most 15 bytes, and anything.
    pub name: String,
    /// Its command line, all of it: to be cut before it is shown, since
    /// arguments may be secrets.
    pub arguments: Vec<Vec<u8>>,
    /// Its parent's pid.
    pub parent_pid: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
    /// Its threads.
    pub threads: u32,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// What it calls itself: its pid in its own pid namespace.
    pub inner_pid: u32,
    /// Who traces it, if anybody.
    pub tracer: Option<Tracer>,
    /// Whether a filter limits its system calls.
    pub seccomp: Seccomp,
    /// It can gain no rights by `exec`.
    pub no_new_privileges: bool,
    /// The processor guards its return addresses.
    pub has_shadow_stack: bool,
    /// The kernel lets its owner look into it.
    pub is_dumpable: bool,
    /// Why the kernel would not let us attach.
    pub denied: Option<Denied>,
    /// Which of its namespaces are ours.
    pub namespaces: Namespaces,
    /// Its root directory is ours, too.
    pub has_our_root: bool,
    /// What it runs; `None` where that may not be looked at, and for what has
    /// no memory.
    pub program: Option<Program>,
    /// The limit on memory that is nearest, if there is one.
    pub memory_limit: Option<MemoryLimit>,
    /// Its control group is frozen.
    pub is_frozen: bool,
    /// Who records it: a collector that has the session that it has mapped.
    pub collector: Option<u32>,
    is_kernel_thread: bool,
    thread_group: u32,
    mappings: Vec<Mapping>,
}

/// What a list of many processes needs of each, for one read and one stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// In our pid namespace.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its effective user.
    pub user: u32,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Whether it runs.
    pub state: State,
    /// It belongs to the kernel.
    pub is_kernel_thread: bool,
}

impl Glance {
    /// Reads it; `None` for a process that is gone.
    pub fn at(pid: u32) -> Option<Glance> {
        let stat = Stat::parse(&procfs::read(pid, "stat").ok()?)?;
        let user = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        Some(Glance {
            pid,
            start_ticks: stat.start_ticks,
            user,
            rss_bytes: stat.rss_pages * rustix::param::page_size() as u64,
            state: State::of(stat.state),
            is_kernel_thread: stat.is_kernel_thread,
        })
    }
}

/// The limit on a process's memory that is nearest, if there is one.
pub fn memory_limit(pid: u32) -> Option<MemoryLimit> {
    Group::of(pid, &Mounts::here()).memory_limit()
}

/// The pids that `/proc` lists.
pub fn pids() -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// A process's command line, all of it.
pub fn arguments(pid: u32) -> Vec<Vec<u8>> {
    procfs::read(pid, "cmdline").map_or(Vec::new(), procfs::arguments)
}

/// The kernel's name of a process, made printable.
pub fn name(pid: u32) -> Option<String> {
    let name = procfs::read(pid, "comm").ok()?;
    Some(shown(String::from_utf8_lossy(&name).trim_end_matches('\n')))
}

/// Looks at processes one after the other, and reads what they have in common
/// once.
#[derive(Debug)]
pub struct Inspector {
    images: Images,
    mounts: Mounts,
    /// Of each session that was met.
    collectors: HashMap<u64, Option<u32>>,
    ours: Ours,
}

/// What there is to know of this process.
#[derive(Debug)]
struct Ours {
    user: u32,
    group: u32,
    permitted: u64,
    can_trace: bool,
    ptrace_scope: Option<u8>,
    namespaces: [Option<PathBuf>; 4],
    root: Option<(u64, u64)>,
}

impl Ours {
    /// Why the kernel says no, in the order in which it asks.
    fn why_denied(&self, status: &Status, is_dumpable: bool) -> Denied {
        let is_same_user = status.users[..3].iter().all(|user| *user == self.user);
        let is_same_group = status.groups[..3].iter().all(|group| *group == self.group);
        match self.ptrace_scope {
            Some(3..) => Denied::Never,
            _ if self.can_trace => Denied::Unexplained { capable: true },
            _ if !is_same_user => Denied::OtherUser {
                theirs: status.users[1],
                ours: self.user,
            },
            _ if !is_same_group => Denied::OtherGroup {
                theirs: status.groups[1],
                ours: self.group,
            },
            _ if !is_dumpable => Denied::Undumpable,
            _ if status.permitted & !self.permitted != 0 => Denied::MoreCapabilities,
            Some(2) => Denied::AdminsOnly,
            Some(1) => Denied::DescendantsOnly,
            _ => Denied::Unexplained { capable: false },
        }
    }
}

const NAMESPACES: [&str; 4] = ["mnt", "pid", "user", "net"];

impl Default for Inspector {
    fn default() -> Inspector {
        Inspector::new()
    }
}

impl Inspector {
    /// Of this process's own rights and place.
    pub fn new() -> Inspector {
        let pid = std::process::id();
        let status = Status::parse(&procfs::read(pid, "status").unwrap_or_default());
        Inspector {
            images: Images::new(),
            mounts: Mounts::here(),
            collectors: HashMap::new(),
            ours: Ours {
                user: rustix::process::geteuid().as_raw(),
                group: rustix::process::getegid().as_raw(),
                permitted: status.permitted,
                can_trace: status.effective & CAP_SYS_PTRACE != 0,
                ptrace_scope: ptrace_scope(),
                namespaces: namespaces(pid),
                root: root(pid),
            },
        }
    }

    /// Whether we have `CAP_SYS_PTRACE`.
    pub fn can_trace(&self) -> bool {
        self.ours.can_trace
    }

    /// Looks at a process. Refuses only one of which nothing can be seen, or
    /// that is no process.
    pub fn look(&mut self, pid: u32) -> Result<Process, Refused> {
        let refused = |obstacle| Refused { pid, obstacle };
        let (Ok(status), Some(stat)) = (
            procfs::read(pid, "status"),
            procfs::read(pid, "stat")
                .ok()
                .and_then(|text| Stat::parse(&text)),
        ) else {
            return Err(refused(if exists(pid) {
                Obstacle::Hidden
            } else {
                Obstacle::Gone
            }));
        };
        let status = Status::parse(&status);
        let group = Group::of(pid, &self.mounts);
        let theirs = namespaces(pid);
        let compared = |which: usize| match (&theirs[which], &self.ours.namespaces[which]) {
            (Some(theirs), Some(ours)) if theirs == ours => Namespace::Ours,
            (Some(_), Some(_)) => Namespace::Other,
            _ => Namespace::Unknown,
        };
        let mut process = Process {
            pid,
            start_ticks: stat.start_ticks,
            state: State::of(status.state),
            name: shown(&status.name),
            arguments: arguments(pid),
            parent_pid: status.parent,
            user: status.users[1],
            group: status.groups[1],
            threads: status.threads,
            rss_bytes: status.rss_bytes,
            inner_pid: status.pids.last().copied().unwrap_or(pid),
            tracer: tracer(&status),
            seccomp: match status.seccomp {
                0 => Seccomp::Off,
                1 => Seccomp::Strict,
                _ => Seccomp::Filter,
            },
            no_new_privileges: status.no_new_privs,
            has_shadow_stack: status.shadow_stack,
            is_dumpable: is_dumpable(pid, &status),
            denied: None,
            namespaces: Namespaces {
                mount: compared(0),
                pid: compared(1),
                user: compared(2),
                network: compared(3),
            },
            has_our_root: self.ours.root.is_some() && root(pid) == self.ours.root,
            program: None,
            memory_limit: group.memory_limit(),
            is_frozen: group.is_frozen(),
            collector: None,
            is_kernel_thread: stat.is_kernel_thread,
            thread_group: status.thread_group,
            mappings: Vec::new(),
        };
        if !process.is_kernel_thread && status.has_memory {
            process.denied =
                is_denied(pid).then(|| self.ours.why_denied(&status, process.is_dumpable));
            if let Ok(maps) = procfs::read(pid, "maps") {
                process.mappings = Mapping::parse_all(&maps);
                process.program = self.program(pid, &process.mappings);
                let session = process.program.as_ref().and_then(|program| program.session);
                process.collector = session.and_then(|session| self.collector_of(session));
            }
        }
        Ok(process)
    }

    fn collector_of(&mut self, session: u64) -> Option<u32> {
        *self
            .collectors
            .entry(session)
            .or_insert_with(|| collector_of(session))
    }

    /// What the mapped files tell.
    fn program(&mut self, pid: u32, mappings: &[Mapping]) -> Option<Program> {
        let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let executable = executable(&path, mappings)?;
        let image = self.images.of(pid, executable, Depth::AllSymbols);
        let image = image.as_deref().cloned().unwrap_or_else(|| Image {
            // Not to be read, which is told; nothing is held against it.
            is_64_bit: true,
            machine: NATIVE_MACHINE.0,
            loader: Some(PathBuf::new()),
            has_symbols: true,
            ..Image::default()
        });
        let is_python = executable.base_name().starts_with(b"python");
        let mut program = Program {
            path: executable.path.clone(),
            defines_malloc: image.defines_malloc,
            sanitizer: image.sanitizer,
            is_64_bit: image.is_64_bit,
            machine: image.machine,
            has_loader: image.loader.is_some(),
            own_symbols: image.has_symbols,
            python: image.python.clone().map(|version| Python {
                version,
                path: executable.path.clone(),
                is_embedded: !is_python,
            }),
            ..Program::default()
        };
        program
            .allocators
            .extend(image.allocator.map(|allocator| OwnAllocator {
                allocator,
                is_linked_in: true,
            }));
        if executable.path.to_string_lossy().contains("/valgrind/") {
            program.supervisor = Some("valgrind");
        }
        for mapping in mappings {
            let name = mapping.base_name();
            if mapping.is_session() {
                program.session = Some(mapping.file.inode);
            } else if name.starts_with(mapped::INTERPOSER_PREFIX.as_bytes()) {
                program
                    .interposer
                    .get_or_insert_with(|| mapping.path.clone());
            }
            if !mapping.is_executable || mapping.is_memory() {
                continue;
            }
            program.is_musl |= name.starts_with(b"ld-musl-") || name.starts_with(b"libc.musl-");
            if name.starts_with(b"libc.so.6") || name.starts_with(b"libc-2.") {
                program.has_glibc = true;
                if let Some(libc) = self.images.of(pid, mapping, Depth::Exports) {
                    program.glibc.clone_from(&libc.glibc);
                }
            } else if name.starts_with(b"libpython") && program.python.is_none() {
                let image = self.images.of(pid, mapping, Depth::Exports);
                let version = image
                    .and_then(|image| image.python.clone())
                    .or_else(|| PythonVersion::from_name(name));
                program.python = version.map(|version| Python {
                    version,
                    path: mapping.path.clone(),
                    is_embedded: !is_python,
                });
            } else if name.starts_with(b"vgpreload_") {
                program.supervisor = Some("valgrind");
            } else if name.starts_with(b"librrpreload") {
                program.supervisor = Some("rr");
            } else if let Some(sanitizer) = sanitizer_of_library(name) {
                program.sanitizer = Some(sanitizer);
            } else if let Some(allocator) = Allocator::of_library(name) {
                let own = OwnAllocator {
                    allocator,
                    is_linked_in: false,
                };
                if !program.allocators.contains(&own) {
                    program.allocators.push(own);
                }
            }
        }
        program.is_musl |= image.loader.as_deref().is_some_and(is_musl);
        Some(program)
    }

    /// What an attach would lack, of everything that the process has loaded.
    pub fn warnings(&mut self, process: &Process) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let Some(program) = &process.program else {
            return warnings;
        };
        if let Some(python) = &program.python {
            let version = &python.version;
            if version.is_free_threaded {
                warnings.push(Warning::Python(format!("{} (free-threaded)", version.text)));
            } else if !(9..=15).contains(&version.minor) {
                warnings.push(Warning::Python(version.text.clone()));
            }
        }
        let mut deleted = Vec::new();
        let mut stripped = Vec::new();
        let mut without_build_id = Vec::new();
        let mut unreadable = Vec::new();
        let mut last = None;
        for mapping in &process.mappings {
            let is_new = last.replace(&mapping.path) != Some(&mapping.path);
            if !mapping.is_executable || mapping.is_memory() {
                continue;
            }
            if mapping.is_deleted {
                deleted.push(mapping.path.clone());
            }
            let Some(image) = self.images.of(process.pid, mapping, Depth::Exports) else {
                if is_new || !unreadable.contains(&mapping.path) {
                    unreadable.push(mapping.path.clone());
                }
                continue;
            };
            if image.build_id.is_empty() {
                without_build_id.push(mapping.path.clone());
            }
            let is_interpreter = program
                .python
                .as_ref()
                .is_some_and(|python| python.path == mapping.path);
            if !image.has_symbols && (mapping.path == program.path || is_interpreter) {
                stripped.push(mapping.path.clone());
            }
        }
        for paths in [
            &mut deleted,
            &mut stripped,
            &mut without_build_id,
            &mut unreadable,
        ] {
            paths.dedup();
        }
        let mut add = |paths: Vec<PathBuf>, warning: fn(Vec<PathBuf>) -> Warning| {
            if !paths.is_empty() {
                warnings.push(warning(paths));
            }
        };
        add(deleted, |paths| Warning::Deleted { paths });
        add(stripped, |paths| Warning::Stripped { paths });
        add(without_build_id, |paths| Warning::NoBuildId { paths });
        add(unreadable, |paths| Warning::Unreadable { paths });
        if process.namespaces.mount == Namespace::Other {
            warnings.push(Warning::OtherMounts { pid: process.pid });
        }
        let linked_in = program.allocators.iter().filter(|own| own.is_linked_in);
        warnings.extend(linked_in.map(|own| Warning::OwnAllocator(own.allocator)));
        if let Some(limit) = process.memory_limit
            && limit.headroom_bytes() < LOW_HEADROOM
        {
            warnings.push(Warning::TightMemory {
                headroom_bytes: limit.headroom_bytes(),
            });
        }
        warnings
    }
}

/// How a process is given a library that lies in none of its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As a file in this directory, as the process names it; `/proc/PID/root` leads there.
    Directory(PathBuf),
    /// As a file in its memory, since it has no place for one
    /// ([`crate::injection::load_from_memory`]).
    Memory,
}

/// Below this it is told: the target's part of a recording is some 8 MiB, and
/// the rings' pages are its control group's where it fills them first.
const LOW_HEADROOM: u64 = 64 << 20;

impl Process {
    /// Looks at a process, as [`Inspector::look`] does.
    pub fn look(pid: u32) -> Result<Process, Refused> {
        Inspector::new().look(pid)
    }

    /// How many seccomp filters it has that let it fork; 0 where they do not, or cannot be
    /// read.
    pub fn forking_filters(&self) -> u32 {
        if self.seccomp != Seccomp::Filter || !filter::are_readable() {
            return 0;
        }
        match filter::look(self.pid) {
            Filters::Allowing {
                forks: true, count, ..
            } => count,
            _ => 0,
        }
    }

    /// What its seccomp filters forbid of what recording it takes, where they can be read
    /// (else [`Process::obstacles`] has that). Threads of it are stopped for a moment.
    pub fn forbidden(&self) -> Option<Obstacle> {
        if self.seccomp != Seccomp::Filter || !filter::are_readable() {
            return None;
        }
        match filter::look(self.pid) {
            Filters::Allowing {
                memory_files: false,
                ..
            } if !self.has_our_files() && self.delivery() == Ok(Delivery::Memory) => {
                Some(Obstacle::Forbidden {
                    call: "memfd_create",
                    kills: false,
                })
            }
            Filters::Allowing { .. } => None,
            Filters::Forbidding { call, kills } => Some(Obstacle::Forbidden { call, kills }),
            Filters::Unreadable(_) => Some(Obstacle::Seccomp),
        }
    }

    /// Everything that would stop an attach, first what to name. Empty: it may
    /// begin.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if self.is_kernel_thread {
            return vec![Obstacle::KernelThread];
        }
        if self.thread_group != self.pid {
            found.push(Obstacle::Thread {
                process: self.thread_group,
            });
        }
        if self.pid == std::process::id() {
            found.push(Obstacle::Itself);
        }
        if self.state == State::Zombie {
            found.push(Obstacle::Zombie {
                parent: self.parent_pid,
            });
            return found;
        }
        if let Some(tracer) = &self.tracer {
            found.push(Obstacle::Traced {
                pid: tracer.pid,
                name: tracer.name.clone(),
            });
        }
        if self.collector.is_some() {
            found.push(Obstacle::Recorded {
                collector: self.collector,
            });
        }
        found.extend(self.denied.clone().map(Obstacle::Permission));
        if let Some(program) = &self.program {
            found.extend(program.obstacles());
        }
        let is_unread = self.seccomp == Seccomp::Filter && !filter::are_readable();
        if is_unread || self.seccomp == Seccomp::Strict {
            found.push(Obstacle::Seccomp);
        }
        if self.has_shadow_stack {
            found.push(Obstacle::ShadowStack);
        }
        if self.state == State::Stopped {
            found.push(Obstacle::Stopped);
        }
        if self.is_frozen {
            found.push(Obstacle::Frozen);
        }
        if self.denied.is_none() && self.program.is_some() {
            let has_other_names = self.namespaces.network == Namespace::Other;
            let no_socket = (has_other_names || !self.has_our_files())
                .then(|| self.socket_place().err())
                .flatten();
            let no_library = (!self.has_our_files())
                .then(|| self.delivery().err())
                .flatten();
            found.extend(no_library.or(no_socket).map(Obstacle::NoPlace));
        }
        found
    }

    /// Whether a path means the same file to it as to us.
    pub fn has_our_files(&self) -> bool {
        self.has_our_root && self.namespaces.mount != Namespace::Other
    }

    /// How it may be given a library that lies in none of its directories.
    ///
    /// # Errors
    ///
    /// There is no way: which places were looked at, and why none serves.
    pub fn delivery(&self) -> Result<Delivery, NoPlace> {
        let mut wrong = match self.place_that(true) {
            Ok(place) => return Ok(Delivery::Directory(place)),
            Err(wrong) => wrong,
        };
        // Of our own pid namespace: its own is no less strict. Where its seccomp filter
        // forbids it, `forbidden` knows.
        let setting = fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap_or_default();
        if setting.trim() != "2" {
            return Ok(Delivery::Memory);
        }
        wrong.push("nothing in memory may be executed (`vm.memfd_noexec`)".into());
        Err(NoPlace(wrong))
    }

    /// A directory in its own file system to which we and it may write. As the process
    /// names it; `/proc/PID/root` leads there.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn socket_place(&self) -> Result<PathBuf, NoPlace> {
        self.place_that(false).map_err(NoPlace)
    }

    fn place_that(&self, bears_a_library: bool) -> Result<PathBuf, Vec<String>> {
        let mut wrong = Vec::new();
        for place in ["/tmp", "/var/tmp", "/dev/shm", "/run"] {
            match unfit(self.pid, Path::new(place), self.user, bears_a_library) {
                None => return Ok(place.into()),
                Some(why) => wrong.push(format!("`{place}` {why}")),
            }
        }
        Err(wrong)
    }
}

impl Program {
    /// Bits of its addresses, 64 or 32.
    pub fn bits(&self) -> u8 {
        if self.is_64_bit { 64 } else { 32 }
    }

    /// The processor that it is for, as `uname -m` writes it.
    pub fn machine(&self) -> String {
        machine_name(self.machine)
    }

    /// It has no dynamic loader.
    pub fn is_static(&self) -> bool {
        !self.has_loader && !self.has_glibc && !self.is_musl
    }

    /// Its libc is musl.
    pub fn is_musl(&self) -> bool {
        self.is_musl
    }

    /// Its executable has names for all its functions.
    pub fn has_symbols(&self) -> bool {
        self.own_symbols
    }

    /// What keeps the interposer out of any process of it.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        if self.supervisor == Some("valgrind") {
            return vec![Obstacle::Valgrind];
        }
        // A 32-bit program is for i386, and that is no news.
        if !self.is_64_bit {
            return vec![Obstacle::Narrow];
        }
        if self.machine != NATIVE_MACHINE.0 {
            return vec![Obstacle::Machine(machine_name(self.machine))];
        }
        if self.is_static() {
            return vec![Obstacle::Static];
        }
        if self.is_musl {
            return vec![Obstacle::Musl];
        }
        let mut found = Vec::new();
        if !self.has_glibc {
            found.push(Obstacle::NoGlibc);
        }
        found.extend(self.sanitizer.map(Obstacle::Sanitizer));
        found
    }
}

#[cfg(target_arch = "x86_64")]
const NATIVE_MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE_MACHINE: elf::Machine = elf::EM_AARCH64;

fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64".into(),
        elf::EM_386 => "i386".into(),
        elf::EM_AARCH64 => "aarch64".into(),
        elf::EM_ARM => "arm".into(),
        elf::EM_RISCV => "riscv64".into(),
        elf::EM_PPC64 => "powerpc64".into(),
        elf::EM_S390 => "s390x".into(),
        elf::EM_LOONGARCH => "loongarch64".into(),
        other => format!("ELF machine {}", other.0),
    }
}

fn is_musl(loader: &Path) -> bool {
    let name = procfs::base_name(loader.as_os_str().as_encoded_bytes());
    name.starts_with(b"ld-musl-")
}

/// The mapping of the program itself: that of its name, or else the first
/// executable one.
fn executable<'m>(link: &Path, mappings: &'m [Mapping]) -> Option<&'m Mapping> {
    let link = link.to_string_lossy();
    let link = link.trim_end_matches(" (deleted)");
    mappings
        .iter()
        .find(|mapping| mapping.path.to_string_lossy() == link)
        .or_else(|| mappings.iter().find(|mapping| mapping.is_executable))
}

/// Whether the kernel would not let us attach. Opening this file takes the
/// very right that attaching takes, Yama's included.
fn is_denied(pid: u32) -> bool {
    fs::File::open(format!("/proc/{pid}/mem"))
        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn tracer(status: &Status) -> Option<Tracer> {
    (status.tracer != 0).then(|| Tracer {
        pid: status.tracer,
        name: name(status.tracer).unwrap_or_else(|| "?".into()),
    })
}

/// The kernel gives the files of a process that may not be looked into to
/// root. (Not its directory, which everybody may list.)
fn is_dumpable(pid: u32, status: &Status) -> bool {
    fs::metadata(format!("/proc/{pid}/status")).is_ok_and(|file| file.uid() == status.users[1])
}

fn exists(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    !matches!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    )
}

fn namespaces(pid: u32) -> [Option<PathBuf>; 4] {
    NAMESPACES.map(|name| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok())
}

/// What tells one root directory from another.
fn root(pid: u32) -> Option<(u64, u64)> {
    let root = fs::metadata(format!("/proc/{pid}/root")).ok()?;
    Some((root.dev(), root.ino()))
}

/// Yama's rule on tracing, 0 to 3; `None` where there is no Yama.
pub fn ptrace_scope() -> Option<u8> {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    text.trim().parse().ok()
}

/// The process that collects what goes into the session of this inode.
fn collector_of(session: u64) -> Option<u32> {
    pids().ok()?.into_iter().find(|pid| {
        arguments(*pid).iter().any(|word| word == b"__collector")
            && procfs::read(*pid, "maps").is_ok_and(|maps| {
                Mapping::parse_all(&maps)
                    .iter()
                    .any(|mapping| mapping.file.inode == session && mapping.is_session())
            })
    })
}

/// Why a process of this user cannot load a library that we put into a
/// directory of its; words that follow the directory's name.
fn unfit(pid: u32, place: &Path, user: u32, bears_a_library: bool) -> Option<String> {
    let Some(directory) = image::open_inside(pid, place, OFlags::PATH | OFlags::DIRECTORY) else {
        return Some("is no directory".into());
    };
    let flags = fstatvfs(&directory).map_or(StatVfsMountFlags::empty(), |mount| mount.f_flag);
    if bears_a_library && flags.contains(StatVfsMountFlags::NOEXEC) {
        return Some("is mounted `noexec`".into());
    }
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Some("is read-only".into());
    }
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    if accessat(
        CWD,
        &path,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .is_err()
    {
        return Some("may not be written to".into());
    }
    let is_open = fs::metadata(&path).is_ok_and(|directory| {
        directory.mode() & 0o001 != 0 || directory.uid() == user || user == 0
    });
    (!is_open).then(|| "is closed to the process".into())
}

/// Control characters, which a name may hold, stay out of messages.
fn shown(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    /// A child that is killed at the end of the test.
    struct Target(Child);

    impl Target {
        fn sleeping() -> Target {
            let target = Target(Command::new("sleep").arg("100").spawn().unwrap());
            // Until the exec is done, it is this program.
            target.wait_until(|process| process.name == "sleep" && process.program.is_some());
            target
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }

        fn wait_until(&self, condition: impl Fn(&Process) -> bool) -> Process {
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                let process = Process::look(self.pid()).unwrap();
                if condition(&process) {
                    return process;
                }
                assert!(Instant::now() < deadline, "in vain: {process:#?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        fn signal(&self, signal: i32) {
            let pid = self.pid().to_string();
            let sent = Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(pid)
                .status();
            assert!(sent.unwrap().success());
        }
    }

    impl Drop for Target {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_program_is_seen_as_what_it_is() {
        let target = Target::sleeping();
        let process = target.wait_until(|process| {
            let program = process.program.as_ref();
            program.is_some_and(|program| program.glibc.is_some())
        });
        assert_eq!(process.arguments, [&b"sleep"[..], b"100"]);
        assert_eq!(process.parent_pid, std::process::id());
        assert_eq!(process.user, rustix::process::geteuid().as_raw());
        assert!(process.has_our_root && process.is_dumpable);
        assert_eq!(process.namespaces.mount, Namespace::Ours);
        assert_eq!(process.inner_pid, target.pid());
        assert!(process.rss_bytes > 100_000, "{}", process.rss_bytes);
        let program = process.program.as_ref().unwrap();
        assert_eq!((program.bits(), program.machine()), (64, "x86_64".into()));
        assert!(program.glibc.as_ref().unwrap().starts_with("2."));
        assert!(program.path.ends_with("sleep") || program.path.ends_with("coreutils"));
        assert_eq!(program.python, None);
        assert!(matches!(process.delivery(), Ok(Delivery::Directory(_))));

        let glance = Glance::at(target.pid()).unwrap();
        assert_eq!(glance.start_ticks, process.start_ticks);
        assert_eq!(glance.user, process.user);
        assert!(!glance.is_kernel_thread && pids().unwrap().contains(&glance.pid));
    }

    #[test]
    fn a_stopped_one_and_a_zombie_are_obstacles() {
        let target = Target::sleeping();
        target.signal(19);
        let stopped = target.wait_until(|process| process.state == State::Stopped);
        assert!(stopped.obstacles().contains(&Obstacle::Stopped));
        target.signal(9);
        let zombie = target.wait_until(|process| process.state == State::Zombie);
        let parent = std::process::id();
        assert_eq!(zombie.obstacles(), [Obstacle::Zombie { parent }]);
    }

    #[test]
    fn what_is_no_process_is_told() {
        // Above the kernel's largest.
        let gone = Process::look(1 << 30).unwrap_err();
        assert_eq!(gone.obstacle, Obstacle::Gone);
        assert_eq!(Glance::at(1 << 30), None);
        assert_eq!(
            Process::look(u32::MAX).unwrap_err().obstacle,
            Obstacle::Gone
        );

        let ours = std::process::id();
        let itself = Process::look(ours).unwrap();
        assert!(itself.obstacles().contains(&Obstacle::Itself));

        let thread = std::thread::spawn(|| {
            let thread = rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .cast_unsigned();
            Process::look(thread).unwrap().obstacles()
        });
        let thread = thread.join().unwrap();
        assert_eq!(thread.first(), Some(&Obstacle::Thread { process: ours }));
    }

    #[test]
    fn a_refusal_of_the_kernel_is_explained() {
        let ours = |ptrace_scope, can_trace| Ours {
            user: 1000,
            group: 100,
            permitted: 0b11,
            can_trace,
            ptrace_scope,
            namespaces: Default::default(),
            root: None,
        };
        let status = |user, permitted| Status {
            users: [user; 4],
            groups: [100; 4],
            permitted,
            ..Status::default()
        };
        let mine = status(1000, 0b01);
        for (scope, expected) in [
            (None, Denied::Unexplained { capable: false }),
            (Some(0), Denied::Unexplained { capable: false }),
            (Some(1), Denied::DescendantsOnly),
            (Some(2), Denied::AdminsOnly),
            (Some(3), Denied::Never),
        ] {
            assert_eq!(ours(scope, false).why_denied(&mine, true), expected);
        }
        let plain = ours(Some(1), false);
        let other = Denied::OtherUser {
            theirs: 7,
            ours: 1000,
        };
        assert_eq!(plain.why_denied(&status(7, 0), false), other);
        let mut of_another_group = mine.clone();
        of_another_group.groups[2] = 5;
        assert!(matches!(
            plain.why_denied(&of_another_group, true),
            Denied::OtherGroup { ours: 100, .. }
        ));
        assert_eq!(plain.why_denied(&mine, false), Denied::Undumpable);
        let mighty = status(1000, 0b100);
        assert_eq!(plain.why_denied(&mighty, true), Denied::MoreCapabilities);
        let capable = ours(Some(2), true);
        assert_eq!(
            capable.why_denied(&mine, true),
            Denied::Unexplained { capable: true }
        );
        assert_eq!(ours(Some(3), true).why_denied(&mine, true), Denied::Never);
    }

    #[test]
    fn programs_that_cannot_load_the_interposer_are_told_apart() {
        let good = Program {
            is_64_bit: true,
            machine: NATIVE_MACHINE.0,
            has_loader: true,
            has_glibc: true,
            ..Program::default()
        };
        assert_eq!(good.obstacles(), []);
        let with = |change: fn(&mut Program)| {
            let mut program = good.clone();
            change(&mut program);
            program.obstacles()
        };
        assert_eq!(with(|it| it.is_64_bit = false), [Obstacle::Narrow]);
        assert_eq!(
            with(|it| it.machine = elf::EM_S390.0),
            [Obstacle::Machine("s390x".into())]
        );
        assert_eq!(with(|it| it.is_musl = true), [Obstacle::Musl]);
        assert_eq!(with(|it| it.has_glibc = false), [Obstacle::NoGlibc]);
        let nothing = |it: &mut Program| (it.has_glibc, it.has_loader) = (false, false);
        assert_eq!(with(nothing), [Obstacle::Static]);
        assert_eq!(
            with(|it| it.sanitizer = Some("AddressSanitizer")),
            [Obstacle::Sanitizer("AddressSanitizer")]
        );
        assert_eq!(
            with(|it| it.supervisor = Some("valgrind")),
            [Obstacle::Valgrind]
        );
        assert!(is_musl(Path::new("/lib/ld-musl-x86_64.so.1")));
        assert!(!is_musl(Path::new("/lib64/ld-linux-x86-64.so.2")));
    }
}
