//! A session as its supervisor sees it: a name, a secret, and the collector's
//! process at the other end of a socket.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leakline_collector::protocol::{
    self, CONTROL_FD, FromCollector, LISTENER_FD, OUTPUT_FD, Options, ToCollector,
};
use leakline_wire::env;
use leakline_wire::layout::Hello;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, send, socket_with, socketpair,
};
use rustix::process::{Pid, Signal, kill_process};

use super::unseen;
use crate::CliError;
use crate::error::plain_words;

/// Longest a collector may take until it answers that targets may come.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How processes find a session, and that they may join: the value of
/// [`leakline_wire::env::SESSION`].
pub(crate) struct Invitation {
    name: String,
    token: [u8; 16],
    /// Where the socket lies for us, of a session whose name is a path that its
    /// processes see.
    path: Option<PathBuf>,
    /// The directory that this path begins with.
    _place: Option<OwnedFd>,
}

impl Invitation {
    /// A new one, not to be guessed.
    pub(crate) fn new() -> Result<Invitation, rustix::io::Errno> {
        let unique = u64::from_ne_bytes(crate::random()?);
        let name = format!("leakline-{}-{unique:016x}", std::process::id());
        Ok(Invitation {
            name,
            token: crate::random()?,
            path: None,
            _place: None,
        })
    }

    /// A new one for processes that see other abstract names than we do: a socket
    /// in the directory `seen` of their file system, which for us is open as `ours`.
    pub(crate) fn below(ours: OwnedFd, seen: &Path) -> Result<Invitation, rustix::io::Errno> {
        let new = Invitation::new()?;
        let path = format!("/proc/self/fd/{}/{}", ours.as_raw_fd(), new.name);
        Ok(Invitation {
            path: Some(path.into()),
            name: seen.join(&new.name).to_string_lossy().into_owned(),
            token: new.token,
            _place: Some(ours),
        })
    }

    /// Binds a socket to its name.
    fn bind(&self, socket: &OwnedFd) -> rustix::io::Result<()> {
        let Some(path) = &self.path else {
            return bind(
                socket,
                &SocketAddrUnix::new_abstract_name(self.name.as_bytes())?,
            );
        };
        // Who may not know the secret gets nothing, whoever connects. One thread
        // runs in this process.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o111));
        let bound = bind(socket, &SocketAddrUnix::new(path)?);
        rustix::process::umask(before);
        bound
    }

    /// Waits until whoever listens has come to all that was said to it so far. False:
    /// not in the time given.
    pub(crate) fn is_answered_within(&self, patience: Duration) -> bool {
        let attempt = || -> rustix::io::Result<bool> {
            let address = match &self.path {
                Some(path) => SocketAddrUnix::new(path)?,
                None => SocketAddrUnix::new_abstract_name(self.name.as_bytes())?,
            };
            let socket = stream_socket()?;
            // Where many wait already, so does who connects.
            set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
            connect(&socket, &address)?;
            // A hello of nobody's: it is hung up on, in its turn.
            send(&socket, &[0; size_of::<Hello>()], SendFlags::NOSIGNAL)?;
            let timeout = Timespec::try_from(patience).map_err(|_| rustix::io::Errno::INVAL)?;
            let mut fds = [PollFd::new(&socket, PollFlags::IN)];
            Ok(poll(&mut fds, Some(&timeout))? == 1)
        };
        attempt().unwrap_or(false)
    }

    /// Takes its name away again, where that is a file.
    pub(crate) fn remove(&self) {
        if let Some(path) = &self.path {
            // Gone is gone.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The session's secret.
    pub(crate) fn token(&self) -> [u8; 16] {
        self.token
    }

    /// As the environment has it.
    pub(crate) fn to_env(&self) -> String {
        format!("{}:{:032x}", self.name, u128::from_be_bytes(self.token))
    }
}

/// Whether somebody listens for the session that `value` (of
/// [`leakline_wire::env::SESSION`]) names: not, when the variable was handed
/// on beyond the session's end.
pub(crate) fn is_open(value: &[u8]) -> bool {
    let name = value
        .iter()
        .rposition(|byte| *byte == b':')
        .map_or(value, |colon| &value[..colon]);
    let attempt = || {
        let address = SocketAddrUnix::new_abstract_name(name)?;
        connect(stream_socket()?, &address)
    };
    attempt().is_ok()
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// The collector's process.
#[derive(Debug)]
pub(crate) struct Collector {
    pid: Pid,
    control: OwnedFd,
}

/// What came from the collector.
#[derive(Debug)]
pub(crate) enum Answer {
    /// This.
    Message(FromCollector),
    /// Nothing, in the time given.
    Nothing,
    /// It hung up: its process is gone.
    Gone,
}

impl Collector {
    /// Starts the collector of a session that writes to `output`, and waits
    /// until targets may come.
    pub(crate) fn start(
        output: &File,
        invitation: &Invitation,
        options: Options,
    ) -> Result<Collector, CliError> {
        Self::begin(spawn("__collector", output, invitation), options)
    }

    /// As [`Collector::start`], from within a program whose other parts are not to
    /// notice. `helper` is the command that becomes the collector.
    pub(crate) fn start_unseen(
        helper: &[OsString],
        output: &File,
        invitation: &Invitation,
        options: Options,
    ) -> Result<Collector, CliError> {
        Self::begin(spawn_unseen(helper, output, invitation), options)
    }

    fn begin(spawned: io::Result<Collector>, options: Options) -> Result<Collector, CliError> {
        let collector = spawned.map_err(|source| CliError::System {
            action: "start the collector",
            source,
        })?;
        let silent = |what: &str| CliError::Collector { why: what.into() };
        if !collector.send(&ToCollector::Start(Box::new(options))) {
            return Err(silent("it ended at once"));
        }
        let result = match collector.receive(READY_WITHIN) {
            Answer::Message(FromCollector::Ready) => Ok(()),
            Answer::Message(FromCollector::Failed { error }) => Err(CliError::Collector {
                why: plain_words(&error),
            }),
            Answer::Message(_) => Err(silent("it finished at once")),
            Answer::Nothing => Err(silent("it did not answer")),
            Answer::Gone => Err(silent("it ended at once")),
        };
        match result {
            Ok(()) => Ok(collector),
            Err(error) => {
                collector.kill();
                Err(error)
            }
        }
    }

    /// Starts the keeper of a program that is to be woken, and waits until its
    /// processes may come. It is told nothing more, and ends when this is dropped.
    pub(crate) fn start_keeper(
        door: &File,
        invitation: &Invitation,
    ) -> Result<Collector, CliError> {
        let failed = |source| CliError::System {
            action: "start the keeper",
            source,
        };
        let keeper = spawn("__keeper", door, invitation).map_err(failed)?;
        let mut word = [0; 16];
        let is_ready = send(&keeper.control, &invitation.token, SendFlags::NOSIGNAL)
            .and_then(|_| recv(&keeper.control, word.as_mut_slice(), RecvFlags::empty()));
        match is_ready {
            Ok((1.., _)) => Ok(keeper),
            Ok(_) => Err(failed(io::Error::other("it ended at once"))),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Closes every descriptor that this process inherited beyond the standard
    /// ones, and keeps the collector's socket: the target has its own copies,
    /// and whoever reads the other end of a pipe shall see its end when the
    /// target closes it.
    pub(crate) fn close_inherited(&self) {
        let own = self.control.as_raw_fd().unsigned_abs();
        // SAFETY: the socket is the only descriptor that anything of this
        // process still owns: what led to the target's begin (the file, the
        // pipes) was closed with it, and one thread runs.
        unsafe {
            close_range(3, own - 1, 0);
            close_range(own + 1, libc::c_uint::MAX, 0);
        }
    }

    /// Tells it something; `false` when it is gone.
    pub(crate) fn send(&self, message: &ToCollector) -> bool {
        postcard::to_stdvec(message)
            .is_ok_and(|bytes| send(&self.control, &bytes, SendFlags::NOSIGNAL).is_ok())
    }

    /// Waits for its next message.
    pub(crate) fn receive(&self, at_most: Duration) -> Answer {
        let deadline = Instant::now() + at_most;
        let mut packet = vec![0; 64 * 1024];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(&self.control, PollFlags::IN)];
            match poll(&mut ready, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return Answer::Nothing,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Answer::Gone,
            }
            return match protocol::receive(&self.control, &mut packet, RecvFlags::empty()) {
                Ok(length @ 1..) => {
                    postcard::from_bytes(&packet[..length]).map_or(Answer::Gone, Answer::Message)
                }
                _ => Answer::Gone,
            };
        }
    }

    /// Ends it, where nothing was recorded yet.
    pub(crate) fn kill(&self) {
        // Fails only when it has ended by itself.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// What a collector inherits, and this process's end of its socket.
struct Inherited {
    descriptors: [(OwnedFd, RawFd); 3],
    control: OwnedFd,
}

impl Inherited {
    /// With `first` in the place of the recording.
    fn new(first: &File, invitation: &Invitation) -> io::Result<Inherited> {
        let listener = stream_socket()?;
        invitation.bind(&listener)?;
        // The kernel takes its own limit where that is lower.
        listen(&listener, 4096)?;
        let (control, control_of_collector) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        // Out of the way of the numbers that they will get.
        let high = |descriptor: BorrowedFd<'_>| fcntl_dupfd_cloexec(descriptor, HIGH);
        let descriptors = [
            (high(first.as_fd())?, OUTPUT_FD),
            (high(listener.as_fd())?, LISTENER_FD),
            (high(control_of_collector.as_fd())?, CONTROL_FD),
        ];
        Ok(Inherited {
            descriptors,
            control,
        })
    }

    /// From where to where the descriptors go.
    fn numbers(&self) -> [(RawFd, RawFd); 3] {
        [0, 1, 2].map(|n: usize| {
            let (from, to) = &self.descriptors[n];
            (from.as_raw_fd(), *to)
        })
    }
}

/// Starts the collector as [`unseen`] says.
fn spawn_unseen(
    helper: &[OsString],
    output: &File,
    invitation: &Invitation,
) -> io::Result<Collector> {
    let inherited = Inherited::new(output, invitation)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let null = fcntl_dupfd_cloexec(null.as_fd(), HIGH)?;
    let mut command = helper.to_vec();
    command.push("__collector".into());
    let pid = unseen::spawn(&command, inherited.numbers(), null.as_raw_fd())?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Collector {
        pid,
        control: inherited.control,
    })
}

/// Starts the process `verb`, with `first` in the place of the recording.
fn spawn(verb: &str, first: &File, invitation: &Invitation) -> io::Result<Collector> {
    let inherited = Inherited::new(first, invitation)?;
    let numbers = inherited.numbers();

    let own = crate::OWN_COMMAND.get().map(Vec::as_slice);
    let mut command = if let Some([program, arguments @ ..]) = own {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("leakline");
        command
    };
    command
        .arg(verb)
        .current_dir("/")
        // The collector is nobody's target.
        .env_remove(env::PRELOAD)
        .env_remove(env::SESSION)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only system calls are made; the numbers
    // were copied, and the descriptors they stand for live until after spawn.
    unsafe { command.pre_exec(move || become_collector(numbers)) };
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Collector {
        pid,
        control: inherited.control,
    })
}

/// Above every number of the protocol.
const HIGH: RawFd = CONTROL_FD + 1;

/// In the child, before it becomes the collector: leaves the terminal, puts
/// the descriptors where the protocol says, and keeps none that this process
/// happened to inherit (the end of somebody's pipe would stay open as long as
/// the collector lives).
pub(super) fn become_collector(numbers: [(RawFd, RawFd); 3]) -> io::Result<()> {
    rustix::process::setsid()?;
    for (from, to) in numbers {
        // SAFETY: takes numbers. Nothing of the process that runs here needs
        // what is at `to`: the supervisor has more than three descriptors
        // open, so those that `Command` made since have higher numbers.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    close_others_on_exec();
    Ok(())
}

/// Marks everything above the protocol's numbers to be closed by the exec.
fn close_others_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    const FIRST: RawFd = CONTROL_FD + 1;
    // SAFETY: marks, closes nothing.
    if unsafe { close_range(FIRST.unsigned_abs(), libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) } {
        return;
    }
    // Before Linux 5.11: what programs usually have.
    for number in FIRST..1024 {
        // SAFETY: takes a number, and fails for one that is not open.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// `close_range(2)`; `false` where the kernel does not have it, or not the
/// flag.
///
/// # Safety
///
/// Without flags, nothing may own a descriptor in the range.
unsafe fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> bool {
    // SAFETY: takes numbers; what they stand for is the caller's to answer.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_answers_or_is_not_waited_for() {
        const SHORT: Duration = Duration::from_millis(50);
        let invitation = Invitation::new().unwrap();
        // Nobody listens.
        assert!(!invitation.is_answered_within(SHORT));
        let door = stream_socket().unwrap();
        invitation.bind(&door).unwrap();
        listen(&door, 1).unwrap();
        // Nobody comes: hellos wait, and then there is no more room for them.
        for _ in 0..4 {
            assert!(!invitation.is_answered_within(SHORT));
        }
        let collector = std::thread::spawn(move || {
            while let Ok(socket) = rustix::net::accept(&door) {
                let mut hello = [0; size_of::<Hello>()];
                let _ = recv(&socket, &mut hello[..], RecvFlags::empty());
            }
        });
        assert!(invitation.is_answered_within(Duration::from_secs(5)));
        // It ends with the process of the test.
        drop(collector);
    }
}
