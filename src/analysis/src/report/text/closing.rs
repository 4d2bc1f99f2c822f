//! What reports end with: notes, and commands to go on with.

use std::io;

use unicode_width::UnicodeWidthStr;

use crate::model::Model;
use crate::names::base_name;
use crate::report::table::{DIM, Style, printable};

/// At most two commands to go on with.
pub(super) fn next_commands(
    model: &Model<'_>,
    commands: &[(&str, &str)],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let origin = model.origin();
    let file = if origin.implied {
        String::new()
    } else {
        format!(" {}", quoted(&origin.file))
    };
    writeln!(out)?;
    for (at, (command, why)) in commands.iter().enumerate() {
        let lead = if at == 0 { "next: " } else { "      " };
        let command = format!("leakline {command}{file}");
        let why = format!("({why})");
        // Never cut: it is there to be pasted.
        if lead.len() + command.width() + 3 + why.width() <= style.width {
            writeln!(out, "{lead}{command}   {}", style.paint(DIM, &why))?;
        } else {
            writeln!(out, "{lead}{command}")?;
        }
    }
    Ok(())
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-/+:@%,=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", printable(path).replace('\'', "'\\''"))
}

/// What the recorder wants known.
pub(super) fn notes(model: &Model<'_>, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
    const MOST: usize = 5;
    let of_modules = model
        .symbol_notes()
        .map(|(module, note)| format!("{}: {note}", base_name(module)));
    let texts: Vec<String> = model
        .notes()
        .iter()
        .map(|note| note.text.clone())
        .chain(of_modules)
        .collect();
    if !texts.is_empty() {
        writeln!(out)?;
    }
    for text in texts.iter().take(MOST) {
        style.wrapped(out, DIM, 6, &format!("note: {text}"))?;
    }
    if texts.len() > MOST {
        writeln!(
            out,
            "note: and {} more (--json has all)",
            texts.len() - MOST
        )?;
    }
    Ok(())
}
