//! What the user, or experience, says is no leak: LeakSanitizer's format.

/// A line `leak:PATTERN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The pattern as written.
    pub pattern: String,
    at_start: bool,
    at_end: bool,
    /// What stands between the stars.
    pieces: Vec<String>,
    /// It is of the list that leakline comes with.
    pub shipped: bool,
}

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no suppression: `{text}`")]
pub struct SuppressionError {
    /// Its number, from 1.
    pub line: usize,
    /// As it stands there.
    pub text: String,
}

impl Suppression {
    /// Reads a file: a suppression a line; empty lines and those that begin
    /// with `#` say nothing.
    ///
    /// # Errors
    ///
    /// The first line that is neither.
    pub fn parse(text: &str) -> Result<Vec<Self>, SuppressionError> {
        let mut all = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let pattern = text.strip_prefix("leak:").map(str::trim);
            let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty()) else {
                return Err(SuppressionError {
                    line,
                    text: text.to_owned(),
                });
            };
            all.push(Suppression::new(pattern));
        }
        Ok(all)
    }

    /// The list that leakline comes with.
    pub fn shipped() -> Vec<Self> {
        let mut all = Suppression::parse(include_str!("suppressions.txt")).unwrap_or_default();
        for suppression in &mut all {
            suppression.shipped = true;
        }
        all
    }

    fn new(pattern: &str) -> Self {
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        Suppression {
            pattern: pattern.to_owned(),
            at_start: pattern.starts_with('^'),
            at_end: pattern.ends_with('$'),
            pieces: inner.split('*').map(str::to_owned).collect(),
            shipped: false,
        }
    }

    /// Whether it is in `text`.
    pub fn matches(&self, text: &str) -> bool {
        let Some((last, before)) = self.pieces.split_last() else {
            return false;
        };
        let mut rest = text;
        for (at, piece) in before.iter().enumerate() {
            let found = if at == 0 && self.at_start {
                rest.starts_with(piece.as_str()).then_some(0)
            } else {
                rest.find(piece.as_str())
            };
            match found {
                Some(found) => rest = &rest[found + piece.len()..],
                None => return false,
            }
        }
        let is_first = before.is_empty();
        match (self.at_start && is_first, self.at_end) {
            (true, true) => rest == last,
            (true, false) => rest.starts_with(last.as_str()),
            (false, true) => rest.ends_with(last.as_str()),
            (false, false) => rest.contains(last.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_leak_sanitizer_s() {
        for (pattern, text, matches) in [
            ("parse", "fastparse.so", true),
            ("^parse", "fastparse.so", false),
            ("^fast*so$", "fastparse.so", true),
            ("^fast*so$", "fastparse.so.1", false),
            ("a*b*c", "xaybzc", true),
            ("a*b*c", "xaycz", false),
            ("*", "", true),
            ("^f$", "f", true),
            ("^f$", "ff", false),
            ("b*b", "ab", false),
        ] {
            assert_eq!(
                Suppression::new(pattern).matches(text),
                matches,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn files_have_comments_and_tell_what_they_do_not_mean() {
        let file = "# ours\n\nleak:parse\n  leak: ^main$ \n";
        let patterns: Vec<_> = Suppression::parse(file)
            .unwrap()
            .into_iter()
            .map(|suppression| suppression.pattern)
            .collect();
        assert_eq!(patterns, ["parse", "^main$"]);
        let error = Suppression::parse("leak:a\nthread:b\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 is no suppression: `thread:b`");
        assert!(Suppression::parse("leak:\n").is_err());
        assert!(Suppression::shipped().len() > 5);
    }
}
