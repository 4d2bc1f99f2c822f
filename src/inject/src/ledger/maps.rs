//! `/proc/PID/smaps`: what is mapped, and how much of it is resident.
//!
//! The target chose the names: they are bytes until somebody shows them, and
//! nothing in them can stop the parser.

/// A mapping and its sums, in bytes.
#[expect(clippy::struct_excessive_bools, reason = "as the kernel lists them")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    pub(super) is_shared: bool,
    pub(super) offset: u64,
    pub(super) inode: u64,
    /// As the kernel writes it; empty without a name.
    pub(super) name: Vec<u8>,
    pub(super) rss: u64,
    /// Of it, what other processes have mapped, too.
    pub(super) shared: u64,
    /// Of it, what belongs to no file.
    pub(super) anonymous: u64,
    pub(super) swap: u64,
}

impl Map {
    /// All mappings of a process, by address.
    pub(super) fn parse_all(text: &[u8]) -> Vec<Map> {
        let mut maps: Vec<Map> = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(map) = Map::head(line) {
                maps.push(map);
            } else if let Some(map) = maps.last_mut() {
                map.figure(line);
            }
        }
        // The kernel lists them so; what follows relies on it.
        maps.sort_by_key(|map| map.start);
        maps.dedup_by_key(|map| map.start);
        maps
    }

    /// The line that a mapping begins with.
    fn head(line: &[u8]) -> Option<Map> {
        let mut rest = line;
        let mut word = || {
            let end = rest.iter().position(|byte| *byte == b' ');
            let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
            rest = tail.trim_ascii_start();
            std::str::from_utf8(word).ok()
        };
        let (range, rights, offset, _, inode) = (word()?, word()?, word()?, word()?, word()?);
        let (start, end) = range.split_once('-')?;
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
        let has = |at: usize, letter: u8| rights.as_bytes().get(at) == Some(&letter);
        (start < end && rights.len() == 4).then_some(())?;
        Some(Map {
            start,
            end,
            readable: has(0, b'r'),
            writable: has(1, b'w'),
            executable: has(2, b'x'),
            is_shared: has(3, b's'),
            offset: hexadecimal(offset)?,
            inode: inode.parse().ok()?,
            name: rest.to_vec(),
            ..Map::default()
        })
    }

    /// A line as `Rss:   12 kB`.
    fn figure(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else {
            return;
        };
        let Some((key, value)) = line.split_once(':') else {
            return;
        };
        let Some(kib) = value.trim().strip_suffix(" kB") else {
            return;
        };
        let bytes = kib.parse::<u64>().map_or(0, |kib| kib.saturating_mul(1024));
        match key {
            "Rss" => self.rss = bytes,
            "Shared_Clean" | "Shared_Dirty" => self.shared = self.shared.saturating_add(bytes),
            "Anonymous" => self.anonymous = bytes,
            "Swap" => self.swap = bytes,
            _ => {}
        }
    }

    /// Memory of its own: no file, nothing that others may write to.
    pub(super) fn is_private_memory(&self) -> bool {
        self.inode == 0 && !self.is_shared
    }

    /// The same, to be written to, and not the kernel's (`[vvar]`) nor a stack.
    pub(super) fn is_data(&self) -> bool {
        self.is_private_memory()
            && self.readable
            && self.writable
            && (!self.name.starts_with(b"[") || self.name.starts_with(b"[anon:"))
    }

    /// What the process, or its allocator, called memory that has no file.
    pub(super) fn given_name(&self) -> Option<&[u8]> {
        let name = self
            .name
            .strip_prefix(b"[anon:")
            .or_else(|| self.name.strip_prefix(b"[anon_shmem:"))?;
        Some(name.strip_suffix(b"]").unwrap_or(name))
    }

    /// The last part of its path.
    pub(super) fn file_name(&self) -> &[u8] {
        let path = self.path();
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
    }

    /// Its path without the kernel's ` (deleted)`.
    pub(super) fn path(&self) -> &[u8] {
        self.name.strip_suffix(b" (deleted)").unwrap_or(&self.name)
    }

    /// Memory that processes share, whatever it is called.
    pub(super) fn is_shared_memory(&self) -> bool {
        let unnamed = [
            &b"/memfd:"[..],
            b"/dev/zero",
            b"/SYSV",
            b"/dev/shm/",
            b"/anon_hugepage",
            b"[anon_shmem:",
        ];
        unnamed.iter().any(|prefix| self.name.starts_with(prefix))
            || (self.is_shared && self.inode == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &[u8] = b"\
55d0c000-55d0d000 r-xp 00001000 fd:0a 131                        /usr/bin/a b (deleted)
Size:                  4 kB
Rss:                   4 kB
Pss:                   1 kB
Shared_Clean:          4 kB
Shared_Dirty:          0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
7f0000-7f9000 rw-p 00000000 00:00 0
Rss:                  36 kB
Shared_Clean:          8 kB
Shared_Dirty:         12 kB
Anonymous:            36 kB
Swap:                 16 kB
nonsense
7fa000-7fb000 rw-s 00000000 00:01 77                             /dev/shm/x
7fb000-7fc000 rw-p 00000000 00:00 0                              [anon:jemalloc_pg]
";

    #[test]
    fn maps_and_their_sums_are_read() {
        let maps = Map::parse_all(SMAPS);
        assert_eq!(maps.len(), 4);
        // By address.
        assert_eq!((maps[0].start, maps[3].start), (0x7f_0000, 0x55d0_c000));
        let (heap, file) = (&maps[0], &maps[3]);
        assert_eq!((heap.rss, heap.shared), (36 << 10, 20 << 10));
        assert_eq!((heap.anonymous, heap.swap), (36 << 10, 16 << 10));
        assert!(heap.is_data() && !file.is_private_memory() && !heap.is_shared_memory());
        assert_eq!(file.path(), b"/usr/bin/a b");
        assert_eq!(file.file_name(), b"a b");
        assert!(file.executable && !file.writable && file.offset == 0x1000);
        assert!(maps[1].is_shared_memory() && maps[1].is_shared);
        assert_eq!(maps[2].given_name(), Some(&b"jemalloc_pg"[..]));
        assert!(maps[2].is_data());
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for text in [
            &b""[..],
            b"Rss: 4 kB",
            b"10-5 rw-p 0 00:00 0",
            b"x-y rw-p 0 0:0 0",
            b"10-20 rw-p 0 00:00",
            b"10-20 \xff\xfe\xfd\xfc 0 00:00 0",
        ] {
            assert_eq!(Map::parse_all(text), []);
        }
        let huge = b"10-20 rw-p 0 00:00 0\nRss: 99999999999999999999 kB\nShared_Dirty: 18446744073709551615 kB\nShared_Clean: 9 kB";
        assert_eq!(Map::parse_all(huge)[0].rss, 0);
        assert_eq!(Map::parse_all(huge)[0].shared, u64::MAX);
    }
}
