//! Migrations and the replaceable files.
//!
//! Two kinds of SQL make the schema: `refinery_migrations/` (tables; each applied once, in order, never edited) and
//! `sql/functions/`, `triggers/` (replaced whenever their text changed, by checksum). All of it happens on one direct
//! session under an advisory lock, so two at once are safe, with a short `lock_timeout` and retries, so that nobody queues
//! behind a waiting ALTER. A schema newer than this binary is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use refinery::{Migration, Runner};
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Connection, Socket};

use super::connect::{ConnectError, Connector, TlsStream};
use super::{query, sqlstate};

static MIGRATIONS: Dir = include_dir!("$CARGO_MANIFEST_DIR/refinery_migrations");
static FUNCTIONS: Dir = include_dir!("$CARGO_MANIFEST_DIR/sql/functions");
static TRIGGERS: Dir = include_dir!("$CARGO_MANIFEST_DIR/triggers");

const HISTORY: &str = "rowbeat.schema_history";
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Why the schema is not as this binary needs it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused a statement.
    #[error("{}", sqlstate::describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// A file of one of the folders has a name that says nothing.
    #[error("{folder}/{file} is misnamed: expected {expected}")]
    Misnamed {
        /// The folder.
        folder: &'static str,
        /// The file.
        file: String,
        /// What its name should look like.
        expected: &'static str,
    },
    /// A migration failed, or what is in the database differs from the file of that number.
    #[error("migration failed: {0}")]
    Refinery(#[from] refinery::Error),
    /// A function or trigger file failed.
    #[error("{file}: {}", sqlstate::describe(.error))]
    File {
        /// The file.
        file: String,
        /// What the server said.
        error: tokio_postgres::Error,
    },
    /// The database was made by a newer rowbeat.
    #[error(
        "the schema is at version {found}, this rowbeat knows only up to {known}: install the newer rowbeat, or one that \
         matches the database"
    )]
    Newer {
        /// Version in the database.
        found: i32,
        /// Newest version of this binary.
        known: i32,
    },
    /// The database was made by an older rowbeat.
    #[error(
        "the schema is behind this rowbeat ({pending} to apply): run `rowbeat migrate` (see it first with --plan)"
    )]
    Older {
        /// How many steps are pending.
        pending: usize,
    },
    /// A lock could not be had.
    #[error("a lock was not free within {LOCK_TRIES} tries of one second: {0}")]
    Busy(String),
    /// The connection ended.
    #[error("the connection ended while migrating")]
    Closed,
}

impl MigrateError {
    /// Whether waiting may help: the database is away, not whatever it holds.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Busy(_) | Self::Closed => true,
            Self::Postgres(error) | Self::File { error, .. } => sqlstate::is_outage(error),
            Self::Refinery(error) => postgres_error(error).is_some_and(sqlstate::is_outage),
            Self::Misnamed { .. } | Self::Newer { .. } | Self::Older { .. } => false,
        }
    }
}

/// What is pending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether the database has a schema `rowbeat` at all.
    pub installed: bool,
    /// Version in the database, 0 for none.
    pub current: i32,
    /// Version of this binary.
    pub target: i32,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One pending step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The file.
    pub file: String,
    /// migration or replace.
    pub kind: &'static str,
    /// The locks its header tells of.
    pub locks: String,
}

struct Source {
    name: String,
    text: &'static str,
}

/// What is pending for the database, without changing anything.
///
/// # Errors
/// `Newer`, `Misnamed`, or that the database could not be read.
pub async fn plan(connector: &Connector) -> Result<Plan, MigrateError> {
    let (client, connection) = connector.for_listen().connect("migrate").await?;
    driven(connection, read_plan(&client)).await
}

/// Brings the schema to this binary's version; what was done.
///
/// # Errors
/// `Newer`, `Misnamed`, `Busy`, or what failed; whatever was applied before stays applied.
pub async fn migrate(connector: &Connector) -> Result<Plan, MigrateError> {
    let (mut client, connection) = connector.for_listen().connect("migrate").await?;
    let work = async move {
        lock(&client).await?;
        let plan = read_plan(&client).await?;
        apply(&mut client, &plan).await?;
        if !plan.steps.is_empty() {
            let row = client.query_one(query::text("plugin.grant_roles"), &[]).await?;
            for role in row.get::<_, Vec<String>>("missing") {
                tracing::info!(role, "this role of people is missing, and this session may not create roles");
            }
            tracing::info!(
                from = plan.current,
                to = plan.target,
                steps = plan.steps.len(),
                "schema brought up to date"
            );
        }
        Ok(plan)
    };
    driven(connection, work).await
}

/// Installs into a database that has no schema `rowbeat`; refuses one that is behind or ahead.
///
/// # Errors
/// `Older`, `Newer`, or what failed.
pub async fn install_or_check(connector: &Connector) -> Result<(), MigrateError> {
    let plan = plan(connector).await?;
    if !plan.installed {
        migrate(connector).await?;
        return Ok(());
    }
    match plan.steps.len() {
        0 => Ok(()),
        pending => {
            // Another daemon may be in the middle of installing.
            let (client, connection) = connector.for_listen().connect("migrate").await?;
            let work = async {
                lock(&client).await?;
                read_plan(&client).await
            };
            let plan = driven(connection, work).await?;
            if plan.steps.is_empty() { Ok(()) } else { Err(MigrateError::Older { pending }) }
        }
    }
}

/// The schema version that this binary is made for.
pub fn newest_version() -> i32 {
    migrations().map_or(0, |all| all.iter().map(|(_, migration)| migration.version()).max().unwrap_or(0))
}

async fn driven<T>(
    connection: Connection<Socket, TlsStream>,
    work: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    tokio::select! {
        done = work => done,
        ended = connection => Err(ended.err().map_or(MigrateError::Closed, MigrateError::Postgres)),
    }
}

async fn lock(client: &Client) -> Result<(), MigrateError> {
    client.batch_execute("set lock_timeout = '1s'; set statement_timeout = 0").await?;
    patiently(client, "select pg_advisory_lock(1919907682, 2)").await
}

/// Tries again when a lock was not free: other sessions get their turn in between.
async fn patiently(client: &Client, statements: &str) -> Result<(), MigrateError> {
    let mut tries = 0;
    loop {
        match client.batch_execute(statements).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                tries += 1;
                if tries == LOCK_TRIES {
                    return Err(MigrateError::Busy(sqlstate::describe(&error)));
                }
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}

async fn read_plan(client: &Client) -> Result<Plan, MigrateError> {
    let migrations = migrations()?;
    let target = migrations.iter().map(|(_, m)| m.version()).max().unwrap_or(0);
    let row = client
        .query_one(
            "select to_regclass($1) is not null, to_regclass('rowbeat.source_file') is not null",
            &[&HISTORY],
        )
        .await?;
    let (installed, has_files): (bool, bool) = (row.get(0), row.get(1));
    let mut current: i32 = 0;
    if installed {
        let row = client
            .query_one("select coalesce(max(version), 0)::int from rowbeat.schema_history", &[])
            .await?;
        current = row.get(0);
    }
    if current > target {
        return Err(MigrateError::Newer { found: current, known: target });
    }
    let mut steps: Vec<Step> = migrations
        .iter()
        .filter(|(_, migration)| migration.version() > current)
        .map(|(source, _)| Step { file: source.name.clone(), kind: "migration", locks: locks(source.text) })
        .collect();
    let mut known = BTreeMap::new();
    if has_files {
        for row in client.query("select name, checksum from rowbeat.source_file", &[]).await? {
            known.insert(row.get::<_, String>(0), row.get::<_, String>(1));
        }
    }
    for source in sources()? {
        if known.get(&source.name) != Some(&checksum(client, source.text).await?) {
            steps.push(Step { file: source.name, kind: "replace", locks: "none on your tables".to_owned() });
        }
    }
    Ok(Plan { installed, current, target, steps })
}

async fn apply(client: &mut Client, plan: &Plan) -> Result<(), MigrateError> {
    client.batch_execute("create schema if not exists rowbeat").await?;
    let migrations: Vec<Migration> = migrations()?.into_iter().map(|(_, migration)| migration).collect();
    let mut tries = 0;
    loop {
        let mut runner = Runner::new(&migrations);
        runner.set_migration_table_name(HISTORY);
        match runner.run_async(client).await {
            Ok(_) => break,
            Err(error) if tries < LOCK_TRIES && is_lock_timeout(&error) => {
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for source in sources()? {
        if !plan.steps.iter().any(|step| step.file == source.name) {
            continue;
        }
        let checksum = checksum(client, source.text).await?;
        // One implicit transaction: the file and its checksum, or neither.
        let record = format!(
            ";\ninsert into rowbeat.source_file (name, checksum) values ('{}', '{checksum}') \
             on conflict (name) do update set checksum = excluded.checksum, applied_at = now()",
            source.name
        );
        patiently(client, &format!("{}{record}", source.text)).await.map_err(|error| match error {
            MigrateError::Postgres(error) => MigrateError::File { file: source.name.clone(), error },
            other => other,
        })?;
    }
    Ok(())
}

fn is_lock_timeout(error: &refinery::Error) -> bool {
    postgres_error(error).is_some_and(|error| error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
}

fn postgres_error(error: &refinery::Error) -> Option<&tokio_postgres::Error> {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if let Some(postgres) = cause.downcast_ref::<tokio_postgres::Error>() {
            return Some(postgres);
        }
        source = cause.source();
    }
    None
}

async fn checksum(client: &Client, text: &str) -> Result<String, MigrateError> {
    Ok(client.query_one("select encode(sha256(convert_to($1, 'UTF8')), 'hex')", &[&text]).await?.get(0))
}

fn migrations() -> Result<Vec<(Source, Migration)>, MigrateError> {
    let mut migrations = Vec::new();
    for source in files("refinery_migrations", &MIGRATIONS)? {
        let stem = source.name.rsplit('/').next().unwrap_or_default().trim_end_matches(".sql").to_owned();
        let migration = Migration::unapplied(&stem, source.text).map_err(|_| MigrateError::Misnamed {
            folder: "refinery_migrations",
            file: stem,
            expected: "V<number>__<subject>.sql",
        })?;
        migrations.push((source, migration));
    }
    migrations.sort_by_key(|(_, migration)| migration.version());
    Ok(migrations)
}

fn sources() -> Result<Vec<Source>, MigrateError> {
    let mut sources = files("sql/functions", &FUNCTIONS)?;
    sources.extend(files("triggers", &TRIGGERS)?);
    Ok(sources)
}

/// The SQL files of a folder, by name; anything but a README beside them is a mistake.
fn files(folder: &'static str, dir: &'static Dir) -> Result<Vec<Source>, MigrateError> {
    let mut sources = Vec::new();
    for file in dir.files() {
        let name = file.path().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let Some(text) = file.contents_utf8().filter(|_| name.ends_with(".sql")) else {
            return Err(MigrateError::Misnamed { folder, file: name, expected: "<name>.sql" });
        };
        sources.push(Source { name: format!("{folder}/{name}"), text });
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

/// What a migration's header says about locks.
fn locks(text: &str) -> String {
    let header: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("--")).map(str::trim).collect();
    let header = header.join(" ");
    header.split_once("Locks: ").map_or("not said", |(_, locks)| locks).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_well_named_and_tells_its_locks() {
        let migrations = migrations().expect("migrations are well named");
        let versions: Vec<i32> = migrations.iter().map(|(_, m)| m.version()).collect();
        assert!(versions.windows(2).all(|two| two[0] < two[1]), "each number once: {versions:?}");
        for (source, _) in &migrations {
            assert_ne!(locks(source.text), "not said", "{}", source.name);
        }
        assert!(!sources().expect("sources are well named").is_empty());
    }

    #[test]
    fn a_misnamed_migration_is_an_error() {
        assert!(Migration::unapplied("V1_one_underscore", "").is_err());
        assert!(Migration::unapplied("first", "").is_err());
    }
}
