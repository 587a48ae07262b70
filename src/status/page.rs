//! The status as a page for people: tables, no scripts, nothing loaded from elsewhere.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
<meta name=viewport content='width=device-width'><title>rowbeat</title><style>\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid #d8dee4;vertical-align:top}\
th{font-weight:600;color:#57606a}.bad{color:#b3261e}.muted{color:#57606a}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,.muted{color:#9198a1}th,td{border-color:#30363d}.bad{color:#ff7b72}}\
</style>";

/// Renders a status document.
pub fn render(status: &Value) -> String {
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>rowbeat {}</h1><p class=muted>database {} · node {} · {} running here · {}</p>",
        cell(&status["version"]),
        cell(&status["database"]),
        cell(&status["node"]),
        cell(&status["running_here"]),
        if status["listening"] == true { "listening" } else { "not listening, polling" },
    );
    if let Some(zones) = status["zone_data"].as_object() {
        let [daemon, schedules, server] =
            ["daemon", "schedules", "server"].map(|of| zones.get(of).map_or_else(String::new, cell));
        let _ = write!(
            page,
            "<p class=muted>zone data: this daemon {daemon}, schedules planned by {schedules}, server {server}</p>"
        );
    }
    if let Some(problem) = status["problem"].as_str() {
        let _ = write!(page, "<p class=bad>{}</p>", escape(problem));
    }
    table(
        &mut page,
        "Queues",
        &status["queues"],
        &["queue", "available", "running", "waiting", "next_run_at"],
    );
    page.push_str("<p><a href='/status/tasks'>schedules and tasks, to pause and edit</a></p>");
    table(
        &mut page,
        "Schedules",
        &status["schedules"],
        &["name", "spec", "time_zone", "status", "blocked", "next_fire_at", "last_fire_at", "last_decision"],
    );
    table(&mut page, "Watches", &status["watches"], &["name", "table", "operations", "definition", "status"]);
    table(&mut page, "Backups", &status["backups"], &["name", "table", "status"]);
    table(&mut page, "Backup targets", &status["backup_targets"], &["name", "kind", "behind", "status"]);
    table(&mut page, "Channels", &status["channels"], &["name", "definition", "enabled"]);
    table(&mut page, "Plugins", &status["plugins"], &["name", "version", "isolated"]);
    table(
        &mut page,
        "Nodes",
        &status["nodes"],
        &["id", "name", "version", "state", "running", "heartbeat_at"],
    );
    table(&mut page, "Latest failures", &status["failures"], &["id", "definition", "message", "finished_at"]);
    loops(&mut page, &status["loops"]);
    page
}

fn table(page: &mut String, title: &str, rows: &Value, columns: &[&str]) {
    let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) else { return };
    let _ = write!(page, "<h2>{title}</h2><table><tr>");
    for column in columns {
        let _ = write!(page, "<th>{}", column.replace('_', " "));
    }
    for row in rows {
        page.push_str("<tr>");
        for column in columns {
            let _ = write!(page, "<td>{}", cell(&row[*column]));
        }
    }
    page.push_str("</table>");
}

fn loops(page: &mut String, loops: &Value) {
    page.push_str("<h2>Loops</h2><table><tr><th>loop<th>last complete pass<th>error");
    for (name, health) in loops.as_object().into_iter().flatten() {
        let seconds = health["last_pass_ms"].as_f64().unwrap_or(0.0) / 1000.0;
        let _ = write!(
            page,
            "<tr><td>{}<td>{seconds:.1} s ago<td class=bad>{}",
            escape(name),
            cell(&health["error"])
        );
    }
    page.push_str("</table>");
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let page = render(&json!({ "failures": [{ "id": 1, "message": "<script>x</script>" }] }));
        assert!(!page.contains("<script>"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }
}
