//! Who holds what: its question, answer and place.

use std::collections::BTreeSet;
use std::sync::Arc;

use leakline_analysis::Filter;

use super::data::{About, Holders, Place, Step, WhyWant};
use super::{List, Screen, State};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhyView {
    /// What is asked.
    pub want: WhyWant,
    /// The screen that it was asked from, to go back to.
    pub from: Option<Screen>,
    /// What the answer that is shown answers.
    pub asked: Option<WhyWant>,
    /// The last answer.
    pub holders: Arc<Holders>,
    /// The places that are open, by their index.
    pub open: BTreeSet<usize>,
    /// Only places with this.
    pub filter: String,
    /// Where it is.
    pub list: List,
}

/// A row: a place, or a step of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhyRow {
    /// Index of the place.
    pub place: usize,
    /// Index of the step; `None`: the place itself.
    pub step: Option<usize>,
}

impl WhyView {
    /// Takes an answer.
    pub(super) fn take(&mut self, want: &WhyWant, holders: Arc<Holders>, height: usize) {
        if self.asked.as_ref() != Some(want) {
            self.asked = Some(want.clone());
            self.list = List::default();
            // Of what was asked for, all is shown; else what holds most.
            let open = match want.about {
                About::Gathered => 1,
                _ => holders.places.len().max(1),
            };
            self.open = (0..open).collect();
        }
        self.holders = holders;
        let len = self.rows().len();
        self.list.select(self.list.selected, len, height);
    }

    /// The rows that are shown.
    pub fn rows(&self) -> Vec<WhyRow> {
        let filter = (!self.filter.is_empty()).then(|| Filter::new(&self.filter));
        let mut rows = Vec::new();
        for (at, place) in self.holders.places.iter().enumerate() {
            if filter.as_ref().is_some_and(|filter| !has(place, filter)) {
                continue;
            }
            rows.push(WhyRow {
                place: at,
                step: None,
            });
            if self.open.contains(&at) {
                rows.extend((0..place.steps.len()).map(|step| WhyRow {
                    place: at,
                    step: Some(step),
                }));
            }
        }
        rows
    }

    /// The selected row.
    pub fn row(&self) -> Option<WhyRow> {
        self.rows().get(self.list.selected).copied()
    }

    /// What it is of.
    pub fn selection(&self) -> Option<(&Place, &Step)> {
        let row = self.row()?;
        let place = self.holders.places.get(row.place)?;
        let step = row.step.and_then(|step| place.steps.get(step));
        Some((place, step.unwrap_or(&place.head)))
    }
}

/// Whether a place has what the user typed.
fn has(place: &Place, filter: &Filter) -> bool {
    filter.matches(&place.words)
        || place.steps.iter().any(|step| {
            let made_in = step.made_in.as_ref();
            filter.matches(&step.edge)
                || filter.matches(&step.kind)
                || made_in.is_some_and(|frame| {
                    filter.matches(&frame.function) || filter.matches(&frame.place)
                })
        })
}

impl State {
    /// The number of the heap graph that is asked for, and at which place it is among
    /// all; `None` where there is none.
    pub fn graph(&self) -> Option<(u32, usize)> {
        let graphs = &self.facts.graphs;
        let number = match self.why.want.graph {
            Some(number) => number,
            None if self.why.holders.graph != 0
                && self.why.asked.as_ref() == Some(&self.why.want) =>
            {
                self.why.holders.graph
            }
            None => graphs.last()?.number,
        };
        let at = graphs.iter().position(|graph| graph.number == number)?;
        Some((number, at))
    }
}
