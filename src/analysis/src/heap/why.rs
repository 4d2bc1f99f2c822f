//! Who holds what was asked for, in steps that a person reads.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::graph::{EdgeKind, NONE, RootKind};
use super::paths::Root;
use super::shapes::{Label, Shapes};
use super::{Heap, graph};

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Where most memory gathers.
    Gathered,
    /// Objects of types of that name.
    Type(String),
    /// Objects whose blocks come from sites, by their numbers, rising.
    Sites(Vec<u32>),
    /// The object at an address.
    Address(u64),
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Why {
    /// What there is of what was asked for.
    pub groups: Vec<Group>,
    /// How many there are without the limit.
    pub total_groups: usize,
    /// The object that was asked for.
    pub object: Option<Object>,
    /// How many Python objects the heap has, and what all that is held comes to.
    pub objects: u64,
    /// Bytes of all of them and of the native blocks that they point to.
    pub bytes: u64,
    /// Objects that nothing holds, and their bytes.
    pub garbage: (u64, u64),
}

/// Objects that belong together.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Their types, those with most bytes first.
    pub types: Vec<OfType>,
    /// How many.
    pub count: u64,
    /// Their own bytes.
    pub bytes: u64,
    /// Bytes that would be free without them.
    pub retained: u64,
    /// Of these, native blocks'.
    pub native: u64,
    /// By which paths they are held, that of most bytes first.
    pub paths: Vec<Path>,
    /// How many there are without the limit.
    pub total_paths: usize,
}

/// Objects of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfType {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Their own bytes.
    pub bytes: u64,
}

/// A way from a root to objects.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// Where it begins.
    pub root: Option<RootKind>,
    /// Steps, the root's first.
    pub steps: Vec<Step>,
    /// What the objects of the last step hold, most bytes first.
    pub below: Vec<Step>,
    /// The path in a line: `app.cache.SESSIONS[*].history`.
    pub words: String,
    /// Where not only the step before keeps the objects of the last: what else refers
    /// to them, in a line each, and to how many.
    pub others: Vec<(String, u64)>,
}

impl Path {
    /// What lets go, where the path begins with what a notebook or an interpreter at a
    /// prompt keeps by itself: results that it showed, and the last exception.
    pub fn remedy(&self) -> Option<&'static str> {
        if self.root != Some(RootKind::Module) {
            return None;
        }
        remedy(&self.words)
    }
}

/// By the path in a line.
fn remedy(words: &str) -> Option<&'static str> {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    if let Some(name) = words.strip_prefix("__main__.") {
        let is_result = name.starts_with("Out[") || name.starts_with("_oh[") || {
            let rest = name.trim_start_matches('_');
            let dashes = name.len() - rest.len();
            let number = rest.trim_start_matches(|next: char| next.is_ascii_digit());
            dashes > 0 && ends(number) && (dashes == 1 || (dashes <= 3 && number == rest))
        };
        return is_result.then_some(
            "Held by the notebook, which keeps what its cells showed: `%reset -f out` frees all \
             of it, `del Out[N]` and `del _N` one",
        );
    }
    let name = words.strip_prefix("sys.last_")?;
    let of = ["value", "traceback", "exc", "type"];
    let rest = of.iter().find_map(|of| name.strip_prefix(of))?;
    ends(rest).then_some(
        "Held by the last exception that was shown, with the variables of its frames: \
         `sys.last_value = sys.last_traceback = sys.last_exc = None` frees it",
    )
}

/// Objects that the same step leads to.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The reference, in words.
    pub edge: String,
    /// The objects' types: of a step of a path it is one; none of a root that is no object.
    pub types: Vec<String>,
    /// Of a dict, the type of its keys.
    pub keys: Option<String>,
    /// The key of a dict under which the object at `address` is its value, as `'user-42'`, where
    /// that was recorded. If it is the only one, what leads to it is this key.
    pub key: Option<String>,
    /// How many objects.
    pub count: u64,
    /// Their own bytes.
    pub shallow: u64,
    /// Bytes that would be free without them.
    pub retained: u64,
    /// Of these, native blocks'.
    pub native: u64,
    /// How many of them only the step before keeps.
    pub only: u64,
    /// One of them; of a dict's values one whose key is known, if there is one.
    pub address: Option<u64>,
    /// The site that most of them come from.
    pub site: Option<u32>,
    /// They hold each other, as in a linked list.
    pub repeats: bool,
    /// By how many, and by how many bytes retained, they grew since an earlier graph.
    pub since: Option<(i64, i64)>,
}

/// An object.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Where it is.
    pub address: u64,
    /// Its type.
    pub type_name: String,
    /// What it calls itself.
    pub title: Option<String>,
    /// Its own bytes.
    pub bytes: u64,
    /// References that it counts.
    pub references: u32,
    /// Those that no object explains.
    pub unexplained: u32,
    /// Of these, those that are nowhere in memory.
    pub lost: u32,
    /// It lives for ever, and does not count.
    pub is_immortal: bool,
    /// What refers to it: how, and what that is.
    pub holders: Vec<Holder>,
    /// How many references there are without the limit.
    pub total_holders: usize,
    /// What it refers to.
    pub referents: Vec<Holder>,
    /// How many there are without the limit.
    pub total_referents: usize,
}

/// The other end of a reference.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// The reference, in words.
    pub edge: String,
    /// Its type.
    pub type_name: String,
    /// Where it is.
    pub address: u64,
    /// Its path in a line.
    pub words: String,
}

/// Most holders and referents of one object that are listed.
const MOST_HOLDERS: usize = 12;
/// Shares of what is retained, in percent: what is worth a line below a path, and what
/// makes an object one of those that matter at all.
const WORTH_A_LINE: u64 = 5;
const MATTERS: u64 = 1;

impl Heap {
    /// Answers. At most `most` paths of each group (of what gathers memory, groups).
    pub fn why(&self, asked: &Asked, most: usize) -> Why {
        let graph = &self.graph;
        let garbage = self.paths.garbage();
        let objects = 0..graph.len() as u32;
        let mut why = Why {
            objects: graph.objects() as u64,
            bytes: sum(objects.map(|node| graph.bytes(node))),
            garbage: (
                garbage.len() as u64,
                sum(garbage.iter().map(|&node| graph.bytes(node))),
            ),
            ..Why::default()
        };
        match asked {
            Asked::Gathered => {
                let mut gathered = self.gathered();
                why.total_groups = gathered.len();
                gathered.truncate(most);
                why.groups = gathered
                    .into_iter()
                    .map(|points| self.group(&points, &points, 1))
                    .collect();
                why.groups.sort_by_key(|group| Reverse(group.retained));
            }
            Asked::Type(_) | Asked::Sites(_) => {
                let members = self.members(asked);
                if !members.is_empty() {
                    let tops = match asked {
                        Asked::Sites(_) => self.tops(&members),
                        _ => members.clone(),
                    };
                    why.groups.push(self.group(&members, &tops, most));
                    why.total_groups = 1;
                }
            }
            Asked::Address(address) => {
                if let Some(node) = graph.at(*address) {
                    why.object = Some(self.object(node));
                    why.groups.push(self.group(&[node], &[node], most));
                    why.total_groups = 1;
                }
            }
        }
        why
    }

    /// The objects that are asked for by type or site.
    fn members(&self, asked: &Asked) -> Vec<u32> {
        let graph = &self.graph;
        let nodes = 0..graph.len() as u32;
        match asked {
            Asked::Type(name) => {
                let is_asked = types_named(graph, name);
                nodes
                    .filter(|&node| is_asked[graph.type_of(node) as usize])
                    .collect()
            }
            Asked::Sites(sites) => nodes
                .filter(|&node| {
                    let site = graph.site(node);
                    site.is_some_and(|site| sites.binary_search(&site).is_ok())
                })
                .collect(),
            Asked::Gathered | Asked::Address(_) => Vec::new(),
        }
    }

    /// Of objects, those that no others of them hold but their like.
    fn tops(&self, members: &[u32]) -> Vec<u32> {
        let mut is_member = vec![false; self.graph.len()];
        for &node in members {
            is_member[node as usize] = true;
        }
        let mut within = vec![NONE; self.graph.len()];
        let mut tops = Vec::new();
        for &node in self.paths.order() {
            let parent = self.paths.parent(node);
            let above = parent.map_or(NONE, |(parent, _)| within[parent as usize]);
            let shape = self.shapes.of(node);
            within[node as usize] = above;
            if is_member[node as usize] && (above == NONE || above == shape) {
                tops.push(node);
                within[node as usize] = shape;
            }
        }
        tops
    }

    /// Objects that hold much, which is spread over many: alike ones together, those
    /// with most first.
    fn gathered(&self) -> Vec<Vec<u32>> {
        let Heap {
            graph,
            dominators,
            shapes,
            ..
        } = self;
        let held = dominators.order().iter().map(|&node| graph.bytes(node));
        let floor = (sum(held) / 100 * MATTERS).max(1);
        // By node, what of it lies below others that hold much.
        let mut passed_on: FxHashMap<u32, u64> = FxHashMap::default();
        let is_much = |node: u32| dominators.retained(node) >= floor;
        for &node in dominators.order() {
            if is_much(node)
                && let Some(above) = dominators.of(node)
            {
                let passed_on = passed_on.entry(above).or_default();
                *passed_on = passed_on.saturating_add(dominators.retained(node));
            }
        }
        // Once memory has gathered at a node, what is below does not count.
        let mut is_below = vec![false; graph.len()];
        let mut points: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for &node in dominators.order() {
            let above = dominators.of(node);
            if above.is_some_and(|above| is_below[above as usize]) {
                is_below[node as usize] = true;
                // A list's or tree's nodes are one place.
                if shapes.repeats(shapes.of(node))
                    && let Some(points) = points.get_mut(&shapes.of(node))
                {
                    points.push(node);
                }
                continue;
            }
            if !is_much(node) {
                continue;
            }
            let is_namespace =
                shapes.is_hidden(node) || matches!(shapes.label(shapes.of(node)), Label::Root(..));
            let below = passed_on.get(&node).copied().unwrap_or(0);
            let spreads = below < dominators.retained(node) / 2;
            let repeats = shapes.repeats(shapes.of(node));
            if !is_namespace && (spreads || repeats) {
                is_below[node as usize] = true;
                points.entry(shapes.of(node)).or_default().push(node);
            }
        }
        let mut points: Vec<Vec<u32>> = points.into_values().collect();
        points.sort_by_key(|nodes| {
            let retained = sum(nodes.iter().map(|&node| dominators.retained(node)));
            (Reverse(retained), nodes[0])
        });
        points
    }

    fn group(&self, members: &[u32], tops: &[u32], most: usize) -> Group {
        let union = self.union(&[tops.to_vec()]);
        let mut clusters: FxHashMap<(u32, bool), Vec<u32>> = FxHashMap::default();
        for &node in tops {
            let key = (self.shapes.of(node), self.shapes.is_hidden(node));
            clusters.entry(key).or_default().push(node);
        }
        let mut clusters: Vec<_> = clusters.into_iter().collect();
        let total_paths = clusters.len();
        clusters.sort_by_cached_key(|(key, nodes)| {
            let retained = sum(nodes.iter().map(|&node| self.free_without(node)));
            (Reverse(retained), Reverse(nodes.len()), *key)
        });
        // What is a step of a longer path that is shown, is shown there.
        let mut passed: Vec<u32> = Vec::new();
        for (key, nodes) in clusters.iter().take(most.max(1)) {
            let type_ = nodes.first().map(|&node| self.graph.type_of(node));
            let steps = self.shapes.steps(key.0);
            let before = steps.iter().rev().skip(1);
            passed.extend(before.filter(|&&step| self.shapes.type_of(step) == type_));
        }
        let before = clusters.len();
        clusters.retain(|(key, _)| key.1 || !passed.contains(&key.0));
        let total_paths = total_paths - (before - clusters.len());
        clusters.truncate(most.max(1));
        let mut paths: Vec<Path> = clusters
            .iter()
            .map(|(key, nodes)| self.path(*key, nodes))
            .collect();
        paths.sort_by_key(|path| Reverse(path.steps.last().map(|step| step.retained)));
        Group {
            types: self.types(members),
            count: members.len() as u64,
            bytes: sum(members.iter().map(|&node| self.graph.bytes(node))),
            retained: union[0].retained,
            native: union[0].native,
            paths,
            total_paths,
        }
    }

    /// What would be free without it; its own bytes where it is free already.
    fn free_without(&self, node: u32) -> u64 {
        let retained = self.dominators.retained(node);
        retained.max(self.graph.bytes(node))
    }

    pub(super) fn types(&self, members: &[u32]) -> Vec<OfType> {
        let mut types: FxHashMap<u32, (u64, u64)> = FxHashMap::default();
        for &node in members {
            let sum = types.entry(self.graph.type_of(node)).or_default();
            sum.0 += 1;
            sum.1 = sum.1.saturating_add(self.graph.bytes(node));
        }
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by_key(|&(type_, (count, bytes))| (Reverse(bytes), Reverse(count), type_));
        types
            .into_iter()
            .map(|(type_, (count, bytes))| OfType {
                name: self.graph.name_of_type(type_).to_owned(),
                count,
                bytes,
            })
            .collect()
    }

    /// The way to objects of one shape.
    fn path(&self, (shape, is_hidden): (u32, bool), members: &[u32]) -> Path {
        let shapes = &self.shapes;
        let chain = shapes.steps(shape);
        let mut steps = self.figures(shape, is_hidden, members);
        let mut path = Path {
            root: match chain.first().map(|&first| shapes.label(first)) {
                Some(Label::Root(kind, _)) => Some(kind),
                _ => None,
            },
            words: self.words(shape, is_hidden, &sole_keys(&steps)),
            ..Path::default()
        };
        let (mut nodes, mut children) = self.children(members);
        // Where nearly all of it is of one kind, a step more says more.
        let retained = steps.last().map_or(0, |step| step.retained);
        if let [one] = &children[..]
            && one.retained > retained / 2
            && members.len() < 64
            && nodes.len() > 4 * members.len()
        {
            let key = (shapes.of(nodes[0]), false);
            if shapes.parent(key.0) == Some(shape)
                && nodes.iter().all(|&node| shapes.of(node) == key.0)
            {
                steps = self.figures(key.0, false, &nodes);
                path.words = self.words(key.0, false, &sole_keys(&steps));
                (nodes, children) = self.children(&nodes);
            }
        }
        drop(nodes);
        if steps.len() > 2 && steps.last().is_some_and(|step| step.only < step.count) {
            path.others = self.others(members);
        }
        path.steps = steps;
        path.below = children;
        path
    }

    /// What refers to objects besides what does on their paths.
    fn others(&self, members: &[u32]) -> Vec<(String, u64)> {
        const MOST: usize = 3;
        let mut is_member = vec![false; self.graph.len()];
        for &node in members {
            is_member[node as usize] = true;
        }
        let mut counts: FxHashMap<(u32, bool), u64> = FxHashMap::default();
        for holder in 0..self.graph.len() as u32 {
            if is_member[holder as usize] {
                continue;
            }
            for edge in self.graph.edges_of(holder) {
                let target = self.graph.target(edge);
                let is_other = is_member[target as usize]
                    && self
                        .paths
                        .parent(target)
                        .is_none_or(|(parent, _)| parent != holder);
                if is_other {
                    let key = (self.shapes.of(holder), self.shapes.is_hidden(holder));
                    *counts.entry(key).or_default() += 1;
                }
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(key, count)| (Reverse(count), key));
        counts.truncate(MOST);
        counts
            .into_iter()
            .map(|((shape, is_hidden), count)| (self.words(shape, is_hidden, &[]), count))
            .collect()
    }

    /// The figures of each step on the way to objects of one shape.
    fn figures(&self, shape: u32, is_hidden: bool, members: &[u32]) -> Vec<Step> {
        let (graph, shapes) = (&self.graph, &self.shapes);
        let mut chain = shapes.steps(shape);
        if is_hidden {
            chain.push(NONE);
        }
        let lists = self.lists(&chain, members);
        let unions = self.union(&lists);
        chain
            .iter()
            .zip(&lists)
            .zip(unions)
            .map(|((&step, nodes), union)| {
                let is_of_dict = step != NONE && shapes.label(step) == Label::Each;
                let keyed = is_of_dict.then(|| self.keyed(nodes)).flatten();
                let first = keyed.map(|(node, _)| node).or(nodes.first().copied());
                let type_name = match shapes.type_of(step) {
                    Some(type_) => Some(graph.name_of_type(type_)),
                    None if step == NONE => first.map(|node| graph.type_name(node)),
                    None => None,
                };
                Step {
                    edge: if step == NONE {
                        ".__dict__".into()
                    } else {
                        shapes.words(shapes.label(step))
                    },
                    types: type_name.map(str::to_owned).into_iter().collect(),
                    keys: first.and_then(|node| self.keys(node)),
                    key: keyed.map(|(_, key)| key.to_owned()),
                    count: nodes.len() as u64,
                    shallow: sum(nodes.iter().map(|&node| graph.bytes(node))),
                    retained: union.retained,
                    native: union.native,
                    only: union.only,
                    address: first.map(|node| graph.address(node)),
                    site: self.usual_site(nodes),
                    repeats: shapes.repeats(step),
                    since: None,
                }
            })
            .collect()
    }

    /// Objects on the way to `members`, by step.
    fn lists(&self, chain: &[u32], members: &[u32]) -> Vec<Vec<u32>> {
        let mut lists = vec![Vec::new(); chain.len()];
        let Some(last) = chain.len().checked_sub(1) else {
            return lists;
        };
        let places: FxHashMap<u32, usize> =
            (0..).zip(chain).map(|(at, &step)| (step, at)).collect();
        let mut is_seen = vec![false; self.graph.len()];
        for &node in members {
            is_seen[node as usize] = true;
        }
        lists[last] = members.to_vec();
        for &member in members {
            let mut at = member;
            while let Some((parent, _)) = self.paths.parent(at) {
                if std::mem::replace(&mut is_seen[parent as usize], true) {
                    break;
                }
                if !self.shapes.is_hidden(parent)
                    && let Some(&place) = places.get(&self.shapes.of(parent))
                {
                    lists[place].push(parent);
                }
                at = parent;
            }
        }
        lists
    }

    /// What would be free without the objects of each list: those that another of the
    /// list keeps count once. Lists beyond 64 are not looked at.
    fn union(&self, lists: &[Vec<u32>]) -> Vec<Union> {
        let mut unions = vec![Union::default(); lists.len()];
        let mut own = vec![0_u64; self.graph.len()];
        for (at, list) in lists.iter().enumerate().take(64) {
            for &node in list {
                own[node as usize] |= 1 << at;
            }
        }
        for &node in self.dominators.order() {
            let above = self.dominators.of(node);
            let above = above.map_or(0, |above| own[above as usize]);
            let mut here = own[node as usize];
            own[node as usize] |= above;
            while here != 0 {
                let at = here.trailing_zeros() as usize;
                here &= here - 1;
                let union = &mut unions[at];
                if at > 0 && above & (1 << (at - 1)) != 0 {
                    union.only += 1;
                }
                if above & (1 << at) == 0 {
                    union.add(self.dominators.retained(node), self.dominators.native(node));
                }
            }
        }
        for &node in self.paths.garbage() {
            let mut here = own[node as usize];
            while here != 0 {
                unions[here.trailing_zeros() as usize].add(self.graph.bytes(node), 0);
                here &= here - 1;
            }
        }
        unions
    }

    /// What only `members` keep, at once: by step, and the objects of the largest.
    fn children(&self, members: &[u32]) -> (Vec<u32>, Vec<Step>) {
        let (graph, shapes, dominators) = (&self.graph, &self.shapes, &self.dominators);
        let mut is_member = vec![false; graph.len()];
        for &node in members {
            is_member[node as usize] = true;
        }
        let mut sums: FxHashMap<Label, FxHashMap<u32, Vec<u32>>> = FxHashMap::default();
        for &node in dominators.order() {
            let mut above = dominators.of(node);
            while let Some(hidden) = above
                && shapes.is_hidden(hidden)
                && !is_member[hidden as usize]
            {
                above = dominators.of(hidden);
            }
            let Some(above) = above.filter(|&above| is_member[above as usize]) else {
                continue;
            };
            if is_member[node as usize] || shapes.is_hidden(node) {
                continue;
            }
            let shape = shapes.of(node);
            let label = if shapes.parent(shape) == Some(shapes.of(above)) {
                shapes.label(shape)
            } else {
                Label::Other
            };
            let of_label = sums.entry(label).or_default();
            of_label.entry(graph.type_of(node)).or_default().push(node);
        }
        let retained = |nodes: &[u32]| sum(nodes.iter().map(|&node| dominators.retained(node)));
        let mut children: Vec<(Step, Vec<u32>)> = sums
            .into_iter()
            .map(|(label, types)| {
                let mut types: Vec<(u32, Vec<u32>)> = types.into_iter().collect();
                types.sort_by_cached_key(|(type_, nodes)| (Reverse(retained(nodes)), *type_));
                let names = types.iter().map(|(type_, _)| graph.name_of_type(*type_));
                let types_named: Vec<String> = names.map(str::to_owned).collect();
                let nodes: Vec<u32> = types.into_iter().flat_map(|(_, nodes)| nodes).collect();
                let native = nodes.iter().map(|&node| dominators.native(node));
                let keyed = (label == Label::Each).then(|| self.keyed(&nodes)).flatten();
                let first = keyed.map(|(node, _)| node).or(nodes.first().copied());
                let step = Step {
                    edge: shapes.words(label),
                    types: types_named,
                    keys: first.and_then(|node| self.keys(node)),
                    key: keyed.map(|(_, key)| key.to_owned()),
                    count: nodes.len() as u64,
                    shallow: sum(nodes.iter().map(|&node| graph.bytes(node))),
                    retained: retained(&nodes),
                    native: sum(native),
                    only: nodes.len() as u64,
                    address: first.map(|node| graph.address(node)),
                    site: self.usual_site(&nodes),
                    repeats: false,
                    since: None,
                };
                (step, nodes)
            })
            .collect();
        children.sort_by(|(one, _), (other, _)| {
            let key = |step: &Step| Reverse(step.retained);
            key(one)
                .cmp(&key(other))
                .then_with(|| one.edge.cmp(&other.edge))
        });
        let all = sum(members.iter().map(|&node| dominators.retained(node)));
        children.retain(|(step, _)| step.retained > all / 100 * WORTH_A_LINE);
        children.truncate(3);
        let nodes = children
            .first()
            .map_or(Vec::new(), |(_, nodes)| nodes.clone());
        (nodes, children.into_iter().map(|(step, _)| step).collect())
    }

    /// The site that most of the first of these come from.
    pub(super) fn usual_site(&self, nodes: &[u32]) -> Option<u32> {
        const ENOUGH: usize = 4096;
        let mut counts: FxHashMap<u32, usize> = FxHashMap::default();
        for &node in nodes.iter().take(ENOUGH) {
            if let Some(site) = self.graph.site(node) {
                *counts.entry(site).or_default() += 1;
            }
        }
        let counts: Vec<_> = counts.into_iter().collect();
        let most = counts
            .into_iter()
            .max_by_key(|&(site, count)| (count, Reverse(site)));
        most.map(|(site, _)| site)
    }

    /// The type of a dict's keys.
    fn keys(&self, node: u32) -> Option<String> {
        let edges = self.graph.edges_of(node);
        // All of a dict are of a kind, as a rule.
        edges.take(8).find_map(|edge| match self.graph.edge(edge) {
            EdgeKind::Item(type_) => Some(self.graph.name_of_type(type_).to_owned()),
            EdgeKind::NamedItem(_) => Some("str".to_owned()),
            _ => None,
        })
    }

    /// Of a dict's values, one whose key is known, and that.
    fn keyed(&self, nodes: &[u32]) -> Option<(u32, &str)> {
        const ENOUGH: usize = 4096;
        nodes.iter().take(ENOUGH).find_map(|&node| {
            let (parent, edge) = self.paths.parent(node)?;
            Some((node, self.graph.key_of(parent, edge)?))
        })
    }

    /// On the path of an object the keys of dicts, by step; none where a step comes again.
    fn keys_to(&self, node: u32) -> Vec<Option<&str>> {
        let shapes = &self.shapes;
        let chain = shapes.steps(shapes.of(node));
        let mut found: Vec<(Option<&str>, bool)> = vec![(None, false); chain.len()];
        let mut at = node;
        while let Some((parent, edge)) = self.paths.parent(at) {
            let place = chain.iter().position(|&step| step == shapes.of(at));
            if let Some(place) = place
                && !shapes.is_hidden(at)
            {
                let (key, is_met) = &mut found[place];
                let is_first = !std::mem::replace(is_met, true);
                *key = is_first.then(|| self.graph.key_of(parent, edge)).flatten();
            }
            at = parent;
        }
        found.into_iter().map(|(key, _)| key).collect()
    }

    /// A path in a line, with the keys of dicts that are known, by step.
    fn words(&self, shape: u32, is_hidden: bool, keys: &[Option<&str>]) -> String {
        let shapes = &self.shapes;
        let sole = |at: usize, step| {
            keys.get(at)
                .copied()
                .flatten()
                .filter(|_| !shapes.repeats(step))
        };
        let mut words = String::new();
        for (at, step) in shapes.steps(shape).into_iter().enumerate() {
            let label = shapes.label(step);
            if let Some(key) = sole(at, step) {
                words.push_str(&in_brackets(key));
                continue;
            }
            let text = shapes.words(label);
            match label {
                Label::Root(RootKind::Module, _) => {
                    words.push_str(text.strip_prefix("module ").unwrap_or(&text));
                }
                Label::Variable(_) | Label::Closure(_) | Label::Block | Label::Other
                    if !words.is_empty() =>
                {
                    words.push(' ');
                    words.push_str(&text);
                }
                Label::Each
                    if shapes
                        .parent(step)
                        .is_some_and(|root| shapes.type_of(root).is_none()) =>
                {
                    words.push(' ');
                    let type_ = shapes.type_of(step);
                    words.push_str(type_.map_or("", |type_| self.graph.name_of_type(type_)));
                }
                _ => words.push_str(&text),
            }
            if shapes.repeats(step) {
                words.push_str("...");
            }
        }
        if is_hidden {
            words.push_str(".__dict__");
        }
        words
    }

    fn object(&self, node: u32) -> Object {
        let graph = &self.graph;
        let mut object = Object {
            address: graph.address(node),
            type_name: graph.type_name(node).to_owned(),
            title: graph.title(node).map(str::to_owned),
            bytes: graph.bytes(node),
            references: graph.references(node),
            unexplained: graph.unexplained()[node as usize],
            lost: self.lost(node),
            is_immortal: graph.is_immortal(node),
            ..Object::default()
        };
        let other = |other: u32, holder: u32, edge: usize| Holder {
            edge: self.edge_words(holder, edge),
            type_name: graph.type_name(other).to_owned(),
            address: graph.address(other),
            words: self.words(
                self.shapes.of(other),
                self.shapes.is_hidden(other),
                &self.keys_to(other),
            ),
        };
        for holder in 0..graph.len() as u32 {
            for edge in graph.edges_of(holder) {
                if graph.target(edge) == node {
                    object.total_holders += 1;
                    if object.holders.len() < MOST_HOLDERS {
                        object.holders.push(other(holder, holder, edge));
                    }
                }
            }
        }
        let edges = graph.edges_of(node);
        object.total_referents = edges.len();
        object.referents = edges
            .take(MOST_HOLDERS)
            .map(|edge| other(graph.target(edge), node, edge))
            .collect();
        object
    }

    /// A reference of an object by itself, in words.
    fn edge_words(&self, holder: u32, edge: usize) -> String {
        let graph = &self.graph;
        match graph.edge(edge) {
            EdgeKind::Attribute(name) => format!(".{}", graph.name(name)),
            EdgeKind::NamedItem(name) => format!("[\"{}\"]", graph.name(name)),
            EdgeKind::Item(type_) => match graph.key_of(holder, edge) {
                Some(key) => in_brackets(key),
                None => format!("[{}]", graph.name_of_type(type_)),
            },
            EdgeKind::Key => "[key]".into(),
            EdgeKind::Index(place) => format!("[{place}]"),
            EdgeKind::Local(name) => graph.name(name).to_owned(),
            EdgeKind::Untold => "(native)".into(),
            EdgeKind::Other => "(ref)".into(),
        }
    }

    /// Says of each step of a later answer by how much it grew since this graph, which is
    /// an earlier one of the same heap.
    pub fn compare(&self, asked: &Asked, why: &mut Why) {
        if let Asked::Address(_) = asked {
            return;
        }
        let mut asked_for = vec![matches!(asked, Asked::Gathered); self.graph.len()];
        for node in self.members(asked) {
            asked_for[node as usize] = true;
        }
        for path in why.groups.iter_mut().flat_map(|group| &mut group.paths) {
            let is_hidden = path
                .steps
                .last()
                .is_some_and(|step| step.edge == ".__dict__");
            let shown = path.steps.len() - usize::from(is_hidden);
            let before = match self.shape_of(&path.steps[..shown]) {
                Some(shape) => {
                    let members = (0..self.graph.len() as u32).filter(|&node| {
                        self.shapes.of(node) == shape
                            && self.shapes.is_hidden(node) == is_hidden
                            && asked_for[node as usize]
                    });
                    let members: Vec<u32> = members.collect();
                    let below = self.children(&members).1;
                    (self.figures(shape, is_hidden, &members), below)
                }
                None => (Vec::new(), Vec::new()),
            };
            for (at, step) in path.steps.iter_mut().enumerate() {
                step.since = Some(step.growth(before.0.get(at)));
            }
            for step in &mut path.below {
                let before = before.1.iter().find(|before| before.edge == step.edge);
                step.since = Some(step.growth(before));
            }
        }
    }

    /// The shape with the same steps, in words.
    fn shape_of(&self, steps: &[Step]) -> Option<u32> {
        let shapes: &Shapes = &self.shapes;
        let mut at = None;
        for step in steps {
            let type_name = step.types.first().map(String::as_str);
            at = Some((0..shapes.len()).find(|&number| {
                let type_ = shapes.type_of(number);
                shapes.parent(number) == at
                    && type_.map(|type_| self.graph.name_of_type(type_)) == type_name
                    && shapes.words(shapes.label(number)) == step.edge
            })?);
        }
        at
    }

    /// What holds objects of sites: the path of most bytes, how many objects there
    /// are, their types, and how many paths there are.
    pub fn holders_of(&self, sites: &[u32]) -> Option<Group> {
        let mut why = self.why(&Asked::Sites(sites.to_vec()), 1);
        why.groups.pop()
    }

    /// Whether objects of such a type live.
    pub fn has_type(&self, name: &str) -> bool {
        let is_asked = types_named(&self.graph, name);
        (0..self.graph.len() as u32).any(|node| is_asked[self.graph.type_of(node) as usize])
    }

    /// The address of the object that a name leads to, as a program would write it:
    /// `app.cache.SESSIONS`, and of `__main__` also without that. Attributes only, as far as
    /// the graph has their names.
    pub fn object_named(&self, text: &str) -> Option<u64> {
        let roots = self.graph.roots().iter();
        let modules = roots.filter(|root| root.kind == RootKind::Module);
        // Where each begins that may be meant, and the rest of the name.
        let mut begins: Vec<(u32, Option<&str>)> = modules
            .filter_map(|root| match text.strip_prefix(root.name.as_str()) {
                Some("") => Some((root.target, None)),
                Some(rest) if rest.starts_with('.') => Some((root.target, rest.get(1..))),
                _ if root.name == "__main__" => Some((root.target, Some(text))),
                _ => None,
            })
            .collect();
        // `app.cache` is a module rather than an attribute of one.
        begins.sort_by_key(|(_, rest)| rest.map(str::len));
        let found = begins.into_iter().find_map(|(module, rest)| {
            let mut names = rest.into_iter().flat_map(|rest| rest.split('.'));
            names.try_fold(module, |node, name| self.attribute(node, name))
        });
        found.map(|node| self.graph.address(node))
    }

    /// What an object has under a name, itself or in its namespace.
    fn attribute(&self, node: u32, name: &str) -> Option<u32> {
        let graph = &self.graph;
        let under = |node: u32, name: &str| {
            let mut edges = graph.edges_of(node);
            let edge = edges.find(|&edge| match graph.edge(edge) {
                EdgeKind::Attribute(number) | EdgeKind::NamedItem(number) => {
                    graph.name(number) == name
                }
                _ => false,
            });
            edge.map(|edge| graph.target(edge))
        };
        let in_namespace = || under(under(node, "__dict__")?, name);
        under(node, name).or_else(in_namespace)
    }

    /// The types of most bytes.
    pub fn largest_types(&self, most: usize) -> Vec<OfType> {
        let all: Vec<u32> = (0..self.graph.len() as u32).collect();
        let mut types = self.types(&all);
        types.truncate(most);
        types
    }

    /// Where the paths of garbage and of what C code holds begin.
    pub fn root_of(&self, node: u32) -> Root {
        let mut at = node;
        while let Some((parent, _)) = self.paths.parent(at) {
            at = parent;
        }
        self.paths.root(at)
    }
}

/// The keys of steps with one object.
fn sole_keys(steps: &[Step]) -> Vec<Option<&str>> {
    let sole = steps.iter().map(|step| {
        let is_sole = step.count == 1 && !step.repeats;
        is_sole.then_some(step.key.as_deref()).flatten()
    });
    sole.collect()
}

fn in_brackets(key: &str) -> String {
    format!("[{key}]")
}

impl Step {
    /// What leads to its objects: `['user-42']` where that is the one key, else the edge.
    pub fn way(&self) -> std::borrow::Cow<'_, str> {
        match &self.key {
            Some(key) if self.count == 1 && !self.repeats => in_brackets(key).into(),
            _ => self.edge.as_str().into(),
        }
    }

    /// One key of many.
    pub fn example(&self) -> Option<&str> {
        self.key
            .as_deref()
            .filter(|_| self.count != 1 || self.repeats)
    }

    fn growth(&self, before: Option<&Step>) -> (i64, i64) {
        let (count, retained) = before.map_or((0, 0), |step| (step.count, step.retained));
        let less = |after: u64, before: u64| after.wrapping_sub(before) as i64;
        (less(self.count, count), less(self.retained, retained))
    }
}

#[derive(Clone, Copy, Default)]
struct Union {
    retained: u64,
    native: u64,
    /// How many of the list only the list before keeps.
    only: u64,
}

impl Union {
    fn add(&mut self, retained: u64, native: u64) {
        self.retained = self.retained.saturating_add(retained);
        self.native = self.native.saturating_add(native);
    }
}

fn sum(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(0, u64::saturating_add)
}

/// By type, whether it is of that name: with its module, without, or where the type's
/// module is not known.
fn types_named(graph: &graph::Graph, name: &str) -> Vec<bool> {
    let ends = |long: &str, short: &str| {
        let before = long.strip_suffix(short);
        !short.is_empty() && before.is_some_and(|before| before.ends_with('.'))
    };
    let by = |matches: &dyn Fn(&str) -> bool| -> Vec<bool> {
        let types = graph.types().iter();
        types.map(|type_| matches(&type_.name)).collect()
    };
    let exact = by(&|type_| type_ == name || ends(type_, name));
    if exact.contains(&true) {
        return exact;
    }
    by(&|type_| ends(name, type_))
}

#[cfg(test)]
mod tests {
    use super::remedy;

    #[test]
    fn what_a_notebook_keeps_has_a_remedy() {
        for words in [
            "__main__.Out[int]",
            "__main__._oh[int].rows",
            "__main__._",
            "__main__.___[*]",
            "__main__._12.rows",
        ] {
            assert!(
                remedy(words).is_some_and(|said| said.contains("%reset -f out")),
                "{words}"
            );
        }
        for words in [
            "sys.last_value",
            "sys.last_traceback.tb_frame",
            "sys.last_exc.args",
        ] {
            assert!(
                remedy(words).is_some_and(|said| said.contains("sys.last_value = ")),
                "{words}"
            );
        }
        for words in [
            "__main__.Output[*]",
            "__main__._cache[*]",
            "__main__.__dict__",
            "__main__._12th",
            "__main__.____",
            "app.Out[int]",
            "sys.last_values",
            "sys.modules",
            "",
        ] {
            assert_eq!(remedy(words), None, "{words}");
        }
    }
}
