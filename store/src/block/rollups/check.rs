//! Compares roll-ups with the profiles they sum, for whoever trusts neither.

use super::roll::{Roller, Sum};
use crate::block::chunk::Profiles;
use crate::block::columns::Samples;
use crate::block::error::Error;
use crate::block::reader::{self, Block};
use crate::block::rows::Row;
use crate::block::toc::{Chunk, Dataset};
use crate::block::values;
use crate::block::varint::Damage;

impl Block {
    /// Adds up all profiles of the datasets that have roll-ups, compares the sums, and returns how many roll-ups there are. One GET for each
    /// chunk and each roll-up.
    ///
    /// # Errors
    /// The object cannot be read, is damaged, or a roll-up says something else than its profiles.
    pub async fn check_rollups(&self) -> Result<usize, Error> {
        let rows = self.rows().await?;
        let mut checked = 0;
        for dataset in self.toc().datasets().iter().filter(|dataset| !dataset.rollups.is_empty()) {
            self.check_rollups_of(dataset, &rows[dataset.rows()]).await?;
            checked += dataset.rollups.list.len();
        }
        Ok(checked)
    }

    async fn check_rollups_of(&self, dataset: &Dataset, rows: &[Row]) -> Result<(), Error> {
        let part = || format!("roll-ups of {}/{}", dataset.service(), dataset.profile_type());
        let corrupt = |damage| Error::corrupt(self.path(), part(), damage);
        let tables = self.toc().symbols[dataset.symbols as usize].range();
        let symbols = self.symbols(dataset, self.read(tables).await?)?;
        let numbers = values::numbers(&symbols);
        let version = dataset.samples_version(self.toc());
        let unpacked = async |chunk: &Chunk, with_meta: bool| -> Result<_, Error> {
            Ok(reader::unpack(chunk, &self.read(chunk.range()).await?, version, with_meta))
        };

        let mut roller = Roller::like(&dataset.rollups);
        let mut of_columns: Vec<&Row> = rows.iter().filter(|row| row.columns).collect();
        of_columns.sort_by_key(|row| (row.chunk, row.position));
        for rows in of_columns.chunk_by(|a, b| a.chunk == b.chunk) {
            let of_row = |damage| self.corrupt_row(rows[0], damage);
            let chunk = unpacked(&dataset.chunks[rows[0].chunk as usize], false).await?.map_err(of_row)?;
            let mut profiles = Profiles::new(&chunk, &numbers).map_err(of_row)?;
            let mut samples = Samples::default();
            for row in rows {
                let added = profiles.read(row.position as usize, &mut samples);
                let added = added.and_then(|head| roller.add(row, &head, &samples, &symbols));
                added.map_err(|damage| self.corrupt_row(row, damage))?;
            }
        }

        let mut left = &dataset.rollups.list[..];
        for (step, _, sums) in roller.sums() {
            let count = left.partition_point(|rollup| rollup.step <= step);
            let (of_step, behind) = left.split_at(count);
            left = behind;
            // A step without roll-ups is not worth them.
            if of_step.is_empty() {
                continue;
            }
            let mut read = Vec::with_capacity(count);
            for rollup in of_step {
                let (row, chunk) =
                    (dataset.rollups.row(rollup), unpacked(&rollup.chunk, true).await?.map_err(corrupt)?);
                read.push(Sum::read(&chunk, &row, rollup.rows, &symbols, &numbers).map_err(corrupt)?);
            }
            if of_step.iter().any(|rollup| rollup.step != step) || read != sums {
                return Err(corrupt(DIFFERENT));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(corrupt(DIFFERENT)) }
    }
}

const DIFFERENT: Damage = Damage("say something else than the profiles they sum");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};

    use super::super::Rollup;
    use super::*;
    use crate::block::{Input, Merge, MergeOptions};
    use crate::testing::segments::{Sent, segment};

    type Change = fn(&mut Vec<Rollup>);

    async fn opened(bytes: Bytes) -> Block {
        let (store, key): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Path::from("block"));
        store.put(&key, bytes.into()).await.expect("memory takes any object");
        Block::open(store, key).await.expect("a fresh block opens")
    }

    /// Goal: frames that are whole but say something else than the profiles are found, too.
    #[tokio::test]
    async fn a_roll_up_of_something_else_is_named() {
        const MINUTE: i64 = 60 * 1_000_000_000;
        let sent: Vec<_> =
            (0..100u8).map(|n| Sent::new(n.into(), "api", &[], i64::from(n) * MINUTE).with_value(n.into())).collect();
        let input = Input { block: Arc::new(opened(segment(&sent)).await), skip: Arc::from([]) };
        let mut merge = Merge::begin(vec![input], MergeOptions::of_level(2)).await.expect("it can be merged");
        let merged = merge.next().await.expect("it can be merged").expect("there are profiles");

        let mut block = opened(merged.bytes).await;
        assert_eq!(block.check_rollups().await.expect("a fresh block is whole"), 2);
        let whole = block.toc().clone();
        let changes: [Change; 4] = [
            |list| list[0].chunk = list[1].chunk.clone(),
            |list| list[0].step = -1,
            |list| list[1].rows -= 1,
            |list| list[1].step += 1,
        ];
        for change in changes {
            change(&mut block.toc_mut().datasets[0].rollups.list);
            let error = block.check_rollups().await.expect_err("it says something else");
            assert!(
                error.is_corrupt() && error.to_string().contains("roll-ups of api/cpu say something else"),
                "{error}"
            );
            *block.toc_mut() = whole.clone();
        }
    }
}
