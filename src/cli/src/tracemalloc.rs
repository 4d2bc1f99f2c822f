//! Snapshots of `tracemalloc`, as a recording.
//!
//! A snapshot is a list of blocks with their stacks: what was alive at an instant.
//! Blocks of one stack and domain become a site; each snapshot becomes a mark, and a
//! bin that ends there and tells of every site. What happened in between nobody
//! knows, and the recording says so: its mode is `imported`, it has no cohorts, and
//! its totals are what was seen to grow.

mod pickle;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use leakline_analysis::report::{blocks, bytes, counted};
use leakline_recording::Writer;
use leakline_recording::record::{
    Bin, Code, Counters, Domain, End, Frame, Mark, Node, Note, Peak, Point, Process, ProcessTotals,
    Record, Session, Site,
};

use pickle::{Dump, Id, MOST_BYTES, PickleError};

/// The domain that NumPy tells tracemalloc of: the letters N and P, and a number.
const NUMPY: u64 = 389_047;

/// From the beginning of the session to the first snapshot.
const LEAD_NS: u64 = 1_000_000;
/// Between snapshots whose times are not known.
const APART_NS: u64 = 1_000_000_000;

/// Names that mean something else where an instant is asked for.
const TAKEN: [&str; 6] = [
    "start",
    "end",
    "peak",
    "python ready",
    "main left",
    "exiting",
];
/// Most domains of others that a note names: a dump may have as many as it likes.
const MOST_FOREIGN: usize = 8;
/// Most bytes of a snapshot's name.
const LONGEST_NAME: usize = 64;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
#[error("cannot import `{}`", path.display())]
pub(crate) struct ImportError {
    path: PathBuf,
    source: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(transparent)]
    NoDump(#[from] PickleError),
    #[error("there are more than 4 billion frames or sites")]
    TooMany,
}

/// A snapshot that was read.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What it is called in the recording.
    pub(crate) name: String,
    /// Its file.
    pub(crate) file: PathBuf,
    /// When the file was last changed.
    modified: Option<SystemTime>,
    /// What was live.
    pub(crate) live_bytes: u64,
    /// See `live_bytes`.
    pub(crate) live_blocks: u64,
    /// By site, rising.
    held: Vec<(u32, u64, u64)>,
    /// Most frames that tracemalloc kept.
    limit: u64,
    /// Blocks whose stacks it cut.
    cut_blocks: u64,
    /// Blocks of which is not known whether it did.
    perhaps_cut_blocks: u64,
    /// What stood behind the snapshot in the file.
    bytes_behind: usize,
}

/// A stack that a dump names.
#[derive(Debug)]
struct Stack {
    /// Frames of it that are known.
    depth: u64,
    /// Its node, whole and cut.
    nodes: [Option<u32>; 2],
}

/// Reads snapshots, and writes them as one recording.
#[derive(Debug, Default)]
pub(crate) struct Import {
    /// Codes, nodes and sites, in the order in which they got their numbers.
    records: Vec<Record>,
    codes: HashMap<(String, u32), u32>,
    nodes: HashMap<Node, u32>,
    sites: HashMap<(u64, u32), u32>,
    /// Numbers of domains that are neither Python's nor NumPy's, with their bytes.
    foreign: Vec<(u64, u64)>,
    taken: Vec<Taken>,
}

impl Import {
    /// Reads a snapshot's file.
    ///
    /// # Errors
    ///
    /// It is none. The import is to be given up.
    pub(crate) fn read(&mut self, path: &Path) -> Result<(), ImportError> {
        let failed = |source| ImportError {
            path: path.to_owned(),
            source,
        };
        let (bytes, modified) = contents(path).map_err(failed)?;
        let name = self.name(path);
        let mut taken = self.take(&bytes).map_err(failed)?;
        (taken.name, taken.file, taken.modified) = (name, path.to_owned(), modified);
        self.taken.push(taken);
        Ok(())
    }

    /// The snapshots, in their order.
    pub(crate) fn taken(&self) -> &[Taken] {
        &self.taken
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Taken, Why> {
        let dump = Dump::parse(bytes)?;
        let mut held: HashMap<u32, (u64, u64)> = HashMap::new();
        let mut known: HashMap<Id, Stack> = HashMap::new();
        let mut taken = Taken {
            name: String::new(),
            file: PathBuf::new(),
            modified: None,
            live_bytes: 0,
            live_blocks: 0,
            held: Vec::new(),
            limit: dump.limit(),
            cut_blocks: 0,
            perhaps_cut_blocks: 0,
            bytes_behind: dump.bytes_behind(),
        };
        taken.live_blocks = dump.len() as u64;
        for trace in dump.traces() {
            let trace = trace?;
            let stack = known.entry(trace.frames).or_insert_with(|| Stack {
                depth: dump.frames(trace.frames).count() as u64,
                nodes: [None; 2],
            });
            let is_cut = trace.total_frames.is_some_and(|total| total > stack.depth);
            taken.cut_blocks += u64::from(is_cut);
            taken.perhaps_cut_blocks +=
                u64::from(trace.total_frames.is_none() && stack.depth >= dump.limit());
            let node = &mut stack.nodes[usize::from(is_cut)];
            let node = match *node {
                Some(node) => node,
                None => *node.insert(self.node_of(&dump, trace.frames, is_cut)?),
            };
            let site = self.site(trace.domain, node)?;
            let sum = held.entry(site).or_default();
            sum.0 = sum.0.saturating_add(trace.bytes);
            sum.1 += 1;
            taken.live_bytes = taken.live_bytes.saturating_add(trace.bytes);
            if !matches!(trace.domain, 0 | NUMPY) {
                self.count_foreign(trace.domain, trace.bytes);
            }
        }
        taken.held = held
            .into_iter()
            .map(|(site, (bytes, blocks))| (site, bytes, blocks))
            .collect();
        taken.held.sort_unstable();
        Ok(taken)
    }

    /// The node of a stack; its frames come with the most recent first.
    fn node_of(&mut self, dump: &Dump<'_>, frames: Id, is_cut: bool) -> Result<u32, Why> {
        let frames: Vec<_> = dump.frames(frames).collect::<Result<_, _>>()?;
        let mut node = 0;
        if is_cut {
            node = self.node(Node {
                parent: 0,
                frame: Frame::Truncated,
            })?;
        }
        for (at, (file, line)) in frames.iter().rev().enumerate() {
            let code = self.code(file, *line)?;
            node = self.node(Node {
                parent: node,
                frame: Frame::Python {
                    code,
                    offset: 0,
                    entry: at == 0,
                },
            })?;
        }
        Ok(node)
    }

    /// A code object for each line: tracemalloc does not know functions.
    fn code(&mut self, file: &str, line: u32) -> Result<u32, Why> {
        let key = (file.to_owned(), line);
        if let Some(code) = self.codes.get(&key) {
            return Ok(*code);
        }
        let code = number(self.codes.len())?;
        let base = file.rsplit('/').next().unwrap_or(file);
        self.records.push(Record::Code(Code {
            file: file.to_owned(),
            name: if line == 0 {
                base.to_owned()
            } else {
                format!("{base}:{line}")
            },
            first_line: line,
            lines: Vec::new(),
        }));
        self.codes.insert(key, code);
        Ok(code)
    }

    fn node(&mut self, node: Node) -> Result<u32, Why> {
        if let Some(known) = self.nodes.get(&node) {
            return Ok(*known);
        }
        // Node 0 is the empty stack.
        let id = number(self.nodes.len() + 1)?;
        self.records.push(Record::Node(node));
        self.nodes.insert(node, id);
        Ok(id)
    }

    fn site(&mut self, domain: u64, node: u32) -> Result<u32, Why> {
        if let Some(known) = self.sites.get(&(domain, node)) {
            return Ok(*known);
        }
        let id = number(self.sites.len())?;
        self.records.push(Record::Site(Site {
            process: 0,
            node,
            domain: match domain {
                0 => Domain::Python,
                NUMPY => Domain::Numpy,
                _ => Domain::Foreign,
            },
        }));
        self.sites.insert((domain, node), id);
        Ok(id)
    }

    fn count_foreign(&mut self, domain: u64, bytes: u64) {
        if let Some(known) = self.foreign.iter_mut().find(|known| known.0 == domain) {
            known.1 = known.1.saturating_add(bytes);
        } else if self.foreign.len() < MOST_FOREIGN {
            self.foreign.push((domain, bytes));
        }
    }

    /// What to call a snapshot: its file's name without the ending, made different
    /// from those before and from instants that have names.
    fn name(&self, path: &Path) -> String {
        // What has no name, such as `/`, cannot be read either.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut stem: String = stem
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        while stem.len() > LONGEST_NAME - 8 {
            stem.pop();
        }
        let is_instant =
            TAKEN.contains(&stem.as_str()) || stem.starts_with('+') || stem.contains(':');
        if is_instant {
            stem = format!("dump {stem}");
        }
        let is_taken = |name: &str| self.taken.iter().any(|taken| taken.name == name);
        let mut name = stem.clone();
        let mut next = 2;
        while is_taken(&name) {
            name = format!("{stem}-{next}");
            next += 1;
        }
        name
    }

    /// Writes the recording.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn write(self, file: File) -> io::Result<()> {
        let (started_unix_ns, times, are_times_known) = self.times();
        let notes = self.notes(are_times_known);
        let mut writer = Writer::new(file)?;
        let command = ["tracemalloc".into()].into_iter().chain(
            self.taken
                .iter()
                .map(|taken| taken.file.file_name().unwrap_or_default().into()),
        );
        let command: Vec<Vec<u8>> = command
            .map(|word: std::ffi::OsString| word.into_encoded_bytes())
            .collect();
        writer.push(Record::Session(Session {
            started_unix_ns,
            leakline: env!("CARGO_PKG_VERSION").into(),
            command: command.clone(),
            mode: "imported".into(),
            sample_bytes: 0,
            python: true,
            native: false,
            host: String::new(),
            temporary_window: 1,
        }));
        writer.push(Record::Process(Process {
            pid: 0,
            start_ticks: 0,
            parent: None,
            parent_pid: 0,
            at_ns: 0,
            executable: Vec::new(),
            command,
            exec: false,
            python_version: 0,
            inherited_blocks: 0,
            inherited_bytes: 0,
        }));
        for text in notes {
            writer.push(Record::Note(Note { at_ns: 0, text }));
        }
        for record in self.records {
            writer.push(record);
        }
        let mut counters = vec![Counters::default(); self.sites.len()];
        let mut totals = ProcessTotals::default();
        for (taken, &end_ns) in self.taken.iter().zip(&times) {
            let points = moved(&mut counters, &taken.held);
            for point in &points {
                let grown = |value: i64| u64::try_from(value).unwrap_or(0);
                totals.allocations += grown(point.live_blocks);
                totals.frees += grown(-point.live_blocks);
                totals.allocated_bytes = totals
                    .allocated_bytes
                    .saturating_add(grown(point.live_bytes));
            }
            (totals.live_bytes, totals.live_blocks) = (taken.live_bytes, taken.live_blocks);
            totals.peak_bytes = totals.peak_bytes.max(taken.live_bytes);
            writer.push(Record::Bin(Bin {
                end_ns,
                live_bytes: taken.live_bytes,
                live_blocks: taken.live_blocks,
                max_bytes: taken.live_bytes,
                rss: Vec::new(),
                points,
                complete: true,
            }));
            writer.push(Record::Mark(Mark {
                name: taken.name.clone(),
                at_ns: end_ns,
                process: None,
            }));
        }
        let highest = (self.taken.iter().zip(&times)).max_by_key(|(taken, _)| taken.live_bytes);
        if let Some((taken, &at_ns)) = highest {
            writer.push(Record::Peak(Peak {
                process: None,
                at_ns,
                live_bytes: taken.live_bytes,
                live_blocks: taken.live_blocks,
                sites: taken.held.clone(),
            }));
        }
        writer.push(Record::Totals(totals));
        writer.push(Record::End(End {
            at_ns: times.last().copied().unwrap_or(0),
            reason: "imported".into(),
        }));
        writer.flush()
    }

    /// When the session began, when each snapshot was, and whether their files say.
    fn times(&self) -> (u64, Vec<u64>, bool) {
        let told: Option<Vec<u64>> = self
            .taken
            .iter()
            .map(|taken| unix_ns(taken.modified?))
            .collect();
        if let Some(told) = told
            && told.windows(2).all(|two| two[0] < two[1])
            && let Some(&first) = told.first()
        {
            let started = first.saturating_sub(LEAD_NS);
            let times = told.iter().map(|at| at - started).collect();
            return (started, times, true);
        }
        let latest = self
            .taken
            .iter()
            .filter_map(|taken| unix_ns(taken.modified?))
            .max();
        let count = self.taken.len() as u64;
        let times: Vec<u64> = (0..count).map(|at| LEAD_NS + at * APART_NS).collect();
        let last = times.last().copied().unwrap_or(0);
        (latest.unwrap_or(0).saturating_sub(last), times, false)
    }

    /// What a reader has to know.
    fn notes(&self, are_times_known: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let limits = self.taken.iter().map(|taken| taken.limit);
        let (least, most) = (limits.clone().min().unwrap_or(0), limits.max().unwrap_or(0));
        let frames = if least == most {
            counted(most, "frame", "frames")
        } else {
            format!("{least} to {most} frames")
        };
        notes.push(format!(
            "imported from tracemalloc: {}, of at most {frames} a stack. What was allocated \
             and freed between them is not known: total figures are what was seen to grow. \
             Memory that tracemalloc is not told of is missing, most native memory for one",
            counted(self.taken.len() as u64, "snapshot", "snapshots"),
        ));
        notes.push(if are_times_known {
            "each snapshot stands at the time at which its file was last changed".into()
        } else if self.taken.len() == 1 {
            "when the snapshot was taken is not known".into()
        } else {
            "the snapshots stand a second apart in the order in which they were named: the \
             times of their files do not rise"
                .to_owned()
        });
        let all: u64 = self.taken.iter().map(|taken| taken.live_blocks).sum();
        let cut: u64 = self.taken.iter().map(|taken| taken.cut_blocks).sum();
        if cut > 0 {
            notes.push(format!(
                "{} of {} blocks have stacks that tracemalloc cut: `tracemalloc.start(25)` keeps more",
                blocks(cut),
                blocks(all)
            ));
        }
        let perhaps: u64 = self
            .taken
            .iter()
            .map(|taken| taken.perhaps_cut_blocks)
            .sum();
        if perhaps > 0 {
            notes.push(format!(
                "of {} of {} blocks is not known whether their stacks were cut: Python before \
                 3.9 does not write it",
                blocks(perhaps),
                blocks(all)
            ));
        }
        if !self.foreign.is_empty() {
            let told: Vec<String> = self
                .foreign
                .iter()
                .map(|(domain, size)| format!("{domain} ({})", bytes(*size)))
                .collect();
            notes.push(format!(
                "`foreign` are domains of tracemalloc that are neither Python's nor NumPy's: {}",
                told.join(", ")
            ));
        }
        for taken in self.taken.iter().filter(|taken| taken.bytes_behind > 0) {
            notes.push(format!(
                "`{}` goes on for {} behind the snapshot: they were not looked at",
                taken.name,
                bytes(taken.bytes_behind as u64)
            ));
        }
        notes
    }
}

/// What a file holds, and when it was last changed.
fn contents(path: &Path) -> Result<(Vec<u8>, Option<SystemTime>), Why> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Why::Unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mut bytes = Vec::new();
    // One more than there may be: what is longer is refused.
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    let modified = metadata.is_file().then(|| metadata.modified().ok());
    Ok((bytes, modified.flatten()))
}

/// Changes from where sites stand to what a snapshot holds; they stand there then.
fn moved(counters: &mut [Counters], held: &[(u32, u64, u64)]) -> Vec<Point> {
    let mut held = held.iter().peekable();
    let mut points = Vec::new();
    for (site, counters) in (0_u32..).zip(counters) {
        let now = held.next_if(|held| held.0 == site);
        let (bytes, blocks) = now.map_or((0, 0), |held| (held.1, held.2));
        let change = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
        let live_bytes = change(bytes, counters.live_bytes);
        let live_blocks = change(blocks, counters.live_blocks);
        if (live_bytes, live_blocks) != (0, 0) {
            points.push(Point {
                site,
                live_bytes,
                live_blocks,
                total_bytes: live_bytes.max(0),
                total_blocks: live_blocks.max(0),
                temporary_blocks: 0,
                resizes: 0,
            });
        }
        (counters.live_bytes, counters.live_blocks) = (bytes, blocks);
    }
    points
}

fn unix_ns(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn number(count: usize) -> Result<u32, Why> {
    u32::try_from(count).map_err(|_| Why::TooMany)
}

#[cfg(test)]
mod tests;
