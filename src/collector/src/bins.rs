//! When time bins end.
//!
//! Bins begin one millisecond wide. After [`BINS_AT_A_WIDTH`] of a width were
//! written the next are twice as wide, up to a second: a short run is seen
//! closely, a long one at bounded cost.

use leakline_recording::cohorts::{INSTANTS, instants_every};

/// Width of the first bins.
const FIRST_WIDTH_NS: u64 = 1_000_000;
/// Widest bins.
const LAST_WIDTH_NS: u64 = 1_000_000_000;
/// Written bins after which the width doubles.
const BINS_AT_A_WIDTH: u32 = 512;
/// All that changed is told in the bin that holds the beginning of one of
/// these: what is merged later ends at such a bin.
const COMPLETE_EVERY_NS: u64 = 1_000_000_000;

/// How often cohorts are told at most, and all that changed with them, beside
/// what is told each second: a 64th of the session apart or more.
const COHORTS_EVERY_NS: u64 = 64_000_000;

/// The bin that is being filled.
#[derive(Debug)]
pub(crate) struct Bins {
    width_ns: u64,
    written: u32,
    end_ns: u64,
    complete_ns: u64,
    cohorts_ns: u64,
    all_cohorts_ns: u64,
}

/// What the end of a bin is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// Sites that moved much.
    Moved,
    /// Everything.
    Complete,
    /// Everything, and the file is to have it.
    Flush,
}

impl Default for Bins {
    fn default() -> Self {
        Bins {
            width_ns: FIRST_WIDTH_NS,
            written: 0,
            end_ns: FIRST_WIDTH_NS,
            complete_ns: COMPLETE_EVERY_NS,
            cohorts_ns: COHORTS_EVERY_NS,
            all_cohorts_ns: COHORTS_EVERY_NS,
        }
    }
}

impl Bins {
    /// Where the current bin ends.
    pub(crate) fn end_ns(&self) -> u64 {
        self.end_ns
    }

    /// What the current bin must tell.
    pub(crate) fn due(&self) -> Due {
        if self.end_ns >= self.complete_ns {
            Due::Flush
        } else if self.end_ns >= self.cohorts_ns {
            Due::Complete
        } else {
            Due::Moved
        }
    }

    /// Whether the current bin must tell all of the cohorts, however much that
    /// is.
    pub(crate) fn are_all_cohorts_due(&self) -> bool {
        self.end_ns >= self.all_cohorts_ns
    }

    /// A complete bin was made, or nothing was there to tell.
    pub(crate) fn completed(&mut self, now_ns: u64) {
        self.complete_ns = (now_ns / COMPLETE_EVERY_NS + 1) * COMPLETE_EVERY_NS;
        let width_ns = instants_every(now_ns, INSTANTS).max(COHORTS_EVERY_NS);
        let next_ns = (now_ns / width_ns + 1) * width_ns;
        (self.cohorts_ns, self.all_cohorts_ns) = (next_ns, next_ns);
    }

    /// A bin was written.
    pub(crate) fn written(&mut self) {
        self.written += 1;
        if self.written >= BINS_AT_A_WIDTH && self.width_ns < LAST_WIDTH_NS {
            self.written = 0;
            self.width_ns = (self.width_ns * 2).min(LAST_WIDTH_NS);
        }
    }

    /// Goes on to the bin in which `now_ns` lies; at least to the next.
    pub(crate) fn go_on(&mut self, now_ns: u64) {
        let whole = now_ns.saturating_sub(self.end_ns) / self.width_ns;
        self.end_ns += self.width_ns * (whole + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_widen_to_a_second_and_no_further() {
        let mut bins = Bins::default();
        let mut count = 0u32;
        while bins.end_ns() < 3_600_000_000_000 {
            let end = bins.end_ns();
            bins.written();
            bins.go_on(end);
            assert!(bins.end_ns() - end <= LAST_WIDTH_NS);
            count += 1;
        }
        assert!((8_000..8_200).contains(&count), "{count} bins in an hour");
    }

    #[test]
    fn empty_time_is_skipped_at_once() {
        let mut bins = Bins::default();
        bins.go_on(86_400_000_000_500);
        assert_eq!(bins.end_ns(), 86_400_001_000_000);
    }
}
