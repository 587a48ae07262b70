//! A second database as a target: it has rowbeat's schema, but no daemon works there. Images and position are written in one
//! transaction of the target, under a lock that keeps other daemons out.

use deadpool_postgres::{Pool, RecyclingMethod};
use serde_json::Value;

use super::{Identity, PAGE, Place, Trouble, refuse_another_past};
use crate::config::DatabaseConfig;
use crate::db::connect::{Connector, TlsError};
use crate::db::migrate;
use crate::db::query::{self, Db, DbError, SESSION_SETUP};

/// So many pages are one transaction of the target, and more when a transaction of the source goes on.
const PAGES: usize = 4;

/// The target.
pub struct Second {
    connector: Connector,
    pool: Pool,
    migrated: bool,
}

impl Second {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the certificates of the configuration cannot be used.
    pub fn new(config: &DatabaseConfig) -> Result<Self, TlsError> {
        let connector = Connector::new(config)?;
        let pool = connector.pool(1, RecyclingMethod::Verified, SESSION_SETUP);
        Ok(Self { connector, pool, migrated: false })
    }

    /// Copies what is new, up to some pages; how far the target is then.
    ///
    /// # Errors
    /// `Target` when it is away or refuses; then nothing was copied, or all of it.
    pub async fn copy(&mut self, source: &Db, identity: &Value) -> Result<i64, Trouble> {
        if !self.migrated {
            migrate::migrate(&self.connector).await.map_err(|error| Trouble::Target(error.to_string()))?;
            self.migrated = true;
        }
        let mut session = self.pool.get().await.map_err(wrong)?;
        let target = session.transaction().await.map_err(wrong)?;
        let opened = target.query_one(query::text("backup.open_target"), &[identity]).await.map_err(wrong)?;
        let mut place = Place::behind(opened.get(0));
        let row =
            target.query_opt(query::text("backup.transaction"), &[&place.number]).await.map_err(wrong)?;
        let known = row.map(|row| Identity { xid: row.get("xid"), at: row.get("at") });
        refuse_another_past(source, place.number, known.as_ref()).await?;
        for page in 1.. {
            let rows = source.rows("backup.page", &[&place.number, &place.image, &PAGE]).await?;
            let Some(last) = rows.last() else { break };
            let documents: Vec<&str> = rows.iter().map(|row| row.get("document")).collect();
            let images = format!("[{}]", documents.join(","));
            target.execute(query::text("backup.receive"), &[&images]).await.map_err(wrong)?;
            place = Place { number: last.get("number"), image: last.get("image") };
            if last.get("last") && page >= PAGES {
                break;
            }
        }
        target.commit().await.map_err(wrong)?;
        Ok(place.number)
    }
}

fn wrong(error: impl Into<DbError>) -> Trouble {
    Trouble::Target(error.into().to_string())
}
