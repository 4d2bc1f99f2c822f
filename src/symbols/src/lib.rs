//! Addresses to functions, files and lines.
//!
//! blazesym reads ELF and DWARF (debug links and inlined functions included)
//! and demangles. Added here: the file has to be the one that was loaded, by
//! build-id; an address that no symbol covers gets the name by which Python
//! calls the function it is in, or else the nearest symbol below it and the
//! distance; what goes wrong is said in words; memory is bounded.
//!
//! # Invariants
//!
//! * A name comes from a file with the expected build-id, or from one that has
//!   none where none is expected.
//! * Whatever a file holds, looking an address up returns.
//!
//! Files are read into memory first. Only those of more than 64 MiB (256 MiB
//! with packed symbols), those whose debug information is in another file, and
//! that file, are read through maps: one that is cut short in place (rather than replaced, as package
//! managers and linkers do) while it is read can end the process with SIGBUS.

mod builtins;
mod copied;
mod minidebug;
mod nearest;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{self, CodeInfo, Input, Sym};
use builtins::Builtins;
use copied::{Copied, debug_directories};
use nearest::Starts;
use object::Object as _;
use object::read::{ReadCache, elf::ElfFile64};
use std::cell::OnceCell;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files whose symbols are kept at a time.
const KEPT_FILES: usize = 8;

/// Files larger than this are read without their debug information, which
/// takes up to three times its size in memory.
const MOST_DEBUG_BYTES: u64 = 2 << 30;

/// An ELF file to look addresses up in.
#[derive(Clone, Copy, Debug)]
pub struct ModuleFile<'a> {
    /// Where to read it, any root prefix (`/proc/PID/root`) included.
    pub path: &'a Path,
    /// The build-id it must have; empty accepts any.
    pub build_id: &'a [u8],
}

/// One function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Demangled name.
    pub function: String,
    /// Source file; empty when not known.
    pub file: String,
    /// Line, 0 when not known.
    pub line: u32,
    /// It was inlined into the next frame.
    pub inlined: bool,
    /// Bytes past the symbol's start when the address lies beyond the
    /// symbol's stated size, or it states none; else 0.
    pub beyond: u32,
}

/// What a batch of addresses means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbolized {
    /// Frames of each address, in the order of the addresses, innermost (most
    /// inlined) first; empty where nothing is known.
    pub frames: Vec<Vec<Frame>>,
    /// Why names are missing or only near, in words.
    pub note: Option<String>,
}

/// Looks addresses up, and keeps what it read of the last few files.
///
/// It stays in the thread that made it.
#[derive(Debug, Default)]
pub struct Symbolizer {
    /// Used last comes last.
    files: Vec<Kept>,
}

/// What was read of a file.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Tells whether it is still the same file.
    modified: Option<SystemTime>,
    bytes: u64,
    /// Where that could be made.
    copy: Option<Copied>,
    /// One a file, so that dropping it drops all it read, linked debug files
    /// too.
    reader: symbolize::Symbolizer,
    /// Read when first needed.
    starts: Option<Starts>,
    /// Likewise.
    builtins: Option<Builtins>,
    /// Likewise: the symbols that it carries packed, if any.
    packed: OnceCell<Option<Copied>>,
}

impl Symbolizer {
    /// Starts with nothing read.
    pub fn new() -> Self {
        Symbolizer::default()
    }

    /// Looks up `addresses`, in the file's own virtual addresses.
    ///
    /// What cannot be read yields no frames, and a note.
    pub fn symbolize(&mut self, module: &ModuleFile<'_>, addresses: &[u64]) -> Symbolized {
        // The file is a stranger's: a bug in what parses it ends here.
        let result = catch_unwind(AssertUnwindSafe(|| {
            check(module).and_then(|metadata| {
                self.kept(module.path, &metadata)
                    .look_up(addresses)
                    .map_err(|error| format!("its symbols cannot be read: {error}"))
            })
        }));
        result
            .unwrap_or_else(|_| Err("its symbols cannot be read".into()))
            .unwrap_or_else(|why| {
                self.forget(module.path);
                Symbolized {
                    frames: vec![Vec::new(); addresses.len()],
                    note: Some(format!("no names: {why}")),
                }
            })
    }

    /// Drops what was read of a file.
    pub fn forget(&mut self, path: &Path) {
        self.files.retain(|kept| kept.path != path);
    }

    /// What was read of this file, or nothing yet.
    fn kept(&mut self, path: &Path, metadata: &fs::Metadata) -> &mut Kept {
        let modified = metadata.modified().ok();
        let bytes = metadata.len();
        let place = self
            .files
            .iter()
            .position(|kept| kept.path == path && kept.modified == modified && kept.bytes == bytes);
        if let Some(place) = place {
            self.files[place..].rotate_left(1);
        } else {
            self.forget(path);
            if self.files.len() == KEPT_FILES {
                self.files.remove(0);
            }
            let copy = Copied::of_file(path, bytes);
            let mut reader = symbolize::Symbolizer::builder().enable_auto_reload(false);
            if copy.is_some() {
                let id = build_id(path).ok().flatten();
                reader = reader.set_debug_dirs(Some(debug_directories(path, id.as_deref())));
            }
            self.files.push(Kept {
                path: path.to_owned(),
                modified,
                bytes,
                copy,
                reader: reader.build(),
                starts: None,
                builtins: None,
                packed: OnceCell::new(),
            });
        }
        let last = self.files.len() - 1;
        &mut self.files[last]
    }
}

impl Kept {
    fn look_up(&mut self, addresses: &[u64]) -> blazesym::Result<Symbolized> {
        let path = self.copy.as_ref().map_or(&*self.path, Copied::path);
        let source = |debug_syms| {
            let mut elf = Elf::new(path);
            elf.debug_syms = debug_syms;
            Source::Elf(elf)
        };
        let input = Input::VirtOffset(addresses);
        let with_lines = if self.bytes > MOST_DEBUG_BYTES {
            Err("the file is too large".to_owned())
        } else {
            // An error may be, say, a debug link to a file of another build.
            let found = self.reader.symbolize(&source(true), input);
            found.map_err(|error| error.to_string())
        };
        let mut note = None;
        let (source, found) = match with_lines {
            Ok(found) => (source(true), found),
            Err(why) => {
                note = Some(format!(
                    "no lines: its debug information cannot be used: {why}"
                ));
                (source(false), self.reader.symbolize(&source(false), input)?)
            }
        };
        let mut near = 0;
        let mut frames = Vec::with_capacity(addresses.len());
        for (&address, found) in addresses.iter().zip(found) {
            let symbol = found.as_sym();
            if let Some(symbol) = symbol.filter(|symbol| is_covering(symbol)) {
                frames.push(expand(symbol));
                continue;
            }
            let packed = self.packed.get_or_init(|| minidebug::unpack(path));
            let packed = packed.as_ref().map(|packed| {
                let mut elf = Elf::new(packed.path());
                elf.debug_syms = false;
                Source::Elf(elf)
            });
            let from_packed = |address| {
                let found = self
                    .reader
                    .symbolize_single(packed.as_ref()?, Input::VirtOffset(address));
                // What it carries may be anything; it has symbols of its own.
                found.ok()?.into_sym()
            };
            if let Some(symbol) = from_packed(address).filter(is_covering) {
                frames.push(expand(&symbol));
                continue;
            }
            let builtins = self
                .builtins
                .get_or_insert_with(|| Builtins::read(&self.path));
            if let Some(name) = builtins.at(address) {
                frames.push(vec![frame(name, None, false, 0)]);
                continue;
            }
            if let Some(symbol) = symbol {
                frames.push(expand(symbol));
                continue;
            }
            let starts = self.starts.get_or_insert_with(|| {
                let mut starts = Starts::read(path);
                if let Some(Some(packed)) = self.packed.get() {
                    starts.add(&Starts::read(packed.path()));
                }
                starts
            });
            let below = starts.below(address);
            // A builtin between it and the symbol is nearer.
            let builtin = builtins
                .below(address)
                .filter(|&(start, _, _)| starts.in_one_section(start, address))
                .filter(|&(start, _, _)| below.is_none_or(|symbol| symbol < start));
            frames.push(if let Some((start, _, name)) = builtin {
                near += 1;
                vec![frame(name, None, false, address - start)]
            } else if let Some(start) = below
                // By its start, for its demangled name.
                && let Some(symbol) = from_packed(start)
                    .filter(|symbol| symbol.addr == start)
                    .or(self
                        .reader
                        .symbolize_single(&source, Input::VirtOffset(start))?
                        .into_sym())
            {
                near += 1;
                vec![frame(&symbol.name, None, false, address - start)]
            } else {
                Vec::new()
            });
        }
        if near > 0 {
            note.get_or_insert_with(|| {
                format!(
                    "it has no symbols for {near} of {} addresses: their names are the nearest before them",
                    addresses.len()
                )
            });
        }
        Ok(Symbolized { frames, note })
    }
}

/// The build-id note of an ELF file, `None` when it has none.
///
/// # Errors
///
/// The file cannot be read, or is not 64-bit ELF.
pub fn build_id(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let cache = ReadCache::new(File::open(path)?);
    let elf: ElfFile64<'_, object::Endianness, _> =
        ElfFile64::parse(&cache).map_err(io::Error::other)?;
    Ok(elf
        .build_id()
        .map_err(io::Error::other)?
        .map(<[u8]>::to_vec))
}

/// Whether the file is the one that was loaded; else why not.
fn check(module: &ModuleFile<'_>) -> Result<fs::Metadata, String> {
    let metadata = fs::metadata(module.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("it cannot be read: {error}"),
    })?;
    // A device or a pipe could block, or worse.
    if !metadata.is_file() {
        return Err("it is no regular file".into());
    }
    let id = build_id(module.path).map_err(|error| format!("it cannot be read: {error}"))?;
    if !module.build_id.is_empty() && id.as_deref() != Some(module.build_id) {
        return Err("it was replaced since it was loaded".into());
    }
    Ok(metadata)
}

/// Whether an address that has this symbol is known to be in it.
fn is_covering(symbol: &Sym<'_>) -> bool {
    // A function in several pieces (a cold one far away) has no size in DWARF,
    // but its pieces are known.
    symbol.size.is_some() || symbol.code_info.is_some()
}

/// A symbol and what is inlined at the address, innermost first.
fn expand(symbol: &Sym<'_>) -> Vec<Frame> {
    let inlined = symbol.inlined.iter().rev();
    let mut frames: Vec<_> = inlined
        .map(|function| frame(&function.name, function.code_info.as_ref(), true, 0))
        .collect();
    let beyond = if is_covering(symbol) {
        0
    } else {
        symbol.offset as u64
    };
    frames.push(frame(
        &symbol.name,
        symbol.code_info.as_deref(),
        false,
        beyond,
    ));
    frames
}

fn frame(function: &str, at: Option<&CodeInfo<'_>>, inlined: bool, beyond: u64) -> Frame {
    Frame {
        function: function.to_owned(),
        file: at
            .map(|at| at.to_path().to_string_lossy().into_owned())
            .unwrap_or_default(),
        line: at.and_then(|at| at.line).unwrap_or(0),
        inlined,
        beyond: u32::try_from(beyond).unwrap_or(u32::MAX),
    }
}
