//! Filters: what `pprof -proto -focus=…` leaves of a profile is what ours leaves.

use std::path::PathBuf;

use afterglow_profile::{
    Limits, Profile, compress, decode, encode,
    filter::{Filter, Patterns},
    merge::Merger,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::json;

use super::golden::{Golden, merge, read, series};
use super::sketch::{self, SampleTypes};

/// How many random filters each series is asked through.
const FILTERS_PER_SERIES: usize = 12;

/// How many random profiles are asked, each through one random filter.
const RANDOM_PROFILES: usize = 400;

/// How the patterns are called on pprof's command line.
fn options(patterns: &Patterns) -> Vec<String> {
    let Patterns { focus, ignore, show, hide, show_from, tag_focus, tag_ignore, call_site } = patterns;
    assert!(call_site.is_empty(), "pprof does not have it");
    let named = [
        ("focus", focus),
        ("ignore", ignore),
        ("show", show),
        ("hide", hide),
        ("show_from", show_from),
        ("tagfocus", tag_focus),
        ("tagignore", tag_ignore),
    ];
    named.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("-{name}={text}")).collect()
}

/// Returns what a filter leaves of a profile, merged once more.
fn filtered(body: &[u8], patterns: &Patterns) -> (Vec<u8>, usize) {
    let mut profile = decode::decode(body, &Limits::default()).expect("our own merge is valid");
    Filter::new(patterns).expect("the patterns are right").apply(&mut profile);
    let mut merger = Merger::new();
    merger.add(&profile).expect("the first always does");
    (encode::encode(&merger.finish().profile()), profile.samples.len())
}

/// Compares what both leave of the merge of `files`, and returns how many samples that are.
fn check(golden: &mut Golden, name: &str, files: &[PathBuf], patterns: &Patterns) -> usize {
    let (ours, samples) = filtered(&merge(files), patterns);
    let file = golden.folder.path().join("ours.pb.gz");
    std::fs::write(&file, compress::gzip(&ours)).expect("the profile can be written");
    let options = options(patterns);
    let answer = golden.ask(&json!({"op": "filter", "files": files, "options": options, "ours": file}));
    assert_eq!(answer["differences"], serde_json::Value::Null, "{name} {options:?}: {answer:#}");
    samples
}

/// The words that patterns about `profile` are made of: names and files of functions, files of mappings.
fn words(profile: &Profile<'_>) -> Vec<String> {
    let functions = profile.functions.iter().flat_map(|function| [function.name, function.file]);
    let strings = functions.chain(profile.mappings.iter().map(|mapping| mapping.file));
    let mut words: Vec<String> =
        strings.filter_map(|index| std::str::from_utf8(profile.string(index)).ok()).map(str::to_owned).collect();
    words.retain(|word| !word.is_empty());
    words.sort();
    words.dedup();
    words
}

/// The label filters that say something about `profile`.
fn tags(profile: &Profile<'_>) -> Vec<String> {
    let text = |index| regex::escape(&String::from_utf8_lossy(profile.string(index)));
    let mut tags: Vec<String> = Vec::new();
    for label in &profile.samples.labels {
        let (key, num) = (String::from_utf8_lossy(profile.string(label.key)).into_owned(), label.num);
        if label.str != 0 {
            let value = text(label.str);
            tags.extend([value.clone(), format!("{key}={value}"), format!("{}:{value}", text(label.key))]);
            tags.extend([format!("{value},{}", text(label.key)), format!("{key}={value},x")]);
        } else {
            let unit: String = text(label.num_unit).chars().filter(char::is_ascii_alphabetic).collect();
            tags.extend([format!("{num}{unit}"), format!("{key}={num}{unit}:"), format!("{key}=:{num}")]);
            tags.extend([format!("{}kb:{num}{unit}", num / 2000), format!("1:{num}"), format!("{key}=1b:{num}kb")]);
        }
    }
    // As they are taken for ranges by pprof: the number fits.
    tags.sort();
    tags.dedup();
    tags.truncate(500);
    if tags.is_empty() { vec!["none".to_owned()] } else { tags }
}

/// Patterns of a few kinds, made of words.
fn pattern(words: Vec<String>) -> impl Strategy<Value = String> {
    let piece = (select(words), any::<Index>(), any::<Index>(), 0..5u8).prop_map(|(word, from, to, kind)| {
        let characters: Vec<char> = word.chars().collect();
        let (from, to) = (from.index(characters.len()), to.index(characters.len()));
        let part: String = characters[from.min(to)..=from.max(to)].iter().collect();
        match kind {
            0 => format!("^{}$", regex::escape(&word)),
            1 => format!("^{}", regex::escape(&word)),
            2 => regex::escape(&word),
            3 => format!("(?i){}.?$", regex::escape(&part.to_uppercase())),
            _ => regex::escape(&part),
        }
    });
    vec(piece, 1..3).prop_map(|pieces| pieces.join("|"))
}

/// Filters that say something about `profile`: one to three patterns each.
fn filters(profile: &Profile<'_>) -> impl Strategy<Value = Patterns> + use<> {
    let (words, tags) = (words(profile), tags(profile));
    let field = move |kind: u8| match kind {
        5 | 6 => select(tags.clone()).boxed(),
        _ => pattern(words.clone()).boxed(),
    };
    vec((0..7u8).prop_flat_map(move |kind| (Just(kind), field(kind))), 1..4).prop_map(|fields| {
        let mut patterns = Patterns::default();
        for (kind, text) in fields {
            *match kind {
                0 => &mut patterns.focus,
                1 => &mut patterns.ignore,
                2 => &mut patterns.show,
                3 => &mut patterns.hide,
                4 => &mut patterns.show_from,
                5 => &mut patterns.tag_focus,
                _ => &mut patterns.tag_ignore,
            } = text;
        }
        patterns
    })
}

#[test]
fn filters_of_real_profiles_leave_what_pprof_leaves() {
    let mut golden = Golden::start();
    let mut random = TestRunner::deterministic();
    let (mut all, mut some) = (0, 0);
    for (name, files) in series() {
        // One file: whether merges agree is another test's question.
        let files = &files[..1];
        let body = merge(files);
        let profile = decode::decode(&body, &Limits::default()).expect("our own merge is valid");
        if words(&profile).is_empty() {
            continue;
        }
        let filters = filters(&profile);
        for _ in 0..FILTERS_PER_SERIES {
            let patterns = filters.new_tree(&mut random).expect("filters can be made").current();
            all += 1;
            some += usize::from(check(&mut golden, &name, files, &patterns) > 0);
        }
    }
    assert!(some > all / 4, "only {some} of {all} filters left anything");
}

#[test]
fn filters_of_random_profiles_leave_what_pprof_leaves() {
    let mut golden = Golden::start();
    let mut random = TestRunner::deterministic();
    let lists = sketch::profiles(SampleTypes::Same);
    let folder = tempfile::tempdir().expect("a folder for the profiles");
    let file = folder.path().join("random.pb");
    let mut some = 0;
    for i in 0..RANDOM_PROFILES {
        let profile = lists.new_tree(&mut random).expect("lists can be made").current().remove(0);
        std::fs::write(&file, encode::encode(&profile)).expect("the profile can be written");
        let patterns = filters(&profile).new_tree(&mut random).expect("filters can be made").current();
        some +=
            usize::from(check(&mut golden, &format!("random profile {i}"), std::slice::from_ref(&file), &patterns) > 0);
    }
    assert!(some > RANDOM_PROFILES / 4, "only {some} filters left anything");
}

#[test]
fn an_empty_filter_changes_nothing() {
    for files in series().into_values() {
        let (ours, _) = filtered(&read(&files[0]), &Patterns::default());
        assert_eq!(ours, merge(&files[..1]), "{}", files[0].display());
    }
}
