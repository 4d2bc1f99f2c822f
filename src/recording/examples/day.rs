//! How large the recording of a busy day gets.
//!
//! `cargo run --release -p leakline-recording --example day -- [SITES
//! [SECONDS [STEP [LARGE_ONE_IN]]]]`: sites (20,000), length in seconds (a
//! day), seconds between bins (10; the collector's own are 1, which takes ten
//! times as long), and one in how many sites moves by more than 64 KiB all the
//! time (100).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example that measures"
)]

#[path = "../tests/day/model.rs"]
mod model;

use leakline_recording::Writer;
use std::fs::File;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().unwrap())
        .collect();
    let argument = |at: usize, default| arguments.get(at).copied().unwrap_or(default);
    let shape = model::Shape {
        sites: u32::try_from(argument(0, 20_000)).unwrap(),
        step_seconds: argument(2, 10),
        large_one_in: u32::try_from(argument(3, 100)).unwrap(),
    };
    let seconds = argument(1, 24 * 3600);
    let path = std::env::temp_dir().join(format!("day.{}.leakline", std::process::id()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let mut writer = Writer::new(file).unwrap();
    let mut day = model::Day::new(shape, &mut writer);
    let mut spent = Duration::ZERO;
    let mut longest = Duration::ZERO;
    for at in 1..=seconds / shape.step_seconds {
        day.step(&mut writer);
        if let Some(detail) = writer.compaction_due() {
            let began = Instant::now();
            day.compact(&mut writer, detail, &path);
            spent += began.elapsed();
            longest = longest.max(began.elapsed());
        }
        if at * shape.step_seconds % 3600 < shape.step_seconds {
            println!(
                "{:>3} h: {:>6.1} MB, {} compactions, {:.1} s in all, {:.2} s at most",
                at * shape.step_seconds / 3600,
                writer.bytes() as f64 / 1e6,
                day.compactions,
                spent.as_secs_f64(),
                longest.as_secs_f64(),
            );
        }
    }
    println!(
        "{} sites, {} of them moving by less than 64 KiB, {seconds} s: {:.1} MB, {:.1} MB at most",
        shape.sites,
        day.quiet_sites(),
        writer.bytes() as f64 / 1e6,
        day.most_bytes as f64 / 1e6,
    );
    day.check(&path);
    std::fs::remove_file(&path).unwrap();
}
