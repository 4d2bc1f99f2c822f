//! The collector process: signals, the control socket, what commands ask, waiting,
//! the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leakline_recording::Writer;
use leakline_recording::record::Record;
use leakline_wire::sync::Ordering;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, send};

use crate::clients::{Client, Clients};
use crate::clock::Clock;
use crate::compaction::Recorder;
use crate::engine::{Ending, Engine, Joined};
use crate::handshake::Handshake;
use crate::image::Shared;
use crate::ledgers::LedgerReader;
use crate::limits::LimitReader;
use crate::names::Lookup;
use crate::output::Output;
use crate::protocol::{
    self, FromCollector, FromOutside, Options, Reply, Request, Snapshot, Summary, ToCollector,
};
use crate::resolve::{Question, Resolver};
use crate::session::{self, Pool, SessionMap, heartbeat};
use crate::steering::Steering;

/// Largest control message.
const MAX_MESSAGE: usize = 64 * 1024;
/// How long the supervisor may take for its first message.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end may wait for symbols before the supervisor is answered.
const SYMBOL_PATIENCE: Duration = Duration::from_secs(5);
/// ... and after that, before the recording ends without them.
const LAST_PATIENCE: Duration = Duration::from_secs(120);
/// How long the target's end waits for those of its processes that are about
/// to end as well, before the supervisor is told that some live on.
const OTHERS_PATIENCE: Duration = Duration::from_millis(200);
/// How much longer a heap graph of it is waited for.
const GRAPH_PATIENCE: Duration = Duration::from_secs(25);
/// How long the collector stays without any process once nobody is there to
/// tell it of one.
const LONELY_PATIENCE: Duration = Duration::from_secs(2);

/// How long who asked for everything in the file waits for symbols.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// How long processes have to leave by themselves: most make or free a block
/// every now and then.
const FETCH_PATIENCE: Duration = Duration::from_millis(100);
/// ... and to be fetched. One that is stopped leaves when it goes on.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the collector until its session is over.
///
/// `output` is the recording (empty, readable and writable), `listener` the
/// bound and listening socket that targets say hello to, `control` the
/// collector's end of the control socket pair (see [`crate::protocol`]). `ledgers` makes what
/// looks at what processes' memory is made of, where that is to be recorded.
///
/// What goes wrong is told to the supervisor in a
/// [`FromCollector::Failed`]; the exit code then is that of failure. Changes
/// the process's signal mask and dispositions: it is for a process of its own.
pub fn serve(
    output: File,
    listener: OwnedFd,
    control: OwnedFd,
    ledgers: Option<fn() -> LedgerReader>,
) -> ExitCode {
    let control = Control {
        socket: control,
        is_open: true,
    };
    match start(output, listener, control) {
        Ok(mut collector) => {
            if let Some(reader) = ledgers {
                collector.engine.keep_ledgers(reader);
            }
            collector.run();
            ExitCode::SUCCESS
        }
        Err((error, mut control)) => {
            control.send(&FromCollector::Failed { error });
            ExitCode::FAILURE
        }
    }
}

/// The supervisor's socket.
#[derive(Debug)]
struct Control {
    socket: OwnedFd,
    /// The supervisor has not hung up.
    is_open: bool,
}

impl Control {
    fn send(&mut self, message: &FromCollector) {
        let Ok(bytes) = postcard::to_stdvec(message) else {
            return;
        };
        // A supervisor that is gone needs no answer.
        if send(&self.socket, &bytes, SendFlags::NOSIGNAL).is_err() {
            self.is_open = false;
        }
    }

    /// The next message, if there is one. A message that makes no sense is
    /// skipped.
    fn receive(&mut self) -> Option<ToCollector> {
        let mut bytes = vec![0; MAX_MESSAGE];
        while self.is_open {
            match protocol::receive(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
                Ok(0) => self.is_open = false,
                Ok(length) => {
                    if let Ok(message) = postcard::from_bytes(&bytes[..length]) {
                        return Some(message);
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(_) => self.is_open = false,
            }
        }
        None
    }

    /// Waits for the first message.
    fn receive_start(&mut self) -> Result<Options, String> {
        let deadline = Instant::now() + START_PATIENCE;
        while self.is_open && Instant::now() < deadline {
            match self.receive() {
                Some(ToCollector::Start(options)) => return Ok(*options),
                Some(_) => return Err("the first message was not `Start`".to_owned()),
                None => {
                    let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
                    let _ = poll(
                        &mut fds,
                        Some(&Timespec {
                            tv_sec: 1,
                            tv_nsec: 0,
                        }),
                    );
                }
            }
        }
        Err("nothing was asked of the collector".to_owned())
    }
}

/// Everything that runs.
struct Collector {
    engine: Engine,
    control: Control,
    signals: OwnedFd,
    joined: Receiver<Joined>,
    target: Arc<AtomicU32>,
    resolver: Option<Resolver>,
    sources: bool,
    /// Since when nobody was there, of a session without supervisor.
    lonely_since: Option<Instant>,
    /// The target's end was answered.
    is_answered: bool,
    /// See [`Options::attached`].
    attached: bool,
    leaving: Option<Leaving>,
    pace: Pace,
    handshake: Option<Door>,
    /// `None` where they cannot be heard, which the recording says.
    clients: Option<Clients>,
    /// They are answered once the symbols of what they asked for are there.
    flushing: Vec<Client>,
}

/// An attached session that is to be left.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    /// Who does not come by was named.
    are_named: bool,
}

/// The handshake thread, and what ends it when it is dropped.
struct Door {
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Door {
    /// Lets nobody in any more; who waited in vain is counted by then.
    fn close(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn start(
    output: File,
    listener: OwnedFd,
    mut control: Control,
) -> Result<Collector, (String, Control)> {
    let signals = match take_signals() {
        Ok(signals) => signals,
        Err(error) => return Err((format!("cannot set signals up: {error}"), control)),
    };
    // On success or failure: a terminal's Ctrl-C is for the target.
    let _ = rustix::process::setsid();
    match control
        .receive_start()
        .and_then(|options| prepare(output, listener, &options))
    {
        Ok(parts) => {
            control.send(&FromCollector::Ready);
            Ok(Collector {
                engine: parts.engine,
                control,
                signals,
                joined: parts.joined,
                target: parts.target,
                resolver: parts.resolver,
                sources: parts.sources,
                lonely_since: None,
                is_answered: false,
                attached: parts.attached,
                leaving: None,
                pace: Pace::default(),
                handshake: Some(parts.handshake),
                clients: parts.clients,
                flushing: Vec::new(),
            })
        }
        Err(error) => Err((error, control)),
    }
}

struct Parts {
    engine: Engine,
    joined: Receiver<Joined>,
    target: Arc<AtomicU32>,
    resolver: Option<Resolver>,
    sources: bool,
    attached: bool,
    handshake: Door,
    clients: Option<Clients>,
}

fn prepare(output: File, listener: OwnedFd, options: &Options) -> Result<Parts, String> {
    let mut clock = Clock::start();
    let session = Arc::new(SessionMap::create().map_err(|error| error.to_string())?);
    let pool = Pool::new(&session, options.ring_bytes).map_err(|error| error.to_string())?;
    clock.calibrate();
    let header = session.header();
    header.clock.store(clock.kind(), Ordering::Relaxed);
    header.mode.store(options.mode, Ordering::Relaxed);
    header
        .sample_mean
        .store(options.session.sample_bytes, Ordering::Relaxed);
    header
        .wait_strikes
        .store(options.wait_strikes, Ordering::Relaxed);
    header
        .collector_pid
        .store(std::process::id(), Ordering::Relaxed);
    let heart = Arc::downgrade(&session);
    std::thread::Builder::new()
        .name("heartbeat".into())
        .spawn(move || heartbeat(&heart))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let mut recorded = options.session.clone();
    recorded.started_unix_ns = clock.started_unix_ns();
    let writer = output.try_clone().and_then(Writer::new);
    let writer = writer.map_err(|error| format!("cannot write: {error}"))?;
    let mut output = Output::new(Box::new(Recorder::new(writer, output)));
    output.push(Record::Session(recorded));
    let window = options.session.temporary_window;
    let shared = Shared::new(session.clone(), pool, clock, window);
    let mut engine = Engine::new(shared, output, memory_limit());
    let mean = options.session.sample_bytes;
    engine.is_attached(options.attached);
    engine.most_share = options.most_share;
    engine.forking_filters = options.forking_filters;
    engine.most_pause = options.most_pause;
    engine.plan_graphs(&options.graphs);
    engine.steering = options.steering.map(|bounds| Steering::new(bounds, mean));
    // The header of an empty recording: it opens from now on, and a disk
    // without room shows before the target is touched.
    engine.flush();
    if let Some(error) = engine.output.error() {
        return Err(format!("cannot write: {error}"));
    }
    let clients = Clients::listen();
    if let Err(error) = &clients {
        engine.note(format!(
            "commands cannot ask for snapshots of this recording: {error}"
        ));
    }
    let (sender, joined) = channel();
    let target = Arc::new(AtomicU32::new(0));
    let failed = |what: &str, error: std::io::Error| format!("cannot {what}: {error}");
    let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| failed("make a pipe", error.into()))?;
    let flags = rustix::fs::fcntl_getfl(&listener)
        .and_then(|flags| rustix::fs::fcntl_setfl(&listener, flags | rustix::fs::OFlags::NONBLOCK));
    flags.map_err(|error| failed("use the session's socket", error.into()))?;
    let handshake = Handshake {
        listener,
        session,
        token: options.token,
        joined: sender,
        target: target.clone(),
        stop: stopped,
        is_over: false,
    };
    let thread = std::thread::Builder::new()
        .name("handshake".to_owned())
        .spawn(|| handshake.run())
        .map_err(|error| failed("start a thread", error))?;
    let resolver = if options.symbols || options.sources {
        let resolver = Resolver::start(options.sources, options.attached);
        Some(resolver.map_err(|error| failed("start a thread", error))?)
    } else {
        None
    };
    Ok(Parts {
        engine,
        joined,
        target,
        resolver: resolver.filter(|_| options.symbols || options.sources),
        sources: options.sources,
        attached: options.attached,
        handshake: Door { stop, thread },
        clients: clients.ok(),
    })
}

/// What the loop is to do next.
enum Next {
    GoOn,
    /// The session is over, for this reason.
    End(&'static str),
}

impl Collector {
    fn run(&mut self) {
        let reason = loop {
            self.take_joined();
            let round = self.engine.round();
            if round.flushed {
                let session = self.engine.shared.session.clone();
                session::while_busy(&session, || {
                    self.ask();
                    self.take_answers();
                });
            }
            self.finish_flushes();
            if let Some(step) = self.engine.take_coarser() {
                self.control.send(&FromCollector::Coarser {
                    mean_bytes: step.mean,
                    share: step.share,
                });
            }
            if self.attached
                && let Some(states) = self.engine.graph_news()
            {
                self.control.send(&FromCollector::Graphs(states));
            }
            let pause = self.pace.after(round.busy, &self.engine);
            for (pid, ledger) in self.engine.take_looked() {
                let ledger = Box::new(ledger);
                self.control.send(&FromCollector::Looked { pid, ledger });
            }
            for (pid, found) in self.engine.take_found() {
                let mut types = found.types;
                types.truncate(protocol::FOUND_TYPES);
                self.control.send(&FromCollector::Found { pid, types });
            }
            match self.wait(pause) {
                Next::GoOn => {}
                Next::End(reason) => break reason,
            }
        };
        self.end(reason);
    }

    fn take_joined(&mut self) {
        let session = self.engine.shared.session.clone();
        while let Ok(joined) = self.joined.try_recv() {
            self.pace.joined_at = Instant::now();
            // It may end another process, which takes as long as that is large.
            let pid = joined.identity.pid;
            session::while_busy(&session, || self.engine.join(joined));
            if self.attached {
                self.control.send(&FromCollector::Joined { pid });
            }
        }
    }

    /// Waits until there may be something to do, and takes note of what the
    /// supervisor, the kernel and signals say.
    fn wait(&mut self, pause: Duration) -> Next {
        // Of the target's end the supervisor tells, and more than a pidfd does.
        let target = self.target.load(Ordering::Relaxed);
        let told_by_supervisor = if self.control.is_open && !self.attached {
            target
        } else {
            0
        };
        let pidfds = self.engine.pidfds(told_by_supervisor);
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(pidfds.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        let control = fds.len();
        if self.control.is_open {
            fds.push(PollFd::new(&self.control.socket, PollFlags::IN));
        }
        let clients = fds.len();
        let heard = self.clients.iter().flat_map(Clients::fds);
        fds.extend(heard.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec {
            tv_sec: pause.as_secs().cast_signed(),
            tv_nsec: i64::from(pause.subsec_nanos()),
        };
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(1..)) {
            drop(fds);
            drop(pidfds);
            if let Some(clients) = &mut self.clients {
                clients.expire();
            }
            return self.check_lonely();
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let is_told = self.control.is_open && is_ready(control);
        let is_asked = (clients..fds.len()).any(is_ready);
        let is_signalled = is_ready(0);
        let dead: Vec<u32> = pidfds
            .iter()
            .enumerate()
            .filter(|(at, _)| is_ready(at + 1))
            .map(|(_, (process, _))| *process)
            .collect();
        drop(fds);
        drop(pidfds);
        for process in dead {
            self.engine.died(process, Ending::default());
        }
        if is_asked {
            self.serve_clients();
        }
        if is_signalled && self.attached {
            self.take_signal();
            self.leave();
        } else if is_signalled {
            self.engine.switch_off();
            return Next::End("stopped");
        }
        while is_told && let Some(message) = self.control.receive() {
            match message {
                ToCollector::Start(_) => {}
                ToCollector::Spawned { pid } => self.target.store(pid, Ordering::Relaxed),
                ToCollector::Exited {
                    pid,
                    status,
                    signal,
                } => {
                    if let Next::End(reason) = self.target_ended(pid, status, signal) {
                        return Next::End(reason);
                    }
                }
                ToCollector::Stop => {
                    self.engine.switch_off();
                    return Next::End("stopped");
                }
                ToCollector::Leave => self.leave(),
                ToCollector::TakeGraphs { name } => {
                    if let Err(why) =
                        self.engine
                            .want_graphs(&name, false, false, FromOutside::Instead)
                    {
                        self.control.send(&FromCollector::NoGraphs { why });
                    }
                }
            }
        }
        self.check_lonely()
    }

    /// Does what commands ask.
    fn serve_clients(&mut self) {
        let requests = self.clients.as_mut().map(Clients::requests);
        let mut is_flushed = false;
        for (client, request) in requests.unwrap_or_default() {
            match request {
                Request::Status => {
                    let status = self.engine.status(self.attached);
                    client.answer(&Reply::Status(Box::new(status)));
                }
                Request::Flush => {
                    if !std::mem::replace(&mut is_flushed, true) {
                        self.take_joined();
                        self.engine.round();
                        self.put_down(Engine::settle);
                    }
                    self.flushing.push(client);
                }
                Request::Snapshot { name } => {
                    self.take_joined();
                    let reply = match self.engine.snapshot(&name) {
                        Err(why) => Reply::Refused { why },
                        Ok(snapshot) => {
                            self.put_down(Engine::flush);
                            Reply::Snapshot(Snapshot {
                                recording: self.engine.recording(),
                                ..snapshot
                            })
                        }
                    };
                    client.answer(&reply);
                }
                Request::TakeGraphs {
                    name,
                    values,
                    outside,
                } => {
                    self.take_joined();
                    let outside = if outside {
                        FromOutside::Only
                    } else {
                        FromOutside::Never
                    };
                    let reply = match self.engine.want_graphs(&name, true, values, outside) {
                        Ok(()) => Reply::Graphs(self.engine.graph_states()),
                        Err(why) => Reply::Refused { why },
                    };
                    client.answer(&reply);
                }
                Request::Graphs => client.answer(&Reply::Graphs(self.engine.graph_states())),
                Request::Exact => {
                    self.take_joined();
                    let switched = self.engine.record_all();
                    self.answer_switched(&client, switched);
                }
                Request::Sample { mean_bytes, auto } => {
                    self.take_joined();
                    let switched = self.engine.sample(mean_bytes, auto);
                    self.answer_switched(&client, switched);
                }
                Request::Domains(wanted) => {
                    self.take_joined();
                    let switched = self.engine.record_domains(wanted);
                    self.answer_switched(&client, switched);
                }
            }
        }
    }

    fn answer_switched(&mut self, client: &Client, switched: Result<(), String>) {
        if let Err(why) = switched {
            return client.answer(&Reply::Refused { why });
        }
        self.put_down(Engine::flush);
        let status = self.engine.status(self.attached);
        client.answer(&Reply::Status(Box::new(status)));
    }

    /// Writes what there is by `write`, and has its symbols looked up. Targets
    /// wait for that as for work.
    fn put_down(&mut self, write: impl FnOnce(&mut Engine)) {
        let session = self.engine.shared.session.clone();
        session::while_busy(&session, || {
            write(&mut self.engine);
            self.ask();
        });
    }

    /// Answers who waits for the symbols of what was written, once they are
    /// there, or will not be soon.
    fn finish_flushes(&mut self) {
        if self.flushing.is_empty() {
            return;
        }
        self.take_answers();
        let is_at_work = self.resolver.as_ref().is_some_and(Resolver::is_at_work);
        let is_due = |client: &Client| !is_at_work || client.waited() >= FLUSH_PATIENCE;
        if !self.flushing.iter().any(is_due) {
            return;
        }
        self.put_down(Engine::flush);
        let reply = Reply::Status(Box::new(self.engine.status(self.attached)));
        self.flushing.retain(|client| {
            let is_due = is_due(client);
            if is_due {
                client.answer(&reply);
            }
            !is_due
        });
    }

    /// The target is gone: everything of it is drained, and the supervisor is
    /// answered. The session ends with it unless others live on.
    fn target_ended(&mut self, pid: u32, status: Option<i32>, signal: Option<i32>) -> Next {
        self.take_joined();
        self.engine.pid_died(
            pid,
            Ending {
                status,
                signal,
                exec: false,
            },
        );
        // A child that was forked a moment ago may not have shown up yet, and
        // helpers (multiprocessing's resource tracker) end a moment later.
        let deadline = Instant::now() + OTHERS_PATIENCE;
        loop {
            self.take_joined();
            self.note_deaths();
            self.engine.round();
            self.engine.end_tellers();
            if self.engine.is_deserted() && !self.engine.expects_newborns() {
                return Next::End("exited");
            }
            // A heap graph of the end is worth more patience.
            let is_late = Instant::now() >= deadline;
            if is_late && (!self.engine.is_told_of_heaps() || self.engine.living() > 0)
                || Instant::now() >= deadline + GRAPH_PATIENCE
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.engine.is_deserted() {
            return Next::End("exited");
        }
        // The others wait for us meanwhile.
        let session = self.engine.shared.session.clone();
        session::while_busy(&session, || {
            self.engine.settle();
            self.ask();
            if let Some(resolver) = &mut self.resolver {
                let (records, _) = resolver.wait(SYMBOL_PATIENCE);
                self.engine.output.extend(records);
            }
            self.engine.flush();
            self.answer();
        });
        Next::GoOn
    }

    /// Looks, without waiting, which processes have died.
    fn note_deaths(&mut self) {
        let pidfds = self.engine.pidfds(0);
        let mut fds: Vec<PollFd<'_>> = pidfds
            .iter()
            .map(|(_, fd)| PollFd::new(fd, PollFlags::IN))
            .collect();
        let _ = poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        );
        let dead: Vec<u32> = pidfds
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|((process, _), _)| *process)
            .collect();
        drop(fds);
        drop(pidfds);
        for process in dead {
            self.engine.died(process, Ending::default());
        }
        self.engine.note_vanished();
    }

    /// Ends the session when nobody is left to record and nobody to tell us
    /// of anyone.
    fn check_lonely(&mut self) -> Next {
        if self.attached {
            return self.check_attached();
        }
        let may_come = self.control.is_open && !self.is_answered;
        if may_come || !self.engine.is_deserted() || self.engine.expects_newborns() {
            self.lonely_since = None;
            return Next::GoOn;
        }
        let since = *self.lonely_since.get_or_insert_with(Instant::now);
        let patience = if self.is_answered {
            Duration::ZERO
        } else {
            LONELY_PATIENCE
        };
        if since.elapsed() >= patience {
            Next::End("exited")
        } else {
            Next::GoOn
        }
    }

    /// Takes a signal away that was noted, or it would be again.
    fn take_signal(&mut self) {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        // Not there any more: taken.
        let _ = rustix::io::read(&self.signals, &mut info);
    }

    /// Notes who has left, and tells of those who did before they were asked to.
    fn note_left(&mut self) {
        let left = self.engine.note_left();
        if self.leaving.is_none() {
            // Detached one by one, or left alone for too long (this process was
            // stopped): what they do from now on is not recorded.
            for pid in left {
                self.engine.note(format!(
                    "process {pid} left the recording before its end: what it allocates and \
                     frees from here on is not in it"
                ));
            }
        }
    }

    fn leave(&mut self) {
        self.note_left();
        if self.leaving.is_none() {
            self.engine.want_last_ledgers();
        }
        self.engine.have_all_leave();
        self.leaving.get_or_insert(Leaving {
            since: Instant::now(),
            are_named: false,
        });
    }

    /// The end of an attached session: when its processes are gone or have left.
    fn check_attached(&mut self) -> Next {
        if !self.control.is_open {
            self.leave();
        }
        self.note_left();
        let Some(leaving) = &mut self.leaving else {
            let is_over = self.engine.has_joined()
                && self.engine.is_deserted()
                && !self.engine.expects_newborns();
            return if is_over {
                Next::End("exited")
            } else {
                Next::GoOn
            };
        };
        let waited = leaving.since.elapsed();
        if waited >= FETCH_PATIENCE && !std::mem::replace(&mut leaving.are_named, true) {
            let pids = self.engine.pids();
            if !pids.is_empty() {
                self.control.send(&FromCollector::Staying { pids });
            }
        }
        if self.engine.is_deserted() || waited >= LEAVE_PATIENCE {
            Next::End("detached")
        } else {
            Next::GoOn
        }
    }

    /// Hands new addresses and lines to the resolver.
    fn ask(&mut self) {
        let Some(resolver) = &mut self.resolver else {
            return;
        };
        let names = &mut self.engine.shared.names;
        let mut by_module: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for Lookup { module, address } in names.take_lookups() {
            by_module.entry(module).or_default().push(address);
        }
        let mut questions: Vec<Question> = Vec::new();
        for (module, mut addresses) in by_module {
            let Some((known, pid)) = names.module(module) else {
                continue;
            };
            addresses.sort_unstable();
            addresses.dedup();
            questions.push(Question::Addresses {
                module,
                path: known.path.clone(),
                build_id: known.build_id.clone(),
                pid,
                addresses,
            });
        }
        let lines = names.take_python_lines();
        if self.sources && !lines.is_empty() {
            let pid = self.target.load(Ordering::Relaxed);
            questions.push(Question::Lines { lines, pid });
        }
        for question in questions {
            resolver.ask(question);
        }
    }

    fn take_answers(&mut self) {
        if let Some(resolver) = &mut self.resolver {
            self.engine.output.extend(resolver.answers());
        }
    }

    /// Ends the recording and answers the supervisor.
    fn end(&mut self, reason: &str) {
        if let Some(door) = self.handshake.take() {
            door.close();
        }
        // Who asks from now on is told that nobody is there; what the end writes
        // is all that there is.
        self.clients = None;
        self.flushing.clear();
        self.take_joined();
        self.engine.round();
        self.engine.switch_off();
        let session = self.engine.shared.session.clone();
        session::while_busy(&session, || {
            if reason == "stopped" {
                self.engine.want_last_ledgers();
            }
            self.engine.finish_ledgers();
        });
        self.engine.end_all();
        self.engine.settle();
        self.ask();
        let mut has_all = true;
        if let Some(resolver) = &mut self.resolver {
            let (records, all) = resolver.wait(SYMBOL_PATIENCE);
            self.engine.output.extend(records);
            has_all = all;
        }
        if !has_all {
            // The file is whole but for names, which come as they are found.
            self.engine.flush();
            self.answer();
            if let Some(resolver) = &mut self.resolver {
                let (records, _) = resolver.wait(LAST_PATIENCE);
                self.engine.output.extend(records);
            }
        }
        self.engine.finish(reason);
        self.answer();
    }

    fn answer(&mut self) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let summary = Summary {
            never_joined: !self.engine.has_joined(),
            ..self.engine.summary()
        };
        self.control.send(&FromCollector::Finished(summary));
    }
}

/// How long to sleep between rounds.
///
/// While there is much to do, short pauses keep what is in flight in the
/// caches; with little, each wake-up costs more than it brings. Never spins:
/// the target may need this very CPU.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    progress: u64,
    several_cpus: bool,
    idle_since: Option<Instant>,
    /// When a process was last taken in.
    joined_at: Instant,
}

const SHORTEST: Duration = Duration::from_micros(200);
const BUSY: Duration = Duration::from_millis(1);
const RESTING: Duration = Duration::from_millis(3);
/// A burst out of the blue fills the first chunks of the pool in about this.
const IDLE: Duration = Duration::from_millis(10);
/// Samples are few: waking up for each would cost the target's neighbours, and the
/// target itself where processors are scarce, more than the samples do.
const SAMPLING: Duration = Duration::from_millis(20);
/// How long processes that join are waited for as in exact mode.
const ARRIVAL: Duration = Duration::from_secs(1);

impl Default for Pace {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Pace {
            pause: BUSY,
            progress: 0,
            several_cpus: cpus > 1,
            idle_since: None,
            joined_at: Instant::now(),
        }
    }
}

impl Pace {
    fn after(&mut self, busy: bool, engine: &Engine) -> Duration {
        let header = engine.shared.session.header();
        let progress = header.progress.load(Ordering::Relaxed);
        // Nearly all of them chunks that went round.
        let chunks = progress.wrapping_sub(self.progress);
        self.progress = progress;
        if header.waiters.load(Ordering::Relaxed) > 0 {
            self.idle_since = None;
            self.pause = SHORTEST;
            return if self.several_cpus {
                Duration::from_micros(50)
            } else {
                SHORTEST
            };
        }
        let has_time = self.joined_at.elapsed() > ARRIVAL && !engine.is_at_graphs();
        if engine.is_sampled() && chunks <= 1 && has_time {
            self.pause = BUSY;
            return SAMPLING;
        }
        if !busy {
            let since = *self.idle_since.get_or_insert_with(Instant::now);
            self.pause = match since.elapsed() {
                short if short < Duration::from_millis(20) => BUSY,
                short if short < Duration::from_secs(1) => RESTING,
                _ => IDLE,
            };
            return self.pause;
        }
        self.idle_since = None;
        let shortest = if self.several_cpus { SHORTEST } else { BUSY };
        self.pause = match chunks {
            0 | 1 => (self.pause * 2).min(BUSY),
            2..=6 => self.pause.min(BUSY),
            _ => self.pause / 2,
        }
        .max(shortest);
        self.pause
    }
}

/// Most bytes that the live tables may take: 80 % of what memory is free now.
fn memory_limit() -> u64 {
    let free = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("MemAvailable:"))?;
            let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
            Some(kib * 1024)
        });
    let allowed = LimitReader::new().headroom(std::process::id());
    let allowed = allowed.map(|left| left.bytes);
    let free = free.unwrap_or(u64::MAX).min(allowed.unwrap_or(u64::MAX));
    free / 5 * 4
}

/// Has SIGTERM and SIGINT arrive through a descriptor, and ignores what would
/// end us for others' reasons.
fn take_signals() -> std::io::Result<OwnedFd> {
    // SAFETY: `signal` with SIG_IGN installs no handler; the set is
    // initialised by `sigemptyset` before it is read; `signalfd` returns a
    // descriptor that nobody else owns, or -1, which is checked.
    unsafe {
        for signal in [libc::SIGQUIT, libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if error != 0 {
            return Err(std::io::Error::from_raw_os_error(error));
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

#[cfg(test)]
mod tests;
