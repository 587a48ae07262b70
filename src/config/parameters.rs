//! Connection parameters by libpq's names, laid over each other: the file first, then `DATABASE_URL`, the service file and
//! the `PG*` variables.
//!
//! Invariant: the first layer that has a value keeps it, and every value remembers where it came from. Host and address are
//! one unit: an address never joins a host of another layer.

use std::collections::BTreeMap;

use super::environment::Environment;
use super::errors::{ConfigError, did_you_mean};

/// What is done with a parameter that libpq knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    Used,
    /// It makes no difference here, because the only supported behaviour is also libpq's usual one.
    Ignored,
    /// Ignoring it would be wrong; the text says what to do instead.
    Refused(&'static str),
}

struct Known {
    keyword: &'static str,
    variable: Option<&'static str>,
    support: Support,
}

const fn used(keyword: &'static str, variable: &'static str) -> Known {
    Known { keyword, variable: Some(variable), support: Support::Used }
}

const fn plain(keyword: &'static str) -> Known {
    Known { keyword, variable: None, support: Support::Used }
}

const fn ignored(keyword: &'static str) -> Known {
    Known { keyword, variable: None, support: Support::Ignored }
}

const fn refused(keyword: &'static str, variable: Option<&'static str>, remedy: &'static str) -> Known {
    Known { keyword, variable, support: Support::Refused(remedy) }
}

const NO_CRL: &str = "remove it: certificate revocation lists are not supported";

const KNOWN: &[Known] = &[
    used("host", "PGHOST"),
    used("hostaddr", "PGHOSTADDR"),
    used("port", "PGPORT"),
    used("dbname", "PGDATABASE"),
    used("user", "PGUSER"),
    used("password", "PGPASSWORD"),
    used("passfile", "PGPASSFILE"),
    used("service", "PGSERVICE"),
    used("servicefile", "PGSERVICEFILE"),
    used("sslmode", "PGSSLMODE"),
    used("sslrootcert", "PGSSLROOTCERT"),
    used("sslcert", "PGSSLCERT"),
    used("sslkey", "PGSSLKEY"),
    used("sslnegotiation", "PGSSLNEGOTIATION"),
    used("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    used("channel_binding", "PGCHANNELBINDING"),
    used("target_session_attrs", "PGTARGETSESSIONATTRS"),
    used("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    used("connect_timeout", "PGCONNECT_TIMEOUT"),
    used("application_name", "PGAPPNAME"),
    used("options", "PGOPTIONS"),
    plain("fallback_application_name"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
    plain("tcp_user_timeout"),
    ignored("client_encoding"),
    ignored("gssencmode"),
    ignored("gsslib"),
    ignored("gssdelegation"),
    ignored("krbsrvname"),
    ignored("sslcertmode"),
    ignored("sslcompression"),
    ignored("sslsni"),
    ignored("ssl_max_protocol_version"),
    ignored("min_protocol_version"),
    ignored("max_protocol_version"),
    refused("sslcrl", Some("PGSSLCRL"), NO_CRL),
    refused("sslcrldir", Some("PGSSLCRLDIR"), NO_CRL),
    refused(
        "sslpassword",
        None,
        "remove it and store the key without a pass phrase, readable by the daemon only",
    ),
    refused("requirepeer", Some("PGREQUIREPEER"), "remove it, or use TCP with sslmode=verify-full"),
    refused(
        "require_auth",
        Some("PGREQUIREAUTH"),
        "remove it; sslmode=verify-full or channel_binding=require protect the password",
    ),
    refused("replication", None, "remove it: the daemon needs ordinary sessions"),
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// What a person has to change, such as `database.sslmode`, `sslmode in DATABASE_URL` or `PGSSLMODE`.
    pub(crate) key: String,
    /// Where that stands, as the effective configuration shows it.
    pub(crate) source: String,
}

/// A value and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// Parameters by libpq's names.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    settings: BTreeMap<String, Setting>,
}

impl Parameters {
    /// The setting of a parameter.
    pub(crate) fn get(&self, keyword: &str) -> Option<&Setting> {
        self.settings.get(keyword)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings.iter().map(|(keyword, setting)| (keyword.as_str(), setting))
    }

    /// Does any layer say which server is meant?
    pub(crate) fn names_a_server(&self) -> bool {
        self.get("host").or(self.get("hostaddr")).is_some()
    }

    /// Lays `lower` below: keeps what is here and takes what is missing.
    pub(crate) fn fill_from(&mut self, lower: Self) {
        let server_known = self.names_a_server();
        for (keyword, setting) in lower.settings {
            if !(server_known && (keyword == "host" || keyword == "hostaddr")) {
                self.settings.entry(keyword).or_insert(setting);
            }
        }
    }

    /// The same without some parameters.
    pub(crate) fn without(mut self, keywords: &[&str]) -> Self {
        self.settings.retain(|keyword, _| !keywords.contains(&keyword.as_str()));
        self
    }

    /// Sets one parameter; an empty value counts as absent.
    pub(crate) fn set(
        &mut self,
        keyword: &str,
        value: &str,
        key: impl Into<String>,
        source: impl Into<String>,
    ) {
        if !value.is_empty() {
            let origin = Origin { key: key.into(), source: source.into() };
            self.settings.insert(keyword.to_owned(), Setting { value: value.to_owned(), origin });
        }
    }

    /// A layer of written parameters: those of a connection string or a service. `place` is what to call it.
    pub(crate) fn of_pairs(pairs: &[(String, String)], place: &str, errors: &mut Vec<ConfigError>) -> Self {
        let mut layer = Self::default();
        for (name, value) in pairs {
            let key = format!("{name} in {place}");
            match KNOWN.iter().find(|known| known.keyword == name) {
                Some(known) => layer.accept(known, value, key, place, errors),
                None => {
                    let used = KNOWN.iter().filter(|known| known.support == Support::Used);
                    let remedy = did_you_mean(name, used.map(|known| known.keyword))
                        .unwrap_or_else(|| "remove it, or use one of libpq's parameters".into());
                    errors.push(ConfigError::new(key, "there is no such connection parameter", remedy));
                }
            }
        }
        layer
    }

    /// The layer of libpq's environment variables.
    pub(crate) fn of_environment(environment: &Environment, errors: &mut Vec<ConfigError>) -> Self {
        let mut layer = Self::default();
        for known in KNOWN {
            let Some(variable) = known.variable else { continue };
            if let Some(value) = environment.get(variable) {
                layer.accept(known, value, variable.to_owned(), variable, errors);
            }
        }
        layer
    }

    fn accept(
        &mut self,
        known: &Known,
        value: &str,
        key: String,
        source: &str,
        errors: &mut Vec<ConfigError>,
    ) {
        match known.support {
            Support::Used => self.set(known.keyword, value, key, source),
            Support::Ignored if known.keyword == "gssencmode" && value == "require" => {
                errors.push(ConfigError::new(
                    key,
                    "GSSAPI encryption is not supported",
                    "use sslmode=verify-full",
                ));
            }
            Support::Ignored => {}
            Support::Refused(_) if value.is_empty() => {}
            Support::Refused(remedy) => errors.push(ConfigError::new(key, "this is not supported", remedy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(pairs: &[(&str, &str)]) -> Parameters {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Parameters::of_pairs(&pairs, "url", &mut Vec::new())
    }

    #[test]
    fn the_first_layer_wins_and_lower_ones_fill_gaps() {
        let mut parameters = layer(&[("user", "a")]);
        parameters.fill_from(layer(&[("user", "b"), ("dbname", "d")]));
        assert_eq!(parameters.get("user").unwrap().value, "a");
        assert_eq!(parameters.get("dbname").unwrap().value, "d");
    }

    #[test]
    fn an_address_never_joins_a_host_of_another_layer() {
        let mut parameters = layer(&[("host", "db1")]);
        parameters.fill_from(layer(&[("hostaddr", "10.0.0.1"), ("port", "1")]));
        assert!(parameters.get("hostaddr").is_none());
        assert_eq!(parameters.get("port").unwrap().value, "1");
    }

    #[test]
    fn unknown_and_unsupported_parameters_are_refused_and_harmless_ones_pass() {
        let pairs = [("sslmod", "x"), ("sslcrl", "x"), ("gssencmode", "require"), ("sslsni", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut errors = Vec::new();
        Parameters::of_pairs(&pairs, "url", &mut errors);
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].remedy.contains("\"sslmode\""), "{errors:?}");
    }
}
