//! The search of a process's memory for the addresses of objects that count more
//! references than the walk explains.
//!
//! The walk says which objects these are (C code has the rest of their references, or has
//! lost them), and which types there are. All writable private memory is read twice: for
//! words that are a type's address in the place where an object has it, with a count before
//! it, where no object is that the walk came to; and for the addresses of all of these. A
//! reference that somebody has lies somewhere as a word. More words than references prove
//! nothing (memory that was freed has old ones), fewer do.
//!
//! # Invariants
//!
//! * What is found is read, but never followed: what looks like an object may be none. No
//!   function of the program's is called for it.
//! * Only pages that are there are read: who has reserved a terabyte does not get it; and
//!   few that are swapped out.
//! * The walk's tables are not found (see [`Map`]).

use leakline_wire::graph::{status, suspect_flag};

use super::memory::{List, Map};
use super::walk::Walk;
use crate::sys::{self, OwnFiles};
use leakline_wire::cpython::{flag, of_type};

/// How long a search may take, beyond the walk.
const MOST_NS: u64 = 8_000_000_000;
const MOST_BY_CLOCK_NS: u64 = 24_000_000_000;
/// Most objects that are searched for.
const MOST_SUSPECTS: usize = 1 << 20;
/// A mapping that is larger is left out, as asking for its pages would take too long.
const MOST_MAPPED: u64 = 1 << 36;
const PAGE: u64 = 4096;
/// Most pages that are read though they are swapped out: 16 MiB. With more of them there is
/// no search, since memory is short, and what was not read might hold any reference.
const MOST_SWAPPED: u32 = 4096;
/// Who counts more is no object, or is never freed.
const MOST_REFERENCES: u64 = 1 << 28;
/// Pages that are asked for at once.
const BATCH: usize = 512;

/// Quickly says of most words that they are none of a set's.
struct Sieve {
    bits: List,
    mask: u64,
}

impl Sieve {
    /// For some `count` words. `None`: there is no memory.
    fn new(count: usize) -> Option<Self> {
        let bits = (count * 16).next_power_of_two().clamp(1 << 14, 1 << 24);
        let mut sieve = Sieve {
            bits: List::default(),
            mask: bits as u64 - 1,
        };
        for _ in 0..bits / 64 {
            if !sieve.bits.push(0) {
                return None;
            }
        }
        Some(sieve)
    }

    fn place(&self, word: u64) -> (usize, u64) {
        let bit = (word >> 4 ^ word >> 20) & self.mask;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn put(&mut self, word: u64) {
        let (at, bit) = self.place(word);
        if let Some(bits) = self.bits.words().get_mut(at) {
            *bits |= bit;
        }
    }

    #[inline(always)]
    fn may_have(&self, word: u64) -> bool {
        let (at, bit) = self.place(word);
        // SAFETY: the mask keeps it within the bits that were pushed.
        unsafe { self.bits.get_unchecked(at) & bit != 0 }
    }
}

/// Mappings: where each begins and ends, and whether new objects are looked for there.
#[derive(Default)]
struct Mappings {
    /// Three words each.
    list: List,
    left_out: u64,
}

impl Mappings {
    /// Those that are private and can be written to.
    fn read(fd: i32) -> Option<Self> {
        let mut found = Mappings::default();
        let mut buffer = [0_u8; 4096];
        let mut line = Line::default();
        loop {
            let read = sys::read(fd, &mut buffer)?;
            if read == 0 {
                return Some(found);
            }
            for &byte in &buffer[..read] {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                if let Some([from, to, is_heap]) = line.mapping() {
                    if to - from > MOST_MAPPED {
                        found.left_out = found.left_out.saturating_add(to - from);
                    } else if ![from, to, is_heap]
                        .into_iter()
                        .all(|word| found.list.push(word))
                    {
                        return None;
                    }
                }
                line.length = 0;
            }
        }
    }
}

/// A line of `/proc/self/maps`: as much of it as is of use.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            bytes: [0; 160],
            length: 0,
        }
    }
}

impl Line {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// Where it begins and ends, and whether it is memory of a heap.
    fn mapping(&self) -> Option<[u64; 3]> {
        let line = self.bytes.get(..self.length)?;
        let mut fields = line
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty());
        let range = fields.next()?;
        let may = fields.next()?;
        let (_offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?);
        let path = fields.next().unwrap_or(b"");
        let is_ours = may.starts_with(b"rw") && may.get(3) == Some(&b'p');
        if !is_ours || path.starts_with(b"[anon:leakline") {
            return None;
        }
        let middle = range.iter().position(|byte| *byte == b'-')?;
        let hex = |digits: &[u8]| {
            digits.iter().try_fold(0_u64, |value, digit| {
                let digit = (*digit as char).to_digit(16)?;
                Some(value << 4 | u64::from(digit))
            })
        };
        let (from, to) = (hex(&range[..middle])?, hex(&range[middle + 1..])?);
        let is_heap = inode == b"0" && !path.starts_with(b"[stack");
        (from < to).then_some([from, to, is_heap.into()])
    }
}

/// A search for suspects.
pub struct Search<'w, 'a, H: FnMut(&[u8]) -> bool> {
    walk: &'w mut Walk<'a, H>,
    files: OwnFiles,
    /// By suspect: how many words have its address.
    suspects: Map,
    /// Those that no walk came to, with all bits turned, and their types.
    unreached: List,
    mappings: Mappings,
    began: u64,
    /// Processor time that was had by then.
    spent: u64,
    bytes: u64,
    /// Pages that were swapped out and had to be read.
    swapped: u32,
    status: u64,
}

// SAFETY of what follows, throughout: see `walk`; and memory is read where the kernel
// says that it is there.
#[expect(clippy::undocumented_unsafe_blocks, reason = "see above")]
impl<'w, 'a, H: FnMut(&[u8]) -> bool> Search<'w, 'a, H> {
    /// Searches, and tells of it.
    ///
    /// # Safety
    ///
    /// To be called in a forked child, whose parent's thread held the GIL, after
    /// [`Walk::all`].
    pub unsafe fn run(walk: &'w mut Walk<'a, H>, files: OwnFiles) {
        let mut search = Search {
            walk,
            files,
            suspects: Map::default(),
            unreached: List::default(),
            mappings: Mappings::default(),
            began: sys::monotonic_ns(),
            spent: sys::spent_ns(),
            bytes: 0,
            swapped: 0,
            status: status::COMPLETE,
        };
        unsafe {
            if search.walk.status != status::COMPLETE {
                // Whom the walk has not seen may be anything.
                search.status = search.walk.status;
            } else if !search.all() && search.status == status::COMPLETE {
                search.status = status::OUT_OF_MEMORY;
            }
            search.end();
        }
    }

    /// False: it cannot be done, for want of memory where the status does not say why.
    unsafe fn all(&mut self) -> bool {
        unsafe {
            let collected = self.collect();
            if self.suspects.length >= MOST_SUSPECTS {
                self.status = status::TOO_MANY;
            }
            if !collected {
                return false;
            }
            self.walk.forget();
            let mappings = self.files.maps.and_then(Mappings::read);
            let (Some(mappings), true) = (mappings, self.files.pages.is_some()) else {
                self.status = status::UNREADABLE;
                return false;
            };
            self.mappings = mappings;
            self.find_objects() && self.count_words() && self.tell()
        }
    }

    /// Takes the objects of which not all references are explained.
    unsafe fn collect(&mut self) -> bool {
        unsafe {
            for list in self.walk.lists.into_iter().filter(|list| *list != 0) {
                let mut at = super::walk::linked(list);
                while at != list && at != 0 {
                    if !self.suspect(at + 16) {
                        return false;
                    }
                    at = super::walk::linked(at);
                }
            }
            for place in 0..self.walk.seen.room() {
                if let Some([object, _]) = self.walk.seen.at(place)
                    && !self.suspect(object)
                {
                    return false;
                }
            }
        }
        true
    }

    unsafe fn suspect(&mut self, object: u64) -> bool {
        unsafe {
            let (references, is_immortal) = self.walk.references(object);
            let explained = self.walk.counts.get(object);
            // Static ones count from high up (3.11), and are not for anybody to lose.
            let is_countable = !is_immortal && references < MOST_REFERENCES;
            if !is_countable || references <= u64::from(explained) {
                return true;
            }
            if self.suspects.length >= MOST_SUSPECTS {
                return true;
            }
            self.suspects.entry(object, 0).is_some()
        }
    }

    /// Goes through the memory that is there. `look` gets runs of it, and says whether to
    /// go on.
    unsafe fn each_run(
        &mut self,
        only_heap: bool,
        look: &mut dyn FnMut(&mut Self, u64, u64) -> bool,
    ) -> bool {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        let Some(fd) = self.files.pages else {
            return false;
        };
        let mut pages = [0_u64; BATCH];
        let mut at = 0;
        while let Some(&[from, to, is_heap]) = self.mappings.list.words().get(at..at + 3) {
            at += 3;
            if only_heap && is_heap == 0 {
                continue;
            }
            let mut page = from;
            while page < to {
                if sys::spent_ns().saturating_sub(self.spent) > MOST_NS
                    || sys::monotonic_ns().saturating_sub(self.began) > MOST_BY_CLOCK_NS
                {
                    self.status = status::OUT_OF_TIME;
                    return false;
                }
                let count = ((to - page) / PAGE).min(BATCH as u64) as usize;
                let Some(batch) = pages.get_mut(..count) else {
                    return false;
                };
                if sys::read_words_at(fd, batch, page / PAGE * 8) != Some(count) {
                    self.status = status::UNREADABLE;
                    return false;
                }
                let mut begin = None;
                for (i, what) in batch.iter().chain([&0]).enumerate() {
                    let here = page + i as u64 * PAGE;
                    // What is not present may be a guard page (of stacks, glibc 2.42).
                    let is_swapped = what & SWAPPED != 0;
                    if is_swapped {
                        self.swapped += 1;
                        if self.swapped > MOST_SWAPPED {
                            self.status = status::SWAPPED_OUT;
                            return false;
                        }
                    }
                    let is_there = what & PRESENT != 0 || is_swapped && sys::is_readable(here);
                    match (begin, is_there) {
                        (None, true) => begin = Some(here),
                        (Some(from), false) => {
                            begin = None;
                            if !look(self, from, here) {
                                return false;
                            }
                        }
                        _ => {}
                    }
                }
                page += count as u64 * PAGE;
            }
        }
        true
    }

    /// Looks for objects that no walk came to.
    unsafe fn find_objects(&mut self) -> bool {
        let types = &self.walk.types;
        let classes = &self.walk.classes;
        let Some(mut sieve) = Sieve::new(types.length + classes.length) else {
            return false;
        };
        for map in [types, classes] {
            for [type_, _] in (0..map.room()).filter_map(|place| map.at(place)) {
                sieve.put(type_);
            }
        }
        unsafe {
            self.each_run(true, &mut |search, from, to| {
                // Objects begin at multiples of 16, and their types are the second word.
                let mut at = from + 8;
                while at < to {
                    let type_ = sys::word(at);
                    if sieve.may_have(type_) && !search.look_at(at - 8, type_, from) {
                        return false;
                    }
                    at += 16;
                }
                true
            })
        }
    }

    /// Takes what may be an object. False: there is no memory.
    unsafe fn look_at(&mut self, object: u64, type_: u64, from: u64) -> bool {
        unsafe {
            let walk = &self.walk;
            let is_type = walk.types.get(type_).is_some() || walk.classes.get(type_).is_some();
            if !is_type {
                return true;
            }
            // Where it was freed, that is a link, or nothing.
            let count = sys::word(object);
            let count = if walk.python.minor >= 14 {
                // Its upper half are flags, and before them what it overflowed by.
                if count >> 32 & 0xffff != 0 {
                    0
                } else {
                    count & 0xffff_ffff
                }
            } else {
                count
            };
            let flags = sys::word(type_ + of_type::FLAGS);
            let is_sane = (1..MOST_REFERENCES).contains(&count);
            // Not all objects of such types are of the collector's: they may be static.
            if !is_sane || sys::word(type_ + of_type::IS_GC) != 0 || flags & flag::TYPE != 0 {
                return true;
            }
            if flags & flag::HAVE_GC != 0 && (object < from + 16 || sys::word(object - 16) != 0) {
                // In the lists: known, or not finished.
                return true;
            }
            if walk.seen.get(object).is_some() || self.suspects.length >= MOST_SUSPECTS {
                return true;
            }
            match self.suspects.entry(object, 0) {
                Some((_, true)) => self.unreached.push(!object) && self.unreached.push(!type_),
                Some((_, false)) => true,
                None => false,
            }
        }
    }

    /// Counts the words that are a suspect's address.
    unsafe fn count_words(&mut self) -> bool {
        let Some(mut sieve) = Sieve::new(self.suspects.length) else {
            return false;
        };
        for [object, _] in (0..self.suspects.room()).filter_map(|place| self.suspects.at(place)) {
            sieve.put(object);
        }
        unsafe {
            self.each_run(false, &mut |search, from, to| {
                search.bytes += to - from;
                let mut at = from;
                while at < to {
                    // The low bits of a pointer may be a tag.
                    let word = sys::word(at) & !7;
                    if sieve.may_have(word) {
                        search.suspects.add(word);
                    }
                    at += 8;
                }
                true
            })
        }
    }

    unsafe fn tell(&mut self) -> bool {
        let mut is_unreached = Map::default();
        let mut at = 0;
        while let Some(&[object, type_]) = self.unreached.words().get(at..at + 2) {
            at += 2;
            if is_unreached.entry(!object, !type_).is_none() {
                return false;
            }
        }
        for place in 0..self.suspects.room() {
            let Some([object, words]) = self.suspects.at(place) else {
                continue;
            };
            let unreached = is_unreached.get(object);
            unsafe {
                let type_ = unreached.unwrap_or_else(|| sys::word(object + 8));
                let Some(number) = self.walk.type_number(type_) else {
                    return false;
                };
                let (references, is_immortal) = self.walk.references(object);
                if is_immortal {
                    continue;
                }
                let flags = if unreached.is_some() {
                    suspect_flag::UNREACHED
                } else {
                    0
                };
                self.walk
                    .out
                    .suspect(object, number, references, words, flags);
            }
        }
        true
    }

    unsafe fn end(&mut self) {
        let collects = unsafe { self.walk.collects() };
        let took = sys::monotonic_ns().saturating_sub(self.began) / 1000;
        let (bytes, left_out) = (self.bytes, self.mappings.left_out);
        self.walk
            .out
            .searched(self.status, bytes, left_out, collects, took);
    }
}
