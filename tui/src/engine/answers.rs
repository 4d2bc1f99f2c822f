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
    LeaksQuery, Lines, LinesQuery, Model, Role, Span, Stacks, Sums, Suppression, Weights,
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
    groups: HashMap<(GroupBy, bool), Grouped>,
    calls: [Option<Arrangement>; 2],
    pub(super) kinds: Rc<Kinds>,
    figures: Vec<(Span, Arc<Sums<Figures>>)>,
    text: Option<FileText>,
}

/// A source file's text.
struct FileText {
    file: Arc<str>,
    from: SourceOrigin,
    lines: Vec<(u32, Arc<str>)>,
}

/// Groups, with their names.
pub(super) struct Grouped {
    pub(super) groups: Groups,
    pub(super) infos: Arc<Vec<GroupInfo>>,
    trends: Option<Arc<Vec<Trend>>>,
    matching: (String, Vec<bool>),
}

/// Calls, with their keys.
struct Arrangement {
    calls: Calls,
    keys: Vec<u64>,
}

impl<'m, 'a> Answers<'m, 'a> {
    pub(crate) fn new(model: &'m Model<'a>) -> Self {
        Answers {
            model,
            stacks: Stacks::new(model),
            names: FxHashMap::default(),
            groups: HashMap::new(),
            calls: [None, None],
            kinds: Rc::new(Kinds::new(model)),
            figures: Vec::new(),
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

    /// What leaks, and what only looks like it. `None` where there are so many
    /// sites that it would take too much memory.
    pub(crate) fn verdicts(&mut self) -> Option<Verdicts> {
        const MOST_SITES: usize = 50_000;
        const MOST_SUSPECTS: usize = 8;
        if self.model.sites().len() > MOST_SITES {
            return None;
        }
        let query = LeaksQuery {
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
        let figures = self.figures(&span);
        let mut sum = Figures::default();
        (figures.of_kind.iter()).for_each(|figures| sum.add(figures));
        let content = match &want.subject {
            Subject::Overview(asked) => {
                let mut ledgers = self.ledgers(asked, want.moment, &span);
                // Of the process that grew most.
                ledgers.accounts.drain(..usize::from(ledgers.has_sum));
                ledgers.accounts.truncate(1);
                ledgers.has_sum = false;
                let mut table = self.table(&TableWant::default(), &figures, false);
                table.rows.truncate(LARGEST);
                Content::Overview(Arc::new(table), Arc::new(ledgers))
            }
            Subject::Table(table) if table.by == GroupBy::Thread => {
                Content::Table(Arc::new(self.threads(table)))
            }
            Subject::Table(table) => Content::Table(Arc::new(self.table(table, &figures, false))),
            Subject::Diff(_, table) => Content::Table(Arc::new(self.table(table, &figures, true))),
            Subject::Calls { inverted } => Content::Calls(Arc::new(self.tree(*inverted, &figures))),
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
    fn figures(&mut self, span: &Span) -> Arc<Sums<Figures>> {
        if let Some((_, figures)) = self.figures.iter().find(|(of, _)| of == span) {
            return Arc::clone(figures);
        }
        let figures = Arc::new(self.kinds.sums(self.model, span));
        self.figures.truncate(1);
        self.figures.insert(0, (*span, Arc::clone(&figures)));
        figures
    }

    pub(super) fn name(&mut self, id: FrameId) -> Arc<FrameName> {
        let stacks = &self.stacks;
        let name = self.names.entry(id).or_insert_with(|| {
            let frame = stacks.frame(id);
            let (function, place) = frame_words(stacks, id);
            Arc::new(FrameName {
                function: printable(&function).into(),
                place: printable(&place).into(),
                file: stacks.name(frame.file).into(),
                line: frame.line,
                own: frame.role == Role::Own,
                python: frame.kind == FrameKind::Python,
            })
        });
        Arc::clone(name)
    }

    pub(super) fn grouped(&mut self, by: GroupBy, inclusive: bool) -> &mut Grouped {
        let of_frames = matches!(
            by,
            GroupBy::Line | GroupBy::Function | GroupBy::File | GroupBy::Library
        );
        let key = (by, inclusive && of_frames);
        let known = self.groups.remove(&key);
        let grouped = known.unwrap_or_else(|| {
            let groups = Groups::new(self.model, &self.kinds, &mut self.stacks, by, key.1);
            let infos = (groups.groups().iter())
                .map(|group| self.info(by, group))
                .collect();
            Grouped {
                groups,
                infos: Arc::new(infos),
                trends: None,
                matching: (String::new(), Vec::new()),
            }
        });
        self.groups.entry(key).or_insert(grouped)
    }

    fn info(&mut self, by: GroupBy, group: &Group) -> GroupInfo {
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

    fn table(&mut self, want: &TableWant, figures: &Sums<Figures>, compared: bool) -> Table {
        let grouped = self.grouped(want.by, want.inclusive);
        let totals = grouped.groups.total(figures);
        let own: Option<Vec<Figures>> = want.inclusive.then(|| grouped.groups.own(figures));
        if !want.filter.is_empty() && grouped.matching.0 != want.filter {
            let filter = Filter::new(&want.filter);
            let matching = grouped.infos.iter().map(|info| matches(&filter, info));
            grouped.matching = (want.filter.clone(), matching.collect());
        }
        let mut rows: Vec<TableRow> = totals
            .iter()
            .enumerate()
            .filter(|(group, figures)| {
                let is_there = if compared {
                    figures.delta_bytes != 0 || figures.delta_blocks != 0
                } else {
                    figures.live_bytes != 0
                        || figures.live_blocks != 0
                        || figures.total_bytes != 0
                        || (want.sort == Column::Peak && figures.peak_bytes != 0)
                };
                is_there && (want.filter.is_empty() || grouped.matching.1[*group])
            })
            .map(|(group, figures)| TableRow {
                group: u32::try_from(group).unwrap_or(u32::MAX),
                figures: *figures,
                own_bytes: own
                    .as_ref()
                    .map_or(figures.live_bytes, |own| own[group].live_bytes),
            })
            .collect();
        sort(&mut rows, &grouped.infos, want);
        Table {
            groups: Arc::clone(&grouped.infos),
            rows,
            trends: grouped.trends.clone(),
        }
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
        let mut live = kinds.none::<i64>();
        let grouped = self.grouped(by, inclusive);
        let mut steps: Vec<Vec<i64>> = Vec::with_capacity(TREND_STEPS);
        let mut bins = model.bins().iter().enumerate().peekable();
        for step in 1..=TREND_STEPS as u64 {
            let until = u128::from(duration) * u128::from(step) / TREND_STEPS as u128;
            while let Some((bin, _)) = bins.next_if(|(_, bin)| u128::from(bin.end_ns) <= until) {
                model.for_each_point(bin, |point| {
                    let process = model.sites()[point.site as usize].process;
                    let kind = kinds.of_site(point.site);
                    let of_kind = kind.and_then(|kind| live.of_kind.get_mut(kind));
                    let of_process = live.of_process.get_mut(process as usize);
                    for live in of_kind.into_iter().chain(of_process) {
                        *live = live.wrapping_add(point.live_bytes);
                    }
                });
            }
            steps.push(grouped.groups.weigh(&live));
        }
        let trends = (0..grouped.infos.len()).map(|group| {
            let most = steps.iter().map(|step| step[group]).max().unwrap_or(0);
            let mut trend = [0; TREND_STEPS];
            if most > 0 {
                for (trend, step) in trend.iter_mut().zip(&steps) {
                    let share = step[group].max(0) as f64 / most as f64;
                    *trend = (share * 255.0).round() as u8;
                }
            }
            trend
        });
        grouped.trends = Some(Arc::new(trends.collect()));
    }

    fn tree(&mut self, inverted: bool, figures: &Sums<Figures>) -> CallTree {
        let slot = usize::from(inverted);
        if self.calls[slot].is_none() {
            let calls = Calls::new(self.model, &self.kinds, &mut self.stacks, inverted);
            let mut of_frames: FxHashMap<FrameId, u64> = FxHashMap::default();
            let mut keys: Vec<u64> = Vec::with_capacity(calls.len());
            for call in 0..calls.len() {
                let id = calls.frame(call);
                let stacks = &self.stacks;
                let of_frame = *of_frames.entry(id).or_insert_with(|| {
                    let frame = stacks.frame(id);
                    let mut hasher = FxHasher::default();
                    (stacks.name(frame.function), stacks.name(frame.file)).hash(&mut hasher);
                    (stacks.name(frame.module), frame.line).hash(&mut hasher);
                    hasher.finish()
                });
                let mut hasher = FxHasher::default();
                let parent = calls.parent(call).map_or(0, |parent| keys[parent]);
                (parent, of_frame).hash(&mut hasher);
                keys.push(hasher.finish());
            }
            self.calls[slot] = Some(Arrangement { calls, keys });
        }
        // Taken out while frames get their names.
        let Some(arrangement) = self.calls[slot].take() else {
            return CallTree::default();
        };
        let tree = self.arrange(&arrangement, figures);
        self.calls[slot] = Some(arrangement);
        tree
    }

    fn arrange(&mut self, arrangement: &Arrangement, figures: &Sums<Figures>) -> CallTree {
        let Arrangement { calls, keys } = arrangement;
        let weights: Weights = calls.weigh(|kind| figures.of_kind[kind].live_bytes.max(0));
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
        let bytes = (0..calls.len())
            .filter(|&call| calls.parent(call).is_none())
            .fold(0_i64, |sum, call| sum.saturating_add(weights.total[call]));
        let mut pending: Vec<(usize, Option<u32>, u16)> =
            pending.into_iter().map(|call| (call, None, 0)).collect();
        let mut rows = Vec::with_capacity(chosen.len());
        while let Some((call, parent, depth)) = pending.pop() {
            let row = u32::try_from(rows.len()).ok();
            let mut callees = below.remove(&call).unwrap_or_default();
            by_weight(&mut callees);
            rows.push(CallRow {
                key: keys[call],
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
            calls: rows,
            bytes,
        }
    }

    fn source(&mut self, file: Option<&Arc<str>>, figures: &Sums<Figures>) -> SourceText {
        let Some(file) = file.cloned().or_else(|| self.weightiest_file(figures)) else {
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
        let grouped = self.grouped(GroupBy::Line, true);
        let infos = Arc::clone(&grouped.infos);
        let totals = grouped.groups.total(figures);
        let own = grouped.groups.own(figures);
        let mut lines: BTreeMap<u32, SourceLine> = BTreeMap::new();
        let mut from = SourceOrigin::Nowhere;
        if let Some(known) = &self.text {
            from = known.from;
            for (line, text) in &known.lines {
                lines.entry(*line).or_default().text = Some(Arc::clone(text));
            }
        }
        for (group, info) in infos.iter().enumerate() {
            if let GroupName::Line(frame) = &info.name
                && frame.file == file
                && frame.line != 0
                && totals[group].total_bytes != 0
            {
                let line = lines.entry(frame.line).or_default();
                line.own = own[group];
                line.total_bytes = totals[group].live_bytes;
            }
        }
        SourceText {
            file: Some(file),
            from,
            lines: (lines.into_iter())
                .map(|(line, of)| SourceLine { line, ..of })
                .collect(),
        }
    }

    /// The file of your own code, with its text in the recording, in which
    /// most is live, else any that has lines.
    fn weightiest_file(&mut self, figures: &Sums<Figures>) -> Option<Arc<str>> {
        let model = self.model;
        let infos = Arc::clone(&self.grouped(GroupBy::Line, false).infos);
        let own = self.grouped(GroupBy::Line, false).groups.own(figures);
        let mut files: FxHashMap<&Arc<str>, (bool, bool, i64)> = FxHashMap::default();
        for (info, figures) in infos.iter().zip(&own) {
            if let GroupName::Line(frame) = &info.name
                && frame.line != 0
                && !frame.file.is_empty()
            {
                let known = model.sources().contains_key(&*frame.file);
                let entry = files.entry(&frame.file).or_insert((known, frame.own, 0));
                entry.2 = entry.2.saturating_add(figures.live_bytes);
            }
        }
        let best = files
            .into_iter()
            .max_by(|one, other| one.1.cmp(&other.1).then_with(|| other.0.cmp(one.0)));
        best.map(|(file, _)| Arc::clone(file))
    }

    fn processes(&mut self, figures: &Sums<Figures>, span: &Span) -> Vec<(Figures, Option<u64>)> {
        let model = self.model;
        let mut all: Vec<(Figures, Option<u64>)> = (figures.of_process.iter())
            .map(|figures| (*figures, None))
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

fn sort(rows: &mut Vec<TableRow>, infos: &[GroupInfo], want: &TableWant) {
    // Rows are large: their places are sorted, then they.
    let mut order: Vec<(i64, u64, u32)> = Vec::with_capacity(rows.len());
    let unsigned = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    for (at, row) in (0..).zip(rows.iter()) {
        let figures = &row.figures;
        let size = match want.sort {
            Column::Live => figures.live_bytes,
            Column::Blocks => figures.live_blocks,
            Column::Peak => unsigned(figures.peak_bytes),
            Column::Total => unsigned(figures.total_bytes),
            Column::Temporary => unsigned(figures.temporary_blocks),
            Column::Growth => figures.delta_bytes,
            Column::Name => 0,
        };
        order.push((size, figures.total_bytes, at));
    }
    let in_order = |order: Ordering| {
        if want.ascending {
            order
        } else {
            order.reverse()
        }
    };
    if want.sort == Column::Name {
        // Names begin with the first, figures with the largest.
        let of = |at: u32| words(&infos[rows[at as usize].group as usize]);
        order.sort_by(|one, other| in_order(of(other.2).cmp(&of(one.2))));
    } else {
        // Rows come by group, which decides between equals.
        order.sort_unstable_by(|one, other| {
            in_order(one.0.cmp(&other.0))
                .then(other.1.cmp(&one.1))
                .then(one.2.cmp(&other.2))
        });
    }
    *rows = order
        .into_iter()
        .map(|(.., at)| rows[at as usize])
        .collect();
}

/// The words to sort a group by.
fn words(info: &GroupInfo) -> (&str, &str) {
    match &info.name {
        GroupName::Site(frame) | GroupName::Function(frame) => (&frame.function, &frame.place),
        GroupName::Line(frame) => (&frame.place, &frame.function),
        GroupName::Text(text) | GroupName::Process(text, _) | GroupName::Thread(text, ..) => {
            (text, "")
        }
        GroupName::Domain(domain) => (domain.name(), ""),
        GroupName::Unknown => ("", ""),
    }
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
