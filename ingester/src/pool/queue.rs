//! How long the queue before the pool is, in time: what the next in it would wait, from how many are ahead and how long each takes of a
//! core. So the same bound holds for small profiles and for large ones, on one core and on many.
//!
//! What each takes is seen where the queue moves on: while somebody waits, a core is to be had as often as work ends, and what delays
//! that counts as well (a core shared with flushes and with refusing, a thread that is late). Only where nobody waits is it
//! the time of the work itself.
//!
//! A burst is no overload: agents scrape together. So each second in which a core was free lets the queue be a second longer, up to
//! [`BURST`], and each second in which none was takes that back. A queue that stands is short (the idea of CoDel: Nichols and Jacobson, 2012).
//!
//! Who is let in by its head alone is ahead of others from then on, though its body is still on its way: else all heads that come at
//! once would see the same short queue. After [`ARRIVAL`] a body that has not come is slow, and counts no more until it is there: slow
//! senders keep no core busy, and may not keep others out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a body may take and still be expected: a round trip or two. Those let in are counted by intervals of this length.
const ARRIVAL: Duration = Duration::from_millis(100);

/// How much longer than a standing queue one may be that came of a burst: less than the time after which senders give up.
pub(super) const BURST: Duration = Duration::from_secs(2);

/// How much of what is known of the time for which a core is kept each piece of work replaces: large and small profiles come mixed.
const NEWS: f64 = 1.0 / 16.0;

/// The queue, shared by a pool and by all who wait; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    threads: usize,
    running: usize,
    /// How long one piece of work takes of a core, of late; zero until that is known.
    taken: Duration,
    waiting: usize,
    /// By how much the queue may be longer than if it stood, at the time of the last look.
    credit: Duration,
    looked: Instant,
    /// When the last piece of work ended, if others waited then.
    moved_on: Option<Instant>,
    began: Instant,
    /// The interval that `arriving` is about, counted from the beginning.
    interval: u64,
    /// Those let in within this interval and the one before, whose bodies have not come.
    arriving: [usize; 2],
}

/// A place in the queue for who was let in and whose body is on its way; given up when it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    _expected: Arc<Expected>,
}

#[derive(Debug)]
struct Expected {
    queue: Queue,
    interval: u64,
}

/// A place in the queue for who waits; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Queue);

// === impl Queue ===

impl Queue {
    pub(super) fn new(threads: usize) -> Self {
        let began = Instant::now();
        let state = State {
            threads,
            running: 0,
            taken: Duration::ZERO,
            waiting: 0,
            credit: BURST,
            looked: began,
            moved_on: None,
            began,
            interval: 0,
            arriving: [0; 2],
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets one in that would wait less than `most`, and what a burst may add, behind those who wait and those who arrive.
    pub(super) fn admit(&self, most: Duration) -> Option<Ticket> {
        let mut state = self.state();
        state.pass_on();
        if state.time_of(state.ahead()) >= most + state.look() {
            return None;
        }
        state.arriving[0] += 1;
        let interval = state.interval;
        drop(state);
        Some(Ticket { _expected: Arc::new(Expected { queue: self.clone(), interval }) })
    }

    /// Lines up where the wait would be less than `most` and what a burst may add.
    pub(super) fn enter(&self, most: Duration) -> Option<Waiting> {
        let mut state = self.state();
        if state.time_of(state.waiting) >= most + state.look() {
            return None;
        }
        state.waiting += 1;
        drop(state);
        Some(Waiting(self.clone()))
    }

    /// Returns how long one would wait that came now, behind those who wait and those who arrive.
    pub(super) fn wait(&self) -> Duration {
        let mut state = self.state();
        state.pass_on();
        state.time_of(state.ahead())
    }

    /// Returns from which wait on none is let in now, `most` being that of a queue that stands.
    pub(super) fn wait_max(&self, most: Duration) -> Duration {
        most + self.state().look()
    }

    /// Learns that a piece of work has begun.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.look();
        state.running += 1;
    }

    /// Learns that a piece of work has ended, and that it kept its core for so long.
    pub(super) fn end(&self, kept: Duration) {
        let mut state = self.state();
        state.look();
        state.running -= 1;
        state.learn(kept);
    }

    /// Each change is whole whenever the lock is free.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn learn(&mut self, kept: Duration) {
        let now = Instant::now();
        let taken = self.moved_on.map_or(kept, |last| now.duration_since(last).mul_f64(self.threads as f64));
        self.moved_on = (self.waiting > 0).then_some(now);
        self.taken = match self.taken {
            Duration::ZERO => taken,
            known => known.mul_f64(1.0 - NEWS) + taken.mul_f64(NEWS),
        };
    }

    fn ahead(&self) -> usize {
        self.waiting + self.arriving.iter().sum::<usize>()
    }

    fn time_of(&self, ahead: usize) -> Duration {
        self.taken.mul_f64(ahead as f64 / self.threads as f64)
    }

    /// Returns by how much the queue may be longer than one that stands; look before each change of who runs and who waits.
    fn look(&mut self) -> Duration {
        let now = Instant::now();
        let passed = now.duration_since(self.looked);
        self.looked = now;
        // A slot that came back is on its way to the first who waits.
        let is_full = self.running >= self.threads || self.waiting > 0;
        self.credit = if is_full { self.credit.saturating_sub(passed) } else { BURST.min(self.credit + passed) };
        self.credit
    }

    /// Goes on to the interval that it is now.
    fn pass_on(&mut self) {
        let interval = (Instant::now().duration_since(self.began).as_millis() / ARRIVAL.as_millis()) as u64;
        match interval - self.interval {
            0 => return,
            1 => self.arriving = [0, self.arriving[0]],
            _ => self.arriving = [0; 2],
        }
        self.interval = interval;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        // Who is slow is not counted any more.
        let age = (state.interval - self.interval) as usize;
        if let Some(arriving) = state.arriving.get_mut(age) {
            *arriving -= 1;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.look();
        state.waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(500);

    fn queue(threads: usize, kept_millis: u64) -> Queue {
        let queue = Queue::new(threads);
        queue.state().taken = Duration::from_millis(kept_millis);
        // None is free: what there was for bursts is used up.
        (0..threads).for_each(|_| queue.begin());
        queue.state().credit = Duration::ZERO;
        queue
    }

    /// A piece of work ends and the next begins.
    fn work(queue: &Queue, millis: u64) {
        queue.end(Duration::from_millis(millis));
        queue.begin();
    }

    /// Goal: as many are let in as get their core in time, by what each of them takes and how many cores there are.
    #[tokio::test(start_paused = true)]
    async fn the_queue_is_as_long_as_the_cores_are_fast() {
        for (threads, kept_millis, places) in [(1, 1, 500), (1, 10, 50), (4, 10, 200), (1, 1000, 1), (8, 1000, 4)] {
            let queue = queue(threads, kept_millis);
            let tickets: Vec<_> = std::iter::from_fn(|| queue.admit(MOST)).collect();
            assert_eq!(tickets.len(), places, "{threads} threads, {kept_millis} ms");
            let waiting: Vec<_> = std::iter::from_fn(|| queue.enter(MOST)).collect();
            assert_eq!(
                waiting.len(),
                places,
                "{threads} threads, {kept_millis} ms: who waits is not behind who arrives"
            );
        }
        let unknown = Queue::new(1);
        assert_eq!((0..1000).filter_map(|_| unknown.admit(MOST)).count(), 1000, "nothing is known yet");
    }

    /// Goal: a place that is given up is there for the next, whether its owner arrived, waited or went away.
    #[tokio::test(start_paused = true)]
    async fn places_come_back() {
        let queue = queue(1, 100);
        let mut tickets: Vec<_> = std::iter::from_fn(|| queue.admit(MOST)).collect();
        assert_eq!(tickets.len(), 5);
        drop(tickets.pop());
        let waiting = queue.enter(MOST).expect("nobody waits");
        assert!(queue.admit(MOST).is_none(), "four arrive and one waits");
        drop(waiting);
        tickets.push(queue.admit(MOST).expect("four arrive"));
        let copy = tickets[0].clone();
        drop(tickets);
        assert_eq!(queue.state().arriving, [1, 0], "a copy holds the place");
        drop(copy);
        assert_eq!(queue.state().arriving, [0, 0]);
    }

    /// Goal: bodies that do not come keep nobody out for longer than a moment, and their end is not counted twice.
    #[tokio::test(start_paused = true)]
    async fn slow_bodies_keep_nobody_out() {
        let queue = queue(1, 100);
        let slow: Vec<_> = std::iter::from_fn(|| queue.admit(MOST)).collect();
        tokio::time::advance(ARRIVAL).await;
        assert!(queue.admit(MOST).is_none(), "they may be on their way");
        tokio::time::advance(ARRIVAL).await;
        let next: Vec<_> = std::iter::from_fn(|| queue.admit(MOST)).collect();
        assert_eq!(next.len(), 5);
        drop(slow);
        assert!(queue.admit(MOST).is_none(), "the five are still expected");
        tokio::time::advance(ARRIVAL).await;
        drop(next);
        assert_eq!(queue.state().arriving, [0, 0]);
    }

    /// Goal: the bound follows what the profiles are like, and one odd profile does not upset it.
    #[tokio::test(start_paused = true)]
    async fn the_time_that_work_takes_is_learnt() {
        let queue = queue(1, 10);
        work(&queue, 170);
        assert_eq!(queue.state().taken, Duration::from_millis(20));
        (0..100).for_each(|_| work(&queue, 1));
        assert!(queue.state().taken < Duration::from_micros(1100), "{:?}", queue.state().taken);
    }

    /// Goal: what delays the queue counts, though the work itself is quick, and only while there is a queue.
    #[tokio::test(start_paused = true)]
    async fn the_queue_is_seen_to_move_on() {
        let queue = queue(2, 1);
        let waiting = queue.enter(MOST).expect("nobody waits");
        for _ in 0..100 {
            work(&queue, 1);
            tokio::time::advance(Duration::from_millis(5)).await;
        }
        let taken = queue.state().taken;
        assert!(
            (Duration::from_micros(9_900)..=Duration::from_millis(10)).contains(&taken),
            "two each 5 ms: {taken:?}"
        );
        drop(waiting);
        work(&queue, 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        (0..100).for_each(|_| work(&queue, 1));
        assert!(queue.state().taken < Duration::from_micros(1100), "{:?}", queue.state().taken);
    }

    /// Goal: after a calm a burst is let in, and a queue that stands becomes as short as if there had been none.
    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_in_after_a_calm() {
        let queue = queue(1, 100);
        let places = |queue: &Queue| std::iter::from_fn(|| queue.enter(MOST)).collect::<Vec<_>>();
        queue.end(Duration::from_millis(100));
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.begin();
        let mut waiting = places(&queue);
        assert_eq!(waiting.len(), 15, "a second was calm");
        tokio::time::advance(Duration::from_millis(500)).await;
        waiting.truncate(5);
        waiting.extend(places(&queue));
        assert_eq!(waiting.len(), 10, "half a second later");
        tokio::time::advance(Duration::from_secs(60)).await;
        waiting.truncate(2);
        waiting.extend(places(&queue));
        assert_eq!(waiting.len(), 5, "it stands");
        drop(waiting);
        queue.end(Duration::from_millis(100));
        tokio::time::advance(Duration::from_secs(60)).await;
        queue.begin();
        assert_eq!(places(&queue).len(), 25, "no more than a burst");
    }
}
