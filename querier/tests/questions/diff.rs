//! Diff: two merges against each other, as pprof's `-base` and `-diff_base`, in each form.

use afterglow_profile::{Limits, compress};
use afterglow_proto::v1;
use afterglow_store::testing::faults::Operation;

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, decoded, fixture, meaning, small};

const PATH: &str = "/api/v1/diff";
const DAY: i64 = 86_400;

/// Makes a profile of two functions with these values, `seconds` before now.
fn two(id: u128, version: &str, seconds: i64, work: i64, other: (&str, i64)) -> Sent {
    let labels = [("service", "api"), ("version", version)];
    let stacks: [(&[&str], &[i64]); 2] = [(&["main", "work"], &[work]), (&["main", other.0], &[other.1])];
    small(id, "cpu", &labels, NOW_NANOS - seconds * SECOND, &[("cpu", "nanoseconds")], &stacks)
}

/// A world with a profile of now and one of yesterday.
async fn world() -> World {
    let world = World::new().await;
    world.put(&[two(1, "2", 20, 50, ("new", 7)), two(2, "1", 20 + DAY, 20, ("old", 4))]).await;
    world
}

/// Goal: a window of the day before is a base, in every form, with one of its ends given or both.
#[tokio::test]
async fn yesterday_is_a_base() {
    let world = world().await;
    let folded = "main;new 0 7\nmain;old 4 0\nmain;work 20 50\n";
    for base in [&[("base_start", "-25h")][..], &[("base_end", "-24h")], &[("base_from", "-25h"), ("base_to", "-24h")]]
    {
        let answer = world.get(PATH, &[base, &[("format", "folded")]].concat()).await;
        let mut lines: Vec<&str> = std::str::from_utf8(&answer.body).unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines.join("\n") + "\n", folded, "{base:?}");
        assert_eq!((answer.header("x-afterglow-profiles"), answer.header("x-afterglow-base-profiles")), ("1", "1"));
    }
    let form = |form| [("base_start", "-25h"), ("format", form)];
    insta::assert_json_snapshot!("diff_flamegraph", world.json(PATH, &form("flamegraph")).await);
    insta::assert_json_snapshot!("diff_top", world.json(PATH, &form("top")).await);
    let dot = String::from_utf8(world.get(PATH, &form("dot")).await.body.to_vec()).unwrap();
    assert!(dot.contains(r#"tooltip="main -> work (30ns)""#) && dot.contains(r#"tooltip="old (-4ns)""#), "{dot}");
}

/// Goal: other labels are a base as well, and the filter is of both sides.
#[tokio::test]
async fn another_version_is_a_base() {
    let world = World::new().await;
    world.put(&[two(1, "2", 20, 50, ("new", 7)), two(2, "1", 20, 20, ("old", 4))]).await;
    let query = [("query", r#"{version="2"}"#), ("base_query", r#"{version="1"}"#), ("format", "folded")];
    let text = async |more: &[(&str, &str)]| {
        String::from_utf8(world.get(PATH, &[&query[..], more].concat()).await.body.to_vec()).unwrap()
    };
    assert_eq!(text(&[("focus", "work|old"), ("hide", "main")]).await, "work 20 50\nold 4 0\n");
    // 57 becomes 24: shares are compared.
    assert_eq!(text(&[("normalize", "true"), ("focus", "work")]).await, "main;work 20 21\n");
}

/// Goal: a pprof holds the difference, or both sides with a mark.
#[tokio::test]
async fn a_pprof_has_negative_values_or_a_mark() {
    let world = world().await;
    let pprof = async |more: &[(&str, &str)]| {
        let answer = world.get(PATH, &[&[("base_start", "-25h")], more].concat()).await;
        let raw = compress::inflate(&answer.body, &Limits::default()).unwrap().into_owned();
        let (_, samples) = meaning(&decoded(&raw));
        let mut values: Vec<i64> = samples.values().map(|values| values[0]).collect();
        values.sort_unstable();
        (values, samples.keys().filter(|key| key.contains("pprof::base=true")).count())
    };
    assert_eq!(pprof(&[]).await, (vec![-4, 7, 30], 0));
    assert_eq!(pprof(&[("mark_base", "true")]).await, (vec![-20, -4, 7, 50], 2));
}

/// Goal: nothing differs from an equal profile: real ones, too.
#[tokio::test]
async fn equal_sides_leave_nothing() {
    let world = World::new().await;
    let [one, two] = [("a", 1), ("b", 2)].map(|(side, id)| fixture("svc-cpu-i1-0036.pb.gz", id, &[("service", side)]));
    world.put(&[one, two]).await;
    let query = [("query", r#"{service="a"}"#), ("base_query", r#"{service="b"}"#), ("start", "-1d")];
    let answer = world.get(PATH, &query).await;
    let raw = compress::inflate(&answer.body, &Limits::default()).unwrap();
    assert!(decoded(&raw).samples.is_empty());
    let top = world.json(PATH, &[&query[..], &[("format", "top")]].concat()).await;
    assert_eq!(top["top"]["total"], top["top"]["baseTotal"]);
    assert_ne!(top["top"]["total"], "0");
}

/// Goal: what cannot be compared is refused with what would do, and says which side is meant.
#[tokio::test]
async fn refusals_say_which_side_is_meant() {
    let world = world().await;
    let refuse = async |query: &[(&str, &str)]| world.refusal(PATH, query).await;
    assert_eq!(
        refuse(&[]).await,
        "400 INVALID_ARGUMENT the base is the selection itself: give a base of its own, by its query or its window"
    );
    let none = refuse(&[("base_query", r#"{service="nobody"}"#)]).await;
    assert!(none.starts_with(r#"404 NOT_FOUND base: no profiles match {service="nobody"} in ["#), "{none}");
    let wrong = refuse(&[("base_query", "{")]).await;
    assert!(wrong.starts_with("400 INVALID_ARGUMENT base: query: selector is wrong at byte 1"), "{wrong}");
    let empty = refuse(&[("base_start", "now"), ("base_end", "-1h")]).await;
    assert!(empty.ends_with("is empty: start must be before end"), "{empty}");
    let mark = refuse(&[("base_start", "-25h"), ("format", "top"), ("mark_base", "true")]).await;
    assert!(mark.starts_with("400 INVALID_ARGUMENT mark_base goes with format pprof alone, not top"), "{mark}");
}

/// Goal: a diff takes the memory of both sides before it reads either.
#[tokio::test]
async fn both_sides_are_admitted_before_either_is_read() {
    let world = World::with(&["--query.memory=64KiB"]).await;
    world.put(&[cpu(1, &[("service", "small")], 20)]).await;
    world.put(&[fixture("svc-heap-i1-0038.pb.gz", 2, &[("service", "large")])]).await;
    let small = [("query", r#"{service="small"}"#), ("start", "-1d")];
    // It fits by itself.
    assert_eq!(world.get("/api/v1/merge", &small).await.status, 200);
    let gets = || world.faults.keys(Operation::Get).iter().filter(|key| key.as_ref().contains("/l0/")).count();
    let before = gets();
    let refusal = world.refusal(PATH, &[&small[..], &[("base_query", r#"{service="large"}"#)]].concat()).await;
    assert!(refusal.starts_with("413 RESOURCE_EXHAUSTED the answer needs an estimated "), "{refusal}");
    assert_eq!(gets(), before, "nothing is read for it");
}

/// Goal: gRPC answers the same as HTTP.
#[tokio::test]
async fn grpc_answers_the_same() {
    let world = world().await;
    let ask = async |base: Option<v1::Selection>| {
        let format = v1::MergeFormat::Top.into();
        world.grpc.clone().diff(v1::DiffRequest { base, format, ..Default::default() }).await
    };
    assert_eq!(ask(None).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let at = |seconds: i64| Some(afterglow_proto::Timestamp { seconds: NOW_NANOS / SECOND - seconds, nanos: 0 });
    let base = v1::Selection { start: at(DAY + 3600), end: at(DAY), ..Default::default() };
    let answer = ask(Some(base)).await.unwrap().into_inner();
    let over_http = world.json(PATH, &[("base_start", "-25h"), ("format", "top")]).await;
    assert_eq!(serde_json::to_value(answer).unwrap(), over_http);
}
