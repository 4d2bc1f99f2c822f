//! `ledger` as text.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::WIDE;
use crate::ledger::{Inventory, Judgement, Ledger, Line, LineKind, OfType, apportioned};
use crate::report::table::{BOLD, DIM, Style, cut, padded, printable};
use crate::report::words::{blocks, bytes, counted};

/// What goes with a ledger.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// The process and what it is, in a line.
    pub process: String,
    /// An earlier ledger.
    pub earlier: Option<&'a Ledger>,
    /// What lives by type.
    pub inventory: Option<&'a Inventory>,
    /// In how long it came to be what it is, or since when: `in 1 min 00 s`.
    pub since: String,
    /// The command to go on with; none where it is empty.
    pub next: String,
}

/// Below these widths there is no room for a column.
const ROOM_FOR_PERCENT: usize = 50;
const ROOM_FOR_SINCE: usize = 40;
/// Columns of a bar.
const BAR: usize = 16;

/// Writes `ledger`.
pub fn ledger(
    ledger: &Ledger,
    judgement: &Judgement,
    about: &About<'_>,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let unit = Unit::of(ledger.rss_bytes());
    let rss = ledger.rss_bytes();
    let grown = about.earlier.map(|earlier| {
        let by = rss.cast_signed() - earlier.rss_bytes().cast_signed();
        format!(", {} {}", crate::report::signed_bytes(by), about.since)
    });
    style.wrapped(
        out,
        BOLD,
        0,
        &format!(
            "RSS {}{}: {}",
            bytes(rss),
            grown.unwrap_or_default(),
            judgement.words
        ),
    )?;
    let explained = if ledger.bytes(LineKind::Unexplained) == 0 {
        "all explained".into()
    } else {
        format!("explained {}", percent(ledger.explained_bytes(), rss))
    };
    style.wrapped(out, DIM, 0, &format!("{}; {explained}", about.process))?;
    writeln!(out)?;
    rows(ledger, about, &unit, style, out)?;
    if let Some(inventory) = about.inventory {
        writeln!(out)?;
        types(inventory, rss, &unit, style, out)?;
    }

    let mut below = Vec::new();
    if let Some(why) = &ledger.not_read {
        below.push(format!("{why}: live and free memory are not told apart"));
    }
    if ledger.swapped_bytes > 0 {
        below.push(format!(
            "{} more is swapped out, which is not part of RSS",
            bytes(ledger.swapped_bytes)
        ));
    }
    below.extend(judgement.remedy.iter().cloned());
    if judgement.remedy.is_empty() && ledger.not_read.is_none() && ledger.free_bytes() > 0 {
        below.push(format!(
            "giving back free memory would return at most {}",
            bytes(ledger.free_bytes())
        ));
    }
    writeln!(out)?;
    for text in below {
        style.wrapped(out, anstyle::Style::new(), 0, &text)?;
    }
    if about.next.is_empty() {
        return Ok(());
    }
    // Never cut: it is there to be pasted.
    writeln!(out, "next: {}", about.next)
}

/// `74.1 %`, but nothing that is not all is `100.0 %`.
fn percent(part: u64, of: u64) -> String {
    let tenths = (u128::from(part) * 1000 / u128::from(of.max(1))) as u64;
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// What figures are printed in: tenths of it.
struct Unit {
    name: &'static str,
    tenth: i64,
}

impl Unit {
    fn of(rss: u64) -> Unit {
        /// Below it tenths of a MiB say too little.
        const SMALL: u64 = 10 << 20;
        let (name, bytes) = if rss < SMALL {
            ("KiB", 1_u64 << 10)
        } else {
            ("MiB", 1 << 20)
        };
        // A tenth is no whole number of bytes: figures are ten times too
        // large wherever they are divided by it.
        Unit {
            name,
            tenth: bytes.cast_signed(),
        }
    }

    /// Tenths, which sum to their rounded sum.
    fn tenths(&self, values: &[i64]) -> Vec<i64> {
        let values: Vec<i64> = values
            .iter()
            .map(|value| value.saturating_mul(10))
            .collect();
        apportioned(&values, self.tenth)
    }
}

/// `1,204.7`.
fn tenths(value: i64) -> String {
    format!(
        "{}.{}",
        blocks(value.unsigned_abs() / 10),
        value.unsigned_abs() % 10
    )
}

/// `+4.1`, `-0.2`.
fn signed_tenths(value: i64) -> String {
    let sign = if value < 0 { '-' } else { '+' };
    format!("{sign}{}", tenths(value))
}

/// A row as it is printed.
struct Row {
    title: String,
    /// Below the headers, from the left.
    cells: Vec<String>,
    /// Of [`BAR`], in eighths of a column.
    bar: usize,
    note: String,
    is_added: bool,
}

fn signed(values: impl Iterator<Item = u64>) -> Vec<i64> {
    values.map(u64::cast_signed).collect()
}

fn rows(
    ledger: &Ledger,
    about: &About<'_>,
    unit: &Unit,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let rss = ledger.rss_bytes();
    let then = |line: &Line| {
        about
            .earlier
            .map_or(line.bytes, |earlier| earlier.bytes_of(line))
    };
    let shown: Vec<&Line> = ledger
        .lines
        .iter()
        .filter(|line| line.bytes > 0 || then(line) > 0)
        .collect();
    let amounts = unit.tenths(&signed(shown.iter().map(|line| line.bytes)));
    // Tenths of a percent of all.
    let thousandfold = shown.iter().map(|line| line.bytes.saturating_mul(1000));
    let percents = apportioned(&signed(thousandfold), rss.cast_signed());
    let changes: Vec<i64> = shown
        .iter()
        .map(|line| line.bytes.cast_signed() - then(line).cast_signed())
        .collect();
    let since = unit.tenths(&changes);
    let largest = shown
        .iter()
        .map(|line| line.bytes)
        .max()
        .unwrap_or(0)
        .max(1);
    let bar = |bytes: u64| (u128::from(bytes) * (BAR as u128 * 8) / u128::from(largest)) as usize;

    let shared = unit.tenths(&signed(
        shown.iter().map(|line| line.shared_bytes.min(line.bytes)),
    ));

    let has_percent = style.width >= ROOM_FOR_PERCENT;
    let has_since = about.earlier.is_some() && style.width >= ROOM_FOR_SINCE;
    let is_wide = style.width >= WIDE;
    let chosen = |cells: [String; 5]| {
        let has = [true, has_percent, has_since, is_wide, is_wide];
        let chosen = cells.into_iter().zip(has);
        chosen
            .filter_map(|(cell, has)| has.then_some(cell))
            .collect()
    };
    let headers = chosen([unit.name, "%", "since", "private", "shared"].map(str::to_owned));
    let mut rows = Vec::new();
    for (at, line) in shown.iter().enumerate() {
        if amounts[at] == 0 && since[at] == 0 {
            // As printed, it is nothing.
            continue;
        }
        // Rounding may make more of it than there is.
        let shared = shared[at].min(amounts[at]);
        rows.push(Row {
            title: line.title().to_owned(),
            cells: chosen([
                tenths(amounts[at]),
                tenths(percents[at]),
                signed_tenths(since[at]),
                tenths(amounts[at] - shared),
                tenths(shared),
            ]),
            bar: bar(line.bytes),
            note: line.note.clone(),
            is_added: true,
        });
        for part in &line.of_it {
            let bytes = part.bytes;
            let amount = unit.tenths(&[bytes.cast_signed()])[0];
            let since = part.since_bytes.map(|since| unit.tenths(&[since])[0]);
            rows.push(Row {
                title: format!("  of it {}", part.title),
                cells: chosen([
                    tenths(amount),
                    tenths((u128::from(bytes) * 1000 / u128::from(rss.max(1))) as i64),
                    since.map(signed_tenths).unwrap_or_default(),
                    String::new(),
                    String::new(),
                ]),
                bar: bar(bytes),
                note: String::new(),
                is_added: false,
            });
        }
    }
    let total = amounts.iter().sum::<i64>();
    let shared = shared.iter().sum::<i64>().min(total);
    rows.push(Row {
        title: "RSS".into(),
        cells: chosen([
            tenths(total),
            tenths(if rss == 0 { 0 } else { 1000 }),
            signed_tenths(since.iter().sum()),
            tenths(total - shared),
            tenths(shared),
        ]),
        bar: 0,
        note: String::new(),
        is_added: true,
    });
    write_rows("", &headers, &rows, style, out)
}

/// What lives by type: of live memory, so nothing that is added.
fn types(
    inventory: &Inventory,
    rss: u64,
    unit: &Unit,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    /// Types that are shown.
    const MOST: usize = 10;
    let has_since = inventory.since_ns.is_some() && style.width >= ROOM_FOR_SINCE;
    let has_percent = style.width >= ROOM_FOR_PERCENT;
    let chosen = |objects: String, amount: String, percent: String, since: String| {
        let cells = [
            (objects, true),
            (amount, true),
            (percent, has_percent),
            (since, has_since),
        ];
        let chosen = cells.into_iter().filter(|(_, has)| *has);
        chosen.map(|(cell, _)| cell).collect::<Vec<_>>()
    };
    // As printed, the others are nothing.
    let is_shown = |one: &&OfType| {
        let since = one.since.map_or(0, |(_, bytes)| bytes);
        unit.tenths(&[one.bytes.cast_signed()]) != [0] || unit.tenths(&[since]) != [0]
    };
    let types = inventory.types.iter();
    let shown: Vec<&OfType> = types.filter(is_shown).take(MOST).collect();
    let largest = shown.iter().map(|one| one.bytes).max().unwrap_or(0).max(1);
    let bar = |bytes: u64| (u128::from(bytes) * (BAR as u128 * 8) / u128::from(largest)) as usize;
    let mut rows = Vec::new();
    let mut row = |title: String, objects: Option<u64>, bytes: u64, since: Option<(i64, i64)>| {
        let objects_since = since.map_or(0, |(objects, _)| objects);
        rows.push(Row {
            title,
            cells: chosen(
                objects.map(blocks).unwrap_or_default(),
                tenths(unit.tenths(&[bytes.cast_signed()])[0]),
                tenths((u128::from(bytes) * 1000 / u128::from(rss.max(1))) as i64),
                since.map_or_else(String::new, |(_, bytes)| {
                    signed_tenths(unit.tenths(&[bytes])[0])
                }),
            ),
            bar: if objects.is_some() { bar(bytes) } else { 0 },
            note: match objects_since {
                0 => String::new(),
                1.. => format!("{} more", blocks(objects_since.unsigned_abs())),
                _ => format!("{} fewer", blocks(objects_since.unsigned_abs())),
            },
            is_added: true,
        });
    };
    for one in &shown {
        row(one.name.clone(), Some(one.objects), one.bytes, one.since);
    }
    let is_other = |one: &&OfType| !shown.iter().any(|shown| std::ptr::eq(*shown, *one));
    let (mut others, mut since) = (inventory.others, Some((0_i64, 0_i64)));
    for one in inventory.types.iter().filter(is_other) {
        others.0 += u64::from(one.objects > 0);
        others.1 = others.1.saturating_add(one.objects);
        others.2 = others.2.saturating_add(one.bytes);
        let both = since.zip(one.since);
        since = both.map(|(sum, one)| (sum.0.wrapping_add(one.0), sum.1.wrapping_add(one.1)));
    }
    if others.0 > 0 {
        let title = counted(others.0, "other type", "other types");
        let since = since.filter(|_| inventory.others.0 == 0);
        row(title, Some(others.1), others.2, since);
    }
    let of_none = inventory.rest_bytes;
    if unit.tenths(&[of_none.cast_signed()]) != [0] {
        row("tables, and what is no object".into(), None, of_none, None);
    }
    let unread = inventory.unread_bytes;
    if unit.tenths(&[unread.cast_signed()]) != [0] {
        row("not read: not resident".into(), None, unread, None);
    }
    let headers = ["objects", unit.name, "%", "since"].map(str::to_owned);
    let [objects, amount, percent, since] = headers;
    let headers = chosen(objects, amount, percent, since);
    write_rows("objects by type", &headers, &rows, style, out)
}

/// Writes a table: `title` stands above the titles of its rows.
fn write_rows(
    title: &str,
    headers: &[String],
    rows: &[Row],
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(at, header)| {
            let texts = rows.iter().map(|row| row.cells[at].width());
            texts.max().unwrap_or(0).max(header.len()).max(5)
        })
        .collect();
    let figures: usize = widths.iter().map(|width| width + 2).sum();
    let widest = rows.iter().map(|row| printable(&row.title).width()).max();
    let titles = widest
        .unwrap_or(0)
        .max(27)
        .min(style.width.saturating_sub(figures).max(8));

    let mut line = padded(&cut(title, titles), titles);
    for (header, width) in headers.iter().zip(&widths) {
        line.push_str("  ");
        line.push_str(&to_the_right(header, *width));
    }
    writeln!(out, "{}", style.paint(DIM, &line))?;
    let room = style.width.saturating_sub(titles + figures);
    let has_bars = style.boxes && room >= BAR + 2;
    for row in rows {
        line = padded(&cut(&row.title, titles), titles);
        for (cell, width) in row.cells.iter().zip(&widths) {
            line.push_str("  ");
            line.push_str(&to_the_right(cell, *width));
        }
        let mut rest = room;
        if has_bars {
            let bar = bar(row.bar);
            line.push_str("  ");
            line.push_str(&padded(&bar, BAR));
            rest -= BAR + 2;
        }
        let note = printable(&row.note);
        if !note.is_empty() && note.width() + 2 <= rest {
            line.push_str("  ");
            line.push_str(&note);
        } else if has_bars && !note.is_empty() {
            // A bar leaves room behind it, if it is short.
            let used = bar(row.bar).width();
            if note.width() < BAR - used + rest {
                let kept = line.trim_end().len();
                line.truncate(kept);
                line.push(' ');
                line.push_str(&note);
            }
        }
        let line = line.trim_end();
        if row.is_added {
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{}", style.paint(DIM, line))?;
        }
    }
    Ok(())
}

fn to_the_right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

/// A bar of so many eighths of a column.
fn bar(eighths: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{OfIt, judge};

    fn line(kind: LineKind, kib: u64, shared_kib: u64, note: &str) -> Line {
        Line {
            kind,
            title: None,
            is_one_of_several: false,
            bytes: kib << 10,
            shared_bytes: shared_kib << 10,
            note: note.into(),
            of_it: Vec::new(),
        }
    }

    fn worker() -> Ledger {
        let mut lines = vec![
            line(LineKind::PythonLive, 319_500, 0, "of up to 512 bytes"),
            line(LineKind::PythonFree, 12_220, 0, "324 arenas"),
            line(LineKind::MallocLive, 22_916, 0, "and larger objects"),
            line(LineKind::MallocFree, 19_148, 0, "8 arenas"),
            line(LineKind::Anonymous, 6_244, 0, ""),
            line(LineKind::Files, 25_444, 21_512, "21.0 MiB shared"),
            line(LineKind::Stacks, 1_940, 0, "9 stacks"),
            line(LineKind::SharedMemory, 0, 0, ""),
            line(LineKind::CopyOnWrite, 9_412, 9_412, ""),
            line(LineKind::Unexplained, 420, 0, ""),
        ];
        lines[8]
            .of_it
            .push(OfIt::new("live Python objects", 8 << 20));
        Ledger {
            lines,
            arenas: 8,
            ..Ledger::default()
        }
    }

    fn printed(now: &Ledger, earlier: Option<&Ledger>, width: usize, boxes: bool) -> String {
        printed_with(now, earlier, None, width, boxes)
    }

    fn printed_with(
        now: &Ledger,
        earlier: Option<&Ledger>,
        inventory: Option<&Inventory>,
        width: usize,
        boxes: bool,
    ) -> String {
        let style = Style {
            width,
            colour: false,
            boxes,
        };
        let about = About {
            process: "gunicorn (pid 21), CPython 3.12.1, glibc 2.36".into(),
            earlier,
            inventory,
            since: "in 1 min 00 s".into(),
            next: "leakline attach 21".into(),
        };
        let mut out = Vec::new();
        ledger(now, &judge(now, earlier), &about, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_ledger_fits_eighty_columns() {
        insta::assert_snapshot!(printed(&worker(), None, 80, true), @r"
        RSS 407.5 MiB: MOSTLY LIVE: 334.4 MiB (82 %) is in use; whether it leaks, one
        look cannot tell
        gunicorn (pid 21), CPython 3.12.1, glibc 2.36; explained 99.8 %

                                       MiB      %
        live Python objects          312.0   76.6  ████████████████  of up to 512 bytes
        free inside pymalloc arenas   11.9    2.9  ▌                 324 arenas
        live malloc                   22.4    5.5  █▏                and larger objects
        freed, kept by glibc arenas   18.7    4.6  ▉                 8 arenas
        other anonymous maps           6.1    1.5  ▎
        files and code                24.9    6.1  █▎                21.0 MiB shared
        thread stacks                  1.9    0.5                    9 stacks
        copy-on-write with forks       9.2    2.2  ▍
          of it live Python objects    8.0    1.9  ▍
        not explained                  0.4    0.1
        RSS                          407.5  100.0

        giving back free memory would return at most 30.6 MiB
        next: leakline attach 21
        ");
    }

    fn inventory(since: Option<(i64, i64)>) -> Inventory {
        let one = |name: &str, objects: u64, kib: u64, since| OfType {
            name: name.into(),
            objects,
            bytes: kib << 10,
            since,
        };
        let same = since.map(|_| (0, 0));
        let mut types = vec![
            one("app.cache.Session", 973_510, 110_592, since),
            one("dict", 21_004, 90_112, same),
            one("str", 403_048, 24_576, same),
        ];
        types.extend((0..9).map(|at| one(&format!("kind{at}"), 1000, 200, same)));
        types.push(one("small", 3, 1, same));
        Inventory {
            types,
            rest_bytes: 3 << 20,
            unread_bytes: 1 << 10,
            since_ns: since.map(|_| 0),
            ..Inventory::default()
        }
    }

    #[test]
    fn what_lives_by_type_stands_below() {
        let found = inventory(None);
        insta::assert_snapshot!(printed_with(&worker(), None, Some(&found), 80, true), @r"
        RSS 407.5 MiB: MOSTLY LIVE: 334.4 MiB (82 %) is in use; whether it leaks, one
        look cannot tell
        gunicorn (pid 21), CPython 3.12.1, glibc 2.36; explained 99.8 %

                                       MiB      %
        live Python objects          312.0   76.6  ████████████████  of up to 512 bytes
        free inside pymalloc arenas   11.9    2.9  ▌                 324 arenas
        live malloc                   22.4    5.5  █▏                and larger objects
        freed, kept by glibc arenas   18.7    4.6  ▉                 8 arenas
        other anonymous maps           6.1    1.5  ▎
        files and code                24.9    6.1  █▎                21.0 MiB shared
        thread stacks                  1.9    0.5                    9 stacks
        copy-on-write with forks       9.2    2.2  ▍
          of it live Python objects    8.0    1.9  ▍
        not explained                  0.4    0.1
        RSS                          407.5  100.0

        objects by type                objects    MiB      %
        app.cache.Session              973,510  108.0   26.5  ████████████████
        dict                            21,004   88.0   21.5  █████████████
        str                            403,048   24.0    5.8  ███▌
        kind0                            1,000    0.2    0.0
        kind1                            1,000    0.2    0.0
        kind2                            1,000    0.2    0.0
        kind3                            1,000    0.2    0.0
        kind4                            1,000    0.2    0.0
        kind5                            1,000    0.2    0.0
        kind6                            1,000    0.2    0.0
        3 other types                    2,003    0.4    0.0
        tables, and what is no object             3.0    0.7

        giving back free memory would return at most 30.6 MiB
        next: leakline attach 21
        ");
        let found = inventory(Some((1204, 9 << 20)));
        let earlier = worker();
        insta::assert_snapshot!(printed_with(&worker(), Some(&earlier), Some(&found), 72, false), @r"
        RSS 407.5 MiB, 0 B in 1 min 00 s: STEADY: no growth that matters
        gunicorn (pid 21), CPython 3.12.1, glibc 2.36; explained 99.8 %

                                       MiB      %  since
        live Python objects          312.0   76.6   +0.0  of up to 512 bytes
        free inside pymalloc arenas   11.9    2.9   +0.0  324 arenas
        live malloc                   22.4    5.5   +0.0  and larger objects
        freed, kept by glibc arenas   18.7    4.6   +0.0  8 arenas
        other anonymous maps           6.1    1.5   +0.0
        files and code                24.9    6.1   +0.0  21.0 MiB shared
        thread stacks                  1.9    0.5   +0.0  9 stacks
        copy-on-write with forks       9.2    2.2   +0.0
          of it live Python objects    8.0    1.9
        not explained                  0.4    0.1   +0.0
        RSS                          407.5  100.0   +0.0

        objects by type                objects    MiB      %  since
        app.cache.Session              973,510  108.0   26.5   +9.0  1,204 more
        dict                            21,004   88.0   21.5   +0.0
        str                            403,048   24.0    5.8   +0.0
        kind0                            1,000    0.2    0.0   +0.0
        kind1                            1,000    0.2    0.0   +0.0
        kind2                            1,000    0.2    0.0   +0.0
        kind3                            1,000    0.2    0.0   +0.0
        kind4                            1,000    0.2    0.0   +0.0
        kind5                            1,000    0.2    0.0   +0.0
        kind6                            1,000    0.2    0.0   +0.0
        3 other types                    2,003    0.4    0.0   +0.0
        tables, and what is no object             3.0    0.7

        giving back free memory would return at most 30.6 MiB
        next: leakline attach 21
        ");
        insta::assert_snapshot!(printed_with(&worker(), None, Some(&found), 34, false), @r"
        RSS 407.5 MiB: MOSTLY LIVE: 334.4
        MiB (82 %) is in use; whether it
        leaks, one look cannot tell
        gunicorn (pid 21), CPython 3.12.1,
        glibc 2.36; explained 99.8 %

                                       MiB
        live Python objects          312.0
        free inside pymalloc arenas   11.9
        live malloc                   22.4
        freed, kept by glibc arenas   18.7
        other anonymous maps           6.1
        files and code                24.9
        thread stacks                  1.9
        copy-on-write with forks       9.2
          of it live Python objects    8.0
        not explained                  0.4
        RSS                          407.5

        objects by type     objects    MiB
        app.cache.Session   973,510  108.0
        dict                 21,004   88.0
        str                 403,048   24.0
        kind0                 1,000    0.2
        kind1                 1,000    0.2
        kind2                 1,000    0.2
        kind3                 1,000    0.2
        kind4                 1,000    0.2
        kind5                 1,000    0.2
        kind6                 1,000    0.2
        3 other types         2,003    0.4
        tables, ~no object             3.0

        giving back free memory would
        return at most 30.6 MiB
        next: leakline attach 21
        ");
    }

    #[test]
    fn two_looks_have_a_column_for_what_changed() {
        let earlier = worker();
        let mut now = worker();
        now.lines[3].bytes += 77 << 20;
        now.lines[0].bytes -= 2 << 20;
        now.trimmable_bytes = 60 << 20;
        insta::assert_snapshot!(printed(&now, Some(&earlier), 120, false), @r"
        RSS 482.5 MiB, +75.0 MiB in 1 min 00 s: FRAGMENTATION, not a leak: live memory fell by 2.0 MiB while RSS grew
        gunicorn (pid 21), CPython 3.12.1, glibc 2.36; explained 99.9 %

                                       MiB      %  since  private  shared
        live Python objects          310.0   64.3   -2.0    310.0     0.0  of up to 512 bytes
        free inside pymalloc arenas   11.9    2.5   +0.0     11.9     0.0  324 arenas
        live malloc                   22.4    4.6   +0.0     22.4     0.0  and larger objects
        freed, kept by glibc arenas   95.7   19.8  +77.0     95.7     0.0  8 arenas
        other anonymous maps           6.1    1.3   +0.0      6.1     0.0
        files and code                24.9    5.1   +0.0      3.9    21.0  21.0 MiB shared
        thread stacks                  1.9    0.4   +0.0      1.9     0.0  9 stacks
        copy-on-write with forks       9.2    1.9   +0.0      0.0     9.2
          of it live Python objects    8.0    1.6
        not explained                  0.4    0.1   +0.0      0.4     0.0
        RSS                          482.5  100.0  +75.0    452.3    30.2

        `malloc_trim(0)` in the process would return about 60.0 MiB (12 %)
        next: leakline attach 21
        ");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        insta::assert_snapshot!(printed(&worker(), None, 40, true), @r"
        RSS 407.5 MiB: MOSTLY LIVE: 334.4 MiB
        (82 %) is in use; whether it leaks, one
        look cannot tell
        gunicorn (pid 21), CPython 3.12.1, glibc
        2.36; explained 99.8 %

                                       MiB
        live Python objects          312.0
        free inside pymalloc arenas   11.9
        live malloc                   22.4
        freed, kept by glibc arenas   18.7
        other anonymous maps           6.1
        files and code                24.9
        thread stacks                  1.9
        copy-on-write with forks       9.2
          of it live Python objects    8.0
        not explained                  0.4
        RSS                          407.5

        giving back free memory would return at
        most 30.6 MiB
        next: leakline attach 21
        ");
    }

    /// The printed figures of all lines sum to the printed figure of RSS.
    #[test]
    fn what_is_printed_sums_up() {
        for seed in 1..200_u64 {
            let mut ledger = worker();
            for (at, line) in ledger.lines.iter_mut().enumerate() {
                line.bytes = (seed * 7_919 * (at as u64 + 3)) % 9_001 * 4096 * (seed % 7);
                line.shared_bytes = 0;
                line.of_it.clear();
            }
            let mut earlier = ledger.clone();
            for (at, line) in earlier.lines.iter_mut().enumerate() {
                line.bytes = line.bytes * (seed % 5 + at as u64) / 7;
            }
            let text = printed(&ledger, Some(&earlier), 80, false);
            let rows: Vec<Vec<f64>> = text
                .lines()
                .skip_while(|line| !line.trim_start().starts_with(['M', 'K']))
                .skip(1)
                .take_while(|line| !line.is_empty())
                .map(|line| {
                    let words = line[27..].split_ascii_whitespace();
                    let figures = words.filter_map(|word| word.replace(',', "").parse().ok());
                    figures.take(3).collect()
                })
                .collect();
            let (sum, parts) = rows.split_last().unwrap();
            let unit = if text.contains("MiB      %") { 20 } else { 10 };
            let (now, then) = (ledger.rss_bytes() as f64, earlier.rss_bytes() as f64);
            let grown = (now - then) / f64::from(1 << unit);
            assert!((sum[2] - grown).abs() < 0.0501, "{grown} of\n{text}");
            for column in 0..3 {
                let of_parts: f64 = parts.iter().map(|row| row[column]).sum();
                assert!((of_parts - sum[column]).abs() < 0.01, "{column} of\n{text}");
            }
        }
    }

    #[test]
    fn nothing_is_no_reason_to_fail() {
        let text = printed(&Ledger::default(), None, 80, true);
        assert!(text.contains("\nRSS"), "{text}");
        for width in 0..130 {
            let _ = printed(&worker(), Some(&worker()), width, true);
        }
    }
}
