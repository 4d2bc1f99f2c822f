//! Any sequence of records, as a damaged or hostile file may hold, gives
//! reports.

use leakline_recording::record::{
    Bin, Code, CohortChange, Cohorts, Counters, Domain, End, Frame, Inherited, Loss, Mark, Module,
    Node, Note, Packed, Peak, Point, Process, ProcessEnd, ProcessTotals, Record, Session, Site,
    SiteCohorts, Sizes, Source, SymbolFrame, Symbols, Thread, ThreadTotals,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::all_reports;

/// Mostly ids that exist; sometimes the largest.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..6_u32, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

/// Small figures, and those at the edges.
fn figure() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..10_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("_PyEval_EvalFrameDefault".to_owned()),
        Just("/srv/app/train.py".to_owned()),
        Just("ns::f<int>(int, (anonymous namespace)::g)".to_owned()),
        "\\PC{0,12}",
        ".{0,6}",
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![name().prop_map(String::into_bytes), vec(any::<u8>(), 0..8)]
}

fn domain() -> impl Strategy<Value = Domain> {
    prop_oneof![
        Just(Domain::Native),
        Just(Domain::Obj),
        Just(Domain::Mmap),
        Just(Domain::Foreign)
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        4 => (proptest::option::of(id()), 0..8_u64, any::<bool>(), any::<bool>()).prop_map(
            |(module, offset, exact, evaluator)| Frame::Native { module, offset, exact, evaluator }
        ),
        4 => (id(), 0..8_u32, any::<bool>())
            .prop_map(|(code, offset, entry)| Frame::Python { code, offset, entry }),
        3 => id().prop_map(|python| Frame::Pair { python }),
        1 => Just(Frame::Truncated),
        1 => Just(Frame::Broken),
        1 => Just(Frame::Switched),
    ]
}

fn counters() -> impl Strategy<Value = Counters> {
    [figure(), figure(), figure(), figure()].prop_map(|[a, b, c, d]| Counters {
        live_bytes: a,
        live_blocks: b,
        total_bytes: c,
        total_blocks: d,
        temporary_blocks: a,
        resizes: b,
    })
}

fn point() -> impl Strategy<Value = Point> {
    let change = || prop_oneof![-500..500_i64, any::<i64>()];
    (id(), [change(), change(), change(), change()]).prop_map(|(site, [a, b, c, d])| Point {
        site,
        live_bytes: a,
        live_blocks: b,
        total_bytes: c,
        total_blocks: d,
        temporary_blocks: b,
        resizes: d,
    })
}

fn cohorts() -> impl Strategy<Value = SiteCohorts> {
    let change = || prop_oneof![-500..500_i64, any::<i64>()];
    let cohort = (id(), [change(), change(), change(), change()]).prop_map(
        |(start, [born_blocks, born_bytes, blocks, bytes])| CohortChange {
            start,
            born_blocks,
            born_bytes,
            blocks,
            bytes,
        },
    );
    let level = prop_oneof![4 => 0..4_u8, 1 => any::<u8>()];
    (id(), level, vec(cohort, 0..5)).prop_map(|(site, level, cohorts)| SiteCohorts {
        site,
        level,
        cohorts,
    })
}

fn symbols() -> impl Strategy<Value = Symbols> {
    let frame = (name(), name(), 0..9_u32, any::<bool>(), 0..3_u32).prop_map(
        |(function, file, line, inlined, beyond)| SymbolFrame {
            function,
            file,
            line,
            inlined,
            beyond,
        },
    );
    (
        id(),
        vec((0..8_u64, vec(frame, 0..3)), 0..4),
        proptest::option::of(name()),
    )
        .prop_map(|(module, addresses, note)| Symbols {
            module,
            addresses,
            note,
        })
}

fn process() -> impl Strategy<Value = Process> {
    (
        id(),
        proptest::option::of(id()),
        text(),
        vec(text(), 0..3),
        [figure(), figure(), figure()],
    )
        .prop_map(
            |(pid, parent, executable, command, [at_ns, inherited_blocks, inherited_bytes])| {
                Process {
                    pid,
                    start_ticks: 0,
                    parent,
                    parent_pid: 1,
                    at_ns,
                    executable,
                    command,
                    exec: false,
                    python_version: pid,
                    inherited_blocks,
                    inherited_bytes,
                }
            },
        )
}

fn record() -> impl Strategy<Value = Record> {
    let sites = || vec((id(), figure(), figure()), 0..4);
    prop_oneof![
        1 => (figure(), vec(text(), 0..3), name()).prop_map(|(started_unix_ns, command, mode)| {
            Record::Session(Session {
                started_unix_ns,
                leakline: String::new(),
                command,
                mode,
                sample_bytes: started_unix_ns % 2,
                python: true,
                native: true,
                host: String::new(),
                temporary_window: 1,
            })
        }),
        2 => process().prop_map(Record::Process),
        1 => (id(), figure(), proptest::option::of(any::<i32>()), proptest::option::of(any::<i32>()))
            .prop_map(|(process, at_ns, exit_status, signal)| {
                Record::ProcessEnd(ProcessEnd { process, at_ns, exit_status, signal, exec: false })
            }),
        2 => (id(), name()).prop_map(|(process, name)| {
            Record::Thread(Thread { process, tid: process, name, at_ns: 0 })
        }),
        3 => text().prop_map(|path| Record::Module(Module { path, build_id: Vec::new() })),
        3 => (name(), name(), 0..9_u32, vec((0..8_u32, 0..9_u32), 0..4)).prop_map(
            |(file, name, first_line, lines)| Record::Code(Code { file, name, first_line, lines })
        ),
        8 => (id(), frame()).prop_map(|(parent, frame)| Record::Node(Node { parent, frame })),
        8 => (id(), id(), domain())
            .prop_map(|(process, node, domain)| Record::Site(Site { process, node, domain })),
        3 => symbols().prop_map(Record::Symbols),
        6 => ([figure(), figure(), figure(), figure()], vec(point(), 0..5)).prop_map(
            |([end_ns, live_bytes, live_blocks, max_bytes], points)| {
                Record::Bin(Bin {
                    end_ns,
                    live_bytes,
                    live_blocks,
                    max_bytes,
                    rss: Vec::new(),
                    points,
                    complete: false,
                })
            }
        ),
        2 => (proptest::option::of(id()), [figure(), figure(), figure()], sites()).prop_map(
            |(process, [at_ns, live_bytes, live_blocks], sites)| {
                Record::Peak(Peak { process, at_ns, live_bytes, live_blocks, sites })
            }
        ),
        1 => vec((figure(), figure()), 0..70).prop_map(|classes| Record::Sizes(Sizes { classes })),
        1 => (id(), [figure(), figure(), figure()]).prop_map(|(process, [a, b, c])| {
            Record::Totals(ProcessTotals {
                process,
                allocations: a,
                live_blocks: b,
                live_bytes: c,
                lost_events: b,
                stalled_ns: a,
                ..ProcessTotals::default()
            })
        }),
        1 => (id(), counters()).prop_map(|(thread, counters)| {
            Record::ThreadTotals(ThreadTotals { thread, counters })
        }),
        1 => (id(), figure(), figure())
            .prop_map(|(process, at_ns, events)| Record::Loss(Loss { process, at_ns, events })),
        1 => (name(), figure(), proptest::option::of(id()))
            .prop_map(|(name, at_ns, process)| Record::Mark(Mark { name, at_ns, process })),
        1 => (name(), vec((any::<u32>(), name()), 0..4))
            .prop_map(|(file, lines)| Record::Source(Source { file, lines })),
        1 => (figure(), name()).prop_map(|(at_ns, text)| Record::Note(Note { at_ns, text })),
        1 => (figure(), name()).prop_map(|(at_ns, reason)| Record::End(End { at_ns, reason })),
        1 => (id(), sites())
            .prop_map(|(process, sites)| Record::Inherited(Inherited { process, sites })),
        4 => (figure(), id(), any::<bool>(), vec(cohorts(), 0..4)).prop_map(
            |(at_ns, tick, is_boundary, sites)| {
                let sites = Packed::new(&sites);
                Record::Cohorts(Cohorts { at_ns, tick, is_boundary, sites })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn any_records_give_reports(records in vec(record(), 0..60), width in 0..130_usize) {
        all_reports(&records, width);
    }
}
