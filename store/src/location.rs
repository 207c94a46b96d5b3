//! Where the data lie, as an operator writes it: one text that names the kind of store, the bucket and a prefix.
//!
//! ```text
//! ./afterglow-data   /var/lib/afterglow   file:///var/lib/afterglow      a local folder
//! s3://bucket/prefix   gs://bucket/prefix   az://container/prefix        a bucket; its account and keys come from the environment
//! memory://name                                                          this process alone, for tests
//! ```
//!
//! A [`StorageUrl`] is plain data: nothing is asked or opened here. It never holds a secret, so it may be shown and logged.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;
use url::Url;

/// Where the data lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageUrl {
    /// A folder of this machine.
    File {
        /// The folder, absolute or relative to the working directory.
        folder: PathBuf,
    },
    /// A bucket of Amazon S3 or of anything that speaks its protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with.
        prefix: Path,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// What all keys begin with.
        prefix: Path,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// What all keys begin with.
        prefix: Path,
    },
    /// The memory of this process.
    Memory {
        /// Stores of one name share their data; the empty name shares with nobody.
        name: String,
    },
}

/// Why a text is no storage URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage {text:?} {problem}")]
pub struct UrlError {
    /// The text; without what could be a password.
    pub text: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

/// The shortest name of a bucket or container, with every provider.
const NAME_BYTES_MIN: usize = 3;

const FORMS: &str =
    "write ./folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://";

impl FromStr for StorageUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let refuse = |problem: String| UrlError { text: text.to_owned(), problem };
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(refuse(format!("is empty: {FORMS}"))),
                _ if text.starts_with(['/', '.']) => Ok(Self::File { folder: text.into() }),
                _ => Err(refuse(format!("does not say what it is: {FORMS}"))),
            };
        };
        if rest.contains('@') && scheme != "file" {
            let text = format!("{scheme}://***");
            return Err(UrlError { text, problem: "holds credentials: give them by the environment".to_owned() });
        }
        if let Some(at) = rest.find(['?', '#']) {
            // What follows may be a secret, such as the signature of a URL that was shared.
            let (before, found) = (&rest[..at], &rest[at..=at]);
            let text = format!("{scheme}://{before}{found}***");
            let problem = format!("has '{found}', which no storage takes: options come from the environment");
            return Err(UrlError { text, problem });
        }
        let bucket = |what: &str| -> Result<(String, Path), UrlError> {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if bucket.is_empty() {
                return Err(refuse(format!("names no {what}: write {scheme}://{what}/prefix")));
            }
            if let Some(found) = bucket.chars().find(|c| !allowed(*c)) {
                return Err(refuse(format!("has {found:?} in the name of its {what}")));
            }
            if bucket.len() < NAME_BYTES_MIN {
                return Err(refuse(format!("names a {what} of less than {NAME_BYTES_MIN} characters")));
            }
            let prefix =
                Path::parse(prefix).map_err(|error| refuse(format!("has a prefix that cannot be a key: {error}")))?;
            Ok((bucket.to_owned(), prefix))
        };
        match scheme {
            "file" => parse_file(text, rest).map(|folder| Self::File { folder }).map_err(refuse),
            "s3" => bucket("bucket").map(|(bucket, prefix)| Self::S3 { bucket, prefix }),
            "gs" => bucket("bucket").map(|(bucket, prefix)| Self::Gcs { bucket, prefix }),
            "az" => bucket("container").map(|(container, prefix)| Self::Azure { container, prefix }),
            "memory" => match rest.contains('/') {
                false => Ok(Self::Memory { name: rest.to_owned() }),
                true => Err(refuse("has a prefix: write memory:// or memory://name".to_owned())),
            },
            _ => Err(refuse(format!("has the unknown scheme {scheme:?}: {FORMS}"))),
        }
    }
}

fn parse_file(text: &str, rest: &str) -> Result<PathBuf, String> {
    if rest.is_empty() {
        return Err("names no folder: write file:///folder".to_owned());
    }
    // Not a URL by the letter, but what people write for a folder below them.
    if rest == "." || rest == ".." || rest.starts_with("./") || rest.starts_with("../") {
        return Ok(rest.into());
    }
    if !rest.starts_with('/') {
        let host = rest.split('/').next().unwrap_or(rest);
        return Err(format!("names {host:?} as a host: write file:///{rest} or ./{rest}"));
    }
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    url.to_file_path().map_err(|()| "names no folder of this machine".to_owned())
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::File { folder } if folder.is_absolute() => match Url::from_file_path(folder) {
                Ok(url) => return f.write_str(url.as_str()),
                Err(()) => return folder.display().fmt(f),
            },
            Self::File { folder } => return folder.display().fmt(f),
            Self::Memory { name } => return write!(f, "memory://{name}"),
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Gcs { bucket, prefix } => ("gs", bucket, prefix),
            Self::Azure { container, prefix } => ("az", container, prefix),
        };
        let slash = if prefix.is_root() { "" } else { "/" };
        write!(f, "{scheme}://{bucket}{slash}{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> StorageUrl {
        text.parse().expect("valid")
    }

    #[test]
    fn every_form_is_read_and_written_alike() {
        for (text, url) in [
            ("./afterglow-data", StorageUrl::File { folder: "./afterglow-data".into() }),
            ("../x", StorageUrl::File { folder: "../x".into() }),
            ("file:///var/lib/afterglow", StorageUrl::File { folder: "/var/lib/afterglow".into() }),
            ("file:///a%20b", StorageUrl::File { folder: "/a b".into() }),
            ("s3://bucket", StorageUrl::S3 { bucket: "bucket".into(), prefix: Path::ROOT }),
            ("s3://b-1.x/a/b", StorageUrl::S3 { bucket: "b-1.x".into(), prefix: Path::from("a/b") }),
            ("gs://bucket/a", StorageUrl::Gcs { bucket: "bucket".into(), prefix: Path::from("a") }),
            ("az://container/a", StorageUrl::Azure { container: "container".into(), prefix: Path::from("a") }),
            ("memory://", StorageUrl::Memory { name: String::new() }),
            ("memory://shared", StorageUrl::Memory { name: "shared".into() }),
        ] {
            assert_eq!(parse(text), url, "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn forms_that_people_also_write_mean_the_same() {
        for (text, same) in [
            ("/var/lib/afterglow", "file:///var/lib/afterglow"),
            ("file://./data", "./data"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/", "s3://bucket/a"),
        ] {
            assert_eq!(parse(text), parse(same), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_write() {
        for (text, message) in [
            ("", "storage \"\" is empty: write ./folder"),
            ("data", "storage \"data\" does not say what it is: write ./folder"),
            ("s3:/bucket", "storage \"s3:/bucket\" does not say what it is"),
            ("file://", "storage \"file://\" names no folder: write file:///folder"),
            ("file://data/x", "names \"data\" as a host: write file:///data/x or ./data/x"),
            ("s3://", "storage \"s3://\" names no bucket: write s3://bucket/prefix"),
            ("s3:///prefix", "names no bucket"),
            ("az://", "names no container"),
            ("s3://b/x", "names a bucket of less than 3 characters"),
            ("s3://bu cket", "has ' ' in the name of its bucket"),
            ("s3://bucket/a//b", "has a prefix that cannot be a key"),
            ("s3://bucket/../b", "has a prefix that cannot be a key"),
            ("s3://bucket?region=x", "has '?', which no storage takes"),
            ("az://account/logs?sv=1&sig=secret", "storage \"az://account/logs?***\" has '?', which no storage takes"),
            ("s3://key:secret@bucket", "storage \"s3://***\" holds credentials: give them by the environment"),
            ("memory://a/b", "has a prefix: write memory:// or memory://name"),
            ("http://bucket", "has the unknown scheme \"http\": write ./folder"),
        ] {
            let error = text.parse::<StorageUrl>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
