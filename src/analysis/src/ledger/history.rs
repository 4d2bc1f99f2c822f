//! Ledgers of a recording: what each process's memory was made of at an instant, and how
//! much more than at an earlier one.

use std::collections::BTreeMap;
use std::sync::Arc;

use leakline_recording::record::{Domain, Inventory as Listed, Ledger as Recorded};

use super::{Finding, Inventory, Judgement, Ledger, Line, LineKind, OfIt, judge, threshold};
use crate::instant::{Instant, InstantError, Span};
use crate::leaks::Leaks;
use crate::model::Model;
use crate::report::{bytes, held_briefly};

/// A ledger taken this much after an instant still is that instant's: it is asked for
/// when the instant is there.
const LATE_NS: u64 = 100_000_000;
/// Processes that ended so long before the end are shown there, too: those of a tree end
/// one after the other. At least, and a part of the recording's length.
const ENDED_NS: u64 = 5_000_000_000;
const ENDED_PART: u64 = 20;
/// What CPython's allocator for small blocks gives; above it asks malloc.
const SMALL_BYTES: u64 = 512;

/// What a process's memory was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The process.
    pub process: u32,
    /// Then.
    pub now: Ledger,
    /// When that was.
    pub at_ns: u64,
    /// Before, and when that was, where there is such a ledger.
    pub earlier: Option<(Ledger, u64)>,
    /// What lived by type, where that was read until then.
    pub inventory: Option<Inventory>,
    /// What is live of causes.
    pub causes: Vec<OfCause>,
    /// What it says.
    pub judgement: Judgement,
}

/// What a process has of a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfCause {
    /// `L1`.
    pub id: String,
    /// It is a leak, and not only growing.
    pub is_leak: bool,
    /// Who holds it, or where it is made.
    pub name: String,
    /// Live bytes.
    pub bytes: u64,
    /// How much more than before.
    pub since_bytes: Option<i64>,
    line: LineKind,
}

/// A cause of growth, as `leaks` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blamed {
    /// `L1`.
    pub id: String,
    /// It is a leak, and not only growing.
    pub is_leak: bool,
    /// Who holds it; empty where that is not known.
    pub name: String,
    /// Its sites.
    pub members: Arc<[u32]>,
}

/// The ledgers of a recording at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// One a process, that which grew most first.
    pub processes: Vec<Account>,
    /// All of them added up, where they are several. What processes share counts in each.
    pub sum: Option<Account>,
    /// Processes that were there and have none.
    pub without: usize,
}

/// Why there is nothing to tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoLedger {
    /// The recording has none.
    #[error("this recording has no ledger of its processes' memory")]
    None,
    /// There is none so early.
    #[error("there is no ledger until then: the first is of {first}")]
    NotYet {
        /// When the first was taken, as users name instants.
        first: String,
    },
    /// No process has that pid.
    #[error("no process of this recording has the pid {pid}, or none was looked at")]
    NoProcess {
        /// As asked for.
        pid: u32,
    },
    /// See there.
    #[error(transparent)]
    Instant(#[from] InstantError),
}

impl NoLedger {
    /// What would do.
    pub fn hint(&self) -> String {
        match self {
            NoLedger::None => "it is an older one, or none of its processes lived for a second; \
                               `leakline ledger PID` looks at a running process"
                .into(),
            NoLedger::NotYet { .. } => "`--to end` always works".into(),
            NoLedger::NoProcess { .. } => "`leakline stats` lists its processes".into(),
            NoLedger::Instant(error) => error.hint(),
        }
    }
}

/// When the program had done its work: of Python when `__main__` was left, else the end.
fn done_ns(model: &Model<'_>) -> u64 {
    let usual = Span::usual(model);
    if usual.to().is_as_left() {
        usual.to().resolved_ns()
    } else {
        u64::MAX
    }
}

/// An instant that users name. A ledger may be there where no state is, since nothing
/// changed.
fn ns_of(model: &Model<'_>, instant: &Instant) -> Result<u64, InstantError> {
    match instant {
        Instant::End => Ok(u64::MAX),
        Instant::After(ns) => Ok(*ns),
        _ => Ok(Span::at(model, instant)?.to().resolved_ns()),
    }
}

/// What was found by a look at a process's memory.
trait Look {
    fn at_ns(&self) -> u64;
    fn name(&self) -> &str;
}

impl Look for Recorded {
    fn at_ns(&self) -> u64 {
        self.at_ns
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Look for Listed {
    fn at_ns(&self) -> u64 {
        self.at_ns
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The look of an instant among those at a process, which are in order: the last until
/// then.
fn until<'l, T: Look>(all: &[&'l T], ns: u64, name: Option<&str>) -> Option<&'l T> {
    let named = name.and_then(|name| all.iter().rfind(|one| one.name() == name));
    let by_time = || {
        all.iter()
            .rfind(|one| one.at_ns() <= ns.saturating_add(LATE_NS))
    };
    named.or_else(by_time).copied()
}

/// What a later look is held against: that of an instant, else the first.
fn before<'l, T: Look>(
    all: &[&'l T],
    now_ns: u64,
    from: Option<(u64, Option<&str>)>,
) -> Option<&'l T> {
    let first = all.first().copied();
    let earlier = match from {
        Some((ns, name)) => until(all, ns, name).or(first),
        None => first,
    };
    earlier.filter(|earlier| earlier.at_ns() < now_ns)
}

/// Looks at a process, in order.
fn of_process<'l, T: Look>(all: &[&'l T], is_of: impl Fn(&T) -> bool) -> Vec<&'l T> {
    let mut own: Vec<&T> = all.iter().copied().filter(|one| is_of(one)).collect();
    own.sort_by_key(|one| one.at_ns());
    own
}

impl Accounts {
    /// The ledgers at `to`, with what they were at `from`: without these of the end, and of
    /// the first look at each process. `pid`: only that process's.
    ///
    /// # Errors
    ///
    /// There is none: why.
    pub fn new(
        model: &Model<'_>,
        from: Option<&Instant>,
        to: Option<&Instant>,
        pid: Option<u32>,
    ) -> Result<Accounts, NoLedger> {
        let ns = |instant: &Instant| ns_of(model, instant);
        let name = |instant: Option<&Instant>| match instant {
            Some(Instant::Mark(name)) => Some(name.clone()),
            None => Some("end".into()),
            _ => None,
        };
        let to_ns = match to {
            Some(to) => ns(to)?,
            None => done_ns(model),
        };
        let from_ns = from.map(ns).transpose()?;
        if from_ns.is_some_and(|from| from > to_ns) {
            return Err(InstantError::Reversed.into());
        }
        Accounts::at(
            model,
            (from_ns, name(from).filter(|_| from.is_some())),
            (to_ns, name(to)),
            pid,
        )
    }

    /// The ledgers at an instant, with what they were at an earlier one, or at the first
    /// look at each process.
    ///
    /// # Errors
    ///
    /// As for [`Accounts::new`].
    pub fn between(
        model: &Model<'_>,
        from_ns: Option<u64>,
        to_ns: u64,
    ) -> Result<Accounts, NoLedger> {
        Accounts::at(model, (from_ns, None), (to_ns, None), None)
    }

    /// As [`Accounts::between`], until the program had done its work.
    ///
    /// # Errors
    ///
    /// As for [`Accounts::new`].
    pub fn until_done(model: &Model<'_>, from_ns: Option<u64>) -> Result<Accounts, NoLedger> {
        let to = (done_ns(model), Some("end".into()));
        Accounts::at(model, (from_ns, None), to, None)
    }

    /// The ledger of a process as it was read just now, with what it was at an instant of
    /// its recording: without one at the first look. `None`: it is not in the recording.
    ///
    /// # Errors
    ///
    /// The instant is not in the recording.
    pub fn of_now(
        model: &Model<'_>,
        (pid, start_ticks): (u32, u64),
        (read, listed): (Recorded, Option<Listed>),
        from: Option<&Instant>,
    ) -> Result<Option<Accounts>, InstantError> {
        // After an exec there are several: the last is what runs.
        let found = model.processes().iter().rposition(|facts| {
            (facts.process.pid, facts.process.start_ticks) == (pid, start_ticks)
        });
        let Some(process) = found.and_then(|at| u32::try_from(at).ok()) else {
            return Ok(None);
        };
        let from = match from {
            None => None,
            Some(instant) => {
                let name = match instant {
                    Instant::Mark(name) => Some(name.as_str()),
                    _ => None,
                };
                Some((ns_of(model, instant)?, name))
            }
        };
        let now = Recorded {
            process,
            at_ns: model.duration_ns(),
            ..read
        };
        let all = of_process(model.ledgers(), |one| one.process == process);
        let lists = of_process(model.inventories(), |one| one.process == process);
        let mut account = Account::new(&all, &now, from);
        account.take(listed.map(|listed| {
            let listed = Listed {
                at_ns: now.at_ns,
                ..listed
            };
            Inventory::of(&listed, before(&lists, listed.at_ns, from))
        }));
        Ok(Some(Accounts {
            processes: vec![account],
            sum: None,
            without: 0,
        }))
    }

    fn at(
        model: &Model<'_>,
        (from_ns, from_name): (Option<u64>, Option<String>),
        (to_ns, to_name): (u64, Option<String>),
        pid: Option<u32>,
    ) -> Result<Accounts, NoLedger> {
        let mut by_process: BTreeMap<u32, Vec<&Recorded>> = BTreeMap::new();
        for &one in model.ledgers() {
            by_process.entry(one.process).or_default().push(one);
        }
        let Some(first_ns) = model.ledgers().iter().map(|one| one.at_ns).min() else {
            return Err(NoLedger::None);
        };
        let ledgers_ns = model.ledgers().iter().map(|one| one.at_ns);
        let lists_ns = model.inventories().iter().map(|one| one.at_ns);
        let last_ns = ledgers_ns.chain(lists_ns).max();
        let last_ns = model.duration_ns().max(last_ns.unwrap_or(0));
        let patience_ns = if to_ns > last_ns || to_name.as_deref() == Some("end") {
            ENDED_NS.max(last_ns / ENDED_PART)
        } else {
            LATE_NS
        };
        let to_ns = to_ns.min(last_ns);
        let facts = |process: u32| model.processes().get(process as usize);
        let mut accounts = Accounts {
            processes: Vec::new(),
            sum: None,
            without: 0,
        };
        for (id, facts) in (0_u32..).zip(model.processes()) {
            let is_meant = pid.is_none_or(|pid| facts.process.pid == pid);
            let was_there = facts.process.at_ns <= to_ns
                && facts
                    .end
                    .is_none_or(|end| end.at_ns.saturating_add(patience_ns) >= to_ns);
            if is_meant && was_there && !by_process.contains_key(&id) {
                accounts.without += 1;
            }
        }
        for (process, mut all) in by_process {
            if pid.is_some_and(|pid| facts(process).is_none_or(|one| one.process.pid != pid)) {
                continue;
            }
            all.sort_by_key(|one| one.at_ns);
            let Some(now) = until(&all, to_ns, to_name.as_deref()) else {
                continue;
            };
            // What a process had that was gone by then is no part of what there was,
            // unless nobody else is left, or it is asked for.
            let ended_ns = facts(process)
                .and_then(|facts| facts.end)
                .map(|end| end.at_ns);
            let is_gone = ended_ns.is_some_and(|end| end.saturating_add(patience_ns) < to_ns);
            if is_gone && pid.is_none() && process != 0 {
                continue;
            }
            let from = from_ns.map(|ns| (ns, from_name.as_deref()));
            let mut account = Account::new(&all, now, from);
            let lists = of_process(model.inventories(), |one| one.process == process);
            account.take(
                until(&lists, to_ns, to_name.as_deref())
                    .map(|now| Inventory::of(now, before(&lists, now.at_ns, from))),
            );
            accounts.processes.push(account);
        }
        if accounts.processes.is_empty() {
            return Err(match pid {
                Some(pid) => NoLedger::NoProcess { pid },
                None => NoLedger::NotYet {
                    first: format!("+{}", crate::report::duration(first_ns)),
                },
            });
        }
        accounts.processes.sort_by_key(|one| {
            (
                std::cmp::Reverse((one.grown(), one.now.rss_bytes())),
                one.process,
            )
        });
        accounts.sum = accounts.summed();
        Ok(accounts)
    }

    /// Says what is live of causes, and names those that leak in the verdict.
    pub fn look_into(&mut self, model: &Model<'_>, leaks: &Leaks) {
        let causes = leaks.suspects.iter().map(|cause| Blamed {
            id: cause.id.clone(),
            is_leak: cause.is_leak(),
            name: held_briefly(cause),
            members: cause.members.as_slice().into(),
        });
        self.blame(model, &causes.collect::<Vec<_>>());
    }

    /// The same, of causes that are known.
    pub fn blame(&mut self, model: &Model<'_>, causes: &[Blamed]) {
        let instants = self.processes.iter().flat_map(|one| {
            let earlier_ns = one.earlier.as_ref().map(|(_, ns)| *ns);
            [Some(one.at_ns), earlier_ns].into_iter().flatten()
        });
        let instants: Vec<u64> = instants.collect();
        let live = live_of_causes(model, causes, &instants);
        for account in &mut self.processes {
            let at = |cause: usize, ns: u64| {
                live.get(&(bin_until(model, ns), cause, account.process))
                    .copied()
            };
            for (number, cause) in causes.iter().enumerate() {
                let Some(now) = at(number, account.at_ns) else {
                    continue;
                };
                let before = (account.earlier.as_ref())
                    .map(|(_, ns)| at(number, *ns).map_or(0, |before| before.bytes));
                account.causes.push(OfCause {
                    id: cause.id.clone(),
                    is_leak: cause.is_leak,
                    name: cause.name.clone(),
                    bytes: now.bytes,
                    since_bytes: before
                        .map(|before| now.bytes.cast_signed() - before.cast_signed()),
                    line: now.line,
                });
            }
            account.name_causes();
        }
        self.sum = self.summed();
    }

    /// All processes as one.
    fn summed(&self) -> Option<Account> {
        if self.processes.len() < 2 {
            return None;
        }
        let sum = |ledgers: &mut dyn Iterator<Item = &Ledger>| {
            let mut sum = Ledger::default();
            for ledger in ledgers {
                sum.add(ledger);
            }
            sum
        };
        let now = sum(&mut self.processes.iter().map(|one| &one.now));
        // A process that was not there before had nothing.
        let earlier = self.processes.iter().filter_map(|one| one.earlier.as_ref());
        let earlier_ns = earlier.clone().map(|(_, ns)| *ns).min();
        let earlier = earlier_ns.map(|ns| (sum(&mut earlier.map(|(ledger, _)| ledger)), ns));
        let mut causes: Vec<OfCause> = Vec::new();
        for cause in self.processes.iter().flat_map(|one| &one.causes) {
            match causes.iter_mut().find(|known| known.id == cause.id) {
                None => causes.push(cause.clone()),
                Some(known) => {
                    known.bytes = known.bytes.saturating_add(cause.bytes);
                    known.since_bytes = match (known.since_bytes, cause.since_bytes) {
                        (Some(one), Some(other)) => Some(one.saturating_add(other)),
                        // It was not there before.
                        (one, None) => one.map(|one| one.saturating_add_unsigned(cause.bytes)),
                        (None, other) => {
                            other.map(|other| other.saturating_add_unsigned(known.bytes))
                        }
                    };
                }
            }
        }
        let mut now = now;
        for line in &mut now.lines {
            line.of_it.clear();
        }
        let judgement = judge(&now, earlier.as_ref().map(|(earlier, _)| earlier));
        let inventories: Vec<&Inventory> = self
            .processes
            .iter()
            .filter_map(|one| one.inventory.as_ref())
            .collect();
        let mut account = Account {
            process: 0,
            at_ns: self
                .processes
                .iter()
                .map(|one| one.at_ns)
                .max()
                .unwrap_or(0),
            now,
            earlier,
            inventory: (!inventories.is_empty()).then(|| Inventory::sum(&inventories)),
            causes,
            judgement,
        };
        account.name_causes();
        Some(account)
    }
}

impl Account {
    /// Of a process whose ledgers are `all`, in order.
    fn new(all: &[&Recorded], now: &Recorded, from: Option<(u64, Option<&str>)>) -> Account {
        let earlier = before(all, now.at_ns, from);
        let earlier = earlier.map(|earlier| (Ledger::of(earlier), earlier.at_ns));
        let ledger = Ledger::of(now);
        let judgement = judge(&ledger, earlier.as_ref().map(|(earlier, _)| earlier));
        Account {
            process: now.process,
            now: ledger,
            at_ns: now.at_ns,
            earlier,
            inventory: None,
            causes: Vec::new(),
            judgement,
        }
    }

    fn take(&mut self, inventory: Option<Inventory>) {
        if let (Some((earlier, _)), Some(inventory)) = (&self.earlier, &inventory) {
            self.judgement.name_type(&self.now, earlier, inventory);
        }
        self.inventory = inventory;
    }

    /// By how much RSS grew.
    pub fn grown(&self) -> i64 {
        let before = self.earlier.as_ref();
        before.map_or(0, |(earlier, _)| {
            self.now.rss_bytes().cast_signed() - earlier.rss_bytes().cast_signed()
        })
    }

    /// Puts causes below the lines that they are part of, and into the verdict.
    fn name_causes(&mut self) {
        for cause in self.causes.iter().filter(|cause| cause.bytes > 0) {
            let Some(line) = line_of(&mut self.now, cause.line) else {
                continue;
            };
            line.of_it.push(OfIt {
                title: format!("{} {}", cause.id, cause.name).trim_end().to_owned(),
                // What is asked for is not all resident.
                bytes: cause.bytes.min(line.bytes),
                since_bytes: cause.since_bytes,
                cause: Some(cause.id.clone()),
            });
        }
        if let Some((earlier, _)) = &self.earlier {
            blame(&mut self.judgement, &self.now, earlier, &self.causes);
        }
    }
}

/// The line that a cause is shown below.
fn line_of(ledger: &mut Ledger, kind: LineKind) -> Option<&mut Line> {
    // Under another allocator malloc's blocks are in its maps; where memory could not be
    // read, in a heap that is not told apart; in a forked child they are shared.
    const OTHERS: [LineKind; 4] = [
        LineKind::MallocLive,
        LineKind::OtherAllocator,
        LineKind::Anonymous,
        LineKind::CopyOnWrite,
    ];
    let mut kinds = std::iter::once(kind).chain(OTHERS);
    let found = kinds.find_map(|kind| {
        let mut lines = ledger.lines.iter();
        lines.position(|line| line.kind == kind && line.bytes > 0)
    })?;
    ledger.lines.get_mut(found)
}

/// Names the leaks that explain growth.
fn blame(judgement: &mut Judgement, now: &Ledger, earlier: &Ledger, causes: &[OfCause]) {
    let leaks: Vec<&OfCause> = causes
        .iter()
        .filter(|cause| cause.is_leak && cause.since_bytes > Some(0))
        .collect();
    let Some(first) = leaks.first() else {
        return;
    };
    let mut names = first.id.clone();
    match leaks.len() {
        1 => {}
        2 => names = format!("{names} and {}", leaks[1].id),
        more => names = format!("{names} and {} more", more - 1),
    }
    let leaked: i64 = leaks.iter().filter_map(|cause| cause.since_bytes).sum();
    let grown = now.rss_bytes().cast_signed() - earlier.rss_bytes().cast_signed();
    let live = now.live_bytes().cast_signed() - earlier.live_bytes().cast_signed();
    let words = bytes(leaked.unsigned_abs());
    // Of what grew, leaks are most; in little growth they need not be.
    let explains = leaked.saturating_mul(2) >= grown.max(live);
    let matters = leaked >= threshold(now.rss_bytes()).cast_signed();
    if explains && (matters || grown > 0) && judgement.finding != Finding::Fragmentation {
        judgement.finding = Finding::Leak;
        judgement.words = format!("a LEAK ({names}), not fragmentation");
    } else {
        let verb = if leaks.len() == 1 { "leaks" } else { "leak" };
        judgement.words = format!("{}; besides {names} {verb} {words}", judgement.words);
    }
}

#[derive(Clone, Copy, Debug)]
struct LiveOfCause {
    bytes: u64,
    line: LineKind,
}

/// The last bin that had ended by an instant.
fn bin_until(model: &Model<'_>, ns: u64) -> Option<usize> {
    model
        .bin_ends()
        .partition_point(|end| *end <= ns)
        .checked_sub(1)
}

/// What is live of causes at instants, by bin, cause and process.
fn live_of_causes(
    model: &Model<'_>,
    causes: &[Blamed],
    instants: &[u64],
) -> BTreeMap<(Option<usize>, usize, u32), LiveOfCause> {
    let mut live = BTreeMap::new();
    if causes.is_empty() {
        return live;
    }
    let mut bins: Vec<Option<usize>> = instants.iter().map(|ns| bin_until(model, *ns)).collect();
    bins.sort_unstable();
    bins.dedup();
    for bin in bins {
        let counters = model.counters(bin);
        for (number, cause) in causes.iter().enumerate() {
            // By the line, of which that with most counts.
            let mut sums: BTreeMap<u32, BTreeMap<LineKind, u64>> = BTreeMap::new();
            for &site in cause.members.iter() {
                let at = site as usize;
                let (Some(facts), Some(counters)) = (model.sites().get(at), counters.get(at))
                else {
                    continue;
                };
                let bytes = counters.live_bytes.cast_signed().max(0).cast_unsigned();
                let blocks = counters.live_blocks.max(1);
                let line = match facts.domain {
                    Domain::Obj | Domain::Mem | Domain::Python if bytes / blocks <= SMALL_BYTES => {
                        LineKind::PythonLive
                    }
                    Domain::Mmap => LineKind::Anonymous,
                    _ => LineKind::MallocLive,
                };
                *sums
                    .entry(facts.process)
                    .or_default()
                    .entry(line)
                    .or_default() += bytes;
            }
            for (process, lines) in sums {
                let most = lines.iter().max_by_key(|(_, bytes)| **bytes);
                let line = most.map_or(LineKind::MallocLive, |(line, _)| *line);
                let bytes = lines.values().sum();
                live.insert((bin, number, process), LiveOfCause { bytes, line });
            }
        }
    }
    live
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Style;
    use crate::report::text::ledgers;
    use crate::testing::{Builder, SECOND, counters, origin};
    use leakline_recording::record::Record;

    const MIB: u64 = 1 << 20;

    fn look(process: u32, seconds: u64, name: &str, live: u64, free: u64) -> Record {
        Record::Ledger(Recorded {
            process,
            at_ns: seconds * SECOND,
            name: name.into(),
            parts: vec![
                (live * MIB, 0),
                (free * MIB, 0),
                (2 * MIB, 0),
                (MIB / 2, 0),
                (0, 0),
                (0, 0),
                (3 * MIB, 2 * MIB),
            ],
            is_python: true,
            ..Recorded::default()
        })
    }

    /// Two processes; the second has more of what grows.
    fn tree() -> Vec<Record> {
        let mut b = Builder::new(&["python", "serve.py"]);
        let first = b.process(21, &["python", "serve.py"]);
        let second = b.process(22, &["python", "serve.py", "worker"]);
        let code = b.code("/srv/serve.py", "handle", 7);
        let node = b.python(0, code, 9, true);
        let sites = [
            b.site(first, node, Domain::Obj),
            b.site(second, node, Domain::Obj),
        ];
        b.bin(SECOND, &[(sites[0], counters(MIB, 10_000, MIB, 10_000))]);
        b.mark("deploy", 2 * SECOND, first);
        b.bin(
            9 * SECOND,
            &[
                (sites[0], counters(3 * MIB, 30_000, 3 * MIB, 30_000)),
                (sites[1], counters(9 * MIB, 90_000, 9 * MIB, 90_000)),
            ],
        );
        for (process, grown) in [(first, 2), (second, 9)] {
            b.records.push(look(process, 1, "start", 10, 1));
            b.records
                .push(look(process, 3, "deploy", 10 + grown / 2, 1));
            b.records.push(look(process, 10, "end", 10 + grown, 1));
        }
        b.end(10 * SECOND);
        b.records
    }

    fn list(process: u32, seconds: u64, name: &str, sessions: u64) -> Record {
        let one = |name: &str, objects: u64, bytes: u64| leakline_recording::record::OfType {
            name: name.into(),
            objects,
            bytes,
        };
        Record::Inventory(Listed {
            process,
            at_ns: seconds * SECOND,
            name: name.into(),
            types: vec![
                one("serve.Session", sessions, sessions * 1000),
                one("dict", 10, 5000),
            ],
            ..Listed::default()
        })
    }

    #[test]
    fn what_lives_is_held_against_what_did() {
        let mut records = tree();
        for (at, name, sessions) in [(1, "start", 100), (3, "deploy", 700), (11, "end", 9000)] {
            records.push(list(1, at, name, sessions));
        }
        let model = Model::new(&records, origin());
        let sessions = |from: Option<&str>, to: Option<&str>| {
            let (from, to) = (from.map(instant), to.map(instant));
            let found = Accounts::new(&model, from.as_ref(), to.as_ref(), None).unwrap();
            let sum = found.sum.unwrap().inventory.unwrap();
            assert!(found.processes[1].inventory.is_none());
            let one = found.processes[0].inventory.clone().unwrap();
            assert_eq!(one, sum);
            let session = &one.types[0];
            (session.objects, session.since, one.since_ns)
        };
        let grown = |objects: i64| Some((objects, objects * 1000));
        assert_eq!(sessions(None, None), (9000, grown(8900), Some(SECOND)));
        let deploy = sessions(Some("deploy"), None);
        assert_eq!(deploy, (9000, grown(8300), Some(3 * SECOND)));
        let until = sessions(None, Some("deploy"));
        assert_eq!(until, (700, grown(600), Some(SECOND)));
        let first = Accounts::new(&model, None, Some(&instant("+1s")), None).unwrap();
        let first = first.processes.iter().find_map(|one| one.inventory.clone());
        let first = first.unwrap();
        assert_eq!((first.since_ns, first.types[0].since), (None, None));
        // What most of the growth is of is named.
        let found = Accounts::new(&model, None, None, None).unwrap();
        let words = &found.processes[0].judgement.words;
        assert!(
            words.ends_with("; most of it in 8,900 more serve.Session"),
            "{words}"
        );
    }

    fn leaks() -> Vec<Blamed> {
        vec![Blamed {
            id: "L1".into(),
            is_leak: true,
            name: "serve.SESSIONS".into(),
            members: [0, 1].into(),
        }]
    }

    fn instant(text: &str) -> Instant {
        Instant::parse(text).unwrap()
    }

    fn grown(accounts: &Accounts) -> Vec<(u32, i64)> {
        let each = accounts.processes.iter();
        each.map(|one| (one.process, one.grown() / (1 << 20)))
            .collect()
    }

    #[test]
    fn the_largest_growth_comes_first_and_all_sum_up() {
        let records = tree();
        let model = Model::new(&records, origin());
        let mut accounts = Accounts::new(&model, None, None, None).unwrap();
        assert_eq!(grown(&accounts), [(1, 9), (0, 2)]);
        accounts.blame(&model, &leaks());
        let sum = accounts.sum.as_ref().unwrap();
        assert_eq!(sum.grown(), 11 << 20);
        assert_eq!(sum.causes[0].bytes, 12 * MIB);
        assert_eq!(sum.causes[0].since_bytes, Some(11 << 20));
        assert_eq!(sum.judgement.finding, Finding::Leak);
        let worker = &accounts.processes[0];
        assert_eq!(worker.judgement.words, "a LEAK (L1), not fragmentation");
        let part = &worker.now.lines[0].of_it[0];
        assert_eq!((part.bytes, part.since_bytes), (9 * MIB, Some(9 << 20)));
        assert_eq!(part.title, "L1 serve.SESSIONS");
    }

    #[test]
    fn instants_are_named_or_the_last_before() {
        let records = tree();
        let model = Model::new(&records, origin());
        let between = |from: &str, to: &str| {
            let (from, to) = (instant(from), instant(to));
            Accounts::new(&model, Some(&from), Some(&to), None).map(|found| grown(&found))
        };
        // The look that a mark had taken is a moment later.
        assert_eq!(between("deploy", "end"), Ok(vec![(1, 5), (0, 1)]));
        assert_eq!(between("+4s", "+10s"), Ok(vec![(1, 5), (0, 1)]));
        assert_eq!(between("start", "deploy"), Ok(vec![(1, 4), (0, 1)]));
        let one = Accounts::new(&model, None, Some(&instant("+1s")), Some(22)).unwrap();
        assert!(one.sum.is_none() && one.processes[0].earlier.is_none());
        let none = Accounts::new(&model, None, Some(&instant("+0.5s")), None);
        assert!(matches!(none, Err(NoLedger::NotYet { .. })));
        let none = Accounts::new(&model, None, None, Some(99));
        assert_eq!(none, Err(NoLedger::NoProcess { pid: 99 }));
        assert!(matches!(
            between("end", "+1s"),
            Err(NoLedger::Instant(InstantError::Reversed))
        ));
        let plain = Model::new(&records[..3], origin());
        assert_eq!(Accounts::new(&plain, None, None, None), Err(NoLedger::None));
    }

    #[test]
    fn fragmentation_stays_what_it_is_beside_a_small_leak() {
        let mut records = tree();
        records.push(look(0, 10, "end", 10, 60));
        let model = Model::new(&records, origin());
        let mut accounts = Accounts::new(&model, None, None, Some(21)).unwrap();
        accounts.blame(&model, &leaks());
        let judgement = &accounts.processes[0].judgement;
        assert_eq!(judgement.finding, Finding::Fragmentation);
        assert!(judgement.words.ends_with("; besides L1 leaks 2.0 MiB"));
    }

    #[test]
    fn a_tree_fits_eighty_columns() {
        let records = tree();
        let model = Model::new(&records, origin());
        let mut accounts = Accounts::new(&model, None, None, None).unwrap();
        accounts.blame(&model, &leaks());
        let style = Style {
            width: 80,
            colour: false,
            boxes: false,
        };
        let mut out = Vec::new();
        ledgers(&model, &accounts, style, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        RSS 48.0 MiB, +11.0 MiB since 22:13:21: a LEAK (L1), not fragmentation
        2 processes of python serve.py; what they share counts in each; as of 22:13:30
        (+10.0 s), against +1.0 s; all explained

                                       MiB      %  since
        live Python objects           31.0   64.6  +11.0
          of it L1 serve.SESSIONS     12.0   25.0  +11.0
        free inside pymalloc arenas    2.0    4.2   +0.0
        live malloc                    4.0    8.3   +0.0
        freed, kept by glibc arenas    1.0    2.1   +0.0
        files and code                10.0   20.8   +0.0
        RSS                           48.0  100.0  +11.0

        giving back free memory would return at most 3.0 MiB

        RSS 27.5 MiB, +9.0 MiB since 22:13:21: a LEAK (L1), not fragmentation
        python serve.py worker (pid 22), end not seen; as of 22:13:30 (+10.0 s), against
        +1.0 s; all explained

                                       MiB      %  since
        live Python objects           19.0   69.1   +9.0  of up to 512 bytes
          of it L1 serve.SESSIONS      9.0   32.7   +9.0
        free inside pymalloc arenas    1.0    3.6   +0.0
        live malloc                    2.0    7.3   +0.0  and larger objects
        freed, kept by glibc arenas    0.5    1.8   +0.0
        files and code                 5.0   18.2   +0.0  2.0 MiB shared
        RSS                           27.5  100.0   +9.0

        giving back free memory would return at most 1.5 MiB

        RSS 20.5 MiB, +2.0 MiB since 22:13:21: a LEAK (L1), not fragmentation
        python serve.py (pid 21), end not seen; as of 22:13:30 (+10.0 s), against +1.0
        s; all explained

                                       MiB      %  since
        live Python objects           12.0   58.5   +2.0  of up to 512 bytes
          of it L1 serve.SESSIONS      3.0   14.6   +2.0
        free inside pymalloc arenas    1.0    4.9   +0.0
        live malloc                    2.0    9.8   +0.0  and larger objects
        freed, kept by glibc arenas    0.5    2.4   +0.0
        files and code                 5.0   24.4   +0.0  2.0 MiB shared
        RSS                           20.5  100.0   +2.0

        giving back free memory would return at most 1.5 MiB
        next: leakline why train.4121.leakline L1
        ");
    }
}
