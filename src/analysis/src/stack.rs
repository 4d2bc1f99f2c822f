//! Native and Python stacks, merged into one, with names.
//!
//! A native frame that evaluates bytecode stands for a run of Python frames:
//! merging walks both stacks from the innermost frame and puts each run where
//! its evaluator is. Python frames without an evaluator (the native unwind
//! broke off) follow at the end; an evaluator without Python frames vanishes.
//!
//! Nothing is done for a node before somebody asks, and then once.

use std::ops::ControlFlow;

use indexmap::IndexSet;
use leakline_recording::record::Frame as Recorded;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::frame::{
    Frame, FrameId, FrameKind, NEAR, Role, role_of_function, role_of_module, role_of_python,
};
use crate::model::Model;
use crate::names::{Name, Names, base_name};
use crate::nodes::FrameOf;

/// Most frames of a native, and of a Python stack. Recorders stop earlier;
/// this bounds what a damaged file can make us do.
pub const MAX_DEPTH: usize = 4096;

/// Stands for stacks that are summed up.
pub(crate) const REST: &str = "[rest]";

/// Most functions at one address, inlined into each other. More are a damaged
/// file's.
const MAX_INLINED: usize = 64;

/// The frames that a row is named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Where it was made: the innermost Python frame where the interpreter
    /// itself allocated, else the innermost native frame outside allocators.
    pub made_in: Option<FrameId>,
    /// The innermost frame of the user's own code.
    pub your_code: Option<FrameId>,
    /// The innermost Python frame.
    pub python: Option<FrameId>,
}

/// What a frame turned into: a piece of `Stacks::pool`.
#[derive(Clone, Copy, Debug)]
struct Expanded {
    start: u32,
    len: u16,
    /// It evaluates Python bytecode.
    evaluator: bool,
}

/// A module's names.
#[derive(Clone, Copy, Debug)]
struct ModuleNames {
    path: Name,
    role: Role,
    /// Evaluator frames lie in it though it is not named as an interpreter: a
    /// program that embeds one.
    embeds: bool,
}

/// Frames and names of one model.
#[derive(Debug)]
pub struct Stacks<'a> {
    names: Names<'a>,
    frames: IndexSet<Frame, FxBuildHasher>,
    modules: Vec<ModuleNames>,
    python_roles: FxHashMap<Name, Role>,
    /// Of each distinct frame.
    expanded: Vec<Option<Expanded>>,
    pool: Vec<FrameId>,
    heads: FxHashMap<u32, Head>,
    shown_keys: FxHashMap<u32, u64>,
}

impl<'a> Stacks<'a> {
    /// For the stacks of `model`; every call must be with the same model.
    pub fn new(model: &Model<'a>) -> Self {
        let mut names = Names::new();
        let mut modules: Vec<ModuleNames> = model
            .modules()
            .iter()
            .map(|module| ModuleNames {
                path: names.intern(module.path.clone()),
                role: role_of_module(&module.path),
                embeds: false,
            })
            .collect();
        for frame in model.nodes().distinct() {
            if let Recorded::Native {
                module: Some(module),
                evaluator: true,
                ..
            } = frame
                && let Some(names) = modules.get_mut(*module as usize)
            {
                names.embeds = names.role != Role::Interpreter;
            }
        }
        Stacks {
            names,
            frames: IndexSet::default(),
            modules,
            python_roles: FxHashMap::default(),
            expanded: vec![None; model.nodes().distinct().len()],
            pool: Vec::new(),
            heads: FxHashMap::default(),
            shown_keys: FxHashMap::default(),
        }
    }

    /// A frame by its id.
    ///
    /// # Panics
    ///
    /// If `id` comes from another `Stacks`.
    pub fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.index()]
    }

    /// How many frames are known by now.
    pub(crate) fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// The text of a name.
    pub fn name(&self, name: Name) -> &str {
        self.names.get(name)
    }

    /// The merged stack of a site's node, innermost frame first.
    pub fn stack(&mut self, model: &Model<'a>, node: u32) -> Vec<FrameId> {
        let mut stack = Vec::new();
        self.stack_into(model, node, &mut stack);
        stack
    }

    /// As [`stack`](Self::stack), into a vector that is emptied first.
    pub fn stack_into(&mut self, model: &Model<'a>, node: u32, stack: &mut Vec<FrameId>) {
        stack.clear();
        self.merge(model, node, |_, id| {
            stack.push(id);
            ControlFlow::Continue(())
        });
    }

    /// Shows `each` the frames of the merged stack, innermost first, until it
    /// has seen enough.
    fn merge(
        &mut self,
        model: &Model<'a>,
        node: u32,
        mut each: impl FnMut(&Frame, FrameId) -> ControlFlow<()>,
    ) {
        let (native, python) = stacks_of(model, node);
        let mut rest = Walk::new(model, python);
        for native in Walk::new(model, native) {
            let piece = self.expand(model, native);
            // A native stack alone (`--no-python`) keeps its evaluators.
            if piece.evaluator && python != 0 {
                for frame in rest.by_ref() {
                    let piece = self.expand(model, frame);
                    if self.show(piece, &mut each).is_break() {
                        return;
                    }
                    if is_entry(model, frame) {
                        break;
                    }
                }
            } else if self.show(piece, &mut each).is_break() {
                return;
            }
        }
        for frame in rest {
            let piece = self.expand(model, frame);
            if self.show(piece, &mut each).is_break() {
                return;
            }
        }
    }

    fn show(
        &self,
        piece: Expanded,
        each: &mut impl FnMut(&Frame, FrameId) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let start = piece.start as usize;
        self.pool[start..start + usize::from(piece.len)]
            .iter()
            .try_for_each(|&id| each(self.frame(id), id))
    }

    /// Gives back what was kept of single nodes, of which there may be millions.
    pub fn forget_nodes(&mut self) {
        self.heads = FxHashMap::default();
        self.shown_keys = FxHashMap::default();
    }

    /// The frames that rows of a site are named after.
    pub fn head(&mut self, model: &Model<'a>, node: u32) -> Head {
        if let Some(head) = self.heads.get(&node) {
            return *head;
        }
        let (_, python) = stacks_of(model, node);
        let mut head = Head::default();
        // The first frame that would do, were there no better one further out.
        let (mut native, mut inside, mut any) = (None, None, None);
        self.merge(model, node, |frame, id| {
            let is_python = frame.kind == FrameKind::Python;
            if is_python {
                head.python.get_or_insert(id);
            }
            match frame.role {
                Role::Own | Role::Library => {
                    head.made_in.get_or_insert(id);
                }
                Role::Standard if is_python => {
                    head.made_in.get_or_insert(id);
                }
                // What Python's own modules and the C library allocate for a
                // Python line belongs to the line.
                Role::Standard | Role::System if head.made_in.is_none() => {
                    native.get_or_insert(id);
                }
                Role::Template | Role::Interpreter => {
                    inside.get_or_insert(id);
                }
                Role::Standard | Role::System | Role::Allocator | Role::Start => {}
                Role::Marker => return ControlFlow::Continue(()),
            }
            any.get_or_insert(id);
            if frame.role == Role::Own {
                head.your_code.get_or_insert(id);
            }
            let python_is_settled = head.python.is_some() || python == 0;
            if head.your_code.is_some() && head.made_in.is_some() && python_is_settled {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if head.python.is_none() {
            head.made_in = native.or(head.made_in);
        }
        head.made_in = head.made_in.or(native).or(inside).or(any);
        self.heads.insert(node, head);
        head
    }

    /// What the shown frames of a stack are known by: stacks that differ only
    /// inside the interpreter or an allocator are one to a reader. A stack of
    /// nothing else is known by all of it.
    ///
    /// A 64-bit hash: of a million stacks, the odds that two share one by
    /// chance are 1 in 30 million.
    pub(crate) fn shown_key(&mut self, model: &Model<'a>, node: u32) -> u64 {
        if let Some(key) = self.shown_keys.get(&node) {
            return *key;
        }
        let (mut of_shown, mut of_all) = (0, 0);
        let mut is_shown = false;
        self.merge(model, node, |frame, id| {
            of_all = mixed(of_all, id);
            if frame.role.is_shown() {
                of_shown = mixed(of_shown, id);
                is_shown = true;
            }
            ControlFlow::Continue(())
        });
        let key = if is_shown { of_shown } else { of_all };
        self.shown_keys.insert(node, key);
        key
    }

    /// Whether a text report shows the frame unless asked for all.
    pub fn is_shown(&self, id: FrameId) -> bool {
        self.frame(id).role.is_shown()
    }

    /// The library that a frame belongs to: its ELF file, or the Python
    /// package its file is in.
    pub fn library(&mut self, id: FrameId) -> Name {
        let frame = *self.frame(id);
        if !frame.module.is_empty() {
            return frame.module;
        }
        let file = self.names.get(frame.file);
        let library = match frame.role {
            Role::Standard => "Python standard library".to_owned(),
            Role::Library => {
                let package = file.rsplit_once("-packages/").map_or(file, |(_, inside)| {
                    inside.split('/').next().unwrap_or(inside)
                });
                package.strip_suffix(".py").unwrap_or(package).to_owned()
            }
            _ => match file.rsplit_once('/') {
                Some((directory, _)) if !directory.is_empty() => directory.to_owned(),
                _ => file.to_owned(),
            },
        };
        self.names.intern(library)
    }

    fn expand(&mut self, model: &Model<'a>, node: u32) -> Expanded {
        let slot = match model.nodes().frame_of(node) {
            Some(FrameOf::One(number)) => Some(number as usize),
            // Only where a damaged file has a pair inside a stack.
            Some(FrameOf::Pair(_)) => {
                return Expanded {
                    start: 0,
                    len: 0,
                    evaluator: false,
                };
            }
            None => None,
        };
        if let Some(Some(known)) = slot.and_then(|slot| self.expanded.get(slot)) {
            return *known;
        }
        let start = self.pool.len();
        let evaluator = self.expand_anew(model, node);
        let expanded = Expanded {
            start: u32::try_from(start).unwrap_or(u32::MAX),
            len: u16::try_from(self.pool.len() - start).unwrap_or(u16::MAX),
            evaluator,
        };
        if let Some(slot) = slot.and_then(|slot| self.expanded.get_mut(slot)) {
            *slot = Some(expanded);
        }
        expanded
    }

    /// Pushes the frames of a node; says whether it evaluates bytecode.
    fn expand_anew(&mut self, model: &Model<'a>, node: u32) -> bool {
        let Some(frame) = model.nodes().frame(node) else {
            self.push_marker("[unknown]");
            return false;
        };
        match frame {
            Recorded::Native {
                module,
                offset,
                exact,
                evaluator,
            } => {
                let address = if exact {
                    offset
                } else {
                    offset.saturating_sub(1)
                };
                return self.expand_native(model, module, address, evaluator);
            }
            Recorded::Python { code, offset, .. } => self.expand_python(model, code, offset),
            Recorded::Truncated => self.push_marker("[truncated]"),
            Recorded::Broken => self.push_marker("[unwinding ended here]"),
            Recorded::Switched => self.push_marker("[continues on another stack]"),
            Recorded::Pair { .. } => {}
        }
        false
    }

    fn expand_python(&mut self, model: &Model<'a>, code: u32, offset: u32) {
        let Some(code) = model.codes().get(code as usize) else {
            self.push_marker("[unknown]");
            return;
        };
        let after = code.lines.partition_point(|&(begins, _)| begins <= offset);
        let line = after
            .checked_sub(1)
            .map(|at| code.lines[at].1)
            .filter(|&line| line != 0)
            .unwrap_or(code.first_line);
        let file = self.names.intern(code.file.as_str());
        let role = *self
            .python_roles
            .entry(file)
            .or_insert_with(|| role_of_python(&code.file));
        let function = if code.name.is_empty() {
            "[unknown]"
        } else {
            code.name.as_str()
        };
        let function = self.names.intern(function);
        self.push(Frame {
            function,
            file,
            line,
            module: Name::EMPTY,
            kind: FrameKind::Python,
            role,
        });
    }

    fn expand_native(
        &mut self,
        model: &Model<'a>,
        module: Option<u32>,
        address: u64,
        evaluator: bool,
    ) -> bool {
        let known = module.and_then(|module| self.modules.get(module as usize).copied());
        let names = known.unwrap_or(ModuleNames {
            path: Name::EMPTY,
            role: Role::Own,
            embeds: false,
        });
        let symbols = module.map_or(&[][..], |module| model.symbols(module, address));
        let mut evaluates = evaluator;
        let mut pushed = false;
        for symbol in symbols.iter().take(MAX_INLINED) {
            if symbol.function.is_empty() {
                continue;
            }
            let role = native_role(&symbol.function, &symbol.file, names, evaluator);
            let function = if symbol.beyond == 0 {
                evaluates |= is_evaluator(&symbol.function);
                self.names.intern(symbol.function.as_str())
            } else {
                let module = base_name(self.names.get(names.path));
                let near = format!("{}+{:#x}", symbol.function, symbol.beyond);
                self.names
                    .intern(format!("{module}+{address:#x}{NEAR}{near})"))
            };
            let file = self.names.intern(symbol.file.as_str());
            self.push(Frame {
                function,
                file,
                line: symbol.line,
                module: names.path,
                kind: if symbol.inlined {
                    FrameKind::Inlined
                } else {
                    FrameKind::Native
                },
                role,
            });
            pushed = true;
        }
        if !pushed {
            let function = if known.is_some() {
                format!("{}+{address:#x}", base_name(self.names.get(names.path)))
            } else {
                format!("{address:#x}")
            };
            let role = if evaluator {
                Role::Interpreter
            } else {
                names.role
            };
            let function = self.names.intern(function);
            self.push(Frame {
                function,
                file: Name::EMPTY,
                line: 0,
                module: names.path,
                kind: FrameKind::Native,
                role: if known.is_some() { role } else { Role::System },
            });
        }
        evaluates
    }

    /// The frame that stands for a stack without any.
    pub(crate) fn not_known(&mut self) -> FrameId {
        let before = self.pool.len();
        self.push_marker("[not known]");
        let id = self.pool[before];
        self.pool.truncate(before);
        id
    }

    /// The name of what was summed up.
    pub(crate) fn rest(&mut self) -> Name {
        self.names.intern(REST)
    }

    fn push_marker(&mut self, text: &'static str) {
        let function = self.names.intern(text);
        self.push(Frame {
            function,
            file: Name::EMPTY,
            line: 0,
            module: Name::EMPTY,
            kind: FrameKind::Native,
            role: Role::Marker,
        });
    }

    fn push(&mut self, frame: Frame) {
        let (index, _) = self.frames.insert_full(frame);
        self.pool.push(FrameId::new(index));
    }
}

/// A hash of frames, with one more (the finalizer of SplitMix64): a tenth of
/// what SipHash takes, where there are millions.
fn mixed(hash: u64, id: FrameId) -> u64 {
    let mut hash = hash.wrapping_add(id.index() as u64 + 1);
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The native and the Python stack of a node; a node that is no pair is the
/// first, whatever it holds.
fn stacks_of(model: &Model<'_>, node: u32) -> (u32, u32) {
    match model.nodes().frame_of(node) {
        Some(FrameOf::Pair(python)) => (model.nodes().parent(node), python),
        _ => (node, 0),
    }
}

/// The node ids of a stack, innermost first.
struct Walk<'m, 'a> {
    model: &'m Model<'a>,
    at: u32,
    left: usize,
}

impl<'m, 'a> Walk<'m, 'a> {
    fn new(model: &'m Model<'a>, innermost: u32) -> Self {
        Walk {
            model,
            at: innermost,
            left: MAX_DEPTH,
        }
    }
}

impl Iterator for Walk<'_, '_> {
    type Item = u32;

    // Parents have smaller ids: this ends, and sooner at the limit.
    fn next(&mut self) -> Option<u32> {
        let at = self.at;
        if at == 0 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        self.at = self.model.nodes().parent(at);
        Some(at)
    }
}

fn is_entry(model: &Model<'_>, node: u32) -> bool {
    matches!(
        model.nodes().frame(node),
        Some(Recorded::Python { entry: true, .. })
    )
}

/// The part of a native function; an evaluator's, and the interpreter's in a
/// program that embeds one, is the interpreter.
fn native_role(function: &str, file: &str, module: ModuleNames, evaluator: bool) -> Role {
    let embedded = module.embeds && (function.starts_with("Py") || function.starts_with("_Py"));
    if evaluator || embedded {
        role_of_function(function, file, Role::Interpreter)
    } else {
        role_of_function(function, file, module.role)
    }
}

/// By name, for parts of the evaluator that the recorder did not mark, such as
/// `_PyEval_EvalFrameDefault.cold`.
fn is_evaluator(function: &str) -> bool {
    function.starts_with("_PyEval_EvalFrameDefault") || function.starts_with("_TAIL_CALL_")
}
