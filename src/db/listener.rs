//! The listening session: hears the doorbell, while this node is on duty the channels that are turned into tasks, and, where somebody
//! is told of it, what plugins announce.
//!
//! It lives outside the pool, runs nothing but short statements, and never makes the server wait: what it hears goes into
//! coalescing flags (the bell) or into a bounded queue that drops, and says so, when it is full (channels: best effort by
//! nature). A silent socket looks like a quiet database, so it asks something every few seconds, with a deadline. LISTEN,
//! then scan, then wait, at the start and after every reconnect.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::{broadcast, mpsc};
use tokio_postgres::{AsyncMessage, Client, Statement};
use tokio_util::sync::CancellationToken;

use super::connect::Connector;
use super::doorbell::Bell;
use super::query;
use crate::service::Health;

/// Name of the listener in the health record.
pub const NAME: &str = "listener";
const CHANNEL: &str = "rowbeat";
const HEARTBEAT: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A notification on a channel that is turned into tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The channel.
    pub channel: String,
    /// What was said.
    pub payload: String,
    /// Backend process of the sender.
    pub pid: i32,
}

/// What `rowbeat listen` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ear {
    /// The session listens to this channel now.
    Listening(String),
    /// It no longer does.
    Unlistened(String),
    /// A plugin announces nothing, and says so.
    Nothing(String),
    /// It heard something.
    Heard(Heard),
}

/// The listening session, kept up for ever.
pub struct Listener {
    connector: Connector,
    bell: Bell,
    health: Health,
    heard: mpsc::Sender<Heard>,
    ears: broadcast::Sender<Ear>,
    node: Arc<AtomicI64>,
    /// The channels whose notifications become tasks here.
    tasks: Mutex<BTreeSet<String>>,
}

/// What the session does beside the doorbell.
#[derive(Default)]
struct Following {
    channels: BTreeSet<String>,
    nothing: BTreeSet<String>,
}

impl Listener {
    /// A listener that rings `bell`, hands channels' notifications to `heard`, and tells everything to `ears`; by a session
    /// lock it shows that the node is connected (0: not registered yet).
    pub fn new(
        connector: &Connector,
        bell: Bell,
        health: Health,
        heard: mpsc::Sender<Heard>,
        ears: broadcast::Sender<Ear>,
        node: Arc<AtomicI64>,
    ) -> Self {
        health.passed(NAME, Duration::ZERO);
        Self { connector: connector.for_listen(), bell, health, heard, ears, node, tasks: Mutex::default() }
    }

    /// Listens until `stop`, reconnecting for ever.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            let mut connected = false;
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.session(&mut connected) => {
                    if let Err(error) = ended {
                        let error = format!("{error:#}");
                        if self.health.failed(NAME, &error, pause) {
                            tracing::warn!(service = NAME, error, "not listening; polling until it works again");
                        }
                    }
                }
            }
            self.bell.set_listening(false);
            if connected {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f32(0.75 + fastrand::f32() / 2.0)) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn session(&self, connected: &mut bool) -> anyhow::Result<()> {
        let (client, mut connection) = self.connector.connect("listener").await?;
        let drive = async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(heard))) => {
                        self.hear(heard.channel(), heard.payload(), heard.process_id());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(anyhow::Error::from(error)),
                    None => bail!("the server closed the connection"),
                }
            }
        };
        tokio::select! {
            ended = drive => ended,
            ended = self.tend(&client, connected) => ended,
        }
    }

    /// Subscribes, then keeps asking: is the session alive, is this node on duty, which channels are wanted?
    async fn tend(&self, client: &Client, connected: &mut bool) -> anyhow::Result<()> {
        let setup = "set statement_timeout = '5s'; set idle_session_timeout = 0; listen \"rowbeat\"";
        in_time(client.batch_execute(setup)).await?;
        let listening = in_time(client.query("select pg_listening_channels()", &[])).await?;
        if listening.is_empty() {
            bail!(
                "LISTEN does not last on this connection (a pooler?): set database.listen_url to a direct one"
            );
        }
        *connected = true;
        tracing::debug!("listening");
        self.bell.set_listening(true);
        let wanted = in_time(client.prepare(query::text("channel.wanted"))).await?;
        let mut following = Following::default();
        let mut present = 0;
        loop {
            let node = self.node.load(Ordering::SeqCst);
            if node != present {
                in_time(client.query(query::text("node.present"), &[&node])).await?;
                present = node;
            }
            self.follow_channels(client, &wanted, &mut following).await?;
            self.health.passed(NAME, HEARTBEAT);
            self.bell.wait(super::doorbell::Topic::Channel, HEARTBEAT).await;
        }
    }

    /// Listens to the channels that become tasks while on duty, which is one node at a time, by a session lock; and to what plugins
    /// announce, where somebody is told of it.
    async fn follow_channels(
        &self,
        client: &Client,
        wanted: &Statement,
        following: &mut Following,
    ) -> anyhow::Result<()> {
        let told = self.ears.receiver_count() > 0;
        let Some(row) = in_time(client.query_opt(wanted, &[&told])).await? else { return Ok(()) };
        let set = |column: &str| row.get::<_, Vec<String>>(column).into_iter().collect::<BTreeSet<_>>();
        let (tasks, nothing) = (set("tasks"), set("nothing"));
        let wanted = &tasks | &set("announced");
        // First: what is heard from then on becomes tasks.
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        for gone in following.channels.difference(&wanted) {
            in_time(client.batch_execute(&format!("unlisten {}", quoted(gone)))).await?;
            self.tell(Ear::Unlistened(gone.clone()));
        }
        for new in wanted.difference(&following.channels) {
            in_time(client.batch_execute(&format!("listen {}", quoted(new)))).await?;
            tracing::info!(channel = new, "listening to channel");
            self.tell(Ear::Listening(new.clone()));
        }
        nothing.difference(&following.nothing).for_each(|said| self.tell(Ear::Nothing(said.clone())));
        *following = Following { channels: wanted, nothing };
        Ok(())
    }

    fn hear(&self, channel: &str, payload: &str, pid: i32) {
        let heard = Heard { channel: channel.to_owned(), payload: payload.to_owned(), pid };
        if channel == CHANNEL {
            self.bell.heard(payload);
        } else if self.tasks.lock().unwrap_or_else(PoisonError::into_inner).contains(channel)
            && self.heard.try_send(heard.clone()).is_err()
        {
            tracing::warn!(
                channel,
                "too many notifications at once; this one is dropped (a watch would keep it)"
            );
        }
        self.tell(Ear::Heard(heard));
    }

    fn tell(&self, ear: Ear) {
        // Nobody may be interested.
        let _ = self.ears.send(ear);
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(DEADLINE, answer).await;
    Ok(answer.context("no answer on the listening session")??)
}

/// An identifier for LISTEN, which takes no parameters.
fn quoted(channel: &str) -> String {
    format!("\"{}\"", channel.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_channel_name_stays_an_identifier() {
        assert_eq!(quoted(r#"a"; drop table x; --"#), r#""a""; drop table x; --""#);
    }
}
