//! `ade serve`: puts the parts of the service together, and takes them apart again.

use crate::api::app::{App, AppParts, Options};
use crate::api::{listen, openapi};
use crate::auth::{self, ADMIN_KEY_FILE};
use crate::blob::{BlobError, Blobs};
use crate::health::{Health, Part};
use crate::ids::NodeId;
use crate::job::Node;
use crate::queue::{Admissions, Signals};
use crate::sandbox::{Failure, Ledger, SOCKET, lend};
use crate::scheduler::{Connect, Retention, Scheduler};
use crate::settings::{ServeSettings, Settings, Switch};
use crate::store::{Defaults, NewKey, Role, Store, StoreError};
use crate::telemetry::Metrics;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Where the address that a process listens on is, inside of its data directory, for the command line on the same machine.
pub const ADDRESS_FILE: &str = "address";
/// The workspace that is made on the first start.
pub const FIRST_WORKSPACE: &str = "default";
/// How long connections may go on after the last job, before they are cut.
const HTTP_GRACE: Duration = Duration::from_secs(3);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used: {error}; choose another with --data-dir or ADE_DATA_DIR")]
    DataDir {
        /// The directory, or a file in it.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process uses the data directory.
    #[error("another ade serve uses the data directory {0}; stop it, or give this one its own with --data-dir")]
    InUse(PathBuf),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; choose another with --listen or ADE_LISTEN")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The storage.
    #[error("the storage cannot be used: {0}; see ADE_BLOB_URL")]
    Blobs(#[from] BlobError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// What a process holds as long as it runs.
struct DataDir {
    path: PathBuf,
    node_id: NodeId,
    scratch: PathBuf,
    // The kernel frees the lock when its holder dies.
    _lock: File,
}

impl DataDir {
    fn open(path: PathBuf) -> Result<Self, ServiceError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ServiceError::DataDir { path, error }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(&path))?;
        let path = std::fs::canonicalize(&path).map_err(failed(&path))?;
        let lock_path = path.join("lock");
        let lock =
            File::options().create(true).append(true).mode(0o600).open(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ServiceError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(failed(&lock_path)(error)),
        }
        let id_path = path.join("node-id");
        let stored = std::fs::read_to_string(&id_path).ok().and_then(|text| text.trim().parse::<NodeId>().ok());
        let node_id = match stored {
            Some(id) => id,
            None => {
                let id = NodeId::generate();
                write_private(&id_path, id.as_str()).map_err(failed(&id_path))?;
                id
            }
        };
        // Whatever is in there was left by a process that is gone.
        let scratch = path.join("scratch");
        match std::fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&scratch)(error)),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(failed(&scratch))?;
        Ok(Self { path, node_id, scratch, _lock: lock })
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Runs the service until `stop` turns true, then drains it; `hurry` turning true cuts the draining short.
///
/// # Errors
/// Why it could not start.
pub async fn run(
    settings: &Settings,
    serve: &ServeSettings,
    connect: impl Fn() -> futures_util::future::BoxFuture<'static, Result<Node, Failure>> + Send + Sync + 'static,
    mut stop: watch::Receiver<u32>,
) -> Result<(), ServiceError> {
    let data = DataDir::open(serve.data_dir())?;
    let store = Store::open(&serve.database_url()).await?;
    let instance = store.instance().await?;
    let blobs = Blobs::open(&serve.blob_url())?;
    first_start(&store, &data.path).await?;
    clear_uploads(&store, &blobs, serve).await?;
    let listener =
        TcpListener::bind(serve.listen).await.map_err(|error| ServiceError::Listen { address: serve.listen, error })?;
    let address = listener.local_addr().unwrap_or(serve.listen);

    let lease_ms = millis(serve.lease_seconds);
    let defaults = Defaults {
        max_queued: signed(serve.queue_size()),
        workspace_max_queued: signed(serve.workspace_queue_size),
        workspace_max_running: i64::from(serve.workspace_max_concurrency),
        max_losses: i64::from(serve.max_executions),
        lease_ms,
    };
    let health = Arc::new(Health::default());
    health.set(Part::Database, Ok(()));
    let metrics = Metrics::new();
    let signals = Signals::start(&store);
    let (node_id, instance_id) = (data.node_id.clone(), instance.id.clone());
    let (deps, ledger, pool_size) = (settings.deps(&data.path), Ledger::in_background(), serve.pool_size());
    let connect: Connect = Arc::new({
        let (ledger, metrics) = (ledger.clone(), metrics.clone());
        move || {
            let (connecting, node_id, instance_id) = (connect(), node_id.clone(), instance_id.clone());
            // The same over all connections: installs and containers that are under way are known to them.
            let (deps, ledger, metrics) = (deps.clone(), ledger.clone(), metrics.clone());
            Box::pin(async move {
                let node = connecting.await?;
                let node = Node { instance: instance_id.to_string(), node: Some(node_id.to_string()), deps, ..node };
                node.with_pool(ledger, pool_size, Arc::new(move |what| metrics.pool(what)))
            })
        }
    });
    let scheduler = Scheduler::start(crate::scheduler::Parts {
        store: store.clone(),
        blobs: blobs.clone(),
        signals: Arc::clone(&signals),
        metrics: metrics.clone(),
        health: Arc::clone(&health),
        connect,
        ledger,
        node_id: data.node_id.clone(),
        instance_id: instance.id.clone(),
        max_concurrency: (serve.queue == Switch::On && !serve.safe_mode)
            .then(|| usize::try_from(serve.max_concurrency()).unwrap_or(1)),
        defaults,
        scratch: data.scratch.clone(),
        retention: retention(serve),
        network: settings.runtime_network_access,
    })
    .await?;
    let admissions = Admissions::start(store.clone(), defaults, metrics.clone(), {
        let signals = Arc::clone(&signals);
        move || signals.work()
    });
    let app = App::new(AppParts {
        store: store.clone(),
        blobs,
        admissions,
        signals,
        scheduler: scheduler.clone(),
        health,
        metrics,
        options: Options {
            defaults,
            queue_timeout_ms: serve.queue_timeout().map(|timeout| millis(timeout.as_secs())),
            max_document_bytes: serve.max_document_bytes(),
            max_drafts: i64::from(serve.max_drafts),
            package_memory_bytes: serve.package_memory_mb << 20,
            scratch: data.scratch.clone(),
            streams_per_key: usize::try_from(serve.max_streams_per_key).unwrap_or(usize::MAX),
            requests_per_second: NonZeroU32::new(serve.rate_limit),
            max_concurrency: i64::from(serve.max_concurrency()),
            caps: settings.caps(),
            queue_off: serve.queue == Switch::Off,
            safe_mode: serve.safe_mode,
            network: settings.runtime_network_access,
        },
    });
    let bounds = listen::Bounds {
        connections: usize::try_from(serve.max_connections).unwrap_or(usize::MAX),
        grace: HTTP_GRACE,
        ..listen::Bounds::default()
    };
    let address_path = data.path.join(ADDRESS_FILE);
    let text = format!("http://{address}");
    write_private(&address_path, &text).map_err(|error| ServiceError::DataDir { path: address_path.clone(), error })?;
    tracing::info!(%address, data = %data.path.display(), instance = %instance.id, node = %data.node_id, "listening");

    let _lending = lend_containers(&data.path.join(SOCKET), settings, &scheduler);
    let (close, mut closing) = watch::channel(false);
    let server = tokio::spawn(listen::serve(listener, openapi::router(app), bounds, async move {
        closing.wait_for(|closing| *closing).await.ok();
    }));
    stop.wait_for(|signals| *signals > 0).await.ok();
    tracing::info!(seconds = serve.drain_seconds, "draining: jobs that run may finish; a second signal ends at once");
    // Requests are answered until the last job has ended, so that followers see it and a load balancer sees /readyz.
    tokio::select! {
        () = scheduler.drain(Duration::from_secs(serve.drain_seconds)) => {}
        Ok(_) = stop.wait_for(|signals| *signals > 1) => scheduler.drain(Duration::ZERO).await,
    }
    close.send_replace(true);
    server.await.ok();
    std::fs::remove_file(&address_path).ok();
    std::fs::remove_file(data.path.join(SOCKET)).ok();
    // Whoever is still at the database has nothing to say any more.
    if tokio::time::timeout(HTTP_GRACE, store.close()).await.is_err() {
        tracing::warn!("connections to the database are cut off");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Lends parked containers to commands on this machine, until the answer is dropped. Without the socket commands start their own.
fn lend_containers(socket: &Path, settings: &Settings, scheduler: &Scheduler) -> Option<AbortOnDropHandle<()>> {
    // Of a process that is gone: this one holds the data directory.
    std::fs::remove_file(socket).ok();
    match UnixListener::bind(socket) {
        Ok(listener) => {
            let scheduler = scheduler.clone();
            let lending = lend(listener, settings.docker_host.clone(), move || scheduler.pool());
            Some(AbortOnDropHandle::new(tokio::spawn(lending)))
        }
        Err(error) => {
            tracing::debug!(%error, socket = %socket.display(), "no containers are lent to commands");
            None
        }
    }
}

/// Makes what a new installation needs: a workspace, and an admin's key whose owner is whoever owns the data directory.
async fn first_start(store: &Store, data: &Path) -> Result<(), ServiceError> {
    if store.workspaces(None, 1).await?.is_empty() {
        match store.create_workspace(FIRST_WORKSPACE, "Default", None).await {
            // Another process on the same database was first.
            Ok(_) | Err(StoreError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if store.has_admin_key().await? {
        return Ok(());
    }
    let path = data.join(ADMIN_KEY_FILE);
    let failed = |error| ServiceError::DataDir { path: path.clone(), error };
    // The file first: a crash before the key is in the database must not leave an installation that nobody can enter.
    let written = std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    let key = match written.filter(|key| auth::prefix(key).is_some()) {
        Some(key) => key,
        None => {
            let new = auth::generate().map_err(ServiceError::Random)?;
            write_private(&path, &new.key).map_err(failed)?;
            new.key
        }
    };
    let new = NewKey {
        prefix: auth::prefix(&key).unwrap_or_default().to_owned(),
        secret_sha256: auth::hash(&key),
        workspace_id: None,
        role: Role::Admin,
        name: "first admin".into(),
        expires_at: None,
    };
    match store.create_key(new, None).await {
        Ok(_) | Err(StoreError::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    tracing::info!(file = %path.display(), "made the first admin's key; the command line on this machine finds it there");
    Ok(())
}

/// Removes what uploads left that were cut off by a crash, where nobody else can be at one: this process holds the data
/// directory. Elsewhere they go when they are a day old.
async fn clear_uploads(store: &Store, blobs: &Blobs, serve: &ServeSettings) -> Result<(), ServiceError> {
    if serve.database_url.is_none() {
        store.abort_uploads().await?;
        store.abort_draft_uploads().await?;
    }
    if serve.blob_url.is_none() {
        let swept = blobs.sweep_temporary(Duration::ZERO).await?;
        if swept > 0 {
            tracing::info!(files = swept, "removed what uploads of an earlier process left");
        }
    }
    Ok(())
}

fn retention(serve: &ServeSettings) -> Retention {
    let days = |days: u32| (days > 0).then_some(i64::from(days));
    let count = |count: u64| (count > 0).then(|| signed(count));
    Retention {
        jobs_days: days(serve.retention_jobs_days),
        documents_days: days(serve.retention_documents_days),
        events_days: days(serve.retention_events_days),
        jobs_kept: count(serve.quota_jobs),
        document_bytes: count(serve.quota_documents_mb.saturating_mul(1024 * 1024)),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(seconds: u64) -> i64 {
    signed(seconds.saturating_mul(1000))
}
