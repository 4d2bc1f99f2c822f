//! Survivors: of the blocks that were born in a span of time, how many are
//! alive at which instant.
//!
//! The recorder counts, for each site, births and deaths by *cohort*: the
//! blocks of one span of birth. A [`History`] is what became of a site's, or
//! of several sites' together.
//!
//! # Invariants
//!
//! * Cohorts rise, do not overlap, and cover the recording from its start to
//!   the last instant; those in which nothing was born are there too.
//! * In exact mode all counts are exact: a block is in the cohort it was born
//!   in, whatever became of it. A block that was resized in place stays in its
//!   cohort, and its growth counts as bytes born there.
//! * `alive` never counts what was born after the instant: such cohorts hold 0.

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A span of birth: after `from_ns`, up to and with `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cohort {
    /// Where it begins, nanoseconds since the start.
    pub from_ns: u64,
    /// Where it ends.
    pub to_ns: u64,
}

/// What became of the blocks of a site, by when they were born.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The instants at which counts are known, nanoseconds since the start,
    /// rising: marks, the last one, and some 64 in between, evenly spread.
    pub instants: Vec<u64>,
    /// The cohorts. How wide they are depends on the site: a site that was
    /// busy for a moment has narrow ones then (1 ms at least), one that was
    /// busy all the time has 32 to 64 over the recording; a mark always ends
    /// one.
    pub cohorts: Vec<Cohort>,
    /// What was born in each cohort.
    pub born: Vec<Held>,
    /// For each instant, what was alive then of each cohort.
    pub alive: Vec<Vec<Held>>,
    /// Blocks born before this may have died unseen: events were lost then. 0
    /// where none were.
    pub verified_from_ns: u64,
}
