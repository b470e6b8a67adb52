//! Sending a stored file: whole or one range, conditional, never sniffed.

use crate::api::app::App;
use crate::api::headers::{self, ETag, Part};
use crate::api::names;
use crate::api::problem::{Code, Problem};
use crate::blob::Key;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Answers a download. `name` is the file name that browsers save under; without one the content is shown in place.
///
/// # Errors
/// `not_found` when the bytes are gone, `range_not_satisfiable`, `storage_unavailable`.
pub async fn respond(
    app: &App,
    key: &Key,
    sha256: &str,
    content_type: &str,
    name: Option<&str>,
    asked: &HeaderMap,
) -> Result<Response, Problem> {
    let etag = ETag::strong(sha256);
    let mut sent = HeaderMap::new();
    sent.insert(ETAG, etag.header());
    if etag.matched_by_if_none_match(asked) {
        return Ok((StatusCode::NOT_MODIFIED, sent).into_response());
    }
    let size = app.blobs.head(key).await?;
    sent.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    sent.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let content_type = HeaderValue::from_str(content_type);
    sent.insert(CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    if let Some(name) = name {
        sent.insert(CONTENT_DISPOSITION, names::attachment(name));
    }
    // A range of another state of the file than the client has would not fit (RFC 9110, 13.1.5).
    let stale = asked.get(IF_RANGE).is_some_and(|known| *known != etag.header());
    let (status, range) = match headers::range(asked, size) {
        Part::Unsatisfiable if !stale => {
            return Err(Problem::new(Code::RangeNotSatisfiable)
                .detail(format!("the file has {size} bytes"))
                .header(CONTENT_RANGE, headers::unsatisfied_range(size)));
        }
        Part::Bytes(range) if !stale => {
            sent.insert(CONTENT_RANGE, headers::content_range(&range, size));
            (StatusCode::PARTIAL_CONTENT, Some(range))
        }
        _ => (StatusCode::OK, None),
    };
    let content = app.blobs.get_range(key, range).await?;
    sent.insert(CONTENT_LENGTH, HeaderValue::from(content.range.end - content.range.start));
    Ok((status, sent, Body::from_stream(content.stream)).into_response())
}
