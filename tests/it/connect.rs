//! Connecting for real: TLS in every mode, several hosts, the kind of session that is wanted, the pool, cancelling, waiting.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use deadpool_postgres::RecyclingMethod;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rowbeat::config::{Config, Environment};
use rowbeat::db::connect::{ConnectError, Connector};
use rowbeat::db::embedded::PrivatePostgres;
use rowbeat::db::wait::wait_for_db;

use crate::embedded::{ask, options, scratch};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key in PEM form.
fn issue(authority: &Authority, common_name: &str, alternative: &str) -> (String, String) {
    let mut params = CertificateParams::new([alternative.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn self_signed(alternative: &str) -> (String, String) {
    let mut params = CertificateParams::new([alternative.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server on 127.0.0.1 with TLS, and the files that clients need.
struct Server {
    _postgres: PrivatePostgres,
    folder: tempfile::TempDir,
    port: u16,
}

const HBA: &str = "local all all trust\n\
    hostssl all certified 127.0.0.1/32 cert\n\
    hostnossl all plain 127.0.0.1/32 trust\n\
    hostssl all tls 127.0.0.1/32 trust\n\
    host all scram 127.0.0.1/32 scram-sha-256\n\
    host all postgres 127.0.0.1/32 trust\n";

impl Server {
    async fn start(certificate: &(String, String), client_authority: &str, more: &[(&str, &str)]) -> Self {
        let folder = scratch();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            if nix::unistd::geteuid().is_root() {
                let account =
                    ["postgres", "nobody"].iter().find_map(|n| nix::unistd::User::from_name(n).unwrap());
                std::os::unix::fs::chown(&path, account.map(|account| account.uid.as_raw()), None).unwrap();
            }
            path.to_str().unwrap().to_owned()
        };
        let mut options = options(folder.path());
        options.port = free_port();
        let port = options.port;
        let settings = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("hba_file", write("hba", HBA)),
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", write("server.crt", &certificate.0)),
            ("ssl_key_file", write("server.key", &certificate.1)),
            ("ssl_ca_file", write("clients.crt", client_authority)),
        ];
        options.settings.extend(settings.map(|(name, value)| (name.to_owned(), value)));
        options.settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let postgres = PrivatePostgres::start(options).await.unwrap();
        let admin = postgres.connector("postgres").unwrap();
        let roles = "begin read write; create role certified login; create role plain login; \
                     create role tls login; create role scram login password 'pw'; commit";
        ask(&admin, roles).await;
        Self { _postgres: postgres, folder, port }
    }

    /// A file for clients: readable by this process only.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Reached under an invented name, without a name lookup.
    fn dsn(&self, host: &str, user: &str, more: &str) -> String {
        format!("host={host} hostaddr=127.0.0.1 port={} user={user} dbname=postgres {more}", self.port)
    }
}

fn connector(dsn: &str) -> Connector {
    let environment = Environment::from_variables([("DATABASE_URL", dsn)]);
    let config = Config::from_text("", Path::new("rowbeat.toml"), &environment).unwrap();
    Connector::new(&config.database.unwrap()).unwrap()
}

async fn encrypted(dsn: &str) -> bool {
    ask(&connector(dsn), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").await == "t"
}

async fn refused(dsn: &str) -> ConnectError {
    match connector(dsn).connect("test").await {
        Ok(_) => panic!("a session where none should be: {dsn}"),
        Err(error) => error,
    }
}

const NAME: &str = "db.example.test";

#[tokio::test]
async fn every_sslmode_does_what_libpq_does() {
    let (ours, other) = (authority("ours"), authority("other"));
    let server = Server::start(&issue(&ours, "server", NAME), &ours.pem(), &[]).await;
    let root = format!("sslrootcert={}", server.file("root.crt", &ours.pem()).display());
    let wrong_root = format!("sslrootcert={}", server.file("wrong.crt", &other.pem()).display());
    let dsn = |host: &str, user: &str, mode: &str, more: &str| {
        server.dsn(host, user, &format!("sslmode={mode} {more}"))
    };

    assert!(encrypted(&dsn(NAME, "postgres", "verify-full", &root)).await);
    let error = refused(&dsn("else.example.test", "postgres", "verify-full", &root)).await;
    assert!(error.to_string().contains("subjectAltName") && error.is_permanent(), "{error}");
    assert!(encrypted(&dsn("else.example.test", "postgres", "verify-ca", &root)).await);
    for mode in ["verify-full", "verify-ca", "require"] {
        let error = refused(&dsn(NAME, "postgres", mode, &wrong_root)).await;
        assert!(error.to_string().contains("database.sslrootcert"), "{mode}: {error}");
    }
    assert!(encrypted(&dsn("else.example.test", "postgres", "require", "")).await);

    assert!(encrypted(&dsn(NAME, "postgres", "prefer", "")).await);
    assert!(!encrypted(&dsn(NAME, "postgres", "allow", "")).await);
    assert!(!encrypted(&dsn(NAME, "postgres", "disable", "")).await);
    // The server refuses the first way by pg_hba.conf: the second is tried.
    assert!(!encrypted(&dsn(NAME, "plain", "prefer", "")).await);
    assert!(encrypted(&dsn(NAME, "tls", "allow", "")).await);
    for (user, mode) in [("plain", "require"), ("tls", "disable")] {
        let error = refused(&dsn(NAME, user, mode, "")).await;
        assert!(error.to_string().contains("pg_hba.conf") && error.is_permanent(), "{error}");
    }
    assert!(encrypted(&dsn(NAME, "postgres", "require", "ssl_min_protocol_version=TLSv1.3")).await);
    // The password exchange bound to the channel needs the handshake to be right.
    assert!(encrypted(&dsn(NAME, "scram", "require", "password=pw channel_binding=require")).await);
    let error = refused(&dsn(NAME, "scram", "prefer", "password=wrong")).await;
    assert!(error.sqlstate().is_some_and(|state| state.code() == "28P01"), "{error}");
    assert!(error.to_string().contains("password_file"), "{error}");
}

#[tokio::test]
async fn client_certificates_are_shown_and_their_keys_kept_private() {
    let ours = authority("ours");
    let server = Server::start(&issue(&ours, "server", NAME), &ours.pem(), &[]).await;
    let (certificate, key) = issue(&ours, "certified", "client.example.test");
    let (certificate, key) = (server.file("client.crt", &certificate), server.file("client.key", &key));
    let files = format!("sslmode=require sslcert={} sslkey={}", certificate.display(), key.display());
    assert!(encrypted(&server.dsn(NAME, "certified", &files)).await);
    let error = refused(&server.dsn(NAME, "certified", "sslmode=require")).await;
    assert!(error.is_permanent(), "{error}");

    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let environment = [("DATABASE_URL", server.dsn(NAME, "certified", &files))];
    let environment =
        Environment::from_variables(environment.iter().map(|(name, value)| (*name, value.as_str())));
    let config = Config::from_text("", Path::new("x"), &environment).unwrap();
    let error = Connector::new(&config.database.unwrap()).unwrap_err().to_string();
    assert!(error.contains("client.key") && error.contains("chmod 0600"), "{error}");
}

#[tokio::test]
async fn a_self_signed_server_is_trusted_by_its_own_certificate() {
    let certificate = self_signed(NAME);
    let server = Server::start(&certificate, &certificate.0, &[]).await;
    let own = format!("sslrootcert={}", server.file("own.crt", &certificate.0).display());
    assert!(encrypted(&server.dsn(NAME, "postgres", &format!("sslmode=verify-full {own}"))).await);
    let error =
        refused(&server.dsn("else.example.test", "postgres", &format!("sslmode=verify-full {own}"))).await;
    assert!(error.to_string().contains("subjectAltName"), "{error}");
    let stranger = format!("sslrootcert={}", server.file("stranger.crt", &self_signed(NAME).0).display());
    refused(&server.dsn(NAME, "postgres", &format!("sslmode=verify-ca {stranger}"))).await;
}

#[tokio::test]
async fn a_statement_is_cancelled_over_tls() {
    let ours = authority("ours");
    let server = Server::start(&issue(&ours, "server", NAME), &ours.pem(), &[]).await;
    let root = server.file("root.crt", &ours.pem());
    let connector = connector(&server.dsn(
        NAME,
        "postgres",
        &format!("sslmode=verify-full sslrootcert={}", root.display()),
    ));
    let pool = connector.pool(1, RecyclingMethod::Fast, "set lock_timeout = '7s'");
    let client = pool.get().await.unwrap();
    assert_eq!(client.query_one("show lock_timeout", &[]).await.unwrap().get::<_, &str>(0), "7s");
    let name = client.query_one("show application_name", &[]).await.unwrap();
    assert_eq!(name.get::<_, &str>(0), "rowbeat");
    let token = client.cancel_token();
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(connector.cancel_tls()).await.unwrap();
    };
    let (slept, ()) = tokio::join!(client.batch_execute("select pg_sleep(30)"), cancel);
    assert_eq!(slept.unwrap_err().code().map(|state| state.code().to_owned()).as_deref(), Some("57014"));
}

#[tokio::test]
async fn hosts_are_tried_in_order_until_one_is_of_the_wanted_kind() {
    let certificate = self_signed(NAME);
    let read_only = [("default_transaction_read_only", "on")];
    let (writable, read_only) = tokio::join!(
        Server::start(&certificate, &certificate.0, &[]),
        Server::start(&certificate, &certificate.0, &read_only)
    );
    // Takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (dead, silent) = (free_port(), silent.local_addr().map(|address| (silent, address.port())).unwrap());
    let dsn = |ports: &[u16], more: &str| {
        let hosts = vec!["127.0.0.1"; ports.len()].join(",");
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        format!("host={hosts} port={ports} user=postgres dbname=postgres connect_timeout=1 {more}")
    };
    let port = |dsn: String| async move { ask(&connector(&dsn), "show port").await.parse::<u16>().unwrap() };

    assert_eq!(port(dsn(&[dead, writable.port], "")).await, writable.port);
    assert_eq!(port(dsn(&[silent.1, writable.port], "")).await, writable.port);
    // Several hosts without a word about it: one that takes writes.
    assert_eq!(port(dsn(&[read_only.port, writable.port], "")).await, writable.port);
    let both = [read_only.port, writable.port];
    for (wanted, expected) in [
        ("any", read_only.port),
        ("read-only", read_only.port),
        ("read-write", writable.port),
        ("primary", read_only.port),
        ("prefer-standby", read_only.port),
    ] {
        let found = port(dsn(&both, &format!("target_session_attrs={wanted}"))).await;
        assert_eq!(found, expected, "{wanted}");
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(port(dsn(&both, "target_session_attrs=any load_balance_hosts=random")).await);
    }

    let error = refused(&dsn(&both, "target_session_attrs=standby")).await;
    assert!(error.to_string().contains("target_session_attrs is standby"), "{error}");
    assert_eq!(error.failures.len(), 2);
    let begun = Instant::now();
    let error = refused(&dsn(&[silent.1, dead], "")).await.to_string();
    assert!(error.contains("no session within 1 s") && error.contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_standby_is_told_from_a_primary() {
    let folder = scratch();
    let options = options(folder.path());
    PrivatePostgres::start(options.clone()).await.unwrap().stop().await.unwrap();
    let signal = folder.path().join("pg/data/standby.signal");
    std::fs::write(&signal, "").unwrap();
    let server = PrivatePostgres::start(options).await.unwrap();
    let folder = server.server().socket_folder.display();
    let dsn =
        |wanted: &str| format!("host={folder} user=postgres dbname=postgres target_session_attrs={wanted}");
    for wanted in ["standby", "read-only", "prefer-standby"] {
        assert_eq!(ask(&connector(&dsn(wanted)), "select pg_is_in_recovery()").await, "t", "{wanted}");
    }
    for wanted in ["primary", "read-write"] {
        assert!(refused(&dsn(wanted)).await.to_string().contains("it is a standby"), "{wanted}");
    }
}

#[tokio::test]
async fn the_pool_passes_on_why_there_is_no_session() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let pool = server.connector("absent").unwrap().pool(1, RecyclingMethod::Verified, "");
    match pool.get().await.unwrap_err() {
        deadpool_postgres::PoolError::Backend(error) => assert_eq!(error.code().unwrap().code(), "3D000"),
        other => panic!("{other}"),
    }
    let dead = format!("host=127.0.0.1,127.0.0.1 port={} dbname=x user=x", free_port());
    match connector(&dead).pool(1, RecyclingMethod::Verified, "").get().await.unwrap_err() {
        deadpool_postgres::PoolError::Backend(error) => {
            let io = std::error::Error::source(&error).unwrap().to_string();
            assert!(io.contains("no connection to database x") && io.contains("refused"), "{io}");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn waiting_ends_when_a_query_runs_or_the_time_is_over() {
    let folder = scratch();
    let server = PrivatePostgres::start(options(folder.path())).await.unwrap();
    let there = server.connector("postgres").unwrap();
    wait_for_db(&there, None, |_, _, error| panic!("{error}")).await.unwrap();

    let absent = server.connector("later").unwrap();
    let mut waits = Vec::new();
    let error = wait_for_db(&absent, Some(Duration::from_millis(1500)), |attempt, delay, _| {
        waits.push((attempt, delay))
    });
    let error = error.await.unwrap_err();
    assert!(error.to_string().contains("createdb later"), "{error}");
    assert_eq!(waits[0], (1, Duration::from_secs(1)));
    assert!(waits.len() == 2 && waits[1].1 < Duration::from_millis(600), "{waits:?}");

    let make = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.create_database("later").await.unwrap();
    };
    let (waited, ()) = tokio::join!(wait_for_db(&absent, None, |_, _, _| {}), make);
    waited.unwrap();
}
