//! How fast this node works its tasks off, and with that how many to claim ahead and how many sql tasks go to a session at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Claimed ahead is what the slots work off in this time, and no more than so many.
const AHEAD: Duration = Duration::from_millis(20);
/// Of tasks that take less than a twentieth of this on average it is this: what a claim costs is shared by more of them.
const FAR_AHEAD: Duration = Duration::from_millis(100);
const MOST_AHEAD: u64 = 990;
/// A task that was claimed ahead and did not begin in this time is given back.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Sql tasks that take no longer than this all together go to a session in one row, but not more than so many.
const ROW: Duration = Duration::from_millis(50);
const LONGEST_ROW: usize = 8;

/// How long attempts take, as a moving average in microseconds (0: not known yet), how many have ended, and how long the slowest sql tasks
/// of each definition took lately, in microseconds;
/// and how many tasks this node has claimed that have not ended.
#[derive(Default)]
pub struct Pace {
    micros: AtomicU64,
    ended: AtomicU64,
    slowest: Mutex<HashMap<String, u64>>,
    in_hand: AtomicUsize,
}

impl Pace {
    /// So many attempts took so long, one after the other.
    pub fn note(&self, took: Duration, attempts: usize) {
        let attempts = u64::try_from(attempts).unwrap_or(1).max(1);
        self.ended.fetch_add(attempts, Ordering::Relaxed);
        let took = (u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / attempts).max(1);
        let old = self.micros.load(Ordering::Relaxed);
        // Two attempts at once may lose one of the notes: it is only an average.
        self.micros.store(if old == 0 { took } else { old - old / 8 + took / 8 }.max(1), Ordering::Relaxed);
    }

    /// A sql task took so long.
    pub fn note_sql(&self, definition: &str, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        match slowest.get_mut(definition) {
            Some(known) => *known = took.max(*known - *known / 16),
            None => drop(slowest.insert(definition.to_owned(), took)),
        }
    }

    /// How many sql tasks of a definition go in one row: who is behind a slow one waits for it.
    pub fn row(&self, definition: &str) -> usize {
        let slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = slowest.get(definition).map_or(1, |slowest| ROW.as_micros() / u128::from(*slowest));
        usize::try_from(fitting).unwrap_or(LONGEST_ROW).clamp(1, LONGEST_ROW)
    }

    /// How many attempts ended so far.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many tasks to claim ahead for so many slots.
    pub fn ahead(&self, slots: usize) -> usize {
        let micros = self.micros.load(Ordering::Relaxed);
        let far = Duration::from_micros(micros) * 20 < FAR_AHEAD;
        let ahead = if far { FAR_AHEAD } else { AHEAD };
        let ahead = u64::try_from(ahead.as_micros()).unwrap_or(0).saturating_mul(slots as u64);
        usize::try_from(ahead.checked_div(micros).unwrap_or(0).min(MOST_AHEAD)).unwrap_or(0)
    }

    /// How many tasks are in hand.
    pub fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::SeqCst)
    }

    /// So many more are in hand.
    pub fn take(self: &Arc<Self>, count: usize) -> InHand {
        self.in_hand.fetch_add(count, Ordering::SeqCst);
        InHand { count: AtomicUsize::new(count), pace: Arc::clone(self) }
    }
}

/// Tasks in hand, until this is dropped.
pub struct InHand {
    count: AtomicUsize,
    pace: Arc<Pace>,
}

impl InHand {
    /// One of them has ended.
    pub fn less(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.pace.in_hand.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.pace.in_hand.fetch_sub(self.count.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_tasks_are_claimed_ahead() {
        let pace = Pace::default();
        assert_eq!(pace.ahead(10), 0, "nothing is known yet");
        pace.note(Duration::from_millis(500), 1);
        assert_eq!(pace.ahead(10), 0);
        (0..100).for_each(|_| pace.note(Duration::from_millis(20), 1));
        assert!((5..=10).contains(&pace.ahead(10)), "{}", pace.ahead(10));
        (0..200).for_each(|_| pace.note(Duration::from_micros(30), 1));
        assert_eq!(pace.ahead(10), 990);
    }

    #[test]
    fn sql_tasks_go_in_a_row_as_long_as_none_was_slow_lately() {
        let pace = Pace::default();
        assert_eq!(pace.row("a"), 1, "nothing is known yet");
        pace.note_sql("a", Duration::from_millis(2));
        assert_eq!(pace.row("a"), LONGEST_ROW);
        pace.note_sql("a", Duration::from_secs(3));
        (0..20).for_each(|_| pace.note_sql("a", Duration::from_millis(2)));
        assert_eq!(pace.row("a"), 1, "the slow one is not forgotten yet");
        (0..100).for_each(|_| pace.note_sql("a", Duration::from_millis(2)));
        assert_eq!(pace.row("a"), LONGEST_ROW);
        assert_eq!(pace.row("b"), 1, "another definition");
    }

    #[test]
    fn tasks_are_in_hand_until_they_end() {
        let pace = Arc::new(Pace::default());
        let in_hand = pace.take(3);
        in_hand.less();
        assert_eq!(pace.in_hand(), 2);
        drop(in_hand);
        assert_eq!(pace.in_hand(), 0);
    }
}
