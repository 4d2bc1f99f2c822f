//! What a recording means: sites, totals, trees and reports.
//!
//! [`Model`] arranges the records of a recording, [`Stacks`] turns their
//! stacks into merged frames with names, a [`Span`] picks the instants to look
//! at, and the queries ([`Top`], [`Tree`], [`Diff`], [`Lines`], [`Stats`], [`Summary`])
//! answer. Each answer prints itself as text ([`report::Style`] says how wide)
//! or as JSON.
//!
//! # Invariants
//!
//! * Pure: records in, values and text out; no clock, no terminal, no file.
//! * No record sequence makes it panic or loop: ids out of range get
//!   placeholder names, stacks are cut at [`stack::MAX_DEPTH`] frames, sums
//!   saturate.
//! * The same records give the same report, to the byte.

pub mod calls;
pub mod contents;
pub mod diff;
pub mod figures;
pub mod filter;
pub mod frame;
pub mod groups;
pub mod heap;
pub mod instant;
pub mod kinds;
pub mod leaks;
pub mod ledger;
pub mod lines;
pub mod lost;
pub mod matching;
pub mod model;
mod names;
pub mod nodes;
pub mod pages;
pub mod redact;
pub mod report;
pub mod rounds;
pub mod scatter;
pub mod stack;
pub mod stats;
pub mod summary;
pub mod survivors;
pub mod timeline;
pub mod top;
pub mod tree;
pub mod verdict;

pub use calls::{Calls, Weights};
pub use contents::Contents;
pub use diff::{Change, Diff, DiffQuery, DiffRow, Side, Survived};
pub use figures::{Figures, Measure, Unit};
pub use filter::Filter;
pub use frame::{Frame, FrameId, FrameKind, Role};
pub use groups::{Group, Groups};
pub use instant::{At, Instant, InstantError, Span};
pub use kinds::{Kinds, Measured, Sums};
pub use leaks::{Leaks, LeaksQuery, LimitOf, Suppression};
pub use ledger::{Judgement, Ledger, Line, LineKind};
pub use lines::{Lines, LinesError, LinesQuery};
pub use lost::Lost;
pub use matching::{FileMove, Matched, Rename};
pub use model::{Model, Origin};
pub use names::{Name, escaped};
pub use pages::{Keeps, Pages};
pub use redact::Redaction;
pub use report::export::{Exported, Selection};
pub use report::svg::{Drawn, FlameQuery};
pub use rounds::{Evidence, Grown, Rounds};
pub use stack::{Head, Stacks};
pub use stats::Stats;
pub use summary::Summary;
pub use survivors::{Cohort, Edge, Held, History, Survivor, Survivors};
pub use timeline::Timeline;
pub use top::{GroupBy, Top, TopQuery};
pub use tree::{Tree, TreeQuery};
pub use verdict::{Judged, Rate, Verdict};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
