//! A segment in a local folder is on the disk before anyone hears that it is: read off the system calls that a put makes.
//!
//! The test runs itself under `strace` with a folder to write to. What must be seen, in this order: the bytes are written to a file,
//! the file is synced, it gets its name, the folder with the name is synced, so is every folder above whose entry is new, and only
//! then does the caller go on (which it shows by making a file).

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use afterglow_store::paths::TenantId;
use afterglow_store::{StorageUrl, StoreOptions, open};
use bytes::Bytes;
use tokio::time::Instant;

/// The variable that tells the traced process where to write.
const FOLDER_ENV: &str = "AFTERGLOW_TEST_DURABLE_FOLDER";
/// The file by which it shows that the put has returned.
const RETURNED: &str = "the-put-has-returned";

#[test]
fn a_segment_is_synced_before_its_put_returns() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().canonicalize().expect("it exists");
    let trace = root.join("trace");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "0", "-e", "trace=openat,write,fsync,rename,mkdir", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().expect("a test knows its program"))
        .args(["--exact", "put_a_segment", "--ignored", "--test-threads=1"])
        .env(FOLDER_ENV, root.join("data"))
        .output()
        .expect("this test needs strace: install the package of that name");
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stderr));

    let calls = std::fs::read_to_string(&trace).expect("strace wrote its trace");
    let data = root.join("data");
    let in_data = |rest: &str| data.join(rest).display().to_string();
    let segments = in_data("v1/t/anonymous/l0");
    let at = |what: &str, matches: &dyn Fn(&str) -> bool| {
        calls.lines().position(matches).unwrap_or_else(|| panic!("no call does this: {what}\n{calls}"))
    };
    let synced = |folder: &str| {
        let file = format!("<{folder}>");
        let last = calls.lines().enumerate().filter(|(_, line)| line.contains("fsync(") && line.contains(&file)).last();
        last.unwrap_or_else(|| panic!("{folder} is not synced\n{calls}")).0
    };
    let staged = |line: &str| line.contains(&segments) && line.contains(".agb#1");
    let written = at("write", &|line| line.contains("write(") && staged(line));
    let file_synced = at("fsync of the file", &|line| line.contains("fsync(") && staged(line));
    let named = at("rename", &|line| line.contains("rename(") && staged(line));
    let returned = at("return", &|line| line.contains("openat(") && line.contains(RETURNED));
    assert!(
        written < file_synced && file_synced < named,
        "written {written}, synced {file_synced}, named {named}\n{calls}"
    );
    assert!(
        named < synced(&segments) && synced(&segments) < returned,
        "the folder is synced after the rename\n{calls}"
    );
    for above in ["v1/t/anonymous", "v1/t", "v1", ""] {
        let above = in_data(above).trim_end_matches('/').to_owned();
        let made_below = at("mkdir", &|line| line.contains("mkdir(") && line.contains(&format!("\"{above}/")));
        let synced = synced(&above);
        assert!(made_below < synced && synced < returned, "{above} is synced after it got a folder\n{calls}");
    }
    let _ = synced(&root.display().to_string());
}

/// What is traced: not a test by itself.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test that runs itself has no other way to tell itself something")]
#[ignore = "run by a_segment_is_synced_before_its_put_returns"]
async fn put_a_segment() {
    let folder = std::env::var_os(FOLDER_ENV).expect("this is run by another test");
    let url = StorageUrl::File { folder: folder.into() };
    let store = open(&url, StoreOptions::default()).await.expect("a folder opens");
    let deadline = Instant::now() + Duration::from_secs(30);
    let tenant = TenantId::anonymous();
    store.put_segment(&tenant, Bytes::from_static(b"segment"), deadline).await.expect("the segment is written");
    let StorageUrl::File { folder } = url else { unreachable!("made above") };
    std::fs::write(Path::new(&folder).join(RETURNED), "").expect("the folder can be written");
}
