//! What is lost, as JSON: a part of `why` and of `leaks`.

use std::io;

use serde::Serialize;

use super::{Header, Place, ProcessJson, seconds, write};
use crate::instant::Span;
use crate::lost::{Lost, LostFigures, LostGroup, is_certain};
use crate::model::Model;
use crate::stack::Stacks;

#[derive(Serialize)]
struct FiguresJson {
    blocks: u64,
    bytes: u64,
    direct_blocks: u64,
    direct_bytes: u64,
    indirect_blocks: u64,
    indirect_bytes: u64,
    certain_blocks: u64,
    certain_bytes: u64,
    known_blocks: u64,
}

impl From<&LostFigures> for FiguresJson {
    fn from(figures: &LostFigures) -> Self {
        let all = figures.all();
        FiguresJson {
            blocks: all.blocks,
            bytes: all.bytes,
            direct_blocks: figures.direct.blocks,
            direct_bytes: figures.direct.bytes,
            indirect_blocks: figures.indirect.blocks,
            indirect_bytes: figures.indirect.bytes,
            certain_blocks: figures.sure.blocks,
            certain_bytes: figures.sure.bytes,
            known_blocks: figures.known.0,
        }
    }
}

#[derive(Serialize)]
struct LookJson<'s> {
    look: u32,
    name: &'s str,
    process: Option<ProcessJson>,
    seconds: f64,
    compared_with: Option<u32>,
    paused_seconds: f64,
    took_seconds: f64,
    asked_blocks: u64,
    asked_bytes: u64,
    root_bytes: u64,
    block_bytes: u64,
    unread_bytes: u64,
    other_threads: u32,
    knows_all_blocks: bool,
    is_certain: bool,
    error: Option<&'s str>,
}

#[derive(Serialize)]
struct GroupJson<'s> {
    sites: &'s [u32],
    made_in: Option<Place<'s>>,
    your_code: Option<Place<'s>>,
    #[serde(flatten)]
    figures: FiguresJson,
    examples: Vec<String>,
    stack: Vec<Place<'s>>,
}

/// What is lost.
#[derive(Serialize)]
pub(super) struct LostJson<'s> {
    #[serde(flatten)]
    figures: FiguresJson,
    possibly_lost_blocks: u64,
    possibly_lost_bytes: u64,
    looks: Vec<LookJson<'s>>,
    rows: Vec<GroupJson<'s>>,
}

fn group_json<'s>(stacks: &'s Stacks<'_>, group: &'s LostGroup) -> GroupJson<'s> {
    GroupJson {
        sites: &group.sites,
        made_in: group.head.made_in.map(|id| Place::new(stacks, id)),
        your_code: group.head.your_code.map(|id| Place::new(stacks, id)),
        figures: (&group.figures).into(),
        examples: group.examples.iter().map(|at| format!("{at:#x}")).collect(),
        stack: (group.stack.iter().filter(|id| stacks.is_shown(**id)))
            .map(|id| Place::new(stacks, *id))
            .collect(),
    }
}

/// `None` where nobody looked.
pub(super) fn lost_json<'s>(
    model: &'s Model<'_>,
    stacks: &'s Stacks<'_>,
    lost: &'s Lost<'_>,
) -> Option<LostJson<'s>> {
    let looks: Vec<LookJson<'s>> = lost
        .looks
        .iter()
        .chain(&lost.failed)
        .map(|look| LookJson {
            look: look.graph,
            name: &look.name,
            process: ProcessJson::new(model, look.process),
            seconds: seconds(look.at_ns),
            compared_with: (look.before > 0).then_some(look.before),
            paused_seconds: seconds(look.paused_ns),
            took_seconds: look.microseconds as f64 / 1e6,
            asked_blocks: look.blocks,
            asked_bytes: look.bytes,
            root_bytes: look.root_bytes,
            block_bytes: look.block_bytes,
            unread_bytes: look.unread_bytes,
            other_threads: look.threads,
            knows_all_blocks: look.knows_all,
            is_certain: is_certain(look) && look.why.is_empty(),
            error: (!look.why.is_empty()).then_some(look.why.as_str()),
        })
        .collect();
    let inner = lost.inner();
    (!looks.is_empty()).then(|| LostJson {
        figures: (&lost.figures()).into(),
        possibly_lost_blocks: inner.blocks,
        possibly_lost_bytes: inner.bytes,
        looks,
        rows: (lost.groups.iter())
            .map(|group| group_json(stacks, group))
            .collect(),
    })
}

/// Writes `why` where what is lost is the whole answer.
///
/// # Errors
///
/// Those of `out`.
pub fn lost<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    question: &str,
    lost: &Lost<'_>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'m> {
        #[serde(flatten)]
        header: Header<'m>,
        asked: &'m str,
        total_rows: usize,
        groups: [(); 0],
        lost: Option<LostJson<'m>>,
    }
    let span = Span::whole(model);
    let report = Report {
        header: Header::new("leakline.why", model, &span),
        asked: question,
        total_rows: 0,
        groups: [],
        lost: lost_json(model, stacks, lost),
    };
    write(out, &report)
}
