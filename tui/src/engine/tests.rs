//! The engine over a real file.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use leakline_analysis::GroupBy;
use leakline_recording::Writer;
use leakline_recording::record::{Note, Record, Sampling};

use super::{Said, Store, start};
use crate::state::data::{
    Answer, Column, Content, Facts, GroupName, LedgerWant, Moment, Subject, Table, TableWant, Want,
};
use crate::testing::{SECOND, records};

struct Engine {
    wants: Sender<Want>,
    said: Receiver<Said>,
    writer: Writer,
    _directory: tempfile::TempDir,
}

fn engine(records: &[Record]) -> Engine {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.leakline");
    let mut writer = Writer::new(File::create(&path).unwrap()).unwrap();
    records
        .iter()
        .cloned()
        .for_each(|record| writer.push(record));
    writer.flush().unwrap();
    let (say, said) = channel();
    let store = Store::open(&path).unwrap();
    let wants = start(store, |_| 0, |_| false, move |what| drop(say.send(what))).unwrap();
    Engine {
        wants,
        said,
        writer,
        _directory: directory,
    }
}

impl Engine {
    fn next(&self) -> Said {
        self.said.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn facts(&self) -> Arc<Facts> {
        loop {
            if let Said::Facts(facts) = self.next() {
                return facts;
            }
        }
    }

    fn ask(&self, moment: Moment, subject: Subject) -> Answer {
        let want = Want { moment, subject };
        self.wants.send(want.clone()).unwrap();
        self.answer_to(&want)
    }

    fn answer_to(&self, want: &Want) -> Answer {
        loop {
            if let Said::Answer(answer) = self.next()
                && answer.want == *want
            {
                return *answer;
            }
        }
    }
}

fn rows(answer: &Answer) -> Vec<(String, i64, i64)> {
    let (Content::Table(table) | Content::Overview(table, _)) = &answer.content else {
        panic!("no table: {answer:?}");
    };
    let table: &Table = table;
    let rows = table.rows.iter().map(|row| {
        let name = format!("{:?}", table.groups[row.group as usize].name);
        let function = ["burst", "grow", "<module>"]
            .into_iter()
            .find(|function| name.contains(&format!("function: \"{function}\"")));
        let figures = row.figures;
        (
            function.unwrap_or(&name).to_owned(),
            figures.live_bytes,
            figures.delta_bytes,
        )
    });
    rows.collect()
}

#[test]
fn answers_are_of_the_instant_asked_for() {
    let engine = engine(&records());
    let facts = engine.facts();
    assert_eq!(facts.program, "python grow.py");
    assert_eq!(facts.times.len(), 10);
    assert!(facts.ended);

    let at = |second: u64, subject| engine.ask(Moment::At(second * SECOND), subject);
    let end = engine.ask(Moment::End, Subject::Overview(LedgerWant::default()));
    assert_eq!(end.sum.live_bytes, 10 * 1024);
    assert_eq!(rows(&end)[0].0, "grow");
    let middle = at(5, Subject::Table(TableWant::default()));
    assert_eq!(middle.at.ns, 5 * SECOND);
    let burst = 100 << 10;
    let expected = [("burst", burst), ("grow", 5 << 10)].map(|(name, bytes)| (name, bytes, bytes));
    let found = rows(&middle);
    assert!(
        found
            .iter()
            .map(|(n, l, d)| (n.as_str(), *l, *d))
            .eq(expected)
    );

    let only = TableWant {
        filter: "gro*".into(),
        ..TableWant::default()
    };
    assert_eq!(rows(&at(5, Subject::Table(only))).len(), 1);
    let inclusive = TableWant {
        by: GroupBy::Function,
        inclusive: true,
        ..TableWant::default()
    };
    let found = rows(&at(5, Subject::Table(inclusive)));
    assert_eq!(found[0].0, "<module>");
    assert_eq!(found[0].1, burst + (5 << 10));
}

#[test]
fn a_diff_has_its_instants_in_order() {
    let engine = engine(&records());
    let table = TableWant {
        sort: Column::Growth,
        ..TableWant::default()
    };
    let from = Moment::At(5 * SECOND);
    let want = Subject::Diff(from, table.clone());
    let answer = engine.ask(Moment::At(8 * SECOND), want);
    let expected = vec![
        ("grow".to_owned(), 8 << 10, 3 << 10),
        ("burst".to_owned(), 0, -(100 << 10)),
    ];
    assert_eq!(rows(&answer), expected);
    // The other way round it is the same span.
    let answer = engine.ask(from, Subject::Diff(Moment::At(8 * SECOND), table));
    assert_eq!(rows(&answer), expected);
    assert_eq!(answer.from.unwrap().ns, 5 * SECOND);
}

#[test]
fn calls_source_stack_and_processes() {
    let engine = engine(&records());
    for inverted in [false, true] {
        let Content::Calls(tree) = engine
            .ask(Moment::Usual, Subject::Calls { inverted })
            .content
        else {
            panic!("no calls");
        };
        let names: Vec<&str> = tree
            .calls
            .iter()
            .map(|call| &*call.frame.function)
            .collect();
        let expected = if inverted {
            ["grow", "<module>"]
        } else {
            ["<module>", "grow"]
        };
        assert_eq!(names, expected);
        assert_eq!(tree.bytes, 10 << 10);
    }
    let Content::Source(text) = engine.ask(Moment::Usual, Subject::Source(None)).content else {
        panic!("no source");
    };
    assert_eq!(text.file.as_deref(), Some("/nowhere/grow.py"));
    let line = text.lines.iter().find(|line| line.line == 11).unwrap();
    assert_eq!(line.text.as_deref(), Some("    KEEP.append(x)"));
    assert_eq!(line.own.live_bytes, 10 << 10);
    let Content::Stack(frames) = engine.ask(Moment::Usual, Subject::Stack(0)).content else {
        panic!("no stack");
    };
    assert_eq!(frames.len(), 2);
    let Content::Processes(all) = engine.ask(Moment::Usual, Subject::Processes).content else {
        panic!("no processes");
    };
    assert_eq!((all[0].0.live_bytes, all[0].1), (10 << 10, Some(30 << 20)));
}

#[test]
fn a_recording_that_goes_on_is_followed() {
    let all = records();
    let bins = all
        .iter()
        .position(|record| matches!(record, Record::Bin(_)))
        .unwrap();
    let (some, more) = all.split_at(bins + 3);
    let mut engine = engine(some);
    let facts = engine.facts();
    assert!(!facts.ended && facts.growing);
    let want = Want {
        moment: Moment::Usual,
        subject: Subject::Overview(LedgerWant::default()),
    };
    let first = engine.ask(want.moment, want.subject.clone());
    assert_eq!(first.sum.live_bytes, 3 << 10);
    more.iter()
        .cloned()
        .for_each(|record| engine.writer.push(record));
    engine.writer.flush().unwrap();
    // Asked once, answered anew.
    loop {
        let answer = engine.answer_to(&want);
        if answer.sum.live_bytes == 10 << 10 {
            break;
        }
    }
}

#[test]
fn the_mean_is_the_newest() {
    let mean_after = |means: &[u64]| {
        let mut all = records();
        let at = all.len() - 1;
        for (number, &mean_bytes) in means.iter().enumerate() {
            let at_ns = SECOND * (number as u64 + 1);
            all.insert(
                at + number,
                Record::Sampling(Sampling { at_ns, mean_bytes }),
            );
        }
        let facts = engine(&all).facts();
        (facts.mode.clone(), facts.sample_bytes)
    };
    assert_eq!(mean_after(&[]), ("exact".to_owned(), 0));
    assert_eq!(mean_after(&[512, 64]), ("sampled".to_owned(), 64));
    assert_eq!(mean_after(&[512, 0]), ("exact".to_owned(), 0));
}

/// It was read anew over and over, and never judged.
#[test]
fn a_recording_to_which_something_is_always_added_is_judged() {
    let records = records();
    let (_, all_but_the_end) = records.split_last().unwrap();
    let mut engine = engine(all_but_the_end);
    engine.facts();
    let began = Instant::now();
    loop {
        engine.writer.push(Record::Note(Note {
            at_ns: 10 * SECOND,
            text: "it goes on".into(),
        }));
        engine.writer.flush().unwrap();
        let said = engine.said.recv_timeout(Duration::from_millis(10));
        if matches!(said, Ok(Said::Verdicts(_))) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn rows_are_in_the_order_of_their_names() {
    let engine = engine(&records());
    for by in [
        GroupBy::Site,
        GroupBy::Line,
        GroupBy::Function,
        GroupBy::File,
    ] {
        for ascending in [false, true] {
            let table = TableWant {
                by,
                sort: Column::Name,
                ascending,
                ..TableWant::default()
            };
            let answer = engine.ask(Moment::At(5 * SECOND), Subject::Table(table));
            let Content::Table(table) = &answer.content else {
                panic!("no table: {answer:?}");
            };
            let names = table.rows.iter().map(|row| {
                let name = &table.groups[row.group as usize].name;
                match name {
                    GroupName::Line(frame) => frame.place.to_string(),
                    GroupName::Site(frame) | GroupName::Function(frame) => {
                        frame.function.to_string()
                    }
                    GroupName::Text(text) => text.to_string(),
                    other => panic!("{other:?}"),
                }
            });
            let names: Vec<String> = names.collect();
            let mut sorted = names.clone();
            sorted.sort();
            if ascending {
                sorted.reverse();
            }
            assert_eq!(names, sorted, "{by:?}");
            assert!(by == GroupBy::File || names.len() > 1, "{by:?}");
        }
    }
}
