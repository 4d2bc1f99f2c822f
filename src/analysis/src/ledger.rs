//! The RSS ledger: what a process's resident memory is made of, in lines that
//! sum to it, and what that says.
//!
//! Figures come from outside (`leakline-inject` reads them from a live process);
//! here is what they are called, how they are rounded, and how they are judged.
//!
//! # Invariants
//!
//! * The lines of a [`Ledger`] sum to its resident bytes, and as printed to the
//!   printed sum: [`apportioned`] rounds them together.
//! * One look cannot tell a leak from a cache, so it never says either.

mod history;
mod inventory;
mod lines;

pub use history::{Account, Accounts, Blamed, NoLedger, OfCause};
pub use inventory::{Inventory, OfType};
pub use lines::INSIDE;

use crate::report::{bytes, counted};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LineKind {
    /// Blocks in use of CPython's allocator for small blocks.
    PythonLive,
    /// The rest of its arenas.
    PythonFree,
    /// Blocks in use of glibc's malloc.
    MallocLive,
    /// Free blocks of it.
    MallocFree,
    /// Mappings of another allocator.
    OtherAllocator,
    /// Other private memory without a file.
    Anonymous,
    /// Files, code and variables.
    Files,
    /// Stacks of threads.
    Stacks,
    /// Memory that processes share on purpose.
    SharedMemory,
    /// Its own memory that forked processes still share.
    CopyOnWrite,
    /// The interposer, and its session.
    Leakline,
    /// What made no sense.
    Unexplained,
}

impl LineKind {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            LineKind::PythonLive => "python_live",
            LineKind::PythonFree => "python_free",
            LineKind::MallocLive => "malloc_live",
            LineKind::MallocFree => "malloc_free",
            LineKind::OtherAllocator => "other_allocator",
            LineKind::Anonymous => "anonymous",
            LineKind::Files => "files",
            LineKind::Stacks => "stacks",
            LineKind::SharedMemory => "shared_memory",
            LineKind::CopyOnWrite => "copy_on_write",
            LineKind::Leakline => "leakline",
            LineKind::Unexplained => "unexplained",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            LineKind::PythonLive => "live Python objects",
            LineKind::PythonFree => "free inside pymalloc arenas",
            LineKind::MallocLive => "live malloc",
            LineKind::MallocFree => "freed, kept by glibc arenas",
            LineKind::OtherAllocator => "other allocators",
            LineKind::Anonymous => "other anonymous maps",
            LineKind::Files => "files and code",
            LineKind::Stacks => "thread stacks",
            LineKind::SharedMemory => "shared memory",
            LineKind::CopyOnWrite => "copy-on-write with forks",
            LineKind::Leakline => "leakline itself",
            LineKind::Unexplained => "not explained",
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub kind: LineKind,
    /// In place of the kind's title, where more is known.
    pub title: Option<String>,
    /// There are more of its kind.
    pub is_one_of_several: bool,
    /// Resident bytes.
    pub bytes: u64,
    /// Of them, what other processes have mapped, too.
    pub shared_bytes: u64,
    /// A few words more.
    pub note: String,
    /// What is part of it, and not added.
    pub of_it: Vec<OfIt>,
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfIt {
    /// Its name.
    pub title: String,
    /// Its bytes.
    pub bytes: u64,
    /// How much more than before, where that is known.
    pub since_bytes: Option<i64>,
    /// The cause that it is what is live of, by its id.
    pub cause: Option<String>,
}

impl OfIt {
    /// A part of which no more is known.
    pub fn new(title: impl Into<String>, bytes: u64) -> Self {
        OfIt {
            title: title.into(),
            bytes,
            since_bytes: None,
            cause: None,
        }
    }
}

impl Line {
    /// Its name for people.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.kind.title())
    }
}

/// What a process's resident memory is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// In the order in which they are shown; they sum to the resident bytes.
    pub lines: Vec<Line>,
    /// What was swapped out, which is no part of them.
    pub swapped_bytes: u64,
    /// Arenas of glibc's malloc; 0 where it is not known.
    pub arenas: u64,
    /// What `malloc_trim(0)` would give back.
    pub trimmable_bytes: u64,
    /// What is free in arenas of threads.
    pub free_of_threads_bytes: u64,
    /// Arenas of CPython.
    pub python_arenas: u64,
    /// Those of which less than a quarter is in use, and what is in use there.
    pub sparse_arenas: (u64, u64),
    /// Why it was not looked into the memory itself.
    pub not_read: Option<String>,
}

impl Ledger {
    /// The sum of all lines.
    pub fn rss_bytes(&self) -> u64 {
        self.lines.iter().map(|line| line.bytes).sum()
    }

    /// What a line has.
    pub fn bytes(&self, kind: LineKind) -> u64 {
        let lines = self.lines.iter().filter(|line| line.kind == kind);
        lines.map(|line| line.bytes).sum()
    }

    /// Adds another process's.
    fn add(&mut self, other: &Ledger) {
        for line in &other.lines {
            let same = |own: &&mut Line| own.kind == line.kind && own.title() == line.title();
            match self.lines.iter_mut().find(same) {
                Some(own) => {
                    own.bytes = own.bytes.saturating_add(line.bytes);
                    own.shared_bytes = own.shared_bytes.saturating_add(line.shared_bytes);
                    own.note.clear();
                }
                None => self.lines.push(Line {
                    note: String::new(),
                    ..line.clone()
                }),
            }
        }
        self.lines.sort_by_key(|line| line.kind);
        self.swapped_bytes = self.swapped_bytes.saturating_add(other.swapped_bytes);
        self.trimmable_bytes = self.trimmable_bytes.saturating_add(other.trimmable_bytes);
        let of_threads = self.free_of_threads_bytes;
        self.free_of_threads_bytes = of_threads.saturating_add(other.free_of_threads_bytes);
        self.arenas = self.arenas.saturating_add(other.arenas);
        self.python_arenas = self.python_arenas.saturating_add(other.python_arenas);
        self.sparse_arenas.0 = self.sparse_arenas.0.saturating_add(other.sparse_arenas.0);
        self.sparse_arenas.1 = self.sparse_arenas.1.saturating_add(other.sparse_arenas.1);
        if self.not_read.is_none() {
            self.not_read.clone_from(&other.not_read);
        }
    }

    /// What this ledger has of another's line: that of the same kind, by its title
    /// where there are several.
    pub fn bytes_of(&self, line: &Line) -> u64 {
        let same = || self.lines.iter().filter(|own| own.kind == line.kind);
        if line.kind == LineKind::OtherAllocator && (same().count() > 1 || line.is_one_of_several) {
            let named = same().filter(|own| own.title() == line.title());
            return named.map(|own| own.bytes).sum();
        }
        self.bytes(line.kind)
    }

    /// What allocators that were looked into have handed out.
    pub fn live_bytes(&self) -> u64 {
        self.bytes(LineKind::PythonLive) + self.bytes(LineKind::MallocLive)
    }

    /// What was freed, or never handed out, and is resident.
    pub fn free_bytes(&self) -> u64 {
        self.bytes(LineKind::PythonFree) + self.bytes(LineKind::MallocFree)
    }

    /// Bytes that are in a line that says what they are.
    pub fn explained_bytes(&self) -> u64 {
        self.rss_bytes() - self.bytes(LineKind::Unexplained)
    }
}

/// Words for what a ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Most is in use.
    Live,
    /// Much was freed, and not given back.
    Held,
    /// Most is something that is neither.
    Other,
    /// It cannot be told.
    NotKnown,
    /// Between two looks: what grew is known to leak.
    Leak,
    /// Between two looks: live memory grew.
    LiveGrew,
    /// RSS grew, live memory did not.
    Fragmentation,
    /// RSS grew by something else.
    OtherGrew,
    /// Nothing that matters changed.
    Steady,
    /// RSS fell.
    Shrank,
}

impl Finding {
    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Live => "live",
            Finding::Held => "held",
            Finding::Other => "other",
            Finding::NotKnown => "not_known",
            Finding::Leak => "leak",
            Finding::LiveGrew => "live_grew",
            Finding::Fragmentation => "fragmentation",
            Finding::OtherGrew => "other_grew",
            Finding::Steady => "steady",
            Finding::Shrank => "shrank",
        }
    }
}

/// What a ledger says, and what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// In a word.
    pub finding: Finding,
    /// The words that follow the figure of RSS.
    pub words: String,
    /// What would return memory, a sentence each; empty where nothing would.
    pub remedy: Vec<String>,
}

impl Judgement {
    /// Names the type that most of the growth is of, where live memory grew and most is.
    pub fn name_type(&mut self, now: &Ledger, earlier: &Ledger, inventory: &Inventory) {
        let grown = now.live_bytes().saturating_sub(earlier.live_bytes());
        let first = inventory.types.first();
        if let (Finding::LiveGrew, Some(OfType { name, since, .. })) = (self.finding, first)
            && let Some((objects, of_it)) = *since
            && of_it.saturating_mul(2).cast_unsigned() >= grown
            && objects > 0
        {
            self.words = format!(
                "{}; most of it in {} more {}",
                self.words,
                crate::report::blocks(objects.unsigned_abs()),
                crate::report::printable(name)
            );
        }
    }
}

/// Judges a ledger, against an earlier one of the same process if there is one.
pub fn judge(ledger: &Ledger, earlier: Option<&Ledger>) -> Judgement {
    let (finding, words) = match earlier {
        _ if ledger.not_read.is_some() => not_read(ledger, earlier),
        Some(earlier) => change(ledger, earlier),
        None => state(ledger),
    };
    Judgement {
        finding,
        words,
        remedy: remedy(ledger),
    }
}

fn percent(part: u64, of: u64) -> u64 {
    ((u128::from(part) * 200 + u128::from(of)) / (u128::from(of.max(1)) * 2)) as u64
}

/// The line that has most.
fn largest(ledger: &Ledger) -> Option<&Line> {
    // Of equals the first.
    ledger.lines.iter().rev().max_by_key(|line| line.bytes)
}

fn not_read(ledger: &Ledger, earlier: Option<&Ledger>) -> (Finding, String) {
    let rss = ledger.rss_bytes();
    if let Some(earlier) = earlier {
        let grown = ledger.rss_bytes().cast_signed() - earlier.rss_bytes().cast_signed();
        if grown.unsigned_abs() < threshold(rss) {
            return (Finding::Steady, "STEADY: no line changed by much".into());
        }
    }
    let words = largest(ledger).map_or_else(
        || "nothing is resident".into(),
        |line| {
            format!(
                "NOT LOOKED INTO: {} % in {}, live and free not told apart",
                percent(line.bytes, rss),
                line.title()
            )
        },
    );
    (Finding::NotKnown, words)
}

/// What one look says.
fn state(ledger: &Ledger) -> (Finding, String) {
    /// Below it there is nothing to win.
    const WORTH_IT: u64 = 8 << 20;
    let (rss, live, free) = (ledger.rss_bytes(), ledger.live_bytes(), ledger.free_bytes());
    if free >= WORTH_IT && free * 4 >= rss {
        let words = format!(
            "FREE BUT HELD: {} ({} %) is free memory that was not given back",
            bytes(free),
            percent(free, rss)
        );
        return (Finding::Held, words);
    }
    if rss > 0 && live * 2 >= rss {
        let words = format!(
            "MOSTLY LIVE: {} ({} %) is in use; whether it leaks, one look cannot tell",
            bytes(live),
            percent(live, rss)
        );
        return (Finding::Live, words);
    }
    let Some(line) = largest(ledger).filter(|line| line.bytes > 0) else {
        return (Finding::NotKnown, "nothing is resident".into());
    };
    let words = if line.bytes * 2 >= rss {
        format!(
            "MOSTLY {}: {} ({} %)",
            line.title().to_uppercase(),
            bytes(line.bytes),
            percent(line.bytes, rss)
        )
    } else {
        format!(
            "NOTHING STANDS OUT: {} % in {}, {} % in use as far as it is known",
            percent(line.bytes, rss),
            line.title(),
            percent(live, rss)
        )
    };
    (Finding::Other, words)
}

/// Changes below it are no news: a percent, and a mebibyte at least.
fn threshold(rss: u64) -> u64 {
    (rss / 100).max(1 << 20)
}

/// What two looks say.
fn change(now: &Ledger, then: &Ledger) -> (Finding, String) {
    let by = |figure: fn(&Ledger) -> u64| figure(now).cast_signed() - figure(then).cast_signed();
    let (rss, live) = (by(Ledger::rss_bytes), by(Ledger::live_bytes));
    let free = by(Ledger::free_bytes);
    let matters = threshold(now.rss_bytes()).cast_signed();
    if live >= matters && live * 2 >= rss {
        let into = if rss < matters {
            ", into memory that was free"
        } else {
            ""
        };
        let words = format!(
            "LIVE MEMORY GREW by {}{into}: a leak, or a cache that fills",
            bytes(live.unsigned_abs())
        );
        return (Finding::LiveGrew, words);
    }
    if rss <= -matters {
        return (
            Finding::Shrank,
            format!("SHRANK by {}", bytes(rss.unsigned_abs())),
        );
    }
    if rss < matters {
        return (Finding::Steady, "STEADY: no growth that matters".into());
    }
    if free * 2 >= rss {
        let live = match live {
            0 => "live memory stayed the same".into(),
            1.. => format!("live memory grew by {} only", bytes(live.unsigned_abs())),
            _ => format!("live memory fell by {}", bytes(live.unsigned_abs())),
        };
        let words = format!("FRAGMENTATION, not a leak: {live} while RSS grew");
        return (Finding::Fragmentation, words);
    }
    let grown = |line: &&Line| line.bytes.cast_signed() - then.bytes_of(line).cast_signed();
    let words = now.lines.iter().max_by_key(grown).map_or_else(
        || "it grew".into(),
        |line| {
            format!(
                "{} grew by {}",
                line.title(),
                bytes(grown(&line).unsigned_abs())
            )
        },
    );
    (Finding::OtherGrew, words)
}

/// What would return memory.
fn remedy(ledger: &Ledger) -> Vec<String> {
    /// Below a twentieth nobody need act.
    const PART: u64 = 20;
    const LEAST: u64 = 4 << 20;
    let rss = ledger.rss_bytes();
    let matters = |part: u64| part >= LEAST && part * PART >= rss;
    let mut remedy = Vec::new();
    if matters(ledger.trimmable_bytes) {
        remedy.push(format!(
            "`malloc_trim(0)` in the process would return about {} ({} %)",
            bytes(ledger.trimmable_bytes),
            percent(ledger.trimmable_bytes, rss)
        ));
    }
    let in_threads = ledger.free_of_threads_bytes;
    if matters(in_threads) && ledger.arenas > 3 {
        remedy.push(format!(
            "started with `MALLOC_ARENA_MAX=2`, less of the {} that is free in {} of threads \
             would be held",
            bytes(in_threads),
            counted(ledger.arenas - 1, "arena", "arenas")
        ));
    }
    let (sparse, used) = ledger.sparse_arenas;
    if matters(ledger.bytes(LineKind::PythonFree)) && sparse > 0 {
        remedy.push(format!(
            "CPython returns an arena once it is empty: {} of {} are less than a quarter full, \
             held by {} of objects",
            sparse,
            ledger.python_arenas,
            bytes(used)
        ));
    }
    remedy
}

/// `values` in units of `unit`, rounded so that they sum to their rounded sum:
/// those that lose most by it are rounded up.
pub fn apportioned(values: &[i64], unit: i64) -> Vec<i64> {
    let unit = unit.max(1);
    let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
    let rounded = (sum * 2 + i128::from(unit)).div_euclid(i128::from(unit) * 2);
    let mut parts: Vec<i64> = values.iter().map(|value| value.div_euclid(unit)).collect();
    let missing = rounded - parts.iter().map(|part| i128::from(*part)).sum::<i128>();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|at| (-values[*at].rem_euclid(unit), *at));
    for at in order.into_iter().take(missing.max(0) as usize) {
        parts[at] += 1;
    }
    parts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ledger(parts: &[(LineKind, u64)]) -> Ledger {
        let lines = parts.iter().map(|(kind, mib)| Line {
            kind: *kind,
            title: None,
            is_one_of_several: false,
            bytes: mib * MIB,
            shared_bytes: 0,
            note: String::new(),
            of_it: Vec::new(),
        });
        Ledger {
            lines: lines.collect(),
            ..Ledger::default()
        }
    }

    #[test]
    fn rounded_parts_sum_to_the_rounded_sum() {
        assert_eq!(apportioned(&[5, 5, 5], 10), [1, 1, 0]);
        assert_eq!(apportioned(&[0, 14, 0], 10), [0, 1, 0]);
        assert_eq!(apportioned(&[-14, 3, 0], 10), [-1, 0, 0]);
        assert_eq!(apportioned(&[], 10), [0; 0]);
        // What is nothing stays nothing.
        assert_eq!(apportioned(&[0, 99, 99, 0], 100), [0, 1, 1, 0]);
        for seed in 0..500_i64 {
            let values: Vec<i64> = (1..9)
                .map(|at| (seed * 7919 * at * at) % 100_003 - 20_000)
                .collect();
            let parts = apportioned(&values, 997);
            let sum: i64 = values.iter().sum();
            let rounded = (sum * 2 + 997).div_euclid(997 * 2);
            assert_eq!(parts.iter().sum::<i64>(), rounded);
            for (value, part) in values.iter().zip(parts) {
                assert!((value - part * 997).abs() < 997, "{value} {part}");
            }
        }
    }

    #[test]
    fn one_look_says_live_or_held_and_never_leak() {
        use LineKind::{Anonymous, Files, MallocFree, MallocLive, PythonLive};
        let finding = |parts: &[(LineKind, u64)]| judge(&ledger(parts), None);
        let live = finding(&[(PythonLive, 70), (Files, 20)]);
        assert_eq!(live.finding, Finding::Live);
        assert!(live.words.starts_with("MOSTLY LIVE: 70.0 MiB (78 %)"));
        let held = finding(&[(MallocLive, 60), (MallocFree, 30)]);
        assert_eq!(held.finding, Finding::Held);
        assert_eq!(
            finding(&[(MallocLive, 1), (MallocFree, 2)]).finding,
            Finding::Other
        );
        let other = finding(&[(MallocLive, 10), (Anonymous, 30), (Files, 30)]);
        assert_eq!(other.finding, Finding::Other);
        assert!(
            other.words.contains("in other anonymous maps"),
            "{}",
            other.words
        );
        assert_eq!(finding(&[]).finding, Finding::NotKnown);
    }

    #[test]
    fn two_looks_tell_growth_from_fragmentation() {
        use LineKind::{Files, MallocFree, MallocLive};
        let at =
            |live, free, files| ledger(&[(MallocLive, live), (MallocFree, free), (Files, files)]);
        let finding = |now: Ledger| judge(&now, Some(&at(100, 10, 20)));
        assert_eq!(finding(at(130, 10, 20)).finding, Finding::LiveGrew);
        let fragmented = finding(at(98, 60, 20));
        assert_eq!(fragmented.finding, Finding::Fragmentation);
        assert!(fragmented.words.contains("fell by 2.0 MiB while RSS grew"));
        assert_eq!(finding(at(100, 10, 60)).finding, Finding::OtherGrew);
        assert_eq!(finding(at(100, 10, 20)).finding, Finding::Steady);
        assert_eq!(finding(at(60, 10, 20)).finding, Finding::Shrank);
        // Free memory that comes into use is no growth of RSS, but of what is live.
        let into = finding(at(108, 2, 20));
        assert_eq!(into.finding, Finding::LiveGrew);
        assert!(into.words.contains("into memory that was free"));
    }

    #[test]
    fn remedies_are_named_where_they_matter() {
        let mut held = ledger(&[(LineKind::MallocLive, 50), (LineKind::MallocFree, 50)]);
        assert!(judge(&held, None).remedy.is_empty());
        held.trimmable_bytes = 40 * MIB;
        held.arenas = 9;
        held.free_of_threads_bytes = 30 * MIB;
        let remedy = judge(&held, None).remedy;
        assert_eq!(remedy.len(), 2);
        assert!(remedy[0].contains("about 40.0 MiB (40 %)"), "{remedy:?}");
        assert!(remedy[1].contains("30.0 MiB") && remedy[1].contains("8 arenas"));
    }
}
