//! The versions of a config: publishing, looking at them, archiving, exporting, and their history.

use super::configs::{blocked, find};
use super::download;
use super::package_form::{Form, PackageForm, Purpose, no_package, open, ready};
use crate::api::app::{App, Caller, storage_ready};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Path, Query};
use crate::blob::Key;
use crate::events::at;
use crate::ids::{AuditId, ConfigId, KeyId, VersionId};
use crate::store::{AuditEntry, Config, Published, Role, Version, Workspace};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(publish, list))
        .routes(routes!(get))
        .routes(routes!(archive))
        .routes(routes!(restore))
        .routes(routes!(export))
        .routes(routes!(history))
}

/// A version of a config; only whether it is active or archived changes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionRecord {
    /// Its id.
    pub config_version_id: VersionId,
    /// Its config.
    pub config_id: ConfigId,
    /// `v1`, `v2` and so on.
    pub version: String,
    /// `info.version` of its manifest.
    pub manifest_version: String,
    /// Hash of its package's canonical zip.
    pub package_sha256: String,
    /// Hash of its canonical manifest.
    pub manifest_sha256: String,
    /// Size of its package's canonical zip.
    pub package_bytes: u64,
    /// Whether it is the one that runs when a submission names none.
    pub active: bool,
    /// Since when it is, RFC 3339.
    pub active_since: Option<String>,
    /// The key that published it.
    pub created_by: Option<KeyId>,
    /// What that key is for.
    pub author: Option<String>,
    /// When it was published, RFC 3339.
    pub created_at: String,
    /// When it was archived, RFC 3339. It takes no jobs then.
    pub archived_at: Option<String>,
}

impl VersionRecord {
    pub(super) fn of(version: Version, workspace: &Workspace) -> Self {
        let active = workspace.active_version_id.as_ref() == Some(&version.id);
        Self {
            active,
            active_since: workspace.active_since.filter(|_| active).map(at),
            config_version_id: version.id,
            config_id: version.config_id,
            version: format!("v{}", version.number),
            manifest_version: version.manifest_version,
            package_sha256: version.package_sha256,
            manifest_sha256: version.manifest_sha256,
            package_bytes: u64::try_from(version.package_bytes).unwrap_or_default(),
            created_by: version.created_by,
            author: version.author,
            created_at: at(version.created_at),
            archived_at: version.archived_at.map(at),
        }
    }
}

/// The refusal for a version that a config does not have.
pub(super) fn unknown(version: &VersionId) -> Problem {
    Problem::new(Code::VersionNotFound).detail(format!("there is no version {version} of this config"))
}

/// A config of a workspace and a version of that config.
///
/// # Errors
/// `config_not_found`, `version_not_found`.
pub(super) async fn find_version(
    app: &App,
    workspace: &Workspace,
    config: &ConfigId,
    version: &VersionId,
) -> Result<(Config, Version), Problem> {
    let config = find(app, workspace, config).await?;
    let found = app.store.version(&workspace.id, version).await?.filter(|found| found.config_id == config.id);
    found.map(|found| (config, found)).ok_or_else(|| unknown(version))
}

/// The answer to a publication: 201 for a new version, 200 for one that has this very package.
pub(super) fn published(published: Published, workspace: &Workspace) -> Response {
    let (status, version) = match published {
        Published::New(version) => {
            tracing::info!(version = %version.id, config = %version.config_id, number = version.number, "version published");
            (StatusCode::CREATED, version)
        }
        Published::Unchanged(version) => (StatusCode::OK, version),
    };
    let location = format!("/api/v1/workspaces/{}/configs/{}/versions/{}", workspace.id, version.config_id, version.id);
    (status, [(LOCATION, location)], Json(VersionRecord::of(version, workspace))).into_response()
}

/// Publishes a package as the next version of a config.
///
/// A version never changes. It runs when a submission names it or, as the newest of its config, names the config; activate it to
/// have it run when a submission names nothing. When the newest version that is not archived has this very package, no twin of
/// it is made, and the answer is that version with 200.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    request_body(content = PackageForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Published", body = VersionRecord, headers(("Location" = String))),
        (status = 200, description = "The newest version has this very package", body = VersionRecord, headers(("Location" = String))),
        (status = 409, description = "The config is archived", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn publish(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    request: Request,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let config = find(&app, &workspace, &id).await?;
    storage_ready(&app)?;
    let form = Form::read(&app, request, &[]).await?;
    let opened =
        open(&app, &workspace.id, form.package, Purpose::Store).await?.map_err(|failure| no_package(&failure))?;
    let ready = ready(&app, &workspace.id, opened).await?;
    let answer = app.store.publish_version(&workspace.id, &config.id, &ready.version, &caller.actor()).await?;
    let gone = || Problem::new(Code::ConfigNotFound);
    Ok(published(answer.map_err(|why| blocked(why, gone()))?, &workspace))
}

/// The versions of a config, newest first, also those that are archived.
#[utoipa::path(
    get, path = "/configs/{config_id}/versions", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        PageQuery,
    ),
    responses((status = 200, description = "A page", body = Page<VersionRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<VersionRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    find(&app, &workspace, &id).await?;
    let limit = query.read()?.0;
    let before = query.cursor.as_deref().map(crate::api::Cursor::decode).transpose()?.map(|cursor| cursor.millis);
    let rows = app.store.versions(&id, before, limit + 1).await?;
    // Versions are counted, so that the count is the place.
    Ok(Json(page(rows, limit, |row| (row.number, row.id.to_string()), |row| VersionRecord::of(row, &workspace))))
}

/// A version.
#[utoipa::path(
    get, path = "/configs/{config_id}/versions/{version_id}", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses((status = 200, description = "The version", body = VersionRecord))
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, version)): Path<(String, ConfigId, VersionId)>,
) -> Result<Json<VersionRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (_, version) = find_version(&app, &workspace, &config, &version).await?;
    Ok(Json(VersionRecord::of(version, &workspace)))
}

/// Archives a version: it takes no jobs any more; jobs that wait or run go on.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions/{version_id}/archive", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "It is archived", body = VersionRecord),
        (status = 409, description = "It is the active one", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn archive(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<(String, ConfigId, VersionId)>,
) -> Result<Json<VersionRecord>, Problem> {
    set_archived(&app, &caller, path, true).await
}

/// Restores an archived version.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions/{version_id}/restore", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses((status = 200, description = "It is not archived", body = VersionRecord))
)]
async fn restore(
    State(app): State<App>,
    caller: Caller,
    Path(path): Path<(String, ConfigId, VersionId)>,
) -> Result<Json<VersionRecord>, Problem> {
    set_archived(&app, &caller, path, false).await
}

async fn set_archived(
    app: &App,
    caller: &Caller,
    (workspace, config, version): (String, ConfigId, VersionId),
    archive: bool,
) -> Result<Json<VersionRecord>, Problem> {
    let workspace = app.enter(caller, &workspace, Role::Owner).await?;
    let config = find(app, &workspace, &config).await?;
    let changed = app.store.archive_version(&workspace.id, &config.id, &version, archive, &caller.actor()).await?;
    let changed = changed.map_err(|why| blocked(why, unknown(&version)))?;
    tracing::info!(version = %changed.id, by = caller.key.prefix, archived = archive, "version archived or restored");
    Ok(Json(VersionRecord::of(changed, &workspace)))
}

/// The package of a version, as its canonical zip; ranges are honoured.
///
/// Registered or published again, anywhere, it has the same `package_sha256`.
#[utoipa::path(
    get, path = "/configs/{config_id}/versions/{version_id}/export", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The zip", content_type = "application/zip"),
        (status = 206, description = "A part of it", content_type = "application/zip"),
        (status = 304, description = "It is what If-None-Match names"),
        (status = 416, description = "The range is outside of the file", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn export(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, version)): Path<(String, ConfigId, VersionId)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (config, version) = find_version(&app, &workspace, &config, &version).await?;
    let digest = version.package_sha256.parse().map_err(|_| Problem::new(Code::Internal))?;
    let name = format!("{}-v{}.zip", config.slug, version.number);
    let key = Key::package(&workspace.id, &digest);
    download::respond(&app, &key, &version.package_sha256, "application/zip", Some(&name), &headers).await
}

/// Something that was done to a config or one of its versions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HistoryRecord {
    /// Its entry in the audit.
    pub audit_id: AuditId,
    /// When, RFC 3339.
    pub created_at: String,
    /// What: `config.create`, `version.publish`, `config.activate` and so on, as in the audit.
    pub action: String,
    /// The version that it was done to, if it was.
    pub config_version_id: Option<VersionId>,
    /// The version that was active before, of an activation.
    pub previous_version_id: Option<VersionId>,
    /// With which key.
    pub key_id: KeyId,
    /// What that key was for, then.
    pub key_name: String,
}

impl From<AuditEntry> for HistoryRecord {
    fn from(entry: AuditEntry) -> Self {
        let id = |value: &serde_json::Value| value.as_str().and_then(|id| id.parse().ok());
        let detail = &entry.detail;
        let (before, after) = (&detail["before"], &detail["after"]);
        let previous = id(&before["active_version_id"]);
        let version = [&detail["config_version_id"], &after["config_version_id"], &after["active_version_id"]];
        Self {
            // What was taken back was active before.
            config_version_id: version.into_iter().find_map(id).or_else(|| previous.clone()),
            previous_version_id: previous.filter(|_| !after["active_version_id"].is_null()),
            audit_id: entry.id,
            created_at: at(entry.at),
            action: entry.action,
            key_id: entry.actor_id,
            key_name: entry.actor_name,
        }
    }
}

/// What was done to a config and its versions, newest first: who published, activated, archived and restored what, and when.
#[utoipa::path(
    get, path = "/configs/{config_id}/history", tag = "versions",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        PageQuery,
    ),
    responses((status = 200, description = "A page", body = Page<HistoryRecord>))
)]
async fn history(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<HistoryRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let config = find(&app, &workspace, &id).await?;
    let (limit, before) = query.read()?;
    let rows = app.store.history(&config.id, before.as_deref(), limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.at, row.id.to_string()), HistoryRecord::from)))
}
