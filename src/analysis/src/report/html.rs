//! A recording as one page for a browser: timeline, sites, flame, and the
//! difference between any two instants. It needs nothing but itself.
//!
//! # Invariants
//!
//! * Nothing in a recording can break out of its place: the data is JSON
//!   without `<`, and the script sets texts, never markup.
//! * At every instant the sites and `rest` add up to the whole.
//! * At most `MOST_BYTES` of names and series, and a fixed rest: below 10 MB.

use std::cmp::Reverse;
use std::io;

use leakline_recording::record::{Domain, Mark};
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::FrameId;
use crate::figures::{Figures, Measure, Unit};
use crate::frame::Role;
use crate::groups::Groups;
use crate::instant::{Instant, Span};
use crate::kinds::Sums;
use crate::model::Model;
use crate::report::export::{Exported, Selection};
use crate::report::printable;
use crate::report::text::frame_words;
use crate::report::words::counted;
use crate::stack::Stacks;
use crate::top::GroupBy;
use crate::tree::path_of;

/// Bytes of sites and their stacks.
const MOST_BYTES: usize = 8_000_000;
/// Most sites: more are no help, and slow to move through.
const MOST_SITES: usize = 5000;
/// Instants at which every site is known, beside marks.
const STATES: u64 = 150;
/// So many exact ones do without others.
const ENOUGH_STATES: usize = 20;
/// Marks that are instants of their own.
const MOST_MARKS: usize = 50;
/// Steps of the timeline.
const STEPS: usize = 600;

/// What the script reads. Times are in milliseconds since the start.
#[derive(Serialize)]
struct Data {
    /// Milliseconds of its first day at which the recording starts, local time.
    clock_ms: u64,
    duration_ms: f64,
    states: Vec<State>,
    /// Places in `states`.
    from: usize,
    to: usize,
    compare: bool,
    blocks: bool,
    filtered: bool,
    sort: &'static str,
    timeline: Vec<Step>,
    marks: Vec<MarkAt>,
    texts: Vec<String>,
    /// Texts of function and place, then of file and module, line, and class.
    frames: Vec<[u32; 6]>,
    /// Of each call the one that made it, 0 for none, and its frame. Number 0
    /// stands for all.
    calls: Vec<[u32; 2]>,
    sites: Vec<Box<RawValue>>,
    rest: Vec<i64>,
    rest_sites: usize,
    rest_figures: RestFigures,
    notes: Vec<String>,
}

/// An instant at which every site is known.
#[derive(Serialize)]
struct State {
    ms: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// Bytes and blocks live, where those of its sites may lack changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    inexact: Option<[u64; 2]>,
}

/// A step of the timeline: when it ends, what was live then, the most within.
#[derive(Serialize)]
struct Step(f64, u64, u64);

#[derive(Serialize)]
struct MarkAt {
    ms: f64,
    name: String,
}

/// A row of the table.
#[derive(Serialize)]
struct SiteRow {
    /// Its innermost call.
    call: u32,
    domain: &'static str,
    /// Frames; left out where there is none, or it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yours: Option<u32>,
    peak: [u64; 2],
    total: [u64; 2],
    temporary: u64,
    /// States on, bytes, blocks: of each change.
    series: Vec<i64>,
}

/// What the rest has beside its series.
#[derive(Default, Serialize)]
struct RestFigures {
    peak: [u64; 2],
    total: [u64; 2],
    temporary: u64,
}

/// Where a state comes from.
enum Source {
    Start,
    Bin(usize),
    /// An instant that no bin ends at.
    Span(Span),
}

/// Writes the page.
///
/// # Errors
///
/// What writing gives.
pub fn page<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    selection: &Selection,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    page_within(model, stacks, selection, MOST_BYTES, out)
}

fn page_within<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    selection: &Selection,
    most_bytes: usize,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    let (states, sources, from, to) = states(model, selection);
    let groups = Groups::new(model, &selection.kinds, stacks, GroupBy::Site, false);
    let mut series = Series {
        model,
        selection,
        groups: &groups,
        sources: &sources,
    };
    // Which sites to tell has to be known before their series are kept.
    let mut most = vec![0_i64; groups.groups().len()];
    let mut all = Vec::with_capacity(states.len());
    series.for_each(|bytes, blocks| {
        for (most, &bytes) in most.iter_mut().zip(bytes) {
            *most = bytes.max(*most);
        }
        let sum = |of: &[i64]| of.iter().fold(0_i64, |sum, &one| sum.saturating_add(one));
        all.push([sum(bytes), sum(blocks)]);
    });
    let figures = groups.own(&selection.sums);
    let weight = |group: usize| {
        let asked = figures[group].measure(selection.measure, selection.unit);
        most[group].max(asked.saturating_abs())
    };
    let mut chosen: Vec<usize> = (0..most.len())
        .filter(|&group| weight(group) != 0 || figures[group].total_bytes != 0)
        .collect();
    let there_are = chosen.len();
    chosen.sort_by_key(|&group| {
        let total = figures[group].total_bytes;
        (Reverse(weight(group)), Reverse(total), group)
    });
    let most_sites = selection.limit.unwrap_or(MOST_SITES).min(MOST_SITES);
    chosen.truncate(most_sites);
    let mut kept: Vec<Vec<[i64; 2]>> = vec![Vec::with_capacity(states.len()); chosen.len()];
    series.for_each(|bytes, blocks| {
        for (kept, &group) in kept.iter_mut().zip(&chosen) {
            kept.push([bytes[group], blocks[group]]);
        }
    });

    let mut interned = Interned::default();
    let mut sites = Vec::new();
    let mut rest = all;
    let mut site_bytes = 0;
    for (&group, series) in chosen.iter().zip(&kept) {
        let row = interned.row(model, stacks, &groups, group, &figures[group], series);
        let row = to_raw_value(&row).map_err(io::Error::from)?;
        site_bytes += row.get().len() + 1;
        if site_bytes + interned.bytes > most_bytes {
            break;
        }
        for (rest, values) in rest.iter_mut().zip(series) {
            rest[0] = rest[0].saturating_sub(values[0]);
            rest[1] = rest[1].saturating_sub(values[1]);
        }
        sites.push(row);
    }
    let exported = Exported {
        stacks: sites.len(),
        left_out: there_are - sites.len(),
    };
    let data = Data {
        clock_ms: clock_ms(model),
        duration_ms: ms(model.duration_ns()),
        states,
        from,
        to,
        compare: selection.span.from().is_some(),
        blocks: selection.unit == Unit::Blocks,
        filtered: selection.is_filtered,
        sort: match selection.measure {
            Measure::Live | Measure::Growth => "value",
            Measure::Total => "total",
            Measure::Peak => "peak",
            Measure::Temporary => "temporary",
        },
        timeline: timeline(model),
        marks: marks(model),
        texts: interned.texts,
        frames: interned.frames,
        calls: interned.calls,
        sites,
        rest: changes(&rest),
        rest_sites: exported.left_out,
        rest_figures: rest_figures(&figures, &chosen[..exported.stacks]),
        notes: notes(model, selection, exported),
    };
    write(&data, &selection.heading(model), out)?;
    Ok(exported)
}

fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

/// Milliseconds after midnight, local time, at which the recording starts.
fn clock_ms(model: &Model<'_>) -> u64 {
    const DAY_MS: i64 = 86_400_000;
    let started = model.session().map_or(0, |session| session.started_unix_ns);
    let started = i64::try_from(started / 1_000_000).unwrap_or(0);
    let offset = i64::from(model.origin().utc_offset_seconds) * 1000;
    started.saturating_add(offset).rem_euclid(DAY_MS) as u64
}

/// The instants, with the places of those that were asked for.
fn states(model: &Model<'_>, selection: &Selection) -> (Vec<State>, Vec<Source>, usize, usize) {
    let ends = model.bin_ends();
    let last = ends.len().checked_sub(1);
    let is_exact = |bin: usize| model.bins()[bin].complete;
    let mut bins: Vec<usize> = Vec::new();
    let bin_at = |ns: u64| ends.partition_point(|&end| end <= ns).checked_sub(1);
    let mut begin = 0;
    for step in 1..=STATES {
        let until = u128::from(model.duration_ns()) * u128::from(step) / u128::from(STATES);
        let end = ends.partition_point(|&end| u128::from(end) <= until);
        let exact = (begin..end).rev().find(|&bin| is_exact(bin));
        bins.extend(exact.or((begin..end).next_back()));
        begin = end;
    }
    for mark in shown_marks(model) {
        bins.extend(bin_at(mark.at_ns));
    }
    // Where many sites are small, most of what they hold is told by exact bins only.
    if bins.iter().filter(|&&bin| is_exact(bin)).count() >= ENOUGH_STATES {
        bins.retain(|&bin| is_exact(bin));
    }
    bins.extend(last);
    let mut spans = Vec::new();
    let mut asked = |at: Option<Span>| -> Option<usize> {
        let span = at?;
        let to = *span.to();
        match to.bin() {
            Some(bin) if !to.is_peak() && !span.is_as_each_left() => {
                bins.push(bin);
                None
            }
            None => None,
            Some(_) => {
                let known = spans.iter().position(|known: &Span| known.to() == &to);
                Some(known.unwrap_or_else(|| {
                    spans.push(span);
                    spans.len() - 1
                }))
            }
        }
    };
    let to = asked(Some(selection.span.only_to()));
    let from = asked(selection.span.only_from());
    asked(Span::at(model, &Instant::Peak).ok());
    bins.sort_unstable();
    bins.dedup();

    let name_of = |bin: usize| {
        let marks = model
            .marks()
            .iter()
            .filter(|mark| bin_at(mark.at_ns) == Some(bin));
        let mut names: Vec<String> = marks
            .filter(|mark| mark.at_ns == ends[bin])
            .map(|mark| visible(&mark.name))
            .collect();
        names.dedup();
        names.truncate(3);
        if Some(bin) == last {
            names.push("end".into());
        }
        names.join(", ")
    };
    let mut all = vec![(0, 0_usize, Source::Start, "start".to_owned(), true)];
    for bin in bins {
        all.push((ends[bin], 1, Source::Bin(bin), name_of(bin), is_exact(bin)));
    }
    for (number, span) in spans.iter().enumerate() {
        let at = span.to();
        let name = match (at.is_peak(), Some(number) == to) {
            (true, _) => "high-water mark",
            (false, true) => "each process when it left __main__ or ended",
            (false, false) => "",
        };
        let source = Source::Span(*span);
        let exact = at.exact();
        all.push((at.resolved_ns(), 2 + number, source, name.into(), exact));
    }
    // What the high-water mark is within ends later, or with it.
    all.sort_by_key(|&(ns, order, ..)| (ns, order));
    let place = |asked: Option<usize>, at: Option<&crate::At>| {
        let wanted = |(_, order, source, ..): &(u64, usize, Source, String, bool)| match asked {
            Some(number) => *order == 2 + number,
            None => match (source, at.and_then(crate::At::bin)) {
                (Source::Bin(bin), Some(wanted)) => *bin == wanted,
                (Source::Start, None) => true,
                _ => false,
            },
        };
        all.iter().position(wanted).unwrap_or(0)
    };
    let (from, to) = (
        place(from, selection.span.from()),
        place(to, Some(selection.span.to())),
    );
    let (mut states, mut sources) = (Vec::new(), Vec::new());
    for (ns, _, source, name, exact) in all {
        states.push(State {
            ms: ms(ns),
            name,
            inexact: if exact { None } else { whole(model, &source) },
        });
        sources.push(source);
    }
    (states, sources, from, to)
}

/// Bytes and blocks that the session held then, whatever is known of its sites.
fn whole(model: &Model<'_>, source: &Source) -> Option<[u64; 2]> {
    let bin = match source {
        Source::Start => None,
        Source::Bin(bin) => Some(*bin),
        Source::Span(span) if span.to().is_peak() => {
            let peak = model.high_water();
            return Some([peak.bytes, peak.blocks]);
        }
        Source::Span(span) => span.to().bin(),
    };
    let bin = model.bins()[bin?];
    Some([bin.live_bytes, bin.live_blocks])
}

/// Live bytes and blocks of all groups, state by state.
struct Series<'s, 'a> {
    model: &'s Model<'a>,
    selection: &'s Selection,
    groups: &'s Groups,
    sources: &'s [Source],
}

impl Series<'_, '_> {
    fn for_each(&mut self, mut each: impl FnMut(&[i64], &[i64])) {
        let kinds = &self.selection.kinds;
        let (mut bytes, mut blocks) = (kinds.none::<i64>(), kinds.none::<i64>());
        let mut next = 0;
        for source in self.sources {
            let of_span = match source {
                Source::Start => None,
                Source::Bin(bin) => {
                    while next <= *bin {
                        self.model.for_each_point(next, |point| {
                            if let Some(kind) = self.kind(point.site) {
                                let (bytes, blocks) =
                                    (&mut bytes.of_kind[kind], &mut blocks.of_kind[kind]);
                                *bytes = bytes.wrapping_add(point.live_bytes);
                                *blocks = blocks.wrapping_add(point.live_blocks);
                            }
                        });
                        next += 1;
                    }
                    None
                }
                Source::Span(span) => Some(self.of_span(span)),
            };
            let (bytes, blocks) = of_span.as_ref().map_or((&bytes, &blocks), |(a, b)| (a, b));
            each(&self.groups.weigh(bytes), &self.groups.weigh(blocks));
        }
    }

    /// The kind of a site that was asked for.
    fn kind(&self, site: u32) -> Option<usize> {
        let is_wanted = self.selection.is_wanted.get(site as usize) == Some(&true);
        self.selection.kinds.of_site(site).filter(|_| is_wanted)
    }

    fn of_span(&self, span: &Span) -> (Sums<i64>, Sums<i64>) {
        let kinds = &self.selection.kinds;
        let (mut bytes, mut blocks) = (kinds.none::<i64>(), kinds.none::<i64>());
        self.model.for_each_figures(span, |site, _, figures| {
            if let Some(kind) = self.kind(site) {
                let (bytes, blocks) = (&mut bytes.of_kind[kind], &mut blocks.of_kind[kind]);
                *bytes = bytes.saturating_add(figures.live_bytes);
                *blocks = blocks.saturating_add(figures.live_blocks);
            }
        });
        (bytes, blocks)
    }
}

fn rest_figures(groups: &[Figures], told: &[usize]) -> RestFigures {
    let mut is_told = vec![false; groups.len()];
    for &group in told {
        is_told[group] = true;
    }
    let mut sum = Figures::default();
    for (figures, _) in groups.iter().zip(is_told).filter(|(_, told)| !told) {
        sum.add(figures);
    }
    RestFigures {
        peak: [sum.peak_bytes, sum.peak_blocks],
        total: [sum.total_bytes, sum.total_blocks],
        temporary: sum.temporary_blocks,
    }
}

/// States on, bytes, blocks: of each change.
fn changes(values: &[[i64; 2]]) -> Vec<i64> {
    let mut changes = Vec::new();
    let (mut last, mut last_at) = ([0, 0], 0);
    for (at, &now) in values.iter().enumerate() {
        if now != last {
            changes.extend([(at - last_at) as i64, now[0], now[1]]);
            (last, last_at) = (now, at);
        }
    }
    changes
}

/// Texts, frames and calls that rows refer to, each once.
struct Interned {
    texts: Vec<String>,
    frames: Vec<[u32; 6]>,
    calls: Vec<[u32; 2]>,
    text_numbers: FxHashMap<String, u32>,
    frame_numbers: FxHashMap<FrameId, u32>,
    call_numbers: FxHashMap<[u32; 2], u32>,
    path: Vec<FrameId>,
    /// About what they take in the page.
    bytes: usize,
}

impl Default for Interned {
    fn default() -> Self {
        Interned {
            texts: Vec::new(),
            frames: Vec::new(),
            calls: vec![[0, 0]],
            text_numbers: FxHashMap::default(),
            frame_numbers: FxHashMap::default(),
            call_numbers: FxHashMap::default(),
            path: Vec::new(),
            bytes: 0,
        }
    }
}

impl Interned {
    fn row<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        groups: &Groups,
        group: usize,
        figures: &Figures,
        series: &[[i64; 2]],
    ) -> SiteRow {
        let group = &groups.groups()[group];
        let site = group.site.and_then(|site| model.sites().get(site as usize));
        let node = site.map_or(0, |site| site.node);
        let yours = group
            .head
            .your_code
            .filter(|own| Some(*own) != group.head.made_in);
        SiteRow {
            call: self.call(model, stacks, node),
            domain: group.domain.map_or("", Domain::name),
            made: group.head.made_in.map(|id| self.frame(stacks, id)),
            yours: yours.map(|id| self.frame(stacks, id)),
            peak: [figures.peak_bytes, figures.peak_blocks],
            total: [figures.total_bytes, figures.total_blocks],
            temporary: figures.temporary_blocks,
            series: changes(series),
        }
    }

    fn call<'a>(&mut self, model: &Model<'a>, stacks: &mut Stacks<'a>, node: u32) -> u32 {
        let mut path = std::mem::take(&mut self.path);
        path_of(model, stacks, node, false, false, &mut path);
        let mut call = 0;
        for &frame in &path {
            let key = [call, self.frame(stacks, frame)];
            call = *self.call_numbers.entry(key).or_insert_with(|| {
                self.calls.push(key);
                self.bytes += 16;
                u32::try_from(self.calls.len() - 1).unwrap_or(0)
            });
        }
        self.path = path;
        call
    }

    fn frame(&mut self, stacks: &Stacks<'_>, id: FrameId) -> u32 {
        if let Some(&known) = self.frame_numbers.get(&id) {
            return known;
        }
        let frame = stacks.frame(id);
        let (function, place) = frame_words(stacks, id);
        let class = match frame.role {
            Role::Own => 0,
            Role::Library => 1,
            _ => 2,
        };
        let told = [
            self.text(&function),
            self.text(&place),
            self.text(stacks.name(frame.file)),
            self.text(stacks.name(frame.module)),
            frame.line,
            class,
        ];
        self.frames.push(told);
        self.bytes += 40;
        let number = u32::try_from(self.frames.len() - 1).unwrap_or(0);
        self.frame_numbers.insert(id, number);
        number
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.text_numbers.get(text) {
            return known;
        }
        let shown = visible(text);
        // As JSON, `<` takes six.
        let longer = shown.bytes().filter(|byte| b"<\"\\".contains(byte)).count();
        self.bytes += shown.len() + 5 * longer + 3;
        self.texts.push(shown);
        let number = u32::try_from(self.texts.len() - 1).unwrap_or(0);
        self.text_numbers.insert(text.to_owned(), number);
        number
    }
}

/// Text that cannot make its surroundings read otherwise.
fn visible(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    printable(text).replace(turns, "?")
}

fn timeline(model: &Model<'_>) -> Vec<Step> {
    let ends = model.bin_ends();
    let mut steps: Vec<Step> = Vec::new();
    let mut last_step = None;
    for (bin, &end) in model.bins().iter().zip(ends) {
        let duration = u128::from(model.duration_ns().max(1));
        let step = u128::from(end) * STEPS as u128 / duration;
        let most = bin.max_bytes.max(bin.live_bytes);
        match steps.last_mut() {
            Some(last) if last_step == Some(step) => {
                *last = Step(ms(end), bin.live_bytes, most.max(last.2));
            }
            _ => steps.push(Step(ms(end), bin.live_bytes, most)),
        }
        last_step = Some(step);
    }
    steps
}

/// Those of the session and of the program that was recorded first, where there are many.
fn shown_marks<'a>(model: &Model<'a>) -> Vec<&'a Mark> {
    let first = model.first_process();
    let of_others = |mark: &&Mark| {
        mark.process
            .is_some_and(|process| Some(process as usize) != first)
    };
    let mut marks = model.marks().to_vec();
    // Stable: in their order otherwise.
    marks.sort_by_key(of_others);
    marks.truncate(MOST_MARKS);
    marks
}

fn marks(model: &Model<'_>) -> Vec<MarkAt> {
    let peak = model.high_water();
    let mut marks: Vec<MarkAt> = shown_marks(model)
        .into_iter()
        .map(|mark| MarkAt {
            ms: ms(mark.at_ns),
            name: visible(&mark.name),
        })
        .collect();
    marks.push(MarkAt {
        ms: ms(peak.at_ns),
        name: "high-water mark".into(),
    });
    marks
}

/// What a reader has to know, a sentence each.
fn notes(model: &Model<'_>, selection: &Selection, exported: Exported) -> Vec<String> {
    let mut notes = Vec::new();
    if model.is_sampled() {
        notes.push(
            "All figures are estimates from a sample; the reports of `leakline` say how far each \
             may be off."
                .into(),
        );
    }
    if exported.left_out > 0 {
        notes.push(format!(
            "The {} that held most are told one by one; {} more are summed up as the rest.",
            counted(exported.stacks as u64, "site", "sites"),
            counted(exported.left_out as u64, "site", "sites"),
        ));
    }
    if selection.is_filtered {
        notes.push("Only sites that match the filter given to export are in this page.".into());
    }
    let marks = model.marks().len();
    if marks > MOST_MARKS {
        let more = counted((marks - MOST_MARKS) as u64, "mark is", "marks are");
        notes.push(format!("{more} not shown."));
    }
    let end = model.duration_ns();
    let is_over = |end_ns: u64| end_ns < end;
    if model.processes().len() > 1
        && (model.processes().iter()).any(|facts| facts.end.is_some_and(|end| is_over(end.at_ns)))
    {
        notes.push(
            "Of a process that had ended, sites are shown as they were at its end; the timeline \
             is without them."
                .into(),
        );
    }
    notes.extend(model.notes().iter().map(|note| visible(&note.text)));
    notes.extend(model.origin().warnings.iter().map(|text| visible(text)));
    notes.dedup();
    notes
}

/// Fills the page.
fn write(data: &Data, head: &[String], out: &mut dyn io::Write) -> io::Result<()> {
    let title = head.first().map_or("", String::as_str);
    for (text, name) in pieces(PAGE) {
        out.write_all(text.as_bytes())?;
        match name {
            "title" => out.write_all(markup(title).as_bytes())?,
            "style" => out.write_all(STYLE.as_bytes())?,
            "script" => out.write_all(SCRIPT.as_bytes())?,
            "trust" => {
                for line in head.iter().skip(1) {
                    writeln!(out, "<p class=\"trust\">{}</p>", markup(line))?;
                }
            }
            "data" => serde_json::to_writer(Inert(&mut *out), data).map_err(io::Error::from)?,
            _ => {}
        }
    }
    Ok(())
}

/// The page's texts, each with the name of what follows it.
fn pieces(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split("}}")
        .map(|piece| piece.split_once("{{").unwrap_or((piece, "")))
}

/// Text for an element.
fn markup(text: &str) -> String {
    let text = visible(text);
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Writes JSON in which no markup can begin.
struct Inert<'o>(&'o mut dyn io::Write);

impl io::Write for Inert<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for (at, piece) in bytes.split(|&byte| byte == b'<').enumerate() {
            if at > 0 {
                // Only texts have it, and those may be written so.
                self.0.write_all(b"\\u003c")?;
            }
            self.0.write_all(piece)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use leakline_recording::record::Record;
    use serde_json::Value;

    use super::*;
    use crate::testing::{Builder, SECOND, counters, origin, training};

    fn page_of(records: &[Record], most_bytes: usize) -> (String, Exported) {
        let model = Model::new(records, origin());
        let mut stacks = Stacks::new(&model);
        let span = Span::usual(&model);
        let asked = (Measure::Live, Unit::Bytes);
        let selection = Selection::new(&model, &mut stacks, span, asked, None);
        let mut out = Vec::new();
        let exported = page_within(&model, &mut stacks, &selection, most_bytes, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), exported)
    }

    fn data(page: &str) -> Value {
        let start = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
        let end = start + page[start..].find("</script>").unwrap();
        serde_json::from_str(&page[start..end]).unwrap()
    }

    /// Bytes at a state, of all sites and the rest.
    fn held(data: &Value, state: usize) -> i64 {
        let of = |series: &Value| {
            let numbers: Vec<i64> = series
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one.as_i64().unwrap())
                .collect();
            let (mut at, mut held) = (0, 0);
            for change in numbers.chunks(3) {
                at += change[0] as usize;
                if at <= state {
                    held = change[1];
                }
            }
            held
        };
        let sites = data["sites"].as_array().unwrap();
        sites.iter().map(|site| of(&site["series"])).sum::<i64>() + of(&data["rest"])
    }

    /// Sites that hold 1 to `count` bytes, with names that take room.
    fn many_sites(count: u32) -> Vec<Record> {
        let mut b = Builder::new(&["many"]);
        let process = b.process(1, &["many"]);
        let mut held = Vec::new();
        let mut code = 0;
        for number in 0..count {
            if number % 10 == 0 {
                let name = format!("{}{number}", "<very>\"long\"".repeat(20));
                code = b.code("/srv/app/generated.py", &name, 1);
            }
            let node = b.python(0, code, number % 10, true);
            let site = b.site(process, node, Domain::Obj);
            let bytes = u64::from(number) + 1;
            held.push((site, counters(bytes, 1, bytes, 1)));
        }
        b.bin(SECOND, &held);
        b.end(SECOND);
        b.records
    }

    #[test]
    fn sites_add_up_to_the_whole_at_every_instant() {
        let records = training();
        let model = Model::new(&records, origin());
        for most_bytes in [MOST_BYTES, 900, 0] {
            let (page, exported) = page_of(&records, most_bytes);
            assert!(!page.contains("{{"));
            let data = data(&page);
            assert_eq!(exported.left_out > 0, most_bytes < MOST_BYTES);
            assert_eq!(data["rest_sites"], exported.left_out);
            let states = data["states"].as_array().unwrap();
            assert!(states.len() > 4);
            for (at, state) in states.iter().enumerate() {
                let ns = (state["ms"].as_f64().unwrap() * 1e6) as u64;
                let span = match state["name"].as_str() {
                    Some("high-water mark") => Span::at(&model, &Instant::Peak),
                    _ => Span::at(&model, &Instant::After(ns)),
                };
                let figures = model.figures(&span.unwrap());
                let expected: i64 = figures.iter().map(|one| one.live_bytes).sum();
                assert_eq!(held(&data, at), expected, "{state}");
            }
            let to = data["to"].as_u64().unwrap() as usize;
            assert_eq!(states[to]["name"], "main left");
        }
    }

    #[test]
    fn a_page_of_many_sites_is_cut_and_says_so() {
        let records = many_sites(20_000);
        let (page, exported) = page_of(&records, 1_000_000);
        assert!(page.len() < 1_200_000, "{}", page.len());
        assert!(exported.stacks > 1000);
        assert_eq!(exported.stacks + exported.left_out, 20_000);
        let data = data(&page);
        assert_eq!(
            held(&data, data["to"].as_u64().unwrap() as usize),
            200_010_000
        );
        let notes = data["notes"].to_string();
        assert!(notes.contains("are summed up as the rest"), "{notes}");
    }

    #[test]
    fn a_page_of_a_million_sites_is_below_10_mb() {
        let (page, exported) = page_of(&many_sites(1_000_000), MOST_BYTES);
        assert!(page.len() < 10_000_000, "{}", page.len());
        assert_eq!(exported.left_out, 1_000_000 - exported.stacks);
    }

    #[test]
    fn nothing_breaks_out_of_the_page() {
        const EVIL: &str = "</script><script>alert(1)</script><!--<b>&\u{202e}\u{1b}";
        let mut b = Builder::new(&[EVIL]);
        let process = b.process(1, &[EVIL]);
        let code = b.code(EVIL, EVIL, 1);
        let node = b.python(0, code, 0, true);
        let site = b.site(process, node, Domain::Obj);
        b.mark(EVIL, SECOND, process);
        b.bin(SECOND, &[(site, counters(5, 1, 5, 1))]);
        b.end(SECOND);
        let (page, _) = page_of(&b.records, MOST_BYTES);
        assert_eq!(page.matches("</script>").count(), 2);
        assert_eq!(page.matches("<!--").count(), 0);
        assert!(!page.contains(['\u{202e}', '\u{1b}']));
        let texts = data(&page)["texts"].to_string();
        assert!(texts.contains("</script><script>alert(1)"), "{texts}");
    }
}
