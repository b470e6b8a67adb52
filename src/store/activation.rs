//! The active version of a workspace. The pointer and its entry in the audit move in one transaction.

use super::audit::{Action, Actor, Deed};
use super::db::{Result, Tx, args};
use super::{Store, Version};
use crate::ids::{VersionId, WorkspaceId};
use serde_json::{Value, json};

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

fn pointer(version: Option<&VersionId>) -> Value {
    json!({"active_version_id": version})
}

async fn move_pointer(tx: &mut Tx, workspace: &WorkspaceId, to: Option<(&VersionId, i64)>) -> Result<()> {
    let sql = "UPDATE workspaces SET active_version_id = $2, active_since = $3 WHERE id = $1";
    tx.execute(sql, args![workspace, to.map(|to| to.0), to.map(|to| to.1)]).await.map(drop)
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
        move_pointer(&mut tx, workspace, Some((version, now))).await?;
        let deed = Deed {
            workspace: Some(workspace),
            action: Action::ConfigActivate,
            target: ("config", &config),
            detail: json!({"before": pointer(before), "after": pointer(Some(version))}),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(Moved::Active(now))
    }

    /// Takes a version back that is the active one of its workspace; the workspace has none then. False when it is not, and
    /// then nothing is changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn deactivate_version(&self, version: &Version, by: &Actor) -> Result<bool> {
        let Version { id, config_id, workspace_id, .. } = version;
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let sql = "SELECT id FROM workspaces WHERE id = $1 AND active_version_id = $2";
        if tx.fetch_one(sql, args![workspace_id, id]).await?.is_none() {
            return Ok(false);
        }
        move_pointer(&mut tx, workspace_id, None).await?;
        let deed = Deed {
            workspace: Some(workspace_id),
            action: Action::ConfigDeactivate,
            target: ("config", config_id.as_str()),
            detail: json!({"before": pointer(Some(id)), "after": pointer(None)}),
        };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(true)
    }
}
