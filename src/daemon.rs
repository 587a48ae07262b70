//! The daemon, from configuration to goodbye: reach the database, see to the schema, start the loops, announce, drain.
//!
//! A database that is away, restarting, failing over or read-only is waited for, at the start as at any time. What ends
//! the daemon is a configuration that cannot work, a schema that does not fit, or a signal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::RecyclingMethod;
use sd_notify::NotifyState;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backup::keeper::Keeper;
use crate::backup::mirror::{Mirror, Target};
use crate::change::router::Router;
use crate::channel;
use crate::config::Config;
use crate::db::connect::Connector;
use crate::db::doorbell::{self, Bell};
use crate::db::embedded::{EmbeddedError, Options, PrivatePostgres};
use crate::db::listener::{Ear, Listener};
use crate::db::migrate::MigrateError;
use crate::db::query::{Db, SESSION_SETUP};
use crate::executor::Executors;
use crate::executor::native::Handlers;
use crate::executor::sql::SqlExecutor;
use crate::plugin::serve::catalogue::{Catalogue, EndpointReader};
use crate::schedule::scheduler::Scheduler;
use crate::service::{Crew, Health, Services};
use crate::shutdown::{self, Shutdown};
use crate::status;
use crate::status::requests::Requests;
use crate::status::snapshot::Snapshots;
use crate::task::Node;
use crate::task::attempt::Runner;
use crate::task::completer::Completer;
use crate::task::cursor::Cursor;
use crate::task::dispatcher::{Alone, DefinitionReader, Dispatcher, Except};
use crate::task::host::HostLock;
use crate::task::node::{Canceller, Heartbeat, Leased, watch_lease};
use crate::task::pace::Pace;
use crate::task::pruner::Pruner;
use crate::task::rescuer::Rescuer;
use crate::task::running::{Running, StopReason};
use crate::task::store::Store;

mod backup;
mod database;
mod executors;
mod web;

/// Sessions for the daemon's own loops, beside those of sql tasks.
const OWN_SESSIONS: usize = 5;
/// After the drain time, attempts that were told to stop get this long to be recorded.
const RECORD_TIME: Duration = Duration::from_secs(5);
/// Services get this long to end; one that waits for an unreachable database is not waited for.
const END_TIME: Duration = Duration::from_secs(5);
/// A loop that is overdue by this hangs: no pass, complete or failed, should take as long.
const OVERDUE: Duration = Duration::from_secs(45);
/// Name of the database inside the private Postgres.
pub const PRIVATE_DATABASE: &str = "rowbeat";

/// Why the daemon gave up by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The schema does not fit this binary: somebody has to act.
    #[error(transparent)]
    Schema(#[from] MigrateError),
    /// The configuration cannot work on this machine.
    #[error("{0}")]
    Configuration(String),
    /// The private Postgres does not run.
    #[error(transparent)]
    PrivatePostgres(#[from] EmbeddedError),
}

/// What to tell the embedder when the daemon is up.
#[derive(Debug, Clone)]
pub struct Up {
    /// How to reach the database.
    pub connector: Connector,
    /// The psql line for the private Postgres, if it is one.
    pub psql: Option<String>,
    /// Where the status is served.
    pub http: Option<std::net::SocketAddr>,
}

/// A daemon to be run.
pub struct Daemon {
    config: Config,
    handlers: Handlers,
    private: Options,
    catalogue: Catalogue,
    ears: broadcast::Sender<Ear>,
    up: Option<tokio::sync::oneshot::Sender<Up>>,
}

impl Daemon {
    /// A daemon with this configuration and no Rust handlers.
    pub fn new(config: Config) -> Self {
        let private = Options::from(&config.private_postgres);
        Self {
            config,
            handlers: Handlers::new(),
            private,
            catalogue: Catalogue::default(),
            ears: broadcast::channel(1024).0,
            up: None,
        }
    }

    /// With handlers for `native` tasks.
    #[must_use]
    pub fn with_handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// With other options for the private Postgres.
    #[must_use]
    pub fn with_private_postgres(mut self, options: Options) -> Self {
        self.private = options;
        self
    }

    /// Tells once when it is up.
    #[must_use]
    pub fn when_up(mut self, up: tokio::sync::oneshot::Sender<Up>) -> Self {
        self.up = Some(up);
        self
    }

    /// Tells everything that the listening session hears.
    pub fn ears(&self) -> broadcast::Receiver<Ear> {
        self.ears.subscribe()
    }

    /// Runs until `shutdown` is asked for and what runs has ended.
    ///
    /// # Errors
    /// When the configuration cannot work or the schema does not fit; never because the database is away.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), DaemonError> {
        for warning in &self.config.warnings {
            tracing::warn!("{warning}");
        }
        let executors = executors::build(&self.config, self.handlers.clone())?;
        let targets = backup::targets(&self.config.backup)?;
        let http = match self.config.http.listen {
            Some(address) => Some(status::bind(address).await.map_err(|error| {
                DaemonError::Configuration(format!(
                    "http.listen {address}: {error}; choose another or \"off\""
                ))
            })?),
            None => None,
        };
        let mut private = match self.config.database {
            Some(_) => None,
            None => tokio::select! {
                started = database::start_private(self.private.clone()) => Some(started?),
                // Dropping the start stops the server.
                () = shutdown.drain.cancelled() => return Ok(()),
            },
        };
        let connector = match (&self.config.database, &private) {
            (Some(database), _) => {
                Connector::new(database).map_err(|error| DaemonError::Configuration(error.to_string()))?
            }
            (None, Some(private)) => private.connector(PRIVATE_DATABASE)?,
            (None, None) => unreachable!("without a database there is a private one"),
        };
        let up = Up {
            connector: connector.clone(),
            psql: private.as_ref().map(|private| private.psql_command(PRIVATE_DATABASE)),
            http: http.as_ref().and_then(|listener| listener.local_addr().ok()),
        };
        let health = Health::default();
        let snapshots = Arc::new(Snapshots {
            db: std::sync::OnceLock::new(),
            health: health.clone(),
            node: Node::default(),
            running: Running::default(),
            bell: Bell::default(),
            requests: Requests::default(),
            started: Instant::now(),
            limit: OVERDUE,
        });
        let stop = CancellationToken::new();
        let mut outer = Services::new(stop.clone(), health.clone());
        if let Some(listener) = http {
            let address = up.http.unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
            let catalogue = self.catalogue.clone();
            let more = web::more(&self.config, address, &connector, catalogue, Arc::clone(&snapshots));
            outer.spawn(status::serve(listener, Arc::clone(&snapshots), more, stop.clone()));
        }
        outer.spawn(shutdown::feed_watchdog(health.clone(), OVERDUE, stop.clone()));
        let ended = tokio::select! {
            reached = database::reach_schema(&connector, private.is_some()) => match reached {
                Ok(()) => {
                    let up = self.up.take().map(|sender| (sender, up));
                    self.work(connector, (executors, targets), snapshots, up, &mut private, &shutdown).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            () = shutdown.drain.cancelled() => Ok(()),
        };
        stop.cancel();
        outer.join(END_TIME).await;
        if let Some(private) = private {
            private.stop().await?;
        }
        ended
    }

    /// The daemon's life with a database: start the loops, announce, wait for the end, drain.
    async fn work(
        &self,
        connector: Connector,
        (executors, targets): (Executors, Vec<Target>),
        snapshots: Arc<Snapshots>,
        up: Option<(tokio::sync::oneshot::Sender<Up>, Up)>,
        private: &mut Option<PrivatePostgres>,
        shutdown: &Shutdown,
    ) {
        let poll = self.config.node.poll_interval;
        let (node, running, bell, health) = (
            snapshots.node.clone(),
            snapshots.running.clone(),
            snapshots.bell.clone(),
            snapshots.health.clone(),
        );
        let db = Db::new(connector.pool(OWN_SESSIONS, RecyclingMethod::Fast, SESSION_SETUP));
        // Set once: the daemon works with one database all its life.
        let _ = snapshots.db.set(db.clone());
        let tasks_pool = connector.pool(self.config.max_connections, RecyclingMethod::Fast, "");
        let store = Store::new(db.clone());
        let (completer, completing) = Completer::new(store.clone());
        let runner = Arc::new(Runner {
            store: store.clone(),
            completer,
            sql: SqlExecutor::new(tasks_pool, connector.clone()),
            executors,
        });
        let (heard, to_enqueue) = mpsc::channel(channel::BACKLOG);
        let listener = Listener::new(
            &connector,
            bell.clone(),
            health.clone(),
            heard,
            self.ears.clone(),
            node.incarnation(),
        );
        let crew = Crew::default();
        let (except, pace, alone) = (Except::default(), Arc::new(Pace::default()), Alone::default());

        // Lives until the drain is over: the lease must hold, cancellations be heard, completions be written.
        let last = CancellationToken::new();
        let mut lasting = Services::new(last.clone(), health.clone());
        lasting.spawn_loop(
            Heartbeat {
                db: db.clone(),
                node: node.clone(),
                name: self.config.node.name.clone(),
                queues: self.config.node.queues.clone(),
                host: self.host_lock(),
                except: except.clone(),
                pace: Arc::clone(&pace),
                isolated: alone.waiting(),
                bell: bell.clone(),
                last: None,
            },
            bell.clone(),
        );
        lasting.spawn(watch_lease(node.clone(), running.clone(), last.clone()));
        lasting.spawn_loop(
            Canceller { store: store.clone(), node: node.clone(), running: running.clone(), poll },
            bell.clone(),
        );
        if self.config.http.listen.is_some() {
            let catalogue = self.catalogue.clone();
            lasting.spawn_loop(EndpointReader { db: db.clone(), catalogue, poll }, bell.clone());
        }
        lasting.spawn(listener.run(last.clone()));
        lasting.spawn(doorbell::guard(connector.for_listen(), bell.clone(), last.clone()));
        lasting.spawn(channel::enqueue_heard(db.clone(), bell.clone(), to_enqueue));
        // Ends by itself when the last attempt has handed over its completion.
        let mut writing = Services::new(last.clone(), health.clone());
        writing.spawn(completing);

        // Takes new work: ends first.
        let mut taking = Services::new(shutdown.drain.clone(), health.clone());
        taking.spawn_loop(
            DefinitionReader {
                runner: Arc::clone(&runner),
                except: except.clone(),
                bell: bell.clone(),
                poll,
            },
            bell.clone(),
        );
        let router = Router::new(db.clone(), bell.clone(), poll);
        taking.spawn_loop(Leased { node: node.clone(), work: router }, bell.clone());
        let keeper = Keeper::new(db.clone(), bell.clone(), poll);
        taking.spawn_loop(Leased { node: node.clone(), work: keeper }, bell.clone());
        if !targets.is_empty() {
            taking.spawn_loop(
                Mirror { db: db.clone(), node: self.config.node.name.clone(), targets },
                bell.clone(),
            );
        }
        let scheduler = Scheduler::new(db.clone(), bell.clone(), poll);
        taking.spawn_loop(Leased { node: node.clone(), work: scheduler }, bell.clone());
        taking.spawn_loop(Rescuer { db: db.clone() }, bell.clone());
        taking.spawn_loop(Pruner { db: db.clone() }, bell.clone());
        taking.spawn_loop(
            Dispatcher {
                node: node.clone(),
                runner,
                crew: crew.clone(),
                running: running.clone(),
                bell: bell.clone(),
                concurrency: self.config.node.concurrency,
                slots: Arc::new(Semaphore::new(self.config.node.concurrency)),
                pace,
                drain: shutdown.drain.clone(),
                queues: self.config.node.queues.clone(),
                poll,
                except,
                hungry: Arc::default(),
                compare_at: Vec::new(),
                cursor: Cursor::new(Instant::now()),
                alone,
            },
            bell.clone(),
        );

        tracing::info!(
            database = connector.describe(),
            http = up.as_ref().and_then(|(_, up)| up.http).map(tracing::field::display),
            "started"
        );
        shutdown::tell(&[NotifyState::Ready, NotifyState::Status("working")]);
        if let Some((sender, up)) = up {
            // Whoever asked may be gone.
            let _ = sender.send(up);
        }
        database::keep_private(private, &shutdown.drain).await;

        tracing::info!(running = crew.len(), "stopping: no new work, waiting for what runs");
        shutdown::tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        taking.join(END_TIME).await;
        self.drain(&crew, &running, shutdown).await;
        writing.join(END_TIME).await;
        database::leave(&store, &db, &node).await;
        last.cancel();
        lasting.join(END_TIME).await;
        tracing::info!("stopped");
    }

    /// Waits for the attempts in flight, at most the drain time; then they are told to stop and are released.
    async fn drain(&self, crew: &Crew, running: &Running, shutdown: &Shutdown) {
        tokio::select! {
            () = crew.finished() => return,
            () = tokio::time::sleep(self.config.node.drain_timeout) => {}
            () = shutdown.now.cancelled() => {}
        }
        tracing::warn!(
            running = crew.len(),
            "the drain time is over; what still runs is interrupted and will run again"
        );
        running.stop_all(StopReason::Interrupted);
        if tokio::time::timeout(RECORD_TIME, crew.finished()).await.is_err() {
            tracing::warn!(
                running = crew.len(),
                "some attempts could not be recorded; other nodes will take them over"
            );
        }
    }

    /// Without it a restarted daemon waits for the lease of its last process, as the others do.
    fn host_lock(&self) -> Option<HostLock> {
        let folder = self.config.node.state_dir.as_ref()?;
        match HostLock::take(folder, &self.config.node.name) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "node.state_dir cannot be used: after a crash, tasks wait for the lease to run out");
                None
            }
        }
    }
}
