//! One id per request: in `X-Request-ID`, in the log's span, and in every problem.

use super::problem::Problem;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use std::fmt;
use std::sync::Arc;
use tracing::Instrument;

/// The header that carries the id, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that a caller may bring.
const MAX_LENGTH: usize = 64;

/// The id of a request; handlers find it among the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id where it is at most 64 characters of `[A-Za-z0-9._-]`, else a new one.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let brought = headers.get(HEADER).and_then(|value| value.to_str().ok());
        match brought.filter(|id| (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(plain)) {
            Some(id) => Self(id.into()),
            None => Self(ulid::Ulid::new().to_string().into()),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The middleware, for [`axum::middleware::from_fn`]; the server puts it around the whole router.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let span =
        tracing::info_span!("request", request_id = %id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = problem.render(Some(id.as_str()));
        // The router may have set it for the body without the id; hyper sets it anew.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::problem::Code;
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    #[test]
    fn only_plain_short_ids_are_taken_over() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(id("a-B_9.z"), "a-B_9.z");
        for wrong in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert_eq!(id(wrong).len(), 26, "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_id_is_in_the_header_and_in_the_problem() {
        async fn refuse() -> Problem {
            Problem::new(Code::JobNotFound)
        }
        let router: Router = Router::new().route("/", get(refuse)).layer(axum::middleware::from_fn(layer));
        let request = Request::get("/").header(HEADER, "mine").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[HEADER], "mine");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: super::super::ProblemBody = serde_json::from_slice(&body).unwrap();
        assert_eq!((body.code.as_str(), body.request_id.as_deref()), ("job_not_found", Some("mine")));
    }
}
