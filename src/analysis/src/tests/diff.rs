//! Diffs over hand-made recordings, and what is the same in two of them.

use insta::assert_snapshot;
use leakline_recording::record::{Domain, Record};
use proptest::prelude::*;

use super::{MIB, report, styled};
use crate::report::json::DiffSide;
use crate::report::{json, text};
use crate::testing::{Builder, SECOND, counters, origin, training};
use crate::*;

fn query(by: GroupBy) -> DiffQuery {
    DiffQuery {
        by,
        sort: None,
        unit: Unit::Bytes,
        limit: None,
        filter: None,
    }
}

fn show(width: usize, by: GroupBy, limit: usize) -> String {
    report(&training(), |model, stacks, out| {
        let span = Span::since(model, &Instant::After(60 * SECOND)).unwrap();
        let query = DiffQuery {
            limit: Some(limit),
            ..query(by)
        };
        let diff = Diff::within(model, stacks, span, query);
        let after = DiffSide {
            model,
            stacks,
            span: &span,
        };
        text::diff(None, &after, &diff, styled(width), out)
    })
}

#[test]
fn a_diff_says_what_grew_and_what_shrank() {
    assert_snapshot!(show(80, GroupBy::Site, 15), @r#"
    live memory fell by 184.0 MiB (+1,583 blocks) from +1 min 00 s until the main
          thread left __main__: 2 sites grew by 21.0 MiB, 1 is new with 4.0 KiB, 1
          shrank by 5.0 MiB, 1 is gone with 200.0 MiB
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:14:20-22:16:31, the nearest recorded (every 59.0 s)

        change  blocks     before     after          made in
    -200.0 MiB    -100  200.0 MiB       0 B    gone  load_batch app/train.py:57
     +20.0 MiB  +2,000   10.0 MiB  30.0 MiB    grew  Trainer.epoch app/train.py:43
      -5.0 MiB  -4,999    5.0 MiB     512 B  shrank  JSONDec~_decode json/de~.py:353
      +1.0 MiB  +4,681    1.0 MiB   2.0 MiB    grew  grow src/arena.h:12
      +4.0 KiB      +1        0 B   4.0 KiB     new  fastparse.so+0x4fff

    next: leakline tree --from start train.4121.leakline   (who called)
          leakline diff --survivors --from start train.4121.leakline
    "#);
    assert_snapshot!(show(120, GroupBy::File, 2), @r#"
    live memory fell by 184.0 MiB (+1,583 blocks) from +1 min 00 s until the main thread left __main__: 1 file grew by 1.0
          MiB, 1 is new with 4.0 KiB, 2 shrank by 185.0 MiB
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:14:20-22:16:31, the nearest recorded (every 59.0 s)

        change  blocks     before     after          file
    -180.0 MiB  +1,900  210.0 MiB  30.0 MiB  shrank  /srv/app/train.py
      -5.0 MiB  -4,999    5.0 MiB     512 B  shrank  /usr/lib/python3.11/json/decoder.py
      +1.0 MiB  +4,682                               rest: 2 files

    next: leakline tree --from start train.4121.leakline   (who called)
          leakline diff --survivors --from start train.4121.leakline   (what stayed of what was born)
    "#);
}

/// A function of a program: name, first line, and the lines that allocate, with
/// their text and bytes.
type Function<'t> = (&'t str, u32, &'t [(u32, &'t str, u64)]);

/// A program whose `main` calls functions that call themselves once.
fn program(file: &str, functions: &[Function<'_>]) -> Vec<Record> {
    let mut b = Builder::new(&["app"]);
    let process = b.process(10, &["app"]);
    let main = b.code(file, "main", 1);
    let main = b.python(0, main, 2, true);
    let mut sites = Vec::new();
    for (name, first_line, lines) in functions {
        let code = b.code(file, name, *first_line);
        let outer = b.python(main, code, 0, false);
        for (line, text, bytes) in *lines {
            let inner = b.python(outer, code, *line, false);
            let site = b.site(process, inner, Domain::Obj);
            b.source(file, &[(first_line + line, text)]);
            sites.push((site, counters(*bytes, 1, *bytes, 1)));
        }
    }
    b.bin(SECOND, &sites);
    b.process_end(process, SECOND, Some(0));
    b.end(SECOND);
    b.records
}

/// Change, function, line, growth, and how it was matched.
type Shown = (Change, String, u32, i64, Option<Matched>);

fn across(before: &[Record], after: &[Record], by: GroupBy) -> (Diff, Vec<Shown>) {
    let (one, other) = (Model::new(before, origin()), Model::new(after, origin()));
    let (mut stacks, mut others) = (Stacks::new(&one), Stacks::new(&other));
    let diff = Diff::across(
        &mut Side {
            model: &one,
            stacks: &mut stacks,
            span: Span::usual(&one),
        },
        &mut Side {
            model: &other,
            stacks: &mut others,
            span: Span::usual(&other),
        },
        query(by),
    );
    let shown = diff.rows.iter().map(|row| {
        let is_before = row.change == Change::Gone && row.was.is_none();
        let stacks = if is_before { &stacks } else { &others };
        let frame = stacks.frame(row.row.head.made_in.unwrap());
        (
            row.change,
            stacks.name(frame.function).to_owned(),
            frame.line,
            row.row.figures.delta_bytes,
            row.matched,
        )
    });
    let shown = shown.collect();
    (diff, shown)
}

#[test]
fn lines_that_moved_are_told_apart_by_their_text() {
    let before = program(
        "/srv/app.py",
        &[("f", 10, &[(1, "a()", 100), (2, "b()", 200)])],
    );
    // A line more before each: the second stands where the first stood.
    let after = program(
        "/srv/app.py",
        &[(
            "f",
            10,
            &[(2, "a()", 110), (3, "new()", 7), (4, "b()", 220)],
        )],
    );
    let (_, rows) = across(&before, &after, GroupBy::Site);
    let lines = Some(Matched::Lines);
    assert_eq!(
        rows,
        [
            (Change::Grew, "f".into(), 14, 20, lines),
            (Change::Grew, "f".into(), 12, 10, lines),
            (Change::New, "f".into(), 13, 7, None),
        ]
    );
}

#[test]
fn a_renamed_function_is_the_same_though_it_calls_itself() {
    let before = program(
        "/srv/app.py",
        &[("f", 10, &[(1, "a()", 100)]), ("g", 20, &[(1, "b()", 200)])],
    );
    let after = program(
        "/srv/app.py",
        &[("h", 30, &[(1, "a()", 150)]), ("g", 40, &[(1, "b()", 200)])],
    );
    for by in [GroupBy::Site, GroupBy::Function, GroupBy::Line] {
        let (diff, rows) = across(&before, &after, by);
        assert_eq!(diff.renames.len(), 1, "{by:?}");
        let renamed = &diff.renames[0];
        assert_eq!((renamed.from.as_str(), renamed.to.as_str()), ("f", "h"));
        let matched = Some(Matched::Function);
        assert_eq!(
            rows,
            [(Change::Grew, "h".into(), 31, 50, matched)],
            "{by:?}"
        );
        assert_eq!(diff.unchanged, 1, "{by:?}");
    }
}

#[test]
fn functions_that_only_look_alike_are_not_the_same() {
    // One went and another came, in another file.
    let before = program("/srv/app.py", &[("f", 10, &[(1, "a()", 100)])]);
    let after = program("/srv/other.py", &[("h", 10, &[(1, "a()", 100)])]);
    let (diff, rows) = across(&before, &after, GroupBy::Site);
    assert!(diff.renames.is_empty() && diff.moves.is_empty());
    let changes: Vec<Change> = rows.iter().map(|row| row.0).collect();
    assert_eq!(changes, [Change::New, Change::Gone]);
}

#[test]
fn a_moved_file_is_the_same() {
    let before = program("/srv/v1/app/x.py", &[("f", 10, &[(1, "a()", 100)])]);
    let after = program("/opt/v2/app/x.py", &[("f", 10, &[(1, "a()", 300)])]);
    for by in [GroupBy::Site, GroupBy::Function, GroupBy::File] {
        let (diff, _) = across(&before, &after, by);
        assert_eq!(diff.moves.len(), 1, "{by:?}");
        assert_eq!(diff.rows.len(), 1, "{by:?}");
        assert_eq!(diff.rows[0].row.figures.delta_bytes, 200);
        assert_eq!(diff.rows[0].matched, Some(Matched::File));
    }
}

/// Number of a name, first line, and lines: each with its text's number and bytes.
type Drawn = (usize, u32, Vec<(u32, usize, u64)>);

fn functions() -> impl Strategy<Value = Vec<Drawn>> {
    let lines = prop::collection::vec((0..9_u32, 0..4_usize, 1..1000_u64), 1..4);
    prop::collection::vec((0..5_usize, 1..60_u32, lines), 0..6)
}

fn made(file: &str, functions: &[Drawn]) -> Vec<Record> {
    const NAMES: [&str; 5] = ["f", "g", "h", "i", "j"];
    const TEXTS: [&str; 4] = ["a()", "b()", "c()", "d()"];
    let lines: Vec<Vec<_>> = functions
        .iter()
        .map(|(_, _, lines)| {
            let lines = lines.iter();
            lines
                .map(|(line, text, bytes)| (*line, TEXTS[*text], *bytes))
                .collect()
        })
        .collect();
    let functions: Vec<Function<'_>> = functions
        .iter()
        .zip(&lines)
        .map(|((name, first, _), lines)| (NAMES[*name], *first, lines.as_slice()))
        .collect();
    program(file, &functions)
}

proptest! {
    /// However rows are matched, each is matched once, and what they grew by is
    /// what all grew by.
    #[test]
    fn nothing_is_lost_between_two(one in functions(), other in functions(), moved in any::<bool>()) {
        let before = made("/srv/v1/app.py", &one);
        let after = made(if moved { "/srv/v2/app.py" } else { "/srv/v1/app.py" }, &other);
        let sum = |functions: &[Drawn]| {
            let lines = functions.iter().flat_map(|(_, _, lines)| lines);
            lines.map(|(_, _, bytes)| i64::try_from(*bytes).unwrap()).sum::<i64>()
        };
        for by in [GroupBy::Site, GroupBy::Line, GroupBy::Function, GroupBy::File, GroupBy::Process] {
            let (one_model, other_model) =
                (Model::new(&before, origin()), Model::new(&after, origin()));
            let (mut stacks, mut others) = (Stacks::new(&one_model), Stacks::new(&other_model));
            let diff = Diff::across(
                &mut Side { model: &one_model, stacks: &mut stacks, span: Span::usual(&one_model) },
                &mut Side { model: &other_model, stacks: &mut others, span: Span::usual(&other_model) },
                query(by),
            );
            prop_assert_eq!(diff.sum.delta_bytes, sum(&other) - sum(&one), "{:?}", by);
            let told: i64 = diff.tallies.iter().map(|tally| tally.bytes).sum();
            prop_assert_eq!(told, diff.sum.delta_bytes);
            let shown: i64 = diff.rows.iter().map(|row| row.row.figures.delta_bytes).sum();
            prop_assert_eq!(shown, diff.sum.delta_bytes);
        }
        // The same program has not changed.
        let (diff, _) = across(&before, &before, GroupBy::Site);
        prop_assert!(diff.rows.is_empty() && diff.renames.is_empty() && diff.moves.is_empty());
    }
}

#[test]
fn json_says_how_rows_were_matched() {
    let before = program(
        "/srv/app.py",
        &[("f", 10, &[(1, "a()", 100)]), ("k", 50, &[(1, "z()", MIB)])],
    );
    let after = program("/srv/app.py", &[("f", 12, &[(1, "a()", 150)])]);
    let (one, other) = (Model::new(&before, origin()), Model::new(&after, origin()));
    let (mut stacks, mut others) = (Stacks::new(&one), Stacks::new(&other));
    let (span, later) = (Span::usual(&one), Span::usual(&other));
    let diff = Diff::across(
        &mut Side {
            model: &one,
            stacks: &mut stacks,
            span,
        },
        &mut Side {
            model: &other,
            stacks: &mut others,
            span: later,
        },
        query(GroupBy::Site),
    );
    let (side, after_side) = (
        DiffSide {
            model: &one,
            stacks: &stacks,
            span: &span,
        },
        DiffSide {
            model: &other,
            stacks: &others,
            span: &later,
        },
    );
    let mut out = Vec::new();
    json::diff(Some(&side), &after_side, &diff, &mut out).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let rows = value["rows"].as_array().unwrap();
    assert_eq!(rows[0]["change"], "gone");
    assert_eq!(rows[0]["function"], "k");
    assert_eq!(rows[0]["delta_bytes"], -1_048_576);
    assert_eq!(rows[0]["matched_by"], serde_json::Value::Null);
    assert_eq!(rows[1]["matched_by"], "lines");
    assert_eq!(rows[1]["was"]["line"], 11);
    assert_eq!(
        (&rows[1]["line"], &rows[1]["from_bytes"]),
        (&13.into(), &100.into())
    );
    assert_eq!(value["gone"]["rows"], 1);
    assert_eq!(value["resolved_from"], value["before"]["resolved_to"]);
    let mut out = Vec::new();
    text::diff(Some(&side), &after_side, &diff, styled(80), &mut out).unwrap();
    assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
    live memory fell by 1.0 MiB (-1 blocks) from train.4121.leakline at the end to
          train.4121.leakline at the end: 1 site grew by 50 B, 1 is gone with 1.0
          MiB
    before: app (pid 10), 22:13:20-22:13:21 (1.0 s), exact, complete
    after: app (pid 10), 22:13:20-22:13:21 (1.0 s), exact, complete
    instants: 22:13:21 and 22:13:21
    rows are matched by function, file and line, and where lines moved, by their
              text

      change  blocks   before  after        made in
    -1.0 MiB      -1  1.0 MiB    0 B  gone  k srv/app.py:51
       +50 B       0    100 B  150 B  grew  f srv/app.py:13
                                              was f srv/app.py:11

    next: leakline tree train.4121.leakline   (who called, after)
          leakline diff --survivors --from start train.4121.leakline   (what stayed)
    "#);
}
