//! The attempts of this node that are not on record yet: who to tell when one must stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

/// Why an attempt must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Somebody cancelled the task.
    Cancelled,
    /// The node stops and the drain time is over.
    Interrupted,
    /// The node could not renew its lease: others may take the task over.
    LeaseLost,
}

#[derive(Debug, Default)]
struct Signal {
    attempt: i32,
    token: CancellationToken,
    reason: OnceLock<StopReason>,
}

/// The attempts in flight on this node.
#[derive(Clone, Default)]
pub struct Running {
    signals: Arc<Mutex<HashMap<i64, Arc<Signal>>>>,
}

/// One attempt's entry; gone from the list when dropped, which is after its ending is on record.
pub struct Ticket {
    id: i64,
    signal: Arc<Signal>,
    running: Running,
}

impl Running {
    /// Enters an attempt at this task. `None`: it is in flight already, for the server has forgotten its claim in a crash and this is
    /// the same one anew.
    pub fn enter(&self, id: i64, attempt: i32) -> Option<Ticket> {
        let signal = Arc::new(Signal { attempt, ..Signal::default() });
        let mut signals = self.lock();
        if signals.get(&id).is_some_and(|signal| signal.attempt == attempt) {
            return None;
        }
        signals.insert(id, Arc::clone(&signal));
        drop(signals);
        Some(Ticket { id, signal, running: self.clone() })
    }

    /// The tasks in flight.
    pub fn ids(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    /// Tells one attempt to stop.
    pub fn stop(&self, id: i64, reason: StopReason) {
        if let Some(signal) = self.lock().get(&id) {
            signal.stop(reason);
        }
    }

    /// Tells all attempts to stop.
    pub fn stop_all(&self, reason: StopReason) {
        for signal in self.lock().values() {
            signal.stop(reason);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Arc<Signal>>> {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signal {
    fn stop(&self, reason: StopReason) {
        // The first reason stands.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }
}

impl Ticket {
    /// Cancelled when the attempt must stop.
    pub fn token(&self) -> &CancellationToken {
        &self.signal.token
    }

    /// Waits until the attempt must stop, and tells why.
    pub async fn stopped(&self) -> StopReason {
        self.signal.token.cancelled().await;
        self.reason()
    }

    /// Why it must stop.
    pub fn reason(&self) -> StopReason {
        self.signal.reason.get().copied().unwrap_or(StopReason::Interrupted)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut signals = self.running.lock();
        if signals.get(&self.id).is_some_and(|signal| Arc::ptr_eq(signal, &self.signal)) {
            signals.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_attempt_is_entered_once_and_the_next_one_is_another() {
        let running = Running::default();
        let first = running.enter(7, 1);
        assert!(first.is_some());
        assert!(running.enter(7, 1).is_none(), "the server forgot the claim and gave it again");
        let second = running.enter(7, 2);
        assert!(second.is_some());
        drop(first);
        assert_eq!(running.ids(), [7], "the later one is still in flight");
        drop(second);
        assert!(running.ids().is_empty());
    }
}
