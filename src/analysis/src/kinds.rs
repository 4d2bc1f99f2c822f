//! Sites of all processes by what they have in common: their stack and domain.
//!
//! Processes that do the same have as many sites each, but the same kinds. Who
//! holds figures for more than one question holds them by kind, and by process.

use std::sync::Arc;

use leakline_recording::record::{Domain, Site};
use rustc_hash::FxHashMap;

use crate::figures::Figures;
use crate::instant::Span;
use crate::model::{Look, Model};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    of_site: Vec<u32>,
    /// The first site of each.
    first: Vec<u32>,
    processes: usize,
    /// Of more kinds nothing large is held for each.
    most_held: usize,
}

/// Something for each kind, and for each process.
#[derive(Clone, Debug)]
pub struct Sums<T> {
    /// By kind.
    pub of_kind: Vec<T>,
    /// By process.
    pub of_process: Vec<T>,
}

/// Figures over a span, to look at as often as needed.
#[derive(Clone, Debug)]
pub enum Measured {
    /// Held by kind and process.
    Held(Arc<Sums<Figures>>),
    /// Of so many kinds figures take too much memory: they are made of counters, which
    /// take a third.
    Looked(Arc<Look>),
    /// Of so many sites counters do, too.
    Of(Span),
}

/// So many kinds' figures are held.
const MOST_HELD: usize = 100_000;
/// So many sites' counters are.
const MOST_LOOKED: usize = 1_500_000;

impl Kinds {
    /// Of all sites of a model.
    pub fn new(model: &Model<'_>) -> Self {
        let mut first = Vec::new();
        let mut index: FxHashMap<(u32, Domain), u32> = FxHashMap::default();
        let of_site = (0..)
            .zip(model.sites())
            .map(|(id, site)| {
                *index.entry((site.node, site.domain)).or_insert_with(|| {
                    first.push(id);
                    u32::try_from(first.len() - 1).unwrap_or(u32::MAX)
                })
            })
            .collect();
        Kinds {
            of_site,
            first,
            processes: model.processes().len(),
            most_held: MOST_HELD,
        }
    }

    /// As if that were too many already.
    #[cfg(test)]
    pub(crate) fn too_many(model: &Model<'_>) -> Self {
        Kinds {
            most_held: 0,
            ..Kinds::new(model)
        }
    }

    /// Whether there are few enough to hold figures, and lists of groups, for each.
    pub fn are_few(&self) -> bool {
        self.first.len() <= self.most_held
    }

    /// The kind of a site.
    pub fn of_site(&self, site: u32) -> Option<usize> {
        let kind = self.of_site.get(site as usize);
        kind.map(|&kind| kind as usize)
    }

    /// The first site of each kind.
    pub fn sites(&self) -> &[u32] {
        &self.first
    }

    /// Nothing yet of each kind and process.
    pub fn none<T: Clone + Default>(&self) -> Sums<T> {
        Sums {
            of_kind: vec![T::default(); self.first.len()],
            of_process: vec![T::default(); self.processes],
        }
    }

    /// How many kinds there are.
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Figures over `span`, in the memory that may be taken for them.
    pub fn measure(&self, model: &Model<'_>, span: &Span) -> Measured {
        if !self.are_few() && self.of_site.len() > MOST_LOOKED {
            return Measured::Of(*span);
        }
        if !self.are_few() {
            return Measured::Looked(Arc::new(model.look(span)));
        }
        Measured::Held(Arc::new(self.sums(model, span)))
    }

    /// Shows `each` figures by kind: those of a kind all at once, or a site's after the
    /// other's.
    pub fn for_each(
        &self,
        model: &Model<'_>,
        measured: &Measured,
        mut each: impl FnMut(usize, &Figures),
    ) {
        match measured {
            Measured::Held(sums) => {
                (sums.of_kind.iter().enumerate()).for_each(|(kind, figures)| each(kind, figures));
            }
            Measured::Looked(look) => model.for_each_looked(look, |id, _, figures| {
                if let Some(kind) = self.of_site(id) {
                    each(kind, figures);
                }
            }),
            Measured::Of(span) => model.for_each_figures(span, |id, _, figures| {
                if let Some(kind) = self.of_site(id) {
                    each(kind, figures);
                }
            }),
        }
    }

    /// Figures of each process.
    pub fn of_processes(&self, model: &Model<'_>, measured: &Measured) -> Vec<Figures> {
        match measured {
            Measured::Held(sums) => sums.of_process.clone(),
            Measured::Looked(_) | Measured::Of(_) => {
                let mut all = vec![Figures::default(); self.processes];
                let mut add = |_, site: &Site, figures: &Figures| {
                    if let Some(process) = all.get_mut(site.process as usize) {
                        process.add(figures);
                    }
                };
                match measured {
                    Measured::Looked(look) => model.for_each_looked(look, &mut add),
                    Measured::Of(span) => model.for_each_figures(span, &mut add),
                    Measured::Held(_) => {}
                }
                all
            }
        }
    }

    /// Figures over `span`.
    pub fn sums(&self, model: &Model<'_>, span: &Span) -> Sums<Figures> {
        let mut sums = self.none::<Figures>();
        model.for_each_figures(span, |id, site, figures| {
            if let Some(kind) = self.of_site(id) {
                sums.of_kind[kind].add(figures);
            }
            if let Some(process) = sums.of_process.get_mut(site.process as usize) {
                process.add(figures);
            }
        });
        sums
    }
}
