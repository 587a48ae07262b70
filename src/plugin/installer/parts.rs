//! What a plugin's manifest puts into rowbeat's tables.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Before, PluginError, Work};
use crate::db::sqlstate;
use crate::plugin::problem::Problem;

impl Work<'_> {
    /// The plugin itself, its files and settings.
    pub(super) async fn record(&mut self, role: Option<&str>) -> Result<(), PluginError> {
        let (manifest, bundle) = (&self.plugin.manifest, &self.plugin.bundle);
        let document = serde_json::to_value(manifest).unwrap_or(Value::Null);
        let (name, version, digest) = (&manifest.name, manifest.version.to_string(), bundle.digest());
        self.session
            .rows(
                "plugin.record",
                &[
                    name,
                    &version,
                    &manifest.description,
                    &manifest.licence,
                    &digest,
                    &bundle.origin,
                    &role,
                    &document,
                ],
            )
            .await?;
        self.session.rows("plugin.clear", &[name]).await?;
        for (path, content) in &bundle.files {
            self.session.rows("plugin.put_file", &[name, path, content]).await?;
        }
        for setting in &manifest.settings {
            let rules = Value::Object(setting.rules.clone());
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [name, &setting.name, &setting.kind, &setting.description, &rules, &setting.default];
            if let Err(error) = self.session.try_rows("plugin.put_setting", &parameters).await? {
                let key = format!("[settings] {}", setting.name);
                self.problems.push(Problem::of_key(1, key, sqlstate::describe(&error)));
            }
        }
        let kept: Vec<&str> = manifest.settings.iter().map(|setting| setting.name.as_str()).collect();
        self.session.rows("plugin.drop_settings", &[name, &kept]).await?;
        Ok(())
    }

    /// The relations that its functions read.
    pub(super) async fn allow_reading(&mut self, before: &Before) -> Result<(), PluginError> {
        let manifest = &self.plugin.manifest;
        let former: Vec<&str> =
            before.manifest["read"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if let Err(error) =
            self.session.try_rows("plugin.grant_read", &[&manifest.name, &manifest.read, &former]).await?
        {
            self.problems.push(Problem::of_key(1, "[requires] read", sqlstate::describe(&error)));
        }
        Ok(())
    }

    /// Definitions, schedules, watches, channels, features, endpoints and commands; what the manifest no longer has goes.
    pub(super) async fn parts(&mut self) -> Result<(), PluginError> {
        let manifest = &self.plugin.manifest;
        let name = &manifest.name;
        for (line, key, function, arguments, results) in manifest.functions() {
            let row =
                self.session.row("plugin.judge_function", &[name, &function, &arguments, &results]).await?;
            if let Some(problem) = row.get::<_, Option<String>>("problem") {
                self.problems.push(Problem::of_key(line, key, problem));
            }
        }
        let mut kept: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in &manifest.rows {
            kept.entry(row.kind).or_default().push(&row.name);
            let columns = Value::Object(row.columns.clone());
            match self.session.try_rows("plugin.put_part", &[name, &row.kind, &row.name, &columns]).await? {
                Ok(put) => match put.first().map_or("", |row| row.get("change")) {
                    "kept" => {}
                    change => self.report.note(change, row.kind, &row.name),
                },
                Err(error) => {
                    self.problems.push(Problem::of_key(row.line, row.at(), sqlstate::describe(&error)))
                }
            }
        }
        for endpoint in &manifest.endpoints {
            let owner =
                self.session.rows("plugin.endpoint_owner", &[&endpoint.method, &endpoint.shape]).await?;
            if let Some(owner) = owner.first() {
                let message = format!("belongs to plugin {} already", owner.get::<_, String>("plugin"));
                self.problems.push(Problem::of_key(endpoint.line, endpoint.at(), message));
                continue;
            }
            self.session.rows("plugin.put_endpoint", &[name, &json!(endpoint)]).await?;
        }
        for command in &manifest.commands {
            self.session.rows("plugin.put_command", &[name, &json!(command)]).await?;
        }
        match self.session.try_rows("plugin.drop_parts", &[name, &json!(kept)]).await? {
            Ok(rows) => {
                for row in rows {
                    self.report.note("removed", row.get("kind"), row.get("name"));
                }
            }
            Err(error) => self.problems.push(Problem::of_file(
                crate::plugin::manifest::FILE,
                format!("a part that is no longer declared cannot go: {}", sqlstate::describe(&error)),
            )),
        }
        Ok(())
    }
}
