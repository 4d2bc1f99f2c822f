//! What `leaks` says of recordings made by hand, which tell of no cohorts: the
//! first made is then the first to die.

use insta::assert_snapshot;
use leakline_recording::record::{Domain, Limit, Limited, Limits, Record};
use serde_json::Value;

use crate::heap::{Graph, Heap};
use crate::leaks::{Findings, Leaks, LeaksQuery, LimitOf, Suppression};
use crate::model::Model;
use crate::report::{Style, ci, json, text};
use crate::stack::Stacks;
use crate::testing::{Builder, By, HeapBuilder, SECOND, counters, origin};
use crate::verdict::Verdict;
use crate::{Filter, Instant};

const SECONDS: u64 = 720;

/// Twelve minutes of two workers: each second each of them loses 10 sessions
/// of 200 bytes, with a list of 100 bytes; a cache fills in the first three
/// minutes; an export takes 8 MiB for a while.
fn workers() -> Vec<Record> {
    let mut b = Builder::new(&["gunicorn", "app"]);
    let module = b.code("/srv/app/app.py", "<module>", 1);
    let sessions = b.code("/srv/app/sessions.py", "load_session", 38);
    let views = b.code("/srv/app/views.py", "render", 10);
    let rows = b.code("/srv/app/export.py", "rows", 70);
    let decoder = b.code(
        "/usr/lib/python3.11/json/decoder.py",
        "JSONDecoder.raw_decode",
        350,
    );
    let mut sites = Vec::new();
    for pid in [21, 22] {
        let process = b.process(pid, &["/usr/bin/python3.11", "app"]);
        let outer = b.python(0, module, 9, true);
        let load = b.python(outer, sessions, 3, false);
        let decode = b.python(load, decoder, 3, false);
        let render = b.python(outer, views, 2, false);
        let export = b.python(outer, rows, 7, false);
        sites.push(b.site(process, load, Domain::Obj));
        sites.push(b.site(process, decode, Domain::Obj));
        sites.push(b.site(process, render, Domain::Obj));
        sites.push(b.site(process, export, Domain::Mem));
    }
    for second in 1..=SECONDS {
        let lost = second * 10;
        let cached = (second * 7).min(1200);
        let exported = if (300..360).contains(&second) {
            8 << 20
        } else {
            0
        };
        let exported_blocks = exported >> 12;
        let made = if second < 300 { 0 } else { 8 << 20 };
        let now: Vec<_> = sites
            .chunks(4)
            .flat_map(|sites| {
                [
                    (sites[0], counters(lost * 200, lost, lost * 200, lost)),
                    (sites[1], counters(lost * 100, lost, lost * 100, lost)),
                    (
                        sites[2],
                        counters(cached * 2000, cached, cached * 2000, cached),
                    ),
                    (
                        sites[3],
                        counters(exported, exported_blocks, made, made >> 12),
                    ),
                ]
            })
            .collect();
        b.bin(second * SECOND, &now);
    }
    b.end(SECONDS * SECOND);
    b.records
}

fn ask<R>(
    records: &[Record],
    query: LeaksQuery,
    answer: impl for<'a> FnOnce(&Model<'a>, &Stacks<'a>, &Leaks) -> R,
) -> R {
    let model = Model::new(records, origin());
    let mut stacks = Stacks::new(&model);
    let leaks = Leaks::new(&model, &mut stacks, query).unwrap();
    answer(&model, &stacks, &leaks)
}

fn shown(records: &[Record], query: LeaksQuery, width: usize) -> String {
    ask(records, query, |model, stacks, leaks| {
        let style = Style {
            width,
            colour: false,
            boxes: false,
        };
        let mut out = Vec::new();
        text::leaks(model, stacks, leaks, false, style, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    })
}

fn limited() -> LeaksQuery {
    LeaksQuery {
        memory_limit: Some(2 << 30),
        ..LeaksQuery::default()
    }
}

#[test]
fn causes_in_a_few_lines() {
    assert_snapshot!(shown(&workers(), limited(), 80), @r"
    LEAK: 1 cause, 352 ± 1 KiB/min
          limit of 2.00 GiB reached in about 4 d 02 h (4 d 02 h to 4 d 03 h)
    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s),
          exact, complete

    L1 leaking       352 ± 1 KiB/min, steady since 22:13:20
       made in       load_session  app/sessions.py:41  <- your code
       held by       not known: no heap graph
       evidence      4.1 MiB live in 28,800 blocks of 4 sites; all 27,360 blocks
                     made since then stayed; both processes alike

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.
    Any other growth above 1.1 KiB/min would show.

    next: leakline lines /srv/app/sessions.py train.4121.leakline   (its source)
          leakline top --sort growth --from start train.4121.leakline
    ");
}

/// The causes of workers, with a heap graph in which a dict of `app.cache` holds the
/// sessions.
fn held(
    records: &[Record],
    write: impl for<'a> Fn(&Model<'a>, &Stacks<'a>, &Leaks, &mut Vec<u8>),
) -> String {
    let model = Model::new(records, origin());
    let mut stacks = Stacks::new(&model);
    let mut leaks = Leaks::new(&model, &mut stacks, limited()).unwrap();
    let mut b = HeapBuilder::new();
    let module = b.module("app.cache");
    let cache = b.node("dict", 1000);
    b.edge(module, By::Named("SESSIONS"), cache);
    let members = leaks.suspects[0].members.clone();
    for at in 0..20 {
        let session = b.node("app.Session", 200);
        b.site(session, members[at % 2]);
        b.edge(cache, By::Item("str"), session);
    }
    // Another place's.
    let other = b.node("Page", 200);
    b.edge(module, By::Named("PAGE"), other);
    b.site(other, 1000);
    let heap = Heap::new(Graph::read(b.parts(3)));
    let findings = Findings::new(&model, &mut stacks, (3, heap.references()), None);
    leaks.look_into(&model, &mut stacks, &heap, &findings);
    let mut out = Vec::new();
    write(&model, &stacks, &leaks, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn causes_name_who_holds_them() {
    let records = workers();
    let show = |width: usize| {
        held(&records, |model, stacks, leaks, out| {
            let style = Style {
                width,
                colour: false,
                boxes: false,
            };
            text::leaks(model, stacks, leaks, false, style, out).unwrap();
        })
    };
    assert_snapshot!(show(80), @r"
    LEAK: 1 cause, 352 ± 1 KiB/min
          limit of 2.00 GiB reached in about 4 d 02 h (4 d 02 h to 4 d 03 h)
    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s),
          exact, complete

    L1 leaking       352 ± 1 KiB/min, steady since 22:13:20
       made in       load_session  app/sessions.py:41  <- your code
       held by       app.cache.SESSIONS[*]
       evidence      4.1 MiB live in 28,800 blocks of 4 sites; all 27,360 blocks
                     made since then stayed; both processes alike

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.
    Any other growth above 1.1 KiB/min would show.

    next: leakline why L1 train.4121.leakline   (who holds it)
          leakline lines /srv/app/sessions.py train.4121.leakline   (its source)
    ");
    assert_snapshot!(show(120), @r"
    LEAK: 1 cause, 352 ± 1 KiB/min; limit of 2.00 GiB reached in about 4 d 02 h (4 d 02 h to 4 d 03 h)
    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s), exact, complete

       verdict         grows by     live  made in                                   your code  held by
    L1 leaking  352 ± 1 KiB/min  4.1 MiB  load_session app/sessions.py:41           the same   app.cache.SESSIONS[*]
                                          steady since 22:13:20
                                          all 27,360 blocks made since then stayed
                                          both processes alike

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.
    Any other growth above 1.1 KiB/min would show.

    next: leakline why L1 train.4121.leakline   (who holds it)
          leakline lines /srv/app/sessions.py train.4121.leakline   (its source)
    ");
    let json = held(&records, |model, stacks, leaks, out| {
        json::leaks(model, stacks, leaks, out).unwrap();
    });
    let report: Value = serde_json::from_str(&json).unwrap();
    let suspect = &report["suspects"][0];
    assert_eq!(suspect["held_by"]["path"], "app.cache.SESSIONS[*]");
    assert_eq!(suspect["held_by"]["steps"][1]["edge"], ".SESSIONS");
    assert_eq!(suspect["held_by_note"], Value::Null);
    assert_eq!(suspect["types"][0]["type"], "app.Session");
    assert_eq!(suspect["types"][0]["count"], 20);
}

#[test]
fn causes_in_a_table() {
    assert_snapshot!(shown(&workers(), limited(), 120), @r"
    LEAK: 1 cause, 352 ± 1 KiB/min; limit of 2.00 GiB reached in about 4 d 02 h (4 d 02 h to 4 d 03 h)
    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s), exact, complete

       verdict         grows by     live  made in                                   your code  held by
    L1 leaking  352 ± 1 KiB/min  4.1 MiB  load_session app/sessions.py:41           the same   not known
                                          steady since 22:13:20
                                          all 27,360 blocks made since then stayed
                                          both processes alike

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.
    Any other growth above 1.1 KiB/min would show.

    next: leakline lines /srv/app/sessions.py train.4121.leakline   (its source)
          leakline top --sort growth --from start train.4121.leakline   (all that grew)
    ");
}

#[test]
fn causes_for_a_ticket() {
    let table = ask(&workers(), LeaksQuery::default(), |model, stacks, leaks| {
        let mut out = Vec::new();
        text::leaks_markdown(model, stacks, leaks, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    });
    assert_snapshot!(table, @r"
    **LEAK: 1 cause, 352 ± 1 KiB/min**

    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s), exact, complete

    | | verdict | grows by | live | made in | your code | since | evidence |
    | --- | --- | ---: | ---: | --- | --- | --- | --- |
    | L1 | leaking | 352 ± 1 KiB/min | 4.1 MiB | `load_session app/sessions.py:41` | `load_session app/sessions.py:41` | 22:13:20 | 4.1 MiB live in 28,800 blocks of 4 sites; all 27,360 blocks made since then stayed; both processes alike |

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.
    Any other growth above 1.1 KiB/min would show.
    ");
}

#[test]
fn no_width_is_too_small() {
    let records = workers();
    for width in 1..150 {
        shown(&records, limited(), width);
    }
}

#[test]
fn nothing_found_says_what_would_have_been() {
    let query = LeaksQuery {
        filter: Some(Filter::new("render")),
        ..LeaksQuery::default()
    };
    assert_snapshot!(shown(&workers(), query, 80), @r"
    No matching leak found in 12 min 00 s: growth above 1.1 KiB/min would have shown
    gunicorn app (pid 21 and 1 more process), 22:13:20-22:25:20 (12 min 00 s),
          exact, complete

    Live memory went from 0 B to 8.7 MiB after warm-up.

    Not leaks: plateau 1 site 4.6 MiB, burst 1 site up to 16.0 MiB, start-up none.

    next: leakline top --sort growth --from start train.4121.leakline
    ");
    assert_snapshot!(shown(&[], LeaksQuery::default(), 80), @r"
    UNCLEAR: nothing ran after the program had started
    unknown program (no process), 00:00:00-00:00:00 (0 s), mode not known, complete

    Live memory went from 0 B to 0 B after warm-up.

    Not leaks: plateau none, burst none, start-up none.

    next: leakline top --sort growth --from start train.4121.leakline
    ");
}

#[test]
fn json_has_what_is_promised() {
    let report: Value = ask(&workers(), limited(), |model, stacks, leaks| {
        let mut out = Vec::new();
        json::leaks(model, stacks, leaks, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    });
    assert_eq!(report["schema"], "leakline.leaks");
    assert_eq!(report["verdict"], "leaking");
    let [suspect] = &report["suspects"].as_array().unwrap()[..] else {
        panic!("{}", report["suspects"]);
    };
    assert_eq!(suspect["id"], "L1");
    assert_eq!(suspect["function"], "load_session");
    assert_eq!(suspect["line"], 41);
    assert_eq!(suspect["held_by"], Value::Null);
    assert_eq!(suspect["sites"].as_array().unwrap().len(), 2);
    assert_eq!(suspect["sites"][0]["sites"], 2);
    // Two workers, ten a second, 300 bytes.
    let rate = suspect["rate_bytes_per_second"].as_f64().unwrap();
    assert!((rate - 6000.0).abs() < 60.0, "{rate}");
    let low = suspect["rate_interval"][0].as_f64().unwrap();
    let high = suspect["rate_interval"][1].as_f64().unwrap();
    assert!(low <= 6000.0 && 6000.0 <= high && high - low < 600.0);
    for share in suspect["per_process"].as_array().unwrap() {
        assert_eq!(share["live_bytes"], SECONDS * 10 * 300);
    }
    let verdicts: Vec<&Value> = report["acquitted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["verdict"])
        .collect();
    assert_eq!(verdicts, ["plateau", "burst"]);
    let left = (2_u64 << 30) - report["limit"]["rss_bytes"].as_u64().unwrap();
    let reached = report["limit"]["reached_in_seconds"].as_f64().unwrap();
    assert!((reached / (left as f64 / rate) - 1.0).abs() < 1e-9);
}

#[test]
fn what_is_suppressed_is_counted() {
    let query = LeaksQuery {
        suppressions: Suppression::parse("leak:^load_session$").unwrap(),
        ..LeaksQuery::default()
    };
    ask(&workers(), query, |_, _, leaks| {
        assert!(leaks.suspects.is_empty());
        assert_eq!(leaks.suppressed[0].sites, 2);
        assert_eq!(leaks.suppressed[0].bytes, 2 * SECONDS * 10 * 300);
    });
}

/// Of many sites those are judged that rose most, and the others counted.
#[test]
fn what_there_is_no_memory_for_is_not_judged_and_counted() {
    let query = |most_sites| LeaksQuery {
        most_sites,
        ..LeaksQuery::default()
    };
    let found = |most_sites| {
        ask(&workers(), query(most_sites), |_, stacks, leaks| {
            let [cause] = &leaks.suspects[..] else {
                panic!("{:?}", leaks.suspects);
            };
            let head = cause.sites[0].head.made_in.unwrap();
            assert_eq!(stacks.name(stacks.frame(head).function), "load_session");
            assert_eq!(cause.verdict, Verdict::Leaking);
            (cause.rate.bytes_per_second, leaks.not_judged)
        })
    };
    let (rate, not_judged) = found(Some(8));
    assert!((rate - 6000.0).abs() < 60.0, "{rate}");
    assert_eq!(not_judged, (0, 0), "there are no more");
    // Without the lists.
    let (rate, not_judged) = found(Some(6));
    assert!((rate - 4000.0).abs() < 60.0, "{rate}");
    assert_eq!(not_judged, (2, 2 * SECONDS * 10 * 100));
}

#[test]
fn growth_counts_between_the_instants_asked_for() {
    let query = LeaksQuery {
        from: Some(Instant::parse("+240s").unwrap()),
        to: Some(Instant::parse("+700s").unwrap()),
        ..LeaksQuery::default()
    };
    ask(&workers(), query, |_, _, leaks| {
        assert_eq!((leaks.from_ns, leaks.to_ns), (240 * SECOND, 700 * SECOND));
        assert_eq!(leaks.verdict(), Verdict::Leaking);
        assert_eq!(leaks.suspects.len(), 1);
        assert!(leaks.suspects[0].since_ns >= 230 * SECOND);
        // The cache was full by then.
        let plateau = leaks
            .acquitted
            .iter()
            .find(|one| one.verdict == Verdict::Plateau);
        assert!(plateau.is_none());
    });
}

#[test]
fn rounds_that_the_program_marked_are_counted() {
    let mut records = workers();
    for round in 0..72 {
        records.insert(
            records.len() - 1,
            Record::Mark(leakline_recording::record::Mark {
                name: "request".into(),
                at_ns: (round + 1) * 10 * SECOND,
                process: Some(0),
            }),
        );
    }
    ask(&records, LeaksQuery::default(), |_, _, leaks| {
        assert_eq!(leaks.rounds.as_deref(), Some("request"));
        assert_eq!(leaks.verdict(), Verdict::Leaking);
    });
}

#[test]
fn a_check_is_told_to_machines() {
    let records = workers();
    ask(&records, LeaksQuery::default(), |model, stacks, leaks| {
        let mut out = Vec::new();
        ci::junit(model, stacks, leaks, &[true], &mut out).unwrap();
        ci::github(model, stacks, leaks, &[true], "/srv/app", &mut out).unwrap();
        assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites tests="2" failures="1" time="720.000">
          <testsuite name="leakline" tests="2" failures="1" time="720.000">
            <testcase classname="gunicorn app" name="load_session (app/sessions.py)">
              <failure type="leaking" message="L1 leaking 352 ± 1 KiB/min, made in load_session app/sessions.py:41; 4.1 MiB live in 28,800 blocks of 4 sites; all 27,360 blocks made since then stayed; both processes alike">
        load_session app/sessions.py:41
        &lt;module&gt; app/app.py:10
              </failure>
            </testcase>
            <testcase classname="gunicorn app" name="no other growth"><system-out>growth above 20 B a second would have shown</system-out></testcase>
          </testsuite>
        </testsuites>
        ::error file=sessions.py,line=41,title=memory leak::L1 leaking 352 ± 1 KiB/min, made in load_session app/sessions.py:41; 4.1 MiB live in 28,800 blocks of 4 sites; all 27,360 blocks made since then stayed; both processes alike
        "#);
        let baseline = ci::Baseline::of(stacks, leaks);
        assert!(baseline.knows(stacks, &leaks.suspects[0]));
        assert!(!ci::Baseline::default().knows(stacks, &leaks.suspects[0]));
    });
}

/// The workers, whose resident memory grows with what they lose from 50 MB on, and
/// these limits, as they were a minute after the start.
fn under(limits: &[(u32, Limited, u64, u64)]) -> Vec<Record> {
    const AT: u64 = 60;
    let rss = |second: u64| 50_000_000 + second * 3000;
    let mut records = workers();
    let mut at = 0;
    for (place, record) in records.iter_mut().enumerate() {
        if let Record::Bin(bin) = record {
            bin.rss = [0, 1]
                .map(|process| (process, rss(bin.end_ns / SECOND)))
                .to_vec();
            if bin.end_ns == AT * SECOND {
                at = place + 1;
            }
        }
    }
    for process in [1, 0] {
        let of_process = limits.iter().filter(|limit| limit.0 == process);
        let limits = of_process.map(|&(_, of, bytes, used_bytes)| Limit {
            of,
            bytes,
            used_bytes,
        });
        let limits = Record::Limits(Limits {
            process,
            at_ns: AT * SECOND,
            rss_bytes: rss(AT),
            limits: limits.collect(),
        });
        records.insert(at, limits);
    }
    records
}

#[test]
fn a_recorded_limit_is_forecast() {
    let forecast = |limits: &[(u32, Limited, u64, u64)]| {
        let records = under(limits);
        ask(&records, LeaksQuery::default(), |_, _, leaks| {
            leaks.forecast
        })
    };
    assert_eq!(forecast(&[]), None);
    let grown = (SECONDS - 60) * 3000;
    // Both workers are in the group: each loses 3,000 bytes a second.
    let group = Limited::ControlGroup(0);
    let both = [
        (0, group, 200_000_000, 110_000_000),
        (1, group, 200_000_000, 110_000_000),
    ];
    let found = forecast(&both).unwrap();
    assert_eq!(found.of, LimitOf::ControlGroup);
    assert_eq!(found.used_bytes, 110_000_000 + 2 * grown);
    let left = (200_000_000 - found.used_bytes) as f64;
    let about = found.reached_in_seconds.unwrap();
    assert!((about / (left / 6000.0) - 1.0).abs() < 0.01, "{about}");
    let (soonest, latest) = found.interval.unwrap();
    assert!(soonest <= about && about <= latest.unwrap());

    // One of them alone: half as fast.
    let found = forecast(&both[1..]).unwrap();
    assert_eq!(found.used_bytes, 110_000_000 + grown);
    let left = (200_000_000 - found.used_bytes) as f64;
    let about = found.reached_in_seconds.unwrap();
    assert!((about / (left / 3000.0) - 1.0).abs() < 0.01, "{about}");

    // What is reached first counts.
    let mut all = both.to_vec();
    all.push((1, Limited::AddressSpace, 1 << 30, (1 << 30) - 20_000_000));
    all.push((0, Limited::Data, 1 << 30, 60_000_000));
    let found = forecast(&all).unwrap();
    assert_eq!(found.of, LimitOf::AddressSpace(1));
    let left = (20_000_000 - grown) as f64;
    let about = found.reached_in_seconds.unwrap();
    assert!((about / (left / 3000.0) - 1.0).abs() < 0.01, "{about}");

    // What the user says goes before all of them.
    let told = ask(&under(&all), limited(), |_, _, leaks| leaks.forecast);
    assert_eq!(told.unwrap().of, LimitOf::Given);
    let text = shown(&under(&all), LeaksQuery::default(), 120);
    assert!(
        text.contains("address space limit (RLIMIT_AS) of 1.00 GiB reached in about 1 h "),
        "{text}"
    );
    // Nobody asked where nothing leaks.
    let late = LeaksQuery {
        filter: Some(Filter::new("nothing of the kind")),
        ..LeaksQuery::default()
    };
    let text = shown(&under(&all), late, 120);
    assert!(!text.contains("limit"), "{text}");
}
