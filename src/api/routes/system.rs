//! The instance, for admins: how it is, and what may be changed while it runs.

use super::workspaces::{given, within};
use crate::api::Body;
use crate::api::app::{App, Caller};
use crate::api::problem::Problem;
use crate::events::at;
use crate::ids::{InstanceId, NodeId};
use crate::store::{Instance, InstanceChange, QueueState, Role};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// A node that was not heard of for longer is not listed, ms.
const FORGOTTEN_MS: i64 = 24 * 60 * 60 * 1000;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(concurrency, set_concurrency))
        .routes(routes!(safe_mode, set_safe_mode))
        .routes(routes!(queue, set_queue))
}

/// The instance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SystemStatus {
    /// Its id.
    pub instance_id: InstanceId,
    /// Version of the node that answers.
    pub version: String,
    /// The node that answers.
    pub node_id: NodeId,
    /// Whether the node that answers can work, part by part.
    pub parts: Vec<PartStatus>,
    /// The queue.
    pub queue: QueueStatus,
    /// Whether jobs are refused and none is handed out.
    pub safe_mode: bool,
    /// The nodes that were heard of in the last day.
    pub nodes: Vec<NodeStatus>,
}

/// A thing that a node cannot do without.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PartStatus {
    /// `database`, `storage`, `docker`, `image` or `process`.
    pub name: String,
    /// Whether it is there.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The queue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Whether it takes jobs and hands them out.
    pub state: QueueState,
    /// Jobs that wait.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
    /// Bound on waiting jobs.
    pub max_queued: i64,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Its id.
    pub node_id: NodeId,
    /// Its host's name.
    pub hostname: String,
    /// Its version.
    pub version: String,
    /// Start of its process, RFC 3339.
    pub started_at: String,
    /// Last sign of life, RFC 3339.
    pub last_heartbeat: String,
    /// Containers at once.
    pub max_concurrency: i64,
    /// Jobs that it has.
    pub running: i64,
    /// Whether it takes no new jobs.
    pub draining: bool,
}

fn parts(app: &App) -> Vec<PartStatus> {
    let report = app.health.report();
    report
        .into_iter()
        .map(|(part, state)| PartStatus { name: part.as_str().to_owned(), ready: state.is_ok(), reason: state.err() })
        .collect()
}

/// How the instance is. For admins.
#[utoipa::path(get, path = "/status", tag = "system", responses((status = 200, description = "The instance", body = SystemStatus)))]
async fn status(State(app): State<App>, caller: Caller) -> Result<Json<SystemStatus>, Problem> {
    caller.must_be(Role::Admin)?;
    let instance = app.store.instance().await?;
    let (queued, running) = app.store.live_counts().await?;
    let nodes = app.store.nodes(FORGOTTEN_MS).await?;
    Ok(Json(SystemStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node_id: app.scheduler.node_id().clone(),
        parts: parts(&app),
        queue: QueueStatus {
            state: instance.queue_state,
            queued,
            running,
            max_queued: instance.max_queued.unwrap_or(app.options.defaults.max_queued),
        },
        safe_mode: instance.safe_mode || app.options.safe_mode,
        nodes: nodes
            .into_iter()
            .map(|node| NodeStatus {
                node_id: node.id,
                hostname: node.hostname,
                version: node.version,
                started_at: at(node.started_at),
                last_heartbeat: at(node.heartbeat_at),
                max_concurrency: node.max_concurrency,
                running: node.running,
                draining: node.draining,
            })
            .collect(),
        instance_id: instance.id,
    }))
}

/// Containers at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct Concurrency {
    /// Containers at once on each node.
    pub max_concurrency: i64,
    /// Whether that number was stored here; else each node has its own setting, and this is that of the node that answers.
    pub stored: bool,
}

/// A change of how many containers run at once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConcurrency {
    /// Containers at once on each node; 0 starts none, null goes back to the settings.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required, minimum = 0, maximum = 10_000)]
    pub max_concurrency: Option<i64>,
}

fn show_concurrency(app: &App, instance: &Instance) -> Json<Concurrency> {
    Json(Concurrency {
        max_concurrency: instance.max_concurrency.unwrap_or(app.options.max_concurrency),
        stored: instance.max_concurrency.is_some(),
    })
}

/// How many containers run at once. For admins.
#[utoipa::path(get, path = "/concurrency", tag = "system", responses((status = 200, description = "The bound", body = Concurrency)))]
async fn concurrency(State(app): State<App>, caller: Caller) -> Result<Json<Concurrency>, Problem> {
    caller.must_be(Role::Admin)?;
    Ok(show_concurrency(&app, &app.store.instance().await?))
}

/// Changes how many containers run at once; holds over restarts. Jobs that run are not touched. For admins.
#[utoipa::path(
    put, path = "/concurrency", tag = "system", request_body = ChangeConcurrency,
    responses((status = 200, description = "The bound", body = Concurrency))
)]
async fn set_concurrency(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<ChangeConcurrency>,
) -> Result<Json<Concurrency>, Problem> {
    caller.must_be(Role::Admin)?;
    within("/max_concurrency", request.max_concurrency, 0..=10_000)?;
    let change = InstanceChange { max_concurrency: Some(request.max_concurrency), ..InstanceChange::default() };
    let instance = changed(&app, &caller, change).await?;
    Ok(show_concurrency(&app, &instance))
}

async fn changed(app: &App, caller: &Caller, change: InstanceChange) -> Result<Instance, Problem> {
    let instance = app.store.change_instance(change, &caller.actor()).await?;
    tracing::info!(by = caller.key.prefix, ?change, "the instance was changed");
    app.scheduler.refresh().await;
    app.signals.work();
    Ok(instance)
}

/// Safe mode: no script is run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SafeMode {
    /// Whether it is on.
    pub enabled: bool,
}

/// Whether safe mode is on. For admins.
#[utoipa::path(get, path = "/safe-mode", tag = "system", responses((status = 200, description = "Whether it is on", body = SafeMode)))]
async fn safe_mode(State(app): State<App>, caller: Caller) -> Result<Json<SafeMode>, Problem> {
    caller.must_be(Role::Admin)?;
    let instance = app.store.instance().await?;
    Ok(Json(SafeMode { enabled: instance.safe_mode || app.options.safe_mode }))
}

/// Turns safe mode on or off; holds over restarts. Where ADE_SAFE_MODE turns it on, it stays on. For admins.
#[utoipa::path(
    put, path = "/safe-mode", tag = "system", request_body = SafeMode,
    responses((status = 200, description = "Whether it is on", body = SafeMode))
)]
async fn set_safe_mode(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<SafeMode>,
) -> Result<Json<SafeMode>, Problem> {
    caller.must_be(Role::Admin)?;
    let change = InstanceChange { safe_mode: Some(request.enabled), ..InstanceChange::default() };
    let instance = changed(&app, &caller, change).await?;
    Ok(Json(SafeMode { enabled: instance.safe_mode || app.options.safe_mode }))
}

/// A change of the queue; what is left out stays.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeQueue {
    /// `on`; `paused`: jobs are taken and none is handed out; `off`: none is taken either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<QueueState>,
    /// Bound on waiting jobs of the instance; null goes back to the setting.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 100_000_000)]
    pub max_queued: Option<Option<i64>>,
}

async fn show_queue(app: &App, instance: &Instance) -> Result<Json<QueueStatus>, Problem> {
    let (queued, running) = app.store.live_counts().await?;
    Ok(Json(QueueStatus {
        state: instance.queue_state,
        queued,
        running,
        max_queued: instance.max_queued.unwrap_or(app.options.defaults.max_queued),
    }))
}

/// The queue. For admins.
#[utoipa::path(get, path = "/queue", tag = "system", responses((status = 200, description = "The queue", body = QueueStatus)))]
async fn queue(State(app): State<App>, caller: Caller) -> Result<Json<QueueStatus>, Problem> {
    caller.must_be(Role::Admin)?;
    show_queue(&app, &app.store.instance().await?).await
}

/// Pauses, resumes or bounds the queue; holds over restarts. Jobs that run are not touched. For admins.
#[utoipa::path(
    put, path = "/queue", tag = "system", request_body = ChangeQueue,
    responses((status = 200, description = "The queue", body = QueueStatus))
)]
async fn set_queue(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<ChangeQueue>,
) -> Result<Json<QueueStatus>, Problem> {
    caller.must_be(Role::Admin)?;
    within("/max_queued", request.max_queued.flatten(), 0..=100_000_000)?;
    let change =
        InstanceChange { queue_state: request.state, max_queued: request.max_queued, ..InstanceChange::default() };
    let instance = changed(&app, &caller, change).await?;
    show_queue(&app, &instance).await
}
