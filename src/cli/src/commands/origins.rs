//! `leakline __origins`: where objects of a heap graph were made, as JSON that names each
//! frame once. Not for people.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::report::{Input, Output, report_with_file};
use super::why::chosen;
use crate::CliError;

/// Where objects were made. Their addresses come on stdin, a hexadecimal number a line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recording
    file: PathBuf,
    /// The heap graph, by its name or number
    #[arg(long)]
    graph: String,
}

/// Writes it to stdout: for each line null where no object is there, and a null `stack` where
/// it is not known where the object was made.
pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    report_with_file(
        &Input::new(Some(args.file.clone()), true),
        |model, stacks, file, output| {
            let (Output::Json(out) | Output::Text(out, _)) = output;
            let (_, graph) = chosen(Some(&args.graph), model, file)?;
            let mut frames: Vec<Value> = Vec::new();
            let mut numbers = HashMap::new();
            let mut objects: Vec<Value> = Vec::new();
            for line in std::io::stdin().lock().lines() {
                let line = line.unwrap_or_default();
                let address = u64::from_str_radix(line.trim().trim_start_matches("0x"), 16);
                let Some(node) = address.ok().and_then(|address| graph.at(address)) else {
                    objects.push(Value::Null);
                    continue;
                };
                let site = graph.site(node);
                let site = site.and_then(|site| model.sites().get(site as usize));
                let stack: Option<Vec<usize>> = site.map(|site| {
                    let ids = stacks.stack(model, site.node);
                    let number = |id| {
                        *numbers.entry(id).or_insert_with(|| {
                            let frame = stacks.frame(id);
                            frames.push(json!({
                                "function": stacks.name(frame.function),
                                "file": stacks.name(frame.file),
                                "line": frame.line,
                                "module": stacks.name(frame.module),
                                "kind": frame.kind.name(),
                            }));
                            frames.len() - 1
                        })
                    };
                    ids.into_iter().map(number).collect()
                });
                objects.push(json!({
                    "type": graph.type_name(node),
                    "bytes": graph.bytes(node),
                    "domain": site.map(|site| site.domain.name()),
                    "stack": stack,
                }));
            }
            let answer = json!({ "frames": frames, "objects": objects });
            writeln!(out, "{answer}").map_err(CliError::Output)
        },
    )
}
