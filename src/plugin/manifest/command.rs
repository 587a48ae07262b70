//! `[[command]]`: `rowbeat app <plugin> <command>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::endpoint::fields;
use super::field::{Field, Role};
use super::tree::Section;
use crate::plugin::problem::Problem;

/// What a command does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// In kebab-case.
    pub name: String,
    /// Other names, in kebab-case.
    pub aliases: Vec<String>,
    /// `f(arguments jsonb) returns setof text`.
    pub function: Option<String>,
    /// The definition that is enqueued with --async, or always without a function.
    pub task: Option<String>,
    /// What is printed then.
    pub queued: Option<String>,
    /// Its arguments.
    pub arguments: Vec<Field>,
    /// For people.
    pub description: String,
    /// Where it stands.
    #[serde(skip)]
    pub line: usize,
}

impl Command {
    /// How problems call it.
    pub fn at(&self) -> String {
        format!("[[command]] \"{}\"", self.name)
    }

    fn read(mut section: Section<'_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let name = section.needed("name", problems)?;
        section.name = format!("[[command]] \"{name}\"");
        let command = Self {
            aliases: section.texts("aliases", problems).iter().map(|alias| kebab(alias)).collect(),
            function: section.text("function", problems),
            task: section.text("task", problems),
            queued: section.text("queued", problems),
            arguments: fields(
                section.take("arguments"),
                &format!("{} arguments", section.name),
                Role::Argument,
                problems,
            ),
            description: section.text("description", problems).unwrap_or_default(),
            line: section.line,
            name: kebab(&name),
        };
        section
            .finish(&["name", "aliases", "function", "task", "queued", "arguments", "description"], problems);
        Some(command)
    }

    fn check(&self, tasks: &[&str], problems: &mut Vec<Problem>) {
        let mut complain = |key: &str, message: String| {
            problems.push(Problem::of_key(self.line, format!("{} {key}", self.at()), message));
        };
        if self.function.is_none() && self.task.is_none() {
            complain("function", "a command has a function, a task, or both".to_owned());
        }
        if let Some(task) = self.task.as_deref().filter(|task| !tasks.contains(task)) {
            complain("task", format!("there is no [[task]] \"{task}\" in this manifest"));
        }
        if self.queued.is_some() && self.task.is_none() {
            complain("queued", "without a task nothing is queued".to_owned());
        }
        for name in std::iter::once(&self.name).chain(&self.aliases) {
            let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            if !plain || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
                complain("name", format!("{name} is no name of a command: small letters, digits and -"));
            }
        }
        let mut optional = None;
        for argument in self.arguments.iter().filter(|argument| argument.positional) {
            match optional {
                Some(earlier) => complain(
                    &format!("arguments {}", argument.name),
                    format!("nothing can follow {earlier}, which may be left out or is a list"),
                ),
                None if !argument.required || argument.list => optional = Some(&argument.name),
                None => {}
            }
        }
        if let Some(taken) = self.arguments.iter().find(|argument| {
            ["async", "json", "config", "data_dir", "help"]
                .contains(&argument.name.replace('-', "_").as_str())
        }) {
            complain(&format!("arguments {}", taken.name), "is an option of every command".to_owned());
        }
    }
}

/// All commands of the manifest; `tasks` are its definitions.
pub(super) fn read(manifest: &mut Section<'_>, tasks: &[&str], problems: &mut Vec<Problem>) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for section in manifest.tables("command", problems) {
        let Some(command) = Command::read(section, problems) else { continue };
        command.check(tasks, problems);
        for name in std::iter::once(&command.name).chain(&command.aliases) {
            if let Some(line) = names.insert(name.clone(), command.line) {
                let message = format!("the name {name} belongs to line {line} already (_ equals -)");
                problems.push(Problem::of_key(command.line, command.at(), message));
            }
        }
        commands.push(command);
    }
    commands
}

fn kebab(name: &str) -> String {
    name.replace('_', "-")
}
