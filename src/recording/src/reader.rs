//! Reads a recording, whole or damaged, finished or still being written.
//!
//! # Invariants
//!
//! * Whatever the bytes are, reading ends, does not panic, and allocates for a
//!   chunk no more than the format's limits allow.
//! * Every record handed on names only ids that came before it. Records of a
//!   numbered kind that are lost are replaced by empty ones, so that the n-th
//!   of a kind is always number n.
//! * Bytes before `position` are read or given up; those after it may yet
//!   become a chunk.
//!
//! The file is read, not mapped: a recording that somebody cuts or replaces
//! while it is mapped would end the reading program with SIGBUS, and since all
//! of it has to be unpacked anyway a map saves one copy of the packed bytes.

use crate::chunk::{
    CHUNK_HEADER_BYTES, ChunkHeader, FILE_HEADER_BYTES, FILE_MAGIC, FLAG_DROPPED, FileHeader,
    KIND_RECORDS, KIND_RESTATEMENT, MAJOR, MINOR, Restatement, advance, difference, split_record,
};
use crate::error::OpenError;
use crate::ids::{Ids, kind, placeholder, unknown_session};
use crate::packed::take_points;
use crate::record::{Bin, Counters, Record};
use crate::standing::Standing;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes searched at a time for the next chunk after a damaged place.
const WINDOW_BYTES: usize = 64 << 10;
/// Most bytes that fields take which an earlier minor version does not have, if all are 0.
const MOST_ADDED: usize = 64;

/// Most lost records of numbered kinds that are replaced by empty ones. A gap
/// that claims more is a lie.
const MAX_PLACEHOLDERS: u64 = 4 << 20;

/// What could not be read, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that belong to no readable chunk.
    pub skipped_bytes: u64,
    /// Chunks that are damaged or missing.
    pub skipped_chunks: u64,
    /// Records that are known to be lost: those of damaged chunks whose header
    /// is whole, and those that make no sense.
    pub skipped_records: u64,
    /// Records and chunks of kinds that only a newer leakline knows.
    pub unknown: u64,
    /// Empty records that stand for lost ones of numbered kinds.
    pub placeholders: u64,
    /// Times that the recorder had to drop records for want of space.
    pub dropped: u64,
    /// Bytes after the last whole chunk.
    pub cut_bytes: u64,
    /// The file's header is damaged.
    pub header: bool,
    /// Points are missing and the sites they belong to have not been restated
    /// since: figures by site may be off.
    pub sites_off: bool,
    /// Changes of cohorts are missing, which nothing restates.
    pub cohorts_off: bool,
}

/// Hands a recording's records on, one at a time, in constant memory (but for
/// 52 bytes a site of processes that have not ended).
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was met so far, independent of each other"
)]
pub struct Reader<F = File> {
    source: F,
    path: PathBuf,
    position: u64,
    size: u64,
    next_sequence: u64,
    ids: Ids,
    sites: Standing<Counters>,
    /// Processes of whose sites points may have been lost, since the last
    /// restatement.
    doubtful: BTreeSet<u32>,
    /// Some were over when it came: they stay as they were read.
    stays_off: bool,
    any: bool,
    ended: bool,
    /// Records of cohorts that were read.
    cohorts: u64,
    /// See [`Reader::skim`].
    skims: bool,
    /// By an earlier minor version: its records may lack fields at their ends.
    is_older: bool,
    damage: Damage,
    /// Damage in the bytes after `position`.
    tail: Damage,
}

impl Reader {
    /// Opens a recording, without reading its chunks.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        // Before opening: a named pipe would wait for its writer.
        let metadata = fs::metadata(path).map_err(|error| OpenError::from_io(path, error))?;
        if metadata.is_dir() {
            return Err(OpenError::Directory {
                path: path.to_owned(),
            });
        }
        if !metadata.is_file() {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(|error| OpenError::from_io(path, error))?;
        Self::new(file, path)
    }
}

impl<F: Read + Seek> Reader<F> {
    /// As [`Reader::open`], from any source of bytes; `path` names it in
    /// messages.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn new(source: F, path: &Path) -> Result<Self, OpenError> {
        let mut reader = Reader {
            source,
            path: path.to_owned(),
            position: 0,
            size: 0,
            next_sequence: 0,
            ids: Ids::default(),
            sites: Standing::default(),
            doubtful: BTreeSet::new(),
            stays_off: false,
            any: false,
            ended: false,
            cohorts: 0,
            skims: false,
            is_older: false,
            damage: Damage::default(),
            tail: Damage::default(),
        };
        let mut bytes = [0; FILE_HEADER_BYTES];
        let length = reader
            .read_at(0, &mut bytes)
            .map_err(|error| reader.failed(error))?;
        let path = path.to_owned();
        if length < FILE_HEADER_BYTES {
            // Cut within the header: nothing was recorded yet.
            return Err(
                if FILE_MAGIC.starts_with(&bytes[..length.min(FILE_MAGIC.len())]) {
                    OpenError::Empty { path }
                } else {
                    OpenError::Foreign { path }
                },
            );
        }
        let Some(header) = FileHeader::decode(&bytes) else {
            return Err(OpenError::Foreign { path });
        };
        reader.position = FILE_HEADER_BYTES as u64;
        if header.intact {
            if header.major < MAJOR {
                return Err(OpenError::Older {
                    path,
                    found: header.major,
                    supported: MAJOR,
                });
            }
            if header.major > MAJOR {
                return Err(OpenError::Version {
                    path,
                    found: header.major,
                    supported: MAJOR,
                });
            }
            if header.required != 0 {
                return Err(OpenError::Feature {
                    path,
                    unknown: header.required,
                });
            }
            reader.is_older = header.minor < MINOR;
            reader.position = reader.position.max(header.header_bytes.into());
            reader.size = reader
                .source
                .seek(SeekFrom::End(0))
                .map_err(|error| reader.failed(error))?;
            if reader.size < reader.position {
                return Err(OpenError::Empty { path });
            }
        } else {
            reader.damage.header = true;
        }
        Ok(reader)
    }

    /// Hands on every record that is in the file now and was not handed on
    /// before. To follow a recording that is being written, call it again.
    ///
    /// The first record is always a [`Record::Session`] (an empty one when it
    /// is lost).
    ///
    /// # Errors
    ///
    /// The file cannot be read, or became shorter than what was read of it.
    pub fn read(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), OpenError> {
        self.size = self
            .source
            .seek(SeekFrom::End(0))
            .map_err(|error| self.failed(error))?;
        if self.size < self.position {
            return Err(OpenError::Changed {
                path: self.path.clone(),
            });
        }
        self.tail = Damage::default();
        // Bytes of damaged chunks that were read in vain.
        let mut wasted = 0;
        let mut from = self.position;
        while let Some((at, header)) = self.find(from).map_err(|error| self.failed(error))? {
            let end = at + header.chunk_bytes();
            if end > self.size {
                // Cut short, or not all there yet. A later chunk can only
                // follow where the file was damaged.
                from = at + CHUNK_HEADER_BYTES as u64;
                continue;
            }
            let content = self.load(at, &header).map_err(|error| self.failed(error))?;
            if let Some(content) = content
                && self.fits(&header)
            {
                self.pass_over(at, &header);
                self.position = end;
                from = end;
                self.take(&header, &content, each);
                continue;
            }
            self.tail.skipped_chunks += 1;
            self.tail.skipped_records += u64::from(header.records);
            // The next chunk may begin inside of what this one claims, when
            // bytes are missing. But a file of nothing but such claims would
            // be read over and over.
            wasted += header.chunk_bytes();
            from = if wasted <= 2 * self.size {
                at + CHUNK_HEADER_BYTES as u64
            } else {
                end
            };
        }
        self.tail.cut_bytes = self.size - self.position;
        Ok(())
    }

    /// As [`Reader::read`], for who wants to see soon what a large recording is of: hands
    /// on what concerns all of it (the session, processes, threads, marks, losses, totals,
    /// notes, and bins without their points). A reader either reads or skims.
    ///
    /// # Errors
    ///
    /// As for [`Reader::read`].
    pub fn skim(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), OpenError> {
        self.skims = true;
        self.read(each)
    }

    fn failed(&self, error: io::Error) -> OpenError {
        OpenError::from_io(&self.path, error)
    }

    /// Reads up to `into.len()` bytes from an offset on.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.source.seek(SeekFrom::Start(at))?;
        let mut filled = 0;
        while filled < into.len() {
            match self.source.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// The first whole chunk header at or after `from`.
    fn find(&mut self, from: u64) -> io::Result<Option<(u64, ChunkHeader)>> {
        let mut first = [0; CHUNK_HEADER_BYTES];
        if self.read_at(from, &mut first)? < CHUNK_HEADER_BYTES {
            return Ok(None);
        }
        if let Some(header) = ChunkHeader::decode(&first) {
            return Ok(Some((from, header)));
        }
        let mut window = vec![0; WINDOW_BYTES];
        let mut at = from + 1;
        loop {
            let length = self.read_at(at, &mut window)?;
            if length < CHUNK_HEADER_BYTES {
                return Ok(None);
            }
            for (i, bytes) in window[..length].windows(CHUNK_HEADER_BYTES).enumerate() {
                if let Some(bytes) = bytes.first_chunk()
                    && let Some(header) = ChunkHeader::decode(bytes)
                {
                    return Ok(Some((at + i as u64, header)));
                }
            }
            // The next window begins with the last bytes that were too few.
            at += (length - CHUNK_HEADER_BYTES + 1) as u64;
        }
    }

    /// A chunk's content, `None` when its payload is damaged.
    fn load(&mut self, at: u64, header: &ChunkHeader) -> io::Result<Option<Vec<u8>>> {
        if self.skims && header.kind == KIND_RESTATEMENT {
            return Ok(Some(Vec::new()));
        }
        let mut payload = vec![0; header.payload_bytes as usize];
        let length = self.read_at(at + CHUNK_HEADER_BYTES as u64, &mut payload)?;
        if length < payload.len() || crc32fast::hash(&payload) != header.checksum {
            return Ok(None);
        }
        let content = zstd::bulk::decompress(&payload, header.content_bytes as usize).ok();
        Ok(content.filter(|content| content.len() == header.content_bytes as usize))
    }

    /// The chunk can follow what was read: it is no repetition, and its ids do
    /// not contradict those so far.
    fn fits(&self, header: &ChunkHeader) -> bool {
        let base = header.base;
        header.sequence >= self.next_sequence
            && (base.processes > 0 || (base.threads == 0 && base.sites == 0))
            && self
                .ids
                .missing_until(base)
                .is_some_and(|missing| self.damage.placeholders + missing <= MAX_PLACEHOLDERS)
    }

    /// Counts what lies between the last chunk and this one.
    fn pass_over(&mut self, at: u64, header: &ChunkHeader) {
        self.damage.skipped_bytes += at - self.position;
        self.damage.skipped_records += self.tail.skipped_records;
        let missing = header.sequence - self.next_sequence;
        self.damage.skipped_chunks = self
            .damage
            .skipped_chunks
            .saturating_add(missing.max(self.tail.skipped_chunks));
        self.tail = Damage::default();
        self.next_sequence = header.sequence.saturating_add(1);
        let dropped = header.flags & FLAG_DROPPED != 0;
        self.damage.dropped += u64::from(dropped);
        if dropped || missing > 0 {
            self.doubt(header.base.processes);
        }
        self.damage.cohorts_off |= self.cohorts > 0 && (dropped || missing > 0);
    }

    /// Hands on what a chunk holds.
    fn take(&mut self, header: &ChunkHeader, content: &[u8], each: &mut dyn FnMut(Record)) {
        match header.kind {
            KIND_RECORDS => {
                let mut rest = content;
                let mut count = 0;
                self.fill_up(header.base, each);
                while count < header.records
                    && let Some((bytes, after)) = split_record(rest)
                {
                    rest = after;
                    count += 1;
                    self.take_record(bytes, each);
                }
                self.damage.skipped_records += u64::from(header.records.saturating_sub(count));
            }
            KIND_RESTATEMENT if self.skims => {}
            // Where nothing was lost nothing differs.
            KIND_RESTATEMENT if self.doubtful.is_empty() && !self.damage.sites_off => {}
            KIND_RESTATEMENT => match postcard::from_bytes(content) {
                Ok(restatement) => {
                    self.fill_up(header.base, each);
                    self.restate(&restatement, each);
                }
                Err(_) => self.damage.skipped_chunks += 1,
            },
            _ => self.damage.unknown += 1,
        }
    }

    /// Hands on a record, or an empty one in its place.
    fn take_record(&mut self, bytes: &[u8], each: &mut dyn FnMut(Record)) {
        let of = bytes.first().copied().unwrap_or(u8::MAX);
        if self.skims && !is_of_all(of) {
            self.ids.count(of);
            return;
        }
        let record = match self.decode(bytes, of) {
            Some(record) if self.ids.admit(&record) => Some(record),
            _ if of > kind::LAST => {
                self.damage.unknown += 1;
                None
            }
            _ => {
                self.damage.skipped_records += 1;
                if of == kind::BIN {
                    self.doubt(self.ids.processes);
                }
                self.damage.cohorts_off |= of == kind::COHORTS;
                self.stand_in(of)
            }
        };
        if let Some(record) = record {
            self.hand_on(record, of, each);
        }
    }

    /// A record, where the bytes are one.
    fn decode(&self, bytes: &[u8], of: u8) -> Option<Record> {
        if of == kind::BIN
            && let Some(bin) = take_bin(bytes, self.skims)
        {
            return Some(Record::Bin(bin));
        }
        match postcard::from_bytes(bytes) {
            // What was added at its end since is 0, empty or none.
            Err(postcard::Error::DeserializeUnexpectedEnd) if self.is_older => {
                let mut longer = bytes.to_vec();
                longer.resize(bytes.len() + MOST_ADDED, 0);
                postcard::from_bytes(&longer).ok()
            }
            record => record.ok(),
        }
    }

    /// What takes a lost record's place, if its kind is numbered and there is
    /// a process for it to belong to.
    fn stand_in(&mut self, of: u8) -> Option<Record> {
        let record = placeholder(of).filter(|record| self.ids.admit(record))?;
        self.damage.placeholders += 1;
        Some(record)
    }

    fn hand_on(&mut self, record: Record, of: u8, each: &mut dyn FnMut(Record)) {
        if !self.any && of != kind::SESSION {
            each(unknown_session());
        }
        self.any = true;
        self.ids.count(of);
        match &record {
            _ if self.skims => self.ended |= of == kind::END,
            Record::Process(_) => self.sites.add_process(),
            Record::Site(site) => self.sites.add_site(site.process),
            Record::ProcessEnd(end) => self.sites.ended(end.process),
            Record::Bin(bin) => {
                for point in &bin.points {
                    if let Some(counters) = self.sites.get_mut(point.site) {
                        advance(counters, point);
                    }
                }
                if bin.complete {
                    self.sites.completed();
                    // A restatement may still say where they stood.
                    if self.doubtful.is_empty() {
                        self.sites.give_up();
                    }
                }
            }
            Record::Cohorts(_) => {
                // The first one is of all until then.
                self.damage.cohorts_off |= self.cohorts == 0 && self.damage.has_gaps();
                self.cohorts += 1;
            }
            Record::End(_) => {
                self.ended = true;
                if self.doubtful.is_empty() {
                    self.sites.all_over();
                }
            }
            _ => {}
        }
        each(record);
    }

    /// Hands on empty records until the ids are where the writer's were.
    fn fill_up(&mut self, base: Ids, each: &mut dyn FnMut(Record)) {
        let kinds = [
            kind::PROCESS,
            kind::THREAD,
            kind::MODULE,
            kind::CODE,
            kind::NODE,
            kind::SITE,
        ];
        let counts = self.ids.to_array().into_iter().zip(base.to_array());
        for (of, (have, need)) in kinds.into_iter().zip(counts) {
            for _ in have..need {
                if let Some(record) = self.stand_in(of) {
                    self.hand_on(record, of, each);
                }
            }
        }
    }

    /// Points were lost here, before the process of this id joined.
    fn doubt(&mut self, processes: u32) {
        self.damage.sites_off = true;
        self.doubtful.extend(self.sites.processes());
        self.doubtful.extend(self.ids.processes..processes);
    }

    /// Brings the sites to where the writer's were, by a bin of its own that
    /// ends with the last one.
    fn restate(&mut self, restatement: &Restatement, each: &mut dyn FnMut(Record)) {
        let mut stated = BTreeMap::new();
        for &process in &restatement.processes {
            self.doubtful.remove(&process);
            let sites = self.sites.sites_of(process).iter();
            stated.extend(sites.map(|site| (*site, Counters::default())));
        }
        stated.extend(restatement.sites.iter().copied());
        let points: Vec<_> = stated
            .iter()
            .filter_map(|(site, stated)| Some((site, self.sites.get(*site)?, stated)))
            .filter(|(_, have, stated)| have != stated)
            .map(|(site, have, stated)| difference(*site, have, stated))
            .collect();
        self.stays_off |= !self.doubtful.is_empty();
        self.doubtful.clear();
        self.damage.sites_off = self.stays_off;
        if !points.is_empty() {
            let bin = Bin {
                end_ns: restatement.end_ns,
                live_bytes: restatement.live_bytes,
                live_blocks: restatement.live_blocks,
                max_bytes: restatement.live_bytes,
                rss: Vec::new(),
                points,
                complete: false,
            };
            self.hand_on(Record::Bin(bin), kind::BIN, each);
        }
    }
}

/// A bin, but for its points and what follows them.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct BinHead {
    end_ns: u64,
    live_bytes: u64,
    live_blocks: u64,
    max_bytes: u64,
    rss: Vec<(u32, u64)>,
}

/// A bin's record, where the bytes are one; without its points where it is skimmed.
fn take_bin(bytes: &[u8], skims: bool) -> Option<Bin> {
    let (head, mut rest) = postcard::take_from_bytes::<BinHead>(bytes.get(1..)?).ok()?;
    let points = if skims {
        Vec::new()
    } else {
        take_points(&mut rest)?
    };
    Some(Bin {
        end_ns: head.end_ns,
        live_bytes: head.live_bytes,
        live_blocks: head.live_blocks,
        max_bytes: head.max_bytes,
        rss: head.rss,
        points,
        complete: match rest.first()? {
            _ if skims => false,
            0 => false,
            1 => true,
            _ => return None,
        },
    })
}

/// Whether a record of a kind concerns the whole recording, and is small.
fn is_of_all(of: u8) -> bool {
    matches!(
        of,
        kind::SESSION
            | kind::PROCESS
            | kind::PROCESS_END
            | kind::THREAD
            | kind::BIN
            | kind::TOTALS
            | kind::THREAD_TOTALS
            | kind::LOSS
            | kind::MARK
            | kind::NOTE
            | kind::END
            | kind::SAMPLING
            | kind::HEAP_GRAPH
    )
}

impl<F> Reader<F> {
    /// The last record of a recording that ended well was read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes of the file when it was last read.
    pub fn file_bytes(&self) -> u64 {
        self.size
    }

    /// What could not be read.
    pub fn damage(&self) -> Damage {
        let mut damage = self.damage;
        if self.tail.skipped_chunks > 0 {
            damage.skipped_chunks += self.tail.skipped_chunks;
            damage.skipped_records += self.tail.skipped_records;
            damage.skipped_bytes += self.tail.cut_bytes;
        } else {
            damage.cut_bytes = self.tail.cut_bytes;
        }
        damage
    }
}

impl Damage {
    /// Something of what the writer had is missing.
    fn has_gaps(&self) -> bool {
        self.skipped_chunks > 0 || self.skipped_records > 0 || self.dropped > 0
    }

    /// In words for the user, a sentence a kind; empty when all was read.
    pub fn warnings(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.header {
            words.push("the header of the file is damaged; its version is not known".into());
        }
        if self.skipped_chunks > 0 || self.skipped_bytes > 0 {
            words.push(format!(
                "{} of the file damaged or missing ({} skipped): what happened then is not in the figures",
                count(self.skipped_chunks.max(1), "chunk"),
                count(self.skipped_bytes, "byte"),
            ));
        } else if self.skipped_records > 0 {
            words.push(format!(
                "{} made no sense and left out: figures may be too low",
                count(self.skipped_records, "record"),
            ));
        }
        if self.dropped > 0 {
            words.push(
                "the recorder could not write all (disk full, or a file size limit): what happened then is not in the figures"
                    .into(),
            );
        }
        if self.placeholders > 0 {
            words.push(format!(
                "{} of processes, threads, modules, functions, stacks or sites lost: shown as unknown",
                count(self.placeholders, "name"),
            ));
        }
        if self.sites_off {
            words.push("figures by site may be wrong by what the lost part held".into());
        } else if self.cohorts_off {
            words.push("how many blocks survived may be wrong by what the lost part held".into());
        }
        if self.unknown > 0 {
            words.push(format!(
                "{} left out that only a newer leakline knows",
                count(self.unknown, "record"),
            ));
        }
        if self.cut_bytes > 0 {
            words.push(format!(
                "the last chunk of the file is cut short ({}): what it held is not in the figures",
                count(self.cut_bytes, "byte"),
            ));
        }
        words
    }
}

/// A count and its noun.
fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A recording, read into memory.
///
/// About 150 bytes a record, plus what the record holds; [`Reader`] does
/// without.
#[derive(Debug)]
pub struct Recording<F = File> {
    reader: Reader<F>,
    records: Vec<Record>,
    warnings: Vec<String>,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. Damage is no error: see [`Recording::warnings`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::new(Reader::open(path)?)
    }
}

impl<F: Read + Seek> Recording<F> {
    /// Reads all that `reader` has not read yet.
    ///
    /// # Errors
    ///
    /// As for [`Reader::read`].
    pub fn new(reader: Reader<F>) -> Result<Self, OpenError> {
        let mut recording = Recording {
            reader,
            records: Vec::new(),
            warnings: Vec::new(),
        };
        recording.refresh()?;
        Ok(recording)
    }

    /// Reads what was written since; says how many records that were.
    ///
    /// # Errors
    ///
    /// As for [`Reader::read`].
    pub fn refresh(&mut self) -> Result<usize, OpenError> {
        let before = self.records.len();
        let records = &mut self.records;
        let result = self.reader.read(&mut |record| records.push(record));
        self.warnings = self.reader.damage().warnings();
        result.map(|()| self.records.len() - before)
    }
}

impl<F> Recording<F> {
    /// What it says, in the order it was learned. Starts with a
    /// [`Record::Session`] unless it is empty. A record names only ids that
    /// came before it.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// It ended well: its last record is a [`Record::End`].
    pub fn ended(&self) -> bool {
        self.reader.ended
    }

    /// What could not be read and what that does to the figures, in words.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.reader.size
    }

    /// What read it, for its [`Reader::damage`] in numbers.
    pub fn reader(&self) -> &Reader<F> {
        &self.reader
    }
}
