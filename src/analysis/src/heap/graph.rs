//! Objects of a heap and what they refer to, read from the parts of a recording.
//!
//! # Invariants
//!
//! * Nodes are numbered from 0 by address: first the Python objects, then the native
//!   blocks that they point to. What refers and what is referred to is a node, always.
//! * Edges of a node are a slice of `targets`, with their labels at the same places.
//! * Whatever the parts say, reading ends and takes memory in proportion to them; what
//!   makes no sense is left out and counted.

use std::cmp::Ordering;

use leakline_recording::record::HeapPart;
use leakline_wire::graph::{
    Entries, Entry, collects, label, node_flag, root as root_kind, status, suspect_flag, type_flag,
};
use rustc_hash::FxHashMap;

use super::keys::Keys;
use crate::names::escaped;

/// No node.
pub(crate) const NONE: u32 = u32::MAX;

/// Most nodes and edges: numbers of 32 bits, less what stands for none.
const MOST: usize = (u32::MAX - 1) as usize;

/// What a type says of its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Type {
    /// As Python names it, with its module where that is known.
    pub name: String,
    address: u64,
    flags: u64,
}

/// What kind of thing holds objects from outside of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RootKind {
    /// A module of `sys.modules`.
    Module,
    /// A variable of a function that runs.
    Frame,
    /// The interpreter's own state.
    Interpreter,
    /// C code: references that no object explains.
    Native,
    /// Nobody: references that were lost. No word of memory is the object's address.
    Lost,
}

/// What holds an object from outside of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// What it is.
    pub kind: RootKind,
    /// The module's or the function's name.
    pub name: String,
    /// The variable's, or which part of the interpreter.
    pub label: String,
    /// The object.
    pub target: u32,
}

/// How a walk of the heap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was told.
    Whole,
    /// All was told, but read from outside while the process ran: no instant's.
    Approximate,
    /// It was given up: why.
    Early(&'static str),
}

/// What an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    /// Not known.
    Other,
    /// An attribute of that name.
    Attribute(u32),
    /// The value of a dict's key, which is that name.
    NamedItem(u32),
    /// The value of a dict's key of that type.
    Item(u32),
    /// A key of a dict, or an element of a set.
    Key,
    /// An element of a list or tuple.
    Index(u32),
    /// A variable of a frame.
    Local(u32),
    /// A word of a native object whose type tells nobody of what it holds.
    Untold,
}

/// What an edge that was not told has in the place of a label.
const UNTOLD: u32 = 7;
/// A node's flag, which no target sets: it was found in memory, no walk came to it.
const UNREACHED: u8 = 1 << 7;

/// A search of memory for the addresses of objects that count more references than
/// edges and roots explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Searched {
    /// Why it was given up, if it was; then it proves nothing.
    pub failed: Option<&'static str>,
    /// How much memory was looked through.
    pub bytes: u64,
    /// What was not.
    pub left_out: u64,
    /// Whether CPython's collector of cycles ran by itself, where that is known.
    pub collects: Option<bool>,
}

/// How far to trust a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// [`Graph::ended`].
    pub ended: Option<Ended>,
    /// [`Graph::searched`].
    pub searched: Option<Searched>,
    /// [`Graph::missing`].
    pub missing: u64,
    /// [`Graph::keys_left_out`].
    pub keys_left_out: u64,
}

/// A heap.
#[derive(Debug, Default)]
pub struct Graph {
    addresses: Vec<u64>,
    /// How many of them are Python objects: those come first.
    objects: usize,
    /// Of each page that has an object: the first one, and the first of later pages.
    pages: FxHashMap<u64, (u32, u32)>,
    types_of: Vec<u32>,
    /// `u32::MAX` where the size is in `large`.
    bytes: Vec<u32>,
    large: FxHashMap<u32, u64>,
    references: Vec<u32>,
    flags: Vec<u8>,
    /// 0, or a site's id + 1.
    sites: Vec<u32>,
    starts: Vec<u32>,
    targets: Vec<u32>,
    labels: Vec<u32>,
    types: Vec<Type>,
    names: Vec<String>,
    titles: FxHashMap<u32, String>,
    roots: Vec<Root>,
    ended: Option<Ended>,
    searched: Option<Searched>,
    /// By suspect: how many words of memory have its address.
    words: FxHashMap<u32, u32>,
    keys: Keys,
    missing: u64,
    left_out: u64,
}

const PAGE_BITS: u32 = 12;

impl Graph {
    /// Reads a graph of its parts, in order.
    pub fn read(parts: Vec<HeapPart>) -> Self {
        let mut graph = Graph::default();
        let told = graph.number(&parts);
        graph.fill(&parts, told);
        drop(parts);
        graph.keys.close_up();
        graph.drop_borrowed();
        graph.close_up();
        graph
    }

    /// Numbers the nodes; gives what was told of, in its order.
    fn number(&mut self, parts: &[HeapPart]) -> Told {
        let mut told = Told::default();
        let mut addresses = Vec::new();
        let mut natives = Vec::new();
        for part in parts {
            let mut entries = Entries::new(&part.entries);
            let mut sites = Varints(&part.sites);
            for entry in entries.by_ref() {
                match entry {
                    Entry::Type {
                        address,
                        flags,
                        name,
                    } => self.types.push(Type {
                        name: escaped(name).into_owned(),
                        address,
                        flags,
                    }),
                    Entry::Name(name) => self.names.push(escaped(name).into_owned()),
                    Entry::Node { address, .. } => {
                        sites.next();
                        if addresses.len() < MOST {
                            addresses.push(address);
                        }
                        told.edges.push(0);
                    }
                    Entry::Edge { .. } => {
                        if let Some(count) = told.edges.last_mut() {
                            *count = count.saturating_add(1);
                        }
                    }
                    Entry::Pointer(value) => {
                        if sites.next().is_some_and(|site| site > 0) {
                            sites.next();
                            natives.push(value);
                        }
                        // To a block, or to an object.
                        if let Some(count) = told.edges.last_mut() {
                            *count = count.saturating_add(1);
                        }
                    }
                    Entry::Suspect { address, flags, .. } => {
                        if flags & suspect_flag::UNREACHED != 0
                            && sites.next().is_some_and(|site| site > 0)
                        {
                            sites.next();
                            if addresses.len() < MOST {
                                addresses.push(address);
                            }
                            told.edges.push(0);
                        }
                    }
                    Entry::Searched {
                        status,
                        bytes,
                        left_out,
                        collects,
                        ..
                    } => self.searched = Some(searched(status, bytes, left_out, collects)),
                    Entry::End { status, .. } => self.ended = Some(ended(status)),
                    Entry::Keys { left_out, .. } => self.keys.left_out = left_out,
                    Entry::Title(_) | Entry::Root { .. } | Entry::Key { .. } => {}
                }
            }
            self.left_out += u64::from(entries.is_malformed());
        }
        let in_order = addresses.clone();
        addresses.sort_unstable();
        addresses.dedup();
        self.objects = addresses.len();
        self.pages = pages(&addresses);
        self.addresses = addresses;
        self.addresses.shrink_to_fit();
        // What is an object is none of them.
        natives.sort_unstable();
        natives.dedup();
        natives.retain(|&address| self.object_at(address).is_none());
        natives.truncate(MOST - self.objects);
        self.addresses.extend(natives);
        let mut is_taken = vec![false; self.objects];
        told.ids = in_order
            .iter()
            .map(|&address| {
                let id = self.object_at(address).unwrap_or(NONE);
                match is_taken.get_mut(id as usize) {
                    Some(taken) if !*taken => {
                        *taken = true;
                        id
                    }
                    // Told of once more: the first counts.
                    _ => NONE,
                }
            })
            .collect();
        told
    }

    /// Makes the arrays and fills them, with room for an edge to each type.
    fn fill(&mut self, parts: &[HeapPart], told: Told) {
        let nodes = self.addresses.len();
        let native_type = u32::try_from(self.types.len()).unwrap_or(NONE);
        self.types.push(Type {
            name: "native block".into(),
            ..Type::default()
        });
        let mut starts = vec![0_u32; nodes + 1];
        for (&id, &edges) in told.ids.iter().zip(&told.edges) {
            if let Some(count) = starts.get_mut(id as usize) {
                // One more for its type.
                *count = edges.saturating_add(1);
            }
        }
        let mut sum = 0_u32;
        for start in &mut starts {
            let count = *start;
            *start = sum;
            // What there is no room for is not written below.
            sum = sum.saturating_add(count).min(MOST as u32);
        }
        self.starts = starts;
        self.targets = vec![NONE; sum as usize];
        self.labels = vec![0; sum as usize];
        self.types_of = vec![native_type; nodes];
        self.bytes = vec![0; nodes];
        self.references = vec![0; nodes];
        self.flags = vec![0; nodes];
        self.sites = vec![0; nodes];

        let mut ids = told.ids.into_iter();
        let (mut current, mut at) = (NONE, 0);
        for part in parts {
            let mut sites = Varints(&part.sites);
            for entry in Entries::new(&part.entries) {
                match entry {
                    Entry::Node {
                        type_number,
                        bytes,
                        references,
                        flags,
                        ..
                    } => {
                        let site = sites.next().unwrap_or(0);
                        current = ids.next().unwrap_or(NONE);
                        let node = current as usize;
                        at = self.starts.get(node).map_or(0, |&start| start as usize);
                        if current != NONE {
                            let type_ = type_number.min(u64::from(native_type) + 1);
                            self.types_of[node] = type_ as u32;
                            self.set_bytes(current, bytes);
                            self.references[node] = u32::try_from(references).unwrap_or(u32::MAX);
                            self.flags[node] = flags as u8 & !UNREACHED;
                            self.sites[node] = u32::try_from(site).unwrap_or(0);
                        }
                    }
                    Entry::Edge { label, target } => {
                        if current == NONE {
                            self.left_out += 1;
                        } else if let Some(target) = self.object_at(target) {
                            self.put(current, &mut at, target, packed(label));
                        } else {
                            self.missing += 1;
                        }
                    }
                    Entry::Pointer(value) => {
                        let site = sites.next().unwrap_or(0);
                        if site == 0 {
                            self.untold(current, &mut at, value);
                            continue;
                        }
                        let bytes = sites.next().unwrap_or(0);
                        if current != NONE
                            && let Some(block) = self.native_at(value)
                        {
                            self.sites[block as usize] = u32::try_from(site).unwrap_or(0);
                            self.set_bytes(block, bytes);
                            self.put(current, &mut at, block, 0);
                        }
                    }
                    Entry::Title(text) => {
                        if current != NONE {
                            self.titles.insert(current, escaped(text).into_owned());
                        }
                    }
                    Entry::Root {
                        kind,
                        name,
                        label,
                        target,
                        ..
                    } => match (self.object_at(target), root(kind)) {
                        (Some(target), Some(kind)) => self.roots.push(Root {
                            kind,
                            name: escaped(name).into_owned(),
                            label: escaped(label).into_owned(),
                            target,
                        }),
                        _ => self.missing += 1,
                    },
                    Entry::Suspect {
                        address,
                        type_number,
                        references,
                        words,
                        flags,
                    } => {
                        let is_unreached = flags & suspect_flag::UNREACHED != 0;
                        if is_unreached {
                            let site = sites.next().unwrap_or(0);
                            if site == 0 {
                                // What lies there is no object, or was freed.
                                continue;
                            }
                            let bytes = sites.next().unwrap_or(0);
                            current = ids.next().unwrap_or(NONE);
                            let node = std::mem::replace(&mut current, NONE) as usize;
                            if node == NONE as usize {
                                continue;
                            }
                            let type_ = type_number.min(u64::from(native_type) + 1);
                            self.types_of[node] = type_ as u32;
                            self.set_bytes(node as u32, bytes);
                            self.references[node] = u32::try_from(references).unwrap_or(u32::MAX);
                            self.flags[node] = UNREACHED;
                            self.sites[node] = u32::try_from(site).unwrap_or(0);
                        }
                        if let Some(node) = self.object_at(address) {
                            let words = u32::try_from(words).unwrap_or(u32::MAX);
                            self.words.insert(node, words);
                        }
                    }
                    Entry::Key {
                        address,
                        kind,
                        content,
                    } => {
                        let is_told = self
                            .object_at(address)
                            .is_some_and(|node| self.keys.put(node, kind, content));
                        self.left_out += u64::from(!is_told);
                    }
                    Entry::Type { .. }
                    | Entry::Name(_)
                    | Entry::End { .. }
                    | Entry::Keys { .. }
                    | Entry::Searched { .. } => {}
                }
            }
        }
        // A number that no type has.
        self.types.push(Type {
            name: "[unknown]".into(),
            ..Type::default()
        });
    }

    /// A word of an object that is an object's address: where the type tells nobody of
    /// what its objects hold, they hold that.
    fn untold(&mut self, node: u32, at: &mut usize, value: u64) {
        let Some(target) = self.object_at(value) else {
            return;
        };
        if node == NONE || target == node || !self.is_opaque(node) {
            return;
        }
        let from = self.starts[node as usize] as usize;
        if !self.targets[from..*at].contains(&target) {
            self.put(node, at, target, UNTOLD);
        }
    }

    fn put(&mut self, node: u32, at: &mut usize, target: u32, label: u32) {
        // The last place is the type's.
        if *at + 1 < self.starts[node as usize + 1] as usize {
            self.targets[*at] = target;
            self.labels[*at] = label;
            *at += 1;
        } else {
            self.left_out += 1;
        }
    }

    fn set_bytes(&mut self, node: u32, bytes: u64) {
        self.bytes[node as usize] = match u32::try_from(bytes) {
            Ok(bytes) if bytes < u32::MAX => bytes,
            _ => {
                // More than all the memory of a machine is nonsense.
                self.large.insert(node, bytes.min(1 << 47));
                u32::MAX
            }
        };
    }

    /// Drops edges that nobody told of to what counts no more references than were told:
    /// such a word is borrowed, or another object tells of it.
    fn drop_borrowed(&mut self) {
        if !self.labels.contains(&UNTOLD) {
            return;
        }
        let mut left = self.references.clone();
        let told = self.targets.iter().zip(&self.labels);
        let told = told.filter(|&(&target, &label)| target != NONE && label != UNTOLD);
        let roots = self.roots.iter().map(|root| &root.target);
        for &target in told.map(|(target, _)| target).chain(roots) {
            let left = &mut left[target as usize];
            *left = left.saturating_sub(1);
        }
        for (target, &label) in self.targets.iter_mut().zip(&self.labels) {
            if *target == NONE || label != UNTOLD {
                continue;
            }
            let left = &mut left[*target as usize];
            if *left == 0 {
                *target = NONE;
            } else {
                *left -= 1;
            }
        }
    }

    /// Moves edges together, and adds those to types made at run time that were not
    /// told of: such an object holds its type.
    fn close_up(&mut self) {
        let type_nodes: Vec<u32> = self
            .types
            .iter()
            .map(|type_| {
                let is_held = type_.flags & type_flag::HEAP != 0;
                let node = is_held.then(|| self.object_at(type_.address)).flatten();
                node.unwrap_or(NONE)
            })
            .collect();
        let mut to = 0;
        for node in 0..self.addresses.len() {
            let (from, end) = (self.starts[node] as usize, self.starts[node + 1] as usize);
            let begin = to;
            self.starts[node] = to as u32;
            let held = type_nodes
                .get(self.types_of[node] as usize)
                .copied()
                .unwrap_or(NONE);
            for at in from..end {
                if self.targets[at] != NONE {
                    self.targets[to] = self.targets[at];
                    self.labels[to] = self.labels[at];
                    to += 1;
                }
            }
            if held != NONE && to < end && !self.targets[begin..to].contains(&held) {
                self.targets[to] = held;
                self.labels[to] = 0;
                to += 1;
            }
        }
        if let Some(last) = self.starts.last_mut() {
            *last = to as u32;
        }
        self.targets.truncate(to);
        self.targets.shrink_to_fit();
        self.labels.truncate(to);
        self.labels.shrink_to_fit();
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// How many of the nodes are Python objects: those with the smallest numbers.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// How many edges there are.
    pub fn edges(&self) -> usize {
        self.targets.len()
    }

    /// The Python object, or native block, that begins at an address.
    pub fn at(&self, address: u64) -> Option<u32> {
        self.object_at(address).or_else(|| self.native_at(address))
    }

    fn object_at(&self, address: u64) -> Option<u32> {
        let &(first, end) = self.pages.get(&(address >> PAGE_BITS))?;
        let of_page = self.addresses.get(first as usize..end as usize)?;
        let at = place_in_page(of_page, address)?;
        u32::try_from(first as usize + at).ok()
    }

    fn native_at(&self, address: u64) -> Option<u32> {
        let natives = &self.addresses[self.objects..];
        let at = natives.binary_search(&address).ok()?;
        u32::try_from(self.objects + at).ok()
    }

    /// Where a node begins.
    pub fn address(&self, node: u32) -> u64 {
        self.addresses.get(node as usize).copied().unwrap_or(0)
    }

    /// The number of its type.
    pub fn type_of(&self, node: u32) -> u32 {
        let known = self.types_of.get(node as usize).copied().unwrap_or(NONE);
        known.min(u32::try_from(self.types.len() - 1).unwrap_or(NONE))
    }

    /// The types, by number; the last two are those of native blocks and of what has
    /// no type.
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// The name of its type.
    pub fn type_name(&self, node: u32) -> &str {
        self.name_of_type(self.type_of(node))
    }

    /// The name of a type of that number.
    pub fn name_of_type(&self, type_: u32) -> &str {
        self.types
            .get(type_ as usize)
            .map_or("[unknown]", |type_| type_.name.as_str())
    }

    /// Its own bytes.
    pub fn bytes(&self, node: u32) -> u64 {
        match self.bytes.get(node as usize) {
            Some(&u32::MAX) => self.large.get(&node).copied().unwrap_or(0),
            Some(&bytes) => u64::from(bytes),
            None => 0,
        }
    }

    /// How many references it counts.
    pub fn references(&self, node: u32) -> u32 {
        self.references.get(node as usize).copied().unwrap_or(0)
    }

    /// It lives for ever.
    pub fn is_immortal(&self, node: u32) -> bool {
        self.has_flag(node, node_flag::IMMORTAL)
    }

    /// The collector of cycles knows it.
    pub fn is_tracked(&self, node: u32) -> bool {
        self.has_flag(node, node_flag::TRACKED)
    }

    /// Not all that it refers to was told.
    pub fn is_incomplete(&self, node: u32) -> bool {
        self.has_flag(node, node_flag::INCOMPLETE) || self.is_opaque(node)
    }

    /// Its type is a native one that tells CPython's collector of nothing.
    pub fn is_opaque(&self, node: u32) -> bool {
        let type_ = self.types.get(self.type_of(node) as usize);
        type_.is_some_and(|type_| type_.flags & type_flag::OPAQUE != 0)
    }

    /// It was frozen: no collection looks at it.
    pub fn is_frozen(&self, node: u32) -> bool {
        self.has_flag(node, node_flag::FROZEN)
    }

    /// It was found in memory only: no walk came to it.
    pub fn is_unreached(&self, node: u32) -> bool {
        self.has_flag(node, u64::from(UNREACHED))
    }

    /// The search of memory, if there was one.
    pub fn searched(&self) -> Option<Searched> {
        self.searched
    }

    /// References that an object counts and that nobody has: no word of memory is its
    /// address. 0 where memory was not searched for it.
    pub fn lost_references(&self, node: u32) -> u32 {
        match (self.searched, self.words.get(&node)) {
            (Some(Searched { failed: None, .. }), Some(&words)) => {
                self.references(node).saturating_sub(words)
            }
            _ => 0,
        }
    }

    /// The objects that memory was searched for.
    pub(crate) fn suspects(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.keys().copied()
    }

    /// Of an object that was searched for, how many words have its address.
    pub fn words(&self, node: u32) -> Option<u32> {
        self.words.get(&node).copied()
    }

    fn has_flag(&self, node: u32, flag: u64) -> bool {
        let flags = self.flags.get(node as usize).copied().unwrap_or(0);
        u64::from(flags) & flag != 0
    }

    /// It is a block of native memory, and no object.
    pub fn is_native(&self, node: u32) -> bool {
        node as usize >= self.objects
    }

    /// The site that its block comes from, where that is known.
    pub fn site(&self, node: u32) -> Option<u32> {
        self.sites.get(node as usize)?.checked_sub(1)
    }

    /// What it calls itself.
    pub fn title(&self, node: u32) -> Option<&str> {
        self.titles.get(&node).map(String::as_str)
    }

    /// A name by its number.
    pub fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("?", String::as_str)
    }

    /// What the key of a dict is under which an edge of a node is its value, as `'user-42'`;
    /// where that was recorded.
    pub(crate) fn key_of(&self, node: u32, edge: usize) -> Option<&str> {
        // The key comes right behind its value.
        let next = edge + 1;
        let is_item = self.edges_of(node).contains(&next)
            && matches!(self.edge(edge), EdgeKind::Item(_))
            && self.edge(next) == EdgeKind::Key;
        is_item.then(|| self.keys.get(self.target(next))).flatten()
    }

    /// How many keys of dicts were not recorded, since there were too many.
    pub fn keys_left_out(&self) -> u64 {
        self.keys.left_out
    }

    /// All names, by number.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// What holds objects from outside, as it was told.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// How far to trust it.
    pub fn trust(&self) -> Trust {
        Trust {
            ended: self.ended,
            searched: self.searched,
            missing: self.missing,
            keys_left_out: self.keys.left_out,
        }
    }

    /// How the walk ended; `None` where it was cut off.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// References to what was not told of.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// What made no sense.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Where a node's edges are.
    pub(crate) fn edges_of(&self, node: u32) -> std::ops::Range<usize> {
        let node = node as usize;
        match (self.starts.get(node), self.starts.get(node + 1)) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        }
    }

    /// What a node refers to; more than once where it does so.
    pub fn targets(&self, node: u32) -> &[u32] {
        &self.targets[self.edges_of(node)]
    }

    /// What the edge at a place refers to.
    pub(crate) fn target(&self, edge: usize) -> u32 {
        self.targets[edge]
    }

    /// What the edge at a place is.
    pub(crate) fn edge(&self, edge: usize) -> EdgeKind {
        let label = self.labels.get(edge).copied().unwrap_or(0);
        let number = label >> label::BITS;
        match u64::from(label) & label::KIND {
            label::ATTRIBUTE => EdgeKind::Attribute(number),
            label::NAMED_ITEM => EdgeKind::NamedItem(number),
            label::ITEM => EdgeKind::Item(number),
            label::KEY => EdgeKind::Key,
            label::INDEX => EdgeKind::Index(number),
            label::LOCAL => EdgeKind::Local(number),
            _ if label == UNTOLD => EdgeKind::Untold,
            _ => EdgeKind::Other,
        }
    }

    /// How many references of each node no edge and no root explains. Immortal
    /// objects do not count theirs.
    pub(crate) fn unexplained(&self) -> Vec<u32> {
        let mut left: Vec<u32> = (0..)
            .zip(&self.references)
            .map(|(node, &references)| {
                if self.is_immortal(node) {
                    0
                } else {
                    references
                }
            })
            .collect();
        let roots = self.roots.iter().map(|root| root.target);
        for target in self.targets.iter().copied().chain(roots) {
            // Borrowed references are edges that nothing counts.
            let left = &mut left[target as usize];
            *left = left.saturating_sub(1);
        }
        left
    }

    /// Bytes that its arrays take.
    pub fn memory(&self) -> usize {
        self.addresses.capacity() * 8
            + (self.types_of.capacity()
                + self.bytes.capacity()
                + self.references.capacity()
                + self.sites.capacity()
                + self.starts.capacity()
                + self.targets.capacity()
                + self.labels.capacity())
                * 4
            + self.flags.capacity()
            + self.words.capacity() * 9
            + self.pages.capacity() * 17
            + self.keys.memory()
    }
}

/// What was told of, in its order.
#[derive(Default)]
struct Told {
    /// How many edges each node has.
    edges: Vec<u32>,
    /// Which node it is.
    ids: Vec<u32>,
}

/// Where in each page's part of the addresses, which rise, it begins and ends.
fn pages(addresses: &[u64]) -> FxHashMap<u64, (u32, u32)> {
    let mut pages = FxHashMap::default();
    let mut at = 0;
    for of_page in addresses.chunk_by(|one, next| one >> PAGE_BITS == next >> PAGE_BITS) {
        let first = at;
        at += of_page.len() as u32;
        pages.insert(of_page[0] >> PAGE_BITS, (first, at));
    }
    pages
}

/// Where an address is among those of its page, which rise.
///
/// Allocators fill a page with blocks of one size, so where it lies in the page tells
/// nearly where that is; a search by halves would wait for memory at each step.
pub(super) fn place_in_page(of_page: &[u64], address: u64) -> Option<usize> {
    const NEAR: usize = 8;
    let offset = address as usize & ((1 << PAGE_BITS) - 1);
    let mut at = (offset * of_page.len()) >> PAGE_BITS;
    let mut before = None;
    for _ in 0..NEAR {
        let order = of_page.get(at)?.cmp(&address);
        match order {
            Ordering::Equal => return Some(at),
            // It would lie between two that are neighbours.
            _ if before.is_some_and(|before| before != order) => return None,
            Ordering::Less => at += 1,
            Ordering::Greater => at = at.checked_sub(1)?,
        }
        before = Some(order);
    }
    of_page.binary_search(&address).ok()
}

/// A label in 32 bits; a number that is too large for them is the largest.
fn packed(label: u64) -> u32 {
    if label & label::KIND == u64::from(UNTOLD) {
        // Of a kind that is not known.
        return 0;
    }
    let most = u64::from(u32::MAX >> label::BITS);
    let number = (label >> label::BITS).min(most);
    (number << label::BITS | label & label::KIND) as u32
}

fn root(kind: u64) -> Option<RootKind> {
    match kind {
        root_kind::MODULE => Some(RootKind::Module),
        root_kind::FRAME => Some(RootKind::Frame),
        root_kind::INTERPRETER => Some(RootKind::Interpreter),
        _ => None,
    }
}

fn ended(how: u64) -> Ended {
    match how {
        status::COMPLETE => Ended::Whole,
        status::OUTSIDE => Ended::Approximate,
        status::OUT_OF_TIME => Ended::Early("it took too long"),
        status::OUT_OF_MEMORY => Ended::Early("there was no memory for its tables"),
        _ => Ended::Early("something in the heap was not what it should be"),
    }
}

fn searched(how: u64, bytes: u64, left_out: u64, collects: u64) -> Searched {
    Searched {
        failed: match how {
            status::COMPLETE => None,
            status::OUT_OF_TIME => Some("it took too long"),
            status::OUT_OF_MEMORY => Some("there was no memory for its tables"),
            status::TOO_MANY => Some("too many objects count references that nothing explains"),
            status::UNREADABLE => Some("the process may not read what memory it has"),
            status::SWAPPED_OUT => Some("much of the process's memory is swapped out"),
            _ => Some("the walk of the heap was given up"),
        },
        bytes,
        left_out,
        collects: match collects {
            collects::YES => Some(true),
            collects::NO => Some(false),
            _ => None,
        },
    }
}

/// Numbers as the collector writes them.
struct Varints<'a>(&'a [u8]);

impl Iterator for Varints<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for i in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(7 * i).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
