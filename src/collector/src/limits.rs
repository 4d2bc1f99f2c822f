//! What limits the memory of a process: its control group and those above it,
//! and its own resource limits.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use leakline_recording::record::{Limit, Limited};

/// Most groups of a process whose limits are told, the innermost first.
const MOST_GROUPS: usize = 8;

/// Reads limits; knows groups by number.
#[derive(Debug)]
pub(crate) struct LimitReader {
    mounts: Vec<Mount>,
    /// Device and inode of a group's directory.
    groups: BTreeMap<(u64, u64), u32>,
}

/// What was read of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its resident bytes.
    pub(crate) rss_bytes: u64,
    pub(crate) limits: Vec<Limit>,
}

/// Where control groups that limit memory are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The part of the hierarchy that is seen there.
    root: PathBuf,
    place: PathBuf,
    is_unified: bool,
}

/// A group with a limit, or whose processes are killed together.
struct GroupLimit {
    directory: PathBuf,
    /// Where somebody is killed.
    bytes: Option<u64>,
    /// Where all are slowed down until less is used.
    slow_bytes: Option<u64>,
    used_bytes: u64,
    /// Who is killed there for want of memory takes all others along, also where the
    /// limit is that of a group above.
    kills_all: bool,
}

/// What is left to a process of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headroom {
    pub(crate) bytes: u64,
    /// A child that is killed for want of it takes the process along.
    pub(crate) kills_all: bool,
}

impl LimitReader {
    /// For processes that see the control groups that we see, or are in others.
    pub(crate) fn new() -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        LimitReader {
            mounts: parse_mounts(&mountinfo),
            groups: BTreeMap::new(),
        }
    }

    /// All limits of a process.
    pub(crate) fn read(&mut self, pid: u32) -> Found {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let bytes = |name: &str| kibibytes(&status, name).unwrap_or(0);
        let mut found = Found {
            rss_bytes: bytes("VmRSS:"),
            limits: Vec::new(),
        };
        for group in self.group_limits(pid) {
            let (Some(bytes), Ok(facts)) = (group.bytes, fs::metadata(&group.directory)) else {
                continue;
            };
            let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            let number = self.groups.entry((facts.dev(), facts.ino()));
            found.limits.push(Limit {
                of: Limited::ControlGroup(*number.or_insert(next)),
                bytes,
                used_bytes: group.used_bytes,
            });
        }
        let own = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        for (name, of, used) in [
            ("Max address space", Limited::AddressSpace, "VmSize:"),
            ("Max data size", Limited::Data, "VmData:"),
        ] {
            if let Some(limit) = resource_limit(&own, name) {
                found.limits.push(Limit {
                    of,
                    bytes: limit,
                    used_bytes: bytes(used),
                });
            }
        }
        found
    }

    /// What the groups of a process still allow it.
    pub(crate) fn headroom(&self, pid: u32) -> Option<Headroom> {
        let groups = self.group_limits(pid);
        let nearest = |group: &GroupLimit| group.bytes.into_iter().chain(group.slow_bytes).min();
        let left = |group| nearest(group).map(|bytes| bytes.saturating_sub(group.used_bytes));
        Some(Headroom {
            bytes: groups.iter().filter_map(left).min()?,
            kills_all: groups.iter().any(|group| group.kills_all),
        })
    }

    /// Of the groups of a process those that matter, the innermost first.
    fn group_limits(&self, pid: u32) -> Vec<GroupLimit> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let (mut directories, is_unified) = directories(&text, &self.mounts);
        if directories.is_empty() {
            // Beside ours in the hierarchy, so out of our sight, but not of its own.
            let own = PathBuf::from(format!("/proc/{pid}/root/sys/fs/cgroup"));
            // There it may have put what it likes, a pipe that never answers, too.
            directories.extend(is_of_control_groups(&own).then_some(own));
        }
        let limits = directories
            .into_iter()
            .filter_map(|directory| group_limit(directory, is_unified));
        limits.take(MOST_GROUPS).collect()
    }
}

/// Whether what lies there is the kernel's.
fn is_of_control_groups(directory: &Path) -> bool {
    /// `linux/magic.h`: of version 2, of version 1.
    const MAGIC: [i64; 2] = [0x6367_7270, 0x0027_e0eb];
    rustix::fs::statfs(directory).is_ok_and(|of| MAGIC.contains(&of.f_type))
}

fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, place) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let is_unified = match after.next()? {
            "cgroup2" => true,
            "cgroup" if after.nth(1)?.split(',').any(|one| one == "memory") => false,
            _ => return None,
        };
        Some(Mount {
            root: root.into(),
            place: place.into(),
            is_unified,
        })
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// The directories of a process's group and of those above it, by the text of its
/// `cgroup` file, and whether they are of version 2.
fn directories(text: &str, mounts: &[Mount]) -> (Vec<PathBuf>, bool) {
    let path_of = |is_wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            is_wanted(controllers).then(|| parts.next()).flatten()
        })
    };
    // Where version 1 has the memory controller, version 2 has not.
    let old = path_of(&|controllers| controllers.split(',').any(|one| one == "memory"));
    let (path, is_unified) = match old {
        Some(path) => (Some(path), false),
        None => (path_of(&str::is_empty), true),
    };
    let found = path.and_then(|path| {
        let path = Path::new(path);
        if path.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        let mut fitting = mounts.iter().filter(|mount| mount.is_unified == is_unified);
        fitting.find_map(|mount| {
            let within = path.strip_prefix(&mount.root).ok()?;
            let all = within.ancestors().map(|within| mount.place.join(within));
            Some(all.collect())
        })
    });
    (found.unwrap_or_default(), is_unified)
}

fn group_limit(directory: PathBuf, is_unified: bool) -> Option<GroupLimit> {
    /// Version 1 says so where there is no limit.
    const UNLIMITED: u64 = 1 << 60;
    let [most, used, droppable] = if is_unified {
        ["memory.max", "memory.current", "inactive_file "]
    } else {
        [
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ]
    };
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        text.trim().parse().ok()
    };
    // `max` is no number.
    let limit = |name: &str| number(name).filter(|bytes| *bytes < UNLIMITED);
    let bytes = limit(most);
    let slow_bytes = is_unified.then(|| limit("memory.high")).flatten();
    // Version 1 has no such thing.
    let kills_all = is_unified && number("memory.oom.group") == Some(1);
    if bytes.or(slow_bytes).is_none() && !kills_all {
        return None;
    }
    let used = number(used)?;
    // Files that the kernel drops before anybody is killed.
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let mut lines = stat.lines();
    let droppable = lines.find_map(|line| line.strip_prefix(droppable)?.parse().ok());
    Some(GroupLimit {
        bytes,
        slow_bytes,
        used_bytes: used.saturating_sub(droppable.unwrap_or(0)),
        kills_all,
        directory,
    })
}

/// A figure of `status`, in bytes.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// The soft limit of that name, in bytes; `None` where there is none.
fn resource_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 25 0:29 / /tmp rw - tmpfs tmpfs rw,size=1k";

    #[test]
    fn a_directory_of_its_own_is_not_believed() {
        let fake = tempfile::tempdir().unwrap();
        fs::write(fake.path().join("memory.max"), "1").unwrap();
        assert!(!is_of_control_groups(fake.path()));
        assert!(!is_of_control_groups(Path::new("/nothing/here")));
    }

    #[test]
    fn a_group_and_those_above_it_are_found() {
        let mounts = parse_mounts(MOUNTINFO);
        assert_eq!(mounts.len(), 2);
        let of = |text: &str, mounts: &[Mount]| {
            let (found, is_unified) = directories(text, mounts);
            let names = found.iter().map(|path| path.display().to_string());
            (names.collect::<Vec<_>>().join(" "), is_unified)
        };
        assert_eq!(
            of("4:cpu,memory:/a/b\n0::/x\n", &mounts),
            (
                "/sys/fs/cgroup/memory/a/b /sys/fs/cgroup/memory/a /sys/fs/cgroup/memory/".into(),
                false
            )
        );
        // Within a container, whose own group is the root that it sees.
        let inside = parse_mounts("31 25 0:27 /pod/c /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(
            of("0::/pod/c/d\n", &inside),
            ("/sys/fs/cgroup/d /sys/fs/cgroup/".into(), true)
        );
        assert_eq!(of("0::/../e\n", &inside), (String::new(), true));
        assert_eq!(of("0::/pod/f\n", &inside), (String::new(), true));
    }

    #[test]
    fn all_limits_of_a_group_are_read() {
        let place = tempfile::tempdir().unwrap();
        let read = || group_limit(place.path().into(), true);
        let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
        assert!(read().is_none());
        write("memory.max", "max\n");
        write("memory.current", "950\n");
        assert!(read().is_none());
        write("memory.max", "1000\n");
        write("memory.stat", "anon 5\ninactive_file 100\n");
        let limit = read().unwrap();
        assert_eq!((limit.bytes, limit.used_bytes), (Some(1000), 850));
        assert!(!limit.kills_all);
        write("memory.high", "900\n");
        assert_eq!(read().unwrap().slow_bytes, Some(900));
        write("memory.max", "max\n");
        let limit = read().unwrap();
        assert_eq!((limit.bytes, limit.slow_bytes), (None, Some(900)));
        write("memory.oom.group", "1\n");
        assert!(read().unwrap().kills_all);
        write("memory.high", "max\n");
        assert!(read().unwrap().kills_all);
        write("memory.oom.group", "0\n");
        assert!(read().is_none());
    }

    #[test]
    fn resource_limits_are_read() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units
Max data size             unlimited            unlimited            bytes
Max address space         4294967296           unlimited            bytes
";
        assert_eq!(resource_limit(limits, "Max address space"), Some(1 << 32));
        assert_eq!(resource_limit(limits, "Max data size"), None);
        assert_eq!(
            kibibytes("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"),
            Some(12288)
        );
        let own = LimitReader::new().read(std::process::id());
        assert!(own.rss_bytes > 100_000);
    }
}
