//! Goal: no byte of one tenant reaches another, whatever is asked, by whichever API, and whatever the headers claim.
//!
//! Two tenants have one profile of each kind, alike but for marks: a label's value, a function's name, a service's name, an id. A caller with
//! a token of the one asks at random for a while, about its own and the other's, and no answer may hold a mark of the other's that the
//! question did not bring. A caller that may ask for both shows that the same questions do find the marks.
//!
//! `TENANT_QUESTIONS` says how many are asked (`make tenants`: 100,000); by default as many as CI can wait for.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test has its own environment, and says what it did"
)]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use afterglow_e2e::{Program, built, output, tiny_profile};
use afterglow_profile::compress::inflate;
use afterglow_profile::limits::Limits;
use afterglow_proto::v1::query_service_client::QueryServiceClient;
use afterglow_proto::v1::{self, Selection};
use rand::seq::IndexedRandom as _;
use ulid::Ulid;

/// How many questions are asked where nobody says, by how many callers at once.
const QUESTIONS: usize = 4_000;
const CALLERS: usize = 8;

/// A tenant, and what is its own.
#[derive(Clone, Debug)]
struct Tenant {
    name: &'static str,
    token: String,
    function: &'static str,
    secret: &'static str,
    service: &'static str,
    id: String,
}

/// The marks of `tenant` that are in `answer` and not in `question`.
fn leaked(tenant: &Tenant, question: &str, answer: &[u8]) -> Vec<String> {
    let plain = inflate(answer, &Limits::default()).map(|raw| raw.to_vec()).unwrap_or_default();
    let holds = |bytes: &[u8], mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    [tenant.function, tenant.secret, tenant.service, tenant.id.as_str()]
        .into_iter()
        .filter(|mark| !question.contains(mark) && (holds(answer, mark) || holds(&plain, mark)))
        .map(str::to_owned)
        .collect()
}

/// One question over HTTP: the path and query, about services and ids of both.
fn path(about: &Tenant) -> String {
    let mut random = rand::rng();
    let mut pick = |of: &[&str]| (*of.choose(&mut random).expect("something")).to_owned();
    let query = pick(&[
        "{}",
        &format!("{{service=\"{}\"}}", about.service),
        "{service=~\".*\"}",
        "{secret!=\"\"}",
        "{service!=\"x\",__tenant__=\"b\"}",
    ]);
    let query = query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace('!', "%21");
    let format = pick(&["pprof", "flamegraph", "top", "folded", "dot"]);
    let by = pick(&["secret", "service", "type"]);
    let id = pick(&[
        &about.id,
        &Ulid::generate().to_string(),
        &format!("../{}/{}", about.name, about.id),
        &format!("..%2f..%2fv1%2ft%2f{}%2fl0", about.name),
        "%2e%2e",
    ]);
    let window = "start=-1h&end=now";
    match pick(&[
        "search",
        "profile",
        "raw",
        "merge",
        "ids",
        "diff",
        "series",
        "top",
        "lists",
        "values",
        "stats",
        "regressions",
        "odd",
    ])
    .as_str()
    {
        "search" => format!("/api/v1/profiles?query={query}&{window}&limit=1000"),
        "profile" => format!("/api/v1/profiles/{id}"),
        "raw" => format!("/api/v1/profiles/{id}?raw=true"),
        "merge" => format!("/api/v1/merge?query={query}&type=cpu&{window}&format={format}"),
        "ids" => format!("/api/v1/merge?type=cpu&id={}&format={format}", about.id),
        "diff" => format!(
            "/api/v1/diff?query={query}&base_query=%7B%7D&type=cpu&{window}&base_start=-2h&base_end=-1h&format={format}"
        ),
        "series" => format!("/api/v1/series?query={query}&type=cpu&{window}&by={by}"),
        "top" => format!("/api/v1/top?query={query}&type=cpu&{window}&by={by}"),
        "lists" => format!("/api/v1/{}?query={query}&{window}", pick(&["services", "types", "labels"])),
        "values" => format!(
            "/api/v1/labels/{}/values?query={query}&{window}",
            pick(&["secret", "service", "__tenant__", "tenant"])
        ),
        "stats" => format!("/api/v1/stats?{window}"),
        "regressions" => format!("/api/v1/regressions?query={query}&type=cpu&{window}"),
        _ => pick(&["/", "/metrics", "/version", "/api/v1/", "/debug/pprof/", "/v1/t/b/l0/", "/explore"]),
    }
}

/// One question as Grafana asks it: the path, and the body with the fields of all such questions.
fn as_grafana(about: &Tenant) -> (String, String) {
    let mut random = rand::rng();
    let mut pick = |of: &[&str]| (*of.choose(&mut random).expect("something")).to_owned();
    let selector = pick(&[
        "{}",
        &format!("{{service_name=\"{}\"}}", about.service),
        "{service_name=~\".*\"}",
        "{secret!=\"\",__tenant__=\"b\"}",
    ]);
    let method = pick(&[
        "ProfileTypes",
        "LabelNames",
        "LabelValues",
        "Series",
        "SelectSeries",
        "SelectMergeStacktraces",
        "SelectMergeSpanProfile",
        "Diff",
    ]);
    let ids = if rand::random_range(0..4) == 0 { vec![about.id.clone()] } else { Vec::new() };
    let body = serde_json::json!({
        "profileTypeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "labelSelector": selector,
        "matchers": [selector],
        "name": pick(&["secret", "service_name", "__tenant__"]),
        "groupBy": [pick(&["secret", "service_name"])],
        "format": pick(&["PROFILE_FORMAT_FLAMEGRAPH", "PROFILE_FORMAT_DOT"]),
        "profileIdSelector": ids,
    });
    (format!("/querier.v1.QuerierService/{method}"), body.to_string())
}

/// Headers that claim another tenant; nothing, mostly.
fn forged(other: &Tenant) -> Vec<(&'static str, String)> {
    let name = other.name.to_owned();
    let claims: [Vec<(&'static str, String)>; 9] = [
        vec![],
        vec![],
        vec![("x-scope-orgid", name.clone())],
        vec![("x-scope-orgid", format!("a|{name}"))],
        vec![("x-scope-orgid", "a".to_owned()), ("x-scope-orgid", name.clone())],
        vec![("x-scope-orgid", format!("../{name}"))],
        vec![("x-scope-orgid", "*".to_owned())],
        vec![("x-tenant", name.clone()), ("x-forwarded-user", name.clone()), ("x-org-id", name.clone())],
        vec![("cookie", format!("tenant={name}")), ("x-original-url", format!("/v1/t/{name}"))],
    ];
    claims.choose(&mut rand::rng()).expect("some").clone()
}

/// Asks one question over gRPC; returns the question, and the answer as text with the bytes of a pprof behind.
async fn grpc(
    client: &mut QueryServiceClient<tonic::transport::Channel>,
    as_whom: &str,
    claims: &[(&'static str, String)],
    about: &Tenant,
) -> (String, Vec<u8>) {
    fn of<T>(message: T, token: &str, claims: &[(&'static str, String)]) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        for (name, value) in claims {
            request.metadata_mut().append(*name, value.parse().expect("a header"));
        }
        request
    }
    let query =
        ["{}".to_owned(), format!("{{service=\"{}\"}}", about.service)].choose(&mut rand::rng()).expect("some").clone();
    let selection = || Some(Selection { query: query.clone(), r#type: "cpu".to_owned(), ..Selection::default() });
    let question = format!("{query} {}", about.id);
    macro_rules! ask {
        ($call:ident, $message:expr) => {{
            let answer = client.$call(of($message, as_whom, claims)).await;
            answer.map(|answer| format!("{:?}", answer.into_inner()))
        }};
    }
    let answer = match rand::random_range(0..10) {
        0 => ask!(search, v1::SearchRequest { selection: selection(), ..Default::default() }),
        1 => ask!(services, v1::ServicesRequest { selection: selection() }),
        2 => ask!(label_values, v1::LabelValuesRequest { name: "secret".to_owned(), selection: selection() }),
        3 => ask!(label_names, v1::LabelNamesRequest { selection: selection() }),
        4 => ask!(top, v1::TopRequest { selection: selection(), by: vec!["secret".to_owned()], ..Default::default() }),
        5 => ask!(
            series,
            v1::SeriesRequest { selection: selection(), by: vec!["secret".to_owned()], ..Default::default() }
        ),
        6 => ask!(stats, v1::StatsRequest {}),
        7 => ask!(
            merge,
            v1::MergeRequest { selection: selection(), format: v1::MergeFormat::Folded.into(), ..Default::default() }
        ),
        8 => {
            let request = v1::GetProfileRequest { id: about.id.clone(), ..Default::default() };
            match client.get_profile(of(request, as_whom, claims)).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    return (question, [format!("{:?}", answer.info).as_bytes(), &answer.pprof].concat());
                }
                Err(status) => Err(status),
            }
        }
        _ => {
            let request = v1::MergeRequest {
                ids: vec![about.id.clone()],
                format: v1::MergeFormat::Top.into(),
                ..Default::default()
            };
            ask!(merge, request)
        }
    };
    (question, answer.unwrap_or_else(|status| status.message().to_owned()).into_bytes())
}

/// What was asked and what came of it.
#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    questions: AtomicUsize,
    own: AtomicUsize,
}

/// Asks as `caller`, about both; returns the answers that hold a mark of `other`.
async fn ask(
    url: String,
    caller: Tenant,
    other: Tenant,
    claims_of: fn(&Tenant) -> Vec<(&'static str, String)>,
    questions: usize,
    counts: Arc<Counts>,
) -> Vec<String> {
    let http = reqwest::Client::new();
    let mut client = QueryServiceClient::connect(url.clone()).await.expect("a connection");
    let mut leaks = Vec::new();
    // Each takes the next one.
    while counts.begun.fetch_add(1, Ordering::Relaxed) < questions {
        let claims = claims_of(&other);
        let about = if rand::random_range(0..4) == 0 { &caller } else { &other };
        let (question, answer) = if rand::random() {
            grpc(&mut client, &caller.token, &claims, about).await
        } else {
            let (question, mut request) = if rand::random_range(0..4) == 0 {
                let (path, body) = as_grafana(about);
                let request = http.post(format!("{url}{path}")).header("content-type", "application/json");
                (format!("{path} {body}"), request.body(body))
            } else {
                let path = path(about);
                let request = http.get(format!("{url}{path}"));
                (path, request)
            };
            request = request.bearer_auth(&caller.token);
            for (name, value) in &claims {
                request = request.header(*name, value);
            }
            let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
            (question, answer.to_vec())
        };
        counts.questions.fetch_add(1, Ordering::Relaxed);
        if !leaked(&caller, &question, &answer).is_empty() {
            counts.own.fetch_add(1, Ordering::Relaxed);
        }
        let marks = leaked(&other, &question, &answer);
        if !marks.is_empty() {
            leaks.push(format!("{question} with {claims:?}: {marks:?}"));
        }
    }
    leaks
}

fn token(folder: &std::path::Path, name: &str, tenant: &str) -> (Vec<u8>, String) {
    let path = folder.join(name);
    let mut command = Command::new(built("afterglow"));
    command.args(["token", "--name", name, "--role", "read,write", "--tenant", tenant, "--output"]).arg(&path);
    let done = output(command);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    (done.stdout, std::fs::read_to_string(path).expect("a file").trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_sees_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut entries = Vec::new();
    let mut made = |name: &str, tenant: &str| {
        let (entry, token) = token(folder.path(), name, tenant);
        entries.extend(entry);
        token
    };
    let tenant = |name, token, function, secret, service| Tenant {
        name,
        token,
        function,
        secret,
        service,
        id: Ulid::generate().to_string(),
    };
    let a = tenant("a", made("of-a", "a"), "mark__a_1", "secret-of-a", "checkout-of-a");
    let b = tenant("b", made("of-b", "b"), "mark__b_2", "secret-of-b", "checkout-of-b");
    let proxy = Tenant { token: made("proxy", "*"), ..a.clone() };
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, entries).expect("a file");
    let flags =
        ["serve", "--storage", "memory://", "--no-self-profile", "--auth.tokens-file", &file.display().to_string()];
    let server = Program::start("afterglow", &flags, &[]);

    let http = reqwest::Client::new();
    for tenant in [&a, &b] {
        let query = format!("service={}&type=cpu&id={}&label.secret={}", tenant.service, tenant.id, tenant.secret);
        let request = http.post(format!("{}/api/v1/profiles?{query}", server.url())).bearer_auth(&tenant.token);
        let answer = request.body(tiny_profile(tenant.function)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", answer.text().await.expect("a body"));
    }

    // That the marks are found where they may be.
    let seen = Arc::new(Counts::default());
    let as_b = |other: &Tenant| vec![("x-scope-orgid", other.name.to_owned())];
    let found = ask(server.url(), proxy, b.clone(), as_b, QUESTIONS / 10, Arc::clone(&seen)).await;
    assert!(found.len() > 20 && seen.own.load(Ordering::Relaxed) == 0, "{} of {seen:?} found a mark", found.len());

    let all = std::env::var("TENANT_QUESTIONS").ok().map_or(QUESTIONS, |count| count.parse().expect("a number"));
    let counts = Arc::new(Counts::default());
    let callers = (0..CALLERS).map(|n| {
        let (caller, other) = if n % 2 == 0 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        tokio::spawn(ask(server.url(), caller, other, forged, all, Arc::clone(&counts)))
    });
    for caller in callers.collect::<Vec<_>>() {
        assert_eq!(caller.await.expect("no panic"), [""; 0]);
    }
    let (questions, own) = (counts.questions.load(Ordering::Relaxed), counts.own.load(Ordering::Relaxed));
    assert_eq!(questions, all);
    assert!(own > 20, "only {own} of {questions} answers held what the caller may see");
    println!("{questions} questions, {own} answers with marks of the caller's own, none with the other's");
}
