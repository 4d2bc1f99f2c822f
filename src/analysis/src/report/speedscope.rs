//! Stacks and what they weigh, for <https://www.speedscope.app>.
//!
//! One profile; of two instants three: what grew, what shrank, and what was
//! live at the later.

use std::io;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::FrameId;
use crate::calls::Calls;
use crate::figures::{Measure, Unit};
use crate::model::Model;
use crate::report::export::{Exported, Selection, StackWeight, path, weighed};
use crate::report::printable;
use crate::report::text::frame_words;
use crate::stack::{REST, Stacks};

#[derive(Serialize)]
struct File {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: String,
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: usize,
    shared: Shared,
    profiles: Vec<Profile>,
}

#[derive(Serialize)]
struct Shared {
    frames: Vec<SharedFrame>,
}

#[derive(Serialize)]
struct SharedFrame {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Profile {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start_value: i64,
    #[serde(rename = "endValue")]
    end_value: i64,
    /// Frames of each stack, the outermost first.
    samples: Vec<Vec<usize>>,
    weights: Vec<i64>,
}

/// Writes the file.
///
/// # Errors
///
/// What writing gives.
pub fn speedscope<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    selection: &Selection,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    let calls = Calls::new(model, &selection.kinds, stacks, false);
    let (weighed, exported) = weighed(selection, &calls);
    let mut frames = Frames::default();
    let samples: Vec<Vec<usize>> = weighed
        .iter()
        .map(|stack| frames.sample(stacks, &calls, stack.call))
        .collect();
    let unit = match (selection.measure, selection.unit) {
        (Measure::Temporary, _) | (_, Unit::Blocks) => "none",
        _ => "bytes",
    };
    let profile = |name: &str, weight: &dyn Fn(&StackWeight) -> i64| {
        let (mut kept, mut weights) = (Vec::new(), Vec::new());
        for (stack, sample) in weighed.iter().zip(&samples) {
            let weight = weight(stack);
            if weight > 0 {
                kept.push(sample.clone());
                weights.push(weight);
            }
        }
        Profile {
            kind: "sampled",
            name: name.into(),
            unit,
            start_value: 0,
            end_value: weights
                .iter()
                .fold(0, |sum: i64, &weight| sum.saturating_add(weight)),
            samples: kept,
            weights,
        }
    };
    let head = selection.heading(model);
    let profiles = if selection.compares() {
        vec![
            profile("grew", &|stack| stack.after.saturating_sub(stack.before)),
            profile("shrank", &|stack| stack.before.saturating_sub(stack.after)),
            profile("live at the later instant", &|stack| stack.after),
        ]
    } else {
        vec![profile(selection.measure.name(), &|stack| stack.after)]
    };
    let version = env!("CARGO_PKG_VERSION");
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: format!("leakline {version}"),
        name: head.join("; "),
        active_profile_index: 0,
        shared: Shared {
            frames: frames.shared,
        },
        profiles,
    };
    serde_json::to_writer(&mut *out, &file).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(exported)
}

/// Frames by the number that they have in the file.
#[derive(Default)]
struct Frames {
    shared: Vec<SharedFrame>,
    numbers: FxHashMap<Option<FrameId>, usize>,
    path: Vec<FrameId>,
}

impl Frames {
    fn sample(&mut self, stacks: &Stacks<'_>, calls: &Calls, call: Option<usize>) -> Vec<usize> {
        let Some(call) = call else {
            return vec![self.number(stacks, None)];
        };
        let mut frames = std::mem::take(&mut self.path);
        path(calls, call, &mut frames);
        let sample = frames
            .iter()
            .map(|&frame| self.number(stacks, Some(frame)))
            .collect();
        self.path = frames;
        sample
    }

    fn number(&mut self, stacks: &Stacks<'_>, id: Option<FrameId>) -> usize {
        *self.numbers.entry(id).or_insert_with(|| {
            self.shared.push(match id {
                None => SharedFrame {
                    name: REST.into(),
                    file: String::new(),
                    line: None,
                },
                Some(id) => {
                    let frame = stacks.frame(id);
                    let place = [frame.file, frame.module]
                        .into_iter()
                        .find(|name| !name.is_empty());
                    SharedFrame {
                        name: printable(&frame_words(stacks, id).0).into_owned(),
                        file: place.map_or("", |name| stacks.name(name)).to_owned(),
                        line: Some(frame.line).filter(|&line| line != 0),
                    }
                }
            });
            self.shared.len() - 1
        })
    }
}
