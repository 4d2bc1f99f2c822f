//! A heap graph read from outside, where none can be taken inside: a process that may
//! not fork, has no memory left for it, or sleeps and never comes by.
//!
//! Objects are those of [`types`](super::types): what looks like one is one. What an
//! object refers to is found in its memory: words that are an object's address, and the
//! tables of lists, dicts and sets. Labels are those of the graphs that a forked child
//! tells, by the same facts.
//!
//! Nothing stops the process: it is no picture of an instant, and what changes
//! meanwhile may be there twice, or not at all. So nothing is concluded from counts of
//! references but that somebody else has some: the graph's end says that it is
//! approximate. Objects that lie in no block (`None`, static types, what an interpreter
//! has built in) are left out; nobody looks for those.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use leakline_wire::cpython::{Places as Fields, flag, of_type};
use leakline_wire::graph::{Writer, label, node_flag, root, status, type_flag};
use rustc_hash::FxHashMap;

use super::memory::Reader;
use super::pages::PAGE;
use super::types::{Object, Places, Types, bytes_beside};

/// Gets parts, and says whether to go on.
pub(super) type HandOn<'h> = dyn FnMut(&[u8]) -> bool + 'h;

/// How long it may take.
const LONGEST: Duration = Duration::from_secs(60);
/// Most bytes of an object that are looked through.
const MOST_OF_OBJECT: u64 = 1 << 20;

/// What comes before attributes' values, since 3.13.
const VALUES_HEAD: u64 = 8;

/// The label of what an object does not hold, though it has its address.
const NOT_HELD: u64 = u64::MAX;

/// Places in objects of a type that have a label.
type Labels = Rc<[(u64, u64)]>;

/// Tells what `objects` are, and what each refers to.
pub(super) fn tell(
    types: &mut Types<'_>,
    reader: &mut Reader<'_>,
    places: &Places<'_>,
    mut objects: Vec<Object>,
    chunks: &[(u64, u64)],
    hand_on: &mut HandOn<'_>,
) {
    objects.sort_unstable_by_key(|object| object.at);
    objects.dedup_by_key(|object| object.at);
    let mut buffer = vec![0; 64 << 10];
    let mut walk = Walk {
        fields: Fields::of(types.minor()),
        index: Index::of(&objects),
        out: Writer::new(&mut buffer, hand_on),
        types,
        places,
        numbers: FxHashMap::default(),
        names: FxHashMap::default(),
        fixed: HashMap::default(),
        name_count: 0,
        labels: FxHashMap::default(),
        closures: FxHashMap::default(),
        keys: FxHashMap::default(),
        nodes: 0,
        edges: 0,
        bytes: Vec::new(),
        began: Instant::now(),
        steps: 0,
        is_late: false,
    };
    walk.find_closures(reader, &objects);
    for (thread, (from, to)) in (1..).zip(stacks(reader, &mut walk, chunks)) {
        walk.frames(reader, &objects, thread, from, to);
    }
    for object in &objects {
        if !walk.goes_on() {
            break;
        }
        walk.object(reader, &objects, *object);
    }
    if walk.out.has_failed() {
        return;
    }
    let end = if walk.is_late {
        status::OUT_OF_TIME
    } else if walk.types.is_there(reader) {
        status::OUTSIDE
    } else {
        status::CONFUSED
    };
    let took = walk.began.elapsed().as_micros() as u64;
    let (nodes, edges) = (walk.nodes, walk.edges);
    walk.out.end(end, nodes, edges, took);
}

/// Where objects are among all of them.
struct Index {
    /// By page, the first that begins there.
    pages: FxHashMap<u64, u32>,
}

impl Index {
    fn of(objects: &[Object]) -> Index {
        let mut pages = FxHashMap::default();
        pages.reserve(objects.len() / 64);
        for (number, object) in (0..).zip(objects) {
            pages.entry(object.at / PAGE).or_insert(number);
        }
        Index { pages }
    }

    fn find(&self, objects: &[Object], at: u64) -> Option<Object> {
        if !at.is_multiple_of(8) {
            return None;
        }
        let first = *self.pages.get(&(at / PAGE))? as usize;
        // No more begin in a page than there is room for.
        let last = objects.len().min(first + (PAGE / 16) as usize);
        let of_page = &objects[first..last];
        let place = of_page.binary_search_by_key(&at, |object| object.at).ok()?;
        Some(of_page[place])
    }
}

struct Walk<'w, 't, H: FnMut(&[u8]) -> bool> {
    types: &'w mut Types<'t>,
    places: &'w Places<'w>,
    fields: &'static Fields,
    index: Index,
    out: Writer<'w, H>,
    /// Numbers of types in the graph, and of names: by where they are, and our own.
    numbers: FxHashMap<u32, u64>,
    names: FxHashMap<u64, Option<u64>>,
    fixed: HashMap<String, u64>,
    name_count: u64,
    /// By type.
    labels: FxHashMap<u32, Labels>,
    /// Tuples that are functions' closures, and these functions' code.
    closures: FxHashMap<u64, u64>,
    /// Names of a type's attributes, in their order.
    keys: FxHashMap<u32, Rc<[u64]>>,
    nodes: u64,
    edges: u64,
    /// Of an object, in turn.
    bytes: Vec<u8>,
    began: Instant,
    steps: u64,
    /// It took too long.
    is_late: bool,
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let words = bytes.chunks_exact(8);
    words.map(|word| word.try_into().map_or(0, u64::from_le_bytes))
}

fn text(types: &Types<'_>, reader: &Reader<'_>, at: Option<u64>) -> Option<String> {
    types.string(reader, at?)
}

impl<H: FnMut(&[u8]) -> bool> Walk<'_, '_, H> {
    /// Whether there is time, and somebody who listens: to be asked at each step.
    fn goes_on(&mut self) -> bool {
        self.steps += 1;
        if self.steps.is_multiple_of(1 << 14) {
            self.is_late |= self.began.elapsed() > LONGEST;
        }
        !self.is_late && !self.out.has_failed()
    }

    /// What the frames of a thread hold, which lie between two addresses one behind the
    /// other.
    fn frames(&mut self, reader: &Reader<'_>, objects: &[Object], thread: u64, from: u64, to: u64) {
        const NAME: u64 = 128;
        const TAG: u64 = 7;
        const NO_OBJECT: u64 = 3;
        const MOST_LOCALS: u64 = 1024;
        let to_code = frame_code(self.types.minor());
        let mut stack = Table::new(from, u64::MAX, 8, to);
        let mut name = String::new();
        // The frame that one is in, and names of its variables.
        let mut frame = from;
        let mut names = Vec::new();
        let mut next = from;
        while let Some([word, ..]) = stack.next(reader).filter(|_| self.goes_on()) {
            let at = next;
            next += 8;
            let target = word & !TAG;
            let Some(object) = self.index.find(objects, target) else {
                continue;
            };
            if word & NO_OBJECT == NO_OBJECT {
                continue;
            }
            if self.types.facts[object.of as usize].name.as_ref() == "code" {
                let code = object.at;
                frame = at.saturating_sub(to_code);
                name = text(self.types, reader, reader.field(code, NAME)).unwrap_or_default();
                let all = reader.field(code, self.fields.local_names).unwrap_or(0);
                let count = reader.field(code, self.fields.local_count).unwrap_or(0);
                let count = (count & 0xffff_ffff).min(MOST_LOCALS);
                let first = all.saturating_add(self.fields.tuple_items);
                let mut table = Table::new(first, count, 8, u64::MAX);
                names.clear();
                while let Some([name, ..]) = table.next(reader) {
                    names.push(name);
                }
            }
            // Behind its variables what a frame has computed is not all there any more.
            let local = (at - frame.min(at)).checked_sub(self.fields.frame_locals);
            let label = match local {
                None => String::new(),
                Some(bytes) => match names.get((bytes / 8) as usize) {
                    Some(name) => text(self.types, reader, Some(*name)).unwrap_or_default(),
                    None => continue,
                },
            };
            self.out.root(
                root::FRAME,
                thread,
                name.as_bytes(),
                label.as_bytes(),
                target,
            );
        }
    }

    fn find_closures(&mut self, reader: &mut Reader<'_>, objects: &[Object]) {
        let (closure, code) = (self.fields.function_closure, self.fields.function_code);
        for object in objects {
            if !self.goes_on() {
                return;
            }
            if self.types.facts[object.of as usize].name.as_ref() == "function"
                && let Some(closure) = reader.word(object.at + closure).filter(|at| *at != 0)
                && let Some(code) = reader.word(object.at + code)
            {
                self.closures.insert(closure, code);
            }
        }
    }

    /// Labels of a closure's cells, by the names of its function's variables.
    fn cells(&mut self, reader: &Reader<'_>, tuple: u64, count: u64) -> Option<Vec<u64>> {
        const MOST: u64 = 256;
        const LENGTH: u64 = 16;
        let code = *self.closures.get(&tuple)?;
        let names = reader.field(code, self.fields.local_names)?;
        // What a function took with it comes last among its variables.
        let all = reader.field(names, LENGTH)?;
        let first = all.checked_sub(count).filter(|_| all <= MOST)?;
        let labels = (first..all).map(|number| {
            let name = reader.field(names, self.fields.tuple_items + 8 * number);
            let label = self.named(reader, label::LOCAL, name.unwrap_or(0));
            label.unwrap_or(label::OTHER)
        });
        Some(labels.collect())
    }

    fn object(&mut self, reader: &mut Reader<'_>, objects: &[Object], object: Object) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.resize(u64::from(object.bytes).min(MOST_OF_OBJECT) as usize, 0);
        self.parts_of(reader, objects, object, &mut bytes);
        self.bytes = bytes;
    }

    /// The same, with room for its bytes.
    fn parts_of(
        &mut self,
        reader: &mut Reader<'_>,
        objects: &[Object],
        object: Object,
        bytes: &mut [u8],
    ) {
        let facts = &self.types.facts[object.of as usize];
        let (flags, type_) = (facts.flags, facts.type_);
        let before = type_.before as u64 * 8;
        let (class, name) = (facts.address, facts.name.clone());
        let start = object.at - before;
        read(reader, start, bytes);
        let bytes = &*bytes;
        let word = |offset: u64| {
            let at = usize::try_from(before.wrapping_add(offset)).ok()?;
            let bytes = bytes.get(at..at.checked_add(8)?)?;
            bytes.try_into().ok().map(u64::from_le_bytes)
        };
        let field = |offset: u64| word(offset).unwrap_or(0);
        let beside = bytes_beside(reader, self.places, type_, bytes);
        let count = field(0);
        let minor = self.types.minor();
        let (references, is_immortal) = if minor < 12 {
            (count, false)
        } else {
            // The upper half is flags, or belongs to it.
            let count = count as u32;
            (u64::from(count), count.cast_signed() < 0)
        };
        let mut node = 0;
        if is_immortal {
            node |= node_flag::IMMORTAL;
        }
        if u64::from(object.bytes) > MOST_OF_OBJECT {
            node |= node_flag::INCOMPLETE;
        }
        // Links of the collector's lists come before.
        if flags & flag::HAVE_GC != 0 && reader.word(object.at - 16).unwrap_or(0) != 0 {
            node |= node_flag::TRACKED;
        }
        let number = self.type_number(object.of);
        let size = u64::from(object.bytes) + beside;
        self.out.node(object.at, number, size, references, node);
        self.nodes += 1;
        self.title(reader, &name, flags, &field);
        if flags & (flag::TEXT | flag::BYTES | flag::LONG) != 0 || name.as_ref() == "float" {
            return;
        }
        if flags & flag::HEAP != 0 {
            let label = self.fixed(label::ATTRIBUTE, "__class__");
            self.edge(objects, label, class);
        }
        if name.as_ref() == "module" {
            let dict = field(16);
            if let Some(module) = self.types.entry(reader, dict, "__name__") {
                self.out
                    .root(root::MODULE, 0, module.as_bytes(), b"", object.at);
            }
        }
        if flags & flag::TUPLE != 0 {
            let items = before + self.fields.tuple_items;
            let count = field(16);
            let items = bytes.get(items as usize..).unwrap_or(&[]);
            let cells = self.cells(reader, object.at, count).unwrap_or_default();
            for (place, item) in (0..count).zip(words(items)) {
                let label = cells.get(place as usize).copied();
                let label = label.unwrap_or(place << label::BITS | label::INDEX);
                self.edge(objects, label, item);
            }
        }
        if !matches!(name.as_ref(), "list" | "dict" | "tuple") {
            if flags & flag::TUPLE == 0 {
                self.parts(reader, objects, object, &bytes[before as usize..]);
            }
            self.managed(reader, objects, object, &word);
        }
        if flags & flag::LIST != 0 {
            self.list(reader, objects, field(24), field(16));
        } else if flags & flag::DICT != 0 {
            self.dict(reader, objects, field(32), field(40));
        } else if type_.is_set() {
            self.set(reader, objects, field(40), field(32));
        } else if name.as_ref() == "collections.deque" {
            self.deque(reader, objects, [field(16), field(24), field(40)]);
        }
    }

    fn edge(&mut self, objects: &[Object], label: u64, target: u64) -> bool {
        let is_one = self.index.find(objects, target).is_some();
        if is_one {
            self.out.edge(label, target);
            self.edges += 1;
        }
        is_one
    }

    fn title(&mut self, reader: &Reader<'_>, name: &str, flags: u64, field: &impl Fn(u64) -> u64) {
        let title = if name == "function" {
            text(
                self.types,
                reader,
                Some(field(self.fields.function_qualname)),
            )
        } else if name == "module" {
            self.types.entry(reader, field(16), "__name__")
        } else if flags & flag::TYPE != 0 {
            self.types.text(reader, field(of_type::NAME))
        } else {
            None
        };
        if let Some(title) = title {
            self.out.title(title.as_bytes());
        }
    }

    /// The number of a type, which is told with its first object.
    fn type_number(&mut self, of: u32) -> u64 {
        let next = self.numbers.len() as u64;
        if let Some(number) = self.numbers.get(&of) {
            return *number;
        }
        let facts = &self.types.facts[of as usize];
        let mut flags = 0;
        if facts.flags & flag::HAVE_GC != 0 {
            flags |= type_flag::COLLECTED;
        }
        if facts.flags & flag::HEAP != 0 {
            flags |= type_flag::HEAP;
        }
        self.out.type_(facts.address, flags, facts.name.as_bytes());
        self.numbers.insert(of, next);
        next
    }

    fn new_name(&mut self, name: &str) -> u64 {
        self.out.name(name.as_bytes());
        self.name_count += 1;
        self.name_count - 1
    }

    /// The label of a name of ours, or of C's.
    fn fixed(&mut self, kind: u64, name: &str) -> u64 {
        let number = if let Some(number) = self.fixed.get(name) {
            *number
        } else {
            let number = self.new_name(name);
            self.fixed.insert(name.to_owned(), number);
            number
        };
        number << label::BITS | kind
    }

    /// The label of a name of the program's, a `str` that lies there.
    fn named(&mut self, reader: &Reader<'_>, kind: u64, at: u64) -> Option<u64> {
        let number = if let Some(number) = self.names.get(&at) {
            *number
        } else {
            let name = self.types.string(reader, at);
            let number = name.map(|name| self.new_name(&name));
            self.names.insert(at, number);
            number
        };
        number.map(|number| number << label::BITS | kind)
    }

    /// The label of what a dict has under a key.
    fn item(&mut self, reader: &Reader<'_>, objects: &[Object], key: u64) -> u64 {
        const INTERNED: u64 = 3;
        let known = self.index.find(objects, key).map(|key| key.of);
        let of = known.or_else(|| {
            let class = reader.field(key, 8)?;
            Some(self.types.known(reader, class)?.of)
        });
        let Some(of) = of else {
            return label::OTHER;
        };
        let is_text = self.types.facts[of as usize].flags & flag::TEXT != 0;
        if is_text
            && reader
                .field(key, 32)
                .is_some_and(|state| state & INTERNED != 0)
            && let Some(label) = self.named(reader, label::NAMED_ITEM, key)
        {
            return label;
        }
        self.type_number(of) << label::BITS | label::ITEM
    }

    /// Words of an object that are others' addresses.
    fn parts(&mut self, reader: &Reader<'_>, objects: &[Object], object: Object, bytes: &[u8]) {
        const FIRST: u64 = 16;
        /// A small set's entries lie within, and stay there when it has become large.
        const BEHIND_SET: u64 = 200;
        let is_set = self.types.facts[object.of as usize].type_.is_set();
        let first = if is_set { BEHIND_SET } else { FIRST };
        let labels = self.labels_of(reader, object.of);
        let frame = self.frame_labels(reader, object.of, bytes);
        let most = self
            .own_bytes(object.of, bytes)
            .unwrap_or(bytes.len() as u64);
        let bytes = &bytes[..bytes.len().min(most as usize)];
        for (offset, word) in (0..).step_by(8).zip(words(bytes)).skip(2) {
            // In frames the lowest bits may say what it is.
            let target = if frame.is_some() { word & !7 } else { word };
            let target = if target == object.at { 0 } else { target };
            if target == 0 || offset < first {
                continue;
            }
            let own = labels.iter().find(|(at, _)| *at == offset);
            if own.is_some_and(|(_, label)| *label == NOT_HELD) {
                continue;
            }
            let own = own.or_else(|| {
                let frame = frame.as_ref()?;
                frame.iter().find(|(at, _)| *at == offset)
            });
            let label = own.map_or(label::OTHER, |(_, label)| *label);
            self.edge(objects, label, target);
        }
    }

    /// Where objects of a type have what, by what the type says.
    fn labels_of(&mut self, reader: &Reader<'_>, of: u32) -> Labels {
        if let Some(labels) = self.labels.get(&of) {
            return labels.clone();
        }
        let facts = &self.types.facts[of as usize];
        let (flags, class, basic) = (facts.flags, facts.address, facts.basic);
        let name = facts.name.clone();
        let fields = self.fields;
        let mut own: Vec<(u64, &str)> = Vec::new();
        match name.as_ref() {
            "function" => own.extend([
                (fields.function_closure, "__closure__"),
                (fields.function_defaults, "__defaults__"),
                (fields.function_keywords, "__kwdefaults__"),
                (fields.function_code, "__code__"),
                (fields.function_globals, "__globals__"),
            ]),
            "cell" => own.push((16, "cell_contents")),
            "module" => own.push((16, "__dict__")),
            "builtin_function_or_method" => own.push((24, "__self__")),
            _ if flags & flag::TYPE != 0 => own.extend([
                (of_type::DICT, "__dict__"),
                (of_type::BASES, "__bases__"),
                (of_type::MRO, "__mro__"),
                (of_type::BASE, "__base__"),
            ]),
            _ if flags & flag::EXCEPTION != 0 => own.extend([
                (24, "args"),
                (40, "__traceback__"),
                (48, "__context__"),
                (56, "__cause__"),
            ]),
            _ => {}
        }
        let mut labels: Vec<(u64, u64)> = own
            .into_iter()
            .map(|(offset, name)| (offset, self.fixed(label::ATTRIBUTE, name)))
            .collect();
        if self.types.facts[of as usize].type_.is_weak {
            // Whom it is of it does not hold, nor others of the same object.
            labels.extend([16, 40, 48].map(|offset| (offset, NOT_HELD)));
            labels.push((24, self.fixed(label::ATTRIBUTE, "__callback__")));
        }
        let weak = reader.field(class, of_type::WEAK_OFFSET).unwrap_or(0);
        if weak.cast_signed() > 0 {
            labels.push((weak, NOT_HELD));
        }
        let dict = reader.field(class, of_type::DICT_OFFSET).unwrap_or(0);
        if dict.cast_signed() > 0 && flags & flag::TYPE == 0 {
            labels.push((dict, self.fixed(label::ATTRIBUTE, "__dict__")));
        }
        self.members(reader, class, &mut labels);
        if self.types.minor() >= 13 && flags & flag::INLINE_VALUES != 0 {
            let keys = self.keys_of(reader, of);
            let values = (basic + VALUES_HEAD..).step_by(8);
            labels.extend(values.zip(keys.iter().copied()));
        }
        let labels: Labels = labels.into();
        self.labels.insert(of, labels.clone());
        labels
    }

    /// Up to where an object of a type holds others; `None`: wherever something lies.
    fn own_bytes(&self, of: u32, bytes: &[u8]) -> Option<u64> {
        const NAME_AND_DEFAULT: u64 = 32;
        const IS_VALID: u64 = 3;
        let facts = &self.types.facts[of as usize];
        let has_values = self.types.minor() >= 13 && facts.flags & flag::INLINE_VALUES != 0;
        if has_values && bytes.get((facts.basic + IS_VALID) as usize) == Some(&0) {
            // They are a dict's by now.
            return Some(facts.basic);
        }
        match facts.name.as_ref() {
            // Instructions have addresses in their caches.
            "code" => Some(facts.basic),
            "generator" | "coroutine" | "async_generator" => {
                Some(frame_end(self.types.minor(), self.fields, bytes))
            }
            // What it found last is not its own.
            "_contextvars.ContextVar" | "ContextVar" => Some(NAME_AND_DEFAULT),
            _ => None,
        }
    }

    /// What a type and its bases say where something lies: slots, and members of types
    /// in C.
    fn members(&mut self, reader: &Reader<'_>, class: u64, labels: &mut Vec<(u64, u64)>) {
        const OBJECT: u64 = 6;
        const OBJECT_OR_ERROR: u64 = 16;
        const BYTES: u64 = 40;
        const MOST: usize = 512;
        let mut of = class;
        for _ in 0..64 {
            if of == 0 || labels.len() > MOST {
                return;
            }
            let mut member = reader.field(of, of_type::MEMBERS).unwrap_or(0);
            for _ in 0..256 {
                let word = |offset: u64| reader.field(member, offset);
                let Some(name) = word(0).filter(|name| member != 0 && *name != 0) else {
                    break;
                };
                let what = word(8).unwrap_or(0) & 0xffff_ffff;
                if matches!(what, OBJECT | OBJECT_OR_ERROR)
                    && let Some(offset) = word(16).filter(|offset| *offset < MOST_OF_OBJECT)
                    && let Some(name) = self.types.text(reader, name)
                {
                    labels.push((offset, self.fixed(label::ATTRIBUTE, &name)));
                }
                member += BYTES;
            }
            let base = reader.field(of, of_type::BASE).unwrap_or(0);
            if base == of {
                return;
            }
            of = base;
        }
    }

    /// Labels of the attributes that instances of a type have, in their order.
    fn keys_of(&mut self, reader: &Reader<'_>, of: u32) -> Rc<[u64]> {
        const MOST: u64 = 64;
        if let Some(keys) = self.keys.get(&of) {
            return keys.clone();
        }
        let class = self.types.facts[of as usize].address;
        let table = reader.field(class, self.fields.type_keys).unwrap_or(0);
        let mut labels = Vec::new();
        if let Some(keys) = keys_at(reader, table) {
            for number in 0..keys.count.min(MOST) {
                let name = reader.field(keys.entries, 16 * number).unwrap_or(0);
                let label = self.named(reader, label::ATTRIBUTE, name);
                labels.push(label.unwrap_or(label::OTHER));
            }
        }
        let labels: Rc<[u64]> = labels.into();
        self.keys.insert(of, labels.clone());
        labels
    }

    /// Where a generator's or coroutine's frame has which variable; `None` of what has
    /// no frame.
    fn frame_labels(
        &mut self,
        reader: &Reader<'_>,
        of: u32,
        bytes: &[u8],
    ) -> Option<Vec<(u64, u64)>> {
        let name = &self.types.facts[of as usize].name;
        if !matches!(name.as_ref(), "generator" | "coroutine" | "async_generator") {
            return None;
        }
        let fields = self.fields;
        let frame = fields.generator_frame;
        let state = *bytes.get(fields.generator_state as usize)? as i8;
        let code_at = frame + frame_code(self.types.minor());
        let code = words(bytes.get(code_at as usize..)?).next()? & !7;
        let mut labels = Vec::new();
        if state < fields.generator_over {
            let names = reader.field(code, fields.local_names)?;
            let count = reader.field(code, fields.local_count)? & 0xffff_ffff;
            for number in 0..count.min(1024) {
                let name = reader.field(names, fields.tuple_items + 8 * number)?;
                if let Some(label) = self.named(reader, label::LOCAL, name) {
                    labels.push((frame + fields.frame_locals + 8 * number, label));
                }
            }
        }
        Some(labels)
    }

    /// What stands before an object that has a dict managed by CPython, and attributes
    /// that lie apart.
    fn managed(
        &mut self,
        reader: &Reader<'_>,
        objects: &[Object],
        object: Object,
        word: &impl Fn(u64) -> Option<u64>,
    ) {
        const MOST: usize = 64;
        if self.types.facts[object.of as usize].flags & flag::MANAGED_DICT == 0 {
            return;
        }
        let before = |bytes: u64| word(0_u64.wrapping_sub(bytes)).unwrap_or(0);
        let (dict, values) = match self.types.minor() {
            11 => (before(24), before(32)),
            12 if before(24) & 1 == 1 => (0, before(24).wrapping_add(1)),
            _ => (before(24), 0),
        };
        let label = self.fixed(label::ATTRIBUTE, "__dict__");
        self.edge(objects, label, dict);
        if values != 0 {
            let keys = self.keys_of(reader, object.of);
            let mut bytes = [0; MOST * 8];
            let bytes = &mut bytes[..keys.len().min(MOST) * 8];
            read(reader, values, bytes);
            for (label, value) in keys.iter().zip(words(bytes)) {
                self.edge(objects, *label, value);
            }
        }
    }

    /// Up to where the block goes on that an address lies in or begins: a table that makes
    /// no sense is not longer than that.
    fn end_of(&self, reader: &Reader<'_>, at: u64) -> u64 {
        /// What lies in no block is CPython's own.
        const SMALL: u64 = 64 << 10;
        let block = self.places.block(reader, at);
        at.saturating_add(block.map_or(SMALL, |(bytes, _)| bytes))
    }

    fn list(&mut self, reader: &Reader<'_>, objects: &[Object], items: u64, count: u64) {
        let mut table = Table::new(items, count, 8, self.end_of(reader, items));
        let mut place = 0;
        while let Some([item, ..]) = table.next(reader).filter(|_| self.goes_on()) {
            self.edge(objects, place << label::BITS | label::INDEX, item);
            place += 1;
        }
    }

    /// A deque's blocks: each has a link to the one before, 64 elements, and a link to the
    /// next.
    fn deque(&mut self, reader: &Reader<'_>, objects: &[Object], [count, first, index]: [u64; 3]) {
        const ELEMENTS: u64 = 64;
        const BEHIND: u64 = 8 + ELEMENTS * 8;
        let (mut block, mut index) = (first, index);
        for place in 0..count {
            if index >= ELEMENTS {
                index = 0;
                block = reader.field(block, BEHIND).unwrap_or(0);
            }
            let element = reader.field(block, 8 + index * 8);
            let Some(element) = element.filter(|_| block != 0 && self.goes_on()) else {
                return;
            };
            self.edge(objects, place << label::BITS | label::INDEX, element);
            index += 1;
        }
    }

    fn set(&mut self, reader: &Reader<'_>, objects: &[Object], entries: u64, mask: u64) {
        let end = self.end_of(reader, entries);
        let mut table = Table::new(entries, mask.saturating_add(1), 16, end);
        while let Some([key, hash, _]) = table.next(reader).filter(|_| self.goes_on()) {
            // What was taken out leaves a mark with this hash.
            if hash != u64::MAX {
                self.edge(objects, label::KEY, key);
            }
        }
    }

    fn dict(&mut self, reader: &Reader<'_>, objects: &[Object], keys: u64, values: u64) {
        // The values lie in the object whose attributes they are, and are its own.
        let is_embedded = self.types.minor() >= 13
            && values != 0
            && reader
                .once(values)
                .is_some_and(|head| head.to_le_bytes()[2] != 0);
        let end = self.end_of(reader, keys);
        let Some(keys) = keys_at(reader, keys).filter(|_| !is_embedded) else {
            return;
        };
        let each = if keys.is_general { 24 } else { 16 };
        let mut table = Table::new(keys.entries, keys.count, each, end);
        let head = if self.types.minor() >= 13 {
            VALUES_HEAD
        } else {
            0
        };
        let end = self.end_of(reader, values);
        let first = if values == 0 {
            0
        } else {
            values.saturating_add(head)
        };
        let mut split = Table::new(first, keys.count, 8, end);
        while let Some(entry) = table.next(reader).filter(|_| self.goes_on()) {
            let [key, value] = if keys.is_general {
                [entry[1], entry[2]]
            } else {
                [entry[0], entry[1]]
            };
            let value = if values == 0 {
                value
            } else {
                split.next(reader).map_or(0, |[value, ..]| value)
            };
            if key == 0 || value == 0 {
                continue;
            }
            if self.index.find(objects, value).is_some() {
                let label = self.item(reader, objects, key);
                self.edge(objects, label, value);
            }
            // Keys that are shared belong to the type.
            if values == 0 {
                self.edge(objects, label::KEY, key);
            }
        }
    }
}

/// Where frames of threads lie: of the pieces in which they do, those that are in use.
///
/// How far the last piece of a thread is in use stands in CPython's state of the
/// thread: its beginning, so far, its end. That lies among the interpreter's variables, or
/// in a block of malloc's. Of a piece before, it stands in its own head.
fn stacks<H: FnMut(&[u8]) -> bool>(
    reader: &Reader<'_>,
    walk: &mut Walk<'_, '_, H>,
    chunks: &[(u64, u64)],
) -> Vec<(u64, u64)> {
    const LARGEST: u64 = 64 << 20;
    const HEAD: u64 = 24;
    const USED: u64 = 16;
    const MOST_VARIABLES: u64 = 16 << 20;
    let chunks = chunks.iter().filter(|(from, to)| to - from <= LARGEST);
    let ends: FxHashMap<u64, u64> = chunks.clone().copied().collect();
    let before = chunks.filter_map(|(from, _)| reader.once(*from));
    let before: Vec<u64> = before.filter(|before| ends.contains_key(before)).collect();
    let full = before.iter().filter_map(|from| {
        let used = reader.field(*from, USED)?;
        let end = from.checked_add(used.checked_mul(8)?)?.checked_add(HEAD)?;
        (end <= ends[from]).then_some((*from + HEAD, end))
    });
    let mut stacks: FxHashMap<u64, u64> = full.collect();
    let mut places: Vec<(u64, u64)> = walk.types.others.clone();
    let mut is_behind = 0;
    for map in walk.types.maps() {
        // Variables without a value lie behind those with one.
        let is_file = map.inode != 0 || map.start == is_behind;
        if map.writable && !map.is_shared && is_file && map.end - map.start <= MOST_VARIABLES {
            places.push((map.start, map.end));
            is_behind = map.end;
        }
    }
    for (from, to) in places {
        let mut words = Table::new(from, u64::MAX, 8, to);
        let (mut one, mut two) = (0, 0);
        while let Some([three, ..]) = words.next(reader).filter(|_| walk.goes_on()) {
            if ends.get(&one) == Some(&three) && (one + HEAD..=three).contains(&two) {
                stacks.insert(one + HEAD, two);
            }
            (one, two) = (two, three);
        }
    }
    let mut stacks: Vec<(u64, u64)> = stacks.into_iter().collect();
    stacks.sort_unstable();
    stacks
}

/// Up to where a generator's frame has something: behind its variables and what it has
/// computed, or before them where it is over.
fn frame_end(minor: u8, fields: &Fields, bytes: &[u8]) -> u64 {
    const MOST: u64 = 1024;
    /// How many words there are, and since 3.14 where they end.
    const TOP: u64 = 64;
    let first = fields.generator_frame + fields.frame_locals;
    let state = bytes.get(fields.generator_state as usize).copied();
    if state.is_none_or(|state| state as i8 >= fields.generator_over) {
        return first;
    }
    let top = bytes.get((fields.generator_frame + TOP) as usize..);
    let top = top.and_then(|bytes| words(bytes).next()).unwrap_or(0);
    if minor >= 14 {
        // An address: of one that lies in the object itself all of it is looked at.
        return bytes.len() as u64;
    }
    first + (top & 0xffff_ffff).min(MOST) * 8
}

/// Where a frame has its code.
fn frame_code(minor: u8) -> u64 {
    if minor == 11 { 32 } else { 0 }
}

/// A dict's table of keys.
struct Keys {
    /// Entries have hashes, too.
    is_general: bool,
    count: u64,
    entries: u64,
}

fn keys_at(reader: &Reader<'_>, at: u64) -> Option<Keys> {
    const LARGEST: u8 = 40;
    let [_, log2_index, kind, ..] = reader.field(at, 8)?.to_le_bytes();
    let count = reader.field(at, 24)?;
    if log2_index > LARGEST {
        return None;
    }
    Some(Keys {
        is_general: kind == 0,
        count,
        entries: at.checked_add(32 + (1 << log2_index))?,
    })
}

/// A table, read piece by piece: entries of so many bytes each, 24 at most.
struct Table {
    at: u64,
    left: u64,
    each: u64,
    piece: Vec<u8>,
    next: usize,
}

impl Table {
    /// Of `count` entries that begin at `at`, but none that do not lie below `end`.
    fn new(at: u64, count: u64, each: u64, end: u64) -> Table {
        let room = end.saturating_sub(at) / each;
        Table {
            at,
            left: if at == 0 { 0 } else { count.min(room) },
            each,
            piece: Vec::new(),
            next: 0,
        }
    }

    fn next(&mut self, reader: &Reader<'_>) -> Option<[u64; 3]> {
        const AT_ONCE: u64 = 2048;
        if self.next == self.piece.len() {
            let count = self.left.min(AT_ONCE);
            self.piece.resize((count * self.each) as usize, 0);
            read(reader, self.at, &mut self.piece);
            self.at += count * self.each;
            self.left -= count;
            self.next = 0;
        }
        let entry = self.piece.get(self.next..self.next + self.each as usize)?;
        self.next += self.each as usize;
        let mut found = [0; 3];
        for (word, read) in found.iter_mut().zip(words(entry)) {
            *word = read;
        }
        Some(found)
    }
}

/// Reads memory; what is not there is zeros.
fn read(reader: &Reader<'_>, at: u64, bytes: &mut [u8]) {
    let Some(end) = at.checked_add(bytes.len() as u64) else {
        return;
    };
    let first = at - at % PAGE;
    let is_there = (first..end)
        .step_by(PAGE as usize)
        .all(|page| reader.pages().is_present(page));
    if is_there && reader.memory().read(at, bytes) {
        return;
    }
    bytes.fill(0);
    for page in (first..end).step_by(PAGE as usize) {
        let (from, to) = (page.max(at), page.saturating_add(PAGE).min(end));
        let part = &mut bytes[(from - at) as usize..(to - at) as usize];
        if !reader.pages().is_present(page) || !reader.memory().read(from, part) {
            part.fill(0);
        }
    }
}
