//! `http`: requests by connections of the node's configuration.
//!
//! The effect is `{"connection", "method", "path", "query", "headers", "body" | "text" | "form" | "template" and "data",
//! "ok", "retry", "secret"}`, the response `{"status", "headers", "body"}`. The connection says where it leads, who it is and what is allowed; an effect
//! cannot leave the connection's base URL, name another host or set credentials. 2xx is done; 408, 425, 429, 5xx and a
//! broken connection are worth another attempt; every other status is not. `ok` and `retry` list statuses that count
//! differently. What is `secret` of an exchange is not kept, but for the status.
//!
//! Invariant: credentials, headers and bodies go to the origin of the base URL only, whatever redirects say.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderValue};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use self::auth::Credentials;
use self::request::{Request, Side, Spec};
use self::response::Reply;
use self::transport::Transport;
use super::{Effect, Failure, Unusable};
use crate::config::HttpConnection;

mod auth;
pub mod download;
mod redirect;
mod request;
mod response;
mod signature;
mod transport;

/// The http connections of this node.
#[derive(Clone, Default)]
pub struct Connections {
    connections: Arc<BTreeMap<String, Connection>>,
}

struct Connection {
    config: HttpConnection,
    transport: Transport,
    credentials: Credentials,
}

impl Connections {
    /// Connections by name; `roots` are the platform's root certificates.
    ///
    /// # Errors
    /// When TLS does not take the settings of one.
    pub fn new(
        configs: &BTreeMap<String, HttpConnection>,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, Unusable> {
        let made = configs.iter().map(|(name, config)| {
            let transport = Transport::new(config, roots).map_err(|error| Unusable::new(name, error))?;
            let credentials = Credentials::new(&config.auth);
            Ok((name.clone(), Connection { config: config.clone(), transport, credentials }))
        });
        Ok(Self { connections: Arc::new(made.collect::<Result<_, Unusable>>()?) })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.connections.contains_key(name)
    }

    pub(crate) async fn perform(&self, effect: Effect) -> Result<Value, Failure> {
        let spec = Spec::read(&effect)?;
        let Some(connection) = self.connections.get(&spec.connection) else {
            return Err(Failure::no_connection("http", &spec.connection));
        };
        let request = Request::new(&connection.config, &spec, &effect)?;
        let mut reply = connection.exchange(request.clone()).await?;
        if spec.secret.contains(&Side::Response) {
            reply.forget_content();
        }
        reply.judge(&request.describe(), &spec.ok, &spec.retry, connection.config.max_response_bytes)
    }
}

impl Connection {
    /// The last reply, after as many redirects as are allowed.
    async fn exchange(&self, mut request: Request) -> Result<Reply, Failure> {
        let mut left = self.config.redirects;
        loop {
            let reply = self
                .ask(&request)
                .await
                .map_err(|problem| Failure::retry(format!("{}: {problem}", request.describe())))?;
            if left == 0 {
                return Ok(reply);
            }
            match redirect::follow(&request, &reply, &self.config.base_url) {
                Ok(Some(next)) => request = next,
                Ok(None) => return Ok(reply),
                Err(problem) => return Err(Failure::reject(format!("{}: {problem}", request.describe()))),
            }
            left -= 1;
        }
    }

    /// One reply; a fetched token that is refused is fetched anew, once.
    async fn ask(&self, request: &Request) -> Result<Reply, String> {
        if request.url.origin() != self.config.base_url.origin() {
            return self.transport.send(request).await;
        }
        let token = self.credentials.authorization(&self.transport, None).await?;
        let reply = self.transport.send(&self.dressed(request, token.clone())).await?;
        if reply.status != StatusCode::UNAUTHORIZED || !self.credentials.can_be_renewed() {
            return Ok(reply);
        }
        let token = self.credentials.authorization(&self.transport, token.as_ref()).await?;
        self.transport.send(&self.dressed(request, token)).await
    }

    /// The request with what only the connection's own origin gets.
    fn dressed(&self, request: &Request, authorization: Option<HeaderValue>) -> Request {
        let mut dressed = request.clone();
        for (name, value) in &self.config.headers {
            if !dressed.headers.contains_key(name) {
                dressed.headers.insert(name, value.clone());
            }
        }
        if let Some(authorization) = authorization {
            dressed.headers.insert(AUTHORIZATION, authorization);
        }
        if let Some(signature) = &self.config.signature {
            dressed.headers.insert(&signature.header, signature::sign(&signature.secret, &dressed.body));
        }
        dressed
    }
}
