//! The loop: what happened, the state, the screen.
//!
//! One thread waits for the terminal, for signals and for the engine, in one
//! `poll`. It draws when the state has changed, and then only the cells that
//! have.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use leakline_recording::OpenError;
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};

use crate::engine::{self, Said, Store};
use crate::message::{Effect, Message};
use crate::state::data::Want;
use crate::state::{State, ThemeName};
use crate::term::{self, Screen};
use crate::update::update;
use crate::{keys, view};

/// Why the recording cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuiError {
    /// There is no terminal to show it on.
    #[error("cannot show `{}`: {stream} is not a terminal", path.display())]
    NoTerminal {
        /// The recording.
        path: PathBuf,
        /// Which stream.
        stream: &'static str,
    },
    /// The recording cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The terminal fails.
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    /// A bug: what it says was printed before.
    #[error("the analysis of `{}` broke off", path.display())]
    BrokeOff {
        /// The recording.
        path: PathBuf,
    },
}

impl TuiError {
    /// What would do.
    pub fn hint(&self) -> Option<String> {
        match self {
            TuiError::NoTerminal { path, .. } => Some(format!(
                "`leakline summary {0}` and `leakline top {0}` print to anything",
                path.display()
            )),
            TuiError::Open(error) => error.hint().map(Into::into),
            TuiError::Terminal(_) => Some("check `TERM`, or use `leakline summary`".into()),
            TuiError::BrokeOff { .. } => {
                Some("this is a bug in leakline; `leakline top` may still work".into())
            }
        }
    }
}

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Colours.
    pub theme: ThemeName,
    /// Seconds east of UTC at an instant, in nanoseconds since 1970.
    pub utc_offset: fn(u64) -> i32,
    /// Whether somebody is writing the recording. Asked where nothing is added to
    /// it.
    pub is_written: fn(&Path) -> bool,
    /// Keeps this instant of the recording, which is being made, under a name.
    /// Says which, or why not.
    pub mark: fn(&Path, &str) -> Result<String, String>,
}

/// Shows a recording until the user leaves.
///
/// Needs stdin and stdout to be a terminal. A signal that ends the process
/// does so once the terminal is as it was before.
///
/// # Errors
///
/// See [`TuiError`].
pub fn open(path: &Path, options: Options) -> Result<(), TuiError> {
    let store = Store::open(path)?;
    let no_terminal = |stream| TuiError::NoTerminal {
        path: path.to_owned(),
        stream,
    };
    if !rustix::termios::isatty(io::stdin()) {
        return Err(no_terminal("standard input"));
    }
    if !rustix::termios::isatty(io::stdout()) {
        return Err(no_terminal("standard output"));
    }
    term::give_back_on_panic();
    let (said, inbox) = channel();
    let (woken, waker) = stream().map_err(TuiError::Terminal)?;
    // The engine alone holds these ends: when it breaks off, they close.
    let wants = engine::start(store, options.utc_offset, options.is_written, move |what| {
        // Who left listens no more.
        let _ = said.send(what);
        let _ = (&waker).write(&[0]);
    })
    .map_err(TuiError::Terminal)?;
    let world = World {
        woken,
        inbox,
        signals: signals().map_err(TuiError::Terminal)?,
    };
    end_after_hangup().map_err(TuiError::Terminal)?;
    let mut screen = Screen::take().map_err(TuiError::Terminal)?;
    let result = show(&mut screen, &world, &wants, path, options);
    drop(screen);
    match result {
        Ok(Some(signal)) => {
            // As if it had not been caught.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What can happen outside.
struct World {
    /// Readable when the engine said something, or is gone.
    woken: UnixStream,
    /// What it said.
    inbox: Receiver<Said>,
    /// Each readable when its signal came.
    signals: Vec<(i32, UnixStream)>,
}

/// An end to read, and one to write, that never wait.
fn stream() -> io::Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}

fn signals() -> io::Result<Vec<(i32, UnixStream)>> {
    [SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT, SIGWINCH]
        .into_iter()
        .map(|signal| {
            let (reader, writer) = stream()?;
            signal_hook::low_level::pipe::register(signal, writer)?;
            Ok((signal, reader))
        })
        .collect()
}

impl World {
    /// Waits until something happens.
    fn wait(&self) -> io::Result<()> {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
        ];
        for (_, receiver) in &self.signals {
            fds.push(PollFd::from_borrowed_fd(receiver.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Signals that came since.
    fn signals(&self) -> Vec<i32> {
        self.signals
            .iter()
            .filter(|(_, receiver)| drained(receiver))
            .map(|(signal, _)| *signal)
            .collect()
    }
}

/// Whether the terminal has gone away.
fn hung_up() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    let gone = PollFlags::HUP | PollFlags::ERR;
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(gone)
}

/// Ends the process when it is still there a while after its terminal went
/// away: the main thread may have read the end of a terminal that went just
/// then, and not come back from it.
fn end_after_hangup() -> io::Result<()> {
    let (mut receiver, sender) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGHUP, sender)?;
    std::thread::Builder::new()
        .name("hangup".into())
        .spawn(move || {
            if let Ok(1..) = receiver.read(&mut [0]) {
                std::thread::sleep(Duration::from_secs(2));
                let _ = signal_hook::low_level::emulate_default_handler(SIGHUP);
            }
        })?;
    Ok(())
}

/// Empties a stream; says whether anything was in it.
fn drained(mut stream: &UnixStream) -> bool {
    let mut any = false;
    let mut bytes = [0; 64];
    while let Ok(1..) = stream.read(&mut bytes) {
        any = true;
    }
    any
}

/// Returns the signal that ended it, if one did.
fn show(
    screen: &mut Screen,
    world: &World,
    wants: &Sender<Want>,
    path: &Path,
    options: Options,
) -> Result<Option<i32>, TuiError> {
    let size = crossterm::terminal::size().unwrap_or((80, 24));
    let mut state = State::new(size, options.theme);
    state.phase = crate::state::Phase::Reading(0, 0);
    let mut wanted: Option<Want> = None;
    let mut changed = true;
    loop {
        let want = state.want();
        if wanted.as_ref() != Some(&want) {
            state.waiting = true;
            // An engine that broke off is seen below.
            let _ = wants.send(want.clone());
            wanted = Some(want);
        }
        if changed {
            draw(screen, &state)?;
            changed = false;
        }
        world.wait().map_err(TuiError::Terminal)?;
        drained(&world.woken);
        loop {
            match world.inbox.try_recv() {
                Ok(Said::Failed(error)) => return Err(error.into()),
                Ok(said) => {
                    changed = true;
                    let message = match said {
                        Said::Progress(read, of) => Message::Progress(read, of),
                        Said::Skimmed(facts) => Message::Skimmed(facts),
                        Said::Facts(facts) => Message::Facts(facts),
                        Said::Verdicts(verdicts) => Message::Verdicts(verdicts),
                        Said::Answer(answer) => Message::Answer(answer),
                        Said::Failed(_) => continue,
                    };
                    update(&mut state, message);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(TuiError::BrokeOff {
                        path: path.to_owned(),
                    });
                }
            }
        }
        for signal in world.signals() {
            match signal {
                SIGTERM | SIGHUP | SIGINT => return Ok(Some(signal)),
                SIGTSTP => suspend(screen).map_err(TuiError::Terminal)?,
                _ => {
                    if let Ok((width, height)) = crossterm::terminal::size() {
                        update(&mut state, Message::Resize(width, height));
                    }
                }
            }
            changed = true;
        }
        // crossterm reads a terminal that hung up over and over, for ever.
        if hung_up() {
            return Ok(Some(SIGHUP));
        }
        while crossterm::event::poll(Duration::ZERO).map_err(TuiError::Terminal)? {
            let event = crossterm::event::read().map_err(TuiError::Terminal)?;
            let Some(message) = keys::message(&state, event) else {
                continue;
            };
            changed = true;
            let effect = update(&mut state, message);
            if let Some(effect) = effect {
                perform(screen, &mut state, effect, path, options).map_err(TuiError::Terminal)?;
            }
            if state.quit {
                return Ok(None);
            }
        }
    }
}

fn draw(screen: &mut Screen, state: &State) -> Result<(), TuiError> {
    let drawn = screen.terminal.draw(|frame| {
        view::draw(state, frame.buffer_mut());
    });
    drawn.map(|_| ()).map_err(TuiError::Terminal)
}

fn perform(
    screen: &mut Screen,
    state: &mut State,
    effect: Effect,
    path: &Path,
    options: Options,
) -> io::Result<()> {
    match effect {
        Effect::Mark(name) => {
            let marked = (options.mark)(path, &name);
            update(state, Message::Marked(marked));
        }
        Effect::Copy => term::copy(&view::selection(state))?,
        Effect::Export(name) => {
            let exported = export(state, name.as_deref());
            update(state, Message::Exported(exported));
        }
        Effect::Suspend => suspend(screen)?,
        Effect::Redraw => screen.terminal.clear()?,
    }
    Ok(())
}

/// Stops, as a program that has no handler would; goes on when told to.
fn suspend(screen: &mut Screen) -> io::Result<()> {
    term::give_back();
    signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
    screen.retake()
}

/// Writes the screen to a file that was not there.
fn export(state: &State, name: Option<&str>) -> Result<String, String> {
    let write = |name: &str| {
        let mut file = File::options().write(true).create_new(true).open(name)?;
        file.write_all(view::text(state).as_bytes())
    };
    let failed = |name: &str, error: &io::Error| {
        let why = if error.kind() == io::ErrorKind::AlreadyExists {
            "it exists".to_owned()
        } else {
            error.to_string()
        };
        format!("cannot write {name}: {why}")
    };
    if let Some(name) = name {
        return match write(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(failed(name, &error)),
        };
    }
    let screen = state.screen.name().to_lowercase();
    for number in 1..1000 {
        let name = format!("leakline-{screen}-{number}.txt");
        match write(&name) {
            Ok(()) => return Ok(name),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&name, &error)),
        }
    }
    Err("there are a thousand exports here already".into())
}
