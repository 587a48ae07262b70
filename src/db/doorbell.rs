//! The doorbell: wakes the daemon for new work without making writers pay for it.
//!
//! A transaction that calls NOTIFY takes a cluster-wide lock at commit, so writers should notify only when somebody
//! sleeps. Who sleeps holds (or awaits) an advisory lock exclusively, on a guard session that does nothing else; writers
//! try it shared, without waiting, to the end of their transaction (`rowbeat.ring`). Granted: the daemon is awake, or
//! will scan after this commit. Refused: they notify.
//!
//! Three states: **awake** (busy, lock not held: loops look for work every few milliseconds), **quiet** (lock held, or asked for
//! long enough that the request stands in the server's queue: loops wait for a wake-up), **deaf** (no listening session or
//! no guard: loops poll). Invariant: quiet begins with a scan for tasks and changes, after the lock was asked for; so nothing
//! committed before is missed, and whatever commits later rings.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connect::Connector;

/// How busy the daemon is, is a sum of what its loops found, each fading with this time constant...
const FADING: Duration = Duration::from_millis(100);
/// ... and above this it stays awake: at more than 500 a second the commit lock of NOTIFY would begin to cost the writers, and
/// looking every few milliseconds costs less than falling asleep and waking for each of them.
const BUSY: f64 = 50.0;
/// How often an awake daemon asks itself whether it may sleep.
const DROWSY: Duration = Duration::from_millis(5);
const PENDING_IS_QUEUED: Duration = Duration::from_millis(100);
const RECONNECT: Duration = Duration::from_secs(1);

const AWAKE: u8 = 0;
const QUIET: u8 = 1;
const DEAF: u8 = 2;

/// What a wake-up is about. Only a hint: every loop scans for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Tasks were enqueued or are due again.
    Task,
    /// Changes were captured.
    Change,
    /// A schedule was written.
    Schedule,
    /// The channels to listen to changed.
    Channel,
    /// A definition changed.
    Definition,
    /// A running task is to be cancelled.
    Cancel,
    /// Endpoints of plugins changed.
    Endpoint,
    /// A node or worker let its lease run out.
    Lost,
    /// Nothing: woken by time only.
    Time,
    /// Changes were captured, for the backup.
    Backup,
    /// Images were written here.
    Image,
}

const TOPICS: [(&str, Topic); 7] = [
    ("task", Topic::Task),
    ("change", Topic::Change),
    ("schedule", Topic::Schedule),
    ("channel", Topic::Channel),
    ("definition", Topic::Definition),
    ("cancel", Topic::Cancel),
    ("endpoint", Topic::Endpoint),
];

impl Topic {
    /// How often an awake daemon looks by itself; `None` for topics that are always announced.
    fn awake_poll(self, changing: bool) -> Option<Duration> {
        match self {
            Self::Task => Some(Duration::from_millis(1)),
            Self::Change => Some(Duration::from_millis(if changing { 4 } else { 16 })),
            Self::Backup => Some(Duration::from_millis(if changing { 50 } else { 200 })),
            Self::Schedule
            | Self::Channel
            | Self::Definition
            | Self::Cancel
            | Self::Endpoint
            | Self::Lost
            | Self::Image
            | Self::Time => None,
        }
    }
}

/// The handle that loops wait on and the listener rings.
#[derive(Clone)]
pub struct Bell {
    inner: Arc<Inner>,
}

struct Inner {
    heat: Mutex<(Instant, f64)>,
    full: AtomicBool,
    changing: AtomicBool,
    state: AtomicU8,
    listening: AtomicBool,
    topics: [Notify; 11],
    stirred: Notify,
    listening_changed: Notify,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                heat: Mutex::new((Instant::now(), 0.0)),
                full: AtomicBool::new(false),
                changing: AtomicBool::new(false),
                state: AtomicU8::new(DEAF),
                listening: AtomicBool::new(false),
                topics: Default::default(),
                stirred: Notify::new(),
                listening_changed: Notify::new(),
            }),
        }
    }
}

impl Bell {
    /// Waits for a wake-up about `topic`, or until it is time to look anyway. One waiter a topic.
    pub async fn wait(&self, topic: Topic, longest: Duration) {
        let longest = match (
            self.inner.state.load(Ordering::SeqCst),
            topic.awake_poll(self.inner.changing.load(Ordering::Relaxed)),
        ) {
            (AWAKE, Some(poll)) => longest.min(poll),
            (DEAF, _) if !matches!(topic, Topic::Time | Topic::Lost) => {
                longest.min(Duration::from_millis(500))
            }
            _ => longest,
        };
        tokio::select! {
            () = self.inner.topics[topic as usize].notified() => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    /// Wakes whoever waits for `topic`; kept for him if he does not wait right now.
    pub fn wake(&self, topic: Topic) {
        self.inner.topics[topic as usize].notify_one();
        // Two read the log, and each waits for itself.
        if topic == Topic::Change {
            self.wake(Topic::Backup);
        }
    }

    /// Wakes everybody for a scan.
    pub fn wake_all(&self) {
        for topic in &self.inner.topics {
            topic.notify_one();
        }
    }

    /// Somebody found so much work. A daemon that gets busy is awake from now on; one that is not stays where it is and hears
    /// of the next task by a notification.
    pub fn stir(&self, found: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a measure")]
        self.heat(found as f64);
        self.rise();
    }

    fn rise(&self) {
        if !self.is_busy() {
            return;
        }
        if self.inner.state.compare_exchange(QUIET, AWAKE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            // Loops that wait for the bell must look by themselves from now on.
            self.wake(Topic::Task);
            self.wake(Topic::Change);
            self.inner.stirred.notify_one();
        }
    }

    /// A notification arrived on the daemon's own channel.
    pub fn heard(&self, payload: &str) {
        match TOPICS.iter().find(|(name, _)| *name == payload) {
            Some((_, topic)) => self.wake(*topic),
            None => self.wake_all(),
        }
    }

    /// The listening session came up or went.
    pub fn set_listening(&self, listening: bool) {
        self.inner.listening.store(listening, Ordering::SeqCst);
        if listening {
            self.wake_all();
        } else {
            self.set_state(DEAF);
        }
        self.inner.listening_changed.notify_one();
        self.inner.stirred.notify_one();
    }

    /// Whether wake-ups arrive at the moment.
    pub fn is_listening(&self) -> bool {
        self.inner.listening.load(Ordering::SeqCst)
    }

    fn set_state(&self, state: u8) {
        self.inner.state.store(state, Ordering::SeqCst);
    }

    /// Every place of this node is taken, or not any more: while it is full, nothing new can be started, so there is no need
    /// for anybody to ring.
    pub fn set_full(&self, full: bool) {
        if self.inner.full.swap(full, Ordering::SeqCst) != full {
            self.rise();
        }
    }

    /// Whether changes come in these seconds: then it is worth while to look for them more often.
    pub fn set_changing(&self, changing: bool) {
        self.inner.changing.store(changing, Ordering::Relaxed);
    }

    /// How much was found lately, with what is found now.
    fn heat(&self, found: f64) -> f64 {
        let mut heat = self.inner.heat.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let faded = (-(now - heat.0).as_secs_f64() / FADING.as_secs_f64()).exp();
        *heat = (now, heat.1 * faded + found);
        heat.1
    }

    fn is_busy(&self) -> bool {
        self.inner.full.load(Ordering::SeqCst) || self.heat(0.0) > BUSY
    }

    fn fall_quiet(&self) {
        if self.is_listening() {
            self.set_state(QUIET);
        }
        // Everything else is announced, asleep or not.
        self.wake(Topic::Task);
        self.wake(Topic::Change);
    }
}

/// Keeps the guard session: asks for the doorbell's lock when the daemon falls idle, gives it back when it gets busy.
pub async fn guard(connector: Connector, bell: Bell, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            result = guard_session(&connector, &bell) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "guard session ended");
                }
            }
            () = stop.cancelled() => break,
        }
        bell.set_state(DEAF);
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn guard_session(connector: &Connector, bell: &Bell) -> anyhow::Result<()> {
    let (client, connection) = connector.connect("guard").await?;
    let talk = async {
        client.batch_execute("set lock_timeout = '5s'; set statement_timeout = 0").await?;
        loop {
            while !bell.is_listening() {
                bell.inner.listening_changed.notified().await;
            }
            bell.set_state(AWAKE);
            bell.wake(Topic::Task);
            bell.wake(Topic::Change);
            while bell.is_busy() {
                tokio::time::sleep(DROWSY).await;
            }
            hold_quiet(connector, &client, bell).await?;
        }
    };
    tokio::select! {
        result = talk => result,
        result = connection => Ok(result?),
    }
}

/// Asks for the lock and holds it until the daemon gets busy; again after each timeout, since a waiting request holds a
/// snapshot.
async fn hold_quiet(
    connector: &Connector,
    client: &tokio_postgres::Client,
    bell: &Bell,
) -> anyhow::Result<()> {
    loop {
        let lock = client.batch_execute("select pg_advisory_lock(1919907682, 1)");
        tokio::pin!(lock);
        let early = tokio::select! {
            result = &mut lock => Some(result),
            () = tokio::time::sleep(PENDING_IS_QUEUED) => None,
        };
        bell.fall_quiet();
        let granted = match early {
            Some(result) => result,
            None => {
                tokio::select! {
                    result = &mut lock => {
                        bell.wake_all();
                        result
                    }
                    () = bell.inner.stirred.notified() => {
                        connector.cancel(client.cancel_token()).await;
                        if lock.await.is_ok() {
                            client.batch_execute("select pg_advisory_unlock(1919907682, 1)").await?;
                        }
                        return Ok(());
                    }
                }
            }
        };
        match granted {
            Ok(()) => {
                bell.inner.stirred.notified().await;
                client.batch_execute("select pg_advisory_unlock(1919907682, 1)").await?;
                return Ok(());
            }
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
