//! Typed values: settings, inputs of endpoints, arguments of commands. One description serves all three.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tree::Section;
use crate::plugin::problem::Problem;

/// What a field is for decides which keys and types it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Setting,
    Input,
    Argument,
}

const SCALARS: [&str; 8] = ["text", "integer", "numeric", "boolean", "date", "timestamp", "uuid", "json"];
/// Places of an endpoint's input.
pub(super) const PLACES: [&str; 6] = ["path", "query", "json", "form", "file", "body"];

/// A typed value. Absent rules are absent from its JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Its name; of inputs `prefix*` takes all that begin so, and `*` the whole document.
    pub name: String,
    /// Of inputs: path, query, json, form or file.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// text, integer, numeric, boolean, date, timestamp, uuid, json; file for inputs and arguments, password for arguments.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it is a list of such values.
    #[serde(default, skip_serializing_if = "is_false")]
    pub list: bool,
    /// What it is when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Of arguments: what is asked on a terminal when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Of arguments: given by position instead of as an option.
    #[serde(default, skip_serializing_if = "is_false")]
    pub positional: bool,
    /// Of passwords: one is made by the program when none is given, and printed once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub generate: bool,
    /// min, max, min_length, max_length, enum.
    #[serde(flatten)]
    pub rules: serde_json::Map<String, Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Field {
    /// Reads a field named `name` and complains about what does not fit together.
    pub(super) fn read(
        name: &str,
        mut section: Section<'_>,
        role: Role,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut complain = Complaints { at: section.name.clone(), line: section.line, problems };
        check_name(name, role, &mut complain);
        let problems = &mut *complain.problems;
        let place = if role == Role::Input { section.needed("in", problems) } else { None };
        let kind = section.text("type", problems).unwrap_or_else(|| match place.as_deref() {
            Some("file") => "file".to_owned(),
            _ => "text".to_owned(),
        });
        let mut field = Self {
            name: name.to_owned(),
            kind,
            required: role != Role::Setting
                && section.flag("required", problems).unwrap_or(place.as_deref() == Some("path")),
            list: role != Role::Setting && section.flag("list", problems).unwrap_or(false),
            default: section.take("default").map(super::tree::Node::json),
            description: section.text("description", problems).unwrap_or_default(),
            prompt: if role == Role::Argument { section.text("prompt", problems) } else { None },
            positional: role == Role::Argument && section.flag("positional", problems).unwrap_or(false),
            generate: role == Role::Argument && section.flag("generate", problems).unwrap_or(false),
            rules: serde_json::Map::new(),
            place,
        };
        for rule in ["min", "max", "min_length", "max_length", "enum"] {
            if let Some(node) = section.take(rule) {
                field.rules.insert(rule.to_owned(), node.json());
            }
        }
        let (at, line) = (section.name.clone(), section.line);
        let known = [
            "in",
            "type",
            "required",
            "list",
            "default",
            "description",
            "prompt",
            "positional",
            "generate",
            "min",
            "max",
            "min_length",
            "max_length",
            "enum",
        ];
        let known: Vec<&str> = known
            .into_iter()
            .filter(|key| match role {
                Role::Setting => {
                    !["in", "required", "list", "prompt", "positional", "generate"].contains(key)
                }
                Role::Input => !["prompt", "positional", "generate"].contains(key),
                Role::Argument => *key != "in",
            })
            .collect();
        section.finish(&known, problems);
        field.check(role, &mut Complaints { at, line, problems });
        field
    }

    fn check(&self, role: Role, complain: &mut Complaints<'_>) {
        let kind = self.kind.as_str();
        let known = SCALARS.contains(&kind)
            || (kind == "file" && role != Role::Setting)
            || (kind == "password" && role == Role::Argument);
        if !known {
            let more = match role {
                Role::Setting => "",
                Role::Input => ", file",
                Role::Argument => ", file, password",
            };
            return complain.about("type", format!("the types are {}{more}", SCALARS.join(", ")));
        }
        if let Some(place) = &self.place {
            if !PLACES.contains(&place.as_str()) {
                complain.about("in", format!("inputs come in {}", PLACES.join(", ")));
            } else if (place == "file") != (kind == "file") {
                complain.about("type", "type file goes with in = \"file\", and only with that");
            } else if place == "body" && (kind != "text" || self.list) {
                complain.about("in", "the whole body is one text, whatever its kind");
            } else if place == "path" && (self.list || !self.required) {
                complain.about("in", "a parameter of the path is one value and always there");
            }
        }
        if self.generate
            && (kind != "password" || self.required || self.prompt.is_some() || self.default.is_some())
        {
            complain.about(
                "generate",
                "only a password is generated, and only one that is not required or asked for",
            );
        }
        if self.required && self.default.is_some() {
            complain.about("default", "what is required has no default");
        }
        for (rule, value) in &self.rules {
            if let Err(problem) = self.judge_rule(rule, value) {
                complain.about(rule, problem);
            }
        }
        let values = match &self.default {
            Some(Value::Array(list)) if self.list => list.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        if let Some(problem) = values.iter().find_map(|value| self.judge(value).err()) {
            complain.about("default", problem);
        }
    }

    fn judge_rule(&self, rule: &str, value: &Value) -> Result<(), String> {
        let ordered = ["integer", "numeric", "date", "timestamp"].contains(&self.kind.as_str());
        match rule {
            "min" | "max" if ordered => is_of(&self.kind, value),
            "min_length" | "max_length"
                if self.kind == "text" && value.as_i64().is_some_and(|length| length >= 0) =>
            {
                Ok(())
            }
            "max_length" if self.kind == "file" && value.as_i64().is_some_and(|length| length > 0) => Ok(()),
            "min_length" | "max_length" if self.kind == "text" => {
                Err("a length is a whole number".to_owned())
            }
            "enum" if SCALARS.contains(&self.kind.as_str()) => match value {
                Value::Array(list) if !list.is_empty() => {
                    list.iter().try_for_each(|one| is_of(&self.kind, one))
                }
                _ => Err("a list of the allowed values is needed here".to_owned()),
            },
            _ => Err(format!("there is no {rule} for type {}", self.kind)),
        }
    }

    /// Whether a value is of the type and keeps the rules; what is wrong, in words.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn judge(&self, value: &Value) -> Result<(), String> {
        is_of(&self.kind, value)?;
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        for (rule, bound) in &self.rules {
            let below = match (value, bound) {
                (Value::String(a), Value::String(b)) if self.kind != "numeric" => a < b,
                _ => number(value) < number(bound),
            };
            let length = value.as_str().map(|text| text.chars().count() as i64).unwrap_or_default();
            let kept = match rule.as_str() {
                "min" => !below,
                "max" => below || value == bound || number(value).is_some_and(|n| Some(n) == number(bound)),
                "min_length" => bound.as_i64().is_none_or(|bound| length >= bound),
                "max_length" => bound.as_i64().is_none_or(|bound| length <= bound),
                "enum" => bound.as_array().is_none_or(|list| list.contains(value)),
                _ => true,
            };
            if !kept {
                return Err(format!("{value} does not keep {rule} = {bound}"));
            }
        }
        Ok(())
    }
}

/// Whether a JSON value can be of a type.
fn is_of(kind: &str, value: &Value) -> Result<(), String> {
    let text = value.as_str();
    let fits = match kind {
        "text" => text.is_some(),
        "integer" => value.is_i64(),
        "numeric" => {
            value.is_number() || text.is_some_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
        }
        "boolean" => value.is_boolean(),
        "date" => text.is_some_and(|text| text.parse::<chrono::NaiveDate>().is_ok()),
        "timestamp" => text.is_some_and(is_timestamp),
        "uuid" => text.is_some_and(|text| {
            text.len() == 36
                && text.char_indices().all(|(at, c)| {
                    if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() }
                })
        }),
        "json" => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{value} is no {kind}")) }
}

/// RFC 3339, also with a blank for the T, without seconds, and with an offset of hours only.
fn is_timestamp(text: &str) -> bool {
    let text = text.replacen(' ', "T", 1);
    let forms = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"];
    forms.iter().any(|form| chrono::DateTime::parse_from_str(&text, form).is_ok())
}

fn check_name(name: &str, role: Role, complain: &mut Complaints<'_>) {
    // Many forms name their lists so.
    let stem = if role == Role::Input { name.strip_suffix('*').unwrap_or(name) } else { name };
    let stem = if role == Role::Input { stem.strip_suffix("[]").unwrap_or(stem) } else { stem };
    let plain = stem.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !plain
        || (stem.is_empty() && stem.len() == name.len())
        || stem.starts_with(|c: char| c.is_ascii_digit() || c == '-')
    {
        complain.about("", "names are letters, digits and _");
    }
}

/// Problems of one field.
struct Complaints<'p> {
    at: String,
    line: usize,
    problems: &'p mut Vec<Problem>,
}

impl Complaints<'_> {
    fn about(&mut self, key: &str, message: impl Into<String>) {
        let key = format!("{} {key}", self.at).trim_end().to_owned();
        self.problems.push(Problem::of_key(self.line, key, message));
    }
}

/// The description of a parameter of a path that nothing else is said about.
pub(super) fn of_path(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        place: Some("path".to_owned()),
        kind: "text".to_owned(),
        required: true,
        list: false,
        default: None,
        description: String::new(),
        prompt: None,
        positional: false,
        generate: false,
        rules: json!({ "min_length": 1 }).as_object().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_names_its_offset() {
        for text in [
            "2026-01-31T18:00:00Z",
            "2026-01-31 18:00Z",
            "2026-01-31 18:00:00.5+02",
            "2026-01-31T18:00-03:30",
        ] {
            assert!(is_timestamp(text), "{text}");
        }
        for text in ["2026-01-31 18:00", "2026-01-31", "18:00Z", "2026-02-30 18:00Z", ""] {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
