//! Grouping: which labels tell groups of profiles apart, and the group of each profile.

use std::collections::{BTreeMap, HashMap};

use afterglow_profile::labels::{NAME_BYTES_MAX, TYPE};
use afterglow_store::block::SampleType;
use afterglow_store::catalog::Match;

use super::Error;
use super::selection::Selection;
use super::shown::Shown;

/// The most labels that a question groups by: each is looked up in every series.
const LABELS_MAX: usize = 8;

/// The most characters of a name that is none which a message shows.
const NAME_SHOWN_MAX: usize = 64;

/// The labels to group by, in the order of their names; none means one group of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct By(Vec<String>);

/// The groups of selected profiles.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    by: &'a By,
    /// The group of each profile, as an index into `values`.
    pub(super) of: Vec<u32>,
    /// The values of each group's labels.
    values: Vec<Vec<&'a str>>,
}

// === impl By ===

impl By {
    /// Reads the labels of a request. One that stands twice counts once.
    ///
    /// # Errors
    /// A name is empty or longer than any label's, or there are too many.
    pub(super) fn read(mut names: Vec<String>) -> Result<Self, Error> {
        if names.len() > LABELS_MAX {
            return Err(Error::TooManyLabels { labels: names.len(), max: LABELS_MAX });
        }
        if let Some(name) = names.iter().find(|name| !(1..=NAME_BYTES_MAX).contains(&name.len())) {
            return Err(Error::By { name: name.chars().take(NAME_SHOWN_MAX).collect() });
        }
        names.sort_unstable();
        names.dedup();
        Ok(Self(names))
    }

    /// Returns whether everything is one group.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the group of each of `matches`.
    ///
    /// # Errors
    /// [`Error::Types`] where they are of several types, which go together only where the type tells groups apart.
    pub(super) fn groups<'a>(&'a self, matches: &'a [Match], selection: &Selection) -> Result<Groups<'a>, Error> {
        self.check_types(matches, selection)?;
        let mut groups = Groups { by: self, of: Vec::with_capacity(matches.len()), values: Vec::new() };
        let mut known: HashMap<Vec<&str>, u32> = HashMap::new();
        // Profiles of a series mostly follow each other, so few labels are looked up.
        let mut last: Option<(&Match, u32)> = None;
        for found in matches {
            let group = match last {
                Some((last, group)) if last.has_series_of(found) => group,
                _ => {
                    let values: Vec<&str> = self.0.iter().map(|name| value(found, name)).collect();
                    *known.entry(values).or_insert_with_key(|values| {
                        groups.values.push(values.clone());
                        u32::try_from(groups.values.len() - 1)
                            .expect("a group a profile, and a view holds fewer than 2^32")
                    })
                }
            };
            groups.of.push(group);
            last = Some((found, group));
        }
        Ok(groups)
    }

    fn check_types(&self, matches: &[Match], selection: &Selection) -> Result<(), Error> {
        if self.0.iter().any(|name| name == TYPE) {
            return Ok(());
        }
        let mut types: Vec<&str> = matches.iter().map(|found| found.profile_type().as_str()).collect();
        types.dedup();
        types.sort_unstable();
        types.dedup();
        if types.len() > 1 {
            let types = types.into_iter().map(str::to_owned).collect();
            return Err(Error::Types { selection: selection.to_string(), types });
        }
        Ok(())
    }
}

/// Returns a label's value, empty where it is missing; the profile type counts as one.
fn value<'a>(found: &'a Match, name: &str) -> &'a str {
    match name {
        TYPE => found.profile_type().as_str(),
        name => found.labels().get(name).unwrap_or_default(),
    }
}

// === impl Groups ===

impl Groups<'_> {
    /// Returns how many groups there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Names the labels that no profile has: whoever misspelt one sees everything in one group, and would wonder.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let is_lacking = |at: usize| !self.values.is_empty() && self.values.iter().all(|values| values[at].is_empty());
        let lacking = self.by.0.iter().enumerate().filter(move |(at, _)| is_lacking(*at));
        lacking.map(|(_, name)| format!("by: no selected profile has a label {name:?}, which so tells nothing apart"))
    }

    /// Finds what is shown of `matches`, which are those of the groups.
    ///
    /// # Errors
    /// As [`Shown::new`]; but where they are of several types and those count different things, [`Error::TypesApart`] says so: no label tells
    /// them apart then, nor does time.
    pub(super) fn shown<'m>(
        &self,
        matches: &'m [Match],
        asked: &str,
        selection: &Selection,
    ) -> Result<Shown<'m>, Error> {
        Shown::new(matches, asked).map_err(|error| {
            let mut types: BTreeMap<&str, &[SampleType]> = BTreeMap::new();
            matches
                .iter()
                .for_each(|found| _ = types.entry(found.profile_type().as_str()).or_insert(found.sample_types()));
            if types.len() < 2 || !matches!(error, Error::Disagreement(_)) {
                return error;
            }
            let counts =
                |of: &[SampleType]| of.iter().map(|t| format!("{}/{}", t.kind, t.unit)).collect::<Vec<_>>().join(" ");
            let types = types.into_iter().map(|(name, of)| format!("{name} counts {}", counts(of))).collect();
            Error::TypesApart { selection: selection.to_string(), types }
        })
    }

    /// Returns the labels of a group.
    pub(super) fn labels(&self, group: usize) -> BTreeMap<String, String> {
        let pairs = self.by.0.iter().zip(&self.values[group]);
        pairs.map(|(name, value)| (name.clone(), (*value).to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<By, Error> {
        By::read(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn names_stand_once_and_in_order() {
        assert_eq!(read(&["service", "dc", "service"]).unwrap(), By(vec!["dc".to_owned(), "service".to_owned()]));
        assert_eq!(read(&[]).unwrap(), By::default());
    }

    #[test]
    fn names_that_are_none_are_refused_with_the_limit() {
        assert_eq!(read(&[""]).unwrap_err().to_string(), "by: \"\" is no name of a label, which has 1 to 128 bytes");
        assert!(read(&[&"x".repeat(NAME_BYTES_MAX + 1)]).unwrap_err().to_string().contains("1 to 128 bytes"));
        assert_eq!(
            read(&["a"; LABELS_MAX + 1]).unwrap_err().to_string(),
            "by names 9 labels, more than the 8 that one question may group by"
        );
    }
}
