//! Which program runs: each says the same of itself on the command line, over its port, as a metric and in its log.

use std::process::Command;

use afterglow_e2e::{Program, built, output, workspace};

/// Returns the revision that a program says behind its name and version.
fn revision(program: &str, args: &[&str], name: &str) -> String {
    let mut command = Command::new(built(program));
    command.args(args).arg("--version");
    let said = String::from_utf8(output(command).stdout).expect("text");
    let version = format!("{name} {} (", env!("CARGO_PKG_VERSION"));
    let revision = said.trim_end().strip_prefix(&version).and_then(|rest| rest.strip_suffix(')'));
    revision.unwrap_or_else(|| panic!("{program} {args:?} says {said:?}")).to_owned()
}

/// Says whether git knows the programs' sources; an archive has none.
fn is_in_git() -> bool {
    let mut git = Command::new("git");
    git.current_dir(workspace()).args(["ls-files", "--error-unmatch", "Cargo.toml"]);
    ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"].iter().for_each(|name| _ = git.env_remove(name));
    git.output().is_ok_and(|done| done.status.success())
}

#[test]
fn a_program_says_everywhere_what_it_is_built_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().join("data").display());
    let config = folder.path().join("agent.toml");
    let job = "[[scrape_configs]]\njob_name = \"nobody\"\ntargets = [\"127.0.0.1:1\"]\n";
    std::fs::write(&config, format!("server = \"http://127.0.0.1:1\"\n{job}")).expect("a file");
    let storage = ["--no-self-profile", "--storage", &storage];
    let config = ["--no-self-profile", "--config", config.to_str().expect("text")];
    for (program, command, name, flags) in [
        ("afterglow", &["serve"][..], "afterglow", storage),
        ("afterglow", &["ingester"], "afterglow-ingester", storage),
        ("afterglow", &["querier"], "afterglow-querier", storage),
        ("afterglow", &["agent"], "afterglow-agent", config),
        ("afterglow-ingester", &[], "afterglow-ingester", storage),
        ("afterglow-querier", &[], "afterglow-querier", storage),
        ("afterglow-agent", &[], "afterglow-agent", config),
    ] {
        // A command is shown behind the program that it is of.
        let said = revision(program, command, &[&[program], command].concat().join("-"));
        assert!(!is_in_git() || said != "unknown", "{program} is built in a repository");
        let server = Program::start(program, &[command, &flags].concat(), &[]);
        let version: serde_json::Value = serde_json::from_str(&server.get("/version").1).expect("JSON");
        assert_eq!((version["name"].as_str(), version["revision"].as_str()), (Some(name), Some(&*said)));
        let (metrics, metric) = (server.get("/metrics").1, format!("revision=\"{said}\""));
        assert!(metrics.lines().any(|line| line.starts_with("afterglow_build_info{") && line.contains(&metric)));
        assert!(server.log().contains(&format!("\"revision\":\"{said}\"")), "{}", server.log());
    }
}
