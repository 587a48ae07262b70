//! Logins that are no superusers, and own what they make.

use std::process::Command;

use crate::cli::finish;
use crate::harness::{TestDb, server};

/// Who may make schemas in a database.
pub(crate) struct Login {
    database: String,
    pub(crate) role: String,
}

impl Login {
    /// One with this right, say `nocreaterole`.
    pub(crate) async fn new(db: &TestDb, right: &str) -> Self {
        let (database, role) = (db.name.clone(), format!("{right}_{}", db.name));
        db.run(&format!("create role {role} login nosuperuser {right}; grant create, connect on database {database} to {role}")).await;
        Self { database, role }
    }

    /// A rowbeat command of theirs.
    pub(crate) fn command(&self) -> Command {
        let mut command = server().rowbeat(&self.database);
        let url = server().url(&self.database).replace("user=postgres", &format!("user={}", self.role));
        command.env("DATABASE_URL", url);
        command
    }

    /// Migrates and installs a plugin, with its tests; what that says.
    pub(crate) fn install(&self, plugin: &str) -> String {
        finish(self.command(), &["migrate"], "").ok();
        finish(self.command(), &["plugin", "install", plugin, "--test"], "").ok()
    }
}
