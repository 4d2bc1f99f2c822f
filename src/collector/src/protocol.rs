//! What the supervisor (`leakline run`) and the collector process say to each
//! other over a socket pair: one `postcard` message a packet
//! (`SOCK_SEQPACKET`).
//!
//! The collector is `leakline` itself, started as `leakline __collector` with
//! three inherited descriptors: [`OUTPUT_FD`], [`LISTENER_FD`],
//! [`CONTROL_FD`]. Nothing secret is in its arguments.
//!
//! 1. supervisor: [`ToCollector::Start`]; collector: [`FromCollector::Ready`]
//!    (the map exists, the socket answers) or [`FromCollector::Failed`].
//! 2. supervisor starts the target, then [`ToCollector::Spawned`].
//! 3. supervisor reaps the target, then [`ToCollector::Exited`]; the collector
//!    drains and answers [`FromCollector::Finished`] within about a second. If
//!    other processes of the tree live on it goes on recording by itself.
//!
//! A hang-up of the supervisor's end means the supervisor died: the collector
//! goes on until the tree is gone.
//!
//! `leakline attach` is a supervisor of processes that it did not start
//! ([`Options::attached`]). It gets them to join, and hears of each in a
//! [`FromCollector::Joined`]; their ends it does not tell of. After
//! [`ToCollector::Leave`], or when it hangs up, the collector has all of them
//! leave; who does not come by, being idle, is named in a
//! [`FromCollector::Staying`] and has to be fetched.

use leakline_recording::record::Session;
use serde::{Deserialize, Serialize};

/// The recording, open for reading and writing, empty.
pub const OUTPUT_FD: i32 = 3;
/// The bound and listening abstract socket that targets say hello to.
pub const LISTENER_FD: i32 = 4;
/// The collector's end of the control socket pair.
pub const CONTROL_FD: i32 = 5;

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToCollector {
    /// First message.
    Start(Options),
    /// The target runs under this pid (not yet exec'ed perhaps).
    Spawned {
        /// Its pid.
        pid: u32,
    },
    /// The target ended.
    Exited {
        /// Its pid.
        pid: u32,
        /// Exit status, if it exited.
        status: Option<i32>,
        /// Signal, if it was killed.
        signal: Option<i32>,
    },
    /// Stop recording now: switch the session off, drain, finish.
    Stop,
    /// Have the processes of an attached session leave it; finish when they did.
    Leave,
}

/// How to record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    /// The recording's first record. The collector sets `started_unix_ns`.
    pub session: Session,
    /// The session's secret.
    pub token: [u8; 16],
    /// Bits of `leakline_wire::layout::mode`.
    pub mode: u32,
    /// The mean of a sampled session follows what samples cost
    /// ([`crate::steering`]).
    pub sample_auto: bool,
    /// See `leakline_wire::layout::Header::wait_strikes`.
    pub wait_strikes: u32,
    /// Most bytes of rings (chunks handed to the pool) at once.
    pub ring_bytes: u64,
    /// Embed source lines that frames point to.
    pub sources: bool,
    /// Resolve symbols (else modules and offsets only).
    pub symbols: bool,
    /// The processes were running before; the supervisor is not their parent.
    pub attached: bool,
}

/// From the collector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromCollector {
    /// Targets may come.
    Ready,
    /// It cannot record, or no longer; says why.
    Failed {
        /// What and why, one line.
        error: String,
    },
    /// The target was drained and the file is whole up to here.
    Finished(Summary),
    /// Of an attached session: a process has joined.
    Joined {
        /// Its pid.
        pid: u32,
    },
    /// Of an attached session that is to be left: these processes did not come
    /// by.
    Staying {
        /// Their pids.
        pids: Vec<u32>,
    },
}

/// What was recorded, for the end-of-run summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Processes seen.
    pub processes: u32,
    /// Processes that live on and are still recorded.
    pub still_running: u32,
    /// Allocations.
    pub allocations: u64,
    /// Events lost.
    pub lost_events: u64,
    /// High-water mark of live bytes.
    pub peak_bytes: u64,
    /// When it was, nanoseconds since the start.
    pub peak_at_ns: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// The target never said hello (static, or its environment was cleaned).
    pub never_joined: bool,
    /// Processes that were not recorded: they were not answered in time.
    pub unanswered: u32,
    /// Writing failed at some point (disk full, file size limit): why.
    pub write_error: Option<String>,
}
