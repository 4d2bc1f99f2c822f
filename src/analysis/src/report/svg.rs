//! `flame`: who called whom, as a picture that a browser can zoom into.
//!
//! An icicle: callers above, calls below, as wide as they are heavy. It needs
//! nothing but itself: no network, no script to be seen at all.

use std::fmt::Write as _;
use std::io;

use crate::calls::{Calls, Weights};
use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::frame::{Frame, FrameKind, Role};
use crate::instant::Span;
use crate::model::Model;
use crate::names::base_name;
use crate::report::printable;
use crate::report::text::heading_lines;
use crate::report::words::{blocks, bytes, counted, signed_blocks, signed_bytes};
use crate::stack::Stacks;
use crate::top::Matching;

/// A question to `flame`.
#[derive(Clone, Debug)]
pub struct FlameQuery {
    /// When; between two instants, what changed is coloured.
    pub span: Span,
    /// What calls are weighed by.
    pub measure: Measure,
    /// In bytes or blocks.
    pub unit: Unit,
    /// From the innermost frame outwards.
    pub inverted: bool,
    /// Sites to keep.
    pub filter: Option<Filter>,
}

/// What was drawn, and what was too small to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Calls drawn.
    pub calls: usize,
    /// Calls left out.
    pub left_out: usize,
}

/// Most calls in a picture: some 5 MB.
const MOST_CALLS: usize = 20_000;
/// Width that it is laid out for; a script lays it out anew for the window.
const WIDTH: f64 = 1200.0;
const ROW: usize = 18;
/// Calls that would be narrower are left out.
const LEAST_WIDTH: f64 = 0.25;
/// Of a letter of the font.
const LETTER: f64 = 7.0;

/// Draws the picture.
///
/// # Errors
///
/// What writing gives.
pub fn flame<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    query: &FlameQuery,
    out: &mut dyn io::Write,
) -> io::Result<Drawn> {
    let figures = model.figures(&query.span);
    let mut matching = Matching::new(query.filter.as_ref());
    let is_wanted: Vec<bool> = model
        .sites()
        .iter()
        .map(|site| matching.site(model, stacks, site.node, site.process))
        .collect();
    let mut sum = Figures::default();
    for (figures, _) in figures
        .iter()
        .zip(&is_wanted)
        .filter(|(_, wanted)| **wanted)
    {
        sum.add(figures);
    }
    let calls = Calls::new(model, stacks, query.inverted);
    let sizes = |site: usize| {
        if is_wanted[site] {
            Sizes::of(&figures[site], query)
        } else {
            Sizes::default()
        }
    };
    let picture = Picture {
        widths: calls.weigh(|site| sizes(site).width),
        before: calls.weigh(|site| sizes(site).before),
        after: calls.weigh(|site| sizes(site).after),
        calls: &calls,
        stacks,
        query,
    };
    let (boxes, drawn) = picture.boxes();
    let head = heading_lines(model, &query.span, query.measure, &sum);
    picture.write(&boxes, drawn, &head, out)?;
    Ok(drawn)
}

/// What a site weighs.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    /// The larger of the two: what shrank to nothing is seen as well.
    width: i64,
    before: i64,
    after: i64,
}

impl Sizes {
    fn of(figures: &Figures, query: &FlameQuery) -> Self {
        if query.compares() {
            let after = figures.measure(Measure::Live, query.unit).max(0);
            let grown = figures.measure(Measure::Growth, query.unit);
            let before = after.saturating_sub(grown).max(0);
            Sizes {
                width: before.max(after),
                before,
                after,
            }
        } else {
            let size = figures.measure(query.measure, query.unit).max(0);
            Sizes {
                width: size,
                before: size,
                after: size,
            }
        }
    }
}

impl FlameQuery {
    fn compares(&self) -> bool {
        self.measure == Measure::Growth && self.span.from().is_some()
    }

    fn size(&self, size: i64) -> String {
        let size = u64::try_from(size).unwrap_or(0);
        match (self.measure, self.unit) {
            (Measure::Temporary, _) | (_, Unit::Blocks) => {
                format!(
                    "{} {}",
                    blocks(size),
                    if size == 1 { "block" } else { "blocks" }
                )
            }
            _ => bytes(size),
        }
    }

    fn change(&self, change: i64) -> String {
        match self.unit {
            Unit::Bytes => signed_bytes(change),
            Unit::Blocks => format!("{} blocks", signed_blocks(change)),
        }
    }
}

/// A call's place, as shares of the whole.
struct Place {
    call: Option<usize>,
    level: usize,
    start: f64,
    width: f64,
}

struct Picture<'p, 'a> {
    widths: Weights,
    before: Weights,
    after: Weights,
    calls: &'p Calls,
    stacks: &'p Stacks<'a>,
    query: &'p FlameQuery,
}

impl Picture<'_, '_> {
    /// What all calls weigh together, at the later instant.
    fn all(&self) -> i64 {
        let roots = (0..self.calls.len()).filter(|&call| self.calls.parent(call).is_none());
        roots
            .map(|call| self.after.total[call])
            .fold(0, i64::saturating_add)
    }

    /// The outermost box stands for all; callers come before what they call.
    fn boxes(&self) -> (Vec<Place>, Drawn) {
        let total = &self.widths.total;
        let roots = (0..self.calls.len()).filter(|&call| self.calls.parent(call).is_none());
        let all: i64 = roots.map(|call| total[call]).fold(0, i64::saturating_add);
        let mut boxes = vec![Place {
            call: None,
            level: 0,
            start: 0.0,
            width: 1.0,
        }];
        let weighing = (0..self.calls.len())
            .filter(|&call| total[call] > 0)
            .count();
        // Of each box: where the next of its calls begins.
        let mut next = vec![0.0];
        let mut box_of = vec![usize::MAX; self.calls.len()];
        // Parents come first in their order: so by level, then by weight.
        let mut chosen = self.calls.heaviest(&self.widths, MOST_CALLS);
        let mut level = vec![0_u32; self.calls.len()];
        for &call in &chosen {
            level[call] = 1 + self.calls.parent(call).map_or(0, |parent| level[parent]);
        }
        chosen.sort_by_key(|&call| (level[call], std::cmp::Reverse(total[call]), call));
        for call in chosen {
            let above = match self.calls.parent(call) {
                None => 0,
                Some(parent) => box_of[parent],
            };
            let width = total[call] as f64 / all as f64;
            if above == usize::MAX || width * WIDTH < LEAST_WIDTH {
                continue;
            }
            let start = next[above];
            next[above] += width;
            box_of[call] = boxes.len();
            next.push(start);
            boxes.push(Place {
                call: Some(call),
                level: level[call] as usize,
                start,
                width,
            });
        }
        let drawn = Drawn {
            calls: boxes.len() - 1,
            left_out: weighing - (boxes.len() - 1),
        };
        (boxes, drawn)
    }

    fn write(
        &self,
        boxes: &[Place],
        drawn: Drawn,
        head: &[String],
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let top = ROW * (head.len() + 1) + 14;
        let levels = boxes.iter().map(|one| one.level).max().unwrap_or(0) + 1;
        let height = top + levels * ROW + 3 * ROW;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" data-top=\"{top}\" data-row=\"{ROW}\">"
        )?;
        let title = head.first().map_or("", String::as_str);
        writeln!(out, "<title>leakline: {}</title>", xml(title))?;
        writeln!(out, "<style>{STYLE}</style>")?;
        writeln!(
            out,
            "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>"
        )?;
        for (line, text) in head.iter().enumerate() {
            let class = if line == 0 { "answer" } else { "trust" };
            let y = ROW * (line + 1);
            writeln!(
                out,
                "<text class=\"{class}\" x=\"10\" y=\"{y}\">{}</text>",
                xml(text)
            )?;
        }
        let y = ROW * (head.len() + 1);
        writeln!(
            out,
            "<text id=\"here\" class=\"trust\" x=\"10\" y=\"{y}\"> </text>"
        )?;
        writeln!(out, "<g id=\"calls\">")?;
        for one in boxes {
            self.write_box(one, top, out)?;
        }
        writeln!(out, "</g>")?;
        let y = top + levels * ROW + ROW + 4;
        let mut foot = String::new();
        if self.query.compares() {
            foot.push_str("red: grew, blue: shrank, as wide as the larger of the two; ");
        }
        if drawn.left_out > 0 {
            let left_out = counted(drawn.left_out as u64, "call", "calls");
            let _ = write!(foot, "{left_out} too small to be drawn; ");
        }
        foot.push_str("click: zoom, Esc: all, /: find");
        writeln!(
            out,
            "<text class=\"trust\" x=\"10\" y=\"{y}\">{foot}</text>"
        )?;
        writeln!(out, "<script><![CDATA[\n{SCRIPT}]]></script>\n</svg>")
    }

    fn write_box(&self, one: &Place, top: usize, out: &mut dyn io::Write) -> io::Result<()> {
        let (x, width) = (one.start * WIDTH, one.width * WIDTH);
        let y = top + one.level * ROW;
        let (class, label, facts) = match one.call {
            None => (
                "all",
                format!("all {}", self.query.size(self.all())),
                String::new(),
            ),
            Some(call) => {
                let frame = self.stacks.frame(self.calls.frame(call));
                (class(frame), self.label(frame), self.facts(call, frame))
            }
        };
        let style = match one.call {
            Some(call) if self.query.compares() => {
                format!(" style=\"fill:{}\"", self.colour(call))
            }
            _ => String::new(),
        };
        let room = ((width - 6.0) / LETTER).max(0.0) as usize;
        write!(
            out,
            "<g data-x=\"{:.7}\" data-w=\"{:.7}\" data-l=\"{}\"><title>{}{}</title>\
             <rect class=\"{class}\" x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\"{style}/>",
            one.start,
            one.width,
            one.level,
            xml(&label),
            xml(&facts),
            ROW - 1,
        )?;
        writeln!(
            out,
            "<text x=\"{:.2}\" y=\"{}\">{}</text></g>",
            x + 3.0,
            y + 13,
            xml(&cut(&label, room))
        )
    }

    /// `load_session app/sessions.py:41`.
    fn label(&self, frame: &Frame) -> String {
        let function = self.stacks.name(frame.function);
        let file = self.stacks.name(frame.file);
        if file.is_empty() {
            let module = base_name(self.stacks.name(frame.module));
            return if function.contains('+') || module.is_empty() {
                function.to_owned()
            } else {
                format!("{function} {module}")
            };
        }
        match frame.line {
            0 => format!("{function} {}", base_name(file)),
            line => format!("{function} {}:{line}", base_name(file)),
        }
    }

    fn facts(&self, call: usize, frame: &Frame) -> String {
        let mut facts = String::new();
        for name in [frame.file, frame.module] {
            if !name.is_empty() {
                let _ = write!(facts, "\n{}", self.stacks.name(name));
            }
        }
        let (total, own) = (self.after.total[call], self.after.own[call]);
        let _ = write!(facts, "\n{}", self.query.size(total));
        if own != total {
            let _ = write!(facts, ", {} of it in no further call", self.query.size(own));
        }
        if self.query.compares() {
            let before = self.before.total[call];
            let _ = write!(
                facts,
                "\n{} since then, when it was {}",
                self.query.change(total.saturating_sub(before)),
                self.query.size(before)
            );
        }
        facts
    }

    /// Red for growth, blue for shrinkage, the more so the larger its share.
    fn colour(&self, call: usize) -> String {
        let (before, after) = (self.before.total[call], self.after.total[call]);
        let most = before.max(after).max(1) as f64;
        let share = (after - before) as f64 / most;
        let hue = if share < 0.0 { 215 } else { 5 };
        let strength = share.abs().sqrt();
        format!(
            "hsl({hue},{:.0}%,{:.0}%)",
            strength * 75.0,
            88.0 - strength * 25.0
        )
    }
}

fn class(frame: &Frame) -> &'static str {
    match (frame.role, frame.kind) {
        (Role::Own, FrameKind::Python) => "own",
        (Role::Own, _) => "native",
        (Role::Library, _) => "library",
        _ => "other",
    }
}

/// As much of it as there is room for.
fn cut(text: &str, room: usize) -> String {
    if room < 3 {
        return String::new();
    }
    let mut letters = text.chars();
    let head: String = letters.by_ref().take(room).collect();
    match letters.next() {
        None => head,
        Some(_) => head.chars().take(room - 1).chain(['…']).collect(),
    }
}

/// Text for an element or an attribute.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            // No document may hold them.
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            other => escaped.push_str(&printable(other.encode_utf8(&mut [0; 4]))),
        }
    }
    escaped
}

const STYLE: &str = include_str!("flame.css");
const SCRIPT: &str = include_str!("flame.js");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{origin, training};

    fn picture(span: impl Fn(&Model<'_>) -> Span, measure: Measure, inverted: bool) -> String {
        let records = training();
        let model = Model::new(&records, origin());
        let mut stacks = Stacks::new(&model);
        let query = FlameQuery {
            span: span(&model),
            measure,
            unit: Unit::Bytes,
            inverted,
            filter: None,
        };
        let mut out = Vec::new();
        let drawn = flame(&model, &mut stacks, &query, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("<g data-x").count(), drawn.calls + 1);
        text
    }

    /// The boxes: start, width, level, name.
    fn boxes(picture: &str) -> Vec<(f64, f64, usize, String)> {
        let part = |line: &str, from: &str, to: &str| {
            let rest = line.split(from).nth(1).unwrap();
            rest.split(to).next().unwrap().to_owned()
        };
        picture
            .lines()
            .filter(|line| line.starts_with("<g data-x"))
            .map(|line| {
                (
                    part(line, "data-x=\"", "\"").parse().unwrap(),
                    part(line, "data-w=\"", "\"").parse().unwrap(),
                    part(line, "data-l=\"", "\"").parse().unwrap(),
                    part(line, "<title>", "<")
                        .lines()
                        .next()
                        .unwrap()
                        .to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn calls_lie_within_their_callers_and_beside_each_other() {
        for inverted in [false, true] {
            let text = picture(Span::usual, Measure::Live, inverted);
            let all = boxes(&text);
            assert!(all.len() > 3);
            for (i, (start, width, level, _)) in all.iter().enumerate() {
                let is_above = |(x, w, l, _): &(f64, f64, usize, String)| {
                    l + 1 == *level && *x <= start + 1e-6 && x + w >= start + width - 1e-6
                };
                assert!(*level == 0 || all.iter().any(is_above));
                let overlaps = |(x, w, l, _): &(f64, f64, usize, String)| {
                    l == level && *x < start + width - 1e-6 && x + w > start + 1e-6
                };
                assert!(!all[i + 1..].iter().any(overlaps));
            }
        }
    }

    #[test]
    fn a_picture_of_a_change_is_coloured() {
        let span = |model: &Model<'_>| {
            Span::between(model, &crate::Instant::Start, &crate::Instant::End).unwrap()
        };
        let text = picture(span, Measure::Growth, false);
        assert!(text.contains("fill:hsl(5,"));
        assert!(text.contains("since then, when it was 0 B"));
        assert!(!picture(Span::usual, Measure::Live, false).contains("fill:hsl"));
    }

    #[test]
    fn names_cannot_break_the_document() {
        assert_eq!(xml("a<b>&\"\u{1b}"), "a&lt;b&gt;&amp;&quot;?");
        assert_eq!(cut("load_session", 8), "load_se…");
        assert_eq!(cut("load", 4), "load");
        assert_eq!(cut("load", 2), "");
    }
}
