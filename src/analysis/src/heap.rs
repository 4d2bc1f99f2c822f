//! Heap graphs: what lives, what holds it, and what would be free without whom.
//!
//! [`Graph`] is what the target told, [`Heap`] what follows from it: [`Dominators`]
//! with retained sizes, and [`Paths`] from roots.
//!
//! # Invariants
//!
//! * No step recurses over the graph: a linked list may have millions of objects.
//! * Below 100 bytes an object at any time, with two references each (measured by the
//!   example `heap`); parts of a file are read when a report asks for a graph.

use rustc_hash::FxHashMap;

mod ask;
mod dominators;
mod graph;
mod keys;
mod paths;
mod references;
mod shapes;
mod why;

pub use ask::{read_earlier, read_last, read_parts, sites_named};
pub use dominators::Dominators;
pub use graph::{EdgeKind, Ended, Graph, Root, RootKind, Searched, Trust, Type};
pub(crate) use paths::is_class;
pub use paths::{Paths, Root as PathRoot};
pub use references::{Garbage, HiddenCycles, Kept, Lost, References};
pub use shapes::{Label, Shapes};
pub use why::{Asked, Group, Holder, Object, OfType, Path, Step, Why};

/// A heap graph, with what follows from it.
#[derive(Debug)]
pub struct Heap {
    /// What was told.
    pub graph: Graph,
    /// Who keeps what, alone.
    pub dominators: Dominators,
    /// By which way a root holds each object.
    pub paths: Paths,
    /// Which of them are alike.
    pub shapes: Shapes,
    /// By object, references of it that were lost.
    lost: FxHashMap<u32, u32>,
}

impl Heap {
    /// Finds out who holds what.
    pub fn new(graph: Graph) -> Self {
        let unexplained = graph.unexplained();
        let lost = references::lost(&graph, &unexplained);
        let paths = Paths::new(&graph, &unexplained, &lost);
        let mut roots: Vec<u32> = graph.roots().iter().map(|root| root.target).collect();
        let native = (0..).zip(&unexplained).filter(|(_, left)| **left > 0);
        roots.extend(native.map(|(node, _)| node));
        drop(unexplained);
        let dominators = Dominators::new(&graph, &roots);
        Heap {
            shapes: Shapes::new(&graph, &paths),
            graph,
            dominators,
            paths,
            lost,
        }
    }

    /// References of an object that were lost.
    pub fn lost(&self, node: u32) -> u32 {
        self.lost.get(&node).copied().unwrap_or(0)
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        self.graph.memory() + self.dominators.memory() + self.paths.memory() + self.shapes.memory()
    }
}

#[cfg(test)]
mod tests;
