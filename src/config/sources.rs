//! The layers of the connection parameters: which sources there are, and in which order they count.
//!
//! First the keys of `[database]` (single keys before `url`), then `DATABASE_URL` unless the file names a server, then the
//! service file, then libpq's `PG*` variables. Without any of them the private Postgres is meant.

use std::path::{Path, PathBuf};

use super::database::DatabaseConfig;
use super::document::Document;
use super::dsn::parse_dsn;
use super::environment::Environment;
use super::errors::ConfigError;
use super::parameters::Parameters;
use super::passfile::find_service;
use super::resolve::{Notes, resolve};
use super::secret;

/// The keys of `[database]` that are connection parameters, with libpq's names.
const KEYWORDS: &[(&str, &str)] = &[
    ("host", "host"),
    ("hostaddr", "hostaddr"),
    ("port", "port"),
    ("name", "dbname"),
    ("user", "user"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("sslkey", "sslkey"),
    ("target_session_attrs", "target_session_attrs"),
    ("connect_timeout", "connect_timeout"),
    ("application_name", "application_name"),
];

/// The key of the file that sets a connection parameter, for showing it.
pub(crate) fn key_of(keyword: &str) -> String {
    let key = KEYWORDS.iter().find(|(_, known)| *known == keyword).map_or(keyword, |(key, _)| *key);
    format!("database.{key}")
}

/// The database that is meant, with the parameters that led to it; `None` is the private one.
pub(crate) fn database(
    document: &Document,
    environment: &Environment,
    notes: &mut Notes<'_>,
) -> Option<(DatabaseConfig, Parameters)> {
    let in_file = |key: &str| document.get(&format!("database.{key}")).is_some();
    let in_environment = |name: &str| environment.get(name).is_some();
    let configured = ["url", "host", "hostaddr", "name"].into_iter().any(in_file)
        || ["DATABASE_URL", "PGHOST", "PGSERVICE", "PGDATABASE"].into_iter().any(in_environment);
    if !configured {
        return None;
    }
    let mut parameters = file_layer(document, environment, notes);
    if let Some(url) = environment.get("DATABASE_URL") {
        // A URL describes one server as a whole: its password must not travel to the server that the file names.
        if !parameters.names_a_server() {
            parameters.fill_from(dsn_layer(url, "DATABASE_URL", "", notes.errors));
        }
    }
    let variables = Parameters::of_environment(environment, notes.errors);
    parameters.fill_from(service_layer(&parameters, &variables, environment, notes.errors));
    parameters.fill_from(variables);

    let mut config = resolve(&parameters, environment, notes);
    if let Some((url, place)) = document.text("database.listen_url") {
        let mut direct = dsn_layer(url, "database.listen_url", place, notes.errors);
        if direct.names_a_server() {
            let server = ["host", "hostaddr", "port", "service", "load_balance_hosts"];
            direct.fill_from(parameters.clone().without(&server));
            config.listen = Some(Box::new(resolve(&direct, environment, notes)));
        } else {
            let problem = "it names no host";
            let remedy = "write the direct connection, such as postgres://db1:5432/shop";
            notes.errors.push(ConfigError::new("database.listen_url", problem, remedy).at(place));
        }
    }
    Some((config, parameters))
}

fn file_layer(document: &Document, environment: &Environment, notes: &mut Notes<'_>) -> Parameters {
    let mut layer = Parameters::default();
    for (key, keyword) in KEYWORDS {
        let key = format!("database.{key}");
        if let Some((value, place)) = document.text(&key) {
            layer.set(keyword, value, key, place);
        }
    }
    if let Some((password, key, place)) = password(document, environment, notes) {
        layer.set("password", &password, key, place);
    }
    if let Some((url, place)) = document.text("database.url") {
        layer.fill_from(dsn_layer(url, "database.url", place, notes.errors));
    }
    layer
}

/// The parameters of a connection string.
pub(crate) fn dsn_layer(text: &str, key: &str, place: &str, errors: &mut Vec<ConfigError>) -> Parameters {
    match parse_dsn(text) {
        Ok(pairs) => Parameters::of_pairs(&pairs, key, errors),
        Err(problem) => {
            let remedy = "write postgres://user@host:5432/database or host=… dbname=…";
            errors.push(ConfigError::new(key, problem, remedy).at(place));
            Parameters::default()
        }
    }
}

fn service_layer(
    explicit: &Parameters,
    variables: &Parameters,
    environment: &Environment,
    errors: &mut Vec<ConfigError>,
) -> Parameters {
    let Some(service) = explicit.get("service").or(variables.get("service")) else {
        return Parameters::default();
    };
    let file =
        explicit.get("servicefile").or(variables.get("servicefile")).map(|setting| setting.value.as_str());
    match find_service(&service.value, file, environment) {
        Ok((pairs, path)) => {
            Parameters::of_pairs(&pairs, &format!("service {} of {}", service.value, path.display()), errors)
        }
        Err(problem) => {
            let remedy = "correct the name, or name the file by PGSERVICEFILE";
            errors.push(ConfigError::new(&service.origin.key, problem, remedy));
            Parameters::default()
        }
    }
}

/// The password that the file points to, with the key that does and its place.
fn password<'d>(
    document: &'d Document,
    environment: &Environment,
    notes: &mut Notes<'_>,
) -> Option<(String, &'static str, &'d str)> {
    const FILE: &str = "database.password_file";
    const CREDENTIAL: &str = "database.password_credential";
    let (path, key, place) = match (document.text(FILE), document.text(CREDENTIAL)) {
        (None, None) => return None,
        (Some(_), Some((_, place))) => {
            let problem = "password_file is set too";
            notes.errors.push(ConfigError::new(CREDENTIAL, problem, "keep one of the two").at(place));
            return None;
        }
        (Some((path, place)), None) => (PathBuf::from(path), FILE, place),
        (None, Some((name, place))) => match environment.get("CREDENTIALS_DIRECTORY") {
            Some(folder) if !name.contains('/') => (Path::new(folder).join(name), CREDENTIAL, place),
            Some(_) => {
                let remedy = "write only the name that stands before the : in LoadCredential=";
                notes.errors.push(ConfigError::new(CREDENTIAL, "this is a path", remedy).at(place));
                return None;
            }
            None => {
                let problem = "this process was given no credentials ($CREDENTIALS_DIRECTORY is not set)";
                let remedy =
                    format!("start it by systemd with LoadCredential={name}:/path, or use password_file");
                notes.errors.push(ConfigError::new(CREDENTIAL, problem, remedy).at(place));
                return None;
            }
        },
    };
    match secret::read_file(&path) {
        Ok((text, everybody)) => {
            if everybody && key == FILE {
                notes.warnings.push(format!("everybody can read the password file {}", path.display()));
            }
            Some((text, key, place))
        }
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", path.display());
            notes.errors.push(ConfigError::new(key, problem, "let the daemon's account read it").at(place));
            None
        }
    }
}
