//! `afterglow-agent` as a process: exit codes, and how it ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use afterglow_service::access::{Entry, Role};

const GOOD: &str = "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"127.0.0.1:1\"]\n";

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterglow-agent"));
    command.arg("--config").arg(config);
    command
}

fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_good_file_passes_the_check_and_a_bad_one_exits_78_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = agent(&file(&folder, GOOD)).arg("--check-config").output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{good:?}");

    let bad = file(&folder, "[[scrape_configs]]\njob_name = \"a\"\ntargets = [\"x\", \"y\"]\n");
    for flag in [Some("--check-config"), None] {
        let output = agent(&bad).args(flag).args(["--server", "ftp://x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        for said in ["\"x\" is not HOST:PORT", "\"y\" is not HOST:PORT", "ftp://x"] {
            assert!(text(&output).contains(said), "{output:?}");
        }
    }
    let unknown = agent(&file(&folder, &format!("{GOOD}intervall = 1\n"))).output().unwrap();
    assert_eq!(unknown.status.code(), Some(78));
    assert!(text(&unknown).contains("unknown field `intervall`"), "{unknown:?}");

    let missing = agent(&folder.path().join("nothing.toml")).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    let usage = Command::new(env!("CARGO_BIN_EXE_afterglow-agent")).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// Goal: what is printed is the file that gives what is in effect, without the secret, and nothing is scraped for it.
#[test]
fn what_print_config_shows_gives_the_same_settings() {
    let folder = tempfile::tempdir().unwrap();
    let given =
        format!("server = \"http://127.0.0.1:2\"\ntenant = \"a\"\ntoken = \"hunter2\"\n[labels]\ndc = \"x\"\n{GOOD}");
    let given = file(&folder, &given);
    let shown = |command: &mut Command| {
        let output = command.arg("--print-config").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let first = shown(agent(&given).args(["--queue", "1MiB"]).env("AFTERGLOW_TENANT", "b"));
    for line in [
        "server = \"http://127.0.0.1:2\" # file",
        "tenant = \"b\" # environment",
        "token = \"<secret>\" # file",
        "queue = \"1MiB\" # flag",
        "scrape_interval = \"15s\" # default",
        "# log-level = \"info\" # default",
        "dc = \"x\"",
        "job_name = \"a\"",
    ] {
        assert!(first.lines().any(|l| l == line), "{line} is missing in\n{first}");
    }
    assert!(!first.contains("hunter2"), "{first}");
    let without_origins = |text: &str| {
        let values = text.lines().map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value).to_owned());
        values.collect::<Vec<_>>()
    };
    let second = shown(&mut agent(&file(&folder, &first)));
    assert_eq!(without_origins(&second), without_origins(&first));

    let bad = agent(&file(&folder, "queue = 0\n")).arg("--print-config").output().unwrap();
    assert_eq!(bad.status.code(), Some(78), "{bad:?}");
}

#[test]
fn on_sigterm_it_ends_well_though_nothing_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = agent(&file(&folder, GOOD));
    let command = command.args(["--server", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("scraping")), "it begins to scrape");

    let asked = Instant::now();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    // Read on: a full pipe would hold the process up.
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(11));
}

/// Returns the status of an HTTP answer.
fn get(address: &str, path: &str, token: Option<&str>) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{token}connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Goal: an address that others can reach needs tokens or a word, as that of any server; with tokens, profiles of the agent are for those
/// with the role admin, and health and metrics for everybody.
#[test]
fn its_own_port_is_guarded_as_those_of_servers_are() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, &format!("listen = \"0.0.0.0:0\"\n{GOOD}"));
    let open = agent(&good).output().unwrap();
    assert_eq!(open.status.code(), Some(78));
    for said in ["listen 0.0.0.0:0 can be reached by others", "--listen-tls.client-ca-file FILE", "--insecure"] {
        assert!(text(&open).contains(said), "{open:?}");
    }
    let half = agent(&good).args(["--insecure", "--listen-tls.cert-file", "cert.pem"]).output().unwrap();
    assert!(text(&half).contains("listen-tls.cert-file is given without listen-tls.key-file"), "{half:?}");
    for flags in [&["--insecure"][..], &["--listen", "127.0.0.1:0"]] {
        let checked = agent(&good).args(flags).arg("--check-config").output().unwrap();
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    }

    let (mut tokens, mut secrets) = (String::new(), Vec::new());
    for role in [Role::Admin, Role::Write] {
        let (secret, entry) = Entry::generate(format!("{role:?}"), vec![role], vec!["a".to_owned()]).unwrap();
        tokens.push_str(&entry.to_toml());
        secrets.push(secret.reveal().to_owned());
    }
    let tokens_file = folder.path().join("tokens.toml");
    std::fs::write(&tokens_file, tokens).unwrap();
    let mut command = agent(&good);
    command.args(["--server", "http://127.0.0.1:1", "--log-format", "json", "--auth.tokens-file"]).arg(&tokens_file);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listens = lines.find(|line| line.contains("afterglow-agent listens")).expect("it says where it listens");
    let port: u16 = listens.split("0.0.0.0:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let address = format!("127.0.0.1:{port}");
    for (path, token, status) in [
        ("/healthz", None, 200),
        ("/metrics", None, 200),
        ("/debug/pprof/", None, 401),
        ("/debug/pprof/heap", None, 401),
        ("/debug/pprof/", Some(&secrets[1]), 403),
        ("/debug/pprof/", Some(&secrets[0]), 200),
    ] {
        assert_eq!(get(&address, path, token.map(String::as_str)), status, "{path}");
    }
    child.kill().unwrap();
    lines.for_each(drop);
    child.wait().unwrap();
}

/// Goal: whoever gives TLS for the agent's own address, and no address, is told so, as a check and as a start.
#[test]
fn tls_of_its_own_port_needs_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, GOOD);
    let names = ["listen-tls.cert-file", "listen-tls.key-file", "listen-tls.client-ca-file"];
    for flag in [Some("--check-config"), None] {
        for given in [&names[..], &names[..2], &names[1..2], &names[2..]] {
            let tls = given.iter().flat_map(|name| [format!("--{name}"), "a.pem".to_owned()]);
            let output = agent(&good).args(flag).args(["--server", "http://127.0.0.1:1"]).args(tls).output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{given:?}: {output:?}");
            for name in names {
                let is_said = text(&output).contains(&format!("{name} is given without listen"));
                assert_eq!(is_said, given.contains(&name), "{given:?}: {output:?}");
            }
        }
    }
}

/// Goal: an agent scrapes a server of ours that has tokens, with one of the role admin, and says it to nobody else, however much it logs.
#[test]
fn it_scrapes_a_server_that_asks_for_a_token_and_never_logs_it() {
    let folder = tempfile::tempdir().unwrap();
    let (token, entry) = Entry::generate("scraper".into(), vec![Role::Admin], vec!["anonymous".into()]).unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("tokens.toml"), entry.to_toml()).unwrap();
    std::fs::write(at("token"), token.reveal()).unwrap();
    let begin = |config: &Path, more: &[&str]| {
        let mut command = agent(config);
        let command = command.args(["--server", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"]).args(more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said = Vec::new();
        let listens = lines.by_ref().inspect(|line| said.push(line.clone())).find(|line| line.contains("listens"));
        let listens = listens.unwrap();
        let port = listens.split("127.0.0.1:").nth(1).unwrap();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        (child, lines, said, format!("127.0.0.1:{port}"))
    };
    let tokens = at("tokens.toml");
    let (mut target, target_lines, _, address) =
        begin(&file(&folder, GOOD), &["--auth.tokens-file", tokens.to_str().unwrap()]);
    let drain = std::thread::spawn(|| target_lines.for_each(drop));
    assert_eq!(get(&address, "/debug/pprof/", None), 401, "a target that asks for a token");

    let job = format!(
        "scrape_interval = \"1s\"\n[[scrape_configs]]\njob_name = \"guarded\"\ntargets = [\"{address}\"]\n\
         profiles = [{{ type = \"cpu\", seconds = 1 }}]\nauthorization = {{ credentials_file = {:?} }}\n",
        at("token")
    );
    std::fs::write(at("scraper.toml"), job).unwrap();
    let (mut scraper, lines, mut said, _) = begin(&at("scraper.toml"), &["--log-level", "trace"]);
    let mut lines = lines.inspect(|line| said.push(line.clone()));
    assert!(lines.any(|line| line.contains("scraped") || line.contains("cannot scrape")), "a scrape ends");
    for child in [&scraper, &target] {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    }
    lines.for_each(drop);
    for child in [&mut scraper, &mut target] {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    drain.join().unwrap();
    let said = said.join("\n");
    assert!(said.contains("scraped") && !said.contains("cannot scrape"), "{said}");
    assert!(!said.contains(token.reveal()), "{said}");
}
