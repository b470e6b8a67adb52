//! Jobs as they are read; what changes them is in `queue`.

use super::Store;
use super::db::{Arg, Result, Row, Tx, args, now_ms};
use crate::ids::{ConfigId, DocumentId, JobId, KeyId, NodeId, VersionId, WorkspaceId};
use crate::queue::{JobState, Phase};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::collections::HashSet;
use utoipa::ToSchema;

/// Queue positions are counted up to this; further back is shown as this.
const MAX_POSITION: i64 = 1_000;

/// A document as a job takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentRef {
    /// The document.
    pub document_id: DocumentId,
    /// Its file name.
    pub filename: String,
    /// Its hash, lower-case hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What is known of a file in the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its size.
    pub bytes: u64,
    /// Its hash, lower-case hex.
    pub sha256: String,
}

/// A job, whole.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of migrations/, where they are explained; shown to users as JobRecord")]
pub struct JobRow {
    pub id: JobId,
    pub workspace_id: WorkspaceId,
    pub config_id: ConfigId,
    pub version_id: VersionId,
    pub state: JobState,
    pub phase: Option<Phase>,
    pub attempt: u32,
    pub retry_of: Option<JobId>,
    pub execution: u32,
    pub priority: i64,
    pub queue_rank: i64,
    pub input_hash: String,
    pub documents: Vec<DocumentRef>,
    pub metadata: Option<Value>,
    pub trace_id: String,
    pub submitted_by: Option<KeyId>,
    pub request_id: Option<String>,
    pub queued_at: i64,
    pub queue_deadline: Option<i64>,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub heartbeat_at: Option<i64>,
    pub node_id: Option<NodeId>,
    pub revision: i64,
    pub next_seq: u64,
    pub events_stored: bool,
    pub events_file: Option<StoredFile>,
    pub error: Option<Value>,
    pub result: Option<Value>,
}

impl Tx {
    /// A job, locked until the end of the transaction: neither its execution nor its node changes it meanwhile.
    pub(super) async fn lock_job(&mut self, id: &JobId) -> Result<Option<Row>> {
        let sql = self.pick("SELECT * FROM jobs WHERE id = $1", "SELECT * FROM jobs WHERE id = $1 FOR NO KEY UPDATE");
        self.fetch_one(sql, args![id]).await
    }
}

pub(super) fn read(row: &Row) -> Result<JobRow> {
    let number = |name| row.int(name).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    Ok(JobRow {
        id: row.parsed("id")?,
        workspace_id: row.parsed("workspace_id")?,
        config_id: row.parsed("config_id")?,
        version_id: row.parsed("version_id")?,
        state: row.parsed("state")?,
        phase: row.opt_parsed("phase")?,
        attempt: number("attempt")?,
        retry_of: row.opt_parsed("retry_of")?,
        execution: number("execution")?,
        priority: row.int("priority")?,
        queue_rank: row.int("queue_rank")?,
        input_hash: row.text("input_hash")?,
        documents: row.json("documents")?,
        metadata: row.opt_json("metadata")?,
        trace_id: row.text("trace_id")?,
        submitted_by: row.opt_parsed("submitted_by")?,
        request_id: row.opt_text("request_id")?,
        queued_at: row.int("queued_at")?,
        queue_deadline: row.opt_int("queue_deadline")?,
        started_at: row.opt_int("started_at")?,
        completed_at: row.opt_int("completed_at")?,
        heartbeat_at: row.opt_int("heartbeat_at")?,
        node_id: row.opt_parsed("node_id")?,
        revision: row.int("revision")?,
        next_seq: row.int("next_seq").map(|seq| u64::try_from(seq).unwrap_or_default())?,
        events_stored: row.int("events_stored")? == 1,
        events_file: match (row.opt_int("events_bytes")?, row.opt_text("events_sha256")?) {
            (Some(bytes), Some(sha256)) => Some(StoredFile { bytes: u64::try_from(bytes).unwrap_or_default(), sha256 }),
            _ => None,
        },
        error: row.opt_json("error")?,
        result: row.opt_json("result")?,
    })
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In one of these states; empty is any.
    pub states: Vec<JobState>,
    /// Of this config.
    pub config_id: Option<ConfigId>,
    /// With this document.
    pub document_id: Option<DocumentId>,
    /// Accepted after this, ms.
    pub created_after: Option<i64>,
    /// Older than this job, by id.
    pub before: Option<String>,
}

impl Store {
    /// A job of a workspace.
    ///
    /// # Errors
    /// The database's.
    pub async fn job(&self, workspace: &WorkspaceId, id: &JobId) -> Result<Option<JobRow>> {
        let row =
            self.db.fetch_one("SELECT * FROM jobs WHERE id = $1 AND workspace_id = $2", args![id, workspace]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The execution of a job, and whether it runs.
    ///
    /// # Errors
    /// The database's.
    pub async fn execution_of(&self, id: &JobId) -> Result<Option<(u32, bool)>> {
        let row = self.db.fetch_one("SELECT execution, state FROM jobs WHERE id = $1", args![id]).await?;
        row.map(|row| {
            let live = matches!(row.parsed("state")?, JobState::Running | JobState::Cancelling);
            Ok((u32::try_from(row.int("execution")?).unwrap_or_default(), live))
        })
        .transpose()
    }

    /// How many jobs of its workspace stand before a waiting job, counted from 1; at most 1,000. Priorities are in it, other
    /// workspaces' shares are not.
    ///
    /// # Errors
    /// The database's.
    pub async fn queue_position(&self, job: &JobRow) -> Result<i64> {
        let row = self
            .db
            .fetch_one(
                "SELECT count(*) AS before_it FROM (SELECT 1 FROM configs c JOIN jobs j ON j.config_id = c.id \
                 AND j.state = 'queued' AND (j.queue_rank < $2 OR (j.queue_rank = $2 AND j.id < $3)) \
                 WHERE c.workspace_id = $1 AND c.queued > 0 LIMIT $4) AS ahead",
                args![&job.workspace_id, job.queue_rank, &job.id, MAX_POSITION],
            )
            .await?;
        let before = row.map(|row| row.int("before_it")).transpose()?.unwrap_or_default();
        Ok((before + 1).min(MAX_POSITION))
    }

    /// Jobs of a workspace, newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn jobs(&self, workspace: &WorkspaceId, filter: &JobFilter, limit: i64) -> Result<Vec<JobRow>> {
        let mut sql = String::from("SELECT j.* FROM jobs j WHERE j.workspace_id = $1");
        let mut args = args![workspace];
        let mut also = |condition: &str, arg: Arg| {
            args.push(arg);
            sql.push_str(&condition.replace("$n", &format!("${}", args.len())));
        };
        if let Some(config) = &filter.config_id {
            also(" AND j.config_id = $n", config.into());
        }
        if let Some(document) = &filter.document_id {
            also(" AND j.id IN (SELECT job_id FROM job_documents WHERE document_id = $n)", document.into());
        }
        if let Some(after) = filter.created_after {
            also(" AND j.queued_at > $n", after.into());
        }
        if let Some(before) = &filter.before {
            also(" AND j.id < $n", before.as_str().into());
        }
        if !filter.states.is_empty() {
            let states: Vec<String> = filter.states.iter().map(|state| format!("'{state}'")).collect();
            sql.push_str(&format!(" AND j.state IN ({})", states.join(",")));
        }
        args.push(limit.into());
        sql.push_str(&format!(" ORDER BY j.id DESC LIMIT ${}", args.len()));
        let rows = self.db.fetch(AssertSqlSafe(sql), args).await?;
        rows.iter().map(read).collect()
    }

    /// Finished jobs that retention may delete: finished before `before` ms, or beyond the newest `keep` of their workspace.
    /// Each once, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn jobs_past_retention(&self, before: Option<i64>, keep: Option<i64>, limit: i64) -> Result<Vec<JobRow>> {
        let wanted = usize::try_from(limit).unwrap_or_default();
        let mut past = Vec::new();
        if let Some(before) = before {
            let sql =
                "SELECT * FROM jobs WHERE completed_at < $1 AND events_stored <> 0 ORDER BY completed_at LIMIT $2";
            past.extend(self.db.fetch(sql, args![before, limit]).await?);
        }
        if let Some(keep) = keep {
            let sql = "SELECT j.* FROM (SELECT jobs.*, row_number() OVER (PARTITION BY workspace_id ORDER BY completed_at DESC, id DESC) \
                 AS place FROM jobs WHERE completed_at IS NOT NULL) j WHERE j.place > $1 AND j.events_stored <> 0 \
                 ORDER BY j.completed_at LIMIT $2";
            past.extend(self.db.fetch(sql, args![keep, limit]).await?);
        }
        let mut past = past.iter().map(read).collect::<Result<Vec<_>>>()?;
        let mut named = HashSet::new();
        past.retain(|job| named.len() < wanted && named.insert(job.id.clone()));
        Ok(past)
    }

    /// Jobs that ended before `before` ms and whose event log is still stored.
    ///
    /// # Errors
    /// The database's.
    pub async fn jobs_with_old_events(&self, before: i64, limit: i64) -> Result<Vec<JobRow>> {
        let sql = "SELECT * FROM jobs WHERE completed_at < $1 AND events_stored = 1 ORDER BY completed_at LIMIT $2";
        self.db.fetch(sql, args![before, limit]).await?.iter().map(read).collect()
    }

    /// Deletes a finished job's record, after its files.
    ///
    /// # Errors
    /// The database's.
    pub async fn delete_job(&self, id: &JobId) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // A submission that finds it as its twin must still find it when it answers.
        tx.lock().await?;
        tx.keep_submission(id).await?;
        tx.execute("DELETE FROM jobs WHERE id = $1 AND completed_at IS NOT NULL", args![id]).await?;
        tx.commit().await
    }

    /// Jobs by state, over all workspaces: waiting and running ones from counters.
    ///
    /// # Errors
    /// The database's.
    pub async fn live_counts(&self) -> Result<(i64, i64)> {
        let row = self
            .db
            .fetch_one(
                "SELECT (SELECT queued FROM instance) AS queued, \
                 (SELECT count(*) FROM jobs WHERE state IN ('running', 'cancelling')) AS running",
                Vec::new(),
            )
            .await?;
        row.map_or(Ok((0, 0)), |row| Ok((row.int("queued")?, row.int("running")?)))
    }

    /// The answer to an idempotency key that was used before: the fingerprint of its request, and its job as it is now.
    ///
    /// # Errors
    /// The database's.
    pub async fn remembered(&self, workspace: &WorkspaceId, key: &str) -> Result<Option<(String, JobRow)>> {
        let row = self
            .db
            .fetch_one(
                "SELECT k.fingerprint, j.* FROM idempotency_keys k JOIN jobs j ON j.id = k.job_id \
                 WHERE k.workspace_id = $1 AND k.idempotency_key = $2 AND k.expires_at > $3",
                args![workspace, key.to_owned(), super::now_ms()],
            )
            .await?;
        row.map(|row| Ok((row.text("fingerprint")?, read(&row)?))).transpose()
    }

    /// Forgets idempotency keys that have expired.
    ///
    /// # Errors
    /// The database's.
    pub async fn expire_idempotency_keys(&self) -> Result<u64> {
        self.db.execute("DELETE FROM idempotency_keys WHERE expires_at < $1", args![now_ms()]).await
    }
}
