//! SQLSTATEs: the engine's own (class `RB`, raised by `sql/functions` and `triggers`), and which of the server's mean that
//! the database is away for a while. A test compares the first list with the SQL files.

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

/// A refusal of the engine, as clients can branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The five characters.
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// The task definition does not exist.
pub const UNKNOWN_DEFINITION: Refusal = Refusal { code: "RB001", meaning: "task definition does not exist" };
/// A definition names a function that does not exist with the needed arguments.
pub const UNKNOWN_FUNCTION: Refusal =
    Refusal { code: "RB002", meaning: "function of a definition does not exist" };
/// The worker's claim is gone: ended, cancelled or taken over.
pub const STALE_ATTEMPT: Refusal = Refusal { code: "RB003", meaning: "attempt no longer holds its claim" };
/// The task does not exist, or no longer.
pub const UNKNOWN_TASK: Refusal = Refusal { code: "RB004", meaning: "task does not exist" };
/// The state of the thing forbids it.
pub const WRONG_STATE: Refusal = Refusal { code: "RB005", meaning: "state forbids it" };
/// The relation cannot be watched.
pub const NOT_WATCHABLE: Refusal = Refusal { code: "RB006", meaning: "relation cannot be watched" };

/// The database is a copy of the one that rowbeat was installed in.
pub const COPY_OF_DATABASE: Refusal = Refusal { code: "RB007", meaning: "database is an unconfirmed copy" };

/// The consumer of the change log had not read what was emptied.
pub const LOST_PLACE: Refusal =
    Refusal { code: "RB008", meaning: "consumer lost its place in the change log" };

/// All refusals of the engine.
pub const ALL: [Refusal; 8] = [
    UNKNOWN_DEFINITION,
    UNKNOWN_FUNCTION,
    STALE_ATTEMPT,
    UNKNOWN_TASK,
    WRONG_STATE,
    NOT_WATCHABLE,
    COPY_OF_DATABASE,
    LOST_PLACE,
];

/// The server's own: somebody held a lock for longer than the session waits.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Whether this error means that the database is unreachable, stopping, starting, full, failing over or read-only, or that it
/// ended an idle session: worth waiting for. An error of the driver that is none of the network (a value of a wrong type, say) is not.
pub fn is_outage(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code().map(SqlState::code) else {
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if cause.is::<std::io::Error>() {
                return true;
            }
            source = cause.source();
        }
        return error.is_closed();
    };
    code.starts_with("08")
        || code.starts_with("57P")
        || matches!(code, "25006" | "25P03" | "53300" | "58030" | "53100")
}

/// One line that tells what the server said, with detail and hint.
pub fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        return text;
    };
    let mut text = db.message().to_owned();
    for more in [db.detail(), db.hint()].into_iter().flatten() {
        text = format!("{text} ({more})");
    }
    text
}

/// The error as it is kept with the task: `message`, `sqlstate`, and `detail`, `hint`, `context` where there are any.
pub fn document(error: &tokio_postgres::Error) -> Value {
    let Some(db) = error.as_db_error() else {
        return json!({ "message": describe(error) });
    };
    let mut document = json!({ "message": db.message(), "sqlstate": db.code().code() });
    for (key, value) in [("detail", db.detail()), ("hint", db.hint()), ("context", db.where_())] {
        if let Some(value) = value {
            document[key] = json!(value);
        }
    }
    document
}
