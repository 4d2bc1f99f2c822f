//! This process's part in a session: joining it, the shared map, chunks,
//! waiting, fork.
//!
//! # Invariants
//!
//! * `SESSION` is written while `STATE` says `STARTING`, by one thread;
//!   afterwards it only is read, but for the slot's index, which is atomic.
//! * After joining, the process holds no descriptor of ours: programs close
//!   and reuse numbers.
//! * A collector that does not answer costs the first process that finds out
//!   [`PATIENCE_MS`], and others [`SHORT_PATIENCE_MS`], see [`Stall`].
//! * In a program that was running before us ([`attach`]) a session ends before
//!   the process does ([`Session::leave`]). Its map then is one of zeros, in
//!   which nothing is switched on; another session begins only when no hook is
//!   at work in any thread.
//! * The wiped page tells a forked child from its parent without a system
//!   call, also where no fork handler ran.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use leakline_wire::Kind;
use leakline_wire::event::{self, BlobKind};
use leakline_wire::layout::{
    self, ChunkHeader, Header, Hello, IdlePage, Slot, Welcome, may_graph, mode, scan, slot_state,
};
use leakline_wire::pool::FreeList;
use leakline_wire::sync::AtomicU32 as SharedU32;

use crate::sys::Carries;
use crate::thread::{self, Thread, depth};
use crate::{elf, got, graph, hooks, modules, python, real, sampling, sys, trie, unwind};

/// Values of `STATE`.
pub mod state {
    /// Nothing was done yet.
    pub const UNBORN: u32 = 0;
    /// One thread is starting us.
    pub const STARTING: u32 = 1;
    /// Recording.
    pub const JOINED: u32 = 2;
    /// Not of a session: every hook passes through.
    pub const OUTSIDE: u32 = 3;
    /// One thread is putting everything back as it was.
    pub const LEAVING: u32 = 4;
    /// It did: as [`OUTSIDE`].
    pub const LEFT: u32 = 5;
    /// As [`OUTSIDE`], but looks whether there is an invitation.
    pub const IDLE: u32 = 6;
}

static STATE: AtomicU32 = AtomicU32::new(state::UNBORN);

/// Why a process is not recorded when its hello was not answered.
const NO_ANSWER: &[u8] = b"the collector did not answer";
/// How long a process waits to be let in.
const PATIENCE_MS: u64 = 2000;
/// The same where another one waited in vain, and the collector did nothing
/// since. One that works answers in less.
const SHORT_PATIENCE_MS: u64 = 50;
/// The same of a program that was running before us: its thread is needed.
pub const ATTACH_PATIENCE_MS: u64 = 100;
/// The same of a program that asked for it, and waits for the answer.
pub const OWN_PATIENCE_MS: u64 = 10_000;
/// How long a collector's heart may stand still before a program that was running
/// before leaves its session.
const ORPHANED_AFTER_NS: u64 = 10_000_000_000;
/// Between two looks at its heart.
const HEARD_EVERY_NS: u64 = 1_000_000_000;
/// Between leaving a session and joining another.
const SETTLES_AFTER_NS: u64 = 20_000_000;

/// The mark that a session's collector did not answer somebody in time, for
/// those who come next: they have nothing in common but the session's name.
///
/// It is a socket with a name of its own, which its maker sends behind the
/// hello that was not answered and closes. So it lies in the collector's queue,
/// and nowhere else, until the collector comes to that hello: no file, no
/// descriptor of ours, and nobody who would have to take it back.
struct Stall;

impl Stall {
    const ENDING: &[u8] = b".stalled";

    /// Whether a session has such a mark: it would stay in the file system.
    fn is_for(name: &[u8]) -> bool {
        name.first() != Some(&b'/')
    }

    /// Whether the mark is there.
    fn is_marked(name: &[u8]) -> bool {
        if !Self::is_for(name) {
            return false;
        }
        let Ok(fd) = sys::unix_socket(Carries::Datagrams) else {
            return false;
        };
        let found = sys::connect_abstract(fd, name, Self::ENDING).is_ok();
        sys::close(fd);
        found
    }

    /// Leaves the mark in the queue of the connection `to`. Another may have
    /// left one: one is enough.
    fn mark(name: &[u8], to: i32) {
        if !Self::is_for(name) {
            return;
        }
        if let Ok(fd) = sys::unix_socket(Carries::Datagrams) {
            if sys::bind_abstract(fd, name, Self::ENDING).is_ok() {
                let _ = sys::send_fd(to, fd);
            }
            sys::close(fd);
        }
    }
}

/// See the module.
pub struct Session {
    map: *mut u8,
    /// A forked child goes on under another.
    slot: AtomicU32,
    /// The slot's own, to tell it from a later process's.
    start_stamp: AtomicU64,
    clock_is_tsc: bool,
    /// Holds 1; 0 in a forked child that has not noticed yet; 2 while it sets
    /// itself up; [`LEAVE_IS_DUE`], and [`AWAY`] when the session was left.
    alive: *const AtomicU32,
    main_stack_high: u64,
    main_stack_low: u64,
    key: Option<u32>,
    getattr: u64,
    libc: (u64, u64),
    getstack: u64,
    attr_destroy: u64,
    setspecific: u64,
    errno: u64,
    /// The program was running before us.
    is_late: bool,
    /// 0 once the map of a session that was left is gone.
    is_mapped: AtomicU32,
    /// When it was left, 0 before.
    left_ns: AtomicU64,
    /// [`Header::beats`] when it was last seen to grow, and when that was.
    beats: AtomicU32,
    heard_ns: AtomicU64,
    /// When to look again.
    listen_ns: AtomicU64,
}

struct Global(UnsafeCell<Session>);
// SAFETY: see the invariants: written by one thread while nobody reads.
unsafe impl Sync for Global {}

static SESSION: Global = Global(UnsafeCell::new(Session {
    map: null_mut(),
    slot: AtomicU32::new(0),
    start_stamp: AtomicU64::new(0),
    clock_is_tsc: true,
    alive: null_mut(),
    main_stack_high: 0,
    main_stack_low: 0,
    key: None,
    getattr: 0,
    libc: (0, 0),
    getstack: 0,
    attr_destroy: 0,
    setspecific: 0,
    errno: 0,
    is_late: false,
    is_mapped: AtomicU32::new(0),
    left_ns: AtomicU64::new(0),
    beats: AtomicU32::new(0),
    heard_ns: AtomicU64::new(0),
    listen_ns: AtomicU64::new(0),
}));

/// Whose part in a session is put back: this process's, or what a forked child has
/// inherited of its parent's, whose slot it is and whose thread was at it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Parents,
}

/// Values of [`Session::alive`].
const AWAY: u32 = 4;
const LEAVE_IS_DUE: u32 = 5;

/// The process that left the session whose map there is.
static PROCESS_OF_MAP: AtomicU32 = AtomicU32::new(0);

/// Changes when something that the caches of every thread rest on went away:
/// by [`CODE_DIED`] when a code object died, by [`MODULES_CHANGED`] when a
/// module was unloaded or came.
pub static FLUSH: AtomicU64 = AtomicU64::new(MODULES_CHANGED + CODE_DIED);
/// See [`FLUSH`].
pub const CODE_DIED: u64 = 1;
/// See [`FLUSH`]. (The lower half may run over into it: a flush too many.)
pub const MODULES_CHANGED: u64 = 1 << 32;

unsafe extern "C" {
    /// The main thread's stack as the kernel laid it out: argc, argv, envp.
    static __libc_stack_end: *const u64;
    /// What `pthread_atfork` is made of, in every glibc.
    fn __register_atfork(
        before: extern "C" fn(),
        in_parent: extern "C" fn(),
        in_child: extern "C" fn(),
        library: *const c_void,
    ) -> c_int;
}

/// The session, if this process records. Starts us on the first call.
#[inline(always)]
pub fn get() -> Option<&'static Session> {
    if STATE.load(Ordering::Acquire) == state::JOINED {
        // SAFETY: Acquire pairs with the Release in `start`: the session is
        // whole, and from then on only read.
        return Some(unsafe { &*SESSION.0.get() });
    }
    start()
}

/// As [`get`], for a thread that has a state: the session gave it.
#[inline(always)]
pub fn joined() -> &'static Session {
    // SAFETY: a thread is given its state after it has seen `JOINED`, and from
    // then on the session is only read.
    unsafe { &*SESSION.0.get() }
}

#[cold]
#[inline(never)]
fn start() -> Option<&'static Session> {
    match STATE.load(Ordering::Acquire) {
        state::UNBORN => {}
        // Not on a signal's stack: the handler may have interrupted anything.
        state::IDLE | state::LEFT if is_invited() && !sys::is_on_signal_stack() => {
            return accept_invitation();
        }
        _ => return None,
    }
    if STATE
        .compare_exchange(
            state::UNBORN,
            state::STARTING,
            Ordering::Acquire,
            Ordering::Relaxed,
        )
        .is_err()
    {
        return None;
    }
    real::resolve();
    // SAFETY: STARTING is ours: nobody else looks at the session.
    let session = unsafe { &mut *SESSION.0.get() };
    // Loaded into a running program (nothing comes after us in lookup order), we
    // wait to be told: see `attach`.
    let is_preloaded = real::address(real::Real::malloc) != 0;
    if !is_preloaded || !session.join() {
        let is_idle = !IDLE_PAGE.load(Ordering::Relaxed).is_null();
        let state = if is_idle { state::IDLE } else { state::OUTSIDE };
        STATE.store(state, Ordering::Release);
        return None;
    }
    begin();
    get()
}

/// Everything is set up: records from now on.
fn begin() {
    thread::belong_here();
    // SAFETY: from now on shared and only read.
    let session = unsafe { &*SESSION.0.get() };
    // Another thread may leave before this one is done here.
    let _counted = hooks::Newcomer::new();
    // Release pairs with the Acquire in `get`.
    STATE.store(state::JOINED, Ordering::Release);
    session.open();
    let mut t = thread::current();
    if t.is_null() {
        t = thread::adopt(session);
    }
    if t.is_null() {
        return;
    }
    // SAFETY: `t` is this thread's state.
    unsafe {
        thread::set_depth(t, depth::QUIET);
        // First: a fork in between would find the loader's list locked by us.
        Session::watch_forks();
        modules::refresh(t, session);
        thread::set_depth(t, depth::IDLE);
    }
}

/// The process in which [`STATE`] says `STARTING` or `LEAVING`: a forked child
/// inherits the word, but not the thread that is at it.
static AT_IT: AtomicU32 = AtomicU32::new(0);

/// Goes from one state to another, in which this thread is the only one at work.
fn take_state(from: u32, to: u32) -> bool {
    if STATE.load(Ordering::Acquire) != from {
        return false;
    }
    // First, for who sees the new state.
    AT_IT.store(sys::getpid(), Ordering::Release);
    STATE
        .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

/// The page of a program that was started to be woken; null without.
static IDLE_PAGE: AtomicPtr<IdlePage> = AtomicPtr::new(null_mut());
/// [`IdlePage::turn`] of the last invitation that was accepted.
static IDLE_TURN: AtomicU32 = AtomicU32::new(0);

fn idle_page() -> Option<&'static IdlePage> {
    // SAFETY: null, or mapped for good; its words are atomic.
    unsafe { IDLE_PAGE.load(Ordering::Relaxed).as_ref() }
}

/// Whether there is an invitation that was not accepted yet.
fn is_invited() -> bool {
    idle_page().is_some_and(|page| {
        let turn = page.turn.load(Ordering::Acquire);
        turn.is_multiple_of(2) && turn != IDLE_TURN.load(Ordering::Relaxed)
    })
}

/// Whether this process was started to be woken, and nobody did so far: what a hook of a
/// thread without a state looks at first, since it is all that such a program pays.
#[inline(always)]
pub fn is_waiting() -> bool {
    let page = IDLE_PAGE.load(Ordering::Relaxed);
    // SAFETY: null, or mapped for good; its words are atomic.
    STATE.load(Ordering::Relaxed) == state::IDLE
        && !page.is_null()
        && unsafe { (*page).turn.load(Ordering::Relaxed) } == IDLE_TURN.load(Ordering::Relaxed)
}

/// Joins the session that the page invites to: as [`attach`], by whichever thread
/// comes first.
fn accept_invitation() -> Option<&'static Session> {
    let page = idle_page()?;
    let turn = page.turn.load(Ordering::Acquire);
    let mut text = [0u8; 8 * leakline_wire::layout::IDLE_WORDS];
    for (to, from) in text.chunks_mut(8).zip(&page.invitation) {
        to.copy_from_slice(&from.load(Ordering::Relaxed).to_le_bytes());
    }
    core::sync::atomic::fence(Ordering::Acquire);
    if page.turn.load(Ordering::Relaxed) != turn || IDLE_TURN.swap(turn, Ordering::Relaxed) == turn
    {
        return None;
    }
    let length = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    // Who does not come in is missed there, and the reason is the supervisor's to
    // find: there is nobody here to tell.
    attach(&text[..length], ATTACH_PATIENCE_MS).ok()?;
    // SAFETY: as in `get`: it has just been made whole.
    is_joined().then(|| unsafe { &*SESSION.0.get() })
}

/// Waits for the thread that is leaving, if there is one, but not for ever.
fn wait_until_left() {
    const TURNS: u32 = 1000;
    for _ in 0..TURNS {
        if STATE.load(Ordering::Acquire) != state::LEAVING {
            break;
        }
        sys::pause(1);
    }
}

/// See [`Session::leave_from_outside`].
pub fn leave_from_outside() {
    joined().leave_from_outside();
}

/// Whether this process records.
pub fn is_joined() -> bool {
    STATE.load(Ordering::SeqCst) == state::JOINED
}

/// Starts us in a program that is running, or again in one that we left: to be
/// called by a thread that holds none of libc's or the loader's locks.
/// `invitation` is what the environment would have. Gives what went wrong, at the
/// latest some `patience_ms` after.
///
/// Nothing is left behind where it fails.
pub fn attach(invitation: &[u8], patience_ms: u64) -> Result<(), &'static [u8]> {
    finish_for_another_thread();
    // The last session's end may have been told of a moment before it was over.
    wait_until_left();
    let was = STATE.load(Ordering::Acquire);
    match was {
        state::UNBORN | state::OUTSIDE | state::LEFT | state::IDLE => {}
        state::JOINED => return Err(b"this process is being recorded already"),
        _ => return Err(b"another thread is at it"),
    }
    if !take_state(was, state::STARTING) {
        return Err(b"another thread is at it");
    }
    let result = attach_in_earnest(invitation, patience_ms);
    match result {
        Ok(()) => begin(),
        Err(_) => STATE.store(was, Ordering::Release),
    }
    result
}

fn attach_in_earnest(invitation: &[u8], patience_ms: u64) -> Result<(), &'static [u8]> {
    // SAFETY: STARTING is ours: nobody else looks at the session.
    let session = unsafe { &mut *SESSION.0.get() };
    // Both before anything else: a child that is forked meanwhile looks at them.
    session.map_alive()?;
    session.is_late = true;
    Session::watch_forks();
    real::resolve();
    if real::address(real::Real::malloc) == 0 {
        // Nothing comes after us in lookup order: we were not preloaded.
        real::resolve_for_late_start();
    }
    if session.has_a_past() {
        session.forget_the_last(patience_ms)?;
    }
    let (name, token) = parse_invitation(invitation).ok_or(&b"no session was named"[..])?;
    let pid = sys::getpid();
    let settled = match session.shake_hands(name, token, pid, patience_ms) {
        Ok(true) => session.settle(),
        Ok(false) => Err(&b"its session did not let it in"[..]),
        Err(why) => Err(why),
    };
    if settled.is_err() {
        if session.is_mapped.swap(0, Ordering::Relaxed) != 0 {
            // SAFETY: nobody but us has looked at the map.
            unsafe { sys::unmap(session.map, layout::MAP_BYTES) };
        }
        session.map = null_mut();
        return settled;
    }
    python::begin_late();
    if real::is_late() {
        got::begin();
    }
    modules::keep_looking();
    Ok(())
}

/// Runs before `main` in a program that never allocated until then.
pub extern "C" fn constructor() {
    // First: `get` walks the loader's list, and in a program that was running
    // before us threads may be forking.
    Session::watch_forks();
    let _ = get();
}

impl Session {
    fn join(&mut self) -> bool {
        // SAFETY: the loader's own word; the vectors behind it are the
        // kernel's, and are there as long as the process.
        let mut at = unsafe {
            let stack = __libc_stack_end;
            let arguments = *stack as usize;
            stack.add(arguments + 2)
        };
        let mut name_and_token: &[u8] = &[];
        let mut only_pid: &[u8] = &[];
        let mut idle: &[u8] = &[];
        loop {
            // SAFETY: the environment vector ends with a null.
            let text = unsafe {
                let entry = *at;
                if entry == 0 {
                    break;
                }
                at = at.add(1);
                CStr::from_ptr(entry as *const _).to_bytes()
            };
            if let Some(rest) = value_of(text, leakline_wire::env::SESSION) {
                name_and_token = rest;
            } else if let Some(rest) = value_of(text, leakline_wire::env::ONLY_PID) {
                only_pid = rest;
            } else if let Some(rest) = value_of(text, leakline_wire::env::IDLE) {
                idle = rest;
            }
        }
        let pid = sys::getpid();
        if !only_pid.is_empty() && parse(only_pid) != Some(pid) {
            return false;
        }
        if let Some((name, token)) = parse_invitation(idle)
            && name_and_token.is_empty()
        {
            // Without it the program runs as if it had not been started so.
            let _ = Self::get_idle_page(name, token, pid);
            return false;
        }
        let Some((name, token)) = parse_invitation(name_and_token) else {
            return false;
        };
        let joined = self.shake_hands(name, token, pid, PATIENCE_MS);
        match joined.and_then(|is_in| if is_in { self.settle() } else { Ok(()) }) {
            Ok(()) => joined == Ok(true),
            Err(why) => {
                sys::complain(&[b"not recording this process: ", why]);
                false
            }
        }
    }

    /// Makes the page of [`Session::alive`], once.
    fn map_alive(&mut self) -> Result<(), &'static [u8]> {
        if self.alive.is_null() {
            let page = sys::map_wiped_on_fork().ok_or(&b"no memory for its state"[..])?;
            self.alive = page as *const AtomicU32;
            // Not 0: to another thread that comes before `open` this would be a child
            // that was just forked.
            self.close();
        }
        Ok(())
    }

    /// Sets up what a member of a session needs.
    fn settle(&mut self) -> Result<(), &'static [u8]> {
        // SAFETY: the loader's own word.
        let stack = unsafe { __libc_stack_end } as u64;
        self.map_alive()?;
        if !trie::set_up(self) || !unwind::set_up() || !python::set_up() {
            return Err(b"no memory for its tables");
        }
        self.main_stack_high = stack;
        // Below the limit the kernel keeps a gap of at least 128 MiB where
        // nothing else is mapped, whatever the limit says.
        let limit = sys::stack_limit().clamp(8 << 20, 1 << 30);
        self.main_stack_low = stack.saturating_sub(limit.max(127 << 20));
        self.getattr = elf::find(c"pthread_getattr_np");
        self.libc = elf::span_of(self.getattr);
        self.getstack = elf::find(c"pthread_attr_getstack");
        self.attr_destroy = elf::find(c"pthread_attr_destroy");
        self.setspecific = elf::find(c"pthread_setspecific");
        self.errno = elf::find(c"__errno_location");
        if self.key.is_none() {
            self.key = make_key();
        }
        self.clock_is_tsc = self.header().clock.load(Ordering::Relaxed) == layout::clock::TSC;
        // The last session's heart was another one.
        self.listen_ns.store(0, Ordering::Relaxed);
        let slot = self.slot();
        let now = self.now();
        self.start_stamp.store(now, Ordering::Relaxed);
        slot.start_stamp.store(now, Ordering::Relaxed);
        slot.state.store(slot_state::LIVE, Ordering::Release);
        Ok(())
    }

    /// Whether there was a session before, whose traces are here still.
    fn has_a_past(&self) -> bool {
        self.left_ns.load(Ordering::Relaxed) != 0
    }

    /// Makes room for a new session where we left one.
    fn forget_the_last(&mut self, patience_ms: u64) -> Result<(), &'static [u8]> {
        // A thread that began a hook before we left has said so by now, or sees
        // that nothing is switched on: its processor has long written down what
        // it was about to. (A barrier for all, membarrier(2), takes as long.)
        let since = sys::monotonic_ns().saturating_sub(self.left_ns.load(Ordering::Relaxed));
        if since < SETTLES_AFTER_NS {
            sys::pause((SETTLES_AFTER_NS - since).div_ceil(1_000_000));
        }
        if PROCESS_OF_MAP.load(Ordering::Relaxed) != sys::getpid() {
            return Err(b"it was forked unseen by a process that was recorded");
        }
        let mut turns = 0;
        while !hooks::are_idle() {
            turns += 1;
            if turns >= patience_ms / 2 {
                return Err(b"a thread is still inside of the last session");
            }
            sys::pause(1);
        }
        // SAFETY: no thread is in a hook, and none gets beyond its first look at
        // `STATE` while that says `STARTING`.
        unsafe { thread::begin_anew() };
        trie::begin_anew();
        modules::begin_anew();
        python::begin_anew();
        sampling::begin_anew();
        hooks::begin_anew();
        FLUSH.fetch_add(MODULES_CHANGED, Ordering::Release);
        if self.is_mapped.swap(0, Ordering::Acquire) != 0 {
            // SAFETY: as above; no ring lies there any more.
            unsafe { sys::unmap(self.map, layout::MAP_BYTES) };
        }
        self.map = null_mut();
        Ok(())
    }

    /// Lets hooks in, which look at this word last. (Release pairs with what they
    /// do with the rest: x86 orders their loads.)
    fn open(&self) {
        // SAFETY: a page of ours.
        unsafe { (*self.alive).store(1, Ordering::Release) };
    }

    /// Lets no more of them in.
    fn close(&self) {
        // SAFETY: as above.
        unsafe { (*self.alive).store(AWAY, Ordering::SeqCst) };
    }

    /// [`Session::leave`], by a thread that a debugger sent here; or waits until
    /// the one that is at it has done so.
    pub fn leave_from_outside(&self) {
        self.leave_here();
        wait_until_left();
    }

    fn leave_here(&self) {
        let t = thread::current();
        if t.is_null() {
            return self.leave();
        }
        // SAFETY: this thread's state. It waits somewhere in libc, outside of any
        // hook; where it does not, it shall do it when it is.
        unsafe {
            let was = thread::get_depth(t);
            if matches!(was, depth::IDLE | depth::SAMPLING) {
                thread::set_depth(t, depth::QUIET);
                self.leave();
                thread::set_depth(t, was);
            }
        }
    }

    /// Whether this process shall leave: somebody says so, or nobody is there.
    #[cold]
    pub fn shall_leave(&self) -> bool {
        // SAFETY: a page of ours.
        let alive = unsafe { (*self.alive).load(Ordering::Relaxed) };
        alive == LEAVE_IS_DUE || alive == 1 && self.mode() & mode::LEAVE != 0
    }

    /// Has the next hook [leave](Session::leave), where the program was running
    /// before, when the collector's heart has stood still for
    /// [`ORPHANED_AFTER_NS`]: it was killed, and so was who could have told us. To be
    /// called every now and then.
    #[cold]
    pub fn listen(&self) {
        if !self.is_late {
            return;
        }
        let now = sys::monotonic_ns();
        let due = self.listen_ns.load(Ordering::Relaxed);
        let next = now + HEARD_EVERY_NS;
        let is_ours = now >= due
            && self
                .listen_ns
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !is_ours {
            return;
        }
        let beats = self.header().beats.load(Ordering::Relaxed);
        // Not heard for a while because nobody listened is no silence.
        let was_away = now.saturating_sub(due) > 2 * HEARD_EVERY_NS;
        if was_away || beats != self.beats.swap(beats, Ordering::Relaxed) {
            self.heard_ns.store(now, Ordering::Relaxed);
        } else if now.saturating_sub(self.heard_ns.load(Ordering::Relaxed)) > ORPHANED_AFTER_NS {
            // By a hook that begins: this one still needs the map.
            // SAFETY: a page of ours.
            let alive = unsafe { &*self.alive };
            let _ = alive.compare_exchange(1, LEAVE_IS_DUE, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    /// Puts the program back as it was before [`attach`], by whichever thread
    /// comes first; others go on. What shared memory there was is let go.
    ///
    /// To be called by a thread that has nothing to do with the session afterwards:
    /// its map is gone then. Its state (if it has one) is not to be at rest.
    #[cold]
    pub fn leave(&self) {
        // The child of a vfork stands in its parent's place, and has to leave that
        // to it.
        // Nor can a handler that interrupted the loader give calls back: the next hook
        // will.
        if !self.is_late
            || !thread::are_of_this_process()
            || elf::is_locked_here(0)
            || !take_state(state::JOINED, state::LEAVING)
        {
            return;
        }
        self.put_back(Whose::Ours);
        STATE.store(state::LEFT, Ordering::Release);
    }

    /// What leaving consists of.
    fn put_back(&self, whose: Whose) {
        self.close();
        modules::stop_looking();
        if whose == Whose::Ours {
            python::unhook();
        }
        got::end();
        if whose == Whose::Ours {
            graph::end_all();
        }
        PROCESS_OF_MAP.store(sys::getpid(), Ordering::Relaxed);
        self.left_ns.store(sys::monotonic_ns(), Ordering::Relaxed);
        if !self.map.is_null() {
            self.let_map_go(whose);
        }
    }

    /// Unmaps the session's memory if no thread looks there any more, as is mostly
    /// so after a millisecond; covers it if one does.
    fn let_map_go(&self, whose: Whose) {
        const TURNS: u32 = 10;
        if self.is_mapped.load(Ordering::Acquire) == 0 {
            return;
        }
        let tell = || {
            if whose == Whose::Ours {
                // Release pairs with the collector's Acquire: nothing of ours comes
                // after what it finds in the rings then.
                self.slot().left.store(1, Ordering::Release);
            }
        };
        for _ in 0..TURNS {
            sys::pause(1);
            // In a child the fork may have come out of a hook of this very thread.
            let are_idle = match whose {
                Whose::Ours => hooks::are_idle_but_this(),
                Whose::Parents => hooks::are_idle(),
            };
            if are_idle {
                tell();
                // Before: what a child forked in between finds is not mapped, and may
                // be something else by then.
                if self.is_mapped.swap(0, Ordering::AcqRel) == 0 {
                    return;
                }
                // SAFETY: every hook says that it is at work before it looks whether
                // there is a session, and finds none (`alive` was set aside more
                // than a millisecond ago, which no store takes to be seen).
                unsafe { sys::unmap(self.map, layout::MAP_BYTES) };
                return;
            }
        }
        // SAFETY: the session's chunks, then the rest of it. Zeros are a header of a
        // session that is switched off, an empty list of chunks, and no stacks: a
        // thread that is in a hook still writes there to nobody's notice. Where the
        // kernel has no memory for that, the map stays, and the collector waits.
        unsafe {
            let chunks = self.map.wrapping_add(layout::CHUNKS_OFFSET);
            let is_covered =
                sys::cover_with_zeros(chunks, layout::MAP_BYTES - layout::CHUNKS_OFFSET);
            if is_covered {
                tell();
                sys::cover_with_zeros(self.map, layout::CHUNKS_OFFSET);
            }
        }
    }

    /// Joins the session called `name`. `Ok(false)`: politely turned away.
    fn shake_hands(
        &mut self,
        name: &[u8],
        token: [u8; 16],
        pid: u32,
        patience_ms: u64,
    ) -> Result<bool, &'static [u8]> {
        let unreachable = &b"its session is over or out of reach (no socket)"[..];
        let fd = sys::unix_socket(Carries::Stream).map_err(|_| unreachable)?;
        let is_stalled = Stall::is_marked(name);
        let patience = if is_stalled {
            SHORT_PATIENCE_MS
        } else {
            patience_ms
        };
        // Before connecting, which waits when too many wait already.
        sys::set_patience(fd, patience);
        if let Err(error) = sys::connect_abstract(fd, name, b"") {
            sys::close(fd);
            return match error {
                sys::EAGAIN if is_stalled => Ok(false),
                sys::EAGAIN => Err(NO_ANSWER),
                _ => Err(unreachable),
            };
        }
        let mut answer = [0u8; size_of::<Welcome>()];
        let got = say_hello(fd, pid, token, &mut answer);
        if got.is_err_and(|error| error == sys::EAGAIN) {
            // It counts us when it comes to our hello. One line is enough.
            if is_stalled {
                sys::close(fd);
                return Ok(false);
            }
            Stall::mark(name, fd);
        }
        sys::close(fd);
        let (length, map_fd) = got.map_err(|_| NO_ANSWER)?;
        let status = u32::from_le_bytes([answer[8], answer[9], answer[10], answer[11]]);
        let slot = u32::from_le_bytes([answer[12], answer[13], answer[14], answer[15]]);
        let map_fd = match (length, status, map_fd) {
            (16, Welcome::OK, Some(fd)) => fd,
            (16, Welcome::VERSION, _) => return Err(b"the collector is of another version"),
            (16, Welcome::FULL, _) => return Err(b"the session is full"),
            (16, Welcome::NOT_FOLLOWED, None) => return Ok(false),
            _ => return Err(b"the collector's answer is not understood"),
        };
        let map = sys::map_shared(map_fd, layout::MAP_BYTES);
        sys::close(map_fd);
        self.map =
            map.map_err(|_| &b"no address space for the session (576 MiB; see `ulimit -v`)"[..])?;
        self.is_mapped.store(1, Ordering::Relaxed);
        if slot as usize >= layout::SLOT_COUNT
            || self.header().magic.load(Ordering::Relaxed) != layout::MAGIC
        {
            return Err(b"the session's map is not understood");
        }
        self.slot.store(slot, Ordering::Relaxed);
        Ok(true)
    }

    /// Gets the page that a program looks at that was started to be woken.
    fn get_idle_page(name: &[u8], token: [u8; 16], pid: u32) -> Option<()> {
        let fd = sys::unix_socket(Carries::Stream).ok()?;
        // Each program that is started waits so long for a keeper that is stopped.
        sys::set_patience(fd, ATTACH_PATIENCE_MS);
        let mut answer = [0u8; size_of::<Welcome>()];
        let got = sys::connect_abstract(fd, name, b"")
            .and_then(|()| say_hello(fd, pid, token, &mut answer));
        sys::close(fd);
        let (_, page_fd) = got.ok()?;
        let page_fd = page_fd?;
        let page = sys::map_shared(page_fd, layout::IDLE_BYTES);
        sys::close(page_fd);
        let page = page.ok()?.cast::<IdlePage>();
        // SAFETY: a memfd of that size, which cannot shrink: just mapped.
        let is_ours = unsafe {
            (*page).magic.load(Ordering::Relaxed) == layout::MAGIC
                && (*page).version.load(Ordering::Relaxed) == layout::VERSION
        };
        if is_ours {
            // While the loader starts the program: later it may be in the middle of
            // a fork that the invitation is met.
            Self::watch_forks();
            IDLE_PAGE.store(page, Ordering::Release);
        }
        is_ours.then_some(())
    }

    /// The session's control words.
    #[inline(always)]
    pub fn header(&self) -> &Header {
        // SAFETY: the map begins with a header, and stays for good.
        unsafe { &*self.map.cast() }
    }

    /// Bits of [`mode`].
    #[inline(always)]
    pub fn mode(&self) -> u32 {
        self.header().mode.load(Ordering::Relaxed)
    }

    /// What this process tells about itself.
    pub fn slot(&self) -> &Slot {
        self.slot_at(self.slot_index())
    }

    fn slot_at(&self, index: u32) -> &Slot {
        // SAFETY: indices are checked when we join, or come from
        // `claim_slot`.
        unsafe { &*self.map.add(layout::slot_offset(index)).cast() }
    }

    /// Its index.
    pub fn slot_index(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Where chunk `index` lies. Indices come from the free list, which
    /// checks them against its table's length; one comes there only once the
    /// memfd reaches beyond that chunk, and the memfd never gets shorter. So
    /// what was popped is there, in every process that has the map, and what
    /// its parent had in a directory of the trie is there for a forked child.
    pub fn chunk(&self, index: u32) -> *mut u8 {
        self.map.wrapping_add(layout::chunk_offset(index))
    }

    /// Whether this process records and is not a child that must set itself
    /// up first.
    #[inline(always)]
    pub fn is_alive(&self) -> bool {
        // SAFETY: mapped as long as we are joined.
        unsafe { (*self.alive).load(Ordering::Relaxed) == 1 }
    }

    /// The clock that stamps events.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        if self.clock_is_tsc {
            sys::tsc()
        } else {
            sys::monotonic_ns()
        }
    }

    fn free_list(&self) -> FreeList<'_> {
        let header = self.header();
        // SAFETY: the table of links lies in the map, aligned, and all its
        // words are atomic.
        let next = unsafe {
            core::slice::from_raw_parts(
                self.map.add(layout::NEXT_TABLE_OFFSET).cast::<SharedU32>(),
                layout::CHUNK_COUNT,
            )
        };
        FreeList {
            head: &header.free_head,
            next,
            count: &header.free_count,
        }
    }

    /// A chunk for a ring or the trie. Waits for the collector if it `may`,
    /// as long as that gets on with its work.
    pub fn take_chunk(&self, may_wait: bool) -> Option<u32> {
        let list = self.free_list();
        if let Some(index) = list.pop() {
            let lossy = &self.slot().lossy;
            if lossy.load(Ordering::Relaxed) != 0 {
                lossy.store(0, Ordering::Relaxed);
            }
            return Some(index);
        }
        if may_wait {
            self.wait_for_chunk(&list)
        } else {
            None
        }
    }

    #[cold]
    fn wait_for_chunk(&self, list: &FreeList<'_>) -> Option<u32> {
        const TURN_NS: u64 = 5_000_000;
        let (header, slot) = (self.header(), self.slot());
        let limit = header.wait_strikes.load(Ordering::Relaxed);
        let mut progress = header.progress.load(Ordering::Relaxed);
        let mut strikes = 0;
        if slot.lossy.load(Ordering::Relaxed) != 0 {
            self.listen();
            return None;
        }
        let began = sys::monotonic_ns();
        let mut turn = began;
        header.waiters.fetch_add(1, Ordering::SeqCst);
        let index = loop {
            // Read before the list: a chunk freed after the look changes the
            // word, and the wait below returns at once.
            let wake = header.wake.load(Ordering::SeqCst);
            if let Some(index) = list.pop() {
                break Some(index);
            }
            if slot.lossy.load(Ordering::Relaxed) != 0 || self.mode() & mode::ON == 0 {
                break None;
            }
            let word = (&raw const header.wake).cast::<u32>();
            if sys::futex_wait(word, wake, TURN_NS) != Err(sys::ETIMEDOUT) {
                // Woken, or disturbed by a signal: a turn is over only when
                // its time is, however often that happens.
                if sys::monotonic_ns().saturating_sub(turn) < TURN_NS {
                    continue;
                }
            }
            turn = sys::monotonic_ns();
            let now = header.progress.load(Ordering::Relaxed);
            if now != progress {
                progress = now;
                strikes = 0;
                continue;
            }
            // Our own expired waits are counted, never a difference of clocks:
            // a frozen and thawed tree must not look like a dead collector.
            strikes += 1;
            if limit != u32::MAX && strikes >= limit {
                slot.lossy.store(1, Ordering::Relaxed);
                break None;
            }
        };
        header.waiters.fetch_sub(1, Ordering::SeqCst);
        let waited = sys::monotonic_ns().saturating_sub(began);
        slot.stalled_ns.fetch_add(waited, Ordering::Relaxed);
        index
    }

    /// Puts a chunk back that was not needed after all.
    pub fn give_back(&self, index: u32) {
        self.free_list().push(index);
    }

    /// One event could not be recorded; if not `ours_to_wait`, a signal
    /// handler's, which never waits.
    pub fn count_loss(&self, ours_to_wait: bool) {
        let slot = self.slot();
        let counter = if ours_to_wait {
            &slot.lost_events
        } else {
            &slot.lost_nested
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a sentence for the user into the recording. Descriptor 2 may be
    /// anything by now: a program's file, even.
    pub fn tell(&self, text: &[u8]) {
        let t = thread::current();
        if t.is_null() {
            return;
        }
        // SAFETY: this thread's state.
        unsafe {
            let was = thread::get_depth(t);
            thread::set_depth(t, depth::HOOK);
            thread::emit_blob(t, self, BlobKind::Note, 0, text);
            thread::set_depth(t, was);
        }
    }

    /// Tells the collector of a ring's first chunk.
    pub fn announce_ring(&self, index: u32, header: &ChunkHeader) {
        let list = &self.slot().new_rings;
        let mut head = list.load(Ordering::Relaxed);
        loop {
            header.link.store(head, Ordering::Relaxed);
            // Release pairs with the collector's swap: it sees the chunk's
            // header and link.
            match list.compare_exchange_weak(head, index + 1, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether a thread that is met for the first time may be asked for its stack:
    /// not in a program that was running before, where it may be anywhere in libc.
    pub fn may_ask_for_stack(&self) -> bool {
        !self.is_late || sys::gettid() == sys::getpid()
    }

    /// Whether an address lies in the object that `pthread_getattr_np` lies in.
    pub fn is_in_libc(&self, address: u64) -> bool {
        (self.libc.0..self.libc.1).contains(&address)
    }

    /// Lowest and highest address of the calling thread's stack; zeros when
    /// not known.
    ///
    /// May allocate inside libc: `depth` must be `QUIET`.
    pub fn stack_of_this_thread(&self) -> (u64, u64) {
        if sys::gettid() == sys::getpid() {
            return (self.main_stack_low, self.main_stack_high);
        }
        if self.getattr == 0 || self.getstack == 0 || self.attr_destroy == 0 {
            return (0, 0);
        }
        let errno = self.save_errno();
        let mut attributes = [0u64; 16]; // pthread_attr_t is 56 bytes
        let mut low = 0u64;
        let mut bytes = 0u64;
        let mut thread_pointer: u64;
        // SAFETY: the functions are libc's, of these types (pthread_self is
        // the thread pointer on x86-64 glibc); `attributes` is larger than
        // what they write.
        unsafe {
            core::arch::asm!("mov {}, fs:[0x10]", out(reg) thread_pointer, options(nostack, readonly));
            let getattr: extern "C" fn(u64, *mut u64) -> c_int = core::mem::transmute(self.getattr);
            let getstack: extern "C" fn(*const u64, *mut u64, *mut u64) -> c_int =
                core::mem::transmute(self.getstack);
            let destroy: extern "C" fn(*mut u64) -> c_int = core::mem::transmute(self.attr_destroy);
            if getattr(thread_pointer, attributes.as_mut_ptr()) == 0 {
                let _ = getstack(attributes.as_ptr(), &raw mut low, &raw mut bytes);
                let _ = destroy(attributes.as_mut_ptr());
            }
        }
        self.restore_errno(errno);
        (low, low + bytes)
    }

    /// Has [`thread::leaving`] called when the thread ends.
    pub fn watch_exit(&self, t: *mut Thread) {
        let Some(key) = self.key else { return };
        if self.setspecific == 0 {
            return;
        }
        // SAFETY: libc's function of this type.
        unsafe {
            let setspecific: extern "C" fn(u32, *const c_void) -> c_int =
                core::mem::transmute(self.setspecific);
            let _ = setspecific(key, t.cast());
        }
    }

    /// `errno`, to be put back after libc was asked something.
    pub fn save_errno(&self) -> i32 {
        if self.errno == 0 {
            return 0;
        }
        // SAFETY: libc's function; returns this thread's own word.
        unsafe {
            let location: extern "C" fn() -> *mut i32 = core::mem::transmute(self.errno);
            *location()
        }
    }

    /// See [`Session::save_errno`].
    pub fn restore_errno(&self, value: i32) {
        if self.errno == 0 {
            return;
        }
        // SAFETY: as above.
        unsafe {
            let location: extern "C" fn() -> *mut i32 = core::mem::transmute(self.errno);
            *location() = value;
        }
    }

    fn watch_forks() {
        static IS_DONE: AtomicU32 = AtomicU32::new(0);
        if IS_DONE.swap(1, Ordering::Relaxed) != 0 {
            return;
        }
        // SAFETY: libc's function of this type; the handlers stay mapped,
        // since nothing unloads us (the null handle is the program's own).
        unsafe {
            __register_atfork(
                before_fork,
                after_fork_in_parent,
                after_fork_in_child,
                null_mut(),
            );
        }
    }

    /// Sets up a forked child. True when it records from here on.
    #[cold]
    #[inline(never)]
    pub fn child(&self) -> bool {
        // SAFETY: our own page.
        let alive = unsafe { &*self.alive };
        if alive
            .compare_exchange(0, 2, Ordering::Relaxed, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let t = thread::current();
        // SAFETY: only one thread lives in a forked child, and it is here.
        unsafe { thread::after_fork(t) };
        thread::belong_here();
        modules::after_fork();
        elf::forget_walks();
        elf::after_fork();
        hooks::after_fork();
        let parent = self.slot_index();
        let parent_slot = self.slot();
        // SAFETY: this thread's state, if not null.
        let fork = unsafe { t.as_mut() }.map_or(0, |own| {
            own.holds_modules = false;
            core::mem::take(&mut own.fork)
        });
        // Giving up is for good, and for the descendants too: the word is
        // private memory, which they inherit.
        let give_up = || {
            if self.is_late {
                // The one thread of this process: nothing of ours is at work but
                // what the fork came from.
                alive.store(3, Ordering::Relaxed);
                // Python's domains stay, and pass on: a thread that is not here may
                // hold the lock that their tables are changed under.
                got::end();
                self.left_ns.store(sys::monotonic_ns(), Ordering::Relaxed);
                PROCESS_OF_MAP.store(sys::getpid(), Ordering::Relaxed);
                // SAFETY: as in `let_map_go`.
                unsafe { sys::cover_with_zeros(self.map, layout::MAP_BYTES) };
                STATE.store(state::LEFT, Ordering::Release);
            } else {
                STATE.store(state::OUTSIDE, Ordering::Release);
                alive.store(3, Ordering::Relaxed);
            }
            false
        };
        if self.mode() & mode::FOLLOW == 0 {
            return give_up();
        }
        let Some(index) = self.claim_slot() else {
            self.header().turned_away.fetch_add(1, Ordering::Relaxed);
            return give_up();
        };
        // A child of a raw clone may get here long after its parent ended, and
        // what it shares with the parent may be somebody else's by now.
        if parent_slot.state.load(Ordering::Acquire) != slot_state::LIVE
            || parent_slot.start_stamp.load(Ordering::Relaxed)
                != self.start_stamp.load(Ordering::Relaxed)
        {
            self.slot_at(index)
                .state
                .store(slot_state::FREE, Ordering::Release);
            return give_up();
        }
        self.slot.store(index, Ordering::Relaxed);
        let slot = self.slot();
        slot.pid.store(sys::getpid(), Ordering::Relaxed);
        slot.parent_slot.store(parent, Ordering::Relaxed);
        slot.fork_seq.store(fork, Ordering::Relaxed);
        let now = self.now();
        self.start_stamp.store(now, Ordering::Relaxed);
        slot.start_stamp.store(now, Ordering::Relaxed);
        slot.inherited_codes
            .store(python::code_count(), Ordering::Relaxed);
        slot.inherited_modules
            .store(modules::count(), Ordering::Relaxed);
        slot.forks.store(0, Ordering::Relaxed);
        slot.left.store(0, Ordering::Relaxed);
        slot.lossy.store(0, Ordering::Relaxed);
        slot.lost_events.store(0, Ordering::Relaxed);
        slot.lost_bytes.store(0, Ordering::Relaxed);
        slot.lost_nested.store(0, Ordering::Relaxed);
        slot.stalled_ns.store(0, Ordering::Relaxed);
        slot.sampling_ticks.store(0, Ordering::Relaxed);
        slot.left_out.store(0, Ordering::Relaxed);
        slot.truncated_stacks.store(0, Ordering::Relaxed);
        slot.broken_unwinds.store(0, Ordering::Relaxed);
        slot.new_rings.store(0, Ordering::Relaxed);
        slot.is_graph.store(0, Ordering::Relaxed);
        slot.graph_wanted.store(0, Ordering::Relaxed);
        slot.graph_begun.store(0, Ordering::Relaxed);
        slot.values_wanted.store(0, Ordering::Relaxed);
        slot.may_graph.store(may_graph::NO, Ordering::Relaxed);
        slot.scan.store(scan::WAITS, Ordering::Relaxed);
        slot.python_version.store(
            parent_slot.python_version.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        graph::after_fork();
        trie::after_fork(slot);
        // Release pairs with the collector's Acquire: it sees the words above.
        slot.state.store(slot_state::LIVE, Ordering::Release);
        self.header().claims.fetch_add(1, Ordering::Release);
        alive.store(1, Ordering::Relaxed);
        if !t.is_null() {
            // SAFETY: this thread's state; `depth` keeps handlers out.
            unsafe {
                let was = thread::get_depth(t);
                (*t).entered = u64::MAX;
                thread::set_depth(t, depth::HOOK);
                thread::introduce_child(t, self);
                thread::set_depth(t, was);
            }
        }
        true
    }

    /// Sets up a child that tells of its parent's heap, under a slot of its own.
    ///
    /// # Safety
    ///
    /// To be called by the one thread of such a child, whose state `t` is.
    pub unsafe fn begin_graph(&self, t: *mut Thread, fork: graph::Fork, number: u32) -> bool {
        // Whatever is allocated here passes through: the child is none of the program's.
        // SAFETY: our own page.
        unsafe { (*self.alive).store(2, Ordering::Relaxed) };
        // SAFETY: the caller's.
        unsafe { thread::after_fork(t) };
        let (parent, parent_slot) = (self.slot_index(), self.slot());
        let Some(index) = self.claim_slot() else {
            return false;
        };
        self.slot.store(index, Ordering::Relaxed);
        let slot = self.slot();
        slot.pid.store(sys::getpid(), Ordering::Relaxed);
        slot.parent_slot.store(parent, Ordering::Relaxed);
        slot.fork_seq.store(fork.sequence, Ordering::Relaxed);
        self.start_stamp.store(fork.forked, Ordering::Relaxed);
        slot.start_stamp.store(fork.forked, Ordering::Relaxed);
        slot.is_graph.store(1, Ordering::Relaxed);
        slot.graph_wanted.store(number, Ordering::Relaxed);
        let values = if fork.tells_values { number } else { 0 };
        slot.values_wanted.store(values, Ordering::Relaxed);
        slot.scan.store(scan::WAITS, Ordering::Relaxed);
        slot.scan_stack.store(fork.stack, Ordering::Relaxed);
        let own = core::ptr::from_ref(sys::own_memory()) as u64;
        slot.scan_own.store(own, Ordering::Relaxed);
        slot.scan_threads.store(fork.threads, Ordering::Relaxed);
        slot.left.store(0, Ordering::Relaxed);
        slot.lossy.store(0, Ordering::Relaxed);
        for counter in [
            &slot.lost_events,
            &slot.lost_bytes,
            &slot.lost_nested,
            &slot.stalled_ns,
            &slot.sampling_ticks,
            &slot.left_out,
            &slot.truncated_stacks,
            &slot.broken_unwinds,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        slot.new_rings.store(0, Ordering::Relaxed);
        slot.trie_nodes.store(0, Ordering::Relaxed);
        slot.python_version.store(
            parent_slot.python_version.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        // Release pairs with the collector's Acquire: it sees the words above.
        slot.state.store(slot_state::LIVE, Ordering::Release);
        self.header().claims.fetch_add(1, Ordering::Release);
        true
    }

    /// Whether the collector has come so far with its look at this child's memory.
    pub fn has_scanned(&self, step: u32) -> bool {
        // Acquire pairs with the collector's Release: it has read what this changes next.
        self.slot().scan.load(Ordering::Acquire) >= step
    }

    /// Chunks that nobody has, roughly.
    pub fn free_chunks(&self) -> u32 {
        self.header().free_count.load(Ordering::Relaxed)
    }

    fn claim_slot(&self) -> Option<u32> {
        (0..layout::SLOT_COUNT as u32).find(|index| {
            let slot = self.slot_at(*index);
            slot.state
                .compare_exchange(
                    slot_state::FREE,
                    slot_state::CLAIMED,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok()
        })
    }
}

extern "C" fn before_fork() {
    tell_of_fork();
    // Of every thread, whether it has a state or not; last, since the above looks
    // at the list as well.
    elf::hold_list();
}

/// Puts the instant into this thread's ring, where it has one and is in no hook.
fn tell_of_fork() {
    let t = thread::current();
    if t.is_null() || !is_joined() {
        return;
    }
    let session = joined();
    // SAFETY: this thread's state; nothing of ours is at work on it, or the
    // fork comes from a signal handler inside a hook, and we leave it alone.
    unsafe {
        let rest = thread::get_depth(t);
        if !matches!(rest, depth::IDLE | depth::SAMPLING) {
            return;
        }
        let here = &raw const session as u64;
        thread::arrive(t, here);
        if !session.is_alive() || session.mode() & mode::ON == 0 {
            thread::set_depth(t, rest);
            return;
        }
        thread::proceed(t, depth::HOOK, here);
        // libc does not free the loader's list lock in a child: nobody of us
        // may hold it while we fork, and the child has to know whether
        // somebody else does.
        elf::find_list_lock();
        real::resolve_missing();
        (*t).holds_modules = modules::begin_update();
        let sequence = session.slot().forks.fetch_add(1, Ordering::Relaxed) + 1;
        (*t).fork = sequence;
        let stamp = thread::stamp(t, session);
        thread::emit(
            t,
            session,
            [event::head(Kind::Fork, 0, sequence.into()), stamp],
        );
        thread::set_depth(t, depth::IDLE);
    }
}

extern "C" fn after_fork_in_parent() {
    elf::give_list_back();
    // SAFETY: this thread's state, if not null.
    if let Some(own) = unsafe { thread::current().as_mut() } {
        own.fork = 0;
        if core::mem::take(&mut own.holds_modules) {
            modules::end_update();
        }
    }
}

extern "C" fn after_fork_in_child() {
    elf::forget_walks();
    finish_for_another_thread();
    match STATE.load(Ordering::Acquire) {
        state::JOINED => {
            let session = joined();
            if !session.is_alive() {
                session.child();
            }
        }
        state::LEFT => {
            // The states of threads that are not here are free, and those that
            // come are this process's.
            // SAFETY: the one thread of a forked child.
            unsafe { thread::after_fork(thread::current()) };
            thread::belong_here();
            hooks::after_fork();
            PROCESS_OF_MAP.store(sys::getpid(), Ordering::Relaxed);
        }
        _ => {}
    }
}

/// In a forked child: the thread that was joining or leaving is not here. What it
/// was at is brought to an end, and nothing is recorded.
fn finish_for_another_thread() {
    let state = STATE.load(Ordering::Acquire);
    let is_ours = AT_IT.load(Ordering::Acquire) == sys::getpid();
    if !matches!(state, state::STARTING | state::LEAVING) || is_ours {
        return;
    }
    let session = joined();
    if session.is_late {
        elf::forget_walks();
        elf::after_fork();
        hooks::after_fork();
        session.put_back(Whose::Parents);
        STATE.store(state::LEFT, Ordering::Release);
    }
}

fn make_key() -> Option<u32> {
    let create = elf::find(c"pthread_key_create");
    if create == 0 {
        return None;
    }
    let mut key = 0u32;
    // SAFETY: libc's function of this type.
    let failed = unsafe {
        let create: extern "C" fn(*mut u32, extern "C" fn(sys::Pointer)) -> c_int =
            core::mem::transmute(create);
        create(&raw mut key, thread::leaving)
    };
    (failed == 0).then_some(key)
}

/// Says who we are; gives the length of the answer, and the descriptor that came
/// with it.
fn say_hello(
    fd: i32,
    pid: u32,
    token: [u8; 16],
    answer: &mut [u8],
) -> Result<(usize, Option<i32>), sys::Errno> {
    let hello = Hello {
        magic: layout::MAGIC,
        version: layout::VERSION,
        pid,
        token,
    };
    // SAFETY: plain words without padding.
    let bytes =
        unsafe { core::slice::from_raw_parts((&raw const hello).cast::<u8>(), size_of::<Hello>()) };
    sys::send(fd, bytes)?;
    sys::receive_with_fd(fd, answer)
}

/// Whether a text invites to a session.
pub fn is_invitation(text: &[u8]) -> bool {
    parse_invitation(text).is_some()
}

/// Name and secret of a session, of what the environment has.
fn parse_invitation(text: &[u8]) -> Option<(&[u8], [u8; 16])> {
    let colon = text.iter().rposition(|byte| *byte == b':')?;
    if text.len() - colon != 33 {
        return None;
    }
    let mut token = [0u8; 16];
    for (byte, digits) in token.iter_mut().zip(text[colon + 1..].chunks(2)) {
        *byte = digits
            .iter()
            .fold(0, |value, digit| value << 4 | hexadecimal(*digit));
    }
    Some((&text[..colon], token))
}

fn value_of<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    text.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn parse(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            None
        } else {
            value.checked_mul(10)?.checked_add(digit.into())
        }
    })
}

fn hexadecimal(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0,
    }
}
