//! Sites of all processes by what they have in common: their stack and domain.
//!
//! Processes that do the same have as many sites each, but the same kinds. Who
//! holds figures for more than one question holds them by kind, and by process.

use leakline_recording::record::Domain;
use rustc_hash::FxHashMap;

use crate::figures::Figures;
use crate::instant::Span;
use crate::model::Model;

/// See the module.
#[derive(Clone, Debug)]
pub struct Kinds {
    of_site: Vec<u32>,
    /// The first site of each.
    first: Vec<u32>,
    processes: usize,
}

/// Something for each kind, and for each process.
#[derive(Clone, Debug)]
pub struct Sums<T> {
    /// By kind.
    pub of_kind: Vec<T>,
    /// By process.
    pub of_process: Vec<T>,
}

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
        }
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
