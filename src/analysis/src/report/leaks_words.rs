//! Verdicts in words: the same in text, JSON and the formats of CI.

use crate::frame::FrameId;
use crate::heap::Step;
use crate::leaks::{Cause, Findings, Hidden, Leaks, LimitOf, LostReferences, Reason};
use crate::model::Model;
use crate::report::table::cut;
use crate::report::text::frame_words;
use crate::report::words::{blocks, bytes, counted, duration};
use crate::stack::Stacks;
use crate::top::process_label;
use crate::verdict::{AxisKind, Doubt, Rate, Verdict};

/// A unit for rates: that of time, and that of memory, with their sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateUnit {
    per: &'static str,
    seconds: f64,
    memory: &'static str,
    bytes: f64,
}

impl RateUnit {
    /// For a recording of so many seconds whose largest rate is this: what
    /// lasts less than a minute is told by the second.
    pub(crate) fn new(seconds: f64, largest: f64) -> Self {
        let (per, of_time) = if seconds < 60.0 {
            ("s", 1.0)
        } else {
            ("min", 60.0)
        };
        let largest = largest * of_time;
        let (memory, of_memory) = match largest {
            _ if largest < 1000.0 => ("B", 1.0),
            _ if largest < 1_000_000.0 => ("KiB", 1024.0),
            _ if largest < 1e9 => ("MiB", 1_048_576.0),
            _ => ("GiB", 1_073_741_824.0),
        };
        RateUnit {
            per,
            seconds: of_time,
            memory,
            bytes: of_memory,
        }
    }

    pub(crate) fn name(self) -> String {
        format!("{}/{}", self.memory, self.per)
    }

    fn value(self, bytes_per_second: f64) -> f64 {
        bytes_per_second * self.seconds / self.bytes
    }

    /// `1.21 ± 0.11`.
    pub(crate) fn figure(self, rate: &Rate) -> String {
        let (value, error) = (self.value(rate.bytes_per_second), self.value(rate.error));
        let decimals = match value {
            value if value < 9.995 && self.bytes > 1.0 => 2,
            value if value < 99.95 && self.bytes > 1.0 => 1,
            _ => 0,
        };
        let least = 10_f64.powi(-decimals);
        let decimals = usize::try_from(decimals).unwrap_or(0);
        // Never less than what the figure's last digit stands for.
        let error = (error / least).ceil().max(1.0) * least;
        format!("{value:.decimals$} ± {error:.decimals$}")
    }

    /// `1.21 ± 0.11 MiB/min`.
    pub(crate) fn with_name(self, rate: &Rate) -> String {
        format!("{} {}", self.figure(rate), self.name())
    }
}

/// `60.0 KiB/min`: a rate that is no estimate.
pub(crate) fn speed(bytes_per_second: f64, seconds: f64) -> String {
    let (per, of_time) = if seconds < 60.0 {
        ("s", 1.0)
    } else {
        ("min", 60.0)
    };
    format!(
        "{}/{per}",
        bytes((bytes_per_second * of_time).ceil() as u64)
    )
}

impl Leaks {
    pub(crate) fn seconds(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    /// The unit for all rates of the answer.
    pub(crate) fn unit(&self) -> RateUnit {
        let rates = self
            .suspects
            .iter()
            .map(|cause| cause.rate.bytes_per_second);
        RateUnit::new(self.seconds(), rates.fold(0.0, f64::max))
    }

    /// The answer in a sentence.
    pub(crate) fn answer(&self) -> String {
        let span = duration(self.to_ns.saturating_sub(self.from_ns));
        let would_show = speed(self.detectable_bytes_per_second, self.seconds());
        let (leaking, rate) = &self.leaking;
        let growing = self.total_suspects - leaking;
        let matching = if self.query.filter.is_some() {
            "matching "
        } else {
            ""
        };
        match leaking {
            0 if self.has_few_snapshots() => self.few_snapshots("UNCLEAR"),
            0 if self.to_ns <= self.from_ns => {
                "UNCLEAR: nothing ran after the program had started".into()
            }
            0 if growing > 0 => format!(
                "No {matching}leak found in {span}, but {} still: whether it stops cannot be told yet",
                if growing == 1 {
                    "1 cause grows".to_owned()
                } else {
                    format!("{growing} causes grow")
                }
            ),
            0 => format!(
                "No {matching}leak found in {span}: growth above {would_show} would have shown"
            ),
            count => {
                let causes = counted(*count as u64, "cause", "causes");
                let together = if *count > 1 { "together " } else { "" };
                if rate.bytes_per_second > 0.0 {
                    format!("LEAK: {causes}, {together}{}", self.unit().with_name(rate))
                } else {
                    let lost = self.suspects.iter().filter_map(|cause| cause.lost.as_ref());
                    let lost = lost.map(|lost| lost.figures.all().bytes);
                    let lost = bytes(lost.fold(0, u64::saturating_add));
                    format!("LEAK: {causes}, {together}{lost} lost")
                }
            }
        }
    }

    fn few_snapshots(&self, lead: &str) -> String {
        let count = counted(self.snapshots.unwrap_or(0) as u64, "snapshot", "snapshots");
        format!(
            "{lead}: {count} cannot tell a leak from what came in between; 8 and more say what grows"
        )
    }

    /// The answer, and the first cause's place, in a line.
    pub fn brief(&self, stacks: &Stacks<'_>) -> String {
        let Some(cause) = self.suspects.first() else {
            let would_show = speed(self.detectable_bytes_per_second, self.seconds());
            return if self.has_few_snapshots() {
                self.few_snapshots("not clear")
            } else if self.to_ns <= self.from_ns {
                "not clear: nothing ran after the program had started".into()
            } else {
                format!("no leak found; growth above {would_show} would have shown")
            };
        };
        let head = cause.sites[0].head;
        let place = head.your_code.or(head.made_in);
        let place = place.map_or_else(String::new, |id| named(stacks, id));
        let more = match self.total_suspects - 1 {
            0 => String::new(),
            1 => ", and 1 more".into(),
            more => format!(", and {more} more"),
        };
        let rate = self.unit().with_name(&cause.rate);
        if cause.verdict == Verdict::Unreachable {
            format!(
                "{} unreachable {}  {place}{more}",
                cause.id,
                self.pace(cause)
            )
        } else if cause.is_leak() {
            format!("{} {} {rate}  {place}{more}", cause.id, cause.word())
        } else {
            format!("not clear yet: {} grows by {rate}  {place}{more}", cause.id)
        }
    }

    /// `limit of 2.00 GiB reached in about 5 h (4 h 33 min to 5 h 29 min)`. Of a limit
    /// that the user did not ask about only where something leaks.
    pub(crate) fn forecast_words(&self) -> Option<String> {
        let forecast = self.forecast?;
        let of = match forecast.of {
            LimitOf::Given | LimitOf::ControlGroup => "limit of",
            LimitOf::AddressSpace(_) => "address space limit (RLIMIT_AS) of",
            LimitOf::Data(_) => "data limit (RLIMIT_DATA) of",
        };
        let limit = format!("{of} {}", bytes(forecast.limit_bytes));
        let after = |seconds: f64| duration((seconds * 1e9) as u64);
        if forecast.of != LimitOf::Given && self.leaking.0 == 0 {
            return None;
        }
        if forecast.used_bytes >= forecast.limit_bytes {
            return Some(format!(
                "{limit} reached: it takes {}",
                bytes(forecast.used_bytes)
            ));
        }
        match (forecast.reached_in_seconds, forecast.interval) {
            (Some(about), Some((soonest, latest))) => Some(format!(
                "{limit} reached in about {} ({} to {})",
                after(about),
                after(soonest),
                latest.map_or_else(|| "never".into(), after)
            )),
            _ if forecast.of == LimitOf::Given => Some(format!(
                "{limit}: no leak leads there, {} taken",
                bytes(forecast.used_bytes)
            )),
            _ => None,
        }
    }

    /// How fast a cause grows, or, of what is lost and does not, how much it is.
    pub(crate) fn pace(&self, cause: &Cause) -> String {
        match &cause.lost {
            Some(lost) if cause.rate.bytes_per_second <= 0.0 => {
                format!("{} lost", bytes(lost.figures.all().bytes))
            }
            _ => self.unit().with_name(&cause.rate),
        }
    }

    /// What would decide, of a cause that only grows.
    pub(crate) fn decides(&self, cause: &Cause) -> Option<String> {
        let span = self.to_ns.saturating_sub(self.from_ns);
        let times = |n: u64| duration(span.saturating_mul(n));
        Some(match cause.doubt? {
            Doubt::Few | Doubt::Recent | Doubt::Slowing | Doubt::Renewed => {
                format!("{} more would decide", times(2))
            }
            Doubt::Dying | Doubt::Irregular => format!("{} more would decide", times(4)),
            Doubt::Idle => "a recording that ends while the program works would decide".into(),
            Doubt::Coarse => "a recording in which it runs for longer would decide".into(),
            Doubt::Unseen => "a recording (`leakline run`) would decide".into(),
        })
    }
}

/// Fewer bytes of pages matter to nobody.
const MANY_PAGES: u64 = 256 << 10;

/// What shows that a cause is what it is called, a sentence each.
pub(crate) fn evidence(model: &Model<'_>, stacks: &Stacks<'_>, cause: &Cause) -> Vec<String> {
    let mut words = Vec::new();
    let sites = cause.sites.iter().map(|site| site.merged as u64).sum();
    words.push(format!(
        "{} live in {} of {}",
        bytes(cause.live.bytes),
        counted(cause.live.blocks, "block", "blocks"),
        counted(sites, "site", "sites")
    ));
    // As much as blocks have of their own pages need not be said.
    if let Some(pages) = cause.pages
        && pages.bytes / 2 >= cause.live.bytes
        && pages.bytes >= MANY_PAGES
    {
        let about = if pages.error.is_some() { "about " } else { "" };
        let which = if pages.are_resident { "resident " } else { "" };
        let kept = bytes(pages.bytes);
        words.push(format!("its blocks keep {about}{kept} of {which}pages"));
    }
    let judged = &cause.sites[0].judged;
    let counted_sites = cause
        .sites
        .iter()
        .filter(|site| site.judged.verdict == cause.verdict);
    let (born, kept) = counted_sites.fold((0_u64, 0_u64), |sum, site| {
        let (born, kept) = site.judged.kept;
        (sum.0.saturating_add(born), sum.1.saturating_add(kept))
    });
    if born > 0 {
        words.push(if born == kept {
            format!("all {} blocks made since then stayed", blocks(born))
        } else {
            format!(
                "{} of {} blocks made since then stayed",
                blocks(kept),
                blocks(born)
            )
        });
    }
    if judged.lasting_seconds > 0.0 && cause.verdict == Verdict::Leaking {
        let age = duration((judged.lasting_seconds * 1e9) as u64);
        words.push(format!("hardly one dies that is older than {age}"));
    }
    if cause.verdict == Verdict::Leaking && judged.axis != AxisKind::Clock {
        words.push(format!(
            "steady by {}",
            match judged.axis {
                AxisKind::Rounds => "rounds",
                _ => "the program's allocations, not by the clock",
            }
        ));
    }
    match &cause.reason {
        Some(Reason::Lost(one)) => words.push(lost_evidence(stacks, one)),
        Some(Reason::Hidden(one)) => {
            let [what, _, shown] = hidden_words(stacks, one);
            words.push(format!("{what}; {shown}"));
        }
        Some(Reason::Garbage { objects, collects }) => {
            let what = format!(
                "{} of its objects are garbage that a gc.collect() would free",
                blocks(*objects)
            );
            words.push(match collects {
                Some(false) => format!("{what}: gc is switched off, gc.enable() is the remedy"),
                _ => what,
            });
        }
        None => {}
    }
    if let Some(lost) = &cause.lost {
        words.push(lost.evidence.clone());
    }
    if let Some(doubt) = cause.doubt {
        words.push(doubt.words().to_owned());
    }
    if let Some(alike) = shares(model, cause) {
        words.push(alike);
    }
    words
}

impl Doubt {
    /// Why it is no more than growing.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Doubt::Few => "too few blocks stay to tell",
            Doubt::Recent => "it began in the last quarter of the recording",
            Doubt::Slowing => "fewer stay than before, as of a cache that fills",
            Doubt::Dying => "old blocks still die",
            Doubt::Irregular => "what stays comes in clumps",
            Doubt::Renewed => "it is a block that is made anew, larger each time",
            Doubt::Idle => "it stopped when the program stopped allocating, long before the end",
            Doubt::Coarse => "the recording has too few states of the time in which it grew",
            Doubt::Unseen => "snapshots do not tell whether what is old stays",
        }
    }
}

/// `all 4 processes alike`, `most of it in worker.py (pid 21)`.
fn shares(model: &Model<'_>, cause: &Cause) -> Option<String> {
    let (most, least) = (cause.shares.first()?, cause.shares.last()?);
    let all: i64 = cause
        .shares
        .iter()
        .map(|share| share.grown_bytes.max(0))
        .fold(0, i64::saturating_add);
    if model.processes().len() < 2 {
        return None;
    }
    let is_alike = least.grown_bytes.saturating_mul(2) > most.grown_bytes;
    Some(match cause.shares.len() {
        1 => format!("only in {}", process_label(model, most.process)),
        2 if is_alike => "both processes alike".into(),
        count if is_alike => format!("all {count} processes alike"),
        _ if most.grown_bytes.saturating_mul(10) > all.saturating_mul(9) => {
            format!("nearly only in {}", process_label(model, most.process))
        }
        count => format!(
            "in {count} processes, most in {}",
            process_label(model, most.process)
        ),
    })
}

/// A frame as one text: `load_session app/sessions.py:41`.
pub(crate) fn named(stacks: &Stacks<'_>, id: FrameId) -> String {
    let (function, place) = frame_words(stacks, id);
    if place.is_empty() {
        function
    } else {
        format!("{function} {place}")
    }
}

/// Types whose freed objects CPython makes new ones of.
pub(crate) const REUSED: [&str; 4] = ["dict", "list", "tuple", "float"];

/// Lost references, in a sentence each: what was lost and how often, where the objects
/// are made, and what shows it.
pub(crate) fn lost_words(stacks: &Stacks<'_>, one: &LostReferences) -> [String; 3] {
    let lost = &one.lost;
    let mut what = if lost.unheld == lost.objects {
        format!(
            "{} of {}, {}",
            counted(lost.objects, "object", "objects"),
            lost.type_name,
            bytes(lost.bytes)
        )
    } else {
        format!(
            "{} to {} of {}",
            counted(lost.references, "reference", "references"),
            counted(lost.objects, "object", "objects"),
            lost.type_name
        )
    };
    let place = one.head.made_in.map(|id| named(stacks, id));
    if let (Some(per_call), Some(place)) = (one.per_call(), &place) {
        what = format!("{what}; {per_call:.2} lost a call in {place}");
    }
    let place = match place {
        Some(place) if lost.unheld < lost.objects && REUSED.contains(&lost.type_name.as_str()) => {
            format!("{place} (or its block was: free lists reuse them)")
        }
        Some(place) => place,
        None => "not known".into(),
    };
    let (address, references, found) = lost.example;
    let mut shown = format!(
        "the one at {address:#x} counts {}, and {} in all the process's memory",
        counted(references.into(), "reference", "references"),
        match found {
            0 => "nothing points to it".to_owned(),
            1 => "1 word points to it".to_owned(),
            found => format!("{found} words point to it"),
        }
    );
    if let Some(grown) = one.grown {
        shown = format!(
            "{shown}; {} more than in the earlier graph",
            blocks(grown.unsigned_abs())
        );
    }
    [what, place, shown]
}

/// `reference lost: refcount 3, 2 holders found; 1.00 lost a call in decode (decode.c:163)`.
fn lost_evidence(stacks: &Stacks<'_>, one: &LostReferences) -> String {
    let (_, references, found) = one.lost.example;
    let place = one.head.made_in.or(one.head.your_code);
    let found_words = match found {
        0 => "no holder found".to_owned(),
        found => format!("{} found", counted(found.into(), "holder", "holders")),
    };
    let often = match (one.per_call(), place) {
        (Some(per_call), Some(id)) => format!("{per_call:.2} lost a call in {}", named(stacks, id)),
        _ => format!(
            "{} to {} lost",
            counted(one.lost.references, "reference", "references"),
            counted(one.lost.objects, "object", "objects")
        ),
    };
    format!(
        "reference lost: refcount {references}, {found_words}; {often}; memory was searched in \
         vain for {} of {}",
        blocks(one.lost.proven),
        blocks(one.lost.objects)
    )
}

/// Hidden cycles, in sentences: which class, where its objects are made, and what shows it.
pub(crate) fn hidden_words(stacks: &Stacks<'_>, one: &Hidden) -> [String; 3] {
    let cycles = &one.cycles;
    let what = format!(
        "cycle through {} (native type without tp_traverse): gc cannot see it; {}, {} kept",
        cycles.class,
        counted(cycles.natives, "object of it", "objects of it"),
        bytes(cycles.bytes),
    );
    let place = one.head.made_in.map(|id| named(stacks, id));
    let place = place.unwrap_or_else(|| "not known".into());
    let types = cycles.types.iter().take(4);
    let types: Vec<String> = types
        .map(|type_| format!("{} {}", blocks(type_.count), type_.name))
        .collect();
    let mut shown = format!(
        "nothing else holds these {} objects: {}",
        blocks(cycles.objects),
        types.join(", ")
    );
    if let Some(grown) = one.grown {
        shown = format!(
            "{shown}; {} more than in the earlier graph",
            blocks(grown.unsigned_abs())
        );
    }
    [what, place, shown]
}

/// What is garbage, and what frees it; `None` where there is none.
pub(crate) fn garbage_words(findings: &Findings) -> Option<String> {
    let garbage = &findings.garbage;
    if garbage.objects == 0 {
        return None;
    }
    let what = format!(
        "{} ({}) held by nothing: in cycles that a gc.collect() would free",
        counted(garbage.objects, "object", "objects"),
        bytes(garbage.bytes)
    );
    Some(match findings.collects {
        Some(false) => format!(
            "{what}. gc is switched off: gc.enable() lets it run by itself, or call gc.collect() \
             now and then."
        ),
        _ => format!("{what}."),
    })
}

/// What is frozen garbage; `None` where there is none.
pub(crate) fn frozen_words(findings: &Findings) -> Option<String> {
    let (objects, size) = findings.frozen;
    (objects > 0).then(|| {
        format!(
            "{} ({}) held by nothing but frozen (gc.freeze), or by such: gc.unfreeze() and \
             gc.collect() would free them.",
            counted(objects, "object", "objects"),
            bytes(size)
        )
    })
}

/// What leads to the objects of a step: `[*] e.g. 'user-42'` where the key of one of many is
/// known.
pub fn step_words(step: &Step) -> String {
    const MOST_COLUMNS: usize = 24;
    let mut words = step.way().into_owned();
    if step.repeats {
        words.push_str("...");
    }
    if let Some(key) = step.example() {
        words.push_str(" e.g. ");
        words.push_str(&cut(key, MOST_COLUMNS));
    }
    words
}

/// Who holds a lost block.
pub(crate) const NOTHING: &str = "nothing: no pointer leads to it";

/// Where no heap graph was looked at.
const NOT_KNOWN: &str = "not known: no heap graph";

/// Who holds a cause, as short as can be, or else where it is made.
pub(crate) fn held_briefly(cause: &Cause) -> String {
    let group = cause.held.as_ref().and_then(|held| held.group.as_ref());
    let path = group.and_then(|group| group.paths.first());
    match path.filter(|path| path.root.is_some()) {
        // The container says who; what is in it does not.
        Some(path) => match path.words.find("[*]") {
            Some(at) if at > 0 => path.words[..at].to_owned(),
            _ => path.words.clone(),
        },
        None if cause.verdict == Verdict::Unreachable => "nothing points to it".into(),
        None => String::new(),
    }
}

/// Who holds a cause, in a line; without that and why where it is not known.
pub(crate) fn held_by(cause: &Cause) -> Result<String, String> {
    if cause.verdict == Verdict::Unreachable {
        return Ok(NOTHING.into());
    }
    let Some(held) = &cause.held else {
        return Err(NOT_KNOWN.into());
    };
    let Some((group, path)) =
        (held.group.as_ref()).and_then(|group| Some((group, group.paths.first()?)))
    else {
        return Err(format!(
            "not known: no object of it in heap graph {}",
            held.graph
        ));
    };
    match &cause.reason {
        Some(Reason::Lost(one)) if one.lost.unheld == one.lost.objects => {
            return Ok("nothing: the references to them were lost".into());
        }
        Some(Reason::Hidden(one)) => {
            return Ok(format!(
                "nothing: in cycles through {}, which gc cannot see",
                one.cycles.class
            ));
        }
        _ => {}
    }
    let mut words = match path.root {
        None => "nothing: in cycles that a gc.collect() would free".to_owned(),
        Some(_) => path.words.clone(),
    };
    if group.total_paths > 1 {
        words = format!(
            "{words}, and {} more",
            counted(group.total_paths as u64 - 1, "path", "paths")
        );
    }
    Ok(words)
}
