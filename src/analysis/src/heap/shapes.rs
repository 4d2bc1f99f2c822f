//! What is alike: objects that are held by the same steps, from the same root.
//!
//! A shape is a path as a person reads it. The objects of a list, or the values of a
//! dict, are one step; an instance's dict, a closure's cells and the like are none.
//! Where steps come back (a linked list, a tree), they are the same step again, so that
//! the number of shapes does not grow with the depth of a heap.

use rustc_hash::FxHashMap;

use super::graph::{EdgeKind, Graph, NONE, RootKind};
use super::paths::{Paths, Root, is_class};

/// Most shapes. Objects beyond have the shape of what holds them.
const MOST: usize = 1 << 20;
/// Most steps of a shape.
const MOST_STEPS: u16 = 48;
/// A dict of more values than this is no structure but a collection: its names are
/// not told apart.
const FEW: usize = 32;
/// How far back a step is looked for that comes again.
const PERIOD: usize = 3;

/// What leads to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// A root of that name.
    Root(RootKind, u32),
    /// Nothing holds it.
    Garbage,
    /// An attribute.
    Attribute(u32),
    /// A variable of a function that runs.
    Variable(u32),
    /// A variable that a function took with it.
    Closure(u32),
    /// A dict's value under a name.
    Item(u32),
    /// One of many.
    Each,
    /// A dict's key.
    Key,
    /// A native block that an object points to.
    Block,
    /// Held by a native object, which tells nobody of it.
    Untold,
    /// Held, it is not known how.
    Other,
}

/// A step of a shape.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The step before; `NONE` at a root.
    parent: u32,
    label: Label,
    /// The objects' type; `NONE` of a root that is no object.
    type_: u32,
    depth: u16,
    /// It holds more of its kind.
    repeats: bool,
}

/// The shapes of a heap's objects.
#[derive(Debug, Default)]
pub struct Shapes {
    steps: Vec<Step>,
    index: FxHashMap<(u32, Label, u32), u32>,
    texts: Vec<String>,
    /// By node: its shape; of one that is hidden, its holder's, and how it is.
    of: Vec<u32>,
}

/// An object that is no step of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    No,
    /// A dict whose values are attributes.
    Namespace,
    /// A function's cells, or one of them.
    Closure,
}

const NAMESPACE: u32 = 1 << 30;
const CLOSURE: u32 = 2 << 30;
const SHAPE: u32 = NAMESPACE - 1;

impl Shapes {
    /// Of all nodes.
    pub(crate) fn new(graph: &Graph, paths: &Paths) -> Self {
        let mut shapes = Shapes {
            of: vec![0; graph.len()],
            ..Shapes::default()
        };
        let mut texts = Texts::default();
        // Equal names are one, whatever the file says.
        let names: Vec<u32> = graph
            .names()
            .iter()
            .map(|name| texts.number(name))
            .collect();
        let kinds = Kinds::new(graph);
        for &node in paths.order() {
            shapes.of[node as usize] = match paths.parent(node) {
                Some((parent, edge)) => {
                    shapes.below(graph, paths, &kinds, &names, node, parent, edge)
                }
                None => shapes.first(graph, paths, &mut texts, node),
            };
        }
        shapes.texts = texts.texts;
        shapes
    }

    /// The shape of an object that a root holds.
    fn first(&mut self, graph: &Graph, paths: &Paths, texts: &mut Texts, node: u32) -> u32 {
        let type_ = graph.type_of(node);
        match paths.root(node) {
            Root::Told(number) => {
                let root = &graph.roots()[number as usize];
                let name = texts.number(&root.name);
                match root.kind {
                    RootKind::Module => self.step(NONE, Label::Root(root.kind, name), type_),
                    kind => {
                        let from = self.step(NONE, Label::Root(kind, name), NONE);
                        let label = match texts.number(&root.label) {
                            _ if root.label.is_empty() => Label::Other,
                            label => Label::Variable(label),
                        };
                        self.step(from, label, type_)
                    }
                }
            }
            Root::Native(_) | Root::Lost(_) => {
                let kind = match paths.root(node) {
                    Root::Lost(_) => RootKind::Lost,
                    _ => RootKind::Native,
                };
                let name = texts.number("");
                let from = self.step(NONE, Label::Root(kind, name), NONE);
                self.step(from, Label::Each, type_)
            }
            Root::Garbage => {
                let from = self.step(NONE, Label::Garbage, NONE);
                self.step(from, Label::Each, type_)
            }
        }
    }

    /// The shape of an object that another one holds.
    #[expect(clippy::too_many_arguments, reason = "of one call")]
    fn below(
        &mut self,
        graph: &Graph,
        paths: &Paths,
        kinds: &Kinds,
        names: &[u32],
        node: u32,
        parent: u32,
        edge: usize,
    ) -> u32 {
        let name = |number: u32| names.get(number as usize).copied().unwrap_or(0);
        let kind = graph.edge(edge);
        let above = self.of[parent as usize];
        let from = above & SHAPE;
        let holder = Hidden::of(above);
        match kinds.hidden(graph, node, parent, kind, holder) {
            Hidden::Namespace => return from | NAMESPACE,
            Hidden::Closure => return from | CLOSURE,
            Hidden::No => {}
        }
        let label = match (holder, kind) {
            (Hidden::Closure, _) => {
                // The cell may have been named.
                let of_cell = paths.parent(parent).map(|(_, edge)| graph.edge(edge));
                match of_cell {
                    Some(EdgeKind::Local(number) | EdgeKind::NamedItem(number)) => {
                        Label::Closure(name(number))
                    }
                    _ => Label::Closure(NONE),
                }
            }
            (_, EdgeKind::Attribute(number)) | (Hidden::Namespace, EdgeKind::NamedItem(number)) => {
                Label::Attribute(name(number))
            }
            (_, EdgeKind::Local(number)) => Label::Variable(name(number)),
            (_, EdgeKind::NamedItem(number)) if graph.targets(parent).len() <= FEW => {
                Label::Item(name(number))
            }
            (_, EdgeKind::Key) if !kinds.is_set(graph, parent) => Label::Key,
            (
                _,
                EdgeKind::NamedItem(_) | EdgeKind::Item(_) | EdgeKind::Index(_) | EdgeKind::Key,
            ) => Label::Each,
            (_, EdgeKind::Other) if graph.is_native(node) => Label::Block,
            (_, EdgeKind::Untold) => Label::Untold,
            (_, EdgeKind::Other) => Label::Other,
        };
        self.step(from, label, graph.type_of(node))
    }

    /// The step of that kind after another.
    fn step(&mut self, parent: u32, label: Label, type_: u32) -> u32 {
        if let Some(&known) = self.index.get(&(parent, label, type_)) {
            return known;
        }
        // It may come again.
        let mut before = parent;
        for _ in 0..PERIOD {
            let Some(step) = self.steps.get_mut(before as usize) else {
                break;
            };
            if (step.label, step.type_) == (label, type_) {
                step.repeats = true;
                return before;
            }
            before = step.parent;
        }
        let depth = self
            .steps
            .get(parent as usize)
            .map_or(0, |step| step.depth + 1);
        if depth >= MOST_STEPS || self.steps.len() >= MOST {
            return if parent == NONE { 0 } else { parent };
        }
        let number = self.steps.len() as u32;
        self.steps.push(Step {
            parent,
            label,
            type_,
            depth,
            repeats: false,
        });
        self.index.insert((parent, label, type_), number);
        number
    }

    /// A node's shape; of one that is hidden, its holder's.
    pub(crate) fn of(&self, node: u32) -> u32 {
        self.of.get(node as usize).map_or(0, |of| of & SHAPE)
    }

    /// It is no step of its own.
    pub(crate) fn is_hidden(&self, node: u32) -> bool {
        self.of.get(node as usize).is_some_and(|&of| of > SHAPE)
    }

    /// Its steps, the root's first.
    pub(crate) fn steps(&self, shape: u32) -> Vec<u32> {
        let mut steps = Vec::new();
        let mut at = shape;
        while let Some(step) = self.steps.get(at as usize) {
            steps.push(at);
            at = step.parent;
        }
        steps.reverse();
        steps
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.steps.len() as u32
    }

    pub(crate) fn label(&self, step: u32) -> Label {
        self.steps
            .get(step as usize)
            .map_or(Label::Other, |step| step.label)
    }

    /// The objects' type; none of a root that is no object.
    pub(crate) fn type_of(&self, step: u32) -> Option<u32> {
        let type_ = self.steps.get(step as usize)?.type_;
        (type_ != NONE).then_some(type_)
    }

    pub(crate) fn repeats(&self, step: u32) -> bool {
        self.steps
            .get(step as usize)
            .is_some_and(|step| step.repeats)
    }

    /// The step before.
    pub(crate) fn parent(&self, step: u32) -> Option<u32> {
        let parent = self.steps.get(step as usize)?.parent;
        (parent != NONE).then_some(parent)
    }

    /// A label in words.
    pub(crate) fn words(&self, label: Label) -> String {
        let text = |number: u32| self.texts.get(number as usize).map_or("", String::as_str);
        match label {
            Label::Root(RootKind::Module, name) => format!("module {}", text(name)),
            Label::Root(RootKind::Frame, name) => format!("frame {}", text(name)),
            Label::Root(RootKind::Interpreter, _) => "interpreter".into(),
            Label::Root(RootKind::Native, _) => "C code".into(),
            Label::Root(RootKind::Lost, _) => "lost reference".into(),
            Label::Untold => "(native)".into(),
            Label::Garbage => "nothing".into(),
            Label::Attribute(name) => format!(".{}", text(name)),
            Label::Variable(name) => text(name).into(),
            Label::Closure(NONE) => "closure".into(),
            Label::Closure(name) => format!("closure {}", text(name)),
            Label::Item(name) => format!("[\"{}\"]", text(name)),
            Label::Each => "[*]".into(),
            Label::Key => "[key]".into(),
            Label::Block => "block".into(),
            Label::Other => "(ref)".into(),
        }
    }

    /// Bytes that its arrays take.
    pub(crate) fn memory(&self) -> usize {
        self.of.capacity() * 4 + self.steps.capacity() * 40
    }
}

impl Hidden {
    fn of(shape: u32) -> Self {
        match shape & !SHAPE {
            NAMESPACE => Hidden::Namespace,
            CLOSURE => Hidden::Closure,
            _ => Hidden::No,
        }
    }
}

#[derive(Default)]
struct Texts {
    texts: Vec<String>,
    numbers: FxHashMap<String, u32>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.numbers.get(text) {
            return known;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// What matters of types, by number.
struct Kinds {
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dict,
    Tuple,
    Cell,
    Function,
    /// A module or class: what has no name of it is its namespace.
    Namespace,
    Set,
    Else,
}

impl Kinds {
    fn new(graph: &Graph) -> Self {
        let kind = |name: &str| match name {
            "dict" => Kind::Dict,
            "tuple" => Kind::Tuple,
            "cell" => Kind::Cell,
            "function" => Kind::Function,
            "module" => Kind::Namespace,
            "set" | "frozenset" => Kind::Set,
            name if is_class(name) => Kind::Namespace,
            _ => Kind::Else,
        };
        let types = graph.types().iter();
        Kinds {
            kinds: types.map(|type_| kind(&type_.name)).collect(),
        }
    }

    fn of(&self, graph: &Graph, node: u32) -> Kind {
        let type_ = graph.type_of(node) as usize;
        self.kinds.get(type_).copied().unwrap_or(Kind::Else)
    }

    fn is_set(&self, graph: &Graph, node: u32) -> bool {
        self.of(graph, node) == Kind::Set
    }

    /// Whether a person would not name an object on the way to what it holds.
    fn hidden(
        &self,
        graph: &Graph,
        node: u32,
        parent: u32,
        edge: EdgeKind,
        holder: Hidden,
    ) -> Hidden {
        let above = self.of(graph, parent);
        match self.of(graph, node) {
            Kind::Dict => match edge {
                EdgeKind::Attribute(name) if graph.name(name) == "__dict__" => Hidden::Namespace,
                EdgeKind::Other if above == Kind::Namespace => Hidden::Namespace,
                _ => Hidden::No,
            },
            Kind::Tuple if above == Kind::Function => {
                let first = graph.targets(node).first();
                let holds_cells = first.is_some_and(|&first| self.of(graph, first) == Kind::Cell);
                if holds_cells {
                    Hidden::Closure
                } else {
                    Hidden::No
                }
            }
            Kind::Cell if holder == Hidden::Closure || above == Kind::Function => Hidden::Closure,
            _ => Hidden::No,
        }
    }
}
