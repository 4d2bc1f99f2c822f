//! Heap graphs that nobody asks for at their instant: those at instants that were given
//! beforehand, and those by [`Occasion`].
//!
//! # Invariants
//!
//! * One that an occasion is the reason for is asked for only while no other is under way:
//!   who asks for one does not wait behind several of ours.
//! * They cost a twentieth of the time at most: after each is a rest, by what it took. A
//!   session has no more than [`MOST_AUTO`] and [`MOST_PEAKS`] of them, and few more a day.
//! * What forbids a graph forbids these. A refusal is recorded.

use std::cmp::Reverse;
use std::collections::VecDeque;

use leakline_wire::layout::mode;
use leakline_wire::sync::Ordering;
use rustc_hash::FxHashMap;

use super::{Engine, PLAIN_BYTES};
use crate::engine::CHORES_EVERY_NS;
use crate::occasions::{LOOK_EVERY_NS, Look, Occasion, Subject, Wanted};
use crate::process;
use crate::protocol::{FromOutside, GraphOutcome, GraphPlan, GraphState};

/// Of so many processes one is taken after warm-up: of a tree that makes new workers all
/// the time those of the first are enough.
const MOST_WARM: u64 = 8;
/// How many are taken by themselves, those included, and how many of peaks. For each
/// four hours of a session it is one more: workers that are killed each night are not
/// those of the first night.
const MOST_AUTO: u64 = 32;
const MOST_PEAKS: u64 = 128;
const ONE_MORE_NS: u64 = 4 * 3_600_000_000_000;
/// What part of its work a process does not do while a child tells of it: a fifth, by
/// `tests/bench/graph`. What it stands still comes on top.
const WORK_LOST: u64 = 5;
/// How long a process may take to come by: it just did something.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Of more processes the levels are looked at each second only.
const MOST_OFTEN: usize = 64;
/// The rest after one, in times of that.
const REST: u64 = 19;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unasked {
    auto: bool,
    peak: bool,
    /// Instants to come, in nanoseconds since the session began, and what graphs of then
    /// are called.
    at: VecDeque<(u64, String)>,
    /// Numbers of such graphs that may still be refused.
    timed: Vec<u32>,
    subjects: FxHashMap<u32, Subject>,
    taking: Option<Taking>,
    rest_until_ns: u64,
    look_ns: u64,
    warm: u64,
    growth: u64,
    peaks: u64,
}

/// One that an occasion is the reason for, and that is under way.
#[derive(Debug)]
struct Taking {
    number: u32,
    process: u32,
    occasion: Occasion,
    level: u64,
    runs_short: bool,
    began_ns: Option<u64>,
    /// The process did not come by for it.
    is_late: bool,
}

impl Unasked {
    /// How long the process that is asked for this graph may take to come by, if it is one
    /// of these: it just did something, and others wait.
    pub(super) fn patience_ns(&self, number: u32) -> Option<u64> {
        let taking = self.taking.as_ref();
        taking.and_then(|taking| (taking.number == number).then_some(PATIENCE_NS))
    }

    /// It did not.
    pub(super) fn is_late(&mut self, number: u32) {
        if let Some(taking) = &mut self.taking {
            taking.is_late |= taking.number == number;
        }
    }

    /// What may still be taken by itself.
    fn wanted(&self, is_attached: bool, now_ns: u64) -> Wanted {
        let more = now_ns / ONE_MORE_NS;
        let is_auto = self.auto && self.warm + self.growth < MOST_AUTO + more;
        Wanted {
            // There the one at the beginning is compared with.
            warm: is_auto && !is_attached && self.warm < MOST_WARM,
            growth: is_auto,
            peak: self.peak && self.peaks < MOST_PEAKS + more,
        }
    }
}

impl Engine {
    /// Says which graphs are taken though nobody asks for them then.
    pub(crate) fn plan_graphs(&mut self, plan: &GraphPlan) {
        let unasked = &mut self.graphs.unasked;
        unasked.auto = plan.auto;
        unasked.peak = plan.peak;
        let ns = |at: &crate::protocol::GraphAt| {
            let ns = u64::try_from(at.after.as_nanos()).unwrap_or(u64::MAX);
            (ns, at.name.clone())
        };
        let mut at: Vec<(u64, String)> = plan.at.iter().map(ns).collect();
        at.sort();
        at.dedup_by_key(|(ns, _)| *ns);
        unasked.at = at.into();
    }

    /// Has those taken whose time has come: to be called ten times a second.
    pub(super) fn see_to_unasked(&mut self, now_ns: u64) {
        self.settle_timed();
        self.settle_taking(now_ns);
        if self.mode() & mode::ON == 0 {
            return;
        }
        while let Some((ns, _)) = self.graphs.unasked.at.front()
            && *ns <= now_ns
            && let Some((_, name)) = self.graphs.unasked.at.pop_front()
        {
            let first = self.graphs.next_number;
            match self.want_graphs(&name, true, false, FromOutside::Never) {
                Ok(()) => {
                    let numbers = first..self.graphs.next_number;
                    self.graphs.unasked.timed.extend(numbers);
                }
                Err(why) => self.note(format!("no heap graph `{name}` was taken: {why}")),
            }
        }
        let unasked = &mut self.graphs.unasked;
        if (unasked.auto || unasked.peak) && now_ns >= unasked.look_ns {
            let is_often = unasked.peak && self.processes.len() <= MOST_OFTEN;
            unasked.look_ns = now_ns + if is_often { 0 } else { LOOK_EVERY_NS };
            self.look_for_occasions(now_ns);
        }
    }

    /// Says which were not taken since their time did not come.
    pub(crate) fn note_missed_graphs(&mut self) {
        for (_, name) in std::mem::take(&mut self.graphs.unasked.at) {
            self.note(format!(
                "no heap graph `{name}` was taken: the recording ended before"
            ));
        }
    }

    fn graph_state(&self, number: u32) -> Option<&GraphState> {
        let mut told = self.graphs.told.iter();
        told.find(|state| state.number == number)
    }

    fn note_refusal(&mut self, number: u32) {
        let refused = self.graph_state(number).and_then(|state| {
            let GraphOutcome::Refused(why) = &state.outcome else {
                return None;
            };
            let (name, pid) = (&state.name, state.pid);
            Some(format!(
                "no heap graph `{name}` of process {pid} was taken: {why}"
            ))
        });
        if let Some(text) = refused {
            self.note(text);
        }
    }

    fn settle_timed(&mut self) {
        let timed = std::mem::take(&mut self.graphs.unasked.timed);
        for number in timed {
            match self.graph_state(number).map(|state| &state.outcome) {
                Some(GraphOutcome::Waiting) => self.graphs.unasked.timed.push(number),
                _ => self.note_refusal(number),
            }
        }
    }

    fn settle_taking(&mut self, now_ns: u64) {
        let Some(mut taking) = self.graphs.unasked.taking.take() else {
            return;
        };
        let outcome = self.graph_state(taking.number).map(|state| &state.outcome);
        // How long the process stood still, of one that is over.
        let paused_ns = match outcome {
            Some(GraphOutcome::Waiting) => {
                self.graphs.unasked.taking = Some(taking);
                return;
            }
            Some(GraphOutcome::Begun) => {
                taking.began_ns.get_or_insert(now_ns);
                self.graphs.unasked.taking = Some(taking);
                return;
            }
            Some(GraphOutcome::Taken { paused_ns, .. }) => Some(*paused_ns),
            Some(GraphOutcome::CutOff(_) | GraphOutcome::Outside { .. }) => Some(0),
            Some(GraphOutcome::Refused(_)) | None => None,
        };
        let unasked = &mut self.graphs.unasked;
        let subject = unasked.subjects.get_mut(&taking.process);
        let Some(paused_ns) = paused_ns else {
            let process = self.processes.get(&taking.process);
            let has_ended = process.is_none_or(|process| process.ended.is_some());
            let is_worth = !taking.is_late && !has_ended;
            if subject.is_some_and(|subject| subject.refused(now_ns, is_worth)) {
                self.note_refusal(taking.number);
            }
            return;
        };
        if let Some(subject) = subject {
            subject.taken(taking.occasion, now_ns, taking.level, taking.runs_short);
        }
        // It may have begun and ended between two looks.
        let took_ns = now_ns.saturating_sub(taking.began_ns.unwrap_or(now_ns));
        let cost_ns = (took_ns.max(CHORES_EVERY_NS / 2) / WORK_LOST).saturating_add(paused_ns);
        unasked.rest_until_ns = now_ns.saturating_add(cost_ns.saturating_mul(REST));
        let (of, count, most) = match taking.occasion {
            Occasion::Peak => {
                unasked.peaks += 1;
                ("of peaks", unasked.peaks, MOST_PEAKS)
            }
            occasion => {
                unasked.warm += u64::from(occasion == Occasion::Warm);
                unasked.growth += u64::from(occasion == Occasion::Growth);
                let count = unasked.warm + unasked.growth;
                ("after warm-up and of growth", count, MOST_AUTO)
            }
        };
        if count == most {
            self.note(format!(
                "heap graphs {of}: {most} were taken, and from here on it is one in four hours"
            ));
        }
    }

    fn look_for_occasions(&mut self, now_ns: u64) {
        let session = self.shared.session.clone();
        let sample_bytes = if self.is_sampled() {
            session.header().sample_mean.load(Ordering::Relaxed)
        } else {
            0
        };
        let is_attached = self.graphs.is_attached;
        let wanted = self.graphs.unasked.wanted(is_attached, now_ns);
        let is_free = !self.is_at_graphs() && now_ns >= self.graphs.unasked.rest_until_ns;
        let has_native = self.mode() & mode::NATIVE != 0;
        let mut subjects = std::mem::take(&mut self.graphs.unasked.subjects);
        subjects.retain(|id, _| {
            let process = self.processes.get(id);
            process.is_some_and(|process| process.ended.is_none())
        });
        let mut found = Vec::new();
        for (&id, process) in &self.processes {
            if process.ended.is_some() || process.ending.is_some() {
                continue;
            }
            let image = &process.image;
            let look = Look {
                now_ns,
                live_bytes: image.scope.live_bytes,
                sites: u32::try_from(image.own_sites.len()).unwrap_or(u32::MAX),
                allocations: image.totals.allocations,
                sample_bytes,
            };
            let pid = process.identity.pid;
            let subject = subjects.entry(id).or_insert_with(|| {
                let resident = is_attached.then(|| process::rss_bytes(pid)).flatten();
                let unknown = resident.unwrap_or(0).saturating_sub(look.live_bytes);
                Subject::new(&look, unknown, is_attached)
            });
            subject.see(&look);
            let has_python = session
                .slot(process.slot)
                .is_some_and(|slot| slot.python_version.load(Ordering::Relaxed) != 0);
            let may_be_plain = has_native && look.live_bytes >= PLAIN_BYTES;
            if !is_free || !has_python && !may_be_plain {
                continue;
            }
            let wanted = Wanted {
                warm: wanted.warm && has_python,
                ..wanted
            };
            let mut runs_short = false;
            let occasion = subject.occasion(wanted, &look, || {
                runs_short = self.runs_short(pid);
                runs_short
            });
            if let Some(occasion) = occasion {
                found.push((
                    occasion,
                    subject.level(&look),
                    Reverse(id),
                    pid,
                    has_python,
                    runs_short,
                ));
            }
        }
        self.graphs.unasked.subjects = subjects;
        let Some((occasion, level, Reverse(process), pid, has_objects, runs_short)) =
            found.into_iter().max()
        else {
            return;
        };
        let number = self.graphs.number();
        self.graphs.queue.push_back((process, number));
        self.graphs.tell(GraphState {
            number,
            pid,
            name: occasion.name().to_owned(),
            outcome: GraphOutcome::Waiting,
            has_objects,
            lost: None,
        });
        self.graphs.unasked.taking = Some(Taking {
            number,
            process,
            occasion,
            level,
            runs_short,
            began_ns: None,
            is_late: false,
        });
        self.ask_next();
    }

    /// Whether there is memory enough for a graph, but soon will not be.
    fn runs_short(&self, pid: u32) -> bool {
        self.memory_for_graph(pid)
            .is_some_and(|(left, needed)| left.bytes >= needed && left.bytes / 3 < needed / 2)
    }
}
