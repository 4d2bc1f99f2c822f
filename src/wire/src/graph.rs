//! The heap graph as a forked child of the target tells of it: objects, what they
//! hold, and what holds them from outside.
//!
//! A graph is a sequence of entries, cut into blobs ([`BlobKind::Graph`]) at the ends of
//! entries. Numbers are varints (seven bits a byte, lowest first); differences are
//! zigzag-encoded. Addresses of objects are divided by 8.
//!
//! | tag | entry | what follows |
//! | --- | --- | --- |
//! | 1 | type | address, flags, name; the n-th has number n, from 0 |
//! | 2 | name | text; the n-th has number n, from 0: names that edges' labels mean |
//! | 3 | node | address less the last node's of the blob (at first 0), type, bytes, references, flags |
//! | 4 | edges | how many, then for each its label and its target less the last one's of this entry (at first 0: the node's) |
//! | 5 | pointers | how many, then for each its value less the last one's (at first 0); not divided |
//! | 6 | title | text: what the node calls itself (a module's, function's or class's name) |
//! | 7 | root | kind, detail, name, label (text), target |
//! | 8 | end | status, nodes, edges, microseconds |
//! | 10 | suspect | address less the last suspect's of the blob (at first 0), type, references, words of memory that hold the address, flags |
//! | 11 | searched | status, bytes, bytes left out, what the collector of cycles is (see [`collects`]), microseconds |
//! | 12 | key | address less the last key's of the blob (at first 0), kind (see [`key`]), its content (text) |
//! | 13 | keys | how many were told, how many were left out |
//!
//! Keys of dicts are told where that is asked for, in blobs of their own: a reader that
//! does not know them loses nothing else. They are objects, which are nodes as well.
//!
//! Suspects come after the end: objects that count more references than edges and roots
//! lead to them. Memory was searched for their addresses, once it is said so.
//!
//! Edges, pointers and titles are the last node's; what is too long for a blob goes
//! on in the next one, by another entry of the same kind. Texts are a length and UTF-8.
//!
//! [`BlobKind::Graph`]: crate::event::BlobKind::Graph

/// Tags of entries.
#[expect(missing_docs, reason = "as the table of the module says")]
pub mod tag {
    pub const TYPE: u8 = 1;
    pub const NAME: u8 = 2;
    pub const NODE: u8 = 3;
    pub const EDGES: u8 = 4;
    pub const POINTERS: u8 = 5;
    pub const TITLE: u8 = 6;
    pub const ROOT: u8 = 7;
    pub const END: u8 = 8;
    pub const SUSPECT: u8 = 10;
    pub const SEARCHED: u8 = 11;
    pub const KEY: u8 = 12;
    pub const KEYS: u8 = 13;
}

/// What kind of object a dict's key is, in the lowest bits of its kind, and what its
/// content has.
pub mod key {
    /// A string: its characters, in UTF-8; what is none there (a surrogate) is U+FFFD.
    pub const TEXT: u64 = 0;
    /// An int: a byte, which is not 0 where it is negative, and eight of its magnitude,
    /// the lowest first.
    pub const INT: u64 = 1;
    /// Bytes, as they are.
    pub const BYTES: u64 = 2;
    /// A float: eight bytes, as the machine has them.
    pub const FLOAT: u64 = 3;
    /// `None`, `False` and `True`: nothing.
    pub const NONE: u64 = 4;
    #[expect(missing_docs, reason = "as above")]
    pub const FALSE: u64 = 5;
    #[expect(missing_docs, reason = "as above")]
    pub const TRUE: u64 = 6;
    /// Bits of the kind.
    pub const KIND: u64 = 7;
    /// It goes on: only the beginning is there.
    pub const CUT: u64 = 8;
    /// Most characters of a string, and bytes of bytes, that are told.
    pub const MOST_CHARACTERS: usize = 64;
    #[expect(missing_docs, reason = "as above")]
    pub const MOST_BYTES: usize = 32;
}

/// Bits of a type's flags.
pub mod type_flag {
    /// Its objects can be in cycles that CPython's collector looks for.
    pub const COLLECTED: u64 = 1;
    /// It was made at run time (a heap type): its objects hold it.
    pub const HEAP: u64 = 2;
    /// Its objects can hold others, by what the type says, but the collector is not
    /// told of them.
    pub const OPAQUE: u64 = 4;
}

/// Bits of a node's flags.
pub mod node_flag {
    /// In the lists of CPython's collector.
    pub const TRACKED: u64 = 1;
    /// Its count of references does not count: it is immortal.
    pub const IMMORTAL: u64 = 2;
    /// Its references were not all told (a limit, or a type that could not be asked).
    pub const INCOMPLETE: u64 = 4;
    /// In the list of what was frozen (`gc.freeze`): no collection looks at it.
    pub const FROZEN: u64 = 8;
}

/// Bits of a suspect's flags.
pub mod suspect_flag {
    /// It is no node: no walk came to it, it was found in memory. What lies there may have
    /// been freed.
    pub const UNREACHED: u64 = 1;
}

/// Whether CPython's collector of cycles runs by itself.
pub mod collects {
    /// It is not known.
    pub const UNKNOWN: u64 = 0;
    /// It does.
    pub const YES: u64 = 1;
    /// It is switched off.
    pub const NO: u64 = 2;
}

/// What an edge is, in the lowest three bits of its label; above them a number, as said.
pub mod label {
    /// Something that the object refers to; the number is nothing.
    pub const OTHER: u64 = 0;
    /// An attribute, slot or member: number of its name.
    pub const ATTRIBUTE: u64 = 1;
    /// The value of a dict's key that is a name in the code: its number.
    pub const NAMED_ITEM: u64 = 2;
    /// The value of another key of a dict: number of the key's type.
    pub const ITEM: u64 = 3;
    /// A key of a dict, or an element of a set; the number is nothing.
    pub const KEY: u64 = 4;
    /// An element of a list or tuple: its place.
    pub const INDEX: u64 = 5;
    /// A variable of a frame: number of its name.
    pub const LOCAL: u64 = 6;
    /// Bits of the kind.
    pub const BITS: u32 = 3;
    /// The kind of a label.
    pub const KIND: u64 = (1 << BITS) - 1;
}

/// What holds objects from outside of the graph.
pub mod root {
    /// `sys.modules`: the name is the module's, the label empty.
    pub const MODULE: u64 = 1;
    /// A frame that runs: detail is the thread's id, the name its function's, the label
    /// the variable's (empty: on the evaluation stack, or the frame's own parts).
    pub const FRAME: u64 = 2;
    /// The interpreter's own state: the label says which.
    pub const INTERPRETER: u64 = 3;
}

/// How a walk ended.
pub mod status {
    /// Everything was told.
    pub const COMPLETE: u64 = 0;
    /// It took too long, and stopped.
    pub const OUT_OF_TIME: u64 = 1;
    /// There was no memory for its tables.
    pub const OUT_OF_MEMORY: u64 = 2;
    /// Something it read was not what it should be.
    pub const CONFUSED: u64 = 3;
    /// Everything was told, but read from outside while the process went on: some of it is
    /// of another instant.
    pub const OUTSIDE: u64 = 7;
    /// Of a search: there were more suspects than are looked for.
    pub const TOO_MANY: u64 = 4;
    /// Of a search: memory, or which there is, cannot be read.
    pub const UNREADABLE: u64 = 5;
    /// Of a search: too much of the memory is swapped out.
    pub const SWAPPED_OUT: u64 = 6;
}

/// Longest text, in bytes: longer ones are cut.
pub const MAX_TEXT: usize = 512;

/// An entry of a graph. Addresses are whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the table of the module says")]
pub enum Entry<'a> {
    Type {
        address: u64,
        flags: u64,
        name: &'a [u8],
    },
    Name(&'a [u8]),
    Node {
        address: u64,
        type_number: u64,
        bytes: u64,
        references: u64,
        flags: u64,
    },
    /// One of [`tag::EDGES`].
    Edge {
        label: u64,
        target: u64,
    },
    /// One of [`tag::POINTERS`].
    Pointer(u64),
    Title(&'a [u8]),
    Root {
        kind: u64,
        detail: u64,
        name: &'a [u8],
        label: &'a [u8],
        target: u64,
    },
    End {
        status: u64,
        nodes: u64,
        edges: u64,
        microseconds: u64,
    },
    Suspect {
        address: u64,
        type_number: u64,
        references: u64,
        words: u64,
        flags: u64,
    },
    Searched {
        status: u64,
        bytes: u64,
        left_out: u64,
        collects: u64,
        microseconds: u64,
    },
    Key {
        address: u64,
        kind: u64,
        content: &'a [u8],
    },
    Keys {
        told: u64,
        left_out: u64,
    },
}

/// Reads the entries of a blob. Ends early, with [`Entries::is_malformed`], where the
/// bytes are none.
#[derive(Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    node: u64,
    suspect: u64,
    key: u64,
    /// Of the entry that is being read.
    left: u64,
    is_edges: bool,
    last: u64,
    is_malformed: bool,
}

impl<'a> Entries<'a> {
    /// Those of a blob.
    pub fn new(bytes: &'a [u8]) -> Self {
        Entries {
            bytes,
            node: 0,
            suspect: 0,
            key: 0,
            left: 0,
            is_edges: false,
            last: 0,
            is_malformed: false,
        }
    }

    /// Whether the bytes stopped making sense.
    pub fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for i in 0..10 {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn difference(&mut self) -> Option<u64> {
        let value = self.number()?;
        Some(value >> 1 ^ (value & 1).wrapping_neg())
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(text)
    }

    fn read(&mut self) -> Option<Entry<'a>> {
        while self.left == 0 {
            let (tag, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            match *tag {
                tag::EDGES | tag::POINTERS => {
                    self.left = self.number()?;
                    self.is_edges = *tag == tag::EDGES;
                    self.last = if self.is_edges { self.node } else { 0 };
                }
                tag => return self.read_entry(tag),
            }
        }
        self.left -= 1;
        if self.is_edges {
            let label = self.number()?;
            self.last = self.last.wrapping_add(self.difference()?);
            Some(Entry::Edge {
                label,
                target: self.last << 3,
            })
        } else {
            self.last = self.last.wrapping_add(self.difference()?);
            Some(Entry::Pointer(self.last))
        }
    }

    fn read_entry(&mut self, tag: u8) -> Option<Entry<'a>> {
        Some(match tag {
            tag::TYPE => Entry::Type {
                address: self.number()? << 3,
                flags: self.number()?,
                name: self.text()?,
            },
            tag::NAME => Entry::Name(self.text()?),
            tag::NODE => {
                self.node = self.node.wrapping_add(self.difference()?);
                Entry::Node {
                    address: self.node << 3,
                    type_number: self.number()?,
                    bytes: self.number()?,
                    references: self.number()?,
                    flags: self.number()?,
                }
            }
            tag::TITLE => Entry::Title(self.text()?),
            tag::ROOT => Entry::Root {
                kind: self.number()?,
                detail: self.number()?,
                name: self.text()?,
                label: self.text()?,
                target: self.number()? << 3,
            },
            tag::END => Entry::End {
                status: self.number()?,
                nodes: self.number()?,
                edges: self.number()?,
                microseconds: self.number()?,
            },
            tag::SUSPECT => {
                self.suspect = self.suspect.wrapping_add(self.difference()?);
                Entry::Suspect {
                    address: self.suspect << 3,
                    type_number: self.number()?,
                    references: self.number()?,
                    words: self.number()?,
                    flags: self.number()?,
                }
            }
            tag::SEARCHED => Entry::Searched {
                status: self.number()?,
                bytes: self.number()?,
                left_out: self.number()?,
                collects: self.number()?,
                microseconds: self.number()?,
            },
            tag::KEY => {
                self.key = self.key.wrapping_add(self.difference()?);
                Entry::Key {
                    address: self.key << 3,
                    kind: self.number()?,
                    content: self.text()?,
                }
            }
            tag::KEYS => Entry::Keys {
                told: self.number()?,
                left_out: self.number()?,
            },
            _ => return None,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.is_malformed || self.bytes.is_empty() && self.left == 0 {
            return None;
        }
        let entry = self.read();
        self.is_malformed = entry.is_none();
        entry
    }
}

/// Writes entries into a buffer, and hands it on when it is full.
///
/// `hand_on` gets whole entries; where it fails, everything after is dropped.
#[derive(Debug)]
pub struct Writer<'a, H: FnMut(&[u8]) -> bool> {
    buffer: &'a mut [u8],
    at: usize,
    hand_on: H,
    node: u64,
    suspect: u64,
    /// Of the entry of edges or pointers that is being written: where its count is,
    /// and what it counts.
    list: Option<(usize, u64)>,
    is_edges: bool,
    last: u64,
    has_failed: bool,
}

/// Most that an entry without a list takes: tag, five numbers, two texts.
const MAX_ENTRY: usize = 1 + 5 * 10 + 2 * (2 + MAX_TEXT);
/// A count has room for three bytes: a blob's entries are fewer.
const COUNT_BYTES: usize = 3;

impl<'a, H: FnMut(&[u8]) -> bool> Writer<'a, H> {
    /// Writes into `buffer`, of 4 KiB to 1 MiB.
    pub fn new(buffer: &'a mut [u8], hand_on: H) -> Self {
        Writer {
            buffer,
            at: 0,
            hand_on,
            node: 0,
            suspect: 0,
            list: None,
            is_edges: false,
            last: 0,
            has_failed: false,
        }
    }

    /// Whether something could not be handed on.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Hands on a blob of entries that are not written here, in between: those that are
    /// go on as if it were not there.
    pub fn apart(&mut self, blob: &[u8]) {
        if !blob.is_empty() && !self.has_failed {
            self.has_failed = !(self.hand_on)(blob);
        }
    }

    /// Hands on what there is.
    pub fn flush(&mut self) {
        self.end_list();
        if self.at > 0 && !self.has_failed {
            self.has_failed = !(self.hand_on)(&self.buffer[..self.at]);
        }
        self.at = 0;
        self.node = 0;
        self.suspect = 0;
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.buffer.get_mut(self.at) {
            *place = byte;
        }
        self.at += 1;
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn difference(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.number((difference << 1 ^ difference >> 63) as u64);
    }

    fn text(&mut self, text: &[u8]) {
        let mut end = text.len().min(MAX_TEXT);
        // Not within a character.
        while end < text.len() && end > 0 && text[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        self.number(end as u64);
        for byte in &text[..end] {
            self.byte(*byte);
        }
    }

    fn end_list(&mut self) {
        if let Some((place, count)) = self.list.take() {
            for (i, byte) in self.buffer[place..place + COUNT_BYTES]
                .iter_mut()
                .enumerate()
            {
                let more = if i + 1 < COUNT_BYTES { 0x80 } else { 0 };
                *byte = (count >> (7 * i)) as u8 & 0x7f | more;
            }
        }
    }

    fn begin(&mut self, tag: u8) {
        self.end_list();
        if self.at + MAX_ENTRY > self.buffer.len() {
            self.flush();
        }
        self.byte(tag);
    }

    /// A type. Its number is that of those written before.
    pub fn type_(&mut self, address: u64, flags: u64, name: &[u8]) {
        self.begin(tag::TYPE);
        self.number(address >> 3);
        self.number(flags);
        self.text(name);
    }

    /// A name. Its number is that of those written before.
    pub fn name(&mut self, text: &[u8]) {
        self.begin(tag::NAME);
        self.text(text);
    }

    /// A node.
    pub fn node(
        &mut self,
        address: u64,
        type_number: u64,
        bytes: u64,
        references: u64,
        flags: u64,
    ) {
        self.begin(tag::NODE);
        let here = address >> 3;
        self.difference(self.node, here);
        self.node = here;
        self.number(type_number);
        self.number(bytes);
        self.number(references);
        self.number(flags);
    }

    fn element(&mut self, is_edges: bool) {
        const MAX_ELEMENT: usize = 20;
        let is_full = self.at + MAX_ELEMENT > self.buffer.len();
        if self.list.is_some() && self.is_edges == is_edges && !is_full {
            if let Some((_, count)) = &mut self.list {
                *count += 1;
            }
            return;
        }
        let node = self.node;
        self.begin(if is_edges { tag::EDGES } else { tag::POINTERS });
        self.list = Some((self.at, 1));
        self.is_edges = is_edges;
        // A blob that begins with edges does not know the node.
        let is_known = self.node == node;
        self.last = if is_edges && is_known { node } else { 0 };
        for _ in 0..COUNT_BYTES {
            self.byte(0);
        }
    }

    /// An edge of the last node.
    pub fn edge(&mut self, label: u64, target: u64) {
        self.element(true);
        self.number(label);
        self.difference(self.last, target >> 3);
        self.last = target >> 3;
    }

    /// A word of the last node that may point to native memory.
    pub fn pointer(&mut self, value: u64) {
        self.element(false);
        self.difference(self.last, value);
        self.last = value;
    }

    /// What the last node calls itself.
    pub fn title(&mut self, text: &[u8]) {
        self.begin(tag::TITLE);
        self.text(text);
    }

    /// Something that holds `target` from outside.
    pub fn root(&mut self, kind: u64, detail: u64, name: &[u8], label: &[u8], target: u64) {
        self.begin(tag::ROOT);
        self.number(kind);
        self.number(detail);
        self.text(name);
        self.text(label);
        self.number(target >> 3);
    }

    /// The end, which is handed on at once.
    pub fn end(&mut self, status: u64, nodes: u64, edges: u64, microseconds: u64) {
        self.begin(tag::END);
        self.number(status);
        self.number(nodes);
        self.number(edges);
        self.number(microseconds);
        self.flush();
    }

    /// An object that counts more references than edges and roots explain.
    pub fn suspect(
        &mut self,
        address: u64,
        type_number: u64,
        references: u64,
        words: u64,
        flags: u64,
    ) {
        self.begin(tag::SUSPECT);
        let here = address >> 3;
        self.difference(self.suspect, here);
        self.suspect = here;
        self.number(type_number);
        self.number(references);
        self.number(words);
        self.number(flags);
    }

    /// How the search for suspects went; handed on at once.
    pub fn searched(
        &mut self,
        status: u64,
        bytes: u64,
        left_out: u64,
        collects: u64,
        microseconds: u64,
    ) {
        self.begin(tag::SEARCHED);
        self.number(status);
        self.number(bytes);
        self.number(left_out);
        self.number(collects);
        self.number(microseconds);
        self.flush();
    }
}

/// Writes what keys are into a buffer, to be handed on as blobs of their own.
#[derive(Debug)]
pub struct KeyWriter<'a> {
    buffer: &'a mut [u8],
    at: usize,
    last: u64,
}

/// Most that a key takes: tag, two numbers, and what it has.
const MAX_KEY: usize = 1 + 2 * 10 + 1 + 4 * key::MOST_CHARACTERS;

impl<'a> KeyWriter<'a> {
    /// Writes into `buffer`, of 4 KiB to 1 MiB.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        KeyWriter {
            buffer,
            at: 0,
            last: 0,
        }
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.at + MAX_KEY <= self.buffer.len()
    }

    /// What was written, to be handed on: what comes next begins a new blob.
    pub fn take(&mut self) -> &[u8] {
        let length = core::mem::take(&mut self.at);
        self.last = 0;
        self.buffer.get(..length).unwrap_or_default()
    }

    /// A key, of which it [has room](KeyWriter::has_room) for; gives how many bytes it takes.
    /// Content beyond what a key may have is left out.
    pub fn key(&mut self, address: u64, kind: u64, content: &[u8]) -> usize {
        let from = self.at;
        let here = address >> 3;
        let difference = here.wrapping_sub(self.last) as i64;
        self.last = here;
        self.byte(tag::KEY);
        self.number((difference << 1 ^ difference >> 63) as u64);
        self.number(kind);
        let content = &content[..content.len().min(4 * key::MOST_CHARACTERS)];
        self.number(content.len() as u64);
        for byte in content {
            self.byte(*byte);
        }
        self.at - from
    }

    /// How many keys were told, and how many were not.
    pub fn keys(&mut self, told: u64, left_out: u64) {
        self.byte(tag::KEYS);
        self.number(told);
        self.number(left_out);
    }

    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.buffer.get_mut(self.at) {
            *place = byte;
        }
        self.at += 1;
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is to be written, by kind; addresses are multiples of 8 below 2^47.
    fn write(parts: &[(u8, u64, u64)], room: usize) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; room];
        let mut blobs = Vec::new();
        let mut writer = Writer::new(&mut buffer, |blob| {
            blobs.push(blob.to_vec());
            true
        });
        for (kind, a, b) in parts {
            let address = (a & ((1 << 47) - 1)) & !7;
            match kind % 10 {
                0 => writer.type_(address, b & 7, b"app.Session"),
                1 => writer.name(b"history"),
                2 => writer.node(address, b & 0xff, *b, a & 0xffff, b & 7),
                3 => writer.edge(*b >> 8, address),
                4 => writer.pointer(*a),
                5 => writer.title(b"app.cache"),
                6 => writer.root(1, *b, b"app", b"x", address),
                7 => writer.suspect(address, 3, *b, 2, 1),
                8 => writer.searched(0, *a, *b, 1, 9),
                _ => writer.end(0, *a, *b, 7),
            }
        }
        writer.flush();
        blobs
    }

    proptest! {
        #[test]
        fn entries_come_back(
            parts in prop::collection::vec((0_u8..10, any::<u64>(), any::<u64>()), 0..400),
            room in 4096_usize..6000,
        ) {
            let blobs = write(&parts, room);
            let mut found = Vec::new();
            for blob in &blobs {
                prop_assert!(blob.len() <= room);
                let mut entries = Entries::new(blob);
                for entry in &mut entries {
                    found.push(match entry {
                        Entry::Type { address, flags, .. } => (0, address, flags),
                        Entry::Name(_) => (1, 0, 0),
                        Entry::Node { address, bytes, .. } => (2, address, bytes),
                        Entry::Edge { label, target } => (3, target, label),
                        Entry::Pointer(value) => (4, value, 0),
                        Entry::Title(_) => (5, 0, 0),
                        Entry::Root { target, detail, .. } => (6, target, detail),
                        Entry::End { nodes, edges, .. } => (9, nodes, edges),
                        Entry::Suspect {
                            address,
                            references,
                            ..
                        } => (7, address, references),
                        Entry::Searched {
                            bytes, left_out, ..
                        } => (8, bytes, left_out),
                        Entry::Key { .. } | Entry::Keys { .. } => panic!("none was written"),
                    });
                }
                prop_assert!(!entries.is_malformed());
            }
            let expected: Vec<_> = parts
                .iter()
                .map(|(kind, a, b)| {
                    let address = (a & ((1 << 47) - 1)) & !7;
                    match kind % 10 {
                        0 => (0, address, b & 7),
                        1 => (1, 0, 0),
                        2 => (2, address, *b),
                        3 => (3, address, b >> 8),
                        4 => (4, *a, 0),
                        5 => (5, 0, 0),
                        6 => (6, address, *b),
                        7 => (7, address, *b),
                        8 => (8, *a, *b),
                        _ => (9, *a, *b),
                    }
                })
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn keys_come_back(
            keys in prop::collection::vec((any::<u64>(), 0_u64..16, any::<Vec<u8>>()), 0..400),
            room in 4096_usize..6000,
        ) {
            let mut buffer = vec![0; room];
            let mut writer = KeyWriter::new(&mut buffer);
            let (mut blobs, mut expected, mut told) = (Vec::new(), Vec::new(), 0);
            for (address, kind, content) in &keys {
                if !writer.has_room() {
                    blobs.push(writer.take().to_vec());
                }
                let (address, content) = (address & !7, &content[..content.len().min(256)]);
                told += writer.key(address, *kind, content);
                expected.push((address, *kind, content.to_vec()));
            }
            writer.keys(keys.len() as u64, u64::MAX);
            blobs.push(writer.take().to_vec());
            prop_assert!(writer.take().is_empty());
            prop_assert!(blobs.iter().map(Vec::len).sum::<usize>() > told);
            let mut found = Vec::new();
            let mut sums = None;
            for blob in &blobs {
                let mut entries = Entries::new(blob);
                for entry in &mut entries {
                    match entry {
                        Entry::Key { address, kind, content } => {
                            found.push((address, kind, content.to_vec()));
                        }
                        Entry::Keys { told, left_out } => sums = Some((told, left_out)),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                prop_assert!(!entries.is_malformed());
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(sums, Some((keys.len() as u64, u64::MAX)));
        }

        /// Whatever a target writes, reading ends.
        #[test]
        fn nonsense_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut entries = Entries::new(&bytes);
            // A list can say that it is long, but each element takes a byte.
            prop_assert!(entries.by_ref().count() <= bytes.len());
        }
    }

    #[test]
    fn what_is_handed_on_apart_comes_between_the_parts_of_a_node() {
        let mut buffer = vec![0; 4096];
        let mut blobs = Vec::new();
        let mut writer = Writer::new(&mut buffer, |blob| {
            blobs.push(blob.to_vec());
            true
        });
        writer.node(64, 0, 1, 1, 0);
        writer.edge(0, 80);
        writer.apart(&[]);
        writer.apart(&[tag::KEYS, 1, 2]);
        writer.edge(0, 96);
        writer.flush();
        let all: Vec<Vec<_>> = blobs
            .iter()
            .map(|blob| Entries::new(blob).collect())
            .collect();
        let keys = Entry::Keys {
            told: 1,
            left_out: 2,
        };
        assert_eq!(all[0], [keys]);
        let edge = |target| Entry::Edge { label: 0, target };
        assert_eq!(all[1][1..], [edge(80), edge(96)]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut buffer = vec![0; 4096];
        let mut blobs = Vec::new();
        let mut writer = Writer::new(&mut buffer, |blob| {
            blobs.push(blob.to_vec());
            true
        });
        let long = "é".repeat(MAX_TEXT);
        writer.name(format!("a{long}").as_bytes());
        writer.name(long.as_bytes());
        writer.flush();
        let lengths: Vec<_> = Entries::new(&blobs[0])
            .map(|entry| match entry {
                Entry::Name(text) => text.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(lengths, [MAX_TEXT - 1, MAX_TEXT]);
    }
}
