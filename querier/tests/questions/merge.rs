//! Merge: equal to merging the files, in each form, each profile once.

use std::collections::BTreeMap;

use afterglow_profile::folded;
use afterglow_profile::merge::{Merged, Merger};
use afterglow_profile::top::Top;
use afterglow_profile::tree::FlameGraph;
use afterglow_profile::{Limits, compress};
use afterglow_proto::v1;
use afterglow_proto::v1::sibling_service_client::SiblingServiceClient;
use object_store::ObjectStoreExt as _;
use prost::Message as _;

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, decoded, fixture, fixtures, meaning, small};

const PATH: &str = "/api/v1/merge";

/// Merges profiles one by one, without a store.
fn merged(sent: &[Sent]) -> Merged {
    let mut merger = Merger::new();
    for sent in sent {
        merger.add(&decoded(&sent.raw)).unwrap();
    }
    merger.finish()
}

/// Returns the fixtures, series by series, in the order of their time.
fn series() -> BTreeMap<String, Vec<Sent>> {
    let mut series: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
    for (id, file) in (1..).zip(fixtures()) {
        let (service, rest) = file.split_once('-').unwrap();
        let profile_type = rest.split('-').next().unwrap();
        let sent = fixture(&file, id, &[("service", service), ("instance", "i1")]);
        series.entry(format!("{service}-{profile_type}")).or_default().push(sent);
    }
    series
}

/// Goal: a merge over blocks is the merge of the files, sample by sample, in every form, for every series of real profiles.
#[tokio::test]
async fn a_merge_is_that_of_the_files() {
    let world = World::new().await;
    let series = series();
    // The profiles of a series in different segments, each of which holds all series.
    for turn in 0..2 {
        world.put(&series.values().map(|sent| sent[turn].clone()).collect::<Vec<_>>()).await;
    }
    for (name, sent) in &series {
        let (service, profile_type) = name.split_once('-').unwrap();
        let query = format!("{{service=\"{service}\"}}");
        let query = [("query", query.as_str()), ("type", profile_type), ("start", "-1d")];
        let form = |form: &'static str| [&query[..], &[("format", form)]].concat();
        let expected = merged(sent);
        let expected = expected.profile();
        let shown = expected.sample_type_named(None).unwrap();

        let answer = world.get(PATH, &query).await;
        assert_eq!((answer.status, answer.header("x-afterglow-profiles")), (200, "2"), "{name}: {answer}");
        let raw = compress::inflate(&answer.body, &Limits::default()).unwrap();
        assert_eq!(meaning(&decoded(&raw)), meaning(&expected), "{name}");

        let graph = world.json(PATH, &form("flamegraph")).await;
        let graph: v1::MergeResponse = serde_json::from_value(graph).unwrap();
        let Some(v1::merge_response::Result::Flamegraph(graph)) = graph.result else { panic!("{name}: {graph:?}") };
        let nodes = FlameGraph::new(&expected, shown, None);
        assert_eq!(graph.nodes.len(), nodes.nodes.len(), "{name}");
        for (ours, theirs) in graph.nodes.iter().zip(&nodes.nodes) {
            assert_eq!(graph.names[ours.name as usize], nodes.names[theirs.name as usize], "{name}");
            assert_eq!((ours.depth, ours.total, ours.self_), (theirs.depth, theirs.total, theirs.self_value), "{name}");
        }

        let top: v1::MergeResponse = serde_json::from_value(world.json(PATH, &form("top")).await).unwrap();
        let Some(v1::merge_response::Result::Top(top)) = top.result else { panic!("{name}: {top:?}") };
        let rows = Top::new(&expected, shown, None);
        assert_eq!(top.total, rows.total, "{name}");
        let ours: Vec<_> = top.functions.iter().map(|f| (f.name.as_str(), f.file.as_str(), f.self_, f.total)).collect();
        let theirs: Vec<_> =
            rows.rows.iter().map(|r| (r.name.as_str(), r.file.as_str(), r.self_value, r.total)).collect();
        assert_eq!(ours, theirs, "{name}");

        let answer = world.get(PATH, &form("folded")).await;
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.body, folded::write(&expected, shown), "{name}");
    }
}

/// Goal: a profile counts once, however many segments hold it: pushed again after a lost answer, by whichever ingester.
#[tokio::test]
async fn a_profile_in_two_segments_counts_once() {
    let world = World::new().await;
    let (one, two) = (cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10));
    world.put(&[one.clone(), two.clone()]).await;
    world.put(std::slice::from_ref(&two)).await;
    world.put(&[two, one]).await;
    let top = world.json(PATH, &[("format", "top")]).await;
    assert_eq!((top["profiles"].as_str(), top["top"]["total"].as_str()), (Some("2"), Some("80")));
    assert_eq!(world.json("/api/v1/services", &[]).await["services"][0]["profiles"], "2");
}

/// Goal: the forms look as scripts and the flame graph of the UI rely on.
#[tokio::test]
async fn the_forms_look_like_this() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10)]).await;
    insta::assert_json_snapshot!("flamegraph", world.json(PATH, &[("format", "flamegraph")]).await);
    insta::assert_json_snapshot!(
        "flamegraph_of_two_nodes_by_samples",
        world.json(PATH, &[("format", "flamegraph"), ("sample_type", "samples"), ("limit", "2")]).await
    );
    insta::assert_json_snapshot!("top", world.json(PATH, &[("format", "top"), ("limit", "1")]).await);
    insta::assert_snapshot!("folded", world.get(PATH, &[("format", "folded")]).await);

    let pprof = world.get_with(PATH, &[], &[("accept-encoding", "gzip")]).await;
    assert_eq!(pprof.header("content-type"), "application/octet-stream");
    assert_eq!(pprof.header("content-disposition"), "attachment; filename=\"merged.pb.gz\"");
    assert_eq!(pprof.header("content-encoding"), "", "go would unpack it once too often");
    assert!(pprof.body.starts_with(&[0x1f, 0x8b]));
    let head = world.ask(reqwest::Method::HEAD, PATH, &[], &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// Goal: `go tool pprof` adds parameters of its own to any URL, and still gets its profile.
#[tokio::test]
async fn what_go_tool_pprof_adds_is_ignored() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    assert_eq!(world.get(PATH, &[("seconds", "30"), ("debug", "0")]).await.status, 200);
}

/// Goal: a merge that makes no sense is refused with what to do instead.
#[tokio::test]
async fn refusals_say_what_to_do() {
    let world = World::new().await;
    let wall = [("service", "api"), ("agent", "py")];
    let heap =
        |id, labels: &[(&str, &str)]| small(id, "heap", labels, NOW_NANOS - 9 * SECOND, &[("space", "bytes")], &[]);
    world
        .put(&[
            cpu(1, &[("service", "api"), ("agent", "go")], 20),
            cpu(2, &[("service", "api"), ("agent", "go")], 10),
            small(3, "cpu", &wall, NOW_NANOS - 9 * SECOND, &[("wall", "seconds")], &[(&["main"], &[1])]),
            heap(4, &[("service", "api"), ("agent", "go")]),
        ])
        .await;
    let refusals = [
        world.refusal(PATH, &[]).await,
        world.refusal(PATH, &[("type", "cpu")]).await,
        world.refusal(PATH, &[("type", "heap"), ("format", "svg")]).await,
        world.refusal(PATH, &[("type", "heap"), ("format", "top"), ("sample_type", "inuse_objects")]).await,
        world.refusal(PATH, &[("type", "mutex")]).await,
        world.refusal(PATH, &[("type", "heap"), ("query", "{agent=\"go\"}"), ("end", "-1h")]).await,
        world.refusal(PATH, &[("type", "heap"), ("query", "{agent=\"rb\"}")]).await,
    ];
    insta::assert_snapshot!(refusals.join("\n"));

    // A selector that leaves one type needs no type; one that leaves one kind of samples merges.
    for query in [r#"{type="heap"}"#, r#"{type="cpu",agent="go"}"#, r#"{agent="py"}"#] {
        assert_eq!(world.get(PATH, &[("query", query)]).await.status, 200, "{query}");
    }

    let request = v1::MergeRequest { format: 99, ..Default::default() };
    let status = world.grpc.clone().merge(request).await.unwrap_err();
    assert_eq!(status.message(), "format 99 is not one of pprof, flamegraph, top, folded, dot");
}

/// Goal: what two versions of a runtime count in common merges, with a word about what is left out, as pprof does.
#[tokio::test]
async fn what_is_not_in_common_is_left_out_with_a_warning() {
    let world = World::new().await;
    let heap = |id, counts, values: &[i64]| {
        small(id, "heap", &[("service", "api")], NOW_NANOS - 9 * SECOND, counts, &[(&["main"], values)])
    };
    world
        .put(&[
            heap(1, &[("inuse_space", "bytes"), ("inuse_objects", "count")], &[100, 1]),
            heap(2, &[("inuse_space", "kilobytes")], &[1]),
        ])
        .await;
    let top = world.json(PATH, &[("format", "top")]).await;
    assert_eq!(top["top"]["total"], "1124");
    assert_eq!(top["warnings"][0], "sample type inuse_objects is left out: not all profiles have it");
    let pprof = world.get(PATH, &[]).await;
    assert_eq!(pprof.header("x-afterglow-warning"), top["warnings"][0].as_str().unwrap());
}

/// Goal: too much is refused with the limit, its value and its setting, before anything is read.
#[tokio::test]
async fn too_much_is_refused_with_its_limit() {
    let world = World::with(&["--query.max-merge-profiles=1"]).await;
    world.put(&[cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10)]).await;
    insta::assert_snapshot!("too_many_profiles", world.refusal(PATH, &[]).await);

    let world = World::with(&["--query.memory=64KiB"]).await;
    world.put(&[fixture("svc-heap-i1-0038.pb.gz", 1, &[("service", "svc")])]).await;
    let reads_of_blocks = || {
        let keys = world.faults.keys(afterglow_store::testing::faults::Operation::Get);
        keys.iter().filter(|key| key.as_ref().contains("/l0/")).count()
    };
    let before = reads_of_blocks();
    let refusal = world.refusal(PATH, &[("start", "-1d")]).await;
    assert!(refusal.starts_with("413 RESOURCE_EXHAUSTED the answer needs an estimated "), "{refusal}");
    assert!(
        refusal.ends_with(
            "more than the 48 KiB that all queries share (three quarters of --query.memory; one is for small ones); narrow the \
             window or the selector"
        )
    );
    // One GET opened the block; none came for the merge.
    assert!(reads_of_blocks() <= before + 1);
}

/// Goal: gRPC answers the same as HTTP.
#[tokio::test]
async fn grpc_answers_the_same() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10)]).await;
    let ask = async |format: v1::MergeFormat| {
        let request = v1::MergeRequest { format: format.into(), ..Default::default() };
        world.grpc.clone().merge(request).await.unwrap().into_inner()
    };
    for (format, name) in [(v1::MergeFormat::Flamegraph, "flamegraph"), (v1::MergeFormat::Top, "top")] {
        let over_http = world.json(PATH, &[("format", name)]).await;
        assert_eq!(serde_json::to_value(ask(format).await).unwrap(), over_http);
    }
    let over_http = world.get(PATH, &[]).await;
    let Some(v1::merge_response::Result::Pprof(pprof)) = ask(v1::MergeFormat::Unspecified).await.result else {
        panic!("no pprof")
    };
    assert_eq!(pprof, over_http.body);
}

/// Goal: a filter over stored profiles leaves what it leaves of the merged files, in every form, and its parameters all arrive.
#[tokio::test]
async fn a_filter_applies_to_the_merged_profile() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20), cpu(2, &[("service", "api")], 10)]).await;
    let folded = async |filter: &[(&str, &str)]| {
        let answer = world.get(PATH, &[&[("format", "folded")], filter].concat()).await;
        (String::from_utf8(answer.body.to_vec()).unwrap(), answer.header("x-afterglow-warning").to_owned())
    };
    let text = |text: &str| (text.to_owned(), String::new());
    assert_eq!(folded(&[("focus", "wo.k")]).await, text("main;work 60\n"));
    assert_eq!(folded(&[("ignore", "work")]).await, text("main;idle 20\n"));
    assert_eq!(folded(&[("hide", "idle|work")]).await, text("main 80\n"));
    assert_eq!(folded(&[("show", "idle")]).await, text("idle 20\n"));
    assert_eq!(folded(&[("show_from", "work")]).await, text("work 60\n"));
    assert_eq!(folded(&[("call_site", "main;idle")]).await, text("main;idle 20\n"));
    assert_eq!(folded(&[("tag_focus", "a=b")]).await, (String::new(), "tag_focus matched nothing".to_owned()));
    let (all, warning) = folded(&[("tag_ignore", "nothing")]).await;
    assert_eq!((all.lines().count(), warning.as_str()), (2, "tag_ignore matched nothing"));

    // A pprof of equal stacks is merged once more, and holds nothing that is not shown.
    let answer = world.get(PATH, &[("hide", "idle|work")]).await;
    let raw = compress::inflate(&answer.body, &Limits::default()).unwrap();
    let profile = decoded(&raw);
    assert_eq!((profile.samples.len(), profile.functions.len(), profile.samples.values.clone()), (1, 1, vec![8, 80]));

    assert_eq!(
        world.refusal(PATH, &[("focus", "a(")]).await,
        "400 INVALID_ARGUMENT focus: regular expression: unclosed group"
    );
}

/// Goal: profiles picked by hand merge whatever their time, each once; query and type narrow them.
#[tokio::test]
async fn picked_profiles_merge_whatever_their_time() {
    let world = World::new().await;
    let [one, two, three] = [(1, 20, "a"), (2, 90_000, "a"), (3, 30, "b")]
        .map(|(id, seconds, dc)| cpu(id, &[("service", "api"), ("dc", dc)], seconds));
    let [id_of_one, id_of_two, id_of_three] = [&one, &two, &three].map(|sent| sent.meta.id.to_string());
    world.put(&[one.clone(), two]).await;
    world.put(&[one, three]).await;
    let count = async |query: &[(&str, &str)]| {
        world.json(PATH, &[&[("format", "top")], query].concat()).await["profiles"].clone()
    };
    let ids = format!("{id_of_one},{id_of_two}, {id_of_one}");
    assert_eq!(count(&[("ids", &ids)]).await, "2");
    let all = format!("{ids},{id_of_three}");
    assert_eq!(count(&[("ids", &all), ("query", r#"{dc="b"}"#), ("type", "cpu")]).await, "1");
    let refuse = async |query: &[(&str, &str)]| world.refusal(PATH, query).await;
    let none = refuse(&[("ids", &ids), ("query", r#"{dc="c"}"#)]).await;
    assert!(none.starts_with(r#"404 NOT_FOUND no profiles match {dc="c"}"#), "{none}");
    let empty = refuse(&[("ids", "")]).await;
    assert!(empty.starts_with(r#"400 INVALID_ARGUMENT parameter "ids""#), "no ids are not all: {empty}");
    for format in ["pprof", "folded"] {
        let whole = refuse(&[("format", format), ("limit", "3")]).await;
        assert!(whole.contains("limit goes with formats flamegraph, top and dot"), "{whole}");
    }
    let unknown = refuse(&[("ids", "01JDF8Z3M5Q0V7T2N4R6S8W9XA")]).await;
    assert_eq!(unknown, "404 NOT_FOUND no profile has the id 01JDF8Z3M5Q0V7T2N4R6S8W9XA");
    assert!(refuse(&[("ids", "x")]).await.starts_with(r#"400 INVALID_ARGUMENT id "x" is not a ULID"#));
    let world = World::with(&["--query.max-merge-profiles=1"]).await;
    let many = world.refusal(PATH, &[("ids", &ids)]).await;
    assert!(many.starts_with("413 RESOURCE_EXHAUSTED 3 profiles are selected, more than the 1 "), "{many}");
}

/// Goal: one function can be looked at from both sides, and what does not go together is refused.
#[tokio::test]
async fn a_function_has_callers_and_callees() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let text = async |view: &str, function: &str| {
        let query = [("format", "folded"), ("view", view), ("function", function)];
        String::from_utf8(world.get(PATH, &query).await.body.to_vec()).unwrap()
    };
    assert_eq!(text("callers", "work").await, "work;main 30\n");
    assert_eq!(text("callees", "main").await, "main;work 30\nmain;idle 10\n");
    let graph = world.json(PATH, &[("format", "flamegraph"), ("view", "callees"), ("function", "work")]).await;
    assert_eq!(
        (graph["flamegraph"]["names"][1].as_str(), graph["flamegraph"]["nodes"][1]["self"].as_str()),
        (Some("work"), Some("30"))
    );
    let refuse = async |query: &[(&str, &str)]| world.refusal(PATH, query).await;
    let mut refusals = String::new();
    for query in [
        &[("view", "callers"), ("format", "folded")][..],
        &[("function", "work")],
        &[("view", "callers"), ("function", "work")],
        &[("view", "sideways")],
        &[("view", "callers"), ("function", "nobody"), ("format", "folded")],
        &[("format", "svg")],
    ] {
        refusals += &format!("{query:?}: {}\n", refuse(query).await);
    }
    insta::assert_snapshot!("views_that_do_not_go", refusals);
}

/// Goal: a call graph is Graphviz's text, with shares of what was there before the filter, as pprof has them.
#[tokio::test]
async fn a_call_graph_has_shares_of_everything() {
    let world = World::new().await;
    world.put(&[cpu(1, &[("service", "api")], 20)]).await;
    let answer = world.get(PATH, &[("format", "dot"), ("focus", "idle")]).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    insta::assert_snapshot!("dot", answer);
}

/// Goal: anybody who may read may ask for a share; one that names rows or datasets again and again is not done, and costs no memory.
#[tokio::test]
async fn a_share_names_each_row_once() {
    let world = World::new().await;
    let path = world.put(&[1, 2].map(|id| cpu(id, &[("service", "api")], 40))).await.path();
    let bytes = world.faults.inner().head(&path).await.unwrap().size;
    let mut siblings = SiblingServiceClient::connect(world.url().to_owned()).await.unwrap();
    let part =
        |row_steps: &[u32]| v1::SharePart { path: path.to_string(), bytes, dataset: 0, row_steps: row_steps.to_vec() };
    let mut declined = async |parts: Vec<v1::SharePart>| {
        let parts = parts.iter().flat_map(|part| part.encode_length_delimited_to_vec()).collect::<Vec<_>>();
        let request = v1::MergeShareRequest { parts: parts.into(), ..v1::MergeShareRequest::default() };
        siblings.merge_share(request).await.unwrap().into_inner().declined
    };
    assert_eq!(declined(vec![part(&[0, 1])]).await, "");
    for steps in [&[0, 0][..], &[1, 0], &[0, 1, 1], &[0, 1, u32::MAX], &[0; 1_000_000]] {
        assert_eq!(declined(vec![part(steps)]).await, "a block has no such rows", "{} steps", steps.len());
    }
    assert_eq!(declined(vec![part(&[0]), part(&[1])]).await, "a dataset stands in it twice");
}
