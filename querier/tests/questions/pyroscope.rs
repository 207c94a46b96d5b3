//! What Grafana asks as it asks Pyroscope: the same answers as those to our own questions, in its words, as protobuf and as JSON.

use std::collections::BTreeMap;

use afterglow_profile::model::SampleLabel;
use afterglow_profile::{Limits, compress, encode};
use afterglow_proto::pyroscope::querier::v1 as querier;
use afterglow_proto::pyroscope::types::v1 as types;
use afterglow_proto::v1;
use afterglow_service::access::{Entry, Role};
use prost::Message;
use serde::Serialize;
use serde_json::json;

use crate::series::put_fixtures;
use crate::trouble::damage;
use crate::world::{Answer, NOW_NANOS, SECOND, Sent, World, cpu, decoded, small};

const PROTO: (&str, &str) = ("content-type", "application/proto");
const JSON: (&str, &str) = ("content-type", "application/json");

/// The id under which Grafana knows what Go counts of the CPU.
const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

const SPAN: &str = "9a517183f26a089d";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn path(method: &str) -> String {
    format!("/querier.v1.QuerierService/{method}")
}

/// Milliseconds since 1970, so many seconds before now.
fn ago(seconds: i64) -> i64 {
    NOW_NANOS / 1_000_000 - seconds * 1_000
}

async fn proto(world: &World, method: &str, question: &impl Message) -> Answer {
    world.post(&path(method), &[PROTO], question.encode_to_vec()).await
}

/// Asks in both codecs, and returns what both answer alike.
async fn ask<A: Message + Default + Serialize>(
    world: &World,
    method: &str,
    question: &(impl Message + Serialize),
) -> (A, Answer) {
    let answer = proto(world, method, question).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/proto"), "{method}: {answer}");
    let message = A::decode(&*answer.body).unwrap();
    let over_json = world.post(&path(method), &[JSON], serde_json::to_vec(question).unwrap()).await;
    assert_eq!(
        (over_json.status, over_json.header("content-type")),
        (200, "application/json"),
        "{method}: {over_json}"
    );
    assert_eq!(over_json.json(), serde_json::to_value(&message).unwrap(), "{method}");
    (message, answer)
}

fn stacktraces(selector: &str) -> querier::SelectMergeStacktracesRequest {
    querier::SelectMergeStacktracesRequest {
        profile_type_id: CPU.to_owned(),
        label_selector: selector.to_owned(),
        start: ago(3_600),
        end: ago(0),
        ..Default::default()
    }
}

fn fleet() -> Vec<Sent> {
    let heap = |id, labels: &[(&str, &str)], counts| small(id, "heap", labels, NOW_NANOS - 10 * SECOND, counts, &[]);
    vec![
        cpu(1, &[("service", "web"), ("dc", "eu-1")], 40),
        cpu(2, &[("service", "api"), ("dc", "eu-2")], 30),
        cpu(3, &[("service", "api"), ("dc", "eu-2")], 20),
        cpu(4, &[("service", "old")], 4_000),
        heap(5, &[("service", "api")], &[("alloc_space", "bytes"), ("inuse_space", "bytes")]),
        small(6, "exceptions", &[("service", "web")], NOW_NANOS - 10 * SECOND, &[("thrown", "count")], &[]),
        // What nobody could ask for.
        small(7, "memory", &[("service", "web")], NOW_NANOS - 10 * SECOND, &[("inuse_space", "bytes")], &[]),
    ]
}

/// Goal: lists have what lies in the window under the names that Grafana knows, and what is listed selects.
#[tokio::test]
async fn lists_are_told_in_pyroscope_s_words() {
    let world = World::new().await;
    world.put(&fleet()).await;

    let window = querier::ProfileTypesRequest { start: ago(3_600), end: ago(0) };
    let (listed, _) = ask::<querier::ProfileTypesResponse>(&world, "ProfileTypes", &window).await;
    let ids: Vec<&str> = listed.profile_types.iter().map(|known| known.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "exceptions:thrown:count:thrown:count",
            "memory:alloc_space:bytes:space:bytes",
            "memory:inuse_space:bytes:space:bytes",
            CPU,
            "process_cpu:samples:count:cpu:nanoseconds",
        ]
    );
    insta::assert_json_snapshot!("profile_type", listed.profile_types[3]);

    let names = async |matchers: &[&str]| {
        let matchers = matchers.iter().map(|&matcher| matcher.to_owned()).collect();
        let request = types::LabelNamesRequest { matchers, start: ago(3_600), end: ago(0) };
        ask::<types::LabelNamesResponse>(&world, "LabelNames", &request).await.0.names
    };
    assert_eq!(names(&[]).await, ["__profile_type__", "dc", "service_name", "type"]);
    // As Grafana sends it.
    assert_eq!(names(&[""]).await, names(&["{}"]).await);
    assert_eq!(names(&[r#"{service_name="api",type="heap"}"#]).await, ["__profile_type__", "service_name", "type"]);
    assert_eq!(names(&[r#"{service_name="nobody"}"#]).await, [""; 0]);

    let values = async |name: &str, matcher: &str| {
        let matchers = vec![matcher.to_owned()];
        let request = types::LabelValuesRequest { name: name.to_owned(), matchers, start: ago(3_600), end: ago(0) };
        ask::<types::LabelValuesResponse>(&world, "LabelValues", &request).await.0.names
    };
    assert_eq!(values("service_name", "{}").await, ["api", "web"]);
    assert_eq!(values("service", "{}").await, ["api", "web"], "our own name of it is understood as well");
    assert_eq!(values("service_name", &format!("{{__profile_type__={CPU:?},dc=\"eu-1\"}}")).await, ["web"]);
    assert_eq!(values("dc", "{}").await, ["eu-1", "eu-2"]);
    assert_eq!(values("__profile_type__", r#"{service_name="web"}"#).await, [ids[0], CPU, ids[4]]);
    // Without times the window is the last hour, as everywhere here.
    let request = types::LabelValuesRequest { name: "service_name".to_owned(), ..Default::default() };
    let (all, _) = ask::<types::LabelValuesResponse>(&world, "LabelValues", &request).await;
    assert_eq!(all.names, ["api", "web"]);
}

/// Goal: sets of labels are those of the series, once for each sample type, and cut down to what was asked for.
#[tokio::test]
async fn sets_of_labels_are_those_of_series() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let sets = async |label_names: &[&str], matchers: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let (label_names, matchers) = (owned(label_names), owned(matchers));
        let request = querier::SeriesRequest { matchers, label_names, start: ago(3_600), end: ago(0) };
        let (answer, _) = ask::<querier::SeriesResponse>(&world, "Series", &request).await;
        let text = |set: types::Labels| {
            set.labels.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect::<Vec<_>>().join(" ")
        };
        answer.labels_set.into_iter().map(text).collect::<Vec<_>>()
    };
    // What Grafana's drill-down begins with.
    assert_eq!(
        sets(&["service_name", "__profile_type__"], &[]).await,
        [
            "__profile_type__=exceptions:thrown:count:thrown:count service_name=web",
            "__profile_type__=memory:alloc_space:bytes:space:bytes service_name=api",
            "__profile_type__=memory:inuse_space:bytes:space:bytes service_name=api",
            "__profile_type__=process_cpu:cpu:nanoseconds:cpu:nanoseconds service_name=api",
            "__profile_type__=process_cpu:cpu:nanoseconds:cpu:nanoseconds service_name=web",
            "__profile_type__=process_cpu:samples:count:cpu:nanoseconds service_name=api",
            "__profile_type__=process_cpu:samples:count:cpu:nanoseconds service_name=web",
        ]
    );
    assert_eq!(
        sets(&[], &[&format!("{{__profile_type__={CPU:?},service_name=\"web\"}}")]).await,
        [format!(
            "__name__=process_cpu __period_type__=cpu __period_unit__=nanoseconds __profile_type__={CPU} __type__=cpu \
             __unit__=nanoseconds dc=eu-1 service_name=web type=cpu"
        )]
    );
    assert_eq!(sets(&["dc"], &[r#"{dc="eu-1"}"#, r#"{dc="eu-2"}"#]).await, ["dc=eu-1", "dc=eu-2"]);
    assert_eq!(sets(&["nothing"], &[]).await, [""; 0]);
}

/// Goal: sums over time are those of our own series, each by the labels that were asked for.
#[tokio::test]
async fn sums_over_time_are_those_of_our_own() {
    let world = World::new().await;
    put_fixtures(&world).await;
    let mut compared = 0;
    for (id, profile_type, sample_type) in [
        (CPU, "cpu", "cpu"),
        ("process_cpu:samples:count:cpu:nanoseconds", "cpu", "samples"),
        ("memory:inuse_space:bytes:space:bytes", "heap", "inuse_space"),
        ("goroutine:goroutine:count:goroutine:count", "goroutine", "goroutine"),
        ("mutex:delay:nanoseconds:contentions:count:delta", "mutex", "delay"),
    ] {
        let own = [("type", profile_type), ("sample_type", sample_type), ("by", "service,version"), ("step", "2s")];
        let own = world.json("/api/v1/series", &own).await;
        let own: v1::SeriesResponse = serde_json::from_value(own).unwrap();
        for aggregation in [types::TimeSeriesAggregationType::Sum, types::TimeSeriesAggregationType::Average] {
            let request = querier::SelectSeriesRequest {
                profile_type_id: id.to_owned(),
                label_selector: "{}".to_owned(),
                start: ago(3_600),
                end: ago(0),
                group_by: vec!["service_name".to_owned(), "version".to_owned()],
                step: 2.0,
                aggregation: Some(aggregation.into()),
                ..Default::default()
            };
            let (answer, _) = ask::<querier::SelectSeriesResponse>(&world, "SelectSeries", &request).await;
            assert_eq!(answer.series.len(), own.series.len(), "{id}");
            for (theirs, ours) in answer.series.iter().zip(&own.series) {
                let labels = theirs.labels.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
                let expected = ours.labels.iter().map(|(name, value)| {
                    (if name == "service" { "service_name" } else { name.as_str() }, value.as_str())
                });
                let expected: BTreeMap<_, _> = expected.filter(|(_, value)| !value.is_empty()).collect();
                assert_eq!(labels.collect::<BTreeMap<_, _>>(), expected, "{id}");
                assert_eq!(theirs.points.len(), ours.points.len());
                for (theirs, ours) in theirs.points.iter().zip(&ours.points) {
                    let value = match aggregation {
                        types::TimeSeriesAggregationType::Sum => ours.value as f64,
                        types::TimeSeriesAggregationType::Average => ours.value as f64 / ours.profiles as f64,
                    };
                    assert_eq!((theirs.value, theirs.timestamp), (value, ours.time.unwrap().seconds * 1_000), "{id}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 50, "{compared} points were compared");

    let request = querier::SelectSeriesRequest {
        profile_type_id: CPU.to_owned(),
        start: ago(3_600),
        end: ago(0),
        step: 15.0,
        group_by: vec!["service_name".to_owned()],
        limit: Some(1),
        ..Default::default()
    };
    let (one, answer) = ask::<querier::SelectSeriesResponse>(&world, "SelectSeries", &request).await;
    assert_eq!((one.series.len(), answer.header("x-afterglow-warning")), (1, "2 series are left out by the limit"));
    let request = querier::SelectSeriesRequest { label_selector: r#"{service_name="x"}"#.to_owned(), ..request };
    let (none, answer) = ask::<querier::SelectSeriesResponse>(&world, "SelectSeries", &request).await;
    assert!(none.series.is_empty(), "{none:?}");
    assert!(answer.header("x-afterglow-warning").starts_with("no profiles match {service="), "{answer}");
}

/// Asks for our own flame graph.
async fn own_graph(world: &World, query: &[(&str, &str)]) -> v1::FlameGraph {
    let answer = world.json("/api/v1/merge", &[&[("format", "flamegraph")], query].concat()).await;
    let answer: v1::MergeResponse = serde_json::from_value(answer).unwrap();
    let Some(v1::merge_response::Result::Flamegraph(graph)) = answer.result else { panic!("{answer:?}") };
    graph
}

/// A node, as it is found by where it lies: its depth, and the names from the root to it, with its total and self.
type Node = (Vec<String>, i64, i64);

/// Reads a flame graph as Grafana does: what lies within a node of the level above is its child.
fn nodes(graph: &querier::FlameGraph) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut above: Vec<(i64, i64, Vec<String>)> = vec![(0, i64::MAX, Vec::new())];
    for level in &graph.levels {
        let (mut here, mut offset) = (Vec::new(), 0);
        for item in level.values.chunks(4) {
            let &[begin, total, self_value, name] = item else { panic!("not four numbers: {item:?}") };
            let (begin, end) = (offset + begin, offset + begin + total);
            offset = end;
            let parent = above.iter().find(|(from, to, _)| *from <= begin && end <= *to && (begin < *to || total == 0));
            let mut path = parent.unwrap_or_else(|| panic!("{item:?} lies in no node")).2.clone();
            path.push(graph.names[name as usize].clone());
            nodes.push((path.clone(), total, self_value));
            here.push((begin, end, path));
        }
        above = here;
    }
    nodes.sort();
    nodes
}

/// The same of our own.
fn own_nodes(graph: &v1::FlameGraph) -> Vec<Node> {
    let mut path: Vec<String> = Vec::new();
    let mut nodes: Vec<Node> = Vec::new();
    for node in &graph.nodes {
        path.truncate(node.depth as usize);
        path.push(graph.names[node.name as usize].clone());
        nodes.push((path.clone(), node.total, node.self_));
    }
    nodes.sort();
    nodes
}

/// Goal: a flame graph, as Grafana reads it, is our own, node by node, of real profiles.
#[tokio::test]
async fn flame_graphs_are_our_own() {
    let world = World::new().await;
    put_fixtures(&world).await;
    for (id, own) in [
        (CPU, [("type", "cpu"), ("sample_type", "cpu")]),
        ("process_cpu:samples:count:cpu:nanoseconds", [("type", "cpu"), ("sample_type", "samples")]),
        ("memory:inuse_space:bytes:space:bytes", [("type", "heap"), ("sample_type", "inuse_space")]),
        ("allocs:alloc_space:bytes:space:bytes", [("type", "allocs"), ("sample_type", "alloc_space")]),
        ("goroutine:goroutine:count:goroutine:count", [("type", "goroutine"), ("sample_type", "goroutine")]),
        ("block:delay:nanoseconds:contentions:count", [("type", "block"), ("sample_type", "delay")]),
    ] {
        let request = querier::SelectMergeStacktracesRequest {
            profile_type_id: id.to_owned(),
            max_nodes: Some(-1),
            ..stacktraces("{}")
        };
        let (answer, _) =
            ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &request).await;
        let (theirs, ours) = (answer.flamegraph.unwrap(), own_graph(&world, &own).await);
        assert!(ours.nodes.len() > 20, "{id}: {}", ours.nodes.len());
        assert_eq!(nodes(&theirs), own_nodes(&ours), "{id}");
        assert_eq!(theirs.total, ours.nodes[0].total, "{id}");
        assert_eq!(theirs.max_self, ours.nodes.iter().map(|node| node.self_).max().unwrap(), "{id}");

        // Cut, its totals stay, and `other` fills what was cut away.
        let request = querier::SelectMergeStacktracesRequest { max_nodes: Some(10), ..request };
        let (answer, _) =
            ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &request).await;
        let cut = answer.flamegraph.unwrap();
        assert_eq!(cut.total, theirs.total, "{id}");
        let (others, kept): (Vec<_>, Vec<_>) =
            nodes(&cut).into_iter().partition(|(path, ..)| *path.last().unwrap() == "other");
        assert_eq!(kept, own_nodes(&own_graph(&world, &[&own[..], &[("limit", "10")]].concat()).await), "{id}");
        let selves: i64 = kept.iter().chain(&others).map(|(_, _, self_value)| self_value).sum();
        assert_eq!((kept.len(), others.is_empty(), selves), (10, false, theirs.total), "{id}");
    }
}

/// Goal: the graph looks as clients rely on; nothing is no graph, and no error.
#[tokio::test]
async fn a_flame_graph_looks_like_this_and_nothing_is_none() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let (answer, _) = ask::<querier::SelectMergeStacktracesResponse>(
        &world,
        "SelectMergeStacktraces",
        &stacktraces(r#"{service_name="api"}"#),
    )
    .await;
    insta::assert_json_snapshot!("flamegraph", answer);

    let nothing = stacktraces(r#"{service_name="nobody"}"#);
    let (none, answer) =
        ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &nothing).await;
    assert_eq!((none, answer.body.len()), (Default::default(), 0));
    assert!(answer.header("x-afterglow-warning").starts_with("no profiles match {service=\"nobody\"} of type cpu in"));
    let request = querier::SelectMergeProfileRequest {
        profile_type_id: nothing.profile_type_id,
        label_selector: nothing.label_selector,
        start: nothing.start,
        end: nothing.end,
        ..Default::default()
    };
    let answer = proto(&world, "SelectMergeProfile", &request).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

/// Goal: call graphs and pprofs are those of our own merge, byte by byte.
#[tokio::test]
async fn call_graphs_and_pprofs_are_our_own() {
    let world = World::new().await;
    put_fixtures(&world).await;
    let own = [("type", "cpu"), ("query", r#"{service=~"parca|profefe"}"#)];
    let selector = r#"{service_name=~"parca|profefe"}"#;
    let request =
        querier::SelectMergeStacktracesRequest { format: querier::ProfileFormat::Dot.into(), ..stacktraces(selector) };
    let (answer, _) = ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &request).await;
    let dot = world.get("/api/v1/merge", &[&own[..], &[("format", "dot"), ("sample_type", "cpu")]].concat()).await;
    assert_eq!(answer.dot.as_bytes(), dot.body);

    let gzip = world.get("/api/v1/merge", &own).await;
    let raw = compress::inflate(&gzip.body, &Limits::default()).unwrap();
    assert!(decoded(&raw).samples.len() > 5, "{}", decoded(&raw).samples.len());
    let request = querier::SelectMergeStacktracesRequest { format: querier::ProfileFormat::Pprof.into(), ..request };
    let answer = proto(&world, "SelectMergeStacktraces", &request).await;
    let answer = querier::SelectMergeStacktracesResponse::decode(&*answer.body).unwrap();
    assert_eq!(answer.pprof.unwrap().profile, *raw);
    let request = querier::SelectMergeProfileRequest {
        profile_type_id: CPU.to_owned(),
        label_selector: selector.to_owned(),
        start: ago(3_600),
        end: ago(0),
        max_nodes: Some(3),
        ..Default::default()
    };
    let answer = proto(&world, "SelectMergeProfile", &request).await;
    assert_eq!((answer.status, answer.header("content-type"), &*answer.body), (200, "application/proto", &*raw));
}

/// Makes a CPU profile whose first sample is of a span, and of a trace.
fn traced(id: u128) -> Sent {
    let sent = cpu(id, &[("service", "api")], 20);
    let mut profile = decoded(&sent.raw);
    for (key, value) in [(&b"span_id"[..], SPAN), (b"trace_id", TRACE)] {
        let key_at = profile.strings.len() as u32;
        profile.strings.extend([key, value.as_bytes()]);
        profile.samples.labels.push(SampleLabel { key: key_at, str: key_at + 1, ..SampleLabel::default() });
    }
    profile.samples.label_ends = vec![2; profile.samples.len()];
    let raw = encode::encode(&profile);
    Sent { meta: sent.meta, raw }
}

/// Goal: spans, traces, call sites and ids select samples and profiles, as our own filter does.
#[tokio::test]
async fn samples_are_selected_by_span_trace_call_site_and_profile() {
    let world = World::new().await;
    world.put(&[traced(1), cpu(2, &[("service", "api")], 10)]).await;
    let total = async |request: querier::SelectMergeStacktracesRequest| {
        let (answer, _) =
            ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &request).await;
        answer.flamegraph.map(|graph| graph.total)
    };
    let all = || stacktraces("{}");
    let spans = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
    assert_eq!(total(all()).await, Some(80));
    let other = "00000000000000aa";
    for ids in [&[SPAN][..], &[other, &SPAN.to_uppercase()]] {
        let of_spans = querier::SelectMergeStacktracesRequest { span_selector: spans(ids), ..all() };
        assert_eq!(total(of_spans).await, Some(30), "{ids:?}");
        let request = querier::SelectMergeSpanProfileRequest {
            profile_type_id: CPU.to_owned(),
            span_selector: spans(ids),
            start: ago(3_600),
            end: ago(0),
            ..Default::default()
        };
        let (answer, _) =
            ask::<querier::SelectMergeSpanProfileResponse>(&world, "SelectMergeSpanProfile", &request).await;
        let graph = answer.flamegraph.unwrap();
        assert_eq!((graph.total, graph.names), (30, ["total", "main", "work"].map(str::to_owned).to_vec()), "{ids:?}");
    }
    let no_span = querier::SelectMergeStacktracesRequest { span_selector: spans(&[other]), ..all() };
    assert_eq!(total(no_span).await, None, "no data, not an error");
    let of_trace = querier::SelectMergeStacktracesRequest { trace_id_selector: spans(&[TRACE]), ..all() };
    assert_eq!(total(of_trace).await, Some(30));
    let call_site = ["main", "idle"].map(|name| types::Location { name: name.to_owned() }).to_vec();
    let stacks = types::StackTraceSelector { call_site, go_pgo: None };
    let below = querier::SelectMergeStacktracesRequest { stack_trace_selector: Some(stacks), ..all() };
    assert_eq!(total(below).await, Some(20));
    let id = ulid::Ulid::from(2u128).to_string();
    let one = querier::SelectMergeStacktracesRequest { profile_id_selector: vec![id], ..all() };
    assert_eq!(total(one).await, Some(40));
}

/// Goal: a question may be compressed, and may be as clients write it: numbers as numbers or as texts, fields that we do not know.
#[tokio::test]
async fn questions_come_as_clients_write_them() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let total = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{answer}");
        answer.json()["flamegraph"]["total"].clone()
    };
    let body = json!({
        "profileTypeID": CPU, "labelSelector": "{}", "start": ago(3_600), "end": ago(0).to_string(),
        "format": "PROFILE_FORMAT_FLAMEGRAPH", "maxNodes": 16384, "someday": {"more": [1]},
    });
    let method = path("SelectMergeStacktraces");
    let more = [
        ("connect-protocol-version", "1"),
        ("connect-timeout-ms", "30000"),
        ("accept", "*/*;allow-utf8-labelnames=true"),
    ];
    let headers = [&[JSON][..], &more].concat();
    assert_eq!(total(&world.post(&method, &headers, body.to_string()).await), "40");
    let gzip = compress::gzip(body.to_string().as_bytes());
    let headers = [("content-type", "application/json; charset=utf-8"), ("content-encoding", "gzip")];
    assert_eq!(total(&world.post(&method, &headers, gzip).await), "40");
    let gzip = compress::gzip(&stacktraces("{}").encode_to_vec());
    let answer = world.post(&method, &[PROTO, ("content-encoding", "gzip")], gzip).await;
    let answer = querier::SelectMergeStacktracesResponse::decode(&*answer.body).unwrap();
    assert_eq!(answer.flamegraph.unwrap().total, 40);
    // An empty message is an empty body.
    let answer = world.post(&path("ProfileTypes"), &[PROTO, ("content-encoding", "gzip")], "").await;
    let answer = querier::ProfileTypesResponse::decode(&*answer.body).unwrap();
    assert_eq!(answer.profile_types.len(), 2);
    // Asked for as everywhere, answers come compressed where that is worth it.
    let world = World::new().await;
    put_fixtures(&world).await;
    let all = stacktraces("{}").encode_to_vec();
    let answer = world.post(&method, &[PROTO, ("accept-encoding", "gzip")], all).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, "gzip"));
}

/// Goal: one tenant's profiles are not another's, and a token decides whose are asked for.
#[tokio::test]
async fn tenants_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, entry) = Entry::generate("grafana".to_owned(), vec![Role::Read], vec!["a".to_owned()]).unwrap();
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, entry.to_toml()).unwrap();
    let bearer = format!("Bearer {}", secret.reveal());

    let world = World::new().await;
    let guarded = World::with(&["--auth.tokens-file", file.to_str().unwrap()]).await;
    for world in [&world, &guarded] {
        world.put_as(&"a".parse().unwrap(), &[cpu(1, &[("service", "of-a")], 20)]).await;
        world.put_as(&"b".parse().unwrap(), &[cpu(2, &[("service", "of-b")], 20)]).await;
    }
    let services = async |world: &World, headers: &[(&str, &str)]| {
        let body = json!({"name": "service_name"}).to_string();
        let answer = world.post(&path("LabelValues"), &[&[JSON], headers].concat(), body).await;
        match answer.status {
            200 => answer.json()["names"].to_string(),
            status => format!("{status} {}", answer.json()["code"].as_str().unwrap()),
        }
    };
    assert_eq!(services(&world, &[("x-scope-orgid", "a")]).await, r#"["of-a"]"#);
    assert_eq!(services(&world, &[("x-scope-orgid", "b")]).await, r#"["of-b"]"#);
    assert_eq!(services(&world, &[]).await, "null", "anonymous has none");
    assert_eq!(services(&guarded, &[("authorization", &bearer)]).await, r#"["of-a"]"#);
    assert_eq!(
        services(&guarded, &[("authorization", &bearer), ("x-scope-orgid", "b")]).await,
        "403 permission_denied"
    );
    assert_eq!(services(&guarded, &[]).await, "401 unauthenticated");
    assert_eq!(services(&world, &[("x-scope-orgid", "..")]).await, "400 invalid_argument");
}

/// Goal: what could not be read is said beside the answer, and questions are counted as ours are.
#[tokio::test]
async fn partial_answers_say_so_and_questions_are_counted() {
    let world = World::new().await;
    let broken = world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    world.put(&[cpu(2, &[("service", "api")], 10)]).await;
    damage(&world, &broken.path(), 1.0).await;
    let (answer, beside) =
        ask::<querier::SelectMergeStacktracesResponse>(&world, "SelectMergeStacktraces", &stacktraces("{}")).await;
    assert_eq!((answer.flamegraph.unwrap().total, beside.header("x-afterglow-partial")), (40, "true"));
    assert!(beside.header("x-afterglow-problem").contains(broken.path().as_ref()));
    let (_, beside) = ask::<querier::SeriesResponse>(&world, "Series", &querier::SeriesRequest::default()).await;
    assert_eq!(beside.header("x-afterglow-partial"), "true");

    let metrics = world.get("/metrics", &[]).await.to_string();
    for line in [
        "afterglow_query_requests_total{question=\"merge\",outcome=\"partial\"} 2",
        "afterglow_query_requests_total{question=\"label_sets\",outcome=\"partial\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    let route = "route=\"/querier.v1.QuerierService/SelectMergeStacktraces\",code=\"200\"} 2";
    assert!(metrics.lines().any(|line| line.ends_with(route)), "{metrics}");
}
