//! `top`: rows by site, line, function, file, library, process, thread or
//! domain.

use leakline_recording::record::{Domain, Site};
use rustc_hash::FxHashMap;

use crate::figures::{Figures, Measure, Unit};
use crate::filter::Filter;
use crate::frame::FrameId;
use crate::instant::Span;
use crate::model::Model;
use crate::names::Name;
use crate::pages::Pages;
use crate::stack::{Head, Stacks};

/// What a row stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GroupBy {
    /// A stack that allocated, in a domain; merged over processes, and over
    /// differences inside the interpreter and allocators.
    #[default]
    Site,
    /// A source line.
    Line,
    /// A function.
    Function,
    /// A source file.
    File,
    /// An ELF file or a Python package.
    Library,
    /// A process.
    Process,
    /// A thread.
    Thread,
    /// Where blocks come from: malloc, one of Python's allocators, mmap.
    Domain,
}

impl GroupBy {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            GroupBy::Site => "site",
            GroupBy::Line => "line",
            GroupBy::Function => "function",
            GroupBy::File => "file",
            GroupBy::Library => "library",
            GroupBy::Process => "process",
            GroupBy::Thread => "thread",
            GroupBy::Domain => "domain",
        }
    }
}

/// What a row without its stack counts as, in frames: it takes as much room.
pub const ROW_FRAMES: usize = 4;

/// A question to `top`.
#[derive(Clone, Debug)]
pub struct TopQuery {
    /// When.
    pub span: Span,
    /// What a row stands for.
    pub by: GroupBy,
    /// What rows are sorted by, largest first.
    pub measure: Measure,
    /// In bytes or blocks.
    pub unit: Unit,
    /// Most rows; `None` = all.
    pub limit: Option<usize>,
    /// Most frames in the stacks of all rows together, each row by itself
    /// counting as [`ROW_FRAMES`] more; `None` = any number. A first row is
    /// kept.
    pub most_frames: Option<usize>,
    /// Rows to keep.
    pub filter: Option<Filter>,
}

/// A row of `top`.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its figures.
    pub figures: Figures,
    /// Frames it is named after: those of its largest site. Empty for a
    /// process or thread.
    pub head: Head,
    /// What it stands for where that is no frame: a library, a process, a
    /// thread. Empty otherwise.
    pub label: String,
    /// Its domain, where all its sites agree.
    pub domain: Option<Domain>,
    /// Ids of its processes, rising.
    pub processes: Vec<u32>,
    /// Its thread (id), in a table of threads.
    pub thread: Option<u32>,
    /// Id of its largest site, if it has one.
    pub site: Option<u32>,
    /// How many sites (stack, domain and process) it sums up.
    pub sites: usize,
    /// Bytes of the pages that its blocks keep, by the last count until the instant, and
    /// whether these were resident (else some are all that blocks lie in); `None` where there
    /// is no count.
    pub page_bytes: Option<(u64, bool)>,
    /// Merged stack of its largest site, innermost first.
    pub stack: Vec<FrameId>,
}

/// An answer of `top`.
#[derive(Clone, Debug)]
pub struct Top {
    /// The question.
    pub query: TopQuery,
    /// Its rows, sorted.
    pub rows: Vec<Row>,
    /// How many rows there are without the limit.
    pub total_rows: usize,
    /// What the rows beyond the limit add up to.
    pub rest: Figures,
    /// What all rows, shown or not, add up to.
    pub sum: Figures,
}

/// What sites of one group have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Site(u64, Domain),
    Line(Name, u32),
    Function(Name, Name, Name),
    Name(Name),
    Process(u32),
    Domain(Domain),
}

struct Group {
    key: Key,
    figures: Figures,
    best: i64,
    site: u32,
    sites: usize,
    page_bytes: Option<(u64, bool)>,
    domain: Option<Domain>,
    process: u32,
    more_processes: Vec<u32>,
}

impl Top {
    /// Answers `query`.
    pub fn new<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, query: TopQuery) -> Self {
        if query.by == GroupBy::Thread {
            return Self::of_threads(model, query);
        }
        Self::of_sites(model, stacks, query, None)
    }

    /// The same of sites with these figures, where they are given.
    pub(crate) fn of_sites<'a>(
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        query: TopQuery,
        figures: Option<&[Figures]>,
    ) -> Self {
        let (compared, by_peak) = (query.span.from().is_some(), query.measure == Measure::Peak);
        let pages = Pages::until(model, query.span.to().resolved_ns());
        let mut groups: Vec<Group> = Vec::new();
        let mut index: FxHashMap<Key, usize> = FxHashMap::default();
        let mut matching = Matching::new(query.filter.as_ref());
        let mut take = |id: u32, site: &Site, figures: &Figures| {
            if figures.is_idle(compared, by_peak)
                || !matching.site(model, stacks, site.node, site.process)
            {
                return;
            }
            let key = key(model, stacks, query.by, id);
            let at = *index.entry(key).or_insert_with(|| {
                groups.push(Group {
                    key,
                    figures: Figures::default(),
                    best: i64::MIN,
                    site: id,
                    sites: 0,
                    page_bytes: pages.as_ref().map(|_| (0, true)),
                    domain: Some(site.domain),
                    process: site.process,
                    more_processes: Vec::new(),
                });
                groups.len() - 1
            });
            groups[at].add(id, site.process, site.domain, figures, &query);
            if let (Some(sum), Some(pages)) = (&mut groups[at].page_bytes, &pages) {
                let of_site = pages.of(id);
                *sum = (sum.0.saturating_add(of_site.0), sum.1 && of_site.1);
            }
        };
        if let Some(figures) = figures {
            for (id, (site, figures)) in (0..).zip(model.sites().iter().zip(figures)) {
                take(id, site, figures);
            }
        } else {
            model.for_each_figures(&query.span, take);
        }

        let measure = |group: &Group| group.figures.measure(query.measure, query.unit);
        let mut sum = Figures::default();
        for group in &groups {
            sum.add(&group.figures);
        }
        groups.sort_by(|one, other| {
            measure(other)
                .cmp(&measure(one))
                .then(other.figures.total_bytes.cmp(&one.figures.total_bytes))
                .then(one.site.cmp(&other.site))
        });
        let total_rows = groups.len();
        let most_rows = query.limit.unwrap_or(usize::MAX);
        let most_frames = query.most_frames.unwrap_or(usize::MAX);
        let (mut rows, mut rest) = (Vec::new(), Figures::default());
        let (mut frames, mut is_full) = (0_usize, false);
        for group in groups {
            is_full |= rows.len() >= most_rows;
            if is_full {
                rest.add(&group.figures);
                continue;
            }
            let figures = group.figures;
            let row = group.into_row(model, stacks);
            frames = frames.saturating_add(row.stack.len() + ROW_FRAMES);
            is_full = frames > most_frames && !rows.is_empty();
            if is_full {
                rest.add(&figures);
            } else {
                rows.push(row);
            }
        }
        Top {
            query,
            rows,
            total_rows,
            rest,
            sum,
        }
    }

    fn of_threads(model: &Model<'_>, query: TopQuery) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut sum = Figures::default();
        for (id, facts) in model.threads().iter().enumerate() {
            let thread = facts.thread;
            let name = if thread.name.is_empty() {
                "thread"
            } else {
                thread.name.as_str()
            };
            let process = model.processes().get(thread.process as usize);
            let pid = process.map_or(0, |process| process.process.pid);
            let label = format!("{name} (tid {} of {pid})", thread.tid);
            let mut figures = Figures::new(&facts.counters, None, 0, 0, false);
            if model.is_sampled() && figures != Figures::default() {
                figures = figures.sampled_at(model.sample_bytes());
            }
            let wanted = query
                .filter
                .as_ref()
                .is_none_or(|filter| filter.matches(&label));
            if figures == Figures::default() || !wanted {
                continue;
            }
            sum.add(&figures);
            rows.push(Row {
                figures,
                head: Head::default(),
                label,
                domain: None,
                processes: vec![thread.process],
                thread: u32::try_from(id).ok(),
                site: None,
                sites: 0,
                page_bytes: None,
                stack: Vec::new(),
            });
        }
        let measure = |row: &Row| row.figures.measure(query.measure, query.unit);
        rows.sort_by(|one, other| {
            measure(other)
                .cmp(&measure(one))
                .then(other.figures.total_bytes.cmp(&one.figures.total_bytes))
                .then(one.thread.cmp(&other.thread))
        });
        let total_rows = rows.len();
        let shown = query.limit.unwrap_or(total_rows).min(total_rows);
        let mut rest = Figures::default();
        for row in &rows[shown..] {
            rest.add(&row.figures);
        }
        rows.truncate(shown);
        Top {
            query,
            rows,
            total_rows,
            rest,
            sum,
        }
    }
}

impl Group {
    fn add(&mut self, id: u32, process: u32, domain: Domain, figures: &Figures, query: &TopQuery) {
        self.figures.add(figures);
        self.sites += 1;
        let size = figures.measure(query.measure, query.unit);
        if size > self.best {
            self.best = size;
            self.site = id;
        }
        if self.domain != Some(domain) {
            self.domain = None;
        }
        // Sites come process by process.
        if process != self.process
            && self.more_processes.last() != Some(&process)
            && !self.more_processes.contains(&process)
        {
            self.more_processes.push(process);
        }
    }

    fn into_row<'a>(self, model: &Model<'a>, stacks: &mut Stacks<'a>) -> Row {
        let mut processes = self.more_processes;
        processes.push(self.process);
        processes.sort_unstable();
        let node = model
            .sites()
            .get(self.site as usize)
            .map_or(0, |site| site.node);
        let (head, stack) = match self.key {
            Key::Process(_) | Key::Domain(_) => (Head::default(), Vec::new()),
            _ => (stacks.head(model, node), stacks.stack(model, node)),
        };
        let label = match self.key {
            Key::Name(name) => stacks.name(name).to_owned(),
            Key::Process(process) => process_label(model, process),
            Key::Domain(domain) => domain.name().to_owned(),
            Key::Site(..) | Key::Line(..) | Key::Function(..) => String::new(),
        };
        Row {
            figures: self.figures,
            head,
            label,
            domain: self.domain,
            processes,
            thread: None,
            site: Some(self.site),
            sites: self.sites,
            page_bytes: self.page_bytes,
            stack,
        }
    }
}

/// The group that a site belongs to.
pub(crate) fn key<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, by: GroupBy, site: u32) -> Key {
    let site = model.sites()[site as usize];
    if by == GroupBy::Process {
        return Key::Process(site.process);
    }
    if by == GroupBy::Site {
        return Key::Site(stacks.shown_key(model, site.node), site.domain);
    }
    if by == GroupBy::Domain {
        return Key::Domain(site.domain);
    }
    match stacks.head(model, site.node).made_in {
        Some(id) => frame_key(stacks, by, id),
        None => Key::Name(Name::EMPTY),
    }
}

/// The group that a frame belongs to, of those that frames make: lines,
/// functions, files and libraries.
pub(crate) fn frame_key(stacks: &mut Stacks<'_>, by: GroupBy, id: FrameId) -> Key {
    let frame = *stacks.frame(id);
    match by {
        GroupBy::Line if frame.file.is_empty() => {
            Key::Function(frame.function, frame.file, frame.module)
        }
        GroupBy::Line => Key::Line(frame.file, frame.line),
        GroupBy::Function => Key::Function(frame.function, frame.file, frame.module),
        GroupBy::File if !frame.file.is_empty() => Key::Name(frame.file),
        GroupBy::File => Key::Name(frame.module),
        _ => Key::Name(stacks.library(id)),
    }
}

/// `python train.py (pid 4121)`.
pub(crate) fn process_label(model: &Model<'_>, process: u32) -> String {
    match model.processes().get(process as usize) {
        Some(facts) => format!("{} (pid {})", model.command(process), facts.process.pid),
        None => "process not known".into(),
    }
}

/// Remembers which heads and processes match a filter.
pub(crate) struct Matching<'f> {
    filter: Option<&'f Filter>,
    frames: FxHashMap<FrameId, bool>,
    processes: FxHashMap<u32, bool>,
}

impl<'f> Matching<'f> {
    pub(crate) fn new(filter: Option<&'f Filter>) -> Self {
        Matching {
            filter,
            frames: FxHashMap::default(),
            processes: FxHashMap::default(),
        }
    }

    /// Whether a site's row would show a matching name: where it was made,
    /// your code, or its process.
    pub(crate) fn site<'a>(
        &mut self,
        model: &Model<'a>,
        stacks: &mut Stacks<'a>,
        node: u32,
        process: u32,
    ) -> bool {
        let Some(filter) = self.filter else {
            return true;
        };
        let of_process = *self
            .processes
            .entry(process)
            .or_insert_with(|| filter.matches(&process_label(model, process)));
        let head = stacks.head(model, node);
        of_process
            || [head.made_in, head.your_code]
                .into_iter()
                .flatten()
                .any(|id| {
                    *self.frames.entry(id).or_insert_with(|| {
                        let frame = stacks.frame(id);
                        [frame.function, frame.file, frame.module]
                            .iter()
                            .any(|&name| filter.matches(stacks.name(name)))
                            || filter.matches(&format!(
                                "{}:{}",
                                stacks.name(frame.file),
                                frame.line
                            ))
                    })
                })
    }
}
