//! A profile for pprof and what reads its files: `profile.proto`, gzipped.
//!
//! # Invariants
//!
//! * A sample is a site; its values are those of Go's heap profiles, in their
//!   order: allocated objects and bytes, live objects and bytes. Between two
//!   instants live ones are the change, and may be negative.
//! * Functions inlined into each other are lines of one location, the callee
//!   first.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use indexmap::{IndexMap, IndexSet};
use leakline_recording::record::Domain;
use rustc_hash::FxBuildHasher;

use crate::figures::{Figures, Measure, Unit};
use crate::frame::{Frame, FrameKind};
use crate::model::Model;
use crate::names::Name;
use crate::report::export::{Exported, Selection};
use crate::stack::Stacks;

// Fields of the messages, by their numbers in `profile.proto`.
mod profile {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const MAPPING: u64 = 3;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const FUNCTION: u64 = 5;
    pub(super) const STRING_TABLE: u64 = 6;
    pub(super) const TIME_NANOS: u64 = 9;
    pub(super) const DURATION_NANOS: u64 = 10;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const COMMENT: u64 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u64 = 14;
}
mod value_type {
    pub(super) const TYPE: u64 = 1;
    pub(super) const UNIT: u64 = 2;
}
mod sample {
    pub(super) const LOCATION_ID: u64 = 1;
    pub(super) const VALUE: u64 = 2;
    pub(super) const LABEL: u64 = 3;
}
mod label {
    pub(super) const KEY: u64 = 1;
    pub(super) const STR: u64 = 2;
}
mod mapping {
    pub(super) const ID: u64 = 1;
    pub(super) const FILENAME: u64 = 5;
    pub(super) const BUILD_ID: u64 = 6;
    pub(super) const HAS_FUNCTIONS: u64 = 7;
    pub(super) const HAS_FILENAMES: u64 = 8;
    pub(super) const HAS_LINE_NUMBERS: u64 = 9;
    pub(super) const HAS_INLINE_FRAMES: u64 = 10;
}
mod location {
    pub(super) const ID: u64 = 1;
    pub(super) const MAPPING_ID: u64 = 2;
    pub(super) const LINE: u64 = 4;
}
mod line {
    pub(super) const FUNCTION_ID: u64 = 1;
    pub(super) const LINE: u64 = 2;
}
mod function {
    pub(super) const ID: u64 = 1;
    pub(super) const NAME: u64 = 2;
    pub(super) const SYSTEM_NAME: u64 = 3;
    pub(super) const FILENAME: u64 = 4;
}

/// Writes the profile.
///
/// # Errors
///
/// What writing gives.
pub fn pprof<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    selection: &Selection,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    let mut writer = Writer {
        out: GzEncoder::new(out, Compression::default()),
        texts: IndexSet::default(),
        functions: IndexSet::default(),
        locations: IndexSet::default(),
        mappings: IndexMap::default(),
    };
    // The text of number 0 has to be this.
    writer.text("");
    let types = writer.types(selection)?;
    let (chosen, rest) = chosen(selection, &types);
    let exported = Exported {
        stacks: chosen.len(),
        left_out: rest.len(),
    };
    let mut locations = Vec::new();
    for site in chosen {
        let recorded = model.sites()[site];
        writer.stack(model, stacks, recorded.node, &mut locations);
        let process = model.processes().get(recorded.process as usize);
        let pid = process.map_or(0, |facts| facts.process.pid);
        let values = types.iter().map(|one| one.of(&selection.figures[site]));
        writer.sample(&locations, values, Some((recorded.domain, pid)))?;
    }
    if !rest.is_empty() {
        let mut sum = Figures::default();
        for &site in &rest {
            sum.add(&selection.figures[site]);
        }
        let rest = stacks.rest();
        let function = writer.functions.insert_full((rest, Name::EMPTY)).0;
        let id = writer.location(0, vec![(function as u64 + 1, 0)]);
        let values = types.iter().map(|one| one.of(&sum));
        writer.sample(&[id], values, None)?;
    }
    writer.finish(model, stacks, selection)?;
    Ok(exported)
}

/// The sites to tell, the heaviest first, and those to sum up.
fn chosen(selection: &Selection, types: &[SampleType]) -> (Vec<usize>, Vec<usize>) {
    let mut chosen: Vec<usize> = (0..selection.figures.len())
        .filter(|&site| {
            types
                .iter()
                .any(|one| one.of(&selection.figures[site]) != 0)
        })
        .collect();
    chosen.sort_by_key(|&site| {
        (
            Reverse(selection.weight(&selection.figures[site]).unsigned_abs()),
            site,
        )
    });
    let rest = chosen.split_off(selection.limit.unwrap_or(usize::MAX).min(chosen.len()));
    (chosen, rest)
}

/// A value of each sample.
struct SampleType {
    measure: Measure,
    unit: Unit,
}

impl SampleType {
    fn of(&self, figures: &Figures) -> i64 {
        figures.measure(self.measure, self.unit)
    }
}

/// Lines of a location: function's and line's numbers, the callee first.
type LineNumbers = Vec<(u64, u32)>;

struct Writer<'o> {
    out: GzEncoder<&'o mut dyn io::Write>,
    texts: IndexSet<String, FxBuildHasher>,
    /// Name and file.
    functions: IndexSet<(Name, Name), FxBuildHasher>,
    /// Mapping (0 where there is none) and lines.
    locations: IndexSet<(u64, LineNumbers), FxBuildHasher>,
    /// By path: what is known of them.
    mappings: IndexMap<Name, Mapping, FxBuildHasher>,
}

/// What pprof need not look for itself in an ELF file.
#[derive(Clone, Copy, Debug, Default)]
struct Mapping {
    has_functions: bool,
    has_lines: bool,
    has_inlined: bool,
}

impl Writer<'_> {
    fn text(&mut self, text: &str) -> u64 {
        match self.texts.get_index_of(text) {
            Some(at) => at as u64,
            None => self.texts.insert_full(text.to_owned()).0 as u64,
        }
    }

    /// What samples tell: as Go does, and what it was asked for beside.
    fn types(&mut self, selection: &Selection) -> io::Result<Vec<SampleType>> {
        let live = match selection.span.from() {
            Some(_) => Measure::Growth,
            None => Measure::Live,
        };
        let mut types = vec![
            ("alloc_objects", Measure::Total, Unit::Blocks),
            ("alloc_space", Measure::Total, Unit::Bytes),
            ("inuse_objects", live, Unit::Blocks),
            ("inuse_space", live, Unit::Bytes),
        ];
        match selection.measure {
            Measure::Peak => types.extend([
                ("peak_objects", Measure::Peak, Unit::Blocks),
                ("peak_space", Measure::Peak, Unit::Bytes),
            ]),
            Measure::Temporary => {
                types.push(("temporary_objects", Measure::Temporary, Unit::Blocks));
            }
            _ => {}
        }
        let wanted = match (selection.measure, selection.unit) {
            (Measure::Live | Measure::Growth, Unit::Bytes) => "inuse_space",
            (Measure::Live | Measure::Growth, Unit::Blocks) => "inuse_objects",
            (Measure::Total, Unit::Bytes) => "alloc_space",
            (Measure::Total, Unit::Blocks) => "alloc_objects",
            (Measure::Peak, Unit::Bytes) => "peak_space",
            (Measure::Peak, Unit::Blocks) => "peak_objects",
            (Measure::Temporary, _) => "temporary_objects",
        };
        let mut message = Message::default();
        for &(name, _, unit) in &types {
            let one = self.value_type(name, unit);
            message.message(profile::SAMPLE_TYPE, &one);
        }
        let one = self.value_type("space", Unit::Bytes);
        message.message(profile::PERIOD_TYPE, &one);
        message.number(profile::DEFAULT_SAMPLE_TYPE, self.text(wanted));
        self.out.write_all(&message.0)?;
        Ok(types
            .into_iter()
            .map(|(_, measure, unit)| SampleType { measure, unit })
            .collect())
    }

    fn value_type(&mut self, name: &str, unit: Unit) -> Message {
        let mut message = Message::default();
        message.number(value_type::TYPE, self.text(name));
        let unit = match unit {
            Unit::Bytes => "bytes",
            Unit::Blocks => "count",
        };
        message.number(value_type::UNIT, self.text(unit));
        message
    }

    /// The locations of a site's stack, the innermost first, without the frames
    /// that reports leave out.
    fn stack<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        node: u32,
        locations: &mut Vec<u64>,
    ) {
        locations.clear();
        let mut stack = stacks.stack(model, node);
        if stack.is_empty() {
            stack.push(stacks.not_known());
        }
        let is_any_shown = stack.iter().any(|&id| stacks.is_shown(id));
        let mut lines = Vec::new();
        for &id in &stack {
            if !is_any_shown || stacks.is_shown(id) {
                let frame = stacks.frame(id);
                let function = self.functions.insert_full((frame.function, frame.file)).0;
                lines.push((function as u64 + 1, frame.line));
            }
            let frame = stacks.frame(id);
            if frame.kind != FrameKind::Inlined && !lines.is_empty() {
                let mapping = self.mapping(stacks, frame, lines.len() > 1);
                locations.push(self.location(mapping, std::mem::take(&mut lines)));
            }
        }
        // Only where a damaged file has a function inlined into none.
        if !lines.is_empty() {
            locations.push(self.location(0, lines));
        }
    }

    /// The number of a frame's ELF file; 0 of Python's frames.
    fn mapping(&mut self, stacks: &Stacks<'_>, frame: &Frame, is_inlined: bool) -> u64 {
        if frame.module.is_empty() {
            return 0;
        }
        let entry = self.mappings.entry(frame.module);
        let number = entry.index() as u64 + 1;
        let mapping = entry.or_default();
        mapping.has_inlined |= is_inlined;
        mapping.has_lines |= frame.line != 0;
        mapping.has_functions |= !stacks.name(frame.function).contains("+0x");
        number
    }

    fn location(&mut self, mapping: u64, lines: LineNumbers) -> u64 {
        self.locations.insert_full((mapping, lines)).0 as u64 + 1
    }

    fn sample(
        &mut self,
        locations: &[u64],
        values: impl Iterator<Item = i64>,
        of: Option<(Domain, u32)>,
    ) -> io::Result<()> {
        let mut one = Message::default();
        one.packed(sample::LOCATION_ID, locations.iter().copied());
        one.packed(sample::VALUE, values.map(i64::cast_unsigned));
        if let Some((domain, pid)) = of {
            for (key, value) in [("domain", domain.name()), ("pid", &pid.to_string())] {
                let mut pair = Message::default();
                pair.number(label::KEY, self.text(key));
                pair.number(label::STR, self.text(value));
                one.message(sample::LABEL, &pair);
            }
        }
        self.send(profile::SAMPLE, &one)
    }

    fn send(&mut self, field: u64, message: &Message) -> io::Result<()> {
        let mut outer = Message::default();
        outer.message(field, message);
        self.out.write_all(&outer.0)
    }

    /// Everything that samples refer to, and at last the texts.
    fn finish(
        mut self,
        model: &Model<'_>,
        stacks: &Stacks<'_>,
        selection: &Selection,
    ) -> io::Result<()> {
        let mut whole = Message::default();
        for line in selection.heading(model) {
            whole.number(profile::COMMENT, self.text(&line));
        }
        let session = model.session();
        let started = session.map_or(0, |session| session.started_unix_ns);
        let sample_bytes = session.map_or(0, |session| session.sample_bytes);
        let at = started.saturating_add(selection.span.to().resolved_ns());
        whole.number(profile::TIME_NANOS, at);
        whole.number(profile::DURATION_NANOS, model.duration_ns());
        whole.number(profile::PERIOD, sample_bytes.max(1));
        self.out.write_all(&whole.0)?;

        for (at, (path, mapping)) in (1..).zip(std::mem::take(&mut self.mappings)) {
            let path = stacks.name(path);
            let build_id = self.text(&build_id(model, path));
            let mut one = Message::default();
            one.number(mapping::ID, at);
            one.number(mapping::FILENAME, self.text(path));
            one.number(mapping::BUILD_ID, build_id);
            one.number(mapping::HAS_FUNCTIONS, mapping.has_functions.into());
            one.number(mapping::HAS_FILENAMES, mapping.has_lines.into());
            one.number(mapping::HAS_LINE_NUMBERS, mapping.has_lines.into());
            one.number(mapping::HAS_INLINE_FRAMES, mapping.has_inlined.into());
            self.send(profile::MAPPING, &one)?;
        }
        for (at, (mapping, lines)) in (1..).zip(std::mem::take(&mut self.locations)) {
            let mut one = Message::default();
            one.number(location::ID, at);
            one.number(location::MAPPING_ID, mapping);
            for (function, number) in lines {
                let mut line = Message::default();
                line.number(line::FUNCTION_ID, function);
                line.number(line::LINE, number.into());
                one.message(location::LINE, &line);
            }
            self.send(profile::LOCATION, &one)?;
        }
        for (at, (name, file)) in (1..).zip(std::mem::take(&mut self.functions)) {
            let name = self.text(stacks.name(name));
            let mut one = Message::default();
            one.number(function::ID, at);
            one.number(function::NAME, name);
            one.number(function::SYSTEM_NAME, name);
            one.number(function::FILENAME, self.text(stacks.name(file)));
            self.send(profile::FUNCTION, &one)?;
        }
        for text in std::mem::take(&mut self.texts) {
            let mut one = Message::default();
            one.bytes(profile::STRING_TABLE, text.as_bytes());
            self.out.write_all(&one.0)?;
        }
        self.out.finish().map(|_| ())
    }
}

/// In hex; empty where there is none, or files of one path have several.
fn build_id(model: &Model<'_>, path: &str) -> String {
    let mut known = model
        .modules()
        .iter()
        .filter(|module| module.path == path)
        .map(|module| module.build_id);
    let first = known.next().unwrap_or_default();
    let mut text = String::new();
    if known.all(|other| other == first) {
        for byte in first {
            // Memory takes all of it.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}

/// A protobuf message as it is being put together.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number; 0 goes without saying.
    fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut packed = Message::default();
        values.for_each(|value| packed.varint(value));
        self.message(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protobuf_says() {
        let mut message = Message::default();
        message.number(1, 150);
        message.number(2, 0);
        message.bytes(2, b"testing");
        message.packed(4, [3, 270, 86_942].into_iter());
        let expected = [
            &[0x08, 0x96, 0x01, 0x12, 0x07][..],
            b"testing",
            &[0x22, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05],
        ];
        assert_eq!(message.0, expected.concat());
        let mut negative = Message::default();
        negative.number(1, (-1_i64).cast_unsigned());
        assert_eq!(negative.0.len(), 11);
    }
}
