//! Native stacks, by verified incremental unwinding.
//!
//! A thread keeps its last stack: for each frame the slot that held its return
//! address, the address, and what the frame's unwind rule read besides. A new
//! event steps only from the top until it meets a kept frame in the same slot
//! with the same contents; then every older word is checked to be what it was,
//! and that frame's node is the stack's.
//!
//! Events alternate between a few places: the newest frames of recent stacks are
//! kept aside as well ([`Memo`]), each with the kept frame that it joins.
//!
//! Why that is exact: the walk from a state (slot, rbp) outwards is a function
//! of the words it reads. If they are unchanged, so is the walk. Only words
//! that matter are kept: the return addresses, and saved copies of rbp where
//! an older frame's rule computes from it.
//!
//! # Invariants
//!
//! * A kept stack lies on the thread's own stack as a whole: all its slots are
//!   mapped as long as the thread lives, whatever has become of the frames.
//!   Stacks taken elsewhere (coroutines, signal stacks) are not kept.
//! * `frames[i].checks_end` checks cover frames `0..=i`, 0 the outermost.
//! * No word beyond the bounds of the stack we are on is ever read.

use core::cell::UnsafeCell;
use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use leakline_wire::trie::{MAX_NODES, NO_STACK, kind, native_frame};

use crate::cfi::{self, Cfa, Rule, SavedBp};
use crate::session::{FLUSH, MODULES_CHANGED, Session};
use crate::thread::{Cached, MAX_NATIVE, NODE_CACHE, Thread};
use crate::{elf, hooks, modules, python, sys, trie};

/// A frame of the last stack.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Frame {
    /// Where its return address lies.
    slot: u64,
    /// The return address.
    address: u64,
    /// rbp as it is once control is back there.
    bp: u64,
    node: u32,
    checks_end: u32,
    /// An older frame's rule computes from `bp` before it is restored.
    bp_matters: bool,
}

/// A word that must still be what it was.
#[derive(Clone, Copy)]
#[repr(C)]
struct Check {
    at: u64,
    value: u64,
}

/// A frame just stepped over, innermost first.
#[derive(Clone, Copy)]
#[repr(C)]
struct Fresh {
    slot: u64,
    address: u64,
    bp: u64,
    rule: Rule,
    exact: bool,
}

/// The newest frames of a recent stack, down to a kept frame: all words that
/// the walk read on the way, and where it came to.
#[derive(Clone, Copy)]
#[repr(C)]
struct Memo {
    /// As the walk began. 0 = empty.
    slot: u64,
    bp: u64,
    /// The kept frame that it came to: its index, and what it was.
    join_slot: u64,
    join_bp: u64,
    join: u32,
    join_node: u32,
    /// The stack's node.
    node: u32,
    count: u32,
    /// The walk computed from `bp`.
    bp_matters: bool,
    /// The first is that of `slot`.
    words: [Check; MEMO_WORDS],
}

/// Stacks that a thread remembers the newest frames of.
const MEMOS: usize = 256;
/// Most words of a memo: of longer ways the kept stack is made new.
const MEMO_WORDS: usize = 8;

/// A thread's last stack, and room for the next.
#[repr(C)]
pub struct Kept {
    frames: [Frame; MAX_NATIVE],
    checks: [Check; 2 * MAX_NATIVE],
    fresh: [Fresh; MAX_NATIVE],
    memos: [Memo; MEMOS],
}

// ---------------------------------------------------------------- rules

const RULES: usize = 1 << 15;

/// A cached rule. `check` = address ^ rule ^ generation mark: a torn pair of
/// words does not match, so no lock is needed.
struct Slot {
    check: AtomicU64,
    rule: AtomicU64,
}

struct Table(UnsafeCell<*mut Slot>);
// SAFETY: written once, while the session starts; the words are atomic.
unsafe impl Sync for Table {}
static TABLE: Table = Table(UnsafeCell::new(null_mut()));
static RULE_GENERATION: AtomicU32 = AtomicU32::new(1);
/// Start of the function that evaluates Python bytecode, 0 without one.
static EVALUATOR: AtomicU64 = AtomicU64::new(0);

/// Gets memory for the rule cache. False when there is none.
pub fn set_up() -> bool {
    // SAFETY: as below.
    if unsafe { !(*TABLE.0.get()).is_null() } {
        return true;
    }
    let Some(memory) = sys::map_private(RULES * size_of::<Slot>()) else {
        return false;
    };
    // SAFETY: the session is being started: nobody else looks.
    unsafe { *TABLE.0.get() = memory.cast() };
    true
}

/// An interpreter was found: its evaluator's frames are marked from now on.
pub fn mark_evaluator() {
    let address = elf::find(c"_PyEval_EvalFrameDefault");
    EVALUATOR.store(address, Ordering::Relaxed);
    forget_rules();
}

/// The evaluator was unloaded.
pub fn forget_evaluator() {
    EVALUATOR.store(0, Ordering::Relaxed);
}

/// Code went away: addresses may come to mean something else.
pub fn forget_rules() {
    RULE_GENERATION.fetch_add(1, Ordering::Release);
}

/// The rule for the frame that `address` returns to (or, if `exact`, that was
/// interrupted there), and whether it is so: one that could not be looked up
/// just now is unknown, and not to be kept.
#[inline(always)]
unsafe fn rule_for(t: *mut Thread, session: &Session, address: u64, exact: bool) -> (Rule, bool) {
    let index = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49) as usize & (RULES - 1);
    let generation =
        u64::from(RULE_GENERATION.load(Ordering::Relaxed)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mark = address ^ generation ^ u64::from(exact) << 63;
    // SAFETY: set up before any hook records; the index is below RULES.
    let slot = unsafe { &*(*TABLE.0.get()).add(index) };
    let rule = slot.rule.load(Ordering::Relaxed);
    if slot.check.load(Ordering::Relaxed) ^ rule == mark && rule != 0 {
        return (Rule::from_word(rule), true);
    }
    // SAFETY: the caller's.
    let (found, is_sure) = unsafe { find_rule(t, session, address, exact) };
    if is_sure {
        slot.check.store(mark ^ found.word(), Ordering::Relaxed);
        slot.rule.store(found.word(), Ordering::Relaxed);
    }
    (found, is_sure)
}

#[cold]
#[inline(never)]
unsafe fn find_rule(t: *mut Thread, session: &Session, address: u64, exact: bool) -> (Rule, bool) {
    // A call can be a function's last instruction: the return address then
    // belongs to the next one.
    let inside = if exact {
        address
    } else {
        address.wrapping_sub(1)
    };
    // SAFETY: the caller's.
    let (place, is_sure) = unsafe { modules::find(t, session, inside) };
    // Where the list could not be read, what it says may have been unloaded:
    // there may be no table any more.
    let Some(place) = place.filter(|_| is_sure) else {
        return (Rule::UNKNOWN, is_sure);
    };
    if place.unwind_table == 0 {
        return (Rule::UNKNOWN, true);
    }
    // SAFETY: the table of a loaded module.
    let Some((function, mut rule)) = (unsafe { cfi::rule_at(place.unwind_table, inside) }) else {
        return (Rule::UNKNOWN, true);
    };
    let evaluator = EVALUATOR.load(Ordering::Relaxed);
    if evaluator != 0 && function == evaluator {
        rule = rule.as_evaluator();
    }
    (rule, true)
}

// ---------------------------------------------------------------- walking

/// The node of the stack whose innermost frame returns to the word at `sp`,
/// with rbp as the caller has it.
///
/// # Safety
///
/// `t` must be this thread's state with `depth` not `IDLE`; `sp` must point to
/// the return address of a hook that has not returned.
#[inline(always)]
pub unsafe fn stack(t: *mut Thread, session: &Session, sp: u64, bp: u64) -> u32 {
    // SAFETY: the caller's; see the invariants for every word read.
    unsafe {
        if sp.wrapping_sub((*t).stack_low) < (*t).stack_high.wrapping_sub((*t).stack_low) {
            if let Some(node) = recall(t, sp, bp) {
                return node;
            }
            walk(t, session, sp, bp, (*t).stack_high, true)
        } else {
            elsewhere(t, session, sp, bp)
        }
    }
}

/// On a coroutine's or a signal's stack: nothing is reused, nothing kept.
#[cold]
#[inline(never)]
unsafe fn elsewhere(t: *mut Thread, session: &Session, sp: u64, bp: u64) -> u32 {
    // SAFETY: as for `stack`: the page of a word on the stack we are on.
    unsafe { walk(t, session, sp, bp, (sp & !(PAGE - 1)) + PAGE, false) }
}

const PAGE: u64 = 4096;
/// Most pages that one frame of another stack may span.
const MOST_FRAME_PAGES: u64 = 256;

/// Bounds of a stack that is not the thread's own are not known: what they
/// were may be unmapped, or another stack's, since. So the kernel is asked of
/// each page before it is read. The new bound, if all up to `end` is there.
#[cold]
#[inline(never)]
fn readable_up_to(high: u64, end: u64) -> Option<u64> {
    let mut at = high;
    while at < end {
        if at - high >= MOST_FRAME_PAGES * PAGE || !sys::is_readable(at) {
            return None;
        }
        at += PAGE;
    }
    Some(at)
}

#[inline(always)]
fn memo_index(slot: u64, address: u64) -> usize {
    ((address ^ slot.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56)
        as usize
        & (MEMOS - 1)
}

/// The node of a stack that was met before, if every word that the walk would
/// read is what it was.
#[inline(always)]
unsafe fn recall(t: *mut Thread, sp: u64, bp: u64) -> Option<u32> {
    // SAFETY: `t` is this thread's state. The words of a memo lie on the
    // thread's own stack, as those of kept frames do.
    unsafe {
        let kept = addr_of!((*t).native);
        let address = sys::word(sp);
        let frames = addr_of!((*kept).frames).cast::<Frame>();
        let checks = addr_of!((*kept).checks).cast::<Check>();
        let length = (*t).native_length;
        // The last stack once more?
        if length > 0 {
            let top = frames.add(length - 1);
            if (*top).slot == sp
                && (*top).address == address
                && ((*top).bp == bp || !(*top).bp_matters)
            {
                let end = (*top).checks_end as usize;
                return (verify(checks, end) == end).then_some((*top).node);
            }
        }
        let memo = addr_of!((*kept).memos)
            .cast::<Memo>()
            .add(memo_index(sp, address));
        if (*memo).slot != sp
            || ((*memo).bp != bp && (*memo).bp_matters)
            || (*memo).join as usize >= length
        {
            return None;
        }
        let join = frames.add((*memo).join as usize);
        if (*join).node != (*memo).join_node
            || (*join).slot != (*memo).join_slot
            || ((*join).bp != (*memo).join_bp && (*join).bp_matters)
        {
            return None;
        }
        let count = (*memo).count as usize;
        if verify(addr_of!((*memo).words).cast(), count) != count {
            return None;
        }
        let end = (*join).checks_end as usize;
        (verify(checks, end) == end).then_some((*memo).node)
    }
}

/// Remembers the frames above kept frame `join`: those of the stack that was
/// just kept.
#[inline(always)]
unsafe fn memorize(t: *mut Thread, join: usize, length: usize, node: u32) {
    // SAFETY: as in `recall`; frames and checks up to `length` are written.
    unsafe {
        let kept = addr_of_mut!((*t).native);
        let frames = addr_of!((*kept).frames).cast::<Frame>();
        let checks = addr_of!((*kept).checks).cast::<Check>();
        let (top, joined) = (frames.add(length - 1), frames.add(join));
        let (from, to) = ((*joined).checks_end as usize, (*top).checks_end as usize);
        let count = to - from;
        if count > MEMO_WORDS {
            return;
        }
        let memo = addr_of_mut!((*kept).memos)
            .cast::<Memo>()
            .add(memo_index((*top).slot, (*top).address));
        (*memo).slot = (*top).slot;
        (*memo).bp = (*top).bp;
        (*memo).bp_matters = (*top).bp_matters;
        (*memo).join = join as u32;
        (*memo).join_node = (*joined).node;
        (*memo).join_slot = (*joined).slot;
        (*memo).join_bp = (*joined).bp;
        (*memo).node = node;
        (*memo).count = count as u32;
        let words = addr_of_mut!((*memo).words).cast::<Check>();
        for i in 0..count {
            words.add(i).write(*checks.add(from + i));
        }
    }
}

#[inline(always)]
unsafe fn walk(
    t: *mut Thread,
    session: &Session,
    sp: u64,
    bp: u64,
    stack_high: u64,
    own: bool,
) -> u32 {
    // SAFETY: `t` is this thread's state. Words are read at `slot`, which is
    // below `high`, and at kept slots, which lie on the thread's own stack.
    unsafe {
        let kept = addr_of_mut!((*t).native);
        let frames = addr_of_mut!((*kept).frames).cast::<Frame>();
        let checks = addr_of_mut!((*kept).checks).cast::<Check>();
        let fresh = addr_of_mut!((*kept).fresh).cast::<Fresh>();
        let mut length = if own { (*t).native_length } else { 0 };
        let mut verified = false;
        let mut high = stack_high;
        let mut may_reach_on = !own;
        let mut keep = own;
        let (mut slot, mut bp) = (sp, bp);
        let mut count = 0;
        let mut address = sys::word(slot);
        let mut exact = false;
        let root;
        loop {
            while length > 0 && (*frames.add(length - 1)).slot < slot {
                length -= 1;
            }
            if length > 0 && keep {
                let frame = frames.add(length - 1);
                if (*frame).slot == slot
                    && (*frame).address == address
                    && ((*frame).bp == bp || !(*frame).bp_matters)
                {
                    if verified {
                        root = NO_STACK;
                        break;
                    }
                    let end = (*frame).checks_end as usize;
                    let good = verify(checks, end);
                    verified = true;
                    if good == end {
                        root = NO_STACK;
                        break;
                    }
                    // The oldest `good` words stand: so do their frames.
                    while length > 0 && (*frames.add(length - 1)).checks_end as usize > good {
                        length -= 1;
                    }
                }
            }
            let (rule, is_sure) = rule_for(t, session, address, exact);
            if !is_sure {
                keep = false;
                length = 0;
            }
            if count == MAX_NATIVE {
                session
                    .slot()
                    .truncated_stacks
                    .fetch_add(1, Ordering::Relaxed);
                root = trie::root(session, kind::TRUNCATED);
                length = 0;
                keep = false;
                break;
            }
            fresh.add(count).write(Fresh {
                slot,
                address,
                bp,
                rule,
                exact,
            });
            count += 1;
            let sp = slot + 8;
            let cfa = match rule.cfa() {
                Cfa::Sp(offset) => sp.wrapping_add_signed(offset),
                Cfa::Bp(offset) => bp.wrapping_add_signed(offset),
                Cfa::AtBp(offset) => {
                    let at = bp.wrapping_add_signed(offset);
                    if may_reach_on
                        && at >= slot
                        && let Some(bound) = readable_up_to(high, at.saturating_add(8))
                    {
                        high = bound;
                    }
                    if at < slot || at > high - 8 {
                        // Not kept: `append` would read there again.
                        keep = false;
                        length = 0;
                        0
                    } else {
                        sys::word(at)
                    }
                }
                Cfa::Signal => {
                    // ucontext on the stack: rbp, rsp and rip of what the
                    // signal interrupted. Such stacks are not kept.
                    keep = false;
                    length = 0;
                    if may_reach_on && let Some(bound) = readable_up_to(high, sp + 256) {
                        high = bound;
                    }
                    if sp + 256 > high {
                        root = broken(session);
                        break;
                    }
                    bp = sys::word(sp + 120);
                    let interrupted = sys::word(sp + 160);
                    address = sys::word(sp + 168);
                    exact = true;
                    if may_reach_on
                        && interrupted > sp
                        && let Some(bound) = readable_up_to(high, interrupted)
                    {
                        high = bound;
                    }
                    if interrupted <= sp || interrupted >= high {
                        // Back from a signal stack to the thread's own.
                        if interrupted < (*t).stack_low || interrupted >= (*t).stack_high {
                            root = trie::root(session, kind::SWITCHED);
                            break;
                        }
                        high = (*t).stack_high;
                        may_reach_on = false;
                    }
                    slot = interrupted - 8;
                    continue;
                }
                Cfa::End => {
                    length = 0;
                    root = NO_STACK;
                    break;
                }
                Cfa::Unknown => {
                    length = 0;
                    root = broken(session);
                    break;
                }
            };
            if may_reach_on
                && cfa > high
                && let Some(bound) = readable_up_to(high, cfa)
            {
                high = bound;
            }
            if cfa < sp || cfa > high {
                length = 0;
                root = broken(session);
                break;
            }
            match rule.saved_bp() {
                SavedBp::Same => {}
                SavedBp::AtCfa(offset) => {
                    let at = cfa.wrapping_add_signed(offset);
                    if at >= slot && at <= high - 8 {
                        bp = sys::word(at);
                    } else {
                        keep = false;
                        length = 0;
                    }
                }
                SavedBp::AtBp(offset) => {
                    let at = bp.wrapping_add_signed(offset);
                    if at >= slot && at <= high - 8 {
                        bp = sys::word(at);
                    } else {
                        keep = false;
                        length = 0;
                    }
                }
            }
            if cfa - 8 <= slot && !exact {
                length = 0;
                root = broken(session);
                break;
            }
            slot = cfa - 8;
            exact = false;
            address = sys::word(slot);
            if address == 0 {
                length = 0;
                root = NO_STACK;
                break;
            }
        }
        append(t, session, length, count, root, own, keep)
    }
}

#[cold]
fn broken(session: &Session) -> u32 {
    session
        .slot()
        .broken_unwinds
        .fetch_add(1, Ordering::Relaxed);
    trie::root(session, kind::BROKEN)
}

/// How many of the first `end` checks hold, from the oldest on.
#[inline(always)]
unsafe fn verify(checks: *const Check, end: usize) -> usize {
    let mut i = 0;
    // SAFETY: the first `end` checks are written, and lie on the thread's own
    // stack.
    unsafe {
        // Four at a time: one branch for four words.
        while i + 4 <= end {
            let check = checks.add(i);
            let wrong = (sys::word((*check).at) ^ (*check).value)
                | (sys::word((*check.add(1)).at) ^ (*check.add(1)).value)
                | (sys::word((*check.add(2)).at) ^ (*check.add(2)).value)
                | (sys::word((*check.add(3)).at) ^ (*check.add(3)).value);
            if wrong != 0 {
                break;
            }
            i += 4;
        }
        while i < end && sys::word((*checks.add(i)).at) == (*checks.add(i)).value {
            i += 1;
        }
    }
    i
}

/// Interns the fresh frames onto what stands of the kept stack.
#[inline(always)]
unsafe fn append(
    t: *mut Thread,
    session: &Session,
    mut length: usize,
    mut count: usize,
    root: u32,
    own: bool,
    mut keep: bool,
) -> u32 {
    // SAFETY: as in `walk`.
    unsafe {
        let kept = addr_of_mut!((*t).native);
        let frames = addr_of_mut!((*kept).frames).cast::<Frame>();
        let checks = addr_of_mut!((*kept).checks).cast::<Check>();
        let fresh = addr_of!((*kept).fresh).cast::<Fresh>();
        let joined = length;
        let (mut node, mut checks_end, mut older_matters, mut older_bp) = if length > 0 {
            let frame = frames.add(length - 1);
            (
                (*frame).node,
                (*frame).checks_end as usize,
                (*frame).bp_matters,
                (*frame).bp,
            )
        } else {
            (root, 0, false, 0)
        };
        while count > 0 {
            count -= 1;
            let new = fresh.add(count);
            let Some(here) = node_of(t, session, node, &*new) else {
                // What was kept up to here is whole.
                if own {
                    (*t).native_length = if keep { length } else { 0 };
                }
                return trie::fold(session);
            };
            node = here;
            if !keep {
                continue;
            }
            if length == MAX_NATIVE {
                // Deeper than we keep: the stack is whole all the same, but
                // the next event starts anew.
                length = 0;
                checks_end = 0;
                keep = false;
                continue;
            }
            let rule = (*new).rule;
            checks.add(checks_end).write(Check {
                at: (*new).slot,
                value: (*new).address,
            });
            checks_end += 1;
            let bp_matters = match rule.saved_bp() {
                SavedBp::Same => rule.cfa().uses_bp() || older_matters,
                SavedBp::AtCfa(offset) => {
                    if older_matters {
                        let cfa = match rule.cfa() {
                            Cfa::Sp(from) => ((*new).slot + 8).wrapping_add_signed(from),
                            Cfa::Bp(from) => (*new).bp.wrapping_add_signed(from),
                            _ => sys::word((*new).bp.wrapping_add_signed(match rule.cfa() {
                                Cfa::AtBp(from) => from,
                                _ => 0,
                            })),
                        };
                        let at = cfa.wrapping_add_signed(offset);
                        checks.add(checks_end).write(Check {
                            at,
                            value: older_bp,
                        });
                        checks_end += 1;
                    }
                    rule.cfa().uses_bp()
                }
                SavedBp::AtBp(offset) => {
                    if older_matters {
                        let at = (*new).bp.wrapping_add_signed(offset);
                        checks.add(checks_end).write(Check {
                            at,
                            value: older_bp,
                        });
                        checks_end += 1;
                    }
                    true
                }
            };
            if let Cfa::AtBp(offset) = rule.cfa() {
                // What the rule read to find the caller. Shares the room of
                // the saved rbp's check: such frames save it at rbp + 0.
                let at = (*new).bp.wrapping_add_signed(offset);
                if checks_end < 2 * MAX_NATIVE {
                    checks.add(checks_end).write(Check {
                        at,
                        value: sys::word(at),
                    });
                    checks_end += 1;
                }
            }
            if checks_end + 3 > 2 * MAX_NATIVE {
                length = 0;
                checks_end = 0;
                keep = false;
                continue;
            }
            frames.add(length).write(Frame {
                slot: (*new).slot,
                address: (*new).address,
                bp: (*new).bp,
                node,
                checks_end: checks_end as u32,
                bp_matters,
            });
            older_matters = bp_matters;
            older_bp = (*new).bp;
            length += 1;
        }
        let _ = checks_end;
        if own {
            (*t).native_length = if keep { length } else { 0 };
            if keep && joined > 0 && length > joined {
                memorize(t, joined - 1, length, node);
            }
        }
        node
    }
}

/// The node of a frame called from `parent`; `None` when there is no room.
#[inline(always)]
unsafe fn node_of(t: *mut Thread, session: &Session, parent: u32, frame: &Fresh) -> Option<u32> {
    // SAFETY: the caller's.
    unsafe {
        let key = frame.address << 1 | u64::from(frame.exact);
        if let Some(node) = cached(t, parent, key) {
            return Some(node);
        }
        let node = intern(t, session, parent, frame)?;
        if node != NO_STACK {
            remember(t, parent, key, node);
        }
        Some(node)
    }
}

#[cold]
#[inline(never)]
unsafe fn intern(t: *mut Thread, session: &Session, parent: u32, frame: &Fresh) -> Option<u32> {
    if frame.address == hooks::main_returns_to() {
        return Some(parent);
    }
    let inside = if frame.exact {
        frame.address
    } else {
        frame.address.wrapping_sub(1)
    };
    // Its rule was looked up a moment ago, so the list of modules is as new as
    // that. SAFETY: the caller's.
    let place = modules::at(inside).or_else(|| unsafe { modules::find(t, session, inside).0 });
    let word = match place {
        Some(place) => native_frame(place.id, frame.address.wrapping_sub(place.bias)),
        None => native_frame(0, frame.address),
    };
    let node_kind = if frame.exact {
        kind::NATIVE_EXACT
    } else if frame.rule.is_evaluator() {
        kind::NATIVE_EVAL
    } else {
        kind::NATIVE
    };
    trie::intern(session, parent, node_kind, word)
}

/// The first of the two places where a node may be cached.
#[inline(always)]
fn cache_index(parent: u32, key: u64) -> usize {
    let mixed = (key ^ u64::from(parent).wrapping_mul(0xd6e8_feb8_6659_fd93))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 51) as usize & (NODE_CACHE - 2)
}

/// The cached node of frame `key` called from `parent`.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn cached(t: *mut Thread, parent: u32, key: u64) -> Option<u32> {
    // SAFETY: both places are below NODE_CACHE.
    unsafe {
        let first = addr_of!((*t).cache)
            .cast::<Cached>()
            .add(cache_index(parent, key));
        if (*first).key == key && (*first).parent == parent {
            return Some((*first).node);
        }
        let second = first.add(1);
        ((*second).key == key && (*second).parent == parent).then_some((*second).node)
    }
}

/// Puts a node into the cache, in the place of the older of two.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn remember(t: *mut Thread, parent: u32, key: u64, node: u32) {
    // SAFETY: as in `cached`.
    unsafe {
        let first = addr_of_mut!((*t).cache)
            .cast::<Cached>()
            .add(cache_index(parent, key));
        first.add(1).write(*first);
        first.write(Cached { key, parent, node });
    }
}

/// Drops what the thread has cached if something it rests on went away.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn check_flush(t: *mut Thread) {
    // Acquire pairs with the Release of whoever bumped it: what died is dead.
    let now = FLUSH.load(Ordering::Acquire);
    // SAFETY: the caller's.
    unsafe {
        if (*t).flush != now {
            flush(t, now);
        }
    }
}

/// Bits above a node's number that say how many code objects had died when a
/// Python frame was cached: its instruction may be another code's now.
///
/// # Safety
///
/// `t` must be this thread's state.
#[inline(always)]
pub unsafe fn mark(t: *mut Thread) -> u32 {
    // SAFETY: the caller's.
    unsafe { (*t).generation << MARK_SHIFT }
}

const MARK_SHIFT: u32 = MAX_NODES.trailing_zeros();
const MARKS: u32 = 1 << (u32::BITS - MARK_SHIFT);
const _: () = assert!(MAX_NODES.is_power_of_two());

/// Native frames stay as long as no module went. Of Python's, those that were
/// cached or kept may be another code's now.
#[cold]
#[inline(never)]
unsafe fn flush(t: *mut Thread, now: u64) {
    // SAFETY: the caller's.
    unsafe {
        let modules_changed = (*t).flush / MODULES_CHANGED != now / MODULES_CHANGED;
        (*t).flush = now;
        (*t).python_length = 0;
        (*t).generation = ((*t).generation + 1) % MARKS;
        if (*t).generation == 0 {
            python::forget_memos(t);
        }
        if modules_changed {
            (*t).native_length = 0;
            let memos = addr_of_mut!((*t).native.memos).cast::<Memo>();
            for i in 0..MEMOS {
                // Written only where it has to be: pages that were never used
                // stay no one's memory.
                if (*memos.add(i)).slot != 0 {
                    (*memos.add(i)).slot = 0;
                }
            }
        }
        // All marks were used: those of old frames come round.
        if modules_changed || (*t).generation == 0 {
            let cache = addr_of_mut!((*t).cache).cast::<Cached>();
            for i in 0..NODE_CACHE {
                if (*cache.add(i)).key != 0 {
                    (*cache.add(i)).key = 0;
                }
            }
        }
    }
}
