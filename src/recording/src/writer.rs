//! Appends records to a file, a chunk at a time.
//!
//! # Invariants
//!
//! * The file ends at a whole chunk, or at the beginning of one that could not
//!   be finished; the next attempt starts at the same offset.
//! * Records leave in the order they came. Those that could not be written
//!   wait, in bounded memory, for the next [`Writer::flush`]; what the bound
//!   forces out is counted, and the file says that it happened.
//! * Ids count pushed records, whether or not they reach the file.
//!
//! The caller ignores `SIGXFSZ`: a file at its size limit is then an error
//! here like any other. Nothing is synced to disk: the page cache outlives the
//! process, which is what a killed collector needs.

use crate::chunk::{
    CHUNK_HEADER_BYTES, ChunkHeader, FLAG_DROPPED, FileHeader, KIND_RECORDS, KIND_RESTATEMENT,
    MAX_CONTENT_BYTES, MAX_SHARED_BYTES, Restatement, advance, put_length, split_record,
};
use crate::compact::{CompactError, Compacted, Detail, Source, chunk_at};
use crate::ids::{Ids, kind, placeholder};
use crate::record::{Bin, Counters, Record};
use crate::standing::Standing;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Content of a chunk before compression, where there is that much: larger
/// ones hardly compress better and a damaged one loses more.
const CHUNK_BYTES: usize = 1 << 20;

/// Most encoded bytes that wait while the file cannot be written.
const WAITING_BYTES: usize = 32 << 20;

/// What a compaction may leave for each day that was begun, half as much again
/// being what the file grows by until the next. If it leaves more, the next one
/// is coarse.
const LEFT_BYTES_A_DAY: u64 = 64 << 20;
const DAY_NS: u64 = 24 * 3600 * 1_000_000_000;

/// zstd's fastest of its usual ones: the collector shares the machine with the
/// target, and a recording grows with time and sites, not with events.
const LEVEL: i32 = 1;

/// Its fastest looks for repetitions of seven bytes. A site's record has no
/// more than that, and of two processes that do the same differs in one: with
/// five, those of 60 starts of CPython take a quarter.
const SHORT_MATCH: u32 = 5;

/// Compacting is worth it from this many bytes more than the last time left
/// on, or half as many as it left.
const GROWN_BYTES: u64 = 8 << 20;
/// ... or from this many bins on, or twice as many as it left.
const GROWN_BINS: u64 = 1024;

/// For a copy made at leisure: 12 % less than the fastest, for half as much time
/// again (`examples/day`).
const CLOSE_LEVEL: i32 = 3;

/// Points a site must have had on average before all sites are restated, so
/// that restatements stay a small part of a file.
const POINTS_A_RESTATED_SITE: u64 = 16;

/// What a writer had to drop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Records.
    pub records: u64,
    /// Their bytes, encoded but not compressed.
    pub bytes: u64,
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Where the next chunk goes: the length of what is whole.
    end: u64,
    sequence: u64,
    /// Framed records that are not in the file yet.
    waiting: Vec<u8>,
    /// Ids given out by the records before `waiting`.
    base: Ids,
    /// Ids given out in all.
    pushed: Ids,
    dropped: Dropped,
    /// Records were dropped since the last chunk that was written.
    hole: bool,
    sites: Sites,
    error: Option<io::Error>,
    level: i32,
    /// Bins that were pushed and that no compaction merged.
    bins: u64,
    /// Bytes and bins from which compacting is worth it.
    worth: (u64, u64),
    /// Bytes that the last compaction left.
    left: u64,
    /// The next one waits until the file has grown.
    may_wait: bool,
}

/// Where the sites stand, for restatements.
#[derive(Debug, Default)]
struct Sites {
    counters: Standing<Counters>,
    /// Points since the last restatement.
    points: u64,
    /// Points may be missing from the file since the last restatement.
    holes: bool,
    end_ns: u64,
    live_bytes: u64,
    live_blocks: u64,
}

impl Writer {
    /// Begins a recording in `file`, which loses what it held.
    ///
    /// # Errors
    ///
    /// The file cannot be written or does not seek.
    pub fn new(file: File) -> io::Result<Self> {
        // What is no regular file (`/dev/null`) cannot be cut, and need not.
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        let mut writer = Writer {
            file,
            end: 0,
            sequence: 0,
            waiting: Vec::new(),
            base: Ids::default(),
            pushed: Ids::default(),
            dropped: Dropped::default(),
            hole: false,
            sites: Sites::default(),
            error: None,
            level: LEVEL,
            bins: 0,
            worth: (GROWN_BYTES, GROWN_BINS),
            left: 0,
            may_wait: true,
        };
        writer.append(&FileHeader::encode())?;
        Ok(writer)
    }

    /// Takes a record. It reaches the file at the next [`Writer::flush`], or
    /// earlier when many wait.
    ///
    /// A bin's points must rise by site.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a pushed record is given away; callers have no more use for it"
    )]
    pub fn push(&mut self, record: Record) {
        if let Record::Bin(bin) = &record {
            self.sites.follow(bin);
            self.bins += 1;
        }
        let mut encoded = postcard::to_stdvec(&record).unwrap_or_default();
        let of = encoded.first().copied().unwrap_or(u8::MAX);
        if encoded.is_empty() || encoded.len() > MAX_CONTENT_BYTES - 8 {
            self.count_dropped(encoded.len());
            match placeholder(of).map(|record| postcard::to_stdvec(&record)) {
                Some(Ok(placeholder)) => encoded = placeholder,
                _ => return,
            }
        }
        self.push_encoded(&encoded);
    }

    /// Takes a record, no bin, as it lies in a chunk.
    pub(crate) fn push_encoded(&mut self, encoded: &[u8]) {
        self.pushed
            .count(encoded.first().copied().unwrap_or(u8::MAX));
        self.sites.learn(encoded);
        put_length(&mut self.waiting, encoded.len());
        self.waiting.extend_from_slice(encoded);
        if self.error.is_none() && self.waiting.len() >= CHUNK_BYTES {
            // Kept in `self.error`; the next `flush` tries again and tells.
            let _ = self.flush();
        }
        if self.waiting.len() > WAITING_BYTES {
            self.shed();
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    ///
    /// The file could not be written (disk full, size limit). It is whole up
    /// to the last chunk, and what was pushed waits for the next call; see
    /// [`Writer::dropped`] for the bound.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.write_waiting();
        self.error = result.as_ref().err().map(copy);
        result
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Why the last attempt to write failed; `None` once one went well.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// What had to be dropped because the file could not be written for long.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Packs better, and takes longer.
    pub(crate) fn pack_closely(&mut self) {
        self.level = CLOSE_LEVEL;
    }

    /// Ids given out so far.
    pub(crate) fn pushed(&self) -> Ids {
        self.pushed
    }

    /// Why the last attempt to write failed, if it did.
    pub(crate) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Goes on after a hole: at these ids, if they are not earlier ones.
    pub(crate) fn skip_to(&mut self, base: Ids) -> io::Result<()> {
        self.flush()?;
        if self.pushed.missing_until(base).is_some() {
            self.base = base;
            self.pushed = base;
            self.sites.counters.skip_to(base.processes, base.sites);
        }
        self.hole = true;
        self.sites.holes = true;
        Ok(())
    }

    /// How to compact the file, when it has grown enough for it.
    pub fn compaction_due(&self) -> Option<Detail> {
        if self.left_much() && (self.end >= self.worth.0 || !self.may_wait) {
            Some(Detail::Coarse)
        } else if self.end >= self.worth.0 {
            Some(Detail::Thinned)
        } else {
            (self.bins >= self.worth.1).then_some(Detail::Full)
        }
    }

    fn left_much(&self) -> bool {
        let days = self.sites.end_ns / DAY_NS + 1;
        self.left > LEFT_BYTES_A_DAY.saturating_mul(days)
    }

    /// Has the next compaction due when the file has grown as much again.
    pub fn postpone_compaction(&mut self) {
        self.may_wait = true;
        self.worth = (
            self.end + (self.end / 2).max(GROWN_BYTES),
            (self.bins * 2).max(GROWN_BINS),
        );
    }

    /// What is in the file now, to be compacted while this goes on.
    ///
    /// # Errors
    ///
    /// The system gives no further descriptor.
    pub fn source(&self) -> io::Result<Source> {
        Ok(Source {
            file: self.file.try_clone()?,
            end: self.end,
        })
    }

    /// Goes on in a compacted copy of what was in this file before: copies
    /// what came since, has `install` put the copy in the file's place, and
    /// takes it.
    ///
    /// # Errors
    ///
    /// The copy cannot be completed or installed; this goes on in its file.
    pub fn adopt(
        &mut self,
        copy: Compacted,
        install: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), CompactError> {
        let Compacted {
            writer: mut new,
            end,
            source_bins,
            detail,
        } = copy;
        let mut at = end;
        let mut base = new.base;
        while at < self.end {
            let (header, payload) = chunk_at(&self.file, at)?;
            // Ids may skip what was dropped, and never go back.
            if base.missing_until(header.base).is_none() {
                return Err(CompactError::Damaged);
            }
            at += header.chunk_bytes();
            base = header.base;
            let header = ChunkHeader {
                sequence: new.sequence,
                ..header
            };
            new.append(&[&header.encode()[..], &payload].concat())
                .map_err(CompactError::Write)?;
            new.sequence += 1;
        }
        if base.missing_until(self.base).is_none() {
            return Err(CompactError::Damaged);
        }
        install().map_err(CompactError::Write)?;
        self.file = new.file;
        self.end = new.end;
        self.sequence = new.sequence;
        self.bins = self.bins.saturating_sub(source_bins) + new.bins;
        self.left = self.end;
        self.postpone_compaction();
        self.may_wait = detail == Detail::Coarse || !self.left_much();
        Ok(())
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let mut after = self.base;
            let mut records = 0;
            let mut taken = 0;
            while taken < CHUNK_BYTES
                && let Some((record, rest)) = split_record(&self.waiting[taken..])
            {
                let next = self.waiting.len() - rest.len();
                if records > 0 && next > MAX_SHARED_BYTES {
                    break;
                }
                after.count(record.first().copied().unwrap_or(u8::MAX));
                records += 1;
                taken = next;
            }
            let waiting = std::mem::take(&mut self.waiting);
            let result = self.write_chunk(KIND_RECORDS, &waiting[..taken], records);
            self.waiting = waiting;
            result?;
            self.base = after;
            self.waiting.drain(..taken);
        }
        if !self.sites.holes {
            self.sites.counters.give_up();
        }
        if self.sites.restatement_due() {
            let restatement = self.sites.restate();
            let content = postcard::to_stdvec(&restatement).map_err(io::Error::other)?;
            if content.len() <= MAX_CONTENT_BYTES {
                self.write_chunk(KIND_RESTATEMENT, &content, 0)?;
            }
            self.sites.restated();
        }
        // Where something was lost, that has said where they stood.
        self.sites.counters.give_up();
        Ok(())
    }

    /// Compresses and appends a chunk.
    fn write_chunk(&mut self, kind: u8, content: &[u8], records: u32) -> io::Result<()> {
        let mut compressor = zstd::bulk::Compressor::new(self.level)?;
        if self.level == LEVEL {
            compressor.set_parameter(zstd::zstd_safe::CParameter::MinMatch(SHORT_MATCH))?;
        }
        let payload = compressor.compress(content)?;
        let header = ChunkHeader {
            kind,
            flags: if self.hole { FLAG_DROPPED } else { 0 },
            payload_bytes: payload.len() as u32,
            content_bytes: content.len() as u32,
            checksum: crc32fast::hash(&payload),
            sequence: self.sequence,
            records,
            base: self.base,
        };
        let mut bytes = Vec::with_capacity(CHUNK_HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&payload);
        self.append(&bytes)?;
        self.sequence += 1;
        self.hole = false;
        Ok(())
    }

    /// Appends bytes, all or (as far as the system lets us) none.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // One write for a whole chunk; more only after a short one.
        let result = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(bytes));
        match result {
            Ok(()) => self.end += bytes.len() as u64,
            // A piece that cannot be cut off is overwritten by the next chunk,
            // and readers skip it until then.
            Err(_) => drop(self.file.set_len(self.end)),
        }
        result
    }

    /// Makes room: drops what later records replace or what is only a moment
    /// in time, and everything when that is not enough.
    fn shed(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.as_slice();
        let mut kept = Vec::new();
        while let Some((record, after)) = split_record(rest) {
            let framed = &rest[..rest.len() - after.len()];
            rest = after;
            let needed = matches!(
                record.first(),
                Some(
                    &(kind::SESSION
                        | kind::PROCESS
                        | kind::PROCESS_END
                        | kind::THREAD
                        | kind::MODULE
                        | kind::CODE
                        | kind::NODE
                        | kind::SITE
                        | kind::SYMBOLS
                        | kind::END)
                )
            );
            if needed {
                kept.extend_from_slice(framed);
            } else {
                self.count_dropped(record.len());
            }
        }
        if kept.len() > WAITING_BYTES / 2 {
            let mut rest = kept.as_slice();
            while let Some((record, after)) = split_record(rest) {
                rest = after;
                self.count_dropped(record.len());
            }
            kept = Vec::new();
            self.base = self.pushed;
        }
        self.waiting = kept;
    }

    fn count_dropped(&mut self, bytes: usize) {
        self.dropped.records += 1;
        self.dropped.bytes += bytes as u64;
        self.hole = true;
        self.sites.holes = true;
    }
}

impl Sites {
    /// Takes note of what there is: processes and sites come, processes end.
    fn learn(&mut self, encoded: &[u8]) {
        let Some((&of, fields)) = encoded.split_first() else {
            return;
        };
        // The first field of both.
        let process = || postcard::take_from_bytes(fields).map_or(u32::MAX, |(process, _)| process);
        match of {
            kind::PROCESS => self.counters.add_process(),
            kind::SITE => self.counters.add_site(process()),
            kind::PROCESS_END => self.counters.ended(process()),
            _ => {}
        }
    }

    /// Takes note of a bin; points at sites that do not exist are not ours to
    /// judge.
    fn follow(&mut self, bin: &Bin) {
        for point in &bin.points {
            if let Some(counters) = self.counters.get_mut(point.site) {
                advance(counters, point);
            }
        }
        if bin.complete {
            self.counters.completed();
        }
        self.points += bin.points.len() as u64;
        self.end_ns = bin.end_ns;
        self.live_bytes = bin.live_bytes;
        self.live_blocks = bin.live_blocks;
    }

    fn restatement_due(&self) -> bool {
        self.holes
            || (self.points > 0
                && self.points >= POINTS_A_RESTATED_SITE * self.counters.open() as u64)
    }

    fn restate(&self) -> Restatement {
        Restatement {
            end_ns: self.end_ns,
            live_bytes: self.live_bytes,
            live_blocks: self.live_blocks,
            processes: self.counters.processes().collect(),
            sites: (self.counters.iter())
                .filter(|(_, counters)| **counters != Counters::default())
                .map(|(site, counters)| (site, *counters))
                .collect(),
        }
    }

    fn restated(&mut self) {
        self.points = 0;
        self.holes = false;
    }
}

/// The same error once more, for whoever asks later.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Point, ProcessEnd};
    use crate::{Recording, compact};

    /// Who reads or compacts it must not forget the process before it was told
    /// where its sites stood.
    #[test]
    fn what_was_dropped_of_a_process_that_ended_since_is_restated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
        let moved = |end_ns, live_bytes| Bin {
            end_ns,
            points: vec![Point {
                site: 0,
                live_bytes,
                live_blocks: 0,
                total_bytes: 0,
                total_blocks: 0,
                temporary_blocks: 0,
                resizes: 0,
            }],
            complete: true,
            ..Bin::default()
        };
        writer.push(placeholder(kind::PROCESS).unwrap());
        writer.push(placeholder(kind::SITE).unwrap());
        writer.push(Record::Bin(moved(1, 100)));
        writer.flush().unwrap();
        // A bin that had to go.
        writer.sites.follow(&moved(2, 50));
        writer.count_dropped(10);
        writer.push(Record::ProcessEnd(ProcessEnd {
            process: 0,
            at_ns: 3,
            exit_status: None,
            signal: None,
            exec: false,
        }));
        writer.push(Record::Bin(moved(3, -20)));
        writer.flush().unwrap();
        assert_eq!(writer.sites.counters.open(), 0);

        let copy = tempfile::NamedTempFile::new().unwrap();
        let source = writer.source().unwrap();
        compact(&source, copy.reopen().unwrap(), Detail::Full, &|| true).unwrap();
        for path in [file.path(), copy.path()] {
            let recording = Recording::open(path).unwrap();
            let points = recording.records().iter().flat_map(|record| match record {
                Record::Bin(bin) => &bin.points[..],
                _ => &[],
            });
            assert_eq!(points.map(|point| point.live_bytes).sum::<i64>(), 130);
            assert!(!recording.reader().damage().sites_off);
            assert_eq!(recording.reader().damage().dropped, 1);
        }
    }

    #[test]
    fn what_leaves_too_much_is_followed_by_something_coarser() {
        let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(writer.compaction_due(), None);
        writer.bins = GROWN_BINS;
        assert_eq!(writer.compaction_due(), Some(Detail::Full));
        writer.end = GROWN_BYTES;
        assert_eq!(writer.compaction_due(), Some(Detail::Thinned));
        writer.postpone_compaction();
        assert_eq!(writer.compaction_due(), None);

        let mut left = |bytes, detail| {
            let copy = Compacted {
                writer: Writer {
                    end: bytes,
                    ..Writer::new(tempfile::tempfile().unwrap()).unwrap()
                },
                end: writer.end,
                source_bins: 0,
                detail,
            };
            writer.adopt(copy, || Ok(())).unwrap();
            let now = writer.compaction_due();
            writer.end += writer.end / 2;
            let later = writer.compaction_due();
            writer.postpone_compaction();
            assert_eq!(writer.compaction_due(), None, "a failure is not repeated");
            (now, later)
        };
        let (thinned, coarse) = (Some(Detail::Thinned), Some(Detail::Coarse));
        let limit = LEFT_BYTES_A_DAY;
        assert_eq!(left(limit, Detail::Thinned), (None, thinned));
        assert_eq!(left(limit + 1, Detail::Thinned), (coarse, coarse));
        assert_eq!(left(limit + 1, Detail::Coarse), (None, coarse));
        assert_eq!(left(limit, Detail::Coarse), (None, thinned));
        // On the next day there may be as much again.
        writer.left = limit + 1;
        writer.sites.end_ns = DAY_NS;
        writer.end = writer.worth.0;
        assert_eq!(writer.compaction_due(), thinned);
    }
}
