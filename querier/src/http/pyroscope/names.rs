//! What Pyroscope calls things, and what we call them (docs/decisions/0029-grafana-asks-as-it-asks-pyroscope.md).
//!
//! `service_name` there is `service` here. A profile type there is one sample type of one of ours, written `name:sample type:sample
//! unit:period type:period unit`. The name is our profile type, but for the two by which Grafana knows what to make of a value. The period is
//! what Go's profiles have: nothing is looked up by it.

use std::collections::BTreeSet;

use afterglow_profile::labels::{SERVICE, TYPE};
use afterglow_profile::selector::Op;
use afterglow_profile::{ProfileType, Selector};
use afterglow_proto::pyroscope::types::v1::{LabelPair, ProfileType as Known};
use afterglow_proto::{Timestamp, v1};
use afterglow_service::Failure;
use afterglow_store::catalog::SeriesCount;

use crate::window;

/// The label that says the service.
const SERVICE_NAME: &str = "service_name";

/// The label that says the id of the profile type.
pub(super) const PROFILE_TYPE: &str = "__profile_type__";

/// Profile types that are called otherwise there: ours first.
const RENAMED: [(&str, &str); 2] = [("cpu", "process_cpu"), ("heap", "memory")];

/// The most selectors of a question, each of which is a question here.
const MATCHERS_MAX: usize = 8;

/// How many nanoseconds a millisecond has.
const NANOS_PER_MILLI: i64 = 1_000_000;

/// A profile type and one of its sample types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeId {
    /// The profile type, as we call it.
    pub(super) profile_type: String,
    /// What is counted.
    pub(super) sample_type: String,
    /// The unit.
    pub(super) sample_unit: String,
}

/// Which profiles a question is about.
#[derive(Debug)]
pub(super) struct Selected {
    /// As we ask.
    pub(super) selection: v1::Selection,
    /// The profile type that is meant, if one is.
    pub(super) type_id: Option<TypeId>,
}

/// Returns how one of our labels is called there.
pub(super) fn shown(label: &str) -> &str {
    if label == SERVICE { SERVICE_NAME } else { label }
}

/// Returns which of our labels is meant.
pub(super) fn meant(label: &str) -> &str {
    if label == SERVICE_NAME { SERVICE } else { label }
}

/// Returns a time in milliseconds since 1970.
pub(super) fn millis(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos) / NANOS_PER_MILLI)
}

/// Reads which profiles are meant by a selector, the field `field` of the question. The window is that between two times, in milliseconds since
/// 1970, of which 0 is none.
///
/// # Errors
/// The selector is malformed, or names a profile type that is none or another one than `type_id`.
pub(super) fn select(
    field: &str,
    selector: &str,
    mut type_id: Option<TypeId>,
    (start, end): (i64, i64),
) -> Result<Selected, Failure> {
    let invalid = |reason: String| Failure::invalid(format!("{field}: {reason}"));
    let mut selector = Selector::parse(selector).map_err(|error| invalid(error.to_string()))?;
    selector.rename(SERVICE_NAME, SERVICE);
    for matcher in selector.take(PROFILE_TYPE) {
        if matcher.op() != Op::Equal {
            return Err(invalid(format!("{PROFILE_TYPE} goes with = alone, not {}", matcher.op().as_str())));
        }
        let named =
            TypeId::parse(PROFILE_TYPE, matcher.value()).map_err(|failure| invalid(failure.message().to_owned()))?;
        if type_id.as_ref().is_some_and(|known| *known != named) {
            return Err(invalid(format!("{PROFILE_TYPE} is another profile type than the one that is asked for")));
        }
        type_id = Some(named);
    }
    let at = |millis: i64| (millis != 0).then(|| window::timestamp(millis.saturating_mul(NANOS_PER_MILLI)));
    let selection = v1::Selection {
        query: selector.to_string(),
        r#type: type_id.as_ref().map(|id| id.profile_type.clone()).unwrap_or_default(),
        start: at(start),
        end: at(end),
        read_token: String::new(),
    };
    Ok(Selected { selection, type_id })
}

/// Reads which profiles are meant where any of several selectors may select them; none at all means all.
///
/// # Errors
/// As [`select`], and where there are too many.
pub(super) fn select_any(matchers: &[String], window: (i64, i64)) -> Result<Vec<Selected>, Failure> {
    if matchers.len() > MATCHERS_MAX {
        let (given, max) = (matchers.len(), MATCHERS_MAX);
        return Err(Failure::invalid(format!("matchers are {given} selectors, more than the {max} of a question")));
    }
    let distinct: BTreeSet<&str> = matchers.iter().map(String::as_str).collect();
    if distinct.is_empty() {
        return Ok(vec![select("matchers", "", None, window)?]);
    }
    distinct.into_iter().map(|selector| select("matchers", selector, None, window)).collect()
}

// === impl TypeId ===

impl TypeId {
    /// Reads an id, the field `field` of a question. What follows the sample unit may be anything.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = text.split(':').collect();
        let read = match parts[..] {
            [name, kind, unit, _, _] | [name, kind, unit, _, _, "delta"] if !kind.is_empty() => {
                let renamed = RENAMED.iter().find(|(_, theirs)| *theirs == name);
                let own = renamed.map_or(name, |(ours, _)| *ours);
                ProfileType::parse(own).ok().map(|profile_type| (profile_type, kind, unit))
            }
            _ => None,
        };
        let Some((profile_type, kind, unit)) = read else {
            /// Enough of a long one to find it.
            const SHOWN_CHARS: usize = 128;
            let shown: String = text.chars().take(SHOWN_CHARS).collect();
            return Err(Failure::invalid(format!(
                "{field} {shown:?} is not NAME:SAMPLE_TYPE:SAMPLE_UNIT:PERIOD_TYPE:PERIOD_UNIT, such as \
                 process_cpu:cpu:nanoseconds:cpu:nanoseconds"
            )));
        };
        Ok(Self {
            profile_type: profile_type.as_str().to_owned(),
            sample_type: kind.to_owned(),
            sample_unit: unit.to_owned(),
        })
    }

    /// Makes sure that an answer is in the unit that the id says, for whoever asks shows it as that.
    ///
    /// # Errors
    /// It is in another.
    pub(super) fn check_unit(&self, answered: Option<&v1::SampleType>) -> Result<(), Failure> {
        match answered {
            Some(v1::SampleType { r#type, unit }) if *unit != self.sample_unit => Err(Failure::invalid(format!(
                "profile_typeID says {:?} as the unit of {:?}, but what is selected counts {type} in {unit:?}",
                self.sample_unit, self.sample_type
            ))),
            _ => Ok(()),
        }
    }

    /// Returns whether it is the id of this sample type.
    fn is_of(&self, known: &Known) -> bool {
        self.sample_type == known.sample_type && self.sample_unit == known.sample_unit
    }
}

/// Returns what a sample type of a profile type is called there; none where nobody could ask for it: a type of one's own under one of their names,
/// a name with a colon.
pub(super) fn known(profile_type: &str, kind: &str, unit: &str) -> Option<Known> {
    let is_taken = RENAMED.iter().any(|(_, theirs)| *theirs == profile_type);
    if is_taken || kind.is_empty() || kind.contains(':') || unit.contains(':') {
        return None;
    }
    let renamed = RENAMED.iter().find(|(ours, _)| *ours == profile_type);
    let name = renamed.map_or(profile_type, |(_, theirs)| *theirs);
    let (period_type, period_unit) = match profile_type {
        "cpu" => ("cpu", "nanoseconds"),
        "heap" | "allocs" => ("space", "bytes"),
        "goroutine" => ("goroutine", "count"),
        "mutex" | "block" => ("contentions", "count"),
        "threadcreate" => ("threadcreate", "count"),
        _ => (kind, unit),
    };
    Some(Known {
        id: format!("{name}:{kind}:{unit}:{period_type}:{period_unit}"),
        name: name.to_owned(),
        sample_type: kind.to_owned(),
        sample_unit: unit.to_owned(),
        period_type: period_type.to_owned(),
        period_unit: period_unit.to_owned(),
    })
}

/// Returns what is known there of a profile type, by its sample types; of these only the one that is meant, where one is.
pub(super) fn known_of<'a>(
    profile_type: &str,
    sample_types: impl Iterator<Item = (&'a str, &'a str)>,
    meant: Option<&TypeId>,
) -> impl Iterator<Item = Known> {
    let known = sample_types.filter_map(move |(kind, unit)| known(profile_type, kind, unit));
    known.filter(move |known| meant.is_none_or(|id| id.is_of(known)))
}

/// Returns the sets of labels that a series is there: one for each sample type. Of labels only those of `names`, if there are any.
pub(super) fn label_sets(
    counted: &SeriesCount,
    names: &BTreeSet<&str>,
    meant: Option<&TypeId>,
) -> impl Iterator<Item = Vec<LabelPair>> {
    let is_asked = move |name: &str| names.is_empty() || names.contains(name);
    let pair = |name: &str, value: &str| LabelPair { name: name.to_owned(), value: value.to_owned() };
    let series = &counted.series;
    let own = series.labels.iter().filter(|(name, value)| *name != SERVICE_NAME && !value.is_empty());
    let own = own.map(|(name, value)| (shown(name), value)).filter(|(name, _)| is_asked(name));
    let own: Vec<LabelPair> = own.map(|(name, value)| pair(name, value)).collect();
    let sample_types = counted.sample_types.iter().map(|counts| (&*counts.kind, &*counts.unit));
    let profile_type = series.profile_type.as_str();
    let known = known_of(profile_type, sample_types, meant);
    known.map(move |known| {
        let said = [
            ("__name__", &known.name),
            ("__period_type__", &known.period_type),
            ("__period_unit__", &known.period_unit),
            (PROFILE_TYPE, &known.id),
            ("__type__", &known.sample_type),
            ("__unit__", &known.sample_unit),
        ];
        let said = said.into_iter().map(|(name, value)| (name, value.as_str())).chain([(TYPE, profile_type)]);
        let said = said.filter(|(name, _)| is_asked(name)).map(|(name, value)| pair(name, value));
        let mut labels: Vec<LabelPair> = said.chain(own.iter().cloned()).collect();
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        labels
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TypeId, String> {
        TypeId::parse("profile_typeID", text).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn ids_are_read_by_their_names_and_by_ours() {
        let cpu = TypeId {
            profile_type: "cpu".to_owned(),
            sample_type: "cpu".to_owned(),
            sample_unit: "nanoseconds".to_owned(),
        };
        for text in [
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta",
            "cpu:cpu:nanoseconds::",
        ] {
            assert_eq!(parse(text), Ok(cpu.clone()), "{text}");
        }
        assert_eq!(parse("memory:inuse_space:bytes:space:bytes").unwrap().profile_type, "heap");
        for text in ["", "cpu", "cpu:cpu:nanoseconds", "cpu::nanoseconds:cpu:nanoseconds", "CPU:a:b:c:d", "a:b:c:d:e:f"]
        {
            let expected = format!(
                "profile_typeID {text:?} is not NAME:SAMPLE_TYPE:SAMPLE_UNIT:PERIOD_TYPE:PERIOD_UNIT, such as \
                 process_cpu:cpu:nanoseconds:cpu:nanoseconds"
            );
            assert_eq!(parse(text), Err(expected));
        }
    }

    /// Goal: whatever is listed can be asked for, and Grafana knows the ids of what Go has.
    #[test]
    fn what_is_listed_can_be_asked_for() {
        for (profile_type, kind, unit, id) in [
            ("cpu", "cpu", "nanoseconds", "process_cpu:cpu:nanoseconds:cpu:nanoseconds"),
            ("cpu", "samples", "count", "process_cpu:samples:count:cpu:nanoseconds"),
            ("heap", "inuse_space", "bytes", "memory:inuse_space:bytes:space:bytes"),
            ("allocs", "alloc_space", "bytes", "allocs:alloc_space:bytes:space:bytes"),
            ("goroutine", "goroutine", "count", "goroutine:goroutine:count:goroutine:count"),
            ("mutex", "delay", "nanoseconds", "mutex:delay:nanoseconds:contentions:count"),
            ("block", "contentions", "count", "block:contentions:count:contentions:count"),
            ("exceptions", "thrown", "count", "exceptions:thrown:count:thrown:count"),
        ] {
            let known = known(profile_type, kind, unit).unwrap();
            assert_eq!(known.id, id);
            let read = parse(id).unwrap();
            assert_eq!((&*read.profile_type, &*read.sample_type, &*read.sample_unit), (profile_type, kind, unit));
            assert!(read.is_of(&known));
        }
        assert_eq!(known("memory", "inuse_space", "bytes"), None, "it would be asked for as heap");
        assert_eq!(known("cpu", "a:b", "count"), None);
    }

    #[test]
    fn selectors_speak_of_our_labels() {
        let select = |text: &str| select("label_selector", text, None, (1_500, 0));
        let selected =
            select(r#"{service_name=~"a.*",__profile_type__="memory:inuse_space:bytes:space:bytes",dc="eu"}"#).unwrap();
        assert_eq!(selected.selection.query, r#"{service=~"a.*",dc="eu"}"#);
        assert_eq!(selected.selection.r#type, "heap");
        assert_eq!(selected.type_id.unwrap().sample_type, "inuse_space");
        assert_eq!(selected.selection.start, Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(selected.selection.end, None);
        let refusal = |text: &str| select(text).unwrap_err().message().to_owned();
        assert_eq!(
            refusal("{service_name"),
            "label_selector: selector is wrong at byte 13: expected one of = != =~ !~, found the end"
        );
        assert_eq!(
            refusal(r#"{__profile_type__=~"memory.*"}"#),
            "label_selector: __profile_type__ goes with = alone, not =~"
        );
        assert!(
            refusal(r#"{__profile_type__="memory"}"#)
                .starts_with("label_selector: __profile_type__ \"memory\" is not NAME")
        );
    }
}
