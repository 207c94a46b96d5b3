//! Admission: a question that needs much memory takes its estimate from a budget before it reads. When it is answered it keeps of that what
//! the answer takes, until the client has it or is gone: an answer that nobody reads is held in memory, in whichever buffer.
//!
//! One budget for the process, in KiB, first come first served. A quarter of it is for small questions alone, which so never wait for large
//! ones. What can never fit is refused at once; what does not fit now waits a little in a queue of bounded length, then is refused with a
//! delay. Whose answer takes less than what serves a stream takes anyway does not come here.

use std::sync::Arc;
use std::time::Duration;

use afterglow_service::config::ByteSize;
use afterglow_service::stack::Hold;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a question waits for others to end. Longer, and its client has lost patience while it still stands in the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many questions wait at most. More would only time out in the queue.
const WAITING_MAX: usize = 100;

/// The part of the budget that is for small questions alone.
const RESERVE_PART: u64 = 4;

const KIB: u64 = 1024;

/// Answers below this are not counted: a stream of HTTP/2 with what serves it takes about as much, and these have a limit of their own
/// (--limits.max-streams).
pub(super) const UNCOUNTED_BYTES: u64 = 16 * KIB;

/// The memory that all questions share.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    /// What any question may take.
    common: Purse,
    /// What only small ones may.
    reserve: Purse,
    queue: Arc<Semaphore>,
    taken: Gauge,
}

/// A part of the memory.
#[derive(Clone, Debug)]
struct Purse {
    kib: Arc<Semaphore>,
    /// How many bytes there are.
    total: u64,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    budget: Budget,
    /// Of the common memory.
    common: Option<OwnedSemaphorePermit>,
    /// Of the reserve.
    reserve: Option<OwnedSemaphorePermit>,
}

/// Why a question is not admitted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It would never fit.
    #[error(
        "the answer needs an estimated {} of memory, more than the {} that all queries share (three quarters of --query.memory; \
         one is for small ones); narrow the window or the selector",
        ByteSize(*estimate),
        ByteSize(*total)
    )]
    TooLarge {
        /// What it is estimated to take, in bytes.
        estimate: u64,
        /// What there is, in bytes.
        total: u64,
    },
    /// It does not fit beside the others.
    #[error(
        "the answer needs an estimated {} of memory, and other queries hold too much of the {} that all share (three quarters of \
         --query.memory; one is for small ones)",
        ByteSize(*estimate),
        ByteSize(*total)
    )]
    Busy {
        /// What it is estimated to take, in bytes.
        estimate: u64,
        /// What there is, in bytes.
        total: u64,
    },
}

// === impl Budget ===

impl Budget {
    /// Makes a budget of so many bytes; `taken` shows how many of them are taken.
    pub(crate) fn new(total: u64, taken: Gauge) -> Self {
        let reserve = total / RESERVE_PART;
        Self {
            common: Purse::new(total - reserve),
            reserve: Purse::new(reserve),
            queue: Arc::new(Semaphore::new(WAITING_MAX)),
            taken,
        }
    }

    /// Takes so many bytes of what all share if they are there just now. Never waits: whoever asks here holds what others wait for.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn try_admit(&self, bytes: u64) -> Result<Admitted, Refused> {
        let total = self.common.total;
        if bytes > total {
            return Err(Refused::TooLarge { estimate: bytes, total });
        }
        let permit = self.common.try_take(permits(bytes)).ok_or(Refused::Busy { estimate: bytes, total })?;
        Ok(Admitted::new(self.clone(), Some(permit), None))
    }

    /// Takes what something of a known size takes, as [`Budget::admit`] does; where that is more than there is, all that all share, and so it is
    /// the only one. What is stored can be had whatever the budget.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub(crate) async fn admit_whole(&self, bytes: u64, is_small: bool) -> Result<Admitted, Refused> {
        self.admit(bytes.min(self.common.total), is_small).await
    }

    /// Takes `estimate` bytes, waiting a little for others to give theirs back. Those of a small question come from the reserve, if they
    /// fit in there at all, or from what all share where that is free and the reserve is not.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn admit(&self, estimate: u64, is_small: bool) -> Result<Admitted, Refused> {
        let is_reserved = is_small && estimate <= self.reserve.total;
        let purse = if is_reserved { &self.reserve } else { &self.common };
        let total = purse.total;
        if estimate > total {
            return Err(Refused::TooLarge { estimate, total });
        }
        let busy = Refused::Busy { estimate, total };
        let permit = match purse.try_take(permits(estimate)) {
            Some(permit) => permit,
            None => {
                if let Some(permit) = self.common.try_take(permits(estimate)).filter(|_| is_reserved) {
                    return Ok(Admitted::new(self.clone(), Some(permit), None));
                }
                let Ok(_place) = self.queue.try_acquire() else { return Err(busy) };
                let taking = Arc::clone(&purse.kib).acquire_many_owned(permits(estimate));
                match tokio::time::timeout(PATIENCE, taking).await {
                    Ok(permit) => permit.expect("the semaphore is never closed"),
                    Err(_elapsed) => return Err(busy),
                }
            }
        };
        let (common, reserve) = if is_reserved { (None, Some(permit)) } else { (Some(permit), None) };
        Ok(Admitted::new(self.clone(), common, reserve))
    }
}

// === impl Purse ===

impl Purse {
    fn new(total: u64) -> Self {
        let kib = (total / KIB).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u64);
        Self { kib: Arc::new(Semaphore::new(kib as usize)), total: kib * KIB }
    }

    /// Takes so many permits, if they are there and nobody waits for some.
    fn try_take(&self, permits: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.kib).try_acquire_many_owned(permits).ok()
    }
}

// === impl Admitted ===

impl Admitted {
    fn new(budget: Budget, common: Option<OwnedSemaphorePermit>, reserve: Option<OwnedSemaphorePermit>) -> Self {
        let admitted = Self { budget, common, reserve };
        admitted.budget.taken.inc_by(admitted.bytes());
        admitted
    }

    /// Returns how many bytes are held.
    fn bytes(&self) -> i64 {
        [&self.common, &self.reserve].into_iter().flatten().map(bytes).sum()
    }

    /// Makes sure that at least `needed` bytes are held: an estimate may prove too low. What a small question needs beyond what is left of
    /// the reserve is taken of what all share. Never waits, for what waits here holds what others wait for.
    ///
    /// # Errors
    /// [`Refused`]; what was held is still held.
    pub(crate) fn cover(&mut self, needed: u64) -> Result<(), Refused> {
        let missing = permits(needed).saturating_sub(permits(self.bytes() as u64));
        if missing == 0 {
            return Ok(());
        }
        let Budget { common, reserve, taken, .. } = &self.budget;
        if needed > common.total {
            return Err(Refused::TooLarge { estimate: needed, total: common.total });
        }
        let of_reserve = self.reserve.as_mut().and_then(|held| Some((held, reserve.try_take(missing)?)));
        if let Some((held, more)) = of_reserve {
            taken.inc_by(bytes(&more));
            held.merge(more);
            return Ok(());
        }
        let busy = Refused::Busy { estimate: needed, total: common.total };
        let more = common.try_take(missing).ok_or(busy)?;
        taken.inc_by(bytes(&more));
        match &mut self.common {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Gives back what is held beyond so many bytes, first of the reserve.
    fn cut(&mut self, needed: u64) {
        let mut excess = permits(self.bytes() as u64).saturating_sub(permits(needed)) as usize;
        for permit in [&mut self.reserve, &mut self.common].into_iter().flatten() {
            let less = permit.num_permits().min(excess);
            excess -= less;
            if let Some(back) = permit.split(less) {
                self.budget.taken.dec_by(bytes(&back));
            }
        }
    }

    /// Holds as much as an answer that is made takes, no more and no less; at most all that all share.
    ///
    /// # Errors
    /// [`Refused::Busy`] where it is more than was thought, and is not there; what was held is still held.
    pub(crate) fn resize(&mut self, answer_bytes: u64) -> Result<(), Refused> {
        self.cut(answer_bytes);
        self.cover(answer_bytes.min(self.budget.common.total))
    }
}

impl Hold for Admitted {
    fn settle(&mut self, bytes: u64) {
        // JSON is longer than the message it says. The answer is made: where what is missing is not there, it goes out all the same.
        let _ = self.resize(bytes);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.budget.taken.dec_by(self.bytes());
    }
}

/// Returns how many permits stand for so many bytes; more than there can be where they do not fit 32 bits.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX)
}

/// Returns how many bytes a permit stands for.
fn bytes(permit: &OwnedSemaphorePermit) -> i64 {
    permit.num_permits() as i64 * KIB as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * KIB;

    /// Returns a budget of which large questions share three MiB, and small ones have one.
    fn budget() -> Budget {
        Budget::new(4 * MIB, Gauge::default())
    }

    #[tokio::test]
    async fn what_never_fits_is_refused_at_once() {
        for is_small in [false, true] {
            let refused = budget().admit(3 * MIB + 1, is_small).await.unwrap_err();
            assert_eq!(refused, Refused::TooLarge { estimate: 3 * MIB + 1, total: 3 * MIB });
        }
        assert_eq!(
            Refused::TooLarge { estimate: 3 * MIB, total: MIB }.to_string(),
            "the answer needs an estimated 3 MiB of memory, more than the 1 MiB that all queries share (three quarters of \
             --query.memory; one is for small ones); narrow the window or the selector"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_now_waits_its_turn() {
        let budget = budget();
        let first = budget.admit(3 * MIB, false).await.unwrap();
        assert_eq!(budget.taken.get(), 3 * MIB as i64);
        assert_eq!(budget.admit(KIB, false).await.unwrap_err(), Refused::Busy { estimate: KIB, total: 3 * MIB });

        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.admit(3 * MIB, false).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiter.await.unwrap().unwrap();
        assert_eq!(budget.taken.get(), 3 * MIB as i64);
        assert!(budget.try_admit(KIB).is_err(), "it does not wait");
        drop(second);
        assert_eq!(budget.taken.get(), 0);
    }

    /// Goal: a small question has memory whatever large ones hold, and takes theirs where the reserve is too little.
    #[tokio::test(start_paused = true)]
    async fn small_questions_have_a_reserve() {
        let budget = budget();
        let large = budget.admit(2 * MIB, false).await.unwrap();
        let mut small = budget.admit(MIB, true).await.unwrap();
        assert_eq!(budget.taken.get(), 3 * MIB as i64);
        assert_eq!(small.cover(2 * MIB), Ok(()), "a MiB of what all share");
        assert_eq!(small.cover(2 * MIB + 1), Err(Refused::Busy { estimate: 2 * MIB + 1, total: 3 * MIB }));
        assert_eq!(budget.admit(KIB, false).await.unwrap_err(), Refused::Busy { estimate: KIB, total: 3 * MIB });
        assert_eq!(budget.admit(KIB, true).await.unwrap_err(), Refused::Busy { estimate: KIB, total: MIB });
        drop(small);
        let refused =
            budget.admit(2 * MIB, true).await.expect_err("more than the reserve, and than what is left of the rest");
        assert!(matches!(refused, Refused::Busy { .. }), "{refused}");
        drop(large);
        drop(budget.admit(2 * MIB, true).await.expect("it fits in what all share"));
        assert_eq!(budget.taken.get(), 0);
    }

    #[tokio::test]
    async fn an_estimate_that_proves_too_low_is_raised_while_there_is_room() {
        let budget = budget();
        let mut first = budget.admit(KIB, false).await.unwrap();
        assert_eq!(first.cover(KIB / 2), Ok(()));
        assert_eq!(budget.taken.get(), KIB as i64);
        assert_eq!(first.cover(2 * MIB), Ok(()));
        assert_eq!(budget.taken.get(), 2 * MIB as i64);

        let _second = budget.admit(KIB, false).await.unwrap();
        assert_eq!(first.cover(3 * MIB), Err(Refused::Busy { estimate: 3 * MIB, total: 3 * MIB }));
        assert_eq!(first.cover(4 * MIB), Err(Refused::TooLarge { estimate: 4 * MIB, total: 3 * MIB }));
        drop(first);
        assert_eq!(budget.taken.get(), KIB as i64);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded() {
        let budget = budget();
        let _all = budget.admit(3 * MIB, false).await.unwrap();
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move { budget.admit(KIB, false).await.is_err() })
            })
            .collect();
        while budget.queue.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let before = tokio::time::Instant::now();
        assert!(budget.admit(KIB, false).await.is_err());
        assert_eq!(before.elapsed(), Duration::ZERO, "one more does not wait");
        assert!(budget.admit(KIB, true).await.is_ok(), "a small one has what it takes");
        for waiter in waiting {
            assert!(waiter.await.unwrap());
        }
    }

    /// Goal: of what a question held, what its answer takes stays, and no more; a small one gives back of the reserve first.
    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_what_it_takes() {
        let budget = budget();
        let mut large = budget.admit(2 * MIB, false).await.unwrap();
        large.resize(MIB / 2 + 1).unwrap();
        assert_eq!(budget.taken.get(), (MIB / 2 + KIB) as i64);
        large.settle(MIB);
        assert_eq!(budget.taken.get(), MIB as i64, "JSON is longer");

        let mut small = budget.admit(MIB, true).await.unwrap();
        small.cover(2 * MIB).unwrap();
        small.resize(MIB / 2).unwrap();
        assert_eq!(budget.taken.get(), 3 * (MIB / 2) as i64);
        drop(budget.admit(MIB, true).await.expect("the reserve is free"));
        assert_eq!(large.resize(3 * MIB), Err(Refused::Busy { estimate: 3 * MIB, total: 3 * MIB }));
        large.settle(3 * MIB);
        assert_eq!(budget.taken.get(), 3 * (MIB / 2) as i64, "it goes out with what it has");
        drop((large, small));
        assert_eq!(budget.taken.get(), 0);
    }

    /// Goal: what is stored can be had, however large; then nothing else is held beside it.
    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_all_takes_all() {
        let budget = budget();
        let mut whole = budget.admit_whole(100 * MIB, true).await.unwrap();
        assert_eq!(budget.taken.get(), 3 * MIB as i64);
        assert!(budget.admit_whole(100 * MIB, true).await.is_err());
        whole.resize(50 * MIB).unwrap();
        assert_eq!(budget.taken.get(), 3 * MIB as i64);
    }

    /// Goal: small questions have what nobody else holds when their reserve is taken.
    #[tokio::test(start_paused = true)]
    async fn small_questions_have_more_than_their_reserve() {
        let budget = budget();
        let reserve = budget.admit(MIB, true).await.unwrap();
        let common = budget.admit(MIB, true).await.unwrap();
        assert!(reserve.reserve.is_some() && common.common.is_some());
        assert_eq!(budget.taken.get(), 2 * MIB as i64);
    }
}
