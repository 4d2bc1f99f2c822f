//! The memory of a forked child, as `/proc` shows it.
//!
//! The child waits until what is mapped is known, so that what it maps itself later is
//! not taken for its parent's; and it does not end before its memory was read.
//!
//! * `/proc/PID/mem`, never `process_vm_readv`, which has pages copied that are shared.
//! * Only pages are read that are there: looking at others would bring them in.
//! * What the child says (where its stack begins, what is leakline's) is only ever
//!   compared with addresses, or read by the kernel's leave: nonsense costs the answer.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use leakline_wire::layout::{OWN_MAPPINGS, OwnMemory};
use leakline_wire::{Domain, mapped};

use super::{Found, Layout, Memory, Node, NodeKind, PAGE, Range, merge, subtract};
use crate::live::Layer;
use crate::maps::Mappings;
use crate::process::Identity;
use crate::weights::Weights;

/// Most that is read of memory that processes share: 1 GiB.
const MOST_SHARED: u64 = 1 << 30;

/// What is to be looked at.
#[derive(Debug)]
pub(crate) struct Order {
    /// The child.
    pub(crate) child: Identity,
    /// The process that it is a copy of.
    pub(crate) parent: u32,
    /// What the child says of its stack and of memory that is leakline's.
    pub(crate) stack: u64,
    pub(crate) own: u64,
    /// Threads beside its own that it knows to have been in the process.
    pub(crate) threads: u32,
    /// What lived in the process.
    pub(crate) live: Option<Arc<Layer>>,
    pub(crate) mappings: Mappings,
    /// Of each site.
    pub(crate) domains: Vec<u8>,
    /// These are all blocks that there are.
    pub(crate) knows_all: bool,
}

/// Looks at a child, and calls `go_on` as soon as that may map more.
///
/// # Errors
///
/// Why there is no answer.
pub(crate) fn look(order: &Order, go_on: impl FnOnce()) -> Result<Found, String> {
    let pid = order.child.pid;
    let began = Instant::now();
    let cannot = |error: std::io::Error| {
        format!("its memory cannot be read ({error}): it takes the right to trace it")
    };
    let open = |what: &str| File::open(format!("/proc/{pid}/{what}")).map_err(cannot);
    let target = Target {
        memory: open("mem")?,
        began,
    };
    let pagemap = open("pagemap")?;
    let maps = Map::parse_all(&fs::read(format!("/proc/{pid}/maps")).map_err(cannot)?);
    let parent_pagemap = File::open(format!("/proc/{}/pagemap", order.parent)).ok();
    if !order.child.is_still_there() {
        return Err("its child has ended".into());
    }
    let own = own_memory(order, &target, &maps);
    let mut unread = 0;
    let layout = layout(&maps, &own, order.stack, &mut |map, what| match what {
        Pages::Private => runs(&pagemap, map, &mut unread),
        // A fork leaves it to the child to map such pages again.
        Pages::Shared => {
            if let Some(pagemap) = &parent_pagemap {
                runs(pagemap, map, &mut unread)
            } else {
                unread += map.end - map.start;
                Vec::new()
            }
        }
    });
    go_on();
    let threads = fs::read_dir(format!("/proc/{}/task", order.parent))
        .map_or(0, |tasks| (tasks.count() as u32).saturating_sub(1));
    let mut found = super::look(&target, &layout, nodes(order), order.knows_all)?;
    found.unread_bytes += unread;
    // Of a process that has ended since the child alone can tell.
    found.threads = threads.max(order.threads);
    found.took_ns = began.elapsed().as_nanos() as u64;
    // A child that was killed is not there any more, and nor is what it held.
    if !order.child.is_still_there() {
        return Err("its child was killed".into());
    }
    Ok(found)
}

fn nodes(order: &Order) -> Vec<Node> {
    const NATIVE: u8 = Domain::Native as u8;
    let mut nodes = Vec::new();
    if let Some(live) = &order.live {
        live.each(|start, block| {
            let domain = order.domains.get(block.site as usize);
            nodes.push(Node {
                start,
                bytes: Weights::size_of(&block),
                kind: match domain {
                    Some(&NATIVE) => NodeKind::Native,
                    _ => NodeKind::Python,
                },
            });
        });
    }
    nodes.extend(order.mappings.all().map(|(start, block)| Node {
        start,
        bytes: block.size,
        kind: NodeKind::Mapping,
    }));
    nodes
}

struct Target {
    memory: File,
    began: Instant,
}

impl Memory for Target {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        self.memory.read_exact_at(to, at).is_ok()
    }

    fn elapsed_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// Which pages of a mapping are to be read.
enum Pages {
    /// Those that are the process's own.
    Private,
    /// All that are there.
    Shared,
}

/// Pages of a mapping that are there and, in a private one, not a file's.
fn runs(pagemap: &File, map: &Map, unread: &mut u64) -> Vec<Range> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    const AT_ONCE: u64 = 1 << 15;
    let mut runs: Vec<Range> = Vec::new();
    let mut entries = vec![0; AT_ONCE as usize * 8];
    let mut at = map.start;
    while at < map.end {
        let count = ((map.end - at) / PAGE).min(AT_ONCE);
        let bytes = &mut entries[..count as usize * 8];
        if pagemap.read_exact_at(bytes, at / PAGE * 8).is_err() {
            *unread += map.end - at;
            break;
        }
        for (page, entry) in (0..).zip(bytes.chunks_exact(8)) {
            let entry = super::word_at(entry, 0);
            let start = at + page * PAGE;
            if entry & SWAPPED != 0 {
                *unread += PAGE;
            } else if entry & PRESENT != 0 && (map.is_shared || entry & OF_FILE == 0) {
                match runs.last_mut() {
                    Some(last) if last.1 == start => last.1 += PAGE,
                    _ => runs.push((start, start + PAGE)),
                }
            }
        }
        at += count * PAGE;
    }
    runs
}

/// What of the memory there is, and what it is.
fn layout(
    maps: &[Map],
    own: &[Range],
    stack: u64,
    pages: &mut impl FnMut(&Map, Pages) -> Vec<Range>,
) -> Layout {
    let mut resident = Vec::new();
    let mut not_roots = own.to_vec();
    let mut brk: Option<Range> = None;
    let mut shared_left = MOST_SHARED;
    for (at, map) in maps.iter().enumerate() {
        if !map.is_readable || map.is_devices() {
            continue;
        }
        if map.is_shared {
            let bytes = map.end - map.start;
            if map.is_shared_memory() && map.is_writable && bytes <= shared_left {
                shared_left -= bytes;
                resident.extend(pages(map, Pages::Shared));
            }
            continue;
        }
        resident.extend(pages(map, Pages::Private));
        if map.name == b"[heap]" {
            brk = Some(brk.map_or((map.start, map.end), |brk| (brk.0, map.end)));
        }
        if (map.start..map.end).contains(&stack) {
            // What lies below was used before, and is no more.
            let has_guard = at.checked_sub(1).is_some_and(|before| {
                let before = &maps[before];
                before.end == map.start && !before.is_readable && !before.is_writable
            });
            if has_guard || map.name == b"[stack]" {
                not_roots.push((map.start, stack));
            }
        }
    }
    let resident = merge(resident);
    Layout {
        roots: subtract(&resident, &merge(not_roots)),
        resident,
        brk,
    }
}

/// Memory that is leakline's.
fn own_memory(order: &Order, target: &Target, maps: &[Map]) -> Vec<Range> {
    let mut own = Vec::new();
    let word = |bytes: &[u8], at: usize| super::word_at(bytes, at);
    let mut table = vec![0; size_of::<OwnMemory>()];
    if order.own != 0 && target.read(order.own, &mut table) {
        let count = (word(&table, 0) as u32 as usize).min(OWN_MAPPINGS);
        own.extend((0..count).map(|at| {
            let (start, bytes) = (word(&table, 1 + 2 * at), word(&table, 2 + 2 * at));
            (start, start.saturating_add(bytes))
        }));
    }
    for map in maps {
        let name = map.name.strip_suffix(b" (deleted)").unwrap_or(&map.name);
        let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
        if name == b"[anon:leakline]" {
            own.push((map.start, map.end));
        } else if file.starts_with(mapped::INTERPOSER_PREFIX.as_bytes()) {
            own.push((map.start, map.end));
            if map.offset == 0 {
                // What is zero in its file has no name.
                own.push((map.start, map.start + module_bytes(target, map.start)));
            }
        }
    }
    // Ranges of a target's making: as large as they like, but no overflow.
    merge(own)
}

/// How far the ELF object reaches whose first page lies at `base`.
fn module_bytes(target: &Target, base: u64) -> u64 {
    const LOAD: u32 = 1;
    const HEADER: usize = 56;
    const MOST: u64 = 64 << 20;
    let mut page = [0; PAGE as usize];
    if !target.read(base, &mut page) || !page.starts_with(b"\x7fELF") {
        return 0;
    }
    let first = super::word_at(&page, 4) as usize;
    let count = u16::from_ne_bytes([page[56], page[57]]) as usize;
    (0..count)
        .filter_map(|at| {
            let header = page.get(first.checked_add(at * HEADER)?..)?.get(..HEADER)?;
            let word = |at| super::word_at(header, at);
            (word(0) as u32 == LOAD).then(|| word(2).saturating_add(word(5)))
        })
        .max()
        .map_or(0, |end| end.min(MOST).next_multiple_of(PAGE))
}

/// A mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Map {
    start: u64,
    end: u64,
    is_readable: bool,
    is_writable: bool,
    is_shared: bool,
    offset: u64,
    inode: u64,
    /// As the kernel writes it; empty without one.
    name: Vec<u8>,
}

impl Map {
    /// All mappings, by address.
    fn parse_all(text: &[u8]) -> Vec<Map> {
        let lines = text.split(|byte| *byte == b'\n');
        let mut maps: Vec<Map> = lines.filter_map(Map::parse).collect();
        maps.sort_by_key(|map| map.start);
        maps
    }

    fn parse(line: &[u8]) -> Option<Map> {
        let mut rest = line;
        let mut field = || {
            let end = rest.iter().position(|byte| *byte == b' ');
            let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
            rest = tail.trim_ascii_start();
            std::str::from_utf8(word).ok()
        };
        let (range, rights, offset, _, inode) = (field()?, field()?, field()?, field()?, field()?);
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let rights: [u8; 4] = rights.as_bytes().try_into().ok()?;
        (start < end && end < 1 << 56 && start.is_multiple_of(PAGE)).then_some(Map {
            start,
            end,
            is_readable: rights[0] == b'r',
            is_writable: rights[1] == b'w',
            is_shared: rights[3] == b's',
            offset: hexadecimal(offset)?,
            inode: inode.parse().ok()?,
            name: rest.to_vec(),
        })
    }

    /// The kernel's own, or a device's: reading may do something, or find no memory.
    fn is_devices(&self) -> bool {
        let is_kernels = self.name.starts_with(b"[v") || self.name.starts_with(b"anon_inode:");
        is_kernels || self.name.starts_with(b"/dev/") && !self.is_shared_memory()
    }

    /// Memory that processes share, and no file's. (Not the session's: what is told there
    /// are addresses of blocks.)
    fn is_shared_memory(&self) -> bool {
        const NAMES: [&[u8]; 5] = [
            b"/memfd:",
            b"/dev/zero",
            b"/SYSV",
            b"/dev/shm/",
            b"[anon_shmem:",
        ];
        let session = self.name.strip_prefix(b"/memfd:");
        if session.is_some_and(|name| name.starts_with(mapped::SESSION.as_bytes())) {
            return false;
        }
        self.inode == 0 || NAMES.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
1000-3000 r--p 00000000 fd:0a 131    /usr/bin/a b
3000-5000 rw-p 00002000 fd:0a 131    /usr/bin/a b
5000-9000 rw-p 00000000 00:00 0      [heap]
20000-21000 ---p 00000000 00:00 0
21000-30000 rw-p 00000000 00:00 0
40000-48000 rw-s 00000000 00:01 9    /memfd:leakline-session (deleted)
48000-4a000 rw-s 00000000 00:01 9    /dev/shm/x
4a000-4b000 rw-s 00000000 00:06 9    /dev/dri/card0
4b000-4c000 rw-p 00000000 00:00 0    [anon:leakline]
4c000-4e000 rw-s 00000000 fd:0a 7    /var/lib/data
70000-80000 rw-p 00000000 00:00 0    [stack]
90000-91000 r--p 00000000 00:00 0    [vvar]
nonsense
99-98 rw-p 0 0:0 0
";

    /// Every page is there.
    fn all(maps: &[Map], stack: u64) -> Layout {
        let own = [(0x4b000, 0x4c000)];
        layout(maps, &own, stack, &mut |map, _| vec![(map.start, map.end)])
    }

    #[test]
    fn roots_are_what_a_process_can_write_to() {
        let maps = Map::parse_all(MAPS);
        assert_eq!(maps.len(), 12);
        let found = all(&maps, 0x78000);
        assert_eq!(found.brk, Some((0x5000, 0x9000)));
        assert_eq!(
            found.roots,
            [
                (0x1000, 0x9000),
                (0x21000, 0x30000),
                (0x48000, 0x4a000),
                (0x78000, 0x80000),
            ]
        );
        // Of the thread that has its stack there.
        let found = all(&maps, 0x2a000);
        assert!(found.roots.contains(&(0x2a000, 0x30000)));
        assert!(found.roots.contains(&(0x70000, 0x80000)));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let maps = Map::parse_all(&fs::read("/proc/self/maps").unwrap());
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let value = Box::new(0x1234_u64);
        let at = std::ptr::from_ref(&*value) as u64;
        let map = maps.iter().find(|map| (map.start..map.end).contains(&at));
        let mut unread = 0;
        let runs = runs(&pagemap, map.unwrap(), &mut unread);
        assert!(runs.iter().any(|run| (run.0..run.1).contains(&at)));
        let target = Target {
            memory: File::open("/proc/self/mem").unwrap(),
            began: Instant::now(),
        };
        let mut bytes = [0; 8];
        assert!(target.read(at, &mut bytes));
        assert_eq!(u64::from_ne_bytes(bytes), *value);
        assert!(!target.read(4096, &mut bytes));
    }
}
