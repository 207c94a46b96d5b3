//! Profiles of one type that do not merge all the same, since their samples count different things: what to tell who asked.
//!
//! It happens when a runtime or an agent changes what it records: `alloc_space` appears beside `inuse_space`, nanoseconds become
//! microseconds. Merging only the majority would be a wrong answer without a word, so the question is refused, with what there
//! is and with selectors that take either.

use std::collections::BTreeSet;
use std::fmt;

use afterglow_profile::Labels;

use crate::window::Window;

/// The most values of a label that are offered in a selector; more would be no help to read.
const VALUES_MAX: usize = 3;

/// The profiles whose samples count the same.
#[derive(Clone, Debug)]
pub(crate) struct Camp {
    /// What they count, such as `samples/count cpu/nanoseconds`.
    pub(crate) counts: String,
    /// How many profiles there are.
    pub(crate) profiles: usize,
    /// The distinct labels of their series.
    pub(crate) series: Vec<Labels>,
    /// The window from the first to the last.
    pub(crate) window: Window,
}

/// Two or more camps, the largest first; its text is for whoever asked.
#[derive(Clone, Debug)]
pub(crate) struct Disagreement(Vec<Camp>);

impl Disagreement {
    /// Returns a disagreement if there is one.
    pub(crate) fn among(mut camps: Vec<Camp>) -> Option<Self> {
        camps.sort_by_key(|camp| std::cmp::Reverse(camp.profiles));
        (camps.len() > 1).then_some(Self(camps))
    }

    /// Finds the label that tells the camps apart: no value occurs in two of them. Of several it takes the one with the fewest
    /// values, for that is the cause more likely than, say, the instance.
    fn telling_label(&self) -> Option<(&str, Vec<BTreeSet<&str>>)> {
        let names: BTreeSet<&str> = self.labels().flat_map(|labels| labels.iter()).map(|(name, _)| name).collect();
        let told_apart = names.into_iter().filter_map(|name| {
            let values: Vec<BTreeSet<&str>> = self.0.iter().map(|camp| values_of(camp, name)).collect();
            let distinct: BTreeSet<&str> = values.iter().flatten().copied().collect();
            let disjoint = distinct.len() == values.iter().map(BTreeSet::len).sum::<usize>();
            disjoint.then_some((distinct.len(), name, values))
        });
        told_apart.min_by_key(|&(values, ..)| values).map(|(_, name, values)| (name, values))
    }

    fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.0.iter().flat_map(|camp| &camp.series)
    }

    /// Whether each camp lies apart from the others in time.
    fn apart_in_time(&self) -> bool {
        let mut windows: Vec<Window> = self.0.iter().map(|camp| camp.window).collect();
        windows.sort_by_key(|window| window.start_nanos);
        windows.is_sorted_by(|a, b| a.end_nanos <= b.start_nanos)
    }
}

/// Returns the values of a label in a camp; a series without it has the empty one, as selectors see it.
fn values_of<'a>(camp: &'a Camp, name: &str) -> BTreeSet<&'a str> {
    camp.series.iter().map(|labels| labels.get(name).unwrap_or_default()).collect()
}

impl std::error::Error for Disagreement {}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("profiles that count different things do not merge:")?;
        let telling = self.telling_label();
        let apart_in_time = self.apart_in_time();
        for (i, camp) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            write!(f, "{separator} {} count {}", camp.profiles, camp.counts)?;
            match &telling {
                Some((name, values)) => {
                    let mut shown: Vec<String> =
                        values[i].iter().take(VALUES_MAX).map(|value| format!("{name}={value:?}")).collect();
                    let hidden = values[i].len() - shown.len();
                    if hidden > 0 {
                        shown.push(format!("{hidden} more values of {name}"));
                    }
                    write!(f, " ({})", shown.join(", "))?;
                }
                None if apart_in_time => write!(f, " (in {})", camp.window)?,
                None => write!(f, " (such as {})", camp.series[0])?,
            }
        }
        match &telling {
            Some((name, _)) => write!(f, "; select by {name}"),
            None if apart_in_time => f.write_str("; select by start and end"),
            None => f.write_str("; select by labels or by time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camp(counts: &str, profiles: usize, series: &[&[(&str, &str)]], seconds: std::ops::Range<i64>) -> Camp {
        let labels = |pairs: &&[(&str, &str)]| Labels::new(pairs.iter().copied()).unwrap();
        Camp {
            counts: counts.to_owned(),
            profiles,
            series: series.iter().map(labels).collect(),
            window: Window { start_nanos: seconds.start * 1_000_000_000, end_nanos: seconds.end * 1_000_000_000 },
        }
    }

    fn text(camps: Vec<Camp>) -> String {
        Disagreement::among(camps).unwrap().to_string()
    }

    #[test]
    fn one_camp_agrees() {
        assert!(Disagreement::among(vec![camp("cpu/nanoseconds", 3, &[&[("service", "api")]], 0..9)]).is_none());
        assert!(Disagreement::among(Vec::new()).is_none());
    }

    #[test]
    fn the_label_that_tells_them_apart_is_named() {
        let old = camp(
            "wall/microseconds",
            2,
            &[
                &[("service", "api"), ("version", "1"), ("pod", "a")],
                &[("service", "api"), ("version", "1"), ("pod", "b")],
            ],
            0..9,
        );
        let new = camp("cpu/nanoseconds", 5, &[&[("service", "api"), ("version", "2"), ("pod", "c")]], 0..9);
        assert_eq!(
            text(vec![old, new]),
            "profiles that count different things do not merge: 5 count cpu/nanoseconds (version=\"2\"), \
             2 count wall/microseconds (version=\"1\"); select by version"
        );
    }

    #[test]
    fn a_label_that_only_some_have_tells_them_apart() {
        let old = camp("a/count", 1, &[&[("service", "api")]], 0..9);
        let new = camp("b/count", 1, &[&[("service", "api"), ("agent", "2")]], 0..9);
        assert_eq!(
            text(vec![old, new]),
            "profiles that count different things do not merge: 1 count a/count (agent=\"\"), 1 count b/count (agent=\"2\"); \
             select by agent"
        );
    }

    #[test]
    fn many_values_are_cut_short() {
        let pods: Vec<Vec<(&str, &str)>> = ["a", "b", "c", "d", "e"].map(|pod| vec![("pod", pod)]).into();
        let pods: Vec<&[(&str, &str)]> = pods.iter().map(Vec::as_slice).collect();
        let text = text(vec![camp("a/count", 5, &pods, 0..9), camp("b/count", 1, &[&[("pod", "x")]], 0..9)]);
        assert!(text.contains(r#"(pod="a", pod="b", pod="c", 2 more values of pod)"#), "{text}");
    }

    #[test]
    fn without_such_a_label_time_may_tell_them_apart() {
        let labels: &[(&str, &str)] = &[("service", "api")];
        let apart = text(vec![camp("a/count", 1, &[labels], 5..9), camp("b/count", 2, &[labels], 1..5)]);
        assert_eq!(
            apart,
            "profiles that count different things do not merge: \
             2 count b/count (in [1970-01-01T00:00:01Z, 1970-01-01T00:00:05Z)), \
             1 count a/count (in [1970-01-01T00:00:05Z, 1970-01-01T00:00:09Z)); select by start and end"
        );
        let mixed = text(vec![camp("a/count", 1, &[labels], 1..9), camp("b/count", 2, &[labels], 1..5)]);
        assert!(mixed.ends_with("(such as {service=\"api\"}); select by labels or by time"), "{mixed}");
    }
}
