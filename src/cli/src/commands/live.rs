//! A recording while it is being made: who makes it, and what to ask of them.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leakline_analysis::Instant;
use leakline_analysis::report::printable;
use leakline_collector::protocol::{
    COMMAND_BYTES, Domains, GraphState, NAME_BYTES, Reply, Request, Snapshot, Status,
    commands_name, packet, receive, unpacked,
};
use leakline_inject::inspect::{self, Glance, Obstacle, Process};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send,
    socket_with, sockopt,
};

use crate::CliError;

pub(super) mod screen;

/// How long a snapshot may take: what is under way is drained and written first.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long who only reads waits for the collector: symbols may take five seconds.
const READING_PATIENCE: Duration = Duration::from_secs(10);

/// The collector of a session that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    collector: u32,
    start_ticks: u64,
}

impl Live {
    /// Of the recording that is being made of a process; `leakline run` and
    /// `attach` themselves stand for what they record.
    pub(super) fn of_process(pid: u32) -> Result<Live, CliError> {
        let process = Process::look(pid).map_err(|refused| match refused.obstacle {
            Obstacle::Gone => error(
                format!("there is no process {pid}"),
                "`leakline ps` lists those that there are",
            ),
            _ => CliError::Refused(refused),
        })?;
        let found = process
            .collector
            .or_else(|| collectors().find(|one| *one == pid || parent(*one) == Some(pid)));
        if let Some(live) = found.and_then(Live::at) {
            return Ok(live);
        }
        let has_session = process
            .program
            .is_some_and(|program| program.session.is_some());
        Err(if has_session {
            error(
                format!("process {pid} is recorded, but by whom cannot be seen from here"),
                "ask as the user who records it, and in the same container; or its collector\n\
                 was killed",
            )
        } else {
            error(
                format!("process {pid} is not being recorded"),
                "`leakline attach` records a running process, `leakline run` a program from\n\
                 its start",
            )
        })
    }

    /// Of a recording, if it is being written.
    pub(super) fn of_recording(path: &Path) -> Option<Live> {
        let wanted = std::fs::metadata(path).ok()?;
        let has_open = |pid: &u32| {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd"));
            fds.into_iter().flatten().flatten().any(|fd| {
                // Through the link, to the file itself.
                std::fs::metadata(fd.path())
                    .is_ok_and(|file| (file.dev(), file.ino()) == (wanted.dev(), wanted.ino()))
            })
        };
        collectors().find(has_open).and_then(Live::at)
    }

    /// Of what a user names: a pid, or the file of a recording.
    pub(super) fn named(given: &Path) -> Result<Live, CliError> {
        match as_pid(given) {
            Some(pid) => Live::of_process(pid),
            None if !given.exists() => Err(error(
                format!("there is no file `{}`", shown(given)),
                "name a process that is being recorded, or its recording",
            )),
            None => Live::of_recording(given).ok_or_else(|| {
                error(
                    format!("`{}` is not being written", shown(given)),
                    "snapshots can be taken while a recording is made; `--from` and `--to` take\n\
                     any instant of one that has ended",
                )
            }),
        }
    }

    fn at(collector: u32) -> Option<Live> {
        let start_ticks = Glance::at(collector)?.start_ticks;
        Some(Live {
            collector,
            start_ticks,
        })
    }

    /// What is being recorded.
    pub(super) fn status(self) -> Result<Status, CliError> {
        self.status_by(&Request::Status)
    }

    /// The same, once all of it up to now is in the file.
    pub(super) fn flushed(self) -> Result<Status, CliError> {
        self.status_by(&Request::Flush)
    }

    fn status_by(self, request: &Request) -> Result<Status, CliError> {
        match self.ask(request)? {
            Reply::Status(status) => Ok(*status),
            Reply::Refused { why } => Err(error(format!("cannot read on: {why}"), "")),
            Reply::Snapshot(_) | Reply::Graphs(_) => Err(self.silent()),
        }
    }

    /// Has every block recorded from now on, or a sample (its mean in bytes, and
    /// whether that follows what samples cost).
    pub(super) fn switch(self, to: Option<(u64, bool)>) -> Result<Status, CliError> {
        let request = match to {
            None => Request::Exact,
            Some((mean_bytes, auto)) => Request::Sample { mean_bytes, auto },
        };
        self.switch_by(&request)
    }

    /// Has new blocks of these domains recorded from now on.
    pub(super) fn switch_domains(self, to: Domains) -> Result<Status, CliError> {
        self.switch_by(&Request::Domains(to))
    }

    fn switch_by(self, request: &Request) -> Result<Status, CliError> {
        match self.ask(request)? {
            Reply::Status(status) => Ok(*status),
            Reply::Refused { why } => Err(error(format!("cannot switch: {why}"), "")),
            Reply::Snapshot(_) | Reply::Graphs(_) => Err(self.silent()),
        }
    }

    /// Keeps this instant under a name.
    pub(super) fn snapshot(self, name: &str) -> Result<Snapshot, CliError> {
        check_name(name)?;
        match self.ask(&Request::Snapshot { name: name.into() })? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            Reply::Refused { why } => Err(error(
                format!("cannot take a snapshot named `{}`: {why}", printable(name)),
                "give it another name",
            )),
            Reply::Status(_) | Reply::Graphs(_) => Err(self.silent()),
        }
    }

    /// Has heap graphs taken of all processes, and waits for them. They are named as
    /// given, and told of one by one as they are there.
    pub(super) fn take_graphs(
        self,
        name: &str,
        values: bool,
        outside: bool,
        mut tell: impl FnMut(&GraphState),
    ) -> Result<Vec<GraphState>, CliError> {
        const EVERY: Duration = Duration::from_millis(20);
        let asked = AskedGraphs::ask(self, name, values, outside)?;
        let mut states = asked.first.clone();
        let mut told = 0;
        loop {
            let settled = states
                .iter()
                .take_while(|state| state.outcome.is_settled())
                .count();
            for state in states.iter().take(settled).skip(told) {
                tell(state);
            }
            told = settled;
            if settled == states.len() {
                return Ok(states);
            }
            std::thread::sleep(EVERY);
            states = asked.states()?;
        }
    }

    fn graphs(self, request: &Request) -> Result<Vec<GraphState>, CliError> {
        match self.ask(request)? {
            Reply::Graphs(states) => Ok(states),
            Reply::Refused { why } => Err(error(
                format!("no heap graph can be taken: {why}"),
                "heap graphs are of CPython 3.9 to 3.15",
            )),
            Reply::Status(_) | Reply::Snapshot(_) => Err(self.silent()),
        }
    }

    fn ask(self, request: &Request) -> Result<Reply, CliError> {
        let patience = match request {
            Request::Snapshot { .. }
            | Request::Exact
            | Request::Sample { .. }
            | Request::Domains(_)
            | Request::TakeGraphs { .. }
            | Request::Graphs => PATIENCE,
            Request::Status | Request::Flush => READING_PATIENCE,
        };
        let reply = || {
            let socket = self.connected(patience)?;
            send(&socket, &packet(request)?, SendFlags::NOSIGNAL).ok()?;
            let mut bytes = vec![0; COMMAND_BYTES];
            let length = receive(&socket, &mut bytes, RecvFlags::empty()).ok()?;
            unpacked(&bytes[..length])
        };
        reply().ok_or_else(|| self.silent())
    }

    fn connected(self, patience: Duration) -> Option<OwnedFd> {
        let name = commands_name(self.collector, self.start_ticks);
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .ok()?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(patience)).ok()?;
        connect(&socket, &address).ok()?;
        Some(socket)
    }

    /// Why there is no answer.
    fn silent(self) -> CliError {
        let pid = self.collector;
        let is_there = Glance::at(pid).is_some_and(|now| now.start_ticks == self.start_ticks);
        if !is_there {
            return error(
                "the recording has just ended".into(),
                "its file says all there is",
            );
        }
        error(
            format!("the collector of this recording (pid {pid}) does not answer"),
            "it answers its own user and root, in the same network namespace, and a leakline\n\
             of its own version; or it is stopped",
        )
    }
}

/// Heap graphs that were asked for.
#[derive(Debug)]
pub(crate) struct AskedGraphs {
    live: Live,
    name: String,
    /// Number of the last graph before.
    before: u32,
    first: Vec<GraphState>,
}

impl AskedGraphs {
    fn ask(live: Live, name: &str, values: bool, outside: bool) -> Result<Self, CliError> {
        let before = live.graphs(&Request::Graphs)?;
        let mut asked = AskedGraphs {
            live,
            name: name.into(),
            before: before.last().map_or(0, |state| state.number),
            first: Vec::new(),
        };
        let states = live.graphs(&Request::TakeGraphs {
            name: name.into(),
            values,
            outside,
        })?;
        asked.first = asked.of_these(states);
        Ok(asked)
    }

    /// Keeps this instant of a recording that is being made under a name, and asks for
    /// graphs of it.
    pub(crate) fn of_recording(path: &Path, name: &str) -> Result<Self, CliError> {
        let live = Live::named(path)?;
        live.snapshot(name)?;
        Self::ask(live, name, false, false)
    }

    /// What became of them.
    pub(crate) fn states(&self) -> Result<Vec<GraphState>, CliError> {
        Ok(self.of_these(self.live.graphs(&Request::Graphs)?))
    }

    fn of_these(&self, mut states: Vec<GraphState>) -> Vec<GraphState> {
        states.retain(|state| state.number > self.before && state.name == self.name);
        states
    }
}

/// A recording's path as its collector tells it.
pub(super) fn path(told: Option<Vec<u8>>) -> Result<PathBuf, CliError> {
    let path = told.map(|path| PathBuf::from(OsString::from_vec(path)));
    let path = path.filter(|path| path.exists()).ok_or_else(|| {
        error(
            "the recording's file cannot be reached from here".into(),
            "it was removed, or lies in another container's file system",
        )
    })?;
    // As users here would name it.
    let here = std::env::current_dir().ok();
    let near = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    Ok(near.unwrap_or(path))
}

/// Whether somebody is writing a recording.
pub(super) fn is_written(recording: &Path) -> bool {
    Live::of_recording(recording).is_some()
}

/// Takes a snapshot in a recording that is shown: the name as it was given.
pub(super) fn mark(recording: &Path, name: &str) -> Result<String, String> {
    let live = Live::of_recording(recording)
        .ok_or("the recording is not being written any more: nothing to mark")?;
    let name = name.trim();
    check_name(name).map_err(|error| error.to_string())?;
    let request = Request::Snapshot { name: name.into() };
    // In a line of the screen: why, and no more.
    match live.ask(&request).map_err(|error| error.to_string())? {
        Reply::Snapshot(_) => Ok(name.to_owned()),
        Reply::Refused { why } => Err(why),
        Reply::Status(_) | Reply::Graphs(_) => Err(live.silent().to_string()),
    }
}

/// A name has to be one that reports understand as such.
fn check_name(name: &str) -> Result<(), CliError> {
    let why = match Instant::parse(name) {
        Ok(Instant::Mark(_)) if name.trim().is_empty() => "it is empty",
        Ok(Instant::Mark(_)) if name.len() > NAME_BYTES => "it is longer than 64 bytes",
        Ok(Instant::Mark(_)) if name.chars().any(char::is_control) => {
            "it has characters that are not printable"
        }
        Ok(Instant::Mark(_)) if name.trim() != name => "it has spaces at an end",
        Ok(Instant::Mark(_)) if matches!(name, "done" | "now" | "warm") => {
            "it is an instant's already"
        }
        Ok(Instant::Mark(_)) => return Ok(()),
        Ok(_) | Err(_) => "it is an instant's already, or reads like one",
    };
    Err(CliError::Usage {
        message: format!("`{}` cannot name a snapshot: {why}", printable(name)),
        hint: Some("names are printable, as `before-deploy`".into()),
    })
}

/// A number that names no file is a pid.
pub(super) fn as_pid(given: &Path) -> Option<u32> {
    let pid = given.to_str()?.parse().ok()?;
    (!given.exists()).then_some(pid)
}

/// Pids of the collectors on this machine.
fn collectors() -> impl Iterator<Item = u32> {
    let pids = inspect::pids().unwrap_or_default().into_iter();
    pids.filter(|pid| {
        let arguments = inspect::arguments(*pid);
        is_collector(&arguments)
    })
}

/// The command's own, or a Python that became it: `python -I -S -c CODE DIR __collector`,
/// as a process has that records itself.
fn is_collector(arguments: &[impl AsRef<[u8]>]) -> bool {
    let is = |at: usize, word: &[u8]| arguments.get(at).is_some_and(|one| one.as_ref() == word);
    is(1, b"__collector") || (is(3, b"-c") && is(6, b"__collector") && arguments.len() == 7)
}

fn parent(pid: u32) -> Option<u32> {
    Some(Process::look(pid).ok()?.parent_pid)
}

/// A path, safe to print.
pub(super) fn shown(path: &Path) -> String {
    printable(&leakline_analysis::escaped(
        path.as_os_str().as_encoded_bytes(),
    ))
    .into_owned()
}

pub(super) fn error(message: String, hint: &str) -> CliError {
    CliError::Report {
        message,
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots_are_no_other_instants() {
        for good in ["before", "deploy 4711", "v1.2", "12", "naïve"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for wrong in [
            "", " ", "a ", "start", "end", "peak", "warm", "+90s", "+x", "14:05", "25:99", "a\tb",
            &long,
        ] {
            let error = check_name(wrong).unwrap_err();
            assert_eq!(error.status(), 2, "{wrong}");
        }
    }

    #[test]
    fn collectors_are_known_by_their_command_lines() {
        let is = |line: &str| is_collector(&line.split(' ').collect::<Vec<_>>());
        assert!(is("/usr/bin/leakline __collector"));
        assert!(is(
            "python3 -I -S -c CODE /site-packages/leakline __collector"
        ));
        for other in [
            "leakline run __collector",
            "python3 -c CODE __collector",
            "python3 -I -S -c CODE DIR __collector more",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_file_wins_over_a_pid() {
        assert_eq!(as_pid(Path::new("4121")), Some(4121));
        assert_eq!(as_pid(Path::new("4121.leakline")), None);
        assert_eq!(as_pid(Path::new("-1")), None);
        assert_eq!(as_pid(Path::new("/")), None);
    }

    #[test]
    fn who_is_not_recorded_is_told_of() {
        let own = std::process::id();
        let error = Live::of_process(own).unwrap_err();
        assert_eq!(error.status(), 3);
        assert_eq!(
            error.to_string(),
            format!("process {own} is not being recorded")
        );
        let gone = Live::of_process(4_194_300).unwrap_err();
        assert_eq!(gone.to_string(), "there is no process 4194300");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Live::of_recording(file.path()).is_none());
        let error = mark(file.path(), "a").unwrap_err();
        assert!(error.contains("not being written"), "{error}");
    }
}
