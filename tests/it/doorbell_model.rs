//! No wake-up is ever lost: every interleaving of sleepers and writers, played on real sessions.
//!
//! A sleeper asks for the lock, scans, sleeps, and scans again when a request that had to wait is granted; a writer inserts and commits. Whatever the order, what a sleeper's scan did not see
//! has told him so by a notification. A sleeper may also wake and give the lock back in between, while the other one sleeps on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_postgres::{AsyncMessage, Client};

use crate::harness::{PATIENCE, TestDb};

const LOCK: &str = "select pg_advisory_lock(1919907682, 1)";

/// One step of one of the players.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ask(usize),
    Scan(usize),
    Wake(usize),
    Insert(usize),
    Commit(usize),
}

/// All ways to mix these sequences, each kept in its order.
fn interleavings(players: &[Vec<Step>]) -> Vec<Vec<Step>> {
    if players.iter().all(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for player in (0..players.len()).filter(|player| !players[*player].is_empty()) {
        let mut rest = players.to_vec();
        let first = rest[player].remove(0);
        for mut tail in interleavings(&rest) {
            tail.insert(0, first);
            all.push(tail);
        }
    }
    all
}

struct Sleeper {
    guard: Arc<Client>,
    pid: i32,
    listener: Client,
    heard: Arc<Mutex<BTreeSet<i32>>>,
}

impl Sleeper {
    async fn new(db: &TestDb) -> Self {
        let guard = db.session().await;
        let pid = guard.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let (listener, mut connection) = db.connector.connect("test").await.unwrap();
        let heard = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(notification) = message {
                    noted.lock().unwrap().insert(notification.process_id());
                }
            }
        });
        listener.batch_execute("listen rowbeat").await.unwrap();
        Self { guard: Arc::new(guard), pid, listener, heard }
    }
}

/// The writers whose rows are visible now.
async fn scan(db: &TestDb) -> BTreeSet<i32> {
    let pids: Vec<i32> =
        db.get("select coalesce(array_agg((payload #>> '{}')::integer), '{}') from rowbeat.task").await;
    pids.into_iter().collect()
}

async fn is_granted(db: &TestDb, sleeper: &Sleeper) -> bool {
    let pid = sleeper.pid;
    db.get(&format!(
        "select exists (select from pg_locks where locktype = 'advisory' and pid = {pid} and granted)"
    ))
    .await
}

/// Plays one interleaving; which writers a sleeper neither saw nor heard.
async fn play(db: &TestDb, sleepers: &[Sleeper], writers: &[(Client, i32)], steps: &[Step]) -> Vec<String> {
    let mut requests: Vec<Option<tokio::task::JoinHandle<_>>> = sleepers.iter().map(|_| None).collect();
    let mut seen: Vec<Option<BTreeSet<i32>>> = sleepers.iter().map(|_| None).collect();
    let mut awake = BTreeSet::new();
    let mut pending = vec![false; sleepers.len()];
    for step in steps {
        match *step {
            Step::Ask(i) => {
                let guard = Arc::clone(&sleepers[i].guard);
                requests[i] = Some(tokio::spawn(async move { guard.batch_execute(LOCK).await }));
                let standing = format!(
                    "exists (select from pg_locks where locktype = 'advisory' and pid = {})",
                    sleepers[i].pid
                );
                let begun = Instant::now();
                while !db.get::<bool>(&format!("select {standing}")).await {
                    assert!(begun.elapsed() < PATIENCE);
                }
            }
            Step::Scan(i) => {
                sleepers[i].listener.batch_execute("select 1").await.unwrap();
                sleepers[i].heard.lock().unwrap().clear();
                seen[i] = Some(scan(db).await);
                pending[i] = !is_granted(db, &sleepers[i]).await;
            }
            Step::Wake(i) => {
                awake.insert(i);
                // Held or only asked for: given back either way, as a waking daemon does.
                if let Some(mut request) = requests[i].take() {
                    if tokio::time::timeout(Duration::from_millis(5), &mut request).await.is_err() {
                        db.run(&format!("select pg_cancel_backend({})", sleepers[i].pid)).await;
                        // It may have been granted just then.
                        let _ = request.await.unwrap();
                    }
                    sleepers[i].guard.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
                }
            }
            Step::Insert(i) => {
                let insert = format!(
                    "begin; insert into rowbeat.task (definition, payload) values ('add_effect', '{}')",
                    writers[i].1
                );
                writers[i].0.batch_execute(&insert).await.unwrap();
            }
            Step::Commit(i) => writers[i].0.batch_execute("commit").await.unwrap(),
        }
        for (i, sleeper) in sleepers.iter().enumerate() {
            if pending[i] && is_granted(db, sleeper).await {
                pending[i] = false;
                seen[i].get_or_insert_default().extend(scan(db).await);
            }
        }
    }
    let mut lost = Vec::new();
    for (i, sleeper) in sleepers.iter().enumerate().filter(|(i, _)| !awake.contains(i)) {
        sleeper.listener.batch_execute("select 1").await.unwrap();
        let (seen, heard) = (seen[i].take().unwrap(), sleeper.heard.lock().unwrap().clone());
        for (_, pid) in writers {
            if !seen.contains(pid) && !heard.contains(pid) {
                lost.push(format!("sleeper {i} knows nothing of writer {pid}: {steps:?}"));
            }
        }
        sleeper.guard.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    }
    for request in requests.into_iter().flatten() {
        request.await.unwrap().unwrap();
    }
    for sleeper in sleepers {
        sleeper.guard.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    }
    db.run("truncate rowbeat.task").await;
    lost
}

async fn play_all(players: &[Vec<Step>], sleepers: usize, writers: usize) -> usize {
    let db = TestDb::new().await.with_effects().await;
    let sleepers = futures_util::future::join_all((0..sleepers).map(|_| Sleeper::new(&db))).await;
    let mut sessions = Vec::new();
    for _ in 0..writers {
        let session = db.session().await;
        let pid = session.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        sessions.push((session, pid));
    }
    let all = interleavings(players);
    for steps in &all {
        let lost = play(&db, &sleepers, &sessions, steps).await;
        assert!(lost.is_empty(), "{lost:#?}");
    }
    all.len()
}

#[tokio::test]
async fn a_sleeper_sees_or_hears_of_every_writer_in_every_order() {
    let sleeper = vec![Step::Ask(0), Step::Scan(0)];
    let writer = |i| vec![Step::Insert(i), Step::Commit(i)];
    assert_eq!(play_all(&[sleeper, writer(0), writer(1)], 1, 2).await, 90);
}

#[tokio::test]
async fn a_sleeper_beside_one_that_wakes_misses_nothing() {
    let waking = vec![Step::Ask(0), Step::Scan(0), Step::Wake(0)];
    let sleeping = vec![Step::Ask(1), Step::Scan(1)];
    let writer = vec![Step::Insert(0), Step::Commit(0)];
    assert_eq!(play_all(&[waking, sleeping, writer], 2, 1).await, 210);
}
