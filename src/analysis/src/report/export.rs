//! What exports have in common: which sites weigh how much, and the stacks
//! that they are told by.

use std::cmp::Reverse;

use crate::FrameId;
use crate::calls::Calls;
use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::instant::Span;
use crate::kinds::{Kinds, Sums};
use crate::model::Model;
use crate::report::text::{frame_words, heading_lines};
use crate::stack::Stacks;
use crate::top::Matching;

/// What is exported: the figures of the sites that were asked for.
#[derive(Clone, Debug)]
pub struct Selection {
    /// When.
    pub span: Span,
    /// What stacks are weighed by, and told first by.
    pub measure: Measure,
    /// In bytes or blocks.
    pub unit: Unit,
    /// Most stacks; what is left out is summed up as one.
    pub limit: Option<usize>,
    /// Of each site; all 0 of those not asked for.
    pub(super) figures: Vec<Figures>,
    /// What sites have in common.
    pub(super) kinds: Kinds,
    /// Of each kind of them.
    pub(super) sums: Sums<Figures>,
    /// Whether a site was asked for.
    pub(super) is_wanted: Vec<bool>,
    /// Not all sites were asked for.
    pub(super) is_filtered: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Stacks, or sites, told one by one.
    pub stacks: usize,
    /// Those summed up.
    pub left_out: usize,
}

impl Selection {
    /// The sites of `model` that match, over `span`.
    pub fn new<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        span: Span,
        (measure, unit): (Measure, Unit),
        filter: Option<&Filter>,
    ) -> Self {
        let mut matching = Matching::new(filter);
        let is_wanted: Vec<bool> = model
            .sites()
            .iter()
            .map(|site| matching.site(model, stacks, site.node, site.process))
            .collect();
        let kinds = Kinds::new(model);
        let mut sums = kinds.none::<Figures>();
        let mut figures = vec![Figures::default(); is_wanted.len()];
        model.for_each_figures(&span, |id, _, of_site| {
            let at = id as usize;
            if is_wanted.get(at) == Some(&true)
                && let Some(kind) = kinds.of_site(id)
            {
                figures[at] = *of_site;
                sums.of_kind[kind].add(of_site);
            }
        });
        Selection {
            span,
            measure,
            unit,
            limit: None,
            figures,
            kinds,
            sums,
            is_filtered: is_wanted.contains(&false),
            is_wanted,
        }
    }

    /// Of all sites together.
    pub fn sum(&self) -> Figures {
        let mut sum = Figures::default();
        let all = self.sums.of_kind.iter();
        all.for_each(|figures| sum.add(figures));
        sum
    }

    /// Two instants are told, not the figure of one.
    pub(super) fn compares(&self) -> bool {
        self.measure == Measure::Growth && self.span.from().is_some()
    }

    /// What reports begin with: the answer, and how far to trust it.
    pub(super) fn heading(&self, model: &Model<'_>) -> Vec<String> {
        heading_lines(model, &self.span, self.measure, &self.sum())
    }

    /// What these figures weigh.
    pub(super) fn weight(&self, figures: &Figures) -> i64 {
        figures.measure(self.measure, self.unit)
    }

    /// What a kind of sites weighed at the earlier instant, and at the later.
    fn before_and_after(&self, kind: usize) -> (i64, i64) {
        let after = self.sums.of_kind[kind].measure(Measure::Live, self.unit);
        let grown = self.sums.of_kind[kind].measure(Measure::Growth, self.unit);
        (after.saturating_sub(grown), after)
    }
}

/// A stack as text formats tell it.
pub(super) struct StackWeight {
    /// Its innermost call; `None` stands for what was left out.
    pub(super) call: Option<usize>,
    /// At the earlier instant, where two are told; else 0.
    pub(super) before: i64,
    /// What it weighs.
    pub(super) after: i64,
}

/// The stacks that weigh something, callers beside each other and the heavier
/// first.
pub(super) fn weighed(selection: &Selection, calls: &Calls) -> (Vec<StackWeight>, Exported) {
    let compares = selection.compares();
    let after = calls.weigh(|kind| {
        let weight = if compares {
            selection.before_and_after(kind).1
        } else {
            selection.weight(&selection.sums.of_kind[kind])
        };
        weight.max(0)
    });
    let before = calls.weigh(|kind| {
        if compares {
            selection.before_and_after(kind).0.max(0)
        } else {
            0
        }
    });
    let size = |call: usize| after.own[call].abs_diff(before.own[call]);
    let mut chosen: Vec<usize> = (0..calls.len())
        .filter(|&call| after.own[call] != 0 || before.own[call] != 0)
        .collect();
    let most = selection.limit.unwrap_or(usize::MAX);
    let mut rest = Vec::new();
    if chosen.len() > most {
        chosen.sort_by_key(|&call| (Reverse(size(call)), call));
        rest = chosen.split_off(most);
    }
    let exported = Exported {
        stacks: chosen.len(),
        left_out: rest.len(),
    };
    let order = order(calls, |call| after.total[call].max(before.total[call]));
    chosen.sort_by_key(|&call| order[call]);
    let mut weighed: Vec<StackWeight> = chosen
        .into_iter()
        .map(|call| StackWeight {
            call: Some(call),
            before: before.own[call],
            after: after.own[call],
        })
        .collect();
    if !rest.is_empty() {
        let sum = |own: &[i64]| {
            rest.iter()
                .fold(0_i64, |sum, &at| sum.saturating_add(own[at]))
        };
        weighed.push(StackWeight {
            call: None,
            before: sum(&before.own),
            after: sum(&after.own),
        });
    }
    (weighed, exported)
}

/// Of each call its place where callers come right before what they call, the
/// heaviest first.
fn order(calls: &Calls, weight: impl Fn(usize) -> i64) -> Vec<usize> {
    let mut below = vec![1_usize; calls.len()];
    for call in (0..calls.len()).rev() {
        if let Some(parent) = calls.parent(call) {
            below[parent] += below[call];
        }
    }
    let mut by_weight: Vec<usize> = (0..calls.len()).collect();
    by_weight.sort_by_key(|&call| (Reverse(weight(call)), call));
    // A caller weighs no less than what it calls, and has the smaller index.
    let mut place = vec![0; calls.len()];
    let mut next = vec![0; calls.len()];
    let mut next_root = 0;
    for call in by_weight {
        let at = match calls.parent(call) {
            Some(parent) => &mut next[parent],
            None => &mut next_root,
        };
        place[call] = *at;
        *at += below[call];
        next[call] = place[call] + 1;
    }
    place
}

/// A call and its callers, the outermost first.
pub(super) fn path(calls: &Calls, call: usize, path: &mut Vec<FrameId>) {
    path.clear();
    path.extend(
        std::iter::successors(Some(call), |&at| calls.parent(at)).map(|at| calls.frame(at)),
    );
    path.reverse();
}

/// `load_session app/sessions.py:41`.
pub(super) fn label(stacks: &Stacks<'_>, frame: FrameId) -> String {
    let (function, place) = frame_words(stacks, frame);
    if place.is_empty() {
        function
    } else {
        format!("{function} {place}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instant;
    use crate::report::{collapsed, speedscope};
    use crate::testing::{origin, training};

    type Format = for<'a> fn(
        &Model<'a>,
        &mut Stacks<'a>,
        &Selection,
        &mut dyn std::io::Write,
    ) -> std::io::Result<Exported>;

    fn written(format: Format, compares: bool, limit: Option<usize>) -> (String, Exported) {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        let (span, measure) = if compares {
            let from = Instant::After(60_000_000_000);
            let span = Span::between(&model, &from, &Instant::End).unwrap();
            (span, Measure::Growth)
        } else {
            (Span::usual(&model), Measure::Live)
        };
        let asked = (measure, Unit::Bytes);
        let mut selection = Selection::new(&model, &mut stacks, span, asked, None);
        selection.limit = limit;
        let mut out = Vec::new();
        let exported = format(&model, &mut stacks, &selection, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), exported)
    }

    #[test]
    fn stacks_are_told_as_lines() {
        const EPOCH: &str = "<module> app/train.py:10;Trainer.epoch app/train.py:43";
        const IMPORT: &str = "<module> app/train.py:10;\
                              _call_with_frames_removed <frozen importlib._bootstrap>:241";
        let batch = format!("{EPOCH};load_batch app/train.py:57");
        let (text, exported) = written(collapsed::collapsed, false, None);
        let expected = format!(
            "{EPOCH} 31457280\n\
             {batch};parse_header src/parse.c:118;grow src/arena.h:12 2097152\n\
             {batch};fastparse.so+0x4fff 4096\n\
             {batch};JSONDecoder.raw_decode json/decoder.py:353 512\n\
             {IMPORT} 3145728\n"
        );
        assert_eq!(text, expected);
        assert_eq!((exported.stacks, exported.left_out), (5, 0));

        let (text, _) = written(collapsed::collapsed, true, None);
        let expected = format!(
            "{EPOCH} 10485760 0\n\
             {batch} 209715200 0\n\
             {batch};JSONDecoder.raw_decode json/decoder.py:353 5242880 0\n\
             {batch};parse_header src/parse.c:118;grow src/arena.h:12 1048576 2097152\n\
             {batch};fastparse.so+0x4fff 0 4096\n\
             {IMPORT} 3145728 1048576\n"
        );
        assert_eq!(text, expected);

        let (text, exported) = written(collapsed::collapsed, false, Some(1));
        assert_eq!(text, format!("{EPOCH} 31457280\n[rest] 5247488\n"));
        assert_eq!((exported.stacks, exported.left_out), (1, 4));
    }

    #[test]
    fn what_shrank_is_a_profile_of_its_own() {
        const MIB: i64 = 1 << 20;
        let (text, _) = written(speedscope::speedscope, true, None);
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let profiles = file["profiles"].as_array().unwrap();
        let sums: Vec<(&str, i64)> = profiles
            .iter()
            .map(|one| {
                (
                    one["name"].as_str().unwrap(),
                    one["endValue"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(sums[0], ("grew", MIB + 4096));
        assert_eq!(sums[1], ("shrank", (10 + 200 + 5 + 2) * MIB));
        assert_eq!(sums[2], ("live at the later instant", 3 * MIB + 4096));
    }
}
