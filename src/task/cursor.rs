//! The claim cursor: where the next claim begins to look.
//!
//! While somebody holds an old snapshot, the dead entries of ended tasks stay at the head of every lane, and a claim from the
//! head walks over all of them. So the dispatcher remembers where its claims ended. It looks from the head as long as that is
//! cheap; a look that took longer than what it found can explain is not repeated before twenty times the excess has passed,
//! and narrower looks stand in for it: from two seconds ago (what was enqueued by a transaction that has just committed lies there),
//! or from the very last place. Invariant: delivery never depends on the cursor; it only delays what lies behind it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::ClaimedTask;

/// What a claim may take: for itself, and for each task that it brings.
const FAIR: Duration = Duration::from_millis(3);
const FAIR_EACH: Duration = Duration::from_micros(20);
/// An expensive look takes a twentieth of the time.
const RATION: u32 = 20;
/// However expensive, there is one so often.
const LONGEST: Duration = Duration::from_secs(5);
/// While claims are full they go on from the last place for so long: at the head are only the tasks that this node runs just now.
const ONWARD: Duration = Duration::from_millis(50);
/// A lane in which nothing was found for so long is forgotten; the next look from the head finds it again.
const FORGET: Duration = Duration::from_secs(300);

/// From where a claim looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Every lane from its head.
    Head,
    /// The known lanes, from two seconds ago or from where the last claim ended if that is earlier.
    Trail,
    /// The known lanes from where the last claim ended.
    Last,
}

/// The known lanes, as the claim wants them.
#[derive(Debug, Default)]
pub struct Places {
    /// Queues.
    pub queues: Vec<String>,
    /// Priorities.
    pub priorities: Vec<i16>,
    /// Definitions.
    pub definitions: Vec<String>,
    /// Where the last claim ended: its latest `run_at`...
    pub run_at: Vec<DateTime<Utc>>,
    /// ... and id.
    pub ids: Vec<i64>,
}

struct Place {
    run_at: DateTime<Utc>,
    id: i64,
    found: Instant,
}

/// Where the claims of this node ended, lane by lane.
pub struct Cursor {
    lanes: BTreeMap<(String, i16, String), Place>,
    /// Not before these times: too expensive.
    head: Instant,
    trail: Instant,
    /// Not before this time: there is more after the last place.
    onward: Instant,
}

impl Cursor {
    /// Nothing was claimed yet.
    pub fn new(now: Instant) -> Self {
        Self { lanes: BTreeMap::new(), head: now, trail: now, onward: now }
    }

    /// The widest look that is not too expensive now.
    pub fn look(&self, now: Instant) -> Look {
        if self.lanes.is_empty() {
            Look::Head
        } else if now < self.onward {
            Look::Last
        } else if now >= self.head {
            Look::Head
        } else if now >= self.trail {
            Look::Trail
        } else {
            Look::Last
        }
    }

    /// When a wider look than the last one is affordable.
    pub fn wider(&self, look: Look) -> Option<Instant> {
        match look {
            Look::Head => None,
            Look::Trail => Some(self.head),
            Look::Last => Some(self.head.min(self.trail)),
        }
    }

    /// The places to begin after.
    pub fn places(&self) -> Places {
        let mut places = Places::default();
        for ((queue, priority, definition), place) in &self.lanes {
            places.queues.push(queue.clone());
            places.priorities.push(*priority);
            places.definitions.push(definition.clone());
            places.run_at.push(place.run_at);
            places.ids.push(place.id);
        }
        places
    }

    /// Notes what a claim brought and how long it took; `full`: there may be more where it came from.
    pub fn note(&mut self, look: Look, claimed: &[ClaimedTask], full: bool, took: Duration, now: Instant) {
        let fair = FAIR + FAIR_EACH * u32::try_from(claimed.len()).unwrap_or(u32::MAX);
        let again = now + (took.saturating_sub(fair) * RATION).min(LONGEST);
        // A short claim found all there is after the last place: what lies before it is looked for next.
        self.onward = match look {
            _ if !full => now,
            Look::Last => self.onward,
            Look::Head | Look::Trail => now + ONWARD,
        };
        match look {
            Look::Head => {
                self.head = again;
                self.lanes.retain(|_, place| now.duration_since(place.found) < FORGET);
            }
            Look::Trail => self.trail = again,
            Look::Last => {}
        }
        let mut ends: BTreeMap<(&str, i16, &str), (DateTime<Utc>, i64)> = BTreeMap::new();
        for task in claimed {
            let end =
                ends.entry((&task.queue, task.priority, &task.definition)).or_insert((task.run_at, task.id));
            *end = (*end).max((task.run_at, task.id));
        }
        for ((queue, priority, definition), (run_at, id)) in ends {
            let lane = (queue.to_owned(), priority, definition.to_owned());
            let place = self.lanes.entry(lane).or_insert(Place { run_at, id, found: now });
            place.found = now;
            // A full claim from behind the place may have left something there.
            if full || (run_at, id) > (place.run_at, place.id) {
                (place.run_at, place.id) = (run_at, id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: i64, second: i64) -> ClaimedTask {
        ClaimedTask {
            id,
            queue: "default".into(),
            definition: "d".into(),
            run_at: DateTime::from_timestamp(second, 0).unwrap_or_default(),
            ..ClaimedTask::example()
        }
    }

    #[test]
    fn a_cheap_look_is_always_from_the_head() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.note(Look::Head, &[task(1, 1)], false, Duration::from_millis(2), now);
        assert_eq!(cursor.look(now), Look::Head);
        let many: Vec<_> = (0..500).map(|id| task(id, id)).collect();
        cursor.note(Look::Head, &many, false, Duration::from_millis(12), now);
        assert_eq!(cursor.look(now), Look::Head, "five hundred tasks take that long");
    }

    #[test]
    fn full_claims_go_on_from_the_last_place_for_a_while() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.note(Look::Head, &[task(1, 1)], true, Duration::ZERO, now);
        assert_eq!(cursor.look(now), Look::Last);
        cursor.note(Look::Last, &[task(2, 2)], true, Duration::ZERO, now);
        assert_eq!(cursor.look(now), Look::Last);
        assert_eq!(cursor.look(now + ONWARD), Look::Head);
        cursor.note(Look::Last, &[task(3, 3)], false, Duration::ZERO, now);
        assert_eq!(cursor.look(now), Look::Head, "a short one means that it is time to look around");
    }

    #[test]
    fn an_expensive_look_is_rationed_and_narrower_ones_stand_in() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.note(Look::Head, &[task(7, 70)], false, Duration::from_millis(53), now);
        assert_eq!(cursor.look(now), Look::Trail);
        cursor.note(Look::Trail, &[task(8, 80)], false, Duration::from_millis(23), now);
        assert_eq!(cursor.look(now), Look::Last);
        assert_eq!(cursor.places().ids, [8]);
        assert_eq!(cursor.wider(Look::Last), Some(now + Duration::from_micros(399_600)));
        assert_eq!(cursor.look(now + Duration::from_millis(400)), Look::Trail);
        assert_eq!(cursor.look(now + Duration::from_secs(1)), Look::Head);
        cursor.note(Look::Head, &[], false, Duration::from_secs(60), now);
        assert_eq!(cursor.look(now + LONGEST), Look::Head, "however expensive");
    }

    #[test]
    fn the_place_moves_back_only_when_more_may_lie_there() {
        let now = Instant::now();
        let mut cursor = Cursor::new(now);
        cursor.note(Look::Head, &[task(7, 70), task(9, 60)], false, Duration::ZERO, now);
        assert_eq!(cursor.places().ids, [7]);
        cursor.note(Look::Head, &[task(3, 30)], false, Duration::ZERO, now);
        assert_eq!(cursor.places().ids, [7]);
        cursor.note(Look::Head, &[task(4, 40)], true, Duration::ZERO, now);
        assert_eq!(cursor.places().ids, [4]);
    }
}
