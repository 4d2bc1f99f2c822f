//! Keys of dicts that were recorded, as a person reads them.
//!
//! They are what a program works with, so nothing of them is to act on a terminal: what cannot
//! be printed is escaped as Python does.

use std::fmt::Write as _;

use leakline_wire::graph::key;

use crate::names::escaped;

/// By node, what it is.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Nodes, and where in the texts theirs begins. By node once [closed up](Keys::close_up).
    at: Vec<(u32, u32)>,
    /// One behind the other, each with [`END`] behind it.
    texts: String,
    /// How many were not recorded, though they were asked for.
    pub(super) left_out: u64,
}

/// Ends a text; no text has it, since it cannot be printed.
const END: char = '\0';

impl Keys {
    /// Adds what a node is. False: that makes no sense, or there is too much of it.
    pub(super) fn put(&mut self, node: u32, kind: u64, content: &[u8]) -> bool {
        let Ok(start) = u32::try_from(self.texts.len()) else {
            return false;
        };
        if !write_key(&mut self.texts, kind, content) {
            self.texts.truncate(start as usize);
            return false;
        }
        self.texts.push(END);
        self.at.push((node, start));
        true
    }

    /// To be called when all are there.
    pub(super) fn close_up(&mut self) {
        // Told of once more: the first counts.
        self.at.sort_by_key(|(node, _)| *node);
        self.at.dedup_by_key(|(node, _)| *node);
        self.at.shrink_to_fit();
        self.texts.shrink_to_fit();
    }

    pub(super) fn get(&self, node: u32) -> Option<&str> {
        let at = self
            .at
            .binary_search_by_key(&node, |(node, _)| *node)
            .ok()?;
        self.texts.get(self.at[at].1 as usize..)?.split(END).next()
    }

    pub(super) fn memory(&self) -> usize {
        self.at.capacity() * 8 + self.texts.capacity()
    }
}

/// Writes a key as Python would. False: what was told of it makes no sense.
fn write_key(out: &mut String, kind: u64, content: &[u8]) -> bool {
    let written = match kind & key::KIND {
        _ if kind > key::KIND | key::CUT || content.len() > 4 * key::MOST_CHARACTERS => {
            return false;
        }
        key::TEXT => {
            quoted(out, escaped(content).chars());
            Ok(())
        }
        key::BYTES => {
            out.push('b');
            bytes_quoted(out, content);
            Ok(())
        }
        key::INT => match content.split_first() {
            Some((&is_negative @ 0..=1, magnitude)) if magnitude.len() == 8 => {
                let sign = if is_negative == 1 { "-" } else { "" };
                write!(out, "{sign}{}", u64::from_le_bytes(first_eight(magnitude)))
            }
            _ => return false,
        },
        key::FLOAT if content.len() == 8 => {
            let value = f64::from_le_bytes(first_eight(content));
            if value.is_nan() {
                write!(out, "nan")
            } else {
                write!(out, "{value:?}")
            }
        }
        key::NONE if content.is_empty() => write!(out, "None"),
        key::FALSE if content.is_empty() => write!(out, "False"),
        key::TRUE if content.is_empty() => write!(out, "True"),
        _ => return false,
    };
    if kind & key::CUT != 0 {
        out.push_str("...");
    }
    written.is_ok()
}

fn first_eight(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0; 8];
    for (to, from) in eight.iter_mut().zip(bytes) {
        *to = *from;
    }
    eight
}

/// As Python's `repr`: in single quotes, unless that would need more escapes.
fn quoted(out: &mut String, characters: impl Iterator<Item = char> + Clone) {
    let has = |wanted| characters.clone().any(|one| one == wanted);
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    out.push(quote);
    for character in characters {
        let _ = match character {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            '\\' => write!(out, "\\\\"),
            _ if character == quote => write!(out, "\\{quote}"),
            _ if is_printable(character) => write!(out, "{character}"),
            _ => match u32::from(character) {
                code @ ..0x100 => write!(out, "\\x{code:02x}"),
                code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            },
        };
    }
    out.push(quote);
}

fn bytes_quoted(out: &mut String, bytes: &[u8]) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for &byte in bytes {
        let _ = match byte {
            b'\n' => write!(out, "\\n"),
            b'\r' => write!(out, "\\r"),
            b'\t' => write!(out, "\\t"),
            b'\\' => write!(out, "\\\\"),
            _ if char::from(byte) == quote => write!(out, "\\{quote}"),
            b' '..=b'~' => write!(out, "{}", char::from(byte)),
            _ => write!(out, "\\x{byte:02x}"),
        };
    }
    out.push(quote);
}

/// Whether a character shows, and shows only itself: no control, no mark that turns the
/// direction of what follows, nothing that is not assigned.
fn is_printable(character: char) -> bool {
    // What joins the character before it is escaped at the beginning of a text only.
    let mut text = [b'a'; 5];
    let length = 1 + character.encode_utf8(&mut text[1..]).len();
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    matches!(character, '"' | '\'' | '\\') || text.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: u64, content: &[u8]) -> Option<String> {
        let mut out = String::from("before ");
        let is_written = write_key(&mut out, kind, content);
        is_written.then(|| out.strip_prefix("before ").unwrap().to_owned())
    }

    #[test]
    fn keys_are_written_as_python_writes_them() {
        let text = |text: &str| words(key::TEXT, text.as_bytes()).unwrap();
        assert_eq!(text("user-42"), "'user-42'");
        assert_eq!(text(""), "''");
        assert_eq!(text("it's"), r#""it's""#);
        assert_eq!(text(r#"it's "so""#), r#"'it\'s "so"'"#);
        assert_eq!(text(r"C:\temp"), r"'C:\\temp'");
        assert_eq!(
            text("日本語 ключ caf\u{e9} \u{1f600}"),
            "'日本語 ключ caf\u{e9} \u{1f600}'"
        );
        // A letter and the accent that joins it.
        assert_eq!(text("e\u{301}"), "'e\u{301}'");
        assert_eq!(words(key::BYTES, b"a'\xff\n").unwrap(), r#"b"a'\xff\n""#);
        let int = |sign: u8, magnitude: u64| {
            let mut content = vec![sign];
            content.extend(magnitude.to_le_bytes());
            words(key::INT, &content).unwrap()
        };
        assert_eq!(int(0, u64::MAX), "18446744073709551615");
        assert_eq!(int(1, 7), "-7");
        let float = |value: f64| words(key::FLOAT, &value.to_le_bytes()).unwrap();
        assert_eq!(float(2.0), "2.0");
        assert_eq!(float(f64::NAN), "nan");
        assert_eq!(float(f64::NEG_INFINITY), "-inf");
        assert_eq!(words(key::NONE, b"").unwrap(), "None");
        assert_eq!(words(key::TRUE, b"").unwrap(), "True");
        assert_eq!(words(key::FALSE, b"").unwrap(), "False");
    }

    #[test]
    fn what_was_cut_says_so() {
        assert_eq!(words(key::TEXT | key::CUT, b"abc").unwrap(), "'abc'...");
        assert_eq!(words(key::BYTES | key::CUT, b"abc").unwrap(), "b'abc'...");
    }

    #[test]
    fn nothing_in_a_key_acts_on_a_terminal() {
        let all = "\x1b[31m\u{9b}2J\0\r\n\t\x07\u{202e}\u{2028}\u{200b}\u{feff}\u{e0041}\u{10ffff}";
        let text = words(key::TEXT, all.as_bytes()).unwrap();
        let expected =
            r"'\x1b[31m\x9b2J\x00\r\n\t\x07\u202e\u2028\u200b\ufeff\U000e0041\U0010ffff'";
        assert_eq!(text, expected);
        for code in 0..=u32::from(char::MAX) {
            let Some(one) = char::from_u32(code) else {
                continue;
            };
            let mut content = [0; 4];
            let text = words(key::TEXT, one.encode_utf8(&mut content).as_bytes()).unwrap();
            assert!(!text.chars().any(char::is_control), "{code:x}");
        }
        for byte in 0..=u8::MAX {
            let text = words(key::BYTES, &[byte]).unwrap();
            assert!(
                text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{byte}"
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_key() {
        for (kind, content) in [
            (7, &b""[..]),
            (16, b"abc"),
            (u64::MAX, b"abc"),
            (key::TEXT, &[b'a'; 257]),
            (key::BYTES, &[b'a'; 257]),
            (key::INT, b""),
            (key::INT, &[0; 8]),
            (key::INT, &[0; 10]),
            (key::INT, &[2, 0, 0, 0, 0, 0, 0, 0, 0]),
            (key::FLOAT, &[0; 7]),
            (key::NONE, b"x"),
            (key::TRUE, b"x"),
            (key::FALSE, b"x"),
        ] {
            assert_eq!(words(kind, content), None, "{kind} {content:?}");
        }
        // It is text all the same.
        assert_eq!(words(key::TEXT, b"a\xff").unwrap(), r"'a\\xff'");
        let mut keys = Keys::default();
        assert!(!keys.put(1, key::INT, b""));
        assert!(keys.put(2, key::TEXT, b"b"));
        assert!(keys.put(1, key::TEXT, b"a"));
        assert!(keys.put(2, key::TEXT, b"c"));
        keys.close_up();
        assert_eq!(
            [0, 1, 2, 3].map(|node| keys.get(node)),
            [None, Some("'a'"), Some("'b'"), None]
        );
    }
}
