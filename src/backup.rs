//! Backups: every committed change of chosen tables is kept. The images in the same database are written by SQL
//! (`rowbeat.back_up`); here are the loops that call it and copy the images to further targets.
//!
//! Invariant: a target's position is in the target and moves with the images, so a crash anywhere repeats and loses nothing.

use crate::db::query::DbError;

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
