//! Events of jobs that are not finished, or whose log was not stored yet. The lines are the engine's own.

use super::Store;
use super::db::{Result, Tx, args};
use super::jobs::StoredFile;
use crate::ids::{JobId, WorkspaceId};
use crate::queue::Phase;

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence number.
    pub seq: u64,
    /// One JSON object, without the newline.
    pub line: String,
}

impl Tx {
    pub(super) async fn insert_events(&mut self, job: &JobId, events: &[StoredEvent]) -> Result<()> {
        let rows = events
            .iter()
            .map(|event| args![job, i64::try_from(event.seq).unwrap_or(i64::MAX), event.line.as_str()])
            .collect();
        self.insert("INSERT INTO job_events (job_id, seq, line) VALUES", "", rows).await
    }
}

impl Store {
    /// Appends events of running executions, all in one transaction. Returns those that were fenced off: their execution is
    /// no longer the job's, and nothing of theirs was written.
    ///
    /// # Errors
    /// The database's; then nothing was written.
    pub async fn append_events(
        &self,
        batch: &[(JobId, u32, Option<Phase>, Vec<StoredEvent>)],
    ) -> Result<Vec<(JobId, u32)>> {
        let mut fenced = Vec::new();
        let mut batch: Vec<_> = batch.iter().collect();
        // Rows of jobs are taken by ascending id everywhere; the entries of one job stay in order.
        batch.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tx = self.db.begin_of_the_moment().await?;
        for (job, execution, phase, events) in batch {
            let next = events.last().map(|event| i64::try_from(event.seq + 1).unwrap_or(i64::MAX));
            let changed = tx
                .execute(
                    "UPDATE jobs SET next_seq = COALESCE($3, next_seq), phase = COALESCE($4, phase), \
                     revision = revision + CASE WHEN $4 IS NULL THEN 0 ELSE 1 END \
                     WHERE id = $1 AND execution = $2 AND state IN ('running', 'cancelling')",
                    args![job, *execution, next, phase.map(|phase| phase.as_str().to_owned())],
                )
                .await?;
            if changed == 0 {
                fenced.push((job.clone(), *execution));
            } else {
                tx.insert_events(job, events).await?;
            }
        }
        tx.commit().await?;
        Ok(fenced)
    }

    /// Events of a job after `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn events_after(&self, job: &JobId, after: u64, limit: i64) -> Result<Vec<StoredEvent>> {
        let rows = self
            .db
            .fetch(
                "SELECT seq, line FROM job_events WHERE job_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
                args![job, i64::try_from(after).unwrap_or(i64::MAX), limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredEvent { seq: u64::try_from(row.int("seq")?).unwrap_or_default(), line: row.text("line")? })
            })
            .collect()
    }

    /// Finished jobs whose events are still here, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn jobs_with_loose_events(&self, limit: i64) -> Result<Vec<(WorkspaceId, JobId, u32)>> {
        let rows = self
            .db
            .fetch(
                "SELECT id, workspace_id, execution FROM jobs WHERE events_stored = 0 AND completed_at IS NOT NULL \
                 ORDER BY completed_at LIMIT $1",
                args![limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let execution = u32::try_from(row.int("execution")?).unwrap_or_default();
                Ok((row.parsed("workspace_id")?, row.parsed("id")?, execution))
            })
            .collect()
    }

    /// Drops a finished job's events here, once its log is stored as this file; of one that has not ended, nothing is dropped.
    ///
    /// # Errors
    /// The database's.
    pub async fn events_are_stored(&self, job: &JobId, file: &StoredFile) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // Not when they are gone already: another node may have stored them, and retention have deleted them, meanwhile.
        let sql = "UPDATE jobs SET events_stored = 1, events_bytes = $2, events_sha256 = $3 \
            WHERE id = $1 AND completed_at IS NOT NULL AND events_stored = 0";
        let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
        if tx.execute(sql, args![job, bytes, file.sha256.as_str()]).await? > 0 {
            tx.execute("DELETE FROM job_events WHERE job_id = $1", args![job]).await?;
        }
        tx.commit().await
    }

    /// Notes that a job's log was deleted by retention.
    ///
    /// # Errors
    /// The database's.
    pub async fn events_are_gone(&self, job: &JobId) -> Result<()> {
        self.db
            .execute("UPDATE jobs SET events_stored = 2, revision = revision + 1 WHERE id = $1", args![job])
            .await
            .map(drop)
    }
}
