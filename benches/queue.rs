//! The benchmarks of the queue, as ratios from one run: `tests/postgres run --durable cargo bench --bench queue [-- --smoke]`
//!
//! Submissions from 64 tasks through [`Admissions`], claims from a queue of a million jobs taken in turn with
//! claims from one that is next to empty, and the error of the fair share. On SQLite in a folder of `target/`, and on PostgreSQL when
//! `ADE_TEST_DATABASE_URL` is set, where its server must have fsync on: without it the numbers would promise nothing.
//! `--smoke` makes everything small, to see that it is not broken.

use ade::ids::{DocumentId, KeyId, NodeId, WorkspaceId};
use ade::queue::Admissions;
use ade::store::{
    Actor, Claimed, Defaults, Document, DocumentRef, NewVersion, Store, Submission, WorkspaceChange, now_ms,
};
use ade::telemetry::Metrics;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use std::collections::HashMap;
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const CLIENTS: usize = 64;
/// Of no package; none is run here.
const HASH: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
const DEFAULTS: Defaults = Defaults {
    max_queued: 10_000_000,
    workspace_max_queued: 10_000_000,
    workspace_max_running: 0,
    max_losses: 3,
    lease_ms: 60_000,
};

struct Size {
    jobs: usize,
    queued: usize,
    workspaces: usize,
    claims: usize,
    shared: usize,
}

const WHOLE: Size = Size { jobs: 20_000, queued: 1_000_000, workspaces: 10_000, claims: 300, shared: 1_000 };
const SMOKE: Size = Size { jobs: 640, queued: 2_000, workspaces: 100, claims: 20, shared: 100 };

/// Beside the store: what fills the queue quickly.
enum Side {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Side {
    /// A connection to a database that the store has made.
    async fn open(url: &str) -> Result<Self> {
        Ok(match url.starts_with("sqlite:") {
            true => Self::Sqlite(SqliteConnection::connect(url).await?),
            false => Self::Postgres(PgConnection::connect(url).await?),
        })
    }

    async fn sql(&mut self, sql: &str) -> Result<()> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(on) => sqlx::raw_sql(sql).execute(on).await.map(drop)?,
            Self::Postgres(on) => sqlx::raw_sql(sql).execute(on).await.map(drop)?,
        }
        Ok(())
    }
}

/// A workspace with a config and a document.
struct Tenant {
    workspace: WorkspaceId,
    sample: Submission,
}

impl Tenant {
    async fn make(store: &Store, slug: &str) -> Result<Self> {
        let workspace = store.create_workspace(slug, slug, None).await?.id;
        let document = Document {
            id: DocumentId::generate(),
            workspace_id: workspace.clone(),
            filename: "orders.xlsx".into(),
            content_type: "application/octet-stream".into(),
            bytes: 10_000,
            sha256: "ab".repeat(32),
            created_by: None,
            created_at: now_ms(),
        };
        store.begin_document(&document).await?;
        let by = Actor { key_id: KeyId::generate(), name: "bench".into(), request_id: "0".repeat(26) };
        store.complete_document(&document, &by).await?;
        let version = NewVersion {
            package_sha256: HASH.into(),
            manifest_sha256: "ef".repeat(32),
            manifest_version: "1.0.0".into(),
            package_bytes: 10_000,
        };
        let (config, version) = store.create_config(&workspace, "orders", "Orders", "", &version, &by).await?;
        let sample = Submission {
            workspace_id: workspace.clone(),
            config_id: config.id,
            version_id: version.id,
            documents: vec![DocumentRef {
                document_id: document.id,
                filename: document.filename,
                sha256: document.sha256,
                bytes: 10_000,
            }],
            input_hash: String::new(),
            priority: 0,
            metadata: None,
            retry_of: None,
            idempotency: None,
            queue_timeout_ms: None,
            by,
        };
        Ok(Self { workspace, sample })
    }

    /// A submission with a hash, and as many clients do with a key.
    fn submission(&self, number: usize) -> Submission {
        Submission {
            input_hash: format!("{number:064x}"),
            idempotency: Some((format!("key-{number}"), "fingerprint".into())),
            ..self.sample.clone()
        }
    }
}

fn line(name: &str, text: &str) {
    println!("{name:<52} {text}");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn quantile(times: &mut [Duration], part: usize) -> f64 {
    times.sort_unstable();
    times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().map_or(0.0, ms)
}

/// `CLIENTS` tasks, each with one submission on its way at any time, over `tenants`.
async fn submissions(store: &Store, tenants: &[Tenant], jobs: usize, spread: &str) -> Result<()> {
    let door = Admissions::start(store.clone(), DEFAULTS, Metrics::new(), || ());
    let started = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let tenant = &tenants[client % tenants.len()];
        let mut batch = Vec::new();
        for turn in 0..jobs / CLIENTS {
            batch.push(tenant.submission(tenants.len() * 1_000_000_000 + client * 1_000_000 + turn));
        }
        let door = door.clone();
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::with_capacity(batch.len());
            for submission in batch {
                let asked = Instant::now();
                if door.submit(submission).await.map_err(Error::from)?.is_err() {
                    return Err("a submission was refused".into());
                }
                times.push(asked.elapsed());
            }
            Ok::<_, Error>(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    let (half, tail) = (quantile(&mut times, 50), quantile(&mut times, 99));
    line(
        &format!("  {CLIENTS} clients, {spread}"),
        &format!("{rate:.0} jobs/s, p50 {half:.1} ms, p99 {tail:.1} ms  promised ≥ 2000, < 50"),
    );
    Ok(())
}

async fn claim(store: &Store, node: &NodeId) -> Result<Duration> {
    let asked = Instant::now();
    let claimed = store.claim(node, 1, &DEFAULTS).await?;
    let took = asked.elapsed();
    if claimed.len() == 1 { Ok(took) } else { Err("nothing was claimed".into()) }
}

/// Claims in turn from a queue with one job in it and from a deep one, each in a database of its own that had nothing else to do:
/// what the machine does meanwhile, and what was left over in the tables, is the same for both.
async fn depth(flat: &Store, deep: &Store, size: &Size) -> Result<()> {
    let node = NodeId::generate();
    let tenant = Tenant::make(flat, "alone").await?;
    let (mut of_flat, mut of_deep) = (Vec::new(), Vec::new());
    for turn in 0..size.claims + size.claims / 10 {
        let (answers, _) = flat.submit(&[tenant.submission(turn)], &DEFAULTS).await?;
        if answers.iter().any(std::result::Result::is_err) {
            return Err("a submission was refused".into());
        }
        let (one, other) = (claim(flat, &node).await?, claim(deep, &node).await?);
        // The first ones warm up.
        if turn >= size.claims / 10 {
            of_flat.push(one);
            of_deep.push(other);
        }
    }
    let (one, other) = (quantile(&mut of_flat, 50), quantile(&mut of_deep, 50));
    line("  claim, 1 job in the queue", &format!("{one:.2} ms, p99 {:.2}", quantile(&mut of_flat, 99)));
    line("  claim, deep queue", &format!("{other:.2} ms, p99 {:.2}", quantile(&mut of_deep, 99)));
    line("  ratio of the medians", &format!("{:.2}  promised ≤ 2", other / one));
    Ok(())
}

/// The rows that so many submissions would have left, by SQL.
async fn fill(side: &mut Side, size: &Size) -> Result<()> {
    let (workspaces, each, now) = (size.workspaces, size.queued / size.workspaces, now_ms());
    let sqlite = matches!(side, Side::Sqlite(_));
    let numbers = |n: usize| match sqlite {
        true => {
            format!("(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {n}) SELECT n FROM c)")
        }
        false => format!("(SELECT n FROM generate_series(1, {n}) AS s(n))"),
    };
    let pad = |what: &str| match sqlite {
        true => format!("printf('%026d', {what})"),
        false => format!("lpad(CAST({what} AS TEXT), 26, '0')"),
    };
    let (w, j) = (pad("w.n"), pad(&format!("(w.n * {each} + j.n)")));
    let (ws, js) = (numbers(workspaces), numbers(each));
    side.sql(&format!(
        "BEGIN;
         INSERT INTO workspaces (id, slug, title, created_at, queued, share)
           SELECT 'ws_' || {w}, 'deep-' || w.n, 'deep', {now}, {each}, (SELECT share_clock FROM instance) FROM {ws} AS w;
         INSERT INTO configs (id, workspace_id, slug, title, description, created_at, queued)
           SELECT 'cfg_' || {w}, 'ws_' || {w}, 'orders', 'orders', '', {now}, {each} FROM {ws} AS w;
         INSERT INTO config_versions (id, config_id, workspace_id, number, package_sha256, manifest_sha256, manifest_version,
           package_bytes, created_at)
           SELECT 'cfgv_' || {w}, 'cfg_' || {w}, 'ws_' || {w}, 1, '{HASH}', '{HASH}', '1', 1, {now} FROM {ws} AS w;
         INSERT INTO jobs (id, workspace_id, config_id, version_id, state, attempt, priority, queue_rank, input_hash, documents,
           trace_id, queued_at, next_seq)
           SELECT 'job_' || {j}, 'ws_' || {w}, 'cfg_' || {w}, 'cfgv_' || {w}, 'queued', 1, 0, {now} + j.n, {j}, '[]', 'trace', {now}, 1
           FROM {ws} AS w CROSS JOIN {js} AS j;
         UPDATE instance SET queued = queued + {};
         COMMIT",
        workspaces * each
    ))
    .await?;
    // What happens in time by itself would happen in the middle of the measurement.
    match side {
        Side::Sqlite(_) => side.sql("PRAGMA wal_checkpoint(TRUNCATE)").await,
        Side::Postgres(_) => side.sql("VACUUM ANALYZE").await,
    }
}

/// Three workspaces with deep queues: how far their claims are from their weights.
async fn fairness(store: &Store, size: &Size) -> Result<()> {
    const WEIGHTS: [i64; 3] = [100, 200, 700];
    let node = NodeId::generate();
    let mut got: HashMap<WorkspaceId, (i64, i64)> = HashMap::new();
    for weight in WEIGHTS {
        let tenant = Tenant::make(store, &format!("weight-{weight}")).await?;
        let change = WorkspaceChange { weight: Some(weight), ..WorkspaceChange::default() };
        store.change_workspace(&tenant.workspace, change, &tenant.sample.by).await?;
        let all: Vec<_> = (0..size.shared).map(|number| tenant.submission(number)).collect();
        for batch in all.chunks(128) {
            store.submit(batch, &DEFAULTS).await?;
        }
        got.insert(tenant.workspace, (weight, 0));
    }
    let mut left = size.shared;
    while left > 0 {
        let claimed: Vec<Claimed> = store.claim(&node, left.min(10), &DEFAULTS).await?;
        left -= claimed.len();
        for claimed in claimed {
            if let Some(of) = got.get_mut(&claimed.job.workspace_id) {
                of.1 += 1;
            }
        }
    }
    let all: i64 = WEIGHTS.iter().sum();
    let worst = got.values().map(|(weight, claims)| {
        let wanted = *weight as f64 / all as f64 * size.shared as f64;
        (*claims as f64 - wanted).abs() / wanted * 100.0
    });
    let worst = worst.fold(0.0, f64::max);
    line(&format!("  fair share, worst error over {} claims", size.shared), &format!("{worst:.1} %  promised ≤ 5"));
    Ok(())
}

/// Three empty databases: for what is submitted, for the flat queue, and for the deep one.
async fn measure(urls: &[String; 3], size: &Size) -> Result<()> {
    let [busy, flat, deep] = urls;
    let store = Store::open(busy).await?;
    fairness(&store, size).await?;
    let mut tenants = vec![Tenant::make(&store, "one").await?];
    submissions(&store, &tenants, size.jobs, "one workspace").await?;
    for place in 1..CLIENTS {
        tenants.push(Tenant::make(&store, &format!("t{place}")).await?);
    }
    submissions(&store, &tenants, size.jobs, "a workspace each").await?;
    store.close().await;

    let (flat, full) = (Store::open(flat).await?, Store::open(deep).await?);
    let mut side = Side::open(deep).await?;
    let filled = Instant::now();
    fill(&mut side, size).await?;
    line(
        "  filled with",
        &format!("{} jobs of {} workspaces, {:.0} s", size.queued, size.workspaces, filled.elapsed().as_secs_f64()),
    );
    depth(&flat, &full, size).await?;
    flat.close().await;
    full.close().await;
    Ok(())
}

async fn postgres(server: &str, size: &Size) -> Result<()> {
    let mut admin = PgConnection::connect(server).await?;
    let (fsync,): (String,) = sqlx::query_as("SHOW fsync").fetch_one(&mut admin).await?;
    if fsync != "on" {
        return Err("the server's fsync is off: tests/postgres run --durable cargo bench --bench queue".into());
    }
    let names = ["busy", "flat", "deep"].map(|what| format!("ade_bench_{}_{what}", std::process::id()));
    let at = server.rfind('/').map_or(server, |at| &server[..at]);
    for name in &names {
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await?;
    }
    let measured = measure(&names.clone().map(|name| format!("{at}/{name}")), size).await;
    for name in &names {
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&mut admin).await?;
    }
    measured
}

#[tokio::main]
async fn main() -> Result<()> {
    let size = if std::env::args().any(|arg| arg == "--smoke") { SMOKE } else { WHOLE };
    let only = std::env::args().find_map(|arg| arg.strip_prefix("--only=").map(str::to_owned));
    if only.as_deref() != Some("postgres") {
        let folder = tempfile::Builder::new()
            .prefix("bench-queue-")
            .tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target"))?;
        println!("SQLite, every commit on the disk");
        let urls = ["busy", "flat", "deep"].map(|what| format!("sqlite:{}/{what}.db", folder.path().display()));
        measure(&urls, &size).await?;
    }
    match std::env::var("ADE_TEST_DATABASE_URL") {
        _ if only.as_deref() == Some("sqlite") => {}
        Ok(server) => {
            println!("PostgreSQL, fsync on");
            postgres(&server, &size).await?;
        }
        Err(_) => println!("PostgreSQL: not measured, ADE_TEST_DATABASE_URL is not set"),
    }
    Ok(())
}
