//! What must hold of any filter, and what pprof does not have. That the rest is as in pprof is shown by tests/golden_pprof.

use afterglow_profile::{
    Profile,
    filter::{CALL_SITE_MAX, Error, Filter, PATTERN_BYTES_MAX, Patterns},
    folded,
};
use proptest::{prelude::*, sample::select};

use self::sketch::SampleTypes;
use self::stacks::profile;

mod sketch;
mod stacks;

/// Returns what a filter leaves as folded stacks, and the patterns that matched nothing.
fn left(profile: &Profile<'static>, patterns: &Patterns) -> (String, Vec<&'static str>) {
    let mut profile = profile.clone();
    let unmatched = Filter::new(patterns).expect("the patterns are right").apply(&mut profile);
    (folded::write(&profile, 0), unmatched)
}

fn sum(profile: &Profile<'_>) -> i64 {
    profile.totals().0[0]
}

#[test]
fn a_call_site_keeps_the_stacks_that_begin_with_it() {
    let profile = profile(&[("main;a;b", 1), ("main;a", 2), ("main;b;a", 4), ("a;main", 8)]);
    let at = |names: &[&str]| {
        let call_site = names.iter().map(|name| (*name).to_owned()).collect();
        left(&profile, &Patterns { call_site, ..Patterns::default() })
    };
    assert_eq!(at(&["main", "a"]), ("main;a 2\nmain;a;b 1\n".to_owned(), vec![]));
    assert_eq!(at(&["main"]).0, "main;b;a 4\nmain;a 2\nmain;a;b 1\n");
    assert_eq!(at(&["main", "a", "b", "c"]), (String::new(), vec!["call_site"]));
    assert_eq!(at(&["nobody"]), (String::new(), vec!["call_site"]));
}

#[test]
fn a_call_site_is_looked_for_in_what_is_shown() {
    let profile = profile(&[("main;a;b", 1), ("main;b", 2)]);
    let patterns = Patterns { show_from: "^a$".to_owned(), call_site: vec!["a".to_owned()], ..Patterns::default() };
    assert_eq!(left(&profile, &patterns).0, "a;b 1\n");
    let hidden = Patterns { hide: "main".to_owned(), call_site: vec!["b".to_owned()], ..Patterns::default() };
    assert_eq!(left(&profile, &hidden).0, "b 2\n");
}

#[test]
fn patterns_that_match_nothing_are_told() {
    let profile = profile(&[("main;a", 1)]);
    let none = || "nobody".to_owned();
    let patterns = Patterns { ignore: none(), hide: none(), tag_ignore: none(), ..Patterns::default() };
    assert_eq!(left(&profile, &patterns), ("main;a 1\n".to_owned(), vec!["ignore", "hide", "tag_ignore"]));
    let patterns =
        Patterns { focus: none(), show: none(), show_from: none(), tag_focus: none(), ..Patterns::default() };
    assert_eq!(left(&profile, &patterns).1, ["focus", "show", "show_from", "tag_focus"]);
}

#[test]
fn patterns_that_are_wrong_or_too_long_are_refused() {
    let refuse = |patterns: Patterns| Filter::new(&patterns).expect_err("it is refused");
    let error = refuse(Patterns { focus: "a(".to_owned(), ..Patterns::default() });
    assert_eq!(error.to_string(), "focus: regular expression: unclosed group");
    let error = refuse(Patterns { tag_focus: "key=a,[".to_owned(), ..Patterns::default() });
    assert_eq!(error.to_string(), "tag_focus: regular expression: unclosed character class");
    let error = refuse(Patterns { hide: "x{1000}{1000}".to_owned(), ..Patterns::default() });
    assert_eq!(error.to_string(), "hide: regular expression: compiled size exceeds 1048576 bytes");
    let long = "x".repeat(PATTERN_BYTES_MAX + 1);
    let error = refuse(Patterns { show: long.clone(), ..Patterns::default() });
    assert_eq!(error.to_string(), "show: 4097 bytes exceed the 4096 that a pattern or name may have");
    let error = refuse(Patterns { call_site: vec![long], ..Patterns::default() });
    assert_eq!(error, Error::Length { field: "call_site", bytes: PATTERN_BYTES_MAX + 1 });
    let error = refuse(Patterns { call_site: vec!["f".to_owned(); CALL_SITE_MAX + 1], ..Patterns::default() });
    assert_eq!(error.to_string(), "call_site: 4097 names exceed the 4096 that a stack may have");
    assert_eq!(refuse(Patterns { call_site: vec![String::new()], ..Patterns::default() }), Error::EmptyName);
}

#[test]
fn deep_stacks_do_not_recurse() {
    let mut profile = profile(&[("f;g", 1)]);
    profile.samples.locations = vec![0; 200_000];
    profile.samples.location_ends = vec![200_000];
    let patterns = Patterns { focus: "g".to_owned(), show_from: "g".to_owned(), ..Patterns::default() };
    Filter::new(&patterns).expect("the patterns are right").apply(&mut profile);
    assert_eq!(profile.samples.stack(0).len(), 200_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn focus_and_ignore_of_the_same_pattern_share_the_samples(
        pattern in select(vec!["main", "work", "malloc", "^main$", "server", ".", "x"]),
        list in sketch::profiles(SampleTypes::Same),
    ) {
        let all = &list[0];
        let part = |patterns: Patterns| {
            let mut profile = all.clone();
            Filter::new(&patterns).expect("the patterns are right").apply(&mut profile);
            (profile.samples.len(), sum(&profile))
        };
        let focused = part(Patterns { focus: pattern.to_owned(), ..Patterns::default() });
        let ignored = part(Patterns { ignore: pattern.to_owned(), ..Patterns::default() });
        // Samples without a stack are in neither: nothing in them could match.
        let stacks = || (0..all.samples.len()).filter(|&i| !all.samples.stack(i).is_empty());
        let sum: i64 = stacks().map(|i| all.values(i)[0]).sum();
        prop_assert_eq!((focused.0 + ignored.0, focused.1 + ignored.1), (stacks().count(), sum));
    }

    #[test]
    fn hiding_and_labels_change_no_value(
        hide in select(vec!["main", "work", "malloc"]), tag in select(vec!["thread", "bytes=:64", "thread=a"]),
        list in sketch::profiles(SampleTypes::Different),
    ) {
        for all in list {
            let part = |patterns: Patterns| {
                let mut profile = all.clone();
                Filter::new(&patterns).expect("the patterns are right").apply(&mut profile);
                sum(&profile)
            };
            let focused = part(Patterns { tag_focus: tag.to_owned(), ..Patterns::default() });
            let ignored = part(Patterns { tag_ignore: tag.to_owned(), ..Patterns::default() });
            prop_assert_eq!(focused + ignored, sum(&all));

            let mut shown = all.clone();
            Filter::new(&Patterns { hide: hide.to_owned(), ..Patterns::default() }).expect("right").apply(&mut shown);
            for i in 0..shown.samples.len() {
                prop_assert!(!shown.samples.stack(i).is_empty());
                for &location in shown.samples.stack(i) {
                    for line in shown.lines_of(location) {
                        let function = &shown.functions[line.function as usize];
                        let name = String::from_utf8_lossy(shown.string(function.name));
                        prop_assert!(!name.contains(hide), "{name}");
                    }
                }
            }
        }
    }
}
