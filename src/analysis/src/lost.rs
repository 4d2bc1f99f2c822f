//! Native blocks that nothing pointed to, by the last look at each process.
//!
//! A look at a process with other threads is not certain by itself: one of them may have
//! had the only pointer in a register, or have moved it while the kernel copied pages. So
//! blocks are *unreachable* that were lost in two looks, or in one at a process whose
//! registers and memory were all seen; others are only said to be lost in one look.

use rustc_hash::FxHashMap;

use leakline_recording::record::{Lost as Look, LostSite};

use crate::frame::FrameId;
use crate::model::Model;
use crate::stack::{Head, Stacks};
use crate::survivors::Held;

/// What looks at processes' memory have found, the last at each.
#[derive(Clone, Debug, Default)]
pub struct Lost<'a> {
    /// The looks that it rests on, in order.
    pub looks: Vec<&'a Look>,
    /// Last looks that found nothing out, in order.
    pub failed: Vec<&'a Look>,
    /// What is lost, by the stack that made it; the largest first.
    pub groups: Vec<LostGroup>,
}

/// Lost blocks that the same stack made.
#[derive(Clone, Debug)]
pub struct LostGroup {
    /// The frames that it is named after.
    pub head: Head,
    /// The stack, innermost frame first.
    pub stack: Vec<FrameId>,
    /// Its sites, rising.
    pub sites: Vec<u32>,
    /// What was found.
    pub figures: LostFigures,
    /// Addresses of some of them.
    pub examples: Vec<u64>,
}

/// What is lost of some sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostFigures {
    /// Blocks that nothing points to.
    pub direct: Held,
    /// Blocks that only lost blocks point to.
    pub indirect: Held,
    /// Of both, what is certain: see the module.
    pub sure: Held,
    /// Blocks that are known of these sites (samples, where blocks are sampled), and how
    /// many of them are lost.
    pub known: (u64, u64),
}

impl LostFigures {
    /// All that is lost.
    pub fn all(&self) -> Held {
        sum(self.direct, self.indirect)
    }

    /// Adds what a look found of a site.
    fn add(&mut self, look: &Look, site: &LostSite) {
        let held = |blocks, bytes| Held { blocks, bytes };
        let direct = held(site.direct_blocks, site.direct_bytes);
        let indirect = held(site.indirect_blocks, site.indirect_bytes);
        self.direct = sum(self.direct, direct);
        self.indirect = sum(self.indirect, indirect);
        let sure = if is_certain(look) {
            sum(direct, indirect)
        } else {
            held(site.again_blocks, site.again_bytes)
        };
        self.sure = sum(self.sure, sure);
        self.known.0 = self.known.0.saturating_add(site.known);
        self.known.1 = self.known.1.saturating_add(site.lost);
    }

    fn merge(&mut self, other: &LostFigures) {
        self.direct = sum(self.direct, other.direct);
        self.indirect = sum(self.indirect, other.indirect);
        self.sure = sum(self.sure, other.sure);
        self.known.0 = self.known.0.saturating_add(other.known.0);
        self.known.1 = self.known.1.saturating_add(other.known.1);
    }
}

fn sum(one: Held, other: Held) -> Held {
    Held {
        blocks: one.blocks.saturating_add(other.blocks),
        bytes: one.bytes.saturating_add(other.bytes),
    }
}

/// Whether a look leaves no doubt by itself.
pub fn is_certain(look: &Look) -> bool {
    look.threads == 0 && look.unread_bytes == 0
}

/// The last look at each process, those that found something out apart.
fn last_looks<'a>(model: &Model<'a>) -> (Vec<&'a Look>, Vec<&'a Look>) {
    let mut last: FxHashMap<u32, [Option<&'a Look>; 2]> = FxHashMap::default();
    for &look in model.lost() {
        let [found, failed] = last.entry(look.process).or_default();
        if look.why.is_empty() {
            (*found, *failed) = (Some(look), None);
        } else {
            *failed = Some(look);
        }
    }
    let of = |which: usize| {
        let mut looks: Vec<&Look> = last.values().filter_map(|pair| pair[which]).collect();
        looks.sort_by_key(|look| look.graph);
        looks
    };
    (of(0), of(1))
}

/// What is certainly lost of sites, summed up.
pub(crate) fn lost_of(by_site: &FxHashMap<u32, LostFigures>, sites: &[u32]) -> LostFigures {
    let mut all = LostFigures::default();
    for figures in sites.iter().filter_map(|site| by_site.get(site)) {
        all.merge(figures);
    }
    all
}

/// What is lost of each site; nothing of the others.
pub fn lost_by_site(model: &Model<'_>) -> FxHashMap<u32, LostFigures> {
    let mut sites: FxHashMap<u32, LostFigures> = FxHashMap::default();
    for look in last_looks(model).0 {
        for site in look.sites.iter().filter(|site| site.lost > 0) {
            sites.entry(site.site).or_default().add(look, site);
        }
    }
    sites
}

impl<'a> Lost<'a> {
    /// Sums up what the last looks at processes have found: of some sites only, if so.
    pub fn new(model: &Model<'a>, stacks: &mut Stacks<'a>, only: Option<&[u32]>) -> Self {
        let (looks, failed) = last_looks(model);
        let mut groups: Vec<LostGroup> = Vec::new();
        let mut index: FxHashMap<u64, usize> = FxHashMap::default();
        for look in &looks {
            for site in look.sites.iter().filter(|site| site.lost > 0) {
                let Some(facts) = model.sites().get(site.site as usize) else {
                    continue;
                };
                if only.is_some_and(|only| only.binary_search(&site.site).is_err()) {
                    continue;
                }
                let key = stacks.shown_key(model, facts.node);
                let at = *index.entry(key).or_insert_with(|| {
                    groups.push(LostGroup {
                        head: stacks.head(model, facts.node),
                        stack: stacks.stack(model, facts.node),
                        sites: Vec::new(),
                        figures: LostFigures::default(),
                        examples: Vec::new(),
                    });
                    groups.len() - 1
                });
                let group = &mut groups[at];
                group.sites.push(site.site);
                group.figures.add(look, site);
                group.examples.extend(&site.examples);
            }
        }
        for group in &mut groups {
            group.sites.sort_unstable();
            // What a forked child inherited is looked at in both.
            group.sites.dedup();
        }
        groups.sort_by(|one, other| {
            let (one_all, other_all) = (one.figures.all(), other.figures.all());
            (other_all.bytes, other_all.blocks, &one.sites).cmp(&(
                one_all.bytes,
                one_all.blocks,
                &other.sites,
            ))
        });
        Lost {
            looks,
            failed,
            groups,
        }
    }

    /// All that is lost.
    pub fn figures(&self) -> LostFigures {
        let mut all = LostFigures::default();
        for group in &self.groups {
            all.merge(&group.figures);
        }
        all
    }

    /// Of how many blocks it was asked whether anything points to them.
    pub fn asked(&self) -> Held {
        self.looks.iter().fold(Held::default(), |all, look| {
            sum(
                all,
                Held {
                    blocks: look.blocks,
                    bytes: look.bytes,
                },
            )
        })
    }

    /// Blocks whose beginnings nothing points to, though something points into them.
    pub fn inner(&self) -> Held {
        let sites = self.looks.iter().flat_map(|look| &look.sites);
        sites.fold(Held::default(), |all, site| {
            sum(
                all,
                Held {
                    blocks: site.inner_blocks,
                    bytes: site.inner_bytes,
                },
            )
        })
    }
}
