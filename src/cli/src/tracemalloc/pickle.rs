//! Reads the pickle that `tracemalloc.Snapshot.dump` writes, and no other.
//!
//! A pickle is a program. This runs none: it knows the opcodes that make numbers,
//! texts, tuples, lists and dictionaries, and the few names that a snapshot
//! consists of. Whatever else a file holds is refused by its name.
//!
//! # Invariants
//!
//! * Nothing is looked up, imported or called: a name is compared with those in
//!   [`CLASSES`], and an object is a class and a state.
//! * A value names others by number, so that no depth of them is a depth of calls.
//! * Memory is bounded by the file's size and by the constants below. Bytes of
//!   texts are not copied.
//!
//! Protocols 0 to 5 are understood: what CPython 3.6 to 3.15 write, and what
//! `pickle.dump(snapshot, file, protocol)` writes.

use std::borrow::Cow;
use std::fmt;

/// Most bytes of a file: places in it are `u32`.
pub(super) const MOST_BYTES: u64 = 2 << 30;
/// Most values of which a snapshot has millions: texts, tuples, large numbers.
const MOST_VALUES: usize = 1 << 27;
/// Most lists, dictionaries and objects. A snapshot has one, two and two.
const MOST_OF_A_KIND: usize = 1 << 10;
/// Most marks at once. A snapshot has four.
const MOST_MARKS: usize = 1 << 10;
/// Most bytes of a line, where a protocol has lines.
const LONGEST_LINE: usize = 1 << 16;

/// Why a file is no snapshot of tracemalloc's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    /// It names something else.
    #[error("refused: the dump names `{0}`, which is no part of a tracemalloc snapshot")]
    Name(String),
    /// It has an opcode that no snapshot needs.
    #[error(
        "refused: the dump holds {0} (at byte {1}), which is no part of a tracemalloc snapshot"
    )]
    Holds(&'static str, usize),
    /// It does not begin as a pickle does, or has a byte that is no opcode.
    #[error("it is no dump of tracemalloc's: byte {at} is {byte:#04x}, which begins nothing there")]
    NoOpcode {
        /// The byte.
        byte: u8,
        /// Where it is.
        at: usize,
    },
    /// It ends too early.
    #[error("the dump is cut short: it ends at byte {0}, within a value")]
    CutShort(usize),
    /// It is put together as no pickle is.
    #[error("the dump is damaged at byte {at}: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// It is a pickle, but not of a snapshot.
    #[error("the dump holds no tracemalloc snapshot: {0}")]
    Shape(&'static str),
    /// It would take too much memory.
    #[error("the dump is too large: more than {0}")]
    TooLarge(&'static str),
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Snapshot,
    Traces,
    /// What protocols 0 and 1 make objects by.
    Reconstructor,
    Object,
}

/// Every name that a dump may have. The last three are of protocols 0 and 1; Python
/// writes the older module's name in protocols 0 to 2.
const CLASSES: [(&str, &str, Class); 6] = [
    ("tracemalloc", "Snapshot", Class::Snapshot),
    ("tracemalloc", "_Traces", Class::Traces),
    ("copyreg", "_reconstructor", Class::Reconstructor),
    ("copy_reg", "_reconstructor", Class::Reconstructor),
    ("builtins", "object", Class::Object),
    ("__builtin__", "object", Class::Object),
];

/// A value: a small number itself, or the place of another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

impl Id {
    const SMALL: u32 = 1 << 31;

    fn small(value: u64) -> Option<Id> {
        let value = u32::try_from(value).ok()?;
        (value < Self::SMALL).then_some(Id(value | Self::SMALL))
    }
}

#[derive(Clone, Copy, Debug)]
enum Value {
    None,
    /// True or false: no snapshot has one, but old protocols write 0 and 1 alike.
    Bool,
    Number(u64),
    /// Below 0, or more than 64 bits.
    OtherNumber,
    /// Of the file.
    Text {
        start: u32,
        len: u32,
    },
    /// Of [`Dump::unescaped`].
    Unescaped(u32),
    /// Of [`Dump::pool`].
    Tuple {
        start: u32,
        len: u32,
    },
    List(u32),
    Dict(u32),
    Class(Class),
    Object(u32),
}

#[derive(Debug)]
struct Object {
    class: Class,
    state: Option<Id>,
}

/// A trace: a block that was alive.
#[derive(Clone, Copy)]
pub(super) struct Trace {
    /// 0: Python's allocators.
    pub(super) domain: u64,
    /// Of the block.
    pub(super) bytes: u64,
    /// Its stack. The same number is the same stack.
    pub(super) frames: Id,
    /// Frames that there were, where that was written (CPython 3.9).
    pub(super) total_frames: Option<u64>,
}

/// A snapshot in a file's bytes.
pub(super) struct Dump<'b> {
    bytes: &'b [u8],
    at: usize,
    values: Vec<Value>,
    pool: Vec<Id>,
    lists: Vec<Vec<Id>>,
    dicts: Vec<Vec<(Id, Id)>>,
    objects: Vec<Object>,
    unescaped: Vec<String>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Id>,
    /// The traces, once found.
    traces: Vec<Id>,
    limit: u64,
}

impl fmt::Debug for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump")
            .field("traces", &self.traces.len())
            .finish_non_exhaustive()
    }
}

type Read<T> = Result<T, PickleError>;

impl<'b> Dump<'b> {
    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// It is not what `Snapshot.dump` writes.
    pub(super) fn parse(bytes: &'b [u8]) -> Read<Dump<'b>> {
        if bytes.len() as u64 > MOST_BYTES {
            return Err(PickleError::TooLarge("2 GiB"));
        }
        let mut dump = Dump {
            bytes,
            at: 0,
            values: Vec::new(),
            pool: Vec::new(),
            lists: Vec::new(),
            dicts: Vec::new(),
            objects: Vec::new(),
            unescaped: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            traces: Vec::new(),
            limit: 0,
        };
        while !dump.step()? {}
        dump.find()?;
        Ok(dump)
    }

    /// Bytes of the file behind the pickle, which no reader of pickles looks at.
    pub(super) fn bytes_behind(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Most frames of a stack: what `tracemalloc.start` was given.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// How many traces there are.
    pub(super) fn len(&self) -> usize {
        self.traces.len()
    }

    /// The traces, in their order.
    pub(super) fn traces(&self) -> impl Iterator<Item = Read<Trace>> {
        self.traces.iter().map(|id| self.trace(*id))
    }

    /// A stack's frames, the most recent first: file and line.
    pub(super) fn frames(&self, frames: Id) -> impl Iterator<Item = Read<(Cow<'_, str>, u32)>> {
        let frames = self.tuple(frames).unwrap_or_default();
        frames.iter().map(|frame| match self.tuple(*frame) {
            Some(&[file, line]) => {
                let file = self.text(file);
                let line = self.number(line).and_then(|line| u32::try_from(line).ok());
                file.zip(line)
                    .ok_or(PickleError::Shape("a frame is not a file and a line"))
            }
            _ => Err(PickleError::Shape("a frame is not a file and a line")),
        })
    }

    fn trace(&self, id: Id) -> Read<Trace> {
        const NO_TRACE: PickleError =
            PickleError::Shape("a trace is not a domain, a size and a stack");
        let (fields, total) = match self.tuple(id) {
            Some(&[domain, bytes, frames]) => ([domain, bytes, frames], None),
            Some(&[domain, bytes, frames, total]) => {
                // What was made by hand may have none.
                let is_none = matches!(self.value(total), Some(Value::None));
                let total = self.number(total);
                if total.is_none() && !is_none {
                    return Err(NO_TRACE);
                }
                ([domain, bytes, frames], total)
            }
            _ => return Err(NO_TRACE),
        };
        let domain = self.number(fields[0]).ok_or(NO_TRACE)?;
        let bytes = self.number(fields[1]).ok_or(NO_TRACE)?;
        if self.tuple(fields[2]).is_none_or(<[Id]>::is_empty) {
            return Err(PickleError::Shape("a trace has no frame"));
        }
        Ok(Trace {
            domain,
            bytes,
            frames: fields[2],
            total_frames: total,
        })
    }

    /// Finds the traces in what was left on the stack.
    fn find(&mut self) -> Read<()> {
        let top = self.stack.pop();
        let snapshot = top.and_then(|top| self.state_of(top, Class::Snapshot));
        let snapshot = snapshot.ok_or(PickleError::Shape("it is of something else"))?;
        let limit = self.field(snapshot, "traceback_limit");
        self.limit = limit.and_then(|id| self.number(id)).unwrap_or(0);
        let traces = self.field(snapshot, "traces");
        let traces = traces.and_then(|traces| self.state_of(traces, Class::Traces));
        let traces = traces.and_then(|traces| self.field(traces, "_traces"));
        self.traces = match traces.and_then(|id| self.value(id)) {
            Some(Value::List(list)) => std::mem::take(&mut self.lists[list as usize]),
            Some(Value::Tuple { start, len }) => self.piece(start, len).to_vec(),
            _ => return Err(PickleError::Shape("it has no traces")),
        };
        Ok(())
    }

    /// Runs one opcode; true after the last.
    fn step(&mut self) -> Read<bool> {
        let at = self.at;
        let opcode = self.byte()?;
        match opcode {
            b'.' => return Ok(true),
            0x80 => {
                let protocol = self.byte()?;
                if protocol > 5 {
                    return Err(self.damaged("a protocol after the fifth"));
                }
            }
            0x95 => {
                self.take(8)?;
            }
            b'(' => {
                if self.marks.len() >= MOST_MARKS {
                    return Err(PickleError::TooLarge("1,024 values within each other"));
                }
                self.marks.push(self.stack.len());
            }
            b'N' => self.make(Value::None)?,
            0x88 | 0x89 => self.make(Value::Bool)?,
            b'K' => {
                let value = self.byte()?;
                self.push_number(value.into())?;
            }
            b'M' => {
                let value = self.little_endian(2)?;
                self.push_number(value)?;
            }
            b'J' => {
                let value = self.little_endian(4)?;
                if value < 1 << 31 {
                    self.push_number(value)?;
                } else {
                    self.make(Value::OtherNumber)?;
                }
            }
            0x8a | 0x8b => {
                let len = self.little_endian(if opcode == 0x8a { 1 } else { 4 })?;
                self.long(len as usize)?;
            }
            b'I' | b'L' => self.decimal()?,
            0x8c => {
                let len = self.little_endian(1)?;
                self.push_text(len)?;
            }
            b'X' => {
                let len = self.little_endian(4)?;
                self.push_text(len)?;
            }
            0x8d => {
                let len = self.little_endian(8)?;
                self.push_text(len)?;
            }
            b'V' => self.line_of_text()?,
            b')' => self.tuple_from(self.stack.len())?,
            0x85..=0x87 => {
                let len = usize::from(opcode - 0x84);
                self.need(len)?;
                self.tuple_from(self.stack.len() - len)?;
            }
            b't' => {
                let mark = self.mark()?;
                self.tuple_from(mark)?;
            }
            b']' => self.new_list(Vec::new())?,
            b'l' => {
                let mark = self.mark()?;
                let values = self.stack.split_off(mark);
                self.new_list(values)?;
            }
            b'}' => self.new_dict()?,
            b'd' => {
                let mark = self.mark()?;
                let values = self.stack.split_off(mark);
                self.new_dict()?;
                self.set_items(&values)?;
            }
            b'a' => {
                self.need(2)?;
                let values = self.stack.split_off(self.stack.len() - 1);
                self.append(&values)?;
            }
            b'e' => {
                let mark = self.mark()?;
                let values = self.stack.split_off(mark);
                self.append(&values)?;
            }
            b's' => {
                self.need(3)?;
                let values = self.stack.split_off(self.stack.len() - 2);
                self.set_items(&values)?;
            }
            b'u' => {
                let mark = self.mark()?;
                let values = self.stack.split_off(mark);
                self.set_items(&values)?;
            }
            0x94 => {
                let next = self.memo.len();
                self.remember(next)?;
            }
            b'q' => {
                let place = self.little_endian(1)?;
                self.remember(place as usize)?;
            }
            b'r' => {
                let place = self.little_endian(4)?;
                self.remember(place as usize)?;
            }
            b'p' => {
                let place = self.place()?;
                self.remember(place)?;
            }
            b'h' => {
                let place = self.little_endian(1)?;
                self.recall(place as usize)?;
            }
            b'j' => {
                let place = self.little_endian(4)?;
                self.recall(place as usize)?;
            }
            b'g' => {
                let place = self.place()?;
                self.recall(place)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let class = class(module, name)?;
                self.make(Value::Class(class))?;
            }
            0x93 => {
                self.need(2)?;
                let name = self.stack.pop().and_then(|id| self.raw_text(id));
                let module = self.stack.pop().and_then(|id| self.raw_text(id));
                let (Some(module), Some(name)) = (module, name) else {
                    return Err(self.damaged("a name that is no text"));
                };
                let class = class(module, name)?;
                self.make(Value::Class(class))?;
            }
            0x81 => self.new_object()?,
            b'R' => self.reconstruct()?,
            b'b' => self.build()?,
            other => return Err(self.refused(other, at)),
        }
        Ok(false)
    }

    /// Why an opcode is not run.
    fn refused(&mut self, opcode: u8, at: usize) -> PickleError {
        let what = match opcode {
            b'i' => {
                // Names what it would call.
                let name = self.line().and_then(|module| Ok((module, self.line()?)));
                return match name {
                    Ok((module, name)) => PickleError::Name(dotted(module, name)),
                    Err(why) => why,
                };
            }
            b'o' | 0x92 => "an object of another kind",
            0x82..=0x84 => "a name of an extension's",
            b'P' | b'Q' => "a reference to something outside",
            b'F' | b'G' => "a number with a fraction",
            b'B' | b'C' | 0x8e | 0x96 | 0x97 | 0x98 => "bytes",
            b'S' | b'T' | b'U' => "a text of Python 2",
            0x8f..=0x91 => "a set",
            b'0' | b'1' | b'2' => "an opcode that takes back or repeats",
            byte => return PickleError::NoOpcode { byte, at },
        };
        PickleError::Holds(what, at)
    }

    fn damaged(&self, what: &'static str) -> PickleError {
        PickleError::Damaged { what, at: self.at }
    }

    // What opcodes are followed by.

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, len: usize) -> Read<&'b [u8]> {
        let end = self.at.checked_add(len);
        let piece = end.and_then(|end| self.bytes.get(self.at..end));
        let piece = piece.ok_or(PickleError::CutShort(self.bytes.len()))?;
        self.at += len;
        Ok(piece)
    }

    fn little_endian(&mut self, len: usize) -> Read<u64> {
        let bytes = self.take(len)?;
        Ok(number_of(bytes))
    }

    /// Up to the end of the line, which is left out.
    fn line(&mut self) -> Read<&'b [u8]> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(LONGEST_LINE)];
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Ok(&rest[..end])
            }
            None if rest.len() == LONGEST_LINE => Err(self.damaged("a line of more than 64 KiB")),
            None => Err(PickleError::CutShort(self.bytes.len())),
        }
    }

    /// A place in the memo, as a line.
    fn place(&mut self) -> Read<usize> {
        let line = self.line()?;
        let number = std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.damaged("a place that is no number"))
    }

    // What opcodes make.

    fn make(&mut self, value: Value) -> Read<()> {
        if self.values.len() >= MOST_VALUES {
            return Err(PickleError::TooLarge("134 million values"));
        }
        // Below 2^27.
        self.stack.push(Id(self.values.len() as u32));
        self.values.push(value);
        Ok(())
    }

    fn push_number(&mut self, value: u64) -> Read<()> {
        match Id::small(value) {
            Some(id) => {
                self.stack.push(id);
                Ok(())
            }
            None => self.make(Value::Number(value)),
        }
    }

    fn long(&mut self, len: usize) -> Read<()> {
        let bytes = self.take(len)?;
        let end = bytes.iter().rposition(|byte| *byte != 0);
        let used = &bytes[..end.map_or(0, |end| end + 1)];
        let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        if is_negative || used.len() > 8 {
            self.make(Value::OtherNumber)
        } else {
            self.push_number(number_of(used))
        }
    }

    /// `I42\n`, `I01\n` (true), `L42L\n`.
    fn decimal(&mut self) -> Read<()> {
        let line = self.line()?;
        let text = std::str::from_utf8(line).unwrap_or_default();
        let text = text.strip_suffix('L').unwrap_or(text);
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.damaged("a number that is none"));
        }
        match text.parse::<u64>() {
            Ok(_) if text == "00" || text == "01" => self.make(Value::Bool),
            Ok(value) => self.push_number(value),
            Err(_) => self.make(Value::OtherNumber),
        }
    }

    fn push_text(&mut self, len: u64) -> Read<()> {
        let len = usize::try_from(len).map_err(|_| PickleError::CutShort(self.bytes.len()))?;
        let start = self.at;
        self.take(len)?;
        // The file has less than 2^32 bytes.
        self.make(Value::Text {
            start: start as u32,
            len: len as u32,
        })
    }

    /// A text as protocol 0 has it: Latin-1, with `\uXXXX` and `\UXXXXXXXX`.
    fn line_of_text(&mut self) -> Read<()> {
        let line = self.line()?;
        let mut text = String::with_capacity(line.len());
        let mut rest = line;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            let digits = match (byte, rest.first()) {
                (b'\\', Some(b'u')) => 4,
                (b'\\', Some(b'U')) => 8,
                _ => {
                    text.push(char::from(byte));
                    continue;
                }
            };
            let hex = rest
                .get(1..=digits)
                .and_then(|hex| std::str::from_utf8(hex).ok());
            let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
            let Some(code) = code else {
                return Err(self.damaged("a text with a broken escape"));
            };
            // A file's name may have halves of surrogates.
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = &rest[digits + 1..];
        }
        let place = self.unescaped.len() as u32;
        self.unescaped.push(text);
        self.make(Value::Unescaped(place))
    }

    fn tuple_from(&mut self, start: usize) -> Read<()> {
        let (at, len) = (self.pool.len(), self.stack.len() - start);
        let (Ok(at), Ok(len)) = (u32::try_from(at), u32::try_from(len)) else {
            return Err(PickleError::TooLarge("4 billion elements"));
        };
        self.pool.extend(self.stack.drain(start..));
        self.make(Value::Tuple { start: at, len })
    }

    fn new_list(&mut self, values: Vec<Id>) -> Read<()> {
        at_most(self.lists.len(), "1,024 lists")?;
        self.lists.push(values);
        self.make(Value::List(self.lists.len() as u32 - 1))
    }

    fn new_dict(&mut self) -> Read<()> {
        at_most(self.dicts.len(), "1,024 dictionaries")?;
        self.dicts.push(Vec::new());
        self.make(Value::Dict(self.dicts.len() as u32 - 1))
    }

    fn new_object_of(&mut self, class: Class) -> Read<()> {
        if !matches!(class, Class::Snapshot | Class::Traces) {
            return Err(self.damaged("an object of a class that has none here"));
        }
        at_most(self.objects.len(), "1,024 objects")?;
        self.objects.push(Object { class, state: None });
        self.make(Value::Object(self.objects.len() as u32 - 1))
    }

    fn append(&mut self, values: &[Id]) -> Read<()> {
        match self.top() {
            Some(Value::List(list)) => {
                self.lists[list as usize].extend_from_slice(values);
                Ok(())
            }
            _ => Err(self.damaged("an element of no list")),
        }
    }

    fn set_items(&mut self, values: &[Id]) -> Read<()> {
        match self.top() {
            Some(Value::Dict(dict)) if values.len().is_multiple_of(2) => {
                let pairs = values.chunks_exact(2).map(|pair| (pair[0], pair[1]));
                self.dicts[dict as usize].extend(pairs);
                Ok(())
            }
            _ => Err(self.damaged("an entry of no dictionary")),
        }
    }

    /// An object without arguments: `cls.__new__(cls)`.
    fn new_object(&mut self) -> Read<()> {
        self.need(2)?;
        let arguments = self.stack.pop();
        let class = self.stack.pop().and_then(|id| self.value(id));
        let has_none = arguments
            .and_then(|id| self.tuple(id))
            .is_some_and(<[Id]>::is_empty);
        match class {
            Some(Value::Class(class)) if has_none => self.new_object_of(class),
            _ => Err(self.damaged("an object that is made otherwise than a snapshot's")),
        }
    }

    /// `copyreg._reconstructor(cls, object, None)`: the same in protocols 0 and 1.
    fn reconstruct(&mut self) -> Read<()> {
        self.need(2)?;
        let arguments = self.stack.pop();
        let function = self.stack.pop().and_then(|id| self.value(id));
        let arguments = arguments.and_then(|id| self.tuple(id)).unwrap_or_default();
        let values: Vec<Option<Value>> =
            arguments.iter().take(4).map(|id| self.value(*id)).collect();
        match (function, &values[..]) {
            (
                Some(Value::Class(Class::Reconstructor)),
                &[
                    Some(Value::Class(class)),
                    Some(Value::Class(Class::Object)),
                    Some(Value::None),
                ],
            ) => self.new_object_of(class),
            _ => Err(PickleError::Holds("a call", self.at - 1)),
        }
    }

    fn build(&mut self) -> Read<()> {
        self.need(2)?;
        let state = self.stack.pop();
        match self.top() {
            Some(Value::Object(object)) => {
                self.objects[object as usize].state = state;
                Ok(())
            }
            _ => Err(self.damaged("a state of no object")),
        }
    }

    // Stack and memo.

    /// There are so many values above the last mark.
    fn need(&self, count: usize) -> Read<()> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len().saturating_sub(floor) < count {
            return Err(self.damaged("a value is missing"));
        }
        Ok(())
    }

    /// Where the values above the last mark begin; takes the mark away.
    fn mark(&mut self) -> Read<usize> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(mark),
            _ => Err(self.damaged("a mark is missing")),
        }
    }

    fn remember(&mut self, place: usize) -> Read<()> {
        self.need(1)?;
        let top = self.stack[self.stack.len() - 1];
        if let Some(known) = self.memo.get_mut(place) {
            *known = top;
        } else if place == self.memo.len() {
            self.memo.push(top);
        } else {
            // Picklers count; a gap would be a way to ask for memory.
            return Err(self.damaged("a place in the memo that is not the next"));
        }
        Ok(())
    }

    fn recall(&mut self, place: usize) -> Read<()> {
        let known = self.memo.get(place).copied();
        let known = known.ok_or_else(|| self.damaged("a place in the memo that nothing is at"))?;
        self.stack.push(known);
        Ok(())
    }

    // Values.

    fn top(&self) -> Option<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..)?.last()?;
        self.value(*top)
    }

    fn value(&self, id: Id) -> Option<Value> {
        match id.0.checked_sub(Id::SMALL) {
            Some(small) => Some(Value::Number(small.into())),
            None => self.values.get(id.0 as usize).copied(),
        }
    }

    fn number(&self, id: Id) -> Option<u64> {
        match self.value(id)? {
            Value::Number(value) => Some(value),
            _ => None,
        }
    }

    fn piece(&self, start: u32, len: u32) -> &[Id] {
        let start = start as usize;
        self.pool
            .get(start..start + len as usize)
            .unwrap_or_default()
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id)? {
            Value::Tuple { start, len } => Some(self.piece(start, len)),
            _ => None,
        }
    }

    fn raw_text(&self, id: Id) -> Option<&'b [u8]> {
        match self.value(id)? {
            Value::Text { start, len } => {
                let start = start as usize;
                self.bytes.get(start..start + len as usize)
            }
            _ => None,
        }
    }

    fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.value(id)? {
            // A file's name may have halves of surrogates, which are no UTF-8.
            Value::Text { .. } => self.raw_text(id).map(String::from_utf8_lossy),
            Value::Unescaped(place) => {
                let text = self.unescaped.get(place as usize)?;
                Some(Cow::Borrowed(text))
            }
            _ => None,
        }
    }

    /// The state of an object of this class.
    fn state_of(&self, id: Id, class: Class) -> Option<Id> {
        match self.value(id)? {
            Value::Object(object) => {
                let object = self.objects.get(object as usize)?;
                (object.class == class).then_some(object.state?)
            }
            _ => None,
        }
    }

    /// A dictionary's value; the last of that name counts.
    fn field(&self, dict: Id, name: &str) -> Option<Id> {
        match self.value(dict)? {
            Value::Dict(dict) => {
                let entries = self.dicts.get(dict as usize)?;
                let found = entries
                    .iter()
                    .rev()
                    .find(|(key, _)| self.is_text(*key, name));
                found.map(|(_, value)| *value)
            }
            _ => None,
        }
    }

    fn is_text(&self, id: Id, text: &str) -> bool {
        self.text(id).is_some_and(|known| known == text)
    }
}

fn at_most(count: usize, what: &'static str) -> Read<()> {
    if count >= MOST_OF_A_KIND {
        return Err(PickleError::TooLarge(what));
    }
    Ok(())
}

fn class(module: &[u8], name: &[u8]) -> Read<Class> {
    let known = CLASSES
        .iter()
        .find(|known| known.0.as_bytes() == module && known.1.as_bytes() == name);
    match known {
        Some(known) => Ok(known.2),
        None => Err(PickleError::Name(dotted(module, name))),
    }
}

/// A name for a message: printable, and not too long.
fn dotted(module: &[u8], name: &[u8]) -> String {
    const LONGEST: usize = 120;
    let text = format!(
        "{}.{}",
        String::from_utf8_lossy(module),
        String::from_utf8_lossy(name)
    );
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// Little endian, of up to 8 bytes.
fn number_of(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}
