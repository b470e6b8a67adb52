//! Extractors that refuse with a [`Problem`]: JSON bodies, query parameters, path parameters.

use super::problem::{Code, Problem};
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Multipart, OptionalFromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use futures_util::StreamExt;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most bytes that a [`Body`] has by default: 1 MiB.
pub const BODY_LIMIT: usize = 1 << 20;

/// A client sent no byte of a body for this long. The server puts it into bodies ; it becomes
/// `request_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no byte of the request's body came for {} seconds", .0.as_secs_f32())]
pub struct BodyTimeout(pub Duration);

/// A JSON body of at most `LIMIT` bytes.
///
/// Refusals: `unsupported_media_type` unless the content type is `application/json`, `payload_too_large`,
/// `malformed_json` with line and column, `invalid_body` and `unknown_field` with a JSON pointer, `request_timeout`.
/// As `Option<Body<T>>`, a request without any body is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Body<T, const LIMIT: usize = BODY_LIMIT>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> FromRequest<S> for Body<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(Code::UnsupportedMediaType)
                .detail("send the body as JSON, with the header Content-Type: application/json"));
        }
        parse(&read(request, LIMIT).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned, const LIMIT: usize> OptionalFromRequest<S> for Body<T, LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if request.body().is_end_stream() {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(|value| {
        // Parameters, such as a charset, do not matter: JSON is UTF-8 (RFC 8259, 8.1).
        value.split_once(';').map_or(value, |(essence, _)| essence).trim()
    });
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

async fn read(request: Request, limit: usize) -> Result<bytes::Bytes, Problem> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit as u64));
    }
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(body_problem(&*error, limit as u64)),
    }
}

/// The refusal of a body that has more than `limit` bytes.
pub fn too_large(limit: u64) -> Problem {
    Problem::new(Code::PayloadTooLarge)
        .detail(format!("the body has more than the {limit} bytes that are allowed here"))
        .with("max_bytes", limit)
}

/// The refusal for an error met while a request's body was read: over `limit` bytes, too slow, or broken off.
pub fn body_problem(error: &(dyn Error + 'static), limit: u64) -> Problem {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() || error.is::<FormTooLarge>() {
            return too_large(limit);
        }
        if let Some(timeout) = error.downcast_ref::<BodyTimeout>() {
            return Problem::new(Code::RequestTimeout).detail(timeout.to_string());
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            // An I/O error hands out the source of what it wraps, not what it wraps.
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    Problem::new(Code::BadRequest).detail("the body broke off or is badly framed")
}

/// A form whose files may be of any size, and nothing else may: its heads and what is around its parts, which are kept in
/// memory, are bounded. The reader of each part bounds the part.
pub struct Form {
    parts: Multipart,
    /// How much more of the body may be read, bytes.
    allowance: Arc<AtomicU64>,
}

/// Bytes around a part.
const FORM_HEAD: u64 = 1 << 20;

impl Form {
    /// Reads the form of a request. Refusals are the caller's to word.
    ///
    /// # Errors
    /// When it says that it is no form.
    pub async fn open(request: Request) -> Result<Self, MultipartRejection> {
        let allowance = Arc::new(AtomicU64::new(FORM_HEAD));
        let left = Arc::clone(&allowance);
        let mut request = request.map(|body| {
            let bytes = body.into_data_stream().map(move |chunk| {
                let chunk = chunk?;
                let length = chunk.len() as u64;
                let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
                taken.map(|_| chunk).map_err(|_| axum::Error::new(FormTooLarge))
            });
            axum::body::Body::from_stream(bytes)
        });
        DefaultBodyLimit::disable().apply(&mut request);
        <Multipart as FromRequest<()>>::from_request(request, &()).await.map(|parts| Self { parts, allowance })
    }

    /// The next part, of `max` bytes and a little more at most.
    ///
    /// # Errors
    /// When the form is badly written or breaks off.
    pub async fn next(&mut self, max: u64) -> Result<Option<Field<'_>>, MultipartError> {
        self.allowance.store(FORM_HEAD, Ordering::Relaxed);
        let field = self.parts.next_field().await?;
        self.allowance.store(max.saturating_add(FORM_HEAD), Ordering::Relaxed);
        Ok(field)
    }
}

/// A form has too much that is no part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the form is larger than its parts may be")]
pub struct FormTooLarge;

/// Refuses a text that not every database can store: PostgreSQL takes no NUL.
///
/// # Errors
/// `invalid_body`.
pub fn storable(pointer: &str, text: &str) -> Result<(), Problem> {
    if !text.contains('\0') {
        return Ok(());
    }
    let why = "must not have the character NUL";
    Err(Problem::new(Code::InvalidBody).detail(format!("{pointer}: {why}")).field(pointer, why))
}

/// Refuses a text of more than `max` characters, or one that not every database can store.
///
/// # Errors
/// `invalid_body`.
pub fn within_characters(pointer: &str, text: &str, max: usize) -> Result<(), Problem> {
    storable(pointer, text)?;
    let length = text.chars().count();
    if length <= max {
        return Ok(());
    }
    let why = format!("has {length} characters, the limit is {max}");
    Err(Problem::new(Code::InvalidBody).detail(format!("{pointer}: {why}")).field(pointer, why))
}

/// Reads a JSON object; the error says where.
///
/// # Errors
/// `malformed_json`, `invalid_body` or `unknown_field`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed =
        |error: &serde_json::Error| Problem::new(Code::MalformedJson).detail(format!("the body is not JSON: {error}"));
    // Derived types take an array as well, its values in the order of their fields, which nobody has described.
    let first = bytes.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first == Some(&b'[') {
        let text = "must be an object, not an array";
        return Err(match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => Problem::new(Code::InvalidBody).detail(format!("the body: {text}")).field("", text),
            Err(error) => malformed(&error),
        });
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize(&mut reader) {
        Ok(value) => reader.end().map(|()| value).map_err(|error| malformed(&error)),
        // serde_json calls a null or a number in the place of an enum a fault of syntax too.
        Err(error) if !error.inner().is_data() && serde_json::from_slice::<serde_json::Value>(bytes).is_err() => {
            Err(malformed(error.inner()))
        }
        Err(error) => {
            let pointer = pointer(error.path());
            let text = error.inner().to_string();
            // serde's own words for it; every derived type uses them.
            let code = if text.starts_with("unknown field") { Code::UnknownField } else { Code::InvalidBody };
            let place = if pointer.is_empty() { "the body".to_owned() } else { pointer.clone() };
            Err(Problem::new(code).detail(format!("{place}: {text}")).field(pointer, text))
        }
    }
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Query parameters; a wrong one is `invalid_parameter` and named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(parameter(&error.to_string())),
        }
    }
}

/// The refusal of a query parameter, out of axum's text: a preamble, then `name: what is wrong`, or what is wrong with
/// the name in backticks.
fn parameter(text: &str) -> Problem {
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let (name, detail) = match text.split_once(": ") {
        Some((name, detail)) if plain(name) => (Some(name), detail),
        _ => (text.split('`').nth(1), text),
    };
    let problem = Problem::new(Code::InvalidParameter);
    match name {
        Some(name) => {
            let name = crate::text::plain(name, 80);
            let detail = crate::text::plain(detail, 300);
            problem.detail(format!("query parameter {name}: {detail}")).field(name, detail)
        }
        None => problem.detail(crate::text::plain(text, 300)),
    }
}

/// Path parameters. What is no id of the wanted kind names nothing, so it is `not_found`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) if error.status().is_client_error() => {
                Err(Problem::new(Code::NotFound).detail("an id in the path is not one that this server makes"))
            }
            Err(error) => {
                tracing::error!(%error, "a route and its handler disagree about path parameters");
                Err(Code::Internal.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JobId;
    use axum::Router;
    use axum::routing::{get, post};
    use serde::Deserialize;
    use tower::ServiceExt;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        #[serde(default)]
        items: Vec<Item>,
        #[serde(default, rename = "a/b")]
        slash: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read from JSON")]
    struct Item {
        id: u8,
    }

    fn refusal(json: &str) -> (Code, String) {
        let problem = parse::<Shape>(json.as_bytes()).unwrap_err();
        let body = problem.body(None);
        (problem.code(), body.errors.first().map_or(body.detail.unwrap(), |error| error.pointer.clone()))
    }

    #[test]
    fn wrong_json_is_told_by_line_and_wrong_fields_by_pointer() {
        let shape = parse::<Shape>(br#"{"items":[{"id":1}],"a/b":2}"#).unwrap();
        assert_eq!((shape.items.len(), shape.slash), (1, Some(2)));
        assert_eq!(refusal(r#"{"items":[{"id":1},{"id":"x"}]}"#), (Code::InvalidBody, "/items/1/id".into()));
        assert_eq!(refusal(r#"{"a/b":300}"#), (Code::InvalidBody, "/a~1b".into()));
        assert_eq!(refusal(r#"{"items":[{}]}"#), (Code::InvalidBody, "/items/0".into()));
        assert_eq!(refusal(r#"{"items":[{"id":1,"di":1}]}"#), (Code::UnknownField, "/items/0/di".into()));
        assert_eq!(refusal("[1]").0, Code::InvalidBody);
        for malformed in ["", "{", "{} x", "{\n \"items\" 1}", "\u{feff}{}"] {
            let (code, detail) = refusal(malformed);
            assert_eq!(code, Code::MalformedJson, "{malformed}");
            assert!(detail.contains("line"), "{detail}");
        }
    }

    async fn send(request: Request) -> (u16, serde_json::Value) {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Page {
            limit: Option<u8>,
        }
        let router: Router = Router::new()
            .route("/body", post(|Body(shape): Body<Shape, 100>| async move { shape.items.len().to_string() }))
            .route("/maybe", post(|body: Option<Body<Shape>>| async move { body.is_some().to_string() }))
            .route("/list", get(|Query(page): Query<Page>| async move { page.limit.unwrap_or(7).to_string() }))
            .route("/jobs/{id}", get(|Path(id): Path<JobId>| async move { id.to_string() }));
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        (status, value)
    }

    fn body(path: &str, kind: Option<&str>, text: String) -> Request {
        let builder = Request::post(path);
        let builder = kind.into_iter().fold(builder, |builder, kind| builder.header(CONTENT_TYPE, kind));
        builder.body(axum::body::Body::from(text)).unwrap()
    }

    #[tokio::test]
    async fn a_body_needs_its_type_and_a_size_within_the_limit() {
        let json = Some("application/json; charset=utf-8");
        assert_eq!(send(body("/body", json, r#"{"items":[{"id":1}]}"#.into())).await, (200, 1.into()));
        assert_eq!(send(body("/body", None, "{}".into())).await.0, 415);
        assert_eq!(send(body("/body", Some("text/plain"), "{}".into())).await.0, 415);
        let (status, problem) = send(body("/body", json, " ".repeat(101))).await;
        assert_eq!((status, &problem["max_bytes"]), (413, &100.into()));
        assert_eq!(send(body("/maybe", None, String::new())).await, (200, false.into()));
        assert_eq!(send(body("/maybe", json, "{}".into())).await, (200, true.into()));
        assert_eq!(send(body("/maybe", None, "{}".into())).await.0, 415);
    }

    #[tokio::test]
    async fn a_wrong_parameter_is_named() {
        let get = |path: &str| Request::get(path).body(axum::body::Body::empty()).unwrap();
        assert_eq!(send(get("/list?limit=3")).await, (200, 3.into()));
        for (query, name) in
            [("limit=x", "limit"), ("limit=300", "limit"), ("nope=1", "nope"), ("limit=1&limit=2", "limit")]
        {
            let (status, problem) = send(get(&format!("/list?{query}"))).await;
            assert_eq!((status, &problem["code"]), (400, &"invalid_parameter".into()), "{problem}");
            assert_eq!(problem["errors"][0]["pointer"], name, "{problem}");
        }
        assert_eq!(send(get("/jobs/nonsense")).await.1["code"], "not_found");
    }

    #[test]
    fn a_slow_body_is_found_inside_of_other_errors() {
        let slow = || BodyTimeout(Duration::from_secs(30));
        let io = std::io::Error::other(slow());
        assert_eq!(body_problem(&io, 1).code(), Code::RequestTimeout);
        let io = std::io::Error::other(axum::Error::new(slow()));
        assert_eq!(body_problem(&io, 1).code(), Code::RequestTimeout);
        assert_eq!(body_problem(&std::io::Error::other("x"), 1).code(), Code::BadRequest);
    }
}
