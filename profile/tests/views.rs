//! Flame graph, table and folded stacks, drawn by hand. That tables are those of `go tool pprof` is shown by golden_pprof.

use afterglow_profile::{
    Profile, folded,
    frames::Origin,
    model::{Mapping, ValueType},
    top::{Row, Top},
    tree::{FlameGraph, View},
};
use proptest::prelude::*;

use self::stacks::profile;

mod stacks;

/// Returns `profile` with frames to drop and to keep.
fn dropping(mut profile: Profile<'static>, drop: &'static str, keep: &'static str) -> Profile<'static> {
    profile.strings.extend([drop.as_bytes(), keep.as_bytes()]);
    profile.drop_frames = profile.strings.len() as u32 - 2;
    profile.keep_frames = profile.strings.len() as u32 - 1;
    profile
}

/// Draws a flame graph: a line a node, indented by depth, with total and self.
fn draw(graph: &FlameGraph) -> Vec<String> {
    let line = |node: &afterglow_profile::tree::Node| {
        let (indent, name) = (" ".repeat(node.depth as usize), &graph.names[node.name as usize]);
        format!("{indent}{name} {} {}", node.total, node.self_value)
    };
    graph.nodes.iter().map(line).collect()
}

fn rows(top: &Top) -> Vec<(&str, i64, i64)> {
    top.rows.iter().map(|row: &Row| (row.name.as_str(), row.self_value, row.total)).collect()
}

#[test]
fn stacks_become_a_tree_with_the_largest_children_first() {
    let profile = profile(&[("main;work", 3), ("main;idle", 5), ("main;work;malloc", 4), ("main", 1), ("gc", 5)]);
    let graph = FlameGraph::new(&profile, 0, None);
    assert_eq!(draw(&graph), ["total 18 0", " main 13 1", "  work 7 3", "   malloc 4 4", "  idle 5 5", " gc 5 5"]);
    assert_eq!(graph.truncated, 0);
}

#[test]
fn equal_children_stand_in_order_of_their_names_however_samples_came() {
    let one = profile(&[("b", 1), ("a;d", 1), ("a;c", 1), ("c", 2)]);
    let other = profile(&[("c", 2), ("a;c", 1), ("b", 1), ("a;d", 1)]);
    let graph = FlameGraph::new(&one, 0, None);
    assert_eq!(draw(&graph), ["total 5 0", " a 2 0", "  c 1 1", "  d 1 1", " c 2 2", " b 1 1"]);
    assert_eq!(graph, FlameGraph::new(&other, 0, None));
}

#[test]
fn inlined_frames_stand_below_what_they_are_inlined_into() {
    let profile = profile(&[("main;outer+middle+inner;leaf", 2)]);
    assert_eq!(folded::write(&profile, 0), "main;outer;middle;inner;leaf 2\n");
}

#[test]
fn a_limit_keeps_the_largest_nodes_and_says_how_many_are_gone() {
    let profile = profile(&[("a;x", 5), ("a;y", 4), ("b;z", 3), ("c", 2), ("a", 1)]);
    let graph = FlameGraph::new(&profile, 0, Some(4));
    assert_eq!(draw(&graph), ["total 15 0", " a 10 1", "  x 5 5", "  y 4 4"]);
    assert_eq!(graph.truncated, 3);
    assert_eq!(graph.names, ["total", "a", "x", "y"], "names of nodes that are gone go too");
    let graph = FlameGraph::new(&profile, 0, Some(0));
    assert_eq!((draw(&graph), graph.truncated), (vec!["total 15 0".to_owned()], 6));
}

#[test]
fn a_function_counts_once_a_stack_in_its_total() {
    let profile = profile(&[("main;fib;fib;fib", 3), ("main;fib;work;fib", 4), ("main", 1)]);
    let top = Top::new(&profile, 0, None);
    assert_eq!(rows(&top), [("fib", 7, 7), ("main", 1, 8), ("work", 0, 4)]);
    assert_eq!((top.total, top.truncated), (8, 0));
    // The flame graph has each of them.
    assert_eq!(folded::write(&profile, 0), "main 1\nmain;fib;work;fib 4\nmain;fib;fib;fib 3\n");
}

#[test]
fn a_limit_keeps_the_first_rows() {
    let profile = profile(&[("a;x", 5), ("a;y", 4), ("b", 3)]);
    let top = Top::new(&profile, 0, Some(2));
    assert_eq!((rows(&top), top.truncated, top.total), (vec![("x", 5, 5), ("y", 4, 4)], 2, 12));
}

#[test]
fn rows_name_the_first_of_their_source_files() {
    let mut profile = profile(&[("work", 1), ("work", 2), ("work", 4)]);
    profile.strings.extend([&b"b.go"[..], b"a.go"]);
    let files = profile.strings.len() as u32 - 2;
    profile.functions[0].file = files;
    profile.functions[2].file = files + 1;
    let top = Top::new(&profile, 0, None);
    let row =
        Row { name: "work".to_owned(), file: "a.go".to_owned(), self_value: 7, total: 7, base_self: 0, base_total: 0 };
    assert_eq!(top.rows, [row]);
}

#[test]
fn a_tree_says_where_its_names_come_from_by_the_samples_that_have_a_value() {
    let mut profile = profile(&[("work", 1), ("work", 2), ("work", 4), ("work", 0), ("idle", 1)]);
    profile.strings.extend([&b"b.go"[..], b"a.go", b"0.go", b"/bin/app"]);
    let files = profile.strings.len() as u32 - 4;
    for (function, (file, start_line)) in [(1, 9), (1, 0), (0, 3), (2, 1)].into_iter().enumerate() {
        profile.functions[function].file = files + file;
        profile.functions[function].start_line = start_line;
    }
    // Where the start is not known, the line that was met counts.
    profile.lines[1].line = 12;
    profile.mappings.push(Mapping { file: files + 3, ..Mapping::default() });
    profile.locations[2].mapping = 0;
    let graph = FlameGraph::new(&profile, 0, None);
    let work = Origin { file: "a.go".to_owned(), line: 9, mapping: "/bin/app".to_owned() };
    assert_eq!(graph.names, ["total", "work", "idle"]);
    assert_eq!(graph.origins, [Origin::default(), work, Origin::default()]);
    let limited = FlameGraph::new(&profile, 0, Some(2));
    assert_eq!((limited.names.len(), limited.origins.len()), (2, 2));
}

#[test]
fn frames_without_a_function_are_named_by_their_file() {
    let mut profile = profile(&[("[/usr/lib/libc.so.6];[/]", 1), ("[/usr/bin/server/];[]", 2), ("main;", 4)]);
    profile.functions[0].name = 0;
    assert_eq!(folded::write(&profile, 0), "<unknown> 4\n[server];<unknown> 2\n[libc.so.6];[/] 1\n");
}

#[test]
fn names_that_are_no_text_are_shown_with_replacement_characters() {
    let mut profile = profile(&[("x", 1)]);
    profile.strings[1] = b"caf\xe9 \xf0\x9f";
    assert_eq!(FlameGraph::new(&profile, 0, None).names[1], "caf\u{fffd} \u{fffd}");
}

#[test]
fn folded_names_cannot_break_the_form() {
    let mut profile = profile(&[("x", 1)]);
    profile.strings[1] = b"Lcom/a/B;\r\nrun 7";
    assert_eq!(folded::write(&profile, 0), "Lcom/a/B:  run 7 1\n");
}

#[test]
fn samples_without_a_stack_count_in_the_root_alone() {
    let profile = profile(&[("", 3), ("a", 2)]);
    assert_eq!(draw(&FlameGraph::new(&profile, 0, None)), ["total 5 3", " a 2 2"]);
    let top = Top::new(&profile, 0, None);
    assert_eq!((top.total, rows(&top)), (5, vec![("a", 2, 2)]));
    assert_eq!(folded::write(&profile, 0), "a 2\n");
}

#[test]
fn values_of_other_sample_types_are_not_counted() {
    let mut profile = profile(&[("a", 1), ("b", 2)]);
    profile.sample_types.push(ValueType::default());
    profile.samples.values = vec![1, 0, 2, 7];
    assert_eq!(folded::write(&profile, 1), "b 7\n");
    assert_eq!(rows(&Top::new(&profile, 1, None)), [("b", 7, 7)]);
}

#[test]
fn negative_values_are_added_as_they_are() {
    let profile = profile(&[("a;x", -5), ("a;y", 2), ("b", 1)]);
    let graph = FlameGraph::new(&profile, 0, None);
    assert_eq!(draw(&graph), ["total -2 0", " b 1 1", " a -3 0", "  y 2 2", "  x -5 -5"]);
    // What is large is kept, whichever its sign.
    assert_eq!(draw(&FlameGraph::new(&profile, 0, Some(3))), ["total -2 0", " a -3 0", "  x -5 -5"]);
}

#[test]
fn sums_beyond_64_bits_stand_at_the_largest() {
    let profile = profile(&[("a;x", i64::MAX), ("a;y", i64::MAX)]);
    let max = i64::MAX;
    assert_eq!(draw(&FlameGraph::new(&profile, 0, None))[1], format!(" a {max} 0"));
    let top = Top::new(&profile, 0, None);
    assert_eq!((top.total, rows(&top)[2]), (max, ("a", 0, max)));
}

#[test]
fn dropped_frames_go_with_all_they_called() {
    let stacks = [("main;alloc;slab;malloc", 1), ("main;work", 2), ("alloc;main", 4)];
    let plain = profile(&stacks);
    let shown = |drop, keep| folded::write(&dropping(plain.clone(), drop, keep), 0);
    // A stack that begins with frames to drop is shown whole.
    assert_eq!(shown("alloc", ""), "alloc;main 4\nmain 1\nmain;work 2\n");
    assert_eq!(shown("sl.*|alloc", "alloc"), "alloc;main 4\nmain;work 2\nmain;alloc 1\n");
    // The whole name has to match, and what does not compile drops nothing.
    let whole = "alloc;main 4\nmain;work 2\nmain;alloc;slab;malloc 1\n";
    assert_eq!([shown("all", ""), shown("(", ""), shown("alloc", "(")], [whole, whole, whole]);
}

#[test]
fn dropping_cuts_through_inlined_frames() {
    let profile = profile(&[("main;outer+drop+inner;leaf", 1), ("outer+drop;main", 2)]);
    assert_eq!(folded::write(&dropping(profile, "drop", ""), 0), "outer;main 2\nmain;outer 1\n");
}

#[test]
fn dropped_names_are_matched_without_their_arguments() {
    for name in ["operator()", ".operator()(int)", "(anonymous namespace)::f(int)", "operator()<int>(char)"] {
        let drop = r"operator\(\)|\(anonymous namespace\)::f|operator\(\)<int>";
        let mut profile = profile(&[("main;x", 1)]);
        *profile.strings.iter_mut().find(|string| **string == b"x").expect("it is there") = name.as_bytes();
        assert_eq!(folded::write(&dropping(profile, drop, ""), 0), "main 1\n", "{name}");
    }
}

#[test]
fn the_sample_type_is_found_as_pprof_finds_it() {
    let mut profile = profile(&[]);
    profile.strings.extend([&b"objects"[..], b"space", b"alloc_space", b"other"]);
    profile.sample_types = [1, 2, 3].map(|kind| ValueType { kind, ..ValueType::default() }).to_vec();
    assert_eq!(profile.sample_type_named(None), Some(2), "the last");
    profile.default_sample_type = 2;
    assert_eq!(profile.sample_type_named(None), Some(1), "the default");
    profile.default_sample_type = 4;
    assert_eq!(profile.sample_type_named(None), Some(2), "a default that there is not");
    assert_eq!(profile.sample_type_named(Some("objects")), Some(0));
    assert_eq!(profile.sample_type_named(Some("inuse_space")), Some(1));
    assert_eq!(profile.sample_type_named(Some("other")), None);
    assert_eq!(Profile::default().sample_type_named(None), None);
}

#[test]
fn very_deep_stacks_do_not_recurse() {
    let mut profile = profile(&[("f", 1)]);
    profile.samples.locations = vec![0; 200_000];
    profile.samples.location_ends = vec![200_000];
    let graph = FlameGraph::new(&profile, 0, None);
    assert_eq!(graph.nodes.last().map(|node| (node.depth, node.self_value)), Some((200_000, 1)));
    assert_eq!(FlameGraph::new(&profile, 0, Some(10)).truncated, 200_001 - 10);
    assert_eq!(rows(&Top::new(&profile, 0, None)), [("f", 1, 1)]);
}

/// Goal: what a tree of deep stacks takes is asked for before it is there.
#[test]
fn trees_grow_where_there_is_room() {
    const NODES: u64 = 200_000;
    let mut profile = profile(&[("f", 1)]);
    profile.samples.locations = vec![0; NODES as usize];
    profile.samples.location_ends = vec![NODES as u32];
    for limit in [None, Some(10)] {
        let mut asked = Vec::new();
        let all = FlameGraph::view_within(&profile, 0, View::All, limit, |bytes| {
            asked.push(bytes);
            Ok::<_, ()>(())
        });
        assert_eq!(all, Ok(FlameGraph::new(&profile, 0, limit)));
        let most = *asked.iter().max().unwrap();
        assert!(asked[0] < 20_000 && (30 * NODES..200 * NODES).contains(&most), "{asked:?}");
        let bounded = |most| move |bytes| if bytes <= most { Ok(()) } else { Err(bytes) };
        let refused = FlameGraph::view_within(&profile, 0, View::All, limit, bounded(most - 1));
        assert_eq!(refused.unwrap_err(), most);
        assert!(FlameGraph::view_within(&profile, 0, View::All, limit, bounded(most)).is_ok());
    }
}

#[test]
fn callees_are_what_is_below_the_outermost_occurrence() {
    let profile = profile(&[("main;f;a", 1), ("main;f;b;f;a", 2), ("main;g;f", 4), ("main;g", 8)]);
    let view = |view| draw(&FlameGraph::view(&profile, 0, view, None));
    assert_eq!(
        view(View::Callees("f")),
        ["total 7 0", " f 7 4", "  b 2 0", "   f 2 0", "    a 2 2", "  a 1 1"],
        "a recursion counts once"
    );
    assert_eq!(folded::of(&FlameGraph::view(&profile, 0, View::Callees("g"), None)), "g 8\ng;f 4\n");
    assert_eq!(view(View::Callees("nobody")), ["total 0 0"]);
}

#[test]
fn callers_are_what_is_above_it_turned_round() {
    let profile = profile(&[("main;f;a", 1), ("main;f;b;f;a", 2), ("main;g;f", 4), ("f", 16), ("main;g", 8)]);
    let view = |view| draw(&FlameGraph::view(&profile, 0, view, None));
    assert_eq!(view(View::Callers("f")), ["total 23 0", " f 23 16", "  g 4 0", "   main 4 4", "  main 3 3"]);
    assert_eq!(view(View::Callers("nobody")), ["total 0 0"]);
    let limited = FlameGraph::view(&profile, 0, View::Callers("f"), Some(2));
    assert_eq!((draw(&limited), limited.truncated), (vec!["total 23 0".to_owned(), " f 23 16".to_owned()], 3));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees_add_up(stacks in proptest::collection::vec((proptest::sample::select(vec![
        "a", "a;b", "a;b;a", "b;a", "b;c+d", "c;[x];d", "", "d;d;d",
    ]), -2..9i64), 0..12), limit in 1..9usize) {
        let profile = profile(&stacks);
        let sum: i64 = stacks.iter().map(|(_, value)| value).sum();
        let graph = FlameGraph::new(&profile, 0, None);
        prop_assert_eq!(graph.nodes[0].total, sum);
        prop_assert_eq!(Top::new(&profile, 0, None).total, sum);
        for (i, node) in graph.nodes.iter().enumerate() {
            let below = graph.nodes[i + 1..].iter().take_while(|other| other.depth > node.depth);
            let children: i64 = below.filter(|other| other.depth == node.depth + 1).map(|child| child.total).sum();
            prop_assert_eq!(node.total, node.self_value + children);
        }
        let mut bytes = None;
        let text = folded::of_within(&graph, |of| {
            bytes = Some(of);
            Ok::<_, ()>(())
        });
        prop_assert_eq!(text.as_ref().map(|text| text.len() as u64).ok(), bytes, "the length that is told before");
        let limited = FlameGraph::new(&profile, 0, Some(limit));
        prop_assert_eq!(limited.nodes.len(), limit.min(graph.nodes.len()));
        prop_assert_eq!(limited.nodes.len() + limited.truncated, graph.nodes.len());
        prop_assert!(limited.nodes.windows(2).all(|pair| pair[1].depth <= pair[0].depth + 1), "no node without its parent");
    }
}
