//! A thread that looks at what processes' memory is made of, and which pages their live
//! blocks lie in.
//!
//! Nothing of it touches a target: ledgers are read from outside, by whoever knows how
//! ([`ReadsMemory`]), and blocks are those of the live table, frozen for it.
//!
//! Looks cost a processor, which the target may need. The thread is nicer than
//! others, looks are [paid for](Budget), and who asks when decides how old one gets.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel};
use std::time::Instant;

use leakline_recording::record::{Inventory, Ledger, PageCost};

use crate::live::Layer;
use crate::maps::Mappings;
use crate::pages::{self, Counted, Residency, own_time_ns};
use crate::process::Identity;

/// Reads from outside what the memory of a process is made of, by its pid and its start in
/// clock ticks since boot. `None`: it is gone, or nothing can be told of it. Process,
/// instant, name and time are filled in by whoever asks.
pub trait ReadsMemory {
    /// What it is made of.
    fn ledger(&mut self, pid: u32, start_ticks: u64) -> Option<Ledger>;
    /// What lives in it, by type; `None` as well of a process without CPython.
    fn inventory(&mut self, pid: u32, start_ticks: u64) -> Option<Inventory>;
    /// Its heap graph, whose parts `hand_on` gets, which says whether to go on. False:
    /// there is none, as of a process without CPython, or with one before 3.11.
    fn heap(&mut self, pid: u32, start_ticks: u64, hand_on: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// See there.
pub type LedgerReader = Box<dyn ReadsMemory>;

/// What the thread is to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Look at a process.
    Look {
        process: u32,
        pid: u32,
        start_ticks: u64,
        name: String,
        /// Live bytes, if it is only worth something as long as they are as many.
        live_bytes: Option<u64>,
    },
    /// List what lives in it by type.
    List {
        process: u32,
        pid: u32,
        start_ticks: u64,
        name: String,
    },
    /// Tell its heap graph, which has a number.
    Heap {
        pid: u32,
        start_ticks: u64,
        number: u32,
        parts: SyncSender<Vec<u8>>,
    },
    /// Count its pages at an instant.
    Pages {
        process: u32,
        identity: Identity,
        at_ns: u64,
        name: String,
        /// How many blocks there are, and bytes.
        blocks: u64,
        live_bytes: u64,
        live: Arc<Layer>,
        mappings: Mappings,
    },
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Done {
    /// A look, which began at an instant.
    Ledger {
        began: Instant,
        cost_ns: u64,
        process: u32,
        ledger: Option<Box<Ledger>>,
        live_bytes: Option<u64>,
    },
    /// A list, which was begun at an instant.
    Inventory {
        began: Instant,
        cost_ns: u64,
        process: u32,
        inventory: Option<Box<Inventory>>,
    },
    /// A heap graph: all of its parts were handed on before.
    Heap {
        cost_ns: u64,
        number: u32,
        is_there: bool,
    },
    /// Pages; live bytes were so many then.
    Pages {
        cost_ns: u64,
        process: u32,
        counted: Box<Counted>,
        live_bytes: u64,
    },
}

impl Done {
    /// Nanoseconds of a processor that it took.
    pub(crate) fn cost_ns(&self) -> u64 {
        match self {
            Done::Ledger { cost_ns, .. }
            | Done::Inventory { cost_ns, .. }
            | Done::Heap { cost_ns, .. }
            | Done::Pages { cost_ns, .. } => *cost_ns,
        }
    }
}

/// The thread, and what is under way.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: Sender<Order>,
    done: Receiver<Done>,
    waiting: usize,
}

impl Worker {
    /// Starts it; the reader is made there. `None`: there can be no thread.
    pub(crate) fn start(reader: fn() -> LedgerReader) -> Option<Worker> {
        let (orders, queue) = channel();
        let (sender, done) = channel();
        let work = move || {
            // Only this thread's, on Linux.
            let _ = rustix::process::nice(10);
            let mut read = reader();
            while let Ok(order) = queue.recv() {
                if sender.send(carry_out(order, &mut read)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("leakline ledger".into());
        thread.spawn(work).ok()?;
        Some(Worker {
            orders,
            done,
            waiting: 0,
        })
    }

    /// Has something done.
    pub(crate) fn order(&mut self, order: Order) {
        if self.orders.send(order).is_ok() {
            self.waiting += 1;
        }
    }

    /// Whether something is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting > 0
    }

    /// How much is under way.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What was done since this was last asked, waiting for one until a deadline.
    pub(crate) fn take(&mut self, until: Option<Instant>) -> Option<Done> {
        if self.waiting == 0 {
            return None;
        }
        let done = match until {
            None => self
                .done
                .try_recv()
                .map_err(|why| why == TryRecvError::Empty),
            Some(until) => {
                let patience = until.saturating_duration_since(Instant::now());
                let done = self.done.recv_timeout(patience);
                done.map_err(|why| why == RecvTimeoutError::Timeout)
            }
        };
        match done {
            Ok(done) => {
                self.waiting -= 1;
                Some(done)
            }
            Err(is_alive) => {
                if !is_alive {
                    // Nothing more will come of it.
                    self.waiting = 0;
                }
                None
            }
        }
    }
}

fn carry_out(order: Order, read: &mut LedgerReader) -> Done {
    let began = Instant::now();
    let before_ns = own_time_ns();
    let cost_ns = || own_time_ns().saturating_sub(before_ns);
    match order {
        Order::Look {
            process,
            pid,
            start_ticks,
            name,
            live_bytes,
        } => {
            let found = read.ledger(pid, start_ticks);
            let cost_ns = cost_ns();
            let ledger = found.map(|ledger| {
                Box::new(Ledger {
                    process,
                    name,
                    microseconds: cost_ns / 1000,
                    ..ledger
                })
            });
            Done::Ledger {
                began,
                cost_ns,
                process,
                ledger,
                live_bytes,
            }
        }
        Order::List {
            process,
            pid,
            start_ticks,
            name,
        } => {
            let found = read.inventory(pid, start_ticks);
            let cost_ns = cost_ns();
            let inventory = found.map(|inventory| {
                Box::new(Inventory {
                    process,
                    name,
                    microseconds: cost_ns / 1000,
                    ..inventory
                })
            });
            Done::Inventory {
                began,
                cost_ns,
                process,
                inventory,
            }
        }
        Order::Heap {
            pid,
            start_ticks,
            number,
            parts,
        } => {
            let mut any = false;
            let is_there = read.heap(pid, start_ticks, &mut |part| {
                any = true;
                parts.send(part.to_vec()).is_ok()
            });
            Done::Heap {
                cost_ns: cost_ns(),
                number,
                is_there: is_there && any,
            }
        }
        Order::Pages {
            process,
            identity,
            at_ns,
            name,
            blocks,
            live_bytes,
            live,
            mappings,
        } => {
            let residency = Residency::of_process(identity);
            let mapped = mappings
                .all()
                .map(|(start, block)| (start, block.size, block.site));
            let counted = pages::count(blocks, residency, mapped, |tell| {
                live.each(|address, block| tell(address, block.size, block.site));
            });
            let of_then = |cost| PageCost {
                process,
                at_ns,
                name: name.clone(),
                ..cost
            };
            Done::Pages {
                cost_ns: cost_ns(),
                process,
                counted: Box::new(Counted {
                    touched: of_then(counted.touched),
                    resident: counted.resident.map(of_then),
                }),
                live_bytes,
            }
        }
    }
}

/// What looks may cost: one percent of a processor, and a little in advance.
#[derive(Debug)]
pub(crate) struct Budget {
    left_ns: i64,
    since_ns: u64,
}

impl Budget {
    /// The part of the time that looks may take.
    const PART: u64 = 100;
    /// In advance: some looks at the beginning, and what a pause saves for later.
    const ADVANCE_NS: i64 = 250_000_000;

    pub(crate) fn new() -> Self {
        Budget {
            left_ns: Self::ADVANCE_NS,
            since_ns: 0,
        }
    }

    /// Whether there is something left, at an instant.
    pub(crate) fn allows(&mut self, now_ns: u64) -> bool {
        let earned = now_ns.saturating_sub(self.since_ns) / Self::PART;
        // Fractions are not lost.
        self.since_ns += earned * Self::PART;
        let sum = self.left_ns.saturating_add_unsigned(earned);
        self.left_ns = sum.min(Self::ADVANCE_NS);
        self.left_ns > 0
    }

    /// So much was used.
    pub(crate) fn use_up(&mut self, cost_ns: u64) {
        self.left_ns = self.left_ns.saturating_sub_unsigned(cost_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_cost_a_hundredth() {
        const MILLISECOND: u64 = 1_000_000;
        let mut budget = Budget::new();
        let mut used = 0;
        for now in 0..100_000 {
            if budget.allows(now * MILLISECOND) {
                budget.use_up(40 * MILLISECOND);
                used += 40;
            }
        }
        // The advance, the hundredth, and the look that is under way.
        assert!(used <= 250 + 1000 + 40, "{used}");
        assert!(used >= 250 + 1000 - 40, "{used}");
    }

    #[test]
    fn one_that_takes_long_is_waited_for_until_it_is_paid() {
        let mut budget = Budget::new();
        assert!(budget.allows(0));
        budget.use_up(5_000_000_000);
        assert!(!budget.allows(400_000_000_000));
        assert!(budget.allows(500_000_000_000));
    }
}
