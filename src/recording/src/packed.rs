//! How lists of sites with their figures lie in a file: the gap to the site
//! before, and only the figures that are not 0.
//!
//! Most of a recording is such lists. A process that does what another did has
//! sites with other numbers, but in the same order and with much the same
//! figures: with gaps its list repeats the other's bytes, and costs what differs
//! once it is compressed (60 starts of CPython: 15 KB each, else 135).
//!
//! Gaps wrap, so a list that does not rise stays what it is.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::{Counters, Point};

/// Elements that room is made for before one was read: a list's length is not
/// to be believed.
const MOST_AHEAD: usize = 1 << 16;

/// A site with `N` figures.
trait Row<const N: usize>: Copy {
    fn split(self) -> (u32, [u64; N]);
    fn join(site: u32, figures: [u64; N]) -> Self;
}

impl Row<6> for Point {
    fn split(self) -> (u32, [u64; 6]) {
        let changes = [
            self.live_bytes,
            self.live_blocks,
            self.total_bytes,
            self.total_blocks,
            self.temporary_blocks,
            self.resizes,
        ];
        let zigzag = |change: i64| ((change << 1) ^ (change >> 63)).cast_unsigned();
        (self.site, changes.map(zigzag))
    }

    fn join(site: u32, figures: [u64; 6]) -> Self {
        let signed = |value: u64| (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
        let [
            live_bytes,
            live_blocks,
            total_bytes,
            total_blocks,
            temporary_blocks,
            resizes,
        ] = figures.map(signed);
        Point {
            site,
            live_bytes,
            live_blocks,
            total_bytes,
            total_blocks,
            temporary_blocks,
            resizes,
        }
    }
}

impl Row<6> for (u32, Counters) {
    fn split(self) -> (u32, [u64; 6]) {
        let (site, of) = self;
        let counters = [
            of.live_bytes,
            of.live_blocks,
            of.total_bytes,
            of.total_blocks,
            of.temporary_blocks,
            of.resizes,
        ];
        (site, counters)
    }

    fn join(site: u32, figures: [u64; 6]) -> Self {
        let [
            live_bytes,
            live_blocks,
            total_bytes,
            total_blocks,
            temporary_blocks,
            resizes,
        ] = figures;
        let counters = Counters {
            live_bytes,
            live_blocks,
            total_bytes,
            total_blocks,
            temporary_blocks,
            resizes,
        };
        (site, counters)
    }
}

impl Row<2> for (u32, u64, u64) {
    fn split(self) -> (u32, [u64; 2]) {
        (self.0, [self.1, self.2])
    }

    fn join(site: u32, [bytes, blocks]: [u64; 2]) -> Self {
        (site, bytes, blocks)
    }
}

/// Takes a list of points, as [`points::deserialize`] reads it, in a plain loop: they are
/// most of a recording. `None` where there is none.
pub(crate) fn take_points(from: &mut &[u8]) -> Option<Vec<Point>> {
    let count = take_number::<64>(from)?;
    // A point has two bytes at least.
    let mut points = Vec::with_capacity(usize::try_from(count).ok()?.min(from.len() / 2));
    let mut next = 0_u32;
    for _ in 0..count {
        let gap = take_number::<32>(from)? as u32;
        let (&which, rest) = from.split_first()?;
        *from = rest;
        if which >> 6 != 0 {
            return None;
        }
        let mut figures = [0; 6];
        for (bit, figure) in figures.iter_mut().enumerate() {
            if which & 1 << bit != 0 {
                *figure = take_number::<64>(from)?;
            }
        }
        let site = next.wrapping_add(gap);
        next = site.wrapping_add(1);
        points.push(Point::join(site, figures));
    }
    Some(points)
}

/// A number of so many bits: seven a byte, low ones first.
fn take_number<const BITS: u32>(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..BITS).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        // The last byte has room for what is left of the bits.
        if shift + 7 > BITS && byte >> (BITS - shift) != 0 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// An element of a list.
struct Packed<const N: usize> {
    gap: u32,
    figures: [u64; N],
}

impl<const N: usize> Serialize for Packed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let present = self.figures.iter().filter(|figure| **figure != 0);
        let which = (self.figures.iter().enumerate())
            .filter(|(_, figure)| **figure != 0)
            .fold(0_u8, |which, (bit, _)| which | 1 << bit);
        let mut tuple = serializer.serialize_tuple(2 + which.count_ones() as usize)?;
        tuple.serialize_element(&self.gap)?;
        tuple.serialize_element(&which)?;
        for figure in present {
            tuple.serialize_element(figure)?;
        }
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Packed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Fields<N> {
            type Value = Packed<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a gap, which figures follow, and those")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Packed<N>, A::Error> {
                let short = || A::Error::custom("a list of sites ends within one");
                let gap = seq.next_element()?.ok_or_else(short)?;
                let which: u8 = seq.next_element()?.ok_or_else(short)?;
                if u32::from(which) >> N != 0 {
                    return Err(A::Error::custom("a site has more figures than there are"));
                }
                let mut figures = [0; N];
                for (bit, figure) in figures.iter_mut().enumerate() {
                    if which & 1 << bit != 0 {
                        *figure = seq.next_element()?.ok_or_else(short)?;
                    }
                }
                Ok(Packed { gap, figures })
            }
        }

        deserializer.deserialize_tuple(2 + N, Fields)
    }
}

fn write<R: Row<N>, S: Serializer, const N: usize>(
    rows: &[R],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(rows.len()))?;
    let mut next = 0_u32;
    for row in rows {
        let (site, figures) = row.split();
        let gap = site.wrapping_sub(next);
        next = site.wrapping_add(1);
        seq.serialize_element(&Packed { gap, figures })?;
    }
    seq.end()
}

fn read<'de, R: Row<N>, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<Vec<R>, D::Error> {
    struct Rows<R, const N: usize>(PhantomData<R>);

    impl<'de, R: Row<N>, const N: usize> Visitor<'de> for Rows<R, N> {
        type Value = Vec<R>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of sites with figures")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<R>, A::Error> {
            let ahead = seq.size_hint().unwrap_or(0).min(MOST_AHEAD);
            let mut rows = Vec::with_capacity(ahead);
            let mut next = 0_u32;
            while let Some(Packed { gap, figures }) = seq.next_element::<Packed<N>>()? {
                let site = next.wrapping_add(gap);
                next = site.wrapping_add(1);
                rows.push(R::join(site, figures));
            }
            Ok(rows)
        }
    }

    deserializer.deserialize_seq(Rows(PhantomData))
}

/// Points, for `#[serde(with)]`.
pub(crate) mod points {
    use super::{Deserializer, Point, Serializer, read, write};

    pub(crate) fn serialize<S: Serializer>(of: &[Point], to: S) -> Result<S::Ok, S::Error> {
        write(of, to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Point>, D::Error> {
        read(from)
    }
}

/// Sites with their counters, for `#[serde(with)]`.
pub(crate) mod counters {
    use super::{Counters, Deserializer, Serializer, read, write};

    pub(crate) fn serialize<S: Serializer>(
        of: &[(u32, Counters)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        write(of, to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(u32, Counters)>, D::Error> {
        read(from)
    }
}

/// Sites with bytes and blocks, for `#[serde(with)]`.
pub(crate) mod held {
    use super::{Deserializer, Serializer, read, write};

    pub(crate) fn serialize<S: Serializer>(
        of: &[(u32, u64, u64)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        write(of, to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(u32, u64, u64)>, D::Error> {
        read(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::BinHead;
    use crate::record::{Bin, Inherited, Record};
    use proptest::prelude::*;

    fn point(site: u32, figures: [u64; 6]) -> Point {
        Row::join(site, figures)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            points in prop::collection::vec((any::<u32>(), any::<[u64; 6]>()), 0..20),
            held in prop::collection::vec(any::<(u32, u64, u64)>(), 0..20),
        ) {
            let points = points.into_iter().map(|(site, figures)| point(site, figures)).collect();
            let bin = Record::Bin(Bin { points, ..Bin::default() });
            let bytes = postcard::to_stdvec(&bin).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Record>(&bytes).unwrap(), bin.clone());
            let Record::Bin(bin) = bin else { unreachable!() };
            let bytes = postcard::to_stdvec(&bin).unwrap();
            let (head, mut rest) = postcard::take_from_bytes::<BinHead>(&bytes).unwrap();
            prop_assert_eq!(head, BinHead::default());
            prop_assert_eq!(take_points(&mut rest), Some(bin.points));
            prop_assert_eq!(rest, [0]);
            let inherited = Record::Inherited(Inherited { process: 3, sites: held });
            let bytes = postcard::to_stdvec(&inherited).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Record>(&bytes).unwrap(), inherited);
        }

        #[test]
        fn any_bytes_are_a_list_or_refused(bytes: Vec<u8>) {
            let points = read::<Point, _, 6>(&mut postcard::Deserializer::from_bytes(&bytes));
            prop_assert_eq!(take_points(&mut &bytes[..]), points.ok());
            let _ = read::<(u32, u64, u64), _, 2>(&mut postcard::Deserializer::from_bytes(&bytes));
        }
    }

    #[test]
    fn sites_with_other_numbers_have_the_same_bytes() {
        let list = |first: u32| {
            let sites = (0..50).map(|at| (first + at * 2, u64::from(at), 7));
            let sites = sites.collect();
            let inherited = Record::Inherited(Inherited { process: 3, sites });
            postcard::to_stdvec(&inherited).unwrap()
        };
        let (one, other) = (list(1), list(100));
        let differ = one.iter().zip(&other).filter(|(one, other)| one != other);
        assert_eq!(
            (one.len(), differ.count()),
            (other.len(), 1),
            "the first gap alone"
        );
    }
}
