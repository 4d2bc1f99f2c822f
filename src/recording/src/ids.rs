//! Implicit ids: how many records of each numbered kind there were so far.

use crate::record::{
    Bin, Code, CohortChange, Cohorts, Domain, Frame, Module, Node, Peak, Process, Record, Session,
    Site, SiteCohorts, Thread,
};

/// A record's kind: its variant's index in [`Record`], the first byte of its
/// encoding.
pub(crate) mod kind {
    pub(crate) const SESSION: u8 = 0;
    pub(crate) const PROCESS: u8 = 1;
    pub(crate) const PROCESS_END: u8 = 2;
    pub(crate) const THREAD: u8 = 3;
    pub(crate) const MODULE: u8 = 4;
    pub(crate) const CODE: u8 = 5;
    pub(crate) const NODE: u8 = 6;
    pub(crate) const SITE: u8 = 7;
    pub(crate) const SYMBOLS: u8 = 8;
    pub(crate) const BIN: u8 = 9;
    pub(crate) const PEAK: u8 = 10;
    pub(crate) const SIZES: u8 = 11;
    pub(crate) const TOTALS: u8 = 12;
    pub(crate) const THREAD_TOTALS: u8 = 13;
    pub(crate) const LOSS: u8 = 14;
    pub(crate) const MARK: u8 = 15;
    pub(crate) const NOTE: u8 = 17;
    pub(crate) const END: u8 = 18;
    pub(crate) const INHERITED: u8 = 19;
    pub(crate) const COHORTS: u8 = 20;
    pub(crate) const SAMPLING: u8 = 21;
    pub(crate) const HEAP_GRAPH: u8 = 23;
    pub(crate) const LIMITS: u8 = 26;
    pub(crate) const LEDGER: u8 = 27;
    pub(crate) const PAGE_COST: u8 = 28;
    pub(crate) const INVENTORY: u8 = 29;
    pub(crate) const LAST: u8 = INVENTORY;
}

/// Counts of the numbered kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) processes: u32,
    pub(crate) threads: u32,
    pub(crate) modules: u32,
    pub(crate) codes: u32,
    /// Written ones: the newest has this id, as the empty stack is node 0.
    pub(crate) nodes: u32,
    pub(crate) sites: u32,
}

impl Ids {
    /// Counts a record of a kind.
    pub(crate) fn count(&mut self, of: u8) {
        let counter = match of {
            kind::PROCESS => &mut self.processes,
            kind::THREAD => &mut self.threads,
            kind::MODULE => &mut self.modules,
            kind::CODE => &mut self.codes,
            kind::NODE => &mut self.nodes,
            kind::SITE => &mut self.sites,
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }

    /// As numbers, in the order of the chunk header.
    pub(crate) fn to_array(self) -> [u32; 6] {
        [
            self.processes,
            self.threads,
            self.modules,
            self.codes,
            self.nodes,
            self.sites,
        ]
    }

    /// See [`Ids::to_array`].
    pub(crate) fn from_array(counts: [u32; 6]) -> Self {
        let [processes, threads, modules, codes, nodes, sites] = counts;
        Ids {
            processes,
            threads,
            modules,
            codes,
            nodes,
            sites,
        }
    }

    /// Records missing between `self` and a later state, or `None` when the
    /// other is not later.
    pub(crate) fn missing_until(self, later: Ids) -> Option<u64> {
        self.to_array()
            .into_iter()
            .zip(later.to_array())
            .try_fold(0, |sum, (from, to)| {
                Some(sum + u64::from(to.checked_sub(from)?))
            })
    }

    /// As [`Ids::admit`], of a bin.
    pub(crate) fn admit_bin(self, bin: &Bin) -> bool {
        bin.rss.iter().all(|&(id, _)| id < self.processes)
            && bin
                .points
                .last()
                .is_none_or(|point| point.site < self.sites)
            && bin.points.is_sorted_by(|a, b| a.site < b.site)
    }

    /// As [`Ids::admit`], of cohorts.
    pub(crate) fn admit_cohorts(self, cohorts: &Cohorts) -> bool {
        let sites = cohorts.sites.try_unpack();
        sites.is_some_and(|sites| self.admit_sites(&sites))
    }

    fn admit_sites(self, sites: &[SiteCohorts]) -> bool {
        let is_rising = |changes: &[CohortChange]| changes.is_sorted_by(|a, b| a.start < b.start);
        sites.last().is_none_or(|last| last.site < self.sites)
            && sites.is_sorted_by(|a, b| a.site < b.site)
            && sites.iter().all(|site| is_rising(&site.cohorts))
    }

    /// Every id that the record names came before it.
    pub(crate) fn admit(self, record: &Record) -> bool {
        let process = |id: u32| id < self.processes;
        match record {
            Record::Process(Process { parent, .. }) => parent.is_none_or(process),
            Record::ProcessEnd(end) => process(end.process),
            Record::Thread(thread) => process(thread.process),
            Record::Node(Node { parent, frame }) => {
                *parent <= self.nodes
                    && match frame {
                        Frame::Native { module, .. } => module.is_none_or(|id| id < self.modules),
                        Frame::Python { code, .. } => *code < self.codes,
                        Frame::Pair { python } => *python <= self.nodes,
                        Frame::Truncated | Frame::Broken | Frame::Switched => true,
                    }
            }
            Record::Site(site) => process(site.process) && site.node <= self.nodes,
            Record::Symbols(symbols) => symbols.module < self.modules,
            Record::Bin(bin) => self.admit_bin(bin),
            Record::Peak(Peak {
                process: of, sites, ..
            }) => of.is_none_or(process) && sites.iter().all(|&(id, ..)| id < self.sites),
            Record::Totals(totals) => process(totals.process),
            Record::ThreadTotals(totals) => totals.thread < self.threads,
            Record::Loss(loss) => process(loss.process),
            Record::Inherited(inherited) => {
                process(inherited.process) && inherited.sites.iter().all(|site| site.0 < self.sites)
            }
            Record::Cohorts(cohorts) => self.admit_cohorts(cohorts),
            Record::Mark(mark) => mark.process.is_none_or(process),
            Record::HeapGraph(graph) => process(graph.process),
            Record::Limits(limits) => process(limits.process),
            Record::Lost(lost) => {
                let sites = &lost.sites;
                process(lost.process)
                    && sites.last().is_none_or(|last| last.site < self.sites)
                    && sites.is_sorted_by(|a, b| a.site < b.site)
            }
            Record::Ledger(ledger) => process(ledger.process),
            Record::Inventory(inventory) => process(inventory.process),
            Record::PageCost(cost) => {
                process(cost.process)
                    && cost.sites.last().is_none_or(|last| last.0 < self.sites)
                    && cost.sites.is_sorted_by(|a, b| a.0 < b.0)
            }
            Record::Scatter(scatter) => {
                let sites = &scatter.sites;
                sites.last().is_none_or(|last| last.site < self.sites)
                    && sites.is_sorted_by(|a, b| a.site < b.site)
            }
            Record::Session(_)
            | Record::Module(_)
            | Record::Code(_)
            | Record::Sizes(_)
            | Record::Source(_)
            | Record::Note(_)
            | Record::Sampling(_)
            | Record::HeapPart(_)
            | Record::End(_) => true,
        }
    }
}

/// A record that keeps the place of a lost one of a numbered kind, so that
/// later ids stay right; `None` for kinds without numbers.
pub(crate) fn placeholder(of: u8) -> Option<Record> {
    Some(match of {
        kind::PROCESS => Record::Process(Process {
            pid: 0,
            start_ticks: 0,
            parent: None,
            parent_pid: 0,
            at_ns: 0,
            executable: Vec::new(),
            command: Vec::new(),
            exec: false,
            python_version: 0,
            inherited_blocks: 0,
            inherited_bytes: 0,
        }),
        kind::THREAD => Record::Thread(Thread {
            process: 0,
            tid: 0,
            name: String::new(),
            at_ns: 0,
        }),
        kind::MODULE => Record::Module(Module {
            path: Vec::new(),
            build_id: Vec::new(),
        }),
        kind::CODE => Record::Code(Code {
            file: String::new(),
            name: String::new(),
            first_line: 0,
            lines: Vec::new(),
        }),
        kind::NODE => Record::Node(Node {
            parent: 0,
            frame: Frame::Broken,
        }),
        kind::SITE => Record::Site(Site {
            process: 0,
            node: 0,
            domain: Domain::Native,
        }),
        _ => return None,
    })
}

/// The session of a recording whose first chunk is lost.
pub(crate) fn unknown_session() -> Record {
    Record::Session(Session {
        started_unix_ns: 0,
        leakline: String::new(),
        command: Vec::new(),
        mode: String::new(),
        sample_bytes: 0,
        python: true,
        native: true,
        host: String::new(),
        temporary_window: 0,
    })
}
