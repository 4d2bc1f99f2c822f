//! Whole reports over hand-made recordings.

use std::io::{self, Write};

use insta::assert_snapshot;
use leakline_recording::record::{
    Domain, Frame as Recorded, Loss, ProcessTotals, Record, Sampling,
};
use serde_json::{Value, json as object};

use crate::report::{Style, ci, json, text};
use crate::testing::{Builder, SECOND, counters, origin, training};
use crate::*;

const MIB: u64 = 1 << 20;

fn styled(width: usize) -> Style {
    Style {
        width,
        colour: false,
        boxes: true,
    }
}

/// What `write` writes about `records`.
fn report(
    records: &[Record],
    write: impl for<'a> Fn(&Model<'a>, &mut Stacks<'a>, &mut dyn Write) -> io::Result<()>,
) -> String {
    report_of(records, origin(), write)
}

fn report_of(
    records: &[Record],
    origin: Origin,
    write: impl for<'a> Fn(&Model<'a>, &mut Stacks<'a>, &mut dyn Write) -> io::Result<()>,
) -> String {
    let model = Model::new(records, origin);
    let mut stacks = Stacks::new(&model);
    let mut out = Vec::new();
    write(&model, &mut stacks, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn by_site(model: &Model<'_>) -> TopQuery {
    TopQuery {
        span: Span::usual(model),
        by: GroupBy::Site,
        measure: Measure::Live,
        unit: Unit::Bytes,
        limit: None,
        most_frames: None,
        filter: None,
    }
}

#[test]
fn packed_points_give_the_same_figures() {
    let records = training();
    let mut contents = Contents::new();
    for record in &records {
        contents.push(record.clone());
    }
    let model = Model::new(&records, origin());
    let other = Model::of(&contents, origin());
    assert_eq!(model.nodes(), other.nodes());
    assert!(model.nodes().len() > 10);
    for instant in ["start", "+1s", "+70s", "peak", "main left", "end"] {
        let instant = Instant::parse(instant).unwrap();
        let span = Span::at(&model, &instant).unwrap();
        assert_eq!(model.figures(&span), other.figures(&span), "{instant:?}");
    }
    assert_eq!(
        model.figures(&Span::usual(&model)),
        other.figures(&Span::usual(&other))
    );
    for site in (0..).take(model.sites().len()) {
        assert_eq!(model.series(site), other.series(site));
    }
}

fn from_outermost(model: &Model<'_>) -> TreeQuery {
    TreeQuery {
        span: Span::usual(model),
        measure: Measure::Live,
        unit: Unit::Bytes,
        inverted: false,
        threshold: 0.01,
        limit: None,
        filter: None,
        all_frames: false,
    }
}

fn in_order(model: &Model<'_>) -> LinesQuery {
    LinesQuery {
        span: Span::usual(model),
        inclusive: false,
        sort: None,
        limit: None,
        filter: None,
    }
}

fn show_top(by: GroupBy, width: usize) -> String {
    report(&training(), |model, stacks, out| {
        let top = Top::new(
            model,
            stacks,
            TopQuery {
                by,
                // Threads are known for the whole recording only.
                span: match by {
                    GroupBy::Thread => Span::whole(model),
                    _ => Span::usual(model),
                },
                ..by_site(model)
            },
        );
        text::top(model, stacks, &top, styled(width), out)
    })
}

fn show_tree(width: usize, change: impl Fn(&Model<'_>, TreeQuery) -> TreeQuery) -> String {
    report(&training(), |model, stacks, out| {
        let tree = Tree::new(model, stacks, change(model, from_outermost(model)));
        text::tree(model, stacks, &tree, styled(width), out)
    })
}

fn show_lines(width: usize, on_disk: Option<&str>) -> String {
    report(&training(), |model, stacks, out| {
        let file = Lines::find_file(model, stacks, "app/train.py").unwrap();
        let lines = Lines::new(model, stacks, in_order(model), file, on_disk);
        text::lines(model, &lines, styled(width), out)
    })
}

fn show_stats(records: &[Record], origin: Origin, width: usize) -> String {
    report_of(records, origin, |model, _, out| {
        text::stats(model, &Stats::new(model), styled(width), out)
    })
}

fn show_summary(records: &[Record], origin: Origin, width: usize) -> String {
    report_of(records, origin, |model, stacks, out| {
        let summary = Summary::new(model, stacks, Some(5));
        text::summary(model, stacks, &summary, styled(width), out)
    })
}

fn top_json(records: &[Record], change: impl Fn(&Model<'_>, TopQuery) -> TopQuery) -> Value {
    let text = report(records, |model, stacks, out| {
        let top = Top::new(model, stacks, change(model, by_site(model)));
        json::top(model, stacks, &top, out)
    });
    serde_json::from_str(&text).unwrap()
}

fn stats_json(records: &[Record], origin: Origin) -> Value {
    let text = report_of(records, origin, |model, _, out| {
        json::stats(model, &Stats::new(model), out)
    });
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_recording_of_all_blocks_and_of_a_sample_by_turns() {
    let mut builder = Builder::new(&["worker"]);
    builder.process(7, &["worker"]);
    builder.end(3 * SECOND);
    let mut records = builder.records;
    for (at_ns, mean_bytes) in [(1, 4096), (2, 0), (3, 512), (4, 8192)] {
        let at_ns = at_ns * SECOND / 2;
        records.insert(1, Record::Sampling(Sampling { at_ns, mean_bytes }));
    }
    let answer = stats_json(&records, Origin::default());
    assert_eq!(answer["mode"], "mixed");
    assert_eq!(
        (&answer["sample_bytes"], &answer["least_sample_bytes"]),
        (&object!(8192), &object!(512))
    );
    let said = show_summary(&records, Origin::default(), 100);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("every block at times, at others sampled, one in 8.0 KiB to 512 B"),
        "{said}"
    );
}

#[test]
fn top_at_80_columns() {
    assert_snapshot!(show_top(GroupBy::Site, 80), @r"
    35.0 MiB live in 42,364 blocks when the main thread left __main__, in 6 sites
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

        live  blocks      peak      total  made in
    30.0 MiB   3,000  20.0 MiB   30.0 MiB  Trainer.epoch app/train.py:43
     3.0 MiB  30,000   3.0 MiB    4.0 MiB  _call_wit~es_removed <frozen i~strap>:241
                                             your code: <module> app/train.py:10
     2.0 MiB   9,362       0 B    2.0 MiB  grow src/arena.h:12
                                             your code: load_batch app/train.py:57
     4.0 KiB       1       0 B    4.0 KiB  fastparse.so+0x4fff
                                             your code: load_batch app/train.py:57
       512 B       1       0 B  150.0 MiB  JSONDecode~raw_decode json/decoder.py:353
                                             your code: load_batch app/train.py:57
         0 B       0  1.17 GiB   9.00 GiB  load_batch app/train.py:57

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
}

#[test]
fn top_at_120_columns() {
    assert_snapshot!(show_top(GroupBy::Site, 120), @r"
    35.0 MiB live in 42,364 blocks when the main thread left __main__, in 6 sites
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

        live  blocks      peak      total  temporary  made in                                     your code
    30.0 MiB   3,000  20.0 MiB   30.0 MiB        750  Trainer.epoch app/train.py:43               the same
     3.0 MiB  30,000   3.0 MiB    4.0 MiB     10,000  _call_wit~es_removed <frozen im~strap>:241  <module> app/train.py:10
     2.0 MiB   9,362       0 B    2.0 MiB      2,340  grow src/arena.h:12                         load_batch app/train.py:57
     4.0 KiB       1       0 B    4.0 KiB          0  fastparse.so+0x4fff                         load_batch app/train.py:57
       512 B       1       0 B  150.0 MiB     37,500  JSONDecoder.raw_decode json/decoder.py:353  load_batch app/train.py:57
         0 B       0  1.17 GiB   9.00 GiB      1,125  load_batch app/train.py:57                  the same

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
}

#[test]
fn top_by_everything_else() {
    assert_snapshot!(show_top(GroupBy::Line, 80), @r"
    35.0 MiB live in 42,364 blocks when the main thread left __main__, in 6 lines
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

        live  blocks      peak      total  made in
    30.0 MiB   3,000  20.0 MiB   30.0 MiB  app/train.py:43 Trainer.epoch
     3.0 MiB  30,000   3.0 MiB    4.0 MiB  <frozen i~strap>:241 _call_wit~es_removed
                                             your code: <module> app/train.py:10
     2.0 MiB   9,362       0 B    2.0 MiB  src/arena.h:12 grow
                                             your code: load_batch app/train.py:57
     4.0 KiB       1       0 B    4.0 KiB  fastparse.so+0x4fff
                                             your code: load_batch app/train.py:57
       512 B       1       0 B  150.0 MiB  json/decoder.py:353 JSONDecode~raw_decode
                                             your code: load_batch app/train.py:57
         0 B       0  1.17 GiB   9.00 GiB  app/train.py:57 load_batch

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
    assert_snapshot!(show_top(GroupBy::Library, 80), @r"
    35.0 MiB live in 42,364 blocks when the main thread left __main__, in 3
          libraries
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

        live  blocks      peak      total  library
    30.0 MiB   3,000  1.19 GiB   9.03 GiB  /srv/app
     3.0 MiB  30,001   3.0 MiB  154.0 MiB  Python standard library
     2.0 MiB   9,363       0 B    2.0 MiB  /srv/venv/lib/python~ackages/fastparse.so

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
    assert_snapshot!(show_top(GroupBy::Thread, 80), @r"
    3.0 MiB live in 19,363 blocks at the end, in 2 threads
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete

       live  blocks  peak      total  thread
    2.0 MiB  19,000     -   9.00 GiB  python (tid 4121 of 4121)
    1.0 MiB     363     -  200.0 MiB  loader (tid 4130 of 4121)

    next: leakline top --by process train.4121.leakline   (by process)
          leakline summary train.4121.leakline   (in short)
    ");
}

#[test]
fn top_between_two_instants() {
    let text = report(&training(), |model, stacks, out| {
        let span = Span::since(model, &Instant::After(58 * SECOND)).unwrap();
        let query = TopQuery {
            span,
            measure: Measure::Growth,
            limit: Some(2),
            ..by_site(model)
        };
        let top = Top::new(model, stacks, query);
        text::top(model, stacks, &top, styled(80), out)
    });
    assert_snapshot!(text, @r"
    live memory fell by 184.0 MiB (+1,583 blocks) from +1 min 00 s until the main
          thread left __main__, in 5 sites
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:14:20-22:16:31, the nearest recorded (every 59.0 s)

        growth  blocks      live     total  made in
     +20.0 MiB  +2,000  30.0 MiB  20.0 MiB  Trainer.epoch app/train.py:43
      +1.0 MiB  +4,681   2.0 MiB   1.0 MiB  grow src/arena.h:12
                                              your code: load_batch app/train.py:57
    -205.0 MiB  -5,098   4.5 KiB  7.10 GiB  rest: 3 sites

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
}

#[test]
fn tree_at_80_columns() {
    let at_peak = |model: &Model<'_>, query| TreeQuery {
        span: Span::at(model, &Instant::Peak).unwrap(),
        threshold: 0.0,
        ..query
    };
    assert_snapshot!(show_tree(80, at_peak), @r"
    1.19 GiB live in 32,600 blocks at the high-water mark, outermost frame first
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:15:27, exact

      1.19 GiB  100 %  <module> app/train.py:10
      1.19 GiB  100 %  ├─ Trainer.epoch app/train.py:43
      1.17 GiB   98 %  │  load_batch app/train.py:57
       3.0 MiB    0 %  └─ _call_with_frames_removed <frozen importl~._bootstrap>:241

    next: leakline tree --inverted train.4121.leakline
          leakline top train.4121.leakline   (as a list)
    ");
}

#[test]
fn inverted_tree_at_120_columns() {
    assert_snapshot!(
        show_tree(120, |_, query| TreeQuery { inverted: true, ..query }), @r"
    35.0 MiB live in 42,364 blocks when the main thread left __main__, innermost frame first
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

      30.0 MiB   86 %  ├─ Trainer.epoch app/train.py:43
                       │  <module> app/train.py:10
       3.0 MiB    9 %  ├─ _call_with_frames_removed <frozen importlib._bootstrap>:241
                       │  <module> app/train.py:10
       2.0 MiB    6 %  ├─ grow src/arena.h:12
                       │  parse_header src/parse.c:118
                       │  load_batch app/train.py:57
                       │  Trainer.epoch app/train.py:43
                       │  <module> app/train.py:10
       4.5 KiB    0 %  └─ rest: 2 smaller branches

    next: leakline tree train.4121.leakline   (from the outermost frame)
          leakline top train.4121.leakline   (as a list)
    "
    );
}

#[test]
fn lines_at_80_columns() {
    assert_snapshot!(show_lines(80, None), @r"
    train.py: 32.0 MiB live in 12,363 blocks when the main thread left __main__, by
          2 lines
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact
    /srv/app/train.py

        live  blocks      peak     total  line
    30.0 MiB   3,000  20.0 MiB  30.0 MiB  43          self.history.append(result)
                                          ...
     2.0 MiB   9,363  1.17 GiB  9.00 GiB  57      rows = [json.loads(line) for line~

    next: leakline top --by line train.4121.leakline   (all files' lines)
          leakline top --filter train.py train.4121.leakline   (with their stacks)
    ");
}

#[test]
fn lines_with_the_file_at_hand_at_120_columns() {
    let mut file = "#\n".repeat(42);
    file.push_str("        self.history.append(result)\n");
    file.push_str(&"#\n".repeat(13));
    file.push_str("    rows = [json.loads(line) for line in lines]\n    return rows\n");
    assert_snapshot!(show_lines(120, Some(&file)), @r"
    train.py: 32.0 MiB live in 12,363 blocks when the main thread left __main__, by 2 lines
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact
    /srv/app/train.py

        live  blocks      peak     total  temporary  line
                                                     41  #
                                                     42  #
    30.0 MiB   3,000  20.0 MiB  30.0 MiB        750  43          self.history.append(result)
                                                     44  #
                                                     45  #
                                                     ...
                                                     55  #
                                                     56  #
     2.0 MiB   9,363  1.17 GiB  9.00 GiB      3,465  57      rows = [json.loads(line) for line in lines]
                                                     58      return rows

    next: leakline top --by line train.4121.leakline   (all files' lines)
          leakline top --filter train.py train.4121.leakline   (with their stacks)
    ");
    // A file that says otherwise now is not shown.
    let changed = show_lines(120, Some("something else\n"));
    assert!(
        changed.contains("has changed since: text from the recording"),
        "{changed}"
    );
    assert!(changed.contains("self.history.append(result)"), "{changed}");
}

#[test]
fn stats_at_80_columns() {
    assert_snapshot!(show_stats(&training(), origin(), 80), @r"
    206,863 allocations (9.28 GiB) and 187,500 frees in 3 min 12 s
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete

    allocations        206,863  1.1 k a second
    allocated         9.28 GiB  49.5 MiB a second
    frees              187,500  977 a second
    temporary           51,715  25.0 % of the allocations
    resized in place        12
    high-water mark   1.19 GiB  after 2 min 07 s
    live at the end    3.0 MiB  19,363 blocks
    events             394,363  2.1 k a second
    lost events              0

              size  allocations
             2-3 B           10   0.0 %  █
             4-7 B        1,000   0.5 %  █
            8-15 B      150,000  72.5 %  ████████████████████████████████████████
           16-31 B            0   0.0 %
           32-63 B          500   0.2 %  █

     pid     live      peak  allocations  lost  process
    4121  3.0 MiB  1.19 GiB      206,863     0  python3.11 train.py

    next: leakline top train.4121.leakline   (who allocated)
          leakline summary train.4121.leakline   (in short)
    ");
}

#[test]
fn summary_at_80_columns() {
    assert_snapshot!(show_summary(&training(), origin(), 80), @r"
    peak 1.19 GiB after 2 min 07 s; 35.0 MiB live in 42,364 blocks when the main
          thread left __main__
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, complete
    instants: 22:16:31, exact

        peak  blocks      live      total  made in
    1.17 GiB     600       0 B   9.00 GiB  load_batch app/train.py:57
    20.0 MiB   2,000  30.0 MiB   30.0 MiB  Trainer.epoch app/train.py:43
     3.0 MiB  30,000   3.0 MiB    4.0 MiB  _call_wit~es_removed <frozen i~strap>:241
                                             your code: <module> app/train.py:10
         0 B       0     512 B  150.0 MiB  JSONDecode~raw_decode json/decoder.py:353
                                             your code: load_batch app/train.py:57
         0 B       0   2.0 MiB    2.0 MiB  grow src/arena.h:12
                                             your code: load_batch app/train.py:57
         0 B       0   4.0 KiB    4.0 KiB  rest: 1 site

    recorded   206,863 allocations, all of them; 3.1 MiB
    processes  python3.11 train.py (pid 4121), peak 1.19 GiB
    ended      the program's last process, after 3 min 12 s

    next: leakline top train.4121.leakline   (what is live)
          leakline tree --at peak train.4121.leakline   (who called)
    ");
}

#[test]
fn summary_of_a_killed_and_damaged_recording() {
    let mut records = training();
    let kept = |record: &Record| {
        !matches!(
            record,
            Record::End(_) | Record::Peak(_) | Record::ProcessEnd(_)
        )
    };
    records.retain(kept);
    records.push(Record::Loss(Loss {
        process: 0,
        at_ns: 90 * SECOND,
        events: 1_234,
    }));
    let origin = Origin {
        ended: false,
        implied: true,
        warnings: vec!["1 chunk of the file is damaged".into()],
        ..origin()
    };
    assert_snapshot!(show_summary(&records, origin.clone(), 80), @r"
    peak 219.0 MiB after 1 min 00 s; 35.0 MiB live in 42,364 blocks when the main
          thread left __main__
    python train.py (pid 4121), 22:13:20-22:16:32 (3 min 12 s), exact, 1,234 of
          395,597 events lost, parts of the file are unreadable, ends without a
          farewell
    instants: 22:16:31, exact

         peak  blocks      live      total  made in
    200.0 MiB     100       0 B   9.00 GiB  load_batch app/train.py:57
     10.0 MiB   1,000  30.0 MiB   30.0 MiB  Trainer.epoch app/train.py:43
      5.0 MiB   5,000     512 B  150.0 MiB  JSONDecod~raw_decode json/decoder.py:353
                                              your code: load_batch app/train.py:57
      3.0 MiB  30,000   3.0 MiB    4.0 MiB  _call_wit~s_removed <frozen i~strap>:241
                                              your code: <module> app/train.py:10
      1.0 MiB   4,681   2.0 MiB    2.0 MiB  grow src/arena.h:12
                                              your code: load_batch app/train.py:57
          0 B       0   4.0 KiB    4.0 KiB  rest: 1 site

    recorded   206,863 allocations, 1,234 events lost; 3.1 MiB
    processes  python3.11 train.py (pid 4121), peak 1.19 GiB, running when last
               heard of
    ended      without a farewell after 3 min 12 s: still recording, or the recorder
               was killed; what came later is not known
    damaged    1 chunk of the file is damaged

    next: leakline top   (what is live)
          leakline tree --at peak   (who called)
    ");
    let stats = stats_json(&records, origin);
    assert_eq!(stats["totals"]["complete"], false);
    assert_eq!(stats["totals"]["lost_events"], 1234);
    // The best bin stands in for the lost record of the high-water mark.
    assert_eq!(stats["peak"]["exact"], false);
    assert_eq!(stats["totals"]["peak_bytes"], 219 * MIB);
}

#[test]
fn an_empty_recording_has_reports_too() {
    assert_snapshot!(show_summary(&[], Origin::default(), 80), @r"
    peak 0 B after 0 s; 0 B live in 0 blocks at the end
    unknown program (no process), 00:00:00-00:00:00 (0 s), mode not known, ends
          without a farewell

    Nothing was allocated.

    recorded   0 allocations, all of them; 0 B
    ended      without a farewell after 0 s: still recording, or the recorder was
               killed; what came later is not known

    next: leakline top ''   (what is live)
          leakline tree --at peak ''   (who called)
    ");
}

/// The keys that docs/json.md promises.
#[test]
fn top_as_json() {
    let report = top_json(&training(), |_, query| TopQuery {
        limit: Some(2),
        ..query
    });
    assert_eq!(report["schema"], "leakline.top");
    assert_eq!(report["version"], 1);
    assert_eq!(report["total_rows"], 6);
    assert_eq!(report["rest"]["rows"], 4);
    assert_eq!(report["rest"]["live_blocks"], 9364);
    assert_eq!(report["resolved_to"], 191.0);
    assert_eq!(report["resolution_seconds"], 0.0);
    assert_eq!(report["as_left_main"], true);
    assert_eq!(report["resolved_from"], Value::Null);
    assert_snapshot!(serde_json::to_string_pretty(&report["rows"][0]).unwrap(), @r#"
    {
      "name": null,
      "function": "Trainer.epoch",
      "file": "/srv/app/train.py",
      "line": 43,
      "module": null,
      "domain": "mem",
      "live_bytes": 31457280,
      "live_blocks": 3000,
      "total_bytes": 31457280,
      "total_blocks": 3000,
      "peak_bytes": 20971520,
      "peak_blocks": 2000,
      "temporary_blocks": 750,
      "resizes": 0,
      "ended_bytes": 0,
      "ended_blocks": 0,
      "site": 0,
      "sites": 1,
      "processes": [
        {
          "pid": 4121,
          "start_ticks": 5121
        }
      ],
      "your_code": {
        "function": "Trainer.epoch",
        "file": "/srv/app/train.py",
        "line": 43
      },
      "stack": [
        {
          "function": "list_resize",
          "file": null,
          "line": null,
          "module": "/usr/bin/python3.11",
          "kind": "native"
        },
        {
          "function": "Trainer.epoch",
          "file": "/srv/app/train.py",
          "line": 43,
          "module": null,
          "kind": "python"
        },
        {
          "function": "<module>",
          "file": "/srv/app/train.py",
          "line": 10,
          "module": null,
          "kind": "python"
        },
        {
          "function": "Py_BytesMain",
          "file": null,
          "line": null,
          "module": "/usr/bin/python3.11",
          "kind": "native"
        },
        {
          "function": "__libc_start_call_main",
          "file": null,
          "line": null,
          "module": "/usr/lib/x86_64-linux-gnu/libc.so.6",
          "kind": "native"
        }
      ]
    }
    "#);
    assert_eq!(report["rows"][1]["your_code"]["function"], "<module>");
    assert_eq!(report["rows"][1]["site_kind"], "block");
}

#[test]
fn rows_may_be_limited_by_their_stacks() {
    let rows = |most_frames| {
        let report = top_json(&training(), |_, query| TopQuery {
            most_frames,
            ..query
        });
        let lengths = report["rows"].as_array().unwrap().iter();
        let lengths: Vec<usize> = lengths
            .map(|row| row["stack"].as_array().unwrap().len())
            .collect();
        let live = report["rows"].as_array().unwrap().iter();
        let live: u64 = live.map(|row| row["live_bytes"].as_u64().unwrap()).sum();
        let rest = report["rest"]["live_bytes"].as_u64().unwrap_or(0);
        assert_eq!(live + rest, report["sum"]["live_bytes"]);
        let left_out = report["rest"]["rows"].as_u64().unwrap_or(0);
        assert_eq!(lengths.len() as u64 + left_out, report["total_rows"]);
        lengths
    };
    let all = rows(None);
    assert_eq!(all.len(), 6);
    let two: usize = all[..2].iter().map(|length| length + 4).sum();
    assert_eq!(rows(Some(two)), all[..2]);
    assert_eq!(rows(Some(two - 1)), all[..1]);
    assert_eq!(rows(Some(0)), all[..1], "never none");
    assert_eq!(rows(Some(usize::MAX)), all);
}

#[test]
fn stats_as_json() {
    let report = stats_json(&training(), origin());
    assert_snapshot!(serde_json::to_string_pretty(&report["totals"]).unwrap(), @r#"
    {
      "allocations": 206863,
      "frees": 187500,
      "allocated_bytes": 9961472000,
      "live_blocks": 19363,
      "live_bytes": 3149824,
      "peak_bytes": 1282408448,
      "temporary_blocks": 51715,
      "resizes": 12,
      "unknown_frees": 0,
      "implied_frees": 0,
      "events": 394363,
      "lost_events": 0,
      "lost_bytes": 0,
      "malformed_events": 0,
      "truncated_stacks": 0,
      "broken_unwinds": 0,
      "stalled_seconds": 0.0,
      "complete": true
    }
    "#);
    assert_eq!(report["processes"][0]["command"], "python3.11 train.py");
    assert_eq!(report["processes"][0]["exit_status"], 0);
    assert_eq!(report["processes"][0]["signal"], Value::Null);
    assert_eq!(report["processes"][0]["totals"]["frees"], 187_500);
    assert_eq!(report["mode"], "exact");
    assert_eq!(report["duration_seconds"], 192.0);
    assert_eq!(report["sizes"][1]["min_bytes"], 4);
    assert_eq!(report["sizes"][1]["max_bytes"], 7);
}

#[test]
fn a_tree_adds_up_as_json() {
    let text = report(&training(), |model, stacks, out| {
        let query = TreeQuery {
            threshold: 0.08,
            limit: Some(3),
            ..from_outermost(model)
        };
        let tree = Tree::new(model, stacks, query);
        json::tree(model, stacks, &tree, out)
    });
    let report: Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["function"], "<module>");
    assert_eq!(rows[0]["parent"], Value::Null);
    assert_eq!(rows[0]["live_bytes"], report["sum"]["live_bytes"]);
    assert_eq!(rows[1]["parent"], 0);
    let stack = rows[1]["stack"].as_array().unwrap();
    assert_eq!(stack[0]["function"], rows[1]["function"], "innermost first");
    assert_eq!(stack[1]["function"], "<module>");
    // What is shown as its own, and what is not shown, is everything.
    let own: i64 = rows.iter().map(|row| row["self"].as_i64().unwrap()).sum();
    let rest = report["rest"]["live_bytes"].as_i64().unwrap();
    assert_eq!(own + rest, report["sum"]["live_bytes"].as_i64().unwrap());
}

#[test]
fn lines_count_what_they_allocated_or_called() {
    let records = training();
    let model = Model::new(&records, origin());
    let mut stacks = Stacks::new(&model);
    let file = Lines::find_file(&model, &mut stacks, "train.py").unwrap();
    let direct = Lines::new(&model, &mut stacks, in_order(&model), file.clone(), None);
    let live = |lines: &Lines| {
        lines
            .rows
            .iter()
            .map(|row| (row.line, row.figures.live_bytes as u64))
            .collect::<Vec<_>>()
    };
    // The native library's blocks count for the Python line that called it;
    // json's own do not.
    assert_eq!(live(&direct), [(43, 30 * MIB), (57, 2 * MIB + 4096)]);
    let inclusive = LinesQuery {
        inclusive: true,
        ..in_order(&model)
    };
    let inclusive = Lines::new(&model, &mut stacks, inclusive, file, None);
    assert_eq!(
        live(&inclusive),
        [
            (10, 35 * MIB + 4608),
            (43, 32 * MIB + 4608),
            (57, 2 * MIB + 4608)
        ]
    );
    // A native source file has lines too.
    let header = Lines::find_file(&model, &mut stacks, "arena.h").unwrap();
    let native = Lines::new(&model, &mut stacks, in_order(&model), header, None);
    assert_eq!(live(&native), [(12, 2 * MIB)]);
}

#[test]
fn a_file_that_is_not_there_names_others() {
    let records = training();
    let model = Model::new(&records, origin());
    let mut stacks = Stacks::new(&model);
    let error = Lines::find_file(&model, &mut stacks, "lib/decoder.py").unwrap_err();
    assert_snapshot!(error, @"no recorded stack goes through `lib/decoder.py`");
    assert_snapshot!(error.hint(), @"try one of: `/usr/lib/python3.11/json/decoder.py`");
}

#[test]
fn several_files_of_one_name_are_told_apart_by_who_allocated() {
    let mut b = Builder::new(&["app"]);
    let process = b.process(1, &["app"]);
    let busy = b.code("/srv/a/views.py", "f", 1);
    b.code("/srv/b/views.py", "f", 1);
    let node = b.python(0, busy, 0, true);
    let site = b.site(process, node, Domain::Obj);
    b.bin(SECOND, &[(site, counters(10, 1, 10, 1))]);
    let model = Model::new(&b.records, origin());
    let mut stacks = Stacks::new(&model);
    assert_eq!(
        Lines::find_file(&model, &mut stacks, "views.py").unwrap(),
        "/srv/a/views.py"
    );
    assert!(Lines::find_file(&model, &mut stacks, "a/views.py").is_ok());
    assert!(
        Lines::find_file(&model, &mut stacks, "iews.py").is_err(),
        "whole names only"
    );
}

/// Function names of a merged stack.
fn functions(records: &[Record], node: u32) -> Vec<String> {
    let model = Model::new(records, origin());
    let mut stacks = Stacks::new(&model);
    let stack = stacks.stack(&model, node);
    stack
        .iter()
        .map(|&id| stacks.name(stacks.frame(id).function).to_owned())
        .collect()
}

/// main -> eval -> (f, g) -> list_sort -> eval -> key, and one frame on top.
fn two_runs(b: &mut Builder) -> (u32, u32) {
    let python = b.module("/usr/bin/python3.11");
    for (offset, name) in [
        (0x10, "main"),
        (0x20, "eval"),
        (0x30, "list_sort"),
        (0x40, "PyObject_Malloc"),
    ] {
        b.symbols(python, offset, &[(name, "", 0)]);
    }
    let main = b.native(0, python, 0x10);
    let outer = b.evaluator(main, python, 0x20);
    let sort = b.native(outer, python, 0x30);
    let inner = b.evaluator(sort, python, 0x20);
    let malloc = b.native(inner, python, 0x40);
    let f = b.code("/srv/f.py", "f", 1);
    let g = b.code("/srv/f.py", "g", 10);
    let key = b.code("/srv/f.py", "key", 20);
    let py_f = b.python(0, f, 0, true);
    let py_g = b.python(py_f, g, 0, false);
    let py_key = b.python(py_g, key, 0, true);
    (malloc, py_key)
}

#[test]
fn python_runs_stand_where_their_evaluators_are() {
    let mut b = Builder::new(&["python"]);
    let (native, python) = two_runs(&mut b);
    let pair = b.pair(native, python);
    assert_eq!(
        functions(&b.records, pair),
        ["PyObject_Malloc", "key", "list_sort", "g", "f", "main"]
    );
}

#[test]
fn without_enough_evaluators_python_frames_follow_at_the_end() {
    let mut b = Builder::new(&["python"]);
    let (_, python) = two_runs(&mut b);
    let module = b.module("/srv/x.so");
    let broken = b.node(0, Recorded::Broken);
    let eval = b.evaluator(broken, module, 0x99);
    let grow = b.native(eval, module, 0x50);
    let pair = b.pair(grow, python);
    assert_eq!(
        functions(&b.records, pair),
        ["x.so+0x4f", "key", "[unwinding ended here]", "g", "f"]
    );
}

#[test]
fn evaluators_without_python_frames_vanish() {
    let mut b = Builder::new(&["python"]);
    let (native, _) = two_runs(&mut b);
    let code = b.code("/srv/f.py", "only", 1);
    let only = b.python(0, code, 0, true);
    let pair = b.pair(native, only);
    assert_eq!(
        functions(&b.records, pair),
        ["PyObject_Malloc", "only", "list_sort", "main"]
    );
}

#[test]
fn an_unmarked_evaluator_is_known_by_its_name() {
    let mut b = Builder::new(&["python"]);
    let python = b.module("/usr/bin/python3.11");
    b.symbols(python, 0x20, &[("_PyEval_EvalFrameDefault.cold", "", 0)]);
    let eval = b.native(0, python, 0x20);
    let code = b.code("/srv/f.py", "f", 1);
    let f = b.python(0, code, 0, true);
    let pair = b.pair(eval, f);
    assert_eq!(functions(&b.records, pair), ["f"]);
}

#[test]
fn a_c_program_is_named_by_function_file_and_line() {
    let mut b = Builder::new(&["./leaky"]);
    let process = b.process(7, &["./leaky"]);
    let leaky = b.module("/home/me/leaky");
    let libc = b.module("/lib/x86_64-linux-gnu/libc.so.6");
    b.symbols(leaky, 0x1100, &[("main", "/home/me/leaky.c", 60)]);
    b.symbols(
        leaky,
        0x1200,
        &[
            ("xmalloc", "/home/me/leaky.c", 9),
            ("make", "/home/me/leaky.c", 41),
        ],
    );
    b.symbols(libc, 0x900, &[("__strdup", "", 0)]);
    let main = b.native(0, leaky, 0x1100);
    let make = b.native(main, leaky, 0x1200);
    let strdup = b.native(main, libc, 0x900);
    let make = b.site(process, make, Domain::Native);
    let strdup = b.site(process, strdup, Domain::Native);
    let unknown = b.site(process, 0, Domain::Mmap);
    b.bin(
        SECOND,
        &[
            (make, counters(300, 3, 300, 3)),
            (strdup, counters(20, 2, 20, 2)),
            (unknown, counters(1, 1, 1, 1)),
        ],
    );
    let report = top_json(&b.records, |_, query| query);
    let rows = &report["rows"];
    assert_eq!(rows[0]["function"], "make");
    assert_eq!(rows[0]["file"], "/home/me/leaky.c");
    assert_eq!(rows[0]["line"], 41);
    assert_eq!(rows[0]["module"], "/home/me/leaky");
    assert_eq!(rows[0]["stack"][0]["kind"], "inlined");
    assert_eq!(rows[1]["function"], "__strdup");
    assert_eq!(rows[1]["your_code"]["function"], "main");
    assert_eq!(rows[2]["function"], Value::Null);
    assert_eq!(rows[2]["stack"], Value::Array(Vec::new()));
}

#[test]
fn stacks_that_differ_inside_the_interpreter_are_one_row() {
    let mut b = Builder::new(&["python"]);
    let process = b.process(1, &["python"]);
    let python = b.module("/usr/bin/python3.11");
    let code = b.code("/srv/f.py", "f", 1);
    let eval = b.evaluator(0, python, 0x20);
    let f = b.python(0, code, 0, true);
    let mut points = Vec::new();
    for offset in [0x100, 0x200] {
        let native = b.native(eval, python, offset);
        let pair = b.pair(native, f);
        let site = b.site(process, pair, Domain::Obj);
        points.push((site, counters(offset, 1, offset, 1)));
    }
    b.bin(SECOND, &points);
    let report = top_json(&b.records, |_, query| query);
    assert_eq!(report["total_rows"], 1);
    assert_eq!(report["rows"][0]["live_bytes"], 0x300);
    assert_eq!(report["rows"][0]["sites"], 2);
    assert_eq!(
        report["rows"][0]["stack"][0]["function"],
        "python3.11+0x1ff"
    );
}

#[test]
fn a_frame_without_a_symbol_names_its_address_and_what_is_near() {
    let mut b = Builder::new(&["python"]);
    let process = b.process(1, &["python"]);
    let module = b.module("/venv/lib/python3.11/site-packages/fastparse.cpython-311.so");
    b.symbols(module, 0x100, &[("fastparse.parse (builtin)", "", 0)]);
    b.symbols(module, 0x80, &[("PyInit_fastparse", "", 0)]);
    if let Some(Record::Symbols(symbols)) = b.records.last_mut() {
        symbols.addresses[0].1[0].beyond = 0x77;
    }
    let entry = b.native(0, module, 0x100);
    let helper = b.native(entry, module, 0x80);
    for (node, bytes) in [(helper, 200), (entry, 100)] {
        let site = b.site(process, node, Domain::Native);
        b.bin(SECOND, &[(site, counters(bytes, 1, bytes, 1))]);
    }
    let rows = &top_json(&b.records, |_, query| query)["rows"];
    let stack: Vec<&str> = rows[0]["stack"]
        .as_array()
        .unwrap()
        .iter()
        .map(|frame| frame["function"].as_str().unwrap())
        .collect();
    assert_eq!(
        stack,
        [
            "fastparse.cpython-311.so+0x7f (near PyInit_fastparse+0x77)",
            "fastparse.parse (builtin)"
        ]
    );
    let text = report(&b.records, |model, stacks, out| {
        let top = Top::new(model, stacks, by_site(model));
        text::top(model, stacks, &top, styled(80), out)
    });
    let rows: Vec<&str> = text.lines().skip(3).take(3).collect();
    assert_snapshot!(rows.join("\n"), @r"
     live  blocks   peak  total  made in
    200 B       1  200 B  200 B  fastparse.cp~-311.so+0x7f near PyInit_~stparse+0x77
    100 B       1  100 B  100 B  fastparse.parse (builtin) fastparse.cpython-311.so
    ");
}

#[test]
fn rows_of_one_stack_merge_over_processes() {
    let mut b = Builder::new(&["app"]);
    let module = b.module("/srv/app");
    let node = b.native(0, module, 0x10);
    for pid in [10, 11] {
        let process = b.process(pid, &["app"]);
        let site = b.site(process, node, Domain::Native);
        b.bin(SECOND, &[(site, counters(100, 1, 100, 1))]);
    }
    let rows = &top_json(&b.records, |_, query| query)["rows"];
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["live_bytes"], 200);
    assert_eq!(rows[0]["sites"], 2);
    assert_eq!(rows[0]["processes"][1]["pid"], 11);
    let only = top_json(&b.records, |_, query| TopQuery {
        filter: Some(Filter::new("pid 11")),
        ..query
    });
    assert_eq!(only["rows"][0]["live_bytes"], 100);
}

#[test]
fn what_ended_processes_held_is_told_apart() {
    let mut b = Builder::new(&["app"]);
    let module = b.module("/srv/app");
    let node = b.native(0, module, 0x10);
    let (parent, child) = (b.process(10, &["app"]), b.process(11, &[]));
    let of_parent = b.site(parent, node, Domain::Native);
    let of_child = b.site(child, node, Domain::Native);
    let held = [
        (of_parent, counters(100, 1, 100, 1)),
        (of_child, counters(2048, 2, 2048, 2)),
    ];
    b.bin(SECOND, &held);
    b.process_end(child, SECOND + 1, Some(0));
    b.bin(2 * SECOND, &[]);
    b.process_end(parent, 3 * SECOND, Some(0));
    b.bin(3 * SECOND, &[]);
    b.end(3 * SECOND);
    let ended = |at: u64| {
        let report = top_json(&b.records, |model, query| TopQuery {
            span: Span::at(model, &Instant::After(at * SECOND)).unwrap(),
            ..query
        });
        assert_eq!(report["rows"][0]["live_bytes"], 2148);
        report["rows"][0]["ended_bytes"].as_u64().unwrap()
    };
    assert_eq!(ended(1), 0, "it has not ended yet");
    assert_eq!(ended(2), 2048);
    assert_eq!(ended(3), 2048, "the last process to end keeps what it held");
    let text = report(&b.records, |model, stacks, out| {
        let by = GroupBy::Process;
        let top = Top::new(
            model,
            stacks,
            TopQuery {
                by,
                ..by_site(model)
            },
        );
        text::top(model, stacks, &top, styled(80), out)
    });
    assert_snapshot!(text, @r"
    2.1 KiB live in 3 blocks at the end (2.0 KiB of it in processes that had ended),
          in 2 processes
    app (pid 10 and 1 more process), 22:13:20-22:13:23 (3.0 s), exact, complete

       live  blocks     peak    total  process
    2.0 KiB       2  2.0 KiB  2.0 KiB  app (pid 11)
      100 B       1    100 B    100 B  app (pid 10)

    next: leakline tree train.4121.leakline   (who called)
          leakline top --sort peak train.4121.leakline   (at the high-water mark)
    ");
}

#[test]
fn inherited_blocks_count_once() {
    let mut b = Builder::new(&["app"]);
    let module = b.module("/srv/app");
    let node = b.native(0, module, 0x10);
    let parent = b.process(10, &["app"]);
    let child = b.process(11, &["app"]);
    let site = b.site(parent, node, Domain::Native);
    b.bin(SECOND, &[(site, counters(100, 1, 100, 1))]);
    if let Record::Process(process) = &mut b.records[4] {
        assert_eq!(process.pid, 11);
        (process.inherited_blocks, process.inherited_bytes) = (1, 100);
    }
    for process in [parent, child] {
        let live = ProcessTotals {
            process,
            live_blocks: 1,
            live_bytes: 100,
            ..Default::default()
        };
        b.totals(live);
    }
    let stats = stats_json(&b.records, origin());
    assert_eq!(stats["totals"]["live_bytes"], 100);
    assert_eq!(stats["processes"][1]["totals"]["live_bytes"], 100);
    // Also where no bin was written that says so.
    b.records.retain(|record| !matches!(record, Record::Bin(_)));
    assert_eq!(
        stats_json(&b.records, origin())["totals"]["live_bytes"],
        100
    );
}

#[test]
fn instants_resolve_to_the_nearest_bin() {
    let records = training();
    let model = Model::new(&records, origin());
    let at = |text: &str| {
        let span = Span::at(&model, &Instant::parse(text).unwrap()).unwrap();
        (
            span.to().resolved_ns() / SECOND,
            span.resolution_ns() / SECOND,
        )
    };
    assert_eq!(at("start"), (0, 0));
    assert_eq!(at("+0s"), (0, 0));
    assert_eq!(at("+900ms"), (1, 1));
    assert_eq!(at("+25s"), (1, 1));
    assert_eq!(at("+40s"), (60, 59));
    assert_eq!(at("+9h"), (192, 1));
    assert_eq!(at("end"), (192, 0));
    assert_eq!(at("peak"), (127, 0));
    assert_eq!(at("+190s"), (191, 131));
    assert_eq!(at("main left"), (191, 0));
    assert_eq!(at("22:14:20"), (60, 59));
    assert_eq!(at("22:16"), (191, 131));
    let error = |text: &str| {
        let error = Instant::parse(text)
            .and_then(|at| Span::at(&model, &at))
            .unwrap_err();
        format!("{error}\n{}", error.hint())
    };
    assert_snapshot!(error("lunch"), @r"
    no instant is named `lunch` in this recording
    use `start`, `end`, `peak`, a span (`+90s`), a time of day (`14:05`) or a mark: `main left`, `python ready`
    ");
    assert_snapshot!(error("+soon"), @r"
    `+soon` is no span of time
    spans look like `+90s`, `+500ms`, `+1m30s`, `+2h`
    ");
    assert_snapshot!(error("25:00"), @r"
    `25:00` is no time of day
    times of day look like `14:05` or `14:05:02`
    ");
    assert_snapshot!(error("12:00"), @r"
    the recording does not reach 12:00:00: it runs from 22:13:20 to 22:16:32
    `start` and `end` always work
    ");
    let reversed = Span::between(&model, &Instant::End, &Instant::Start);
    assert_eq!(reversed.unwrap_err(), InstantError::Reversed);
}

/// The heading and the live bytes of each process in an order of their own.
fn usual(records: &[Record]) -> (String, Vec<i64>) {
    let mut live = Vec::new();
    let text = report(records, |model, stacks, out| {
        let by = GroupBy::Process;
        let top = Top::new(
            model,
            stacks,
            TopQuery {
                by,
                ..by_site(model)
            },
        );
        text::top(model, stacks, &top, styled(300), out)
    });
    let model = Model::new(records, origin());
    for figures in model.figures(&Span::usual(&model)) {
        live.push(figures.live_bytes);
    }
    (text.lines().next().unwrap().to_owned(), live)
}

#[test]
fn without_an_instant_python_is_shown_as_it_left_main() {
    let mut b = Builder::new(&["python"]);
    let node = b.native(0, 0, 0x10);
    let shell = b.process(10, &["sh"]);
    let python = b.process(10, &["python"]);
    let child = b.process(11, &["true"]);
    let sites = [shell, python, child].map(|process| b.site(process, node, Domain::Native));
    let held = |bytes| counters(bytes, 1, 1000, 9);
    b.bin(SECOND, &[(sites[0], held(10)), (sites[2], held(50))]);
    b.process_end(shell, SECOND, None);
    b.process_end(child, SECOND, Some(0));
    b.bin(2 * SECOND, &[(sites[1], held(500))]);
    b.mark("main left", 2 * SECOND, python);
    // A little may still be allocated while the interpreter ends.
    b.bin(3 * SECOND, &[(sites[1], held(550))]);
    b.bin(4 * SECOND, &[(sites[1], held(20))]);
    let without_end = b.records.clone();
    b.process_end(python, 4 * SECOND, Some(0));
    b.end(4 * SECOND);
    let text = "560 B live in 3 blocks when the main thread left __main__ (60 B of it in \
                processes that had ended), in 3 processes";
    assert_eq!(usual(&b.records), (text.into(), vec![10, 500, 50]));
    assert_eq!(usual(&without_end).1, [10, 500, 50]);

    // Since an instant after that one: to the end.
    let model = Model::new(&b.records, origin());
    let since = |at| {
        let span = Span::since(&model, &Instant::After(at * SECOND)).unwrap();
        (
            span.to().resolved_ns() / SECOND,
            model.figures(&span)[1].delta_bytes,
        )
    };
    assert_eq!(since(1), (2, 500));
    assert_eq!(since(2), (4, -480));
    assert_eq!(since(3), (4, -530));
}

#[test]
fn growth_since_the_peak_leaves_out_who_had_left_before() {
    let mut b = Builder::new(&["python"]);
    let node = b.native(0, 0, 0x10);
    let processes = [10, 11].map(|pid| b.process(pid, &["python"]));
    let sites = processes.map(|process| b.site(process, node, Domain::Native));
    let held = |bytes| counters(bytes, 1, 3000, 9);
    b.bin(SECOND, &[(sites[0], held(1000)), (sites[1], held(100))]);
    b.mark("main left", SECOND, processes[1]);
    b.bin(2 * SECOND, &[(sites[0], held(2000)), (sites[1], held(3))]);
    b.peak(2 * SECOND, &[(sites[0], 2000, 1), (sites[1], 3, 1)]);
    b.process_end(processes[1], 2 * SECOND, Some(0));
    b.bin(3 * SECOND, &[(sites[0], held(1500))]);
    b.mark("main left", 3 * SECOND, processes[0]);
    b.bin(4 * SECOND, &[(sites[0], held(1))]);
    b.process_end(processes[0], 4 * SECOND, Some(0));
    b.end(4 * SECOND);
    let model = Model::new(&b.records, origin());
    let span = Span::since(&model, &Instant::Peak).unwrap();
    let figures = model.figures(&span).into_iter();
    let growth: Vec<_> = figures.map(|figures| figures.delta_bytes).collect();
    assert_eq!(growth, [-500, 0]);
}

#[test]
fn a_process_that_goes_on_in_threads_is_shown_at_its_end() {
    let mut b = Builder::new(&["python"]);
    let node = b.native(0, 0, 0x10);
    let process = b.process(10, &["python"]);
    let site = b.site(process, node, Domain::Native);
    b.bin(SECOND, &[(site, counters(500, 1, 1000, 9))]);
    b.mark("main left", SECOND, process);
    b.bin(2 * SECOND, &[(site, counters(551, 1, 1000, 9))]);
    b.bin(3 * SECOND, &[(site, counters(20, 1, 1000, 9))]);
    b.process_end(process, 3 * SECOND, Some(0));
    b.end(3 * SECOND);
    let text = "20 B live in 1 block at the end, in 1 process";
    assert_eq!(usual(&b.records), (text.into(), vec![20]));
}

#[test]
fn of_several_processes_each_is_shown_as_it_left() {
    let mut b = Builder::new(&["python"]);
    let node = b.native(0, 0, 0x10);
    let processes = [10, 11, 12].map(|pid| b.process(pid, &["python"]));
    let [parent, spawned, forked] = processes;
    let sites = processes.map(|process| b.site(process, node, Domain::Native));
    let held = |bytes| counters(bytes, 1, 1000, 9);
    let all = [held(1000), held(100), held(10)];
    b.bin(SECOND, &[0, 1, 2].map(|at| (sites[at], all[at])));
    b.mark("main left", SECOND, spawned);
    b.bin(2 * SECOND, &[(sites[1], held(3))]);
    b.process_end(spawned, 2 * SECOND, Some(0));
    b.mark("main left", 2 * SECOND, parent);
    b.bin(3 * SECOND, &[(sites[0], held(7)), (sites[2], held(20))]);
    b.process_end(parent, 3 * SECOND, Some(0));
    b.bin(4 * SECOND, &[(sites[2], held(30))]);
    b.process_end(forked, 4 * SECOND, Some(0));
    b.end(4 * SECOND);
    let text = "1.1 KiB live in 3 blocks when each process left __main__ or ended (1.1 KiB of it in \
                processes that had ended), in 3 processes";
    assert_eq!(usual(&b.records), (text.into(), vec![1000, 100, 30]));
    let model = Model::new(&b.records, origin());
    let since = Span::since(&model, &Instant::After(2 * SECOND)).unwrap();
    let growth: Vec<i64> = model
        .figures(&since)
        .iter()
        .map(|figures| figures.delta_bytes)
        .collect();
    assert_eq!(growth, [0, 0, 20], "who had left does not change");
    assert_snapshot!(show_summary(&b.records, origin(), 80).lines().take(3).collect::<Vec<_>>().join("\n"), @r"
    peak 1.1 KiB after 1.0 s; 1.1 KiB live in 3 blocks when each process left
          __main__ or ended (1.1 KiB of it in processes that had ended)
    python (pid 10 and 2 more processes), 22:13:20-22:13:24 (4.0 s), exact, complete
    ");
}

#[test]
fn the_clock_follows_the_offset() {
    let records = training();
    let model = Model::new(
        &records,
        Origin {
            utc_offset_seconds: 2 * 3600,
            ..origin()
        },
    );
    let span = Span::at(&model, &Instant::parse("00:14:20").unwrap()).unwrap();
    assert_eq!(span.to().resolved_ns(), 60 * SECOND);
}

#[test]
fn live_at_the_peak_is_exact() {
    let rows = top_json(&training(), |model, query| TopQuery {
        span: Span::at(model, &Instant::Peak).unwrap(),
        ..query
    });
    assert_eq!(rows["rows"][0]["function"], "load_batch");
    assert_eq!(rows["rows"][0]["live_bytes"], 1200 * MIB);
    assert_eq!(rows["rows"][0]["peak_bytes"], 1200 * MIB);
    assert_eq!(rows["sum"]["live_bytes"], 1223 * MIB);
}

#[test]
fn a_site_has_a_series() {
    let records = training();
    let model = Model::new(&records, origin());
    let live: Vec<(usize, u64)> = model
        .series(0)
        .into_iter()
        .map(|(bin, counters)| (bin, counters.live_bytes))
        .collect();
    assert_eq!(live, [(1, 10 * MIB), (2, 30 * MIB), (3, 0)]);
}

/// Every report of `records`, at a width; panics are what it is for.
fn all_reports(records: &[Record], width: usize) {
    let model = Model::new(
        records,
        Origin {
            ended: false,
            ..origin()
        },
    );
    let mut stacks = Stacks::new(&model);
    let mut out = Vec::new();
    let style = Style {
        width,
        colour: true,
        boxes: true,
    };
    let from_start = Span::between(&model, &Instant::Start, &Instant::End).unwrap();
    let at_peak = Span::at(&model, &Instant::Peak).unwrap();
    let since = Span::since(&model, &Instant::After(1)).unwrap();
    for from in [None, Some(Instant::Start), Some(Instant::After(1))] {
        let query = LeaksQuery {
            from,
            memory_limit: Some(1 << 20),
            suppressions: Suppression::shipped(),
            ..LeaksQuery::default()
        };
        let leaks = Leaks::new(&model, &mut stacks, query).unwrap();
        let fails = vec![true; leaks.suspects.len()];
        text::leaks(&model, &stacks, &leaks, false, style, &mut out).unwrap();
        text::leaks(&model, &stacks, &leaks, true, style, &mut out).unwrap();
        text::leaks_markdown(&model, &stacks, &leaks, &mut out).unwrap();
        text::check(&model, &stacks, &leaks, &fails, style, &mut out).unwrap();
        json::leaks(&model, &stacks, &leaks, &mut out).unwrap();
        json::check(&model, &stacks, &leaks, &fails, None, &mut out).unwrap();
        ci::junit(&model, &stacks, &leaks, &fails, &mut out).unwrap();
        ci::github(&model, &stacks, &leaks, &fails, "/", &mut out).unwrap();
    }
    for span in [
        Span::whole(&model),
        Span::usual(&model),
        from_start,
        since,
        at_peak,
    ] {
        for by in [
            GroupBy::Site,
            GroupBy::Line,
            GroupBy::Function,
            GroupBy::File,
            GroupBy::Library,
            GroupBy::Process,
            GroupBy::Thread,
        ] {
            for measure in [Measure::Live, Measure::Growth, Measure::Temporary] {
                let query = TopQuery {
                    span,
                    by,
                    measure,
                    limit: Some(3),
                    ..by_site(&model)
                };
                let top = Top::new(&model, &mut stacks, query);
                text::top(&model, &stacks, &top, style, &mut out).unwrap();
                json::top(&model, &stacks, &top, &mut out).unwrap();
            }
        }
        for inverted in [false, true] {
            let query = TreeQuery {
                span,
                inverted,
                ..from_outermost(&model)
            };
            let tree = Tree::new(&model, &mut stacks, query);
            text::tree(&model, &stacks, &tree, style, &mut out).unwrap();
            json::tree(&model, &stacks, &tree, &mut out).unwrap();
        }
        for file in ["train.py", "a"] {
            let file =
                Lines::find_file(&model, &mut stacks, file).unwrap_or_else(|_| file.to_owned());
            for inclusive in [false, true] {
                let query = LinesQuery {
                    span,
                    inclusive,
                    ..in_order(&model)
                };
                let lines =
                    Lines::new(&model, &mut stacks, query, file.clone(), Some("one\ntwo\n"));
                text::lines(&model, &lines, style, &mut out).unwrap();
                json::lines(&model, &lines, &mut out).unwrap();
            }
        }
    }
    all_diffs(&model, &mut stacks, style);
    let stats = Stats::new(&model);
    text::stats(&model, &stats, style, &mut out).unwrap();
    json::stats(&model, &stats, &mut out).unwrap();
    let summary = Summary::new(&model, &mut stacks, Some(2));
    text::summary(&model, &stacks, &summary, style, &mut out).unwrap();
    json::summary(&model, &stacks, &summary, &mut out).unwrap();
}

fn all_diffs<'a>(model: &Model<'a>, stacks: &mut Stacks<'a>, style: Style) {
    let mut out = Vec::new();
    let span = Span::between(model, &Instant::Start, &Instant::End).unwrap();
    for by in [
        GroupBy::Site,
        GroupBy::Line,
        GroupBy::File,
        GroupBy::Process,
    ] {
        let query = DiffQuery {
            by,
            sort: None,
            unit: Unit::Bytes,
            limit: Some(3),
            filter: None,
        };
        let diff = Diff::within(model, stacks, span, query.clone());
        let after = report::json::DiffSide {
            model,
            stacks,
            span: &span,
        };
        text::diff(None, &after, &diff, style, &mut out).unwrap();
        json::diff(None, &after, &diff, &mut out).unwrap();
        let mut others = Stacks::new(model);
        let (mut before, mut after) = (
            Side {
                model,
                stacks,
                span: Span::at(model, &Instant::Peak).unwrap(),
            },
            Side {
                model,
                stacks: &mut others,
                span: Span::whole(model),
            },
        );
        let diff = Diff::across(&mut before, &mut after, query.clone());
        let sides = [&before, &after].map(|side| report::json::DiffSide {
            model,
            stacks: side.stacks,
            span: &side.span,
        });
        text::diff(Some(&sides[0]), &sides[1], &diff, style, &mut out).unwrap();
        json::diff(Some(&sides[0]), &sides[1], &diff, &mut out).unwrap();
        if let Some(survivors) = Survivors::new(model) {
            let survived = Survived::new(model, stacks, &survivors, span, 77, &query);
            text::survived(model, stacks, &survived, style, &mut out).unwrap();
            json::survived(model, stacks, &survived, &mut out).unwrap();
            let all: Vec<u32> = (0..).take(survivors.len()).collect();
            let history = survivors.history(&all);
            assert_eq!(history.alive.len(), history.instants.len());
            assert_eq!(history.born.len(), history.cohorts.len());
            assert!(survivors.births_by(u64::MAX) >= survivors.births_by(0));
        }
    }
}

#[test]
fn no_width_is_too_narrow() {
    for width in [0, 1, 2, 5, 10, 20, 39, 60, 300] {
        all_reports(&training(), width);
    }
}

#[test]
fn tables_keep_to_the_width() {
    use unicode_width::UnicodeWidthStr;
    for width in [40, 60, 80, 100, 120] {
        for by in [GroupBy::Site, GroupBy::Line, GroupBy::File, GroupBy::Thread] {
            for line in show_top(by, width).lines() {
                let pasted = line.contains("leakline ");
                assert!(pasted || line.width() <= width, "{width}: {line}");
            }
        }
    }
}

mod arbitrary;
mod consistent;
mod diff;
mod leaks;
mod why;

/// A program that starts many others has as many looks for lost blocks.
#[test]
fn of_many_processes_few_looks_are_told_of() {
    let mut b = Builder::new(&["sh"]);
    for number in 0..6 {
        let process = b.process(100 + number, &["tool"]);
        b.records
            .push(Record::Lost(leakline_recording::record::Lost {
                graph: number + 1,
                process,
                at_ns: 1000,
                name: "exiting".into(),
                paused_ns: 0,
                why: String::new(),
                knows_all: true,
                threads: 0,
                before: 0,
                blocks: 10,
                bytes: 0,
                root_bytes: 4096,
                block_bytes: 1024 * u64::from(number % 4),
                unread_bytes: 0,
                microseconds: 0,
                sites: Vec::new(),
            }));
    }
    let text = report(&b.records, |model, stacks, out| {
        let lost = crate::Lost::new(model, stacks, None);
        text::lost_alone(model, stacks, &lost, styled(200), out)
    });
    let looks: Vec<&str> = text.lines().filter(|line| line.contains("look")).collect();
    assert_eq!(looks.len(), 4, "{text}");
    // Those with most, in order.
    for (line, number) in looks.iter().zip([2, 3, 4]) {
        assert!(line.starts_with(&format!("look {number} ")), "{text}");
    }
    assert_eq!(
        looks[3],
        "and 3 looks, each at another process: 1.0 KiB in blocks; 30 native blocks asked for (--json has all)"
    );
}
