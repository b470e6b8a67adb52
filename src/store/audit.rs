//! The audit: who changed what, written in the transaction that changes it. Nothing changes or deletes an entry; the database
//! itself refuses to.

use super::Store;
use super::db::{Arg, Result, Row, Tx, args};
use crate::ids::{AuditId, ConfigId, KeyId, WorkspaceId};
use serde_json::Value;
use sqlx::AssertSqlSafe;

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal;)+) => {
        /// What can be done, as the audit names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action { $($(#[doc = $doc])+ $variant,)+ }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The text that is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

actions! {
    /// A layer of the network policy was set.
    NetworkSet = "network.set";
    /// A config was made, with its first version.
    ConfigCreate = "config.create";
    /// A config was archived.
    ConfigArchive = "config.archive";
    /// An archived config was restored.
    ConfigRestore = "config.restore";
    /// A version became the active one of its workspace.
    ConfigActivate = "config.activate";
    /// The active version was taken back; the workspace has none then.
    ConfigDeactivate = "config.deactivate";
    /// A version was published.
    VersionPublish = "version.publish";
    /// A version was archived.
    VersionArchive = "version.archive";
    /// An archived version was restored.
    VersionRestore = "version.restore";
    /// A draft was made.
    DraftCreate = "draft.create";
    /// A file of a draft was written or removed.
    DraftEdit = "draft.edit";
    /// A draft was deleted.
    DraftDelete = "draft.delete";
}

impl Action {
    /// What the history of a config is made of.
    const HISTORY: [Self; 8] = [
        Self::ConfigCreate,
        Self::ConfigArchive,
        Self::ConfigRestore,
        Self::ConfigActivate,
        Self::ConfigDeactivate,
        Self::VersionPublish,
        Self::VersionArchive,
        Self::VersionRestore,
    ];
}

/// Who does something.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The key.
    pub key_id: KeyId,
    /// What it is for, at this time.
    pub name: String,
    /// The request.
    pub request_id: String,
}

/// What was done, by whom, to what.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// When, ms.
    pub at: i64,
    /// In which workspace; none for the instance.
    pub workspace_id: Option<WorkspaceId>,
    /// With which key.
    pub actor_id: KeyId,
    /// What that key was for.
    pub actor_name: String,
    /// What, such as `network.set`.
    pub action: String,
    /// What kind of thing it was done to: `instance`, `workspace` or `config`.
    pub target_kind: String,
    /// Which one.
    pub target_id: String,
    /// What it was `before` and `after`.
    pub detail: Value,
    /// In which request.
    pub request_id: String,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// Of this action.
    pub action: Option<String>,
    /// Done after this, ms.
    pub created_after: Option<i64>,
    /// Older than the one with this id.
    pub before: Option<String>,
}

/// A thing that is done.
pub(super) struct Deed<'a> {
    pub workspace: Option<&'a WorkspaceId>,
    pub action: Action,
    pub target: (&'static str, &'a str),
    pub detail: Value,
}

impl Tx {
    /// Writes an entry.
    pub(super) async fn note(&mut self, actor: &Actor, deed: Deed<'_>) -> Result<()> {
        let now = self.now().await?;
        self.execute(
            "INSERT INTO audit (id, at, workspace_id, actor_id, actor_name, action, target_kind, target_id, detail, request_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            args![
                &AuditId::generate(), now, deed.workspace, &actor.key_id, actor.name.as_str(), deed.action.as_str(), deed.target.0,
                deed.target.1, deed.detail.to_string(), actor.request_id.as_str(),
            ],
        )
        .await
        .map(drop)
    }
}

fn read(row: &Row) -> Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.parsed("id")?,
        at: row.int("at")?,
        workspace_id: row.opt_parsed("workspace_id")?,
        actor_id: row.parsed("actor_id")?,
        actor_name: row.text("actor_name")?,
        action: row.text("action")?,
        target_kind: row.text("target_kind")?,
        target_id: row.text("target_id")?,
        detail: row.json("detail")?,
        request_id: row.text("request_id")?,
    })
}

impl Store {
    /// Entries of the audit, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn audit(&self, filter: &AuditFilter, limit: i64) -> Result<Vec<AuditEntry>> {
        let mut sql = String::from("SELECT * FROM audit WHERE 1 = 1");
        let mut args = args![];
        let mut also = |condition: &str, arg: Arg| {
            args.push(arg);
            sql.push_str(&format!(" AND {condition} ${}", args.len()));
        };
        if let Some(workspace) = &filter.workspace_id {
            also("workspace_id =", workspace.into());
        }
        if let Some(action) = &filter.action {
            also("action =", action.as_str().into());
        }
        if let Some(after) = filter.created_after {
            also("at >", after.into());
        }
        if let Some(before) = &filter.before {
            also("id <", before.as_str().into());
        }
        args.push(limit.into());
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ${}", args.len()));
        let rows = self.db.fetch(AssertSqlSafe(sql), args).await?;
        rows.iter().map(read).collect()
    }

    /// What was done to a config and its versions, newest first, before the entry with this id. What was done to its drafts and
    /// its network is left out.
    ///
    /// # Errors
    /// The database's.
    pub async fn history(&self, config: &ConfigId, before: Option<&str>, limit: i64) -> Result<Vec<AuditEntry>> {
        let mut args = args![config, before.map(str::to_owned), limit];
        let places = super::db::list(args.len() + 1, Action::HISTORY.len());
        args.extend(Action::HISTORY.iter().map(|action| Arg::from(action.as_str())));
        let sql = format!(
            "SELECT * FROM audit WHERE target_id = $1 AND ($2 IS NULL OR id < $2) AND action IN ({places}) \
             ORDER BY id DESC LIMIT $3"
        );
        let rows = self.db.fetch(AssertSqlSafe(sql), args).await?;
        rows.iter().map(read).collect()
    }
}
