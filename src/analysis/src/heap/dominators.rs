//! Who keeps what alive, alone: the dominator tree of a heap, and retained sizes.
//!
//! A node dominates another when every path from a root leads through it: without it,
//! the other would be free. Semi-NCA (Georgiadis and Tarjan), on the arrays of the
//! graph, without recursion: a linked list of a million objects is as deep.
//! petgraph's `simple_fast` keeps a hash set of predecessors for each node and is
//! quadratic on such lists.

use super::graph::{Graph, NONE};

/// The dominator tree.
#[derive(Debug, Default)]
pub struct Dominators {
    /// By node: what dominates it at once; `NONE` for no single node.
    immediate: Vec<u32>,
    /// Nodes that are reached, each after what dominates it.
    order: Vec<u32>,
    /// By node: bytes that would be free without it. 0 where it is not reached.
    retained: Vec<u64>,
    /// Of these, native blocks'. Empty where there are none.
    native: Vec<u64>,
}

impl Dominators {
    /// Of what `roots` reach.
    pub fn new(graph: &Graph, roots: &[u32]) -> Self {
        let mut walk = walk(graph, roots);
        let by_number = immediate(graph, roots, &mut walk);
        let order = walk.order;
        let mut immediate = walk.number;
        immediate.fill(NONE);
        for (&node, &dominator) in order.iter().zip(&by_number[1..]) {
            if dominator > 0 {
                immediate[node as usize] = order[dominator as usize - 1];
            }
        }
        drop(by_number);
        let mut dominators = Dominators {
            immediate,
            order,
            retained: Vec::new(),
            native: Vec::new(),
        };
        dominators.retained = dominators.sums(graph.len(), |node| graph.bytes(node));
        if graph.objects() < graph.len() {
            dominators.native = dominators.sums(graph.len(), |node| {
                if graph.is_native(node) {
                    graph.bytes(node)
                } else {
                    0
                }
            });
        }
        dominators
    }

    /// By node, what it and all below it come to.
    fn sums(&self, nodes: usize, own: impl Fn(u32) -> u64) -> Vec<u64> {
        let mut sums = vec![0_u64; nodes];
        for &node in self.order.iter().rev() {
            let sum = sums[node as usize].saturating_add(own(node));
            sums[node as usize] = sum;
            let above = self.immediate[node as usize];
            if above != NONE {
                let above = &mut sums[above as usize];
                *above = above.saturating_add(sum);
            }
        }
        sums
    }

    /// What dominates it at once; `None` where no single node does.
    pub fn of(&self, node: u32) -> Option<u32> {
        let above = *self.immediate.get(node as usize)?;
        (above != NONE).then_some(above)
    }

    /// Nodes that are reached, each after what dominates it.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Bytes that would be free without it, its own among them.
    pub fn retained(&self, node: u32) -> u64 {
        self.retained.get(node as usize).copied().unwrap_or(0)
    }

    /// Of these, those of native blocks.
    pub fn native(&self, node: u32) -> u64 {
        self.native.get(node as usize).copied().unwrap_or(0)
    }

    /// Bytes that its arrays take.
    pub fn memory(&self) -> usize {
        (self.immediate.capacity() + self.order.capacity()) * 4
            + (self.retained.capacity() + self.native.capacity()) * 8
    }
}

/// A depth-first walk. Nodes are numbered from 1 as they are met; 0 is what holds the
/// roots.
struct Walk {
    /// The nodes, by number less 1.
    order: Vec<u32>,
    /// By node; `NONE` where it is not reached.
    number: Vec<u32>,
    /// By number: the number of the node that it was met from.
    parent: Vec<u32>,
}

fn walk(graph: &Graph, roots: &[u32]) -> Walk {
    let mut walk = Walk {
        order: Vec::new(),
        number: vec![NONE; graph.len()],
        parent: vec![0],
    };
    // Number of a node, and where its edges go on.
    let mut stack: Vec<(u32, u32)> = Vec::new();
    for &root in roots {
        if walk.number.get(root as usize) == Some(&NONE) {
            stack.push(walk.meet(graph, root, 0));
        }
        while let Some((from, edge)) = stack.last_mut() {
            let edges = graph.edges_of(walk.order[*from as usize - 1]);
            let mut rest = *edge as usize..edges.end;
            let next = rest.find(|&at| walk.number[graph.target(at) as usize] == NONE);
            if let Some(at) = next {
                *edge = at as u32 + 1;
                let from = *from;
                stack.push(walk.meet(graph, graph.target(at), from));
            } else {
                stack.pop();
            }
        }
    }
    walk
}

impl Walk {
    fn meet(&mut self, graph: &Graph, node: u32, from: u32) -> (u32, u32) {
        self.order.push(node);
        self.parent.push(from);
        // Nodes are fewer than 2^32 - 1.
        let number = self.order.len() as u32;
        self.number[node as usize] = number;
        (number, graph.edges_of(node).start as u32)
    }
}

/// By number, the number of the immediate dominator.
fn immediate(graph: &Graph, roots: &[u32], walk: &mut Walk) -> Vec<u32> {
    let (starts, referrers) = referrers(graph, walk);
    let count = walk.parent.len();
    let mut is_root = vec![false; count];
    for &root in roots {
        if let Some(&number) = walk.number.get(root as usize) {
            is_root[number as usize] = true;
        }
    }
    let mut dominators = walk.parent.clone();
    let mut forest = Forest {
        parent: std::mem::take(&mut walk.parent),
        semi: (0..count as u32).collect(),
        label: (0..count as u32).collect(),
        path: Vec::new(),
    };
    for node in (1..count).rev() {
        let mut semi = if is_root[node] { 0 } else { dominators[node] };
        let range = starts[node] as usize..starts[node + 1] as usize;
        for &referrer in &referrers[range] {
            let least = forest.least(referrer, node as u32 + 1);
            semi = semi.min(forest.semi[least as usize]);
        }
        forest.semi[node] = semi;
    }
    for node in 1..count {
        let semi = forest.semi[node];
        let mut dominator = dominators[node];
        while dominator > semi {
            dominator = dominators[dominator as usize];
        }
        dominators[node] = dominator;
    }
    dominators
}

/// By number, the numbers of what refers to it: a slice of the second from the start
/// in the first.
fn referrers(graph: &Graph, walk: &Walk) -> (Vec<u32>, Vec<u32>) {
    let count = walk.parent.len();
    let mut starts = vec![0_u32; count + 1];
    for &node in &walk.order {
        for &target in graph.targets(node) {
            starts[walk.number[target as usize] as usize] += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut referrers = vec![0; sum as usize];
    for (from, &node) in (1..).zip(&walk.order) {
        for &target in graph.targets(node) {
            let place = &mut starts[walk.number[target as usize] as usize];
            *place -= 1;
            referrers[*place as usize] = from;
        }
    }
    (starts, referrers)
}

/// The nodes that are done, as a forest of shortened paths.
struct Forest {
    parent: Vec<u32>,
    semi: Vec<u32>,
    /// Of the path that was shortened, the node with the least `semi`.
    label: Vec<u32>,
    path: Vec<u32>,
}

impl Forest {
    /// The node with the least `semi` from `node` up to below the first that is not
    /// done; those from `done` on are.
    fn least(&mut self, mut node: u32, done: u32) -> u32 {
        if self.parent[node as usize] < done {
            return self.label[node as usize];
        }
        self.path.clear();
        loop {
            self.path.push(node);
            node = self.parent[node as usize];
            if self.parent[node as usize] < done {
                break;
            }
        }
        let mut above = node;
        let mut least = self.label[above as usize];
        while let Some(node) = self.path.pop() {
            self.parent[node as usize] = self.parent[above as usize];
            let own = self.label[node as usize];
            if self.semi[least as usize] < self.semi[own as usize] {
                self.label[node as usize] = least;
            } else {
                least = own;
            }
            above = node;
        }
        self.label[above as usize]
    }
}
