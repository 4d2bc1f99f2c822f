//! `ledger FILE` as text.

use std::io;

use super::closing::quoted;
use super::ledger::{About, ledger};
use super::processes::fate;
use crate::instant::clock;
use crate::ledger::{Account, Accounts, Finding};
use crate::model::Model;
use crate::report::table::{DIM, Style};
use crate::report::words::{counted, duration, signed_bytes};

/// Processes that are shown one by one.
const MOST: usize = 8;

/// Writes the ledgers of a recording: that of each process, and all as one.
pub fn ledgers(
    model: &Model<'_>,
    accounts: &Accounts,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    if let Some(sum) = &accounts.sum {
        let what = format!(
            "{} of {}; what they share counts in each; {}",
            counted(accounts.processes.len() as u64, "process", "processes"),
            model.target(),
            instants(model, sum)
        );
        one(model, sum, what, String::new(), style, out)?;
    }
    let last = accounts.processes.len().min(MOST) - 1;
    for (at, account) in accounts.processes.iter().take(MOST).enumerate() {
        if accounts.sum.is_some() {
            writeln!(out)?;
        }
        let next = if at == last {
            next(model, accounts)
        } else {
            String::new()
        };
        let words = account_words(model, account);
        one(model, account, words, next, style, out)?;
    }
    let rest = accounts.processes.iter().skip(MOST);
    let grown: i64 = rest.clone().map(Account::grown).sum();
    if rest.len() > 0 {
        let text = format!(
            "{} more, {} together (--process PID shows one, --json all)",
            counted(rest.len() as u64, "process", "processes"),
            signed_bytes(grown)
        );
        style.wrapped(out, DIM, 0, &text)?;
    }
    if accounts.without > 0 {
        let text = format!(
            "{} of that instant without a ledger: there for less than a second, or not to be read",
            counted(accounts.without as u64, "process", "processes")
        );
        style.wrapped(out, DIM, 0, &text)?;
    }
    Ok(())
}

/// `gunicorn app:app (pid 21), CPython 3.12.1; looked at after 12 min 04 s and 1.0 s`.
pub fn account_words(model: &Model<'_>, account: &Account) -> String {
    let pid = (model.processes().get(account.process as usize)).map_or(0, |one| one.process.pid);
    format!(
        "{} (pid {pid}){}; {}",
        model.command(account.process),
        fate(model, account.process),
        instants(model, account)
    )
}

fn instants(model: &Model<'_>, account: &Account) -> String {
    let at = format!(
        "as of {} (+{})",
        clock(model, account.at_ns),
        duration(account.at_ns)
    );
    match &account.earlier {
        Some((_, ns)) => format!("{at}, against +{}", duration(*ns)),
        None => format!("{at}, looked at once"),
    }
}

fn one(
    model: &Model<'_>,
    account: &Account,
    process: String,
    next: String,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let earlier = account.earlier.as_ref();
    let since = earlier.map(|(_, ns)| format!("since {}", clock(model, *ns)));
    let about = About {
        process,
        earlier: earlier.map(|(earlier, _)| earlier),
        inventory: account.inventory.as_ref(),
        since: since.unwrap_or_default(),
        next,
    };
    ledger(&account.now, &account.judgement, &about, style, out)
}

/// The command that goes on from here.
fn next(model: &Model<'_>, accounts: &Accounts) -> String {
    let origin = model.origin();
    let file = if origin.implied {
        String::new()
    } else {
        format!(" {}", quoted(&origin.file))
    };
    let all = accounts.sum.as_ref().or(accounts.processes.first());
    let leak = all
        .filter(|all| all.judgement.finding == Finding::Leak)
        .and_then(|all| all.causes.iter().find(|cause| cause.is_leak));
    match leak {
        Some(cause) => format!("leakline why{file} {}", cause.id),
        None => format!("leakline leaks{file}"),
    }
}
