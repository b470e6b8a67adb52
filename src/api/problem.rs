//! Errors as the API gives them: `application/problem+json` (RFC 9457) with a stable `code`.
//!
//! A handler makes a [`Problem`] from a [`Code`]; the [request id](super::request_id) is put in on the way out, whoever
//! made the problem.

use crate::blob::BlobError;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What stands before the code in the `type` of a problem: a path relative to the server, one anchor per code.
pub const TYPE_PREFIX: &str = "/problems#";

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:ident, $title:literal;)+) => {
        /// Why a request was refused. The text form is stable and documented.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The status that goes with it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            /// A short summary that is the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    /// The request is wrong in a way that no other code names.
    BadRequest = "bad_request", BAD_REQUEST, "The request is not valid";
    /// The body is not JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON";
    /// The body is JSON of another shape; `errors` points at the field.
    InvalidBody = "invalid_body", BAD_REQUEST, "The body is not as expected";
    /// The body has a field that is not known; `errors` points at it.
    UnknownField = "unknown_field", BAD_REQUEST, "The body has an unknown field";
    /// A query parameter or header has a value that is not allowed.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter is not valid";
    /// A cursor was not made by this server, or for another list.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not valid";
    /// The body has fewer or more bytes than were announced.
    LengthMismatch = "length_mismatch", BAD_REQUEST, "The body has another length than announced";
    /// The body has another hash than was announced.
    HashMismatch = "hash_mismatch", BAD_REQUEST, "The body has another hash than announced";
    /// The workspace has no active version and the request names none.
    NoActiveConfig = "no_active_config", BAD_REQUEST, "The workspace has no active config version";
    /// A job needs at least one document.
    DocumentsRequired = "documents_required", BAD_REQUEST, "A job needs documents";
    /// The package cannot be used as it is written; the diagnostics say why.
    PackageInvalid = "package_invalid", BAD_REQUEST, "The package is not valid";
    /// The version did not become the active one; `error`, `diagnostics`, `hook_output` and `install_log` say why.
    ActivationFailed = "activation_failed", BAD_REQUEST, "The activation failed";
    /// A limit was asked for that the instance does not give.
    LimitInvalid = "limit_invalid", BAD_REQUEST, "A limit is out of range";
    /// No key, or one that is not known.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid API key is needed";
    /// The key has expired.
    KeyExpired = "key_expired", UNAUTHORIZED, "The API key has expired";
    /// The key was revoked.
    KeyRevoked = "key_revoked", UNAUTHORIZED, "The API key was revoked";
    /// The key may not do this.
    Forbidden = "forbidden", FORBIDDEN, "The API key may not do this";
    /// Nothing is at this path.
    NotFound = "not_found", NOT_FOUND, "There is nothing here";
    /// No such workspace, or none that the key may see.
    WorkspaceNotFound = "workspace_not_found", NOT_FOUND, "There is no such workspace";
    /// No such job in the workspace.
    JobNotFound = "job_not_found", NOT_FOUND, "There is no such job";
    /// No such document in the workspace.
    DocumentNotFound = "document_not_found", NOT_FOUND, "There is no such document";
    /// No such config in the workspace.
    ConfigNotFound = "config_not_found", NOT_FOUND, "There is no such config";
    /// No such version of the config.
    VersionNotFound = "version_not_found", NOT_FOUND, "There is no such config version";
    /// No such draft of the config.
    DraftNotFound = "draft_not_found", NOT_FOUND, "There is no such draft";
    /// No such file in the draft.
    FileNotFound = "file_not_found", NOT_FOUND, "There is no such file";
    /// No such API key.
    KeyNotFound = "key_not_found", NOT_FOUND, "There is no such API key";
    /// The path is right and the method is not; `Allow` lists those that are.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// `Accept` allows none of the forms that the answer has.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "No acceptable form of the answer";
    /// The body did not come within the time that the server waits.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// The state of things does not allow it, and no other code names why.
    Conflict = "conflict", CONFLICT, "The request conflicts with the current state";
    /// Another config of the workspace has this slug.
    SlugTaken = "slug_taken", CONFLICT, "The slug is taken";
    /// The config or the version is archived.
    ConfigArchived = "config_archived", CONFLICT, "The config or version is archived";
    /// The version is the active one of the workspace.
    VersionActive = "version_active", CONFLICT, "The version is active";
    /// The version is not the active one of the workspace.
    VersionNotActive = "version_not_active", CONFLICT, "The version is not active";
    /// The draft, or a file of it, is not what the request expects; `revision` or `sha256` has what it is.
    DraftChanged = "draft_changed", CONFLICT, "The draft has changed";
    /// The workspace has as many drafts as it may.
    TooManyDrafts = "too_many_drafts", CONFLICT, "Too many drafts";
    /// The job must have finished first.
    JobNotFinished = "job_not_finished", CONFLICT, "The job has not finished";
    /// The job has finished already.
    JobFinished = "job_finished", CONFLICT, "The job has finished";
    /// The job is being finished and can no longer be changed.
    JobFinishing = "job_finishing", CONFLICT, "The job is finishing";
    /// A job that has not finished needs the document.
    DocumentInUse = "document_in_use", CONFLICT, "The document is in use";
    /// The first request with this idempotency key has not been answered yet.
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, "A request with this idempotency key is in progress";
    /// `If-Match` or `If-None-Match` names another state than the current one.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "The precondition does not hold";
    /// The body is over the limit, which `max_bytes` names.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The package is over a cap.
    PackageTooLarge = "package_too_large", PAYLOAD_TOO_LARGE, "The package is too large";
    /// The body is of a media type that this route does not take.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The media type is not supported";
    /// No byte of the asked-for range exists; `Content-Range` has the size.
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, "The range is outside of the file";
    /// The idempotency key was used with another request before.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    /// The request line and the headers are over the limit, which `max_bytes` and `max_headers` name.
    HeaderTooLarge = "header_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large";
    /// The queue is full; nothing was stored.
    QueueFull = "queue_full", TOO_MANY_REQUESTS, "The queue is full";
    /// So many activations of the workspace run or wait already.
    ActivationsBusy = "activations_busy", TOO_MANY_REQUESTS, "Too many activations wait";
    /// So many validations of the workspace run or wait already.
    ValidationsBusy = "validations_busy", TOO_MANY_REQUESTS, "Too many validations wait";
    /// Other packages take the memory that there is for them; `scope` and `max_bytes` name the bound.
    PackagesBusy = "packages_busy", TOO_MANY_REQUESTS, "Too many packages are worked on";
    /// The key sends requests faster than it may.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// The key has as many streams and waiting requests open as it may.
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many open streams";
    /// The server is shutting down.
    Draining = "draining", SERVICE_UNAVAILABLE, "The server is shutting down";
    /// This node takes no jobs.
    QueueOff = "queue_off", SERVICE_UNAVAILABLE, "The queue is off";
    /// Safe mode is on: no script may run.
    SafeMode = "safe_mode", SERVICE_UNAVAILABLE, "Safe mode is on";
    /// This node has no Docker Engine, base image or runtime just now.
    EngineUnavailable = "engine_unavailable", SERVICE_UNAVAILABLE, "No containers can be run";
    /// The database does not answer.
    DatabaseUnavailable = "database_unavailable", SERVICE_UNAVAILABLE, "The database is unavailable";
    /// The storage of files does not answer.
    StorageUnavailable = "storage_unavailable", SERVICE_UNAVAILABLE, "The storage is unavailable";
    /// The storage of files has no room left.
    StorageFull = "storage_full", SERVICE_UNAVAILABLE, "The storage is full";
    /// A fault of the server; its log has more under the request id.
    Internal = "internal", INTERNAL_SERVER_ERROR, "The server failed";
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body, as a JSON pointer (RFC 6901); for a query parameter its name.
    #[schema(example = "/document_ids/0")]
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// The JSON form of a [`Problem`], for writers and readers of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProblemBody {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "/problems#queue_full")]
    pub kind: String,
    /// A summary that is the same for every problem with this code.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Stable, for programs.
    #[schema(example = "queue_full")]
    pub code: String,
    /// The id of the request, as in `X-Request-ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Members that only some codes have, such as `retry_after`.
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone)]
#[must_use]
pub struct Problem(Box<Content>);

#[derive(Debug, Clone)]
struct Content {
    code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with nothing but its code.
    pub fn new(code: Code) -> Self {
        Self(Box::new(Content { code, detail: None, errors: Vec::new(), extensions: Map::new(), headers: Vec::new() }))
    }

    /// Says what happened this time, and what to do.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Points at a field that is wrong; may be called for each of several.
    pub fn field(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Adds a member of its own to the body. The members of RFC 9457 cannot be replaced by it.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if !RESERVED.contains(&key) {
            self.0.extensions.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Says after how many seconds another try makes sense, as header (RFC 9110, 10.2.3) and as member.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, seconds.into()).with("retry_after", seconds)
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Its JSON form, with the id of the request.
    #[must_use]
    pub fn body(&self, request_id: Option<&str>) -> ProblemBody {
        let Content { code, detail, errors, extensions, .. } = &*self.0;
        ProblemBody {
            kind: format!("{TYPE_PREFIX}{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            detail: detail.clone(),
            code: code.as_str().to_owned(),
            request_id: request_id.map(str::to_owned),
            errors: errors.clone(),
            extensions: extensions.clone(),
        }
    }

    pub(super) fn render(&self, request_id: Option<&str>) -> axum::body::Body {
        // Nothing in the body can fail to become JSON: all keys are text. An empty body still has the right status.
        serde_json::to_vec(&self.body(request_id)).unwrap_or_default().into()
    }
}

const RESERVED: [&str; 8] = ["type", "title", "status", "detail", "instance", "code", "request_id", "errors"];

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<BlobError> for Problem {
    /// The storage's own words stay in the log: they have paths in them.
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound { .. } => Self::new(Code::NotFound).detail("the file is no longer in the storage"),
            BlobError::TooLarge { limit } => super::extract::too_large(limit),
            BlobError::Source(error) => super::extract::body_problem(&error, u64::MAX),
            BlobError::Full { .. } => {
                tracing::error!(%error, "the storage is full");
                Self::new(Code::StorageFull).detail("free some room, or have the admin give the storage more")
            }
            _ => {
                tracing::error!(%error, "the storage failed");
                Self::new(Code::StorageUnavailable).detail("try again later; the server's log has more")
            }
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.detail.as_deref().unwrap_or(self.0.code.title()))
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.render(None));
        *response.status_mut() = self.0.code.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in &self.0.headers {
            headers.append(name, value.clone());
        }
        // The layer of request ids takes it out and writes the body again with the id in it.
        response.extensions_mut().insert(self);
        response
    }
}

impl utoipa::PartialSchema for Problem {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        ProblemBody::schema()
    }
}

impl utoipa::ToSchema for Problem {
    fn name() -> std::borrow::Cow<'static, str> {
        "Problem".into()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        ProblemBody::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_their_status_is_an_error() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400));
    }

    #[test]
    fn a_problem_has_its_members_and_headers_and_nothing_empty() {
        let problem = Problem::new(Code::QueueFull).with("queue_size", 3).with("status", 1).retry_after(7);
        let body = serde_json::to_value(problem.body(Some("r1"))).unwrap();
        let expected = serde_json::json!({
            "type": "/problems#queue_full", "title": "The queue is full", "status": 429, "code": "queue_full",
            "request_id": "r1", "queue_size": 3, "retry_after": 7,
        });
        assert_eq!(body, expected);
        let response = problem.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn a_failure_of_the_storage_is_told_without_its_paths() {
        let failed = BlobError::Unavailable { key: "ws_1/x".into(), reason: "/var/lib: EIO".into() };
        let problem = Problem::from(failed);
        assert_eq!(problem.code(), Code::StorageUnavailable);
        assert!(!problem.to_string().contains("/var"), "{problem}");
        assert_eq!(Problem::from(BlobError::TooLarge { limit: 5 }).body(None).extensions["max_bytes"], 5);
    }

    #[test]
    fn the_schema_has_the_members_of_the_body() {
        let schema = serde_json::to_value(<Problem as utoipa::PartialSchema>::schema()).unwrap();
        for member in ["type", "title", "status", "detail", "code", "request_id", "errors"] {
            assert!(schema["properties"].get(member).is_some(), "{schema}");
        }
    }
}
