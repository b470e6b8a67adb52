//! Configs and their immutable versions; their packages are blobs.

use super::db::{Result, Row, args, now_ms};
use super::{Store, StoreError};
use crate::ids::{ConfigId, KeyId, VersionId, WorkspaceId};
use crate::network::{Access, HostPattern};

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

/// An immutable version of a config.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// Its config.
    pub config_id: ConfigId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// From 1: version `v1`.
    pub number: i64,
    /// Hash of the canonical zip.
    pub package_sha256: String,
    /// Hash of the canonical manifest.
    pub manifest_sha256: String,
    /// `info.version` of the manifest.
    pub manifest_version: String,
    /// Size of the canonical zip.
    pub package_bytes: i64,
    /// When it was published, ms.
    pub created_at: i64,
    /// When it was archived, ms.
    pub archived_at: Option<i64>,
}

/// The content of a version.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Hash of the canonical zip.
    pub package_sha256: String,
    /// Hash of the canonical manifest.
    pub manifest_sha256: String,
    /// `info.version` of the manifest.
    pub manifest_version: String,
    /// Size of the canonical zip.
    pub package_bytes: i64,
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

fn read_version(row: &Row) -> Result<Version> {
    Ok(Version {
        id: row.parsed("id")?,
        config_id: row.parsed("config_id")?,
        workspace_id: row.parsed("workspace_id")?,
        number: row.int("number")?,
        package_sha256: row.text("package_sha256")?,
        manifest_sha256: row.text("manifest_sha256")?,
        manifest_version: row.text("manifest_version")?,
        package_bytes: row.int("package_bytes")?,
        created_at: row.int("created_at")?,
        archived_at: row.opt_int("archived_at")?,
    })
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
        created_by: Option<&KeyId>,
    ) -> Result<(Config, Version)> {
        let (id, version_id, now) = (ConfigId::generate(), VersionId::generate(), now_ms());
        let mut tx = self.db.begin().await?;
        tx.execute(
            "INSERT INTO configs (id, workspace_id, slug, title, description, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            args![&id, workspace, slug, title, description, created_by, now],
        )
        .await?;
        tx.execute(
            "INSERT INTO config_versions (id, config_id, workspace_id, number, package_sha256, manifest_sha256, \
             manifest_version, package_bytes, created_by, created_at) VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9)",
            args![
                &version_id,
                &id,
                workspace,
                version.package_sha256.as_str(),
                version.manifest_sha256.as_str(),
                version.manifest_version.as_str(),
                version.package_bytes,
                created_by,
                now,
            ],
        )
        .await?;
        tx.commit().await?;
        let gone = || StoreError::Internal("a config that was just made is gone".into());
        let config = self.config(workspace, &id).await?.ok_or_else(gone)?;
        let version = self.version(workspace, &version_id).await?.ok_or_else(gone)?;
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
    ) -> Result<Option<Config>> {
        self.db
            .execute(
                "UPDATE configs SET max_running = $3 WHERE id = $1 AND workspace_id = $2",
                args![id, workspace, max_running],
            )
            .await?;
        self.config(workspace, id).await
    }

    /// A version of a workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn version(&self, workspace: &WorkspaceId, id: &VersionId) -> Result<Option<Version>> {
        let row = self
            .db
            .fetch_one("SELECT * FROM config_versions WHERE id = $1 AND workspace_id = $2", args![id, workspace])
            .await?;
        row.as_ref().map(read_version).transpose()
    }

    /// The versions of a config, from the newest, after number `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn versions(&self, config: &ConfigId, before: Option<i64>, limit: i64) -> Result<Vec<Version>> {
        let rows = self
            .db
            .fetch(
                "SELECT * FROM config_versions WHERE config_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
                args![config, before.unwrap_or(i64::MAX), limit],
            )
            .await?;
        rows.iter().map(read_version).collect()
    }
}
