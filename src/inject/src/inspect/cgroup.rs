//! The control group of a process: how much memory it may still take, and
//! whether it runs at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::procfs;

/// A limit on the memory of a control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The limit.
    pub limit_bytes: u64,
    /// What its processes hold, without files that the kernel can drop.
    pub used_bytes: u64,
}

impl MemoryLimit {
    /// What is left.
    pub fn headroom_bytes(self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// Where control groups are mounted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The part of the hierarchy that is seen there.
    root: PathBuf,
    place: PathBuf,
    /// Empty for version 2.
    controllers: Vec<String>,
    is_unified: bool,
}

impl Mounts {
    pub(super) fn here() -> Mounts {
        Mounts::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &str) -> Mounts {
        let mount = |line: &str| {
            let (before, after) = line.split_once(" - ")?;
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let kind = *after.first()?;
            if !matches!(kind, "cgroup" | "cgroup2") {
                return None;
            }
            let options = after.get(2).copied().unwrap_or_default();
            Some(Mount {
                root: before.get(3)?.into(),
                place: before.get(4)?.into(),
                controllers: options.split(',').map(Into::into).collect(),
                is_unified: kind == "cgroup2",
            })
        };
        Mounts(mountinfo.lines().filter_map(mount).collect())
    }
}

/// The groups of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Directories of the memory controller, innermost first.
    memory: Vec<PathBuf>,
    memory_is_unified: bool,
    freezer: Option<PathBuf>,
    unified: Option<PathBuf>,
}

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: i64 = 0x6367_7270;

impl Group {
    pub(super) fn of(pid: u32, mounts: &Mounts) -> Group {
        let text = procfs::read(pid, "cgroup").unwrap_or_default();
        let mut group = Group::parse(&String::from_utf8_lossy(&text), mounts);
        if group.memory.is_empty() {
            // Beside ours in the hierarchy, so out of our sight, but not of
            // its own.
            let own = PathBuf::from(format!("/proc/{pid}/root/sys/fs/cgroup"));
            // There it may have put what it likes, a pipe that never answers, too.
            let is_kernels = rustix::fs::statfs(&own).is_ok_and(|of| of.f_type == CGROUP2);
            if is_kernels && own.join("memory.max").is_file() {
                group.memory = vec![own];
                group.memory_is_unified = true;
            }
        }
        group
    }

    fn parse(text: &str, mounts: &Mounts) -> Group {
        let mut group = Group::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let has = |name: &str| controllers.split(',').any(|one| one == name);
            let directories = |controller: Option<&str>| {
                let mount = mounts.0.iter().find(|mount| match controller {
                    None => mount.is_unified,
                    Some(name) => mount.controllers.iter().any(|one| one == name),
                });
                mount.map_or(Vec::new(), |mount| mount.directories(Path::new(path)))
            };
            if has("memory") {
                group.memory = directories(Some("memory"));
                group.memory_is_unified = false;
            } else if has("freezer") {
                group.freezer = directories(Some("freezer")).into_iter().next();
            } else if controllers.is_empty() {
                let directories = directories(None);
                group.unified = directories.first().cloned();
                if group.memory.is_empty() {
                    group.memory = directories;
                    group.memory_is_unified = true;
                }
            }
        }
        group
    }

    /// Of its limits, which all hold, the one that is nearest.
    pub(super) fn memory_limit(&self) -> Option<MemoryLimit> {
        self.memory
            .iter()
            .filter_map(|directory| limit(directory, self.memory_is_unified))
            .min_by_key(|limit| limit.headroom_bytes())
    }

    /// Nothing in it runs.
    pub(super) fn is_frozen(&self) -> bool {
        let unified = self.unified.as_ref().is_some_and(|directory| {
            fs::read_to_string(directory.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
        });
        let old = self.freezer.as_ref().is_some_and(|directory| {
            fs::read_to_string(directory.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN")
        });
        unified || old
    }
}

impl Mount {
    /// The directory of a group, and those above it.
    fn directories(&self, group: &Path) -> Vec<PathBuf> {
        let is_beside = group.components().any(|part| part.as_os_str() == "..");
        let within = match group.strip_prefix(&self.root) {
            Ok(within) if !is_beside => within,
            _ => return Vec::new(),
        };
        within
            .ancestors()
            .map(|within| self.place.join(within))
            .collect()
    }
}

fn limit(directory: &Path, is_unified: bool) -> Option<MemoryLimit> {
    /// Version 1 says so where there is no limit.
    const UNLIMITED: u64 = 1 << 60;
    let [limit, high, used, reclaimable] = if is_unified {
        [
            "memory.max",
            "memory.high",
            "memory.current",
            "inactive_file ",
        ]
    } else {
        [
            "memory.limit_in_bytes",
            // Its soft limit is one only where the whole machine is short of memory.
            "",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ]
    };
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        text.trim().parse().ok()
    };
    // `max` is no number. Above `high` nobody is killed, but all are slow.
    let limits = [number(limit), number(high)];
    let limits = limits.into_iter().flatten();
    let limit_bytes = limits.filter(|limit| *limit < UNLIMITED).min()?;
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let reclaimable: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix(reclaimable)?.parse().ok())
        .unwrap_or(0);
    Some(MemoryLimit {
        limit_bytes,
        used_bytes: number(used)?.saturating_sub(reclaimable),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
30 25 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 25 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
32 25 0:28 /docker/ab /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
33 25 0:29 / /tmp rw - tmpfs tmpfs rw,size=1k";

    #[test]
    fn a_group_and_those_above_it_are_found() {
        let mounts = Mounts::parse(MOUNTINFO);
        let text = "4:memory:/a/b\n3:freezer:/docker/ab/c\n0::/x\n";
        let group = Group::parse(text, &mounts);
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            group.memory,
            paths(&[
                "/sys/fs/cgroup/memory/a/b",
                "/sys/fs/cgroup/memory/a",
                "/sys/fs/cgroup/memory/"
            ])
        );
        assert!(!group.memory_is_unified);
        assert_eq!(group.freezer, Some("/sys/fs/cgroup/freezer/c".into()));
        assert_eq!(group.unified, Some("/sys/fs/cgroup/unified/x".into()));

        let only = Mounts::parse("31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert!(Group::parse("0::/a", &only).memory_is_unified);
        // A group beside ours cannot be reached from here.
        assert!(Group::parse("0::/../a", &only).memory.is_empty());
    }

    #[test]
    fn the_nearest_limit_counts() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let write = |directory: &Path, max: &str, current: &str| {
            fs::write(directory.join("memory.max"), max).unwrap();
            fs::write(directory.join("memory.current"), current).unwrap();
            fs::write(directory.join("memory.stat"), "anon 5\ninactive_file 100\n").unwrap();
        };
        write(place.path(), "1000\n", "950\n");
        write(&inner, "max\n", "500\n");
        let group = Group {
            memory: vec![inner.clone(), place.path().into()],
            memory_is_unified: true,
            unified: Some(inner.clone()),
            ..Group::default()
        };
        let limit = group.memory_limit().unwrap();
        assert_eq!((limit.limit_bytes, limit.used_bytes), (1000, 850));
        assert_eq!(limit.headroom_bytes(), 150);
        write(&inner, "600\n", "590\n");
        assert_eq!(group.memory_limit().unwrap().headroom_bytes(), 110);
        fs::write(place.path().join("memory.high"), "900\n").unwrap();
        let limit = group.memory_limit().unwrap();
        assert_eq!((limit.limit_bytes, limit.headroom_bytes()), (900, 50));

        assert!(!group.is_frozen());
        fs::write(inner.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert!(group.is_frozen());
    }
}
