//! Recordings made by hand, for tests.

use leakline_recording::record::{
    Bin, Code, Counters, Domain, End, Frame, HeapPart, Mark, Module, Node, Peak, Point, Process,
    ProcessEnd, ProcessTotals, Record, Session, Site, Sizes, Source, SymbolFrame, Symbols, Thread,
    ThreadTotals,
};
use leakline_wire::graph;

use crate::model::Origin;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// Builds records, handing out ids as a recorder would.
pub(crate) struct Builder {
    pub(crate) records: Vec<Record>,
    processes: u32,
    threads: u32,
    modules: u32,
    codes: u32,
    nodes: u32,
    sites: u32,
    last: Vec<Counters>,
}

impl Builder {
    /// An exact session of 2023-11-14 22:13:20 UTC.
    pub(crate) fn new(command: &[&str]) -> Self {
        let session = Session {
            started_unix_ns: 1_700_000_000 * SECOND,
            leakline: "0.1.0".into(),
            command: texts(command),
            mode: "exact".into(),
            sample_bytes: 0,
            python: true,
            native: true,
            host: "host".into(),
            temporary_window: 1,
        };
        Builder {
            records: vec![Record::Session(session)],
            processes: 0,
            threads: 0,
            modules: 0,
            codes: 0,
            nodes: 0,
            sites: 0,
            last: Vec::new(),
        }
    }

    pub(crate) fn process(&mut self, pid: u32, command: &[&str]) -> u32 {
        self.records.push(Record::Process(Process {
            pid,
            start_ticks: 1000 + u64::from(pid),
            parent: (self.processes > 0).then_some(0),
            parent_pid: 1,
            at_ns: 0,
            executable: command.first().copied().unwrap_or_default().into(),
            command: texts(command),
            exec: false,
            python_version: 0,
            inherited_blocks: 0,
            inherited_bytes: 0,
        }));
        self.processes += 1;
        self.processes - 1
    }

    pub(crate) fn thread(&mut self, process: u32, tid: u32, name: &str) -> u32 {
        self.records.push(Record::Thread(Thread {
            process,
            tid,
            name: name.into(),
            at_ns: 0,
        }));
        self.threads += 1;
        self.threads - 1
    }

    pub(crate) fn module(&mut self, path: &str) -> u32 {
        self.records.push(Record::Module(Module {
            path: path.into(),
            build_id: Vec::new(),
        }));
        self.modules += 1;
        self.modules - 1
    }

    pub(crate) fn code(&mut self, file: &str, name: &str, first_line: u32) -> u32 {
        // Two bytes of code a line.
        let lines = (0..100).map(|line| (2 * line, first_line + line)).collect();
        self.records.push(Record::Code(Code {
            file: file.into(),
            name: name.into(),
            first_line,
            lines,
        }));
        self.codes += 1;
        self.codes - 1
    }

    pub(crate) fn node(&mut self, parent: u32, frame: Frame) -> u32 {
        self.records.push(Record::Node(Node { parent, frame }));
        self.nodes += 1;
        self.nodes
    }

    pub(crate) fn native(&mut self, parent: u32, module: u32, offset: u64) -> u32 {
        let frame = Frame::Native {
            module: Some(module),
            offset,
            exact: false,
            evaluator: false,
        };
        self.node(parent, frame)
    }

    pub(crate) fn evaluator(&mut self, parent: u32, module: u32, offset: u64) -> u32 {
        let frame = Frame::Native {
            module: Some(module),
            offset,
            exact: false,
            evaluator: true,
        };
        self.node(parent, frame)
    }

    /// A Python frame at the `line`-th line of its code object.
    pub(crate) fn python(&mut self, parent: u32, code: u32, line: u32, entry: bool) -> u32 {
        self.node(
            parent,
            Frame::Python {
                code,
                offset: 2 * line,
                entry,
            },
        )
    }

    pub(crate) fn pair(&mut self, native: u32, python: u32) -> u32 {
        self.node(native, Frame::Pair { python })
    }

    /// Names return address `offset`: function, file, line, the innermost
    /// first; all but the last are inlined.
    pub(crate) fn symbols(&mut self, module: u32, offset: u64, frames: &[(&str, &str, u32)]) {
        let count = frames.len();
        let frames = frames
            .iter()
            .enumerate()
            .map(|(at, (function, file, line))| SymbolFrame {
                function: (*function).into(),
                file: (*file).into(),
                line: *line,
                inlined: at + 1 < count,
                beyond: 0,
            })
            .collect();
        self.records.push(Record::Symbols(Symbols {
            module,
            addresses: vec![(offset - 1, frames)],
            note: None,
        }));
    }

    pub(crate) fn site(&mut self, process: u32, node: u32, domain: Domain) -> u32 {
        self.records.push(Record::Site(Site {
            process,
            node,
            domain,
        }));
        self.last.push(Counters::default());
        self.sites += 1;
        self.sites - 1
    }

    /// A bin that ends at `end_ns`, with the counters that sites reached.
    pub(crate) fn bin(&mut self, end_ns: u64, sites: &[(u32, Counters)]) {
        let mut points = Vec::new();
        for &(site, now) in sites {
            let last = &mut self.last[site as usize];
            points.push(Point {
                site,
                live_bytes: now.live_bytes.wrapping_sub(last.live_bytes) as i64,
                live_blocks: now.live_blocks.wrapping_sub(last.live_blocks) as i64,
                total_bytes: now.total_bytes.wrapping_sub(last.total_bytes) as i64,
                total_blocks: now.total_blocks.wrapping_sub(last.total_blocks) as i64,
                temporary_blocks: now.temporary_blocks.wrapping_sub(last.temporary_blocks) as i64,
                resizes: now.resizes.wrapping_sub(last.resizes) as i64,
            });
            *last = now;
        }
        let live_bytes = self.last.iter().map(|counters| counters.live_bytes).sum();
        self.records.push(Record::Bin(Bin {
            end_ns,
            live_bytes,
            live_blocks: self.last.iter().map(|counters| counters.live_blocks).sum(),
            max_bytes: live_bytes,
            rss: Vec::new(),
            points,
            complete: true,
        }));
    }

    pub(crate) fn peak(&mut self, at_ns: u64, sites: &[(u32, u64, u64)]) {
        self.records.push(Record::Peak(Peak {
            process: None,
            at_ns,
            live_bytes: sites.iter().map(|site| site.1).sum(),
            live_blocks: sites.iter().map(|site| site.2).sum(),
            sites: sites.to_vec(),
        }));
    }

    /// A mark of a process.
    pub(crate) fn mark(&mut self, name: &str, at_ns: u64, process: u32) {
        self.records.push(Record::Mark(Mark {
            name: name.into(),
            at_ns,
            process: Some(process),
        }));
    }

    pub(crate) fn source(&mut self, file: &str, lines: &[(u32, &str)]) {
        self.records.push(Record::Source(Source {
            file: file.into(),
            lines: lines
                .iter()
                .map(|(line, text)| (*line, (*text).into()))
                .collect(),
        }));
    }

    pub(crate) fn totals(&mut self, totals: ProcessTotals) {
        self.records.push(Record::Totals(totals));
    }

    pub(crate) fn thread_totals(&mut self, thread: u32, counters: Counters) {
        self.records
            .push(Record::ThreadTotals(ThreadTotals { thread, counters }));
    }

    pub(crate) fn sizes(&mut self, classes: &[(u64, u64)]) {
        self.records.push(Record::Sizes(Sizes {
            classes: classes.to_vec(),
        }));
    }

    pub(crate) fn process_end(&mut self, process: u32, at_ns: u64, exit_status: Option<i32>) {
        self.records.push(Record::ProcessEnd(ProcessEnd {
            process,
            at_ns,
            exit_status,
            signal: if exit_status.is_none() { Some(9) } else { None },
            exec: false,
        }));
    }

    pub(crate) fn end(&mut self, at_ns: u64) {
        self.records.push(Record::End(End {
            at_ns,
            reason: "exited".into(),
        }));
    }
}

fn texts(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// Counters, of which these matter most.
pub(crate) fn counters(
    live_bytes: u64,
    live_blocks: u64,
    total_bytes: u64,
    total_blocks: u64,
) -> Counters {
    Counters {
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks: total_blocks / 4,
        resizes: 0,
    }
}

/// A whole file in UTC.
pub(crate) fn origin() -> Origin {
    Origin {
        file: "train.4121.leakline".into(),
        implied: false,
        file_bytes: 3_250_585,
        ended: true,
        is_live: false,
        warnings: Vec::new(),
        utc_offset_seconds: 0,
    }
}

/// `python train.py` over 3 min 12 s: a list that grows, a batch that comes
/// and goes, what imports left, and a native library.
pub(crate) fn training() -> Vec<Record> {
    const MIB: u64 = 1 << 20;
    let mut b = Builder::new(&["python", "train.py"]);
    let process = b.process(4121, &["/usr/bin/python3.11", "train.py"]);
    let main_thread = b.thread(process, 4121, "python");
    let worker = b.thread(process, 4130, "loader");
    let python = b.module("/usr/bin/python3.11");
    let libc = b.module("/usr/lib/x86_64-linux-gnu/libc.so.6");
    let parse = b.module("/srv/venv/lib/python3.11/site-packages/fastparse.so");
    let module_code = b.code("/srv/app/train.py", "<module>", 1);
    let epoch = b.code("/srv/app/train.py", "Trainer.epoch", 40);
    let load_batch = b.code("/srv/app/train.py", "load_batch", 55);
    let decoder = b.code(
        "/usr/lib/python3.11/json/decoder.py",
        "JSONDecoder.raw_decode",
        343,
    );
    let frozen = b.code(
        "<frozen importlib._bootstrap>",
        "_call_with_frames_removed",
        240,
    );

    b.symbols(libc, 0x29d90, &[("__libc_start_call_main", "", 0)]);
    b.symbols(python, 0x1000, &[("Py_BytesMain", "", 0)]);
    b.symbols(python, 0x2000, &[("_PyEval_EvalFrameDefault", "", 0)]);
    b.symbols(python, 0x3000, &[("list_resize", "", 0)]);
    b.symbols(python, 0x3100, &[("PyObject_Malloc", "", 0)]);
    b.symbols(
        parse,
        0x4000,
        &[
            ("grow", "/src/fastparse/src/arena.h", 12),
            ("parse_header", "/src/fastparse/src/parse.c", 118),
        ],
    );

    let start = b.native(0, libc, 0x29d90);
    let main = b.native(start, python, 0x1000);
    let eval = b.evaluator(main, python, 0x2000);
    let resize = b.native(eval, python, 0x3000);
    let malloc = b.native(eval, python, 0x3100);
    let header = b.native(eval, parse, 0x4000);
    let stripped = b.native(eval, parse, 0x5000);

    let py_main = b.python(0, module_code, 9, true);
    let py_epoch = b.python(py_main, epoch, 3, false);
    let py_batch = b.python(py_epoch, load_batch, 2, false);
    let py_decode = b.python(py_batch, decoder, 10, false);
    let py_import = b.python(py_main, frozen, 1, false);

    let growing = b.pair(resize, py_epoch);
    let batch = b.pair(malloc, py_batch);
    let decode = b.pair(malloc, py_decode);
    let native = b.pair(header, py_batch);
    let unnamed = b.pair(stripped, py_batch);
    let import = b.pair(malloc, py_import);

    let growing = b.site(process, growing, Domain::Mem);
    let batch = b.site(process, batch, Domain::Obj);
    let decode = b.site(process, decode, Domain::Obj);
    let native = b.site(process, native, Domain::Native);
    let unnamed = b.site(process, unnamed, Domain::Native);
    let import = b.site(process, import, Domain::Obj);

    b.mark("python ready", SECOND, process);
    b.bin(
        SECOND,
        &[(import, counters(3 * MIB, 30_000, 4 * MIB, 40_000))],
    );
    b.bin(
        60 * SECOND,
        &[
            (growing, counters(10 * MIB, 1000, 10 * MIB, 1000)),
            (batch, counters(200 * MIB, 100, 2048 * MIB, 1000)),
            (decode, counters(5 * MIB, 5000, 50 * MIB, 50_000)),
            (native, counters(MIB, 4681, MIB, 4681)),
        ],
    );
    b.peak(
        127 * SECOND,
        &[
            (growing, 20 * MIB, 2000),
            (batch, 1200 * MIB, 600),
            (import, 3 * MIB, 30_000),
        ],
    );
    b.bin(
        191 * SECOND,
        &[
            (growing, counters(30 * MIB, 3000, 30 * MIB, 3000)),
            (batch, counters(0, 0, 9 * 1024 * MIB, 4500)),
            (decode, counters(512, 1, 150 * MIB, 150_000)),
            (native, counters(2 * MIB, 9362, 2 * MIB, 9362)),
            (unnamed, counters(4096, 1, 4096, 1)),
        ],
    );
    b.mark("main left", 191 * SECOND, process);
    // The interpreter's own end leaves some of its imports.
    b.bin(
        192 * SECOND,
        &[
            (growing, counters(0, 0, 30 * MIB, 3000)),
            (decode, counters(0, 0, 150 * MIB, 150_000)),
            (import, counters(MIB, 10_000, 4 * MIB, 40_000)),
        ],
    );
    b.thread_totals(
        main_thread,
        counters(2 * MIB + 4096, 19_000, 9 * 1024 * MIB, 190_000),
    );
    b.thread_totals(worker, counters(MIB, 363, 200 * MIB, 16_863));
    b.sizes(&[
        (0, 0),
        (0, 0),
        (10, 25),
        (1000, 6000),
        (150_000, 1_800_000),
        (0, 0),
        (500, 20_000),
    ]);
    b.totals(ProcessTotals {
        process,
        allocations: 206_863,
        frees: 187_500,
        allocated_bytes: 9500 * MIB,
        live_blocks: 19_363,
        live_bytes: 3 * MIB + 4096,
        peak_bytes: 1223 * MIB,
        temporary_blocks: 51_715,
        resizes: 12,
        events: 394_363,
        ..ProcessTotals::default()
    });
    b.source(
        "/srv/app/train.py",
        &[
            (43, "        self.history.append(result)"),
            (57, "    rows = [json.loads(line) for line in lines]"),
        ],
    );
    b.process_end(process, 192 * SECOND, Some(0));
    b.end(192 * SECOND);
    b.records
}

/// Writes a heap graph as a target tells it.
pub(crate) struct HeapBuilder {
    types: Vec<(u64, u64, String)>,
    names: Vec<String>,
    nodes: Vec<HeapNode>,
    roots: Vec<(u64, String, String, u64)>,
    status: u64,
    suspects: Vec<Suspect>,
    /// How the search ended, and whether the collector of cycles runs.
    searched: Option<(u64, u64)>,
    keys: Vec<(u64, u64, Vec<u8>)>,
    pub(crate) keys_left_out: u64,
}

/// An object that memory was searched for.
struct Suspect {
    address: u64,
    type_number: usize,
    references: u64,
    words: u64,
    /// Of one that no walk came to: its site's number + 1 (0: no block), and its bytes.
    unreached: Option<(u64, u64)>,
}

struct HeapNode {
    address: u64,
    type_number: usize,
    bytes: u64,
    /// Besides those of edges and roots.
    extra: u64,
    site: u64,
    flags: u64,
    title: String,
    edges: Vec<(u64, u64)>,
    pointers: Vec<(u64, u64, u64)>,
}

/// What an edge is, in a test's words.
#[derive(Clone, Copy)]
pub(crate) enum By<'n> {
    Other,
    Attribute(&'n str),
    Named(&'n str),
    /// By a key of that type.
    Item(&'n str),
    Key,
    Index(u64),
    Local(&'n str),
}

impl HeapBuilder {
    pub(crate) fn new() -> Self {
        HeapBuilder {
            types: Vec::new(),
            names: Vec::new(),
            nodes: Vec::new(),
            roots: Vec::new(),
            status: graph::status::COMPLETE,
            suspects: Vec::new(),
            searched: None,
            keys: Vec::new(),
            keys_left_out: 0,
        }
    }

    /// Says that objects of a type hold what CPython's collector is not told of.
    pub(crate) fn opaque(&mut self, name: &str) {
        let number = self.type_number(name);
        self.types[number].1 |= graph::type_flag::OPAQUE;
    }

    pub(crate) fn flags(&mut self, node: u64, flags: u64) {
        self.of(node).flags = flags;
    }

    /// Memory was searched for an object, and so many words of it are its address.
    pub(crate) fn suspect(&mut self, node: u64, words: u64) {
        let type_number = self.of(node).type_number;
        self.suspects.push(Suspect {
            address: node,
            type_number,
            references: 0,
            words,
            unreached: None,
        });
    }

    /// An object that was found in memory; without a site it is in no block.
    pub(crate) fn unreached(&mut self, type_name: &str, site: Option<u32>, words: u64) -> u64 {
        let address = 0x7e00_0000_0000 + 64 * self.suspects.len() as u64;
        let type_number = self.type_number(type_name);
        self.suspects.push(Suspect {
            address,
            type_number,
            references: 1,
            words,
            unreached: Some((site.map_or(0, |site| u64::from(site) + 1), 40)),
        });
        address
    }

    /// How the search ended, and whether CPython's collector of cycles runs.
    pub(crate) fn searched(&mut self, status: u64, collects: u64) {
        self.searched = Some((status, collects));
    }

    pub(crate) fn type_number(&mut self, name: &str) -> usize {
        let known = self.types.iter().position(|type_| type_.2 == name);
        known.unwrap_or_else(|| {
            self.types.push((0, 0, name.into()));
            self.types.len() - 1
        })
    }

    /// Says that `node` is the class of that name.
    pub(crate) fn class(&mut self, name: &str, node: u64) {
        let number = self.type_number(name);
        self.types[number].0 = node;
        self.types[number].1 = graph::type_flag::HEAP;
    }

    fn name_number(&mut self, name: &str) -> u64 {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.into());
            self.names.len() - 1
        }) as u64
    }

    /// Its address.
    pub(crate) fn node(&mut self, type_name: &str, bytes: u64) -> u64 {
        let type_number = self.type_number(type_name);
        let address = 0x7f00_0000_0000 + 64 * self.nodes.len() as u64;
        self.nodes.push(HeapNode {
            address,
            type_number,
            bytes,
            extra: 0,
            site: 0,
            flags: graph::node_flag::TRACKED,
            title: String::new(),
            edges: Vec::new(),
            pointers: Vec::new(),
        });
        address
    }

    fn of(&mut self, address: u64) -> &mut HeapNode {
        let at = ((address - 0x7f00_0000_0000) / 64) as usize;
        &mut self.nodes[at]
    }

    pub(crate) fn title(&mut self, node: u64, title: &str) {
        self.of(node).title = title.into();
    }

    pub(crate) fn site(&mut self, node: u64, site: u32) {
        self.of(node).site = u64::from(site) + 1;
    }

    /// A word of an object that is another's address.
    pub(crate) fn word(&mut self, from: u64, to: u64) {
        self.of(from).pointers.push((to, 0, 0));
    }

    /// References that nothing explains.
    pub(crate) fn unexplained(&mut self, node: u64, references: u64) {
        self.of(node).extra = references;
    }

    pub(crate) fn edge(&mut self, from: u64, by: By<'_>, to: u64) {
        let label = match by {
            By::Other => graph::label::OTHER,
            By::Attribute(name) => self.name_number(name) << 3 | graph::label::ATTRIBUTE,
            By::Named(name) => self.name_number(name) << 3 | graph::label::NAMED_ITEM,
            By::Item(name) => (self.type_number(name) as u64) << 3 | graph::label::ITEM,
            By::Key => graph::label::KEY,
            By::Index(place) => place << 3 | graph::label::INDEX,
            By::Local(name) => self.name_number(name) << 3 | graph::label::LOCAL,
        };
        self.of(from).edges.push((label, to));
    }

    pub(crate) fn pointer(&mut self, from: u64, to: u64, site: u32, bytes: u64) {
        self.of(from)
            .pointers
            .push((to, u64::from(site) + 1, bytes));
    }

    pub(crate) fn root(&mut self, kind: u64, name: &str, label: &str, target: u64) {
        self.roots.push((kind, name.into(), label.into(), target));
    }

    /// A module of that name with a dict, which is given.
    pub(crate) fn module(&mut self, name: &str) -> u64 {
        let module = self.node("module", 72);
        self.title(module, name);
        let dict = self.node("dict", 232);
        self.edge(module, By::Attribute("__dict__"), dict);
        self.root(graph::root::MODULE, name, "", module);
        dict
    }

    /// What a node is that is a dict's key: a kind of `graph::key`, and its content.
    pub(crate) fn key(&mut self, node: u64, kind: u64, content: &[u8]) {
        self.keys.push((node, kind, content.to_vec()));
    }

    /// A dict's value under a key that is a string, which was recorded.
    pub(crate) fn keyed(&mut self, dict: u64, text: &str, value: u64) {
        let key = self.node("str", 49 + text.len() as u64);
        self.edge(dict, By::Item("str"), value);
        self.edge(dict, By::Key, key);
        self.key(key, graph::key::TEXT, text.as_bytes());
    }

    pub(crate) fn end_with(&mut self, status: u64) {
        self.status = status;
    }

    /// Its records, but for the first.
    pub(crate) fn parts(&self, number: u32) -> Vec<HeapPart> {
        let mut references = vec![0_u64; self.nodes.len()];
        let targets = self.nodes.iter().flat_map(|node| &node.edges);
        let targets = targets.map(|edge| edge.1);
        for target in targets.chain(self.roots.iter().map(|root| root.3)) {
            let at = (target.wrapping_sub(0x7f00_0000_0000) / 64) as usize;
            if let Some(count) = references.get_mut(at) {
                *count += 1;
            }
        }
        for node in &self.nodes {
            let (class, flags, _) = &self.types[node.type_number];
            if flags & graph::type_flag::HEAP != 0 {
                references[((class - 0x7f00_0000_0000) / 64) as usize] += 1;
            }
        }
        let mut blobs = Vec::new();
        if !self.keys.is_empty() {
            let mut buffer = vec![0; 1 << 20];
            let mut writer = graph::KeyWriter::new(&mut buffer);
            for (node, kind, content) in &self.keys {
                writer.key(*node, *kind, content);
            }
            writer.keys(self.keys.len() as u64, self.keys_left_out);
            blobs.push(writer.take().to_vec());
        }
        let mut buffer = vec![0; 1 << 20];
        let mut writer = graph::Writer::new(&mut buffer, |blob: &[u8]| {
            blobs.push(blob.to_vec());
            true
        });
        for (address, flags, name) in &self.types {
            writer.type_(*address, *flags, name.as_bytes());
        }
        for name in &self.names {
            writer.name(name.as_bytes());
        }
        for (kind, name, label, target) in &self.roots {
            writer.root(*kind, 1, name.as_bytes(), label.as_bytes(), *target);
        }
        let mut edges = 0;
        for (node, &references) in self.nodes.iter().zip(&references) {
            writer.node(
                node.address,
                node.type_number as u64,
                node.bytes,
                references.wrapping_add(node.extra),
                node.flags,
            );
            if !node.title.is_empty() {
                writer.title(node.title.as_bytes());
            }
            for &(label, target) in &node.edges {
                writer.edge(label, target);
                edges += 1;
            }
            for &(value, _, _) in &node.pointers {
                writer.pointer(value);
            }
        }
        writer.end(self.status, self.nodes.len() as u64, edges, 1000);
        for suspect in &self.suspects {
            let node = self
                .nodes
                .iter()
                .position(|node| node.address == suspect.address);
            let known = node.map(|at| references[at].wrapping_add(self.nodes[at].extra));
            writer.suspect(
                suspect.address,
                suspect.type_number as u64,
                known.unwrap_or(suspect.references),
                suspect.words,
                u64::from(suspect.unreached.is_some()),
            );
        }
        if let Some((status, collects)) = self.searched {
            writer.searched(status, 1 << 20, 0, collects, 1000);
        }
        let mut of_suspects = self.suspects.iter();
        let mut of_nodes = self.nodes.iter();
        let mut of_pointers = [].iter();
        blobs
            .into_iter()
            .map(|entries| {
                let mut sites = Vec::new();
                for entry in graph::Entries::new(&entries) {
                    match entry {
                        graph::Entry::Node { .. } => {
                            let node = of_nodes.next().unwrap();
                            of_pointers = node.pointers.iter();
                            put_varint(&mut sites, node.site);
                        }
                        graph::Entry::Pointer(_) => {
                            let (_, site, bytes) = of_pointers.next().unwrap();
                            put_varint(&mut sites, *site);
                            if *site > 0 {
                                put_varint(&mut sites, *bytes);
                            }
                        }
                        graph::Entry::Suspect { .. } => {
                            let suspect = of_suspects.next().unwrap();
                            if let Some((site, bytes)) = suspect.unreached {
                                put_varint(&mut sites, site);
                                if site > 0 {
                                    put_varint(&mut sites, bytes);
                                }
                            }
                        }
                        _ => {}
                    }
                }
                HeapPart {
                    graph: number,
                    entries,
                    sites,
                }
            })
            .collect()
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
