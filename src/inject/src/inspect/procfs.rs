//! The texts of `/proc` that tell what a process is.
//!
//! The target wrote some of them (its name, its command line, paths): they are
//! bytes until somebody shows them, and nothing in them can stop the parsers.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Largest text that is read: `maps` of a process of 65,530 mappings is some
/// 8 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a file of `/proc/PID`.
pub(super) fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut text = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/{name}"))?;
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// `/proc/PID/status`, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// The kernel's name of the main thread, at most 15 bytes.
    pub(super) name: String,
    /// One letter: `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    pub(super) state: u8,
    /// The process that the pid belongs to; another one than the pid for a
    /// thread.
    pub(super) thread_group: u32,
    pub(super) parent: u32,
    /// 0: nobody traces it.
    pub(super) tracer: u32,
    /// Real, effective, saved, of the file system.
    pub(super) users: [u32; 4],
    pub(super) groups: [u32; 4],
    pub(super) threads: u32,
    pub(super) rss_bytes: u64,
    /// Absent for what has no memory of its own: kernel threads, zombies.
    pub(super) has_memory: bool,
    /// Its pid in each pid namespace, ours first.
    pub(super) pids: Vec<u32>,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) no_new_privs: bool,
    /// 0 none, 1 strict, 2 filter.
    pub(super) seccomp: u32,
    pub(super) shadow_stack: bool,
}

impl Status {
    pub(super) fn parse(text: &[u8]) -> Status {
        let text = String::from_utf8_lossy(text);
        let mut status = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            let number = || value.parse().unwrap_or(0);
            let hexadecimal = || u64::from_str_radix(value, 16).unwrap_or(0);
            match key {
                "Name" => value.clone_into(&mut status.name),
                "State" => status.state = value.bytes().next().unwrap_or(b'?'),
                "Tgid" => status.thread_group = number(),
                "PPid" => status.parent = number(),
                "TracerPid" => status.tracer = number(),
                "Uid" => status.users = four(value),
                "Gid" => status.groups = four(value),
                "Threads" => status.threads = number(),
                "VmRSS" => {
                    let kib = value.split(' ').next().and_then(|kib| kib.parse().ok());
                    status.rss_bytes = kib.unwrap_or(0_u64) * 1024;
                    status.has_memory = true;
                }
                "NSpid" => status.pids = numbers(value).collect(),
                "CapPrm" => status.permitted = hexadecimal(),
                "CapEff" => status.effective = hexadecimal(),
                "NoNewPrivs" => status.no_new_privs = number() != 0,
                "Seccomp" => status.seccomp = number(),
                "x86_Thread_features" => {
                    status.shadow_stack = value.split(' ').any(|feature| feature == "shstk");
                }
                _ => {}
            }
        }
        status
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
}

fn four(text: &str) -> [u32; 4] {
    let mut four = [0; 4];
    for (place, number) in four.iter_mut().zip(numbers(text)) {
        *place = number;
    }
    four
}

/// `/proc/PID/stat`, as far as `status` does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    /// Clock ticks since boot.
    pub(super) start_ticks: u64,
    pub(super) is_kernel_thread: bool,
    pub(super) rss_pages: u64,
    pub(super) state: u8,
}

impl Stat {
    pub(super) fn parse(text: &[u8]) -> Option<Stat> {
        /// `PF_KTHREAD`.
        const KERNEL_THREAD: u64 = 0x0020_0000;
        // The name, in parentheses, may hold anything.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields are numbered from 1 in proc(5), and `rest` begins with the
        // third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            start_ticks: field(22)?,
            is_kernel_thread: field(9)? & KERNEL_THREAD != 0,
            rss_pages: field(24)?,
            state: fields.first()?.bytes().next()?,
        })
    }
}

/// A process's command line, cut into its arguments.
pub(super) fn arguments(mut line: Vec<u8>) -> Vec<Vec<u8>> {
    /// As much as the collector keeps.
    const MOST: usize = 64 * 1024;
    line.truncate(MOST);
    if line.is_empty() {
        return Vec::new();
    }
    line.strip_suffix(b"\0")
        .unwrap_or(&line)
        .split(|byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .collect()
}

/// A line of `/proc/PID/maps` that has a file behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) is_executable: bool,
    /// Device and inode.
    pub(super) file: FileId,
    pub(super) path: PathBuf,
    /// Nothing has this name any more.
    pub(super) is_deleted: bool,
}

/// What tells one file of this machine from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    major: u32,
    minor: u32,
    pub(super) inode: u64,
}

impl Mapping {
    /// All of them that have a file.
    pub(super) fn parse_all(text: &[u8]) -> Vec<Mapping> {
        text.split(|byte| *byte == b'\n')
            .filter_map(Mapping::parse)
            .collect()
    }

    fn parse(line: &[u8]) -> Option<Mapping> {
        let mut rest = line;
        let mut word = || {
            let end = rest.iter().position(|byte| *byte == b' ')?;
            let (word, tail) = rest.split_at(end);
            rest = tail.trim_ascii_start();
            std::str::from_utf8(word).ok()
        };
        let (range, rights, _, device, inode) = (word()?, word()?, word()?, word()?, word()?);
        let path = rest;
        if path.first() != Some(&b'/') {
            return None;
        }
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = range.split_once('-')?;
        let (major, minor) = device.split_once(':')?;
        let alive = path.strip_suffix(b" (deleted)");
        Some(Mapping {
            start: hexadecimal(start)?,
            end: hexadecimal(end)?,
            is_executable: rights.as_bytes().get(2) == Some(&b'x'),
            file: FileId {
                major: hexadecimal(major)? as u32,
                minor: hexadecimal(minor)? as u32,
                inode: inode.parse().ok()?,
            },
            path: unescaped(alive.unwrap_or(path)),
            is_deleted: alive.is_some(),
        })
    }

    /// The last part of its path.
    pub(super) fn base_name(&self) -> &[u8] {
        base_name(self.path.as_os_str().as_encoded_bytes())
    }

    /// The memory of a session.
    pub(super) fn is_session(&self) -> bool {
        let path = self.path.as_os_str().as_encoded_bytes();
        path.strip_prefix(b"/memfd:") == Some(leakline_wire::mapped::SESSION.as_bytes())
    }

    /// A file that never had a name.
    pub(super) fn is_memory(&self) -> bool {
        let path = self.path.as_os_str().as_encoded_bytes();
        [&b"/memfd:"[..], b"/dev/zero", b"/SYSV", b"/anon_hugepage"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
    }
}

pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The kernel writes a newline in a path as `\012`.
fn unescaped(path: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            bytes.push(b'\n');
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Name:\tgunicorn: work\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4121\nNgid:\t0
Pid:\t4121\nPPid:\t4100\nTracerPid:\t17\nUid:\t1000\t1001\t1002\t1003
Gid:\t100\t101\t102\t103\nNSpid:\t4121\t21\nVmRSS:\t  431411 kB\nThreads:\t9
CapPrm:\t00000000a80425fb\nCapEff:\t0000000000080000\nNoNewPrivs:\t1\nSeccomp:\t2
x86_Thread_features:\tshstk wrss \nx86_Thread_features_locked:\tshstk\n";

    #[test]
    fn a_status_is_read() {
        let status = Status::parse(STATUS.as_bytes());
        assert_eq!(status.name, "gunicorn: work");
        assert_eq!(status.state, b'S');
        assert_eq!((status.thread_group, status.parent), (4121, 4100));
        assert_eq!((status.tracer, status.threads), (17, 9));
        assert_eq!(status.users, [1000, 1001, 1002, 1003]);
        assert_eq!(status.groups, [100, 101, 102, 103]);
        assert_eq!(status.pids, [4121, 21]);
        assert_eq!(status.rss_bytes, 431_411 * 1024);
        assert_eq!(status.effective, 1 << 19);
        assert!(status.no_new_privs && status.shadow_stack && status.has_memory);
        assert_eq!(status.seccomp, 2);
    }

    #[test]
    fn what_a_status_does_not_say_is_not_made_up() {
        let status = Status::parse(b"Name:\tkthreadd\nState:\tZ (zombie)\nTgid:\tx\n\xff\xfe:\n");
        assert_eq!(status.thread_group, 0);
        assert!(!status.has_memory && !status.shadow_stack);
        assert_eq!(Status::parse(b""), Status::default());
    }

    #[test]
    fn a_stat_is_read_whatever_the_name_holds() {
        let text = "7 (a) R (b) S 1 7 7 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 987 0 55 184";
        let stat = Stat::parse(text.as_bytes()).unwrap();
        assert_eq!(stat.start_ticks, 987);
        assert_eq!((stat.rss_pages, stat.state), (55, b'S'));
        assert!(stat.is_kernel_thread);
        assert_eq!(Stat::parse(b"7 (short) S 1"), None);
        assert_eq!(Stat::parse(b"no parenthesis"), None);
    }

    #[test]
    fn arguments_are_cut_at_their_ends() {
        let cut = |line: &[u8]| arguments(line.to_vec());
        assert_eq!(
            cut(b"python\0-c\0\0x\0"),
            [&b"python"[..], b"-c", b"", b"x"]
        );
        assert_eq!(cut(b"title of its own"), [b"title of its own"]);
        assert!(cut(b"").is_empty());
    }

    #[test]
    fn mappings_with_a_file_are_read() {
        let text = b"\
55d0c0-55d0d0 r-xp 00001000 fd:0a 131 /usr/bin/a b\\012c (deleted)
7f0000-7f1000 rw-p 00000000 00:00 0 [heap]
7f1000-7f2000 rw-p 00000000 00:00 0
7f2000-7f3000 rw-s 00000000 00:01 2051 /memfd:leakline-session (deleted)
nonsense
7f4000-7f5000 r--p 00000000 08:01 77         /lib/libc.so.6\n";
        let all = Mapping::parse_all(text);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].path, PathBuf::from("/usr/bin/a b\nc"));
        assert!(all[0].is_deleted && all[0].is_executable && !all[0].is_memory());
        assert_eq!((all[0].start, all[0].end), (0x55_d0c0, 0x55_d0d0));
        let id = |major, minor, inode| FileId {
            major,
            minor,
            inode,
        };
        assert_eq!(all[0].file, id(0xfd, 10, 131));
        assert!(all[1].is_memory() && all[1].is_session() && !all[1].is_executable);
        assert_eq!(all[2].base_name(), b"libc.so.6");
        assert!(!all[2].is_deleted);
    }
}
