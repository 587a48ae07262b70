//! Signatures of requests: `t=<unix time>,v1=<hex of HMAC-SHA256 over "<unix time>.<body>">`.
//!
//! The receiver computes the same over the raw body, compares in constant time, and refuses an old time.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use ring::hmac;

use crate::config::Secret;

/// The header's value for a body that is sent now.
pub(super) fn sign(secret: &Secret, body: &[u8]) -> HeaderValue {
    #[expect(
        clippy::disallowed_methods,
        reason = "the receiver compares with its own clock, not the database's"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    sign_at(secret, body, now)
}

fn sign_at(secret: &Secret, body: &[u8], time: u64) -> HeaderValue {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes()));
    context.update(time.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let mut value = format!("t={time},v1=");
    for byte in context.sign().as_ref() {
        // Writing to a text cannot fail.
        let _ = write!(value, "{byte:02x}");
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac hunter2
        let value = sign_at(&Secret::new("hunter2"), br#"{"a":1}"#, 1_700_000_000);
        let expected = "t=1700000000,v1=56b25cbf563812b38800e5f4dd1febfde087d36841155e70b3aa285517e1570a";
        assert_eq!(value.to_str().unwrap(), expected);
    }
}
