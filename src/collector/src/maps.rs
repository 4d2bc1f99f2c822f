//! Mappings of a process: which stack mapped which range of addresses.
//!
//! A mapping is one block. A part that is unmapped leaves the rest: one piece
//! (still one block, smaller) or two (one block more, no further birth). Each
//! piece keeps the site of the mapping it was cut from.

use std::collections::BTreeMap;

use crate::live::{Block, MAX_SIZE};

/// What unmapping a range did to one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The piece as it was.
    pub(crate) block: Block,
    /// Bytes that went.
    pub(crate) bytes: u64,
    /// Pieces that are left of it: 0, 1 or 2.
    pub(crate) left: u64,
}

/// A piece, and the stamp of its mapping's birth.
#[derive(Clone, Copy, Debug)]
struct Piece {
    block: Block,
    born: u64,
}

/// The mappings of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mappings {
    by_start: BTreeMap<u64, Piece>,
}

impl Mappings {
    /// Adds a mapping where nothing is mapped (see [`Mappings::unmap`]).
    pub(crate) fn map(&mut self, start: u64, block: Block, born: u64) {
        if block.size > 0 {
            self.by_start.insert(start, Piece { block, born });
        }
    }

    /// Takes a range out, but for what was born after `until`, and says what
    /// became of each piece in it.
    pub(crate) fn unmap(&mut self, start: u64, length: u64, until: u64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        if length == 0 {
            return cuts;
        }
        let end = start.saturating_add(length.min(MAX_SIZE));
        // Pieces do not overlap: of those that begin before the range only
        // the last can reach into it.
        let before = self
            .by_start
            .range(..start)
            .next_back()
            .filter(|(at, piece)| *at + piece.block.size > start);
        let touched: Vec<u64> = before
            .into_iter()
            .chain(self.by_start.range(start..end))
            .filter(|(_, piece)| piece.born <= until)
            .map(|(at, _)| *at)
            .collect();
        for at in touched {
            let Some(Piece { block, born }) = self.by_start.remove(&at) else {
                continue;
            };
            let piece_end = at + block.size;
            let mut left = 0;
            if at < start {
                let size = start - at;
                self.map(at, Block { size, ..block }, born);
                left += 1;
            }
            if piece_end > end {
                let size = piece_end - end;
                self.map(end, Block { size, ..block }, born);
                left += 1;
            }
            let bytes = piece_end.min(end) - at.max(start);
            cuts.push(Cut { block, bytes, left });
        }
        cuts
    }

    /// All pieces, by address.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Block)> + '_ {
        self.by_start
            .iter()
            .map(|(start, piece)| (*start, piece.block))
    }

    /// The piece that begins at `start` and is `length` bytes long, exactly.
    pub(crate) fn exact(&self, start: u64, length: u64) -> Option<Block> {
        self.by_start
            .get(&start)
            .map(|piece| piece.block)
            .filter(|block| block.size == length)
    }

    /// Changes the size of the piece at `start`. What it grows over must not
    /// be mapped.
    pub(crate) fn resize(&mut self, start: u64, size: u64) {
        if let Some(piece) = self.by_start.get_mut(&start) {
            piece.block.size = size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a map that knows each address by itself.
        #[test]
        fn pieces_are_what_single_addresses_say(
            steps in prop::collection::vec(
                (0..40u64, 0..20u64, any::<bool>(), 0..80u32),
                0..60,
            ),
        ) {
            let mut mappings = Mappings::default();
            let mut model = [None::<u32>; 64];
            let mut live = 0u64;
            // A site is born once: its number is the stamp.
            for (site, (start, length, map, until)) in (0..).zip(steps) {
                let until = if map { u32::MAX } else { until };
                let cuts = mappings.unmap(start, length, until.into());
                let range = start as usize..(start + length) as usize;
                let gone: u64 = cuts.iter().map(|cut| cut.bytes).sum();
                let goes = |at: &&mut Option<u32>| at.is_some_and(|born| born <= until);
                let going = model[range.clone()].iter_mut().filter(goes);
                let expected = going.map(|at| *at = None).count() as u64;
                prop_assert_eq!(gone, expected);
                live = cuts.iter().fold(live, |live, cut| live + cut.left - 1);
                if map && length > 0 {
                    let block = Block { size: length, site, thread: 0, birth: 0 };
                    mappings.map(start, block, site.into());
                    model[range].fill(Some(site));
                    live += 1;
                }
            }
            let mut runs = 0;
            for at in 0..model.len() {
                if model[at].is_some() && (at == 0 || model[at - 1] != model[at]) {
                    runs += 1;
                }
            }
            prop_assert_eq!(mappings.by_start.len(), runs);
            prop_assert_eq!(live, runs as u64);
            for (start, Piece { block, .. }) in &mappings.by_start {
                for at in *start..*start + block.size {
                    prop_assert_eq!(model[at as usize], Some(block.site));
                }
            }
        }
    }
}
