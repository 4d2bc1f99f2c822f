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
//!
//! Commands of the same user, or of root, ask the collector at a socket of its
//! own ([`commands_name`]): one [`Request`], one [`Reply`], a packet each.

use std::os::fd::AsFd;
use std::time::Duration;

use leakline_recording::record::{Ledger, OfType, Session};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};

use crate::steering::Bounds;

/// The recording, open for reading and writing, empty.
pub const OUTPUT_FD: i32 = 3;
/// The bound and listening abstract socket that targets say hello to.
pub const LISTENER_FD: i32 = 4;
/// The collector's end of the control socket pair.
pub const CONTROL_FD: i32 = 5;

/// Version of [`Request`] and [`Reply`], which two installations may exchange.
const COMMANDS_VERSION: u32 = 4;
/// Largest packet of a command, and of its answer.
pub const COMMAND_BYTES: usize = 64 * 1024;
/// Longest name of a snapshot, in bytes.
pub const NAME_BYTES: usize = 64;
/// Most processes that a [`Status`] lists.
pub const STATUS_PROCESSES: usize = 256;

/// The abstract name of the socket at which the collector with this pid, started
/// then (clock ticks since boot), answers commands.
pub fn commands_name(pid: u32, start_ticks: u64) -> String {
    format!("leakline-commands-{pid}-{start_ticks}")
}

/// The packet that says this to, or by, a collector of the same version.
pub fn packet(message: &impl Serialize) -> Option<Vec<u8>> {
    postcard::to_stdvec(&(COMMANDS_VERSION, message)).ok()
}

/// What a packet says; `None` where it makes no sense, or is of another version.
pub fn unpacked<T: for<'de> Deserialize<'de>>(packet: &[u8]) -> Option<T> {
    let (version, rest) = postcard::take_from_bytes::<u32>(packet).ok()?;
    (version == COMMANDS_VERSION).then_some(())?;
    postcard::from_bytes(rest).ok()
}

/// The next packet's length; 0 when the other side hung up and there is none.
///
/// # Errors
///
/// Those of `recv(2)`, but for two: it is called again when a signal comes, and
/// when the other side hung up with words of ours unread (`ECONNRESET`). The kernel
/// says that before it gives out what the other side had sent.
pub fn receive(socket: impl AsFd, packet: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    loop {
        match recv(&socket, &mut *packet, flags) {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            result => return result.map(|(length, _)| length),
        }
    }
}

/// From a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What is being recorded?
    Status,
    /// Have everything up to now in the file.
    Flush,
    /// Keep this instant, exactly, under this name.
    Snapshot {
        /// Not given before, printable, at most [`NAME_BYTES`] long.
        name: String,
    },
    /// Record every block from now on.
    Exact,
    /// Record a sample of the blocks from now on.
    Sample {
        /// Mean bytes between samples, at first.
        mean_bytes: u64,
        /// It follows what samples cost.
        auto: bool,
    },
    /// Record new blocks of these domains only from now on.
    Domains(Domains),
    /// Have heap graphs taken of all processes with Python, one after the other.
    TakeGraphs {
        /// What they are called: need not be new.
        name: String,
        /// They tell what keys of dicts are, also where the session's do not.
        values: bool,
        /// Those of Python are read from outside: no process forks for it.
        outside: bool,
    },
    /// What became of heap graphs?
    Graphs,
}

/// Whose blocks are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domains {
    /// malloc's family and mmap's.
    pub native: bool,
    /// CPython's three.
    pub python: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Status`], and to [`Request::Flush`], [`Request::Exact`],
    /// [`Request::Sample`] and [`Request::Domains`] once that is done.
    Status(Box<Status>),
    /// To [`Request::Snapshot`].
    Snapshot(Snapshot),
    /// To [`Request::Graphs`], and to [`Request::TakeGraphs`] at once: the latest, oldest
    /// first.
    Graphs(Vec<GraphState>),
    /// It cannot be done: why, in words that go on after "cannot".
    Refused {
        /// One line.
        why: String,
    },
}

/// What is being recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The recording's path; `None` when its file has none any more.
    pub recording: Option<Vec<u8>>,
    /// Recorded are processes that were running before.
    pub attached: bool,
    /// `exact` or `sampled`.
    pub mode: String,
    /// Mean bytes between samples now; 0 when exact.
    pub sample_bytes: u64,
    /// Whose blocks are recorded at all.
    pub begun_with: Domains,
    /// Whose new blocks are recorded now.
    pub domains: Domains,
    /// Hooks are at work: nothing is recorded any more when they are not.
    pub is_on: bool,
    /// When it began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// Nanoseconds since then.
    pub at_ns: u64,
    /// Pids of the processes that live, the first [`STATUS_PROCESSES`] of them.
    pub pids: Vec<u32>,
    /// Names of snapshots, oldest first, as many as there is room for.
    pub snapshots: Vec<String>,
    /// What was recorded so far.
    pub summary: Summary,
}

/// What became of a heap graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphState {
    /// Its number in the recording.
    pub number: u32,
    /// Whose heap.
    pub pid: u32,
    /// What it is called.
    pub name: String,
    /// How far it is.
    pub outcome: GraphOutcome,
    /// Whether there are objects in it: else it is of a process without Python.
    pub has_objects: bool,
    /// What was found of native blocks that nothing points to. `None`: nothing yet, or
    /// nobody looks.
    pub lost: Option<Result<LostState, String>>,
}

/// Native blocks that nothing points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostState {
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of how many.
    pub of: u64,
}

/// Whether heap graphs are read from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromOutside {
    /// A process takes its own, or there is none.
    Never,
    /// Where it takes none.
    Instead,
    /// None is to be taken by a process itself.
    Only,
}

/// How far a heap graph is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphOutcome {
    /// It was not begun yet.
    Waiting,
    /// It is being taken.
    Begun,
    /// It is in the recording.
    Taken {
        /// Objects.
        nodes: u64,
        /// References between them.
        edges: u64,
        /// Bytes of the objects.
        bytes: u64,
        /// How long the process stood still.
        paused_ns: u64,
    },
    /// It is in the recording, but was read from outside while the process ran.
    Outside {
        /// Objects.
        nodes: u64,
        /// References between them.
        edges: u64,
        /// Bytes of the objects.
        bytes: u64,
        /// Why the process took none itself; empty where it was not to.
        why: String,
    },
    /// Some of it is in the recording: why not more.
    CutOff(String),
    /// There is none: why.
    Refused(String),
}

impl GraphOutcome {
    /// Whether it will not change any more.
    pub fn is_settled(&self) -> bool {
        !matches!(self, GraphOutcome::Waiting | GraphOutcome::Begun)
    }
}

/// An instant that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The recording's path; `None` when its file has none any more.
    pub recording: Option<Vec<u8>>,
    /// When the recording began, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// Nanoseconds since then.
    pub at_ns: u64,
    /// Live then, in all processes; estimates in a sampled session.
    pub live_bytes: u64,
    /// The same.
    pub live_blocks: u64,
    /// Processes that lived.
    pub processes: u32,
    /// What is live is estimated.
    pub is_sampled: bool,
}

/// From the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToCollector {
    /// First message.
    Start(Box<Options>),
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
    /// Have heap graphs taken, as by [`Request::TakeGraphs`]; answered by
    /// [`FromCollector::Graphs`], now and with each change.
    TakeGraphs {
        /// What they are called.
        name: String,
    },
}

/// How to record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The recording's first record. The collector sets `started_unix_ns`.
    pub session: Session,
    /// The session's secret.
    pub token: [u8; 16],
    /// Bits of `leakline_wire::layout::mode`.
    pub mode: u32,
    /// The mean of a sampled session follows what samples cost, between these.
    pub steering: Option<Bounds>,
    /// What part of the processor time samples may take, where the user said so: kept
    /// when the session is switched to another mode and back.
    pub most_share: Option<f64>,
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
    /// Processes with no more seccomp filters than these may fork for a heap graph.
    pub forking_filters: u32,
    /// Longest that a process may stand still for a heap graph, as far as that is
    /// known beforehand.
    pub most_pause: Duration,
    /// Heap graphs that nobody asks for at their instant.
    pub graphs: GraphPlan,
}

/// When heap graphs are taken, beside those that are asked for and those of processes'
/// ends (`leakline_wire::layout::mode::GRAPH_AT_END`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphPlan {
    /// After warm-up, and as memory is seen to grow.
    pub auto: bool,
    /// As live memory comes to be more than ever.
    pub peak: bool,
    /// At these instants.
    pub at: Vec<GraphAt>,
}

/// An instant at which heap graphs are to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphAt {
    /// What they are called.
    pub name: String,
    /// So long after the session began.
    pub after: Duration,
}

/// What [`Options::most_pause`] is if nobody says otherwise.
pub const MOST_PAUSE: Duration = Duration::from_millis(200);

/// Types that [`FromCollector::Found`] names.
pub const FOUND_TYPES: usize = 4;

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
    /// Blocks are sampled at a larger mean, for what samples took was too much.
    Coarser {
        /// The mean, in bytes.
        mean_bytes: u64,
        /// Part of the processor time that they took.
        share: f64,
    },
    /// Heap graphs that were asked for, are being taken, or are there.
    Graphs(Vec<GraphState>),
    /// Of an attached session: what the memory of a process was made of when it joined.
    Looked {
        /// Its pid.
        pid: u32,
        /// As it is recorded.
        ledger: Box<Ledger>,
    },
    /// Of an attached session: what lived in a process when it joined, by type. Types of
    /// which most lived, most first.
    Found {
        /// Its pid.
        pid: u32,
        /// At most [`FOUND_TYPES`].
        types: Vec<OfType>,
    },
    /// There is no process to take the heap graph of that was asked for.
    NoGraphs {
        /// Why, in words that go on after "cannot be taken".
        why: String,
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

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    use super::*;

    #[test]
    fn last_words_are_heard_whatever_was_not() {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        send(&ours, b"a question", SendFlags::empty()).unwrap();
        send(&theirs, b"the end", SendFlags::empty()).unwrap();
        drop(theirs);
        let mut packet = [0; 16];
        let mut hear = || receive(&ours, &mut packet, RecvFlags::empty());
        assert_eq!(hear(), Ok(7));
        assert_eq!(hear(), Ok(0));
        assert_eq!(&packet[..7], b"the end");
    }
}
