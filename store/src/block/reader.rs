//! Reads a block, by ranges.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;

use super::{Aggregate, Error, Row, Toc};

/// A block in an object store. It is immutable, so what was read of it once stays true.
#[derive(Debug)]
pub struct Block {
    #[expect(dead_code, reason = "the reader follows")]
    store: Arc<dyn ObjectStore>,
    path: Path,
    toc: Toc,
}

impl Block {
    /// Opens the block at `path`: one GET of the object's last 64 KiB, and one more where the table of contents and the rows are longer.
    ///
    /// # Errors
    /// The object cannot be read, is damaged or too new.
    pub async fn open(store: Arc<dyn ObjectStore>, path: Path) -> Result<Self, Error> {
        let _ = store;
        Err(Error::TooNew { block: path, needed: 1, known: 0 })
    }

    /// Returns the key of the object.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// Returns the rows, in the order of their datasets; decoded once.
    ///
    /// # Errors
    /// The rows are damaged.
    pub async fn rows(&self) -> Result<Arc<Vec<Row>>, Error> {
        Err(Error::TooNew { block: self.path.clone(), needed: 1, known: 0 })
    }

    /// Returns the protobuf bytes of a profile exactly as they were sent, checked by their SHA-256. One round trip.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn fetch(&self, _row: &Row) -> Result<Bytes, Error> {
        Err(Error::TooNew { block: self.path.clone(), needed: 1, known: 0 })
    }

    /// Returns the sums of the samples of `rows` (indices into [`Block::rows`], all of `dataset`), one aggregate for each distinct
    /// header; merging them gives what merging the profiles gives. One round trip.
    ///
    /// # Errors
    /// The object cannot be read or is damaged.
    pub async fn aggregate(&self, _dataset: usize, _rows: &[usize]) -> Result<Vec<Aggregate>, Error> {
        Err(Error::TooNew { block: self.path.clone(), needed: 1, known: 0 })
    }
}
