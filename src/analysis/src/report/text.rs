//! Answers as plain text: the answer first, then how far to trust it, then
//! the rows, then how to go on. One module a report.

mod closing;
mod columns;
mod diff;
mod heading;
mod leaks;
mod ledger;
mod ledgers;
mod lines;
mod lost;
mod naming;
mod processes;
mod stats;
mod summary;
mod top;
mod tree;
mod why;

pub use diff::{diff, survived};
pub use leaks::{check, leaks, leaks_markdown};
pub use ledger::{About, ledger};
pub use ledgers::{account_words, ledgers};
pub use lines::lines;
pub(crate) use lost::lost_evidence;
pub use lost::{lost_alone, lost_part, lost_sites};
pub use naming::{frame_words, noun};
pub use processes::signal_name;
pub use stats::stats;
pub use summary::summary;
pub use top::top;
pub use tree::tree;
pub use why::{Subject, why};

/// The lines that every report begins with, where lines are 150 columns wide.
pub(crate) fn heading_lines(
    model: &crate::Model<'_>,
    span: &crate::Span,
    measure: crate::Measure,
    sum: &crate::Figures,
) -> Vec<String> {
    let style = super::Style {
        width: 150,
        colour: false,
        boxes: false,
    };
    let mut text = Vec::new();
    let answer = heading::answer(model, span, measure, sum, style);
    // Memory takes all of it.
    let _ = heading::head(model, span, &answer, style, &mut text);
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}

/// Narrowest width at which tables get the columns for roomy terminals.
const WIDE: usize = 110;

/// Below this width there is room for one figure a row.
const NARROW: usize = 60;
