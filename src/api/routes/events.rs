//! A job's events: as a file, as a stream of lines, or as server-sent events. Nothing is missed and nothing comes twice,
//! whatever the job does meanwhile: a reader says what it has, and gets what comes after that.

use super::jobs::job;
use crate::api::app::{App, Caller};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Path, Query};
use crate::blob::{BlobError, JobFile, Key};
use crate::ids::JobId;
use crate::queue::Watch;
use crate::sandbox::protocol::Progress;
use crate::store::{Role, StoredEvent, Workspace};
use crate::telemetry::OpenStream;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events of one read.
const PAGE: i64 = 500;
/// How often a follower looks by itself, where a hint from another process can be lost.
const LOOK: Duration = Duration::from_secs(2);
pub(super) const NDJSON: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Only events with a higher `seq`.
    after: Option<u64>,
    /// Whether to go on until the job has ended; server-sent events do so unless this is false.
    follow: Option<bool>,
}

/// A job's events, in order.
///
/// As `application/x-ndjson`, or as `text/event-stream` when `Accept` names it: each event with its `seq` as id and its name as
/// type, and between them `progress` events without an id, which are not part of the log. A client that lost its connection
/// sends `Last-Event-ID`.
#[utoipa::path(
    get, path = "/jobs/{job_id}/events", tag = "jobs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("job_id" = JobId, Path, description = "The job"),
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "`seq` of the last event that was seen"),
    ),
    responses(
        (status = 200, description = "The events", content(
            (String = "application/x-ndjson"),
            (String = "text/event-stream"),
        )),
        (status = 406, description = "Accept allows neither form", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn events(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, JobId)>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let sse = wants_sse(&headers)?;
    let last = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let last = match last {
        Some(None) => {
            let text = "must be the seq of an event";
            return Err(Problem::new(Code::InvalidParameter)
                .detail(format!("Last-Event-ID: {text}"))
                .field("Last-Event-ID", text));
        }
        Some(seq) => seq,
        None => None,
    };
    let after = last.or(query.after).unwrap_or_default();
    let follow = query.follow.unwrap_or(sse);
    let row = job(&app, &workspace, &id).await?;
    let place = if follow { Some((app.stream(&caller)?, app.metrics.open_stream())) } else { None };
    let follower = Follower {
        watch: follow.then(|| app.signals.watch(&row.id)),
        app,
        workspace,
        id,
        after,
        progress: sse,
        ready: VecDeque::new(),
        ended: false,
        _place: place,
    };
    let items = futures_util::stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|item| (item, follower))
    });
    Ok(if sse {
        let events = items.map(|item| match item {
            Ok(Item::Event(event)) => Ok(sse_event(&event)),
            Ok(Item::Progress(progress)) => Ok(Event::default().event("progress").data(
                json!({"pass": crate::text::plain(&progress.pass, 40), "rows": progress.rows, "total": progress.total})
                    .to_string(),
            )),
            Err(problem) => Err(problem),
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
    } else {
        let lines = items.filter_map(|item| async {
            match item {
                Ok(Item::Event(event)) => Some(Ok(Bytes::from(event.line + "\n"))),
                Ok(Item::Progress(_)) => None,
                Err(problem) => Some(Err(problem)),
            }
        });
        ([(CONTENT_TYPE, HeaderValue::from_static(NDJSON))], Body::from_stream(bound(lines))).into_response()
    })
}

/// Names the type for the compiler.
fn bound<S: Stream<Item = Result<Bytes, Problem>>>(stream: S) -> S {
    stream
}

/// Whether server-sent events are wanted; the first type that is known wins.
fn wants_sse(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return Ok(false) };
    for range in accept.split(',') {
        match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            SSE => return Ok(true),
            NDJSON | "*/*" | "application/*" | "application/json" | "text/plain" | "" => return Ok(false),
            "text/*" => return Ok(true),
            _ => {}
        }
    }
    Err(Problem::new(Code::NotAcceptable).detail(format!("events come as {NDJSON} or {SSE}")))
}

fn sse_event(event: &StoredEvent) -> Event {
    #[derive(Deserialize)]
    struct Name<'a> {
        event: &'a str,
    }
    let name = serde_json::from_str::<Name<'_>>(&event.line).map_or("message", |name| name.event);
    Event::default().id(event.seq.to_string()).event(name).data(&event.line)
}

enum Item {
    Event(StoredEvent),
    Progress(Progress),
}

/// A reader of one job's events, with what it has seen.
struct Follower {
    app: App,
    workspace: Arc<Workspace>,
    id: JobId,
    after: u64,
    /// Whether it wants progress too.
    progress: bool,
    watch: Option<Watch>,
    ready: VecDeque<StoredEvent>,
    ended: bool,
    _place: Option<(OwnedSemaphorePermit, OpenStream)>,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Item, Problem>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = event.seq;
                return Some(Ok(Item::Event(event)));
            }
            if self.ended {
                return None;
            }
            if let Err(problem) = self.fill().await {
                self.ended = true;
                return Some(Err(problem));
            }
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            let Some(watch) = &mut self.watch else { return None };
            tokio::select! {
                news = watch.next() => {
                    if let (true, Some(progress)) = (self.progress, news.progress) {
                        // Whatever else is new is found with the next call.
                        self.fill().await.ok();
                        return Some(Ok(Item::Progress(progress)));
                    }
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Reads what comes after what was seen. Order matters: once the record says that the job has ended, all events are there.
    async fn fill(&mut self) -> Result<(), Problem> {
        let row = job(&self.app, &self.workspace, &self.id).await?;
        if row.events_stored {
            self.ready.extend(stored(&self.app, &self.workspace, &self.id, row.execution, self.after).await?);
            self.ended = true;
            return Ok(());
        }
        let events = self.app.store.events_after(&self.id, self.after, PAGE).await?;
        let full = i64::try_from(events.len()).unwrap_or_default() == PAGE;
        if events.is_empty() && row.state.is_final() {
            // The log has moved since the record was read, or there is nothing more.
            let row = job(&self.app, &self.workspace, &self.id).await?;
            if !row.events_stored {
                self.ended = true;
            } else {
                self.ready.extend(stored(&self.app, &self.workspace, &self.id, row.execution, self.after).await?);
                self.ended = true;
            }
            return Ok(());
        }
        self.ready.extend(events);
        if self.watch.is_none() && !full {
            self.ended = true;
        }
        Ok(())
    }
}

/// The events of a stored log after `after`. They are numbered from 1 without gaps, so that the place is the number.
async fn stored(
    app: &App,
    workspace: &Workspace,
    id: &JobId,
    execution: u32,
    after: u64,
) -> Result<Vec<StoredEvent>, Problem> {
    let key = Key::job_file(&workspace.id, id, execution, JobFile::Events);
    let mut content = match app.blobs.get_range(&key, None).await {
        Ok(content) => content.stream,
        Err(BlobError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::new();
    while let Some(chunk) = content.next().await {
        text.extend_from_slice(&chunk?);
    }
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok((1..)
        .zip(lines)
        .skip_while(|(seq, _)| *seq <= after)
        .map(|(seq, line)| StoredEvent { seq, line: String::from_utf8_lossy(line).into_owned() })
        .collect())
}
