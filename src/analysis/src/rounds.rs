//! Growth by rounds: which sites keep something of each time that the same work
//! was done.
//!
//! A recording of rounds has a mark at the end of the warm-up and at the end of
//! each round. A block belongs to the round it was born in; what counts is whether
//! it is alive at the end, after the last round. Levels, peaks and what RSS does
//! play no part.
//!
//! # What is called growth
//!
//! The last round is left out: whatever keeps "the last one" (a variable, an
//! exception, a cache of one) keeps a block of it. Of the `n` rounds before, a
//! stack has kept a block of `k`. It has grown
//!
//! * when `k` of `n` are more than a place that keeps something in half of the
//!   rounds, each for itself by chance, would show in one of [`CHANCE`] tests; or
//! * when each of at least [`FEWEST`] rounds kept the same: as many blocks, of as
//!   many bytes.
//!
//! What kept something in half of the rounds or more, and in one of the last two,
//! is *unsure*: more rounds decide. Everything else has kept what it keeps: caches
//! that filled, places that keep something now and then.

use std::collections::BTreeMap;

use crate::model::Model;
use crate::stack::Stacks;
use crate::survivors::{Held, Survivors};

/// One in so many stacks that keep something by chance in half of the rounds is
/// called growth.
pub const CHANCE: f64 = 1000.0;

/// Fewest rounds whose equal survivors are growth.
pub const FEWEST: usize = 4;

/// What rounds say of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// It keeps something of each round.
    Grows,
    /// Perhaps: more rounds decide.
    Unsure,
    /// It has kept what it keeps.
    Settled,
}

/// A stack of which blocks outlived their round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// Its sites: stacks that differ only inside the interpreter or an allocator
    /// are one.
    pub sites: Vec<u32>,
    /// The node that names it: the stack of the site with most bytes.
    pub node: u32,
    /// What is left of each round, the last one included.
    pub kept: Vec<Held>,
    /// What that says, of all together or of one of its sites: a list that grows
    /// now and then does not hide the object that each round puts there.
    pub evidence: Evidence,
}

impl Grown {
    /// Rounds that count: all but the last.
    fn judged(&self) -> &[Held] {
        judged(&self.kept)
    }

    /// Of how many of the rounds that count something is left.
    pub fn rounds_kept(&self) -> usize {
        self.judged().iter().filter(|kept| kept.blocks > 0).count()
    }

    /// Bytes left of a round, on average over those that count.
    pub fn bytes_per_round(&self) -> f64 {
        self.mean(|kept| kept.bytes)
    }

    /// Blocks left of a round, on average over those that count.
    pub fn blocks_per_round(&self) -> f64 {
        self.mean(|kept| kept.blocks)
    }

    fn mean(&self, of: impl Fn(&Held) -> u64) -> f64 {
        let rounds = self.judged();
        rounds.iter().map(of).sum::<u64>() as f64 / (rounds.len().max(1)) as f64
    }
}

/// What is left of each round of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// How many rounds there are, the last one included, the warm-up not.
    pub count: usize,
    /// Stacks with something left, those that grow first, then by bytes.
    pub stacks: Vec<Grown>,
}

impl Rounds {
    /// Of a recording with marks whose names begin with `prefix`: the first ends
    /// the warm-up, each other a round.
    pub fn new<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, prefix: &str) -> Self {
        let named = model.marks().iter().filter(|m| m.name.starts_with(prefix));
        let ends: Vec<u64> = named.map(|mark| mark.at_ns).collect();
        let Some(survivors) = Survivors::new(model) else {
            return Rounds::default();
        };
        let edges: Vec<_> = ends.iter().map(|ns| survivors.edge(*ns)).collect();
        let mut by_stack: BTreeMap<u64, (Grown, u64)> = BTreeMap::new();
        for (site, kept) in survivors.left_between(&edges) {
            let Some(node) = model.sites().get(site as usize).map(|site| site.node) else {
                continue;
            };
            let bytes = kept.iter().map(|kept| kept.bytes).sum();
            let of_site = evidence(&kept);
            let (grown, most) = by_stack
                .entry(stacks.shown_key(model, node))
                .or_insert_with(|| {
                    let grown = Grown {
                        sites: Vec::new(),
                        node,
                        kept: vec![Held::default(); kept.len()],
                        evidence: of_site,
                    };
                    (grown, bytes)
                });
            grown.sites.push(site);
            grown.evidence = grown.evidence.min(of_site);
            for (sum, more) in grown.kept.iter_mut().zip(&kept) {
                sum.blocks += more.blocks;
                sum.bytes += more.bytes;
            }
            if bytes > *most {
                (grown.node, *most) = (node, bytes);
            }
        }
        let mut stacks: Vec<Grown> = by_stack.into_values().map(|(grown, _)| grown).collect();
        for grown in &mut stacks {
            grown.evidence = grown.evidence.min(evidence(&grown.kept));
        }
        let bytes = |grown: &Grown| grown.kept.iter().map(|kept| kept.bytes).sum::<u64>();
        stacks.sort_by_key(|grown| (grown.evidence, std::cmp::Reverse(bytes(grown)), grown.node));
        Rounds {
            count: ends.len().saturating_sub(1),
            stacks,
        }
    }
}

fn judged(kept: &[Held]) -> &[Held] {
    &kept[..kept.len().saturating_sub(1)]
}

/// See the module's comment.
fn evidence(kept: &[Held]) -> Evidence {
    let rounds = judged(kept);
    let with_some = rounds.iter().filter(|kept| kept.blocks > 0).count();
    let are_equal = rounds.len() >= FEWEST
        && rounds
            .iter()
            .all(|kept| kept.blocks > 0 && *kept == rounds[0]);
    if are_equal || chance(with_some, rounds.len()) * CHANCE <= 1.0 {
        return Evidence::Grows;
    }
    let is_recent = rounds.iter().rev().take(2).any(|kept| kept.blocks > 0);
    if is_recent && with_some * 2 >= rounds.len() && with_some > 0 {
        Evidence::Unsure
    } else {
        Evidence::Settled
    }
}

/// How likely at least `k` of `n` are by tosses of a coin.
fn chance(k: usize, n: usize) -> f64 {
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let mut sum = 0.0;
    for heads in 0..=n {
        if heads >= k {
            sum += term;
        }
        term *= (n - heads) as f64 / (heads + 1) as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(blocks: &[u64]) -> Vec<Held> {
        let held = |blocks: &u64| Held {
            blocks: *blocks,
            bytes: blocks * 16,
        };
        blocks.iter().map(held).collect()
    }

    fn of(blocks: &[u64]) -> Evidence {
        evidence(&kept(blocks))
    }

    #[test]
    fn a_block_of_each_round_is_growth() {
        assert_eq!(of(&[1; 16]), Evidence::Grows);
        assert_eq!(of(&[1; 5]), Evidence::Grows);
        assert_eq!(of(&[1; 4]), Evidence::Unsure, "three rounds count");
        // Not as many each time: it takes ten rounds.
        assert_eq!(of(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 0]), Evidence::Grows);
        assert_eq!(of(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 0]), Evidence::Unsure);
    }

    #[test]
    fn the_last_round_does_not_count() {
        let mut last = [0; 16];
        last[15] = 5;
        assert_eq!(of(&last), Evidence::Settled);
        let mut all_but_the_last = [1; 16];
        all_but_the_last[15] = 0;
        assert_eq!(of(&all_but_the_last), Evidence::Grows);
    }

    #[test]
    fn what_filled_has_settled() {
        assert_eq!(
            of(&[1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            Evidence::Settled
        );
        assert_eq!(of(&[0; 16]), Evidence::Settled);
        assert_eq!(of(&[]), Evidence::Settled);
    }

    #[test]
    fn now_and_then_is_no_growth() {
        assert_eq!(
            of(&[1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]),
            Evidence::Unsure
        );
        assert_eq!(
            of(&[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
            Evidence::Settled
        );
    }

    /// The bound that the module's comment states, by counting: of all that 15
    /// tosses can give, at most one in a thousand is called growth.
    #[test]
    fn false_alarms_are_bounded() {
        let called = (0..1_u32 << 15).filter(|tosses| {
            // Never as many twice running, so that only the count can speak.
            let blocks: Vec<u64> = (0..16)
                .map(|at| u64::from(tosses >> at & 1) * (at + 1))
                .collect();
            evidence(&kept(&blocks)) == Evidence::Grows
        });
        let called = called.count();
        assert!(called > 0 && called * 1000 <= 1 << 15, "{called}");
    }

    #[test]
    fn chances_are_those_of_tosses() {
        assert!((chance(0, 5) - 1.0).abs() < 1e-12);
        assert!((chance(5, 5) - 1.0 / 32.0).abs() < 1e-12);
        assert!((chance(3, 3) - 0.125).abs() < 1e-12);
        assert!((chance(2, 3) - 0.5).abs() < 1e-12);
    }
}
