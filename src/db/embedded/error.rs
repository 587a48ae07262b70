//! What can go wrong with the private Postgres; every message says what to do.

use std::path::PathBuf;

/// Why the private Postgres does not run.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There are no server programs.
    #[error(
        "no database is configured, and no PostgreSQL server programs were found for a private one (looked in {looked}).\n\
         Install them:\n\
         \x20 Debian, Ubuntu   apt-get install postgresql\n\
         \x20 Fedora           dnf install postgresql-server\n\
         \x20 macOS            brew install postgresql@17\n\
         or name their folder: private_postgres.bindir = \"/path/to/bin\"\n\
         or use a database of your own: DATABASE_URL=postgres://user@host/database, or [database] url in the configuration"
    )]
    NoBinaries {
        /// The places that were looked at.
        looked: String,
    },
    /// A folder was named, but it has no server programs.
    #[error("private_postgres.bindir is {}, but there is no working {missing} in it", bindir.display())]
    BadBindir {
        /// The folder.
        bindir: PathBuf,
        /// What is not there.
        missing: &'static str,
    },
    /// The data directory belongs to another major version.
    #[error(
        "the data directory {} was made by PostgreSQL {data}, but the installed server programs are of {found}; \
         install PostgreSQL {data} beside them, set private_postgres.bindir to its folder, or choose another --data-dir",
        data_dir.display()
    )]
    WrongMajor {
        /// The data directory.
        data_dir: PathBuf,
        /// Its major version.
        data: u32,
        /// The major versions that are installed.
        found: String,
    },
    /// Another process owns the data directory.
    #[error(
        "another rowbeat{} already runs the private Postgres in {}; stop that one, choose another --data-dir, or let this one \
         use the other's database by DATABASE_URL",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        data_dir.display()
    )]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
        /// The owner, if it wrote its process id.
        pid: Option<u32>,
    },
    /// The folder cannot be used.
    #[error("{} cannot be used for the private Postgres: {problem}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// Neither a data directory nor a home is known.
    #[error("this account has no home directory to keep a private Postgres in; give --data-dir")]
    NoHome,
    /// There is no account that the server could run as.
    #[error(
        "PostgreSQL does not run as root, and there is neither an account postgres nor nobody; add one or run rowbeat as a plain user"
    )]
    NoAccount,
    /// initdb failed.
    #[error("initdb failed ({status}):\n{output}")]
    Initdb {
        /// How it ended.
        status: String,
        /// What it said last.
        output: String,
    },
    /// The server ended instead of answering.
    #[error("the private Postgres did not start: {reason}; the end of {}:\n{tail}", log.display())]
    Start {
        /// What happened.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A server from an earlier run cannot be stopped.
    #[error("the Postgres with process id {pid} still uses {} and {problem}", data_dir.display())]
    Orphan {
        /// Its process id.
        pid: i32,
        /// Its data directory.
        data_dir: PathBuf,
        /// Why it is in the way, and what to do.
        problem: &'static str,
    },
    /// The server answered, but not as expected.
    #[error(transparent)]
    Connect(#[from] super::super::connect::ConnectError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] super::super::connect::TlsError),
    /// A statement failed.
    #[error("the private Postgres refused a statement")]
    Statement(#[from] tokio_postgres::Error),
    /// A file or a process is out of reach.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: std::io::Error,
    },
}

impl EmbeddedError {
    /// An I/O error with what was tried.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
