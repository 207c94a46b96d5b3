//! Top, Function, and Series of a function: the numbers of a merge's table, group by group, of samples that are read once.

use std::collections::BTreeMap;

use afterglow_proto::v1;
use afterglow_store::testing::faults::Operation;

use crate::series::{ask, put_fixtures, selections};
use crate::world::{NOW_NANOS, SECOND, World, cpu, small};

const TOP: &str = "/api/v1/top";
const FUNCTION: &str = "/api/v1/function";

/// What a table says of each function: its file, self and total.
type Rows = BTreeMap<String, (String, i64, i64)>;

/// The parameters of a question.
type Params<'p> = &'p [(&'p str, &'p str)];

fn rows(top: &v1::Top) -> Rows {
    top.functions.iter().map(|row| (row.name.clone(), (row.file.clone(), row.self_, row.total))).collect()
}

async fn ask_top(world: &World, asked: &[(&str, &str)]) -> v1::TopResponse {
    serde_json::from_value(world.json(TOP, asked).await).unwrap()
}

async fn ask_function(world: &World, asked: &[(&str, &str)]) -> v1::FunctionResponse {
    serde_json::from_value(world.json(FUNCTION, asked).await).unwrap()
}

/// Returns the table that a merge gives, with how many profiles it is of; none where it is refused.
async fn merged_top(world: &World, asked: &[(&str, &str)]) -> Option<(v1::Top, u64)> {
    let answer = world.get("/api/v1/merge", &[asked, &[("format", "top")]].concat()).await;
    if answer.status != 200 {
        return None;
    }
    let merged: v1::MergeResponse = serde_json::from_value(answer.json()).unwrap();
    let Some(v1::merge_response::Result::Top(top)) = merged.result else { panic!("{:?}", merged.result) };
    Some((top, merged.profiles))
}

/// Goal: over real profiles, whatever is selected, the ranking is the table of the merge, row by row and in its order; groups add up to it;
/// each group is what the merge of that group says; and a compaction changes nothing.
#[tokio::test]
async fn rankings_are_the_tables_of_merges() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fixtures(&world).await;
    let mut answers = Vec::new();
    for _ in ["segments", "blocks"] {
        let mut seen = Vec::new();
        for (number, selection) in selections().into_iter().enumerate() {
            let by = ["service", "instance,version", "version"][number % 3];
            let Some((default, _)) = merged_top(&world, &selection).await else { continue };
            let kind = default.sample_type.unwrap().r#type;
            let selection = [&selection[..], &[("sample_type", kind.as_str())]].concat();
            let (merged, profiles) = merged_top(&world, &selection).await.unwrap();
            let answer = ask_top(&world, &[&selection[..], &[("by", by), ("limit", "0")]].concat()).await;
            assert_eq!(answer.profiles, profiles);
            let top = answer.top.as_ref().unwrap();
            assert_eq!((top.total, top.functions.len()), (merged.total, merged.functions.len()), "{selection:?}");
            assert_eq!(top, &merged, "{selection:?}");
            let by_total = [("value", "total"), ("limit", "7")];
            let largest = ask_top(&world, &[&selection[..], &by_total].concat()).await.top.unwrap();
            let mut expected = merged.functions.clone();
            expected.sort_by(|a, b| (b.total, b.self_, &a.name).cmp(&(a.total, a.self_, &b.name)));
            assert_eq!(largest.functions_truncated, expected.len().saturating_sub(7) as u64, "{selection:?}");
            expected.truncate(7);
            assert_eq!(largest.functions, expected, "{selection:?}");

            let mut sums = Rows::new();
            for group in &answer.groups {
                for (name, (file, self_value, total)) in rows(group.top.as_ref().unwrap()) {
                    let row = sums.entry(name).or_insert_with(|| (file, 0, 0));
                    row.1 += self_value;
                    row.2 += total;
                }
            }
            let values = |rows: &Rows| -> Vec<(String, i64, i64)> {
                let rows = rows.iter().filter(|(_, row)| (row.1, row.2) != (0, 0));
                rows.map(|(name, row)| (name.clone(), row.1, row.2)).collect()
            };
            assert_eq!(values(&sums), values(&rows(top)), "{selection:?}");
            assert_eq!(answer.groups.iter().map(|group| group.profiles).sum::<u64>(), profiles);
            assert!(answer.groups.is_sorted_by_key(|group| -group.top.as_ref().unwrap().total));

            let first = &answer.groups[0];
            let labels: Vec<String> = first.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let query = selection.iter().find(|(name, _)| *name == "query").unwrap().1.trim_matches(['{', '}']);
            let narrowed =
                format!("{{{}}}", [&labels[..], &[query.to_owned()]].concat().join(",").trim_end_matches(','));
            let narrowed: Vec<_> = selection
                .iter()
                .map(|&(name, value)| (name, if name == "query" { &narrowed } else { value }))
                .collect();
            let (merged, profiles) = merged_top(&world, &narrowed).await.unwrap();
            assert_eq!(first.profiles, profiles, "{narrowed:?}");
            let (ours, theirs) = (first.top.as_ref().unwrap(), merged);
            assert_eq!((ours.total, values(&rows(ours))), (theirs.total, values(&rows(&theirs))), "{narrowed:?}");
            seen.push(answer);
        }
        answers.push(seen);
        world.compact().await;
    }
    assert!(answers[0].len() > 15, "{}", answers[0].len());
    assert!(answers[0] == answers[1], "a compaction changes no answer");
}

/// Goal: a filter leaves of a ranking what it leaves of a merge, with the same warnings, and groups add up to it.
#[tokio::test]
async fn a_filter_leaves_what_it_leaves_of_a_merge() {
    let world = World::new().await;
    put_fixtures(&world).await;
    for (name, pattern) in [
        ("focus", "runtime"),
        ("ignore", "runtime"),
        ("hide", "^runtime"),
        ("show_from", "main"),
        ("tag_focus", "thread"),
        ("focus", "nobody has this"),
    ] {
        let asked = [("type", "heap"), ("start", "-1h"), ("sample_type", "inuse_space"), (name, pattern)];
        let answer = world.json("/api/v1/merge", &[&asked[..], &[("format", "top")]].concat()).await;
        let merged: v1::MergeResponse = serde_json::from_value(answer).unwrap();
        let Some(v1::merge_response::Result::Top(top)) = merged.result else { panic!("{:?}", merged.result) };
        let ours = ask_top(&world, &[&asked[..], &[("by", "service"), ("limit", "0")]].concat()).await;
        let values = |top: &v1::Top| -> Vec<(String, i64, i64)> {
            top.functions.iter().map(|row| (row.name.clone(), row.self_, row.total)).collect()
        };
        let all = ours.top.as_ref().unwrap();
        assert_eq!((all.total, values(all)), (top.total, values(&top)), "{name}={pattern}");
        assert_eq!(ours.warnings, merged.warnings, "{name}={pattern}");
        assert_eq!(ours.groups.iter().map(|group| group.top.as_ref().unwrap().total).sum::<i64>(), all.total);
    }
}

/// Goal: a function's points add up to its row in the table of the merge, self and total; its history, its shares and its callers agree.
#[tokio::test]
async fn a_function_adds_up_to_its_row() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fixtures(&world).await;
    let mut answers = Vec::new();
    for _ in ["segments", "blocks"] {
        let mut seen = Vec::new();
        for (number, selection) in selections().into_iter().enumerate().filter(|(number, _)| number % 2 == 0) {
            let Some((top, profiles)) = merged_top(&world, &selection).await else { continue };
            let kind = top.sample_type.as_ref().unwrap().r#type.as_str();
            let count = top.functions.len();
            for row in [0, count / 7, count / 2, count - 1].map(|at| &top.functions[at]) {
                let by = ["service", "", "instance", "type"][number % 4];
                let asked = [&selection[..], &[("by", by), ("step", "2s"), ("sample_type", kind)]].concat();
                for (value, expected) in [("total", row.total), ("self", row.self_)] {
                    let asked = [&asked[..], &[("function", row.name.as_str()), ("value", value)]].concat();
                    let series = ask(&world, &asked).await;
                    assert_eq!(series.series.iter().map(|series| series.total).sum::<i64>(), expected, "{asked:?}");
                    assert_eq!(series.series.iter().map(|series| series.profiles).sum::<u64>(), profiles, "{asked:?}");
                    seen.push(format!("{series:?}"));
                }
                let function = ask_function(&world, &[&asked[..], &[("name", row.name.as_str())]].concat()).await;
                assert_eq!(function.profiles, profiles);
                let shares = function.groups.iter().map(|group| &group.top.as_ref().unwrap().functions[0]);
                let shares: Vec<(i64, i64)> = shares.map(|share| (share.self_, share.total)).collect();
                assert_eq!(shares.iter().map(|share| share.0).sum::<i64>(), row.self_, "{asked:?}");
                assert_eq!(shares.iter().map(|share| share.1).sum::<i64>(), row.total, "{asked:?}");
                let all: i64 = function.groups.iter().map(|group| group.top.as_ref().unwrap().total).sum();
                assert_eq!(all, top.total, "{asked:?}");
                let history: Vec<i64> = function.history.iter().map(|series| series.total).collect();
                assert_eq!(history, shares.iter().map(|share| share.1).collect::<Vec<_>>(), "{asked:?}");
                for calls in [&function.callers, &function.callees] {
                    assert!(calls.iter().all(|call| call.total.abs() <= row.total.abs() && call.name != row.name));
                    assert!(calls.is_sorted_by_key(|call| -call.total));
                }
                seen.push(format!("{function:?}"));
            }
        }
        answers.push(seen);
        world.compact().await;
    }
    assert!(answers[0].len() > 40, "{}", answers[0].len());
    assert!(answers[0] == answers[1], "a compaction changes no answer");
}

/// Goal: the answers look as a UI and scripts rely on.
#[tokio::test]
async fn answers_look_like_this() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 61), cpu(2, &[("service", "web")], 20)]).await;
    insta::assert_json_snapshot!("top_by_service", world.json(TOP, &[("by", "service"), ("limit", "1")]).await);
    let asked = [("name", "main"), ("step", "60"), ("by", "service")];
    insta::assert_json_snapshot!("function", world.json(FUNCTION, &asked).await);
    let asked = [("function", "work"), ("value", "self"), ("step", "60")];
    insta::assert_json_snapshot!("series_of_a_function", world.json("/api/v1/series", &asked).await);
}

/// Goal: callers and callees that an answer has no room for are counted.
#[tokio::test]
async fn calls_that_are_left_out_are_told() {
    let world = World::new().await;
    put_fixtures(&world).await;
    let ask = async |limit: &str| {
        let asked = [("query", "{}"), ("type", "heap"), ("name", "runtime.main"), ("limit", limit)];
        ask_function(&world, &asked).await
    };
    let all = ask("1000").await;
    assert!(all.callees.len() > 1 && all.warnings.is_empty(), "{all:?}");
    let some = ask("1").await;
    assert_eq!(some.callees, all.callees[..1]);
    let left_out = all.callees.len() - 1;
    assert_eq!(some.warnings, [format!("{left_out} callees are left out: these are the largest 1")]);
}

/// Goal: a function that nobody has is no error but an empty answer that says so; only rows that match are shown.
#[tokio::test]
async fn what_is_not_there_is_said() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let series = ask(&world, &vec![("function", "absent")]).await;
    let warning = "no stack of the selected profiles has a function called \"absent\"";
    assert_eq!((series.series.len(), &series.warnings[..]), (0, &[warning.to_owned()][..]));
    let function = ask_function(&world, &[("name", "absent")]).await;
    assert_eq!(
        (function.callers.len(), function.callees.len(), &function.warnings[..]),
        (0, 0, &[warning.to_owned()][..])
    );
    assert_eq!(function.groups[0].top.as_ref().unwrap().functions[0].total, 0);
    let top = ask_top(&world, &[("function", "^(wo|id)")]).await.top.unwrap();
    assert_eq!(top.functions.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["work", "idle"]);
    assert_eq!((top.total, top.functions_truncated), (40, 0));
}

/// Goal: whoever asks for some functions is shown the groups that have them, those first that have most, and told how many have none; asked
/// again, from what was kept, it is the same.
#[tokio::test]
async fn groups_are_ranked_by_what_matches() {
    let world = World::with(&["--query.decoded-cache=64MiB"]).await;
    let profile = |id: u128, service: &str, json: i64, other: i64| {
        let stacks: [(&[&str], &[i64]); 3] = [
            (&["main", "encoding/json.Marshal"], &[json]),
            (&["main", "encoding/json.Marshal", "encoding/json.write"], &[json]),
            (&["main", "work"], &[other]),
        ];
        let stacks = if json == 0 { &stacks[2..] } else { &stacks[..] };
        small(id, "cpu", &[("service", service)], NOW_NANOS - 20 * SECOND, &[("cpu", "nanoseconds")], stacks)
    };
    world.put(&[profile(1, "large", 0, 900), profile(2, "middle", 3, 500), profile(3, "small", 40, 1)]).await;
    for value in ["self", "total"] {
        let asked = [("by", "service"), ("function", "^encoding/json"), ("value", value)];
        let answer = ask_top(&world, &asked).await;
        let groups: Vec<_> = (answer.groups.iter())
            .map(|group| {
                let top = group.top.as_ref().unwrap();
                (group.labels["service"].as_str(), top.total, top.functions.len())
            })
            .collect();
        assert_eq!(groups, [("small", 81, 2), ("middle", 506, 2)], "{value}");
        assert_eq!((answer.groups_unmatched, answer.groups_truncated, answer.profiles), (1, 0, 3));
        assert_eq!(ask_top(&world, &asked).await, answer, "as it was kept");
        let request = v1::TopRequest {
            by: vec!["service".to_owned()],
            function: "^encoding/json".to_owned(),
            limit: 50,
            value: v1::FunctionValue::from_str_name(&format!("SERIES_VALUE_{}", value.to_uppercase())).unwrap().into(),
            ..v1::TopRequest::default()
        };
        assert_eq!(world.grpc.clone().top(request).await.unwrap().into_inner(), answer);
    }
    let all = ask_top(&world, &[("by", "service")]).await;
    let names: Vec<&str> = all.groups.iter().map(|group| group.labels["service"].as_str()).collect();
    assert_eq!((names, all.groups_unmatched), (vec!["large", "middle", "small"], 0));
}

/// Goal: a value that has no name is refused, and not taken for another.
#[tokio::test]
async fn a_value_without_a_name_is_refused() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let mut grpc = world.grpc.clone();
    let top = grpc.top(v1::TopRequest { value: 7, ..Default::default() }).await.unwrap_err();
    let regressions = grpc.regressions(v1::RegressionsRequest { value: 7, ..Default::default() }).await.unwrap_err();
    let statistics = grpc.statistics(v1::StatisticsRequest { value: 7, ..Default::default() }).await.unwrap_err();
    for status in [top, regressions, statistics] {
        let said = (status.code(), status.message());
        assert_eq!(said, (tonic::Code::InvalidArgument, "value 7 is not one of total, self"));
    }
}

/// Goal: what types that count different things are told apart by is the type, and no label.
#[tokio::test]
async fn types_that_count_different_things_are_named() {
    let world = World::new().await;
    let heap =
        small(2, "heap", &[("service", "api")], NOW_NANOS - SECOND, &[("inuse_space", "bytes")], &[(&["a"], &[1])]);
    world.put(&[cpu(1, &[("service", "api")], 20), heap]).await;
    for (path, name) in [(TOP, ""), (FUNCTION, "work"), ("/api/v1/series", ""), ("/api/v1/statistics", "")] {
        let asked = [("by", "type"), ("name", name)];
        let refused = world.refusal(path, if name.is_empty() { &asked[..1] } else { &asked }).await;
        assert!(
            refused.starts_with("400 INVALID_ARGUMENT profiles of different types go together only where"),
            "{refused}"
        );
        assert!(
            refused
                .ends_with("cpu counts samples/count cpu/nanoseconds, heap counts inuse_space/bytes: give one as type"),
            "{refused}"
        );
    }
}

/// Goal: of what a filter leaves, a series and a function have the sums that a ranking has, over real profiles.
#[tokio::test]
async fn a_filter_leaves_of_series_and_functions_what_it_leaves_of_a_ranking() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fixtures(&world).await;
    let mut compared = 0;
    for _ in ["segments", "blocks"] {
        for (name, pattern) in [
            ("focus", "runtime"),
            ("ignore", "runtime"),
            ("hide", "^runtime"),
            ("tag_focus", "thread"),
            ("show_from", "main"),
        ] {
            let asked = [
                ("type", "heap"),
                ("start", "-1h"),
                ("sample_type", "inuse_space"),
                ("by", "service"),
                (name, pattern),
            ];
            let top = ask_top(&world, &[&asked[..], &[("limit", "0")]].concat()).await;
            let tables: BTreeMap<_, _> =
                top.groups.iter().map(|group| (&group.labels["service"], group.top.as_ref().unwrap())).collect();
            let series = ask(&world, &asked.to_vec()).await;
            assert_eq!(series.warnings, top.warnings, "{name}={pattern}");
            for series in &series.series {
                assert_eq!(series.total, tables[&series.labels["service"]].total, "{name}={pattern}");
                compared += usize::from(series.total > 0);
            }
            let row = &top.top.as_ref().unwrap().functions;
            let Some(row) = row.get(row.len() / 2) else { continue };
            let function = ask_function(&world, &[&asked[..], &[("name", row.name.as_str())]].concat()).await;
            for group in &function.groups {
                let (ours, theirs) = (group.top.as_ref().unwrap(), tables[&group.labels["service"]]);
                let sums = |top: &v1::Top| {
                    let row = top.functions.iter().find(|of| of.name == row.name);
                    row.map_or((0, 0), |of| (of.self_, of.total))
                };
                assert_eq!((ours.total, sums(ours)), (theirs.total, sums(theirs)), "{name}={pattern}");
            }
            let own = [("function", row.name.as_str()), ("value", "self")];
            let own = ask(&world, &[&asked[..], &own].concat()).await;
            assert_eq!(own.series.iter().map(|series| series.total).sum::<i64>(), row.self_, "{name}={pattern}");
        }
        world.compact().await;
    }
    assert!(compared > 10, "{compared}");
}

/// Goal: a label to group by that no profile has is warned of, whatever is asked, and one that some have is not.
#[tokio::test]
async fn a_label_that_nobody_has_is_warned_of() {
    let world = World::new().await;
    let labels: [&[(&str, &str)]; 2] = [&[("service", "api"), ("dc", "eu")], &[("service", "web")]];
    world.put(&labels.iter().zip(1..).map(|(labels, id)| cpu(id, labels, 20)).collect::<Vec<_>>()).await;
    for question in ["top", "function", "series", "statistics"] {
        let asked = [("type", "cpu"), ("name", "work"), ("by", "dc,datacentre")];
        let asked = if question == "function" { &asked[..] } else { &[asked[0], asked[2]] };
        let answer = world.json(&format!("/api/v1/{question}"), asked).await;
        let said = |text: &str| answer["warnings"].as_array().unwrap().iter().any(|warning| *warning == text);
        let expected = "by: no selected profile has a label \"datacentre\", which so tells nothing apart";
        assert!(said(expected), "{question}: {answer}");
        assert!(!answer["warnings"].to_string().contains("\\\"dc\\\""), "{question}: {answer}");
    }
}

/// Goal: each dataset is read once, whatever the groups are.
#[tokio::test]
async fn samples_are_read_once_for_all_groups() {
    let world = World::with(&["--query.range-cache=0", "--query.decoded-cache=0"]).await;
    let profiles: Vec<_> = (0..40u128)
        .map(|id| cpu(id + 1, &[("service", "api"), ("pod", &format!("p{}", id % 20))], 40 - id as i64))
        .collect();
    world.put(&profiles).await;
    ask(&world, &vec![]).await;
    let reads = || world.faults.count(Operation::Get);
    let before = reads();
    world.get("/api/v1/merge", &[]).await;
    let merge = reads() - before;
    let answer = ask_top(&world, &[("by", "pod")]).await;
    assert_eq!((answer.groups.len(), reads() - before), (20, 2 * merge));
    ask_function(&world, &[("name", "work"), ("by", "pod"), ("step", "1")]).await;
    assert_eq!(reads() - before, 3 * merge);
}

/// Goal: what profiles came to is kept, for the very same profiles, groups, sample type and function: whatever is asked, and however often,
/// the answer is that of a querier that keeps nothing; and what is asked again reads nothing.
#[tokio::test]
async fn what_was_summed_is_kept_for_the_same_profiles() {
    let world = World::with(&["--query.max-list-age=0s", "--query.range-cache=0", "--query.decoded-cache=64MiB"]).await;
    let flags = ["--query.max-list-age=0s", "--query.range-cache=0", "--query.decoded-cache=0"];
    let forgetful = World::over(world.faults.inner(), &flags).await;
    put_fixtures(&world).await;
    let mut compared = 0;
    for _ in ["segments", "blocks"] {
        for selection in selections() {
            let function: [Params<'_>; 3] = [&[], &[("name", "runtime.mallocgc")], &[("name", "main.main")]];
            let kinds: [Params<'_>; 3] = [&[], &[("sample_type", "alloc_space")], &[("sample_type", "samples")]];
            for by in ["", "instance", "version,service"] {
                let series: [Params<'_>; 2] =
                    [&[("function", "runtime.mallocgc")], &[("function", "main.main"), ("step", "2s")]];
                let sides: [Params<'_>; 2] =
                    [&[("base_query", "{version=\"v0\"}")], &[("base_query", "{version!=\"v0\"}")]];
                let questions: [(&str, &[Params<'_>]); 5] = [
                    (TOP, &kinds),
                    (FUNCTION, &function),
                    ("/api/v1/statistics", &kinds),
                    ("/api/v1/series", &series),
                    ("/api/v1/regressions", &sides),
                ];
                for (path, more) in questions {
                    // What is compared with another side is not told apart by labels.
                    if path == "/api/v1/regressions" && !by.is_empty() {
                        continue;
                    }
                    for more in more {
                        let by: &[(&str, &str)] = if by.is_empty() { &[] } else { &[("by", by)] };
                        let asked = [&selection[..], by, more].concat();
                        let (ours, expected) = (world.get(path, &asked).await, forgetful.get(path, &asked).await);
                        assert_eq!((ours.status, &ours.body), (expected.status, &expected.body), "{path} {asked:?}");
                        assert_ne!(ours.status, 500, "{path} {asked:?}: {ours}");
                        compared += usize::from(ours.status == 200);
                    }
                }
            }
        }
        let again: Vec<_> = [TOP, FUNCTION, "/api/v1/statistics"]
            .map(|path| {
                (path, vec![("type", "cpu"), ("by", "instance"), ("name", "runtime.mallocgc"), ("start", "-1h")])
            })
            .to_vec();
        // What looking for new profiles takes.
        let before = world.faults.count(Operation::Get);
        ask(&world, &vec![("type", "cpu"), ("start", "-1h")]).await;
        let looking = world.faults.count(Operation::Get) - before;
        for turn in ["first", "second"] {
            for (path, asked) in &again {
                let asked = if *path == FUNCTION { &asked[..] } else { &[&asked[..2], &asked[3..]].concat() };
                let reads = async |world: &World| {
                    let before = world.faults.count(Operation::Get);
                    assert_eq!(world.get(path, asked).await.status, 200, "{path}");
                    world.faults.count(Operation::Get) - before
                };
                let (ours, theirs) = (reads(&world).await, reads(&forgetful).await);
                assert!(theirs > looking && (turn == "first" || ours == looking), "{path}: {ours} reads, and {theirs}");
            }
        }
        world.compact().await;
    }
    assert!(compared > 300, "{compared} answers");
}

/// Goal: where tables would take much of the room only what they come to is kept, for they would push that out; else whatever was decoded.
#[tokio::test]
async fn of_many_services_no_tables_are_kept() {
    const SERVICES: u128 = 70;
    let world = World::with(&["--query.range-cache=0", "--query.decoded-cache=128KiB"]).await;
    let names: Vec<String> = (0..8).map(|n| format!("a/package/of/some/depth.function{n}")).collect();
    let stack: Vec<&str> = names.iter().map(String::as_str).chain(["work"]).collect();
    let profile = |service: u128| {
        let (labels, time) = ([("service", &*format!("s{service}"))], NOW_NANOS - 40 * SECOND);
        small(service + 1, "cpu", &labels, time, &[("samples", "count")], &[(&stack, &[3])])
    };
    world.put(&(0..SERVICES).map(profile).collect::<Vec<_>>()).await;
    ask(&world, &vec![]).await;
    // In ranges: some are read together, in one request.
    let read = async |path: &str, asked: &[(&str, &str)]| {
        let answer = world.json(path, &[asked, &[("explain", "true")]].concat()).await;
        let of = |name: &str| answer["explain"][name].as_str().map_or(0, |number| number.parse::<u64>().unwrap());
        of("ranges") - of("rangesCached")
    };
    let few = ("query", "{service=~\"s1|s2\"}");
    assert!(read(TOP, &[few]).await > 0);
    assert_eq!(read(FUNCTION, &[few, ("name", "work")]).await, 0, "tables and sums are there");
    let first = read(TOP, &[]).await;
    let again = read(TOP, &[("by", "service"), ("value", "total")]).await;
    assert!(again < first / 2, "what most of them come to is there: {first} ranges, then {again}");
    let otherwise = read(FUNCTION, &[("name", "work")]).await;
    assert!(otherwise > first / 2, "for another question it is read again: {first} ranges, then {otherwise}");
    let again = read(FUNCTION, &[("name", "work"), ("by", "service")]).await;
    assert!(again < otherwise / 2, "{otherwise} ranges, then {again}");
}

/// Goal: who asks for a function of one service among many reads that service alone, once blocks say what functions they have, and the
/// answer is what it was.
#[tokio::test]
async fn services_without_the_function_are_not_read() {
    const SERVICES: u128 = 20;
    let world = World::with(&["--query.range-cache=0"]).await;
    let profile = |id: u128, service: u128| {
        let (name, own) = (format!("s{service}"), format!("handle{service}"));
        let labels: [(&str, &str); 1] = [("service", &name)];
        let stacks: [(&[&str], &[i64]); 2] = [(&["main", &own], &[3]), (&["main", "idle"], &[1])];
        small(id, "cpu", &labels, NOW_NANOS - 40 * SECOND + id as i64, &[("samples", "count")], &stacks)
    };
    for round in 0..2 {
        let profiles: Vec<_> = (0..SERVICES).map(|service| profile(round * SERVICES + service + 1, service)).collect();
        world.put(&profiles).await;
    }
    let asked = [("name", "handle7"), ("by", "service")];
    let before = (ask_function(&world, &asked).await, ask(&world, &vec![("function", "handle7")]).await);
    world.compact().await;
    // The rows of new blocks are read once.
    ask(&world, &vec![]).await;
    let read = async |name: &str| {
        let before = world.faults.bytes_in_ranges();
        let answer = ask_function(&world, &[("name", name), ("by", "service")]).await;
        (answer, world.faults.bytes_in_ranges() - before)
    };
    let ((everywhere, all), (_, nowhere)) = (read("main").await, read("absent").await);
    let (after, own) = read("handle7").await;
    assert_eq!((after, ask(&world, &vec![("function", "handle7")]).await), before);
    assert_eq!(everywhere.groups.len(), SERVICES as usize);
    // One of 64 services that lack a function is read in vain; which those are is decided by the names.
    assert!(own * 10 <= all && nowhere * 10 <= all, "{all} bytes of all, {own} of one, {nowhere} of none");
    // A name in brackets may be that of a mapping, of which filters say nothing.
    assert_eq!(read("[libc.so]").await.1, all);
}

/// Goal: sums beyond 64 bits stand at the largest and are said, and units that convert are brought to the finer one.
#[tokio::test]
async fn units_convert_and_sums_stand_at_the_largest() {
    let world = World::new().await;
    let profile = |id, unit, value: i64| {
        small(id, "wall", &[("service", "api")], NOW_NANOS - SECOND, &[("wall", unit)], &[(&["main"], &[value])])
    };
    world.put(&[profile(1, "milliseconds", 3), profile(2, "nanoseconds", 5)]).await;
    let (merged, _) = merged_top(&world, &[]).await.unwrap();
    let answer = ask_top(&world, &[]).await;
    assert_eq!((answer.top.unwrap(), answer.warnings.len()), (merged, 0));

    let world = World::new().await;
    world.put(&[profile(1, "milliseconds", i64::MAX), profile(2, "nanoseconds", 5)]).await;
    let answer = ask_top(&world, &[]).await;
    assert_eq!(answer.top.as_ref().unwrap().functions[0].self_, i64::MAX);
    assert_eq!(answer.warnings, ["3 sums do not fit in 64 bits and stand at the nearest value that does"]);
}

/// Goal: what cannot be answered is refused with what could, and the limit.
#[tokio::test]
async fn refusals_name_the_limit() {
    let world = World::with(&["--query.max-merge-profiles=1"]).await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let long = "x".repeat(4_097);
    let mut refusals = vec![
        world.refusal(TOP, &[("function", "(")]).await,
        world.refusal(TOP, &[("function", &long)]).await,
        world.refusal(TOP, &[("sample_type", "wall")]).await,
        world.refusal(TOP, &[("type", "heap"), ("end", "1795482000")]).await,
        world.refusal(FUNCTION, &[]).await,
        world.refusal(FUNCTION, &[("name", "main"), ("step", "1ns"), ("end", "1795482000")]).await,
        world.refusal("/api/v1/series", &[("value", "self")]).await,
        world.refusal("/api/v1/series", &[("value", "both"), ("function", "main")]).await,
    ];
    let fresh = World::with(&["--query.max-merge-profiles=1"]).await;
    fresh.put(&[cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10)]).await;
    refusals.push(fresh.refusal(TOP, &[]).await);
    refusals.push(fresh.refusal(FUNCTION, &[("name", "main")]).await);
    let small = World::with(&["--query.memory=1KiB"]).await;
    small.put(&[cpu(1, &[("service", "api")], 20)]).await;
    put_fixtures(&small).await;
    refusals.push(
        small.refusal(TOP, &[("type", "cpu"), ("start", "-1h")]).await.split(" needs ").next().unwrap().to_owned(),
    );
    insta::assert_snapshot!(refusals.join("\n"));
}

/// Goal: what is read of services that lie next to each other is read together, whatever is kept; what is known already is not read.
#[tokio::test]
async fn many_services_take_few_reads() {
    const SERVICES: u128 = 300;
    let flags = ["--query.range-cache=0", "--query.max-list-age=0s"];
    let world = World::with(&flags).await;
    let forgetful = World::over(world.faults.inner(), &[&flags[..], &["--query.decoded-cache=0"]].concat()).await;
    let name = |service: u128| format!("s{service:03}");
    let profile = |id: u128| cpu(id + 1, &[("service", &*name(id % SERVICES)), ("side", "a")], 10 + id as i64);
    world.put(&(0..2 * SERVICES).map(profile).collect::<Vec<_>>()).await;
    for blocks in ["segments", "blocks"] {
        for world in [&world, &forgetful] {
            ask(world, &vec![("limit", "1")]).await;
            let read = async |path: &str, asked: &[(&str, &str)]| {
                let before = world.faults.count(Operation::Get);
                let answer = world.get(path, &[&[("start", "-1h")], asked].concat()).await;
                assert_eq!(answer.status, 200, "{answer}");
                (world.faults.count(Operation::Get) - before, answer.json())
            };
            let (reads, answer) = read(TOP, &[("by", "service"), ("limit", "0")]).await;
            let groups = answer["groups"].as_array().unwrap();
            assert_eq!((groups.len(), &answer["top"]["total"]), (300, &format!("{}", 40 * 2 * SERVICES).into()));
            assert!((1..10).contains(&reads), "{blocks}: {reads} reads of {SERVICES} datasets");
            let (reads, again) = read(TOP, &[("by", "service"), ("limit", "0")]).await;
            assert_eq!(again, answer);
            assert!(reads < 10, "{blocks}: {reads} reads of {SERVICES} datasets, again");
            let (reads, _) = read("/api/v1/statistics", &[("by", "service")]).await;
            assert!(reads < 10, "{blocks}: {reads} reads of {SERVICES} datasets, of another question");
        }
        world.compact().await;
    }
}
