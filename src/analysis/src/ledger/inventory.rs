//! What lives in Python processes by type, and how much more than before.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use leakline_recording::record::{Inventory as Recorded, OfType as Listed};

/// Types that are told apart in a recording.
const MOST_RECORDED: usize = 256;

/// What lives, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Against an earlier one those that grew most come first, else the largest.
    pub types: Vec<OfType>,
    /// Types that are not told apart: how many, and what lives of them.
    pub others: (u64, u64, u64),
    /// Bytes of live small blocks that are no object's, as far as that is known.
    pub rest_bytes: u64,
    /// Bytes of live small blocks that were not read.
    pub unread_bytes: u64,
    /// When it was read.
    pub at_ns: u64,
    /// When the earlier one was read, if there is one.
    pub since_ns: Option<u64>,
}

/// What lives of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfType {
    /// `module.Class`; without the module where it is built in.
    pub name: String,
    /// How many.
    pub objects: u64,
    /// Of their blocks, and of tables that are theirs alone.
    pub bytes: u64,
    /// How many more than before, and bytes; `None` where that is not known.
    pub since: Option<(i64, i64)>,
}

impl Inventory {
    /// What was read, against what was read earlier.
    pub fn of(now: &Recorded, earlier: Option<&Recorded>) -> Inventory {
        let before = earlier.map(|earlier| (by_name(earlier), earlier.others.0 > 0));
        let change = |now: u64, before: u64| now.cast_signed().wrapping_sub(before.cast_signed());
        let mut types: Vec<OfType> = Vec::new();
        for one in &now.types {
            let since = before.as_ref().and_then(|(types, is_cut)| {
                let was = match types.get(one.name.as_str()) {
                    Some(was) => (was.objects, was.bytes),
                    // It may have been among others.
                    None if *is_cut => return None,
                    None => (0, 0),
                };
                Some((change(one.objects, was.0), change(one.bytes, was.1)))
            });
            types.push(OfType {
                name: one.name.clone(),
                objects: one.objects,
                bytes: one.bytes,
                since,
            });
        }
        if now.others.0 == 0 {
            let names = by_name(now);
            let gone = earlier.iter().flat_map(|earlier| &earlier.types);
            let gone = gone.filter(|one| !names.contains_key(one.name.as_str()));
            types.extend(gone.map(|one| OfType {
                name: one.name.clone(),
                objects: 0,
                bytes: 0,
                since: Some((change(0, one.objects), change(0, one.bytes))),
            }));
        }
        Inventory {
            types,
            others: now.others,
            rest_bytes: now.rest_bytes,
            unread_bytes: now.unread_bytes,
            at_ns: now.at_ns,
            since_ns: earlier.map(|earlier| earlier.at_ns),
        }
        .sorted()
    }

    /// Several processes' as one. Of one without an earlier inventory nothing is said to
    /// be new.
    pub fn sum(all: &[&Inventory]) -> Inventory {
        let mut sum = Inventory::default();
        let mut types: BTreeMap<&str, OfType> = BTreeMap::new();
        for one in all {
            for of in &one.types {
                let since = match one.since_ns {
                    None => Some((0, 0)),
                    Some(_) => of.since,
                };
                let known = types.entry(&of.name).or_insert_with(|| OfType {
                    name: of.name.clone(),
                    objects: 0,
                    bytes: 0,
                    since: Some((0, 0)),
                });
                known.objects = known.objects.saturating_add(of.objects);
                known.bytes = known.bytes.saturating_add(of.bytes);
                known.since = known
                    .since
                    .zip(since)
                    .map(|(one, other)| (one.0.wrapping_add(other.0), one.1.wrapping_add(other.1)));
            }
            sum.others.0 = sum.others.0.max(one.others.0);
            sum.others.1 = sum.others.1.saturating_add(one.others.1);
            sum.others.2 = sum.others.2.saturating_add(one.others.2);
            sum.rest_bytes = sum.rest_bytes.saturating_add(one.rest_bytes);
            sum.unread_bytes = sum.unread_bytes.saturating_add(one.unread_bytes);
            sum.at_ns = sum.at_ns.max(one.at_ns);
        }
        sum.since_ns = all.iter().filter_map(|one| one.since_ns).min();
        sum.types = types.into_values().collect();
        if sum.since_ns.is_none() {
            sum.types.iter_mut().for_each(|one| one.since = None);
        }
        sum.sorted()
    }

    fn sorted(mut self) -> Inventory {
        self.types.sort_by_key(|one| {
            let grown = one.since.map_or(0, |(_, bytes)| bytes.max(0));
            Reverse((grown, one.bytes))
        });
        self
    }

    /// The record of what was read: the types of which most lives, and the rest as one.
    /// Of whom and when is not filled in.
    pub fn recorded(types: Vec<Listed>, rest_bytes: u64, unread_bytes: u64) -> Recorded {
        let mut types = types;
        types.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
        let others = types.split_off(types.len().min(MOST_RECORDED));
        Recorded {
            others: others
                .iter()
                .fold((0, 0, 0), |(count, objects, bytes), one| {
                    (count + 1, objects + one.objects, bytes + one.bytes)
                }),
            types,
            rest_bytes,
            unread_bytes,
            ..Recorded::default()
        }
    }

    /// Objects of all types.
    pub fn objects(&self) -> u64 {
        let types = self.types.iter().map(|one| one.objects);
        types.sum::<u64>().saturating_add(self.others.1)
    }

    /// Bytes of all types.
    pub fn bytes(&self) -> u64 {
        let types = self.types.iter().map(|one| one.bytes);
        types.sum::<u64>().saturating_add(self.others.2)
    }
}

fn by_name(one: &Recorded) -> BTreeMap<&str, &Listed> {
    let types = one.types.iter();
    types.map(|of| (of.name.as_str(), of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(at_ns: u64, types: &[(&str, u64, u64)], others: u64) -> Recorded {
        Recorded {
            at_ns,
            types: types
                .iter()
                .map(|&(name, objects, bytes)| Listed {
                    name: name.into(),
                    objects,
                    bytes,
                })
                .collect(),
            others: (others, others * 2, others * 100),
            ..Recorded::default()
        }
    }

    type Line<'i> = (&'i str, u64, Option<(i64, i64)>);

    fn lines(inventory: &Inventory) -> Vec<Line<'_>> {
        let types = inventory.types.iter();
        types
            .map(|one| (one.name.as_str(), one.objects, one.since))
            .collect()
    }

    #[test]
    fn one_look_has_the_largest_first() {
        let now = read(5, &[("a", 1, 10), ("b", 2, 30)], 1);
        let found = Inventory::of(&now, None);
        assert_eq!(lines(&found), [("b", 2, None), ("a", 1, None)]);
        assert_eq!((found.objects(), found.bytes()), (5, 140));
        assert_eq!((found.at_ns, found.since_ns), (5, None));
    }

    #[test]
    fn two_looks_have_what_grew_first() {
        let before = read(1, &[("big", 9, 900), ("gone", 4, 40)], 0);
        let now = read(2, &[("big", 8, 800), ("leak", 5, 50)], 0);
        let found = Inventory::of(&now, Some(&before));
        assert_eq!(
            lines(&found),
            [
                ("leak", 5, Some((5, 50))),
                ("big", 8, Some((-1, -100))),
                ("gone", 0, Some((-4, -40))),
            ]
        );
    }

    /// Only the largest types are recorded one by one.
    #[test]
    fn what_may_have_been_among_others_is_not_called_new() {
        let before = read(1, &[("big", 9, 900)], 3);
        let now = read(2, &[("big", 9, 900), ("risen", 5, 50)], 2);
        let found = Inventory::of(&now, Some(&before));
        assert_eq!(lines(&found)[1], ("risen", 5, None));
        // Nor gone.
        let found = Inventory::of(&before, Some(&now));
        assert_eq!(lines(&found), [("big", 9, Some((0, 0)))]);
    }

    #[test]
    fn processes_are_added_up_by_name() {
        let (one, two) = (
            read(4, &[("a", 1, 10)], 1),
            read(6, &[("a", 2, 20), ("b", 1, 5)], 0),
        );
        let before = read(1, &[("a", 1, 10)], 0);
        let found = Inventory::sum(&[
            &Inventory::of(&one, None),
            &Inventory::of(&two, Some(&before)),
        ]);
        assert_eq!(lines(&found)[0], ("a", 3, Some((1, 10))));
        assert_eq!((found.others, found.since_ns), ((1, 2, 100), Some(1)));
    }
}
