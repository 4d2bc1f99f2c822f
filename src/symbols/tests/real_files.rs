//! Against files as compilers and distributions make them. Needs `g++`,
//! `objcopy`, `strip`, `nm` and `xz`.
#![expect(clippy::unwrap_used, reason = "a test")]

use leakline_symbols::{Frame, ModuleFile, Symbolized, Symbolizer, build_id};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Line numbers matter below.
const PROGRAM: &str = r#"#include <cstdlib>
namespace shop {
struct Cart {
    static inline __attribute__((always_inline)) void *twice(std::size_t n) { return std::malloc(n * 2); }
    static inline __attribute__((always_inline)) void *grow(std::size_t n) {
        return twice(n); }
    __attribute__((noinline)) void *add(int item);
};
void *Cart::add(int item) {
    void *block = grow(item);
    if (!block) std::abort();
    return block;
}
}
extern "C" __attribute__((visibility("default"))) void *exported(int n) {
    shop::Cart cart;
    return static_cast<char *>(cart.add(n)) + 1;
}
static __attribute__((noinline, noclone)) int hidden(volatile int *p) { return *p + *p; }
extern "C" __attribute__((visibility("default"))) int later(volatile int *p) { return hidden(p) + 1; }
"#;

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

/// Builds the program as a library; the directory and the library.
fn library(options: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("shop.cpp"), PROGRAM).unwrap();
    run(
        directory.path(),
        &format!(
            "g++ -g -O2 -shared -fPIC -fvisibility=hidden -Wl,--build-id {options} -o libshop.so shop.cpp"
        ),
    );
    let library = directory.path().join("libshop.so");
    (directory, library)
}

/// Start and end of a function, by its mangled name.
fn range(directory: &Path, library: &str, name: &str) -> (u64, u64) {
    let list = run(directory, &format!("nm -S {library}; nm -DS {library}"));
    let line = list
        .lines()
        .find(|line| line.ends_with(&format!(" {name}")))
        .unwrap();
    let numbers: Vec<_> = line
        .split(' ')
        .map_while(|word| u64::from_str_radix(word, 16).ok())
        .collect();
    (numbers[0], numbers[0] + numbers[1])
}

/// Looks up every byte from `start` to `end`.
fn symbolize(path: &Path, (start, end): (u64, u64)) -> Symbolized {
    let addresses: Vec<_> = (start..end).collect();
    let id = build_id(path).unwrap().unwrap();
    Symbolizer::new().symbolize(
        &ModuleFile {
            path,
            build_id: &id,
        },
        &addresses,
    )
}

const ADD: &str = "_ZN4shop4Cart3addEi";

#[test]
fn inlined_functions_come_innermost_first_with_their_lines() {
    let (directory, library) = library("");
    let found = symbolize(&library, range(directory.path(), "libshop.so", ADD));
    assert_eq!(found.note, None);
    let file = directory
        .path()
        .join("shop.cpp")
        .to_string_lossy()
        .into_owned();
    let at = |name: &str| {
        let frames = found
            .frames
            .iter()
            .find(|frames| frames[0].function.contains(name))
            .unwrap();
        let frames = frames
            .iter()
            .inspect(|frame| assert_eq!((&frame.file, frame.beyond), (&file, 0)));
        frames
            .map(|frame| (frame.function.as_str(), frame.line, frame.inlined))
            .collect::<Vec<_>>()
    };
    assert_eq!(at("add"), [("shop::Cart::add(int)", 10, false)]);
    let inlined = at("twice");
    assert!(inlined[1].0.contains("grow"), "{inlined:?}");
    assert_eq!(inlined[2], ("shop::Cart::add(int)", 10, false));
    assert_eq!(
        inlined.iter().map(|frame| frame.1).collect::<Vec<_>>(),
        [4, 6, 10]
    );
    assert!(inlined[0].2 && inlined[1].2);
}

#[test]
fn a_separate_debug_file_is_found_and_a_wrong_one_costs_only_lines() {
    let (directory, library) = library("");
    let add = range(directory.path(), "libshop.so", ADD);
    run(
        directory.path(),
        "objcopy --only-keep-debug libshop.so libshop.debug
         strip libshop.so
         objcopy --add-gnu-debuglink=libshop.debug libshop.so",
    );
    let found = symbolize(&library, add);
    assert_eq!(found.note, None);
    assert_eq!(found.frames[0][0].function, "shop::Cart::add(int)");
    assert!((9..=12).contains(&found.frames[0][0].line), "{found:?}");

    run(directory.path(), "echo more >> libshop.debug");
    let exported = range(directory.path(), "libshop.so", "exported");
    let found = symbolize(&library, exported);
    assert_eq!(found.frames[0][0].function, "exported");
    assert_eq!(found.frames[0][0].line, 0);
    assert!(found.note.unwrap().starts_with("no lines"));
}

#[test]
fn an_enormous_file_gives_names_without_lines() {
    let (directory, library) = library("");
    let exported = range(directory.path(), "libshop.so", "exported");
    fs::OpenOptions::new()
        .write(true)
        .open(&library)
        .unwrap()
        .set_len(3 << 30)
        .unwrap();
    let found = symbolize(&library, exported);
    assert_eq!(
        (
            found.frames[0][0].function.as_str(),
            found.frames[0][0].line
        ),
        ("exported", 0)
    );
    assert!(found.note.unwrap().starts_with("no lines"));
}

#[test]
fn a_stripped_library_gives_the_nearest_name_and_the_distance() {
    // `hidden` comes right after an exported function, or far from any.
    let (directory, library) = library("-fno-toplevel-reorder");
    let hidden = range(directory.path(), "libshop.so", "_ZL6hiddenPVi");
    let exported = range(directory.path(), "libshop.so", "exported");
    run(directory.path(), "strip libshop.so");
    let found = symbolize(&library, exported);
    assert!(
        found
            .frames
            .iter()
            .all(|frames| frames[0].function == "exported")
    );
    assert!(found.frames.iter().all(|frames| frames[0].beyond == 0));
    assert_eq!(found.note, None);

    let found = symbolize(&library, hidden);
    let first = Frame {
        function: "exported".into(),
        beyond: u32::try_from(hidden.0 - exported.0).unwrap(),
        ..Frame::default()
    };
    assert!(hidden.0 > exported.1 - 1);
    assert_eq!(found.frames[0], [first]);
    assert!(found.note.unwrap().contains("nearest"));
}

#[test]
fn an_address_outside_of_all_code_has_no_name() {
    let (_directory, library) = library("");
    let found = symbolize(&library, (0, 1));
    assert_eq!(found.frames, [[]]);
    let far = Symbolizer::new().symbolize(
        &ModuleFile {
            path: &library,
            build_id: &[],
        },
        &[u64::MAX, 1 << 40],
    );
    assert_eq!(far.frames, [[], []]);
}

#[test]
fn a_file_that_is_not_the_one_loaded_gives_no_names() {
    let (directory, library) = library("");
    let add = range(directory.path(), "libshop.so", ADD);
    let mut symbolizer = Symbolizer::new();
    let id = build_id(&library).unwrap().unwrap();
    assert_eq!(id.len(), 20);
    let module = ModuleFile {
        path: &library,
        build_id: &id,
    };
    assert_eq!(symbolizer.symbolize(&module, &[add.0]).note, None);

    // Rebuilt in place of the old one, while it was known.
    run(
        directory.path(),
        "sed -i 's/n \\* 2/n * 3/' shop.cpp
         g++ -g -O2 -shared -fPIC -fvisibility=hidden -Wl,--build-id -o new.so shop.cpp && mv new.so libshop.so",
    );
    let found = symbolizer.symbolize(&module, &[add.0]);
    assert_eq!(found.frames, [[]]);
    assert_eq!(
        found.note.unwrap(),
        "no names: it was replaced since it was loaded"
    );
}

#[test]
fn a_new_build_in_place_of_a_known_one_is_read_anew() {
    let (directory, library) = library("");
    let mut symbolizer = Symbolizer::new();
    let mut name = |symbol: &str| {
        let (start, _) = range(directory.path(), "libshop.so", symbol);
        let id = build_id(&library).unwrap().unwrap();
        let found = symbolizer.symbolize(
            &ModuleFile {
                path: &library,
                build_id: &id,
            },
            &[start],
        );
        found.frames[0][0].function.clone()
    };
    assert_eq!(name("exported"), "exported");
    run(
        directory.path(),
        "sed -i s/exported/imported/ shop.cpp
         g++ -g -O2 -shared -fPIC -fvisibility=hidden -Wl,--build-id -o new.so shop.cpp && mv new.so libshop.so",
    );
    assert_eq!(name("imported"), "imported");
}

#[test]
fn the_end_of_one_section_is_not_near_the_start_of_the_next() {
    let (directory, library) = library("");
    run(directory.path(), "strip libshop.so");
    let sections = run(directory.path(), "readelf -SW libshop.so");
    let fini = sections
        .lines()
        .find(|line| line.contains(" .fini "))
        .unwrap();
    let address = fini
        .split_whitespace()
        .find(|word| word.len() == 16)
        .unwrap();
    let address = u64::from_str_radix(address, 16).unwrap();
    assert_eq!(symbolize(&library, (address, address + 1)).frames, [[]]);
}

#[test]
fn what_is_no_elf_file_gives_a_note_and_no_names() {
    let directory = tempfile::tempdir().unwrap();
    let note = |path: &Path| {
        let found = Symbolizer::new().symbolize(
            &ModuleFile {
                path,
                build_id: &[],
            },
            &[1, 2],
        );
        assert_eq!(found.frames, [[], []]);
        found.note.unwrap()
    };
    assert_eq!(
        note(Path::new("linux-vdso.so.1")),
        "no names: there is no such file"
    );
    assert_eq!(
        note(Path::new("/dev/null")),
        "no names: it is no regular file"
    );
    assert_eq!(note(directory.path()), "no names: it is no regular file");
    let text = directory.path().join("text");
    fs::write(&text, "hello").unwrap();
    assert!(note(&text).starts_with("no names: it cannot be read"));
}

#[test]
fn a_damaged_library_never_panics() {
    let (directory, library) = library("");
    let add = range(directory.path(), "libshop.so", ADD);
    let whole = fs::read(&library).unwrap();
    let mut state = 1u64;
    for i in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..=i % 20 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        if i % 4 == 0 {
            bytes.truncate((state >> 30) as usize % whole.len());
        }
        fs::write(&library, &bytes).unwrap();
        let addresses: Vec<_> = (add.0..add.1).collect();
        let found = Symbolizer::new().symbolize(
            &ModuleFile {
                path: &library,
                build_id: &[],
            },
            &addresses,
        );
        assert_eq!(found.frames.len(), addresses.len());
    }
}

#[test]
fn libc_names_malloc() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let path = PathBuf::from(
        path.into_iter()
            .find(|path| path.contains("libc.so"))
            .unwrap(),
    );
    let malloc = range(
        Path::new("/"),
        path.to_str().unwrap(),
        "malloc@@GLIBC_2.2.5",
    );
    let found = symbolize(&path, (malloc.0, malloc.0 + 1));
    assert!(found.frames[0][0].function.contains("malloc"), "{found:?}");
}

#[test]
fn what_was_read_can_be_forgotten() {
    let (directory, library) = library("");
    let (start, _) = range(directory.path(), "libshop.so", ADD);
    let mut symbolizer = Symbolizer::new();
    let module = ModuleFile {
        path: &library,
        build_id: &[],
    };
    let mapped = || {
        fs::read_to_string("/proc/self/maps")
            .unwrap()
            .contains("libshop.so")
    };
    symbolizer.symbolize(&module, &[start]);
    assert!(mapped());
    symbolizer.forget(&library);
    assert!(!mapped());
    assert!(!symbolizer.symbolize(&module, &[start]).frames[0].is_empty());
}

#[test]
fn a_file_that_is_cut_short_while_it_is_known_does_no_harm() {
    let (directory, library) = library("");
    let add = range(directory.path(), "libshop.so", ADD);
    let mut symbolizer = Symbolizer::new();
    let module = ModuleFile {
        path: &library,
        build_id: &[],
    };
    let mut look_up = || symbolizer.symbolize(&module, &[add.0]).frames[0].clone();
    assert_eq!(look_up()[0].line, 10);
    // No page that is still to be read comes from the file itself.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(library.to_str().unwrap()), "{maps}");
    let bytes = fs::metadata(&library).unwrap().len();
    let modified = fs::metadata(&library).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&library).unwrap();
    file.set_len(0).unwrap();
    file.set_len(bytes).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(look_up(), [], "what it is now has no names");
}

/// As Fedora makes it: the symbols that a strip takes, without the others.
const PACK_SYMBOLS: &str = "
    nm -D libshop.so --format=posix --defined-only | cut -d' ' -f1 | sort > dynamic
    nm libshop.so --format=posix --defined-only | grep -i ' t ' | cut -d' ' -f1 | sort > all
    comm -13 dynamic all > own
    objcopy --only-keep-debug libshop.so symbols
    objcopy -S --remove-section .gdb_index --remove-section .comment --keep-symbols=own symbols
    strip libshop.so";

#[test]
fn symbols_that_a_stripped_file_carries_packed_are_found() {
    let (directory, library) = library("-fno-toplevel-reorder");
    let hidden = range(directory.path(), "libshop.so", "_ZL6hiddenPVi");
    let add = range(directory.path(), "libshop.so", ADD);
    let exported = range(directory.path(), "libshop.so", "exported");
    run(
        directory.path(),
        &format!(
            "{PACK_SYMBOLS}
            xz --check=crc32 symbols
            objcopy --add-section .gnu_debugdata=symbols.xz libshop.so"
        ),
    );
    for (range, name) in [
        (hidden, "hidden(int volatile*)"),
        (add, "shop::Cart::add(int)"),
        (exported, "exported"),
    ] {
        let found = symbolize(&library, range);
        assert_eq!(found.note, None, "{name}");
        let names = found.frames.iter().map(|frames| &frames[0]);
        let names: Vec<_> = names
            .map(|frame| (&*frame.function, frame.beyond))
            .collect();
        assert!(names.iter().all(|&found| found == (name, 0)), "{names:?}");
    }
}

#[test]
fn a_file_with_packed_symbols_finds_its_debug_file_too() {
    for place in ["libshop.debug", ".debug/libshop.debug"] {
        let (directory, library) = library("");
        let add = range(directory.path(), "libshop.so", ADD);
        run(
            directory.path(),
            &format!(
                "mkdir .debug
                objcopy --only-keep-debug libshop.so {place}
                {PACK_SYMBOLS}
                xz --check=crc32 symbols
                objcopy --add-section .gnu_debugdata=symbols.xz libshop.so
                objcopy --add-gnu-debuglink={place} libshop.so"
            ),
        );
        let found = symbolize(&library, add);
        assert_eq!(found.note, None);
        assert_eq!(found.frames[0][0].function, "shop::Cart::add(int)");
        assert!((9..=12).contains(&found.frames[0][0].line), "{found:?}");
    }
}

#[test]
fn packed_symbols_that_cannot_be_unpacked_are_as_none() {
    let (directory, library) = library("-fno-toplevel-reorder");
    let hidden = range(directory.path(), "libshop.so", "_ZL6hiddenPVi");
    // Larger than will be unpacked, damaged, and no ELF file.
    for packed in [
        "head -c 100000000 /dev/zero | xz -1",
        "head -c 3000 symbols | xz | head -c 200",
        "echo hello | xz",
        "echo hello",
    ] {
        let found = {
            let copy = tempfile::tempdir().unwrap();
            run(
                directory.path(),
                &format!("cp libshop.so {}", copy.path().display()),
            );
            run(
                copy.path(),
                &format!(
                    "{PACK_SYMBOLS}
                    ({packed}) > symbols.xz
                    objcopy --add-section .gnu_debugdata=symbols.xz libshop.so"
                ),
            );
            symbolize(&copy.path().join("libshop.so"), hidden)
        };
        assert_eq!(found.frames[0][0].function, "exported", "{packed}");
        assert!(found.note.unwrap().contains("nearest"));
    }
    drop(library);
}
