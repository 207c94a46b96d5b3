//! The form that commits and what is derived from them share: a magic, a version, a body, a checksum. And reading it whole.

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};

use super::Error;
use crate::block::varint::{Cursor, Damage, put};

/// The version that is written, and the newest that is read.
const VERSION: u64 = 1;
/// The bytes of the first range: more than most objects have, and few enough that a read which stalls is tried again soon.
const FIRST_RANGE_BYTES: u64 = 256 << 10;
/// The bytes of each range after it: as many as are read again as one when the connection breaks (see `patient`).
const RANGE_BYTES: u64 = 32 << 20;
const MAGIC_BYTES: usize = 4;
const CRC_BYTES: usize = 4;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Snapshot,
    Day,
}

impl Kind {
    fn magic(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Self::Commit => b"AGCM",
            Self::Snapshot => b"AGSN",
            Self::Day => b"AGDY",
        }
    }

    /// The most bytes that are read: what is longer was not written by us. A removed segment takes 12, a live block about 90.
    fn bytes_max(self) -> u64 {
        match self {
            Self::Commit => 64 << 20,
            Self::Snapshot => 512 << 20,
            Self::Day => 128 << 20,
        }
    }
}

/// An object that was read and is sound.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) body: Bytes,
    /// When the store took it, in milliseconds since 1970 by its clock.
    pub(super) at_millis: u64,
}

/// Puts magic, version and checksum around a body.
pub(super) fn seal(kind: Kind, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(MAGIC_BYTES + 1 + body.len() + CRC_BYTES);
    out.extend_from_slice(kind.magic());
    put(&mut out, VERSION);
    out.extend_from_slice(body);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.into()
}

/// Undoes [`seal`].
pub(super) fn unseal(kind: Kind, key: &Path, sealed: &Bytes) -> Result<Bytes, Error> {
    let damaged = |damage: &'static str| Error::damaged(key, Damage(damage));
    let rest = sealed.strip_prefix(kind.magic()).ok_or_else(|| damaged("does not begin as it should"))?;
    let (covered, crc) = sealed.split_last_chunk::<CRC_BYTES>().ok_or_else(|| damaged("ends too early"))?;
    if crc32c::crc32c(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged("has another checksum than it says"));
    }
    let mut cursor = Cursor::new(rest);
    let version = cursor.varint().map_err(|damage| Error::damaged(key, damage))?;
    if version != VERSION {
        return Err(Error::TooNew { key: key.clone(), version, known: VERSION });
    }
    let start = sealed.len() - cursor.left();
    if start > covered.len() {
        return Err(damaged("ends too early"));
    }
    Ok(sealed.slice(start..covered.len()))
}

/// Reads an object whole; none where there is none. Costs one GET, and one for each 32 MiB beyond the first 256 KiB.
pub(super) async fn fetch(objects: &dyn ObjectStore, kind: Kind, key: &Path) -> Result<Option<Unsealed>, Error> {
    match fetch_once(objects, kind, key).await {
        // The damage may have happened on the way here.
        Err(Error::Damaged { .. }) => fetch_once(objects, kind, key).await,
        result => result,
    }
}

async fn fetch_once(objects: &dyn ObjectStore, kind: Kind, key: &Path) -> Result<Option<Unsealed>, Error> {
    let mut sealed = BytesMut::new();
    let (mut size, mut at_millis) = (1, 0);
    while (sealed.len() as u64) < size {
        let from = sealed.len() as u64;
        let wanted = if from == 0 { FIRST_RANGE_BYTES } else { RANGE_BYTES };
        let range = Some(GetRange::Bounded(from..from + wanted));
        let part = match objects.get_opts(key, GetOptions { range, ..GetOptions::default() }).await {
            Ok(part) => part,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => {
                // Where an object ends before the range, as an empty one does, stores say nothing but that this failed.
                let is_short = matches!(objects.head(key).await, Ok(found) if found.size <= from);
                let error = Error::read(key, source);
                return Err(if is_short { Error::damaged(key, Damage("ends too early")) } else { error });
            }
        };
        size = part.meta.size;
        at_millis = u64::try_from(part.meta.last_modified.timestamp_millis()).unwrap_or(0);
        if size > kind.bytes_max() {
            return Err(Error::damaged(key, Damage("is longer than any we write")));
        }
        let bytes = part.bytes().await.map_err(|source| Error::read(key, source))?;
        if bytes.is_empty() {
            return Err(Error::damaged(key, Damage("ends too early")));
        }
        sealed.extend_from_slice(&bytes);
    }
    Ok(Some(Unsealed { body: unseal(kind, key, &sealed.freeze())?, at_millis }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;
    use crate::testing::faults::{Faulty, Operation, Trouble};

    fn damage(kind: Kind, sealed: &[u8]) -> String {
        unseal(kind, &Path::from("k"), &Bytes::copy_from_slice(sealed)).expect_err("damaged").to_string()
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let sealed = seal(Kind::Commit, b"body");
        assert_eq!(unseal(Kind::Commit, &Path::from("k"), &sealed).expect("sound"), "body");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            damage(Kind::Commit, &flipped);
        }
        for end in 0..sealed.len() {
            damage(Kind::Commit, &sealed[..end]);
        }
        assert_eq!(damage(Kind::Day, &sealed), "k is damaged: it does not begin as it should");
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        let mut later = b"AGCM\x02body".to_vec();
        let crc = crc32c::crc32c(&later);
        later.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(damage(Kind::Commit, &later), "k has format version 2, this program knows 1");
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_longer_than_a_range_is_read_in_parts() {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let key = Path::from("k");
        for (bytes, gets) in
            [(FIRST_RANGE_BYTES - 9, 1), (FIRST_RANGE_BYTES - 8, 2), (FIRST_RANGE_BYTES + RANGE_BYTES, 3)]
        {
            let body: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
            faulty.put(&key, PutPayload::from_bytes(seal(Kind::Day, &body))).await.expect("memory works");
            let before = faulty.count(Operation::Get);
            let found = fetch(&faulty, Kind::Day, &key).await.expect("memory works").expect("it is there");
            assert!(found.body == body, "{bytes}");
            assert_eq!(faulty.count(Operation::Get) - before, gets, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn damage_on_the_way_is_no_damage() {
        let faulty = Faulty::new(Arc::new(InMemory::new()));
        let key = Path::from("k");
        assert!(fetch(&faulty, Kind::Commit, &key).await.expect("memory works").is_none());
        faulty.put(&key, PutPayload::from_bytes(seal(Kind::Commit, b"body"))).await.expect("memory works");
        faulty.script(Operation::Get, [Trouble::FlipBit(40)]);
        let found = fetch(&faulty, Kind::Commit, &key).await.expect("the second attempt works").expect("it is there");
        assert_eq!(found.body, "body");
        assert!(found.at_millis > 0, "the store says when it took it");
        faulty.always(Operation::Get, Trouble::FlipBit(40));
        assert!(matches!(fetch(&faulty, Kind::Commit, &key).await, Err(Error::Damaged { .. })));
        faulty.always(Operation::Get, Trouble::Refuse(403));
        assert!(matches!(fetch(&faulty, Kind::Commit, &key).await, Err(Error::Read { .. })));
    }

    #[tokio::test]
    async fn an_object_without_bytes_is_damaged() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let stores: [Arc<dyn ObjectStore>; 2] =
            [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(folder.path()).expect("a folder"))];
        for store in stores {
            let key = Path::from("k");
            store.put(&key, PutPayload::default()).await.expect("it takes it");
            let error = fetch(&store, Kind::Snapshot, &key).await.expect_err("there is nothing in it");
            assert_eq!(error.to_string(), "k is damaged: it ends too early");
        }
    }
}
