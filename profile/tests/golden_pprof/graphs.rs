//! Call graphs: the nodes, arrows and numbers of `pprof -dot`.

use std::collections::BTreeSet;
use std::path::Path;

use afterglow_profile::{Limits, Profile, decode, dot};
use regex::Regex;
use serde_json::json;

use super::golden::{Golden, read, series};

/// Returns what a drawing says, without how it looks: names and values of nodes, names, values and kinds of arrows, and the summary.
fn says(text: &str) -> BTreeSet<String> {
    let node = Regex::new(
        r#"^N\d+ \[label="(.*?\\n((?:0|[-.\d][^\s\\]* \([^()]*\))(?:(?:\\n| )of \S+ \([^()]*\))?))" id="node\d+" fontsize=(\d+) shape=box tooltip="((?:[^"\\]|\\.)*)""#,
    )
    .expect("it is right");
    let edge = Regex::new(r#"^N\d+ -> N\d+ \[label=" ([^"]*)".* tooltip="((?:[^"\\]|\\.)*)""#).expect("it is right");
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

fn check(golden: &mut Golden, file: &Path, profile: &Profile<'_>, sample_type: usize) -> usize {
    let ours = dot::write(profile, sample_type, dot::total(profile, sample_type), None);
    let answer = golden.ask(&json!({"op": "dot", "files": [file], "sample_type": sample_type}));
    let theirs = says(answer["text"].as_str().expect("a text"));
    let ours = says(&ours);
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
            said += check(&mut golden, &files[0], &profile, sample_type);
        }
    }
    assert!(said > 0, "nothing was drawn");
}
