//! Where records go: a recording, a second behind.
//!
//! A `Process` record is written before all that names the process, but what
//! it says of the interpreter is learned some milliseconds later. So records
//! wait for the next flush (at most a second, which a killed collector loses
//! anyway), and are mended until then.

use std::io;
use std::path::PathBuf;

use leakline_recording::record::Record;

/// Most records that wait.
const MOST_WAITING: usize = 1 << 18;

/// What takes records, in order.
pub(crate) trait Sink {
    /// Takes a record.
    fn push(&mut self, record: Record);
    /// Has everything so far in the file.
    fn flush(&mut self) -> io::Result<()>;
    /// Bytes in the file.
    fn bytes(&self) -> u64;
    /// Records given up because the file could not be written for long.
    fn dropped(&self) -> u64;
    /// What the recording should say of itself, once.
    fn take_note(&mut self) -> Option<String> {
        None
    }
    /// Where the file is, if it has a name.
    fn path(&self) -> Option<PathBuf> {
        None
    }
}

/// See the module.
pub(crate) struct Output {
    sink: Box<dyn Sink>,
    waiting: Vec<Record>,
    /// Processes handed out so far, waiting ones too.
    processes: u32,
    /// Writing failed at some point: why.
    error: Option<String>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Output {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Self {
        Output {
            sink,
            waiting: Vec::new(),
            processes: 0,
            error: None,
        }
    }

    /// Takes a record.
    pub(crate) fn push(&mut self, record: Record) {
        self.processes += u32::from(matches!(record, Record::Process(_)));
        self.waiting.push(record);
        if self.waiting.len() >= MOST_WAITING {
            self.hand_over();
        }
    }

    /// Takes records, in order.
    pub(crate) fn extend(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.push(record);
        }
    }

    /// Takes all of `records`, in order.
    pub(crate) fn append(&mut self, records: &mut Vec<Record>) {
        self.extend(records.drain(..));
    }

    /// Mends the version of a process's interpreter, if its record waits.
    pub(crate) fn set_python_version(&mut self, process: u32, version: u32) {
        let waiting = self.waiting.iter_mut().filter_map(|record| match record {
            Record::Process(process) => Some(process),
            _ => None,
        });
        let waiting: Vec<_> = waiting.collect();
        let first = self.processes - waiting.len() as u32;
        let place = process.checked_sub(first).map(|at| at as usize);
        if let Some(process) = place.and_then(|at| waiting.into_iter().nth(at)) {
            process.python_version = version;
        }
    }

    fn hand_over(&mut self) {
        for record in self.waiting.drain(..) {
            self.sink.push(record);
        }
    }

    /// Has everything so far in the file. What cannot be written stays for
    /// the next time; the first reason is kept. True when this attempt was
    /// the first to fail.
    pub(crate) fn flush(&mut self) -> bool {
        self.hand_over();
        match self.sink.flush() {
            Ok(()) => false,
            Err(error) => {
                let is_first = self.error.is_none();
                self.error.get_or_insert_with(|| error.to_string());
                is_first
            }
        }
    }

    /// Why writing failed first, if it did.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the recording should say of itself, once.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.sink.take_note()
    }

    /// Where the file is, if it has a name.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.sink.path()
    }

    /// Bytes in the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.sink.bytes()
    }

    /// Records given up.
    pub(crate) fn dropped(&self) -> u64 {
        self.sink.dropped()
    }
}
