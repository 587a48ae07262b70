//! Tables for people, JSON for machines. A reader who goes away ends the command, quietly.

use std::io::Write;

use chrono::{DateTime, SecondsFormat};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::failure::Failure;

/// Below this many columns a table is not fitted to the terminal.
const NARROW: u16 = 80;

/// Prints a line, or several.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Prints a piece of a long text.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Prints a JSON document.
pub(super) fn json(document: &impl serde::Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(document).map_err(std::io::Error::from)?)
}

/// A table without lines around it; as wide as the terminal at most. Headings are keys: `run_at` becomes RUN AT.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Columns squeezed to a letter help nobody: a narrow terminal gets long lines.
    if table.width().is_some_and(|width| width >= NARROW) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header.map(|key| key.replace('_', " ").to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A value of a JSON document for a cell.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A field of a JSON object for a cell; of a moment only the second in UTC, which is what a person looks for.
pub(super) fn field(row: &Value, key: &str) -> String {
    let text = cell(&row[key]);
    if key != "now" && !key.ends_with("_at") {
        return text;
    }
    match DateTime::parse_from_rfc3339(&text) {
        Ok(moment) => moment.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_to_the_second_and_other_text_as_it_is() {
        let row = serde_json::json!({ "run_at": "2026-11-21T03:18:57.555142+01:00", "ended_at": null, "name": "2026-11-21T03:18:57.5Z" });
        assert_eq!(field(&row, "run_at"), "2026-11-21T02:18:57Z");
        assert_eq!(field(&row, "ended_at"), "");
        assert_eq!(field(&row, "name"), "2026-11-21T03:18:57.5Z");
    }

    #[test]
    fn a_heading_is_a_key_in_capitals() {
        assert_eq!(table(["run_at", "id"], [["now".to_owned(), "7".to_owned()]]), "RUN AT  ID\nnow     7");
    }
}
