//! The names of compacted blocks, and the days by which they are kept apart.

use std::fmt;
use std::str::FromStr;

use object_store::path::{Path, PathPart};
use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use super::{BLOCK_SUFFIX, LAYOUT, SegmentKey, SegmentName, TenantId};

/// The levels that a compacted block may have.
pub const LEVELS: std::ops::RangeInclusive<u8> = 1..=3;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;
/// The days of 400 years, after which the calendar repeats.
const DAYS_PER_ERA: i64 = 146_097;
/// The days from 0000-03-01, where an era begins, to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

// === impl Day ===

/// A day in UTC: all days that a time in nanoseconds can name, from 1677-09-21 to 2262-04-11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

/// Says that a text does not name a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name a day as yyyymmdd")]
pub struct NotADay {
    /// The text.
    pub text: String,
}

impl Day {
    const FIRST: Self = Self::of_nanos(i64::MIN);
    const LAST: Self = Self::of_nanos(i64::MAX);

    /// Returns the day of a time in nanoseconds since 1970.
    pub const fn of_nanos(nanos: i64) -> Self {
        Self(nanos.div_euclid(NANOS_PER_DAY) as i32)
    }

    /// Returns the day with this number, counted from 1970-01-01 as 0; none where no time lies in it.
    pub fn from_number(number: i64) -> Option<Self> {
        let day = Self(i32::try_from(number).ok()?);
        (Self::FIRST..=Self::LAST).contains(&day).then_some(day)
    }

    /// Returns its number, counted from 1970-01-01 as 0.
    pub fn number(self) -> i64 {
        i64::from(self.0)
    }

    /// Returns its first nanosecond that an `i64` can say.
    pub fn first_nanos(self) -> i64 {
        self.number().saturating_mul(NANOS_PER_DAY)
    }

    /// Returns its last nanosecond that an `i64` can say.
    pub fn last_nanos(self) -> i64 {
        self.number().saturating_mul(NANOS_PER_DAY).saturating_add(NANOS_PER_DAY - 1)
    }

    /// Returns year, month and day of month. Years here begin in March, so that the leap day is the last of its year.
    fn date(self) -> (i64, i64, i64) {
        let days = self.number() + DAYS_BEFORE_1970;
        let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // From March on, months have 31 30 31 30 31 days again and again: 153 days in five of them.
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let is_next_year = month >= 10;
        let month = if is_next_year { month - 9 } else { month + 3 };
        (era * 400 + year_of_era + i64::from(is_next_year), month, day)
    }

    /// The inverse of [`Day::date`]; a day that no calendar has gives one that has another date.
    fn from_date(year: i64, month: i64, day: i64) -> Option<Self> {
        let is_next_year = month <= 2;
        let year = year - i64::from(is_next_year);
        let month = if is_next_year { month + 9 } else { month - 3 };
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Self::from_number(era * DAYS_PER_ERA + day_of_era - DAYS_BEFORE_1970)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}{month:02}{day:02}")
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, NotADay> {
        let not_a_day = || NotADay { text: text.to_owned() };
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not_a_day());
        }
        let number = |digits: &str| digits.parse::<i64>().expect("a few digits are a number");
        let day = Self::from_date(number(&text[..4]), number(&text[4..6]), number(&text[6..]));
        day.filter(|day| day.to_string() == text).ok_or_else(not_a_day)
    }
}

// === impl BlockName ===

/// The name of a compacted block within its tenant, `<level>-<yyyymmdd>-<ulid>`: ordered by level, day and time of making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockName {
    level: u8,
    day: Day,
    ulid: Ulid,
}

/// Says that a text does not name a compacted block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} does not name a block")]
pub struct NotABlock {
    /// The text.
    pub key: String,
}

impl BlockName {
    /// Makes the name of a block of this level with profiles of this day; its ULID makes it unique.
    ///
    /// # Panics
    /// Where the level is not one of [`LEVELS`].
    pub fn new(level: u8, day: Day, ulid: Ulid) -> Self {
        assert!(LEVELS.contains(&level), "a compacted block has a level of 1 to 3, not {level}");
        Self { level, day, ulid }
    }

    /// Returns how often its profiles were merged into larger blocks, at most.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Returns the day, in UTC, of the times of its profiles.
    pub fn day(&self) -> Day {
        self.day
    }

    /// Returns what makes it unique.
    pub fn ulid(&self) -> Ulid {
        self.ulid
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.level, self.day, self.ulid)
    }
}

impl FromStr for BlockName {
    type Err = NotABlock;

    fn from_str(text: &str) -> Result<Self, NotABlock> {
        let parse = || {
            let mut parts = text.split('-');
            let level = parts.next()?.parse().ok().filter(|level| LEVELS.contains(level))?;
            let (day, ulid) = (parts.next()?.parse().ok()?, Ulid::from_string(parts.next()?).ok()?);
            Some(Self { level, day, ulid })
        };
        // ULIDs and numbers may be written in several ways; only one is ours.
        parse().filter(|name| name.to_string() == text).ok_or_else(|| NotABlock { key: text.to_owned() })
    }
}

// === impl BlockKey ===

/// The key of a compacted block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name within the tenant.
    pub name: BlockName,
}

impl BlockKey {
    /// Returns where it lies. Two digits of a hash spread the keys, for a store may split its load by the first ones.
    pub fn path(&self) -> Path {
        let name = self.name.to_string();
        let hash = xxh3_64(name.as_bytes()) as u8;
        self.tenant.blocks().join(format!("{hash:02x}")).join(format!("{name}{BLOCK_SUFFIX}"))
    }

    /// Reads the key of a block of `tenant` back from where it lies.
    ///
    /// # Errors
    /// [`NotABlock`] for anything that [`BlockKey::path`] does not give.
    pub fn parse(tenant: &TenantId, path: &Path) -> Result<Self, NotABlock> {
        let parse = || {
            let file = path.prefix_match(&tenant.blocks())?.nth(1)?;
            let name = file.as_ref().strip_suffix(BLOCK_SUFFIX)?.parse().ok()?;
            Some(Self { tenant: tenant.clone(), name }).filter(|key| key.path() == *path)
        };
        parse().ok_or_else(|| NotABlock { key: path.to_string() })
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().fmt(f)
    }
}

// === impl BlockRef ===

/// The name of a block of any level.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockRef {
    /// A segment.
    Segment(SegmentName),
    /// A compacted block.
    Block(BlockName),
}

impl BlockRef {
    /// Returns where it lies.
    pub fn path(&self, tenant: &TenantId) -> Path {
        let tenant = tenant.clone();
        match self {
            Self::Segment(name) => SegmentKey { tenant, name: name.clone() }.path(),
            Self::Block(name) => BlockKey { tenant, name: *name }.path(),
        }
    }

    /// Returns the level: 0 for a segment.
    pub fn level(&self) -> u8 {
        match self {
            Self::Segment(_) => 0,
            Self::Block(name) => name.level(),
        }
    }
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(f),
            Self::Block(name) => name.fmt(f),
        }
    }
}

impl FromStr for BlockRef {
    type Err = NotABlock;

    fn from_str(text: &str) -> Result<Self, NotABlock> {
        // A segment's name begins with 13 digits, a block's with one.
        text.parse().map(Self::Segment).or_else(|_| text.parse().map(Self::Block))
    }
}

impl From<SegmentName> for BlockRef {
    fn from(name: SegmentName) -> Self {
        Self::Segment(name)
    }
}

impl From<BlockName> for BlockRef {
    fn from(name: BlockName) -> Self {
        Self::Block(name)
    }
}

// === impl TenantId ===

impl TenantId {
    /// Returns the folder of this tenant's compacted blocks.
    pub fn blocks(&self) -> Path {
        self.folder("b")
    }

    pub(super) fn folder(&self, word: &'static str) -> Path {
        Path::from_iter([PathPart::from(LAYOUT), "t".into(), self.as_str().into(), word.into()])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> BlockName {
        text.parse().expect("valid")
    }

    #[test]
    fn a_block_lies_where_the_format_says() {
        let day: Day = "20261124".parse().expect("valid");
        let key = BlockKey { tenant: TenantId::anonymous(), name: BlockName::new(1, day, Ulid::from(7)) };
        assert_eq!(key.path().as_ref(), "v1/t/anonymous/b/8d/1-20261124-00000000000000000000000007.agb");
        assert_eq!(BlockKey::parse(&key.tenant, &key.path()), Ok(key.clone()));
        assert_eq!(key.name.to_string().parse(), Ok(key.name));
        assert_eq!(BlockRef::from(key.name).path(&key.tenant), key.path());
    }

    #[test]
    fn names_and_their_texts_have_one_order() {
        let names = [
            name("1-20251231-7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
            name("1-20260101-00000000000000000000000000"),
            name("1-20260101-00000000000000000000000001"),
            name("3-19691231-00000000000000000000000000"),
        ];
        assert!(names.windows(2).all(|pair| pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string()));
    }

    #[test]
    fn what_paths_did_not_make_is_not_a_block() {
        let good = "v1/t/anonymous/b/8d/1-20261124-00000000000000000000000007.agb";
        let parse = |text: &str| BlockKey::parse(&TenantId::anonymous(), &Path::parse(text).expect("valid"));
        assert!(parse(good).is_ok());
        for bad in [
            "v1/t/other/b/8d/1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/l0/6b/1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8e/1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8D/1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8d/1-20261124-00000000000000000000000007.agb/x",
            "v1/t/anonymous/b/8d/1-20261124-00000000000000000000000007",
            "v1/t/anonymous/b/8d/1-20261124-0000000000000000000000000o.agb",
            "v1/t/anonymous/b/8d/0-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8d/4-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8d/+1-20261124-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8d/1-20261131-00000000000000000000000007.agb",
            "v1/t/anonymous/b/8d/1-20261124-00000000000000000000000007-x.agb",
            "v1/t/anonymous/b",
        ] {
            assert_eq!(parse(bad), Err(NotABlock { key: bad.to_owned() }), "{bad}");
        }
    }

    #[test]
    fn a_name_of_any_level_is_told_apart() {
        for text in ["1700000000123-w1-00000000000000fe", "2-20261124-00000000000000000000000007"] {
            let parsed: BlockRef = text.parse().expect("valid");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(name("2-20261124-00000000000000000000000007").level(), 2);
        assert!("20261124-w1-x".parse::<BlockRef>().is_err());
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (text, nanos) in [
            ("19700101", 0),
            ("19691231", -1),
            ("20000229", 951_782_400_000_000_000),
            ("20231114", 1_700_000_000_000_000_000),
            ("16770921", i64::MIN),
            ("22620411", i64::MAX),
        ] {
            assert_eq!(Day::of_nanos(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(Day::of_nanos(nanos)));
        }
        for bad in ["20010229", "20011301", "20010100", "20010001", "2001011", "+2001011", "16770920", "22620412"] {
            assert_eq!(bad.parse::<Day>(), Err(NotADay { text: bad.to_owned() }), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_day_is_its_text_and_holds_its_times(nanos: i64) {
            let day = Day::of_nanos(nanos);
            prop_assert_eq!(day.to_string().parse(), Ok(day));
            prop_assert_eq!(Day::from_number(day.number()), Some(day));
            prop_assert!((day.first_nanos()..=day.last_nanos()).contains(&nanos));
            prop_assert!(day.last_nanos() == i64::MAX || Day::of_nanos(day.last_nanos() + 1) > day);
        }
    }
}
