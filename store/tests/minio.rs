//! The store over a real S3: MinIO on loopback.

use std::time::Duration;

use afterglow_store::bucket::Lifecycle;
use afterglow_store::paths::TenantId;
use afterglow_store::testing::conformance::{self, Order};
use afterglow_store::testing::minio::Minio;
use afterglow_store::{Error, StoreOptions, bucket, open};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn minio_carries_afterglow() {
    let minio = Minio::start().await;
    let url = minio.storage("afterglow", "some/prefix");
    let options = || StoreOptions { environment: minio.environment(), ..StoreOptions::default() };
    let store = open(&url, options()).await.expect("the store opens before its bucket exists");

    let error = store.probe().await.expect_err("there is no bucket yet");
    assert!(matches!(error, Error::Probe { .. }) && !error.is_passing(), "{error:?}");
    assert!(error.to_string().contains("afterglow bucket init"), "{error}");

    let report = bucket::init(&url, options()).await.expect("the bucket is made");
    assert!(report.created, "{report:?}");
    // It knows no such rule and removes old uploads by itself.
    assert!(
        matches!(&report.lifecycle, Lifecycle::Refused(said) if said.starts_with("InvalidArgument: ")),
        "{report:?}"
    );
    let report = bucket::init(&url, options()).await.expect("a second time changes nothing");
    assert!(!report.created, "{report:?}");

    store.probe().await.expect("MinIO honours conditional writes");
    store.probe_read().await.expect("MinIO lists");
    conformance::check(store.objects(), Path::from("suite"), Order::Sorted).await;

    let tenant = TenantId::anonymous();
    let deadline = Instant::now() + Duration::from_secs(10);
    let key =
        store.put_segment(&tenant, Bytes::from_static(b"segment"), deadline).await.expect("MinIO takes a segment");
    let found = store.objects().get(&key.path()).await.expect("the segment is there");
    assert_eq!(found.bytes().await.expect("the segment is read"), "segment");
}
