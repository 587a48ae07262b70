//! What a fire becomes: catch-up, overlap, jitter, days without fires, features, one shot; and the ledger that says why.

use std::time::Duration;

use rowbeat::db::doorbell::Bell;
use rowbeat::schedule::scheduler::Scheduler;
use rowbeat::service::{Loop, Pass};

use crate::harness::TestDb;

/// What the ledger says of a single fire that a scheduler found when it came.
const LATE: &str = "caught_up: late: no daemon ran at that time";

/// A scheduler that has just come, and whatever it finds to do.
async fn pass(db: &TestDb) {
    let mut scheduler = Scheduler::new(db.db(), Bell::default(), Duration::from_secs(1));
    while let Pass::Worked(_) = scheduler.run_once().await.unwrap() {}
}

/// A database in which sessions to come live later by so much.
async fn later(db: &TestDb, by: &str) {
    db.run(&format!(
        "alter database {} set rowbeat.clock_offset = '{by}'; set rowbeat.clock_offset = '{by}'",
        db.name
    ))
    .await;
}

/// The same, at a time of day.
async fn at(db: &TestDb, time: &str) {
    let by: String = db.get(&format!("select ('{time}'::timestamptz - clock_timestamp())::text")).await;
    later(db, &by).await;
}

/// The ledger of a schedule: decision and reason, oldest first.
async fn ledger(db: &TestDb, name: &str) -> Vec<String> {
    db.get_with(
        "select coalesce(array_agg(concat_ws(': ', f.decision, f.reason) order by f.nominal_at), '{}') from rowbeat.fire f where f.schedule = $1",
        &[&name],
    )
    .await
}

#[tokio::test]
async fn missed_fires_are_skipped_made_one_or_all_caught_up() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "select rowbeat.schedule('skip', 'every 10 minutes', 'add_effect', p_catch_up => 'skip');
         select rowbeat.schedule('last', 'every 10 minutes', 'add_effect');
         select rowbeat.schedule('young', 'every 10 minutes', 'add_effect', p_catch_up_window => '2 minutes');
         select rowbeat.schedule('all', 'every 10 minutes', 'add_effect', p_catch_up => 'all', p_catch_up_window => '40 minutes');",
    )
    .await;
    pass(&db).await;
    later(&db, "65 minutes").await;
    pass(&db).await;
    let missed = |choice: &str| format!("skipped: missed: no daemon ran at that time, and {choice}");
    assert_eq!(ledger(&db, "skip").await, vec![missed("catch_up is skip"); 6]);
    assert_eq!(ledger(&db, "young").await, vec![missed("catch_up is last"); 6]);
    let mut last = vec![missed("catch_up is last"); 5];
    last.push("caught_up: 5 earlier fires passed while no daemon ran".to_owned());
    assert_eq!(ledger(&db, "last").await, last);
    let all = ledger(&db, "all").await;
    assert_eq!(all[..2], vec![missed("it was older than catch_up_window"); 2]);
    assert_eq!(all[2], "caught_up: 2 earlier fires passed while no daemon ran");
    assert_eq!(all[3..], vec![LATE; 3]);
    let tasks = "select array_agg(n order by n) from (select cause ->> 'name' || count(*) as n from rowbeat.task group by cause ->> 'name') t";
    assert_eq!(db.get::<Vec<String>>(tasks).await, ["all4", "last1"]);
    later(&db, "70 minutes 1 second").await;
    pass(&db).await;
    assert_eq!(ledger(&db, "skip").await.len(), 7, "the grid stays");
}

#[tokio::test]
async fn a_daemon_that_looked_all_the_time_is_late_and_misses_nothing() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.schedule('s', 'every 1 second', 'add_effect', p_catch_up => 'skip')").await;
    let mut scheduler = Scheduler::new(db.db(), Bell::default(), Duration::from_secs(1));
    scheduler.run_once().await.unwrap();
    db.until("(select next_fire_at + interval '2 seconds' < now() from rowbeat.schedule)").await;
    scheduler.run_once().await.unwrap();
    let fired = ledger(&db, "s").await;
    assert!(fired.len() >= 3 && fired.iter().all(|fire| fire == "fired"), "{fired:?}");
}

#[tokio::test]
async fn a_fire_whose_earlier_task_lives_goes_beside_it_is_skipped_waits_or_replaces_it() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "select rowbeat.schedule(o, 'every 10 minutes', 'add_effect', p_overlap => o) from unnest('{allow,skip,queue,replace}'::text[]) o;
         select rowbeat.pause('add_effect')",
    )
    .await;
    pass(&db).await;
    for by in ["10 minutes 1 second", "20 minutes 1 second"] {
        later(&db, by).await;
        pass(&db).await;
    }
    let live = "select array_agg(t.cause ->> 'name' || ' ' || f.nth order by t.cause ->> 'name', f.nth) from rowbeat.task t
        join (select task_id, row_number() over (partition by schedule order by nominal_at) as nth from rowbeat.fire) f on f.task_id = t.id";
    assert_eq!(
        db.get::<Vec<String>>(live).await,
        ["allow 1", "allow 2", "queue 1", "queue 2", "replace 2", "skip 1"]
    );
    let skipped = ledger(&db, "skip").await;
    assert!(
        skipped[1].starts_with("skipped: task ")
            && skipped[1].ends_with("of an earlier fire lives, and overlap is skip"),
        "{skipped:?}"
    );
    let cancelled = "select cause ->> 'name' from rowbeat.tasks where state = 'cancelled'";
    assert_eq!(db.get::<String>(cancelled).await, "replace");
    let reason = "select detail from rowbeat.explain_schedule('skip') where reason = 'earlier task'";
    assert!(db.get::<String>(reason).await.ends_with("the next one is skipped"));
    // Once the earlier one has ended, the next one is an ordinary fire; an overlap that was edited counts the latest task.
    db.run(
        "select rowbeat.cancel(id) from rowbeat.task where cause ->> 'name' = 'skip';
         update rowbeat.schedule set overlap = 'skip' where name = 'allow'",
    )
    .await;
    later(&db, "30 minutes 1 second").await;
    pass(&db).await;
    assert_eq!(ledger(&db, "skip").await[2], LATE);
    assert!(ledger(&db, "allow").await[2].starts_with("skipped: task "));
}

#[tokio::test]
async fn a_running_task_is_replaced_and_the_new_one_starts_when_it_has_stopped() {
    let db = TestDb::new().await;
    db.run(
        "create table public.gate (opened boolean);
         create function public.hang(payload jsonb) returns void language plpgsql as $$ begin
             if not exists (select from public.gate) then perform pg_sleep(600); end if; end $$;
         insert into rowbeat.task_definition (name, executor, function, timeout) values ('hang', 'sql', 'public.hang', '1 hour');",
    )
    .await;
    let _daemon = db.daemon().ready().await;
    db.run("select rowbeat.schedule('s', 'every 3 seconds', 'hang', p_start_at => now(), p_overlap => 'replace')").await;
    db.until("exists (select from rowbeat.tasks where state = 'cancelled' and outcome = 'cancelled' and attempt = 1)").await;
    db.run("insert into public.gate values (true)").await;
    db.until("exists (select from rowbeat.tasks where state = 'completed')").await;
    let order = "select (select finished_at from rowbeat.tasks where state = 'cancelled' order by id limit 1)
        <= (select started_at from rowbeat.tasks where state = 'completed' order by id limit 1)";
    assert!(db.get::<bool>(order).await, "the new one waited until the earlier one had stopped");
}

#[tokio::test]
async fn queued_fires_run_one_after_the_other() {
    let db = TestDb::new().await;
    db.run(
        "create function public.slow(payload jsonb) returns void language plpgsql as $$ begin perform pg_sleep(0.3); end $$;
         insert into rowbeat.task_definition (name, executor, function) values ('slow', 'sql', 'public.slow');",
    )
    .await;
    db.run(
        "select rowbeat.schedule('s', 'every 1 minute', 'slow', p_overlap => 'queue', p_catch_up => 'all')",
    )
    .await;
    pass(&db).await;
    later(&db, "5 minutes 1 second").await;
    let _daemon = db.daemon().ready().await;
    db.until("(select count(*) = 5 from rowbeat.tasks where state = 'completed')").await;
    let overlapping = "select count(*) from rowbeat.tasks a join rowbeat.tasks b on b.id > a.id and b.started_at < a.finished_at";
    assert_eq!(db.get::<i64>(overlapping).await, 0);
    let nominal = "select array_agg(cause ->> 'nominal_at' order by started_at) = array_agg(cause ->> 'nominal_at' order by id) from rowbeat.tasks";
    assert!(db.get::<bool>(nominal).await);
}

#[tokio::test]
async fn jitter_moves_the_task_by_a_stable_amount_and_never_the_nominal_time() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.schedule('s' || n, '0 * * * *', 'add_effect', p_jitter => '10 minutes', p_start_at => now()) from generate_series(1, 40) n").await;
    pass(&db).await;
    later(&db, "1 hour").await;
    pass(&db).await;
    let minutes: Vec<f64> = db
        .get("select array_agg(extract(epoch from rowbeat.fire_jitter('s' || n, '2026-11-20 00:00Z', '10 minutes'))::float8 / 60) from generate_series(1, 400) n")
        .await;
    assert!(minutes.iter().all(|late| (0.0..10.0).contains(late)));
    let mean = minutes.iter().sum::<f64>() / 400.0;
    assert!((4.0..6.0).contains(&mean), "spread evenly: {mean}");
    let as_told = "select bool_and(t.run_at = greatest(f.fired_at, f.nominal_at + rowbeat.fire_jitter(f.schedule, f.nominal_at, '10 minutes'))
        and extract(minute from f.nominal_at) = 0) from rowbeat.fire f join rowbeat.task t on t.id = f.task_id";
    assert!(db.get::<bool>(as_told).await);
    let known = "select rowbeat.fire_jitter('nightly', '2026-11-20 02:00Z', '1 hour')::text";
    assert_eq!(db.get::<String>(known).await, db.get::<String>(known).await);
    assert_eq!(
        db.get::<String>(known).await,
        "00:00:59.365654",
        "the same on every server, in every version"
    );
    assert_eq!(db.refusal("update rowbeat.schedule set jitter = '-1 second'").await.0, "23514");
}

#[tokio::test]
async fn a_day_of_its_calendar_is_skipped_in_the_schedules_own_zone() {
    let db = TestDb::new().await.with_effects().await;
    at(&db, "2027-05-01 14:50:00Z").await;
    db.run(
        "insert into rowbeat.calendar (name) values ('holidays');
         insert into rowbeat.calendar_day (calendar, day, reason) values ('holidays', '2027-05-02', 'a feast');
         select rowbeat.schedule('tokyo', '@hourly', 'add_effect', p_time_zone => 'Asia/Tokyo', p_calendar => 'holidays');
         select rowbeat.schedule('paris', '@hourly', 'add_effect', p_time_zone => 'Europe/Paris', p_calendar => 'holidays');",
    )
    .await;
    pass(&db).await;
    let blocked = "select blocked from rowbeat.upcoming where name = $1";
    let feast = "2027-05-02 is a day of calendar holidays: a feast";
    assert_eq!(db.get_with::<Option<String>>(blocked, &[&"tokyo"]).await.as_deref(), Some(feast));
    assert_eq!(db.get_with::<Option<String>>(blocked, &[&"paris"]).await, None);
    let ahead =
        "select expected_at::text from rowbeat.explain_schedule('paris') where reason = 'black-out day'";
    assert_eq!(db.get::<String>(ahead).await, "2027-05-01 22:00:00+00");
    at(&db, "2027-05-01 15:00:00.5Z").await;
    pass(&db).await;
    assert_eq!(ledger(&db, "tokyo").await, [format!("skipped: {feast}")], "midnight of the 2nd");
    assert_eq!(ledger(&db, "paris").await.len(), 1, "five o'clock on the 1st");
    assert_eq!(db.get::<String>("select cause ->> 'name' from rowbeat.task").await, "paris");
    db.run("update rowbeat.calendar set name = 'feasts'").await;
    assert_eq!(db.refusal("delete from rowbeat.calendar").await.0, "23503");
}

#[tokio::test]
async fn a_missing_feature_skips_the_fire_and_the_ledger_says_which() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "insert into rowbeat.feature (name) values ('plain');
         select rowbeat.schedule('s', 'every 10 minutes', 'add_effect', p_requires => '{plain,premium}')",
    )
    .await;
    pass(&db).await;
    later(&db, "10 minutes 1 second").await;
    assert_eq!(
        db.get::<String>("select blocked from rowbeat.upcoming").await,
        "feature premium is not known: insert it into rowbeat.feature"
    );
    pass(&db).await;
    db.run("insert into rowbeat.feature (name, enabled) values ('premium', false)").await;
    later(&db, "20 minutes 1 second").await;
    pass(&db).await;
    db.run("update rowbeat.feature set enabled = true").await;
    later(&db, "30 minutes 1 second").await;
    pass(&db).await;
    let not_known = "skipped: feature premium is not known: insert it into rowbeat.feature";
    assert_eq!(ledger(&db, "s").await, [not_known, "skipped: feature premium is not enabled", LATE]);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 1);
}

#[tokio::test]
async fn a_schedule_waits_until_its_features_have_been_asked_for_the_first_time() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create function public.yes() returns boolean language sql as 'select true';
         create function public.no() returns boolean language sql as 'select false';
         insert into rowbeat.feature (name, condition) values ('bought', 'public.yes'), ('not_bought', 'public.no');
         select rowbeat.schedule('s', 'every 10 minutes', 'add_effect', p_requires => '{bought}'),
             rowbeat.schedule('t', 'every 10 minutes', 'add_effect', p_requires => '{not_bought}')",
    )
    .await;
    pass(&db).await;
    later(&db, "10 minutes 1 second").await;
    pass(&db).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.fire").await, 0, "nobody knows yet");
    db.run("select rowbeat.check_features()").await;
    pass(&db).await;
    assert_eq!(ledger(&db, "s").await, [LATE]);
    assert_eq!(ledger(&db, "t").await, ["skipped: feature not_bought is refused by public.no"]);
}

#[tokio::test]
async fn a_one_shot_schedule_disables_itself_after_the_fire_that_makes_a_task() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.schedule('s', 'every 10 minutes', 'add_effect', p_one_shot => true, p_catch_up => 'all', p_requires => '{f}', p_queue => 'special', p_priority => 7)").await;
    pass(&db).await;
    later(&db, "10 minutes 1 second").await;
    pass(&db).await;
    assert!(db.get::<bool>("select enabled from rowbeat.schedule").await, "a skipped one is no shot");
    db.run("insert into rowbeat.feature (name) values ('f')").await;
    later(&db, "45 minutes").await;
    pass(&db).await;
    assert_eq!(ledger(&db, "s").await.len(), 2, "the first of those that were missed");
    assert_eq!(db.get::<String>("select status from rowbeat.upcoming").await, "disabled");
    assert_eq!(db.get::<String>("select queue || priority from rowbeat.task").await, "special7");
    let told = "select detail from rowbeat.explain_schedule('s') where reason = 'disabled'";
    assert!(db.get::<String>(told).await.starts_with("its one fire was that of "));
    db.run("update rowbeat.schedule set enabled = true").await;
    later(&db, "56 minutes").await;
    pass(&db).await;
    let minutes = "select array_agg(round(extract(epoch from f.nominal_at - s.anchor) / 60)::integer order by f.nominal_at) from rowbeat.fire f, rowbeat.schedule s";
    assert_eq!(db.get::<Vec<i32>>(minutes).await, [10, 20, 50], "time spent disabled is not missed");
}

#[tokio::test]
async fn a_clock_that_steps_back_and_edits_meanwhile_repeat_nothing_and_skip_nothing() {
    let db = TestDb::new().await.with_effects().await;
    at(&db, "2027-05-01 12:00:30Z").await;
    db.run("select rowbeat.schedule('s', '* * * * *', 'add_effect', p_catch_up => 'all')").await;
    pass(&db).await;
    at(&db, "2027-05-01 12:03:20Z").await;
    pass(&db).await;
    let tasks = "select count(*) from rowbeat.task";
    assert_eq!(db.get::<i64>(tasks).await, 3);
    at(&db, "2027-05-01 12:01:20Z").await;
    pass(&db).await;
    db.run("update rowbeat.schedule set spec = '*/1 * * * *'").await;
    pass(&db).await;
    assert!(
        db.get::<bool>("select next_fire_at <= last_fire_at from rowbeat.schedule").await,
        "planned from now"
    );
    at(&db, "2027-05-01 12:03:20Z").await;
    pass(&db).await;
    assert_eq!(db.get::<i64>(tasks).await, 3, "they have fired already");
    at(&db, "2027-05-01 12:05:20Z").await;
    db.run("update rowbeat.schedule set payload = '{\"x\": 2}'").await;
    pass(&db).await;
    assert_eq!(db.get::<i64>(tasks).await, 5, "what is due is not moved by an edit of something else");
    assert!(db.get::<bool>("select count(distinct nominal_at) = 5 and max(nominal_at) - min(nominal_at) = '4 minutes' from rowbeat.fire").await);
}
