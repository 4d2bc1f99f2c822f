//! A process as `/proc` shows it: its memory, mappings and threads.
//!
//! Nothing here stops it or changes what it does.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags};

/// A mapping of a process.
#[expect(clippy::struct_excessive_bools, reason = "as the kernel lists them")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    pub(crate) shared: bool,
    pub(crate) offset: u64,
    /// Of the mapped file, as `makedev` has it; 0 without one.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// As the kernel writes it; empty without a name.
    pub(crate) path: Vec<u8>,
}

impl Mapping {
    /// The last component of its path, without the kernel's ` (deleted)`.
    pub(crate) fn file_name(&self) -> &[u8] {
        let path = self.path.strip_suffix(b" (deleted)").unwrap_or(&self.path);
        path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
    }

    /// Reads a line of `/proc/PID/maps`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut rest = line;
        let mut word = || {
            let start = rest.iter().position(|&byte| byte != b' ')?;
            let end = rest[start..]
                .iter()
                .position(|&byte| byte == b' ')
                .map_or(rest.len(), |length| start + length);
            let word = &rest[start..end];
            rest = &rest[end..];
            std::str::from_utf8(word).ok()
        };
        let (start, end) = word()?.split_once('-')?;
        let rights = word()?.as_bytes();
        let offset = u64::from_str_radix(word()?, 16).ok()?;
        let (major, minor) = word()?.split_once(':')?;
        let inode = word()?.parse().ok()?;
        let path = rest.trim_ascii_start().to_vec();
        let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            readable: rights.first() == Some(&b'r'),
            writable: rights.get(1) == Some(&b'w'),
            executable: rights.get(2) == Some(&b'x'),
            shared: rights.get(3) == Some(&b's'),
            offset,
            device: rustix::fs::makedev(hex(major)?, hex(minor)?),
            inode,
            path,
        })
    }
}

/// Where a thread is, as the kernel tells it without a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It runs, or waits for a processor.
    Running,
    /// It sleeps in a system call.
    Blocked(Syscall),
    /// It sleeps in the kernel for another reason (a page fault).
    Elsewhere,
}

/// A system call that a thread is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syscall {
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 6],
    pub(crate) sp: u64,
    pub(crate) pc: u64,
}

impl Activity {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        if first == "running" {
            return Some(Self::Running);
        }
        let number = match first.parse::<i64>().ok()? {
            -1 => return Some(Self::Elsewhere),
            number => number as u64,
        };
        let mut next = || {
            let digits = words.next()?.strip_prefix("0x")?;
            u64::from_str_radix(digits, 16).ok()
        };
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = next()?;
        }
        Some(Self::Blocked(Syscall {
            number,
            arguments,
            sp: next()?,
            pc: next()?,
        }))
    }
}

/// What `/proc/PID/status` says of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`, `I`.
    pub(crate) state: char,
    pub(crate) tgid: i32,
    pub(crate) tracer: i32,
    pub(crate) has_shadow_stack: bool,
    /// Threads of the kernel have none, nor has who has ended.
    pub(crate) has_memory: bool,
    /// As newer kernels tell it.
    pub(crate) is_kernel_thread: Option<bool>,
}

impl Status {
    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key {
                "State" => status.state = value.chars().next().unwrap_or('?'),
                "Tgid" => status.tgid = value.parse().unwrap_or(0),
                "TracerPid" => status.tracer = value.parse().unwrap_or(0),
                "Kthread" => status.is_kernel_thread = Some(value == "1"),
                "VmSize" => status.has_memory = true,
                "x86_Thread_features" => {
                    status.has_shadow_stack = value.split(' ').any(|word| word == "shstk");
                }
                _ => {}
            }
        }
        status
    }
}

/// A process, and its memory.
///
/// The memory is that of the program it ran when this was opened: after an
/// exec it can no longer be read or written, instead of being another's.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    memory: File,
}

impl Process {
    /// Opens a process's memory.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        Ok(Self { pid, memory })
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// Fills `bytes` from its memory.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(bytes, address)
    }

    /// Reads `count` bytes of its memory.
    pub(crate) fn bytes(&self, address: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads a word of its memory.
    pub(crate) fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes to its memory, whatever the protection: the caller has looked
    /// that the mapping is writable and private.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, address)
    }

    /// Its mappings, by address.
    pub(crate) fn mappings(&self) -> io::Result<Vec<Mapping>> {
        let text = fs::read(self.file("maps"))?;
        Ok(text
            .split(|&byte| byte == b'\n')
            .filter_map(Mapping::parse)
            .collect())
    }

    /// Its threads, by number: the first began first as a rule.
    pub(crate) fn threads(&self) -> io::Result<Vec<i32>> {
        let mut threads: Vec<i32> = fs::read_dir(self.file("task"))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        threads.sort_unstable();
        Ok(threads)
    }

    /// What a thread is at.
    pub(crate) fn activity(&self, tid: i32) -> io::Result<Activity> {
        let text = fs::read_to_string(self.file(&format!("task/{tid}/syscall")))?;
        Activity::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a system call's line"))
    }

    /// What kind of file a descriptor is, as the kernel names it.
    pub(crate) fn descriptor(&self, tid: i32, number: u64) -> io::Result<PathBuf> {
        fs::read_link(self.file(&format!("task/{tid}/fd/{number}")))
    }

    /// Its descriptor of the file whose link reads so.
    pub(crate) fn descriptor_of(&self, link: &[u8]) -> Option<u32> {
        let entries = fs::read_dir(self.file("fd")).ok()?;
        entries.flatten().find_map(|entry| {
            let found = fs::read_link(entry.path()).ok()?;
            let is_it = found.as_os_str().as_bytes() == link;
            entry.file_name().to_str()?.parse().ok().filter(|_| is_it)
        })
    }

    /// Writes to a file in its memory, behind one of its descriptors, whose link reads so;
    /// gives its device and inode.
    ///
    /// What the descriptor leads to is up to the process: where we may write to more than
    /// it may, another file must not get the bytes.
    pub(crate) fn fill(
        &self,
        descriptor: u32,
        link: &[u8],
        bytes: &[u8],
    ) -> io::Result<(u64, u64)> {
        let opened = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        };
        let found = opened(&self.file(&format!("fd/{descriptor}")), OFlags::PATH)?;
        let again = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        let stat = rustix::fs::fstat(&found)?;
        // All files in memory are of one device, and of no other kind is any.
        let ours = rustix::fs::memfd_create("leakline", MemfdFlags::CLOEXEC)?;
        let is_memory = stat.st_dev == rustix::fs::fstat(&ours)?.st_dev;
        if !is_memory || fs::read_link(&again)?.as_os_str().as_bytes() != link {
            return Err(io::Error::other("the process exchanged the library's file"));
        }
        File::from(opened(&again, OFlags::WRONLY)?).write_all_at(bytes, 0)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The file that it opens by this path: device and inode.
    pub(crate) fn identity(&self, path: &std::ffi::CStr) -> Option<(u64, u64)> {
        let mut inside = self.file("root").into_os_string();
        inside.push(std::ffi::OsStr::from_bytes(path.to_bytes()));
        let found = rustix::fs::stat(PathBuf::from(inside)).ok()?;
        Some((found.st_dev, found.st_ino))
    }
}

/// What `/proc` says of a process, also of one whose memory may not be opened.
pub(crate) fn status(pid: i32) -> io::Result<Status> {
    fs::read_to_string(format!("/proc/{pid}/status")).map(|text| Status::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_in_memory_is_filled() {
        let process = Process::open(std::process::id().cast_signed()).unwrap();
        let link = b"/memfd:a/b (deleted)";
        let memory = rustix::fs::memfd_create("a/b", MemfdFlags::CLOEXEC).unwrap();
        let number = process.descriptor_of(link).unwrap();
        assert_eq!(number, memory.as_raw_fd().cast_unsigned());
        process.fill(number, link, b"text").unwrap();
        assert!(
            process
                .fill(number, b"/memfd:other (deleted)", b"")
                .is_err()
        );
        // One of the same name that is none.
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("memfd:a");
        fs::create_dir(&path).unwrap();
        let disguised = File::create(path.join("b (deleted)")).unwrap();
        let number = disguised.as_raw_fd().cast_unsigned();
        let link = process.descriptor(process.pid, number.into()).unwrap();
        let link = link.as_os_str().as_bytes();
        assert!(process.fill(number, link, b"text").is_err());
        assert_eq!(disguised.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_mapping_with_blanks_in_its_name() {
        let line = b"7f00-8f00 rw-p 00001000 fd:01 42    /opt/a b/lib c.so (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset),
            (0x7f00, 0x8f00, 0x1000)
        );
        assert!(mapping.readable && mapping.writable && !mapping.executable && !mapping.shared);
        assert_eq!(
            (mapping.device, mapping.inode),
            (rustix::fs::makedev(0xfd, 1), 42)
        );
        assert_eq!(mapping.file_name(), b"lib c.so");
    }

    #[test]
    fn a_mapping_without_a_name() {
        let mapping = Mapping::parse(b"10-20 ---p 00000000 00:00 0 ").unwrap();
        assert!(mapping.path.is_empty() && !mapping.readable);
    }

    #[test]
    fn what_a_thread_is_at() {
        assert_eq!(Activity::parse("running\n"), Some(Activity::Running));
        assert_eq!(Activity::parse("-1 0x10 0x20\n"), Some(Activity::Elsewhere));
        let blocked = Activity::parse("7 0x1 0x2 0x3 0x4 0x5 0x6 0x7ff0 0x401000\n");
        let syscall = Syscall {
            number: 7,
            arguments: [1, 2, 3, 4, 5, 6],
            sp: 0x7ff0,
            pc: 0x40_1000,
        };
        assert_eq!(blocked, Some(Activity::Blocked(syscall)));
        assert_eq!(Activity::parse("7 0x1"), None);
    }

    #[test]
    fn our_own_status_and_memory() {
        let pid = std::process::id() as i32;
        let status = status(pid).unwrap();
        assert_eq!(status.tgid, pid);
        assert!(
            "RS".contains(status.state) && status.has_memory,
            "{status:?}"
        );
        let process = Process::open(pid).unwrap();
        let word = 0x0123_4567_89ab_cdef_u64;
        let address = std::ptr::from_ref(&word) as u64;
        assert_eq!(process.word(address).unwrap(), word);
        let mappings = process.mappings().unwrap();
        assert!(
            mappings
                .iter()
                .any(|map| map.start <= address && address < map.end)
        );
        assert!(process.word(8).is_err());
    }
}
