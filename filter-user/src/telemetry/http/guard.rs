//! What no request may do, whatever it asks for.

use std::net::IpAddr;

use axum::http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use super::answer::Refused;

/// Characters of a request's target.
const LONGEST_TARGET: usize = 4 << 10;

/// Refuses what writes, what is too long, and on loopback what was meant for another
/// name.
pub(super) fn check<B>(request: &Request<B>, loopback: bool) -> Result<(), Refused> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = "nothing can be changed here: GET and HEAD alone are answered. `nodewall \
                       apply` changes what is in force.";
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, message).with(ALLOW, "GET, HEAD"));
    }
    if length(request.uri()) > LONGEST_TARGET {
        let message = format_args!("the URL is longer than {LONGEST_TARGET} characters");
        return Err(Refused::new(StatusCode::URI_TOO_LONG, message));
    }
    if has_body(request.headers()) {
        let message = "a request has no body here; say all of it in the URL";
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message).with(CONNECTION, "close"));
    }
    if loopback {
        check_names(request)?;
    }
    Ok(())
}

fn length(uri: &Uri) -> usize {
    uri.path_and_query()
        .map_or(0, |target| target.as_str().len())
}

fn has_body(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH);
    headers.contains_key(TRANSFER_ENCODING) || lengths.iter().any(|length| length != "0")
}

/// A page of another site can have its name resolve to this host (DNS rebinding); the
/// browser then takes what is here for that site's own and lets it read all. What it
/// can't do is ask by one of this host's names.
fn check_names<B>(request: &Request<B>) -> Result<(), Refused> {
    let hosts = request.headers().get_all(HOST).iter();
    let mut names: Vec<&str> = hosts
        .map(|host| host.to_str().unwrap_or_default())
        .collect();
    if names.is_empty() && request.version() >= Version::HTTP_11 {
        return Err(Refused::bad("the request has no Host header"));
    }
    names.extend(request.uri().authority().map(Authority::as_str));
    match names.iter().find(|name| !is_here(name)) {
        None => Ok(()),
        Some(name) => Err(Refused::new(
            StatusCode::MISDIRECTED_REQUEST,
            format_args!(
                "{name:?} is no name of this host's loopback, where nodewall listens; ask by \
                 localhost, 127.0.0.1 or [::1], or have your proxy send such a Host header"
            ),
        )),
    }
}

/// Whether a Host header names the loopback of the host that reads it.
fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    if name.len() < host.len() && authority.port_u16().is_none() {
        return false;
    }
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let address = address.unwrap_or(name).parse::<IpAddr>();
    let is_name = name
        .strip_suffix('.')
        .unwrap_or(name)
        .eq_ignore_ascii_case("localhost");
    let is_address = address.is_ok_and(|address| address.to_canonical().is_loopback());
    is_name || is_address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    fn status(request: &Request<()>) -> Option<u16> {
        use axum::response::IntoResponse as _;
        let refused = check(request, true).err()?;
        Some(refused.into_response().status().as_u16())
    }

    #[test]
    fn names_of_loopback_are_taken() {
        for here in [
            "localhost",
            "LocalHost:9469",
            "localhost.",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:9469",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_here(here), "{here}");
            assert_eq!(status(&request("GET", "/", &[("host", here)])), None);
        }
        for elsewhere in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil@localhost",
            "localhost@evil",
            "192.0.2.1",
            "0.0.0.0",
            "[::]",
            "127.0.0.1.evil.example:9469",
            "::1",
            "2130706433",
            "0x7f.1",
            "localhost:x",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
            assert_eq!(
                status(&request("GET", "/", &[("host", elsewhere)])),
                Some(421)
            );
        }
        // All of them count.
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(&request("GET", "/", &two)), Some(421));
        let absolute = request("GET", "http://evil.example/", &[("host", "localhost")]);
        assert_eq!(status(&absolute), Some(421));
        assert_eq!(status(&request("GET", "/", &[])), Some(400));
        let mut old = request("GET", "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(status(&old), None);
        // Who listens for others knows none of their names.
        let other = request("GET", "/", &[("host", "node-1.example")]);
        assert!(check(&other, false).is_ok());
    }

    #[test]
    fn nothing_is_written() {
        let host = ("host", "localhost");
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "GETX",
        ] {
            assert_eq!(
                status(&request(method, "/metrics", &[host])),
                Some(405),
                "{method}"
            );
        }
        assert_eq!(status(&request("HEAD", "/", &[host])), None);
        for (name, value) in [("content-length", "1"), ("transfer-encoding", "chunked")] {
            assert_eq!(
                status(&request("GET", "/", &[host, (name, value)])),
                Some(413)
            );
        }
        assert_eq!(
            status(&request("GET", "/", &[host, ("content-length", "0")])),
            None
        );
    }

    #[test]
    fn a_target_has_an_end() {
        let host = ("host", "localhost");
        let of = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert_eq!(status(&request("GET", &of(LONGEST_TARGET), &[host])), None);
        assert_eq!(
            status(&request("GET", &of(LONGEST_TARGET + 1), &[host])),
            Some(414)
        );
    }
}
