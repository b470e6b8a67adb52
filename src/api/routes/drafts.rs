//! Drafts of a config: made from a version or empty, looked at, published, downloaded and deleted.

use super::configs::{MAX_TITLE, blocked, find};
use super::draft_files::{Assembled, assemble};
use super::package_form::{Purpose, apart, from_file, no_package, ready};
use super::versions::{VersionRecord, find_version, published};
use crate::api::app::{App, Caller, storage_ready};
use crate::api::headers::ETag;
use crate::api::page::{Page, PageQuery, page};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::api::{Body, Path, Query, extract, names};
use crate::events::at;
use crate::ids::{ConfigId, DraftId, KeyId, VersionId, WorkspaceId};
use crate::packages::Package;
use crate::store::{Blocked, Config, Draft, NewDraft, Role, Version, Workspace};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(clone))
        .routes(routes!(get, delete))
        .routes(routes!(publish))
        .routes(routes!(download))
}

/// A draft: files that can be changed, and become a version when they are published.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DraftRecord {
    /// Its id.
    pub draft_id: DraftId,
    /// Its config.
    pub config_id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its name for people.
    pub title: String,
    /// The version that it was made from or last published as; none of one that began empty.
    pub base_version_id: Option<VersionId>,
    /// From 1; goes up with every change of a file.
    pub revision: i64,
    /// How many files it has.
    pub files: u64,
    /// Their size together.
    pub bytes: u64,
    /// The key that made it.
    pub created_by: Option<KeyId>,
    /// What that key is for.
    pub author: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When a file was last changed, RFC 3339.
    pub updated_at: String,
}

impl From<Draft> for DraftRecord {
    fn from(draft: Draft) -> Self {
        Self {
            draft_id: draft.id,
            config_id: draft.config_id,
            workspace_id: draft.workspace_id,
            title: draft.title,
            base_version_id: draft.base_version_id,
            revision: draft.revision,
            files: u64::try_from(draft.files).unwrap_or_default(),
            bytes: u64::try_from(draft.bytes).unwrap_or_default(),
            created_by: draft.created_by,
            author: draft.author,
            created_at: at(draft.created_at),
            updated_at: at(draft.updated_at),
        }
    }
}

/// A new draft.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDraft {
    /// The version whose files it begins with, of any config of the workspace; the config's newest that is not archived when it
    /// is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_version_id: Option<VersionId>,
    /// Whether it begins without files.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub title: Option<String>,
}

/// The draft's tag, after its revision.
pub(super) fn etag(draft: &Draft) -> ETag {
    ETag::strong(&draft.revision.to_string())
}

pub(super) fn unknown(draft: &DraftId) -> Problem {
    Problem::new(Code::DraftNotFound).detail(format!("there is no draft {draft} of this config"))
}

/// A config of a workspace and a draft of that config.
///
/// # Errors
/// `config_not_found`, `draft_not_found`.
pub(super) async fn find_draft(
    app: &App,
    workspace: &Workspace,
    config: &ConfigId,
    draft: &DraftId,
) -> Result<(Config, Draft), Problem> {
    let config = find(app, workspace, config).await?;
    let found = app.store.draft(&workspace.id, &config.id, draft).await?;
    found.map(|found| (config, found)).ok_or_else(|| unknown(draft))
}

/// Makes a draft, from a version or empty.
#[utoipa::path(
    post, path = "/configs/{config_id}/drafts", tag = "drafts", request_body = CreateDraft,
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses(
        (status = 201, description = "Made", body = DraftRecord, headers(("Location" = String), ("ETag" = String))),
        (status = 409, description = "The config is archived, or the workspace has as many drafts as it may", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Body(request): Body<CreateDraft>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let config = find(&app, &workspace, &id).await?;
    if let Some(title) = &request.title {
        extract::within_characters("/title", title, MAX_TITLE)?;
    }
    let base = match (&request.config_version_id, request.empty) {
        (Some(_), true) => {
            let text = "give config_version_id or empty, not both";
            return Err(Problem::new(Code::InvalidBody).detail(format!("/empty: {text}")).field("/empty", text));
        }
        (None, true) => None,
        (Some(version), false) => {
            let found = app.store.version(&workspace.id, version).await?;
            let text = format!("there is no config version {version} in this workspace");
            let unknown = || Problem::new(Code::VersionNotFound).detail(text.clone()).field("/config_version_id", text);
            Some(found.ok_or_else(unknown)?)
        }
        (None, false) => {
            let none = || {
                Problem::new(Code::VersionNotFound).detail(format!(
                    "every version of {id} is archived; name one in config_version_id, or make an empty draft with empty"
                ))
            };
            Some(app.store.newest_version(&config.id).await?.ok_or_else(none)?)
        }
    };
    make(&app, &caller, &workspace, config, base, request.title).await
}

/// Makes a draft from a version, in the version's own config.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions/{version_id}/clone", tag = "drafts",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses(
        (status = 201, description = "Made", body = DraftRecord, headers(("Location" = String), ("ETag" = String))),
        (status = 409, description = "The config is archived, or the workspace has as many drafts as it may", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn clone(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, version)): Path<(String, ConfigId, VersionId)>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (config, version) = find_version(&app, &workspace, &config, &version).await?;
    make(&app, &caller, &workspace, config, Some(version), None).await
}

async fn make(
    app: &App,
    caller: &Caller,
    workspace: &Workspace,
    config: Config,
    base: Option<Version>,
    title: Option<String>,
) -> Result<Response, Problem> {
    let files = match &base {
        None => Vec::new(),
        Some(version) => {
            let (package, turn) = super::draft_files::package(app, &workspace.id, &version.package_sha256).await?;
            let files = apart(move || listing(&package)).await?;
            drop(turn);
            files
        }
    };
    let from = base.as_ref().map_or_else(|| "empty".to_owned(), |version| format!("from v{}", version.number));
    let new = NewDraft {
        config_id: config.id.clone(),
        workspace_id: workspace.id.clone(),
        title: title.unwrap_or_else(|| format!("{} {from}", config.slug)),
        base,
        files,
    };
    let made = app.store.create_draft(&new, app.options.max_drafts, &caller.actor()).await?;
    let gone = || Problem::new(Code::ConfigNotFound);
    let draft = made.map_err(|why| blocked(why, gone()))?;
    tracing::info!(draft = %draft.id, config = %draft.config_id, files = draft.files, "draft made");
    let location = format!("/api/v1/workspaces/{}/configs/{}/drafts/{}", draft.workspace_id, draft.config_id, draft.id);
    let headers = [(LOCATION, HeaderValue::from_str(&location).ok()), (ETAG, Some(etag(&draft).header()))];
    let headers: HeaderMap = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Ok((StatusCode::CREATED, headers, Json(DraftRecord::from(draft))).into_response())
}

/// Path, size and hash of every file.
fn listing(package: &Package) -> Vec<(String, i64, String)> {
    let entry = |(path, content): (&str, &[u8])| {
        let sha256 = crate::blob::Digest::of_bytes(content).to_string();
        (path.to_owned(), i64::try_from(content.len()).unwrap_or(i64::MAX), sha256)
    };
    package.files().map(entry).collect()
}

/// The drafts of a config, newest first.
#[utoipa::path(
    get, path = "/configs/{config_id}/drafts", tag = "drafts",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        PageQuery,
    ),
    responses((status = 200, description = "A page", body = Page<DraftRecord>))
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DraftRecord>>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let config = find(&app, &workspace, &id).await?;
    let (limit, before) = query.read()?;
    let rows = app.store.drafts(&config.id, before.as_deref(), limit + 1).await?;
    Ok(Json(page(rows, limit, |row| (row.created_at, row.id.to_string()), DraftRecord::from)))
}

/// A draft.
#[utoipa::path(
    get, path = "/configs/{config_id}/drafts/{draft_id}", tag = "drafts",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses((status = 200, description = "The draft", body = DraftRecord, headers(("ETag" = String))))
)]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    Ok(([(ETAG, etag(&draft).header())], Json(DraftRecord::from(draft))).into_response())
}

/// Deletes a draft and its files. Versions that were published of it stay.
#[utoipa::path(
    delete, path = "/configs/{config_id}/drafts/{draft_id}", tag = "drafts",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses((status = 204, description = "Deleted"))
)]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<StatusCode, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let config = find(&app, &workspace, &config).await?;
    if app.store.delete_draft(&workspace.id, &config.id, &draft, &caller.actor()).await? {
        tracing::info!(%draft, config = %config.id, "draft deleted");
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(unknown(&draft))
}

/// Which state of a draft to publish.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishDraft {
    /// The revision that was looked at; any when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<i64>,
}

/// Publishes a draft as the next version of its config.
///
/// What is published is the draft at `expected_revision`, or as `If-Match` has it. The draft stays, based on the new version. As
/// everywhere, no twin of the newest version is made: the answer is then that version with 200.
#[utoipa::path(
    post, path = "/configs/{config_id}/drafts/{draft_id}/publish", tag = "drafts", request_body = PublishDraft,
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
        ("If-Match" = Option<String>, Header, description = "The draft's tag, which is its revision in quotes"),
    ),
    responses(
        (status = 201, description = "Published", body = VersionRecord, headers(("Location" = String))),
        (status = 200, description = "The newest version has this very package", body = VersionRecord, headers(("Location" = String))),
        (status = 409, description = "The draft is at another revision, or the config is archived", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "If-Match names another revision", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn publish(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
    headers: HeaderMap,
    Body(request): Body<PublishDraft>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (config, found) = find_draft(&app, &workspace, &config, &draft).await?;
    storage_ready(&app)?;
    let gone = || unknown(&draft);
    if config.archived_at.is_some() {
        return Err(blocked(Blocked::Archived, gone()));
    }
    if !etag(&found).allowed_by_if_match(&headers) {
        return Err(Problem::new(Code::PreconditionFailed)
            .detail(format!("the draft is at revision {} now; look at it again", found.revision))
            .with("revision", found.revision));
    }
    if request.expected_revision.is_some_and(|expected| expected != found.revision) {
        return Err(blocked(Blocked::Changed(found.revision), gone()));
    }
    let files = app.store.draft_files(&found.id).await?;
    let opened = assemble(&app, &workspace.id, files, Purpose::Store).await?.into_package().await?;
    let opened = opened.map_err(|failure| no_package(&failure))?;
    let ready = ready(&app, &workspace.id, opened).await?;
    let answer = app.store.publish_draft(&found, &ready.version, &caller.actor()).await?;
    Ok(published(answer.map_err(|why| blocked(why, gone()))?, &workspace))
}

/// The files of a draft as a zip, whether or not they are a valid package.
#[utoipa::path(
    get, path = "/configs/{config_id}/drafts/{draft_id}/download", tag = "drafts",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses(
        (status = 200, description = "The zip", content_type = "application/zip", headers(("ETag" = String))),
        (status = 409, description = "The draft was changed in this moment", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn download(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<Response, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let (config, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    let files = app.store.draft_files(&draft.id).await?;
    let Assembled { files, held } = assemble(&app, &workspace.id, files, Purpose::Look).await?;
    let (length, zip) = from_file(&app, move |file| files.write_canonical_zip(file)).await?;
    drop(held);
    let headers = [
        (CONTENT_LENGTH, length),
        (CONTENT_TYPE, HeaderValue::from_static("application/zip")),
        (CONTENT_DISPOSITION, names::attachment(&format!("{}-draft.zip", config.slug))),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (ETAG, etag(&draft).header()),
    ];
    Ok((headers, zip).into_response())
}
