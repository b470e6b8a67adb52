//! Making a version the active one of its workspace, and taking it back.

use super::configs::archived;
use super::versions::{VersionRecord, find_version, unknown};
use crate::api::Path;
use crate::api::app::{App, Caller, storage_ready};
use crate::api::problem::{Code, Problem, ProblemBody};
use crate::events::at;
use crate::ids::{ConfigId, VersionId};
use crate::job::{Activation, HookOutput, HookRun};
use crate::sandbox::FailureKind;
use crate::scheduler::{Activated, NotActivated, Wish};
use crate::store::{Moved, Role};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(activate)).routes(routes!(deactivate))
}

/// A version that has become the active one of its workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ActivationRecord {
    /// The version.
    pub config_version_id: VersionId,
    /// Its config.
    pub config_id: ConfigId,
    /// `v1`, `v2` and so on.
    pub version: String,
    /// The version that was active before.
    pub previous_version_id: Option<VersionId>,
    /// When the version became active, RFC 3339.
    pub activated_at: String,
    /// How long the activation took, without waiting for others.
    pub duration_ms: u64,
    /// Its dependencies, as in an artifact.
    #[schema(value_type = Object)]
    pub dependencies: Value,
    /// Warnings of the static check and of the hooks.
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Value>,
    /// The hooks that ran, in order.
    pub hooks: Vec<HookRun>,
    /// What the scripts printed.
    pub hook_output: HookOutput,
}

/// Makes a version the one that runs when a submission names none.
///
/// Checks the package, makes its dependencies ready, and runs its `on_activate` hooks in a container; only when all of that went
/// well does the version become the active one. When anything fails, nothing changes, and the answer is `activation_failed` with
/// `error`, `diagnostics`, `hook_output` and `install_log`. The answer comes when all is done; a client that goes away cancels the
/// activation. Activations of a workspace run one after the other. Jobs keep the version that they were submitted with.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions/{version_id}/activate", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "It is the active version", body = ActivationRecord),
        (status = 400, description = "The package did not pass; nothing was changed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "The config or version is archived, or another version became active meanwhile", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "So many activations of the workspace wait already", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn activate(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, version)): Path<(String, ConfigId, VersionId)>,
) -> Result<Json<ActivationRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    let (config, found) = find_version(&app, &workspace, &config, &version).await?;
    if config.archived_at.is_some() || found.archived_at.is_some() {
        return Err(archived());
    }
    app.admits()?;
    if app.store.instance().await?.safe_mode {
        return Err(Problem::new(Code::SafeMode).detail("an admin has turned safe mode on: no scripts are run"));
    }
    storage_ready(&app)?;
    let wish = Wish { version: found.clone(), by: caller.actor() };
    let activated = app.scheduler.activate(wish).await;
    let Activated { previous, at: since, took, activation } = activated.map_err(|why| refusal(why, &version))?;
    app.workspace_changed(&workspace);
    Ok(Json(ActivationRecord {
        config_version_id: found.id,
        config_id: found.config_id,
        version: format!("v{}", found.number),
        previous_version_id: previous,
        activated_at: at(since),
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        dependencies: activation.dependencies,
        diagnostics: activation.diagnostics,
        hooks: activation.hooks,
        hook_output: activation.output,
    }))
}

/// Takes the active version back: submissions that name no config are then refused with `no_active_config`.
#[utoipa::path(
    post, path = "/configs/{config_id}/versions/{version_id}/deactivate", tag = "configs",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
        ("version_id" = VersionId, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "The workspace has no active version", body = VersionRecord),
        (status = 409, description = "It is not the active version", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn deactivate(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, config, version)): Path<(String, ConfigId, VersionId)>,
) -> Result<Json<VersionRecord>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Owner).await?;
    let (_, found) = find_version(&app, &workspace, &config, &version).await?;
    if !app.store.deactivate_version(&found, &caller.actor()).await? {
        return Err(Problem::new(Code::VersionNotActive)
            .detail(format!("{version} is not the active version of this workspace; nothing was changed")));
    }
    tracing::info!(version = %found.id, by = caller.key.prefix, "version deactivated");
    app.workspace_changed(&workspace);
    let fresh = app.store.workspace(&workspace.id).await?.ok_or(Code::WorkspaceNotFound)?;
    Ok(Json(VersionRecord::of(found, &fresh)))
}

fn refusal(why: NotActivated, version: &VersionId) -> Problem {
    match why {
        NotActivated::Failed(activation) => failed(*activation),
        NotActivated::Busy(waiting) => Problem::new(Code::ActivationsBusy)
            .detail(format!(
                "{waiting} activations of this workspace run or wait already; try again when they are done"
            ))
            .retry_after(10),
        NotActivated::NoEngine(reason) => Problem::new(Code::EngineUnavailable).detail(reason).retry_after(5),
        NotActivated::Draining => {
            Problem::new(Code::Draining).detail("this process is about to stop; nothing was changed").retry_after(5)
        }
        NotActivated::Machine(failure) if failure.kind == FailureKind::HostIo => {
            tracing::error!(%failure, "an activation was cut off by the machine");
            Problem::new(Code::StorageUnavailable).detail("try again later; the server's log has more").retry_after(5)
        }
        NotActivated::Machine(failure) => {
            tracing::warn!(%failure, "an activation was cut off by the machine");
            Problem::new(Code::EngineUnavailable).detail(failure.message).retry_after(5)
        }
        NotActivated::Refused(Moved::Archived) => archived(),
        NotActivated::Refused(Moved::Overtaken(now)) => Problem::new(Code::Conflict)
            .detail(match &now {
                Some(now) => {
                    format!("{now} became the active version while this one was being activated; nothing was changed")
                }
                None => "the active version was taken back while this one was being activated; nothing was changed"
                    .to_owned(),
            })
            .with("active_version_id", json!(now)),
        NotActivated::Refused(Moved::Gone | Moved::Active(_)) => unknown(version),
        NotActivated::Store(error) => error.into(),
        NotActivated::Broken => Code::Internal.into(),
    }
}

fn failed(activation: Activation) -> Problem {
    let message = activation.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
    Problem::new(Code::ActivationFailed)
        .detail(format!("{message}; nothing was changed"))
        .with("error", json!(activation.failure))
        .with("diagnostics", activation.diagnostics)
        .with("dependencies", activation.dependencies)
        .with("hooks", json!(activation.hooks))
        .with("hook_output", json!(activation.output))
        .with("install_log", activation.install_log)
}
