//! Recordings made by hand, for tests.

use leakline_recording::record::{
    Bin, Code, Counters, Domain, End, Frame, Mark, Module, Node, Peak, Point, Process, ProcessEnd,
    ProcessTotals, Record, Session, Site, Sizes, Source, SymbolFrame, Symbols, Thread,
    ThreadTotals,
};

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
