//! Records the process that this code runs in, for as long as it wants to be.
//!
//! As an attached session, but for the way in: the interposer is opened by this
//! process itself, which calls its functions, so that nobody has to stop it.
//! Collector and recording are the same. Children that the process forks are not
//! recorded.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use leakline_collector::protocol::GraphOutcome;
use leakline_collector::protocol::{
    FromCollector, GraphPlan, MOST_PAUSE, Options, Summary, ToCollector,
};
use leakline_recording::record;
use leakline_wire::layout::mode;

use crate::commands::live::AskedGraphs;
use crate::commands::run::output::Output;
use crate::commands::run::session::{Answer, Collector, Invitation};
use crate::commands::run::{host, limits};
use crate::{CliError, preload};

/// What to record, and where to.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an argument of its own in Python"
)]
pub struct Settings {
    /// The recording.
    pub path: PathBuf,
    /// Replace it where it exists.
    pub force: bool,
    /// Record malloc and mmap, with native stacks.
    pub native: bool,
    /// Record Python's allocators, with Python stacks.
    pub python: bool,
    /// Embed source lines.
    pub sources: bool,
    /// The program that becomes the collector when it is given one more argument,
    /// `__collector`: an absolute path, and its arguments.
    pub helper: Vec<OsString>,
}

/// A session of this process with itself.
#[derive(Debug)]
pub struct Recorder {
    collector: Collector,
    path: PathBuf,
    library: Library,
}

impl Recorder {
    /// Begins to record. There can be one session in a process.
    pub fn start(settings: &Settings) -> Result<Recorder, CliError> {
        let action = |action| move |source: io::Error| CliError::System { action, source };
        limits::check()?;
        let library = Library::open()?;
        let invitation =
            Invitation::new().map_err(|error| action("get random bytes")(error.into()))?;
        let file = Output::create(settings.path.clone(), settings.force)?;
        let options = options(settings, &invitation);
        let collector =
            Collector::start_unseen(&settings.helper, file.file(), &invitation, options)?;
        let pid = std::process::id();
        collector.send(&ToCollector::Spawned { pid });
        let joined = library.ask(library.join, &invitation.to_env());
        if let Err(why) = joined {
            collector.kill();
            return Err(CliError::Report {
                message: format!("cannot record this process: {why}"),
                hint: None,
                source: None,
            });
        }
        Ok(Recorder {
            collector,
            path: file.keep(),
            library,
        })
    }

    /// Marks this instant by a name; false where the mark was lost. Names of up to
    /// 200 bytes; what is longer is cut.
    pub fn mark(&self, name: &str) -> bool {
        // SAFETY: the interposer's function, and a text of this length.
        unsafe { (self.library.mark)(name.as_ptr(), name.len()) == 0 }
    }

    /// Leaves, and waits until the recording is whole.
    pub fn stop(self) -> Result<(PathBuf, Summary), CliError> {
        const LONGEST: Duration = Duration::from_secs(130);
        self.collector.send(&ToCollector::Leave);
        let left = self.library.ask(self.library.leave, "leave");
        let began = Instant::now();
        let mut why = left.err().unwrap_or_else(|| "it did not answer".to_owned());
        while began.elapsed() < LONGEST {
            match self.collector.receive(Duration::from_millis(100)) {
                Answer::Message(FromCollector::Finished(summary)) => {
                    return Ok((self.path, summary));
                }
                Answer::Message(FromCollector::Failed { error }) => {
                    why = error;
                    break;
                }
                Answer::Gone => {
                    why = "its process is gone".into();
                    break;
                }
                Answer::Message(_) | Answer::Nothing => {}
            }
        }
        Err(CliError::Report {
            message: format!("the collector ended early: {why}"),
            hint: Some(format!(
                "`{}` holds what was recorded up to there",
                self.path.display()
            )),
            source: None,
        })
    }
}

/// A heap graph of this process, which was asked for. Whichever of its threads comes by
/// one of the interposer's hooks with Python's lock takes it.
#[derive(Debug)]
pub struct AskedGraph(AskedGraphs);

impl AskedGraph {
    /// Asks for one, in the recording that this process makes of itself: of this instant,
    /// which is kept under a name.
    pub fn ask(recording: &Path, name: &str) -> Result<Self, CliError> {
        AskedGraphs::of_recording(recording, name).map(AskedGraph)
    }

    /// What became of it; `None` as long as it is under way.
    pub fn outcome(&self) -> Result<Option<GraphOutcome>, CliError> {
        let states = self.0.states()?;
        let mine = states
            .into_iter()
            .find(|state| state.pid == std::process::id());
        Ok(match mine {
            Some(state) => state.outcome.is_settled().then_some(state.outcome),
            None => Some(GraphOutcome::Refused(
                "this process is not one of the session's".into(),
            )),
        })
    }
}

fn options(settings: &Settings, invitation: &Invitation) -> Options {
    let mut bits = mode::ON;
    if settings.native {
        bits |= mode::NATIVE | mode::NATIVE_STACKS;
    }
    if settings.python {
        bits |= mode::PYTHON;
    }
    let arguments: Vec<Vec<u8>> = std::fs::read("/proc/self/cmdline")
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .collect();
    Options {
        session: record::Session {
            started_unix_ns: 0,
            leakline: env!("CARGO_PKG_VERSION").into(),
            command: leakline_collector::public_command(&arguments),
            mode: "exact".into(),
            sample_bytes: 0,
            python: settings.python,
            native: settings.native,
            host: host(),
            temporary_window: 1,
        },
        token: invitation.token(),
        mode: bits,
        steering: None,
        most_share: None,
        // Each of 5 ms: a second, as for a program that `run` started.
        wait_strikes: 200,
        ring_bytes: 64 << 20,
        sources: settings.sources,
        symbols: true,
        attached: true,
        forking_filters: 0,
        most_pause: MOST_PAUSE,
        graphs: GraphPlan::default(),
    }
}

type Function = unsafe extern "C" fn(*const c_char) -> c_int;
type Mark = unsafe extern "C" fn(*const u8, usize) -> c_int;

/// The interposer, open in this process for as long as that lives: threads may be
/// inside of its functions at any time.
#[derive(Clone, Copy, Debug)]
struct Library {
    /// Where question and answer stand.
    argument: *mut c_char,
    join: Function,
    leave: Function,
    mark: Mark,
}

// SAFETY: addresses of functions, and of a buffer that `ASKING` guards.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// Held while the interposer's buffer is in use.
static ASKING: Mutex<()> = Mutex::new(());

impl Library {
    fn open() -> Result<Library, CliError> {
        let path = preload::unpack()?;
        let broken = |what: String| CliError::Report {
            message: format!("cannot open the interposer: {what}"),
            hint: None,
            source: None,
        };
        let path = CString::new(path.into_os_string().into_vec())
            .map_err(|_| broken("its path has a NUL".to_owned()))?;
        // SAFETY: a library of ours, whose constructor does nothing here.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(broken(loader_error()));
        }
        let find = |name: &std::ffi::CStr| {
            // SAFETY: the handle is open.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            if address.is_null() {
                return Err(broken(loader_error()));
            }
            Ok(address)
        };
        let function = |name| {
            // SAFETY: both functions are exported with this signature.
            find(name)
                .map(|address| unsafe { std::mem::transmute::<*mut c_void, Function>(address) })
        };
        Ok(Library {
            argument: find(c"leakline_argument")?.cast(),
            join: function(c"leakline_join")?,
            leave: function(c"leakline_leave")?,
            // SAFETY: exported with this signature.
            mark: unsafe { std::mem::transmute::<*mut c_void, Mark>(find(c"leakline_mark")?) },
        })
    }

    /// Calls a function with its argument in the buffer, where the answer is then.
    fn ask(&self, function: Function, argument: &str) -> Result<(), String> {
        let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the buffer has 512 bytes; what is asked is far shorter, and the
        // answer ends with a NUL. This thread is in none of libc's functions.
        let answer = unsafe {
            put_text(argument, self.argument);
            function(std::ptr::null());
            std::ffi::CStr::from_ptr(self.argument)
        };
        match answer.to_bytes() {
            b"ok" => Ok(()),
            why => Err(String::from_utf8_lossy(why).into_owned()),
        }
    }
}

/// Copies a text and a NUL.
///
/// # Safety
///
/// There must be room.
unsafe fn put_text(text: &str, to: *mut c_char) {
    // SAFETY: the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len());
        *to.add(text.len()) = 0;
    }
}

/// What the loader has to say of its last failure.
fn loader_error() -> String {
    // SAFETY: gives a text, or null.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: a text of the loader's, until its next failure in this thread.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}
