//! `leakline._native`: what the Python package asks Rust for.
//!
//! Thin on purpose: sessions are [`leakline_cli::recorder`]'s, judgements
//! [`leakline_analysis::rounds`]'; the package in `python/leakline` is what users
//! see. Long work is done without the GIL.

mod arrow;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use leakline_analysis::heap::{Heap, read_last};
use leakline_analysis::{Contents, Evidence, FrameKind, Grown, Model, Origin, Rounds, Stacks};
use leakline_cli::CliError;
use leakline_cli::recorder::{self, GraphOutcome, Settings};
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};

create_exception!(
    _native,
    Error,
    PyRuntimeError,
    "leakline cannot do what it was asked."
);

/// How the names of marks begin that end a round.
const ROUND: &str = "leakline round ";

/// As the command says it: what went wrong, why, and what to do.
fn error(error: &CliError) -> PyErr {
    let mut words = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push(cause.to_string());
        source = cause.source();
    }
    let hint = error.hint().map_or_else(String::new, |hint| {
        format!(" (hint: {})", hint.replace('\n', " "))
    });
    Error::new_err(words.join(": ") + &hint)
}

/// A session of this process with itself.
#[pyclass(frozen)]
struct Recorder {
    inner: std::sync::Mutex<Option<recorder::Recorder>>,
    rounds: AtomicU32,
    #[expect(clippy::vec_box, reason = "each is a block")]
    kept: std::sync::Mutex<Vec<Box<[u8; 16]>>>,
}

#[pymethods]
impl Recorder {
    /// Begins to record.
    #[new]
    #[expect(
        clippy::fn_params_excessive_bools,
        reason = "each has its name where it is called"
    )]
    #[pyo3(signature = (path, helper, *, force, native, python, sources))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        helper: Vec<OsString>,
        force: bool,
        native: bool,
        python: bool,
        sources: bool,
    ) -> PyResult<Self> {
        let settings = Settings {
            path,
            force,
            native,
            python,
            sources,
            helper,
        };
        let started = py.detach(|| recorder::Recorder::start(&settings));
        Ok(Recorder {
            inner: std::sync::Mutex::new(Some(started.map_err(|why| error(&why))?)),
            rounds: AtomicU32::new(0),
            kept: std::sync::Mutex::default(),
        })
    }

    /// Marks this instant by a name; false where the mark was lost or the session
    /// is over.
    fn mark(&self, name: &str) -> bool {
        // With the GIL held: a mark is two words in a ring, and whoever asked for
        // it wants none of another thread's work before it.
        let inner = self.inner.lock();
        inner.is_ok_and(|inner| inner.as_ref().is_some_and(|inner| inner.mark(name)))
    }

    /// Marks the end of a round, the first that of the warm-up. Without an argument:
    /// for one Python would make a tuple, whose block the next round's own would get.
    fn end_round(&self) -> bool {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed);
        self.mark(&format!("{ROUND}{number}"))
    }

    /// Takes a block of native memory and keeps it as long as this lives: who looks
    /// for it in the recording knows whether native blocks are recorded.
    fn keep_a_block(&self) {
        if let Ok(mut kept) = self.kept.lock() {
            kept.push(Box::new([0; 16]));
        }
    }

    /// Leaves, and waits until the recording is whole.
    fn stop(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let inner = self.inner.lock().ok().and_then(|mut inner| inner.take());
        let Some(inner) = inner else {
            return Err(PyValueError::new_err("the session is over"));
        };
        let (path, summary) = py.detach(|| inner.stop()).map_err(|why| error(&why))?;
        let facts = PyDict::new(py);
        facts.set_item("path", path)?;
        facts.set_item("allocations", summary.allocations)?;
        facts.set_item("lost_events", summary.lost_events)?;
        facts.set_item("peak_bytes", summary.peak_bytes)?;
        facts.set_item("live_bytes", summary.live_bytes)?;
        facts.set_item("live_blocks", summary.live_blocks)?;
        facts.set_item("file_bytes", summary.file_bytes)?;
        facts.set_item("write_error", summary.write_error)?;
        Ok(facts.unbind())
    }
}

/// Keeps an object alive by a reference that no heap graph explains: neither a frame nor
/// an object of Python's has it.
#[pyclass(frozen)]
struct Kept(Py<PyAny>);

#[pymethods]
impl Kept {
    #[new]
    fn new(object: Py<PyAny>) -> Self {
        Kept(object)
    }

    /// Where the object is.
    fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

/// A heap graph of this process that was asked for.
#[pyclass(frozen)]
struct HeapGraph(recorder::AskedGraph);

#[pymethods]
impl HeapGraph {
    /// Asks for one, in the recording that is made of this process.
    #[new]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what Python gives is converted to values of its own"
    )]
    fn new(py: Python<'_>, path: PathBuf, name: String) -> PyResult<Self> {
        py.detach(|| recorder::AskedGraph::ask(&path, &name))
            .map(HeapGraph)
            .map_err(|why| error(&why))
    }

    /// Whether it is there by now; an `Error` where there will be none, or not all.
    fn is_there(&self, py: Python<'_>) -> PyResult<bool> {
        let outcome = py.detach(|| self.0.outcome()).map_err(|why| error(&why))?;
        match outcome {
            None => Ok(false),
            Some(GraphOutcome::CutOff(why)) => Err(Error::new_err(format!(
                "the heap graph is not whole: {why}"
            ))),
            Some(GraphOutcome::Refused(why)) => {
                Err(Error::new_err(format!("no heap graph was taken: {why}")))
            }
            Some(_) => Ok(true),
        }
    }
}

/// The `leakline` command: takes its arguments, the first being its own name, and
/// `helper`, by which this program becomes it. Gives the status to exit with.
#[pyfunction]
fn main(py: Python<'_>, helper: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    let status = py.detach(|| leakline_cli::run_as(helper, arguments));
    // An exit code does not say which it is.
    (0..=u8::MAX)
        .find(|code| ExitCode::from(*code) == status)
        .unwrap_or(1)
}

/// What the resident memory of this process is made of, as JSON.
#[pyfunction]
fn ledger(py: Python<'_>) -> PyResult<String> {
    py.detach(|| leakline_cli::ledger(std::process::id()))
        .map_err(|why| error(&why))
}

/// What is left of each round of a recording, as JSON: see `_rounds.py`. Where there is a
/// heap graph, who holds what grows.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "what Python gives is converted to a path of its own"
)]
fn rounds(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| {
        let (contents, _) =
            Contents::open(&path).map_err(|error| Error::new_err(error.to_string()))?;
        let model = Model::of(&contents, Origin::default());
        let mut stacks = Stacks::new(&model);
        let rounds = Rounds::new(&model, &mut stacks, ROUND);
        let totals = model.totals();
        let settled = rounds
            .stacks
            .iter()
            .filter(|grown| grown.evidence == Evidence::Settled);
        let settled = settled.count();
        let told = rounds
            .stacks
            .iter()
            .filter(|grown| grown.evidence != Evidence::Settled);
        let grows = |grown: &Grown| grown.evidence == Evidence::Grows;
        let heap = if rounds.stacks.iter().any(grows) {
            // That it cannot be read is no reason to say nothing of the rounds.
            read_last(&path, model.heap_graphs())
                .ok()
                .flatten()
                .map(|(_, graph)| Heap::new(graph))
        } else {
            None
        };
        let told: Vec<Value> = told
            .map(|grown| {
                let mut told = stack(&model, &mut stacks, grown);
                if let Some(heap) = heap.as_ref().filter(|_| grows(grown)) {
                    told["held"] = held(heap, grown);
                }
                told
            })
            .collect();
        let answer = json!({
            "rounds": rounds.count,
            "lost_events": totals.lost_events,
            "settled": settled,
            "has_graph": heap.is_some(),
            "stacks": told,
        });
        Ok(answer.to_string())
    })
}

/// Types of a stack's objects in a heap graph, and the path that holds most of them; null
/// where it has none of them.
fn held(heap: &Heap, grown: &Grown) -> Value {
    let Some(group) = heap.holders_of(&grown.sites) else {
        return Value::Null;
    };
    let path = group.paths.first();
    let types = group.types.iter().map(|of| json!([of.name, of.count]));
    json!({
        "types": types.collect::<Vec<_>>(),
        "count": group.count,
        "path": path.filter(|path| path.root.is_some()).map(|path| &path.words),
        "has_path": path.is_some(),
        "paths": group.total_paths,
        "others": path.map_or(&[][..], |path| &path.others),
    })
}

fn stack<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, grown: &Grown) -> Value {
    let head = stacks.head(model, grown.node);
    let ids = stacks.stack(model, grown.node);
    let made_in = ids.iter().position(|id| Some(*id) == head.made_in);
    let frames: Vec<Value> = ids
        .iter()
        .map(|id| {
            let frame = stacks.frame(*id);
            json!({
                "function": stacks.name(frame.function),
                "file": stacks.name(frame.file),
                "line": frame.line,
                "module": stacks.name(frame.module),
                "is_python": frame.kind == FrameKind::Python,
                "is_shown": frame.role.is_shown(),
                "is_own": frame.role == leakline_analysis::Role::Own,
            })
        })
        .collect();
    json!({
        "grows": grown.evidence == Evidence::Grows,
        "bytes_per_round": grown.bytes_per_round(),
        "blocks_per_round": grown.blocks_per_round(),
        "rounds_kept": grown.rounds_kept(),
        "kept": grown.kept.iter().map(|kept| [kept.blocks, kept.bytes]).collect::<Vec<_>>(),
        "made_in": made_in,
        "frames": frames,
    })
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", module.py().get_type::<Error>())?;
    module.add_class::<Recorder>()?;
    module.add_class::<HeapGraph>()?;
    module.add_class::<Kept>()?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(arrow::arrow_stream, module)?)?;
    module.add_function(wrap_pyfunction!(ledger, module)?)?;
    module.add_function(wrap_pyfunction!(rounds, module)?)
}
