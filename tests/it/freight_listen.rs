//! Freight and `rowbeat listen`: which channels are listened to, what is printed, and that nothing of it depends on what else runs.

use nix::sys::signal::Signal;

use crate::cli::{Process, rowbeat};
use crate::freight::{A, B, freight};
use crate::freight_alert::{alert, events, rate};
use crate::harness::{PATIENCE, TestDb, server};

const NONE: &str = "No active table change alerts.\n";
const CONTROL: &str = "Listening to channel: table_change_alert_updated\n";

fn listen(db: &TestDb, variables: &[(&str, &str)]) -> Process {
    let mut command = server().rowbeat(&db.name);
    command.envs(variables.iter().copied());
    Process::start(command, &["psql_listener", "--http", "off"])
}

fn count(listener: &Process, text: &str) -> usize {
    listener.said().matches(text).count()
}

/// Waits until it has said this so many times.
async fn until_said(listener: &Process, text: &str, times: usize) {
    let begun = std::time::Instant::now();
    while count(listener, text) < times {
        assert!(begun.elapsed() < PATIENCE, "{}", listener.said());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_says_that_there_is_no_alert_and_follows_those_that_come_and_go() {
    let db = freight().await;
    let mut listener = listen(&db, &[]);
    for said in ["Starting PostgreSQL listener...\n", CONTROL, NONE] {
        listener.says(said).await;
    }
    let pid: i32 = db.get("select pg_backend_pid()").await;
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    listener
        .says(&format!("Got NOTIFY: {pid}, table_change_alert_updated, table_change_alert INSERT\n"))
        .await;
    listener.says("Listening to channel: new_added_rate\n").await;
    db.run(&rate(A, "R00001")).await;
    listener.says(", new_added_rate, {\"event_id\": 1}\n").await;
    assert_eq!(events(&db).await, 1, "it does the work");
    // Another organization's alert has the same channel, which stays when the first one goes.
    db.run(&alert(B, "one", "rate", "INSERT", &[])).await;
    db.run(&format!("delete from freight.table_change_alert where organization_id = {A}")).await;
    listener.says("table_change_alert DELETE\n").await;
    db.run(&rate(B, "R00001")).await;
    listener.says(", new_added_rate, {\"event_id\": 2}\n").await;
    assert_eq!(count(&listener, "Listening to channel: new_added_rate\n"), 1);
    // The action and the table change: so does the channel.
    db.run("update freight.table_change_alert set database_action = 'BOTH', table_name = 'customer'").await;
    listener.says("No longer listening to channel: new_added_rate\n").await;
    listener.says("Listening to channel: new_or_updated_customer\n").await;
    assert_eq!(count(&listener, NONE), 1);
    db.run("update freight.table_change_alert set is_active = false").await;
    listener.says("No longer listening to channel: new_or_updated_customer\n").await;
    until_said(&listener, NONE, 2).await;
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.ended().await.code(), Some(0), "{}", listener.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_hears_live_alerts_only_by_the_organization_s_day_and_names_of_mixed_case() {
    let db = freight().await;
    db.run(&format!(
        "create table public.\"Mixed \"\"Case\" (id int primary key, organization_id uuid);
         grant usage on schema public to rowbeat_{0}_freight; grant trigger on public.\"Mixed \"\"Case\" to rowbeat_{0}_freight",
        db.name
    ))
    .await;
    db.run(&alert(A, "mixed", "public.Mixed \"Case", "INSERT", &[])).await;
    for (name, table, more) in [
        ("off", "customer", ("is_active", "false")),
        ("later", "shipment", ("effective_date", "(now() at time zone 'UTC')::date + 2")),
        ("past", "job_title", ("expiration_date", "(now() at time zone 'UTC')::date - 2")),
        ("kafka", "", ("topic", "'t'")),
    ] {
        let source = if name == "kafka" { "'KAFKA'" } else { "'POSTGRES'" };
        db.run(&alert(A, name, table, "DELETE", &[more, ("source", source)])).await;
    }
    let mut now = listen(&db, &[]);
    now.says("Listening to channel: new_added_Mixed \"Case\n").await;
    now.says(CONTROL).await;
    db.run(&format!("insert into public.\"Mixed \"\"Case\" values (1, {A})")).await;
    now.says(", new_added_Mixed \"Case, {\"event_id\": 1}\n").await;
    assert_eq!(count(&now, "Listening to channel: "), 2, "{}", now.said());
    assert_eq!(count(&now, NONE), 0);
    // A day that has come needs no write.
    let mut later = listen(&db, &[("PGOPTIONS", "-c rowbeat.clock_offset=3\\ days")]);
    later.says("Listening to channel: deleted_shipment\n").await;
    // The zone says when a day begins: in the last one it is yesterday's end still.
    db.run("update freight.table_change_alert set effective_date = null, expiration_date = null, is_active = name = 'later'").await;
    db.run("update freight.organization set time_zone = 'Pacific/Kiritimati' where name = 'A';
            update freight.table_change_alert set effective_date = '2030-01-02', expiration_date = '2030-01-02' where name = 'later'").await;
    let days = "select jsonb_agg(jsonb_build_array(starts_at at time zone 'UTC', ends_at at time zone 'UTC'))::text from rowbeat.listening";
    assert_eq!(db.get::<String>(days).await, r#"[["2030-01-01T10:00:00", "2030-01-02T10:00:00"]]"#);
    db.run("update freight.organization set time_zone = 'UTC' where name = 'A'").await;
    assert_eq!(db.get::<String>(days).await, r#"[["2030-01-02T00:00:00", "2030-01-03T00:00:00"]]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_hears_beside_a_daemon_that_has_the_channels_and_after_its_connections_were_cut() {
    let db = freight().await.with_effects().await;
    db.run("insert into rowbeat.channel (name, definition) values ('new_added_rate', 'add_effect')").await;
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    let daemon = db.daemon().ready().await;
    daemon.says("listening to channel").await;
    assert!(
        !daemon.log().contains("table_change_alert_updated"),
        "who prints nothing listens to nothing: {}",
        daemon.log()
    );
    let mut listener = listen(&db, &[]);
    listener.says("Listening to channel: new_added_rate\n").await;
    db.run(&rate(A, "R00001")).await;
    listener.says(", new_added_rate, {\"event_id\": 1}\n").await;
    db.until(
        "(select count(*) = 1 from rowbeat.tasks where definition = 'add_effect' and state = 'completed')",
    )
    .await;
    db.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()").await;
    until_said(&listener, "Listening to channel: new_added_rate\n", 2).await;
    db.run(&rate(A, "R00002")).await;
    listener.says(", new_added_rate, {\"event_id\": 2}\n").await;
    assert_eq!(events(&db).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_plugin_announces_nothing_and_one_that_comes_back_does() {
    let db = freight().await;
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    rowbeat(&db, &["plugin", "remove", "freight"]).ok();
    db.run("delete from rowbeat.listening").await;
    let mut listener = listen(&db, &[]);
    db.until("exists (select from rowbeat.nodes)").await;
    rowbeat(&db, &["plugin", "install", "freight"]).ok();
    for channel in ["new_added_rate", "table_change_alert_updated"] {
        listener.says(&format!("Listening to channel: {channel}\n")).await;
    }
    assert_eq!(count(&listener, NONE), 0);
    assert_eq!(count(&listener, "Listening to channel: "), 2);
    rowbeat(&db, &["plugin", "remove", "freight", "--purge", "--cancel-tasks"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.listening").await, 0);
    listener.says("No longer listening to channel: table_change_alert_updated\n").await;
}
