//! The functions through which Python enters native code, for files whose own
//! symbols were stripped.
//!
//! CPython calls into an extension module (or the interpreter's own builtins)
//! by tables that the code needs at run time, so that no strip takes them
//! away: method definitions (`PyMethodDef`) and slots of types, each a pointer
//! to a function beside the name that Python knows it by. The function's
//! extent is that of its unwind information.
//!
//! # Invariants
//!
//! * A table is believed only where everything fits: names are identifiers,
//!   flags are ones that exist, and each function is the start of a function
//!   in `.eh_frame`.
//! * Whatever a file holds, reading it ends, in memory bounded by
//!   [`MOST_BYTES`].
//!
//! Tables that are made at run time (pybind11, PyO3) are not in the file.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use object::elf::{R_X86_64_64, R_X86_64_RELATIVE, SHF_ALLOC, SHF_WRITE};
use object::read::elf::ElfFile64;
use object::read::{
    Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _, ReadCache,
    ReadCacheOps, RelocationTarget,
};
use object::{Endianness, RelocationFlags, SectionFlags, SectionKind};

/// Most bytes of sections that are read.
const MOST_BYTES: u64 = 256 << 20;

/// Longest name.
const LONGEST_NAME: usize = 200;

/// Native functions that Python calls, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct Builtins {
    /// Rising, without overlap.
    functions: Vec<Builtin>,
}

#[derive(Debug)]
struct Builtin {
    start: u64,
    end: u64,
    name: String,
}

impl Builtins {
    /// Reads a file's tables; none when it cannot be read, or has nothing to
    /// do with Python.
    pub(crate) fn read(path: &Path) -> Self {
        Self::try_read(path).unwrap_or_default()
    }

    /// The function at `address`.
    pub(crate) fn at(&self, address: u64) -> Option<&str> {
        let (start, end, name) = self.below(address)?;
        (start..end).contains(&address).then_some(name)
    }

    /// Start, end and name of the function at or before `address`.
    pub(crate) fn below(&self, address: u64) -> Option<(u64, u64, &str)> {
        let count = self
            .functions
            .partition_point(|function| function.start <= address);
        let function = self.functions[..count].last()?;
        Some((function.start, function.end, &function.name))
    }

    fn try_read(path: &Path) -> Option<Self> {
        let cache = ReadCache::new(File::open(path).ok()?);
        let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&cache).ok()?;
        let of_python = |name: &[u8]| name.starts_with(b"Py") || name.starts_with(b"_Py");
        if !elf
            .dynamic_symbols()
            .any(|symbol| symbol.name_bytes().is_ok_and(of_python))
        {
            return None;
        }
        let image = Image::read(&elf)?;
        let mut found = Found::new(&image, module_name(path));
        found.methods();
        found.owners();
        Some(found.into_builtins())
    }
}

/// What Python calls the module of this file: `_json` of
/// `_json.cpython-311-x86_64-linux-gnu.so`; empty for an interpreter, which
/// has many.
fn module_name(path: &Path) -> &str {
    let file = path.file_name().and_then(|name| name.to_str());
    let stem = file.and_then(|name| name.split('.').next()).unwrap_or("");
    let interpreter = stem.strip_prefix("lib").unwrap_or(stem);
    if interpreter.starts_with("python") || !is_identifier(stem) {
        ""
    } else {
        stem
    }
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// A file as it lies in memory once it is loaded at its stated addresses.
struct Image<'d> {
    /// Start and contents.
    sections: Vec<(u64, &'d [u8])>,
    /// Of these, the ones in which tables can be.
    tables: Vec<usize>,
    /// Words that the loader fills in.
    relocated: HashMap<u64, u64>,
    /// First and past-the-last address of each function, rising.
    functions: Vec<(u64, u64)>,
}

impl<'d> Image<'d> {
    fn read<R: ReadCacheOps>(
        elf: &ElfFile64<'d, Endianness, &'d ReadCache<R>>,
    ) -> Option<Image<'d>> {
        let mut image = Image {
            sections: Vec::new(),
            tables: Vec::new(),
            relocated: HashMap::new(),
            functions: Vec::new(),
        };
        let mut left = MOST_BYTES;
        for section in elf.sections() {
            let is_unwinding = section.name_bytes() == Ok(b".eh_frame");
            let is_data = matches!(
                section.kind(),
                SectionKind::Data
                    | SectionKind::ReadOnlyData
                    | SectionKind::ReadOnlyDataWithRel
                    | SectionKind::ReadOnlyString
            );
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
                continue;
            };
            if !(is_unwinding || is_data) || sh_flags.0 & SHF_ALLOC.0 == 0 {
                continue;
            }
            left = left.checked_sub(section.size())?;
            let data = section.data().ok()?;
            if is_unwinding {
                image.functions = functions(data, section.address());
                continue;
            }
            if sh_flags.0 & SHF_WRITE.0 != 0 {
                image.tables.push(image.sections.len());
            }
            image.sections.push((section.address(), data));
        }
        let symbols = elf.dynamic_symbol_table();
        for (address, relocation) in elf.dynamic_relocations()? {
            let RelocationFlags::Elf { r_type } = relocation.flags() else {
                continue;
            };
            let base = match (r_type, relocation.target()) {
                (R_X86_64_RELATIVE, _) => 0,
                (R_X86_64_64, RelocationTarget::Symbol(symbol)) => {
                    let symbol = symbols
                        .as_ref()
                        .and_then(|all| all.symbol_by_index(symbol).ok());
                    match symbol.filter(object::ObjectSymbol::is_definition) {
                        Some(symbol) => symbol.address(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let value = base.wrapping_add_signed(relocation.addend());
            image.relocated.insert(address, value);
        }
        (!image.functions.is_empty()).then_some(image)
    }

    fn bytes(&self, address: u64) -> Option<&'d [u8]> {
        self.sections.iter().find_map(|&(start, data)| {
            let offset = usize::try_from(address.checked_sub(start)?).ok()?;
            data.get(offset..).filter(|rest| !rest.is_empty())
        })
    }

    /// The word at `address` once loaded. One that has no relocation stands as
    /// it is: a number, or an address in packed relocations and fixed files.
    fn word(&self, address: u64) -> Option<u64> {
        if let Some(&value) = self.relocated.get(&address) {
            return Some(value);
        }
        let bytes = self.bytes(address)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// The word at `address`, which is no pointer.
    fn number(&self, address: u64) -> Option<u64> {
        if self.relocated.contains_key(&address) {
            return None;
        }
        self.word(address)
    }

    /// The words of a string that `address` points to, joined by dots.
    fn dotted_name(&self, address: u64) -> Option<&'d str> {
        let bytes = self.bytes(address)?;
        let end = bytes
            .iter()
            .take(LONGEST_NAME)
            .position(|&byte| byte == 0)?;
        let name = std::str::from_utf8(&bytes[..end]).ok()?;
        name.split('.').all(is_identifier).then_some(name)
    }

    /// The extent of the function that starts at `address`.
    fn function(&self, address: u64) -> Option<(u64, u64)> {
        let at = self
            .functions
            .binary_search_by_key(&address, |&(start, _)| start)
            .ok()?;
        Some(self.functions[at])
    }
}

/// Extents of the functions in `.eh_frame`, as far as it can be understood.
fn functions(data: &[u8], address: u64) -> Vec<(u64, u64)> {
    let section = EhFrame::new(data, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut entries = section.entries(&bases);
    let mut functions = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(fde) = entry else { continue };
        if let Ok(fde) = fde.parse(EhFrame::cie_from_offset) {
            let start = fde.initial_address();
            functions.push((start, start.saturating_add(fde.len())));
        }
    }
    functions.sort_unstable();
    functions.dedup_by_key(|&mut (start, _)| start);
    functions
}

/// A method definition: name and function.
type Method<'d> = (&'d str, u64);

/// What was found so far.
struct Found<'i, 'd> {
    image: &'i Image<'d>,
    module: &'i str,
    /// Runs of method definitions, by where they start.
    methods: BTreeMap<u64, Vec<Method<'d>>>,
    /// Names by function; the first of a function stays.
    names: BTreeMap<u64, String>,
}

impl<'i, 'd> Found<'i, 'd> {
    fn new(image: &'i Image<'d>, module: &'i str) -> Self {
        Found {
            image,
            module,
            methods: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// Addresses at which a table may begin.
    fn places(&self) -> impl Iterator<Item = u64> + use<'i, 'd> {
        let image = self.image;
        image.tables.iter().flat_map(|&table| {
            let (start, data) = image.sections[table];
            let end = start.saturating_add(data.len() as u64);
            (start.next_multiple_of(8)..end).step_by(8)
        })
    }

    /// Finds the method definitions.
    fn methods(&mut self) {
        const SIZE: u64 = 32;
        let mut known = 0..0;
        for place in self.places() {
            if known.contains(&place) {
                continue;
            }
            let mut run = Vec::new();
            let mut at = place;
            while let Some(method) = self.method(at) {
                run.push(method);
                at = at.saturating_add(SIZE);
            }
            if !run.is_empty() {
                known = place..at;
                self.methods.insert(place, run);
            }
        }
    }

    /// `{const char *ml_name; PyCFunction ml_meth; int ml_flags; const char
    /// *ml_doc}`.
    fn method(&self, at: u64) -> Option<Method<'d>> {
        const OPTIONS: u64 = 0x10 | 0x20 | 0x40; // CLASS, STATIC, COEXIST
        // VARARGS, with KEYWORDS; NOARGS; O; FASTCALL, with KEYWORDS, METHOD
        const CONVENTIONS: [u64; 7] = [0x1, 0x3, 0x4, 0x8, 0x80, 0x82, 0x282];
        let image = self.image;
        let name = image.dotted_name(image.word(at)?)?;
        let (function, _) = image.function(image.word(at.checked_add(8)?)?)?;
        // Whatever fills up the word after the flags was zeroed.
        let flags = image.number(at.checked_add(16)?)?;
        let doc = image.word(at.checked_add(24)?)?;
        let fits = CONVENTIONS.contains(&(flags & !OPTIONS))
            && !name.contains('.')
            && (doc == 0 || image.bytes(doc).is_some());
        fits.then_some((name, function))
    }

    /// Finds the modules and types that methods and slots belong to.
    fn owners(&mut self) {
        for place in self.places() {
            let image = self.image;
            let Some(name) = image.word(place).and_then(|at| image.dotted_name(at)) else {
                continue;
            };
            if self.module_at(place, name).is_none() && self.spec_at(place, name).is_none() {
                let _ = self.type_at(place, name);
            }
        }
        // Those that code hands over: their owner is not in the data.
        let all: Vec<u64> = self.methods.keys().copied().collect();
        for methods in all {
            self.name_methods(self.module, methods);
        }
    }

    /// `PyModuleDef` from `m_name` on: name, doc, size, methods.
    fn module_at(&mut self, place: u64, name: &str) -> Option<()> {
        const LARGEST: i64 = 1 << 30;
        let size = self.image.number(place.checked_add(16)?)? as i64;
        let methods = self.image.word(place.checked_add(24)?)?;
        if !(-1..LARGEST).contains(&size) || !self.methods.contains_key(&methods) {
            return None;
        }
        self.name_methods(name, methods);
        Some(())
    }

    /// `PyType_Spec`: name, basic size and item size, flags, slots.
    fn spec_at(&mut self, place: u64, name: &str) -> Option<()> {
        const MOST: u64 = 100;
        const METHODS: u64 = 64;
        let image = self.image;
        image.number(place.checked_add(8)?)?;
        image.number(place.checked_add(16)?)?;
        let slots = image.word(place.checked_add(24)?)?;
        let mut found = Vec::new();
        for at in 0..MOST {
            let slot = slots.checked_add(16 * at)?;
            let (id, value) = (image.number(slot)?, image.word(slot + 8)?);
            match id {
                0 => break,
                1..MOST => found.push((id, value)),
                _ => return None,
            }
        }
        if found.is_empty() {
            return None;
        }
        for (id, value) in found {
            let slot = SLOTS.iter().find(|slot| slot.id == id);
            if id == METHODS {
                self.name_methods(name, value);
            } else if let Some(slot) = slot {
                self.name_slot(name, slot, value);
            }
        }
        Some(())
    }

    /// `PyTypeObject` from `tp_name` on.
    fn type_at(&mut self, place: u64, name: &str) -> Option<()> {
        const SIZES: std::ops::Range<u64> = 16..1 << 24;
        const FLAGS: u64 = 144;
        const METHODS: u64 = 208;
        let image = self.image;
        let basic = image.number(place.checked_add(8)?)?;
        let item = image.number(place.checked_add(16)?)?;
        image.number(place.checked_add(FLAGS)?)?;
        if !SIZES.contains(&basic) || item >= SIZES.end {
            return None;
        }
        let in_place: Vec<(&Slot, u64)> = SLOTS
            .iter()
            .filter(|slot| slot.offset != 0)
            .map(|slot| Some((slot, image.word(place.checked_add(slot.offset)?)?)))
            .collect::<Option<_>>()?;
        let fits = |&(_, value): &(&Slot, u64)| value == 0 || image.function(value).is_some();
        if !in_place.iter().all(fits) {
            return None;
        }
        let methods = image.word(place.checked_add(METHODS)?)?;
        self.name_methods(name, methods);
        for (slot, value) in in_place {
            self.name_slot(name, slot, value);
        }
        Some(())
    }

    fn name_methods(&mut self, owner: &str, methods: u64) {
        for &(method, function) in self.methods.get(&methods).into_iter().flatten() {
            let name = if owner.is_empty() {
                method.to_owned()
            } else {
                format!("{owner}.{method}")
            };
            self.names.entry(function).or_insert(name);
        }
    }

    fn name_slot(&mut self, owner: &str, slot: &Slot, function: u64) {
        if self.image.function(function).is_some() {
            let name = format!("{owner}.{}", slot.name);
            self.names.entry(function).or_insert(name);
        }
    }

    fn into_builtins(self) -> Builtins {
        let mut functions: Vec<Builtin> = Vec::with_capacity(self.names.len());
        for (start, name) in self.names {
            let Some((_, end)) = self.image.function(start) else {
                continue;
            };
            if functions.last().is_none_or(|last| last.end <= start) {
                let name = format!("{name} (builtin)");
                functions.push(Builtin { start, end, name });
            }
        }
        Builtins { functions }
    }
}

/// A slot of a type that runs when Python code does something.
struct Slot {
    name: &'static str,
    /// In `PyType_Slot`.
    id: u64,
    /// In `PyTypeObject`, from `tp_name` on; 0 where it lies in a table of its
    /// own.
    offset: u64,
}

const SLOTS: [Slot; 18] = [
    slot("__call__", 50, 104),
    slot("__init__", 60, 272),
    slot("__new__", 65, 288),
    slot("__iter__", 62, 192),
    slot("__next__", 63, 200),
    slot("__repr__", 66, 64),
    slot("__str__", 70, 112),
    slot("__hash__", 59, 96),
    slot("__getattribute__", 58, 120),
    slot("__setattr__", 69, 128),
    slot("__get__", 54, 248),
    slot("__setitem__", 3, 0),
    slot("__getitem__", 5, 0),
    slot("__getitem__", 44, 0),
    slot("__contains__", 41, 0),
    slot("__add__", 7, 0),
    slot("__mul__", 29, 0),
    slot("__sub__", 36, 0),
];

const fn slot(name: &'static str, id: u64, offset: u64) -> Slot {
    Slot { name, id, offset }
}
