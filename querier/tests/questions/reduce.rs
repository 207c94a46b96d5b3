//! Answers of one sample type: made of that alone where that is safe, and always what a merge of all sample types shows.

use afterglow_profile::top::Top;
use afterglow_profile::tree::FlameGraph;
use afterglow_profile::{Limits, Profile, compress, dot, encode, folded};
use afterglow_proto::v1;

use crate::world::{NOW_NANOS, SECOND, Sent, World, decoded, fixture, fixtures, small};

const PATH: &str = "/api/v1/merge";
const CPU: [(&str, &str); 2] = [("samples", "count"), ("cpu", "nanoseconds")];

/// Asks for the selected profiles as pprof, which is made of all sample types.
async fn pprof(world: &World, query: &[(&str, &str)]) -> Vec<u8> {
    let answer = world.get(PATH, query).await;
    assert_eq!(answer.status, 200, "{answer}");
    compress::inflate(&answer.body, &Limits::default()).unwrap().into_owned()
}

/// Asserts that each form is that of the pprof, for each sample type and the default, and returns how many were compared.
async fn check(world: &World, query: &[(&str, &str)]) -> usize {
    let raw = pprof(world, query).await;
    let all = decoded(&raw);
    let names = all.sample_types.iter().map(|t| String::from_utf8_lossy(all.string(t.kind)).into_owned());
    let names: Vec<String> = std::iter::once(String::new()).chain(names).collect();
    for name in &names {
        let shown = all.sample_type_named(Some(name.as_str()).filter(|name| !name.is_empty())).unwrap();
        let form = |form: &'static str| [query, &[("format", form), ("sample_type", name)]].concat();
        check_flamegraph(world, &form("flamegraph"), &all, shown).await;
        check_top(world, &form("top"), &all, shown).await;
        let text =
            async |query: &[(&str, &str)]| String::from_utf8(world.get(PATH, query).await.body.to_vec()).unwrap();
        assert_eq!(text(&form("folded")).await, folded::write(&all, shown), "{query:?} {name}");
        let drawn = dot::write(&all, shown, dot::total(&all, shown), None);
        assert_eq!(text(&form("dot")).await, drawn, "{query:?} {name}");
    }
    names.len()
}

async fn check_flamegraph(world: &World, query: &[(&str, &str)], all: &Profile<'_>, shown: usize) {
    let answer: v1::MergeResponse = serde_json::from_value(world.json(PATH, query).await).unwrap();
    let Some(v1::merge_response::Result::Flamegraph(graph)) = answer.result else { panic!("{query:?}") };
    let expected = FlameGraph::new(all, shown, None);
    let kind = all.string(all.sample_types[shown].kind);
    assert_eq!(graph.sample_type.unwrap().r#type.as_bytes(), kind, "{query:?}");
    assert_eq!(graph.names, expected.names, "{query:?}");
    let ours: Vec<_> = graph.origins.iter().map(|origin| (&origin.file, origin.line, &origin.mapping)).collect();
    let theirs: Vec<_> = expected.origins.iter().map(|origin| (&origin.file, origin.line, &origin.mapping)).collect();
    assert_eq!(ours, theirs, "{query:?}");
    let ours: Vec<_> = graph.nodes.iter().map(|node| (node.name, node.depth, node.total, node.self_)).collect();
    let theirs: Vec<_> =
        expected.nodes.iter().map(|node| (node.name, node.depth, node.total, node.self_value)).collect();
    assert!(ours == theirs, "{query:?}");
}

async fn check_top(world: &World, query: &[(&str, &str)], all: &Profile<'_>, shown: usize) {
    let answer: v1::MergeResponse = serde_json::from_value(world.json(PATH, query).await).unwrap();
    let Some(v1::merge_response::Result::Top(top)) = answer.result else { panic!("{query:?}") };
    let expected = Top::new(all, shown, None);
    assert_eq!(top.total, expected.total, "{query:?}");
    let ours: Vec<_> = top.functions.iter().map(|f| (&f.name, &f.file, f.self_, f.total)).collect();
    let theirs: Vec<_> = expected.rows.iter().map(|row| (&row.name, &row.file, row.self_value, row.total)).collect();
    assert_eq!(ours, theirs, "{query:?}");
}

/// Goal: whatever the sample type and the form, an answer over real profiles is what the merge of all sample types shows, in
/// segments and after compaction.
#[tokio::test]
async fn one_sample_type_is_shown_as_beside_the_others() {
    let world = World::new().await;
    let mut selections: Vec<(String, String)> = Vec::new();
    let mut turns: [Vec<Sent>; 2] = Default::default();
    for (id, file) in (1..).zip(fixtures()) {
        let (service, rest) = file.split_once('-').unwrap();
        turns[id as usize % 2].push(fixture(&file, id, &[("service", service), ("instance", "i1")]));
        selections.push((format!("{{service=\"{service}\"}}"), rest.split('-').next().unwrap().to_owned()));
    }
    for sent in &turns {
        world.put(sent).await;
    }
    selections.sort();
    selections.dedup();
    for is_compacted in [false, true] {
        if is_compacted {
            world.compact().await;
        }
        let mut compared = 0;
        for (query, profile_type) in &selections {
            compared += check(&world, &[("query", query), ("type", profile_type), ("start", "-1d")]).await;
        }
        assert!(compared > 2 * selections.len());
    }
}

/// Makes a profile that shows its `shown`th sample type by default, or says nothing of that.
fn showing(id: u128, values: &[i64], shown: Option<usize>) -> Sent {
    let sent = small(id, "cpu", &[("service", "api")], NOW_NANOS - 9 * SECOND, &CPU, &[(&["main"], values)]);
    let mut profile = decoded(&sent.raw);
    profile.default_sample_type = shown.map_or(0, |shown| profile.sample_types[shown].kind);
    profile.layout = Default::default();
    Sent { raw: encode::encode(&profile), ..sent }
}

/// Goal: where profiles show different sample types by default, the answer shows what their merge does, whichever lies first.
#[tokio::test]
async fn defaults_that_differ_are_those_of_the_merge() {
    let (none, first, last) =
        (showing(1, &[1, 20], None), showing(2, &[300, 4000], Some(0)), showing(3, &[5, 60], Some(1)));
    for sent in [[&none, &first], [&first, &last], [&last, &first], [&none, &last]] {
        // Two answers are compared, so no listing may change between them.
        let world = || World::with(&["--query.max-list-age=0s"]);
        let (together, apart) = (world().await, world().await);
        together.put(&sent.map(Clone::clone)).await;
        for sent in sent {
            apart.put(std::slice::from_ref(sent)).await;
        }
        for world in [together, apart] {
            assert_eq!(check(&world, &[]).await, 3);
            world.compact().await;
            assert_eq!(check(&world, &[]).await, 3);
        }
    }
}

/// Goal: a diff shows what its selection shows by default, whatever its base does.
#[tokio::test]
async fn a_diff_shows_what_its_selection_does() {
    let yesterday = |mut sent: Sent| {
        sent.meta.time_nanos -= 86_400 * SECOND;
        sent
    };
    let sides = [showing(1, &[1, 20], Some(0)), yesterday(showing(2, &[300, 4000], None))];
    let text = async |world: &World, more: &[(&str, &str)]| {
        let query = [&[("base_start", "-25h"), ("base_end", "-23h"), ("format", "folded")], more].concat();
        String::from_utf8(world.get("/api/v1/diff", &query).await.body.to_vec()).unwrap()
    };
    let world = World::new().await;
    world.put(&sides).await;
    assert_eq!(text(&world, &[]).await, "main 300 1\n");
    assert_eq!(text(&world, &[("sample_type", "cpu")]).await, "main 4000 20\n");
    // A selection that does not agree with itself: of two of one instant it is that whose words come first.
    let world = World::new().await;
    let [shown, base] = sides;
    world.put(&[shown, base, showing(3, &[5, 60], Some(1))]).await;
    assert_eq!(text(&world, &[]).await, "main 4000 80\n");
}

/// Goal: what a merge says of all sample types it says of one as well: which there are, and that sums do not fit.
#[tokio::test]
async fn words_about_other_sample_types_stay() {
    let world = World::new().await;
    world.put(&[showing(1, &[i64::MAX, 20], None), showing(2, &[300, 4000], None)]).await;
    let saturated = "1 sums do not fit in 64 bits and stand at the nearest value that does";
    for sample_type in ["", "cpu", "samples"] {
        let top = world.json(PATH, &[("format", "top"), ("sample_type", sample_type)]).await;
        assert_eq!(top["warnings"], serde_json::json!([saturated]), "{sample_type}");
    }
    assert_eq!(
        world.refusal(PATH, &[("format", "top"), ("sample_type", "wall")]).await,
        "400 INVALID_ARGUMENT sample_type \"wall\" is not among those of the profiles: samples, cpu"
    );
    // Nobody else has this function, and it has nothing of what is shown.
    let idle = small(3, "cpu", &[("service", "api")], NOW_NANOS - 9 * SECOND, &CPU, &[(&["idle"], &[1, 0])]);
    let world = World::new().await;
    world.put(&[showing(1, &[1, 20], None), idle]).await;
    let answer = world.json(PATH, &[("format", "top"), ("ignore", "idle")]).await;
    assert_eq!(answer["top"]["total"], "20");
    assert!(answer.get("warnings").is_none_or(|warnings| *warnings == serde_json::json!([])), "{answer}");
}

/// Goal: units convert as they do beside other sample types.
#[tokio::test]
async fn units_that_differ_convert() {
    let world = World::new().await;
    let coarse = [("samples", "count"), ("cpu", "milliseconds")];
    let sent =
        |id, counts| small(id, "cpu", &[("service", "api")], NOW_NANOS - 9 * SECOND, counts, &[(&["main"], &[1, 2])]);
    world.put(&[sent(1, &coarse), sent(2, &CPU)]).await;
    assert_eq!(check(&world, &[]).await, 3);
    let answer = world.get(PATH, &[("format", "folded")]).await;
    assert_eq!(answer.body, "main 2000002\n");
}
