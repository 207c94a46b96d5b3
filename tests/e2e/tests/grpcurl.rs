//! What a person with grpcurl and curl sees: reflection, health, a push and a question.

use std::process::Command;

use afterglow_e2e::{Program, output, real_profiles, tool};
use base64::Engine as _;
use serde_json::{Value, json};

/// Accepts profiles of any age: the real ones were taken when they were taken.
const ANY_AGE: [(&str, &str); 2] = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];

fn serve(folder: &std::path::Path) -> Program {
    let storage = format!("file://{}", folder.display());
    Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &ANY_AGE)
}

/// Runs grpcurl and returns what it prints.
fn grpcurl(args: &[&str]) -> String {
    let mut command = Command::new(tool("grpcurl"));
    command.arg("-plaintext").args(args);
    let done = output(command);
    assert!(done.status.success(), "grpcurl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("grpcurl prints text")
}

/// Runs grpcurl with a message and returns the answer.
fn call(address: &str, method: &str, message: &Value) -> Value {
    serde_json::from_str(&grpcurl(&["-d", &message.to_string(), address, method])).expect("grpcurl prints JSON")
}

#[test]
fn grpcurl_lists_describes_pushes_and_asks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = serve(folder.path());
    let address = server.address();

    let services = grpcurl(&[&address, "list"]);
    for service in ["afterglow.v1.IngestService", "afterglow.v1.QueryService", "grpc.health.v1.Health"] {
        assert!(services.contains(service), "{service} is not listed:\n{services}");
    }
    let described = grpcurl(&[&address, "describe", "afterglow.v1.IngestService"]);
    assert!(described.contains("rpc Push ( stream .afterglow.v1.PushRequest )"), "{described}");
    assert_eq!(call(&address, "grpc.health.v1.Health/Check", &json!({}))["status"], "SERVING");

    let profile = &real_profiles()[0];
    let pushed = call(
        &address,
        "afterglow.v1.IngestService/PushProfile",
        &json!({"profile": {
            "id": "",
            "type": profile.profile_type,
            "labels": {"service": "api", "dc": "eu-1"},
            "pprof": base64::engine::general_purpose::STANDARD.encode(&profile.body),
        }}),
    );
    let id = pushed["id"].as_str().expect("an id");
    let found = call(
        &address,
        "afterglow.v1.QueryService/Search",
        &json!({"selection": {
            "query": "{service=\"api\", dc=~\"eu-.*\"}",
            "start": "2000-01-01T00:00:00Z",
            "end": "2100-01-01T00:00:00Z",
            "readToken": pushed["readToken"],
        }}),
    );
    assert_eq!(found["profiles"][0]["id"], id);
    assert_eq!(found["profiles"][0]["sha256"], profile.sha256.as_str());
}

#[test]
fn go_tool_pprof_reads_a_profile_and_a_merge_by_their_urls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = serve(folder.path());
    let cpu = real_profiles().into_iter().find(|p| p.profile_type == "cpu").expect("a CPU profile");
    let mut curl = Command::new("curl");
    curl.args(["-sf", "--data-binary"]).arg(format!("@{}", cpu.path.display()));
    curl.arg(format!("{}/api/v1/profiles?service=api&type=cpu", server.url()));
    let pushed: Value = serde_json::from_slice(&output(curl).stdout).expect("curl is answered with JSON");
    let id = pushed["id"].as_str().expect("an id");
    let token = pushed["readToken"].as_str().expect("a token");

    let top = |source: &str| {
        let mut go = Command::new("go");
        go.args(["tool", "pprof", "-top", "-symbolize=none", source]).env("PPROF_TMPDIR", folder.path());
        let done = output(go);
        assert!(done.status.success(), "{source}: {}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).expect("pprof prints text");
        text[text.find("Showing nodes").expect("a table")..].to_owned()
    };
    let from_file = top(cpu.path.to_str().expect("a UTF-8 path"));
    let window = "start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";
    assert_eq!(top(&format!("{}/api/v1/profiles/{id}", server.url())), from_file);
    let merge = format!("{}/api/v1/merge?query={{service=\"api\"}}&type=cpu&{window}&read_token={token}", server.url());
    assert_eq!(top(&merge), from_file, "a merge of one profile is that profile");
}
