//! The immutable versions of configs; their packages are blobs. Every change and its entry in the audit are one transaction.

use super::audit::{Action, Actor, Deed};
use super::configs::{self, Blocked, Config};
use super::db::{Result, Row, Tx, args};
use super::{Store, StoreError};
use crate::ids::{ConfigId, DraftId, KeyId, VersionId, WorkspaceId};
use serde_json::json;

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
    /// With which key it was published.
    pub created_by: Option<KeyId>,
    /// What that key is for.
    pub author: Option<String>,
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

/// What came of publishing.
#[derive(Debug, Clone)]
pub enum Published {
    /// A new version.
    New(Version),
    /// The newest version that is not archived has this very package; there is no twin of it.
    Unchanged(Version),
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT v.*, k.name AS author FROM config_versions v LEFT JOIN api_keys k ON k.id = v.created_by ",
            $tail
        )
    };
}

const ONE: &str = select!("WHERE v.id = $1 AND v.workspace_id = $2");
const NEWEST: &str = select!("WHERE v.config_id = $1 AND v.archived_at IS NULL ORDER BY v.number DESC LIMIT 1");

fn read(row: &Row) -> Result<Version> {
    Ok(Version {
        id: row.parsed("id")?,
        config_id: row.parsed("config_id")?,
        workspace_id: row.parsed("workspace_id")?,
        number: row.int("number")?,
        package_sha256: row.text("package_sha256")?,
        manifest_sha256: row.text("manifest_sha256")?,
        manifest_version: row.text("manifest_version")?,
        package_bytes: row.int("package_bytes")?,
        created_by: row.opt_parsed("created_by")?,
        author: row.opt_text("author")?,
        created_at: row.int("created_at")?,
        archived_at: row.opt_int("archived_at")?,
    })
}

/// Writes a version and gives it back.
pub(super) async fn insert(
    tx: &mut Tx,
    config: &Config,
    number: i64,
    new: &NewVersion,
    by: &Actor,
    now: i64,
) -> Result<Version> {
    let id = VersionId::generate();
    tx.execute(
        "INSERT INTO config_versions (id, config_id, workspace_id, number, package_sha256, manifest_sha256, \
         manifest_version, package_bytes, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        args![
            &id,
            &config.id,
            &config.workspace_id,
            number,
            new.package_sha256.as_str(),
            new.manifest_sha256.as_str(),
            new.manifest_version.as_str(),
            new.package_bytes,
            &by.key_id,
            now,
        ],
    )
    .await?;
    let row = tx.fetch_one(ONE, args![&id, &config.workspace_id]).await?;
    row.as_ref().map_or_else(|| Err(StoreError::Internal("a version that was just made is gone".into())), read)
}

/// Publishes under the queue's lock: numbers go up by one, and nobody publishes at the same time.
pub(super) async fn publish(
    tx: &mut Tx,
    config: &Config,
    new: &NewVersion,
    draft: Option<&DraftId>,
    by: &Actor,
    now: i64,
) -> Result<Published> {
    let newest = tx.fetch_one(NEWEST, args![&config.id]).await?.as_ref().map(read).transpose()?;
    if let Some(newest) = newest.filter(|newest| newest.package_sha256 == new.package_sha256) {
        return Ok(Published::Unchanged(newest));
    }
    let sql = "SELECT COALESCE(max(number), 0) + 1 AS next FROM config_versions WHERE config_id = $1";
    let number = tx.fetch_one(sql, args![&config.id]).await?.map_or(Ok(1), |row| row.int("next"))?;
    let version = insert(tx, config, number, new, by, now).await?;
    let deed = Deed {
        workspace: Some(&config.workspace_id),
        action: Action::VersionPublish,
        target: ("config", config.id.as_str()),
        detail: json!({"draft_id": draft, "before": null, "after": {
            "config_version_id": version.id, "version": format!("v{number}"), "package_sha256": version.package_sha256,
        }}),
    };
    tx.note(by, deed).await?;
    Ok(Published::New(version))
}

impl Store {
    /// A version of a workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn version(&self, workspace: &WorkspaceId, id: &VersionId) -> Result<Option<Version>> {
        self.db.fetch_one(ONE, args![id, workspace]).await?.as_ref().map(read).transpose()
    }

    /// The versions of a config, from the newest, after number `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn versions(&self, config: &ConfigId, before: Option<i64>, limit: i64) -> Result<Vec<Version>> {
        const SQL: &str = select!("WHERE v.config_id = $1 AND v.number < $2 ORDER BY v.number DESC LIMIT $3");
        let rows = self.db.fetch(SQL, args![config, before.unwrap_or(i64::MAX), limit]).await?;
        rows.iter().map(read).collect()
    }

    /// The newest version of a config that is not archived.
    ///
    /// # Errors
    /// The database's.
    pub async fn newest_version(&self, config: &ConfigId) -> Result<Option<Version>> {
        self.db.fetch_one(NEWEST, args![config]).await?.as_ref().map(read).transpose()
    }

    /// Publishes a package, which is stored already, as the next version of a config.
    ///
    /// # Errors
    /// The database's.
    pub async fn publish_version(
        &self,
        workspace: &WorkspaceId,
        config: &ConfigId,
        new: &NewVersion,
        by: &Actor,
    ) -> Result<std::result::Result<Published, Blocked>> {
        let mut tx = self.db.begin().await?;
        let now = tx.lock().await?.now;
        let config = match configs::fetch(&mut tx, workspace, config).await? {
            None => return Ok(Err(Blocked::Gone)),
            Some(config) if config.archived_at.is_some() => return Ok(Err(Blocked::Archived)),
            Some(config) => config,
        };
        let published = publish(&mut tx, &config, new, None, by, now).await?;
        tx.commit().await?;
        Ok(Ok(published))
    }

    /// Archives a version of a config, or restores it. An archived one takes no jobs; those that it has go on. What is so
    /// already is no change.
    ///
    /// # Errors
    /// The database's.
    pub async fn archive_version(
        &self,
        workspace: &WorkspaceId,
        config: &ConfigId,
        id: &VersionId,
        archive: bool,
        by: &Actor,
    ) -> Result<std::result::Result<Version, Blocked>> {
        let mut tx = self.db.begin().await?;
        let now = tx.lock().await?.now;
        let found = tx.fetch_one(ONE, args![id, workspace]).await?.as_ref().map(read).transpose()?;
        let Some(mut version) = found.filter(|found| found.config_id == *config) else { return Ok(Err(Blocked::Gone)) };
        if version.archived_at.is_some() == archive {
            return Ok(Ok(version));
        }
        let sql = "SELECT id FROM workspaces WHERE id = $1 AND active_version_id = $2";
        if archive && tx.fetch_one(sql, args![workspace, id]).await?.is_some() {
            return Ok(Err(Blocked::Active(version.id)));
        }
        version.archived_at = archive.then_some(now);
        tx.execute("UPDATE config_versions SET archived_at = $2 WHERE id = $1", args![id, version.archived_at]).await?;
        let deed = Deed {
            workspace: Some(workspace),
            action: if archive { Action::VersionArchive } else { Action::VersionRestore },
            target: ("config", config.as_str()),
            detail: json!({
                "config_version_id": id, "version": format!("v{}", version.number),
                "before": {"archived": !archive}, "after": {"archived": archive},
            }),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(Ok(version))
    }
}
