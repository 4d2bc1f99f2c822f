//! How `leakline detach` finds the `leakline attach` of a process: a socket whose
//! abstract name says which process it is.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use leakline_inject::inspect::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, connect, listen, recv, send, socket_with, sockopt,
};

/// What is answered: everything is as it was.
const WHOLE: &[u8] = b"whole";
/// ... or not.
const NOT_WHOLE: &[u8] = b"not whole";

/// The socket of an attached session.
pub(super) struct Door {
    listener: OwnedFd,
    /// It has the name by which it is found.
    is_found: bool,
    /// Who asked, and waits.
    waiting: RefCell<Vec<OwnedFd>>,
}

fn address(pid: u32, start_ticks: u64) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(format!("leakline-attached-{pid}-{start_ticks}").as_bytes())
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
}

impl Door {
    /// Opens the one of `target`'s session. Where somebody else took its name there
    /// is none: `leakline detach` then finds nobody, and the session ends otherwise.
    pub(super) fn open(target: &Process) -> io::Result<Door> {
        let listener = stream_socket()?;
        let is_found = match bind(&listener, &address(target.pid, target.start_ticks)?) {
            Ok(()) => {
                listen(&listener, 16)?;
                true
            }
            Err(Errno::ADDRINUSE) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Door {
            listener,
            is_found,
            waiting: RefCell::default(),
        })
    }

    /// Whether `leakline detach` finds it.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }

    /// Whether somebody who may has asked that the session ends.
    pub(super) fn knocks(&self) -> bool {
        let own = rustix::process::geteuid();
        let flags = SocketFlags::CLOEXEC;
        while let Ok(socket) = accept_with(&self.listener, flags) {
            let may = sockopt::socket_peercred(&socket)
                .is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if may {
                self.waiting.borrow_mut().push(socket);
            }
        }
        !self.waiting.borrow().is_empty()
    }

    /// Tells who asked that it has ended.
    pub(super) fn answer(self, is_whole: bool) {
        let word = if is_whole { WHOLE } else { NOT_WHOLE };
        for socket in self.waiting.into_inner() {
            // Who went away does not want to know.
            let _ = send(&socket, word, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

/// What became of asking for an end.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands) enum Asked {
    /// The session has ended, and all is as it was.
    Whole,
    /// It has ended, and a process could not be reached.
    NotWhole,
    /// It does not answer.
    Silent,
    /// There is no such session.
    Nobody,
}

/// Asks the session of that process to end, and waits until it did.
pub(in crate::commands) fn ask(pid: u32, start_ticks: u64, at_most: Duration) -> Asked {
    let connected = stream_socket().and_then(|socket| {
        connect(&socket, &address(pid, start_ticks)?)?;
        Ok(socket)
    });
    let own = rustix::process::geteuid();
    // A stranger may have taken the name.
    let is_trusted = |socket: &OwnedFd| {
        sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
    };
    let Some(socket) = connected.ok().filter(is_trusted) else {
        return Asked::Nobody;
    };
    let Ok(time) = Timespec::try_from(at_most) else {
        return Asked::Silent;
    };
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&time)) {
            Ok(0) => return Asked::Silent,
            Err(Errno::INTR) => {}
            _ => break,
        }
    }
    let mut word = [0; 16];
    match recv(&socket, word.as_mut_slice(), RecvFlags::empty()) {
        Ok((length, _)) if &word[..length] == WHOLE => Asked::Whole,
        Ok((length, _)) if &word[..length] == NOT_WHOLE => Asked::NotWhole,
        _ => Asked::Silent,
    }
}
