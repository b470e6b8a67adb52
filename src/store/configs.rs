//! Configs: packages under slugs, with versions and drafts. Every change and its entry in the audit are one transaction.

use super::audit::{Action, Actor, Deed};
use super::db::{Result, Row, Tx, args};
use super::versions::{NewVersion, Version};
use super::{Store, StoreError};
use crate::ids::{ConfigId, VersionId, WorkspaceId};
use crate::network::{Access, HostPattern};
use serde_json::json;

/// A config: a package under a slug, with its versions.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its id.
    pub id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its name in URLs, unique in the workspace.
    pub slug: String,
    /// Its name for people.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// When it was made, ms.
    pub created_at: i64,
    /// When it was archived, ms.
    pub archived_at: Option<i64>,
    /// Bound on its running jobs.
    pub max_running: Option<i64>,
    /// Its layer of the network policy.
    pub network: Access,
    /// Hosts that its scripts may reach; empty for every public one.
    pub allowed_hosts: Vec<HostPattern>,
    /// Whether its requirements may be built from source.
    pub source_builds: bool,
}

/// Why a config, a version or a draft is not changed; nothing of it is stored then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// There is no such thing.
    Gone,
    /// The config is archived.
    Archived,
    /// This version is the active one of the workspace.
    Active(VersionId),
    /// The workspace has this many drafts already.
    Full(i64),
    /// The draft has changed meanwhile; its revision now.
    Changed(i64),
}

pub(super) fn read(row: &Row) -> Result<Config> {
    Ok(Config {
        id: row.parsed("id")?,
        workspace_id: row.parsed("workspace_id")?,
        slug: row.text("slug")?,
        title: row.text("title")?,
        description: row.text("description")?,
        created_at: row.int("created_at")?,
        archived_at: row.opt_int("archived_at")?,
        max_running: row.opt_int("max_running")?,
        network: row.parsed("network")?,
        allowed_hosts: row.json("allowed_hosts")?,
        source_builds: row.flag("source_builds")?,
    })
}

/// A config of a workspace, as a transaction sees it.
pub(super) async fn fetch(tx: &mut Tx, workspace: &WorkspaceId, id: &ConfigId) -> Result<Option<Config>> {
    let sql = "SELECT * FROM configs WHERE id = $1 AND workspace_id = $2";
    tx.fetch_one(sql, args![id, workspace]).await?.as_ref().map(read).transpose()
}

impl Store {
    /// Makes a config with its first version, whose package is stored already.
    ///
    /// # Errors
    /// `Exists` when the slug is taken.
    pub async fn create_config(
        &self,
        workspace: &WorkspaceId,
        slug: &str,
        title: &str,
        description: &str,
        version: &NewVersion,
        by: &Actor,
    ) -> Result<(Config, Version)> {
        let id = ConfigId::generate();
        let mut tx = self.db.begin().await?;
        let now = tx.now().await?;
        tx.execute(
            "INSERT INTO configs (id, workspace_id, slug, title, description, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            args![&id, workspace, slug, title, description, &by.key_id, now],
        )
        .await?;
        let gone = || StoreError::Internal("a config that was just made is gone".into());
        let config = fetch(&mut tx, workspace, &id).await?.ok_or_else(gone)?;
        let version = super::versions::insert(&mut tx, &config, 1, version, by, now).await?;
        let deed = Deed {
            workspace: Some(workspace),
            action: Action::ConfigCreate,
            target: ("config", id.as_str()),
            detail: json!({"before": null, "after": {
                "slug": slug, "config_version_id": version.id, "version": "v1", "package_sha256": version.package_sha256,
            }}),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok((config, version))
    }

    /// A config of a workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn config(&self, workspace: &WorkspaceId, id: &ConfigId) -> Result<Option<Config>> {
        let row = self
            .db
            .fetch_one("SELECT * FROM configs WHERE id = $1 AND workspace_id = $2", args![id, workspace])
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Configs of a workspace from the newest, after `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn configs(&self, workspace: &WorkspaceId, before: Option<&str>, limit: i64) -> Result<Vec<Config>> {
        let rows = self
            .db
            .fetch(
                "SELECT * FROM configs WHERE workspace_id = $1 AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
                args![workspace, before.map(str::to_owned), limit],
            )
            .await?;
        rows.iter().map(read).collect()
    }

    /// Bounds how many jobs of a config run at once; `None` is no bound.
    ///
    /// # Errors
    /// The database's.
    pub async fn bound_config(
        &self,
        workspace: &WorkspaceId,
        id: &ConfigId,
        max_running: Option<i64>,
        by: &Actor,
    ) -> Result<Option<Config>> {
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let sql = "SELECT * FROM configs WHERE id = $1 AND workspace_id = $2";
        let Some(row) = tx.fetch_one(sql, args![id, workspace]).await? else { return Ok(None) };
        let mut config = read(&row)?;
        let before = json!({"max_running": config.max_running});
        config.max_running = max_running;
        tx.execute("UPDATE configs SET max_running = $2 WHERE id = $1", args![id, max_running]).await?;
        let after = json!({"max_running": max_running});
        let deed = Deed::change(Some(workspace), Action::ConfigChange, ("config", id.as_str()), &before, &after);
        tx.commit_noted(by, deed).await?;
        Ok(Some(config))
    }

    /// Archives a config, or restores it. An archived one keeps its slug and its versions, and takes no jobs; those that it has
    /// go on. What is so already is no change.
    ///
    /// # Errors
    /// The database's.
    pub async fn archive_config(
        &self,
        workspace: &WorkspaceId,
        id: &ConfigId,
        archive: bool,
        by: &Actor,
    ) -> Result<std::result::Result<Config, Blocked>> {
        let mut tx = self.db.begin().await?;
        // Activations move the pointer, and submissions look at what is archived, under the same lock.
        let now = tx.lock().await?.now;
        let Some(mut config) = fetch(&mut tx, workspace, id).await? else { return Ok(Err(Blocked::Gone)) };
        if config.archived_at.is_some() == archive {
            return Ok(Ok(config));
        }
        let sql = "SELECT v.id FROM workspaces w JOIN config_versions v ON v.id = w.active_version_id \
                   WHERE w.id = $1 AND v.config_id = $2";
        if archive && let Some(active) = tx.fetch_one(sql, args![workspace, id]).await? {
            return Ok(Err(Blocked::Active(active.parsed("id")?)));
        }
        config.archived_at = archive.then_some(now);
        tx.execute("UPDATE configs SET archived_at = $2 WHERE id = $1", args![id, config.archived_at]).await?;
        let deed = Deed {
            workspace: Some(workspace),
            action: if archive { Action::ConfigArchive } else { Action::ConfigRestore },
            target: ("config", id.as_str()),
            detail: json!({"before": {"archived": !archive}, "after": {"archived": archive}}),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(Ok(config))
    }
}
