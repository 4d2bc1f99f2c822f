//! What the system says about a process.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Most bytes read of a process's command line.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Who a process is, read from `/proc` when it joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// In our pid namespace.
    pub(crate) pid: u32,
    /// Clock ticks since boot; 0 when it was gone already.
    pub(crate) start_ticks: u64,
    /// Its parent's pid.
    pub(crate) parent_pid: u32,
    /// Path of its executable.
    pub(crate) executable: Vec<u8>,
    /// Its command, as [`public_command`] leaves it.
    pub(crate) command: Vec<Vec<u8>>,
}

impl Identity {
    /// Reads what there is to read.
    pub(crate) fn read(pid: u32) -> Self {
        let (start_ticks, parent_pid) = stat(pid).unwrap_or_default();
        let executable = fs::read_link(format!("/proc/{pid}/exe"))
            .map(|path| path.into_os_string().into_vec())
            .unwrap_or_default();
        let mut line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.truncate(MAX_COMMAND_BYTES);
        let arguments: Vec<Vec<u8>> = line
            .strip_suffix(b"\0")
            .unwrap_or(&line)
            .split(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .collect();
        Identity {
            pid,
            start_ticks,
            parent_pid,
            executable,
            command: public_command(&arguments),
        }
    }

    /// Whether the process of that pid and start still is there. One that was
    /// gone when this was read is not.
    pub(crate) fn is_still_there(&self) -> bool {
        self.start_ticks != 0 && stat(self.pid).is_some_and(|(start, _)| start == self.start_ticks)
    }
}

/// Processor time that a process has taken.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    const SECOND_NS: u64 = 1_000_000_000;
    let text = stat_text(pid)?;
    let mut fields = stat_fields(&text)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_a_second = rustix::param::clock_ticks_per_second().max(1);
    Some(
        user.saturating_add(system)
            .saturating_mul(SECOND_NS / ticks_a_second),
    )
}

fn stat_text(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// From the state on.
fn stat_fields(text: &str) -> Option<impl Iterator<Item = &str>> {
    // The name, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace())
}

/// Start time and parent of a process.
fn stat(pid: u32) -> Option<(u64, u32)> {
    let text = stat_text(pid)?;
    let mut fields = stat_fields(&text)?;
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((start, parent))
}

/// Resident bytes of a process.
pub(crate) fn rss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Why a fork may be the end of a process, by what watches over it, if so. `known`: that
/// many seccomp filters are known to let it fork.
pub(crate) fn forbids_fork(pid: u32, known: u32) -> Option<&'static str> {
    let filters = |of: &str| -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{of}/status")).ok()?;
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u32>().ok()
        };
        // Kernels before 5.9 say only whether there are any.
        line("Seccomp_filters:").or_else(|| line("Seccomp:"))
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    if tracer.is_some_and(|tracer| tracer.trim() != "0") {
        return Some("a debugger or tracer is attached to it");
    }
    // A container's filter is ours, too, and lets programs fork.
    (filters(&pid.to_string())? > filters("self")?.max(known))
        .then_some("a seccomp filter of its own limits its system calls, perhaps forks")
}

/// What a process has open, as far as it may be seen.
pub(crate) fn open_files(pid: u32) -> impl Iterator<Item = String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    files.into_iter().flatten().flatten().filter_map(|file| {
        Some(
            fs::read_link(file.path())
                .ok()?
                .to_string_lossy()
                .into_owned(),
        )
    })
}

/// A descriptor that tells of the process's end; `None` when there is none to
/// be had (descriptors used up, a kernel before 5.3).
pub(crate) fn watch(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
}

/// The pid, in our namespace, of a forked child that calls itself `inside`
/// and has `parent` for a parent. `None`: there is no such process any more.
///
/// A child in a pid namespace of its own names itself by a pid that here is
/// somebody else's, or nobody's.
pub(crate) fn pid_of_child(inside: u32, parent: u32) -> Option<u32> {
    let is_it = |pid: &u32| innermost_pid(*pid) == Some(inside);
    let elsewhere = has_children_elsewhere(parent);
    // An orphan has another parent now.
    let is_close =
        |(_, found): (u64, u32)| found == parent || has_session_mapped(inside) != Some(false);
    if elsewhere != Some(true) && stat(inside).is_some_and(is_close) && is_it(&inside) {
        return Some(inside);
    }
    if elsewhere == Some(false) {
        return None;
    }
    let born = || {
        numbers_in(&format!("/proc/{parent}/task")).flat_map(move |task| {
            let path = format!("/proc/{parent}/task/{task}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            let pids = children
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
    };
    let is_recorded = |pid: &u32| is_it(pid) && has_session_mapped(*pid) == Some(true);
    born()
        .find(is_it)
        .or_else(|| numbers_in("/proc").find(is_recorded))
}

/// Whether children of a process have other pids than we see; `None` where that cannot be
/// told.
fn has_children_elsewhere(parent: u32) -> Option<bool> {
    let theirs = fs::read_link(format!("/proc/{parent}/ns/pid_for_children")).ok()?;
    Some(theirs != fs::read_link("/proc/self/ns/pid").ok()?)
}

/// The entries of a directory of `/proc` that are numbers.
fn numbers_in(path: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether a process maps a session's memory; `None` when it may not be
/// looked at.
fn has_session_mapped(pid: u32) -> Option<bool> {
    let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
    let name = format!("/memfd:{}", leakline_wire::mapped::SESSION);
    Some(
        maps.windows(name.len())
            .any(|window| window == name.as_bytes()),
    )
}

/// What a process calls itself, which may be in a pid namespace below ours.
fn innermost_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    pids.split_ascii_whitespace().next_back()?.parse().ok()
}

/// Options of interpreters that take the next argument as their value.
const WITH_VALUE: [&[u8]; 4] = [b"-W", b"-X", b"-Q", b"--check-hash-based-pycs"];

/// Cuts a command line after the program, script or module: what follows may
/// be anything, passwords included. Code given with `-c` or `-e` goes too.
///
/// ```
/// # use leakline_collector::public_command;
/// let given = ["python3", "-X", "dev", "-m", "http.server", "8000"];
/// let shown = public_command(&given.map(|word| word.as_bytes().to_vec()));
/// assert_eq!(shown, ["python3", "-m", "http.server"].map(|word| word.as_bytes().to_vec()));
/// ```
pub fn public_command(arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let Some(program) = arguments.first() else {
        return Vec::new();
    };
    let mut shown = vec![program.clone()];
    let name = program
        .rsplit(|byte| *byte == b'/')
        .next()
        .unwrap_or(program);
    let interpreters: [&[u8]; 10] = [
        b"python", b"pypy", b"sh", b"bash", b"dash", b"zsh", b"perl", b"ruby", b"node", b"env",
    ];
    let plain = name
        .iter()
        .rposition(|byte| !byte.is_ascii_digit() && *byte != b'.');
    let plain = &name[..plain.map_or(0, |at| at + 1)];
    if !interpreters.contains(&plain) {
        return shown;
    }
    let mut rest = arguments[1..].iter();
    while let Some(argument) = rest.next() {
        let flags = match argument.as_slice() {
            option if WITH_VALUE.contains(&option) => {
                rest.next();
                continue;
            }
            b"--" => continue,
            // `--eval CODE` and the like; others go on with `=`.
            [b'-', b'-', option @ ..] => {
                if [&b"eval"[..], b"print", b"command"]
                    .iter()
                    .any(|word| option.starts_with(word))
                {
                    break;
                }
                continue;
            }
            [b'-', flags @ ..] if !flags.is_empty() => flags,
            // `env NAME=VALUE` and the like are values.
            assignment if plain == b"env" && assignment.contains(&b'=') => continue,
            script => {
                shown.push(script.to_vec());
                break;
            }
        };
        // Flags may stand together (`-Im MODULE`, `-lc CODE`), and what they
        // take may stand right behind them.
        let Some(at) = flags.iter().position(|flag| b"cemp".contains(flag)) else {
            continue;
        };
        if plain.starts_with(b"py") && flags[at] == b'm' {
            shown.push(b"-m".to_vec());
            let attached = &flags[at + 1..];
            if attached.is_empty() {
                shown.extend(rest.next().cloned());
            } else {
                shown.push(attached.to_vec());
            }
        } else {
            shown.push(vec![b'-', flags[at]]);
        }
        break;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let words: Vec<Vec<u8>> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        let cut = public_command(&words).join(&b' ');
        String::from_utf8(cut).unwrap()
    }

    #[test]
    fn commands_keep_the_program_and_lose_the_values() {
        assert_eq!(
            shown("/usr/bin/curl -u me:secret https://x"),
            "/usr/bin/curl"
        );
        assert_eq!(
            shown("python3.12 -W error app.py --password hunter2"),
            "python3.12 app.py"
        );
        assert_eq!(
            shown("/opt/bin/python -Im pytest tests -k secret"),
            "/opt/bin/python -m pytest"
        );
        assert_eq!(
            shown("python -mhttp.server secret"),
            "python -m http.server"
        );
        assert_eq!(shown("python -c print('secret')"), "python -c");
        assert_eq!(shown("perl -ne'secret'"), "perl -e");
        assert_eq!(shown("bash -lc secret"), "bash -c");
        assert_eq!(shown("node --eval secret"), "node");
        assert_eq!(shown("/bin/sh ./run.sh secret"), "/bin/sh ./run.sh");
        assert_eq!(shown("bash -c mysql -psecret"), "bash -c");
        assert_eq!(shown("env TOKEN=secret server"), "env server");
    }

    #[test]
    fn this_process_is_known() {
        let own = Identity::read(std::process::id());
        assert!(own.start_ticks > 0);
        assert_eq!(own.parent_pid, std::os::unix::process::parent_id());
        assert_eq!(
            std::path::PathBuf::from(std::ffi::OsString::from_vec(own.executable.clone())),
            std::env::current_exe().unwrap()
        );
        assert!(rss_bytes(own.pid).unwrap() > 100_000);
        assert!(watch(own.pid).is_some());
        assert!(own.is_still_there());
        let later = Identity {
            start_ticks: own.start_ticks + 1,
            ..own.clone()
        };
        assert!(!later.is_still_there(), "another process of that pid");
        assert!(
            !Identity::default().is_still_there(),
            "gone when it was read"
        );
        assert_eq!(pid_of_child(own.pid, own.parent_pid), Some(own.pid));
        assert_eq!(pid_of_child(4_000_000, own.pid), None);
    }
}
