//! Workspaces: tenants, and their share of the queue.

use super::Store;
use super::audit::{Action, Actor, Deed};
use super::db::{Result, Row, args, now_ms};
use crate::ids::{VersionId, WorkspaceId};
use crate::network::Access;
use serde_json::{Value, json};

/// A workspace.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub title: String,
    /// When it was made, ms.
    pub created_at: i64,
    /// The version that runs when a submission names none.
    pub active_version_id: Option<VersionId>,
    /// Since when it is, ms.
    pub active_since: Option<i64>,
    /// Its share of the claims, against the other workspaces that wait; 100 is the default.
    pub weight: i64,
    /// Bound on waiting jobs; `None` takes the setting.
    pub max_queued: Option<i64>,
    /// Bound on running jobs; `None` takes the setting, 0 is no bound.
    pub max_running: Option<i64>,
    /// Whether its jobs are not handed out.
    pub paused: bool,
    /// Its layer of the network policy.
    pub network: Access,
    /// Jobs that wait.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
}

/// What is to change; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct WorkspaceChange {
    /// Name for people.
    pub title: Option<String>,
    /// Share of the claims.
    pub weight: Option<i64>,
    /// Bound on waiting jobs.
    pub max_queued: Option<Option<i64>>,
    /// Bound on running jobs.
    pub max_running: Option<Option<i64>>,
    /// Pause.
    pub paused: Option<bool>,
}

pub(super) fn read(row: &Row) -> Result<Workspace> {
    Ok(Workspace {
        id: row.parsed("id")?,
        slug: row.text("slug")?,
        title: row.text("title")?,
        created_at: row.int("created_at")?,
        active_version_id: row.opt_parsed("active_version_id")?,
        active_since: row.opt_int("active_since")?,
        weight: row.int("weight")?,
        max_queued: row.opt_int("max_queued")?,
        max_running: row.opt_int("max_running")?,
        paused: row.flag("paused")?,
        network: row.parsed("network")?,
        queued: row.int("queued")?,
        running: row.int("running")?,
    })
}

/// What [`WorkspaceChange`] changes.
fn changeable(workspace: &Workspace) -> Value {
    json!({
        "title": workspace.title, "weight": workspace.weight, "max_queued": workspace.max_queued,
        "max_running": workspace.max_running, "paused": workspace.paused,
    })
}

impl Store {
    /// Makes a workspace; `by` is none for the service itself, of which the audit says nothing.
    ///
    /// # Errors
    /// `Exists` when the slug is taken.
    pub async fn create_workspace(&self, slug: &str, title: &str, by: Option<&Actor>) -> Result<Workspace> {
        let id = WorkspaceId::generate();
        let mut tx = self.db.begin().await?;
        let share = tx.lock().await?.share_clock;
        tx.execute(
            "INSERT INTO workspaces (id, slug, title, created_at, share) VALUES ($1, $2, $3, $4, $5)",
            args![&id, slug, title, now_ms(), share],
        )
        .await?;
        let row = tx.fetch_one("SELECT * FROM workspaces WHERE id = $1", args![&id]).await?;
        if let Some(by) = by {
            let detail = json!({"before": null, "after": {"slug": slug, "title": title}});
            let (action, target) = (Action::WorkspaceCreate, ("workspace", id.as_str()));
            tx.note(by, Deed { workspace: Some(&id), action, target, detail }).await?;
        }
        tx.commit().await?;
        row.as_ref().map(read).unwrap_or_else(|| Err(super::StoreError::Internal("the workspace is gone".into())))
    }

    /// A workspace by its id.
    ///
    /// # Errors
    /// The database's.
    pub async fn workspace(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        self.db.fetch_one("SELECT * FROM workspaces WHERE id = $1", args![id]).await?.as_ref().map(read).transpose()
    }

    /// A workspace by its slug.
    ///
    /// # Errors
    /// The database's.
    pub async fn workspace_by_slug(&self, slug: &str) -> Result<Option<Workspace>> {
        self.db.fetch_one("SELECT * FROM workspaces WHERE slug = $1", args![slug]).await?.as_ref().map(read).transpose()
    }

    /// Workspaces by id, from the newest, after `before`.
    ///
    /// # Errors
    /// The database's.
    pub async fn workspaces(&self, before: Option<&str>, limit: i64) -> Result<Vec<Workspace>> {
        let rows = self
            .db
            .fetch(
                "SELECT * FROM workspaces WHERE ($1 IS NULL OR id < $1) ORDER BY id DESC LIMIT $2",
                args![before.map(str::to_owned), limit],
            )
            .await?;
        rows.iter().map(read).collect()
    }

    /// The workspaces with the most waiting jobs, and for how long the next jobs of each one's lanes have waited at most, ms;
    /// for metrics.
    ///
    /// # Errors
    /// The database's.
    pub async fn deepest_queues(&self, limit: i64) -> Result<Vec<(Workspace, i64)>> {
        let rows = self
            .db
            .fetch(
                "SELECT w.*, (SELECT min((SELECT j.queued_at FROM jobs j WHERE j.config_id = c.id AND j.state = 'queued' \
                 ORDER BY j.queue_rank, j.id LIMIT 1)) FROM configs c WHERE c.workspace_id = w.id AND c.queued > 0) AS oldest \
                 FROM workspaces w WHERE w.queued > 0 ORDER BY w.queued DESC LIMIT $1",
                args![limit],
            )
            .await?;
        let now = now_ms();
        rows.iter()
            .map(|row| Ok((read(row)?, row.opt_int("oldest")?.map_or(0, |since| (now - since).max(0)))))
            .collect()
    }

    /// Changes a workspace; `None` when there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn change_workspace(
        &self,
        id: &WorkspaceId,
        change: WorkspaceChange,
        by: &Actor,
    ) -> Result<Option<Workspace>> {
        let mut tx = self.db.begin().await?;
        tx.lock().await?;
        let Some(row) = tx.fetch_one("SELECT * FROM workspaces WHERE id = $1", args![id]).await? else {
            return Ok(None);
        };
        let mut workspace = read(&row)?;
        let before = changeable(&workspace);
        workspace.title = change.title.unwrap_or(workspace.title);
        workspace.weight = change.weight.unwrap_or(workspace.weight);
        workspace.max_queued = change.max_queued.unwrap_or(workspace.max_queued);
        workspace.max_running = change.max_running.unwrap_or(workspace.max_running);
        workspace.paused = change.paused.unwrap_or(workspace.paused);
        tx.execute(
            "UPDATE workspaces SET title = $2, weight = $3, max_queued = $4, max_running = $5, paused = $6 WHERE id = $1",
            args![
                id, workspace.title.as_str(), workspace.weight, workspace.max_queued, workspace.max_running,
                workspace.paused,
            ],
        )
        .await?;
        let (action, target) = (Action::WorkspaceChange, ("workspace", id.as_str()));
        tx.commit_noted(by, Deed::change(Some(id), action, target, &before, &changeable(&workspace))).await?;
        Ok(Some(workspace))
    }
}
