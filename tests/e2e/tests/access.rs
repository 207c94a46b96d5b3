//! Tokens from the command line to the port: made, presented by every kind of client, taken back; and what does not start without them.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for programs that cannot wake it, and has its own environment"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use afterglow_e2e::{Program, built, output, tiny_profile};
use tempfile::TempDir;

/// How long what is taken within seconds may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file of tokens, and the tokens in files of their own.
struct Tokens {
    folder: TempDir,
}

impl Tokens {
    fn of(tokens: &[(&str, &str, &str)]) -> Self {
        let made = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let entries: Vec<u8> = tokens.iter().flat_map(|(name, roles, tenant)| made.make(name, roles, tenant)).collect();
        std::fs::write(made.file(), entries).expect("a file");
        made
    }

    /// Makes a token and returns its entry.
    fn make(&self, name: &str, roles: &str, tenant: &str) -> Vec<u8> {
        let path = self.path(name);
        let flags = ["--name", name, "--role", roles, "--tenant", tenant, "--output"];
        let mut command = Command::new(built("afterglow"));
        let done = output({
            command.arg("token").args(flags).arg(&path);
            command
        });
        assert!(done.status.success(), "{}", stderr(&done));
        done.stdout
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tokens.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file").trim().to_owned()
    }

    fn serve(&self) -> Program {
        let file = self.file().display().to_string();
        let args = ["serve", "--storage", "memory://", "--self-profile-period", "1s", "--auth.tokens-file", &file];
        Program::start("afterglow", &args, &[])
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn client(server: &Program, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(built("afterglow"));
    command.args(args).env("AFTERGLOW_SERVER", server.url()).envs(env.iter().copied());
    output(command)
}

fn profile(folder: &Path) -> String {
    let path = folder.join("cpu.pb");
    std::fs::write(&path, tiny_profile("some_work")).expect("a file");
    path.display().to_string()
}

/// Goal: a token does what its roles say and nothing else, whichever client presents it; the server's own profiles still come in.
#[test]
fn a_token_made_by_hand_opens_its_doors() {
    let tokens = Tokens::of(&[("agents", "write", "a"), ("team", "read", "a"), ("own", "read", "anonymous")]);
    let server = tokens.serve();
    let file = profile(tokens.folder.path());
    let push = ["push", &file, "--service", "s", "--type", "cpu"];
    let [agents, team, own] = ["agents", "team", "own"].map(|name| tokens.secret(name));

    let refused = client(&server, &push, &[]);
    assert!(stderr(&refused).contains("a token is needed"), "{}", stderr(&refused));
    let refused = client(&server, &push, &[("AFTERGLOW_TOKEN", &team)]);
    assert!(stderr(&refused).contains("token \"team\" does not have the role write"), "{}", stderr(&refused));
    let path = tokens.path("agents").display().to_string();
    let pushed = client(&server, &[&push[..], &["--token-file", &path]].concat(), &[]);
    assert!(pushed.status.success(), "{}", stderr(&pushed));

    for args in [
        &["search", "{service=\"s\"}"][..],
        &["merge", "{service=\"s\"}", "--type", "cpu", "--format", "top"],
        &["series", "{service=\"s\"}", "--type", "cpu"],
        &["labels"],
        &["stats"],
    ] {
        let answer = client(&server, args, &[("AFTERGLOW_TOKEN", &team)]);
        assert!(answer.status.success(), "{args:?}: {}", stderr(&answer));
        let refused = client(&server, args, &[("AFTERGLOW_TOKEN", &agents)]);
        assert!(stderr(&refused).contains("does not have the role read"), "{args:?}: {}", stderr(&refused));
    }
    let refused = client(&server, &["search"], &[("AFTERGLOW_TOKEN", &team), ("AFTERGLOW_TENANT", "b")]);
    assert!(stderr(&refused).contains("token \"team\" is not for tenant \"b\""), "{}", stderr(&refused));

    let start = Instant::now();
    loop {
        let found =
            client(&server, &["search", "{service=\"afterglow\"}", "--output", "json"], &[("AFTERGLOW_TOKEN", &own)]);
        if String::from_utf8_lossy(&found.stdout).contains("\"service\"") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no profile of the server itself: {}\n{}", stderr(&found), server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    for token in [&agents, &team, &own] {
        assert!(!server.log().contains(token.as_str()), "a token is in the log");
    }
    assert!(server.log().contains("\"target\":\"audit\""), "{}", server.log());
}

/// Goal: a token that is taken out of the file is refused within seconds, and one that is put in let in, without a restart.
#[test]
fn a_token_is_taken_back_while_the_server_runs() {
    let tokens = Tokens::of(&[("old", "read", "a")]);
    let server = tokens.serve();
    let entry = tokens.make("new", "read", "a");
    let [old, new] = ["old", "new"].map(|name| tokens.secret(name));
    let is_let_in = |token: &str| client(&server, &["search"], &[("AFTERGLOW_TOKEN", token)]).status.success();
    assert!(is_let_in(&old) && !is_let_in(&new));
    std::fs::write(tokens.file(), entry).expect("a file");
    let start = Instant::now();
    while is_let_in(&old) || !is_let_in(&new) {
        assert!(start.elapsed() < PATIENCE, "the file is not followed:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Goal: nobody opens a port to others by oversight.
#[test]
fn an_open_address_without_a_word_about_access_is_refused() {
    let open = ["--storage", "memory://", "--check-config"];
    for program in [&["serve", "--listen", "0.0.0.0:0"][..], &["ingester"], &["querier", "--listen", "[::]:4200"]] {
        let run = |more: &[&str]| {
            let mut command = Command::new(built("afterglow"));
            command.args(program).args(open).args(more);
            output(command)
        };
        let done = run(&[]);
        assert_eq!(done.status.code(), Some(78), "{program:?}: {}", stderr(&done));
        for part in ["--auth.tokens-file", "--insecure", "--listen 127.0.0.1:"] {
            assert!(stderr(&done).contains(part), "{program:?}: {}", stderr(&done));
        }
        assert!(run(&["--insecure"]).status.success());
        let done = run(&["--auth.tokens-file", "/nowhere/tokens.toml"]);
        assert_eq!(done.status.code(), Some(78), "{program:?}: {}", stderr(&done));
        assert!(stderr(&done).contains("auth.tokens-file /nowhere/tokens.toml: cannot be read"), "{}", stderr(&done));
    }
}
