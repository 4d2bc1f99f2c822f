//! Reading another process's memory, page by page, without bringing any in.
//!
//! By `/proc/PID/mem`, not `process_vm_readv`: that one pins what it reads, and
//! since Linux 5.19 a page that a forked process shares is copied for it. 120 MiB
//! of a worker's memory became its own by being looked at.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::pages::{PAGE, Pages};

/// Something that has bytes at addresses.
pub(super) trait Memory {
    /// Fills `bytes`, or says that it cannot.
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool;

    /// Reads `each` bytes at each of `addresses`, one after the other into
    /// `bytes`. Those that cannot be read are zeros.
    fn probe(&self, addresses: &[u64], each: usize, bytes: &mut [u8]) {
        for (address, part) in addresses.iter().zip(bytes.chunks_exact_mut(each)) {
            if !self.read(*address, part) {
                part.fill(0);
            }
        }
    }
}

/// The memory of a live process.
#[derive(Debug)]
pub(super) struct Remote(File);

impl Remote {
    /// Opens it: that of the program that it runs now, and of no other.
    pub(super) fn open(pid: u32) -> io::Result<Remote> {
        File::open(format!("/proc/{pid}/mem")).map(Remote)
    }
}

impl Memory for Remote {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.0.read_exact_at(bytes, address).is_ok()
    }
}

/// Bytes that are read at once.
const BLOCK: u64 = 64 << 10;
/// Blocks that are kept: what a list of free chunks wanders over.
const BLOCKS: usize = 256;

/// Reads resident memory, block by block, and keeps the last ones.
pub(super) struct Reader<'m> {
    memory: &'m dyn Memory,
    pages: &'m Pages,
    blocks: Vec<Option<Block>>,
}

struct Block {
    address: u64,
    /// A bit a page: it was there and was read.
    read: u16,
    bytes: Box<[u8]>,
}

impl<'m> Reader<'m> {
    pub(super) fn new(memory: &'m dyn Memory, pages: &'m Pages) -> Self {
        Reader {
            memory,
            pages,
            blocks: (0..BLOCKS).map(|_| None).collect(),
        }
    }

    pub(super) fn pages(&self) -> &'m Pages {
        self.pages
    }

    fn slot(address: u64) -> usize {
        (address / BLOCK) as usize % BLOCKS
    }

    /// A word; `None` where nothing is resident, and across pages.
    pub(super) fn word(&mut self, address: u64) -> Option<u64> {
        let base = address & !(BLOCK - 1);
        let slot = Self::slot(address);
        let at = (address - base) as usize;
        if self.blocks[slot]
            .as_ref()
            .is_none_or(|block| block.address != base)
        {
            self.load(base);
        }
        let block = self.blocks[slot].as_ref()?;
        if block.read >> (at as u64 / PAGE) & 1 == 0 {
            return None;
        }
        let bytes = block.bytes.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    /// A word, by itself: for places that are far apart.
    pub(super) fn once(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let is_read = self.pages.is_present(address) && self.memory.read(address, &mut bytes);
        is_read.then(|| u64::from_le_bytes(bytes))
    }

    /// The word of a structure that begins somewhere, at an offset in it.
    pub(super) fn field(&self, address: u64, offset: u64) -> Option<u64> {
        self.once(address.checked_add(offset)?)
    }

    pub(super) fn memory(&self) -> &'m dyn Memory {
        self.memory
    }

    /// Forgets what was read there: it has to be read again.
    pub(super) fn forget(&mut self, address: u64) {
        self.blocks[Self::slot(address)] = None;
    }

    /// Forgets all that was read.
    pub(super) fn forget_all(&mut self) {
        self.blocks.fill_with(|| None);
    }

    fn load(&mut self, base: u64) {
        let slot = Self::slot(base);
        let mut block = self.blocks[slot].take().unwrap_or_else(|| Block {
            address: base,
            read: 0,
            bytes: vec![0; BLOCK as usize].into(),
        });
        block.address = base;
        block.read = 0;
        let mut page = 0;
        while page < BLOCK / PAGE {
            let first = page;
            while page < BLOCK / PAGE && self.pages.is_present(base + page * PAGE) {
                page += 1;
            }
            // Where some went away meanwhile, one by one.
            if first < page && !self.fill(&mut block, first, page) {
                for page in first..page {
                    self.fill(&mut block, page, page + 1);
                }
            }
            page += 1;
        }
        self.blocks[slot] = Some(block);
    }

    /// Reads the pages `from..to` of a block.
    fn fill(&self, block: &mut Block, from: u64, to: u64) -> bool {
        let range = (from * PAGE) as usize..(to * PAGE) as usize;
        let address = block.address + from * PAGE;
        let is_read = self.memory.read(address, &mut block.bytes[range]);
        if is_read {
            for page in from..to {
                block.read |= 1 << page;
            }
        }
        is_read
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::maps::Map;
    use super::super::pages::tests::{all_of, data};
    use super::*;
    use std::cell::Cell;

    /// Memory made by hand.
    #[derive(Default)]
    pub(in super::super) struct Image {
        pub(in super::super) parts: Vec<(u64, Vec<u8>)>,
        pub(in super::super) reads: Cell<usize>,
    }

    impl Image {
        pub(in super::super) fn new(start: u64, length: usize) -> Image {
            Image::default().and(start, length)
        }

        /// With more memory elsewhere.
        pub(in super::super) fn and(mut self, start: u64, length: usize) -> Image {
            self.parts.push((start, vec![0; length]));
            self
        }

        pub(in super::super) fn set(&mut self, address: u64, word: u64) {
            self.put(address, &word.to_le_bytes());
        }

        pub(in super::super) fn put(&mut self, address: u64, bytes: &[u8]) {
            let (start, part) = self
                .parts
                .iter_mut()
                .find(|(start, part)| (*start..*start + part.len() as u64).contains(&address))
                .unwrap();
            let at = (address - *start) as usize;
            part[at..at + bytes.len()].copy_from_slice(bytes);
        }

        /// A mapping for each part of it.
        pub(in super::super) fn maps(&self) -> Vec<Map> {
            let parts = self.parts.iter();
            parts
                .map(|(start, part)| data(*start, *start + part.len() as u64))
                .collect()
        }

        /// All of it resident.
        pub(in super::super) fn pages(&self) -> Pages {
            all_of(&self.maps())
        }
    }

    impl Memory for Image {
        fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
            self.reads.set(self.reads.get() + 1);
            self.parts.iter().any(|(start, part)| {
                let from = address
                    .checked_sub(*start)
                    .and_then(|at| part.get(at as usize..at as usize + bytes.len()));
                from.is_some_and(|from| {
                    bytes.copy_from_slice(from);
                    true
                })
            })
        }
    }

    #[test]
    fn only_what_is_resident_is_read() {
        let mut image = Image::new(0x101_0000, 0x2_0000);
        image.set(0x101_0ff8, 7);
        image.set(0x101_1000, 8);
        let pages = Pages::of(&image.maps(), |first, entries| {
            for (at, entry) in (first..).zip(entries) {
                *entry = if at % 2 == 0 { 1 << 63 | 1 << 56 } else { 0 };
            }
            true
        });
        let mut reader = Reader::new(&image, &pages);
        assert_eq!(reader.word(0x101_0ff8), Some(7));
        assert_eq!(reader.word(0x101_1000), None);
        assert_eq!(reader.word(8), None);
        assert_eq!(reader.word(u64::MAX - 3), None);
        let reads = image.reads.get();
        assert_eq!(reads, 8);
        assert_eq!(reader.word(0x101_0ff0), Some(0));
        assert_eq!(image.reads.get(), reads);
        reader.forget(0x101_0ff0);
        assert_eq!(reader.word(0x101_0ff0), Some(0));
        assert!(image.reads.get() > reads);
    }

    #[test]
    fn our_own_memory_is_read_in_pieces() {
        let words = [3_u64, 4, 5];
        let at = words.as_ptr() as u64;
        let remote = Remote::open(std::process::id()).unwrap();
        let mut bytes = [0xff; 24];
        // The one in the middle is not there.
        remote.probe(&[at, 8, at + 16], 8, &mut bytes);
        let read: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(read, [3, 0, 5]);
        assert!(!remote.read(8, &mut [0; 8]));
    }
}
