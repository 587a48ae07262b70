//! Crashes around the minute: daemons are killed and cut off at random while the clock is moved over more than a thousand minutes. In the
//! end every nominal time has exactly one line in the ledger, and at most one task.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rowbeat::schedule::recurrence::Recurrence;

use crate::harness::{Daemon, TestDb};

/// Name, spec, zone, catch-up, overlap.
const SCHEDULES: [(&str, &str, &str, &str, &str); 6] = [
    ("minutely", "* * * * *", "Europe/Paris", "all", "allow"),
    ("minutely, last", "* * * * *", "America/New_York", "last", "allow"),
    ("minutely, skip", "* * * * *", "UTC", "skip", "queue"),
    ("every seven", "every 7 minutes", "UTC", "all", "replace"),
    ("hourly", "@hourly", "Asia/Kolkata", "last", "skip"),
    ("quarters", "*/15 1-3 * * *", "Europe/Paris", "all", "allow"),
];
const MINUTES: i64 = 1_000;

/// Starts a little before the Parisian hour that comes twice.
const BEGIN: &str = "2026-10-24 23:30:00Z";

/// Sessions to come live at this minute; those of the daemons end, so that they do, too.
async fn move_clock(db: &TestDb, minute: i64) {
    // The offset is the same in all sessions: time goes on between them.
    db.run(&format!(
        "do $$ declare v_offset interval := '{BEGIN}'::timestamptz + interval '{minute} minutes' - clock_timestamp(); begin
             execute format('alter database {} set rowbeat.clock_offset = %L', v_offset);
             perform set_config('rowbeat.clock_offset', v_offset::text, false);
             perform pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and application_name like 'rowbeat%' and pid <> pg_backend_pid(); end $$",
        db.name
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_minutes_of_kills_give_each_nominal_time_one_decision_and_at_most_one_task() {
    let db = TestDb::new().await.with_effects().await;
    db.run("update rowbeat.task_definition set max_attempts = 1000, backoff = '10 ms', keep_days = 30").await;
    move_clock(&db, 0).await;
    for (name, spec, zone, catch_up, overlap) in SCHEDULES {
        db.get_with::<String>(
            "select rowbeat.schedule($1, $2, 'add_effect', '{\"x\": 1}', $3, p_catch_up => $4, p_overlap => $5)",
            &[&name, &spec, &zone, &catch_up, &overlap],
        )
        .await;
    }
    let mut random = fastrand::Rng::with_seed(20_261_121);
    let mut daemons: Vec<Daemon> = (0..3).map(|_| db.daemon()).collect();
    db.until("(select bool_and(next_fire_at is not null) from rowbeat.schedule)").await;
    let (mut minute, mut kills) = (0, 0);
    while minute < MINUTES {
        // Mostly onto the minute or just across it, sometimes far.
        minute += if random.u8(0..4) == 0 { random.i64(30..90) } else { random.i64(1..20) };
        move_clock(&db, minute).await;
        // Killed before anybody has looked, right after the first decision of this step, or when all is decided. Only so is it
        // sure that something is decided between the kills, however slow the machine is.
        let decided = format!(
            "exists (select from rowbeat.fire where fired_at >= '{BEGIN}'::timestamptz + interval '{minute} minutes')"
        );
        match random.u8(0..3) {
            0 => tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await,
            1 => db.until(&decided).await,
            _ => db.until("(select bool_and(next_fire_at > rowbeat.now_()) from rowbeat.schedule)").await,
        }
        daemons.swap_remove(random.usize(0..daemons.len())).kill9();
        kills += 1;
        daemons.push(db.daemon());
    }
    db.until("(select bool_and(next_fire_at > rowbeat.now_()) from rowbeat.schedule)").await;
    assert!(kills > 20, "{kills}");
    // Time goes on: nothing may be decided while the books are compared.
    daemons.clear();
    db.until("not exists (select from pg_stat_activity where datname = current_database() and application_name like 'rowbeat%' and pid <> pg_backend_pid())").await;
    check(&db).await;
}

/// The ledger against the times that the specs call for.
async fn check(db: &TestDb) {
    for (name, spec, zone, catch_up, _) in SCHEDULES {
        let since: DateTime<Utc> =
            db.get_with("select plan_from from rowbeat.schedule where name = $1", &[&name]).await;
        let next: DateTime<Utc> =
            db.get_with("select next_fire_at from rowbeat.schedule where name = $1", &[&name]).await;
        let recurrence = Recurrence::parse(spec, zone, since).unwrap();
        let nominal: Vec<DateTime<Utc>> =
            std::iter::successors(recurrence.next_after(since), |at| recurrence.next_after(*at))
                .take_while(|at| *at < next)
                .collect();
        assert!(nominal.last().is_some_and(|at| *at - since > TimeDelta::minutes(MINUTES - 900)), "{name}");
        let decided: Vec<DateTime<Utc>> = db
            .get_with(
                "select array_agg(nominal_at order by nominal_at) from rowbeat.fire where schedule = $1",
                &[&name],
            )
            .await;
        assert_eq!(decided, nominal, "{name}: each nominal time once, and no other");
        let decisions: serde_json::Value = db
            .get_with("select jsonb_object_agg(decision, n) from (select decision, count(*) as n from rowbeat.fire where schedule = $1 group by decision) d", &[&name])
            .await;
        let decisions: BTreeMap<String, usize> = serde_json::from_value(decisions).unwrap();
        if catch_up == "all" {
            assert!(!decisions.contains_key("skipped"), "{name}: {decisions:?}");
        }
    }
    let tasks = "with task as (select cause ->> 'name' as schedule, (cause ->> 'nominal_at')::timestamptz as nominal_at, id from rowbeat.tasks)";
    let doubled = format!(
        "{tasks} select count(*) from (select from task group by schedule, nominal_at having count(*) > 1) d"
    );
    assert_eq!(db.get::<i64>(&doubled).await, 0, "at most one task for each nominal time");
    let unlike = format!(
        "{tasks} select count(*) from rowbeat.fire f full join task t on t.schedule = f.schedule and t.nominal_at = f.nominal_at
         where f.task_id is distinct from t.id or (f.decision = 'skipped') <> (f.task_id is null)"
    );
    assert_eq!(db.get::<i64>(&unlike).await, 0, "the ledger and the tasks agree");
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.fire where fired_at < nominal_at").await,
        0,
        "never early"
    );
}
