//! Workspaces, and who is asking.

use crate::api::app::{App, Caller, is_slug};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Body, Path, Query, extract};
use crate::events::at;
use crate::ids::{KeyId, VersionId, WorkspaceId};
use crate::store::{Role, StoreError, Workspace, WorkspaceChange};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of the list.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(whoami)).routes(routes!(create, list))
}

/// The routes of one workspace.
pub fn one() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, change))
}

/// A workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceRecord {
    /// Its id.
    pub workspace_id: WorkspaceId,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub title: String,
    /// The version that runs when a submission names none.
    pub active_version_id: Option<VersionId>,
    /// Its share of the machine against other workspaces that wait; 100 is the default.
    pub weight: i64,
    /// Bound on its waiting jobs; null takes the setting.
    pub max_queued: Option<i64>,
    /// Bound on its running jobs; null takes the setting, 0 is no bound.
    pub max_running: Option<i64>,
    /// Whether its jobs are not handed out.
    pub paused: bool,
    /// Jobs that wait.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
    /// When it was made, RFC 3339.
    pub created_at: String,
}

impl From<Workspace> for WorkspaceRecord {
    fn from(workspace: Workspace) -> Self {
        Self {
            workspace_id: workspace.id,
            slug: workspace.slug,
            title: workspace.title,
            active_version_id: workspace.active_version_id,
            weight: workspace.weight,
            max_queued: workspace.max_queued,
            max_running: workspace.max_running,
            paused: workspace.paused,
            queued: workspace.queued,
            running: workspace.running,
            created_at: at(workspace.created_at),
        }
    }
}

/// Who is asking.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// The key.
    pub key_id: KeyId,
    /// Its beginning.
    pub prefix: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Its workspace; none for an admin's.
    pub workspace_id: Option<WorkspaceId>,
    /// When it stops working, RFC 3339.
    pub expires_at: Option<String>,
}

/// The key of this request.
#[utoipa::path(get, path = "/whoami", tag = "keys", responses((status = 200, description = "The key", body = Whoami)))]
async fn whoami(caller: Caller) -> Json<Whoami> {
    let key = &caller.key;
    Json(Whoami {
        key_id: key.id.clone(),
        prefix: key.prefix.clone(),
        name: key.name.clone(),
        role: key.role,
        workspace_id: key.workspace_id.clone(),
        expires_at: key.expires_at.map(at),
    })
}

/// A new workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Lower-case letters, digits and hyphens; unique.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-z0-9][a-z0-9-]*$")]
    pub slug: String,
    /// Name for people; the slug when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub title: Option<String>,
}

/// Checks a slug.
///
/// # Errors
/// `invalid_body`.
pub(super) fn check_slug(slug: &str) -> Result<(), Problem> {
    if is_slug(slug) {
        return Ok(());
    }
    let text = "must have 1 to 100 lower-case letters, digits and hyphens, and begin with a letter or digit";
    Err(Problem::new(Code::InvalidBody).detail(format!("/slug: {text}")).field("/slug", text))
}

fn check_title(title: Option<&str>) -> Result<(), Problem> {
    let Some(title) = title else { return Ok(()) };
    extract::storable("/title", title)?;
    if title.chars().count() <= 255 {
        return Ok(());
    }
    let text = "must have at most 255 characters";
    Err(Problem::new(Code::InvalidBody).detail(format!("/title: {text}")).field("/title", text))
}

/// Makes a workspace. For admins.
#[utoipa::path(
    post, path = "/workspaces", tag = "workspaces", request_body = CreateWorkspace,
    responses(
        (status = 201, description = "Made", body = WorkspaceRecord, headers(("Location" = String))),
        (status = 409, description = "The slug is taken", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateWorkspace>,
) -> Result<Response, Problem> {
    caller.must_be(Role::Admin)?;
    check_slug(&request.slug)?;
    check_title(request.title.as_deref())?;
    let title = request.title.unwrap_or_else(|| request.slug.clone());
    let workspace = app.store.create_workspace(&request.slug, &title, Some(&caller.actor())).await.map_err(
        |error| match error {
            StoreError::Exists(_) => Problem::new(Code::SlugTaken)
                .detail(format!("there is a workspace {:?} already; choose another slug", request.slug))
                .field("/slug", "is taken"),
            other => other.into(),
        },
    )?;
    let location = format!("/api/v1/workspaces/{}", workspace.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(WorkspaceRecord::from(workspace))).into_response())
}

/// Lists the workspaces that the key may see, newest first.
#[utoipa::path(
    get, path = "/workspaces", tag = "workspaces", params(PageQuery),
    responses((status = 200, description = "A page", body = Page<WorkspaceRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<WorkspaceRecord>>, Problem> {
    let (limit, before) = query.read()?;
    let rows = match &caller.key.workspace_id {
        Some(own) => app.store.workspace(own).await?.into_iter().collect(),
        None => app.store.workspaces(before.as_deref(), limit + 1).await?,
    };
    Ok(Json(page(rows, limit, |row| (row.created_at, row.id.to_string()), WorkspaceRecord::from)))
}

/// A workspace.
#[utoipa::path(
    get, path = "", tag = "workspaces",
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    responses((status = 200, description = "The workspace", body = WorkspaceRecord))
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Json<WorkspaceRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let fresh = app.store.workspace(&workspace.id).await?.ok_or(Code::WorkspaceNotFound)?;
    Ok(Json(fresh.into()))
}

/// Changes of a workspace; what is left out stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWorkspace {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub title: Option<String>,
    /// Its share of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10_000)]
    pub weight: Option<i64>,
    /// Bound on its waiting jobs; null goes back to the setting.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 100_000_000)]
    pub max_queued: Option<Option<i64>>,
    /// Bound on its running jobs; 0 is no bound, null goes back to the setting.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 10_000)]
    pub max_running: Option<Option<i64>>,
    /// Whether its jobs are not handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Tells null from absent.
pub(super) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// # Errors
/// `invalid_body` when a number is outside of a range.
pub(super) fn within(pointer: &str, value: Option<i64>, range: std::ops::RangeInclusive<i64>) -> Result<(), Problem> {
    if value.is_none_or(|value| range.contains(&value)) {
        return Ok(());
    }
    let text = format!("must be from {} to {}", range.start(), range.end());
    Err(Problem::new(Code::InvalidBody).detail(format!("{pointer}: {text}")).field(pointer, text))
}

/// Changes a workspace's share, bounds, pause or title. For admins.
#[utoipa::path(
    patch, path = "", tag = "workspaces", request_body = ChangeWorkspace,
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    responses((status = 200, description = "The workspace", body = WorkspaceRecord))
)]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Body(request): Body<ChangeWorkspace>,
) -> Result<Json<WorkspaceRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Admin).await?;
    check_title(request.title.as_deref())?;
    within("/weight", request.weight, 1..=10_000)?;
    within("/max_queued", request.max_queued.flatten(), 0..=100_000_000)?;
    within("/max_running", request.max_running.flatten(), 0..=10_000)?;
    let change = WorkspaceChange {
        title: request.title,
        weight: request.weight,
        max_queued: request.max_queued,
        max_running: request.max_running,
        paused: request.paused,
    };
    let changed = app.store.change_workspace(&workspace.id, change, &caller.actor()).await?;
    let changed = changed.ok_or(Code::WorkspaceNotFound)?;
    tracing::info!(workspace = %changed.id, by = %caller.key.prefix, weight = changed.weight, paused = changed.paused, "workspace changed");
    app.workspace_changed(&changed);
    app.signals.work();
    Ok(Json(changed.into()))
}
