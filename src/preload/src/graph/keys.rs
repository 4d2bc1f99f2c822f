//! What keys of dicts are, where a graph is to tell that: `--values`.
//!
//! A key that is a name in the code is told by the edge of its value. Of all others only the
//! type is, unless it is asked for more: then of strings and bytes how they begin, of ints,
//! floats, bools and `None` what they are. Objects of other types, also of types derived from
//! these, are told of by their type only. So are elements of sets, and all that is no key.
//!
//! # Invariants
//!
//! * Nothing is called, and no pointer of a key is followed: what is read lies in the object
//!   itself, at most [`key::MOST_CHARACTERS`] characters of it. Where that reaches into
//!   another page than the object begins in, that page is asked for.
//! * A key object is told of once, in whatever dicts it is.
//! * A dict of millions of keys takes no more room than one of [`Keys::MOST_OF_DICT`], a graph
//!   no more than [`Keys::MOST_BYTES`]. What is left out is counted.

use leakline_wire::graph::{KeyWriter, key};

/// Types whose objects are told of, and where things lie in them.
pub struct Kinds {
    pub text: u64,
    pub int: u64,
    pub bytes: u64,
    pub float: u64,
    pub bool: u64,
    /// The objects themselves.
    pub none: u64,
    pub true_: u64,
    /// Minor version of CPython.
    pub minor: u8,
    /// Characters of a compact ASCII string, and of another compact one.
    pub text_ascii: u64,
    pub text_other: u64,
    /// Bytes of a digit of an int.
    pub digit_bytes: u64,
}

/// Most bytes that the content of a key takes.
pub const MOST_CONTENT: usize = 4 * key::MOST_CHARACTERS;

const PAGE: u64 = 4096;

/// What a key is, into `content`: its kind, and how long that is. `None`: it is told of by
/// its type only.
///
/// # Safety
///
/// `object` must be an object of CPython's, of which what all have, and what objects of its
/// type have at least, can be read.
pub unsafe fn read(
    object: u64,
    kinds: &Kinds,
    is_readable: impl Fn(u64) -> bool,
    content: &mut [u8; MOST_CONTENT],
) -> Option<(u64, usize)> {
    const TYPE: u64 = 8;
    // SAFETY: the caller's: each object has a type, and what follows belongs to objects of that.
    unsafe {
        let type_ = ((object + TYPE) as *const u64).read();
        if type_ == 0 {
            None
        } else if type_ == kinds.text {
            text(object, kinds, is_readable, content)
        } else if type_ == kinds.int {
            int(object, kinds, content)
        } else if type_ == kinds.bytes {
            bytes(object, is_readable, content)
        } else if type_ == kinds.float {
            const VALUE: u64 = 16;
            content[..8].copy_from_slice(&((object + VALUE) as *const [u8; 8]).read());
            Some((key::FLOAT, 8))
        } else if type_ == kinds.bool {
            let is_true = object == kinds.true_;
            Some((if is_true { key::TRUE } else { key::FALSE }, 0))
        } else {
            (object == kinds.none).then_some((key::NONE, 0))
        }
    }
}

/// Whether all can be read from an object's beginning on, whose first bytes can.
fn reaches(object: u64, end: u64, is_readable: impl Fn(u64) -> bool) -> bool {
    let last = end - 1;
    object / PAGE == last / PAGE || is_readable(last)
}

/// # Safety
///
/// As for [`read`], of a string.
unsafe fn text(
    object: u64,
    kinds: &Kinds,
    is_readable: impl Fn(u64) -> bool,
    content: &mut [u8; MOST_CONTENT],
) -> Option<(u64, usize)> {
    const LENGTH: u64 = 16;
    const STATE: u64 = 32;
    // SAFETY: each string object has both words.
    let (length, state) = unsafe {
        (
            ((object + LENGTH) as *const u64).read(),
            ((object + STATE) as *const u32).read(),
        )
    };
    let (width, is_compact, is_ascii) = (state >> 2 & 7, state >> 5 & 1 != 0, state >> 6 & 1 != 0);
    // Characters of others lie elsewhere.
    if !is_compact || !matches!(width, 1 | 2 | 4) || is_ascii && width != 1 {
        return None;
    }
    let count = length.min(key::MOST_CHARACTERS as u64);
    let data = object
        + if is_ascii {
            kinds.text_ascii
        } else {
            kinds.text_other
        };
    if !reaches(object, data + count * u64::from(width), is_readable) {
        return None;
    }
    let mut end = 0;
    for i in 0..count {
        let at = data + i * u64::from(width);
        // SAFETY: below the end that was asked for.
        let character = unsafe {
            match width {
                1 => (at as *const u8).read().into(),
                2 => (at as *const u16).read().into(),
                _ => (at as *const u32).read(),
            }
        };
        // Surrogates are none of UTF-8's.
        let character = char::from_u32(character).unwrap_or(char::REPLACEMENT_CHARACTER);
        let place = content.get_mut(end..end + character.len_utf8())?;
        end += character.encode_utf8(place).len();
    }
    Some((cut(key::TEXT, count < length), end))
}

/// # Safety
///
/// As for [`read`], of bytes.
unsafe fn bytes(
    object: u64,
    is_readable: impl Fn(u64) -> bool,
    content: &mut [u8; MOST_CONTENT],
) -> Option<(u64, usize)> {
    const LENGTH: u64 = 16;
    const DATA: u64 = 32;
    // SAFETY: each such object has the word.
    let length = unsafe { ((object + LENGTH) as *const u64).read() };
    let count = length.min(key::MOST_BYTES as u64);
    // One that is empty has a NUL there.
    if !reaches(object, object + DATA + count.max(1), is_readable) {
        return None;
    }
    for (i, place) in content.iter_mut().enumerate().take(count as usize) {
        // SAFETY: below the end that was asked for.
        *place = unsafe { ((object + DATA + i as u64) as *const u8).read() };
    }
    Some((cut(key::BYTES, count < length), count as usize))
}

fn cut(kind: u64, is_cut: bool) -> u64 {
    if is_cut { kind | key::CUT } else { kind }
}

/// # Safety
///
/// As for [`read`], of an int.
unsafe fn int(
    object: u64,
    kinds: &Kinds,
    content: &mut [u8; MOST_CONTENT],
) -> Option<(u64, usize)> {
    const SIZE: u64 = 16;
    const DIGITS: u64 = 24;
    const DIGIT_BITS: u32 = 30;
    // Of 64 bits.
    const MOST_DIGITS: u64 = 3;
    if kinds.digit_bytes != 4 {
        return None;
    }
    // SAFETY: each int has the word.
    let word = unsafe { ((object + SIZE) as *const u64).read() };
    let (count, is_negative) = if kinds.minor >= 12 {
        // How many digits, above what says of which sign it is: 0 is positive, 1 is 0.
        let sign = word & 3;
        let count = if sign == 1 { 0 } else { word >> 3 };
        (count, sign == 2)
    } else {
        // Below 0 for negative ones.
        (word.cast_signed().unsigned_abs(), word.cast_signed() < 0)
    };
    if count > MOST_DIGITS {
        return None;
    }
    let mut magnitude = 0_u128;
    for i in 0..count {
        // SAFETY: it has so many digits. No more are read than lie within the smallest block
        // that an allocator gives for one.
        let digit = unsafe { ((object + DIGITS + 4 * i) as *const u32).read() };
        magnitude |= u128::from(digit) << (DIGIT_BITS * i as u32);
    }
    let magnitude = u64::try_from(magnitude).ok()?;
    content[0] = is_negative.into();
    content[1..9].copy_from_slice(&magnitude.to_le_bytes());
    Some((key::INT, 9))
}

/// Keys on their way into the recording.
pub struct Keys<'a> {
    pub kinds: Kinds,
    pub out: KeyWriter<'a>,
    bytes: usize,
    told: u64,
    left_out: u64,
}

impl<'a> Keys<'a> {
    /// Most keys of a dict that are told: half of them are its first ones, half its last.
    pub const MOST_OF_DICT: u64 = 2000;
    /// Most bytes that all keys of a graph take.
    pub const MOST_BYTES: usize = 8 << 20;

    /// To be written into `buffer`.
    pub fn new(kinds: Kinds, buffer: &'a mut [u8]) -> Self {
        Keys {
            kinds,
            out: KeyWriter::new(buffer),
            bytes: 0,
            told: 0,
            left_out: 0,
        }
    }

    /// Whether a key is to be told, the `at`-th of a dict that has so many.
    pub fn wants(&mut self, at: u64, of: u64) -> bool {
        let half = Self::MOST_OF_DICT / 2;
        let is_wanted =
            self.bytes < Self::MOST_BYTES && (at < half || at.saturating_add(half) >= of);
        self.left_out += u64::from(!is_wanted);
        is_wanted
    }

    /// Tells of a key. There must be room for it.
    pub fn tell(&mut self, object: u64, kind: u64, content: &[u8]) {
        self.bytes += self.out.key(object, kind, content);
        self.told += 1;
    }

    /// Tells how many there were, where there is room, and gives what was not handed on yet.
    pub fn end(&mut self) -> &[u8] {
        self.out.keys(self.told, self.left_out);
        self.out.take()
    }
}
