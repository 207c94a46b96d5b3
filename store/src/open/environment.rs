//! The environment variables that say how to reach a store: data, handed in like everything else, and checked before a client is made of
//! it, which would panic at its first request on what no header or URL can hold.
//!
//! White space around a value is none of it: a secret that was made with `echo` ends in a line break.

use std::collections::BTreeMap;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use url::Url;

use crate::location::StorageUrl;

/// What the variables of the providers begin with.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The variables of the storage providers, under their own names; `Debug` shows no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads those of this process that are set to something.
    pub fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "these names are the providers', not ours")]
        let variables = std::env::vars_os();
        // What is not UTF-8 is not printable either after this, so it is refused where it matters.
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, text(value)))).collect()
    }

    /// Returns what is wrong with the variables that the store at `url` goes by, one sentence each; none shows a secret.
    pub fn problems(&self, url: &StorageUrl) -> Vec<String> {
        let (prefix, kind): (_, fn(&str) -> Option<Kind>) = match url {
            StorageUrl::S3 { .. } => ("AWS_", Kind::of_s3),
            StorageUrl::Gcs { .. } => ("GOOGLE_", Kind::of_gcs),
            StorageUrl::Azure { .. } => ("AZURE_", Kind::of_azure),
            StorageUrl::File { .. } | StorageUrl::Memory { .. } => return Vec::new(),
        };
        let of_variable = |(name, value): (&str, &str)| kind(&name.to_ascii_lowercase())?.problem(name, value);
        self.with_prefix(prefix).filter_map(of_variable).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns the endpoint that is to be used in place of AWS's.
    pub(crate) fn aws_endpoint(&self) -> Option<&str> {
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].into_iter().find_map(|name| self.get(name))
    }

    pub(crate) fn aws_region(&self) -> Option<&str> {
        self.get("AWS_REGION").or_else(|| self.get("AWS_DEFAULT_REGION"))
    }

    /// Returns key id, secret and session token, where there are both of the former.
    pub(crate) fn aws_keys(&self) -> Option<(&str, &str, Option<&str>)> {
        Some((self.get("AWS_ACCESS_KEY_ID")?, self.get("AWS_SECRET_ACCESS_KEY")?, self.get("AWS_SESSION_TOKEN")))
    }

    pub(crate) fn is_aws_unsigned(&self) -> bool {
        self.get("AWS_SKIP_SIGNATURE").is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }
}

impl FromIterator<(String, String)> for Environment {
    /// Takes what belongs to a provider and is not empty, without white space around it.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let is_ours = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let trimmed = variables.into_iter().map(|(name, value)| (name, value.trim().to_owned()));
        Self(trimmed.filter(|(name, value)| is_ours(name) && !value.is_empty()).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a variable may hold.
#[derive(Clone, Copy)]
enum Kind {
    /// The URL of a server.
    Endpoint,
    /// A part of a host's name.
    HostPart,
    /// What goes into a header, or into a signature.
    Text,
}

// === impl Kind ===

impl Kind {
    /// Returns what the variable of S3 holds whose name is this in lower case; nothing where it is none of the client's, or names a file.
    fn of_s3(name: &str) -> Option<Self> {
        use AmazonS3ConfigKey as Key;
        match name.parse().ok()? {
            Key::Endpoint | Key::S3Endpoint | Key::StsEndpoint => Some(Self::Endpoint),
            Key::Region | Key::DefaultRegion => Some(Self::HostPart),
            Key::WebIdentityTokenFile | Key::ContainerAuthorizationTokenFile | Key::Client(_) => None,
            _ => Some(Self::Text),
        }
    }

    /// As [`Kind::of_s3`].
    fn of_gcs(name: &str) -> Option<Self> {
        use GoogleConfigKey as Key;
        match name.parse().ok()? {
            Key::BaseUrl => Some(Self::Endpoint),
            // A key here is JSON, which has lines.
            Key::ServiceAccount | Key::ServiceAccountKey | Key::ApplicationCredentials | Key::Client(_) => None,
            _ => Some(Self::Text),
        }
    }

    /// As [`Kind::of_s3`].
    fn of_azure(name: &str) -> Option<Self> {
        use AzureConfigKey as Key;
        match name.parse().ok()? {
            Key::Endpoint | Key::MsiEndpoint | Key::AuthorityHost => Some(Self::Endpoint),
            Key::AccountName => Some(Self::HostPart),
            Key::FederatedTokenFile | Key::Client(_) => None,
            _ => Some(Self::Text),
        }
    }

    /// Returns what is wrong with a value; of one that may be a secret nothing is shown.
    fn problem(self, name: &str, value: &str) -> Option<String> {
        match self {
            Self::Endpoint => endpoint_problem(name, value),
            Self::HostPart => {
                let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                (!value.chars().all(is_good)).then(|| {
                    format!("{name} {value:?} has what no host's name can have: give letters, digits and hyphens")
                })
            }
            Self::Text => {
                let is_good = |c: char| c.is_ascii_graphic() || c == ' ';
                (!value.chars().all(is_good))
                    .then(|| format!("{name} has what no header can carry: give visible ASCII characters, on one line"))
            }
        }
    }
}

/// Returns what is wrong with the URL of a server that `name` gives. What may be a password or a signature is not shown.
pub(super) fn endpoint_problem(name: &str, value: &str) -> Option<String> {
    const FORM: &str = "write http://HOST:PORT or https://HOST";
    if value.contains('@') {
        return Some(format!(
            "{name} holds a user or a password: {FORM}, and give credentials by variables of their own"
        ));
    }
    if value.contains(['?', '#']) {
        return Some(format!("{name} has a '?' or '#', which no endpoint takes: {FORM}"));
    }
    // The client hands it from one of the two parsers to the other, and each refuses what the other takes.
    let is_good = Url::parse(value).is_ok()
        && value.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
        });
    (!is_good).then(|| format!("{name} {value:?} is no URL of a server: {FORM}"))
}
