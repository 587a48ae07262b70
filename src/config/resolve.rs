//! From layered parameters to a [`DatabaseConfig`]: libpq's defaults and rules, every violation reported.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::database::{
    ChannelBinding, DEFAULT_APPLICATION_NAME, DEFAULT_CONNECT_TIMEOUT, DatabaseConfig, Keepalive,
    LoadBalanceHosts, RootCertificates, SslMode, SslNegotiation, Target, TargetSessionAttrs, TlsConfig,
};
use super::duration::{SHAPE, parse_duration};
use super::environment::Environment;
use super::errors::{ConfigError, did_you_mean};
use super::parameters::{Parameters, Setting};
use super::passfile::PassFile;
use super::secret::Secret;

/// What resolving gives besides the result.
pub(crate) struct Notes<'a> {
    pub(crate) errors: &'a mut Vec<ConfigError>,
    pub(crate) warnings: &'a mut Vec<String>,
}

/// Makes the checked form. Where a parameter is wrong its default stands in, so that the rest is checked too.
pub(crate) fn resolve(
    parameters: &Parameters,
    environment: &Environment,
    notes: &mut Notes<'_>,
) -> DatabaseConfig {
    let mut resolver = Resolver { parameters, environment, notes };
    let user = resolver.user();
    let dbname = resolver.text("dbname").unwrap_or_else(|| user.clone());
    let targets = resolver.targets(&user, &dbname);
    let several = targets.len() > 1;
    let default_attrs = if several { TargetSessionAttrs::ReadWrite } else { TargetSessionAttrs::Any };
    DatabaseConfig {
        tls: resolver.tls(),
        target_session_attrs: resolver
            .word("target_session_attrs", TargetSessionAttrs::parse, TargetSessionAttrs::WORDS)
            .unwrap_or(default_attrs),
        load_balance_hosts: resolver
            .word("load_balance_hosts", LoadBalanceHosts::parse, LoadBalanceHosts::WORDS)
            .unwrap_or(LoadBalanceHosts::Disable),
        connect_timeout: resolver.connect_timeout(),
        application_name: resolver
            .text("application_name")
            .or_else(|| resolver.text("fallback_application_name"))
            .unwrap_or_else(|| DEFAULT_APPLICATION_NAME.to_owned()),
        options: resolver.text("options"),
        keepalive: resolver.keepalive(),
        listen: None,
        targets,
        user,
        dbname,
    }
}

struct Resolver<'a, 'n> {
    parameters: &'a Parameters,
    environment: &'a Environment,
    notes: &'a mut Notes<'n>,
}

impl Resolver<'_, '_> {
    fn setting(&self, keyword: &str) -> Option<&Setting> {
        self.parameters.get(keyword)
    }

    fn text(&self, keyword: &str) -> Option<String> {
        self.setting(keyword).map(|setting| setting.value.clone())
    }

    fn refuse(&mut self, keyword: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let (key, place) = match self.parameters.get(keyword) {
            Some(Setting { origin, .. }) if origin.source.contains(" line ") => {
                (origin.key.clone(), origin.source.clone())
            }
            Some(Setting { origin, .. }) => (origin.key.clone(), String::new()),
            None => (format!("database.{keyword}"), String::new()),
        };
        self.notes.errors.push(ConfigError::new(key, problem, remedy).at(place));
    }

    fn word<T>(
        &mut self,
        keyword: &str,
        parse: fn(&str) -> Option<T>,
        words: &'static [&'static str],
    ) -> Option<T> {
        let value = self.text(keyword)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let known = format!("it is one of {}", words.join(", "));
            let remedy = match did_you_mean(&value, words.iter().copied()) {
                Some(proposal) => format!("{proposal} ({known})"),
                None => known,
            };
            self.refuse(keyword, format!("\"{value}\" is not known"), remedy);
        }
        parsed
    }

    fn number(&mut self, keyword: &str) -> Option<u32> {
        let value = self.text(keyword)?;
        let number = value.trim().parse().ok();
        if number.is_none() {
            self.refuse(keyword, format!("\"{value}\" is no whole number"), "write a number of 0 or more");
        }
        number
    }

    fn user(&mut self) -> String {
        match self.text("user").or_else(|| self.environment.user().map(str::to_owned)) {
            Some(user) => user,
            None => {
                let remedy = "set database.user or PGUSER";
                self.refuse("user", "no role is named and this process's account has no name", remedy);
                String::new()
            }
        }
    }

    fn connect_timeout(&mut self) -> Option<Duration> {
        let Some(value) = self.text("connect_timeout") else { return Some(DEFAULT_CONNECT_TIMEOUT) };
        // libpq's form is a bare number of seconds, where 0 and less mean: for ever.
        let seconds = value.trim().parse::<i64>().ok();
        let parsed = seconds
            .map(|s| Duration::from_secs(s.try_into().unwrap_or(0)))
            .or_else(|| parse_duration(&value));
        if parsed.is_none() {
            self.refuse("connect_timeout", format!("\"{value}\" is no duration"), SHAPE);
        }
        parsed.filter(|limit| !limit.is_zero())
    }

    fn keepalive(&mut self) -> Keepalive {
        let seconds = |number: Option<u32>| number.filter(|n| *n > 0).map(|n| Duration::from_secs(n.into()));
        Keepalive {
            enabled: self.number("keepalives") != Some(0),
            idle: seconds(self.number("keepalives_idle")),
            interval: seconds(self.number("keepalives_interval")),
            retries: self.number("keepalives_count").filter(|n| *n > 0),
            user_timeout: self
                .number("tcp_user_timeout")
                .filter(|n| *n > 0)
                .map(|milliseconds| Duration::from_millis(milliseconds.into())),
        }
    }

    fn targets(&mut self, user: &str, dbname: &str) -> Vec<Target> {
        let ports = self.ports();
        let hosts = self.list("host");
        let addresses = self.addresses();
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            let problem = format!("{} addresses do not fit {} hosts", addresses.len(), hosts.len());
            self.refuse("hostaddr", problem, "give one address for each host, or none");
        }
        let count = hosts.len().max(addresses.len()).max(1);
        if ports.len() > 1 && ports.len() != count {
            let problem = format!("{} ports do not fit {count} hosts", ports.len());
            self.refuse("port", problem, "give one port for all hosts or one for each");
        }
        let passfile = self.passfile();
        let common = self.text("password").map(Secret::new);
        (0..count)
            .map(|at| {
                let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
                let hostaddr = addresses.get(at).copied().flatten();
                let host = match hosts.get(at).filter(|host| !host.is_empty()) {
                    Some(host) => host.clone(),
                    None => {
                        hostaddr.map_or_else(|| default_socket_folder(port), |address| address.to_string())
                    }
                };
                let password = common.clone().or_else(|| passfile.password(&host, port, dbname, user));
                Target { host, hostaddr, port, password }
            })
            .collect()
    }

    fn list(&self, keyword: &str) -> Vec<String> {
        let split = |text: String| text.split(',').map(|item| item.trim().to_owned()).collect();
        self.text(keyword).map_or_else(Vec::new, split)
    }

    fn ports(&mut self) -> Vec<u16> {
        let mut ports = Vec::new();
        for text in self.list("port") {
            match text.parse() {
                Ok(0) | Err(_) if !text.is_empty() => {
                    // In a URL this may be a piece of a password with a / in it.
                    let of_url =
                        self.setting("port").is_some_and(|setting| setting.origin.key.contains(" in "));
                    let (shown, more) = if of_url {
                        ("this".to_owned(), "; a / or @ in the password is written %2F or %40")
                    } else {
                        (format!("\"{text}\""), "")
                    };
                    let remedy = format!("give a number from 1 to 65535{more}");
                    self.refuse("port", format!("{shown} is no port"), remedy);
                }
                Ok(port) => ports.push(port),
                Err(_) => ports.push(5432),
            }
        }
        ports
    }

    fn addresses(&mut self) -> Vec<Option<IpAddr>> {
        let mut addresses = Vec::new();
        for text in self.list("hostaddr") {
            let address = text.parse().ok();
            if address.is_none() && !text.is_empty() {
                let remedy = "give an address such as 192.0.2.7, and names in host";
                self.refuse("hostaddr", format!("\"{text}\" is no numeric address"), remedy);
            }
            addresses.push(address);
        }
        addresses
    }

    fn passfile(&mut self) -> PassFile {
        let named = self.text("passfile").map(PathBuf::from);
        let path = named.or_else(|| Some(self.environment.home()?.join(".pgpass")));
        match path.as_deref().map(PassFile::read) {
            Some(Ok(file)) => file,
            Some(Err(warning)) => {
                // As libpq does: a warning, and on without it. With a password given it does not matter at all.
                if self.setting("password").is_none() {
                    self.notes.warnings.push(format!("the password file {warning}"));
                }
                PassFile::default()
            }
            None => PassFile::default(),
        }
    }

    fn tls(&mut self) -> TlsConfig {
        let system = self.text("sslrootcert").as_deref() == Some("system");
        let default_mode = if system { SslMode::VerifyFull } else { SslMode::Prefer };
        let mode = self.word("sslmode", SslMode::parse, SslMode::WORDS).unwrap_or(default_mode);
        if system && mode != SslMode::VerifyFull {
            let problem = format!("sslrootcert=system does not go with sslmode={mode}");
            self.refuse(
                "sslmode",
                problem,
                "use verify-full: anybody gets a certificate from a public authority",
            );
        }
        let negotiation = self
            .word("sslnegotiation", SslNegotiation::parse, SslNegotiation::WORDS)
            .unwrap_or(SslNegotiation::Postgres);
        if negotiation == SslNegotiation::Direct
            && matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer)
        {
            let problem = format!("sslnegotiation=direct does not go with sslmode={mode}");
            self.refuse("sslnegotiation", problem, "use sslmode require, verify-ca or verify-full with it");
        }
        TlsConfig {
            mode,
            roots: self.roots(mode, system),
            client: self.client_certificate(mode),
            negotiation,
            channel_binding: self
                .word("channel_binding", ChannelBinding::parse, ChannelBinding::WORDS)
                .unwrap_or(ChannelBinding::Prefer),
            only_tls13: self.only_tls13(),
        }
    }

    fn only_tls13(&mut self) -> bool {
        match self.text("ssl_min_protocol_version").as_deref() {
            None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
            Some("TLSv1.3") => true,
            Some(other) => {
                let problem = format!("\"{other}\" is not known");
                self.refuse("ssl_min_protocol_version", problem, "use TLSv1.2 or TLSv1.3");
                false
            }
        }
    }

    fn roots(&mut self, mode: SslMode, system: bool) -> RootCertificates {
        let verifies = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        if system {
            return RootCertificates::System;
        }
        let named = self.text("sslrootcert").map(PathBuf::from);
        let default =
            || Some(self.environment.home()?.join(".postgresql/root.crt")).filter(|path| path.is_file());
        match named.clone().or_else(default) {
            Some(path) if path.is_file() => RootCertificates::File(path),
            Some(path) if verifies || (mode == SslMode::Require && named.is_some()) => {
                let problem = format!("there is no file {}", path.display());
                self.refuse(
                    "sslrootcert",
                    problem,
                    "name the PEM file of the authority that signed the server's certificate",
                );
                RootCertificates::None
            }
            None if verifies => {
                let problem = format!("sslmode={mode} has no root certificate to verify with");
                let remedy = "set sslrootcert to a PEM file, or to \"system\" for the platform's roots";
                self.refuse("sslmode", problem, remedy);
                RootCertificates::None
            }
            _ => RootCertificates::None,
        }
    }

    fn client_certificate(&mut self, mode: SslMode) -> Option<(PathBuf, PathBuf)> {
        if mode == SslMode::Disable {
            return None;
        }
        let default = |name: &str| Some(self.environment.home()?.join(".postgresql").join(name));
        let named = self.text("sslcert").map(PathBuf::from);
        let certificate = named.clone().or_else(|| default("postgresql.crt").filter(|path| path.is_file()));
        let key = self.text("sslkey").map(PathBuf::from).or_else(|| default("postgresql.key"));
        match (certificate, key) {
            (None, _) if self.setting("sslkey").is_some() => {
                self.refuse("sslkey", "there is a key but no certificate", "set sslcert too");
                None
            }
            (None, _) => None,
            (Some(certificate), Some(key)) if key.is_file() && certificate.is_file() => {
                Some((certificate, key))
            }
            (Some(certificate), key) => {
                let missing = if certificate.is_file() { key } else { Some(certificate) };
                let missing = missing.as_deref().unwrap_or(Path::new("(no sslkey)")).display().to_string();
                let keyword = if named.is_some() { "sslcert" } else { "sslkey" };
                self.refuse(keyword, format!("there is no file {missing}"), "name both sslcert and sslkey");
                None
            }
        }
    }
}

/// Where libpq looks for the socket when no host is named; distributions differ, so the folder that has one wins.
fn default_socket_folder(port: u16) -> String {
    let folders = ["/var/run/postgresql", "/tmp"];
    let with_socket =
        folders.iter().find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists());
    let with_folder = || folders.iter().find(|folder| Path::new(folder).is_dir());
    with_socket.or_else(with_folder).map_or_else(|| "/tmp".to_owned(), |folder| (*folder).to_owned())
}
