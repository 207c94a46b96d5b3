//! Goal: with TLS the port is the same port: every protocol, every limit; and who speaks the other way is told.

use http_body_util::Full;
use tonic::Code;

use super::*;
use crate::testing::Lines;
use crate::tls::testing::{Authority, Folder, Pair, TlsClient};

/// A server with TLS, and who issued its certificate.
struct Secured {
    server: Running,
    authority: Authority,
    folder: Folder,
}

impl Secured {
    async fn start(trusts_clients: bool, change: impl FnOnce(&mut Options)) -> Self {
        let authority = Authority::new();
        let folder = Folder::new(&authority.issue("server"), trusts_clients.then_some(&*authority.pem));
        let mut options = Options { tls: folder.options(), ..Options::default() };
        change(&mut options);
        Self { server: Running::start(options).await, authority, folder }
    }

    fn client(&self, own: Option<&Pair>) -> TlsClient {
        TlsClient::new(self.server.address, &self.authority, own)
    }
}

#[tokio::test]
async fn one_port_speaks_all_protocols_in_both_versions_of_tls() {
    let secured = Secured::start(false, |_| {}).await;
    for version in rustls::ALL_VERSIONS {
        let client = TlsClient::of_versions(secured.server.address, &secured.authority, None, &[*version]);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let answer = client.get("/things/1", version).await.expect("an answer");
            assert_eq!(answer, (200, "a thing".to_owned()), "{version:?}");
        }
        let mut ingest = IngestServiceClient::new(client.channel().await);
        assert_eq!(ingest.push_profile(push("a")).await.expect("gRPC").into_inner().id, "a");
    }
    secured.server.metric("afterglow_server_handshakes_total{outcome=\"ok\"} 6").await;
    assert_eq!(rustls::ALL_VERSIONS.len(), 2, "rustls has nothing before TLS 1.2");
}

/// Goal: who speaks plain text to the port is told so in the protocol it speaks, once, and is heard no more.
#[tokio::test]
async fn plain_text_to_a_port_with_tls_is_told() {
    let secured = Secured::start(false, |_| {}).await;
    let server = &secured.server;
    let lines = Lines::capture();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = server.send(Request::get("/things/1").version(version), "").await;
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.text(),
            r#"{"error":{"code":"INVALID_ARGUMENT","message":"this port speaks TLS: use https://","details":[]}}"#
        );
    }
    let status = server.ingest().await.push_profile(push("a")).await.expect_err("told");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "this port speaks TLS: use https://"));

    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let twice = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".repeat(2);
    stream.write_all(twice.as_bytes()).await.expect("written");
    let mut answers = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers)).await;
    read.expect("the end in time").expect("read");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    server.metric("afterglow_server_handshakes_total{outcome=\"plain\"} 4").await;
    assert_eq!(lines.text().matches("spoke plain HTTP to this port").count(), 1, "{}", lines.text());
}

#[tokio::test]
async fn tls_to_a_port_without_is_noticed() {
    let server = Running::start(Options::default()).await;
    let lines = Lines::capture();
    let client = TlsClient::new(server.address, &Authority::new(), None);
    let error = client.connect(&[b"h2"]).await.expect_err("no TLS there");
    assert!(error.to_string().contains("InvalidContentType"), "{error}");
    server.metric("afterglow_server_handshakes_total{outcome=\"tls\"} 1").await;
    assert!(lines.text().contains("a client spoke TLS to this port, which speaks plain HTTP"), "{}", lines.text());
}

/// Goal: a handshake that never begins, or never ends, does not keep its place; nor does silence after it.
#[tokio::test]
async fn slow_handshakes_are_cut() {
    let secured = Secured::start(false, |options| {
        options.limits.header_timeout = Duration::from_millis(200);
        options.limits.connections_max = 1;
    })
    .await;
    let server = &secured.server;
    // The head of a record that never comes, and of one that comes by a byte now and then.
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00", b"\x16"] {
        let mut stream = TcpStream::connect(server.address).await.expect("a connection");
        stream.write_all(beginning).await.expect("written");
        let (mut reader, mut writer) = stream.into_split();
        let drip = tokio::spawn(async move {
            while writer.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if beginning.is_empty() {
            drip.abort();
        }
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut rest)).await.expect("cut in time");
        drip.abort();
    }
    let mut silent = secured.client(None).connect(&[b"h2"]).await.expect("a handshake");
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.expect("cut in time");
    server.metric("afterglow_server_connections 0").await;
    // The only place is free again.
    assert_eq!(secured.client(None).get("/things/1", Version::HTTP_2).await.expect("an answer").0, 200);
}

/// Goal: a connection in the midst of a handshake holds up no drain.
#[tokio::test]
async fn a_handshake_under_way_holds_up_no_drain() {
    let secured = Secured::start(false, |options| options.limits.header_timeout = PATIENCE).await;
    let mut stream = TcpStream::connect(secured.server.address).await.expect("a connection");
    stream.write_all(b"\x16\x03\x01\x02\x00").await.expect("written");
    secured.server.metric("afterglow_server_connections 1").await;
    secured.server.stop.cancel();
    assert_eq!(secured.server.end().await, Drained { cut: 0 });
}

/// Goal: with authorities of clients nobody gets at data without a certificate of theirs, and probes and scrapers still work.
#[tokio::test]
async fn clients_present_a_certificate() {
    let secured = Secured::start(true, |_| {}).await;
    let lines = Lines::capture();
    let agents = secured.authority.issue("agents");
    let (known, unknown) = (secured.client(Some(&agents)), secured.client(None));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for path in ["/things/1", "/page", "/debug/pprof/"] {
            assert_eq!(known.get(path, version).await.expect("an answer").0, 200, "{path}");
            let (status, text) = unknown.get(path, version).await.expect("an answer");
            assert_eq!(status, 401, "{path}");
            assert!(text.contains("a client certificate is needed"), "{text}");
        }
        for path in ["/healthz", "/readyz", "/metrics", "/version"] {
            assert_eq!(unknown.get(path, version).await.expect("an answer").0, 200, "{path}");
        }
    }
    let (status, text) = known.get("/tenant", Version::HTTP_11).await.expect("an answer");
    assert_eq!((status, &*text), (200, "anonymous without token"));
    assert!(IngestServiceClient::new(known.channel().await).push_profile(push("a")).await.is_ok());
    let status = IngestServiceClient::new(unknown.channel().await).push_profile(push("a")).await.expect_err("unknown");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(HealthClient::new(unknown.channel().await).check(HealthCheckRequest::default()).await.is_ok());

    // TLS 1.3 tells a client only after its handshake.
    let other = Authority::new().issue("agents");
    assert!(secured.client(Some(&other)).get("/things/1", Version::HTTP_2).await.is_err());
    secured.server.metric("afterglow_server_handshakes_total{outcome=\"bad_certificate\"} 1").await;
    let text = lines.text();
    for parts in [
        &["reason=\"bad_certificate\"", "invalid peer certificate"][..],
        &["event=\"administered\"", "certificate=\"agents\""],
        &["reason=\"no_certificate\"", "path=\"/things/1\""],
    ] {
        assert!(text.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {text}");
    }
}

/// Goal: a certificate opens the port, the token says who asks; neither stands for the other.
#[tokio::test]
async fn with_tokens_both_are_needed() {
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    let (secret, entry) =
        access::Entry::generate("reader".to_owned(), vec![Role::Read], vec!["a".to_owned()]).expect("an entry");
    std::fs::write(tokens.path(), entry.to_toml()).expect("a file");
    let secured = Secured::start(true, |options| options.access.tokens_file = Some(tokens.path().to_owned())).await;
    let agents = secured.authority.issue("agents");
    let ask = async |own: Option<&Pair>, token: &str| {
        let mut stream = secured.client(own).connect(&[b"http/1.1"]).await.expect("a connection");
        let head = format!("GET /tenant HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{token}\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    let bearer = format!("authorization: Bearer {}\r\n", secret.reveal());
    assert!(ask(Some(&agents), &bearer).await.ends_with("a without token"));
    let answer = ask(Some(&agents), "").await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("a token is needed"), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    let answer = ask(None, &bearer).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("a client certificate is needed"), "{answer}");
    assert!(!answer.contains("www-authenticate"), "{answer}");
}

/// Goal: what begins after a renewal meets the new certificate; what began before goes on.
#[tokio::test]
async fn a_renewed_certificate_is_for_new_connections() {
    let secured = Secured::start(false, |_| {}).await;
    let client = secured.client(None);
    let presented = async || {
        let stream = client.connect(&[b"h2"]).await.expect("a connection");
        stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let mut old = IngestServiceClient::new(client.channel().await);
    let before = presented().await;
    let next = secured.authority.issue("server");
    secured.folder.write("cert.pem", &next.cert);
    secured.folder.write("key.pem", &next.key);
    let renewed = async { while presented().await == before {} };
    tokio::time::timeout(PATIENCE, renewed).await.expect("renewed in time");
    assert!(old.push_profile(push("a")).await.is_ok());
    secured.server.metric("afterglow_tls_file_reads_total{outcome=\"ok\"} 1").await;
}

/// Goal: a process reaches itself whatever its port speaks and whomever it trusts; nothing of it is open to others.
#[tokio::test]
async fn the_process_itself_comes_in_by_the_door() {
    let secured = Secured::start(true, |_| {}).await;
    let door = secured.server.door.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let door = door.clone();
        async move { door.open().await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = tonic::transport::Endpoint::from_static("http://itself").connect_with_connector_lazy(connector);
    let mut ingest = IngestServiceClient::new(channel);
    assert_eq!(ingest.push_profile(push("a")).await.expect("let in").into_inner().id, "a");
    secured.server.stop.cancel();
    assert_eq!(secured.server.end().await, Drained { cut: 0 });
    assert_eq!(ingest.push_profile(push("b")).await.expect_err("gone").code(), Code::Unavailable);
}

/// Goal: bodies and answers of some size pass, either way.
#[tokio::test]
async fn large_bodies_pass() {
    let secured = Secured::start(false, |_| {}).await;
    let stream = secured.client(None).connect(&[b"http/1.1"]).await.expect("a connection");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let body = Bytes::from((0..4_000_000_u32).map(|byte| byte as u8).collect::<Vec<_>>());
    let request = Request::post("/echo").header("host", "localhost").body(Full::new(body.clone())).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let echoed = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    assert!(echoed == body);
}
