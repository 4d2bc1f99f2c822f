//! Makes the recording of a large program, to measure the terminal UI with.
//!
//! `cargo run --release -p leakline-tui --example large -- FILE [SITES
//! [SECONDS [DEPTH [ACTIVE]]]]`: sites (100,000), seconds (3,600), frames of a
//! stack (30), and how many of the sites allocate in every bin (all); each of
//! the others does once, a few blocks of which half stay. One in 100 sites moves
//! by more than 64 KiB. Bins are as wide as those of their age are after
//! compaction, and the file is compacted as the collector's is:
//! `1000000 86400 30 100000` is a busy day.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example that measures"
)]

use std::fs::File;
use std::path::Path;

use leakline_recording::record::{
    Bin, Code, Domain, End, Frame, Mark, Node, Peak, Point, Process, ProcessTotals, Record,
    Session, Site,
};
use leakline_recording::{Detail, Writer, compact};

const SECOND_NS: u64 = 1_000_000_000;
/// Functions that there are, and calls of them at each depth.
const FUNCTIONS: u32 = 5000;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(arguments.first().map_or("large.leakline", String::as_str));
    let number = |at: usize, default: u32| {
        arguments
            .get(at)
            .map_or(default, |argument| argument.parse().unwrap())
    };
    let (sites, seconds, depth) = (number(1, 100_000), number(2, 3600), number(3, 30));
    let active = number(4, sites).min(sites);
    let mut random = Random(88_172_645_463_325_252);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    let mut writer = Writer::new(file).unwrap();
    begin(&mut writer);
    stacks(&mut writer, &mut random, sites, depth);
    let sizes: Vec<i64> = (0..sites).map(|_| 16 << random.below(8)).collect();
    let mut live = vec![0_i64; sites as usize];
    let mut sum = 0;
    // The high-water mark, and what each site held then.
    let mut peak = Peak {
        process: None,
        at_ns: 0,
        live_bytes: 0,
        live_blocks: 0,
        sites: Vec::new(),
    };
    let ends = bin_ends(seconds.into());
    let others = u64::from(sites - active);
    let first_of = |bin: usize| active + (others * bin as u64 / ends.len() as u64) as u32;
    for (bin, &second) in ends.iter().enumerate() {
        let mut points = Vec::with_capacity(active as usize);
        let moving = live.iter_mut().zip(&sizes).take(active as usize);
        for (site, (live, size)) in (0..).zip(moving) {
            let born = 1 + random.below(20).cast_signed();
            let blocks = if site % 100 == 0 {
                // Some grow, and some come and go by megabytes.
                if site % 300 == 0 {
                    *live + 2
                } else {
                    (4 << 20) / size + (random.below(8192)).cast_signed()
                }
            } else {
                8 + random.below(100).cast_signed()
            };
            let change = blocks - *live;
            *live = blocks;
            sum += change * size;
            points.push(Point {
                site,
                live_bytes: change * size,
                live_blocks: change,
                total_bytes: (born + change.abs()) * size,
                total_blocks: born + change.abs(),
                temporary_blocks: born / 2,
                resizes: 0,
            });
        }
        for site in first_of(bin)..first_of(bin + 1) {
            let blocks = 1 + random.below(100).cast_signed();
            let kept = if site % 2 == 0 { blocks } else { 0 };
            let size = sizes[site as usize];
            live[site as usize] = kept;
            sum += kept * size;
            points.push(Point {
                site,
                live_bytes: kept * size,
                live_blocks: kept,
                total_bytes: blocks * size,
                total_blocks: blocks,
                temporary_blocks: 0,
                resizes: 0,
            });
        }
        if sum.cast_unsigned() > peak.live_bytes {
            peak.at_ns = second * SECOND_NS;
            peak.live_bytes = sum.cast_unsigned();
            peak.live_blocks = live.iter().sum::<i64>().cast_unsigned();
            peak.sites = ((0..).zip(&live).zip(&sizes))
                .filter(|((_, blocks), _)| **blocks > 0)
                .map(|((site, &blocks), size)| {
                    (
                        site,
                        (blocks * size).cast_unsigned(),
                        blocks.cast_unsigned(),
                    )
                })
                .collect();
        }
        writer.push(Record::Bin(Bin {
            end_ns: second * SECOND_NS,
            live_bytes: sum.cast_unsigned(),
            live_blocks: live.iter().sum::<i64>().cast_unsigned(),
            max_bytes: sum.cast_unsigned(),
            rss: vec![(0, sum.cast_unsigned() * 5 / 4)],
            points,
            complete: true,
        }));
        writer.flush().unwrap();
        if let Some(detail) = writer.compaction_due() {
            compacted(&mut writer, detail, path);
        }
    }
    writer.push(Record::Peak(peak));
    writer.push(Record::Totals(ProcessTotals {
        process: 0,
        allocations: u64::from(sites) * u64::from(seconds) * 10,
        events: u64::from(sites) * u64::from(seconds) * 20,
        ..ProcessTotals::default()
    }));
    let at_ns = u64::from(seconds) * SECOND_NS;
    writer.push(Record::Mark(Mark {
        name: "deploy".into(),
        at_ns: at_ns / 2,
        process: None,
    }));
    writer.push(Record::End(End {
        at_ns,
        reason: "exited".into(),
    }));
    writer.flush().unwrap();
    println!("{sites} sites, {seconds} s, {} bytes", writer.bytes());
}

/// When bins end, in seconds: those of an hour ago are wider than the last ones.
fn bin_ends(seconds: u64) -> Vec<u64> {
    let mut ends = Vec::new();
    let mut second = 0;
    while second < seconds {
        let width = match seconds - second {
            0..=600 => 1,
            601..=7200 => 10,
            7201..=86_400 => 60,
            _ => 600,
        };
        second = (second + width).min(seconds);
        ends.push(second);
    }
    ends
}

fn begin(writer: &mut Writer) {
    writer.push(Record::Session(Session {
        started_unix_ns: 1_700_000_000 * SECOND_NS,
        leakline: String::new(),
        command: vec![b"python".to_vec(), b"large.py".to_vec()],
        mode: "exact".into(),
        sample_bytes: 0,
        python: true,
        native: false,
        host: String::new(),
        temporary_window: 1,
    }));
    writer.push(Record::Process(Process {
        pid: 4121,
        start_ticks: 0,
        parent: None,
        parent_pid: 0,
        at_ns: 0,
        executable: b"/usr/bin/python3".to_vec(),
        command: vec![b"python".to_vec(), b"large.py".to_vec()],
        exec: false,
        python_version: 0x030b_07f0,
        inherited_blocks: 0,
        inherited_bytes: 0,
    }));
    for function in 0..FUNCTIONS {
        writer.push(Record::Code(Code {
            file: format!(
                "/srv/app/package{}/module{}.py",
                function % 20,
                function % 300
            ),
            name: format!("Class{}.method_{function}", function % 700),
            first_line: function % 1000,
            lines: (0..40)
                .map(|line| (2 * line, function % 1000 + line))
                .collect(),
        }));
    }
}

/// Stacks that part from each other on the way in, and a site of each.
fn stacks(writer: &mut Writer, random: &mut Random, sites: u32, depth: u32) {
    let mut nodes = 0;
    let mut path: Vec<u32> = Vec::new();
    for _ in 0..sites {
        // The last few frames are others; now and then most are.
        let keep = if random.below(100) == 0 {
            random.below(u64::from(depth)) as usize
        } else {
            (depth - 3) as usize + random.below(3) as usize
        };
        path.truncate(keep);
        while path.len() < depth as usize {
            writer.push(Record::Node(Node {
                parent: path.last().copied().unwrap_or(0),
                frame: Frame::Python {
                    code: random.below(u64::from(FUNCTIONS)) as u32,
                    offset: 2 * random.below(40) as u32,
                    entry: path.is_empty(),
                },
            }));
            nodes += 1;
            path.push(nodes);
        }
        writer.push(Record::Site(Site {
            process: 0,
            node: nodes,
            domain: Domain::Obj,
        }));
    }
}

fn compacted(writer: &mut Writer, detail: Detail, path: &Path) {
    let copy_path = path.with_extension("copy");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&copy_path)
        .unwrap();
    let source = writer.source().unwrap();
    let copy = compact(&source, file, detail, &|| true).unwrap();
    writer
        .adopt(copy, || std::fs::rename(&copy_path, path))
        .unwrap();
}
