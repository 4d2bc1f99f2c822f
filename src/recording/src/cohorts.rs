//! Cohorts: spans of birth, and how they are summed up.
//!
//! A block's *tick* is that of the bin in which it was born: the bin's end in
//! milliseconds, or a few more after marks, so that what is born after a mark
//! never shares a tick with what was born before. A cohort is a span of ticks
//! of one site: `2^level` of them, from a multiple of that on, and cut at
//! every *boundary*. A site's level only rises, so cohorts are unions of what
//! they were before, and those of all sites end wherever the coarsest end.

use crate::record::{CohortChange, SiteCohorts};
use std::collections::BTreeMap;

/// Nanoseconds of a tick.
pub const TICK_NS: u64 = 1_000_000;

/// Most changes that a [`Cohorts`](crate::record::Cohorts) record is to hold:
/// more of one instant go into several.
pub const MOST_CHANGES: usize = 1 << 17;

/// Instants at which cohorts are told, over a session; where there is much, and
/// once it is old.
pub const INSTANTS: u64 = 64;

/// How far apart instants are of which there are at most so many in a length
/// of time. From a second on they are those at which compacted bins tell
/// everything anyway, whatever their age.
pub fn instants_every(length_ns: u64, most: u64) -> u64 {
    const SECONDS: [u64; 14] = [
        1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200,
    ];
    let milliseconds = (0..10).map(|doubled| TICK_NS << doubled);
    let seconds = SECONDS.into_iter().map(|seconds| seconds * 1000 * TICK_NS);
    let mut widths = milliseconds.chain(seconds);
    let fits = |width_ns: u64| length_ns / width_ns <= most;
    widths.find(|width_ns| fits(*width_ns)).unwrap_or_else(|| {
        let mut width_ns = 2 * 7_200_000 * TICK_NS;
        while !fits(width_ns) {
            width_ns *= 2;
        }
        width_ns
    })
}

/// The first tick of the cohort that a tick belongs to, at a level.
/// `boundaries` are ticks at which a cohort begins in any case, rising.
#[inline]
pub fn cohort_of(tick: u32, level: u8, boundaries: &[u32]) -> u32 {
    let cell = cell_of(tick, level);
    match boundaries.last() {
        None => cell,
        Some(last) if *last <= tick => cell.max(*last),
        _ => {
            let after = boundaries.partition_point(|boundary| *boundary <= tick);
            let boundary = after.checked_sub(1).map_or(0, |at| boundaries[at]);
            cell.max(boundary)
        }
    }
}

/// The tick after the last one of the cohort that begins at `start`.
pub fn cohort_end(start: u32, level: u8, boundaries: &[u32]) -> u32 {
    let width = 1_u32.checked_shl(level.into()).unwrap_or(0);
    let cell_end = match width {
        0 => u32::MAX,
        width => cell_of(start, level).saturating_add(width),
    };
    let after = boundaries.partition_point(|boundary| *boundary <= start);
    boundaries
        .get(after)
        .map_or(cell_end, |boundary| cell_end.min(*boundary))
}

#[inline]
fn cell_of(tick: u32, level: u8) -> u32 {
    let cells = tick.checked_shr(level.into()).unwrap_or(0);
    cells.checked_shl(level.into()).unwrap_or(0)
}

impl CohortChange {
    /// Nothing changed, in the cohort that begins here.
    pub fn none(start: u32) -> Self {
        CohortChange {
            start,
            born_blocks: 0,
            born_bytes: 0,
            blocks: 0,
            bytes: 0,
        }
    }

    /// Whether nothing changed.
    pub fn is_none(&self) -> bool {
        *self == CohortChange::none(self.start)
    }

    /// Adds another's change, in wrapping arithmetic.
    #[inline]
    pub fn add(&mut self, other: &CohortChange) {
        self.born_blocks = self.born_blocks.wrapping_add(other.born_blocks);
        self.born_bytes = self.born_bytes.wrapping_add(other.born_bytes);
        self.blocks = self.blocks.wrapping_add(other.blocks);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Sums up changes whose cohorts have become one at a level. They rise before
/// and after.
pub fn coarsen(changes: &mut Vec<CohortChange>, level: u8, boundaries: &[u32]) {
    for change in &mut *changes {
        change.start = cohort_of(change.start, level, boundaries);
    }
    changes.dedup_by(|next, before| {
        let is_same = next.start == before.start;
        if is_same {
            before.add(next);
        }
        is_same
    });
}

/// Changes of several instants, as one.
#[derive(Debug, Default)]
pub struct Sum {
    sites: BTreeMap<u32, (u8, Vec<CohortChange>)>,
}

impl Sum {
    /// Adds a site's. Its level never falls.
    pub fn add(&mut self, site: SiteCohorts, boundaries: &[u32]) {
        let (level, changes) = self.sites.entry(site.site).or_default();
        let mut new = site.cohorts;
        if site.level > *level {
            *level = site.level;
            coarsen(changes, *level, boundaries);
        } else if site.level < *level {
            coarsen(&mut new, *level, boundaries);
        }
        for change in new {
            match changes.binary_search_by_key(&change.start, |change| change.start) {
                Ok(at) => changes[at].add(&change),
                Err(at) => changes.insert(at, change),
            }
        }
    }

    /// Takes what was added, rising by site.
    pub fn take(&mut self) -> impl Iterator<Item = SiteCohorts> + use<> {
        let sites = std::mem::take(&mut self.sites);
        // A level alone says something, too.
        sites.into_iter().map(|(site, (level, mut cohorts))| {
            cohorts.retain(|change| !change.is_none());
            SiteCohorts {
                site,
                level,
                cohorts,
            }
        })
    }
}

/// Sites in pieces of about [`MOST_CHANGES`]; none where there are none.
pub fn in_pieces(sites: impl IntoIterator<Item = SiteCohorts>) -> Vec<Vec<SiteCohorts>> {
    let mut pieces: Vec<Vec<SiteCohorts>> = Vec::new();
    let mut room = 0;
    for site in sites {
        let size = site.cohorts.len() + 1;
        if pieces.is_empty() || room < size {
            pieces.push(Vec::new());
            room = MOST_CHANGES;
        }
        room = room.saturating_sub(size);
        if let Some(piece) = pieces.last_mut() {
            piece.push(site);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cohorts_end_at_multiples_and_boundaries() {
        let boundaries = [5, 6, 40];
        for (tick, level, start, end) in [
            (0, 0, 0, 1),
            (4, 2, 4, 5),
            (5, 2, 5, 6),
            (7, 2, 6, 8),
            (7, 31, 6, 40),
            (u32::MAX, 31, 1 << 31, u32::MAX),
            (39, 40, 6, 40),
            (41, 40, 40, u32::MAX),
        ] {
            assert_eq!(cohort_of(tick, level, &boundaries), start, "{tick} {level}");
            assert_eq!(cohort_end(start, level, &boundaries), end, "{tick} {level}");
        }
        assert_eq!(cohort_of(77, 3, &[]), 72);
        assert_eq!(cohort_end(72, 3, &[]), 80);
    }

    proptest! {
        /// To coarsen in steps is to coarsen at once, and all ticks between a
        /// cohort's ends are its.
        #[test]
        fn levels_nest(
            tick in 0..5000_u32,
            fine in 0..14_u8,
            more in 0..5_u8,
            mut boundaries in prop::collection::vec(0..5000_u32, 0..4),
        ) {
            boundaries.sort_unstable();
            let coarse = fine + more;
            let start = cohort_of(tick, fine, &boundaries);
            prop_assert!(start <= tick && tick < cohort_end(start, fine, &boundaries));
            prop_assert_eq!(cohort_of(start, fine, &boundaries), start);
            prop_assert_eq!(
                cohort_of(start, coarse, &boundaries),
                cohort_of(tick, coarse, &boundaries)
            );
        }
    }
}
