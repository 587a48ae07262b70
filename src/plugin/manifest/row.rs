//! The parts that are rows of rowbeat's own tables: definitions, schedules, watches, backups, channels, features, consumers.
//!
//! A part's keys are the table's columns. Which of them a plugin may set is listed here, and a test compares the lists with the
//! catalogue; what values fit is the table's to say, when the row is written.

use serde::Serialize;
use serde_json::{Map, Value};

use super::tree::Section;
use crate::plugin::problem::Problem;

/// A kind of part: its key in the manifest, and the columns beside `name`.
#[derive(Debug)]
pub struct Kind {
    /// The key, which is also the kind's name in `rowbeat.plugin_part`.
    pub key: &'static str,
    /// Its table in schema rowbeat.
    pub table: &'static str,
    /// The columns that a plugin may set.
    pub columns: &'static [&'static str],
    /// Those that it has to set.
    needed: &'static [&'static str],
    /// Columns that belong to the operator or to the daemon.
    pub not_for_plugins: &'static [&'static str],
}

/// All kinds, in the order in which their rows are written.
pub const KINDS: [Kind; 7] = [
    Kind {
        key: "feature",
        table: "feature",
        columns: &["enabled", "condition"],
        needed: &[],
        not_for_plugins: &["condition_holds", "checked_at", "last_error"],
    },
    Kind {
        key: "task",
        table: "task_definition",
        columns: &[
            "description",
            "executor",
            "function",
            "plan_function",
            "settle_function",
            "effect",
            "queue",
            "priority",
            "max_attempts",
            "backoff",
            "backoff_max",
            "backoff_jitter",
            "backoff_list",
            "timeout",
            "unique_until",
            "keep",
            "keep_days",
            "keep_failed_days",
            "redact",
            "requires",
            "concurrency",
            "rate",
            "rate_period",
            "sql_batch",
        ],
        needed: &["executor"],
        not_for_plugins: &["created_at", "paused_at"],
    },
    Kind {
        key: "schedule",
        table: "schedule",
        columns: &[
            "definition",
            "payload",
            "spec",
            "time_zone",
            "start_at",
            "end_at",
            "enabled",
            "one_shot",
            "requires",
            "catch_up",
            "catch_up_window",
            "overlap",
            "jitter",
            "calendar",
            "queue",
            "priority",
        ],
        needed: &["definition", "spec"],
        not_for_plugins: &[
            "anchor",
            "plan_from",
            "planned_at",
            "next_fire_at",
            "last_fire_at",
            "last_task_id",
            "last_error",
            "zone_data",
            "created_at",
        ],
    },
    Kind {
        key: "watch",
        table: "watch",
        columns: &[
            "table_name",
            "operations",
            "definition",
            "columns",
            "exclude",
            "grain",
            "debounce",
            "unique_key",
            "serial_key",
            "effective_from",
            "effective_until",
            "time_zone",
            "enabled",
        ],
        needed: &["table_name", "definition"],
        // The router evaluates expressions with the rights of the daemon; keys may be plain texts.
        not_for_plugins: &[
            "condition",
            "payload",
            "origins",
            "known_as",
            "suspended_at",
            "last_error",
            "last_error_at",
            "created_at",
        ],
    },
    Kind {
        key: "backup",
        table: "backup",
        columns: &["table_name", "enabled"],
        needed: &["table_name"],
        not_for_plugins: &[
            "source",
            "columns",
            "baseline_key",
            "baselined_at",
            "broken",
            "broken_at",
            "created_at",
        ],
    },
    Kind {
        key: "channel",
        table: "channel",
        columns: &["definition", "enabled"],
        needed: &["definition"],
        not_for_plugins: &["created_at"],
    },
    Kind {
        key: "consumer",
        table: "change_consumer",
        columns: &["tables"],
        needed: &["tables"],
        not_for_plugins: &[
            "position",
            "target",
            "after_seq",
            "read_at",
            "since",
            "role",
            "lost_at",
            "own_xid",
            "own_seq",
        ],
    },
];

/// A row that a plugin declares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `task`, `schedule`, …
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Map<String, Value>,
    /// Where it stands.
    #[serde(skip)]
    pub line: usize,
}

impl Row {
    /// How problems call it.
    pub fn at(&self) -> String {
        format!("[[{}]] \"{}\"", self.kind, self.name)
    }

    /// The text of a column.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.columns.get(column)?.as_str()
    }
}

/// The rows of all kinds that the manifest declares.
pub(super) fn read(manifest: &mut Section<'_>, problems: &mut Vec<Problem>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for kind in &KINDS {
        for mut section in manifest.tables(kind.key, problems) {
            let Some(name) = section.needed("name", problems) else { continue };
            let mut row = Row { kind: kind.key, name, columns: Map::new(), line: section.line };
            section.name = row.at();
            for column in kind.columns {
                if let Some(node) = section.take(column) {
                    row.columns.insert((*column).to_owned(), node.json());
                }
            }
            for column in kind.needed.iter().filter(|column| !row.columns.contains_key(**column)) {
                problems.push(Problem::of_key(row.line, section.key(column), "is missing"));
            }
            if let Some(other) = rows.iter().find(|other| other.kind == row.kind && other.name == row.name) {
                let message = format!("stands twice, first in line {}", other.line);
                problems.push(Problem::of_key(row.line, row.at(), message));
            }
            let mut known = vec!["name"];
            known.extend(kind.columns);
            section.finish(&known, problems);
            rows.push(row);
        }
    }
    rows
}

/// Definitions that schedules, watches and channels name are declared here too; connections of literal effects are required; a consumer reads
/// what the plugin may read anyway; nothing is evaluated for a plugin's unique key.
pub(super) fn check(
    rows: &[Row],
    plugin: &str,
    read: &[String],
    connections: &std::collections::BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    for row in rows {
        for table in row.columns.get("tables").into_iter().flat_map(listed) {
            let own = table.and_then(|table| table.strip_prefix(plugin)?.strip_prefix('.'));
            if table.is_some_and(|table| read.iter().any(|readable| readable == table))
                || own.is_some_and(|name| !name.contains('.'))
            {
                continue;
            }
            let message = match table {
                Some(table) => format!("{table} is not required: add it to [requires] read"),
                None => "a list of tables is needed here".to_owned(),
            };
            problems.push(Problem::of_key(row.line, format!("{} tables", row.at()), message));
        }
        if let Some(definition) = row.text("definition").filter(|_| row.kind != "task")
            && !rows.iter().any(|task| task.kind == "task" && task.name == definition)
        {
            let message = format!("there is no [[task]] \"{definition}\" in this manifest");
            problems.push(Problem::of_key(row.line, format!("{} definition", row.at()), message));
        }
        for key in ["unique_key", "serial_key"].into_iter().filter(|_| row.kind == "watch") {
            let plain = |text: &str| {
                let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                inner.is_some_and(|inner| !inner.contains(['\'', '\\']))
            };
            if row.columns.get(key).is_some_and(|value| !value.as_str().is_some_and(plain)) {
                let message = "is a plain text in single quotes: expressions are for operators";
                problems.push(Problem::of_key(row.line, format!("{} {key}", row.at()), message));
            }
        }
        let connection = row.columns.get("effect").and_then(|effect| effect.get("connection")?.as_str());
        if let Some(connection) = connection {
            let executor = row.text("executor").unwrap_or_default();
            let message = match connections.get(connection) {
                None => format!(
                    "connection {connection} is not required: add {connection} = \"{executor}\" to [requires.connections]"
                ),
                Some(kind) if kind != executor => {
                    format!("connection {connection} is required as {kind}, the executor is {executor}")
                }
                Some(_) => continue,
            };
            problems.push(Problem::of_key(row.line, format!("{} effect", row.at()), message));
        }
    }
}

/// The texts of a list; none for what is no text, or no list.
fn listed(value: &Value) -> Vec<Option<&str>> {
    value.as_array().map_or_else(|| vec![None], |list| list.iter().map(Value::as_str).collect())
}
