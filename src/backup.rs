//! Backups: every committed change of chosen tables is kept. The images in the same database are written by SQL
//! (`rowbeat.back_up`); here are the loops that call it and copy the images to further targets.
//!
//! Invariant: a target's position is in the target and moves with the images, so a crash anywhere repeats and loses nothing.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::db::query::{Db, DbError};

pub mod folder;
pub mod keeper;
pub mod mirror;
pub mod second;

/// How many images are copied at once.
pub const PAGE: i64 = 5000;

/// A place in the order of images: all of the transaction `number` up to `image` has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the transaction.
    pub number: i64,
    /// Number of the image.
    pub image: i64,
}

impl Place {
    /// Behind all of a transaction.
    pub fn behind(number: i64) -> Self {
        Self { number, image: i64::MAX }
    }
}

/// Which transaction a number stands for: a database that was set back to an earlier time gives numbers anew.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Identity {
    xid: String,
    #[serde(rename = "transaction_at")]
    at: DateTime<Utc>,
}

impl Identity {
    /// What a database says of a number.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(db: &Db, number: i64) -> Result<Option<Self>, DbError> {
        let row = db.row("backup.transaction", &[&number]).await?;
        Ok(row.map(|row| Self { xid: row.get("xid"), at: row.get("at") }))
    }
}

/// Returns when a target that is behind this transaction can be gone on with.
///
/// # Errors
/// `Target` when the source knows another transaction by this number, or none.
pub async fn refuse_another_past(source: &Db, number: i64, known: Option<&Identity>) -> Result<(), Trouble> {
    if number == 0 || Identity::of(source, number).await?.as_ref() == known {
        return Ok(());
    }
    let problem =
        "it has what this database does not know (it was set back to an earlier time?): begin another target";
    Err(Trouble::Target(problem.to_owned()))
}

/// Why a target did not get what there is.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The source does not answer.
    #[error(transparent)]
    Source(#[from] DbError),
    /// The target is at fault.
    #[error("{0}")]
    Target(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Target(error.to_string())
    }
}
