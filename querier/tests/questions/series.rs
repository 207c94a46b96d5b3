//! Series: the sums of merges, step by step and group by group, out of the index alone.

use std::collections::{BTreeMap, BTreeSet};

use afterglow_profile::{Limits, compress};
use afterglow_proto::v1;
use afterglow_store::testing::faults::Operation;

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, decoded, fixture, fixtures, small};

const PATH: &str = "/api/v1/series";

/// A query and its parameters.
type Asked<'a> = Vec<(&'a str, &'a str)>;

/// Puts real profiles, those of a service under several instances and versions, as several segments.
pub(crate) async fn put_fixtures(world: &World) {
    let mut segments: Vec<Vec<Sent>> = vec![Vec::new(); 3];
    for (id, file) in (1..).zip(fixtures()) {
        let (service, _) = file.split_once('-').unwrap();
        let number = id as usize;
        let (instance, version) = (format!("i{}", number % 3), format!("v{}", number % 2));
        let mut labels = vec![("service", service), ("instance", &*instance)];
        if !number.is_multiple_of(4) {
            labels.push(("version", &*version));
        }
        segments[number % 3].push(fixture(&file, id, &labels));
    }
    for segment in &segments {
        world.put(segment).await;
    }
}

/// Asks for a series.
pub(crate) async fn ask(world: &World, asked: &Asked<'_>) -> v1::SeriesResponse {
    serde_json::from_value(world.json(PATH, asked).await).unwrap()
}

/// Returns the totals of a merge by their sample types, and how many profiles it is of; none where it is refused.
async fn merged_totals(world: &World, asked: &Asked<'_>) -> Option<(BTreeMap<String, i64>, u64)> {
    let answer = world.get("/api/v1/merge", asked).await;
    if answer.status != 200 {
        return None;
    }
    let raw = compress::inflate(&answer.body, &Limits::default()).unwrap();
    let profile = decoded(&raw);
    let kinds = profile.sample_types.iter().map(|t| String::from_utf8_lossy(profile.string(t.kind)).into_owned());
    Some((kinds.zip(profile.totals().0).collect(), answer.header("x-afterglow-profiles").parse().unwrap()))
}

/// Selections of all kinds: by type, service, labels that some lack, and windows that cut profiles off.
pub(crate) fn selections() -> Vec<Asked<'static>> {
    let mut selections = Vec::new();
    for (number, profile_type) in ["cpu", "heap", "goroutine", "mutex", "allocs", "block"].into_iter().enumerate() {
        for (turn, query) in ["{}", "{service=\"parca\"}", "{version=\"v1\"}", "{version=\"\"}", "{instance!=\"i0\"}"]
            .into_iter()
            .enumerate()
        {
            let start = ["-1h", "1795481628", "-600s"][(number + turn) % 3];
            let end = ["now", "1795481633"][(number + turn) % 2];
            selections.push(vec![("query", query), ("type", profile_type), ("start", start), ("end", end)]);
        }
    }
    selections
}

/// Goal: whatever is selected, the points of all series together are the totals of the merge, before and after a compaction.
#[tokio::test]
async fn points_add_up_to_the_totals_of_the_merge() {
    let world = World::with(&["--query.max-list-age=0s"]).await;
    put_fixtures(&world).await;
    let mut answers: Vec<Vec<v1::SeriesResponse>> = Vec::new();
    for _ in ["segments", "blocks"] {
        let mut seen = Vec::new();
        for (number, selection) in selections().into_iter().enumerate() {
            let Some((totals, profiles)) = merged_totals(&world, &selection).await else { continue };
            for (kind, total) in totals {
                let by = ["", "service", "instance,version", "type,nothing"][number % 4];
                let step = ["", "1s", "2s", "90s", "1h"][number % 5];
                let asked = [&selection[..], &[("by", by), ("step", step), ("sample_type", &kind)]].concat();
                let answer = ask(&world, &asked).await;
                assert_eq!(answer.sample_type.as_ref().unwrap().r#type, kind);
                let step = answer.step.unwrap().seconds;
                for series in &answer.series {
                    let times: Vec<i64> = series.points.iter().map(|point| point.time.unwrap().seconds).collect();
                    assert!(times.is_sorted_by(|a, b| a < b) && times.iter().all(|time| time % step == 0), "{times:?}");
                    assert_eq!(series.points.iter().map(|point| point.value).sum::<i64>(), series.total);
                    assert_eq!(series.points.iter().map(|point| point.profiles).sum::<u64>(), series.profiles);
                    let names: BTreeSet<&str> = series.labels.keys().map(String::as_str).collect();
                    assert_eq!(names, by.split(',').filter(|name| !name.is_empty()).collect());
                }
                assert_eq!(answer.series.iter().map(|series| series.total).sum::<i64>(), total, "{asked:?}");
                assert_eq!(answer.series.iter().map(|series| series.profiles).sum::<u64>(), profiles, "{asked:?}");
                seen.push(answer);
            }
        }
        answers.push(seen);
        world.compact().await;
    }
    assert!(answers[0].len() > 30, "{}", answers[0].len());
    assert!(answers[0] == answers[1], "a compaction changes no answer");
}

/// Goal: totals are taken from the index: once it is known, a series makes no request for an object at all, where a merge does.
#[tokio::test]
async fn no_sample_is_read() {
    let world = World::new().await;
    put_fixtures(&world).await;
    let everything = vec![("type", "cpu"), ("start", "-1d"), ("by", "service")];
    ask(&world, &everything).await;
    let reads = || world.faults.count(Operation::Get);
    let before = reads();
    assert!(ask(&world, &everything).await.series.len() > 1);
    assert_eq!(reads(), before);
    world.get("/api/v1/merge", &[("type", "cpu"), ("start", "-1d"), ("query", "{service=\"svc\"}")]).await;
    assert_ne!(reads(), before, "a merge is counted");
}

/// Goal: the answer looks as charts and scripts rely on: values, rates, missing labels, the default of `allocs`.
#[tokio::test]
async fn series_look_like_this() {
    let world = World::new().await;
    let labels = [("service", "api"), ("dc", "eu")];
    world.put(&[cpu(1, &labels, 61), cpu(2, &labels, 60), cpu(3, &labels[..1], 20)]).await;
    insta::assert_json_snapshot!("series", world.json(PATH, &[("by", "dc,service"), ("step", "60")]).await);
    insta::assert_json_snapshot!(
        "series_of_nothing",
        world.json(PATH, &[("type", "heap"), ("end", "1795482000")]).await
    );
    let cut = ask(&world, &vec![("by", "dc"), ("limit", "1")]).await;
    assert_eq!((cut.series.len(), cut.series_truncated, cut.series[0].total), (1, 1, 80));
}

/// Goal: where nobody says which sample type, allocations are about what was allocated, as pprof shows them, and not about what is left.
#[tokio::test]
async fn allocs_are_about_alloc_space() {
    let world = World::new().await;
    let counts = [("alloc_space", "bytes"), ("inuse_space", "bytes")];
    let of = |id, kind| small(id, kind, &[("service", "api")], NOW_NANOS - SECOND, &counts, &[(&["main"], &[7, 5])]);
    world.put(&[of(1, "allocs"), of(2, "heap")]).await;
    assert_eq!(ask(&world, &vec![("type", "allocs")]).await.series[0].total, 7);
    assert_eq!(ask(&world, &vec![("type", "heap")]).await.series[0].total, 5);
}

/// Goal: units that convert are summed in the finer one, as a merge does, and what does not fit 64 bits is said.
#[tokio::test]
async fn units_convert_and_sums_stand_at_the_largest() {
    let world = World::new().await;
    let profile = |id, unit, value: i64| {
        small(id, "wall", &[("service", "api")], NOW_NANOS - SECOND, &[("wall", unit)], &[(&["main"], &[value])])
    };
    world.put(&[profile(1, "milliseconds", 3), profile(2, "nanoseconds", 5)]).await;
    let answer = ask(&world, &vec![]).await;
    assert_eq!(answer.sample_type.unwrap().unit, "nanoseconds");
    assert_eq!((answer.series[0].total, answer.warnings.len()), (3_000_005, 0));

    let world = World::new().await;
    world.put(&[profile(1, "milliseconds", i64::MAX), profile(2, "nanoseconds", 5)]).await;
    let answer = ask(&world, &vec![]).await;
    assert_eq!(answer.series[0].total, i64::MAX);
    assert_eq!(answer.warnings, ["2 sums do not fit in 64 bits and stand at the nearest value that does"]);

    // Of one profile an index knows its total as it stands; other forms know the samples.
    let world = World::new().await;
    let stacks: [(&[&str], &[i64]); 2] = [(&["main"], &[i64::MAX]), (&["idle"], &[i64::MAX])];
    let labels = [("service", "api")];
    world.put(&[small(1, "wall", &labels, NOW_NANOS - SECOND, &[("wall", "nanoseconds")], &stacks)]).await;
    assert_eq!(ask(&world, &vec![]).await.warnings.len(), 1);
    for format in ["top", "flamegraph"] {
        let answer = world.json("/api/v1/merge", &[("format", format)]).await;
        let warned = "1 sums do not fit in 64 bits and stand at the nearest value that does";
        assert_eq!(answer["warnings"], serde_json::json!([warned]), "{format}");
    }
}

/// Goal: what a function gained in one place and lost in another is told, though it comes to nothing in all.
#[tokio::test]
async fn a_function_that_cancels_out_is_told() {
    let world = World::new().await;
    let profile = |id, instance, value: i64| {
        let labels = [("service", "cache"), ("instance", instance)];
        small(id, "heap", &labels, NOW_NANOS - SECOND, &[("inuse_space", "bytes")], &[(&["main", "put"], &[value])])
    };
    world.put(&[profile(1, "i0", 1_000), profile(2, "i1", -1_000)]).await;
    for is_compacted in [false, true] {
        if is_compacted {
            world.compact().await;
        }
        let answer = ask(&world, &vec![("function", "put"), ("by", "instance")]).await;
        let totals: Vec<i64> = answer.series.iter().map(|series| series.total).collect();
        assert_eq!((totals, &answer.warnings[..]), (vec![1_000, -1_000], &[][..]), "{is_compacted}");
        let function = world.json("/api/v1/function", &[("name", "put"), ("by", "instance")]).await;
        assert_eq!(function["groups"].as_array().unwrap().len(), 2, "{function}");
        assert!(function.get("warnings").is_none_or(|warnings| *warnings == serde_json::json!([])), "{function}");
    }
}

/// Goal: all of time in which nothing lies is answered as any window is in which nothing lies.
#[tokio::test]
async fn nothing_in_all_of_time_is_no_refusal() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let asked = vec![("query", "{service=\"nobody\"}"), ("start", "0"), ("step", "1h")];
    let answer = ask(&world, &asked).await;
    assert!(answer.series.is_empty() && answer.warnings[0].starts_with("no profiles match"), "{answer:?}");
}

/// Goal: what cannot be answered is refused with what could, and the limit.
#[tokio::test]
async fn refusals_name_the_limit() {
    let world = World::new().await;
    let heap = [("inuse_space", "bytes")];
    world
        .put(&[
            cpu(1, &[("service", "api")], 20),
            small(2, "heap", &[("service", "api")], NOW_NANOS - SECOND, &heap, &[(&["main"], &[7])]),
        ])
        .await;
    let refusals = [
        world.refusal(PATH, &[("step", "0.1ns")]).await,
        world.refusal(PATH, &[("type", "cpu"), ("step", "1us"), ("start", "1795481000"), ("end", "1795482000")]).await,
        world.refusal(PATH, &[("by", "a,b,c,d,e,f,g,h,i")]).await,
        world.refusal(PATH, &[("limit", "10001")]).await,
        world.refusal(PATH, &[("end", "1795482000")]).await,
        world.refusal(PATH, &[("by", "type"), ("end", "1795482000")]).await,
        world.refusal(PATH, &[("type", "cpu"), ("sample_type", "wall")]).await,
        world.refusal(PATH, &[("query", "{service=~\"(\"}")]).await,
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}
