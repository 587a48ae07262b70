//! Batched completion: done attempts without a settle function are recorded many at a time, as many as came in while the
//! previous batch was under way. An attempt stays in flight (and in the list of running ones) until its batch is written.

use std::collections::HashSet;

use tokio::sync::mpsc;

use super::Outcome;
use super::store::{Completion, Store};

const MOST: usize = 500;

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
    while receiver.recv_many(&mut batch, MOST).await > 0 {
        match store.complete(&batch).await {
            Ok(written) => {
                let written: HashSet<i64> = written.into_iter().collect();
                for completion in batch.drain(..).filter(|c| !written.contains(&c.task.id)) {
                    // Changed at that very moment (somebody asked to cancel it), or the claim was lost.
                    store.record(&completion.task, Outcome::Done(completion.result)).await;
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
}
