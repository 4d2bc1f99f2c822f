//! The stack of a stopped thread, by the unwind rules in its process's memory.
//!
//! It is asked one thing only: does a frame lie in code that may hold a lock of
//! the loader or the allocator? So whatever is not understood ends the walk with
//! [`Walk::Unknown`], and the thread is left alone.

use std::io;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian, ParsedEhFrameHdr, Register,
    RegisterRule, UnwindContext, UnwindSection as _,
};

use crate::image::Image;
use crate::target::Process;

/// Deeper stacks are not walked.
const MOST_FRAMES: usize = 512;
/// Most bytes of rules that are read of an image.
const MOST_BYTES: u64 = 64 << 20;

const RBX: usize = 3;
const RBP: usize = 6;
const RSP: usize = 7;
const R12: usize = 12;
const RETURN_ADDRESS: usize = 16;

/// The image of each frame, innermost first, or why there is no such list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// To the outermost frame: an image's index for each.
    Whole(Vec<usize>),
    /// The rules of the image of this index were not read yet.
    NeedsRules(usize),
    /// The walk met something that it does not understand.
    Unknown,
}

/// The unwind rules of an image.
struct Rules {
    start: u64,
    bytes: Vec<u8>,
    header_bytes: usize,
    frames: u64,
}

impl Rules {
    fn read(process: &Process, image: &Image) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "no unwind rules");
        let (start, header_bytes) = image.frame_header().ok_or_else(missing)?;
        let end = image.segment_end(start).ok_or_else(missing)?;
        let bytes = process.bytes(start, (end - start).min(MOST_BYTES) as usize)?;
        let header_bytes = (header_bytes as usize).min(bytes.len());
        let header = EhFrameHdr::new(&bytes[..header_bytes], LittleEndian)
            .parse(&BaseAddresses::default().set_eh_frame_hdr(start), 8)
            .map_err(|_| missing())?;
        let frames = match header.eh_frame_ptr() {
            gimli::Pointer::Direct(frames) if frames >= start => frames,
            _ => return Err(missing()),
        };
        Ok(Self {
            start,
            bytes,
            header_bytes,
            frames,
        })
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default()
            .set_eh_frame_hdr(self.start)
            .set_eh_frame(self.frames)
    }

    fn header(&self) -> Option<ParsedEhFrameHdr<gimli::EndianSlice<'_, LittleEndian>>> {
        EhFrameHdr::new(&self.bytes[..self.header_bytes], LittleEndian)
            .parse(&self.bases(), 8)
            .ok()
    }

    fn frames(&self) -> Option<EhFrame<gimli::EndianSlice<'_, LittleEndian>>> {
        let at = (self.frames - self.start) as usize;
        Some(EhFrame::new(self.bytes.get(at..)?, LittleEndian))
    }
}

/// Registers by their DWARF numbers, as far as they are known.
#[derive(Debug, Clone)]
struct Registers([Option<u64>; 17]);

impl Registers {
    fn get(&self, register: Register) -> Result<u64, Unclear> {
        let value = self.0.get(usize::from(register.0)).copied();
        value.flatten().ok_or(Unclear)
    }

    fn of(registers: &libc::user_regs_struct) -> Self {
        Self(
            [
                registers.rax,
                registers.rdx,
                registers.rcx,
                registers.rbx,
                registers.rsi,
                registers.rdi,
                registers.rbp,
                registers.rsp,
                registers.r8,
                registers.r9,
                registers.r10,
                registers.r11,
                registers.r12,
                registers.r13,
                registers.r14,
                registers.r15,
                registers.rip,
            ]
            .map(Some),
        )
    }
}

/// Reads rules once, walks stacks by them.
#[derive(Default)]
pub(crate) struct Unwinder {
    /// By the image's index; inner `None`: it has none that we understand.
    rules: Vec<(usize, Option<Rules>)>,
}

impl Unwinder {
    /// Reads an image's rules. It takes a while: not with a thread stopped.
    pub(crate) fn learn(&mut self, process: &Process, images: &[Image], index: usize) {
        let rules = Rules::read(process, &images[index]).ok();
        self.rules.push((index, rules));
    }

    /// Walks a stopped thread's stack.
    pub(crate) fn walk(
        &self,
        process: &Process,
        images: &[Image],
        registers: &libc::user_regs_struct,
    ) -> Walk {
        let mut registers = Registers::of(registers);
        let mut walked = Vec::new();
        let mut context = UnwindContext::new();
        while walked.len() < MOST_FRAMES {
            let Some(address) = registers.0[RETURN_ADDRESS] else {
                return Walk::Unknown;
            };
            // A return address may be that behind its function's end.
            let address = address.wrapping_sub(u64::from(!walked.is_empty()));
            let Some(index) = images.iter().position(|image| image.holds(address)) else {
                return Walk::Unknown;
            };
            let rules = match self.rules.iter().find(|(known, _)| *known == index) {
                Some((_, Some(rules))) => rules,
                Some((_, None)) => return Walk::Unknown,
                None => return Walk::NeedsRules(index),
            };
            walked.push(index);
            match step(process, rules, &mut context, address, &registers) {
                Ok(Some(caller)) => registers = caller,
                Ok(None) => return Walk::Whole(walked),
                Err(Unclear) => return Walk::Unknown,
            }
        }
        Walk::Unknown
    }
}

/// A frame whose rules are not understood, or lead nowhere.
struct Unclear;

/// The registers in the caller of a frame; `None`: it is the outermost.
fn step(
    process: &Process,
    rules: &Rules,
    context: &mut UnwindContext<usize>,
    address: u64,
    registers: &Registers,
) -> Result<Option<Registers>, Unclear> {
    let header = rules.header().ok_or(Unclear)?;
    let (frames, bases) = (rules.frames().ok_or(Unclear)?, rules.bases());
    let entry = header
        .table()
        .ok_or(Unclear)?
        .fde_for_address(&frames, &bases, address, EhFrame::cie_from_offset)
        .map_err(|_| Unclear)?;
    // What a signal interrupted may be anything.
    if entry.is_signal_trampoline() {
        return Err(Unclear);
    }
    let row = entry
        .unwind_info_for_address(&frames, &bases, context, address)
        .map_err(|_| Unclear)?;
    if row.register(Register(RETURN_ADDRESS as u16)) == Some(RegisterRule::Undefined) {
        return Ok(None);
    }
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return Err(Unclear);
    };
    let base = registers.get(*register)?;
    let cfa = base.wrapping_add_signed(*offset);
    // A stack grows downwards: so the walk comes to an end.
    if cfa <= registers.get(Register(RSP as u16))? {
        return Err(Unclear);
    }
    let mut caller = Registers([None; 17]);
    for number in 0..caller.0.len() {
        caller.0[number] = match row.register(Register(number as u16)) {
            Some(RegisterRule::Offset(offset)) => {
                let slot = cfa.wrapping_add_signed(offset);
                Some(process.word(slot).map_err(|_| Unclear)?)
            }
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => registers.get(other).ok(),
            Some(RegisterRule::SameValue) => registers.0[number],
            // Those that a function gives back as they were.
            None if matches!(number, RBX | RBP) || (R12..RETURN_ADDRESS).contains(&number) => {
                registers.0[number]
            }
            _ => None,
        };
    }
    caller.0[RSP] = Some(cfa);
    Ok(Some(caller))
}
