//! What Grafana's data source sees, by the client that it asks by: types, labels, sums and flame graphs of real profiles, equal to our own answers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use afterglow_e2e::grafana::{Wire, ask};
use afterglow_e2e::{Program, RealProfile, client, real_profiles};
use serde_json::{Value, json};

/// Accepts profiles of any age, and keeps them: the real ones were taken when they were taken.
const ANY_AGE: [(&str, &str); 2] = [("AFTERGLOW_LIMITS_MAX_AGE", "0s"), ("AFTERGLOW_RETENTION_MAX_AGE", "0s")];

/// From 2000 to 2100, in milliseconds since 1970.
const ALL_TIME: (i64, i64) = (946_684_800_000, 4_102_444_800_000);

/// The same for our own questions.
const OWN_ALL_TIME: &str = "start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";

/// What is asked for: the id there, the type and the sample type here.
const ASKED: [(&str, &str, &str); 3] = [
    ("process_cpu:cpu:nanoseconds:cpu:nanoseconds", "cpu", "cpu"),
    ("process_cpu:samples:count:cpu:nanoseconds", "cpu", "samples"),
    ("memory:inuse_space:bytes:space:bytes", "heap", "inuse_space"),
];

/// Ways over the wire: as Grafana asks, and as browsers do.
const WIRES: [Wire<'_>; 2] =
    [Wire { headers: &[], json: false, gzip: false }, Wire { headers: &[], json: true, gzip: true }];

/// Pushes the CPU and heap profiles of Go servers, each server's as a service; returns the services.
fn push(server: &Program) -> BTreeSet<String> {
    let mut series: BTreeMap<(String, String), Vec<RealProfile>> = BTreeMap::new();
    for profile in real_profiles() {
        let Some((service, "cpu" | "heap")) = profile.series.rsplit_once('-') else { continue };
        if ["svc", "parca", "profefe"].contains(&service) {
            series.entry((service.to_owned(), profile.profile_type.clone())).or_default().push(profile);
        }
    }
    for ((service, profile_type), profiles) in &series {
        let mut args: Vec<OsString> =
            ["push", "--service", service, "--type", profile_type].map(OsString::from).to_vec();
        args.extend(profiles.iter().map(|profile| profile.path.clone().into_os_string()));
        client(&args, &server.url());
    }
    let services: BTreeSet<String> = series.into_keys().map(|(service, _)| service).collect();
    assert_eq!(services.len(), 3, "{services:?}");
    services
}

/// Returns a number that JSON has as a text, as protobuf writes those of 64 bits.
fn number(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

/// Returns our own merge of a service, in a form.
fn own(server: &Program, service: &str, (profile_type, sample_type): (&str, &str), form: &str) -> Value {
    let query = format!("%7Bservice%3D%22{service}%22%7D");
    let path =
        format!("/api/v1/merge?query={query}&type={profile_type}&sample_type={sample_type}&{OWN_ALL_TIME}&{form}");
    let (status, body) = server.get(&path);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Returns what each function uses itself: the sums over the nodes of its name.
fn selves(graph: &Value) -> BTreeMap<&str, i64> {
    let names: Vec<&str> =
        graph["names"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect();
    let mut selves = BTreeMap::new();
    for level in graph["levels"].as_array().expect("a list") {
        let values: Vec<i64> = level["values"].as_array().expect("a list").iter().map(number).collect();
        for node in values.chunks(4) {
            *selves.entry(names[node[3] as usize]).or_default() += node[2];
        }
    }
    selves
}

/// Goal: what the data source shows of real profiles is what our own answers say.
#[test]
fn the_data_source_sees_what_is_stored() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let storage = format!("file://{}", folder.path().display());
    let server = Program::start("afterglow", &["serve", "--no-self-profile", "--storage", &storage], &ANY_AGE);
    let services = push(&server);
    let (start, end) = ALL_TIME;
    let url = server.url();

    for wire in WIRES {
        let asked = |method: &str, request: Value| {
            ask(&url, wire, method, &request).unwrap_or_else(|refused| panic!("{method} {request}: {refused:?}"))
        };
        let types = asked("ProfileTypes", json!({"start": start, "end": end}));
        let ids: BTreeSet<&str> = types["profileTypes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|t| t["ID"].as_str().expect("an id"))
            .collect();
        assert!(ASKED.iter().all(|(id, ..)| ids.contains(id)), "{ids:?}");
        let names = asked("LabelNames", json!({"matchers": [""], "start": start, "end": end}));
        assert_eq!(names["names"], json!(["__profile_type__", "service_name", "type"]));
        let values = json!({"name": "service_name", "matchers": ["{}"], "start": start, "end": end});
        assert_eq!(asked("LabelValues", values)["names"], json!(services));
        let sets = json!({"labelNames": ["service_name"], "start": start, "end": end});
        assert_eq!(asked("Series", sets)["labelsSet"].as_array().map(Vec::len), Some(services.len()));

        for (id, profile_type, sample_type) in ASKED {
            let series = asked(
                "SelectSeries",
                json!({
                    "profileTypeID": id, "labelSelector": "{}", "start": start, "end": end, "groupBy": ["service_name"],
                    "step": 15.0,
                }),
            );
            let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
            for one in series["series"].as_array().expect("a list") {
                let points = one["points"].as_array().expect("a list");
                let sum = points.iter().map(|point| point["value"].as_f64().expect("a number")).sum();
                sums.insert(one["labels"][0]["value"].as_str().expect("a service"), sum);
            }
            for service in &services {
                let selector = format!("{{service_name=\"{service}\"}}");
                let merging = json!({
                    "profileTypeID": id, "labelSelector": selector, "start": start, "end": end, "maxNodes": -1,
                });
                let graph = asked("SelectMergeStacktraces", merging.clone())["flamegraph"].take();
                let total = number(&graph["total"]);
                let shown = (profile_type, sample_type);
                let own_graph = own(&server, service, shown, "format=flamegraph");
                assert_eq!(total, number(&own_graph["flamegraph"]["nodes"][0]["total"]), "{id} {service}");
                let top = own(&server, service, shown, "format=top&limit=1");
                let row = &top["top"]["functions"][0];
                let name = row["name"].as_str().expect("a name");
                assert_eq!(selves(&graph).get(name), Some(&number(&row["self"])), "{id} {service} {name}");
                assert_eq!(sums[service.as_str()], total as f64, "{id} {service}");

                if !wire.json {
                    let pprof = asked("SelectMergeProfile", merging);
                    let texts = pprof["stringTable"].as_array().expect("a list");
                    let kinds = pprof["sampleType"].as_array().expect("a list");
                    let column = kinds.iter().position(|kind| texts[number(&kind["type"]) as usize] == sample_type);
                    let column = column.expect("the sample type");
                    let samples = pprof["sample"].as_array().expect("a list").iter();
                    let sum: i64 = samples.map(|sample| number(&sample["value"][column])).sum();
                    assert_eq!(sum, total, "{id} {service}");
                }
            }
        }
        let nothing = json!({"profileTypeID": ASKED[0].0, "labelSelector": "{service_name=\"nobody\"}"});
        assert_eq!(asked("SelectMergeStacktraces", nothing), json!({}), "no data, not an error");
        let malformed = json!({"profileTypeID": ASKED[0].0, "labelSelector": "{service_name"});
        let (code, text) = ask(&url, wire, "SelectSeries", &malformed).expect_err("it is refused");
        assert_eq!(code, "invalid_argument");
        assert!(text.starts_with("label_selector: selector is wrong at byte 13"), "{text}");
    }
}
