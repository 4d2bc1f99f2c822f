//! Heap graphs: who is to take one, children that do, what became of them.
//!
//! While such a child lives, a thread of ours looks at its memory for native blocks that
//! nothing points to ([`crate::lost`]); of a process without Python that is all.
//!
//! One process at a time is asked. Its child claims a slot as any forked process does,
//! and comes into the recording as a graph instead: its image has the parent's live
//! blocks as they were at the fork, which nothing of the child's changes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use leakline_recording::record::{HeapGraph, Lost, LostSite, Record};
use leakline_wire::Domain;
use leakline_wire::graph::status;
use leakline_wire::layout::{END_GRAPH, Slot, may_graph, mode, scan};
use leakline_wire::sync::Ordering;
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use self::outside::Outside;
use self::unasked::Unasked;
use super::{Engine, Newborn};
use crate::graph::Graph;
use crate::image::{ForkPoint, Image, MARKS};
use crate::limits::Headroom;
use crate::live::Block;
use crate::lost::Found;
use crate::lost::target::{self, Order};
use crate::names::LocalNames;
use crate::order::Rings;
use crate::process;
use crate::protocol::{FromOutside, GraphOutcome, GraphState, LostState};
use crate::weights::Weights;

mod outside;
mod unasked;

/// How long a process may take to come by.
const PATIENCE_NS: u64 = 10_000_000_000;
/// The same of one without Python: in a tree there may be many that wait for others.
const PLAIN_PATIENCE_NS: u64 = 3_000_000_000;
/// The same of one that did not come by when it was last asked, and can be read from
/// outside.
const LATE_PATIENCE_NS: u64 = 1_000_000_000;
/// How long a child may take, beyond the minute that it gives itself.
const CHILD_PATIENCE_NS: u64 = 90_000_000_000;
/// Between two looks at how much memory is left.
const PERMIT_EVERY_NS: u64 = 1_000_000_000;
/// Graphs whose fate is remembered.
const MOST_TOLD: usize = 128;
/// What a process's memory is multiplied by, in percent, for what its pages cost that it
/// writes to while the child has them too; and what the child needs in any case.
const NEEDED_PERCENT: u64 = 50;
const NEEDED_BYTES: u64 = 32 << 20;
/// The same where a child that is killed would not be the only one.
const NEEDED_PERCENT_OF_ALL: u64 = 100;
/// A child is ended when less than this is left.
const FLOOR_BYTES: u64 = NEEDED_BYTES / 2;
/// Processes of which a graph is taken at their ends, of those with Python and of those
/// without, and how large others have to be.
const MOST_OF_END: u32 = 24;
const LARGE_BYTES: u64 = 256 << 20;
/// What one without Python has to have to be looked at beside one with it.
const PLAIN_BYTES: u64 = 1 << 20;
/// Processes without Python whose memory is looked after at a time.
const MOST_PLAIN: u32 = 64;
/// How long a fork takes, with small pages.
const PAUSE_MS_PER_GIB: u64 = 20;

/// A child that tells of its parent's heap.
#[derive(Debug)]
struct Teller {
    image: Image,
    rings: Rings,
    slot: u32,
    pidfd: Option<OwnedFd>,
    began_ns: u64,
    /// Somebody asked for it: it is none of the end.
    is_asked: bool,
    /// Its parent has no Python.
    is_plain: bool,
    /// Why we ended it.
    killed: Option<&'static str>,
    /// The look at its memory, as long as that goes on.
    look: Option<Look>,
}

/// What is told of a look, and what the next one is compared with; or why nothing is.
type Told = Result<(LostState, Before), String>;

/// A look at a child's memory, by a thread of ours.
#[derive(Debug)]
struct Look {
    result: Receiver<(Lost, Told)>,
    /// The graph's number.
    number: u32,
}

/// Lost blocks: address and birth of each.
#[derive(Debug, Default)]
struct Before {
    graph: u32,
    blocks: FxHashSet<(u64, u32)>,
}

/// Most lost blocks that are kept to be compared with: some 16 bytes each.
const MOST_BEFORE: usize = 4 << 20;
/// Most lost blocks of a site whose addresses are told.
const MOST_EXAMPLES: usize = 4;

/// A process that was asked.
#[derive(Debug)]
struct Asked {
    process: u32,
    number: u32,
    since_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Graphs {
    tellers: Vec<Teller>,
    /// Processes still to be asked, and the number that each graph is to have.
    queue: VecDeque<(u32, u32)>,
    /// Numbers of those among them that are to tell what keys of dicts are, though the
    /// session's do not.
    with_values: FxHashSet<u32>,
    asked: Option<Asked>,
    /// Numbers of those that are read from outside where a process takes none.
    instead: FxHashSet<u32>,
    /// Processes that did not come by when they were last asked.
    late: FxHashSet<u32>,
    outside: Outside,
    next_number: u32,
    told: VecDeque<GraphState>,
    /// Some of those changed.
    has_news: bool,
    permit_ns: u64,
    /// Graphs that were taken at ends of processes with Python.
    of_end: u32,
    /// Such ends of those without.
    of_plain: u32,
    /// What the last look at each process found.
    before: FxHashMap<u32, Before>,
    /// The session's processes were running before it began.
    pub(super) is_attached: bool,
    /// Blocks were sampled at some time.
    was_sampled: bool,
    unasked: Unasked,
}

impl Default for Graphs {
    fn default() -> Self {
        Graphs {
            tellers: Vec::new(),
            queue: VecDeque::new(),
            with_values: FxHashSet::default(),
            asked: None,
            instead: FxHashSet::default(),
            late: FxHashSet::default(),
            outside: Outside::default(),
            next_number: 1,
            told: VecDeque::new(),
            has_news: false,
            permit_ns: 0,
            of_end: 0,
            of_plain: 0,
            before: FxHashMap::default(),
            is_attached: false,
            was_sampled: false,
            unasked: Unasked::default(),
        }
    }
}

impl Graphs {
    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn tell(&mut self, state: GraphState) {
        if self.told.len() == MOST_TOLD {
            self.told.pop_front();
        }
        self.has_news = true;
        self.told.push_back(state);
    }

    fn settle(&mut self, number: u32, outcome: GraphOutcome) {
        self.has_news = true;
        if let Some(state) = self.told.iter_mut().find(|state| state.number == number) {
            state.outcome = outcome;
        }
    }
}

impl Engine {
    /// Has the heap graphs of all processes taken, one after the other: first of those with
    /// Python, then, `with_plain` ones, of the others. Beside Python, small ones are left
    /// out: mostly they wait for it, and would have to be waited for. `with_values` they tell
    /// what keys of dicts are, also where the session's do not. Those of Python may be read
    /// from outside.
    ///
    /// # Errors
    ///
    /// None can be: why.
    pub(crate) fn want_graphs(
        &mut self,
        name: &str,
        with_plain: bool,
        with_values: bool,
        from_outside: FromOutside,
    ) -> Result<(), String> {
        if self.mode() & mode::ON == 0 {
            return Err("nothing is recorded any more".into());
        }
        let session = self.shared.session.clone();
        let has_python = |slot: u32| {
            session
                .slot(slot)
                .is_some_and(|slot| slot.python_version.load(Ordering::Relaxed) != 0)
        };
        let is_outside = from_outside == FromOutside::Only;
        let with_plain = with_plain && self.mode() & mode::NATIVE != 0 && !is_outside;
        let mut living: Vec<(bool, u32, u32)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.ended.is_none() && process.ending.is_none())
            .map(|(id, process)| (!has_python(process.slot), *id, process.identity.pid))
            .filter(|(is_plain, ..)| !is_plain || with_plain)
            .collect();
        living.sort_unstable();
        if living.first().is_some_and(|(is_plain, ..)| !is_plain) {
            let live = |id: &u32| self.processes.get(id).map(|one| one.image.scope.live_bytes);
            living.retain(|(is_plain, id, _)| !is_plain || live(id) >= Some(PLAIN_BYTES));
        }
        if living.is_empty() {
            return Err("no process lives of which one could be".into());
        }
        for (is_plain, id, pid) in living {
            let number = self.graphs.number();
            self.graphs.tell(GraphState {
                number,
                pid,
                name: name.to_owned(),
                outcome: GraphOutcome::Waiting,
                has_objects: !is_plain,
                lost: None,
            });
            if is_outside {
                self.want_outside(id, number, outside::NOT_READ.into());
                continue;
            }
            self.graphs.queue.push_back((id, number));
            if with_values {
                self.graphs.with_values.insert(number);
            }
            if from_outside == FromOutside::Instead && !is_plain {
                self.graphs.instead.insert(number);
            }
        }
        self.ask_next();
        Ok(())
    }

    /// What became of graphs, oldest first.
    pub(crate) fn graph_states(&self) -> Vec<GraphState> {
        self.graphs.told.iter().cloned().collect()
    }

    /// The same, if something has changed since this was last asked.
    pub(crate) fn graph_news(&mut self) -> Option<Vec<GraphState>> {
        std::mem::take(&mut self.graphs.has_news).then(|| self.graph_states())
    }

    /// Whether heap graphs are asked for, or told of.
    pub(crate) fn is_at_graphs(&self) -> bool {
        let graphs = &self.graphs;
        !graphs.tellers.is_empty()
            || !graphs.queue.is_empty()
            || graphs.asked.is_some()
            || graphs.outside.is_busy()
    }

    /// Whether a child tells of a heap.
    pub(crate) fn is_told_of_heaps(&self) -> bool {
        !self.graphs.tellers.is_empty()
    }

    /// Asks the next process, if none is being asked.
    fn ask_next(&mut self) {
        while self.graphs.asked.is_none() && !self.graphs.tellers.iter().any(|one| one.is_asked) {
            let Some((process, number)) = self.graphs.queue.pop_front() else {
                return;
            };
            let with_values = self.graphs.with_values.remove(&number);
            let why = match self.processes.get(&process) {
                Some(process) if process.ended.is_none() && process.ending.is_none() => {
                    self.forbids_graph(process.identity.pid)
                }
                _ => Some("it has ended".into()),
            };
            if let Some(why) = why {
                self.refuse(process, number, why);
                continue;
            }
            let since_ns = self.now_ns();
            let session = self.shared.session.clone();
            if let Some(slot) = self.slot_of(&session, process) {
                let values = if with_values { number } else { 0 };
                slot.values_wanted.store(values, Ordering::Relaxed);
                // Release pairs with the target's Acquire.
                slot.graph_wanted.store(number, Ordering::Release);
                self.graphs.asked = Some(Asked {
                    process,
                    number,
                    since_ns,
                });
            }
        }
    }

    /// Says why a process takes no graph, or has it read from outside.
    fn refuse(&mut self, process: u32, number: u32, why: String) {
        let is_wanted = self.graphs.instead.remove(&number);
        let lives = self
            .processes
            .get(&process)
            .is_some_and(|process| process.ended.is_none() && process.ending.is_none());
        if is_wanted && lives {
            self.want_outside(process, number, why);
        } else {
            self.graphs.settle(number, GraphOutcome::Refused(why));
        }
    }

    fn slot_of<'a>(
        &self,
        session: &'a crate::session::SessionMap,
        process: u32,
    ) -> Option<&'a Slot> {
        session.slot(self.processes.get(&process)?.slot)
    }

    /// Why no graph of a process is to be taken, if so.
    fn forbids_graph(&self, pid: u32) -> Option<String> {
        // What such a device writes to memory on its own may go to the child's copy.
        const DEVICES: [&str; 5] = [
            "/dev/infiniband",
            "/dev/nvidia",
            "/dev/kfd",
            "/dev/vfio",
            "/dev/accel",
        ];
        let pause_ms = process::rss_bytes(pid)? / (1 << 20) * PAUSE_MS_PER_GIB / 1024;
        if Duration::from_millis(pause_ms) > self.most_pause {
            return Some(format!(
                "it would stand still for about {pause_ms} ms, longer than --max-pause allows ({} ms)",
                self.most_pause.as_millis()
            ));
        }
        if let Some(why) = process::forbids_fork(pid, self.forking_filters) {
            return Some(why.into());
        }
        let device = process::open_files(pid)
            .find(|path| DEVICES.iter().any(|device| path.starts_with(device)));
        match device {
            Some(path) => Some(format!("it uses {path}, which may not bear a fork")),
            None => self.lacks_memory(pid),
        }
    }

    /// Why there is not memory enough for a graph of a process, if so.
    fn lacks_memory(&self, pid: u32) -> Option<String> {
        let (left, needed) = self.memory_for_graph(pid)?;
        let and = if left.kills_all {
            ", and who is killed for memory there takes all others along"
        } else {
            ""
        };
        (left.bytes < needed).then(|| {
            format!(
                "{} MiB of memory are left, and {} may be needed: while a graph is taken, \
                 each page that the process writes to is there twice{and}",
                left.bytes >> 20,
                needed >> 20
            )
        })
    }

    /// What is left of a process's memory, where it is limited, and how much of it a graph
    /// may need.
    fn memory_for_graph(&self, pid: u32) -> Option<(Headroom, u64)> {
        let left = self.limits.headroom(pid)?;
        let rss = process::rss_bytes(pid)?;
        let percent = if left.kills_all {
            NEEDED_PERCENT_OF_ALL
        } else {
            NEEDED_PERCENT
        };
        Some((left, rss / 100 * percent + NEEDED_BYTES))
    }

    /// Looks after graphs: to be called ten times a second.
    pub(super) fn see_to_graphs(&mut self) {
        let now_ns = self.now_ns();
        self.graphs.was_sampled |= self.mode() & mode::SAMPLED != 0;
        let session = self.shared.session.clone();
        if self.mode() & mode::GRAPH_AT_END != 0 && now_ns >= self.graphs.permit_ns {
            self.graphs.permit_ns = now_ns + PERMIT_EVERY_NS;
            // Of more without Python it is not looked: finding out takes the time of rounds.
            let mut plain_left = MOST_PLAIN;
            for process in self.processes.values().filter(|one| one.ended.is_none()) {
                let Some(slot) = session.slot(process.slot) else {
                    continue;
                };
                let may = if slot.python_version.load(Ordering::Relaxed) != 0 {
                    self.may_graph(process.identity.pid, self.graphs.of_end)
                } else if plain_left > 0 {
                    plain_left -= 1;
                    self.may_graph(process.identity.pid, self.graphs.of_plain)
                } else {
                    may_graph::ENOUGH
                };
                slot.may_graph.store(may, Ordering::Relaxed);
            }
        }
        let of_end = |is_plain| {
            let at_end = |one: &&Teller| !one.is_asked && one.is_plain == is_plain;
            self.graphs.tellers.iter().filter(at_end).count() as u32
        };
        let header = session.header();
        for (kind, is_plain) in [false, true].into_iter().enumerate() {
            header.end_graphs[kind].store(of_end(is_plain), Ordering::Relaxed);
        }
        if let Some(asked) = &self.graphs.asked {
            let slot = self.slot_of(&session, asked.process);
            let has_ended = slot.is_none()
                || self
                    .processes
                    .get(&asked.process)
                    .is_none_or(|process| process.ended.is_some());
            // Acquire pairs with the target's Release: the error is there.
            let has_begun =
                slot.is_some_and(|slot| slot.graph_begun.load(Ordering::Acquire) == asked.number);
            let error = slot.map_or(0, |slot| slot.graph_error.load(Ordering::Relaxed));
            let number = asked.number;
            let waited_ns = now_ns.saturating_sub(asked.since_ns);
            let is_plain =
                slot.is_some_and(|slot| slot.python_version.load(Ordering::Relaxed) == 0);
            let patience_ns = if is_plain {
                PLAIN_PATIENCE_NS
            } else {
                PATIENCE_NS
            };
            let patience_ns = self
                .graphs
                .unasked
                .patience_ns(number)
                .unwrap_or(patience_ns);
            let process = asked.process;
            // Who did not come by will hardly now, and others may wait behind it.
            let is_hopeless = self.graphs.late.contains(&process) || !self.graphs.queue.is_empty();
            let patience_ns = if is_hopeless && self.graphs.instead.contains(&number) {
                LATE_PATIENCE_NS
            } else {
                patience_ns
            };
            let is_late = waited_ns > patience_ns;
            if has_begun {
                self.graphs.late.remove(&process);
                if error == 0 {
                    self.graphs.instead.remove(&number);
                }
            } else if is_late {
                self.graphs.late.insert(process);
            }
            let outcome = if has_ended {
                Some(GraphOutcome::Refused("it has ended".into()))
            } else if has_begun && error != 0 {
                Some(GraphOutcome::Refused(refused(error)))
            } else if is_late && !has_begun {
                // What was not begun yet shall not be later.
                if let Some(slot) = slot {
                    let begun = slot.graph_begun.load(Ordering::Relaxed);
                    slot.graph_wanted.store(begun, Ordering::Relaxed);
                }
                self.graphs.unasked.is_late(number);
                Some(GraphOutcome::Refused(format!(
                    "it did not come by in {} s: it allocates nothing, or too little",
                    patience_ns / 1_000_000_000
                )))
            } else if waited_ns > 2 * PATIENCE_NS {
                Some(GraphOutcome::Refused("its child was not seen".into()))
            } else {
                None
            };
            match outcome {
                None => {}
                Some(GraphOutcome::Refused(why)) => {
                    self.graphs.asked = None;
                    self.refuse(process, number, why);
                }
                Some(outcome) => {
                    self.graphs.asked = None;
                    self.graphs.settle(number, outcome);
                }
            }
        }
        self.watch_memory();
        self.end_tellers();
        self.ask_next();
        self.see_to_unasked(now_ns);
    }

    /// Ends children where what is left of their memory is the process's own.
    fn watch_memory(&mut self) {
        const WHY: &str = "the child that took it was killed: the process's memory ran short";
        for teller in &mut self.graphs.tellers {
            let process = self.processes.get(&teller.image.process);
            let Some(process) = process.filter(|process| process.ended.is_none()) else {
                continue;
            };
            let left = self.limits.headroom(process.identity.pid);
            if left.is_some_and(|left| left.bytes < FLOOR_BYTES) {
                teller.kill(WHY);
            }
        }
    }

    /// Lets a process take its graph at the end from its beginning on: until it is looked
    /// at, it is small.
    pub(super) fn permit_graph(&self, slot: u32) {
        if self.mode() & mode::GRAPH_AT_END != 0
            && let Some(slot) = self.shared.session.slot(slot)
        {
            let may = self
                .shared
                .session
                .header()
                .may_graph
                .load(Ordering::Relaxed);
            slot.may_graph.store(may, Ordering::Relaxed);
        }
    }

    /// Says what those may that are still to come.
    pub(super) fn permit_newcomers(&self) {
        let may = if self.mode() & mode::GRAPH_AT_END == 0 {
            may_graph::NO
        } else {
            may_graph::YES
        };
        let taken = [self.graphs.of_end, self.graphs.of_plain];
        let header = self.shared.session.header();
        header.may_graph.store(may, Ordering::Relaxed);
        for (enough, taken) in header.enough_ends.iter().zip(taken) {
            enough.store(u32::from(taken >= MOST_OF_END), Ordering::Relaxed);
        }
    }

    /// Whether a process may take a graph at its end, as `taken` of its kind did. Of many
    /// short processes those of the first are enough: the recording is not to grow with
    /// their number.
    fn may_graph(&self, pid: u32, taken: u32) -> u32 {
        let is_large = process::rss_bytes(pid).is_some_and(|rss| rss >= LARGE_BYTES);
        if taken >= MOST_OF_END && !is_large {
            may_graph::ENOUGH
        } else if self.forbids_graph(pid).is_some() {
            may_graph::NO
        } else if is_large {
            may_graph::LARGE
        } else {
            may_graph::YES
        }
    }

    /// Takes in a child that tells of its parent's heap.
    pub(super) fn start_teller(&mut self, newborn: Newborn, parent: Option<u32>, slot: &Slot) {
        let stamp = slot.start_stamp.load(Ordering::Relaxed);
        let wanted = slot.graph_wanted.load(Ordering::Relaxed);
        let found = parent.and_then(|id| {
            let image = &mut self.processes.get_mut(&id)?.image;
            Some((id, image.take_fork(&self.shared, newborn.fork, stamp)?))
        });
        // Its number is another's by now: it came too late.
        if self.graphs.outside.has(wanted) {
            slot.scan.store(scan::DONE, Ordering::Release);
            self.add_teller(newborn, u32::MAX, Graph::dropped(), None, None);
            return;
        }
        let Some((process, fork)) = found else {
            // It goes on telling, under its slot: what it tells is let go.
            slot.scan.store(scan::DONE, Ordering::Release);
            let why = "the instant of its fork was lost";
            self.note(format!("a heap graph was not taken: {why}"));
            self.graphs
                .settle(wanted, GraphOutcome::CutOff(why.to_owned()));
            self.add_teller(newborn, u32::MAX, Graph::dropped(), None, None);
            return;
        };
        let pid = self
            .processes
            .get(&process)
            .map_or(0, |process| process.identity.pid);
        let has_objects = slot.python_version.load(Ordering::Relaxed) != 0;
        let (number, name) = if wanted == END_GRAPH {
            let number = self.graphs.number();
            let name = MARKS[if has_objects { 1 } else { 2 }].to_owned();
            let (taken, of_what) = if has_objects {
                let of_what = "heap graphs at their ends are taken of";
                (&mut self.graphs.of_end, of_what)
            } else {
                let of_what = "lost blocks are looked for at the ends of";
                (&mut self.graphs.of_plain, of_what)
            };
            *taken += 1;
            let is_last = *taken == MOST_OF_END;
            self.permit_newcomers();
            if is_last {
                self.graphs.permit_ns = 0;
                let kind = if has_objects { "" } else { " without Python" };
                self.note(format!(
                    "{of_what} {MOST_OF_END} processes{kind}, and from here on only of large ones"
                ));
            }
            self.graphs.tell(GraphState {
                number,
                pid,
                name: name.clone(),
                outcome: GraphOutcome::Waiting,
                has_objects,
                lost: None,
            });
            (number, name)
        } else {
            let known = self.graphs.told.iter().find(|state| state.number == wanted);
            let name = known.map_or(String::new(), |state| state.name.clone());
            if self
                .graphs
                .asked
                .as_ref()
                .is_some_and(|asked| asked.number == wanted)
            {
                self.graphs.asked = None;
            }
            (wanted, name)
        };
        let at_ns = self.shared.clock.ns(fork.stamp);
        let paused_ns = self.shared.clock.ns(stamp).saturating_sub(at_ns);
        self.output.append(&mut self.shared.records);
        if has_objects {
            self.output.push(Record::HeapGraph(HeapGraph {
                graph: number,
                process,
                at_ns,
                name: name.clone(),
                paused_ns,
                values: slot.values_wanted.load(Ordering::Relaxed) == wanted,
            }));
        }
        self.graphs.settle(number, GraphOutcome::Begun);
        let record = Lost {
            graph: number,
            process,
            at_ns,
            name,
            paused_ns,
            why: String::new(),
            knows_all: self.knows_all_blocks(),
            threads: 0,
            before: 0,
            blocks: 0,
            bytes: 0,
            root_bytes: 0,
            block_bytes: 0,
            unread_bytes: 0,
            microseconds: 0,
            sites: Vec::new(),
        };
        let look = self.begin_look(&newborn, slot, pid, &fork, record);
        let mut graph = Graph::new(number, paused_ns);
        graph.is_native = !has_objects;
        self.add_teller(newborn, process, graph, Some(&fork), look);
    }

    /// Whether all blocks are known that there are.
    fn knows_all_blocks(&self) -> bool {
        let graphs = &self.graphs;
        let has_losses = self.past.lost_events > 0
            || self
                .processes
                .values()
                .any(|process| process.image.has_losses());
        !(graphs.is_attached || graphs.was_sampled || has_losses)
            && self.mode() & mode::SAMPLED == 0
            && !self.shared.weights.has_samples()
    }

    /// Has a thread look at a child's memory. Without one the child does not wait for it.
    fn begin_look(
        &mut self,
        newborn: &Newborn,
        slot: &Slot,
        parent: u32,
        fork: &ForkPoint,
        mut record: Lost,
    ) -> Option<Look> {
        if self.mode() & mode::NATIVE == 0 {
            slot.scan.store(scan::DONE, Ordering::Release);
            return None;
        }
        let (live, mappings) = fork.blocks();
        let order = Order {
            child: newborn.identity.clone(),
            parent,
            stack: slot.scan_stack.load(Ordering::Relaxed),
            own: slot.scan_own.load(Ordering::Relaxed),
            threads: slot.scan_threads.load(Ordering::Relaxed),
            live,
            mappings,
            domains: self.shared.tally.domains(),
            knows_all: record.knows_all,
        };
        let (session, number) = (self.shared.session.clone(), newborn.slot);
        let number_of_graph = record.graph;
        let weights = self.shared.weights.scale();
        let before = self.graphs.before.remove(&record.process);
        let before = before.unwrap_or_default();
        let (send, result) = mpsc::channel();
        let look = move || {
            let step = |step| {
                if let Some(slot) = session.slot(number) {
                    // Release pairs with the child's Acquire.
                    slot.scan.store(step, Ordering::Release);
                }
            };
            let found = target::look(&order, || step(scan::GO_ON));
            step(scan::DONE);
            let told =
                found.map(|found| count_lost(&mut record, &found, &order, &weights, &before));
            if let Err(why) = &told {
                record.why.clone_from(why);
            }
            // Nobody may wait any more.
            let _ = send.send((record, told));
        };
        let thread = std::thread::Builder::new().name("leakline lost".into());
        if thread.spawn(look).is_err() {
            slot.scan.store(scan::DONE, Ordering::Release);
            return None;
        }
        Some(Look {
            result,
            number: number_of_graph,
        })
    }

    /// Takes in what looks have found.
    fn hear_looks(&mut self) {
        for at in 0..self.graphs.tellers.len() {
            let teller = &mut self.graphs.tellers[at];
            let Some(look) = &teller.look else { continue };
            let number = look.number;
            let told = match look.result.try_recv() {
                Ok((record, told)) => {
                    let process = record.process;
                    self.output.append(&mut self.shared.records);
                    self.output.push(Record::Lost(record));
                    told.map(|(state, after)| {
                        self.graphs.before.insert(process, after);
                        state
                    })
                }
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => Err("it was given up".into()),
            };
            teller.look = None;
            self.graphs.has_news = true;
            let states = &mut self.graphs.told;
            if let Some(state) = states.iter_mut().find(|state| state.number == number) {
                state.lost = Some(told);
            }
        }
    }

    fn add_teller(
        &mut self,
        newborn: Newborn,
        process: u32,
        graph: Graph,
        fork: Option<&ForkPoint>,
        look: Option<Look>,
    ) {
        let slot = self.shared.session.slot(newborn.slot);
        let is_asked =
            slot.is_some_and(|slot| slot.graph_wanted.load(Ordering::Relaxed) != END_GRAPH);
        let names = LocalNames::new(newborn.identity.pid, Vec::new());
        let mut image = Image::new(process, newborn.slot, names);
        image.take_graph(fork, graph);
        // Whoever looks for newborns knows the slot.
        self.by_slot[newborn.slot as usize] = Some(process);
        self.graphs.tellers.push(Teller {
            image,
            rings: Rings::default(),
            slot: newborn.slot,
            pidfd: newborn.pidfd,
            began_ns: self.now_ns(),
            is_asked,
            is_plain: slot.is_some_and(|slot| slot.python_version.load(Ordering::Relaxed) == 0),
            killed: None,
            look,
        });
    }

    /// What children have told by now.
    pub(super) fn hear_tellers(&mut self, limit: u64) -> bool {
        let session = self.shared.session.clone();
        let mut any = false;
        for teller in &mut self.graphs.tellers {
            if let Some(slot) = session.slot(teller.slot) {
                let found = teller.rings.drain(
                    &mut self.shared,
                    &mut teller.image,
                    slot,
                    teller.slot,
                    limit,
                );
                any |= found.any;
            }
        }
        any
    }

    /// Closes the accounts of children that have told everything, or are gone.
    pub(crate) fn end_tellers(&mut self) {
        let now_ns = self.now_ns();
        self.hear_looks();
        let tellers = self.graphs.tellers.iter_mut().enumerate();
        let mut over: Vec<usize> = tellers
            .filter_map(|(at, teller)| teller.is_over(now_ns).then_some(at))
            .collect();
        over.reverse();
        if over.is_empty() {
            return;
        }
        // It may have written after the last round.
        self.hear_tellers(u64::MAX);
        for at in over {
            let mut teller = self.graphs.tellers.swap_remove(at);
            teller.rings.close(&mut self.shared);
            self.output.append(&mut self.shared.records);
            let slot = teller.slot;
            let Some(graph) = teller.image.graph.take() else {
                continue;
            };
            if graph.is_dropped {
                self.by_slot[slot as usize] = None;
                self.release_slot(slot);
                continue;
            }
            let lost = self
                .shared
                .session
                .slot(slot)
                .is_some_and(|slot| slot.lost_events.load(Ordering::Relaxed) != 0);
            let outcome = match graph.status {
                Some(status::COMPLETE) if !lost && !graph.has_losses => GraphOutcome::Taken {
                    nodes: graph.nodes,
                    edges: graph.edges,
                    bytes: graph.bytes,
                    paused_ns: graph.paused_ns,
                },
                Some(status::OUT_OF_TIME) => GraphOutcome::CutOff(
                    "it took more than 20 s of a processor, or a minute".into(),
                ),
                Some(status::OUT_OF_MEMORY) => {
                    GraphOutcome::CutOff("there was no memory for it".into())
                }
                Some(status::CONFUSED) => {
                    GraphOutcome::CutOff("this build of Python is not understood".into())
                }
                Some(_) => GraphOutcome::CutOff("the collector could not keep up".into()),
                None if lost || graph.has_losses => {
                    GraphOutcome::CutOff("the collector could not keep up".into())
                }
                None => {
                    let why = teller.killed;
                    GraphOutcome::CutOff(why.unwrap_or("the child that took it was killed").into())
                }
            };
            if let GraphOutcome::CutOff(why) = &outcome {
                self.note(format!("heap graph {} is not whole: {why}", graph.number));
            }
            self.graphs.settle(graph.number, outcome);
            self.by_slot[slot as usize] = None;
            self.release_slot(slot);
        }
    }
}

/// Sums up by site what a look has found.
fn count_lost(
    record: &mut Lost,
    found: &Found,
    order: &Order,
    weights: &Weights,
    before: &Before,
) -> (LostState, Before) {
    const NATIVE: u8 = Domain::Native as u8;
    let live = order.live.as_deref();
    let pieces: FxHashMap<u64, Block> = order.mappings.all().collect();
    let block_at = |at: u64| pieces.get(&at).copied().or_else(|| live?.get(at));
    let mut sites: FxHashMap<u32, LostSite> = FxHashMap::default();
    let mut add = |block: &Block| {
        let amount = weights.weigh(block).amount;
        record.blocks += amount.blocks;
        record.bytes += amount.bytes;
        sites.entry(block.site).or_default().known += 1;
    };
    if let Some(live) = live {
        live.each(|_, block| {
            if order.domains.get(block.site as usize) == Some(&NATIVE) {
                add(&block);
            }
        });
    }
    pieces.values().for_each(add);
    let mut after = Before {
        graph: record.graph,
        ..Before::default()
    };
    let mut state = LostState {
        blocks: 0,
        bytes: 0,
        of: record.blocks,
    };
    // Examples are direct ones, where there are any.
    let direct = found.lost.iter().filter(|lost| !lost.is_indirect);
    let indirect = found.lost.iter().filter(|lost| lost.is_indirect);
    for lost in direct.chain(indirect) {
        let Some(block) = block_at(lost.start) else {
            continue;
        };
        let amount = weights.weigh(&block).amount;
        let site = sites.entry(block.site).or_default();
        let (blocks, bytes) = if lost.is_indirect {
            (&mut site.indirect_blocks, &mut site.indirect_bytes)
        } else {
            (&mut site.direct_blocks, &mut site.direct_bytes)
        };
        *blocks += amount.blocks;
        *bytes += amount.bytes;
        site.lost += 1;
        state.blocks += amount.blocks;
        state.bytes += amount.bytes;
        let key = (lost.start, block.birth);
        if before.blocks.contains(&key) {
            site.again_blocks += amount.blocks;
            site.again_bytes += amount.bytes;
        }
        if site.examples.len() < MOST_EXAMPLES {
            site.examples.push(lost.start);
        }
        if after.blocks.len() < MOST_BEFORE {
            after.blocks.insert(key);
        }
    }
    for at in &found.inner {
        if let Some(block) = block_at(*at) {
            let amount = weights.weigh(&block).amount;
            let site = sites.entry(block.site).or_default();
            site.inner_blocks += amount.blocks;
            site.inner_bytes += amount.bytes;
        }
    }
    record.before = before.graph;
    record.threads = found.threads;
    record.root_bytes = found.root_bytes;
    record.block_bytes = found.block_bytes;
    record.unread_bytes = found.unread_bytes;
    record.microseconds = found.took_ns / 1000;
    record.sites = sites
        .into_iter()
        .filter(|(_, site)| site.lost > 0 || site.inner_blocks > 0)
        .map(|(id, site)| LostSite { site: id, ..site })
        .collect();
    record.sites.sort_unstable_by_key(|site| site.site);
    (state, after)
}

impl Teller {
    fn kill(&mut self, why: &'static str) {
        if self.killed.is_none()
            && let Some(pidfd) = &self.pidfd
        {
            self.killed = Some(why);
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }

    /// Whether it has ended: then whoever waits for it in the target does not have to.
    fn is_over(&mut self, now_ns: u64) -> bool {
        let has_told = self
            .image
            .graph
            .as_ref()
            .is_none_or(|graph| graph.is_searched || graph.is_native && graph.status.is_some());
        let has_ended = self.pidfd.as_ref().map(|pidfd| {
            let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            matches!(poll(&mut fds, Some(&now)), Ok(1..))
        });
        // Its slot and its ring are its own as long as it lives.
        let is_late = now_ns.saturating_sub(self.began_ns) > CHILD_PATIENCE_NS;
        if is_late {
            self.kill("the child that took it was killed: it did not end");
        }
        // A look ends soon after its child did.
        self.look.is_none() && has_ended.unwrap_or(has_told || is_late)
    }
}

fn refused(error: u32) -> String {
    const EAGAIN: u32 = 11;
    const ENOMEM: u32 = 12;
    const ENOSYS: u32 = 38;
    match error {
        EAGAIN => "it may have no more processes, or another graph of it is being taken".into(),
        ENOMEM => "the kernel has no memory for a fork".into(),
        ENOSYS => "this build of Python is not understood".into(),
        error => format!("fork failed (error {error})"),
    }
}
