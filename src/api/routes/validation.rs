//! What there is to say about a package before it is published: one that is sent, or a draft.

use super::draft_files::assemble;
use super::drafts::find_draft;
use super::network::layers;
use super::package_form::{Form, Opened, PackageForm, Purpose, open};
use crate::api::Path;
use crate::api::app::{App, Caller, storage_ready};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::ids::{ConfigId, DraftId};
use crate::job::{self, Validation};
use crate::network::Stored;
use crate::packages::{self, Diagnostic};
use crate::sandbox::{Failure, FailureKind};
use crate::scheduler::{Candidate, NotTried};
use crate::store::{Role, Workspace};
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
    /// Whether the scripts were imported and called with made-up values, in a container; when not, a diagnostic says why.
    pub dry_run: bool,
    /// What there is to say, errors first: `level`, `code`, `path`, `pointer`, `line`, `message`, `hint`.
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Value>,
    /// Hash of its canonical zip; none of what is no package.
    pub package_sha256: Option<String>,
    /// The revision of the draft that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
}

/// Looks at a package, and tries its scripts out when nothing is wrong with it so far.
async fn validate(
    app: &App,
    workspace: &Workspace,
    opened: Result<Opened, Failure>,
    network: Stored,
    revision: Option<i64>,
) -> Result<Json<ValidationRecord>, Problem> {
    let mut dry_run = false;
    let validation = match opened {
        Err(failure) => Validation::of_no_package(&failure),
        Ok(Opened { package, held: _held }) => {
            let package = Arc::new(package);
            let looked = job::validate(Arc::clone(&package), &app.options.caps).await;
            let mut validation = looked.map_err(|failure| {
                tracing::error!(%failure, "a package cannot be validated");
                Problem::new(Code::Internal)
            })?;
            if validation.counts.errors == 0 {
                match try_out(app, Candidate { workspace_id: workspace.id.clone(), package, network }).await? {
                    Ok(found) => {
                        dry_run = !found.iter().any(|one| one.code == packages::Code::DryRunSkipped);
                        validation.add(&found);
                    }
                    Err(why) => {
                        validation.add(&[job::not_tried(&why, "What was checked holds; validate it again later.")])
                    }
                }
            }
            validation
        }
    };
    let Validation { diagnostics, counts, package_sha256 } = validation;
    Ok(Json(ValidationRecord {
        valid: counts.errors == 0,
        errors: counts.errors,
        warnings: counts.warnings,
        infos: counts.infos,
        dry_run,
        diagnostics,
        package_sha256,
        revision,
    }))
}

/// What trying out the scripts has found, or why they were not tried: what is known without it is worth an answer.
async fn try_out(app: &App, candidate: Candidate) -> Result<Result<Vec<Diagnostic>, String>, Problem> {
    if app.options.safe_mode || app.store.instance().await?.safe_mode {
        return Ok(Err("safe mode is on, and no script is run".to_owned()));
    }
    if app.options.queue_off {
        return Ok(Err("this node runs no scripts".to_owned()));
    }
    match app.scheduler.dry_run(candidate).await {
        Ok(found) => Ok(Ok(found)),
        Err(NotTried::NoEngine(reason)) => Ok(Err(reason)),
        Err(NotTried::Machine(failure)) => {
            tracing::warn!(%failure, "a validation was cut off by the machine");
            Ok(Err(if failure.kind == FailureKind::HostIo {
                "the disk of the node failed".to_owned()
            } else {
                failure.message
            }))
        }
        Err(NotTried::Draining) => Ok(Err("this process is about to stop".to_owned())),
        Err(NotTried::Refused(refusal)) => Ok(Err(refusal.failure.message)),
        Err(NotTried::Busy(waiting)) => Err(Problem::new(Code::ValidationsBusy)
            .detail(format!(
                "{waiting} validations of this workspace run or wait already; try again when they are done"
            ))
            .retry_after(10)),
        Err(NotTried::Broken) => Err(Code::Internal.into()),
    }
}

/// Says what is wrong with a package, without keeping it: its manifest, its scripts as text, and, when these have no error, what a
/// container says that imports and calls them. The answer is 200 whatever is wrong with it.
#[utoipa::path(
    post, path = "/configs/validate", tag = "configs", operation_id = "validate",
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    request_body(content = PackageForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What there is to say", body = ValidationRecord),
        (status = 429, description = "Too many validations of this workspace wait", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn package(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    request: Request,
) -> Result<Json<ValidationRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let form = Form::read(&app, request, &[]).await?;
    let opened = open(&app, &workspace.id, form.package, Purpose::Look).await?;
    let network = layers(&app.store.instance().await?, workspace.network);
    validate(&app, &workspace, opened, network, None).await
}

/// Says what is wrong with a draft, as for a package. The answer is 200 whatever is wrong with it.
#[utoipa::path(
    post, path = "/configs/{config_id}/drafts/{draft_id}/validate", tag = "drafts", operation_id = "validate",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("draft_id" = DraftId, Path, description = "The draft"),
    ),
    responses(
        (status = 200, description = "What there is to say", body = ValidationRecord),
        (status = 409, description = "The draft was changed in this moment", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "Too many validations of this workspace wait", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn draft(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, draft)): Path<(String, ConfigId, DraftId)>,
) -> Result<Json<ValidationRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Editor).await?;
    let (config, draft) = find_draft(&app, &workspace, &config, &draft).await?;
    storage_ready(&app)?;
    let files = app.store.draft_files(&draft.id).await?;
    let opened = assemble(&app, &workspace.id, files, Purpose::Look).await?.into_package().await?;
    let network = app.store.network_of(&config.id).await?.ok_or(Code::ConfigNotFound)?;
    validate(&app, &workspace, opened, network, Some(draft.revision)).await
}
