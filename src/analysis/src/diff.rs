//! `diff`: what grew, shrank, came and went between two instants, of one
//! recording or of two; and what survived.

use leakline_recording::record::Counters;
use rustc_hash::FxHashMap;

use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::instant::Span;
use crate::matching::{FileMove, Matched, Pairing, Rename};
use crate::model::Model;
use crate::stack::Stacks;
use crate::survivors::{Held, Survivors};
use crate::top::{GroupBy, Row, Top, TopQuery};

/// Which rows of a diff, in which order.
#[derive(Clone, Debug)]
pub struct DiffQuery {
    /// What a row stands for.
    pub by: GroupBy,
    /// What rows are sorted by, largest first; `None` = how much they changed,
    /// up or down.
    pub sort: Option<Measure>,
    /// In bytes or blocks.
    pub unit: Unit,
    /// Most rows; `None` = all.
    pub limit: Option<usize>,
    /// Rows to keep.
    pub filter: Option<Filter>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// There is more of it.
    Grew,
    /// It was not there.
    New,
    /// There is less of it.
    Shrank,
    /// It is not there any more.
    Gone,
}

impl Change {
    /// All of them, growth first.
    pub const ALL: [Change; 4] = [Change::Grew, Change::New, Change::Shrank, Change::Gone];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Change::Grew => "grew",
            Change::New => "new",
            Change::Shrank => "shrank",
            Change::Gone => "gone",
        }
    }

    /// Of live blocks and bytes before and after; `None` where nothing changed.
    fn of(before: (i64, i64), after: (i64, i64)) -> Option<Self> {
        let delta = (
            after.0.saturating_sub(before.0),
            after.1.saturating_sub(before.1),
        );
        match (before, after) {
            _ if delta == (0, 0) => None,
            ((0, 0), _) => Some(Change::New),
            (_, (0, 0)) => Some(Change::Gone),
            _ if delta.1 > 0 || delta.1 == 0 && delta.0 > 0 => Some(Change::Grew),
            _ => Some(Change::Shrank),
        }
    }
}

/// A row of a diff.
#[derive(Clone, Debug)]
pub struct DiffRow {
    /// As it is after, with its growth; where it is gone, as it was before.
    pub row: Row,
    /// What became of it.
    pub change: Change,
    /// What was live before.
    pub before: Held,
    /// Of two recordings: how it was found in both; `None` where it is in one.
    pub matched: Option<Matched>,
    /// Of two recordings: the row as it was before, where it is there after.
    pub was: Option<Row>,
}

/// How many rows changed in one way, and by how much together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows.
    pub rows: usize,
    /// Bytes, negative where there is less.
    pub bytes: i64,
    /// Blocks likewise.
    pub blocks: i64,
}

/// A diff.
#[derive(Clone, Debug)]
pub struct Diff {
    /// The question.
    pub query: DiffQuery,
    /// Its rows, sorted.
    pub rows: Vec<DiffRow>,
    /// How many changed rows there are without the limit.
    pub total_rows: usize,
    /// How many rows did not change.
    pub unchanged: usize,
    /// By what became of them, as [`Change::ALL`].
    pub tallies: [Tally; 4],
    /// What the rows beyond the limit add up to.
    pub rest: Figures,
    /// What all changed rows add up to.
    pub sum: Figures,
    /// Of two recordings: functions that were taken for renamed.
    pub renames: Vec<Rename>,
    /// Of two recordings: files that were taken for moved.
    pub moves: Vec<FileMove>,
}

/// One side of a diff of two recordings.
pub struct Side<'m, 'a> {
    /// The recording.
    pub model: &'m Model<'a>,
    /// Its stacks.
    pub stacks: &'m mut Stacks<'a>,
    /// The instant.
    pub span: Span,
}

impl Side<'_, '_> {
    fn rows(&mut self, query: &DiffQuery) -> Vec<Row> {
        Top::new(self.model, self.stacks, all(query, self.span, None)).rows
    }
}

fn live(figures: &Figures) -> (i64, i64) {
    (figures.live_blocks, figures.live_bytes)
}

fn held((blocks, bytes): (i64, i64)) -> Held {
    Held {
        blocks: u64::try_from(blocks).unwrap_or(0),
        bytes: u64::try_from(bytes).unwrap_or(0),
    }
}

fn all(query: &DiffQuery, span: Span, filter: Option<Filter>) -> TopQuery {
    TopQuery {
        span,
        by: query.by,
        measure: if span.from().is_some() {
            Measure::Growth
        } else {
            Measure::Live
        },
        unit: query.unit,
        limit: None,
        most_frames: None,
        filter,
    }
}

impl Diff {
    /// Between the two instants of `span`.
    pub fn within<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        span: Span,
        query: DiffQuery,
    ) -> Self {
        let top = Top::new(model, stacks, all(&query, span, query.filter.clone()));
        let mut diff = Diff::empty(query);
        for row in top.rows {
            let after = live(&row.figures);
            let before = (
                after.0.saturating_sub(row.figures.delta_blocks),
                after.1.saturating_sub(row.figures.delta_bytes),
            );
            diff.push(row, before, after, None, None);
        }
        diff.finish();
        diff
    }

    /// Between an instant of one recording and one of another.
    pub fn across(before: &mut Side<'_, '_>, after: &mut Side<'_, '_>, query: DiffQuery) -> Self {
        // Stacks tell more of what was renamed than any other group.
        let sites = DiffQuery {
            by: GroupBy::Site,
            ..query.clone()
        };
        let (mut rows, mut other_rows) = (before.rows(&sites), after.rows(&sites));
        let mut pairing = Pairing::of_sites(before, after, &rows, &other_rows);
        if query.by != GroupBy::Site {
            (rows, other_rows) = (before.rows(&query), after.rows(&query));
            pairing.match_groups(before, after, query.by, &rows, &other_rows);
        }
        let mut diff = Diff::empty(query);
        diff.renames = std::mem::take(&mut pairing.renames);
        diff.moves = std::mem::take(&mut pairing.moves);
        let filter = diff.query.filter.clone();
        let is_wanted = |names: &[String]| {
            filter
                .as_ref()
                .is_none_or(|filter| names.iter().any(|name| filter.matches(name)))
        };
        let mut of_after: FxHashMap<usize, (usize, Matched)> = FxHashMap::default();
        for (at, found) in pairing.pairs.iter().enumerate() {
            if let Some((other, matched)) = found {
                of_after.insert(*other, (at, *matched));
            }
        }
        for (at, mut row) in other_rows.into_iter().enumerate() {
            let found = of_after.get(&at).copied();
            let was = found.map(|(before, _)| rows[before].clone());
            let mut names = pairing.names(after, &row);
            if let Some(was) = &was {
                names.extend(pairing.names(before, was));
            }
            if !is_wanted(&names) {
                continue;
            }
            let then = was.as_ref().map_or((0, 0), |was| live(&was.figures));
            let now = live(&row.figures);
            row.figures.delta_blocks = now.0.saturating_sub(then.0);
            row.figures.delta_bytes = now.1.saturating_sub(then.1);
            let scatter = was.as_ref().map(|was| &was.figures.scatter);
            row.figures.scatter.grow_from(scatter);
            diff.push(row, then, now, found.map(|(_, matched)| matched), was);
        }
        for (row, found) in rows.into_iter().zip(&pairing.pairs) {
            if found.is_some() || !is_wanted(&pairing.names(before, &row)) {
                continue;
            }
            let then = live(&row.figures);
            let mut figures = Figures {
                delta_blocks: 0_i64.saturating_sub(then.0),
                delta_bytes: 0_i64.saturating_sub(then.1),
                ..Figures::default()
            };
            figures.scatter.grow_from(Some(&row.figures.scatter));
            diff.push(Row { figures, ..row }, then, (0, 0), None, None);
        }
        diff.finish();
        diff
    }

    fn empty(query: DiffQuery) -> Self {
        Diff {
            query,
            rows: Vec::new(),
            total_rows: 0,
            unchanged: 0,
            tallies: [Tally::default(); 4],
            rest: Figures::default(),
            sum: Figures::default(),
            renames: Vec::new(),
            moves: Vec::new(),
        }
    }

    fn push(
        &mut self,
        row: Row,
        before: (i64, i64),
        after: (i64, i64),
        matched: Option<Matched>,
        was: Option<Row>,
    ) {
        let Some(change) = Change::of(before, after) else {
            // What was not there in either is no row to speak of.
            self.unchanged += usize::from(after != (0, 0));
            return;
        };
        let tally = &mut self.tallies[change as usize];
        tally.rows += 1;
        tally.bytes = tally.bytes.saturating_add(row.figures.delta_bytes);
        tally.blocks = tally.blocks.saturating_add(row.figures.delta_blocks);
        self.sum.add(&row.figures);
        self.rows.push(DiffRow {
            row,
            change,
            before: held(before),
            matched,
            was,
        });
    }

    /// Sorts, and cuts what is too much.
    fn finish(&mut self) {
        let (sort, unit) = (self.query.sort, self.query.unit);
        let either_way = |row: &DiffRow| {
            let delta = row.row.figures.measure(Measure::Growth, unit);
            i64::try_from(delta.unsigned_abs()).unwrap_or(i64::MAX)
        };
        let weight = |row: &DiffRow| {
            sort.map_or_else(
                || either_way(row),
                |measure| row.row.figures.measure(measure, unit),
            )
        };
        // Rows came largest first: of equal ones the first stays so.
        self.rows.sort_by_key(|row| std::cmp::Reverse(weight(row)));
        self.total_rows = self.rows.len();
        let shown = self.query.limit.unwrap_or(usize::MAX).min(self.total_rows);
        for row in &self.rows[shown..] {
            self.rest.add(&row.row.figures);
        }
        self.rows.truncate(shown);
    }
}

/// What was born between two instants and is alive at a third.
#[derive(Clone, Debug)]
pub struct Survived {
    /// The rows: figures are of the blocks born between the two. Live and
    /// growth is what of them is alive, total what was born.
    pub top: Top,
    /// After this they were born, as cohorts can tell, ...
    pub from_ns: u64,
    /// ... up to this, ...
    pub to_ns: u64,
    /// ... and at this instant they are alive.
    pub alive_ns: u64,
    /// All that was born between the two, at sites of which something is alive
    /// or not.
    pub born: Held,
    /// Blocks born before this may have died unseen: events were lost. 0 where
    /// none were.
    pub verified_from_ns: u64,
}

impl Survived {
    /// Of what was born between the instants of `span` (from the start where
    /// it has only one), what is alive at `alive_ns`.
    pub fn new<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        survivors: &Survivors,
        span: Span,
        alive_ns: u64,
        query: &DiffQuery,
    ) -> Self {
        let from_ns = span.from().map_or(0, crate::instant::At::resolved_ns);
        let (from, to) = (
            survivors.edge(from_ns),
            survivors.edge(span.to().resolved_ns()),
        );
        let (instant, alive_ns) = survivors.instant(alive_ns);
        let mut figures = vec![Figures::default(); model.sites().len()];
        let mut born = Held::default();
        for survivor in survivors.between(from, to, instant) {
            born.blocks = born.blocks.saturating_add(survivor.born.blocks);
            born.bytes = born.bytes.saturating_add(survivor.born.bytes);
            let Some(figures) = figures.get_mut(survivor.site as usize) else {
                continue;
            };
            let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let (blocks, bytes) = (signed(survivor.alive.blocks), signed(survivor.alive.bytes));
            if (blocks, bytes) == (0, 0) {
                continue;
            }
            *figures = Figures {
                live_blocks: blocks,
                live_bytes: bytes,
                delta_blocks: blocks,
                delta_bytes: bytes,
                total_blocks: survivor.born.blocks,
                total_bytes: survivor.born.bytes,
                ..Figures::default()
            };
            if let Some(site) = model.sites().get(survivor.site as usize)
                && model.is_sampled()
            {
                let counters = Counters {
                    live_bytes: survivor.alive.bytes,
                    live_blocks: survivor.alive.blocks,
                    total_bytes: survivor.born.bytes,
                    total_blocks: survivor.born.blocks,
                    ..Counters::default()
                };
                let scatter = model.scatter_of(survivor.site, site, figures, &counters, None);
                figures.scatter = scatter;
            }
        }
        let query = TopQuery {
            measure: query.sort.unwrap_or(Measure::Live),
            limit: query.limit,
            ..all(query, span, query.filter.clone())
        };
        let losses = model.losses().iter().map(|loss| loss.at_ns);
        Survived {
            top: Top::of_sites(model, stacks, query, Some(&figures)),
            from_ns: from.ns,
            to_ns: to.ns,
            alive_ns,
            born,
            verified_from_ns: losses.max().unwrap_or(0),
        }
    }
}
