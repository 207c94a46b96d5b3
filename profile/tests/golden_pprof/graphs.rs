//! Call graphs: the nodes, arrows and numbers of `pprof -dot`.

use std::collections::BTreeSet;
use std::path::Path;

use afterglow_profile::{Limits, Profile, compress, decode, diff, dot, encode};
use regex::Regex;
use serde_json::json;

use super::golden::{Golden, read, series};

/// Returns what a drawing says, without how it looks: names and values of nodes, names, values and kinds of arrows, and the summary.
fn says(text: &str) -> BTreeSet<String> {
    let node = Regex::new(
        r#"^N\d+ \[label="(.*?\\n((?:0|[-.\d][^\s\\]* \([^()]*\))(?:(?:\\n| )of \S+ \([^()]*\))?))" id="node\d+" fontsize=(\d+) shape=box tooltip="((?:[^"\\]|\\.)*)""#,
    )
    .expect("it is right");
    // In a diff, pprof draws arrows from and to what cancels out as well: to `N0`, which is no box.
    let edge =
        Regex::new(r#"^N[1-9]\d* -> N[1-9]\d* \[label=" ([^"]*)".* tooltip="((?:[^"\\]|\\.)*)""#).expect("it is right");
    // Where the profile has no file, the summary is also what its box is called by.
    let summary = Regex::new(r#"(?:Showing|Dropped)[^\\"]*"#).expect("it is right");
    let mut says = BTreeSet::new();
    for line in text.lines() {
        if let Some(found) = node.captures(line) {
            let value = found[2].replace(r"\n", " ");
            says.insert(format!("{} = {value}, size {}", &found[4], &found[3]));
        } else if let Some(found) = edge.captures(line) {
            let dotted = if line.contains("style=\"dotted\"") { " dotted" } else { "" };
            says.insert(format!("{} labelled {}{dotted}", &found[2], &found[1]));
        } else if line.starts_with("subgraph") {
            says.extend(summary.find_iter(line).map(|found| found.as_str().to_owned()));
        }
    }
    says
}

/// Compares what both draw, as far as it `is_told`, and returns how much that is.
fn check(
    golden: &mut Golden,
    file: &Path,
    profile: &Profile<'_>,
    sample_type: usize,
    is_told: impl Fn(&str) -> bool,
) -> usize {
    let ours = dot::write(profile, sample_type, dot::total(profile, sample_type), None);
    let answer = golden.ask(&json!({"op": "dot", "files": [file], "sample_type": sample_type}));
    let [theirs, ours] = [answer["text"].as_str().expect("a text"), &ours].map(|text| {
        let mut says = says(text);
        says.retain(|said| is_told(said));
        says
    });
    let only = |these: &BTreeSet<String>, others| these.difference(others).cloned().collect::<Vec<_>>().join("\n  ");
    assert_eq!(
        ours,
        theirs,
        "{} sample type {sample_type}\nours only:\n  {}\npprof only:\n  {}",
        file.display(),
        only(&ours, &theirs),
        only(&theirs, &ours)
    );
    ours.len()
}

#[test]
fn the_call_graph_of_every_profile_is_that_of_pprof() {
    let mut golden = Golden::start();
    let mut said = 0;
    for files in series().into_values() {
        let body = read(&files[0]);
        let profile = decode::decode(&body, &Limits::default()).expect("it is valid");
        for sample_type in 0..profile.sample_types.len() {
            said += check(&mut golden, &files[0], &profile, sample_type, |_| true);
        }
    }
    assert!(said > 0, "nothing was drawn");
}

#[test]
fn the_call_graph_of_a_diff_is_that_of_pprof() {
    let mut golden = Golden::start();
    let file = golden.folder.path().join("difference.pb.gz");
    let mut said = 0;
    for files in series().into_values().filter(|files| files.len() > 1) {
        let [base, selection] = [0, 1].map(|i| read(&files[i]));
        let [mut base, selection] =
            [&base, &selection].map(|body| decode::decode(body, &Limits::default()).expect("valid"));
        diff::mark_base(&mut base);
        let difference = diff::subtract(&selection, base).expect("one program's go together");
        let difference = difference.profile();
        // pprof reads what we wrote: of a diff it draws what is lost and what is gained.
        std::fs::write(&file, compress::gzip(&encode::encode(&difference))).expect("the profile can be written");
        for sample_type in 0..difference.sample_types.len() {
            // Which of the dotted arrows are left out for another way is for chance to say in pprof, where weights differ by their sign.
            said += check(&mut golden, &file, &difference, sample_type, |said| !said.ends_with(" dotted"));
        }
    }
    assert!(said > 0, "nothing was drawn");
}
