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
async fn a_bad_spec_is_shown_and_a_bad_zone_refused() {
    let db = TestDb::new().await.with_effects().await;
    let mut scheduler = scheduler(&db);
    db.run("select rowbeat.schedule('bad', '61 * * * *', 'add_effect'); select rowbeat.schedule('good', 'every 1 hour', 'add_effect')").await;
    pass(&mut scheduler).await;
    let status: String = db.get("select status from rowbeat.upcoming where name = 'bad'").await;
    assert!(status.contains("minute") && status.contains("61"), "{status}");
    assert_eq!(db.get::<String>("select status from rowbeat.upcoming where name = 'good'").await, "planned");
    assert_eq!(
        db.refusal("select rowbeat.schedule('z', '@daily', 'add_effect', p_time_zone => 'Mars/Base')")
            .await
            .0,
        "22023"
    );
    assert_eq!(db.refusal("select rowbeat.schedule('z', '@daily', 'nobody')").await.0, "23503");
}
