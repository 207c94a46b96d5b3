//! The profiles at hand, and what tests do with blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterglow_profile::{Labels, Limits, Profile, ProfileType, compress, decode};
use afterglow_store::block::{Added, Block, Finished, Options, ProfileMeta, Row, SegmentWriter};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use ulid::Ulid;

/// A real profile: where it comes from and its protobuf bytes.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) gzip_bytes: usize,
    pub(crate) raw: Vec<u8>,
}

impl File {
    /// Returns the parts of its name that say which program and which type it is of.
    pub(crate) fn names(&self) -> (String, String) {
        let stem = self.path.file_name().and_then(|name| name.to_str()).expect("names are text");
        let mut words = stem.split(['-', '.']).map(str::to_lowercase);
        let service = words.next().filter(|word| !word.is_empty()).unwrap_or_else(|| "none".into());
        let is_word = |word: &String| word.bytes().all(|b| b.is_ascii_lowercase()) && !word.is_empty();
        (service, words.next().filter(is_word).unwrap_or_else(|| "other".into()))
    }

    /// Returns whether Go's own runtime wrote it.
    pub(crate) fn is_go(&self) -> bool {
        let folder = self.path.parent().expect("files lie in a folder");
        !folder.ends_with("foreign")
            && (!folder.ends_with("producers") && !folder.parent().is_some_and(|f| f.ends_with("producers"))
                || folder.ends_with("go"))
    }
}

/// Returns the profiles of tests/fixtures and of the folder named by AFTERGLOW_TEST_PROFILES (by default `../shared/profiles` beside the
/// workspace) where that exists, sorted by path.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, no setting of the product")]
pub(crate) fn files() -> Vec<File> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let more = std::env::var_os("AFTERGLOW_TEST_PROFILES").map(PathBuf::from);
    let more = more.unwrap_or_else(|| workspace.join("../shared/profiles"));
    let mut folders = vec![workspace.join("tests/fixtures/profiles"), more.clone(), more.join("foreign")];
    if let Ok(producers) = std::fs::read_dir(workspace.join("tests/fixtures/producers")) {
        folders.extend(producers.map(|entry| entry.expect("the folder can be listed").path()));
    }
    let mut files = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            if path.extension().is_some_and(|extension| extension == "gz" || extension == "pprof") {
                let body = std::fs::read(&path).expect("the profile can be read");
                let raw = compress::inflate(&body, &Limits::default()).expect("the profile inflates").into_owned();
                files.push(File { path, gzip_bytes: body.len(), raw });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!files.is_empty(), "there are profiles in tests/fixtures");
    files
}

/// Returns the decoded profile.
pub(crate) fn decoded(raw: &[u8]) -> Profile<'_> {
    decode::decode(raw, &Limits::default()).expect("the profile decodes")
}

/// Returns what a sender says of the `n`th profile.
pub(crate) fn meta(n: u64, service: &str, profile_type: &str, profile: &Profile<'_>) -> ProfileMeta {
    let labels = [("service", service.to_owned()), ("instance", format!("i{}", n % 3))];
    ProfileMeta {
        id: Ulid::from((n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        profile_type: ProfileType::parse(profile_type).expect("a word"),
        labels: Labels::new(labels).expect("valid labels"),
        time_nanos: profile.time_nanos,
        duration_nanos: profile.duration_nanos,
    }
}

/// Adds the decoded profile of `raw` to a segment.
pub(crate) fn add(writer: &mut SegmentWriter, meta: ProfileMeta, raw: &[u8]) -> Added {
    writer.add(meta, raw, &decoded(raw)).expect("a segment takes any profile")
}

/// Writes a segment of real profiles; the `n`th file gets the `n`th id.
pub(crate) fn segment(files: &[File]) -> Finished {
    segment_from(files, 0)
}

/// Writes a segment of real profiles; they get the ids from the `first` on.
pub(crate) fn segment_from(files: &[File], first: u64) -> Finished {
    let mut writer = SegmentWriter::new(Options::default());
    for (file, n) in files.iter().zip(first..) {
        let (service, profile_type) = file.names();
        let meta = meta(n, &service, &profile_type, &decoded(&file.raw));
        add(&mut writer, meta, &file.raw);
    }
    writer.finish().expect("a segment can be finished")
}

/// Puts a block into a store in memory and opens it.
pub(crate) async fn opened(bytes: Bytes) -> Result<Block, afterglow_store::block::Error> {
    opened_as("block.agb", bytes).await
}

/// Puts a block into a store in memory under this key and opens it.
pub(crate) async fn opened_as(key: &str, bytes: Bytes) -> Result<Block, afterglow_store::block::Error> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let key = Key::from(key);
    store.put(&key, bytes.into()).await.expect("memory takes any object");
    Block::open(store, key).await
}

/// Returns the number that [`meta`] made the id of a row from.
pub(crate) fn number(row: &Row) -> usize {
    let (n, _) = row.id.into();
    n as usize
}
