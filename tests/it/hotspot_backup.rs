//! Backup and recovery of hotspot's tables.

use serde_json::{Value, json};

use crate::cli::{finish, rowbeat};
use crate::harness::{TestDb, server};
use crate::hotspot::{TEN, hotspot};

/// Ten sales, one of them changed, two deleted, and one that was rolled back.
async fn ten_sales() -> TestDb {
    let db = hotspot().await;
    db.run(&format!(
        "insert into hotspot.staff (username) values ('efua');
         insert into hotspot.sale (full_name, phone_number, bundle_code, created_at, created_by)
         select 'Customer ' || g, '02412345' || to_char(g, 'FM00'), '{TEN}', now() - g * interval '1 day', (select id from hotspot.staff) from generate_series(1, 10) g;
         insert into hotspot.voucher (username, password) select 'u' || g, 'p' || g from generate_series(1, 3) g"
    ))
    .await;
    db.run("update hotspot.sale set status = 'pending' where full_name = 'Customer 3'").await;
    db.run("set rowbeat.actor = 'efua'; delete from hotspot.sale where full_name in ('Customer 8', 'Customer 9'); reset rowbeat.actor").await;
    db.run(&format!("begin; insert into hotspot.sale (full_name, phone_number, bundle_code) values ('Nobody', '0240000000', '{TEN}'); rollback")).await;
    db
}

/// What a recovery says, without the table's name: inserted, updated, skipped, conflicts.
async fn recover(db: &TestDb, table: &str, arguments: &str) -> Value {
    db.get(&format!("select jsonb_build_array(inserted, updated, skipped, conflicts) from hotspot.recover('{table}'{arguments})")).await
}

const SALES: &str = "select jsonb_agg(to_jsonb(s) order by s.id) from hotspot.sale s";

#[tokio::test(flavor = "multi_thread")]
async fn c9_the_backup_knows_every_committed_row_and_no_other() {
    let db = ten_sales().await;
    let latest: Value = db.get("select jsonb_build_array(count(*), count(*) filter (where image ->> 'status' = 'pending'), count(*) filter (where image ->> 'full_name' = 'Nobody')) from hotspot.backup_latest where table_name = 'sale'").await;
    assert_eq!(latest, json!([8, 1, 0]));
    let deleted: Value = db.get("select jsonb_agg(jsonb_build_array(image ->> 'full_name', deleted_by, deleted_at is not null, key = image ->> 'id') order by image ->> 'full_name') from hotspot.backup_deleted where table_name = 'sale'").await;
    assert_eq!(deleted, json!([["Customer 8", "efua", true, true], ["Customer 9", "efua", true, true]]));
    let document: Value = db.get("select hotspot.backup_document()").await;
    let sections: Vec<&String> = document["tables"].as_object().unwrap().keys().collect();
    assert!(
        sections.iter().any(|name| *name == "sale") && sections.iter().any(|name| *name == "voucher"),
        "{sections:?}"
    );
    assert_eq!(document["tables"]["sale"].as_object().unwrap().len(), 8);
    let (key, row) = document["deleted"]["sale"].as_object().unwrap().iter().next().unwrap();
    assert_eq!((&row["id"], &row["deleted_by"]), (&json!(key), &json!("efua")));
    assert!(row["deleted_at"].is_string());
    // Of the plugin's tables only, whoever looks.
    db.run("create table public.other (id int primary key); select rowbeat.enable_backup('public.other'); insert into public.other values (1)").await;
    assert_eq!(db.get::<i64>("select count(*) from hotspot.backup_latest where table_name not in ('sale', 'staff', 'voucher', 'bundle')").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_after_a_loss_the_rows_are_back_exactly_and_quietly() {
    let db = ten_sales().await;
    let before: Value = db.get(SALES).await;
    let vouchers: Value = db.get("select jsonb_agg(to_jsonb(v) order by v.id) from hotspot.voucher v").await;
    let _daemon = db.daemon().ready().await;
    db.until("(select bool_and(baselined_at is not null) from rowbeat.backup)").await;
    db.run("truncate hotspot.sale cascade").await;
    assert_eq!(
        db.get::<i64>("select count(*) from hotspot.backup_latest where table_name = 'sale'").await,
        8,
        "a loss is no deletion"
    );
    db.until("not exists (select from rowbeat.task where definition = 'hotspot.refresh_dashboard')").await;
    let images = "select count(*) from rowbeat.backup_image where operation <> 'BASELINE'";
    let known: i64 = db.get(images).await;
    let lines = rowbeat(&db, &["app", "hotspot", "recover"]).ok();
    assert_eq!(
        lines,
        "staff: 0 inserted, 0 updated, 1 skipped, 0 conflicts\nbundle: 0 inserted, 0 updated, 5 skipped, 0 conflicts\nsale: 8 inserted, 0 updated, 0 skipped, 0 conflicts\nvoucher: 3 inserted, 0 updated, 0 skipped, 0 conflicts\n"
    );
    assert_eq!(db.get::<Value>(SALES).await, before, "every field, ids and times included");
    assert_eq!(
        db.get::<Value>("select jsonb_agg(to_jsonb(v) order by v.id) from hotspot.voucher v").await,
        vouchers
    );
    assert_eq!(recover(&db, "sale", "").await, json!([0, 0, 8, 0]));
    assert_eq!(recover(&db, "hotspot.sale", ", p_include_deleted => true").await, json!([2, 0, 8, 0]));
    assert_eq!(db.get::<i64>("select count(*) from hotspot.sale").await, 10);
    assert_eq!(recover(&db, "sale", ", p_include_deleted => true").await, json!([0, 0, 10, 0]));
    db.run("select rowbeat.catch_up()").await;
    assert_eq!(db.get::<i64>("select count(*) from hotspot.sms").await, 0);
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.tasks where definition <> 'hotspot.refresh_dashboard' and definition not in (select definition from rowbeat.schedule)").await, 0, "no task");
    let logged: Value = db.get("select jsonb_agg(jsonb_build_array(object_type, change_message) order by action_time) from hotspot.log_entry where action_flag = 'recovery'").await;
    assert_eq!(logged.as_array().unwrap().len(), 4);
    assert_eq!(logged[3], json!(["sale", "sale: 0 inserted, 0 updated, 10 skipped, 0 conflicts"]));
    let more: i64 = db.get(images).await;
    assert_eq!(more - known, 2, "only the two rows that had been deleted have new images");
    assert_eq!(db.get::<i64>("select (payload ->> 'sales')::bigint from hotspot.dashboard").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_never_overwrites_newer_work_silently() {
    let db = ten_sales().await;
    let moment: String = db.get("select clock_timestamp()::text").await;
    let old: Value = db.get("select to_jsonb(s) from hotspot.sale s where full_name = 'Customer 1'").await;
    db.run("update hotspot.sale set status = 'failed', last_error = 'x' where full_name = 'Customer 1'")
        .await;
    db.run("delete from hotspot.sale where full_name = 'Customer 2'").await;
    assert_eq!(recover(&db, "sale", "").await, json!([0, 0, 8 - 1, 0]), "as of now everything is as it is");
    let until = format!(", p_until => '{moment}'");
    assert_eq!(
        recover(&db, "sale", &until).await,
        json!([1, 0, 6, 1]),
        "the change is reported and left alone; what was there then is back"
    );
    assert_eq!(
        db.get::<String>("select status from hotspot.sale where full_name = 'Customer 1'").await,
        "failed"
    );
    assert_eq!(
        recover(&db, "sale", &format!("{until}, p_force => true, p_actor => 'efua'")).await,
        json!([0, 1, 7, 0])
    );
    assert_eq!(
        db.get::<Value>("select to_jsonb(s) from hotspot.sale s where full_name = 'Customer 1'").await,
        old,
        "updated_at, too"
    );
    assert_eq!(db.get::<String>("select actor from hotspot.log_entry where action_flag = 'recovery' order by action_time desc limit 1").await, "efua");
    assert_eq!(
        db.refusal("select hotspot.recover('log_entry')").await,
        ("RP404".into(), "Table log_entry is not in the backup.".into())
    );
    let rights =
        format!("set role rowbeat_{}_hotspot; select * from rowbeat.backup_image; reset role", db.name);
    assert_eq!(db.refusal(&rights).await.0, "42501", "a plugin reads its own images only, by the views");
    db.run("reset role").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_brings_the_rows_back_into_an_empty_shop() {
    let db = ten_sales().await;
    let _daemon = db.daemon().ready().await;
    db.until("(select bool_and(baselined_at is not null) from rowbeat.backup)").await;
    let before: Value = db.get(SALES).await;
    let document = rowbeat(&db, &["app", "hotspot", "backup_export"]).ok();
    let other = hotspot().await;
    let run = |arguments: &[&str]| {
        let mut all = vec!["app", "hotspot", "recover"];
        all.extend(arguments);
        finish(server().rowbeat(&other.name), &all, &document)
    };
    let said = run(&["--from", "-"]).ok();
    assert!(
        said.contains("sale: 8 inserted, 0 updated, 0 skipped, 0 conflicts")
            && said.contains("staff: 1 inserted"),
        "{said}"
    );
    assert_eq!(other.get::<Value>(SALES).await, before);
    assert!(
        run(&["--from", "-", "--table", "sale", "--deleted"])
            .ok()
            .contains("sale: 2 inserted, 0 updated, 8 skipped")
    );
    run(&["--from", "-", "--until", "2026-01-01T00:00:00Z"]).refused(1, &["A document has one time only."]);
    let nonsense =
        finish(server().rowbeat(&other.name), &["app", "hotspot", "recover", "--from", "-"], "[1]");
    nonsense.refused(1, &["This is no document of a backup."]);
}
