//! A file from an address that somebody at a terminal has named: read within limits, over TLS, or over the loopback without.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use rustls::pki_types::CertificateDer;
use url::{Host, Url};

use super::redirect;
use super::request::Request;
use super::transport::Transport;
use crate::config::{HttpAuth, HttpConnection};

/// As many redirects are followed; a release page needs two.
const REDIRECTS: usize = 5;
/// From connecting to the last byte, redirects and all.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Gets a file of at most `most` bytes; `roots` are the platform's root certificates. Only the host of `address` itself may have an address
/// that is not public: the network is not looked about in by a redirect.
///
/// # Errors
/// Why there is none, in words.
pub async fn download(
    address: &str,
    most: usize,
    roots: &[CertificateDer<'static>],
) -> Result<Bytes, String> {
    let got = tokio::time::timeout(TIMEOUT, get(address, most, roots)).await;
    got.unwrap_or_else(|_| Err(format!("it takes longer than {} s", TIMEOUT.as_secs())))
}

async fn get(address: &str, most: usize, roots: &[CertificateDer<'static>]) -> Result<Bytes, String> {
    let url = Url::parse(address).map_err(|error| format!("this is no URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a URL with credentials is not taken: whoever lists the processes would see them".to_owned()
        );
    }
    let server = HttpConnection {
        base_url: url.clone(),
        auth: HttpAuth::None,
        headers: HeaderMap::new(),
        timeout: TIMEOUT,
        redirects: REDIRECTS,
        allow_private_addresses: true,
        max_response_bytes: most,
        roots: Vec::new(),
        signature: None,
    };
    let transport = Transport::new(&server, roots).map_err(|error| error.to_string())?;
    let mut request =
        Request { method: Method::GET, url, headers: Request::bare_headers(), body: Bytes::new() };
    for _ in 0..=REDIRECTS {
        check_scheme(&request.url)?;
        let reply = transport.send(&request).await?;
        match redirect::follow(&request, &reply, &server.base_url)? {
            Some(next) => request = next,
            None if reply.cut => return Err(format!("it is larger than {} MiB", most >> 20)),
            None if reply.status.as_u16() == 200 => return Ok(reply.body),
            None => return Err(format!("{} answered {}", request.describe(), reply.status)),
        }
    }
    Err(format!("more than {REDIRECTS} redirects"))
}

/// Without TLS anybody on the way could put in something else; on the loopback there is nobody.
fn check_scheme(url: &Url) -> Result<(), String> {
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err("http is for the loopback only: use https".to_owned()),
        other => Err(format!("{other} is not understood: use https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_the_loopback_is_downloaded_from() {
        let check = |url: &str| check_scheme(&Url::parse(url).unwrap());
        for url in ["https://a.example/x.zip", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"]
        {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in
            ["http://a.example/x", "http://10.0.0.1/x", "http://localhost.a.example/x", "ftp://a.example/x"]
        {
            assert!(check(url).is_err(), "{url}");
        }
    }
}
