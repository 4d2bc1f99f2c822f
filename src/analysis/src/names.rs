//! Interned text: functions, files and modules are compared by number.

use std::borrow::Cow;
use std::fmt::Write as _;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// An interned text. Equal texts have equal names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(u32);

impl Name {
    /// The name of nothing: the empty text.
    pub const EMPTY: Name = Name(0);

    /// Whether it is the empty text.
    pub fn is_empty(self) -> bool {
        self == Name::EMPTY
    }
}

/// All texts of one analysis. Most are borrowed from the records.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    texts: IndexSet<Cow<'a, str>, FxBuildHasher>,
}

impl<'a> Names<'a> {
    pub(crate) fn new() -> Self {
        let mut texts = IndexSet::default();
        texts.insert(Cow::Borrowed(""));
        Names { texts }
    }

    pub(crate) fn intern(&mut self, text: impl Into<Cow<'a, str>>) -> Name {
        let (index, _) = self.texts.insert_full(text.into());
        Name(u32::try_from(index).unwrap_or(0))
    }

    pub(crate) fn get(&self, name: Name) -> &str {
        self.texts
            .get_index(name.0 as usize)
            .map_or("", AsRef::as_ref)
    }
}

/// Bytes of a path or an argument as text; what is not UTF-8 becomes `\xNN`.
pub fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_a_name() {
        let mut names = Names::new();
        let first = names.intern("main");
        assert_eq!(names.intern(String::from("main")), first);
        assert_ne!(names.intern("make"), first);
        assert_eq!(names.get(first), "main");
        assert_eq!(names.intern(""), Name::EMPTY);
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(escaped(b"/tmp/\xffa\xc3\xa9"), "/tmp/\\xffaé");
    }
}
