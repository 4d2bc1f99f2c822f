//! States and recordings made by hand.

use std::sync::Arc;

use leakline_analysis::ledger::{Account, Accounts, OfIt};
use leakline_analysis::model::Totals;
use leakline_analysis::{Figures, GroupBy, Model, Origin};
use leakline_recording::record::{
    Bin, Code, Domain, End, Frame, Inventory, Ledger, Mark, Node, OfType, Point, Process, Record,
    Session, Site, Source,
};

use crate::state::data::{
    About, Answer, CallRow, CallTree, Content, Facts, Fate, FrameName, GraphAt, GroupInfo,
    GroupName, Holders, Ledgers, MarkAt, Moment, Peak, Place, ProcessInfo, Resolved, SourceLine,
    SourceOrigin, SourceText, Step, Subject, Table, TableRow, ThreadInfo, TimePoint, Usual, Want,
    WhyWant,
};
use crate::state::{Screen, State, ThemeName};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A web server that keeps every session, with a worker, over two minutes.
pub(crate) fn facts() -> Facts {
    let times = (1..=120)
        .map(|second| {
            let burst = if second % 40 == 20 { 20 * MIB } else { 0 };
            let live = (8 + second / 4) * MIB + burst;
            TimePoint {
                end_ns: second * SECOND,
                live_bytes: live,
                live_blocks: second * 100,
                max_bytes: live + MIB / 2,
                rss_bytes: Some(60 * MIB + second * MIB / 8),
            }
        })
        .collect();
    let process = |pid, command: &str, fate, ended_ns| ProcessInfo {
        pid,
        command: command.into(),
        python_version: 0x030b_07f0,
        started_ns: if pid == 21 { 3 * SECOND } else { 0 },
        ended_ns,
        fate,
        peak_bytes: u64::from(pid) * MIB,
        allocations: 48_201_337 / u64::from(pid),
        lost_events: 0,
    };
    Facts {
        file: "serve.1.leakline".into(),
        program: "python serve.py --workers 1".into(),
        mode: "exact".into(),
        sample_bytes: 0,
        // 14:05:02
        started_local_ns: (14 * 3600 + 5 * 60 + 2) * SECOND as i64,
        duration_ns: 120 * SECOND,
        usual_ns: 120 * SECOND,
        usual: Usual::End,
        ended: true,
        growing: false,
        warnings: Vec::new(),
        notes: Vec::new(),
        totals: Totals {
            allocations: 48_201_337,
            frees: 48_100_000,
            allocated_bytes: 9 << 30,
            live_blocks: 12_000,
            live_bytes: 38 * MIB,
            peak_bytes: 53 * MIB,
            temporary_blocks: 12_000_000,
            events: 96_301_337,
            ..Totals::default()
        },
        peak: Peak {
            bytes: 53 * MIB,
            blocks: 13_000,
            at_ns: 100 * SECOND,
        },
        times: Arc::new(times),
        marks: vec![
            MarkAt {
                name: "python ready".into(),
                at_ns: SECOND,
            },
            MarkAt {
                name: "deploy".into(),
                at_ns: 50 * SECOND,
            },
        ],
        losses: Vec::new(),
        processes: vec![
            process(
                20,
                "python serve.py --workers 1",
                Fate::Status(0),
                Some(120 * SECOND),
            ),
            process(
                21,
                "python serve.py --workers 1",
                Fate::Signal(9),
                Some(90 * SECOND),
            ),
        ],
        threads: vec![
            ThreadInfo {
                process: 0,
                tid: 20,
                name: "python".into(),
                live: (30 * MIB, 10_000),
                total: (8 << 30, 40_000_000),
            },
            ThreadInfo {
                process: 0,
                tid: 25,
                name: "loader".into(),
                live: (MIB, 363),
                total: (1 << 30, 8_000_000),
            },
        ],
        python: true,
        graphs: vec![
            GraphAt {
                number: 1,
                name: "warm".into(),
                at_ns: 40 * SECOND,
                process: 0,
            },
            GraphAt {
                number: 2,
                name: "exit".into(),
                at_ns: 120 * SECOND,
                process: 0,
            },
        ],
    }
}

/// Sessions that a dict keeps, jobs that two lists do, and a cycle.
pub(crate) fn holders(want: &WhyWant) -> Holders {
    let step = |depth, forks, edge: &str, kind: &str, count: u64, retained: u64| Step {
        depth,
        forks,
        edge: edge.into(),
        kind: kind.into(),
        count,
        shallow: count * 48,
        retained,
        native: 0,
        only: count,
        since: Some(retained as i64 / 4),
        site: None,
        made_in: None,
    };
    let views = frame("login", "/srv/app/views.py", 88, true);
    let load = frame("load_session", "/srv/app/sessions.py", 41, true);
    let sessions = Step {
        site: Some(1),
        made_in: Some(views),
        ..step(2, false, "[*]", "Session", 9000, 33 * MIB)
    };
    let cache = step(1, false, "SESSIONS", "dict, keys [str]", 1, 34 * MIB);
    let is_all = want.about == About::Gathered;
    let sessions = Place {
        words: "app.cache.SESSIONS[*]".into(),
        head: if is_all {
            cache.clone()
        } else {
            sessions.clone()
        },
        objects: sessions.clone(),
        steps: vec![
            cache,
            sessions,
            Step {
                site: Some(0),
                made_in: Some(load),
                ..step(3, true, ".history", "list, dict, str", 9000, 30 * MIB)
            },
            step(3, false, ".user", "User", 9000, 2 * MIB),
        ],
        others: Vec::new(),
    };
    let jobs = Step {
        only: 0,
        native: MIB / 2,
        since: Some(-1024),
        ..step(2, false, "[*]", "app.jobs.Job", 12_000, MIB)
    };
    let jobs = Place {
        words: "app.jobs.QUEUE[*]".into(),
        head: jobs.clone(),
        objects: jobs.clone(),
        steps: vec![step(1, false, "QUEUE", "list", 1, MIB + 4096), jobs],
        others: vec![("app.jobs.BY_NAME[*]".into(), 12_000)],
    };
    let twins = Step {
        since: None,
        ..step(0, false, "nothing", "Twin", 400, 64 << 10)
    };
    let twins = Place {
        words: "nothing".into(),
        head: twins.clone(),
        objects: twins,
        ..Place::default()
    };
    Holders {
        graph: want.graph.unwrap_or(2),
        reading: false,
        earlier: (want.graph != Some(1)).then_some(1),
        objects: 42_000,
        bytes: 38 * MIB,
        garbage: (400, 64 << 10),
        flaw: None,
        found: (!is_all).then_some((9000, 33 * MIB)),
        places: if is_all {
            vec![sessions, jobs, twins]
        } else {
            vec![sessions]
        },
        left_out: if is_all { 3 } else { 0 },
    }
}

pub(crate) fn frame(function: &str, file: &str, line: u32, own: bool) -> Arc<FrameName> {
    let place = if line == 0 {
        file.to_owned()
    } else {
        let mut parts: Vec<&str> = file.rsplit('/').take(2).collect();
        parts.reverse();
        format!("{}:{line}", parts.join("/"))
    };
    Arc::new(FrameName {
        function: function.into(),
        place: place.into(),
        file: if line == 0 { "".into() } else { file.into() },
        line,
        own,
        python: line != 0,
    })
}

/// Function, place, live bytes, blocks, growth.
type Made = (Arc<FrameName>, Option<Arc<FrameName>>, u64, i64, i64);

fn made() -> Vec<Made> {
    let views = frame("login", "/srv/app/views.py", 88, true);
    vec![
        (
            frame("load_session", "/srv/app/sessions.py", 41, true),
            None,
            30 * MIB,
            9000,
            22 << 20,
        ),
        (
            frame(
                "JSONDecoder.raw_decode",
                "/usr/lib/python3.11/json/decoder.py",
                353,
                false,
            ),
            Some(Arc::clone(&views)),
            5 * MIB,
            2000,
            -(3 << 20),
        ),
        (
            frame("parse_header", "fastparse.so", 0, false),
            Some(views),
            2 * MIB,
            900,
            2 << 20,
        ),
        (
            frame(
                "_compile_bytecode",
                "<frozen importlib._bootstrap_external>",
                729,
                false,
            ),
            None,
            MIB,
            95,
            0,
        ),
        (
            frame("rows", "/srv/app/export.py", 77, true),
            None,
            0,
            0,
            -(4 << 20),
        ),
    ]
}

pub(crate) fn table(diff: bool) -> Table {
    let mut groups = Vec::new();
    let mut rows = Vec::new();
    let mut trends = Vec::new();
    for (at, (name, your_code, bytes, blocks, delta)) in (0_u32..).zip(made()) {
        groups.push(GroupInfo {
            key: at.into(),
            name: GroupName::Site(name),
            your_code,
            domain: Some(Domain::Obj),
            site: Some(at),
        });
        let mut trend = [0; 16];
        for (step, level) in trend.iter_mut().enumerate() {
            *level = if at == 1 {
                200 - 12 * step as u8
            } else {
                15 + 16 * step as u8
            };
        }
        trends.push(trend);
        if if diff { delta == 0 } else { bytes == 0 } {
            continue;
        }
        let figures = Figures {
            live_bytes: bytes as i64,
            live_blocks: blocks,
            total_bytes: 3 * bytes + 5 * MIB,
            total_blocks: 3 * blocks.unsigned_abs(),
            temporary_blocks: 12,
            peak_bytes: bytes / 2,
            delta_bytes: if diff { delta } else { bytes as i64 },
            delta_blocks: if diff { delta / 4096 } else { blocks },
            ..Figures::default()
        };
        rows.push(TableRow {
            group: at,
            figures,
            own_bytes: bytes as i64,
        });
    }
    if diff {
        rows.sort_by_key(|row| std::cmp::Reverse(row.figures.delta_bytes));
    }
    Table {
        groups: Arc::new(groups),
        rows,
        trends: (!diff).then(|| Arc::new(trends)),
        left_out: (0, 0),
    }
}

pub(crate) fn calls() -> CallTree {
    let mut calls: Vec<CallRow> = Vec::new();
    let mut call = |parent: Option<u32>, name: Arc<FrameName>, bytes: u64, own: u64| {
        let depth = parent.map_or(0, |parent| calls[parent as usize].depth + 1);
        if let Some(parent) = parent {
            calls[parent as usize].has_calls = true;
        }
        calls.push(CallRow {
            key: calls.len() as u64 + 100,
            parent,
            depth,
            frame: name,
            bytes: bytes as i64,
            own: own as i64,
            has_calls: false,
        });
        calls.len() as u32 - 1
    };
    let module = call(
        None,
        frame("<module>", "/srv/app/serve.py", 12, true),
        37 * MIB,
        0,
    );
    let handle = call(
        Some(module),
        frame("handle", "/srv/app/serve.py", 30, true),
        37 * MIB,
        0,
    );
    let login = call(
        Some(handle),
        frame("login", "/srv/app/views.py", 88, true),
        35 * MIB,
        0,
    );
    let load = frame("load_session", "/srv/app/sessions.py", 41, true);
    call(Some(login), load, 30 * MIB, 30 * MIB);
    let decode = frame(
        "JSONDecoder.raw_decode",
        "/usr/lib/python3.11/json/decoder.py",
        353,
        false,
    );
    call(Some(login), decode, 5 * MIB, 5 * MIB);
    call(
        Some(handle),
        frame("parse_header", "fastparse.so", 0, false),
        2 * MIB,
        2 * MIB,
    );
    let import = frame(
        "_find_and_load",
        "<frozen importlib._bootstrap>",
        1176,
        false,
    );
    call(None, import, MIB, MIB);
    CallTree {
        calls,
        bytes: 38 << 20,
        left_out: 12,
        left_out_sites: (0, 0),
    }
}

pub(crate) fn source() -> SourceText {
    let texts = [
        (39, "def load_session(key):"),
        (40, "    data = json.loads(store.get(key))"),
        (41, "    session = Session(data)"),
        (42, "    SESSIONS[key] = session"),
        (43, "    return session"),
        (88, "class Session:"),
    ];
    let lines = texts.into_iter().map(|(line, text)| {
        let own = match line {
            41 => 30 * MIB,
            40 => 5 * MIB,
            _ => 0,
        };
        SourceLine {
            line,
            text: Some(text.into()),
            own: Figures {
                live_bytes: own as i64,
                live_blocks: (own / 3500) as i64,
                total_bytes: own,
                ..Figures::default()
            },
            total_bytes: own as i64,
        }
    });
    SourceText {
        file: Some("/srv/app/sessions.py".into()),
        from: SourceOrigin::Recording,
        lines: lines.collect(),
    }
}

/// Ledgers: of all processes, and of each.
pub(crate) fn accounts() -> Vec<Account> {
    let read = |live: u64, free: u64, at_ns| Ledger {
        at_ns,
        parts: vec![
            (live, 0),
            (free, 0),
            (9 * MIB, 0),
            (2 * MIB, 0),
            (0, 0),
            (3 * MIB, 0),
            (4 * MIB, 6 * MIB),
            (MIB / 4, 0),
            (0, 0),
            (2 * MIB, 0),
            (MIB / 8, 0),
        ],
        is_python: true,
        arenas: 2,
        python_arenas: 40,
        ..Ledger::default()
    };
    let mut records = records();
    if let Some(Record::Process(process)) = records.get(1).cloned() {
        records.push(Record::Process(Process {
            pid: 4130,
            ..process
        }));
    }
    for (process, live, free) in [(0, 24 * MIB, MIB), (1, 6 * MIB, 5 * MIB)] {
        for (at_ns, more) in [(2 * SECOND, 0), (9 * SECOND, 6 * MIB)] {
            records.push(Record::Ledger(Ledger {
                process,
                ..read(live + more / (u64::from(process) + 1), free, at_ns)
            }));
        }
    }
    for (at_ns, sessions) in [(2 * SECOND, 20_000), (9 * SECOND, 90_000)] {
        let one = |name: &str, objects: u64, each: u64| OfType {
            name: name.into(),
            objects,
            bytes: objects * each,
        };
        records.push(Record::Inventory(Inventory {
            at_ns,
            types: vec![
                one("app.Session", sessions, 112),
                one("str", 120_000, 61),
                one("dict", 4000, 300),
            ],
            ..Inventory::default()
        }));
    }
    let model = Model::new(&records, Origin::default());
    let mut found = Accounts::between(&model, None, 20 * SECOND).unwrap();
    found.processes[0].now.lines[0].of_it.push(OfIt {
        title: "L1 app.SESSIONS".into(),
        bytes: 21 * MIB,
        since_bytes: Some(5_600_000),
        cause: Some("L1".into()),
    });
    found.sum.into_iter().chain(found.processes).collect()
}

/// A state that has all answers.
pub(crate) fn state(screen: Screen, size: (u16, u16)) -> State {
    let mut state = State::new(size, ThemeName::Default);
    state.facts = Arc::new(facts());
    for other in Screen::ALL {
        state.screen = other;
        let answer = answer_to(&state.want());
        state.take(answer);
    }
    state.inverted.tree = Arc::new(calls());
    state.screen = screen;
    let answer = answer_to(&state.want());
    state.take(answer);
    state
}

/// What an engine would say.
pub(crate) fn answer_to(want: &Want) -> Answer {
    let is_diff = matches!(want.subject, Subject::Diff(..));
    let content = match &want.subject {
        Subject::Overview(_) => {
            let one = Ledgers {
                accounts: vec![accounts().remove(1)],
                ..Ledgers::default()
            };
            Content::Overview(Arc::new(table(false)), Arc::new(one))
        }
        Subject::Ledgers(_) => Content::Ledgers(Arc::new(Ledgers {
            accounts: accounts(),
            has_sum: true,
            failure: None,
        })),
        Subject::Table(wanted) => {
            let mut table = table(false);
            if wanted.by == GroupBy::Domain || wanted.filter == "nothing" {
                table.rows.clear();
            }
            Content::Table(Arc::new(table))
        }
        Subject::Diff(..) => Content::Table(Arc::new(table(true))),
        Subject::Calls { .. } => Content::Calls(Arc::new(calls())),
        Subject::Source(_) => Content::Source(Arc::new(source())),
        Subject::Why(want) => Content::Why(Arc::new(holders(want))),
        Subject::Processes => {
            let figures = |bytes| Figures {
                live_bytes: bytes,
                live_blocks: bytes / 4000,
                ..Figures::default()
            };
            let all = vec![
                (figures(30 << 20), Some(66 * MIB)),
                (figures(8 << 20), None),
            ];
            Content::Processes(Arc::new(all))
        }
        Subject::Stack(_) => {
            let frames = [
                frame("load_session", "/srv/app/sessions.py", 41, true),
                frame("login", "/srv/app/views.py", 88, true),
                frame("Thread.run", "/usr/lib/python3.11/threading.py", 982, false),
                frame("parse_header", "fastparse.so", 0, false),
            ];
            Content::Stack(Arc::new(frames.iter().map(|one| (**one).clone()).collect()))
        }
    };
    Answer {
        want: want.clone(),
        at: Resolved {
            ns: match want.moment {
                Moment::At(ns) => ns,
                Moment::Start => 0,
                Moment::Peak => 100 * SECOND,
                Moment::Usual | Moment::End => 120 * SECOND,
            },
            resolution_ns: SECOND,
            exact: true,
        },
        from: is_diff.then(Resolved::default),
        sum: Figures {
            live_bytes: 38 << 20,
            live_blocks: 11_995,
            delta_bytes: 17 << 20,
            delta_blocks: 4000,
            ..Figures::default()
        },
        content,
    }
}

/// A recording of one process in Python: a list that grows, something that
/// went, and its source.
pub(crate) fn records() -> Vec<Record> {
    let mut records = vec![
        Record::Session(Session {
            started_unix_ns: 1_700_000_000 * SECOND,
            leakline: "0.1.0".into(),
            command: vec![b"python".to_vec(), b"grow.py".to_vec()],
            mode: "exact".into(),
            sample_bytes: 0,
            python: true,
            native: false,
            host: String::new(),
            temporary_window: 1,
        }),
        Record::Process(Process {
            pid: 4121,
            start_ticks: 1,
            parent: None,
            parent_pid: 1,
            at_ns: 0,
            executable: b"/usr/bin/python3".to_vec(),
            command: vec![b"python".to_vec(), b"grow.py".to_vec()],
            exec: false,
            python_version: 0x030b_07f0,
            inherited_blocks: 0,
            inherited_bytes: 0,
        }),
    ];
    for (name, first_line) in [("<module>", 1), ("grow", 10), ("burst", 20)] {
        records.push(Record::Code(Code {
            file: "/nowhere/grow.py".into(),
            name: name.into(),
            first_line,
            lines: vec![(0, first_line), (2, first_line + 1)],
        }));
    }
    let python = |parent, code| {
        Record::Node(Node {
            parent,
            frame: Frame::Python {
                code,
                offset: 2,
                entry: parent == 0,
            },
        })
    };
    records.extend([python(0, 0), python(1, 1), python(1, 2)]);
    for node in [2, 3] {
        records.push(Record::Site(Site {
            process: 0,
            node,
            domain: Domain::Obj,
        }));
    }
    records.push(Record::Source(Source {
        file: "/nowhere/grow.py".into(),
        lines: vec![(2, "main()".into()), (11, "    KEEP.append(x)".into())],
    }));
    let point = |site, live_bytes: i64, total_bytes| Point {
        site,
        live_bytes,
        live_blocks: live_bytes / 1024,
        total_bytes,
        total_blocks: total_bytes / 1024,
        temporary_blocks: 0,
        resizes: 0,
    };
    let mut live = 0;
    for second in 1..=10_u64 {
        let mut points = vec![point(0, 1024, 1024)];
        if second == 4 {
            points.push(point(1, 102_400, 102_400));
        } else if second == 6 {
            points.push(point(1, -102_400, 0));
        }
        live += points.iter().map(|point| point.live_bytes).sum::<i64>();
        records.push(Record::Bin(Bin {
            end_ns: second * SECOND,
            live_bytes: live as u64,
            live_blocks: live as u64 / 1024,
            max_bytes: live as u64,
            rss: vec![(0, 30 << 20)],
            points,
            complete: true,
        }));
    }
    records.push(Record::Mark(Mark {
        name: "exiting".into(),
        at_ns: 10 * SECOND,
        process: Some(0),
    }));
    records.push(Record::End(End {
        at_ns: 10 * SECOND,
        reason: "exited".into(),
    }));
    records
}
