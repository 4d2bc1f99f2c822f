//! `ledger` as JSON.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::write;
use crate::ledger::{Judgement, Ledger};

#[derive(Serialize)]
struct LineJson<'l> {
    name: &'static str,
    title: &'l str,
    bytes: u64,
    private_bytes: u64,
    shared_bytes: u64,
    since_bytes: Option<i64>,
    note: Option<&'l str>,
    of_it: Vec<OfItJson<'l>>,
}

#[derive(Serialize)]
struct OfItJson<'l> {
    title: &'l str,
    bytes: u64,
}

/// Writes `ledger --json`: `process` are keys that say whose it is, `earlier`
/// an earlier one, and the seconds in between.
pub fn ledger(
    ledger: &Ledger,
    judgement: &Judgement,
    process: &Value,
    earlier: Option<(&Ledger, f64)>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'l> {
        schema: &'static str,
        version: u32,
        #[serde(flatten)]
        process: &'l Value,
        interval_seconds: Option<f64>,
        rss_bytes: u64,
        since_bytes: Option<i64>,
        lines: Vec<LineJson<'l>>,
        live_bytes: u64,
        free_bytes: u64,
        swapped_bytes: u64,
        trimmable_bytes: u64,
        arenas: u64,
        free_of_threads_bytes: u64,
        python_arenas: u64,
        sparse_python_arenas: u64,
        not_read: Option<&'l str>,
        verdict: &'static str,
        words: &'l str,
        remedy: Option<String>,
    }
    let looked_into = ledger.not_read.is_none();
    let since = |now: u64, then: u64| now.cast_signed() - then.cast_signed();
    let lines = ledger.lines.iter().map(|line| LineJson {
        name: line.kind.name(),
        title: line.title(),
        bytes: line.bytes,
        private_bytes: line.bytes - line.shared_bytes.min(line.bytes),
        shared_bytes: line.shared_bytes,
        since_bytes: earlier.map(|(earlier, _)| since(line.bytes, earlier.bytes(line.kind))),
        note: (!line.note.is_empty()).then_some(line.note.as_str()),
        of_it: line
            .of_it
            .iter()
            .map(|(title, bytes)| OfItJson {
                title,
                bytes: *bytes,
            })
            .collect(),
    });
    write(
        out,
        &Report {
            schema: "leakline.ledger",
            version: 1,
            process,
            interval_seconds: earlier.map(|(_, seconds)| seconds),
            rss_bytes: ledger.rss_bytes(),
            since_bytes: earlier.map(|(earlier, _)| since(ledger.rss_bytes(), earlier.rss_bytes())),
            lines: lines.collect(),
            live_bytes: ledger.live_bytes(),
            free_bytes: ledger.free_bytes(),
            swapped_bytes: ledger.swapped_bytes,
            trimmable_bytes: ledger.trimmable_bytes,
            arenas: ledger.arenas,
            free_of_threads_bytes: ledger.free_of_threads_bytes,
            python_arenas: ledger.python_arenas,
            sparse_python_arenas: ledger.sparse_arenas.0,
            not_read: ledger.not_read.as_deref().filter(|_| !looked_into),
            verdict: judgement.finding.name(),
            words: &judgement.words,
            remedy: (!judgement.remedy.is_empty()).then(|| judgement.remedy.join("; ")),
        },
    )
}
