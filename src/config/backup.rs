//! `[backup.<name>]`: further targets of the backup, each another database or a folder of files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::EffectiveRow;
use super::database::DatabaseConfig;
use super::document::Document;
use super::environment::Environment;
use super::errors::ConfigError;
use super::resolve::{Notes, resolve};
use super::secret;
use super::sources::dsn_layer;

/// A further target of the backup.
#[derive(Debug, Clone)]
pub enum BackupTarget {
    /// Another database.
    Database(Box<DatabaseConfig>),
    /// A folder of append-only files.
    Folder(PathBuf),
}

/// The targets by name, and what is in force of them.
pub(crate) fn targets(
    document: &Document,
    environment: &Environment,
    notes: &mut Notes<'_>,
    rows: &mut Vec<EffectiveRow>,
) -> BTreeMap<String, BackupTarget> {
    let mut targets = BTreeMap::new();
    for (name, place) in document.backups() {
        let key = |part: &str| format!("backup.{name}.{part}");
        let mut show = |part: &str, value: String, source: &str| {
            rows.push(EffectiveRow { key: key(part), value, source: source.into() });
        };
        match (document.text(&key("url")), document.text(&key("folder"))) {
            (Some((url, place)), None) => {
                let mut parameters = dsn_layer(url, &key("url"), place, notes.errors);
                if let Some((path, place)) = document.text(&key("password_file")) {
                    match secret::read_file(&PathBuf::from(path)) {
                        Ok((password, _)) => {
                            parameters.set("password", &password, key("password_file"), place)
                        }
                        Err(error) => {
                            let problem = format!("{path} cannot be read: {error}");
                            let remedy = "let the daemon's account read it";
                            notes
                                .errors
                                .push(ConfigError::new(key("password_file"), problem, remedy).at(place));
                        }
                    }
                    show("password_file", path.to_owned(), place);
                }
                let config = resolve(&parameters, environment, notes);
                show("url", config.describe(), place);
                targets.insert(name.clone(), BackupTarget::Database(Box::new(config)));
            }
            (None, Some((path, place))) => {
                show("folder", path.to_owned(), place);
                if !PathBuf::from(path).is_absolute() {
                    let remedy = "write it from / on";
                    notes
                        .errors
                        .push(ConfigError::new(key("folder"), "the path is relative", remedy).at(place));
                }
                targets.insert(name.clone(), BackupTarget::Folder(PathBuf::from(path)));
            }
            (url, _) => {
                let problem = if url.is_some() { "it leads to two places" } else { "it leads nowhere" };
                let remedy = "write either url = \"postgres://…\" or folder = \"/…\"";
                notes.errors.push(ConfigError::new(format!("backup.{name}"), problem, remedy).at(place));
            }
        }
    }
    targets
}
