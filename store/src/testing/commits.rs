//! What was committed, read off the objects themselves: for tests that check programs and so must not ask the programs' readers.

use bytes::Bytes;
use object_store::path::Path;

use crate::commit::{self, Commit, Error};

/// Reads the commit that an object is.
///
/// # Errors
/// Where it is none.
pub fn decode(key: &Path, object: &Bytes) -> Result<Commit, Error> {
    commit::decode(key, object)
}
