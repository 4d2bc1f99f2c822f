//! By which way a root holds each object: the one that says most.
//!
//! Of all paths the cheapest: a named step costs least, a step through a class or one
//! of which only that it is there is known costs more, and so do roots that are not
//! modules. What only C code holds is looked at last, garbage after that.

use rustc_hash::FxHashMap;

use super::graph::{EdgeKind, Ended, Graph, NONE, RootKind};

/// A path to each node, as a tree.
#[derive(Debug, Default)]
pub struct Paths {
    /// By node: what refers to it on its path; `NONE` at a root.
    parent: Vec<u32>,
    /// By node: the place of the edge that does; at a root, its number.
    edge: Vec<u32>,
    /// Nodes that are reached, each after its parent.
    order: Vec<u32>,
    /// How many of those objects hold.
    held: usize,
    roots: Vec<Root>,
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// One of [`Graph::roots`].
    Told(u32),
    /// References that no object explains, so many.
    Native(u32),
    /// References that are nowhere in memory, so many.
    Lost(u32),
    /// Nothing: the object is in a cycle that nothing holds.
    Garbage,
}

/// Costs of a step. Even ones, so that a step that is not shown costs less.
const NAMED: u32 = 2;
const HIDDEN: u32 = 1;
const UNNAMED: u32 = 5;
const OF_CLASS: u32 = 9;
/// Most of them, and of roots.
const MOST: usize = 9;
const FRAME: usize = 3;
const INTERPRETER: usize = 7;

impl Paths {
    /// To all that `graph` has; `unexplained` are the references by node that only C
    /// code can have, `lost` those that it does not have either.
    pub(crate) fn new(graph: &Graph, unexplained: &[u32], lost: &FxHashMap<u32, u32>) -> Self {
        let mut paths = Paths {
            parent: vec![NONE; graph.len()],
            edge: vec![NONE; graph.len()],
            order: Vec::new(),
            held: 0,
            roots: Vec::new(),
        };
        let mut search = Search {
            cost: vec![u32::MAX; graph.len()],
            waiting: vec![Vec::new(); MOST + 1],
            is_class: graph
                .types()
                .iter()
                .map(|type_| is_class(&type_.name))
                .collect(),
            steps: graph.names().iter().map(|name| named(name)).collect(),
        };
        for (number, root) in (0..).zip(graph.roots()) {
            let cost = match root.kind {
                RootKind::Module => 0,
                RootKind::Frame => FRAME,
                RootKind::Interpreter | RootKind::Native | RootKind::Lost => INTERPRETER,
            };
            if (cost as u32) < search.cost[root.target as usize] {
                search.cost[root.target as usize] = cost as u32;
                search.waiting[cost].push(root.target);
                paths.parent[root.target as usize] = NONE;
                paths.edge[root.target as usize] = number;
            }
            paths.roots.push(Root::Told(number));
        }
        paths.spread(graph, &mut search);
        // From what C code holds, from what it has lost, and then from what nothing holds.
        for node in 0..graph.len() as u32 {
            let references = unexplained.get(node as usize).copied().unwrap_or(0);
            let lost = lost.get(&node).copied().unwrap_or(0);
            if references > lost {
                paths.begin(&mut search, node, Root::Native(references - lost));
            }
        }
        paths.spread(graph, &mut search);
        let mut in_order: Vec<(u32, u32)> =
            lost.iter().map(|(&node, &lost)| (node, lost)).collect();
        in_order.sort_unstable();
        for (node, lost) in in_order {
            paths.begin(&mut search, node, Root::Lost(lost));
        }
        paths.spread(graph, &mut search);
        paths.held = paths.order.len();
        // Where counts and references are of several instants, nobody can tell that nothing
        // holds something.
        let is_approximate = graph.ended() == Some(Ended::Approximate);
        let root = if is_approximate {
            Root::Native(0)
        } else {
            Root::Garbage
        };
        for node in 0..graph.len() as u32 {
            // One by one: all that it holds is of its cycle.
            if paths.begin(&mut search, node, root) {
                paths.spread(graph, &mut search);
            }
        }
        if is_approximate {
            paths.held = paths.order.len();
        }
        paths
    }

    /// Has a path begin at a node, if none leads there. Whether it does.
    fn begin(&mut self, search: &mut Search, node: u32, root: Root) -> bool {
        if search.cost[node as usize] != u32::MAX {
            return false;
        }
        search.cost[node as usize] = 0;
        search.waiting[0].push(node);
        self.edge[node as usize] = self.roots.len() as u32;
        self.roots.push(root);
        true
    }

    /// Goes on until nothing waits.
    fn spread(&mut self, graph: &Graph, search: &mut Search) {
        let (mut cost, mut idle) = (0_u32, 0);
        while idle <= MOST {
            // Steps cost something: what is found waits elsewhere.
            let place = cost as usize % (MOST + 1);
            let mut batch = std::mem::take(&mut search.waiting[place]);
            idle = if batch.is_empty() { idle + 1 } else { 0 };
            for node in batch.drain(..) {
                // It may have been reached at less since.
                if search.cost[node as usize] == cost {
                    self.visit(graph, search, node, cost);
                }
            }
            search.waiting[place] = batch;
            cost += 1;
        }
    }

    fn visit(&mut self, graph: &Graph, search: &mut Search, node: u32, cost: u32) {
        // Done: nothing costs that little any more.
        search.cost[node as usize] = 0;
        self.order.push(node);
        let is_class = search.is_class[graph.type_of(node) as usize];
        for at in graph.edges_of(node) {
            let target = graph.target(at);
            let step = match graph.edge(at) {
                EdgeKind::Other | EdgeKind::Untold | EdgeKind::Key => UNNAMED,
                EdgeKind::Attribute(name) => {
                    search.steps.get(name as usize).copied().unwrap_or(NAMED)
                }
                _ => NAMED,
            };
            // A class is found by its name, not by its objects or its bases.
            let step = if step > HIDDEN
                && search.is_class[graph.type_of(target) as usize]
                && (step == UNNAMED || is_class)
            {
                OF_CLASS
            } else {
                step
            };
            let known = &mut search.cost[target as usize];
            if cost + step < *known {
                *known = cost + step;
                self.parent[target as usize] = node;
                self.edge[target as usize] = at as u32;
                search.waiting[(cost + step) as usize % (MOST + 1)].push(target);
            }
        }
    }

    /// What refers to a node on its path, and the place of the edge.
    pub(crate) fn parent(&self, node: u32) -> Option<(u32, usize)> {
        let parent = *self.parent.get(node as usize)?;
        (parent != NONE).then(|| (parent, self.edge[node as usize] as usize))
    }

    /// Where the path begins, of a node that has no parent.
    pub(crate) fn root(&self, node: u32) -> Root {
        let number = self.edge.get(node as usize).copied().unwrap_or(NONE);
        self.roots
            .get(number as usize)
            .copied()
            .unwrap_or(Root::Garbage)
    }

    /// All nodes, each after its parent.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// The nodes that nothing holds.
    pub fn garbage(&self) -> &[u32] {
        &self.order[self.held.min(self.order.len())..]
    }

    /// Bytes that its arrays take.
    pub fn memory(&self) -> usize {
        (self.parent.capacity() + self.edge.capacity() + self.order.capacity()) * 4
    }
}

struct Search {
    /// By node: what its path costs so far; 0 where that is certain.
    cost: Vec<u32>,
    /// What waits to be looked at, by its cost: those costs lie close together.
    waiting: Vec<Vec<u32>>,
    /// By type.
    is_class: Vec<bool>,
    /// By name, what an attribute of that name costs.
    steps: Vec<u32>,
}

/// What a step to an attribute costs. Most of what a class, or a module's dict, holds
/// has a name; that every object or function leads there says nothing.
fn named(name: &str) -> u32 {
    match name {
        "__dict__" => HIDDEN,
        "__class__" | "__base__" | "__bases__" | "__mro__" | "__globals__" => OF_CLASS,
        _ => NAMED,
    }
}

/// Objects of that type are classes.
pub(crate) fn is_class(type_name: &str) -> bool {
    matches!(
        type_name,
        "type"
            | "ABCMeta"
            | "abc.ABCMeta"
            | "EnumType"
            | "EnumMeta"
            | "enum.EnumType"
            | "enum.EnumMeta"
    )
}
