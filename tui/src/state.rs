//! All that a screen is drawn from.
//!
//! # Invariants
//!
//! * Values only: no formatted text, no colours, no positions that depend on
//!   how a screen is drawn other than `layout` says.
//! * A selection may point past the end of a list that has shrunk; who reads
//!   it bounds it.

pub mod data;
pub mod layout;
mod why;

use std::collections::HashSet;
use std::sync::Arc;

use leakline_analysis::ledger::Blamed;
use leakline_analysis::{Figures, GroupBy};

use crate::message::Action;

pub use why::{WhyRow, WhyView};

use data::{
    Answer, CallTree, Column, Content, Facts, LedgerWant, Ledgers, Moment, Resolved, SourceText,
    Subject, Table, TableWant, Verdict, Verdicts, Want,
};

/// A screen of the tab bar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Screen {
    /// The recording over time, and what holds most.
    #[default]
    Overview,
    /// Rows by site or another group.
    Sites,
    /// Calls as an icicle.
    Flame,
    /// Calls as a tree.
    Tree,
    /// What grew between two instants.
    Diff,
    /// Lines with bytes beside them.
    Source,
    /// Who holds what lives.
    Why,
    /// Processes and threads.
    Procs,
    /// What resident memory is made of.
    Rss,
}

impl Screen {
    /// All, in the order of the tab bar.
    pub const ALL: [Screen; 9] = [
        Screen::Overview,
        Screen::Sites,
        Screen::Flame,
        Screen::Tree,
        Screen::Diff,
        Screen::Source,
        Screen::Why,
        Screen::Procs,
        Screen::Rss,
    ];

    /// The key that shows it.
    pub const fn digit(self) -> char {
        match self {
            Screen::Overview => '1',
            Screen::Sites => '2',
            Screen::Flame => '3',
            Screen::Tree => '4',
            Screen::Diff => '5',
            Screen::Source => '6',
            Screen::Why => '7',
            Screen::Procs => '8',
            Screen::Rss => '9',
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Screen::Overview => "Overview",
            Screen::Sites => "Sites",
            Screen::Flame => "Flame",
            Screen::Tree => "Tree",
            Screen::Diff => "Diff",
            Screen::Source => "Source",
            Screen::Why => "Why",
            Screen::Procs => "Procs",
            Screen::Rss => "RSS",
        }
    }
}

/// Where a list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The selected row.
    pub selected: usize,
    /// The first row shown.
    pub first: usize,
}

impl List {
    /// Selects a row of `len`, and moves what is shown so that it is in the
    /// `height` rows.
    pub fn select(&mut self, row: usize, len: usize, height: usize) {
        self.selected = row.min(len.saturating_sub(1));
        let height = height.max(1);
        if self.selected < self.first {
            self.first = self.selected;
        } else if self.selected >= self.first + height {
            self.first = self.selected + 1 - height;
        }
        self.first = self.first.min(len.saturating_sub(height));
    }
}

/// A table's question, answer and place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableView {
    /// Which rows.
    pub want: TableWant,
    /// Where it is.
    pub list: List,
    /// The group that is selected, to find it again in the next answer.
    pub key: Option<u64>,
    /// The last answer.
    pub table: Arc<Table>,
}

/// The calls' question, answer and place: of the flame and of the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallsView {
    /// The last answer.
    pub tree: Arc<CallTree>,
    /// Keys of calls that are open, in the tree.
    pub open: HashSet<u64>,
    /// Key of the call that the flame is zoomed to.
    pub zoom: Option<u64>,
    /// Key of the selected call.
    pub selected: Option<u64>,
    /// The first row shown, in the tree; the first level, in the flame.
    pub first: usize,
}

/// The source's place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceView {
    /// The file that was asked for.
    pub file: Option<Arc<str>>,
    /// The line to select when its text comes.
    pub go_to: Option<u32>,
    /// Where it is.
    pub list: List,
    /// The last answer.
    pub text: Arc<SourceText>,
}

/// A site's stack, over the screen that it was entered from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackView {
    /// The site.
    pub site: u32,
    /// Its frames, once they came.
    pub frames: Option<Arc<Vec<data::FrameName>>>,
    /// Where it is.
    pub list: List,
}

/// What a line of input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// Only rows that match, or the next line that does.
    Search,
    /// A command.
    Command,
    /// The name of a mark to set now.
    Mark,
}

/// A line of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub kind: PromptKind,
    /// The text.
    pub text: String,
    /// What the filter was before.
    pub before: String,
}

/// A key that waits for a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chord {
    /// `g`: what rows stand for.
    Group,
    /// `o`: what they are sorted by.
    Order,
}

/// Something to say, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The selection was copied.
    Copied,
    /// The screen was written to a file.
    Exported(String),
    /// Something did not work: what and why.
    Failed(String),
    /// Diff: A is the instant of the cursor.
    SetA,
    /// Diff: B is.
    SetB,
    /// Nothing matches a search.
    NotFound(String),
    /// This instant was kept under a name.
    Marked(String),
    /// The recording that was followed is at its end.
    Ended,
    /// The cursor has no further to go.
    NoMark,
    /// There is no source to show for this.
    NoSource,
    /// Where these objects were made is not known.
    NoSite,
    /// There is no further heap graph.
    NoGraph,
    /// Objects cannot be asked for by this.
    NoQuestion,
}

/// Colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThemeName {
    /// Red, green, yellow.
    #[default]
    Default,
    /// Blue and orange instead.
    ColourBlind,
    /// None.
    Mono,
}

/// How far the recording is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// So much of so much.
    Reading(u64, u64),
    /// All that there is.
    #[default]
    Ready,
}

/// Everything.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, set by keys of their own"
)]
pub struct State {
    /// Columns and rows.
    pub size: (u16, u16),
    /// How far the recording is read.
    pub phase: Phase,
    /// The recording as a whole, once known.
    pub facts: Arc<Facts>,
    /// What is said about leaks, once something is.
    pub verdicts: Option<Arc<Verdicts>>,
    /// The screen.
    pub screen: Screen,
    /// The instant that is shown.
    pub moment: Moment,
    /// The nearest recorded, as the last answer says.
    pub at: Resolved,
    /// What all sites hold then.
    pub sum: Figures,
    /// There was an answer, so that there is something to show.
    pub answered: bool,
    /// Screens of which there was one, in the order of [`Screen::ALL`].
    pub known: [bool; 9],
    /// The last answer is not of the instant or question that is wanted.
    pub waiting: bool,
    /// What a key is to open once the rows that it is meant for are there.
    pub due: Option<Action>,
    /// The largest sites, for the overview.
    pub largest: TableView,
    /// Sites.
    pub sites: TableView,
    /// Calls from the outermost frame inwards.
    pub calls: CallsView,
    /// The tree's calls where it is inverted.
    pub inverted: CallsView,
    /// The tree is.
    pub is_inverted: bool,
    /// What grew.
    pub diff: TableView,
    /// The earlier instant of the diff, as asked for.
    pub diff_from: Moment,
    /// As found.
    pub diff_at: Resolved,
    /// The later instant, where that is not the cursor's.
    pub diff_to: Option<Moment>,
    /// Source.
    pub source: SourceView,
    /// Who holds what.
    pub why: WhyView,
    /// Processes.
    pub procs: List,
    /// Their figures: own, and RSS.
    pub proc_figures: Arc<Vec<(Figures, Option<u64>)>>,
    /// What resident memory is made of at the instant, by process.
    pub ledgers: Arc<Ledgers>,
    /// Where that is: the selected one is the process that is shown.
    pub ledger: List,
    /// That of the process that grew most, beside the overview.
    pub overview_ledger: Arc<Ledgers>,
    /// A stack over the screen.
    pub stack: Option<StackView>,
    /// Help is shown.
    pub help: bool,
    /// First line of the help that is shown.
    pub help_first: usize,
    /// A line of input.
    pub prompt: Option<Prompt>,
    /// The first of two keys.
    pub chord: Option<Chord>,
    /// Something to say.
    pub notice: Option<Notice>,
    /// What was searched for last, in calls and source.
    pub search: String,
    /// Colours.
    pub theme: ThemeName,
    /// The user wants to leave.
    pub quit: bool,
}

impl State {
    /// Before anything is known.
    pub fn new(size: (u16, u16), theme: ThemeName) -> Self {
        let mut state = State {
            size,
            theme,
            ..State::default()
        };
        state.diff.want.sort = Column::Growth;
        state.diff_from = Moment::Start;
        state
    }

    /// What the screen needs of the engine.
    pub fn want(&self) -> Want {
        let moment = match self.screen {
            // A heap graph is of its own instant.
            Screen::Why if self.stack.is_none() => Moment::Usual,
            Screen::Diff => self.diff_to.unwrap_or(self.moment),
            _ => self.moment,
        };
        let subject = if let Some(stack) = &self.stack {
            Subject::Stack(stack.site)
        } else {
            match self.screen {
                Screen::Overview => Subject::Overview(self.ledger_want()),
                Screen::Sites => Subject::Table(self.sites.want.clone()),
                Screen::Flame => Subject::Calls { inverted: false },
                Screen::Tree => Subject::Calls {
                    inverted: self.is_inverted,
                },
                Screen::Diff => Subject::Diff(self.diff_from, self.diff.want.clone()),
                Screen::Source => Subject::Source(self.source.file.clone()),
                Screen::Why => Subject::Why(self.why.want.clone()),
                Screen::Procs => Subject::Processes,
                Screen::Rss => Subject::Ledgers(self.ledger_want()),
            }
        };
        Want { moment, subject }
    }

    /// What ledgers are compared with, and the causes that are told in them.
    fn ledger_want(&self) -> LedgerWant {
        let verdicts = self.verdicts.iter();
        let suspects = verdicts
            .flat_map(|verdicts| &verdicts.causes)
            .filter(|cause| !cause.id.is_empty());
        LedgerWant {
            from: self.diff_from,
            causes: suspects
                .map(|cause| Blamed {
                    id: cause.id.clone(),
                    is_leak: matches!(cause.verdict, Verdict::Leaking | Verdict::Unreachable),
                    name: cause.held_by.clone().unwrap_or_default(),
                    members: Arc::clone(&cause.members),
                })
                .collect(),
        }
    }

    /// Takes an answer. One to an earlier question is shown until the next
    /// comes, unless it would replace a newer one.
    pub fn take(&mut self, answer: Answer) {
        let wanted = self.want();
        self.waiting = answer.want != wanted;
        if std::mem::discriminant(&answer.want.subject) != std::mem::discriminant(&wanted.subject) {
            return;
        }
        if let (Content::Why(holders), Subject::Why(want)) = (&answer.content, &answer.want.subject)
        {
            self.waiting |= holders.reading;
            let height = layout::list_height(self);
            self.why.take(want, Arc::clone(holders), height);
            return;
        }
        self.answered = true;
        if self.stack.is_none() {
            self.known[self.screen as usize] = true;
            if matches!(answer.want.subject, Subject::Calls { inverted: false }) {
                // They show the same calls.
                self.known[Screen::Flame as usize] = true;
                self.known[Screen::Tree as usize] = true;
            }
        }
        self.at = answer.at;
        self.sum = answer.sum;
        let height = layout::list_height(self);
        match (answer.content, &answer.want.subject) {
            (Content::Overview(table, ledgers), _) => {
                self.largest.take(table, height);
                self.overview_ledger = ledgers;
            }
            (Content::Table(table), Subject::Diff(..)) => {
                self.diff_at = answer.from.unwrap_or_default();
                self.diff.take(table, height);
            }
            (Content::Table(table), _) => self.sites.take(table, height),
            (Content::Calls(tree), Subject::Calls { inverted: true }) => self.inverted.tree = tree,
            (Content::Calls(tree), _) => self.calls.tree = tree,
            (Content::Source(text), _) => {
                let len = text.lines.len();
                let same = self.source.text.file == text.file;
                self.source.text = text;
                let row = match self.source.go_to.take() {
                    Some(line) => self.source.row_of(line),
                    None if same => self.source.list.selected,
                    None => self.source.heaviest(),
                };
                self.source.list.select(row, len, height);
                if !same {
                    // With what comes before it.
                    let first = row.saturating_sub(height / 2);
                    self.source.list.first = first.min(len.saturating_sub(height));
                }
            }
            (Content::Processes(figures), _) => self.proc_figures = figures,
            (Content::Ledgers(ledgers), _) => {
                let len = ledgers.accounts.len();
                self.ledgers = ledgers;
                self.ledger.select(self.ledger.selected, len, 1);
            }
            // Above.
            (Content::Why(_), _) => {}
            (Content::Stack(frames), _) => {
                if let Some(stack) = &mut self.stack {
                    stack.frames = Some(frames);
                }
            }
        }
    }

    /// Nothing is known yet of what the screen shows: zeros would be wrong.
    pub fn is_due(&self) -> bool {
        let is_known = self.stack.is_some() || self.known[self.screen as usize];
        // Graphs are told of otherwise.
        self.phase == Phase::Ready && self.waiting && !is_known && self.screen != Screen::Why
    }

    /// The calls of the screen that shows some.
    pub fn shown_calls(&self) -> &CallsView {
        if self.screen == Screen::Tree && self.is_inverted {
            &self.inverted
        } else {
            &self.calls
        }
    }

    /// The same, to change.
    pub fn shown_calls_mut(&mut self) -> &mut CallsView {
        if self.screen == Screen::Tree && self.is_inverted {
            &mut self.inverted
        } else {
            &mut self.calls
        }
    }

    /// The table of the screen that shows one.
    pub fn shown_table(&self) -> Option<&TableView> {
        match self.screen {
            Screen::Overview => Some(&self.largest),
            Screen::Sites => Some(&self.sites),
            Screen::Diff => Some(&self.diff),
            _ => None,
        }
    }

    /// The same, to change.
    pub fn shown_table_mut(&mut self) -> Option<&mut TableView> {
        match self.screen {
            Screen::Overview => Some(&mut self.largest),
            Screen::Sites => Some(&mut self.sites),
            Screen::Diff => Some(&mut self.diff),
            _ => None,
        }
    }

    /// Nanoseconds of a moment, as near as can be said without asking.
    pub fn ns_of(&self, moment: Moment) -> u64 {
        match moment {
            Moment::Usual => self.facts.usual_ns,
            Moment::Start => 0,
            Moment::End => self.facts.duration_ns,
            Moment::Peak => self.facts.peak.at_ns,
            Moment::At(ns) => ns.min(self.facts.duration_ns),
        }
    }
}

impl TableView {
    fn take(&mut self, table: Arc<Table>, height: usize) {
        self.table = table;
        let rows = &self.table.rows;
        let found = self
            .key
            .and_then(|key| rows.iter().position(|row| self.table.key(row) == Some(key)));
        let row = found.unwrap_or(self.list.selected);
        self.list.select(row, rows.len(), height);
    }

    /// Selects a row.
    pub fn select(&mut self, row: usize, height: usize) {
        self.list.select(row, self.table.rows.len(), height);
        // At the top one stays at the top, whatever comes there.
        self.key = match self.list.selected {
            0 => None,
            row => self.table.rows.get(row).and_then(|row| self.table.key(row)),
        };
    }

    /// What is selected.
    pub fn selection(&self) -> Option<&data::GroupInfo> {
        let row = self.table.rows.get(self.list.selected)?;
        self.table.groups.get(row.group as usize)
    }
}

impl Table {
    /// The key of a row's group.
    pub fn key(&self, row: &data::TableRow) -> Option<u64> {
        Some(self.groups.get(row.group as usize)?.key)
    }
}

impl SourceView {
    /// The row of a line, or of the next that is known.
    fn row_of(&self, line: u32) -> usize {
        self.text.lines.partition_point(|known| known.line < line)
    }

    /// The row of the line that allocated most.
    fn heaviest(&self) -> usize {
        let lines = self.text.lines.iter().enumerate();
        lines
            .max_by_key(|(at, line)| {
                (
                    line.own.live_bytes,
                    line.total_bytes,
                    std::cmp::Reverse(*at),
                )
            })
            .map_or(0, |(at, _)| at)
    }
}

impl CallsView {
    /// Index of a call by its key.
    pub fn find(&self, key: Option<u64>) -> Option<usize> {
        let key = key?;
        self.tree.calls.iter().position(|call| call.key == key)
    }

    /// Indices of the calls that the tree shows: those whose callers are all
    /// open.
    pub fn visible(&self) -> Vec<usize> {
        let mut shown = vec![false; self.tree.calls.len()];
        let mut rows = Vec::new();
        for (at, call) in self.tree.calls.iter().enumerate() {
            let parent = call.parent.map(|parent| parent as usize);
            shown[at] = parent.is_none_or(|parent| {
                shown[parent] && self.open.contains(&self.tree.calls[parent].key)
            });
            if shown[at] {
                rows.push(at);
            }
        }
        rows
    }
}

/// The groups in the order in which they are offered, each with its key.
pub const GROUPS: [(char, GroupBy); 8] = [
    ('s', GroupBy::Site),
    ('l', GroupBy::Line),
    ('f', GroupBy::Function),
    ('i', GroupBy::File),
    ('b', GroupBy::Library),
    ('t', GroupBy::Thread),
    ('p', GroupBy::Process),
    ('d', GroupBy::Domain),
];

/// Columns to sort by, each with its key.
pub const COLUMNS: [(char, Column); 7] = [
    ('l', Column::Live),
    ('b', Column::Blocks),
    ('p', Column::Peak),
    ('t', Column::Total),
    ('m', Column::Temporary),
    ('g', Column::Growth),
    ('n', Column::Name),
];

impl Column {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Column::Live => "live",
            Column::Blocks => "blocks",
            Column::Peak => "peak",
            Column::Total => "total",
            Column::Temporary => "temporary",
            Column::Growth => "growth",
            Column::Name => "name",
        }
    }
}
