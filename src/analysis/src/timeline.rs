//! The points of time bins, packed, for readers that keep a large recording
//! in memory and go back and forth in it.
//!
//! A point as a record holds it takes 56 bytes; packed, its gap to the last
//! site's number, a byte that says which counters changed, and those changes:
//! 10 to 15. Between the points lie *states*, the counters of all sites, so
//! that any instant is a few bins away from one.
//!
//! # Invariants
//!
//! * Unpacking a bin gives the points that were pushed, in their order.
//! * No more than about half of `POINTS_A_STATE` times the sites lie between
//!   a bin and the state nearest to it, unless one bin alone has more.

use leakline_recording::record::{Counters, Point};

/// Points for each site between two states. States then take 6 bytes a point.
const POINTS_A_STATE: usize = 8;

/// Points of bins, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    bins: Vec<Box<[u8]>>,
    /// Points in the bins up to and including each.
    points: Vec<u64>,
    /// Counters after so many bins, rising; the first state, before any bin,
    /// is all 0 and not held.
    states: Vec<(usize, Box<[Counters]>)>,
    now: Vec<Counters>,
    since_state: usize,
    buffer: Vec<u8>,
}

impl Timeline {
    /// Of no bins.
    pub fn new() -> Self {
        Timeline::default()
    }

    /// Takes the points of the next bin. They rise by site.
    pub fn push(&mut self, points: &[Point]) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut next = 0;
        for point in points {
            pack(&mut buffer, next, point);
            next = point.site.wrapping_add(1);
            let site = point.site as usize;
            if self.now.len() <= site {
                self.now.resize(site + 1, Counters::default());
            }
            apply(&mut self.now[site], point);
        }
        self.bins.push(buffer.as_slice().into());
        self.buffer = buffer;
        let before = self.points.last().copied().unwrap_or(0);
        self.points.push(before + points.len() as u64);
        self.since_state += points.len();
        if self.since_state > POINTS_A_STATE * self.now.len() {
            self.since_state = 0;
            self.states.push((self.bins.len(), self.now.clone().into()));
        }
    }

    /// How many bins there are.
    pub fn len(&self) -> usize {
        self.bins.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// Bytes that it takes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        let packed: usize = self.bins.iter().map(|bin| bin.len()).sum();
        let states: usize = self.states.iter().map(|(_, state)| state.len()).sum();
        packed + (states + self.now.len()) * size_of::<Counters>()
    }

    /// Shows `each` the points of a bin.
    pub(crate) fn for_each(&self, bin: usize, mut each: impl FnMut(&Point)) {
        let Some(bytes) = self.bins.get(bin) else {
            return;
        };
        let mut rest: &[u8] = bytes;
        let mut next = 0;
        while let Some(point) = unpack(&mut rest, next) {
            next = point.site.wrapping_add(1);
            each(&point);
        }
    }

    /// Counters of `sites` sites after the bins up to and including `last`.
    pub(crate) fn counters(&self, last: usize, sites: usize) -> Vec<Counters> {
        let bins = last.saturating_add(1).min(self.bins.len());
        let points = |bins: usize| bins.checked_sub(1).map_or(0, |last| self.points[last]);
        let after = self.states.partition_point(|(at, _)| *at < bins);
        let before = after.checked_sub(1).map(|at| &self.states[at]);
        let last_state = (self.bins.len(), self.now.as_slice());
        let after = self
            .states
            .get(after)
            .map_or(last_state, |(at, state)| (*at, state));
        let ahead = points(after.0) - points(bins);
        let behind = points(bins) - points(before.map_or(0, |(at, _)| *at));
        let mut counters = Vec::with_capacity(sites);
        let (from, state) = if ahead < behind {
            after
        } else {
            before.map_or((0, &[][..]), |(at, state)| (*at, state))
        };
        counters.extend_from_slice(&state[..state.len().min(sites)]);
        counters.resize(sites, Counters::default());
        let mut change = |bin: usize, change: fn(&mut Counters, &Point)| {
            self.for_each(bin, |point| {
                if let Some(site) = counters.get_mut(point.site as usize) {
                    change(site, point);
                }
            });
        };
        // Changes wrap: they are taken back by what undoes them.
        for bin in from..bins {
            change(bin, apply);
        }
        for bin in bins..from {
            change(bin, take_back);
        }
        counters
    }
}

/// Adds a point's changes.
pub(crate) fn apply(to: &mut Counters, point: &Point) {
    change(to, changes(point));
}

fn take_back(from: &mut Counters, point: &Point) {
    change(from, changes(point).map(i64::wrapping_neg));
}

fn change(counters: &mut Counters, by: [i64; 6]) {
    let all = [
        &mut counters.live_bytes,
        &mut counters.live_blocks,
        &mut counters.total_bytes,
        &mut counters.total_blocks,
        &mut counters.temporary_blocks,
        &mut counters.resizes,
    ];
    for (counter, by) in all.into_iter().zip(by) {
        *counter = counter.wrapping_add_signed(by);
    }
}

fn changes(point: &Point) -> [i64; 6] {
    [
        point.live_bytes,
        point.live_blocks,
        point.total_bytes,
        point.total_blocks,
        point.temporary_blocks,
        point.resizes,
    ]
}

/// Appends a point; `next` is the smallest site number that it can have.
fn pack(to: &mut Vec<u8>, next: u32, point: &Point) {
    // Put together aside, so that the vector is asked for room once.
    let mut packed = [0; MOST_BYTES];
    let mut at = 0;
    put(&mut packed, &mut at, point.site.wrapping_sub(next).into());
    let which_at = at;
    at += 1;
    let mut which = 0_u8;
    for (bit, change) in changes(point).into_iter().enumerate() {
        if change != 0 {
            which |= 1 << bit;
            let value = ((change << 1) ^ (change >> 63)).cast_unsigned();
            put(&mut packed, &mut at, value);
        }
    }
    packed[which_at] = which;
    to.extend_from_slice(&packed[..at]);
}

/// Most bytes of a point: a 32-bit and six 64-bit numbers, and a byte.
const MOST_BYTES: usize = 5 + 1 + 6 * 10;

fn unpack(from: &mut &[u8], next: u32) -> Option<Point> {
    let gap = take(from)? as u32;
    let (&which, rest) = from.split_first()?;
    *from = rest;
    let mut changes = [0_i64; 6];
    for (bit, change) in changes.iter_mut().enumerate() {
        if which & (1 << bit) != 0 {
            let value = take(from)?;
            *change = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
        }
    }
    let [
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks,
        resizes,
    ] = changes;
    Some(Point {
        site: next.wrapping_add(gap),
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks,
        resizes,
    })
}

/// Seven bits a byte, the lowest first, the top bit for "more follows".
fn put(to: &mut [u8; MOST_BYTES], at: &mut usize, mut value: u64) {
    while value >= 0x80 {
        to[*at] = value as u8 | 0x80;
        *at += 1;
        value >>= 7;
    }
    to[*at] = value as u8;
    *at += 1;
}

/// Takes back what was put so.
pub(crate) fn take(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn bins() -> impl Strategy<Value = Vec<Vec<Point>>> {
        let change = prop_oneof![Just(0), -300_i64..300, any::<i64>()];
        let changes = proptest::array::uniform6(change);
        vec(btree_map(0_u32..8, changes, 0..6), 0..12).prop_map(|bins| {
            let points = |bin: std::collections::BTreeMap<u32, [i64; 6]>| {
                bin.into_iter().map(|(site, c)| Point {
                    site,
                    live_bytes: c[0],
                    live_blocks: c[1],
                    total_bytes: c[2],
                    total_blocks: c[3],
                    temporary_blocks: c[4],
                    resizes: c[5],
                })
            };
            bins.into_iter().map(|bin| points(bin).collect()).collect()
        })
    }

    proptest! {
        #[test]
        fn states_are_the_sums_of_points(bins in bins(), sites in 0_usize..10) {
            let mut timeline = Timeline::new();
            let mut sums = vec![Counters::default(); 10];
            let mut expected = Vec::new();
            for bin in &bins {
                timeline.push(bin);
                for point in bin {
                    apply(&mut sums[point.site as usize], point);
                }
                expected.push(sums[..sites].to_vec());
            }
            prop_assert_eq!(timeline.len(), bins.len());
            for (bin, expected) in expected.iter().enumerate() {
                prop_assert_eq!(&timeline.counters(bin, sites), expected);
                let mut points = Vec::new();
                timeline.for_each(bin, |point| points.push(*point));
                prop_assert_eq!(&points, &bins[bin]);
            }
        }
    }
}
