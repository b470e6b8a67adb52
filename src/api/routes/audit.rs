//! The audit: who changed what.

use crate::api::app::{App, Caller};
use crate::api::page::{Page, bounds, created_after, page};
use crate::api::problem::Problem;
use crate::api::{Path, Query};
use crate::events::at;
use crate::ids::{AuditId, KeyId, WorkspaceId};
use crate::store::{AuditEntry, AuditFilter, Role};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
    /// What kind of thing it was done to: `instance`, `workspace` or `config`.
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
    /// Of this action, such as `network.set`.
    action: Option<String>,
    /// Done after this time, RFC 3339.
    created_after: Option<String>,
    /// Entries at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

async fn entries(
    app: &App,
    workspace_id: Option<WorkspaceId>,
    query: AuditQuery,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    let (limit, before) = bounds(query.limit, query.cursor.as_deref())?;
    let created_after = created_after(query.created_after.as_deref())?;
    // PostgreSQL takes no NUL in a text, and no action has one.
    let action = query.action.map(|action| action.replace('\0', "\u{fffd}"));
    let filter = AuditFilter { workspace_id, action, created_after, before };
    let rows = app.store.audit(&filter, limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.at, row.id.to_string()), AuditRecord::from)))
}

/// Lists who changed what in the whole instance, newest first. For admins.
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "A page", body = Page<AuditRecord>))
)]
async fn list_all(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    caller.must_be(Role::Admin)?;
    entries(&app, None, query).await
}

/// Lists who changed what in the workspace, newest first. For its owners.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), AuditQuery),
    responses((status = 200, description = "A page", body = Page<AuditRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Page<AuditRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    entries(&app, Some(workspace.id.clone()), query).await
}
