//! Drains rings into a live table, time bins and a recording.
//!
//! The collector is a process of its own, one a session (`serve`). Its thread
//! of rounds reads what targets publish in shared memory and owns all state; a
//! second one answers targets that join; a third resolves symbols; now and then
//! one compacts the recording. Nothing a target wrote is believed: it is copied,
//! checked, then used.
//!
//! | module | what it does |
//! | --- | --- |
//! | `serve` | the process: signals, control socket, waiting, the end |
//! | `handshake` | lets targets join |
//! | `clients` | commands that ask about the session, or for a snapshot |
//! | `session` | the shared map, the pool of chunks |
//! | `engine` | processes, rounds, bins, what is written when |
//! | `order`, `ring` | rings merged by stamp |
//! | `image` | what events mean to one process |
//! | `live`, `maps` | its live blocks and mappings |
//! | `graph` | what a forked child tells of its heap, joined with live blocks |
//! | `occasions` | when one is worth taking though nobody asks just then |
//! | `lost` | native blocks to which nothing in a process's memory points |
//! | `ledgers`, `pages` | what processes' memory is made of, what pages their blocks keep |
//! | `tally` | counters by site, thread and session; the state at the peak |
//! | `names`, `lines` | stacks, modules, code objects |
//! | `output`, `compaction` | what waits for the file, and the file kept small |
//! | `resolve` | symbols and source lines |
#![expect(
    unsafe_code,
    reason = "references into shared memory, prefetch, the time-stamp counter, signal masks"
)]

mod bins;
mod clients;
mod clock;
mod cohorts;
mod compaction;
mod engine;
mod graph;
mod handshake;
mod image;
mod ledgers;
mod limits;
mod lines;
mod live;
mod lost;
mod maps;
mod names;
mod occasions;
mod order;
mod output;
mod pages;
mod process;
pub mod protocol;
mod resolve;
mod ring;
mod serve;
mod session;
pub mod steering;
mod tally;
#[cfg(test)]
mod testing;
mod weights;

pub use clock::tsc_is_trusted;
pub use ledgers::{LedgerReader, ReadsMemory};
pub use process::public_command;
pub use serve::serve;
