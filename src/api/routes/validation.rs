//! What there is to say about a package before it is published: one that is sent, or a draft.

use super::draft_files::assemble;
use super::drafts::find_draft;
use super::package_form::{Form, PackageForm, apart, open};
use crate::api::Path;
use crate::api::app::{App, Caller, storage_ready};
use crate::api::problem::{Code, Problem};
use crate::ids::{ConfigId, DraftId};
use crate::job::{self, Validation};
use crate::packages::Package;
use crate::sandbox::Failure;
use crate::store::Role;
use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(package)).routes(routes!(draft))
}

/// What there is to say about a package.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ValidationRecord {
    /// Whether it can be published: there is no error.
    pub valid: bool,
    /// How many errors there are, listed or not.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// How many infos.
    pub infos: usize,
    /// What there is to say, errors first: `level`, `code`, `path`, `pointer`, `line`, `message`, `hint`.
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Value>,
    /// Hash of its canonical zip; none of what is no package.
    pub package_sha256: Option<String>,
    /// The revision of the draft that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

async fn validate(
    app: &App,
    opened: Result<Package, Failure>,
    revision: Option<i64>,
) -> Result<Json<ValidationRecord>, Problem> {
    let validation = match opened {
        Err(failure) => Validation::of_no_package(&failure),
        Ok(package) => job::validate(Arc::new(package), &app.options.caps).await.map_err(|failure| {
            tracing::error!(%failure, "a package cannot be validated");
            Problem::new(Code::Internal)
        })?,
    };
    let Validation { diagnostics, counts, package_sha256 } = validation;
    Ok(Json(ValidationRecord {
        valid: counts.errors == 0,
        errors: counts.errors,
        warnings: counts.warnings,
        infos: counts.infos,
        diagnostics,
        package_sha256,
        revision,
    }))
}

/// Says what is wrong with a package, without keeping it. The answer is 200 whatever is wrong with it.
#[utoipa::path(
    post, path = "/configs/validate", tag = "configs", operation_id = "validate",
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    request_body(content = PackageForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "What there is to say", body = ValidationRecord))
)]
async fn package(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    request: Request,
) -> Result<Json<ValidationRecord>, Problem> {
    app.enter(&caller, &workspace, Role::Editor).await?;
    let form = Form::read(request, &[]).await?;
    let opened = open(form.package).await?;
    validate(&app, opened, None).await
}

/// Says what is wrong with a draft. The answer is 200 whatever is wrong with it.
#[utoipa::path(
    post, path = "/configs/{config_id}/drafts/{draft_id}/validate", tag = "drafts", operation_id = "validate",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses((status = 200, description = "What there is to say", body = ValidationRecord))
)]
async fn draft(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<Json<ValidationRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (_, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    storage_ready(&app)?;
    let files = app.store.draft_files(&draft.id).await?;
    let files = assemble(&app, files).await?;
    let opened = apart(move || files.into_package()).await?.map_err(|error| job::no_package(&error));
    validate(&app, opened, Some(draft.revision)).await
}
