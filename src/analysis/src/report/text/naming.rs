//! Frames in words.

use crate::frame::{BUILTIN, FrameId, NEAR};
use crate::names::base_name;
use crate::report::table::Cell;
use crate::stack::Stacks;
use crate::top::GroupBy;

/// What rows of a table stand for, one and many.
pub fn noun(by: GroupBy) -> (&'static str, &'static str) {
    match by {
        GroupBy::Site => ("site", "sites"),
        GroupBy::Line => ("line", "lines"),
        GroupBy::Function => ("function", "functions"),
        GroupBy::File => ("file", "files"),
        GroupBy::Library => ("library", "libraries"),
        GroupBy::Process => ("process", "processes"),
        GroupBy::Thread => ("thread", "threads"),
        GroupBy::Domain => ("domain", "domains"),
    }
}

/// A frame's function without its arguments, and its place.
pub(super) fn frame_cell(stacks: &Stacks<'_>, id: FrameId) -> Cell {
    let (function, place) = frame_words(stacks, id);
    Cell::Named(function, place)
}

/// A frame's function without its arguments, and its place.
pub fn frame_words(stacks: &Stacks<'_>, id: FrameId) -> (String, String) {
    let frame = stacks.frame(id);
    let function = stacks.name(frame.function);
    if let Some((address, near)) = function.split_once(NEAR) {
        let near = near.strip_suffix(')').unwrap_or(near);
        return (address.to_owned(), format!("near {near}"));
    }
    let function = without_arguments(function);
    let file = stacks.name(frame.file);
    let module = base_name(stacks.name(frame.module));
    let place = if !file.is_empty() {
        let file = last_parts(file);
        if frame.line == 0 {
            file.to_owned()
        } else {
            format!("{file}:{}", frame.line)
        }
    } else if function.starts_with(module) {
        // `fastparse.so+0x3c1a` says it all.
        String::new()
    } else {
        module.to_owned()
    };
    // Where functions are not known, a frame is called by its line.
    if place
        .strip_suffix(function)
        .is_some_and(|directory| directory.is_empty() || directory.ends_with('/'))
    {
        return (place, String::new());
    }
    (function.to_owned(), place)
}

/// A file and its directory: `app/sessions.py`.
fn last_parts(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at);
    match (slashes.next(), slashes.next()) {
        (Some(_), Some(second)) => &file[second + 1..],
        _ => file.trim_start_matches('/'),
    }
}

/// `ns::make<int>` of `ns::make<int>(int, char*)`; names that end otherwise
/// stay as they are.
fn without_arguments(function: &str) -> &str {
    let trimmed = function.trim_end_matches(" const");
    if !trimmed.ends_with(')') || trimmed.ends_with(BUILTIN) {
        return function;
    }
    let mut depth = 0_usize;
    for (at, c) in trimmed.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            let name = trimmed[..at].trim_end();
            // `(anonymous namespace)` is a name, `operator()` too.
            return if name.is_empty() || name.ends_with("::") || name.ends_with("operator") {
                function
            } else {
                name
            };
        }
    }
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_left_out() {
        for (function, shown) in [
            ("main", "main"),
            ("ns::make<int>(int, char*)", "ns::make<int>"),
            ("Pool::take(unsigned long) const", "Pool::take"),
            (
                "(anonymous namespace)::f(void (*)(int))",
                "(anonymous namespace)::f",
            ),
            ("Less::operator()(int, int)", "Less::operator()"),
            ("<alloc::vec::Vec<T>>::push", "<alloc::vec::Vec<T>>::push"),
            ("(lambda)", "(lambda)"),
            ("f)", "f)"),
            ("fastparse.parse (builtin)", "fastparse.parse (builtin)"),
        ] {
            assert_eq!(without_arguments(function), shown);
        }
    }

    #[test]
    fn files_keep_their_directory() {
        assert_eq!(last_parts("/srv/app/views.py"), "app/views.py");
        assert_eq!(last_parts("/views.py"), "views.py");
        assert_eq!(last_parts("views.py"), "views.py");
    }
}
