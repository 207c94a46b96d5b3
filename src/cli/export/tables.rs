//! The two tables of an export, and how profiles become their rows.
//!
//! Both files are written beside their names and take them in the end, so whatever an earlier export left stays until a new one is whole.
//!
//! Memory is bounded by a group of rows and by the distinct stacks. Text is UTF-8 here: what is not becomes U+FFFD. A frame is named as in
//! our flame graphs and tables; it is shown even where the profile's `drop_frames` would hide it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use afterglow_profile::Profile;
use afterglow_profile::frames::frame_name;
use afterglow_profile::model::NONE;
use afterglow_proto::v1::ProfileInfo;
use anyhow::Context as _;
use parquet::data_type::ByteArray;
use parquet::errors::Result;

use super::parquet_table::Table;

/// The file with the samples.
pub(super) const SAMPLES: &str = "samples.parquet";

/// The file with the stacks.
pub(super) const STACKS: &str = "stacks.parquet";

const SAMPLE: &str = "message sample {
    required binary profile (UTF8);
    required binary service (UTF8);
    required binary type (UTF8);
    required int64 time (TIMESTAMP(NANOS,true));
    required int64 duration;
    required group labels (MAP) {
        repeated group key_value { required binary key (UTF8); required binary value (UTF8); }
    }
    required int64 stack;
    required group sample_labels (MAP) {
        repeated group key_value { required binary key (UTF8); required binary value (UTF8); }
    }
    required binary sample_type (UTF8);
    required binary unit (UTF8);
    required int64 value;
}";

const FRAME: &str = "message frame {
    required int64 stack;
    required int32 depth;
    required binary function (UTF8);
    required binary file (UTF8);
    required int64 line;
    required binary mapping (UTF8);
    required int64 address (INTEGER(64,false));
    required boolean inlined;
}";

/// Both tables while they are written.
pub(super) struct Tables {
    samples: Table,
    frames: Table,
    samples_file: Unfinished,
    frames_file: Unfinished,
    /// The number of each stack that was written.
    stacks: HashMap<Vec<Frame>, i64>,
    texts: Texts,
    profiles: u64,
}

/// A file that is written beside its name; deleted unless it takes that.
struct Unfinished {
    path: PathBuf,
    to: PathBuf,
}

/// How much was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) profiles: u64,
    pub(super) samples: u64,
    pub(super) frames: u64,
    pub(super) stacks: usize,
}

/// A frame of a stack; texts by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Frame {
    function: usize,
    file: usize,
    line: i64,
    mapping: usize,
    address: u64,
    is_inlined: bool,
}

/// The distinct texts of frames.
#[derive(Default)]
struct Texts {
    numbers: HashMap<String, usize>,
    texts: Vec<ByteArray>,
}

// === impl Tables ===

impl Tables {
    /// Makes both files in `folder`, which is there.
    ///
    /// # Errors
    /// Says which cannot be made.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        let (samples_file, frames_file) = (Unfinished::new(folder, SAMPLES), Unfinished::new(folder, STACKS));
        Ok(Self {
            samples: Table::create(&samples_file.path, SAMPLE)?,
            frames: Table::create(&frames_file.path, FRAME)?,
            samples_file,
            frames_file,
            stacks: HashMap::new(),
            texts: Texts::default(),
            profiles: 0,
        })
    }

    /// Adds the samples of a profile.
    ///
    /// # Errors
    /// Says that a file cannot be written.
    pub(super) fn add(&mut self, info: &ProfileInfo, profile: &Profile<'_>) -> Result<()> {
        let [id, service, kind] = [&info.id, &info.service, &info.r#type].map(|text| ByteArray::from(&text[..]));
        let labels: Vec<_> = info.labels.iter().map(|(name, value)| (name[..].into(), value[..].into())).collect();
        let time = info.time.as_ref().map_or(0, |time| nanos(time.seconds, time.nanos));
        let duration = info.duration.as_ref().map_or(0, |duration| nanos(duration.seconds, duration.nanos));
        let text = |index: u32| ByteArray::from(&*String::from_utf8_lossy(profile.string(index)));
        let types: Vec<_> = profile.sample_types.iter().map(|of| (text(of.kind), text(of.unit))).collect();
        for sample in 0..profile.samples.len() {
            let values = profile.values(sample);
            if values.iter().all(|&value| value == 0) {
                continue;
            }
            let stack = self.stack(profile, profile.samples.stack(sample))?;
            let sample_labels = profile.samples.labels(sample).iter().map(|label| {
                let lossy = |index| String::from_utf8_lossy(profile.string(index)).into_owned();
                let value = if label.str == 0 { label.num.to_string() } else { lossy(label.str) };
                (lossy(label.key), value)
            });
            let sample_labels: Vec<_> = distinct_keys(sample_labels)
                .into_iter()
                .map(|(key, value)| (ByteArray::from(&key[..]), ByteArray::from(&value[..])))
                .collect();
            for (&value, (sample_type, unit)) in values.iter().zip(&types).filter(|&(&value, _)| value != 0) {
                let row =
                    self.samples.row()?.text(&id).text(&service).text(&kind).long(time).long(duration).map(&labels);
                row.long(stack).map(&sample_labels).text(sample_type).text(unit).long(value);
            }
        }
        self.profiles += 1;
        Ok(())
    }

    /// Returns the number of a stack; writes its frames where it is new.
    fn stack(&mut self, profile: &Profile<'_>, locations: &[u32]) -> Result<i64> {
        let mut frames = Vec::with_capacity(locations.len());
        for &location in locations {
            let at = &profile.locations[location as usize];
            let mapping = if at.mapping == NONE { 0 } else { profile.mappings[at.mapping as usize].file };
            let mapping = self.texts.number(&String::from_utf8_lossy(profile.string(mapping)));
            let mut frame = |function, line, is_inlined| {
                let file = if function == NONE { 0 } else { profile.functions[function as usize].file };
                Frame {
                    function: self.texts.number(&frame_name(profile, function, at.mapping)),
                    file: self.texts.number(&String::from_utf8_lossy(profile.string(file))),
                    line,
                    mapping,
                    address: at.address,
                    is_inlined,
                }
            };
            let lines = &profile.lines[at.lines()];
            if lines.is_empty() {
                frames.push(frame(NONE, 0, false));
            }
            // The last line of a location is what the others are inlined into.
            frames.extend((1..).zip(lines).map(|(n, line)| frame(line.function, line.line, n < lines.len())));
        }
        if let Some(&number) = self.stacks.get(&frames) {
            return Ok(number);
        }
        let number = self.stacks.len() as i64;
        for (depth, frame) in (0..).zip(&frames) {
            let [function, file, mapping] =
                [frame.function, frame.file, frame.mapping].map(|number| &self.texts.texts[number]);
            let row = self.frames.row()?.long(number).int(depth).text(function).text(file).long(frame.line);
            row.text(mapping).long(frame.address as i64).flag(frame.is_inlined);
        }
        self.stacks.insert(frames, number);
        Ok(number)
    }

    /// Ends both files, and gives them their names.
    ///
    /// # Errors
    /// Says that one cannot be written.
    pub(super) fn finish(self) -> anyhow::Result<Written> {
        let written = Written {
            profiles: self.profiles,
            samples: self.samples.finish()?,
            frames: self.frames.finish()?,
            stacks: self.stacks.len(),
        };
        self.samples_file.take_name()?;
        self.frames_file.take_name()?;
        Ok(written)
    }
}

// === impl Unfinished ===

impl Unfinished {
    fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(format!(".{name}.{}", std::process::id())), to: folder.join(name) }
    }

    fn take_name(&self) -> anyhow::Result<()> {
        std::fs::rename(&self.path, &self.to).with_context(|| format!("cannot write {}", self.to.display()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it has its name there is nothing to delete.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns labels of which no two have one key, as the keys of a map must be: of a key that comes again the second is `key#2`, and so on.
fn distinct_keys(labels: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let labels: Vec<_> = labels.collect();
    let mut taken: HashSet<String> = labels.iter().map(|(key, _)| key.clone()).collect();
    let mut firsts = HashSet::new();
    let mut distinct = Vec::with_capacity(labels.len());
    for (key, value) in labels {
        if firsts.insert(key.clone()) {
            distinct.push((key, value));
            continue;
        }
        let mut numbered = (2..).map(|n: u32| format!("{key}#{n}"));
        let free = numbered.find(|key| !taken.contains(key)).expect("there are more numbers than labels");
        taken.insert(free.clone());
        distinct.push((free, value));
    }
    distinct
}

// === impl Texts ===

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.numbers.insert(text.to_owned(), self.texts.len());
        self.texts.push(text.into());
        self.texts.len() - 1
    }
}

/// Returns nanoseconds, as far as they fit: those of stored profiles do.
fn nanos(seconds: i64, nanos: i32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_comes_again_is_numbered_and_nothing_is_lost() {
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        let distinct = |pairs: &[(&str, &str)]| distinct_keys(labels(pairs).into_iter());
        assert_eq!(distinct(&[("a", "1"), ("b", "1")]), labels(&[("a", "1"), ("b", "1")]));
        assert_eq!(
            distinct(&[("a", "1"), ("a", "2"), ("b", "1"), ("a", "2")]),
            labels(&[("a", "1"), ("a#2", "2"), ("b", "1"), ("a#3", "2")])
        );
        assert_eq!(
            distinct(&[("a", "1"), ("a", "2"), ("a#2", "3")]),
            labels(&[("a", "1"), ("a#3", "2"), ("a#2", "3")])
        );
    }

    #[test]
    fn what_an_earlier_export_left_stays_until_a_new_one_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let earlier = folder.path().join(SAMPLES);
        std::fs::write(&earlier, "earlier").expect("it can be written");
        drop(Tables::create(folder.path()).expect("it can be written"));
        assert_eq!(std::fs::read(&earlier).expect("it is there"), b"earlier");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "what was not ended is deleted");
        Tables::create(folder.path()).expect("it can be written").finish().expect("it can be written");
        assert_ne!(std::fs::read(&earlier).expect("it is there"), b"earlier");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }
}
