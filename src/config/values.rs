//! Single values out of the document, with defaults and limits: every reader notes errors, and what is in force with its
//! source.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::EffectiveRow;
use super::document::{Document, Entry, Value};
use super::duration::{SHAPE, format_duration, parse_duration};
use super::environment::Environment;
use super::errors::{ConfigError, did_you_mean};
use super::secret::{self, Secret};

/// Takes values out of the document, with defaults; notes errors and what is in force.
pub(crate) struct Sections<'a> {
    pub(super) document: &'a Document,
    pub(super) environment: &'a Environment,
    errors: &'a mut Vec<ConfigError>,
    rows: &'a mut Vec<EffectiveRow>,
    warnings: &'a mut Vec<String>,
}

pub(super) const DEFAULT: &str = "default";

impl<'a> Sections<'a> {
    pub(crate) fn new(
        document: &'a Document,
        environment: &'a Environment,
        errors: &'a mut Vec<ConfigError>,
        rows: &'a mut Vec<EffectiveRow>,
        warnings: &'a mut Vec<String>,
    ) -> Self {
        Self { document, environment, errors, rows, warnings }
    }

    /// Notes a value that is in force.
    pub(crate) fn show(&mut self, key: &str, value: &(impl std::fmt::Display + ?Sized), source: &str) {
        self.rows.push(EffectiveRow { key: key.into(), value: value.to_string(), source: source.into() });
    }

    /// Notes an error.
    pub(super) fn refuse(
        &mut self,
        key: &str,
        place: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(ConfigError::new(key, problem, remedy).at(place));
    }

    /// A whole number within limits.
    pub(crate) fn count(&mut self, key: &str, default: usize, limits: RangeInclusive<usize>) -> usize {
        let Some(Entry { value: Value::Integer(number), place }) = self.document.get(key) else {
            self.show(key, &default, DEFAULT);
            return default;
        };
        match usize::try_from(*number).ok().filter(|number| limits.contains(number)) {
            Some(number) => {
                self.show(key, &number, place);
                number
            }
            None => {
                let remedy = format!("give a number from {} to {}", limits.start(), limits.end());
                self.refuse(key, place, format!("{number} is out of range"), remedy);
                default
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, default: Duration, least: Duration) -> Duration {
        let Some((text, place)) = self.document.text(key) else {
            self.show(key, &format_duration(default), DEFAULT);
            return default;
        };
        match parse_duration(text) {
            Some(duration) if duration >= least => {
                self.show(key, &format_duration(duration), place);
                duration
            }
            Some(_) => {
                let remedy = format!("give at least {}", format_duration(least));
                self.refuse(key, place, format!("\"{text}\" is too short"), remedy);
                default
            }
            None => {
                self.refuse(key, place, format!("\"{text}\" is no duration"), SHAPE);
                default
            }
        }
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        let (value, place) = self.document.text(key).unwrap_or((default, DEFAULT));
        if value.trim().is_empty() {
            self.refuse(key, place, "it is empty", "give a value or remove the key");
        }
        self.show(key, value, place);
        value.to_owned()
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let (path, place) = self.document.text(key)?;
        if path.is_empty() {
            self.refuse(key, place, "the path is empty", "give a path or remove the key");
        }
        self.show(key, path, place);
        Some(PathBuf::from(path))
    }

    pub(super) fn place(&self, key: &str) -> String {
        self.document.get(key).map_or_else(String::new, |entry| entry.place.clone())
    }

    /// Notes what is not wrong but deserves a line in the log.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// A text that may be absent, but not empty.
    pub(super) fn optional(&mut self, key: &str) -> Option<String> {
        self.document.get(key)?;
        Some(self.text(key, "")).filter(|text| !text.trim().is_empty())
    }

    /// A text that has to be there; `owner` is where the table begins.
    pub(super) fn required(&mut self, key: &str, owner: &str, remedy: &str) -> Option<String> {
        if self.document.get(key).is_none() {
            self.refuse(key, owner, "it is missing", remedy);
        }
        self.optional(key)
    }

    /// true or false.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let (flag, place) = match self.document.get(key) {
            Some(Entry { value: Value::Flag(flag), place }) => (*flag, place.as_str()),
            _ => (default, DEFAULT),
        };
        self.show(key, &flag, place);
        flag
    }

    /// One of several words; the first is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        let text = self.text(key, words[0].0);
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == text) {
            return *found;
        }
        let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let proposal = did_you_mean(&text, words.iter().map(|(word, _)| *word)).unwrap_or_default();
        let place = self.place(key);
        let remedy = format!("use one of {known} {proposal}");
        self.refuse(key, &place, format!("\"{text}\" is not known"), remedy.trim());
        words[0].1
    }

    /// A table of texts, empty when absent. Shows the names only: the values may be secrets.
    pub(super) fn map(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(Entry { value: Value::Map(map), place }) = self.document.get(key) else {
            return BTreeMap::new();
        };
        self.show(key, &map.keys().cloned().collect::<Vec<_>>().join(", "), place);
        map.clone()
    }

    /// The content of the file that a key names; shows the file's name only.
    pub(super) fn secret_file(&mut self, key: &str) -> Option<Secret> {
        let path = self.path(key)?;
        self.secret(key, &path)
    }

    /// The content of a file.
    pub(super) fn secret(&mut self, key: &str, path: &Path) -> Option<Secret> {
        let place = self.place(key);
        match secret::read_file(path) {
            Ok((text, _)) if text.is_empty() => {
                let problem = format!("{} is empty", path.display());
                self.refuse(key, &place, problem, "put the secret into it, and nothing else");
                None
            }
            Ok((text, everybody)) => {
                if everybody {
                    self.warn(format!("{key}: everybody can read {}", path.display()));
                }
                Some(Secret::new(text))
            }
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", path.display());
                self.refuse(key, &place, problem, "let the daemon's account read it");
                None
            }
        }
    }

    /// The certificates of the PEM file that a key names.
    pub(super) fn certificates(&mut self, key: &str) -> Vec<CertificateDer<'static>> {
        let Some(path) = self.path(key) else { return Vec::new() };
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
        match found {
            Ok(certificates) if !certificates.is_empty() => certificates,
            other => {
                let problem = other.err().map_or_else(|| "no certificate in it".into(), |e| e.to_string());
                let place = self.place(key);
                let problem = format!("{} cannot be used: {problem}", path.display());
                self.refuse(key, &place, problem, "name a PEM file with root certificates");
                Vec::new()
            }
        }
    }
}
