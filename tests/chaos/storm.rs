//! A whole run: clients and killer, then quiet, then the history and its judgement.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio_postgres::Client as Session;

use super::checker::{self, Violation};
use super::client::{Client, Log, Shared};
use super::history::{Ending, History, Sample};
use super::killer::Killer;
use super::{record, world};
use crate::harness::{Daemon, TestDb};

/// After the storm everything must have ended within this time.
const QUIET: Duration = Duration::from_secs(90);

/// What kind of run.
pub struct Storm {
    pub seconds: u64,
    pub seed: u64,
    pub clients: usize,
    pub daemons: usize,
    /// Whether there are tasks that kill their daemon, and daemons are stopped for longer than their lease.
    pub harsh: bool,
}

/// How it went.
pub struct Report {
    pub violations: Vec<Violation>,
    /// A table for people.
    pub table: String,
    /// The daemons' logs since their last start.
    pub logs: Vec<String>,
}

impl Storm {
    pub async fn rage(&self) -> Report {
        let db = TestDb::new().await;
        db.run(world::sql()).await;
        let shared = Shared::new(self.harsh);
        let mut seeds = Rng::with_seed(self.seed);
        let killer = Killer {
            db: &db,
            session: db.session().await,
            rng: seeds.fork(),
            daemons: self.daemons,
            shared: Arc::clone(&shared),
            done: BTreeMap::new(),
            names: vec![0; self.daemons],
        };
        let mut clients = Vec::new();
        for number in 0..self.clients {
            let (session, rng) = (db.session().await, seeds.fork());
            let client = Client { number, rng, session, shared: Arc::clone(&shared), log: Log::default() };
            clients.push(tokio::spawn(client.run()));
        }
        let sampler = tokio::spawn(look(db.session().await, Arc::clone(&shared)));
        let raging = async {
            tokio::time::sleep(Duration::from_secs(self.seconds)).await;
            shared.stop.store(true, Ordering::Relaxed);
            let mut log = Log::default();
            for client in clients {
                merge(&mut log, client.await.unwrap());
            }
            remove_poison(&db).await;
            shared.over.store(true, Ordering::Relaxed);
            log
        };
        let ((daemons, struck), mut log) = tokio::join!(killer.run(), raging);
        let seen = sampler.await.unwrap();
        let (quiet, trusted) = settle(&db, &daemons).await;
        let logs = stop(daemons).await;
        let operations = (log.operations, std::mem::take(&mut log.refused));
        let history = history(&db.session().await, log, seen.samples.clone()).await;
        let violations = checker::check(&history, &world::rules());
        let mut table = self.table(&history, operations, &struck, &seen);
        let _ = writeln!(table, "{trusted:>8}  quarantined, then trusted");
        let _ = writeln!(table, "{:>8.1}  seconds until all had ended", quiet.as_secs_f32());
        let _ = writeln!(table, "{:>8}  violations", violations.len());
        Report { violations, table, logs }
    }

    fn table(
        &self,
        history: &History,
        (operations, refused): (usize, BTreeMap<String, usize>),
        struck: &BTreeMap<&'static str, usize>,
        seen: &Seen,
    ) -> String {
        let endings = |wanted: fn(&Ending) -> bool| history.endings.values().filter(|e| wanted(e)).count();
        let tasks: HashSet<i64> = history.enqueued.iter().map(|e| e.task).collect();
        let keys: HashSet<&String> = history.enqueued.iter().filter_map(|e| e.serial_key.as_ref()).collect();
        let serial: HashSet<i64> =
            history.enqueued.iter().filter(|e| e.serial_key.is_some()).map(|e| e.task).collect();
        let mut rows: Vec<(String, usize)> = vec![
            ("seed".into(), usize::try_from(self.seed).unwrap_or(0)),
            ("clients".into(), self.clients),
            ("operations".into(), operations),
            ("tasks".into(), tasks.len()),
            ("  of them with a serial key".into(), serial.len()),
            ("  serial keys".into(), keys.len()),
            ("  completed".into(), endings(|e| matches!(e, Ending::Completed(_)))),
            ("  failed".into(), endings(|e| *e == Ending::Failed)),
            ("  cancelled".into(), endings(|e| *e == Ending::Cancelled)),
            ("  live".into(), endings(|e| matches!(e, Ending::Live(_)))),
            ("  brought back".into(), history.retried.len()),
            ("effects".into(), history.effects.len()),
            (
                "effects per second of the storm".into(),
                history.effects.len() / usize::try_from(self.seconds.max(1)).unwrap(),
            ),
            ("attempts on record".into(), history.runs.len()),
        ];
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &history.runs {
            *outcomes.entry(&run.outcome).or_default() += 1;
        }
        rows.extend(outcomes.into_iter().map(|(outcome, count)| (format!("  {outcome}"), count)));
        rows.extend(struck.iter().map(|(what, count)| (format!("daemons {what}"), *count)));
        rows.extend(refused.into_iter().map(|(refusal, count)| {
            (format!("refused: {}", refusal.chars().take(70).collect::<String>()), count)
        }));
        rows.push(("pauses".into(), history.pauses.len()));
        rows.push(("looks at what runs".into(), seen.looks));
        rows.extend(seen.suspects.iter().map(|(what, tasks)| (format!("{what} after deaths"), tasks.len())));
        rows.iter().fold(String::new(), |mut table, (name, value)| {
            let _ = writeln!(table, "{value:>8}  {name}");
            table
        })
    }
}

/// What the looks at the task table have shown.
#[derive(Default)]
struct Seen {
    looks: usize,
    samples: Vec<Sample>,
    /// Isolated and quarantined tasks.
    suspects: BTreeMap<String, BTreeSet<i64>>,
}

/// Looks at what runs, again and again.
async fn look(session: Session, shared: Arc<Shared>) -> Seen {
    let mut seen = Seen::default();
    let limited = world::rules().concurrency;
    while !shared.over.load(Ordering::Relaxed) {
        let look = record::look(&session).await.unwrap();
        seen.looks += 1;
        seen.samples.extend(look.running.into_iter().filter(|s| limited.contains_key(&s.scope)));
        for (what, task) in look.suspects {
            seen.suspects.entry(what).or_default().insert(task);
        }
        *shared.backlog.lock().unwrap() = look.backlog.into_iter().collect();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    seen
}

/// Cancels what would go on killing daemons, for as long as there is any.
async fn remove_poison(db: &TestDb) {
    let begun = Instant::now();
    let live = "select exists (select from rowbeat.task where definition = 'poison')";
    while begun.elapsed() < QUIET && db.get::<bool>(live).await {
        db.run("select rowbeat.cancel(id) from rowbeat.task where definition = 'poison'").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn merge(log: &mut Log, other: Log) {
    log.operations += other.operations;
    log.enqueued.extend(other.enqueued);
    log.told.extend(other.told);
    log.retried.extend(other.retried);
    log.pauses.extend(other.pauses);
    log.runs.extend(other.runs);
    for (state, count) in other.refused {
        *log.refused.entry(state).or_default() += count;
    }
}

/// Waits until everything has ended; quarantined tasks are trusted again. How long it took, and how many those were.
async fn settle(db: &TestDb, daemons: &[Daemon]) -> (Duration, usize) {
    let begun = Instant::now();
    let mut trusted = BTreeSet::new();
    while begun.elapsed() < QUIET && db.get::<bool>("select exists (select from rowbeat.task)").await {
        let quarantined: Vec<i64> = db
            .get("select coalesce(array_agg(rowbeat.run_now(id)), '{}') from rowbeat.task where parked = 'quarantined'")
            .await;
        trusted.extend(quarantined);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!daemons.is_empty(), "somebody must do the work");
    (begun.elapsed(), trusted.len())
}

async fn stop(daemons: Vec<Daemon>) -> Vec<String> {
    let mut logs = Vec::new();
    for daemon in daemons {
        let (status, log) = daemon.stop().await;
        assert!(status.success(), "a daemon that was asked to stop ended with {status}\n{log}");
        logs.push(log);
    }
    logs
}

async fn history(session: &Session, log: Log, samples: Vec<Sample>) -> History {
    let mut runs = record::runs_of_finished(session, None).await.unwrap();
    runs.extend(record::other_runs(session).await.unwrap());
    let known: HashSet<(i64, i32)> = runs.iter().map(|run| (run.task, run.attempt)).collect();
    let mut gone = log.runs;
    // Two clients may have looked at the same one before it was brought back.
    gone.sort_by_key(|run| (run.task, run.attempt));
    gone.dedup_by_key(|run| (run.task, run.attempt));
    runs.extend(gone.into_iter().filter(|run| !known.contains(&(run.task, run.attempt))));
    History {
        enqueued: log.enqueued,
        runs,
        effects: record::effects(session).await.unwrap(),
        endings: record::endings(session).await.unwrap(),
        samples,
        pauses: log.pauses,
        told: log.told,
        retried: log.retried.into_iter().collect(),
    }
}
