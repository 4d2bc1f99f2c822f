//! Heap graphs that are read from outside, where a process takes none itself: it may
//! not fork, or sleeps and does not come by.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};

use leakline_recording::record::{HeapGraph, Record};
use leakline_wire::graph::status;

use super::super::Engine;
use crate::graph::Graph;
use crate::protocol::GraphOutcome;

/// Parts that may wait, of 64 KiB at most.
const MOST_PARTS: usize = 256;

/// Why there is none of a process that was to be read only, if nobody knows better.
pub(super) const NOT_READ: &str = "it is not read from outside (CPython 3.11 to 3.15 is)";
/// Parts that are taken in at once.
const AT_ONCE: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outside {
    queue: VecDeque<Wanted>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Wanted {
    process: u32,
    number: u32,
    why: String,
}

/// The one that is being read.
#[derive(Debug)]
struct Reading {
    wanted: Wanted,
    parts: Receiver<Vec<u8>>,
    graph: Graph,
    at_ns: u64,
    is_told: bool,
}

impl Outside {
    /// Whether a graph of that number is wanted or being read.
    pub(super) fn has(&self, number: u32) -> bool {
        let mut wanted = self.queue.iter();
        self.reading
            .as_ref()
            .is_some_and(|reading| reading.wanted.number == number)
            || wanted.any(|wanted| wanted.number == number)
    }

    /// Whether some are wanted, or being read.
    pub(super) fn is_busy(&self) -> bool {
        self.reading.is_some() || !self.queue.is_empty()
    }
}

impl Engine {
    /// Has a graph read from outside, since a process takes none: why, as users are told.
    pub(super) fn want_outside(&mut self, process: u32, number: u32, why: String) {
        if !self.may_look() {
            self.graphs.settle(number, GraphOutcome::Refused(why));
            return;
        }
        self.graphs.settle(number, GraphOutcome::Begun);
        self.graphs.outside.queue.push_back(Wanted {
            process,
            number,
            why,
        });
    }

    /// Goes on with graphs that are read from outside.
    pub(crate) fn see_to_outside(&mut self) {
        self.hear_outside();
        // Whoever read has come to an end without a word.
        if let Some(reading) = &self.graphs.outside.reading
            && !self.is_looking()
        {
            self.outside_is_read(reading.wanted.number, false);
        }
        while self.graphs.outside.reading.is_none()
            && let Some(wanted) = self.graphs.outside.queue.pop_front()
        {
            let (send, parts) = sync_channel(MOST_PARTS);
            match self.read_heap(wanted.process, wanted.number, send) {
                Ok(()) => {
                    self.graphs.outside.reading = Some(Reading {
                        graph: Graph::new(wanted.number, 0),
                        at_ns: self.now_ns(),
                        wanted,
                        parts,
                        is_told: false,
                    });
                }
                Err(why) => {
                    let why = if wanted.why == NOT_READ {
                        why
                    } else {
                        format!("{}; from outside: {why}", wanted.why)
                    };
                    self.graphs
                        .settle(wanted.number, GraphOutcome::Refused(why));
                }
            }
        }
    }

    /// Takes in what was read by now.
    pub(crate) fn hear_outside(&mut self) {
        let Some(mut reading) = self.graphs.outside.reading.take() else {
            return;
        };
        // The rest waits for the next round: processes' events are more urgent.
        for part in reading.parts.try_iter().take(AT_ONCE) {
            self.output.append(&mut self.shared.records);
            let Wanted {
                process, number, ..
            } = reading.wanted;
            if !std::mem::replace(&mut reading.is_told, true) {
                let known = self.graphs.told.iter().find(|one| one.number == number);
                let name = known.map_or(String::new(), |one| one.name.clone());
                self.output.push(Record::HeapGraph(HeapGraph {
                    graph: number,
                    process,
                    at_ns: reading.at_ns,
                    name,
                    paused_ns: 0,
                    values: false,
                }));
            }
            if let Some(process) = self.processes.get(&process) {
                let image = &process.image;
                image.outside_part(&mut self.shared, &mut reading.graph, &part);
            }
            self.output.append(&mut self.shared.records);
        }
        self.graphs.outside.reading = Some(reading);
    }

    /// All of a graph was read, or none of it.
    pub(crate) fn outside_is_read(&mut self, number: u32, is_there: bool) {
        // What was handed on waits there; nothing comes any more.
        for _ in 0..=MOST_PARTS / AT_ONCE {
            self.hear_outside();
        }
        let outside = &mut self.graphs.outside;
        let Some(Reading {
            wanted,
            graph,
            is_told,
            ..
        }) = outside
            .reading
            .take_if(|reading| reading.wanted.number == number)
        else {
            return;
        };
        let outcome = match graph.status {
            Some(status::OUTSIDE) if is_there && !graph.has_losses => GraphOutcome::Outside {
                nodes: graph.nodes,
                edges: graph.edges,
                bytes: graph.bytes,
                why: if wanted.why == NOT_READ {
                    String::new()
                } else {
                    wanted.why
                },
            },
            Some(status::OUT_OF_TIME) => GraphOutcome::CutOff("it took more than a minute".into()),
            _ if !is_told => GraphOutcome::Refused(wanted.why),
            _ if !is_there => GraphOutcome::CutOff("the process ended meanwhile".into()),
            _ => GraphOutcome::CutOff("not all of it could be read".into()),
        };
        self.graphs.settle(number, outcome);
    }

    /// The recording ends: whoever reads stops, and what waits is not read.
    pub(crate) fn give_up_outside(&mut self) {
        const WHY: &str = "the recording ended before it was read";
        let outside = &mut self.graphs.outside;
        let reading = outside.reading.take().map(|reading| reading.wanted);
        let given_up: Vec<Wanted> = reading.into_iter().chain(outside.queue.drain(..)).collect();
        for Wanted { number, .. } in given_up {
            self.note(format!("heap graph {number} is not whole: {WHY}"));
            self.graphs.settle(number, GraphOutcome::CutOff(WHY.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leakline_recording::record::{Inventory, Ledger};
    use leakline_wire::graph::{Writer, label};
    use leakline_wire::layout::mode;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::ledgers::{LedgerReader, ReadsMemory};
    use crate::protocol::FromOutside;
    use crate::testing::{self, FakeProcess, Records};

    /// Has a heap of two objects, but of a process with an odd number.
    struct Two;

    impl ReadsMemory for Two {
        fn ledger(&mut self, _: u32, _: u64) -> Option<Ledger> {
            None
        }

        fn inventory(&mut self, _: u32, _: u64) -> Option<Inventory> {
            None
        }

        fn heap(&mut self, pid: u32, _: u64, hand_on: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            assert!(pid != 13, "as if it had failed");
            if pid % 2 == 1 {
                return true;
            }
            let mut buffer = vec![0; 8 << 10];
            let mut writer = Writer::new(&mut buffer, hand_on);
            writer.type_(0x1000, 0, b"list");
            writer.node(0x2000, 0, 64, 1, 0);
            writer.edge(label::INDEX, 0x3000);
            writer.node(0x3000, 0, 56, 1, 0);
            writer.end(status::OUTSIDE, 2, 1, 5);
            true
        }
    }

    fn reader() -> LedgerReader {
        Box::new(Two)
    }

    fn outcome(pid: u32) -> (GraphOutcome, Records) {
        let (mut engine, records) = testing::engine(16 << 20, 1);
        let header = engine.shared.session.header();
        header.mode.fetch_or(mode::PYTHON, Relaxed);
        engine.keep_ledgers(reader);
        let process = FakeProcess::join(&mut engine, pid);
        let slot = process.session.slot(process.slot).unwrap();
        slot.python_version.store(0x030b_07f0, Relaxed);
        engine
            .want_graphs("asked", false, false, FromOutside::Only)
            .unwrap();
        for _ in 0..500 {
            engine.round();
            if let [state] = &engine.graph_states()[..]
                && state.outcome.is_settled()
            {
                engine.flush();
                return (state.outcome.clone(), records);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never came to an end");
    }

    #[test]
    fn what_is_read_is_recorded() {
        let (outcome, records) = outcome(100);
        let GraphOutcome::Outside {
            nodes,
            edges,
            bytes,
            ..
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        assert_eq!((nodes, edges, bytes), (2, 1, 120));
        let names = records.pick(|record| match record {
            Record::HeapGraph(graph) => Some(graph.name.clone()),
            Record::HeapPart(part) => Some(format!("{} sites", part.sites.len())),
            _ => None,
        });
        assert_eq!(names, ["asked", "2 sites"]);
    }

    #[test]
    fn where_nothing_is_read_there_is_none() {
        for pid in [11, 13] {
            let (outcome, records) = outcome(pid);
            assert_eq!(outcome, GraphOutcome::Refused(NOT_READ.into()));
            let graphs = records.pick(|record| match record {
                Record::HeapGraph(_) => Some(()),
                _ => None,
            });
            assert_eq!(graphs, []);
        }
    }
}
