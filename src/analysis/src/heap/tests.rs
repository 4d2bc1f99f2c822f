//! Graphs made by hand, against what one can see in them, and at random, against what
//! a slow search finds.

use std::collections::BTreeSet;

use leakline_recording::record::HeapPart;
use leakline_wire::graph::{collects, node_flag, root, status};
use proptest::prelude::*;

use super::graph::place_in_page;
use super::*;
use crate::testing::{By, HeapBuilder};

fn heap(builder: &HeapBuilder) -> Heap {
    Heap::new(Graph::read(builder.parts(1)))
}

fn at(heap: &Heap, address: u64) -> u32 {
    heap.graph.at(address).unwrap()
}

#[test]
fn a_value_is_found_under_the_key_that_follows_it() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let dict = b.node("dict", 232);
    b.edge(module, By::Named("CACHE"), dict);
    let values = [(); 5].map(|()| b.node("list", 56));
    b.keyed(dict, "a", values[0]);
    // One whose key was not recorded, one whose value was not told of, one that has no key.
    let other = b.node("str", 50);
    b.edge(dict, By::Item("str"), values[1]);
    b.edge(dict, By::Key, other);
    b.keyed(dict, "gone", 0xdead_0000);
    b.edge(dict, By::Item("str"), values[2]);
    b.keyed(dict, "b", values[3]);
    // An element of a set is under no key.
    let set = b.node("set", 200);
    b.edge(module, By::Named("SET"), set);
    let element = b.node("str", 50);
    b.edge(set, By::Key, element);
    b.key(element, 0, b"element");
    b.key(0x7f0f_0000_0000, 0, b"of nobody");
    b.key(other, 1, b"nonsense");
    b.keys_left_out = 7;
    let graph = Graph::read(b.parts(1));
    assert_eq!(
        (graph.keys_left_out(), graph.left_out(), graph.missing()),
        (7, 2, 1)
    );
    let keys = |node: u64| -> Vec<Option<&str>> {
        let node = graph.at(node).unwrap();
        let edges = graph.edges_of(node);
        edges.map(|edge| graph.key_of(node, edge)).collect()
    };
    let expected = [Some("'a'"), None, None, None, None, None, Some("'b'"), None];
    assert_eq!(keys(dict), expected);
    assert_eq!(keys(set), [None]);
}

#[test]
fn an_object_is_found_by_its_name() {
    let mut b = HeapBuilder::new();
    let app = b.module("app");
    let cache = b.module("app.cache");
    let main = b.module("__main__");
    let [sessions, other, held, namespace, slot] = [(); 5].map(|()| b.node("dict", 232));
    b.edge(cache, By::Named("SESSIONS"), sessions);
    // The package has an attribute of that name, which is something else.
    b.edge(app, By::Named("cache"), other);
    b.edge(main, By::Named("HELD"), held);
    b.edge(held, By::Attribute("__dict__"), namespace);
    b.edge(namespace, By::Named("inner"), slot);
    b.edge(slot, By::Attribute("SESSIONS"), other);
    let heap = heap(&b);
    let named = |text: &str| heap.object_named(text);
    assert_eq!(named("app.cache.SESSIONS"), Some(sessions));
    assert_eq!(named("__main__.HELD.inner"), Some(slot));
    assert_eq!(named("HELD.inner.SESSIONS"), Some(other));
    let module = heap.graph.roots().iter().find(|root| root.name == "app");
    let module = heap.graph.address(module.unwrap().target);
    assert_eq!(named("app"), Some(module));
    for nobody in [
        "SESSIONS",
        "app.SESSIONS",
        "app.",
        "",
        ".",
        "HELD..inner",
        "apps",
    ] {
        assert_eq!(named(nobody), None, "{nobody}");
    }
}

#[test]
fn a_graph_is_read_as_it_was_told() {
    let mut b = HeapBuilder::new();
    let module = b.module("app");
    let list = b.node("list", 5 << 32);
    b.edge(module, By::Named("rows"), list);
    b.edge(list, By::Index(7), 0xdead_0000);
    b.pointer(list, 0x5555_0000_1234, 8, 4096);
    b.site(list, 300);
    b.end_with(status::OUT_OF_TIME);
    let graph = Graph::read(b.parts(1));
    assert_eq!((graph.objects(), graph.len(), graph.edges()), (3, 4, 3));
    assert_eq!(graph.missing(), 1);
    assert_eq!(graph.ended(), Some(Ended::Early("it took too long")));
    let list = graph.at(list).unwrap();
    assert_eq!(graph.bytes(list), 5 << 32);
    assert_eq!(graph.type_name(list), "list");
    assert_eq!(graph.site(list), Some(300));
    let block = graph.at(0x5555_0000_1234).unwrap();
    assert_eq!(graph.targets(list), [block]);
    assert_eq!(
        (
            graph.bytes(block),
            graph.site(block),
            graph.is_native(block)
        ),
        (4096, Some(8), true)
    );
    let dict = graph.at(module).unwrap();
    let edge = graph.edges_of(dict).start;
    assert!(matches!(graph.edge(edge), EdgeKind::NamedItem(name) if graph.name(name) == "rows"));
    assert_eq!(graph.roots()[0].name, "app");
}

#[test]
fn what_only_one_holds_is_retained_by_it() {
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let (one, other) = (b.node("list", 100), b.node("list", 200));
    let (own, shared) = (b.node("str", 50), b.node("str", 7));
    b.edge(dict, By::Named("one"), one);
    b.edge(dict, By::Named("other"), other);
    b.edge(one, By::Index(0), own);
    b.edge(one, By::Index(1), shared);
    b.edge(other, By::Index(0), shared);
    b.pointer(own, 0x5555_0000_0000, 0, 1000);
    let heap = heap(&b);
    let (one, other, shared) = (at(&heap, one), at(&heap, other), at(&heap, shared));
    assert_eq!(heap.dominators.retained(one), 1150);
    assert_eq!(heap.dominators.native(one), 1000);
    assert_eq!(heap.dominators.retained(other), 200);
    assert_eq!(heap.dominators.of(shared), Some(at(&heap, dict)));
    assert_eq!(heap.dominators.retained(at(&heap, dict)), 1589);
}

#[test]
fn references_that_nothing_explains_are_a_root() {
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let (list, handle) = (b.node("list", 100), b.node("Handle", 64));
    b.edge(dict, By::Named("all"), list);
    b.edge(list, By::Index(0), handle);
    b.unexplained(handle, 2);
    let lost = b.node("Token", 48);
    b.unexplained(lost, 1);
    let heap = heap(&b);
    let (handle, lost) = (at(&heap, handle), at(&heap, lost));
    assert_eq!(heap.dominators.of(handle), None);
    // A path by names says more.
    assert!(heap.paths.parent(handle).is_some());
    assert_eq!(heap.paths.root(lost), PathRoot::Native(1));
    assert!(heap.paths.garbage().is_empty());
}

#[test]
fn cycles_that_nothing_holds_are_garbage() {
    let mut b = HeapBuilder::new();
    b.module("app");
    let (one, other) = (b.node("Node", 48), b.node("Node", 48));
    b.edge(one, By::Attribute("next"), other);
    b.edge(other, By::Attribute("next"), one);
    let heap = heap(&b);
    let mut garbage = heap.paths.garbage().to_vec();
    garbage.sort_unstable();
    assert_eq!(garbage, [at(&heap, one), at(&heap, other)]);
    assert_eq!(heap.paths.root(garbage[0]), PathRoot::Garbage);
    assert_eq!(heap.dominators.retained(garbage[0]), 0);
}

#[test]
fn a_reference_is_lost_where_no_word_of_memory_has_it() {
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let list = b.node("list", 56);
    b.edge(dict, By::Named("shared"), list);
    b.unexplained(list, 5);
    // The dict's entry, and one on a stack.
    b.suspect(list, 2);
    let cached = b.node("str", 50);
    b.unexplained(cached, 1);
    b.suspect(cached, 1);
    let token = b.node("Token", 48);
    b.unexplained(token, 1);
    b.site(token, 7);
    b.suspect(token, 0);
    let unreached = b.unreached("bytes", Some(9), 0);
    let freed = b.unreached("bytes", None, 0);
    b.searched(status::COMPLETE, collects::YES);
    let heap = heap(&b);
    let lost = |address: u64| heap.lost(at(&heap, address));
    assert_eq!([list, cached, token, unreached].map(lost), [4, 0, 1, 1]);
    assert_eq!(heap.graph.at(freed), None);
    assert_eq!(heap.paths.root(at(&heap, cached)), PathRoot::Native(1));
    assert_eq!(heap.paths.root(at(&heap, token)), PathRoot::Lost(1));
    let unreached = at(&heap, unreached);
    assert!(heap.graph.is_unreached(unreached));
    assert_eq!(
        (heap.graph.bytes(unreached), heap.graph.site(unreached)),
        (40, Some(9))
    );
    let found = heap.references();
    let found: Vec<_> = (found.lost.iter())
        .map(|lost| {
            let type_name = lost.type_name.as_str();
            (type_name, lost.site, lost.references, lost.unheld)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("list", None, 4, 0),
            ("Token", Some(7), 1, 1),
            ("bytes", Some(9), 1, 1)
        ]
    );
}

#[test]
fn nothing_is_lost_where_memory_was_not_searched_to_the_end() {
    for searched in [None, Some(status::OUT_OF_TIME), Some(status::UNREADABLE)] {
        let mut b = HeapBuilder::new();
        let token = b.node("Token", 48);
        b.unexplained(token, 1);
        b.suspect(token, 0);
        if let Some(status) = searched {
            b.searched(status, collects::UNKNOWN);
        }
        let heap = heap(&b);
        assert_eq!(heap.paths.root(at(&heap, token)), PathRoot::Native(1));
        assert!(heap.references().lost.is_empty());
    }
}

#[test]
fn an_old_word_somewhere_does_not_part_an_object_from_its_like() {
    let mut b = HeapBuilder::new();
    for number in 0..10 {
        let token = b.node("Token", 48);
        b.unexplained(token, 1);
        b.site(token, 7);
        b.suspect(token, u64::from(number == 3));
        // C code has most of these.
        let entry = b.node("Entry", 48);
        b.unexplained(entry, 1);
        b.site(entry, 8);
        b.suspect(entry, u64::from(number > 3));
    }
    b.searched(status::COMPLETE, collects::YES);
    let found = heap(&b).references().lost;
    let found: Vec<_> = (found.iter())
        .map(|lost| (lost.type_name.as_str(), lost.objects, lost.proven))
        .collect();
    assert_eq!(found, [("Token", 10, 9), ("Entry", 4, 4)]);
}

#[test]
fn a_collection_is_played_through() {
    let mut b = HeapBuilder::new();
    b.module("app");
    b.opaque("Handle");
    let pair = |b: &mut HeapBuilder, name: &str| {
        let (one, other) = (b.node(name, 48), b.node(name, 48));
        b.edge(one, By::Attribute("other"), other);
        b.edge(other, By::Attribute("other"), one);
        one
    };
    let free = pair(&mut b, "Free");
    let frozen = pair(&mut b, "Frozen");
    b.flags(frozen, node_flag::TRACKED | node_flag::FROZEN);
    // A handle has its owner in memory that no one is told of.
    let (owner, handle, number) = (b.node("Owner", 48), b.node("Handle", 32), b.node("int", 28));
    b.flags(handle, 0);
    b.flags(number, 0);
    b.edge(owner, By::Attribute("handle"), handle);
    b.edge(owner, By::Attribute("number"), number);
    b.unexplained(owner, 1);
    b.word(handle, owner);
    b.site(handle, 4);
    b.searched(status::COMPLETE, collects::NO);
    let heap = heap(&b);
    let kept = heap.kept();
    let class = heap.graph.type_of(at(&heap, handle));
    assert_eq!(kept.get(&at(&heap, owner)), Some(&Kept::Hidden(class)));
    assert_eq!(kept.get(&at(&heap, number)), Some(&Kept::Hidden(class)));
    assert_eq!(kept.get(&at(&heap, free)), None);
    assert_eq!(kept.get(&at(&heap, frozen)), Some(&Kept::Frozen));
    let found = heap.references();
    assert_eq!(found.collects, Some(false));
    assert_eq!((found.garbage.objects, found.garbage.bytes), (2, 96));
    assert_eq!(found.frozen, (2, 96));
    let [hidden] = &found.hidden[..] else {
        panic!("{:?}", found.hidden);
    };
    assert_eq!(
        (
            hidden.class.as_str(),
            hidden.natives,
            hidden.objects,
            hidden.site
        ),
        ("Handle", 1, 3, Some(4))
    );
}

#[test]
fn a_word_of_a_type_that_tells_of_all_it_holds_is_no_reference() {
    let mut b = HeapBuilder::new();
    let (one, other) = (b.node("Told", 48), b.node("Told", 48));
    b.word(one, other);
    b.unexplained(other, 1);
    let heap = heap(&b);
    assert_eq!(heap.graph.edges(), 0);
    assert_eq!(heap.paths.root(at(&heap, other)), PathRoot::Native(1));
}

#[test]
fn a_native_word_is_borrowed_where_others_have_all_references() {
    let mut b = HeapBuilder::new();
    b.opaque("Link");
    let dict = b.module("app");
    let (link, told, held) = (b.node("Link", 48), b.node("str", 50), b.node("str", 50));
    b.edge(dict, By::Named("first"), link);
    b.edge(dict, By::Named("told"), told);
    b.unexplained(held, 1);
    b.word(link, told);
    b.word(link, held);
    let heap = heap(&b);
    let held = at(&heap, held);
    assert_eq!(heap.graph.targets(at(&heap, link)), [held]);
    let edge = heap.graph.edges_of(at(&heap, link)).start;
    assert_eq!(heap.graph.edge(edge), EdgeKind::Untold);
    assert_eq!(
        heap.paths.parent(held).map(|(parent, _)| parent),
        Some(at(&heap, link))
    );
}

#[test]
fn borrowed_references_do_not_make_counts_fall_below_nothing() {
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let list = b.node("list", 100);
    b.edge(dict, By::Named("all"), list);
    // One less than what holds it.
    b.unexplained(list, u64::MAX);
    let heap = heap(&b);
    assert_eq!(heap.dominators.of(at(&heap, list)), Some(at(&heap, dict)));
}

#[test]
fn objects_hold_their_classes() {
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let (class, session) = (b.node("type", 1000), b.node("Session", 48));
    b.class("Session", class);
    b.edge(dict, By::Named("session"), session);
    let heap = heap(&b);
    let (class, session) = (at(&heap, class), at(&heap, session));
    assert_eq!(heap.dominators.of(class), Some(session));
    assert!(heap.paths.garbage().is_empty());
}

#[test]
fn a_long_list_takes_no_stack() {
    const LENGTH: u64 = 1_000_000;
    let mut b = HeapBuilder::new();
    let dict = b.module("app");
    let mut last = b.node("Node", 48);
    b.edge(dict, By::Named("HEAD"), last);
    for _ in 1..LENGTH {
        let next = b.node("Node", 48);
        b.edge(last, By::Attribute("next"), next);
        last = next;
    }
    // And back: what a slow algorithm is slowest at.
    b.edge(last, By::Attribute("next"), dict);
    let heap = heap(&b);
    assert_eq!(heap.dominators.retained(at(&heap, last)), 48);
    assert_eq!(heap.dominators.retained(at(&heap, dict)), 232 + 48 * LENGTH);
}

type Drawn = (usize, Vec<(usize, usize)>, Vec<usize>, Vec<usize>);

/// Edges, roots and extra references among so many nodes.
fn graphs() -> impl Strategy<Value = Drawn> {
    (1_usize..24).prop_flat_map(|count| {
        (
            Just(count),
            prop::collection::vec((0..count, 0..count), 0..3 * count),
            prop::collection::vec(0..count, 0..3),
            prop::collection::vec(0..count, 0..2),
        )
    })
}

/// What is reached of `roots`, without a node.
fn reached(
    edges: &[(usize, usize)],
    roots: impl Iterator<Item = usize>,
    without: Option<usize>,
) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<usize> = roots.collect();
    while let Some(node) = waiting.pop() {
        if Some(node) != without && reached.insert(node) {
            waiting.extend(
                edges
                    .iter()
                    .filter(|edge| edge.0 == node)
                    .map(|edge| edge.1),
            );
        }
    }
    reached
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What a node dominates is what becomes unreachable without it.
    #[test]
    fn dominators_are_those_of_a_slow_search((count, edges, roots, lost) in graphs()) {
        let mut b = HeapBuilder::new();
        let nodes: Vec<u64> = (0..count).map(|at| b.node("list", 1 << at)).collect();
        for &(from, to) in &edges {
            b.edge(nodes[from], By::Other, nodes[to]);
        }
        for &at in &roots {
            b.root(root::MODULE, "m", "", nodes[at]);
        }
        for &at in &lost {
            b.unexplained(nodes[at], 1);
        }
        let heap = heap(&b);
        let all_roots = || roots.iter().chain(&lost).copied();
        let all = reached(&edges, all_roots(), None);
        for node in 0..count {
            let left = reached(&edges, all_roots(), Some(node));
            // A node's bytes are its bit.
            let free: u64 = all.difference(&left).map(|&at| 1_u64 << at).sum();
            prop_assert_eq!(heap.dominators.retained(node as u32), free, "of {}", node);
            // Its path holds it.
            let mut at = node as u32;
            for _ in 0..=count {
                let Some((parent, edge)) = heap.paths.parent(at) else { break };
                prop_assert!(edges.contains(&(parent as usize, at as usize)));
                prop_assert_eq!(heap.graph.target(edge), at);
                at = parent;
            }
            prop_assert!(heap.paths.parent(at).is_none());
            prop_assert_eq!(
                heap.paths.root(at) == PathRoot::Garbage,
                !all.contains(&node),
                "of {}", node
            );
        }
        prop_assert_eq!(heap.paths.garbage().len(), count - all.len());
        prop_assert_eq!(heap.paths.order().len(), count);
    }

    /// Whatever a file holds, reading ends.
    #[test]
    fn nonsense_is_read(
        parts in prop::collection::vec(
            (
                prop::collection::vec(prop_oneof![0_u8..14, any::<u8>()], 0..120),
                prop::collection::vec(any::<u8>(), 0..20),
            ),
            0..4,
        ),
    ) {
        let parts = parts.into_iter().map(|(entries, sites)| HeapPart { graph: 1, entries, sites });
        let heap = Heap::new(Graph::read(parts.collect()));
        prop_assert_eq!(heap.paths.order().len(), heap.graph.len());
        for node in 0..heap.graph.len() as u32 {
            prop_assert!(!heap.graph.type_name(node).is_empty() || heap.graph.type_of(node) < 100);
            for edge in heap.graph.edges_of(node) {
                let key = heap.graph.key_of(node, edge).unwrap_or_default();
                prop_assert!(!key.chars().any(char::is_control));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Blocks of one size, strangers among them, gaps: an address is found where it is.
    #[test]
    fn an_address_is_found_in_its_page(
        size in 1_u64..64,
        gap in 0_u64..512,
        others in prop::collection::btree_set(0_u64..512, 0..40),
    ) {
        let page = 0x7f12_3456_7000;
        let mut places = others;
        places.extend((gap..512).step_by(size as usize));
        let of_page: Vec<u64> = places.iter().map(|place| page + 8 * place).collect();
        for place in 0..512 {
            let address = page + 8 * place;
            let expected = of_page.binary_search(&address).ok();
            prop_assert_eq!(place_in_page(&of_page, address), expected);
        }
    }
}
