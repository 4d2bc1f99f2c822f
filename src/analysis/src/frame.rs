//! Frames with names, and what part of a program each belongs to.

use std::num::NonZeroU32;

use crate::names::{Name, base_name};

/// A distinct frame: function, place and kind. Dense from 0 within one
/// [`Stacks`](crate::Stacks).
///
/// An option of one takes no more room: there may be a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(NonZeroU32);

impl FrameId {
    pub(crate) fn new(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        FrameId(NonZeroU32::new(number).unwrap_or(NonZeroU32::MAX))
    }

    pub(crate) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Between an address without a symbol and the nearest symbol before it:
/// `fastparse.so+0x3c1a (near parse+0x77)`.
pub(crate) const NEAR: &str = " (near ";

/// What follows the name of a function that is known by the name that Python
/// calls it by: `fastparse.parse (builtin)`.
pub(crate) const BUILTIN: &str = " (builtin)";

/// A frame with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its function; `module+0x1f` where no symbol is known,
    /// `module+0x1f (near name+0xf)` where one is near.
    pub function: Name,
    /// Its source file, empty when not known.
    pub file: Name,
    /// Its line, 0 when not known.
    pub line: u32,
    /// Path of its ELF file; empty for Python frames.
    pub module: Name,
    /// Python, native or inlined.
    pub kind: FrameKind,
    /// The part of the program it belongs to.
    pub role: Role,
}

/// What ran the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Python bytecode.
    Python,
    /// Machine code.
    Native,
    /// Machine code inlined into the next outer frame.
    Inlined,
}

impl FrameKind {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            FrameKind::Python => "python",
            FrameKind::Native => "native",
            FrameKind::Inlined => "inlined",
        }
    }
}

/// The part of a program that a frame belongs to: decides which frame a row is
/// named after and what a text report leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The user's own code.
    Own,
    /// Somebody else's library: site-packages, a system's shared object.
    Library,
    /// Python's standard library, its extension modules too.
    Standard,
    /// Standard-library code compiled into the program: C++ templates, Rust.
    Template,
    /// The C library and its like.
    System,
    /// The Python interpreter.
    Interpreter,
    /// An allocator's own functions.
    Allocator,
    /// What runs before `main` or a thread's first function.
    Start,
    /// No frame at all: says that the stack is cut.
    Marker,
}

impl Role {
    /// Whether text reports show such frames unless asked for all.
    pub fn is_shown(self) -> bool {
        !matches!(self, Role::Interpreter | Role::Allocator | Role::Start)
    }
}

/// How the names of the C library and its like begin.
const SYSTEM: [&str; 14] = [
    "libc.so",
    "libc-2",
    "ld-linux",
    "ld-2",
    "libpthread",
    "libm.so",
    "libm-2",
    "libdl",
    "librt",
    "libstdc++",
    "libc++",
    "libgcc_s",
    "libffi",
    "linux-vdso",
];

/// How the names of allocators begin.
const ALLOCATORS: [&str; 4] = ["libleakline", "libjemalloc", "libtcmalloc", "libmimalloc"];

/// The part that native code of the ELF file `path` belongs to.
pub(crate) fn role_of_module(path: &str) -> Role {
    let base = base_name(path);
    let any = |prefixes: &[&str]| prefixes.iter().any(|prefix| base.starts_with(prefix));
    if any(&ALLOCATORS) {
        Role::Allocator
    } else if any(&SYSTEM) || path == "[vdso]" {
        Role::System
    } else if is_interpreter(base) {
        Role::Interpreter
    } else if path.contains("/lib-dynload/") {
        Role::Standard
    } else if in_packages(path)
        || ((path.starts_with("/usr/lib") || path.starts_with("/lib")) && base.contains(".so"))
    {
        Role::Library
    } else {
        Role::Own
    }
}

/// A name for the ELF file `path` that says no more than what everybody has:
/// the C library and its like, an allocator, a Python interpreter. It has the
/// same role.
pub(crate) fn public_module(path: &str) -> Option<&'static str> {
    let base = base_name(path);
    let known = ALLOCATORS
        .iter()
        .chain(&SYSTEM)
        .find(|known| base.starts_with(**known));
    match known {
        Some(known) => Some(known),
        None if path == "[vdso]" => Some("[vdso]"),
        None if is_interpreter(base) => Some("python"),
        None => None,
    }
}

/// `python3`, `python3.13`, `python3.11-dbg`, `libpython3.13.so.1.0`.
fn is_interpreter(base: &str) -> bool {
    let Some(rest) = base
        .strip_prefix("lib")
        .unwrap_or(base)
        .strip_prefix("python")
    else {
        return false;
    };
    rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit())
}

fn in_packages(path: &str) -> bool {
    path.contains("/site-packages/") || path.contains("/dist-packages/")
}

/// The part that a Python file belongs to.
pub(crate) fn role_of_python(file: &str) -> Role {
    if in_packages(file) || file.starts_with("<__array_function__") {
        Role::Library
    } else if file.starts_with("<frozen ")
        || file.contains("/lib/python3")
        || file.contains("/lib64/python3")
    {
        Role::Standard
    } else {
        Role::Own
    }
}

/// The part that a native function belongs to, where that is not its module's.
pub(crate) fn role_of_function(function: &str, file: &str, module: Role) -> Role {
    if module == Role::Allocator || is_allocator(function) {
        Role::Allocator
    } else if module == Role::Interpreter {
        Role::Interpreter
    } else if is_start(function) {
        Role::Start
    } else if is_template(function)
        || file.starts_with("/rustc/")
        || file.contains("/rustlib/src/rust/library/")
        || file.contains("/include/c++/")
    {
        Role::Template
    } else {
        module
    }
}

/// Functions that exist to hand out memory, under whatever name.
fn is_allocator(function: &str) -> bool {
    const EXACT: [&str; 26] = [
        "malloc",
        "calloc",
        "realloc",
        "reallocarray",
        "memalign",
        "aligned_alloc",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "mmap",
        "mmap64",
        "mremap",
        "_int_malloc",
        "_int_realloc",
        "_int_memalign",
        "sysmalloc",
        "tcache_init",
        "xmalloc",
        "xcalloc",
        "xrealloc",
        "g_malloc",
        "g_malloc0",
        "g_malloc_n",
        "g_realloc",
        "g_realloc_n",
        "g_slice_alloc",
    ];
    const PREFIXES: [&str; 16] = [
        "operator new",
        "__libc_malloc",
        "__libc_calloc",
        "__libc_realloc",
        "__libc_memalign",
        "PyMem_",
        "_PyMem_",
        "PyObject_Malloc",
        "PyObject_Calloc",
        "PyObject_Realloc",
        "_PyObject_Malloc",
        "_PyObject_Calloc",
        "_PyObject_Realloc",
        "pymalloc_",
        "__rust_",
        "__rdl_",
    ];
    const TEMPLATES: [&str; 8] = [
        "std::allocator<",
        "std::__new_allocator<",
        "std::allocator_traits<",
        "__gnu_cxx::new_allocator<",
        "__gnu_cxx::__alloc_traits<",
        "alloc::alloc::",
        "<alloc::alloc::Global",
        "alloc::raw_vec::",
    ];
    EXACT.contains(&function)
        || PREFIXES.iter().any(|prefix| function.starts_with(prefix))
        || TEMPLATES
            .iter()
            .any(|prefix| without_return_type(function).starts_with(prefix))
}

fn is_start(function: &str) -> bool {
    matches!(
        function,
        "_start"
            | "start_thread"
            | "clone"
            | "clone3"
            | "__clone"
            | "__clone3"
            | "__libc_start_main"
            | "__libc_start_main_impl"
            | "__libc_start_main@@GLIBC_2.34"
            | "__libc_start_call_main"
    )
}

/// Functions of the C++ or Rust standard library, by name.
fn is_template(function: &str) -> bool {
    const PREFIXES: [&str; 8] = [
        "std::",
        "__gnu_cxx::",
        "core::",
        "alloc::",
        "<std::",
        "<core::",
        "<alloc::",
        "__cxxabi",
    ];
    let function = without_return_type(function);
    PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// A demangled C++ template function begins with its return type:
/// `void std::vector<int>::f<long>(long)`.
fn without_return_type(function: &str) -> &str {
    let name_end = function.find(['<', '(']).unwrap_or(function.len());
    function[..name_end]
        .rfind(' ')
        .map_or(function, |space| &function[space + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_have_roles() {
        for (path, role) in [
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", Role::System),
            ("/lib64/ld-linux-x86-64.so.2", Role::System),
            ("/usr/bin/python3.11", Role::Interpreter),
            (
                "/home/me/.pyenv/versions/3.13.0/lib/libpython3.13.so.1.0",
                Role::Interpreter,
            ),
            ("/usr/bin/pythonize", Role::Own),
            (
                "/usr/lib/python3.11/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so",
                Role::Standard,
            ),
            (
                "/venv/lib/python3.11/site-packages/numpy/core/_multiarray.so",
                Role::Library,
            ),
            ("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0", Role::Library),
            ("/usr/bin/jq", Role::Own),
            ("/srv/app/fastparse.so", Role::Own),
            ("/tmp/libleakline_preload.so", Role::Allocator),
        ] {
            assert_eq!(role_of_module(path), role, "{path}");
        }
    }

    #[test]
    fn functions_have_roles() {
        for (function, file, role) in [
            ("make", "main.c", Role::Own),
            ("operator new(unsigned long)", "", Role::Allocator),
            (
                "void* std::__new_allocator<int>::allocate(unsigned long)",
                "",
                Role::Allocator,
            ),
            (
                "void std::vector<int>::_M_realloc_insert<int>(int)",
                "",
                Role::Template,
            ),
            (
                "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
                "",
                Role::Template,
            ),
            ("alloc::raw_vec::RawVec<T>::grow_one", "", Role::Allocator),
            ("my::std::thing", "", Role::Own),
            (
                "insert",
                "/usr/include/c++/12/bits/stl_tree.h",
                Role::Template,
            ),
            ("start_thread", "", Role::Start),
        ] {
            assert_eq!(
                role_of_function(function, file, Role::Own),
                role,
                "{function}"
            );
        }
        assert_eq!(
            role_of_function("list_resize", "", Role::Interpreter),
            Role::Interpreter
        );
        assert_eq!(role_of_function("fopen", "", Role::System), Role::System);
    }

    #[test]
    fn python_files_have_roles() {
        for (file, role) in [
            ("/srv/app/views.py", Role::Own),
            ("<string>", Role::Own),
            ("<frozen importlib._bootstrap>", Role::Standard),
            ("/usr/lib/python3.11/json/decoder.py", Role::Standard),
            (
                "/usr/lib/python3/dist-packages/yaml/__init__.py",
                Role::Library,
            ),
        ] {
            assert_eq!(role_of_python(file), role, "{file}");
        }
    }
}
