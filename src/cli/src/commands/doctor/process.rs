//! What a process is, and what stands in the way of an attach to it.

use std::error::Error;
use std::io;

use leakline_analysis::report::{BOLD, DIM, Style, bytes, counted};
use leakline_collector::public_command;
use leakline_inject::inspect::{
    Delivery, Inspector, MemoryLimit, Namespace, Obstacle, Process, Program, Refused, Seccomp,
    Warning,
};
use serde_json::{Value, json};

use super::super::processes::{command, libc, python};
use super::machine::Machine;
use super::{Finding, Grade, Stops, things, wrapped};
use crate::error::plain;

/// A process, and what was found.
pub(super) struct Examined {
    process: Process,
    obstacles: Vec<Obstacle>,
    warnings: Vec<Warning>,
}

impl Examined {
    pub(super) fn new(process: Process, inspector: &mut Inspector) -> Examined {
        let mut obstacles = process.obstacles();
        if obstacles.is_empty() {
            obstacles.extend(process.forbidden());
        }
        Examined {
            obstacles,
            warnings: inspector.warnings(&process),
            process,
        }
    }

    fn findings(&self) -> impl Iterator<Item = Finding> {
        let pid = self.process.pid;
        let obstacles = self.obstacles.iter().map(move |obstacle| {
            let refused = Refused {
                pid,
                obstacle: obstacle.clone(),
            };
            Finding {
                grade: Grade::Stops(Stops::Attach),
                name: obstacle.word().into(),
                found: obstacle.to_string(),
                cause: refused.source().map(plain),
                mend: Some(refused.hint()),
            }
        });
        let warnings = self.warnings.iter().map(|warning| Finding {
            grade: match warning {
                Warning::OtherMounts { .. } => Grade::Note,
                _ => Grade::Poor,
            },
            name: warning.word().into(),
            found: warning.to_string(),
            cause: None,
            mend: warning.hint().map(Into::into),
        });
        obstacles.chain(warnings)
    }

    /// The answer, who it is, what stands in the way, and what was looked at.
    pub(super) fn write(
        &self,
        machine: &Machine,
        style: Style,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let process = &self.process;
        let pid = process.pid;
        let of_machine: Vec<&Finding> = machine.not_fine().collect();
        let stops = self.obstacles.len() + machine.stopping(Stops::Attach).count();
        let findings: Vec<Finding> = self.findings().collect();
        let poor = findings
            .iter()
            .chain(of_machine.iter().copied())
            .filter(|finding| finding.grade == Grade::Poor)
            .count();
        let answer = match (stops, poor) {
            (0, 0) => "CAN ATTACH: nothing stands in the way".into(),
            (0, poor) => format!("CAN ATTACH: {} could be better", things(poor)),
            (stops, _) => format!("CANNOT ATTACH: {} in the way", things(stops)),
        };
        style.wrapped(out, BOLD, 0, &answer)?;
        let who = format!(
            "{} (pid {pid}), {}",
            command(&process.arguments, &process.name),
            self.summary()
        );
        style.wrapped(out, DIM, 0, &who)?;
        writeln!(out)?;
        for finding in &findings {
            finding.write(style, out)?;
        }
        for finding in of_machine {
            finding.write(style, out)?;
        }
        let fine = Finding {
            grade: Grade::Fine,
            name: String::new(),
            found: self.fine(),
            cause: None,
            mend: None,
        };
        if !fine.found.is_empty() {
            fine.write(style, out)?;
        }
        writeln!(out)?;
        for (label, value) in self.facts() {
            /// Below it there is no room for columns.
            const NARROW: usize = 40;
            let (lead, indent) = if style.width < NARROW {
                (format!("{label}: "), 2)
            } else {
                (format!("{label:<11}"), 11)
            };
            wrapped(style, out, anstyle::Style::new(), &lead, indent, &value)?;
        }
        writeln!(out)?;
        // Never cut: it is there to be pasted.
        if stops == 0 {
            writeln!(out, "next: leakline attach {pid}")
        } else {
            writeln!(out, "next: leakline doctor {pid}")
        }
    }

    /// `CPython 3.12.1, glibc 2.36, 4 threads, RSS 421.3 MiB`.
    fn summary(&self) -> String {
        let process = &self.process;
        let mut parts = Vec::new();
        if let Some(program) = &process.program {
            parts.push(python(program).unwrap_or_else(|| "native".into()));
            parts.push(libc(program));
        }
        parts.push(process.state.words().into());
        parts.push(counted(process.threads.into(), "thread", "threads"));
        parts.push(format!("RSS {}", bytes(process.rss_bytes)));
        parts.join(", ")
    }

    /// What was looked at and stands in nobody's way.
    fn fine(&self) -> String {
        let process = &self.process;
        let mut parts: Vec<String> = Vec::new();
        if let Some(program) = &process.program {
            if program.obstacles().is_empty() {
                parts.push(format!(
                    "{}-bit {}, {}",
                    program.bits(),
                    program.machine(),
                    libc(program)
                ));
            }
            if program.sanitizer.is_none() {
                parts.push("no sanitizer".into());
            }
            if process.denied.is_none() {
                parts.push("ptrace is allowed".into());
            }
        }
        if process.tracer.is_none() {
            parts.push("nobody traces it".into());
        }
        if process.seccomp == Seccomp::Off {
            parts.push("no seccomp filter".into());
        } else if self.obstacles.is_empty() {
            parts.push("its seccomp filter allows what recording takes".into());
        }
        if !process.has_shadow_stack {
            parts.push("no shadow stack".into());
        }
        if process.program.is_none() {
            // Of what cannot be looked into, little is known to be fine.
            return String::new();
        }
        parts.join(", ")
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let process = &self.process;
        let mut facts = Vec::new();
        if let Some(program) = &process.program {
            let symbols = if program.has_symbols() {
                ""
            } else {
                ", stripped"
            };
            facts.push((
                "program",
                format!(
                    "{} ({}-bit {}{symbols})",
                    program.path.display(),
                    program.bits(),
                    program.machine()
                ),
            ));
            if let (Some(words), Some(at)) = (python(program), &program.python) {
                let place = if at.path == program.path {
                    "in the program itself".into()
                } else {
                    format!("in {}", at.path.display())
                };
                let embedded = if at.is_embedded { ", embedded" } else { "" };
                facts.push(("python", format!("{words}, {place}{embedded}")));
            }
            facts.push(("allocator", allocators(program)));
            if let Some(interposer) = &program.interposer {
                facts.push(("interposer", format!("loaded: {}", interposer.display())));
            }
        }
        if let Some(collector) = process.collector {
            facts.push(("recorded", format!("by collector {collector}")));
        }
        facts.push((
            "user",
            format!(
                "{}{}",
                process.user,
                if process.user == 0 { " (root)" } else { "" }
            ),
        ));
        let limit = process.memory_limit.map_or("no limit".into(), |limit| {
            format!(
                "limit {}, of which {} are left",
                bytes(limit.limit_bytes),
                bytes(limit.headroom_bytes())
            )
        });
        facts.push((
            "memory",
            format!("RSS {}; {limit}", bytes(process.rss_bytes)),
        ));
        let others = other_namespaces(process);
        if !others.is_empty() {
            let mut words = vec![format!("its own {}", others.join(", "))];
            if process.inner_pid != process.pid {
                words.push(format!("calls itself pid {}", process.inner_pid));
            }
            match process.delivery() {
                Ok(Delivery::Directory(place)) => {
                    words.push(format!("a library can be put into {}", place.display()));
                }
                Ok(Delivery::Memory) => {
                    words.push("a library can be put into its memory only".into());
                }
                Err(_) => {}
            }
            facts.push(("container", words.join("; ")));
        }
        facts
    }

    pub(super) fn json(&self, machine: &Machine) -> Value {
        let process = &self.process;
        let program = process.program.as_ref();
        let of_python = program.and_then(|program| program.python.as_ref());
        let all: Vec<Finding> = self.findings().collect();
        let of = |wanted: fn(Grade) -> bool| -> Vec<Value> {
            let some = all.iter().filter(|finding| wanted(finding.grade));
            some.map(Finding::json).collect()
        };
        let arguments = public_command(&process.arguments);
        let arguments = arguments
            .iter()
            .map(|word| leakline_analysis::escaped(word));
        json!({
            "pid": process.pid,
            "start_ticks": process.start_ticks,
            "inner_pid": process.inner_pid,
            "parent_pid": process.parent_pid,
            "name": process.name,
            "command": command(&process.arguments, &process.name),
            "arguments": arguments.collect::<Vec<_>>(),
            "state": process.state.words(),
            "user": process.user,
            "group": process.group,
            "threads": process.threads,
            "rss_bytes": process.rss_bytes,
            "attachable": self.obstacles.is_empty()
                && machine.stopping(Stops::Attach).next().is_none(),
            "obstacles": of(|grade| matches!(grade, Grade::Stops(_))),
            "warnings": of(|grade| !matches!(grade, Grade::Stops(_))),
            "program": program.map(|program| json!({
                "path": program.path.to_string_lossy(),
                "bits": program.bits(),
                "machine": program.machine(),
                "libc": libc(program),
                "stripped": !program.has_symbols(),
                "python": of_python.map(|python| &python.version.text),
                "python_path": of_python.map(|python| python.path.to_string_lossy()),
                "free_threaded": of_python.map(|python| python.version.is_free_threaded),
                "embedded": of_python.map(|python| python.is_embedded),
                "allocators": program.allocators.iter().map(|own| json!({
                    "name": own.allocator.name(),
                    "linked_in": own.is_linked_in,
                })).collect::<Vec<_>>(),
                "defines_malloc": program.defines_malloc,
                "sanitizer": program.sanitizer,
                "supervisor": program.supervisor,
                "interposer": program.interposer.as_ref().map(|path| path.to_string_lossy()),
            })),
            "recorded": process.collector.is_some(),
            "collector": process.collector,
            "tracer": process.tracer.as_ref().map(|tracer| json!({
                "pid": tracer.pid,
                "name": tracer.name,
            })),
            "seccomp": match process.seccomp {
                Seccomp::Off => "off",
                Seccomp::Strict => "strict",
                Seccomp::Filter => "filter",
            },
            "no_new_privileges": process.no_new_privileges,
            "shadow_stack": process.has_shadow_stack,
            "dumpable": process.is_dumpable,
            "frozen": process.is_frozen,
            "own_namespaces": other_namespaces(process),
            "memory_limit_bytes": process.memory_limit.map(|limit| limit.limit_bytes),
            "memory_headroom_bytes": process.memory_limit.map(MemoryLimit::headroom_bytes),
            "library_place": process.delivery().ok().map(|delivery| match delivery {
                Delivery::Directory(place) => place.to_string_lossy().into_owned(),
                Delivery::Memory => "memory".into(),
            }),
        })
    }
}

/// Which namespaces are other ones than ours.
fn other_namespaces(process: &Process) -> Vec<&'static str> {
    let of = &process.namespaces;
    [
        ("files", of.mount),
        ("pids", of.pid),
        ("users", of.user),
        ("network", of.network),
    ]
    .into_iter()
    .filter(|(_, namespace)| *namespace == Namespace::Other)
    .map(|(name, _)| name)
    .collect()
}

fn allocators(program: &Program) -> String {
    if program.allocators.is_empty() {
        return if program.defines_malloc {
            "one of its own, linked into the program".into()
        } else {
            "libc's".into()
        };
    }
    let words = program.allocators.iter().map(|own| {
        let place = if own.is_linked_in {
            "linked into the program"
        } else {
            "a shared library"
        };
        format!("{} ({place})", own.allocator.name())
    });
    words.collect::<Vec<_>>().join(", ")
}
