//! Answers about who holds what.

use std::sync::Arc;

use leakline_analysis::heap::{self, Asked, Heap, RootKind, sites_named};
use leakline_analysis::report::{printable, step_words};
use leakline_analysis::{GroupBy, Role};

use super::answers::Answers;
use super::heaps::{Heaps, Kept};
use crate::state::data::{About, Holders, Place, Step, WhyWant};

/// Places that an answer holds.
const MOST_PLACES: usize = 50;

impl Answers<'_, '_> {
    /// Who holds what was asked for, in the graph that is kept.
    pub(super) fn why(&mut self, want: &WhyWant, heaps: &Heaps) -> Arc<Holders> {
        let Some(kept) = heaps.kept(self.model, want.graph) else {
            return Arc::new(Holders {
                flaw: (!self.model.heap_graphs().is_empty())
                    .then(|| "the heap graph is empty: nothing of it was told".to_owned()),
                ..Holders::default()
            });
        };
        if want.about == About::Gathered {
            let gathered = || Arc::new(self.held(&want.about, kept));
            return Arc::clone(kept.gathered.get_or_init(gathered));
        }
        Arc::new(self.held(&want.about, kept))
    }

    fn held(&mut self, about: &About, kept: &Kept) -> Holders {
        let heap = &kept.heap;
        let asked = self.asked(about, heap);
        let mut why = heap.why(&asked, MOST_PLACES);
        if let Some((_, earlier)) = &kept.earlier {
            earlier.compare(&asked, &mut why);
        }
        let is_all = asked == Asked::Gathered;
        let found = why.groups.first().filter(|_| !is_all);
        let left_out = if is_all {
            why.total_groups - why.groups.len()
        } else {
            found.map_or(0, |group| group.total_paths - group.paths.len())
        };
        Holders {
            graph: kept.number,
            reading: false,
            earlier: kept.earlier.as_ref().map(|(number, _)| *number),
            objects: why.objects,
            bytes: why.bytes,
            garbage: why.garbage,
            flaw: kept.flaw(),
            found: (!is_all).then(|| found.map_or((0, 0), |group| (group.count, group.retained))),
            places: (why.groups.iter())
                .flat_map(|group| group.paths.iter().map(move |path| (group, path)))
                .map(|(group, path)| self.place(path, is_all.then_some(group)))
                .collect(),
            left_out,
        }
    }

    /// What a question is, as the heap knows it.
    fn asked(&mut self, about: &About, heap: &Heap) -> Asked {
        match about {
            About::Gathered => Asked::Gathered,
            About::Cause(_, sites) => Asked::Sites(sites.to_vec()),
            About::Group(by, key, _) => Asked::Sites(self.sites_of(*by, *key)),
            About::Through(frame) => {
                let mut sites = Vec::new();
                for (id, site) in (0..).zip(self.model.sites()) {
                    let stack = self.stacks.stack(self.model, site.node);
                    if stack.into_iter().any(|id| self.name(id) == *frame) {
                        sites.push(id);
                    }
                }
                Asked::Sites(sites)
            }
            About::Named(text) => {
                let address = text.strip_prefix("0x");
                let address = address.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                match address {
                    Some(address) => Asked::Address(address),
                    None if heap.has_type(text) => Asked::Type(text.to_string()),
                    None => {
                        let sites = sites_named(self.model, &mut self.stacks, text);
                        match heap.object_named(text).filter(|_| sites.is_empty()) {
                            Some(address) => Asked::Address(address),
                            None => Asked::Sites(sites),
                        }
                    }
                }
            }
        }
    }

    /// The sites of a group, rising.
    fn sites_of(&mut self, by: GroupBy, key: u64) -> Vec<u32> {
        let (model, kinds) = (self.model, std::rc::Rc::clone(&self.kinds));
        let all = self.grouped(by, true).groups.groups().to_vec();
        let at = all.iter().position(|group| self.info(by, group).key == key);
        let Some(at) = at else {
            return Vec::new();
        };
        self.grouped(by, true);
        let key = super::answers::grouped_key(by, true);
        let Some(grouped) = self.groups.remove(&key) else {
            return Vec::new();
        };
        let sites = grouped.groups.sites(model, &kinds, &mut self.stacks, at);
        self.groups.insert(key, grouped);
        sites
    }

    /// A path; of what memory gathers in, with the group that it is the path of.
    fn place(&mut self, path: &heap::Path, gathers: Option<&heap::Group>) -> Place {
        let is_module = path.root == Some(RootKind::Module);
        let depth = u16::try_from(path.steps.len()).unwrap_or(u16::MAX);
        let mut steps = Vec::new();
        for (at, step) in (0_u16..).zip(&path.steps).skip(1) {
            let mut step = self.step(step, at);
            if at == 1 && is_module {
                step.edge.drain(..usize::from(step.edge.starts_with('.')));
            }
            steps.push(step);
        }
        let objects = match steps.last() {
            Some(step) => step.clone(),
            None => (path.steps.first()).map_or_else(Step::default, |step| self.step(step, 0)),
        };
        // The path may go on to what that holds.
        let head = gathers.and_then(|group| {
            let is_it = |step: &&Step| (step.count, step.retained) == (group.count, group.retained);
            steps.iter().find(is_it)
        });
        let head = head.unwrap_or(&objects).clone();
        let below = path.below.len();
        for (at, step) in path.below.iter().enumerate() {
            let mut step = self.step(step, depth);
            step.forks = at + 1 < below;
            steps.push(step);
        }
        let root = path.steps.first().map_or("", |step| step.edge.as_str());
        let words = if path.words.is_empty() {
            root
        } else {
            &path.words
        };
        Place {
            words: printable(words).into_owned(),
            head,
            objects,
            steps,
            others: (path.others.iter())
                .map(|(words, count)| (printable(words).into_owned(), *count))
                .collect(),
        }
    }

    fn step(&mut self, step: &heap::Step, depth: u16) -> Step {
        let names: Vec<&str> = step.types.iter().map(String::as_str).collect();
        let kind = match (&step.keys, &names[..]) {
            (Some(keys), [one]) => format!("{one}, keys [{keys}]"),
            _ if names.len() > 3 => format!("{}, ...", names[..3].join(", ")),
            _ => names.join(", "),
        };
        let edge = step_words(step);
        let site = step
            .site
            .and_then(|site| self.model.sites().get(site as usize));
        let made_in = site.and_then(|site| {
            let head = self.stacks.head(self.model, site.node);
            // The interpreter's own functions make all objects.
            let frame = head.made_in.filter(|&id| {
                let role = self.stacks.frame(id).role;
                !matches!(role, Role::Interpreter | Role::Allocator | Role::Marker)
            });
            frame.map(|id| self.name(id))
        });
        Step {
            depth,
            forks: false,
            edge: printable(&edge).into_owned(),
            kind: printable(&kind).into_owned(),
            count: step.count,
            shallow: step.shallow,
            retained: step.retained,
            native: step.native,
            only: step.only,
            since: step.since.map(|(_, bytes)| bytes),
            site: step.site,
            made_in,
        }
    }
}

/// An answer while the graph is read.
pub(super) fn reading(graph: u32, objects: u64) -> Arc<Holders> {
    Arc::new(Holders {
        graph,
        reading: true,
        objects,
        ..Holders::default()
    })
}

/// An answer where none can be read.
pub(super) fn failed(why: String) -> Arc<Holders> {
    Arc::new(Holders {
        flaw: Some(why),
        ..Holders::default()
    })
}
