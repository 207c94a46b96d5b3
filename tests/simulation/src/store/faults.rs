//! How the simulated store fails, each way with a probability of its own.

use std::time::Duration;

use crate::met::Met;
use crate::world::Chance;

/// The probability of each fault, for each request that it can happen to. The numbers are those of the table in docs/testing.md.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// F1: nothing is done; the answer is an error, or none.
    pub fail: f64,
    /// F2: it is done, and the answer is lost or says that it failed.
    pub lose_answer: f64,
    /// F3: there is no answer; it is done up to 300 s later.
    pub later: f64,
    /// F4: it is done twice, up to a minute apart.
    pub twice: f64,
    /// F5: a create is answered by a conflict, though nothing was there and nothing was written.
    pub conflict: f64,
    /// F6: a create is done, and answered as if the object had been there.
    pub own_conflict: f64,
    /// F6: a create is answered by a conflict, and done a moment later: a proxy's second try met its first, which was under way.
    pub conflict_before: f64,
    /// F7: a create overwrites.
    pub ignore_condition: f64,
    /// F8: a body that is read is cut short, shifted, or has a wrong bit.
    pub damage: f64,
    /// F10: all pages of a listing but the first are as of the first: what came since is missing, what went is listed.
    pub old_pages: f64,
    /// F10: a page of a listing begins with the last key of the page before.
    pub repeat_key: f64,
    /// F11: a request takes 30 s longer.
    pub stall: f64,
    /// F11: how likely a brown-out of a minute begins, at each request outside of one.
    pub brown_out: f64,
    /// F12: a delete is done later than it is acknowledged, or is done and said to have failed.
    pub odd_delete: f64,
    /// F16: nothing is done, and the answer is a success whose body is an error document.
    pub error_body: f64,
    /// How likely a request whose sender no longer waits is carried out all the same.
    pub orphan_lives: f64,
    /// Nothing is done, and the answer says that it was. No store may; it shows that the oracle sees it.
    pub lie: f64,
    /// What was written is gone a moment later. No store may; it shows that the oracle sees it.
    pub forget: f64,
}

/// What makes a store have a fault.
pub type Set = fn(&mut Faults);

/// The names of faults, and what each alone looks like.
pub const FAULTS: [(&str, Set); 15] = [
    ("F1 fails", |faults| faults.fail = 0.2),
    ("F2 the answer is lost", |faults| faults.lose_answer = 0.2),
    ("F3 lands later", |faults| faults.later = 0.2),
    ("F4 lands twice", |faults| faults.twice = 0.3),
    ("F5 conflict without cause", |faults| faults.conflict = 0.3),
    ("F6 conflict with oneself", |faults| faults.own_conflict = 0.3),
    ("F6 conflict before it is done", |faults| faults.conflict_before = 0.3),
    ("F8 damaged on the way", |faults| faults.damage = 0.1),
    ("F10 pages as of the first", |faults| faults.old_pages = 1.0),
    ("F10 keys listed twice", |faults| faults.repeat_key = 0.5),
    ("F11 stalls", |faults| faults.stall = 0.05),
    ("F11 brown-outs", |faults| faults.brown_out = 0.005),
    ("F12 odd deletes", |faults| faults.odd_delete = 0.3),
    ("F16 errors said as successes", |faults| faults.error_body = 0.2),
    ("orphans live", |faults| faults.orphan_lives = 0.5),
];

impl Faults {
    /// Returns a store in good order.
    pub fn none() -> Self {
        Self::default()
    }

    /// Draws which faults a run has and how often: about half of them, each seldom or often.
    pub fn draw(chance: &mut Chance) -> Self {
        let mut faults = Self::none();
        for (_, set) in FAULTS {
            let mut alone = Self::none();
            set(&mut alone);
            let share = *chance.choose(&[0.0, 0.0, 0.1, 0.5]);
            faults.add(&alone, share);
        }
        faults.orphan_lives = 0.5;
        faults
    }

    fn add(&mut self, other: &Self, share: f64) {
        for (mine, theirs) in self.all_mut().into_iter().zip(other.clone().all_mut()) {
            *mine += *theirs * share;
        }
    }

    fn all_mut(&mut self) -> [&mut f64; 16] {
        [
            &mut self.fail,
            &mut self.lose_answer,
            &mut self.later,
            &mut self.twice,
            &mut self.conflict,
            &mut self.own_conflict,
            &mut self.conflict_before,
            &mut self.ignore_condition,
            &mut self.damage,
            &mut self.old_pages,
            &mut self.repeat_key,
            &mut self.stall,
            &mut self.brown_out,
            &mut self.odd_delete,
            &mut self.error_body,
            &mut self.orphan_lives,
        ]
    }
}

/// The longest that a write stays under way after nobody waits for it.
pub(super) const LATE_MAX: Duration = Duration::from_secs(300);
/// How far two landings of one write are apart at most.
pub(super) const TWICE_MAX: Duration = Duration::from_secs(60);
/// How much longer a request takes that stalls.
pub(super) const STALL: Duration = Duration::from_secs(30);
/// How long a brown-out lasts, and how much of what is asked for meanwhile fails.
pub(super) const BROWN_OUT: Duration = Duration::from_secs(60);
pub(super) const BROWN_OUT_FAILS: f64 = 0.8;
/// How long a request takes in the median.
pub(super) const LATENCY: Duration = Duration::from_millis(20);

/// What the sender of a request hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What happened.
    Truth,
    /// That it was done.
    Success,
    /// This HTTP status, whatever happened.
    Status(u16),
    /// A success whose body is an error document.
    ErrorBody,
    /// The connection breaks.
    Broken,
    /// There is no connection.
    Unreachable,
    /// Nothing, ever.
    Never,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it is done, if it is.
    pub(super) done_after: Option<Duration>,
    /// When it is done again.
    pub(super) again_after: Option<Duration>,
    /// What its sender hears.
    pub(super) answer: Answer,
    /// It is undone at once.
    pub(super) is_forgotten: bool,
    /// How long after it was done, or not, the answer comes.
    pub(super) answer_after: Duration,
    /// When it is done all the same where its sender no longer waits by then; none where it is not.
    pub(super) orphaned_after: Option<Duration>,
}

impl Fate {
    /// Draws what happens to a write, or to another request; `meets` hears of each fault.
    pub(super) fn draw(
        faults: &Faults,
        chance: &mut Chance,
        is_write: bool,
        is_create: bool,
        browned_out: bool,
        mut meets: impl FnMut(Met),
    ) -> Self {
        let mut latency = chance.latency(LATENCY);
        if chance.is(faults.stall) {
            meets(Met::Stalls);
            latency += STALL;
        }
        let answer_after = chance.latency(LATENCY);
        let late = chance.time(LATE_MAX);
        let orphaned_after = (is_write && chance.is(faults.orphan_lives)).then_some(late);
        let good = Self {
            done_after: Some(latency),
            again_after: None,
            answer: Answer::Truth,
            answer_after,
            orphaned_after,
            is_forgotten: is_write && chance.is(faults.forget),
        };
        let fails = chance.is(faults.fail);
        if fails || (browned_out && chance.is(BROWN_OUT_FAILS)) {
            meets(if fails { Met::Fails } else { Met::BrownsOut });
            let answers = [
                Answer::Status(500),
                Answer::Status(503),
                Answer::Status(504),
                Answer::Status(429),
                Answer::Status(403),
                Answer::Broken,
                Answer::Unreachable,
                Answer::Never,
            ];
            return Self { done_after: None, orphaned_after: None, answer: *chance.choose(&answers), ..good };
        }
        if chance.is(faults.error_body) {
            meets(Met::ErrorBody);
            return Self { done_after: None, orphaned_after: None, answer: Answer::ErrorBody, ..good };
        }
        // What a proxy says that asked to slow down, or gave up, while the store went on is among them.
        let lost = [
            Answer::Status(500),
            Answer::Status(503),
            Answer::Status(504),
            Answer::Status(429),
            Answer::Broken,
            Answer::Never,
        ];
        if !is_write {
            return good;
        }
        if chance.is(faults.lie) {
            return Self { done_after: None, answer: Answer::Success, ..good };
        }
        if chance.is(faults.lose_answer) {
            meets(Met::LosesAnswer);
            return Self { answer: *chance.choose(&lost), ..good };
        }
        if chance.is(faults.later) {
            meets(Met::LandsLater);
            return Self {
                done_after: Some(late),
                answer: Answer::Never,
                orphaned_after: Some(Duration::ZERO),
                ..good
            };
        }
        if chance.is(faults.twice) {
            meets(Met::LandsTwice);
            return Self { again_after: Some(chance.time(TWICE_MAX)), ..good };
        }
        if is_create && chance.is(faults.conflict) {
            meets(Met::Conflict);
            return Self { done_after: None, answer: Answer::Status(409), ..good };
        }
        if is_create && chance.is(faults.own_conflict) {
            meets(Met::OwnConflict);
            return Self { answer: Answer::Status(409), ..good };
        }
        if is_create && chance.is(faults.conflict_before) {
            meets(Met::ConflictBefore);
            let again_after = Some(chance.time(TWICE_MAX));
            return Self { done_after: None, again_after, answer: Answer::Status(409), ..good };
        }
        good
    }
}
