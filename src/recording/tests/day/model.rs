//! A busy program's recording, made up: many sites that allocate and free all
//! the time, and live for as long as one likes in no time at all.

use leakline_recording::cohorts::{
    INSTANTS, TICK_NS, coarsen, cohort_of, in_pieces, instants_every,
};
use leakline_recording::record::{
    Bin, CohortChange, Cohorts, Counters, Domain, Packed, Point, Process, ProcessTotals, Record,
    Session, Site, SiteCohorts,
};
use leakline_recording::{Damage, Detail, Reader, Writer, compact};
use std::fs::File;
use std::path::Path;

const SECOND_NS: u64 = 1_000_000_000;
/// What moves less is left out of a bin that is not complete.
const MOVED_BYTES: u64 = 64 << 10;
/// Where more changes of cohorts wait they are told 64 times over the day only.
const MOST_CHANGES: usize = 1 << 15;
/// A site's cohorts: its level rises when there would be more.
const MOST_COHORTS: u32 = 64;

/// What kind of program it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Sites, all of which allocate in every second.
    pub(crate) sites: u32,
    /// One in so many holds megabytes, which come and go.
    pub(crate) large_one_in: u32,
    /// Seconds between the collector's bins, a second's work each.
    pub(crate) step_seconds: u64,
}

/// A site's habits and counters.
#[derive(Clone, Debug)]
struct Place {
    size: u64,
    usual_blocks: u64,
    counters: Counters,
    pointed: Counters,
    /// First tick and living blocks of its cohorts, the last one open.
    cohorts: Vec<(u32, u64)>,
    /// What is to be told of those that have ended.
    waiting: Vec<CohortChange>,
    /// Born in the open one.
    born: u64,
}

impl Place {
    fn wait(&mut self, start: u32, born: u64, alive: i64) {
        let at = self
            .waiting
            .binary_search_by_key(&start, |change| change.start)
            .unwrap_or_else(|at| {
                self.waiting.insert(at, CohortChange::none(start));
                at
            });
        let size = self.size.cast_signed();
        self.waiting[at].add(&CohortChange {
            start,
            born_blocks: born.cast_signed(),
            born_bytes: born.cast_signed() * size,
            blocks: alive,
            bytes: alive * size,
        });
    }

    /// Goes on to the open cohort of now, at the day's level.
    fn go_on(&mut self, tick: u32, level: u8) {
        for cohort in &mut self.cohorts {
            cohort.0 = cohort_of(cohort.0, level, &[]);
        }
        self.cohorts.dedup_by(|next, before| {
            let is_same = next.0 == before.0;
            before.1 += if is_same { next.1 } else { 0 };
            is_same
        });
        coarsen(&mut self.waiting, level, &[]);
        let open = cohort_of(tick, level, &[]);
        match self.cohorts.last().copied() {
            Some((start, _)) if start == open => {}
            Some((start, alive)) => {
                let born = std::mem::take(&mut self.born);
                self.wait(start, born, alive.cast_signed());
                self.cohorts.push((open, 0));
            }
            None => self.cohorts.push((open, 0)),
        }
    }

    /// Frees so many blocks, each of them as likely as any other.
    fn free(&mut self, count: u64, random: &mut u64) {
        for _ in 0..count {
            let living: u64 = self.cohorts.iter().map(|cohort| cohort.1).sum();
            let mut at = below(random, living.max(1));
            let last = self.cohorts.len() - 1;
            for cohort in 0..=last {
                let (start, alive) = &mut self.cohorts[cohort];
                if at < *alive {
                    *alive -= 1;
                    let start = *start;
                    if cohort < last {
                        self.wait(start, 0, -1);
                    }
                    break;
                }
                at -= *alive;
            }
        }
    }
}

fn below(random: &mut u64, limit: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    (*random >> 11) % limit
}

/// A program that runs.
pub(crate) struct Day {
    shape: Shape,
    random: u64,
    places: Vec<Place>,
    now_seconds: u64,
    live_bytes: u64,
    level: u8,
    told_seconds: u64,
    /// Bytes in the file when it was largest.
    pub(crate) most_bytes: u64,
    /// How often it was compacted.
    pub(crate) compactions: u32,
}

impl Day {
    /// Begins the recording.
    pub(crate) fn new(shape: Shape, writer: &mut Writer) -> Self {
        writer.push(Record::Session(Session {
            started_unix_ns: 0,
            leakline: String::new(),
            command: vec![],
            mode: "exact".into(),
            sample_bytes: 0,
            python: false,
            native: true,
            host: String::new(),
            temporary_window: 1,
        }));
        writer.push(Record::Process(Process {
            pid: 1,
            start_ticks: 0,
            parent: None,
            parent_pid: 0,
            at_ns: 0,
            executable: vec![],
            command: vec![],
            exec: false,
            python_version: 0,
            inherited_blocks: 0,
            inherited_bytes: 0,
        }));
        let mut day = Day {
            shape,
            random: 88_172_645_463_325_252,
            places: Vec::new(),
            now_seconds: 0,
            live_bytes: 0,
            level: 0,
            told_seconds: 0,
            most_bytes: 0,
            compactions: 0,
        };
        for site in 0..shape.sites {
            writer.push(Record::Site(Site {
                process: 0,
                node: 0,
                domain: Domain::Native,
            }));
            let size = 16 << day.below(8);
            let usual_blocks = if site % shape.large_one_in == 0 {
                (4 << 20) / size
            } else {
                8 + day.below(100)
            };
            day.places.push(Place {
                size,
                usual_blocks,
                counters: Counters::default(),
                pointed: Counters::default(),
                cohorts: Vec::new(),
                waiting: Vec::new(),
                born: 0,
            });
        }
        day
    }

    fn below(&mut self, limit: u64) -> u64 {
        below(&mut self.random, limit)
    }

    /// The next bin.
    pub(crate) fn step(&mut self, writer: &mut Writer) {
        self.now_seconds += self.shape.step_seconds;
        let mut points = Vec::new();
        let tick = ((self.now_seconds * SECOND_NS - 1) / TICK_NS) as u32;
        while tick >> self.level >= MOST_COHORTS {
            self.level += 1;
        }
        for id in 0..self.shape.sites {
            let born = 1 + self.below(20);
            let noise = self.below(1000);
            let place = &mut self.places[id as usize];
            // It wanders around its usual count.
            let spread = place.usual_blocks / 4 + 1;
            let live = place.usual_blocks + noise % spread;
            let before = place.counters.live_blocks;
            place.go_on(tick, self.level);
            let born = born.max(live.saturating_sub(before));
            place.born += born;
            if let Some(open) = place.cohorts.last_mut() {
                open.1 += born;
            }
            place.free(before + born - live, &mut self.random);
            let counters = &mut place.counters;
            let temporary = noise % born;
            counters.total_blocks += born;
            counters.total_bytes += born * place.size;
            counters.temporary_blocks += temporary;
            self.live_bytes -= counters.live_bytes;
            counters.live_blocks = live;
            counters.live_bytes = live * place.size;
            self.live_bytes += counters.live_bytes;
            points.push(point(id, &place.pointed, counters));
            place.pointed = *counters;
        }
        writer.push(Record::Bin(Bin {
            end_ns: self.now_seconds * SECOND_NS,
            live_bytes: self.live_bytes,
            live_blocks: 1,
            max_bytes: self.live_bytes,
            rss: vec![(0, self.live_bytes)],
            points,
            complete: true,
        }));
        self.tell(tick, writer);
        writer.push(Record::Totals(ProcessTotals {
            process: 0,
            events: self.now_seconds,
            ..ProcessTotals::default()
        }));
        writer.flush().unwrap();
        self.most_bytes = self.most_bytes.max(writer.bytes());
    }

    /// Tells of cohorts, as the collector does.
    fn tell(&mut self, tick: u32, writer: &mut Writer) {
        let changes: usize = self.places.iter().map(|place| place.waiting.len()).sum();
        let width_ns = instants_every(self.now_seconds * SECOND_NS, INSTANTS);
        let of = |seconds: u64| seconds * SECOND_NS / width_ns;
        let is_due = of(self.now_seconds) > of(self.told_seconds);
        if changes > MOST_CHANGES && !is_due {
            return;
        }
        self.told_seconds = self.now_seconds;
        let level = self.level;
        let sites = (0..).zip(&mut self.places).filter_map(|(site, place)| {
            let mut cohorts = std::mem::take(&mut place.waiting);
            cohorts.retain(|change| !change.is_none());
            (!cohorts.is_empty()).then_some(SiteCohorts {
                site,
                level,
                cohorts,
            })
        });
        for sites in in_pieces(sites) {
            writer.push(Record::Cohorts(Cohorts {
                at_ns: self.now_seconds * SECOND_NS,
                tick,
                is_boundary: false,
                sites: Packed::new(&sites),
            }));
        }
    }

    /// Compacts, as the collector does, but at once; `path` names the copy.
    pub(crate) fn compact(&mut self, writer: &mut Writer, detail: Detail, path: &Path) {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path.with_extension("copy"))
            .unwrap();
        let source = writer.source().unwrap();
        let copy = compact(&source, file, detail, &|| true).unwrap();
        let install = || std::fs::rename(path.with_extension("copy"), path);
        writer.adopt(copy, install).unwrap();
        self.compactions += 1;
    }

    /// Sites whose live bytes are never far from the same.
    pub(crate) fn quiet_sites(&self) -> usize {
        let spread = |place: &&Place| place.usual_blocks / 4 * place.size <= MOVED_BYTES;
        self.places.iter().filter(spread).count()
    }

    /// The file says of every site where it stands.
    pub(crate) fn check(&self, path: &Path) {
        let mut sums = vec![Counters::default(); self.places.len()];
        let mut reader = Reader::open(path).unwrap();
        let mut sum_up = |record| {
            let Record::Bin(bin) = record else { return };
            for point in &bin.points {
                let sum = &mut sums[point.site as usize];
                let add = |sum: &mut u64, change| *sum = sum.wrapping_add_signed(change);
                add(&mut sum.live_bytes, point.live_bytes);
                add(&mut sum.live_blocks, point.live_blocks);
                add(&mut sum.total_bytes, point.total_bytes);
                add(&mut sum.total_blocks, point.total_blocks);
                add(&mut sum.temporary_blocks, point.temporary_blocks);
                add(&mut sum.resizes, point.resizes);
            }
        };
        reader.read(&mut sum_up).unwrap();
        assert_eq!(reader.damage(), Damage::default());
        for (place, sum) in self.places.iter().zip(&sums) {
            assert_eq!(place.counters, *sum);
        }
    }
}

fn point(site: u32, from: &Counters, to: &Counters) -> Point {
    let change = |from: u64, to: u64| to.wrapping_sub(from).cast_signed();
    Point {
        site,
        live_bytes: change(from.live_bytes, to.live_bytes),
        live_blocks: change(from.live_blocks, to.live_blocks),
        total_bytes: change(from.total_bytes, to.total_bytes),
        total_blocks: change(from.total_blocks, to.total_blocks),
        temporary_blocks: change(from.temporary_blocks, to.temporary_blocks),
        resizes: change(from.resizes, to.resizes),
    }
}
