//! Processes: what runs until it is killed, and then anew with nothing but what lies in the store.
//!
//! A process is one future, so that killing it drops all that it was doing, exactly where it stood, and pausing it stops all of it
//! while the rest of the world goes on. [`supervise`] starts it, does to it what the seed says, and starts it again.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use afterglow_store::clock::SeededRandom;
use afterglow_store::{Store, StoreOptions};
use futures::future::LocalBoxFuture;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::met::Met;
use crate::oracle::Oracle;
use crate::store::SimStore;
use crate::world::{Calm, Chance, World, WrongClock};

/// F14: the longest that a process is paused.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// F13: how wrong a clock is at most.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// Likewise, where clocks are days off: far beyond where the boundary lies.
const SKEW_OF_DAYS_MAX: Duration = Duration::from_secs(100 * 3_600);
/// How likely a clock is so, where any is.
const DAYS_OFF: f64 = 0.3;
/// How long it takes at most until a process that ended is started again.
const RESTART_MAX: Duration = Duration::from_secs(20);
/// How many times as long processes wait when nothing fails any more.
const IN_PEACE: u32 = 8;
/// A kill strikes after so many of a process's steps at most, so that it meets what happens at one instant in the midst.
const STEPS_BEFORE_KILL_MAX: u64 = 40;

/// What can run as a process.
pub trait Process: Send + Sync + 'static {
    /// Returns its name, which no other has.
    fn name(&self) -> &str;

    /// Whether it writes or deletes, so that the bucket depends upon its clock; who only reads is merely wrong about what is new.
    fn writes(&self) -> bool {
        true
    }

    /// Runs from its start until it ends of itself, which it does soon after `life.stop` is cancelled.
    fn live(&self, life: Life) -> LocalBoxFuture<'static, ()>;
}

/// What a process is given each time it starts.
#[derive(Debug)]
pub struct Life {
    /// The store: a new writer with a new name, over the same objects.
    pub store: Store,
    /// Chance of its own.
    pub chance: Chance,
    /// Asks it to end.
    pub stop: CancellationToken,
    /// Says when the trouble is over.
    pub calm: Calm,
}

impl Life {
    /// Draws how long to wait before it does again what it does over and over. Nothing happens any more once it is calm, and what there is
    /// to see then lasts for minutes: most of what a seed costs would be looking at it.
    pub fn pause(&mut self, mean: Duration) -> Duration {
        self.chance.interval(if self.calm.is_now() { mean * IN_PEACE } else { mean })
    }
}

/// How a run treats its processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chaos {
    /// The mean time between two things that happen to a process; none for peace.
    pub every: Option<Duration>,
    /// How likely each of them is a kill; the rest are divided among pauses, leaps of its clock and requests to end.
    pub kills: f64,
    /// Whether clocks of who writes may be days off, not minutes.
    pub is_days_off: bool,
}

impl Chaos {
    /// Draws how rough a run is.
    pub fn draw(chance: &mut Chance) -> Self {
        let every = *chance.choose(&[None, Some(10), Some(30), Some(120)]);
        let kills = *chance.choose(&[0.2, 0.5, 0.9]);
        Self { every: every.map(Duration::from_secs), kills, is_days_off: chance.is(0.25) }
    }
}

/// Runs a process again and again; in peace once it is calm, and until it is over.
pub async fn supervise(
    process: Arc<dyn Process>,
    world: World,
    objects: SimStore,
    oracle: Oracle,
    chaos: Chaos,
    calm: Calm,
    over: CancellationToken,
) {
    let name = process.name().to_owned();
    let mut chance = world.chance(&name);
    let clock = world.clock();
    let is_days_off = chaos.is_days_off && process.writes();
    clock.leap(skew(&mut chance, is_days_off));
    for start in 0u64.. {
        let store = open(&world, &objects, &clock, &format!("{name}.{start}"));
        let (control, stop) = (Control::default(), CancellationToken::new());
        let life = Life {
            store,
            chance: world.chance(format_args!("{name}.{start}")),
            stop: stop.clone(),
            calm: calm.clone(),
        };
        world.note(format_args!("{name} starts"));
        let mut task = spawn_local(Mortal { future: Some(process.live(life)), control: control.clone() });
        loop {
            let next = chaos.every.map(|every| chance.interval(every));
            let is_calm = calm.is_now();
            if is_calm {
                control.resume();
                clock.leap(0);
            }
            tokio::select! {
                biased;
                ended = &mut task => {
                    match ended {
                        Ok(how) => world.note(format_args!("{name} {}", how.map_or("is dead", |()| "ends"))),
                        Err(error) => oracle.wrong(format!("{name} panicked: {error}")),
                    }
                    break;
                }
                () = over.cancelled() => {
                    control.kill_after(0);
                    drop(task.await);
                    world.note(format_args!("{name} is over"));
                    return;
                }
                () = calm.begun(), if !is_calm => {}
                () = sleep(next.unwrap_or_default()), if next.is_some() && !is_calm => {
                    strike(&mut chance, &chaos, is_days_off, &world, &name, &control, &clock, &stop);
                }
            }
        }
        if over.is_cancelled() {
            return;
        }
        if !calm.is_now() {
            sleep(chance.time(RESTART_MAX)).await;
        }
    }
}

/// Opens the store as one start of a process sees it.
pub fn open(world: &World, objects: &SimStore, clock: &Arc<WrongClock>, name: &str) -> Store {
    let options = StoreOptions {
        clock: Arc::clone(clock) as _,
        random: Arc::new(SeededRandom::new(world.seed_of(format_args!("{name} random")))),
        ..StoreOptions::default()
    };
    Store::new(Arc::new(objects.of(name)), "simulated".to_owned(), options)
}

fn skew(chance: &mut Chance, is_days_off: bool) -> i64 {
    let most = if is_days_off && chance.is(DAYS_OFF) { SKEW_OF_DAYS_MAX } else { SKEW_MAX };
    let most = most.as_millis() as i64;
    chance.number(0..2 * most as u64) as i64 - most
}

/// Does something to a process.
#[expect(clippy::too_many_arguments, reason = "all that it may be done by")]
fn strike(
    chance: &mut Chance,
    chaos: &Chaos,
    is_days_off: bool,
    world: &World,
    name: &str,
    control: &Control,
    clock: &WrongClock,
    stop: &CancellationToken,
) {
    if chance.is(chaos.kills) {
        let steps = chance.number(0..STEPS_BEFORE_KILL_MAX);
        world.note(format_args!("{name} dies in {steps} steps"));
        world.meets(Met::Kill);
        control.kill_after(steps);
        return;
    }
    match chance.number(0..4) {
        0 | 1 => {
            let pause = chance.time(PAUSE_MAX);
            world.note(format_args!("{name} pauses for {} s", pause.as_secs_f64()));
            world.meets(Met::Pause);
            control.pause();
            let control = control.clone();
            tokio::spawn(async move {
                sleep(pause).await;
                control.resume();
            });
        }
        2 => {
            let ahead = skew(chance, is_days_off);
            world.note(format_args!("{name} has a clock {ahead} ms ahead"));
            world.meets(Met::WrongClock);
            clock.leap(ahead);
        }
        _ => {
            world.note(format_args!("{name} is asked to end"));
            stop.cancel();
        }
    }
}

// === impl Control ===

/// Decides over the life of a future; cheap to clone.
#[derive(Clone, Debug, Default)]
struct Control(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    steps_left: Option<u64>,
    waker: Option<Waker>,
}

impl Control {
    fn pause(&self) {
        self.state().is_paused = true;
    }

    fn resume(&self) {
        self.change(|state| state.is_paused = false);
    }

    fn kill_after(&self, steps: u64) {
        self.change(|state| {
            // Who is paused and killed is just gone.
            state.steps_left = Some(if state.is_paused { 0 } else { steps });
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// A future that can be paused and killed. Gives `None` when it was killed.
struct Mortal {
    future: Option<LocalBoxFuture<'static, ()>>,
    control: Control,
}

impl Future for Mortal {
    type Output = Option<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        {
            let mut state = self.control.state();
            state.waker = Some(cx.waker().clone());
            match state.steps_left {
                Some(0) => {
                    drop(state);
                    self.future = None;
                    return Poll::Ready(None);
                }
                _ if state.is_paused => return Poll::Pending,
                Some(steps) => state.steps_left = Some(steps - 1),
                None => {}
            }
        }
        match &mut self.future {
            Some(future) => future.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }
}
