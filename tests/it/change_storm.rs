//! A storm of changes: eight writers that commit, roll back and use savepoints, one transaction that is open all the time, and two
//! daemons that are killed at random. Every committed change becomes exactly one task per watch it concerns, none of the others does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio_postgres::Client;

use crate::harness::TestDb;

const WRITERS: i64 = 8;
const LENGTH: Duration = Duration::from_secs(6);

/// What was committed, as `<operation> <mark>`: each write leaves a mark of its own in its row.
type Committed = Vec<String>;

struct Writer {
    number: i64,
    rng: Rng,
    session: Client,
    next: i64,
    /// The ids and marks of its rows.
    rows: Vec<(i64, i64)>,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Committed {
        let mut committed = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let before = self.rows.clone();
            let count = self.rng.usize(1..5);
            self.session.batch_execute("begin").await.unwrap();
            let mut written = Vec::new();
            for _ in 0..count {
                let (rows, length) = (self.rows.clone(), written.len());
                let undone = self.rng.u32(0..5) == 0;
                if undone {
                    self.session.batch_execute("savepoint s").await.unwrap();
                }
                written.push(self.write().await);
                if undone {
                    self.session.batch_execute("rollback to s").await.unwrap();
                    self.rows = rows;
                    written.truncate(length);
                }
            }
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..15))).await;
            if self.rng.u32(0..4) == 0 {
                self.session.batch_execute("rollback").await.unwrap();
                self.rows = before;
            } else {
                self.session.batch_execute("commit").await.unwrap();
                committed.extend(written);
            }
        }
        committed
    }

    async fn write(&mut self) -> String {
        self.next += 1;
        let mark = self.number * 1_000_000 + self.next;
        let at = self.rng.usize(..self.rows.len() + 1);
        if at == self.rows.len() {
            self.session
                .execute("insert into public.orders (id, mark) values ($1, $1)", &[&mark])
                .await
                .unwrap();
            self.rows.push((mark, mark));
            format!("INSERT {mark}")
        } else if self.rng.bool() {
            let id = self.rows[at].0;
            self.session
                .execute("update public.orders set mark = $2 where id = $1", &[&id, &mark])
                .await
                .unwrap();
            self.rows[at].1 = mark;
            format!("UPDATE {mark}")
        } else {
            let (id, old) = self.rows.swap_remove(at);
            self.session.execute("delete from public.orders where id = $1", &[&id]).await.unwrap();
            format!("DELETE {old}")
        }
    }
}

/// How often each line comes.
fn counted(lines: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

fn same(watch: &str, made: &BTreeMap<String, usize>, expected: &BTreeMap<String, usize>) {
    let differing: Vec<_> = made
        .keys()
        .chain(expected.keys())
        .filter(|line| made.get(*line) != expected.get(*line))
        .take(10)
        .collect();
    assert!(
        differing.is_empty(),
        "{watch}: lost, doubled or made up: {differing:?} of {} and {}",
        made.len(),
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_committed_change_becomes_one_task_per_watch_whatever_is_killed() {
    let db = TestDb::new().await;
    db.run(
        "create table public.orders (id bigint primary key, mark bigint not null);
         create function public.nothing(payload jsonb) returns void language sql as 'select';
         insert into rowbeat.task_definition (name, executor, function) values ('nothing', 'sql', 'public.nothing');
         select rowbeat.watch('public.orders', 'nothing', p_name => 'all');
         select rowbeat.watch('public.orders', 'nothing', p_name => 'even', p_condition => 'coalesce(new.mark, old.mark) % 2 = 0');
         select rowbeat.watch('public.orders', 'nothing', p_name => 'grouped', p_grain => 'transaction',
             p_payload => $$change.operation || ' ' || coalesce(new.mark, old.mark)$$);",
    )
    .await;
    let seed = fastrand::u64(..1_000_000_000);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut daemons = vec![db.daemon(), db.daemon()];
    let open = db.session().await;
    open.batch_execute("begin; insert into public.orders values (1, 1)").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for number in 1..=WRITERS {
        let rng = Rng::with_seed(rng.u64(..));
        let writer = Writer { number, rng, session: db.session().await, next: 0, rows: Vec::new() };
        writers.push(tokio::spawn(writer.run(Arc::clone(&stop))));
    }
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < LENGTH {
        tokio::time::sleep(Duration::from_millis(rng.u64(200..900))).await;
        let victim = rng.usize(..daemons.len());
        daemons.swap_remove(victim).kill9();
        daemons.push(db.daemon());
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut committed = vec!["INSERT 1".to_owned(), "INSERT 2".to_owned()];
    for writer in writers {
        committed.extend(writer.await.unwrap());
    }
    open.batch_execute("insert into public.orders values (2, 2); commit").await.unwrap();
    assert!(
        kills > 2 && committed.len() > 100,
        "nothing happened: {kills} kills, {} changes",
        committed.len()
    );
    db.until(
        "not exists (select from rowbeat.consumers where waits_since is not null) and not exists (select from rowbeat.task)",
    )
    .await;
    let expected = counted(committed.iter().cloned());
    let lines = "select coalesce(array_agg(payload ->> 'operation' || ' ' || coalesce(payload -> 'new' ->> 'mark', payload -> 'old' ->> 'mark')), '{}')
        from rowbeat.tasks where cause ->> 'name' = $1";
    same("all", &counted(db.get_with::<Vec<String>>(lines, &[&"all"]).await), &expected);
    let even = committed.iter().filter(|line| line.ends_with(['0', '2', '4', '6', '8'])).cloned();
    same("even", &counted(db.get_with::<Vec<String>>(lines, &[&"even"]).await), &counted(even));
    let grouped = "select array_agg(c) from rowbeat.tasks t cross join jsonb_array_elements_text(t.payload -> 'changes') c where cause ->> 'name' = 'grouped'";
    same("grouped", &counted(db.get::<Vec<String>>(grouped).await), &expected);
    let transactions: bool = db.get("select count(*) = count(distinct payload ->> 'transaction') from rowbeat.tasks where cause ->> 'name' = 'grouped'").await;
    assert!(transactions, "a transaction is one task");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.watch_failure").await, 0);
}
