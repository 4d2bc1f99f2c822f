//! `leaks`: which places leak, and which only look like it.
//!
//! Sites are judged by [`verdict`](crate::verdict); those that leak together
//! are one [`Cause`]. What the judge has to know besides is found here: when
//! warm-up ended, which stacks are an import's, when a process had done its
//! work.

mod forecast;
mod history;
mod references;
mod suppressions;

pub use forecast::{Forecast, LimitOf};
pub use references::{FEWEST, Findings, Hidden, LostReferences, Reason};
pub use suppressions::{Suppression, SuppressionError};

use std::cmp::Reverse;

use leakline_recording::record::{Bin, Domain, Frame as Recorded, Mark};
use rustc_hash::FxHashMap;

use crate::filter::Filter;
use crate::frame::{FrameId, Role};
use crate::heap;
use crate::instant::{Instant, InstantError, Span};
use crate::lost::{Lost, LostFigures, lost_by_site, lost_of};
use crate::model::Model;
use crate::names::Name;
use crate::pages::{Keeps, Pages};
use crate::report::text::lost_evidence;
use crate::stack::{Head, Stacks};
use crate::survivors::Held;
use crate::top::Matching;
use crate::verdict::{
    AxisKind, Context, Doubt, FLOOR_BYTES, Facts, Judge, Judged, Progress, Rate, Verdict,
    sampled_floor,
};
use history::{Histories, Levels};

/// A question to `leaks`.
#[derive(Clone, Debug, Default)]
pub struct LeaksQuery {
    /// Growth counts from here on; `None`: from the end of warm-up.
    pub from: Option<Instant>,
    /// Up to here; `None`: until the program was done.
    pub to: Option<Instant>,
    /// Most causes; `None` = all.
    pub limit: Option<usize>,
    /// Causes to keep.
    pub filter: Option<Filter>,
    /// Bytes that the program may take.
    pub memory_limit: Option<u64>,
    /// What is no leak, whatever it looks like.
    pub suppressions: Vec<Suppression>,
    /// Where there are more sites than this, only so many are judged, those that rose
    /// most: for who has little memory. `None` = all.
    pub most_sites: Option<usize>,
}

/// A site of a cause.
#[derive(Clone, Debug)]
pub struct CauseSite {
    /// Its number in the recording: of the largest, where it is merged.
    pub site: u32,
    /// The frames that it is named after.
    pub head: Head,
    /// Where its blocks come from.
    pub domain: Domain,
    /// How many sites it is merged of: of several processes, and of stacks
    /// that differ only inside the interpreter or an allocator.
    pub merged: usize,
    /// What was found.
    pub judged: Judged,
}

/// What a process has of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process.
    pub process: u32,
    /// What is live of it.
    pub live: Held,
    /// How much more than at the end of warm-up.
    pub grown_bytes: i64,
}

/// Sites that leak together.
#[derive(Clone, Debug)]
pub struct Cause {
    /// `L1`: the most serious.
    pub id: String,
    /// *Leaking*, *unreachable* or *growing*.
    pub verdict: Verdict,
    /// Why it is no more than growing.
    pub doubt: Option<Doubt>,
    /// How fast.
    pub rate: Rate,
    /// Since when.
    pub since_ns: u64,
    /// What is live of it.
    pub live: Held,
    /// The pages that its blocks keep; `None` where pages were not counted.
    pub pages: Option<Keeps>,
    /// Its sites, the fastest first: the first one gives it its name.
    pub sites: Vec<CauseSite>,
    /// The stack of the first, innermost frame first.
    pub stack: Vec<FrameId>,
    /// Of its processes, the one with most first.
    pub shares: Vec<Share>,
    /// All its sites by their numbers in the recording, merged ones too; rising.
    pub members: Vec<u32>,
    /// Who holds it, where a heap graph was looked at.
    pub held: Option<HeldBy>,
    /// What the graph shows of it.
    pub reason: Option<Reason>,
    /// What of it nothing points to, if anything.
    pub lost: Option<LostPart>,
}

/// What of a cause is lost.
#[derive(Clone, Debug)]
pub struct LostPart {
    /// How much.
    pub figures: LostFigures,
    /// What shows it, in a sentence.
    pub evidence: String,
}

/// Who holds a cause's objects in a heap graph.
#[derive(Clone, Debug)]
pub struct HeldBy {
    /// The graph's number.
    pub graph: u32,
    /// The objects, and the path that holds most of them; `None` where the graph has
    /// no object of the cause.
    pub group: Option<heap::Group>,
}

/// What grew and is no leak.
#[derive(Clone, Debug)]
pub struct Acquitted {
    /// Why not.
    pub verdict: Verdict,
    /// How many sites.
    pub sites: usize,
    /// What is live there.
    pub bytes: u64,
    /// The most that they had grown by, added up.
    pub most_bytes: u64,
    /// The largest of them.
    pub largest: Option<CauseSite>,
}

/// What a suppression kept out.
#[derive(Clone, Debug)]
pub struct Suppressed {
    /// Which.
    pub suppression: Suppression,
    /// How many causes' sites.
    pub sites: usize,
    /// What is live there.
    pub bytes: u64,
}

/// An answer of `leaks`.
#[derive(Clone, Debug)]
pub struct Leaks {
    /// The question.
    pub query: LeaksQuery,
    /// The instants at the two ends.
    pub span: Span,
    /// Growth counts from here on.
    pub from_ns: u64,
    /// Up to here.
    pub to_ns: u64,
    /// Causes, the most serious first.
    pub suspects: Vec<Cause>,
    /// How many there are without the limit.
    pub total_suspects: usize,
    /// How many of them all leak or are lost, and how fast together.
    pub leaking: (usize, Rate),
    /// What grew besides, by verdict.
    pub acquitted: Vec<Acquitted>,
    /// What was kept out.
    pub suppressed: Vec<Suppressed>,
    /// Sites that rose, but less than others, and were not judged for want of memory; and
    /// by how much they rose, each, together.
    pub not_judged: (usize, u64),
    /// The smallest growth that would have been listed.
    pub detectable_bytes_per_second: f64,
    /// What is lost, or looks so, and is no cause: it is little, or not certain.
    pub lost_besides: Held,
    /// Resident bytes at `from_ns` and at `to_ns`, where they are known.
    pub rss: Option<(u64, u64)>,
    /// Live bytes at `from_ns` and at `to_ns`.
    pub live: (u64, u64),
    /// Where there is a limit.
    pub forecast: Option<Forecast>,
    /// What a round is named, where the program marked rounds.
    pub rounds: Option<String>,
    /// Of a recording that was made of snapshots: how many of them this is told from.
    pub snapshots: Option<usize>,
}

/// How a stack stands to imports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Import {
    /// There is none in it.
    Outside,
    /// The import itself, and the body of the module.
    Itself,
    /// A function that the module's body called.
    Called,
}

/// The sites that are judged, where not all can be.
struct Chosen {
    /// Rising.
    sites: Vec<u32>,
    left_out: (usize, u64),
}

impl Chosen {
    /// Those that rose most, and those of which something is lost.
    fn new(levels: &Levels, sites: u32, most: usize, is_lost: impl Fn(u32) -> bool) -> Self {
        let mut chosen: Vec<u32> = (0..sites)
            // Of sites that are judged as one there are a few at most.
            .filter(|&site| levels.rise(site) >= FLOOR_BYTES / 16 || is_lost(site))
            .collect();
        let mut left_out = (0, 0);
        if chosen.len() > most {
            let rank = |&site: &u32| (Reverse((is_lost(site), levels.rise(site))), site);
            chosen.select_nth_unstable_by_key(most, rank);
            let others = chosen.split_off(most);
            let rises = others.iter().map(|&site| levels.rise(site));
            for rise in rises.filter(|&rise| rise >= FLOOR_BYTES) {
                left_out = (left_out.0 + 1, left_out.1 + rise);
            }
            chosen.sort_unstable();
        }
        Chosen {
            sites: chosen,
            left_out,
        }
    }

    fn has(&self, site: u32) -> bool {
        self.sites.binary_search(&site).is_ok()
    }
}

/// Sites that are judged as one.
struct Group {
    /// What was ever born there.
    born: Held,
    sites: Vec<u32>,
    import: Import,
    to_ns: u64,
    most_bytes: u64,
}

impl Leaks {
    /// Answers `query`.
    ///
    /// # Errors
    ///
    /// An instant is not in the recording, or they are in the wrong order.
    pub fn new<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        query: LeaksQuery,
    ) -> Result<Self, InstantError> {
        let span = match (&query.from, &query.to) {
            (None, None) => Span::usual(model),
            (Some(from), None) => Span::since(model, from)?,
            (from, Some(to)) => Span::between(model, from.as_ref().unwrap_or(&Instant::Start), to)?,
        };
        let to_ns = span.to().resolved_ns();
        let imports = import_of_nodes(model);
        let import_of = |site: u32| {
            let node = model.sites().get(site as usize).map_or(0, |site| site.node);
            imports
                .get(node as usize)
                .copied()
                .unwrap_or(Import::Outside)
        };
        let sites = u32::try_from(model.sites().len()).unwrap_or(u32::MAX);
        let most = query.most_sites.filter(|&most| sites as usize > most);
        let imported = || (0..sites).filter(|&site| import_of(site) == Import::Itself);
        let mut histories = match most {
            None => Histories::new(model),
            Some(_) => Histories::of_sites(model, &imported().collect::<Vec<u32>>()),
        };
        let asked = query.from.as_ref().and_then(|_| span.from());
        let from_ns = if let Some(from) = asked {
            from.resolved_ns()
        } else if model.is_imported() {
            model.bin_ends().first().copied().unwrap_or(0)
        } else {
            histories.nearly_all(&imported().collect::<Vec<u32>>(), to_ns)
        };
        let mut levels = Levels::new(model, from_ns, to_ns, most.is_some());
        let lost = lost_by_site(model);
        let chosen = most.map(|most| {
            Chosen::new(&levels, sites, most, |site| {
                lost.get(&site).is_some_and(is_cause)
            })
        });
        let mut start_up = (0, 0);
        if let Some(chosen) = &chosen {
            // The others are judged by what they hold alone.
            for site in (0..sites).filter(|&site| !chosen.has(site)) {
                let bytes = levels.last(site);
                if import_of(site) != Import::Outside && bytes >= FLOOR_BYTES {
                    start_up.0 += 1;
                    start_up.1 += bytes;
                }
            }
            levels = levels.of(model, &chosen.sites);
            histories = Histories::of_sites(model, &chosen.sites);
        }
        let is_judged = |site: u32| chosen.as_ref().is_none_or(|chosen| chosen.has(site));
        let groups = groups(model, stacks, &levels, &import_of, &is_judged, to_ns);
        let rounds = rounds(model, from_ns, to_ns);
        let mut progress = vec![Progress {
            kind: AxisKind::Allocations,
            points: allocations(model, &histories, &groups, from_ns, to_ns),
        }];
        progress.extend(rounds.as_ref().map(|(_, progress)| progress.clone()));
        let context = Context {
            from_ns,
            to_ns,
            block_bytes: {
                let bin = bin_at(model, to_ns);
                bin.map_or(0.0, |bin| {
                    bin.live_bytes as f64 / bin.live_blocks.max(1) as f64
                })
            },
            progress,
            sample_bytes: model.sample_bytes(),
        };
        let mut judge = Judge::new(&context);
        for group in &groups {
            let rise = group.sites.iter().map(|&site| levels.rise(site));
            let weight = weight(model, group);
            let floor = if weight > 1 {
                sampled_floor(context.sample_bytes)
            } else {
                FLOOR_BYTES
            };
            if rise.fold(0, u64::saturating_add) < floor {
                judge.pass_over();
                continue;
            }
            let found = histories.of(&group.sites, group.to_ns);
            let facts = Facts {
                start_up: group.import == Import::Itself
                    || (group.import == Import::Called && found.is_born_by(from_ns)),
                to_ns: Some(group.to_ns),
                weight,
            };
            judge.look_at(&found.history, facts);
        }
        let judgement = judge.finish();

        let mut judged = Vec::new();
        for (group, found) in groups.iter().zip(&judgement.sites) {
            let live = histories.live(&group.sites, group.to_ns);
            let lost = lost_of(&lost, &group.sites);
            match found {
                Some(found) => {
                    let found = if model.is_imported() {
                        of_snapshots(*found)
                    } else {
                        *found
                    };
                    judged.push((group, found.with_lost(lost, from_ns)));
                }
                None if is_cause(&lost) => {
                    judged.push((group, Judged::lost(lost, live, from_ns)));
                }
                None if group.import != Import::Outside && group.most_bytes >= FLOOR_BYTES => {
                    let bytes = histories.live(&group.sites, group.to_ns).bytes;
                    start_up.0 += usize::from(bytes >= FLOOR_BYTES);
                    start_up.1 += if bytes >= FLOOR_BYTES { bytes } else { 0 };
                }
                None => {}
            }
        }
        let mut leaks = Leaks {
            span,
            from_ns,
            to_ns,
            suspects: Vec::new(),
            total_suspects: 0,
            leaking: (0, Rate::default()),
            acquitted: Vec::new(),
            suppressed: Vec::new(),
            not_judged: chosen.as_ref().map_or((0, 0), |chosen| chosen.left_out),
            detectable_bytes_per_second: judgement.detectable_bytes_per_second,
            lost_besides: Held::default(),
            rss: rss(model, from_ns).zip(rss(model, to_ns)),
            live: (live_at(model, from_ns), live_at(model, to_ns)),
            forecast: None,
            rounds: rounds.map(|(name, _)| name),
            snapshots: model
                .is_imported()
                .then(|| snapshots(model, from_ns, to_ns)),
            query,
        };
        leaks.arrange(model, stacks, &histories, judged, start_up);
        leaks.forecast = leaks.forecast(model);
        leaks.count_pages(model);
        Ok(leaks)
    }

    /// Says of causes what pages they keep.
    fn count_pages(&mut self, model: &Model<'_>) {
        let Some(pages) = Pages::until(model, self.to_ns) else {
            return;
        };
        for cause in &mut self.suspects {
            cause.pages = Some(pages.of_all(&cause.members));
        }
    }

    /// Makes causes of what grows, and sums of the rest.
    fn arrange<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        histories: &Histories<'_, 'a>,
        judged: Vec<(&Group, Judged)>,
        start_up: (usize, u64),
    ) {
        /// A cause's sites, each with when its process had done its work.
        type Gathered = (Vec<CauseSite>, Vec<(u32, u64)>);
        let filter = self.query.filter.clone();
        let mut matching = Matching::new(filter.as_ref());
        let mut causes: Vec<Gathered> = Vec::new();
        let mut index: FxHashMap<((Name, Name, Name), bool), usize> = FxHashMap::default();
        let mut rest = Vec::new();
        for (group, judged) in judged {
            let largest =
                group.sites.iter().copied().max_by_key(|&site| {
                    (histories.live(&[site], group.to_ns).bytes, Reverse(site))
                });
            let Some(site) = largest else { continue };
            let facts = model.sites()[site as usize];
            let head = stacks.head(model, facts.node);
            let found = CauseSite {
                site,
                head,
                domain: facts.domain,
                merged: group.sites.len(),
                judged,
            };
            if !matches!(
                judged.verdict,
                Verdict::Leaking | Verdict::Unreachable | Verdict::Growing
            ) {
                rest.push(found);
                continue;
            }
            if let Some(suppression) = self.suppression(model, stacks, facts.node) {
                self.suppress(suppression, judged.live.bytes);
                continue;
            }
            if !matching.site(model, stacks, facts.node, facts.process) {
                continue;
            }
            // What is lost in one function is lost together.
            let named = head.your_code.or(head.made_in).map(|id| *stacks.frame(id));
            let place = named.map_or((Name::EMPTY, Name::EMPTY, Name::EMPTY), |frame| {
                (frame.function, frame.file, frame.module)
            });
            // What somebody holds is another cause.
            let key = (place, judged.verdict == Verdict::Unreachable);
            let at = *index.entry(key).or_insert_with(|| {
                causes.push((Vec::new(), Vec::new()));
                causes.len() - 1
            });
            causes[at].0.push(found);
            let members = group.sites.iter().map(|&site| (site, group.to_ns));
            causes[at].1.extend(members);
        }
        self.suspects = causes
            .into_iter()
            .map(|(sites, members)| self.cause(model, stacks, histories, sites, &members))
            .collect();
        self.suspects.sort_by(|one, other| {
            one.verdict
                .cmp(&other.verdict)
                .then(
                    other
                        .rate
                        .bytes_per_second
                        .total_cmp(&one.rate.bytes_per_second),
                )
                .then_with(|| {
                    let lost = |cause: &Cause| {
                        let lost = cause.lost.as_ref();
                        lost.map_or(0, |lost| lost.figures.all().bytes)
                    };
                    lost(other).cmp(&lost(one))
                })
                .then(one.sites[0].site.cmp(&other.sites[0].site))
        });
        self.lost_besides(model);
        for (at, cause) in (1..).zip(&mut self.suspects) {
            cause.id = format!("L{at}");
        }
        self.leaking.0 = self.leaking_causes().count();
        self.leaking.1 = sum(self.leaking_causes());
        self.total_suspects = self.suspects.len();

        for verdict in [
            Verdict::Plateau,
            Verdict::Burst,
            Verdict::StartUp,
            Verdict::Unclear,
        ] {
            let mut sites: Vec<CauseSite> = rest
                .iter()
                .filter(|site| site.judged.verdict == verdict)
                .cloned()
                .collect();
            sites.sort_by_key(|site| Reverse((site.judged.most_bytes, Reverse(site.site))));
            let bytes = sites.iter().map(|site| site.judged.live.bytes);
            let most = sites.iter().map(|site| site.judged.most_bytes);
            let mut acquitted = Acquitted {
                verdict,
                sites: sites.len(),
                bytes: bytes.fold(0, u64::saturating_add),
                most_bytes: most.fold(0, u64::saturating_add),
                largest: sites.into_iter().next(),
            };
            if verdict == Verdict::StartUp {
                acquitted.sites += start_up.0;
                acquitted.bytes = acquitted.bytes.saturating_add(start_up.1);
            }
            if acquitted.sites > 0 {
                self.acquitted.push(acquitted);
            }
        }
    }

    fn cause<'a>(
        &self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        histories: &Histories<'_, 'a>,
        mut sites: Vec<CauseSite>,
        members: &[(u32, u64)],
    ) -> Cause {
        // A list that grows beside what it holds is no news.
        let verdict = sites.iter().map(|site| site.judged.verdict).min();
        let verdict = verdict.unwrap_or(Verdict::Growing);
        let counts = |site: &CauseSite| site.judged.verdict == verdict;
        let speed = |site: &CauseSite| {
            let rate = site.judged.rate.unwrap_or_default();
            (!counts(site), -rate.bytes_per_second)
        };
        sites.sort_by(|one, other| {
            let (one_key, other_key) = (speed(one), speed(other));
            one_key
                .0
                .cmp(&other_key.0)
                .then(one_key.1.total_cmp(&other_key.1))
                .then(one.site.cmp(&other.site))
        });
        let mut rate = Rate::default();
        let (mut live, mut since_ns) = (Held::default(), u64::MAX);
        for site in &sites {
            live.blocks = live.blocks.saturating_add(site.judged.live.blocks);
            live.bytes = live.bytes.saturating_add(site.judged.live.bytes);
            if counts(site) {
                let one = site.judged.rate.unwrap_or_default();
                rate.bytes_per_second += one.bytes_per_second;
                // They come together, and so do their errors.
                rate.error += one.error;
                rate.blocks_per_second += one.blocks_per_second;
                rate.blocks_per_unit += one.blocks_per_unit;
                since_ns = since_ns.min(site.judged.since_ns);
            }
        }
        let node = model.sites()[sites[0].site as usize].node;
        let mut numbers: Vec<u32> = members.iter().map(|(site, _)| *site).collect();
        numbers.sort_unstable();
        Cause {
            id: String::new(),
            verdict,
            doubt: sites[0].judged.doubt,
            rate,
            since_ns,
            live,
            pages: None,
            stack: stacks.stack(model, node),
            shares: self.shares(model, histories, members),
            held: None,
            reason: None,
            lost: {
                let lost = Lost::new(model, stacks, Some(&numbers));
                (!lost.groups.is_empty()).then(|| LostPart {
                    figures: lost.figures(),
                    evidence: lost_evidence(&lost),
                })
            },
            members: numbers,
            sites,
        }
    }

    fn shares(
        &self,
        model: &Model<'_>,
        histories: &Histories<'_, '_>,
        members: &[(u32, u64)],
    ) -> Vec<Share> {
        let mut shares: Vec<Share> = Vec::new();
        for &(site, to_ns) in members {
            let before = histories.live(&[site], self.from_ns).bytes as i64;
            let after = histories.live(&[site], to_ns);
            let process = model.sites()[site as usize].process;
            let known = shares.iter().position(|share| share.process == process);
            let at = known.unwrap_or_else(|| {
                shares.push(Share {
                    process,
                    live: Held::default(),
                    grown_bytes: 0,
                });
                shares.len() - 1
            });
            shares[at].live.blocks = shares[at].live.blocks.saturating_add(after.blocks);
            shares[at].live.bytes = shares[at].live.bytes.saturating_add(after.bytes);
            let grown = (after.bytes as i64).saturating_sub(before);
            shares[at].grown_bytes = shares[at].grown_bytes.saturating_add(grown);
        }
        shares.sort_by_key(|share| (Reverse(share.grown_bytes), share.process));
        shares
    }

    fn suppression<'a>(
        &self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        node: u32,
    ) -> Option<usize> {
        if self.query.suppressions.is_empty() {
            return None;
        }
        let stack = stacks.stack(model, node);
        self.query.suppressions.iter().position(|suppression| {
            stack.iter().any(|&id| {
                let frame = stacks.frame(id);
                [frame.function, frame.file, frame.module]
                    .iter()
                    .any(|&name| !name.is_empty() && suppression.matches(stacks.name(name)))
            })
        })
    }

    /// Sums up what is lost at sites of no cause.
    fn lost_besides(&mut self, model: &Model<'_>) {
        if self.query.filter.is_some() {
            return;
        }
        let lost = lost_by_site(model);
        let besides = lost.iter().filter(|(site, _)| {
            let is_told = |cause: &Cause| cause.members.binary_search(site).is_ok();
            !self.suspects.iter().any(is_told)
        });
        self.lost_besides = besides.fold(Held::default(), |sum, (_, lost)| {
            let all = lost.all();
            Held {
                blocks: sum.blocks.saturating_add(all.blocks),
                bytes: sum.bytes.saturating_add(all.bytes),
            }
        });
    }

    fn suppress(&mut self, at: usize, bytes: u64) {
        let suppression = &self.query.suppressions[at];
        let known = self
            .suppressed
            .iter_mut()
            .find(|suppressed| suppressed.suppression == *suppression);
        if let Some(known) = known {
            known.sites += 1;
            known.bytes = known.bytes.saturating_add(bytes);
        } else {
            self.suppressed.push(Suppressed {
                suppression: suppression.clone(),
                sites: 1,
                bytes,
            });
        }
    }

    fn leaking_causes(&self) -> impl Iterator<Item = &Cause> {
        let is_leaking =
            |cause: &&Cause| matches!(cause.verdict, Verdict::Leaking | Verdict::Unreachable);
        self.suspects.iter().filter(is_leaking)
    }

    /// The word for the whole.
    pub fn verdict(&self) -> Verdict {
        let first = self.suspects.iter().map(|cause| cause.verdict).min();
        match first {
            None if self.leaking.0 > 0 => Verdict::Leaking,
            Some(verdict) => verdict,
            None if self.to_ns <= self.from_ns || self.has_few_snapshots() => Verdict::Unclear,
            None => Verdict::Plateau,
        }
    }

    /// It is told from so few snapshots that what grows in each of them, and what
    /// just came between two, look the same.
    pub fn has_few_snapshots(&self) -> bool {
        /// As many states as the judge wants cohorts.
        const FEWEST: usize = 8;
        self.snapshots.is_some_and(|count| count < FEWEST)
    }

    /// The cause of that name.
    pub fn named(&self, id: &str) -> Option<&Cause> {
        self.suspects.iter().find(|cause| cause.id == id)
    }
}

/// How fast causes grow together.
fn sum<'c>(causes: impl Iterator<Item = &'c Cause>) -> Rate {
    causes.fold(Rate::default(), |sum, cause| Rate {
        bytes_per_second: sum.bytes_per_second + cause.rate.bytes_per_second,
        error: sum.error.hypot(cause.rate.error),
        blocks_per_second: sum.blocks_per_second + cause.rate.blocks_per_second,
        blocks_per_unit: sum.blocks_per_unit + cause.rate.blocks_per_unit,
    })
}

/// Whether so much is lost for certain that it is listed, whether it grows or not.
fn is_cause(lost: &LostFigures) -> bool {
    lost.sure.bytes >= FLOOR_BYTES
}

impl Judged {
    /// Of what does not grow, or grew and stopped, but is lost.
    fn lost(lost: LostFigures, live: Held, from_ns: u64) -> Judged {
        Judged {
            verdict: Verdict::Unreachable,
            doubt: None,
            rate: None,
            since_ns: from_ns,
            live,
            grown_bytes: 0,
            most_bytes: lost.all().bytes,
            kept: (0, 0),
            lasting_seconds: 0.0,
            axis: AxisKind::Clock,
            chance: 0.0,
        }
    }

    /// With what is lost of it.
    fn with_lost(self, lost: LostFigures, from_ns: u64) -> Judged {
        let grows = matches!(self.verdict, Verdict::Leaking | Verdict::Growing);
        // Blocks are counted as they are, samples and estimates alike.
        let is_most = lost.known.1.saturating_mul(2) >= lost.known.0;
        if lost.sure.blocks == 0 || (grows && !is_most) || !(grows || is_cause(&lost)) {
            return self;
        }
        if grows {
            return Judged {
                verdict: Verdict::Unreachable,
                doubt: None,
                ..self
            };
        }
        Judged::lost(lost, self.live, from_ns)
    }
}

/// How each node's stack stands to imports: a caller's is known before its
/// callee's.
fn import_of_nodes(model: &Model<'_>) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::with_capacity(model.nodes().len());
    for (parent, frame) in model.nodes().iter() {
        let of = |id: u32| imports.get(id as usize).copied().unwrap_or(Import::Outside);
        let import = match frame {
            Recorded::Pair { python } => of(python),
            Recorded::Python { code, .. } => {
                let before = of(parent);
                match model.codes().get(code as usize) {
                    Some(code) if is_import(&code.file) => Import::Itself,
                    Some(code) if code.name == "<module>" => before,
                    _ if before == Import::Itself => Import::Called,
                    _ => before,
                }
            }
            _ => of(parent),
        };
        imports.push(import);
    }
    imports
}

/// When warm-up ended: when imports had made nearly all that they made.
pub(crate) fn warm_ns(model: &Model<'_>) -> u64 {
    let imports = import_of_nodes(model);
    let is_import = |node: u32| imports.get(node as usize) == Some(&Import::Itself);
    let imported: Vec<u32> = (0..)
        .zip(model.sites())
        .filter(|(_, site)| is_import(site.node))
        .map(|(id, _)| id)
        .collect();
    let to_ns = model.bin_ends().last().copied().unwrap_or(0);
    Histories::of_sites(model, &imported).nearly_all(&imported, to_ns)
}

fn is_import(file: &str) -> bool {
    file.starts_with("<frozen importlib") || file.ends_with("/importlib/_bootstrap.py")
}

/// When each process had done its work: its main thread left, or it ended.
fn process_ends(model: &Model<'_>, to_ns: u64) -> Vec<u64> {
    let left = model.left_main();
    (model.processes().iter().zip(left))
        .map(|(facts, left)| {
            let left = left.map(|left| left.at_ns);
            let ended = facts.end.map(|end| end.at_ns);
            left.or(ended).unwrap_or(to_ns).min(to_ns)
        })
        .collect()
}

/// Sites to judge as one: those of one stack and domain in all processes that
/// lived to the end; each process that ended before is one of its own.
fn groups<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    levels: &Levels,
    import_of: &impl Fn(u32) -> Import,
    is_judged: &impl Fn(u32) -> bool,
    to_ns: u64,
) -> Vec<Group> {
    let ends = process_ends(model, to_ns);
    let mut all: Vec<Group> = Vec::new();
    let mut index: FxHashMap<(u64, Domain, Option<u32>), usize> = FxHashMap::default();
    for (id, site) in (0..).zip(model.sites()) {
        // Of sites that differ only in hidden frames there are a few at most.
        if levels.most(id) < FLOOR_BYTES / 16 || !is_judged(id) {
            continue;
        }
        let end = ends.get(site.process as usize).copied().unwrap_or(to_ns);
        let lived_on = end >= to_ns - to_ns / 10;
        let process = (!lived_on).then_some(site.process);
        let key = (stacks.shown_key(model, site.node), site.domain, process);
        let at = *index.entry(key).or_insert_with(|| {
            all.push(Group {
                sites: Vec::new(),
                import: import_of(id),
                to_ns: end,
                most_bytes: 0,
                born: Held::default(),
            });
            all.len() - 1
        });
        all[at].sites.push(id);
        let born = levels.born(id);
        all[at].born.blocks = all[at].born.blocks.saturating_add(born.blocks);
        all[at].born.bytes = all[at].born.bytes.saturating_add(born.bytes);
        all[at].most_bytes = all[at].most_bytes.saturating_add(levels.most(id));
        all[at].to_ns = all[at].to_ns.min(end);
    }
    all
}

/// How many blocks a sample of a group's sites stands for, by their average size;
/// 1 where each was recorded.
fn weight(model: &Model<'_>, group: &Group) -> u64 {
    let is_mapped = |&site: &u32| {
        let site = model.sites().get(site as usize);
        site.is_some_and(|site| site.domain == Domain::Mmap)
    };
    if !model.is_sampled() || group.sites.iter().all(is_mapped) {
        return 1;
    }
    let size = group.born.bytes as f64 / group.born.blocks.max(1) as f64;
    let p = -(-(size + 1.0) / model.sample_bytes() as f64).exp_m1();
    // Rather fewer observations than more.
    (1.0 / p).ceil() as u64
}

/// The program's allocations over time. Of what lasts a minute and more the
/// bins tell enough.
fn allocations(
    model: &Model<'_>,
    histories: &Histories<'_, '_>,
    groups: &[Group],
    from_ns: u64,
    to_ns: u64,
) -> Vec<(u64, f64)> {
    const SHORT_NS: u64 = 60_000_000_000;
    let told: Vec<&[u32]> = if to_ns.saturating_sub(from_ns) < SHORT_NS {
        groups.iter().map(|group| &group.sites[..]).collect()
    } else {
        Vec::new()
    };
    history::allocations(model, &told, |sites| histories.of(sites, to_ns).history)
}

/// Rounds: a mark of the user's that comes at least eight times.
fn rounds(model: &Model<'_>, from_ns: u64, to_ns: u64) -> Option<(String, Progress)> {
    const FEWEST: usize = 8;
    const RECORDER_S: [&str; 3] = ["python ready", "main left", "exiting"];
    let is_within = |mark: &&&Mark| (from_ns..=to_ns).contains(&mark.at_ns);
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for mark in model.marks().iter().filter(is_within) {
        if !RECORDER_S.contains(&mark.name.as_str()) {
            *counts.entry(&mark.name).or_default() += 1;
        }
    }
    let (name, _) = counts
        .into_iter()
        .filter(|(_, count)| *count >= FEWEST)
        .max_by_key(|(_, count)| *count)?;
    let marks = model.marks().iter().filter(|mark| mark.name == name);
    let points = (1..)
        .zip(marks)
        .map(|(round, mark)| (mark.at_ns, f64::from(round)));
    let mut points: Vec<(u64, f64)> = points.collect();
    points.dedup_by_key(|point| point.0);
    Some((
        name.to_owned(),
        Progress {
            kind: AxisKind::Rounds,
            points,
        },
    ))
}

/// Resident bytes of all processes at about an instant.
fn rss(model: &Model<'_>, ns: u64) -> Option<u64> {
    let after = model.bin_ends().partition_point(|&end| end <= ns);
    let known = |bin: &&&Bin| !bin.rss.is_empty();
    let before = model.bins()[..after].iter().rev().find(known);
    let bin = before.or_else(|| model.bins()[after..].iter().find(known))?;
    Some(
        bin.rss
            .iter()
            .map(|(_, bytes)| *bytes)
            .fold(0, u64::saturating_add),
    )
}

/// What can be said without knowing what died: it grew.
fn of_snapshots(found: Judged) -> Judged {
    let (verdict, doubt) = match found.verdict {
        Verdict::Leaking => (Verdict::Growing, Some(Doubt::Unseen)),
        verdict => (verdict, found.doubt),
    };
    Judged {
        verdict,
        doubt,
        kept: (0, 0),
        lasting_seconds: 0.0,
        ..found
    }
}

/// Snapshots from an instant to another.
fn snapshots(model: &Model<'_>, from_ns: u64, to_ns: u64) -> usize {
    let within = |end: &&u64| (from_ns..=to_ns).contains(*end);
    model.bin_ends().iter().filter(within).count()
}

fn live_at(model: &Model<'_>, ns: u64) -> u64 {
    bin_at(model, ns).map_or(0, |bin| bin.live_bytes)
}

/// The last bin that had ended by an instant.
fn bin_at<'a>(model: &Model<'a>, ns: u64) -> Option<&'a Bin> {
    let after = model.bin_ends().partition_point(|&end| end <= ns);
    after.checked_sub(1).map(|bin| model.bins()[bin])
}

/// The frame between where a cause was made and the user's code that says most:
/// the innermost of a library that is neither.
pub(crate) fn through(stacks: &Stacks<'_>, cause: &Cause) -> Option<FrameId> {
    let head = cause.sites.first()?.head;
    cause
        .stack
        .iter()
        .copied()
        .take_while(|&id| Some(id) != head.your_code)
        .filter(|&id| Some(id) != head.made_in)
        .find(|&id| {
            let frame = stacks.frame(id);
            matches!(frame.role, Role::Library | Role::Standard | Role::Own)
        })
}
