//! The network policy's stored layers. Every change and its entry in the audit are one transaction; what is set to what it is
//! already is no change.

use super::audit::{Action, Actor, Deed};
use super::db::{Result, args};
use super::{Config, Instance, Store, Workspace, configs, workspaces};
use crate::ids::{ConfigId, WorkspaceId};
use crate::network::{Access, HostPattern, Stored, Switch};
use serde_json::{Value, json};

const SET: Action = Action::NetworkSet;

/// What an admin changes of a config's layer; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct ConfigNetworkChange {
    /// The setting.
    pub access: Option<Access>,
    /// Hosts that its scripts may reach; empty for every public one.
    pub allowed_hosts: Option<Vec<HostPattern>>,
    /// Whether its requirements may be built from source.
    pub source_builds: Option<bool>,
}

fn of_config(config: &Config) -> Value {
    json!({"access": config.network, "allowed_hosts": config.allowed_hosts, "source_builds": config.source_builds})
}

impl Store {
    /// All layers that are stored for a config, in one read; `None` when there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn network_of(&self, config: &ConfigId) -> Result<Option<Stored>> {
        let sql = "SELECT (SELECT network_switch FROM instance) AS network_switch, w.network AS workspace, \
                   c.network AS package, c.allowed_hosts, c.source_builds \
                   FROM configs c JOIN workspaces w ON w.id = c.workspace_id WHERE c.id = $1";
        let Some(row) = self.db.fetch_one(sql, args![config]).await? else { return Ok(None) };
        Ok(Some(Stored {
            instance: row.opt_parsed("network_switch")?,
            workspace: row.parsed("workspace")?,
            package: row.parsed("package")?,
            allowed_hosts: row.json("allowed_hosts")?,
            source_builds: row.flag("source_builds")?,
        }))
    }

    /// Stores the switch of the instance; `None` goes back to the nodes' setting.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_network_switch(&self, switch: Option<Switch>, by: &Actor) -> Result<Instance> {
        let mut tx = self.db.begin().await?;
        let mut instance = tx.lock().await?.instance;
        let before = json!({"switch": instance.network_switch});
        instance.network_switch = switch;
        tx.execute("UPDATE instance SET network_switch = $1", args![switch.map(|switch| switch.to_string())]).await?;
        let deed = Deed::change(None, SET, ("instance", instance.id.as_str()), &before, &json!({"switch": switch}));
        tx.commit_noted(by, deed).await?;
        Ok(instance)
    }

    /// Stores the setting of a workspace; `None` when there is no such workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_workspace_network(
        &self,
        id: &WorkspaceId,
        access: Access,
        by: &Actor,
    ) -> Result<Option<Workspace>> {
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let Some(row) = tx.fetch_one("SELECT * FROM workspaces WHERE id = $1", args![id]).await? else {
            return Ok(None);
        };
        let mut workspace = workspaces::read(&row)?;
        let before = json!({"access": workspace.network});
        workspace.network = access;
        tx.execute("UPDATE workspaces SET network = $2 WHERE id = $1", args![id, access.as_str()]).await?;
        let deed = Deed::change(Some(id), SET, ("workspace", id.as_str()), &before, &json!({"access": access}));
        tx.commit_noted(by, deed).await?;
        Ok(Some(workspace))
    }

    /// Stores the setting of a config of a workspace; `None` when there is no such config.
    ///
    /// # Errors
    /// The database's.
    pub async fn set_config_network(
        &self,
        workspace: &WorkspaceId,
        id: &ConfigId,
        change: ConfigNetworkChange,
        by: &Actor,
    ) -> Result<Option<Config>> {
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let sql = "SELECT * FROM configs WHERE id = $1 AND workspace_id = $2";
        let Some(row) = tx.fetch_one(sql, args![id, workspace]).await? else {
            return Ok(None);
        };
        let mut config = configs::read(&row)?;
        let before = of_config(&config);
        config.network = change.access.unwrap_or(config.network);
        config.allowed_hosts = change.allowed_hosts.unwrap_or(config.allowed_hosts);
        config.source_builds = change.source_builds.unwrap_or(config.source_builds);
        tx.execute(
            "UPDATE configs SET network = $2, allowed_hosts = $3, source_builds = $4 WHERE id = $1",
            args![id, config.network.as_str(), json!(config.allowed_hosts).to_string(), config.source_builds],
        )
        .await?;
        let deed = Deed::change(Some(workspace), SET, ("config", id.as_str()), &before, &of_config(&config));
        tx.commit_noted(by, deed).await?;
        Ok(Some(config))
    }
}
