//! The labels of a profile: validated, sorted, cheap to clone.
//!
//! `service` is the one that every stored profile has; the profile type is told apart and is not among them. Names are
//! `[a-zA-Z_][a-zA-Z0-9_.-]*`, and those that begin with `__` are reserved. Values are any text without control characters other than
//! newline and tab: nothing here needs escaping in a path or a header, since no key in the bucket contains a label. A label with an
//! empty value is kept; selectors take it for a missing one, as Prometheus does.

use std::fmt;
use std::sync::Arc;

/// The name of the label that says which service a profile is of.
pub const SERVICE: &str = "service";

/// The name under which selectors know the profile type; no label may have it.
pub const TYPE: &str = "type";

/// The most labels of a profile.
pub const COUNT_MAX: usize = 64;
/// The most bytes of a name.
pub const NAME_BYTES_MAX: usize = 128;
/// The most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 2048;
/// The most bytes of the value of [`SERVICE`].
pub const SERVICE_BYTES_MAX: usize = 256;

/// A refusal of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are too many.
    #[error("{count} labels exceed the limit of {COUNT_MAX}")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// A label without a name.
    #[error("label name is empty")]
    NameEmpty,
    /// A name that is too long.
    #[error("label name of {bytes} bytes exceeds the limit of {NAME_BYTES_MAX}: {start:?}…")]
    NameLength {
        /// Its length.
        bytes: usize,
        /// Its first characters.
        start: String,
    },
    /// A name with a character that names do not have.
    #[error("label name {name:?} is not of the form [a-zA-Z_][a-zA-Z0-9_.-]*")]
    NameCharacters {
        /// The name.
        name: String,
    },
    /// A name that is ours.
    #[error("label name {name:?} is reserved")]
    NameReserved {
        /// The name.
        name: String,
    },
    /// Two labels of one name.
    #[error("label name {name:?} is a duplicate")]
    NameDuplicate {
        /// The name.
        name: String,
    },
    /// A value that is too long.
    #[error("value of label {name:?} has {bytes} bytes, which exceeds the limit of {limit}")]
    ValueLength {
        /// The name of the label.
        name: String,
        /// The length of the value.
        bytes: usize,
        /// The most bytes allowed.
        limit: usize,
    },
    /// A value with a control character other than newline and tab.
    #[error("value of label {name:?} has the control character {character:?} at byte {byte}")]
    ValueCharacter {
        /// The name of the label.
        name: String,
        /// The character.
        character: char,
        /// Where it stands in the value.
        byte: usize,
    },
    /// There is no service, or its value is empty.
    #[error("label \"service\" is required and must not be empty")]
    ServiceMissing,
}

/// Labels, sorted by name, each name once. Equal labels are equal values; clones share memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    pairs: Arc<[(Box<str>, Box<str>)]>,
}

impl Labels {
    /// Creates labels from pairs of name and value in any order.
    ///
    /// # Errors
    /// Says which label breaks which rule. A missing service is none here: see [`Labels::require_service`].
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error> {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        if pairs.len() > COUNT_MAX {
            return Err(Error::Count { count: pairs.len() });
        }
        for (name, value) in &pairs {
            check_name(name)?;
            check_value(name, value)?;
        }
        pairs.sort_unstable();
        match pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(Error::NameDuplicate { name: pair[0].0.to_string() }),
            None => Ok(Self { pairs: pairs.into() }),
        }
    }

    /// Returns the value of the label `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.pairs.binary_search_by(|pair| (*pair.0).cmp(name)).ok()?;
        Some(&self.pairs[at].1)
    }

    /// Returns the service, or the empty string where none is said.
    pub fn service(&self) -> &str {
        self.get(SERVICE).unwrap_or_default()
    }

    /// Returns the service.
    ///
    /// # Errors
    /// There is none, or it is empty: such a profile is not stored.
    pub fn require_service(&self) -> Result<&str, Error> {
        match self.service() {
            "" => Err(Error::ServiceMissing),
            service => Ok(service),
        }
    }

    /// Returns names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self { pairs: Arc::new([]) }
    }
}

/// Shows them as a selector that matches them: `{dc="eu-1",service="api"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}=", if i == 0 { "" } else { "," })?;
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

/// Writes a string as selectors quote it: in double quotes, with the escapes that Prometheus and Go know.
pub(crate) fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Returns whether a name consists of the characters that names may have.
pub(crate) fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let starts = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    bytes.first().is_some_and(starts) && bytes.iter().all(|&b| is_name_byte(b))
}

/// Returns whether a byte may stand in a name, if not at its start.
pub(crate) fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')
}

fn check_name(name: &str) -> Result<(), Error> {
    /// Enough of a long name to find it.
    const SHOWN_CHARS: usize = 32;

    if name.is_empty() {
        Err(Error::NameEmpty)
    } else if name.len() > NAME_BYTES_MAX {
        Err(Error::NameLength { bytes: name.len(), start: name.chars().take(SHOWN_CHARS).collect() })
    } else if !is_name(name) {
        Err(Error::NameCharacters { name: name.to_owned() })
    } else if name.starts_with("__") || name == TYPE {
        Err(Error::NameReserved { name: name.to_owned() })
    } else {
        Ok(())
    }
}

fn check_value(name: &str, value: &str) -> Result<(), Error> {
    let limit = if name == SERVICE { SERVICE_BYTES_MAX } else { VALUE_BYTES_MAX };
    if value.len() > limit {
        return Err(Error::ValueLength { name: name.to_owned(), bytes: value.len(), limit });
    }
    // Newline and tab do occur, in command lines and descriptions; the others only confuse terminals and tables.
    match value.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\t')) {
        Some((byte, character)) => Err(Error::ValueCharacter { name: name.to_owned(), character, byte }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        Labels::new(pairs.iter().copied()).expect_err("they are refused").to_string()
    }

    #[test]
    fn labels_are_sorted_and_equal_whatever_their_order() {
        let labels = Labels::new([("service", "api"), ("dc", "eu-1")]).expect("they are valid");
        assert_eq!(labels, Labels::new([("dc", "eu-1"), ("service", "api")]).expect("they are valid"));
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("dc", "eu-1"), ("service", "api")]);
        assert_eq!((labels.get("dc"), labels.get("zone"), labels.service()), (Some("eu-1"), None, "api"));
        assert_eq!(labels.to_string(), r#"{dc="eu-1",service="api"}"#);
    }

    #[test]
    fn values_may_look_like_paths_and_hold_any_text() {
        for value in ["../../x", "a/b", "%2e%2e", "two\nlines\tand a tab", "\u{1f525}", "", "a\"b\\c"] {
            let labels = Labels::new([("service", value)]).expect("it is valid");
            assert_eq!(labels.service(), value);
        }
        let longest = "x".repeat(VALUE_BYTES_MAX);
        assert!(Labels::new([("a", longest.as_str())]).is_ok());
    }

    #[test]
    fn names_follow_their_form() {
        for name in ["a", "_", "_a", "k8s.pod-name", "A9", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(Labels::new([(name, "x")]).is_ok(), "{name}");
        }
        assert_eq!(refusal(&[("", "x")]), "label name is empty");
        for name in ["1a", ".a", "-a", "a b", "a/b", "é", "a\n"] {
            let text = format!("label name {name:?} is not of the form [a-zA-Z_][a-zA-Z0-9_.-]*");
            assert_eq!(refusal(&[(name, "x")]), text);
        }
        assert_eq!(refusal(&[("__name__", "x")]), "label name \"__name__\" is reserved");
        assert_eq!(refusal(&[("type", "x")]), "label name \"type\" is reserved");
        assert_eq!(refusal(&[("a", "x"), ("b", "x"), ("a", "y")]), "label name \"a\" is a duplicate");
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(
            refusal(&[(&long, "x")]),
            format!("label name of 129 bytes exceeds the limit of 128: \"{}\"…", "x".repeat(32))
        );
    }

    #[test]
    fn counts_and_lengths_are_limited() {
        let many: Vec<_> = (0..=COUNT_MAX).map(|i| (format!("l{i}"), "x")).collect();
        assert!(Labels::new(many[..COUNT_MAX].iter().cloned()).is_ok());
        assert_eq!(Labels::new(many).expect_err("too many").to_string(), "65 labels exceed the limit of 64");
        assert_eq!(
            refusal(&[("a", &"x".repeat(2049))]),
            "value of label \"a\" has 2049 bytes, which exceeds the limit of 2048"
        );
        assert_eq!(
            refusal(&[("service", &"x".repeat(257))]),
            "value of label \"service\" has 257 bytes, which exceeds the limit of 256"
        );
    }

    #[test]
    fn control_characters_are_refused_with_their_place() {
        assert_eq!(refusal(&[("a", "x\0")]), "value of label \"a\" has the control character '\\0' at byte 1");
        assert_eq!(
            refusal(&[("a", "\u{1b}[2J")]),
            "value of label \"a\" has the control character '\\u{1b}' at byte 0"
        );
        assert_eq!(refusal(&[("a", "\u{85}")]), "value of label \"a\" has the control character '\\u{85}' at byte 0");
    }

    #[test]
    fn the_service_is_required_where_a_profile_is_stored() {
        let text = "label \"service\" is required and must not be empty";
        for labels in [Labels::default(), Labels::new([("service", "")]).expect("it is valid")] {
            assert_eq!(labels.require_service().expect_err("it is missing").to_string(), text);
        }
        assert_eq!(Labels::new([("service", "api")]).expect("it is valid").require_service(), Ok("api"));
    }
}
