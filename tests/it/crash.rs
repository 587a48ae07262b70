//! Crashes: nothing is lost, nothing that must happen once happens twice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::TestDb;

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_in_the_middle_of_a_thousand_tasks_lose_and_double_nothing() {
    let db = TestDb::new().await;
    db.run(
        "create table public.effect (x bigint);
         create function public.slow_effect(payload jsonb) returns jsonb language plpgsql as $$ begin
             insert into public.effect values ((payload ->> 'x')::bigint); perform pg_sleep(0.02); return payload; end $$;
         insert into rowbeat.task_definition (name, executor, function, max_attempts, backoff) values ('slow_effect', 'sql', 'public.slow_effect', 20, '100 ms');
         insert into rowbeat.task (definition, payload) select 'slow_effect', jsonb_build_object('x', g) from generate_series(1, 1000) g;",
    )
    .await;
    for kill in 1..=10 {
        let daemon = db.daemon().ready().await;
        let goal = kill * 60;
        db.until(&format!("select count(*) >= {goal} from public.effect")).await;
        daemon.kill9();
    }
    let done: i64 = db.get("select count(*) from public.effect").await;
    assert!(done < 1000, "the kills came too late to prove anything: {done}");
    let _daemon = db.daemon().ready().await;
    db.until("select count(*) = 1000 from rowbeat.tasks where state = 'completed'").await;
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 1000);
    assert_eq!(db.get::<i64>("select count(distinct x) from public.effect").await, 1000);
    assert!(
        db.get::<i64>("select count(*) from rowbeat.attempt where outcome = 'lost'").await > 0,
        "nobody was killed at work"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_task_runs_again_on_another_within_thirty_seconds() {
    let db = TestDb::new().await;
    db.run(
        "create table public.begun (pid int);
         create function public.hang_once(payload jsonb) returns jsonb language plpgsql as $$ begin
             if (payload ->> 'hang')::boolean and current_setting('rowbeat.attempt') = '1' then perform pg_sleep(600); end if;
             return payload; end $$;
         insert into rowbeat.task_definition (name, executor, function, backoff) values ('hang_once', 'sql', 'public.hang_once', '100 ms');",
    )
    .await;
    let victim = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition, payload) values ('hang_once', '{\"hang\": true}')").await;
    db.until("select state = 'running' from rowbeat.tasks").await;
    let other = db.daemon().ready().await;
    victim.kill9();
    let killed = Instant::now();
    db.until("select state = 'completed' and attempt = 2 from rowbeat.tasks").await;
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    other.says("took over the tasks of lost nodes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_holds_up_nobody() {
    let db = TestDb::new().await;
    db.run(
        "create table public.effect (x bigint);
         create function public.slow_once(payload jsonb) returns jsonb language plpgsql as $$ begin
             insert into public.effect values ((payload ->> 'x')::bigint);
             if current_setting('rowbeat.attempt') = '1' then perform pg_sleep(case when payload ->> 'x' > '3' then 600 else 1 end); end if;
             return payload; end $$;
         insert into rowbeat.task_definition (name, executor, function, timeout) values ('slow_once', 'sql', 'public.slow_once', '1 hour');",
    )
    .await;
    let victim = db.daemon().ready().await;
    db.run("insert into rowbeat.task (definition, payload) select 'slow_once', jsonb_build_object('x', g) from generate_series(1, 5) g").await;
    db.until("select count(*) = 5 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'").await;
    victim.signal(Signal::SIGSTOP);
    let canceller = db.session().await;
    canceller.batch_execute("begin; select rowbeat.cancel(5)").await.unwrap();
    let other = db.daemon().ready().await;
    // The commit went out with the call: the server needs nobody to end these.
    db.until("select count(*) = 3 from rowbeat.tasks where state = 'completed' and attempt = 1").await;
    // One is held locked by somebody who cancels it; the other one is taken over nevertheless.
    db.until("select state = 'completed' and attempt = 2 from rowbeat.tasks where id = 4").await;
    assert_eq!(db.get::<i32>("select attempt from rowbeat.tasks where id = 5").await, 1);
    canceller.batch_execute("rollback").await.unwrap();
    db.until("select state = 'completed' and attempt = 2 from rowbeat.tasks where id = 5").await;
    victim.signal(Signal::SIGCONT);
    victim.says("gave this node up").await;
    let (status, _) = victim.stop().await;
    assert!(status.success());
    drop(other);
    assert_eq!(db.get::<i64>("select count(*) from public.effect").await, 5);
}
