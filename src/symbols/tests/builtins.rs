//! Stripped extension modules: functions are named as Python calls them.
//! Needs `gcc`, `nm` and `strip`, but no Python: the tables are plain data.
#![expect(clippy::unwrap_used, reason = "a test")]

use leakline_symbols::{ModuleFile, Symbolized, Symbolizer};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The shapes of CPython's tables. `helper` and `unlisted` are in none.
const MODULE: &str = r#"
#include <stdlib.h>
#define OWN static __attribute__((noinline, noclone))
typedef struct object object;
typedef object *(*function)(object *, object *);
struct method { const char *name; function run; int flags; const char *doc; };
struct base { long references; void *type; void *init; long index; void *copy; };
struct definition { struct base base; const char *name, *doc; long size; struct method *methods;
                    void *slots, *traverse, *clear, *free; };
struct slot { int id; void *value; };
struct spec { const char *name; int basic, item; unsigned flags; struct slot *slots; };
struct type { long references; void *type; long size; const char *name; long basic, item;
              void *before_call[10]; function call; void *before_flags[4]; long flags;
              void *before_methods[7]; struct method *methods; void *after[12]; };
extern object *PyModule_Create2(struct definition *, int);

OWN void *helper(long n) { return malloc(n + 1); }
OWN object *parse(object *self, object *args) { return (object *)((char *)helper((long)args) + 1); }
OWN object *scan(object *self, object *args) { return (object *)((char *)malloc((long)args) + 2); }
OWN object *shared(object *self, object *args) { return (object *)((char *)malloc((long)args) + 3); }
OWN object *unlisted(object *self, object *args) { return (object *)((char *)malloc((long)args) + 4); }
OWN object *call(object *self, object *args) { return (object *)((char *)malloc((long)args) + 5); }
OWN object *feed(object *self, object *args) { return (object *)((char *)malloc((long)args) + 6); }
OWN object *size(object *self, object *args) { return (object *)((char *)malloc((long)args) + 7); }
OWN object *alone(object *self, object *args) { return (object *)((char *)malloc((long)args) + 8); }
OWN object *odd(object *self, object *args) { return (object *)((char *)malloc((long)args) + 9); }

static struct method of_module[] = {
    {"parse", parse, 0x1, "parse(text)"}, {"scan", scan, 0x82, 0},
    {"parse_again", parse, 0x8 | 0x20, 0}, {0, 0, 0, 0}};
static struct definition definition = {{1}, "fastparse", "Parses.", -1, of_module};
static struct method of_parser[] = {{"feed", feed, 0x8, 0}, {"shared", shared, 0x4 | 0x10, 0}, {0, 0, 0, 0}};
static struct slot slots[] = {{50, call}, {64, of_parser}, {0, 0}};
struct spec spec = {"fastparse.Parser", 32, 0, 0x400, slots};
static struct method of_token[] = {{"size", size, 0x4, 0}, {0, 0, 0, 0}};
struct type token = {1, 0, 0, "fastparse.Token", 24, 0, {0}, call, {0}, 0, {0}, of_token};
/* As Cython has them: one by one. */
struct method by_itself = {"alone", alone, 0x3, 0};
/* Not methods: no such flags, no identifier, no function's start. */
struct method wrong_flags = {"odd", odd, 0x7000, 0};
struct method wrong_name = {"not a name", odd, 0x1, 0};
struct method wrong_place = {"inside", (function)((char *)odd + 1), 0x1, 0};
object *PyInit_fastparse(void) { return PyModule_Create2(&definition, 1013); }
void *keep(object *a) { return unlisted(a, a); }
"#;

const FUNCTIONS: [&str; 10] = [
    "helper", "parse", "scan", "shared", "unlisted", "call", "feed", "size", "alone", "odd",
];

fn run(directory: &Path, command: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", command])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

struct Module {
    _directory: TempDir,
    path: PathBuf,
    /// Start and end, as `FUNCTIONS`.
    ranges: Vec<(u64, u64)>,
}

/// Builds the module; `more` is done to it after its symbols were read.
fn module(options: &str, more: &str) -> Module {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("fastparse.c"), MODULE).unwrap();
    let name = "fastparse.cpython-311-x86_64-linux-gnu.so";
    run(
        directory.path(),
        &format!("gcc -O2 -shared -fPIC -fno-toplevel-reorder {options} -o {name} fastparse.c"),
    );
    let list = run(directory.path(), &format!("nm -S {name}"));
    let ranges = FUNCTIONS
        .iter()
        .map(|function| {
            let line = list
                .lines()
                .find(|line| line.ends_with(&format!(" {function}")));
            let numbers: Vec<u64> = line
                .unwrap()
                .split(' ')
                .map_while(|word| u64::from_str_radix(word, 16).ok())
                .collect();
            (numbers[0], numbers[0] + numbers[1])
        })
        .collect();
    run(directory.path(), &format!("NAME={name}\n{more}"));
    let path = directory.path().join(name);
    Module {
        _directory: directory,
        path,
        ranges,
    }
}

impl Module {
    fn look_up(&self, addresses: &[u64]) -> Symbolized {
        let module = ModuleFile {
            path: &self.path,
            build_id: &[],
        };
        Symbolizer::new().symbolize(&module, addresses)
    }

    /// Name and distance beyond at a function's last byte.
    fn name(&self, function: &str) -> (String, u32) {
        let at = FUNCTIONS.iter().position(|&one| one == function).unwrap();
        let found = self.look_up(&[self.ranges[at].1 - 1]);
        let frame = &found.frames[0][0];
        (frame.function.clone(), frame.beyond)
    }
}

fn check_names(module: &Module) {
    for (function, name) in [
        ("parse", "fastparse.parse (builtin)"),
        ("scan", "fastparse.scan (builtin)"),
        ("feed", "fastparse.Parser.feed (builtin)"),
        ("shared", "fastparse.Parser.shared (builtin)"),
        ("call", "fastparse.Parser.__call__ (builtin)"),
        ("size", "fastparse.Token.size (builtin)"),
        ("alone", "fastparse.alone (builtin)"),
    ] {
        assert_eq!(module.name(function), (name.to_owned(), 0), "{function}");
    }
}

#[test]
fn a_stripped_module_has_the_names_that_python_knows() {
    let module = module("", "strip $NAME");
    check_names(&module);
    let whole: Vec<u64> = (module.ranges[1].0..module.ranges[1].1).collect();
    let found = module.look_up(&whole);
    assert_eq!(found.note, None);
    let is_parse = |frames: &Vec<leakline_symbols::Frame>| {
        frames.len() == 1 && frames[0].function == "fastparse.parse (builtin)"
    };
    assert!(found.frames.iter().all(is_parse), "{found:?}");
}

#[test]
fn what_is_in_no_table_gets_the_nearest_name_of_either_kind() {
    let module = module("", "strip $NAME");
    let distance = |function: usize, from: usize| {
        u32::try_from(module.ranges[function].1 - 1 - module.ranges[from].0).unwrap()
    };
    assert_eq!(
        module.name("unlisted"),
        ("fastparse.Parser.shared (builtin)".into(), distance(4, 3))
    );
    assert_eq!(
        module.name("odd"),
        ("fastparse.alone (builtin)".into(), distance(9, 8)),
        "what only looks like a table is none"
    );
    // Before the first name of either kind.
    assert_eq!(module.look_up(&[module.ranges[0].0]).frames, [[]]);
    let note = module.look_up(&[module.ranges[4].0]).note.unwrap();
    assert!(note.contains("nearest"), "{note}");
}

#[test]
fn pointers_may_be_packed_or_stand_in_the_file() {
    // Packed relocations leave the addresses in place.
    check_names(&module("-Wl,-z,pack-relative-relocs", "strip $NAME"));
}

#[test]
fn pointers_may_be_known_to_relocations_only() {
    let module = module("", "strip $NAME");
    let directory = module.path.parent().unwrap();
    let name = module.path.file_name().unwrap().to_str().unwrap();
    let hex = |word: &str| u64::from_str_radix(word, 16).unwrap();
    let sections = run(directory, &format!("readelf -SW {name} | tr -d '[]'"));
    // Address and place in the file of what is written to when it is loaded.
    let written: Vec<(u64, u64, u64)> = sections
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(2) == Some(&"PROGBITS") && words.get(7) == Some(&"WA"))
        .map(|words| (hex(words[3]), hex(words[4]), hex(words[5])))
        .collect();
    let mut bytes = fs::read(&module.path).unwrap();
    let mut wiped = 0;
    for line in run(directory, &format!("readelf -rW {name}")).lines() {
        let Some((address, _)) = line.split_once(' ').filter(|_| line.contains("_RELATIVE")) else {
            continue;
        };
        let address = hex(address);
        for &(start, offset, size) in &written {
            if (start..start + size).contains(&address) {
                let at = usize::try_from(address - start + offset).unwrap();
                bytes[at..at + 8].fill(0);
                wiped += 1;
            }
        }
    }
    assert!(wiped > 20, "{wiped}: {sections}");
    fs::write(&module.path, bytes).unwrap();
    check_names(&module);
}

#[test]
fn a_function_with_a_symbol_keeps_it() {
    let module = module("", "");
    assert_eq!(module.name("parse"), ("parse".into(), 0));
    assert_eq!(module.name("unlisted"), ("unlisted".into(), 0));
}

#[test]
fn a_library_that_is_not_pythons_is_left_alone() {
    let module = module(
        "-DPyModule_Create2=create -DPyInit_fastparse=init",
        "strip $NAME",
    );
    let starts: Vec<u64> = module.ranges.iter().map(|range| range.0).collect();
    let found = module.look_up(&starts);
    let names = found.frames.iter().flatten();
    assert_eq!(
        names
            .filter(|frame| frame.function.contains("builtin"))
            .count(),
        0
    );
}

#[test]
fn a_damaged_module_never_panics() {
    let module = module("", "strip $NAME");
    let whole = fs::read(&module.path).unwrap();
    let addresses: Vec<u64> = module.ranges.iter().map(|range| range.0).collect();
    let mut state = 1_u64;
    for round in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..=round % 20 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        fs::write(&module.path, &bytes).unwrap();
        assert_eq!(module.look_up(&addresses).frames.len(), addresses.len());
    }
}
