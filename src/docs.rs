//! docs/configuration.md, and the list of known environment variables, are made from the commands themselves, docs/metrics.md from what the
//! programs register, docs/refusals.md from what servers on real ports answered in golden tests; this shows that they are current, or renews
//! them (`make docs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use afterglow_service::Metrics;
use afterglow_service::access::{Entry, Role};
use afterglow_service::config::{reference, variables};
use clap::{CommandFactory as _, Parser as _};

fn programs() -> [clap::Command; 4] {
    [
        super::Program::command(),
        afterglow_ingester::Settings::command(),
        afterglow_querier::Settings::command(),
        afterglow_agent::program::Settings::command(),
    ]
}

/// Shows that the file says `want`, or makes it say so.
#[expect(clippy::disallowed_methods, reason = "whether to renew is no setting of the program")]
fn assert_current(file: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("AFTERGLOW_RENEW").is_some() {
        std::fs::write(&path, want).unwrap_or_else(|error| panic!("{file} cannot be written: {error}"));
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == want, "{file} is not current: run `make docs` and read the diff");
}

#[test]
fn the_reference_of_settings_is_current() {
    assert_current("docs/configuration.md", &reference(programs()));
}

/// Goal: whoever reads a manual page learns of each setting what it is called in the environment.
#[test]
fn manual_pages_name_the_variable_of_each_setting() {
    fn check(folder: &Path, name: &str, command: &clap::Command) -> usize {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        let below: usize = inner.map(|inner| check(folder, &format!("{name}-{}", inner.get_name()), inner)).sum();
        let page = std::fs::read_to_string(folder.join(format!("{name}.1"))).expect("each command has a page");
        let own = command.clone().mut_subcommands(|inner| clap::Command::new(inner.get_name().to_owned()));
        let mut named = 0;
        for variable in variables([own]).lines() {
            assert!(page.contains(&format!("[env: {variable}]")), "{name}.1 does not name {variable}:\n{page}");
            named += 1;
        }
        below + named
    }
    let folder = tempfile::tempdir().expect("a folder");
    super::write_manual(folder.path()).expect("pages");
    let named = check(folder.path(), "afterglow", &super::Program::command());
    assert!(named > 300, "{named} settings");
}

#[test]
fn the_known_environment_variables_are_those_of_the_settings() {
    assert_current("service/src/config/variables.txt", &variables(programs()));
}

/// What precedes the table of metrics.
const METRICS_HEAD: &str = "\
# Metrics

<!-- Generated from what the programs register; the test that checks it says how to renew it. -->

Every process has these at `/metrics`, in the text of OpenMetrics, which Prometheus reads; the agent where it has a port of its own (`listen`). All are in
base units: seconds and bytes. Labels have few values each, and never those of a user's labels. A counter counts from the start of the process. A histogram `NAME`
is the series `NAME_bucket` (with the label `le`), `NAME_sum` and `NAME_count`. A series comes with the first event that it counts where it is not there from the
start. The metrics of the process, `process_…`, are there where there is `/proc`.

A program of the last but one column is `agent`, `ingester` (which maintains the bucket, too, unless `--roles` says otherwise), `maintain` (an ingester with
`--roles maintain`), `querier`, or `serve`, which is all but the agent in one process. `afterglow_access_…` are there where `--auth.tokens-file` is given,
but for `afterglow_access_refusals_total`, which is there everywhere.

";

/// A metric as it comes out of the encoder.
#[derive(Default)]
struct Exposed {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    programs: Vec<&'static str>,
}

/// Adds what `program` exposes.
fn collect(found: &mut BTreeMap<String, Exposed>, program: &'static str, metrics: &Metrics) {
    let registered = metrics.register(|registry| format!("{registry:?}"));
    // The encoder leaves out families without series, and their own description of themselves is the only thing that tells of them.
    let (family, empty) = ("Family { metrics: RwLock { data: {", "Family { metrics: RwLock { data: {}");
    assert!(registered.contains(family), "families are described in other words than here: {registered}");
    if let Some((before, _)) = registered.split_once(empty) {
        let name = before.rsplit("name: \"").next().and_then(|rest| rest.split('"').next());
        panic!("{program}: the metric {name:?} has no series at the start, so nobody would see it: begin one at zero");
    }
    let text = metrics.text().expect("text");
    let mut help = "";
    let mut name = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect("a help has a name").1.trim_end_matches('.');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (family, kind) = rest.split_once(' ').expect("a type has a name");
            name = if kind == "counter" { format!("{family}_total") } else { family.to_owned() };
            let exposed = found.entry(name.clone()).or_default();
            let (kind, help) = (kind.to_owned(), help.to_owned());
            assert!(
                exposed.programs.is_empty() || (&exposed.kind, &exposed.help) == (&kind, &help),
                "{name} is two things"
            );
            assert!(exposed.programs.last() != Some(&program), "{program} registers {name} twice");
            (exposed.kind, exposed.help) = (kind, help);
            exposed.programs.push(program);
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&name), "{line} is not of {name}");
            found.get_mut(&name).expect("a series follows its type").labels.extend(labels_of(line));
        }
    }
}

/// Returns the names of the labels of a series; `le` is the histogram's own.
fn labels_of(series: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = series.split_once('{').map_or("", |(_, rest)| rest);
    while let Some((name, value)) = rest.split_once("=\"") {
        names.push(name.trim_start_matches(',').to_owned());
        let mut is_escaped = false;
        let end = value.find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        rest = &value[end.expect("a value ends") + 1..];
    }
    names.retain(|name| name != "le");
    names
}

#[test]
fn labels_are_read_whatever_is_in_their_values() {
    assert_eq!(labels_of(r#"a_bucket{x="1,y=\"2\"",route="/a/{b}",le="+Inf"} 7"#), ["x", "route"]);
    assert_eq!(labels_of("a_total 7"), [""; 0]);
}

/// Goal: whoever writes an alert or a dashboard finds each metric that there is, under the name by which it is asked for.
#[tokio::test]
async fn the_reference_of_metrics_is_current() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let (_, entry) =
        Entry::generate("docs".to_owned(), vec![Role::Read], vec!["anonymous".to_owned()]).expect("a token");
    std::fs::write(at("tokens.toml"), entry.to_toml()).expect("tokens");
    std::fs::write(at("agent.toml"), "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"127.0.0.1:9\"]\n")
        .expect("a file");
    std::fs::create_dir(at("bucket")).expect("a bucket");

    let (tokens, storage) = (at("tokens.toml"), format!("file://{}", at("bucket")));
    let guarded = ["--listen", "127.0.0.1:0", "--auth.tokens-file", &tokens];
    let server = |first: &[&'static str]| {
        let at = ["--drain-delay", "0s", "--storage", &storage];
        first.iter().copied().chain(guarded).chain(at).map(str::to_owned).collect::<Vec<_>>()
    };
    let agent = ["afterglow-agent", "--config", &at("agent.toml"), "--no-self-profile"].map(str::to_owned);
    let agent = agent.into_iter().chain(guarded.map(str::to_owned));
    let ingester = |first: &[&'static str]| afterglow_ingester::Settings::parse_from(server(first));
    let querier = afterglow_querier::Settings::parse_from(server(&["afterglow-querier"]));
    let serve = super::Program::parse_from(server(&["afterglow", "serve", "--no-self-profile"]));
    let super::Command::Serve(serve) = serve.command else { panic!("another command") };

    let mut found = BTreeMap::new();
    let agent = afterglow_agent::program::Settings::parse_from(agent);
    collect(&mut found, "agent", &afterglow_agent::program::registered(agent).await.expect("an agent"));
    let both = ingester(&["afterglow-ingester"]);
    collect(&mut found, "ingester", &afterglow_ingester::program::registered(both).await.expect("an ingester"));
    let alone = ingester(&["afterglow-ingester", "--roles", "maintain"]);
    collect(&mut found, "maintain", &afterglow_ingester::program::registered(alone).await.expect("an ingester"));
    collect(&mut found, "querier", &afterglow_querier::program::registered(querier).await.expect("a querier"));
    collect(&mut found, "serve", &super::serve::registered(*serve).await.expect("all in one"));

    let mut text = METRICS_HEAD.to_owned() + "| metric | type | labels | programs | meaning |\n|---|---|---|---|---|\n";
    for (name, Exposed { kind, help, labels, programs }) in &found {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let programs = if programs.len() == 5 { "all".to_owned() } else { programs.join(", ") };
        // A bar would end the cell.
        let help = help.replace('|', "\\|");
        text.push_str(&format!("| `{name}` | {kind} | {} | {programs} | {help} |\n", labels.join(", ")));
    }
    assert_current("docs/metrics.md", &text);
}

/// What precedes the tables of refusals.
const REFUSALS_HEAD: &str = "\
# Refusals

<!-- Generated from the golden files of the tests of refusals; the test that checks it says how to renew it. -->

What a server refuses, in which words, and what it lets pass that one might not expect. Each row is what a real server on a real port answered in a test
(`ingester/tests/refusals.rs`, `querier/tests/questions/refusals.rs`), by every way that leads there: where several do, all gave the same answer. So a row changes
with the product or not at all.

Over HTTP the text is in the body, `{\"error\":{\"code\":…,\"message\":…,\"details\":[…]}}`. Where a retry can help, and nowhere else, the answer says when to come back:
`Retry-After` over HTTP, `google.rpc.RetryInfo` in the details. Every answer carries `x-request-id`: the client's own, or a fresh one. The last column has the settings
of [configuration.md](configuration.md) that change what is refused.

What is no request yet is refused before any of this, with a status and no `x-request-id`: a head larger than 64 KiB (431, without a body), and plain text on a port that speaks TLS (400). And whatever takes
longer than `--limits.request-timeout` ends with `DEADLINE_EXCEEDED` or 408, `no answer within 1m (--limits.request-timeout)`, be it the work or a body that comes byte by byte.

Of an answer that nothing is taken of for `--limits.stall-timeout` no more is sent: its connection ends. Until then it counts as its question did (`--query.memory`); what no question pays for, such as `/metrics` and
the pages of the UI, may come to 64 MiB that wait, beyond which who asks is told `RESOURCE_EXHAUSTED` or 429, `answers that their clients do not take fill the 64 MiB that there are for them`, and to come back after
one to three seconds.
";

/// The golden files of refusals.
const INGESTER: &str = "ingester/tests/snapshots";
const QUERIER: &str = "querier/tests/questions/snapshots";

/// What rows are pushed by where nothing else is said.
const PUSHES: &str = "Pushed whole on a stream (`Push`), in chunks on a stream, by a call (`PushProfile`), and over HTTP (`POST /api/v1/profiles`).";

/// Each golden file, the heading of its table, and by which ways it was asked.
const REFUSALS: [(&str, &str, &str, &str); 16] = [
    (INGESTER, "bytes_of_profiles", "The bytes of a profile", PUSHES),
    (INGESTER, "limits", "Sizes", "Pushed likewise, with limits as small as the rows say."),
    (INGESTER, "retention", "What retention would delete", PUSHES),
    (INGESTER, "names", "Names, labels, ids, tenants", PUSHES),
    (INGESTER, "ids", "Ids that come again", PUSHES),
    (INGESTER, "streams", "Streams", "`Push` alone. After each the same stream takes a good profile."),
    (INGESTER, "stalls", "Clients that stop", "By the ways that the rows say, with a time-out of 200 ms."),
    (INGESTER, "raw_grpc", "Messages that no client library sends", "gRPC alone, byte by byte."),
    (INGESTER, "http", "Parameters and encodings", "`POST /api/v1/profiles` alone."),
    (INGESTER, "rates", "Too much at once", PUSHES),
    (INGESTER, "trouble", "Trouble", PUSHES),
    (INGESTER, "access", "Who may not send", PUSHES),
    (INGESTER, "plain_http", "Headers", "HTTP/1.1 and HTTP/2 without any library of ours, as curl does."),
    (QUERIER, "ids", "Profiles that are not there", "`GetProfile` and `GET /api/v1/profiles/ID`."),
    (
        QUERIER,
        "askers",
        "Who may not ask",
        "`GetProfile` and `GET /api/v1/profiles/ID`; the last one by `Search` and its like.",
    ),
    (
        QUERIER,
        "grafana",
        "What Grafana asks in vain",
        "`POST /querier.v1.QuerierService/…`, with Connect's codes in place of gRPC's. Refusals that have nothing to do with the question are as above, \
         likewise in Connect's words.",
    ),
];

/// A row of a golden file: what was sent, then what came back, the first line of which is `CODE [STATUS] [(R)] TEXT`.
fn refusal_row(name: &str, answer: &[&str]) -> String {
    let (first, more) = answer.split_first().expect("an answer");
    let (code, rest) = first.split_once(' ').unwrap_or((first, ""));
    let status = rest.split(' ').next().filter(|word| word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()));
    let rest = status.map_or(rest, |status| rest[status.len()..].trim_start());
    let (retry, text) = rest.strip_prefix("(R)").map_or(("", rest), |text| ("yes", text.trim_start()));
    // Flags, each once: in the text, where they are named to be changed.
    let mut flags: Vec<&str> = text
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)))
        .filter(|word| word.strip_prefix("--").is_some_and(|flag| flag.starts_with(|c: char| c.is_ascii_lowercase())))
        .collect();
    flags.dedup();
    let flags: Vec<_> = flags.iter().map(|flag| format!("`{flag}`")).collect();
    let code_of =
        |text: &str| if text.is_empty() { String::new() } else { format!("`` {} ``", text.replace('|', "\\|")) };
    let texts: Vec<_> =
        std::iter::once(text).chain(more.iter().copied()).map(code_of).filter(|t| !t.is_empty()).collect();
    let name = name.replace('|', "\\|");
    format!(
        "| {name} | `{code}` | {} | {retry} | {} | {} |\n",
        status.unwrap_or_default(),
        texts.join("<br>"),
        flags.join(", ")
    )
}

#[test]
fn rows_of_refusals_are_read() {
    let row = refusal_row("a|b", &["RESOURCE_EXHAUSTED 413 body 2 MiB exceeds max_body 1 MiB (--limits.max-body)"]);
    let text = "`` body 2 MiB exceeds max_body 1 MiB (--limits.max-body) ``";
    assert_eq!(row, format!("| a\\|b | `RESOURCE_EXHAUSTED` | 413 |  | {text} | `--limits.max-body` |\n"));
    let row = refusal_row("a", &["UNAVAILABLE 503 (R) not stored", "retry-after: <SECONDS>"]);
    assert_eq!(row, "| a | `UNAVAILABLE` | 503 | yes | `` not stored ``<br>`` retry-after: <SECONDS> `` |  |\n");
    assert_eq!(refusal_row("a", &["OK 200"]), "| a | `OK` | 200 |  |  |  |\n");
    assert_eq!(refusal_row("a", &["OK"]), "| a | `OK` |  |  |  |  |\n");
}

/// Goal: whoever gets a refusal finds it in the docs, with what to do, and the docs say nothing that no server answered.
#[test]
fn the_reference_of_refusals_is_current() {
    let mut text = REFUSALS_HEAD.to_owned();
    let mut rows = 0;
    for (folder, name, heading, ways) in REFUSALS {
        let file = if folder == QUERIER {
            format!("questions__refusals__{name}.snap")
        } else {
            format!("refusals__{name}.snap")
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(&file);
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (_, lines) = golden.split_once("\n---\n").expect("a golden file has a head");
        text.push_str(&format!("\n## {heading}\n\n{ways}\n\n"));
        text.push_str("| what | gRPC | HTTP | retry | text | setting |\n|---|---|---|---|---|---|\n");
        let mut lines = lines.lines().peekable();
        while let Some(what) = lines.next() {
            assert!(!what.starts_with(' '), "{file}: {what} answers nothing");
            let answer: Vec<_> =
                std::iter::from_fn(|| lines.next_if(|line| line.starts_with(' '))).map(str::trim).collect();
            text.push_str(&refusal_row(what, &answer));
            rows += 1;
        }
    }
    assert!(rows > 150, "{rows} rows");
    for folder in [INGESTER, QUERIER] {
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("golden files");
        for file in files.map(|file| file.expect("a file").file_name().into_string().expect("a name")) {
            let name = file.split_once("refusals__").and_then(|(_, name)| name.strip_suffix(".snap"));
            let is_known = |name| REFUSALS.iter().any(|row| (row.0, row.1) == (folder, name));
            assert!(name.is_none_or(is_known), "{folder}/{file} is in no table of docs/refusals.md");
        }
    }
    assert_current("docs/refusals.md", &text);
}
