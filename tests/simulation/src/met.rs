//! What befell a run: each fault of the table in docs/testing.md, and each way in which retention removes profiles, and how often. What no
//! seed meets, no seed shows to be harmless.

use std::fmt;

/// What may befall a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// F1.
    Fails,
    /// F2.
    LosesAnswer,
    /// F3.
    LandsLater,
    /// F4.
    LandsTwice,
    /// F5.
    Conflict,
    /// F6.
    OwnConflict,
    /// F6, where the object comes after the answer.
    ConflictBefore,
    /// F7.
    IgnoresCondition,
    /// F8.
    Damages,
    /// F9.
    Gone,
    /// F10.
    OmitsKey,
    /// F10.
    RepeatsKey,
    /// F11.
    Stalls,
    /// F11.
    BrownsOut,
    /// F12.
    OddDelete,
    /// F13.
    WrongClock,
    /// F14.
    Kill,
    /// F14.
    Pause,
    /// F16.
    ErrorBody,
    /// A write whose sender is dead, or gave up, and which is carried out.
    Orphan,
    /// Retention that drops whole blocks by their age.
    DropsOld,
    /// Retention that removes some profiles of a block by a rule.
    Rewrites,
    /// Retention that drops the oldest blocks because all have too many bytes.
    DropsOverBudget,
}

/// All of it, with its name; in the order of the type.
const ALL: [(Met, &str); 23] = [
    (Met::Fails, "F1 fails"),
    (Met::LosesAnswer, "F2 answer lost"),
    (Met::LandsLater, "F3 lands later"),
    (Met::LandsTwice, "F4 lands twice"),
    (Met::Conflict, "F5 conflict without cause"),
    (Met::OwnConflict, "F6 conflict with oneself"),
    (Met::ConflictBefore, "F6 conflict before it lands"),
    (Met::IgnoresCondition, "F7 condition ignored"),
    (Met::Damages, "F8 damaged on the way"),
    (Met::Gone, "F9 gone since it was listed"),
    (Met::OmitsKey, "F10 key not listed"),
    (Met::RepeatsKey, "F10 key listed twice"),
    (Met::Stalls, "F11 stalls"),
    (Met::BrownsOut, "F11 browned out"),
    (Met::OddDelete, "F12 odd delete"),
    (Met::WrongClock, "F13 wrong clock"),
    (Met::Kill, "F14 kill"),
    (Met::Pause, "F14 pause"),
    (Met::ErrorBody, "F16 error said as success"),
    (Met::Orphan, "orphan lives"),
    (Met::DropsOld, "too old, whole blocks"),
    (Met::Rewrites, "too old by a rule"),
    (Met::DropsOverBudget, "too many bytes"),
];

/// How often each befell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; ALL.len()]);

impl Counts {
    /// Counts one.
    pub fn add(&mut self, met: Met) {
        self.0[met as usize] += 1;
    }

    /// Adds those of another run.
    pub fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Returns how often one befell.
    pub fn of(&self, met: Met) -> u64 {
        self.0[met as usize]
    }

    /// Returns the names of what never befell.
    pub fn missing(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|(met, _)| self.of(*met) == 0).map(|(_, name)| name).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (met, name)) in ALL.into_iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{name} {}", self.of(met))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_under_its_own_name() {
        let mut counts = Counts::default();
        assert_eq!(counts.missing().len(), ALL.len());
        for (n, (met, name)) in ALL.into_iter().enumerate() {
            assert_eq!(met as usize, n, "{name}");
            counts.add(met);
            assert_eq!((counts.of(met), counts.missing().len()), (1, ALL.len() - 1 - n), "{name}");
        }
    }
}
