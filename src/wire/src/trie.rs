//! Interned stacks: a trie of frames, in blocks of the session's chunks.
//!
//! A stack is the path from a node to the root (parent 0). The target interns,
//! so an event carries a `u32`; the collector reads nodes when it first meets
//! an id. Nodes never change once an event that names them was published.
//!
//! Node `id` lies in the block that entry `id / NODES_PER_BLOCK` of the
//! process's directory ([`crate::layout::Slot::trie`]) names. A forked child
//! copies the directory and goes on at the next block boundary, so what the
//! parent adds later is not the child's, and ids below need no translation.

use crate::layout::{CHUNK_BYTES, TRIE_BLOCKS};
use crate::sync::{AtomicU32, AtomicU64};

/// Nodes in a block.
pub const NODES_PER_BLOCK: usize = CHUNK_BYTES / size_of::<Node>();
/// Node ids are below this.
pub const MAX_NODES: usize = NODES_PER_BLOCK * TRIE_BLOCKS;
/// The empty stack, and "no stack is known".
pub const NO_STACK: u32 = 0;

/// A frame under its caller's frame.
#[repr(C)]
pub struct Node {
    /// The caller's node; 0 at the outermost frame. For a [`kind::PAIR`] the
    /// native stack.
    pub parent: AtomicU32,
    /// Not used: 0.
    pub chain: AtomicU32,
    /// What the frame is, by [`Node::kind`].
    pub frame: AtomicU64,
    /// One of [`kind`].
    pub kind: AtomicU32,
    /// Label slot (task, request), not used yet: 0.
    pub label: AtomicU32,
    #[doc(hidden)]
    pub pad: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Node>() == 32);

/// Kinds of node, and what [`Node::frame`] holds for each.
pub mod kind {
    /// A native caller: module id << 48 | offset of the *return address* in
    /// the module (look up `offset - 1`). Module 0: an absolute address that
    /// belongs to no module.
    pub const NATIVE: u32 = 1;
    /// As `NATIVE`, but the offset is the instruction itself (a frame that a
    /// signal interrupted).
    pub const NATIVE_EXACT: u32 = 2;
    /// As `NATIVE`, in the function that evaluates Python bytecode: stands
    /// for a run of Python frames up to and including a `PYTHON_ENTRY`.
    pub const NATIVE_EVAL: u32 = 3;
    /// A Python frame called by the frame below without leaving the
    /// evaluator: code id << 32 | offset of the instruction in bytes.
    pub const PYTHON: u32 = 4;
    /// As `PYTHON`, the outermost frame of one run of the evaluator.
    pub const PYTHON_ENTRY: u32 = 5;
    /// A native and a Python stack of one instant: `parent` is the native
    /// node, `frame` the Python node.
    pub const PAIR: u32 = 6;
    /// The stack went on beyond the depth limit; `frame` is 0. Outermost.
    pub const TRUNCATED: u32 = 7;
    /// The unwinder could not go on for want of unwind information; `frame`
    /// is 0. Outermost.
    pub const BROKEN: u32 = 8;
    /// A boundary where the stack switched (signal stack, coroutine): frames
    /// beyond lie on another stack. Outermost where nothing follows.
    pub const SWITCHED: u32 = 9;
}

/// Splits a native node's frame into module id and offset.
pub const fn native_parts(frame: u64) -> (u16, u64) {
    ((frame >> 48) as u16, frame & 0xffff_ffff_ffff)
}

/// Joins a native frame from module id and offset.
pub const fn native_frame(module: u16, offset: u64) -> u64 {
    (module as u64) << 48 | (offset & 0xffff_ffff_ffff)
}

/// Splits a Python node's frame into code id and instruction offset in bytes.
pub const fn python_parts(frame: u64) -> (u32, u32) {
    ((frame >> 32) as u32, frame as u32)
}

/// Joins a Python frame from code id and instruction offset in bytes.
pub const fn python_frame(code: u32, offset: u32) -> u64 {
    (code as u64) << 32 | offset as u64
}
