//! `leaks` and `check` as JSON.

use std::io;

use serde::Serialize;

use super::why::{StepJson, TypeJson, step_json, types_json};
use super::{FrameJson, Frames, Header, Place, ProcessJson, StackJson, seconds, write};
use crate::leaks::{Cause, CauseSite, Leaks};
use crate::model::Model;
use crate::report::leaks_words::{NOTHING, evidence, held_by};
use crate::stack::Stacks;
use crate::verdict::{AxisKind, Verdict};

#[derive(Serialize)]
struct Suspect<'s, 'a> {
    id: &'s str,
    verdict: &'static str,
    #[serde(flatten)]
    made: Option<FrameJson<'s>>,
    made_in: Option<Place<'s>>,
    your_code: Option<Place<'s>>,
    rate_bytes_per_second: f64,
    rate_interval: [f64; 2],
    blocks_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks_per_round: Option<f64>,
    live_bytes: u64,
    live_blocks: u64,
    page_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_bytes_error: Option<u64>,
    page_bytes_are_resident: Option<bool>,
    since_seconds: f64,
    confidence: f64,
    axis: &'static str,
    held_by: Option<HeldByJson<'s>>,
    held_by_note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_bytes: Option<u64>,
    types: Vec<TypeJson<'s>>,
    evidence: Vec<String>,
    decides: Option<String>,
    per_process: Vec<ShareJson>,
    sites: Vec<SiteJson<'s>>,
    stack: StackJson<'s, 'a>,
}

/// The path that holds most of a cause's objects.
#[derive(Serialize)]
struct HeldByJson<'s> {
    path: String,
    graph: u32,
    total_paths: usize,
    steps: Vec<StepJson<'s>>,
}

#[derive(Serialize)]
struct ShareJson {
    #[serde(flatten)]
    process: Option<ProcessJson>,
    live_bytes: u64,
    live_blocks: u64,
    grown_bytes: i64,
}

#[derive(Serialize)]
struct SiteJson<'s> {
    site: u32,
    sites: usize,
    verdict: &'static str,
    #[serde(flatten)]
    made: Option<FrameJson<'s>>,
    domain: &'static str,
    live_bytes: u64,
    live_blocks: u64,
    grown_bytes: i64,
    rate_bytes_per_second: Option<f64>,
    made_blocks: u64,
    kept_blocks: u64,
}

#[derive(Serialize)]
struct AcquittedJson<'s> {
    verdict: &'static str,
    sites: usize,
    bytes: u64,
    most_bytes: u64,
    note: &'static str,
    largest: Option<FrameJson<'s>>,
}

#[derive(Serialize)]
struct SuppressedJson<'s> {
    pattern: &'s str,
    shipped: bool,
    sites: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct LimitJson {
    of: &'static str,
    pid: Option<u32>,
    bytes: u64,
    used_bytes: u64,
    rss_bytes: u64,
    reached_in_seconds: Option<f64>,
    interval: Option<[Option<f64>; 2]>,
}

fn site_json<'s>(stacks: &'s Stacks<'_>, site: &CauseSite) -> SiteJson<'s> {
    let judged = &site.judged;
    SiteJson {
        site: site.site,
        sites: site.merged,
        verdict: judged.verdict.word(),
        made: site.head.made_in.map(|id| FrameJson::new(stacks, id)),
        domain: site.domain.name(),
        live_bytes: judged.live.bytes,
        live_blocks: judged.live.blocks,
        grown_bytes: judged.grown_bytes,
        rate_bytes_per_second: judged.rate.map(|rate| rate.bytes_per_second),
        made_blocks: judged.kept.0,
        kept_blocks: judged.kept.1,
    }
}

fn suspect<'s, 'a>(
    model: &Model<'_>,
    frames: &'s Frames<'s, 'a>,
    leaks: &'s Leaks,
    cause: &'s Cause,
) -> Suspect<'s, 'a> {
    let stacks = frames.stacks;
    let head = cause.sites[0].head;
    let judged = &cause.sites[0].judged;
    let rate = &cause.rate;
    let held = cause.held.as_ref();
    let held = held.and_then(|held| Some((held.graph, held.group.as_ref()?)));
    Suspect {
        id: &cause.id,
        verdict: cause.word(),
        made: head.made_in.map(|id| FrameJson::new(stacks, id)),
        made_in: head.made_in.map(|id| Place::new(stacks, id)),
        your_code: head.your_code.map(|id| Place::new(stacks, id)),
        rate_bytes_per_second: rate.bytes_per_second,
        rate_interval: [
            (rate.bytes_per_second - rate.error).max(0.0),
            rate.bytes_per_second + rate.error,
        ],
        blocks_per_second: rate.blocks_per_second,
        blocks_per_round: (judged.axis == AxisKind::Rounds).then_some(rate.blocks_per_unit),
        live_bytes: cause.live.bytes,
        live_blocks: cause.live.blocks,
        page_bytes: cause.pages.map(|pages| pages.bytes),
        page_bytes_error: cause.pages.and_then(|pages| pages.error),
        page_bytes_are_resident: cause.pages.map(|pages| pages.are_resident),
        since_seconds: seconds(cause.since_ns),
        confidence: if cause.is_leak() {
            1.0 - judged.chance
        } else {
            0.0
        },
        axis: judged.axis.name(),
        held_by: held.and_then(|(graph, group)| {
            let path = group.paths.first()?;
            Some(HeldByJson {
                path: held_by(cause).ok()?,
                graph,
                total_paths: group.total_paths,
                steps: (path.steps.iter())
                    .map(|step| step_json(stacks, step, None))
                    .collect(),
            })
        }),
        held_by_note: if cause.verdict == Verdict::Unreachable {
            Some(NOTHING.into())
        } else {
            held_by(cause).err()
        },
        lost_blocks: cause.lost.as_ref().map(|lost| lost.figures.all().blocks),
        lost_bytes: cause.lost.as_ref().map(|lost| lost.figures.all().bytes),
        types: held.map_or_else(Vec::new, |(_, group)| types_json(&group.types)),
        evidence: evidence(model, stacks, cause),
        decides: leaks.decides(cause),
        per_process: cause
            .shares
            .iter()
            .map(|share| ShareJson {
                process: ProcessJson::new(model, share.process),
                live_bytes: share.live.bytes,
                live_blocks: share.live.blocks,
                grown_bytes: share.grown_bytes,
            })
            .collect(),
        sites: cause
            .sites
            .iter()
            .map(|site| site_json(stacks, site))
            .collect(),
        stack: StackJson {
            frames,
            stack: &cause.stack,
        },
    }
}

const fn note(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Plateau => "grew, then stopped",
        Verdict::Burst => "grew and came back down",
        Verdict::StartUp => "made by imports",
        Verdict::Unclear => "fits no other word yet",
        Verdict::Leaking | Verdict::Unreachable | Verdict::Growing => "",
    }
}

/// The word for the whole, as in JSON.
pub(super) fn word(leaks: &Leaks) -> &'static str {
    match leaks.verdict() {
        Verdict::Plateau => "no leak",
        verdict => verdict.word(),
    }
}

/// What `leaks` and `check` share.
#[derive(Serialize)]
struct Judgement<'s, S> {
    verdict: &'static str,
    rate_bytes_per_second: f64,
    rate_interval: [f64; 2],
    detectable_bytes_per_second: f64,
    from_seconds: f64,
    to_seconds: f64,
    live_bytes_from: u64,
    live_bytes_to: u64,
    rss_bytes_from: Option<u64>,
    rss_bytes_to: Option<u64>,
    limit: Option<LimitJson>,
    total_rows: usize,
    rest: Option<usize>,
    suspects: S,
    acquitted: Vec<AcquittedJson<'s>>,
    lost_besides_blocks: u64,
    lost_besides_bytes: u64,
    suppressed: Vec<SuppressedJson<'s>>,
}

fn judgement<'s, S>(
    model: &Model<'_>,
    stacks: &'s Stacks<'_>,
    leaks: &'s Leaks,
    suspects: S,
) -> Judgement<'s, S> {
    let rate = &leaks.leaking.1;
    let left_out = leaks.total_suspects - leaks.suspects.len();
    Judgement {
        verdict: word(leaks),
        rate_bytes_per_second: rate.bytes_per_second,
        rate_interval: [
            (rate.bytes_per_second - rate.error).max(0.0),
            rate.bytes_per_second + rate.error,
        ],
        detectable_bytes_per_second: leaks.detectable_bytes_per_second,
        from_seconds: seconds(leaks.from_ns),
        to_seconds: seconds(leaks.to_ns),
        lost_besides_blocks: leaks.lost_besides.blocks,
        lost_besides_bytes: leaks.lost_besides.bytes,
        live_bytes_from: leaks.live.0,
        live_bytes_to: leaks.live.1,
        rss_bytes_from: leaks.rss.map(|rss| rss.0),
        rss_bytes_to: leaks.rss.map(|rss| rss.1),
        limit: leaks.forecast.map(|forecast| LimitJson {
            of: forecast.of.name(),
            pid: (forecast.of.process())
                .and_then(|id| model.processes().get(id as usize))
                .map(|facts| facts.process.pid),
            bytes: forecast.limit_bytes,
            used_bytes: forecast.used_bytes,
            rss_bytes: forecast.rss_bytes,
            reached_in_seconds: forecast.reached_in_seconds,
            interval: forecast
                .interval
                .map(|(soonest, latest)| [Some(soonest), latest]),
        }),
        total_rows: leaks.total_suspects,
        rest: (left_out > 0).then_some(left_out),
        suspects,
        acquitted: leaks
            .acquitted
            .iter()
            .map(|one| AcquittedJson {
                verdict: one.verdict.word(),
                sites: one.sites,
                bytes: one.bytes,
                most_bytes: one.most_bytes,
                note: note(one.verdict),
                largest: (one.largest.as_ref())
                    .and_then(|site| site.head.made_in)
                    .map(|id| FrameJson::new(stacks, id)),
            })
            .collect(),
        suppressed: leaks
            .suppressed
            .iter()
            .map(|one| SuppressedJson {
                pattern: &one.suppression.pattern,
                shipped: one.suppression.shipped,
                sites: one.sites,
                bytes: one.bytes,
            })
            .collect(),
    }
}

/// Writes `leaks --json`.
pub fn leaks<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m, J> {
        #[serde(flatten)]
        header: Header<'m>,
        #[serde(flatten)]
        judgement: J,
    }
    let frames = Frames::new(stacks);
    let suspects: Vec<_> = leaks
        .suspects
        .iter()
        .map(|cause| suspect(model, &frames, leaks, cause))
        .collect();
    write(
        out,
        &Report {
            header: Header::new("leakline.leaks", model, &leaks.span),
            judgement: judgement(model, stacks, leaks, suspects),
        },
    )
}

/// Writes `check --json`: `new` says of each suspect whether the check fails
/// for it.
pub fn check<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    new: &[bool],
    baseline: Option<&str>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Checked<'s, 'a> {
        #[serde(flatten)]
        suspect: Suspect<'s, 'a>,
        fails: bool,
    }
    #[derive(Serialize)]
    struct Report<'m, J> {
        #[serde(flatten)]
        header: Header<'m>,
        passed: bool,
        baseline: Option<&'m str>,
        #[serde(flatten)]
        judgement: J,
    }
    let frames = Frames::new(stacks);
    let suspects: Vec<_> = leaks
        .suspects
        .iter()
        .zip(new)
        .map(|(cause, &fails)| Checked {
            suspect: suspect(model, &frames, leaks, cause),
            fails,
        })
        .collect();
    write(
        out,
        &Report {
            header: Header::new("leakline.check", model, &leaks.span),
            passed: !new.contains(&true),
            baseline,
            judgement: judgement(model, stacks, leaks, suspects),
        },
    )
}
