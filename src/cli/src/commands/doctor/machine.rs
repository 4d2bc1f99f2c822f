//! What this machine, and the user's place on it, allows.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use leakline_analysis::report::{BOLD, DIM, Style, bytes, counted};
use leakline_inject::inspect::{self, Inspector, MemoryLimit, ptrace_scope};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::process::{Resource, geteuid, getrlimit};
use rustix::system::uname;
use serde_json::Value;

use super::super::run::limits;
use super::{Finding, Grade, Stops, things};
use crate::error::plain;
use crate::{CliError, preload};

/// What was found out about this machine.
pub(super) struct Machine {
    findings: Vec<Finding>,
    facts: String,
}

impl Machine {
    /// Looks at everything that `run` and `attach` need.
    pub(super) fn check(inspector: &Inspector) -> Machine {
        let findings = vec![
            kernel(),
            tracing(inspector.can_trace()),
            shared_memory(),
            clock(),
            resource_limits(),
            library(),
            place(),
        ];
        Machine {
            findings,
            facts: facts(),
        }
    }

    /// What stops `run` or `attach`. What stops `run` stops both.
    pub(super) fn stopping(&self, what: Stops) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| {
            finding.grade == Grade::Stops(Stops::Run) || finding.grade == Grade::Stops(what)
        })
    }

    /// What is not as it should be.
    pub(super) fn not_fine(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.grade != Grade::Fine)
    }

    pub(super) fn json(&self) -> Vec<Value> {
        self.findings.iter().map(Finding::json).collect()
    }

    /// The answer, where it was found, and each finding, worst first.
    pub(super) fn write(&self, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
        let run = self.stopping(Stops::Run).count();
        let attach = self.stopping(Stops::Attach).count();
        let poor = self.not_fine().count() - attach;
        let answer = match (run, attach, poor) {
            (0, 0, 0) => "READY: leakline can record programs and attach to processes".into(),
            (0, 0, poor) => format!(
                "READY to record programs and to attach; {} could be better",
                things(poor)
            ),
            (0, attach, _) => format!(
                "READY to record programs, but not to attach: {} in the way",
                things(attach)
            ),
            (run, _, _) => format!("NOT READY: {} in the way", things(run)),
        };
        style.wrapped(out, BOLD, 0, &answer)?;
        style.wrapped(out, DIM, 0, &self.facts)?;
        writeln!(out)?;
        let rank = |grade| match grade {
            Grade::Stops(_) => 0,
            Grade::Poor => 1,
            Grade::Note | Grade::Fine => 2,
        };
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| rank(finding.grade));
        for finding in sorted {
            finding.write(style, out)?;
        }
        writeln!(out)?;
        // Never cut: they are there to be pasted.
        if run == 0 {
            writeln!(out, "next: leakline run -- PROGRAM\n      leakline ps")
        } else {
            writeln!(out, "next: leakline doctor")
        }
    }
}

/// `leakline 0.1.0 on Linux 6.1.0, x86_64, 8 processors, as root`.
fn facts() -> String {
    let name = uname();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let user = geteuid();
    format!(
        "leakline {} on {} {}, {}, {}, as {}",
        env!("CARGO_PKG_VERSION"),
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
        name.machine().to_string_lossy(),
        counted(processors as u64, "processor", "processors"),
        if user.is_root() {
            "root".into()
        } else {
            format!("user {}", user.as_raw())
        }
    )
}

fn finding(grade: Grade, name: &str, found: impl Into<String>) -> Finding {
    Finding {
        grade,
        name: name.into(),
        found: found.into(),
        cause: None,
        mend: None,
    }
}

impl Finding {
    fn mended_by(mut self, mend: impl Into<String>) -> Finding {
        self.mend = Some(mend.into());
        self
    }

    fn caused_by(mut self, cause: impl Into<String>) -> Finding {
        self.cause = Some(cause.into());
        self
    }
}

/// The first two numbers of a kernel's release.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel() -> Finding {
    /// With pages that a fork leaves empty (`MADV_WIPEONFORK`).
    const OLDEST: (u32, u32) = (4, 14);
    let name = uname();
    let text = name.release().to_string_lossy().into_owned();
    let machine = name.machine().to_string_lossy().into_owned();
    if machine != "x86_64" {
        return finding(
            Grade::Stops(Stops::Run),
            "kernel",
            format!("{machine}: recording works on x86_64 only"),
        );
    }
    if release(&text).is_some_and(|release| release < OLDEST) {
        return finding(
            Grade::Stops(Stops::Run),
            "kernel",
            format!("Linux {text} is too old"),
        )
        .mended_by("boot Linux 4.14 or later");
    }
    finding(Grade::Fine, "kernel", format!("Linux {text}, {machine}"))
}

/// Whether the kernel, its modules and filters let us trace.
fn tracing(can_trace: bool) -> Finding {
    if let Some(error) = ptrace_is_blocked() {
        return finding(
            Grade::Stops(Stops::Attach),
            "tracing",
            "ptrace cannot be called here",
        )
        .caused_by(format!("a seccomp filter answers `{error}`"))
        .mended_by(
            "docker: `--cap-add=SYS_PTRACE`; Kubernetes: `kubectl debug --profile=general`",
        );
    }
    let as_root = if geteuid().is_root() {
        "add CAP_SYS_PTRACE (docker `--cap-add=SYS_PTRACE`, `kubectl debug --profile=general`)"
    } else {
        "`sudo leakline attach PID`"
    };
    match (ptrace_scope(), can_trace) {
        (Some(3..), _) => finding(
            Grade::Stops(Stops::Attach),
            "tracing",
            "nobody may trace until the next boot",
        )
        .caused_by("kernel.yama.ptrace_scope is 3")
        .mended_by("boot with a lower kernel.yama.ptrace_scope"),
        (_, true) if !is_first("user", FIRST_USERS) => finding(
            Grade::Fine,
            "tracing",
            "CAP_SYS_PTRACE is held: any process of this user namespace may be attached to",
        ),
        (_, true) => finding(
            Grade::Fine,
            "tracing",
            "CAP_SYS_PTRACE is held: any process that is seen here may be attached to",
        ),
        (Some(2), false) => finding(
            Grade::Stops(Stops::Attach),
            "tracing",
            "only root may trace",
        )
        .caused_by("no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is 2")
        .mended_by(as_root),
        (Some(1), false) => finding(
            Grade::Stops(Stops::Attach),
            "tracing",
            "only a parent may trace",
        )
        .caused_by("no CAP_SYS_PTRACE, and kernel.yama.ptrace_scope is 1")
        .mended_by(as_root),
        (_, false) => finding(
            Grade::Fine,
            "tracing",
            "your own processes may be attached to (others need CAP_SYS_PTRACE)",
        ),
    }
}

/// What a filter answers to a ptrace that can do nothing.
fn ptrace_is_blocked() -> Option<String> {
    // SAFETY: PTRACE_CONT takes a tracee of ours; we have none, and a process
    // is never its own, so the kernel does nothing but say ESRCH.
    let answer = unsafe {
        libc::ptrace(
            libc::PTRACE_CONT,
            libc::getpid(),
            std::ptr::null_mut::<libc::c_void>(),
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    let error = io::Error::last_os_error();
    let is_as_ever = answer == 0 || error.raw_os_error() == Some(libc::ESRCH);
    (!is_as_ever).then(|| plain(&error))
}

/// Whether the session's memory can be made, and how much there is.
fn shared_memory() -> Finding {
    /// The rings' own part of it, as `--ring-size` has it.
    const RINGS: u64 = 64 << 20;
    let made = memfd_create(
        "leakline-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .and_then(|memfd| fallocate(memfd, FallocateFlags::empty(), 0, 1 << 20));
    if let Err(error) = made {
        return finding(
            Grade::Stops(Stops::Run),
            "memory",
            "no shared memory can be made (memfd_create)",
        )
        .caused_by(plain(&io::Error::from(error)))
        .mended_by("let the seccomp filter or the limits here allow memfd_create and fallocate");
    }
    let available = available_memory();
    let free = rustix::fs::statvfs("/dev/shm").map(|shm| shm.f_bavail * shm.f_frsize);
    let mut found = vec!["shared memory can be made".to_owned()];
    if let Some(available) = available {
        found.push(format!("{} of memory available", bytes(available)));
    }
    if let Ok(free) = free {
        found.push(format!("{} in /dev/shm", bytes(free)));
    }
    let found = found.join(", ");
    if available.is_some_and(|available| available < 4 * RINGS) {
        return finding(Grade::Poor, "memory", found)
            .caused_by(format!("rings take up to {}", bytes(RINGS)))
            .mended_by("`leakline run --ring-size 8MiB`");
    }
    finding(Grade::Fine, "memory", found)
}

/// Memory that can be had without swapping, and without meeting the limit of
/// our control group.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    let limit = inspect::memory_limit(std::process::id());
    let headroom = limit.map_or(u64::MAX, MemoryLimit::headroom_bytes);
    Some((kib * 1024).min(headroom))
}

/// What events are stamped with.
fn clock() -> Finding {
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0";
    if leakline_collector::tsc_is_trusted() {
        return finding(
            Grade::Fine,
            "clock",
            "the time-stamp counter is the kernel's own clock, and events are stamped with it",
        );
    }
    let read = |name: &str| fs::read_to_string(format!("{SOURCE}/{name}")).unwrap_or_default();
    let current = read("current_clocksource");
    let poor = finding(
        Grade::Poor,
        "clock",
        format!(
            "the kernel's clock is `{}`: stamps are a call of the vDSO or of the kernel, which \
             slows programs that allocate a lot",
            current.trim()
        ),
    );
    if read("available_clocksource")
        .split(' ')
        .any(|name| name.trim() == "tsc")
    {
        return poor.mended_by(format!(
            "`echo tsc | sudo tee {SOURCE}/current_clocksource`, if it is stable here"
        ));
    }
    poor
}

fn resource_limits() -> Finding {
    /// As many as a collector was seen to need, and some.
    const FILES: u64 = 32;
    if let Err(error) = limits::check() {
        return of_error("limits", &error);
    }
    let files = getrlimit(Resource::Nofile).maximum;
    if let Some(files) = files
        && files < FILES
    {
        return finding(
            Grade::Stops(Stops::Run),
            "limits",
            format!("only {files} files may be open"),
        )
        .mended_by("raise the limit, as with `ulimit -Hn 64`");
    }
    finding(
        Grade::Fine,
        "limits",
        format!(
            "address space, data and file size are not limited too tightly, and {} may be open",
            files.map_or("any number of files".into(), |files| counted(
                files, "file", "files"
            ))
        ),
    )
}

fn library() -> Finding {
    match preload::unpack() {
        Ok(path) => finding(
            Grade::Fine,
            "library",
            format!("the interposer is at `{}`", path.display()),
        ),
        Err(error) => of_error("library", &error),
    }
}

/// An error of `run`, found before it is run into.
fn of_error(name: &str, error: &CliError) -> Finding {
    let mut finding = finding(Grade::Stops(Stops::Run), name, error.to_string());
    finding.cause = error.source().map(plain);
    finding.mend = error.hint().map(|hint| hint.replace('\n', " "));
    finding
}

/// Whether we are in a container, and whose processes are to be seen.
fn place() -> Finding {
    let found = match (is_first("pid", FIRST_PIDS), container()) {
        (true, None) => "no container: all processes of the machine are seen".into(),
        (true, Some(kind)) => {
            format!("a container ({kind}) that sees all processes of the machine")
        }
        (false, Some(kind)) => {
            format!("a container ({kind}): its own processes are seen, and no others")
        }
        (false, None) => {
            "a pid namespace of its own: its own processes are seen, and no others".into()
        }
    };
    finding(Grade::Fine, "place", found)
}

/// The kernel's first namespaces have numbers that are always the same.
const FIRST_PIDS: u32 = 4_026_531_836;
const FIRST_USERS: u32 = 4_026_531_837;

/// Whether our namespace of this kind is the kernel's first one.
fn is_first(kind: &str, number: u32) -> bool {
    let link = fs::read_link(format!("/proc/self/ns/{kind}"));
    link.is_ok_and(|link| link == Path::new(&format!("{kind}:[{number}]")))
}

/// What says that this is a container.
fn container() -> Option<&'static str> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("Kubernetes");
    }
    if Path::new("/.dockerenv").exists() {
        return Some("docker");
    }
    if Path::new("/run/.containerenv").exists() {
        return Some("podman");
    }
    let first = File::open("/proc/1/cgroup").and_then(io::read_to_string);
    let groups = first.unwrap_or_default();
    [
        ("kubepods", "Kubernetes"),
        ("docker", "docker"),
        ("lxc", "LXC"),
    ]
    .into_iter()
    .find(|(word, _)| groups.contains(word))
    .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(release("4.9.0"), Some((4, 9)));
        assert_eq!(release("5.15"), Some((5, 15)));
        assert_eq!(release("x"), None);
        assert!(release("4.9").unwrap() < (4, 14));
    }

    #[test]
    fn an_error_of_run_becomes_a_finding() {
        let error = CliError::Limit {
            what: "data",
            option: "-d",
            allowed: 1 << 20,
            needed: 1 << 28,
        };
        let found = of_error("limits", &error);
        assert_eq!(found.grade, Grade::Stops(Stops::Run));
        assert!(
            found
                .found
                .starts_with("cannot record under a limit of 1.0 MiB on data")
        );
        assert!(found.mend.unwrap().contains("ulimit -d unlimited"));
    }

    #[test]
    fn what_stops_run_stops_attach() {
        let machine = |grade| Machine {
            findings: vec![finding(grade, "x", "y")],
            facts: String::new(),
        };
        let both = machine(Grade::Stops(Stops::Run));
        assert_eq!(both.stopping(Stops::Attach).count(), 1);
        let attach = machine(Grade::Stops(Stops::Attach));
        assert_eq!(attach.stopping(Stops::Run).count(), 0);
        assert_eq!(machine(Grade::Poor).not_fine().count(), 1);
    }
}
