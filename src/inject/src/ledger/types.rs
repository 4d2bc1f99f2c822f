//! What lives in a Python process, by type, read from outside.
//!
//! Every block of CPython's pools, and every chunk of glibc's heaps, is looked at:
//! is it an object? It is if the word behind its count of references leads to a
//! type, whose type leads, by types of types, to the one that is its own (`type`),
//! and if what the type says of itself (collected for cycles, with a dict of its
//! own) fits to where in the block the object begins. No list of the interpreter's
//! is followed: nothing need stand still, and objects that the collector of cycles
//! does not know (`str`, `int`, `bytes`, arrays) are counted as well.
//!
//! An object has the bytes of its block, and those of the table that is its alone:
//! of a list, a dict, a set, a `bytearray`, an array of NumPy's, an instance's
//! attributes (3.11 and 3.12; later ones have them within).
//!
//! The process runs meanwhile, so counts are of about now. What is read is not
//! trusted: a block that does not look like an object is one of the rest.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use leakline_wire::cpython::{flag, of_type};

use super::Found;
use super::heap::{self, HandOn};
use super::maps::Map;
use super::memory::Reader;
use super::pages::PAGE;
use super::pymalloc::{self, Pool};
use crate::inspect::open_mapped;

/// What lives in a Python process, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// Those of which most bytes live come first.
    pub types: Vec<OfType>,
    /// Bytes of CPython's pools in use that are no object's by what is known: tables
    /// that several share, blocks of extension modules, and what is kept for later.
    pub rest_bytes: u64,
    /// Bytes of pools that were not read, since they are swapped out, say.
    pub unread_bytes: u64,
}

/// What lives of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfType {
    /// With its module, but for built-in ones: `app.cache.Session`, `dict`.
    pub name: String,
    /// How many live.
    pub objects: u64,
    /// Of their blocks, and of tables that are theirs alone.
    pub bytes: u64,
}

/// Words at the beginning of a block that may be an object's head: what the collector
/// of cycles has of it, and the two words of one with a dict of its own, come first.
const HEAD: usize = 6;
/// A block's first words, as far as they are looked at.
const LOOKED_AT: usize = HEAD + 8;
type Words = [u64; LOOKED_AT];

/// What CPython keeps of a thread has so many bytes; most blocks that are looked through
/// for it.
const LEAST_STATE: u64 = 200;
const MOST_STATE: u64 = 16 << 10;
/// Most tables that are left for later: where CPython has all of its memory from malloc.
const MOST_LATER: usize = 1 << 20;
const MOST_OTHERS: usize = 1 << 18;

/// A table that is an object's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owns {
    Nothing,
    List,
    /// And whether its values, if they have a table, are not within an instance.
    Dict(bool),
    Set,
    ByteArray,
    Array,
    /// Attributes of an instance, where the word of that number in its block leads.
    Values(usize),
    /// The same, where the lowest bit says that it has some.
    TaggedValues(usize),
}

impl Owns {
    /// Whether those of classes below it have it in the same place. That of lists and
    /// dicts is told by flags.
    fn is_inherited(self) -> bool {
        matches!(self, Owns::Set | Owns::ByteArray | Owns::Array)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    /// Of [`Types::counts`].
    number: usize,
    /// Of [`Types::facts`].
    pub(super) of: u32,
    /// Words of a block before the object.
    pub(super) before: usize,
    owns: Owns,
    /// Its objects are weak references.
    pub(super) is_weak: bool,
}

impl Type {
    /// Whether its objects are sets, or of classes below.
    pub(super) fn is_set(self) -> bool {
        self.owns == Owns::Set
    }
}

/// What is known of a type besides.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) address: u64,
    pub(super) flags: u64,
    pub(super) basic: u64,
    pub(super) name: Rc<str>,
    pub(super) type_: Type,
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    /// Where its count of references is.
    pub(super) at: u64,
    /// Its type, of [`Types::facts`].
    pub(super) of: u32,
    /// Bytes of its block; more than there is room for is as much as there is.
    pub(super) bytes: u32,
}

/// Counts objects by type.
pub(super) struct Types<'t> {
    pid: u32,
    minor: u8,
    maps: &'t [Map],
    files: HashMap<Vec<u8>, Option<File>>,
    /// By address.
    known: HashMap<u64, Type>,
    /// Addresses that look like one's and are none.
    none: HashSet<u64>,
    by_name: HashMap<String, usize>,
    counts: Vec<OfType>,
    /// `type`, once it is known.
    root: Option<u64>,
    /// Where tables are of objects that were met before the pools were known.
    later: Vec<(u64, usize)>,
    /// Bytes of pools that are objects' or tables of theirs.
    of_pools: u64,
    pub(super) facts: Vec<Facts>,
    /// All objects, where they are wanted.
    pub(super) objects: Option<Vec<Object>>,
    /// Blocks of malloc's that are none, and may have the state of a thread.
    pub(super) others: Vec<(u64, u64)>,
}

/// Where blocks are.
pub(super) struct Places<'p> {
    pools: &'p [Pool],
    /// glibc's heaps, and blocks that were mapped by themselves, by address.
    heaps: Vec<(u64, u64)>,
    mapped: &'p [(u64, u64)],
}

fn within(ranges: &[(u64, u64)], address: u64) -> Option<(u64, u64)> {
    let after = ranges.partition_point(|(from, _)| *from <= address);
    let range = *ranges.get(after.checked_sub(1)?)?;
    (address < range.1).then_some(range)
}

impl Places<'_> {
    /// The pool that an address lies in.
    fn pool(&self, address: u64) -> Option<&Pool> {
        let after = self.pools.partition_point(|pool| pool.start <= address);
        let pool = self.pools.get(after.checked_sub(1)?)?;
        (address < pool.end()).then_some(pool)
    }

    /// Bytes of the block that an address lies in or begins, and whether it is a
    /// pool's.
    pub(super) fn block(&self, reader: &Reader<'_>, address: u64) -> Option<(u64, bool)> {
        if let Some(pool) = self.pool(address) {
            return Some((pool.block, true));
        }
        let before = address.checked_sub(8).filter(|at| at % 16 == 8)?;
        let (_, end) = within(self.heaps.as_slice(), address).or_else(|| {
            // Where it begins tells that it is this block's.
            within(self.mapped, address).filter(|(from, _)| address.saturating_sub(*from) <= 128)
        })?;
        let size = reader.once(before)? & !7;
        let fits = size >= 32 && size <= (end - address).saturating_add(16);
        fits.then(|| (size - 8, false))
    }
}

impl<'t> Types<'t> {
    /// Of process `pid`, which runs CPython 3.`minor`.
    pub(super) fn new(pid: u32, minor: u8, maps: &'t [Map]) -> Self {
        Types {
            pid,
            minor,
            maps,
            files: HashMap::new(),
            known: HashMap::new(),
            none: HashSet::new(),
            by_name: HashMap::new(),
            counts: Vec::new(),
            root: None,
            later: Vec::new(),
            of_pools: 0,
            facts: Vec::new(),
            objects: None,
            others: Vec::new(),
        }
    }

    /// Notes each object, for a heap graph.
    pub(super) fn noting_objects(self) -> Self {
        Types {
            objects: Some(Vec::new()),
            ..self
        }
    }

    /// Whether the process's memory can still be read.
    pub(super) fn is_there(&self, reader: &Reader<'_>) -> bool {
        self.root
            .is_none_or(|root| reader.field(root, of_type::FLAGS).is_some())
    }

    /// The process's mappings.
    pub(super) fn maps(&self) -> &'t [Map] {
        self.maps
    }

    /// CPython 3 point this.
    pub(super) fn minor(&self) -> u8 {
        self.minor
    }

    /// Looks at a block of malloc's.
    pub(super) fn see(&mut self, reader: &mut Reader<'_>, at: u64, bytes: u64) {
        let mut words = [0; LOOKED_AT];
        for (word, at) in words.iter_mut().zip((at..at + bytes).step_by(8)) {
            let Some(read) = reader.word(at) else {
                break;
            };
            *word = read;
        }
        if let Some(found) = self.object(reader, &words) {
            self.count(found, at, bytes);
            if self.later.len() < MOST_LATER {
                let table = table(found, &words);
                self.later.extend(table.map(|table| (table, found.number)));
            }
        } else if self.objects.is_some()
            && (LEAST_STATE..MOST_STATE).contains(&bytes)
            && self.others.len() < MOST_OTHERS
        {
            self.others.push((at, at + bytes));
        }
    }

    /// Counts the object in a block.
    fn count(&mut self, found: Type, block: u64, bytes: u64) {
        let count = &mut self.counts[found.number];
        count.objects += 1;
        count.bytes += bytes;
        if let Some(objects) = &mut self.objects {
            objects.push(Object {
                at: block + found.before as u64 * 8,
                of: found.of,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            });
        }
    }

    /// The object in a block that begins with `words`, if it is one.
    fn object(&mut self, reader: &Reader<'_>, words: &Words) -> Option<Type> {
        // What the type says of itself decides where the count is, alive or not.
        (0..HEAD).step_by(2).find_map(|before| {
            let count = words[before];
            let is_alive = self.is_count(reader, count);
            if !is_alive && count != 0 {
                return None;
            }
            let found = self.known(reader, words[before + 1])?;
            (found.before == before).then_some(is_alive.then_some(found))
        })?
    }

    /// Whether a word may be an object's count of references.
    fn is_count(&self, reader: &Reader<'_>, word: u64) -> bool {
        /// Counts above it are rare, addresses in a program's own file are not.
        const MANY: u64 = 1 << 16;
        let count = word & 0xffff_ffff;
        // 3.14 has flags of the object in the highest bits.
        let rest = if self.minor >= 14 {
            word >> 32 & 0xffff
        } else {
            word >> 32
        };
        let is_address = word > MANY && reader.pages().is_present(word);
        count != 0 && rest == 0 && !is_address
    }

    pub(super) fn known(&mut self, reader: &Reader<'_>, at: u64) -> Option<Type> {
        self.known_below(reader, at, 0)
    }

    /// The type that begins at `at`; so many have it as their base.
    fn known_below(&mut self, reader: &Reader<'_>, at: u64, depth: u32) -> Option<Type> {
        /// Words that lead to no type, but to memory.
        const MOST: usize = 1 << 15;
        if !at.is_multiple_of(8) || !reader.pages().is_present(at) {
            return None;
        }
        if let Some(known) = self.known.get(&at) {
            return Some(*known);
        }
        if self.none.contains(&at) {
            return None;
        }
        let found = self.look_at(reader, at, depth);
        if let Some(found) = found {
            self.known.insert(at, found);
        } else {
            if self.none.len() >= MOST {
                self.none.clear();
            }
            self.none.insert(at);
        }
        found
    }

    fn look_at(&mut self, reader: &Reader<'_>, at: u64, depth: u32) -> Option<Type> {
        const LARGEST: u64 = 1 << 24;
        /// Bases of bases: what is not trusted shall not go on for ever.
        const DEEPEST: u32 = 32;
        /// Names that are told apart.
        const MOST_NAMES: usize = 1 << 16;
        let word = |from: u64| reader.field(at, from);
        let flags = word(of_type::FLAGS)?;
        let basic = word(of_type::BASIC_SIZE)?;
        let item = word(of_type::ITEM_SIZE)?;
        let fits = flags & flag::READY != 0 && (16..LARGEST).contains(&basic) && item < LARGEST;
        if !fits || !self.is_type(reader, at) {
            return None;
        }
        let base = reader.field(at, of_type::BASE)?;
        let base = (depth < DEEPEST)
            .then(|| self.known_below(reader, base, depth + 1))
            .flatten();
        let name = self.name(reader, at, flags);
        let name = name.unwrap_or_else(|| format!("a type at {at:#x}"));
        let has_more = flags & (flag::MANAGED_DICT | flag::MANAGED_WEAKREF) != 0;
        let has_more = has_more && self.minor >= 11;
        let before = 2 * (usize::from(flags & flag::HAVE_GC != 0) + usize::from(has_more));
        let owns = match name.as_str() {
            _ if flags & flag::LIST != 0 => Owns::List,
            _ if flags & flag::DICT != 0 => Owns::Dict(self.minor < 13),
            "set" | "frozenset" => Owns::Set,
            // Since 3.15 it has an object of `bytes`, which is one of its own.
            "bytearray" if self.minor < 15 => Owns::ByteArray,
            "numpy.ndarray" => Owns::Array,
            _ if base.is_some_and(|base| base.owns.is_inherited()) => {
                base.map_or(Owns::Nothing, |base| base.owns)
            }
            _ if flags & flag::MANAGED_DICT == 0 || before < 4 => Owns::Nothing,
            _ if self.minor == 11 => Owns::Values(0),
            _ if self.minor == 12 => Owns::TaggedValues(1),
            _ => Owns::Nothing,
        };
        let is_own = flags & flag::HEAP == 0 && name.starts_with("weak");
        let is_weak = is_own || base.is_some_and(|base| base.is_weak);
        let name = if self.counts.len() < MOST_NAMES {
            name
        } else {
            "more types".into()
        };
        let full_name = name.clone();
        let counts = &mut self.counts;
        let number = *self.by_name.entry(name).or_insert_with_key(|name| {
            counts.push(OfType {
                name: name.clone(),
                objects: 0,
                bytes: 0,
            });
            counts.len() - 1
        });
        let type_ = Type {
            number,
            of: self.facts.len() as u32,
            before,
            owns,
            is_weak,
        };
        self.facts.push(Facts {
            address: at,
            flags,
            basic,
            name: full_name.into(),
            type_,
        });
        Some(type_)
    }

    /// Whether types of types lead from `at` to `type`.
    fn is_type(&mut self, reader: &Reader<'_>, at: u64) -> bool {
        /// Classes of classes of classes ...
        const MOST: usize = 8;
        let mut at = at;
        for _ in 0..MOST {
            let Some(of) = reader.field(at, 8) else {
                return false;
            };
            let flags = reader.field(of, of_type::FLAGS);
            let needed = flag::READY | flag::TYPE;
            if flags.is_none_or(|flags| flags & needed != needed) {
                return false;
            }
            if of == at {
                return *self.root.get_or_insert(at) == at;
            }
            at = of;
        }
        false
    }

    /// `module.Class`; `Class` where it is built in.
    fn name(&mut self, reader: &Reader<'_>, at: u64, flags: u64) -> Option<String> {
        let name = self.text(reader, reader.field(at, of_type::NAME)?)?;
        if flags & flag::HEAP == 0 {
            return Some(name);
        }
        let module = reader
            .field(at, of_type::DICT)
            .and_then(|dict| self.entry(reader, dict, "__module__"))
            .filter(|module| module != "builtins");
        // What the interpreter makes itself often has it in its name already.
        Some(match module {
            Some(module) if !name.starts_with(&format!("{module}.")) => format!("{module}.{name}"),
            _ => name,
        })
    }

    /// The text that begins at `at` and ends with a zero. What belongs to a file that
    /// nobody writes to is read from there: its page need not be in memory.
    pub(super) fn text(&mut self, reader: &Reader<'_>, at: u64) -> Option<String> {
        const LONGEST: usize = 256;
        /// Files that are open at once.
        const MOST_FILES: usize = 32;
        let mut bytes = [0; LONGEST];
        let index = self.maps.partition_point(|map| map.end <= at);
        let map = self.maps.get(index).filter(|map| map.start <= at)?;
        let length = LONGEST.min((map.end - at) as usize);
        if reader.pages().is_present(at) {
            // Up to the page's end, if the next is not there.
            let rest = (PAGE - at % PAGE) as usize;
            let more = reader.pages().is_present(at + rest as u64);
            let length = if more { length } else { length.min(rest) };
            reader
                .memory()
                .read(at, &mut bytes[..length])
                .then_some(())?;
        } else {
            if map.inode == 0 || map.writable {
                return None;
            }
            if self.files.len() > MOST_FILES {
                self.files.clear();
            }
            let pid = self.pid;
            let path = map.path();
            let file = self.files.entry(path.to_vec()).or_insert_with(|| {
                let is_deleted = path.len() < map.name.len();
                let path = Path::new(std::ffi::OsStr::from_bytes(path));
                open_mapped(pid, (map.start, map.end), path, is_deleted)
            });
            let offset = map.offset + (at - map.start);
            file.as_ref()?.read_at(&mut bytes[..length], offset).ok()?;
        }
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let is_name = !text.is_empty() && !text.contains(char::is_control);
        is_name.then(|| text.to_owned())
    }

    /// What a dict of names has of that name, if it is a short text.
    pub(super) fn entry(&self, reader: &Reader<'_>, dict: u64, name: &str) -> Option<String> {
        const MOST: u64 = 4096;
        // Before 3.11 tables are laid out in another way.
        if self.minor < 11 {
            return None;
        }
        let keys = reader.field(dict, 32)?;
        let sizes = reader.field(keys, 8)?;
        let [_, log2_index, kind, ..] = sizes.to_le_bytes();
        let is_general = kind == 0;
        let count = reader.field(keys, 24)?;
        if count > MOST || log2_index > 20 {
            return None;
        }
        let first = keys + 32 + (1 << log2_index);
        let (each, key_at) = if is_general { (24, 8) } else { (16, 0) };
        (0..count).find_map(|number| {
            let at = first + number * each + key_at;
            let key = self.string(reader, reader.once(at)?)?;
            (key == name).then(|| self.string(reader, reader.field(at, 8)?))?
        })
    }

    /// A short `str` of ASCII.
    pub(super) fn string(&self, reader: &Reader<'_>, at: u64) -> Option<String> {
        const LONGEST: u64 = 200;
        /// Its bytes are in it, and they are ASCII.
        const COMPACT_ASCII: u64 = 3 << 5;
        let of = reader.field(at, 8)?;
        let is_text = reader.field(of, of_type::FLAGS)? & flag::TEXT != 0;
        let length = reader.field(at, 16)?;
        let state = reader.field(at, 32)?;
        let fits = is_text && length <= LONGEST && state & COMPACT_ASCII == COMPACT_ASCII;
        let mut bytes = vec![0; fits.then_some(length)? as usize];
        let text = at + if self.minor >= 12 { 40 } else { 48 };
        let is_read = reader.pages().is_present(text) && reader.memory().read(text, &mut bytes);
        is_read.then(|| String::from_utf8(bytes).ok())?
    }

    /// Looks at the blocks of all pools, and gives what there is by type: `heaps` are
    /// glibc's.
    pub(super) fn finish(
        mut self,
        reader: &mut Reader<'_>,
        found: &Found,
        mut heaps: Vec<(u64, u64)>,
        hand_on: Option<&mut HandOn<'_>>,
    ) -> Inventory {
        let (pools, mapped) = (&found.pools, &found.mapped);
        heaps.sort_unstable();
        let places = Places {
            pools,
            heaps,
            mapped,
        };
        let mut inventory = Inventory::default();
        for (from, to) in mapped {
            // What begins further on was aligned by who asked for it, no object.
            self.see(reader, from + 16, to - from - 16);
        }
        for (table, number) in std::mem::take(&mut self.later) {
            self.add_table(reader, &places, table, number);
        }
        let mut bytes = Vec::new();
        for pool in pools {
            inventory.unread_bytes += self.pool(reader, &places, pool, &mut bytes);
        }
        let used: u64 = pools.iter().map(|pool| pool.used).sum();
        inventory.rest_bytes = used.saturating_sub(self.of_pools + inventory.unread_bytes);
        if let (Some(hand_on), Some(objects)) = (hand_on, self.objects.take()) {
            heap::tell(&mut self, reader, &places, objects, &found.frames, hand_on);
        }
        self.counts.retain(|of| of.objects > 0);
        self.counts
            .sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
        inventory.types = self.counts;
        inventory
    }

    fn add_table(&mut self, reader: &Reader<'_>, places: &Places<'_>, table: u64, number: usize) {
        if let Some((bytes, is_pools)) = places.block(reader, table) {
            self.counts[number].bytes += bytes;
            self.of_pools += if is_pools { bytes } else { 0 };
        }
    }

    /// Looks at the blocks of a pool that are in use. Gives the bytes of those that are
    /// not resident.
    fn pool(
        &mut self,
        reader: &Reader<'_>,
        places: &Places<'_>,
        pool: &Pool,
        bytes: &mut Vec<u8>,
    ) -> u64 {
        bytes.clear();
        bytes.resize((pool.carved_to - pool.start) as usize, 0);
        let mut missing = 0_u64;
        let is_there = (pool.start..pool.carved_to)
            .step_by(PAGE as usize)
            .all(|page| reader.pages().is_present(page));
        let is_read = is_there && reader.memory().read(pool.start, bytes);
        for (number, page) in bytes.chunks_mut(PAGE as usize).enumerate() {
            let at = pool.start + number as u64 * PAGE;
            let is_missing =
                !is_read && (!reader.pages().is_present(at) || !reader.memory().read(at, page));
            if is_missing {
                page.fill(0);
                missing |= 1 << number;
            }
        }
        let free = pymalloc::free_blocks(pool, bytes);
        let blocks = bytes[pymalloc::HEADER..].chunks_exact(pool.block as usize);
        let starts = (pymalloc::HEADER as u64..).step_by(pool.block as usize);
        let mut unread = 0;
        for ((block, start), is_free) in blocks.zip(starts).zip(free) {
            if is_free {
                continue;
            }
            if missing >> (start / PAGE) & 1 == 1 {
                unread += pool.block;
                continue;
            }
            let mut words = [0; LOOKED_AT];
            for (word, bytes) in words.iter_mut().zip(block.chunks_exact(8)) {
                *word = bytes.try_into().map_or(0, u64::from_le_bytes);
            }
            let Some(found) = self.object(reader, &words) else {
                continue;
            };
            self.count(found, pool.start + start, pool.block);
            self.of_pools += pool.block;
            if let Some(table) = table(found, &words) {
                self.add_table(reader, places, table, found.number);
            }
        }
        unread
    }
}

/// Bytes of the table that is an object's alone, by the beginning of its block.
pub(super) fn bytes_beside(
    reader: &Reader<'_>,
    places: &Places<'_>,
    found: Type,
    block: &[u8],
) -> u64 {
    let mut words = [0; LOOKED_AT];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    table(found, &words)
        .and_then(|table| places.block(reader, table))
        .map_or(0, |(bytes, _)| bytes)
}

/// Where the table is that is an object's alone, if it has one.
fn table(found: Type, words: &Words) -> Option<u64> {
    /// An array's data are its own, and nobody else's.
    const OWN_DATA: u64 = 4;
    let field = |bytes: usize| words[found.before + bytes / 8];
    let address = match found.owns {
        Owns::List => field(24),
        // Without a table of values its keys are its own.
        Owns::Dict(_) if field(40) == 0 => field(32),
        // A small set's is within; where it is, is not known here, but its mask is.
        Owns::Set if field(32) <= 7 => 0,
        Owns::Dict(true) | Owns::Set => field(40),
        Owns::ByteArray => field(32),
        Owns::Array if field(64) & OWN_DATA == 0 => 0,
        Owns::Array => field(16),
        Owns::Values(at) => words[at],
        Owns::TaggedValues(at) if words[at] & 1 == 1 => words[at] - 1,
        Owns::TaggedValues(_) | Owns::Dict(false) | Owns::Nothing => 0,
    };
    (address != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use leakline_wire::graph::Entries;

    use super::super::memory::Memory as _;
    use super::super::memory::tests::Image;
    use super::*;

    /// Types, their names, and a pool of 64-byte blocks.
    const TYPES: u64 = 0x7f00_0000_0000;
    const NAMES: u64 = 0x7f00_0100_0000;
    const POOL: u64 = 0x7f00_0200_0000;
    const ROOT: u64 = TYPES + 0x1000;
    const BLOCKS: u64 = 255;

    fn put_type(image: &mut Image, number: u64, of: u64, flags: u64, name: &str) -> u64 {
        let at = TYPES + 0x1000 * (number + 1);
        image.set(at, 1);
        image.set(at + 8, of);
        image.set(at + of_type::BASIC_SIZE, 32);
        image.set(at + of_type::FLAGS, flag::READY | flags);
        image.set(at + of_type::NAME, NAMES + number * 64);
        for (word, part) in name.as_bytes().chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            image.set(
                NAMES + number * 64 + word as u64 * 8,
                u64::from_le_bytes(bytes),
            );
        }
        at
    }

    fn block(number: u64) -> u64 {
        POOL + pymalloc::HEADER as u64 + number * 64
    }

    /// A pool of which so many blocks were handed out, all in use.
    fn program(carved: u64) -> Image {
        let mut image = Image::new(TYPES, 0x10_0000)
            .and(NAMES, 0x1_0000)
            .and(POOL, 0x4000);
        put_type(&mut image, 0, ROOT, flag::TYPE | flag::HAVE_GC, "type");
        image.set(POOL, carved);
        image.set(POOL + 32, 3 << 32 | 1);
        image.set(
            POOL + 40,
            (0x4000 - 64) << 32 | (pymalloc::HEADER as u64 + carved * 64),
        );
        image
    }

    fn look(image: &Image, minor: u8) -> Inventory {
        let (maps, pages) = (image.maps(), image.pages());
        let mut reader = Reader::new(image, &pages);
        let mut header = [0; pymalloc::HEADER];
        assert!(image.read(POOL, &mut header));
        let pools: Vec<Pool> = Pool::parse(POOL, &header).into_iter().collect();
        let found = Found {
            pools,
            frames: vec![(POOL, POOL + 0x4000)],
            ..Found::default()
        };
        let heaps = vec![(NAMES, NAMES + 0x1_0000)];
        let mut parts = 0;
        let mut hand_on = |part: &[u8]| {
            assert!(!Entries::new(part).any(|_| false));
            parts += 1;
            true
        };
        let types = Types::new(1, minor, &maps).noting_objects();
        let found = types.finish(&mut reader, &found, heaps, Some(&mut hand_on));
        assert!(parts > 0);
        found
    }

    fn counts(inventory: &Inventory) -> Vec<(&str, u64, u64)> {
        let types = inventory.types.iter();
        types
            .map(|of| (of.name.as_str(), of.objects, of.bytes))
            .collect()
    }

    #[test]
    fn objects_are_known_by_their_types_and_where_they_begin() {
        let mut image = program(8);
        let plain = put_type(&mut image, 1, ROOT, 0, "plain");
        let tracked = put_type(&mut image, 2, ROOT, flag::HAVE_GC, "tracked");
        let flags = flag::HAVE_GC | flag::MANAGED_DICT;
        let managed = put_type(&mut image, 3, ROOT, flags, "managed");
        let mut put = |number: u64, lead: u64, count: u64, of: u64| {
            image.set(block(number) + lead, count);
            image.set(block(number) + lead + 8, of);
        };
        put(0, 0, 1, plain);
        put(1, 16, 7, tracked);
        put(2, 32, 2, managed);
        // Where such objects do not begin.
        put(3, 16, 1, plain);
        put(4, 0, 1, managed);
        // A dead one, and something that has an address where the count would be.
        put(5, 16, 0, tracked);
        put(6, 16, POOL, tracked);
        // No type.
        put(7, 0, 1, NAMES);
        let found = look(&image, 12);
        assert_eq!(
            counts(&found),
            [("managed", 1, 64), ("plain", 1, 64), ("tracked", 1, 64)]
        );
        assert_eq!((found.rest_bytes, found.unread_bytes), (5 * 64, 0));
    }

    #[test]
    fn free_blocks_hold_no_objects() {
        let mut image = program(3);
        let plain = put_type(&mut image, 1, ROOT, 0, "plain");
        for number in 0..3 {
            image.set(block(number), 1);
            image.set(block(number) + 8, plain);
        }
        // The middle one is free, which leaves its type.
        image.set(POOL, 2);
        image.set(POOL + 8, block(1));
        image.set(block(1), 0);
        assert_eq!(counts(&look(&image, 12)), [("plain", 2, 128)]);
        // Its list leads back into itself.
        image.set(block(1), block(1));
        assert_eq!(counts(&look(&image, 12)), [("plain", 2, 128)]);
    }

    #[test]
    fn a_table_is_its_lists() {
        let mut image = program(2);
        let list = put_type(&mut image, 1, ROOT, flag::HAVE_GC | flag::LIST, "list");
        image.set(block(0) + 16, 1);
        image.set(block(0) + 24, list);
        image.set(block(0) + 16 + 24, block(1));
        let found = look(&image, 13);
        assert_eq!(counts(&found), [("list", 1, 128)]);
        assert_eq!(found.rest_bytes, 0);
    }

    /// The highest bits have flags, and an object that is never freed a count of its
    /// own.
    #[test]
    fn counts_are_those_of_the_version() {
        let mut image = program(3);
        let plain = put_type(&mut image, 1, ROOT, 0, "plain");
        for (number, count) in [
            (0, 0x0001_0000_0000_0005),
            (1, 0xffff_ffff),
            (2, 0xc000_0000),
        ] {
            image.set(block(number), count);
            image.set(block(number) + 8, plain);
        }
        assert_eq!(counts(&look(&image, 12)), [("plain", 2, 128)]);
        assert_eq!(counts(&look(&image, 14)), [("plain", 3, 192)]);
    }

    #[test]
    fn bases_and_types_that_lead_nowhere_end() {
        let mut image = program(3);
        let plain = put_type(&mut image, 1, ROOT, 0, "plain");
        let other = put_type(&mut image, 2, ROOT, 0, "other");
        // Each is the other's base.
        image.set(plain + of_type::BASE, other);
        image.set(other + of_type::BASE, plain);
        // Each is the other's type.
        let odd = put_type(&mut image, 4, TYPES + 0x6000, flag::TYPE, "odd");
        let even = put_type(&mut image, 5, odd, flag::TYPE, "even");
        assert_eq!(even, TYPES + 0x6000);
        for (number, of) in [(0, plain), (1, other), (2, odd)] {
            image.set(block(number), 1);
            image.set(block(number) + 8, of);
        }
        assert_eq!(
            counts(&look(&image, 12)),
            [("other", 1, 64), ("plain", 1, 64)]
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = 7_u64;
        let mut next = || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            random >> 20
        };
        for round in 0..40 {
            let mut image = program(BLOCKS);
            for number in 1..20 {
                let name = ["list", "set", "numpy.ndarray", "bytearray"][number as usize % 4];
                put_type(&mut image, number, ROOT, next() << 16 | next(), name);
            }
            for _ in 0..(40 << (round % 8)) {
                let at = [POOL + 48, TYPES, NAMES][(next() % 3) as usize] + next() % 0x3f00 / 8 * 8;
                let word = match next() % 8 {
                    6 => NAMES + next() % 0x1000 * 16,
                    7 => POOL,
                    0 => 1,
                    1 => u64::MAX,
                    2 => TYPES + 0x1000 * (next() % 21),
                    3 => block(next() % BLOCKS),
                    4 => next(),
                    _ => u64::MAX - 7 - next() % 64,
                };
                image.set(at, word);
            }
            for minor in [9, 11, 12, 13, 14, 15] {
                look(&image, minor);
            }
        }
    }
}
