//! Which lost references, hidden cycles and garbage of a heap graph are findings.
//!
//! That a reference was lost, or that a cycle is hidden, one graph proves. That it is
//! worth a word takes more: there are several, they are not an import's, and where an
//! earlier graph of the process is known there are more of them by now.

use rustc_hash::FxHashMap;

use super::{Cause, CauseSite, HeldBy, Import, Leaks, Share, import_of_nodes, sum};
use crate::frame::{FrameId, Role};
use crate::heap::{Garbage, Heap, HiddenCycles, Lost, References, is_class};
use crate::model::Model;
use crate::stack::{Head, Stacks};
use crate::survivors::Held;
use crate::top::Matching;
use crate::verdict::{AxisKind, Judged, Rate, Verdict};

/// References, or objects, that make a finding: fewer may be a moment's.
pub const FEWEST: u64 = 8;

/// References that were lost of objects that are made in one place.
#[derive(Clone, Debug)]
pub struct LostReferences {
    /// What there is of them, of all sites together.
    pub lost: Lost,
    /// The sites that made the objects, rising.
    pub sites: Vec<u32>,
    /// The frames that they are named after; none where only the interpreter is known.
    pub head: Head,
    /// How many objects these sites made, up to the graph; 0 where blocks were sampled: the
    /// objects are those of samples, this would be an estimate.
    pub born: u64,
    /// By how many references it grew since the earlier graph, where there is one.
    pub grown: Option<i64>,
}

impl LostReferences {
    /// How many a call: of the objects that are made there, what share is lost. `None`
    /// where it is not known how often that was.
    pub fn per_call(&self) -> Option<f64> {
        let is_whole = self.lost.unheld == self.lost.objects && self.born >= self.lost.objects;
        (is_whole && self.born > 0).then(|| self.lost.references as f64 / self.born as f64)
    }
}

/// Cycles that a class hides.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// What there is of them.
    pub cycles: HiddenCycles,
    /// The frames that the class's objects are made in.
    pub head: Head,
    /// By how many objects it grew since the earlier graph, where there is one.
    pub grown: Option<i64>,
}

/// What was found, and what is not worth a word.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The graph's number.
    pub graph: u32,
    /// Lost references, those of most first.
    pub lost: Vec<LostReferences>,
    /// Hidden cycles, those of most bytes first.
    pub hidden: Vec<Hidden>,
    /// What a collection would free.
    pub garbage: Garbage,
    /// Frozen garbage: objects and bytes.
    pub frozen: (u64, u64),
    /// Whether CPython's collector ran by itself, where that is known.
    pub collects: Option<bool>,
    /// Lost references that are no findings: too few, an import's, or no more than before.
    pub passed_over: u64,
}

impl Findings {
    /// Judges the references of a heap, by its graph's number; `before` are those of the
    /// process as it was before.
    pub fn new<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        (graph, references): (u32, References),
        before: Option<&References>,
    ) -> Self {
        let References {
            lost,
            hidden,
            garbage,
            frozen,
            collects,
        } = references;
        let mut findings = Findings {
            graph,
            garbage,
            frozen,
            collects,
            ..Findings::default()
        };
        let mut merged: FxHashMap<(String, Option<FrameId>), LostReferences> = FxHashMap::default();
        for one in lost {
            let (head, frame) = place(model, stacks, one.site);
            let found = merged
                .entry((one.type_name.clone(), frame))
                .or_insert_with(|| LostReferences {
                    lost: Lost {
                        type_name: one.type_name.clone(),
                        site: one.site,
                        ..Lost::default()
                    },
                    sites: Vec::new(),
                    head,
                    born: 0,
                    grown: None,
                });
            found.sites.extend(one.site);
            found.lost.add(&one);
        }
        let mut grown: FxHashMap<(String, Option<FrameId>), u64> = FxHashMap::default();
        for one in before.iter().flat_map(|before| &before.lost) {
            let frame = place(model, stacks, one.site).1;
            *grown.entry((one.type_name.clone(), frame)).or_default() += one.references;
        }
        let at_ns = model.heap_graphs().iter().find(|told| told.graph == graph);
        let at_ns = at_ns.map_or(u64::MAX, |told| told.at_ns);
        let imports = import_of_nodes(model);
        let born = if model.is_sampled() {
            Vec::new()
        } else {
            births(model, at_ns)
        };
        let mut merged: Vec<_> = merged.into_iter().collect();
        merged.sort_by_key(|(_, one)| one.lost.site);
        for (key, mut one) in merged {
            one.sites.sort_unstable();
            let sites = one.sites.iter();
            one.born = sites
                .map(|&site| born.get(site as usize).copied().unwrap_or(0))
                .sum();
            one.grown = before.is_some().then(|| {
                let before = grown.get(&key).copied().unwrap_or(0);
                one.lost.references.wrapping_sub(before) as i64
            });
            let all_are = |is_meant: &dyn Fn(Import) -> bool| {
                let import_of = |&site: &u32| {
                    let node = model.sites().get(site as usize).map_or(0, |site| site.node);
                    imports.get(node as usize).copied()
                };
                let mut imports = one.sites.iter().map(import_of);
                !one.sites.is_empty() && imports.all(|import| import.is_some_and(is_meant))
            };
            // To what an import made somebody may lose many references later.
            let is_import = one.lost.references < FEWEST * one.lost.objects
                && all_are(&|import| import == Import::Itself);
            // What it calls is called once for each line of a module (NumPy keeps its
            // docstrings so), or again and again, and then by the same stack.
            let is_once = one.lost.references < 2 * one.sites.len() as u64
                && all_are(&|import| import != Import::Outside);
            // Of objects that others hold, a reference or two each, made before they were
            // recorded or not in the sample: an import may have lost them (NumPy's texts
            // of functions). Only a later graph tells whether there come more.
            let is_open = one.sites.is_empty()
                && one.grown.is_none()
                && one.lost.references < FEWEST * one.lost.objects;
            let is_start_up = is_import || is_once || is_open;
            // A class that somebody has is there for good: its count is nothing that grows.
            let is_class = one.lost.unheld == 0 && is_class(&one.lost.type_name);
            // What old words in freed memory speak for comes and goes.
            let stands = one.grown.is_some_and(|grown| grown < FEWEST.cast_signed());
            if one.lost.references < FEWEST || is_start_up || is_class || stands {
                findings.passed_over += one.lost.references;
            } else {
                findings.lost.push(one);
            }
        }
        findings.lost.sort_by(|one, other| {
            let key = |one: &LostReferences| (one.lost.references, one.lost.bytes);
            key(other)
                .cmp(&key(one))
                .then_with(|| one.lost.type_name.cmp(&other.lost.type_name))
                .then_with(|| one.lost.site.cmp(&other.lost.site))
        });
        for cycles in hidden {
            let head = place(model, stacks, cycles.site).0;
            let grown = before.map(|before| {
                let same = |other: &&HiddenCycles| other.class == cycles.class;
                let before = before.hidden.iter().find(same);
                let before = before.map_or(0, |before| before.natives);
                cycles.natives.wrapping_sub(before) as i64
            });
            if cycles.natives >= FEWEST && grown.is_none_or(|grown| grown > 0) {
                findings.hidden.push(Hidden {
                    cycles,
                    head,
                    grown,
                });
            }
        }
        findings
    }

    /// Only what is about objects of some sites, or of types that are meant.
    #[must_use]
    pub fn about(mut self, sites: &[u32], is_type: &dyn Fn(&str) -> bool) -> Self {
        let has_site = |site: &u32| sites.binary_search(site).is_ok();
        self.lost
            .retain(|one| one.sites.iter().any(has_site) || is_type(&one.lost.type_name));
        self.hidden.retain(|one| {
            let types = one.cycles.types.iter();
            one.cycles.sites.iter().any(|(site, _)| has_site(site))
                || is_type(&one.cycles.class)
                || types.map(|type_| &type_.name).any(|name| is_type(name))
        });
        self
    }
}

impl Lost {
    fn add(&mut self, other: &Lost) {
        if other.example.1.saturating_sub(other.example.2)
            > self.example.1.saturating_sub(self.example.2)
        {
            self.example = other.example;
        }
        self.objects += other.objects;
        self.proven += other.proven;
        self.unheld += other.unheld;
        self.references += other.references;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The frames of a site, and the one that what it makes is known by.
fn place<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    site: Option<u32>,
) -> (Head, Option<FrameId>) {
    let site = site.and_then(|site| model.sites().get(site as usize));
    let Some(site) = site else {
        return (Head::default(), None);
    };
    let mut head = stacks.head(model, site.node);
    // The interpreter's own functions make all objects.
    head.made_in = head.made_in.filter(|&id| {
        let role = stacks.frame(id).role;
        !matches!(role, Role::Interpreter | Role::Allocator | Role::Marker)
    });
    (head, head.made_in.or(head.your_code))
}

/// Blocks that each site had made by an instant.
fn births(model: &Model<'_>, at_ns: u64) -> Vec<u64> {
    let mut born = vec![0_i64; model.sites().len()];
    let bins = model.bin_ends().partition_point(|&end| end <= at_ns) + 1;
    for bin in 0..bins.min(model.bins().len()) {
        model.for_each_point(bin, |point| {
            if let Some(born) = born.get_mut(point.site as usize) {
                *born = born.wrapping_add(point.total_blocks);
            }
        });
    }
    born.into_iter()
        .map(|born| u64::try_from(born).unwrap_or(0))
        .collect()
}

/// What a heap graph shows of a cause, beyond that it grows.
#[derive(Clone, Debug)]
pub enum Reason {
    /// References to its objects were lost.
    Lost(LostReferences),
    /// Its objects are in cycles that a class hides.
    Hidden(Hidden),
    /// Its objects are garbage that no collection has freed yet: so many.
    Garbage {
        /// How many of them.
        objects: u64,
        /// Whether CPython's collector ran by itself, where that is known.
        collects: Option<bool>,
    },
}

impl Reason {
    /// It is a leak, however much or little it grew.
    pub fn is_certain(&self) -> bool {
        matches!(self, Reason::Lost(_) | Reason::Hidden(_))
    }
}

impl Cause {
    /// The word for it, as in reports: what a graph shows, or else the verdict.
    pub fn word(&self) -> &'static str {
        match &self.reason {
            Some(Reason::Lost(_)) => "lost reference",
            Some(Reason::Hidden(_) | Reason::Garbage { .. }) => "cycle",
            None => self.verdict.word(),
        }
    }

    /// It is surely a leak.
    pub fn is_leak(&self) -> bool {
        matches!(self.verdict, Verdict::Leaking | Verdict::Unreachable)
            || self.reason.as_ref().is_some_and(Reason::is_certain)
    }
}

impl Leaks {
    /// Says of each cause who holds its objects in a heap graph, and what of it is certain
    /// by that; adds causes of what grew too little to be judged, but is certain.
    pub fn look_into<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        heap: &Heap,
        findings: &Findings,
    ) {
        let graph = findings.graph;
        let is_any = |cause: &Cause, sites: &[u32]| {
            let members = &cause.members;
            sites.iter().any(|site| members.binary_search(site).is_ok())
        };
        for cause in &mut self.suspects {
            let group = heap.holders_of(&cause.members);
            let objects = group.as_ref().map_or(0, |group| group.count);
            let lost = findings.lost.iter().find(|one| is_any(cause, &one.sites));
            let hidden = findings.hidden.iter().find(|one| {
                let sites = one.cycles.sites.iter();
                let of_cause = sites.filter(|(site, _)| cause.members.binary_search(site).is_ok());
                of_cause.map(|(_, count)| count).sum::<u64>() * 2 > objects
            });
            let garbage: u64 = (cause.members.iter())
                .filter_map(|site| findings.garbage.sites.get(site))
                .sum();
            cause.reason = match (lost, hidden) {
                (Some(lost), _) => Some(Reason::Lost(lost.clone())),
                (_, Some(hidden)) => Some(Reason::Hidden(hidden.clone())),
                _ if garbage * 2 > objects => Some(Reason::Garbage {
                    objects: garbage,
                    collects: findings.collects,
                }),
                _ => None,
            };
            if cause.is_leak() {
                cause.doubt = None;
            }
            cause.held = Some(HeldBy { graph, group });
        }
        let filter = self.query.filter.clone();
        let mut matching = Matching::new(filter.as_ref());
        let lost = findings.lost.iter().map(|one| {
            let held = Held {
                blocks: one.lost.objects,
                bytes: one.lost.bytes,
            };
            (one.sites.clone(), held, Reason::Lost(one.clone()))
        });
        let hidden = findings.hidden.iter().map(|one| {
            let sites = one.cycles.sites.iter().map(|(site, _)| *site).collect();
            let held = Held {
                blocks: one.cycles.objects,
                bytes: one.cycles.bytes,
            };
            (sites, held, Reason::Hidden(one.clone()))
        });
        for (sites, held, reason) in lost
            .chain(hidden)
            .collect::<Vec<(Vec<u32>, Held, Reason)>>()
        {
            let is_known = |cause: &Cause| match (&cause.reason, &reason) {
                (Some(Reason::Hidden(one)), Reason::Hidden(other)) => {
                    one.cycles.class == other.cycles.class
                }
                (_, Reason::Lost(lost)) => is_any(cause, &lost.sites),
                _ => false,
            };
            let named = match &reason {
                Reason::Hidden(one) => one.cycles.site,
                _ => sites.first().copied(),
            };
            let Some(site) = named.filter(|_| !self.suspects.iter().any(is_known)) else {
                continue;
            };
            let Some(facts) = model.sites().get(site as usize).copied() else {
                continue;
            };
            if let Some(suppression) = self.suppression(model, stacks, facts.node) {
                self.suppress(suppression, held.bytes);
                continue;
            }
            if matching.site(model, stacks, facts.node, facts.process) {
                let cause = self.certain(model, stacks, heap, (graph, site), sites, held, reason);
                self.suspects.push(cause);
                self.total_suspects += 1;
            }
        }
        for (at, cause) in (1..).zip(&mut self.suspects) {
            cause.id = format!("L{at}");
        }
        let leaking = self.suspects.iter().filter(|cause| cause.is_leak());
        self.leaking.0 = leaking.clone().count();
        self.leaking.1 = sum(leaking);
        self.count_pages(model);
    }

    /// Leaves out what is beyond the limit.
    pub fn limit(&mut self) {
        let limit = self.query.limit.unwrap_or(usize::MAX);
        self.suspects.truncate(limit);
    }

    /// A cause that a graph proves, and growth alone does not show.
    #[expect(clippy::too_many_arguments, reason = "of one call")]
    fn certain<'a>(
        &self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        heap: &Heap,
        (graph, site): (u32, u32),
        mut sites: Vec<u32>,
        held: Held,
        reason: Reason,
    ) -> Cause {
        sites.sort_unstable();
        let facts = model.sites()[site as usize];
        let seconds = (self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9).max(1e-3);
        let rate = Rate {
            bytes_per_second: held.bytes as f64 / seconds,
            blocks_per_second: held.blocks as f64 / seconds,
            ..Rate::default()
        };
        Cause {
            id: String::new(),
            lost: None,
            verdict: Verdict::Growing,
            doubt: None,
            rate,
            since_ns: self.from_ns,
            live: held,
            pages: None,
            stack: stacks.stack(model, facts.node),
            shares: vec![Share {
                process: facts.process,
                live: held,
                grown_bytes: held.bytes as i64,
            }],
            held: Some(HeldBy {
                graph,
                group: heap.holders_of(&sites),
            }),
            sites: vec![CauseSite {
                site,
                head: place(model, stacks, Some(site)).0,
                domain: facts.domain,
                merged: sites.len(),
                judged: Judged {
                    verdict: Verdict::Growing,
                    doubt: None,
                    rate: Some(rate),
                    since_ns: self.from_ns,
                    live: held,
                    grown_bytes: held.bytes as i64,
                    most_bytes: held.bytes,
                    kept: (0, 0),
                    lasting_seconds: 0.0,
                    axis: AxisKind::Clock,
                    chance: 0.0,
                },
            }],
            members: sites,
            reason: Some(reason),
        }
    }
}
