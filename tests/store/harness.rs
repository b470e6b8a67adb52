//! A database per test, the few words that the tests are written in, and the audit at the end of each.

use ade::ids::{ConfigId, DocumentId, JobId, KeyId, NodeId, VersionId, WorkspaceId};
use ade::queue::JobState;
use ade::store::{
    Actor, Admitted, Claimed, Config, Defaults, Document, DocumentRef, End, JobRow, NewVersion, Refused, Store,
    StoredEvent, StoredFile, Submission, Workspace, WorkspaceChange, now_ms,
};
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Row, SqliteConnection, SqlitePool, Transaction};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Makes two tests of each promise.
macro_rules! on_both {
    ($($(#[doc = $doc:literal])* async fn $name:ident($world:ident) $body:block)+) => { $(
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every promise needs all of its module's names")]
            use super::*;

            async fn promise($world: std::sync::Arc<crate::harness::World>) $body

            #[test]
            fn sqlite() {
                crate::harness::run(crate::harness::Kind::Sqlite, |world| Box::pin(promise(world)));
            }

            #[test]
            fn postgres() {
                crate::harness::run(crate::harness::Kind::Postgres, |world| Box::pin(promise(world)));
            }
        }
    )+ };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Each has up to two pools, and the server a bound on connections.
static POSTGRES_TESTS: Semaphore = Semaphore::const_new(4);
static NUMBERS: AtomicU64 = AtomicU64::new(1);

pub fn number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Connections of the test's own, beside the store's.
enum Side {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

pub struct World {
    pub kind: Kind,
    pub url: String,
    pub store: Store,
    pub defaults: Defaults,
    pub node: NodeId,
    side: Side,
    folder: tempfile::TempDir,
}

type Promise = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one test in a database of its own, which goes whatever happens.
pub fn run(kind: Kind, promise: impl FnOnce(Arc<World>) -> Promise) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let _turn = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(POSTGRES_TESTS.acquire().await.expect("never closed")),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let (url, dropped) = match kind {
            Kind::Sqlite => (format!("sqlite:{}", folder.path().join("ade.db").display()), None),
            Kind::Postgres => {
                let server = server_url();
                let name = format!("ade_test_{}_{}", std::process::id(), number());
                administer(&server, &format!("CREATE DATABASE {name}")).await;
                let url = url_of(&server, &name);
                (url, Some((server, format!("DROP DATABASE {name} WITH (FORCE)"))))
            }
        };
        // In tasks, so that a panic comes back here and the database is dropped first.
        let opened = tokio::spawn(open(kind, url, folder)).await;
        let ended = match opened {
            Ok(world) => {
                let world = Arc::new(world);
                let body = promise(Arc::clone(&world));
                let ended = tokio::spawn(async move {
                    body.await;
                    world.audit().await;
                    world.store.close().await;
                });
                ended.await
            }
            Err(error) => Err(error),
        };
        if let Some((server, statement)) = dropped {
            administer(&server, &statement).await;
        }
        if let Err(error) = ended {
            std::panic::resume_unwind(error.into_panic());
        }
    });
}

fn server_url() -> String {
    std::env::var("ADE_TEST_DATABASE_URL").unwrap_or_else(|_| {
        panic!("ADE_TEST_DATABASE_URL is not set: run `tests/postgres run cargo test --test store`, which starts a PostgreSQL for the tests")
    })
}

fn url_of(server: &str, database: &str) -> String {
    let (before, query) = server.split_once('?').map_or((server, String::new()), |(a, b)| (a, format!("?{b}")));
    let scheme = before.find("://").map_or(0, |at| at + 3);
    let host = before[scheme..].find('/').map_or(before, |slash| &before[..scheme + slash]);
    format!("{host}/{database}{query}")
}

async fn administer(server: &str, statement: &str) {
    let mut admin = PgConnection::connect(server).await.expect("the server of ADE_TEST_DATABASE_URL answers");
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.expect("a superuser");
    admin.close().await.expect("closed");
}

async fn open(kind: Kind, url: String, folder: tempfile::TempDir) -> World {
    let store = Store::open(&url).await.expect("an empty database is brought up to date");
    store.instance().await.expect("the instance row");
    let side = match kind {
        Kind::Sqlite => Side::Sqlite(SqlitePool::connect(&url).await.expect("a connection")),
        Kind::Postgres => Side::Postgres(PgPool::connect(&url).await.expect("a connection")),
    };
    let defaults = Defaults {
        max_queued: 100_000,
        workspace_max_queued: 100_000,
        workspace_max_running: 0,
        max_losses: 3,
        lease_ms: 60_000,
    };
    World { kind, url, store, defaults, node: NodeId::generate(), side, folder }
}

pub fn actor(name: &str) -> Actor {
    Actor { key_id: KeyId::generate(), name: name.into(), request_id: format!("request-of-{name}") }
}

/// A workspace with a config, and a document.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub workspace: WorkspaceId,
    pub config: ConfigId,
    pub version: VersionId,
    pub document: DocumentRef,
}

impl Tenant {
    /// A submission that is no other's twin.
    pub fn submission(&self) -> Submission {
        Submission {
            workspace_id: self.workspace.clone(),
            config_id: self.config.clone(),
            version_id: self.version.clone(),
            documents: vec![self.document.clone()],
            input_hash: format!("{:064x}", number()),
            priority: 0,
            metadata: None,
            retry_of: None,
            idempotency: None,
            queue_timeout_ms: None,
            by: actor("submitter"),
        }
    }

    pub fn submissions(&self, count: usize) -> Vec<Submission> {
        (0..count).map(|_| self.submission()).collect()
    }
}

impl World {
    /// A second handle on the same database, with a pool of its own.
    pub async fn another(&self) -> Store {
        Store::open(&self.url).await.expect("the same database")
    }

    /// A database as a program with so many migrations left it. On PostgreSQL it takes the place of the test's own.
    pub async fn of_version(&self, version: i64) -> Old {
        let url = match self.kind {
            Kind::Sqlite => format!("sqlite:{}?mode=rwc", self.folder().join("old.db").display()),
            Kind::Postgres => {
                self.sql("DROP SCHEMA public CASCADE").await;
                self.sql("CREATE SCHEMA public").await;
                self.url.clone()
            }
        };
        let old = Old { kind: self.kind, url };
        old.open_as_version(version).await.expect("an empty database");
        old
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub async fn tenant(&self, slug: &str) -> Tenant {
        let workspace = self.store.create_workspace(slug, slug, None).await.expect("a workspace").id;
        let document = self.document(&workspace, 10).await;
        let (config, version) = self.config(&workspace, "orders").await;
        Tenant { workspace, config, version, document }
    }

    /// A tenant with a weight.
    pub async fn weighted(&self, slug: &str, weight: i64) -> Tenant {
        let tenant = self.tenant(slug).await;
        self.change(&tenant, WorkspaceChange { weight: Some(weight), ..WorkspaceChange::default() }).await;
        tenant
    }

    pub async fn change(&self, tenant: &Tenant, change: WorkspaceChange) {
        self.store
            .change_workspace(&tenant.workspace, change, &actor("root"))
            .await
            .expect("changed")
            .expect("it is there");
    }

    pub async fn config(&self, workspace: &WorkspaceId, slug: &str) -> (ConfigId, VersionId) {
        let version = NewVersion {
            package_sha256: format!("{:064x}", number()),
            manifest_sha256: format!("{:064x}", number()),
            manifest_version: "1.0.0".into(),
            package_bytes: 100,
        };
        let (config, version) =
            self.store.create_config(workspace, slug, slug, "", &version, &actor("harness")).await.expect("a config");
        (config.id, version.id)
    }

    pub async fn document(&self, workspace: &WorkspaceId, bytes: i64) -> DocumentRef {
        let document = Document {
            id: DocumentId::generate(),
            workspace_id: workspace.clone(),
            filename: "orders.xlsx".into(),
            content_type: "application/octet-stream".into(),
            bytes,
            sha256: format!("{:064x}", number()),
            created_by: None,
            created_at: now_ms(),
        };
        self.store.begin_document(&document).await.expect("a draft");
        self.store.complete_document(&document, &actor("harness")).await.expect("a document");
        DocumentRef {
            document_id: document.id,
            filename: document.filename,
            sha256: document.sha256,
            bytes: u64::try_from(bytes).expect("a size"),
        }
    }

    pub async fn try_submit(&self, submission: Submission) -> Result<Admitted, Refused> {
        let (mut answers, _) = self.store.submit(&[submission], &self.defaults).await.expect("an answer");
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// A new job.
    pub async fn submit(&self, submission: Submission) -> JobRow {
        let admitted = self.try_submit(submission).await.expect("taken");
        assert!(!admitted.replayed, "it is a new one");
        admitted.job
    }

    pub async fn submit_many(&self, submissions: &[Submission]) {
        for batch in submissions.chunks(128) {
            let (answers, _) = self.store.submit(batch, &self.defaults).await.expect("answers");
            assert!(answers.iter().all(Result::is_ok), "all are taken");
        }
    }

    pub async fn claim(&self, slots: usize) -> Vec<Claimed> {
        self.store.claim(&self.node, slots, &self.defaults).await.expect("a claim")
    }

    pub async fn claim_one(&self) -> JobRow {
        self.claim(1).await.pop().expect("a job was waiting").job
    }

    /// A job that runs.
    pub async fn running(&self, tenant: &Tenant) -> JobRow {
        let id = self.submit(tenant.submission()).await.id;
        let job = self.claim_one().await;
        assert_eq!(job.id, id, "nothing else waits");
        job
    }

    pub async fn finish(&self, job: &JobRow, state: JobState) -> bool {
        let next = self.job(job).await.next_seq;
        self.store.finish(&job.id, job.execution, &end(state, next)).await.expect("an answer")
    }

    pub async fn job(&self, job: &JobRow) -> JobRow {
        self.store.job(&job.workspace_id, &job.id).await.expect("an answer").expect("it is there")
    }

    pub async fn state(&self, job: &JobRow) -> JobState {
        self.job(job).await.state
    }

    pub async fn workspace(&self, id: &WorkspaceId) -> Workspace {
        self.store.workspace(id).await.expect("an answer").expect("it is there")
    }

    pub async fn config_row(&self, tenant: &Tenant) -> Config {
        self.store.config(&tenant.workspace, &tenant.config).await.expect("an answer").expect("it is there")
    }

    /// (waiting, running) of a workspace.
    pub async fn counters(&self, tenant: &Tenant) -> (i64, i64) {
        let workspace = self.workspace(&tenant.workspace).await;
        (workspace.queued, workspace.running)
    }

    /// As if the job had been submitted that much earlier.
    pub async fn age(&self, job: &JobRow, ms: i64) {
        let id = &job.id;
        // The database keeps what the audit tells from a job's row; the test does not.
        let of = if self.kind == Kind::Postgres { " ON jobs" } else { "" };
        self.sql(&format!("DROP TRIGGER IF EXISTS jobs_keep_their_origin{of}")).await;
        self.sql(&format!(
            "UPDATE jobs SET queued_at = queued_at - {ms}, queue_rank = queue_rank - {ms}, \
             queue_deadline = queue_deadline - {ms} WHERE id = '{id}'"
        ))
        .await;
    }

    /// As if nothing had been heard of the job's node for long.
    pub async fn expire_lease(&self, job: &JobId) {
        self.sql(&format!("UPDATE jobs SET lease_expires_at = 1 WHERE id = '{job}'")).await;
    }

    /// Runs a statement of the test's own.
    pub async fn sql(&self, sql: &str) {
        self.try_sql(sql).await.expect("the test's own statement");
    }

    pub async fn try_sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        let query = AssertSqlSafe(sql.to_owned());
        match &self.side {
            Side::Sqlite(pool) => sqlx::query(query).execute(pool).await.map(drop),
            Side::Postgres(pool) => sqlx::query(query).execute(pool).await.map(drop),
        }
    }

    /// A transaction of the test's own that holds what this statement has locked. On PostgreSQL.
    pub async fn hold(&self, sql: &str) -> Transaction<'static, Postgres> {
        let Side::Postgres(pool) = &self.side else { panic!("SQLite has no locks of rows") };
        let mut held = pool.begin().await.expect("a transaction");
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut *held).await.expect("the test's own statement");
        held
    }

    /// Waits until that many sessions of the database wait for a lock. On PostgreSQL.
    pub async fn until_blocked(&self, sessions: i64) {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..1000 {
            if self.count(sql).await >= sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("fewer than {sessions} wait for a lock");
    }

    /// Rows of texts; the columns must be made such.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let query = AssertSqlSafe(sql.to_owned());
        match &self.side {
            Side::Sqlite(pool) => {
                let rows = sqlx::query(query).fetch_all(pool).await.expect("the test's own query");
                rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
            }
            Side::Postgres(pool) => {
                let rows = sqlx::query(query).fetch_all(pool).await.expect("the test's own query");
                rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
            }
        }
    }

    pub async fn count(&self, sql: &str) -> i64 {
        self.rows(&format!("SELECT CAST(({sql}) AS TEXT)")).await[0][0].parse().expect("a number")
    }

    /// What holds at any moment.
    pub async fn audit(&self) {
        const NEVER: &[(&str, &str)] = &[
            (
                "the instance counts what waits",
                "SELECT i.id FROM instance i WHERE i.queued <> (SELECT count(*) FROM jobs WHERE state = 'queued')",
            ),
            (
                "a workspace counts what waits and runs",
                "SELECT w.id FROM workspaces w WHERE w.queued <> (SELECT count(*) FROM jobs j WHERE j.workspace_id = w.id \
                 AND j.state = 'queued') OR w.running <> (SELECT count(*) FROM jobs j WHERE j.workspace_id = w.id \
                 AND j.state IN ('running', 'cancelling'))",
            ),
            (
                "a lane counts what waits and runs",
                "SELECT c.id FROM configs c WHERE c.queued <> (SELECT count(*) FROM jobs j WHERE j.config_id = c.id \
                 AND j.state = 'queued') OR c.running <> (SELECT count(*) FROM jobs j WHERE j.config_id = c.id \
                 AND j.state IN ('running', 'cancelling'))",
            ),
            (
                "claims are counted once for the instance and once for a workspace",
                "SELECT i.id FROM instance i WHERE i.claimed <> (SELECT COALESCE(sum(claimed), 0) FROM workspaces)",
            ),
            (
                "a job has an end exactly when its state is final",
                "SELECT id FROM jobs WHERE (completed_at IS NOT NULL) <> (state IN ('succeeded', 'failed', 'cancelled'))",
            ),
            (
                "a job has a lease and a node exactly when it runs",
                "SELECT id FROM jobs WHERE (lease_expires_at IS NOT NULL) <> (state IN ('running', 'cancelling')) \
                 OR (state IN ('running', 'cancelling') AND (node_id IS NULL OR execution = 0)) \
                 OR (state = 'queued' AND node_id IS NOT NULL)",
            ),
            (
                "a job that ended otherwise than well says why",
                "SELECT id FROM jobs WHERE (error IS NOT NULL) <> (state IN ('failed', 'cancelled'))",
            ),
            (
                "events have numbers without gaps, up to the next one",
                "SELECT j.id FROM jobs j WHERE j.events_stored = 0 AND \
                 ((SELECT count(*) FROM job_events e WHERE e.job_id = j.id) <> j.next_seq - 1 \
                 OR (SELECT COALESCE(max(e.seq), 0) FROM job_events e WHERE e.job_id = j.id) <> j.next_seq - 1)",
            ),
            (
                "nothing is left of jobs that are not there",
                "SELECT job_id FROM job_documents WHERE job_id NOT IN (SELECT id FROM jobs)",
            ),
        ];
        for (promise, exception) in NEVER {
            let found = self.rows(exception).await;
            assert!(found.is_empty(), "not so: {promise}: {found:?}");
        }
    }
}

/// See [`World::of_version`].
pub struct Old {
    kind: Kind,
    pub url: String,
}

impl Old {
    /// What a program of a version does when it opens a database.
    pub async fn open_as_version(&self, version: i64) -> Result<(), sqlx::migrate::MigrateError> {
        let all = match self.kind {
            Kind::Sqlite => sqlx::migrate!("migrations/sqlite"),
            Kind::Postgres => sqlx::migrate!("migrations/postgres"),
        };
        let known = all.iter().filter(|migration| migration.version <= version).cloned().collect();
        let migrator = Migrator::with_migrations(known);
        match self.kind {
            Kind::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.expect("a connection");
                migrator.run_direct(None, &mut connection, false).await
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.expect("a connection");
                migrator.run_direct(None, &mut connection, false).await
            }
        }
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let done = match self.kind {
            Kind::Sqlite => {
                sql.execute(&mut SqliteConnection::connect(&self.url).await.expect("a connection")).await.map(drop)
            }
            Kind::Postgres => {
                sql.execute(&mut PgConnection::connect(&self.url).await.expect("a connection")).await.map(drop)
            }
        };
        done.expect("the test's own statements");
    }
}

/// The end of an execution, with one event of this number.
pub fn end(state: JobState, seq: u64) -> End {
    let error = (state != JobState::Succeeded).then(|| json!({"kind": "script_error", "message": "it was told to"}));
    End { state, error, result: json!({"files": []}), events: vec![event(seq)] }
}

/// What is said of a log that was stored.
pub fn log() -> StoredFile {
    StoredFile { bytes: 7, sha256: "ab".repeat(32) }
}

pub fn event(seq: u64) -> StoredEvent {
    StoredEvent { seq, line: format!(r#"{{"seq":{seq},"event":"log"}}"#) }
}
