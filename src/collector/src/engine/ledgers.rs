//! When processes' memory is looked at: what of it belongs to whom, and which pages live
//! blocks keep.
//!
//! Each process is looked at when it has been there for a moment, then at intervals that grow
//! with its age up to a minute, at snapshots, and at the end. The end of a program cannot
//! be had from outside: it is looked at when its main thread has left `__main__`, or it
//! begins to exit, and what was found is thrown away if blocks went meanwhile. Then the
//! last look before stands.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use leakline_recording::record::{Inventory, Ledger, Record};
use leakline_wire::layout::mode;

use super::Engine;
use crate::image::Frozen;
use crate::ledgers::{Budget, Done, LedgerReader, Order, Worker};
use crate::process::{self, Identity};

/// How long after it joined a process is first looked at, if it began with the recording,
/// and if it was there before.
const FIRST_NS: u64 = 1_000_000_000;
const FIRST_ATTACHED_NS: u64 = 50_000_000;
/// Sessions that are shorter (a test's) have no look at their end: it would take longer
/// than they do.
const LEAST_SESSION_NS: u64 = 1_000_000_000;
/// The least and the most between two looks.
const LEAST_NS: u64 = 1_000_000_000;
const MOST_NS: u64 = 60_000_000_000;
/// The interval is this part of the process's age.
const PART_OF_AGE: u64 = 8;
/// A snapshot's look that has to wait for longer says nothing of its instant.
const NAMED_PATIENCE_NS: u64 = 5_000_000_000;
/// How long the end waits for looks that are under way.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// What memory a list of what lives takes at most, by far, and a heap graph beside: one in
/// so many of the process's bytes.
const LIST_BYTES: u64 = 32 << 20;
const GRAPH_PART: u64 = 2;
/// What may change while the end is looked at, or go while pages are counted: bytes, or
/// one in so many.
const CHANGE_BYTES: u64 = 256 << 10;
const CHANGE_PART: u64 = 50;

/// See the module.
#[derive(Debug)]
pub(super) struct Ledgers {
    worker: Option<Worker>,
    budget: Budget,
    /// Processes that are due, and when.
    due: BTreeMap<u32, Due>,
    /// Looks that somebody asked for.
    wanted: VecDeque<Wanted>,
    /// Lists of what lives, by type, that are wanted; they cost more, and are paid for
    /// apart: ledgers shall not have to wait for it.
    lists: VecDeque<Wanted>,
    lists_budget: Budget,
    /// The first looks at processes that were there before, which nobody was told of yet.
    looked: Vec<(u32, Ledger)>,
    /// Lists of what was there when the session began, which nobody was told of yet.
    found: Vec<(u32, Inventory)>,
    /// The session's processes were running before it began.
    pub(super) is_attached: bool,
    /// Blocks were sampled: which pages they lie in is not known.
    was_sampled: bool,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    joined_ns: u64,
    at_ns: u64,
    was_looked_at: bool,
}

#[derive(Debug)]
struct Wanted {
    process: u32,
    name: String,
    since_ns: u64,
}

impl Default for Ledgers {
    fn default() -> Self {
        Ledgers {
            worker: None,
            budget: Budget::new(),
            due: BTreeMap::new(),
            wanted: VecDeque::new(),
            lists: VecDeque::new(),
            lists_budget: Budget::new(),
            looked: Vec::new(),
            found: Vec::new(),
            is_attached: false,
            was_sampled: false,
        }
    }
}

impl Engine {
    /// Has processes' memory looked at by what `reader` makes.
    pub(crate) fn keep_ledgers(&mut self, reader: fn() -> LedgerReader) {
        self.ledgers.worker = Worker::start(reader);
        if self.ledgers.worker.is_none() {
            self.note("there is no thread for ledgers of processes' memory".into());
        }
    }

    /// Looks after them: to be called with each round, after its events were handled.
    pub(super) fn see_to_ledgers(&mut self) {
        if self.ledgers.worker.is_none() {
            return;
        }
        self.ledgers.was_sampled |= self.mode() & mode::SAMPLED != 0;
        self.take_ledgers(None);
        self.see_to_outside();
        self.look_at_those_that_left();
        let is_busy = |engine: &Self| engine.ledgers.worker.as_ref().is_none_or(Worker::is_busy);
        if is_busy(self) {
            return;
        }
        if !self.have_next_looked_at() {
            self.have_next_listed();
        }
    }

    /// Has somebody looked at whose turn it is. False: nobody's.
    fn have_next_looked_at(&mut self) -> bool {
        let now_ns = self.now_ns();
        if !self.ledgers.budget.allows(now_ns) {
            return false;
        }
        while let Some(wanted) = self.ledgers.wanted.pop_front() {
            if now_ns.saturating_sub(wanted.since_ns) > NAMED_PATIENCE_NS {
                if let Some(process) = self.processes.get(&wanted.process) {
                    self.note(format!(
                        "process {} has no ledger of its memory at `{}`: its turn came too late",
                        process.identity.pid, wanted.name
                    ));
                }
            } else if self.look_at(wanted.process, &wanted.name, None) {
                return true;
            }
        }
        if self.mode() & mode::ON == 0 {
            return false;
        }
        let next = self.ledgers.due.iter().min_by_key(|(_, due)| due.at_ns);
        if let Some((&process, due)) = next
            && due.at_ns <= now_ns
        {
            let (due, is_first) = (*due, !due.was_looked_at);
            if self.look_at(process, if is_first { "start" } else { "" }, None) {
                // Of a program that began with the recording every block is known.
                if is_first && self.ledgers.is_attached {
                    self.want_list(process, "start");
                }
                let age_ns = now_ns.saturating_sub(due.joined_ns);
                let interval_ns = (age_ns / PART_OF_AGE).clamp(LEAST_NS, MOST_NS);
                let next = Due {
                    at_ns: now_ns + interval_ns,
                    was_looked_at: true,
                    ..due
                };
                self.ledgers.due.insert(process, next);
                return true;
            }
            self.ledgers.due.remove(&process);
        }
        false
    }

    /// Whether somebody is there who looks at memory.
    pub(super) fn may_look(&self) -> bool {
        self.ledgers.worker.is_some()
    }

    /// Whether a look is under way.
    pub(super) fn is_looking(&self) -> bool {
        self.ledgers.worker.as_ref().is_some_and(Worker::is_busy)
    }

    /// Has a heap graph of a process read.
    ///
    /// # Errors
    ///
    /// It cannot be: why.
    pub(super) fn read_heap(
        &mut self,
        process: u32,
        number: u32,
        parts: SyncSender<Vec<u8>>,
    ) -> Result<(), String> {
        let found = self.processes.get(&process);
        let Some(found) = found.filter(|found| found.ended.is_none()) else {
            return Err("it has ended".into());
        };
        let rss = process::rss_bytes(found.identity.pid).unwrap_or(0);
        if let Some(why) = self.lacks_own_memory(LIST_BYTES + rss / GRAPH_PART) {
            return Err(why);
        }
        let Some(worker) = &mut self.ledgers.worker else {
            return Err("nobody is there to read it".into());
        };
        worker.order(Order::Heap {
            pid: found.identity.pid,
            start_ticks: found.identity.start_ticks,
            number,
            parts,
        });
        Ok(())
    }

    fn want_list(&mut self, process: u32, name: &str) {
        if self.mode() & mode::PYTHON != 0 {
            self.ledgers.lists.push_back(Wanted {
                process,
                name: name.to_owned(),
                since_ns: self.now_ns(),
            });
        }
    }

    fn have_next_listed(&mut self) {
        let now_ns = self.now_ns();
        if !self.ledgers.lists_budget.allows(now_ns) {
            return;
        }
        while let Some(wanted) = self.ledgers.lists.pop_front() {
            let is_late = now_ns.saturating_sub(wanted.since_ns) > NAMED_PATIENCE_NS;
            // That of the start says when it was taken, and is worth having later, too.
            if is_late && wanted.name != "start" {
                if let Some(process) = self.processes.get(&wanted.process) {
                    self.note(format!(
                        "what lived in process {} at `{}` was not listed: its turn came too late",
                        process.identity.pid, wanted.name
                    ));
                }
            } else if self.list(wanted.process, &wanted.name) {
                return;
            }
        }
    }

    /// Why there is no memory for looking at all of a process's, if so. Ours may be limited
    /// together with its own: then it would be killed for what we use.
    fn lacks_own_memory(&self, needed: u64) -> Option<String> {
        let left = self.limits.headroom(std::process::id())?;
        (left.bytes < needed).then(|| {
            format!(
                "{} MiB of memory are left to who reads it, and {} may be needed",
                left.bytes >> 20,
                needed >> 20
            )
        })
    }

    /// Has what lives in a process listed. False: it is gone.
    fn list(&mut self, process: u32, name: &str) -> bool {
        let Some(found) = self.processes.get(&process) else {
            return false;
        };
        if let Some(why) = self.lacks_own_memory(LIST_BYTES) {
            let pid = found.identity.pid;
            self.note(format!("what lives in process {pid} was not listed: {why}"));
            return false;
        }
        let (Some(worker), None) = (&mut self.ledgers.worker, found.ended) else {
            return false;
        };
        worker.order(Order::List {
            process,
            pid: found.identity.pid,
            start_ticks: found.identity.start_ticks,
            name: name.to_owned(),
        });
        true
    }

    /// What lived in processes when the session began, by their pids, as far as nobody was
    /// told of it yet.
    pub(crate) fn take_found(&mut self) -> Vec<(u32, Inventory)> {
        std::mem::take(&mut self.ledgers.found)
    }

    /// The first looks at processes that were there before, by their pids, as far as nobody
    /// was told of them yet.
    pub(crate) fn take_looked(&mut self) -> Vec<(u32, Ledger)> {
        std::mem::take(&mut self.ledgers.looked)
    }

    /// A process is there: it is looked at from now on.
    pub(super) fn expect_ledger(&mut self, process: u32) {
        let joined_ns = self.now_ns();
        let first_ns = if self.ledgers.is_attached {
            FIRST_ATTACHED_NS
        } else {
            FIRST_NS
        };
        let due = Due {
            joined_ns,
            at_ns: joined_ns + first_ns,
            was_looked_at: false,
        };
        self.ledgers.due.insert(process, due);
    }

    /// Has a process looked at. False: it is gone.
    fn look_at(&mut self, process: u32, name: &str, live_bytes: Option<u64>) -> bool {
        let Some(found) = self.processes.get(&process) else {
            return false;
        };
        let (Some(worker), None) = (&mut self.ledgers.worker, found.ended) else {
            return false;
        };
        worker.order(Order::Look {
            process,
            pid: found.identity.pid,
            start_ticks: found.identity.start_ticks,
            name: name.to_owned(),
            live_bytes,
        });
        true
    }

    /// Wants a look at every process, and its pages counted, for an instant with a name.
    pub(super) fn want_ledgers(&mut self, name: &str, at_ns: u64) {
        let since_ns = self.now_ns();
        let living: Vec<u32> = self
            .processes
            .iter()
            .filter(|(_, process)| process.ended.is_none() && process.ending.is_none())
            .map(|(id, _)| *id)
            .collect();
        for process in living {
            self.ledgers.wanted.push_back(Wanted {
                process,
                name: name.to_owned(),
                since_ns,
            });
            self.want_list(process, name);
            if let Some(process) = self.processes.get_mut(&process) {
                let frozen = process.image.freeze_blocks(name, at_ns);
                self.ledgers.count_pages(&process.identity, frozen);
            }
        }
    }

    /// The recording of processes that live on ends: looks at them for the last time,
    /// whatever it costs.
    pub(crate) fn want_last_ledgers(&mut self) {
        if self.ledgers.worker.is_none() {
            return;
        }
        let now_ns = self.now_ns();
        if now_ns < LEAST_SESSION_NS {
            return;
        }
        self.want_ledgers("end", now_ns);
        for wanted in std::mem::take(&mut self.ledgers.wanted) {
            self.look_at(wanted.process, &wanted.name, None);
        }
        for wanted in std::mem::take(&mut self.ledgers.lists) {
            if wanted.name == "end" {
                self.list(wanted.process, &wanted.name);
            }
        }
        self.ledgers.due.clear();
    }

    /// Looks at processes that have come to their ends, as long as they are there.
    fn look_at_those_that_left(&mut self) {
        let mut left = Vec::new();
        for (id, process) in &mut self.processes {
            if let Some(frozen) = process.image.take_left() {
                left.push((*id, frozen));
            }
        }
        for (process, frozen) in left {
            let due = self.ledgers.due.remove(&process);
            // Of programs that come and go many are left out.
            let is_worth_it = due.is_some_and(|due| due.was_looked_at);
            let now_ns = self.now_ns();
            if is_worth_it || self.ledgers.budget.allows(now_ns) {
                self.look_at(process, "end", Some(frozen.live_bytes));
                if let Some(process) = self.processes.get(&process) {
                    self.ledgers.count_pages(&process.identity, frozen);
                }
            }
        }
    }

    /// Puts what came of looks into the recording; waits for those under way until a
    /// deadline.
    fn take_ledgers(&mut self, until: Option<Instant>) {
        while let Some(done) = self.ledgers.worker.as_mut().and_then(|one| one.take(until)) {
            let cost_ns = done.cost_ns();
            match done {
                Done::Inventory { .. } => self.ledgers.lists_budget.use_up(cost_ns),
                // Somebody asked for it, or an attach has two of them.
                Done::Heap { .. } => {}
                _ => self.ledgers.budget.use_up(cost_ns),
            }
            self.output.append(&mut self.shared.records);
            match done {
                Done::Ledger {
                    began,
                    process,
                    ledger,
                    live_bytes,
                    ..
                } => {
                    let is_torn = live_bytes.is_some_and(|before| {
                        self.live_bytes_of(process).abs_diff(before) > most_change(before)
                    });
                    if let Some(mut ledger) = ledger.filter(|_| !is_torn) {
                        let ago = began.elapsed().as_nanos() as u64;
                        ledger.at_ns = self.now_ns().saturating_sub(ago);
                        if ledger.name == "start"
                            && self.ledgers.is_attached
                            && let Some(process) = self.processes.get(&process)
                        {
                            let looked = (process.identity.pid, (*ledger).clone());
                            self.ledgers.looked.push(looked);
                        }
                        self.output.push(Record::Ledger(*ledger));
                    }
                }
                Done::Inventory {
                    began,
                    process,
                    inventory,
                    ..
                } => {
                    if let Some(mut inventory) = inventory {
                        let ago = began.elapsed().as_nanos() as u64;
                        inventory.at_ns = self.now_ns().saturating_sub(ago);
                        if inventory.name == "start"
                            && let Some(process) = self.processes.get(&process)
                        {
                            let found = (process.identity.pid, (*inventory).clone());
                            self.ledgers.found.push(found);
                        }
                        self.output.push(Record::Inventory(*inventory));
                    }
                }
                Done::Heap {
                    number, is_there, ..
                } => self.outside_is_read(number, is_there),
                Done::Pages {
                    process,
                    counted,
                    live_bytes,
                    ..
                } => {
                    // Pages of blocks that went since are not there, and were then.
                    let gone = live_bytes.saturating_sub(self.live_bytes_of(process));
                    let resident = counted.resident;
                    let resident = resident.filter(|_| gone <= most_change(live_bytes));
                    let cost = resident.unwrap_or(counted.touched);
                    self.output.push(Record::PageCost(cost));
                }
            }
        }
    }

    fn live_bytes_of(&self, process: u32) -> u64 {
        let process = self.processes.get(&process);
        process.map_or(0, |process| process.image.scope.live_bytes)
    }

    /// Waits for looks that are under way, for a while.
    pub(crate) fn finish_ledgers(&mut self) {
        self.give_up_outside();
        self.take_ledgers(Some(Instant::now() + END_PATIENCE));
        let left = self.ledgers.worker.as_ref().map_or(0, Worker::waiting);
        if left > 0 {
            self.note(format!(
                "{left} looks at processes' memory took too long at the end, and are left out"
            ));
        }
    }
}

/// By how much live bytes may have changed when a look at them is done.
fn most_change(before: u64) -> u64 {
    CHANGE_BYTES.max(before / CHANGE_PART)
}

impl Ledgers {
    fn count_pages(&mut self, identity: &Identity, frozen: Frozen) {
        if self.was_sampled {
            return;
        }
        if let (Some(worker), Some(live)) = (&mut self.worker, frozen.live) {
            worker.order(Order::Pages {
                process: frozen.process,
                identity: identity.clone(),
                at_ns: frozen.at_ns,
                name: frozen.name,
                blocks: frozen.live_blocks,
                live_bytes: frozen.live_bytes,
                mappings: frozen.mappings,
                live,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use leakline_recording::record::PageCost;

    use super::*;
    use crate::ledgers::ReadsMemory;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::testing::{self, FakeProcess, Records};

    /// What it reads says of whom it was asked.
    struct Echo;

    impl ReadsMemory for Echo {
        fn ledger(&mut self, pid: u32, _: u64) -> Option<Ledger> {
            Some(Ledger {
                parts: vec![(pid.into(), 0)],
                ..Ledger::default()
            })
        }

        fn inventory(&mut self, pid: u32, _: u64) -> Option<Inventory> {
            Some(Inventory {
                rest_bytes: pid.into(),
                ..Inventory::default()
            })
        }

        fn heap(&mut self, _: u32, _: u64, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }

    fn reader() -> LedgerReader {
        Box::new(Echo)
    }

    /// With Python's blocks.
    fn engine() -> (Engine, Records) {
        let (engine, records) = testing::engine(16 << 20, 1);
        let header = engine.shared.session.header();
        header.mode.fetch_or(mode::PYTHON, Relaxed);
        (engine, records)
    }

    fn lists(records: &Records) -> Vec<Inventory> {
        records.pick(|record| match record {
            Record::Inventory(inventory) => Some(inventory.clone()),
            _ => None,
        })
    }

    fn ledgers(records: &Records) -> Vec<Ledger> {
        records.pick(|record| match record {
            Record::Ledger(ledger) => Some(ledger.clone()),
            _ => None,
        })
    }

    fn costs(records: &Records) -> Vec<PageCost> {
        records.pick(|record| match record {
            Record::PageCost(cost) => Some(cost.clone()),
            _ => None,
        })
    }

    /// Has done what is to be done now, one after the other.
    fn go_on(engine: &mut Engine) {
        for _ in 0..4 {
            engine.round();
            engine.finish_ledgers();
        }
        engine.flush();
    }

    #[test]
    fn a_snapshot_has_a_ledger_and_its_pages() {
        let (mut engine, records) = engine();
        engine.keep_ledgers(reader);
        let mut process = FakeProcess::join(&mut engine, 100);
        let mut ring = process.thread(100);
        let stack = process.native(0, 1);
        process.alloc(&mut ring, 0x1000, 40, stack);
        process.alloc(&mut ring, 0x5ff0, 32, stack);
        let snapshot = engine.snapshot("here").unwrap();
        // It is of the snapshot's instant, whatever comes later.
        process.free(&mut ring, 0x1000);
        go_on(&mut engine);
        let found = ledgers(&records);
        assert_eq!(found.len(), 1, "its own turn comes a second after it began");
        assert_eq!((found[0].name.as_str(), found[0].process), ("here", 0));
        assert_eq!(found[0].parts, [(100, 0)]);
        assert!(found[0].at_ns >= snapshot.at_ns);
        let names: Vec<_> = lists(&records).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["here"]);
        assert_eq!(engine.take_found(), [], "of a start only");
        let counted = costs(&records);
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].at_ns, counted[0].pages), (snapshot.at_ns, 3));
        assert_eq!(counted[0].sites, [(0, 3 * 4096)]);

        std::thread::sleep(Duration::from_nanos(LEAST_SESSION_NS));
        engine.want_last_ledgers();
        go_on(&mut engine);
        // Its own turn has come, too.
        let names: Vec<_> = ledgers(&records).into_iter().map(|one| one.name).collect();
        assert!(names.contains(&"end".to_owned()), "{names:?}");
        assert_eq!(costs(&records)[1].sites, [(0, 2 * 4096)]);
    }

    #[test]
    fn a_process_that_is_attached_to_is_looked_at_at_once() {
        let (mut engine, records) = engine();
        engine.is_attached(true);
        engine.keep_ledgers(reader);
        FakeProcess::join(&mut engine, 100);
        std::thread::sleep(Duration::from_nanos(FIRST_ATTACHED_NS));
        go_on(&mut engine);
        let found = ledgers(&records);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "start");
        assert_eq!(engine.take_looked(), [(100, found[0].clone())]);
        // And what was there is listed, and told of once.
        let listed = lists(&records);
        assert_eq!((listed.len(), listed[0].name.as_str()), (1, "start"));
        assert_eq!((listed[0].process, listed[0].rest_bytes), (0, 100));
        assert_eq!(engine.take_found(), [(100, listed[0].clone())]);
        assert_eq!(engine.take_found(), []);
    }

    /// They cost more than ledgers, which do not wait for them.
    #[test]
    fn lists_are_paid_for_apart() {
        let (mut engine, records) = engine();
        engine.keep_ledgers(reader);
        FakeProcess::join(&mut engine, 100);
        engine.ledgers.lists_budget.use_up(3_600_000_000_000);
        engine.snapshot("here").unwrap();
        go_on(&mut engine);
        assert_eq!((ledgers(&records).len(), lists(&records).len()), (1, 0));
        // The last ones are made whatever was paid.
        std::thread::sleep(Duration::from_nanos(LEAST_SESSION_NS));
        engine.want_last_ledgers();
        go_on(&mut engine);
        let names: Vec<_> = lists(&records).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["end"]);
    }

    /// Of the interpreter's teardown a look would say that much is free.
    #[test]
    fn a_look_at_an_end_is_thrown_away_if_blocks_went() {
        let (mut engine, records) = engine();
        engine.keep_ledgers(reader);
        let mut process = FakeProcess::join(&mut engine, 100);
        let mut ring = process.thread(100);
        let stack = process.native(0, 1);
        process.alloc(&mut ring, 0x10_0000, 1 << 20, stack);
        process.alloc(&mut ring, 0x90_0000, 1 << 20, stack);
        engine.round();
        assert!(engine.look_at(0, "end", Some(2 << 20)));
        engine.finish_ledgers();
        process.free(&mut ring, 0x10_0000);
        engine.round();
        assert!(engine.look_at(0, "end", Some(2 << 20)));
        engine.finish_ledgers();
        engine.flush();
        assert_eq!(ledgers(&records).len(), 1);
    }

    #[test]
    fn blocks_of_a_sample_have_no_pages() {
        let (mut engine, records) = engine();
        engine.keep_ledgers(reader);
        let mut process = FakeProcess::join(&mut engine, 100);
        let mut ring = process.thread(100);
        let stack = process.native(0, 1);
        process.alloc(&mut ring, 0x1000, 40, stack);
        engine.sample(1 << 20, false).unwrap();
        engine.round();
        engine.record_all().unwrap();
        engine.snapshot("here").unwrap();
        go_on(&mut engine);
        assert_eq!(ledgers(&records).len(), 1);
        assert_eq!(costs(&records), []);
    }
}
