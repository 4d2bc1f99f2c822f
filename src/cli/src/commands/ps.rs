//! `leakline ps`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use leakline_analysis::report::{BOLD, Cell, DIM, Style, Table, bytes, counted, signed_bytes};
use leakline_analysis::{Filter, escaped};
use leakline_collector::public_command;
use leakline_inject::inspect::{self, Glance, Inspector, Process};
use serde_json::{Value, json};

use super::processes::{command, kind, libc};
use super::report::{Output, answer_with};
use crate::CliError;

/// Lists processes of this machine: what they are, how much memory they have,
/// which grow, and which may be attached to.
///
/// Growth is that of RSS between two looks. Without --all: your own processes
/// (root: everybody's), without threads of the kernel.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline ps
  leakline ps --interval 60              what grows in a minute
  leakline ps --filter python --sort rss
  leakline ps --json --interval 0        one look, no waiting")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Everybody's processes, and the kernel's
    #[arg(long)]
    all: bool,
    /// Seconds between the two looks; 0 = look once
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Largest first by this
    #[arg(long, value_name = "FIGURE", default_value = "growth")]
    sort: Sort,
    /// Most rows; 0 = all [default: 20; with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only processes whose command, name, pid or kind matches: a text to
    /// find, or a pattern with * and ?
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| Ok::<_, String>(Filter::new(text)))]
    filter: Option<Filter>,
}

/// Figures to sort by.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sort {
    /// How much RSS grew, then RSS
    Growth,
    /// What is resident
    Rss,
    /// The pid, lowest first
    Pid,
}

fn interval(text: &str) -> Result<Duration, String> {
    /// A day.
    const MOST: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MOST).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds, up to a day".into()),
    }
}

/// A process at both looks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    glance: Glance,
    /// `None`: it came between the looks, or there was one only.
    growth: Option<i64>,
}

/// What is left out of the list.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    kernel_threads: usize,
    other_users: usize,
    unmatched: usize,
    beyond_limit: usize,
}

/// What was seen.
struct Answer {
    rows: Vec<Row>,
    left_out: LeftOut,
    /// Processes that ended between the looks.
    ended: usize,
    /// Time between them, if there were two.
    apart: Option<Duration>,
    total: usize,
    growing: usize,
}

/// A row of the list.
struct Row {
    seen: Seen,
    /// `None`: it ended before it could be looked at closely.
    process: Option<Process>,
}

/// Writes the list to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let answer = look(args).map_err(|source| CliError::Report {
            message: "cannot list the processes of this machine".into(),
            hint: Some("mount `/proc`".into()),
            source: Some(source.into()),
        })?;
        match output {
            Output::Json(out) => write_json(&answer, out),
            Output::Text(out, style) => write_text(args, &answer, style, out),
        }
        .map_err(CliError::Output)
    })
}

fn look(args: &Args) -> io::Result<Answer> {
    let begun = Instant::now();
    let first: Vec<Glance> = inspect::pids()?
        .into_iter()
        .filter_map(Glance::at)
        .collect();
    let mut apart = None;
    let mut ended = 0;
    let mut seen: Vec<Seen> = Vec::with_capacity(first.len());
    if args.interval.is_zero() {
        seen.extend(first.into_iter().map(|glance| Seen {
            glance,
            growth: None,
        }));
    } else {
        let progress = Progress::show(first.len(), args.interval);
        sleep(args.interval.saturating_sub(begun.elapsed()));
        drop(progress);
        apart = Some(begun.elapsed());
        let mut before: HashMap<(u32, u64), u64> = first
            .iter()
            .map(|glance| ((glance.pid, glance.start_ticks), glance.rss_bytes))
            .collect();
        for glance in inspect::pids()?.into_iter().filter_map(Glance::at) {
            let rss = before.remove(&(glance.pid, glance.start_ticks));
            let growth = rss.map(|rss| glance.rss_bytes.cast_signed() - rss.cast_signed());
            seen.push(Seen { glance, growth });
        }
        ended = before.len();
    }

    let mut left_out = LeftOut::default();
    let (ours, user) = (std::process::id(), rustix::process::geteuid());
    seen.retain(|Seen { glance, .. }| {
        if glance.pid == ours {
            return false;
        }
        if args.all {
            return true;
        }
        let is_theirs = !user.is_root() && glance.user != user.as_raw();
        left_out.kernel_threads += usize::from(glance.is_kernel_thread);
        left_out.other_users += usize::from(is_theirs && !glance.is_kernel_thread);
        !glance.is_kernel_thread && !is_theirs
    });
    seen.sort_by_key(|seen| {
        let Glance { rss_bytes, pid, .. } = seen.glance;
        let growth = match args.sort {
            Sort::Growth => seen.growth.unwrap_or(0),
            Sort::Rss | Sort::Pid => 0,
        };
        let rss = match args.sort {
            Sort::Growth | Sort::Rss => rss_bytes,
            Sort::Pid => 0,
        };
        (-growth, std::cmp::Reverse(rss), pid)
    });

    let limit = match args.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if args.json => usize::MAX,
        None => 20,
    };
    let growing = |seen: &[Seen]| {
        let grows = |seen: &&Seen| seen.growth.is_some_and(|growth| growth > 0);
        seen.iter().filter(grows).count()
    };
    // Close looks are dear: only at what is shown, or at what a filter may
    // know by nothing else.
    let mut inspector = Inspector::new();
    let mut rows = Vec::new();
    let (total, growing) = if let Some(filter) = &args.filter {
        let before = seen.len();
        let mut matching = Vec::new();
        for seen in seen {
            let row = Row::of(seen, &mut inspector);
            if row.matches(filter) {
                matching.push(seen);
                if rows.len() < limit {
                    rows.push(row);
                }
            }
        }
        left_out.unmatched = before - matching.len();
        (matching.len(), growing(&matching))
    } else {
        let closely = seen.iter().take(limit);
        rows.extend(closely.map(|seen| Row::of(*seen, &mut inspector)));
        (seen.len(), growing(&seen))
    };
    left_out.beyond_limit = total - rows.len();
    Ok(Answer {
        rows,
        left_out,
        ended,
        apart,
        total,
        growing,
    })
}

impl Row {
    fn of(seen: Seen, inspector: &mut Inspector) -> Row {
        let process = inspector.look(seen.glance.pid).ok();
        // A pid that came back is another process.
        let process = process.filter(|process| process.start_ticks == seen.glance.start_ticks);
        Row { seen, process }
    }

    fn command(&self) -> String {
        self.process.as_ref().map_or_else(
            || "(ended)".into(),
            |process| command(&process.arguments, &process.name),
        )
    }

    fn kind(&self) -> String {
        if self.seen.glance.is_kernel_thread {
            return "kernel".into();
        }
        self.process.as_ref().map_or_else(|| "?".into(), kind)
    }

    /// Whether one may attach, or the first obstacle in a word.
    fn attach(&self) -> &'static str {
        match &self.process {
            None => "gone",
            Some(process) => process
                .obstacles()
                .first()
                .map_or("yes", |obstacle| obstacle.word()),
        }
    }

    fn matches(&self, filter: &Filter) -> bool {
        let name = self.process.as_ref().map(|process| &process.name);
        filter.matches(&self.command())
            || name.is_some_and(|name| filter.matches(name))
            || filter.matches(&self.kind())
            || filter.matches(&self.seen.glance.pid.to_string())
    }
}

/// A line on the terminal while there is nothing to show yet.
struct Progress;

impl Progress {
    fn show(processes: usize, interval: Duration) -> Option<Progress> {
        let mut out = io::stderr();
        if !out.is_terminal() {
            return None;
        }
        let text = format!(
            "{} seen, looking again in {} s",
            counted(processes as u64, "process", "processes"),
            interval.as_secs_f64()
        );
        // A line that wraps could not be taken back.
        let width = rustix::termios::tcgetwinsize(&out).map_or(80, |size| size.ws_col);
        let text: String = text.chars().take(usize::from(width).max(2) - 1).collect();
        write!(out, "{text}").and_then(|()| out.flush()).ok()?;
        Some(Progress)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Back to the line's beginning, and empty it.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// Below these widths of a terminal, a column less.
const ROOM_FOR_KIND: usize = 60;
const ROOM_FOR_ATTACH: usize = 44;

fn write_text(
    args: &Args,
    answer: &Answer,
    style: Style,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let seconds = answer.apart.map(|apart| apart.as_secs_f64());
    let headline = match seconds {
        Some(seconds) => format!(
            "{}, {} grew within {seconds:.1} s",
            counted(answer.total as u64, "process", "processes"),
            answer.growing
        ),
        None => counted(answer.total as u64, "process", "processes"),
    };
    style.wrapped(out, BOLD, 0, &headline)?;
    let left_out = &answer.left_out;
    let mut notes = Vec::new();
    let mut note = |count: usize, one: &str, many: &str| {
        if count > 0 {
            notes.push(counted(count as u64, one, many));
        }
    };
    note(left_out.other_users, "of another user", "of other users");
    note(left_out.kernel_threads, "of the kernel", "of the kernel");
    note(
        left_out.unmatched,
        "that does not match",
        "that do not match",
    );
    if !notes.is_empty() {
        let all = if args.all || left_out.other_users + left_out.kernel_threads == 0 {
            ""
        } else {
            " (--all)"
        };
        style.wrapped(
            out,
            DIM,
            0,
            &format!("not shown: {}{all}", notes.join(", ")),
        )?;
    }
    if answer.ended > 0 {
        let ended = format!("{} ended meanwhile", answer.ended);
        style.wrapped(out, DIM, 0, &ended)?;
    }
    if answer.rows.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut figures = vec!["pid", "RSS"];
    if answer.apart.is_some() {
        figures.push("growth");
    }
    let mut texts = vec!["what", "attach", "command"];
    if style.width < ROOM_FOR_KIND {
        texts.remove(0);
    }
    if style.width < ROOM_FOR_ATTACH {
        texts.remove(0);
    }
    let mut table = Table::new(&figures, &texts);
    for row in &answer.rows {
        let Seen { glance, growth } = row.seen;
        let mut cells = vec![
            Cell::Figure(glance.pid.to_string()),
            Cell::Figure(bytes(glance.rss_bytes)),
        ];
        if answer.apart.is_some() {
            cells.push(Cell::Figure(growth.map_or("new".into(), signed_bytes)));
        }
        cells.extend(texts.iter().map(|text| match *text {
            "what" => Cell::Line(row.kind()),
            "attach" => Cell::Line(row.attach().into()),
            _ => Cell::Text(row.command()),
        }));
        table.row(cells);
    }
    table.write(out, style)?;
    if left_out.beyond_limit > 0 {
        let more = format!("and {} more (--limit 0 shows all)", left_out.beyond_limit);
        style.wrapped(out, DIM, 0, &more)?;
    }
    let Some(first) = answer.rows.iter().find(|row| row.attach() == "yes") else {
        return Ok(());
    };
    let pid = first.seen.glance.pid;
    writeln!(out, "\nnext: leakline doctor {pid}")
}

fn write_json(answer: &Answer, out: &mut dyn io::Write) -> io::Result<()> {
    let left_out = &answer.left_out;
    let apart = answer.apart.map(|apart| apart.as_secs_f64());
    let rows: Vec<Value> = answer.rows.iter().map(|row| row.json(apart)).collect();
    let rest = (left_out.beyond_limit > 0).then(|| json!({ "rows": left_out.beyond_limit }));
    let report = json!({
        "schema": "leakline.ps",
        "version": 1,
        "interval_seconds": apart,
        "total_rows": answer.total,
        "growing": answer.growing,
        "ended": answer.ended,
        "left_out": {
            "kernel_threads": left_out.kernel_threads,
            "other_users": left_out.other_users,
            "unmatched": left_out.unmatched,
        },
        "rest": rest,
        "rows": rows,
    });
    writeln!(out, "{report}")
}

impl Row {
    fn json(&self, apart: Option<f64>) -> Value {
        let Seen { glance, growth } = self.seen;
        let process = self.process.as_ref();
        let program = process.and_then(|process| process.program.as_ref());
        let python = program.and_then(|program| program.python.as_ref());
        let arguments = process.map(|process| {
            let words = public_command(&process.arguments);
            let words = words.iter().map(|word| escaped(word).into_owned());
            words.collect::<Vec<_>>()
        });
        let rate = growth
            .zip(apart)
            .map(|(growth, seconds)| growth as f64 / seconds);
        let attach = self.attach();
        json!({
            "pid": glance.pid,
            "start_ticks": glance.start_ticks,
            "parent_pid": process.map(|process| process.parent_pid),
            "user": glance.user,
            "name": process.map(|process| &process.name),
            "command": self.command(),
            "arguments": arguments,
            "state": glance.state.words(),
            "kind": self.kind(),
            "python": python.map(|python| &python.version.text),
            "free_threaded": python.map(|python| python.version.is_free_threaded),
            "embedded": python.map(|python| python.is_embedded),
            "libc": program.map(libc),
            "allocators": program.map(|program| {
                let names = program.allocators.iter().map(|own| own.allocator.name());
                names.collect::<Vec<_>>()
            }),
            "threads": process.map(|process| process.threads),
            "rss_bytes": glance.rss_bytes,
            "growth_bytes": growth,
            "growth_bytes_per_second": rate,
            "recorded": process.map(|process| process.collector.is_some()),
            "attachable": attach == "yes",
            "obstacle": (attach != "yes").then_some(attach),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1", "2s", "nan", "inf", "86401"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
