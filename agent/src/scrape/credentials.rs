//! The token that targets of a job ask for. It is read for each scrape, so that one that is renewed is presented at once; it is in no log,
//! no error and no `Debug` output.

use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::header::HeaderValue;

use crate::connect::read_one_token;

/// What stands for the token where a target repeats it.
const MASK: &str = "***";

/// Why there is no token to present; never quotes the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("credentials_file {}: {reason}", path.display())]
pub(super) struct Error {
    path: PathBuf,
    reason: String,
}

/// A token to present.
pub(super) struct Credentials {
    token: String,
    header: HeaderValue,
}

// === impl Credentials ===

impl Credentials {
    /// Reads the file, which holds a token of at most 4 KiB alone.
    ///
    /// # Errors
    /// It cannot be read, or does not hold one token.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error { path: path.to_owned(), reason };
        let token = read_one_token(path).map_err(failed)?;
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| failed("holds characters that a header cannot carry".to_owned()))?;
        header.set_sensitive(true);
        Ok(Self { token, header })
    }

    /// Returns the value of `authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Returns what a target said, without the token, which it may have repeated.
    pub(super) fn masked(&self, said: &str) -> String {
        said.replace(&self.token, MASK)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}
