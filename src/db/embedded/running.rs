//! A private Postgres that is running, whoever started it: where it is reached.

use std::path::{Path, PathBuf};

use tokio_postgres::error::SqlState;

use super::error::EmbeddedError;
use super::{SUPERUSER, cluster, default_data_dir};
use crate::config::DatabaseConfig;
use crate::db::connect::Connector;

/// A running private Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Process id of the server.
    pub pid: i32,
    /// Folder of its socket.
    pub socket_folder: PathBuf,
    /// Port, the last part of the socket's name.
    pub port: u16,
}

/// The private Postgres that runs in a data directory (`None`: the default one), started by another process perhaps.
///
/// For commands beside the daemon. `None` when there is none; that it also answers is only known after connecting.
pub fn running(data_dir: Option<&Path>) -> Result<Option<Running>, EmbeddedError> {
    let data_dir = match data_dir {
        Some(folder) => folder.to_owned(),
        None => default_data_dir()?,
    };
    let Some(file) = cluster::PidFile::read(&data_dir.join("data/postmaster.pid"))? else { return Ok(None) };
    match (file.is_alive(), file.socket_folder, file.port) {
        (true, Some(socket_folder), Some(port)) => Ok(Some(Running { pid: file.pid, socket_folder, port })),
        _ => Ok(None),
    }
}

impl Running {
    /// How to reach a database in it.
    pub fn database(&self, dbname: &str) -> DatabaseConfig {
        DatabaseConfig::unix_socket(&self.socket_folder.to_string_lossy(), self.port, SUPERUSER, dbname)
    }

    /// A connector to a database in it.
    pub fn connector(&self, dbname: &str) -> Result<Connector, EmbeddedError> {
        Ok(Connector::new(&self.database(dbname))?)
    }

    /// Makes a database unless it is there.
    pub async fn create_database(&self, dbname: &str) -> Result<(), EmbeddedError> {
        let (client, connection) = self.connector(SUPERUSER)?.connect("setup").await?;
        let work = async {
            let exists =
                client.query_opt("select from pg_catalog.pg_database where datname = $1", &[&dbname]).await?;
            if exists.is_none() {
                let quoted = dbname.replace('"', "\"\"");
                match client.batch_execute(&format!("create database \"{quoted}\"")).await {
                    // Somebody else was faster: just as well.
                    Err(error) if error.code() == Some(&SqlState::DUPLICATE_DATABASE) => {}
                    made => made?,
                }
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        tokio::select! {
            done = work => done?,
            ended = connection => ended?,
        }
        Ok(())
    }

    /// The command line that opens a database in psql.
    pub fn psql_command(&self, dbname: &str) -> String {
        let folder = quote(&self.socket_folder.to_string_lossy());
        let port = if self.port == 5432 { String::new() } else { format!(" -p {}", self.port) };
        format!("psql -h {folder}{port} -U {SUPERUSER} -d {}", quote(dbname))
    }
}

/// A word for the shell.
fn quote(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_psql_line_is_safe_to_paste() {
        let server = Running { pid: 1, socket_folder: "/tmp/a b".into(), port: 5433 };
        assert_eq!(server.psql_command("it's"), r"psql -h '/tmp/a b' -p 5433 -U postgres -d 'it'\''s'");
        let plain = Running { pid: 1, socket_folder: "/run/x".into(), port: 5432 };
        assert_eq!(plain.psql_command("rowbeat"), "psql -h /run/x -U postgres -d rowbeat");
    }
}
