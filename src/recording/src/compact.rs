//! Makes a shorter copy of a recording: the older, the coarser.
//!
//! Bins are merged into cells that grow with their age, and of what only the
//! last counts only the last is kept. All else is copied, in its order, so ids
//! stay what they are.
//!
//! # Invariants
//!
//! * At the end of every bin that is left, points add up to what they did
//!   before; where bins are *thinned* (see [`Detail`]), up to the error that
//!   the format allows a bin that is not complete.
//! * A bin that ends at a mark, the one that holds the session's peak, the
//!   last one, and those around records that the writer dropped are left as
//!   boundaries, with every change until then.
//! * Cohorts are told at marks, at the end, and at 64 instants in between at
//!   most (16 where coarse); the bin that ends there tells everything.
//! * Of looks at processes' memory those without a name are fewer with age, too.
//! * Cells of one width divide into those of a smaller: bins that were merged
//!   are only ever merged with their neighbours. To compact twice at the same
//!   age changes nothing.
//! * In memory are one chunk, about 160 bytes a site of processes that have not
//!   ended, and the position of each record that replaces others: never the
//!   recording.
//! * Only a file that is whole and holds nothing unknown is compacted. The
//!   source is read at offsets, so that its writer may go on appending.

use crate::chunk::{
    CHUNK_HEADER_BYTES, ChunkHeader, FILE_HEADER_BYTES, FLAG_DROPPED, KIND_RECORDS,
    KIND_RESTATEMENT, Restatement, advance, difference, split_record,
};
use crate::cohorts::{INSTANTS, Sum, in_pieces, instants_every};
use crate::ids::kind;
use crate::record::{Bin, Cohorts, Counters, Mark, Packed, Record};
use crate::standing::Standing;
use crate::writer::Writer;
use looks::Looks;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

mod looks;

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;

/// Widths of cells. Each divides into the next.
const WIDTHS_NS: [u64; 4] = [SECOND_NS, 10 * SECOND_NS, MINUTE_NS, 10 * MINUTE_NS];
/// Ages up to which a cell has the width at the same place; the last has no
/// limit.
const AGES_NS: [u64; 3] = [10 * MINUTE_NS, 120 * MINUTE_NS, 24 * 60 * MINUTE_NS];
/// The same for [`Detail::Coarse`].
const COARSE_AGES_NS: [u64; 3] = [MINUTE_NS, 10 * MINUTE_NS, 120 * MINUTE_NS];

/// Narrower cells than a second are at most this many: a short run has, with a
/// boundary each second, at most 512 bins.
const SHORT_RUN_CELLS: u64 = 320;

/// A site's move is worth a point from this many bytes on, or from 1 % of what
/// it held at its last one.
const MOVED_BYTES: u64 = 64 << 10;

/// Cohorts are told at no more instants than this for [`Detail::Coarse`], but for
/// marks.
const COARSE_COHORT_INSTANTS: u64 = 16;

/// How closely bins tell what their sites did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every site that changed has its point in every bin.
    Full,
    /// Bins are complete at the boundaries of the next coarser cells only. In
    /// between, a site that moved by no more than max(64 KiB, 1 %) waits for
    /// one: what many sites cost grows with these boundaries.
    Thinned,
    /// Thinned, and cells widen earlier: for so many sites that move by more
    /// all the time that nothing else keeps the file small.
    Coarse,
}

/// Why there is no compacted copy. The source is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// It was told to stop.
    #[error("it was interrupted")]
    Cancelled,
    /// The source is damaged, or holds what this version does not know.
    #[error("the file is damaged")]
    Damaged,
    /// A record would be larger than the format allows.
    #[error("there are more sites than fit into one record")]
    TooLarge,
    /// The source cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// The copy cannot be written.
    #[error("{0}")]
    Write(io::Error),
}

/// The part of a recording that was in its file at some instant.
#[derive(Debug)]
pub struct Source {
    pub(crate) file: File,
    /// Its end: that of a whole chunk.
    pub(crate) end: u64,
}

/// A compacted copy of a recording's first part, for [`Writer::adopt`].
#[derive(Debug)]
pub struct Compacted {
    pub(crate) writer: Writer,
    /// The source's bytes that it stands for.
    pub(crate) end: u64,
    /// The source's bins.
    pub(crate) source_bins: u64,
    pub(crate) detail: Detail,
}

impl Compacted {
    /// Bytes of the copy.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes()
    }
}

/// Writes a compacted copy of `source` into `file`, which loses what it held.
/// Ages count from the end of the source's last bin.
///
/// Reads the source twice; asks `goes_on` before each chunk.
///
/// # Errors
///
/// See [`CompactError`].
pub fn compact(
    source: &Source,
    file: File,
    detail: Detail,
    goes_on: &dyn Fn() -> bool,
) -> Result<Compacted, CompactError> {
    let mut survey = Survey::default();
    let mut chunks = Chunks::new(source, goes_on);
    while let Some((header, content)) = chunks.next()? {
        if header.kind == KIND_RECORDS {
            for_each_record(&header, &content, |record| survey.take(record))?;
        }
    }
    survey.choose_cohort_instants(detail);
    survey.looks.choose(survey.now_ns, detail);
    survey.pins.extend(survey.peak_ns);
    survey.pins.sort_unstable();
    let mut writer = Writer::new(file).map_err(CompactError::Write)?;
    writer.pack_closely();
    let mut copy = Copy {
        bins: Merge::new(&survey, detail),
        cohorts: CohortMerge::default(),
        survey: &survey,
        writer,
        position: 0,
    };
    let mut chunks = Chunks::new(source, goes_on);
    while let Some((header, content)) = chunks.next()? {
        copy.take_chunk(&header, &content)?;
    }
    copy.bins.finish(&mut copy.writer);
    let mut writer = copy.writer;
    writer.flush().map_err(CompactError::Write)?;
    if writer.dropped().records > 0 {
        return Err(CompactError::TooLarge);
    }
    Ok(Compacted {
        writer,
        end: source.end,
        source_bins: survey.bins,
        detail,
    })
}

/// The chunks of a source, in order.
struct Chunks<'a> {
    source: &'a Source,
    goes_on: &'a dyn Fn() -> bool,
    at: u64,
    sequence: u64,
}

impl<'a> Chunks<'a> {
    fn new(source: &'a Source, goes_on: &'a dyn Fn() -> bool) -> Self {
        Chunks {
            source,
            goes_on,
            at: FILE_HEADER_BYTES as u64,
            sequence: 0,
        }
    }

    fn next(&mut self) -> Result<Option<(ChunkHeader, Vec<u8>)>, CompactError> {
        if !(self.goes_on)() {
            return Err(CompactError::Cancelled);
        }
        if self.at >= self.source.end {
            return Ok(None);
        }
        let (header, payload) = chunk_at(&self.source.file, self.at)?;
        let content = zstd::bulk::decompress(&payload, header.content_bytes as usize)
            .ok()
            .filter(|content| content.len() == header.content_bytes as usize)
            .ok_or(CompactError::Damaged)?;
        if header.sequence != self.sequence {
            return Err(CompactError::Damaged);
        }
        self.sequence += 1;
        self.at += header.chunk_bytes();
        Ok(Some((header, content)))
    }
}

/// Reads the chunk at an offset, packed.
pub(crate) fn chunk_at(file: &File, at: u64) -> Result<(ChunkHeader, Vec<u8>), CompactError> {
    let read = |bytes: &mut [u8], at| file.read_exact_at(bytes, at).map_err(CompactError::Read);
    let mut bytes = [0; CHUNK_HEADER_BYTES];
    read(&mut bytes, at)?;
    let header = ChunkHeader::decode(&bytes).ok_or(CompactError::Damaged)?;
    let mut payload = vec![0; header.payload_bytes as usize];
    read(&mut payload, at + CHUNK_HEADER_BYTES as u64)?;
    if crc32fast::hash(&payload) != header.checksum {
        return Err(CompactError::Damaged);
    }
    Ok((header, payload))
}

fn for_each_record(
    header: &ChunkHeader,
    content: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), CompactError>,
) -> Result<(), CompactError> {
    let mut rest = content;
    for _ in 0..header.records {
        let (record, after) = split_record(rest).ok_or(CompactError::Damaged)?;
        each(record)?;
        rest = after;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(CompactError::Damaged)
    }
}

/// The beginning of a record's fields, without the rest.
fn fields<'a, T: serde::Deserialize<'a>>(record: &'a [u8]) -> Result<T, CompactError> {
    record
        .get(1..)
        .and_then(|bytes| postcard::take_from_bytes(bytes).ok())
        .map(|(fields, _)| fields)
        .ok_or(CompactError::Damaged)
}

/// For a record that a later one replaces: what they have in common.
fn replaced_by(record: &[u8]) -> Result<Option<(u8, Option<u32>)>, CompactError> {
    let of = record.first().copied().unwrap_or(u8::MAX);
    Ok(match of {
        kind::SIZES => Some((of, None)),
        kind::PEAK => Some((of, fields(record)?)),
        kind::TOTALS | kind::THREAD_TOTALS | kind::INHERITED | kind::LIMITS => {
            Some((of, Some(fields(record)?)))
        }
        _ => None,
    })
}

/// What has to be known of the whole before the first record is copied.
#[derive(Debug, Default)]
struct Survey {
    /// Records so far.
    records: u64,
    /// Positions of the records that none replaces, of those kinds.
    last: BTreeMap<(u8, Option<u32>), u64>,
    /// Instants that stay boundaries.
    pins: Vec<u64>,
    /// The session's high-water mark.
    peak_ns: Option<u64>,
    /// Records of cohorts: when, and whether a boundary.
    cohorts: Vec<(u64, bool)>,
    /// Those of the instants at which they are told, rising.
    cohort_instants: Vec<u64>,
    looks: Looks,
    /// When the last bin ends.
    now_ns: u64,
    bins: u64,
}

impl Survey {
    fn take(&mut self, record: &[u8]) -> Result<(), CompactError> {
        let position = self.records;
        self.records += 1;
        if let Some(key) = replaced_by(record)? {
            self.last.insert(key, position);
        }
        match record.first().copied().unwrap_or(u8::MAX) {
            kind::BIN => {
                self.bins += 1;
                self.now_ns = self.now_ns.max(fields(record)?);
            }
            kind::MARK => {
                let mark: Mark = fields(record)?;
                self.pins.push(mark.at_ns);
            }
            kind::PEAK => {
                if let (None, at_ns) = fields::<(Option<u32>, u64)>(record)? {
                    self.peak_ns = Some(at_ns);
                }
            }
            kind::COHORTS => {
                let (at_ns, _, is_boundary) = fields::<(u64, u32, bool)>(record)?;
                self.cohorts.push((at_ns, is_boundary));
            }
            kind::LEDGER | kind::PAGE_COST => self.looks.take(record, position)?,
            of if of > kind::LAST => return Err(CompactError::Damaged),
            _ => {}
        }
        Ok(())
    }

    /// Chooses, among the instants at which cohorts are told, the boundaries,
    /// the last, and those that hold a multiple of a width which there are
    /// enough of.
    fn choose_cohort_instants(&mut self, detail: Detail) {
        let most = match detail {
            Detail::Full | Detail::Thinned => INSTANTS,
            Detail::Coarse => COARSE_COHORT_INSTANTS,
        };
        let Some((last_ns, _)) = self.cohorts.last().copied() else {
            return;
        };
        let width_ns = instants_every(last_ns, most);
        let mut before_ns = 0;
        for &(at_ns, is_boundary) in &self.cohorts {
            let holds_multiple = at_ns / width_ns > before_ns / width_ns;
            // Of one instant there may be several records: all or none.
            let is_chosen = self.cohort_instants.last() == Some(&at_ns);
            if (is_boundary || holds_multiple || at_ns == last_ns) && !is_chosen {
                self.cohort_instants.push(at_ns);
            }
            before_ns = before_ns.max(at_ns);
        }
        self.cohort_instants.sort_unstable();
        self.cohort_instants.dedup();
        self.pins.extend(&self.cohort_instants);
    }
}

/// The second reading.
struct Copy<'a> {
    survey: &'a Survey,
    bins: Merge<'a>,
    cohorts: CohortMerge,
    writer: Writer,
    position: u64,
}

impl Copy<'_> {
    fn take_chunk(&mut self, header: &ChunkHeader, content: &[u8]) -> Result<(), CompactError> {
        if header.flags & FLAG_DROPPED != 0 {
            self.bins.finish(&mut self.writer);
            self.writer
                .skip_to(header.base)
                .map_err(CompactError::Write)?;
            let base = header.base;
            self.bins.sites.skip_to(base.processes, base.sites);
            self.bins.has_hole = true;
        }
        if self.writer.pushed() != header.base {
            return Err(CompactError::Damaged);
        }
        match header.kind {
            KIND_RECORDS => for_each_record(header, content, |record| self.take(record))?,
            KIND_RESTATEMENT => {
                let restatement =
                    postcard::from_bytes(content).map_err(|_| CompactError::Damaged)?;
                self.bins.restate(&restatement);
            }
            _ => return Err(CompactError::Damaged),
        }
        match self.writer.take_error() {
            Some(error) => Err(CompactError::Write(error)),
            None => Ok(()),
        }
    }

    fn take(&mut self, record: &[u8]) -> Result<(), CompactError> {
        let position = self.position;
        self.position += 1;
        match record.first().copied().unwrap_or(u8::MAX) {
            kind::BIN => {
                let record = postcard::from_bytes(record).map_err(|_| CompactError::Damaged)?;
                match record {
                    Record::Bin(bin) if self.writer.pushed().admit_bin(&bin) => {
                        return self.bins.take(bin, &mut self.writer);
                    }
                    _ => return Err(CompactError::Damaged),
                }
            }
            kind::COHORTS => {
                let record = postcard::from_bytes(record).map_err(|_| CompactError::Damaged)?;
                match record {
                    Record::Cohorts(cohorts) if self.writer.pushed().admit_cohorts(&cohorts) => {
                        let instants = &self.survey.cohort_instants;
                        self.cohorts.take(cohorts, instants, &mut self.writer);
                        return Ok(());
                    }
                    _ => return Err(CompactError::Damaged),
                }
            }
            // It is the last record, whatever waits.
            kind::END => self.bins.finish(&mut self.writer),
            kind::PROCESS => self.bins.sites.add_process(),
            kind::SITE => self.bins.sites.add_site(fields(record)?),
            kind::PROCESS_END => self.bins.sites.ended(fields(record)?),
            _ => {}
        }
        let replaced = replaced_by(record)?.and_then(|key| self.survey.last.get(&key));
        let is_left_out = self.survey.looks.leaves_out(position);
        if !is_left_out && replaced.is_none_or(|last| *last == position) {
            self.writer.push_encoded(record);
        }
        Ok(())
    }
}

/// The bin that is being put together, and what its sites have yet to tell.
struct Merge<'a> {
    pins: &'a [u64],
    now_ns: u64,
    detail: Detail,
    /// Width of the newest cells.
    narrowest_ns: u64,
    sites: Standing<SiteState>,
    /// Records were dropped, and what they said was not restated yet.
    has_hole: bool,
    /// Sites that changed since their last point.
    moved: Vec<u32>,
    open: Option<Bin>,
    /// The bin that was taken last is the last of its cell...
    is_boundary: bool,
    /// ... and tells everything.
    tells_all: bool,
    /// Where the last bin that was taken ended.
    end_ns: u64,
    /// Bins that are still to come.
    bins_left: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct SiteState {
    /// Where it stands.
    now: Counters,
    /// Where it stood at its last point.
    pointed: Counters,
    is_listed: bool,
}

impl<'a> Merge<'a> {
    fn new(survey: &'a Survey, detail: Detail) -> Self {
        Merge {
            pins: &survey.pins,
            now_ns: survey.now_ns,
            detail,
            narrowest_ns: narrowest(survey.now_ns),
            sites: Standing::default(),
            has_hole: false,
            moved: Vec::new(),
            open: None,
            // The start.
            is_boundary: true,
            tells_all: true,
            end_ns: 0,
            bins_left: survey.bins,
        }
    }

    fn take(&mut self, bin: Bin, writer: &mut Writer) -> Result<(), CompactError> {
        self.decide(bin.end_ns);
        for point in &bin.points {
            // Of a process that is over none may follow.
            let state = self.sites.get_mut(point.site);
            let state = state.ok_or(CompactError::Damaged)?;
            advance(&mut state.now, point);
            if !std::mem::replace(&mut state.is_listed, true) {
                self.moved.push(point.site);
            }
        }
        self.end_ns = self.end_ns.max(bin.end_ns);
        let complete = bin.complete;
        match &mut self.open {
            None => {
                self.open = Some(Bin {
                    points: Vec::new(),
                    ..bin
                });
            }
            Some(open) => {
                open.end_ns = self.end_ns;
                open.live_bytes = bin.live_bytes;
                open.live_blocks = bin.live_blocks;
                open.max_bytes = open.max_bytes.max(bin.max_bytes);
                open.complete = bin.complete;
                if !bin.rss.is_empty() {
                    open.rss = bin.rss;
                }
            }
        }
        if complete {
            self.sites.completed();
        }
        if self.is_boundary {
            self.close(writer);
        }
        Ok(())
    }

    /// Whether a bin, from the end of the one before to `end_ns`, is the last
    /// of its cell.
    fn decide(&mut self, end_ns: u64) {
        self.bins_left = self.bins_left.saturating_sub(1);
        if self.bins_left == 0 {
            (self.is_boundary, self.tells_all) = (true, true);
            return;
        }
        if self.open.is_none() && end_ns <= self.end_ns {
            // The last bin was, and this one belongs to the same instant.
            return;
        }
        let holds_multiple = |of: u64| end_ns / of > self.end_ns / of;
        // A mark's own bin ends with it; the peak lies somewhere within one.
        let first = self.pins.partition_point(|pin| *pin <= self.end_ns);
        let is_pinned = self.pins.get(first).is_some_and(|pin| *pin <= end_ns)
            || self.pins.binary_search(&end_ns).is_ok();
        let age_ns = self.now_ns.saturating_sub(end_ns);
        let (width_ns, next_ns) = widths(age_ns, self.narrowest_ns, self.detail);
        let all = holds_multiple(next_ns) || is_pinned;
        self.is_boundary = all || holds_multiple(width_ns);
        self.tells_all = all;
    }

    /// Where sites really stand, after records were lost.
    fn restate(&mut self, restatement: &Restatement) {
        let mut stated = BTreeMap::new();
        for &process in &restatement.processes {
            let sites = self.sites.sites_of(process).iter();
            stated.extend(sites.map(|site| (*site, Counters::default())));
        }
        stated.extend(restatement.sites.iter().copied());
        for (id, counters) in stated {
            let Some(state) = self.sites.get_mut(id) else {
                continue;
            };
            if state.now != counters {
                state.now = counters;
                if !std::mem::replace(&mut state.is_listed, true) {
                    self.moved.push(id);
                }
            }
        }
        if !self.moved.is_empty() {
            self.open.get_or_insert_with(|| Bin {
                end_ns: restatement.end_ns,
                live_bytes: restatement.live_bytes,
                live_blocks: restatement.live_blocks,
                max_bytes: restatement.live_bytes,
                ..Bin::default()
            });
            self.end_ns = self.end_ns.max(restatement.end_ns);
        }
        self.has_hole = false;
    }

    /// What is open is the last for now: it tells everything.
    fn finish(&mut self, writer: &mut Writer) {
        (self.is_boundary, self.tells_all) = (true, true);
        self.close(writer);
    }

    fn close(&mut self, writer: &mut Writer) {
        let tells_all = self.tells_all || self.detail == Detail::Full;
        let Some(mut bin) = self.open.take() else {
            return;
        };
        let mut waiting = Vec::new();
        self.moved.sort_unstable();
        for id in self.moved.drain(..) {
            let Some(state) = self.sites.get_mut(id) else {
                continue;
            };
            let moved_bytes = state.now.live_bytes.abs_diff(state.pointed.live_bytes);
            if !tells_all && moved_bytes <= MOVED_BYTES.max(state.pointed.live_bytes / 100) {
                waiting.push(id);
                continue;
            }
            state.is_listed = false;
            if state.now != state.pointed {
                bin.points.push(difference(id, &state.pointed, &state.now));
                state.pointed = state.now;
            }
        }
        bin.complete &= waiting.is_empty();
        if waiting.is_empty() && !self.has_hole {
            self.sites.give_up();
        }
        self.moved = waiting;
        writer.push(Record::Bin(bin));
    }
}

/// Changes of cohorts that are yet to be told.
#[derive(Debug, Default)]
struct CohortMerge {
    sum: Sum,
    boundaries: Vec<u32>,
}

impl CohortMerge {
    fn take(&mut self, cohorts: Cohorts, instants: &[u64], writer: &mut Writer) {
        let Cohorts {
            at_ns,
            tick,
            is_boundary,
            sites,
        } = cohorts;
        for site in sites.unpack() {
            self.sum.add(site, &self.boundaries);
        }
        if instants.binary_search(&at_ns).is_ok() {
            let mut pieces = in_pieces(self.sum.take());
            if pieces.is_empty() {
                pieces.push(Vec::new());
            }
            let last = pieces.len() - 1;
            for (at, sites) in pieces.into_iter().enumerate() {
                writer.push(Record::Cohorts(Cohorts {
                    at_ns,
                    tick,
                    is_boundary: is_boundary && at == last,
                    sites: Packed::new(&sites),
                }));
            }
        }
        if is_boundary {
            self.boundaries.push(tick.saturating_add(1));
        }
    }
}

/// Width of the newest cells of a recording of this length.
fn narrowest(length_ns: u64) -> u64 {
    let mut width_ns = MILLISECOND_NS;
    while width_ns < SECOND_NS && length_ns / width_ns > SHORT_RUN_CELLS {
        width_ns *= 2;
    }
    width_ns.min(SECOND_NS)
}

/// The width of cells of an age, and of those that they will be merged into.
fn widths(age_ns: u64, narrowest_ns: u64, detail: Detail) -> (u64, u64) {
    let ages_ns = match detail {
        Detail::Full | Detail::Thinned => AGES_NS,
        Detail::Coarse => COARSE_AGES_NS,
    };
    let at = ages_ns.partition_point(|limit_ns| *limit_ns <= age_ns);
    match at {
        0 if narrowest_ns < SECOND_NS => (narrowest_ns, SECOND_NS),
        _ => (WIDTHS_NS[at], WIDTHS_NS[(at + 1).min(WIDTHS_NS.len() - 1)]),
    }
}

#[cfg(test)]
mod tests;
