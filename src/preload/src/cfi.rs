//! Unwind rules from `.eh_frame`: how to find the caller's frame at an address.
//!
//! Only what a walk needs is computed: the canonical frame address (CFA) and
//! where rbp was saved. Everything is read from tables that the loader mapped;
//! what is not understood gives no rule, and the walk ends there and says so.

use crate::sys;

/// How the CFA is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cfa {
    /// rsp + offset.
    Sp(i64),
    /// rbp + offset.
    Bp(i64),
    /// The word at rbp + offset (functions that realign their stack).
    AtBp(i64),
    /// A signal frame: the interrupted registers lie on the stack.
    Signal,
    /// The outermost frame.
    End,
    /// No table, or one that is not understood.
    Unknown,
}

impl Cfa {
    /// Whether it computes from rbp.
    #[inline(always)]
    pub fn uses_bp(self) -> bool {
        matches!(self, Cfa::Bp(_) | Cfa::AtBp(_))
    }
}

/// Where the caller's rbp is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SavedBp {
    /// Still in the register.
    Same,
    /// At CFA + offset.
    AtCfa(i64),
    /// At rbp + offset.
    AtBp(i64),
}

/// A frame's rule, packed: CFA kind (bits 0-2), saved rbp's kind (3-4),
/// evaluator (5), saved rbp's offset / 8 (bits 8-31), CFA offset (32-63).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rule(u64);

impl Rule {
    /// No rule.
    pub const UNKNOWN: Rule = Rule(6);
    const END: Rule = Rule(5);
    const SIGNAL: Rule = Rule(4);

    fn new(cfa: Cfa, saved: SavedBp) -> Rule {
        let (kind, offset) = match cfa {
            Cfa::Sp(offset) => (1, offset),
            Cfa::Bp(offset) => (2, offset),
            Cfa::AtBp(offset) => (3, offset),
            Cfa::Signal => return Rule::SIGNAL,
            Cfa::End => return Rule::END,
            Cfa::Unknown => return Rule::UNKNOWN,
        };
        let (saved_kind, saved_offset) = match saved {
            SavedBp::Same => (0, 0),
            SavedBp::AtCfa(offset) => (1, offset),
            SavedBp::AtBp(offset) => (2, offset),
        };
        if i32::try_from(offset).is_err()
            || saved_offset % 8 != 0
            || !(-(1 << 25)..1 << 25).contains(&saved_offset)
        {
            return Rule::UNKNOWN;
        }
        let saved_word = (saved_offset / 8) as u64 & 0xff_ffff;
        Rule(kind | saved_kind << 3 | saved_word << 8 | (offset as u64) << 32)
    }

    /// As the word that [`Rule::from_word`] reads; never 0.
    #[inline(always)]
    pub fn word(self) -> u64 {
        self.0
    }

    /// See [`Rule::word`].
    #[inline(always)]
    pub fn from_word(word: u64) -> Rule {
        Rule(word)
    }

    /// The same, marked as the bytecode evaluator's.
    pub fn as_evaluator(self) -> Rule {
        Rule(self.0 | 1 << 5)
    }

    /// Whether the frame evaluates bytecode.
    pub fn is_evaluator(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    /// How the CFA is computed.
    #[inline(always)]
    pub fn cfa(self) -> Cfa {
        let offset = self.0 as i64 >> 32;
        match self.0 & 7 {
            1 => Cfa::Sp(offset),
            2 => Cfa::Bp(offset),
            3 => Cfa::AtBp(offset),
            4 => Cfa::Signal,
            5 => Cfa::End,
            _ => Cfa::Unknown,
        }
    }

    /// Where the caller's rbp is.
    #[inline(always)]
    pub fn saved_bp(self) -> SavedBp {
        let offset = i64::from((self.0 as i32) >> 8) * 8;
        match self.0 >> 3 & 3 {
            1 => SavedBp::AtCfa(offset),
            2 => SavedBp::AtBp(offset),
            _ => SavedBp::Same,
        }
    }
}

const RBP: u64 = 6;
const RSP: u64 = 7;
const RETURN_ADDRESS: u64 = 16;

/// A place in a table. Reads trust the table's own lengths: it belongs to a
/// loaded object, whose linker wrote it.
#[derive(Clone, Copy)]
struct Cursor {
    at: u64,
    end: u64,
}

impl Cursor {
    fn u8(&mut self) -> Option<u8> {
        if self.at >= self.end {
            return None;
        }
        // SAFETY: below the end of the entry, which lies in a mapped table.
        let value = unsafe { (self.at as *const u8).read() };
        self.at += 1;
        Some(value)
    }

    fn number(&mut self, bytes: u64) -> Option<u64> {
        let mut value = 0;
        for i in 0..bytes {
            value |= u64::from(self.u8()?) << (8 * i);
        }
        Some(value)
    }

    fn uleb(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.u8()?;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    fn sleb(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0i64, 0);
        loop {
            let byte = self.u8()?;
            if shift < 64 {
                value |= i64::from(byte & 0x7f) << shift;
            }
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(if shift < 64 && byte & 0x40 != 0 {
                    value | -1 << shift
                } else {
                    value
                });
            }
        }
    }

    /// A pointer in DW_EH_PE encoding `kind`; `table` is what datarel means.
    fn pointer(&mut self, kind: u8, table: u64) -> Option<u64> {
        if kind == 0xff {
            return Some(0);
        }
        let base = match kind & 0x70 {
            0x00 => 0,
            0x10 => self.at,
            0x30 => table,
            _ => return None,
        };
        let value = match kind & 0x0f {
            0x00 | 0x04 | 0x0c => self.number(8)?,
            0x01 => self.uleb()?,
            0x02 => self.number(2)?,
            0x03 => self.number(4)?,
            0x09 => self.sleb()? as u64,
            0x0a => i64::from(self.number(2)? as i16) as u64,
            0x0b => i64::from(self.number(4)? as i32) as u64,
            _ => return None,
        };
        let address = base.wrapping_add(value);
        if kind & 0x80 == 0 {
            Some(address)
        } else {
            // SAFETY: an indirect pointer of a loaded object's table.
            Some(unsafe { sys::word(address) })
        }
    }
}

struct Cie {
    code_align: u64,
    data_align: i64,
    pointer_kind: u8,
    augmented: bool,
    signal: bool,
    program: Cursor,
}

/// The function (its start) that `address` lies in, and its frame's rule
/// there.
///
/// # Safety
///
/// `header` must be the `.eh_frame_hdr` of a loaded object.
pub unsafe fn rule_at(header: u64, address: u64) -> Option<(u64, Rule)> {
    let mut at = Cursor {
        at: header,
        end: header + 20,
    };
    let (version, frame_kind, count_kind, table_kind) = (at.u8()?, at.u8()?, at.u8()?, at.u8()?);
    if version != 1 || table_kind != 0x3b {
        return None;
    }
    at.pointer(frame_kind, header)?;
    let count = at.pointer(count_kind, header)?;
    let table = at.at;
    let entry = |index: u64, half: u64| {
        // SAFETY: `index` is below the table's own count.
        let value = unsafe { ((table + index * 8 + half * 4) as *const i32).read_unaligned() };
        header.wrapping_add_signed(value.into())
    };
    // The last entry at or below the address.
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle, 0) <= address {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let fde = entry(low.checked_sub(1)?, 1);
    let mut at = entry_at(fde)?;
    let cie_pointer = at.at;
    let cie = cie(cie_pointer.wrapping_sub(at.number(4)?))?;
    let start = at.pointer(cie.pointer_kind, header)?;
    let length = at.pointer(cie.pointer_kind & 0x0f, header)?;
    if address.wrapping_sub(start) >= length {
        return None;
    }
    if cie.augmented {
        let skip = at.uleb()?;
        at.at += skip;
    }
    if cie.signal {
        return Some((start, Rule::SIGNAL));
    }
    let mut machine = Machine {
        row: Row {
            cfa: Cfa::Unknown,
            saved: SavedBp::Same,
            end: false,
        },
        initial: Row {
            cfa: Cfa::Unknown,
            saved: SavedBp::Same,
            end: false,
        },
        stack: [Row {
            cfa: Cfa::Unknown,
            saved: SavedBp::Same,
            end: false,
        }; 8],
        depth: 0,
        location: start,
    };
    machine.run(cie.program, &cie, u64::MAX)?;
    machine.initial = machine.row;
    machine.run(at, &cie, address)?;
    let rule = if machine.row.end {
        Rule::END
    } else {
        Rule::new(machine.row.cfa, machine.row.saved)
    };
    Some((start, rule))
}

fn entry_at(at: u64) -> Option<Cursor> {
    let mut cursor = Cursor { at, end: at + 12 };
    let mut length = cursor.number(4)?;
    if length == 0xffff_ffff {
        length = cursor.number(8)?;
    }
    (length != 0).then(|| Cursor {
        at: cursor.at,
        end: cursor.at + length,
    })
}

fn cie(at: u64) -> Option<Cie> {
    let mut at = entry_at(at)?;
    if at.number(4)? != 0 {
        return None;
    }
    let version = at.u8()?;
    let mut augmentation = [0u8; 8];
    let mut letters = 0;
    loop {
        let letter = at.u8()?;
        if letter == 0 {
            break;
        }
        *augmentation.get_mut(letters)? = letter;
        letters += 1;
    }
    let code_align = at.uleb()?;
    let data_align = at.sleb()?;
    let register = if version == 1 {
        u64::from(at.u8()?)
    } else {
        at.uleb()?
    };
    if register != RETURN_ADDRESS {
        return None;
    }
    let mut cie = Cie {
        code_align,
        data_align,
        pointer_kind: 0,
        augmented: augmentation[0] == b'z',
        signal: false,
        program: at,
    };
    if cie.augmented {
        let length = at.uleb()?;
        let program = at.at + length;
        for letter in &augmentation[1..letters] {
            match letter {
                b'R' => cie.pointer_kind = at.u8()?,
                b'L' => {
                    at.u8()?;
                }
                b'P' => {
                    let kind = at.u8()?;
                    at.pointer(kind & 0x7f, 0)?;
                }
                b'S' => cie.signal = true,
                _ => return None,
            }
        }
        cie.program = Cursor {
            at: program,
            end: at.end,
        };
    } else if letters != 0 {
        return None;
    }
    Some(cie)
}

#[derive(Clone, Copy)]
struct Row {
    cfa: Cfa,
    saved: SavedBp,
    end: bool,
}

struct Machine {
    row: Row,
    initial: Row,
    stack: [Row; 8],
    depth: usize,
    location: u64,
}

impl Machine {
    /// Runs a program up to the row that covers `address`.
    fn run(&mut self, mut at: Cursor, cie: &Cie, address: u64) -> Option<()> {
        while at.at < at.end {
            let op = at.u8()?;
            let low = u64::from(op & 0x3f);
            let mut advance = None;
            match op >> 6 {
                1 => advance = Some(low),
                2 => {
                    let offset = at.uleb()?;
                    self.saved(low, offset as i64 * cie.data_align);
                }
                3 => self.restore(low),
                _ => match op {
                    0x00 => {}
                    0x01 => self.location = at.pointer(cie.pointer_kind, 0)?,
                    0x02 => advance = Some(at.number(1)?),
                    0x03 => advance = Some(at.number(2)?),
                    0x04 => advance = Some(at.number(4)?),
                    0x05 => {
                        let register = at.uleb()?;
                        let offset = at.uleb()?;
                        self.saved(register, offset as i64 * cie.data_align);
                    }
                    0x06 => {
                        let register = at.uleb()?;
                        self.restore(register);
                    }
                    0x07 => {
                        if at.uleb()? == RETURN_ADDRESS {
                            self.row.end = true;
                        }
                    }
                    0x08 => {
                        if at.uleb()? == RBP {
                            self.row.saved = SavedBp::Same;
                        }
                    }
                    0x09 => {
                        let register = at.uleb()?;
                        at.uleb()?;
                        // rbp in another register: not followed.
                        if register == RBP || register == RETURN_ADDRESS {
                            return None;
                        }
                    }
                    0x0a => {
                        *self.stack.get_mut(self.depth)? = self.row;
                        self.depth += 1;
                    }
                    0x0b => {
                        self.depth = self.depth.checked_sub(1)?;
                        self.row = self.stack[self.depth];
                    }
                    0x0c => {
                        let register = at.uleb()?;
                        let offset = at.uleb()? as i64;
                        self.row.cfa = cfa_of(register, offset);
                    }
                    0x0d => {
                        let register = at.uleb()?;
                        self.row.cfa = cfa_of(register, self.cfa_offset());
                    }
                    0x0e => {
                        let offset = at.uleb()? as i64;
                        self.set_cfa_offset(offset);
                    }
                    0x0f => {
                        let length = at.uleb()?;
                        self.row.cfa = cfa_expression(Cursor {
                            at: at.at,
                            end: at.at + length,
                        });
                        at.at += length;
                    }
                    0x10 | 0x16 => {
                        let register = at.uleb()?;
                        let length = at.uleb()?;
                        if register == RBP {
                            let mut code = Cursor {
                                at: at.at,
                                end: at.at + length,
                            };
                            // DW_OP_breg6 n: saved at rbp + n.
                            if op != 0x10 || code.u8()? != 0x76 {
                                return None;
                            }
                            self.row.saved = SavedBp::AtBp(code.sleb()?);
                        } else if register == RETURN_ADDRESS {
                            return None;
                        }
                        at.at += length;
                    }
                    0x11 => {
                        let register = at.uleb()?;
                        let offset = at.sleb()?;
                        self.saved(register, offset * cie.data_align);
                    }
                    0x12 => {
                        let register = at.uleb()?;
                        let offset = at.sleb()? * cie.data_align;
                        self.row.cfa = cfa_of(register, offset);
                    }
                    0x13 => {
                        let offset = at.sleb()? * cie.data_align;
                        self.set_cfa_offset(offset);
                    }
                    0x14 | 0x15 => {
                        at.uleb()?;
                        at.uleb()?;
                    }
                    0x2e => {
                        at.uleb()?;
                    }
                    _ => return None,
                },
            }
            if let Some(delta) = advance {
                self.location += delta * cie.code_align;
            }
            // A row holds for addresses below where the next one begins.
            if self.location > address {
                return Some(());
            }
        }
        Some(())
    }

    fn saved(&mut self, register: u64, offset: i64) {
        if register == RBP {
            self.row.saved = SavedBp::AtCfa(offset);
        } else if register == RETURN_ADDRESS && offset != -8 {
            self.row.cfa = Cfa::Unknown;
        }
    }

    fn restore(&mut self, register: u64) {
        if register == RBP {
            self.row.saved = self.initial.saved;
        }
    }

    fn cfa_offset(&self) -> i64 {
        match self.row.cfa {
            Cfa::Sp(offset) | Cfa::Bp(offset) => offset,
            _ => 0,
        }
    }

    fn set_cfa_offset(&mut self, offset: i64) {
        self.row.cfa = match self.row.cfa {
            Cfa::Sp(_) => Cfa::Sp(offset),
            Cfa::Bp(_) => Cfa::Bp(offset),
            other => other,
        };
    }
}

fn cfa_of(register: u64, offset: i64) -> Cfa {
    match register {
        RSP => Cfa::Sp(offset),
        RBP => Cfa::Bp(offset),
        _ => Cfa::Unknown,
    }
}

/// `DW_OP_breg6 n; DW_OP_deref`, what functions that realign their stack use.
/// (The PLT's expression is not met: no return address lies in a PLT.)
fn cfa_expression(mut code: Cursor) -> Cfa {
    let parse = || {
        let register = code.u8()?;
        let offset = code.sleb()?;
        let deref = code.u8()?;
        (register == 0x76 && deref == 0x06 && code.at == code.end).then_some(offset)
    };
    let mut parse = parse;
    parse().map_or(Cfa::Unknown, Cfa::AtBp)
}
