//! The environment variables that say how to reach a store: data, handed in like everything else.

use std::collections::BTreeMap;

/// What the variables of the providers begin with.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The variables of the storage providers, under their own names; `Debug` shows no values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads those of this process that are set to something.
    pub fn of_process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "these names are the providers', not ours")]
        std::env::vars().collect()
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
    /// Takes what belongs to a provider and is not empty.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let is_ours = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        Self(variables.into_iter().filter(|(name, value)| is_ours(name) && !value.is_empty()).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
