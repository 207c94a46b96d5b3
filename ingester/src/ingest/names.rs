//! What a sender calls a profile: its id, type and labels, and the rules for them.

use afterglow_profile::{Labels, ProfileType, labels};
use afterglow_service::Failure;
use sha2::{Digest as _, Sha256};
use ulid::Ulid;

/// An id, a type and labels as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// A ULID, or empty: mint one.
    pub(crate) id: String,
    /// The profile type, or empty: take it from the label `type`, or from the sample types.
    pub(crate) profile_type: String,
    /// Names and values in any order.
    pub(crate) labels: Vec<(String, String)>,
}

/// A type and labels that keep the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The type; `None` where the sample types are to tell.
    pub(crate) profile_type: Option<ProfileType>,
    /// The labels, `service` among them, `type` not.
    pub(crate) labels: Labels,
}

impl Names {
    /// Checks the type and the labels. The name `type` means the profile type in selectors, so a label of that name is
    /// taken for it, and must not contradict it.
    ///
    /// # Errors
    /// [`Kind::Invalid`](afterglow_service::Kind::Invalid), naming the label.
    pub(crate) fn check(&self) -> Result<Checked, Failure> {
        let mut word = self.profile_type.as_str();
        let mut pairs = Vec::with_capacity(self.labels.len());
        for (name, value) in &self.labels {
            if name != labels::TYPE {
                pairs.push((name.as_str(), value.as_str()));
            } else if word.is_empty() || word == value {
                word = value;
            } else {
                return Err(Failure::invalid(format!("label type={value:?} contradicts the profile type {word:?}")));
            }
        }
        let labels = Labels::new(pairs).map_err(|error| Failure::invalid(error.to_string()))?;
        labels.require_service().map_err(|error| Failure::invalid(error.to_string()))?;
        let profile_type = match word {
            "" => None,
            word => Some(ProfileType::parse(word).map_err(|error| Failure::invalid(error.to_string()))?),
        };
        Ok(Checked { profile_type, labels })
    }
}

/// Returns a digest of labels, to tell whether a retry brings the same.
pub(crate) fn digest(labels: &Labels) -> u64 {
    let mut hasher = Sha256::new();
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        // Neither a name nor a value has a zero in it.
        hasher.update(text.as_bytes());
        hasher.update([0]);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    u64::from_be_bytes(*digest.first_chunk().expect("it has 32 bytes"))
}

/// Reads an id; `None` for the empty text.
///
/// # Errors
/// [`Kind::Invalid`](afterglow_service::Kind::Invalid) for what is not a ULID.
pub(super) fn parse_id(text: &str) -> Result<Option<Ulid>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    // 26 digits of 5 bits hold 130; the specification has the largest ULID begin with 7.
    let fits = text.as_bytes().first().is_some_and(|digit| (b'0'..=b'7').contains(digit));
    match Ulid::from_string(text) {
        Ok(id) if fits => Ok(Some(id)),
        _ => {
            let shown: String = text.chars().take(ulid::ULID_LEN).collect();
            Err(Failure::invalid(format!("id {shown:?} is not a ULID of {} characters", ulid::ULID_LEN)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile_type: &str, labels: &[(&str, &str)]) -> Names {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Names { id: String::new(), profile_type: profile_type.to_owned(), labels }
    }

    fn refusal(names: &Names) -> String {
        names.check().expect_err("it breaks a rule").message().to_owned()
    }

    /// Goal: the type comes from the sender where it says one, by whichever way, and the label never stays.
    #[test]
    fn the_type_is_told_in_one_of_two_ways() {
        let service = ("service", "api");
        for (profile_type, labels) in
            [("cpu", &[service][..]), ("", &[service, ("type", "cpu")]), ("cpu", &[("type", "cpu"), service])]
        {
            let checked = names(profile_type, labels).check().expect("it keeps the rules");
            assert_eq!(checked.profile_type.as_ref().map(ProfileType::as_str), Some("cpu"));
            assert_eq!(checked.labels.iter().collect::<Vec<_>>(), [service]);
        }
        assert_eq!(names("", &[service]).check().expect("it keeps the rules").profile_type, None);
        let contradiction = names("cpu", &[service, ("type", "heap")]);
        assert_eq!(refusal(&contradiction), "label type=\"heap\" contradicts the profile type \"cpu\"");
        refusal(&names("CPU", &[service]));
        refusal(&names("cpu", &[("dc", "eu-1")]));
    }

    #[test]
    fn ids_are_ulids() {
        assert_eq!(parse_id(""), Ok(None));
        let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let parsed = parse_id(id).expect("a ULID").expect("not empty");
        assert_eq!(parsed.to_string(), id);
        assert_eq!(parse_id(&id.to_lowercase()), Ok(Some(parsed)));
        for bad in [
            "x",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
            &"é".repeat(13),
        ] {
            parse_id(bad).expect_err(bad);
        }
    }
}
