//! The sums of a block are what merging its profiles gives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use afterglow_profile::Profile;
use afterglow_profile::encode::encode;
use afterglow_profile::functions::{Stacks, Sums};
use afterglow_profile::merge::Merger;
use afterglow_store::block::{Ahead, Block, Keep, Options, SampleTypes, SegmentWriter, Wanted};
use afterglow_store::testing::faults::{Faulty, Operation};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::samples::{add, decoded, files, meta, number, opened, segment};

/// What a profile says, without the order of its tables: its header, and the values of each stack with labels in words.
pub(crate) type Meaning = (String, BTreeMap<String, Vec<i64>>);

fn meaning(profile: &Profile<'_>) -> Meaning {
    let text = |index: u32| String::from_utf8_lossy(profile.string(index)).into_owned();
    let value_type = |t: &afterglow_profile::model::ValueType| format!("{}/{}", text(t.kind), text(t.unit));
    let header = format!(
        "{:?} {:?} {} {} {} {:?} {} {} {} {} main {:?}",
        profile.sample_types.iter().map(value_type).collect::<Vec<_>>(),
        profile.period_type.as_ref().map(value_type),
        profile.period,
        profile.time_nanos,
        profile.duration_nanos,
        profile.comments.iter().map(|&comment| text(comment)).collect::<Vec<_>>(),
        text(profile.default_sample_type),
        text(profile.doc_url),
        text(profile.drop_frames),
        text(profile.keep_frames),
        profile.mappings.first().map(|mapping| (text(mapping.file), text(mapping.build_id))),
    );
    let mut samples = BTreeMap::new();
    for i in 0..profile.samples.len() {
        let mut key = String::new();
        for &location in profile.samples.stack(i) {
            let place = &profile.locations[location as usize];
            let mapping = profile.mappings.get(place.mapping as usize);
            key += &format!(
                "{:?} {:x} {}[",
                mapping.map(|m| (text(m.file), text(m.build_id), m.offset)),
                place.address.wrapping_sub(mapping.map_or(0, |m| m.start)),
                place.is_folded,
            );
            for line in profile.lines_of(location) {
                let function = profile.functions.get(line.function as usize);
                let function = function.map(|f| (text(f.name), text(f.system_name), text(f.file), f.start_line));
                key += &format!("{function:?}:{}:{} ", line.line, line.column);
            }
            key += "] ";
        }
        for label in profile.samples.labels(i) {
            key += &format!("{}={}/{}{} ", text(label.key), text(label.str), label.num, text(label.num_unit));
        }
        assert!(samples.insert(key, profile.values(i).to_vec()).is_none(), "a merged profile has each stack once");
    }
    (header, samples)
}

pub(crate) fn merged<'a>(profiles: impl IntoIterator<Item = Profile<'a>>) -> Meaning {
    let mut merger = Merger::new();
    for profile in profiles {
        merger.add(&profile).expect("profiles of one dataset go together");
    }
    meaning(&merger.finish().profile())
}

#[tokio::test]
async fn sums_merge_to_what_the_profiles_merge_to() {
    let files = files();
    let block = opened(segment(&files).bytes).await.expect("a fresh block opens");
    let rows = block.rows().await.expect("a fresh block has rows");
    let mut compared = 0;
    for (dataset, index) in block.toc().datasets().iter().zip(0..) {
        let lists = dataset.sample_types().len();
        for chosen in [
            dataset.rows().collect::<Vec<_>>(),
            dataset.rows().filter(|row| row % 3 == 1).collect(),
            dataset.rows().rev().take(1).collect(),
        ] {
            if chosen.is_empty() || (lists > 1 && chosen.len() > 1) {
                // Profiles of different programs, which do not go together.
                continue;
            }
            let aggregates = block.aggregate(index, &chosen, SampleTypes::All).await.expect("a fresh block is whole");
            assert_eq!(aggregates.iter().map(|sums| sums.profiles()).sum::<usize>(), chosen.len());
            let ours = merged(aggregates.iter().map(|sums| sums.profile()));
            let theirs = merged(chosen.iter().map(|&row| decoded(&files[number(&rows[row])].raw)));
            assert_eq!(ours.0, theirs.0);
            assert!(ours.1 == theirs.1, "sums of {}/{} differ", dataset.service(), dataset.profile_type());
            compared += chosen.len();
        }
    }
    assert!(compared > files.len() / 2);
}

/// Goal: a dataset of which more is to be read than is held at once is read in turns, and sums to the same.
#[tokio::test]
async fn what_is_read_in_turns_sums_to_the_same() {
    let faulty = Faulty::new(Arc::new(InMemory::new()));
    let key = Path::from("block.agb");
    faulty.put(&key, segment(&files()).bytes.into()).await.expect("memory takes any object");
    let open = async || Block::open(Arc::new(faulty.clone()), key.clone()).await.expect("a fresh block opens");
    let (together, in_turns) = (open().await, open().await.reading_ahead(1));
    let mut turns = 0;
    for (dataset, index) in together.toc().datasets().iter().zip(0..) {
        let rows: Vec<usize> = dataset.rows().collect();
        let sums = async |block: &Block| {
            block.rows().await.expect("a fresh block has rows");
            let before = faulty.count(Operation::Get);
            let sums = block.aggregate(index, &rows, SampleTypes::All).await.expect("a fresh block is whole");
            let said: Vec<_> = sums.iter().map(|sum| (sum.profiles(), encode(&sum.profile()))).collect();
            (said, faulty.count(Operation::Get) - before)
        };
        let ((ours, more), (theirs, few)) = (sums(&in_turns).await, sums(&together).await);
        assert!(ours == theirs, "sums of {}/{} differ", dataset.service(), dataset.profile_type());
        assert!(few <= more, "{few} reads at once, {more} in turns");
        turns += more - few;
    }
    assert!(turns > 0, "there are datasets of several chunks");
}

/// Goal: the frames that tables of functions are made of are those of the profile of the same samples, without making it: for all real
/// profiles, also where locations have no function, and none where frames are dropped.
#[tokio::test]
async fn stacks_are_named_as_those_of_the_profile() {
    let block = opened(segment(&files()).bytes).await.expect("a fresh block opens");
    let rows = block.rows().await.expect("a fresh block has rows");
    let (mut compared, mut dropping) = (0, 0);
    for (dataset, index) in block.toc().datasets().iter().zip(0..) {
        let wanted = dataset.rows().map(|row| (row, Wanted { group: rows[row].series, column: 0, factor: 1 }));
        let wanted: Vec<_> = wanted.collect();
        for grouped in
            block.by_group(index, &wanted, Keep::Nothing, &Ahead::default()).await.expect("a fresh block is whole")
        {
            let profile = grouped.profile();
            let Some(ours) = grouped.stacks() else {
                dropping += usize::from(!profile.string(profile.drop_frames).is_empty());
                continue;
            };
            let theirs = Stacks::new(&profile);
            for part in grouped.parts() {
                let named = |stacks: &Stacks<'_>| {
                    let values =
                        part.samples.iter().zip(&part.values).map(|(&sample, &value)| (sample as usize, value));
                    let summed = stacks.sum([(0, values)]);
                    let names: Vec<_> = summed.names().map(|(name, file)| (name.to_owned(), file.to_owned())).collect();
                    let (_, total, sums) = summed.parts().next().expect("there is one");
                    let of = |(number, sums)| (names[number as usize].clone(), sums);
                    (total, sums.map(of).collect::<HashMap<_, Sums>>())
                };
                assert!(named(&ours) == named(&theirs), "{}/{}", dataset.service(), dataset.profile_type());
                compared += part.samples.len();
            }
        }
    }
    assert!(compared > 1_000 && dropping > 0, "{compared} samples compared, {dropping} with frames to drop");
}

/// Returns a profile with no sample type but this.
fn only(mut profile: Profile<'_>, t: usize) -> Profile<'_> {
    let types = profile.sample_types.len();
    profile.samples.values = profile.samples.values.iter().skip(t).step_by(types).copied().collect();
    profile.sample_types = vec![profile.sample_types[t]];
    profile
}

/// Checks that each sample type of a block sums alone to what it sums to beside the others, and returns in how many cases.
pub(crate) async fn check_each_type_alone(block: &Block) -> usize {
    let mut compared = 0;
    for (dataset, index) in block.toc().datasets().iter().zip(0..) {
        // Profiles with other sample types do not go together.
        let choices: Vec<Vec<usize>> = match dataset.sample_types().len() {
            1 => vec![dataset.rows().collect(), dataset.rows().filter(|row| row % 3 == 1).collect()],
            _ => dataset.rows().map(|row| vec![row]).collect(),
        };
        for chosen in choices.into_iter().filter(|chosen| !chosen.is_empty()) {
            let sum = async |types| block.aggregate(index, &chosen, types).await.expect("the block is whole");
            let all = sum(SampleTypes::All).await;
            assert!(all.iter().all(|sums| sums.sample_type().is_none()));
            let types = all[0].profile().sample_types.len();
            if types == 0 {
                continue;
            }
            for t in 0..types {
                let one = sum(SampleTypes::One(t)).await;
                assert!(one.iter().all(|sums| sums.sample_type() == Some(t)));
                let [ours, theirs] = [
                    merged(one.iter().map(|sums| sums.profile())),
                    merged(all.iter().map(|sums| only(sums.profile(), t))),
                ];
                assert_eq!(ours.0, theirs.0);
                assert!(ours.1 == theirs.1, "type {t} of {}/{} differs", dataset.service(), dataset.profile_type());
                compared += 1;
            }
            let by_default = sum(SampleTypes::Default).await;
            assert_eq!(by_default.len(), all.len());
            for (ours, theirs) in by_default.iter().zip(&all) {
                let theirs = theirs.profile();
                assert_eq!(ours.sample_type(), theirs.sample_type_named(None));
                let theirs = only(theirs, ours.sample_type().expect("there are types"));
                assert!(merged([ours.profile()]) == merged([theirs]));
            }
            assert!(block.aggregate(index, &chosen, SampleTypes::One(types)).await.is_err(), "there is no such type");
        }
    }
    compared
}

#[tokio::test]
async fn each_sample_type_sums_alone_to_the_same() {
    let block = opened(segment(&files()).bytes).await.expect("a fresh block opens");
    assert!(check_each_type_alone(&block).await > 20);
}

/// Returns the bytes of a profile that counts two things, and shows the `shown`th by default, or says nothing of that.
fn showing(values: [i64; 2], shown: Option<usize>) -> Vec<u8> {
    let raw = tiny(1, false);
    let mut profile = decoded(&raw);
    let cpu = profile.sample_types[0];
    let other = afterglow_profile::model::ValueType { kind: profile.strings.len() as u32, ..cpu };
    profile.strings.push(b"other");
    profile.sample_types.push(other);
    profile.samples.values = values.to_vec();
    profile.default_sample_type = shown.map_or(0, |shown| profile.sample_types[shown].kind);
    profile.layout = afterglow_profile::model::Layout::default();
    encode(&profile)
}

/// Goal: each profile is summed by its own default, also where a chunk holds several, and a sum that does not fit stays apart.
#[tokio::test]
async fn the_default_is_that_of_each_header() {
    let raws = [
        showing([1, 20], None),
        showing([300, 4000], Some(0)),
        showing([5, 60], Some(1)),
        showing([i64::MAX, 7], Some(0)),
        showing([0, 8], Some(0)),
    ];
    let mut writer = SegmentWriter::new(Options::default());
    for (raw, n) in raws.iter().zip(0..) {
        let meta = meta(n, "a", "cpu", &decoded(raw));
        add(&mut writer, meta, raw);
    }
    let block = opened(writer.finish().expect("a segment").bytes).await.expect("a fresh block opens");
    let aggregates = block.aggregate(0, &[0, 1, 2, 3, 4], SampleTypes::Default).await.expect("a fresh block is whole");
    let mut sums: Vec<_> =
        aggregates.iter().map(|sums| (sums.sample_type(), sums.profiles(), sums.profile().samples.values)).collect();
    sums.sort();
    let max = i64::MAX;
    // Which of the two that do not fit together stays apart, depends on the order of rows.
    let apart = sums.iter().filter(|(t, _, values)| *t == Some(0) && (values == &[max] || values == &[300])).count();
    assert_eq!((sums.len(), apart), (4, 2), "{sums:?}");
    assert_eq!(sums[2..], [(Some(1), 1, vec![20]), (Some(1), 1, vec![60])]);
}

#[tokio::test]
async fn profiles_of_one_program_become_one_aggregate() {
    let files = files();
    let block = opened(segment(&files).bytes).await.expect("a fresh block opens");
    let largest = block.toc().datasets().iter().zip(0..).max_by_key(|(dataset, _)| dataset.rows().len());
    let (dataset, index) = largest.expect("there are datasets");
    let rows: Vec<_> = dataset.rows().collect();
    let aggregates = block.aggregate(index, &rows, SampleTypes::All).await.expect("a fresh block is whole");
    assert!(aggregates.len() < rows.len() || rows.len() == 1);
}

/// Returns the bytes of a profile of one sample with this value, and with a comment if `comment` says so.
fn tiny(value: i64, comment: bool) -> Vec<u8> {
    use afterglow_profile::encode::encode;
    use afterglow_profile::model::{Samples, ValueType};
    encode(&Profile {
        strings: vec![b"", b"cpu", b"nanoseconds", b"a comment"],
        sample_types: vec![ValueType { kind: 1, unit: 2, shape: 0 }],
        samples: Samples {
            location_ends: vec![0],
            values: vec![value],
            label_ends: vec![0],
            shapes: vec![0],
            ..Samples::default()
        },
        comments: if comment { vec![3] } else { vec![] },
        ..Profile::default()
    })
}

#[tokio::test]
async fn sums_that_overflow_are_left_to_the_merger() {
    let raws = [i64::MAX - 1, 1, 1, 2, i64::MIN].map(|value| tiny(value, false));
    let mut writer = SegmentWriter::new(Options::default());
    for (raw, n) in raws.iter().zip(0..) {
        let meta = meta(n, "a", "cpu", &decoded(raw));
        add(&mut writer, meta, raw);
    }
    let block = opened(writer.finish().expect("a segment").bytes).await.expect("a fresh block opens");
    let aggregates = block.aggregate(0, &[0, 1, 2, 3, 4], SampleTypes::All).await.expect("a fresh block is whole");
    assert!(aggregates.len() > 1, "one sum does not fit");
    let ours = merged(aggregates.iter().map(|sums| sums.profile()));
    assert_eq!(ours, merged(raws.iter().map(|raw| decoded(raw))));
}

#[tokio::test]
async fn each_header_has_its_own_sums() {
    let raws = [tiny(1, false), tiny(2, true), tiny(4, false), tiny(8, true)];
    let mut writer = SegmentWriter::new(Options::default());
    for (raw, n) in raws.iter().zip(0..) {
        let meta = meta(n, "a", "cpu", &decoded(raw));
        add(&mut writer, meta, raw);
    }
    let block = opened(writer.finish().expect("a segment").bytes).await.expect("a fresh block opens");
    let aggregates = block.aggregate(0, &[0, 1, 2, 3], SampleTypes::All).await.expect("a fresh block is whole");
    let mut sums: Vec<_> = aggregates.iter().map(|sums| sums.profile().samples.values.clone()).collect();
    sums.sort();
    assert_eq!(sums, [vec![5], vec![10]]);
    assert!(block.aggregate(0, &[4], SampleTypes::All).await.is_err(), "there is no such row");
    assert!(block.aggregate(1, &[0], SampleTypes::All).await.is_err(), "there is no such dataset");
}
