//! The store over two real S3 stores on loopback that share no code: MinIO and versitygw.

use std::time::Duration;

use afterglow_store::bucket::Lifecycle;
use afterglow_store::catalog::{Catalog, Freshness};
use afterglow_store::paths::TenantId;
use afterglow_store::testing::conformance::{self, Order};
use afterglow_store::testing::s3::S3Server;
use afterglow_store::testing::segments::{Sent, segment};
use afterglow_store::{Error, Store, StoreOptions, bucket, catalog, open};
use object_store::path::Path;
use tokio::time::Instant;
use ulid::Ulid;

#[tokio::test(flavor = "multi_thread")]
async fn minio_carries_afterglow() {
    // It knows no such rule and removes old uploads by itself.
    carries_afterglow(S3Server::minio().await, "InvalidArgument: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_carries_afterglow() {
    carries_afterglow(S3Server::versity().await, "NotImplemented: ").await;
}

/// The way of a new bucket: refused while it is missing, made, proven; then the conformance suite, and a write that is found. The store
/// refuses lifecycle rules with an error that begins so.
async fn carries_afterglow(server: S3Server, no_lifecycle: &str) {
    let url = server.storage("afterglow", "some/prefix");
    let options = || StoreOptions { environment: server.environment(), ..StoreOptions::default() };
    let store = open(&url, options()).await.expect("the store opens before its bucket exists");

    let error = store.probe().await.expect_err("there is no bucket yet");
    assert!(matches!(error, Error::Probe { .. }) && error.is_passing(), "somebody may be about to make it: {error:?}");
    assert!(error.to_string().contains("afterglow bucket init"), "{error}");

    let report = bucket::init(&url, options()).await.expect("the bucket is made");
    assert!(report.created, "{report:?}");
    assert!(matches!(&report.lifecycle, Lifecycle::Refused(said) if said.starts_with(no_lifecycle)), "{report:?}");
    let report = bucket::init(&url, options()).await.expect("a second time changes nothing");
    assert!(!report.created, "{report:?}");

    store.probe().await.expect("it honours conditional writes");
    store.probe_read().await.expect("it lists");
    conformance::check(store.objects(), Path::from("suite"), Order::Sorted).await;

    what_one_writes_another_finds(&store, &open(&url, options()).await.expect("the store opens twice")).await;
}

/// Two processes over one bucket are two stores here: what the writer was told is durable, the reader finds, for one
/// LIST, a look for the next commit and one GET.
async fn what_one_writes_another_finds(writer: &Store, reader: &Store) {
    let tenant = TenantId::anonymous();
    let catalog = Catalog::new(reader.clone(), catalog::Options::default());
    catalog.view(&tenant, Freshness::Now).await.expect("it lists");
    for id in 0..3 {
        let before = reader.metrics().requests();
        let bytes = segment(&[Sent::new(id, "api", &[], 7)]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let key = writer.put_segment(&tenant, bytes, deadline).await.expect("it takes a segment");
        let view = catalog.view(&tenant, Freshness::AtLeast(key.name)).await.expect("it lists");
        let found = view.get(Ulid::from(id)).await.expect("its block is read").expect("it is found");
        assert_eq!(reader.metrics().requests() - before, 3);
        let pprof = found.block().fetch(found.row()).await.expect("the block is sound");
        assert_eq!(pprof, Sent::new(id, "api", &[], 7).pprof());
    }
}
