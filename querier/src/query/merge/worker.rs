//! Merges on the blocking pool.
//!
//! It takes sums one by one through a channel of one, so that whoever reads cannot run ahead of it. The word that ends the work is
//! said, not implied: a channel that just closes means that nobody waits for the answer any more.

use afterglow_profile::merge::{Merged, Merger};
use afterglow_store::block::Aggregate;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Span;

use super::super::budget::Admitted;
use super::super::explain::Step as Explained;
use super::super::{Engine, Error};
use super::share::Done;

/// A merge under way on the blocking pool.
#[derive(Debug)]
pub(super) struct Worker {
    steps: mpsc::Sender<Step>,
    task: JoinHandle<Result<(Merged, u64, Admitted), Error>>,
}

#[derive(Debug)]
enum Step {
    Add(Vec<Aggregate>),
    Share(Done),
    Finish,
}

// === impl Worker ===

impl Worker {
    /// Starts a merge in the memory that is `admitted`, of which `held` bytes are in use already.
    pub(super) fn start(admitted: Admitted, held: u64, engine: &Engine) -> Self {
        let (steps, received) = mpsc::channel(1);
        let (span, of) = (Span::current(), engine.clone());
        let task = engine.2.spawn(move || span.in_scope(|| work(received, admitted, held, &of)));
        Self { steps, task }
    }

    /// Hands it the sums of a dataset.
    ///
    /// # Errors
    /// Those of the merge, which then is over.
    pub(super) async fn add(&mut self, sums: Vec<Aggregate>) -> Result<(), Error> {
        self.send(Step::Add(sums)).await
    }

    /// Hands it a share that a sibling did.
    ///
    /// # Errors
    /// Those of the merge, which then is over.
    pub(super) async fn add_share(&mut self, share: Done) -> Result<(), Error> {
        self.send(Step::Share(share)).await
    }

    async fn send(&mut self, step: Step) -> Result<(), Error> {
        if self.steps.send(step).await.is_ok() {
            return Ok(());
        }
        // It only ever ends by itself to fail.
        self.end().await.map(drop)
    }

    /// Ends the merge, and returns it with the bytes of memory that it holds.
    ///
    /// # Errors
    /// Those of the merge.
    pub(super) async fn finish(mut self) -> Result<(Merged, u64, Admitted), Error> {
        // If it does not listen, its answer says why.
        let _ = self.steps.send(Step::Finish).await;
        self.end().await
    }

    async fn end(&mut self) -> Result<(Merged, u64, Admitted), Error> {
        (&mut self.task).await?
    }
}

fn work(
    mut steps: mpsc::Receiver<Step>,
    mut admitted: Admitted,
    held: u64,
    Engine(_, explaining, lane, ..): &Engine,
) -> Result<(Merged, u64, Admitted), Error> {
    // Which profiles lie together in a block must not decide anything.
    let mut merger = Merger::by_time();
    loop {
        let step = steps.blocking_recv();
        let _timed = explaining.step(Explained::Sum);
        let is_over = lane.turn(|| {
            match step {
                Some(Step::Add(sums)) => {
                    for sum in &sums {
                        merger.add(&sum.profile())?;
                        admitted.cover(held + merger.memory() as u64)?;
                    }
                }
                Some(Step::Share(share)) => {
                    share.with(|profile| Ok(merger.add(profile)?))?;
                    admitted.cover(held + merger.memory() as u64)?;
                }
                Some(Step::Finish) => return Ok(true),
                None => return Err(Error::Cancelled),
            }
            Ok(false)
        })?;
        if is_over {
            break;
        }
    }
    let _timed = explaining.step(Explained::Sum);
    let memory = merger.memory() as u64;
    Ok((lane.turn(|| merger.finish()), memory, admitted))
}
