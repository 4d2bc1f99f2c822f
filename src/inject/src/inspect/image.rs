//! What an ELF file is: for which machine, with which loader, and what it
//! brings of interest (an interpreter, an allocator, a sanitizer).
//!
//! Files are the target's: what makes no sense in them is left out, never an
//! error. Only what is asked for is read, in the pieces that it lies in.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, elf};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::procfs::{FileId, Mapping, base_name};

type Header = elf::FileHeader64<Endianness>;

/// An ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) is_64_bit: bool,
    pub(super) machine: u16,
    /// The dynamic loader that it asks for.
    pub(super) loader: Option<PathBuf>,
    pub(super) build_id: Vec<u8>,
    /// It has a table of all its functions, or says where one is.
    pub(super) has_symbols: bool,
    /// It brings a `malloc` of its own.
    pub(super) defines_malloc: bool,
    pub(super) allocator: Option<Allocator>,
    pub(super) sanitizer: Option<&'static str>,
    pub(super) glibc: Option<String>,
    pub(super) python: Option<PythonVersion>,
}

/// An allocator that is known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allocator {
    /// jemalloc.
    Jemalloc,
    /// tcmalloc, of gperftools or Google's own.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
    /// snmalloc.
    Snmalloc,
    /// Hoard.
    Hoard,
    /// rpmalloc.
    Rpmalloc,
    /// Scudo.
    Scudo,
}

impl Allocator {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Allocator::Jemalloc => "jemalloc",
            Allocator::Tcmalloc => "tcmalloc",
            Allocator::Mimalloc => "mimalloc",
            Allocator::Snmalloc => "snmalloc",
            Allocator::Hoard => "Hoard",
            Allocator::Rpmalloc => "rpmalloc",
            Allocator::Scudo => "Scudo",
        }
    }

    /// The one that a library of this name is.
    pub(crate) fn of_library(name: &[u8]) -> Option<Allocator> {
        const NAMES: [(&[u8], Allocator); 7] = [
            (b"libjemalloc", Allocator::Jemalloc),
            (b"libtcmalloc", Allocator::Tcmalloc),
            (b"libmimalloc", Allocator::Mimalloc),
            (b"libsnmalloc", Allocator::Snmalloc),
            (b"libhoard", Allocator::Hoard),
            (b"librpmalloc", Allocator::Rpmalloc),
            (b"libscudo", Allocator::Scudo),
        ];
        let known = |(prefix, _): &&(&[u8], Allocator)| name.starts_with(prefix);
        NAMES.iter().find(known).map(|(_, allocator)| *allocator)
    }

    /// The one that defines a function of this name.
    fn of_symbol(name: &[u8]) -> Option<Allocator> {
        Some(match name {
            b"mallctl" | b"je_mallctl" | b"_rjem_mallctl" => Allocator::Jemalloc,
            b"tc_malloc" | b"tc_version" | b"TCMallocInternalMalloc" => Allocator::Tcmalloc,
            b"mi_malloc" | b"mi_version" => Allocator::Mimalloc,
            b"sn_malloc" => Allocator::Snmalloc,
            b"rpmalloc" => Allocator::Rpmalloc,
            b"scudo_malloc" => Allocator::Scudo,
            _ => return None,
        })
    }
}

/// Sanitizers that bring an allocator of their own, by what they define.
fn sanitizer_of_symbol(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"__asan_init" => "AddressSanitizer",
        b"__hwasan_init" => "HWAddressSanitizer",
        b"__tsan_init" => "ThreadSanitizer",
        b"__msan_init" => "MemorySanitizer",
        _ => return None,
    })
}

/// The same by the name of a library.
pub(super) fn sanitizer_of_library(name: &[u8]) -> Option<&'static str> {
    const NAMES: [(&[u8], &str); 4] = [
        (b"libasan.so", "AddressSanitizer"),
        (b"libhwasan.so", "HWAddressSanitizer"),
        (b"libtsan.so", "ThreadSanitizer"),
        (b"liblsan.so", "LeakSanitizer"),
    ];
    let known = |(prefix, _): &&(&[u8], &str)| name.starts_with(prefix);
    NAMES.iter().find(known).map(|(_, name)| *name)
}

/// A version of CPython.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonVersion {
    /// 3.
    pub major: u8,
    /// As in 3.12.
    pub minor: u8,
    /// As it calls itself, `3.12.1` or `3.14.0rc2`; without the last part
    /// where only the name of its library tells it.
    pub text: String,
    /// Built without the global interpreter lock.
    pub is_free_threaded: bool,
}

impl PythonVersion {
    /// Of `PY_VERSION_HEX`.
    fn from_hex(hex: u32) -> Option<PythonVersion> {
        let [major, minor, micro, level] = hex.to_be_bytes();
        if major != 3 || minor > 99 {
            return None;
        }
        let serial = level & 0xf;
        let level = match level >> 4 {
            0xa => format!("a{serial}"),
            0xb => format!("b{serial}"),
            0xc => format!("rc{serial}"),
            _ => String::new(),
        };
        Some(PythonVersion {
            major,
            minor,
            text: format!("{major}.{minor}.{micro}{level}"),
            is_free_threaded: false,
        })
    }

    /// Of a text as `3.10.13`, `3.9.0rc1` or `3.11.2+`, and nothing else.
    fn from_text(text: &[u8]) -> Option<PythonVersion> {
        let text = std::str::from_utf8(text).ok()?;
        let rest = text.strip_prefix("3.")?;
        let (minor, rest) = rest.split_once('.')?;
        let tail = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_number = |text: &str| {
            (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_level = ["a", "b", "rc"].iter().any(|level| {
            tail.strip_prefix(level)
                .is_some_and(|serial| is_number(serial.trim_end_matches('+')))
        });
        let is_micro = is_number(&rest[..rest.len() - tail.len()]);
        if !is_number(minor) || !is_micro || !(tail.is_empty() || tail == "+" || is_level) {
            return None;
        }
        Some(PythonVersion {
            major: 3,
            minor: minor.parse().ok()?,
            text: text.into(),
            is_free_threaded: false,
        })
    }

    /// Of a name as `libpython3.12.so.1.0`, `libpython3.13t.so.1.0` or
    /// `python3.11`.
    pub(super) fn from_name(name: &[u8]) -> Option<PythonVersion> {
        let name = std::str::from_utf8(name).ok()?;
        let rest = name
            .strip_prefix("libpython3.")
            .or_else(|| name.strip_prefix("python3."))?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let (minor, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let minor = minor.parse().ok()?;
        Some(PythonVersion {
            major: 3,
            minor,
            text: format!("3.{minor}"),
            is_free_threaded: rest.starts_with('t'),
        })
    }
}

/// How much of a file to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Its headers and what it exports.
    Exports,
    /// The names of all its functions, too: what is linked in statically.
    AllSymbols,
}

impl Image {
    /// Reads what there is to read; `None` for what is no ELF file.
    pub(super) fn read(file: &File, name: &[u8], depth: Depth) -> Option<Image> {
        let data = ReadCache::new(file);
        let ident = data.read_bytes_at(0, 20).ok()?;
        if !ident.starts_with(&elf::ELFMAG) {
            return None;
        }
        let is_little = ident[5] == elf::ELFDATA2LSB.0;
        let machine = [ident[18], ident[19]];
        let mut image = Image {
            is_64_bit: ident[4] == elf::ELFCLASS64.0,
            machine: if is_little {
                u16::from_le_bytes(machine)
            } else {
                u16::from_be_bytes(machine)
            },
            ..Image::default()
        };
        if image.is_64_bit {
            // Half an answer is one, too.
            let _ = image.read_64_bit(&data, name, depth);
        }
        Some(image)
    }

    fn read_64_bit<'data, R: ReadRef<'data>>(
        &mut self,
        data: R,
        name: &[u8],
        depth: Depth,
    ) -> object::read::Result<()> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, data)? {
            if let Ok(Some(path)) = segment.interpreter(endian, data) {
                self.loader = Some(std::ffi::OsStr::from_bytes(path).into());
            }
            if let Ok(Some(mut notes)) = segment.notes(endian, data) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU
                        && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                    {
                        self.build_id = note.desc().to_vec();
                    }
                }
            }
        }
        let sections = header.sections(endian, data)?;
        self.has_symbols = [&b".symtab"[..], b".gnu_debugdata", b".debug_info"]
            .iter()
            .any(|section| sections.section_by_name(endian, section).is_some())
            || has_debug_file(&self.build_id);

        let mut found = Found::default();
        self.scan(&mut found, endian, data, &sections, elf::SHT_DYNSYM)?;
        if depth == Depth::AllSymbols {
            self.scan(&mut found, endian, data, &sections, elf::SHT_SYMTAB)?;
        }
        let at = |address: u64, length: u64| bytes_at(header, endian, data, address, length);
        if found.is_python {
            self.python = found
                .py_version
                .and_then(|address| at(address, 4))
                .and_then(|bytes| bytes.try_into().ok())
                .and_then(|bytes| PythonVersion::from_hex(u32::from_le_bytes(bytes)))
                .or_else(|| {
                    let rodata = section_data(endian, data, &sections, b".rodata")?;
                    version_in(rodata, PythonVersion::from_name(name).as_ref())
                })
                .or_else(|| PythonVersion::from_name(name));
            let is_free_threaded = found
                .py_runtime
                .and_then(|address| at(address, 24))
                .and_then(free_threaded);
            if let Some(python) = &mut self.python {
                let by_name = PythonVersion::from_name(name).is_some_and(|it| it.is_free_threaded);
                python.is_free_threaded = is_free_threaded.unwrap_or(by_name);
            }
        }
        if name.starts_with(b"libc.so") || name.starts_with(b"libc-2.") {
            self.glibc = section_data(endian, data, &sections, b".rodata").and_then(glibc_version);
        }
        Ok(())
    }

    /// Looks through a table of symbols.
    fn scan<'data, R: ReadRef<'data>>(
        &mut self,
        found: &mut Found,
        endian: Endianness,
        data: R,
        sections: &SectionTable<'data, Header, R>,
        kind: elf::SectionType,
    ) -> object::read::Result<()> {
        /// A browser's table is this large, and would take a second.
        const MOST_SYMBOLS: usize = 1_000_000;
        let symbols = sections.symbols(endian, data, kind)?;
        if symbols.len() > MOST_SYMBOLS {
            return Ok(());
        }
        for symbol in symbols.iter() {
            if symbol.is_undefined(endian) {
                continue;
            }
            let Ok(name) = symbols.symbol_name(endian, symbol) else {
                continue;
            };
            match name {
                b"malloc" => self.defines_malloc = true,
                b"Py_GetVersion" => found.is_python = true,
                b"Py_Version" => found.py_version = Some(symbol.st_value(endian)),
                b"_PyRuntime" => found.py_runtime = Some(symbol.st_value(endian)),
                _ => {
                    self.allocator = self.allocator.or_else(|| Allocator::of_symbol(name));
                    self.sanitizer = self.sanitizer.or_else(|| sanitizer_of_symbol(name));
                }
            }
        }
        Ok(())
    }
}

/// Whether debug symbols of the file are installed here.
fn has_debug_file(build_id: &[u8]) -> bool {
    let Some((first, rest)) = build_id.split_first() else {
        return false;
    };
    let mut path = format!("/usr/lib/debug/.build-id/{first:02x}/");
    for byte in rest {
        // Memory takes all of it.
        let _ = write!(path, "{byte:02x}");
    }
    path.push_str(".debug");
    Path::new(&path).is_file()
}

/// Symbols of CPython, where they are.
#[derive(Default)]
struct Found {
    is_python: bool,
    py_version: Option<u64>,
    py_runtime: Option<u64>,
}

/// What a file says the memory at an address is in the beginning.
fn bytes_at<'data, R: ReadRef<'data>>(
    header: &Header,
    endian: Endianness,
    data: R,
    address: u64,
    length: u64,
) -> Option<&'data [u8]> {
    header
        .program_headers(endian, data)
        .ok()?
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr(endian))?;
            if within.checked_add(length)? > segment.p_filesz(endian) {
                return None;
            }
            data.read_bytes_at(segment.p_offset(endian).checked_add(within)?, length)
                .ok()
        })
}

fn section_data<'data, R: ReadRef<'data>>(
    endian: Endianness,
    data: R,
    sections: &SectionTable<'data, Header, R>,
    name: &[u8],
) -> Option<&'data [u8]> {
    /// glibc's has 350 KB, CPython's up to 4 MB.
    const MOST_BYTES: u64 = 64 << 20;
    let (_, section) = sections.section_by_name(endian, name)?;
    if section.sh_size(endian) > MOST_BYTES {
        return None;
    }
    section.data(endian, data).ok()
}

/// What CPython 3.13 and later say about themselves at the beginning of
/// `_PyRuntime`: a cookie, the version, and whether they are free-threaded.
fn free_threaded(bytes: &[u8]) -> Option<bool> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if !bytes.starts_with(b"xdebugpy") {
        return None;
    }
    // Before, there is something else behind the version.
    (word(8)? >= 0x030d_0000).then_some(word(16)? == 1)
}

/// The version among an interpreter's strings; of several, that of the minor
/// version that its file's name tells.
fn version_in(strings: &[u8], named: Option<&PythonVersion>) -> Option<PythonVersion> {
    /// `3.12.12rc12+`.
    const LONGEST: usize = 12;
    let texts = || strings.split(|byte| *byte == 0);
    texts()
        .filter(|text| text.len() <= LONGEST)
        .filter_map(PythonVersion::from_text)
        .find(|version| named.is_none_or(|named| named.minor == version.minor))
        .or_else(|| {
            // A linker lets one string be the end of another, as of the path
            // that the interpreter was installed to.
            let named = named?;
            texts()
                .filter_map(|text| {
                    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b".+".contains(byte);
                    let begin = text.iter().rposition(|byte| !is_part(byte))?;
                    PythonVersion::from_text(&text[begin + 1..])
                })
                .find(|version| version.minor == named.minor)
        })
}

/// The version among glibc's strings: `... release version 2.36.`
fn glibc_version(strings: &[u8]) -> Option<String> {
    const LEAD: &[u8] = b"release version ";
    let at = strings
        .windows(LEAD.len())
        .position(|window| window == LEAD)?;
    let text = &strings[at + LEAD.len()..];
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let version = std::str::from_utf8(&text[..end])
        .ok()?
        .trim_end_matches('.');
    (!version.is_empty()).then(|| version.into())
}

/// The ELF files that processes have mapped, each read once.
#[derive(Debug, Default)]
pub(super) struct Images {
    known: HashMap<(FileId, bool), Option<Rc<Image>>>,
}

impl Images {
    /// None yet.
    pub(super) fn new() -> Images {
        Images::default()
    }

    /// The file behind a mapping of a process. `None` where it is no ELF file,
    /// or cannot be read.
    pub(super) fn of(&mut self, pid: u32, mapping: &Mapping, depth: Depth) -> Option<Rc<Image>> {
        let key = (mapping.file, depth == Depth::AllSymbols);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        // Another process may show us a file that this one does not.
        let file = open(pid, mapping)?;
        let image = Image::read(&file, mapping.base_name(), depth).map(Rc::new);
        self.known.insert(key, image.clone());
        image
    }
}

/// Opens the file behind a mapping: the very one that is mapped, where the
/// kernel lets us, else the one of its name as the process sees it.
fn open(pid: u32, mapping: &Mapping) -> Option<File> {
    let range = (mapping.start, mapping.end);
    open_mapped(pid, range, &mapping.path, mapping.is_deleted)
}

/// The same, of a range of addresses and a path as the kernel tells it; whether that is
/// another file's by now.
pub(crate) fn open_mapped(
    pid: u32,
    (start, end): (u64, u64),
    path: &Path,
    is_deleted: bool,
) -> Option<File> {
    let exact = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    if let Some(file) = open_regular(exact.into()) {
        return Some(file);
    }
    let executable = PathBuf::from(format!("/proc/{pid}/exe"));
    let name = base_name(path.as_os_str().as_bytes());
    let is_executable = fs::read_link(&executable)
        .is_ok_and(|link| base_name(link.as_os_str().as_bytes()).starts_with(name));
    if is_deleted {
        // Its name may be another file's by now.
        return is_executable.then(|| open_regular(executable))?;
    }
    open_inside(pid, path, OFlags::RDONLY | OFlags::NONBLOCK)
        .map(File::from)
        .filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
        .or_else(|| is_executable.then(|| open_regular(executable))?)
}

/// Opens what a process means by `path`: symbolic links in its file system
/// lead back into it, not into ours.
pub(crate) fn open_inside(pid: u32, path: &Path, flags: OFlags) -> Option<OwnedFd> {
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let flags = flags | OFlags::CLOEXEC;
    match openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        // Before Linux 5.6, and under filters from before it: at least the
        // last part of the path has to be what it seems.
        Err(Errno::NOSYS | Errno::PERM) => {
            let path = path.strip_prefix("/").unwrap_or(path);
            openat(&root, path, flags | OFlags::NOFOLLOW, Mode::empty()).ok()
        }
        opened => opened.ok(),
    }
}

/// Opens a file that is one: a device or a pipe would do something.
fn open_regular(path: PathBuf) -> Option<File> {
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Image> {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Image::read(&file, b"program", Depth::AllSymbols)
    }

    fn header(class: u8, data: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&elf::ELFMAG);
        (bytes[4], bytes[5]) = (class, data);
        bytes[18..20].copy_from_slice(&machine);
        bytes
    }

    #[test]
    fn class_and_machine_are_read_of_any_elf() {
        let i386 = read(&header(1, 1, [3, 0])).unwrap();
        assert!(!i386.is_64_bit);
        assert_eq!(i386.machine, elf::EM_386.0);
        let s390 = read(&header(2, 2, [0, 22])).unwrap();
        assert!(s390.is_64_bit);
        assert_eq!(s390.machine, elf::EM_S390.0);
        assert_eq!(read(b"#!/bin/sh\n# as long as a header"), None);
        assert_eq!(read(b"\x7fELF"), None);
    }

    #[test]
    fn this_program_is_seen_as_what_it_is() {
        let file = File::open("/proc/self/exe").unwrap();
        let image = Image::read(&file, b"inspect", Depth::AllSymbols).unwrap();
        assert!(image.is_64_bit && image.has_symbols);
        assert!(image.loader.is_some());
        assert!(!image.defines_malloc && image.python.is_none());
        assert_eq!((image.allocator, image.sanitizer), (None, None));
    }

    #[test]
    fn no_bytes_in_the_headers_make_it_panic() {
        let good = fs::read("/proc/self/exe").unwrap();
        for length in (0..64).chain([100, 500, 1000, 2000]) {
            let _ = read(&good[..length]);
        }
        for at in 4..600 {
            let mut bytes = good[..4096].to_vec();
            bytes[at] = 0xff;
            let _ = read(&bytes);
        }
    }

    #[test]
    fn python_versions_are_read_in_each_form() {
        let text = |version: Option<PythonVersion>| version.map(|version| version.text);
        assert_eq!(
            text(PythonVersion::from_hex(0x030c_01f0)).as_deref(),
            Some("3.12.1")
        );
        assert_eq!(
            text(PythonVersion::from_hex(0x030e_00c2)).as_deref(),
            Some("3.14.0rc2")
        );
        assert_eq!(PythonVersion::from_hex(0), None);
        for good in ["3.9.18", "3.10.13", "3.11.2+", "3.13.0rc1", "3.14.0b3+"] {
            let read = PythonVersion::from_text(good.as_bytes());
            assert_eq!(text(read).as_deref(), Some(good));
        }
        for wrong in [
            "3.9", "3.9.", "3.x.1", "3.9.18.1", "3.9.1rc", "3.", "3.123.1",
        ] {
            assert_eq!(PythonVersion::from_text(wrong.as_bytes()), None, "{wrong}");
        }
        let named = PythonVersion::from_name(b"libpython3.13t.so.1.0").unwrap();
        assert_eq!((named.minor, named.is_free_threaded), (13, true));
        let named = PythonVersion::from_name(b"python3.11").unwrap();
        assert_eq!((named.minor, named.is_free_threaded), (11, false));
        assert_eq!(PythonVersion::from_name(b"python"), None);
    }

    #[test]
    fn versions_are_found_among_strings() {
        let strings = b"\x001.2.3\x003.4.0\x003.10.13\x00rest";
        let named = PythonVersion::from_name(b"libpython3.10.so.1.0");
        assert_eq!(version_in(strings, named.as_ref()).unwrap().text, "3.10.13");
        assert_eq!(version_in(b"\x003.10\x00", named.as_ref()), None);
        let merged = b"\x00/opt/versions/3.10.4\x00/opt/versions/3.9.1\x00";
        assert_eq!(version_in(merged, named.as_ref()).unwrap().text, "3.10.4");
        assert_eq!(version_in(merged, None), None);
        let text = b"GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(text).as_deref(), Some("2.36"));
        assert_eq!(glibc_version(b"release version x"), None);
        assert_eq!(glibc_version(b"release version 2.3"), None);
    }

    #[test]
    fn a_free_threaded_build_says_so() {
        let runtime = |version: u64, threaded: u64| {
            [*b"xdebugpy", version.to_le_bytes(), threaded.to_le_bytes()].concat()
        };
        assert_eq!(free_threaded(&runtime(0x030d_00f0, 1)), Some(true));
        assert_eq!(free_threaded(&runtime(0x030d_00f0, 0)), Some(false));
        // 3.12 has an offset there.
        assert_eq!(free_threaded(&runtime(0x030c_00f0, 1)), None);
        assert_eq!(free_threaded(&[0; 24]), None);
    }
}
