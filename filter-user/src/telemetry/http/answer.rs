//! What is answered: documents, texts, and refusals.

use std::fmt::Display;

use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::json;

/// What the page may do: load its own files and read the daemon, nothing else.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                           connect-src 'self'; img-src 'self' data:; font-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What anything else may do, should a browser show it.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Keeps other sites' pages from loading what is here as an image or a script.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// `application/json`.
pub(super) const JSON: &str = "application/json";
/// `text/plain`.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// Why a request gets no data.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Display) -> Self {
        Self {
            status,
            message: message.to_string(),
            header: None,
        }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Not now.
    pub(super) fn unavailable(message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The same, with a header.
    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The same, with the seconds after which another attempt may help.
    pub(super) fn again_after(self, seconds: &'static str) -> Self {
        self.with(RETRY_AFTER, seconds)
    }

    /// What is wrong, and what to do.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let document = json!({"schema": 1, "error": self.message});
        let mut response = whole(JSON, format!("{document}\n"));
        *response.status_mut() = self.status;
        if let Some((name, value)) = self.header {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Data, and what it is.
pub(super) struct Whole {
    pub content_type: &'static str,
    pub text: Vec<u8>,
}

/// The same, where its memory is accounted for.
#[derive(Clone)]
pub(super) struct Kept {
    pub content_type: &'static str,
    pub text: Bytes,
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response<Body> {
        whole(self.content_type, self.text)
    }
}

/// A document, compact.
pub(super) fn document(value: &impl Serialize) -> Result<Whole, Refused> {
    let mut text = serde_json::to_vec(value).map_err(|error| {
        let message = format_args!("the document can't be written: {error}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    text.push(b'\n');
    Ok(Whole {
        content_type: JSON,
        text,
    })
}

impl IntoResponse for Whole {
    fn into_response(self) -> Response<Body> {
        whole(self.content_type, self.text)
    }
}

/// Data that is there as a whole.
pub(super) fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    data(response.headers_mut(), content_type);
    response
}

/// The headers of data: true now, and nobody's to keep.
pub(super) fn data(headers: &mut HeaderMap, content_type: &'static str) {
    guarded(headers, content_type, DATA_POLICY);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// The headers of a file of the page, which is asked for again each time.
pub(super) fn file(headers: &mut HeaderMap, content_type: &'static str) {
    guarded(headers, content_type, PAGE_POLICY);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

fn guarded(headers: &mut HeaderMap, content_type: &'static str, policy: &'static str) {
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
