//! What can be wrong with a configuration: a list, because a person wants to mend everything in one go.
//!
//! Every entry names the key (or variable), where it stands, what is wrong and what to do. No entry holds a secret.

use std::fmt;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key or variable, such as `database.sslmode` or `PGPORT`.
    pub key: String,
    /// Where it stands, such as `/etc/rowbeat/rowbeat.toml line 12`; empty when the key says it already.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl ConfigError {
    /// An error whose key says where it stands.
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), place: String::new(), problem: problem.into(), remedy: remedy.into() }
    }

    /// The same error with the place where its key stands.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

/// Everything that is wrong with the configuration, in reading order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration is wrong: {one}"),
            many => {
                write!(f, "the configuration has {} errors:", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  - {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// The known name nearest to a misspelt one, as `did you mean "x"?`, when one is near enough.
pub(crate) fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), strsim::jaro_winkler(wrong, name), name))
        .filter(|(distance, likeness, _)| *distance <= 2 || *likeness >= 0.85)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(_, _, name)| format!("did you mean \"{name}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_proposed_and_a_far_one_is_not() {
        let known = ["host", "hostaddr", "port", "sslmode"];
        assert_eq!(did_you_mean("hots", known).as_deref(), Some("did you mean \"host\"?"));
        assert_eq!(did_you_mean("ssl_mode", known).as_deref(), Some("did you mean \"sslmode\"?"));
        assert_eq!(did_you_mean("colour", known), None);
    }

    #[test]
    fn all_errors_are_shown_with_place_and_remedy() {
        let errors = ConfigErrors(vec![
            ConfigError::new("node.colour", "there is no such key", "remove it").at("x.toml line 3"),
            ConfigError::new("PGPORT", "\"x\" is no port", "give a number from 1 to 65535"),
        ]);
        let shown = errors.to_string();
        assert!(shown.contains("2 errors"), "{shown}");
        assert!(shown.contains("node.colour (x.toml line 3): there is no such key; remove it"), "{shown}");
        assert!(shown.contains("PGPORT: \"x\" is no port; give a number"), "{shown}");
    }
}
