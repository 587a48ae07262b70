//! A snapshot of what the process knows of its surroundings: variables, user, home directory, host name.
//!
//! The configuration is a pure function of its files and this snapshot, so that tests hand in their own. This is the only
//! place that reads the process's environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The variables, the user and the host that a configuration is read for.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
    host_name: Option<String>,
}

impl Environment {
    /// The real one. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let node = nix::sys::utsname::uname().ok();
        Self {
            variables,
            home: account.as_ref().map(|account| account.dir.clone()),
            user: account.map(|account| account.name),
            host_name: node.and_then(|node| node.nodename().to_str().map(str::to_owned)),
        }
    }

    /// An invented one, for tests: only the given variables, the user from `USER`, the home from `HOME`, the host `localhost`.
    pub fn from_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self {
            user: variables.get("USER").cloned(),
            host_name: Some("localhost".into()),
            home: None,
            variables,
        }
    }

    /// A variable's value; an empty one counts as absent, as it does for libpq's defaults.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The home directory: `HOME`, else what the account says.
    pub fn home(&self) -> Option<&Path> {
        self.get("HOME").map(Path::new).or(self.home.as_deref())
    }

    /// The name of the account that the process runs as.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The name of this machine.
    pub fn host_name(&self) -> Option<&str> {
        self.host_name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let environment = Environment::from_variables([("PGHOST", ""), ("PGPORT", "5433")]);
        assert_eq!((environment.get("PGHOST"), environment.get("PGPORT")), (None, Some("5433")));
    }

    #[test]
    fn the_process_has_a_user_and_a_host_name() {
        let environment = Environment::of_process();
        assert!(environment.user().is_some() && environment.host_name().is_some());
    }
}
