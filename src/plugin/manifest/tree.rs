//! TOML as a tree that knows its lines, and a reader that takes keys out of a table and complains about what is left.

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use crate::plugin::problem::Problem;

/// A value and the line it begins in.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) tree: Tree,
}

#[derive(Debug, Clone)]
pub(super) enum Tree {
    Scalar(Value),
    List(Vec<Node>),
    /// Keys in the order they are written.
    Table(Vec<(String, Node)>),
}

impl Node {
    /// Reads TOML; what is no TOML is a problem for each error.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        match DeTable::parse_recoverable(text) {
            (table, syntax) if syntax.is_empty() => Ok(Self::table(text, table.get_ref(), 1)),
            (_, syntax) => {
                let mut problems: Vec<Problem> = syntax
                    .iter()
                    .map(|error| {
                        let line = line_of(text, error.span().map_or(0, |span| span.start));
                        Problem::of_key(line, "", format!("no TOML: {}", error.message().replace('\n', ", ")))
                    })
                    .collect();
                problems.sort_by_key(|problem| problem.line);
                Err(problems)
            }
        }
    }

    fn table(text: &str, table: &DeTable<'_>, line: usize) -> Self {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        let entries = keys.into_iter().map(|(key, value)| {
            let node = Self::value(text, value.get_ref(), line_of(text, key.span().start));
            (key.get_ref().to_string(), node)
        });
        Self { line, tree: Tree::Table(entries.collect()) }
    }

    fn value(text: &str, value: &DeValue<'_>, line: usize) -> Self {
        let scalar = match value {
            DeValue::Table(table) => return Self::table(text, table, line),
            DeValue::Array(list) => {
                let nodes =
                    list.iter().map(|one| Self::value(text, one.get_ref(), line_of(text, one.span().start)));
                return Self { line, tree: Tree::List(nodes.collect()) };
            }
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Value::String(number.to_string()), Value::from),
            DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(moment) => Value::String(moment.to_string()),
        };
        Self { line, tree: Tree::Scalar(scalar) }
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(nodes) => nodes.iter().map(Self::json).collect(),
            Tree::Table(entries) => Value::Object(
                entries.iter().map(|(key, node)| (key.clone(), node.json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().get(..offset).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
}

/// Takes the keys out of a table.
pub(super) struct Section<'n> {
    /// How problems call it: `[[task]] "ship"`.
    pub(super) name: String,
    pub(super) line: usize,
    entries: Vec<(&'n str, &'n Node)>,
}

impl<'n> Section<'n> {
    /// A section of a node, if that is a table.
    pub(super) fn new(name: &str, node: &'n Node, problems: &mut Vec<Problem>) -> Option<Self> {
        let Tree::Table(entries) = &node.tree else {
            problems.push(Problem::of_key(node.line, name, "this is a table: its keys stand below"));
            return None;
        };
        let entries = entries.iter().map(|(key, node)| (key.as_str(), node)).collect();
        Some(Self { name: name.to_owned(), line: node.line, entries })
    }

    /// How problems call a key of this section.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{} {key}", self.name).trim_start().to_owned()
    }

    /// The line of a key, of the section when it is not there.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.iter().find(|(name, _)| *name == key).map_or(self.line, |(_, node)| node.line)
    }

    /// The value of a key, which is then known.
    pub(super) fn take(&mut self, key: &str) -> Option<&'n Node> {
        let at = self.entries.iter().position(|(name, _)| *name == key)?;
        Some(self.entries.remove(at).1)
    }

    /// The tables below a key that may stand several times, `[[key]]`.
    pub(super) fn tables(&mut self, key: &str, problems: &mut Vec<Problem>) -> Vec<Section<'n>> {
        match self.take(key).map(|node| (node, &node.tree)) {
            None => Vec::new(),
            Some((_, Tree::List(nodes))) => {
                nodes.iter().filter_map(|node| Section::new(&format!("[[{key}]]"), node, problems)).collect()
            }
            Some((node, _)) => {
                problems.push(Problem::of_key(
                    node.line,
                    key,
                    format!("write [[{key}]], in double brackets"),
                ));
                Vec::new()
            }
        }
    }

    fn scalar(
        &mut self,
        key: &str,
        what: &str,
        problems: &mut Vec<Problem>,
        fits: fn(&Value) -> bool,
    ) -> Option<Value> {
        let node = self.take(key)?;
        match &node.tree {
            Tree::Scalar(value) if fits(value) => Some(value.clone()),
            _ => {
                problems.push(Problem::of_key(node.line, self.key(key), format!("{what} is needed here")));
                None
            }
        }
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<String> {
        let value = self.scalar(key, "a text", problems, Value::is_string)?;
        value.as_str().map(str::to_owned)
    }

    /// A text that has to be there.
    pub(super) fn needed(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<String> {
        let before = problems.len();
        let text = self.text(key, problems).filter(|text| !text.is_empty());
        if text.is_none() && problems.len() == before {
            problems.push(Problem::of_key(self.line, self.key(key), "is missing"));
        }
        text
    }

    /// true or false.
    pub(super) fn flag(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<bool> {
        self.scalar(key, "true or false", problems, Value::is_boolean)?.as_bool()
    }

    /// A whole number.
    pub(super) fn integer(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<i64> {
        self.scalar(key, "a whole number", problems, Value::is_i64)?.as_i64()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, problems: &mut Vec<Problem>) -> Vec<String> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let json = node.json();
        let texts =
            json.as_array().and_then(|list| list.iter().map(|one| one.as_str().map(str::to_owned)).collect());
        texts.unwrap_or_else(|| {
            problems.push(Problem::of_key(node.line, self.key(key), "a list of texts is needed here"));
            Vec::new()
        })
    }

    /// What is left, name by name, each below this section.
    pub(super) fn rest(&mut self) -> Vec<(&'n str, &'n Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Complains about the keys that nobody took.
    pub(super) fn finish(self, known: &[&str], problems: &mut Vec<Problem>) {
        for (key, node) in &self.entries {
            let likely = known.iter().max_by(|a, b| strsim::jaro(key, a).total_cmp(&strsim::jaro(key, b)));
            let remedy = match likely {
                Some(likely) if strsim::jaro(key, likely) > 0.8 => format!("did you mean {likely}?"),
                _ => format!("known are {}", known.join(", ")),
            };
            problems.push(Problem::of_key(
                node.line,
                self.key(key),
                format!("there is no such key; {remedy}"),
            ));
        }
    }
}
