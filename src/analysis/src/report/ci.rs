//! The outcome of a check, for the machines that run it: JUnit's XML and
//! GitHub's annotations; and what is to be remembered of it, a baseline.

use std::io;

use serde::{Deserialize, Serialize};

use crate::leaks::{Cause, Leaks};
use crate::model::Model;
use crate::report::leaks_words::{evidence, named};
use crate::report::words::bytes;
use crate::stack::Stacks;
use crate::verdict::Verdict;

/// Version of the baseline's keys.
const VERSION: u32 = 1;

/// Causes that are known, and do not fail a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    schema: String,
    version: u32,
    causes: Vec<Known>,
}

/// A cause by its meaning: lines move, addresses change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    function: String,
    file: String,
    verdict: String,
    rate_bytes_per_second: f64,
}

/// Why a file is no baseline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// It is something else.
    #[error("it is no baseline of leakline's")]
    Foreign,
    /// It is a later version's.
    #[error("it is of version {0}; this leakline reads up to {VERSION}")]
    Newer(u32),
}

impl Baseline {
    /// What was found now.
    pub fn of(stacks: &Stacks<'_>, leaks: &Leaks) -> Self {
        let causes = leaks.suspects.iter().map(|cause| {
            let (function, file) = meaning(stacks, cause);
            Known {
                function,
                file,
                verdict: cause.verdict.word().into(),
                rate_bytes_per_second: cause.rate.bytes_per_second.round(),
            }
        });
        Baseline {
            schema: "leakline.baseline".into(),
            version: VERSION,
            causes: causes.collect(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// The text is none, or of a later version.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        let baseline: Baseline = serde_json::from_str(text).map_err(|_| BaselineError::Foreign)?;
        if baseline.schema != "leakline.baseline" {
            return Err(BaselineError::Foreign);
        }
        if baseline.version > VERSION {
            return Err(BaselineError::Newer(baseline.version));
        }
        Ok(baseline)
    }

    /// As text, to be committed.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether a cause is in it, and no worse than it was: half as fast again
    /// at most, and not surely a leak where it only grew.
    pub fn knows(&self, stacks: &Stacks<'_>, cause: &Cause) -> bool {
        let (function, file) = meaning(stacks, cause);
        let slowest = cause.rate.bytes_per_second - cause.rate.error;
        self.causes.iter().any(|known| {
            known.function == function
                && known.file == file
                && slowest <= known.rate_bytes_per_second * 1.5
                && (!is_leak(cause) || known.verdict != Verdict::Growing.word())
        })
    }
}

/// Whether it is more than growth.
fn is_leak(cause: &Cause) -> bool {
    matches!(cause.verdict, Verdict::Leaking | Verdict::Unreachable)
}

/// Function, and the last two parts of the file.
fn meaning(stacks: &Stacks<'_>, cause: &Cause) -> (String, String) {
    let head = cause.sites[0].head;
    let Some(id) = head.your_code.or(head.made_in) else {
        return (String::new(), String::new());
    };
    let frame = stacks.frame(id);
    let file = if frame.file.is_empty() {
        frame.module
    } else {
        frame.file
    };
    let parts: Vec<&str> = stacks.name(file).rsplit('/').take(2).collect();
    let file = parts.into_iter().rev().collect::<Vec<_>>().join("/");
    (stacks.name(frame.function).to_owned(), file)
}

/// What fails, in a line.
fn message(model: &Model<'_>, stacks: &Stacks<'_>, leaks: &Leaks, cause: &Cause) -> String {
    let head = cause.sites[0].head;
    let made_in = head
        .made_in
        .map_or_else(String::new, |id| named(stacks, id));
    format!(
        "{} {} {}, made in {made_in}; {}",
        cause.id,
        cause.verdict.word(),
        leaks.unit().with_name(&cause.rate),
        evidence(model, cause).join("; ")
    )
}

/// Writes JUnit's XML: a test for each cause, which fails where `fails` says
/// so, and one for all the rest.
pub fn junit<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    fails: &[bool],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let failures = fails.iter().filter(|&&fails| fails).count();
    let tests = leaks.suspects.len() + 1;
    let target = xml(&model.target());
    let time = leaks.seconds();
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuites tests="{tests}" failures="{failures}" time="{time:.3}">"#
    )?;
    writeln!(
        out,
        r#"  <testsuite name="leakline" tests="{tests}" failures="{failures}" time="{time:.3}">"#
    )?;
    for (cause, &fails) in leaks.suspects.iter().zip(fails) {
        let (function, file) = meaning(stacks, cause);
        let name = xml(&format!("{function} ({file})"));
        let text = xml(&message(model, stacks, leaks, cause));
        writeln!(out, r#"    <testcase classname="{target}" name="{name}">"#)?;
        if fails {
            writeln!(
                out,
                r#"      <failure type="{}" message="{text}">"#,
                cause.verdict.word()
            )?;
            for &id in cause
                .stack
                .iter()
                .filter(|&&id| stacks.is_shown(id))
                .take(30)
            {
                writeln!(out, "{}", xml(&named(stacks, id)))?;
            }
            writeln!(out, "      </failure>")?;
        } else {
            writeln!(out, "      <system-out>{text}</system-out>")?;
        }
        writeln!(out, "    </testcase>")?;
    }
    writeln!(
        out,
        r#"    <testcase classname="{target}" name="no other growth"><system-out>{}</system-out></testcase>"#,
        xml(&format!(
            "growth above {} a second would have shown",
            bytes(leaks.detectable_bytes_per_second.ceil() as u64)
        ))
    )?;
    writeln!(out, "  </testsuite>")?;
    writeln!(out, "</testsuites>")
}

/// Writes an annotation for each cause: an error where it `fails`, else a
/// notice. Paths below `root` are told from there on.
pub fn github<'a>(
    model: &Model<'a>,
    stacks: &Stacks<'a>,
    leaks: &Leaks,
    fails: &[bool],
    root: &str,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    for (cause, &fails) in leaks.suspects.iter().zip(fails) {
        let head = cause.sites[0].head;
        let place = head.your_code.or(head.made_in).map(|id| *stacks.frame(id));
        let mut properties = String::new();
        if let Some(frame) = place.filter(|frame| !frame.file.is_empty()) {
            let file = stacks.name(frame.file);
            let below = file
                .strip_prefix(root)
                .map(|file| file.trim_start_matches('/'));
            let file = property(below.unwrap_or(file));
            properties = match frame.line {
                0 => format!("file={file},"),
                line => format!("file={file},line={line},"),
            };
        }
        let kind = if fails { "error" } else { "notice" };
        let title = if is_leak(cause) {
            "memory leak"
        } else {
            "memory growth"
        };
        let text = data(&message(model, stacks, leaks, cause));
        writeln!(out, "::{kind} {properties}title={title}::{text}")?;
    }
    Ok(())
}

/// Text as XML 1.0 can hold it.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_what_it_is_in() {
        assert_eq!(xml("a<b>&\"c\"\u{1}\n"), "a&lt;b&gt;&amp;&quot;c&quot;? ");
        assert_eq!(property("a:b,c%\nd"), "a%3Ab%2Cc%25%0Ad");
        assert_eq!(data("a::b\n::error::x"), "a::b%0A::error::x");
    }

    #[test]
    fn only_baselines_are_read_as_such() {
        assert!(matches!(Baseline::parse("{}"), Err(BaselineError::Foreign)));
        let later = r#"{"schema":"leakline.baseline","version":9,"causes":[]}"#;
        assert!(matches!(
            Baseline::parse(later),
            Err(BaselineError::Newer(9))
        ));
        let known = Baseline {
            schema: "leakline.baseline".into(),
            version: VERSION,
            causes: Vec::new(),
        };
        assert_eq!(Baseline::parse(&known.text()).unwrap(), known);
    }
}
