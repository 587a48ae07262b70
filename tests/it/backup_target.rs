//! Further targets: each goes on where it was, and says what is wrong.

use std::io::Write;

use crate::backup::{accounts, keep_all};
use crate::cli::finish;
use crate::harness::{TestDb, server};

/// The files of a folder as one text.
fn files(folder: &std::path::Path) -> String {
    let paths = rowbeat::backup::folder::files(folder).unwrap();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

const CAUGHT_UP: &str = "(select bool_and(position = (select max(number) from rowbeat.backup_transaction) and error is null) from rowbeat.backup_target)";

#[tokio::test(flavor = "multi_thread")]
async fn files_are_appended_to_only_and_a_torn_end_is_cut() {
    let db = accounts(3).await;
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("[backup.archive]\nfolder = \"{}\"\n", folder.path().display());
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until(CAUGHT_UP).await;
    daemon.kill9();
    let first = files(folder.path());
    assert_eq!(first.lines().count(), 1, "{first}");
    let newest = rowbeat::backup::folder::files(folder.path()).unwrap().pop().unwrap();
    std::fs::OpenOptions::new()
        .append(true)
        .open(&newest)
        .unwrap()
        .write_all(b"{\"length\":99,\"sha256\":\"00")
        .unwrap();
    db.run("insert into public.account values (4, 'new', 1.50)").await;
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until("(select count(*) = 4 from rowbeat.backup_latest)").await;
    db.until(CAUGHT_UP).await;
    let (status, log) = daemon.stop().await;
    assert!(status.success() && log.contains("cut off"), "{log}");
    let second = files(folder.path());
    assert!(second.starts_with(&first) && second.lines().count() == 2 && second.contains("1.50"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_file_is_found() {
    let db = accounts(3).await;
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("[backup.archive]\nfolder = \"{}\"\n", folder.path().display());
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until(CAUGHT_UP).await;
    drop(daemon);
    let config = folder.path().join("rowbeat.toml");
    std::fs::write(&config, &toml).unwrap();
    let verify = || {
        let arguments = ["backup", "verify", "--target", "archive", "--config", config.to_str().unwrap()];
        finish(server().rowbeat(&db.name), &arguments, "")
    };
    verify().ok();
    let newest = rowbeat::backup::folder::files(folder.path()).unwrap().pop().unwrap();
    std::fs::write(&newest, files(folder.path()).replace("\"o2\"", "\"O2\"")).unwrap();
    verify().refused(1, &["damaged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_which_a_second_database_differs_are_named() {
    let (db, second) = (accounts(5).await, TestDb::empty().await);
    let toml = format!("[backup.second]\nurl = \"{}\"\n", server().url(&second.name));
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until("(select count(*) = 1 from rowbeat.backup_target)").await;
    db.until(CAUGHT_UP).await;
    drop(daemon);
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), &toml).unwrap();
    let verify = |more: &[&str]| {
        let arguments =
            ["backup", "verify", "--target", "second", "--config", config.path().to_str().unwrap()];
        finish(server().rowbeat(&db.name), &[&arguments, more].concat(), "")
    };
    verify(&[]).ok();
    second
        .run("update rowbeat.backup_image set row = row || '{\"owner\": \"O2\"}' where key = '{\"id\": 2}';
              delete from rowbeat.backup_image where key = '{\"id\": 3}';
              insert into rowbeat.backup_image (id, source, key, operation, row, transaction, at) overriding system value
              select 99, source, '{\"id\": 9}', operation, row, transaction, at from rowbeat.backup_image where key = '{\"id\": 1}'")
        .await;
    let ran = verify(&[]);
    ran.refused(1, &["has not the images of public.account"]);
    assert_eq!(
        ran.out,
        "public.account {\"id\": 2}: different\npublic.account {\"id\": 3}: missing\npublic.account {\"id\": 9}: unknown\n"
    );
    let said = verify(&["--json"]).json();
    assert_eq!(
        said["keys"][1],
        serde_json::json!({ "backup": "public.account", "key": { "id": 3 }, "is": "missing" })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_is_told_of_and_keeps_up_nobody_else() {
    let (db, other) = (accounts(2).await, accounts(1).await);
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "[backup.taken]\nurl = \"{}\"\n[backup.away]\nurl = \"postgresql:///x?host=/nowhere&user=postgres\"\n[backup.archive]\nfolder = \"{}\"\n",
        server().url(&other.name),
        folder.path().display()
    );
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until("(select count(*) = 3 and count(error) = 2 from rowbeat.backup_target)").await;
    db.until("(select position > 0 from rowbeat.backup_target where name = 'archive')").await;
    let detail: String =
        db.get("select detail from rowbeat.health where \"check\" = 'backups' and not ok").await;
    assert!(detail.contains("has backups of its own") && detail.contains("target away"), "{detail}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_set_back_is_noticed_by_its_targets_and_they_stay_as_they_are() {
    let (db, second) = (accounts(3).await, TestDb::empty().await);
    let folder = tempfile::tempdir().unwrap();
    let toml = format!(
        "[backup.second]\nurl = \"{}\"\n[backup.archive]\nfolder = \"{}\"\n",
        server().url(&second.name),
        folder.path().display()
    );
    let config = folder.path().join("rowbeat.toml");
    std::fs::write(&config, &toml).unwrap();
    let verify = |target| {
        let arguments = ["backup", "verify", "--target", target, "--config", config.to_str().unwrap()];
        finish(server().rowbeat(&db.name), &arguments, "")
    };
    let write = async |id: i32| {
        db.run(&format!("insert into public.account values ({id}, 'new', 1)")).await;
        keep_all(&db).await;
    };
    write(4).await;
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until("(select count(*) = 2 from rowbeat.backup_target)").await;
    db.until(CAUGHT_UP).await;
    daemon.kill9();
    let kept = "select md5(string_agg(h::text, '|' order by image)) from rowbeat.backup_history h";
    let (in_files, in_second): (String, String) = (files(folder.path()), second.get(kept).await);
    for target in ["second", "archive"] {
        verify(target).ok();
    }
    // As of before the last transaction: what it wrote, and its number, are not known any more.
    db.run("set session_replication_role = replica; delete from public.account where id = 4; reset session_replication_role;
            delete from rowbeat.backup_image i using rowbeat.backup_transaction t where t.id = i.transaction and t.number = 2;
            delete from rowbeat.backup_transaction where number = 2; select setval('rowbeat.backup_number', 1)")
        .await;
    let noticed = "(select count(*) = 2 and bool_and(error like '%set back%') from rowbeat.backup_target)";
    for another in [false, true] {
        if another {
            write(5).await;
            let number: i64 = db.get("select max(number) from rowbeat.backup_transaction").await;
            assert_eq!(number, 2, "the number stands for another transaction");
        }
        for target in ["second", "archive"] {
            verify(target).refused(1, &["set back"]);
        }
        db.run("update rowbeat.backup_target set error = null").await;
        let daemon = db.daemon_with(&toml, &[]).ready().await;
        db.until(noticed).await;
        daemon.kill9();
    }
    assert_eq!((files(folder.path()), second.get::<String>(kept).await), (in_files, in_second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_database_takes_over_by_a_restore_of_its_own() {
    let db = accounts(5).await;
    let second = TestDb::empty().await;
    let toml = format!("[backup.second]\nurl = \"{}\"\n", server().url(&second.name));
    let daemon = db.daemon_with(&toml, &[]).ready().await;
    db.until(CAUGHT_UP).await;
    drop(daemon);
    second
        .run("create table public.account (id bigint primary key, owner text, balance numeric, at timestamptz not null default now());
              select rowbeat.restore('{public.account}')")
        .await;
    assert_eq!(
        crate::backup::hash(&second, "public.account").await,
        crate::backup::hash(&db, "public.account").await
    );
}
