//! The account that the server runs as: Postgres refuses root, so that root hands it to a plain account.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::error::EmbeddedError;

/// An account; `switch` when it is not the one of this process.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) name: String,
    pub(super) switch: bool,
}

impl Account {
    /// This process's account; for root `postgres`, else `nobody`.
    pub(super) fn for_server() -> Result<Self, EmbeddedError> {
        if !geteuid().is_root() {
            return Ok(Self { uid: geteuid(), gid: getegid(), name: "this account".into(), switch: false });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .filter(|account| !account.uid.is_root())
            .map(|account| Self { uid: account.uid, gid: account.gid, name: account.name, switch: true })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// Makes a file or folder this account's.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
            .map_err(EmbeddedError::io(format!("giving {} to {}", path.display(), self.name)))
    }

    /// The first folder on the way to `path` that this account may not enter.
    pub(super) fn barrier<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let mut folders: Vec<_> = path.ancestors().skip(1).collect();
        folders.reverse();
        folders.into_iter().find(|folder| {
            std::fs::metadata(folder).is_ok_and(|about| {
                let mine = if about.uid() == self.uid.as_raw() {
                    0o100
                } else if about.gid() == self.gid.as_raw() {
                    0o010
                } else {
                    0o001
                };
                about.mode() & mine == 0
            })
        })
    }

    /// A command that runs as this account, with nothing of the daemon's surroundings that Postgres would take for its own.
    pub(super) fn command(&self, program: &Path) -> std::process::Command {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(program);
        if self.switch {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
            command.env("HOME", "/").env("USER", &self.name).env("LOGNAME", &self.name);
        }
        // Messages are looked at, so they have to be in English.
        command.env("LC_ALL", "C");
        for name in [
            "PGDATA",
            "PGHOST",
            "PGHOSTADDR",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGPASSWORD",
            "PGPASSFILE",
            "PGSERVICE",
            "PGOPTIONS",
            "PGSSLMODE",
            "PGTZ",
            "PGCLIENTENCODING",
            "DATABASE_URL",
            "CREDENTIALS_DIRECTORY",
            // Otherwise the server reports its own readiness to the daemon's systemd unit.
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_FDS",
            "LISTEN_PID",
        ] {
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C in the terminal is for the daemon, which drains before it stops the server.
        command.process_group(0).stdin(std::process::Stdio::null());
        command
    }
}
