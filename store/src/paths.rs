//! Every object key there is, and nothing about what lies under them.
//!
//! ```text
//! v1/t/<tenant>/l0/<unix ms, 13 digits>-<writer>-<nonce>.agb    a segment: one flush of one ingester
//! v1/t/<tenant>/b/<hash2>/<level>-<yyyymmdd>-<ulid>.agb         a compacted block: profiles of one day
//! v1/t/<tenant>/commit/<20 digits>                              what one compaction or retention adds and removes
//! v1/t/<tenant>/snap/<20 digits>                                the state after the commit of that number
//! v1/t/<tenant>/day/<yyyymmdd>-<20 digits>                      a part of it: the live blocks of a day
//! v1/t/<tenant>/quarantine/<name>                               a note that a block or segment is damaged
//! v1/retention/<16 hexadecimal digits>                          what a maintainer keeps, written again every hour
//! v1/probe/<unix ms, 13 digits>-<nonce>                         lives for the time of a start-up probe
//! ```
//!
//! The keys are relative to the prefix of the storage URL, which a wrapper around the store adds. A segment's key begins with the
//! time of its writer's clock, so the order of keys is about the order of writing; about, for clocks differ, and a PUT may land
//! seconds after its key was made. Keys are unique by their nonce alone. A name that this module did not make does not parse.

mod block;
mod log;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use object_store::path::Path;

pub use self::block::{BlockKey, BlockName, BlockRef, Day, LEVELS, NotABlock, NotADay};
use crate::clock::Random;

/// The layout of keys. A new layout would live beside this one, under another word.
const LAYOUT: &str = "v1";
/// The suffix of a block's key at any level.
const BLOCK_SUFFIX: &str = ".agb";
/// The digits of a time in milliseconds: enough until the year 2286, and equal for all, so that text sorts as numbers do.
const MILLIS_DIGITS: usize = 13;
/// The largest time that has [`MILLIS_DIGITS`].
pub(crate) const MILLIS_MAX: u64 = 9_999_999_999_999;
/// The hexadecimal digits of a nonce.
const NONCE_DIGITS: usize = 16;
/// The longest name of a writer in bytes.
const WRITER_BYTES_MAX: usize = 32;
/// The longest tenant in bytes, as in Mimir and Loki, whose header we share.
pub const TENANT_BYTES_MAX: usize = 150;

// === impl TenantId ===

/// The name of a tenant, whose data lie apart from those of all others.
///
/// It holds 1 to 150 of `a-z A-Z 0-9 ! - _ . * ' ( )` and is neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text names no tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// It is empty.
    #[error("tenant is empty")]
    Empty,
    /// It is too long.
    #[error("tenant has {bytes} bytes, more than {TENANT_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It holds a character that tenants may not have.
    #[error("tenant {tenant:?} has the character {character:?}; allowed are a-z A-Z 0-9 ! - _ . * ' ( )")]
    Character {
        /// The text.
        tenant: String,
        /// The first such character.
        character: char,
    },
    /// It names a folder relative to another.
    #[error("tenant may not be {tenant:?}")]
    Relative {
        /// `.` or `..`.
        tenant: String,
    },
}

impl TenantId {
    /// Returns the tenant of an installation without tenancy, `anonymous`.
    pub fn anonymous() -> Self {
        Self(Arc::from("anonymous"))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the folder that has a folder for each tenant.
    pub fn folder_of_all() -> Path {
        Path::from_iter([LAYOUT, "t"])
    }

    /// Returns the folder of this tenant's segments.
    pub fn segments(&self) -> Path {
        self.folder("l0")
    }

    /// Returns the offset after which a listing of [`TenantId::segments`] finds all whose key says `millis` or later.
    pub fn segments_from(&self, millis: u64) -> Path {
        self.segments().join(millis_text(millis))
    }
}

impl FromStr for TenantId {
    type Err = TenantError;

    fn from_str(text: &str) -> Result<Self, TenantError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        if text.is_empty() {
            Err(TenantError::Empty)
        } else if text.len() > TENANT_BYTES_MAX {
            Err(TenantError::TooLong { bytes: text.len() })
        } else if let Some(character) = text.chars().find(|c| !allowed(*c)) {
            Err(TenantError::Character { tenant: text.to_owned(), character })
        } else if matches!(text, "." | "..") {
            Err(TenantError::Relative { tenant: text.to_owned() })
        } else {
            Ok(Self(Arc::from(text)))
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl WriterId ===

/// The name of one life of one process that writes segments: 1 to 32 of `a-z 0-9`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(Arc<str>);

impl WriterId {
    /// Draws a name. Two writers with equal names would do no harm: keys are unique by their nonce.
    pub fn draw(random: &dyn Random) -> Self {
        Self(format!("{:08x}", random.next_u64() >> 32).into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WriterId {
    type Err = NotASegment;

    fn from_str(text: &str) -> Result<Self, NotASegment> {
        if is_writer(text) { Ok(Self(text.into())) } else { Err(NotASegment { key: text.to_owned() }) }
    }
}

fn is_writer(text: &str) -> bool {
    (1..=WRITER_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

// === impl SegmentName ===

/// The name of a segment within its tenant, `<unix ms>-<writer>-<nonce>`: unique, and ordered about as they were written.
///
/// Its text is the token that an acknowledgement carries, by which a reader asks for a view that holds the segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(Arc<str>);

/// Says that a text does not name a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} does not name a segment")]
pub struct NotASegment {
    /// The text.
    pub key: String,
}

impl SegmentName {
    /// Makes the name of a segment that `writer` begins to write at `millis` by its clock.
    pub fn new(millis: u64, writer: &WriterId, nonce: u64) -> Self {
        SegmentParts { millis, writer: writer.as_str(), nonce }.name()
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the time in it, in milliseconds since 1970 by the writer's clock.
    pub fn millis(&self) -> u64 {
        self.0[..MILLIS_DIGITS].parse().expect("a name begins with 13 digits")
    }

    /// Returns its writer's name, which is a [`WriterId`]'s.
    pub fn writer(&self) -> &str {
        &self.0[MILLIS_DIGITS + 1..self.0.len() - NONCE_DIGITS - 1]
    }

    /// Returns what makes it unique.
    pub fn nonce(&self) -> u64 {
        u64::from_str_radix(&self.0[self.0.len() - NONCE_DIGITS..], 16).expect("a name ends with 16 digits")
    }

    /// Returns all three.
    pub(crate) fn parts(&self) -> SegmentParts<'_> {
        SegmentParts { millis: self.millis(), writer: self.writer(), nonce: self.nonce() }
    }
}

/// What a [`SegmentName`] says, and in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentParts<'a> {
    pub(crate) millis: u64,
    /// The name of a [`WriterId`].
    pub(crate) writer: &'a str,
    pub(crate) nonce: u64,
}

impl SegmentParts<'_> {
    pub(crate) fn name(&self) -> SegmentName {
        let Self { millis, writer, nonce } = self;
        SegmentName(format!("{}-{writer}-{nonce:016x}", millis_text(*millis)).into())
    }
}

impl FromStr for SegmentName {
    type Err = NotASegment;

    fn from_str(text: &str) -> Result<Self, NotASegment> {
        let mut parts = text.split('-');
        let (millis, writer, nonce) = (parts.next(), parts.next(), parts.next());
        let well_formed = millis.is_some_and(|m| m.len() == MILLIS_DIGITS && m.bytes().all(|b| b.is_ascii_digit()))
            && writer.is_some_and(is_writer)
            && nonce
                .is_some_and(|n| n.len() == NONCE_DIGITS && n.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
            && parts.next().is_none();
        if well_formed { Ok(Self(text.into())) } else { Err(NotASegment { key: text.to_owned() }) }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl SegmentKey ===

/// The key of a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name within the tenant.
    pub name: SegmentName,
}

impl SegmentKey {
    /// Returns where it lies.
    pub fn path(&self) -> Path {
        self.tenant.segments().join(format!("{}{BLOCK_SUFFIX}", self.name))
    }

    /// Reads the key of a segment of `tenant` back from where it lies.
    ///
    /// # Errors
    /// [`NotASegment`] for anything that [`SegmentKey::path`] does not give.
    pub fn parse(tenant: &TenantId, path: &Path) -> Result<Self, NotASegment> {
        let not_a_segment = || NotASegment { key: path.to_string() };
        let mut parts = path.prefix_match(&tenant.segments()).ok_or_else(not_a_segment)?;
        let file = parts.next().ok_or_else(not_a_segment)?;
        let name = file.as_ref().strip_suffix(BLOCK_SUFFIX).ok_or_else(not_a_segment)?;
        if parts.next().is_some() {
            return Err(not_a_segment());
        }
        Ok(Self { tenant: tenant.clone(), name: name.parse().map_err(|_| not_a_segment())? })
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().fmt(f)
    }
}

/// Returns the key of a probe of the store.
pub(crate) fn probe(millis: u64, nonce: u64) -> Path {
    Path::from_iter([LAYOUT, "probe", &format!("{}-{nonce:016x}", millis_text(millis))])
}

/// Returns the folder of what maintainers say of their retention.
pub(crate) fn retentions() -> Path {
    Path::from_iter([LAYOUT, "retention"])
}

/// Returns where a policy of retention lies, by the digest of what it says.
pub(crate) fn retention(digest: u64) -> Path {
    retentions().join(format!("{digest:016x}"))
}

fn millis_text(millis: u64) -> String {
    format!("{:0MILLIS_DIGITS$}", millis.min(MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededRandom;

    fn tenant(text: &str) -> TenantId {
        text.parse().expect("valid")
    }

    fn key(millis: u64, writer: &str, nonce: u64) -> SegmentKey {
        let writer = writer.parse().expect("valid");
        SegmentKey { tenant: TenantId::anonymous(), name: SegmentName::new(millis, &writer, nonce) }
    }

    #[test]
    fn a_segment_lies_where_the_format_says() {
        let key = key(1_700_000_000_123, "w1", 0xfe);
        assert_eq!(key.path().as_ref(), "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe.agb");
        assert_eq!(SegmentKey::parse(&key.tenant, &key.path()), Ok(key.clone()));
        assert_eq!((key.name.millis(), key.name.writer(), key.name.nonce()), (1_700_000_000_123, "w1", 0xfe));
        assert_eq!(key.name.as_str().parse(), Ok(key.name));
    }

    #[test]
    fn keys_sort_by_their_time() {
        let keys = [key(5, "z", 9), key(40, "a", 1), key(1_700_000_000_000, "a", 0), key(u64::MAX, "a", 0)];
        assert!(keys.windows(2).all(|pair| pair[0].path() < pair[1].path() && pair[0] < pair[1]));
        assert_eq!(keys[3].name.millis(), MILLIS_MAX, "a time that does not fit is the latest that does");
    }

    #[test]
    fn a_listing_offset_lies_before_its_millisecond_and_after_all_earlier() {
        let offset = TenantId::anonymous().segments_from(1_700_000_000_123);
        assert!(key(1_700_000_000_123, "a", 0).path() > offset);
        assert!(key(1_700_000_000_122, "z", u64::MAX).path() < offset);
    }

    #[test]
    fn what_paths_did_not_make_is_not_a_segment() {
        let good = "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe.agb";
        let parse = |text: &str| SegmentKey::parse(&TenantId::anonymous(), &Path::parse(text).expect("valid"));
        assert!(parse(good).is_ok());
        for bad in [
            "v1/t/other/l0/1700000000123-w1-00000000000000fe.agb",
            "v1/t/anonymous/b/1700000000123-w1-00000000000000fe.agb",
            "v1/t/anonymous/l0",
            "v1/t/anonymous/l0/sub/1700000000123-w1-00000000000000fe.agb",
            "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe.agb/x",
            "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe.tmp",
            "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe",
            "v1/t/anonymous/l0/170000000012-w1-00000000000000fe.agb",
            "v1/t/anonymous/l0/+700000000123-w1-00000000000000fe.agb",
            "v1/t/anonymous/l0/1700000000123--00000000000000fe.agb",
            "v1/t/anonymous/l0/1700000000123-W1-00000000000000fe.agb",
            "v1/t/anonymous/l0/1700000000123-w1-00000000000000FE.agb",
            "v1/t/anonymous/l0/1700000000123-w1-fe.agb",
            "v1/t/anonymous/l0/1700000000123-w1-00000000000000fe-x.agb",
        ] {
            assert_eq!(parse(bad), Err(NotASegment { key: bad.to_owned() }), "{bad}");
        }
    }

    #[test]
    fn tenants_are_refused_by_rule() {
        assert_eq!("".parse::<TenantId>(), Err(TenantError::Empty));
        assert_eq!("x".repeat(151).parse::<TenantId>(), Err(TenantError::TooLong { bytes: 151 }));
        for relative in [".", ".."] {
            assert_eq!(relative.parse::<TenantId>(), Err(TenantError::Relative { tenant: relative.into() }));
        }
        for (text, character) in [("a/b", '/'), ("a|b", '|'), ("../x", '/'), ("a\0", '\0'), ("é", 'é'), ("a b", ' ')]
        {
            assert_eq!(text.parse::<TenantId>(), Err(TenantError::Character { tenant: text.into(), character }));
        }
    }

    #[test]
    fn any_allowed_tenant_has_a_folder_of_its_own() {
        for text in ["anonymous", "a.b", "...", "team-1_(x)!'*", &"x".repeat(150)] {
            let tenant = tenant(text);
            let key = SegmentKey { tenant: tenant.clone(), ..key(7, "w", 1) };
            assert_eq!(key.path().parts().count(), 5, "{text}");
            assert_eq!(SegmentKey::parse(&tenant, &key.path()), Ok(key), "{text}");
        }
    }

    #[test]
    fn a_drawn_writer_is_valid() {
        let random = SeededRandom::new(1);
        for _ in 0..100 {
            let writer = WriterId::draw(&random);
            assert_eq!(writer.as_str().parse(), Ok(writer.clone()));
        }
    }
}
