//! What holds tasks back: limits, serial keys, pauses, features; and that nothing held back is in the way of the rest.

use rowbeat::task::store::{Claim, Store};
use rowbeat::task::{ClaimedTask, Outcome};
use serde_json::{Value, json};

use crate::harness::TestDb;

/// A worker that the test plays itself.
struct Worker {
    store: Store,
    node: i64,
}

impl Worker {
    async fn new(db: &TestDb) -> Self {
        let node = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
        Self { store: Store::new(db.db()), node }
    }

    async fn claim(&self, limit: i32) -> Vec<ClaimedTask> {
        let queues = ["*".to_owned()];
        let claim =
            Claim { node: self.node, limit, begin: limit, queues: &queues, except: &[], places: None };
        self.store.claim(claim).await.unwrap()
    }

    async fn ids(&self, limit: i32) -> Vec<i64> {
        self.claim(limit).await.into_iter().map(|task| task.id).collect()
    }

    async fn end(&self, task: &ClaimedTask, outcome: Outcome) {
        self.store.end_attempt(task, &outcome).await.unwrap();
    }
}

fn done() -> Outcome {
    Outcome::Done(Value::Null)
}

async fn with_tasks(sql: &str) -> (TestDb, Worker) {
    let db = TestDb::new().await.with_effects().await;
    db.run(sql).await;
    let worker = Worker::new(&db).await;
    (db, worker)
}

/// Why a task does not run, the reasons alone.
async fn reasons(db: &TestDb, id: i64) -> Vec<String> {
    db.get(&format!("select array_agg(reason) from rowbeat.explain_task({id})")).await
}

#[tokio::test]
async fn a_concurrency_limit_holds_and_a_freed_place_is_taken() {
    let (db, worker) = with_tasks(
        "update rowbeat.task_definition set concurrency = 2;
         insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 5)",
    )
    .await;
    let first = worker.claim(10).await;
    assert_eq!(first.iter().map(|task| task.id).collect::<Vec<_>>(), [1, 2]);
    assert!(worker.ids(10).await.is_empty());
    assert_eq!(reasons(&db, 3).await[0], "concurrency limit");
    let detail: String =
        db.get("select detail from rowbeat.explain_task(3) where reason = 'concurrency limit'").await;
    assert!(detail.contains("tasks 1, 2"), "{detail}");
    worker.end(&first[0], done()).await;
    assert_eq!(worker.ids(10).await, [3]);
    // A retried task gives its place back, too.
    worker.end(&first[1], Outcome::Failed(json!({ "message": "no" }), None)).await;
    assert_eq!(worker.ids(10).await, [4]);
}

#[tokio::test]
async fn a_limit_that_is_lowered_or_set_counts_what_runs() {
    let (db, worker) =
        with_tasks("insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 12)")
            .await;
    let running = worker.claim(4).await;
    db.run("update rowbeat.task_definition set concurrency = 6").await;
    let more = worker.claim(12).await;
    assert_eq!(more.len(), 2, "four ran already");
    db.run("update rowbeat.task_definition set concurrency = 3").await;
    for (ended, task) in running.iter().chain(&more).enumerate() {
        assert!(worker.ids(1).await.is_empty(), "{} still run", 6 - ended);
        worker.end(task, done()).await;
        if ended >= 3 {
            break;
        }
    }
    assert_eq!(worker.ids(12).await.len(), 1, "two ran, three may");
    db.run("update rowbeat.task_definition set concurrency = 5").await;
    assert_eq!(worker.ids(12).await.len(), 2);
    db.run("update rowbeat.task_definition set concurrency = null").await;
    assert_eq!(worker.ids(12).await.len(), 3);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.limit_slot").await, 0);
}

#[tokio::test]
async fn a_limit_is_never_exceeded_by_many_claimers_at_once() {
    let (db, _) = with_tasks(
        "update rowbeat.task_definition set concurrency = 3;
         insert into rowbeat.queue (name, concurrency) values ('narrow', 2);
         insert into rowbeat.task (definition, queue)
         select 'add_effect', case g % 2 when 0 then 'narrow' else 'wide' end from generate_series(1, 300) g",
    )
    .await;
    let workers: Vec<_> = futures_util::future::join_all((0..4).map(|_| Worker::new(&db))).await;
    let most = "select coalesce(max(n), 0)::integer from (select count(*) as n from rowbeat.task where state = 'running'
                union all select count(*) + 1 from rowbeat.task where state = 'running' and queue = 'narrow') r";
    let watch = async {
        let mut most_seen = 0;
        while db.get::<bool>("select exists (select from rowbeat.task)").await {
            most_seen = most_seen.max(db.get::<i32>(most).await);
        }
        most_seen
    };
    let work = futures_util::future::join_all(workers.iter().map(async |worker| {
        while db.get::<bool>("select exists (select from rowbeat.task)").await {
            for task in worker.claim(2).await {
                worker.end(&task, done()).await;
            }
        }
    }));
    let (most_seen, _) = futures_util::future::join(watch, work).await;
    assert!(most_seen <= 3, "{most_seen} at once");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks where state = 'completed'").await, 300);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.limit_slot where task_id is not null").await, 0);
}

#[tokio::test]
async fn a_rate_holds_in_every_window_and_is_waited_for() {
    let (db, worker) = with_tasks(
        "update rowbeat.task_definition set rate = 2, rate_period = '10 seconds';
         insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 5)",
    )
    .await;
    let first = worker.claim(5).await;
    assert_eq!(first.len(), 2);
    for task in &first {
        worker.end(task, done()).await;
    }
    assert!(worker.ids(5).await.is_empty(), "ended ones count as well");
    assert_eq!(reasons(&db, 3).await[0], "rate limit");
    let due = worker.store.next_due(&["*".to_owned()], &[]).await.unwrap().unwrap();
    assert!((5_000..=10_000).contains(&due), "{due}");
    db.run("update rowbeat.limit_slot set free_at = now() where n = 1").await;
    assert_eq!(worker.ids(5).await, [3]);
}

#[tokio::test]
async fn a_queue_limit_holds_for_all_its_definitions_together() {
    let (db, worker) = with_tasks(
        "insert into rowbeat.task_definition (name, executor, function) values ('other', 'sql', 'public.add_effect');
         insert into rowbeat.queue (name, concurrency) values ('default', 3);
         insert into rowbeat.task (definition) select d from generate_series(1, 3), unnest('{add_effect,other}'::text[]) d;
         insert into rowbeat.task (definition, queue) values ('other', 'free')",
    )
    .await;
    assert_eq!(worker.claim(10).await.len(), 4);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.task where state = 'running' and queue = 'default'")
            .await,
        3
    );
}

#[tokio::test]
async fn tasks_with_a_serial_key_run_one_at_a_time_in_order() {
    let (db, worker) = with_tasks(
        "insert into rowbeat.task_definition (name, executor, function) values ('other', 'sql', 'public.add_effect');
         insert into rowbeat.task (definition, serial_key) values
             ('add_effect', 'a'), ('other', 'a'), ('add_effect', 'b'), ('add_effect', 'a'), ('add_effect', null)",
    )
    .await;
    let first = worker.claim(10).await;
    assert_eq!(first.iter().map(|task| task.id).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(reasons(&db, 4).await[0], "serial key");
    // A task that is retried keeps its turn.
    worker.end(&first[0], Outcome::Failed(json!({ "message": "no" }), None)).await;
    assert!(worker.ids(10).await.is_empty());
    db.run("select rowbeat.run_now(1)").await;
    let again = worker.claim(10).await;
    assert_eq!(again[0].id, 1);
    worker.end(&again[0], Outcome::Rejected(json!({ "message": "never" }))).await;
    let second = worker.claim(10).await;
    assert_eq!(second[0].id, 2);
    // The turn passes over one that was cancelled meanwhile, to one that came later.
    db.run(
        "select rowbeat.cancel(4); insert into rowbeat.task (definition, serial_key) values ('other', 'a')",
    )
    .await;
    assert!(worker.ids(10).await.is_empty());
    worker.end(&second[0], done()).await;
    assert_eq!(worker.ids(10).await, [6]);
}

#[tokio::test]
async fn a_turn_is_never_lost_whatever_the_order_of_commits() {
    let (db, worker) = with_tasks("select 1").await;
    let (early, late, canceller) = (db.session().await, db.session().await, db.session().await);
    let insert = "begin; insert into rowbeat.task (definition, serial_key) values ('add_effect', 'k')";
    early.batch_execute(insert).await.unwrap();
    late.batch_execute(&format!("{insert}; commit")).await.unwrap();
    let second = worker.claim(10).await;
    assert_eq!(second[0].id, 2, "the first is not committed");
    early.batch_execute("commit").await.unwrap();
    db.run("insert into rowbeat.task (definition, serial_key) select 'add_effect', 'k' from generate_series(1, 2)").await;
    assert!(worker.ids(10).await.is_empty());
    // The next in turn is locked by somebody who cancels it, and changes his mind.
    canceller.batch_execute("begin; select rowbeat.cancel(1)").await.unwrap();
    worker.end(&second[0], done()).await;
    assert!(worker.ids(10).await.is_empty(), "nobody overtakes it");
    canceller.batch_execute("rollback").await.unwrap();
    let first = worker.claim(10).await;
    assert_eq!(first[0].id, 1);
    // The same, and he means it.
    canceller.batch_execute("begin; select rowbeat.cancel(3)").await.unwrap();
    worker.end(&first[0], done()).await;
    canceller.batch_execute("commit").await.unwrap();
    let last = worker.claim(10).await;
    assert_eq!(last[0].id, 4);
    worker.end(&last[0], done()).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.serial_lock").await, 0);
}

#[tokio::test]
async fn an_arrival_that_somebody_holds_locked_is_not_overtaken_and_is_looked_at_again() {
    let (db, worker) = with_tasks(
        "insert into rowbeat.task (definition, serial_key) values ('add_effect', 'k'), ('add_effect', 'k'), ('add_effect', 'l')",
    )
    .await;
    let canceller = db.session().await;
    canceller.batch_execute("begin; select rowbeat.cancel(1)").await.unwrap();
    assert_eq!(worker.ids(10).await, [3]);
    let soon = worker.store.next_due(&["*".to_owned()], &[]).await.unwrap();
    assert_eq!(soon, Some(200));
    canceller.batch_execute("rollback").await.unwrap();
    assert_eq!(worker.ids(10).await, [1]);
}

#[tokio::test]
async fn a_paused_definition_or_queue_starts_nothing() {
    let (db, worker) = with_tasks(
        "insert into rowbeat.task (definition, queue) values ('add_effect', 'x'), ('add_effect', 'y');
         select rowbeat.pause(p_queue => 'x'), rowbeat.pause(p_queue => 'unused')",
    )
    .await;
    assert_eq!(reasons(&db, 1).await[0], "paused");
    assert_eq!(worker.ids(10).await, [2]);
    db.run("select rowbeat.resume(p_queue => 'x'), rowbeat.pause(p_definition => 'add_effect')").await;
    assert!(worker.ids(10).await.is_empty());
    let paused: Value = db.get("select to_jsonb(q) from rowbeat.queues q where queue = 'unused'").await;
    assert!(!paused["paused_at"].is_null(), "{paused}");
    db.run("select rowbeat.resume('add_effect')").await;
    assert_eq!(worker.ids(10).await, [1]);
    assert_eq!(db.refusal("select rowbeat.pause('typo')").await.0, "RB001");
    assert_eq!(db.refusal("select rowbeat.pause()").await.0, "22023");
}

#[tokio::test]
async fn a_missing_feature_holds_its_definitions_back() {
    let (db, worker) = with_tasks(
        "create function public.licensed() returns boolean language sql as $$ select exists (select from public.effect) $$;
         create function public.broken() returns boolean language sql as $$ select 1 / 0 = 1 $$;
         update rowbeat.task_definition set requires = '{billing}';
         insert into rowbeat.task (definition) values ('add_effect')",
    )
    .await;
    assert!(worker.ids(10).await.is_empty());
    assert_eq!(reasons(&db, 1).await[0], "missing feature");
    db.run("insert into rowbeat.feature (name, condition) values ('billing', 'public.licensed'); select rowbeat.check_features()").await;
    assert!(worker.ids(10).await.is_empty());
    db.run("insert into public.effect (x) values (1); select rowbeat.check_features()").await;
    assert_eq!(worker.ids(10).await, [1]);
    db.run(
        "update rowbeat.feature set condition = 'public.broken'; select rowbeat.check_features();
            insert into rowbeat.task (definition) values ('add_effect')",
    )
    .await;
    assert!(worker.ids(10).await.is_empty());
    let detail: String = db.get("select detail from rowbeat.explain_task(2) limit 1").await;
    assert!(detail.contains("division by zero"), "{detail}");
}

#[tokio::test]
async fn what_is_held_back_is_not_walked_over() {
    let (db, worker) = with_tasks(
        "insert into rowbeat.task_definition (name, executor, function, concurrency, paused_at) values
             ('paused', 'sql', 'f', null, now()), ('full', 'sql', 'f', 1, null);
         insert into rowbeat.task (definition, priority, run_at)
             select 'add_effect', 1, now() + interval '1 day' from generate_series(1, 20000);
         insert into rowbeat.task (definition, priority) select 'paused', 1 from generate_series(1, 20000);
         insert into rowbeat.task (definition, priority) select 'full', 1 from generate_series(1, 20000);
         insert into rowbeat.task (definition, priority, serial_key) select 'add_effect', 1, 'k' from generate_series(1, 900);
         insert into rowbeat.task (definition) select 'add_effect' from generate_series(1, 10)",
    )
    .await;
    db.run("analyze rowbeat.task").await;
    assert_eq!(worker.claim(100).await.len(), 12, "ten, the first of the full, the first of the key");
    // The first look clears dead index entries, and a session's first use reads the catalogue.
    let claim = format!("select * from rowbeat.claim_tasks({}, 10, 10, '{{*}}', '{{}}', null)", worker.node);
    db.run(&claim).await;
    // Nor can they be cleared while the server itself analyzes the table.
    let mut buffers = i64::MAX;
    for _ in 0..20 {
        db.run("insert into rowbeat.task (definition) values ('add_effect')").await;
        let plan: Value = db.get(&format!("explain (analyze, buffers, format json) {claim}")).await;
        let of = |key: &str| plan[0]["Plan"][key].as_i64().unwrap();
        buffers = of("Shared Hit Blocks") + of("Shared Read Blocks");
        if buffers < 300 {
            return;
        }
        db.until("not exists (select from pg_stat_activity where backend_type = 'autovacuum worker' and datname = current_database())").await;
    }
    panic!("{buffers} pages for one task");
}

#[tokio::test]
async fn a_claim_waits_for_the_disk_when_limits_or_turns_of_tasks_that_are_not_sql_are_in_it() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "insert into rowbeat.task_definition (name, executor, function, concurrency) values ('limited', 'sql', 'public.add_effect', 2);
         insert into rowbeat.task_definition (name, executor) values ('asks', 'native');",
    )
    .await;
    let node: i64 = db.get("select rowbeat.register_node('test', '0', 1, '1 hour', null, '{*}')").await;
    for (definition, serial_key, waits) in [
        ("add_effect", "null", "off"),
        ("add_effect", "'k'", "off"),
        ("asks", "null", "off"),
        ("asks", "'k'", "on"),
        ("limited", "null", "on"),
    ] {
        db.run(&format!(
            "insert into rowbeat.task (definition, serial_key) values ('{definition}', {serial_key}); begin"
        ))
        .await;
        let claimed: i64 = db
            .get(&format!("select count(*) from rowbeat.claim_tasks({node}, 10, 10, '{{*}}', '{{}}', null)"))
            .await;
        let setting: String = db.get("select current_setting('synchronous_commit')").await;
        assert_eq!((claimed, setting.as_str()), (1, waits), "{definition} {serial_key}");
        db.run("rollback; delete from rowbeat.task; delete from rowbeat.serial_lock").await;
    }
}
