//! A recording without what is nobody else's business: for sharing.
//!
//! Replaced are paths, command lines, host, names of threads and of marks that
//! users set, source lines, build-ids, and what the recorder had to say in
//! words. Functions, lines, pids, times and figures stay.
//!
//! # Invariants
//!
//! * Whatever kind of record this version does not know is left out whole.
//! * A frame keeps its role: what was your code still is.
//! * Records keep their order and number, so instants and ids mean the same.
//! * Equal paths get equal tokens, numbered as they come: a recording that
//!   grew gives the same ones, and none tells anything of its path.

use leakline_recording::record::{
    Code, HeapGraph, HeapPart, Inventory, Ledger, Lost, LostSite, Mark, Module, Note, PageCost,
    Process, Record, Session, Source, SymbolFrame, Symbols, Thread,
};
use rustc_hash::FxHashMap;

use crate::frame::{Role, public_module, role_of_module, role_of_python};
use crate::instant::MAIN_LEFT;
use crate::ledger::INSIDE;
use crate::model::Origin;
use crate::names::{base_name, escaped};

/// In place of words.
const LEFT_OUT: &str = "[left out]";

/// The records to read in place of those that tell too much.
#[derive(Debug, Default)]
pub struct Redaction {
    replaced: FxHashMap<usize, Record>,
}

impl Redaction {
    /// Of `records`.
    pub(crate) fn new(records: &[Record]) -> Self {
        let mut tokens = Tokens::default();
        let replaced = records
            .iter()
            .enumerate()
            .filter_map(|(at, record)| Some((at, tokens.record(record)?)))
            .collect();
        Redaction { replaced }
    }

    /// What to read in place of the record at `at`.
    pub(crate) fn at<'r>(&'r self, at: usize, record: &'r Record) -> &'r Record {
        self.replaced.get(&at).unwrap_or(record)
    }

    /// What to say of the file.
    pub(crate) fn origin(origin: &Origin) -> Origin {
        Origin {
            file: "recording".into(),
            warnings: origin.warnings.iter().map(|_| LEFT_OUT.into()).collect(),
            ..origin.clone()
        }
    }
}

/// Numbers of what was met so far.
#[derive(Debug, Default)]
struct Tokens {
    files: FxHashMap<Vec<u8>, usize>,
    modules: FxHashMap<Vec<u8>, usize>,
    marks: FxHashMap<Vec<u8>, usize>,
}

/// The name of a code object that is called by its file and line, since its function
/// is not known: by those of `file`.
fn named_by_line(code: &Code, file: &str) -> Option<String> {
    let line = code.name.strip_prefix(base_name(&code.file))?;
    let is_line = line.is_empty() || line.starts_with(':');
    (is_line && !code.name.is_empty()).then(|| format!("{}{line}", base_name(file)))
}

impl Tokens {
    /// What a record becomes; `None` where it may stay.
    fn record(&mut self, record: &Record) -> Option<Record> {
        let program = || b"program".to_vec();
        Some(match record {
            Record::Node(_)
            | Record::Site(_)
            | Record::Bin(_)
            | Record::Peak(_)
            | Record::ProcessEnd(_)
            | Record::Sizes(_)
            | Record::Totals(_)
            | Record::ThreadTotals(_)
            | Record::Loss(_)
            | Record::End(_)
            | Record::Inherited(_)
            | Record::Cohorts(_)
            | Record::Sampling(_)
            | Record::Limits(_)
            | Record::Scatter(_) => return None,
            // A graph is names for the most part: what is left says that there was one.
            Record::HeapGraph(graph) => Record::HeapGraph(HeapGraph {
                name: self.mark(&graph.name),
                ..graph.clone()
            }),
            Record::Lost(lost) => Record::Lost(Lost {
                name: self.mark(&lost.name),
                why: if lost.why.is_empty() {
                    String::new()
                } else {
                    LEFT_OUT.into()
                },
                sites: lost
                    .sites
                    .iter()
                    .map(|site| LostSite {
                        examples: Vec::new(),
                        ..site.clone()
                    })
                    .collect(),
                ..lost.clone()
            }),
            Record::Ledger(ledger) => Record::Ledger(Ledger {
                name: self.look(&ledger.name),
                largest_file: ledger
                    .largest_file
                    .as_ref()
                    .map(|(_, bytes)| (LEFT_OUT.into(), *bytes)),
                // The allocator's name stays, the library's that it is linked into not.
                allocators: ledger
                    .allocators
                    .iter()
                    .map(|(name, private, shared)| {
                        let name = match name.split_once(INSIDE) {
                            Some((name, _)) => format!("{name}{INSIDE}{LEFT_OUT}"),
                            None => name.clone(),
                        };
                        (name, *private, *shared)
                    })
                    .collect(),
                not_read: if ledger.not_read.is_empty() {
                    String::new()
                } else {
                    LEFT_OUT.into()
                },
                ..ledger.clone()
            }),
            // Names of types say what a program does: how much there was stays.
            Record::Inventory(inventory) => Record::Inventory(Inventory {
                name: self.look(&inventory.name),
                types: Vec::new(),
                others: inventory.types.iter().fold(inventory.others, |sum, one| {
                    (
                        sum.0 + 1,
                        sum.1.saturating_add(one.objects),
                        sum.2.saturating_add(one.bytes),
                    )
                }),
                ..*inventory
            }),
            Record::PageCost(cost) => Record::PageCost(PageCost {
                name: self.look(&cost.name),
                ..cost.clone()
            }),
            Record::HeapPart(part) => Record::HeapPart(HeapPart {
                graph: part.graph,
                entries: Vec::new(),
                sites: Vec::new(),
            }),
            Record::Session(session) => Record::Session(Session {
                command: vec![program()],
                host: String::new(),
                ..session.clone()
            }),
            Record::Process(process) => Record::Process(Process {
                executable: program(),
                command: vec![program()],
                ..process.clone()
            }),
            Record::Thread(thread) => Record::Thread(Thread {
                name: String::new(),
                ..thread.clone()
            }),
            Record::Module(module) => Record::Module(Module {
                path: self.module(&module.path).into_bytes(),
                build_id: Vec::new(),
            }),
            Record::Code(code) => {
                let file = self.python_file(&code.file);
                Record::Code(Code {
                    name: named_by_line(code, &file).unwrap_or_else(|| code.name.clone()),
                    file,
                    ..code.clone()
                })
            }
            Record::Symbols(symbols) => Record::Symbols(self.symbols(symbols)),
            Record::Mark(mark) => Record::Mark(Mark {
                name: self.mark(&mark.name),
                ..mark.clone()
            }),
            Record::Source(source) => Record::Source(Source {
                file: self.python_file(&source.file),
                lines: Vec::new(),
            }),
            Record::Note(note) => Record::Note(Note {
                text: LEFT_OUT.into(),
                ..note.clone()
            }),
            // Of a later version: what it holds is not known.
            _ => Record::Note(Note {
                text: LEFT_OUT.into(),
                at_ns: 0,
            }),
        })
    }

    fn symbols(&mut self, symbols: &Symbols) -> Symbols {
        let mut frame = |frame: &SymbolFrame| SymbolFrame {
            file: self.native_file(&frame.file),
            ..frame.clone()
        };
        Symbols {
            module: symbols.module,
            addresses: symbols
                .addresses
                .iter()
                .map(|(address, frames)| (*address, frames.iter().map(&mut frame).collect()))
                .collect(),
            note: symbols.note.as_ref().map(|_| LEFT_OUT.into()),
        }
    }

    fn mark(&mut self, name: &str) -> String {
        if ["python ready", MAIN_LEFT, "exiting"].contains(&name) {
            return name.into();
        }
        format!("mark {}", number(&mut self.marks, name.as_bytes()))
    }

    /// Why memory was looked at: leakline's own reasons stay.
    fn look(&mut self, name: &str) -> String {
        if ["", "start", "end"].contains(&name) {
            return name.into();
        }
        self.mark(name)
    }

    /// A directory that gives the token the role of the path.
    fn python_file(&mut self, path: &str) -> String {
        const NO_FILES: [&str; 12] = [
            "",
            "<string>",
            "<stdin>",
            "<frozen abc>",
            "<frozen codecs>",
            "<frozen importlib._bootstrap>",
            "<frozen importlib._bootstrap_external>",
            "<frozen io>",
            "<frozen os>",
            "<frozen runpy>",
            "<frozen site>",
            "<frozen zipimport>",
        ];
        if NO_FILES.contains(&path) {
            return path.into();
        }
        let directory = match role_of_python(path) {
            Role::Library => "/site-packages/",
            Role::Standard => "/lib/python3/",
            _ => "",
        };
        format!(
            "{directory}file{}.py",
            number(&mut self.files, path.as_bytes())
        )
    }

    fn native_file(&mut self, path: &str) -> String {
        const ENDINGS: [&str; 9] = ["c", "cc", "cpp", "cxx", "h", "hpp", "rs", "py", "pyx"];
        if path.is_empty() {
            return String::new();
        }
        let is_standard = path.starts_with("/rustc/")
            || path.contains("/rustlib/src/rust/library/")
            || path.contains("/include/c++/");
        let directory = if is_standard { "/include/c++/" } else { "" };
        let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
        let dot = if ENDINGS.contains(&ending) { "." } else { "" };
        let ending = if dot.is_empty() { "" } else { ending };
        format!(
            "{directory}file{}{dot}{ending}",
            number(&mut self.files, path.as_bytes())
        )
    }

    fn module(&mut self, path: &[u8]) -> String {
        let text = escaped(path);
        if text.is_empty() {
            return String::new();
        }
        if let Some(public) = public_module(&text) {
            return public.into();
        }
        let number = number(&mut self.modules, path);
        match role_of_module(&text) {
            Role::Standard => format!("/lib-dynload/module{number}.so"),
            Role::Library => format!("/site-packages/module{number}.so"),
            _ => format!("module{number}"),
        }
    }
}

/// The number of a text: that it was given before, or the next.
fn number(numbers: &mut FxHashMap<Vec<u8>, usize>, text: &[u8]) -> usize {
    if let Some(&known) = numbers.get(text) {
        return known;
    }
    let next = numbers.len() + 1;
    numbers.insert(text.to_vec(), next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{By, HeapBuilder, origin, training};
    use crate::{Model, Span, Stacks};

    #[test]
    fn nothing_that_was_replaced_is_left() {
        let mut records = training();
        records.push(Record::Note(Note {
            at_ns: 0,
            text: "cannot read /srv/secret".into(),
        }));
        let redaction = Redaction::new(&records);
        let redacted: Vec<&Record> = records
            .iter()
            .enumerate()
            .map(|(at, record)| redaction.at(at, record))
            .collect();
        assert_eq!(redacted.len(), records.len());
        let text = format!("{redacted:?}");
        // Paths are bytes in records.
        let bytes = |text: &str| format!("{:?}", text.as_bytes()).replace(['[', ']'], "");
        for secret in [
            "train.py",
            "srv",
            "fastparse/",
            "loader",
            "secret",
            "history",
            "decoder.py",
        ] {
            assert!(!text.contains(secret), "{secret}");
            assert!(!text.contains(&bytes(secret)), "{secret}");
        }
        // As would be found, were it there.
        assert!(format!("{records:?}").contains(&bytes("train.py")));
        assert!(text.contains("Trainer.epoch"));
    }

    #[test]
    fn keys_of_dicts_are_left_out() {
        let mut b = HeapBuilder::new();
        let module = b.module("app");
        let (dict, value) = (b.node("dict", 232), b.node("list", 56));
        b.edge(module, By::Named("CACHE"), dict);
        b.keyed(dict, "user-42", value);
        let records: Vec<Record> = b.parts(1).into_iter().map(Record::HeapPart).collect();
        let redaction = Redaction::new(&records);
        let bytes = |record: &Record| match record {
            Record::HeapPart(part) => part.entries.clone(),
            other => panic!("{other:?}"),
        };
        let has = |bytes: &[u8]| bytes.windows(7).any(|part| part == b"user-42");
        assert!(records.iter().any(|record| has(&bytes(record))));
        for (at, record) in records.iter().enumerate() {
            assert!(bytes(redaction.at(at, record)).is_empty());
        }
    }

    #[test]
    fn frames_keep_their_roles_and_sites_their_figures() {
        let records = training();
        let model = Model::new(&records, origin());
        let redaction = model.redaction();
        let redacted = model.redacted(&redaction);
        let span = Span::usual(&model);
        assert_eq!(span, Span::usual(&redacted));
        assert_eq!(model.figures(&span), redacted.figures(&span));
        let (mut stacks, mut others) = (Stacks::new(&model), Stacks::new(&redacted));
        for site in model.sites() {
            let stack = stacks.stack(&model, site.node);
            let other = others.stack(&redacted, site.node);
            assert_eq!(stack.len(), other.len());
            for (&id, &other) in stack.iter().zip(&other) {
                let (frame, other) = (stacks.frame(id), others.frame(other));
                assert_eq!((frame.role, frame.kind), (other.role, other.kind));
                assert_eq!(frame.line, other.line);
            }
        }
        assert_eq!(redacted.target(), "program");
        assert_eq!(redacted.origin().file, "recording");
    }

    #[test]
    fn what_is_called_by_its_line_is_called_by_its_token() {
        let mut tokens = Tokens::default();
        let mut named = |file: &str, name: &str| {
            let record = tokens.record(&Record::Code(Code {
                file: file.into(),
                name: name.into(),
                first_line: 7,
                lines: Vec::new(),
            }));
            match record {
                Some(Record::Code(code)) => (code.file, code.name),
                other => panic!("{other:?}"),
            }
        };
        let token = |name: &str| ("file1.py".to_owned(), name.to_owned());
        assert_eq!(named("/srv/secret.py", "secret.py:7"), token("file1.py:7"));
        assert_eq!(named("/srv/secret.py", "secret.py"), token("file1.py"));
        assert_eq!(named("/srv/secret.py", "secret"), token("secret"));
    }

    #[test]
    fn equal_paths_have_equal_tokens() {
        let mut tokens = Tokens::default();
        let first = tokens.python_file("/srv/app/views.py");
        assert_eq!(first, "file1.py");
        assert_ne!(tokens.python_file("/srv/other/views.py"), first);
        assert_eq!(tokens.python_file("/srv/app/views.py"), first);
        assert_eq!(tokens.native_file("/srv/app/views.py"), first);
        assert_eq!(tokens.native_file("/home/me/a.secret"), "file3");
        assert_eq!(tokens.module(b"/lib/libc.so.6"), "libc.so");
        assert_eq!(tokens.module(b"/opt/me/python3.11"), "python");
        assert_eq!(tokens.module(b"/home/me/tool"), "module1");
        assert_eq!(tokens.mark("main left"), "main left");
        assert_eq!(tokens.mark("deploy of secret"), "mark 1");
    }
}
