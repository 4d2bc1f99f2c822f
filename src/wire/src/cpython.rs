//! Where things lie in CPython's objects: facts that the walk in a forked child and the
//! reading from outside share.

/// Bits of a type's `tp_flags`, as CPython names them.
#[expect(missing_docs, reason = "CPython's own names")]
pub mod flag {
    pub const INLINE_VALUES: u64 = 1 << 2;
    pub const MANAGED_WEAKREF: u64 = 1 << 3;
    pub const MANAGED_DICT: u64 = 1 << 4;
    pub const HEAP: u64 = 1 << 9;
    pub const READY: u64 = 1 << 12;
    pub const HAVE_GC: u64 = 1 << 14;
    pub const LONG: u64 = 1 << 24;
    pub const LIST: u64 = 1 << 25;
    pub const TUPLE: u64 = 1 << 26;
    pub const BYTES: u64 = 1 << 27;
    pub const TEXT: u64 = 1 << 28;
    pub const DICT: u64 = 1 << 29;
    pub const EXCEPTION: u64 = 1 << 30;
    pub const TYPE: u64 = 1 << 31;
}

/// Where things lie in a type object, alike in all versions since 3.9.
#[expect(missing_docs, reason = "CPython's own names, without `tp_`")]
pub mod of_type {
    pub const NAME: u64 = 24;
    pub const BASIC_SIZE: u64 = 32;
    pub const ITEM_SIZE: u64 = 40;
    pub const FLAGS: u64 = 168;
    pub const TRAVERSE: u64 = 184;
    pub const WEAK_OFFSET: u64 = 208;
    pub const MEMBERS: u64 = 240;
    pub const BASE: u64 = 256;
    pub const DICT: u64 = 264;
    pub const DICT_OFFSET: u64 = 288;
    pub const IS_GC: u64 = 328;
    pub const BASES: u64 = 336;
    pub const MRO: u64 = 344;
}

/// Where things lie by version (printed from each one's headers).
#[derive(Debug)]
#[expect(missing_docs, reason = "groups of them are told of")]
pub struct Places {
    /// Of a heap type.
    pub type_qualname: u64,
    pub type_keys: u64,
    /// Of a code object: names of what a frame holds, and how many.
    pub local_names: u64,
    pub local_count: u64,
    /// Of a frame.
    pub frame_locals: u64,
    pub frame_function: u64,
    pub frame_dict: u64,
    pub frame_object: u64,
    /// Of a tuple: its items.
    pub tuple_items: u64,
    /// Of a generator: its frame, and the byte that says whether it has one: below
    /// `generator_over`, as a signed number.
    pub generator_frame: u64,
    pub generator_state: u64,
    pub generator_over: i8,
    /// Of a function.
    pub function_qualname: u64,
    pub function_code: u64,
    pub function_globals: u64,
    pub function_defaults: u64,
    pub function_keywords: u64,
    pub function_closure: u64,
}

const P312: Places = Places {
    type_qualname: 872,
    type_keys: 880,
    local_names: 96,
    local_count: 72,
    frame_locals: 72,
    frame_function: 16,
    frame_dict: 40,
    frame_object: 48,
    generator_frame: 72,
    generator_state: 67,
    generator_over: 1,
    tuple_items: 24,
    function_qualname: 40,
    function_code: 48,
    function_globals: 16,
    function_defaults: 56,
    function_keywords: 64,
    function_closure: 72,
};
const P311: Places = Places {
    type_qualname: 864,
    type_keys: 872,
    local_count: 76,
    frame_function: 0,
    frame_dict: 24,
    frame_object: 40,
    generator_frame: 80,
    generator_state: 75,
    ..P312
};
/// Frames are objects, and have no names of all that they hold in one place.
const P310: Places = Places {
    frame_locals: 352,
    local_names: 72,
    ..P311
};
const P39: Places = Places {
    type_qualname: 856,
    type_keys: 864,
    frame_locals: 360,
    function_qualname: 104,
    function_code: 16,
    function_globals: 24,
    function_defaults: 32,
    function_keywords: 40,
    function_closure: 48,
    ..P310
};
const P314: Places = Places {
    frame_locals: 80,
    tuple_items: 32,
    ..P312
};
const P315: Places = Places {
    type_qualname: 880,
    type_keys: 888,
    generator_over: 5,
    ..P314
};

impl Places {
    /// Those of 3.`minor`.
    pub fn of(minor: u8) -> &'static Places {
        match minor {
            ..=9 => &P39,
            10 => &P310,
            11 => &P311,
            12 | 13 => &P312,
            14 => &P314,
            _ => &P315,
        }
    }
}
