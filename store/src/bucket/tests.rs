//! What `init` asks of S3, against a server that answers as S3 does; MinIO is asked in `tests/minio.rs`.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const RULES: &str = "<LifecycleConfiguration><Rule><ID>of-another</ID><Status>Enabled</Status><Filter><Prefix>x</Prefix></Filter>\
    <Expiration><Days>7</Days></Expiration></Rule></LifecycleConfiguration>";

/// Answers one request after the other as scripted, by status and body, and keeps what was asked.
async fn serve(answers: Vec<(&'static str, String)>) -> (Environment, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut connection, _) = listener.accept().await.expect("loopback works");
            let mut request = vec![0; 64 << 10];
            let mut read = 0;
            loop {
                read += connection.read(&mut request[read..]).await.expect("loopback works");
                if is_whole(&String::from_utf8_lossy(&request[..read])) {
                    break;
                }
            }
            record.lock().expect("no panic").push(String::from_utf8_lossy(&request[..read]).into_owned());
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            connection.write_all((head + &body).as_bytes()).await.expect("loopback works");
        }
    });
    let variables = [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-west-1"),
    ];
    (variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect(), asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// The first line of each request, without what the SDK adds to the query.
fn lines(asked: &Mutex<Vec<String>>) -> Vec<String> {
    let asked = asked.lock().expect("no panic");
    asked.iter().map(|request| request.lines().next().unwrap_or_default().replace(" HTTP/1.1", "")).collect()
}

#[tokio::test]
async fn a_missing_bucket_is_made_in_its_region() {
    let (environment, asked) = serve(vec![("404 Not Found", String::new()), ("200 OK", String::new())]).await;
    let (client, region) = client(&environment).await;
    assert!(create_if_missing(&client, "bucket", &region).await.expect("the bucket is made"));
    assert_eq!(lines(&asked), ["HEAD /bucket/", "PUT /bucket/"]);
    assert!(asked.lock().expect("no panic")[1].contains("<LocationConstraint>eu-west-1</LocationConstraint>"));
}

#[tokio::test]
async fn a_bucket_that_is_there_stays() {
    let (environment, asked) = serve(vec![("200 OK", String::new())]).await;
    let (client, region) = client(&environment).await;
    assert!(!create_if_missing(&client, "bucket", &region).await.expect("the bucket is found"));
    assert_eq!(lines(&asked), ["HEAD /bucket/"]);
}

#[tokio::test]
async fn a_bucket_that_cannot_be_looked_for_is_told_with_the_status() {
    for status in ["400 Bad Request", "403 Forbidden", "301 Moved Permanently"] {
        let (environment, _) = serve(vec![(status, String::new())]).await;
        let (client, region) = client(&environment).await;
        let (step, source) = create_if_missing(&client, "bucket", &region).await.expect_err(status);
        let said = format!("the store answered with status {}", &status[..3]);
        assert_eq!((step, source.to_string()), ("look for the bucket", said));
    }
}

#[tokio::test]
async fn who_made_the_bucket_a_moment_earlier_does_not_matter_unless_it_is_a_stranger() {
    for (code, made) in [("BucketAlreadyOwnedByYou", Some(false)), ("BucketAlreadyExists", None)] {
        let body = format!("<Error><Code>{code}</Code><Message>taken</Message></Error>");
        let (environment, _) = serve(vec![("404 Not Found", String::new()), ("409 Conflict", body)]).await;
        let (client, region) = client(&environment).await;
        match create_if_missing(&client, "bucket", &region).await {
            Ok(created) => assert_eq!(Some(created), made, "{code}"),
            Err((step, source)) => {
                assert_eq!((made, step, source.to_string()), (None, "create the bucket", format!("{code}: taken")));
            }
        }
    }
}

#[tokio::test]
async fn the_rule_joins_those_that_are_there() {
    let none = "<Error><Code>NoSuchLifecycleConfiguration</Code><Message>none</Message></Error>".to_owned();
    for (found, others) in [(("404 Not Found", none), false), (("200 OK", RULES.to_owned()), true)] {
        let (environment, asked) = serve(vec![found, ("200 OK", String::new())]).await;
        let (client, _) = client(&environment).await;
        assert_eq!(set_lifecycle(&client, "bucket", "some/prefix").await, Lifecycle::Set);
        assert_eq!(lines(&asked), ["GET /bucket/?lifecycle", "PUT /bucket/?lifecycle"]);
        let written = &asked.lock().expect("no panic")[1];
        assert!(written.contains(RULE_ID) && written.contains("<Prefix>some/prefix</Prefix>"), "{written}");
        assert!(written.contains("<DaysAfterInitiation>1</DaysAfterInitiation>"), "{written}");
        assert_eq!(written.contains("of-another"), others, "{written}");
    }
}

#[tokio::test]
async fn the_rule_is_set_once_and_never_over_rules_that_cannot_be_read() {
    let ours = RULES.replace("of-another", RULE_ID);
    let denied = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_owned();
    for (found, becomes) in [
        (("200 OK", ours), Lifecycle::Kept),
        (("403 Forbidden", denied), Lifecycle::Refused("AccessDenied: no".to_owned())),
    ] {
        let (environment, asked) = serve(vec![found]).await;
        let (client, _) = client(&environment).await;
        assert_eq!(set_lifecycle(&client, "bucket", "").await, becomes);
        assert_eq!(lines(&asked), ["GET /bucket/?lifecycle"]);
    }
}

#[tokio::test]
async fn stores_without_buckets_are_probed() {
    let report =
        init(&"memory://".parse().expect("valid"), StoreOptions::default()).await.expect("memory keeps the rules");
    assert!(!report.created && report.lifecycle == Lifecycle::NotNeeded, "{report:?}");
}
