//! What must hold of any merge, shown on random profiles: it adds up, order does not matter, and nothing unused comes in.

use std::collections::{BTreeMap, BTreeSet};

use afterglow_profile::{
    Profile,
    merge::{Merged, Merger},
    model::{NONE, Samples},
    top::Top,
    tree::FlameGraph,
};
use proptest::prelude::*;

use self::sketch::SampleTypes;

mod sketch;

/// The samples of a profile by what they mean: stack and labels in words, wherever the binaries were loaded.
type Meaning = BTreeMap<String, Vec<i64>>;

fn merge<'a>(profiles: impl IntoIterator<Item = &'a Profile<'a>>) -> Merged {
    merge_with(Merger::new(), profiles)
}

fn merge_with<'a>(mut merger: Merger, profiles: impl IntoIterator<Item = &'a Profile<'a>>) -> Merged {
    for profile in profiles {
        merger.add(profile).expect("profiles of one list merge");
    }
    merger.finish()
}

/// Adds the samples up, slowly and plainly.
fn meaning<'a>(profiles: impl IntoIterator<Item = &'a Profile<'a>>) -> Meaning {
    let mut meaning = Meaning::new();
    for profile in profiles {
        for i in 0..profile.samples.len() {
            let values = profile.values(i);
            if values.iter().all(|&value| value == 0) {
                continue;
            }
            let sums = meaning.entry(describe(profile, i)).or_insert_with(|| vec![0; values.len()]);
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
    meaning.retain(|_, sums| sums.iter().any(|&sum| sum != 0));
    meaning
}

fn describe(profile: &Profile<'_>, sample: usize) -> String {
    let text = |index| String::from_utf8_lossy(profile.string(index));
    let mut description = String::new();
    for &location in profile.samples.stack(sample) {
        let location = profile.locations[location as usize];
        let mut address = location.address;
        if location.mapping != NONE {
            let mapping = profile.mappings[location.mapping as usize];
            address -= mapping.start;
            let name = if mapping.build_id != 0 { mapping.build_id } else { mapping.file };
            let pages = (mapping.limit - mapping.start).div_ceil(0x1000);
            description += &format!("{} {pages} {} ", text(name), mapping.offset);
        }
        description += &format!("{address} {}", location.is_folded);
        for line in &profile.lines[location.lines()] {
            let function = profile.functions[line.function as usize];
            let [name, system_name, file] = [function.name, function.system_name, function.file].map(text);
            description +=
                &format!(" {name} {system_name} {file} {}:{}:{}", function.start_line, line.line, line.column);
        }
        description += "\n";
    }
    let mut labels: BTreeMap<(bool, _), Vec<_>> = BTreeMap::new();
    for label in profile.samples.labels(sample) {
        let is_text = !text(label.str).is_empty();
        let (num, unit) = if is_text { (0, "".into()) } else { (label.num, text(label.num_unit)) };
        if is_text || num != 0 || !unit.is_empty() {
            labels.entry((is_text, text(label.key))).or_default().push((text(label.str), num, unit));
        }
    }
    description + &format!("{labels:?}")
}

/// Returns what only one profile can decide, in words.
fn decided(profile: &Profile<'_>) -> impl PartialEq + std::fmt::Debug + use<> {
    let text = |index| String::from_utf8_lossy(profile.string(index)).into_owned();
    let types: Vec<_> = profile.sample_types.iter().map(|t| [t.kind, t.unit].map(text)).collect();
    let texts = [profile.default_sample_type, profile.drop_frames, profile.keep_frames, profile.doc_url].map(text);
    let comments: Vec<_> = profile.comments.iter().map(|&comment| text(comment)).collect();
    let main = profile.mappings.first().map(|main| [main.file, main.build_id].map(text));
    (types, texts, comments, main)
}

/// Returns those samples of `profile` that are to be kept, with all its tables.
fn part<'a>(profile: &Profile<'a>, keep: impl Fn(usize) -> bool) -> Profile<'a> {
    let mut samples = Samples::default();
    for i in (0..profile.samples.len()).filter(|&i| keep(i)) {
        samples.locations.extend(profile.samples.stack(i));
        samples.location_ends.push(samples.locations.len() as u32);
        samples.labels.extend(profile.samples.labels(i));
        samples.label_ends.push(samples.labels.len() as u32);
        samples.values.extend(profile.values(i));
        samples.shapes.push(profile.samples.shapes[i]);
    }
    Profile { samples, ..profile.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn samples_that_mean_the_same_are_added_and_no_others(profiles in sketch::profiles(SampleTypes::Same)) {
        let merged = merge(&profiles);
        let merged = merged.profile();
        prop_assert_eq!(meaning([&merged]).len(), merged.samples.len(), "no two samples mean the same, none is zero");
        prop_assert_eq!(meaning([&merged]), meaning(&profiles));
    }

    #[test]
    fn totals_are_conserved(profiles in sketch::profiles(SampleTypes::Same)) {
        let sum = |i: usize| profiles.iter().map(|profile| profile.totals().0[i]).sum::<i64>();
        prop_assert_eq!(merge(&profiles).profile().totals(), (vec![sum(0), sum(1)], false));
    }

    #[test]
    fn the_order_of_profiles_does_not_matter(mut profiles in sketch::profiles(SampleTypes::Same)) {
        let one = merge(&profiles);
        profiles.reverse();
        let other = merge(&profiles);
        let (one, other) = (one.profile(), other.profile());
        prop_assert_eq!(meaning([&one]), meaning([&other]));
        let numbers = |p: &Profile<'_>| (p.time_nanos, p.duration_nanos, p.period);
        prop_assert_eq!(numbers(&one), numbers(&other));
        let texts = |p: &Profile<'_>| p.comments.iter().map(|&c| p.string(c).to_vec()).collect::<BTreeSet<_>>();
        prop_assert_eq!(texts(&one), texts(&other));
        for sample_type in 0..2 {
            prop_assert_eq!(FlameGraph::new(&one, sample_type, Some(9)), FlameGraph::new(&other, sample_type, Some(9)));
            prop_assert_eq!(Top::new(&one, sample_type, None), Top::new(&other, sample_type, None));
        }
    }

    #[test]
    fn by_time_the_order_in_which_profiles_are_added_decides_nothing(
        (mut profiles, shuffled) in sketch::profiles(SampleTypes::Different)
            .prop_flat_map(|profiles| (Just(profiles.clone()), Just(profiles).prop_shuffle())),
        (times, drops) in (proptest::collection::vec(0..3i64, 6), proptest::collection::vec(any::<bool>(), 6)),
    ) {
        // What decides is said by few, and many are of one time or of none.
        let set = |profile: &mut Profile<'_>| {
            let i = (profile.duration_nanos.unsigned_abs() as usize + profile.samples.len()) % times.len();
            profile.time_nanos = times[i];
            profile.drop_frames = if drops[i] { profile.sample_types[0].kind } else { 0 };
        };
        let mut shuffled = shuffled;
        profiles.iter_mut().chain(&mut shuffled).for_each(set);
        let one = merge_with(Merger::by_time(), &profiles);
        let other = merge_with(Merger::by_time(), &shuffled);
        let (one, other) = (one.profile(), other.profile());
        prop_assert_eq!(decided(&one), decided(&other));
        prop_assert_eq!(meaning([&one]), meaning([&other]));
    }

    #[test]
    fn merging_merges_is_merging_all(profiles in sketch::profiles(SampleTypes::Different), at in 0..6usize) {
        let (left, right) = profiles.split_at(at.min(profiles.len() - 1));
        let all = merge(&profiles);
        // Sums that cancel out on one side only come in and go again, so tables may be in another order; what they mean may not.
        let right = merge(right);
        let parts: Vec<_> = if left.is_empty() { vec![right] } else { vec![merge(left), right] };
        let parts: Vec<_> = parts.iter().map(Merged::profile).collect();
        let of_parts = merge(&parts);
        let (all, of_parts) = (all.profile(), of_parts.profile());
        prop_assert_eq!(meaning([&all]), meaning([&of_parts]));
        let header = |p: &Profile<'_>| {
            let text = |index| String::from_utf8_lossy(p.string(index)).into_owned();
            let types: Vec<_> = p.sample_types.iter().map(|t| (text(t.kind), text(t.unit))).collect();
            let comments: Vec<_> = p.comments.iter().map(|&comment| text(comment)).collect();
            (types, p.time_nanos, p.duration_nanos, p.period, comments, text(p.doc_url))
        };
        prop_assert_eq!(header(&all), header(&of_parts));
    }

    #[test]
    fn merging_a_merge_again_changes_nothing(profiles in sketch::profiles(SampleTypes::Same)) {
        let once = merge(&profiles);
        let once = once.profile();
        let twice = merge([&once]);
        let twice = twice.profile();
        // Not even the order of samples and tables; only strings may be numbered anew.
        let in_order = |p: &Profile<'_>| (0..p.samples.len()).map(|i| describe(p, i)).collect::<Vec<_>>();
        prop_assert_eq!(in_order(&once), in_order(&twice));
        prop_assert_eq!(&once.samples.values, &twice.samples.values);
        prop_assert_eq!(&once.samples.locations, &twice.samples.locations);
        prop_assert_eq!(&once.locations, &twice.locations);
        prop_assert_eq!(once.strings.len(), twice.strings.len());
    }

    #[test]
    fn splitting_is_undone(profiles in sketch::profiles(SampleTypes::Same), bits in any::<u16>()) {
        let profile = &profiles[0];
        let parts = [part(profile, |i| bits >> i & 1 == 1), part(profile, |i| bits >> i & 1 == 0)];
        prop_assert_eq!(meaning([&merge(&parts).profile()]), meaning([profile]));
    }

    #[test]
    fn only_what_samples_use_comes_in(profiles in sketch::profiles(SampleTypes::Same)) {
        let merged = merge(&profiles);
        let merged = merged.profile();
        let locations: BTreeSet<_> = merged.samples.locations.iter().copied().collect();
        prop_assert!(locations.iter().copied().eq(0..merged.locations.len() as u32));
        let functions: BTreeSet<_> = merged.lines.iter().map(|line| line.function).collect();
        prop_assert!(functions.iter().copied().eq(0..merged.functions.len() as u32));
        // The main binary stays, used or not.
        let mappings: BTreeSet<_> = merged.locations.iter().map(|location| location.mapping).chain([0]).collect();
        prop_assert!(mappings.iter().copied().filter(|&m| m != NONE).eq(0..merged.mappings.len() as u32));
        let main = |p: &Profile<'_>| p.string(p.mappings[0].file).to_vec();
        prop_assert_eq!(main(&merged), main(&profiles[0]));
    }
}
