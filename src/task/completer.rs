//! Batched completion: done attempts without a settle function are recorded many at a time, as many as came in while the
//! previous batch was under way. An attempt stays in flight (and in the list of running ones) until its batch is written.
//! One whose row somebody holds locked (a cancellation in a long transaction) holds up nobody: it goes with a later batch.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Outcome;
use super::store::{Completion, Store};

const MOST: usize = 1000;
/// What could not be written is tried again with the next batch, or after this pause.
const HELD_BACK: Duration = Duration::from_millis(100);

/// Where attempts leave their completions.
#[derive(Clone)]
pub struct Completer {
    sender: mpsc::Sender<Completion>,
}

impl Completer {
    /// A completer and the service behind it, which ends when the last completer is dropped and all is written.
    pub fn new(store: Store) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(2 * MOST);
        (Self { sender }, run(store, receiver))
    }

    /// Hands over a completion; waits when too many are on their way.
    pub async fn complete(&self, completion: Completion) {
        if self.sender.send(completion).await.is_err() {
            tracing::error!("the completer has ended; a completion is left to the rescuer");
        }
    }
}

async fn run(store: Store, mut receiver: mpsc::Receiver<Completion>) {
    let mut batch = Vec::with_capacity(MOST);
    let mut open = true;
    while open || !batch.is_empty() {
        if batch.is_empty() {
            open = receiver.recv_many(&mut batch, MOST).await > 0;
        } else if !open {
            tokio::time::sleep(HELD_BACK).await;
        } else if let Ok(more) = tokio::time::timeout(HELD_BACK, receiver.recv_many(&mut batch, MOST)).await {
            open = more > 0;
        }
        write(&store, &mut batch).await;
    }
}

/// Writes the batch; what is left in it is to be tried again.
async fn write(store: &Store, batch: &mut Vec<Completion>) {
    if batch.is_empty() {
        return;
    }
    match store.complete(batch).await {
        Ok(written) => {
            let written: HashSet<i64> = written.into_iter().collect();
            batch.retain(|completion| !written.contains(&completion.task.id));
            if batch.is_empty() {
                return;
            }
            // Without an answer all of them are tried again: the fence sorts them out.
            if let Ok(held) = store.still_held(batch).await {
                let held: HashSet<i64> = held.into_iter().collect();
                for stale in batch.iter().filter(|completion| !held.contains(&completion.task.id)) {
                    tracing::warn!(
                        task.id = stale.task.id,
                        "done, but the task had been ended or taken over"
                    );
                }
                batch.retain(|completion| held.contains(&completion.task.id));
            }
        }
        // One bad row must not hold up the others, nor an outage lose any: each on its own, until it is written.
        Err(error) => {
            tracing::warn!(%error, count = batch.len(), "batch of completions failed; writing one by one");
            for completion in batch.drain(..) {
                store.record(&completion.task, Outcome::Done(completion.result)).await;
            }
        }
    }
}
