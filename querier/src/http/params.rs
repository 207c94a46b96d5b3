//! The parameters of a URL, taken by name and once each; what nobody took is refused by name.
//!
//! A misspelt `sevice=` that silently selects everything costs an hour of somebody's night, hence the strictness. Two names are
//! let pass unread: `seconds` and `debug`, which `go tool pprof` and habits from `/debug/pprof` add to any URL.

use std::collections::BTreeMap;

use afterglow_proto::Duration;
use url::form_urlencoded;

/// What tools add to any profile's URL without meaning it for us.
const IGNORED: [&str; 2] = ["debug", "seconds"];

/// What may stand several times.
const REPEATED: [&str; 1] = ["call_site"];

/// The parameters that are not taken yet.
#[derive(Debug)]
pub(crate) struct Params {
    left: BTreeMap<String, String>,
    /// The values of [`REPEATED`], in the order in which they stand.
    lists: Vec<(&'static str, String)>,
    known: Vec<&'static str>,
}

/// Why parameters are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A name stands twice.
    #[error("parameter {name:?} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// Names that the question does not have.
    #[error("unknown parameter{} {}; known are {}", if names.len() > 1 { "s" } else { "" }, names.join(", "), if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    Unknown {
        /// The names.
        names: Vec<String>,
        /// Those that it has.
        known: Vec<&'static str>,
    },
    /// A value that is none of the few that are meant.
    #[error("parameter {name:?}: {value:?} is not {expected}")]
    Value {
        /// The name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
}

// === impl Params ===

impl Params {
    /// Parses the query part of a URL.
    ///
    /// # Errors
    /// [`Error::Twice`].
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Error> {
        let (mut left, mut lists) = (BTreeMap::new(), Vec::new());
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if IGNORED.contains(&&*name) {
                continue;
            }
            if let Some(list) = REPEATED.into_iter().find(|list| *list == name) {
                lists.push((list, value.into_owned()));
                continue;
            }
            if left.contains_key(&*name) {
                return Err(Error::Twice { name: name.into_owned() });
            }
            left.insert(name.into_owned(), value.into_owned());
        }
        Ok(Self { left, lists, known: Vec::new() })
    }

    /// Takes a text. An empty one counts as missing, as forms send it.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_empty())
    }

    /// Takes a list, one of [`REPEATED`]: given several times, each value is an item as it stands; given once, separators part its items.
    pub(crate) fn repeated(&mut self, name: &'static str, separator: char) -> Vec<String> {
        self.known.push(name);
        let items: Vec<String> = self.lists.extract_if(.., |(list, _)| *list == name).map(|(_, value)| value).collect();
        match &items[..] {
            [text] if text.is_empty() => Vec::new(),
            [text] => text.split(separator).map(str::to_owned).collect(),
            _ => items,
        }
    }

    /// Takes the first of several names for the same thing.
    ///
    /// # Errors
    /// [`Error::Twice`] when more than one of them is given.
    pub(crate) fn either(&mut self, names: [&'static str; 2]) -> Result<Option<(&'static str, String)>, Error> {
        let [first, second] = names.map(|name| self.text(name).map(|value| (name, value)));
        match (first, second) {
            (Some((name, _)), Some(_)) => Err(Error::Twice { name: name.to_owned() }),
            (first, second) => Ok(first.or(second)),
        }
    }

    /// Takes a number.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u32>, Error> {
        self.text(name)
            .map(|value| {
                let expected = "a whole number between 0 and 4294967295";
                value.parse().map_err(|_| Error::Value { name, value, expected })
            })
            .transpose()
    }

    /// Takes a number that may have a fraction.
    ///
    /// # Errors
    /// [`Error::Value`]; infinity is no number here, nor is what is none.
    pub(crate) fn decimal(&mut self, name: &'static str) -> Result<Option<f64>, Error> {
        self.text(name)
            .map(|value| match value.parse() {
                Ok(number) if f64::is_finite(number) => Ok(number),
                _ => Err(Error::Value { name, value, expected: "a finite number" }),
            })
            .transpose()
    }

    /// Takes a list, whose entries stand between commas; spaces around them do not count.
    pub(crate) fn list(&mut self, name: &'static str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// Takes a list that is not to be empty where it is given: what would be all if it were not there.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub(crate) fn some(&mut self, name: &'static str) -> Result<Vec<String>, Error> {
        let is_given = self.left.contains_key(name);
        match self.list(name) {
            items if items.is_empty() && is_given => {
                Err(Error::Value { name, value: String::new(), expected: "one or more, between commas" })
            }
            items => Ok(items),
        }
    }

    /// Takes a length of time: seconds, or numbers with their units such as `1m 30s`.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub(crate) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Error> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let length = value.parse().ok().map(std::time::Duration::from_secs);
        let length = length.or_else(|| humantime::parse_duration(&value).ok());
        let parts =
            length.and_then(|length| Some((i64::try_from(length.as_secs()).ok()?, length.subsec_nanos() as i32)));
        match parts {
            Some((seconds, nanos)) => Ok(Some(Duration { seconds, nanos })),
            None => {
                Err(Error::Value { name, value, expected: "a length of time of whole nanoseconds, such as 30s or 5m" })
            }
        }
    }

    /// Takes a flag: `true`, `1` or the bare name mean yes, `false` and `0` no.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        self.known.push(name);
        match self.left.remove(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(Error::Value { name, value: other.to_owned(), expected: "true or false" }),
        }
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// [`Error::Unknown`] when something is left.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.left.is_empty() && self.lists.is_empty() {
            return Ok(());
        }
        let mut names: Vec<String> = self.left.into_keys().collect();
        names.extend(self.lists.into_iter().map(|(name, _)| name.to_owned()));
        names.dedup();
        Err(Error::Unknown { names: names.iter().map(|name| format!("{name:?}")).collect(), known: self.known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_taken_once() {
        let mut params = Params::parse(Some("query=%7Ba%3D%22b+c%22%7D&limit=7&raw&type=")).unwrap();
        assert_eq!(params.text("query").as_deref(), Some("{a=\"b c\"}"));
        assert_eq!(params.number("limit"), Ok(Some(7)));
        assert_eq!(params.flag("raw"), Ok(true));
        assert_eq!(params.text("type"), None);
        assert_eq!(params.finish(), Ok(()));
    }

    #[test]
    fn lengths_of_time_are_seconds_or_have_units() {
        let length = |text: &str| Params::parse(Some(&format!("step={text}"))).unwrap().duration("step");
        assert_eq!(length("15"), Ok(Some(Duration { seconds: 15, nanos: 0 })));
        assert_eq!(length("1m30s5ms"), Ok(Some(Duration { seconds: 90, nanos: 5_000_000 })));
        assert_eq!(length(""), Ok(None));
        assert_eq!(
            length("0.1ns").unwrap_err().to_string(),
            r#"parameter "step": "0.1ns" is not a length of time of whole nanoseconds, such as 30s or 5m"#
        );
        assert!(length("-5s").is_err() && length("18446744073709551615").is_err());
    }

    #[test]
    fn lists_stand_between_commas() {
        let mut params = Params::parse(Some("by=service,%20dc,,")).unwrap();
        assert_eq!(params.list("by"), ["service", "dc"]);
        assert_eq!(params.list("none"), [""; 0]);
    }

    #[test]
    fn lists_stand_once_with_separators_or_several_times() {
        let list = |query| {
            let mut params = Params::parse(Some(query)).unwrap();
            let list = params.repeated("call_site", ';');
            params.finish().unwrap();
            list
        };
        assert_eq!(list("call_site=main;a.b"), ["main", "a.b"]);
        assert_eq!(list("call_site=main&call_site=Ljava;"), ["main", "Ljava;"]);
        assert_eq!(list("call_site="), [""; 0]);
        assert_eq!(list(""), [""; 0]);
        let error = Params::parse(Some("call_site=a&call_site=b")).unwrap().finish().unwrap_err();
        assert_eq!(error.to_string(), r#"unknown parameter "call_site"; known are none"#);
    }

    #[test]
    fn what_tools_add_is_ignored() {
        let mut params = Params::parse(Some("seconds=30&query={}&debug=0&seconds=1")).unwrap();
        params.text("query");
        assert_eq!(params.finish(), Ok(()));
    }

    #[test]
    fn refusals_say_what_would_do() {
        let mut params = Params::parse(Some("sevice=api&query={}&typ=cpu")).unwrap();
        params.text("query");
        params.text("type");
        let error = params.finish().unwrap_err();
        assert_eq!(error.to_string(), r#"unknown parameters "sevice", "typ"; known are query, type"#);

        assert_eq!(Params::parse(Some("a=1&a=2")).unwrap_err().to_string(), r#"parameter "a" is given twice"#);
        let both = Params::parse(Some("start=1&from=2")).unwrap().either(["start", "from"]).unwrap_err();
        assert_eq!(both.to_string(), r#"parameter "start" is given twice"#);
        let limit = Params::parse(Some("limit=many")).unwrap().number("limit").unwrap_err();
        let expected = "is not a whole number between 0 and 4294967295";
        assert_eq!(limit.to_string(), format!("parameter \"limit\": \"many\" {expected}"));
        let large = Params::parse(Some("limit=4294967296")).unwrap().number("limit").unwrap_err();
        assert_eq!(large.to_string(), format!("parameter \"limit\": \"4294967296\" {expected}"));
        for text in ["inf", "-infinity", "NaN", "1e999", "much"] {
            let decimal =
                Params::parse(Some(&format!("min_change={text}"))).unwrap().decimal("min_change").unwrap_err();
            assert_eq!(decimal.to_string(), format!("parameter \"min_change\": {text:?} is not a finite number"));
        }
        let raw = Params::parse(Some("raw=maybe")).unwrap().flag("raw").unwrap_err();
        assert_eq!(raw.to_string(), r#"parameter "raw": "maybe" is not true or false"#);
    }
}
