//! The signal frame by which a borrowed thread gives itself back.
//!
//! A function that returns to libc's `__restore_rt` with such a frame above it
//! ends in `rt_sigreturn`: the kernel takes all registers, the vector state and
//! the signal mask from the frame. So a thread whose registers were changed
//! once needs nobody to change them back.

use std::arch::x86_64::__cpuid_count;

use crate::tracee::State;

/// What glibc's `__restore_rt` consists of: `mov $15, %rax; syscall`.
pub(crate) const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

/// The ABI's area below the stack pointer that a function may use.
const RED_ZONE: u64 = 128;
/// Return address, `ucontext` and `siginfo`.
const FRAME_BYTES: usize = 8 + CONTEXT_BYTES + 128;
const CONTEXT_BYTES: usize = 304;

/// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`.
const FLAGS: u64 = 2 | 4;
/// `UC_FP_XSTATE`.
const WITH_XSTATE: u64 = 1;

/// Marks the kernel's description of the vector state, and its end.
pub(crate) const XSTATE_MAGIC1: u32 = 0x4650_5853;
const XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Where in the vector state that description lies.
pub(crate) const DESCRIPTION: usize = 464;
/// What FXSAVE has, where there is no XSAVE.
const FXSTATE: usize = 512;
/// Legacy area and header: what every XSAVE image has.
const LEAST_XSTATE: usize = 576;
/// The parts of a frame that a reader of stacks needs: offsets from its start.
pub(crate) const CONTEXT_RSP: usize = 8 + 40 + 120;
pub(crate) const CONTEXT_RIP: usize = 8 + 40 + 128;
pub(crate) const CONTEXT_FPSTATE: usize = 8 + 40 + 184;

/// Trap, direction and alignment check: not for a function that is called.
pub(crate) const UNWANTED_FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 18;

/// State of the matrix unit: its tiles are in no ordinary signal frame.
const TILE_CONFIG: u64 = 1 << 17;
const TILE_DATA: u64 = 1 << 18;

/// Bytes for a stack below a thread's, and where they belong.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What the stack pointer has to be where the function begins: that of its
    /// return address.
    pub(crate) sp: u64,
    /// Where the part begins that brings the thread back: the same, or above it.
    pub(crate) last: u64,
    /// Where the bytes that were given lie.
    pub(crate) data: u64,
    /// From `sp` on.
    pub(crate) bytes: Vec<u8>,
}

/// Why a thread's state does not go into a signal frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

/// How a thread's `errno` is put back, when the function has changed it.
///
/// A first frame has the thread call libc's `swab` on its way back, which copies
/// bytes and does nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errno {
    pub(crate) swab: u64,
    /// Where it lies.
    pub(crate) address: u64,
    pub(crate) value: [u8; 4],
    /// Signals that stay blocked until the thread is back.
    pub(crate) mask: u64,
}

/// Builds the frame that brings a thread back to `state`, with `data` above it.
///
/// A system call that was interrupted begins anew.
pub(crate) fn build(
    state: &State,
    restorer: u64,
    data: &[u8],
    errno: Option<&Errno>,
) -> Result<Frame, Unfit> {
    let (xstate, features) = signal_xstate(&state.xstate)?;
    let top = state.registers.rsp.checked_sub(RED_ZONE).ok_or(Unfit)?;
    let below = |from: u64, count: usize, alignment: u64| {
        from.checked_sub(count as u64)
            .map(|at| at & !(alignment - 1))
            .ok_or(Unfit)
    };
    let data_at = below(top, data.len(), 16)?;
    let xstate_at = below(data_at, xstate.len() + 4, 64)?;
    // As after a call: a return address at 8 beyond a multiple of 16.
    let last = below(xstate_at, FRAME_BYTES + 8, 16)? + 8;
    let value_at = below(last, 8, 8)?;
    let sp = match errno {
        Some(_) => below(value_at, FRAME_BYTES + 8, 16)? + 8,
        None => last,
    };

    let mut bytes = vec![0; (top - sp) as usize];
    let mut put = |at: u64, part: &[u8]| {
        let at = (at - sp) as usize;
        bytes[at..at + part.len()].copy_from_slice(part);
    };
    let registers = returning(state);
    let context = last + 8;
    put(last, &restorer.to_le_bytes());
    let flags = features.map_or(FLAGS, |_| FLAGS | WITH_XSTATE);
    put(context, &flags.to_le_bytes());
    // uc_link and uc_stack stay 0: the kernel refuses such an alternate stack
    // and so leaves the thread's as it is.
    put(context + 40, &general(&registers));
    put(context + 40 + 184, &xstate_at.to_le_bytes());
    put(context + 296, &state.mask.to_le_bytes());
    if let Some(errno) = errno {
        let mut registers = registers;
        registers.rip = errno.swab;
        registers.rsp = last;
        registers.rdi = value_at;
        registers.rsi = errno.address;
        registers.rdx = 4;
        registers.eflags &= !UNWANTED_FLAGS;
        let [a, b, c, d] = errno.value;
        put(value_at, &[b, a, d, c]);
        put(sp, &restorer.to_le_bytes());
        // Without vector state: that is empty then, until the last frame.
        put(sp + 8, &FLAGS.to_le_bytes());
        put(sp + 8 + 40, &general(&registers));
        put(sp + 8 + 296, &errno.mask.to_le_bytes());
    }

    put(xstate_at, &xstate);
    if let Some(features) = features {
        let size = xstate.len() as u32;
        let description = xstate_at + DESCRIPTION as u64;
        put(description, &XSTATE_MAGIC1.to_le_bytes());
        put(description + 4, &(size + 4).to_le_bytes());
        put(description + 8, &features.to_le_bytes());
        put(description + 16, &size.to_le_bytes());
        put(description + 20, &[0; 28]);
        put(xstate_at + u64::from(size), &XSTATE_MAGIC2.to_le_bytes());
    }
    put(data_at, data);
    Ok(Frame {
        sp,
        last,
        data: data_at,
        bytes,
    })
}

/// The registers in the order of a `sigcontext`.
fn general(registers: &libc::user_regs_struct) -> Vec<u8> {
    [
        registers.r8,
        registers.r9,
        registers.r10,
        registers.r11,
        registers.r12,
        registers.r13,
        registers.r14,
        registers.r15,
        registers.rdi,
        registers.rsi,
        registers.rbp,
        registers.rbx,
        registers.rdx,
        registers.rax,
        registers.rcx,
        registers.rsp,
        registers.rip,
        registers.eflags,
        // cs, gs, fs, ss: fs and gs are not restored from here.
        (registers.cs & 0xffff) | (registers.ss & 0xffff) << 48,
    ]
    .iter()
    .flat_map(|register| register.to_le_bytes())
    .collect()
}

/// The registers with which a thread goes on by itself: those that it had,
/// before the system call where one was interrupted.
fn returning(state: &State) -> libc::user_regs_struct {
    let mut registers = state.registers;
    if state.is_interrupted() {
        registers.rax = registers.orig_rax;
        // Behind the two bytes of `syscall`.
        registers.rip -= 2;
    }
    registers
}

/// The vector state as a signal frame has it, and what it consists of; that is not
/// told in one without XSAVE, which the kernel takes as it is.
///
/// `ptrace` gives room for all that the processor can have; a frame must not
/// be larger than what this process may use, or the kernel takes the oldest
/// part of it only.
fn signal_xstate(xstate: &[u8]) -> Result<(Vec<u8>, Option<u64>), Unfit> {
    if xstate.len() == FXSTATE {
        return Ok((xstate.to_vec(), None));
    }
    if xstate.len() < LEAST_XSTATE {
        return Err(Unfit);
    }
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&xstate[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let in_use = word(512);
    if in_use & TILE_DATA != 0 {
        return Err(Unfit);
    }
    let features = word(DESCRIPTION) & !(TILE_CONFIG | TILE_DATA);
    let mut size = LEAST_XSTATE;
    for feature in 2..63 {
        if features & (1 << feature) != 0 {
            let part = __cpuid_count(0xd, feature);
            size = size.max((part.eax + part.ebx) as usize);
        }
    }
    if in_use & !features != 0 || size > xstate.len() {
        return Err(Unfit);
    }
    Ok((xstate[..size].to_vec(), Some(features)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut registers = crate::tracee::NO_REGISTERS;
        registers.rsp = 0x7fff_0000_1238;
        registers.rip = 0x40_1002;
        registers.orig_rax = 23;
        registers.rax = -514_i64 as u64;
        let mut xstate = vec![0; 4096];
        xstate[DESCRIPTION] = 3;
        State {
            registers,
            xstate,
            mask: 0x55,
        }
    }

    fn word(frame: &Frame, at: usize) -> u64 {
        u64::from_le_bytes(frame.bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn it_lies_below_the_red_zone_as_the_abi_wants_it() {
        let state = state();
        for data in [&b""[..], b"/a", &[7; 500]] {
            let frame = build(&state, 0x1000, data, None).unwrap();
            assert_eq!(frame.sp % 16, 8);
            assert_eq!(
                frame.sp + frame.bytes.len() as u64,
                state.registers.rsp - 128
            );
            let at = (frame.data - frame.sp) as usize;
            assert_eq!(&frame.bytes[at..at + data.len()], data);
            let xstate = word(&frame, CONTEXT_FPSTATE);
            assert_eq!(xstate % 64, 0);
            assert!(xstate >= frame.sp + FRAME_BYTES as u64);
        }
    }

    #[test]
    fn an_interrupted_system_call_begins_anew() {
        let mut state = state();
        let frame = build(&state, 0x1000, b"", None).unwrap();
        assert_eq!(word(&frame, 0), 0x1000);
        assert_eq!(word(&frame, CONTEXT_RIP), 0x40_1000);
        assert_eq!(word(&frame, CONTEXT_RIP - 24), 23);
        assert_eq!(word(&frame, 8 + 296), 0x55);
        // One that came to its end does not.
        state.registers.rax = 5;
        let frame = build(&state, 0x1000, b"", None).unwrap();
        assert_eq!(word(&frame, CONTEXT_RIP), 0x40_1002);
        assert_eq!(word(&frame, CONTEXT_RIP - 24), 5);
    }

    #[test]
    fn the_way_back_by_way_of_errno() {
        let state = state();
        let errno = Errno {
            swab: 0x2000,
            address: 0x3000,
            value: [1, 2, 3, 4],
            mask: 0x66,
        };
        let frame = build(&state, 0x1000, b"text", Some(&errno)).unwrap();
        assert_eq!((frame.sp % 16, frame.last % 16), (8, 8));
        assert_eq!(word(&frame, CONTEXT_RIP), 0x2000);
        assert_eq!(word(&frame, CONTEXT_RSP), frame.last);
        assert_eq!(word(&frame, CONTEXT_FPSTATE), 0);
        assert_eq!(word(&frame, 8 + 296), 0x66);
        let source = (word(&frame, CONTEXT_RSP - 56) - frame.sp) as usize;
        assert_eq!(frame.bytes[source..source + 4], [2, 1, 4, 3]);
        let last = (frame.last - frame.sp) as usize;
        assert_eq!(word(&frame, last), 0x1000);
        assert_eq!(word(&frame, last + CONTEXT_RIP), 0x40_1000);
    }

    #[test]
    fn without_xsave_the_state_goes_as_it_is() {
        let mut state = state();
        state.xstate = (0..FXSTATE).map(|at| at as u8).collect();
        let frame = build(&state, 0x1000, b"", None).unwrap();
        assert_eq!(word(&frame, 8), FLAGS);
        let at = (word(&frame, CONTEXT_FPSTATE) - frame.sp) as usize;
        assert_eq!(frame.bytes[at..at + FXSTATE], state.xstate);
        // Nothing beside it, and no more than there is room for.
        assert!(frame.bytes[at + FXSTATE..].iter().all(|byte| *byte == 0));
        state.xstate.push(0);
        assert_eq!(build(&state, 0x1000, b"", None).unwrap_err(), Unfit);
    }

    #[test]
    fn matrix_tiles_do_not_fit() {
        let mut state = state();
        state.xstate[DESCRIPTION + 2] = 6;
        assert!(build(&state, 0x1000, b"", None).is_ok());
        state.xstate[512 + 2] = 4;
        assert_eq!(build(&state, 0x1000, b"", None).unwrap_err(), Unfit);
    }
}
