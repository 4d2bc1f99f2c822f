//! Instants that users name, and the recorded states nearest to them.

use crate::model::Model;

/// Name of the mark at which a process's main thread left `__main__`.
pub(crate) const MAIN_LEFT: &str = "main left";

const SECOND_NS: u64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// An instant as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instant {
    /// Before the first event.
    Start,
    /// The last recorded instant.
    End,
    /// The high-water mark.
    Peak,
    /// Nanoseconds after the start.
    After(u64),
    /// A time of day: seconds after midnight.
    Clock(u32),
    /// A mark's name.
    Mark(String),
}

/// Why an instant means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstantError {
    /// It begins as a span of time but is none.
    #[error("`{text}` is no span of time")]
    Span {
        /// As given.
        text: String,
    },
    /// It looks like a time of day but is none.
    #[error("`{text}` is no time of day")]
    Clock {
        /// As given.
        text: String,
    },
    /// There is no such mark.
    #[error("no instant is named `{name}` in this recording")]
    NoMark {
        /// As given.
        name: String,
        /// Names that there are.
        known: Vec<String>,
    },
    /// That time of day is not in the recording.
    #[error("the recording does not reach {clock}: it runs from {from} to {to}")]
    Outside {
        /// As given.
        clock: String,
        /// Its start.
        from: String,
        /// Its end.
        to: String,
    },
    /// The later instant comes before the earlier.
    #[error("`--from` names a later instant than `--to`")]
    Reversed,
}

impl InstantError {
    /// What would do.
    pub fn hint(&self) -> String {
        match self {
            InstantError::Span { .. } => "spans look like `+90s`, `+500ms`, `+1m30s`, `+2h`".into(),
            InstantError::Clock { .. } => "times of day look like `14:05` or `14:05:02`".into(),
            InstantError::NoMark { known, .. } if known.is_empty() => {
                "use `start`, `end`, `peak`, a span after the start (`+90s`) or a time of day (`14:05`)"
                    .into()
            }
            InstantError::NoMark { known, .. } => format!(
                "use `start`, `end`, `peak`, a span (`+90s`), a time of day (`14:05`) or a mark: {}",
                known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
            InstantError::Outside { .. } => "`start` and `end` always work".into(),
            InstantError::Reversed => "exchange them".into(),
        }
    }
}

impl Instant {
    /// Understands `start`, `end`, `peak`, `+90s`, `14:05:02`, or else the
    /// name of a mark.
    ///
    /// # Errors
    ///
    /// [`InstantError::Span`] or [`InstantError::Clock`] for a text that
    /// begins like one and is none.
    pub fn parse(text: &str) -> Result<Self, InstantError> {
        match text {
            "start" => return Ok(Instant::Start),
            "end" => return Ok(Instant::End),
            "peak" => return Ok(Instant::Peak),
            _ => {}
        }
        if let Some(span) = text.strip_prefix('+') {
            return parse_span(span)
                .map(Instant::After)
                .ok_or_else(|| InstantError::Span { text: text.into() });
        }
        let clock_like = text.contains(':')
            && text.chars().all(|c| c.is_ascii_digit() || c == ':')
            && text.starts_with(|c: char| c.is_ascii_digit());
        if clock_like {
            return parse_clock(text)
                .map(Instant::Clock)
                .ok_or_else(|| InstantError::Clock { text: text.into() });
        }
        Ok(Instant::Mark(text.into()))
    }
}

/// `90s`, `500ms`, `1m30s`, `1.5h`, `2d`; a bare number is seconds.
fn parse_span(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return span_ns(seconds);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    if text.is_empty() { None } else { span_ns(sum) }
}

fn span_ns(seconds: f64) -> Option<u64> {
    // Casts of floats saturate.
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1e9).round() as u64)
}

fn parse_clock(text: &str) -> Option<u32> {
    let parts: Vec<u32> = text
        .split(':')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Whether processes that had left `__main__` by an instant are shown as they
/// were when they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// They are not.
    No,
    /// They are, at the instant at which the first process left.
    AtFirst,
    /// They are, each as it was then, at the end of the others.
    Each,
}

/// A recorded state: the one nearest to an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    bin: Option<usize>,
    peak: bool,
    left: Left,
    resolved_ns: u64,
    resolution_ns: u64,
    exact: bool,
}

impl At {
    /// The bin whose end it is; `None` before the first.
    pub(crate) fn bin(&self) -> Option<usize> {
        self.bin
    }

    /// Live figures are those of the high-water mark.
    pub(crate) fn is_peak(&self) -> bool {
        self.peak
    }

    /// The figures of a process whose main thread had left `__main__` are
    /// those of that instant, before the interpreter was taken down.
    pub(crate) fn is_as_left(&self) -> bool {
        self.left != Left::No
    }

    /// When the state was, nanoseconds since the start.
    pub fn resolved_ns(&self) -> u64 {
        self.resolved_ns
    }

    /// Nanoseconds between recorded states here: how far off it may be.
    pub fn resolution_ns(&self) -> u64 {
        self.resolution_ns
    }

    /// Every site's counters are exact then. Else each may lack its last
    /// changes, below 64 KiB or 1 %.
    pub fn exact(&self) -> bool {
        self.exact
    }
}

/// The instants of a question: one, or two to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: Option<At>,
    to: At,
}

impl Span {
    /// What is worth seeing where no instant was asked for: the state when the
    /// program had done its work.
    ///
    /// A Python process has when its main thread leaves `__main__`: what comes
    /// after is the interpreter's own end. Any other has at its end, and so
    /// has one that came to hold more afterwards (by a tenth): threads went on.
    pub fn usual(model: &Model<'_>) -> Self {
        Span {
            from: None,
            to: at_usual(model),
        }
    }

    /// From an instant to the usual one; to the end where that came before.
    ///
    /// # Errors
    ///
    /// The instant is not in the recording.
    pub fn since(model: &Model<'_>, from: &Instant) -> Result<Self, InstantError> {
        let (from, usual) = (resolve(model, from)?, at_usual(model));
        if from.resolved_ns >= usual.resolved_ns {
            return Ok(Span {
                from: Some(from),
                to: at_end(model),
            });
        }
        // A process that had left by then did not change since.
        let left = usual.left;
        Ok(Span {
            from: Some(At { left, ..from }),
            to: usual,
        })
    }

    /// The whole recording: its state at the end.
    pub fn whole(model: &Model<'_>) -> Self {
        Span {
            from: None,
            to: at_end(model),
        }
    }

    /// The state at an instant.
    ///
    /// # Errors
    ///
    /// The instant is not in the recording.
    pub fn at(model: &Model<'_>, instant: &Instant) -> Result<Self, InstantError> {
        Ok(Span {
            from: None,
            to: resolve(model, instant)?,
        })
    }

    /// From one instant to another.
    ///
    /// # Errors
    ///
    /// One of them is not in the recording, or they are in the wrong order.
    pub fn between(model: &Model<'_>, from: &Instant, to: &Instant) -> Result<Self, InstantError> {
        let (from, to) = (resolve(model, from)?, resolve(model, to)?);
        if from.resolved_ns > to.resolved_ns {
            return Err(InstantError::Reversed);
        }
        Ok(Span {
            from: Some(from),
            to,
        })
    }

    /// The earlier instant, of two.
    pub fn from(&self) -> Option<&At> {
        self.from.as_ref()
    }

    /// The instant, or the later of two.
    pub fn to(&self) -> &At {
        &self.to
    }

    /// The earlier instant, of two, by itself.
    pub(crate) fn only_from(&self) -> Option<Span> {
        self.from.map(|to| Span { from: None, to })
    }

    /// The instant, or the later of two, by itself.
    pub(crate) fn only_to(&self) -> Span {
        Span {
            from: None,
            to: self.to,
        }
    }

    /// The coarser of the resolutions at its instants, in nanoseconds.
    pub fn resolution_ns(&self) -> u64 {
        self.from
            .map_or(0, |from| from.resolution_ns)
            .max(self.to.resolution_ns)
    }

    /// Whether the later instant is the recording's last.
    pub fn reaches_end(&self, model: &Model<'_>) -> bool {
        self.to == at_end(model)
    }

    /// Whether processes that had left `__main__` are shown as they were then.
    pub(crate) fn is_as_left(&self) -> bool {
        self.to.is_as_left()
    }

    /// The later instant is the one at which the only process left
    /// `__main__`.
    pub fn is_as_first_left(&self) -> bool {
        self.to.left == Left::AtFirst
    }

    /// There is no one later instant: processes that left `__main__` are
    /// shown as they were then, others at their end.
    pub fn is_as_each_left(&self) -> bool {
        self.to.left == Left::Each
    }
}

fn resolve(model: &Model<'_>, instant: &Instant) -> Result<At, InstantError> {
    Ok(match instant {
        Instant::Start => AT_START,
        Instant::End => at_end(model),
        Instant::Peak => at_peak(model),
        Instant::After(ns) => nearest(model, *ns),
        Instant::Clock(seconds) => nearest(model, clock_ns(model, *seconds)?),
        Instant::Mark(name) => {
            let named = || model.marks().iter().filter(|mark| mark.name == *name);
            let first = model.first_process();
            let of_first = named().find(|mark| {
                mark.process
                    .is_some_and(|process| Some(process as usize) == first)
            });
            let mark = of_first.or_else(|| named().next()).ok_or_else(|| {
                let mut known: Vec<String> =
                    model.marks().iter().map(|mark| mark.name.clone()).collect();
                known.sort_unstable();
                known.dedup();
                InstantError::NoMark {
                    name: name.clone(),
                    known,
                }
            })?;
            at_mark(model, mark.at_ns)
        }
    })
}

const AT_START: At = At {
    bin: None,
    peak: false,
    left: Left::No,
    resolved_ns: 0,
    resolution_ns: 0,
    exact: true,
};

fn at_bin(model: &Model<'_>, index: usize) -> At {
    let ends = model.bin_ends();
    let before = index.checked_sub(1).map_or(0, |before| ends[before]);
    At {
        bin: Some(index),
        peak: false,
        left: Left::No,
        resolved_ns: ends[index],
        resolution_ns: ends[index] - before,
        exact: model.bins()[index].complete,
    }
}

fn at_end(model: &Model<'_>) -> At {
    model
        .bins()
        .len()
        .checked_sub(1)
        .map_or(AT_START, |last| At {
            // Nothing comes after it that it could be mistaken for.
            resolution_ns: 0,
            ..at_bin(model, last)
        })
}

/// See [`Span::usual`].
fn at_usual(model: &Model<'_>) -> At {
    let left = model.left_main();
    let first = model.first_process();
    match first.and_then(|first| left[first]) {
        // The others had ended: an instant of the whole session.
        Some(left) if model.is_alone(first, left.at_ns) => At {
            left: Left::AtFirst,
            ..at_mark(model, left.at_ns)
        },
        _ if left.iter().any(Option::is_some) => At {
            left: Left::Each,
            ..at_end(model)
        },
        _ => at_end(model),
    }
}

/// The recorder ends a bin at each mark.
fn at_mark(model: &Model<'_>, ns: u64) -> At {
    let at = nearest(model, ns);
    if at.resolved_ns == ns && at.exact {
        At {
            resolution_ns: 0,
            ..at
        }
    } else {
        at
    }
}

/// Live figures are the peak's own; what was allocated by then is that of the
/// bin it lies in, so that no site holds more than it was given.
fn at_peak(model: &Model<'_>) -> At {
    let peak = model.high_water();
    let ends = model.bin_ends();
    let within = ends.partition_point(|&end| end < peak.at_ns);
    let bin = match within.min(ends.len().saturating_sub(1)) {
        _ if ends.is_empty() => AT_START,
        within => at_bin(model, within),
    };
    At {
        peak: true,
        resolved_ns: peak.at_ns,
        resolution_ns: if peak.exact { 0 } else { bin.resolution_ns },
        exact: peak.exact,
        ..bin
    }
}

/// The recorded state nearest to `ns`: the end of a bin, or the start.
fn nearest(model: &Model<'_>, ns: u64) -> At {
    let ends = model.bin_ends();
    let after = ends.partition_point(|&end| end < ns);
    let before_end = after.checked_sub(1).map_or(0, |before| ends[before]);
    match ends.get(after) {
        Some(&end) if end - ns <= ns - before_end => {
            // The last of several bins that end together holds all of them.
            let last = ends.partition_point(|&other| other <= end) - 1;
            at_bin(model, last)
        }
        _ => match after.checked_sub(1) {
            Some(before) => at_bin(model, before),
            None => AT_START,
        },
    }
}

/// Nanoseconds after the start of the first `seconds` after midnight that the
/// recording reaches.
fn clock_ns(model: &Model<'_>, seconds: u32) -> Result<u64, InstantError> {
    let started = started_local_ns(model);
    let second = i64::try_from(SECOND_NS).unwrap_or(i64::MAX);
    // A clock time names its second as a whole: one that the recording began
    // in the middle of is its start.
    let started_second = started.div_euclid(second);
    let ahead = (i64::from(seconds) - started_second).rem_euclid(DAY_SECONDS);
    let at = (started_second + ahead)
        .saturating_mul(second)
        .saturating_sub(started)
        .max(0) as u64;
    if at > model.duration_ns() {
        return Err(InstantError::Outside {
            clock: hms(i64::from(seconds)),
            from: clock(model, 0),
            to: clock(model, model.duration_ns()),
        });
    }
    Ok(at)
}

fn started_local_ns(model: &Model<'_>) -> i64 {
    let started = model.session().map_or(0, |session| session.started_unix_ns);
    let offset = i64::from(model.origin().utc_offset_seconds);
    i64::try_from(started)
        .unwrap_or(i64::MAX)
        .saturating_add(offset.saturating_mul(SECOND_NS as i64))
}

/// The time of day at `ns` after the start, as `14:05:02`.
pub fn clock(model: &Model<'_>, ns: u64) -> String {
    let at = started_local_ns(model).saturating_add(i64::try_from(ns).unwrap_or(i64::MAX));
    hms(at.div_euclid(SECOND_NS as i64))
}

fn hms(seconds: i64) -> String {
    let seconds = seconds.rem_euclid(DAY_SECONDS);
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}
