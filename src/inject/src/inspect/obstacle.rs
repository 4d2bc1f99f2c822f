//! What would stop an attach, and what would spoil its symbols, in words for
//! people, each with the way out.

use std::path::PathBuf;

use super::image::Allocator;

/// Why nobody may attach to a process.
///
/// Prints as the end of a sentence about the process; the cause, where there
/// is more to say, is its [`source`](std::error::Error::source).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It is not there (any more).
    #[error("there is no such process")]
    Gone,
    /// It is there, but `/proc` does not show it to us.
    #[error("it is hidden from this user (`/proc` is mounted with hidepid)")]
    Hidden,
    /// The number is that of a thread.
    #[error("it is a thread of process {process}")]
    Thread {
        /// The process.
        process: u32,
    },
    /// It is the process that asks.
    #[error("that is leakline itself")]
    Itself,
    /// It belongs to the kernel.
    #[error("it is a thread of the kernel, and has no memory of its own")]
    KernelThread,
    /// It has ended.
    #[error("it has ended already (a zombie, which its parent {parent} has not waited for)")]
    Zombie {
        /// Its parent.
        parent: u32,
    },
    /// Another one traces it, and there can be only one.
    #[error("`{name}` (pid {pid}) is already tracing it")]
    Traced {
        /// The tracer.
        pid: u32,
        /// Its name; `?` where it is not of our pid namespace.
        name: String,
    },
    /// Somebody records it.
    #[error("it is being recorded already{}", by(*collector))]
    Recorded {
        /// The pid of the recording's collector, if it can be told.
        collector: Option<u32>,
    },
    /// The kernel does not let us.
    #[error("ptrace is not allowed here")]
    Permission(#[source] Denied),
    /// It is a 32-bit program.
    #[error("it is a 32-bit program, and only 64-bit ones are supported")]
    Narrow,
    /// It is for another processor (and runs in an emulator).
    #[error("it is for another machine ({0})")]
    Machine(String),
    /// Nothing can be loaded into it.
    #[error("it is statically linked, and has no dynamic loader to load a library with")]
    Static,
    /// Its libc is musl.
    #[error("it is linked against musl, and only glibc is supported")]
    Musl,
    /// Its libc is neither.
    #[error("it has not loaded glibc, and only glibc is supported")]
    NoGlibc,
    /// It runs in valgrind.
    #[error("it runs under valgrind, which puts its own allocator in the place of malloc")]
    Valgrind,
    /// A sanitizer's allocator is in the place of malloc.
    #[error("it was built with {0}, which puts its own allocator in the place of malloc")]
    Sanitizer(&'static str),
    /// A filter may kill it for a system call that loading a library takes.
    #[error("a seccomp filter limits its system calls, and may kill it when it loads a library")]
    Seccomp,
    /// A filter does, or fails one that nothing works without.
    #[error(
        "its seccomp filter forbids `{call}`, which recording it takes: {}",
        if *kills { "it would be killed, or wait for ever" } else { "it fails" }
    )]
    Forbidden {
        /// The system call's name.
        call: &'static str,
        /// It would not come back from that.
        kills: bool,
    },
    /// Return addresses are guarded by the processor.
    #[error("its return addresses are guarded (shadow stack), so no call can be made in it")]
    ShadowStack,
    /// A signal stopped it.
    #[error("it is stopped (SIGSTOP or Ctrl-Z), and runs nothing until it is continued")]
    Stopped,
    /// Its control group is frozen.
    #[error("its control group is frozen, and it runs nothing until that is thawed")]
    Frozen,
    /// The interposer can be placed nowhere in its file system.
    #[error("its file system has no place for a library")]
    NoPlace(#[source] NoPlace),
}

fn by(collector: Option<u32>) -> String {
    collector.map_or(String::new(), |pid| format!(" (by collector {pid})"))
}

/// Why the kernel does not let us trace a process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Yama forbids it to everybody.
    #[error("kernel.yama.ptrace_scope is 3: nobody may trace until the next boot")]
    Never,
    /// Yama forbids it to all without the capability.
    #[error("no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is 2")]
    AdminsOnly,
    /// Yama forbids it to all but a parent.
    #[error("no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is 1")]
    DescendantsOnly,
    /// It is another user's.
    #[error("no CAP_SYS_PTRACE, and it runs as user {theirs}, leakline as user {ours}")]
    OtherUser {
        /// Its user.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It is of another group.
    #[error("no CAP_SYS_PTRACE, and it runs as group {theirs}, leakline as group {ours}")]
    OtherGroup {
        /// Its group.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It forbids to be looked into.
    #[error(
        "no CAP_SYS_PTRACE, and it is not dumpable (prctl, setuid, file capabilities, \
         or a file that nobody may read)"
    )]
    Undumpable,
    /// It has rights that we have not.
    #[error("no CAP_SYS_PTRACE, and it has capabilities that leakline has not")]
    MoreCapabilities,
    /// There is nothing to see that forbids it.
    #[error(
        "the kernel refuses{}: a security module (AppArmor, SELinux), a seccomp filter \
         or another user namespace",
        if *.capable { " in spite of CAP_SYS_PTRACE" } else { "" }
    )]
    Unexplained {
        /// We have `CAP_SYS_PTRACE`.
        capable: bool,
    },
}

/// The directories that were looked at, and why none serves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(", "))]
pub struct NoPlace(pub(super) Vec<String>);

impl Obstacle {
    /// The same in a word, for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Obstacle::Gone => "gone",
            Obstacle::Hidden => "hidden",
            Obstacle::Thread { .. } => "thread",
            Obstacle::Itself => "itself",
            Obstacle::KernelThread => "kernel",
            Obstacle::Zombie { .. } => "zombie",
            Obstacle::Traced { .. } => "traced",
            Obstacle::Recorded { .. } => "recorded",
            Obstacle::Permission(Denied::Undumpable) => "undumpable",
            Obstacle::Permission(_) => "permission",
            Obstacle::Narrow => "32-bit",
            Obstacle::Machine(_) => "machine",
            Obstacle::Static => "static",
            Obstacle::Musl => "musl",
            Obstacle::NoGlibc => "no glibc",
            Obstacle::Valgrind => "valgrind",
            Obstacle::Sanitizer(_) => "sanitizer",
            Obstacle::Seccomp | Obstacle::Forbidden { .. } => "seccomp",
            Obstacle::ShadowStack => "shadow stack",
            Obstacle::Stopped => "stopped",
            Obstacle::Frozen => "frozen",
            Obstacle::NoPlace(_) => "no place",
        }
    }

    /// What the user can do about it, for the process `pid`.
    pub fn hint(&self, pid: u32) -> String {
        let again = format!("then run `leakline attach {pid}` again");
        match self {
            Obstacle::Gone
            | Obstacle::Itself
            | Obstacle::KernelThread
            | Obstacle::Zombie { .. } => "`leakline ps` lists the processes that there are".into(),
            Obstacle::Hidden => format!("`sudo leakline attach {pid}`"),
            Obstacle::Thread { process } => {
                format!("`leakline attach {process}` takes all threads of it")
            }
            Obstacle::Traced { .. } => format!("stop that tracer, {again}"),
            Obstacle::Recorded { .. } => {
                format!("read what it records, or end that with `leakline detach {pid}`")
            }
            Obstacle::Permission(denied) => denied.hint(pid),
            Obstacle::Narrow => "build it for 64 bits".into(),
            Obstacle::Machine(_) => {
                format!(
                    "build it for {}, or attach on its own machine",
                    std::env::consts::ARCH
                )
            }
            Obstacle::Static => "link it dynamically (without `-static`)".into(),
            Obstacle::Musl => "build it for glibc, or run it in an image that has glibc".into(),
            Obstacle::NoGlibc => format!("if it is still starting, wait, {again}"),
            Obstacle::Valgrind => format!("run it without valgrind, {again}"),
            Obstacle::Sanitizer(_) => {
                format!("run a build of it without `-fsanitize`, {again}")
            }
            Obstacle::Seccomp => format!(
                "as root on its machine, leakline reads the filter and decides; those of Docker, \
                 containerd\nand systemd let a library be loaded: if it is one of these, \
                 `leakline attach {pid}\n--despite-seccomp`; else start it under `leakline run`"
            ),
            Obstacle::Forbidden { .. } => {
                "have the filter allow it, or start the process under `leakline run`".into()
            }
            Obstacle::ShadowStack => {
                "start it with `GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK`, or under `leakline run`"
                    .into()
            }
            Obstacle::Stopped => format!("`kill -CONT {pid}`, {again}"),
            Obstacle::Frozen => format!("thaw it (`docker unpause CONTAINER`), {again}"),
            Obstacle::NoPlace(_) => "mount something to write to at its `/tmp`, without `noexec`\n\
                 (Kubernetes: an `emptyDir`)"
                .into(),
        }
    }
}

impl Denied {
    fn hint(&self, pid: u32) -> String {
        let is_root = rustix::process::geteuid().is_root();
        match self {
            Denied::Never => {
                "boot with a lower kernel.yama.ptrace_scope, or start it under `leakline run`"
                    .into()
            }
            Denied::Unexplained { capable: true } => {
                "attach from where it was started, or start it under `leakline run`".into()
            }
            // Root without the capability is root in a container.
            _ if is_root => "`kubectl debug ... --profile=general`, \
                             `docker run --cap-add=SYS_PTRACE ...`,\n\
                             or start it under `leakline run`"
                .into(),
            _ => format!("`sudo leakline attach {pid}`, or start it under `leakline run`"),
        }
    }
}

/// An obstacle to attaching to a process, as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The process.
    pub pid: u32,
    /// What stands in the way.
    pub obstacle: Obstacle,
}

impl Refused {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        self.obstacle.hint(self.pid)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "cannot attach to process {}: {}",
            self.pid, self.obstacle
        )
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.obstacle)
    }
}

/// What does not stop an attach, but takes something from what it tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A file that it runs from was removed or exchanged.
    #[error(
        "{} loaded and {} gone or replaced since: {}",
        files(paths, "was", "were"),
        if paths.len() == 1 { "is" } else { "are" },
        "frames in there may stay without names"
    )]
    Deleted {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Its interpreter, or itself, has no names but the exported ones.
    #[error(
        "{} stripped: native frames in there have the names of exported functions at best",
        files(paths, "is", "are")
    )]
    Stripped {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// An exchanged file could not be told from the one it runs.
    #[error(
        "{} no build-id: whether a file is the one that runs cannot be told",
        files(paths, "has", "have")
    )]
    NoBuildId {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Files could not be read.
    #[error(
        "{} not to be read here: frames in there have no names",
        files(paths, "is", "are")
    )]
    Unreadable {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Its file system is another one than ours.
    #[error(
        "it sees other files than leakline (a container): they are read through /proc/{pid}/root"
    )]
    OtherMounts {
        /// The process.
        pid: u32,
    },
    /// This version of CPython is not known.
    #[error("CPython {0} is not supported (3.9 to 3.15 with the GIL are): native frames only")]
    Python(String),
    /// An allocator is linked into the program.
    #[error(
        "{} is linked into the program: calls that are bound inside it are not seen",
        .0.name()
    )]
    OwnAllocator(Allocator),
    /// Its control group is almost full.
    #[error("its memory limit leaves {} MiB: recording takes some MiB of it", headroom_bytes >> 20)]
    TightMemory {
        /// Bytes up to the limit, without what the kernel can take back.
        headroom_bytes: u64,
    },
}

/// `` `a` was``, `` `a` and 2 more were``.
fn files(paths: &[PathBuf], one: &str, many: &str) -> String {
    let Some(first) = paths.first() else {
        return format!("nothing {one}");
    };
    match paths.len() {
        1 => format!("`{}` {one}", first.display()),
        count => format!("`{}` and {} more {many}", first.display(), count - 1),
    }
}

impl Warning {
    /// The same in a word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Warning::Deleted { .. } => "deleted",
            Warning::Stripped { .. } => "stripped",
            Warning::NoBuildId { .. } => "no build-id",
            Warning::Unreadable { .. } => "unreadable",
            Warning::OtherMounts { .. } => "other mounts",
            Warning::Python(_) => "python",
            Warning::OwnAllocator(_) => "own allocator",
            Warning::TightMemory { .. } => "tight memory",
        }
    }

    /// What the user can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Warning::Deleted { .. } => "restart it, so that it runs what is installed now",
            Warning::Stripped { .. } => {
                "install its debug symbols (Debian: a package `...-dbg` or `...-dbgsym`)"
            }
            Warning::NoBuildId { .. } => "link it with `-Wl,--build-id`",
            Warning::Unreadable { .. } => "run leakline as root",
            Warning::OtherMounts { .. } | Warning::Python(_) => return None,
            Warning::OwnAllocator(_) => "link the allocator as a shared library",
            Warning::TightMemory { .. } => "raise the limit, or attach early after a restart",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(obstacle: Obstacle) -> String {
        let refused = Refused {
            pid: 4121,
            obstacle,
        };
        let cause = std::error::Error::source(&refused)
            .map_or(String::new(), |cause| format!("\ncaused by: {cause}"));
        format!("{refused}{cause}\nhint: {}", refused.hint())
    }

    #[test]
    fn a_refusal_says_what_and_how_to_go_on() {
        let traced = printed(Obstacle::Traced {
            pid: 4120,
            name: "strace".into(),
        });
        assert_eq!(
            traced,
            "cannot attach to process 4121: `strace` (pid 4120) is already tracing it\n\
             hint: stop that tracer, then run `leakline attach 4121` again"
        );
        let yama = printed(Obstacle::Permission(Denied::DescendantsOnly));
        assert!(yama.starts_with(
            "cannot attach to process 4121: ptrace is not allowed here\n\
             caused by: no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is 1\n\
             hint: "
        ));
        let place = NoPlace(vec!["`/tmp` is mounted `noexec`".into()]);
        assert!(printed(Obstacle::NoPlace(place)).contains("caused by: `/tmp` is mounted"));
    }

    #[test]
    fn warnings_count_files() {
        let paths = |count: usize| vec![PathBuf::from("/usr/lib/a.so"); count];
        let said = |count| {
            Warning::Stripped {
                paths: paths(count),
            }
            .to_string()
        };
        assert!(said(1).starts_with("`/usr/lib/a.so` is stripped: "));
        assert!(said(3).starts_with("`/usr/lib/a.so` and 2 more are stripped: "));
    }
}
