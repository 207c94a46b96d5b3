//! Search: what a selector, a type, a window and a cursor select, and in which order.

use afterglow_proto::v1;
use afterglow_store::paths::TenantId;

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, small};

const PATH: &str = "/api/v1/profiles";

/// Returns the ids of an answer, by what was last in them, which is all that tests tell them apart by.
fn ids(answer: &serde_json::Value) -> Vec<u64> {
    let profiles = answer["profiles"].as_array().expect("an array");
    let last = |profile: &serde_json::Value| {
        let id = profile["id"].as_str().expect("a text");
        u128::from(ulid::Ulid::from_string(id).expect("a ULID")) as u64
    };
    profiles.iter().map(last).collect()
}

fn fleet() -> Vec<Sent> {
    vec![
        cpu(1, &[("service", "api"), ("dc", "eu-1"), ("version", "1.4")], 40),
        cpu(2, &[("service", "api"), ("dc", "eu-2"), ("version", "1.5")], 30),
        cpu(3, &[("service", "api"), ("dc", "us-1")], 20),
        small(4, "heap", &[("service", "web"), ("dc", "eu-1")], NOW_NANOS - 10 * SECOND, &[("space", "bytes")], &[]),
    ]
}

/// Goal: each operator of selectors means what it means in Prometheus, a missing label being the empty one.
#[tokio::test]
async fn selectors_pick_by_labels_and_type() {
    let world = World::new().await;
    world.put(&fleet()).await;
    for (query, profile_type, expected) in [
        ("", "", &[4, 3, 2, 1][..]),
        ("{}", "", &[4, 3, 2, 1]),
        (r#"{service="api"}"#, "", &[3, 2, 1]),
        (r#"{service!="api"}"#, "", &[4]),
        (r#"{dc=~"eu-.*"}"#, "", &[4, 2, 1]),
        (r#"{dc=~"eu"}"#, "", &[]),
        (r#"{dc!~"eu-.*"}"#, "", &[3]),
        (r#"{service="api",version!="1.4"}"#, "", &[3, 2]),
        (r#"{version=""}"#, "", &[4, 3]),
        (r#"{version=~".+"}"#, "", &[2, 1]),
        (r#"{dc="eu-1"}"#, "cpu", &[1]),
        ("", "heap", &[4]),
        (r#"{type="heap"}"#, "", &[4]),
        (r#"{type=~"cpu|heap",service="web"}"#, "", &[4]),
        (r#"{service="nobody"}"#, "", &[]),
    ] {
        let answer = world.json(PATH, &[("query", query), ("type", profile_type)]).await;
        assert_eq!(ids(&answer), expected, "{query} {profile_type}");
    }
}

/// Goal: a window has its start and not its end, to the nanosecond, and is the last hour where nothing is said.
#[tokio::test]
async fn windows_include_their_start_and_exclude_their_end() {
    let world = World::new().await;
    let labels = [("service", "api")];
    world.put(&[cpu(1, &labels, 7_200), cpu(2, &labels, 3_600), cpu(3, &labels, 1), cpu(4, &labels, 0)]).await;

    let now = (NOW_NANOS / SECOND).to_string();
    let just_after = (NOW_NANOS + 1).to_string();
    for (window, expected) in [
        (&[][..], &[3, 2][..]),
        (&[("end", "now")], &[3, 2]),
        (&[("end", &*just_after)], &[4, 3]),
        (&[("start", &*now), ("end", &*just_after)], &[4]),
        (&[("start", "-2h")], &[3, 2, 1]),
        (&[("from", "-2h"), ("to", "-1h")], &[1]),
        (&[("start", "-2h"), ("end", "2026-11-24T00:00:00.000000001Z")], &[2, 1]),
        (&[("end", "-1h")], &[1]),
        (&[("start", "1795474800"), ("end", "1795474801000")], &[1]),
        (&[("start", "now-90m"), ("end", "now+1s")], &[4, 3, 2]),
    ] {
        assert_eq!(ids(&world.json(PATH, window).await), expected, "{window:?}");
    }
}

/// Goal: page after page each profile comes once, also where many have the same time and others arrive meanwhile.
#[tokio::test]
async fn pages_follow_each_other_over_ties_and_arrivals() {
    let world = World::new().await;
    let labels = [("service", "api")];
    // Twenty profiles of four moments, in two segments that hold a part of each moment.
    let at = |id: u128| cpu(id, &labels, 10 * (1 + i64::try_from(id).unwrap() % 4));
    world.put(&(1..=10).map(at).collect::<Vec<_>>()).await;
    world.put(&(11..=20).map(at).collect::<Vec<_>>()).await;

    let mut expected: Vec<u64> = (1..=20).collect();
    expected.sort_by_key(|id| (id % 4, *id));
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        let answer = world.json(PATH, &[("limit", "3"), ("start", "-60s"), ("cursor", &cursor)]).await;
        let ids = ids(&answer);
        cursor = answer["nextCursor"].as_str().unwrap().to_owned();
        assert_eq!(ids.len(), if cursor.is_empty() { 2 } else { 3 }, "page {page}");
        seen.extend(ids);
        if cursor.is_empty() {
            break;
        }
        // Newer than all, and as old as what was just seen but with smaller ids: neither belongs on a later page.
        let segment = world.put(&[cpu(100 + page, &labels, 1)]).await;
        let token = segment.name.to_string();
        world.json(PATH, &[("limit", "1"), ("read_token", &token)]).await;
    }
    assert_eq!(seen, expected);
    assert_eq!(world.json(PATH, &[]).await["profiles"].as_array().unwrap().len(), 26);
}

/// Goal: all pages have the window of the first, though the clock goes on and the request says "-1h" again.
#[tokio::test]
async fn a_cursor_keeps_the_window_of_the_first_page() {
    let world = World::new().await;
    let labels = [("service", "api")];
    world.put(&[cpu(1, &labels, 30), cpu(2, &labels, 20), cpu(3, &labels, 10)]).await;
    let first = world.json(PATH, &[("limit", "2"), ("start", "-25s"), ("end", "-15s")]).await;
    assert_eq!((ids(&first), first["nextCursor"].as_str()), (vec![2], Some("")));

    let first = world.json(PATH, &[("limit", "1"), ("start", "-35s"), ("end", "-15s")]).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    for window in [&[("start", "-1s")][..], &[("start", "-1h"), ("end", "-5s")], &[]] {
        let query = [&[("limit", "5"), ("cursor", cursor)], window].concat();
        assert_eq!(ids(&world.json(PATH, &query).await), [1], "{window:?}");
    }
}

/// Goal: a page follows the one before or is refused; it is never one of another search.
#[tokio::test]
async fn a_cursor_of_another_selection_is_refused() {
    let world = World::new().await;
    let labels = [("service", "api")];
    world.put(&[cpu(1, &labels, 30), cpu(2, &labels, 20)]).await;
    let first = world.json(PATH, &[("limit", "1"), ("query", "{service=\"api\"}"), ("type", "cpu")]).await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let page = async |query: &str, profile_type: &str| {
        world.get(PATH, &[("query", query), ("type", profile_type), ("cursor", cursor)]).await
    };
    assert_eq!(ids(&page("{ service = \"api\" }", "cpu").await.json()), [1], "written otherwise, the same");
    for (query, profile_type) in [("{service=\"web\"}", "cpu"), ("{service=\"api\"}", "heap"), ("{}", "cpu")] {
        let answer = page(query, profile_type).await;
        assert_eq!(answer.status, 400, "{query}: {answer}");
        assert!(answer.to_string().contains("cursor belongs to another selection"), "{answer}");
    }
}

/// Goal: labels may be long, and ten thousand profiles in a page: it ends before it is too much to hold, and the next one goes on there.
#[tokio::test]
async fn a_page_of_much_text_ends_early() {
    let world = World::new().await;
    let names: Vec<String> = (0..62).map(|n| format!("n{n:0>119}")).collect();
    let value = "x".repeat(2_000);
    let mut labels: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    labels.push(("service", "api"));
    world.put(&(1..=150).map(|id| cpu(id, &labels, i64::try_from(id).unwrap())).collect::<Vec<_>>()).await;

    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = world.get(PATH, &[("limit", "10000"), ("cursor", &cursor)]).await;
        assert!(answer.body.len() < 9 << 20, "{} bytes", answer.body.len());
        let page = answer.json();
        seen.extend(ids(&page));
        pages += 1;
        cursor = page["nextCursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
        assert!(answer.body.len() > 7 << 20, "{} bytes, and there is more", answer.body.len());
    }
    assert_eq!((seen, pages), ((1..=150).collect(), 3));
}

/// Goal: a read token makes what it acknowledges visible at once, however fresh the last listing was.
#[tokio::test]
async fn own_writes_are_read_by_their_token() {
    let world = World::new().await;
    for id in 1..=20 {
        let segment = world.put(&[cpu(id, &[("service", "api")], 10)]).await;
        let answer = world.json(PATH, &[("read_token", segment.name.as_str())]).await;
        assert_eq!(ids(&answer).len() as u128, id);
    }
}

/// Goal: nobody sees a byte of another tenant.
#[tokio::test]
async fn tenants_see_their_own() {
    let world = World::new().await;
    let team: TenantId = "team-a".parse().unwrap();
    world.put_as(&team, &[cpu(1, &[("service", "secret")], 10)]).await;
    world.put(&[cpu(2, &[("service", "open")], 10)]).await;

    assert_eq!(ids(&world.json(PATH, &[]).await), [2]);
    let theirs = world.get_with(PATH, &[], &[("x-scope-orgid", "team-a")]).await;
    assert_eq!(ids(&theirs.json()), [1]);
    let id = ulid::Ulid::from(1u128).to_string();
    assert_eq!(world.get(&format!("{PATH}/{id}"), &[]).await.status, 404);
    for path in ["/api/v1/services", "/api/v1/labels/service/values", "/api/v1/merge"] {
        assert!(!world.get(path, &[]).await.to_string().contains("secret"), "{path}");
    }
}

/// Goal: the page has the fields, names and types that scripts rely on.
#[tokio::test]
async fn a_page_looks_like_this() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let answer = world.get(PATH, &[("query", r#"{dc="eu-1"}"#)]).await;
    assert_eq!(answer.header("content-type"), "application/json");
    insta::assert_json_snapshot!(answer.json());
    insta::assert_json_snapshot!("an_empty_page", world.json(PATH, &[("type", "nothing")]).await);
}

/// Goal: gRPC answers the same as HTTP.
#[tokio::test]
async fn grpc_answers_the_same() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let selection = v1::Selection { query: r#"{dc="eu-1"}"#.to_owned(), ..Default::default() };
    let request = v1::SearchRequest { selection: Some(selection), limit: 1, ..Default::default() };
    let answer = world.grpc.clone().search(request).await.unwrap().into_inner();
    let over_http = world.json(PATH, &[("query", r#"{dc="eu-1"}"#), ("limit", "1")]).await;
    assert_eq!(serde_json::to_value(answer).unwrap(), over_http);
}
