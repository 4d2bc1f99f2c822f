//! Lines of what was read: their order, names and notes.

use leakline_recording::record::Ledger as Recorded;

use super::{Ledger, Line, LineKind, OfIt};
use crate::names::escaped;
use crate::report::{bytes, counted, printable};

/// Between an allocator's name and that of the library that it is linked into.
pub const INSIDE: &str = " inside ";

/// What the parts of a record are, in their order; `None`: the rest.
const KINDS: [LineKind; 11] = [
    LineKind::PythonLive,
    LineKind::PythonFree,
    LineKind::MallocLive,
    LineKind::MallocFree,
    LineKind::OtherAllocator,
    LineKind::Anonymous,
    LineKind::Files,
    LineKind::Stacks,
    LineKind::SharedMemory,
    LineKind::Leakline,
    LineKind::Unexplained,
];

impl LineKind {
    /// Memory of its own, which other processes have only if they were forked.
    fn is_own(self) -> bool {
        !matches!(
            self,
            LineKind::Files | LineKind::SharedMemory | LineKind::Leakline
        )
    }
}

fn line(kind: LineKind) -> Line {
    Line {
        kind,
        title: None,
        is_one_of_several: false,
        bytes: 0,
        shared_bytes: 0,
        note: String::new(),
        of_it: Vec::new(),
    }
}

impl Ledger {
    /// The lines of what was read.
    pub fn of(read: &Recorded) -> Ledger {
        let mut lines: Vec<Line> = Vec::new();
        let mut forked = line(LineKind::CopyOnWrite);
        let mut add = |line: Line, (private, shared): (u64, u64), lines: &mut Vec<Line>| {
            let is_own = line.kind.is_own();
            let line = Line {
                bytes: private.saturating_add(if is_own { 0 } else { shared }),
                shared_bytes: if is_own { 0 } else { shared },
                ..line
            };
            if is_own && shared > 0 {
                forked.bytes = forked.bytes.saturating_add(shared);
                forked.of_it.push(OfIt::new(line.title(), shared));
            }
            lines.push(line);
        };
        for (at, kind) in KINDS.into_iter().enumerate() {
            let (mut private, mut shared) = read.parts.get(at).copied().unwrap_or_default();
            if kind == LineKind::OtherAllocator {
                // Those that are told apart, and what is left.
                for (name, own_private, own_shared) in &read.allocators {
                    let own = ((*own_private).min(private), (*own_shared).min(shared));
                    if own == (0, 0) {
                        continue;
                    }
                    private -= own.0;
                    shared -= own.1;
                    let named = Line {
                        title: Some(printable(name).into_owned()),
                        is_one_of_several: true,
                        note: "live: not known".into(),
                        ..line(kind)
                    };
                    add(named, own, &mut lines);
                }
            }
            let base = Line {
                title: title(read, kind),
                note: note(read, kind, shared),
                of_it: of_it(read, kind),
                ..line(kind)
            };
            add(base, (private, shared), &mut lines);
        }
        // Parts of later versions.
        let rest = read.parts.iter().skip(KINDS.len());
        let rest = rest.fold(0_u64, |sum, (private, shared)| {
            sum.saturating_add(private.saturating_add(*shared))
        });
        if let Some(last) = lines.last_mut() {
            last.bytes = last.bytes.saturating_add(rest);
        }
        forked.shared_bytes = forked.bytes;
        let all = forked.bytes;
        forked.of_it.retain(|part| part.bytes >= (1 << 20).min(all));
        // Before our own and what is not explained.
        lines.insert(lines.len().saturating_sub(2), forked);
        Ledger {
            lines,
            swapped_bytes: read.swapped_bytes,
            arenas: read.arenas,
            trimmable_bytes: read.trimmable_bytes,
            free_of_threads_bytes: read.free_of_threads_bytes,
            python_arenas: read.python_arenas,
            sparse_arenas: (read.sparse_arenas, read.sparse_live_bytes),
            not_read: (!read.not_read.is_empty()).then(|| read.not_read.clone()),
        }
    }
}

/// A better name than a line's own.
fn title(read: &Recorded, kind: LineKind) -> Option<String> {
    match kind {
        LineKind::OtherAllocator => {
            let unsized_ones = read
                .allocators
                .iter()
                .filter(|one| (one.1, one.2) == (0, 0));
            let mut names: Vec<_> = unsized_ones.map(|(name, ..)| printable(name)).collect();
            names.dedup();
            (!names.is_empty()).then(|| format!("maps of {}", names.join(", ")))
        }
        LineKind::Anonymous if !read.not_read.is_empty() && read.arenas == 0 => {
            Some("heap and anonymous maps".into())
        }
        _ => None,
    }
}

fn note(read: &Recorded, kind: LineKind, shared: u64) -> String {
    let arenas = |count: u64| match count {
        0 => String::new(),
        _ => counted(count, "arena", "arenas"),
    };
    match kind {
        LineKind::PythonLive => "of up to 512 bytes".into(),
        LineKind::PythonFree => arenas(read.python_arenas),
        LineKind::MallocLive if read.is_python => "and larger objects".into(),
        LineKind::MallocFree => arenas(read.arenas),
        LineKind::OtherAllocator => "live: not known".into(),
        LineKind::Files if shared > 0 => format!("{} shared", bytes(shared)),
        LineKind::Stacks if read.not_read.is_empty() => {
            // Beside the main thread's.
            counted(read.stacks.saturating_add(1), "stack", "stacks")
        }
        _ => String::new(),
    }
}

/// What a line has that is worth a line of its own.
fn of_it(read: &Recorded, kind: LineKind) -> Vec<OfIt> {
    /// Of all that is resident.
    const PART: u64 = 10;
    let rss = read.rss_bytes();
    let matters = |bytes: u64| bytes > 0 && bytes.saturating_mul(PART) >= rss;
    match kind {
        LineKind::Files => read
            .largest_file
            .iter()
            .filter(|(_, bytes)| matters(*bytes))
            .map(|(name, bytes)| OfIt::new(printable(&escaped(name)), *bytes))
            .collect(),
        LineKind::MallocLive if matters(read.mapped_bytes) => {
            vec![OfIt::new("mapped for one block each", read.mapped_bytes)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_sum_to_the_parts_whatever_is_in_them() {
        let read = Recorded {
            parts: (1..14).map(|part| (part * 1000, part)).collect(),
            allocators: vec![
                ("mimalloc inside polars.so".into(), 2000, 9),
                ("jemalloc".into(), 0, 0),
                ("tcmalloc".into(), u64::MAX, 0),
            ],
            ..Recorded::default()
        };
        let ledger = Ledger::of(&read);
        assert_eq!(ledger.rss_bytes(), read.rss_bytes());
        let named: Vec<_> = ledger
            .lines
            .iter()
            .filter(|line| line.kind == LineKind::OtherAllocator)
            .map(|line| (line.title(), line.bytes))
            .collect();
        assert_eq!(
            named,
            [
                ("mimalloc inside polars.so", 2000),
                ("tcmalloc", 3000),
                ("maps of jemalloc", 0)
            ]
        );
        // What forks share is a line of its own: of all but files and the like.
        let shared: u64 = (1..9).filter(|part| *part != 7).sum();
        assert_eq!(ledger.bytes(LineKind::CopyOnWrite), shared + 11);
    }

    #[test]
    fn nothing_read_is_nothing() {
        assert_eq!(Ledger::of(&Recorded::default()).rss_bytes(), 0);
    }
}
