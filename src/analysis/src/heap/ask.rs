//! What a user may ask about: which graph of a file, and which sites.

use std::collections::BTreeMap;
use std::path::Path;

use leakline_recording::record::{HeapGraph, HeapPart, Record};
use leakline_recording::{OpenError, Reader};

use super::{Ended, Graph};
use crate::model::Model;
use crate::stack::Stacks;

/// Most bytes of parts that are kept of a graph: what some 100 million objects take.
const MOST_BYTES: usize = 4 << 30;

/// Reads the parts of graphs, by their numbers.
///
/// # Errors
///
/// See [`OpenError`].
pub fn read_parts(path: &Path, numbers: &[u32]) -> Result<BTreeMap<u32, Vec<HeapPart>>, OpenError> {
    let mut parts: BTreeMap<u32, (usize, Vec<HeapPart>)> = BTreeMap::new();
    Reader::open(path)?.read(&mut |record| {
        if let Record::HeapPart(part) = record
            && numbers.contains(&part.graph)
        {
            let (bytes, parts) = parts.entry(part.graph).or_default();
            *bytes += part.entries.len() + part.sites.len();
            // The rest is cut off, as the end that is missing tells.
            if *bytes <= MOST_BYTES {
                parts.push(part);
            }
        }
    })?;
    Ok(parts
        .into_iter()
        .map(|(number, (_, parts))| (number, parts))
        .collect())
}

/// Reads the last of `graphs` that is whole, or where none is, the last that has
/// anything; gives its number.
///
/// # Errors
///
/// See [`OpenError`].
pub fn read_last(path: &Path, graphs: &[&HeapGraph]) -> Result<Option<(u32, Graph)>, OpenError> {
    let mut partial = None;
    for told in graphs.iter().rev() {
        let parts = read_parts(path, &[told.graph])?.remove(&told.graph);
        let graph = Graph::read(parts.unwrap_or_default());
        if graph.ended() == Some(Ended::Whole) {
            return Ok(Some((told.graph, graph)));
        }
        if partial.is_none() && !graph.is_empty() {
            partial = Some((told.graph, graph));
        }
    }
    Ok(partial)
}

/// The sites that a user means by `app.py:41`, a function's name, or a site's number;
/// rising.
pub fn sites_named<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, text: &str) -> Vec<u32> {
    let place = text.rsplit_once(':').and_then(|(file, line)| {
        let line: u32 = line.parse().ok()?;
        Some((file, line))
    });
    let number: Option<u32> = text.parse().ok();
    let ends = |long: &str, short: &str, mark: char| {
        let before = long.strip_suffix(short);
        !short.is_empty()
            && before.is_some_and(|before| before.is_empty() || before.ends_with(mark))
    };
    let mut sites = Vec::new();
    for (id, site) in (0..).zip(model.sites()) {
        if let Some(number) = number {
            if number == id {
                sites.push(id);
            }
            continue;
        }
        let head = stacks.head(model, site.node);
        let frames = [head.made_in, head.your_code, head.python];
        let is_meant = frames.into_iter().flatten().any(|frame| {
            let frame = stacks.frame(frame);
            match place {
                Some((file, line)) => {
                    frame.line == line && ends(stacks.name(frame.file), file, '/')
                }
                None => ends(stacks.name(frame.function), text, '.'),
            }
        });
        if is_meant {
            sites.push(id);
        }
    }
    sites
}
