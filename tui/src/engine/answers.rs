//! Answers over one state of the recording.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use leakline_analysis::ledger::Accounts;
use leakline_analysis::lines::SourceFrom;
use leakline_analysis::report::{printable, text::frame_words};
use leakline_analysis::{
    At, Calls, Figures, Filter, FrameId, FrameKind, Group, GroupBy, Groups, Instant, Kinds, Leaks,
    LeaksQuery, Lines, LinesQuery, Measured, Model, Role, Span, Stacks, Suppression, Weights,
};
use rustc_hash::{FxHashMap, FxHasher};

use super::heaps::Heaps;
use crate::state::data::{
    Answer, CallRow, CallTree, Cause, Column, Content, Facts, Fate, FrameName, GraphAt, GroupInfo,
    GroupName, Holders, LedgerWant, Ledgers, MarkAt, Moment, Peak, ProcessInfo, Resolved,
    SourceLine, SourceOrigin, SourceText, Subject, TREND_STEPS, Table, TableRow, TableWant,
    ThreadInfo, TimePoint, Trend, Usual, Verdict, Verdicts, Want,
};

/// Rows of the overview.
const LARGEST: usize = 100;
/// Calls that an answer holds.
const MOST_CALLS: usize = 20_000;
/// Rows that an answer holds.
const MOST_ROWS: usize = 20_000;
/// Where there are too many kinds of sites, calls are those of so many that weigh most.
const MOST_KINDS: usize = 25_000;

/// The judge's word as the screens have it.
fn word(verdict: leakline_analysis::Verdict) -> Verdict {
    match verdict {
        leakline_analysis::Verdict::Leaking => Verdict::Leaking,
        leakline_analysis::Verdict::Unreachable => Verdict::Unreachable,
        leakline_analysis::Verdict::Growing => Verdict::Growing,
        leakline_analysis::Verdict::Unclear => Verdict::Unclear,
        leakline_analysis::Verdict::Plateau => Verdict::Plateau,
        leakline_analysis::Verdict::Burst => Verdict::Burst,
        leakline_analysis::Verdict::StartUp => Verdict::StartUp,
    }
}

/// See the module.
pub(crate) struct Answers<'m, 'a> {
    pub(super) model: &'m Model<'a>,
    pub(super) stacks: Stacks<'a>,
    names: FxHashMap<FrameId, Arc<FrameName>>,
    pub(super) groups: HashMap<(GroupBy, bool), Grouped>,
    calls: [Option<Arrangement>; 2],
    pub(super) kinds: Rc<Kinds>,
    measured: Vec<(Span, Measured)>,
    text: Option<FileText>,
}

/// A source file's text.
struct FileText {
    file: Arc<str>,
    from: SourceOrigin,
    lines: Vec<(u32, Arc<str>)>,
}

/// Groups, and what is known of them.
pub(super) struct Grouped {
    pub(super) groups: Groups,
    trends: Option<Vec<Trend>>,
    matching: (String, Vec<bool>),
}

/// Calls.
struct Arrangement {
    calls: Calls,
    /// Of which span, where not all kinds are in it; how many are not, and what they weigh.
    part: Option<(Span, usize, i64)>,
}

/// What decides where a group's row is, and whether it has one.
#[derive(Clone, Copy, Default)]
struct Rank {
    /// What rows are sorted by.
    size: i64,
    total: u64,
    /// Live, or growth where two instants are compared.
    bytes: i64,
    blocks: i64,
}

impl Rank {
    fn add(&mut self, figures: &Figures, column: Column, compared: bool) {
        self.size = self.size.saturating_add(size(figures, column));
        self.total = self.total.saturating_add(figures.total_bytes);
        let (bytes, blocks) = if compared {
            (figures.delta_bytes, figures.delta_blocks)
        } else {
            (figures.live_bytes, figures.live_blocks)
        };
        self.bytes = self.bytes.saturating_add(bytes);
        self.blocks = self.blocks.saturating_add(blocks);
    }

    fn is_there(&self, column: Column, compared: bool) -> bool {
        let is_moved = self.bytes != 0 || self.blocks != 0;
        let was = self.total != 0 || (column == Column::Peak && self.size != 0);
        is_moved || (!compared && was)
    }
}

impl<'m, 'a> Answers<'m, 'a> {
    pub(crate) fn new(model: &'m Model<'a>) -> Self {
        Answers {
            kinds: Rc::new(Kinds::new(model)),
            ..Answers::without_sites(model)
        }
    }

    /// For facts and verdicts, which ask for no figures of sites.
    pub(crate) fn without_sites(model: &'m Model<'a>) -> Self {
        Answers {
            model,
            stacks: Stacks::new(model),
            names: FxHashMap::default(),
            groups: HashMap::new(),
            calls: [None, None],
            kinds: Rc::default(),
            measured: Vec::new(),
            text: None,
        }
    }

    /// The recording as a whole.
    pub(crate) fn facts(&self, growing: bool) -> Facts {
        let model = self.model;
        let session = model.session();
        let usual = Span::usual(model);
        let started = session.map_or(0, |session| session.started_unix_ns);
        let offset = i64::from(model.origin().utc_offset_seconds) * 1_000_000_000;
        let high_water = model.high_water();
        let stats = leakline_analysis::Stats::new(model);
        let processes = (0..)
            .zip(model.processes())
            .zip(&stats.processes)
            .map(|((id, facts), stats)| ProcessInfo {
                pid: facts.process.pid,
                command: model.command(id),
                python_version: facts.process.python_version,
                started_ns: facts.process.at_ns,
                ended_ns: facts.end.map(|end| end.at_ns),
                fate: match facts.end {
                    None if model.origin().ended => Fate::NotSeen,
                    None => Fate::Running,
                    Some(end) if end.exec => Fate::Exec,
                    Some(end) => match (end.signal, end.exit_status) {
                        (Some(signal), _) => Fate::Signal(signal),
                        (None, Some(status)) => Fate::Status(status),
                        (None, None) => Fate::Ended,
                    },
                },
                peak_bytes: stats.totals.peak_bytes,
                allocations: stats.totals.allocations,
                lost_events: stats.totals.lost_events,
            })
            .collect();
        let threads = model.threads().iter().map(|facts| ThreadInfo {
            process: facts.thread.process,
            tid: facts.thread.tid,
            name: facts.thread.name.clone(),
            live: (facts.counters.live_bytes, facts.counters.live_blocks),
            total: (facts.counters.total_bytes, facts.counters.total_blocks),
        });
        let times = model.bins().iter().map(|bin| TimePoint {
            end_ns: bin.end_ns,
            live_bytes: bin.live_bytes,
            live_blocks: bin.live_blocks,
            max_bytes: bin.max_bytes.max(bin.live_bytes),
            rss_bytes: (!bin.rss.is_empty()).then(|| {
                let rss = bin.rss.iter().map(|(_, bytes)| *bytes);
                rss.fold(0, u64::saturating_add)
            }),
        });
        Facts {
            file: model.origin().file.clone(),
            program: model.target(),
            mode: match model.newest_mean() {
                Some(0) => "exact".to_owned(),
                Some(_) => "sampled".to_owned(),
                None => session.map_or_else(String::new, |session| session.mode.clone()),
            },
            sample_bytes: model
                .newest_mean()
                .unwrap_or_else(|| session.map_or(0, |session| session.sample_bytes)),
            started_local_ns: i64::try_from(started)
                .unwrap_or(i64::MAX)
                .saturating_add(offset),
            duration_ns: model.duration_ns(),
            usual_ns: usual.to().resolved_ns(),
            usual: if usual.is_as_first_left() {
                Usual::MainLeft
            } else if usual.is_as_each_left() {
                Usual::EachLeft
            } else {
                Usual::End
            },
            ended: model.origin().ended,
            growing,
            warnings: model.origin().warnings.clone(),
            notes: model.notes().iter().map(|note| note.text.clone()).collect(),
            totals: stats.totals,
            peak: Peak {
                bytes: high_water.bytes,
                blocks: high_water.blocks,
                at_ns: high_water.at_ns,
            },
            times: Arc::new(times.collect()),
            marks: (model.marks().iter())
                .map(|mark| MarkAt {
                    name: mark.name.clone(),
                    at_ns: mark.at_ns,
                })
                .collect(),
            losses: (model.losses().iter())
                .map(|loss| (loss.at_ns, loss.events))
                .collect(),
            python: (model.processes().iter()).any(|facts| facts.process.python_version != 0),
            processes,
            threads: threads.collect(),
            graphs: (model.heap_graphs().iter())
                .map(|graph| GraphAt {
                    number: graph.graph,
                    name: printable(&graph.name).into_owned(),
                    at_ns: graph.at_ns,
                    process: graph.process,
                })
                .collect(),
        }
    }

    /// What leaks, and what only looks like it: of large recordings among the sites
    /// that rose most, since histories take memory.
    pub(crate) fn verdicts(&mut self) -> Option<Verdicts> {
        /// All sites of smaller recordings are judged.
        const LARGE_SITES: usize = 50_000;
        const MOST_SITES: usize = 20_000;
        const MOST_SUSPECTS: usize = 8;
        let is_large = self.model.sites().len() > LARGE_SITES;
        let query = LeaksQuery {
            most_sites: is_large.then_some(MOST_SITES),
            limit: Some(MOST_SUSPECTS),
            suppressions: Suppression::shipped(),
            ..LeaksQuery::default()
        };
        let mut leaks = Leaks::new(self.model, &mut self.stacks, query).ok()?;
        leaks.limit();
        let mut causes = Vec::new();
        for suspect in &leaks.suspects {
            if let Some(made_in) = suspect.sites[0].head.made_in {
                causes.push(Cause {
                    id: suspect.id.clone(),
                    verdict: word(suspect.verdict),
                    rate: Some((suspect.rate.bytes_per_second, suspect.rate.error)),
                    live_bytes: i64::try_from(suspect.live.bytes).unwrap_or(i64::MAX),
                    made_in: self.name(made_in),
                    held_by: None,
                    members: suspect.members.as_slice().into(),
                });
            }
        }
        for acquitted in &leaks.acquitted {
            let largest = acquitted.largest.as_ref();
            if let Some(made_in) = largest.and_then(|site| site.head.made_in) {
                causes.push(Cause {
                    id: String::new(),
                    verdict: word(acquitted.verdict),
                    rate: None,
                    live_bytes: i64::try_from(acquitted.bytes).unwrap_or(i64::MAX),
                    made_in: self.name(made_in),
                    held_by: None,
                    members: Arc::default(),
                });
            }
        }
        Some(Verdicts {
            causes,
            not_judged: leaks.not_judged,
            limit: leaks
                .forecast
                .and_then(|forecast| Some((forecast.limit_bytes, forecast.reached_in_seconds?))),
        })
    }

    /// Answers.
    pub(crate) fn answer(&mut self, want: &Want, heaps: &Heaps) -> Answer {
        if let Subject::Why(asked) = &want.subject {
            // A graph is of its own instant.
            return about_heap(want, self.why(asked, heaps));
        }
        let span = match &want.subject {
            Subject::Diff(from, _) => self.span_between(*from, want.moment),
            Subject::Table(table) if table.by == GroupBy::Thread => Span::whole(self.model),
            _ => self.span(want.moment),
        };
        let figures = self.measured(&span);
        let mut sum = Figures::default();
        self.kinds
            .for_each(self.model, &figures, |_, figures| sum.add(figures));
        let content = match &want.subject {
            Subject::Overview(asked) => {
                let mut ledgers = self.ledgers(asked, want.moment, &span);
                // Of the process that grew most.
                ledgers.accounts.drain(..usize::from(ledgers.has_sum));
                ledgers.accounts.truncate(1);
                ledgers.has_sum = false;
                let table = self.table(&TableWant::default(), &figures, false, LARGEST);
                Content::Overview(Arc::new(table), Arc::new(ledgers))
            }
            Subject::Table(table) if table.by == GroupBy::Thread => {
                Content::Table(Arc::new(self.threads(table)))
            }
            Subject::Table(table) => {
                Content::Table(Arc::new(self.table(table, &figures, false, MOST_ROWS)))
            }
            Subject::Diff(_, table) => {
                Content::Table(Arc::new(self.table(table, &figures, true, MOST_ROWS)))
            }
            Subject::Calls { inverted } => {
                Content::Calls(Arc::new(self.tree(*inverted, &figures, &span)))
            }
            Subject::Source(file) => {
                Content::Source(Arc::new(self.source(file.as_ref(), &figures)))
            }
            Subject::Processes => Content::Processes(Arc::new(self.processes(&figures, &span))),
            Subject::Stack(site) => Content::Stack(Arc::new(self.stack(*site))),
            Subject::Why(_) => Content::Why(Arc::default()),
            Subject::Ledgers(asked) => {
                Content::Ledgers(Arc::new(self.ledgers(asked, want.moment, &span)))
            }
        };
        Answer {
            want: want.clone(),
            at: resolved(span.to()),
            from: span.from().map(resolved),
            sum,
            content,
        }
    }

    /// What resident memory was made of at the instant of a span.
    fn ledgers(&self, asked: &LedgerWant, moment: Moment, span: &Span) -> Ledgers {
        let from_ns = match asked.from {
            Moment::Start => None,
            from => Some(self.span(from).to().resolved_ns()),
        };
        let found = match moment {
            Moment::Usual => Accounts::until_done(self.model, from_ns),
            Moment::End => Accounts::between(self.model, from_ns, u64::MAX),
            _ => Accounts::between(self.model, from_ns, span.to().resolved_ns()),
        };
        match found {
            Err(why) => Ledgers {
                failure: Some(why.to_string()),
                ..Ledgers::default()
            },
            Ok(mut found) => {
                found.blame(self.model, &asked.causes);
                let has_sum = found.sum.is_some();
                Ledgers {
                    accounts: found.sum.into_iter().chain(found.processes).collect(),
                    has_sum,
                    failure: None,
                }
            }
        }
    }

    fn instant(&self, moment: Moment) -> Instant {
        match moment {
            Moment::Usual => Instant::After(Span::usual(self.model).to().resolved_ns()),
            Moment::Start => Instant::Start,
            Moment::End => Instant::End,
            Moment::Peak => Instant::Peak,
            Moment::At(ns) => Instant::After(ns),
        }
    }

    fn span(&self, moment: Moment) -> Span {
        match moment {
            Moment::Usual => Span::usual(self.model),
            moment => Span::at(self.model, &self.instant(moment))
                .unwrap_or_else(|_| Span::whole(self.model)),
        }
    }

    fn span_between(&self, from: Moment, to: Moment) -> Span {
        let first = self.instant(from);
        let span = match to {
            Moment::Usual => Span::since(self.model, &first),
            _ => Span::between(self.model, &first, &self.instant(to)),
        };
        span.or_else(|_| Span::between(self.model, &self.instant(to), &first))
            .unwrap_or_else(|_| Span::whole(self.model))
    }

    /// Figures by kind of sites and by process; those of the last few questions
    /// are kept.
    fn measured(&mut self, span: &Span) -> Measured {
        if let Some((_, measured)) = self.measured.iter().find(|(of, _)| of == span) {
            return measured.clone();
        }
        let measured = self.kinds.measure(self.model, span);
        if !self.kinds.are_few() {
            // Counters of so many sites are held no longer than the answer takes.
            return measured;
        }
        self.measured.truncate(1);
        self.measured.insert(0, (*span, measured.clone()));
        measured
    }

    pub(super) fn name(&mut self, id: FrameId) -> Arc<FrameName> {
        if let Some(name) = self.names.get(&id) {
            return Arc::clone(name);
        }
        let frame = self.stacks.frame(id);
        let (function, place) = frame_words(&self.stacks, id);
        let name = Arc::new(FrameName {
            function: printable(&function).into(),
            place: printable(&place).into(),
            file: self.stacks.name(frame.file).into(),
            line: frame.line,
            own: frame.role == Role::Own,
            python: frame.kind == FrameKind::Python,
        });
        self.names.insert(id, Arc::clone(&name));
        name
    }

    /// Which groups' names have what the user typed. Frames are looked at once each, and
    /// their names are not kept: there may be hundreds of thousands.
    fn matching(&mut self, by: GroupBy, groups: &[Group], filter: &Filter) -> Vec<bool> {
        let mut known: FxHashMap<FrameId, bool> = FxHashMap::default();
        let is_named_by_frames = is_named_by_frames(by);
        let mut all = Vec::with_capacity(groups.len());
        for group in groups {
            let Some(made_in) = group.head.made_in.filter(|_| is_named_by_frames) else {
                all.push(matches(filter, &self.info(by, group)));
                continue;
            };
            let stacks = &self.stacks;
            let frames = [Some(made_in), group.head.your_code];
            all.push(frames.into_iter().flatten().any(|id| {
                *known.entry(id).or_insert_with(|| {
                    let (function, place) = frame_words(stacks, id);
                    filter.matches(&printable(&function))
                        || filter.matches(&printable(&place))
                        || filter.matches(stacks.name(stacks.frame(id).file))
                })
            }));
        }
        all
    }

    /// Where each of these groups stands by name: those of one name in the same place.
    /// Names are put together for the frames that there are, and given back.
    fn places_by_name(&mut self, by: GroupBy, order: &[u32], groups: &[Group]) -> Vec<u32> {
        let head = |group: u32| {
            let made_in = groups[group as usize].head.made_in;
            made_in.filter(|_| is_named_by_frames(by))
        };
        // What no frame names is few: those stand for themselves.
        let mut named: Vec<(Words, Result<FrameId, u32>)> = Vec::new();
        let mut place_of: FxHashMap<FrameId, u32> = FxHashMap::default();
        let mut place_of_group: FxHashMap<u32, u32> = FxHashMap::default();
        for &group in order {
            match head(group) {
                None => {
                    let info = self.info(by, &groups[group as usize]);
                    named.push((words(&info), Err(group)));
                }
                Some(id) if place_of.insert(id, 0).is_none() => {
                    let (function, place) = frame_words(&self.stacks, id);
                    let (function, place) = (printable(&function), printable(&place));
                    let words = match by {
                        GroupBy::Line => (place.into(), function.into()),
                        _ => (function.into(), place.into()),
                    };
                    named.push((words, Ok(id)));
                }
                Some(_) => {}
            }
        }
        named.sort_by(|one, other| one.0.cmp(&other.0));
        let mut place = 0;
        for at in 0..named.len() {
            place += u32::from(at > 0 && named[at].0 != named[at - 1].0);
            match named[at].1 {
                Ok(id) => drop(place_of.insert(id, place)),
                Err(group) => drop(place_of_group.insert(group, place)),
            }
        }
        let mut places = vec![0; groups.len()];
        for &group in order {
            let of_frame = head(group).and_then(|id| place_of.get(&id));
            let of_group = || place_of_group.get(&group);
            places[group as usize] = of_frame.or_else(of_group).copied().unwrap_or(0);
        }
        places
    }

    pub(super) fn grouped(&mut self, by: GroupBy, inclusive: bool) -> &mut Grouped {
        let key = grouped_key(by, inclusive);
        let known = self.groups.remove(&key);
        let grouped = known.unwrap_or_else(|| {
            let groups = Groups::new(self.model, &self.kinds, &mut self.stacks, by, key.1);
            if !self.kinds.are_few() {
                self.stacks.forget_nodes();
                // Any of these may be as large.
                self.groups.clear();
            }
            Grouped {
                groups,
                trends: None,
                matching: (String::new(), Vec::new()),
            }
        });
        self.groups.entry(key).or_insert(grouped)
    }

    pub(super) fn info(&mut self, by: GroupBy, group: &Group) -> GroupInfo {
        let made_in = group.head.made_in.map(|id| self.name(id));
        let your_code = (group.head.your_code)
            .filter(|own| Some(*own) != group.head.made_in)
            .map(|id| self.name(id));
        let mut hasher = FxHasher::default();
        let name = match (by, made_in) {
            (GroupBy::Process, _) => {
                let process = group.process.unwrap_or(0);
                process.hash(&mut hasher);
                let pid = self.model.processes().get(process as usize);
                let command = self.model.command(process);
                let command = printable(&command).into();
                GroupName::Process(command, pid.map_or(0, |facts| facts.process.pid))
            }
            (GroupBy::Domain, _) => match group.domain {
                Some(domain) => {
                    domain.hash(&mut hasher);
                    GroupName::Domain(domain)
                }
                None => GroupName::Unknown,
            },
            (GroupBy::File | GroupBy::Library, _) => match group.name {
                Some(name) if !name.is_empty() => {
                    let name = self.stacks.name(name);
                    name.hash(&mut hasher);
                    GroupName::Text(printable(name).into())
                }
                _ => GroupName::Unknown,
            },
            (_, None) => GroupName::Unknown,
            (by, Some(made_in)) => {
                (&made_in.function, &made_in.file).hash(&mut hasher);
                match by {
                    GroupBy::Site => {
                        group.site.hash(&mut hasher);
                        GroupName::Site(made_in)
                    }
                    GroupBy::Line => {
                        made_in.line.hash(&mut hasher);
                        GroupName::Line(made_in)
                    }
                    _ => GroupName::Function(made_in),
                }
            }
        };
        GroupInfo {
            key: hasher.finish(),
            name,
            your_code,
            domain: group.domain,
            site: group.site,
        }
    }

    /// The first `most` rows.
    fn table(
        &mut self,
        want: &TableWant,
        measured: &Measured,
        compared: bool,
        most: usize,
    ) -> Table {
        self.grouped(want.by, want.inclusive);
        let key = grouped_key(want.by, want.inclusive);
        // Taken out while frames get their names.
        let Some(mut grouped) = self.groups.remove(&key) else {
            return Table::default();
        };
        let table = self.rows(want, &mut grouped, measured, compared, most);
        self.groups.insert(key, grouped);
        table
    }

    fn rows(
        &mut self,
        want: &TableWant,
        grouped: &mut Grouped,
        measured: &Measured,
        compared: bool,
        most: usize,
    ) -> Table {
        let kinds = Rc::clone(&self.kinds);
        let groups = &grouped.groups;
        let mut ranks = vec![Rank::default(); groups.groups().len()];
        let rank = |group: usize, figures: &Figures| ranks[group].add(figures, want.sort, compared);
        groups.for_each(
            self.model,
            &kinds,
            &mut self.stacks,
            measured,
            want.inclusive,
            rank,
        );
        if !want.filter.is_empty() && grouped.matching.0 != want.filter {
            let filter = Filter::new(&want.filter);
            let matching = self.matching(want.by, groups.groups(), &filter);
            grouped.matching = (want.filter.clone(), matching);
        }
        let matching = &grouped.matching.1;
        let mut order: Vec<u32> = (0..)
            .zip(&ranks)
            .filter(|(group, rank)| {
                rank.is_there(want.sort, compared)
                    && (want.filter.is_empty() || matching[*group as usize])
            })
            .map(|(group, _)| group)
            .collect();
        self.sort(&mut order, most, &ranks, groups, want);
        let left_out = order.get(most..).unwrap_or(&[]);
        let left_out_bytes = (left_out.iter())
            .map(|&group| ranks[group as usize].bytes)
            .fold(0, i64::saturating_add);
        let left_out = (left_out.len(), left_out_bytes);
        order.truncate(most);
        drop(ranks);

        let mut places = vec![u32::MAX; groups.groups().len()];
        for (place, &group) in (0..).zip(&order) {
            places[group as usize] = place;
        }
        let mut rows: Vec<TableRow> = (0..)
            .zip(&order)
            .map(|(group, _)| TableRow {
                group,
                figures: Figures::default(),
                own_bytes: 0,
            })
            .collect();
        let place_of = |group: usize| places[group] as usize;
        for is_own in [false, true] {
            if is_own && !want.inclusive {
                for row in &mut rows {
                    row.own_bytes = row.figures.live_bytes;
                }
                break;
            }
            let add = |group: usize, figures: &Figures| {
                let Some(row) = rows.get_mut(place_of(group)) else {
                    return;
                };
                if is_own {
                    row.own_bytes = row.own_bytes.saturating_add(figures.live_bytes);
                } else {
                    row.figures.add(figures);
                }
            };
            let is_inclusive = want.inclusive && !is_own;
            groups.for_each(
                self.model,
                &kinds,
                &mut self.stacks,
                measured,
                is_inclusive,
                add,
            );
        }
        let infos = order
            .iter()
            .map(|&group| self.info(want.by, &groups.groups()[group as usize]));
        let infos = infos.collect();
        let trends = grouped.trends.as_ref();
        let trends = trends.map(|trends| order.iter().map(|&group| trends[group as usize]));
        Table {
            groups: Arc::new(infos),
            rows,
            trends: trends.map(|trends| Arc::new(trends.collect())),
            left_out,
        }
    }

    /// Puts the first `most` groups in the order in which rows are shown, and the others
    /// behind them.
    fn sort(
        &mut self,
        order: &mut [u32],
        most: usize,
        ranks: &[Rank],
        groups: &Groups,
        want: &TableWant,
    ) {
        let in_order = |order: Ordering| {
            if want.ascending {
                order
            } else {
                order.reverse()
            }
        };
        let rank = |group: u32| ranks[group as usize];
        if want.sort == Column::Name {
            // Names begin with the first, figures with the largest.
            let places = self.places_by_name(want.by, order, groups.groups());
            let place = |group: u32| places[group as usize];
            first_of(order, most, |&one, &other| {
                in_order(place(other).cmp(&place(one)))
                    .then_with(|| rank(other).total.cmp(&rank(one).total))
                    .then(one.cmp(&other))
            });
            return;
        }
        // The lower number decides between equals.
        first_of(order, most, |&one, &other| {
            let (first, second) = (rank(one), rank(other));
            in_order(first.size.cmp(&second.size))
                .then(second.total.cmp(&first.total))
                .then(one.cmp(&other))
        });
    }

    fn threads(&self, want: &TableWant) -> Table {
        let filter = Filter::new(&want.filter);
        let mut infos = Vec::new();
        let mut rows = Vec::new();
        for (id, facts) in (0_u32..).zip(self.model.threads()) {
            let process = self.model.processes().get(facts.thread.process as usize);
            let pid = process.map_or(0, |process| process.process.pid);
            let name = if facts.thread.name.is_empty() {
                "thread"
            } else {
                &facts.thread.name
            };
            let info = GroupInfo {
                key: id.into(),
                name: GroupName::Thread(printable(name).into(), facts.thread.tid, pid),
                your_code: None,
                domain: None,
                site: None,
            };
            let counters = &facts.counters;
            let mut figures = Figures {
                live_bytes: counters.live_bytes.cast_signed(),
                live_blocks: counters.live_blocks.cast_signed(),
                total_bytes: counters.total_bytes,
                total_blocks: counters.total_blocks,
                temporary_blocks: counters.temporary_blocks,
                resizes: counters.resizes,
                ..Figures::default()
            };
            let is_there = figures != Figures::default();
            if self.model.is_sampled() {
                figures = figures.sampled_at(self.model.sample_bytes());
            }
            if is_there && matches(&filter, &info) {
                rows.push(TableRow {
                    group: id,
                    figures,
                    own_bytes: figures.live_bytes,
                });
            }
            infos.push(info);
        }
        sort(&mut rows, &infos, want);
        Table {
            groups: Arc::new(infos),
            rows,
            trends: None,
            left_out: (0, 0),
        }
    }

    /// Whether an answer would show trends that were not made yet.
    pub(crate) fn lacks_trends(&mut self, want: &Want) -> bool {
        trends_of(&want.subject)
            .is_some_and(|(by, inclusive)| self.grouped(by, inclusive).trends.is_none())
    }

    /// Makes them: one pass over all points.
    pub(crate) fn make_trends(&mut self, want: &Want) {
        let Some((by, inclusive)) = trends_of(&want.subject) else {
            return;
        };
        let model = self.model;
        let duration = model.duration_ns();
        let kinds = Rc::clone(&self.kinds);
        self.grouped(by, inclusive);
        let key = grouped_key(by, inclusive);
        let Some(grouped) = self.groups.get_mut(&key) else {
            return;
        };
        let groups = &grouped.groups;
        let is_through = key.1;
        // What is live of each group, or of each kind where that is in several.
        let count = if is_through {
            kinds.len()
        } else {
            groups.groups().len()
        };
        let part_of = |site: u32| match (by, kinds.of_site(site)) {
            (GroupBy::Process, _) => Some(model.sites()[site as usize].process as usize),
            (_, Some(kind)) if !is_through => groups.of_kind(kind),
            (_, kind) => kind,
        };
        let mut live = vec![0_i64; count];
        // A spark has eight heights, and there may be a million of them.
        let mut steps: Vec<Vec<Rounded>> = Vec::with_capacity(TREND_STEPS);
        let mut bins = model.bins().iter().enumerate().peekable();
        for step in 1..=TREND_STEPS as u64 {
            let until = u128::from(duration) * u128::from(step) / TREND_STEPS as u128;
            while let Some((bin, _)) = bins.next_if(|(_, bin)| u128::from(bin.end_ns) <= until) {
                model.for_each_point(bin, |point| {
                    if let Some(live) = part_of(point.site).and_then(|part| live.get_mut(part)) {
                        *live = live.wrapping_add(point.live_bytes);
                    }
                });
            }
            steps.push(live.iter().map(|&live| Rounded::of(live)).collect());
        }
        drop(live);
        if is_through {
            let mut of_groups = vec![vec![0_i64; groups.groups().len()]; TREND_STEPS];
            groups.for_each_of_kind(model, &kinds, &mut self.stacks, |kind, group| {
                for (of_group, step) in of_groups.iter_mut().zip(&steps) {
                    of_group[group] = of_group[group].saturating_add(step[kind].value());
                }
            });
            let rounded = |of_group: Vec<i64>| of_group.into_iter().map(Rounded::of).collect();
            steps = of_groups.into_iter().map(rounded).collect();
        }
        let trends = (0..groups.groups().len()).map(|group| {
            let value = |step: &Vec<Rounded>| step[group].value() as f64;
            let most = steps.iter().map(value).fold(0.0, f64::max);
            let mut trend = [0; TREND_STEPS];
            if most > 0.0 {
                for (trend, step) in trend.iter_mut().zip(&steps) {
                    *trend = (value(step) / most * 255.0).round() as u8;
                }
            }
            trend
        });
        grouped.trends = Some(trends.collect());
    }

    fn tree(&mut self, inverted: bool, measured: &Measured, span: &Span) -> CallTree {
        let mut live = vec![0_i64; self.kinds.len()];
        self.kinds.for_each(self.model, measured, |kind, figures| {
            live[kind] = live[kind].saturating_add(figures.live_bytes);
        });
        for live in &mut live {
            *live = (*live).max(0);
        }
        let slot = usize::from(inverted);
        let is_known = self.calls[slot].as_ref().is_some_and(|known| {
            let part = known.part.as_ref();
            part.is_none_or(|(of, ..)| of == span)
        });
        if !is_known {
            // What is there is not of use, and may be large.
            self.calls[slot] = None;
            let arrangement = self.arrangement(inverted, &live, span);
            self.calls[slot] = Some(arrangement);
        }
        // Taken out while frames get their names.
        let Some(arrangement) = self.calls[slot].take() else {
            return CallTree::default();
        };
        let tree = self.arrange(&arrangement, &live);
        if arrangement.part.is_none() {
            self.calls[slot] = Some(arrangement);
        }
        tree
    }

    fn arrangement(&mut self, inverted: bool, live: &[i64], span: &Span) -> Arrangement {
        let (kinds, stacks) = (&self.kinds, &mut self.stacks);
        if kinds.are_few() {
            return Arrangement {
                calls: Calls::new(self.model, kinds, stacks, inverted),
                part: None,
            };
        }
        let mut chosen: Vec<usize> = (0..live.len()).filter(|&kind| live[kind] > 0).collect();
        let mut left_out = (0, 0_i64);
        if chosen.len() > MOST_KINDS {
            let heavier = |kind: &usize| (std::cmp::Reverse(live[*kind]), *kind);
            chosen.select_nth_unstable_by_key(MOST_KINDS, heavier);
            let others = chosen.split_off(MOST_KINDS);
            left_out.0 = others.len();
            left_out.1 = (others.iter())
                .map(|&kind| live[kind])
                .fold(0, i64::saturating_add);
            chosen.sort_unstable();
        }
        Arrangement {
            calls: Calls::of(self.model, kinds, stacks, inverted, &chosen),
            part: Some((*span, left_out.0, left_out.1)),
        }
    }

    /// What tells a call's path from others, given its caller's.
    fn call_key(&self, id: FrameId, parent: u64) -> u64 {
        let frame = self.stacks.frame(id);
        let name = |name| self.stacks.name(name);
        let mut hasher = FxHasher::default();
        (name(frame.function), name(frame.file)).hash(&mut hasher);
        (name(frame.module), frame.line).hash(&mut hasher);
        let of_frame = hasher.finish();
        let mut hasher = FxHasher::default();
        (parent, of_frame).hash(&mut hasher);
        hasher.finish()
    }

    fn arrange(&mut self, arrangement: &Arrangement, live: &[i64]) -> CallTree {
        let calls = &arrangement.calls;
        let weights: Weights = calls.weigh(|kind| live[kind]);
        let chosen = calls.heaviest(&weights, MOST_CALLS);
        let weighty = weights.total.iter().filter(|&&weight| weight > 0).count();
        let mut below: FxHashMap<usize, Vec<usize>> = FxHashMap::default();
        let mut pending = Vec::new();
        for &call in &chosen {
            match calls.parent(call) {
                Some(parent) => below.entry(parent).or_default().push(call),
                None => pending.push(call),
            }
        }
        // The lightest first: they are taken from the end.
        let by_weight = |ids: &mut Vec<usize>| {
            ids.sort_by_key(|&call| (weights.total[call], std::cmp::Reverse(call)));
        };
        by_weight(&mut pending);
        let bytes = live.iter().copied().fold(0, i64::saturating_add);
        let mut pending: Vec<(usize, Option<u32>, u16)> =
            pending.into_iter().map(|call| (call, None, 0)).collect();
        let mut rows: Vec<CallRow> = Vec::with_capacity(chosen.len());
        while let Some((call, parent, depth)) = pending.pop() {
            let row = u32::try_from(rows.len()).ok();
            let mut callees = below.remove(&call).unwrap_or_default();
            by_weight(&mut callees);
            let parent_key = parent.map_or(0, |parent| rows[parent as usize].key);
            rows.push(CallRow {
                key: self.call_key(calls.frame(call), parent_key),
                parent,
                depth,
                frame: self.name(calls.frame(call)),
                bytes: weights.total[call],
                own: weights.own[call],
                has_calls: !callees.is_empty(),
            });
            let deeper = depth.saturating_add(1);
            pending.extend(callees.into_iter().map(|callee| (callee, row, deeper)));
        }
        CallTree {
            left_out: weighty - rows.len(),
            left_out_sites: arrangement
                .part
                .map_or((0, 0), |(_, sites, bytes)| (sites, bytes)),
            calls: rows,
            bytes,
        }
    }

    fn source(&mut self, file: Option<&Arc<str>>, measured: &Measured) -> SourceText {
        let Some(file) = file.cloned().or_else(|| self.weightiest_file(measured)) else {
            return SourceText::default();
        };
        if self.text.as_ref().is_none_or(|text| text.file != file) {
            let query = LinesQuery {
                span: self.span(Moment::Start),
                inclusive: false,
                sort: None,
                limit: None,
                filter: None,
            };
            let on_disk = text_of(Path::new(&*file));
            let stacks = &mut self.stacks;
            let lines = Lines::new(
                self.model,
                stacks,
                query,
                file.to_string(),
                on_disk.as_deref(),
            );
            let from = match lines.source {
                SourceFrom::Recording => SourceOrigin::Recording,
                SourceFrom::File => SourceOrigin::File,
                SourceFrom::RecordingOnly => SourceOrigin::Changed,
                SourceFrom::Nowhere => SourceOrigin::Nowhere,
            };
            let text = (lines.text.into_iter())
                .map(|(line, text)| (line, printable(&text.replace('\t', "    ")).into()))
                .collect();
            self.text = Some(FileText {
                file: Arc::clone(&file),
                from,
                lines: text,
            });
        }
        let mut lines: BTreeMap<u32, SourceLine> = BTreeMap::new();
        let mut from = SourceOrigin::Nowhere;
        if let Some(known) = &self.text {
            from = known.from;
            for (line, text) in &known.lines {
                lines.entry(*line).or_default().text = Some(Arc::clone(text));
            }
        }
        for (number, line) in self.figures_of_lines(&file, measured) {
            lines.entry(number).or_default().own = line.own;
            lines.entry(number).or_default().total_bytes = line.total_bytes;
        }
        SourceText {
            file: Some(file),
            from,
            lines: (lines.into_iter())
                .map(|(line, of)| SourceLine { line, ..of })
                .collect(),
        }
    }

    /// What the lines of a file hold, by number; where anything was allocated.
    fn figures_of_lines(&mut self, file: &str, measured: &Measured) -> BTreeMap<u32, SourceLine> {
        self.grouped(GroupBy::Line, true);
        let key = grouped_key(GroupBy::Line, true);
        let Some(grouped) = self.groups.remove(&key) else {
            return BTreeMap::new();
        };
        let kinds = Rc::clone(&self.kinds);
        let groups = &grouped.groups;
        let line_of = |stacks: &Stacks<'_>, group: &Group| {
            let frame = stacks.frame(group.head.made_in?);
            (frame.line != 0 && stacks.name(frame.file) == file).then_some(frame.line)
        };
        let line_of: Vec<Option<u32>> = (groups.groups().iter())
            .map(|group| line_of(&self.stacks, group))
            .collect();
        // Lines, and whether anything was allocated there or below.
        let mut lines: BTreeMap<u32, (SourceLine, bool)> = BTreeMap::new();
        for is_inclusive in [true, false] {
            let add = |group: usize, figures: &Figures| {
                let Some(number) = line_of[group] else { return };
                let (line, any) = lines.entry(number).or_default();
                if is_inclusive {
                    *any |= figures.total_bytes != 0;
                    line.total_bytes = line.total_bytes.saturating_add(figures.live_bytes);
                } else {
                    line.own.add(figures);
                }
            };
            groups.for_each(
                self.model,
                &kinds,
                &mut self.stacks,
                measured,
                is_inclusive,
                add,
            );
        }
        self.groups.insert(key, grouped);
        let told = lines.into_iter().filter(|(_, (_, any))| *any);
        told.map(|(number, (line, _))| (number, line)).collect()
    }

    /// The file of your own code, with its text in the recording, in which
    /// most is live, else any that has lines.
    fn weightiest_file(&mut self, measured: &Measured) -> Option<Arc<str>> {
        let model = self.model;
        self.grouped(GroupBy::Line, true);
        let key = grouped_key(GroupBy::Line, true);
        let grouped = self.groups.remove(&key)?;
        let kinds = Rc::clone(&self.kinds);
        let groups = &grouped.groups;
        let mut live = vec![0_i64; groups.groups().len()];
        let add = |group: usize, figures: &Figures| {
            live[group] = live[group].saturating_add(figures.live_bytes);
        };
        groups.for_each(model, &kinds, &mut self.stacks, measured, false, add);
        let mut files: FxHashMap<Arc<str>, (bool, bool, i64)> = FxHashMap::default();
        for (group, live) in groups.groups().iter().zip(live) {
            // Those that only called are no file's own.
            let (Some(id), Some(_)) = (group.head.made_in, group.site) else {
                continue;
            };
            let frame = self.name(id);
            if frame.line != 0 && !frame.file.is_empty() {
                let known = model.sources().contains_key(&*frame.file);
                let entry = files
                    .entry(Arc::clone(&frame.file))
                    .or_insert((known, frame.own, 0));
                entry.2 = entry.2.saturating_add(live);
            }
        }
        self.groups.insert(key, grouped);
        let best = files
            .into_iter()
            .max_by(|one, other| one.1.cmp(&other.1).then_with(|| other.0.cmp(&one.0)));
        best.map(|(file, _)| file)
    }

    fn processes(&mut self, measured: &Measured, span: &Span) -> Vec<(Figures, Option<u64>)> {
        let model = self.model;
        let figures = self.kinds.of_processes(model, measured);
        let mut all: Vec<(Figures, Option<u64>)> = (figures.into_iter())
            .map(|figures| (figures, None))
            .collect();
        let until = span.to().resolved_ns();
        for bin in model.bins().iter().filter(|bin| bin.end_ns <= until) {
            for &(process, bytes) in &bin.rss {
                if let Some((_, rss)) = all.get_mut(process as usize) {
                    *rss = Some(bytes);
                }
            }
        }
        for ((_, rss), facts) in all.iter_mut().zip(model.processes()) {
            if facts.end.is_some_and(|end| end.at_ns < until) {
                *rss = None;
            }
        }
        all
    }

    fn stack(&mut self, site: u32) -> Vec<FrameName> {
        let Some(site) = self.model.sites().get(site as usize) else {
            return Vec::new();
        };
        let stack = self.stacks.stack(self.model, site.node);
        let shown = |stacks: &Stacks<'_>, id: &FrameId| stacks.is_shown(*id);
        let any = stack.iter().any(|id| shown(&self.stacks, id));
        stack
            .into_iter()
            .filter(|id| !any || shown(&self.stacks, id))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|id| (*self.name(id)).clone())
            .collect()
    }
}

/// An answer by a heap graph.
pub(super) fn about_heap(want: &Want, holders: Arc<Holders>) -> Answer {
    Answer {
        want: want.clone(),
        at: Resolved::default(),
        from: None,
        sum: Figures::default(),
        content: Content::Why(holders),
    }
}

/// The groups whose trends an answer shows.
fn trends_of(subject: &Subject) -> Option<(GroupBy, bool)> {
    match subject {
        Subject::Overview(_) => Some((GroupBy::Site, false)),
        Subject::Table(table) if table.by != GroupBy::Thread => Some((table.by, table.inclusive)),
        _ => None,
    }
}

fn resolved(at: &At) -> Resolved {
    Resolved {
        ns: at.resolved_ns(),
        resolution_ns: at.resolution_ns(),
        exact: at.exact(),
    }
}

/// A number that is not negative, to a thousandth: its highest eleven bits.
#[derive(Clone, Copy)]
struct Rounded(u16);

impl Rounded {
    const BITS: u32 = 10;

    fn of(value: i64) -> Self {
        let value = value.max(0);
        let more = (i64::BITS - value.leading_zeros()).saturating_sub(Self::BITS + 1);
        // Of what has eleven bits the highest is set, and adds one to the exponent.
        let all = (i64::from(more) << Self::BITS) + (value >> more);
        Rounded(u16::try_from(all).unwrap_or(u16::MAX))
    }

    fn value(self) -> i64 {
        let of_bits = i64::from(self.0) & ((1 << Self::BITS) - 1);
        match self.0 >> Self::BITS {
            0 => of_bits,
            more => (of_bits | 1 << Self::BITS) << (more - 1),
        }
    }
}

/// Sorts the first `most`, which come before all others.
fn first_of<T>(all: &mut [T], most: usize, mut compare: impl FnMut(&T, &T) -> Ordering) {
    if all.len() > most {
        all.select_nth_unstable_by(most, &mut compare);
    }
    let most = most.min(all.len());
    all[..most].sort_unstable_by(compare);
}

/// A row's figure in a column; a name has none.
fn size(figures: &Figures, column: Column) -> i64 {
    let unsigned = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    match column {
        Column::Live => figures.live_bytes,
        Column::Blocks => figures.live_blocks,
        Column::Peak => unsigned(figures.peak_bytes),
        Column::Total => unsigned(figures.total_bytes),
        Column::Temporary => unsigned(figures.temporary_blocks),
        Column::Growth => figures.delta_bytes,
        Column::Name => 0,
    }
}

/// Under what groups are kept: only frames have callers.
pub(super) fn grouped_key(by: GroupBy, inclusive: bool) -> (GroupBy, bool) {
    let of_frames = matches!(
        by,
        GroupBy::Line | GroupBy::Function | GroupBy::File | GroupBy::Library
    );
    (by, inclusive && of_frames)
}

/// Puts the rows of threads, which are few, in order.
fn sort(rows: &mut [TableRow], infos: &[GroupInfo], want: &TableWant) {
    let in_order = |order: Ordering| {
        if want.ascending {
            order
        } else {
            order.reverse()
        }
    };
    let name = |row: &TableRow| words(&infos[row.group as usize]);
    rows.sort_by(|one, other| {
        let by_size = size(&one.figures, want.sort).cmp(&size(&other.figures, want.sort));
        let order = match want.sort {
            Column::Name => name(other).cmp(&name(one)),
            _ => by_size,
        };
        in_order(order)
            .then(other.figures.total_bytes.cmp(&one.figures.total_bytes))
            .then(one.group.cmp(&other.group))
    });
}

/// The words to sort a group by.
type Words = (Arc<str>, Arc<str>);

/// See [`Words`].
fn words(info: &GroupInfo) -> Words {
    let pair = |one: &Arc<str>, other: &Arc<str>| (Arc::clone(one), Arc::clone(other));
    match &info.name {
        GroupName::Site(frame) | GroupName::Function(frame) => pair(&frame.function, &frame.place),
        GroupName::Line(frame) => pair(&frame.place, &frame.function),
        GroupName::Text(text) | GroupName::Process(text, _) | GroupName::Thread(text, ..) => {
            (Arc::clone(text), "".into())
        }
        GroupName::Domain(domain) => (domain.name().into(), "".into()),
        GroupName::Unknown => ("".into(), "".into()),
    }
}

/// Whether groups have the names of their frames.
fn is_named_by_frames(by: GroupBy) -> bool {
    matches!(by, GroupBy::Site | GroupBy::Line | GroupBy::Function)
}

/// Whether a row's names have what the user typed.
fn matches(filter: &Filter, info: &GroupInfo) -> bool {
    let frame = |frame: &FrameName| {
        filter.matches(&frame.function)
            || filter.matches(&frame.place)
            || filter.matches(&frame.file)
    };
    let name = match &info.name {
        GroupName::Site(name) | GroupName::Line(name) | GroupName::Function(name) => frame(name),
        GroupName::Text(text) => filter.matches(text),
        GroupName::Process(command, pid) => filter.matches(&format!("{command} (pid {pid})")),
        GroupName::Thread(name, tid, pid) => {
            filter.matches(&format!("{name} (tid {tid} of {pid})"))
        }
        GroupName::Domain(domain) => filter.matches(domain.name()),
        GroupName::Unknown => filter.matches("not known"),
    };
    name || info.your_code.as_ref().is_some_and(|own| frame(own))
}

/// The text of a source file, where it is one and is here. The path comes from
/// a recording and may name anything.
fn text_of(file: &Path) -> Option<String> {
    const MOST_BYTES: u64 = 16 << 20;
    let data = fs::metadata(file).ok()?;
    let readable = data.is_file() && data.len() <= MOST_BYTES;
    readable.then(|| fs::read_to_string(file).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rounded_is_near_and_in_order() {
        let mut before = Rounded::of(-5).value();
        assert_eq!(before, 0);
        for bit in 0..63 {
            for value in [
                1_i64 << bit,
                (1 << bit) + (1 << bit) / 3,
                i64::MAX >> (62 - bit),
            ] {
                let rounded = Rounded::of(value).value();
                assert!(
                    rounded <= value && value - rounded <= value / 1024,
                    "{value}"
                );
                assert!(rounded >= before, "{value}");
                before = rounded;
            }
        }
    }
}
