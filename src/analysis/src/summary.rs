//! `summary`: the answer first, then what it rests on.

use crate::figures::{Figures, Measure, Unit};
use crate::instant::Span;
use crate::model::Model;
use crate::stack::Stacks;
use crate::stats::Stats;
use crate::top::{GroupBy, Top, TopQuery};

/// An answer of `summary`.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The counters.
    pub stats: Stats,
    /// The largest sites at the high-water mark.
    pub top: Top,
}

impl Summary {
    /// Sums up; with `sites` rows, or all.
    pub fn new<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, sites: Option<usize>) -> Self {
        let query = TopQuery {
            span: Span::usual(model),
            by: GroupBy::Site,
            measure: Measure::Peak,
            unit: Unit::Bytes,
            limit: sites,
            most_frames: None,
            filter: None,
        };
        Summary {
            stats: Stats::new(model),
            top: Top::new(model, stacks, query),
        }
    }
    /// What was live at the instant shown.
    pub(crate) fn live(&self) -> Figures {
        if self.top.query.span.is_as_left() {
            return self.top.sum;
        }
        // The recorder's own count, without what went with processes that had
        // ended.
        let totals = &self.stats.totals;
        Figures {
            live_bytes: i64::try_from(totals.live_bytes).unwrap_or(i64::MAX),
            live_blocks: i64::try_from(totals.live_blocks).unwrap_or(i64::MAX),
            scatter: self.top.sum.scatter,
            ..Figures::default()
        }
    }
}
