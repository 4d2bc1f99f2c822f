//! What pages the live blocks of sites keep.
//!
//! A block of 40 bytes can keep a page of 4 KiB: what memory a program would give back
//! without a site's blocks is more than their bytes. Pages are counted where all blocks are
//! known, at snapshots and at the end; here is the last count of each process until an
//! instant.

use std::collections::BTreeMap;

use leakline_recording::record::PageCost;
use rustc_hash::FxHashMap;

use crate::model::Model;

/// A count this much after an instant still is of it.
const LATE_NS: u64 = 100_000_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// Bytes, and whether all of them are of pages that were resident.
    sites: FxHashMap<u32, (u64, bool)>,
    /// Of how many pages one was counted, at most.
    one_of: u32,
}

/// The pages that blocks keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// Their bytes.
    pub bytes: u64,
    /// How far that may be off where not all pages were counted (two standard errors at
    /// most).
    pub error: Option<u64>,
    /// They were resident; else some are all that blocks lie in.
    pub are_resident: bool,
}

impl Pages {
    /// Of the last counts until an instant; `None` where there is none.
    pub fn until(model: &Model<'_>, ns: u64) -> Option<Pages> {
        let mut last: BTreeMap<u32, &PageCost> = BTreeMap::new();
        for &cost in model.page_costs() {
            if cost.at_ns <= ns.saturating_add(LATE_NS) {
                last.insert(cost.process, cost);
            }
        }
        if last.is_empty() {
            return None;
        }
        let mut pages = Pages::default();
        for cost in last.into_values() {
            pages.one_of = pages.one_of.max(cost.one_of);
            for &(site, bytes) in &cost.sites {
                // What a child inherited is in its count, too: its pages may be its own. But
                // not those of one that went on to be another program, or ended at once.
                let bearer = model.sites().get(site as usize).map(|site| site.process);
                if !cost.is_resident && bearer.is_some_and(|bearer| bearer != cost.process) {
                    continue;
                }
                let sum = pages.sites.entry(site).or_insert((0, true));
                sum.0 = sum.0.saturating_add(bytes);
                sum.1 &= cost.is_resident && cost.unasked == 0;
            }
        }
        Some(pages)
    }

    /// Bytes of the pages that a site's blocks keep, and whether these were resident; else
    /// some are all that blocks lie in.
    pub fn of(&self, site: u32) -> (u64, bool) {
        self.sites.get(&site).copied().unwrap_or((0, true))
    }

    /// Of several sites.
    pub fn of_all(&self, sites: &[u32]) -> Keeps {
        let (mut bytes, mut are_resident) = (0_u64, true);
        for &site in sites {
            let of_site = self.of(site);
            bytes = bytes.saturating_add(of_site.0);
            are_resident &= of_site.1;
        }
        Keeps {
            bytes,
            error: self.error(bytes),
            are_resident,
        }
    }

    /// How far an estimate may be off. A page's share is a page at most, and is counted
    /// with a probability of one in `one_of`.
    pub fn error(&self, bytes: u64) -> Option<u64> {
        const PAGE: f64 = 4096.0;
        let times = f64::from(self.one_of.max(1)) - 1.0;
        (times > 0.0).then(|| (2.0 * (bytes as f64 * PAGE * times).sqrt()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{origin, training};
    use leakline_recording::record::Record;

    #[test]
    fn the_last_count_of_each_process_counts() {
        const SECOND: u64 = 1_000_000_000;
        let mut records = training();
        // Of the second instant it is not known whether they were resident.
        let cost = |process, at_ns, one_of, sites: &[(u32, u64)]| {
            Record::PageCost(PageCost {
                process,
                at_ns,
                one_of,
                sites: sites.to_vec(),
                is_resident: at_ns == SECOND,
                ..PageCost::default()
            })
        };
        records.extend([
            cost(0, SECOND, 1, &[(0, 4096), (1, 8192)]),
            cost(0, 2 * SECOND, 1, &[(0, 12_288)]),
            cost(1, SECOND, 1, &[(0, 4096)]),
            // Of what another process has made.
            cost(2, 2 * SECOND, 1, &[(0, 4096)]),
            cost(0, 9 * SECOND, 4, &[(0, 1 << 20)]),
        ]);
        let model = Model::new(&records, origin());
        assert_eq!(Pages::until(&model, SECOND / 2), None);
        let pages = Pages::until(&model, 3 * SECOND).unwrap();
        assert_eq!(
            pages.of(0),
            (16_384, false),
            "a process's were not asked for"
        );
        assert_eq!((pages.of(1), pages.of(7)), ((0, true), (0, true)));
        let all = pages.of_all(&[0, 1]);
        assert_eq!(
            (all.bytes, all.error, all.are_resident),
            (16_384, None, false)
        );
        let pages = Pages::until(&model, SECOND).unwrap();
        assert!(pages.of_all(&[0, 1]).are_resident);
        let sampled = Pages::until(&model, 9 * SECOND).unwrap();
        let Keeps { bytes, error, .. } = sampled.of_all(&[0]);
        assert_eq!(bytes, (1 << 20) + 4096);
        // 257 pages of which one in four was counted: twice the root of 257 * 3 pages.
        assert!(error.unwrap() > 50 * 4096 && error.unwrap() < 60 * 4096);
    }
}
