//! The points of time bins, packed, for readers that keep a large recording
//! in memory and go back and forth in it.
//!
//! A point as a record holds it takes 56 bytes; packed, its gap to the last
//! site's number, a byte that says which counters changed, and those changes:
//! 10 to 15. Each process has a *lane* of its own, since its sites are its own:
//! what an ended one left is looked at lane by lane, in the memory that one
//! takes. Between the points of a lane lie *states*, the counters of all its
//! sites, so that any instant is a few bins away from one.
//!
//! # Invariants
//!
//! * Unpacking a bin gives the points that were pushed, those of a process in
//!   their order.
//! * In a lane no more than about half of `POINTS_A_STATE` times its sites lie
//!   between a bin and the state nearest to it, unless one bin alone has more.

use leakline_recording::record::{Counters, Point, Site};
use rustc_hash::FxHashMap;

/// Points for each site between two states. States then take 6 bytes a point.
const POINTS_A_STATE: usize = 8;

/// Points of bins, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    lanes: Vec<Lane>,
    /// The lane of each process.
    by_process: FxHashMap<u32, u32>,
    /// The lane of each site, and its place there.
    places: Vec<(u32, u32)>,
    /// Lanes with points, of each bin.
    bins: Vec<Box<[u32]>>,
}

/// The points of a process's sites.
#[derive(Clone, Debug, Default)]
struct Lane {
    process: u32,
    /// Its sites, rising.
    sites: Vec<u32>,
    /// Its share of each bin in which it has one.
    pieces: Vec<Piece>,
    packed: Vec<u8>,
    /// Counters after so many pieces, rising; the first state, before any, is
    /// all 0 and not held.
    states: Vec<(usize, Box<[Counters]>)>,
    /// Counters now; given up when its process is over.
    now: Option<Vec<Counters>>,
    since_state: usize,
    /// The smallest place that the next point can have.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    bin: u32,
    /// Where it ends in the packed bytes.
    end: usize,
    /// Points up to and including it.
    points: u64,
}

impl Timeline {
    /// Of no bins.
    pub fn new() -> Self {
        Timeline::default()
    }

    /// The next site, before any point of it.
    pub fn add_site(&mut self, site: &Site) {
        let next = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        let at = *self.by_process.entry(site.process).or_insert(next);
        if at == next {
            self.lanes.push(Lane {
                process: site.process,
                ..Lane::default()
            });
        }
        let lane = &mut self.lanes[at as usize];
        let id = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let place = u32::try_from(lane.sites.len()).unwrap_or(u32::MAX);
        self.places.push((at, place));
        lane.sites.push(id);
    }

    /// Takes the points of the next bin. They rise by site.
    pub fn push(&mut self, points: &[Point]) {
        let bin = u32::try_from(self.bins.len()).unwrap_or(u32::MAX);
        let mut touched = Vec::new();
        for point in points {
            let Some(&(at, place)) = self.places.get(point.site as usize) else {
                continue;
            };
            let lane = &mut self.lanes[at as usize];
            if lane.pieces.last().is_none_or(|piece| piece.bin != bin) {
                touched.push(at);
                lane.begin(bin);
            }
            lane.push(place, point);
        }
        for &at in &touched {
            self.lanes[at as usize].end_piece();
        }
        self.bins.push(touched.into());
    }

    /// A process is over: no points of its sites are to come.
    pub fn close(&mut self, process: u32) {
        let at = self.by_process.get(&process);
        if let Some(lane) = at.and_then(|at| self.lanes.get_mut(*at as usize)) {
            lane.now = None;
            lane.sites.shrink_to_fit();
            lane.pieces.shrink_to_fit();
            lane.packed.shrink_to_fit();
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
        let lanes: usize = self.lanes.iter().map(Lane::memory_bytes).sum();
        lanes + self.places.len() * size_of::<(u32, u32)>()
    }

    /// Processes that have had sites: their lanes, in order.
    pub(crate) fn processes(&self) -> impl Iterator<Item = u32> {
        self.lanes.iter().map(|lane| lane.process)
    }

    /// Sites of a lane, rising.
    pub(crate) fn sites_of(&self, lane: usize) -> &[u32] {
        self.lanes.get(lane).map_or(&[], |lane| &lane.sites)
    }

    /// Shows `each` the points of a bin, process by process.
    pub(crate) fn for_each(&self, bin: usize, mut each: impl FnMut(&Point)) {
        let number = bin as u32;
        for &at in self.bins.get(bin).into_iter().flatten() {
            let lane = &self.lanes[at as usize];
            let at = lane.pieces.partition_point(|piece| piece.bin < number);
            lane.for_each(at, |place, point| {
                each(&Point {
                    site: lane.sites[place],
                    ..*point
                });
            });
        }
    }

    /// Shows `each` the points of a process's sites, and the bins they are in.
    pub(crate) fn for_each_of(&self, process: u32, mut each: impl FnMut(usize, &Point)) {
        let at = self.by_process.get(&process);
        let Some(lane) = at.and_then(|at| self.lanes.get(*at as usize)) else {
            return;
        };
        for (at, piece) in lane.pieces.iter().enumerate() {
            lane.for_each(at, |place, point| {
                let site = lane.sites[place];
                each(piece.bin as usize, &Point { site, ..*point });
            });
        }
    }

    /// Counters of a lane's sites, in their order, after so many bins.
    pub(crate) fn counters_of(&self, lane: usize, bins: usize) -> Vec<Counters> {
        let lane = self.lanes.get(lane);
        lane.map_or_else(Vec::new, |lane| lane.counters(bins))
    }

    /// Counters of `sites` sites after the bins up to and including `last`.
    pub(crate) fn counters(&self, last: usize, sites: usize) -> Vec<Counters> {
        let mut counters = vec![Counters::default(); sites];
        for lane in &self.lanes {
            for (&site, of_site) in lane.sites.iter().zip(lane.counters(last.saturating_add(1))) {
                if let Some(counters) = counters.get_mut(site as usize) {
                    *counters = of_site;
                }
            }
        }
        counters
    }
}

impl Lane {
    fn begin(&mut self, bin: u32) {
        if self.now.is_none() {
            self.now = Some(self.counters(usize::MAX));
        }
        let points = self.points(self.pieces.len());
        self.pieces.push(Piece {
            bin,
            end: self.packed.len(),
            points,
        });
        self.next = 0;
    }

    fn push(&mut self, place: u32, point: &Point) {
        pack(&mut self.packed, place.wrapping_sub(self.next), point);
        self.next = place.wrapping_add(1);
        if let Some(now) = &mut self.now {
            if now.len() <= place as usize {
                now.resize(place as usize + 1, Counters::default());
            }
            apply(&mut now[place as usize], point);
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.points += 1;
        }
        self.since_state += 1;
    }

    fn end_piece(&mut self) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.end = self.packed.len();
        }
        if let Some(now) = &self.now
            && self.since_state > POINTS_A_STATE * now.len()
        {
            self.since_state = 0;
            self.states.push((self.pieces.len(), now.clone().into()));
        }
    }

    /// Points in so many pieces.
    fn points(&self, pieces: usize) -> u64 {
        let last = pieces.checked_sub(1).and_then(|at| self.pieces.get(at));
        last.map_or(0, |piece| piece.points)
    }

    fn memory_bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|(_, state)| state.len()).sum();
        let now = self.now.as_ref().map_or(0, Vec::len);
        self.packed.len()
            + self.pieces.len() * size_of::<Piece>()
            + self.sites.len() * size_of::<u32>()
            + (states + now) * size_of::<Counters>()
    }

    /// Shows `each` the points of a piece, with the places of their sites.
    fn for_each(&self, at: usize, mut each: impl FnMut(usize, &Point)) {
        let begins = at
            .checked_sub(1)
            .map_or(0, |before| self.pieces[before].end);
        let ends = self.pieces.get(at).map_or(begins, |piece| piece.end);
        let mut rest = &self.packed[begins..ends];
        let mut next = 0_u32;
        while let Some((gap, point)) = unpack(&mut rest) {
            let place = next.wrapping_add(gap);
            next = place.wrapping_add(1);
            each(place as usize, &point);
        }
    }

    /// Counters of its sites after so many bins.
    fn counters(&self, bins: usize) -> Vec<Counters> {
        let pieces = self
            .pieces
            .partition_point(|piece| (piece.bin as usize) < bins);
        let after = self.states.partition_point(|(at, _)| *at < pieces);
        let before = after.checked_sub(1).map(|at| &self.states[at]);
        let last_state = self.now.as_ref().map(|now| (self.pieces.len(), &now[..]));
        let after = self.states.get(after);
        let after = after.map(|(at, state)| (*at, &state[..])).or(last_state);
        let behind = self.points(pieces) - self.points(before.map_or(0, |(at, _)| *at));
        let after = after.filter(|(at, _)| self.points(*at) - self.points(pieces) < behind);
        let (from, state) =
            after.unwrap_or_else(|| before.map_or((0, &[][..]), |(at, state)| (*at, state)));
        let mut counters = Vec::with_capacity(self.sites.len());
        counters.extend_from_slice(state);
        counters.resize(self.sites.len(), Counters::default());
        let mut change = |piece: usize, change: fn(&mut Counters, &Point)| {
            self.for_each(piece, |place, point| {
                if let Some(site) = counters.get_mut(place) {
                    change(site, point);
                }
            });
        };
        // Changes wrap: they are taken back by what undoes them.
        for piece in from..pieces {
            change(piece, apply);
        }
        for piece in pieces..from {
            change(piece, take_back);
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

/// Appends a point, so many places beyond the one before.
fn pack(to: &mut Vec<u8>, gap: u32, point: &Point) {
    // Put together aside, so that the vector is asked for room once.
    let mut packed = [0; MOST_BYTES];
    let mut at = 0;
    put(&mut packed, &mut at, gap.into());
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

/// Takes a gap and a point, whose site is not known here.
fn unpack(from: &mut &[u8]) -> Option<(u32, Point)> {
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
    let point = Point {
        site: 0,
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks,
        resizes,
    };
    Some((gap, point))
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
    use leakline_recording::record::Domain;
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
        fn states_are_the_sums_of_points(
            bins in bins(),
            processes in proptest::array::uniform8(0_u32..3),
            sites in 0_usize..10,
            closed_at in 0_usize..12,
        ) {
            let mut timeline = Timeline::new();
            for process in processes {
                timeline.add_site(&Site { process, node: 0, domain: Domain::Native });
            }
            let mut sums = vec![Counters::default(); 10];
            let mut expected = Vec::new();
            for (at, bin) in bins.iter().enumerate() {
                timeline.push(bin);
                for point in bin {
                    apply(&mut sums[point.site as usize], point);
                }
                expected.push(sums[..sites].to_vec());
                // One that goes on all the same is no matter.
                if at == closed_at {
                    timeline.close(1);
                }
            }
            prop_assert_eq!(timeline.len(), bins.len());
            for (bin, expected) in expected.iter().enumerate() {
                prop_assert_eq!(&timeline.counters(bin, sites), expected);
                let mut points = Vec::new();
                timeline.for_each(bin, |point| points.push(*point));
                points.sort_unstable_by_key(|point| point.site);
                prop_assert_eq!(&points, &bins[bin]);
            }
            let mut points = vec![Vec::new(); bins.len()];
            for process in 0..3 {
                timeline.for_each_of(process, |bin, point| points[bin].push(*point));
            }
            for points in &mut points {
                points.sort_unstable_by_key(|point| point.site);
            }
            prop_assert_eq!(points, bins);
        }
    }
}
