//! Configs: registering packages, and looking at them.

use crate::api::app::{App, Caller, storage_ready};
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Body, Path, Query, extract};
use crate::blob::{Digest, Key};
use crate::events::at;
use crate::ids::{ConfigId, VersionId, WorkspaceId};
use crate::job;
use crate::packages::{Package, PackageCaps};
use crate::store::{Config, NewVersion, Role, StoreError, Version, Workspace};
use axum::Json;
use axum::extract::multipart::Field;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Bytes of a text part of the form.
const MAX_TEXT: usize = 64 * 1024;
const MAX_TITLE: usize = 255;
const MAX_DESCRIPTION: usize = 10_000;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(versions))
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
    /// Its newest version.
    pub latest_version: Option<VersionRecord>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it was archived, RFC 3339.
    pub archived_at: Option<String>,
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
    /// When it was published, RFC 3339.
    pub created_at: String,
    /// When it was archived, RFC 3339.
    pub archived_at: Option<String>,
}

impl VersionRecord {
    fn of(version: Version, workspace: &Workspace) -> Self {
        Self {
            active: workspace.active_version_id.as_ref() == Some(&version.id),
            config_version_id: version.id,
            config_id: version.config_id,
            version: format!("v{}", version.number),
            manifest_version: version.manifest_version,
            package_sha256: version.package_sha256,
            manifest_sha256: version.manifest_sha256,
            package_bytes: u64::try_from(version.package_bytes).unwrap_or_default(),
            created_at: at(version.created_at),
            archived_at: version.archived_at.map(at),
        }
    }
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
    let content_type = request.headers().get(axum::http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/form-data")) {
        return Err(Problem::new(Code::UnsupportedMediaType)
            .detail("send a form (multipart/form-data) with the parts slug, title, description and package"));
    }
    let form = Form::read(request).await?;
    let caps = app.options.caps.clone();
    let (package, manifest) =
        tokio::task::spawn_blocking(move || inspect(&form.package, &caps)).await.map_err(|error| {
            tracing::error!(%error, "reading a package failed");
            Problem::new(Code::Internal)
        })??;
    let zip = package.1;
    let package = package.0;
    let digest = package.package_sha256().parse::<Digest>().map_err(|_| Problem::new(Code::Internal))?;
    let version = NewVersion {
        package_sha256: package.package_sha256().to_owned(),
        manifest_sha256: package.manifest_sha256().unwrap_or_default(),
        manifest_version: manifest.info.version.clone(),
        package_bytes: i64::try_from(zip.len()).unwrap_or(i64::MAX),
    };
    app.blobs.put_bytes(&Key::package(&workspace.id, &digest), zip).await?;
    let title = form.title.unwrap_or_else(|| manifest.info.title.clone());
    let description = form.description.unwrap_or_default();
    let created =
        app.store.create_config(&workspace.id, &form.slug, &title, &description, &version, Some(&caller.key.id)).await;
    let (config, version) = created.map_err(|error| match error {
        StoreError::Exists(_) => Problem::new(Code::SlugTaken)
            .detail(format!("this workspace has a config {:?} already; choose another slug", form.slug))
            .field("/slug", "is taken"),
        other => other.into(),
    })?;
    tracing::info!(config = %config.id, workspace = %workspace.id, slug = config.slug, "config registered");
    let location = format!("/api/v1/workspaces/{}/configs/{}", workspace.id, config.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(record(config, Some(version), &workspace))).into_response())
}

/// Opens and checks a package; its canonical zip.
fn inspect(
    bytes: &[u8],
    caps: &crate::sandbox::Caps,
) -> Result<((Package, Bytes), crate::packages::Manifest), Problem> {
    let io = |error: std::io::Error| {
        tracing::error!(%error, "a package cannot be put aside");
        Problem::new(Code::StorageUnavailable)
    };
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    let package = job::open_package(file.path()).map_err(|failure| {
        let code = if failure.kind == crate::sandbox::FailureKind::PackageTooLarge {
            Code::PackageTooLarge
        } else {
            Code::PackageInvalid
        };
        let message = failure.message.replace(&file.path().display().to_string(), "package");
        let detail = failure.detail.as_ref().and_then(|detail| detail.get("code")).cloned().unwrap_or(Value::Null);
        Problem::new(code).detail(message.clone()).field("/package", message).with("package_error", detail)
    })?;
    let manifest = job::manifest_of(&package, caps).map_err(|refusal| {
        Problem::new(Code::PackageInvalid)
            .detail(refusal.failure.message.clone())
            .field("/package", refusal.failure.message)
            .with("diagnostics", refusal.diagnostics)
    })?;
    let mut zip = Vec::new();
    package.write_canonical_zip(&mut zip).map_err(io)?;
    Ok(((package, zip.into()), manifest))
}

struct Form {
    slug: String,
    title: Option<String>,
    description: Option<String>,
    package: Bytes,
}

impl Form {
    async fn read(request: Request) -> Result<Self, Problem> {
        let max = usize::try_from(PackageCaps::default().zip_bytes).unwrap_or(usize::MAX);
        let missing = |name: &str| {
            Problem::new(Code::InvalidBody)
                .detail(format!("the form has no part named {name}"))
                .field(format!("/{name}"), "is required")
        };
        let mut form = extract::Form::open(request)
            .await
            .map_err(|error| Problem::new(Code::InvalidBody).detail(crate::text::plain(&error.to_string(), 300)))?;
        let (mut slug, mut title, mut description, mut package) = (None, None, None, None);
        while let Some(field) = form.next(max as u64).await.map_err(|error| broke(&error, max))? {
            let name = field.name().unwrap_or("").to_owned();
            let twice = [
                ("slug", slug.is_some()),
                ("title", title.is_some()),
                ("description", description.is_some()),
                ("package", package.is_some()),
            ];
            if twice.contains(&(name.as_str(), true)) {
                return Err(Problem::new(Code::InvalidBody)
                    .detail(format!("the form has two parts named {name}"))
                    .field(format!("/{name}"), "is there twice"));
            }
            match name.as_str() {
                "slug" => slug = Some(text(field, "slug", 100).await?),
                "title" => title = Some(text(field, "title", MAX_TITLE).await?),
                "description" => description = Some(text(field, "description", MAX_DESCRIPTION).await?),
                "package" => package = Some(bytes(field, max).await?),
                other => {
                    let other = crate::text::plain(other, 80);
                    return Err(Problem::new(Code::UnknownField)
                        .detail(format!(
                            "the form has an unknown part {other:?}; known are slug, title, description, package"
                        ))
                        .field(format!("/{other}"), "is not known"));
                }
            }
        }
        let slug = slug.ok_or_else(|| missing("slug"))?;
        super::workspaces::check_slug(&slug)?;
        Ok(Self { slug, title, description, package: package.ok_or_else(|| missing("package"))? })
    }
}

async fn text(field: Field<'_>, name: &str, max: usize) -> Result<String, Problem> {
    let pointer = format!("/{name}");
    let wrong = |text: String| {
        Problem::new(Code::InvalidBody).detail(format!("{pointer}: {text}")).field(pointer.clone(), text)
    };
    let bytes = bytes(field, MAX_TEXT).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not valid UTF-8".into()))?;
    if text.chars().count() > max {
        return Err(wrong(format!("has {} characters, the limit is {max}", text.chars().count())));
    }
    extract::storable(&pointer, text)?;
    Ok(text.to_owned())
}

async fn bytes(mut field: Field<'_>, max: usize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broke(&error, max))? {
        if bytes.len() + chunk.len() > max {
            return Err(extract::too_large(max as u64));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn broke(error: &axum::extract::multipart::MultipartError, max: usize) -> Problem {
    match extract::body_problem(error, max as u64) {
        problem if problem.code() == Code::BadRequest => Problem::new(Code::InvalidBody)
            .detail(format!("the form is badly written: {}", crate::text::plain(&error.body_text(), 300))),
        problem => problem,
    }
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
        let latest = app.store.versions(&config.id, None, 1).await?.into_iter().next();
        rows.push((config, latest));
    }
    let place = |(config, _): &(Config, Option<Version>)| (config.created_at, config.id.to_string());
    Ok(Json(page(rows, limit, place, |(config, latest)| record(config, latest, &workspace))))
}

/// # Errors
/// `config_not_found`.
pub(super) async fn find(app: &App, workspace: &Workspace, id: &ConfigId) -> Result<Config, Problem> {
    let unknown = || Problem::new(Code::ConfigNotFound).detail(format!("there is no config {id} in this workspace"));
    app.store.config(&workspace.id, id).await?.ok_or_else(unknown)
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
    let latest = app.store.versions(&id, None, 1).await?.into_iter().next();
    Ok(Json(record(config, latest, &workspace)))
}

/// The versions of a config, newest first.
#[utoipa::path(
    get, path = "/configs/{config_id}/versions", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        PageQuery,
    ),
    responses((status = 200, description = "A page", body = Page<VersionRecord>))
)]
async fn versions(
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
    let config = app.store.bound_config(&workspace.id, &id, change.max_running).await?;
    let config = config.ok_or(Code::ConfigNotFound)?;
    app.signals.work();
    let latest = app.store.versions(&id, None, 1).await?.into_iter().next();
    Ok(Json(record(config, latest, &workspace)))
}
