//! TLS from certificates in files to the port: every kind of client, with certificates of its own and without, renewals under load, and
//! queriers that share work.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afterglow_e2e::{Authority, Program, Tiers, built, output, real_profiles, tiny_profile, tool};

/// How long what is done within seconds may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts everything in one process with the certificate `server`.
fn serve(authority: &Authority, more: &[String]) -> Program {
    authority.issue("server");
    let own = ["serve", "--storage", "memory://", "--self-profile-period", "1s"].map(str::to_owned);
    Program::start("afterglow", &[&own[..], &authority.flags("server"), more].concat(), &[])
}

fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    output(command)
}

/// Runs a client command.
fn client(server: &str, args: &[&str], flags: &[String]) -> Output {
    let mut command = Command::new(built("afterglow"));
    command.args(args).args(flags).env("AFTERGLOW_SERVER", server);
    output(command)
}

fn profile(authority: &Authority) -> String {
    let path = authority.path("cpu.pb");
    std::fs::write(&path, tiny_profile("some_work")).expect("a file");
    path.display().to_string()
}

/// Reads a metric of a server whose port speaks TLS.
fn metric(authority: &Authority, address: &str, name: &str) -> Option<u64> {
    let ca = authority.path("ca.pem").display().to_string();
    let metrics = text(&run("curl", &["-s", "--cacert", &ca, &format!("https://{address}/metrics")]).stdout);
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} is not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Goal: what works without TLS works with it, with each kind of client; and who is wrong about TLS is told.
#[test]
fn every_client_speaks_tls() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let (address, url) = (server.address(), format!("https://{}", server.address()));
    let file = profile(&authority);
    let push = ["push", &file, "--service", "s", "--type", "cpu", "--timeout", "20s"];
    let ca = [authority.flag("--tls.ca-file")];

    // At once: a certificate does not become another by waiting.
    let refused = text(&client(&url, &[&push[..6], &["--timeout", "1h"]].concat(), &[]).stderr);
    assert!(refused.contains("cannot verify https://127.0.0.1:"), "{refused}");
    assert!(refused.contains("UnknownIssuer") && refused.contains("tls.ca-file"), "{refused}");
    let refused = text(&client(&server.url(), &push, &[]).stderr);
    assert!(refused.contains("this port speaks TLS: use https://"), "{refused}");
    let pushed = client(&url, &push, &ca);
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    for args in [&["search", "{service=\"s\"}"][..], &["top", "{service=\"s\"}", "--type", "cpu"], &["labels"]] {
        let answer = client(&url, args, &ca);
        assert!(answer.status.success(), "{args:?}: {}", text(&answer.stderr));
    }

    let ca = authority.path("ca.pem").display().to_string();
    for version in ["--http1.1", "--http2", "--tlsv1.3"] {
        let answer = run("curl", &["-sS", version, "--cacert", &ca, &format!("{url}/api/v1/services")]);
        assert!(text(&answer.stdout).contains("\"s\""), "{version}: {answer:?}");
    }
    let answer = run("curl", &["-sS", "--tls-max", "1.1", "--cacert", &ca, &format!("{url}/api/v1/services")]);
    assert!(!answer.status.success(), "{answer:?}");
    let answer = run("curl", &["-s", "-w", "%{http_code}", &format!("{}/healthz", server.url())]);
    assert!(text(&answer.stdout).contains("use https://") && text(&answer.stdout).ends_with("400"), "{answer:?}");

    let answer = run(tool("grpcurl"), &["-cacert", &ca, &address, "list"]);
    assert!(text(&answer.stdout).contains("afterglow.v1.QueryService"), "{answer:?}");
    let answer = run(tool("grpcurl"), &["-cacert", &ca, &address, "grpc.health.v1.Health/Check"]);
    assert!(text(&answer.stdout).contains("SERVING"), "{answer:?}");

    let merge = format!("https+insecure://{address}/api/v1/merge?query={{service=\"s\"}}&type=cpu&start=-1h");
    let answer = run("go", &["tool", "pprof", "-top", &merge]);
    assert!(text(&answer.stdout).contains("some_work"), "{answer:?}");

    // It reaches itself without knowing by which name its certificate is for.
    until("the server's own profiles are there", || {
        let found = client(&url, &["search", "{service=\"afterglow\"}"], &[authority.flag("--tls.ca-file")]);
        text(&found.stdout).contains("heap")
    });
    let expires = metric(&authority, &address, "afterglow_tls_certificate_expiration_timestamp_seconds");
    // rcgen's certificates are good for very long.
    assert!(expires.expect("a gauge") > 4_000_000_000);
}

/// Goal: with authorities of clients, who has a certificate of theirs is let in, others are not, and an operator's probes are.
#[test]
fn certificates_of_clients_are_asked_for() {
    let authority = Authority::new();
    authority.issue("agents");
    let server = serve(&authority, &[authority.flag("--tls.client-ca-file")]);
    let (address, url) = (server.address(), format!("https://{}", server.address()));
    let file = profile(&authority);
    let push = ["push", &file, "--service", "s", "--type", "cpu", "--timeout", "20s"];
    let ca = authority.flag("--tls.ca-file");
    let own = [&[ca.clone()][..], &authority.flags("agents")].concat();

    let pushed = client(&url, &push, &own);
    assert!(pushed.status.success(), "{}", text(&pushed.stderr));
    let refused = text(&client(&url, &push, std::slice::from_ref(&ca)).stderr);
    assert!(refused.contains("a client certificate is needed"), "{refused}");
    let refused = text(&client(&url, &["search"], std::slice::from_ref(&ca)).stderr);
    assert!(refused.contains("a client certificate is needed"), "{refused}");
    let other = Authority::new();
    other.issue("agents");
    let refused = client(&url, &["search"], &[&[ca.clone()][..], &other.flags("agents")].concat());
    assert!(!refused.status.success());
    until("the other authority's certificate is written down", || server.log().contains("bad_certificate"));

    let file = |name: &str| authority.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("agents.pem"), file("agents-key.pem"));
    let curl = |path: &str, more: &[&str]| {
        let url = format!("{url}{path}");
        let answer =
            run("curl", &[&["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca, &url], more].concat());
        text(&answer.stdout)
    };
    for path in ["/healthz", "/readyz", "/metrics", "/version"] {
        assert_eq!(curl(path, &[]), "200", "{path}");
    }
    assert_eq!(curl("/api/v1/services", &[]), "401");
    assert_eq!(curl("/api/v1/services", &["--cert", &cert, "--key", &key]), "200");
    let answer = run(
        tool("grpcurl"),
        &["-cacert", &ca, "-cert", &cert, "-key", &key, &address, "afterglow.v1.QueryService/Services"],
    );
    assert!(text(&answer.stdout).contains("\"s\""), "{answer:?}");
    let answer = run(tool("grpcurl"), &["-cacert", &ca, &address, "afterglow.v1.QueryService/Services"]);
    assert!(text(&answer.stderr).contains("Unauthenticated"), "{answer:?}");

    // The agent scrapes the server over TLS, and pushes to it over TLS.
    let config = authority.path("agent.toml");
    let tls = format!("{{ ca_file = {ca:?}, cert_file = {cert:?}, key_file = {key:?} }}");
    let text_of = format!(
        "server = {url:?}\nscrape_interval = \"2s\"\ntls_config = {tls}\n[[scrape_configs]]\njob_name = \"itself\"\n\
         scheme = \"https\"\ntls_config = {tls}\ntargets = [{address:?}]\nprofiles = [\"heap\"]\n"
    );
    std::fs::write(&config, text_of).expect("a file");
    let agent = Program::start("afterglow-agent", &["--config", &config.display().to_string()], &[]);
    until("what the agent scraped is there", || {
        assert!(!agent.log().contains("cannot scrape"), "{}", agent.log());
        text(&client(&url, &["search", "{job=\"itself\"}"], &own).stdout).contains("heap")
    });
}

/// Goal: no server opens its port to others with TLS alone, which says nothing about who may; with certificates of clients it does.
#[test]
fn tls_alone_says_nothing_about_who_may() {
    let authority = Authority::new();
    authority.issue("server");
    let check = |more: &[String]| {
        let mut command = Command::new(built("afterglow"));
        command
            .args(["ingester", "--storage", "memory://", "--check-config"])
            .args(authority.flags("server"))
            .args(more);
        output(command)
    };
    let refused = check(&[]);
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("--tls.client-ca-file"), "{}", text(&refused.stderr));
    let taken = check(&[authority.flag("--tls.client-ca-file")]);
    assert!(taken.status.success(), "{}", text(&taken.stderr));
    std::fs::write(authority.path("server-key.pem"), "").expect("a file");
    let refused = check(&["--insecure".to_owned()]);
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("holds no private key"), "{}", text(&refused.stderr));
}

/// Goal: while certificates are renewed, well and badly, nobody who asks notices.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_load() {
    let authority = Authority::new();
    let server = serve(&authority, &[]);
    let (address, url) = (server.address(), format!("https://{}/api/v1/services", server.address()));
    let ca = std::fs::read(authority.path("ca.pem")).expect("a file");
    let ca = reqwest::Certificate::from_pem(&ca).expect("PEM");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = [0, 0, 4]
        .map(|idle| {
            // Of those that keep no connection, each request is a handshake.
            let client = reqwest::Client::builder().tls_certs_only([ca.clone()]).pool_max_idle_per_host(idle);
            let (client, url) = (client.build().expect("a client"), url.clone());
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(&url).send().await.expect("an answer");
                    assert_eq!(answer.status(), 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .into();
    let reads = |outcome: &str| {
        let name = format!("afterglow_tls_file_reads_total{{outcome=\"{outcome}\"}}");
        metric(&authority, &address, &name).unwrap_or_default()
    };
    for renewal in 1..=2 {
        authority.issue("server");
        until("the new certificate is in force", || reads("ok") == renewal);
    }
    std::fs::write(authority.path("server-key.pem"), "no key").expect("a file");
    until("the broken pair is noticed", || reads("failed") == 1);
    assert_eq!(metric(&authority, &address, "afterglow_tls_files_stale"), Some(1));
    authority.issue("server");
    until("the next pair is in force", || reads("ok") == 3);
    assert_eq!(metric(&authority, &address, "afterglow_tls_files_stale"), Some(0));
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no request failed");
    }
    let (asked, log) = (asked.load(Ordering::Relaxed), server.log());
    assert!(asked > 100, "{asked} requests are no load");
    assert!(log.contains("took the changed files of TLS") && log.contains("cannot use the changed files"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

/// Goal: handshakes that never end take no place from others for long.
#[test]
fn a_crowd_that_never_ends_its_handshake_is_cut() {
    let authority = Authority::new();
    let flags = ["--limits.header-timeout=1s", "--limits.max-connections=64"].map(str::to_owned);
    let server = serve(&authority, &flags);
    let mut crowd: Vec<_> = (0..128).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    for stream in &mut crowd {
        // The head of a record of 512 bytes.
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").expect("written");
    }
    let ca = authority.path("ca.pem").display().to_string();
    let url = format!("https://{}/healthz", server.address());
    let answer = run("curl", &["-sS", "--max-time", "30", "--cacert", &ca, &url]);
    assert_eq!(text(&answer.stdout), "ok\n", "{answer:?}");
    for mut stream in crowd {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(!ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{ended:?}");
    }
    let name = "afterglow_server_handshakes_total{outcome=\"timed_out\"}";
    assert_eq!(metric(&authority, &server.address(), name), Some(128));
}

/// Goal: queriers share heavy merges over TLS, each known to the others by its certificate, and the answer is that of one alone.
#[test]
fn queriers_share_over_tls() {
    let authority = Authority::new();
    authority.issue("querier");
    let tiers = Tiers::new("siblings-tls");
    let ingester = tiers.ingester();
    let profiles = real_profiles();
    for (number, profile) in
        profiles.iter().filter(|profile| profile.series == "profefe-cpu").cycle().take(8).enumerate()
    {
        let mut push = Command::new(built("afterglow"));
        push.args(["push", "--server", &ingester.url(), "--service", &format!("s{}", number % 4), "--type", "cpu"]);
        let done = output({
            push.arg(&profile.path);
            push
        });
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let own = [&authority.flags("querier")[..], &[authority.flag("--tls.client-ca-file")]].concat();
    let querier = |more: &[String]| {
        let flags = [&own[..], more].concat();
        tiers.querier_with(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let sibling = querier(&[]);
    let shares = ["--query.share-above=0".to_owned(), format!("--query.siblings={}", sibling.address())];
    let file = |name: &str| authority.path(name).display().to_string();
    let (cert, key) = (file("querier.pem"), file("querier-key.pem"));
    let known = [
        authority.flag("--query.siblings-ca-file"),
        format!("--query.siblings-cert-file={cert}"),
        format!("--query.siblings-key-file={key}"),
    ];
    let (alone, asked, unknown) =
        (querier(&[]), querier(&[&shares[..], &known].concat()), querier(&[&shares[..], &known[..1]].concat()));
    let merge = |querier: &Program| {
        let url = format!("https://{}/api/v1/merge?start=0&type=cpu&format=folded", querier.address());
        let answer = run("curl", &["-sS", "--cacert", &file("ca.pem"), "--cert", &cert, "--key", &key, &url]);
        assert!(answer.stdout.len() > 1_000, "{answer:?}");
        answer.stdout
    };
    let expected = merge(&alone);
    assert!(merge(&asked) == expected && merge(&unknown) == expected);
    let done = |querier: &Program| metric(&authority, &querier.address(), "afterglow_query_shares_done_total");
    assert_eq!(done(&asked), Some(1), "{}", asked.log());
    assert_eq!(done(&unknown), Some(0), "a sibling without a certificate is not let in");
}

/// Goal: the agent's own port speaks TLS as those of servers do, by settings of its own, beside the certificate that it presents itself.
#[test]
fn the_port_of_the_agent_speaks_tls() {
    let authority = Authority::new();
    authority.issue("agent");
    authority.issue("operator");
    let config = authority.path("agent.toml");
    std::fs::write(&config, "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"127.0.0.1:1\"]\n").expect("a file");
    let own: Vec<String> =
        authority.flags("agent").iter().map(|flag| flag.replace("--tls.", "--listen-tls.")).collect();
    let mut args =
        vec!["--config".to_owned(), config.display().to_string(), authority.flag("--listen-tls.client-ca-file")];
    args.extend(own);
    let agent = Program::start("afterglow-agent", &args, &[]);
    let ca = authority.path("ca.pem").display().to_string();
    let [cert, key] = ["operator.pem", "operator-key.pem"].map(|name| authority.path(name).display().to_string());
    let status = |path: &str, more: &[&str]| {
        let url = format!("https://{}{path}", agent.address());
        let args = [&["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &ca], more, &[&*url]].concat();
        text(&run("curl", &args).stdout)
    };
    assert_eq!(status("/metrics", &[]), "200");
    assert_eq!(status("/debug/pprof/", &[]), "401");
    assert_eq!(status("/debug/pprof/", &["--cert", &cert, "--key", &key]), "200");
    assert_eq!(agent.get("/metrics").0, 400, "it speaks nothing else");
}
