//! `why` as JSON.

use std::io;

use serde::Serialize;

use super::lost::{LostJson, lost_json};
use super::{Header, Place, ProcessJson, seconds, write};
use crate::frame::FrameId;
use crate::heap::{Ended, Holder, Object, OfType, Path, Step, Why};
use crate::instant::Span;
use crate::leaks::Findings;
use crate::lost::Lost;
use crate::model::Model;
use crate::report::text::Subject;
use crate::stack::Stacks;

#[derive(Serialize)]
pub(super) struct TypeJson<'s> {
    #[serde(rename = "type")]
    name: &'s str,
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct GroupJson<'s> {
    #[serde(rename = "type")]
    type_name: Option<&'s str>,
    types: Vec<TypeJson<'s>>,
    count: u64,
    bytes: u64,
    retained_bytes: u64,
    native_bytes: u64,
    total_paths: usize,
    paths: Vec<PathJson<'s>>,
}

/// What else refers to objects of a path.
#[derive(Serialize)]
struct OtherJson<'s> {
    path: &'s str,
    count: u64,
}

#[derive(Serialize)]
struct PathJson<'s> {
    count: u64,
    retained_bytes: u64,
    words: &'s str,
    remedy: Option<&'static str>,
    others: Vec<OtherJson<'s>>,
    steps: Vec<StepJson<'s>>,
    holds: Vec<StepJson<'s>>,
}

#[derive(Serialize)]
pub(super) struct StepJson<'s> {
    edge: &'s str,
    #[serde(rename = "type")]
    type_name: Option<&'s str>,
    types: &'s [String],
    keys: Option<&'s str>,
    key: Option<&'s str>,
    address: Option<String>,
    site: Option<u32>,
    made_in: Option<Place<'s>>,
    count: u64,
    bytes: u64,
    retained_bytes: u64,
    native_bytes: u64,
    repeats: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    grown_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grown_bytes: Option<i64>,
}

#[derive(Serialize)]
struct HolderJson<'s> {
    edge: &'s str,
    #[serde(rename = "type")]
    type_name: &'s str,
    address: String,
    path: &'s str,
}

#[derive(Serialize)]
struct ObjectJson<'s> {
    address: String,
    #[serde(rename = "type")]
    type_name: &'s str,
    title: Option<&'s str>,
    bytes: u64,
    references: Option<u32>,
    unexplained_references: u32,
    lost_references: u32,
    total_holders: usize,
    holders: Vec<HolderJson<'s>>,
    total_referents: usize,
    referents: Vec<HolderJson<'s>>,
}

#[derive(Serialize)]
struct LostReferenceJson<'s> {
    #[serde(rename = "type")]
    type_name: &'s str,
    objects: u64,
    held_objects: u64,
    references: u64,
    bytes: u64,
    made_in: Option<Place<'s>>,
    your_code: Option<Place<'s>>,
    sites: &'s [u32],
    made_objects: u64,
    lost_per_call: Option<f64>,
    grown_references: Option<i64>,
    address: String,
    address_references: u32,
    address_found: u32,
}

#[derive(Serialize)]
struct HiddenJson<'s> {
    class: &'s str,
    class_objects: u64,
    objects: u64,
    bytes: u64,
    types: Vec<TypeJson<'s>>,
    made_in: Option<Place<'s>>,
    grown_objects: Option<i64>,
    address: String,
}

/// What is wrong with references: the same of `why`, `leaks` and `check`.
#[derive(Serialize)]
pub(super) struct FindingsJson<'s> {
    lost_references: Vec<LostReferenceJson<'s>>,
    hidden_cycles: Vec<HiddenJson<'s>>,
    collectable_objects: u64,
    collectable_bytes: u64,
    frozen_garbage_objects: u64,
    frozen_garbage_bytes: u64,
    gc_enabled: Option<bool>,
    passed_over_references: u64,
}

pub(super) fn findings_json<'s>(
    stacks: &'s Stacks<'_>,
    findings: &'s Findings,
) -> FindingsJson<'s> {
    let place = |id: Option<FrameId>| id.map(|id| Place::new(stacks, id));
    let lost = findings.lost.iter().map(|one| LostReferenceJson {
        type_name: &one.lost.type_name,
        objects: one.lost.objects,
        held_objects: one.lost.objects - one.lost.unheld,
        references: one.lost.references,
        bytes: one.lost.bytes,
        made_in: place(one.head.made_in),
        your_code: place(one.head.your_code),
        sites: &one.sites,
        made_objects: one.born,
        lost_per_call: one.per_call(),
        grown_references: one.grown,
        address: address(one.lost.example.0),
        address_references: one.lost.example.1,
        address_found: one.lost.example.2,
    });
    let hidden = findings.hidden.iter().map(|one| HiddenJson {
        class: &one.cycles.class,
        class_objects: one.cycles.natives,
        objects: one.cycles.objects,
        bytes: one.cycles.bytes,
        types: types_json(&one.cycles.types),
        made_in: place(one.head.made_in),
        grown_objects: one.grown,
        address: address(one.cycles.example),
    });
    FindingsJson {
        lost_references: lost.collect(),
        hidden_cycles: hidden.collect(),
        collectable_objects: findings.garbage.objects,
        collectable_bytes: findings.garbage.bytes,
        frozen_garbage_objects: findings.frozen.0,
        frozen_garbage_bytes: findings.frozen.1,
        gc_enabled: findings.collects,
        passed_over_references: findings.passed_over,
    }
}

fn address(address: u64) -> String {
    format!("{address:#x}")
}

pub(super) fn types_json(types: &[OfType]) -> Vec<TypeJson<'_>> {
    let types = types.iter().map(|type_| TypeJson {
        name: &type_.name,
        count: type_.count,
        bytes: type_.bytes,
    });
    types.collect()
}

pub(super) fn step_json<'s>(
    stacks: &'s Stacks<'_>,
    step: &'s Step,
    made_in: Option<FrameId>,
) -> StepJson<'s> {
    StepJson {
        edge: &step.edge,
        type_name: step.types.first().map(String::as_str),
        types: &step.types,
        keys: step.keys.as_deref(),
        key: step.key.as_deref(),
        address: step.address.map(address),
        site: step.site,
        made_in: made_in.map(|id| Place::new(stacks, id)),
        count: step.count,
        bytes: step.shallow,
        retained_bytes: step.retained,
        native_bytes: step.native,
        repeats: step.repeats,
        grown_count: step.since.map(|since| since.0),
        grown_bytes: step.since.map(|since| since.1),
    }
}

fn holder_json(holder: &Holder) -> HolderJson<'_> {
    HolderJson {
        edge: &holder.edge,
        type_name: &holder.type_name,
        address: address(holder.address),
        path: &holder.words,
    }
}

fn object_json(object: &Object) -> ObjectJson<'_> {
    ObjectJson {
        address: address(object.address),
        type_name: &object.type_name,
        title: object.title.as_deref(),
        bytes: object.bytes,
        references: (!object.is_immortal).then_some(object.references),
        unexplained_references: object.unexplained,
        lost_references: object.lost,
        total_holders: object.total_holders,
        holders: object.holders.iter().map(holder_json).collect(),
        total_referents: object.total_referents,
        referents: object.referents.iter().map(holder_json).collect(),
    }
}

/// Where most objects of a step were made.
fn made_in<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, step: &Step) -> Option<FrameId> {
    let site = model.sites().get(step.site? as usize)?;
    stacks.head(model, site.node).made_in
}

/// Writes `why --json`.
pub fn why<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    subject: &Subject<'_>,
    why: &Why,
    lost: &Lost<'_>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m> {
        #[serde(flatten)]
        header: Header<'m>,
        asked: &'m str,
        graph: u32,
        name: &'m str,
        at_seconds: f64,
        compared_with: Option<u32>,
        process: Option<ProcessJson>,
        whole: bool,
        objects: u64,
        bytes: u64,
        missing_references: u64,
        has_values: bool,
        keys_left_out: u64,
        searched_bytes: Option<u64>,
        search_left_out_bytes: Option<u64>,
        search_note: Option<&'static str>,
        garbage_objects: u64,
        garbage_bytes: u64,
        #[serde(flatten)]
        findings: FindingsJson<'m>,
        total_rows: usize,
        object: Option<ObjectJson<'m>>,
        groups: Vec<GroupJson<'m>>,
        lost: Option<LostJson<'m>>,
    }
    let all = why.groups.iter().flat_map(|group| &group.paths);
    let all = all.flat_map(|path| path.steps.iter().chain(&path.below));
    // Names come to be known before they are lent.
    let made: Vec<Option<FrameId>> = all.map(|step| made_in(model, stacks, step)).collect();
    let stacks: &Stacks<'a> = stacks;
    let mut made = made.into_iter();
    let mut steps =
        |steps: &'_ [Step]| -> Vec<Option<FrameId>> { made.by_ref().take(steps.len()).collect() };
    let mut path_json = |path: &'_ Path| (steps(&path.steps), steps(&path.below));
    let frames: Vec<_> = why
        .groups
        .iter()
        .flat_map(|group| &group.paths)
        .map(&mut path_json)
        .collect();
    let mut frames = frames.into_iter();
    let groups = why
        .groups
        .iter()
        .map(|group| GroupJson {
            type_name: group.types.first().map(|type_| type_.name.as_str()),
            types: types_json(&group.types),
            count: group.count,
            bytes: group.bytes,
            retained_bytes: group.retained,
            native_bytes: group.native,
            total_paths: group.total_paths,
            paths: group
                .paths
                .iter()
                .map(|path| {
                    let (of_steps, of_below) = frames.next().unwrap_or_default();
                    PathJson {
                        count: path.steps.last().map_or(0, |step| step.count),
                        retained_bytes: path.steps.last().map_or(0, |step| step.retained),
                        words: &path.words,
                        remedy: path.remedy(),
                        others: (path.others.iter())
                            .map(|(path, count)| OtherJson {
                                path,
                                count: *count,
                            })
                            .collect(),
                        steps: (path.steps.iter().zip(of_steps))
                            .map(|(step, made)| step_json(stacks, step, made))
                            .collect(),
                        holds: (path.below.iter().zip(of_below))
                            .map(|(step, made)| step_json(stacks, step, made))
                            .collect(),
                    }
                })
                .collect(),
        })
        .collect();
    let told = model.heap_graphs();
    let told = told.iter().find(|graph| graph.graph == subject.graph);
    let span = Span::whole(model);
    let searched = subject.trust.searched;
    write(
        out,
        &Report {
            header: Header::new("leakline.why", model, &span),
            asked: subject.name,
            graph: subject.graph,
            name: told.map_or("", |graph| graph.name.as_str()),
            at_seconds: told.map_or(0.0, |graph| seconds(graph.at_ns)),
            compared_with: subject.earlier,
            process: told.and_then(|graph| ProcessJson::new(model, graph.process)),
            whole: subject.trust.ended == Some(Ended::Whole),
            objects: why.objects,
            bytes: why.bytes,
            missing_references: subject.trust.missing,
            has_values: told.is_some_and(|graph| graph.values),
            keys_left_out: subject.trust.keys_left_out,
            searched_bytes: searched.map(|searched| searched.bytes),
            search_left_out_bytes: searched.map(|searched| searched.left_out),
            search_note: match searched {
                Some(searched) => searched.failed,
                None => Some("this graph's child did not search memory"),
            },
            garbage_objects: why.garbage.0,
            garbage_bytes: why.garbage.1,
            findings: findings_json(stacks, subject.findings),
            total_rows: why.total_groups,
            object: why.object.as_ref().map(object_json),
            groups,
            lost: lost_json(model, stacks, lost),
        },
    )
}
