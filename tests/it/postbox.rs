//! A real ESMTP server on the loopback (RFC 5321, STARTTLS, AUTH PLAIN): it keeps the mails it takes. What it refuses is
//! asked for by the recipient's name: `busy` is answered 451 the first time, `unknown` 550, `slow` never.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate made for a test, and its key.
#[derive(Clone)]
pub struct Identity {
    /// To be trusted by clients.
    pub pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    pub fn for_host(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self { pem: made.cert.pem(), config: Arc::new(config) }
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// When the way to a server is encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Security {
    None,
    StartTls,
    Implicit,
}

/// A mail that was taken.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// Number of the session, from 1.
    pub session: usize,
    pub hello: String,
    pub user: Option<String>,
    pub encrypted: bool,
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

/// A server that ends with the test.
pub struct Postbox {
    pub port: u16,
    mails: Arc<Mutex<Vec<Mail>>>,
}

#[derive(Clone)]
struct Server {
    security: Security,
    identity: Identity,
    /// User and password, if one has to log in.
    account: Option<(String, String)>,
    mails: Arc<Mutex<Vec<Mail>>>,
    turned_away: Arc<Mutex<Vec<String>>>,
    session: usize,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Postbox {
    pub async fn start(security: Security, identity: &Identity, account: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails: Arc<Mutex<Vec<Mail>>> = Arc::default();
        let mut server = Server {
            security,
            identity: identity.clone(),
            account: account.map(|(user, password)| (user.to_owned(), password.to_owned())),
            mails: Arc::clone(&mails),
            turned_away: Arc::default(),
            session: 0,
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.session += 1;
                let server = server.clone();
                tokio::spawn(async move {
                    // A client may go away at any moment.
                    let _ = server.serve(stream).await;
                });
            }
        });
        Self { port, mails }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }

    /// A connection of the configuration that leads here, with more keys.
    pub fn connection(&self, name: &str, more: &str) -> String {
        let port = self.port;
        format!(
            "[connections.{name}]\ntype = \"smtp\"\nhost = \"localhost\"\nport = {port}\nfrom = \"The Shop <shop@a.example>\"\n{more}\n"
        )
    }
}

impl Server {
    async fn serve(&self, stream: tokio::net::TcpStream) -> std::io::Result<()> {
        let mut stream: Box<dyn Stream> = Box::new(stream);
        let mut encrypted = self.security == Security::Implicit;
        if encrypted {
            stream = Box::new(self.identity.acceptor().accept(stream).await?);
        }
        stream.write_all(b"220 box.example ESMTP\r\n").await?;
        while self.talk(&mut stream, encrypted).await? {
            stream = Box::new(self.identity.acceptor().accept(stream).await?);
            encrypted = true;
        }
        Ok(())
    }

    /// Until the client leaves, or true when it goes on encrypted.
    async fn talk(&self, stream: &mut Box<dyn Stream>, encrypted: bool) -> std::io::Result<bool> {
        let mut stream = BufReader::new(stream);
        let (mut session, mut mail) =
            (Mail { encrypted, session: self.session, ..Mail::default() }, Mail::default());
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(false);
            }
            let line = line.trim_end();
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            let reply = match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    session.hello = rest.to_owned();
                    self.offers(encrypted)
                }
                "STARTTLS" => {
                    stream.write_all(b"220 go ahead\r\n").await?;
                    assert!(stream.buffer().is_empty(), "nothing is said before the handshake");
                    return Ok(true);
                }
                "AUTH" => match self.login(rest) {
                    Some(user) => {
                        session.user = Some(user);
                        "235 welcome\r\n".into()
                    }
                    None => "535 5.7.8 wrong\r\n".into(),
                },
                "MAIL" if self.account.is_some() && session.user.is_none() => {
                    "530 5.7.0 log in first\r\n".into()
                }
                "MAIL" => {
                    mail = Mail { from: path(rest), ..session.clone() };
                    "250 fine\r\n".into()
                }
                "RCPT" if path(rest).starts_with("slow@") => std::future::pending().await,
                "RCPT" => self.recipient(&mut mail, path(rest)),
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    mail.text = data(&mut stream).await?;
                    self.mails.lock().unwrap().push(mail.clone());
                    "250 2.0.0 queued as 42\r\n".into()
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(false);
                }
                "RSET" | "NOOP" => "250 fine\r\n".into(),
                _ => "500 what?\r\n".into(),
            };
            stream.write_all(reply.as_bytes()).await?;
        }
    }

    fn offers(&self, encrypted: bool) -> String {
        let mut offers = "250-box.example\r\n250-8BITMIME\r\n".to_owned();
        if self.security == Security::StartTls && !encrypted {
            offers += "250-STARTTLS\r\n";
        } else if self.account.is_some() {
            offers += "250-AUTH PLAIN\r\n";
        }
        offers + "250 HELP\r\n"
    }

    fn login(&self, rest: &str) -> Option<String> {
        let given = STANDARD.decode(rest.strip_prefix("PLAIN ")?).ok()?;
        let (user, password) = self.account.clone()?;
        (given == format!("\0{user}\0{password}").as_bytes()).then_some(user)
    }

    fn recipient(&self, mail: &mut Mail, address: String) -> String {
        let mut turned_away = self.turned_away.lock().unwrap();
        if address.starts_with("unknown@") {
            return "550 5.1.1 nobody of that name\r\n".into();
        }
        if address.starts_with("busy@") && !turned_away.contains(&address) {
            turned_away.push(address);
            return "451 4.3.0 come back\r\n".into();
        }
        mail.to.push(address);
        "250 fine\r\n".into()
    }
}

/// The address of `FROM:<a@b>`.
fn path(rest: &str) -> String {
    rest.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or_else(String::new, |(path, _)| path.to_owned())
}

async fn data(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == ".\r\n" {
            return Ok(text);
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
