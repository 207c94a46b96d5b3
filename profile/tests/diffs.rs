//! What must hold of any diff. That pprofs of diffs are those of `pprof -base` is shown by tests/golden_pprof.

use std::collections::BTreeMap;

use afterglow_profile::{
    Profile, diff, folded,
    merge::{Merged, Merger},
    top::Top,
    tree::FlameGraph,
};
use proptest::prelude::*;

use self::sketch::SampleTypes;
use self::stacks::profile;

mod sketch;
mod stacks;

fn merge(profiles: &[Profile<'_>]) -> Merged {
    let mut merger = Merger::new();
    profiles.iter().for_each(|profile| merger.add(profile).expect("profiles of one list merge"));
    merger.finish()
}

#[test]
fn both_sides_stand_in_one_tree_and_one_table() {
    let ours = profile(&[("main;work", 5), ("main;new", 3), ("main", 1)]);
    let base = profile(&[("main;work", 2), ("main;old;leaf", 4), ("main", 1)]);
    let pair = diff::pair(ours, base, 0).expect("they go together");
    let graph = FlameGraph::diff(&pair.profile(), None);
    let drawn: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| {
            let (indent, name) = (" ".repeat(node.depth as usize), &graph.names[node.name as usize]);
            format!("{indent}{name} {} {} {} {}", node.total, node.self_value, node.base_total, node.base_self)
        })
        .collect();
    assert_eq!(
        drawn,
        ["total 9 0 7 0", " main 9 1 7 1", "  work 5 5 2 2", "  old 0 0 4 0", "   leaf 0 0 4 4", "  new 3 3 0 0"]
    );
    assert_eq!(folded::of_diff(&graph), "main 1 1\nmain;work 2 5\nmain;old;leaf 4 0\nmain;new 0 3\n");
    let top = Top::diff(&pair.profile(), Some(4));
    let rows: Vec<_> = top.rows.iter().map(|r| (&*r.name, r.self_value, r.base_self, r.total, r.base_total)).collect();
    assert_eq!(
        rows,
        [("leaf", 0, 4, 0, 4), ("new", 3, 0, 3, 0), ("work", 5, 2, 5, 2), ("old", 0, 0, 0, 4)],
        "what differs most comes first"
    );
    // `main` has the same on both sides, in itself, and not with all it called: that is a change. What has the same in both is none.
    assert_eq!((top.total, top.base_total, top.truncated), (9, 7, 1));
    let same = diff::pair(profile(&[("a", 5), ("b", 1)]), profile(&[("a", 4), ("b", 1)]), 0).expect("they go together");
    let top = Top::diff(&same.profile(), Some(1));
    assert_eq!((top.rows.iter().map(|row| &*row.name).collect::<Vec<_>>(), top.truncated), (vec!["a"], 0));
}

#[test]
fn a_limit_keeps_what_is_large_on_either_side() {
    let pair = diff::pair(profile(&[("a", 5), ("b", 1)]), profile(&[("c", 9), ("b", 1)]), 0).expect("they go together");
    let graph = FlameGraph::diff(&pair.profile(), Some(3));
    let names: Vec<_> = graph.nodes.iter().map(|node| &*graph.names[node.name as usize]).collect();
    assert_eq!((names, graph.truncated), (vec!["total", "c", "a"], 1));
}

#[test]
fn normalizing_scales_to_the_sum_of_the_base() {
    let mut ours = profile(&[("a", 30), ("b", 10)]);
    diff::normalize(&mut ours, &profile(&[("a", 5), ("c", 15)]));
    assert_eq!(ours.samples.values, [15, 5]);
    let mut nothing = profile(&[("a", 1), ("b", -1)]);
    diff::normalize(&mut nothing, &profile(&[("a", 5)]));
    assert_eq!(nothing.samples.values, [0, 0], "there is nothing to scale by");
}

#[test]
fn sides_that_count_differently_meet_in_what_they_have_in_common() {
    let aligned = diff::align(&profile(&[("a", 1)]), &profile(&[("b", 1)])).expect("they go together");
    assert!(aligned.is_none(), "there is nothing to do");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_differs_from_itself(list in sketch::profiles(SampleTypes::Same)) {
        let merged = merge(&list);
        let difference = diff::subtract(&merged.profile(), merged.profile()).expect("they go together");
        prop_assert!(difference.profile().samples.is_empty());
        let mut scaled = merged.profile();
        diff::normalize(&mut scaled, &merged.profile());
        if merged.profile().totals().0.iter().all(|&total| total != 0) {
            prop_assert_eq!(scaled.samples.values, merged.profile().samples.values);
        }
        let pair = diff::pair(merged.profile(), merged.profile(), 0).expect("they go together");
        for node in FlameGraph::diff(&pair.profile(), None).nodes {
            prop_assert_eq!((node.total, node.self_value), (node.base_total, node.base_self));
        }
    }

    #[test]
    fn a_diff_adds_up(list in sketch::profiles(SampleTypes::Different)) {
        let (ours, base) = (merge(&list[..1]), merge(&list[1..]));
        let aligned = diff::align(&ours.profile(), &base.profile()).expect("one type all have");
        let (ours, base) = aligned.unwrap_or((ours, base));
        let (ours, base) = (ours.profile(), base.profile());
        let totals = (ours.totals().0, base.totals().0);
        let difference = diff::subtract(&ours, base.clone()).expect("they go together");
        let left: Vec<i64> = totals.0.iter().zip(&totals.1).map(|(ours, base)| ours - base).collect();
        prop_assert_eq!(difference.profile().totals().0, left);

        for column in 0..ours.sample_types.len() {
            let pair = diff::pair(ours.clone(), base.clone(), column).expect("they go together");
            let pair = pair.profile();
            let graph = FlameGraph::diff(&pair, None);
            let (total, base_total) = (totals.0[column], totals.1[column]);
            prop_assert_eq!((graph.nodes[0].total, graph.nodes[0].base_total), (total, base_total));
            let top = Top::diff(&pair, None);
            prop_assert_eq!((top.total, top.base_total), (total, base_total));
            // Of what differs each side has what its own table says.
            let sums = |profile| -> BTreeMap<String, [i64; 2]> {
                Top::new(profile, column, None).rows.into_iter().map(|row| (row.name, [row.self_value, row.total])).collect()
            };
            let (ours, base) = (sums(&ours), sums(&base));
            let names: std::collections::BTreeSet<&String> = ours.keys().chain(base.keys()).collect();
            let of = |sums: &BTreeMap<String, [i64; 2]>, name| sums.get(name).copied().unwrap_or_default();
            let expected: BTreeMap<String, [[i64; 2]; 2]> = names
                .into_iter()
                .map(|name| (name.clone(), [of(&ours, name), of(&base, name)]))
                .filter(|(_, [ours, base])| ours != base)
                .collect();
            let found: BTreeMap<String, [[i64; 2]; 2]> = (top.rows.into_iter())
                .map(|row| (row.name, [[row.self_value, row.total], [row.base_self, row.base_total]]))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
