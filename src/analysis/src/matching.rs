//! Rows of two recordings that mean the same, though files were edited
//! between them.
//!
//! Rows are paired in steps, the surest first, and each is paired once:
//!
//! 1. The same stack, lines, their text and all.
//! 2. The same functions in the same files, on lines with the same text.
//! 3. The same functions in the same files; of several that are left, those
//!    whose lines are nearest, seen from lines whose text is known in both.
//! 4. Then functions that are in one recording only are looked at: where two
//!    stacks are the same but for one such function each, in the same file,
//!    that one was renamed. With the renames known, all begins anew.
//!
//! A file that is in one recording only is taken for one of the same name in
//! the other, by the longest end of their paths, if they have functions in
//! common.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use rustc_hash::{FxBuildHasher, FxHashMap, FxHashSet};

use crate::diff::Side;
use crate::frame::{FrameId, FrameKind};
use crate::model::Model;
use crate::names::base_name;
use crate::stack::Stacks;
use crate::top::{GroupBy, Row, process_label};

/// How a row was found in both recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// All is the same.
    Stack,
    /// Lines have moved.
    Lines,
    /// A file has moved.
    File,
    /// A function was renamed.
    Function,
}

impl Matched {
    /// The word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Matched::Stack => "stack",
            Matched::Lines => "lines",
            Matched::File => "file",
            Matched::Function => "function",
        }
    }
}

/// A function that was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Its name before.
    pub from: String,
    /// Its name after.
    pub to: String,
    /// Its file, after.
    pub file: String,
}

/// A file that has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMove {
    /// Its path before.
    pub from: String,
    /// Its path after.
    pub to: String,
}

/// A frame by its meaning; all are numbers of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Meaning {
    function: u32,
    /// Or its module, where it has none.
    file: u32,
    line: u32,
    /// The line's text; 0 where it is not known.
    text: u32,
}

/// What a row is compared by.
#[derive(Clone, Debug, Default)]
struct Identity {
    domain: u8,
    frames: Vec<Meaning>,
}

/// Texts of both recordings, by number; 0 is the empty one.
#[derive(Debug)]
struct Texts(IndexSet<String, FxBuildHasher>);

impl Texts {
    fn number(&mut self, text: &str) -> u32 {
        let at = match self.0.get_index_of(text) {
            Some(at) => at,
            None => self.0.insert_full(text.to_owned()).0,
        };
        u32::try_from(at).unwrap_or(0)
    }

    fn get(&self, number: u32) -> &str {
        self.0.get_index(number as usize).map_or("", String::as_str)
    }
}

/// Where lines of a file went, as far as their text is known in both: number
/// before, and by how much it is higher after; rising.
type Shifts = FxHashMap<u32, Vec<(u32, i64)>>;

/// Which rows of two recordings belong together.
#[derive(Debug)]
pub(crate) struct Pairing {
    texts: Texts,
    /// For each row before, the row after.
    pub(crate) pairs: Vec<Option<(usize, Matched)>>,
    pub(crate) renames: Vec<Rename>,
    pub(crate) moves: Vec<FileMove>,
    /// Files before that have another path after.
    moved: FxHashMap<u32, u32>,
    /// Functions before, by file after, that have another name after.
    renamed: FxHashMap<(u32, u32), u32>,
    shifts: Shifts,
}

/// Rounds of looking for renamed functions: a stack may have several.
const ROUNDS: usize = 4;

impl Pairing {
    /// Pairs rows of sites, and learns what was renamed and moved.
    pub(crate) fn of_sites(
        before: &mut Side<'_, '_>,
        after: &mut Side<'_, '_>,
        rows: &[Row],
        other_rows: &[Row],
    ) -> Self {
        let mut texts = Texts(IndexSet::default());
        texts.number("");
        let mut pairing = Pairing {
            texts,
            pairs: Vec::new(),
            renames: Vec::new(),
            moves: Vec::new(),
            moved: FxHashMap::default(),
            renamed: FxHashMap::default(),
            shifts: Shifts::default(),
        };
        let ours = pairing.identities(before.model, before.stacks, rows);
        let theirs = pairing.identities(after.model, after.stacks, other_rows);
        pairing.find_moved_files(&ours, &theirs);
        pairing.find_shifts(before.model, after.model);
        for _ in 0..ROUNDS {
            pairing.pair(&ours, &theirs);
            if !pairing.find_renamed(&ours, &theirs) {
                break;
            }
        }
        pairing
    }

    /// Pairs rows of any other groups, by what is known.
    pub(crate) fn match_groups(
        &mut self,
        before: &mut Side<'_, '_>,
        after: &mut Side<'_, '_>,
        by: GroupBy,
        rows: &[Row],
        other_rows: &[Row],
    ) {
        let ours = self.group_identities(before.stacks, before.model, by, rows);
        let theirs = self.group_identities(after.stacks, after.model, by, other_rows);
        self.pair(&ours, &theirs);
    }

    fn identities<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &Stacks<'a>,
        rows: &[Row],
    ) -> Vec<Identity> {
        let mut known: FxHashMap<FrameId, Meaning> = FxHashMap::default();
        let identity = |row: &Row| {
            let is_any_shown = row.stack.iter().any(|&id| stacks.is_shown(id));
            let frames = row.stack.iter();
            let frames = frames.filter(|&&id| !is_any_shown || stacks.is_shown(id));
            Identity {
                domain: row.domain.map_or(u8::MAX, |domain| domain as u8),
                frames: frames
                    .map(|&id| {
                        *known
                            .entry(id)
                            .or_insert_with(|| self.meaning(model, stacks, id))
                    })
                    .collect(),
            }
        };
        rows.iter().map(identity).collect()
    }

    fn meaning<'a>(&mut self, model: &Model<'a>, stacks: &Stacks<'a>, id: FrameId) -> Meaning {
        let frame = stacks.frame(id);
        let file = stacks.name(frame.file);
        let text = model
            .sources()
            .get(file)
            .and_then(|lines| lines.get(&frame.line));
        let place = if frame.file.is_empty() {
            stacks.name(frame.module)
        } else {
            file
        };
        // Of machine code, the arguments are a part of the name.
        let function = stacks.name(frame.function);
        let is_python = frame.kind == FrameKind::Python;
        // A lambda or a comprehension is named by what is around it.
        let function = if is_python { function.trim() } else { function };
        Meaning {
            function: self.texts.number(function),
            file: self.texts.number(place),
            line: frame.line,
            text: text.map_or(0, |text| self.texts.number(text.trim())),
        }
    }

    fn group_identities<'a>(
        &mut self,
        stacks: &Stacks<'a>,
        model: &Model<'a>,
        by: GroupBy,
        rows: &[Row],
    ) -> Vec<Identity> {
        let identity = |row: &Row| {
            let frame = match (by, row.head.made_in) {
                (GroupBy::Line | GroupBy::Site, Some(id)) => self.meaning(model, stacks, id),
                (GroupBy::Function, Some(id)) => Meaning {
                    line: 0,
                    text: 0,
                    ..self.meaning(model, stacks, id)
                },
                _ => {
                    // A pid or tid says nothing in another recording.
                    let label = match by {
                        GroupBy::Process => row.label.rsplit_once(" (pid "),
                        GroupBy::Thread => row.label.rsplit_once(" (tid "),
                        _ => None,
                    };
                    let label = label.map_or(row.label.as_str(), |(label, _)| label);
                    Meaning {
                        file: self.texts.number(label),
                        ..Meaning::default()
                    }
                }
            };
            Identity {
                domain: 0,
                frames: vec![frame],
            }
        };
        rows.iter().map(identity).collect()
    }

    /// As a frame before would be after.
    fn translated(&self, frame: &Meaning) -> Meaning {
        let file = self.moved.get(&frame.file).copied().unwrap_or(frame.file);
        let function = self.renamed.get(&(frame.function, file)).copied();
        Meaning {
            function: function.unwrap_or(frame.function),
            file,
            ..*frame
        }
    }

    fn find_moved_files(&mut self, ours: &[Identity], theirs: &[Identity]) {
        type Files = BTreeMap<u32, FxHashSet<u32>>;
        let files = |identities: &[Identity]| -> Files {
            let mut files = Files::new();
            for frame in identities.iter().flat_map(|identity| &identity.frames) {
                files.entry(frame.file).or_default().insert(frame.function);
            }
            files
        };
        let (ours, theirs) = (files(ours), files(theirs));
        let mut candidates = Vec::new();
        for (&file, functions) in ours.iter().filter(|(file, _)| !theirs.contains_key(file)) {
            for (&other, others) in theirs.iter().filter(|(file, _)| !ours.contains_key(file)) {
                let (path, other_path) = (self.texts.get(file), self.texts.get(other));
                let is_alike =
                    base_name(path) == base_name(other_path) && !functions.is_disjoint(others);
                if is_alike {
                    let ends = path.rsplit('/').zip(other_path.rsplit('/'));
                    let common = ends.take_while(|(one, other)| one == other).count();
                    candidates.push((std::cmp::Reverse(common), file, other));
                }
            }
        }
        candidates.sort_unstable();
        let mut taken = FxHashSet::default();
        for (_, file, other) in candidates {
            if !self.moved.contains_key(&file) && taken.insert(other) {
                self.moved.insert(file, other);
                self.moves.push(FileMove {
                    from: self.texts.get(file).to_owned(),
                    to: self.texts.get(other).to_owned(),
                });
            }
        }
    }

    fn find_shifts(&mut self, before: &Model<'_>, after: &Model<'_>) {
        let once = |lines: &BTreeMap<u32, &str>| {
            let mut places: BTreeMap<String, Option<u32>> = BTreeMap::new();
            for (&line, text) in lines {
                let place = places.entry(text.trim().to_owned());
                place
                    .and_modify(|place| *place = None)
                    .or_insert(Some(line));
            }
            places
        };
        for (&path, lines) in before.sources() {
            let file = self.texts.number(path);
            let file = self.moved.get(&file).copied().unwrap_or(file);
            let Some(others) = after.sources().get(self.texts.get(file)) else {
                continue;
            };
            let others = once(others);
            let mut shifts: Vec<(u32, i64)> = once(lines)
                .into_iter()
                .filter_map(|(text, line)| {
                    let (line, other) = (line?, others.get(&text).copied()??);
                    Some((line, i64::from(other) - i64::from(line)))
                })
                .collect();
            shifts.sort_unstable();
            self.shifts.insert(file, shifts);
        }
    }

    /// How far a line before, as it would be after, is from one after.
    fn distance(&self, ours: &Meaning, theirs: &Meaning) -> u64 {
        let shift = self.shifts.get(&theirs.file).and_then(|shifts| {
            let after = shifts.partition_point(|(line, _)| *line <= ours.line);
            let nearest = after.checked_sub(1).or((!shifts.is_empty()).then_some(0));
            nearest.map(|at| shifts[at].1)
        });
        (i64::from(ours.line) + shift.unwrap_or(0)).abs_diff(i64::from(theirs.line))
    }

    /// Pairs what is not paired yet, in the steps above.
    fn pair(&mut self, ours: &[Identity], theirs: &[Identity]) {
        let translated: Vec<Identity> = ours
            .iter()
            .map(|identity| Identity {
                domain: identity.domain,
                frames: identity
                    .frames
                    .iter()
                    .map(|frame| self.translated(frame))
                    .collect(),
            })
            .collect();
        self.pairs = vec![None; ours.len()];
        let mut is_taken = vec![false; theirs.len()];
        let steps: [fn(&Meaning) -> Meaning; 3] = [
            |frame| *frame,
            |frame| Meaning { line: 0, ..*frame },
            |frame| Meaning {
                line: 0,
                text: 0,
                ..*frame
            },
        ];
        for step in steps {
            let key = |identity: &Identity| -> (u8, Vec<Meaning>) {
                (identity.domain, identity.frames.iter().map(step).collect())
            };
            let mut open: FxHashMap<(u8, Vec<Meaning>), Vec<usize>> = FxHashMap::default();
            for (at, identity) in theirs.iter().enumerate().filter(|(at, _)| !is_taken[*at]) {
                open.entry(key(identity)).or_default().push(at);
            }
            let mut candidates = Vec::new();
            for (at, identity) in translated.iter().enumerate() {
                if self.pairs[at].is_some() {
                    continue;
                }
                for &other in open.get(&key(identity)).into_iter().flatten() {
                    let frames = identity.frames.iter().zip(&theirs[other].frames);
                    let distance: u64 = frames
                        .map(|(one, other)| self.distance(one, other))
                        .fold(0, u64::saturating_add);
                    candidates.push((distance, at, other));
                }
            }
            candidates.sort_unstable();
            for (_, at, other) in candidates {
                if self.pairs[at].is_none() && !is_taken[other] {
                    is_taken[other] = true;
                    self.pairs[at] = Some((other, how(&ours[at], &theirs[other])));
                }
            }
        }
    }

    /// Looks for renamed functions among what is not paired. True when there
    /// are any.
    fn find_renamed(&mut self, ours: &[Identity], theirs: &[Identity]) -> bool {
        type Function = (u32, u32);
        let functions = |frames: &[Meaning]| -> FxHashSet<Function> {
            frames
                .iter()
                .map(|frame| (frame.function, frame.file))
                .collect()
        };
        let ours: Vec<Vec<Meaning>> = ours
            .iter()
            .map(|identity| identity.frames.iter().map(|f| self.translated(f)).collect())
            .collect();
        let known = ours
            .iter()
            .flat_map(|frames| functions(frames))
            .collect::<FxHashSet<_>>();
        let others = theirs
            .iter()
            .flat_map(|identity| functions(&identity.frames));
        let others = others.collect::<FxHashSet<_>>();
        // The only function of a stack that the other recording does not have,
        // and the stack without it.
        let without = |frames: &[Meaning], elsewhere: &FxHashSet<Function>| {
            let mut own = frames
                .iter()
                .filter(|frame| !elsewhere.contains(&(frame.function, frame.file)));
            let first = *own.next()?;
            let is_only = own.all(|f| (f.function, f.file) == (first.function, first.file));
            let rest: Vec<Function> = frames
                .iter()
                .map(|frame| {
                    let is_it = (frame.function, frame.file) == (first.function, first.file);
                    (if is_it { u32::MAX } else { frame.function }, frame.file)
                })
                .collect();
            is_only.then_some((first, rest))
        };
        let taken: FxHashSet<usize> = self.pairs.iter().flatten().map(|pair| pair.0).collect();
        let mut open: FxHashMap<Vec<Function>, Vec<Meaning>> = FxHashMap::default();
        for (at, identity) in theirs.iter().enumerate() {
            if !taken.contains(&at)
                && let Some((function, rest)) = without(&identity.frames, &known)
            {
                open.entry(rest).or_default().push(function);
            }
        }
        // How often two functions stand in each other's place, and how far
        // apart they are then.
        let mut votes: BTreeMap<(Function, Function), (u64, u64)> = BTreeMap::new();
        for (frames, pair) in ours.iter().zip(&self.pairs) {
            if pair.is_none()
                && let Some((function, rest)) = without(frames, &others)
            {
                for other in open.get(&rest).into_iter().flatten() {
                    let key = (
                        (function.function, function.file),
                        (other.function, other.file),
                    );
                    let vote = votes.entry(key).or_default();
                    vote.0 += 1;
                    vote.1 = vote.1.saturating_add(self.distance(&function, other));
                }
            }
        }
        let mut votes: Vec<_> = votes
            .into_iter()
            .map(|((one, other), (count, distance))| (distance / count, one, other))
            .collect();
        votes.sort_unstable();
        let (mut from, mut to) = (FxHashSet::default(), FxHashSet::default());
        for (_, one, other) in votes {
            if from.contains(&one) || to.contains(&other) {
                continue;
            }
            from.insert(one);
            to.insert(other);
            self.renamed.insert(one, other.0);
            self.renames.push(Rename {
                from: self.texts.get(one.0).to_owned(),
                to: self.texts.get(other.0).to_owned(),
                file: self.texts.get(other.1).to_owned(),
            });
        }
        !from.is_empty()
    }

    /// What a filter is to find a row by.
    #[expect(
        clippy::unused_self,
        reason = "it is the pairing's matter what names a row has"
    )]
    pub(crate) fn names(&self, side: &Side<'_, '_>, row: &Row) -> Vec<String> {
        let mut names = vec![row.label.clone()];
        for id in [row.head.made_in, row.head.your_code].into_iter().flatten() {
            let frame = side.stacks.frame(id);
            let file = side.stacks.name(frame.file);
            names.push(side.stacks.name(frame.function).to_owned());
            names.push(side.stacks.name(frame.module).to_owned());
            names.push(file.to_owned());
            names.push(format!("{file}:{}", frame.line));
        }
        let processes = row.processes.iter();
        names.extend(processes.map(|&process| process_label(side.model, process)));
        names
    }
}

/// What is not the same in two rows that belong together.
fn how(ours: &Identity, theirs: &Identity) -> Matched {
    let differs = |of: fn(&Meaning) -> u32| {
        let mut frames = ours.frames.iter().zip(&theirs.frames);
        frames.any(|(one, other)| of(one) != of(other))
    };
    if differs(|frame| frame.function) {
        Matched::Function
    } else if differs(|frame| frame.file) {
        Matched::File
    } else if differs(|frame| frame.line) {
        Matched::Lines
    } else {
        Matched::Stack
    }
}
