//! Words for processes of this machine, the same wherever they are shown.

use leakline_analysis::escaped;
use leakline_collector::public_command;
use leakline_inject::inspect::{Process, Program};

/// A command as one line, cut after the program, script or module; `[name]`
/// where there is none (kernel threads, zombies).
pub(crate) fn command(arguments: &[Vec<u8>], name: &str) -> String {
    let shown = public_command(arguments);
    if shown.first().is_none_or(Vec::is_empty) {
        return format!("[{name}]");
    }
    let words: Vec<_> = shown.iter().map(|word| escaped(word)).collect();
    words.join(" ")
}

/// What it is, in a table: `CPython 3.12`, `native`, `native, jemalloc`.
pub(crate) fn kind(process: &Process) -> String {
    let Some(program) = &process.program else {
        return "?".into();
    };
    let mut kind = match &program.python {
        Some(python) => {
            let version = &python.version;
            let threading = if version.is_free_threaded { "t" } else { "" };
            format!("CPython {}.{}{threading}", version.major, version.minor)
        }
        None => "native".into(),
    };
    for own in &program.allocators {
        kind.push_str(", ");
        kind.push_str(own.allocator.name());
    }
    kind
}

/// Its interpreter: `CPython 3.12.1`.
pub(crate) fn python(program: &Program) -> Option<String> {
    let version = &program.python.as_ref()?.version;
    let threading = if version.is_free_threaded {
        " (free-threaded)"
    } else {
        ""
    };
    Some(format!("CPython {}{threading}", version.text))
}

/// Its libc: `glibc 2.36`, `musl`, `none (static)`.
pub(crate) fn libc(program: &Program) -> String {
    match &program.glibc {
        Some(version) => format!("glibc {version}"),
        None if program.is_musl() => "musl".into(),
        None if program.is_static() => "none (static)".into(),
        None => "not known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_before_they_are_shown() {
        let words = |words: &[&str]| -> Vec<Vec<u8>> {
            words.iter().map(|word| word.as_bytes().to_vec()).collect()
        };
        let line = words(&["python3", "serve.py", "--password", "hunter2"]);
        assert_eq!(command(&line, "python3"), "python3 serve.py");
        assert_eq!(command(&[], "kthreadd"), "[kthreadd]");
        assert_eq!(command(&words(&[""]), "odd"), "[odd]");
    }
}
