//! The configuration file as a flat list of known keys, each with its line.
//!
//! Refuses what [`super::keys`] does not know and what has the wrong kind, and goes on reading, so that all errors are seen
//! at once. What a value means is not decided here.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{ConfigError, did_you_mean};
use super::keys::{self, KEYS, Kind, SECTIONS};

/// A value of the kind that its key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Texts(Vec<String>),
    Integer(i64),
    Map(BTreeMap<String, String>),
    Flag(bool),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) place: String,
}

/// All known keys of a file, by their dotted name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    entries: BTreeMap<String, Entry>,
    programs: Vec<(String, String)>,
    backups: Vec<(String, String)>,
    connections: Vec<Connection>,
}

/// A connection of the file: its keys are entries, read by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) name: String,
    pub(crate) place: String,
    /// One of the `CONNECTION` sections of [`keys`].
    pub(crate) section: &'static str,
}

impl Document {
    /// Reads TOML; `file` is the name for error messages.
    pub(crate) fn read(text: &str, file: &str, errors: &mut Vec<ConfigError>) -> Self {
        let mut reader = Reader { text, file, errors, document: Self::default() };
        match DeTable::parse_recoverable(text) {
            (table, syntax) if syntax.is_empty() => reader.file(table.get_ref()),
            (_, syntax) => reader.syntax(&syntax),
        }
        reader.document
    }

    /// The value of a key and its place.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The text of a key and its place.
    pub(crate) fn text(&self, key: &str) -> Option<(&str, &str)> {
        match self.get(key) {
            Some(Entry { value: Value::Text(text), place }) => Some((text, place)),
            _ => None,
        }
    }

    /// The names of the programs and where each begins.
    pub(crate) fn programs(&self) -> &[(String, String)] {
        &self.programs
    }

    /// The names of the backup's targets and where each begins.
    pub(crate) fn backups(&self) -> &[(String, String)] {
        &self.backups
    }

    /// The connections whose type is known.
    pub(crate) fn connections(&self) -> &[Connection] {
        &self.connections
    }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    errors: &'a mut Vec<ConfigError>,
    document: Document,
}

type Named<'t, 'i> = (&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>);

impl Reader<'_> {
    fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        format!("{} line {line}", self.file)
    }

    fn refuse(&mut self, key: &str, offset: usize, problem: impl Into<String>, remedy: impl Into<String>) {
        let place = self.place(offset);
        self.errors.push(ConfigError::new(key, problem, remedy).at(place));
    }

    fn syntax(&mut self, syntax: &[toml::de::Error]) {
        for error in syntax {
            let offset = error.span().map_or(0, |span| span.start);
            self.refuse("syntax", offset, error.message().replace('\n', ", "), "correct the TOML");
        }
    }

    fn file(&mut self, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            match value.get_ref() {
                DeValue::Table(inner) if name == "programs" => self.programs(inner),
                DeValue::Table(inner) if name == "backup" => self.backups(inner),
                DeValue::Table(inner) if name == "connections" => self.connections(inner),
                DeValue::Table(inner) if SECTIONS.contains(&name) => self.section(name, name, inner),
                DeValue::Table(_) => {
                    let remedy = did_you_mean(name, SECTIONS.iter().copied())
                        .unwrap_or_else(|| format!("the tables are {}", SECTIONS.join(", ")));
                    self.refuse(&format!("[{name}]"), offset, "there is no such table", remedy);
                }
                _ if SECTIONS.contains(&name) => {
                    self.refuse(
                        name,
                        offset,
                        "this is a table",
                        format!("write [{name}] and its keys below"),
                    );
                }
                _ => {
                    let remedy = elsewhere(name, "").unwrap_or_else(|| "every key stands in a table".into());
                    self.refuse(name, offset, "there is no such key outside of the tables", remedy);
                }
            }
        }
    }

    fn programs(&mut self, programs: &DeTable<'_>) {
        for (key, value) in in_order(programs) {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let dotted = format!("programs.{name}");
            match value.get_ref() {
                DeValue::Table(inner) => {
                    let place = self.place(offset);
                    self.document.programs.push((name.to_owned(), place));
                    self.section("programs.*", &dotted, inner);
                }
                _ => self.refuse(
                    &dotted,
                    offset,
                    "a program is a table",
                    format!("write [programs.{name}] and path = \"/absolute/path\" below"),
                ),
            }
        }
    }

    fn backups(&mut self, backups: &DeTable<'_>) {
        for (key, value) in in_order(backups) {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let dotted = format!("backup.{name}");
            match value.get_ref() {
                DeValue::Table(inner) => {
                    let place = self.place(offset);
                    self.document.backups.push((name.to_owned(), place));
                    self.section(keys::BACKUP, &dotted, inner);
                }
                _ => self.refuse(
                    &dotted,
                    offset,
                    "a target of the backup is a table",
                    format!("write [backup.{name}] and url = … or folder = … below"),
                ),
            }
        }
    }

    fn connections(&mut self, connections: &DeTable<'_>) {
        const REMEDY: &str = "write type = \"http\", \"smtp\" or \"kafka\" below its [connections.…]";
        for (key, value) in in_order(connections) {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let dotted = format!("connections.{name}");
            let DeValue::Table(inner) = value.get_ref() else {
                self.refuse(&dotted, offset, "a connection is a table", REMEDY);
                continue;
            };
            let section = match inner.get("type").map(|kind| kind.get_ref().as_str()) {
                Some(Some("http")) => keys::HTTP_CONNECTION,
                Some(Some("smtp")) => keys::SMTP_CONNECTION,
                Some(Some("kafka")) => keys::KAFKA_CONNECTION,
                None => {
                    self.refuse(&format!("{dotted}.type"), offset, "the connection has no type", REMEDY);
                    continue;
                }
                Some(_) => {
                    self.refuse(&format!("{dotted}.type"), offset, "this is no type of connection", REMEDY);
                    continue;
                }
            };
            let place = self.place(offset);
            self.document.connections.push(Connection { name: name.to_owned(), place, section });
            self.section(section, &dotted, inner);
        }
    }

    fn section(&mut self, section: &str, shown: &str, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let (name, offset) = (key.get_ref().as_ref(), key.span().start);
            let dotted = format!("{shown}.{name}");
            let Some(known) = keys::find(section, name) else {
                let (problem, remedy) = unknown(section, name);
                self.refuse(&dotted, offset, problem, remedy);
                continue;
            };
            match convert(known.kind, value.get_ref()) {
                Ok(value) => {
                    let place = self.place(offset);
                    self.document.entries.insert(dotted, Entry { value, place });
                }
                Err(remedy) => {
                    let problem = format!("{} does not fit here", value.get_ref().type_str());
                    self.refuse(&dotted, offset, problem, remedy);
                }
            }
        }
    }
}

/// The entries of a table in the order of the file.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Named<'t, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn unknown(section: &str, name: &str) -> (String, String) {
    let plain = "there is no such key".to_owned();
    match (section, name) {
        ("database", "password") => (
            "a password does not belong into this file".into(),
            "put it into a file that only the daemon can read and name that by password_file, or give a systemd \
             credential and name that by password_credential"
                .into(),
        ),
        (section, "password" | "token" | "client_secret" | "signature_secret")
            if section.starts_with("connections") =>
        {
            let problem = "a secret does not belong into this file";
            let file = format!("{name}_file");
            let place = match keys::find(section, &file) {
                Some(_) => format!("name that by {file}"),
                None => "name that by one of the keys that end in _file".into(),
            };
            (problem.into(), format!("put it into a file that only the daemon can read and {place}"))
        }
        ("database", "dbname" | "database") => (plain, "the database's name is the key name".into()),
        ("database", "username") => (plain, "the role's name is the key user".into()),
        _ => {
            let remedy = did_you_mean(name, keys::names(section))
                .or_else(|| elsewhere(name, section))
                .unwrap_or_else(|| format!("known here: {}", keys::names(section).collect::<Vec<_>>().join(", ")));
            (plain, remedy)
        }
    }
}

/// The other tables that have a key of this name.
fn elsewhere(name: &str, section: &str) -> Option<String> {
    let key = KEYS.iter().find(|key| key.name == name && key.section != section)?;
    Some(format!("{name} belongs into [{}]", key.section))
}

fn convert(kind: Kind, value: &DeValue<'_>) -> Result<Value, &'static str> {
    match (kind, value) {
        (Kind::Text | Kind::Duration | Kind::Integers, DeValue::String(text)) => {
            Ok(Value::Text(text.clone().into_owned()))
        }
        (Kind::Text, _) => Err("write a text in quotes"),
        (Kind::Duration, _) => integer(value)
            .map(|seconds| Value::Text(format!("{seconds}s")))
            .ok_or("write a text such as \"30s\" or a whole number of seconds"),
        (Kind::Integers, _) => integer(value)
            .map(|number| Value::Text(number.to_string()))
            .ok_or("write a whole number, or several in a text such as \"5432,5433\""),
        (Kind::Integer, _) => integer(value).map(Value::Integer).ok_or("write a whole number"),
        (Kind::Texts, DeValue::Array(items)) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Value::Texts)
            .ok_or("write a list of texts, such as [\"a\", \"b\"]"),
        (Kind::Texts, _) => Err("write a list of texts, such as [\"a\", \"b\"]"),
        (Kind::Map, DeValue::Table(table)) => table
            .iter()
            .map(|(key, value)| Some((key.get_ref().to_string(), value.get_ref().as_str()?.to_owned())))
            .collect::<Option<BTreeMap<_, _>>>()
            .map(Value::Map)
            .ok_or("write texts only, such as { name = \"value\" }"),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Kind::Flag, _) => Err("write true or false"),
        (Kind::Map, _) => Err("write a table of texts, such as { name = \"value\" }"),
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let mut errors = Vec::new();
        Document::read(text, "x.toml", &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn known_keys_are_read_with_their_place() {
        let mut errors = Vec::new();
        let text = "[node]\nqueues = [\"a\"]\nconcurrency = 4\ndrain_timeout = 7\n[programs.x]\nenv = { A = \"b\" }\n";
        let document = Document::read(text, "x.toml", &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(document.text("node.drain_timeout"), Some(("7s", "x.toml line 4")));
        assert_eq!(document.get("node.concurrency").unwrap().value, Value::Integer(4));
        assert_eq!(document.programs(), [("x".to_owned(), "x.toml line 5".to_owned())]);
        assert!(matches!(&document.get("programs.x.env").unwrap().value, Value::Map(map) if map["A"] == "b"));
    }

    #[test]
    fn every_unknown_key_is_refused_with_its_line_and_a_proposal() {
        let shown =
            errors("colour = 1\n[database]\nhots = \"a\"\nconcurrency = 1\n[nodes]\n[http]\nlisten = 7474\n");
        assert_eq!(shown.len(), 5, "{shown:#?}");
        assert!(shown[0].starts_with("colour (x.toml line 1)"), "{shown:#?}");
        assert!(
            shown[1].contains("database.hots (x.toml line 3)") && shown[1].contains("\"host\""),
            "{shown:#?}"
        );
        assert!(shown[2].contains("belongs into [node]"), "{shown:#?}");
        assert!(shown[3].contains("[nodes]") && shown[3].contains("\"node\""), "{shown:#?}");
        assert!(shown[4].contains("http.listen") && shown[4].contains("quotes"), "{shown:#?}");
    }

    #[test]
    fn a_password_in_the_file_is_refused_without_showing_it() {
        let shown = errors("[database]\npassword = \"hunter2\"\n").join("\n");
        assert!(shown.contains("password_file") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let shown = errors("[node]\nname = \n").join("\n");
        assert!(shown.contains("syntax (x.toml line 2)"), "{shown}");
    }
}
