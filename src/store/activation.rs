//! The active version of a workspace. The pointer and its entry in the audit move in one transaction.

use super::Store;
use super::audit::{Actor, Deed};
use super::db::{Result, args};
use crate::ids::{VersionId, WorkspaceId};
use serde_json::json;

/// What came of a wish to make a version the active one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// It is the active one since this time, ms.
    Active(i64),
    /// Somebody else has moved the pointer meanwhile, to this version.
    Overtaken(Option<VersionId>),
    /// The version or its config is archived.
    Archived,
    /// There is no such version.
    Gone,
}

impl Store {
    /// Makes a version the active one of its workspace, if `before` still is.
    ///
    /// # Errors
    /// The database's.
    pub async fn activate_version(
        &self,
        workspace: &WorkspaceId,
        version: &VersionId,
        before: Option<&VersionId>,
        by: &Actor,
    ) -> Result<Moved> {
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let sql = "SELECT w.active_version_id, v.config_id, v.archived_at AS version_archived, c.archived_at AS config_archived \
                   FROM config_versions v JOIN configs c ON c.id = v.config_id JOIN workspaces w ON w.id = v.workspace_id \
                   WHERE v.id = $1 AND v.workspace_id = $2";
        let Some(row) = tx.fetch_one(sql, args![version, workspace]).await? else { return Ok(Moved::Gone) };
        if row.opt_int("version_archived")?.is_some() || row.opt_int("config_archived")?.is_some() {
            return Ok(Moved::Archived);
        }
        let active: Option<VersionId> = row.opt_parsed("active_version_id")?;
        if active.as_ref() != before {
            return Ok(Moved::Overtaken(active));
        }
        let config = row.text("config_id")?;
        let now = tx.now().await?;
        tx.execute("UPDATE workspaces SET active_version_id = $2 WHERE id = $1", args![workspace, version]).await?;
        let pointer = |version: Option<&VersionId>| json!({"active_version_id": version});
        let deed = Deed {
            workspace: Some(workspace),
            action: "config.activate",
            target: ("config", &config),
            detail: json!({"before": pointer(before), "after": pointer(Some(version))}),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(Moved::Active(now))
    }
}
