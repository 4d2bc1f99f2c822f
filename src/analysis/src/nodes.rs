//! The nodes of a recording, small.
//!
//! Of millions of nodes most have a frame that many others have: a node is its
//! caller's number and its frame's, 8 bytes, and frames are held once.

use indexmap::IndexSet;
use leakline_recording::record::{Frame, Node};
use rustc_hash::FxBuildHasher;

/// Marks a pair: the other bits are its Python node.
const PAIR: u32 = 1 << 31;

/// See the module. Node 0 is the empty stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    parents: Vec<u32>,
    frames: Vec<u32>,
    distinct: IndexSet<Frame, FxBuildHasher>,
}

/// What a node's frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameOf {
    /// A frame, by its number among the distinct ones.
    One(u32),
    /// A pair, by its Python node.
    Pair(u32),
}

impl Default for Nodes {
    fn default() -> Self {
        Nodes::new()
    }
}

impl Nodes {
    /// The empty stack alone, which is never written.
    pub fn new() -> Self {
        let mut nodes = Nodes {
            parents: Vec::new(),
            frames: Vec::new(),
            distinct: IndexSet::default(),
        };
        nodes.push(Node {
            parent: 0,
            frame: Frame::Broken,
        });
        nodes
    }

    /// Appends a node to those before it, which it names, or none.
    pub fn push(&mut self, node: Node) {
        let id = u32::try_from(self.parents.len()).unwrap_or(u32::MAX);
        let before = |other: u32| if other < id { other } else { 0 };
        let frame = match node.frame {
            // More nodes than a number of 31 bits has names for fit into no memory.
            Frame::Pair { python } => PAIR | (before(python) & !PAIR),
            frame => self.distinct.insert_full(frame).0 as u32 & !PAIR,
        };
        self.parents.push(before(node.parent));
        self.frames.push(frame);
    }

    /// How many there are, with the empty stack.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Never: there is the empty stack.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// The caller's node; 0 of an outermost one, and of one that is not there.
    pub(crate) fn parent(&self, node: u32) -> u32 {
        self.parents.get(node as usize).copied().unwrap_or(0)
    }

    /// What a node's frame is.
    pub(crate) fn frame_of(&self, node: u32) -> Option<FrameOf> {
        let frame = *self.frames.get(node as usize)?;
        Some(match frame & PAIR {
            0 => FrameOf::One(frame),
            _ => FrameOf::Pair(frame & !PAIR),
        })
    }

    /// A node's frame.
    pub(crate) fn frame(&self, node: u32) -> Option<Frame> {
        match self.frame_of(node)? {
            FrameOf::One(number) => self.distinct.get_index(number as usize).copied(),
            FrameOf::Pair(python) => Some(Frame::Pair { python }),
        }
    }

    /// All nodes, by id: their callers and frames.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Frame)> {
        (0..)
            .zip(&self.parents)
            .filter_map(|(id, &parent)| Some((parent, self.frame(id)?)))
    }

    /// The frames that there are, but for pairs, by number.
    pub(crate) fn distinct(&self) -> &IndexSet<Frame, FxBuildHasher> {
        &self.distinct
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_their_frames_and_name_only_those_before() {
        let mut nodes = Nodes::new();
        let python = |code| Frame::Python {
            code,
            offset: 2,
            entry: false,
        };
        nodes.push(Node {
            parent: 0,
            frame: python(7),
        });
        nodes.push(Node {
            parent: 1,
            frame: python(7),
        });
        nodes.push(Node {
            parent: 2,
            frame: Frame::Pair { python: 1 },
        });
        // Of a damaged file.
        nodes.push(Node {
            parent: 9,
            frame: Frame::Pair { python: 4 },
        });
        let all: Vec<(u32, Frame)> = nodes.iter().collect();
        let expected = [
            (0, Frame::Broken),
            (0, python(7)),
            (1, python(7)),
            (2, Frame::Pair { python: 1 }),
            (0, Frame::Pair { python: 0 }),
        ];
        assert_eq!(all, expected);
        assert_eq!(nodes.distinct().len(), 2, "a frame is held once");
        assert_eq!((nodes.parent(2), nodes.parent(77)), (1, 0));
        assert_eq!(nodes.frame(5), None);
    }
}
