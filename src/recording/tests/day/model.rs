//! A busy program's recording, made up: many sites that allocate and free all
//! the time, and live for as long as one likes in no time at all.

use leakline_recording::record::{
    Bin, Counters, Domain, Point, Process, ProcessTotals, Record, Session, Site,
};
use leakline_recording::{Damage, Detail, Reader, Writer, compact};
use std::fs::File;
use std::path::Path;

const SECOND_NS: u64 = 1_000_000_000;
/// What moves less is left out of a bin that is not complete.
const MOVED_BYTES: u64 = 64 << 10;

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
}

/// A program that runs.
pub(crate) struct Day {
    shape: Shape,
    random: u64,
    places: Vec<Place>,
    now_seconds: u64,
    live_bytes: u64,
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
            });
        }
        day
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    /// The next bin.
    pub(crate) fn step(&mut self, writer: &mut Writer) {
        self.now_seconds += self.shape.step_seconds;
        let mut points = Vec::new();
        for id in 0..self.shape.sites {
            let born = 1 + self.below(20);
            let noise = self.below(1000);
            let place = &mut self.places[id as usize];
            let counters = &mut place.counters;
            // It wanders around its usual count.
            let spread = place.usual_blocks / 4 + 1;
            let live = place.usual_blocks + noise % spread;
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
        writer.push(Record::Totals(ProcessTotals {
            process: 0,
            events: self.now_seconds,
            ..ProcessTotals::default()
        }));
        writer.flush().unwrap();
        self.most_bytes = self.most_bytes.max(writer.bytes());
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
