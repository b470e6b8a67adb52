//! The transactions of the queue but for submissions, which are in `admission`: claim, seal, end, re-queue, cancel, sweep. Each locks the queue, does all it does
//! or nothing, and leaves every counter exact.

use super::audit::{Action, Actor, Deed};
use super::db::{Arg, Result, Tx, args};
use super::instance::{Locked, QueueState};
use super::jobs::{self, DocumentRef, JobRow};
use super::{Store, StoredEvent};
use crate::blob::Digest;
use crate::events::{Event, Level};
use crate::ids::{ConfigId, JobId, NodeId, VersionId, WorkspaceId};
use crate::queue::{JobState, SHARE};
use crate::sandbox::{Failure, FailureKind};
use serde_json::{Value, json};

/// The settings that hold where an admin stored nothing.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Bound on waiting jobs of the instance.
    pub max_queued: i64,
    /// Bound on waiting jobs of a workspace.
    pub workspace_max_queued: i64,
    /// Bound on running jobs of a workspace; 0 is none.
    pub workspace_max_running: i64,
    /// How often a job may lose its execution before it fails.
    pub max_losses: i64,
    /// How long a lease holds without a heartbeat, ms.
    pub lease_ms: i64,
}

/// A job that somebody wants to run; everything but the queue's word is checked.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its config.
    pub config_id: ConfigId,
    /// Its version.
    pub version_id: VersionId,
    /// Its inputs, in order.
    pub documents: Vec<DocumentRef>,
    /// What makes two submissions the same.
    pub input_hash: String,
    /// Its priority.
    pub priority: i64,
    /// The caller's own data.
    pub metadata: Option<Value>,
    /// The job that it tries again, and that job's attempt.
    pub retry_of: Option<(JobId, u32)>,
    /// `Idempotency-Key`, and a hash of the request.
    pub idempotency: Option<(String, String)>,
    /// How long it may wait, ms.
    pub queue_timeout_ms: Option<i64>,
    /// Who submits it.
    pub by: Actor,
}

/// A job that is in the queue.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The job.
    pub job: JobRow,
    /// Whether it was there before: a twin, or the answer to an idempotency key.
    pub replayed: bool,
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The instance's.
    Instance,
    /// The workspace's.
    Workspace,
}

/// Why a submission was not taken; nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Too many jobs wait.
    Full {
        /// Whose bound it is.
        scope: Scope,
        /// Jobs that wait there.
        queued: i64,
        /// The bound.
        max: i64,
    },
    /// The queue is off.
    QueueOff,
    /// Safe mode.
    SafeMode,
    /// The same idempotency key came with another request.
    OtherRequest,
    /// A document is gone.
    DocumentGone(String),
    /// The version or its config is archived.
    Archived,
    /// The workspace is gone.
    WorkspaceGone,
}

/// A job that was handed to a node.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job, in its new execution.
    pub job: JobRow,
    /// The version's package.
    pub package_sha256: Digest,
    /// The version's number.
    pub version_number: i64,
    /// How long it had waited, ms.
    pub waited_ms: i64,
}

/// A job that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: JobId,
    /// Its execution.
    pub execution: u32,
    /// Whether it is to be stopped.
    pub cancelling: bool,
}

impl Held {
    /// Whether it is the same execution of the same job.
    #[must_use]
    pub fn same_execution(&self, other: &Self) -> bool {
        self.job == other.job && self.execution == other.execution
    }
}

/// Whether an execution's outcome may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// It may; cancels are refused from here on.
    Sealed,
    /// A cancel was accepted before: the job must end as cancelled.
    Cancelled,
    /// The execution is no longer the job's; it must change nothing.
    Fenced,
}

/// The end of an execution, and of its job.
#[derive(Debug)]
pub struct End {
    /// The final state.
    pub state: JobState,
    /// Why it did not succeed.
    pub error: Option<Value>,
    /// Files, usage, timings, network, dependencies.
    pub result: Value,
    /// The last events.
    pub events: Vec<StoredEvent>,
}

/// Why an execution ends and its job does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Requeue {
    /// The process was told to stop; does not count against the job.
    Drained,
    /// The process died, or was not heard of in time.
    Lost,
    /// Docker or the machine failed.
    Infrastructure(Failure),
}

/// What came of a cancel.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// There is no such job.
    NotFound,
    /// It is cancelled, or will be.
    Accepted(Box<JobRow>),
    /// Its outcome is being stored.
    Finishing,
    /// It has ended otherwise.
    Finished(JobState),
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Jobs that it changed.
    pub jobs: Vec<JobId>,
    /// How many of them wait again.
    pub requeued: usize,
}

impl Store {
    /// Claims up to `slots` jobs for a node.
    ///
    /// # Errors
    /// The database's; then none was claimed.
    pub async fn claim(&self, node: &NodeId, slots: usize, defaults: &Defaults) -> Result<Vec<Claimed>> {
        let mut tx = self.db.begin_of_the_moment().await?;
        let locked = tx.lock().await?;
        if locked.instance.queue_state != QueueState::On || locked.instance.safe_mode || locked.instance.queued == 0 {
            return Ok(Vec::new());
        }
        let mut clock = locked.share_clock;
        let mut claimed = Vec::new();
        while claimed.len() < slots {
            let Some(next) = next_in_line(&mut tx, defaults).await? else { break };
            let row = tx
                .fetch_one(
                    "UPDATE jobs SET state = 'running', phase = 'preparing', execution = execution + 1, node_id = $2, \
                     lease_expires_at = $3, heartbeat_at = $4, started_at = $4, sealed = 0, revision = revision + 1 \
                     WHERE id = $1 AND state = 'queued' RETURNING *",
                    args![next.job.as_str(), node, locked.now + defaults.lease_ms, locked.now],
                )
                .await?;
            let Some(row) = row else { break };
            let job = jobs::read(&row)?;
            tx.execute(
                "UPDATE workspaces SET queued = queued - 1, running = running + 1, claimed = claimed + 1, share = $2 \
                 WHERE id = $1",
                // One that stood at a bound or was paused is behind the clock; it goes first once, and saves nothing up.
                args![&job.workspace_id, next.share.max(clock) + SHARE / next.weight.max(1)],
            )
            .await?;
            tx.execute(
                "UPDATE configs SET queued = queued - 1, running = running + 1 WHERE id = $1",
                args![&job.config_id],
            )
            .await?;
            clock = clock.max(next.share);
            let version = tx
                .fetch_one("SELECT package_sha256, number FROM config_versions WHERE id = $1", args![&job.version_id])
                .await?
                .ok_or_else(|| super::StoreError::Internal(format!("{} is gone", job.version_id)))?;
            let (package_sha256, version_number) = (version.parsed("package_sha256")?, version.int("number")?);
            let waited_ms = (locked.now - job.queued_at).max(0);
            claimed.push(Claimed { job, package_sha256, version_number, waited_ms });
        }
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let count = i64::try_from(claimed.len()).unwrap_or_default();
        tx.execute(
            "UPDATE instance SET queued = queued - $1, claimed = claimed + $1, share_clock = $2",
            args![count, clock],
        )
        .await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Extends the leases of a node; what it has.
    ///
    /// # Errors
    /// The database's.
    pub async fn heartbeat(&self, node: &NodeId, lease_ms: i64) -> Result<Vec<Held>> {
        let mut tx = self.db.begin_of_the_moment().await?;
        let now = tx.now().await?;
        let sql = tx.pick(
            "UPDATE jobs SET heartbeat_at = $2, lease_expires_at = $3 WHERE node_id = $1 \
             AND state IN ('running', 'cancelling') RETURNING id, execution, state",
            "UPDATE jobs SET heartbeat_at = $2, lease_expires_at = $3 WHERE id IN (SELECT id FROM jobs WHERE node_id = $1 \
             AND state IN ('running', 'cancelling') ORDER BY id FOR NO KEY UPDATE) RETURNING id, execution, state",
        );
        let rows = tx.fetch(sql, args![node, now, now + lease_ms]).await?;
        tx.commit().await?;
        rows.iter()
            .map(|row| {
                Ok(Held {
                    job: row.parsed("id")?,
                    execution: u32::try_from(row.int("execution")?).unwrap_or_default(),
                    cancelling: row.text("state")? == "cancelling",
                })
            })
            .collect()
    }

    /// Closes a job for cancels, so that its outcome can be stored.
    ///
    /// # Errors
    /// The database's.
    pub async fn seal(&self, job: &JobId, execution: u32) -> Result<Seal> {
        let mut tx = self.db.begin_of_the_moment().await?;
        let row = tx
            .fetch_one(
                "UPDATE jobs SET sealed = 1, phase = 'collecting', revision = revision + 1 WHERE id = $1 AND execution = $2 \
                 AND state IN ('running', 'cancelling') RETURNING state",
                args![job, execution],
            )
            .await?;
        tx.commit().await?;
        match row {
            None => Ok(Seal::Fenced),
            Some(row) if row.text("state")? == "cancelling" => Ok(Seal::Cancelled),
            Some(_) => Ok(Seal::Sealed),
        }
    }

    /// Stores the end of a job with its last events. False when the execution was fenced off, and nothing was stored.
    ///
    /// # Errors
    /// The database's, or `Internal` when the state is no end; then nothing was stored.
    pub async fn finish(&self, job: &JobId, execution: u32, end: &End) -> Result<bool> {
        if !end.state.is_final() {
            return Err(super::StoreError::Internal(format!("a job cannot end as {}", end.state)));
        }
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let row = tx
            .fetch_one(
                "UPDATE jobs SET state = $3, phase = NULL, completed_at = $4, heartbeat_at = $4, lease_expires_at = NULL, \
                 error = $5, result = $6, next_seq = COALESCE($7, next_seq), revision = revision + 1 \
                 WHERE id = $1 AND execution = $2 AND (state = 'running' OR (state = 'cancelling' AND $3 = 'cancelled')) \
                 RETURNING workspace_id, config_id",
                args![
                    job, execution, end.state.as_str(), locked.now, end.error.as_ref().map(Value::to_string),
                    end.result.to_string(),
                    end.events.last().map(|event| i64::try_from(event.seq + 1).unwrap_or(i64::MAX)),
                ],
            )
            .await?;
        let Some(row) = row else { return Ok(false) };
        count(&mut tx, &row.parsed("workspace_id")?, &row.parsed("config_id")?, 0, -1).await?;
        tx.insert_events(job, &end.events).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends an execution and not its job: the job waits again at its old place, unless it was cancelled, or has lost too many
    /// executions. Returns its new state; `None` when the execution was fenced off.
    ///
    /// # Errors
    /// The database's.
    pub async fn requeue(
        &self,
        job: &JobId,
        execution: u32,
        why: &Requeue,
        defaults: &Defaults,
    ) -> Result<Option<JobState>> {
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let Some(row) = tx.lock_job(job).await? else { return Ok(None) };
        let (losses, job) = (row.int("losses")?, jobs::read(&row)?);
        if job.execution != execution || !matches!(job.state, JobState::Running | JobState::Cancelling) {
            return Ok(None);
        }
        let state = end_execution(&mut tx, &locked, &job, losses, why, defaults).await?;
        tx.commit().await?;
        Ok(Some(state))
    }

    /// Re-queues what nodes have lost: leases that ran out, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep_leases(&self, limit: i64, defaults: &Defaults) -> Result<Swept> {
        const EXPIRED: &str = "SELECT * FROM jobs WHERE state IN ('running', 'cancelling') AND lease_expires_at < $1 \
            ORDER BY lease_expires_at LIMIT $2";
        // Without the lock first: there is next to never anything to do.
        if self.db.fetch(EXPIRED, args![super::now_ms(), 1]).await?.is_empty() {
            return Ok(Swept::default());
        }
        // A row that somebody is writing shows a sign of life, or is the next sweep's.
        const UNLOCKED: &str = "SELECT * FROM jobs WHERE state IN ('running', 'cancelling') AND lease_expires_at < $1 \
            ORDER BY lease_expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED";
        self.sweep(EXPIRED, UNLOCKED, None, limit, defaults).await
    }

    /// Re-queues what an earlier process of this node had: it cannot come back for it.
    ///
    /// # Errors
    /// The database's.
    pub async fn recover(&self, node: &NodeId, limit: i64, defaults: &Defaults) -> Result<Swept> {
        const OWN: &str =
            "SELECT * FROM jobs WHERE state IN ('running', 'cancelling') AND node_id = $1 ORDER BY id LIMIT $2";
        const LOCKED: &str = "SELECT * FROM jobs WHERE state IN ('running', 'cancelling') AND node_id = $1 \
            ORDER BY id LIMIT $2 FOR NO KEY UPDATE";
        self.sweep(OWN, LOCKED, Some(node.into()), limit, defaults).await
    }

    async fn sweep(
        &self,
        sqlite: &'static str,
        postgres: &'static str,
        first: Option<Arg>,
        limit: i64,
        defaults: &Defaults,
    ) -> Result<Swept> {
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let sql = tx.pick(sqlite, postgres);
        let rows = tx.fetch(sql, vec![first.unwrap_or_else(|| locked.now.into()), limit.into()]).await?;
        let mut swept = Swept::default();
        for row in rows {
            let job = jobs::read(&row)?;
            let state = end_execution(&mut tx, &locked, &job, row.int("losses")?, &Requeue::Lost, defaults).await?;
            swept.requeued += usize::from(state == JobState::Queued);
            swept.jobs.push(job.id);
        }
        tx.commit().await?;
        Ok(swept)
    }

    /// Fails jobs that have waited longer than they may, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep_deadlines(&self, limit: i64) -> Result<Swept> {
        const LATE: &str = "SELECT * FROM jobs WHERE state = 'queued' AND queue_deadline IS NOT NULL \
            AND queue_deadline < $1 ORDER BY queue_deadline LIMIT $2";
        if self.db.fetch(LATE, args![super::now_ms(), 1]).await?.is_empty() {
            return Ok(Swept::default());
        }
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let rows = tx.fetch(LATE, args![locked.now, limit]).await?;
        let mut swept = Swept::default();
        for row in rows {
            let job = jobs::read(&row)?;
            let waited = (locked.now - job.queued_at) / 1000;
            let failure = Failure::new(
                FailureKind::QueueTimeout,
                format!(
                    "the job was accepted {waited} s ago and has waited longer than it may; retry it when the queue is shorter, or submit it with a longer queue_timeout_seconds"
                ),
            );
            end_waiting(&mut tx, &locked, &job, JobState::Failed, &failure).await?;
            swept.jobs.push(job.id);
        }
        tx.commit().await?;
        Ok(swept)
    }

    /// Cancels a job, in whatever state it is.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel(&self, workspace: &WorkspaceId, id: &JobId, by: &Actor) -> Result<Cancelled> {
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let Some(row) = tx.lock_job(id).await? else { return Ok(Cancelled::NotFound) };
        let job = jobs::read(&row)?;
        if job.workspace_id != *workspace {
            return Ok(Cancelled::NotFound);
        }
        match job.state {
            JobState::Queued => {
                let failure = Failure::new(
                    FailureKind::Cancelled,
                    "the job was cancelled while it waited; nothing of this execution was run",
                );
                end_waiting(&mut tx, &locked, &job, JobState::Cancelled, &failure).await?;
            }
            JobState::Running if row.flag("sealed")? => return Ok(Cancelled::Finishing),
            JobState::Running => {
                tx.execute("UPDATE jobs SET state = 'cancelling', revision = revision + 1 WHERE id = $1", args![id])
                    .await?;
            }
            JobState::Cancelling | JobState::Cancelled => return Ok(Cancelled::Accepted(Box::new(job))),
            JobState::Succeeded | JobState::Failed => return Ok(Cancelled::Finished(job.state)),
        }
        let Some(row) = tx.fetch_one("SELECT * FROM jobs WHERE id = $1", args![id]).await? else {
            return Ok(Cancelled::NotFound);
        };
        let now = jobs::read(&row)?;
        let detail = json!({"before": {"status": job.state}, "after": {"status": now.state}});
        let deed = Deed { workspace: Some(workspace), action: Action::JobCancel, target: ("job", id.as_str()), detail };
        tx.note(by, deed).await?;
        tx.commit().await?;
        Ok(Cancelled::Accepted(Box::new(now)))
    }
}

struct Next {
    job: String,
    share: i64,
    weight: i64,
}

/// The job that is next: of the workspace that was charged least and may run one more, the lowest rank among the heads of the
/// lanes that may run one more.
async fn next_in_line(tx: &mut Tx, defaults: &Defaults) -> Result<Option<Next>> {
    const PAGE: i64 = 16;
    let mut skipped = 0;
    loop {
        let workspaces = tx
            .fetch(
                "SELECT id, share, weight FROM workspaces WHERE queued > 0 AND paused = 0 \
                 AND (COALESCE(max_running, $1) = 0 OR running < COALESCE(max_running, $1)) \
                 ORDER BY share, id LIMIT $2 OFFSET $3",
                args![defaults.workspace_max_running, PAGE, skipped],
            )
            .await?;
        for row in &workspaces {
            let head = tx
                .fetch_one(
                    "SELECT j.id AS id FROM configs c JOIN jobs j ON j.id = (SELECT q.id FROM jobs q \
                     WHERE q.config_id = c.id AND q.state = 'queued' ORDER BY q.queue_rank, q.id LIMIT 1) \
                     WHERE c.workspace_id = $1 AND c.queued > 0 AND (c.max_running IS NULL OR c.running < c.max_running) \
                     ORDER BY j.queue_rank, j.id LIMIT 1",
                    args![row.text("id")?],
                )
                .await?;
            if let Some(head) = head {
                return Ok(Some(Next { job: head.text("id")?, share: row.int("share")?, weight: row.int("weight")? }));
            }
        }
        if i64::try_from(workspaces.len()).unwrap_or_default() < PAGE {
            return Ok(None);
        }
        // All their lanes are at their bounds; there are no more such workspaces than jobs that run.
        skipped += PAGE;
    }
}

/// Moves the counters of a workspace and a lane; those of the instance follow what waits.
async fn count(tx: &mut Tx, workspace: &WorkspaceId, config: &ConfigId, queued: i64, running: i64) -> Result<()> {
    tx.execute(
        "UPDATE workspaces SET queued = queued + $2, running = running + $3 WHERE id = $1",
        args![workspace, queued, running],
    )
    .await?;
    tx.execute(
        "UPDATE configs SET queued = queued + $2, running = running + $3 WHERE id = $1",
        args![config, queued, running],
    )
    .await?;
    if queued != 0 {
        tx.execute("UPDATE instance SET queued = queued + $1", args![queued]).await?;
    }
    Ok(())
}

/// Ends a job that waits.
async fn end_waiting(tx: &mut Tx, locked: &Locked, job: &JobRow, state: JobState, failure: &Failure) -> Result<()> {
    let mut log = Lines::new(job, job.next_seq);
    let level = if state == JobState::Cancelled {
        log.add("cancel", Level::Warning, None, json!({}));
        Level::Warning
    } else {
        Level::Error
    };
    log.add("error", level, None, json!(failure));
    log.add("exit", Level::Info, Some(state), json!({}));
    tx.execute(
        "UPDATE jobs SET state = $2, completed_at = $3, error = $4, next_seq = $5, revision = revision + 1 WHERE id = $1",
        args![&job.id, state.as_str(), locked.now, json!(failure).to_string(), log.next_seq()],
    )
    .await?;
    tx.insert_events(&job.id, &log.lines).await?;
    count(tx, &job.workspace_id, &job.config_id, -1, 0).await
}

/// Ends an execution that did not come to an end of its own.
async fn end_execution(
    tx: &mut Tx,
    locked: &Locked,
    job: &JobRow,
    losses: i64,
    why: &Requeue,
    defaults: &Defaults,
) -> Result<JobState> {
    let counts = *why != Requeue::Drained;
    let losses = losses + i64::from(counts);
    let (reason, failure) = match why {
        Requeue::Drained => ("drained", None),
        Requeue::Lost => ("node_lost", None),
        Requeue::Infrastructure(failure) => (failure.kind.as_str(), Some(failure.clone())),
    };
    let mut log = Lines::new(job, job.next_seq);
    let outcome = if job.state == JobState::Cancelling {
        let message = "the job was cancelled while it ran; its container is gone and no workbook was kept";
        Some((JobState::Cancelled, Failure::new(FailureKind::Cancelled, message)))
    } else if counts && losses >= defaults.max_losses {
        let failure = failure.unwrap_or_else(|| {
            let message = format!(
                "the job lost {losses} executions because their process or node went away; look at that machine's log, then retry the job"
            );
            Failure::new(FailureKind::NodeLost, message)
        });
        Some((JobState::Failed, failure))
    } else {
        None
    };
    let state = match outcome {
        Some((state, failure)) => {
            let level = if state == JobState::Cancelled { Level::Warning } else { Level::Error };
            log.add("error", level, None, json!(failure));
            log.add("exit", Level::Info, Some(state), json!({}));
            tx.execute(
                "UPDATE jobs SET state = $2, phase = NULL, completed_at = $3, lease_expires_at = NULL, error = $4, \
                 next_seq = $5, losses = $6, revision = revision + 1 WHERE id = $1",
                args![&job.id, state.as_str(), locked.now, json!(failure).to_string(), log.next_seq(), losses],
            )
            .await?;
            count(tx, &job.workspace_id, &job.config_id, 0, -1).await?;
            state
        }
        None => {
            log.add("requeue", Level::Warning, Some(JobState::Queued), json!({"reason": reason}));
            tx.execute(
                // What the execution took was no waiting.
                "UPDATE jobs SET state = 'queued', phase = NULL, node_id = NULL, lease_expires_at = NULL, next_seq = $2, \
                 losses = $3, queue_deadline = queue_deadline + ($4 - started_at), revision = revision + 1 WHERE id = $1",
                args![&job.id, log.next_seq(), losses, locked.now],
            )
            .await?;
            count(tx, &job.workspace_id, &job.config_id, 1, -1).await?;
            JobState::Queued
        }
    };
    tx.insert_events(&job.id, &log.lines).await?;
    Ok(state)
}

/// Events that the queue itself writes, while no execution does.
pub(super) struct Lines<'a> {
    job: &'a JobRow,
    seq: u64,
    pub(super) lines: Vec<StoredEvent>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(job: &'a JobRow, seq: u64) -> Self {
        Self { job, seq, lines: Vec::new() }
    }

    pub(super) fn add(&mut self, event: &'static str, level: Level, state: Option<JobState>, detail: Value) {
        let event = Event {
            ts: crate::events::now(),
            seq: self.seq,
            event: event.into(),
            level,
            job_id: self.job.id.to_string(),
            attempt: self.job.attempt,
            execution: self.job.execution,
            state: state.map(|state| state.as_str().into()),
            duration_ms: None,
            detail: detail.as_object().cloned().unwrap_or_default(),
        };
        let line = serde_json::to_string(&event).unwrap_or_default();
        self.lines.push(StoredEvent { seq: self.seq, line });
        self.seq += 1;
    }

    fn next_seq(&self) -> i64 {
        i64::try_from(self.seq).unwrap_or(i64::MAX)
    }
}
