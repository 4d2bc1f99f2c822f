//! The interposer's reading of dicts' keys, of objects made here byte by byte: those of each
//! kind, and such as no interpreter would make.
//!
//! The interposer itself cannot be linked into a test; this part of it needs nothing of it.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "objects are read where they lie")]
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::cell::RefCell;

use keys::{Keys, Kinds, MOST_CONTENT};
use leakline_wire::graph::{Entries, Entry, KeyWriter, key};

#[path = "../../preload/src/graph/keys.rs"]
#[expect(unreachable_pub, reason = "as the interposer has it")]
mod keys;

const TEXT: u64 = 0x1000;
const INT: u64 = 0x1001;
const BYTES: u64 = 0x1002;
const FLOAT: u64 = 0x1003;
const BOOL: u64 = 0x1004;
const OTHER: u64 = 0x1005;

const COMPACT: u32 = 1 << 5;
const ASCII: u32 = 1 << 6;

fn kinds(minor: u8) -> Kinds {
    let is_old = minor < 12;
    Kinds {
        text: TEXT,
        int: INT,
        bytes: BYTES,
        float: FLOAT,
        bool: BOOL,
        none: 0,
        true_: 0,
        minor,
        text_ascii: if is_old { 48 } else { 40 },
        text_other: if is_old { 72 } else { 56 },
        digit_bytes: 4,
    }
}

const PAGE: usize = 4096;

/// Two pages, with an object somewhere in them; all else is full of what would show.
#[repr(align(4096))]
struct Memory([u8; 2 * PAGE]);

struct Object {
    memory: Box<Memory>,
    at: usize,
}

impl Object {
    fn new(type_: u64) -> Self {
        Self::at(0, type_)
    }

    fn at(at: usize, type_: u64) -> Self {
        let mut object = Object {
            memory: Box::new(Memory([b'!'; 2 * PAGE])),
            at,
        };
        object.put(0, &1_u64.to_le_bytes());
        object.put(8, &type_.to_le_bytes());
        object
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let from = self.at + offset;
        self.memory.0[from..from + bytes.len()].copy_from_slice(bytes);
    }

    fn word(mut self, offset: usize, word: u64) -> Self {
        self.put(offset, &word.to_le_bytes());
        self
    }

    fn data(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.put(offset, bytes);
        self
    }

    fn address(&self) -> u64 {
        self.memory.0[self.at..].as_ptr() as u64
    }

    fn read_if(&self, kinds: &Kinds, is_readable: impl Fn(u64) -> bool) -> Option<(u64, Vec<u8>)> {
        let mut content = [0; MOST_CONTENT];
        // SAFETY: the object's first bytes lie in `memory`, and so does all that can be
        // reached from there.
        let read = unsafe { keys::read(self.address(), kinds, is_readable, &mut content) };
        read.map(|(kind, length)| (kind, content[..length].to_vec()))
    }

    fn read(&self, kinds: &Kinds) -> Option<(u64, Vec<u8>)> {
        self.read_if(kinds, |_| panic!("it lies in one page"))
    }
}

fn text_object(kinds: &Kinds, width: u32, flags: u32, length: u64, data: &[u8]) -> Object {
    let at = if flags & ASCII != 0 {
        kinds.text_ascii
    } else {
        kinds.text_other
    };
    Object::new(TEXT)
        .word(16, length)
        .data(32, &(width << 2 | flags).to_le_bytes())
        .data(usize::try_from(at).unwrap(), data)
}

/// A string as each version has it.
fn text(minor: u8, text: &str) -> Object {
    let kinds = kinds(minor);
    let largest = text.chars().max().map_or(0, u32::from);
    let length = text.chars().count() as u64;
    let points = text.chars().map(u32::from);
    match largest {
        0..0x80 => text_object(&kinds, 1, COMPACT | ASCII, length, text.as_bytes()),
        0x80..0x100 => {
            let data: Vec<u8> = points.map(|point| u8::try_from(point).unwrap()).collect();
            text_object(&kinds, 1, COMPACT, length, &data)
        }
        0x100..0x1_0000 => {
            let data: Vec<u8> = points
                .flat_map(|point| (point as u16).to_le_bytes())
                .collect();
            text_object(&kinds, 2, COMPACT, length, &data)
        }
        _ => {
            let data: Vec<u8> = points.flat_map(u32::to_le_bytes).collect();
            text_object(&kinds, 4, COMPACT, length, &data)
        }
    }
}

#[test]
fn strings_of_each_width_are_read() {
    for minor in 9..=15 {
        for one in ["", "user-42", "caf\u{e9}", "ключ", "日本語", "a\u{1f600}b"] {
            assert_eq!(
                text(minor, one).read(&kinds(minor)),
                Some((key::TEXT, one.as_bytes().to_vec())),
                "{minor} {one}"
            );
        }
    }
}

#[test]
fn strings_are_cut_where_they_are_long() {
    for letter in ["x", "\u{e9}", "ж", "\u{1f600}"] {
        let most = letter.repeat(64);
        let read = |one: &str| text(12, one).read(&kinds(12));
        assert_eq!(
            read(&most),
            Some((key::TEXT, most.clone().into())),
            "{letter}"
        );
        let more = letter.repeat(65);
        let cut = Some((key::TEXT | key::CUT, most.into()));
        assert_eq!(read(&more), cut, "{letter}");
    }
}

#[test]
fn surrogates_and_what_is_no_character_are_replaced() {
    let kinds = kinds(12);
    let two: Vec<u8> = [0x61_u16, 0xd800, 0x62]
        .iter()
        .flat_map(|one| one.to_le_bytes())
        .collect();
    let read = text_object(&kinds, 2, COMPACT, 3, &two).read(&kinds);
    assert_eq!(read, Some((key::TEXT, "a\u{fffd}b".into())));
    let four: Vec<u8> = [u32::MAX, 0x11_0000]
        .iter()
        .flat_map(|one| one.to_le_bytes())
        .collect();
    let read = text_object(&kinds, 4, COMPACT, 2, &four).read(&kinds);
    assert_eq!(read, Some((key::TEXT, "\u{fffd}\u{fffd}".into())));
}

#[test]
fn strings_whose_characters_lie_elsewhere_are_not_read() {
    let kinds = kinds(11);
    for (width, flags) in [
        (1, 0),
        (1, ASCII),
        (0, COMPACT),
        (3, COMPACT),
        (2, COMPACT | ASCII),
    ] {
        let object = text_object(&kinds, width, flags, 3, b"abc");
        assert_eq!(object.read(&kinds), None, "{width} {flags}");
    }
}

/// A length that is nonsense leads no further than the most that is told.
#[test]
fn no_more_is_read_than_is_told_whatever_the_length() {
    let kinds = kinds(12);
    for length in [65, 1 << 20, u64::MAX] {
        let object = text_object(&kinds, 4, COMPACT, length, &[b'a', 0, 0, 0].repeat(64));
        let (kind, content) = object.read(&kinds).unwrap();
        assert_eq!((kind, content.len()), (key::TEXT | key::CUT, 64));
        let object = Object::new(BYTES).word(16, length).data(32, &[7; 64]);
        assert_eq!(
            object.read(&kinds),
            Some((key::BYTES | key::CUT, vec![7; 32]))
        );
    }
}

#[test]
fn what_cannot_be_read_is_not() {
    let kinds = kinds(12);
    let at = PAGE - 48;
    let length = 40_u64;
    let text = Object::at(at, TEXT)
        .word(16, length)
        .data(32, &(1 << 2 | COMPACT | ASCII).to_le_bytes())
        .data(40, &[b'k'; 40]);
    let bytes = Object::at(at, BYTES).word(16, 40).data(32, &[b'k'; 40]);
    for object in [text, bytes] {
        let asked = RefCell::new(Vec::new());
        let read = |answer: bool| {
            object.read_if(&kinds, |address| {
                asked.borrow_mut().push(address);
                answer
            })
        };
        assert_eq!(read(false), None);
        let (_, content) = read(true).unwrap();
        assert!(content.iter().all(|byte| *byte == b'k') && content.len() >= 32);
        // The page that follows, and no other.
        let page = object.memory.0[PAGE..].as_ptr() as u64;
        let all = asked.borrow();
        assert!(
            all.len() == 2 && all.iter().all(|at| (page..page + 64).contains(at)),
            "{all:?}"
        );
    }
}

fn int(minor: u8, value: i128) -> Object {
    let mut digits = Vec::new();
    let mut left = value.unsigned_abs();
    while left > 0 {
        digits.push((left & 0x3fff_ffff) as u32);
        left >>= 30;
    }
    let count = digits.len() as u64;
    let word = if minor < 12 {
        if value < 0 {
            count.wrapping_neg()
        } else {
            count
        }
    } else {
        count << 3
            | match value {
                0 => 1,
                ..0 => 2,
                _ => 0,
            }
    };
    let data: Vec<u8> = digits.into_iter().flat_map(u32::to_le_bytes).collect();
    Object::new(INT).word(16, word).data(24, &data)
}

#[test]
fn ints_of_64_bits_are_read() {
    for minor in 9..=15 {
        let kinds = kinds(minor);
        let most = i128::from(u64::MAX);
        for value in [
            0,
            1,
            -1,
            255,
            1 << 30,
            -(1 << 30),
            (1 << 60) + 5,
            1 << 63,
            most,
            -most,
        ] {
            let (kind, content) = int(minor, value).read(&kinds).unwrap();
            let magnitude = u64::from_le_bytes(content[1..].try_into().unwrap());
            let is_negative = content[0] == 1;
            let read = i128::from(magnitude) * if is_negative { -1 } else { 1 };
            assert_eq!((kind, read), (key::INT, value), "{minor}");
        }
        for value in [most + 1, -most - 1, 1 << 100] {
            assert_eq!(int(minor, value).read(&kinds), None, "{minor} {value}");
        }
    }
}

#[test]
fn ints_of_nonsense_are_not_read() {
    for minor in [11, 12] {
        let kinds = kinds(minor);
        for word in [u64::MAX / 2, 1 << 63, 4 << 3] {
            assert_eq!(
                Object::new(INT).word(16, word).read(&kinds),
                None,
                "{minor} {word:#x}"
            );
        }
        let small = Kinds {
            digit_bytes: 2,
            ..kinds
        };
        assert_eq!(int(minor, 5).read(&small), None);
    }
}

#[test]
fn other_kinds_are_read_or_left_alone() {
    let mut kinds = kinds(12);
    let read = |object: &Object, kinds: &Kinds| object.read(kinds);
    let bytes = |data: &[u8]| {
        Object::new(BYTES)
            .word(16, data.len() as u64)
            .data(32, data)
    };
    assert_eq!(
        read(&bytes(b"a\xff\0"), &kinds),
        Some((key::BYTES, b"a\xff\0".to_vec()))
    );
    assert_eq!(read(&bytes(b""), &kinds), Some((key::BYTES, Vec::new())));
    let float = Object::new(FLOAT).data(16, &2.5_f64.to_le_bytes());
    assert_eq!(
        read(&float, &kinds),
        Some((key::FLOAT, 2.5_f64.to_le_bytes().to_vec()))
    );
    let (one, other) = (Object::new(BOOL), Object::new(BOOL));
    kinds.true_ = one.address();
    assert_eq!(read(&one, &kinds), Some((key::TRUE, Vec::new())));
    assert_eq!(read(&other, &kinds), Some((key::FALSE, Vec::new())));
    let none = Object::new(OTHER);
    assert_eq!(read(&none, &kinds), None);
    kinds.none = none.address();
    assert_eq!(read(&none, &kinds), Some((key::NONE, Vec::new())));
    // Types that the interpreter does not have are no object's.
    kinds.float = 0;
    assert_eq!(read(&Object::new(0), &kinds), None);
}

#[test]
fn what_goes_beyond_the_limits_is_counted() {
    let mut buffer = vec![0; 4096];
    let mut blobs = Vec::new();
    let mut keys = Keys::new(kinds(12), &mut buffer);
    // Of a dict, its first and last ones.
    let wanted: Vec<u64> = (0..5000).filter(|at| keys.wants(*at, 5000)).collect();
    let expected: Vec<u64> = (0..1000).chain(4000..5000).collect();
    assert_eq!(wanted, expected);
    assert_eq!((0..2000).filter(|at| keys.wants(*at, 2000)).count(), 2000);
    // Of a graph, as many as there is room for.
    let mut told = 0_u64;
    let mut tell = |keys: &mut Keys<'_>| {
        let is_wanted = keys.wants(0, 1);
        if is_wanted {
            if !keys.out.has_room() {
                blobs.push(keys.out.take().to_vec());
            }
            told += 1;
            keys.tell(told << 6, key::TEXT, &[b'x'; 200]);
        }
        is_wanted
    };
    while tell(&mut keys) {}
    assert!(!tell(&mut keys));
    if !keys.out.has_room() {
        blobs.push(keys.out.take().to_vec());
    }
    blobs.push(keys.end().to_vec());
    let bytes: usize = blobs.iter().map(Vec::len).sum();
    assert!(
        (Keys::MOST_BYTES..Keys::MOST_BYTES + 1024).contains(&bytes),
        "{bytes}"
    );
    let sums = blobs
        .iter()
        .flat_map(|blob| Entries::new(blob))
        .filter_map(|entry| match entry {
            Entry::Keys { told, left_out } => Some((told, left_out)),
            _ => None,
        });
    assert_eq!(sums.collect::<Vec<_>>(), [(told, 3000 + 2)]);
    let count = blobs.iter().flat_map(|blob| Entries::new(blob)).count() as u64;
    assert_eq!(count, told + 1);
    assert!(KeyWriter::new(&mut [0; 4096]).has_room());
    assert_eq!(keys.kinds.minor, 12);
}
