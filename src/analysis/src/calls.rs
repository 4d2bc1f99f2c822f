//! Who called whom, arranged once and weighed for any instant.
//!
//! [`Tree`](crate::Tree) answers one question; this is for who asks of one
//! instant after the other: all branches are known, only their weights change.
//!
//! # Invariants
//!
//! * A call's parent has a smaller index.
//! * A call weighs what the kinds of sites whose stacks go through it, on this path,
//!   weigh together.

use rustc_hash::FxHashMap;

use crate::frame::FrameId;
use crate::kinds::Kinds;
use crate::model::Model;
use crate::stack::Stacks;
use crate::tree::path_of;

/// The parent of the outermost calls.
const ROOT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Call {
    parent: u32,
    frame: FrameId,
}

/// All calls on the paths to sites.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    calls: Vec<Call>,
    /// For each kind, the last call of its path.
    last: Vec<u32>,
}

/// What each call weighs.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// With all that it called.
    pub total: Vec<i64>,
    /// What paths that end with it weigh.
    pub own: Vec<i64>,
}

impl Calls {
    /// Of all sites, from the outermost frame inwards or, `inverted`, from the
    /// frame that allocated outwards.
    pub fn new<'a>(
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        inverted: bool,
    ) -> Self {
        let all: Vec<usize> = (0..kinds.len()).collect();
        Calls::of(model, kinds, stacks, inverted, &all)
    }

    /// Of the sites of some kinds, which rise: the paths of a million are too many.
    pub fn of<'a>(
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        inverted: bool,
        chosen: &[usize],
    ) -> Self {
        let mut calls: Vec<Call> = Vec::new();
        let mut index: FxHashMap<(u32, FrameId), u32> = FxHashMap::default();
        let (mut path, mut before) = (Vec::new(), Vec::new());
        // The calls of the path before: the next often begins as it did.
        let mut at_path: Vec<u32> = Vec::new();
        // Of other kinds no call.
        let mut last = vec![ROOT; kinds.len()];
        for &kind in chosen {
            let Some(&site) = kinds.sites().get(kind) else {
                continue;
            };
            let node = model.sites()[site as usize].node;
            path_of(model, stacks, node, inverted, false, &mut path);
            let same = path
                .iter()
                .zip(&before)
                .take_while(|(one, other)| one == other)
                .count();
            at_path.truncate(same);
            let mut parent = at_path.last().copied().unwrap_or(ROOT);
            for &frame in &path[same..] {
                parent = *index.entry((parent, frame)).or_insert_with(|| {
                    calls.push(Call { parent, frame });
                    u32::try_from(calls.len() - 1).unwrap_or(ROOT - 1)
                });
                at_path.push(parent);
            }
            last[kind] = parent;
            std::mem::swap(&mut path, &mut before);
        }
        Calls { calls, last }
    }

    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The call that one was made by; `None` of an outermost one.
    pub fn parent(&self, call: usize) -> Option<usize> {
        let parent = self.calls[call].parent;
        (parent != ROOT).then_some(parent as usize)
    }

    /// A call's frame.
    pub fn frame(&self, call: usize) -> FrameId {
        self.calls[call].frame
    }

    /// Weighs every call, given what each kind of sites weighs.
    pub fn weigh(&self, of_kind: impl Fn(usize) -> i64) -> Weights {
        let mut own = vec![0_i64; self.calls.len()];
        for (kind, &last) in self.last.iter().enumerate() {
            if let Some(own) = own.get_mut(last as usize) {
                *own = own.saturating_add(of_kind(kind));
            }
        }
        let mut total = own.clone();
        for at in (0..total.len()).rev() {
            let (weight, parent) = (total[at], self.calls[at].parent);
            if let Some(parent) = total.get_mut(parent as usize) {
                *parent = parent.saturating_add(weight);
            }
        }
        Weights { total, own }
    }

    /// The `most` heaviest calls that weigh something, in their order. With
    /// weights that are not negative, a call comes with its parents.
    pub fn heaviest(&self, weights: &Weights, most: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = (0..self.calls.len())
            .filter(|&call| weights.total[call] > 0)
            .collect();
        if chosen.len() > most {
            let heavier = |call: &usize| (std::cmp::Reverse(weights.total[*call]), *call);
            chosen.select_nth_unstable_by_key(most, heavier);
            chosen.truncate(most);
            chosen.sort_unstable();
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{origin, training};
    use crate::{Measure, Span, Tree, TreeQuery, Unit};

    #[test]
    fn calls_weigh_what_the_tree_says() {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        for inverted in [false, true] {
            let query = TreeQuery {
                span: Span::usual(&model),
                measure: Measure::Live,
                unit: Unit::Bytes,
                inverted,
                threshold: 0.0,
                limit: None,
                filter: None,
                all_frames: false,
            };
            let tree = Tree::new(&model, &mut stacks, query);
            let kinds = Kinds::new(&model);
            let figures = kinds.sums(&model, &tree.query.span).of_kind;
            let calls = Calls::new(&model, &kinds, &mut stacks, inverted);
            let weights = calls.weigh(|kind| figures[kind].live_bytes);
            let path = |call: usize| {
                let mut path: Vec<FrameId> =
                    std::iter::successors(Some(call), |&at| calls.parent(at))
                        .map(|at| calls.frame(at))
                        .collect();
                path.reverse();
                path
            };
            let mut found: Vec<_> = calls
                .heaviest(&weights, usize::MAX)
                .into_iter()
                .map(|call| (path(call), weights.total[call], weights.own[call]))
                .collect();
            let mut expected: Vec<_> = (0..tree.rows.len())
                .map(|row| {
                    let figures = &tree.rows[row];
                    (tree.path(row), figures.figures.live_bytes, figures.own)
                })
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_heaviest_come_with_their_parents() {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        let kinds = Kinds::new(&model);
        let calls = Calls::new(&model, &kinds, &mut stacks, false);
        let figures = kinds.sums(&model, &Span::usual(&model)).of_kind;
        let weights = calls.weigh(|kind| figures[kind].live_bytes);
        for most in 0..calls.len() {
            let chosen = calls.heaviest(&weights, most);
            assert!(chosen.len() <= most);
            for &call in &chosen {
                assert!(
                    calls
                        .parent(call)
                        .is_none_or(|parent| chosen.contains(&parent))
                );
            }
        }
    }
}
