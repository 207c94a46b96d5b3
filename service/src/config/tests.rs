//! Goal: whatever is written wherever, the program starts with what was meant or says all that is wrong.

use clap::Parser;

use super::*;
use crate::listen;
use crate::telemetry::{self, LogFormat};

#[derive(Parser, Clone, Debug, PartialEq)]
#[command(name = "afterglow-test", version, about = "Tests settings")]
struct Config {
    #[command(flatten)]
    source: Source,
    /// Where profiles lie
    #[arg(long, value_name = "URL")]
    storage: String,
    /// What this process does
    #[arg(long, value_name = "ROLE", default_values = ["ingest", "maintain"], value_delimiter = ',')]
    roles: Vec<String>,
    /// Leaves the process itself alone
    #[arg(long)]
    no_self_profile: bool,
    /// Lets in whoever has it
    #[arg(long, value_name = "TOKEN")]
    token: Option<Secret>,
    #[command(flatten)]
    listen: listen::Options,
    #[command(flatten)]
    telemetry: telemetry::Options,
}

impl Settings for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.listen.limits.problems();
        if self.storage == "ftp://x" {
            problems.push("storage `ftp://x`: scheme ftp is not known".to_owned());
        }
        problems
    }
}

struct Setup {
    arguments: Vec<OsString>,
    environment: BTreeMap<String, OsString>,
    /// Holds the file until the test is over.
    folder: tempfile::TempDir,
}

impl Setup {
    fn new(arguments: &[&str]) -> Self {
        let arguments =
            std::iter::once("afterglow-test").chain(arguments.iter().copied()).map(OsString::from).collect();
        Self { arguments, environment: BTreeMap::new(), folder: tempfile::tempdir().expect("a folder") }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("afterglow.toml");
        std::fs::write(&path, text).expect("a file");
        self.arguments.extend([OsString::from("--config"), path.into()]);
        self
    }

    fn resolve<C: Settings>(&self) -> Result<C, Exit> {
        resolve("abc", self.arguments.clone(), &self.environment)
    }

    fn config(&self) -> Config {
        self.resolve().unwrap_or_else(|exit| panic!("{exit:?}"))
    }

    /// What is wrong, without the folder of this run.
    fn problems(&self) -> Vec<String> {
        match self.resolve::<Config>() {
            Err(Exit::Bad(problems)) => {
                let folder = format!("{}/", self.folder.path().display());
                problems.iter().map(|problem| problem.replace(&folder, "")).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn shown(&self) -> String {
        match self.resolve::<Config>() {
            Err(Exit::Shown(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

const FILE: &str = r#"
storage = "file:///from-file"
roles = ["ingest"]
log-format = "json"
no-self-profile = true

[limits]
max-body = "1MiB"
max-connections = 7
"#;

#[test]
fn defaults_run_with_what_is_required_only() {
    let config = Setup::new(&["--storage", "memory://"]).config();
    assert_eq!(config.storage, "memory://");
    assert_eq!(config.roles, ["ingest", "maintain"]);
    assert_eq!(config.listen.limits.body_bytes_max, ByteSize::mib(32));
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    assert!(!config.no_self_profile);
}

/// Goal: flags over environment over file over default, for each kind of value.
#[test]
fn each_layer_goes_over_the_next() {
    let file = Setup::new(&[]).file(FILE).config();
    assert_eq!(file.storage, "file:///from-file");
    assert_eq!(file.roles, ["ingest"]);
    assert_eq!(file.listen.limits.body_bytes_max, ByteSize::mib(1));
    assert_eq!(file.listen.limits.connections_max, 7);
    assert_eq!(file.telemetry.log_format, LogFormat::Json);
    assert!(file.no_self_profile);

    let environment = Setup::new(&[])
        .file(FILE)
        .env("AFTERGLOW_LIMITS_MAX_BODY", "2MiB")
        .env("AFTERGLOW_ROLES", "maintain,ingest")
        .env("AFTERGLOW_NO_SELF_PROFILE", "0")
        .env("AFTERGLOW_LOG_FORMAT", "");
    let config = environment.config();
    assert_eq!(config.listen.limits.body_bytes_max, ByteSize::mib(2));
    assert_eq!(config.roles, ["maintain", "ingest"]);
    assert!(!config.no_self_profile);
    assert_eq!(config.telemetry.log_format, LogFormat::Json, "an empty variable is not set");
    assert_eq!(config.storage, "file:///from-file");

    let flags = Setup::new(&["--limits.max-body", "3MiB", "--roles", "ingest", "--storage", "memory://"])
        .file(FILE)
        .env("AFTERGLOW_LIMITS_MAX_BODY", "2MiB");
    let config = flags.config();
    assert_eq!(config.listen.limits.body_bytes_max, ByteSize::mib(3));
    assert_eq!(config.roles, ["ingest"]);
    assert_eq!(config.storage, "memory://");
}

#[test]
fn the_environment_may_name_the_file() {
    let named = Setup::new(&[]).file(FILE);
    let [.., path] = named.arguments.as_slice() else { panic!("the file is the last argument") };
    let path = path.to_str().expect("a path").to_owned();
    let config = Setup::new(&[]).env("AFTERGLOW_CONFIG", &path).config();
    assert_eq!(config.listen.limits.connections_max, 7);
}

/// Goal: one start shows all there is to mend, each with its place.
#[test]
fn all_problems_are_reported_together() {
    let setup = Setup::new(&["--storage", "ftp://x"])
        .file(
            r#"
            storag = "memory://"
            roles = [["a"]]
            log-level = ["info"]
            config = "other.toml"
            retention = "7d"
            no-self-profile = "perhaps"
            [limits]
            max-connections = "many"
            max-requests = 0
            [limits.max-body]
            bytes = 1
            "#,
        )
        .env("AFTERGLOW_LIMITS_MAX_BODY", "lots")
        .env("AFTERGLOW_LOG_FORMAT", "xml");
    insta::assert_snapshot!(setup.problems().join("\n"));
}

/// Goal: values on the command line are part of all that is wrong.
#[test]
fn refused_flags_are_reported_with_the_rest() {
    let setup = Setup::new(&["--storage", "memory://", "--limits.max-body=lots", "--limits.max-streams", "x"])
        .env("AFTERGLOW_LOG_FORMAT", "xml")
        .env("AFTERGLOW_LIMIT_MAX_BODY", "1MiB");
    let problems = setup.problems();
    assert_eq!(problems.len(), 4, "{problems:#?}");
    for part in ["--limits.max-body", "--limits.max-streams", "AFTERGLOW_LIMIT_MAX_BODY:", "AFTERGLOW_LOG_FORMAT:"] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    }
    let flags = Setup::new(&[
        "--storage",
        "memory://",
        "--limits.max-body=lots",
        "--roles",
        "ingest",
        "--limits.max-streams=x",
    ]);
    let Err(exit @ Exit::Values(_)) = flags.resolve::<Config>() else { panic!("two values are wrong") };
    assert_eq!(exit.code(), 2);
}

#[test]
fn help_and_usage_say_what_is_required() {
    for arguments in [&["--help"][..], &["--no-such-flag"]] {
        let Err(Exit::Usage(error)) = Setup::new(arguments).resolve::<Config>() else { panic!("usage") };
        assert!(error.to_string().contains("Usage: afterglow-test [OPTIONS] --storage <URL>"), "{error}");
    }
}

#[test]
fn the_version_says_what_the_program_is_built_from() {
    #[derive(Debug, Parser)]
    #[command(name = "afterglow-test", version = "1.2.3", propagate_version = true)]
    enum All {
        Tier(Box<Config>),
        Look,
    }
    impl Settings for All {}
    let of = |arguments: &[&str]| match Setup::new(arguments).resolve::<All>() {
        Err(Exit::Usage(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for flag in ["-V", "--version"] {
        assert_eq!(of(&[flag]), "afterglow-test 1.2.3 (abc)\n");
        assert_eq!(of(&["look", flag]), "afterglow-test-look 1.2.3 (abc)\n");
        let tier = concat!("afterglow-test-tier ", env!("CARGO_PKG_VERSION"), " (abc)\n");
        assert_eq!(of(&["tier", flag]), tier, "it has a version of its own");
    }
}

#[test]
fn a_file_that_is_none_is_said_so() {
    let broken = Setup::new(&["--storage", "memory://"]).file("limits = [");
    insta::assert_snapshot!(broken.problems().join("\n"));
    let missing = Setup::new(&["--storage", "memory://", "--config", "/nonexistent/afterglow.toml"]);
    insta::assert_snapshot!(missing.problems().join("\n"));
}

/// Symptom: what the parser says quoted the line, and with it a token that lacked its quotes.
#[test]
fn what_is_wrong_with_a_file_shows_no_secret() {
    let broken = Setup::new(&["--storage", "memory://"]).file("# the token\ntoken = agw_hunter2\n");
    let problems = broken.problems().join("\n");
    assert!(problems.starts_with("afterglow.toml: line 2: ") && !problems.contains("hunter2"), "{problems}");
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let code = |setup: Setup| setup.resolve::<Config>().expect_err("an exit").code();
    assert_eq!(code(Setup::new(&["--help"])), 0);
    assert_eq!(code(Setup::new(&["--version"])), 0);
    assert_eq!(code(Setup::new(&["--no-such-flag"])), 2);
    assert_eq!(code(Setup::new(&[])), 2, "storage is missing");
    assert_eq!(code(Setup::new(&["--limits.max-body", "lots"])), 2);
    assert_eq!(code(Setup::new(&["--storage", "ftp://x"])), 78);
    assert_eq!(code(Setup::new(&["--storage", "memory://"]).env("AFTERGLOW_LOG_FORMAT", "xml")), 78);
    assert_eq!(code(Setup::new(&["--storage", "memory://", "--check-config"])), 0);
    assert_eq!(code(Setup::new(&["--storage", "ftp://x", "--check-config"])), 78);
}

/// Goal: what is shown is in effect, says where it comes from, and keeps secrets.
#[test]
fn print_config_shows_what_is_in_effect() {
    let setup = Setup::new(&["--print-config", "--limits.max-streams", "9"])
        .file(FILE)
        .env("AFTERGLOW_STORAGE", "s3://id:hunter2@bucket/prefix")
        .env("AFTERGLOW_TOKEN", "hunter3");
    let text = setup.shown();
    assert!(!text.contains("hunter"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn what_print_config_shows_gives_the_same_settings() {
    let first = Setup::new(&["--storage", "memory://", "--roles", "ingest", "--no-self-profile"]).file(FILE);
    let mut printing =
        Setup::new(&["--storage", "memory://", "--roles", "ingest", "--no-self-profile", "--print-config"]);
    printing = printing.file(FILE);
    let second = Setup::new(&[]).file(&printing.shown()).config();
    let without_source = |config: Config| Config { source: Source::default(), ..config };
    assert_eq!(without_source(second), without_source(first.config()));
}

#[test]
fn help_names_the_environment() {
    let Err(Exit::Usage(help)) = Setup::new(&["--help"]).resolve::<Config>() else { panic!("help is an exit") };
    let help = help.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("[env: AFTERGLOW_LIMITS_MAX_BODY]"), "{help}");
    assert!(!help.contains("AFTERGLOW_PRINT_CONFIG"), "{help}");
}

/// A program of several commands, as the root program is.
#[derive(Parser, Debug)]
#[command(name = "afterglow-test")]
struct Many {
    #[command(subcommand)]
    command: Commands,
}

#[derive(clap::Subcommand, Debug)]
enum Commands {
    /// Serves
    Serve(Box<Config>),
    /// Pushes
    Push {
        /// Where to
        #[arg(long, default_value = "http://127.0.0.1:4100")]
        server: String,
        /// What
        files: Vec<PathBuf>,
    },
}

impl Settings for Many {}

/// Goal: subcommands have their settings each, and one's file is not another's.
#[test]
fn subcommands_have_settings_of_their_own() {
    let serve = Setup::new(&["serve"]).file(FILE).env("AFTERGLOW_LIMITS_MAX_STREAMS", "5").env("AFTERGLOW_SERVER", "x");
    let Many { command: Commands::Serve(config) } = serve.resolve().expect("settings") else { panic!("serve") };
    assert_eq!((config.listen.limits.connections_max, config.listen.limits.streams_max), (7, 5));

    let push = Setup::new(&["push", "a.pb.gz"]).env("AFTERGLOW_SERVER", "http://h:1").env("AFTERGLOW_STORAGE", "x");
    let Many { command: Commands::Push { server, files } } = push.resolve().expect("settings") else { panic!("push") };
    assert_eq!((server.as_str(), files), ("http://h:1", vec![PathBuf::from("a.pb.gz")]));

    let shown = Setup::new(&["serve", "--storage", "memory://", "--print-config"]).resolve::<Many>();
    let Err(Exit::Shown(text)) = shown else { panic!("{shown:?}") };
    assert!(text.starts_with("storage = \"memory://\" # flag\n"), "{text}");
}

#[test]
fn the_reference_lists_every_setting() {
    use clap::CommandFactory as _;
    let text = reference([Many::command()]);
    insta::assert_snapshot!(text.split_once("\n## ").expect("a section").1);
}
