//! A heap graph on its way from a child of the target into the recording.
//!
//! The child tells of addresses; which block lies there, and which site made it, only
//! the collector knows: it looks in the live table as it was at the fork.

use leakline_recording::record::HeapPart;
use leakline_wire::Domain;
use leakline_wire::graph::{Entries, Entry, suspect_flag, type_flag};

use crate::live::Block;
use crate::weights::Weights;

/// Bytes of CPython's before an object that its collector knows; and with those of a
/// dict and weak references that it manages.
const HEADS: [u64; 3] = [0, 16, 32];

/// A graph that is being told of.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of what its name does"
)]
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) number: u32,
    /// How long the process stood still.
    pub(crate) paused_ns: u64,
    /// What was told so far.
    pub(crate) nodes: u64,
    pub(crate) edges: u64,
    pub(crate) bytes: u64,
    /// The status of its end, once that came.
    pub(crate) status: Option<u64>,
    /// What follows the end has come, too.
    pub(crate) is_searched: bool,
    /// Some of it was lost.
    pub(crate) has_losses: bool,
    /// Nobody wants to know of it.
    pub(crate) is_dropped: bool,
    /// Of a process without Python: there is nothing to tell but its end.
    pub(crate) is_native: bool,
    /// Bytes before an object of each type, where its block begins.
    heads: Vec<u64>,
}

impl Graph {
    pub(crate) fn new(number: u32, paused_ns: u64) -> Self {
        Graph {
            number,
            paused_ns,
            nodes: 0,
            edges: 0,
            bytes: 0,
            status: None,
            is_searched: false,
            has_losses: false,
            is_dropped: false,
            is_native: false,
            heads: Vec::new(),
        }
    }

    /// One of which nothing is written down.
    pub(crate) fn dropped() -> Self {
        Graph {
            is_dropped: true,
            ..Self::new(0, 0)
        }
    }

    /// A part as it is recorded; `None` where it is not, since it makes no sense, or nobody
    /// wants it.
    pub(crate) fn part(
        &mut self,
        bytes: &[u8],
        find: impl Fn(u64) -> Option<(Block, u8)>,
    ) -> Option<HeapPart> {
        let Some(sites) = self.join(bytes, find) else {
            self.has_losses = true;
            return None;
        };
        (!self.is_native).then(|| HeapPart {
            graph: self.number,
            entries: bytes.to_vec(),
            sites,
        })
    }

    /// For each node, pointer and suspect of a part what [`HeapPart::sites`] has; nothing where
    /// the bytes are no part.
    ///
    /// [`HeapPart::sites`]: leakline_recording::record::HeapPart::sites
    fn join(&mut self, part: &[u8], find: impl Fn(u64) -> Option<(Block, u8)>) -> Option<Vec<u8>> {
        let mut sites = Vec::with_capacity(part.len() / 8);
        let mut entries = Entries::new(part);
        for entry in &mut entries {
            match entry {
                Entry::Type { flags, .. } => {
                    let has_head = flags & type_flag::COLLECTED != 0;
                    self.heads.push(if has_head { HEADS[1] } else { HEADS[0] });
                }
                Entry::Node {
                    address,
                    type_number,
                    bytes,
                    ..
                } => {
                    self.nodes += 1;
                    self.bytes = self.bytes.saturating_add(bytes);
                    let of_type = usize::try_from(type_number)
                        .ok()
                        .and_then(|number| self.heads.get_mut(number));
                    // As for the last object of the type, or as for another.
                    let first = of_type.as_ref().map_or(0, |head| **head);
                    let found = block_of(first, address, &find);
                    let site = found.map_or(0, |(head, block)| {
                        if let Some(of_type) = of_type {
                            *of_type = head;
                        }
                        u64::from(block.site) + 1
                    });
                    put(&mut sites, site);
                }
                Entry::Suspect {
                    address,
                    type_number,
                    flags,
                    ..
                } if flags & suspect_flag::UNREACHED != 0 => {
                    // What no walk came to lives where it is all of a block, from the
                    // place on that its type says.
                    let first = usize::try_from(type_number)
                        .ok()
                        .and_then(|number| self.heads.get(number));
                    let first = first.copied().unwrap_or(HEADS[0]);
                    match block_of(first, address, &find) {
                        Some((head, block)) if (head == 0) == (first == 0) => {
                            put(&mut sites, u64::from(block.site) + 1);
                            put(&mut sites, Weights::size_of(&block));
                        }
                        _ => put(&mut sites, 0),
                    }
                }
                Entry::Pointer(address) => {
                    let found = find(address).filter(|(_, domain)| *domain != Domain::Obj as u8);
                    match found {
                        Some((block, _)) => {
                            put(&mut sites, u64::from(block.site) + 1);
                            put(&mut sites, Weights::size_of(&block));
                        }
                        None => put(&mut sites, 0),
                    }
                }
                Entry::Edge { .. } => self.edges += 1,
                Entry::End { status, .. } => self.status = Some(status),
                Entry::Searched { .. } => self.is_searched = true,
                Entry::Suspect { .. }
                | Entry::Name(_)
                | Entry::Title(_)
                | Entry::Root { .. }
                | Entry::Key { .. }
                | Entry::Keys { .. } => {}
            }
        }
        (!entries.is_malformed()).then_some(sites)
    }
}

/// The block of Python's objects that an object lies in, which begins `first` bytes before
/// it or as many as another's does; and how many.
fn block_of(
    first: u64,
    address: u64,
    find: impl Fn(u64) -> Option<(Block, u8)>,
) -> Option<(u64, Block)> {
    std::iter::once(first)
        .chain(HEADS.into_iter().filter(|head| *head != first))
        .find_map(|head| {
            let (block, domain) = find(address.checked_sub(head)?)?;
            // One that ends before the object is its neighbour.
            let is_its = domain == Domain::Obj as u8 && Weights::size_of(&block) > head;
            is_its.then_some((head, block))
        })
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(blocks: &[(u64, u64)]) -> impl Fn(u64) -> Option<(Block, u8)> {
        |address| {
            let &(_, size) = blocks.iter().find(|(start, _)| *start == address)?;
            let block = Block {
                size,
                site: 0,
                thread: 0,
                birth: 0,
            };
            Some((block, Domain::Obj as u8))
        }
    }

    #[test]
    fn an_object_lies_in_no_block_that_ends_before_it() {
        let head = |first, address, blocks: &[(u64, u64)]| {
            block_of(first, address, at(blocks)).map(|(head, _)| head)
        };
        // Its own, with what is before it.
        assert_eq!(head(0, 64, &[(64, 28)]), Some(0));
        assert_eq!(head(16, 64, &[(48, 56)]), Some(16));
        assert_eq!(head(16, 64, &[(32, 88)]), Some(32));
        // It was made before anybody looked, what lies before it not.
        assert_eq!(head(0, 64, &[(32, 28)]), None);
        assert_eq!(head(0, 64, &[(48, 16), (32, 32)]), None);
        // Of the same type one had 32 bytes before it.
        assert_eq!(head(32, 64, &[(32, 28), (64, 28)]), Some(0));
    }
}
