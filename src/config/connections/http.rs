//! Connections of type `http`.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use url::{Host, Url};

use super::Connection;
use crate::config::address::is_public;
use crate::config::secret::Secret;
use crate::config::values::Sections;

/// Where requests go, and how they get in. Headers that came from files are marked as sensitive.
#[derive(Debug, Clone)]
pub struct HttpConnection {
    /// http or https, with a host, without user, query and fragment; its path ends without a slash.
    pub base_url: Url,
    /// How requests get in.
    pub auth: HttpAuth,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Limit of one request, from connecting to the last byte.
    pub timeout: Duration,
    /// Most redirects that are followed.
    pub redirects: usize,
    /// Whether its own hosts may have addresses that are not public.
    pub allow_private_addresses: bool,
    /// A longer response is an error.
    pub max_response_bytes: usize,
    /// Trusted beside the platform's.
    pub roots: Vec<CertificateDer<'static>>,
    /// How requests are signed, if they are.
    pub signature: Option<HttpSignature>,
}

/// How requests get in.
#[derive(Debug, Clone)]
pub enum HttpAuth {
    /// As anybody.
    None,
    /// With user and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// With a token that does not change.
    Bearer(Secret),
    /// With a token that is fetched.
    OAuth2(Box<OAuth2>),
}

/// The client credentials grant (RFC 6749, section 4.4).
#[derive(Debug, Clone)]
pub struct OAuth2 {
    /// Where the token is fetched.
    pub token_url: Url,
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How it says who it is.
    pub client_auth: ClientAuth,
    /// Form parameters, `grant_type` and `scope` among them.
    pub params: Vec<(String, String)>,
    /// Headers of the token request.
    pub headers: HeaderMap,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// By the Authorization header.
    Basic,
    /// By `client_id` and `client_secret` in the form.
    Body,
}

/// How requests are signed.
#[derive(Debug, Clone)]
pub struct HttpSignature {
    /// The header that carries it.
    pub header: HeaderName,
    /// The key of the HMAC.
    pub secret: Secret,
}

const AUTHS: [(&str, Auth); 4] =
    [("none", Auth::None), ("basic", Auth::Basic), ("bearer", Auth::Bearer), ("oauth2", Auth::OAuth2)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    None,
    Basic,
    Bearer,
    OAuth2,
}

/// The keys that belong to one way of getting in.
const AUTH_KEYS: [(Auth, &[&str]); 3] = [
    (Auth::Basic, &["username", "password_file"]),
    (Auth::Bearer, &["token_file"]),
    (
        Auth::OAuth2,
        &[
            "token_url",
            "client_id",
            "client_secret_file",
            "client_auth",
            "scope",
            "token_params",
            "token_headers",
            "token_header_files",
        ],
    ),
];

impl Sections<'_> {
    pub(super) fn http_connection(&mut self, connection: &Connection) -> Option<HttpConnection> {
        let key = |part: &str| connection.key(part);
        let allow_private_addresses = self.flag(&key("allow_private_addresses"), false);
        let base_url = self.url(connection, "base_url", allow_private_addresses).map(|mut url| {
            let path = url.path().trim_end_matches('/').to_owned();
            url.set_path(&path);
            url
        });
        let auth = self.http_auth(connection, allow_private_addresses);
        if let (Some(url), Some(HttpAuth::Basic { .. } | HttpAuth::Bearer(_))) = (&base_url, &auth)
            && url.scheme() == "http"
        {
            self.warn(format!("{}: credentials are sent without encryption", key("base_url")));
        }
        let connection = HttpConnection {
            headers: self.headers(&key("headers"), &key("header_files")),
            timeout: self.duration(&key("timeout"), Duration::from_secs(30), Duration::from_millis(1)),
            redirects: self.count(&key("redirects"), 0, 0..=20),
            allow_private_addresses,
            max_response_bytes: self.count(&key("max_response_bytes"), 1 << 20, 1..=64 << 20),
            roots: self.certificates(&key("ca_file")),
            signature: self.signature(connection),
            // Last: the others are to be checked too.
            base_url: base_url?,
            auth: auth?,
        };
        Some(connection)
    }

    fn http_auth(&mut self, connection: &Connection, private: bool) -> Option<HttpAuth> {
        let key = |part: &str| connection.key(part);
        let auth = self.choice(&key("auth"), &AUTHS);
        for (other, parts) in AUTH_KEYS {
            for part in parts.iter().filter(|_| other != auth) {
                let word = AUTHS.iter().find(|(_, known)| *known == other).map_or("", |(word, _)| word);
                let place = self.place(&key(part));
                if !place.is_empty() {
                    let remedy = format!("set auth = \"{word}\", or remove the key");
                    self.refuse(&key(part), &place, format!("this goes with auth = \"{word}\" only"), remedy);
                }
            }
        }
        match auth {
            Auth::None => Some(HttpAuth::None),
            Auth::Basic => {
                let username = self.required(&key("username"), &connection.place, "name the user");
                let password = self.needed_secret(connection, "password_file", "the password");
                Some(HttpAuth::Basic { username: username?, password: password? })
            }
            Auth::Bearer => self.needed_secret(connection, "token_file", "the token").map(HttpAuth::Bearer),
            Auth::OAuth2 => self.oauth2(connection, private).map(Box::new).map(HttpAuth::OAuth2),
        }
    }

    fn oauth2(&mut self, connection: &Connection, private: bool) -> Option<OAuth2> {
        let key = |part: &str| connection.key(part);
        let token_url = self.url(connection, "token_url", private);
        let client_id = self.required(&key("client_id"), &connection.place, "name the client");
        let client_secret = self.needed_secret(connection, "client_secret_file", "the client secret");
        let words = [("basic", ClientAuth::Basic), ("body", ClientAuth::Body)];
        let client_auth = self.choice(&key("client_auth"), &words);
        let mut params = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        params.extend(self.optional(&key("scope")).map(|scope| ("scope".to_owned(), scope)));
        params.extend(self.map(&key("token_params")));
        let headers = self.headers(&key("token_headers"), &key("token_header_files"));
        Some(OAuth2 {
            token_url: token_url?,
            client_id: client_id?,
            client_secret: client_secret?,
            client_auth,
            params,
            headers,
        })
    }

    pub(super) fn needed_secret(&mut self, owner: &Connection, part: &str, what: &str) -> Option<Secret> {
        let key = owner.key(part);
        if self.place(&key).is_empty() {
            self.refuse(&key, &owner.place, "it is missing", format!("name a file that holds {what}"));
        }
        self.secret_file(&key)
    }

    fn url(&mut self, connection: &Connection, part: &str, private: bool) -> Option<Url> {
        let key = connection.key(part);
        let text =
            self.required(&key, &connection.place, "write a URL such as \"https://api.example.com\"")?;
        let place = self.place(&key);
        let mut refuse = |problem: &str, remedy: &str| self.refuse(&key, &place, problem, remedy);
        let Ok(url) = Url::parse(&text) else {
            refuse("this is no URL", "write one such as \"https://api.example.com/v1\"");
            return None;
        };
        if !matches!(url.scheme(), "http" | "https") {
            refuse("this is no URL of http or https", "begin it with https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            refuse("it holds credentials", "set auth = \"basic\", username and password_file");
        }
        if url.query().is_some() || url.fragment().is_some() {
            refuse("it has a query or fragment", "leave off everything from ? or # on");
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if !private && let Some(address) = address.filter(|address| !is_public(*address)) {
            refuse(
                &format!("{address} is not a public address"),
                "set allow_private_addresses = true if that is meant",
            );
        }
        Some(url)
    }

    fn headers(&mut self, values: &str, files: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.map(values) {
            self.header(&mut headers, values, &name, &value, false);
        }
        for (name, path) in self.map(files) {
            if let Some(secret) = self.secret(files, Path::new(&path)) {
                self.header(&mut headers, files, &name, secret.reveal(), true);
            }
        }
        headers
    }

    fn header(&mut self, headers: &mut HeaderMap, key: &str, name: &str, value: &str, sensitive: bool) {
        let place = self.place(key);
        let (Ok(known), Ok(mut checked)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        else {
            let problem = format!("{name} is no header, or its value has characters that no header may have");
            self.refuse(key, &place, problem, "use printable ASCII");
            return;
        };
        checked.set_sensitive(sensitive);
        if headers.insert(known, checked).is_some() {
            self.refuse(key, &place, format!("the header {name} is set twice"), "keep one of the two");
        }
    }

    fn signature(&mut self, connection: &Connection) -> Option<HttpSignature> {
        let (key, secret) = (connection.key("signature_header"), connection.key("signature_secret_file"));
        let place = self.place(&key);
        if self.place(&secret).is_empty() {
            if !place.is_empty() {
                let remedy = "set signature_secret_file too, or remove the key";
                self.refuse(&key, &place, "there is no secret to sign with", remedy);
            }
            return None;
        }
        let name = self.text(&key, "Rowbeat-Signature");
        let header = HeaderName::from_bytes(name.as_bytes());
        if header.is_err() {
            self.refuse(&key, &place, format!("\"{name}\" is no header"), "use letters, digits and -");
        }
        Some(HttpSignature { header: header.ok()?, secret: self.secret_file(&secret)? })
    }
}
