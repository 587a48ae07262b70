//! Backups under kill -9: of the daemon and of a target, during 10,000 transactions. Afterwards everything that was committed is in the
//! images, in the second database and in the files, once, and the tables come back from each of them row for row.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowbeat::db::embedded::PrivatePostgres;

use crate::backup::hash;
use crate::cli::finish;
use crate::embedded::{options, scratch};
use crate::harness::{TestDb, server};

const WRITERS: u64 = 4;
const EACH: usize = 2500;

const TABLES: &str = "
    create table public.account (id bigint primary key, owner text not null, balance numeric(12,2) not null, created_at timestamptz not null default now());
    create table public.entry (id bigint generated always as identity primary key, account bigint not null references public.account on delete cascade,
        amount numeric not null, note jsonb, at timestamptz not null default clock_timestamp());
    create table public.mark (n bigint primary key);
    select rowbeat.enable_backup(t) from unnest('{public.account,public.entry}'::regclass[]) t;";

/// A transaction, sent as one text; some roll back.
fn transaction(rng: &mut Rng, writer: u64, n: usize) -> String {
    let id = i64::try_from(writer).unwrap() * 1_000_000 + rng.i64(0..200);
    let work = match rng.u32(0..6) {
        0 => format!("delete from public.account where id = {id}"),
        1 => format!("update public.account set balance = balance * 1.01, owner = 'o{n}' where id between {id} and {id} + 2"),
        2 => format!("update public.entry set amount = amount + 0.10 where account = {id}"),
        _ => format!(
            "insert into public.account (id, owner, balance) values ({id}, 'new', 1.10) on conflict (id) do update set balance = account.balance + 1;
             insert into public.entry (account, amount, note) values ({id}, {n}.50, '{{\"n\": {n}.00}}')"
        ),
    };
    let mark = i64::try_from(writer).unwrap() * 1_000_000 + i64::try_from(n).unwrap();
    match n % 10 {
        0 => format!("begin; {work}; rollback; insert into public.mark values ({mark})"),
        _ => format!("begin; {work}; insert into public.mark values ({mark}); commit"),
    }
}

async fn hashes(db: &TestDb) -> (String, String) {
    (hash(db, "public.account").await, hash(db, "public.entry").await)
}

/// Kills the whole server, as a power cut would, and waits until it is back.
async fn crash(target: &mut PrivatePostgres) {
    kill(Pid::from_raw(i32::try_from(target.pid()).unwrap()), Signal::SIGKILL).unwrap();
    // Until its last process is gone it cannot be started again.
    while !matches!(target.run_once().await, Ok(true)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn configuration(target: &PrivatePostgres, archive: &Path) -> String {
    let at = target.server();
    format!(
        "[backup.second]\nurl = \"postgresql:///copy?host={}&port={}&user=postgres\"\n[backup.archive]\nfolder = \"{}\"\n",
        at.socket_folder.display(),
        at.port,
        archive.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missing_or_doubled_after_kills_of_daemon_and_target_under_load() {
    let db = TestDb::new().await;
    db.run(TABLES).await;
    let folder = scratch();
    let archive = tempfile::tempdir().unwrap();
    let mut target = PrivatePostgres::start(options(folder.path())).await.unwrap();
    target.create_database("copy").await.unwrap();
    let toml = configuration(&target, archive.path());
    let mut daemon = db.daemon_with(&toml, &[]).ready().await;
    let mut writers = Vec::new();
    for writer in 1..=WRITERS {
        let session = db.session().await;
        writers.push(tokio::spawn(async move {
            let mut rng = Rng::with_seed(writer);
            for n in 0..EACH {
                session.batch_execute(&transaction(&mut rng, writer, n)).await.unwrap();
            }
        }));
    }
    for round in 1..=4 {
        db.until(&format!("(select count(*) >= {} from public.mark)", round * 2000)).await;
        daemon.kill9();
        if round % 2 == 0 {
            crash(&mut target).await;
        }
        daemon = db.daemon_with(&toml, &[]);
        if round % 2 == 1 {
            db.until("(select max(position) > 0 from rowbeat.backup_target where kind = 'database')").await;
            crash(&mut target).await;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(db.get::<i64>("select count(*) from public.mark").await, 10_000);
    db.run("select rowbeat.catch_up()").await;
    db.until("(select count(*) = 2 and bool_and(position = (select max(number) from rowbeat.backup_transaction)) from rowbeat.backup_target)").await;
    daemon.kill9();

    // Each change has one image, and each image is in each target.
    let changes: i64 = db.get("select count(*) from rowbeat.change where table_name in ('public.account'::regclass, 'public.entry'::regclass)").await;
    let images: i64 =
        db.get("select count(*) from rowbeat.backup_history where operation <> 'BASELINE'").await;
    assert!(changes > 10_000, "{changes}");
    assert_eq!(images, changes);
    let config = archive.path().join("rowbeat.toml");
    std::fs::write(&config, &toml).unwrap();
    let run = |arguments: &[&str]| {
        let arguments: Vec<&str> =
            arguments.iter().copied().chain(["--config", config.to_str().unwrap()]).collect();
        finish(server().rowbeat(&db.name), &arguments, "").ok()
    };
    run(&["backup", "verify"]);
    for name in ["second", "archive"] {
        run(&["backup", "verify", "--target", name]);
    }

    let before = hashes(&db).await;
    for from in [&[][..], &["--from", "second"], &["--from", "archive"]] {
        db.run("truncate public.account cascade").await;
        assert_ne!(hashes(&db).await, before);
        run(&[&["restore"], from].concat());
        assert_eq!(hashes(&db).await, before, "{from:?}");
    }
    target.stop().await.unwrap();
}
