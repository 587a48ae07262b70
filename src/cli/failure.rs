//! Why a command failed: a message that names the thing, a remedy where one is known, and the exit code.

use std::io::Write;

use super::exit::Exit;
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;
use crate::db::connect::{ConnectError, TlsError};
use crate::db::embedded::EmbeddedError;
use crate::db::migrate::MigrateError;
use crate::db::query::DbError;
use crate::schedule::SpecError;

/// What standard error gets to read.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    remedy: Option<String>,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), remedy: None }
    }

    pub(super) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// To standard error; a reader who is gone is told nothing.
    pub(super) fn print(&self) {
        let mut text = String::new();
        if !self.message.is_empty() {
            text = format!("rowbeat: {}\n", self.message);
        }
        if let Some(remedy) = &self.remedy {
            for line in remedy.lines() {
                text.push_str(&format!("         {line}\n"));
            }
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Prints what is wrong with the arguments, or the help or version that was asked for; nobody may be reading.
pub(super) fn print_usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Success;
    }
    let text = text.strip_prefix("error: ").map_or_else(|| text.clone(), |text| format!("rowbeat: {text}"));
    let _ = std::io::stderr().write_all(text.as_bytes());
    Exit::Usage
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Whoever read the output has seen enough.
            return Self::new("").exit(Exit::Success);
        }
        Self::new(error.to_string())
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(errors.to_string()).exit(Exit::Configuration)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::new(error.to_string()).exit(Exit::Configuration)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(error.to_string()).exit(Exit::Unavailable).remedy(
            "is it running and reachable? `rowbeat check` shows where the address comes from, `rowbeat wait-for-db` waits",
        )
    }
}

impl From<EmbeddedError> for Failure {
    fn from(error: EmbeddedError) -> Self {
        let exit = match &error {
            EmbeddedError::NoBinaries { .. }
            | EmbeddedError::BadBindir { .. }
            | EmbeddedError::WrongMajor { .. }
            | EmbeddedError::Folder { .. }
            | EmbeddedError::NoHome
            | EmbeddedError::NoAccount
            | EmbeddedError::Tls(_) => Exit::Configuration,
            EmbeddedError::Locked { .. }
            | EmbeddedError::Initdb { .. }
            | EmbeddedError::Start { .. }
            | EmbeddedError::Orphan { .. }
            | EmbeddedError::Statement(_)
            | EmbeddedError::Io { .. } => Exit::Failed,
            EmbeddedError::Connect(_) => Exit::Unavailable,
        };
        Self::new(error.to_string()).exit(exit)
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        let exit = match &error {
            MigrateError::Newer { .. } | MigrateError::Older { .. } | MigrateError::Misnamed { .. } => {
                Exit::Configuration
            }
            MigrateError::Connect(_) | MigrateError::Closed => Exit::Unavailable,
            MigrateError::Postgres(_)
            | MigrateError::Refinery(_)
            | MigrateError::File { .. }
            | MigrateError::Busy(_) => Exit::Failed,
        };
        Self::new(error.to_string()).exit(exit)
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Schema(error) => error.into(),
            DaemonError::Configuration(message) => Self::new(message).exit(Exit::Configuration),
            DaemonError::PrivatePostgres(error) => error.into(),
        }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        let failure = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.remedy(hint),
            None => failure,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        DbError::from(error).into()
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let DbError::Postgres(postgres) = &error else {
            return Self::new(error.to_string()).exit(Exit::Unavailable);
        };
        let Some(db) = postgres.as_db_error() else {
            return Self::new(error.to_string()).exit(Exit::Unavailable);
        };
        if let Some(name) = unknown_definition(db) {
            return Self::new(format!("task definition \"{name}\" does not exist"))
                .remedy("insert into rowbeat.task_definition (name, executor, function) values (...) first");
        }
        let more: Vec<&str> = [db.detail(), db.hint()].into_iter().flatten().collect();
        let failure = Self::new(db.message());
        // Undefined schema, table, column or function: statements of ours fit the schema they were made for.
        if matches!(db.code().code(), "3F000" | "42P01" | "42703" | "42883") && is_about_us(db) {
            return failure
                .exit(Exit::Configuration)
                .remedy("the schema of rowbeat is missing or of another version: run `rowbeat migrate`");
        }
        let failure = if more.is_empty() { failure } else { failure.remedy(more.join("\n")) };
        if error.is_outage() { failure.exit(Exit::Unavailable) } else { failure }
    }
}

fn is_about_us(db: &tokio_postgres::error::DbError) -> bool {
    db.schema() == Some("rowbeat") || db.message().contains("rowbeat")
}

/// The definition that a schedule or watch names, if that is what a foreign key did not find.
fn unknown_definition(db: &tokio_postgres::error::DbError) -> Option<&str> {
    let ours = db.code().code() == "23503" && db.schema() == Some("rowbeat");
    let constraint = db.constraint().filter(|name| ours && name.ends_with("_definition_fkey"));
    let detail = constraint.and_then(|_| db.detail())?;
    // The detail is translated, its "(definition)=(name)" is not.
    let name = detail.split_once("(definition)=(")?.1;
    Some(name.rsplit_once(')')?.0)
}
