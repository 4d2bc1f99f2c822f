//! The injector dies at each of its steps.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

use leakline_inject::injection::{Error, Options, Step, load, load_from_memory};

use crate::programs_in_python;
use crate::support::{Place, Target};

/// Not a test: the injector that [`inject_and_die`] starts in a process of its
/// own, which is this program again.
#[test]
#[ignore = "started by other tests"]
fn injector() {
    let pid = std::env::var("INJECT_INTO").unwrap().parse().unwrap();
    let library = std::env::var_os("INJECT").unwrap();
    let library = std::ffi::CString::new(library.as_bytes()).unwrap();
    let mut options = Options::default();
    options.fault = Some(std::env::var("LEAKLINE_FAULT").unwrap().parse().unwrap());
    if std::env::var_os("INJECT_FROM_MEMORY").is_some() {
        let bytes = std::fs::read(library.to_str().unwrap()).unwrap();
        load_from_memory(pid, c"leakline/library.so", &bytes, &options).unwrap();
    } else {
        load(pid, &library, &options).unwrap();
    }
}

fn inject_and_die(place: &Place, target: &Target, step: Step, from_memory: bool) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults::injector", "--ignored"])
        .env("INJECT_INTO", target.pid().to_string())
        .env("INJECT", place.path("library.so"))
        .env("LEAKLINE_FAULT", format!("{step:?}"))
        .envs(from_memory.then_some(("INJECT_FROM_MEMORY", "1")))
        .output()
        .unwrap()
        .status
}

/// Goes through all steps, some at a time; how many there are on this way.
/// The program ends by itself, unless it has to be stopped.
fn die_at_each_step(
    start: &(dyn Fn(&Place) -> Target + Sync),
    is_stopped: bool,
    from_memory: bool,
    check: &(dyn Fn(&str) + Sync),
) -> usize {
    const AT_A_TIME: usize = 5;
    let place = Place::new();
    let try_step = &|step| {
        let target = start(&place);
        let status = inject_and_die(&place, &target, step, from_memory);
        // A way that does not come by this step ends well.
        assert!(status.success() || status.signal() == Some(9), "{status}");
        // What it began may go on for a moment.
        thread::sleep(Duration::from_millis(20));
        // One that was loaded from memory is another one.
        if !(from_memory && status.success()) {
            match target.load(&place) {
                Ok(_) | Err(Error::AlreadyLoaded) => {}
                Err(error) => panic!("{step:?}: {error}"),
            }
            target.call(&place, "tell", "called").unwrap();
        }
        if is_stopped {
            target.signal("USR1");
        }
        let (text, marks) = target.end();
        check(&text);
        let expected = if from_memory && status.success() {
            "loaded\n"
        } else {
            "loaded\ncalled\n"
        };
        assert_eq!(marks, expected, "{step:?}");
        usize::from(!status.success())
    };
    // Its program is compiled by the first that starts it.
    let (first, others) = Step::ALL.split_first().unwrap();
    let mut killed = try_step(*first);
    for steps in others.chunks(AT_A_TIME) {
        killed += thread::scope(|scope| {
            let tries: Vec<_> = steps
                .iter()
                .map(|&step| scope.spawn(move || try_step(step)))
                .collect();
            tries
                .into_iter()
                .map(|tried| tried.join().unwrap())
                .sum::<usize>()
        });
    }
    killed
}

#[test]
fn with_a_thread_that_waits() {
    for (way, from_memory) in [("poll", false), ("epoll_wait", false), ("poll", true)] {
        let killed = die_at_each_step(
            &|place| {
                let target = place.start("waits.c", &[way]);
                target.wait_for_state('S');
                target
            },
            false,
            from_memory,
            &|text| {
                let expected = if way == "poll" { "0 0 " } else { "1 0 " };
                assert!(text.starts_with(expected), "{text}");
            },
        );
        // All but that of a text.
        assert_eq!(killed, Step::ALL.len() - 1);
    }
}

#[test]
fn with_a_thread_that_is_busy() {
    let start = |place: &Place| place.start("vectors.c", &[]);
    let killed = die_at_each_step(&start, true, false, &|text| {
        assert!(text.starts_with("right"), "{text}");
    });
    assert_eq!(killed, 10 - 1);
}

#[test]
fn with_python() {
    let start = |place: &Place| programs_in_python::start(place, "busy");
    for from_memory in [false, true] {
        let check = |text: &str| assert_eq!(text, "good\n");
        let killed = die_at_each_step(&start, true, from_memory, &check);
        assert_eq!(killed, 10);
    }
}
