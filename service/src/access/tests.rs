//! Goal: with tokens, nobody gets past a route without one that allows it, and whoever does is who its token says; without them, only
//! those who can reach the machine are let in.

use base64::Engine as _;
use http::{Request, StatusCode};
use tempfile::TempDir;
use tonic::Code;

use super::follow::{Seen, look};
use super::tokens::Table;
use super::*;
use crate::testing::{Answer, Lines, PROGRAM, Running, push};
use crate::{listen, tenant};

/// Tokens in a file.
struct Tokens {
    folder: TempDir,
    secrets: Vec<(&'static str, Secret)>,
}

impl Tokens {
    /// Makes tokens by name, roles and tenants.
    fn of(tokens: &[(&'static str, &[Role], &[&str])]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut text, mut secrets) = (String::new(), Vec::new());
        for (name, roles, tenants) in tokens {
            let tenants = tenants.iter().map(|tenant| (*tenant).to_owned()).collect();
            let (secret, entry) = Entry::generate((*name).to_owned(), roles.to_vec(), tenants).expect("an entry");
            text.push_str(&entry.to_toml());
            secrets.push((*name, secret));
        }
        let tokens = Self { folder, secrets };
        tokens.write(&text);
        tokens
    }

    fn usual() -> Self {
        Self::of(&[
            ("writer", &[Role::Write], &["a"]),
            ("reader", &[Role::Read], &["a"]),
            ("admin", &[Role::Admin], &["a", "b"]),
            ("both", &[Role::Write, Role::Read], &["a", "b"]),
            ("proxy", &[Role::Write, Role::Read], &["*"]),
        ])
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("a file");
    }

    fn bearer(&self, name: &str) -> String {
        let (_, secret) = self.secrets.iter().find(|(known, _)| *known == name).expect("a token of the test");
        format!("Bearer {}", secret.reveal())
    }

    fn basic(&self, name: &str) -> String {
        let bearer = self.bearer(name);
        let token = bearer.strip_prefix("Bearer ").expect("a bearer token");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("anybody:{token}")))
    }

    fn options(&self) -> Options {
        Options { tokens_file: Some(self.file()), ..Options::default() }
    }

    async fn server(&self) -> Running {
        Running::start(listen::Options { access: self.options(), ..listen::Options::default() }).await
    }
}

async fn get(server: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    server.send(request, "").await
}

/// The status of a route of each need, for a token.
async fn statuses(server: &Running, token: Option<&str>) -> [u16; 3] {
    let headers: Vec<_> = token.iter().map(|token| ("authorization", *token)).chain([("x-scope-orgid", "a")]).collect();
    let mut request = tonic::Request::new(push("1"));
    for (name, value) in &headers {
        request.metadata_mut().insert(*name, value.parse().expect("a metadata value"));
    }
    let write = match server.ingest().await.push_profile(request).await.map_err(|status| status.code()) {
        Ok(_) => 200,
        Err(Code::Unauthenticated) => 401,
        Err(Code::PermissionDenied) => 403,
        Err(code) => panic!("{code:?}"),
    };
    [write, get(server, "/things/1", &headers).await.status, get(server, "/debug/pprof/", &headers).await.status]
}

/// Goal: a route needs its role and no other, over gRPC and HTTP alike, and a token that is not in the file is none.
#[tokio::test]
async fn each_route_needs_its_role() {
    let tokens = Tokens::usual();
    let server = tokens.server().await;
    for (name, expected) in [
        ("writer", [200, 403, 403]),
        ("reader", [403, 200, 403]),
        ("admin", [403, 403, 200]),
        ("both", [200, 200, 403]),
        ("proxy", [200, 200, 403]),
    ] {
        assert_eq!(statuses(&server, Some(&tokens.bearer(name))).await, expected, "{name}");
        assert_eq!(statuses(&server, Some(&tokens.basic(name))).await, expected, "{name}");
    }
    let text = std::fs::read_to_string(tokens.file()).expect("a file");
    let digest =
        text.lines().find_map(|line| line.strip_prefix("sha256 = \"")).expect("a digest").trim_end_matches('"');
    let known = tokens.bearer("both");
    let others = [
        format!("Bearer {digest}"),
        known[..known.len() - 1].to_owned(),
        format!("{known}0"),
        known.to_ascii_uppercase(),
        "Bearer ".to_owned(),
        "Basic Og==".to_owned(),
    ];
    assert_eq!(statuses(&server, None).await, [401; 3]);
    for other in &others {
        assert_eq!(statuses(&server, Some(other)).await, [401; 3], "{other}");
    }
    server.metric("afterglow_access_refusals_total{reason=\"no_token\"} 3").await;
    server.metric("afterglow_access_tokens 5").await;
}

/// Goal: what orchestrators, scrapers and tools need of every server stays open, and shows no profile.
#[tokio::test]
async fn what_every_server_has_stays_open() {
    let tokens = Tokens::usual();
    let server = tokens.server().await;
    for path in ["/healthz", "/readyz", "/metrics", "/version", "/page"] {
        assert_eq!(get(&server, path, &[]).await.status, 200, "{path}");
    }
    for path in ["/debug/pprof", "/debug/pprof/profile?seconds=1", "/debug/pprof/heap"] {
        assert_eq!(get(&server, path, &[]).await.status, 401, "{path}");
    }
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel().await);
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.expect("health needs no token");
}

/// Goal: the token decides whose data it is, the header only among those it allows, and a handler sees nothing else.
#[tokio::test]
async fn the_token_decides_the_tenant() {
    let tokens = Tokens::usual();
    let server = tokens.server().await;
    let ask = async |name: &str, tenants: &[&str]| {
        let token = tokens.bearer(name);
        let mut headers = vec![("authorization", token.as_str())];
        headers.extend(tenants.iter().map(|tenant| ("x-scope-orgid", *tenant)));
        let answer = get(&server, "/tenant", &headers).await;
        (answer.status, answer.text().to_owned())
    };
    let seen = |tenant: &str| (200, format!("{tenant} without token"));
    assert_eq!(ask("reader", &[]).await, seen("a"));
    assert_eq!(ask("reader", &["a"]).await, seen("a"));
    assert_eq!(ask("both", &["b"]).await, seen("b"));
    assert_eq!(ask("proxy", &["anything"]).await, seen("anything"));
    assert_eq!(ask("proxy", &[]).await, seen("anonymous"));
    for (name, tenants, status) in [
        ("reader", &["b"][..], 403),
        ("reader", &["A"], 403),
        ("reader", &["*"], 403),
        ("reader", &["anonymous"], 403),
        ("both", &["c"], 403),
        ("both", &[], 400),
        ("reader", &["a", "b"], 400),
        ("reader", &["b", "a"], 400),
        ("reader", &["a", "a"], 400),
        ("reader", &[""], 400),
        ("proxy", &["a", "b"], 400),
    ] {
        let (answered, text) = ask(name, tenants).await;
        assert_eq!(answered, status, "{name} {tenants:?}: {text}");
    }
    insta::assert_snapshot!(
        ask("reader", &["b"]).await.1,
        @r#"{"error":{"code":"PERMISSION_DENIED","message":"token \"reader\" is not for tenant \"b\" (x-scope-orgid)","details":[]}}"#
    );
    insta::assert_snapshot!(
        ask("both", &[]).await.1,
        @r#"{"error":{"code":"INVALID_ARGUMENT","message":"token \"both\" is for 2 tenants: name one in header x-scope-orgid","details":[]}}"#
    );
}

/// Goal: a client learns what to send, a browser asks its user, and a refusal is kept by no cache.
#[tokio::test]
async fn who_has_no_token_is_asked_for_one() {
    let tokens = Tokens::usual();
    let server = tokens.server().await;
    let answer = get(&server, "/things/1", &[]).await;
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"afterglow\""));
    assert_eq!((answer.status, answer.header("cache-control")), (401, Some("no-store")));
    insta::assert_snapshot!(
        answer.text(),
        @r#"{"error":{"code":"UNAUTHENTICATED","message":"a token is needed: send it as `authorization: Bearer TOKEN`","details":[]}}"#
    );

    let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let answer = get(&server, "/page", &[html]).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some("Basic realm=\"afterglow\", charset=\"UTF-8\""))
    );
    let basic = tokens.basic("reader");
    assert_eq!(get(&server, "/page", &[html, ("authorization", &basic)]).await.text(), "a page");
    assert_eq!(get(&server, "/tenant", &[("authorization", &basic)]).await.text(), "a without token");
    // The page is the same for all; what it then asks is another matter.
    assert_eq!(get(&server, "/page", &[html, ("authorization", &tokens.basic("both"))]).await.status, 200);
}

/// Goal: a page of another site cannot push with what a browser's user once typed; scripts and the own UI can.
#[tokio::test]
async fn other_sites_cannot_use_a_browsers_token() {
    let tokens = Tokens::of(&[("both", &[Role::Write, Role::Read], &["a"])]);
    let server = tokens.server().await;
    for (token, site, status) in [
        (tokens.basic("both"), Some("cross-site"), 403),
        (tokens.basic("both"), Some("same-site"), 403),
        (tokens.basic("both"), Some("same-origin"), 200),
        (tokens.basic("both"), None, 200),
        (tokens.bearer("both"), Some("cross-site"), 200),
    ] {
        let mut request = Request::post("/tenant").header("authorization", token);
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        assert_eq!(server.send(request, "").await.status, status, "{site:?}");
    }
}

/// Goal: tokens come and go with the file, and a file that is broken or gone neither lets in nor locks out.
#[tokio::test]
async fn the_file_is_followed() {
    let tokens = Tokens::of(&[("old", &[Role::Read], &["a"]), ("new", &[Role::Read], &["a"])]);
    let text = std::fs::read_to_string(tokens.file()).expect("a file");
    let at = text.rfind("[[token]]").expect("the second entry");
    let (old, new) = text.split_at(at);
    tokens.write(old);

    let metrics = Metrics::new(PROGRAM);
    let held = super::Tokens::open(tokens.file(), Vec::new(), &metrics).expect("tokens");
    let known = |held: &super::Tokens| {
        let knows = |table: &Table, name: &str| {
            let bearer = tokens.bearer(name);
            table.find(&Digest::of(bearer.strip_prefix("Bearer ").expect("a bearer token").as_bytes())).is_some()
        };
        ["old", "new"].map(|name| knows(&held.table(), name))
    };
    let metric = |name: &str| {
        let text = metrics.text().expect("text");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
    };
    let mut seen = Seen::default();
    look(&held, &mut seen).await;
    assert_eq!(known(&held), [true, false]);
    tokens.write(new);
    look(&held, &mut seen).await;
    assert_eq!(known(&held), [false, true]);
    for broken in ["[[token]]\nname = \"half", "", "[[token]]\nname = 1\n"] {
        tokens.write(broken);
        look(&held, &mut seen).await;
        assert_eq!((known(&held), metric("afterglow_access_file_stale").as_deref()), ([false, true], Some("1")));
    }
    std::fs::remove_file(tokens.file()).expect("a file");
    look(&held, &mut seen).await;
    assert_eq!(known(&held), [false, true]);
    look(&held, &mut seen).await;
    assert_eq!(metric("afterglow_access_file_reads_total{outcome=\"failed\"}").as_deref(), Some("4"), "once a change");
    tokens.write(&text);
    look(&held, &mut seen).await;
    assert_eq!((known(&held), metric("afterglow_access_file_stale").as_deref()), ([true, true], Some("0")));
}

/// Goal: what the process makes for itself works beside the file, writes only, and outlives a change of the file.
#[tokio::test]
async fn the_process_has_a_token_of_its_own() {
    let tokens = Tokens::of(&[("reader", &[Role::Read], &["a"])]);
    let (secret, own) = own_token("self", Role::Write, tenant::ANONYMOUS);
    let held = super::Tokens::open(tokens.file(), vec![own], &Metrics::new(PROGRAM)).expect("tokens");
    let headers = http::HeaderMap::from_iter([(
        http::header::AUTHORIZATION,
        format!("Bearer {}", secret.reveal()).parse().expect("a header"),
    )]);
    let decide = |role| decide::decide(&held.table(), Need::Role(role), &http::Method::POST, &headers);
    let granted = decide(Role::Write).expect("let in");
    assert_eq!(
        (granted.caller.name(), granted.tenant.expect("a tenant").as_bytes()),
        ("self", b"anonymous".as_slice())
    );
    assert_eq!(decide(Role::Read).expect_err("not its role").failure.kind().http_status(), StatusCode::FORBIDDEN);
    tokens.write(&std::fs::read_to_string(tokens.file()).expect("a file").replace("reader", "renamed"));
    look(&held, &mut Seen::default()).await;
    assert!(decide(Role::Write).is_ok());
}

/// Goal: what is refused and what an admin does is written down, with who and where, and without any token.
#[tokio::test]
async fn refusals_and_admin_actions_are_written_down() {
    let tokens = Tokens::usual();
    let server = tokens.server().await;
    let lines = Lines::capture();
    let [reader, admin] = ["reader", "admin"].map(|name| tokens.bearer(name));
    for headers in [
        &[][..],
        &[("authorization", "Bearer nonsense")],
        &[("authorization", reader.as_str()), ("x-scope-orgid", "b")],
    ] {
        get(&server, "/things/1?a=b", headers).await;
    }
    get(&server, "/debug/pprof/", &[("authorization", &admin)]).await;
    let text = lines.text();
    let audit: Vec<_> = text.lines().filter(|line| line.contains(" audit: ")).collect();
    assert_eq!(audit.len(), 4, "{text}");
    for (line, parts) in audit.iter().zip([
        ["reason=\"no_token\"", "path=\"/things/1\""],
        ["reason=\"unknown_token\"", "method=GET"],
        ["reason=\"tenant\" token=\"reader\"", "tenant=\"b\""],
        ["event=\"administered\" token=\"admin\"", "path=\"/debug/pprof/\""],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)) && line.contains("peer=127.0.0.1:"), "{line}");
    }
    for secret in [&reader, &admin, "nonsense"] {
        assert!(!text.contains(secret.trim_start_matches("Bearer ")), "{text}");
    }
}

/// Goal: whoever has a page of somebody else's open lets it do nothing to a server on its machine, nor read it under a name of the page's;
/// its own pages, its tools and the process itself go on as ever. With tokens it is they that decide.
#[tokio::test]
async fn pages_of_other_sites_are_kept_out_where_no_token_does() {
    let server = Running::start(listen::Options::default()).await;
    let lines = Lines::capture();
    for path in ["/things/1", "/metrics", "/healthz", "/debug/pprof/", "/page"] {
        assert_eq!(get(&server, path, &[("host", "evil.example:4100")]).await.status, 403, "{path}");
        assert_eq!(get(&server, path, &[("host", "localhost:1")]).await.status, 200, "{path}");
        assert_eq!(
            get(&server, path, &[("sec-fetch-site", "cross-site")]).await.status,
            200,
            "{path}: it sees nothing"
        );
    }
    let post = async |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::post("/tenant"), |request, (name, value)| request.header(*name, *value));
        server.send(request, "").await
    };
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]).await.status, 200);
    assert_eq!(post(&[("origin", &format!("http://{}", server.address))]).await.status, 200);
    for headers in [&[("sec-fetch-site", "cross-site")], &[("origin", "http://evil.example")]] {
        assert_eq!(post(headers).await.status, 403, "{headers:?}");
    }
    let call = Request::post("/test.v1.Things/Echo").header("host", "evil.example");
    assert!(server.send(call, "").await.text().starts_with("{\"code\":\"permission_denied\""), "as Connect says it");
    server.ingest().await.push_profile(push("1")).await.expect("no browser");
    server.metric("afterglow_access_refusals_total{reason=\"host\"} 6").await;
    server.metric("afterglow_access_refusals_total{reason=\"other_site\"} 2").await;
    let text = lines.text();
    assert!(text.lines().any(|line| line.contains(" audit: ") && line.contains("reason=\"other_site\"")), "{text}");

    let tokens = Tokens::usual();
    let guarded = tokens.server().await;
    let headers = [("host", "evil.example"), ("authorization", &*tokens.bearer("reader"))];
    assert_eq!(get(&guarded, "/things/1", &headers).await.status, 200);
    let named = Options { allowed_hosts: vec!["Profiles.example".to_owned()], ..Options::default() };
    let named = Running::start(listen::Options { access: named, ..listen::Options::default() }).await;
    assert_eq!(get(&named, "/things/1", &[("host", "profiles.example")]).await.status, 200);
    assert_eq!(get(&named, "/things/1", &[("host", "evil.example")]).await.status, 403);
}

/// Goal: a server that others can reach does not start by oversight with everybody let in.
#[test]
fn an_open_address_needs_tokens_or_a_word() {
    let (tokens, none) = (Tokens::usual(), Options::default());
    let [loopback, loopback6, all, one] = ["127.0.0.1:4100", "[::1]:4100", "0.0.0.0:4100", "10.0.0.1:0"]
        .map(|address| address.parse::<SocketAddr>().expect("an address"));
    let insecure = Options { insecure: true, ..Options::default() };
    let plain = tls::Options::default();
    let mutual = tls::Options { client_ca_file: Some("ca.pem".into()), ..tls::Options::default() };
    for address in [loopback, loopback6] {
        assert_eq!(none.problems(address, &plain), [""; 0]);
    }
    for address in [all, one] {
        for good in [&insecure, &tokens.options()] {
            assert_eq!(good.problems(address, &plain), [""; 0]);
        }
    }
    insta::assert_snapshot!(
        none.problems(all, &plain).join("\n"),
        @"listen 0.0.0.0:4100 can be reached by others, and nothing says who may: give --auth.tokens-file FILE (see `afterglow token --help`), or --tls.client-ca-file FILE, or --listen 127.0.0.1:4100, or --insecure where the network lets in nobody else"
    );
    assert_eq!(Options { insecure: true, ..tokens.options() }.problems(loopback, &plain).len(), 1);
    // A certificate says who may.
    assert_eq!(none.problems(all, &mutual), [""; 0]);
    assert_eq!(insecure.problems(loopback, &mutual).len(), 1);
    tokens.write("");
    assert!(tokens.options().problems(loopback, &plain)[0].contains("has no [[token]]"));
}
