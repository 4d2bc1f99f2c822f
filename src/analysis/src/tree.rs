//! `tree`: who called whom to allocate, from the outermost or the innermost
//! frame.
//!
//! # Invariants
//!
//! * A frame's parent has a smaller index, in the full tree and among rows.
//! * What a row's shown children, its own share and its rest add up to is the
//!   row.

use indexmap::IndexMap;
use leakline_recording::record::Domain;
use rustc_hash::{FxBuildHasher, FxHashMap};

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

/// A frame on a path, while it is not known yet whether it is shown: there
/// may be millions, so it holds no more than that takes.
struct Branch {
    /// Index of the branch it hangs from, or [`ROOT`].
    parent: u32,
    frame: FrameId,
    size: i64,
    /// Its size, or the largest of its branches' where they cancel out.
    weight: u64,
    shown: bool,
}

/// The parent of roots. No tree has so many branches: sites and their depth
/// are bounded.
const ROOT: u32 = u32::MAX;

impl Tree {
    /// Answers `query`.
    pub fn new<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, query: TreeQuery) -> Self {
        let mut matching = Matching::new(query.filter.as_ref());
        let mut weight = 0_i64;
        // Processes that do the same have the same stacks: one path for all.
        let mut wanted: IndexMap<(u32, Domain), Figures, FxBuildHasher> = IndexMap::default();
        model.for_each_figures(&query.span, |_, site, figures| {
            let size = figures.measure(query.measure, query.unit);
            if size != 0 && matching.site(model, stacks, site.node, site.process) {
                weight = weight.saturating_add(size.saturating_abs());
                let of_stack = wanted.entry((site.node, site.domain)).or_default();
                of_stack.add(figures);
            }
        });

        let mut branches: Vec<Branch> = Vec::new();
        let mut index: FxHashMap<(u32, FrameId), u32> = FxHashMap::default();
        let mut path = Vec::new();
        for (&(node, _), figures) in &wanted {
            let size = figures.measure(query.measure, query.unit);
            path_of(
                model,
                stacks,
                node,
                query.inverted,
                query.all_frames,
                &mut path,
            );
            let mut parent = ROOT;
            for &frame in &path {
                let at = *index.entry((parent, frame)).or_insert_with(|| {
                    branches.push(Branch {
                        parent,
                        frame,
                        size: 0,
                        weight: 0,
                        shown: false,
                    });
                    u32::try_from(branches.len() - 1).unwrap_or(ROOT - 1)
                });
                let branch = &mut branches[at as usize];
                branch.size = branch.size.saturating_add(size);
                parent = at;
            }
        }
        drop(index);
        choose(&mut branches, &query, weight);
        let total_rows = branches.len();
        let (mut tree, shown) = arrange(&branches, query, weight);
        drop(branches);

        // Only now the figures, of the rows alone.
        for (&(node, domain), figures) in &wanted {
            let TreeQuery {
                inverted,
                all_frames,
                ..
            } = tree.query;
            path_of(model, stacks, node, inverted, all_frames, &mut path);
            tree.add(&shown, &path, figures, domain);
        }
        tree.total_rows = total_rows;
        tree
    }

    /// Adds a site's figures to the rows on its path, and to the rest from
    /// where it leaves them.
    fn add(
        &mut self,
        shown: &FxHashMap<(u32, FrameId), u32>,
        path: &[FrameId],
        figures: &Figures,
        domain: Domain,
    ) {
        self.sum.add(figures);
        let mut at = ROOT;
        for &frame in path {
            let Some(&row) = shown.get(&(at, frame)) else {
                self.rest.add(figures);
                match self.rows.get_mut(at as usize) {
                    Some(row) => row.rest.add(figures),
                    None => self.rest_of_roots.add(figures),
                }
                return;
            };
            let row_at = &mut self.rows[row as usize];
            if row_at.figures == Figures::default() {
                row_at.domain = Some(domain);
            } else if row_at.domain != Some(domain) {
                row_at.domain = None;
            }
            row_at.figures.add(figures);
            at = row;
        }
        let own = figures.measure(self.query.measure, self.query.unit);
        if let Some(row) = self.rows.get_mut(at as usize) {
            row.own = row.own.saturating_add(own);
        }
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

/// The frames of a stack as the tree shows them, a root first.
pub(crate) fn path_of<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    node: u32,
    inverted: bool,
    all_frames: bool,
    path: &mut Vec<FrameId>,
) {
    stacks.stack_into(model, node, path);
    if !all_frames && path.iter().any(|&id| stacks.is_shown(id)) {
        path.retain(|&id| stacks.is_shown(id));
    }
    if path.is_empty() {
        path.push(stacks.not_known());
    }
    if !inverted {
        path.reverse();
    }
}

/// Marks the branches to show: above the threshold, and the largest where
/// there are more than the limit. A shown branch's parent is shown.
fn choose(branches: &mut [Branch], query: &TreeQuery, whole: i64) {
    for at in (0..branches.len()).rev() {
        let branch = &mut branches[at];
        branch.weight = branch.weight.max(branch.size.unsigned_abs());
        let (weight, parent) = (branch.weight, branch.parent);
        if let Some(parent) = branches.get_mut(parent as usize) {
            parent.weight = parent.weight.max(weight);
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

/// A tree of the shown branches, its figures still 0, and where to find a
/// row: by its parent's row and its frame.
fn arrange(
    branches: &[Branch],
    query: TreeQuery,
    weight: i64,
) -> (Tree, FxHashMap<(u32, FrameId), u32>) {
    let mut children: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    let mut hidden: FxHashMap<u32, usize> = FxHashMap::default();
    for (at, branch) in branches.iter().enumerate() {
        if branch.shown {
            children.entry(branch.parent).or_default().push(at);
        } else if branches
            .get(branch.parent as usize)
            .is_none_or(|parent| parent.shown)
        {
            *hidden.entry(branch.parent).or_default() += 1;
        }
    }
    // Smallest first: they are taken from the end.
    let in_order = |mut ids: Vec<usize>| {
        ids.sort_by_key(|&id| (branches[id].size, std::cmp::Reverse(branches[id].frame)));
        ids
    };
    let mut rows: Vec<TreeRow> = Vec::new();
    let mut shown = FxHashMap::default();
    let mut pending: Vec<(usize, Option<usize>, usize)> =
        in_order(children.remove(&ROOT).unwrap_or_default())
            .into_iter()
            .map(|root| (root, None, 0))
            .collect();
    while let Some((at, parent, depth)) = pending.pop() {
        let row = rows.len();
        // Rows are fewer than branches, which a `u32` counts.
        let key = |row: usize| u32::try_from(row).unwrap_or(ROOT);
        shown.insert((parent.map_or(ROOT, key), branches[at].frame), key(row));
        let below = in_order(children.remove(&key(at)).unwrap_or_default());
        pending.extend(below.into_iter().map(|child| (child, Some(row), depth + 1)));
        rows.push(TreeRow {
            parent,
            depth,
            frame: branches[at].frame,
            figures: Figures::default(),
            own: 0,
            domain: None,
            rest_branches: hidden.get(&key(at)).copied().unwrap_or(0),
            rest: Figures::default(),
        });
    }
    let tree = Tree {
        query,
        rows,
        total_rows: 0,
        rest_roots: hidden.get(&ROOT).copied().unwrap_or(0),
        rest_of_roots: Figures::default(),
        rest: Figures::default(),
        sum: Figures::default(),
        weight,
    };
    (tree, shown)
}
