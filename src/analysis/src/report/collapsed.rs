//! Stacks as lines of text: `root;child;leaf VALUE`, what flame graph tools
//! read. Of two instants, `root;child;leaf BEFORE AFTER`.

use std::io;

use rustc_hash::FxHashMap;

use crate::calls::Calls;
use crate::model::Model;
use crate::report::export::{Exported, Selection, label, path, weighed};
use crate::report::printable;
use crate::stack::{REST, Stacks};

/// Writes them.
///
/// # Errors
///
/// What writing gives.
pub fn collapsed<'a>(
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    selection: &Selection,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    let calls = Calls::new(model, &selection.kinds, stacks, false);
    let (weighed, exported) = weighed(selection, &calls);
    let mut labels = FxHashMap::default();
    let mut frames = Vec::new();
    for stack in weighed {
        frames.clear();
        match stack.call {
            Some(call) => path(&calls, call, &mut frames),
            None => out.write_all(REST.as_bytes())?,
        }
        for (at, &frame) in frames.iter().enumerate() {
            let label: &String = labels.entry(frame).or_insert_with(|| {
                // What stands between frames, and between stacks.
                printable(&label(stacks, frame)).replace(';', ",")
            });
            let between = if at == 0 { "" } else { ";" };
            write!(out, "{between}{label}")?;
        }
        if selection.compares() {
            write!(out, " {}", stack.before)?;
        }
        writeln!(out, " {}", stack.after)?;
    }
    Ok(exported)
}
