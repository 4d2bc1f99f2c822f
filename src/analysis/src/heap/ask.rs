//! What a user may ask about: which graph of a file, and which sites.

use std::collections::BTreeMap;
use std::path::Path;

use leakline_recording::record::{HeapGraph, HeapPart, Record};
use leakline_recording::{OpenError, Reader};

use super::{Ended, Graph};
use crate::leaks::warm_ns;
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

/// Reads the graph that a graph is compared with: of the same process the first whole one
/// after warm-up, or else the first; gives its number. What imports make has grown since
/// an earlier one, and says nothing.
///
/// # Errors
///
/// See [`OpenError`].
pub fn read_earlier(
    path: &Path,
    model: &Model<'_>,
    number: u32,
) -> Result<Option<(u32, Graph)>, OpenError> {
    for told in before(model, number) {
        let parts = read_parts(path, &[told.graph])?.remove(&told.graph);
        let graph = Graph::read(parts.unwrap_or_default());
        if graph.ended() == Some(Ended::Whole) {
            return Ok(Some((told.graph, graph)));
        }
    }
    Ok(None)
}

/// The graphs of the same process before a graph, those first that say more beside it.
fn before<'a>(model: &Model<'a>, number: u32) -> Vec<&'a HeapGraph> {
    let all = model.heap_graphs();
    let mut of = all.iter().filter(|graph| graph.graph == number);
    let process = of.next().map(|graph| graph.process);
    let before = all.iter().take_while(|graph| graph.graph != number);
    let mut before: Vec<&HeapGraph> = before
        .filter(|graph| Some(graph.process) == process)
        .copied()
        .collect();
    if before.len() > 1 {
        let warm_ns = warm_ns(model);
        // Stable: each half in its order.
        before.sort_by_key(|graph| graph.at_ns < warm_ns);
    }
    before
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

#[cfg(test)]
mod tests {
    use leakline_recording::record::Domain;

    use super::*;
    use crate::contents::Contents;
    use crate::model::Origin;
    use crate::testing::{Builder, SECOND, counters};

    /// The numbers of the graphs that the last one is compared with, in their order;
    /// graphs of a process at these seconds, of a program whose imports take 5 s.
    fn compared_with(seconds: &[u64]) -> Vec<u32> {
        let mut b = Builder::new(&["python", "app.py"]);
        let process = b.process(21, &["/usr/bin/python3.11", "app.py"]);
        let other = b.process(22, &["/usr/bin/python3.11", "app.py"]);
        let code = b.code("<frozen importlib._bootstrap>", "_load", 240);
        let node = b.python(0, code, 240, true);
        let site = b.site(process, node, Domain::Obj);
        for second in 1..=5 {
            let made = second * 1000;
            b.bin(
                second * SECOND,
                &[(site, counters(made * 64, made, made * 64, made))],
            );
        }
        let mut graph = |graph: u32, process: u32, second: u64| {
            b.records.push(Record::HeapGraph(HeapGraph {
                graph,
                process,
                at_ns: second * SECOND,
                name: String::new(),
                paused_ns: 0,
                values: false,
            }));
        };
        graph(90, other, 1);
        for (number, second) in (1..).zip(seconds) {
            graph(number, process, *second);
        }
        b.end(60 * SECOND);
        let mut contents = Contents::new();
        b.records
            .into_iter()
            .for_each(|record| contents.push(record));
        let model = Model::of(&contents, Origin::default());
        let last = u32::try_from(seconds.len()).unwrap();
        let before = before(&model, last);
        before.iter().map(|graph| graph.graph).collect()
    }

    #[test]
    fn a_graph_is_compared_with_the_first_after_warm_up() {
        assert_eq!(compared_with(&[2, 10, 20, 30]), [2, 3, 1]);
        // There is no better one.
        assert_eq!(compared_with(&[2, 30]), [1]);
        assert_eq!(compared_with(&[1, 2, 3]), [1, 2]);
        assert_eq!(compared_with(&[30]), [0; 0]);
    }
}
