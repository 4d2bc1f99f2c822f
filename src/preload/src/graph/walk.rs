//! The walk over a process's objects.

use leakline_wire::cpython::{Places, flag, of_type};
use leakline_wire::graph::{Writer, collects, label, node_flag, root, status, type_flag};

use super::cpython::Functions;
use super::keys::{self, Keys};
use super::memory::{Counts, List, Map};
use super::{MOST_BY_CLOCK_NS, MOST_NS};
use crate::python::Interpreter;
use crate::sys;

/// Most frames of a thread that are told of: more are no chain, but nonsense.
const MOST_FRAMES: usize = 1 << 20;

#[inline(always)]
unsafe fn byte(address: u64) -> u8 {
    // SAFETY: the caller's: it is readable.
    unsafe { (address as *const u8).read() }
}

#[inline(always)]
unsafe fn half(address: u64) -> u32 {
    // SAFETY: the caller's: it is readable.
    unsafe { (address as *const u32).read_unaligned() }
}

/// What a link of the collector's lists leads to: its low bits are flags.
///
/// # Safety
///
/// It must be readable.
#[inline(always)]
pub unsafe fn linked(at: u64) -> u64 {
    // SAFETY: the caller's: it is readable.
    unsafe { (at as *const u64).read_unaligned() & !3 }
}

fn is_plausible(address: u64) -> bool {
    (1 << 16..1 << 47).contains(&address) && address.is_multiple_of(8)
}

/// See the module.
pub struct Walk<'a, H: FnMut(&[u8]) -> bool> {
    pub python: &'a Interpreter,
    functions: &'a Functions,
    places: &'static Places,
    pub out: Writer<'a, H>,
    /// Where what keys of dicts are is to be told.
    keys: Option<Keys<'a>>,
    /// Numbers of types.
    pub types: Map,
    /// Objects that are types.
    pub classes: Map,
    /// Numbers of names, by string object, or by the bytes of ours.
    names: Map,
    /// The lists of the collector of cycles; the last is of what is frozen. 0: none.
    pub lists: [u64; 4],
    /// Objects that are in no list of the collector of cycles and were met; not 0 where it was
    /// told what key it is.
    pub seen: Map,
    /// How many references to each object were told of.
    pub counts: Counts,
    /// Those of them that are still to be told of.
    waiting: List,
    /// Closures' tuples of cells, which are told of last: by then it is known whose they
    /// are.
    closures: List,
    /// The code of the function that a closure is of.
    codes: Map,
    /// What `tp_traverse` said of an object; 0 where it was told already.
    targets: List,
    /// What was told so far.
    pub nodes: u64,
    pub edges: u64,
    began: u64,
    /// The objects of the list that is being told of are frozen.
    is_frozen: bool,
    /// How it ends: one of [`status`].
    pub status: u64,
}

/// Called by `tp_traverse` for each reference.
unsafe extern "C" fn visit(object: u64, targets: *mut List) -> i32 {
    if object != 0 {
        // SAFETY: what `Walk::traverse` handed over.
        let has_room = unsafe { (*targets).push(object) };
        return i32::from(!has_room);
    }
    0
}

// SAFETY of what follows, throughout: objects are read that the interpreter holds, in a
// copy of its memory that nobody else changes, at the offsets of its version. What does
// not hold ends the child, and the child only.
#[expect(clippy::undocumented_unsafe_blocks, reason = "see above")]
impl<'a, H: FnMut(&[u8]) -> bool> Walk<'a, H> {
    /// A walk that tells `out`, begun at a time of the monotonic clock.
    pub fn new(
        python: &'a Interpreter,
        functions: &'a Functions,
        out: Writer<'a, H>,
        keys: Option<Keys<'a>>,
        began: u64,
    ) -> Self {
        Walk {
            python,
            functions,
            places: Places::of(python.minor),
            out,
            keys,
            types: Map::default(),
            classes: Map::default(),
            names: Map::default(),
            lists: [0; 4],
            seen: Map::default(),
            counts: Counts::default(),
            waiting: List::default(),
            closures: List::default(),
            codes: Map::default(),
            targets: List::default(),
            nodes: 0,
            edges: 0,
            began,
            is_frozen: false,
            status: status::COMPLETE,
        }
    }

    /// Gives back what only the walk needs: lists that have objects' addresses.
    pub fn forget(&mut self) {
        self.waiting.release();
        self.closures.release();
        self.targets.release();
        self.counts.release();
        self.codes = Map::default();
    }

    /// Whether the collector of cycles runs by itself: one of [`collects`].
    ///
    /// # Safety
    ///
    /// As for [`Walk::all`].
    pub unsafe fn collects(&self) -> u64 {
        // Before the first of the lists, and another number, until there was a function.
        let distance = if self.lists[0].is_multiple_of(8) {
            12
        } else {
            8
        };
        let enabled = unsafe {
            if self.functions.collects != 0 {
                let is_enabled: extern "C" fn() -> i32 =
                    core::mem::transmute(self.functions.collects);
                is_enabled() as u32
            } else if self.python.minor == 9 && self.lists[0] != 0 {
                half(self.lists[0] - distance)
            } else {
                return collects::UNKNOWN;
            }
        };
        if enabled == 0 {
            collects::NO
        } else {
            collects::YES
        }
    }

    /// Tells of everything.
    ///
    /// # Safety
    ///
    /// To be called in a forked child, whose parent's thread held the GIL.
    pub unsafe fn all(&mut self) {
        unsafe {
            let mut lists = [0; 4];
            if !self.find_lists(&mut lists) {
                self.status = status::CONFUSED;
                return;
            }
            self.lists = lists;
            self.roots();
            for (number, list) in lists.into_iter().enumerate() {
                if list == 0 {
                    continue;
                }
                self.is_frozen = number == 3;
                let mut at = linked(list);
                while at != list {
                    if at == 0 || !self.goes_on() {
                        return;
                    }
                    if self.is_closure(at + 16) {
                        if !self.closures.push(at + 16) {
                            self.status = status::OUT_OF_MEMORY;
                        }
                    } else {
                        self.object(at + 16, true);
                    }
                    self.rest();
                    at = linked(at);
                }
            }
            self.rest();
            self.is_frozen = false;
            while let Some(closure) = self.closures.pop() {
                if !self.goes_on() {
                    return;
                }
                self.object(closure, true);
                self.rest();
            }
        }
    }

    /// Whether an object is a tuple of cells.
    unsafe fn is_closure(&self, object: u64) -> bool {
        unsafe {
            sys::word(object + 8) == self.functions.tuple
                && Self::length_of(object) > 0
                && sys::word(object + self.places.tuple_items) != 0
                && sys::word(sys::word(object + self.places.tuple_items) + 8) == self.functions.cell
        }
    }

    /// Whether there is time, and nothing has failed.
    fn goes_on(&mut self) -> bool {
        if self.out.has_failed() {
            return false;
        }
        if self.nodes.is_multiple_of(4096)
            && self.status == status::COMPLETE
            && (sys::spent_ns() > MOST_NS
                || sys::monotonic_ns().saturating_sub(self.began) > MOST_BY_CLOCK_NS)
        {
            self.status = status::OUT_OF_TIME;
        }
        self.status == status::COMPLETE
    }

    /// Tells of the objects that wait.
    unsafe fn rest(&mut self) {
        while let Some(object) = self.waiting.pop() {
            if !self.goes_on() {
                return;
            }
            unsafe { self.object(object, false) };
        }
    }

    // ------------------------------------------------------------ CPython's lists

    /// The lists of the collector of cycles: three of generations and one of what is
    /// frozen. They lie in the interpreter's state, of which they are found by their
    /// shape: three rings in a row, of 24 bytes each. 0: there is no such list.
    unsafe fn find_lists(&self, lists: &mut [u64; 4]) -> bool {
        const MOST_BYTES: u64 = 1 << 20;
        const STEP: u64 = 24;
        unsafe {
            let get: extern "C" fn() -> u64 = core::mem::transmute(self.functions.interpreter);
            let state = get();
            let mut at = state;
            let mut checked = 0;
            while at < state + MOST_BYTES {
                // All that is read of the lists that would begin here.
                let page = (at + 128) & !4095;
                if page != checked {
                    if !sys::is_readable(page) {
                        return false;
                    }
                    checked = page;
                }
                if Self::is_list(at) && Self::is_list(at + STEP) && Self::is_list(at + 2 * STEP) {
                    *lists = [at, at + STEP, at + 2 * STEP, 0];
                    // Behind a pointer to the first, in some versions.
                    // (from a multiple of 8 on, which the lists need not be at).
                    lists[3] = [0, 8, 12]
                        .map(|more| at + 3 * STEP + more)
                        .into_iter()
                        .find(|at| Self::is_list(*at))
                        .unwrap_or(0);
                    return true;
                }
                // Builds there are that put them between words of eight bytes.
                at += 4;
            }
        }
        false
    }

    unsafe fn is_list(at: u64) -> bool {
        unsafe {
            let (next, previous) = (linked(at), linked(at + 8));
            if next == at || previous == at {
                return next == previous;
            }
            let is_plausible = |link: u64| is_plausible(link & !4);
            is_plausible(next)
                && is_plausible(previous)
                && sys::is_readable(next + 8)
                && linked(next + 8) == at
                && sys::is_readable(previous)
                && linked(previous) == at
        }
    }

    // ------------------------------------------------------------ roots

    unsafe fn roots(&mut self) {
        unsafe {
            let modules: extern "C" fn() -> u64 = core::mem::transmute(self.functions.module_dict);
            let modules = modules();
            if modules != 0 {
                self.root(root::INTERPRETER, 0, b"", b"sys.modules", modules);
                let mut position = 0;
                while let Some((key, module)) = self.next_item(modules, &mut position) {
                    let mut name = [0; 256];
                    let name = self.text(key, &mut name);
                    self.root(root::MODULE, 0, name, b"", module);
                }
            }
            let (first, next) = (self.functions.first_thread, self.functions.next_thread);
            if first == 0 || next == 0 {
                return;
            }
            let interpreter: extern "C" fn() -> u64 =
                core::mem::transmute(self.functions.interpreter);
            let first: extern "C" fn(u64) -> u64 = core::mem::transmute(first);
            let next: extern "C" fn(u64) -> u64 = core::mem::transmute(next);
            let mut thread = first(interpreter());
            let mut number = 1;
            while thread != 0 && number < 10_000 {
                self.frames(thread, number);
                thread = next(thread);
                number += 1;
            }
        }
    }

    unsafe fn root(&mut self, kind: u64, detail: u64, name: &[u8], label: &[u8], target: u64) {
        self.out.root(kind, detail, name, label, target);
        self.count(target);
        unsafe { self.reach(target) };
    }

    fn count(&mut self, target: u64) {
        if !self.counts.add(target) {
            self.status = status::OUT_OF_MEMORY;
        }
    }

    /// What the running frames of a thread hold.
    unsafe fn frames(&mut self, thread: u64, number: u64) {
        let layout = &self.python.layout;
        unsafe {
            let mut frame = sys::word(thread + layout.state_frame);
            if let Some(offset) = layout.c_frame
                && frame != 0
            {
                frame = sys::word(frame + offset);
            }
            for _ in 0..MOST_FRAMES {
                if frame == 0 {
                    return;
                }
                let code = sys::word(frame + layout.frame_code) & !7;
                let is_frame = !self.python.is_boundary(frame)
                    && code != 0
                    && sys::word(code + 8) == self.functions.code;
                if is_frame {
                    let mut name = [0; 256];
                    let name = self.text(sys::word(code + layout.code_name), &mut name);
                    if self.python.minor >= 11 {
                        self.locals(frame, code, number, name);
                    } else {
                        // An object like any other.
                        self.root(root::FRAME, number, name, b"", frame);
                    }
                }
                frame = sys::word(frame + layout.frame_previous);
            }
        }
    }

    /// What a frame holds that is no object (3.11 on).
    unsafe fn locals(&mut self, frame: u64, code: u64, number: u64, name: &[u8]) {
        unsafe {
            let places = self.places;
            for offset in [
                places.frame_function,
                places.frame_dict,
                places.frame_object,
            ] {
                let held = sys::word(frame + offset) & !7;
                if held != 0 {
                    self.root(root::FRAME, number, name, b"", held);
                }
            }
            self.root(root::FRAME, number, name, b"", code);
            let names = sys::word(code + places.local_names);
            let count = u64::from(half(code + places.local_count));
            for i in 0..count.min(Self::length_of(names)) {
                let word = sys::word(frame + places.frame_locals + 8 * i);
                // From 3.14 on the low bits are a tag; both of them: no object.
                if word & !7 == 0 || word & 3 == 3 {
                    continue;
                }
                let mut label = [0; 256];
                let label = self.text(
                    sys::word(names + self.places.tuple_items + 8 * i),
                    &mut label,
                );
                self.root(root::FRAME, number, name, label, word & !7);
            }
        }
    }

    // ------------------------------------------------------------ objects

    /// An object was met as what another refers to.
    unsafe fn reach(&mut self, object: u64) {
        unsafe {
            if Self::is_tracked(object) {
                // It is in one of the lists.
                return;
            }
        }
        match self.seen.entry(object, 0) {
            Some((_, false)) => return,
            Some((_, true)) if self.waiting.push(object) => return,
            _ => {}
        }
        self.status = status::OUT_OF_MEMORY;
    }

    /// Whether an object has the collector's words before it.
    unsafe fn is_collected(object: u64) -> bool {
        unsafe {
            let type_ = sys::word(object + 8);
            if sys::word(type_ + of_type::FLAGS) & flag::HAVE_GC == 0 {
                return false;
            }
            let is_gc = sys::word(type_ + of_type::IS_GC);
            if is_gc == 0 {
                return true;
            }
            let is_gc: extern "C" fn(u64) -> i32 = core::mem::transmute(is_gc);
            is_gc(object) != 0
        }
    }

    unsafe fn is_tracked(object: u64) -> bool {
        unsafe { Self::is_collected(object) && sys::word(object - 16) != 0 }
    }

    unsafe fn object(&mut self, object: u64, is_tracked: bool) {
        unsafe {
            let type_ = sys::word(object + 8);
            let flags = sys::word(type_ + of_type::FLAGS);
            let Some(number) = self.type_number(type_) else {
                self.status = status::OUT_OF_MEMORY;
                return;
            };
            let (references, is_immortal) = self.references(object);
            let mut node = 0;
            if is_tracked {
                node |= node_flag::TRACKED;
                if self.is_frozen {
                    node |= node_flag::FROZEN;
                }
            }
            if flags & flag::TYPE != 0 && self.classes.entry(object, 0).is_none() {
                self.status = status::OUT_OF_MEMORY;
            }
            if is_immortal {
                node |= node_flag::IMMORTAL;
            }
            let bytes = self.bytes_of(object, type_, flags);
            self.out.node(object, number, bytes, references, node);
            self.nodes += 1;
            self.title(object, type_, flags);
            if type_ == self.functions.dict {
                self.dict_items(object, false);
            } else if type_ == self.functions.list {
                self.array(sys::word(object + 24), Self::length_of(object), false);
            } else if type_ == self.functions.tuple {
                if !self.cells(object) {
                    self.array(
                        object + self.places.tuple_items,
                        Self::length_of(object),
                        false,
                    );
                }
            } else if type_ == self.functions.set || type_ == self.functions.frozen_set {
                self.elements(object);
            } else {
                self.parts(object, type_, flags);
            }
        }
    }

    /// How many references an object counts, and whether it is immortal.
    ///
    /// # Safety
    ///
    /// It must be one.
    pub unsafe fn references(&self, object: u64) -> (u64, bool) {
        unsafe {
            let count = sys::word(object);
            if self.python.minor < 12 {
                return (count, false);
            }
            // The upper half is flags, or belongs to it.
            let count = count as u32;
            (count.into(), (count as i32) < 0)
        }
    }

    /// `ob_size` of a sequence.
    unsafe fn length_of(object: u64) -> u64 {
        if object == 0 {
            return 0;
        }
        unsafe { sys::word(object + 16) }
            .cast_signed()
            .unsigned_abs()
    }

    /// Bytes of an object and what belongs to it alone.
    unsafe fn bytes_of(&self, object: u64, type_: u64, flags: u64) -> u64 {
        let minor = self.python.minor;
        unsafe {
            let mut bytes = sys::word(type_ + of_type::BASIC_SIZE);
            let item = sys::word(type_ + of_type::ITEM_SIZE);
            if flags & flag::TEXT != 0 {
                let (state, length) = (half(object + 32), sys::word(object + 16));
                if state >> 5 & 1 != 0 && type_ == self.functions.text {
                    let head = if state >> 6 & 1 != 0 {
                        self.python.layout.text_ascii
                    } else {
                        self.python.layout.text_other
                    };
                    return head + (length + 1) * u64::from(state >> 2 & 7);
                }
                return bytes + (length + 1) * u64::from(state >> 2 & 7);
            }
            if item != 0 {
                let count = if self.is_suspendable(type_) {
                    // Where others have their size it has something else.
                    self.suspended_frame(object)
                        .map_or(0, |(_, code)| half(code + self.places.local_count).into())
                } else if type_ == self.functions.frame && minor >= 11 {
                    self.frame_of(object)
                        .map_or(0, |(_, code)| half(code + self.places.local_count).into())
                } else if flags & flag::LONG != 0 && minor >= 12 {
                    sys::word(object + 16) >> 3
                } else if flags & flag::TYPE != 0 {
                    // A type's items are its members.
                    Self::length_of(object).min(1000)
                } else {
                    Self::length_of(object)
                };
                bytes = bytes.saturating_add(count.saturating_mul(item));
            }
            if Self::is_collected(object) {
                bytes += 16;
            }
            if flags & (flag::MANAGED_DICT | flag::MANAGED_WEAKREF) != 0 && minor >= 11 {
                bytes += 16;
            }
            let beside = if flags & flag::LIST != 0 {
                // Below 0 while it is being sorted.
                let room = sys::word(object + 32).cast_signed();
                room.max(0).unsigned_abs().saturating_mul(8)
            } else if flags & flag::DICT != 0 {
                self.table_bytes(object)
            } else if type_ == self.functions.set || type_ == self.functions.frozen_set {
                if sys::word(object + 40) == object + 64 {
                    0
                } else {
                    (sys::word(object + 32) + 1).saturating_mul(16)
                }
            } else if type_ == self.functions.byte_array {
                sys::word(object + 24)
            } else if flags & flag::INLINE_VALUES != 0 && minor >= 13 {
                let capacity = u64::from(byte(object + sys::word(type_ + of_type::BASIC_SIZE)));
                8 + 8 * capacity + capacity
            } else {
                0
            };
            bytes.saturating_add(beside)
        }
    }

    /// Bytes of a dict's table: of keys that it shares with others, those of its values.
    unsafe fn table_bytes(&self, dict: u64) -> u64 {
        unsafe {
            let (keys, values) = (sys::word(dict + 32), sys::word(dict + 40));
            if keys == 0 {
                return 0;
            }
            if self.python.minor < 11 {
                let size = sys::word(keys + 8).min(1 << 40);
                if values != 0 {
                    return size * 2 / 3 * 8;
                }
                let index = match size {
                    ..=0xff => 1,
                    0x100..=0xffff => 2,
                    _ => 4,
                };
                return 40 + size * index + size * 2 / 3 * 24;
            }
            let size = 1_u64 << byte(keys + 8).min(40);
            let usable = size * 2 / 3;
            if values != 0 {
                // Those that lie in the object whose they are count there.
                let is_embedded = self.python.minor >= 13 && byte(values + 2) != 0;
                return if is_embedded { 0 } else { 8 * usable };
            }
            let entry = if byte(keys + 10) == 0 { 24 } else { 16 };
            32 + (1_u64 << byte(keys + 9).min(44)) + usable * entry
        }
    }

    // ------------------------------------------------------------ names

    unsafe fn text<'b>(&self, object: u64, buffer: &'b mut [u8]) -> &'b [u8] {
        unsafe {
            if object == 0 || sys::word(sys::word(object + 8) + of_type::FLAGS) & flag::TEXT == 0 {
                return b"?";
            }
            self.python.text(object, buffer)
        }
    }

    /// The number of a type, which is told of when it is met first.
    ///
    /// # Safety
    ///
    /// It must be one.
    pub unsafe fn type_number(&mut self, type_: u64) -> Option<u64> {
        let (number, is_new) = self.types.entry(type_, self.types.length as u64)?;
        if is_new {
            unsafe {
                let flags = sys::word(type_ + of_type::FLAGS);
                let mut told = 0;
                if flags & flag::HAVE_GC != 0 {
                    told |= type_flag::COLLECTED;
                }
                if flags & flag::HEAP != 0 {
                    told |= type_flag::HEAP;
                } else if flags & flag::HAVE_GC == 0
                    && !self.functions.is_own(type_)
                    && sys::word(type_ + of_type::BASIC_SIZE) > 16
                {
                    told |= type_flag::OPAQUE;
                }
                if flags & flag::HEAP != 0 && flags & flag::HAVE_GC == 0 {
                    told |= type_flag::OPAQUE;
                }
                let mut name = [0; 512];
                let length = self.type_name(type_, flags, &mut name);
                self.out.type_(type_, told, &name[..length]);
                self.reach(type_);
            }
        }
        Some(number)
    }

    /// `module.name` of a type; gives how long it is.
    unsafe fn type_name(&self, type_: u64, flags: u64, name: &mut [u8; 512]) -> usize {
        let mut length = 0;
        unsafe {
            if flags & flag::HEAP != 0 {
                let dict = sys::word(type_ + of_type::DICT);
                let mut part = [0; 250];
                if dict != 0
                    && let Some(module) = self.get(dict, b"__module__")
                {
                    let module = self.text(module, &mut part);
                    if module != b"builtins" && module != b"?" {
                        length = append(name, length, module);
                        length = append(name, length, b".");
                    }
                }
                let qualname = sys::word(type_ + self.places.type_qualname);
                return append(name, length, self.text(qualname, &mut part));
            }
            let text = sys::word(type_ + of_type::NAME);
            if text == 0 {
                return append(name, 0, b"?");
            }
            while length < 511 && byte(text + length as u64) != 0 {
                name[length] = byte(text + length as u64);
                length += 1;
            }
        }
        length
    }

    /// The label of a name of ours.
    fn fixed(&mut self, kind: u64, name: &'static [u8]) -> u64 {
        let next = self.names.length as u64;
        match self.names.entry(name.as_ptr() as u64, next) {
            Some((number, is_new)) => {
                if is_new {
                    self.out.name(name);
                }
                number << label::BITS | kind
            }
            None => label::OTHER,
        }
    }

    /// The label of a name of the program's.
    unsafe fn named(&mut self, kind: u64, name: u64) -> u64 {
        let next = self.names.length as u64;
        match self.names.entry(name, next) {
            Some((number, is_new)) => {
                if is_new {
                    let mut buffer = [0; 256];
                    let text = unsafe { self.text(name, &mut buffer) };
                    self.out.name(text);
                }
                number << label::BITS | kind
            }
            None => label::OTHER,
        }
    }

    /// The label of a C string.
    unsafe fn c_named(&mut self, kind: u64, name: u64) -> u64 {
        let next = self.names.length as u64;
        match self.names.entry(name, next) {
            Some((number, is_new)) => {
                if is_new {
                    let mut buffer = [0; 128];
                    let mut length = 0;
                    while length < buffer.len() {
                        let byte = unsafe { byte(name + length as u64) };
                        if byte == 0 {
                            break;
                        }
                        buffer[length] = byte;
                        length += 1;
                    }
                    self.out.name(&buffer[..length]);
                }
                number << label::BITS | kind
            }
            None => label::OTHER,
        }
    }

    /// What an object calls itself, where it is a part of the program.
    unsafe fn title(&mut self, object: u64, type_: u64, flags: u64) {
        unsafe {
            let mut buffer = [0; 512];
            if flags & flag::TYPE != 0 {
                let own = sys::word(object + of_type::FLAGS);
                let length = self.type_name(object, own, &mut buffer);
                self.out.title(&buffer[..length]);
                return;
            }
            let name = if type_ == self.functions.module {
                let dict = sys::word(object + 16);
                if dict == 0 {
                    return;
                }
                self.get(dict, b"__name__").unwrap_or(0)
            } else if type_ == self.functions.function {
                sys::word(object + self.places.function_qualname)
            } else if type_ == self.functions.code {
                sys::word(object + self.python.layout.code_name)
            } else {
                return;
            };
            let text = self.text(name, &mut buffer);
            self.out.title(text);
        }
    }

    // ------------------------------------------------------------ edges

    unsafe fn edge(&mut self, label: u64, target: u64) {
        if target == 0 {
            return;
        }
        self.out.edge(label, target);
        self.edges += 1;
        self.count(target);
        unsafe { self.reach(target) };
    }

    unsafe fn next_item(&self, dict: u64, position: &mut isize) -> Option<(u64, u64)> {
        let (mut key, mut value) = (0_u64, 0_u64);
        let more = unsafe {
            let next: extern "C" fn(u64, *mut isize, *mut u64, *mut u64) -> i32 =
                core::mem::transmute(self.functions.dict_next);
            next(dict, position, &raw mut key, &raw mut value)
        };
        (more != 0).then_some((key, value))
    }

    /// The value of a key that is a string.
    unsafe fn get(&self, dict: u64, wanted: &[u8]) -> Option<u64> {
        let mut position = 0;
        while let Some((key, value)) = unsafe { self.next_item(dict, &mut position) } {
            let mut buffer = [0; 64];
            if unsafe { self.text(key, &mut buffer) } == wanted {
                return Some(value);
            }
        }
        None
    }

    /// Whether a dict's key is a name in the code: a string that is interned.
    unsafe fn is_name(&self, key: u64) -> bool {
        unsafe { sys::word(key + 8) == self.functions.text && half(key + 32) & 3 != 0 }
    }

    /// Tells what a dict's key is that is no name, which was told as a node: the `at`-th of
    /// so many.
    unsafe fn value_of_key(&mut self, key: u64, at: u64, of: u64) {
        // What is in the lists of the collector of cycles is told of by its type only.
        if self.seen.get(key) != Some(0) {
            return;
        }
        let Some(keys) = &mut self.keys else { return };
        let mut content = [0; keys::MOST_CONTENT];
        // SAFETY of its contract: a dict has it, and so it is an object.
        let Some((kind, length)) =
            (unsafe { keys::read(key, &keys.kinds, sys::is_readable, &mut content) })
        else {
            return;
        };
        if !keys.wants(at, of) {
            return;
        }
        if !keys.out.has_room() {
            self.out.apart(keys.out.take());
        }
        keys.tell(key, kind, &content[..length]);
        self.seen.add(key);
    }

    /// Hands on what was told of keys, and how many there were.
    pub fn end_keys(&mut self) {
        if let Some(keys) = &mut self.keys {
            if !keys.out.has_room() {
                self.out.apart(keys.out.take());
            }
            self.out.apart(keys.end());
        }
    }

    /// The label of what a dict has under a key.
    unsafe fn item(&mut self, key: u64) -> u64 {
        unsafe {
            if self.is_name(key) {
                return self.named(label::NAMED_ITEM, key);
            }
            let type_ = sys::word(key + 8);
            match self.type_number(type_) {
                Some(number) => number << label::BITS | label::ITEM,
                None => label::OTHER,
            }
        }
    }

    /// Items of a dict. Where it `is_part` of an object that was traversed, of what was
    /// found there.
    unsafe fn dict_items(&mut self, dict: u64, is_part: bool) {
        const USED: u64 = 16;
        unsafe {
            let values = sys::word(dict + 40);
            // The values lie in the object whose attributes they are, and are its own.
            if values != 0 && self.python.minor >= 13 && byte(values + 2) != 0 {
                return;
            }
            let mut position = 0;
            let mut at = 0;
            let mut number = 0;
            while let Some((key, value)) = self.next_item(dict, &mut position) {
                let label = self.item(key);
                if is_part {
                    self.claim_next(&mut at, label, value);
                } else {
                    self.edge(label, value);
                }
                // Keys that are shared belong to the type.
                if values == 0 {
                    let is_told = is_part && self.claim_near(&mut at, label::KEY, key);
                    if !is_told {
                        self.edge(label::KEY, key);
                    }
                    if self.keys.is_some() && !self.is_name(key) {
                        self.value_of_key(key, number, sys::word(dict + USED));
                    }
                }
                number += 1;
            }
        }
    }

    /// `count` elements, from the last to the first as `tp_traverse` goes.
    unsafe fn array(&mut self, items: u64, count: u64, is_part: bool) {
        unsafe {
            let mut at = 0;
            for i in (0..count).rev() {
                let item = sys::word(items + 8 * i);
                let label = i << label::BITS | label::INDEX;
                if is_part {
                    self.claim_next(&mut at, label, item);
                } else {
                    self.edge(label, item);
                }
            }
        }
    }

    /// A closure's cells, by the names of its function's variables. False: it is none.
    unsafe fn cells(&mut self, tuple: u64) -> bool {
        const OLD_FREE: u64 = 80;
        unsafe {
            let Some(code) = self.codes.get(tuple) else {
                return false;
            };
            let count = Self::length_of(tuple);
            // What a function took with it comes last among its variables.
            let place = if self.python.minor >= 11 {
                self.places.local_names
            } else {
                OLD_FREE
            };
            let names = sys::word(code + place);
            let Some(first) = Self::length_of(names).checked_sub(count) else {
                return false;
            };
            for i in 0..count {
                let label = self.named(
                    label::LOCAL,
                    sys::word(names + self.places.tuple_items + 8 * (first + i)),
                );
                self.edge(label, sys::word(tuple + self.places.tuple_items + 8 * i));
            }
        }
        true
    }

    unsafe fn elements(&mut self, set: u64) {
        unsafe {
            let (table, mask) = (sys::word(set + 40), sys::word(set + 32));
            for i in 0..=mask {
                let entry = table + 16 * i;
                // What was taken out leaves a mark with this hash.
                let is_there = sys::word(entry + 8) != u64::MAX;
                if is_there {
                    self.edge(label::KEY, sys::word(entry));
                }
            }
        }
    }

    /// Tells of a reference by its label, if `tp_traverse` found it and it was not told
    /// of yet. Attributes come first or last.
    unsafe fn claim(&mut self, label: u64, target: u64) -> bool {
        const FIRST: usize = 256;
        const LAST: usize = 64;
        if target == 0 {
            return false;
        }
        let targets = self.targets.words();
        let last = targets.len().saturating_sub(LAST).max(FIRST);
        let place = (0..targets.len().min(FIRST))
            .chain(last..targets.len())
            .find(|place| targets[*place] == target);
        let Some(place) = place else { return false };
        targets[place] = 0;
        unsafe { self.edge(label, target) };
        true
    }

    /// As [`Walk::claim`], of one of many that come in order: from `at` on.
    unsafe fn claim_next(&mut self, at: &mut usize, label: u64, target: u64) {
        const NEAR: usize = 8;
        if target == 0 {
            return;
        }
        let targets = self.targets.words();
        // The first may come after all attributes.
        let end = if *at == 0 {
            targets.len()
        } else {
            targets.len().min(*at + NEAR)
        };
        if let Some(place) = (*at..end).find(|place| targets[*place] == target) {
            targets[place] = 0;
            *at = place + 1;
            unsafe { self.edge(label, target) };
        }
    }

    /// As [`Walk::claim_next`], of what would be the very next.
    unsafe fn claim_near(&mut self, at: &mut usize, label: u64, target: u64) -> bool {
        let targets = self.targets.words();
        if targets.get(*at) != Some(&target) {
            return false;
        }
        targets[*at] = 0;
        *at += 1;
        unsafe { self.edge(label, target) };
        true
    }

    unsafe fn traverse(&mut self, object: u64, type_: u64) {
        self.targets.length = 0;
        unsafe {
            let traverse = sys::word(type_ + of_type::TRAVERSE);
            if traverse == 0 || !Self::is_collected(object) {
                return;
            }
            let traverse: extern "C" fn(
                u64,
                unsafe extern "C" fn(u64, *mut List) -> i32,
                *mut List,
            ) -> i32 = core::mem::transmute(traverse);
            if traverse(object, visit, &raw mut self.targets) != 0 {
                self.status = status::OUT_OF_MEMORY;
            }
        }
    }

    /// What an object refers to that is no plain container: what `tp_traverse` finds,
    /// with labels from the places where it is known to lie.
    unsafe fn parts(&mut self, object: u64, type_: u64, flags: u64) {
        unsafe {
            self.traverse(object, type_);
            if flags & flag::HEAP != 0 {
                let label = self.fixed(label::ATTRIBUTE, b"__class__");
                if !self.claim(label, type_) {
                    // Each object of such a type holds it, also where that is not said.
                    self.edge(label, type_);
                }
            }
            self.attributes(object, type_, flags);
            self.members(object, type_, flags);
            self.known_parts(object, type_, flags);
            if flags & flag::DICT != 0 {
                self.dict_items(object, true);
            } else if flags & flag::LIST != 0 {
                self.array(sys::word(object + 24), Self::length_of(object), true);
            } else if flags & flag::TUPLE != 0 {
                self.array(
                    object + self.places.tuple_items,
                    Self::length_of(object),
                    true,
                );
            }
            let mut at = 0;
            while let Some(target) = self.targets.words().get(at).copied() {
                self.edge(label::OTHER, target);
                at += 1;
            }
            self.pointers(object, type_, flags);
        }
    }

    /// What lies in an object's `__dict__`, or where that would be.
    unsafe fn attributes(&mut self, object: u64, type_: u64, flags: u64) {
        const MANAGED: u64 = 24;
        const VALUES_311: u64 = 32;
        unsafe {
            let minor = self.python.minor;
            let mut dict = 0;
            let mut values = 0;
            let offset = sys::word(type_ + of_type::DICT_OFFSET).cast_signed();
            if minor >= 11 && flags & flag::MANAGED_DICT != 0 {
                let word = sys::word(object - MANAGED);
                if minor == 11 {
                    dict = word;
                    values = sys::word(object - VALUES_311);
                } else if minor == 12 {
                    if word & 1 != 0 {
                        values = word + 1;
                    } else {
                        dict = word;
                    }
                } else {
                    dict = word;
                    if flags & flag::INLINE_VALUES != 0 {
                        let inline = object + sys::word(type_ + of_type::BASIC_SIZE);
                        if byte(inline + 3) != 0 {
                            values = inline + 8;
                        }
                    }
                }
            } else if offset > 0 && flags & flag::TYPE == 0 {
                dict = sys::word(object.wrapping_add_signed(offset));
            }
            if dict != 0 {
                let label = self.fixed(label::ATTRIBUTE, b"__dict__");
                self.claim(label, dict);
            }
            if values != 0 {
                let keys = sys::word(type_ + self.places.type_keys);
                if keys == 0 {
                    return;
                }
                let count = sys::word(keys + 24).min(64);
                let entries = keys + 32 + (1_u64 << byte(keys + 9).min(20));
                for i in 0..count {
                    let (name, value) = (sys::word(entries + 16 * i), sys::word(values + 8 * i));
                    if name != 0 && value != 0 {
                        let label = self.named(label::ATTRIBUTE, name);
                        self.claim(label, value);
                    }
                }
            }
        }
    }

    /// What a type and its bases say where in an object something lies: slots, and
    /// members of types in C.
    unsafe fn members(&mut self, object: u64, type_: u64, flags: u64) {
        const OBJECT: u32 = 6;
        const OBJECT_OR_ERROR: u32 = 16;
        const RELATIVE: u32 = 8;
        unsafe {
            let is_collected = Self::is_collected(object);
            let mut of = type_;
            for _ in 0..64 {
                if of == 0 {
                    return;
                }
                let mut member = sys::word(of + of_type::MEMBERS);
                for _ in 0..256 {
                    if member == 0 || sys::word(member) == 0 {
                        break;
                    }
                    let what = half(member + 8);
                    let offset = sys::word(member + 16);
                    let is_there = matches!(what, OBJECT | OBJECT_OR_ERROR)
                        && half(member + 24) & RELATIVE == 0
                        && offset < 1 << 20;
                    if is_there {
                        let target = sys::word(object + offset);
                        if target != 0 {
                            let label = self.c_named(label::ATTRIBUTE, sys::word(member));
                            if is_collected {
                                self.claim(label, target);
                            } else if flags & flag::TYPE == 0 {
                                // What it says it has, it has: nobody asks it.
                                self.edge(label, target);
                            }
                        }
                    }
                    member += 40;
                }
                of = sys::word(of + of_type::BASE);
            }
        }
    }

    unsafe fn at(&mut self, object: u64, places: &[(u64, &'static [u8])]) {
        for (offset, name) in places {
            unsafe {
                let target = sys::word(object + offset);
                if target != 0 {
                    let label = self.fixed(label::ATTRIBUTE, name);
                    self.claim(label, target);
                }
            }
        }
    }

    /// The interpreter's own types, whose parts are in no list of members.
    unsafe fn known_parts(&mut self, object: u64, type_: u64, flags: u64) {
        let (functions, places) = (self.functions, self.places);
        unsafe {
            if type_ == functions.function {
                let closure = sys::word(object + places.function_closure);
                let code = sys::word(object + places.function_code);
                if closure != 0 && self.codes.entry(closure, code).is_none() {
                    self.status = status::OUT_OF_MEMORY;
                }
                self.at(
                    object,
                    &[
                        (places.function_closure, b"__closure__"),
                        (places.function_defaults, b"__defaults__"),
                        (places.function_keywords, b"__kwdefaults__"),
                        (places.function_code, b"__code__"),
                        (places.function_globals, b"__globals__"),
                    ],
                );
            } else if type_ == functions.cell {
                self.at(object, &[(16, b"cell_contents")]);
            } else if type_ == functions.module {
                self.at(object, &[(16, b"__dict__")]);
            } else if type_ == functions.builtin {
                self.at(object, &[(24, b"__self__")]);
            } else if flags & flag::TYPE != 0 {
                let parts: [(u64, &'static [u8]); 4] = [
                    (of_type::DICT, b"__dict__"),
                    (of_type::BASES, b"__bases__"),
                    (of_type::MRO, b"__mro__"),
                    (of_type::BASE, b"__base__"),
                ];
                if Self::is_collected(object) {
                    self.at(object, &parts);
                } else {
                    // Not a heap type: nothing may traverse it.
                    for (offset, name) in parts {
                        let label = self.fixed(label::ATTRIBUTE, name);
                        self.edge(label, sys::word(object + offset));
                    }
                }
            } else if self.is_suspendable(type_) {
                self.suspended(object);
            } else if type_ == functions.frame && self.python.minor < 11 {
                self.old_frame(object);
            } else if type_ == functions.frame {
                self.frame_object(object);
            } else if flags & flag::EXCEPTION != 0 {
                let old = if self.python.minor >= 11 { 0 } else { 8 };
                self.at(
                    object,
                    &[
                        (24, b"args"),
                        (40 - old, b"__traceback__"),
                        (48 - old, b"__context__"),
                        (56 - old, b"__cause__"),
                    ],
                );
            }
        }
    }

    /// Whether a type is that of generators or coroutines.
    fn is_suspendable(&self, type_: u64) -> bool {
        let functions = self.functions;
        [
            functions.generator,
            functions.coroutine,
            functions.async_generator,
        ]
        .contains(&type_)
    }

    /// The frame of a generator or coroutine, and its code (3.11 on; before, the frame is
    /// an object).
    unsafe fn suspended_frame(&self, object: u64) -> Option<(u64, u64)> {
        unsafe {
            let places = self.places;
            let state = byte(object + places.generator_state).cast_signed();
            if self.python.minor < 11 || state >= places.generator_over {
                return None;
            }
            let frame = object + places.generator_frame;
            let code = sys::word(frame + self.python.layout.frame_code) & !7;
            let is_there = is_plausible(code)
                && sys::is_readable(code + 8)
                && sys::word(code + 8) == self.functions.code;
            is_there.then_some((frame, code))
        }
    }

    /// Variables of a generator's or coroutine's frame.
    unsafe fn suspended(&mut self, object: u64) {
        unsafe {
            if let Some((frame, code)) = self.suspended_frame(object) {
                let places = self.places;
                let names = sys::word(code + places.local_names);
                let count = u64::from(half(code + places.local_count));
                self.variables(frame + places.frame_locals, names, count);
            }
        }
    }

    unsafe fn variables(&mut self, values: u64, names: u64, count: u64) {
        unsafe {
            for i in 0..count.min(Self::length_of(names)) {
                let value = sys::word(values + 8 * i) & !7;
                if value != 0 {
                    let label = self.named(
                        label::LOCAL,
                        sys::word(names + self.places.tuple_items + 8 * i),
                    );
                    self.claim(label, value);
                }
            }
        }
    }

    /// What a frame object of 3.11 and later is of, and its code.
    unsafe fn frame_of(&self, object: u64) -> Option<(u64, u64)> {
        const FRAME: u64 = 24;
        unsafe {
            let frame = sys::word(object + FRAME);
            if frame == 0 {
                return None;
            }
            let code = sys::word(frame + self.python.layout.frame_code) & !7;
            (code != 0 && sys::word(code + 8) == self.functions.code).then_some((frame, code))
        }
    }

    /// Variables of a frame object, if the frame is its own: its function is done.
    unsafe fn frame_object(&mut self, object: u64) {
        unsafe {
            if let Some((frame, code)) = self.frame_of(object) {
                let places = self.places;
                let names = sys::word(code + places.local_names);
                let count = u64::from(half(code + places.local_count));
                self.variables(frame + places.frame_locals, names, count);
            }
        }
    }

    /// A frame object of 3.9 and 3.10: its variables, then its cells, then what is free.
    unsafe fn old_frame(&mut self, frame: u64) {
        const NAMES: u64 = 72;
        const FREE: u64 = 80;
        const CELLS: u64 = 88;
        unsafe {
            let code = sys::word(frame + self.python.layout.frame_code);
            if code == 0 {
                return;
            }
            let mut at = frame + self.places.frame_locals;
            for offset in [NAMES, CELLS, FREE] {
                let names = sys::word(code + offset);
                let count = Self::length_of(names);
                self.variables(at, names, count);
                at += 8 * count;
            }
        }
    }

    /// Words of an object that are no object it refers to, and could be native memory.
    unsafe fn pointers(&mut self, object: u64, type_: u64, flags: u64) {
        const MOST_WORDS: u64 = 64;
        const PLAIN: u64 = flag::LONG | flag::BYTES | flag::TEXT | flag::TYPE | flag::DICT;
        let functions = self.functions;
        let is_plain = flags & PLAIN != 0
            || [
                functions.function,
                functions.builtin,
                functions.cell,
                functions.code,
                functions.module,
                functions.frame,
                functions.byte_array,
            ]
            .contains(&type_)
            || self.is_suspendable(type_);
        if is_plain {
            return;
        }
        unsafe {
            let words = sys::word(type_ + of_type::BASIC_SIZE) / 8;
            // A weak reference is not one.
            let weak = sys::word(type_ + of_type::WEAK_OFFSET);
            for i in 2..words.min(MOST_WORDS) {
                if 8 * i == weak {
                    continue;
                }
                let word = sys::word(object + 8 * i);
                if is_plausible(word) && word.is_multiple_of(16) && !functions.is_own(word) {
                    self.out.pointer(word);
                }
            }
        }
    }
}

/// Puts `part` into `name` from `length` on; gives how long it is then.
fn append(name: &mut [u8; 512], mut length: usize, part: &[u8]) -> usize {
    for byte in part {
        if length < name.len() {
            name[length] = *byte;
            length += 1;
        }
    }
    length
}
