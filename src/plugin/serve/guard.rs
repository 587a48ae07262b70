//! Who asks, and from where: Host and Origin against pages that make a browser ask in somebody's name, and the token that a request shows.
//!
//! A name that leads to this machine by somebody else's DNS (rebinding) is not among the hosts, so such a page gets nowhere. Of the
//! browser's own requests to other sites (CSRF) the Origin tells, which is there on every method that changes something.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use warp::http::{HeaderMap, Method, header};

/// What counts as this server.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    /// Names it is known by beside those of the loopback.
    pub(super) hosts: Vec<String>,
    /// Where it listens.
    pub(super) listen: SocketAddr,
}

impl Guard {
    /// Why a request is not looked at, if so.
    pub(super) fn refuse(&self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        let Some(host) = text(headers, header::HOST).filter(|host| self.knows(name_of(host))) else {
            return Some("this host is not served here: name it in http.hosts");
        };
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        let foreign = match (text(headers, header::ORIGIN), text(headers, "sec-fetch-site")) {
            // A proxy may have taken TLS off, so the scheme is not compared.
            (Some(origin), _) => {
                origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host))
            }
            (None, Some(site)) => site == "cross-site",
            // Programs send neither.
            (None, None) => false,
        };
        foreign.then_some("the request comes from a page of another origin")
    }

    fn knows(&self, name: &str) -> bool {
        is_loopback(name)
            || name.parse() == Ok(self.listen.ip())
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    /// Whether the request came over the loopback and not by way of a proxy, as far as can be told.
    pub(super) fn came_straight(&self, headers: &HeaderMap) -> bool {
        let proxied = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];
        self.listen.ip().is_loopback()
            && text(headers, header::HOST).is_some_and(|host| is_loopback(name_of(host)))
            && !proxied.iter().any(|name| headers.contains_key(*name))
    }
}

/// The SHA-256 of the token that a request shows: as a bearer token, or as the password of a browser's login.
pub(super) fn shown_token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, rest) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(digest(rest.trim()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let login = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(digest(login.split_once(':')?.1))
}

/// What the database keeps of a token.
pub fn digest(secret: &str) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref().to_vec()
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// The host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn refused(method: &Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let guard =
            Guard { hosts: vec!["ops.example.com".into()], listen: "127.0.0.1:7474".parse().unwrap() };
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        guard.refuse(method, &headers).is_some()
    }

    #[test]
    fn only_known_hosts_and_the_own_origin_get_in() {
        for host in ["localhost:7474", "127.0.0.1", "[::1]:7474", "OPS.example.com"] {
            assert!(!refused(&Method::POST, &[("host", host)]), "{host}");
        }
        assert!(refused(&Method::GET, &[("host", "rebound.example.net:7474")]));
        assert!(refused(&Method::GET, &[]));
        let own = [("host", "localhost:7474"), ("origin", "http://localhost:7474")];
        assert!(!refused(&Method::POST, &own));
        for origin in ["http://localhost:8080", "https://evil.example", "null"] {
            assert!(refused(&Method::POST, &[("host", "localhost:7474"), ("origin", origin)]), "{origin}");
        }
        assert!(refused(&Method::DELETE, &[("host", "localhost"), ("sec-fetch-site", "cross-site")]));
    }
}
