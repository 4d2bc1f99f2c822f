//! `leakline run --idle`: a program with the interposer loaded and switched off,
//! and what wakes it.
//!
//! Its processes get a page of shared memory from the keeper, a process beside
//! the supervisor as a collector is, and look at one word of it. `leakline attach`
//! asks the keeper, whose socket's name says which program it keeps, to write an
//! invitation there: so no ptrace is needed.

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use leakline_collector::protocol::{CONTROL_FD, LISTENER_FD, OUTPUT_FD};
use leakline_wire::layout::{self, Hello, IDLE_BYTES, IDLE_WORDS, IdlePage, Welcome};
use leakline_wire::sync::Ordering;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, connect, listen, recv, send, sendmsg, socket_with,
    sockopt,
};

/// How long who connects may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest invitation, its NUL included.
const MOST_BYTES: usize = 8 * IDLE_WORDS;
/// What is answered to who asked to wake the program.
const WOKEN: &[u8] = b"woken";

fn address(pid: u32, start_ticks: u64) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new_abstract_name(format!("leakline-idle-{pid}-{start_ticks}").as_bytes())
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// The socket by which the program that has this pid is woken.
pub(super) fn open_door(pid: u32, start_ticks: u64) -> io::Result<OwnedFd> {
    let door = stream_socket()?;
    bind(&door, &address(pid, start_ticks)?)?;
    listen(&door, 16)?;
    Ok(door)
}

/// Whether that program has a keeper.
pub(in crate::commands) fn is_kept(pid: u32, start_ticks: u64) -> bool {
    // It is asked nothing: who connects and says nothing is forgotten.
    let connected = || connect(&stream_socket()?, &address(pid, start_ticks)?);
    connected().is_ok()
}

/// Asks the keeper of that program to hand an invitation on. `Ok(false)`: nobody
/// keeps it.
pub(in crate::commands) fn wake(pid: u32, start_ticks: u64, invitation: &str) -> io::Result<bool> {
    let socket = stream_socket()?;
    if connect(&socket, &address(pid, start_ticks)?).is_err() {
        return Ok(false);
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let mut words = invitation.as_bytes().to_vec();
    words.push(0);
    send(&socket, &words, SendFlags::NOSIGNAL)?;
    let mut answer = [0; 16];
    let (length, _) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    if &answer[..length] == WOKEN {
        Ok(true)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// What the keeper shares with the program's processes.
struct Page {
    memfd: OwnedFd,
    at: *const IdlePage,
}

impl Page {
    fn make() -> io::Result<Page> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("leakline-idle", flags)?;
        rustix::fs::ftruncate(&memfd, IDLE_BYTES as u64)?;
        rustix::fs::fallocate(
            &memfd,
            rustix::fs::FallocateFlags::empty(),
            0,
            IDLE_BYTES as u64,
        )?;
        rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::SEAL)?;
        // SAFETY: a new mapping of a memfd that cannot shrink; never unmapped.
        let at = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                IDLE_BYTES,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &memfd,
                0,
            )?
        };
        let page = Page {
            memfd,
            at: at.cast_const().cast(),
        };
        page.get().version.store(layout::VERSION, Ordering::Relaxed);
        page.get().magic.store(layout::MAGIC, Ordering::Release);
        Ok(page)
    }

    fn get(&self) -> &IdlePage {
        // SAFETY: mapped for good; a page is aligned well enough, all its words
        // are atomic, and zeros are valid.
        unsafe { &*self.at }
    }

    fn invite(&self, words: &[u8]) {
        let page = self.get();
        let turn = page.turn.fetch_add(1, Ordering::AcqRel);
        for (at, word) in page.invitation.iter().enumerate() {
            let mut bytes = [0; 8];
            let rest = words.get(8 * at..).unwrap_or_default();
            let length = rest.len().min(8);
            bytes[..length].copy_from_slice(&rest[..length]);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        page.turn.store(turn.wrapping_add(2), Ordering::Release);
    }
}

/// The keeper's whole life: ends when the supervisor hangs up.
pub(in crate::commands) fn keep() -> ExitCode {
    let _ = rustix::thread::set_name(c"leakline");
    let mut owned = [OUTPUT_FD, LISTENER_FD, CONTROL_FD].map(|number| {
        // SAFETY: asks about a number.
        let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        // SAFETY: open, and this process's own by the protocol.
        open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
    });
    let (Some(door), Some(listener), Some(control)) =
        (owned[0].take(), owned[1].take(), owned[2].take())
    else {
        return ExitCode::from(2);
    };
    match serve(&door, &listener, &control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(door: &OwnedFd, listener: &OwnedFd, control: &OwnedFd) -> io::Result<()> {
    let mut token = [0; 16];
    let (length, _) = recv(control, token.as_mut_slice(), RecvFlags::empty())?;
    if length != token.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let page = Page::make()?;
    send(control, WOKEN, SendFlags::NOSIGNAL)?;
    loop {
        let mut fds = [control, door, listener].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let [is_over, is_asked, is_greeted] = fds.map(|fd| !fd.revents().is_empty());
        if is_over {
            let mut byte = [0; 1];
            // Only its end is of interest.
            if !matches!(
                recv(control, byte.as_mut_slice(), RecvFlags::DONTWAIT),
                Ok((1.., _))
            ) {
                return Ok(());
            }
        }
        if is_asked {
            let _ = wake_for(door, &page);
        }
        if is_greeted {
            let _ = greet(listener, token, &page);
        }
    }
}

/// Reads at least `least` bytes of what somebody says, or what ends with a NUL.
fn hear(socket: &OwnedFd, bytes: &mut [u8], least: usize) -> io::Result<usize> {
    sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let began = Instant::now();
    let mut got = 0;
    while got < least && began.elapsed() < PATIENCE {
        let (length, _) = recv(socket, &mut bytes[got..], RecvFlags::empty())?;
        got += length;
        if length == 0 || bytes[..got].contains(&0) && least == bytes.len() {
            break;
        }
    }
    Ok(got)
}

/// Hands an invitation on, from somebody who may.
fn wake_for(door: &OwnedFd, page: &Page) -> io::Result<()> {
    let socket = accept_with(door, SocketFlags::CLOEXEC)?;
    let peer = sockopt::socket_peercred(&socket)?;
    let own = rustix::process::geteuid();
    if peer.uid != own && !peer.uid.is_root() {
        return Ok(());
    }
    let mut words = [0; MOST_BYTES];
    let got = hear(&socket, &mut words, MOST_BYTES)?;
    if words[..got].last() == Some(&0) {
        page.invite(&words[..got]);
        send(&socket, WOKEN, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Gives a process of the program the page.
fn greet(listener: &OwnedFd, token: [u8; 16], page: &Page) -> io::Result<()> {
    const HELLO: usize = size_of::<Hello>();
    let socket = accept_with(listener, SocketFlags::CLOEXEC)?;
    let mut bytes = [0; HELLO + 1];
    let got = hear(&socket, &mut bytes[..HELLO], HELLO - 1)?;
    let knows = got == HELLO
        && bytes[..8] == layout::MAGIC.to_ne_bytes()
        && bytes[8..12] == layout::VERSION.to_ne_bytes()
        && u128::from_ne_bytes(token)
            ^ u128::from_ne_bytes(bytes[16..32].try_into().unwrap_or_default())
            == 0;
    if !knows {
        return Ok(());
    }
    let mut answer = [0; size_of::<Welcome>()];
    answer[..8].copy_from_slice(&layout::MAGIC.to_ne_bytes());
    answer[8..12].copy_from_slice(&Welcome::OK.to_ne_bytes());
    let fds = [page.memfd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        &socket,
        &[IoSlice::new(&answer)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// A descriptor for the place of a collector's output, of which there is none.
pub(super) fn as_file(door: OwnedFd) -> File {
    File::from(door)
}
