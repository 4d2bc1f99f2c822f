//! `ledger` as JSON.

use std::io;

use serde::Serialize;
use serde_json::Value;

use super::write;
use crate::ledger::{Account, Accounts, Inventory, Judgement, Ledger};
use crate::model::Model;

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
    since_bytes: Option<i64>,
    cause: Option<&'l str>,
}

/// The keys of one ledger.
#[derive(Serialize)]
struct LedgerJson<'l> {
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
    inventory: Option<InventoryJson<'l>>,
}

#[derive(Serialize)]
struct InventoryJson<'l> {
    #[serde(skip_serializing_if = "Option::is_none")]
    at_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_seconds: Option<f64>,
    objects: u64,
    bytes: u64,
    rest_bytes: u64,
    unread_bytes: u64,
    types: Vec<OfTypeJson<'l>>,
    other_types: u64,
    other_objects: u64,
    other_bytes: u64,
}

#[derive(Serialize)]
struct OfTypeJson<'l> {
    r#type: &'l str,
    objects: u64,
    bytes: u64,
    since_objects: Option<i64>,
    since_bytes: Option<i64>,
}

/// `is_recorded`: its instants are a recording's.
fn inventory(inventory: &Inventory, is_recorded: bool) -> InventoryJson<'_> {
    let seconds = |ns: u64| is_recorded.then_some(ns as f64 / 1e9);
    let types = inventory.types.iter().map(|one| OfTypeJson {
        r#type: &one.name,
        objects: one.objects,
        bytes: one.bytes,
        since_objects: one.since.map(|(objects, _)| objects),
        since_bytes: one.since.map(|(_, bytes)| bytes),
    });
    InventoryJson {
        at_seconds: seconds(inventory.at_ns),
        since_seconds: inventory.since_ns.and_then(seconds),
        objects: inventory.objects(),
        bytes: inventory.bytes(),
        rest_bytes: inventory.rest_bytes,
        unread_bytes: inventory.unread_bytes,
        types: types.collect(),
        other_types: inventory.others.0,
        other_objects: inventory.others.1,
        other_bytes: inventory.others.2,
    }
}

fn keys<'l>(
    ledger: &'l Ledger,
    judgement: &'l Judgement,
    earlier: Option<&Ledger>,
) -> LedgerJson<'l> {
    let since = |now: u64, then: u64| now.cast_signed() - then.cast_signed();
    let lines = ledger.lines.iter().map(|line| LineJson {
        name: line.kind.name(),
        title: line.title(),
        bytes: line.bytes,
        private_bytes: line.bytes - line.shared_bytes.min(line.bytes),
        shared_bytes: line.shared_bytes,
        since_bytes: earlier.map(|earlier| since(line.bytes, earlier.bytes_of(line))),
        note: (!line.note.is_empty()).then_some(line.note.as_str()),
        of_it: line
            .of_it
            .iter()
            .map(|part| OfItJson {
                title: &part.title,
                bytes: part.bytes,
                since_bytes: part.since_bytes,
                cause: part.cause.as_deref(),
            })
            .collect(),
    });
    LedgerJson {
        rss_bytes: ledger.rss_bytes(),
        since_bytes: earlier.map(|earlier| since(ledger.rss_bytes(), earlier.rss_bytes())),
        lines: lines.collect(),
        live_bytes: ledger.live_bytes(),
        free_bytes: ledger.free_bytes(),
        swapped_bytes: ledger.swapped_bytes,
        trimmable_bytes: ledger.trimmable_bytes,
        arenas: ledger.arenas,
        free_of_threads_bytes: ledger.free_of_threads_bytes,
        python_arenas: ledger.python_arenas,
        sparse_python_arenas: ledger.sparse_arenas.0,
        not_read: ledger.not_read.as_deref(),
        verdict: judgement.finding.name(),
        words: &judgement.words,
        remedy: (!judgement.remedy.is_empty()).then(|| judgement.remedy.join("; ")),
        inventory: None,
    }
}

#[derive(Serialize)]
struct AccountJson<'l> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_ticks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    at_seconds: f64,
    since_seconds: Option<f64>,
    causes: Vec<CauseJson<'l>>,
    #[serde(flatten)]
    ledger: LedgerJson<'l>,
}

#[derive(Serialize)]
struct CauseJson<'l> {
    id: &'l str,
    held_by: Option<&'l str>,
    bytes: u64,
    since_bytes: Option<i64>,
}

fn account<'l>(model: &Model<'_>, account: &'l Account, is_sum: bool) -> AccountJson<'l> {
    let facts = model.processes().get(account.process as usize);
    let process = facts.filter(|_| !is_sum).map(|facts| facts.process);
    let earlier = account.earlier.as_ref();
    let seconds = |ns: u64| ns as f64 / 1e9;
    AccountJson {
        pid: process.map(|process| process.pid),
        start_ticks: process.map(|process| process.start_ticks),
        command: process.map(|_| model.command(account.process)),
        at_seconds: seconds(account.at_ns),
        since_seconds: earlier.map(|(_, ns)| seconds(*ns)),
        causes: account
            .causes
            .iter()
            .map(|cause| CauseJson {
                id: &cause.id,
                held_by: (!cause.name.is_empty()).then_some(cause.name.as_str()),
                bytes: cause.bytes,
                since_bytes: cause.since_bytes,
            })
            .collect(),
        ledger: LedgerJson {
            inventory: (account.inventory.as_ref()).map(|found| inventory(found, true)),
            ..keys(
                &account.now,
                &account.judgement,
                earlier.map(|(earlier, _)| earlier),
            )
        },
    }
}

/// Writes `ledger FILE --json`: the keys of one ledger are those of the sum.
pub fn ledgers(model: &Model<'_>, accounts: &Accounts, out: &mut dyn io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Report<'l> {
        schema: &'static str,
        version: u32,
        file: &'l str,
        #[serde(flatten)]
        sum: Option<AccountJson<'l>>,
        processes: Vec<AccountJson<'l>>,
        processes_without: usize,
    }
    let sum = match &accounts.sum {
        Some(sum) => Some(account(model, sum, true)),
        None => (accounts.processes.first()).map(|one| account(model, one, false)),
    };
    let processes = accounts.processes.iter();
    write(
        out,
        &Report {
            schema: "leakline.ledger",
            version: 1,
            file: &model.origin().file,
            sum,
            processes: processes.map(|one| account(model, one, false)).collect(),
            processes_without: accounts.without,
        },
    )
}

/// Writes `ledger --json`: `process` are keys that say whose it is, `earlier`
/// an earlier one, and the seconds in between, `found` what lives by type.
pub fn ledger(
    ledger: &Ledger,
    judgement: &Judgement,
    found: Option<&Inventory>,
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
        #[serde(flatten)]
        ledger: LedgerJson<'l>,
    }
    write(
        out,
        &Report {
            schema: "leakline.ledger",
            version: 1,
            process,
            interval_seconds: earlier.map(|(_, seconds)| seconds),
            ledger: LedgerJson {
                inventory: found.map(|found| inventory(found, false)),
                ..keys(ledger, judgement, earlier.map(|(earlier, _)| earlier))
            },
        },
    )
}
