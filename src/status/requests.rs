//! How many requests the endpoints of plugins have had, by endpoint and status, since the process began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is counted together: plugin, method, path as declared, status.
pub type Kind = (String, String, String, u16);

/// The counts. Their number is bounded: endpoints are declared, statuses few.
#[derive(Clone, Default)]
pub struct Requests {
    counts: Arc<Mutex<BTreeMap<Kind, (u64, Duration)>>>,
}

impl Requests {
    /// One more, which took so long.
    pub fn count(&self, kind: Kind, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, total) = counts.entry(kind).or_default();
        *number += 1;
        *total += took;
    }

    /// All, with the time they took together.
    pub fn all(&self) -> BTreeMap<Kind, (u64, Duration)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
