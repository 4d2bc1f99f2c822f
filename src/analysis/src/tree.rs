//! `tree`: who called whom to allocate, from the outermost or the innermost
//! frame.
//!
//! # Invariants
//!
//! * A frame's parent has a smaller index, in the full tree and among rows.
//! * What a row's shown children, its own share and its rest add up to is the
//!   row.

use leakline_recording::record::Domain;
use rustc_hash::FxHashMap;

use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::frame::FrameId;
use crate::instant::Span;
use crate::model::Model;
use crate::stack::Stacks;
use crate::top::Matching;

/// A question to `tree`.
#[derive(Clone, Debug)]
pub struct TreeQuery {
    /// When.
    pub span: Span,
    /// What branches are weighed by.
    pub measure: Measure,
    /// In bytes or blocks.
    pub unit: Unit,
    /// From the innermost frame outwards.
    pub inverted: bool,
    /// Branches below this share (0 to 1) of the whole are summed up.
    pub threshold: f64,
    /// Most rows, the largest; `None` = all above the threshold.
    pub limit: Option<usize>,
    /// Sites to keep.
    pub filter: Option<Filter>,
    /// The interpreter's and allocators' frames too.
    pub all_frames: bool,
}

/// A row of `tree`.
#[derive(Clone, Debug)]
pub struct TreeRow {
    /// Index of the row it hangs from.
    pub parent: Option<usize>,
    /// Rows above it.
    pub depth: usize,
    /// Its frame.
    pub frame: FrameId,
    /// Figures of all stacks through it, on this path.
    pub figures: Figures,
    /// Of the measure: what stacks that end here hold.
    pub own: i64,
    /// Domain of its sites, where they agree.
    pub domain: Option<Domain>,
    /// How many of its branches are not shown.
    pub rest_branches: usize,
    /// Their figures.
    pub rest: Figures,
}

/// An answer of `tree`.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The question.
    pub query: TreeQuery,
    /// Its rows, depth first, larger branches first.
    pub rows: Vec<TreeRow>,
    /// How many rows there are without threshold and limit.
    pub total_rows: usize,
    /// How many roots are not shown.
    pub rest_roots: usize,
    /// Figures of the roots that are not shown.
    pub rest_of_roots: Figures,
    /// What all branches that are not shown add up to.
    pub rest: Figures,
    /// What everything adds up to.
    pub sum: Figures,
    weight: i64,
}

struct Branch {
    parent: Option<usize>,
    frame: FrameId,
    figures: Figures,
    own: i64,
    domain: Option<Domain>,
    /// Its size, or the largest of its branches' where they cancel out.
    weight: u64,
    shown: bool,
}

impl Tree {
    /// Answers `query`.
    pub fn new<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, query: TreeQuery) -> Self {
        let size = |figures: &Figures| figures.measure(query.measure, query.unit);
        let mut branches: Vec<Branch> = Vec::new();
        let mut index: FxHashMap<(Option<usize>, FrameId), usize> = FxHashMap::default();
        let mut matching = Matching::new(query.filter.as_ref());
        let mut sum = Figures::default();
        let mut weight = 0_i64;
        let mut stack = Vec::new();
        for (site, figures) in model.sites().iter().zip(model.figures(&query.span)) {
            let shown =
                size(&figures) != 0 && matching.site(model, stacks, site.node, site.process);
            if !shown {
                continue;
            }
            sum.add(&figures);
            weight = weight.saturating_add(size(&figures).saturating_abs());
            stacks.stack_into(model, site.node, &mut stack);
            if !query.all_frames && stack.iter().any(|&id| stacks.is_shown(id)) {
                stack.retain(|&id| stacks.is_shown(id));
            }
            if stack.is_empty() {
                stack.push(stacks.not_known());
            }
            if !query.inverted {
                stack.reverse();
            }
            let mut parent = None;
            for &frame in &stack {
                let at = *index.entry((parent, frame)).or_insert_with(|| {
                    branches.push(Branch {
                        parent,
                        frame,
                        figures: Figures::default(),
                        own: 0,
                        domain: Some(site.domain),
                        weight: 0,
                        shown: false,
                    });
                    branches.len() - 1
                });
                let branch = &mut branches[at];
                branch.figures.add(&figures);
                if branch.domain != Some(site.domain) {
                    branch.domain = None;
                }
                parent = Some(at);
            }
            if let Some(at) = parent {
                branches[at].own = branches[at].own.saturating_add(size(&figures));
            }
        }
        choose(&mut branches, &query, weight);
        arrange(&branches, query, sum, weight)
    }

    /// The frames from a root to a row, the row's own last.
    pub fn path(&self, row: usize) -> Vec<FrameId> {
        let mut path = Vec::new();
        let mut at = Some(row);
        while let Some(row) = at.and_then(|at| self.rows.get(at)) {
            path.push(row.frame);
            at = row.parent;
        }
        path.reverse();
        path
    }

    /// A row's part of the whole, 0 to 1; below 0 where it shrank.
    pub fn share(&self, row: &TreeRow) -> f64 {
        self.share_of(&row.figures)
    }

    /// The part of the whole that some figures are.
    pub fn share_of(&self, figures: &Figures) -> f64 {
        if self.weight == 0 {
            return 0.0;
        }
        figures.measure(self.query.measure, self.query.unit) as f64 / self.weight as f64
    }
}

/// Marks the branches to show: above the threshold, and the largest where
/// there are more than the limit. A shown branch's parent is shown.
fn choose(branches: &mut [Branch], query: &TreeQuery, whole: i64) {
    for at in (0..branches.len()).rev() {
        let branch = &mut branches[at];
        let size = branch
            .figures
            .measure(query.measure, query.unit)
            .unsigned_abs();
        branch.weight = branch.weight.max(size);
        let (weight, parent) = (branch.weight, branch.parent);
        if let Some(parent) = parent {
            branches[parent].weight = branches[parent].weight.max(weight);
        }
    }
    let least = query.threshold.clamp(0.0, 1.0) * whole as f64;
    let mut chosen: Vec<usize> = (0..branches.len())
        .filter(|&at| branches[at].weight as f64 >= least)
        .collect();
    if let Some(limit) = query.limit
        && chosen.len() > limit
    {
        // Stable: of equals the parent, which has the smaller index, first.
        chosen.sort_by_key(|&at| std::cmp::Reverse(branches[at].weight));
        chosen.truncate(limit);
    }
    for at in chosen {
        branches[at].shown = true;
    }
}

fn arrange(branches: &[Branch], query: TreeQuery, sum: Figures, weight: i64) -> Tree {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); branches.len()];
    let mut roots = Vec::new();
    let mut rest = Figures::default();
    let mut rest_of = vec![(0_usize, Figures::default()); branches.len()];
    let mut rest_of_roots = (0_usize, Figures::default());
    for (at, branch) in branches.iter().enumerate() {
        match branch.parent {
            _ if branch.shown => match branch.parent {
                Some(parent) => children[parent].push(at),
                None => roots.push(at),
            },
            Some(parent) if !branches[parent].shown => {}
            parent => {
                rest.add(&branch.figures);
                let of = parent.map_or(&mut rest_of_roots, |parent| &mut rest_of[parent]);
                of.0 += 1;
                of.1.add(&branch.figures);
            }
        }
    }
    // Smallest first: they are taken from the end.
    let order = |ids: &mut Vec<usize>| {
        ids.sort_by(|&one, &other| {
            let (one, other) = (&branches[one], &branches[other]);
            one.figures
                .measure(query.measure, query.unit)
                .cmp(&other.figures.measure(query.measure, query.unit))
                .then(one.figures.total_bytes.cmp(&other.figures.total_bytes))
                .then(other.frame.cmp(&one.frame))
        });
    };
    order(&mut roots);
    let mut rows: Vec<TreeRow> = Vec::new();
    let mut pending: Vec<(usize, Option<usize>, usize)> =
        roots.into_iter().map(|root| (root, None, 0)).collect();
    while let Some((at, parent, depth)) = pending.pop() {
        let branch = &branches[at];
        let row = rows.len();
        let mut below = std::mem::take(&mut children[at]);
        order(&mut below);
        pending.extend(below.into_iter().map(|child| (child, Some(row), depth + 1)));
        rows.push(TreeRow {
            parent,
            depth,
            frame: branch.frame,
            figures: branch.figures,
            own: branch.own,
            domain: branch.domain,
            rest_branches: rest_of[at].0,
            rest: rest_of[at].1,
        });
    }
    Tree {
        rows,
        total_rows: branches.len(),
        rest_roots: rest_of_roots.0,
        rest_of_roots: rest_of_roots.1,
        rest,
        sum,
        query,
        weight,
    }
}
