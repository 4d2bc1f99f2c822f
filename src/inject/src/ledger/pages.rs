//! Which pages of a process are resident, as `/proc/PID/pagemap` tells.
//!
//! Free memory weighs what is resident of it, and only what is resident is
//! read: a page that is not there would be brought in by looking at it.

use super::maps::Map;

/// What the kernel counts in, as far as this module is concerned.
pub(super) const PAGE: u64 = 4096;

/// Pages that are kept account of: 1 TiB of addresses, 64 MiB for us.
const MOST_PAGES: u64 = 1 << 28;

/// Resident bytes of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// No other process has them.
    pub(super) private: u64,
    /// A forked process has them, too.
    pub(super) shared: u64,
}

impl Weight {
    pub(super) fn total(self) -> u64 {
        self.private + self.shared
    }
}

/// The pages of some mappings.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// By address, disjoint.
    spans: Vec<Span>,
}

#[derive(Debug)]
struct Span {
    start: u64,
    end: u64,
    present: Vec<u64>,
    exclusive: Vec<u64>,
}

fn bit(bits: &[u64], at: u64) -> bool {
    bits.get((at / 64) as usize)
        .is_some_and(|word| word >> (at % 64) & 1 == 1)
}

fn set(bits: &mut [u64], at: u64) {
    if let Some(word) = bits.get_mut((at / 64) as usize) {
        *word |= 1 << (at % 64);
    }
}

impl Pages {
    /// Asks `read(first page, entries)` for the pages of the mappings that
    /// matter. Those of more than [`MOST_PAGES`] stay unknown.
    pub(super) fn of(maps: &[Map], mut read: impl FnMut(u64, &mut [u64]) -> bool) -> Pages {
        let mut pages = Pages::default();
        let mut budget = MOST_PAGES;
        let mut entries = vec![0; 1 << 15];
        for map in maps {
            let count = (map.end - map.start) / PAGE;
            let matters = map.rss > 0
                && map.readable
                && !map.is_shared
                && (map.inode == 0 || map.writable || map.offset == 0);
            if !matters || count > budget {
                continue;
            }
            budget -= count;
            let words = count.div_ceil(64) as usize;
            let mut span = Span {
                start: map.start,
                end: map.end,
                present: vec![0; words],
                exclusive: vec![0; words],
            };
            if span.fill(map, count, &mut entries, &mut read) {
                pages.spans.push(span);
            }
        }
        pages
    }

    fn span(&self, address: u64) -> Option<&Span> {
        let after = self.spans.partition_point(|span| span.start <= address);
        let span = self.spans.get(after.checked_sub(1)?)?;
        (address < span.end).then_some(span)
    }

    pub(super) fn is_present(&self, address: u64) -> bool {
        self.span(address)
            .is_some_and(|span| bit(&span.present, (address - span.start) / PAGE))
    }

    /// The first resident page at or after `from` that begins before `to`.
    pub(super) fn next_present(&self, from: u64, to: u64) -> Option<u64> {
        let first = self.spans.partition_point(|span| span.end <= from);
        for span in &self.spans[first..] {
            if span.start >= to {
                break;
            }
            let mut page = from.saturating_sub(span.start).div_ceil(PAGE);
            let end = (to.min(span.end) - span.start).div_ceil(PAGE);
            while page < end {
                // Holes are skipped by 64 pages.
                let word = span.present.get((page / 64) as usize)? >> (page % 64);
                if word == 0 {
                    page = (page / 64 + 1) * 64;
                    continue;
                }
                page += u64::from(word.trailing_zeros());
                if page >= end {
                    break;
                }
                return Some(span.start + page * PAGE);
            }
        }
        None
    }

    /// What is resident of `from..to`.
    pub(super) fn weigh(&self, from: u64, to: u64) -> Weight {
        let mut weight = Weight::default();
        let mut at = from;
        while at < to {
            let Some(span) = self.span(at) else {
                // Between the mappings that are known.
                let next = self.spans.partition_point(|span| span.start <= at);
                match self.spans.get(next) {
                    Some(span) if span.start < to => at = span.start,
                    _ => break,
                }
                continue;
            };
            let end = to.min(span.end);
            while at < end {
                let page = (at - span.start) / PAGE;
                let next = end.min(span.start + (page + 1) * PAGE);
                if bit(&span.present, page) {
                    if bit(&span.exclusive, page) {
                        weight.private += next - at;
                    } else {
                        weight.shared += next - at;
                    }
                }
                at = next;
            }
        }
        weight
    }
}

impl Span {
    fn fill(
        &mut self,
        map: &Map,
        count: u64,
        entries: &mut [u64],
        read: &mut impl FnMut(u64, &mut [u64]) -> bool,
    ) -> bool {
        const PRESENT: u64 = 1 << 63;
        const EXCLUSIVE: u64 = 1 << 56;
        let first = map.start / PAGE;
        let mut done = 0;
        let mut exclusive = 0_u64;
        while done < count {
            let batch = entries.len().min((count - done) as usize);
            let entries = &mut entries[..batch];
            if !read(first + done, entries) {
                return false;
            }
            for (at, entry) in (done..).zip(&*entries) {
                if entry & PRESENT == 0 {
                    continue;
                }
                set(&mut self.present, at);
                if entry & EXCLUSIVE != 0 {
                    set(&mut self.exclusive, at);
                    exclusive += 1;
                }
            }
            done += batch as u64;
        }
        if map.shared == 0 {
            if exclusive == 0 {
                // A kernel that does not tell.
                self.exclusive.clone_from(&self.present);
            } else {
                // What nobody shares and is not exclusive is the zero page,
                // which is no memory.
                self.present.clone_from(&self.exclusive);
            }
        }
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn data(start: u64, end: u64) -> Map {
        Map {
            start,
            end,
            readable: true,
            writable: true,
            rss: end - start,
            anonymous: end - start,
            ..Map::default()
        }
    }

    /// All pages of `maps` resident.
    pub(in super::super) fn all_of(maps: &[Map]) -> Pages {
        Pages::of(maps, |_, entries| {
            entries.fill(1 << 63 | 1 << 56);
            true
        })
    }

    #[test]
    fn a_range_weighs_what_is_resident_of_it() {
        let mut map = data(0x10_0000, 0x18_0000);
        map.shared = PAGE;
        // Of each four pages: there and ours, there and shared, swapped, never there.
        let pages = Pages::of(&[map.clone()], |first, entries| {
            for (at, entry) in (first..).zip(entries) {
                *entry = [1 << 63 | 1 << 56, 1 << 63, 1 << 62, 0][(at % 4) as usize];
            }
            true
        });
        let weight = |from, to| {
            let weight = pages.weigh(from, to);
            (weight.private, weight.shared)
        };
        assert_eq!(weight(0x10_0000, 0x10_4000), (PAGE, PAGE));
        assert_eq!(weight(0x10_0ff0, 0x10_1010), (16, 16));
        assert_eq!(weight(0x10_2000, 0x10_4000), (0, 0));
        assert_eq!(weight(0, u64::MAX), (32 * PAGE, 32 * PAGE));
        assert!(pages.is_present(0x10_1fff) && !pages.is_present(0x10_2000));
        assert_eq!(pages.next_present(0x10_2000, 0x18_0000), Some(0x10_4000));
        assert_eq!(pages.next_present(0x10_2000, 0x10_4000), None);
        assert_eq!(pages.next_present(0, u64::MAX), Some(0x10_0000));

        // Where nothing is shared, a page that is not exclusive is none.
        map.shared = 0;
        let pages = Pages::of(&[map], |_, entries| {
            entries.fill(1 << 63);
            entries[0] |= 1 << 56;
            true
        });
        assert_eq!(pages.weigh(0, u64::MAX).total(), PAGE);
    }

    #[test]
    fn huge_reservations_are_left_alone() {
        let mut huge = data(0, 1 << 46);
        huge.rss = PAGE;
        let pages = Pages::of(&[huge, data(1 << 46, (1 << 46) + PAGE)], |_, entries| {
            assert_eq!(entries.len(), 1);
            entries.fill(1 << 63 | 1 << 56);
            true
        });
        assert!(!pages.is_present(0) && pages.is_present(1 << 46));
        assert_eq!(pages.weigh(0, u64::MAX).total(), PAGE);
    }
}
