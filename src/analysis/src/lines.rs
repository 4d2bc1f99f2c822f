//! `lines`: a source file, with what each line allocated.

use std::collections::{BTreeMap, BTreeSet};

use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::frame::FrameId;
use crate::instant::Span;
use crate::model::Model;
use crate::names::base_name;
use crate::stack::Stacks;
use crate::top::Matching;

/// A question to `lines`.
#[derive(Clone, Debug)]
pub struct LinesQuery {
    /// When.
    pub span: Span,
    /// A line gets every stack through it, not only what it allocated itself.
    pub inclusive: bool,
    /// Largest first by this, instead of in the file's order.
    pub sort: Option<(Measure, Unit)>,
    /// Most lines, the largest by the measure (by live bytes where lines stay
    /// in order); `None` = all.
    pub limit: Option<usize>,
    /// Sites to keep.
    pub filter: Option<Filter>,
}

/// A line that allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRow {
    /// Its number.
    pub line: u32,
    /// Its text, where known.
    pub text: Option<String>,
    /// Its figures.
    pub figures: Figures,
}

/// Where the text of lines comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFrom {
    /// The recording.
    Recording,
    /// The file, which agrees with what the recording has of it.
    File,
    /// The recording alone: the file has changed since.
    RecordingOnly,
    /// Nowhere: neither has it.
    Nowhere,
}

impl SourceFrom {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            SourceFrom::Recording | SourceFrom::RecordingOnly => "recording",
            SourceFrom::File => "file",
            SourceFrom::Nowhere => "none",
        }
    }
}

/// An answer of `lines`.
#[derive(Clone, Debug)]
pub struct Lines {
    /// The question.
    pub query: LinesQuery,
    /// The file, as in frames.
    pub file: String,
    /// Where the text comes from.
    pub source: SourceFrom,
    /// Text of lines, also of some that allocated nothing.
    pub text: BTreeMap<u32, String>,
    /// Lines that allocated.
    pub rows: Vec<LineRow>,
    /// How many there are without the limit.
    pub total_rows: usize,
    /// What the lines beyond the limit add up to.
    pub rest: Figures,
    /// What all lines add up to; inclusive lines overlap, so not the file's.
    pub sum: Figures,
}

/// Why there is no such file to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// No frame is in a file of this name.
    #[error("no recorded stack goes through `{file}`")]
    NoFile {
        /// As given.
        file: String,
        /// Files with a similar name, or the ones that allocated most.
        others: Vec<String>,
    },
    /// Several files have this name.
    #[error("`{file}` could be any of {}", candidates.len())]
    Ambiguous {
        /// As given.
        file: String,
        /// Which, in order.
        candidates: Vec<String>,
    },
}

impl LinesError {
    /// What would do.
    pub fn hint(&self) -> String {
        const MOST: usize = 5;
        let (what, files) = match self {
            LinesError::NoFile { others, .. } if others.is_empty() => {
                return "`leakline top` shows what the recording has".into();
            }
            LinesError::NoFile { others, .. } => ("try one of", others),
            LinesError::Ambiguous { candidates, .. } => ("say which", candidates),
        };
        let listed: Vec<_> = files
            .iter()
            .take(MOST)
            .map(|file| format!("`{file}`"))
            .collect();
        let more = if files.len() > MOST { ", ..." } else { "" };
        format!("{what}: {}{more}", listed.join(", "))
    }
}

impl Lines {
    /// The file as frames name it that a user means by `wanted`: the same
    /// path, or one that ends with it.
    ///
    /// # Errors
    ///
    /// No file does, or several.
    pub fn find_file<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        wanted: &str,
    ) -> Result<String, LinesError> {
        let mut files: BTreeSet<&str> = model
            .codes()
            .iter()
            .map(|code| code.file.as_str())
            .collect();
        files.extend(model.symbol_files());
        files.remove("");
        if files.contains(wanted) {
            return Ok(wanted.to_owned());
        }
        let tail = format!("/{}", wanted.trim_start_matches("./"));
        let candidates: Vec<&str> = files
            .iter()
            .copied()
            .filter(|file| file.ends_with(&tail))
            .collect();
        match candidates[..] {
            [file] => return Ok(file.to_owned()),
            [] => {}
            _ => {
                let busy = files_that_allocated(model, stacks);
                let busy: Vec<String> = busy
                    .into_iter()
                    .filter(|file| candidates.contains(&file.as_str()))
                    .collect();
                return match &busy[..] {
                    [file] => Ok(file.clone()),
                    [] => Err(ambiguous(
                        wanted,
                        candidates.into_iter().map(Into::into).collect(),
                    )),
                    _ => Err(ambiguous(wanted, busy)),
                };
            }
        }
        let base = base_name(wanted);
        let mut others: Vec<String> = files
            .iter()
            .filter(|file| base_name(file) == base)
            .map(|&file| file.into())
            .collect();
        if others.is_empty() {
            others = files_that_allocated(model, stacks);
        }
        Err(LinesError::NoFile {
            file: wanted.into(),
            others,
        })
    }

    /// Answers `query` for `file` (as [`find_file`](Self::find_file) returned
    /// it). `on_disk` is the file's text where the caller has it.
    pub fn new<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        query: LinesQuery,
        file: String,
        on_disk: Option<&str>,
    ) -> Self {
        let mut lines: BTreeMap<u32, Figures> = BTreeMap::new();
        let compared = query.span.from().is_some();
        let by_peak = query
            .sort
            .is_some_and(|(measure, _)| measure == Measure::Peak);
        let mut stack = Vec::new();
        let mut through = BTreeSet::new();
        let mut matching = Matching::new(query.filter.as_ref());
        model.for_each_figures(&query.span, |_, site, figures| {
            if figures.is_idle(compared, by_peak)
                || !matching.site(model, stacks, site.node, site.process)
            {
                return;
            }
            through.clear();
            if query.inclusive {
                stacks.stack_into(model, site.node, &mut stack);
                through.extend(stack.iter().filter_map(|&id| line_in(stacks, id, &file)));
            } else {
                let head = stacks.head(model, site.node);
                let direct = [head.python, head.made_in]
                    .into_iter()
                    .flatten()
                    .find_map(|id| line_in(stacks, id, &file));
                through.extend(direct);
            }
            for &line in &through {
                lines.entry(line).or_default().add(figures);
            }
        });

        let (text, source) = text_of(model, &file, on_disk);
        let mut sum = Figures::default();
        let mut rows: Vec<LineRow> = lines
            .into_iter()
            .map(|(line, figures)| {
                sum.add(&figures);
                LineRow {
                    line,
                    text: text.get(&line).cloned(),
                    figures,
                }
            })
            .collect();
        let total_rows = rows.len();
        let (measure, unit) = query.sort.unwrap_or((Measure::Live, Unit::Bytes));
        rows.sort_by_key(|row| {
            (
                std::cmp::Reverse(row.figures.measure(measure, unit)),
                row.line,
            )
        });
        let shown = query.limit.unwrap_or(total_rows).min(total_rows);
        let mut rest = Figures::default();
        for row in &rows[shown..] {
            rest.add(&row.figures);
        }
        rows.truncate(shown);
        if query.sort.is_none() {
            rows.sort_by_key(|row| row.line);
        }
        Lines {
            query,
            file,
            source,
            text,
            rows,
            total_rows,
            rest,
            sum,
        }
    }
}

fn ambiguous(file: &str, candidates: Vec<String>) -> LinesError {
    LinesError::Ambiguous {
        file: file.into(),
        candidates,
    }
}

fn line_in(stacks: &Stacks<'_>, id: FrameId, file: &str) -> Option<u32> {
    let frame = stacks.frame(id);
    (frame.line != 0 && stacks.name(frame.file) == file).then_some(frame.line)
}

/// Files in which something was made, most allocated bytes first.
fn files_that_allocated<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>) -> Vec<String> {
    let mut files: BTreeMap<String, u64> = BTreeMap::new();
    model.for_each_figures(&Span::whole(model), |_, site, figures| {
        let head = stacks.head(model, site.node);
        for id in [head.python, head.made_in].into_iter().flatten() {
            let file = stacks.name(stacks.frame(id).file);
            if !file.is_empty() {
                match files.get_mut(file) {
                    Some(bytes) => *bytes = bytes.saturating_add(figures.total_bytes),
                    None => {
                        files.insert(file.to_owned(), figures.total_bytes);
                    }
                }
            }
        }
    });
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    files.into_iter().map(|(file, _)| file).collect()
}

/// The text of a file's lines, and where it comes from.
fn text_of(
    model: &Model<'_>,
    file: &str,
    on_disk: Option<&str>,
) -> (BTreeMap<u32, String>, SourceFrom) {
    let recorded: BTreeMap<u32, String> = model
        .sources()
        .get(file)
        .map(|lines| {
            lines
                .iter()
                .map(|(line, text)| (*line, (*text).to_owned()))
                .collect()
        })
        .unwrap_or_default();
    let Some(on_disk) = on_disk else {
        let from = if recorded.is_empty() {
            SourceFrom::Nowhere
        } else {
            SourceFrom::Recording
        };
        return (recorded, from);
    };
    let on_disk: BTreeMap<u32, String> = (1..).zip(on_disk.lines().map(str::to_owned)).collect();
    let agrees = recorded.iter().all(|(line, text)| {
        on_disk
            .get(line)
            .is_some_and(|other| other.trim_end() == text.trim_end())
    });
    if agrees {
        (on_disk, SourceFrom::File)
    } else {
        (recorded, SourceFrom::RecordingOnly)
    }
}
