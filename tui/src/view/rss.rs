//! What resident memory is made of at the instant.

use leakline_analysis::ledger::{Account, Inventory, Line, LineKind, apportioned};
use leakline_analysis::report::{blocks, bytes, duration, printable, signed_bytes};
use ratatui::style::Style;

use super::canvas::{Canvas, cut_end, width};
use super::words::clock;
use crate::state::layout::{self, Area};
use crate::state::{Phase, State};
use crate::theme::Theme;

/// Widths from which there is room for a column.
const ROOM_FOR_PERCENT: u16 = 50;
const ROOM_FOR_SINCE: u16 = 36;
const ROOM_FOR_BAR: u16 = 70;
const MOST_BAR: u16 = 60;

/// The ledger that is shown.
pub(super) fn shown(state: &State) -> Option<&Account> {
    let accounts = &state.ledgers.accounts;
    let last = accounts.len().checked_sub(1)?;
    accounts.get(state.ledger.selected.min(last))
}

/// What it says.
pub(super) fn answer(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, x: u16, y: u16) {
    let room = canvas.columns().saturating_sub(x);
    let Some(account) = shown(state) else {
        let why = state.ledgers.failure.as_deref().unwrap_or("adding up");
        canvas.put(x, y, room, &cut_end(why, room.into()), theme.dim);
        return;
    };
    let grown = match account.earlier {
        Some(_) => format!(", {}", signed_bytes(account.grown())),
        None => String::new(),
    };
    let words = &account.judgement.words;
    let text = format!("RSS {}{grown}: {words}", bytes(account.now.rss_bytes()));
    canvas.put(x, y, room, &cut_end(&text, room.into()), theme.strong);
}

pub(super) fn draw(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, body: Area) {
    if state.phase != Phase::Ready {
        return;
    }
    let Some(account) = shown(state) else {
        let text = "`leakline ledger PID` looks at a running process";
        if state.ledgers.failure.is_some() {
            canvas.put(1, body.y, body.width.saturating_sub(1), text, theme.dim);
        }
        return;
    };
    let (list, below) = layout::rss(state);
    if list.height > 0 {
        processes(state, theme, canvas, list);
    }
    ledger(state, account, theme, canvas, below);
}

/// The processes, the one that is shown marked.
fn processes(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) {
    let ledgers = &state.ledgers;
    let head = area.y - 1;
    for (end, name) in [(9, "pid"), (20, "RSS"), (31, "since A")] {
        canvas.put_right(end, head, 10, name, theme.dim);
    }
    canvas.put(
        33,
        head,
        area.width.saturating_sub(33),
        "process",
        theme.dim,
    );
    let rows = ledgers.accounts.iter().enumerate().skip(state.ledger.first);
    for (y, (at, account)) in (area.y..area.y + area.height).zip(rows) {
        let is_sum = at == 0 && ledgers.has_sum;
        let process = state.facts.processes.get(account.process as usize);
        let (pid, name) = match process {
            _ if is_sum => ("all".to_owned(), "together; what they share counts in each"),
            Some(process) => (process.pid.to_string(), process.command.as_str()),
            None => ("?".into(), ""),
        };
        if at == state.ledger.selected {
            canvas.put(0, y, 1, ">", theme.key);
        }
        canvas.put_right(9, y, 8, &pid, Style::new());
        let rss = bytes(account.now.rss_bytes());
        canvas.put_right(20, y, 10, &rss, Style::new());
        let (since, style) = match account.earlier {
            Some(_) => (
                signed_bytes(account.grown()),
                change(theme, account.grown()),
            ),
            None => ("-".into(), theme.dim),
        };
        canvas.put_right(31, y, 10, &since, style);
        let room = area.width.saturating_sub(33);
        canvas.put(33, y, room, &cut_end(name, room.into()), theme.dim);
        if at == state.ledger.selected {
            canvas.paint(0, y, area.width, theme.selected);
        }
    }
    canvas.rule(0, area.y + area.height, area.width, theme.dim);
}

fn change(theme: &Theme, by: i64) -> Style {
    /// Less is noise.
    const MATTERS: i64 = 1 << 20;
    match by {
        MATTERS.. => theme.bad,
        _ if by <= -MATTERS => theme.good,
        _ => theme.dim,
    }
}

/// A row of a ledger; figures are tenths.
struct Row {
    title: String,
    bytes: u64,
    amount: i64,
    percent: i64,
    since: Option<i64>,
    note: String,
    is_part: bool,
}

/// What figures are in, and how many bytes that is.
fn unit(account: &Account) -> (&'static str, i64) {
    if account.now.rss_bytes() < 10 << 20 {
        ("KiB", 1 << 10)
    } else {
        ("MiB", 1 << 20)
    }
}

/// The lines with something in them, rounded so that they sum to their sum, which comes
/// last.
fn rows(account: &Account) -> Vec<Row> {
    let rss = account.now.rss_bytes();
    let (_, unit) = unit(account);
    let earlier = account.earlier.as_ref().map(|(earlier, _)| earlier);
    let then = |line: &Line| earlier.map_or(0, |earlier| earlier.bytes_of(line));
    let lines: Vec<_> = (account.now.lines.iter())
        .filter(|line| line.bytes > 0 || then(line) > 0)
        .collect();
    let tenths = |values: Vec<i64>| {
        let values: Vec<i64> = values
            .iter()
            .map(|value| value.saturating_mul(10))
            .collect();
        apportioned(&values, unit)
    };
    let amounts = tenths(lines.iter().map(|line| line.bytes.cast_signed()).collect());
    let by = |line: &&Line| line.bytes.cast_signed() - then(line).cast_signed();
    let since = tenths(lines.iter().map(by).collect());
    let thousandfold = lines
        .iter()
        .map(|line| line.bytes.saturating_mul(1000).cast_signed());
    let percents = apportioned(&thousandfold.collect::<Vec<_>>(), rss.cast_signed());
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        rows.push(Row {
            title: line.title().to_owned(),
            bytes: line.bytes,
            amount: amounts[at],
            percent: percents[at],
            since: earlier.map(|_| since[at]),
            note: line.note.clone(),
            is_part: false,
        });
        for part in &line.of_it {
            rows.push(Row {
                title: format!("  of it {}", part.title),
                bytes: part.bytes,
                amount: tenths(vec![part.bytes.cast_signed()])[0],
                percent: (u128::from(part.bytes) * 1000 / u128::from(rss.max(1))) as i64,
                since: part.since_bytes.map(|since| tenths(vec![since])[0]),
                note: String::new(),
                is_part: true,
            });
        }
    }
    rows.push(Row {
        title: "RSS".into(),
        bytes: 0,
        amount: amounts.iter().sum(),
        percent: if rss == 0 { 0 } else { 1000 },
        since: earlier.map(|_| since.iter().sum()),
        note: String::new(),
        is_part: false,
    });
    rows
}

/// What lives by type, the first few.
fn type_rows(inventory: &Inventory, account: &Account, most: usize) -> Vec<Row> {
    let rss = account.now.rss_bytes().max(1);
    let (_, unit) = unit(account);
    let tenths = |value: i64| apportioned(&[value.saturating_mul(10)], unit)[0];
    let types = inventory.types.iter();
    let rows = types.map(|one| Row {
        title: printable(&one.name).into_owned(),
        bytes: one.bytes,
        amount: tenths(one.bytes.cast_signed()),
        percent: (u128::from(one.bytes) * 1000 / u128::from(rss)) as i64,
        since: one.since.map(|(_, bytes)| tenths(bytes)),
        note: match one.since {
            Some((by, _)) if by > 0 => {
                let more = blocks(by.unsigned_abs());
                format!("{} objects, {more} more", blocks(one.objects))
            }
            Some((by, _)) if by < 0 => {
                let fewer = blocks(by.unsigned_abs());
                format!("{} objects, {fewer} fewer", blocks(one.objects))
            }
            _ => format!("{} objects", blocks(one.objects)),
        },
        is_part: false,
    });
    // As printed, the others are nothing.
    let is_shown = |row: &Row| row.amount != 0 || row.since.is_some_and(|since| since != 0);
    rows.filter(is_shown).take(most).collect()
}

fn figure(tenths: i64) -> String {
    format!(
        "{}.{}",
        tenths.unsigned_abs() / 10,
        tenths.unsigned_abs() % 10
    )
}

fn signed_figure(tenths: i64) -> String {
    let sign = if tenths < 0 { '-' } else { '+' };
    format!("{sign}{}", figure(tenths))
}

fn ledger(state: &State, account: &Account, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) {
    let all = rows(account);
    let has_head = area.height > 3;
    let mut room = area.height - u16::from(has_head).min(area.height);
    // What there is to be said below, if there is room.
    let mut below = account.judgement.remedy.clone();
    if let Some(why) = &account.now.not_read {
        below.push(format!("{why}: live and free memory are not told apart"));
    }
    let at = clock(&state.facts, account.at_ns);
    below.push(match &account.earlier {
        Some((_, ns)) => format!(
            "looked at {at} (+{}), since A: +{}",
            duration(account.at_ns),
            duration(*ns)
        ),
        None => format!(
            "looked at {at} (+{}), once until then",
            duration(account.at_ns)
        ),
    });
    let needed = all.len() as u16;
    let is_cut = needed > room;
    let mut spare = 0;
    if !is_cut {
        let said = (below.len() as u16 + 1).min(room - needed);
        room -= said;
        spare = room - needed;
        let mut y = area.y + area.height - said;
        for text in below.iter().take(usize::from(said.saturating_sub(1))) {
            y += 1;
            let most = area.width.saturating_sub(2);
            canvas.put(1, y, most, &cut_end(text, most.into()), theme.dim);
        }
    }
    let mut shown: Vec<&Row> = all.iter().collect();
    if is_cut {
        // The largest stay, in their order, and the sum.
        let mut sizes: Vec<u64> = all.iter().map(|row| row.bytes).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let least = sizes.get(usize::from(room.saturating_sub(2))).copied();
        let least = least.unwrap_or(0).max(1);
        shown.retain(|row| row.bytes >= least || row.title == "RSS");
    }
    // Types below it, if there is room for some.
    let types = match &account.inventory {
        Some(inventory) if spare > 3 => type_rows(inventory, account, usize::from(spare) - 2),
        _ => Vec::new(),
    };
    let titles = shown.iter().copied().chain(&types);
    let titles = titles.map(|row| width(&row.title)).max().unwrap_or(0) as u16;
    let has_percent = area.width >= ROOM_FOR_PERCENT;
    let has_since = account.earlier.is_some() && area.width >= ROOM_FOR_SINCE;
    let figures = 9 + if has_percent { 7 } else { 0 } + if has_since { 9 } else { 0 };
    let titles = titles.min(area.width.saturating_sub(figures + 1)).max(6);
    let amount_end = 1 + titles + 9;
    let percent_end = amount_end + if has_percent { 7 } else { 0 };
    let since_end = percent_end + if has_since { 9 } else { 0 };
    let mut y = area.y;
    if has_head {
        canvas.put_right(amount_end, y, 8, unit(account).0, theme.dim);
        if has_percent {
            canvas.put_right(percent_end, y, 6, "%", theme.dim);
        }
        if has_since {
            canvas.put_right(since_end, y, 8, "since A", theme.dim);
        }
        y += 1;
    }
    let largest = all.iter().map(|row| row.bytes).max().unwrap_or(0).max(1);
    let free = area.width.saturating_sub(since_end + 2);
    let bars = if area.width >= ROOM_FOR_BAR {
        (free / 2).clamp(8, MOST_BAR).min(free)
    } else {
        0
    };
    let under = y + needed + 1;
    if !types.is_empty() {
        canvas.put(1, under, titles, "objects by type", theme.dim);
    }
    let largest_type = types.iter().map(|row| row.bytes).max().unwrap_or(0).max(1);
    let types = (under + 1..)
        .zip(&types)
        .map(|(y, row)| (y, row, largest_type));
    let lines = (y..area.y + area.height).zip(shown);
    for (y, row, largest) in lines.map(|(y, row)| (y, row, largest)).chain(types) {
        let style = if row.is_part { theme.dim } else { Style::new() };
        canvas.put(1, y, titles, &cut_end(&row.title, titles.into()), style);
        canvas.put_right(amount_end, y, 8, &figure(row.amount), style);
        if has_percent {
            canvas.put_right(percent_end, y, 6, &figure(row.percent), theme.dim);
        }
        if let Some(since) = row.since.filter(|_| has_since) {
            let by = since.saturating_mul(unit(account).1) / 10;
            let style = if row.is_part {
                theme.dim
            } else {
                change(theme, by)
            };
            canvas.put_right(since_end, y, 8, &signed_figure(since), style);
        }
        if bars == 0 {
            continue;
        }
        let bar = bar(row.bytes, largest, bars);
        let x = since_end + 2;
        canvas.put(x, y, bars, &bar, theme.plot);
        let most = area.width.saturating_sub(x + bars + 2);
        let note = cut_end(&row.note, most.into());
        canvas.put(x + bars + 2, y, most, &note, theme.dim);
    }
}

/// A bar in eighths of a column.
fn bar(bytes: u64, largest: u64, columns: u16) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(bytes) * u128::from(columns) * 8 / u128::from(largest);
    let eighths = usize::try_from(eighths).unwrap_or(0);
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

/// Rows of the pane beside the overview.
pub(super) const PANE_ROWS: u16 = 7;

/// A ledger in few lines, beside the overview. Gives the rows that it takes.
pub(super) fn pane(state: &State, theme: &Theme, canvas: &mut Canvas<'_>, area: Area) -> u16 {
    let ledgers = &state.overview_ledger;
    let Some(account) = ledgers.accounts.first() else {
        return 0;
    };
    let process = state.facts.processes.get(account.process as usize);
    let (name, unit) = unit(account);
    let end = area.x + area.width - 1;
    let pid = process.map_or_else(String::new, |process| format!(" of {}", process.pid));
    let title = format!("RSS{pid}");
    canvas.put(area.x + 1, area.y, 20, &title, theme.strong);
    for (before, text) in [(16, name), (9, "%"), (0, "since A")] {
        canvas.put_right(end - before, area.y, 8, text, theme.dim);
    }
    // Few lines for many: what is live, what is free, and the rest.
    let is_free = |kind| matches!(kind, LineKind::PythonFree | LineKind::MallocFree);
    let is_live = |kind| matches!(kind, LineKind::PythonLive | LineKind::MallocLive);
    let of = |kinds: &dyn Fn(LineKind) -> bool| {
        let lines = account.now.lines.iter().filter(|line| kinds(line.kind));
        let now: u64 = lines.clone().map(|line| line.bytes).sum();
        let then = account.earlier.as_ref().map(|(earlier, _)| {
            let lines = earlier.lines.iter().filter(|line| kinds(line.kind));
            lines.map(|line| line.bytes).sum::<u64>()
        });
        let since = then.map(|then| now.cast_signed() - then.cast_signed());
        (now, since)
    };
    let mut lines = vec![(
        "live Python".to_owned(),
        of(&|kind| kind == LineKind::PythonLive),
    )];
    let causes = account.now.lines.iter().filter(|line| is_live(line.kind));
    let cause = causes
        .flat_map(|line| &line.of_it)
        .find(|part| part.cause.is_some());
    if let Some(cause) = cause {
        let id = cause.cause.as_deref().unwrap_or_default();
        lines.push((format!("  of it {id}"), (cause.bytes, cause.since_bytes)));
    }
    lines.push((
        "live malloc".to_owned(),
        of(&|kind| kind == LineKind::MallocLive),
    ));
    lines.push(("freed, kept".to_owned(), of(&is_free)));
    lines.push((
        "everything else".to_owned(),
        of(&|kind| !is_free(kind) && !is_live(kind)),
    ));
    let rss = account.now.rss_bytes().max(1);
    let tenths = |value: i64| apportioned(&[value.saturating_mul(10)], unit)[0];
    let mut y = area.y + 1;
    for (title, (now, since)) in lines {
        canvas.put(area.x + 1, y, 17, &title, Style::new());
        let amount = figure(tenths(now.cast_signed()));
        canvas.put_right(end - 16, y, 8, &amount, Style::new());
        let percent = (u128::from(now) * 1000 / u128::from(rss)) as i64;
        canvas.put_right(end - 9, y, 6, &figure(percent), theme.dim);
        if let Some(since) = since {
            let text = signed_figure(tenths(since));
            canvas.put_right(end, y, 8, &text, change(theme, since));
        }
        y += 1;
    }
    y - area.y
}
