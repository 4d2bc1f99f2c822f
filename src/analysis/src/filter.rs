//! Which rows the user wants to see.

/// A text to find, or with `*` and `?` a pattern for the whole.
///
/// Letters match in either case unless the filter has a capital.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: Vec<char>,
    pattern: bool,
    fold: bool,
}

impl Filter {
    /// The filter that `text` means. An empty one matches everything.
    pub fn new(text: &str) -> Self {
        Filter {
            pattern: text.contains(['*', '?']),
            fold: !text.chars().any(char::is_uppercase),
            text: text.chars().collect(),
        }
    }

    /// Whether `candidate` matches.
    pub fn matches(&self, candidate: &str) -> bool {
        let candidate: Vec<char> = if self.fold {
            candidate.chars().flat_map(char::to_lowercase).collect()
        } else {
            candidate.chars().collect()
        };
        if self.pattern {
            glob(&self.text, &candidate)
        } else {
            self.text.is_empty() || candidate.windows(self.text.len()).any(|at| at == self.text)
        }
    }
}

/// Whether `pattern` (`*` any run, `?` any one) matches all of `text`. Linear
/// in practice, quadratic at worst: on a mismatch only the last `*` gives way.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some('*') => {
                last_star = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => {
                let Some((star, covered)) = last_star else {
                    return false;
                };
                last_star = Some((star, covered + 1));
                at_pattern = star + 1;
                at_text = covered + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_anywhere_in_either_case() {
        assert!(Filter::new("sess").matches("load_Session"));
        assert!(!Filter::new("Sess").matches("load_session"));
        assert!(Filter::new("").matches("anything"));
        assert!(!Filter::new("sessions").matches("sess"));
    }

    #[test]
    fn a_pattern_matches_the_whole() {
        for (pattern, text, matches) in [
            ("*.py", "app/views.py", true),
            ("*.py", "app/views.pyc", false),
            ("app/*/views.?y", "app/a/b/views.py", true),
            ("*a*b", "aXbXa", false),
            ("*a*b", "aXbXab", true),
            ("?", "", false),
            ("***", "", true),
        ] {
            assert_eq!(
                Filter::new(pattern).matches(text),
                matches,
                "{pattern} {text}"
            );
        }
    }
}
