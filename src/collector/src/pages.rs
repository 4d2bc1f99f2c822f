//! Which pages live blocks lie in, and whose they are.
//!
//! A page with blocks of several sites is shared among them by the bytes that each has in
//! it: so pages of all sites sum to the pages that there are, and a block of 40 bytes that
//! is alone in a page keeps all of it. Pages that the kernel says are not there (never
//! touched, swapped out) are kept by nobody, where it can be [asked](Residency).
//!
//! Whole pages inside of a block are that block's alone, and are looked at in passing. Of
//! the pages at its ends there are two at most; where they are too many, one of so many is
//! counted, chosen by its address: an estimate without bias.

use std::fs::File;
use std::os::unix::fs::FileExt;

use leakline_recording::record::PageCost;
use rustc_hash::FxHashMap;
use rustix::time::{ClockId, clock_gettime};

use crate::process::Identity;

pub(crate) const PAGE: u64 = 4096;
/// Most parts of blocks that are remembered at once: 16 bytes each.
const MOST_PARTS: u64 = 4 << 20;
/// Most blocks whose whole pages are remembered at once: 24 bytes each.
const MOST_RUNS: usize = 1 << 20;

/// The part of a block that lies in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    page: u64,
    site: u32,
    bytes: u32,
}

/// Whole pages of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    page: u64,
    pages: u64,
    site: u32,
}

/// What pages blocks keep.
#[derive(Debug)]
pub(crate) struct Counted {
    /// By their addresses.
    pub(crate) touched: PageCost,
    /// Those that are there; `None` where that is not known.
    pub(crate) resident: Option<PageCost>,
}

/// Counts pages. `each` hands on address, bytes and site of every block, of which there
/// are at most `blocks`; of `mapped` only pages that are there count.
pub(crate) fn count(
    blocks: u64,
    residency: Option<Residency>,
    mapped: impl Iterator<Item = (u64, u64, u32)>,
    each: impl FnOnce(&mut dyn FnMut(u64, u64, u32)),
) -> Counted {
    count_within(MOST_PARTS, blocks, residency, mapped, each)
}

fn count_within(
    most_parts: u64,
    blocks: u64,
    residency: Option<Residency>,
    mapped: impl Iterator<Item = (u64, u64, u32)>,
    each: impl FnOnce(&mut dyn FnMut(u64, u64, u32)),
) -> Counted {
    let one_of = blocks
        .saturating_mul(2)
        .div_ceil(most_parts)
        .clamp(1, u64::from(u32::MAX));
    let mut parts: Vec<Part> = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    let mut sums = Sums {
        residency,
        ..Sums::default()
    };
    let mut cost = PageCost {
        one_of: one_of as u32,
        ..PageCost::default()
    };
    each(&mut |address, bytes, site| {
        // Also of no bytes it is a block.
        let bytes = bytes.max(1);
        let end = address.saturating_add(bytes);
        let mut part = |page: u64, bytes: u64| {
            if one_of == 1 || hash(page).is_multiple_of(one_of) {
                let bytes = bytes as u32;
                parts.push(Part { page, site, bytes });
            }
        };
        let (first, last) = (address / PAGE, (end - 1) / PAGE);
        if first == last {
            return part(first, bytes);
        }
        let (mut from, mut to) = (first, last + 1);
        if address % PAGE != 0 {
            part(first, PAGE - address % PAGE);
            from += 1;
        }
        if end % PAGE != 0 {
            part(last, end % PAGE);
            to -= 1;
        }
        if from < to {
            let (page, pages) = (from, to - from);
            cost.pages += pages;
            cost.block_bytes = cost.block_bytes.saturating_add(pages * PAGE);
            runs.push(Run { page, pages, site });
            if runs.len() == MOST_RUNS {
                sums.add_runs(&mut runs);
            }
        }
    });
    sums.add_runs(&mut runs);
    parts.sort_unstable();
    for page in parts.chunk_by(|one, other| one.page == other.page) {
        cost.pages += 1;
        let all: u64 = page.iter().map(|part| u64::from(part.bytes)).sum();
        cost.block_bytes = cost.block_bytes.saturating_add(all);
        let is_there = sums.there(page[0].page, 1) > 0;
        let mut rest = PAGE;
        let mut so_far = 0;
        for part in page {
            // What is left of the page after this part, so that parts sum to a page.
            so_far += u64::from(part.bytes);
            let left = PAGE - PAGE * so_far / all;
            let bytes = (rest - left).saturating_mul(one_of);
            sums.add(part.site, bytes, if is_there { bytes } else { 0 });
            rest = left;
        }
    }
    sums.add_mapped(mapped);
    sums.counted(cost)
}

/// What is counted so far.
#[derive(Default)]
struct Sums {
    /// By site, bytes by addresses, and of pages that are there.
    sites: FxHashMap<u32, (u64, u64)>,
    residency: Option<Residency>,
}

impl Sums {
    fn add(&mut self, site: u32, touched: u64, there: u64) {
        let sum = self.sites.entry(site).or_default();
        sum.0 = sum.0.saturating_add(touched);
        sum.1 = sum.1.saturating_add(there);
    }

    fn add_runs(&mut self, runs: &mut Vec<Run>) {
        // One after the other is what is read quickly.
        runs.sort_unstable();
        for run in runs.drain(..) {
            let there = self.there(run.page, run.pages);
            self.add(run.site, run.pages * PAGE, there * PAGE);
        }
    }

    /// Most of what is mapped is there to be used later, so what is not asked for does not
    /// count.
    fn add_mapped(&mut self, mapped: impl Iterator<Item = (u64, u64, u32)>) {
        for (start, bytes, site) in mapped {
            let Some(residency) = &mut self.residency else {
                return;
            };
            let before = residency.unasked;
            let there = residency.of(start / PAGE, bytes.div_ceil(PAGE));
            let unasked = std::mem::replace(&mut residency.unasked, before) - before;
            self.add(site, 0, (there - unasked) * PAGE);
        }
    }

    /// How many of these pages are there; all where that is not known.
    fn there(&mut self, page: u64, pages: u64) -> u64 {
        let residency = self.residency.as_mut();
        residency.map_or(pages, |residency| residency.of(page, pages))
    }

    fn counted(self, cost: PageCost) -> Counted {
        let mut sites: Vec<_> = self.sites.into_iter().collect();
        sites.sort_unstable();
        let known = self.residency.filter(Residency::is_known);
        Counted {
            resident: known.map(|residency| PageCost {
                sites: sites.iter().map(|&(site, sum)| (site, sum.1)).collect(),
                is_resident: true,
                unasked: residency.unasked,
                ..cost.clone()
            }),
            touched: PageCost {
                sites: sites
                    .into_iter()
                    .filter(|(_, sum)| sum.0 > 0)
                    .map(|(site, sum)| (site, sum.0))
                    .collect(),
                ..cost
            },
        }
    }
}

/// Which pages of a process are resident, as the kernel tells: asked from outside, for as
/// much of a processor's time as there is.
#[derive(Debug)]
pub(crate) struct Residency {
    process: Identity,
    pagemap: File,
    /// What was read last: which pages, and what the kernel said of them.
    first: u64,
    window: Vec<u8>,
    until_ns: u64,
    has_failed: bool,
    /// Pages that were not asked for, for want of time.
    unasked: u64,
}

impl Residency {
    /// What is read at once: pages of one page table.
    const WINDOW: u64 = 512;
    /// Processor time that it may take.
    const MOST_NS: u64 = 1_000_000_000;

    /// Of a process; `None` where the kernel does not tell us.
    pub(crate) fn of_process(process: Identity) -> Option<Self> {
        let pagemap = File::open(format!("/proc/{}/pagemap", process.pid)).ok()?;
        Some(Residency {
            process,
            pagemap,
            first: 0,
            window: Vec::new(),
            until_ns: own_time_ns().saturating_add(Self::MOST_NS),
            has_failed: false,
            unasked: 0,
        })
    }

    /// How many of these pages are there.
    fn of(&mut self, page: u64, pages: u64) -> u64 {
        const PRESENT: u8 = 1 << 7;
        let (mut at, end) = (page, page.saturating_add(pages));
        let mut there = 0;
        while at < end {
            if self.has_failed || !self.read(at) {
                self.unasked += end - at;
                return there + (end - at);
            }
            let to = end.min(self.first + Self::WINDOW);
            let range = (at - self.first) as usize * 8..(to - self.first) as usize * 8;
            let entries = self.window[range].chunks_exact(8);
            // The highest bit of each little-endian word.
            there += entries.filter(|entry| entry[7] & PRESENT != 0).count() as u64;
            at = to;
        }
        there
    }

    /// Reads the window that a page is in. Whether that was possible, and in time.
    fn read(&mut self, page: u64) -> bool {
        let first = page / Self::WINDOW * Self::WINDOW;
        if self.first == first && !self.window.is_empty() {
            return true;
        }
        if own_time_ns() > self.until_ns {
            return false;
        }
        self.first = first;
        self.window.resize(Self::WINDOW as usize * 8, 0);
        let read = self.pagemap.read_exact_at(&mut self.window, first * 8);
        self.has_failed |= read.is_err();
        read.is_ok()
    }

    /// What was told is of that process, and it was there to the end.
    fn is_known(&self) -> bool {
        !self.has_failed && self.process.is_still_there()
    }
}

/// The processor time that this thread has had.
pub(crate) fn own_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Spreads numbers (splitmix64's last steps).
fn hash(value: u64) -> u64 {
    let mut value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn counted(most: u64, blocks: &[(u64, u64, u32)]) -> PageCost {
        counted_by(most, None, blocks, &[]).touched
    }

    fn counted_by(
        most: u64,
        residency: Option<Residency>,
        blocks: &[(u64, u64, u32)],
        mapped: &[(u64, u64, u32)],
    ) -> Counted {
        let mapped = mapped.iter().copied();
        count_within(most, blocks.len() as u64, residency, mapped, |tell| {
            for &(address, bytes, site) in blocks {
                tell(address, bytes, site);
            }
        })
    }

    fn own() -> Residency {
        Residency::of_process(Identity::read(std::process::id())).unwrap()
    }

    #[test]
    fn pages_that_were_never_touched_are_kept_by_nobody() {
        const LARGE: usize = 64 << 20;
        // Comes from a mapping, in which nothing is there until it is written to.
        let mut large = vec![0_u8; LARGE];
        let address = large.as_ptr() as u64;
        // All but what the kernel may round up to huge pages.
        let touched = LARGE / 4;
        for at in (0..touched).step_by(PAGE as usize) {
            std::hint::black_box(&mut large)[at] = 1;
        }
        let small: Vec<Box<[u8; 40]>> = (0..1000).map(|_| Box::new([1; 40])).collect();
        let mut blocks = vec![(address, LARGE as u64, 1)];
        blocks.extend(small.iter().map(|one| (one.as_ptr() as u64, 40, 2)));
        let inner = [(address, LARGE as u64, 3)];
        let counted = counted_by(1 << 20, Some(own()), &blocks, &inner);
        let resident = counted.resident.unwrap();
        assert!(resident.is_resident && !counted.touched.is_resident);
        assert_eq!(resident.unasked, 0);
        assert_eq!(resident.pages, counted.touched.pages);
        let of = |cost: &PageCost, site: u32| cost.sites[site as usize - 1].1;
        assert_eq!(of(&counted.touched, 1) / PAGE, LARGE as u64 / PAGE + 1);
        let kept = of(&resident, 1);
        let least = touched as u64;
        assert!((least..=least + (4 << 20)).contains(&kept), "{kept}");
        // A mapping would have as much, and nothing where that cannot be asked.
        assert_eq!(of(&resident, 3), kept);
        assert_eq!(counted.touched.sites.len(), 2);
        // These are all there.
        assert_eq!(of(&resident, 2), of(&counted.touched, 2));
    }

    #[test]
    fn without_time_pages_count_as_there() {
        let large = vec![0_u8; 1 << 20];
        let blocks = [(large.as_ptr() as u64, 1 << 20, 0)];
        let late = Residency {
            until_ns: 0,
            ..own()
        };
        let counted = counted_by(100, Some(late), &blocks, &[(0, 1 << 40, 7)]);
        let resident = counted.resident.unwrap();
        assert_eq!(resident.sites[0], counted.touched.sites[0]);
        assert_eq!(resident.sites[1..], [(7, 0)]);
        assert_eq!(resident.unasked, resident.pages);
    }

    #[test]
    fn of_a_process_that_is_gone_or_another_nothing_is_known() {
        let other = Identity {
            start_ticks: Identity::read(std::process::id()).start_ticks + 1,
            ..Identity::read(std::process::id())
        };
        let blocks = [(0x1000, 1 << 20, 0)];
        let counted = counted_by(100, Residency::of_process(other), &blocks, &[]);
        assert!(counted.resident.is_none());
        assert_eq!(counted.touched.sites, [(0, 1 << 20)]);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let residency = Residency::of_process(Identity::read(child.id()));
        child.wait().unwrap();
        assert!(counted_by(100, residency, &blocks, &[]).resident.is_none());
    }

    #[test]
    fn a_small_block_keeps_the_page_that_it_is_alone_in() {
        let cost = counted(100, &[(0x1000, 40, 1), (0x5ff0, 32, 2)]);
        assert_eq!(cost.sites, [(1, 4096), (2, 8192)]);
        assert_eq!((cost.pages, cost.one_of, cost.block_bytes), (3, 1, 72));
    }

    #[test]
    fn a_shared_page_is_divided_by_bytes() {
        let cost = counted(100, &[(0x1000, 300, 1), (0x1800, 100, 2)]);
        assert_eq!(cost.sites, [(1, 3072), (2, 1024)]);
        // The middle of a large one is its own.
        let cost = counted(100, &[(0x1800, 0x2800, 1), (0x1000, 0x800, 2)]);
        assert_eq!(cost.sites, [(1, 2048 + 2 * 4096), (2, 2048)]);
        assert_eq!(cost.pages, 3);
    }

    #[test]
    fn a_sample_of_pages_is_about_right() {
        let blocks: Vec<_> = (0..40_000_u64)
            .map(|at| (at * 1024, 1024, (at % 2) as u32))
            .collect();
        let cost = counted(8_000, &blocks);
        assert_eq!(cost.one_of, 10);
        assert!(cost.pages > 700 && cost.pages < 1300, "{}", cost.pages);
        let all: u64 = cost.sites.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(all, cost.pages * PAGE * 10);
        let (one, other) = (cost.sites[0].1, cost.sites[1].1);
        assert_eq!(one, other);
    }

    proptest! {
        /// Pages sum to those that blocks touch, and shares are those of a page by page
        /// count, but for rounding.
        #[test]
        fn shares_are_those_of_a_naive_count(
            gaps in prop::collection::vec((0u64..6000, 1u64..9000, 0u32..4), 1..60),
        ) {
            let mut at = 0x10_0000;
            let blocks: Vec<_> = gaps
                .into_iter()
                .map(|(gap, bytes, site)| {
                    at += gap;
                    let block = (at, bytes, site);
                    at += bytes;
                    block
                })
                .collect();
            let mut naive: BTreeMap<u64, BTreeMap<u32, u64>> = BTreeMap::new();
            for &(address, bytes, site) in &blocks {
                for byte in address..address + bytes {
                    *naive.entry(byte / PAGE).or_default().entry(site).or_default() += 1;
                }
            }
            let cost = counted(1 << 20, &blocks);
            prop_assert_eq!(cost.pages, naive.len() as u64);
            let all: u64 = cost.sites.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(all, cost.pages * PAGE);
            for &(site, bytes) in &cost.sites {
                let exact: f64 = naive
                    .values()
                    .map(|page| {
                        let all: u64 = page.values().sum();
                        let own = page.get(&site).copied().unwrap_or(0);
                        own as f64 / all as f64 * PAGE as f64
                    })
                    .sum();
                prop_assert!((bytes as f64 - exact).abs() <= blocks.len() as f64 * 2.0);
            }
        }
    }
}
