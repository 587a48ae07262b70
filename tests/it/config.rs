//! The configuration as a whole: files, environment, precedence, and the shipped example.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rowbeat::config::{
    Config, ConfigErrors, DatabaseConfig, Environment, LogFormat, RootCertificates, SslMode,
    TargetSessionAttrs,
};

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = Environment::from_variables([("USER", "me")].iter().chain(variables).copied());
    Config::from_text(text, Path::new("rowbeat.toml"), &environment)
}

fn database(text: &str, variables: &[(&str, &str)]) -> DatabaseConfig {
    load(text, variables).unwrap().database.unwrap()
}

fn errors(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load(text, variables).unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn hosts(config: &DatabaseConfig) -> String {
    config.targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn password(config: &DatabaseConfig) -> Option<&str> {
    config.targets[0].password.as_ref().map(|password| password.reveal())
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn without_a_file_and_variables_the_defaults_and_the_private_postgres_are_meant() {
    let config = load("", &[]).unwrap();
    assert!(config.database.is_none());
    assert_eq!((config.max_connections, config.node.concurrency), (10, 10));
    assert_eq!(config.node.queues, ["*"]);
    assert_eq!(config.node.name, "localhost");
    assert_eq!(config.node.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.node.poll_interval, Duration::from_secs(30));
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:7474");
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Auto, "info"));
}

#[test]
fn the_absent_default_file_is_no_error_and_an_absent_named_one_is() {
    let environment = Environment::from_variables([]);
    if !Path::new(rowbeat::config::DEFAULT_PATH).exists() {
        assert!(Config::load(None, &environment).unwrap().file.is_none());
    }
    let error = Config::load(Some(Path::new("/nowhere/rowbeat.toml")), &environment).unwrap_err();
    assert!(error.to_string().contains("/nowhere/rowbeat.toml"), "{error}");
}

#[test]
fn the_shipped_example_loads_and_changes_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/rowbeat.toml.example");
    let config = Config::load(Some(&path), &Environment::from_variables([])).unwrap();
    assert!(config.database.is_none() && config.programs.is_empty());
}

#[test]
fn any_of_the_named_variables_or_keys_means_a_configured_database() {
    for (variable, value) in [("PGHOST", "h"), ("PGDATABASE", "d"), ("DATABASE_URL", "postgres:///d")] {
        assert!(load("", &[(variable, value)]).unwrap().database.is_some(), "{variable}");
    }
    for key in ["url = \"postgres:///d\"", "host = \"h\"", "hostaddr = \"::1\"", "name = \"d\""] {
        assert!(load(&format!("[database]\n{key}"), &[]).unwrap().database.is_some(), "{key}");
    }
    for (variable, value) in [("PGPORT", "1"), ("PGUSER", "u"), ("PGHOST", ""), ("PGPASSWORD", "p")] {
        assert!(load("", &[(variable, value)]).unwrap().database.is_none(), "{variable}");
    }
    assert!(load("[database]\nuser = \"u\"\nmax_connections = 3\n", &[]).unwrap().database.is_none());
}

#[test]
fn single_keys_come_before_the_url_and_that_before_the_environment() {
    let text = "[database]\nurl = \"postgres://u@db1:5433/shop?sslmode=disable\"\nname = \"other\"\n";
    let environment = [("PGUSER", "pg"), ("PGSSLMODE", "require"), ("PGAPPNAME", "app"), ("PGPORT", "1")];
    let config = database(text, &environment);
    assert_eq!(hosts(&config), "db1:5433");
    assert_eq!((config.user.as_str(), config.dbname.as_str()), ("u", "other"));
    assert_eq!((config.tls.mode, config.application_name.as_str()), (SslMode::Disable, "app"));
}

#[test]
fn database_url_fills_what_the_file_leaves_open_but_not_another_server() {
    let url = ("DATABASE_URL", "postgres://u:secret@db9/shop");
    let config = database("[database]\nname = \"other\"\n", &[url]);
    assert_eq!((hosts(&config).as_str(), config.dbname.as_str()), ("db9:5432", "other"));
    assert_eq!(password(&config), Some("secret"));
    let config = database("[database]\nhost = \"db1\"\n", &[url]);
    assert_eq!((hosts(&config).as_str(), config.dbname.as_str()), ("db1:5432", "me"));
    assert_eq!(password(&config), None);
}

#[test]
fn several_hosts_take_their_ports_and_want_one_that_takes_writes() {
    let config = database("", &[("DATABASE_URL", "postgres://a:1,b,[::1]:3/d")]);
    assert_eq!(hosts(&config), "a:1 b:5432 [::1]:3");
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::ReadWrite);
    let config = database("[database]\nhost = \"a,b\"\nport = 7\ntarget_session_attrs = \"any\"\n", &[]);
    assert_eq!(hosts(&config), "a:7 b:7");
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Any);
    assert_eq!(database("", &[("PGHOST", "a")]).target_session_attrs, TargetSessionAttrs::Any);
}

#[test]
fn what_only_libpq_knows_is_understood() {
    let dsn = "host=a dbname=d sslmode=allow connect_timeout=3 keepalives_count=4 tcp_user_timeout=1500 gssencmode=prefer \
               load_balance_hosts=random target_session_attrs=prefer-standby fallback_application_name=x";
    let config = database("", &[("DATABASE_URL", dsn)]);
    assert_eq!(config.tls.mode, SslMode::Allow);
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(config.keepalive.retries, Some(4));
    assert_eq!(config.keepalive.user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::PreferStandby);
    assert_eq!(config.application_name, "x");
}

#[test]
fn the_service_file_comes_before_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services");
    std::fs::write(&file, "[shop]\nhost=db7\nport=6000\nuser=svc\n").unwrap();
    let file = file.to_str().unwrap();
    let config =
        database("", &[("PGSERVICE", "shop"), ("PGSERVICEFILE", file), ("PGUSER", "pg"), ("PGPORT", "1")]);
    assert_eq!((hosts(&config).as_str(), config.user.as_str()), ("db7:6000", "svc"));
    let config = database("", &[("DATABASE_URL", "postgres://?service=shop"), ("PGSERVICEFILE", file)]);
    assert_eq!(hosts(&config), "db7:6000");
    let shown = errors("", &[("PGSERVICE", "shup"), ("PGSERVICEFILE", file)]).join("\n");
    assert!(shown.contains("PGSERVICE") && shown.contains("shup") && shown.contains(file), "{shown}");
}

#[test]
fn passwords_come_from_the_file_the_credential_or_pgpass_of_each_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write(&path("pw"), "from file\n", 0o600);
    write(&path(".pgpass"), "a:*:*:*:for a\nb:*:*:*:for b\n", 0o600);
    let home = ("HOME", folder.path().to_str().unwrap());
    let credentials = ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());

    let text = format!("[database]\nhost = \"a\"\npassword_file = \"{}\"\n", path("pw").display());
    assert_eq!(password(&database(&text, &[("PGPASSWORD", "x"), home])), Some("from file"));
    let text = "[database]\nhost = \"a\"\npassword_credential = \"pw\"\n";
    assert_eq!(password(&database(text, &[credentials])), Some("from file"));
    assert!(errors(text, &[])[0].contains("LoadCredential=pw"));
    assert_eq!(password(&database("", &[("PGHOST", "a"), ("PGPASSWORD", "x"), home])), Some("x"));
    let config = database("", &[("PGHOST", "a,b"), home]);
    assert_eq!(password(&config), Some("for a"));
    assert_eq!(config.targets[1].password.as_ref().unwrap().reveal(), "for b");

    write(&path(".pgpass"), "a:*:*:*:for a\n", 0o644);
    let config = load("", &[("PGHOST", "a"), home]).unwrap();
    assert!(config.warnings[0].contains("chmod 0600"), "{:?}", config.warnings);
    assert_eq!(password(&config.database.unwrap()), None);
}

#[test]
fn root_certificates_follow_libpqs_rules() {
    let folder = tempfile::tempdir().unwrap();
    let home = ("HOME", folder.path().to_str().unwrap());
    let roots = |mode: &str| database("", &[("PGHOST", "a"), ("PGSSLMODE", mode), home]).tls.roots;
    assert_eq!(roots("require"), RootCertificates::None);
    let shown = errors("", &[("PGHOST", "a"), ("PGSSLMODE", "verify-full"), home]).join("\n");
    assert!(shown.contains("sslrootcert") && shown.contains("system"), "{shown}");

    std::fs::create_dir(folder.path().join(".postgresql")).unwrap();
    let default = folder.path().join(".postgresql/root.crt");
    std::fs::write(&default, "").unwrap();
    assert_eq!(roots("require"), RootCertificates::File(default.clone()));
    assert_eq!(roots("verify-full"), RootCertificates::File(default));

    let config = database("[database]\nhost = \"a\"\nsslrootcert = \"system\"\n", &[]);
    assert_eq!((config.tls.mode, config.tls.roots), (SslMode::VerifyFull, RootCertificates::System));
    let shown = errors("[database]\nhost = \"a\"\nsslrootcert = \"system\"\nsslmode = \"require\"\n", &[]);
    assert!(shown[0].contains("database.sslmode (rowbeat.toml line 4)"), "{shown:?}");
}

#[test]
fn a_direct_connection_for_listening_takes_the_rest_from_the_main_one() {
    let text =
        "[database]\nurl = \"postgres://u:pw@pooler:6432/shop\"\nlisten_url = \"postgres://db1:5432\"\n";
    let config = database(text, &[]);
    let listen = config.listen.as_deref().unwrap();
    assert_eq!(
        (hosts(listen).as_str(), listen.user.as_str(), listen.dbname.as_str()),
        ("db1:5432", "u", "shop")
    );
    assert_eq!(password(listen), Some("pw"));
    assert!(
        errors("[database]\nhost = \"a\"\nlisten_url = \"dbname=x\"\n", &[])[0].contains("names no host")
    );
}

#[test]
fn all_errors_come_at_once_each_with_its_key_its_place_and_a_remedy() {
    let text = "[database]\nhost = \"a,b\"\nport = \"1,2,3\"\nsslmode = \"verify_full\"\npassword = \"hunter2\"\n\
                [node]\nconcurrency = 0\ndrain_timeout = \"30\"\nqueue = [\"a\"]\n[http]\nlisten = \"7474\"\n\
                [log]\nformat = \"jsn\"\n[programs.x]\npath = \"bin/x\"\n[programs.y]\n";
    let shown = errors(text, &[("PGCONNECT_TIMEOUT", "soon"), ("PGSSLCRL", "/x")]);
    for (key, remedy) in [
        ("database.port (rowbeat.toml line 3)", "one for each"),
        ("database.sslmode (rowbeat.toml line 4)", "did you mean \"verify-full\"?"),
        ("database.password (rowbeat.toml line 5)", "password_file"),
        ("node.concurrency (rowbeat.toml line 7)", "from 1 to"),
        ("node.drain_timeout (rowbeat.toml line 8)", "\"30s\""),
        ("node.queue (rowbeat.toml line 9)", "did you mean \"queues\"?"),
        ("http.listen (rowbeat.toml line 11)", "off"),
        ("log.format (rowbeat.toml line 13)", "json"),
        ("programs.x.path (rowbeat.toml line 15)", "PATH is not searched"),
        ("programs.y.path (rowbeat.toml line 16)", "add path"),
        ("PGCONNECT_TIMEOUT", "a unit"),
        ("PGSSLCRL", "not supported"),
    ] {
        let found = shown.iter().find(|error| error.starts_with(key));
        assert!(found.is_some_and(|error| error.contains(remedy)), "{key}: {remedy}\n{shown:#?}");
    }
    assert_eq!(shown.len(), 12, "{shown:#?}");
    assert!(!shown.join("\n").contains("hunter2"));
}

#[test]
fn no_error_and_no_effective_row_shows_a_secret() {
    let url = "postgres://u:hunter2@a/d?sslmode=oops&port=hunter2";
    let shown = errors("", &[("DATABASE_URL", url)]).join("\n");
    assert!(shown.contains("sslmode in DATABASE_URL") && !shown.contains("hunter2"), "{shown}");
    // A slash that is not escaped makes a port of half of the password.
    let shown = errors("", &[("DATABASE_URL", "postgres://u:hunter2/x@a/d")]).join("\n");
    assert!(shown.contains("%2F") && !shown.contains("hunter2"), "{shown}");
    let program = "[programs.x]\npath = \"/bin/true\"\nenv = { TOKEN = \"hunter2\" }\n";
    let config = load(program, &[("DATABASE_URL", "postgres://u:hunter2@a/d")]).unwrap();
    let rows = format!("{:?} {config:?}", config.effective());
    assert!(rows.contains("***") && !rows.contains("hunter2"), "{rows}");
}

#[test]
fn the_effective_configuration_names_every_source() {
    let config = load("[database]\nhost = \"a\"\n[node]\nconcurrency = 3\n", &[("PGUSER", "u")]).unwrap();
    let rows = config.effective();
    for (key, value, source) in [
        ("database.host", "a", "rowbeat.toml line 2"),
        ("database.user", "u", "PGUSER"),
        ("database.port", "5432", "default"),
        ("database.sslmode", "prefer", "default"),
        ("node.concurrency", "3", "rowbeat.toml line 4"),
        ("node.poll_interval", "30s", "default"),
    ] {
        let row = rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!((row.value.as_str(), row.source.as_str()), (value, source), "{key}");
    }
    let mut config = load("", &[("STATE_DIRECTORY", "/var/lib/rowbeat")]).unwrap();
    assert_eq!(config.private_postgres.data_dir.as_deref(), Some(Path::new("/var/lib/rowbeat/postgres")));
    config.override_data_dir("/x".into());
    let rows = config.effective();
    let row = rows.iter().find(|row| row.key == "private_postgres.data_dir").unwrap();
    assert_eq!((row.value.as_str(), row.source.as_str()), ("/x", "--data-dir"));
}
