//! `why` over graphs made by hand: what people write, and what they should read.

use insta::assert_snapshot;
use leakline_recording::record::{Domain, HeapGraph, Record};
use leakline_wire::graph::root;
use serde_json::Value;

use super::{report, styled};
use crate::heap::{Asked, Graph, Heap};
use crate::leaks::Findings;
use crate::report::text::Subject;
use crate::report::{json, text};
use crate::testing::{Builder, By, HeapBuilder, SECOND};

/// A recording of `app.py` with sites 0 to 2, and graphs 1 and 2.
fn recording() -> Vec<Record> {
    let mut b = Builder::new(&["python", "app.py"]);
    let process = b.process(21, &["/usr/bin/python3.11", "app.py"]);
    for (file, name, line) in [
        ("/srv/app/cache.py", "<module>", 7),
        ("/srv/app/views.py", "login", 88),
        ("/srv/app/sessions.py", "load_session", 41),
    ] {
        let code = b.code(file, name, line);
        let node = b.python(0, code, 0, true);
        b.site(process, node, Domain::Obj);
    }
    for (graph, name) in [(1, "warm"), (2, "end")] {
        b.records.push(Record::HeapGraph(HeapGraph {
            graph,
            process,
            at_ns: u64::from(graph) * 60 * SECOND,
            name: name.into(),
            paused_ns: 0,
            values: false,
        }));
    }
    b.end(130 * SECOND);
    b.records
}

/// What gives a module's variable `SESSIONS` so many sessions.
fn sessions(count: usize) -> HeapBuilder {
    let mut b = HeapBuilder::new();
    let module = b.module("app.cache");
    let cache = b.node("dict", 100 * count as u64);
    b.site(cache, 0);
    b.edge(module, By::Named("SESSIONS"), cache);
    let class = b.node("type", 1064);
    b.class("app.Session", class);
    b.edge(module, By::Named("Session"), class);
    let user_class = b.node("type", 1064);
    b.class("app.User", user_class);
    b.edge(module, By::Named("User"), user_class);
    for _ in 0..count {
        let session = b.node("app.Session", 48);
        b.site(session, 1);
        let key = b.node("str", 60);
        b.edge(cache, By::Item("str"), session);
        b.edge(cache, By::Key, key);
        let dict = b.node("dict", 104);
        b.edge(session, By::Attribute("__dict__"), dict);
        let history = b.node("list", 120);
        b.site(history, 2);
        b.edge(dict, By::Named("history"), history);
        for place in 0..3 {
            let entry = b.node("dict", 232);
            b.site(entry, 2);
            b.edge(history, By::Index(place), entry);
        }
        let user = b.node("app.User", 300);
        b.edge(dict, By::Named("user"), user);
    }
    b
}

fn heap(builder: &HeapBuilder) -> Heap {
    Heap::new(Graph::read(builder.parts(2)))
}

fn show(
    builder: &HeapBuilder,
    earlier: Option<&HeapBuilder>,
    name: &str,
    asked: &Asked,
    width: usize,
) -> String {
    let heap = heap(builder);
    let mut answer = heap.why(asked, 3);
    if let Some(earlier) = earlier {
        self::heap(earlier).compare(asked, &mut answer);
    }
    report(&recording(), |model, stacks, out| {
        let subject = Subject {
            name,
            graph: 2,
            earlier: earlier.map(|_| 1),
            trust: heap.graph.trust(),
            referents: true,
            findings: &Findings::new(model, stacks, (2, heap.references()), None),
        };
        text::why(model, stacks, &subject, &answer, None, styled(width), out)
    })
}

fn of_type(builder: &HeapBuilder, name: &str) -> String {
    let text = show(builder, None, name, &Asked::Type(name.into()), 80);
    // Without what is the same each time.
    let lines = text.lines().filter(|line| {
        !line.starts_with("heap graph")
            && !line.starts_with("python app.py")
            && !line.starts_with("next:")
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[test]
fn a_cause_names_its_holder() {
    let asked = Asked::Sites(vec![2]);
    assert_snapshot!(show(&sessions(1000), Some(&sessions(400)), "L1", &asked, 80), @r"
    L1: 4,000 dict, list, retaining 796.9 KiB, held by 1,000 app.Session
    heap graph 2 (`end`, 22:15:20), compared with heap graph 1 (`warm`, 22:14:20)
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete

    module app.cache                     count   retained     since 1
    └─ SESSIONS        dict, keys [str]      1    1.4 MiB  +836.7 KiB
       └─ [*]          app.Session       1,000    1.2 MiB  +743.0 KiB
          └─ .history  list              1,000  796.9 KiB  +478.1 KiB
             └─ [*]    dict              3,000  679.7 KiB  +407.8 KiB

    All of them by this path; no second holder.
    app.Session are made in login app/views.py:88
    history are made in load_session app/sessions.py:41 (or their blocks were: free
          lists reuse them)

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
}

/// What gives a module's variable so many sessions under keys that were recorded.
fn keyed_sessions(count: usize) -> (HeapBuilder, u64) {
    let mut b = HeapBuilder::new();
    let module = b.module("app.cache");
    let cache = b.node("dict", 100 * count as u64);
    b.edge(module, By::Named("SESSIONS"), cache);
    let mut last = 0;
    for at in 0..count {
        last = b.node("app.Session", 48);
        b.keyed(cache, &format!("user-{at} \x1b[2J"), last);
        let dict = b.node("dict", 104);
        b.edge(last, By::Attribute("__dict__"), dict);
        let history = b.node("list", 120);
        b.edge(dict, By::Named("history"), history);
        for place in 0..3 {
            let entry = b.node("dict", 2320);
            b.edge(history, By::Index(place), entry);
        }
    }
    b.keys_left_out = 1;
    (b, last)
}

#[test]
fn the_key_of_one_object_is_a_step_and_of_many_an_example() {
    let (b, _) = keyed_sessions(1);
    let asked = Asked::Type("list".into());
    assert_snapshot!(show(&b, None, "list", &asked, 80), @r"
    list: 1 list, retaining 6.9 KiB, held by one app.Session
    heap graph 2 (`end`, 22:15:20); --graph 1 to 2 for others
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete
    not recorded: 1 key of dicts (of one dict 2,000 are, of a graph 8 MiB)

    module app.cache                            count  retained
    └─ SESSIONS               dict, keys [str]      1   7.2 KiB
       └─ ['user-0 \x1b[2J']  app.Session           1   7.1 KiB
          └─ .history         list                  1   6.9 KiB
             └─ [*]           dict                  3   6.8 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    Without app.Session 7.1 KiB would be free: it is the only holder.

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
    let (b, last) = keyed_sessions(3);
    let asked = Asked::Address(last);
    assert_snapshot!(show(&b, None, "it", &asked, 80), @r"
    it: 1 app.Session, retaining 7.1 KiB, held by one dict
    heap graph 2 (`end`, 22:15:20); --graph 1 to 2 for others
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete
    not recorded: 1 key of dicts (of one dict 2,000 are, of a graph 8 MiB)

       object        app.Session at 0x7f0000000440
       size          48 B
       count         1 reference
       held by       0x7f0000000080 dict ['user-2 \x1b[2J']   app.cache.SESSIONS
       refers to     .__dict__ dict at 0x7f00000004c0

    module app.cache                            count  retained
    └─ SESSIONS               dict, keys [str]      1  21.7 KiB
       └─ ['user-2 \x1b[2J']  app.Session           1   7.1 KiB
          └─ .history         list                  1   6.9 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    To let go: take out of SESSIONS what is done with, or give it a bound. Without
                SESSIONS 21.7 KiB would be free: it is the only holder.

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
}

#[test]
fn growth_is_found_whatever_the_keys_are() {
    let ((b, _), (earlier, _)) = (keyed_sessions(3), keyed_sessions(1));
    let asked = Asked::Type("Session".into());
    assert_snapshot!(show(&b, Some(&earlier), "Session", &asked, 80), @r"
    Session: 3 app.Session, retaining 21.2 KiB, held by one dict
    heap graph 2 (`end`, 22:15:20), compared with heap graph 1 (`warm`, 22:14:20)
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete
    not recorded: 1 key of dicts (of one dict 2,000 are, of a graph 8 MiB)

    module app.cache                                   count  retained    since 1
    └─ SESSIONS                      dict, keys [str]      1  21.7 KiB  +14.4 KiB
       └─ [*] e.g. 'user-0 \x1b[2J'  app.Session           3  21.2 KiB  +14.1 KiB
          └─ .history                list                  3  20.7 KiB  +13.8 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    To let go: take out of SESSIONS what is done with, or give it a bound. Without
                SESSIONS 21.7 KiB would be free: it is the only holder.

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
}

#[test]
fn a_wide_terminal_says_where_steps_were_made() {
    let asked = Asked::Type("Session".into());
    assert_snapshot!(show(&sessions(1000), Some(&sessions(400)), "Session", &asked, 120), @r"
    Session: 1,000 app.Session, retaining 1.2 MiB, held by one dict
    heap graph 2 (`end`, 22:15:20), compared with heap graph 1 (`warm`, 22:14:20)
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete

    module app.cache                     count   retained     since 1    shallow  made in
    └─ SESSIONS        dict, keys [str]      1    1.4 MiB  +836.7 KiB   97.7 KiB  <module> app/cache.py:7
       └─ [*]          app.Session       1,000    1.2 MiB  +743.0 KiB   46.9 KiB  login app/views.py:88
          ├─ .history  list              1,000  796.9 KiB  +478.1 KiB  117.2 KiB  load_session app/sessions.py:41
          └─ .user     app.User          1,000  293.0 KiB  +175.8 KiB  293.0 KiB

    All of them by this path; no second holder.
    To let go: take out of SESSIONS what is done with, or give it a bound. Without SESSIONS 1.4 MiB would be free: it is the
                only holder.

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
}

#[test]
fn memory_gathers_where_it_spreads() {
    assert_snapshot!(show(&sessions(1000), None, "", &Asked::Gathered, 80), @r"
    1.4 MiB in 8,005 objects; 1.4 MiB of it gathers in 1 place
    heap graph 2 (`end`, 22:15:20); --graph 1 to 2 for others
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete

    module app.cache                     count   retained
    └─ SESSIONS        dict, keys [str]      1    1.4 MiB
       └─ [*]          app.Session       1,000    1.2 MiB
          ├─ .history  list              1,000  796.9 KiB
          └─ .user     app.User          1,000  293.0 KiB

    next: leakline leaks train.4121.leakline   (what of it grows)
    ");
}

#[test]
fn json_has_steps_and_holders() {
    let heap = heap(&sessions(10));
    let answer = heap.why(&Asked::Type("app.Session".into()), 3);
    let text = report(&recording(), |model, stacks, out| {
        let subject = Subject {
            name: "app.Session",
            graph: 2,
            earlier: None,
            trust: heap.graph.trust(),
            referents: false,
            findings: &Findings::new(model, stacks, (2, heap.references()), None),
        };
        json::why(
            model,
            stacks,
            &subject,
            &answer,
            &crate::Lost::default(),
            out,
        )
    });
    let report: Value = serde_json::from_str(&text).unwrap();
    let path = &report["groups"][0]["paths"][0];
    assert_snapshot!(serde_json::to_string_pretty(&path["steps"][2]).unwrap(), @r#"
    {
      "edge": "[*]",
      "type": "app.Session",
      "types": [
        "app.Session"
      ],
      "keys": null,
      "key": null,
      "address": "0x7f0000000140",
      "site": 1,
      "made_in": {
        "function": "login",
        "file": "/srv/app/views.py",
        "line": 88
      },
      "count": 10,
      "bytes": 480,
      "retained_bytes": 12680,
      "native_bytes": 0,
      "repeats": false
    }
    "#);
    assert_eq!(path["words"], "app.cache.SESSIONS[*]");
    assert_eq!(path["holds"][0]["edge"], ".history");
    assert_eq!(report["groups"][0]["count"], 10);
    assert_eq!(report["schema"], "leakline.why");
}

#[test]
fn a_closure_holds_by_its_cells() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let function = b.node("function", 152);
    b.edge(module, By::Named("handler"), function);
    let cells = b.node("tuple", 48);
    b.edge(function, By::Attribute("__closure__"), cells);
    let cell = b.node("cell", 40);
    b.edge(cells, By::Local("seen"), cell);
    let list = b.node("list", 8000);
    b.edge(cell, By::Attribute("cell_contents"), list);
    for place in 0..100 {
        let item = b.node("bytes", 1000);
        b.edge(list, By::Index(place), item);
    }
    assert_snapshot!(of_type(&b, "bytes"), @r"
    bytes: 100 bytes, retaining 97.7 KiB, held by one list

    module app                    count   retained
    └─ handler          function      1  105.7 KiB
       └─ closure seen  list          1  105.5 KiB
          └─ [*]        bytes       100   97.7 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    To let go: take out of seen what is done with, or give it a bound. Without seen
                105.5 KiB would be free: it is the only holder.
    ");
}

#[test]
fn a_class_holds_by_its_attributes() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let class = b.node("type", 1064);
    b.class("app.Pool", class);
    b.edge(module, By::Named("Pool"), class);
    let dict = b.node("dict", 232);
    b.edge(class, By::Other, dict);
    let all = b.node("set", 8000);
    b.edge(dict, By::Named("instances"), all);
    for _ in 0..50 {
        let pool = b.node("app.Pool", 56);
        b.edge(all, By::Key, pool);
    }
    assert_snapshot!(of_type(&b, "Pool"), @r"
    Pool: 50 app.Pool, retaining 2.7 KiB, held by one set

    module app                  count  retained
    └─ Pool           type          1  11.8 KiB
       └─ .instances  set           1  10.5 KiB
          └─ [*]      app.Pool     50   2.7 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    To let go: take out of instances what is done with, or give it a bound. Without
                instances 10.5 KiB would be free: it is the only holder.
    ");
}

#[test]
fn a_cache_of_c_is_a_step_of_its_own() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let cache = b.node("functools._lru_cache_wrapper", 120);
    b.edge(module, By::Named("render"), cache);
    let dict = b.node("dict", 36_000);
    b.edge(cache, By::Other, dict);
    for _ in 0..100 {
        let page = b.node("Page", 4000);
        b.edge(dict, By::Item("int"), page);
    }
    assert_snapshot!(of_type(&b, "Page"), @r"
    Page: 100 Page, retaining 390.6 KiB, held by one dict

    module app                                  count   retained
    └─ render     functools._lru_cache_wrapper      1  425.9 KiB
       └─ (ref)   dict, keys [int]                  1  425.8 KiB
          └─ [*]  Page                            100  390.6 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    To let go: give the cache of render a maxsize, or call render.cache_clear().
                Without it 425.9 KiB would be free: it is the only holder.
    ");
}

#[test]
fn variables_of_running_functions_hold() {
    let mut b = HeapBuilder::new();
    b.module("app");
    let rows = b.node("list", 800);
    b.root(root::FRAME, "load", "rows", rows);
    for place in 0..100 {
        let row = b.node("Row", 100);
        b.edge(rows, By::Index(place), row);
        b.pointer(row, 0x5555_0000_0000 + 4096 * place, 1, 4096);
    }
    assert_snapshot!(of_type(&b, "Row"), @r"
    Row: 100 Row, retaining 409.8 KiB (400.0 KiB of it native), held by one list

    frame load                    count   retained
    └─ rows         list              1  410.5 KiB
       └─ [*]       Row             100  409.8 KiB
          └─ block  native block    100  400.0 KiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    ");
}

#[test]
fn what_only_c_code_holds_is_said_so() {
    let mut b = HeapBuilder::new();
    b.module("app");
    for _ in 0..3 {
        let token = b.node("fastparse.Token", 112);
        b.unexplained(token, 1);
    }
    assert_snapshot!(of_type(&b, "Token"), @r"
    Token: 3 fastparse.Token, retaining 336 B, held by C code

    C code                         count  retained
    └─ [*]        fastparse.Token      3     336 B

    They count references that no object explains: C code has them.
    No site known: made before recording, or in no block of their own.
    ");
}

#[test]
fn cycles_are_said_to_be_garbage() {
    let mut b = HeapBuilder::new();
    b.module("app");
    for _ in 0..3 {
        let (one, other) = (b.node("Node", 48), b.node("Node", 48));
        b.edge(one, By::Attribute("peer"), other);
        b.edge(other, By::Attribute("peer"), one);
    }
    assert_snapshot!(of_type(&b, "Node"), @r"
    Node: 6 Node, retaining 288 B, held by nothing

    nothing             count  retained
    └─ [*]        Node      3     144 B
       └─ .peer   Node      3     144 B

    No site known: made before recording, or in no block of their own.
    6 objects (288 B) held by nothing: in cycles that a gc.collect() would free.
    ");
}

#[test]
fn two_holders_are_two_paths() {
    let mut b = HeapBuilder::new();
    let (one, other) = (b.module("app.a"), b.module("app.b"));
    let (list, dict) = (b.node("list", 800), b.node("dict", 900));
    b.edge(one, By::Named("ALL"), list);
    b.edge(other, By::Named("BY_NAME"), dict);
    for place in 0..10 {
        let shared = b.node("Job", 1000);
        b.edge(list, By::Index(place), shared);
        b.edge(dict, By::Item("str"), shared);
        let own = b.node("Job", 1000);
        b.edge(dict, By::Item("str"), own);
    }
    assert_snapshot!(of_type(&b, "Job"), @r"
    Job: 20 Job, retaining 19.5 KiB

    module app.a        count  retained
    └─ ALL        list      1     800 B
       └─ [*]     Job      10   9.8 KiB

    module app.b                    count  retained
    └─ BY_NAME    dict, keys [str]      1  10.6 KiB
       └─ [*]     Job                  10   9.8 KiB

    10 of app.a.ALL[*] are held by others, too: app.b.BY_NAME (10).
    No site known: made before recording, or in no block of their own.
    ");
}

#[test]
fn a_linked_list_is_one_step() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let mut last = b.node("Node", 48);
    b.edge(module, By::Named("HEAD"), last);
    for _ in 0..100_000 {
        let next = b.node("Node", 48);
        b.edge(last, By::Attribute("next"), next);
        last = next;
    }
    assert_snapshot!(of_type(&b, "Node"), @r"
    Node: 100,001 Node, retaining 4.6 MiB, held by one Node

    module app              count  retained
    └─ HEAD         Node        1   4.6 MiB
       └─ .next...  Node  100,000   4.6 MiB

    All of them by this path; no second holder.
    No site known: made before recording, or in no block of their own.
    Without HEAD 4.6 MiB would be free: it is the only holder.
    ");
    assert_snapshot!(show(&b, None, "", &Asked::Gathered, 80), @r"
    4.6 MiB in 100,003 objects; 4.6 MiB of it gathers in 1 place
    heap graph 2 (`end`, 22:15:20); --graph 1 to 2 for others
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete

    module app              count  retained
    └─ HEAD         Node        1   4.6 MiB
       └─ .next...  Node  100,000   4.6 MiB

    next: leakline leaks train.4121.leakline   (what of it grows)
    ");
}

#[test]
fn an_object_is_asked_for_by_its_address() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let list = b.node("list", 100);
    b.edge(module, By::Named("ALL"), list);
    let handle = b.node("Handle", 64);
    b.edge(list, By::Index(0), handle);
    b.unexplained(handle, 2);
    b.pointer(handle, 0x5555_0000_0000, 0, 4096);
    assert_snapshot!(show(&b, None, &format!("{handle:#x}"), &Asked::Address(handle), 80), @r"
    0x7f00000000c0: 1 Handle, retaining 4.1 KiB (4.0 KiB of it native), held by one
          list
    heap graph 2 (`end`, 22:15:20); --graph 1 to 2 for others
    python app.py (pid 21), 22:13:20-22:15:30 (2 min 10 s), exact, complete

       object        Handle at 0x7f00000000c0
       size          64 B
       count         3 references
       held by       C code, 2 references that no object explains
       held by       0x7f0000000080 list [0]   app.ALL
       refers to     (ref) native block at 0x555500000000

    module app                    count  retained
    └─ ALL          list              1     100 B
       └─ [*]       Handle            1   4.1 KiB
          └─ block  native block      1   4.0 KiB

    All of them by this path, and by C code, too.
    No site known: made before recording, or in no block of their own.

    next: leakline why train.4121.leakline   (where most memory gathers)
    ");
}
