//! Processes in words.

use std::cmp::Reverse;

use crate::model::Model;
use crate::report::json::python_version;
use crate::stats::{ProcessStats, Stats};

/// The processes' ids, the largest high-water mark first.
pub(super) fn by_peak(stats: &Stats) -> Vec<u32> {
    let mut ids: Vec<&ProcessStats> = stats.processes.iter().collect();
    ids.sort_by_key(|one| (Reverse(one.totals.peak_bytes), one.process));
    ids.into_iter().map(|one| one.process).collect()
}

/// `, CPython 3.13.1, status 1`, `, killed by SIGKILL`; nothing of a process
/// that ended well.
pub(super) fn fate(model: &Model<'_>, process: u32) -> String {
    let facts = &model.processes()[process as usize];
    let python = python_version(facts.process.python_version)
        .map_or_else(String::new, |version| format!(", CPython {version}"));
    let end = match facts.end {
        None if model.origin().ended => ", end not seen".into(),
        None => ", running when last heard of".into(),
        Some(end) if end.exec => ", went on as another program".into(),
        Some(end) => match (end.signal, end.exit_status) {
            (Some(signal), _) => format!(", killed by {}", signal_name(signal)),
            (None, Some(0)) => String::new(),
            (None, Some(status)) => format!(", status {status}"),
            (None, None) => ", ended".into(),
        },
    };
    python + &end
}

/// A signal's name, by Linux's numbers on the machines that can be recorded.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 32] = [
        "",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(signal)
        .ok()
        .and_then(|signal| NAMES.get(signal))
    {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => format!("signal {signal}"),
    }
}
