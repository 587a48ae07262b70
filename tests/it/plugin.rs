//! Plugins: installed as a whole or not at all, upgraded without losing anything, removed without surprises.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use rowbeat::plugin::Plugin;
use rowbeat::plugin::bundle::{self, Bundle};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Ran, finish, rowbeat};
use crate::harness::{TestDb, server};

static TALLY: Dir = include_dir!("$CARGO_MANIFEST_DIR/tests/fixtures/tally");

/// A plugin in a folder of its own: the one of the fixtures, with other files laid over it.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn tally() -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        Bundle::of_dir(&TALLY).unwrap().write(&folder.path()).unwrap();
        folder
    }

    /// Nothing but a manifest.
    pub(crate) fn bare(manifest: &str) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        folder.put("plugin.toml", manifest)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("plugin")
    }

    pub(crate) fn put(self, file: &str, text: &str) -> Self {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Replaces a text in a file.
    pub(crate) fn edit(self, file: &str, from: &str, to: &str) -> Self {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        self.put(file, &text.replace(from, to))
    }

    pub(crate) fn append(self, file: &str, more: &str) -> Self {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
        self.put(file, &format!("{text}\n{more}"))
    }

    pub(crate) fn run(&self, db: &TestDb, command: &str, options: &[&str]) -> Ran {
        let path = self.path();
        let mut arguments = vec!["plugin", command, path.to_str().unwrap()];
        arguments.extend(options);
        rowbeat(db, &arguments)
    }

    pub(crate) fn install(&self, db: &TestDb) -> Ran {
        self.run(db, "install", &[])
    }
}

/// Everything that the catalogue, rowbeat's tables and the plugins' roles say, line by line; only sequences may have moved.
pub(crate) fn everything(db: &TestDb) -> Vec<String> {
    let dumped = |program: &str, option: &str| {
        let mut command = std::process::Command::new(program);
        let environment = server().psql(&db.name);
        command.arg(option).envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (database, roles) = (dumped("pg_dump", "--no-publications"), dumped("pg_dumpall", "--roles-only"));
    // The dump of a database has a random word in it; other tests make roles of their own meanwhile.
    let database = database.lines().filter(|line| !line.contains("restrict ") && !line.contains("setval"));
    let roles = roles.lines().filter(|line| line.contains(&format!("rowbeat_{}_", db.name)));
    database.chain(roles).map(str::to_owned).collect()
}

/// Nothing has changed.
pub(crate) fn unchanged(db: &TestDb, before: &[String], why: &str) {
    let now = everything(db);
    let new: Vec<&String> = now.iter().filter(|line| !before.contains(line)).collect();
    let gone: Vec<&String> = before.iter().filter(|line| !now.contains(line)).collect();
    assert!(now == before, "{why}: new are {new:#?}, gone are {gone:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_plugin_works_at_once_under_a_running_daemon() {
    let db = TestDb::new().await;
    let _daemon = db.daemon().ready().await;
    let tally = Folder::tally();
    let said = tally.run(&db, "install", &["--test"]).ok();
    assert!(said.contains("plugin tally 1.0.0 installed"), "{said}");
    assert!(said.contains("passed"), "{said}");
    db.run("select rowbeat.enqueue('tally.count', '{\"what\": \"apples\"}')").await;
    db.until("exists (select from rowbeat.tasks where definition = 'tally.count' and state = 'completed')")
        .await;
    assert_eq!(db.get::<i64>("select times from tally.counter where what = 'apples'").await, 1);
    assert_eq!(
        db.get::<Value>("select to_jsonb(e) - 'input' from rowbeat.plugin_endpoint e").await,
        json!({ "plugin": "tally", "method": "GET", "path": "/api/tally/{what}", "shape": "/api/tally/{}", "auth": "none",
                "function": "tally.show", "cookies": [], "max_body_bytes": 1_048_576, "template": null, "description": "" })
    );
    assert_eq!(
        db.get::<String>(
            "select arguments -> 0 ->> 'type' from rowbeat.plugin_command where name = 'count-now'"
        )
        .await,
        "text"
    );
    let list = rowbeat(&db, &["plugin", "list", "--json"]).json();
    assert_eq!(
        (&list[0]["name"], &list[0]["isolated"], &list[0]["state"]),
        (&json!("tally"), &json!(true), &json!("installed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn folder_zip_and_bundled_are_the_same_plugin_and_installing_twice_is_once() {
    let db = TestDb::new().await;
    let folder = Folder::tally();
    let zip = folder.dir.path().join("t.zip");
    rowbeat(&db, &["plugin", "pack", folder.path().to_str().unwrap(), "--to", zip.to_str().unwrap()]).ok();
    let bundles =
        [Bundle::open(&folder.path()).unwrap(), Bundle::open(&zip).unwrap(), Bundle::of_dir(&TALLY).unwrap()];
    assert!(bundles.iter().all(|bundle| bundle.digest() == bundles[0].digest()));
    assert_eq!(
        bundle::pack(&bundles[0]).unwrap(),
        bundle::pack(&bundles[2]).unwrap(),
        "packed the same every time"
    );
    rowbeat(&db, &["plugin", "install", zip.to_str().unwrap()]).ok();
    let before = everything(&db);
    let again = folder.install(&db).ok();
    assert!(again.contains("tally 1.0.0 is installed already: nothing to do"), "{again}");
    unchanged(&db, &before, "afterwards");
    let out = folder.dir.path().join("out");
    rowbeat(&db, &["plugin", "export", "tally", "--to", out.to_str().unwrap()]).ok();
    assert_eq!(Bundle::open(&out).unwrap().digest(), bundles[0].digest(), "what comes out is what went in");
    rowbeat(&db, &["plugin", "export", "tally", "--to", out.to_str().unwrap()]).refused(1, &["exists"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_does_everything_and_changes_nothing() {
    let db = TestDb::new().await;
    let before = everything(&db);
    let report = Folder::tally().run(&db, "install", &["--dry-run", "--test", "--json"]).json();
    assert_eq!(
        (&report["done"], &report["dry_run"], &report["isolated"]),
        (&json!("installed"), &json!(true), &json!(true))
    );
    let changes: Vec<String> = report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| format!("{} {}", c["kind"], c["name"]))
        .collect();
    assert!(changes.contains(&"\"task\" \"tally.count\"".to_owned()), "{changes:?}");
    unchanged(&db, &before, "afterwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_installation_leaves_nothing_behind() {
    let db = TestDb::new().await;
    let before = everything(&db);
    let broken = [
        (
            Folder::tally().append("functions/show.sql", "select 1;\nselect nothing_of_this;"),
            "functions/show.sql line",
        ),
        (
            Folder::tally().append("migrations/V1__counter.sql", "create table tally.counter ();"),
            "already exists",
        ),
        (
            Folder::tally().edit("plugin.toml", "function = \"tally.show\"", "function = \"tally.shaw\""),
            "tally.shaw(jsonb) does not exist",
        ),
        (
            Folder::tally().edit(
                "plugin.toml",
                "spec = \"@daily\"",
                "spec = \"@daily\"\ntime_zone = \"Mars\"",
            ),
            "[[schedule]] \"tally.daily\"",
        ),
        (
            Folder::tally().put("tests/wrong.sql", "do $$ begin assert false, 'two is not three'; end $$"),
            "two is not three",
        ),
        (
            Folder::tally()
                .append("functions/show.sql", "create procedure tally.p() language sql as $$ select 1 $$;"),
            "is a procedure",
        ),
        (
            Folder::tally().append("functions/show.sql", "set search_path = public; create table t ();"),
            "functions/show.sql",
        ),
    ];
    for (folder, message) in broken {
        folder.run(&db, "install", &["--test"]).refused(1, &[message]);
        unchanged(&db, &before, message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_that_only_the_database_knows_is_listed_at_once() {
    let db = TestDb::new().await;
    let folder = Folder::tally()
        .edit("plugin.toml", "executor = \"sql\"", "executor = \"sql\"\ntimeout = \"soon\"")
        .edit("plugin.toml", "function = \"tally.show\"", "function = \"tally.shaw\"")
        .edit("plugin.toml", "spec = \"@daily\"", "spec = \"@daily\"\ntime_zone = \"Mars\"");
    folder.install(&db).refused(
        1,
        &[
            "3 problems",
            "[[task]] \"tally.count\": invalid input syntax",
            "tally.shaw",
            "line 27",
            "`Mars` is unknown",
        ],
    );
    let folder = Folder::tally().edit(
        "plugin.toml",
        "rowbeat = \"0.1\"",
        "rowbeat = \"0.1\"\nplugins = { other = \"1.2\" }\nfeatures = [\"gold\"]",
    );
    folder.install(&db).refused(1, &["needs plugin other 1.2.0", "feature gold does not exist"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_belong_to_somebody_else_are_refused() {
    let db = TestDb::new().await;
    Folder::tally().install(&db).ok();
    db.run(
        "create function public.f(jsonb) returns jsonb language sql as 'select $1';
         insert into rowbeat.task_definition (name, executor, function) values ('mine', 'sql', 'public.f'); create schema taken",
    )
    .await;
    let other = Folder::bare(
        "format = 1\nname = \"other\"\nversion = \"1.0.0\"\n
         [[task]]\nname = \"tally.count\"\nexecutor = \"external\"\n[[task]]\nname = \"mine\"\nexecutor = \"external\"\n
         [[schedule]]\nname = \"tally.daily\"\nspec = \"@daily\"\ndefinition = \"mine\"\n
         [[endpoint]]\nmethod = \"GET\"\npath = \"/api/tally/{other}\"\nauth = \"none\"\nfunction = \"other.f\"\n",
    )
    .put("functions/f.sql", "create or replace function other.f(request jsonb) returns jsonb language sql as $$ select request $$;");
    other.install(&db).refused(
        1,
        &[
            "4 problems",
            "task \"tally.count\" exists already, it belongs to plugin tally",
            "task \"mine\" exists already and belongs to no plugin",
            "schedule \"tally.daily\"",
            "[[endpoint]] GET /api/tally/{other}: belongs to plugin tally",
        ],
    );
    Folder::bare("format = 1\nname = \"taken\"\nversion = \"1\"\n")
        .install(&db)
        .refused(1, &["schema taken exists already"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_however_they_are_set() {
    let db = TestDb::new().await;
    Folder::tally().install(&db).ok();
    let read = "select rowbeat.read_setting('tally', 'step')";
    assert_eq!(db.get::<String>(read).await, "1");
    rowbeat(&db, &["plugin", "set", "tally", "step", "5"]).ok();
    assert_eq!(db.get::<String>(read).await, "5");
    rowbeat(&db, &["plugin", "set", "tally", "step", "0"])
        .refused(1, &["0 is no value for setting step of plugin tally", "\"min\": 1"]);
    rowbeat(&db, &["plugin", "set", "tally", "step", "many"]).refused(1, &["is no integer"]);
    rowbeat(&db, &["plugin", "set", "tally", "stop", "1"]).refused(1, &["has no setting stop"]);
    assert_eq!(db.refusal("update rowbeat.plugin_setting set value = '-1'").await.0, "22023");
    rowbeat(&db, &["plugin", "set", "tally", "step", "--default"]).ok();
    assert_eq!(rowbeat(&db, &["plugin", "set", "tally", "--json"]).json()[0]["value"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_plugin_installs_and_passes_its_own_tests() {
    let db = TestDb::new().await;
    let dir = tempfile::tempdir().unwrap();
    let mut command = server().rowbeat(&db.name);
    command.current_dir(dir.path());
    finish(command, &["plugin", "new", "fresh"], "").ok();
    let path = dir.path().join("fresh");
    assert!(Plugin::read(Bundle::open(Path::new(&path)).unwrap()).is_ok());
    rowbeat(&db, &["plugin", "install", path.to_str().unwrap(), "--test"]).ok();
}

#[tokio::test]
async fn the_columns_that_plugins_may_set_agree_with_the_catalogue() {
    let db = TestDb::new().await;
    for kind in &rowbeat::plugin::manifest::row::KINDS {
        let mut columns: Vec<String> = db
            .get_with(
                "select array_agg(attname::text order by attname) from pg_attribute
                 where attrelid = ('rowbeat.' || $1)::regclass and attnum > 0 and not attisdropped and attname <> 'name'",
                &[&kind.table],
            )
            .await;
        columns.sort();
        let mut known: Vec<&str> = kind.columns.iter().chain(kind.not_for_plugins).copied().collect();
        known.sort_unstable();
        assert_eq!(
            columns, known,
            "say in KINDS of src/plugin/manifest/row.rs whether plugins may set these columns of {}",
            kind.table
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_installations_at_once_one_does_it() {
    let db = TestDb::new().await;
    let (connector, plugin) = (db.connector.clone(), Plugin::read(Bundle::of_dir(&TALLY).unwrap()).unwrap());
    let install = async || {
        rowbeat::plugin::installer::install(
            &connector,
            &plugin,
            rowbeat::plugin::installer::Options::default(),
            &|_| (),
        )
        .await
        .unwrap()
        .done
    };
    let mut done = [(); 4].map(|()| "");
    (done[0], done[1], done[2], done[3]) = tokio::join!(install(), install(), install(), install());
    done.sort_unstable();
    assert_eq!(done, ["installed", "unchanged", "unchanged", "unchanged"]);
}
