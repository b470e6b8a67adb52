//! API keys: hashed at rest, found by their prefix.

use super::Store;
use super::audit::{Action, Actor, Deed};
use super::db::{Result, Row, args, now_ms};
use crate::events::at;
use crate::ids::{KeyId, WorkspaceId};
use crate::text::texts;
use serde_json::json;

texts! {
    /// What a key may do. Each may do all that those before it may.
    #[derive(PartialOrd, Ord)]
    Role {
        /// Reads jobs, documents and configs of its workspace.
        Viewer = "viewer",
        /// Submits, cancels and retries jobs, uploads and deletes documents, and makes and publishes drafts of configs.
        Editor = "editor",
        /// Registers, activates and archives configs, and makes keys of its workspace.
        Owner = "owner",
        /// Everything, in every workspace.
        Admin = "admin",
    }
}

/// An API key, without its secret.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Its beginning, by which people recognize it.
    pub prefix: String,
    /// Hash of the whole key, lower-case hex.
    pub secret_sha256: String,
    /// Its workspace; none for an admin's.
    pub workspace_id: Option<WorkspaceId>,
    /// What it may do.
    pub role: Role,
    /// What it is for.
    pub name: String,
    /// Who made it.
    pub created_by: Option<KeyId>,
    /// When it was made, ms.
    pub created_at: i64,
    /// When it stops working, ms.
    pub expires_at: Option<i64>,
    /// When it was revoked, ms.
    pub revoked_at: Option<i64>,
    /// When it was last used, ms; exact to a minute.
    pub last_used_at: Option<i64>,
}

/// A key that is to be stored.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its beginning.
    pub prefix: String,
    /// Hash of the whole key.
    pub secret_sha256: String,
    /// Its workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// What it may do.
    pub role: Role,
    /// What it is for.
    pub name: String,
    /// When it stops working, ms.
    pub expires_at: Option<i64>,
}

fn read(row: &Row) -> Result<Key> {
    Ok(Key {
        id: row.parsed("id")?,
        prefix: row.text("prefix")?,
        secret_sha256: row.text("secret_sha256")?,
        workspace_id: row.opt_parsed("workspace_id")?,
        role: row.parsed("role")?,
        name: row.text("name")?,
        created_by: row.opt_parsed("created_by")?,
        created_at: row.int("created_at")?,
        expires_at: row.opt_int("expires_at")?,
        revoked_at: row.opt_int("revoked_at")?,
        last_used_at: row.opt_int("last_used_at")?,
    })
}

impl Store {
    /// Stores a key; `by` is none for the service itself, of which the audit says nothing.
    ///
    /// # Errors
    /// `Exists` when the prefix is taken.
    pub async fn create_key(&self, new: NewKey, by: Option<&Actor>) -> Result<Key> {
        let key = Key {
            id: KeyId::generate(),
            prefix: new.prefix,
            secret_sha256: new.secret_sha256,
            workspace_id: new.workspace_id,
            role: new.role,
            name: new.name,
            created_by: by.map(|by| by.key_id.clone()),
            created_at: now_ms(),
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        let mut tx = self.db.begin().await?;
        tx.execute(
            "INSERT INTO api_keys (id, prefix, secret_sha256, workspace_id, role, name, created_by, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            args![
                &key.id, key.prefix.as_str(), key.secret_sha256.as_str(), key.workspace_id.as_ref(), key.role.as_str(),
                key.name.as_str(), key.created_by.as_ref(), key.created_at, key.expires_at,
            ],
        )
        .await?;
        if let Some(by) = by {
            let detail = json!({"before": null, "after": {
                "prefix": key.prefix, "name": key.name, "role": key.role, "expires_at": key.expires_at.map(at),
            }});
            let (workspace, target) = (key.workspace_id.as_ref(), ("key", key.id.as_str()));
            tx.note(by, Deed { workspace, action: Action::KeyCreate, target, detail }).await?;
        }
        tx.commit().await?;
        Ok(key)
    }

    /// The key with this prefix.
    ///
    /// # Errors
    /// The database's.
    pub async fn key_by_prefix(&self, prefix: &str) -> Result<Option<Key>> {
        let row = self.db.fetch_one("SELECT * FROM api_keys WHERE prefix = $1", args![prefix]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The key with this id.
    ///
    /// # Errors
    /// The database's.
    pub async fn key(&self, id: &KeyId) -> Result<Option<Key>> {
        let row = self.db.fetch_one("SELECT * FROM api_keys WHERE id = $1", args![id]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Keys from the newest, of one workspace or the admins', after `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn keys(&self, workspace: Option<&WorkspaceId>, before: Option<&str>, limit: i64) -> Result<Vec<Key>> {
        let rows = self
            .db
            .fetch(
                "SELECT * FROM api_keys WHERE (workspace_id = $1 OR ($1 IS NULL AND workspace_id IS NULL)) \
                 AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
                args![workspace, before.map(str::to_owned), limit],
            )
            .await?;
        rows.iter().map(read).collect()
    }

    /// Revokes a key; one that is revoked keeps its time.
    ///
    /// # Errors
    /// The database's.
    pub async fn revoke_key(&self, id: &KeyId, by: &Actor) -> Result<Option<Key>> {
        let mut tx = self.db.begin().await?;
        let sql = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING *";
        let Some(row) = tx.fetch_one(sql, args![id, now_ms()]).await? else {
            drop(tx);
            return self.key(id).await;
        };
        let key = read(&row)?;
        let shown = |revoked: Option<i64>| json!({"prefix": key.prefix, "revoked_at": revoked.map(at)});
        let detail = json!({"before": shown(None), "after": shown(key.revoked_at)});
        let (workspace, target) = (key.workspace_id.as_ref(), ("key", id.as_str()));
        tx.note(by, Deed { workspace, action: Action::KeyRevoke, target, detail }).await?;
        tx.commit().await?;
        Ok(Some(key))
    }

    /// Notes that a key was used.
    ///
    /// # Errors
    /// The database's.
    pub async fn key_used(&self, id: &KeyId, at: i64) -> Result<()> {
        self.db.execute("UPDATE api_keys SET last_used_at = $2 WHERE id = $1", args![id, at]).await.map(drop)
    }

    /// Whether any admin's key exists, of any state.
    ///
    /// # Errors
    /// The database's.
    pub async fn has_admin_key(&self) -> Result<bool> {
        let sql = "SELECT id FROM api_keys WHERE role = 'admin' LIMIT 1";
        Ok(self.db.fetch_one(sql, Vec::new()).await?.is_some())
    }
}
