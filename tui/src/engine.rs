//! Answers what screens want to know, in a thread of its own.
//!
//! The thread holds the recording. It is sent one [`Want`] after the other,
//! answers the newest, and answers it anew when the file has grown.
//!
//! # Invariants
//!
//! * What is the same at every instant (names, groups, calls) is made once for
//!   what was read of the file, and when first wanted.
//! * An answer tells the question, so that a late one is known as such.

mod answers;
mod heaps;
mod store;
#[cfg(test)]
mod tests;
mod why;

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use leakline_analysis::{Model, Origin, escaped};
use leakline_recording::record::Record;
use leakline_recording::{OpenError, Reader};

use crate::state::data::{Answer, Facts, Subject, Verdicts, Want};
use answers::{Answers, about_heap};
use heaps::Heaps;
pub(crate) use store::Store;

/// What the engine says.
#[derive(Debug)]
pub(crate) enum Said {
    /// So many of so many bytes were read.
    Progress(u64, u64),
    /// The recording as a whole, as far as a glance through it tells.
    Skimmed(Arc<Facts>),
    /// The recording as a whole.
    Facts(Arc<Facts>),
    /// What leaks, and what only looks like it.
    Verdicts(Arc<Verdicts>),
    /// An answer.
    Answer(Box<Answer>),
    /// The file cannot be read any more.
    Failed(OpenError),
}

/// Seconds east of UTC at an instant, in nanoseconds since 1970.
pub(crate) type UtcOffset = fn(u64) -> i32;

/// Whether somebody is writing a recording.
pub(crate) type IsWritten = fn(&Path) -> bool;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Files that are larger are skimmed beside being read.
const LARGE_BYTES: u64 = 1 << 20;
/// What was skimmed by then is shown, and then again after twice as long.
const FIRST_GLANCE: Duration = Duration::from_millis(100);
/// Sites of a recording that grows are judged this often.
const PAUSE_OF_JUDGE: Duration = Duration::from_secs(10);
/// A recording goes on if something came within this, or somebody writes it.
const GOES_ON: Duration = Duration::from_secs(5);

/// Starts the thread. It ends when the sender of wants is dropped.
pub(crate) fn start(
    store: Store,
    utc_offset: UtcOffset,
    is_written: IsWritten,
    say: impl Fn(Said) + Send + Sync + 'static,
) -> std::io::Result<Sender<Want>> {
    let (wants, inbox) = channel();
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || work(store, utc_offset, is_written, &inbox, &say))?;
    Ok(wants)
}

fn work(
    mut store: Store,
    utc_offset: UtcOffset,
    is_written: IsWritten,
    inbox: &Receiver<Want>,
    say: &(dyn Fn(Said) + Sync),
) {
    let mut want: Option<Want> = None;
    let mut grown = Instant::now();
    // When sites may be judged again.
    let mut judge_at = Instant::now();
    let mut first = true;
    let mut heaps = Heaps::new(store.path());
    loop {
        let began = Instant::now();
        let mut progress = |read, bytes| {
            if first {
                say(Said::Progress(read, bytes));
            }
        };
        let read = if first && store.bytes_there() > LARGE_BYTES {
            let path = store.path().to_owned();
            thread::scope(|scope| {
                // The curve first: sites take seconds.
                scope.spawn(move || skim(&path, utc_offset, say));
                store.refresh(&mut progress)
            })
        } else {
            store.refresh(&mut progress)
        };
        if let Err(error) = read {
            say(Said::Failed(error));
            return;
        }
        first = false;
        let model = model_of(&store, utc_offset);
        let mut growing = !store.ended() && grown.elapsed() < GOES_ON;
        say(Said::Facts(Arc::new(
            Answers::without_sites(&model).facts(growing),
        )));
        let mut answers = Answers::new(&model);
        want = want.map(|want| answer(&mut answers, &mut heaps, want, inbox, say));
        // Reading anew may take long, where there is much: then not so often.
        let read_at = Instant::now() + LOOK.max(began.elapsed() * 5);
        let is_over = thread::scope(|scope| {
            let mut look = Instant::now() + LOOK;
            let mut judged = false;
            let mut judge: Option<ScopedJoinHandle<'_, Duration>> = None;
            loop {
                match inbox.recv_timeout(look.saturating_duration_since(Instant::now())) {
                    Ok(next) => {
                        let newest = inbox.try_iter().last().unwrap_or(next);
                        want = Some(answer(&mut answers, &mut heaps, newest, inbox, say));
                    }
                    Err(RecvTimeoutError::Disconnected) => return true,
                    Err(RecvTimeoutError::Timeout) => {
                        look = Instant::now() + LOOK;
                        if let Some(over) = judge.take_if(|judge| judge.is_finished()) {
                            let took = over.join().unwrap_or_else(|bug| resume_unwind(bug));
                            // It must not take much of the time.
                            judge_at = Instant::now() + PAUSE_OF_JUDGE.max(took * 3);
                        }
                        // Before anything is read anew: a recording to which something
                        // is always added would never be judged.
                        if judge.is_none() && !judged && Instant::now() >= judge_at {
                            judged = true;
                            let model = &model;
                            // Beside what keys ask for: it may take seconds.
                            judge = Some(scope.spawn(move || {
                                let began = Instant::now();
                                work_behind();
                                if let Some(verdicts) = Answers::without_sites(model).verdicts() {
                                    say(Said::Verdicts(Arc::new(verdicts)));
                                }
                                began.elapsed()
                            }));
                        }
                        // The thread has the model: until it is done nothing is read, and
                        // keys have their answers from what there is.
                        let may_read = judge.is_none() && Instant::now() >= read_at;
                        if may_read && store.has_more() {
                            grown = Instant::now();
                            return false;
                        }
                        // A program that does nothing adds nothing.
                        if growing && grown.elapsed() >= GOES_ON && is_written(store.path()) {
                            grown = Instant::now();
                        }
                        if growing && grown.elapsed() >= GOES_ON {
                            growing = false;
                            say(Said::Facts(Arc::new(answers.facts(false))));
                        }
                    }
                }
            }
        });
        if is_over {
            return;
        }
    }
}

/// What this thread does can wait for what keys ask for.
fn work_behind() {
    // On Linux a thread has a priority of its own. Where this is refused it is none.
    let thread = rustix::thread::gettid();
    let _ = rustix::process::setpriority_process(Some(thread), 10);
}

/// Tells what the recording is, as it becomes known.
fn skim(path: &Path, utc_offset: UtcOffset, say: &(dyn Fn(Said) + Sync)) {
    // Whoever reads it says what is wrong with it.
    let Ok(mut reader) = Reader::open(path) else {
        return;
    };
    let began = Instant::now();
    let mut next = FIRST_GLANCE;
    let mut records = Vec::new();
    let tell = |records: &[Record]| {
        let origin = Origin {
            file: escaped(path.as_os_str().as_encoded_bytes()).into_owned(),
            utc_offset_seconds: utc_offset(started(records)),
            ..Origin::default()
        };
        let model = Model::new(records, origin);
        let facts = Answers::without_sites(&model).facts(false);
        say(Said::Skimmed(Arc::new(facts)));
    };
    let skimmed = reader.skim(&mut |record| {
        records.push(record);
        if began.elapsed() >= next {
            next = began.elapsed() * 2;
            tell(&records);
        }
    });
    if skimmed.is_ok() {
        tell(&records);
    }
}

/// When a recording began, nanoseconds since 1970.
fn started(records: &[Record]) -> u64 {
    let session = records.iter().find_map(|record| match record {
        Record::Session(session) => Some(session.started_unix_ns),
        _ => None,
    });
    session.unwrap_or(0)
}

/// Answers, and then adds what takes longer, unless something else is wanted
/// meanwhile: then that is answered. Gives what was answered last.
fn answer(
    answers: &mut Answers<'_, '_>,
    heaps: &mut Heaps,
    mut want: Want,
    inbox: &Receiver<Want>,
    say: &(dyn Fn(Said) + Sync),
) -> Want {
    loop {
        if let Subject::Why(asked) = &want.subject {
            let reading = |graph, objects| {
                let so_far = why::reading(graph, objects);
                say(Said::Answer(Box::new(about_heap(&want, so_far))));
            };
            if let Err(error) = heaps.read(answers.model, asked.graph, &reading) {
                // The rest of the recording can still be shown.
                let none = why::failed(error.to_string());
                say(Said::Answer(Box::new(about_heap(&want, none))));
                return want;
            }
        }
        let answer = answers.answer(&want, heaps);
        let lacks_trends = answers.lacks_trends(&want);
        say(Said::Answer(Box::new(answer)));
        if !lacks_trends {
            return want;
        }
        // A moment for whoever goes on at once.
        thread::sleep(Duration::from_millis(20));
        let Some(newest) = inbox.try_iter().last() else {
            answers.make_trends(&want);
            say(Said::Answer(Box::new(answers.answer(&want, heaps))));
            return want;
        };
        want = newest;
    }
}

fn model_of(store: &Store, utc_offset: UtcOffset) -> Model<'_> {
    let origin = Origin {
        file: escaped(store.path().as_os_str().as_encoded_bytes()).into_owned(),
        implied: false,
        file_bytes: store.file_bytes(),
        ended: store.ended(),
        is_live: false,
        warnings: store.warnings(),
        utc_offset_seconds: utc_offset(started(store.contents().records())),
    };
    Model::of(store.contents(), origin)
}
