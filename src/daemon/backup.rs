//! The further targets of the backup, from the configuration.

use std::collections::BTreeMap;

use super::DaemonError;
use crate::backup::folder::Folder;
use crate::backup::mirror::{Destination, Target};
use crate::backup::second::Second;
use crate::config::BackupTarget;

/// Nothing is connected to yet.
pub(super) fn targets(config: &BTreeMap<String, BackupTarget>) -> Result<Vec<Target>, DaemonError> {
    let to = |name: &String, target: &BackupTarget| match target {
        BackupTarget::Folder(path) => Ok(Destination::Folder(Folder::new(path))),
        BackupTarget::Database(database) => Second::new(database)
            .map(|second| Destination::Second(Box::new(second)))
            .map_err(|error| DaemonError::Configuration(format!("backup.{name}: {error}"))),
    };
    config.iter().map(|(name, target)| Ok(Target::new(name.clone(), to(name, target)?))).collect()
}
