//! `leakline why`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leakline_analysis::heap::{
    Asked, Graph, Heap, read_earlier, read_last, read_parts, sites_named,
};
use leakline_analysis::leaks::Findings;
use leakline_analysis::report::text::Subject;
use leakline_analysis::report::{json, text};
use leakline_analysis::{Leaks, LeaksQuery, Lost, Model, Stacks, Suppression};

use super::leaks::last_graph;
use super::report::{Input, Output, report_with_file, resolved, unopened};
use crate::CliError;

/// Says who holds what lives, by a heap graph of the recording.
///
/// Without a question: the objects under which most memory gathers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  leakline why                          where most memory gathers
  leakline why L1                       who holds what `leakline leaks` calls L1
  leakline why app.leakline Session     who holds the objects of a class
  leakline why sessions.py:41           who holds what that line made
  leakline why load_session             who holds what that function made
  leakline why app.cache.SESSIONS       what holds one object, and what it holds
  leakline why 0x7f12deadbeef --referents
  leakline why dict --graph warm --paths 10")]
pub(crate) struct Args {
    /// The recording, or a process that is being recorded, or the pid that a
    /// recording here is named after [default: the newest *.leakline here]
    #[arg(value_name = "FILE|PID")]
    file: Option<PathBuf>,
    /// What to explain: a cause (L1), a place (app.py:41), a function, a site's
    /// number, a type, an address (0x7f...), or an object's name as a program would
    /// write it (app.cache.SESSIONS) [default: where most memory gathers]
    #[arg(value_name = "CAUSE|SITE|TYPE|ADDRESS")]
    question: Option<String>,
    /// Which heap graph: its number or name [default: the last whole one]
    #[arg(long, value_name = "N|NAME")]
    graph: Option<String>,
    /// Most paths [default: 3; without a question, 5 places]
    #[arg(long, value_name = "N")]
    paths: Option<usize>,
    /// Of one object: what it refers to, too
    #[arg(long)]
    referents: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The file, and the question, in either order: a sole word that names no file
    /// is the question.
    fn words(&self) -> (Option<PathBuf>, Option<String>) {
        let is_file = |path: &Path| {
            let text = path.to_string_lossy();
            let is_pid = text.bytes().all(|byte| byte.is_ascii_digit());
            is_pid || text.ends_with(".leakline") || path.exists()
        };
        match (&self.file, &self.question) {
            (Some(file), question) if is_file(file) => (Some(file.clone()), question.clone()),
            (Some(word), None) => (None, Some(word.to_string_lossy().into_owned())),
            (Some(word), Some(file)) if is_file(Path::new(file)) => {
                (Some(file.into()), Some(word.to_string_lossy().into_owned()))
            }
            (file, question) => (file.clone(), question.clone()),
        }
    }
}

fn failed(message: String, hint: impl Into<String>) -> CliError {
    CliError::Report {
        message,
        hint: Some(hint.into()),
        source: None,
    }
}

/// Writes the answer to stdout.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let (file, question) = args.words();
    let input = Input::new(file, args.json);
    report_with_file(&input, |model, stacks, file, output| {
        let sites = match &question {
            Some(text) => lost_sites(text, model, stacks)?,
            None => Vec::new(),
        };
        if let (Some(text), false) = (&question, sites.is_empty()) {
            let lost = Lost::new(model, stacks, Some(&sites));
            return match output {
                Output::Json(out) => json::lost(model, stacks, text, &lost, out),
                Output::Text(out, style) => {
                    text::lost_sites(model, stacks, text, &lost, style, out)
                }
            }
            .map_err(CliError::Output);
        }
        if model.heap_graphs().is_empty() {
            if question.is_none() && args.graph.is_none() && !model.lost().is_empty() {
                let lost = Lost::new(model, stacks, None);
                return match output {
                    Output::Json(out) => json::lost(model, stacks, "", &lost, out),
                    Output::Text(out, style) => text::lost_alone(model, stacks, &lost, style, out),
                }
                .map_err(CliError::Output);
            }
            return Err(failed(
                format!("there is no heap graph in {}", model.origin().file),
                "`leakline snapshot PID NAME --heap` takes one of a program that is being recorded,\n\
                 `leakline run` one at the program's end",
            ));
        }
        let cause = match &question {
            Some(text) if is_cause(text) => Some(resolved(Leaks::new(model, stacks, causes()))?),
            _ => None,
        };
        let of_cause = match (&cause, &args.graph) {
            (Some(leaks), None) => last_graph(leaks, model, file)?,
            _ => None,
        };
        let (number, mut graph) = match of_cause {
            Some(graph) => graph,
            None => chosen(args.graph.as_deref(), model, file)?,
        };
        let is_known = |leaks: &Leaks| leaks.named(question.as_deref().unwrap_or("")).is_some();
        // One graph is held at a time: two take twice the memory.
        let mut before = None;
        if cause.as_ref().is_some_and(|leaks| !is_known(leaks)) {
            // The graph's findings are causes, too, and what they are it says with an earlier one.
            drop(graph);
            before = earlier(number, model, file)?.map(|(_, heap)| heap.references());
            graph = read(number, file)?;
        }
        let trust = graph.trust();
        let heap = Heap::new(graph);
        let references = heap.references();
        let asked = match (&question, cause) {
            (None, _) => Asked::Gathered,
            (Some(text), None) => asked(text, model, stacks, &heap)?,
            (Some(text), Some(mut leaks)) => {
                if !is_known(&leaks) {
                    let told = (number, references.clone());
                    let findings = Findings::new(model, stacks, told, before.as_ref());
                    leaks.look_into(model, stacks, &heap, &findings);
                }
                match leaks.named(text) {
                    Some(cause) => Asked::Sites(cause.members.clone()),
                    None => {
                        return Err(failed(
                            format!("there is no cause {text} in this recording"),
                            "`leakline leaks` lists those that there are",
                        ));
                    }
                }
            }
        };
        let most = args.paths.unwrap_or(match asked {
            Asked::Gathered => 5,
            _ => 3,
        });
        let mut why = heap.why(&asked, most.max(1));
        if let (Asked::Address(_), None) = (&asked, &why.object) {
            return Err(failed(
                format!(
                    "no object begins at {} in heap graph {number}",
                    question.as_deref().unwrap_or_default()
                ),
                "addresses are those of the process when the graph was taken; `--graph` names another",
            ));
        }
        drop(heap);
        let earlier = earlier(number, model, file)?;
        if let Some((_, earlier)) = &earlier {
            earlier.compare(&asked, &mut why);
        }
        let before = earlier.as_ref().map(|(_, heap)| heap.references());
        let earlier = earlier.map(|(number, _)| number);
        let mut findings = Findings::new(model, stacks, (number, references), before.as_ref());
        match &asked {
            Asked::Gathered => {}
            Asked::Sites(sites) => findings = findings.about(sites, &|_| false),
            Asked::Type(name) => {
                let end = format!(".{name}");
                findings = findings.about(&[], &|type_| type_ == name || type_.ends_with(&end));
            }
            Asked::Address(_) => findings = findings.about(&[], &|_| false),
        }
        let subject = Subject {
            name: question.as_deref().unwrap_or_default(),
            graph: number,
            earlier: earlier.filter(|_| !matches!(asked, Asked::Address(_))),
            trust,
            referents: args.referents,
            findings: &findings,
        };
        let lost = Lost::new(model, stacks, None);
        let is_general = question.is_none();
        match output {
            Output::Json(out) => json::why(model, stacks, &subject, &why, &lost, out),
            Output::Text(out, style) => {
                let lost = is_general.then_some(&lost);
                text::why(model, stacks, &subject, &why, lost, style, out)
            }
        }
        .map_err(CliError::Output)
    })
}

/// Sites that a text means, if most of what they made that lives is lost: then that is the
/// answer.
fn lost_sites<'a>(
    text: &str,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
) -> Result<Vec<u32>, CliError> {
    if model.lost().is_empty() {
        return Ok(Vec::new());
    }
    if let Some(digits) = text.strip_prefix("0x") {
        let address = u64::from_str_radix(digits, 16).unwrap_or(0);
        let sites = model.lost().iter().flat_map(|look| &look.sites);
        let found = sites.filter(|site| site.examples.contains(&address));
        let mut sites: Vec<u32> = found.map(|site| site.site).collect();
        sites.sort_unstable();
        sites.dedup();
        return Ok(sites);
    }
    let sites = if is_cause(text) {
        // Those that a heap graph adds come after these.
        let leaks = resolved(Leaks::new(model, stacks, causes()))?;
        let cause = leaks.named(text);
        cause.map_or_else(Vec::new, |cause| cause.members.clone())
    } else {
        sites_named(model, stacks, text)
    };
    let lost = Lost::new(model, stacks, Some(&sites));
    let (known, gone) = lost.figures().known;
    Ok(if gone.saturating_mul(2) >= known && gone > 0 {
        sites
    } else {
        Vec::new()
    })
}

/// Whether a text is the name of a cause.
fn is_cause(text: &str) -> bool {
    text.strip_prefix('L')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Of all causes.
fn causes() -> LeaksQuery {
    LeaksQuery {
        suppressions: Suppression::shipped(),
        ..LeaksQuery::default()
    }
}

/// The graph that was asked for, or else the last whole one.
pub(super) fn chosen(
    name: Option<&str>,
    model: &Model<'_>,
    file: &Path,
) -> Result<(u32, Graph), CliError> {
    let all = model.heap_graphs();
    let empty = || {
        failed(
            "the heap graph is empty: nothing of it was told".into(),
            "take another: `leakline snapshot PID NAME --heap`",
        )
    };
    let Some(name) = name else {
        let last = read_last(file, all).map_err(|error| unopened(&error))?;
        return last.ok_or_else(empty);
    };
    let number: Option<u32> = name.parse().ok();
    let found = all
        .iter()
        .rev()
        .find(|graph| Some(graph.graph) == number || (number.is_none() && graph.name == name));
    let Some(found) = found else {
        let known: Vec<String> = all
            .iter()
            .map(|graph| format!("{} (`{}`)", graph.graph, graph.name))
            .collect();
        return Err(failed(
            format!("there is no heap graph `{name}`"),
            format!("there are {}", known.join(", ")),
        ));
    };
    let parts = read_parts(file, &[found.graph]).map_err(|error| unopened(&error))?;
    let graph = Graph::read(parts.into_values().next().unwrap_or_default());
    if graph.is_empty() {
        return Err(empty());
    }
    Ok((found.graph, graph))
}

fn read(number: u32, file: &Path) -> Result<Graph, CliError> {
    let parts = read_parts(file, &[number]).map_err(|error| unopened(&error))?;
    let parts = parts.into_values().next().unwrap_or_default();
    Ok(Graph::read(parts))
}

/// The first whole graph of the same process, if it is another one.
pub(super) fn earlier(
    number: u32,
    model: &Model<'_>,
    file: &Path,
) -> Result<Option<(u32, Heap)>, CliError> {
    let found = read_earlier(file, model, number);
    let found = found.map_err(|error| unopened(&error))?;
    Ok(found.map(|(number, graph)| (number, Heap::new(graph))))
}

/// What a text means that is no cause.
fn asked<'a>(
    text: &str,
    model: &Model<'a>,
    stacks: &mut Stacks<'a>,
    heap: &Heap,
) -> Result<Asked, CliError> {
    if let Some(digits) = text.strip_prefix("0x") {
        return match u64::from_str_radix(digits, 16) {
            Ok(address) => Ok(Asked::Address(address)),
            Err(_) => Err(CliError::Usage {
                message: format!("`{text}` is no address"),
                hint: None,
            }),
        };
    }
    if heap.has_type(text) {
        return Ok(Asked::Type(text.into()));
    }
    let sites = sites_named(model, stacks, text);
    if !sites.is_empty() {
        return Ok(Asked::Sites(sites));
    }
    if let Some(address) = heap.object_named(text) {
        return Ok(Asked::Address(address));
    }
    let types: Vec<String> = heap
        .largest_types(5)
        .into_iter()
        .map(|type_| format!("`{}`", type_.name))
        .collect();
    Err(failed(
        format!("no object, no place and no function is named `{text}`"),
        format!(
            "types that live are {}; places look like `app.py:41`, names like `app.cache.SESSIONS`",
            types.join(", ")
        ),
    ))
}
