//! What a process's resident memory is made of, read from outside.
//!
//! The kernel says what each mapping has resident (`smaps`), and which pages
//! (`pagemap`). What is in them is told by the allocators' own headers, read
//! from the process's memory: CPython's pools (`pymalloc`), the arenas and
//! chunks of glibc's malloc (`glibc`), threads' blocks (`stacks`).
//!
//! * Nothing stops the process, writes to it or runs in it. Only resident pages
//!   are read: it gets none that it did not have.
//! * It runs meanwhile. What was resident when the kernel was asked is what is
//!   explained, and parts of a mapping are never more than the mapping has: so
//!   parts sum to the resident bytes exactly, whatever was read.
//! * What is read is not trusted: headers are checked, loops are bounded, and
//!   what does not add up is [`Part::Unexplained`].
//!
//! What the parts mean to a user, and what is to be done, is not said here.

mod glibc;
mod heap;
mod hidden;
mod maps;
mod memory;
mod pages;
mod pymalloc;
mod stacks;
mod types;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use leakline_wire::mapped;

use crate::inspect::{Glance, Obstacle, Process, Refused, State};
use glibc::Walk;
use heap::HandOn;
use hidden::Hidden;
use maps::Map;
use memory::{Memory, Reader, Remote};
use pages::{PAGE, Pages, Weight};
use pymalloc::Pool;
use types::Types;
pub use types::{Inventory, OfType};

/// What a byte of resident memory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Blocks in use of CPython's allocator for small blocks.
    PythonLive,
    /// The rest of its arenas.
    PythonFree,
    /// Blocks in use of glibc's malloc.
    MallocLive,
    /// Free blocks of it, and those that it keeps aside.
    MallocFree,
    /// Mappings of another allocator.
    OtherAllocator,
    /// Other private memory without a file.
    Anonymous,
    /// Files, and the programs' and libraries' code and variables.
    Files,
    /// Stacks of threads.
    Stacks,
    /// Memory that processes share on purpose.
    SharedMemory,
    /// The interposer, and its session.
    Leakline,
    /// An allocator's memory that made no sense.
    Unexplained,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 11] = [
        Part::PythonLive,
        Part::PythonFree,
        Part::MallocLive,
        Part::MallocFree,
        Part::OtherAllocator,
        Part::Anonymous,
        Part::Files,
        Part::Stacks,
        Part::SharedMemory,
        Part::Leakline,
        Part::Unexplained,
    ];

    /// Memory of its own, which other processes have only if they were forked.
    pub fn is_own(self) -> bool {
        !matches!(self, Part::Files | Part::SharedMemory)
    }
}

/// Resident bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// That no other process has mapped.
    pub private: u64,
    /// That others have mapped, too.
    pub shared: u64,
}

impl Share {
    /// Both.
    pub fn total(self) -> u64 {
        self.private + self.shared
    }

    fn add(&mut self, other: Share) {
        self.private += other.private;
        self.shared += other.shared;
    }
}

/// glibc's malloc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heaps {
    /// The main one, and those of threads.
    pub arenas: u64,
    /// Of [`Part::MallocFree`], what `malloc_trim(0)` would give back: whole
    /// pages.
    pub trimmable_bytes: u64,
    /// Of [`Part::MallocFree`], what lies in arenas of threads.
    pub free_of_threads_bytes: u64,
    /// Of [`Part::MallocLive`], what was mapped for one block each.
    pub mapped_bytes: u64,
}

/// CPython's arenas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PythonArenas {
    /// How many.
    pub arenas: u64,
    /// Those of which less than a quarter is in use.
    pub sparse_arenas: u64,
    /// What is in use in those.
    pub sparse_live_bytes: u64,
}

/// Why only the kernel's sums are known.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotRead {
    /// The kernel does not let us read the process's memory.
    Memory(io::Error),
    /// It does not say which pages are resident.
    Pages,
    /// Of such a program nothing more is known.
    Program(&'static str),
}

impl fmt::Display for NotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRead::Memory(_) => f.write_str(
                "its memory may not be read (as root, or with `CAP_SYS_PTRACE`, it may)",
            ),
            NotRead::Pages => f.write_str("the kernel does not tell which of its pages are there"),
            NotRead::Program(what) => f.write_str(what),
        }
    }
}

/// What a process's resident memory is made of.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The sum of all parts.
    pub rss_bytes: u64,
    /// What was swapped out, which is no part of it.
    pub swapped_bytes: u64,
    /// glibc's malloc, if it is used and was found.
    pub heaps: Option<Heaps>,
    /// CPython's arenas, if there are any.
    pub python: Option<PythonArenas>,
    /// The file of which most is resident, programs and libraries apart.
    pub largest_file: Option<(Vec<u8>, u64)>,
    /// Stacks that were found.
    pub stacks: u64,
    /// Allocators inside libraries, by name, and what [`Part::OtherAllocator`] has of
    /// theirs.
    pub inside_libraries: Vec<(String, Share)>,
    /// Why nothing was read but the kernel's sums, if so.
    pub not_read: Option<NotRead>,
    /// What lives, by type, if that was asked for and CPython is one that is known.
    pub types: Option<Inventory>,
    parts: [Share; Part::ALL.len()],
}

impl Survey {
    /// What a part has.
    pub fn part(&self, part: Part) -> Share {
        self.parts[part as usize]
    }

    /// Takes what is shared with forks as the process's own.
    fn leave_out_forks(&mut self) {
        for part in Part::ALL.into_iter().filter(|part| part.is_own()) {
            let share = &mut self.parts[part as usize];
            share.private += std::mem::take(&mut share.shared);
        }
        for (_, share) in &mut self.inside_libraries {
            share.private += std::mem::take(&mut share.shared);
        }
    }
}

/// Why there is nothing to tell of a process.
#[derive(Debug)]
pub struct Closed {
    /// The process.
    pub pid: u32,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Obstacle(Obstacle),
    Denied(io::Error),
    Unreadable(io::Error),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot look into the memory of process {}: ", self.pid)?;
        match &self.why {
            Why::Obstacle(obstacle) => obstacle.fmt(f),
            Why::Denied(_) => f.write_str("the kernel does not allow it"),
            Why::Unreadable(_) => f.write_str("its map cannot be read"),
        }
    }
}

impl Error for Closed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.why {
            Why::Obstacle(obstacle) => obstacle.source(),
            Why::Denied(error) | Why::Unreadable(error) => Some(error),
        }
    }
}

impl Closed {
    /// The way out.
    pub fn hint(&self) -> String {
        let pid = self.pid;
        match &self.why {
            Why::Obstacle(Obstacle::Thread { process }) => {
                format!("`leakline ledger {process}` shows the process")
            }
            Why::Obstacle(Obstacle::Zombie { .. }) => {
                "its memory was given back when it ended; `leakline ps` lists who has some".into()
            }
            Why::Obstacle(Obstacle::Hidden) => format!("`sudo leakline ledger {pid}`"),
            Why::Obstacle(obstacle) => Refused {
                pid,
                obstacle: obstacle.clone(),
            }
            .hint(),
            // Root without the right is root in a container.
            Why::Denied(_) if rustix::process::geteuid().is_root() => {
                "look from where it was started, or with `CAP_SYS_PTRACE`".into()
            }
            Why::Denied(_) => {
                format!("`sudo leakline ledger {pid}`, or run it as the process's own user")
            }
            Why::Unreadable(_) => format!("`leakline doctor {pid}` says what stands in the way"),
        }
    }
}

impl From<Refused> for Closed {
    fn from(refused: Refused) -> Closed {
        Closed {
            pid: refused.pid,
            why: Why::Obstacle(refused.obstacle),
        }
    }
}

/// Largest text of `/proc` that is read: a mapping takes some 700 bytes.
const MOST_BYTES: u64 = 256 << 20;

fn read_text(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/{name}"))?
        .take(MOST_BYTES)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// Looks at a process's memory.
pub fn survey(process: &Process) -> Result<Survey, Closed> {
    look(process, false, None)
}

/// As [`survey`], and looks at each block of memory: what lives there, by type? Reads
/// all memory of CPython's pools: a second for 2 GiB.
pub fn survey_with_types(process: &Process) -> Result<Survey, Closed> {
    look(process, true, None)
}

/// As [`survey_with_types`], and tells the heap graph: `hand_on` gets its parts, as
/// `leakline_wire::graph` has them, and says whether to go on. Of CPython before 3.11
/// none is told. The process runs meanwhile: the graph is approximate, and its end says so.
pub fn heap_graph(
    process: &Process,
    hand_on: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Survey, Closed> {
    look(process, true, Some(hand_on))
}

fn look(
    process: &Process,
    with_types: bool,
    hand_on: Option<&mut HandOn<'_>>,
) -> Result<Survey, Closed> {
    let pid = process.pid;
    let closed = |why| Closed { pid, why };
    for obstacle in process.obstacles() {
        if matches!(
            obstacle,
            Obstacle::KernelThread | Obstacle::Thread { .. } | Obstacle::Zombie { .. }
        ) {
            return Err(closed(Why::Obstacle(obstacle)));
        }
    }
    let is_here = || {
        Glance::at(pid).is_some_and(|glance| {
            glance.start_ticks == process.start_ticks && glance.state != State::Zombie
        })
    };
    let gone = |error: io::Error| {
        closed(match error.kind() {
            _ if !is_here() => Why::Obstacle(Obstacle::Gone),
            io::ErrorKind::PermissionDenied => Why::Denied(error),
            _ => Why::Unreadable(error),
        })
    };
    let had_teller = has_teller(pid);
    let text = read_text(pid, "smaps").map_err(gone)?;
    let maps = Map::parse_all(&text);
    drop(text);
    if maps.is_empty() {
        // It ended, or began another program, in between.
        return Err(gone(io::Error::other("it is empty")));
    }
    let mut survey = match open(process, &maps) {
        Ok((remote, pages)) => {
            let mut pointers = stack_pointers(pid);
            let program = process.program.as_ref();
            let hidden = hidden::libraries(pid, &maps);
            let known = Known {
                hidden: &hidden,
                program: program.map_or(&[][..], |program| program.path.as_os_str().as_bytes()),
                other_allocator: has_other_allocator(process),
                is_python: program.is_some_and(|program| program.python.is_some()),
            };
            let python = program.and_then(|program| program.python.as_ref());
            let version = python.map(|python| &python.version);
            let types = version
                .filter(|_| with_types)
                .filter(|version| !version.is_free_threaded && version.minor >= 9)
                .map(|version| Types::new(pid, version.minor, &maps));
            let is_known = |types: &Types<'_>| types.minor() >= 11;
            let hand_on = hand_on.filter(|_| types.as_ref().is_some_and(is_known));
            let types = types.map(|types| match hand_on {
                Some(_) => types.noting_objects(),
                None => types,
            });
            explain(
                &maps,
                &remote,
                &pages,
                &mut pointers,
                &known,
                types,
                hand_on,
            )
        }
        Err(why) => {
            let known = Known {
                other_allocator: has_other_allocator(process),
                ..Known::default()
            };
            let mut survey = explain(
                &maps,
                &Nothing,
                &Pages::default(),
                &mut [],
                &known,
                None,
                None,
            );
            survey.not_read = Some(why);
            survey
        }
    };
    if !is_here() {
        // Then nothing could be read from some point on.
        return Err(closed(Why::Obstacle(Obstacle::Gone)));
    }
    if survey.heaps.is_none()
        && survey.not_read.is_none()
        && let Some(program) = &process.program
        && program.is_musl()
    {
        survey.not_read = Some(NotRead::Program(
            "the heap of musl's malloc is not looked into",
        ));
    }
    if had_teller || has_teller(pid) {
        survey.leave_out_forks();
    }
    Ok(survey)
}

/// Whether a child of it tells what its heap holds, for a heap graph. Nobody else is
/// likely to have one that ends without a signal and is the first to go.
fn has_teller(pid: u32) -> bool {
    const EXIT_SIGNAL: usize = 38;
    /// Of those after the name, the first is the third.
    const STATE: usize = 3;
    let is_teller = |child: u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let signal = fields.split_ascii_whitespace().nth(EXIT_SIGNAL - STATE);
        signal == Some("0")
            && fs::read_to_string(format!("/proc/{child}/oom_score_adj"))
                .is_ok_and(|text| text.trim() == "1000")
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children
            .split_ascii_whitespace()
            .filter_map(|child| child.parse().ok())
            .any(is_teller)
    })
}

/// An allocator beside libc's, or free-threaded CPython's.
fn has_other_allocator(process: &Process) -> bool {
    process.program.as_ref().is_some_and(|program| {
        !program.allocators.is_empty()
            || program
                .python
                .as_ref()
                .is_some_and(|python| python.version.is_free_threaded)
    })
}

/// The ways into a process's memory.
fn open(process: &Process, maps: &[Map]) -> Result<(Remote, Pages), NotRead> {
    let pid = process.pid;
    if let Some(program) = &process.program
        && program.bits() != 64
    {
        return Err(NotRead::Program("32-bit programs are not looked into"));
    }
    if rustix::param::page_size() as u64 != PAGE {
        return Err(NotRead::Program("pages of this size are not looked into"));
    }
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(|_| NotRead::Pages)?;
    let mut bytes = Vec::new();
    let pages = Pages::of(maps, |first, entries| {
        bytes.resize(entries.len() * 8, 0);
        let is_read = pagemap.read_exact_at(&mut bytes, first * 8).is_ok();
        for (entry, word) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = word.try_into().map_or(0, u64::from_le_bytes);
        }
        is_read
    });
    let remote = Remote::open(pid).map_err(NotRead::Memory)?;
    Ok((remote, pages))
}

/// Where the threads' stacks are in use, as far as the kernel tells.
fn stack_pointers(pid: u32) -> Vec<u64> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| {
            // Of one that runs nothing is told; its block is found anyway.
            let text = fs::read_to_string(thread.ok()?.path().join("syscall")).ok()?;
            let pointer = text.split_ascii_whitespace().rev().nth(1)?;
            u64::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()
        })
        .collect()
}

/// Memory that may not be read.
struct Nothing;

impl Memory for Nothing {
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

/// What is known of a process beforehand.
#[derive(Default)]
struct Known<'k> {
    /// The path of the program.
    program: &'k [u8],
    other_allocator: bool,
    is_python: bool,
    /// Libraries with an allocator inside.
    hidden: &'k [Hidden],
}

/// Explains the resident memory of `maps`.
fn explain(
    maps: &[Map],
    memory: &dyn Memory,
    pages: &Pages,
    pointers: &mut [u64],
    known: &Known<'_>,
    mut types: Option<Types<'_>>,
    hand_on: Option<&mut HandOn<'_>>,
) -> Survey {
    let mut survey = Survey::default();
    let mut reader = Reader::new(memory, pages);
    let mut tally = Tally::new(maps, pages);
    variables(maps, &mut reader, &mut tally);
    let of_malloc = heaps(
        maps,
        &mut reader,
        &mut tally,
        known,
        &mut survey,
        types.as_mut(),
    );
    let stacks = stacks::find(&mut reader, maps, pointers);
    survey.stacks = stacks.len() as u64;
    for (from, to) in stacks {
        tally.claim(from, to, Part::Stacks);
    }
    let has_malloc = survey.heaps.is_some();
    let found = probe(memory, &tally, has_malloc, known.is_python);
    blocks(&found, &mut tally, known, &mut survey);
    survey.types = types.map(|types| types.finish(&mut reader, &found, of_malloc, hand_on));
    let may_be = |at: usize, map: &Map| {
        let explained = tally.found.get(&at).into_iter().flatten();
        let explained: u64 = explained.map(|weight| weight.total()).sum();
        base(map, known) == Part::Anonymous && map.is_data() && explained < map.rss / 4
    };
    let hidden = hidden::mappings(known.hidden, maps, memory, pages, &may_be);
    tally.settle(known, &hidden, &mut survey);
    survey
}

/// What the pages of each mapping are, as far as it was found out.
struct Tally<'t> {
    maps: &'t [Map],
    pages: &'t Pages,
    found: BTreeMap<usize, [Weight; Part::ALL.len()]>,
    /// Ranges that are explained: not in order.
    claimed: Vec<(u64, u64)>,
}

impl<'t> Tally<'t> {
    fn new(maps: &'t [Map], pages: &'t Pages) -> Self {
        Tally {
            maps,
            pages,
            found: BTreeMap::new(),
            claimed: Vec::new(),
        }
    }

    /// Calls `each` for the mappings of a range, with the part that is in it.
    fn split(&self, from: u64, to: u64, mut each: impl FnMut(usize, u64, u64)) {
        let first = self.maps.partition_point(|map| map.end <= from);
        for (at, map) in self.maps.iter().enumerate().skip(first) {
            if map.start >= to {
                break;
            }
            each(at, from.max(map.start), to.min(map.end));
        }
    }

    /// What is resident of the range is this part's. Ranges do not overlap.
    fn add(&mut self, from: u64, to: u64, part: Part) {
        let pages = self.pages;
        let mut weights = Vec::new();
        self.split(from, to, |at, from, to| {
            weights.push((at, pages.weigh(from, to)));
        });
        for (at, weight) in weights {
            self.put(at, part, weight);
        }
    }

    fn put(&mut self, at: usize, part: Part, weight: Weight) {
        let sum = &mut self.found.entry(at).or_default()[part as usize];
        sum.private += weight.private;
        sum.shared += weight.shared;
    }

    /// As [`Tally::add`], and nobody need look there any more.
    fn claim(&mut self, from: u64, to: u64, part: Part) {
        self.add(from, to, part);
        self.claimed.push((from, to));
    }

    /// What was told to be one part is another's.
    fn correct(&mut self, from: u64, to: u64, was: Part, is: Part) -> u64 {
        let pages = self.pages;
        let mut weights = Vec::new();
        self.split(from, to, |at, from, to| {
            weights.push((at, pages.weigh(from, to)));
        });
        let mut moved = 0;
        for (at, weight) in weights {
            let sums = self.found.entry(at).or_default();
            let old = &mut sums[was as usize];
            let weight = Weight {
                private: weight.private.min(old.private),
                shared: weight.shared.min(old.shared),
            };
            old.private -= weight.private;
            old.shared -= weight.shared;
            self.put(at, is, weight);
            moved += weight.total();
        }
        moved
    }

    /// Makes of what was found parts that sum to what each mapping has.
    fn settle(mut self, known: &Known<'_>, hidden: &BTreeMap<usize, usize>, survey: &mut Survey) {
        let names = known
            .hidden
            .iter()
            .map(|one| (one.name(), Share::default()));
        survey.inside_libraries = names.collect();
        let mut files: BTreeMap<&[u8], (u64, bool)> = BTreeMap::new();
        for (at, map) in self.maps.iter().enumerate() {
            survey.rss_bytes += map.rss;
            survey.swapped_bytes += map.swap;
            let found = self.found.remove(&at).unwrap_or_default();
            let library = hidden.get(&at);
            let base_part = match library {
                Some(_) => Part::OtherAllocator,
                None => base(map, known),
            };
            for (part, share) in settled(map, &found, base_part) {
                survey.parts[part as usize].add(share);
                if part == Part::OtherAllocator
                    && let Some((_, own)) =
                        library.and_then(|&number| survey.inside_libraries.get_mut(number))
                {
                    own.add(share);
                }
            }
            if base(map, known) == Part::Files && map.inode != 0 {
                let file = files.entry(map.path()).or_default();
                file.0 += map.rss;
                file.1 |= map.executable;
            }
        }
        survey.largest_file = files
            .into_iter()
            .filter(|(_, (_, is_code))| !is_code)
            .max_by_key(|(_, (bytes, _))| *bytes)
            .map(|(path, (bytes, _))| (path.to_vec(), bytes));
    }
}

/// The parts of a mapping, whose sum is what is resident of it: those that were
/// found, cut down evenly where they are too much (the process went on
/// meanwhile), and `base` for the rest.
fn settled(map: &Map, found: &[Weight; Part::ALL.len()], base: Part) -> Vec<(Part, Share)> {
    let wanted: u64 = found.iter().map(|weight| weight.total()).sum();
    let scale = |value: u64, of: u64, to: u64| {
        (u128::from(value) * u128::from(to) / u128::from(of.max(1))) as u64
    };
    let mut totals: Vec<(Part, u64, u64)> = Vec::new();
    let mut rest = map.rss;
    for (part, weight) in Part::ALL.into_iter().zip(found) {
        let (mut total, mut shared) = (weight.total(), weight.shared);
        if wanted > map.rss {
            total = scale(total, wanted, map.rss);
            shared = scale(shared, wanted, map.rss);
        }
        rest -= total;
        if total > 0 {
            totals.push((part, total, shared));
        }
    }
    if wanted > map.rss
        && let Some(largest) = totals.iter_mut().max_by_key(|(_, total, _)| *total)
    {
        // What rounding left.
        largest.1 += rest;
        rest = 0;
    }
    // Of what is shared, the kernel's sum holds; pages only tell where.
    let mut shared_left = map.shared.min(map.rss);
    let shared_wanted: u64 = totals.iter().map(|(_, _, shared)| *shared).sum();
    if shared_wanted > shared_left {
        for (_, _, shared) in &mut totals {
            *shared = scale(*shared, shared_wanted, shared_left);
        }
    }
    shared_left -= totals.iter().map(|(_, _, shared)| *shared).sum::<u64>();
    let shared_of_rest = shared_left.min(rest);
    shared_left -= shared_of_rest;
    for (_, total, shared) in &mut totals {
        let more = shared_left.min(*total - *shared);
        *shared += more;
        shared_left -= more;
    }
    totals.push((base, rest, shared_of_rest));
    totals
        .into_iter()
        .map(|(part, total, shared)| {
            let private = total - shared;
            (part, Share { private, shared })
        })
        .collect()
}

/// What a mapping is, by what the kernel says of it alone.
fn base(map: &Map, known: &Known<'_>) -> Part {
    let is_leaklines = map.path().strip_prefix(b"/memfd:") == Some(mapped::SESSION.as_bytes())
        || map
            .file_name()
            .starts_with(mapped::INTERPOSER_PREFIX.as_bytes())
        || map.given_name() == Some(b"leakline");
    if is_leaklines {
        return Part::Leakline;
    }
    if map.is_shared_memory() {
        return Part::SharedMemory;
    }
    if map.inode != 0 {
        return Part::Files;
    }
    if map.name.starts_with(b"[stack") {
        return Part::Stacks;
    }
    if let Some(name) = map.given_name() {
        let has = |word: &[u8]| name.windows(word.len()).any(|part| part == word);
        if has(b"jemalloc") || has(b"mimalloc") || has(b"tcmalloc") || has(b"scudo") {
            return Part::OtherAllocator;
        }
        if has(b"pthread stack") || has(b"stack_and_tls") {
            return Part::Stacks;
        }
    }
    if map.name.starts_with(b"[v") {
        // The kernel's own: vdso, vvar, vsyscall.
        return Part::Files;
    }
    if known.other_allocator && map.is_data() {
        return Part::OtherAllocator;
    }
    Part::Anonymous
}

/// Variables of programs and libraries that lie behind their file's part.
fn variables(maps: &[Map], reader: &mut Reader<'_>, tally: &mut Tally<'_>) {
    for (before, map) in maps.iter().zip(maps.iter().skip(1)) {
        let is_behind = before.end == map.start
            && before.inode != 0
            && before.writable
            && !before.is_shared
            && map.is_data()
            && map.name.is_empty();
        if !is_behind {
            continue;
        }
        let head = maps
            .iter()
            .rfind(|head| {
                head.start <= before.start && head.offset == 0 && head.inode == before.inode
            })
            .and_then(|head| image_end(reader, head.start));
        let end = head.map_or(map.start, |end| {
            end.checked_next_multiple_of(PAGE)
                .map_or(map.end, |end| end.min(map.end))
        });
        let part = match base(before, &Known::default()) {
            Part::Leakline => Part::Leakline,
            _ => Part::Files,
        };
        if end > map.start {
            tally.claim(map.start, end, part);
        }
    }
}

/// Where the memory of the ELF image that begins at `start` ends.
fn image_end(reader: &mut Reader<'_>, start: u64) -> Option<u64> {
    const LOADED: u64 = 1;
    const MOST_SEGMENTS: u64 = 64;
    const MAGIC: u64 = 0x464c_457f;
    if reader.word(start)? & 0xffff_ffff != MAGIC {
        return None;
    }
    let table = start.checked_add(reader.word(start + 32)?)?;
    let count = reader.word(start + 56)? & 0xffff;
    if table % 8 != 0 || table - start > PAGE / 2 || count > MOST_SEGMENTS {
        return None;
    }
    let mut bias = None;
    let mut end = 0;
    for at in (0..count).map(|at| table + at * 56) {
        if reader.word(at)? & 0xffff_ffff != LOADED {
            continue;
        }
        let (offset, address) = (reader.word(at + 8)?, reader.word(at + 16)?);
        let bias = *bias.get_or_insert(start.wrapping_sub(address.wrapping_sub(offset)));
        let size = reader.word(at + 40)?;
        end = end.max(bias.wrapping_add(address).checked_add(size)?);
    }
    Some(end)
}

/// The heaps of glibc's malloc: where they are.
fn heaps(
    maps: &[Map],
    reader: &mut Reader<'_>,
    tally: &mut Tally<'_>,
    known: &Known<'_>,
    survey: &mut Survey,
    mut types: Option<&mut Types<'_>>,
) -> Vec<(u64, u64)> {
    let is_libc = |map: &Map| {
        let name = map.file_name();
        name.starts_with(b"libc.so.6") || name.starts_with(b"libc-2.")
    };
    let is_variables = |map: &Map| map.inode != 0 && map.writable && !map.is_shared;
    let libc = maps.iter().filter(|map| is_variables(map) && is_libc(map));
    let program = maps
        .iter()
        .filter(|map| is_variables(map) && map.path() == known.program);
    let data: Vec<(u64, u64)> = libc
        .chain(program)
        .map(|map| (map.start, map.end))
        .collect();
    let mut heap: Option<(u64, u64)> = None;
    for map in maps.iter().filter(|map| map.name == b"[heap]") {
        heap = match heap {
            Some((start, end)) if end == map.start => Some((start, map.end)),
            None => Some((map.start, map.end)),
            known => known,
        };
    }
    let Some(arenas) = glibc::find(reader, &data, heap) else {
        return Vec::new();
    };
    let mut sums = Heaps {
        arenas: arenas.len() as u64,
        ..Heaps::default()
    };
    let pages = reader.pages();
    let fast = glibc::fast(reader, &arenas);
    let mut caches = Vec::new();
    let mut all = Vec::new();
    let mut of_threads = Vec::new();
    for arena in &arenas {
        for heap in &arena.heaps {
            let mut stretches = |from: u64, to: u64, state: glibc::State| {
                let part = match state {
                    glibc::State::Live => Part::MallocLive,
                    glibc::State::Free | glibc::State::Top => Part::MallocFree,
                    glibc::State::Torn => Part::Unexplained,
                };
                tally.add(from, to, part);
                if !arena.is_main && part == Part::MallocFree {
                    sums.free_of_threads_bytes += pages.weigh(from, to).total();
                }
            };
            let mut see = types
                .as_mut()
                .map(|types| |reader: &mut Reader<'_>, at, bytes| types.see(reader, at, bytes));
            let mut walk = Walk {
                tell: &mut stretches,
                whole_pages: &mut |from, to| {
                    sums.trimmable_bytes += pages.weigh(from, to).total();
                },
                fast: &fast,
                caches: std::mem::take(&mut caches),
                blocks: see.as_mut().map(|see| see as &mut glibc::Blocks<'_>),
            };
            glibc::walk(reader, heap, arena.is_main, &mut walk);
            caches = walk.caches;
            tally.claimed.push((heap.start, heap.end));
            all.push((heap.start, heap.end));
            if !arena.is_main {
                of_threads.push((heap.start, heap.end));
            }
        }
    }
    of_threads.sort_unstable();
    let cached = glibc::cached(reader, &caches);
    for (at, size) in fast.into_iter().chain(cached) {
        let moved = tally.correct(at, at + size, Part::MallocLive, Part::MallocFree);
        let heap = of_threads.partition_point(|(start, _)| *start <= at);
        if heap > 0 && at < of_threads[heap - 1].1 {
            sums.free_of_threads_bytes += moved;
        }
    }
    survey.heaps = Some(sums);
    all
}

/// What was recognised page by page.
#[derive(Default)]
struct Found {
    /// By address.
    pools: Vec<Pool>,
    /// Blocks that malloc mapped by themselves.
    mapped: Vec<(u64, u64)>,
    /// Where CPython keeps threads' frames.
    frames: Vec<(u64, u64)>,
}

/// Looks at the beginning of each resident page that nobody has explained yet.
fn probe(memory: &dyn Memory, tally: &Tally<'_>, has_malloc: bool, is_python: bool) -> Found {
    /// Pages at once.
    const BATCH: usize = 1024;
    /// As much of each as headers are looked for in.
    const EACH: usize = 128;
    let mut claimed = tally.claimed.clone();
    claimed.sort_unstable();
    let mut found = Found::default();
    let mut addresses = Vec::with_capacity(BATCH);
    let mut bytes = vec![0; BATCH * EACH];
    let mut skip_to = 0;
    for (number, map) in tally.maps.iter().enumerate() {
        if !map.is_data() || map.rss == 0 {
            continue;
        }
        // A block goes on in the next mapping where advice for a part of it (on huge
        // pages, as NumPy gives) made two of one.
        let block_limit = tally.maps[number..]
            .windows(2)
            .take_while(|two| two[0].end == two[1].start && two[1].is_data())
            .last()
            .map_or(map.end, |two| two[1].end);
        let mut at = map.start.max(skip_to);
        while at < map.end {
            addresses.clear();
            while addresses.len() < BATCH
                && let Some(page) = tally.pages.next_present(at, map.end)
            {
                at = page + PAGE;
                let before = claimed.partition_point(|(from, _)| *from <= page);
                match before.checked_sub(1).map(|before| claimed[before]) {
                    Some((_, to)) if page < to => at = to.next_multiple_of(PAGE),
                    _ => addresses.push(page),
                }
            }
            if addresses.is_empty() {
                break;
            }
            let bytes = &mut bytes[..addresses.len() * EACH];
            memory.probe(&addresses, EACH, bytes);
            for (page, bytes) in addresses.iter().zip(bytes.chunks_exact(EACH)) {
                if *page < skip_to {
                    continue;
                }
                if let Some(pool) = Pool::parse(*page, bytes) {
                    skip_to = pool.end();
                    found.pools.push(pool);
                } else if has_malloc
                    && let Some(end) = glibc::mapped_block(*page, bytes, block_limit)
                {
                    skip_to = end;
                    found.mapped.push((*page, end));
                } else if is_python && let Some(end) = pymalloc::frames(*page, bytes, map.end) {
                    skip_to = end;
                    found.frames.push((*page, end));
                }
            }
            at = at.max(skip_to);
        }
    }
    found
}

/// Takes account of what was recognised.
fn blocks(found: &Found, tally: &mut Tally<'_>, known: &Known<'_>, survey: &mut Survey) {
    /// Where there is no Python to be seen, a few may be chance.
    const FEW: usize = 16;
    for (from, to) in &found.mapped {
        tally.add(*from, *to, Part::MallocLive);
        if let Some(heaps) = &mut survey.heaps {
            heaps.mapped_bytes += tally.pages.weigh(*from, *to).private;
        }
    }
    for (from, to) in &found.frames {
        tally.add(*from, *to, Part::Stacks);
    }
    if found.pools.is_empty() || (!known.is_python && found.pools.len() < FEW) {
        return;
    }
    let mut sums = PythonArenas::default();
    for arena in pymalloc::arenas(&found.pools) {
        sums.arenas += 1;
        let (mut live, mut resident) = (0, 0);
        for pool in arena.pools {
            let all = tally.pages.weigh(pool.start, pool.end());
            // Where not all that was handed out is resident (some is swapped
            // out), the blocks in use have their part in it.
            let carved = tally.pages.weigh(pool.start, pool.carved_to);
            let part = |of: u64| {
                let bytes = pool.carved_to - pool.start;
                (u128::from(of) * u128::from(pool.used) / u128::from(bytes)) as u64
            };
            let used = Weight {
                private: part(carved.private),
                shared: part(carved.shared),
            };
            let free = Weight {
                private: all.private - used.private,
                shared: all.shared - used.shared,
            };
            live += used.total();
            resident += all.total();
            // A pool never lies across mappings.
            let at = tally.maps.partition_point(|map| map.end <= pool.start);
            tally.put(at, Part::PythonLive, used);
            tally.put(at, Part::PythonFree, free);
        }
        let last = arena.pools.last().map_or(arena.end, Pool::end);
        let taken = found.mapped.partition_point(|(_, to)| *to <= last);
        let end = found
            .mapped
            .get(taken)
            .map_or(arena.end, |(from, _)| arena.end.min(*from));
        if last < end {
            tally.add(last, end, Part::PythonFree);
        }
        if live * 4 < resident {
            sums.sparse_arenas += 1;
            sums.sparse_live_bytes += arena.used();
        }
    }
    survey.python = Some(sums);
}

#[cfg(test)]
mod tests {
    use super::memory::tests::Image;
    use super::pages::tests::data;
    use super::*;

    fn weights(parts: &[(Part, u64, u64)]) -> [Weight; Part::ALL.len()] {
        let mut weights = [Weight::default(); Part::ALL.len()];
        for (part, private, shared) in parts {
            weights[*part as usize] = Weight {
                private: *private,
                shared: *shared,
            };
        }
        weights
    }

    fn of(parts: &[(Part, Share)], part: Part) -> (u64, u64) {
        let mut sum = Share::default();
        for (is, share) in parts {
            if *is == part {
                sum.add(*share);
            }
        }
        (sum.private, sum.shared)
    }

    #[test]
    fn parts_of_a_mapping_sum_to_it() {
        let map = |rss, shared| Map {
            rss,
            shared,
            ..data(0, 1 << 20)
        };
        let live = weights(&[(Part::MallocLive, 100, 50), (Part::MallocFree, 0, 150)]);
        // There is more than was found.
        let found = settled(&map(400, 200), &live, Part::Anonymous);
        assert_eq!(of(&found, Part::MallocLive), (100, 50));
        assert_eq!(of(&found, Part::MallocFree), (0, 150));
        assert_eq!(of(&found, Part::Anonymous), (100, 0));
        // There was more when the pages were counted.
        let found = settled(&map(151, 151), &live, Part::Anonymous);
        assert_eq!(of(&found, Part::Anonymous), (0, 0));
        let sum: u64 = found.iter().map(|(_, share)| share.total()).sum();
        assert_eq!(sum, 151);
        // Whatever the kernel says at both times.
        for rss in 0..60 {
            for shared in 0..70 {
                for (private, of_forks) in [(0, 0), (7, 30), (50, 1), (13, 13), (0, 59)] {
                    let parts = weights(&[
                        (Part::PythonLive, private, of_forks),
                        (Part::Stacks, 1, 2),
                        (Part::MallocFree, of_forks, private),
                    ]);
                    let found = settled(&map(rss, shared), &parts, Part::Anonymous);
                    let sum: u64 = found.iter().map(|(_, share)| share.total()).sum();
                    let of_all: u64 = found.iter().map(|(_, share)| share.shared).sum();
                    assert_eq!(sum, rss);
                    assert_eq!(of_all, shared.min(rss));
                }
            }
        }
    }

    #[test]
    fn mappings_are_told_by_what_the_kernel_calls_them() {
        let known = Known::default();
        let named = |name: &str, inode| Map {
            name: name.into(),
            inode,
            ..data(0, 4096)
        };
        for (name, inode, part) in [
            ("", 0, Part::Anonymous),
            ("[heap]", 0, Part::Anonymous),
            ("[stack]", 0, Part::Stacks),
            ("[vdso]", 0, Part::Files),
            ("/usr/lib/libc.so.6", 7, Part::Files),
            ("/dev/shm/x", 7, Part::SharedMemory),
            ("/SYSV00000000 (deleted)", 0, Part::SharedMemory),
            ("/memfd:x (deleted)", 7, Part::SharedMemory),
            ("/memfd:leakline-session (deleted)", 7, Part::Leakline),
            ("/tmp/libleakline_preload-1-ab.so", 7, Part::Leakline),
            ("[anon:leakline]", 0, Part::Leakline),
            ("[anon:jemalloc_pg]", 0, Part::OtherAllocator),
            ("[anon: glibc: pthread stack: 12]", 0, Part::Stacks),
            ("[anon:something]", 0, Part::Anonymous),
        ] {
            assert_eq!(base(&named(name, inode), &known), part, "{name}");
        }
        let preloaded = Known {
            other_allocator: true,
            ..Known::default()
        };
        assert_eq!(base(&named("", 0), &preloaded), Part::OtherAllocator);
        assert_eq!(base(&named("[heap]", 0), &preloaded), Part::Anonymous);
    }

    #[test]
    fn what_may_not_be_read_is_told_by_mappings_alone() {
        let mut maps = vec![data(0x1000, 0x9000), data(0x2_0000, 0x3_0000)];
        maps[1].name = b"[heap]".to_vec();
        let known = Known::default();
        let survey = explain(
            &maps,
            &Nothing,
            &Pages::default(),
            &mut [0x2000],
            &known,
            None,
            None,
        );
        assert_eq!(survey.rss_bytes, 0x1_8000);
        assert_eq!(survey.part(Part::Anonymous).private, 0x1_8000);
        assert!(survey.heaps.is_none() && survey.python.is_none());
    }

    #[test]
    fn pools_are_weighed_by_what_is_used() {
        const AT: u64 = 0x7f00_0010_0000;
        let mut image = Image::new(AT, 1 << 20);
        for pool in 0..20_u64 {
            let at = AT + pool * 0x4000;
            // 32-byte blocks: 100 handed out, 25 in use.
            image.set(at, 25);
            image.set(at + 8, at + 48 + 32);
            image.set(at + 32, 1 << 32 | 3);
            image.set(at + 40, (16384 - 32) << 32 | (48 + 3200));
        }
        let pages = image.pages();
        let known = Known {
            is_python: true,
            ..Known::default()
        };
        let survey = explain(&image.maps(), &image, &pages, &mut [], &known, None, None);
        assert_eq!(survey.rss_bytes, 1 << 20);
        let live = survey.part(Part::PythonLive).total();
        assert_eq!(live, 20 * 25 * 32);
        // But for a pool that an arena at an odd address would not have.
        let free = survey.part(Part::PythonFree).total();
        assert_eq!(free, (1 << 20) - 0x4000 - live);
        let python = survey.python.unwrap();
        assert_eq!((python.arenas, python.sparse_arenas), (1, 1));
        assert_eq!(python.sparse_live_bytes, live);
    }
}
