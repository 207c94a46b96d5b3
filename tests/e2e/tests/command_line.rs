//! What a person or a script gets from the command line when something is wrong, and what a push leaves behind on the server.

#![allow(clippy::disallowed_methods, reason = "a test has its own environment")]

use std::process::{Child, Command, Output, Stdio};

use afterglow_e2e::{Program, built, client, output, real_profiles, tiny_profile, tool};

fn afterglow(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(built("afterglow"));
    command.args(args).envs(env.iter().copied());
    output(command)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["push", "a.pb.gz", "b.pb.gz", "--service", "x", "--id", "01JDF8Z3M5Q0V7T2N4R6S8W9XA"][..],
        &["push", "a.pb.gz", "--service", "x", "--label", "a=1", "--label", "a=2"],
        &["push", "a.pb.gz", "--service", "x", "--time", "foo"],
        &["search", "--from", "foo"],
        &["merge", "--from", "foo"],
        &["diff", "{service=\"api\"}", "--type", "cpu"],
        &["labels", "--to", "foo"],
        &["bucket", "init", "--storage", "memory://"],
    ] {
        let done = afterglow(args, &[]);
        assert_eq!(done.status.code(), Some(2), "{args:?}: {}", stderr(&done));
        assert!(stderr(&done).starts_with("error: "), "{args:?}: {}", stderr(&done));
    }
}

#[test]
fn bad_configuration_exits_with_78_and_says_all_that_is_wrong() {
    let env = [("AFTERGLOW_LIMIT_MAX_BODY", "1MiB"), ("AFTERGLOW_LOG_FORMAT", "xml")];
    let done = afterglow(&["serve", "--check-config", "--flush-bytes=lots", "--self-profile-period=0s"], &env);
    let text = stderr(&done);
    assert_eq!(done.status.code(), Some(78), "{text}");
    for part in [
        "--flush-bytes",
        "AFTERGLOW_LIMIT_MAX_BODY: no setting has this variable, did you mean AFTERGLOW_LIMITS_MAX_BODY?",
        "AFTERGLOW_LOG_FORMAT:",
        "self-profile-period 0s is below 1s",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

/// Symptom: `--check-config` said good, and the program panicked at its first request.
#[test]
fn a_wrong_variable_of_the_storage_is_bad_configuration_to_every_command_that_opens_one() {
    let env = [("AWS_ENDPOINT_URL", "minio:9000"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "hunter2\nx")];
    for command in [
        &["ingester", "--check-config"][..],
        &["querier", "--check-config"],
        &["serve", "--check-config"],
        &["ingester"],
        &["maintain", "--once"],
        &["verify"],
        &["bucket", "init"],
    ] {
        let done = afterglow(&[command, &["--storage", "s3://profiles"]].concat(), &env);
        let text = stderr(&done);
        assert_eq!(done.status.code(), Some(78), "{command:?}: {text}");
        assert!(text.contains("error: AWS_ENDPOINT_URL \"minio:9000\" is no URL of a server"), "{command:?}: {text}");
        assert!(text.contains("error: AWS_SECRET_ACCESS_KEY has what no header can carry"), "{command:?}: {text}");
        assert!(!text.contains("hunter2"), "{command:?}: {text}");
    }
}

#[test]
fn usage_says_what_is_required() {
    let push = afterglow(&["push", "--help"], &[]);
    let text = String::from_utf8_lossy(&push.stdout).into_owned();
    assert!(text.contains("Usage: afterglow push [OPTIONS] --service <SERVICE> <FILE>..."), "{text}");
}

/// A variable means one thing: `--output` is a form to search and a file to fetch.
#[test]
fn the_environment_does_not_name_an_output() {
    let done = afterglow(&["search", "--server", "http://127.0.0.1:1"], &[("AFTERGLOW_OUTPUT", "x.pb.gz")]);
    assert_eq!(done.status.code(), Some(78));
    assert!(stderr(&done).contains("AFTERGLOW_OUTPUT: no setting has this variable"), "{}", stderr(&done));
}

#[test]
fn a_querier_does_not_make_the_folder_that_it_is_to_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing");
    let storage = format!("file://{}", missing.display());
    let done = afterglow(&["querier", "--storage", &storage, "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(done.status.code(), Some(78), "{}", stderr(&done));
    assert!(stderr(&done).contains("there is no such folder"), "{}", stderr(&done));
    assert!(!missing.exists());
}

/// What cannot be reached is said once, not once for each library it went through.
#[test]
fn a_store_that_cannot_be_reached_is_said_once() {
    let env = [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x")];
    let done = afterglow(&["ingester", "--storage", "s3://nowhere", "--listen", "127.0.0.1:0"], &env);
    let text = stderr(&done) + &String::from_utf8_lossy(&done.stdout);
    let last = text.lines().rfind(|line| line.contains("cannot use the storage")).expect("why it did not start");
    assert_eq!(last.matches("onnection refused").count(), 1, "{last}");
}

/// A push that went well is a stream that ended well.
#[test]
fn a_push_is_not_cancelled_and_an_empty_search_says_where_it_looked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let server = Program::start(
        "afterglow",
        &["serve", "--no-self-profile", "--storage", &storage],
        &[("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")],
    );
    let profile = &real_profiles()[0];
    let path = profile.path.to_str().expect("a UTF-8 path");
    client(&["push", path, "--service", "api", "--type", "cpu"], &server.url());
    let (_, metrics) = server.get("/metrics");
    let of_push: Vec<_> =
        metrics.lines().filter(|line| line.contains("IngestService/Push\"") && line.contains("_total")).collect();
    assert!(!of_push.is_empty(), "{metrics}");
    assert!(!of_push.iter().any(|line| line.to_ascii_lowercase().contains("cancel")), "{of_push:#?}");

    let done = afterglow(&["search", "{service=\"none\"}", "--from", "-10m"], &[("AFTERGLOW_SERVER", &server.url())]);
    assert!(done.status.success());
    assert!(stderr(&done).contains("looks further back"), "{}", stderr(&done));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let env = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];
    let server = Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &env);
    let path = real_profiles()[0].path.display().to_string();
    client(&["push", &path, "--service", "api", "--type", "cpu"], &server.url());
    for args in [&["labels"][..], &["search"], &["merge", "--type", "cpu"]] {
        let (reader, writer) = std::io::pipe().expect("the system has pipes");
        drop(reader);
        let mut command = Command::new(built("afterglow"));
        command
            .args(args)
            .args(["--from", "2000-01-01T00:00:00Z", "--server", &server.url()])
            .stdout(writer)
            .stderr(Stdio::piped());
        let done = command.spawn().and_then(Child::wait_with_output).expect("it is built");
        assert!(done.status.success() && done.stderr.is_empty(), "{args:?}: {}, {}", done.status, stderr(&done));
    }
}

/// A tier lists the services it has, not those of the other.
#[test]
fn reflection_lists_what_is_mounted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    for (name, has, has_not) in [
        ("afterglow-ingester", "afterglow.v1.IngestService", "afterglow.v1.QueryService"),
        ("afterglow-querier", "afterglow.v1.QueryService", "afterglow.v1.IngestService"),
    ] {
        let server = Program::start(name, &["--storage", &storage], &[]);
        let mut grpcurl = Command::new(tool("grpcurl"));
        grpcurl.args(["-plaintext", &server.address(), "list"]);
        let services = String::from_utf8(output(grpcurl).stdout).expect("text");
        assert!(services.contains(has) && !services.contains(has_not), "{name}:\n{services}");
    }
}

/// Goal: an auditor can tell what became of profiles that are not there any more: whose, how many, of which day and by which setting.
#[test]
fn what_retention_deletes_is_written_down() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let maintains_nothing = ["ingester", "--roles", "ingest", "--storage", &storage];
    let server = Program::start("afterglow", &maintains_nothing, &[]);
    let path = folder.path().join("tiny.pb");
    std::fs::write(&path, tiny_profile("some_work")).expect("a profile");
    let path = path.to_str().expect("a UTF-8 path");
    for service in ["batch", "batch", "api"] {
        let push = ["push", path, "--service", service, "--type", "cpu", "--time", "-10d", "--tenant", "team-a"];
        client(&push, &server.url());
    }
    drop(server);

    let rule = "{service=\"batch\"}=7d";
    let maintain =
        ["maintain", "--storage", &storage, "--once", "--grace", "0s", "--log-format", "json", "--log-level", "error"];
    let done = afterglow(&[&maintain[..], &["--retention.rule", rule]].concat(), &[]);
    assert!(done.status.success(), "{}", stderr(&done));
    let text = stderr(&done);
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let audited: Vec<_> = lines.filter(|line| line["target"] == "audit").collect();
    let [line] = audited.as_slice() else { panic!("one deletion: {text}") };
    let field = |name: &str| line[name].to_string().replace('"', "");
    assert_eq!([field("event"), field("by"), field("tenant")], ["deleted", "retention", "team-a"], "{line}");
    assert_eq!([field("profiles"), field("blocks")], ["2", "1"], "{line}");
    assert_eq!(line["setting"], "--retention.rule={service=\"batch\"}=7days", "{line}");
    assert!(field("first_day") == field("last_day") && field("first_day").len() == "20261120".len(), "{line}");

    let done = afterglow(&[&maintain[..], &["--retention.max-age", "9d"]].concat(), &[]);
    assert!(stderr(&done).contains("--retention.max-age=9days"), "{}", stderr(&done));
    let done = afterglow(&[&maintain[..], &["--retention.max-age", "9d"]].concat(), &[]);
    assert_eq!(stderr(&done), "", "there is nothing left");
}
