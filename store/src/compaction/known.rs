//! The ids of live blocks: what has to stay behind when a profile comes a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use ulid::Ulid;

use crate::Store;
use crate::block::{self, Block};
use crate::commit::BlockEntry;
use crate::paths::{BlockKey, BlockName, BlockRef, TenantId};

/// How many blocks are asked for their ids at once.
const OPENS_MAX: usize = 8;

/// Knows the ids of blocks; those last asked for are kept.
pub(super) struct Known {
    store: Store,
    tenant: TenantId,
    ids: Cache<BlockName, Arc<[u128]>, Bytes>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<BlockName, Arc<[u128]>> for Bytes {
    fn weight(&self, _name: &BlockName, ids: &Arc<[u128]>) -> u64 {
        size_of_val(&**ids).max(1) as u64
    }
}

impl Known {
    pub(super) fn new(store: Store, tenant: TenantId, bytes_max: u64) -> Self {
        // For the size of the cache's own tables only: a block of an hour has thousands of ids.
        let blocks = usize::try_from(bytes_max >> 16).unwrap_or(usize::MAX).max(16);
        Self { store, tenant, ids: Cache::with_weighter(blocks, bytes_max, Bytes) }
    }

    /// Returns which of `ids` (sorted) some of `blocks` has. Blocks whose bounds hold none of them are not read; each other costs two
    /// GETs at most, or nothing where its ids are kept.
    ///
    /// What lies damaged in the bucket has no ids: nobody knows them, and nobody sees its profiles either. Of the blocks that are `noted` as damaged
    /// each that cannot be read is read whole, twice, to make sure that it is so.
    ///
    /// # Errors
    /// The first block that cannot be read, and why.
    pub(super) async fn of(
        &self,
        ids: &[u128],
        blocks: impl Iterator<Item = &Arc<BlockEntry>>,
        noted: &BTreeSet<BlockRef>,
    ) -> Result<BTreeSet<Ulid>, (BlockName, block::Error)> {
        let may_hold = |entry: &&Arc<BlockEntry>| {
            let first = ids.partition_point(|id| *id < u128::from(entry.first_id));
            ids.get(first).is_some_and(|id| *id <= u128::from(entry.last_id))
        };
        let asked: Vec<_> = blocks
            .filter(may_hold)
            .map(async |entry| match self.ids_of(entry).await {
                Err(_) if noted.contains(&entry.name.into()) && self.is_lost(entry).await => Ok(Arc::default()),
                read => read.map_err(|error| (entry.name, error)),
            })
            .collect();
        let of_blocks: Vec<_> = futures::stream::iter(asked).buffered(OPENS_MAX).try_collect().await?;
        let is_known = |id: &&u128| of_blocks.iter().any(|block: &Arc<[u128]>| block.binary_search(id).is_ok());
        Ok(ids.iter().filter(is_known).map(|id| Ulid::from(*id)).collect())
    }

    /// Returns the ids of a block, sorted.
    async fn ids_of(&self, entry: &BlockEntry) -> Result<Arc<[u128]>, block::Error> {
        if let Some(ids) = self.ids.get(&entry.name) {
            return Ok(ids);
        }
        let ids = read(self.store.objects(), self.path(entry), entry.bytes).await?;
        self.ids.insert(entry.name, Arc::clone(&ids));
        Ok(ids)
    }

    /// Whether the ids of a block cannot be had, whoever asks and however often: two reads agree that it is not there, or on bytes that
    /// have none. What is damaged on its way here is not damaged twice alike.
    async fn is_lost(&self, entry: &BlockEntry) -> bool {
        let whole = async || match self.store.objects().get(&self.path(entry)).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        match (whole().await, whole().await) {
            (Ok(None), Ok(None)) => true,
            (Ok(Some(bytes)), Ok(Some(again))) if bytes == again => {
                let (memory, path): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), self.path(entry));
                memory.put(&path, bytes.into()).await.is_ok()
                    && read(memory, path, entry.bytes).await.is_err_and(|error| error.is_corrupt())
            }
            _ => false,
        }
    }

    fn path(&self, entry: &BlockEntry) -> Path {
        BlockKey { tenant: self.tenant.clone(), name: entry.name }.path()
    }
}

/// Reads the ids of a block of so many bytes, and sorts them.
async fn read(objects: Arc<dyn ObjectStore>, path: Path, bytes: u64) -> Result<Arc<[u128]>, block::Error> {
    let block = Block::open_sized(objects, path, bytes).await?;
    let mut ids: Vec<u128> = block.rows().await?.iter().map(|row| row.id.into()).collect();
    ids.sort_unstable();
    Ok(ids.into())
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
