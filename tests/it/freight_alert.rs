//! Table-change alerts of freight: what they are, what is captured for them, which changes concern them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, Client};

use crate::cli::rowbeat;
use crate::freight::{A, B, freight};
use crate::harness::TestDb;

/// A session that keeps what it hears.
pub(crate) struct Heard {
    client: Client,
    said: Arc<Mutex<Vec<(String, String)>>>,
}

impl Heard {
    pub(crate) async fn on(db: &TestDb, channels: &[&str]) -> Self {
        let (client, mut connection) = db.connector.connect("test").await.unwrap();
        let said: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let kept = Arc::clone(&said);
        tokio::spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notification(heard) = message {
                    kept.lock().unwrap().push((heard.channel().to_owned(), heard.payload().to_owned()));
                }
            }
        });
        for channel in channels {
            client.batch_execute(&format!("listen \"{channel}\"")).await.unwrap();
        }
        Self { client, said }
    }

    /// What it has heard of what was committed before this call.
    pub(crate) async fn all(&self) -> Vec<String> {
        self.client.batch_execute("select 1").await.unwrap();
        self.said.lock().unwrap().drain(..).map(|(_, payload)| payload).collect()
    }
}

/// An alert of an organization with more columns, as (column, value) in SQL.
pub(crate) fn alert(
    organization: &str,
    name: &str,
    table: &str,
    action: &str,
    more: &[(&str, &str)],
) -> String {
    let columns: String = more.iter().map(|(column, _)| format!(", {column}")).collect();
    let values: String = more.iter().map(|(_, value)| format!(", {value}")).collect();
    format!(
        "insert into freight.table_change_alert (organization_id, name, table_name, database_action{columns})
         values ({organization}, '{name}', '{table}', '{action}'{values});"
    )
}

pub(crate) fn rate(organization: &str, number: &str) -> String {
    format!(
        "insert into freight.rate (organization_id, rate_number, effective_date, expiration_date, rate_amount)
         values ({organization}, '{number}', '2020-01-01', '2099-01-01', 10);"
    )
}

/// Waits until the log is read and every delivery has been made.
pub(crate) async fn settled(db: &TestDb) {
    db.until(
        "not exists (select from rowbeat.consumers where name = 'router' and waits_since is not null)
         and not exists (select from rowbeat.task where definition = 'freight.deliver_change')",
    )
    .await;
}

pub(crate) async fn events(db: &TestDb) -> i64 {
    settled(db).await;
    db.get("select count(*) from freight.alert_event").await
}

async fn operations_captured(db: &TestDb) -> Value {
    db.get("select coalesce((select to_jsonb(operations) from rowbeat.capture where table_name = 'freight.rate'::regclass), '[]')").await
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_each_write_of_an_alert_is_one_message_on_the_control_channel() {
    let db = freight().await;
    let ear = Heard::on(&db, &["table_change_alert_updated"]).await;
    for sql in [
        alert(A, "one", "rate", "INSERT", &[]).as_str(),
        "update freight.table_change_alert set description = 'x'",
        "delete from freight.table_change_alert",
    ] {
        db.run(sql).await;
    }
    assert_eq!(
        ear.all().await,
        ["table_change_alert INSERT", "table_change_alert UPDATE", "table_change_alert DELETE"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m2_control_messages_are_never_counted() {
    let db = freight().await;
    let ear = Heard::on(&db, &["table_change_alert_updated"]).await;
    db.run(&format!(
        "insert into freight.table_change_alert (organization_id, name, table_name)
         select {A}, n, 'rate' from unnest(array['x', 'y', 'z']) n"
    ))
    .await;
    assert_eq!(ear.all().await, ["table_change_alert INSERT"]);
    assert_eq!(
        db.get::<i64>("select count(*) from freight.active_trigger where is_live and is_captured").await,
        3
    );
    db.run(&format!("begin; {} rollback", alert(A, "no", "rate", "INSERT", &[]))).await;
    db.run("update freight.table_change_alert set description = 'x' where name = 'nobody'").await;
    assert_eq!(ear.all().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_names_and_capture_follow_the_alert() {
    let db = freight().await;
    let names =
        "select jsonb_build_array(function_name, trigger_name, listener_name) from freight.active_trigger";
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    assert_eq!(
        db.get::<Value>(names).await,
        json!(["notify_new_rate", "after_insert_rate", "new_added_rate"])
    );
    assert_eq!(operations_captured(&db).await, json!(["INSERT"]));
    db.run("update freight.table_change_alert set database_action = 'UPDATE'").await;
    assert_eq!(
        db.get::<Value>(names).await,
        json!(["notify_updated_rate", "after_update_rate", "updated_rate"])
    );
    assert_eq!(operations_captured(&db).await, json!(["UPDATE"]));
    db.run("update freight.table_change_alert set database_action = 'DELETE', table_name = 'customer'").await;
    assert_eq!(
        db.get::<Value>(names).await,
        json!(["notify_deleted_customer", "after_delete_customer", "deleted_customer"])
    );
    assert_eq!(operations_captured(&db).await, json!([]));
    db.run("update freight.table_change_alert set database_action = 'BOTH', table_name = 'freight.rate'")
        .await;
    assert_eq!(
        db.get::<Value>(names).await,
        json!(["notify_new_or_updated_rate", "after_insert_or_update_rate", "new_or_updated_rate"])
    );
    assert_eq!(operations_captured(&db).await, json!(["INSERT", "UPDATE"]));
    let triggers = "select count(*) from rowbeat.capture_trigger";
    db.run("update freight.table_change_alert set is_active = false").await;
    assert_eq!(db.get::<i64>(triggers).await, 0, "an inactive alert captures nothing");
    db.run("update freight.table_change_alert set is_active = true").await;
    assert!(db.get::<i64>(triggers).await > 0);
    db.run("delete from freight.table_change_alert").await;
    assert_eq!(db.get::<i64>(triggers).await, 0, "nothing is captured any more");
    assert_eq!(operations_captured(&db).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_too_long_are_cut_and_stay_unique_and_usable() {
    let db = freight().await;
    let (long, longer) = ("t".repeat(62), format!("{}u", "t".repeat(62)));
    for table in [&long, &longer] {
        db.run(&format!(
            "create table public.{table} (id int primary key, organization_id uuid);
             grant usage on schema public to rowbeat_{0}_freight; grant trigger on public.{table} to rowbeat_{0}_freight",
            db.name
        ))
        .await;
        db.run(&alert(A, &table[60..], &format!("public.{table}"), "INSERT", &[])).await;
    }
    let names: Vec<String> =
        db.get("select array_agg(n) from freight.table_change_alert a cross join lateral unnest(array[function_name, trigger_name, listener_name]) n").await;
    assert!(names.iter().all(|name| name.len() == 63), "{names:?}");
    let unique: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), 6);
    let listener: String =
        db.get("select listener_name from freight.table_change_alert order by name limit 1").await;
    let ear = Heard::on(&db, &[&listener]).await;
    let _daemon = db.daemon().ready().await;
    db.run(&format!(
        "insert into public.{long} values (1, {A}); insert into public.{longer} values (1, {A})"
    ))
    .await;
    assert_eq!(events(&db).await, 2);
    assert_eq!(ear.all().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_m5_m6_an_event_is_of_the_alert_s_organization_and_operation_and_of_something_that_changed() {
    let db = freight().await;
    let _daemon = db.daemon().ready().await;
    db.run(&alert(A, "new", "rate", "INSERT", &[])).await;
    db.run(&rate(A, "R00001")).await;
    assert_eq!(events(&db).await, 1);
    db.run(&rate(B, "R00001")).await;
    db.run(&format!("update freight.rate set rate_amount = 11 where organization_id = {A}")).await;
    assert_eq!(events(&db).await, 1);

    db.run(&format!("{} truncate freight.alert_event;", alert(A, "changed", "rate", "UPDATE", &[]))).await;
    let change = async |set: &str| {
        db.run(&format!("update freight.rate set {set} where organization_id = {A}")).await;
        events(&db).await
    };
    assert_eq!(change("updated_at = now()").await, 0);
    assert_eq!(change("rate_amount = 12").await, 1);
    assert_eq!(change("comments = ''").await, 2);
    assert_eq!(change("rate_amount = 12").await, 2);

    db.run("delete from freight.table_change_alert; truncate freight.alert_event").await;
    db.run(&alert(A, "both", "rate", "BOTH", &[])).await;
    db.run(&rate(A, "R00002")).await;
    db.run("update freight.rate set rate_amount = 13 where rate_number = 'R00002'").await;
    assert_eq!(events(&db).await, 2);
    let seen: Value = db.get("select jsonb_agg(jsonb_build_array(operation, old_row -> 'rate_amount', new_row -> 'rate_amount', table_name) order by id) from freight.alert_event").await;
    assert_eq!(seen, json!([["INSERT", null, 10.0, "freight.rate"], ["UPDATE", 10.0, 13.0, "freight.rate"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_liveness_is_judged_by_the_local_date_of_the_change() {
    let db = freight().await;
    for (number, (active, from, until, live)) in [
        ("true", "null", "null", true),
        ("false", "null", "null", false),
        ("true", "'2023-06-01'", "null", true),
        ("true", "'2023-06-02'", "null", false),
        ("true", "'2023-05-01'", "'2023-05-31'", false),
        ("true", "'2023-05-01'", "'2023-06-01'", true),
        ("true", "null", "'2023-05-31'", false),
        ("false", "'2023-05-01'", "'2023-12-31'", false),
        ("false", "null", "'2023-12-31'", false),
        ("true", "null", "'2023-06-01'", true),
    ]
    .into_iter()
    .enumerate()
    {
        let more = [("is_active", active), ("effective_date", from), ("expiration_date", until)];
        db.run(&alert(A, &format!("n{number}"), "rate", "INSERT", &more)).await;
        let sql = format!(
            "select freight.alert_is_live(id, '2023-06-01 12:00Z') from freight.table_change_alert where name = 'n{number}'"
        );
        assert_eq!(db.get::<bool>(&sql).await, live, "{number}");
    }
    db.run("update freight.organization set time_zone = 'Pacific/Auckland' where name = 'A'").await;
    let of = |name: &str, at: &str| {
        format!(
            "select freight.alert_is_live(id, '{at}') from freight.table_change_alert where name = '{name}'"
        )
    };
    assert!(db.get::<bool>(&of("n3", "2023-06-01 12:00Z")).await, "there it is June 2 already");
    assert!(!db.get::<bool>(&of("n9", "2023-06-01 12:00Z")).await);

    // The change's own instant counts, not the router's.
    db.run("delete from freight.table_change_alert; update freight.organization set time_zone = 'UTC'").await;
    let today = [("expiration_date", "current_date")];
    db.run(&alert(A, "today", "rate", "INSERT", &today)).await;
    db.run(&format!(
        "{} set rowbeat.clock_offset = '1 day'; {} reset rowbeat.clock_offset",
        rate(A, "R00001"),
        rate(A, "R00002")
    ))
    .await;
    let _daemon = db.daemon_with("", &[("PGOPTIONS", "-c rowbeat.clock_offset=2\\ days")]).ready().await;
    assert_eq!(events(&db).await, 1);
    assert_eq!(db.get::<String>("select new_row ->> 'rate_number' from freight.alert_event").await, "R00001");
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_alerts_are_swept_once_what_was_written_before_has_been_read() {
    let db = freight().await;
    let today = [("expiration_date", "(now() at time zone 'UTC')::date")];
    db.run(&format!("{} {}", alert(A, "old", "rate", "INSERT", &today), rate(A, "R00001"))).await;
    let captured = "select is_captured from freight.active_trigger";
    let sweep =
        "set rowbeat.clock_offset = '2 days'; select freight.sweep_alerts(); reset rowbeat.clock_offset";
    db.run(sweep).await;
    assert!(db.get::<bool>(captured).await, "its last change has not been read yet");
    let daemon = db.daemon().ready().await;
    assert_eq!(events(&db).await, 1);
    db.run("select freight.sweep_alerts()").await;
    assert!(db.get::<bool>(captured).await, "it is its last day");
    db.run(sweep).await;
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.capture_trigger").await, 0);
    drop(daemon);
    db.run("update freight.table_change_alert set description = 'x'").await;
    assert!(!db.get::<bool>(captured).await, "an edit of something else wakes it not");
    db.run("update freight.table_change_alert set expiration_date = null").await;
    assert!(db.get::<bool>(captured).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn m14_m15_what_cannot_be_alerted_is_refused_and_tables_stay_writable() {
    let db = freight().await;
    db.run("create table public.plain (id int primary key); create table public.theirs (id int primary key, organization_id uuid, extra text)").await;
    let refused = async |sql: String| db.refusal(&sql).await;
    let no_column = refused(alert(A, "x", "public.plain", "INSERT", &[])).await;
    assert_eq!(no_column, ("RP400".into(), "Table public.plain has no organization_id column.".into()));
    db.run("insert into public.plain values (1)").await;
    assert_eq!(refused(alert(A, "x", "nowhere", "INSERT", &[])).await.1, "Table nowhere does not exist.");
    let foreign = refused(alert(A, "x", "public.theirs", "INSERT", &[])).await;
    assert_eq!(foreign.0, "RP409");
    assert!(
        foreign.1.contains(&format!("role rowbeat_{}_freight has no TRIGGER privilege", db.name)),
        "{foreign:?}"
    );
    for (more, message) in [
        (vec![("source", "'KAFKA'")], "Topic is required when source is Kafka."),
        (
            vec![("effective_date", "'2023-02-01'"), ("expiration_date", "'2023-01-01'")],
            "Expiration date cannot be before the effective date. Please try again.",
        ),
        (vec![("email_recipients", "'a@b.example, nobody'")], "nobody is not a valid email address."),
    ] {
        assert_eq!(refused(alert(A, "x", "rate", "INSERT", &more)).await, ("RP400".into(), message.into()));
    }
    assert_eq!(
        refused(alert(A, "x", "", "INSERT", &[])).await.1,
        "Table is required when source is Postgres."
    );
    db.run(&alert(A, "k", "rate", "INSERT", &[("source", "'KAFKA'"), ("topic", "'t'")])).await;
    assert!(
        db.get::<bool>("select table_name is null and listener_name is null from freight.table_change_alert")
            .await
    );
    assert_eq!(
        refused(alert(A, "K", "rate", "INSERT", &[])).await.0,
        "23505",
        "names are unique regardless of case"
    );

    db.run(&format!("grant trigger on public.theirs to rowbeat_{0}_freight; grant usage on schema public to rowbeat_{0}_freight", db.name)).await;
    db.run(&alert(A, "t", "public.theirs", "INSERT", &[])).await;
    let _daemon = db.daemon().ready().await;
    db.run(&format!("insert into public.theirs values (1, {A}, 'x'); alter table public.theirs drop column extra; insert into public.theirs values (2, {A}); alter table public.theirs add column more int default 5; insert into public.theirs values (3, {A})")).await;
    assert_eq!(events(&db).await, 3);
    db.run(
        "drop table public.theirs; update freight.table_change_alert set is_active = false where name = 't'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_plugin_captures_nothing_and_goes_on_when_it_comes_back() {
    let db = freight().await;
    db.run(&alert(A, "one", "rate", "INSERT", &[])).await;
    rowbeat(&db, &["plugin", "remove", "freight"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.watch").await, 0);
    db.run(&rate(A, "R00001")).await;
    db.run(&alert(A, "written meanwhile", "rate", "INSERT", &[])).await;
    rowbeat(&db, &["plugin", "install", "freight"]).ok();
    let _daemon = db.daemon().ready().await;
    db.until("(select count(*) = 2 and bool_and(is_captured) from freight.active_trigger)").await;
    db.run(&rate(A, "R00002")).await;
    assert_eq!(events(&db).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_write_alerts_rates_and_bills_without_being_superusers() {
    let db = freight().await;
    let _daemon = db.daemon().ready().await;
    db.run("set role rowbeat_operator").await;
    db.run(&alert(A, "one", "rate", "INSERT", &[("email_recipients", "'ann@a.example'")])).await;
    db.run(&rate(A, "R00001")).await;
    assert_eq!(events(&db).await, 1);
    assert!(db.get::<bool>("select is_live and is_captured from freight.active_trigger").await);
    assert!(db.get::<bool>("select count(*) > 10 from freight.watchable_table").await);
    assert!(!db.get::<bool>("select exists (select from freight.watchable_table where name in ('alert_event', 'organization'))").await);
    db.run(&format!("insert into freight.customer (organization_id, name) values ({A}, 'c');
        insert into freight.shipment (organization_id, pro_number, customer_id) select organization_id, 'P1', id from freight.customer;
        insert into freight.billing_queue (organization_id, shipment_id) select organization_id, id from freight.shipment;
        select freight.untransfer({A}, '{{INV-P1}}'), freight.mark_ready_to_bill()")).await;
    assert_eq!(db.refusal("delete from freight.alert_event").await.0, "42501");
}
