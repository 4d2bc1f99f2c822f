//! Commands that ask about the session: who may, what they want, what they are
//! answered.
//!
//! # Invariants
//!
//! * Nothing waits for a client: sockets do not block, who says nothing within
//!   [`PATIENCE`] is dropped, and there is a bound to how many are heard at once.
//! * Who is neither of our user nor root is told nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, send, socket_with, sockopt,
};

use crate::process::Identity;
use crate::protocol::{self, COMMAND_BYTES, Reply, Request};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients that are heard at once; more wait in the kernel's queue.
const MOST_OPEN: usize = 16;

/// Somebody who connected.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clients {
    listener: OwnedFd,
    open: Vec<Client>,
}

impl Clients {
    /// Listens under this process's name.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let own = Identity::read(std::process::id());
        Self::listen_at(&protocol::commands_name(own.pid, own.start_ticks))
    }

    /// Listens under an abstract name.
    pub(crate) fn listen_at(name: &str) -> std::io::Result<Self> {
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        bind(
            &listener,
            &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        )?;
        listen(&listener, 64)?;
        Ok(Clients {
            listener,
            open: Vec::new(),
        })
    }

    /// What to wait on for news.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let may_accept = self.open.len() < MOST_OPEN;
        let listener = may_accept.then(|| self.listener.as_fd());
        let open = self.open.iter().map(|client| client.socket.as_fd());
        listener.into_iter().chain(open)
    }

    /// Everything that is asked by now, each with who asks.
    pub(crate) fn requests(&mut self) -> Vec<(Client, Request)> {
        self.accept();
        let mut requests = Vec::new();
        for client in std::mem::take(&mut self.open) {
            match client.hear() {
                Heard::Request(request) => requests.push((client, request)),
                Heard::Nothing if client.since.elapsed() < PATIENCE => self.open.push(client),
                Heard::Nothing | Heard::Nonsense => {}
            }
        }
        requests
    }

    /// Drops those that took too long.
    pub(crate) fn expire(&mut self) {
        self.open.retain(|client| client.since.elapsed() < PATIENCE);
    }

    fn accept(&mut self) {
        let own = rustix::process::geteuid();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while self.open.len() < MOST_OPEN {
            match accept_with(&self.listener, flags) {
                Ok(socket) => {
                    let may = sockopt::socket_peercred(&socket)
                        .is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
                    if may {
                        self.open.push(Client {
                            socket,
                            since: Instant::now(),
                        });
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // None left, or no descriptor for one: it waits on.
                Err(_) => return,
            }
        }
    }
}

enum Heard {
    Request(Request),
    Nothing,
    /// Or it hung up.
    Nonsense,
}

impl Client {
    fn hear(&self) -> Heard {
        let mut packet = vec![0; COMMAND_BYTES];
        match protocol::receive(&self.socket, &mut packet, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Heard::Nothing,
            Ok(length @ 1..) => {
                protocol::unpacked(&packet[..length]).map_or(Heard::Nonsense, Heard::Request)
            }
            Ok(_) | Err(_) => Heard::Nonsense,
        }
    }

    /// How long ago it came.
    pub(crate) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Answers. Who went away, or reads nothing, does not want to know.
    pub(crate) fn answer(&self, reply: &Reply) {
        if let Some(packet) = protocol::packet(reply) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = send(&self.socket, &packet, flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{connect, recv};

    use super::*;

    fn connected(name: &str) -> OwnedFd {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        connect(&socket, &address).unwrap();
        socket
    }

    fn say(socket: &OwnedFd, packet: &[u8]) {
        send(socket, packet, SendFlags::NOSIGNAL).unwrap();
    }

    #[test]
    fn nonsense_is_dropped_and_the_silent_keep_nobody_waiting() {
        let name = format!("leakline-test-clients-{}", std::process::id());
        let mut clients = Clients::listen_at(&name).unwrap();
        let silent: Vec<OwnedFd> = (0..3).map(|_| connected(&name)).collect();
        let foolish = connected(&name);
        say(&foolish, b"\xff\xff\xff\xff what?");
        let hasty = connected(&name);
        drop(hasty);
        let asks = connected(&name);
        say(&asks, &protocol::packet(&Request::Status).unwrap());
        let requests = clients.requests();
        let [(client, Request::Status)] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert_eq!(clients.open.len(), silent.len());
        client.answer(&Reply::Refused { why: "no".into() });
        let mut bytes = [0; 64];
        let (length, _) = recv(&asks, bytes.as_mut_slice(), RecvFlags::empty()).unwrap();
        let reply: Reply = protocol::unpacked(&bytes[..length]).unwrap();
        assert_eq!(reply, Reply::Refused { why: "no".into() });
        assert!(matches!(
            recv(&foolish, bytes.as_mut_slice(), RecvFlags::empty()),
            Ok((0, _)) | Err(_)
        ));
    }

    #[test]
    fn a_crowd_waits_outside() {
        let name = format!("leakline-test-crowd-{}", std::process::id());
        let mut clients = Clients::listen_at(&name).unwrap();
        let crowd: Vec<OwnedFd> = (0..2 * MOST_OPEN).map(|_| connected(&name)).collect();
        assert!(clients.requests().is_empty());
        assert_eq!(clients.open.len(), MOST_OPEN);
        // Its listener is not waited on: who stands there would wake us for ever.
        assert_eq!(clients.fds().count(), MOST_OPEN);
        drop(crowd);
        assert!(clients.requests().is_empty());
        assert!(clients.requests().is_empty());
        assert_eq!(clients.open.len(), 0);
    }

    #[test]
    fn another_versions_words_are_not_understood() {
        let mut packet = protocol::packet(&Request::Flush).unwrap();
        assert_eq!(protocol::unpacked(&packet), Some(Request::Flush));
        packet[0] += 1;
        assert_eq!(protocol::unpacked::<Request>(&packet), None);
        assert_eq!(protocol::unpacked::<Request>(&[]), None);
    }
}
