//! One request and its reply, over connections that are kept, to addresses that are allowed.
//!
//! Addresses are looked at where the connection is made, so that a name that leads elsewhere on the second look gains
//! nothing. No proxy is used, whatever the environment says.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::request::Request;
use super::response::Reply;
use crate::config::{HttpAuth, HttpConnection, is_public};

/// An idle connection is kept this long.
const IDLE: Duration = Duration::from_secs(30);

/// The way to the servers of one connection.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    resolver: Resolver,
    timeout: Duration,
    most: usize,
}

impl Transport {
    pub(super) fn new(
        config: &HttpConnection,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().chain(&config.roots).cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        let resolver = Resolver::new(config);
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { client, resolver, timeout: config.timeout, most: config.max_response_bytes })
    }

    /// The reply, or why there is none, as text.
    pub(super) async fn send(&self, request: &Request) -> Result<Reply, String> {
        self.resolver.check_literal(&request.url).map_err(|error| error.to_string())?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("no reply within {} ms", self.timeout.as_millis())),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Reply, String> {
        let mut message = hyper::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() =
            request.url.as_str().parse().map_err(|_| "this is no address for HTTP".to_owned())?;
        *message.headers_mut() = request.headers.clone();
        let reply = self.client.request(message).await.map_err(|error| chain(&error))?;
        let (head, body) = reply.into_parts();
        let (body, cut) = match Limited::new(body, self.most).collect().await {
            Ok(body) => (body.to_bytes(), false),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => (Bytes::new(), true),
            Err(error) => return Err(chain(error.as_ref())),
        };
        Ok(Reply { status: head.status, headers: head.headers, body, cut })
    }
}

/// An error with all its causes: the outermost alone says "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// Finds addresses, and refuses a name that has one which is not public, unless the host is trusted.
#[derive(Clone)]
struct Resolver {
    trusted: Arc<BTreeSet<String>>,
}

impl Resolver {
    fn new(config: &HttpConnection) -> Self {
        let mut trusted = BTreeSet::new();
        if config.allow_private_addresses {
            trusted.extend(config.base_url.host_str().map(str::to_owned));
            if let HttpAuth::OAuth2(oauth2) = &config.auth {
                trusted.extend(oauth2.token_url.host_str().map(str::to_owned));
            }
        }
        Self { trusted: Arc::new(trusted) }
    }

    /// A host that is an address is never looked up.
    fn check_literal(&self, url: &Url) -> io::Result<()> {
        let host = url.host_str().unwrap_or_default();
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(host, IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => self.check(host, IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    fn check(&self, host: &str, address: IpAddr) -> io::Result<()> {
        if is_public(address) || self.trusted.contains(host) {
            return Ok(());
        }
        let problem = format!(
            "{host} has the address {address}, which is not public; only the connection's own hosts may have such a one, \
             and only with allow_private_addresses = true"
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
    }
}

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            found.iter().try_for_each(|address| resolver.check(name.as_str(), address.ip()))?;
            Ok(found.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(trusted: &[&str]) -> Resolver {
        Resolver { trusted: Arc::new(trusted.iter().map(|host| (*host).to_owned()).collect()) }
    }

    #[test]
    fn a_host_that_is_an_address_is_checked_in_every_spelling() {
        let nobody = resolver(&[]);
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest",
        ] {
            assert!(nobody.check_literal(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(nobody.check_literal(&Url::parse("http://8.8.8.8/").unwrap()).is_ok());
        assert!(resolver(&["127.0.0.1"]).check_literal(&Url::parse("http://127.1:80/").unwrap()).is_ok());
        assert!(resolver(&["127.0.0.1"]).check_literal(&Url::parse("http://127.0.0.2/").unwrap()).is_err());
    }

    #[tokio::test]
    async fn a_name_that_leads_to_the_loopback_is_refused_unless_trusted() {
        use tower_service::Service;
        let name: Name = "localhost".parse().unwrap();
        let refused = resolver(&[]).call(name.clone()).await.map(Iterator::count).unwrap_err();
        assert!(refused.to_string().contains("not public"), "{refused}");
        assert!(resolver(&["localhost"]).call(name).await.is_ok());
    }
}
