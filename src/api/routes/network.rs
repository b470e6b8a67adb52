//! The network policy: its three stored layers, and what comes of them.

use super::configs::find;
use crate::api::app::{App, Caller};
use crate::api::problem::{Code, Problem};
use crate::api::{Body, Path};
use crate::ids::{ConfigId, WorkspaceId};
use crate::network::{Access, HostPattern, Layer, MAX_ALLOWED_HOSTS, Ruling, Stored, Switch};
use crate::store::{Config, ConfigNetworkChange, Instance, Role, Workspace};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of the instance.
pub fn of_instance() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_switch, set_switch))
}

/// The routes of a workspace and its configs.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_workspace, set_workspace)).routes(routes!(get_config, set_config))
}

/// What comes of all layers, on the node that answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EffectiveNetwork {
    /// For a package whose manifest asks for network.
    pub manifest_asks: NetworkOutcome,
    /// For a package whose manifest does not.
    pub manifest_does_not_ask: NetworkOutcome,
}

/// What a job may do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkOutcome {
    /// The install of its dependencies.
    pub install: NetworkRuling,
    /// Its scripts.
    pub run: NetworkRuling,
}

/// Whether there is network, and who decided.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NetworkRuling {
    /// Whether there is.
    pub allowed: bool,
    /// The layer that decided.
    pub decided_by: Layer,
    /// Why, for people.
    pub reason: String,
}

impl From<Ruling> for NetworkRuling {
    fn from(ruling: Ruling) -> Self {
        Self { allowed: ruling.allowed, decided_by: ruling.by, reason: ruling.reason.to_owned() }
    }
}

fn effective(app: &App, stored: &Stored) -> EffectiveNetwork {
    let outcome = |asks| {
        let decision = stored.decide(app.options.network, asks);
        NetworkOutcome { install: decision.install.into(), run: decision.run.into() }
    };
    EffectiveNetwork { manifest_asks: outcome(true), manifest_does_not_ask: outcome(false) }
}

/// Layers where nothing is set for a package, nor for its workspace unless it is given.
pub(super) fn layers(instance: &Instance, workspace: Access) -> Stored {
    Stored {
        instance: instance.network_switch,
        workspace,
        package: Access::Inherit,
        allowed_hosts: Vec::new(),
        source_builds: false,
    }
}

/// The uppermost layer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct InstanceNetwork {
    /// What counts on the node that answers.
    pub switch: Switch,
    /// What an admin stored; none takes the setting.
    pub stored: Option<Switch>,
    /// ADE_RUNTIME_NETWORK_ACCESS of the node that answers. Where it is `off`, nothing else counts.
    pub setting: Switch,
    /// For a package for which nothing is set.
    pub effective: EffectiveNetwork,
}

/// A change of the uppermost layer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSwitch {
    /// The switch; null goes back to the setting of each node.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    pub switch: Option<Switch>,
}

fn show_switch(app: &App, instance: &Instance) -> Json<InstanceNetwork> {
    let setting = app.options.network;
    Json(InstanceNetwork {
        switch: Switch::on_node(setting, instance.network_switch),
        stored: instance.network_switch,
        setting,
        effective: effective(app, &layers(instance, Access::Inherit)),
    })
}

/// The switch of the instance. For admins.
#[utoipa::path(get, path = "/network", tag = "network", responses((status = 200, description = "The switch", body = InstanceNetwork)))]
async fn get_switch(State(app): State<App>, caller: Caller) -> Result<Json<InstanceNetwork>, Problem> {
    caller.must_be(Role::Admin)?;
    Ok(show_switch(&app, &app.store.instance().await?))
}

/// Sets the switch of the instance; holds over restarts. Jobs that have begun are not touched. For admins.
#[utoipa::path(
    put, path = "/network", tag = "network", request_body = ChangeSwitch,
    responses((status = 200, description = "The switch", body = InstanceNetwork))
)]
async fn set_switch(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<ChangeSwitch>,
) -> Result<Json<InstanceNetwork>, Problem> {
    caller.must_be(Role::Admin)?;
    let instance = app.store.set_network_switch(request.switch, &caller.actor()).await?;
    tracing::info!(by = caller.key.prefix, switch = ?request.switch, "the network switch was set");
    Ok(show_switch(&app, &instance))
}

/// The layer of a workspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceNetwork {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// What is set for it.
    pub access: Access,
    /// For a package for which nothing is set.
    pub effective: EffectiveNetwork,
}

/// A change of a workspace's layer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeWorkspaceNetwork {
    /// What is set for it.
    pub access: Access,
}

async fn show_workspace(app: &App, workspace: Workspace) -> Result<Json<WorkspaceNetwork>, Problem> {
    let instance = app.store.instance().await?;
    let effective = effective(app, &layers(&instance, workspace.network));
    Ok(Json(WorkspaceNetwork { workspace_id: workspace.id, access: workspace.network, effective }))
}

/// What is set for the workspace about network.
#[utoipa::path(
    get, path = "/network", tag = "network",
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    responses((status = 200, description = "The layer", body = WorkspaceNetwork))
)]
async fn get_workspace(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
) -> Result<Json<WorkspaceNetwork>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let fresh = app.store.workspace(&workspace.id).await?.ok_or(Code::WorkspaceNotFound)?;
    show_workspace(&app, fresh).await
}

/// Sets what the workspace may do about network. Jobs that have begun are not touched. For admins.
#[utoipa::path(
    put, path = "/network", tag = "network", request_body = ChangeWorkspaceNetwork,
    params(("workspace" = String, Path, description = "Id or slug of the workspace")),
    responses((status = 200, description = "The layer", body = WorkspaceNetwork))
)]
async fn set_workspace(
    State(app): State<App>,
    caller: Caller,
    Path(workspace): Path<String>,
    Body(request): Body<ChangeWorkspaceNetwork>,
) -> Result<Json<WorkspaceNetwork>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Admin).await?;
    let set = app.store.set_workspace_network(&workspace.id, request.access, &caller.actor()).await?;
    let set = set.ok_or(Code::WorkspaceNotFound)?;
    tracing::info!(workspace = %set.id, by = caller.key.prefix, access = %set.network, "network of a workspace was set");
    app.workspace_changed(&set);
    show_workspace(&app, set).await
}

/// The layer of a config.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConfigNetwork {
    /// The config.
    pub config_id: ConfigId,
    /// What is set for it.
    pub access: Access,
    /// Hosts that its scripts may reach, where they may reach any; empty for every public one.
    pub allowed_hosts: Vec<HostPattern>,
    /// Whether its requirements may be built from source, which runs code of theirs during the install.
    pub source_builds: bool,
    /// What comes of all layers.
    pub effective: EffectiveNetwork,
}

/// A change of a config's layer; what is left out stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConfigNetwork {
    /// What is set for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Hosts that its scripts may reach; empty for every public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 200)]
    pub allowed_hosts: Option<Vec<HostPattern>>,
    /// Whether its requirements may be built from source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_builds: Option<bool>,
}

async fn show_config(app: &App, config: Config) -> Result<Json<ConfigNetwork>, Problem> {
    let stored = app.store.network_of(&config.id).await?.ok_or(Code::ConfigNotFound)?;
    Ok(Json(ConfigNetwork {
        effective: effective(app, &stored),
        config_id: config.id,
        access: stored.package,
        allowed_hosts: stored.allowed_hosts,
        source_builds: stored.source_builds,
    }))
}

/// What is set for the config about network.
#[utoipa::path(
    get, path = "/configs/{config_id}/network", tag = "network",
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses((status = 200, description = "The layer", body = ConfigNetwork))
)]
async fn get_config(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
) -> Result<Json<ConfigNetwork>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Viewer).await?;
    let config = find(&app, &workspace, &id).await?;
    show_config(&app, config).await
}

/// Sets what the config may do about network. Jobs that have begun are not touched. For admins.
#[utoipa::path(
    put, path = "/configs/{config_id}/network", tag = "network", request_body = ChangeConfigNetwork,
    params(
        ("workspace" = String, Path, description = "Id or slug of the workspace"),
        ("config_id" = ConfigId, Path, description = "The config"),
    ),
    responses((status = 200, description = "The layer", body = ConfigNetwork))
)]
async fn set_config(
    State(app): State<App>,
    caller: Caller,
    Path((workspace, id)): Path<(String, ConfigId)>,
    Body(request): Body<ChangeConfigNetwork>,
) -> Result<Json<ConfigNetwork>, Problem> {
    let workspace = app.enter(&caller, &workspace, Role::Admin).await?;
    let hosts = request.allowed_hosts.as_ref().map_or(0, Vec::len);
    if hosts > MAX_ALLOWED_HOSTS {
        let text = format!("has {hosts} hosts, the limit is {MAX_ALLOWED_HOSTS}");
        return Err(Problem::new(Code::InvalidBody)
            .detail(format!("/allowed_hosts: {text}"))
            .field("/allowed_hosts", text));
    }
    find(&app, &workspace, &id).await?;
    let change = ConfigNetworkChange {
        access: request.access,
        allowed_hosts: request.allowed_hosts,
        source_builds: request.source_builds,
    };
    let set = app.store.set_config_network(&workspace.id, &id, change, &caller.actor()).await?;
    let set = set.ok_or(Code::ConfigNotFound)?;
    tracing::info!(config = %set.id, by = caller.key.prefix, access = %set.network, "network of a config was set");
    show_config(&app, set).await
}
