//! Looks at the ELF objects that the loader has mapped: finds symbols without
//! `dlsym` (which locks, allocates on failure, and would tie the interposer to
//! the newest glibc's symbol versions), and unwind tables.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sys;

/// `struct dl_phdr_info`.
#[repr(C)]
pub struct PhdrInfo {
    pub bias: u64,
    pub name: *const c_char,
    pub headers: *const Phdr,
    pub header_count: u16,
    pub adds: u64,
    pub subs: u64,
}

/// `Elf64_Phdr`.
#[repr(C)]
pub struct Phdr {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub address: u64,
    pub physical: u64,
    pub file_bytes: u64,
    pub memory_bytes: u64,
    pub align: u64,
}

pub const PT_LOAD: u32 = 1;
pub const PT_DYNAMIC: u32 = 2;
pub const PT_NOTE: u32 = 4;
pub const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
const PT_GNU_RELRO: u32 = 0x6474_e552;

type Callback = unsafe extern "C" fn(*const PhdrInfo, usize, *mut c_void) -> c_int;

#[link(name = "c")]
unsafe extern "C" {
    fn dl_iterate_phdr(callback: Callback, data: *mut c_void) -> c_int;
}

/// Calls `visit` for every loaded object, in the loader's search order, until
/// it returns true. False when the list cannot be looked at.
///
/// Takes the loader's list lock, which is recursive and never held while code
/// outside the loader runs, except in callbacks like this and in signal handlers
/// ([`is_locked_here`]). Signals wait meanwhile: a handler that left by a jump would
/// leave it locked for good.
pub fn each_object<F: FnMut(&PhdrInfo) -> bool>(visit: F) -> bool {
    walk(visit, 5)
}

/// As [`each_object`], for who looks again and again, and may be in a handler: does
/// not wait to be sure that the list is another thread's.
pub fn each_object_now<F: FnMut(&PhdrInfo) -> bool>(visit: F) -> bool {
    walk(visit, 0)
}

fn walk<F: FnMut(&PhdrInfo) -> bool>(mut visit: F, patience: u32) -> bool {
    unsafe extern "C" fn call<F: FnMut(&PhdrInfo) -> bool>(
        info: *const PhdrInfo,
        _size: usize,
        data: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes a valid info, and `data` is the closure
        // below, which outlives the iteration.
        unsafe { c_int::from((*data.cast::<F>())(&*info)) }
    }
    if is_list_lost() {
        return false;
    }
    let mask = sys::block_signals();
    if is_locked_here(patience) {
        sys::restore_signals(mask);
        return false;
    }
    begin_walk();
    // SAFETY: `call::<F>` matches `visit`'s type.
    unsafe {
        dl_iterate_phdr(call::<F>, (&raw mut visit).cast());
    }
    WALKS.fetch_sub(1, Ordering::SeqCst);
    sys::restore_signals(mask);
    true
}

/// Whether this thread has the list locked, or may be about to: it was interrupted in
/// the loader, by the handler that led here. The list may have an object then of
/// which the memory is gone; and who is in the midst of taking the lock, or of giving
/// it back, does not get it a second time. `patience` are turns that another thread
/// gets that lost its processor there.
pub fn is_locked_here(patience: u32) -> bool {
    /// What takes a few instructions is over after so many looks.
    const LOOKS: u32 = 100;
    let lock = LIST_LOCK.load(Ordering::Relaxed);
    if lock <= 1 {
        return false;
    }
    // SAFETY: a word of the loader's data, as `find_list_lock` found it.
    let word = |i: u64| unsafe { ((lock + 4 * i) as *const u32).read_volatile() };
    for turn in 0..LOOKS + patience {
        if word(0) == 0 {
            return false;
        }
        match word(2) {
            // Locked, and by nobody: between the two, somebody is.
            0 if turn < LOOKS => core::hint::spin_loop(),
            0 => wait_a_turn(),
            owner => return owner == sys::gettid(),
        }
    }
    true
}

/// Whether nobody will ever unlock the list.
pub fn is_list_lost() -> bool {
    LIST_IS_LOST.load(Ordering::Relaxed) != 0
}

/// Threads that walk the list or want to, and that are forking: libc does not free
/// the list's lock in a child, so nobody of us may hold it then. Who wants to walk
/// waits for forks that are under way, and those to come wait for him. Neither
/// waits for ever: a program may be walking, too, and call us from there.
static WALKS: AtomicU32 = AtomicU32::new(0);
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Turns of 100 us that one waits for the other.
const MOST_TURNS: u32 = 1000;

fn wait_a_turn() {
    const TURN_NS: u64 = 100_000;
    static NOTHING: u32 = 0;
    let _ = sys::futex_wait(&raw const NOTHING, 0, TURN_NS);
}

/// The thread that holds the list for its fork; 0 if there is none, the last one if
/// there are several.
static FORKER: AtomicU32 = AtomicU32::new(0);

fn begin_walk() {
    WALKS.fetch_add(1, Ordering::SeqCst);
    // Other libraries' fork handlers may allocate, and lead here: this walk is over
    // before the fork that they belong to.
    if FORKS.load(Ordering::SeqCst) != 0 && FORKER.load(Ordering::SeqCst) == sys::gettid() {
        return;
    }
    for _ in 0..MOST_TURNS {
        if FORKS.load(Ordering::SeqCst) == 0 {
            return;
        }
        wait_a_turn();
    }
}

/// Before a fork: no walk is under way from here on, nor begins.
pub fn hold_list() {
    for turn in 0..=MOST_TURNS {
        FORKS.fetch_add(1, Ordering::SeqCst);
        if WALKS.load(Ordering::SeqCst) == 0 || turn == MOST_TURNS {
            FORKER.store(sys::gettid(), Ordering::SeqCst);
            return;
        }
        FORKS.fetch_sub(1, Ordering::SeqCst);
        wait_a_turn();
    }
}

/// After it, in the parent.
pub fn give_list_back() {
    FORKS.fetch_sub(1, Ordering::SeqCst);
}

/// After it, in the child: nobody else is here.
pub fn forget_walks() {
    WALKS.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
}

/// Where the loader's list lock lies; 0 = not looked for yet, 1 = not found.
static LIST_LOCK: AtomicU64 = AtomicU64::new(0);
/// 1 in a forked child whose list was locked by a thread that is not here:
/// nobody will unlock it. (libc frees its own locks in a child, not this one.)
static LIST_IS_LOST: AtomicU32 = AtomicU32::new(0);

/// Finds the list lock: the one mutex of the loader's that is ours while its
/// list is being walked, and is not before.
///
/// Not to be called from within [`each_object`].
pub fn find_list_lock() {
    if LIST_LOCK.load(Ordering::Relaxed) != 0 {
        return;
    }
    let mut globals = (0, 0);
    each_object(|object| {
        globals = object.sized_symbol(c"_rtld_global");
        globals.0 != 0
    });
    let (start, bytes) = globals;
    let mut found = 1;
    if start != 0 && (64..1 << 16).contains(&bytes) {
        let thread = sys::gettid();
        // `pthread_mutex_t`: lock, count, owner, users, kind (1: recursive).
        let is_ours = |at: u64| {
            // SAFETY: within the loader's own data; read as it may change.
            let word = |i: u64| unsafe { ((at + 4 * i) as *const u32).read_volatile() };
            word(0) != 0 && word(1) == 1 && word(2) == thread && word(3) == 1 && word(4) & 127 == 1
        };
        let places = || (start..start + bytes - 40).step_by(8);
        let before = places().filter(|at| is_ours(*at)).count();
        // Those that are ours now already (a fork from a constructor) would
        // have to be told apart; that is not worth it.
        if before == 0 {
            each_object(|_| {
                let mut all = places().filter(|at| is_ours(*at));
                if let (Some(only), None) = (all.next(), all.next()) {
                    found = only;
                }
                true
            });
        }
    }
    if found != 1 || bytes == 0 {
        LIST_LOCK.store(found, Ordering::Relaxed);
    }
}

/// In a forked child: sees whether the list can be looked at.
pub fn after_fork() {
    let lock = LIST_LOCK.load(Ordering::Relaxed);
    // SAFETY: a word of the loader's data.
    let is_lost = lock <= 1 || unsafe { (lock as *const u32).read_volatile() } != 0;
    LIST_IS_LOST.store(is_lost.into(), Ordering::Relaxed);
}

impl PhdrInfo {
    /// Whether it is the interposer.
    pub fn is_ours(&self) -> bool {
        self.contains(find as fn(&CStr) -> u64 as usize as u64)
    }

    /// The program headers.
    pub fn headers(&self) -> &[Phdr] {
        if self.headers.is_null() {
            return &[];
        }
        // SAFETY: the loader keeps the headers of a listed object mapped while
        // its callback runs, which is as long as `self` lives.
        unsafe { core::slice::from_raw_parts(self.headers, self.header_count.into()) }
    }

    /// First and past-the-last address of the loaded segments.
    pub fn span(&self) -> (u64, u64) {
        let mut start = u64::MAX;
        let mut end = 0;
        for header in self.headers() {
            if header.kind == PT_LOAD {
                start = start.min(self.bias.wrapping_add(header.address));
                end = end.max(
                    self.bias
                        .wrapping_add(header.address)
                        .wrapping_add(header.memory_bytes),
                );
            }
        }
        if start < end {
            (start & !0xfff, (end + 0xfff) & !0xfff)
        } else {
            (0, 0)
        }
    }

    /// Whether `address` lies in a loaded segment.
    pub fn contains(&self, address: u64) -> bool {
        self.headers().iter().any(|header| {
            header.kind == PT_LOAD
                && address.wrapping_sub(self.bias.wrapping_add(header.address))
                    < header.memory_bytes
        })
    }

    /// The GNU build-id in memory, or empty.
    pub fn build_id(&self) -> &[u8] {
        for header in self
            .headers()
            .iter()
            .filter(|header| header.kind == PT_NOTE)
        {
            let mut at = self.bias.wrapping_add(header.address);
            let end = at + header.memory_bytes;
            while at + 12 <= end {
                // SAFETY: within a PT_NOTE segment of a loaded object, which
                // lies in a PT_LOAD one and is mapped while we look.
                let (name_bytes, data_bytes, kind) = unsafe {
                    let words = at as *const u32;
                    (words.read(), words.add(1).read(), words.add(2).read())
                };
                let name = at + 12;
                let data = name + ((u64::from(name_bytes) + 3) & !3);
                if data + u64::from(data_bytes) > end {
                    break;
                }
                // SAFETY: inside the note, as just checked.
                let is_gnu = name_bytes == 4
                    && unsafe { (name as *const u32).read_unaligned() }
                        == u32::from_le_bytes(*b"GNU\0");
                if kind == 3 && is_gnu {
                    // SAFETY: inside the note; the object stays mapped as long
                    // as `self`.
                    return unsafe {
                        core::slice::from_raw_parts(data as *const u8, data_bytes as usize)
                    };
                }
                at = data + ((u64::from(data_bytes) + 3) & !3);
            }
        }
        &[]
    }

    /// The object's name as the loader has it, empty for the executable.
    pub fn name(&self) -> &CStr {
        if self.name.is_null() {
            return c"";
        }
        // SAFETY: the loader's own string, valid while its callback runs.
        unsafe { CStr::from_ptr(self.name) }
    }

    /// The pages that the loader takes the right to write from once the object is
    /// relocated; empty without such.
    pub fn read_only_after_relocation(&self) -> (u64, u64) {
        self.headers()
            .iter()
            .find(|header| header.kind == PT_GNU_RELRO)
            .map_or((0, 0), |header| {
                let start = self.bias.wrapping_add(header.address);
                let end = start.wrapping_add(header.memory_bytes);
                // As the loader rounds it.
                (start & !0xfff, end & !0xfff)
            })
    }

    /// The tables that relocation works with; `None` for an object without
    /// symbols.
    pub fn relocations(&self) -> Option<Relocations> {
        let mut tables = Relocations {
            bias: self.bias,
            symbols: 0,
            strings: 0,
            data: (0, 0),
            calls: (0, 0),
        };
        self.each_dynamic(|tag, value, address| match tag {
            2 => tables.calls.1 = value,
            5 => tables.strings = address,
            6 => tables.symbols = address,
            7 => tables.data.0 = address,
            8 => tables.data.1 = value,
            23 => tables.calls.0 = address,
            _ => {}
        });
        (tables.symbols != 0 && tables.strings != 0).then_some(tables)
    }

    /// Calls `visit` with each tag of the dynamic section, its value, and that as an
    /// address.
    fn each_dynamic(&self, mut visit: impl FnMut(u64, u64, u64)) {
        let is_dynamic = |header: &&Phdr| header.kind == PT_DYNAMIC;
        let Some(dynamic) = self.headers().iter().find(is_dynamic) else {
            return;
        };
        let mut at = self.bias.wrapping_add(dynamic.address);
        loop {
            // SAFETY: the dynamic section of a loaded object is mapped and
            // ends with a null tag.
            let (tag, value) = unsafe { (sys::word(at), sys::word(at + 8)) };
            if tag == 0 {
                return;
            }
            // The loader adds the bias in place, except in read-only objects
            // like the vDSO.
            let address = if value < self.bias {
                value.wrapping_add(self.bias)
            } else {
                value
            };
            visit(tag, value, address);
            at += 16;
        }
    }

    /// Address of a symbol that the object defines and exports, in its default
    /// version. 0 when it does not.
    pub fn symbol(&self, name: &CStr) -> u64 {
        self.sized_symbol(name).0
    }

    /// As [`PhdrInfo::symbol`], with the symbol's size in bytes.
    pub fn sized_symbol(&self, name: &CStr) -> (u64, u64) {
        let (mut symbols, mut strings, mut gnu_hash, mut versions) = (0, 0, 0, 0);
        self.each_dynamic(|tag, _, address| match tag {
            5 => strings = address,
            6 => symbols = address,
            0x6fff_fef5 => gnu_hash = address,
            0x6fff_fff0 => versions = address,
            _ => {}
        });
        if symbols == 0 || strings == 0 || gnu_hash == 0 {
            return (0, 0);
        }
        // SAFETY: the tables that the dynamic section names are mapped, and
        // are walked as the hash table's own layout bounds it.
        unsafe { lookup(self.bias, name, symbols, strings, gnu_hash, versions) }
    }
}

/// Tables of an object's dynamic section: address and size in bytes.
pub struct Relocations {
    bias: u64,
    symbols: u64,
    strings: u64,
    /// `DT_RELA`.
    data: (u64, u64),
    /// `DT_JMPREL`.
    calls: (u64, u64),
}

/// A word that holds the address of a symbol.
pub struct Reference<'a> {
    /// Where the word lies.
    pub slot: u64,
    /// The symbol's name.
    pub name: &'a CStr,
    /// Of a word that is bound at the first call: its number among those.
    pub lazy_number: Option<u32>,
    /// The object defines the symbol, too.
    pub is_own: bool,
}

impl Relocations {
    /// Calls `visit` with every word that relocation filled with the address of
    /// a symbol with a name.
    ///
    /// # Safety
    ///
    /// The object must be loaded, and stay so meanwhile.
    pub unsafe fn each(&self, mut visit: impl FnMut(&Reference<'_>)) {
        const ABSOLUTE: u32 = 1;
        const GLOBAL_DATA: u32 = 6;
        const JUMP_SLOT: u32 = 7;
        for (start, bytes) in [self.data, self.calls] {
            // Elf64_Rela: offset, info (symbol << 32 | kind), addend.
            for (number, entry) in (0..).zip((start..start.saturating_add(bytes)).step_by(24)) {
                // SAFETY: the caller's: the table is mapped, as are symbols and
                // strings that its entries name.
                unsafe {
                    let info = sys::word(entry + 8);
                    let (symbol, kind) = (info >> 32, info as u32);
                    let is_plain = matches!(kind, GLOBAL_DATA | JUMP_SLOT)
                        || kind == ABSOLUTE && sys::word(entry + 16) == 0;
                    if symbol == 0 || !is_plain {
                        continue;
                    }
                    let name = (self.symbols + symbol * 24) as *const u32;
                    visit(&Reference {
                        slot: self.bias.wrapping_add(sys::word(entry)),
                        name: CStr::from_ptr((self.strings + u64::from(name.read())) as *const _),
                        lazy_number: (kind == JUMP_SLOT).then_some(number),
                        // The symbol's section: none, of one that is elsewhere.
                        is_own: name.cast::<u16>().add(3).read() != 0,
                    });
                }
            }
        }
    }
}

/// # Safety
///
/// The tables must be those of a loaded object.
unsafe fn lookup(
    bias: u64,
    name: &CStr,
    symbols: u64,
    strings: u64,
    gnu_hash: u64,
    versions: u64,
) -> (u64, u64) {
    let hash = name.to_bytes().iter().fold(5381u32, |hash, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    });
    // SAFETY: `Elf64` GNU hash: nbuckets, symoffset, bloom words, shift, the
    // bloom filter, buckets, chains; a chain ends at an odd hash.
    unsafe {
        let table = gnu_hash as *const u32;
        let buckets = table.read();
        let first = table.add(1).read();
        let bloom_words = table.add(2).read();
        if buckets == 0 {
            return (0, 0);
        }
        let bucket = table.add(4 + 2 * bloom_words as usize);
        let chain = bucket.add(buckets as usize);
        let mut index = bucket.add((hash % buckets) as usize).read();
        if index < first {
            return (0, 0);
        }
        loop {
            let here = chain.add((index - first) as usize).read();
            if here | 1 == hash | 1 {
                // Elf64_Sym: name u32, info u8, other u8, section u16, value, size.
                let symbol = (symbols + u64::from(index) * 24) as *const u32;
                let text = (strings + u64::from(symbol.read())) as *const c_char;
                let info = symbol.cast::<u8>().add(4).read();
                let section = symbol.cast::<u16>().add(3).read();
                let hidden = versions != 0
                    && ((versions + u64::from(index) * 2) as *const u16).read() & 0x8000 != 0;
                let is_ifunc = info & 15 == 10;
                if section != 0 && !hidden && !is_ifunc && CStr::from_ptr(text) == name {
                    let value = bias.wrapping_add(sys::word(symbol as u64 + 8));
                    return (value, sys::word(symbol as u64 + 16));
                }
            }
            if here & 1 != 0 {
                return (0, 0);
            }
            index += 1;
        }
    }
}

/// Address of the first definition of `name` in search order, ours left out.
/// 0 when there is none.
pub fn find(name: &CStr) -> u64 {
    search(name, |_| true)
}

/// Address of the executable's own definition of `name`, 0 without one: it is
/// what everybody calls, and only by its own `RTLD_NEXT` is ours reached.
pub fn find_own(name: &CStr) -> u64 {
    search(name, |place| place == Place::Executable)
}

/// First and past-the-last address of the object that `address` lies in.
pub fn span_of(address: u64) -> (u64, u64) {
    let mut span = (0, 0);
    each_object(|object| {
        let is_it = object.contains(address);
        if is_it {
            span = object.span();
        }
        is_it
    });
    span
}

/// Address of the next definition of `name` after ours.
pub fn find_next(name: &CStr) -> u64 {
    search(name, |place| place == Place::After)
}

/// Where an object stands in search order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Executable,
    Before,
    After,
}

fn search(name: &CStr, wanted: impl Fn(Place) -> bool) -> u64 {
    let mut place = Place::Executable;
    let mut found = 0;
    each_object(|object| {
        if object.is_ours() {
            place = Place::After;
            return false;
        }
        if wanted(place) {
            found = object.symbol(name);
        }
        if place == Place::Executable {
            place = Place::Before;
        }
        found != 0
    });
    found
}
