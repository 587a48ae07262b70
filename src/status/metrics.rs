//! The status as Prometheus text.

use std::fmt::Write as _;

use serde_json::Value;

use super::requests::{Kind, Requests};

/// Renders the numbers of a status document, and of requests to endpoints.
pub fn render(status: &Value, requests: &Requests) -> String {
    let mut text = String::new();
    gauge(
        &mut text,
        "rowbeat_up",
        "Whether the database answered.",
        [(String::new(), f64::from(u8::from(status["problem"].is_null())))],
    );
    gauge(
        &mut text,
        "rowbeat_listening",
        "Whether notifications arrive.",
        [(String::new(), f64::from(u8::from(status["listening"] == true)))],
    );
    gauge(
        &mut text,
        "rowbeat_uptime_seconds",
        "Age of the process.",
        [(String::new(), number(&status["uptime_ms"]) / 1000.0)],
    );
    gauge(
        &mut text,
        "rowbeat_running_here",
        "Attempts in flight on this node.",
        [(String::new(), number(&status["running_here"]))],
    );
    let passes = status["loops"].as_object().into_iter().flatten();
    gauge(
        &mut text,
        "rowbeat_loop_last_pass_seconds",
        "Age of each loop's latest complete pass.",
        passes.map(|(name, health)| (label("loop", name), number(&health["last_pass_ms"]) / 1000.0)),
    );
    for (field, help) in [
        ("waiting", "Tasks that wait, due or not"),
        ("running", "Running tasks"),
        ("available", "Tasks due and waiting"),
    ] {
        let queues = status["queues"].as_array().into_iter().flatten();
        gauge(
            &mut text,
            &format!("rowbeat_queue_{field}"),
            &format!("{help}, by queue."),
            queues.map(|queue| {
                (label("queue", queue["queue"].as_str().unwrap_or_default()), number(&queue[field]))
            }),
        );
    }
    let rows = |of: &str, key: &'static str, field: &'static str| {
        let rows = status[of].as_array().cloned().unwrap_or_default();
        rows.into_iter()
            .map(move |row| (label(key, row["name"].as_str().unwrap_or_default()), number(&row[field])))
    };
    gauge(
        &mut text,
        "rowbeat_watch_failed_changes",
        "Changes that wait for a replay, by watch.",
        rows("watches", "watch", "failed"),
    );
    gauge(
        &mut text,
        "rowbeat_consumer_behind_seconds",
        "Age of the oldest change that a reader of the log has not read.",
        rows("consumers", "consumer", "behind_seconds"),
    );
    gauge(
        &mut text,
        "rowbeat_backup_ok",
        "Whether each backup is complete and up to date.",
        rows("backups", "backup", "ok"),
    );
    gauge(
        &mut text,
        "rowbeat_backup_behind",
        "Transactions that a further target of the backup has not got.",
        rows("backup_targets", "target", "behind"),
    );
    let requests = requests.all();
    let labels = |(plugin, method, path, status): &Kind| {
        let pairs = [("plugin", plugin), ("method", method), ("path", path), ("status", &status.to_string())];
        format!("{{{}}}", pairs.map(|(key, value)| pair(key, value)).join(","))
    };
    let numbers = requests.iter().map(|(kind, (number, _))| (labels(kind), *number as f64));
    metric(
        &mut text,
        "counter",
        "rowbeat_endpoint_requests_total",
        "Requests to endpoints of plugins.",
        numbers,
    );
    let seconds = requests.iter().map(|(kind, (_, took))| (labels(kind), took.as_secs_f64()));
    metric(&mut text, "counter", "rowbeat_endpoint_seconds_total", "How long they took, together.", seconds);
    text
}

fn gauge(text: &mut String, name: &str, help: &str, values: impl IntoIterator<Item = (String, f64)>) {
    metric(text, "gauge", name, help, values);
}

fn metric(
    text: &mut String,
    kind: &str,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (String, f64)>,
) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn label(key: &str, value: &str) -> String {
    format!("{{{}}}", pair(key, value))
}

fn pair(key: &str, value: &str) -> String {
    format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn watches_and_consumers_have_gauges() {
        let status = json!({ "watches": [{ "name": "orders", "failed": 3 }],
            "consumers": [{ "name": "router", "behind_seconds": 2.5 }] });
        let text = render(&status, &Requests::default());
        assert!(text.contains("rowbeat_watch_failed_changes{watch=\"orders\"} 3\n"), "{text}");
        assert!(text.contains("rowbeat_consumer_behind_seconds{consumer=\"router\"} 2.5\n"), "{text}");
    }

    #[test]
    fn queues_become_labelled_gauges() {
        let text = render(
            &json!({ "queues": [{ "queue": "a\"b", "waiting": 3, "running": 1, "available": 2 }] }),
            &Requests::default(),
        );
        assert!(text.contains("rowbeat_queue_waiting{queue=\"a\\\"b\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE rowbeat_up gauge\nrowbeat_up 1\n"), "{text}");
    }
}
