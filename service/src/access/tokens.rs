//! The tokens: what the file says of each, and the table that finds one.
//!
//! The file holds SHA-256 digests, never tokens: whoever reads it cannot use it. A plain digest is enough because tokens
//! are 256 random bits, which nobody guesses; for what people choose as passwords it would not be. A presented token is
//! found by its digest in a hash map: how long that takes says something about digests only, and nobody can make a
//! token for a digest of his choice, so there is nothing to learn from the time.
//!
//! A file that is not good in one entry is not good at all: half of the tokens would be a guess at what was meant.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::{Secret, explain_toml};
use crate::tenant;

/// The largest file: some thousands of tokens. A larger one is another file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The random bytes of a token.
const RANDOM_BYTES: usize = 32;

/// What every generated token begins with, so that people, and scanners for secrets, know it for what it is.
const PREFIX: &str = "agw_";

/// The tenant that stands for all.
const ANY: &str = "*";

/// The longest name of a token.
const NAME_BYTES_MAX: usize = 150;

/// What a token may be used for. No role includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// To push profiles
    Write,
    /// To ask for profiles
    Read,
    /// To operate the server: profiles of its own process
    Admin,
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// What is known of a token: everything but the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    name: String,
    roles: Vec<Role>,
    tenants: Tenants,
}

/// Whose data a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenants {
    /// Those of whoever the header names: the bearer is a proxy that has asked already.
    Any,
    /// Those of these, at least one.
    These(Vec<String>),
}

/// An entry of the file, `[[token]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What the token is called in logs and refusals.
    pub name: String,
    /// The SHA-256 of the token, in hexadecimal digits.
    pub sha256: String,
    /// What it may be used for.
    pub roles: Vec<Role>,
    /// Whose data it is for; `*` alone for whatever the header X-Scope-OrgID names.
    pub tenants: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default, rename = "token")]
    tokens: Vec<Entry>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("auth.tokens-file {}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than any file of tokens.
    #[error("auth.tokens-file {}: is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or holds something else than tokens. The text of the parser is left out where it would quote the
    /// file.
    #[error("auth.tokens-file {}: line {line}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// An entry is wrong.
    #[error("auth.tokens-file {}: token {index}: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Which entry, from 1.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// There is none in it: nobody could use the server.
    #[error("auth.tokens-file {}: has no [[token]]: nobody would be let in", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The tokens by their digests.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<Digest, Arc<Token>>);

/// Reads the tokens of a file.
pub(super) fn read(path: &Path) -> Result<Table, Error> {
    parse(path, &read_contents(path)?)
}

/// Reads a file whole, up to its bound.
pub(super) fn read_contents(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut contents = Vec::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    Ok(contents)
}

/// Makes the table of what a file holds; `path` is for errors.
pub(super) fn parse(path: &Path, contents: &[u8]) -> Result<Table, Error> {
    let wrong = |line, reason| Error::Toml { path: path.to_owned(), line, reason };
    let text = std::str::from_utf8(contents).map_err(|error| {
        let before = &contents[..error.valid_up_to()];
        wrong(before.iter().filter(|byte| **byte == b'\n').count() + 1, "is not UTF-8".to_owned())
    })?;
    // A token may stand there that should have been its digest.
    let parsed: Contents = toml::from_str(text).map_err(|error| {
        let (line, reason) = explain_toml(text, &error);
        wrong(line, reason)
    })?;
    if parsed.tokens.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    let mut table = HashMap::with_capacity(parsed.tokens.len());
    let mut names = HashSet::new();
    for (index, entry) in (1..).zip(&parsed.tokens) {
        let wrong = |reason: String| Error::Entry { path: path.to_owned(), index, reason };
        let (digest, token) = entry.check().map_err(wrong)?;
        if !names.insert(entry.name.as_str()) {
            return Err(wrong(format!("the name {:?} is taken by another", entry.name)));
        }
        if table.insert(digest, Arc::new(token)).is_some() {
            return Err(wrong(format!("{:?} has the sha256 of another", entry.name)));
        }
    }
    Ok(Table(table))
}

/// Makes a new token, and its digest.
pub(super) fn generate() -> (Secret, Digest) {
    // The generator of the thread is a cryptographic one, seeded by the system.
    let random: [u8; RANDOM_BYTES] = rand::random();
    let token = format!("{PREFIX}{}", hex::encode(random));
    let digest = Digest::of(token.as_bytes());
    (Secret::from(token), digest)
}

// === impl Digest ===

impl Digest {
    /// Digests a token as it is presented.
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Secret::MASK)
    }
}

// === impl Entry ===

impl Entry {
    /// Makes a new token with its entry.
    ///
    /// # Errors
    /// A sentence, where name, roles or tenants cannot be those of a token.
    pub fn generate(name: String, roles: Vec<Role>, tenants: Vec<String>) -> Result<(Secret, Self), String> {
        let (secret, Digest(digest)) = generate();
        let entry = Self { name, sha256: hex::encode(digest), roles, tenants };
        entry.check()?;
        Ok((secret, entry))
    }

    /// Writes the entry as the file has it.
    ///
    /// # Panics
    /// Never: names are text.
    pub fn to_toml(&self) -> String {
        toml::to_string(&Contents { tokens: vec![self.clone()] }).expect("texts and lists are TOML")
    }

    fn check(&self) -> Result<(Digest, Token), String> {
        let is_name = |text: &str| {
            (1..=NAME_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        if !is_name(&self.name) {
            return Err(format!("name is not 1 to {NAME_BYTES_MAX} visible ASCII characters"));
        }
        let of = |reason: String| format!("{:?}: {reason}", self.name);
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut digest)
            // What stands there may be the token itself.
            .map_err(|_| of(format!("sha256 is not {} hexadecimal digits", 2 * digest.len())))?;
        if self.roles.is_empty() {
            return Err(of("roles is empty: give write, read or admin".to_owned()));
        }
        if self.tenants.is_empty() {
            return Err(of(format!("tenants is empty: name some, or \"{ANY}\" for a proxy that names them itself")));
        }
        if self.tenants.len() > 1 && self.tenants.iter().any(|tenant| tenant == ANY) {
            return Err(of(format!("\"{ANY}\" stands for all tenants, and alone")));
        }
        if let Some(problem) = self.tenants.iter().find_map(|tenant| tenant::problem(tenant)) {
            return Err(of(problem));
        }
        let token = Token::new(&self.name, self.roles.iter().copied(), self.tenants.iter().map(String::as_str));
        Ok((Digest(digest), token))
    }
}

// === impl Token ===

impl Token {
    pub(super) fn new<'a>(
        name: &str,
        roles: impl IntoIterator<Item = Role>,
        tenants: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let tenants: Vec<String> = tenants.into_iter().map(str::to_owned).collect();
        let tenants = if tenants == [ANY] { Tenants::Any } else { Tenants::These(tenants) };
        Self { name: name.to_owned(), roles: roles.into_iter().collect(), tenants }
    }

    /// Returns what the token is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub(super) fn tenants(&self) -> &Tenants {
        &self.tenants
    }
}

// === impl Role ===

impl Role {
    /// Returns the name, as the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

// === impl Table ===

impl Table {
    /// Adds tokens that are in no file.
    pub(super) fn with(mut self, own: &[(Digest, Arc<Token>)]) -> Self {
        self.0.extend(own.iter().map(|(digest, token)| (*digest, Arc::clone(token))));
        self
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<&Arc<Token>> {
        self.0.get(digest)
    }

    /// Returns how many there are, as a metric counts.
    pub(super) fn len(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Table, String> {
        parse(Path::new("tokens.toml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    fn entry(name: &str, sha256: &str, roles: &str, tenants: &str) -> String {
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nroles = {roles}\ntenants = {tenants}\n")
    }

    /// Goal: what `afterglow token` prints is found again by the token, and by nothing else.
    #[test]
    fn a_generated_token_is_found_by_its_entry() {
        let (roles, tenants) = (vec![Role::Write, Role::Read], vec!["team-a".to_owned()]);
        let (secret, entry) = Entry::generate("agents".to_owned(), roles, tenants).expect("good");
        let text = entry.to_toml();
        let table = parsed(&text).expect("a file");
        let found = table.find(&Digest::of(secret.reveal().as_bytes())).expect("the token");
        assert_eq!((found.name(), found.has(Role::Write), found.has(Role::Admin)), ("agents", true, false));
        assert!(
            table.find(&Digest::of(b"agw_")).is_none() && table.find(&Digest::of(entry.sha256.as_bytes())).is_none()
        );
        assert!(secret.reveal().starts_with("agw_") && secret.reveal().len() == 68);
        let (other, _) = generate();
        assert_ne!(other.reveal(), secret.reveal());
    }

    /// Goal: neither a token that stands where its digest should, nor a digest, is ever printed.
    #[test]
    fn errors_and_debug_show_no_secret() {
        let (secret, made) = Entry::generate("a".to_owned(), vec![Role::Read], vec!["*".to_owned()]).expect("good");
        let token = secret.reveal();
        for text in [
            entry("a", token, "[\"read\"]", "[\"*\"]"),
            format!("[[token]]\nname = \"a\"\nsha256 = {token}\n"),
            format!("[[token]]\ntoken = \"{token}\"\n"),
            format!("{token}\n"),
            format!("[[token]]\nname = \"a\"\nsha256 = [\"{token}\"]\nroles = []\ntenants = []\n"),
            format!("[[token]]\nname = \"a\"\nsha256 = \"\"\nroles = \"{token}\"\ntenants = []\n"),
        ] {
            let error = parsed(&text).expect_err("not a file of tokens");
            assert!(!error.contains(&token[..12]), "{error}");
        }
        let debug = format!("{:?} {:?}", parsed(&made.to_toml()), secret);
        assert!(!debug.contains(&made.sha256[..12]) && !debug.contains(&token[..12]), "{debug}");
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let (one, two) = ("0".repeat(64), "1".repeat(64));
        let good = entry("agents", &one, "[\"write\"]", "[\"team-a\"]");
        for (text, reason) in [
            (String::new(), "has no [[token]]: nobody would be let in"),
            (entry("", &one, "[\"write\"]", "[\"a\"]"), "token 1: name is not 1 to 150 visible ASCII characters"),
            (entry("b", "12", "[\"write\"]", "[\"a\"]"), "token 1: \"b\": sha256 is not 64 hexadecimal digits"),
            (entry("b", &one, "[]", "[\"a\"]"), "token 1: \"b\": roles is empty: give write, read or admin"),
            (
                entry("b", &one, "[\"root\"]", "[\"a\"]"),
                "line 4: unknown variant `root`, expected one of `write`, `read`, `admin`",
            ),
            (entry("b", &one, "[\"read\"]", "[]"), "token 1: \"b\": tenants is empty"),
            (entry("b", &one, "[\"read\"]", "[\"a b\"]"), "token 1: \"b\": tenant \"a b\" is not"),
            (entry("b", &one, "[\"read\"]", "[\"a\", \"a/b\"]"), "token 1: \"b\": tenant \"a/b\" is not"),
            (entry("b", &one, "[\"read\"]", "[\"..\"]"), "token 1: \"b\": tenant \"..\" is not"),
            (
                entry("b", &one, "[\"read\"]", "[\"a\", \"*\"]"),
                "token 1: \"b\": \"*\" stands for all tenants, and alone",
            ),
            (
                format!("{good}{}", entry("agents", &two, "[\"read\"]", "[\"b\"]")),
                "token 2: the name \"agents\" is taken",
            ),
            (
                format!("{good}{}", entry("b", &one, "[\"read\"]", "[\"b\"]")),
                "token 2: \"b\" has the sha256 of another",
            ),
            (format!("{good}role = \"read\"\n"), "unknown field `role`"),
        ] {
            let error = parsed(&text).expect_err(reason);
            assert!(error.starts_with("auth.tokens-file tokens.toml: ") && error.contains(reason), "{error}");
        }
        assert!(parsed(&good).is_ok());
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.toml");
        assert!(matches!(read_contents(&path), Err(Error::Read { .. })));
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize]).expect("a file");
        assert!(read_contents(&path).is_ok());
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).expect("a file");
        assert!(matches!(read_contents(&path), Err(Error::TooLarge { .. })));
    }
}
