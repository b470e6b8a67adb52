//! Configs: registering packages, looking at them, archiving and restoring them.

use super::package_form::{Form, Purpose, no_package, open, ready};
use super::versions::VersionRecord;
use crate::api::app::{App, Caller, storage_ready};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Body, Path, Query};
use crate::events::at;
use crate::ids::{ConfigId, WorkspaceId};
use crate::store::{Blocked, Config, Role, StoreError, Version, Workspace};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const MAX_DESCRIPTION: usize = 10_000;
/// Characters of a name for people.
pub(super) const MAX_TITLE: usize = 255;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, archive))
        .routes(routes!(restore))
        .routes(routes!(set_concurrency))
}

/// A config.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfigRecord {
    /// Its id.
    pub config_id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Bound on its running jobs; none is no bound.
    pub max_running: Option<i64>,
    /// Its newest version that is not archived.
    pub latest_version: Option<VersionRecord>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it was archived, RFC 3339. It takes no jobs then, and keeps its slug.
    pub archived_at: Option<String>,
}

fn record(config: Config, latest: Option<Version>, workspace: &Workspace) -> ConfigRecord {
    ConfigRecord {
        config_id: config.id,
        workspace_id: config.workspace_id,
        slug: config.slug,
        title: config.title,
        description: config.description,
        max_running: config.max_running,
        latest_version: latest.map(|version| VersionRecord::of(version, workspace)),
        created_at: at(config.created_at),
        archived_at: config.archived_at.map(at),
    }
}

/// A form with a package.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct CreateConfig {
    /// Lower-case letters, digits and hyphens, unique in the workspace.
    #[schema(min_length = 1, max_length = 100, pattern = "^[a-z0-9][a-z0-9-]*$")]
    slug: String,
    /// Name for people; the manifest's title when it is not given.
    #[schema(max_length = 255)]
    title: Option<String>,
    /// What it is for.
    #[schema(max_length = 10_000)]
    description: Option<String>,
    /// The package: a zip with manifest.json at its root.
    #[schema(value_type = String, format = Binary)]
    package: String,
}

/// Registers a package as version `v1` of a new config.
#[utoipa::path(
    post, path = "/configs", tag = "configs",
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    request_body(content = CreateConfig, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Registered", body = ConfigRecord, headers(("Location" = String))),
        (status = 409, description = "The slug is taken", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    storage_ready(&app)?;
    let mut form =
        Form::read(&app, request, &[("slug", 100), ("title", MAX_TITLE), ("description", MAX_DESCRIPTION)]).await?;
    let slug = form.require("slug")?;
    super::workspaces::check_slug(&slug)?;
    let (title, description) = (form.take("title"), form.take("description").unwrap_or_default());
    let opened =
        open(&app, &workspace.id, form.package, Purpose::Store).await?.map_err(|failure| no_package(&failure))?;
    let ready = ready(&app, &workspace.id, opened).await?;
    let title = title.unwrap_or_else(|| ready.manifest.info.title.clone());
    let created =
        app.store.create_config(&workspace.id, &slug, &title, &description, &ready.version, &caller.actor()).await;
    let (config, version) = created.map_err(|error| match error {
        StoreError::Exists(_) => Problem::new(Code::SlugTaken)
            .detail(format!(
                "this workspace has a config {slug:?} already, which may be archived; choose another slug, or publish a version of it"
            ))
            .field("/slug", "is taken"),
        other => other.into(),
    })?;
    tracing::info!(config = %config.id, workspace = %workspace.id, slug = config.slug, "config registered");
    let location = format!("/api/v1/workspaces/{}/configs/{}", workspace.id, config.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(record(config, Some(version), &workspace))).into_response())
}

/// Lists configs, newest first.
#[utoipa::path(
    get, path = "/configs", tag = "configs",
    params(("workspace" = String, Path, description = "Id or slug of the workspace"), PageQuery),
    responses((status = 200, description = "A page", body = Page<ConfigRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ConfigRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (limit, before) = query.read()?;
    let mut rows = Vec::new();
    for config in app.store.configs(&workspace.id, before.as_deref(), limit + 1).await? {
        let latest = app.store.newest_version(&config.id).await?;
        rows.push((config, latest));
    }
    let place = |(config, _): &(Config, Option<Version>)| (config.created_at, config.id.to_string());
    Ok(Json(page(rows, limit, place, |(config, latest)| record(config, latest, &workspace))))
}

fn unknown(id: &ConfigId) -> Problem {
    Problem::new(Code::ConfigNotFound).detail(format!("there is no config {id} in this workspace"))
}

/// # Errors
/// `config_not_found`.
pub(super) async fn find(app: &App, workspace: &Workspace, id: &ConfigId) -> Result<Config, Problem> {
    app.store.config(&workspace.id, id).await?.ok_or_else(|| unknown(id))
}

/// A config.
#[utoipa::path(
    get, path = "/configs/{config_id}", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses((status = 200, description = "The config", body = ConfigRecord))
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
) -> Result<Json<ConfigRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let config = find(&app, &workspace, &id).await?;
    show(&app, config, &workspace).await
}

async fn show(app: &App, config: Config, workspace: &Workspace) -> Result<Json<ConfigRecord>, Problem> {
    let latest = app.store.newest_version(&config.id).await?;
    Ok(Json(record(config, latest, workspace)))
}

/// The refusal where something archived would have to do something.
pub(super) fn archived() -> Problem {
    Problem::new(Code::ConfigArchived).detail("the config or the version is archived; restore it first")
}

/// Why a config or a version is not changed; `gone` is said when there is none.
pub(super) fn blocked(why: Blocked, gone: Problem) -> Problem {
    match why {
        Blocked::Gone => gone,
        Blocked::Archived => archived(),
        Blocked::Active(version) => Problem::new(Code::VersionActive)
            .detail(format!(
                "{version} is the active version of the workspace; activate another version, or deactivate this one, and then \
                 archive"
            ))
            .with("config_version_id", json!(version)),
        Blocked::Full(max) => Problem::new(Code::TooManyDrafts)
            .detail(format!("the workspace has {max} drafts, and the limit is {max} (ADE_MAX_DRAFTS); delete some"))
            .with("max_drafts", max),
        Blocked::Changed(revision) => Problem::new(Code::DraftChanged)
            .detail(format!("the draft is at revision {revision} now; look at it again"))
            .with("revision", revision),
    }
}

/// Archives a config.
///
/// It keeps its slug, its versions and its drafts, and takes no jobs any more; jobs that wait or run go on. What is archived
/// already stays as it is.
#[utoipa::path(
    delete, path = "/configs/{config_id}", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses(
        (status = 200, description = "It is archived", body = ConfigRecord),
        (status = 409, description = "A version of it is the active one", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn archive(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
) -> Result<Json<ConfigRecord>, Problem> {
    set_archived(&app, &caller, &workspace, &id, true).await
}

/// Restores an archived config.
#[utoipa::path(
    post, path = "/configs/{config_id}/restore", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses((status = 200, description = "It is not archived", body = ConfigRecord))
)]
async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
) -> Result<Json<ConfigRecord>, Problem> {
    set_archived(&app, &caller, &workspace, &id, false).await
}

async fn set_archived(
    app: &App,
    caller: &Caller,
    workspace: &str,
    id: &ConfigId,
    archive: bool,
) -> Result<Json<ConfigRecord>, Problem> {
    let workspace = app.enter(caller, workspace, Role::Owner).await?;
    let changed = app.store.archive_config(&workspace.id, id, archive, &caller.actor()).await?;
    let config = changed.map_err(|why| blocked(why, unknown(id)))?;
    tracing::info!(config = %config.id, by = caller.key.prefix, archived = archive, "config archived or restored");
    show(app, config, &workspace).await
}

/// A bound on running jobs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigConcurrency {
    /// Jobs of the config that may run at once; null is no bound.
    #[schema(minimum = 1, maximum = 10_000)]
    pub max_running: Option<i64>,
}

/// Bounds how many jobs of a config run at once. For admins.
#[utoipa::path(
    put, path = "/configs/{config_id}/concurrency", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    request_body = ConfigConcurrency,
    responses((status = 200, description = "The config", body = ConfigRecord))
)]
async fn set_concurrency(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Body(change): Body<ConfigConcurrency>,
) -> Result<Json<ConfigRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Admin).await?;
    if change.max_running.is_some_and(|max| !(1..=10_000).contains(&max)) {
        let text = "must be from 1 to 10000, or null";
        return Err(Problem::new(Code::InvalidBody)
            .detail(format!("/max_running: {text}"))
            .field("/max_running", text));
    }
    find(&app, &workspace, &id).await?;
    let config = app.store.bound_config(&workspace.id, &id, change.max_running, &caller.actor()).await?;
    let config = config.ok_or(Code::ConfigNotFound)?;
    app.signals.work();
    show(&app, config, &workspace).await
}
