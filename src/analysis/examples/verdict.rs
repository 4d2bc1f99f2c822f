//! Error rates of the verdicts, over simulated processes.
//!
//! `cargo run --release -p leakline-analysis --example verdict [SEEDS]` prints
//! the table that docs/architecture.md has, for 400 seeds of each kind.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/verdict/simulate.rs"]
mod simulate;

use leakline_analysis::verdict::Verdict;
use simulate::{HEALTHY, Kind, LEAKS, Random};

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
}

fn row(kind: &Kind, seeds: u64) -> [u64; 7] {
    let mut found = [0; 7];
    let mut errors = Vec::new();
    let mut outside = 0;
    let mut doubts = std::collections::BTreeMap::<String, u64>::new();
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let stream = (kind.make)(&mut random);
        let cohorts = 33 + random.below(32);
        let (judged, _) = stream.judged(cohorts);
        let at = judged.map_or(6, |judged| {
            VERDICTS
                .iter()
                .position(|&word| word == judged.verdict)
                .unwrap_or(5)
        });
        found[at] += 1;
        if std::env::var_os("SHOW").is_some() && (at == 0) != stream.truth.is_some() {
            let brief = judged.map(|j| (j.verdict, j.doubt, j.kept, j.chance, j.axis));
            println!("{seed}: {brief:?} truth {:?}", stream.truth);
        }
        if let Some(judged) = judged {
            *doubts.entry(format!("{:?}", judged.doubt)).or_default() += 1;
        }
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
    println!("| {} | {} | {off} |", kind.name, shares(found, seeds));
    if std::env::var_os("DOUBTS").is_some() {
        println!("{doubts:?}");
    }
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
