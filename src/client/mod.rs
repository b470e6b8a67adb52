//! The service as a client sees it, with the API's own types.

mod error;
mod find;
mod follow;
mod sse;
mod transfer;

pub use error::{Blame, ClientError};
pub use follow::{Follower, News};
pub use transfer::Local;

use crate::api::page::Page;
use crate::api::{FieldError, ProblemBody};
use crate::ids::JobId;
use crate::text::plain;
use futures_util::StreamExt;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CONNECT: Duration = Duration::from_secs(10);
/// How long a service may be silent: longer than it waits where it was asked to, and than its streams are ever quiet.
const SILENCE: Duration = Duration::from_secs(90);
/// Bytes of an error's body that are looked at.
const MAX_PROBLEM: usize = 1024 * 1024;
/// Entries of one page.
const PAGE: usize = 200;

/// A service and a key for it.
pub struct Client {
    http: reqwest::Client,
    /// Without a bound on silence: a service says nothing while it takes a file, or activates a version.
    patient: reqwest::Client,
    base: Url,
    key: String,
    key_source: String,
    key_file: PathBuf,
}

impl Client {
    /// A request with the key, to a path of the API given in segments.
    pub fn request(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.http.request(method, self.url(segments)).bearer_auth(&self.key)
    }

    /// The same, for what is answered only when all of it is done.
    pub fn patient(&self, method: Method, segments: &[&str]) -> RequestBuilder {
        self.patient.request(method, self.url(segments)).bearer_auth(&self.key)
    }

    /// A GET; see [`request`](Self::request).
    pub fn get(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::GET, segments)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // Segments are escaped, so that none can lead elsewhere.
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        url
    }

    /// Sends a request.
    ///
    /// # Errors
    /// That there is no service, or what it refused.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Errors
    /// As [`send`](Self::send), or that the answer is of another shape.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        self.read(response).await
    }

    /// Reads an answer as JSON.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.unexpected(&format!("its answer cannot be read: {error}")))
    }

    /// Lists entries, newest first: so many at most, or all.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn list<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Result<Page<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let wanted = limit.map_or(PAGE, |limit| (limit - items.len()).min(PAGE));
            let mut request = self.get(segments).query(query).query(&[("limit", wanted)]);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: Page<T> = self.json(request).await?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() || limit.is_some_and(|limit| items.len() >= limit) {
                return Ok(Page { items, next_cursor: cursor });
            }
        }
    }

    /// Looks at a job, and waits up to `wait` for its record to be another than the one with this entity tag. Gives the
    /// record, unless it is still that one, and its tag.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn watch_job(
        &self,
        workspace: &str,
        id: &JobId,
        tag: Option<&str>,
        wait: Duration,
    ) -> Result<Option<(crate::api::routes::job_record::JobRecord, String)>, ClientError> {
        let mut request = self.get(&["workspaces", workspace, "jobs", id.as_str()]);
        if let Some(tag) = tag {
            request = request.header("If-None-Match", tag).header("Prefer", format!("wait={}", wait.as_secs()));
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or("\"\"").to_owned();
        Ok(Some((self.read(response).await?, tag)))
    }

    /// A connection that could not be made, or broke.
    fn lost(&self, error: &reqwest::Error) -> ClientError {
        let mut cause: &dyn Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let (base, cause) = (&self.base, plain(&cause.to_string(), 300));
        if error.is_connect() {
            let hint = if cause.contains("certificate") {
                "ADE_CA_BUNDLE names authorities to trust besides the system's"
            } else {
                "is `ade serve` running? --server and ADE_SERVER choose another address"
            };
            let message = format!("no service answers at {base} ({cause}); {hint}");
            return ClientError::new(Blame::Environment, "server_unreachable", message);
        }
        let what = if error.is_timeout() { "does not answer in time" } else { "cut the connection" };
        ClientError::new(Blame::Environment, "connection_lost", format!("the service at {base} {what} ({cause})"))
    }

    fn unexpected(&self, what: &str) -> ClientError {
        let message = format!("{} does not speak like an ADE service: {what}; is --server right?", self.base);
        ClientError::new(Blame::Environment, "unexpected_answer", message)
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(Ok(chunk)) = chunks.next().await
            && body.len() < MAX_PROBLEM
        {
            body.extend_from_slice(&chunk);
        }
        let Ok(problem) = serde_json::from_slice::<ProblemBody>(&body) else {
            return self.unexpected(&format!("it answers with the status {status}"));
        };
        let mut message = plain(problem.detail.as_deref().unwrap_or(&problem.title), 2_000);
        if status == StatusCode::UNAUTHORIZED {
            let file = self.key_file.display();
            // Writing to a text cannot fail.
            write!(
                message,
                "; the key came from {}. Keys are looked for in --api-key, in ADE_API_KEY, and for a service on this machine in {file}",
                self.key_source
            )
            .ok();
        }
        ClientError {
            retry_after: header.map(Duration::from_secs),
            problem: Some(Box::new(ProblemBody {
                errors: problem.errors.iter().map(tame).collect(),
                request_id: problem.request_id.as_deref().map(|id| plain(id, 100)),
                ..problem.clone()
            })),
            ..ClientError::new(
                if status.is_client_error() { Blame::Request } else { Blame::Environment },
                plain(&problem.code, 80),
                message,
            )
        }
    }
}

/// Fit for a terminal.
fn tame(error: &FieldError) -> FieldError {
    FieldError { pointer: plain(&error.pointer, 200), detail: plain(&error.detail, 1_000) }
}

/// Tries again as long as the service says when, and the time of that is within `patience` from now. `say` hears of it.
///
/// # Errors
/// Those of the last try.
pub async fn retrying<T, F: Future<Output = Result<T, ClientError>>>(
    patience: Duration,
    say: impl Fn(&str),
    mut attempt: impl FnMut() -> F,
) -> Result<T, ClientError> {
    let deadline = Instant::now() + patience;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match error.retry_after.filter(|_| error.is_passing()) {
            Some(wait) if Instant::now() + wait <= deadline => {
                say(&format!("{}; trying again in {} s", error.message, wait.as_secs()));
                tokio::time::sleep(wait).await;
            }
            _ => return Err(error),
        }
    }
}
