//! Sites in groups, arranged once and summed for any instant.
//!
//! [`Top`](crate::Top) answers one question; this is for who asks of one
//! instant after the other. Groups are the same as `top`'s.

use leakline_recording::record::Domain;
use rustc_hash::FxHashMap;

use crate::figures::Figures;
use crate::frame::FrameId;
use crate::kinds::{Kinds, Measured, Sums};
use crate::model::Model;
use crate::names::Name;
use crate::stack::{Head, Stacks};
use crate::top::{GroupBy, Key, frame_key, key};

/// What sites have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The frames that it is named after: of a site both, of a line, function,
    /// file or library the first.
    pub head: Head,
    /// Its library or file, where it is one.
    pub name: Option<Name>,
    /// Its process, where it is one.
    pub process: Option<u32>,
    /// Its domain, where all its sites agree.
    pub domain: Option<Domain>,
    /// Its first site; `None` where it only called what allocated.
    pub site: Option<u32>,
}

/// Groups of all sites. There are none of threads: sites do not know theirs.
#[derive(Clone, Debug)]
pub struct Groups {
    all: Vec<Group>,
    /// Processes make the groups, by id, not kinds of sites.
    by_process: bool,
    /// The group of each kind; empty where processes make the groups.
    of_kind: Vec<u32>,
    /// For each kind the groups that its stack goes through, each once: the
    /// pieces of `through` that end at `through_ends`.
    through: Vec<u32>,
    through_ends: Vec<u32>,
    /// Of more kinds than that is held for: the group of each frame. Stacks are then
    /// followed whenever it is asked.
    of_frame: Option<FxHashMap<FrameId, u32>>,
}

/// What stacks keep of single nodes is given back after so many kinds, where there are
/// many.
const FORGET_AFTER: usize = 1 << 16;

impl Groups {
    /// Groups all sites; with what their stacks go through where `inclusive`
    /// and frames make the groups.
    pub fn new<'a>(
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        by: GroupBy,
        inclusive: bool,
    ) -> Self {
        let mut groups = Groups {
            all: Vec::new(),
            by_process: by == GroupBy::Process,
            of_kind: Vec::new(),
            through: Vec::new(),
            through_ends: Vec::new(),
            of_frame: None,
        };
        if groups.by_process {
            groups.add_processes(model);
            return groups;
        }
        let mut index: FxHashMap<Key, u32> = FxHashMap::default();
        for (kind, &id) in kinds.sites().iter().enumerate() {
            if !kinds.are_few() && kind % FORGET_AFTER == 0 {
                stacks.forget_nodes();
            }
            let site = model.sites()[id as usize];
            let key = key(model, stacks, by, id);
            let at = *index.entry(key).or_insert_with(|| {
                let mut head = match by {
                    GroupBy::Thread | GroupBy::Domain => Head::default(),
                    _ => stacks.head(model, site.node),
                };
                if by != GroupBy::Site {
                    head.your_code = None;
                }
                groups.all.push(Group {
                    head,
                    name: if let Key::Name(name) = key {
                        Some(name)
                    } else {
                        None
                    },
                    process: None,
                    domain: Some(site.domain),
                    site: Some(id),
                });
                u32::try_from(groups.all.len() - 1).unwrap_or(u32::MAX)
            });
            let group = &mut groups.all[at as usize];
            if group.domain != Some(site.domain) {
                group.domain = None;
            }
            groups.of_kind.push(at);
        }
        let of_frames = matches!(
            by,
            GroupBy::Line | GroupBy::Function | GroupBy::File | GroupBy::Library
        );
        if inclusive && of_frames {
            groups.follow_stacks(model, kinds, stacks, by, &mut index);
        }
        groups
    }

    fn add_processes(&mut self, model: &Model<'_>) {
        let processes = (0..).zip(model.processes());
        self.all.extend(processes.map(|(process, _)| Group {
            head: Head::default(),
            name: None,
            process: Some(process),
            domain: None,
            site: None,
        }));
        for (id, site) in (0..).zip(model.sites()) {
            let Some(group) = self.all.get_mut(site.process as usize) else {
                continue;
            };
            if group.site.is_none() {
                (group.site, group.domain) = (Some(id), Some(site.domain));
            } else if group.domain != Some(site.domain) {
                group.domain = None;
            }
        }
    }

    fn follow_stacks<'a>(
        &mut self,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        by: GroupBy,
        index: &mut FxHashMap<Key, u32>,
    ) {
        let mut of_frame: FxHashMap<FrameId, u32> = FxHashMap::default();
        let mut stack = Vec::new();
        let is_held = kinds.are_few();
        for (kind, &site) in kinds.sites().iter().enumerate() {
            if !is_held {
                self.through.clear();
            }
            let begins = self.through.len();
            self.through.push(self.of_kind[kind]);
            let node = model.sites()[site as usize].node;
            stacks.stack_into(model, node, &mut stack);
            stack.retain(|&frame| stacks.is_shown(frame));
            for &frame in &stack {
                let at = if let Some(&at) = of_frame.get(&frame) {
                    at
                } else {
                    let key = frame_key(stacks, by, frame);
                    let at = *index.entry(key).or_insert_with(|| {
                        self.all.push(Group {
                            head: Head {
                                made_in: Some(frame),
                                ..Head::default()
                            },
                            name: if let Key::Name(name) = key {
                                Some(name)
                            } else {
                                None
                            },
                            process: None,
                            domain: None,
                            site: None,
                        });
                        u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
                    });
                    of_frame.insert(frame, at);
                    at
                };
                if !self.through[begins..].contains(&at) {
                    self.through.push(at);
                }
            }
            if is_held {
                let ends = u32::try_from(self.through.len()).unwrap_or(u32::MAX);
                self.through_ends.push(ends);
            }
        }
        if !is_held {
            self.through = Vec::new();
            self.of_frame = Some(of_frame);
        }
    }

    /// The groups that a kind's stack goes through, each once.
    fn follow<'a>(
        &self,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        kind: usize,
        (stack, into): (&mut Vec<FrameId>, &mut Vec<u32>),
    ) {
        into.clear();
        into.extend(self.of_kind.get(kind));
        let (Some(of_frame), Some(&site)) = (&self.of_frame, kinds.sites().get(kind)) else {
            return;
        };
        stacks.stack_into(model, model.sites()[site as usize].node, stack);
        for frame in stack {
            if let Some(group) = of_frame.get(frame)
                && !into.contains(group)
            {
                into.push(*group);
            }
        }
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.all
    }

    /// The sites of a group, or that go through it where stacks were followed; rising.
    pub fn sites<'a>(
        &self,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        group: usize,
    ) -> Vec<u32> {
        let process = self.all.get(group).and_then(|group| group.process);
        let (mut stack, mut through) = (Vec::new(), Vec::new());
        let mut is_in = |kind: usize| {
            if self.of_frame.is_some() {
                self.follow(model, kinds, stacks, kind, (&mut stack, &mut through));
                return through.iter().any(|&of| of as usize == group);
            }
            if self.through_ends.is_empty() {
                return self
                    .of_kind
                    .get(kind)
                    .is_some_and(|&of| of as usize == group);
            }
            let begins = kind
                .checked_sub(1)
                .map_or(0, |before| self.through_ends[before]);
            let ends = self.through_ends[kind];
            let through = &self.through[begins as usize..ends as usize];
            through.iter().any(|&of| of as usize == group)
        };
        (0..)
            .zip(model.sites())
            .filter(|(id, site)| match process {
                Some(process) => site.process == process,
                None => kinds.of_site(*id).is_some_and(&mut is_in),
            })
            .map(|(id, _)| id)
            .collect()
    }

    /// Shows `each` what was measured, and of which group it is a part: of each that its
    /// stack goes through, where it was made `inclusive` and `is_inclusive` asks for that.
    pub fn for_each<'a>(
        &self,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        measured: &Measured,
        is_inclusive: bool,
        mut each: impl FnMut(usize, &Figures),
    ) {
        if self.by_process {
            let all = kinds.of_processes(model, measured);
            all.iter()
                .enumerate()
                .for_each(|(group, figures)| each(group, figures));
            return;
        }
        let (mut stack, mut through) = (Vec::new(), Vec::new());
        kinds.for_each(model, measured, |kind, figures| {
            if !is_inclusive || (self.of_frame.is_none() && self.through_ends.is_empty()) {
                if let Some(&group) = self.of_kind.get(kind) {
                    each(group as usize, figures);
                }
                return;
            }
            if self.of_frame.is_some() {
                // Most have nothing to add, and stacks are long.
                if *figures != Figures::default() {
                    self.follow(model, kinds, stacks, kind, (&mut stack, &mut through));
                    for &group in &through {
                        each(group as usize, figures);
                    }
                }
                return;
            }
            let begins = kind
                .checked_sub(1)
                .map_or(0, |before| self.through_ends[before]);
            let through = &self.through[begins as usize..self.through_ends[kind] as usize];
            for &group in through {
                each(group as usize, figures);
            }
        });
    }

    /// Shows `each` the groups that a kind is a part of, all that its stack goes through
    /// where it was made `inclusive`.
    pub fn for_each_of_kind<'a>(
        &self,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        mut each: impl FnMut(usize, usize),
    ) {
        let (mut stack, mut through) = (Vec::new(), Vec::new());
        for kind in 0..self.of_kind.len() {
            if self.of_frame.is_some() {
                self.follow(model, kinds, stacks, kind, (&mut stack, &mut through));
                for &group in &through {
                    each(kind, group as usize);
                }
            } else if let Some(&ends) = self.through_ends.get(kind) {
                let begins = kind
                    .checked_sub(1)
                    .map_or(0, |before| self.through_ends[before]);
                let through = &self.through[begins as usize..ends as usize];
                for &group in through {
                    each(kind, group as usize);
                }
            } else {
                each(kind, self.of_kind[kind] as usize);
            }
        }
    }

    /// What the groups are summed from.
    fn parts<'s, T>(&self, sums: &'s Sums<T>) -> &'s [T] {
        if self.by_process {
            &sums.of_process
        } else {
            &sums.of_kind
        }
    }

    /// The group of a kind, where kinds make the groups.
    pub fn of_kind(&self, kind: usize) -> Option<usize> {
        self.of_kind.get(kind).map(|&group| group as usize)
    }

    /// Adds up for each group what its parts have.
    fn add_up<T: Clone + Default>(&self, sums: &Sums<T>, add: impl Fn(&mut T, &T)) -> Vec<T> {
        let parts = self.parts(sums);
        let mut all = vec![T::default(); self.all.len()];
        if self.by_process {
            for (sum, part) in all.iter_mut().zip(parts) {
                add(sum, part);
            }
        } else {
            for (part, &group) in parts.iter().zip(&self.of_kind) {
                add(&mut all[group as usize], part);
            }
        }
        all
    }

    /// For each group what its sites weigh together.
    pub fn weigh(&self, weights: &Sums<i64>) -> Vec<i64> {
        self.add_up(weights, |sum, weight| {
            *sum = sum.saturating_add(*weight);
        })
    }

    /// For each group the sum of its sites' figures.
    pub fn own(&self, figures: &Sums<Figures>) -> Vec<Figures> {
        self.add_up(figures, Figures::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{origin, training};
    use crate::{Measure, Span, Top, TopQuery, Unit};

    #[test]
    fn each_site_is_in_one_group_and_in_those_that_its_stack_goes_through() {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        for kinds in [Kinds::new(&model), Kinds::too_many(&model)] {
            each_site_is_in_a_group(&model, &mut stacks, &kinds);
        }
    }

    fn each_site_is_in_a_group<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, kinds: &Kinds) {
        let all: Vec<u32> = (0..).zip(model.sites()).map(|(id, _)| id).collect();
        for by in [GroupBy::Site, GroupBy::Function, GroupBy::Process] {
            let groups = Groups::new(model, kinds, stacks, by, false);
            let of_group = |group| groups.sites(model, kinds, stacks, group);
            let mut sites: Vec<u32> = (0..groups.groups().len()).flat_map(of_group).collect();
            sites.sort_unstable();
            assert_eq!(sites, all, "{by:?}");
        }
        let groups = Groups::new(model, kinds, stacks, GroupBy::Function, true);
        let mut most = 0;
        for (at, group) in groups.groups().iter().enumerate() {
            let sites = groups.sites(model, kinds, stacks, at);
            let Some(frame) = group.head.made_in else {
                continue;
            };
            let function = stacks.frame(frame).function;
            let expected: Vec<u32> = (0..)
                .zip(model.sites())
                .filter(|(_, site)| {
                    let stack = stacks.stack(model, site.node);
                    stack
                        .into_iter()
                        .any(|id| stacks.frame(id).function == function)
                })
                .map(|(id, _)| id)
                .collect();
            assert_eq!(sites, expected);
            most = most.max(sites.len());
        }
        assert!(most > 1);
    }

    #[test]
    fn groups_are_those_of_top() {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        for by in [
            GroupBy::Site,
            GroupBy::Line,
            GroupBy::Function,
            GroupBy::File,
            GroupBy::Library,
            GroupBy::Process,
            GroupBy::Domain,
        ] {
            let query = TopQuery {
                span: Span::usual(&model),
                by,
                measure: Measure::Live,
                unit: Unit::Bytes,
                limit: None,
                most_frames: None,
                filter: None,
            };
            let kinds = Kinds::new(&model);
            let query_span = query.span;
            let figures = kinds.sums(&model, &query_span);
            let top = Top::new(&model, &mut stacks, query);
            let many = Kinds::too_many(&model);
            for (inclusive, kinds) in [(false, &kinds), (true, &kinds), (true, &many)] {
                let groups = Groups::new(&model, kinds, &mut stacks, by, inclusive);
                let measured = kinds.measure(&model, &query_span);
                let sums = sums_of(&groups, &model, kinds, &mut stacks, &measured, false);
                let of_groups = groups.own(&figures);
                assert_eq!(of_groups, sums);
                let mut own: Vec<_> = of_groups
                    .into_iter()
                    .filter(|figures| !figures.is_idle(false, false))
                    .map(|figures| figures.live_bytes)
                    .collect();
                own.sort_unstable_by(|one, other| other.cmp(one));
                let expected: Vec<_> = top.rows.iter().map(|row| row.figures.live_bytes).collect();
                assert_eq!(own, expected, "{by:?}");
            }
        }
    }

    fn sums_of<'a>(
        groups: &Groups,
        model: &Model<'a>,
        kinds: &Kinds,
        stacks: &mut Stacks<'a>,
        measured: &Measured,
        is_inclusive: bool,
    ) -> Vec<Figures> {
        let mut sums = vec![Figures::default(); groups.groups().len()];
        let add = |group: usize, figures: &Figures| sums[group].add(figures);
        groups.for_each(model, kinds, stacks, measured, is_inclusive, add);
        sums
    }

    #[test]
    fn a_group_s_total_has_all_that_it_called() {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        for kinds in [Kinds::new(&model), Kinds::too_many(&model)] {
            let span = Span::usual(&model);
            let measured = kinds.measure(&model, &span);
            let groups = Groups::new(&model, &kinds, &mut stacks, GroupBy::Function, true);
            let total = sums_of(&groups, &model, &kinds, &mut stacks, &measured, true);
            let figures = kinds.sums(&model, &span);
            let mut live = vec![0; total.len()];
            groups.for_each_of_kind(&model, &kinds, &mut stacks, |kind, group| {
                live[group] += figures.of_kind[kind].live_bytes;
            });
            assert!(total.iter().map(|figures| figures.live_bytes).eq(live));
            let of = |wanted: &str| {
                let group = groups.groups().iter().position(|group| {
                    group
                        .head
                        .made_in
                        .is_some_and(|id| stacks.name(stacks.frame(id).function) == wanted)
                });
                total[group.unwrap()].live_bytes
            };
            let sum: i64 = (figures.of_kind.iter())
                .map(|figures| figures.live_bytes)
                .sum();
            assert_eq!(of("<module>"), sum);
            assert!(of("load_batch") > 0 && of("load_batch") < of("Trainer.epoch"));
        }
    }
}
