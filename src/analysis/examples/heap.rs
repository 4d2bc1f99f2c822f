//! How long a large heap graph takes to be read and looked through, and how much
//! memory: `cargo run --release -p leakline-analysis --example heap -- 10000000`.

use std::time::Instant;

use leakline_analysis::heap::{Graph, Heap};
use leakline_recording::record::HeapPart;
use leakline_wire::graph::{Writer, label, node_flag, root, type_flag};

/// Sessions in a dict of a module, each with a dict, a list and two texts.
fn parts(objects: u64) -> Vec<HeapPart> {
    let mut blobs = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    let mut writer = Writer::new(&mut buffer, |blob: &[u8]| {
        blobs.push(blob.to_vec());
        true
    });
    let base = 0x7f00_0000_0000;
    // In the order of allocation, which is nearly that of addresses.
    let place =
        |number: u64| base + 64 * (number ^ (number >> 12).wrapping_mul(0x9e37) >> 4 & 0xfff);
    for (name, flags) in [
        ("module", 1),
        ("dict", 1),
        ("app.Session", 1 | type_flag::HEAP),
        ("list", 1),
        ("str", 0),
        ("type", 1),
    ] {
        let address = if flags & type_flag::HEAP == 0 {
            0
        } else {
            place(2)
        };
        writer.type_(address, flags, name.as_bytes());
    }
    for name in ["__dict__", "SESSIONS", "history", "user"] {
        writer.name(name.as_bytes());
    }
    let named = |name: u64| name << label::BITS | label::ATTRIBUTE;
    let tracked = node_flag::TRACKED;
    let sessions = (objects - 4) / 5;
    writer.root(root::MODULE, 0, b"app.cache", b"", place(0));
    writer.node(place(0), 0, 72, 1, tracked);
    writer.edge(named(0), place(1));
    writer.node(place(1), 1, 232, 1, tracked);
    writer.edge(1 << label::BITS | label::NAMED_ITEM, place(3));
    writer.edge(2 << label::BITS | label::NAMED_ITEM, place(2));
    writer.node(place(2), 5, 1000, 1 + sessions, tracked);
    writer.node(place(3), 1, 100 * sessions, 1, tracked);
    for session in 0..sessions {
        writer.edge(4 << label::BITS | label::ITEM, place(4 + 5 * session));
        writer.edge(label::KEY, place(8 + 5 * session));
    }
    for session in 0..sessions {
        let at = |part: u64| place(4 + 5 * session + part);
        writer.node(at(0), 2, 48, 1, tracked);
        writer.edge(named(0), at(1));
        writer.node(at(1), 1, 184, 1, tracked);
        writer.edge(2 << label::BITS | label::NAMED_ITEM, at(2));
        writer.edge(3 << label::BITS | label::NAMED_ITEM, at(3));
        writer.node(at(2), 3, 88, 1, tracked);
        for item in 0..4 {
            writer.edge(item << label::BITS | label::INDEX, at(3));
        }
        writer.node(at(3), 4, 60, 5, 0);
        writer.node(at(4), 4, 50, 1, 0);
    }
    writer.end(0, objects, 0, 1);
    blobs
        .into_iter()
        .map(|entries| HeapPart {
            graph: 1,
            sites: vec![0; entries.len()],
            entries,
        })
        .collect()
}

/// The most that was resident so far, in bytes.
fn most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[expect(clippy::print_stdout, reason = "an example")]
fn main() {
    let objects = std::env::args().nth(1);
    let objects: u64 = objects
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let parts = parts(objects);
    let told: usize = parts.iter().map(|part| part.entries.len()).sum();
    println!(
        "told: {:.1} B an object; before: {} MiB",
        told as f64 / objects as f64,
        most() >> 20
    );
    let start = Instant::now();
    let graph = Graph::read(parts);
    let count = graph.objects() as f64;
    println!(
        "read: {:.1} s, {:.1} edges and {:.1} B an object; most {} MiB",
        start.elapsed().as_secs_f64(),
        graph.edges() as f64 / count,
        graph.memory() as f64 / count,
        most() >> 20
    );
    let start = Instant::now();
    let heap = Heap::new(graph);
    println!(
        "dominators and paths: {:.1} s, {:.1} B an object in all; most {} MiB, {:.1} B an object",
        start.elapsed().as_secs_f64(),
        heap.memory() as f64 / count,
        most() >> 20,
        most() as f64 / count
    );
}
