//! The session as the collector sees it: its processes, rounds of draining,
//! time bins, and what goes into the recording when.
//!
//! # Processes
//!
//! A process joins by shaking hands (start, exec) or, forked, by claiming a
//! slot. A forked one is a *newborn* until its parent's stream has passed the
//! instant of the fork: only then is known what it inherited, and only then
//! are its events read. A process that ended keeps its slot while a child of
//! it may still turn up.
//!
//! # Merged figures
//!
//! The session's live bytes are those of blocks whose bearer lives and still
//! has them. When a process ends while others live, what it held leaves the
//! merged figures at that instant; its sites' own counters stay as of its end,
//! so that "live at exit" can be told of each. What the last processes held
//! when they ended stays in the merged figures.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use leakline_recording::cohorts::TICK_NS;
use leakline_recording::record::{
    Bin, End, Limit, Limits, Note, Peak, Process as ProcessRecord, ProcessEnd, ProcessTotals,
    Record, Sampling,
};
use leakline_wire::layout::{SLOT_COUNT, Slot, TRIE_BLOCKS, mode, slot_state};
use leakline_wire::sampling::MAX_MEAN;
use leakline_wire::sync::Ordering;
use leakline_wire::trie::NODES_PER_BLOCK;

use self::graphs::Graphs;
use self::ledgers::Ledgers;
use crate::bins::{Bins, Due};
use crate::image::{ForkPoint, Image, MARKS, Shared, cohort_records};
use crate::limits::LimitReader;
use crate::names::LocalNames;
use crate::order::{Found, Rings};
use crate::output::Output;
use crate::process::{self, Identity};
use crate::protocol::{
    COMMAND_BYTES, Domains, MOST_PAUSE, NAME_BYTES, STATUS_PROCESSES, Snapshot, Status, Summary,
};
use crate::session;
use crate::steering::{Bounds, LEAST_MEAN, MOST_SHARE, Steering, Step, Taken};

mod graphs;
mod ledgers;

/// How often what is not urgent is looked after.
const CHORES_EVERY_NS: u64 = 100_000_000;
/// How often peaks are written.
const PEAKS_EVERY_NS: u64 = 10_000_000_000;
/// When a process's limits on memory are looked at again after it joined, ...
const FIRST_LIMITS_NS: u64 = 1_000_000_000;
/// ... and how often from then on.
const LIMITS_EVERY_NS: u64 = 60_000_000_000;
/// How long a fork waits for its child to turn up, and an ended process keeps
/// its slot for one.
const FORK_PATIENCE_NS: u64 = 10_000_000_000;
/// Most snapshots of a session.
const MOST_SNAPSHOTS: usize = 10_000;
/// Slots whose pages exist from the start.
const FIRST_SLOTS: u32 = 16;

/// A process that shook hands: its slot is claimed.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Its slot.
    pub(crate) slot: u32,
    /// Who it is.
    pub(crate) identity: Identity,
    /// Tells of its end.
    pub(crate) pidfd: Option<OwnedFd>,
    /// When it said hello.
    pub(crate) stamp: u64,
}

/// How a process ended, where known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) status: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) exec: bool,
}

/// A process that lives, or whose slot does.
#[derive(Debug)]
struct Process {
    image: Image,
    rings: Rings,
    slot: u32,
    identity: Identity,
    pidfd: Option<OwnedFd>,
    /// It was seen to be dead; the next round takes the rest of its events.
    ending: Option<Ending>,
    /// Its end was recorded; only its slot lives on, since this stamp.
    ended: Option<u64>,
    python_version: u32,
    reported: ProcessTotals,
    reported_peak: u64,
    /// What was told of its limits.
    limits: Vec<Limit>,
    /// When to look at them again.
    limits_ns: u64,
}

/// A forked process whose parent's stream has not passed the fork.
#[derive(Debug)]
struct Newborn {
    slot: u32,
    parent_slot: u32,
    fork: u32,
    identity: Identity,
    pidfd: Option<OwnedFd>,
    is_dead: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shared: Shared,
    pub(crate) output: Output,
    /// By id, which is also the order in which they are drained: parents
    /// before their children.
    processes: BTreeMap<u32, Process>,
    /// Ids of living processes by slot.
    by_slot: Vec<Option<u32>>,
    newborns: Vec<Newborn>,
    next_process: u32,
    /// Totals of processes that are gone.
    past: Summary,
    claims_seen: u32,
    slots_reserved: u32,
    bins: Bins,
    last_bin: (u64, u64),
    /// When the last bin ended that was told.
    told_ns: u64,
    /// Everything stamped before this, and published when that was noted, is
    /// handled; nothing else is.
    drained: u64,
    snapshots: Vec<String>,
    chores_ns: u64,
    peaks_ns: u64,
    session_peak_reported: u64,
    /// Most bytes the live tables may take.
    memory_limit: u64,
    is_full: bool,
    /// Where the mean between samples is left to it.
    pub(crate) steering: Option<Steering>,
    /// What part of the processor time samples may take, where the user said so.
    pub(crate) most_share: Option<f64>,
    /// See [`crate::protocol::Options::forking_filters`].
    pub(crate) forking_filters: u32,
    /// See [`crate::protocol::Options::most_pause`].
    pub(crate) most_pause: Duration,
    coarser: Option<Step>,
    graphs: Graphs,
    limits: LimitReader,
    ledgers: Ledgers,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    /// Chunks' worth of activity: events were handled.
    pub(crate) busy: bool,
    /// The recording was flushed.
    pub(crate) flushed: bool,
}

impl Engine {
    /// Begins the recording.
    pub(crate) fn new(shared: Shared, output: Output, memory_limit: u64) -> Self {
        let mut engine = Engine {
            shared,
            output,
            processes: BTreeMap::new(),
            by_slot: vec![None; SLOT_COUNT],
            newborns: Vec::new(),
            next_process: 0,
            past: Summary::default(),
            claims_seen: 0,
            slots_reserved: 0,
            bins: Bins::default(),
            last_bin: (0, 0),
            told_ns: 0,
            drained: 0,
            snapshots: Vec::new(),
            chores_ns: 0,
            peaks_ns: PEAKS_EVERY_NS,
            session_peak_reported: 0,
            memory_limit,
            is_full: false,
            steering: None,
            most_share: None,
            forking_filters: 0,
            most_pause: MOST_PAUSE,
            coarser: None,
            graphs: Graphs::default(),
            limits: LimitReader::new(),
            ledgers: Ledgers::default(),
        };
        engine.reserve_slots();
        engine.permit_newcomers();
        engine
    }

    fn now_ns(&self) -> u64 {
        self.shared.clock.ns(self.shared.clock.now())
    }

    /// Puts a sentence for the user into the recording.
    pub(crate) fn note(&mut self, text: String) {
        let at_ns = self.now_ns();
        self.output.push(Record::Note(Note { at_ns, text }));
    }

    /// Takes in a process that shook hands.
    pub(crate) fn join(&mut self, joined: Joined) {
        let same = self
            .processes
            .iter()
            .find(|(_, process)| {
                process.ended.is_none() && process.identity.pid == joined.identity.pid
            })
            .map(|(id, _)| *id);
        if let Some(old) = same {
            // One pid, one process: it went on as another program, or it
            // ended and its pid came round.
            let now = self.shared.clock.now();
            self.drain(now, true);
            let exec = self
                .processes
                .get(&old)
                .is_some_and(|process| process.identity.start_ticks == joined.identity.start_ticks);
            self.end(
                old,
                Ending {
                    exec,
                    ..Ending::default()
                },
                true,
            );
            self.add(
                joined.slot,
                joined.identity,
                joined.pidfd,
                joined.stamp,
                None,
                exec,
                None,
            );
            return;
        }
        let parent = self
            .processes
            .iter()
            .rev()
            .find(|(_, process)| process.identity.pid == joined.identity.parent_pid)
            .map(|(id, _)| *id);
        self.add(
            joined.slot,
            joined.identity,
            joined.pidfd,
            joined.stamp,
            parent,
            false,
            None,
        );
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a process's facts, from two callers"
    )]
    fn add(
        &mut self,
        slot_index: u32,
        identity: Identity,
        pidfd: Option<OwnedFd>,
        stamp: u64,
        parent: Option<u32>,
        exec: bool,
        fork: Option<(ForkPoint, LocalNames)>,
    ) {
        let session = self.shared.session.clone();
        let python_version = session
            .slot(slot_index)
            .map_or(0, |slot| slot.python_version.load(Ordering::Relaxed));
        let id = self.next_process;
        self.next_process += 1;
        let (inherited_blocks, inherited_bytes) =
            fork.as_ref().map_or((0, 0), |(point, _)| point.live());
        self.output.append(&mut self.shared.records);
        self.output.push(Record::Process(ProcessRecord {
            pid: identity.pid,
            start_ticks: identity.start_ticks,
            parent,
            parent_pid: identity.parent_pid,
            at_ns: self.shared.clock.ns(stamp),
            executable: identity.executable.clone(),
            command: identity.command.clone(),
            exec,
            python_version,
            inherited_blocks,
            inherited_bytes,
        }));
        // Of one that was forked no earlier than after a second: it may live for
        // a few milliseconds, and there may be thousands.
        let is_forked = fork.is_some();
        let limits_ns = self.shared.clock.ns(stamp) + FIRST_LIMITS_NS;
        let names = LocalNames::new(identity.pid, identity.executable.clone());
        let mut image = Image::new(id, slot_index, names);
        if let Some((point, names)) = fork {
            image.inherit(&point, names);
        }
        self.processes.insert(
            id,
            Process {
                image,
                rings: Rings::default(),
                slot: slot_index,
                identity,
                pidfd,
                ending: None,
                ended: None,
                python_version,
                reported: ProcessTotals::default(),
                reported_peak: 0,
                limits: Vec::new(),
                limits_ns,
            },
        );
        if !is_forked {
            self.tell_limits(id);
        }
        self.by_slot[slot_index as usize] = Some(id);
        self.permit_graph(slot_index);
        self.expect_ledger(id);
        self.past.processes += 1;
        self.reserve_slots();
    }

    /// Finds the slots that forked children have claimed.
    fn look_for_newborns(&mut self) {
        let session = self.shared.session.clone();
        // Acquire pairs with the children's Release.
        let claims = session.header().claims.load(Ordering::Acquire);
        if claims == self.claims_seen {
            return;
        }
        self.claims_seen = claims;
        for index in 0..SLOT_COUNT as u32 {
            let is_known = self.by_slot[index as usize].is_some()
                || self.newborns.iter().any(|newborn| newborn.slot == index);
            let Some(slot) = session.slot(index).filter(|_| !is_known) else {
                continue;
            };
            // Acquire pairs with the child's Release: its words are there.
            if slot.state.load(Ordering::Acquire) != slot_state::LIVE {
                continue;
            }
            let parent_slot = slot.parent_slot.load(Ordering::Relaxed);
            if parent_slot as usize >= SLOT_COUNT {
                // One that shook hands; its message is under way.
                continue;
            }
            let inside = slot.pid.load(Ordering::Relaxed);
            let parent = self.by_slot[parent_slot as usize]
                .and_then(|id| self.processes.get(&id))
                .map_or(0, |parent| parent.identity.pid);
            let pid = process::pid_of_child(inside, parent);
            let identity = match pid {
                Some(pid) => Identity::read(pid),
                None => Identity {
                    pid: inside,
                    ..Identity::default()
                },
            };
            self.newborns.push(Newborn {
                slot: index,
                parent_slot,
                fork: slot.fork_seq.load(Ordering::Relaxed),
                identity,
                pidfd: pid.and_then(process::watch),
                is_dead: pid.is_none(),
            });
        }
    }

    /// Starts those newborns whose parents' streams have passed the forks.
    /// True when one was started.
    fn start_newborns(&mut self) -> bool {
        let session = self.shared.session.clone();
        let waiting = std::mem::take(&mut self.newborns);
        let before = waiting.len();
        let drained = self.next_process;
        for newborn in waiting {
            // A parent that is itself a newborn, or was a moment ago, comes
            // first: its events were not drained yet.
            let parent_slot = newborn.parent_slot;
            let parent = self.by_slot.get(parent_slot as usize).copied().flatten();
            let comes_first = match parent {
                Some(id) => id >= drained,
                None => session.slot(parent_slot).is_some_and(is_live),
            };
            if comes_first {
                self.newborns.push(newborn);
                continue;
            }
            let Some(slot) = session.slot(newborn.slot) else {
                continue;
            };
            if slot.is_graph.load(Ordering::Relaxed) != 0 {
                self.start_teller(newborn, parent, slot);
                continue;
            }
            let stamp = slot.start_stamp.load(Ordering::Relaxed);
            let pid = newborn.identity.pid;
            let fork = parent.and_then(|id| {
                let parent = &mut self.processes.get_mut(&id)?.image;
                let point = parent.take_fork(&self.shared, newborn.fork, stamp)?;
                let names = parent.names.forked(
                    pid,
                    slot.inherited_modules.load(Ordering::Relaxed),
                    slot.inherited_codes.load(Ordering::Relaxed),
                );
                Some((point, names))
            });
            if fork.is_none() {
                self.note(format!(
                    "process {pid} was forked at an instant that was lost: \
                     what it inherited is not known"
                ));
            }
            self.add(
                newborn.slot,
                newborn.identity,
                newborn.pidfd,
                stamp,
                parent,
                false,
                fork,
            );
            if newborn.is_dead
                && let Some(id) = self.by_slot[newborn.slot as usize]
                && let Some(process) = self.processes.get_mut(&id)
            {
                process.ending = Some(Ending::default());
            }
        }
        self.newborns.len() < before
    }

    /// Handles everything that was published until now, bin by bin.
    pub(crate) fn round(&mut self) -> Round {
        let mut round = Round::default();
        self.look_for_newborns();
        let now = self.shared.clock.now();
        loop {
            let end = self.shared.clock.stamp(self.bins.end_ns());
            if end >= now {
                break;
            }
            let found = self.drain(end, false);
            round.busy |= found.any;
            let now_ns = self.shared.clock.ns(now);
            let end_ns = self.bins.end_ns();
            // With nothing left to come, the time until now is empty.
            let until = if found.more { end_ns } else { now_ns };
            let due = self.bins.due();
            if due == Due::Flush {
                let session = self.shared.session.clone();
                session::while_busy(&session, || {
                    self.close_bin(end_ns, true, self.bins.are_all_cohorts_due());
                    self.bins.completed(end_ns);
                    self.report_totals();
                    self.flush();
                });
                round.flushed = true;
            } else {
                let is_complete = due == Due::Complete;
                self.close_bin(end_ns, is_complete, is_complete);
                if is_complete {
                    self.bins.completed(end_ns);
                }
            }
            self.bins.go_on(until);
        }
        round.busy |= self.drain(now, true).any;
        // Peaks, and what a process left, may take a while to tell.
        let session = self.shared.session.clone();
        session::while_busy(&session, || {
            self.see_to_ledgers();
            self.bury();
            if self.now_ns() >= self.chores_ns {
                self.chores();
            }
            self.output.append(&mut self.shared.records);
        });
        round
    }

    /// Handles the events stamped before `limit`. `is_all`: there is nothing
    /// published before this call that is not.
    fn drain(&mut self, limit: u64, is_all: bool) -> Found {
        let session = self.shared.session.clone();
        // What is born belongs to the bin, whenever it is drained.
        let tick = self.bins.end_ns().saturating_sub(1) / TICK_NS;
        self.shared.tally.ticks.go_on(tick as u32);
        self.drained = limit;
        let mut found = Found::default();
        let mut from = 0;
        loop {
            for (_, process) in self.processes.range_mut(from..) {
                if process.ended.is_some() {
                    continue;
                }
                let Some(slot) = session.slot(process.slot) else {
                    continue;
                };
                let now = process.rings.drain(
                    &mut self.shared,
                    &mut process.image,
                    slot,
                    process.slot,
                    limit,
                );
                found.any |= now.any;
                found.more |= now.more;
            }
            from = self.next_process;
            // Children's events come after the forks that are now passed.
            if self.newborns.is_empty() {
                break;
            }
            if !is_all {
                found.more = true;
                break;
            }
            if !self.start_newborns() {
                break;
            }
        }
        found.any |= self.hear_tellers(limit);
        self.feed_pool();
        found
    }

    fn feed_pool(&mut self) {
        let (session, processes) = (&self.shared.session, &self.processes);
        let complaint = self.shared.pool.keep_fed(session, || {
            let held = processes.values().map(|process| {
                let nodes = session
                    .slot(process.slot)
                    .map_or(0, |slot| slot.trie_nodes.load(Ordering::Relaxed));
                let blocks = nodes.div_ceil(NODES_PER_BLOCK as u32);
                blocks.saturating_add(process.rings.open())
            });
            held.fold(0, u32::saturating_add)
        });
        if let Some(text) = complaint {
            self.note(text);
        }
    }

    /// Ends the bin now being filled, if there is anything to tell: a complete
    /// one tells of cohorts too, `all_cohorts` however much that is.
    fn close_bin(&mut self, end_ns: u64, complete: bool, all_cohorts: bool) {
        let tally = &mut self.shared.tally;
        let tick = tally.ticks.now;
        let cohorts = if complete {
            tally.cohorts(all_cohorts)
        } else {
            Vec::new()
        };
        let points = tally.points(complete);
        let live = (
            self.shared.tally.session.live_bytes,
            self.shared.tally.session.live_blocks,
        );
        let max_bytes = std::mem::replace(&mut self.shared.tally.bin_max, live.0);
        let is_still = points.is_empty() && live == self.last_bin && max_bytes <= live.0;
        if is_still && cohorts.is_empty() {
            return;
        }
        self.last_bin = live;
        self.told_ns = end_ns;
        // Reading it takes some microseconds a process.
        let rss = if complete || end_ns >= self.chores_ns {
            self.rss()
        } else {
            Vec::new()
        };
        self.output.append(&mut self.shared.records);
        self.output.push(Record::Bin(Bin {
            end_ns,
            live_bytes: live.0,
            live_blocks: live.1,
            max_bytes: max_bytes.max(live.0),
            rss,
            points,
            complete,
        }));
        if all_cohorts || !cohorts.is_empty() {
            self.output
                .extend(cohort_records(end_ns, tick, false, cohorts));
        }
        self.bins.written();
    }

    /// Resident bytes of the processes that live, by id.
    fn rss(&self) -> Vec<(u32, u64)> {
        self.processes
            .iter()
            .filter(|(_, process)| process.ended.is_none())
            .filter_map(|(id, process)| Some((*id, process::rss_bytes(process.identity.pid)?)))
            .collect()
    }

    /// Keeps this instant under a name: everything that was published by now is
    /// in what it tells, and nothing that comes later.
    ///
    /// # Errors
    ///
    /// The name will not do: why, in words for who gave it.
    pub(crate) fn snapshot(&mut self, name: &str) -> Result<Snapshot, String> {
        self.check_name(name)?;
        self.round();
        // What a round ends with may be a little beyond its bin, and what was
        // told of a bin that ended stands.
        let at_ns = self.shared.clock.ns(self.drained);
        let at_ns = at_ns.min(self.bins.end_ns()).max(self.told_ns);
        let rss = self.rss();
        self.shared.mark(name, at_ns, None, rss);
        self.told_ns = at_ns;
        self.output.append(&mut self.shared.records);
        self.snapshots.push(name.to_owned());
        self.want_ledgers(name, at_ns);
        let session = &self.shared.tally.session;
        Ok(Snapshot {
            recording: None,
            started_unix_ns: self.shared.clock.started_unix_ns(),
            at_ns,
            live_bytes: session.live_bytes,
            live_blocks: session.live_blocks,
            processes: self.living(),
            is_sampled: self.is_sampled(),
        })
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        let why = if name.trim().is_empty() {
            "a snapshot needs a name"
        } else if name.len() > NAME_BYTES {
            "its name is too long: 64 bytes are the most"
        } else if name.trim() != name || name.chars().any(char::is_control) {
            "its name has characters that are not printable, or spaces at an end"
        } else if MARKS.contains(&name) {
            "leakline marks an instant of its own by that name"
        } else if self.snapshots.iter().any(|known| known == name) {
            "there is one of that name already"
        } else if self.snapshots.len() >= MOST_SNAPSHOTS {
            "the recording has 10,000 snapshots, and no room for more"
        } else {
            return Ok(());
        };
        Err(why.to_owned())
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.mode() & mode::SAMPLED != 0
    }

    fn mode(&self) -> u32 {
        self.shared.session.header().mode.load(Ordering::Relaxed)
    }

    /// What is being recorded, in a session of this kind.
    pub(crate) fn status(&self, attached: bool) -> Status {
        let header = self.shared.session.header();
        let is_sampled = self.is_sampled();
        let mut pids = self.pids();
        pids.truncate(STATUS_PROCESSES);
        let mut room = COMMAND_BYTES / 2;
        let names = self.snapshots.iter().take_while(|name| {
            room = room.saturating_sub(name.len() + 8);
            room > 0
        });
        Status {
            recording: self.recording(),
            attached,
            mode: if is_sampled { "sampled" } else { "exact" }.to_owned(),
            sample_bytes: if is_sampled {
                header.sample_mean.load(Ordering::Relaxed)
            } else {
                0
            },
            begun_with: Domains {
                native: self.mode() & mode::NATIVE != 0,
                python: self.mode() & mode::PYTHON != 0,
            },
            domains: self.domains(),
            is_on: self.mode() & mode::ON != 0,
            started_unix_ns: self.shared.clock.started_unix_ns(),
            at_ns: self.now_ns(),
            pids,
            snapshots: names.cloned().collect(),
            summary: self.summary(),
        }
    }

    /// The recording's path.
    pub(crate) fn recording(&self) -> Option<Vec<u8>> {
        let path = self.output.path()?;
        Some(path.into_os_string().into_vec())
    }

    fn report_totals(&mut self) {
        let session = self.shared.session.clone();
        self.output.append(&mut self.shared.records);
        for process in self
            .processes
            .values_mut()
            .filter(|process| process.ended.is_none())
        {
            let totals = process.image.current_totals(session.slot(process.slot));
            if totals != process.reported {
                process.reported = totals;
                self.output.push(Record::Totals(totals));
            }
        }
        let mut records = self.shared.tally.changed_totals();
        self.output.append(&mut records);
        self.output.extend(self.shared.weights.scatter(false));
    }

    fn report_peaks(&mut self) {
        // The sites that they name come first.
        self.output.append(&mut self.shared.records);
        let clock = &self.shared.clock;
        let several = self.next_process > 1;
        for (id, process) in &mut self.processes {
            let scope = &process.image.scope;
            // Of a session's only process: the session's peak is its.
            if !several || process.ended.is_some() || scope.peak_bytes == process.reported_peak {
                continue;
            }
            process.reported_peak = scope.peak_bytes;
            self.output.push(Record::Peak(Peak {
                process: Some(*id),
                at_ns: clock.ns(scope.peak_stamp),
                live_bytes: scope.peak_bytes,
                live_blocks: scope.peak_blocks,
                sites: process.image.peak_sites(&self.shared.tally),
            }));
            if let Some(record) = process.image.changed_inherited() {
                self.output.push(record);
            }
        }
        let scope = &self.shared.tally.session;
        if scope.peak_bytes != self.session_peak_reported {
            self.session_peak_reported = scope.peak_bytes;
            self.output.push(Record::Peak(Peak {
                process: None,
                at_ns: clock.ns(scope.peak_stamp),
                live_bytes: scope.peak_bytes,
                live_blocks: scope.peak_blocks,
                sites: self.shared.tally.session_peak(),
            }));
        }
    }

    /// Has everything so far in the file.
    pub(crate) fn flush(&mut self) {
        self.output.append(&mut self.shared.records);
        if self.output.flush() {
            let reason = self.output.error().unwrap_or_default().to_owned();
            self.note(format!(
                "the recording could not be written for some time: {reason}"
            ));
        }
        if let Some(text) = self.output.take_note() {
            self.note(text);
        }
    }

    /// What is not urgent.
    fn chores(&mut self) {
        let now_ns = self.now_ns();
        self.chores_ns = now_ns + CHORES_EVERY_NS;
        self.shared.clock.calibrate();
        let session = self.shared.session.clone();
        for (id, process) in &mut self.processes {
            let Some(slot) = session.slot(process.slot) else {
                continue;
            };
            let version = slot.python_version.load(Ordering::Relaxed);
            if version != process.python_version && process.ended.is_none() {
                process.python_version = version;
                self.output.set_python_version(*id, version);
            }
            let patience = self
                .shared
                .clock
                .stamp(now_ns.saturating_sub(FORK_PATIENCE_NS));
            process.image.expire_forks(patience);
        }
        self.steer();
        self.look_at_limits(now_ns);
        self.see_to_graphs();
        self.note_vanished();
        self.release_slots();
        if now_ns >= self.peaks_ns {
            self.peaks_ns = now_ns + PEAKS_EVERY_NS;
            self.report_peaks();
        }
        self.check_memory();
    }

    /// Looks at what limits processes' memory, of each once a minute.
    fn look_at_limits(&mut self, now_ns: u64) {
        let living = self.processes.iter_mut().filter(|(_, process)| {
            process.ended.is_none() && process.ending.is_none() && now_ns >= process.limits_ns
        });
        let due = living.map(|(id, process)| {
            process.limits_ns = now_ns + LIMITS_EVERY_NS;
            *id
        });
        for id in due.collect::<Vec<u32>>() {
            self.tell_limits(id);
        }
    }

    /// Tells what limits a process's memory, where that is news.
    fn tell_limits(&mut self, id: u32) {
        let at_ns = self.now_ns();
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let found = self.limits.read(process.identity.pid);
        let is_known = found.limits.len() == process.limits.len()
            && found.limits.iter().zip(&process.limits).all(|(new, old)| {
                // What is taken in between follows from resident memory.
                let moved = new.used_bytes.abs_diff(old.used_bytes);
                (new.of, new.bytes) == (old.of, old.bytes) && moved <= new.bytes / 64
            });
        if is_known {
            return;
        }
        process.limits.clone_from(&found.limits);
        self.output.push(Record::Limits(Limits {
            process: id,
            at_ns,
            rss_bytes: found.rss_bytes,
            limits: found.limits,
        }));
    }

    /// Decides on the mean between samples, where it may.
    fn steer(&mut self) {
        let Some(steering) = &mut self.steering else {
            return;
        };
        let session = self.shared.session.clone();
        let clock = &self.shared.clock;
        let living = self.processes.iter().filter(|(_, one)| one.ended.is_none());
        let taken = living.filter_map(|(id, process)| {
            let slot = session.slot(process.slot)?;
            let taken = Taken {
                sampling_ns: clock.span_ns(slot.sampling_ticks.load(Ordering::Relaxed)),
                left_out: slot.left_out.load(Ordering::Relaxed),
                cpu_ns: process::cpu_ns(process.identity.pid)?,
            };
            Some((*id, taken))
        });
        let taken = taken.collect();
        if let Some(step) = steering.decide(taken) {
            self.set_mean(step.mean);
            if step.is_up {
                self.coarser = Some(step);
            }
        }
    }

    fn set_mean(&mut self, mean_bytes: u64) {
        let header = self.shared.session.header();
        header.sample_mean.store(mean_bytes, Ordering::Relaxed);
        let at_ns = self.now_ns();
        self.output
            .push(Record::Sampling(Sampling { at_ns, mean_bytes }));
    }

    /// Has every block recorded from now on.
    ///
    /// # Errors
    ///
    /// It cannot be: why.
    pub(crate) fn record_all(&mut self) -> Result<(), String> {
        self.check_on()?;
        if self.is_sampled() {
            self.round();
            self.steering = None;
            let mode = &self.shared.session.header().mode;
            mode.fetch_and(!mode::SAMPLED, Ordering::Relaxed);
            let at_ns = self.now_ns();
            self.output.push(Record::Sampling(Sampling {
                at_ns,
                mean_bytes: 0,
            }));
        }
        Ok(())
    }

    /// Has blocks sampled from now on, or at another mean.
    ///
    /// # Errors
    ///
    /// As for [`Engine::record_all`].
    pub(crate) fn sample(&mut self, mean_bytes: u64, auto: bool) -> Result<(), String> {
        self.check_on()?;
        if self.mode() & mode::OBJECTS != 0 {
            return Err("`run --objects` is of every object, and of no sample".into());
        }
        if !(1..=MAX_MEAN).contains(&mean_bytes) {
            return Err("no such mean".into());
        }
        self.round();
        let least_mean = if auto { LEAST_MEAN } else { mean_bytes };
        let most_share = self.most_share.or(auto.then_some(MOST_SHARE));
        let bounds = most_share.map(|most_share| Bounds {
            least_mean,
            most_share,
        });
        self.steering = bounds.map(|bounds| Steering::new(bounds, mean_bytes));
        self.set_mean(mean_bytes);
        let mode = &self.shared.session.header().mode;
        mode.fetch_or(mode::SAMPLED, Ordering::Relaxed);
        Ok(())
    }

    /// Has new blocks of these domains recorded from now on, of those that the
    /// session was begun with. The deaths of all that were recorded are.
    ///
    /// # Errors
    ///
    /// As for [`Engine::record_all`].
    pub(crate) fn record_domains(&mut self, wanted: Domains) -> Result<(), String> {
        self.check_on()?;
        let Domains { native, python } = wanted;
        let has = |bit: u32| self.mode() & bit != 0;
        if native && !has(mode::NATIVE) || python && !has(mode::PYTHON) {
            let what = if python { "Python's" } else { "native" };
            return Err(format!("the recording was begun without {what} blocks"));
        }
        if has(mode::OBJECTS) && !python {
            return Err("`run --objects` is of every object".into());
        }
        if !native && !python {
            return Err("nothing would be recorded".into());
        }
        if wanted == self.domains() {
            return Ok(());
        }
        self.round();
        let off = |is_wanted: bool, bit: u32| if is_wanted { 0 } else { bit };
        let left_out = off(native, mode::NO_NATIVE_BIRTHS) | off(python, mode::NO_PYTHON_BIRTHS);
        let word = &self.shared.session.header().mode;
        // One bit after the other: nobody else changes these.
        word.fetch_or(left_out, Ordering::Relaxed);
        word.fetch_and(
            !(mode::NO_NATIVE_BIRTHS | mode::NO_PYTHON_BIRTHS) | left_out,
            Ordering::Relaxed,
        );
        let at = Duration::from_nanos(self.now_ns()).as_secs_f64();
        self.note(match (native, python) {
            (true, true) => format!("blocks of all domains are recorded again from +{at:.1} s on"),
            (true, false) => format!("Python's new blocks are not recorded from +{at:.1} s on"),
            (false, _) => format!("native new blocks are not recorded from +{at:.1} s on"),
        });
        Ok(())
    }

    /// Whose new blocks are recorded now.
    fn domains(&self) -> Domains {
        let mode = self.mode();
        Domains {
            native: mode & (mode::NATIVE | mode::NO_NATIVE_BIRTHS) == mode::NATIVE,
            python: mode & (mode::PYTHON | mode::NO_PYTHON_BIRTHS) == mode::PYTHON,
        }
    }

    fn check_on(&self) -> Result<(), String> {
        if self.mode() & mode::ON == 0 {
            return Err("nothing is recorded any more".into());
        }
        Ok(())
    }

    /// The last step to a larger mean that was not told of.
    pub(crate) fn take_coarser(&mut self) -> Option<Step> {
        self.coarser.take()
    }

    /// Looks whether those processes are still there of which no descriptor
    /// tells: they were gone before one could be had.
    pub(crate) fn note_vanished(&mut self) {
        for process in self.processes.values_mut() {
            if process.pidfd.is_none()
                && process.ended.is_none()
                && !process.identity.is_still_there()
            {
                process.ending.get_or_insert_default();
            }
        }
        for newborn in &mut self.newborns {
            newborn.is_dead |= newborn.pidfd.is_none() && !newborn.identity.is_still_there();
        }
    }

    fn check_memory(&mut self) {
        // All of it: tables, names, what waits to be written, compaction.
        let tables: usize = self
            .processes
            .values()
            .map(|process| process.image.table_bytes())
            .sum();
        let bytes = (tables as u64).max(process::rss_bytes(std::process::id()).unwrap_or(0));
        if bytes > self.memory_limit && !self.is_full {
            self.is_full = true;
            // From here on the hooks pass through; what was published is
            // still drained.
            self.switch_off();
            self.note(format!(
                "recording stopped here: leakline's tables take {} MiB, and memory is \
                 nearly used up",
                bytes >> 20
            ));
        }
    }

    /// Tells all hooks to pass through from now on.
    pub(crate) fn switch_off(&self) {
        self.shared
            .session
            .header()
            .mode
            .fetch_and(!mode::ON, Ordering::Relaxed);
    }

    fn reserve_slots(&mut self) {
        let used = self
            .by_slot
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |at| at as u32 + 1);
        let wanted = (used * 2).max(FIRST_SLOTS).min(SLOT_COUNT as u32);
        while self.slots_reserved < wanted {
            if let Err(error) = self.shared.session.reserve_slot(self.slots_reserved) {
                self.slots_reserved = SLOT_COUNT as u32;
                self.note(format!("{error}; more processes may not fit"));
                return;
            }
            self.slots_reserved += 1;
        }
    }

    /// What tells of processes' ends, to wait on; but for those with pid
    /// `but`.
    pub(crate) fn pidfds(&self, but: u32) -> Vec<(u32, BorrowedFd<'_>)> {
        self.processes
            .iter()
            .filter(|(_, process)| process.ended.is_none() && process.ending.is_none())
            .filter(|(_, process)| process.identity.pid != but)
            .filter_map(|(id, process)| Some((*id, process.pidfd.as_ref()?.as_fd())))
            .collect()
    }

    /// A process is dead: the next round takes the rest of its events.
    pub(crate) fn died(&mut self, process: u32, ending: Ending) {
        if let Some(process) = self.processes.get_mut(&process) {
            process.ending.get_or_insert(ending);
        }
    }

    /// All processes with this pid are dead.
    pub(crate) fn pid_died(&mut self, pid: u32, ending: Ending) {
        for process in self.processes.values_mut() {
            if process.identity.pid == pid && process.ended.is_none() {
                // How it ended is known better here than from its pidfd.
                process.ending = Some(ending);
            }
        }
        for newborn in &mut self.newborns {
            newborn.is_dead |= newborn.identity.pid == pid;
        }
    }

    /// Whether a fork was seen, within the last tenth of a second, whose
    /// child has not turned up yet.
    pub(crate) fn expects_newborns(&self) -> bool {
        let since_ns = self.now_ns().saturating_sub(100_000_000);
        let since = self.shared.clock.stamp(since_ns);
        let forks = self
            .processes
            .values()
            .flat_map(|process| &process.image.forks);
        forks.into_iter().any(|fork| fork.stamp >= since)
    }

    /// Processes that left the session are done with: what they had published
    /// before is taken by the next round. Gives the pids of those that were not
    /// known to have left.
    pub(crate) fn note_left(&mut self) -> Vec<u32> {
        let mut pids = Vec::new();
        for process in self.processes.values_mut() {
            let slot = self.shared.session.slot(process.slot);
            // Acquire pairs with the Release of who left.
            let has_left = slot.is_some_and(|slot| slot.left.load(Ordering::Acquire) != 0);
            if has_left && process.ended.is_none() && process.ending.is_none() {
                process.ending = Some(Ending::default());
                pids.push(process.identity.pid);
            }
        }
        pids
    }

    /// Has every process leave (those that were running before they joined; to
    /// others it means that nothing is recorded any more).
    pub(crate) fn have_all_leave(&self) {
        let mode = &self.shared.session.header().mode;
        mode.fetch_or(mode::LEAVE, Ordering::Relaxed);
        mode.fetch_and(!mode::ON, Ordering::Relaxed);
    }

    /// Pids of those that live.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes
            .values()
            .filter(|process| process.ended.is_none() && process.ending.is_none())
            .map(|process| process.identity.pid)
            .collect()
    }

    /// Whether any process ever joined.
    pub(crate) fn has_joined(&self) -> bool {
        self.past.processes > 0
    }

    /// Processes that live, newborns too.
    pub(crate) fn living(&self) -> u32 {
        let processes = self
            .processes
            .values()
            .filter(|p| p.ended.is_none() && p.ending.is_none())
            .count();
        let newborns = self
            .newborns
            .iter()
            .filter(|newborn| !newborn.is_dead)
            .count();
        (processes + newborns) as u32
    }

    /// Ends the processes that were dead before the last full drain.
    fn bury(&mut self) {
        let dead: Vec<(u32, Ending)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.ended.is_none())
            .filter_map(|(id, process)| Some((*id, process.ending?)))
            .collect();
        if dead.is_empty() {
            return;
        }
        // They may have written after this round's clock reading.
        let now = self.shared.clock.now();
        self.drain(now, true);
        let last = dead.len() as u32 == self.unended() && self.newborns.is_empty();
        for (id, ending) in dead {
            self.end(id, ending, !last);
        }
    }

    /// Its processes were running before: blocks of theirs are not known.
    pub(crate) fn is_attached(&mut self, is_attached: bool) {
        self.graphs.is_attached = is_attached;
        self.ledgers.is_attached = is_attached;
    }

    /// Whether nobody is left to hear of.
    pub(crate) fn is_deserted(&self) -> bool {
        self.living() == 0 && !self.is_told_of_heaps()
    }

    /// Ends the account of all processes, dead or not: the session is over.
    pub(crate) fn end_all(&mut self) {
        let now = self.shared.clock.now();
        self.drain(now, true);
        self.end_tellers();
        let all: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, process)| process.ended.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in all {
            self.end(id, Ending::default(), false);
        }
    }

    fn unended(&self) -> u32 {
        self.processes
            .values()
            .filter(|process| process.ended.is_none())
            .count() as u32
    }

    /// Records the end of a process, whose events were all handled.
    fn end(&mut self, id: u32, ending: Ending, others_live: bool) {
        let session = self.shared.session.clone();
        let now = self.shared.clock.now();
        let at_ns = self.shared.clock.ns(now);
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        process.ended = Some(now);
        process.pidfd = None;
        let slot = session.slot(process.slot);
        if let Some(slot) = slot {
            // All the rest, should another CPU's clock be a little ahead.
            process.rings.drain(
                &mut self.shared,
                &mut process.image,
                slot,
                process.slot,
                u64::MAX,
            );
            self.output
                .set_python_version(id, slot.python_version.load(Ordering::Relaxed));
        }
        process.rings.close(&mut self.shared);
        self.output.append(&mut self.shared.records);
        let unverified = process.image.unverified_blocks(&self.shared.weights);
        if unverified > 0 {
            self.output.push(Record::Note(Note {
                at_ns,
                text: format!(
                    "{unverified} blocks of process {} were born before events were lost \
                     and may have been freed since",
                    process.identity.pid
                ),
            }));
        }
        let totals = process.image.current_totals(slot);
        self.output.push(Record::Totals(totals));
        if let Some(record) = process.image.changed_inherited() {
            self.output.push(record);
        }
        let scope = process.image.scope.clone();
        self.output.push(Record::Peak(Peak {
            process: Some(id),
            at_ns: self.shared.clock.ns(scope.peak_stamp),
            live_bytes: scope.peak_bytes,
            live_blocks: scope.peak_blocks,
            sites: process.image.peak_sites(&self.shared.tally),
        }));
        self.output.push(Record::ProcessEnd(ProcessEnd {
            process: id,
            at_ns,
            exit_status: ending.status,
            signal: ending.signal,
            exec: ending.exec,
        }));
        if others_live {
            let own = std::mem::take(&mut process.image.own_sites);
            self.shared.tally.retire(&own, now);
            process.image.own_sites = own;
        }
        process.image.forget_blocks();
        self.past.allocations += totals.allocations;
        self.past.lost_events += totals.lost_events;
        self.release_slots();
    }

    /// Frees the slots of ended processes of whom no child can turn up any
    /// more, with the trie blocks that no other process reads.
    fn release_slots(&mut self) {
        let session = self.shared.session.clone();
        // A child that is setting itself up: its directory is not whole.
        let is_any_unknown = (0..SLOT_COUNT as u32).any(|index| {
            self.by_slot[index as usize].is_none()
                && session
                    .slot(index)
                    .is_some_and(|slot| slot.state.load(Ordering::Relaxed) != slot_state::FREE)
        });
        let now_ns = self.now_ns();
        let patience = self
            .shared
            .clock
            .stamp(now_ns.saturating_sub(FORK_PATIENCE_NS));
        let free: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, process)| {
                process.ended.is_some_and(|ended| {
                    ended < patience || process.image.forks.is_empty() && !is_any_unknown
                })
            })
            .map(|(id, _)| *id)
            .collect();
        for id in free {
            if let Some(process) = self.processes.remove(&id) {
                self.by_slot[process.slot as usize] = None;
                self.release_slot(process.slot);
            }
        }
    }

    fn release_slot(&mut self, index: u32) {
        let session = self.shared.session.clone();
        let Some(slot) = session.slot(index) else {
            return;
        };
        let others: Vec<&Slot> = (0..SLOT_COUNT as u32)
            .filter(|other| *other != index)
            .filter_map(|other| session.slot(other))
            .filter(|other| other.state.load(Ordering::Acquire) != slot_state::FREE)
            .collect();
        // An inherited block stands at the same place in every directory.
        for at in 0..TRIE_BLOCKS {
            let block = slot.trie[at].swap(0, Ordering::Relaxed);
            if let Some(chunk) = block.checked_sub(1)
                && !others
                    .iter()
                    .any(|other| other.trie[at].load(Ordering::Relaxed) == block)
            {
                self.shared.pool.give_back_block(&session, chunk);
            }
        }
        // Release pairs with the claimer's Acquire: the directory is empty.
        slot.state.store(slot_state::FREE, Ordering::Release);
    }

    /// Writes everything that is known now.
    pub(crate) fn settle(&mut self) {
        let end_ns = self.now_ns();
        self.close_bin(end_ns, true, true);
        self.bins.completed(end_ns);
        self.bins.go_on(end_ns);
        self.report_totals();
        self.report_peaks();
        self.output.extend(self.shared.weights.scatter(true));
        self.flush();
    }

    /// Ends the recording.
    pub(crate) fn finish(&mut self, reason: &str) {
        let at_ns = self.now_ns();
        self.output.append(&mut self.shared.records);
        self.note_missed_graphs();
        let turned_away = self
            .shared
            .session
            .header()
            .turned_away
            .load(Ordering::Relaxed);
        if turned_away > 0 {
            self.note(format!(
                "{turned_away} forked processes were not recorded: \
                 a session holds {SLOT_COUNT} at a time"
            ));
        }
        let unanswered = self.shared.session.unanswered();
        if unanswered > 0 {
            let processes = if unanswered == 1 {
                "process was"
            } else {
                "processes were"
            };
            self.note(format!(
                "{unanswered} {processes} not recorded: the collector did not answer in time"
            ));
        }
        let missed = self
            .shared
            .session
            .header()
            .missed_ends
            .load(Ordering::Relaxed);
        if missed > 0 {
            let processes = if missed == 1 { "process" } else { "processes" };
            self.note(format!(
                "{missed} {processes} without Python were not looked at for lost blocks at the \
                 end: others were being looked at, or memory was short"
            ));
        }
        let dropped = self.output.dropped();
        if dropped > 0 {
            self.note(format!(
                "{dropped} records were dropped: the file could not be written"
            ));
        }
        self.output.push(Record::End(End {
            at_ns,
            reason: reason.to_owned(),
        }));
        self.flush();
    }

    /// What was recorded so far.
    pub(crate) fn summary(&self) -> Summary {
        let scope = &self.shared.tally.session;
        let mut summary = Summary {
            still_running: self.living(),
            peak_bytes: scope.peak_bytes,
            peak_at_ns: self.shared.clock.ns(scope.peak_stamp),
            live_bytes: scope.live_bytes,
            live_blocks: scope.live_blocks,
            file_bytes: self.output.bytes(),
            unanswered: self.shared.session.unanswered(),
            write_error: self.output.error().map(str::to_owned),
            ..self.past.clone()
        };
        for process in self
            .processes
            .values()
            .filter(|process| process.ended.is_none())
        {
            let totals = process
                .image
                .current_totals(self.shared.session.slot(process.slot));
            summary.allocations += totals.allocations;
            summary.lost_events += totals.lost_events;
        }
        summary
    }
}

fn is_live(slot: &Slot) -> bool {
    slot.state.load(Ordering::Acquire) == slot_state::LIVE
}

#[cfg(test)]
mod tests;
