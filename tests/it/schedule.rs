//! Schedules: planned, fired once, caught up, edited.

use std::time::Duration;

use rowbeat::db::doorbell::Bell;
use rowbeat::schedule::scheduler::Scheduler;
use rowbeat::service::{Loop, Pass};

use crate::harness::TestDb;

fn scheduler(db: &TestDb) -> Scheduler {
    Scheduler::new(db.db(), Bell::default(), Duration::from_secs(1))
}

async fn pass(scheduler: &mut Scheduler) -> Duration {
    loop {
        if let Pass::Idle(pause) = scheduler.run_once().await.unwrap() {
            return pause;
        }
    }
}

#[tokio::test]
async fn every_cron_and_at_rows_each_become_completed_tasks() {
    let db = TestDb::new().await.with_effects().await;
    let _daemon = db.daemon().ready().await;
    db.run(
        "insert into rowbeat.schedule (name, definition, spec, payload) values
             ('interval', 'add_effect', 'every 1 second', '{\"x\": 1}'), ('seconds', 'add_effect', '* * * * * *', '{\"x\": 2}');
         insert into rowbeat.schedule (name, definition, spec, payload, time_zone)
             values ('once', 'add_effect', 'at ' || to_char(now() at time zone 'Asia/Tokyo' + interval '1 s', 'YYYY-MM-DD HH24:MI:SS'), '{\"x\": 3}', 'Asia/Tokyo'),
                    ('nightly', 'add_effect', '0 3 * * *', '{}', 'Europe/Paris');",
    )
    .await;
    db.until("select count(distinct cause ->> 'name') = 3 from rowbeat.tasks where state = 'completed'")
        .await;
    db.until("select status = 'no more fires' from rowbeat.upcoming where name = 'once'").await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.fire where schedule = 'once'").await, 1);
    assert_eq!(
        db.get::<String>("select next_fire_local from rowbeat.upcoming where name = 'nightly'").await[11..],
        *"03:00:00"
    );
}

#[tokio::test]
async fn any_number_of_schedulers_fire_a_nominal_time_once() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.schedule('s', 'every 1 second', 'add_effect')").await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut scheduler = scheduler(&db);
        others.push(tokio::spawn(async move {
            let until = tokio::time::Instant::now() + Duration::from_millis(3500);
            while tokio::time::Instant::now() < until {
                scheduler.run_once().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    for other in others {
        other.await.unwrap();
    }
    let (fires, tasks): (i64, i64) = (
        db.get("select count(*) from rowbeat.fire").await,
        db.get("select count(*) from rowbeat.task").await,
    );
    assert!(fires >= 3, "{fires}");
    assert_eq!(fires, tasks);
    let gaps: i64 = db.get("select count(*) from (select nominal_at - lag(nominal_at) over (order by nominal_at) as gap from rowbeat.fire) g where gap <> '1 s'").await;
    assert_eq!(gaps, 0, "the grid has no hole");
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.fire where fired_at < nominal_at").await,
        0,
        "never early"
    );
}

#[tokio::test]
async fn fires_missed_while_no_daemon_ran_become_one_and_the_ledger_says_so() {
    let db = TestDb::new().await.with_effects().await;
    let mut scheduler = scheduler(&db);
    db.run("select rowbeat.schedule('s', 'every 10 minutes', 'add_effect')").await;
    pass(&mut scheduler).await;
    db.run(&format!("alter database {} set rowbeat.clock_offset = '65 minutes'", db.name)).await;
    let mut later = self::scheduler(&db);
    pass(&mut later).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 1);
    assert_eq!(
        db.get::<String>("select decision || ': ' || reason from rowbeat.fire where task_id is not null")
            .await,
        "caught_up: 5 earlier fires passed while no daemon ran"
    );
    let next: f64 =
        db.get("select extract(epoch from next_fire_at - last_fire_at)::float8 from rowbeat.schedule").await;
    assert!((next - 600.0).abs() < 0.001, "{next}");
}

#[tokio::test]
async fn an_edit_replans_from_now_and_other_edits_move_nothing() {
    let db = TestDb::new().await.with_effects().await;
    let mut scheduler = scheduler(&db);
    db.run("select rowbeat.schedule('s', 'every 1 hour', 'add_effect')").await;
    assert_eq!(db.get::<String>("select status from rowbeat.upcoming").await, "being planned");
    pass(&mut scheduler).await;
    let planned: String = db.get("select next_fire_at::text from rowbeat.schedule").await;
    db.run("update rowbeat.schedule set payload = '{\"x\": 2}'").await;
    assert_eq!(db.get::<String>("select next_fire_at::text from rowbeat.schedule").await, planned);
    db.run("update rowbeat.schedule set spec = '@daily', time_zone = 'Europe/Paris'").await;
    pass(&mut scheduler).await;
    assert_eq!(db.get::<String>("select right(next_fire_local, 8) from rowbeat.upcoming").await, "00:00:00");
    db.run("update rowbeat.schedule set enabled = false").await;
    pass(&mut scheduler).await;
    assert!(db.get::<bool>("select next_fire_at is null and planned_at is null from rowbeat.schedule").await);
    db.run("update rowbeat.schedule set enabled = true, spec = 'every 1 hour', start_at = now()").await;
    pass(&mut scheduler).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.fire").await, 1, "a start of now fires at once");
}

#[tokio::test]
async fn a_schedule_that_this_daemon_cannot_read_says_so_and_holds_up_nobody() {
    let db = TestDb::new().await.with_effects().await;
    let mut scheduler = scheduler(&db);
    // As another version of the database functions, or of the server's zone data, may let in.
    db.run(
        "set session_replication_role = replica;
         insert into rowbeat.schedule (name, definition, spec, time_zone, anchor, plan_from) values
             ('bad spec', 'add_effect', '61 * * * *', 'UTC', now(), now()), ('bad zone', 'add_effect', '@daily', 'Mars/Base', now(), now());
         reset session_replication_role;
         select rowbeat.schedule('good', 'every 1 hour', 'add_effect');",
    )
    .await;
    pass(&mut scheduler).await;
    let status = async |name: &str| {
        db.get_with::<String>("select last_error from rowbeat.schedule where name = $1", &[&name]).await
    };
    let (spec, zone) = (status("bad spec").await, status("bad zone").await);
    assert!(spec.contains("minute") && spec.contains("61"), "{spec}");
    assert!(zone.contains("time zone: `Mars/Base` is unknown"), "{zone}");
    assert_eq!(db.get::<String>("select status from rowbeat.upcoming where name = 'good'").await, "planned");
    db.run("update rowbeat.schedule set enabled = false where name like 'bad%'").await;
    assert_eq!(db.refusal("select rowbeat.schedule('z', '@daily', 'nobody')").await.0, "23503");
    assert_eq!(
        db.refusal("select rowbeat.schedule('z', '@daily', 'add_effect', p_calendar => 'nowhere')").await.0,
        "23503"
    );
    for nonsense in [
        "p_overlap => 'maybe'",
        "p_end_at => 'infinity'",
        "p_start_at => '4000-01-01 BC'",
        "p_jitter => '1 year'",
    ] {
        let refused =
            db.refusal(&format!("select rowbeat.schedule('z', '@daily', 'add_effect', {nonsense})")).await;
        assert_eq!(refused.0, "23514", "{nonsense}");
    }
}

#[tokio::test]
async fn what_was_edited_while_it_was_being_planned_is_planned_again() {
    let db = TestDb::new().await.with_effects().await;
    db.run("select rowbeat.schedule('s', '@hourly', 'add_effect', p_start_at => '2060-01-01')").await;
    let rows = db.db().rows("schedule.unplanned", &[]).await.unwrap();
    let version: String = rows[0].get("version");
    db.run("update rowbeat.schedule set end_at = '2060-01-02'").await;
    let next = rows[0].get::<_, chrono::DateTime<chrono::Utc>>("start_at");
    let plan = async |version: String| {
        let (names, versions, next, errors) = (vec!["s"], vec![version], vec![next], vec![None::<String>]);
        db.db().rows("schedule.plan", &[&names, &versions, &next, &errors, &"2025b"]).await.unwrap();
        db.get::<bool>("select planned_at is not null from rowbeat.schedule").await
    };
    assert!(!plan(version).await, "it was another row");
    let now = db.get("select xmin::text from rowbeat.schedule").await;
    assert!(plan(now).await);
}

#[tokio::test]
async fn a_fire_that_the_database_refuses_is_told_and_holds_up_nobody() {
    let db = TestDb::new().await.with_effects().await;
    let mut scheduler = scheduler(&db);
    db.run(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
             if new.cause ->> 'name' = 'unwanted' then raise 'no such task here'; end if; return new; end $$;
         create trigger refuse before insert on rowbeat.task for each row execute function public.refuse();
         insert into rowbeat.schedule (name, definition, spec, start_at)
             select name, 'add_effect', 'every 1 hour', now() from unnest('{a,unwanted,z}'::text[]) name;",
    )
    .await;
    assert!(matches!(scheduler.run_once().await.unwrap(), Pass::Worked(2)));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2);
    let told = "select last_error like '%no such task here%' from rowbeat.schedule where name = 'unwanted'";
    assert!(db.get::<bool>(told).await);
    db.run("drop trigger refuse on rowbeat.task").await;
    pass(&mut scheduler).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 3);
    assert!(db.get::<bool>("select bool_and(last_error is null) from rowbeat.schedule").await);
}

#[tokio::test]
async fn many_that_are_due_at_once_all_fire_once() {
    let db = TestDb::new().await.with_effects().await;
    let mut schedulers = [scheduler(&db), scheduler(&db)];
    db.run(
        "insert into rowbeat.schedule (name, definition, spec, start_at)
             select 's' || n, 'add_effect', 'every 1 hour', now() from generate_series(1, 2500) n",
    )
    .await;
    let [one, other] = &mut schedulers;
    tokio::join!(pass(one), pass(other));
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.fire").await, 2500);
    assert_eq!(db.get::<i64>("select count(distinct cause ->> 'name') from rowbeat.task").await, 2500);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.task").await, 2500);
}

#[tokio::test]
async fn rows_planned_by_older_zone_data_are_planned_anew_and_nothing_is_skipped_or_repeated() {
    let db = TestDb::new().await.with_effects().await;
    pass(&mut scheduler(&db)).await;
    db.run("select rowbeat.schedule('s', '0 9 * * *', 'add_effect', p_time_zone => 'Asia/Almaty'); select rowbeat.schedule('due', '@yearly', 'add_effect')").await;
    pass(&mut scheduler(&db)).await;
    let planned: String = db.get("select next_fire_at::text from rowbeat.schedule where name = 's'").await;
    // As older data had it: the zone moved by an hour in 2024.
    db.run(
        "update rowbeat.schedule set zone_data = '2023c', next_fire_at = next_fire_at - interval '1 hour',
             last_fire_at = next_fire_at - interval '1 day' where name = 's' and next_fire_at - interval '1 hour' > now();
         update rowbeat.schedule set zone_data = '2023c', next_fire_at = now() - interval '1 minute' where name = 'due';",
    )
    .await;
    pass(&mut scheduler(&db)).await;
    assert_eq!(
        db.get::<String>("select next_fire_at::text from rowbeat.schedule where name = 's'").await,
        planned
    );
    assert!(db.get::<bool>("select bool_and(zone_data >= '2025b') from rowbeat.schedule").await);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.fire where schedule = 'due'").await,
        1,
        "what was due has fired"
    );
    let zones: serde_json::Value = db.get("select rowbeat.status() -> 'zone_data'").await;
    assert!(zones["server"].is_string() && zones["schedules"].is_string(), "{zones}");
}

#[tokio::test]
async fn the_ledger_is_forgotten_after_its_time_but_each_schedules_latest_fire() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "select rowbeat.schedule('yearly', '@yearly', 'add_effect');
         insert into rowbeat.fire (schedule, nominal_at, decision, fired_at)
             select 'yearly', now() - n * interval '1 day', 'fired', now() - n * interval '1 day' from unnest(array[10, 89, 91, 200]) n;
         update rowbeat.schedule set last_fire_at = (select min(nominal_at) from rowbeat.fire);
         select rowbeat.prune();",
    )
    .await;
    let ages = "select array_agg(extract(day from now() - nominal_at)::integer order by nominal_at desc) from rowbeat.fire";
    assert_eq!(db.get::<Vec<i32>>(ages).await, [10, 89, 200]);
    db.run(
        "insert into rowbeat.setting (name, value) values ('keep_fires_days', '30'); select rowbeat.prune()",
    )
    .await;
    assert_eq!(db.get::<Vec<i32>>(ages).await, [10, 200]);
    db.run("update rowbeat.setting set value = '\"soon\"' where name = 'keep_fires_days'; select rowbeat.prune()").await;
    assert_eq!(db.get::<Vec<i32>>(ages).await, [10, 200]);
}
