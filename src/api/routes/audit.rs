//! The audit: who changed what.

use super::events::NDJSON;
use crate::api::app::{App, Caller};
use crate::api::page::{Page, bounds, moment};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Cursor, Path, Query};
use crate::events::at;
use crate::ids::{AuditId, KeyId, WorkspaceId};
use crate::store::{Action, AuditEntry, AuditFilter, AuditPart, Role};
use crate::telemetry::OpenStream;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Entries of one read, where all are wanted.
const LINES: i64 = 500;

/// The routes of the instance.
pub fn of_instance() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_all))
}

/// The routes of a workspace.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One change; never changed itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// Its id.
    pub audit_id: AuditId,
    /// When, RFC 3339.
    pub created_at: String,
    /// In which workspace; none for the instance.
    pub workspace_id: Option<WorkspaceId>,
    /// With which key.
    pub key_id: KeyId,
    /// What that key was for, then.
    pub key_name: String,
    /// What was done, such as `network.set`.
    pub action: String,
    /// What kind of thing it was done to: `instance`, `workspace`, `key`, `config`, `document` or `job`.
    pub target_kind: String,
    /// Which one.
    pub target_id: String,
    /// What was set `before` and `after`.
    #[schema(value_type = Object)]
    pub detail: Value,
    /// In which request, as in `X-Request-ID`.
    pub request_id: String,
}

impl From<AuditEntry> for AuditRecord {
    fn from(entry: AuditEntry) -> Self {
        Self {
            audit_id: entry.id,
            created_at: at(entry.at),
            workspace_id: entry.workspace_id,
            key_id: entry.actor_id,
            key_name: entry.actor_name,
            action: entry.action,
            target_kind: entry.target_kind,
            target_id: entry.target_id,
            detail: entry.detail,
            request_id: entry.request_id,
        }
    }
}

/// Which changes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Of this action, such as `network.set`, or of one of these, separated by commas.
    action: Option<String>,
    /// Done with this key.
    key_id: Option<KeyId>,
    /// Done to this: the id of a job, document, config, key, workspace or the instance.
    target_id: Option<String>,
    /// Done after this time, RFC 3339.
    created_after: Option<String>,
    /// Done at this time or before, RFC 3339; with the next `created_after` the same, windows of time leave nothing out and have
    /// nothing twice.
    created_until: Option<String>,
    /// Entries at most, of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl AuditQuery {
    fn filter(&self, workspace_id: Option<WorkspaceId>) -> Result<AuditFilter, Problem> {
        // PostgreSQL takes no NUL in a text, and nothing here has one.
        let clean = |text: &str| text.replace('\0', "\u{fffd}");
        let actions: Vec<String> = self.action.iter().flat_map(|list| list.split(',')).map(clean).collect();
        if actions.len() > Action::ALL.len() {
            let text = format!("names {} actions, and there are {}", actions.len(), Action::ALL.len());
            return Err(Problem::new(Code::InvalidParameter)
                .detail(format!("query parameter action: {text}"))
                .field("action", text));
        }
        Ok(AuditFilter {
            workspace_id,
            actions,
            actor_id: self.key_id.clone(),
            target_id: self.target_id.as_deref().map(clean),
            created_after: moment("created_after", self.created_after.as_deref())?,
            created_until: moment("created_until", self.created_until.as_deref())?,
            before: None,
        })
    }
}

async fn entries(
    app: App,
    caller: &Caller,
    workspace_id: Option<WorkspaceId>,
    query: AuditQuery,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let mut filter = query.filter(workspace_id)?;
    let (limit, before) = bounds(query.limit, query.cursor.as_deref())?;
    filter.before = before;
    if wants_lines(headers)? {
        if let Some((name, _)) =
            [("limit", query.limit.is_some()), ("cursor", query.cursor.is_some())].into_iter().find(|(_, given)| *given)
        {
            let text = format!("is for pages; {NDJSON} has all entries");
            return Err(Problem::new(Code::InvalidParameter)
                .detail(format!("query parameter {name}: {text}"))
                .field(name, text));
        }
        let place = (app.stream(caller)?, app.metrics.open_stream());
        let lines = lines(app, filter, place);
        return Ok(([(CONTENT_TYPE, HeaderValue::from_static(NDJSON))], Body::from_stream(lines)).into_response());
    }
    let AuditPart { entries, rest } = app.store.audit(&filter, limit).await?;
    let next_cursor = rest.map(|id| Cursor { millis: entries.last().map_or(0, |entry| entry.at), id }.encode());
    Ok(Json(Page { items: entries.into_iter().map(AuditRecord::from).collect(), next_cursor }).into_response())
}

/// All entries, a line each, newest first; the next ones are read when these have been taken. A failure breaks the answer off, so
/// that no part of it looks like all.
fn lines(
    app: App,
    filter: AuditFilter,
    place: (OwnedSemaphorePermit, OpenStream),
) -> impl Stream<Item = Result<Bytes, Problem>> {
    let read = move |next: Option<(App, AuditFilter, (OwnedSemaphorePermit, OpenStream))>| async move {
        let Some((app, mut filter, place)) = next else { return Ok(None) };
        let AuditPart { entries, rest } = loop {
            let part = app.store.audit(&filter, LINES).await?;
            match part.rest {
                Some(rest) if part.entries.is_empty() => filter.before = Some(rest),
                _ => break part,
            }
        };
        let mut text = Vec::new();
        for entry in entries {
            // A record is nothing but texts and JSON.
            serde_json::to_writer(&mut text, &AuditRecord::from(entry)).map_err(|error| {
                tracing::error!(%error, "an entry of the audit cannot be written");
                Problem::new(Code::Internal)
            })?;
            text.push(b'\n');
        }
        if text.is_empty() {
            return Ok(None);
        }
        let next = rest.map(|id| {
            filter.before = Some(id);
            (app, filter, place)
        });
        Ok::<_, Problem>(Some((Bytes::from(text), next)))
    };
    futures_util::stream::try_unfold(Some((app, filter, place)), read)
}

/// Whether lines are wanted; the first type that is known wins.
fn wants_lines(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return Ok(false) };
    for range in accept.split(',') {
        match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            NDJSON => return Ok(true),
            "*/*" | "application/*" | "application/json" | "" => return Ok(false),
            _ => {}
        }
    }
    Err(Problem::new(Code::NotAcceptable).detail(format!("the audit comes as application/json or {NDJSON}")))
}

/// Lists who changed what in the whole instance, newest first. For admins.
///
/// In pages; with `Accept: application/x-ndjson`, all entries in one answer, a line each. A page of a filter that leaves little may have
/// fewer entries than `limit`, or none, and a `next_cursor`: only without one there are no more.
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(AuditQuery),
    responses(
        (status = 200, description = "A page, or all", content(
            (Page<AuditRecord> = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 406, description = "Accept allows neither form", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list_all(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.must_be(Role::Admin)?;
    entries(app, &caller, None, query, &headers).await
}

/// Lists who changed what in the workspace, newest first. For its owners.
///
/// In pages; with `Accept: application/x-ndjson`, all entries in one answer, a line each. A page of a filter that leaves little may have
/// fewer entries than `limit`, or none, and a `next_cursor`: only without one there are no more.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), AuditQuery),
    responses(
        (status = 200, description = "A page, or all", content(
            (Page<AuditRecord> = "application/json"),
            (String = "application/x-ndjson"),
        )),
        (status = 406, description = "Accept allows neither form", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<AuditQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    entries(app, &caller, Some(workspace.id.clone()), query, &headers).await
}
