//! What `open` gives: stores that keep the rules, and errors of the real clients that are read rightly.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::fault::Fault;
use crate::testing::conformance::{self, Order};

fn url(text: &str) -> StorageUrl {
    text.parse().expect("valid")
}

#[tokio::test]
async fn memory_keeps_the_rules() {
    let store = open(&url("memory://"), StoreOptions::default()).await.expect("memory opens");
    conformance::check(store.objects(), Path::from("suite"), Order::Sorted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_rules() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = StorageUrl::File { folder: folder.path().join("made/on/opening") };
    let store = open(&url, StoreOptions::default()).await.expect("a folder opens");
    conformance::check(store.objects(), Path::from("suite"), Order::Any).await;
}

#[tokio::test]
async fn a_store_under_a_prefix_keeps_the_rules() {
    let within: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let prefixed = Arc::new(PrefixStore::new(Arc::clone(&within), "some/prefix"));
    let store = Store::new(prefixed, "prefixed".to_owned(), StoreOptions::default());
    within.put(&Path::from("suite/beside"), PutPayload::from("stays")).await.expect("memory works");
    conformance::check(store.objects(), Path::from("suite"), Order::Sorted).await;
    within.get(&Path::from("suite/beside")).await.expect("what lies beside the prefix is not touched");
}

#[tokio::test]
async fn memory_is_shared_by_name_only() {
    let open = async |text: &str| open(&url(text), StoreOptions::default()).await.expect("memory opens").objects();
    let path = Path::from("x");
    open("memory://memory-is-shared").await.put(&path, PutPayload::from("1")).await.expect("memory works");
    assert!(open("memory://memory-is-shared").await.get(&path).await.is_ok());
    assert!(open("memory://another").await.get(&path).await.is_err());
    open("memory://").await.put(&path, PutPayload::from("1")).await.expect("memory works");
    assert!(open("memory://").await.get(&path).await.is_err());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let url = StorageUrl::File { folder: file.path().join("below") };
    let error = open(&url, StoreOptions::default()).await.expect_err("a file is no folder");
    assert!(matches!(&error, Error::Open { url: named, .. } if *named == url.to_string()), "{error}");
    assert!(!error.is_passing());
}

/// Answers every connection with `answer`; an empty one closes it. Returns the endpoint and how many connections there were.
async fn serve(answer: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let Ok((mut connection, _)) = listener.accept().await else { return };
            counter.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 16 << 10];
            // The requests of these tests fit into one read.
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (endpoint, connections)
}

async fn open_s3(endpoint: &str) -> Store {
    open_s3_with(endpoint, patient::Policy::default()).await
}

async fn open_s3_with(endpoint: &str, read: patient::Policy) -> Store {
    let variables = [("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let options = StoreOptions { environment, read, ..StoreOptions::default() };
    open(&url("s3://bucket/prefix"), options).await.expect("s3 opens")
}

#[tokio::test]
async fn a_status_is_read_through_the_real_client() {
    for (status, reads_as) in [
        ("400 Bad Request", Fault::Refused),
        ("401 Unauthorized", Fault::Denied),
        ("403 Forbidden", Fault::Denied),
        ("404 Not Found", Fault::NotFound),
        ("405 Method Not Allowed", Fault::Refused),
        ("408 Request Timeout", Fault::Ambiguous),
        ("409 Conflict", Fault::Conflict),
        ("412 Precondition Failed", Fault::Conflict),
        ("429 Too Many Requests", Fault::Throttled),
        ("500 Internal Server Error", Fault::Ambiguous),
        ("501 Not Implemented", Fault::Refused),
        ("502 Bad Gateway", Fault::Ambiguous),
        ("503 Slow Down", Fault::Throttled),
        ("504 Gateway Timeout", Fault::Ambiguous),
    ] {
        let body = "<Error><Code>SomeCode</Code><Message>some message</Message></Error>";
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        let store = open_s3(&serve(head + body).await.0).await;
        let put = store.objects().put(&Path::from("x"), PutPayload::from("1")).await.expect_err(status);
        let listing = store.objects().list(None).try_next().await.expect_err(status);
        for (request, error) in [("put", put), ("list", listing)] {
            // A listing has no condition that could fail.
            let is_other = request == "list" && reads_as == Fault::Conflict;
            assert_eq!(
                Fault::of(&error),
                if is_other { Fault::Refused } else { reads_as },
                "{request}, {status}: {error:?}"
            );
            assert!(
                error.to_string().contains("SomeCode"),
                "{request}, {status}: what the server says is shown: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_ambiguous_and_one_that_never_was_is_not() {
    let put = async |endpoint: &str| {
        let store = open_s3(endpoint).await;
        store.objects().put(&Path::from("x"), PutPayload::from("1")).await.expect_err("nobody answers")
    };
    let error = put(&serve(String::new()).await.0).await;
    assert_eq!(Fault::of(&error), Fault::Ambiguous, "{error:?}");
    let error = put(&serve("HTTP/1.1 200 OK\r\ncontent-le".to_owned()).await.0).await;
    assert_eq!(Fault::of(&error), Fault::Ambiguous, "{error:?}");
    let port =
        TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a port").port();
    let error = put(&format!("http://127.0.0.1:{port}")).await;
    assert_eq!(Fault::of(&error), Fault::Unreachable, "{error:?}");
}

#[tokio::test]
async fn a_write_is_tried_once_by_the_client_below() {
    let answer = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (endpoint, connections) = serve(answer.to_owned()).await;
    let store = open_s3(&endpoint).await;
    store.objects().put(&Path::from("x"), PutPayload::from("1")).await.expect_err("the server refuses");
    assert_eq!((store.metrics().requests(), connections.load(Ordering::Relaxed)), (1, 1));
}

/// Answers requests for four bytes, over connections that stay open; each hundredth is left without an answer. Returns the endpoint, how many
/// requests there were, and how many of those without an answer were given up by closing their connection.
async fn serve_now_and_then() -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let (requests, given_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&requests), Arc::clone(&given_up));
    tokio::spawn(async move {
        loop {
            let Ok((mut connection, _)) = listener.accept().await else { return };
            let (requests, given_up) = counters.clone();
            tokio::spawn(async move {
                let mut request = [0; 16 << 10];
                // The requests of these tests fit into one read, and none follows before the answer.
                while connection.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    if requests.fetch_add(1, Ordering::Relaxed) % 100 == 99 {
                        let _ = connection.read(&mut request).await;
                        given_up.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    let answer = "HTTP/1.1 206 Partial Content\r\ncontent-length: 4\r\ncontent-range: bytes 2-5/10\r\n\
                                  last-modified: Sun, 29 Nov 2026 00:00:00 GMT\r\netag: \"1\"\r\n\r\n2345";
                    let _ = connection.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (endpoint, requests, given_up)
}

/// P23, through the real client. Goal: reads that are never answered do not show, cost what the budget allows, and are given up towards
/// the store; none waits for the time-out of its attempt.
#[tokio::test]
async fn a_read_that_stalls_is_answered_by_a_second_one_and_given_up() {
    const READS: usize = 1_000;
    let (endpoint, requests, given_up) = serve_now_and_then().await;
    let hedging = Some(patient::Hedging::default());
    let store = open_s3_with(&endpoint, patient::Policy { hedging, ..patient::Policy::default() }).await;
    for _ in 0..READS {
        let part = store.objects().get_range(&Path::from("x"), 2..6).await.expect("answered");
        assert_eq!(part, "2345");
    }
    let metrics = store.metrics();
    let [begun, won] = [&metrics.read_hedges, &metrics.read_hedges_won].map(|counter| counter.get() as usize);
    let made = requests.load(Ordering::Relaxed);
    assert_eq!(metrics.read_retries.get(), 0);
    assert!(
        (10..=READS / 20).contains(&begun) && (10..=begun).contains(&won),
        "{begun} second reads, of which {won} won"
    );
    // On a busy machine the first answers while the second is on its way, and so it never arrives.
    assert!((READS + won..=READS + begun).contains(&made), "{made} requests, {begun} second reads, of which {won} won");
    let all_given_up = async {
        while given_up.load(Ordering::Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_given_up).await.expect("connections are closed");
}

#[test]
fn endpoints_of_aws_are_told_from_others() {
    for endpoint in ["https://s3.eu-west-1.amazonaws.com", "https://amazonaws.com.cn", "https://s3.eu-west-1.api.aws"] {
        assert!(is_aws(endpoint), "{endpoint}");
    }
    for endpoint in ["http://127.0.0.1:9000", "https://minio.example", "https://myamazonaws.com", "nonsense"] {
        assert!(!is_aws(endpoint), "{endpoint}");
    }
}

#[test]
fn an_environment_takes_what_is_a_providers_and_shows_no_secret() {
    let variables =
        [("AWS_REGION", "eu-west-1"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_ACCESS_KEY_ID", ""), ("PATH", "/bin")];
    let environment: Environment =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    assert_eq!(environment.aws_region(), Some("eu-west-1"));
    assert_eq!(environment.get("PATH"), None);
    assert_eq!(environment.aws_keys(), None, "an empty variable is none");
    assert_eq!(format!("{environment:?}"), r#"{"AWS_REGION", "AWS_SECRET_ACCESS_KEY"}"#);
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Symptom: a value with the line break of `echo` made the client panic at its first request.
#[tokio::test]
async fn white_space_around_a_value_is_none_of_it() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n";
    let (endpoint, _) = serve(answer.to_owned()).await;
    let environment = environment(&[
        ("AWS_ENDPOINT_URL", &format!("{endpoint}\n")),
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_SECRET_ACCESS_KEY", "secret\r\n"),
        ("AWS_SESSION_TOKEN", "token \n"),
        ("AWS_REGION", "eu-west-1\n"),
    ]);
    assert_eq!(environment.problems(&url("s3://bucket")), [""; 0]);
    let options = StoreOptions { environment, ..StoreOptions::default() };
    let store = open(&url("s3://bucket/prefix"), options).await.expect("s3 opens");
    store.objects().put(&Path::from("x"), PutPayload::from("1")).await.expect("the request is signed and sent");
}

/// Symptom: `AWS_ENDPOINT_URL=minio:9000` panicked, and `http://user:password@host` was logged.
#[tokio::test]
async fn a_variable_that_is_wrong_is_named_and_no_secret_is_shown() {
    for (storage, name, value, problem) in [
        (
            "s3://bucket",
            "AWS_ENDPOINT_URL",
            "minio:9000",
            "\"minio:9000\" is no URL of a server: write http://HOST:PORT or https://HOST",
        ),
        ("s3://bucket", "AWS_ENDPOINT_URL_S3", "http://", "\"http://\" is no URL"),
        ("s3://bucket", "AWS_ENDPOINT", "http:minio", "is no URL"),
        ("s3://bucket", "AWS_ENDPOINT", "ftp://minio", "is no URL"),
        ("s3://bucket", "AWS_ENDPOINT", "http://minio:99999", "is no URL"),
        ("s3://bucket", "AWS_ENDPOINT", "http://minio/a b", "is no URL"),
        ("s3://bucket", "AWS_ENDPOINT_URL", "http://admin:hunter2@minio:9000", "holds a user or a password"),
        ("s3://bucket", "AWS_ENDPOINT_URL", "http://minio:9000?token=hunter2", "has a '?' or '#'"),
        ("s3://bucket", "AWS_ACCESS_KEY_ID", "hunter2\nhunter2", "has what no header can carry"),
        ("s3://bucket", "AWS_SECRET_ACCESS_KEY", "hunter2\u{fffd}", "has what no header can carry"),
        ("s3://bucket", "AWS_SESSION_TOKEN", "hunter2\u{7f}", "has what no header can carry"),
        ("s3://bucket", "AWS_REGION", "eu west", "\"eu west\" has what no host's name can have"),
        ("az://container", "AZURE_STORAGE_ACCOUNT_NAME", "a/b", "\"a/b\" has what no host's name can have"),
        ("az://container", "AZURE_STORAGE_ACCOUNT_KEY", "hunter2\nx", "has what no header can carry"),
        (
            "az://container",
            "AZURE_STORAGE_ENDPOINT",
            "https://a.blob.core.windows.net/?sig=hunter2",
            "has a '?' or '#'",
        ),
        ("gs://bucket", "GOOGLE_BASE_URL", "localhost:4443", "is no URL"),
    ] {
        let environment = environment(&[(name, value)]);
        let problems = environment.problems(&url(storage));
        let [told] = &*problems else { panic!("{name}={value:?}: {problems:?}") };
        assert!(told.starts_with(name) && told.contains(problem) && !told.contains("hunter2"), "{told}");
        let options = StoreOptions { environment: environment.clone(), ..StoreOptions::default() };
        let error = open(&url(storage), options.clone()).await.expect_err("refused");
        assert!(matches!(&error, Error::Environment { problem, .. } if problem == told), "{error}");
        let error = crate::bucket::init(&url(storage), options).await.expect_err("refused before anything is asked");
        assert!(matches!(&error, Error::Environment { problem, .. } if problem == told), "{error}");
        assert_eq!(environment.problems(&url("file:///data")), [""; 0], "{name} is nothing to a folder");
    }
}

#[test]
fn good_variables_and_those_of_others_are_let_be() {
    for (storage, name, value) in [
        ("s3://bucket", "AWS_ENDPOINT_URL", "https://s3.eu-west-1.amazonaws.com"),
        ("s3://bucket", "AWS_ENDPOINT_URL", "http://[::1]:9000/"),
        ("s3://bucket", "AWS_PROFILE", "größe"),
        ("s3://bucket", "AWS_WEB_IDENTITY_TOKEN_FILE", "/größe"),
        ("s3://bucket", "AZURE_STORAGE_ENDPOINT", "none"),
        ("gs://bucket", "GOOGLE_SERVICE_ACCOUNT_KEY", "{\n\"type\": \"größe\"\n}"),
        (
            "az://container",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq==",
        ),
        ("az://container", "AZURE_STORAGE_USE_EMULATOR", "true"),
    ] {
        assert_eq!(environment(&[(name, value)]).problems(&url(storage)), [""; 0], "{name}={value:?}");
    }
}
