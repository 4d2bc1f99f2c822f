//! Answers as plain text: the answer first, then how far to trust it, then
//! the rows, then how to go on. One module a report.

mod closing;
mod columns;
mod diff;
mod heading;
mod leaks;
mod lines;
mod naming;
mod processes;
mod stats;
mod summary;
mod top;
mod tree;

pub use diff::{diff, survived};
pub use leaks::{check, leaks, leaks_markdown};
pub use lines::lines;
pub use naming::{frame_words, noun};
pub use processes::signal_name;
pub use stats::stats;
pub use summary::summary;
pub use top::top;
pub use tree::tree;

/// Narrowest width at which tables get the columns for roomy terminals.
const WIDE: usize = 110;

/// Below this width there is room for one figure a row.
const NARROW: usize = 60;
