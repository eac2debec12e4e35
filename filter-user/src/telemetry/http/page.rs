//! The files of the dashboard.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::answer;
use crate::telemetry::page::ASSETS;

/// The file at a path.
pub(super) fn file(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let tag = tag(asset.bytes);
    let is_known = |known: &str| {
        let mut known = known.split(',').map(str::trim);
        known.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    };
    let known = headers.get_all(IF_NONE_MATCH).iter();
    let known = known.filter_map(|known| known.to_str().ok()).any(is_known);
    let mut response = Response::new(Body::from(Bytes::from_static(asset.bytes)));
    answer::file(response.headers_mut(), asset.content_type);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    }
    Some(response)
}

/// Says whether two files are the same; nobody gains by finding another with this tag.
fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}
