//! The points of time bins, packed, for readers that keep a large recording
//! in memory and go back and forth in it.
//!
//! A point as a record holds it takes 56 bytes; packed, its gap to the last
//! site's number, a byte that says which counters changed, and those changes:
//! 10 to 15, and where all blocks of a site have one size, 6 (bytes are then the
//! blocks' count times that). Each process has a *lane* of its own, since its sites are its own:
//! what an ended one left is looked at lane by lane, in the memory that one
//! takes. Between the points of a lane lie *states*, the counters of all its
//! sites, packed likewise, so that any instant is a few bins away from one.
//!
//! # Invariants
//!
//! * Unpacking a bin gives the points that were pushed, those of a process in
//!   their order.
//! * In a lane no more than about half of `POINTS_A_STATE` times its sites lie
//!   between a bin and the state nearest to it, unless one bin alone has more.

use leakline_recording::record::{Counters, Point, Site};
use rustc_hash::FxHashMap;

/// Points for each site between two states. States then take 2 bytes a point.
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
    /// Bytes of a block, where those of a site's first point have one size; 0 where
    /// they have not.
    units: Vec<u32>,
    /// Its share of each bin in which it has one.
    pieces: Vec<Piece>,
    packed: Vec<u8>,
    /// Counters after so many pieces, rising, as points from 0 on; the first state,
    /// before any, is all 0 and not held.
    states: Vec<(usize, Box<[u8]>)>,
    /// Counters now; given up when its process is over, or the recording.
    now: Option<Vec<Counters>>,
    since_state: usize,
    /// The smallest place that the next point can have.
    next: u32,
}

/// Counters of a lane's sites, in some 10 bytes each where they are not 0.
#[derive(Clone, Debug)]
pub(crate) struct Packed(Box<[u8]>);

/// Goes along packed counters.
#[derive(Debug)]
pub(crate) struct Unpacked<'p> {
    changes: Changes<'p>,
    /// The next that there are.
    ahead: Option<(usize, [i64; 6])>,
}

impl Unpacked<'_> {
    /// Counters of a lane's site, by its place: of rising ones.
    pub(crate) fn at(&mut self, place: usize) -> Counters {
        while self.ahead.is_none_or(|(ahead, _)| ahead < place) {
            let Some(ahead) = self.changes.next() else {
                return Counters::default();
            };
            self.ahead = Some(ahead);
        }
        let mut counters = Counters::default();
        if let Some((_, values)) = self.ahead.filter(|(ahead, _)| *ahead == place) {
            change(&mut counters, values);
        }
        counters
    }
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
        lane.units.push(NO_POINT);
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
            lane.units.shrink_to_fit();
            lane.pieces.shrink_to_fit();
            lane.packed.shrink_to_fit();
        }
    }

    /// The recording has ended: no points are to come.
    pub fn finish(&mut self) {
        for lane in &mut self.lanes {
            lane.finish();
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

    /// Counters of a lane's sites, packed: to hold those of a million.
    pub(crate) fn pack(&self, lane: usize, counters: &[Counters]) -> Packed {
        let lane = self.lanes.get(lane);
        Packed(lane.map_or_else(Box::default, |lane| lane.packed(counters)))
    }

    /// Looks at what was packed of a lane.
    pub(crate) fn unpack<'p>(&'p self, lane: usize, packed: &'p Packed) -> Unpacked<'p> {
        Unpacked {
            changes: Changes {
                from: &packed.0,
                units: self.lanes.get(lane).map_or(&[], |lane| &lane.units),
                next: 0,
            },
            ahead: None,
        }
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
        if let Some(unit) = self.units.get_mut(place as usize)
            && *unit == NO_POINT
        {
            *unit = unit_of(point);
        }
        let unit = unit_at(&self.units, place as usize);
        pack(
            &mut self.packed,
            place.wrapping_sub(self.next),
            changes(point),
            unit,
        );
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
            self.keep_state();
        }
    }

    fn keep_state(&mut self) {
        let Some(now) = &self.now else {
            return;
        };
        let state = self.packed(now);
        self.since_state = 0;
        self.states.push((self.pieces.len(), state));
    }

    /// Counters of its sites, as points from 0 on.
    fn packed(&self, all: &[Counters]) -> Box<[u8]> {
        let mut packed = Vec::new();
        let mut next = 0;
        for (place, counters) in all.iter().enumerate() {
            if *counters == Counters::default() {
                continue;
            }
            let gap = u32::try_from(place - next).unwrap_or(u32::MAX);
            next = place + 1;
            let unit = unit_at(&self.units, place);
            pack(&mut packed, gap, values(counters), unit);
        }
        packed.into()
    }

    /// Keeps the last state, packed, in place of the counters.
    fn finish(&mut self) {
        if self.now.as_ref().is_some_and(|now| now.len() > FEW_SITES) && self.since_state > 0 {
            self.keep_state();
        }
        self.now = None;
        self.packed.shrink_to_fit();
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
            + states
            + self.pieces.len() * size_of::<Piece>()
            + self.sites.len() * 2 * size_of::<u32>()
            + now * size_of::<Counters>()
    }

    /// Shows `each` the points of a piece, with the places of their sites.
    fn for_each(&self, at: usize, mut each: impl FnMut(usize, &Point)) {
        let begins = at
            .checked_sub(1)
            .map_or(0, |before| self.pieces[before].end);
        let ends = self.pieces.get(at).map_or(begins, |piece| piece.end);
        unpack(&self.packed[begins..ends], &self.units, |place, changes| {
            each(place, &point_of(changes));
        });
    }

    /// Counters of its sites after so many bins.
    fn counters(&self, bins: usize) -> Vec<Counters> {
        let pieces = self
            .pieces
            .partition_point(|piece| (piece.bin as usize) < bins);
        let after = self.states.partition_point(|(at, _)| *at < pieces);
        let before = after.checked_sub(1).map(|at| &self.states[at]);
        let last_state = self.now.as_ref().map(|_| (self.pieces.len(), None));
        let after = self.states.get(after);
        let after = after
            .map(|(at, state)| (*at, Some(&state[..])))
            .or(last_state);
        let behind = self.points(pieces) - self.points(before.map_or(0, |(at, _)| *at));
        let after = after.filter(|(at, _)| self.points(*at) - self.points(pieces) < behind);
        let (from, state) = after
            .unwrap_or_else(|| before.map_or((0, Some(&[][..])), |(at, state)| (*at, Some(state))));
        let mut counters = Vec::with_capacity(self.sites.len());
        if let (None, Some(now)) = (state, &self.now) {
            counters.extend_from_slice(now);
        }
        counters.resize(self.sites.len(), Counters::default());
        unpack(state.unwrap_or(&[]), &self.units, |place, changes| {
            if let Some(site) = counters.get_mut(place) {
                change(site, changes);
            }
        });
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

fn values(counters: &Counters) -> [i64; 6] {
    [
        counters.live_bytes,
        counters.live_blocks,
        counters.total_bytes,
        counters.total_blocks,
        counters.temporary_blocks,
        counters.resizes,
    ]
    .map(u64::cast_signed)
}

fn point_of(changes: [i64; 6]) -> Point {
    let [
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks,
        resizes,
    ] = changes;
    Point {
        site: 0,
        live_bytes,
        live_blocks,
        total_bytes,
        total_blocks,
        temporary_blocks,
        resizes,
    }
}

/// A site that has no point yet.
const NO_POINT: u32 = u32::MAX;
/// Lanes of so few sites keep no last state: many short processes have such.
const FEW_SITES: usize = if cfg!(test) { 1 } else { 1024 };
/// Live bytes are live blocks times the site's unit; total bytes likewise.
const LIVE_BY_UNIT: u8 = 1 << 6;
const TOTAL_BY_UNIT: u8 = 1 << 7;

/// Bytes of a block, by a site's first point; 0 where they differ.
fn unit_of(point: &Point) -> u32 {
    let (bytes, blocks) = (point.total_bytes, point.total_blocks);
    if blocks <= 0 || bytes <= 0 || bytes % blocks != 0 {
        return 0;
    }
    u32::try_from(bytes / blocks).map_or(0, |unit| if unit == NO_POINT { 0 } else { unit })
}

/// The unit of a place; 0 where it has none.
fn unit_at(units: &[u32], place: usize) -> i64 {
    match units.get(place) {
        None | Some(&NO_POINT) => 0,
        Some(&unit) => unit.into(),
    }
}

/// Appends changes, so many places beyond the ones before.
fn pack(to: &mut Vec<u8>, gap: u32, mut changes: [i64; 6], unit: i64) {
    // Put together aside, so that the vector is asked for room once.
    let mut packed = [0; MOST_BYTES];
    let mut at = 0;
    put(&mut packed, &mut at, gap.into());
    let which_at = at;
    at += 1;
    let mut which = 0_u8;
    for (bytes, by_unit) in [(0, LIVE_BY_UNIT), (2, TOTAL_BY_UNIT)] {
        if changes[bytes] != 0 && changes[bytes] == changes[bytes + 1].wrapping_mul(unit) {
            changes[bytes] = 0;
            which |= by_unit;
        }
    }
    for (bit, change) in changes.into_iter().enumerate() {
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

/// Shows `each` what was packed: places, and the changes there.
fn unpack(from: &[u8], units: &[u32], mut each: impl FnMut(usize, [i64; 6])) {
    let next = 0;
    for (place, changes) in (Changes { from, units, next }) {
        each(place, changes);
    }
}

/// What was packed: places, and the changes there.
#[derive(Debug)]
struct Changes<'p> {
    from: &'p [u8],
    units: &'p [u32],
    next: u32,
}

impl Iterator for Changes<'_> {
    type Item = (usize, [i64; 6]);

    fn next(&mut self) -> Option<Self::Item> {
        let (gap, which, mut changes) = take_changes(&mut self.from)?;
        let place = self.next.wrapping_add(gap);
        self.next = place.wrapping_add(1);
        for (bytes, by_unit) in [(0, LIVE_BY_UNIT), (2, TOTAL_BY_UNIT)] {
            if which & by_unit != 0 {
                let unit = unit_at(self.units, place as usize);
                changes[bytes] = changes[bytes + 1].wrapping_mul(unit);
            }
        }
        Some((place as usize, changes))
    }
}

/// Takes a gap, what says which changes follow, and those.
fn take_changes(from: &mut &[u8]) -> Option<(u32, u8, [i64; 6])> {
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
    Some((gap, which, changes))
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
        let any_changes = proptest::array::uniform6(change);
        let of_one_size = (-9_i64..9, 0_i64..9, 1_i64..40)
            .prop_map(|(live, total, size)| [live * size, live, total * size, total, 0, 0]);
        let changes = prop_oneof![any_changes, of_one_size];
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
            finished_at in 0_usize..20,
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
                if at == finished_at {
                    timeline.finish();
                }
            }
            prop_assert_eq!(timeline.len(), bins.len());
            for (bin, expected) in expected.iter().enumerate() {
                prop_assert_eq!(&timeline.counters(bin, sites), expected);
                for lane in 0..timeline.processes().count() {
                    let counters = timeline.counters_of(lane, bin + 1);
                    let packed = timeline.pack(lane, &counters);
                    let mut unpacked = timeline.unpack(lane, &packed);
                    // One of two, as if not all were asked for.
                    for place in (0..counters.len()).step_by(1 + bin % 2) {
                        prop_assert_eq!(unpacked.at(place), counters[place]);
                    }
                }
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
