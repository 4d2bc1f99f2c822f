//! Stacks, modules and code objects: from a process's own ids to the
//! recording's.
//!
//! A process interns its stacks and numbers its modules and code objects; the
//! collector folds them over all processes: a frame under the same caller is
//! one node, an ELF file with one path and build-id is one module, equal code
//! objects are one code. Records are written the moment something is first
//! met, so whatever they name stands before them.
//!
//! # Invariants
//!
//! * What a target wrote is bounded before it is believed: stacks in depth,
//!   definitions in size, ids by what was defined.
//! * A local id, once resolved, never changes its meaning (the code and module
//!   numbers of a process are used once).

use std::collections::hash_map::Entry;

use leakline_recording::record::{Code, Frame, Module, Node, Record};
use leakline_wire::blob::{CodeDef, ModuleDef};
use leakline_wire::layout::Slot;
use leakline_wire::sync::Ordering;
use leakline_wire::trie::{self, MAX_NODES, NO_STACK, kind};
use rustc_hash::FxHashMap;

use crate::lines;
use crate::session::SessionMap;

/// Most frames of a stack; longer ones are cut and end as truncated.
const MAX_DEPTH: usize = 20_000;
/// Most bytes kept of a name.
const MAX_NAME: usize = 4096;
/// "Not met yet" in the tables of local ids.
const UNKNOWN: u32 = u32::MAX;

/// A process's numbers for things.
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalNames {
    /// Node ids, by local id; [`UNKNOWN`] where not met yet.
    nodes: Vec<u32>,
    modules: Vec<u32>,
    codes: Vec<u32>,
    /// Path of the process's executable: what a module without path is.
    executable: Vec<u8>,
    /// Whose they are, in our pid namespace.
    pid: u32,
}

impl LocalNames {
    /// Of a process that has named nothing yet.
    pub(crate) fn new(pid: u32, executable: Vec<u8>) -> Self {
        LocalNames {
            executable,
            pid,
            ..LocalNames::default()
        }
    }

    /// What a forked child knows: the first `modules` and `codes` of its
    /// parent. Nodes it meets again as it goes: through its own directory.
    pub(crate) fn forked(&self, pid: u32, modules: u32, codes: u32) -> Self {
        let first = |ids: &[u32], count: u32| ids[..ids.len().min(count as usize)].to_vec();
        LocalNames {
            nodes: Vec::new(),
            modules: first(&self.modules, modules),
            codes: first(&self.codes, codes),
            executable: self.executable.clone(),
            pid,
        }
    }
}

/// A native address that wants a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lookup {
    /// Module id.
    pub(crate) module: u32,
    /// Address to look up: of the call, not of the return.
    pub(crate) address: u64,
}

/// What the recording has names for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    nodes: FxHashMap<Node, u32>,
    /// By path and build-id.
    modules: FxHashMap<(Vec<u8>, Vec<u8>), u32>,
    /// Modules, each with the process that named it first.
    module_list: Vec<(Module, u32)>,
    codes: FxHashMap<Box<[u8]>, u32>,
    /// Where each code's lines are, for embedding sources.
    code_list: Vec<CodeLines>,
    /// A code that was never defined.
    unknown_code: Option<u32>,
    /// Records to write, in this order.
    records: Vec<Record>,
    /// Addresses met since they were last taken.
    lookups: Vec<Lookup>,
    /// Python frames met since they were last taken: code and offset.
    python_frames: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct CodeLines {
    file: String,
    first_line: u32,
    lines: Box<[(u32, u32)]>,
}

impl Names {
    /// Hands over the records that became due.
    pub(crate) fn hand_over(&mut self, records: &mut Vec<Record>) {
        records.append(&mut self.records);
    }

    /// Takes the native addresses met since last time.
    pub(crate) fn take_lookups(&mut self) -> Vec<Lookup> {
        std::mem::take(&mut self.lookups)
    }

    /// Takes files and lines of the Python frames met since last time.
    pub(crate) fn take_python_lines(&mut self) -> Vec<(String, u32)> {
        let frames = std::mem::take(&mut self.python_frames);
        frames
            .into_iter()
            .filter_map(|(code, offset)| {
                let code = self.code_list.get(code as usize)?;
                let at = code.lines.partition_point(|(start, _)| *start <= offset);
                let line = match at.checked_sub(1) {
                    Some(at) => code.lines[at].1,
                    None => code.first_line,
                };
                (line != 0).then(|| (code.file.clone(), line))
            })
            .collect()
    }

    /// A module, by id, and the pid of a process that has it loaded.
    pub(crate) fn module(&self, id: u32) -> Option<(&Module, u32)> {
        self.module_list
            .get(id as usize)
            .map(|(module, pid)| (module, *pid))
    }

    /// Learns a module of a process. False when the bytes are none.
    pub(crate) fn define_module(&mut self, local: &mut LocalNames, id: u32, bytes: &[u8]) -> bool {
        let (Some(module), true) = (ModuleDef::decode(bytes), u16::try_from(id).is_ok()) else {
            return false;
        };
        let path = if module.path.is_empty() {
            &local.executable
        } else {
            module.path
        };
        let module = Module {
            path: path[..path.len().min(MAX_NAME)].to_vec(),
            build_id: module.build_id[..module.build_id.len().min(64)].to_vec(),
        };
        let key = (module.path.clone(), module.build_id.clone());
        let known = match self.modules.entry(key) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let known = self.module_list.len() as u32;
                self.records.push(Record::Module(module.clone()));
                self.module_list.push((module, local.pid));
                *entry.insert(known)
            }
        };
        put(&mut local.modules, id, known);
        true
    }

    /// Learns a code object of a process. False when the bytes are none.
    pub(crate) fn define_code(&mut self, local: &mut LocalNames, id: u32, bytes: &[u8]) -> bool {
        // Ids are given out in a row.
        if id as usize > local.codes.len() + (1 << 16) {
            return false;
        }
        let known = if let Some(known) = self.codes.get(bytes) {
            *known
        } else {
            let Some(code) = CodeDef::decode(bytes) else {
                return false;
            };
            let known = self.add_code(Code {
                file: plain_text(code.file),
                name: plain_text(code.name),
                first_line: code.first_line,
                lines: lines::decode(code.line_format, code.first_line, code.lines),
            });
            self.codes.insert(bytes.into(), known);
            known
        };
        put(&mut local.codes, id, known);
        true
    }

    fn add_code(&mut self, code: Code) -> u32 {
        self.code_list.push(CodeLines {
            file: code.file.clone(),
            first_line: code.first_line,
            lines: code.lines.clone().into_boxed_slice(),
        });
        self.records.push(Record::Code(code));
        self.code_list.len() as u32 - 1
    }

    /// The recording's node for a process's stack id.
    ///
    /// A stack that cannot be read (a hostile or broken target) ends where it
    /// stops making sense, as broken.
    pub(crate) fn stack(
        &mut self,
        session: &SessionMap,
        slot: &Slot,
        local: &mut LocalNames,
        id: u32,
    ) -> u32 {
        self.resolve(session, slot, local, id, true)
    }

    fn resolve(
        &mut self,
        session: &SessionMap,
        slot: &Slot,
        local: &mut LocalNames,
        id: u32,
        pairs_allowed: bool,
    ) -> u32 {
        // From the innermost frame outwards, to the first that is known.
        let mut path = Vec::new();
        let mut at = id;
        let mut node = loop {
            if at == NO_STACK {
                break 0;
            }
            if let Some(known) = local.nodes.get(at as usize)
                && *known != UNKNOWN
            {
                break *known;
            }
            if path.len() >= MAX_DEPTH {
                break self.node(Node {
                    parent: 0,
                    frame: Frame::Truncated,
                });
            }
            let raw = if (at as usize) < MAX_NODES {
                session.node(slot, at)
            } else {
                None
            };
            let Some(raw) = raw else {
                break self.node(Node {
                    parent: 0,
                    frame: Frame::Broken,
                });
            };
            let parent = raw.parent.load(Ordering::Relaxed);
            let kind = raw.kind.load(Ordering::Relaxed);
            let frame = raw.frame.load(Ordering::Relaxed);
            path.push((at, kind, frame));
            at = parent;
        };
        for (id, kind, frame) in path.into_iter().rev() {
            let frame = if kind == kind::PAIR {
                if pairs_allowed {
                    let python = self.resolve(session, slot, local, frame as u32, false);
                    Frame::Pair { python }
                } else {
                    Frame::Broken
                }
            } else {
                self.frame(local, kind, frame)
            };
            node = self.node(Node {
                parent: node,
                frame,
            });
            put(&mut local.nodes, id, node);
        }
        node
    }

    fn frame(&mut self, local: &LocalNames, kind: u32, frame: u64) -> Frame {
        match kind {
            kind::NATIVE | kind::NATIVE_EXACT | kind::NATIVE_EVAL => {
                let (module, offset) = trie::native_parts(frame);
                let known = local.modules.get(usize::from(module)).copied();
                let module = known.filter(|id| *id != UNKNOWN);
                let exact = kind == kind::NATIVE_EXACT;
                Frame::Native {
                    module,
                    offset,
                    exact,
                    evaluator: kind == kind::NATIVE_EVAL,
                }
            }
            kind::PYTHON | kind::PYTHON_ENTRY => {
                let (code, offset) = trie::python_parts(frame);
                let known = local.codes.get(code as usize).copied();
                let code = match known.filter(|id| *id != UNKNOWN) {
                    Some(code) => code,
                    None => self.unknown_code(),
                };
                Frame::Python {
                    code,
                    offset,
                    entry: kind == kind::PYTHON_ENTRY,
                }
            }
            kind::TRUNCATED => Frame::Truncated,
            kind::SWITCHED => Frame::Switched,
            _ => Frame::Broken,
        }
    }

    fn unknown_code(&mut self) -> u32 {
        if let Some(code) = self.unknown_code {
            return code;
        }
        let code = self.add_code(Code {
            file: String::new(),
            name: "[unknown]".to_owned(),
            first_line: 0,
            lines: Vec::new(),
        });
        self.unknown_code = Some(code);
        code
    }

    fn node(&mut self, node: Node) -> u32 {
        // Node 0 is the empty stack, which is never written.
        let next = self.nodes.len() as u32 + 1;
        match self.nodes.entry(node) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                entry.insert(next);
                self.records.push(Record::Node(node));
                match node.frame {
                    Frame::Native {
                        module: Some(module),
                        offset,
                        exact,
                        ..
                    } => {
                        let address = if exact {
                            offset
                        } else {
                            offset.saturating_sub(1)
                        };
                        self.lookups.push(Lookup { module, address });
                    }
                    Frame::Python { code, offset, .. } => self.python_frames.push((code, offset)),
                    _ => {}
                }
                next
            }
        }
    }
}

/// Puts `value` at `index`, and "unknown" in between.
fn put(ids: &mut Vec<u32>, index: u32, value: u32) {
    let index = index as usize;
    if ids.len() <= index {
        ids.resize(index + 1, UNKNOWN);
    }
    ids[index] = value;
}

/// Text for the recording: UTF-8, bounded, without control characters that
/// could fool a terminal.
pub(crate) fn plain_text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_NAME)];
    String::from_utf8_lossy(cut)
        .chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}
