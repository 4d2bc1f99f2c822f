//! Error rates of the verdicts, over simulated processes.
//!
//! `cargo run --release -p leakline-analysis --example verdict [SEEDS]` prints
//! the table that docs/architecture.md has, for 400 seeds of each kind.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/verdict/simulate.rs"]
#[expect(dead_code, reason = "tests use the rest")]
mod simulate;

use leakline_analysis::verdict::Verdict;
use simulate::{HEALTHY, Kind, LEAKS, Random, Stream, leak_of};

const VERDICTS: [Verdict; 6] = [
    Verdict::Leaking,
    Verdict::Growing,
    Verdict::Unclear,
    Verdict::Plateau,
    Verdict::Burst,
    Verdict::StartUp,
];

fn main() {
    let seeds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let seeds: u64 = seeds.unwrap_or(400);
    println!("| kind | leaking | growing | unclear | plateau | burst | nothing | rate off by |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for kinds in [&HEALTHY[..], &LEAKS[..]] {
        let mut all = [0; 7];
        for kind in kinds {
            let found = row(kind, seeds);
            for (sum, found) in all.iter_mut().zip(found) {
                *sum += found;
            }
        }
        let shares = shares(all, seeds * kinds.len() as u64);
        println!("| **all** | {shares} | |");
    }
    println!();
    power(seeds);
    println!("\nOf samples:\n");
    sampled(seeds);
    println!();
    power_of_samples(seeds);
}

/// The same of samples: of 24 to 1,000 blocks of healthy processes, of 1,500 and
/// more of leaks.
fn sampled(seeds: u64) {
    println!("| kind | leaking | growing | unclear | plateau | burst | nothing | rate off by |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (kinds, is_leak) in [(&HEALTHY[..], false), (&LEAKS[..], true)] {
        let (mut all, mut streams) = ([0; 7], 0);
        for kind in kinds {
            let make = |random: &mut Random| {
                let stream = (kind.make)(random);
                if is_leak {
                    stream.leaking_sample(random, 1500.0)
                } else {
                    Some(stream.healthy_sample(random))
                }
            };
            let found = row_of(kind.name, make, seeds);
            streams += found.iter().sum::<u64>();
            for (sum, found) in all.iter_mut().zip(found) {
                *sum += found;
            }
        }
        println!("| **all** | {} | |", shares(all, streams));
    }
}

/// How many samples it takes, of ten times as many blocks.
fn power_of_samples(seeds: u64) {
    println!("| samples that stay | leaking | listed | intervals without the rate |");
    println!("| --- | --- | --- | --- |");
    for count in [24, 48, 80, 200, 400, 800, 1500, 3000] {
        let (mut leaking, mut listed, mut outside) = (0, 0, 0);
        for seed in 0..seeds {
            let mut random = Random::new(seed);
            let stream = leak_of(&mut random, f64::from(count) * 10.0, seed % 2 == 0);
            let stream = stream.thinned(&mut random, f64::from(count));
            let (judged, _) = stream.judged(33 + random.below(32));
            let verdict = judged.map(|judged| judged.verdict);
            leaking += u64::from(verdict == Some(Verdict::Leaking));
            listed += u64::from(matches!(verdict, Some(Verdict::Leaking | Verdict::Growing)));
            if let (Some(rate), Some((truth, _))) =
                (judged.and_then(|judged| judged.rate), stream.truth)
            {
                outside += u64::from((rate.bytes_per_second - truth).abs() > rate.error);
            }
        }
        let share = |count: u64| count as f64 * 100.0 / seeds as f64;
        println!(
            "| {count} | {:.1} % | {:.1} % | {:.1} % |",
            share(leaking),
            share(listed),
            share(outside)
        );
    }
}

/// How many blocks it takes.
fn power(seeds: u64) {
    println!("| blocks that stay | at random: leaking | listed | regularly: leaking | listed |");
    println!("| --- | --- | --- | --- | --- |");
    for count in [24, 48, 80, 200, 400, 800, 1500, 3000] {
        let cells = [false, true].map(|regular| {
            let (mut leaking, mut listed) = (0, 0);
            for seed in 0..seeds {
                let mut random = Random::new(seed);
                let stream = leak_of(&mut random, f64::from(count), regular);
                let (judged, _) = stream.judged(33 + random.below(32));
                let verdict = judged.map(|judged| judged.verdict);
                leaking += u64::from(verdict == Some(Verdict::Leaking));
                listed += u64::from(matches!(verdict, Some(Verdict::Leaking | Verdict::Growing)));
            }
            let share = |count: u64| count as f64 * 100.0 / seeds as f64;
            format!("{:.1} % | {:.1} %", share(leaking), share(listed))
        });
        println!("| {count} | {} |", cells.join(" | "));
    }
}

fn row(kind: &Kind, seeds: u64) -> [u64; 7] {
    row_of(kind.name, |random| Some((kind.make)(random)), seeds)
}

/// Of those seeds for which `make` makes a stream.
fn row_of(name: &str, make: impl Fn(&mut Random) -> Option<Stream>, seeds: u64) -> [u64; 7] {
    let mut found = [0; 7];
    let mut errors = Vec::new();
    let mut outside = 0;
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let Some(stream) = make(&mut random) else {
            continue;
        };
        let cohorts = 33 + random.below(32);
        let (judged, _) = stream.judged(cohorts);
        let at = judged.map_or(6, |judged| {
            VERDICTS
                .iter()
                .position(|&word| word == judged.verdict)
                .unwrap_or(5)
        });
        found[at] += 1;
        if let (Some((truth, _)), Some(judged)) = (stream.truth, judged)
            && let Some(rate) = judged.rate
        {
            errors.push((rate.bytes_per_second / truth - 1.0).abs());
            outside += u64::from((rate.bytes_per_second - truth).abs() > rate.error);
        }
    }
    errors.sort_by(f64::total_cmp);
    let off = errors
        .get(errors.len() * 95 / 100)
        .map_or(String::new(), |off| {
            let outside = outside as f64 * 100.0 / errors.len() as f64;
            format!("{:.1} %, {outside:.0} % outside", off * 100.0)
        });
    let streams = found.iter().sum();
    println!("| {name} | {} | {off} |", shares(found, streams));
    found
}

fn shares(found: [u64; 7], seeds: u64) -> String {
    let share = |at: usize| match found[at] {
        0 => "-".to_owned(),
        count => format!("{:.1} %", count as f64 * 100.0 / seeds as f64),
    };
    let columns = [0, 1, 2, 3, 4, 6].map(share);
    columns.join(" | ")
}
