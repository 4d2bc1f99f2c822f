//! `leakline doctor [PID]`.

mod machine;
mod process;

use std::io;
use std::process::ExitCode;

use leakline_analysis::report::{BOLD, DIM, Style, WARN, counted};
use leakline_inject::inspect::Inspector;
use serde_json::{Value, json};

use super::report::{Output, answer_with};
use crate::CliError;
use machine::Machine;
use process::Examined;

/// Says what would stop leakline here, or would take something from what it
/// shows, and how to mend each.
///
/// With PID, also what would stop `leakline attach PID`. Nothing is done to
/// the process: it is not even stopped for an instant.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline doctor
  leakline doctor 4121
  leakline doctor 4121 --json")]
pub(crate) struct Args {
    /// The process to look at [default: this machine alone]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=0x7fff_ffff))]
    pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes what was found to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    answer_with(args.json, |output| {
        let mut inspector = Inspector::new();
        // First, so that one that is gone is told at once.
        let examined = match args.pid {
            None => None,
            Some(pid) => {
                let process = inspector.look(pid).map_err(CliError::Refused)?;
                Some(Examined::new(process, &mut inspector))
            }
        };
        let machine = Machine::check(&inspector);
        match output {
            Output::Json(out) => {
                let report = json!({
                    "schema": "leakline.doctor",
                    "version": 1,
                    "leakline": env!("CARGO_PKG_VERSION"),
                    "ready": {
                        "run": machine.stopping(Stops::Run).next().is_none(),
                        "attach": machine.stopping(Stops::Attach).next().is_none(),
                    },
                    "checks": machine.json(),
                    "process": examined.as_ref().map(|examined| examined.json(&machine)),
                });
                writeln!(out, "{report}")
            }
            Output::Text(out, style) => match &examined {
                None => machine.write(style, out),
                Some(examined) => examined.write(&machine, style, out),
            },
        }
        .map_err(CliError::Output)
    })
}

/// What a finding stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// `leakline run`, and with it the collector, which `attach` needs, too.
    Run,
    /// `leakline attach`.
    Attach,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Fine,
    /// Good to know.
    Note,
    /// It works, but not as well as it could.
    Poor,
    /// It does not work.
    Stops(Stops),
}

impl Grade {
    /// A word of five letters at most.
    fn word(self) -> &'static str {
        match self {
            Grade::Fine => "fine",
            Grade::Note => "note",
            Grade::Poor => "poor",
            Grade::Stops(_) => "stops",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    grade: Grade,
    /// What was looked at, in a word.
    name: String,
    /// What was found.
    found: String,
    /// Why it is so, if there is more to say.
    cause: Option<String>,
    /// The way to mend it.
    mend: Option<String>,
}

impl Finding {
    /// A few lines: the grade, what was found, and the way out below.
    fn write(&self, style: Style, out: &mut dyn io::Write) -> io::Result<()> {
        /// Below it there is no room for columns.
        const NARROW: usize = 40;
        let (lead, indent) = if style.width < NARROW {
            (format!("{}: ", self.grade.word()), 2)
        } else {
            (format!("{:<7}", self.grade.word()), 7)
        };
        let paint = match self.grade {
            Grade::Fine | Grade::Note => DIM,
            Grade::Poor => WARN,
            Grade::Stops(_) => BOLD,
        };
        let because = self
            .cause
            .as_ref()
            .map_or(String::new(), |cause| format!(": {cause}"));
        wrapped(
            style,
            out,
            paint,
            &lead,
            indent,
            &format!("{}{because}", self.found),
        )?;
        if let Some(mend) = &self.mend {
            let lead = format!("{}mend: ", " ".repeat(indent));
            wrapped(style, out, anstyle::Style::new(), &lead, indent + 6, mend)?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "grade": self.grade.word(),
            "stops": match self.grade {
                Grade::Stops(Stops::Run) => json!(["run", "attach"]),
                Grade::Stops(Stops::Attach) => json!(["attach"]),
                Grade::Fine | Grade::Note | Grade::Poor => json!([]),
            },
            "message": self.found,
            "cause": self.cause,
            "hint": self.mend,
        })
    }
}

/// Writes `text` behind `lead`, both of which keep their spaces; further lines
/// are indented by `indent`.
fn wrapped(
    style: Style,
    out: &mut dyn io::Write,
    paint: anstyle::Style,
    lead: &str,
    indent: usize,
    text: &str,
) -> io::Result<()> {
    for (at, line) in text.lines().enumerate() {
        let lead = if at == 0 {
            lead.to_owned()
        } else {
            " ".repeat(indent)
        };
        style.wrapped(out, paint, indent, &format!("{lead}{line}"))?;
    }
    Ok(())
}

/// `1 thing`, `3 things`.
fn things(count: usize) -> String {
    counted(count as u64, "thing", "things")
}
