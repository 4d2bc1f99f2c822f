//! Lets targets join: a thread that answers within milliseconds, whatever the
//! rounds of draining are busy with.
//!
//! # Invariants
//!
//! * Nothing here waits for a client: connections that say nothing are dropped
//!   after [`PATIENCE`], and there is a bound to how many may be open.
//! * Who does not know the session's token learns nothing and gets nothing.
//! * The thread of rounds hears of a process before that process is answered:
//!   no event of it can come earlier.
//! * Who said hello and did not wait for the answer is counted, also at the
//!   session's end: this process may have been stopped until then.

use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use leakline_wire::layout::{self, Hello, SLOT_COUNT, Slot, Welcome, mode, slot_state};
use leakline_wire::sync::Ordering;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, accept_with,
    recv, sendmsg, sockopt,
};

use crate::clock;
use crate::engine::Joined;
use crate::process::{self, Identity};
use crate::session::SessionMap;

/// How long a connection may take to say hello.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that may be open at once; more wait in the kernel's queue.
const MOST_OPEN: usize = 64;
const HELLO_BYTES: usize = size_of::<Hello>();

/// What the thread works with.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// Non-blocking, listening.
    pub(crate) listener: OwnedFd,
    /// The session.
    pub(crate) session: Arc<SessionMap>,
    /// Its secret.
    pub(crate) token: [u8; 16],
    /// Where those who joined are told of.
    pub(crate) joined: Sender<Joined>,
    /// The target's pid, 0 before it is known.
    pub(crate) target: Arc<AtomicU32>,
    /// Hangs up when the thread is to end.
    pub(crate) stop: OwnedFd,
    /// It did: nobody is let in any more.
    pub(crate) is_over: bool,
}

struct Connection {
    socket: OwnedFd,
    since: Instant,
    bytes: [u8; HELLO_BYTES],
    got: usize,
}

impl Handshake {
    /// Answers until `stop` hangs up.
    pub(crate) fn run(mut self) {
        let mut open: Vec<Connection> = Vec::new();
        loop {
            let mut fds = vec![PollFd::new(&self.stop, PollFlags::IN)];
            let may_accept = open.len() < MOST_OPEN;
            if may_accept {
                fds.push(PollFd::new(&self.listener, PollFlags::IN));
            }
            let first = fds.len();
            fds.extend(open.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
            // Only whoever is slow needs a look at the clock.
            let timeout = (!open.is_empty()).then_some(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            if poll(&mut fds, timeout.as_ref()).is_err_and(|error| error != Errno::INTR) {
                return;
            }
            if !fds[0].revents().is_empty() {
                break;
            }
            let is_ready: Vec<bool> = fds[first..]
                .iter()
                .map(|fd| !fd.revents().is_empty())
                .collect();
            let has_new = may_accept && !fds[1].revents().is_empty();
            let now = Instant::now();
            let mut ready = is_ready.into_iter();
            open.retain_mut(|connection| {
                let is_done = ready.next().unwrap_or(false) && self.hear(connection);
                !is_done && now.duration_since(connection.since) < PATIENCE
            });
            if has_new {
                self.accept(&mut open);
            }
        }
        self.is_over = true;
        open.retain_mut(|connection| !self.hear(connection));
        let mut is_full = true;
        while is_full {
            open.clear();
            self.accept(&mut open);
            is_full = open.len() >= MOST_OPEN;
        }
    }

    fn accept(&self, open: &mut Vec<Connection>) {
        while open.len() < MOST_OPEN {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    let mut connection = Connection {
                        socket,
                        since: Instant::now(),
                        bytes: [0; HELLO_BYTES],
                        got: 0,
                    };
                    // Mostly the hello is there already.
                    if !self.hear(&mut connection) {
                        open.push(connection);
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // Out of descriptors or memory: later, not in a spin.
                    std::thread::sleep(Duration::from_millis(10));
                    return;
                }
            }
        }
    }

    /// Reads what a connection says, and answers once it is whole. True when
    /// the connection is done with.
    fn hear(&self, connection: &mut Connection) -> bool {
        loop {
            let rest = &mut connection.bytes[connection.got..];
            match recv(&connection.socket, rest, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return true,
                Ok((count, _)) => {
                    connection.got += count;
                    if connection.got == HELLO_BYTES {
                        self.judge(connection);
                        return true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Checks a hello and lets the process in, or turns it away.
    fn judge(&self, connection: &Connection) {
        let hello = parse(&connection.bytes);
        let Ok(peer) = sockopt::socket_peercred(&connection.socket) else {
            return;
        };
        let own = rustix::process::geteuid();
        let is_ours = peer.uid == own || own.is_root();
        if hello.magic != layout::MAGIC || !is_ours || !is_same(&hello.token, &self.token) {
            return;
        }
        if hello.version != layout::VERSION {
            self.answer(connection, Welcome::VERSION, 0);
            return;
        }
        let pid = peer.pid.as_raw_nonzero().get().cast_unsigned();
        let header = self.session.header();
        let target = self.target.load(Ordering::Relaxed);
        if header.mode.load(Ordering::Relaxed) & mode::FOLLOW == 0 && target != 0 && target != pid {
            self.answer(connection, Welcome::NOT_FOLLOWED, 0);
            return;
        }
        if has_hung_up(&connection.socket) {
            self.session.note_answer(pid.cast_signed(), false);
            return;
        }
        if self.is_over {
            self.answer(connection, Welcome::FULL, 0);
            return;
        }
        let Some(slot) = self.claim(hello.pid) else {
            self.answer(connection, Welcome::FULL, 0);
            return;
        };
        let joined = Joined {
            slot,
            identity: Identity::read(pid),
            pidfd: process::watch(pid),
            stamp: clock::stamp(header.clock.load(Ordering::Relaxed)),
        };
        if self.joined.send(joined).is_ok() {
            let is_there = self.answer(connection, Welcome::OK, slot);
            self.session.note_answer(pid.cast_signed(), is_there);
        } else {
            self.answer(connection, Welcome::FULL, 0);
        }
    }

    /// Claims a slot and clears it.
    fn claim(&self, pid: u32) -> Option<u32> {
        (0..SLOT_COUNT as u32).find(|index| {
            let Some(slot) = self.session.slot(*index) else {
                return false;
            };
            // Acquire pairs with the Release that freed the slot.
            let is_claimed = slot
                .state
                .compare_exchange(
                    slot_state::FREE,
                    slot_state::CLAIMED,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok();
            if is_claimed {
                clear(slot, pid);
                // It may be over before anybody looks at it.
                let may = self.session.header().may_graph.load(Ordering::Relaxed);
                slot.may_graph.store(may, Ordering::Relaxed);
            }
            is_claimed
        })
    }

    /// Answers. False when the client is not there any more.
    fn answer(&self, connection: &Connection, status: u32, slot: u32) -> bool {
        let mut bytes = [0; size_of::<Welcome>()];
        bytes[..8].copy_from_slice(&layout::MAGIC.to_ne_bytes());
        bytes[8..12].copy_from_slice(&status.to_ne_bytes());
        bytes[12..].copy_from_slice(&slot.to_ne_bytes());
        let fds = [self.session.memfd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if status == Welcome::OK {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        // A client that went away, or whose buffer of 16 bytes is full, is
        // its own loss: its slot is freed when its end is seen.
        sendmsg(
            connection.socket.as_fd(),
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        )
        .is_ok()
    }
}

/// Whether the other end is closed.
fn has_hung_up(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Takes the words of a hello apart.
fn parse(bytes: &[u8; HELLO_BYTES]) -> Hello {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_ne_bytes(word)
    };
    let mut magic = [0; 8];
    magic.copy_from_slice(&bytes[..8]);
    let mut token = [0; 16];
    token.copy_from_slice(&bytes[16..]);
    Hello {
        magic: u64::from_ne_bytes(magic),
        version: word(8),
        pid: word(12),
        token,
    }
}

/// Compares secrets in a time that does not tell how much of them is equal.
fn is_same(a: &[u8; 16], b: &[u8; 16]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

/// Puts a claimed slot into the state in which a process begins.
fn clear(slot: &Slot, pid: u32) {
    let words = [
        &slot.fork_seq,
        &slot.inherited_codes,
        &slot.inherited_modules,
        &slot.forks,
        &slot.lossy,
        &slot.new_rings,
        &slot.trie_nodes,
        &slot.python_version,
        &slot.left,
        &slot.graph_wanted,
        &slot.values_wanted,
        &slot.graph_begun,
        &slot.graph_error,
        &slot.may_graph,
        &slot.is_graph,
        &slot.scan,
        &slot.scan_threads,
    ];
    for word in words.into_iter().chain(&slot.trie) {
        word.store(0, Ordering::Relaxed);
    }
    let words = [
        &slot.start_stamp,
        &slot.lost_events,
        &slot.lost_bytes,
        &slot.lost_nested,
        &slot.stalled_ns,
        &slot.sampling_ticks,
        &slot.left_out,
        &slot.truncated_stacks,
        &slot.broken_unwinds,
        &slot.scan_stack,
        &slot.scan_own,
    ];
    for word in words {
        word.store(0, Ordering::Relaxed);
    }
    slot.pid.store(pid, Ordering::Relaxed);
    slot.parent_slot.store(u32::MAX, Ordering::Relaxed);
}

const _: () = assert!(HELLO_BYTES == 32 && size_of::<Welcome>() == 16);
