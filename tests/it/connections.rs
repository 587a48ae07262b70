//! The connections of the configuration: what is read, refused and never shown.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rowbeat::config::{ClientAuth, Config, ConfigErrors, Environment, HttpAuth, SmtpTls};

fn load(text: &str) -> Result<Config, ConfigErrors> {
    let environment = Environment::from_variables([("USER", "me")]);
    Config::from_text(text, Path::new("rowbeat.toml"), &environment)
}

fn secret(folder: &tempfile::TempDir, name: &str, mode: u32) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, "hunter2\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    path
}

#[test]
fn connections_are_read_with_their_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let file = secret(&folder, "secret", 0o600);
    let text = format!(
        "[connections.pay]\ntype = \"http\"\nbase_url = \"https://pay.example.com/v1/\"\nauth = \"oauth2\"\ntoken_url = \"https://pay.example.com/token\"\n\
         client_id = \"me\"\nclient_secret_file = \"{0}\"\nscope = \"a b\"\nheader_files = {{ X-Key = \"{0}\" }}\n\
         [connections.mail]\ntype = \"smtp\"\nhost = \"mail.example.com\"\nfrom = \"Shop <shop@example.com>\"\nusername = \"me\"\npassword_file = \"{0}\"\n\
         [connections.local]\ntype = \"smtp\"\nhost = \"localhost\"\ntls = \"none\"\n",
        file.display()
    );
    let config = load(&text).unwrap();
    let http = &config.connections.http["pay"];
    assert_eq!(http.base_url.as_str(), "https://pay.example.com/v1");
    assert_eq!(
        (http.timeout, http.redirects, http.max_response_bytes),
        (Duration::from_secs(30), 0, 1 << 20)
    );
    assert!(!http.allow_private_addresses && http.signature.is_none());
    let HttpAuth::OAuth2(oauth2) = &http.auth else { panic!("{:?}", http.auth) };
    assert_eq!((oauth2.client_secret.reveal(), oauth2.client_auth), ("hunter2", ClientAuth::Basic));
    assert_eq!(
        oauth2.params,
        [("grant_type", "client_credentials"), ("scope", "a b")].map(|(a, b)| (a.into(), b.into()))
    );
    let smtp = &config.connections.smtp;
    assert_eq!((smtp["mail"].port, smtp["mail"].tls, smtp["local"].port), (587, SmtpTls::StartTls, 25));
    assert_eq!(smtp["mail"].hello_name, "localhost");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);

    let shown = format!("{config:?} {:?}", config.effective());
    assert!(!shown.contains("hunter2"), "{shown}");
    let rows = config.effective();
    let row = |key: &str| rows.iter().find(|row| row.key == key).map(|row| row.value.clone());
    assert_eq!(row("connections.pay.header_files").as_deref(), Some("X-Key"));
    assert_eq!(row("connections.mail.password_file"), Some(file.display().to_string()));
    assert_eq!(row("connections.mail.port").as_deref(), Some("587"));
}

#[test]
fn all_errors_of_connections_are_listed_at_once_with_remedies() {
    let text = "[connections.a]\nbase_url = \"https://x.example\"\n\
        [connections.b]\ntype = \"ftp\"\n\
        [connections.c]\ntype = \"http\"\nbase_url = \"http://192.168.88.1/rest\"\nauth = \"basic\"\ntoken_file = \"/t\"\nredirects = 99\n\
        [connections.d]\ntype = \"http\"\nbase_url = \"https://me:hunter2@x.example/?a=1\"\npassword = \"hunter2\"\nheaders = { \"x y\" = \"1\" }\n\
        [connections.e]\ntype = \"http\"\nauth = \"oauth2\"\nsignature_header = \"X-S\"\nallow_private_addresses = \"yes\"\n\
        [connections.f]\ntype = \"smtp\"\ntls = \"ssl\"\nport = 0\nfrom = \"nobody\"\nusername = \"me\"\nca_file = \"/nowhere/ca.pem\"\nbase_url = \"x\"\n";
    let errors: Vec<String> = load(text).unwrap_err().0.iter().map(ToString::to_string).collect();
    let all = errors.join("\n");
    for (key, remedy) in [
        ("connections.a.type (rowbeat.toml line 1)", "write type ="),
        ("connections.b.type (rowbeat.toml line 3)", "\"smtp\" or \"kafka\""),
        ("connections.c.base_url (rowbeat.toml line 7)", "set allow_private_addresses = true"),
        ("connections.c.token_file", "set auth = \"bearer\""),
        ("connections.c.username", "name the user"),
        ("connections.c.password_file", "holds the password"),
        ("connections.c.redirects", "from 0 to 20"),
        ("connections.d.base_url", "set auth = \"basic\""),
        ("connections.d.base_url", "from ? or # on"),
        ("connections.d.password", "name that by password_file"),
        ("connections.d.headers", "printable ASCII"),
        ("connections.e.base_url", "write a URL"),
        ("connections.e.token_url", "write a URL"),
        ("connections.e.client_id", "name the client"),
        ("connections.e.client_secret_file", "holds the client secret"),
        ("connections.e.signature_header", "set signature_secret_file too"),
        ("connections.e.allow_private_addresses", "write true or false"),
        ("connections.f.host", "name the mail server"),
        ("connections.f.tls", "starttls, implicit, none"),
        ("connections.f.port", "from 1 to 65535"),
        ("connections.f.from", "shop@example.com"),
        ("connections.f.password_file", "holds the password"),
        ("connections.f.ca_file", "root certificates"),
        ("connections.f.base_url", "of type http"),
    ] {
        assert!(errors.iter().any(|e| e.starts_with(key) && e.contains(remedy)), "{key}: {remedy}\n{all}");
    }
    assert_eq!(errors.len(), 24, "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn what_is_unsafe_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = secret(&folder, "secret", 0o644);
    let text = format!(
        "[connections.router]\ntype = \"http\"\nbase_url = \"http://192.168.88.1/rest\"\nallow_private_addresses = true\nauth = \"basic\"\n\
         username = \"me\"\npassword_file = \"{}\"\n",
        file.display()
    );
    let warnings = load(&text).unwrap().warnings.join("\n");
    assert!(warnings.contains("connections.router.password_file: everybody can read"), "{warnings}");
    assert!(warnings.contains("without encryption"), "{warnings}");
}

#[test]
fn a_kafka_connection_needs_a_build_with_kafka() {
    let text = "[connections.events]\ntype = \"kafka\"\nbootstrap_servers = \"k1.example:9092\"\nproperties = { \"sasl.password\" = \"hunter2\" }\n";
    let errors = load(text).unwrap_err().to_string();
    assert!(errors.contains("use password_file") && !errors.contains("hunter2"), "{errors}");
    assert_eq!(errors.contains("--features kafka"), !cfg!(feature = "kafka"), "{errors}");
}
