//! The gate: few large questions at a time, and those that wait do so in a bounded queue, by turns of their tenants.
//!
//! Whoever waits holds nothing and has cost next to nothing: that a question is large is known before anything is selected for it. A place that
//! comes back goes to the tenant whose turn it is, and there to the question that came first. Where the queue is full, who comes is
//! refused, unless a tenant with more questions in it than the newcomer's makes room: then the last of those is. Who has waited too long is refused as well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use afterglow_store::paths::TenantId;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

/// How long a question waits for a place. Longer, and its client has lost patience while it still stands in the way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many questions wait at most. More would only time out in the queue.
pub(super) const WAITING_MAX: usize = 100;

/// Lets so many large questions through at once; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    places: usize,
    state: Arc<Mutex<State>>,
    held: Gauge,
    waiting: Gauge,
}

/// The right to answer a large question; the next may when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
}

/// Why a large question is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is no room in the queue.
    #[error(
        "of questions about so much {places} are answered at once, and {waiting} wait already: come back later, or narrow the window or the selector"
    )]
    Full {
        /// How many are answered at once.
        places: usize,
        /// How many wait.
        waiting: usize,
    },
    /// No place came free in time.
    #[error(
        "of questions about so much {places} are answered at once, and none of them ended for this one within {}: \
         come back later, or narrow the window or the selector",
        humantime::format_duration(*after)
    )]
    Waited {
        /// How many are answered at once.
        places: usize,
        /// How long it waited.
        after: Duration,
    },
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The next number of one who waits.
    next: u64,
    /// Who waits, tenant by tenant, none of them empty; nobody does while a place is free.
    queues: BTreeMap<TenantId, VecDeque<Waiting>>,
    /// The tenants with a queue, in the order of their turns.
    turns: VecDeque<TenantId>,
    /// How many wait.
    waiting: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    told: oneshot::Sender<Result<Place, Refused>>,
}

/// One who waits; leaves the queue when dropped.
struct InQueue<'a> {
    gate: &'a Gate,
    tenant: &'a TenantId,
    number: u64,
}

// === impl Gate ===

impl Gate {
    /// Makes a gate with so many places, one at least; `held` shows how many of them are taken, `waiting` how many wait for one.
    pub(crate) fn new(places: usize, held: Gauge, waiting: Gauge) -> Self {
        let places = places.max(1);
        let state = State { free: places, next: 0, queues: BTreeMap::new(), turns: VecDeque::new(), waiting: 0 };
        Self { places, state: Arc::new(Mutex::new(state)), held, waiting }
    }

    /// Takes a place if one is free just now.
    pub(crate) fn try_enter(&self) -> Option<Place> {
        let mut state = self.lock();
        state.free = state.free.checked_sub(1)?;
        Some(self.place())
    }

    /// Takes a place for a question of this tenant, waiting a little for others to end.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) async fn enter(&self, tenant: &TenantId) -> Result<Place, Refused> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let (told, mut hears) = oneshot::channel();
        let number = self.queue_up(tenant, told)?;
        let in_queue = InQueue { gate: self, tenant, number };
        let told = tokio::time::timeout(PATIENCE, &mut hears).await;
        drop(in_queue);
        match told {
            Ok(told) => told.expect("who leaves the queue has been told, or leaves by itself"),
            // It may have been told in the last moment.
            Err(_elapsed) => hears.try_recv().unwrap_or(Err(Refused::Waited { places: self.places, after: PATIENCE })),
        }
    }

    /// Adds one to the queue, and returns its number.
    fn queue_up(&self, tenant: &TenantId, told: oneshot::Sender<Result<Place, Refused>>) -> Result<u64, Refused> {
        let mut state = self.lock();
        let full = Refused::Full { places: self.places, waiting: state.waiting };
        if state.waiting >= WAITING_MAX && !state.make_room_for(tenant, full) {
            return Err(full);
        }
        let number = state.next;
        state.next += 1;
        let queue = state.queues.entry(tenant.clone()).or_default();
        queue.push_back(Waiting { number, told });
        if queue.len() == 1 {
            state.turns.push_back(tenant.clone());
        }
        state.waiting += 1;
        self.waiting.set(state.waiting as i64);
        Ok(number)
    }

    fn place(&self) -> Place {
        self.held.inc();
        Place { gate: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so a panic elsewhere leaves it right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Sends the last of the longest queue away, if that is longer than what the tenant's would be.
    fn make_room_for(&mut self, tenant: &TenantId, full: Refused) -> bool {
        let own = self.queues.get(tenant).map_or(0, VecDeque::len);
        let longest = self.queues.iter().max_by_key(|(_, queue)| queue.len());
        let Some((longest, _)) = longest.filter(|(_, queue)| queue.len() > own + 1) else { return false };
        let longest = longest.clone();
        let last = self.queues.get_mut(&longest).and_then(VecDeque::pop_back).expect("it is longer than another");
        self.waiting -= 1;
        // Who hears no more has left.
        let _ = last.told.send(Err(full));
        true
    }

    /// Returns the next whose turn it is.
    fn next(&mut self) -> Option<Waiting> {
        let tenant = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&tenant).expect("who has a turn has a queue");
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        self.waiting -= 1;
        next
    }

    /// Takes one out of the queue that is still in it.
    fn remove(&mut self, tenant: &TenantId, number: u64) {
        let Some(queue) = self.queues.get_mut(tenant) else { return };
        let Some(at) = queue.iter().position(|waiting| waiting.number == number) else { return };
        queue.remove(at);
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(tenant);
            self.turns.retain(|turn| turn != tenant);
        }
    }
}

// === impl Place, InQueue ===

impl Drop for Place {
    fn drop(&mut self) {
        let gate = self.gate.clone();
        gate.held.dec();
        let mut state = gate.lock();
        let mut handed = None;
        match state.next() {
            Some(next) => handed = Some(next),
            None => state.free += 1,
        }
        gate.waiting.set(state.waiting as i64);
        drop(state);
        if let Some(next) = handed {
            // Who hears no more gives it back by this, to the one after.
            drop(next.told.send(Ok(gate.place())));
        }
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.remove(self.tenant, self.number);
        self.gate.waiting.set(state.waiting as i64);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    fn gate(places: usize) -> Gate {
        Gate::new(places, Gauge::default(), Gauge::default())
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    /// Enters as a task of its own, which is in the queue when this returns.
    async fn wait(gate: &Gate, of: &str) -> JoinHandle<Result<Place, Refused>> {
        let (gate, of) = (gate.clone(), tenant(of));
        let waiting = tokio::spawn(async move { gate.enter(&of).await });
        tokio::task::yield_now().await;
        waiting
    }

    /// Goal: tenants take turns however many each asks for, and within a tenant who came first is first.
    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns() {
        let gate = gate(1);
        let mut place = gate.enter(&tenant("a")).await.expect("it is free");
        let mut waiting = Vec::new();
        for of in ["a", "a", "a", "b", "b", "c"] {
            waiting.push((of, wait(&gate, of).await));
        }
        assert_eq!((gate.held.get(), gate.waiting.get()), (1, 6));
        let mut order = String::new();
        while !waiting.is_empty() {
            drop(place);
            tokio::task::yield_now().await;
            let at = waiting.iter().position(|(_, waiting)| waiting.is_finished()).expect("a place went to somebody");
            let (of, next) = waiting.remove(at);
            place = next.await.expect("no panic").expect("a place");
            assert!(waiting.iter().all(|(_, waiting)| !waiting.is_finished()), "to one alone");
            assert!(!waiting[..at].iter().any(|(before, _)| *before == of), "who came first is first");
            order.push_str(of);
        }
        assert_eq!(order, "abcaba");
        drop(place);
        assert_eq!((gate.held.get(), gate.waiting.get(), gate.lock().free), (0, 0, 1));
        assert!(gate.lock().queues.is_empty() && gate.lock().turns.is_empty(), "nothing is left of tenants");
    }

    /// Goal: who goes away gives back what it has: its place in the queue, or the place that it is being handed.
    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_nothing_taken() {
        let gate = gate(1);
        let place = gate.enter(&tenant("a")).await.expect("it is free");
        let (first, second) = (wait(&gate, "a").await, wait(&gate, "b").await);
        first.abort();
        assert!(first.await.expect_err("it is aborted").is_cancelled());
        assert_eq!(gate.waiting.get(), 1);
        drop(place);
        // Told, but not awake yet.
        assert_eq!(gate.held.get(), 1);
        second.abort();
        let _ = second.await;
        assert_eq!((gate.held.get(), gate.waiting.get()), (0, 0));
        assert!(gate.try_enter().is_some());
    }

    /// Goal: the queue has a bound, whoever waits too long is refused, and both are told why.
    #[tokio::test(start_paused = true)]
    async fn the_queue_and_the_wait_are_bounded() {
        let gate = gate(2);
        let _places = [gate.try_enter().expect("one"), gate.try_enter().expect("two")];
        let mut waiting = Vec::new();
        for _ in 0..WAITING_MAX {
            waiting.push(wait(&gate, "a").await);
        }
        let before = tokio::time::Instant::now();
        let refused = gate.enter(&tenant("a")).await.expect_err("there is no room");
        assert_eq!(
            refused.to_string(),
            "of questions about so much 2 are answered at once, and 100 wait already: come back later, or narrow the window or \
             the selector"
        );
        assert_eq!(before.elapsed(), Duration::ZERO, "one more does not wait");
        for waiting in waiting {
            let refused = waiting.await.expect("no panic").expect_err("nobody left");
            assert_eq!(
                refused.to_string(),
                "of questions about so much 2 are answered at once, and none of them ended for this one within 10s: come back \
                 later, or narrow the window or the selector"
            );
        }
        assert_eq!((before.elapsed(), gate.waiting.get()), (PATIENCE, 0));
    }

    /// Goal: a tenant that fills the queue does not keep out others.
    #[tokio::test(start_paused = true)]
    async fn who_fills_the_queue_makes_room() {
        let gate = gate(1);
        let place = gate.try_enter().expect("it is free");
        let mut waiting = Vec::new();
        for _ in 0..WAITING_MAX {
            waiting.push(wait(&gate, "a").await);
        }
        let other = wait(&gate, "b").await;
        let last = waiting.pop().expect("there are many");
        assert!(matches!(last.await.expect("no panic"), Err(Refused::Full { waiting: WAITING_MAX, .. })));
        assert!(!other.is_finished() && waiting.iter().all(|waiting| !waiting.is_finished()));
        drop(place);
        let first = waiting.remove(0).await.expect("no panic").expect("the first of a");
        drop(first);
        assert!(other.await.expect("no panic").is_ok(), "then it is the other's turn");
    }
}
