//! The heap graph that is asked about, and the earlier one that it is compared with.
//!
//! # Invariants
//!
//! * One graph is kept, with the earlier one: another takes their place, and they are
//!   given back before it is read.
//! * A graph is read and its dominators found once, however often it is asked about; one
//!   that was not whole is read again when the file has grown.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leakline_analysis::Model;
use leakline_analysis::heap::{Ended, Graph, Heap, read_earlier, read_last, read_parts};
use leakline_recording::OpenError;

use crate::state::data::Holders;

/// See the module.
#[derive(Debug)]
pub(crate) struct Heaps {
    path: PathBuf,
    kept: Option<Kept>,
}

/// A graph that was read.
#[derive(Debug)]
pub(crate) struct Kept {
    recording: u64,
    /// It was asked for as the last of so many.
    last_of: Option<usize>,
    /// So long was the file then.
    file_bytes: u64,
    /// Its number.
    pub(crate) number: u32,
    /// It.
    pub(crate) heap: Heap,
    /// The graph of the same process that it is compared with.
    pub(crate) earlier: Option<(u32, Heap)>,
    /// Where most of it gathers, once that was asked for: of a recording that grows it
    /// is wanted twice a second.
    pub(crate) gathered: OnceCell<Arc<Holders>>,
}

impl Kept {
    /// Why it is not whole.
    pub(crate) fn flaw(&self) -> Option<String> {
        match self.heap.graph.ended() {
            Some(Ended::Whole) => None,
            Some(Ended::Approximate) => {
                Some("the graph is approximate: it was read from outside".into())
            }
            Some(Ended::Early(why)) => Some(format!("the graph is not whole: {why}")),
            None => Some("the graph is not whole: it was cut off".into()),
        }
    }
}

impl Heaps {
    pub(crate) fn new(path: &Path) -> Self {
        Heaps {
            path: path.to_owned(),
            kept: None,
        }
    }

    /// The graph of that number, or else the last whole one; `None` where there is none.
    pub(crate) fn kept(&self, model: &Model<'_>, number: Option<u32>) -> Option<&Kept> {
        let kept = self.kept.as_ref()?;
        let is_asked = match number {
            Some(number) => kept.number == number,
            None => kept.last_of == Some(model.heap_graphs().len()),
        };
        let is_whole = kept.heap.graph.ended() == Some(Ended::Whole);
        let is_same = kept.recording == started(model)
            && (is_whole || kept.file_bytes == model.origin().file_bytes);
        (is_asked && is_same).then_some(kept)
    }

    /// Reads it, unless it is kept. Says its number and how many objects it has
    /// before it finds out who holds them.
    pub(crate) fn read(
        &mut self,
        model: &Model<'_>,
        number: Option<u32>,
        said: &dyn Fn(u32, u64),
    ) -> Result<(), OpenError> {
        let all = model.heap_graphs();
        if all.is_empty() || self.kept(model, number).is_some() {
            return Ok(());
        }
        self.kept = None;
        let found = match number {
            Some(number) => Some((number, self.graph(number)?)),
            None => read_last(&self.path, all)?,
        };
        let Some((number_found, graph)) = found.filter(|(_, graph)| !graph.is_empty()) else {
            return Ok(());
        };
        said(number_found, graph.objects() as u64);
        let heap = Heap::new(graph);
        let earlier = read_earlier(&self.path, model, number_found)?;
        let earlier = earlier.map(|(number, graph)| (number, Heap::new(graph)));
        self.kept = Some(Kept {
            recording: started(model),
            last_of: number.is_none().then_some(all.len()),
            file_bytes: model.origin().file_bytes,
            number: number_found,
            heap,
            earlier,
            gathered: OnceCell::new(),
        });
        Ok(())
    }

    fn graph(&self, number: u32) -> Result<Graph, OpenError> {
        let parts = read_parts(&self.path, &[number])?.remove(&number);
        Ok(Graph::read(parts.unwrap_or_default()))
    }
}

/// Tells a recording from another that has taken its name.
fn started(model: &Model<'_>) -> u64 {
    model.session().map_or(0, |session| session.started_unix_ns)
}
