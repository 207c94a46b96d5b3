//! ProfileTypes, Services, LabelNames, LabelValues.

use afterglow_proto::v1;

use crate::world::{NOW_NANOS, SECOND, Sent, World, cpu, small};

fn fleet() -> Vec<Sent> {
    let heap = |id, labels: &[(&str, &str)], counts| small(id, "heap", labels, NOW_NANOS - 10 * SECOND, counts, &[]);
    vec![
        cpu(1, &[("service", "web"), ("dc", "eu-1")], 40),
        cpu(2, &[("service", "api"), ("dc", "eu-2"), ("version", "1.5")], 30),
        cpu(3, &[("service", "api"), ("dc", "eu-2"), ("version", "1.5")], 20),
        cpu(4, &[("service", "old")], 4_000),
        heap(5, &[("service", "api")], &[("alloc_space", "bytes"), ("inuse_space", "bytes")]),
        heap(6, &[("service", "api"), ("version", "1.6")], &[("inuse_space", "bytes"), ("inuse_objects", "count")]),
    ]
}

/// Goal: the lists have what lies in the window, once each, in order, in the shape that scripts rely on.
#[tokio::test]
async fn lists_look_like_this() {
    let world = World::new().await;
    for half in fleet().chunks(3) {
        world.put(half).await;
    }
    insta::assert_json_snapshot!("types", world.json("/api/v1/types", &[]).await);
    insta::assert_json_snapshot!("services", world.json("/api/v1/services", &[]).await);
    insta::assert_json_snapshot!("labels", world.json("/api/v1/labels", &[]).await);
    insta::assert_json_snapshot!("label_values", world.json("/api/v1/labels/service/values", &[]).await);
    insta::assert_json_snapshot!("no_label_values", world.json("/api/v1/labels/unheard-of/values", &[]).await);
}

/// Goal: a selection narrows each list, and the profile type can be asked for like a label.
#[tokio::test]
async fn selections_narrow_the_lists() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let names = async |path: &str, key: &str, query: &[(&str, &str)]| {
        let answer = world.json(path, query).await;
        let name = |item: &serde_json::Value| {
            item["name"].as_str().or(item.as_str()).or(item["type"].as_str()).unwrap().to_owned()
        };
        answer[key].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/v1/types", "types", &[("query", r#"{service="web"}"#)]).await, ["cpu"]);
    assert_eq!(names("/api/v1/services", "services", &[("type", "heap")]).await, ["api"]);
    assert_eq!(names("/api/v1/services", "services", &[("start", "-2h")]).await, ["api", "old", "web"]);
    assert_eq!(names("/api/v1/labels", "names", &[("query", r#"{service="web"}"#)]).await, ["dc", "service", "type"]);
    assert_eq!(names("/api/v1/labels/version/values", "values", &[("type", "cpu")]).await, ["1.5"]);
    assert_eq!(names("/api/v1/labels/type/values", "values", &[]).await, ["cpu", "heap"]);
    assert_eq!(names("/api/v1/labels", "names", &[("query", r#"{service="nobody"}"#)]).await, [""; 0]);
}

/// Goal: gRPC answers the same as HTTP.
#[tokio::test]
async fn grpc_answers_the_same() {
    let world = World::new().await;
    world.put(&fleet()).await;
    let mut grpc = world.grpc.clone();
    let types = grpc.profile_types(v1::ProfileTypesRequest::default()).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(types).unwrap(), world.json("/api/v1/types", &[]).await);
    let services = grpc.services(v1::ServicesRequest::default()).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(services).unwrap(), world.json("/api/v1/services", &[]).await);
    let names = grpc.label_names(v1::LabelNamesRequest::default()).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(names).unwrap(), world.json("/api/v1/labels", &[]).await);
    let request = v1::LabelValuesRequest { name: "dc".to_owned(), selection: None };
    let values = grpc.label_values(request).await.unwrap().into_inner();
    assert_eq!(serde_json::to_value(values).unwrap(), world.json("/api/v1/labels/dc/values", &[]).await);

    let status = grpc.label_values(v1::LabelValuesRequest::default()).await.unwrap_err();
    assert_eq!(status.message(), "name is empty: say which label's values are asked for");
}
