//! What is wrong with references: those that were lost, cycles that CPython's collector
//! cannot see, and garbage that it has not collected.
//!
//! * A reference is **lost** where an object counts it, no object and no root explains it,
//!   and no word of the process's memory is the object's address: nobody can give it back.
//!   What C code holds, in a static variable, a structure or on a stack, is such a word.
//! * **Garbage** is what nothing holds, by the counts. A collection is played through, as
//!   CPython makes it: of an object that counts more references than tracked objects tell
//!   of, it cannot know that the rest of them is garbage, too.
//! * What such an object keeps is in a **hidden cycle**: a native object of a type without
//!   `tp_traverse` holds it, in its own memory.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Heap;
use super::graph::{EdgeKind, Graph};
use super::why::OfType;

/// What was found of a heap.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Lost references, by the objects' type and site; those of most objects first.
    pub lost: Vec<Lost>,
    /// Cycles that the collector cannot see, by the class that hides them.
    pub hidden: Vec<HiddenCycles>,
    /// What a collection would free.
    pub garbage: Garbage,
    /// Garbage that no collection looks at: it is frozen, or such holds it.
    pub frozen: (u64, u64),
    /// Whether CPython's collector ran by itself, where that is known.
    pub collects: Option<bool>,
}

/// Objects of a type and a site of which references were lost.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    /// The type's name.
    pub type_name: String,
    /// The site that made them, where that is known.
    pub site: Option<u32>,
    /// How many objects.
    pub objects: u64,
    /// For how many memory was searched in vain. Of the others an old word is left
    /// somewhere: of a kind and a place they are of one fate, once most are proven.
    pub proven: u64,
    /// How many of them nothing refers to: they would be free.
    pub unheld: u64,
    /// How many references.
    pub references: u64,
    /// The objects' bytes.
    pub bytes: u64,
    /// The one with most of them: its address, the references that it counts, and how many
    /// of these were found.
    pub example: (u64, u32, u32),
}

/// Cycles that a class hides.
#[derive(Clone, Debug, Default)]
pub struct HiddenCycles {
    /// The class: a native type without `tp_traverse`.
    pub class: String,
    /// How many objects of it.
    pub natives: u64,
    /// How many objects in all are kept.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The site that made most objects of the class.
    pub site: Option<u32>,
    /// The sites of all objects that are kept, rising, and how many each made.
    pub sites: Vec<(u32, u64)>,
    /// One of the class's objects.
    pub example: u64,
    /// What it holds, in words: types, most objects first.
    pub types: Vec<OfType>,
}

/// What a collection would free.
#[derive(Clone, Debug, Default)]
pub struct Garbage {
    /// How many objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of which types, most bytes first.
    pub types: Vec<OfType>,
    /// By site that made some, how many.
    pub sites: FxHashMap<u32, u64>,
}

/// What keeps an object that nothing holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Only that no collection has come by.
    Waiting,
    /// A class that hides its cycle: the type's number.
    Hidden(u32),
    /// It is frozen, or what is holds it.
    Frozen,
    /// It is immortal, or what is holds it: nobody counts who has it.
    Immortal,
}

/// Types of whose objects counts mean nothing, where they are counted at all.
const SINGLETONS: [&str; 4] = ["NoneType", "bool", "ellipsis", "NotImplementedType"];

/// References of each object that nobody has; `unexplained` is by node.
pub(super) fn lost(graph: &Graph, unexplained: &[u32]) -> FxHashMap<u32, u32> {
    let suspects = graph.suspects();
    let lost = suspects.filter_map(|node| {
        let left = unexplained.get(node as usize).copied().unwrap_or(0);
        let lost = graph.lost_references(node).min(left);
        let counts = lost > 0 && !SINGLETONS.contains(&graph.type_name(node));
        counts.then_some((node, lost))
    });
    lost.collect()
}

impl Heap {
    /// What is wrong with its references.
    pub fn references(&self) -> References {
        let mut found = References {
            lost: self.lost_by_site(),
            collects: self.graph.searched().and_then(|searched| searched.collects),
            ..References::default()
        };
        let kept = self.kept();
        let graph = &self.graph;
        let mut hidden: FxHashMap<u32, HiddenCycles> = FxHashMap::default();
        let mut members: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        let mut waiting = Vec::new();
        for &node in self.paths.garbage() {
            let bytes = graph.bytes(node);
            match kept.get(&node) {
                Some(&Kept::Hidden(class)) => {
                    let cycles = hidden.entry(class).or_default();
                    cycles.objects += 1;
                    cycles.bytes = cycles.bytes.saturating_add(bytes);
                    members.entry(class).or_default().push(node);
                }
                Some(Kept::Frozen) => {
                    found.frozen.0 += 1;
                    found.frozen.1 = found.frozen.1.saturating_add(bytes);
                }
                Some(Kept::Immortal) => {}
                Some(Kept::Waiting) | None => {
                    found.garbage.objects += 1;
                    found.garbage.bytes = found.garbage.bytes.saturating_add(bytes);
                    waiting.push(node);
                }
            }
        }
        found.garbage.types = self.types(&waiting);
        found.garbage.sites = self.by_site(&waiting);
        let mut hidden: Vec<(u32, HiddenCycles)> = hidden.into_iter().collect();
        hidden.sort_by_key(|(class, _)| *class);
        for (class, mut cycles) in hidden {
            let all = members.remove(&class).unwrap_or_default();
            let of_class = all.iter().copied();
            let of_class: Vec<u32> = of_class
                .filter(|&node| graph.type_of(node) == class)
                .collect();
            cycles.class = graph.name_of_type(class).into();
            cycles.natives = of_class.len() as u64;
            cycles.site = self.usual_site(&of_class);
            cycles.example = of_class.first().map_or(0, |&node| graph.address(node));
            cycles.types = self.types(&all);
            cycles.sites = self.by_site(&all).into_iter().collect();
            cycles.sites.sort_unstable();
            found.hidden.push(cycles);
        }
        found.hidden.sort_by(|one, other| {
            (Reverse(one.bytes), &one.class).cmp(&(Reverse(other.bytes), &other.class))
        });
        found
    }

    fn lost_by_site(&self) -> Vec<Lost> {
        let graph = &self.graph;
        let mut found: FxHashMap<(u32, Option<u32>), Lost> = FxHashMap::default();
        let mut most: FxHashMap<(u32, Option<u32>), u32> = FxHashMap::default();
        let key = |node: u32| (graph.type_of(node), graph.site(node));
        let mut nodes: Vec<(u32, u32)> = self
            .lost
            .iter()
            .map(|(&node, &lost)| (node, lost))
            .collect();
        // Those of which too many words are left, where most others are lost.
        let mut alike: FxHashMap<(u32, Option<u32>), (u64, Vec<u32>)> = FxHashMap::default();
        for &(node, _) in &nodes {
            alike.entry(key(node)).or_default().0 += 1;
        }
        let unexplained = graph.unexplained();
        for node in graph
            .suspects()
            .filter(|node| !self.lost.contains_key(node))
        {
            let is_unheld = graph.references(node) == unexplained[node as usize];
            if let Some(alike) = alike.get_mut(&key(node)).filter(|_| is_unheld) {
                alike.1.push(node);
            }
        }
        for (proven, others) in alike.into_values() {
            if proven > 2 * others.len() as u64 {
                nodes.extend(
                    others
                        .into_iter()
                        .map(|node| (node, graph.references(node))),
                );
            }
        }
        nodes.sort_unstable();
        for (node, lost) in nodes {
            let key = key(node);
            let group = found.entry(key).or_default();
            let references = graph.references(node);
            group.objects += 1;
            group.proven += u64::from(self.lost.contains_key(&node));
            group.unheld += u64::from(references == lost);
            group.references += u64::from(lost);
            group.bytes = group.bytes.saturating_add(graph.bytes(node));
            let most = most.entry(key).or_default();
            if lost > *most && self.lost.contains_key(&node) {
                *most = lost;
                group.example = (graph.address(node), references, references - lost);
            }
        }
        let mut found: Vec<Lost> = found
            .into_iter()
            .map(|((type_, site), lost)| Lost {
                type_name: graph.name_of_type(type_).to_owned(),
                site,
                ..lost
            })
            .collect();
        found.sort_by(|one, other| {
            let key = |lost: &Lost| (Reverse(lost.references), Reverse(lost.bytes), lost.site);
            key(one)
                .cmp(&key(other))
                .then_with(|| one.type_name.cmp(&other.type_name))
        });
        found
    }

    fn by_site(&self, nodes: &[u32]) -> FxHashMap<u32, u64> {
        let mut counts: FxHashMap<u32, u64> = FxHashMap::default();
        for site in nodes.iter().filter_map(|&node| self.graph.site(node)) {
            *counts.entry(site).or_default() += 1;
        }
        counts
    }

    /// Of garbage that a collection would not free, what keeps it.
    pub fn kept(&self) -> FxHashMap<u32, Kept> {
        let graph = &self.graph;
        let garbage = self.paths.garbage();
        let is_garbage: FxHashSet<u32> = garbage.iter().copied().collect();
        // What a collection knows of: references of tracked objects that it looks at.
        let mut known: FxHashMap<u32, u32> = FxHashMap::default();
        // Which class holds an object unseen.
        let mut hidden_by: FxHashMap<u32, u32> = FxHashMap::default();
        for &node in garbage {
            let is_looked_at = graph.is_tracked(node) && !graph.is_frozen(node);
            for edge in graph.edges_of(node) {
                let target = graph.target(edge);
                if is_looked_at && graph.edge(edge) != EdgeKind::Untold {
                    *known.entry(target).or_default() += 1;
                } else if graph.is_opaque(node) && is_garbage.contains(&target) {
                    hidden_by.entry(target).or_insert(graph.type_of(node));
                }
            }
        }
        let mut kept: FxHashMap<u32, Kept> = FxHashMap::default();
        let mut waiting = Vec::new();
        for &node in garbage {
            if graph.is_immortal(node) {
                kept.insert(node, Kept::Immortal);
                waiting.push(node);
                continue;
            }
            if !graph.is_tracked(node) {
                continue;
            }
            let why = if graph.is_frozen(node) {
                Some(Kept::Frozen)
            } else if graph.references(node) > known.get(&node).copied().unwrap_or(0) {
                hidden_by.get(&node).map(|&class| Kept::Hidden(class))
            } else {
                None
            };
            if let Some(why) = why {
                kept.insert(node, why);
                waiting.push(node);
            }
        }
        while let Some(node) = waiting.pop() {
            let why = kept[&node];
            for &target in graph.targets(node) {
                if is_garbage.contains(&target) && !kept.contains_key(&target) {
                    kept.insert(target, why);
                    waiting.push(target);
                }
            }
        }
        kept
    }
}
