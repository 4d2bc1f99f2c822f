//! What addresses and lines mean: symbols and source text, looked up in a
//! thread of its own while the target runs, since files may vanish.
//!
//! # Invariants
//!
//! * Files are found inside the target's own root, and read only if they are
//!   regular, of a bounded size, and the target itself could read them.
//! * Source text is taken of source files only (by their names), and only the
//!   lines that frames point to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leakline_recording::record::{Record, Source, SymbolFrame, Symbols};
use leakline_symbols::{ModuleFile, Symbolizer};
use rustc_hash::FxHashSet;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};

/// Largest source file that is read.
const MAX_SOURCE_BYTES: u64 = 8 << 20;
/// Longest piece of a line that is kept.
const MAX_LINE_BYTES: usize = 400;
/// Addresses looked up in one go: what a wait for the thread may cost.
const BATCH: usize = 2_000;

/// Endings of names of source files.
const SOURCES: [&str; 22] = [
    "py", "pyx", "pxd", "pxi", "pyi", "c", "h", "cc", "hh", "cpp", "hpp", "cxx", "hxx", "inc",
    "inl", "tcc", "rs", "go", "f90", "zig", "d", "swift",
];

/// Something to look up.
#[derive(Debug)]
pub(crate) enum Question {
    /// Addresses of a module.
    Addresses {
        /// Its id.
        module: u32,
        /// Its path, as the target has it.
        path: Vec<u8>,
        /// Its build-id.
        build_id: Vec<u8>,
        /// A process that has it loaded.
        pid: u32,
        /// In its own virtual addresses.
        addresses: Vec<u64>,
    },
    /// Lines of source files.
    Lines {
        /// File, as frames have it, and line.
        lines: Vec<(String, u32)>,
        /// A process that runs them.
        pid: u32,
    },
}

/// The thread, seen from outside.
#[derive(Debug)]
pub(crate) struct Resolver {
    questions: Option<Sender<Question>>,
    answers: Receiver<Vec<Record>>,
    thread: Option<JoinHandle<()>>,
    /// Questions without an answer yet.
    open: usize,
}

impl Resolver {
    /// Starts the thread. `sources`: look up lines too. `is_patient`: what else wants
    /// the processor comes first.
    pub(crate) fn start(sources: bool, is_patient: bool) -> std::io::Result<Self> {
        let (questions, inbox) = channel();
        let (outbox, answers) = channel();
        let thread = std::thread::Builder::new()
            .name("symbols".to_owned())
            .spawn(move || {
                if is_patient {
                    // Of this thread only; without it, it works too.
                    let _ = rustix::process::setpriority_process(None, 19);
                }
                let mut worker = Worker {
                    symbolizer: Symbolizer::new(),
                    sources,
                    texts: BTreeMap::new(),
                };
                for question in inbox {
                    if outbox.send(worker.answer(question)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Resolver {
            questions: Some(questions),
            answers,
            thread: Some(thread),
            open: 0,
        })
    }

    /// Asks. Answers come in order.
    pub(crate) fn ask(&mut self, question: Question) {
        let questions = match question {
            Question::Addresses {
                module,
                path,
                build_id,
                pid,
                addresses,
            } if addresses.len() > BATCH => addresses
                .chunks(BATCH)
                .map(|part| Question::Addresses {
                    module,
                    path: path.clone(),
                    build_id: build_id.clone(),
                    pid,
                    addresses: part.to_vec(),
                })
                .collect(),
            other => vec![other],
        };
        for question in questions {
            if let Some(sender) = &self.questions
                && sender.send(question).is_ok()
            {
                self.open += 1;
            }
        }
    }

    /// Records of the answers that are there.
    pub(crate) fn answers(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while let Ok(answer) = self.answers.try_recv() {
            self.open -= 1;
            records.extend(answer);
        }
        records
    }

    /// Whether answers are still to come.
    pub(crate) fn is_at_work(&self) -> bool {
        self.open > 0
    }

    /// Waits for the answers that are still to come, but no longer than
    /// `limit`. The flag tells whether all came.
    pub(crate) fn wait(&mut self, limit: Duration) -> (Vec<Record>, bool) {
        let deadline = Instant::now() + limit;
        let mut records = self.answers();
        while self.open > 0 {
            let rest = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(rest) {
                Ok(answer) => {
                    self.open -= 1;
                    records.extend(answer);
                }
                Err(_) => return (records, false),
            }
        }
        (records, true)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.questions = None;
        if self.open == 0
            && let Some(thread) = self.thread.take()
        {
            // It ends with its inbox; with nothing open, at once.
            let _ = thread.join();
        }
    }
}

struct Worker {
    symbolizer: Symbolizer,
    sources: bool,
    /// Text of source files (none: not to be had) and the lines already told.
    texts: BTreeMap<String, (Option<Vec<String>>, FxHashSet<u32>)>,
}

impl Worker {
    fn answer(&mut self, question: Question) -> Vec<Record> {
        match question {
            Question::Addresses {
                module,
                path,
                build_id,
                pid,
                addresses,
            } => self.symbols(module, &path, &build_id, pid, &addresses),
            Question::Lines { lines, pid } => self.lines(lines, pid),
        }
    }

    fn symbols(
        &mut self,
        module: u32,
        path: &[u8],
        build_id: &[u8],
        pid: u32,
        addresses: &[u64],
    ) -> Vec<Record> {
        let path = Path::new(OsStr::from_bytes(path));
        let inside = inside_root(pid, path);
        let path = if inside.exists() { &inside } else { path };
        let found = self
            .symbolizer
            .symbolize(&ModuleFile { path, build_id }, addresses);
        let mut lines = Vec::new();
        let mut resolved = Vec::with_capacity(addresses.len());
        for (address, frames) in addresses.iter().zip(found.frames) {
            let frames: Vec<SymbolFrame> = frames
                .into_iter()
                .map(|frame| SymbolFrame {
                    function: frame.function,
                    file: frame.file,
                    line: frame.line,
                    inlined: frame.inlined,
                    beyond: frame.beyond,
                })
                .collect();
            lines.extend(
                frames
                    .iter()
                    .filter(|frame| frame.line != 0)
                    .map(|frame| (frame.file.clone(), frame.line)),
            );
            resolved.push((*address, frames));
        }
        let symbols = Symbols {
            module,
            addresses: resolved,
            note: found.note,
        };
        let mut records = vec![Record::Symbols(symbols)];
        records.extend(self.lines(lines, pid));
        records
    }

    fn lines(&mut self, lines: Vec<(String, u32)>, pid: u32) -> Vec<Record> {
        if !self.sources {
            return Vec::new();
        }
        let mut by_file: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (file, line) in lines {
            by_file.entry(file).or_default().push(line);
        }
        let mut records = Vec::new();
        for (file, mut numbers) in by_file {
            numbers.sort_unstable();
            let (text, told) = self
                .texts
                .entry(file.clone())
                .or_insert_with(|| (read_source(pid, &file), FxHashSet::default()));
            let Some(text) = text else { continue };
            let fresh: Vec<(u32, String)> = numbers
                .into_iter()
                .filter(|number| told.insert(*number))
                .filter_map(|number| {
                    let line = text.get((number as usize).checked_sub(1)?)?;
                    Some((number, line.clone()))
                })
                .collect();
            if !fresh.is_empty() {
                records.push(Record::Source(Source { file, lines: fresh }));
            }
        }
        records
    }
}

/// Where a process sees `path`, while it lives.
fn inside_root(pid: u32, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    path.strip_prefix("/")
        .map_or_else(|_| path.to_owned(), |rest| root.join(rest))
}

fn read_source(pid: u32, file: &str) -> Option<Vec<String>> {
    let path = Path::new(file);
    let ending = path.extension()?.to_str()?;
    if !SOURCES.contains(&ending) {
        return None;
    }
    let file = open_inside(pid, path)?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_SOURCE_BYTES || !may_read(pid, &metadata) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes.split(|byte| *byte == b'\n').map(plain_line).collect())
}

/// A line of source as it is kept. Tabs are layout there, not control
/// characters.
fn plain_line(line: &[u8]) -> String {
    let cut = &line[..line.len().min(MAX_LINE_BYTES)];
    String::from_utf8_lossy(cut)
        .trim_end()
        .replace('\t', "    ")
        .replace(char::is_control, "\u{fffd}")
}

/// Opens a file as a process sees it: links, absolute ones too, stay inside
/// its root. Of a process that is gone: as we see it.
fn open_inside(pid: u32, path: &Path) -> Option<File> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // NONBLOCK: opening a FIFO must not hang; it is turned away afterwards.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), directory, Mode::empty());
    let start: Option<OwnedFd> = if path.is_absolute() {
        root.ok()
    } else {
        open(format!("/proc/{pid}/cwd"), directory, Mode::empty()).ok()
    };
    let resolve = if path.is_absolute() {
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
    } else {
        ResolveFlags::NO_MAGICLINKS
    };
    let fd = match &start {
        Some(start) => openat2(start, path, flags, Mode::empty(), resolve),
        None if path.is_absolute() => {
            openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        }
        None => return None,
    };
    fd.ok().map(File::from)
}

/// Whether the target's user could read the file: we may run as root, and
/// must not embed what the target has no right to.
fn may_read(pid: u32, file: &std::fs::Metadata) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let Ok(target) = std::fs::metadata(format!("/proc/{pid}")) else {
        // Gone. Ours to read only if we are no more than a user.
        return own != 0 || file.uid() == 0;
    };
    own == target.uid()
        || target.uid() == 0
        || file.mode() & 0o004 != 0
        || (file.uid() == target.uid() && file.mode() & 0o400 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_source_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let text = |name: &str| {
            let path = folder.path().join(name);
            read_source(own, path.to_str().unwrap())
        };
        std::fs::write(folder.path().join("a.py"), "x = 1\n\ty = 2\n").unwrap();
        std::fs::write(folder.path().join("secret.key"), "s").unwrap();
        symlink(folder.path().join("a.py"), folder.path().join("b.py")).unwrap();
        symlink("/dev/zero", folder.path().join("c.py")).unwrap();
        assert_eq!(text("a.py").unwrap()[..2], ["x = 1", "    y = 2"]);
        assert_eq!(text("b.py"), text("a.py"));
        assert_eq!(text("c.py"), None);
        assert_eq!(text("secret.key"), None);
        assert_eq!(text("gone.py"), None);
    }

    #[test]
    fn lines_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.py");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        let file = path.to_str().unwrap().to_owned();
        let mut resolver = Resolver::start(true, false).unwrap();
        let ask = |resolver: &mut Resolver, lines: &[u32]| {
            let lines = lines.iter().map(|line| (file.clone(), *line)).collect();
            resolver.ask(Question::Lines {
                lines,
                pid: std::process::id(),
            });
            let (records, all) = resolver.wait(Duration::from_secs(10));
            assert!(all);
            records
        };
        let source = |lines: &[(u32, &str)]| {
            let lines = lines
                .iter()
                .map(|(line, text)| (*line, (*text).to_owned()))
                .collect();
            vec![Record::Source(Source {
                file: file.clone(),
                lines,
            })]
        };
        assert_eq!(
            ask(&mut resolver, &[3, 1, 3, 99]),
            source(&[(1, "one"), (3, "three")])
        );
        assert_eq!(ask(&mut resolver, &[1, 2]), source(&[(2, "two")]));
    }
}
