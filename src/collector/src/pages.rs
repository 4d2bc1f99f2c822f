//! Which pages live blocks lie in, and whose they are.
//!
//! A page with blocks of several sites is shared among them by the bytes that each has in
//! it: so pages of all sites sum to the pages that there are, and a block of 40 bytes that
//! is alone in a page keeps all of it. Pages are of address space; whether one is resident
//! is not asked, and what is written to was.
//!
//! A page inside of a block is that block's alone, and need not be remembered. Of the pages
//! at its ends there are two at most; where they are too many, one of so many is counted,
//! chosen by its address: an estimate without bias.

use leakline_recording::record::PageCost;
use rustc_hash::FxHashMap;

pub(crate) const PAGE: u64 = 4096;
/// Most parts of blocks that are remembered at once: 16 bytes each.
const MOST_PARTS: u64 = 4 << 20;

/// The part of a block that lies in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    page: u64,
    site: u32,
    bytes: u32,
}

/// Counts pages. `each` hands on address, bytes and site of every block, of which there
/// are at most `blocks`.
pub(crate) fn count(blocks: u64, each: impl FnOnce(&mut dyn FnMut(u64, u64, u32))) -> PageCost {
    count_within(MOST_PARTS, blocks, each)
}

fn count_within(
    most_parts: u64,
    blocks: u64,
    each: impl FnOnce(&mut dyn FnMut(u64, u64, u32)),
) -> PageCost {
    let one_of = blocks
        .saturating_mul(2)
        .div_ceil(most_parts)
        .clamp(1, u64::from(u32::MAX));
    let mut parts: Vec<Part> = Vec::new();
    let mut sites: FxHashMap<u32, u64> = FxHashMap::default();
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
            let own = (to - from) * PAGE;
            let sum = sites.entry(site).or_default();
            *sum = sum.saturating_add(own);
            cost.pages += to - from;
            cost.block_bytes = cost.block_bytes.saturating_add(own);
        }
    });
    parts.sort_unstable();
    for page in parts.chunk_by(|one, other| one.page == other.page) {
        cost.pages += 1;
        let all: u64 = page.iter().map(|part| u64::from(part.bytes)).sum();
        cost.block_bytes = cost.block_bytes.saturating_add(all);
        let mut rest = PAGE;
        let mut so_far = 0;
        for part in page {
            // What is left of the page after this part, so that parts sum to a page.
            so_far += u64::from(part.bytes);
            let left = PAGE - PAGE * so_far / all;
            let sum = sites.entry(part.site).or_default();
            *sum = sum.saturating_add((rest - left).saturating_mul(one_of));
            rest = left;
        }
    }
    cost.sites = sites.into_iter().collect();
    cost.sites.sort_unstable();
    cost
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
        count_within(most, blocks.len() as u64, |tell| {
            for &(address, bytes, site) in blocks {
                tell(address, bytes, site);
            }
        })
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
