//! What a redirect leads to, and what may go there.

use hyper::body::Bytes;
use hyper::header::LOCATION;
use hyper::{Method, StatusCode};
use url::Url;

use super::request::Request;
use super::response::Reply;

/// Where a reply leads. Within the origin of the base URL a request is repeated as it is (303: as GET); another origin
/// gets a bare GET or HEAD, never a body. `None` for a reply that is no redirect.
///
/// # Errors
/// Why it is not followed.
pub(super) fn follow(request: &Request, reply: &Reply, base: &Url) -> Result<Option<Request>, String> {
    let status = reply.status;
    let known = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !known.contains(&status) {
        return Ok(None);
    }
    let location = reply.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(mut url) = location.and_then(|location| request.url.join(location).ok()) else {
        return Err(format!("{status} without a usable location"));
    };
    if !matches!(url.scheme(), "http" | "https") || (request.url.scheme(), url.scheme()) == ("https", "http")
    {
        return Err(format!("{status} leads to {}, which is not followed", url.scheme()));
    }
    // Neither can fail for http.
    let _ = (url.set_username(""), url.set_password(None));
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let mut next = Request { url, ..request.clone() };
    if status == StatusCode::SEE_OTHER && !reads {
        next.method = Method::GET;
        next.body = Bytes::new();
        next.headers.remove(hyper::header::CONTENT_TYPE);
    } else if !reads && matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND) {
        // Clients make a GET of it: a success that has done nothing.
        return Err(format!("{status} would turn {} into GET; correct base_url", request.method));
    }
    if next.url.origin() != base.origin() {
        if !matches!(next.method, Method::GET | Method::HEAD) {
            return Err(format!("{status} would take the body to another origin"));
        }
        next.headers = Request::bare_headers();
        next.body = Bytes::new();
    }
    Ok(Some(next))
}
