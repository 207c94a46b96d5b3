//! Verification: reads the bucket from outside and compares what lies there with what the commits say.
//!
//! It changes nothing and trusts nothing but the formats. Every commit, and every head and part of snapshots, is read and compared with
//! what replaying gives (`commit::inspect`). Every live block must lie where its commit says, with as many bytes and profiles, and each id in one live
//! block only, naming the same bytes wherever it occurs; of blocks and segments that reads the table of contents and the rows, and nothing else.
//! `deep` reads every byte: each section is compared with its checksum, each profile is rebuilt and compared with its SHA-256, each roll-up
//! with the profiles it sums, each filter with the functions it is of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use ulid::Ulid;

use crate::Store;
use crate::block::{self, Block, Summary};
use crate::commit::inspect::{Inspected, inspect};
use crate::commit::{BlockEntry, Commits};
use crate::compaction::{Error, list};
use crate::paths::{BlockKey, SegmentKey, TenantId};

/// How many objects are looked into at once.
const OPENS_MAX: usize = 16;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object, or the folder.
    pub key: Path,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of the last commit.
    pub commits: u64,
    /// How many commits, and heads and parts of snapshots, were read.
    pub log: usize,
    /// How many live blocks there are.
    pub blocks: usize,
    /// How many segments there are that no commit removed.
    pub segments: usize,
    /// How many profiles these hold; an id that stands in several segments counts as often.
    pub profiles: u64,
    /// Their bytes in the bucket.
    pub bytes: u64,
    /// How many profiles were rebuilt and compared with their SHA-256.
    pub rebuilt: u64,
    /// How many roll-ups were compared with the profiles they sum.
    pub rollups: u64,
    /// Objects that were removed, or that nobody names: collection will delete them.
    pub garbage: usize,
    /// What is wrong. Nothing, if all is well.
    pub findings: Vec<Finding>,
}

/// Verifies what lies in the bucket for one tenant.
///
/// Costs five LISTs, a GET for each commit and each head and part of snapshots, the refresh of the commits and two GETs a block; with `deep`, about
/// two more for each profile, one for each section, and one for each chunk of what has roll-ups.
///
/// # Errors
/// Where the bucket could not be read. What is damaged is no error but a [`Finding`].
pub async fn verify(store: &Store, tenant: &TenantId, deep: bool) -> Result<Report, Error> {
    let verifier = Verifier { store, tenant, deep };
    let segments = list(store, tenant.segments()).await?;
    let mut report = Report::default();
    let Inspected { objects, findings } = inspect(store, tenant).await?;
    report.log = objects;
    report.findings.extend(findings.into_iter().map(|(key, text)| Finding { key, text }));
    let state = match Commits::new(store.clone(), tenant.clone()).refresh().await {
        Ok(state) => state,
        Err(error) if error.is_damage() => {
            let text =
                format!("cannot be read up to the last commit, so blocks and segments were not looked at: {error}");
            report.findings.push(Finding { key: tenant.commits(), text });
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    let blocks = list(store, tenant.blocks()).await?.len();
    report.commits = state.number();
    report.blocks = state.len();

    let live: Vec<_> = state.blocks().map(|live| verifier.block(&live.entry)).collect();
    let mut looks = futures::stream::iter(live).buffered(OPENS_MAX);
    let mut seen: BTreeMap<Ulid, Seen> = BTreeMap::new();
    while let Some((entry, looked)) = looks.next().await {
        let key = BlockKey { tenant: tenant.clone(), name: entry.name }.path();
        let ids = report.take(key.clone(), looked?);
        report.bytes += entry.bytes;
        let key = Arc::new(key);
        for (id, sha256) in ids {
            if let Some(other) = seen.insert(id, Seen { key: key.clone(), sha256 }) {
                let text = format!("has profile {id}, which live block {} has too", other.key);
                report.findings.push(Finding { key: Path::clone(&key), text });
            }
        }
    }
    drop(looks);
    report.garbage += blocks.saturating_sub(report.blocks);

    let mut open = Vec::new();
    for meta in segments {
        match SegmentKey::parse(tenant, &meta.location) {
            Ok(key) if state.is_removed(&key.name) => report.garbage += 1,
            Ok(_) => open.push(verifier.segment(meta)),
            Err(error) => report.findings.push(Finding { key: meta.location, text: error.to_string() }),
        }
    }
    report.segments = open.len();
    let mut looks = futures::stream::iter(open).buffered(OPENS_MAX);
    while let Some((meta, looked)) = looks.next().await {
        let key = Arc::new(meta.location);
        for (id, sha256) in report.take(Path::clone(&key), looked?) {
            // Senders that retry leave copies, which count once. Another profile under the same id does not count at all.
            let first = seen.entry(id).or_insert_with(|| Seen { key: key.clone(), sha256 });
            if first.sha256 != sha256 {
                let text = format!("has another profile {id} than {}: only one of them is found", first.key);
                report.findings.push(Finding { key: Path::clone(&key), text });
            }
        }
        report.bytes += meta.size;
    }
    drop(looks);
    Ok(report)
}

/// Where an id was met first, and the bytes that it names there.
struct Seen {
    key: Arc<Path>,
    sha256: [u8; 32],
}

/// What was found in one object.
#[derive(Default)]
struct Looked {
    /// The id of each profile, and the SHA-256 of its protobuf bytes.
    ids: Vec<(Ulid, [u8; 32])>,
    rebuilt: u64,
    rollups: u64,
    wrong: Vec<String>,
}

struct Verifier<'a> {
    store: &'a Store,
    tenant: &'a TenantId,
    deep: bool,
}

impl Verifier<'_> {
    async fn block<'e>(&self, entry: &'e BlockEntry) -> (&'e BlockEntry, Result<Looked, Error>) {
        let path = BlockKey { tenant: self.tenant.clone(), name: entry.name }.path();
        let size = match self.store.objects().head(&path).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => {
                return (entry, Ok(Looked::wrong("is live by the commits, and not there".to_owned())));
            }
            Err(source) => return (entry, Err(Error::List { key: path, source })),
        };
        if size != entry.bytes {
            let text = format!("has {size} bytes, its commit says {}", entry.bytes);
            return (entry, Ok(Looked::wrong(text)));
        }
        let looked = self.look(path, size, |summary| {
            let said =
                (entry.rows, entry.raw_bytes, entry.first_nanos, entry.last_nanos, entry.first_id, entry.last_id);
            let is = (
                summary.rows,
                summary.raw_bytes,
                summary.first_nanos,
                summary.last_nanos,
                summary.first_id,
                summary.last_id,
            );
            (said != is).then(|| format!("holds {is:?}, its commit says {said:?}"))
        });
        (entry, looked.await)
    }

    async fn segment(&self, meta: ObjectMeta) -> (ObjectMeta, Result<Looked, Error>) {
        let looked = self.look(meta.location.clone(), meta.size, |_| None).await;
        (meta, looked)
    }

    /// Opens an object, reads its rows, compares what they come to, and if need be every profile.
    async fn look(&self, path: Path, size: u64, compare: impl Fn(&Summary) -> Option<String>) -> Result<Looked, Error> {
        let mut looked = Looked::default();
        let block = match Block::open_sized(self.store.objects(), path, size).await {
            Ok(block) => block,
            Err(error) if error.is_corrupt() || matches!(error, block::Error::TooNew { .. }) => {
                return Ok(Looked::wrong(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let rows = match block.rows().await {
            Ok(rows) => rows,
            Err(error) if error.is_corrupt() => return Ok(Looked::wrong(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        looked.wrong.extend(Summary::of(&rows).as_ref().and_then(compare));
        looked.ids = rows.iter().map(|row| (row.id, row.sha256)).collect();
        if self.deep {
            for row in rows.iter() {
                match block.fetch(row).await {
                    Ok(_) => looked.rebuilt += 1,
                    Err(error) if error.is_corrupt() => looked.wrong.push(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
            let rollups = block.check_rollups().await;
            looked.rollups += *rollups.as_ref().unwrap_or(&0) as u64;
            for error in [rollups.err(), block.check_filters().await.err()].into_iter().flatten() {
                // Profiles and tables that are damaged were named above.
                let text = error.to_string();
                if !error.is_corrupt() {
                    return Err(error.into());
                } else if !looked.wrong.contains(&text) {
                    looked.wrong.push(text);
                }
            }
            match block.check_sections().await {
                // Whatever was named above lies in a section as well.
                Err(error) if error.is_corrupt() && looked.wrong.is_empty() => looked.wrong.push(error.to_string()),
                Err(error) if !error.is_corrupt() => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(looked)
    }
}

impl Looked {
    fn wrong(text: String) -> Self {
        Self { wrong: vec![text], ..Self::default() }
    }
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Takes in what was found in one object, and returns its ids.
    fn take(&mut self, key: Path, looked: Looked) -> Vec<(Ulid, [u8; 32])> {
        self.profiles += looked.ids.len() as u64;
        self.rebuilt += looked.rebuilt;
        self.rollups += looked.rollups;
        self.findings.extend(looked.wrong.into_iter().map(|text| Finding { key: key.clone(), text }));
        looked.ids
    }
}

#[cfg(test)]
mod tests;
