//! `plugin.toml`: what a plugin is, needs, and declares.
//!
//! Reads and checks as much as can be without a database and without the other files; goes on after a problem, so that all are seen
//! at once. What the manifest names (functions, tables, zones) is the installer's to look up.

mod command;
mod endpoint;
mod field;
pub mod row;
mod tree;
mod value;
mod version;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

pub use self::command::Command;
pub use self::endpoint::Endpoint;
pub use self::field::Field;
pub use self::row::Row;
pub use self::version::Version;

use self::field::Role;
use self::tree::{Node, Section};
use super::problem::Problem;

/// Name of the file.
pub const FILE: &str = "plugin.toml";
/// The format this rowbeat reads.
pub const FORMAT: i64 = 1;
const TOP: [&str; 19] = [
    "format",
    "name",
    "version",
    "description",
    "licence",
    "authors",
    "homepage",
    "requires",
    "settings",
    "task",
    "schedule",
    "watch",
    "backup",
    "channel",
    "listen",
    "feature",
    "consumer",
    "endpoint",
    "command",
];
/// Names that a schema of a plugin cannot have.
const RESERVED: [&str; 5] = ["rowbeat", "public", "information_schema", "postgres", "bundled"];

/// What a manifest says. As JSON it is kept with the installed plugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Also the schema.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// For people.
    pub description: String,
    /// Its licence.
    pub licence: Option<String>,
    /// Who made it.
    pub authors: Vec<String>,
    /// Where it lives.
    pub homepage: Option<String>,
    /// Oldest rowbeat that will do.
    pub rowbeat: Option<Version>,
    /// Other plugins, with their oldest version that will do.
    pub plugins: BTreeMap<String, Version>,
    /// Features that have to exist.
    pub features: Vec<String>,
    /// Connections of the daemon's configuration, with their types.
    pub connections: BTreeMap<String, String>,
    /// Relations that its functions read.
    pub read: Vec<String>,
    /// What an operator can set.
    pub settings: Vec<Field>,
    /// Definitions, schedules, watches, channels, features, consumers.
    pub rows: Vec<Row>,
    /// What `rowbeat listen` tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Listen>,
    /// HTTP endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Commands.
    pub commands: Vec<Command>,
}

/// What `rowbeat listen` tells of a plugin, beside what the plugin has in `rowbeat.listening`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listen {
    /// Channels that are always listened to.
    pub channels: Vec<String>,
    /// What is printed while `rowbeat.listening` has nothing of it.
    pub nothing: Option<String>,
}

impl Manifest {
    /// Reads a manifest; `has_file` tells which files stand beside it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(text: &str, has_file: &dyn Fn(&str) -> bool) -> Result<Self, Vec<Problem>> {
        let root = Node::parse(text)?;
        let mut problems = Vec::new();
        let Some(mut top) = Section::new("", &root, &mut problems) else { return Err(problems) };
        // Of another format nothing else can be said.
        check_format(&mut top)?;
        let manifest = Self::sections(top, &mut problems);
        for endpoint in &manifest.endpoints {
            let missing = endpoint.template.as_ref().filter(|name| !has_file(&format!("templates/{name}")));
            if let Some(name) = missing {
                let key = format!("{} template", endpoint.at());
                problems.push(Problem::of_key(endpoint.line, key, format!("there is no templates/{name}")));
            }
        }
        if problems.is_empty() {
            return Ok(manifest);
        }
        problems.sort_by_key(|problem| problem.line);
        Err(problems)
    }

    fn sections(mut top: Section<'_>, problems: &mut Vec<Problem>) -> Self {
        let (name_line, version_line) = (top.line_of("name"), top.line_of("version"));
        let name = top.needed("name", problems);
        let version = top
            .needed("version", problems)
            .and_then(|text| version(&text, version_line, "version", problems));
        if let Some(name) = &name {
            let fits = name.len() <= 40 && name.starts_with(|c: char| c.is_ascii_lowercase());
            if !fits || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                problems.push(Problem::of_key(
                    name_line,
                    "name",
                    "a name is a small letter and at most 39 more small letters, digits or _",
                ));
            } else if RESERVED.contains(&name.as_str()) || name.starts_with("pg_") {
                problems.push(Problem::of_key(
                    name_line,
                    "name",
                    format!("a schema cannot be called {name}"),
                ));
            }
        }
        let mut manifest = Self {
            name: name.unwrap_or_default(),
            version: version.unwrap_or_else(Version::of_rowbeat),
            description: top.text("description", problems).unwrap_or_default(),
            licence: top.text("licence", problems),
            authors: top.texts("authors", problems),
            homepage: top.text("homepage", problems),
            rowbeat: None,
            plugins: BTreeMap::new(),
            features: Vec::new(),
            connections: BTreeMap::new(),
            read: Vec::new(),
            settings: endpoint::fields(top.take("settings"), "[settings]", Role::Setting, problems),
            rows: row::read(&mut top, problems),
            listen: listen(&mut top, problems),
            endpoints: endpoint::read(&mut top, problems),
            commands: Vec::new(),
        };
        if let Some(section) =
            top.take("requires").and_then(|node| Section::new("[requires]", node, problems))
        {
            manifest.requires(section, problems);
        }
        let tasks: Vec<&str> =
            manifest.rows.iter().filter(|row| row.kind == "task").map(|row| row.name.as_str()).collect();
        let commands = command::read(&mut top, &tasks, problems);
        manifest.commands = commands;
        row::check(&manifest.rows, &manifest.name, &manifest.read, &manifest.connections, problems);
        if let Some(page) = top.take("page") {
            problems.push(Problem::of_key(
                page.line,
                "[[page]]",
                "pages are reserved for a later format: use [[endpoint]] with a template",
            ));
        }
        top.finish(&TOP, problems);
        manifest
    }

    fn requires(&mut self, mut section: Section<'_>, problems: &mut Vec<Problem>) {
        let line = section.line_of("rowbeat");
        if let Some(text) = section.text("rowbeat", problems) {
            self.rowbeat = version(&text, line, "[requires] rowbeat", problems);
            if let Some(needed) = self.rowbeat.filter(|needed| *needed > Version::of_rowbeat()) {
                let message = format!("needs rowbeat {needed} or newer, this is {}", Version::of_rowbeat());
                problems.push(Problem::of_key(line, "[requires] rowbeat", message));
            }
        }
        for (name, text, line) in pairs(&mut section, "plugins", problems) {
            if let Some(version) = version(&text, line, &format!("[requires] plugins {name}"), problems) {
                self.plugins.insert(name, version);
            }
        }
        for (name, kind, line) in pairs(&mut section, "connections", problems) {
            if !["http", "smtp", "kafka"].contains(&kind.as_str()) {
                let key = format!("[requires] connections {name}");
                problems.push(Problem::of_key(
                    line,
                    key,
                    "the types of connections are http, smtp and kafka",
                ));
            }
            self.connections.insert(name, kind);
        }
        self.features = section.texts("features", problems);
        self.read = section.texts("read", problems);
        section.finish(&["rowbeat", "plugins", "features", "connections", "read"], problems);
    }

    /// Names of the functions that it wants in its schema: where it says so, the function, its arguments, what it may return.
    pub fn functions(&self) -> Vec<(usize, String, &str, &'static str, &'static [&'static str])> {
        const JSON: &[&str] = &["jsonb"];
        let mut named = Vec::new();
        for row in &self.rows {
            let columns: &[(&str, &str, &[&str])] = match row.kind {
                "task" => &[
                    ("function", "(jsonb)", &[]),
                    ("plan_function", "(jsonb,jsonb[])", JSON),
                    ("settle_function", "(jsonb,jsonb,jsonb[])", JSON),
                ],
                "feature" => &[("condition", "()", &["boolean"])],
                _ => &[],
            };
            for (column, arguments, results) in columns {
                named.extend(row.text(column).map(|function| {
                    (row.line, format!("{} {column}", row.at()), function, *arguments, *results)
                }));
            }
        }
        for endpoint in &self.endpoints {
            let arguments = if endpoint.takes_files() { "(jsonb,bytea[])" } else { "(jsonb)" };
            named.push((
                endpoint.line,
                format!("{} function", endpoint.at()),
                &endpoint.function,
                arguments,
                JSON,
            ));
        }
        for command in &self.commands {
            named.extend(command.function.as_deref().map(|function| {
                (
                    command.line,
                    format!("{} function", command.at()),
                    function,
                    "(jsonb)",
                    &["setof text", "text"][..],
                )
            }));
        }
        named
    }
}

fn check_format(top: &mut Section<'_>) -> Result<(), Vec<Problem>> {
    let line = top.line;
    let Some(node) = top.take("format") else {
        return Err(vec![Problem::of_key(line, "format", "is missing: write format = 1")]);
    };
    match node.json() {
        Value::Number(number) if number.as_i64() == Some(FORMAT) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|format| format > FORMAT) => {
            let message = format!(
                "this rowbeat reads format {FORMAT}, the plugin has {number}: a newer rowbeat is needed"
            );
            Err(vec![Problem::of_key(node.line, "format", message)])
        }
        other => Err(vec![Problem::of_key(node.line, "format", format!("the format is 1, not {other}"))]),
    }
}

fn version(text: &str, line: usize, key: &str, problems: &mut Vec<Problem>) -> Option<Version> {
    let version = Version::parse(text);
    if version.is_none() {
        problems.push(Problem::of_key(
            line,
            key,
            format!("{text:?} is no version: three numbers, such as 1.0.0"),
        ));
    }
    version
}

fn listen(top: &mut Section<'_>, problems: &mut Vec<Problem>) -> Option<Listen> {
    let mut section = top.take("listen").and_then(|node| Section::new("[listen]", node, problems))?;
    let line = section.line_of("channels");
    let listen =
        Listen { channels: section.texts("channels", problems), nothing: section.text("nothing", problems) };
    if let Some(wrong) =
        listen.channels.iter().find(|name| !(1..64).contains(&name.len()) || *name == "rowbeat")
    {
        let message = format!("{wrong:?} is no channel of a plugin: 1 to 63 bytes, and not rowbeat's own");
        problems.push(Problem::of_key(line, "[listen] channels", message));
    }
    section.finish(&["channels", "nothing"], problems);
    Some(listen)
}

/// The keys of a table of texts, with their lines.
fn pairs(section: &mut Section<'_>, key: &str, problems: &mut Vec<Problem>) -> Vec<(String, String, usize)> {
    let name = section.key(key);
    let Some(mut table) = section.take(key).and_then(|node| Section::new(&name, node, problems)) else {
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for (key, node) in table.rest() {
        match node.json() {
            Value::String(text) => pairs.push((key.to_owned(), text, node.line)),
            _ => problems.push(Problem::of_key(node.line, format!("{name} {key}"), "a text is needed here")),
        }
    }
    pairs
}
