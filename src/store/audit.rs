//! The audit: who changed what, written in the transaction that changes it. Nothing changes or deletes an entry; the database
//! itself refuses to. Only the submission of a job is read from the job's own row for as long as that is there: it says the same, and is
//! kept from changes as well.

use super::db::{Arg, Result, Row, Tx, args};
use super::{DocumentRef, Store};
use crate::ids::{AuditId, ConfigId, JobId, KeyId, WorkspaceId};
use serde_json::{Value, json};
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
    /// A workspace was made.
    WorkspaceCreate = "workspace.create";
    /// Title, share, bounds or pause of a workspace were changed.
    WorkspaceChange = "workspace.change";
    /// A key was made.
    KeyCreate = "key.create";
    /// A key was revoked.
    KeyRevoke = "key.revoke";
    /// State or bounds of the queue, safe mode, or the bound on containers were changed.
    InstanceChange = "instance.change";
    /// A layer of the network policy was set.
    NetworkSet = "network.set";
    /// A config was made, with its first version.
    ConfigCreate = "config.create";
    /// The bound on running jobs of a config was changed.
    ConfigChange = "config.change";
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
    /// A document was uploaded.
    DocumentUpload = "document.upload";
    /// A document was deleted.
    DocumentDelete = "document.delete";
    /// A job was submitted.
    JobSubmit = "job.submit";
    /// A job was submitted that tries another again.
    JobRetry = "job.retry";
    /// A job was cancelled.
    JobCancel = "job.cancel";
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
    /// What kind of thing it was done to: `instance`, `workspace`, `key`, `config`, `document` or `job`.
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
    /// Of one of these actions; empty is any.
    pub actions: Vec<String>,
    /// Done with this key.
    pub actor_id: Option<KeyId>,
    /// Done to this.
    pub target_id: Option<String>,
    /// Done after this, ms.
    pub created_after: Option<i64>,
    /// Done at this or before, ms.
    pub created_until: Option<i64>,
    /// Older than the one with this id.
    pub before: Option<String>,
}

/// Some entries, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditPart {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Where the rest begins, for [`AuditFilter::before`]; none at the end. Where a filter leaves little, there may be a rest although
    /// there are fewer entries than were asked for.
    pub rest: Option<String>,
}

/// A thing that is done.
pub(super) struct Deed<'a> {
    pub workspace: Option<&'a WorkspaceId>,
    pub action: Action,
    pub target: (&'static str, &'a str),
    pub detail: Value,
}

impl<'a> Deed<'a> {
    /// That something was this and is that now. None when it is what it was, which is no change.
    pub(super) fn change(
        workspace: Option<&'a WorkspaceId>,
        action: Action,
        target: (&'static str, &'a str),
        before: &Value,
        after: &Value,
    ) -> Option<Self> {
        let detail = || json!({"before": before, "after": after});
        (before != after).then(|| Self { workspace, action, target, detail: detail() })
    }

    /// Its entry.
    fn entry(self, actor: &Actor, at: i64) -> AuditEntry {
        AuditEntry {
            id: AuditId::generate(),
            at,
            workspace_id: self.workspace.cloned(),
            actor_id: actor.key_id.clone(),
            actor_name: actor.name.clone(),
            action: self.action.as_str().into(),
            target_kind: self.target.0.into(),
            target_id: self.target.1.into(),
            detail: self.detail,
            request_id: actor.request_id.clone(),
        }
    }
}

impl Tx {
    /// Writes an entry.
    pub(super) async fn note(&mut self, actor: &Actor, deed: Deed<'_>) -> Result<()> {
        let now = self.now().await?;
        self.write_entry(&deed.entry(actor, now)).await
    }

    async fn write_entry(&mut self, entry: &AuditEntry) -> Result<()> {
        self.execute(
            "INSERT INTO audit (id, at, workspace_id, actor_id, actor_name, action, target_kind, target_id, detail, request_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            args![
                &entry.id, entry.at, entry.workspace_id.as_ref(), &entry.actor_id, entry.actor_name.as_str(),
                entry.action.as_str(), entry.target_kind.as_str(), entry.target_id.as_str(), entry.detail.to_string(),
                entry.request_id.as_str(),
            ],
        )
        .await
        .map(drop)
    }

    /// Writes the entry of a finished job's submission, which is then no longer the job's to tell: without it, the database does
    /// not let the job be deleted.
    pub(super) async fn keep_submission(&mut self, job: &JobId) -> Result<()> {
        let sql = format!("{SUBMISSIONS} AND j.id = $1 AND j.completed_at IS NOT NULL");
        match self.fetch_one(AssertSqlSafe(sql), args![job]).await? {
            Some(row) => self.write_entry(&submission(&row)?).await,
            None => Ok(()),
        }
    }

    /// Writes the entry of a change and ends the transaction; without a change there is nothing to keep.
    pub(super) async fn commit_noted(mut self, actor: &Actor, deed: Option<Deed<'_>>) -> Result<()> {
        let Some(deed) = deed else { return Ok(()) };
        self.note(actor, deed).await?;
        self.commit().await
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

/// Jobs as far as they say who submitted them.
const SUBMISSIONS: &str = "SELECT j.id, j.workspace_id, j.version_id, j.retry_of, j.documents, j.submitted_by, j.request_id, \
    j.queued_at, (SELECT k.name FROM api_keys k WHERE k.id = j.submitted_by) AS actor_name \
    FROM jobs j WHERE j.submitted_by IS NOT NULL";

/// The entry of a job's submission: what was to be done, and nothing that came with it. It stays when the job is gone.
fn submission(row: &Row) -> Result<AuditEntry> {
    let job: JobId = row.parsed("id")?;
    let documents: Vec<DocumentRef> = row.json("documents")?;
    let documents: Vec<_> = documents.iter().map(|document| &document.document_id).collect();
    let mut after = json!({"config_version_id": row.text("version_id")?, "document_ids": documents});
    let action = match row.opt_text("retry_of")? {
        None => Action::JobSubmit,
        Some(of) => {
            after["retry_of_job_id"] = of.into();
            Action::JobRetry
        }
    };
    Ok(AuditEntry {
        id: AuditId::of_submission(&job),
        at: row.int("queued_at")?,
        workspace_id: Some(row.parsed("workspace_id")?),
        actor_id: row.parsed("submitted_by")?,
        // A key is never deleted, and its name never changed.
        actor_name: row.opt_text("actor_name")?.unwrap_or_default(),
        action: action.as_str().into(),
        target_kind: "job".into(),
        target_id: job.to_string(),
        detail: json!({"before": null, "after": after}),
        // Jobs of earlier versions do not say it.
        request_id: row.opt_text("request_id")?.unwrap_or_default(),
    })
}

/// Entries that one statement looks through, where it looks for some of them.
const LOOK: i64 = 10_000;
/// How often one call does that.
const LOOKS: usize = 10;
/// An id is of the clock of its node, and what is asked for is of the database's: how far they may be apart, ms.
const SKEW_MS: i64 = 24 * 60 * 60 * 1000;

/// Where entries come from. Both have an index of the workspace and the id, and the same ids but for their prefix.
#[derive(Clone, Copy)]
enum Source {
    /// The jobs that are there, which tell who submitted them.
    Jobs,
    /// Everything else, and the submissions of jobs that were deleted.
    Entries,
}

impl Source {
    /// What stands before the conditions.
    const fn select(self) -> &'static str {
        match self {
            Self::Jobs => SUBMISSIONS,
            Self::Entries => "SELECT * FROM audit WHERE 1 = 1",
        }
    }

    /// The same, for ids alone.
    const fn select_id(self) -> &'static str {
        match self {
            Self::Jobs => "SELECT j.id FROM jobs j WHERE 1 = 1",
            Self::Entries => "SELECT id FROM audit WHERE 1 = 1",
        }
    }

    /// The id that stands here for a place in the audit.
    fn id(self, place: &str) -> String {
        match self {
            Self::Jobs => format!("{}{}", JobId::PREFIX, place.trim_start_matches(AuditId::PREFIX)),
            Self::Entries => place.to_owned(),
        }
    }

    /// The place in the audit that an id stands for.
    fn place(self, id: &str) -> String {
        match self {
            Self::Jobs => format!("{}{}", AuditId::PREFIX, id.trim_start_matches(JobId::PREFIX)),
            Self::Entries => id.to_owned(),
        }
    }

    fn read(self, row: &Row) -> Result<AuditEntry> {
        match self {
            Self::Jobs => submission(row),
            Self::Entries => read(row),
        }
    }
}

/// Conditions, and their parameters.
#[derive(Clone, Default)]
struct Conditions {
    sql: String,
    args: Vec<Arg>,
}

impl Conditions {
    fn add(&mut self, condition: &str, arg: impl Into<Arg>) {
        self.args.push(arg.into());
        self.sql.push_str(&format!(" AND {condition} ${}", self.args.len()));
    }
}

impl AuditFilter {
    /// Whether a source can have any.
    fn has(&self, source: Source) -> bool {
        let wanted =
            |action: Action| self.actions.is_empty() || self.actions.iter().any(|name| name == action.as_str());
        match source {
            Source::Jobs => {
                (wanted(Action::JobSubmit) || wanted(Action::JobRetry))
                    && self.target_id.as_ref().is_none_or(|target| target.starts_with(JobId::PREFIX))
            }
            Source::Entries => true,
        }
    }

    /// The conditions that an index serves.
    fn found(&self, source: Source, before: Option<&str>) -> Conditions {
        let mut all = Conditions::default();
        if let Some(target) = &self.target_id {
            let target_id = match source {
                Source::Jobs => "id =",
                Source::Entries => "target_id =",
            };
            all.add(target_id, target.as_str());
        }
        if let Some(workspace) = &self.workspace_id {
            // A target has few entries, so that its index is the one to take: with this, no other can be.
            all.add(if self.target_id.is_some() { "workspace_id || '' =" } else { "workspace_id =" }, workspace);
        }
        if let Some(before) = before {
            all.add("id <", source.id(before));
        }
        if let Some(after) = self.created_after {
            all.add("id >", source.id(AuditId::bounds(after.saturating_sub(SKEW_MS)).0.as_str()));
        }
        if let Some(until) = self.created_until {
            all.add("id <", source.id(AuditId::bounds(until.saturating_add(SKEW_MS)).1.as_str()));
        }
        all
    }

    /// Adds those that are looked at entry by entry.
    fn sift(&self, source: Source, all: &mut Conditions) {
        let (at, actor) = match source {
            Source::Jobs => ("queued_at", "submitted_by ="),
            Source::Entries => ("at", "actor_id ="),
        };
        if !self.actions.is_empty() {
            match source {
                Source::Jobs => {
                    let wanted = |action: Action| self.actions.iter().any(|name| name == action.as_str());
                    match (wanted(Action::JobSubmit), wanted(Action::JobRetry)) {
                        (true, false) => all.sql.push_str(" AND retry_of IS NULL"),
                        (false, true) => all.sql.push_str(" AND retry_of IS NOT NULL"),
                        _ => {}
                    }
                }
                Source::Entries => {
                    let places = super::db::list(all.args.len() + 1, self.actions.len());
                    all.args.extend(self.actions.iter().map(|action| Arg::from(action.as_str())));
                    all.sql.push_str(&format!(" AND action IN ({places})"));
                }
            }
        }
        if let Some(actor_id) = &self.actor_id {
            all.add(actor, actor_id);
        }
        if let Some(after) = self.created_after {
            all.add(&format!("{at} >"), after);
        }
        if let Some(until) = self.created_until {
            all.add(&format!("{at} <="), until);
        }
    }

    /// Whether there are such.
    const fn sifts(&self) -> bool {
        !self.actions.is_empty()
            || self.actor_id.is_some()
            || self.created_after.is_some()
            || self.created_until.is_some()
    }
}

impl Store {
    /// Entries of the audit, newest first: `limit` at most. Reading on from where one part ended, nothing comes twice, and nothing is
    /// left out that was there at the beginning, whatever is written, and whichever jobs are deleted, meanwhile.
    ///
    /// # Errors
    /// The database's.
    pub async fn audit(&self, filter: &AuditFilter, limit: i64) -> Result<AuditPart> {
        // Jobs first: one that is deleted after they were read is found twice, and never not at all.
        let sources: Vec<Source> =
            [Source::Jobs, Source::Entries].into_iter().filter(|source| filter.has(*source)).collect();
        let limit = usize::try_from(limit).unwrap_or_default();
        let mut entries: Vec<AuditEntry> = Vec::new();
        let mut rest = filter.before.clone();
        for _ in 0..LOOKS {
            let before = rest.take();
            if filter.sifts() {
                for source in &sources {
                    rest = rest.max(self.edge(*source, filter.found(*source, before.as_deref())).await?);
                }
            }
            let mut found = Vec::new();
            for source in &sources {
                let mut conditions = filter.found(*source, before.as_deref());
                if let Some(edge) = &rest {
                    conditions.add("id >=", source.id(edge));
                }
                filter.sift(*source, &mut conditions);
                // One more, to know whether there is more.
                conditions.args.push(Arg::from(i64::try_from(limit + 1 - entries.len()).unwrap_or_default()));
                let Conditions { sql, args } = conditions;
                let sql = format!("{}{sql} ORDER BY id DESC LIMIT ${}", source.select(), args.len());
                for row in self.db.fetch(AssertSqlSafe(sql), args).await? {
                    found.push(source.read(&row)?);
                }
            }
            found.sort_by(|one, other| other.id.cmp(&one.id));
            found.dedup_by(|one, other| one.id == other.id);
            entries.extend(found);
            if entries.len() > limit {
                entries.truncate(limit);
                rest = entries.last().map(|entry| entry.id.to_string());
                break;
            }
            if rest.is_none() {
                break;
            }
        }
        Ok(AuditPart { entries, rest })
    }

    /// The place of the last of the entries that one statement looks through; none when there are not so many.
    async fn edge(&self, source: Source, Conditions { sql, args }: Conditions) -> Result<Option<String>> {
        let sql = format!("{}{sql} ORDER BY id DESC LIMIT 1 OFFSET {}", source.select_id(), LOOK - 1);
        let row = self.db.fetch_one(AssertSqlSafe(sql), args).await?;
        row.map(|row| Ok(source.place(&row.text("id")?))).transpose()
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
