//! Admission: a batch of submissions, judged and stored in one transaction.

use super::db::{Arg, Result, Tx, args, list};
use super::instance::{Locked, QueueState};
use super::jobs::{self, JobRow};
use super::queue::{Admitted, Defaults, Lines, Refused, Scope, Submission};
use super::{Store, StoredEvent};
use crate::events::Level;
use crate::ids::{ConfigId, JobId, VersionId, WorkspaceId};
use crate::queue::{IDEMPOTENCY_MS, JobState, rank};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl Store {
    /// Takes a batch of submissions, in order, each with an answer of its own.
    ///
    /// # Errors
    /// The database's; then none was taken.
    pub async fn submit(
        &self,
        batch: &[Submission],
        defaults: &Defaults,
    ) -> Result<(Vec<std::result::Result<Admitted, Refused>>, Totals)> {
        let mut tx = self.db.begin().await?;
        let locked = tx.lock().await?;
        let mut admission = Admission::read(&mut tx, &locked, batch, defaults).await?;
        let verdicts: Vec<_> = batch.iter().map(|submission| admission.judge(submission)).collect();
        admission.store(&mut tx).await?;
        let mut answers = Vec::with_capacity(batch.len());
        for verdict in verdicts {
            answers.push(match verdict {
                Verdict::New(index) => Ok(Admitted { job: admission.new[index].clone(), replayed: false }),
                Verdict::Twin(index) => Ok(Admitted { job: admission.new[index].clone(), replayed: true }),
                Verdict::Known(id) => match tx.fetch_one("SELECT * FROM jobs WHERE id = $1", args![&id]).await? {
                    Some(row) => Ok(Admitted { job: jobs::read(&row)?, replayed: true }),
                    None => return Err(super::StoreError::Internal(format!("{id} is gone"))),
                },
                Verdict::Refused(refused) => Err(refused),
            });
        }
        let totals = Totals { now: locked.now, claimed: locked.instance.claimed, workspaces: admission.claimed() };
        tx.commit().await?;
        Ok((answers, totals))
    }
}

/// What a batch saw of the instance's counters: the material of the drain rate.
#[derive(Debug, Clone)]
pub struct Totals {
    /// When, ms.
    pub now: i64,
    /// Claims ever made.
    pub claimed: i64,
    /// Claims ever made by workspace, for those in the batch.
    pub workspaces: Vec<(WorkspaceId, i64)>,
}

enum Verdict {
    New(usize),
    Twin(usize),
    Known(JobId),
    Refused(Refused),
}

struct Line {
    queued: i64,
    max: i64,
    claimed: i64,
    idle: bool,
}

/// Jobs that try the same work again, and those that they try again.
#[derive(Default)]
struct Attempts(HashMap<JobId, Attempt>);

#[derive(Debug, Clone)]
struct Attempt {
    retry_of: Option<JobId>,
    number: u32,
    /// Whether it waits or runs, and is not being cancelled.
    live: bool,
}

impl Attempts {
    /// The first of the attempts that lead to a job, as far as they were not deleted.
    fn first<'a>(&'a self, mut job: &'a JobId) -> &'a JobId {
        // A job is older than its retries: this ends.
        while let Some(of) = self.0.get(job).and_then(|attempt| attempt.retry_of.as_ref())
            && self.0.contains_key(of)
        {
            job = of;
        }
        job
    }

    /// Of all attempts with the same first one as this job, the last.
    fn newest(&self, job: &JobId) -> Option<(JobId, Attempt)> {
        let first = self.first(job);
        let all = self.0.iter().filter(|(id, _)| self.first(id) == first);
        all.max_by_key(|(id, attempt)| (attempt.number, *id)).map(|(id, attempt)| (id.clone(), attempt.clone()))
    }
}

/// One batch of submissions, being judged. Reads everything first, so that the verdicts are plain code.
struct Admission {
    now: i64,
    share_clock: i64,
    open: std::result::Result<(), Refused>,
    queued: i64,
    max_queued: i64,
    lines: HashMap<WorkspaceId, Line>,
    present: BTreeSet<String>,
    archived: BTreeSet<String>,
    twins: HashMap<(VersionId, String), JobId>,
    attempts: Attempts,
    remembered: HashMap<(WorkspaceId, String), (String, JobId)>,
    new: Vec<JobRow>,
    keys: Vec<NewAnswer>,
}

/// An idempotency key that is to be remembered.
struct NewAnswer {
    workspace: WorkspaceId,
    key: String,
    fingerprint: String,
    job: JobId,
}

impl Admission {
    async fn read(tx: &mut Tx, locked: &Locked, batch: &[Submission], defaults: &Defaults) -> Result<Self> {
        let instance = &locked.instance;
        let mut lines = HashMap::new();
        let workspaces: BTreeSet<&str> = batch.iter().map(|submission| submission.workspace_id.as_str()).collect();
        let sql = "SELECT id, queued, running, claimed, max_queued FROM workspaces WHERE id IN";
        for row in fetch_in(tx, sql, "", &workspaces).await? {
            let queued = row.int("queued")?;
            let max = row.opt_int("max_queued")?.unwrap_or(defaults.workspace_max_queued);
            lines.insert(row.parsed("id")?, Line { queued, max, claimed: row.int("claimed")?, idle: queued == 0 });
        }
        let documents: BTreeSet<&str> = batch
            .iter()
            .flat_map(|submission| submission.documents.iter().map(|document| document.document_id.as_str()))
            .collect();
        let sql = "SELECT id FROM documents WHERE deleted_at IS NULL AND id IN";
        let present = fetch_in(tx, sql, "", &documents).await?;
        let present = present.iter().map(|row| row.text("id")).collect::<Result<_>>()?;
        let versions: BTreeSet<&str> = batch.iter().map(|submission| submission.version_id.as_str()).collect();
        let sql = "SELECT v.id FROM config_versions v JOIN configs c ON c.id = v.config_id \
                   WHERE (v.archived_at IS NOT NULL OR c.archived_at IS NOT NULL) AND v.id IN";
        let archived = fetch_in(tx, sql, "", &versions).await?;
        let archived = archived.iter().map(|row| row.text("id")).collect::<Result<_>>()?;
        let hashes: BTreeSet<&str> = batch
            .iter()
            .filter(|submission| submission.retry_of.is_none())
            .map(|submission| submission.input_hash.as_str())
            .collect();
        let sql = "SELECT id, version_id, input_hash FROM jobs WHERE input_hash IN";
        // Ascending, so that the newest is what remains in the map.
        let tail = "AND state IN ('queued', 'running', 'succeeded') ORDER BY id";
        let mut twins = HashMap::new();
        for row in fetch_in(tx, sql, tail, &hashes).await? {
            twins.insert((row.parsed("version_id")?, row.text("input_hash")?), row.parsed("id")?);
        }
        let hashes: BTreeSet<&str> = batch
            .iter()
            .filter(|submission| submission.retry_of.is_some())
            .map(|submission| submission.input_hash.as_str())
            .collect();
        // A retry is of the same work: its hash finds all attempts.
        let sql = "SELECT id, retry_of, attempt, state FROM jobs WHERE input_hash IN";
        let mut attempts = Attempts::default();
        for row in fetch_in(tx, sql, "", &hashes).await? {
            let number = u32::try_from(row.int("attempt")?).unwrap_or(u32::MAX);
            let live = matches!(row.parsed("state")?, JobState::Queued | JobState::Running);
            attempts.0.insert(row.parsed("id")?, Attempt { retry_of: row.opt_parsed("retry_of")?, number, live });
        }
        let keys: BTreeSet<&str> =
            batch.iter().filter_map(|s| s.idempotency.as_ref().map(|(key, _)| key.as_str())).collect();
        // A key whose job was deleted has no answer any more: it is free again.
        let sql = "SELECT k.workspace_id AS workspace_id, idempotency_key, fingerprint, job_id, expires_at \
            FROM idempotency_keys k JOIN jobs j ON j.id = k.job_id WHERE idempotency_key IN";
        let mut remembered = HashMap::new();
        for row in fetch_in(tx, sql, "", &keys).await? {
            if row.int("expires_at")? > locked.now {
                let key = (row.parsed("workspace_id")?, row.text("idempotency_key")?);
                remembered.insert(key, (row.text("fingerprint")?, row.parsed("job_id")?));
            }
        }
        let open = match instance.queue_state {
            _ if instance.safe_mode => Err(Refused::SafeMode),
            QueueState::Off => Err(Refused::QueueOff),
            QueueState::On | QueueState::Paused => Ok(()),
        };
        Ok(Self {
            now: locked.now,
            share_clock: locked.share_clock,
            open,
            queued: instance.queued,
            max_queued: instance.max_queued.unwrap_or(defaults.max_queued),
            lines,
            present,
            archived,
            twins,
            attempts,
            remembered,
            new: Vec::new(),
            keys: Vec::new(),
        })
    }

    fn judge(&mut self, submission: &Submission) -> Verdict {
        if let Some((key, asked)) = &submission.idempotency
            && let Some((fingerprint, job)) = self.remembered.get(&(submission.workspace_id.clone(), key.clone()))
        {
            return if asked == fingerprint {
                self.known(job.clone())
            } else {
                Verdict::Refused(Refused::OtherRequest)
            };
        }
        if let Err(refused) = &self.open {
            return Verdict::Refused(refused.clone());
        }
        let twin = (submission.version_id.clone(), submission.input_hash.clone());
        if submission.retry_of.is_none()
            && let Some(job) = self.twins.get(&twin).cloned()
        {
            self.remember(submission, &job);
            return self.known(job);
        }
        let mut number = 1;
        if let Some((of, known)) = &submission.retry_of {
            match self.attempts.newest(of) {
                // Somebody was faster: it is tried again already.
                Some((job, newest)) if newest.live => {
                    self.remember(submission, &job);
                    return self.known(job);
                }
                newest => number = newest.map_or(*known, |(_, newest)| newest.number.max(*known)).saturating_add(1),
            }
        }
        if self.archived.contains(submission.version_id.as_str()) {
            return Verdict::Refused(Refused::Archived);
        }
        if let Some(gone) =
            submission.documents.iter().find(|document| !self.present.contains(document.document_id.as_str()))
        {
            return Verdict::Refused(Refused::DocumentGone(gone.document_id.to_string()));
        }
        let Some(line) = self.lines.get_mut(&submission.workspace_id) else {
            return Verdict::Refused(Refused::WorkspaceGone);
        };
        let full = |scope, queued, max| Verdict::Refused(Refused::Full { scope, queued, max });
        if self.queued >= self.max_queued {
            return full(Scope::Instance, self.queued, self.max_queued);
        }
        if line.queued >= line.max {
            return full(Scope::Workspace, line.queued, line.max);
        }
        self.queued += 1;
        line.queued += 1;
        let job = new_job(submission, number, self.now);
        self.remember(submission, &job.id);
        let retry_of = job.retry_of.clone();
        self.attempts.0.insert(job.id.clone(), Attempt { retry_of, number, live: true });
        self.twins.insert(twin, job.id.clone());
        self.new.push(job);
        Verdict::New(self.new.len() - 1)
    }

    /// The answer to a key is its answer from here on, whether the job is new or was there.
    fn remember(&mut self, submission: &Submission, job: &JobId) {
        let Some((key, fingerprint)) = submission.idempotency.clone() else { return };
        let workspace = submission.workspace_id.clone();
        self.remembered.insert((workspace.clone(), key.clone()), (fingerprint.clone(), job.clone()));
        self.keys.push(NewAnswer { workspace, key, fingerprint, job: job.clone() });
    }

    fn known(&self, id: JobId) -> Verdict {
        match self.new.iter().position(|job| job.id == id) {
            Some(index) => Verdict::Twin(index),
            None => Verdict::Known(id),
        }
    }

    fn claimed(&self) -> Vec<(WorkspaceId, i64)> {
        self.lines.iter().map(|(id, line)| (id.clone(), line.claimed)).collect()
    }

    async fn store(&self, tx: &mut Tx) -> Result<()> {
        if !self.new.is_empty() {
            self.store_jobs(tx).await?;
        }
        let expires_at = self.now + IDEMPOTENCY_MS;
        let keys = self
            .keys
            .iter()
            .map(|new| args![&new.workspace, new.key.as_str(), new.fingerprint.as_str(), &new.job, expires_at])
            .collect();
        tx.insert(
            "INSERT INTO idempotency_keys (workspace_id, idempotency_key, fingerprint, job_id, expires_at) VALUES",
            "ON CONFLICT (idempotency_key, workspace_id) DO UPDATE SET fingerprint = excluded.fingerprint, \
             job_id = excluded.job_id, expires_at = excluded.expires_at",
            keys,
        )
        .await
    }

    async fn store_jobs(&self, tx: &mut Tx) -> Result<()> {
        let jobs = self
            .new
            .iter()
            .map(|job| {
                args![
                    &job.id,
                    &job.workspace_id,
                    &job.config_id,
                    &job.version_id,
                    "queued",
                    job.attempt,
                    job.retry_of.as_ref(),
                    job.priority,
                    job.queue_rank,
                    job.input_hash.as_str(),
                    json!(job.documents).to_string(),
                    job.metadata.as_ref().map(Value::to_string),
                    job.trace_id.as_str(),
                    job.submitted_by.as_ref(),
                    job.request_id.as_deref().map(str::to_owned),
                    job.queued_at,
                    job.queue_deadline,
                    i64::try_from(job.next_seq).unwrap_or_default(),
                ]
            })
            .collect();
        tx.insert(
            "INSERT INTO jobs (id, workspace_id, config_id, version_id, state, attempt, retry_of, priority, queue_rank, \
             input_hash, documents, metadata, trace_id, submitted_by, request_id, queued_at, queue_deadline, next_seq) VALUES",
            "",
            jobs,
        )
        .await?;
        let documents: BTreeSet<(&str, &str)> = self
            .new
            .iter()
            .flat_map(|job| job.documents.iter().map(|document| (document.document_id.as_str(), job.id.as_str())))
            .collect();
        let documents = documents.into_iter().map(|(document, job)| args![document, job]).collect();
        tx.insert("INSERT INTO job_documents (document_id, job_id) VALUES", "", documents).await?;
        let events = self
            .new
            .iter()
            .flat_map(|job| {
                first_events(job)
                    .into_iter()
                    .map(|event| args![&job.id, i64::try_from(event.seq).unwrap_or_default(), event.line])
            })
            .collect();
        tx.insert("INSERT INTO job_events (job_id, seq, line) VALUES", "", events).await?;
        let mut by_workspace: BTreeMap<&WorkspaceId, i64> = BTreeMap::new();
        let mut by_config: BTreeMap<&ConfigId, i64> = BTreeMap::new();
        for job in &self.new {
            *by_workspace.entry(&job.workspace_id).or_default() += 1;
            *by_config.entry(&job.config_id).or_default() += 1;
        }
        let by_workspace = by_workspace.into_iter().map(|(workspace, added)| {
            let idle = self.lines.get(workspace).is_some_and(|line| line.idle);
            // A workspace that had nothing waiting starts at the others' clock: what it did not use is gone.
            let floor = if idle { self.share_clock } else { 0 };
            args![workspace, added, floor]
        });
        tx.insert(
            "UPDATE workspaces SET queued = queued + v.column2, \
             share = CASE WHEN share < v.column3 THEN v.column3 ELSE share END FROM (VALUES",
            ") AS v WHERE id = v.column1",
            by_workspace.collect(),
        )
        .await?;
        let by_config = by_config.into_iter().map(|(config, added)| args![config, added]);
        tx.insert(
            "UPDATE configs SET queued = queued + v.column2 FROM (VALUES",
            ") AS v WHERE id = v.column1",
            by_config.collect(),
        )
        .await?;
        let added = i64::try_from(self.new.len()).unwrap_or_default();
        tx.execute("UPDATE instance SET queued = queued + $1", args![added]).await.map(drop)
    }
}

fn new_job(submission: &Submission, attempt: u32, now: i64) -> JobRow {
    JobRow {
        id: JobId::generate(),
        workspace_id: submission.workspace_id.clone(),
        config_id: submission.config_id.clone(),
        version_id: submission.version_id.clone(),
        state: JobState::Queued,
        phase: None,
        attempt,
        retry_of: submission.retry_of.as_ref().map(|(job, _)| job.clone()),
        execution: 0,
        priority: submission.priority,
        queue_rank: rank(now, submission.priority),
        input_hash: submission.input_hash.clone(),
        documents: submission.documents.clone(),
        metadata: submission.metadata.clone(),
        trace_id: ulid::Ulid::new().to_string().to_lowercase(),
        submitted_by: Some(submission.by.key_id.clone()),
        request_id: Some(submission.by.request_id.clone()),
        queued_at: now,
        queue_deadline: submission.queue_timeout_ms.map(|timeout| now + timeout),
        started_at: None,
        completed_at: None,
        heartbeat_at: None,
        node_id: None,
        revision: 1,
        next_seq: if submission.retry_of.is_some() { 3 } else { 2 },
        events_stored: false,
        events_file: None,
        error: None,
        result: None,
    }
}

fn first_events(job: &JobRow) -> Vec<StoredEvent> {
    let mut log = Lines::new(job, 1);
    log.add("enqueue", Level::Info, Some(JobState::Queued), json!({}));
    if let Some(of) = &job.retry_of {
        log.add("retry", Level::Info, None, json!({"retry_of_job_id": of}));
    }
    log.lines
}

/// Rows whose column is in `values`, in statements of few sizes.
async fn fetch_in(tx: &mut Tx, head: &str, tail: &str, values: &BTreeSet<&str>) -> Result<Vec<super::db::Row>> {
    let values: Vec<&str> = values.iter().copied().collect();
    let mut rows = Vec::new();
    for chunk in values.chunks(64) {
        // Padded with the last value, so that four statements serve every size.
        let size = [1, 4, 16, 64].into_iter().find(|size| *size >= chunk.len()).unwrap_or(64);
        let padding = chunk.last().copied().unwrap_or_default();
        let args = chunk.iter().copied().chain(std::iter::repeat(padding)).take(size).map(Arg::from).collect();
        let sql = format!("{head} ({}) {tail}", list(1, size));
        rows.extend(tx.fetch(AssertSqlSafe(sql), args).await?);
    }
    Ok(rows)
}
