//! Restores: which rows come back, as what, and what is left alone.

use serde_json::{Value, json};

use crate::backup::{accounts, hash, keep_all};
use crate::cli::rowbeat;
use crate::harness::TestDb;

/// Inserted, updated, skipped and conflicts of each backup.
async fn restore(db: &TestDb, arguments: &str) -> Value {
    db.get(&format!(
        "select coalesce(jsonb_object_agg(r.backup, jsonb_build_array(r.inserted, r.updated, r.skipped, r.conflicts)), '{{}}') from rowbeat.restore({arguments}) r"
    ))
    .await
}

fn counts(inserted: i64, updated: i64, skipped: i64, conflicts: i64) -> Value {
    json!({ "public.account": [inserted, updated, skipped, conflicts] })
}

#[tokio::test]
async fn a_truncated_table_comes_back_as_it_was_and_again_changes_nothing() {
    let db = TestDb::new().await.with_effects().await;
    db.run(
        "create table public.account (id bigint primary key, owner text, balance numeric);
         insert into rowbeat.watch (table_name, definition, operations) values ('public.account', 'add_effect', '{INSERT,UPDATE,DELETE}');
         select rowbeat.enable_backup('public.account');
         insert into public.account select g, 'o', g from generate_series(1, 10) g;
         update public.account set balance = 100 where id = 1; delete from public.account where id in (2, 3);
",
    )
    .await;
    db.run("begin; insert into public.account values (99, 'nobody', 0); rollback").await;
    db.run("select rowbeat.route_changes()").await;
    let (before, tasks) = (hash(&db, "public.account").await, "select count(*) from rowbeat.task");
    let enqueued: i64 = db.get(tasks).await;
    db.run("truncate public.account").await;
    assert_eq!(restore(&db, "").await, counts(8, 0, 0, 0));
    assert_eq!(hash(&db, "public.account").await, before);
    let images = "select count(*) from rowbeat.backup_history";
    db.run("select rowbeat.catch_up()").await;
    let kept: i64 = db.get(images).await;
    assert_eq!(kept, 14, "10 inserts, an update, two deletes and the TRUNCATE, and none of the restore");
    assert_eq!(restore(&db, "").await, counts(0, 0, 8, 0));
    assert_eq!(restore(&db, "p_include_deleted => true, p_actor => 'ann'").await, counts(2, 0, 8, 0));
    db.run("select rowbeat.catch_up(); select rowbeat.route_changes()").await;
    assert_eq!(
        db.get::<i64>(images).await,
        kept + 2,
        "those that were deleted have another content than nothing"
    );
    let last: Value = db.get("select jsonb_agg(distinct jsonb_build_array(operation, actor)) from rowbeat.backup_history where image > 14").await;
    assert_eq!(last, json!([["RESTORE", "ann"]]));
    assert_eq!(db.get::<i64>(tasks).await, enqueued, "no watch heard of it");
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.backup_deleted").await, 0);
}

#[tokio::test]
async fn what_differs_is_reported_and_overwritten_only_by_force() {
    let db = accounts(4).await;
    let until: String = db.get("select rowbeat.now_()::text").await;
    let before = hash(&db, "public.account").await;
    db.run(
        "update public.account set balance = 50 where id = 1; delete from public.account where id = 2;
            insert into public.account values (5, 'later', 5)",
    )
    .await;
    let at = format!("p_until => '{until}'");
    let keys: Value =
        db.get(&format!("select conflict_keys from rowbeat.restore({at}, p_dry_run => true)")).await;
    assert_eq!(keys, json!([{ "id": 1 }]));
    assert_eq!(db.get::<i64>("select count(*) from public.account").await, 4, "a dry run does nothing");
    assert_eq!(restore(&db, &at).await, counts(1, 0, 2, 1));
    assert_eq!(db.get::<i64>("select balance::bigint from public.account where id = 1").await, 50);
    assert_eq!(restore(&db, &format!("{at}, p_force => true")).await, counts(0, 1, 3, 0));
    assert_eq!(restore(&db, &format!("{at}, p_force => true")).await, counts(0, 0, 4, 0));
    db.run("select rowbeat.catch_up()").await;
    let images: i64 = db.get("select count(*) from rowbeat.backup_history where operation = 'RESTORE'").await;
    assert_eq!(images, 2, "one for each row that got an older content");
    assert_eq!(restore(&db, "").await, counts(0, 0, 5, 0), "which is the newest now");
    db.run("delete from public.account where id = 5").await;
    assert_eq!(hash(&db, "public.account").await, before);
}

#[tokio::test]
async fn a_transaction_is_restored_as_a_whole_or_not_at_all() {
    let db = accounts(1).await;
    let session = db.session().await;
    session.batch_execute("begin; insert into public.account values (2, 'first', 2)").await.unwrap();
    let between: String = db.get("select rowbeat.now_()::text").await;
    session.batch_execute("insert into public.account values (3, 'second', 3); commit").await.unwrap();
    db.run("select rowbeat.catch_up(); truncate public.account").await;
    assert_eq!(restore(&db, &format!("p_until => '{between}'")).await, counts(1, 0, 0, 0));
    assert_eq!(restore(&db, "").await, counts(2, 0, 1, 0));
}

#[tokio::test]
async fn parents_come_before_children_and_those_of_a_circle_too() {
    let db = TestDb::new().await;
    db.run(
        "create table public.zone (id int primary key, chief int);
         create table public.area (id int primary key, zone int not null references public.zone, above int references public.area);
         create table public.a_child (id int primary key, area int not null references public.area);
         alter table public.zone add foreign key (chief) references public.a_child deferrable;
         insert into public.zone values (1); insert into public.area values (1, 1, null), (2, 1, 1), (3, 1, 2); insert into public.a_child values (1, 3);
         update public.zone set chief = 1;
         select rowbeat.enable_backup(t) from unnest('{public.a_child,public.area,public.zone}'::regclass[]) t;",
    )
    .await;
    keep_all(&db).await;
    let order = "select array_agg(t::text) from unnest(rowbeat.restore_order('{public.a_child,public.zone,public.area}')) t";
    db.run("truncate public.zone cascade").await;
    rowbeat(&db, &["restore", "--dry-run"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from public.zone").await, 0);
    rowbeat(&db, &["restore"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from public.area").await, 3);
    db.run("alter table public.zone drop constraint zone_chief_fkey").await;
    assert_eq!(db.get::<Vec<String>>(order).await, ["zone", "area", "a_child"]);
    db.run("truncate public.zone cascade").await;
    let said = rowbeat(&db, &["restore", "--dry-run"]).ok();
    assert!(said.contains("nothing was done"), "{said}");
    assert_eq!(db.get::<i64>("select count(*) from public.zone").await, 0);
    rowbeat(&db, &["restore"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from public.a_child").await, 1);
}

#[tokio::test]
async fn the_tables_own_triggers_rest_and_work_again_afterwards() {
    let db = accounts(2).await;
    db.run(
        "create function public.touch() returns trigger language plpgsql as $$ begin new.at := '2000-01-01'; return new; end $$;
         create trigger touch before insert or update on public.account for each row execute function public.touch();
         create trigger always before insert on public.account for each row execute function public.touch();
         alter table public.account enable always trigger always;",
    )
    .await;
    let before = hash(&db, "public.account").await;
    db.run("truncate public.account").await;
    assert_eq!(restore(&db, "").await, counts(2, 0, 0, 0));
    assert_eq!(hash(&db, "public.account").await, before);
    let enabled: Vec<String> =
        db.get("select array_agg(tgname || ' ' || tgenabled::text order by tgname) from pg_trigger where tgrelid = 'public.account'::regclass and tgname in ('touch', 'always')").await;
    assert_eq!(enabled, ["always A", "touch O"]);
}

#[tokio::test]
async fn columns_are_found_by_name_and_what_has_none_is_reported() {
    let db = accounts(2).await;
    db.run("alter table public.account rename owner to holder; alter table public.account add column extra int default 7;
            insert into public.account (id, holder, extra) values (3, 'new', 8); select rowbeat.catch_up(); truncate public.account").await;
    let unmapped: Vec<String> = db.get("select unmapped from rowbeat.restore()").await;
    assert_eq!(unmapped, ["owner"]);
    let rows: Value = db
        .get(
            "select jsonb_agg(jsonb_build_array(id, holder, balance, extra) order by id) from public.account",
        )
        .await;
    assert_eq!(rows, json!([[1, null, 1, 7], [2, null, 2, 7], [3, "new", null, 8]]));
}

#[tokio::test]
async fn identity_columns_keep_their_values_and_the_sequence_goes_on_behind_them() {
    let db = TestDb::new().await;
    db.run(
        "create table public.note (id bigint generated always as identity primary key, text text, n serial);
         select rowbeat.enable_backup('public.note');
         insert into public.note (text) select 'x' from generate_series(1, 5); select rowbeat.catch_up();
         drop table public.note;
         create table public.note (id bigint generated always as identity primary key, text text, n serial);",
    )
    .await;
    let said = rowbeat(&db, &["restore", "public.note"]).ok();
    assert!(said.contains("public.note  5"), "{said}");
    rowbeat(&db, &["backup", "enable", "public.note"]).ok();
    assert_eq!(db.get::<i64>("insert into public.note (text) values ('y') returning id").await, 6);
    assert_eq!(db.get::<i32>("select n from public.note where id = 6").await, 6);
    rowbeat(&db, &["backup", "verify"]).ok();
}

#[tokio::test]
async fn keys_of_any_type_are_found_and_conflicts_are_told_by_them() {
    let db = TestDb::new().await;
    db.run(
        "create table public.price (code varchar(5), rate numeric(6,2), notes text[] unique, size int generated always as (length(code)) stored,
             primary key (code, rate));
         select rowbeat.enable_backup('public.price');
         insert into public.price values ('a', 1.10, '{x,null}'), ('b', 2, '{y}'), ('c', 3, '{z}');",
    )
    .await;
    let before = hash(&db, "public.price").await;
    db.run("select rowbeat.catch_up(); truncate public.price").await;
    let counted = "select array[r.inserted, r.updated, r.skipped, r.conflicts] from rowbeat.restore() r";
    assert_eq!(db.get::<Vec<i64>>(counted).await, [3, 0, 0, 0]);
    assert_eq!(hash(&db, "public.price").await, before);
    assert_eq!(db.get::<i64>("select equal from rowbeat.verify_backup('public.price')").await, 3);
    let until: String = db.get("select rowbeat.now_()::text").await;
    db.run(
        "delete from public.price where code = 'a'; insert into public.price values ('d', 4, '{x,null}');
            update public.price set notes = null where code = 'b'",
    )
    .await;
    let keys: Value =
        db.get(&format!("select r.conflict_keys from rowbeat.restore(p_until => '{until}') r")).await;
    assert_eq!(keys, json!([{ "code": "b", "rate": 2.00 }, { "code": "a", "rate": 1.10 }]));
    assert_eq!(db.get::<i64>("select equal from rowbeat.verify_backup('public.price')").await, 3);
}

#[tokio::test]
async fn a_unique_value_that_somebody_else_has_by_now_is_a_conflict() {
    let db = accounts(2).await;
    db.run("create unique index on public.account (owner); delete from public.account where id = 1; insert into public.account (id, owner) values (7, 'o1')").await;
    assert_eq!(restore(&db, "p_include_deleted => true").await, counts(0, 0, 2, 1));
}

#[tokio::test]
async fn a_document_is_a_backup_as_well() {
    let db = accounts(3).await;
    db.run("set rowbeat.actor = 'ann'; delete from public.account where id = 3").await;
    let document: Value = db.get("select rowbeat.backup_document()").await;
    assert_eq!(document["tables"]["public.account"]["1"]["owner"], "o1");
    assert_eq!(document["deleted"]["public.account"]["3"]["deleted_by"], "ann");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.json");
    std::fs::write(&file, rowbeat(&db, &["backup", "export"]).ok()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap(), document);
    let before = hash(&db, "public.account").await;
    db.run("delete from public.account; delete from rowbeat.backup; delete from rowbeat.backup_source; delete from rowbeat.backup_image").await;
    let file = file.to_str().unwrap();
    rowbeat(&db, &["restore", "--document", file]).ok();
    assert_eq!(hash(&db, "public.account").await, before);
    let said = rowbeat(&db, &["restore", "--document", file, "--deleted", "--json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["restored"][0]["inserted"], 1);
}

#[tokio::test]
async fn who_would_start_tasks_may_not_restore() {
    let db = accounts(1).await;
    db.run("drop role if exists restorer_x; create role restorer_x login; grant rowbeat_operator to restorer_x; set session authorization restorer_x").await;
    let (code, message) = db.refusal("select rowbeat.restore()").await;
    db.run("reset session authorization; revoke rowbeat_operator from restorer_x; drop role restorer_x")
        .await;
    assert_eq!(code, "42501", "{message}");
}

#[tokio::test]
async fn verify_tells_lost_rows_and_is_a_failure_until_they_are_back() {
    let db = accounts(3).await;
    rowbeat(&db, &["backup", "verify"]).ok();
    db.run("truncate public.account").await;
    let ran = rowbeat(&db, &["backup", "verify"]);
    ran.refused(1, &["differ"]);
    assert!(ran.out.contains("{\"id\":1}: lost"), "{}", ran.out);
    rowbeat(&db, &["restore"]).ok();
    rowbeat(&db, &["backup", "verify", "public.account"]).ok();
    rowbeat(&db, &["restore", "nothing"]).refused(1, &["there is no backup nothing"]);
}

#[tokio::test]
async fn a_plugin_sees_and_restores_its_own_tables_only() {
    let db = accounts(1).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "plugin.toml",
        "format = 1\nname = \"keeper\"\nversion = \"1.0.0\"\ndescription = \"notes\"\n[requires]\nrowbeat = \"0.1\"\n
         [[backup]]\nname = \"keeper.note\"\ntable_name = \"keeper.note\"\n",
    );
    write(
        "migrations/V1__note.sql",
        "create table keeper.note (id bigint generated always as identity primary key, text text);",
    );
    write(
        "functions/note.sql",
        "create or replace function keeper.restore_all() returns setof text language sql volatile as $$ select r.backup || ' ' || r.inserted from rowbeat.restore() r $$;
         create or replace function keeper.restore_other() returns setof text language sql volatile as $$ select r.backup from rowbeat.restore('{public.account}') r $$;
         create or replace function keeper.seen() returns text[] language sql volatile as $$ select array_agg(distinct h.backup) from rowbeat.backup_history h $$;",
    );
    rowbeat(&db, &["plugin", "install", folder.path().to_str().unwrap()]).ok();
    db.run(
        "insert into keeper.note (text) values ('a'), ('b'); select rowbeat.catch_up(); truncate keeper.note",
    )
    .await;
    assert_eq!(db.get::<String>("select keeper.restore_all()").await, "keeper.note 2");
    assert_eq!(db.get::<Vec<String>>("select keeper.seen()").await, ["keeper.note"]);
    assert_eq!(db.refusal("select keeper.restore_other()").await.0, "42P01");
    rowbeat(&db, &["plugin", "remove", "keeper"]).ok();
    assert_eq!(db.get::<i64>("select count(*) from rowbeat.backup where name = 'keeper.note'").await, 0);
    assert_eq!(
        db.get::<i64>("select count(*) from rowbeat.backup_source where name = 'keeper.note'").await,
        1,
        "the images stay"
    );
    rowbeat(&db, &["plugin", "remove", "keeper", "--purge"]).ok();
    assert_eq!(
        db.get::<Vec<String>>("select array_agg(distinct backup) from rowbeat.backup_history").await,
        ["public.account"]
    );
}

#[tokio::test]
async fn a_table_that_was_dropped_keeps_the_others_from_nothing() {
    let db = accounts(3).await;
    db.run("create table public.gone (id bigint primary key); select rowbeat.enable_backup('public.gone'); insert into public.gone values (1)").await;
    db.run("select rowbeat.catch_up()").await;
    db.run("drop table public.gone; delete from public.account where id = 1; truncate public.account").await;
    assert_eq!(restore(&db, "p_dry_run => true, p_include_deleted => true").await, counts(3, 0, 0, 0));
    let ran = rowbeat(&db, &["restore", "--deleted"]);
    assert!(ran.code == Some(0) && ran.err.contains("public.gone is gone"), "{ran:?}");
    assert_eq!(restore(&db, "").await, counts(0, 0, 3, 0));
    let (code, _) = db.refusal("select rowbeat.restore('{public.gone}')").await;
    assert_eq!(code, "42P01", "asked for by name, it is an error");
    rowbeat(&db, &["backup", "verify", "account"]).ok();
}

#[tokio::test]
async fn force_moves_unique_values_back_and_reports_what_still_collides() {
    let db = TestDb::new().await;
    db.run(
        "create table public.seat (id int primary key, holder text unique);
         select rowbeat.enable_backup('public.seat');
         insert into public.seat values (1, 'ann'), (2, null), (3, 'cid'), (4, 'dan'), (5, 'eve'), (6, 'fay')",
    )
    .await;
    db.run("select rowbeat.catch_up()").await;
    let then: String = db.get("select clock_timestamp()::text").await;
    // ann moved to a row that had nobody; what cid had belongs to a newer row; eve and fay changed places.
    db.run(
        "update public.seat set holder = null where id = 1; update public.seat set holder = 'ann' where id = 2;
         update public.seat set holder = 'cyd' where id = 3; insert into public.seat values (7, 'cid');
         update public.seat set holder = 'x' where id = 5; update public.seat set holder = 'eve' where id = 6;
         update public.seat set holder = 'fay' where id = 5",
    )
    .await;
    let restored: Value = db
        .get(&format!(
            "select jsonb_agg(to_jsonb(r)) from rowbeat.restore(p_until => '{then}', p_force => true) r"
        ))
        .await;
    let counted = |key: &str| restored[0][key].as_i64().unwrap();
    assert_eq!(
        (counted("inserted"), counted("updated"), counted("skipped"), counted("conflicts")),
        (0, 2, 1, 3),
        "{restored}"
    );
    let mut keys: Vec<i64> = restored[0]["conflict_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["id"].as_i64().unwrap())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [3, 5, 6]);
    let holders: Value =
        db.get("select jsonb_object_agg(id, holder) from public.seat where id in (1, 2, 3, 7)").await;
    assert_eq!(holders, json!({ "1": "ann", "2": null, "3": "cyd", "7": "cid" }));
}
