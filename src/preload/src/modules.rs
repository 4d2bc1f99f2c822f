//! Which ELF object an address lies in, and its unwind table.
//!
//! # Invariants
//!
//! * An entry, once its `end` is not 0, does not change but to die (`end` = 0)
//!   and to be born again for the *same* object at the same place: so a frame
//!   (module id, offset) never changes its meaning, and a library that is
//!   loaded and unloaded a hundred thousand times takes one entry.
//! * One thread updates at a time; who finds another at it goes on with what
//!   is there.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use leakline_wire::blob::{Encoder, ModuleDef};
use leakline_wire::event::BlobKind;
use leakline_wire::layout::mode;

use crate::session::{FLUSH, MODULES_CHANGED, Session};
use crate::thread::{self, Thread};
use crate::{elf, got, graph, python, sys};

/// Module ids are below this (and above 0).
const MAX_MODULES: usize = 4096;

struct Module {
    start: AtomicU64,
    end: AtomicU64,
    bias: AtomicU64,
    unwind_table: AtomicU64,
    /// Hash of path, build-id and place.
    identity: AtomicU64,
    /// How often its calls were redirected: see [`LOOKS`].
    redirected: AtomicU32,
    /// How often it was found being relocated.
    unsettled: AtomicU32,
}

/// So often an object is looked at for words to redirect. What the loader was
/// about to bind at that moment leads past us; and relocation may come after.
const LOOKS: u32 = 2;
/// Looks, at least a millisecond apart, after which nobody is relocating an
/// object whose pages are writable still: they were left so.
const PATIENCE: u32 = 500;

static MODULES: [Module; MAX_MODULES] = [const {
    Module {
        start: AtomicU64::new(0),
        end: AtomicU64::new(0),
        bias: AtomicU64::new(0),
        unwind_table: AtomicU64::new(0),
        identity: AtomicU64::new(0),
        redirected: AtomicU32::new(0),
        unsettled: AtomicU32::new(0),
    }
}; MAX_MODULES];
static COUNT: AtomicU32 = AtomicU32::new(1);
static UPDATING: AtomicU32 = AtomicU32::new(IDLE);
const IDLE: u32 = 0;
const BUSY: u32 = 1;
/// Somebody wants the list read once more.
const AGAIN: u32 = 2;
/// `adds` and `subs` of the loader at the last refresh.
static CHANGES: AtomicU64 = AtomicU64::new(u64::MAX);

/// 1 once this process said that the loader's list is lost to it.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// 1 once it was said that some words are out of reach.
static TOLD_OF_WORDS: AtomicU32 = AtomicU32::new(0);
/// Stamp from which on it is looked whether anything was loaded: where our
/// functions are called through redirected words only, what calls them says
/// nothing of new objects. [`u64::MAX`]: never.
static NEXT_LOOK: AtomicU64 = AtomicU64::new(u64::MAX);
/// Looks still to come for the sake of [`LOOKS`].
static LOOKS_DUE: AtomicU32 = AtomicU32::new(0);
/// Between two looks: about a millisecond, of either clock.
const LOOK_EVERY: u64 = 2_000_000;

/// Whether this process met more modules than there are ids.
static TOO_MANY: AtomicU32 = AtomicU32::new(NO);
const NO: u32 = 0;
const TO_BE_TOLD: u32 = 1;
const WAS_TOLD: u32 = 2;

const _: () = assert!(MAX_MODULES == 4096);

/// Where an address lies.
#[derive(Clone, Copy)]
pub struct Place {
    /// Module id.
    pub id: u16,
    /// The module's load bias.
    pub bias: u64,
    /// Address of its `.eh_frame_hdr`, 0 without one.
    pub unwind_table: u64,
}

/// Ids handed out so far.
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The module that `address` lies in, as far as known.
pub fn at(address: u64) -> Option<Place> {
    let count = COUNT.load(Ordering::Acquire) as usize;
    MODULES[1..count.min(MAX_MODULES)]
        .iter()
        .zip(1u16..)
        .find_map(|(module, id)| {
            // Acquire pairs with the Release in `add`: the rest belongs to it.
            let end = module.end.load(Ordering::Acquire);
            (address < end && address >= module.start.load(Ordering::Relaxed)).then(|| Place {
                id,
                bias: module.bias.load(Ordering::Relaxed),
                unwind_table: module.unwind_table.load(Ordering::Relaxed),
            })
        })
}

/// As [`at`], after asking the loader whether anything changed; and whether it
/// could be asked.
///
/// # Safety
///
/// `t` must be this thread's state, `depth` not `IDLE`.
pub unsafe fn find(t: *mut Thread, session: &Session, address: u64) -> (Option<Place>, bool) {
    // While another thread is at the list, it may lack what was just loaded
    // and still have what was unloaded. That thread may wait for a lock of the
    // loader which we hold: so not for long.
    // SAFETY: the caller's. A handler on a thread that is about to fork finds
    // the list kept by its own thread.
    let is_ours = unsafe { (*t).holds_modules };
    let may_look = is_ours || acquire(1_000, 100_000);
    let mut was_seen = false;
    if may_look {
        let mut changes = 0;
        // SAFETY: the caller's; `UPDATING` is ours.
        unsafe {
            (*t).updates_modules = !is_ours;
            was_seen = elf::each_object_now(|object| {
                changes = object.adds ^ object.subs << 32;
                true
            });
            if was_seen && changes != CHANGES.load(Ordering::Relaxed) {
                update(t, session);
            }
            (*t).updates_modules = false;
        }
        if !is_ours {
            end_update();
        }
    }
    let place = at(address);
    if python::runs_at(session, address) {
        // The evaluator's frames are known as such from now on.
        FLUSH.fetch_add(MODULES_CHANGED, Ordering::Release);
    }
    if place.is_none() && elf::is_list_lost() && TOLD.swap(1, Ordering::Relaxed) == 0 {
        session.tell(
            b"libraries loaded since this process was forked have no names: \
              a thread that is not here had the loader's list locked",
        );
    }
    // Of a list that is lost nothing better will ever be known.
    (place, was_seen || may_look && elf::is_list_lost())
}

/// Reads the loader's list: new objects get an entry and are told to the
/// collector, unloaded ones die. If another thread is at it, it reads the list
/// again for us.
///
/// # Safety
///
/// `t` must be this thread's state, `depth` not `IDLE`.
pub unsafe fn refresh(t: *mut Thread, session: &Session) {
    elf::find_list_lock();
    loop {
        match UPDATING.compare_exchange(IDLE, BUSY, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => {
                let again =
                    UPDATING.compare_exchange(now, AGAIN, Ordering::Relaxed, Ordering::Relaxed);
                if now != IDLE && again.is_ok() {
                    return;
                }
            }
        }
    }
    loop {
        // SAFETY: the caller's; `UPDATING` is ours.
        unsafe {
            (*t).updates_modules = true;
            update(t, session);
            (*t).updates_modules = false;
        }
        if UPDATING
            .compare_exchange(BUSY, IDLE, Ordering::Release, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
        UPDATING.store(BUSY, Ordering::Relaxed);
    }
}

/// From now on it is looked for objects that come.
pub fn keep_looking() {
    LOOKS_DUE.store(LOOKS, Ordering::Relaxed);
    NEXT_LOOK.store(0, Ordering::Relaxed);
}

/// ... and no more.
pub fn stop_looking() {
    IS_GRAPH_DUE.store(0, Ordering::Relaxed);
    NEXT_LOOK.store(u64::MAX, Ordering::Relaxed);
}

/// 1: what [`look`] is to do next is to have a heap graph taken, and then to go on as
/// before, that is from [`AFTER_GRAPH`] on.
static IS_GRAPH_DUE: AtomicU32 = AtomicU32::new(0);
static AFTER_GRAPH: AtomicU64 = AtomicU64::new(u64::MAX);

/// In a program without Python: has the next birth take the heap graph that is wanted. It
/// costs births nothing as long as none is.
pub fn look_soon() {
    let next = NEXT_LOOK.load(Ordering::Relaxed);
    if next != 0 {
        AFTER_GRAPH.store(next, Ordering::Relaxed);
    }
    IS_GRAPH_DUE.store(1, Ordering::Relaxed);
    NEXT_LOOK.store(0, Ordering::Relaxed);
}

/// Looks, if it is time to, whether objects came that have to be redirected.
///
/// # Safety
///
/// As for [`refresh`].
#[inline(always)]
pub unsafe fn look(t: *mut Thread, session: &Session, stamp: u64) {
    if stamp >= NEXT_LOOK.load(Ordering::Relaxed) {
        // SAFETY: the caller's.
        unsafe { look_now(t, session, stamp) };
    }
}

#[cold]
#[inline(never)]
unsafe fn look_now(t: *mut Thread, session: &Session, stamp: u64) {
    if IS_GRAPH_DUE.swap(0, Ordering::Relaxed) != 0 {
        NEXT_LOOK.store(AFTER_GRAPH.load(Ordering::Relaxed), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { graph::take_wanted(t, session) };
        return;
    }
    let due = NEXT_LOOK.load(Ordering::Relaxed);
    let next = stamp.saturating_add(LOOK_EVERY);
    if due == u64::MAX
        || NEXT_LOOK
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        || !acquire(1, 1_000)
    {
        return;
    }
    session.listen();
    // SAFETY: the caller's; `UPDATING` is ours.
    unsafe {
        python::look_after_domains(t, session, stamp);
        (*t).updates_modules = true;
        let mut changes = 0;
        let was_seen = elf::each_object_now(|object| {
            changes = object.adds ^ object.subs << 32;
            true
        });
        let due = LOOKS_DUE.load(Ordering::Relaxed);
        if was_seen && (changes != CHANGES.load(Ordering::Relaxed) || due > 0) {
            LOOKS_DUE.store(due.saturating_sub(1), Ordering::Relaxed);
            // The last one takes longer to come.
            let wait = if due == 1 { 16 } else { 1 };
            NEXT_LOOK.store(stamp.saturating_add(wait * LOOK_EVERY), Ordering::Relaxed);
            update(t, session);
        }
        (*t).updates_modules = false;
    }
    end_update();
}

/// Keeps the list as it is until [`end_update`]. Waits for whoever is at it,
/// but not for ever: false when it gave up.
pub fn begin_update() -> bool {
    acquire(2_000, 1_000_000)
}

/// Makes the list ours, with so many waits of so many nanoseconds in between.
fn acquire(turns: u32, turn_ns: u64) -> bool {
    for _ in 0..turns {
        let Err(now) = UPDATING.compare_exchange(IDLE, BUSY, Ordering::Acquire, Ordering::Relaxed)
        else {
            return true;
        };
        let word = (&raw const UPDATING).cast::<u32>();
        let _ = sys::futex_wait(word, now, turn_ns);
    }
    false
}

/// See [`begin_update`]. What somebody asked for meanwhile is not forgotten:
/// no rule is trusted until the list was read again.
pub fn end_update() {
    if UPDATING.swap(IDLE, Ordering::AcqRel) == AGAIN {
        CHANGES.store(u64::MAX, Ordering::Relaxed);
        crate::unwind::forget_rules();
        FLUSH.fetch_add(MODULES_CHANGED, Ordering::Release);
    }
}

/// # Safety
///
/// As for [`refresh`]; the caller has `UPDATING`.
unsafe fn update(t: *mut Thread, session: &Session) {
    let known = COUNT.load(Ordering::Relaxed);
    let mut seen = [0u64; MAX_MODULES / 64];
    let mut changes = 0;
    let mut is_whole;
    let mut came = false;
    loop {
        seen.fill(0);
        is_whole = true;
        let was_seen = elf::each_object(|object| {
            changes = object.adds ^ object.subs << 32;
            // SAFETY: the caller's.
            let id = match unsafe { note(t, session, object) } {
                Noted::As(id) => id,
                Noted::Again(id) => {
                    came = true;
                    for looks in [&MODULES[id].redirected, &MODULES[id].unsettled] {
                        looks.store(0, Ordering::Relaxed);
                    }
                    id
                }
                Noted::Not => return false,
                Noted::Lost => {
                    is_whole = false;
                    return false;
                }
            };
            seen[id / 64] |= 1 << (id % 64);
            redirect(object, &MODULES[id]);
            false
        });
        if !was_seen {
            forget_unmapped();
            return;
        }
        // Only here may we wait for the collector: while the list is walked,
        // the loader's lock is ours and signals are blocked. Each turn there
        // is room for some definitions more, so there are as many at most.
        // SAFETY: the caller's.
        if is_whole || !unsafe { make_room(t, session) } {
            break;
        }
    }
    let is_due =
        TOO_MANY.compare_exchange(TO_BE_TOLD, WAS_TOLD, Ordering::Relaxed, Ordering::Relaxed);
    if is_due.is_ok() {
        session.tell(
            b"more than 4,095 libraries were loaded: the code of further ones has no name, \
              and stacks end there",
        );
    }
    let mut died = false;
    for (id, module) in MODULES[..(COUNT.load(Ordering::Relaxed) as usize).min(MAX_MODULES)]
        .iter()
        .enumerate()
        .skip(1)
    {
        let end = module.end.load(Ordering::Relaxed);
        if seen[id / 64] & 1 << (id % 64) == 0 && end != 0 {
            python::forget(module.start.load(Ordering::Relaxed), end);
            module.end.store(0, Ordering::Release);
            died = true;
        }
    }
    // What was lost on the way is told of next time.
    let changes = if is_whole { changes } else { u64::MAX };
    CHANGES.store(changes, Ordering::Relaxed);
    came |= COUNT.load(Ordering::Relaxed) != known;
    if came && got::is_on() && known != 1 {
        got::libraries_came();
        LOOKS_DUE.store(LOOKS, Ordering::Relaxed);
    }
    if got::take_out_of_reach() != 0 && TOLD_OF_WORDS.swap(1, Ordering::Relaxed) == 0 {
        session.tell(
            b"some libraries' calls cannot be redirected (their pages are sealed): \
              what they allocate is not recorded",
        );
    }
    if died || came {
        // Also what came: its addresses may have been asked for before.
        crate::unwind::forget_rules();
        FLUSH.fetch_add(MODULES_CHANGED, Ordering::Release);
    }
    if came && session.mode() & mode::PYTHON != 0 {
        // An interpreter may have come with it (an embedded one). What is there
        // when the program starts has been loaded whole.
        python::install(session, known == 1);
    }
}

/// Redirects an object's calls, where that is what we live by.
fn redirect(object: &elf::PhdrInfo, module: &Module) {
    let looks = &module.redirected;
    if !got::is_on() || looks.load(Ordering::Relaxed) >= LOOKS {
        return;
    }
    let is_settled = module.unsettled.load(Ordering::Relaxed) >= PATIENCE;
    if got::redirect(object, got::Direction::In, is_settled) {
        looks.fetch_add(1, Ordering::Relaxed);
    } else {
        module.unsettled.fetch_add(1, Ordering::Relaxed);
        LOOKS_DUE.store(LOOKS, Ordering::Relaxed);
    }
}

/// Where the loader's list is lost: what is not mapped any more was unloaded.
fn forget_unmapped() {
    let count = (COUNT.load(Ordering::Relaxed) as usize).min(MAX_MODULES);
    for module in &MODULES[1..count] {
        let table = module.unwind_table.load(Ordering::Relaxed);
        let is_there = table == 0 || sys::is_readable(table & !7);
        if !is_there && module.end.swap(0, Ordering::Release) != 0 {
            crate::unwind::forget_rules();
            FLUSH.fetch_add(MODULES_CHANGED, Ordering::Release);
        }
    }
}

/// Waits for room for a definition. False: there is none, the collector does
/// not get on.
///
/// # Safety
///
/// As for [`refresh`].
unsafe fn make_room(t: *mut Thread, session: &Session) -> bool {
    // SAFETY: the caller's. In a hook's depth, what a signal handler allocates
    // meanwhile goes into the side ring.
    unsafe {
        let was = thread::get_depth(t);
        thread::set_depth(t, thread::depth::HOOK);
        let is_there = thread::make_room(t, session, DEFINITION_BYTES, true);
        thread::set_depth(t, was);
        is_there
    }
}

/// Room for an encoded definition. A path is cut to what fits.
const DEFINITION_BYTES: usize = 1024;

/// What became of an object of the loader's list.
enum Noted {
    /// It has this id.
    As(usize),
    /// It has this id, and was not there when last looked.
    Again(usize),
    /// It has none: no segments, or too many modules.
    Not,
    /// There is no room to tell the collector of it.
    Lost,
}

/// # Safety
///
/// As for [`refresh`], which holds `UPDATING`.
unsafe fn note(t: *mut Thread, session: &Session, object: &elf::PhdrInfo) -> Noted {
    let (start, end) = object.span();
    if end == 0 {
        return Noted::Not;
    }
    let path = object.name().to_bytes();
    let build_id = object.build_id();
    let unwind_table = object
        .headers()
        .iter()
        .find(|header| header.kind == elf::PT_GNU_EH_FRAME)
        .map_or(0, |header| object.bias.wrapping_add(header.address));
    if path.windows(10).any(|part| part == b"/_greenlet") {
        python::greenlets_came();
    }
    let mut identity = 0xcbf2_9ce4_8422_2325u64;
    for byte in path
        .iter()
        .chain(build_id)
        .chain(&object.bias.to_le_bytes())
        .chain(&start.to_le_bytes())
        .chain(&end.to_le_bytes())
        .chain(&unwind_table.to_le_bytes())
    {
        identity = (identity ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    let count = (COUNT.load(Ordering::Relaxed) as usize).min(MAX_MODULES);
    for (id, module) in MODULES[..count].iter().enumerate().skip(1) {
        if module.identity.load(Ordering::Relaxed) == identity {
            return if module.end.swap(end, Ordering::Release) == 0 {
                Noted::Again(id)
            } else {
                Noted::As(id)
            };
        }
    }
    let Some(module) = MODULES.get(count) else {
        let _ = TOO_MANY.compare_exchange(NO, TO_BE_TOLD, Ordering::Relaxed, Ordering::Relaxed);
        return Noted::Not;
    };
    let mut buffer = [0u8; DEFINITION_BYTES];
    let mut out = Encoder::new(&mut buffer);
    ModuleDef {
        bias: object.bias,
        start,
        end,
        build_id,
        path: &path[..path.len().min(900)],
    }
    .encode(&mut out);
    let length = out.needed().min(buffer.len());
    // SAFETY: the caller's; the definition is published before any frame of
    // the module can be.
    unsafe {
        let was = thread::get_depth(t);
        thread::set_depth(t, thread::depth::HOOK);
        let told = thread::make_room(t, session, length, false)
            && thread::emit_blob(
                t,
                session,
                BlobKind::Module,
                count as u32,
                &buffer[..length],
            );
        thread::set_depth(t, was);
        if !told {
            return Noted::Lost;
        }
    }
    module.start.store(start, Ordering::Relaxed);
    module.bias.store(object.bias, Ordering::Relaxed);
    module.unwind_table.store(unwind_table, Ordering::Relaxed);
    module.identity.store(identity, Ordering::Relaxed);
    module.end.store(end, Ordering::Release);
    COUNT.store(count as u32 + 1, Ordering::Release);
    Noted::As(count)
}

/// Forgets every object, for a new session. No hook may be at work.
pub fn begin_anew() {
    let count = (COUNT.load(Ordering::Relaxed) as usize).min(MAX_MODULES);
    for module in &MODULES[..count] {
        for word in [&module.end, &module.identity] {
            word.store(0, Ordering::Relaxed);
        }
        for looks in [&module.redirected, &module.unsettled] {
            looks.store(0, Ordering::Relaxed);
        }
    }
    COUNT.store(1, Ordering::Relaxed);
    CHANGES.store(u64::MAX, Ordering::Relaxed);
    UPDATING.store(IDLE, Ordering::Relaxed);
    TOLD.store(0, Ordering::Relaxed);
    TOO_MANY.store(NO, Ordering::Relaxed);
}

/// In a forked child: whoever was updating is not here, but what somebody asked
/// of them still has to be done.
pub fn after_fork() {
    end_update();
    TOLD.store(0, Ordering::Relaxed);
    TOO_MANY.store(NO, Ordering::Relaxed);
}
