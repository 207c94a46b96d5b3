//! Goal: what is wrong with the files is said with its setting before a port opens, and what changes while a server runs is taken
//! when it is good, and only then.

use super::follow::{State, look};
use super::testing::{Authority, Folder, Pair};
use super::*;
use crate::testing::PROGRAM;

#[test]
fn all_files_are_needed_and_good() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue("a"), authority.issue("b"));
    let folder = Folder::new(&pair, Some(&authority.pem));
    let good = folder.options();
    assert_eq!(good.problems(), [""; 0]);
    assert_eq!(Options::default().problems(), [""; 0]);

    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = good.clone();
        change(&mut options);
        options.problems().join("; ")
    };
    assert_eq!(with(&|o| o.key_file = None), "tls.cert-file is given without tls.key-file");
    assert_eq!(with(&|o| o.cert_file = None), "tls.key-file is given without tls.cert-file");
    let alone = Options { client_ca_file: good.client_ca_file.clone(), ..Options::default() };
    assert_eq!(alone.problems(), ["tls.client-ca-file is given without tls.cert-file and tls.key-file"]);

    for (name, text, reason) in [
        ("cert.pem", "", "tls.cert-file FILE: holds no certificate in PEM"),
        ("cert.pem", &*pair.key, "tls.cert-file FILE: holds no certificate in PEM"),
        ("cert.pem", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", "tls.cert-file FILE: is not PEM"),
        ("key.pem", &pair.cert, "tls.key-file FILE: holds no private key in PEM that is not encrypted"),
        ("key.pem", &other.key, "tls.key-file FILE: is not the key of the certificate in "),
        ("ca.pem", "", "tls.client-ca-file FILE: holds no certificate in PEM"),
    ] {
        let before = std::fs::read_to_string(folder.path(name)).expect("a file");
        folder.write(name, text);
        let problem = good.problems().join("; ").replace(&folder.path(name).display().to_string(), "FILE");
        assert!(problem.starts_with(reason), "{problem}");
        folder.write(name, &before);
    }
    std::fs::remove_file(folder.path("key.pem")).expect("a file");
    let problem = good.problems().join("; ");
    assert!(problem.starts_with("tls.key-file ") && problem.contains("cannot be read"), "{problem}");
}

/// Goal: no error shows a key that stands in the wrong file.
#[test]
fn errors_show_no_key() {
    let pair = Authority::new().issue("a");
    let secret = pair.key.lines().nth(1).expect("base64").to_owned();
    let wrong = Pair { cert: pair.key.clone(), key: pair.key.replace('A', "%") };
    for folder in [Folder::new(&wrong, None), Folder::new(&Pair { cert: pair.cert.clone(), ..wrong.clone() }, None)] {
        let options = folder.options();
        let problems = format!("{:?} {:?}", options.problems(), Tls::open(&options, &Metrics::new(PROGRAM)).err());
        assert!(!problems.contains(&secret[..16]) && problems.contains("tls."), "{problems}");
    }
}

/// Goal: a pair that is renewed is taken; one that is broken, half copied or gone leaves the one before it, and is said once.
#[tokio::test]
async fn the_files_are_followed() {
    let authority = Authority::new();
    let (old, new) = (authority.issue_until("a", 2080), authority.issue_until("a", 2081));
    let folder = Folder::new(&old, Some(&authority.pem));
    let metrics = Metrics::new(PROGRAM);
    let tls = Tls::open(&folder.options(), &metrics).expect("files").expect("TLS");
    let metric = |name: &str| {
        let text = metrics.text().expect("text");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
    };
    let expires = || metric("afterglow_tls_certificate_expiration_timestamp_seconds").expect("a gauge");
    let [old_end, new_end] = [2080, 2081].map(|year| rcgen::date_time_ymd(year, 1, 1).unix_timestamp().to_string());
    let mut state = State::of(&tls.0);
    let first = tls.config();
    look(&tls.0, &mut state).await;
    assert_eq!(
        (expires(), metric("afterglow_tls_file_reads_total{outcome=\"ok\"}").as_deref()),
        (old_end.clone(), Some("0"))
    );

    // Half a copy is no failure yet, and the whole is taken.
    folder.write("cert.pem", &new.cert);
    look(&tls.0, &mut state).await;
    assert_eq!((expires(), metric("afterglow_tls_files_stale").as_deref()), (old_end, Some("0")));
    folder.write("key.pem", &new.key);
    look(&tls.0, &mut state).await;
    assert_eq!((expires(), metric("afterglow_tls_files_stale").as_deref()), (new_end.clone(), Some("0")));
    assert!(!Arc::ptr_eq(&first, &tls.config()));
    assert_eq!(metric("afterglow_tls_file_reads_total{outcome=\"failed\"}").as_deref(), Some("0"));

    let in_force = tls.config();
    folder.write("key.pem", &old.key);
    for _ in 0..3 {
        look(&tls.0, &mut state).await;
    }
    std::fs::remove_file(folder.path("key.pem")).expect("a file");
    for _ in 0..3 {
        look(&tls.0, &mut state).await;
    }
    assert!(Arc::ptr_eq(&in_force, &tls.config()), "the pair before stays in force");
    assert_eq!(metric("afterglow_tls_files_stale").as_deref(), Some("1"));
    assert_eq!(metric("afterglow_tls_file_reads_total{outcome=\"failed\"}").as_deref(), Some("2"), "once a change");
    folder.write("key.pem", &new.key);
    look(&tls.0, &mut state).await;
    assert_eq!((expires(), metric("afterglow_tls_files_stale").as_deref()), (new_end, Some("0")));
}

/// Goal: a Secret that is mounted changes as a whole, by a symbolic link to another folder.
#[tokio::test]
async fn a_folder_that_is_swapped_is_followed() {
    let authority = Authority::new();
    let [old, new] = [2080, 2081].map(|year| Folder::new(&authority.issue_until("a", year), None));
    let mounted = tempfile::tempdir().expect("a folder");
    let link = |to: &Folder| {
        let next = mounted.path().join("..data_tmp");
        std::os::unix::fs::symlink(to.path("."), &next).expect("a link");
        std::fs::rename(next, mounted.path().join("..data")).expect("renamed");
    };
    link(&old);
    for (name, file) in [("tls.crt", "cert.pem"), ("tls.key", "key.pem")] {
        std::os::unix::fs::symlink(format!("..data/{file}"), mounted.path().join(name)).expect("a link");
    }
    let options = Options {
        cert_file: Some(mounted.path().join("tls.crt")),
        key_file: Some(mounted.path().join("tls.key")),
        ..Options::default()
    };
    let tls = Tls::open(&options, &Metrics::new(PROGRAM)).expect("files").expect("TLS");
    let mut state = State::of(&tls.0);
    look(&tls.0, &mut state).await;
    let before = tls.config();
    look(&tls.0, &mut state).await;
    assert!(Arc::ptr_eq(&before, &tls.config()), "nothing has changed");
    link(&new);
    look(&tls.0, &mut state).await;
    assert!(!Arc::ptr_eq(&before, &tls.config()));
}
