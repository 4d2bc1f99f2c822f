//! `summary`: the answer first, then what it rests on.

use crate::figures::{Measure, Unit};
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
            span: Span::whole(model),
            by: GroupBy::Site,
            measure: Measure::Peak,
            unit: Unit::Bytes,
            limit: sites,
            filter: None,
        };
        Summary {
            stats: Stats::new(model),
            top: Top::new(model, stacks, query),
        }
    }
}
