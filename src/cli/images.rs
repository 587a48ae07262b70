//! Where the newest images of a backup can be read: from the database, from another one that is a target, or from files. Rows are
//! handed on as the text they are, so that numbers keep their digits.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use deadpool_postgres::RecyclingMethod;
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::database::Context;
use super::failure::Failure;
use crate::backup::{Identity, folder};
use crate::config::BackupTarget;
use crate::db::connect::Connector;
use crate::db::query::{self, Db, SESSION_SETUP};

/// So many keys are told, as those of a table are.
const MOST_KEYS: usize = 20;

/// Which of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// Those that were there.
    There,
    /// Those that were deleted.
    Deleted,
}

/// Images of backups.
pub(super) enum Images {
    /// In a database; whether it is the source, where what is new is to be read first.
    Database { db: Db, source: bool },
    /// In files: the newest of each key as of a time, read as a whole.
    Files { folder: std::path::PathBuf, read: Option<Newest> },
}

/// Rows by backup and key.
type Newest = BTreeMap<String, HashMap<String, Newer>>;

/// The newest image of a row.
pub(super) struct Newer {
    image: i64,
    deleted: bool,
    row: String,
}

/// A document of an image, as the source wrote it.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    backup: std::borrow::Cow<'a, str>,
    transaction_at: DateTime<Utc>,
    #[serde(borrow)]
    at: &'a RawValue,
    login_role: String,
    actor: Option<String>,
    image: i64,
    operation: String,
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    row: &'a RawValue,
}

/// How many images a backup has, and a sum over them where there is one.
pub(super) type Digest = BTreeMap<String, (i64, Option<String>)>;

impl Images {
    pub(super) fn of_source(db: Db) -> Self {
        Self::Database { db, source: true }
    }

    /// The images of a target of the configuration.
    pub(super) async fn of_target(context: &Context, name: &str) -> Result<Self, Failure> {
        match context.config()?.backup.remove(name) {
            Some(BackupTarget::Folder(folder)) => Ok(Self::Files { folder, read: None }),
            Some(BackupTarget::Database(config)) => {
                let connector = Connector::new(&config)?;
                drop(connector.connect("command").await?);
                let db = Db::new(connector.pool(2, RecyclingMethod::Fast, SESSION_SETUP));
                Ok(Self::Database { db, source: false })
            }
            None => Err(Failure::new(format!("the configuration has no [backup.{name}]"))
                .remedy("name the file that has it by --config")),
        }
    }

    /// The backups that there are images of.
    pub(super) async fn names(
        &mut self,
        names: &[String],
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<String>, Failure> {
        let known: Vec<String> = match self {
            Self::Database { db, source } => {
                if *source {
                    db.row("backup.catch_up", &[]).await?;
                }
                let rows = db.rows("backup.sources", &[&None::<Vec<String>>]).await?;
                rows.iter().map(|row| row.get(0)).collect()
            }
            Self::Files { folder, read } => {
                let newest = newest(folder, until)?;
                read.insert(newest).keys().cloned().collect()
            }
        };
        match names.iter().find(|name| !known.contains(name)) {
            Some(name) => Err(Failure::new(format!("there are no images of {name}"))),
            None if names.is_empty() => Ok(known),
            None => Ok(names.to_vec()),
        }
    }

    /// Hands on the rows of a backup, with the texts of their keys.
    pub(super) async fn each(
        &self,
        name: &str,
        until: Option<DateTime<Utc>>,
        section: Section,
        mut with: impl AsyncFnMut(&str, &str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let deleted = section == Section::Deleted;
        match self {
            Self::Database { db, .. } => {
                let session = db.session().await?;
                session.batch_execute("set statement_timeout = 0").await?;
                let parameters: [&(dyn ToSql + Sync); 3] = [&name, &until, &deleted];
                let rows = session.query_raw(query::text("backup.images"), parameters).await?;
                pin_mut!(rows);
                while let Some(row) = rows.next().await {
                    let row = row?;
                    with(row.get("key"), row.get("row")).await?;
                }
            }
            Self::Files { read, .. } => {
                for (key, newer) in read.iter().filter_map(|read| read.get(name)).flatten() {
                    if newer.deleted == deleted {
                        with(key, &newer.row).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// How far a target is, which transaction that is, and what it has up to there.
    pub(super) async fn digest(&self) -> Result<(i64, Option<Identity>, Digest), Failure> {
        match self {
            Self::Database { db, .. } => {
                let row = db.row("backup.newest", &[]).await?;
                let position = row.map_or(0, |row| row.get("number"));
                Ok((position, Identity::of(db, position).await?, digest(db, position).await?))
            }
            Self::Files { folder, .. } => {
                let (mut counted, mut position, mut identity) = (Digest::new(), 0, None);
                for path in folder::files(folder)? {
                    let mut damaged = None;
                    let whole = folder::read(&path, |line| {
                        if line.number > position {
                            position = line.number;
                            identity =
                                line.images.first().and_then(|image| serde_json::from_str(image.get()).ok());
                        }
                        for document in &line.images {
                            match serde_json::from_str::<Document<'_>>(document.get()) {
                                Ok(image) => counted.entry(image.backup.into_owned()).or_default().0 += 1,
                                Err(error) => damaged = Some(error),
                            }
                        }
                    })?;
                    if let Some(error) = damaged {
                        return Err(Failure::new(format!("{}: {error}", path.display())));
                    }
                    if std::fs::metadata(&path)?.len() > whole {
                        return Err(Failure::new(format!("{} is damaged after {whole} bytes", path.display()))
                            .remedy("at the end of the newest file a daemon that starts cuts it off; else keep the file, and begin another folder"));
                    }
                }
                Ok((position, identity, counted))
            }
        }
    }
}

/// What a database has up to a transaction.
pub(super) async fn digest(db: &Db, position: i64) -> Result<Digest, Failure> {
    let rows = db.rows("backup.digest", &[&position]).await?;
    Ok(rows.iter().map(|row| (row.get("backup"), (row.get("images"), row.get("digest")))).collect())
}

/// Keys of a backup of which another database has not the images that this one has, and what is wrong with them; some of them.
pub(super) async fn differing_keys(
    here: &Db,
    there: &Db,
    backup: &str,
    position: i64,
) -> Result<Vec<(String, &'static str)>, Failure> {
    let sums = async |db: &Db| {
        let session = db.session().await?;
        session.batch_execute("set statement_timeout = 0").await?;
        let parameters: [&(dyn ToSql + Sync); 2] = [&backup, &position];
        // The rows come as they are asked for: the session has to stay.
        let rows = session.query_raw(query::text("backup.sums"), parameters).await?;
        Ok::<_, Failure>((session, Box::pin(rows)))
    };
    let ((_here, mut here), (_there, mut there)) = (sums(here).await?, sums(there).await?);
    let (mut one, mut other) = (here.try_next().await?, there.try_next().await?);
    let mut keys: Vec<(String, &'static str)> = Vec::new();
    while keys.len() < MOST_KEYS {
        let image = |row: &Option<Row>| row.as_ref().map_or(i64::MAX, |row| row.get("image"));
        let sum = |row: &Option<Row>| row.as_ref().map(|row| row.get::<_, i64>("sum"));
        let order = image(&one).cmp(&image(&other));
        let Some(row) = (if order.is_le() { &one } else { &other }) else { break };
        let problem = match order {
            Ordering::Less => Some("missing"),
            Ordering::Equal => (sum(&one) != sum(&other)).then_some("different"),
            Ordering::Greater => Some("unknown"),
        };
        if let Some(problem) = problem {
            let found = (row.get("key"), problem);
            if !keys.contains(&found) {
                keys.push(found);
            }
        }
        if order.is_le() {
            one = here.try_next().await?;
        }
        if order.is_ge() {
            other = there.try_next().await?;
        }
    }
    Ok(keys)
}

/// Whether two have the same images, as far as both know.
pub(super) fn agree(one: Option<&(i64, Option<String>)>, other: Option<&(i64, Option<String>)>) -> bool {
    match (one, other) {
        (Some((one, first)), Some((other, second))) => {
            one == other && (first == second || first.is_none() || second.is_none())
        }
        _ => false,
    }
}

/// Reads all files of a folder.
fn newest(folder: &std::path::Path, until: Option<DateTime<Utc>>) -> Result<Newest, Failure> {
    let (mut newest, mut damaged) = (Newest::new(), None);
    // Parts of a transaction that is not there to its end do not count.
    let mut parts: Vec<String> = Vec::new();
    for path in folder::files(folder)? {
        folder::read(&path, |line| {
            parts.extend(line.images.iter().map(|document| document.get().to_owned()));
            if line.last {
                for part in parts.drain(..) {
                    match serde_json::from_str::<Document<'_>>(&part) {
                        Ok(document) => take(&mut newest, &document, until),
                        Err(error) => damaged = Some(format!("{}: {error}", path.display())),
                    }
                }
            }
        })?;
    }
    damaged.map_or(Ok(newest), |problem| Err(Failure::new(problem)))
}

fn take(newest: &mut Newest, document: &Document<'_>, until: Option<DateTime<Utc>>) {
    let rows = newest.entry(document.backup.clone().into_owned()).or_default();
    if document.operation == "TRUNCATE" || until.is_some_and(|until| document.transaction_at > until) {
        return;
    }
    let deleted = document.operation == "DELETE";
    let mut row = document.row.get().to_owned();
    if deleted {
        let who = document.actor.as_ref().unwrap_or(&document.login_role);
        let (at, who) = (document.at.get(), serde_json::json!(who));
        // The row's own fields come later, and count.
        row = format!("{{\"deleted_at\":{at},\"deleted_by\":{who},{}", row.trim_start_matches('{'));
    }
    let key = key_text(document.key);
    let there = rows.get(&key).is_some_and(|there| there.image > document.image);
    if !there {
        rows.insert(key, Newer { image: document.image, deleted, row });
    }
}

/// As `rowbeat.key_text`: the only value of a key, or all of it.
fn key_text(key: &RawValue) -> String {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(key.get()).unwrap_or_default();
    match fields.values().next() {
        Some(only) if fields.len() == 1 => {
            serde_json::from_str::<String>(only.get()).unwrap_or_else(|_| only.get().to_owned())
        }
        _ => key.get().to_owned(),
    }
}
