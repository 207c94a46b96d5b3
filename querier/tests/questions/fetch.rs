//! GetProfile: the bytes that were sent, and how HTTP says it.

use std::collections::HashSet;

use afterglow_profile::{Limits, compress};
use afterglow_proto::v1;
use reqwest::Method;

use crate::world::{World, cpu, fixture, fixtures};

fn path(id: u128) -> String {
    format!("/api/v1/profiles/{}", ulid::Ulid::from(id))
}

/// Goal: every real profile comes back bit for bit, gzip'd and raw, over HTTP and gRPC, from a segment it shares with all others.
#[tokio::test]
async fn every_profile_comes_back_bit_for_bit() {
    let world = World::new().await;
    let sent: Vec<_> = (1..)
        .zip(fixtures())
        .map(|(id, file)| fixture(&file, id, &[("service", file.split('-').next().unwrap())]))
        .collect();
    world.put(&sent).await;
    let mut etags = HashSet::new();
    for sent in &sent {
        let id = u128::from(sent.meta.id);
        let raw = world.get(&path(id), &[("raw", "true")]).await;
        assert_eq!((raw.status, &*raw.body), (200, &*sent.raw), "{id}");
        let gzip = world.get(&path(id), &[]).await;
        assert_eq!(compress::inflate(&gzip.body, &Limits::default()).unwrap(), sent.raw, "{id}");
        let request = v1::GetProfileRequest { id: sent.meta.id.to_string(), read_token: String::new() };
        let v1::GetProfileResponse { info, pprof } =
            world.grpc.clone().get_profile(request).await.unwrap().into_inner();
        let info = info.unwrap();
        assert_eq!(pprof, sent.raw, "{id}");
        assert_eq!(raw.header("etag"), format!("\"{}\"", info.sha256));
        assert_eq!(raw.header("etag"), gzip.header("etag"));
        assert!(etags.insert(info.sha256));
    }
}

/// Goal: a browser and curl save it under a name that says what it is, and nobody unpacks it on the way.
#[tokio::test]
async fn it_is_a_file_with_a_name() {
    let world = World::new().await;
    let sent = cpu(7, &[("service", "shop/cart \u{1f525}")], 10);
    world.put(std::slice::from_ref(&sent)).await;

    let gzip = world.get_with(&path(7), &[], &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.header("content-type"), "application/octet-stream");
    assert_eq!(
        gzip.header("content-disposition"),
        "attachment; filename=\"shop_cart__-cpu-00000000000000000000000007.pb.gz\""
    );
    assert_eq!(gzip.header("content-encoding"), "");
    assert!(gzip.body.starts_with(&[0x1f, 0x8b]));
    let raw = world.get(&path(7), &[("raw", "true")]).await;
    assert_eq!(
        raw.header("content-disposition"),
        "attachment; filename=\"shop_cart__-cpu-00000000000000000000000007.pb\""
    );

    let head = world.ask(Method::HEAD, &path(7), &[], &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), gzip.body.len().to_string());
    assert_eq!(head.header("etag"), gzip.header("etag"));
}

/// Goal: who has the bytes is told so, without them being read again.
#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let world = World::new().await;
    world.put(&[cpu(7, &[("service", "api")], 10)]).await;
    let etag = world.get(&path(7), &[]).await.header("etag").to_owned();
    let reads = world.faults.count(afterglow_store::testing::faults::Operation::Get);
    for known in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".to_owned()] {
        let answer = world.get_with(&path(7), &[], &[("if-none-match", &known)]).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), etag);
    }
    assert_eq!(world.faults.count(afterglow_store::testing::faults::Operation::Get), reads);
    for unknown in ["\"other\"", "", &etag[1..]] {
        assert_eq!(world.get_with(&path(7), &[], &[("if-none-match", unknown)]).await.status, 200, "{unknown}");
    }
}

/// Goal: an id that is none and an id of nothing are told apart.
#[tokio::test]
async fn what_is_not_there() {
    let world = World::new().await;
    insta::assert_snapshot!(
        [
            world.refusal(&path(99), &[]).await,
            world.refusal("/api/v1/profiles/not-a-ulid", &[]).await,
            world.refusal(&path(99), &[("rwa", "true")]).await,
            world.refusal(&path(99), &[("raw", "perhaps")]).await,
            world.refusal(&path(99), &[("read_token", "perhaps")]).await,
        ]
        .join("\n")
    );
    let status = world.grpc.clone().get_profile(v1::GetProfileRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
