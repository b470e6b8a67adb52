//! What all routes share: the parts of the service, who calls, and what they may.

use super::problem::{Code, Problem};
use super::request_id::RequestId;
use super::room::Room;
use crate::blob::Blobs;
use crate::health::{Health, Part};
use crate::ids::{DocumentId, KeyId, VersionId, WorkspaceId};
use crate::network::Switch;
use crate::queue::{Admissions, Signals};
use crate::sandbox::Caps;
use crate::scheduler::Scheduler;
use crate::store::{Actor, Defaults, DocumentRef, Key, Role, Store, StoreError, Workspace, now_ms};
use crate::telemetry::Metrics;
use crate::{auth, store};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use quick_cache::sync::Cache;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a key or a workspace is believed without looking: what another node changes counts here after this.
const BELIEVED: Duration = Duration::from_secs(2);
/// A key's last use is exact to this, ms.
const LAST_USE_MS: i64 = 60_000;
const CACHED: usize = 10_000;

/// Bounds and settings that routes look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// Settings of the queue.
    pub defaults: Defaults,
    /// How long a job may wait unless its submission says otherwise, ms.
    pub queue_timeout_ms: Option<i64>,
    /// Largest document, bytes.
    pub max_document_bytes: u64,
    /// Drafts of a workspace.
    pub max_drafts: i64,
    /// Memory for packages that requests work on, bytes.
    pub package_memory_bytes: u64,
    /// A folder for files that are worked on; what a crash leaves there goes with the next start.
    pub scratch: PathBuf,
    /// Open streams and waits per key.
    pub streams_per_key: usize,
    /// Requests per second per key; none is no limit.
    pub requests_per_second: Option<NonZeroU32>,
    /// Containers at once per node, by the settings.
    pub max_concurrency: i64,
    /// Caps of jobs.
    pub caps: Caps,
    /// Whether the settings turn the queue off.
    pub queue_off: bool,
    /// Whether the settings turn safe mode on.
    pub safe_mode: bool,
    /// The setting of the network policy.
    pub network: Switch,
}

/// A version as a job record shows it; never changes.
#[derive(Debug, Clone)]
pub struct VersionInfo {
    /// The version.
    pub version: store::Version,
    /// Its config's slug.
    pub slug: String,
    /// Its config's title.
    pub title: String,
}

/// The service, as routes see it.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// See [`App`].
pub struct Inner {
    parts: AppParts,
    /// Versions, by id.
    pub versions: Cache<VersionId, Arc<VersionInfo>>,
    /// Documents, by id; whether one is still there is the queue's to say.
    pub documents: Cache<(WorkspaceId, DocumentId), Arc<DocumentRef>>,
    /// Idempotency keys whose first request is not answered yet.
    pub in_flight: Mutex<HashSet<(WorkspaceId, String)>>,
    /// Memory for packages.
    pub room: Room,
    keys: Cache<String, (Arc<Key>, Instant)>,
    workspaces: Cache<String, (Arc<Workspace>, Instant)>,
    rates: Option<DefaultKeyedRateLimiter<KeyId>>,
    streams: Mutex<HashMap<KeyId, Arc<Semaphore>>>,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl std::ops::Deref for Inner {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.parts
    }
}

/// The parts that an [`App`] is made of.
pub struct AppParts {
    /// The database.
    pub store: Store,
    /// Documents, packages, outputs.
    pub blobs: Blobs,
    /// The queue's door.
    pub admissions: Admissions,
    /// The switchboard.
    pub signals: Arc<Signals>,
    /// The scheduler of this node.
    pub scheduler: Scheduler,
    /// Readiness.
    pub health: Arc<Health>,
    /// Counters.
    pub metrics: Metrics,
    /// Bounds and settings.
    pub options: Options,
}

impl App {
    /// An app of these parts.
    #[must_use]
    pub fn new(parts: AppParts) -> Self {
        let rates = parts.options.requests_per_second.map(|rate| {
            let burst = rate.saturating_add(rate.get());
            RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst))
        });
        Self(Arc::new(Inner {
            room: Room::new(parts.options.package_memory_bytes),
            parts,
            versions: Cache::new(CACHED),
            documents: Cache::new(CACHED),
            in_flight: Mutex::default(),
            keys: Cache::new(CACHED),
            workspaces: Cache::new(CACHED),
            rates,
            streams: Mutex::default(),
        }))
    }

    /// The workspace of a path, when the caller may act in it as `role`.
    ///
    /// # Errors
    /// `workspace_not_found` when there is none, or none that the caller may know of; `forbidden` when the role is too small.
    pub async fn enter(&self, caller: &Caller, path: &str, role: Role) -> Result<Arc<Workspace>, Problem> {
        let unknown =
            || Problem::new(Code::WorkspaceNotFound).detail("no workspace of this id or slug is visible to this key");
        let workspace = self.workspace(path).await?.ok_or_else(unknown)?;
        match &caller.key.workspace_id {
            Some(own) if *own != workspace.id => return Err(unknown()),
            Some(_) | None => {}
        }
        caller.must_be(role)?;
        Ok(workspace)
    }

    async fn workspace(&self, path: &str) -> Result<Option<Arc<Workspace>>, Problem> {
        if let Some((workspace, seen)) = self.workspaces.get(path)
            && seen.elapsed() < BELIEVED
        {
            return Ok(Some(workspace));
        }
        let found = match path.parse::<WorkspaceId>() {
            Ok(id) => self.store.workspace(&id).await?,
            Err(_) if is_slug(path) => self.store.workspace_by_slug(path).await?,
            // No workspace can have it, and a database may not even take it as a text.
            Err(_) => None,
        };
        Ok(found.map(|workspace| {
            let workspace = Arc::new(workspace);
            self.workspaces.insert(path.to_owned(), (Arc::clone(&workspace), Instant::now()));
            workspace
        }))
    }

    /// Forgets what is believed of a workspace that was changed here.
    pub fn workspace_changed(&self, workspace: &Workspace) {
        self.workspaces.remove(workspace.id.as_str());
        self.workspaces.remove(workspace.slug.as_str());
    }

    /// Forgets what is believed of a key that was changed here.
    pub fn key_changed(&self, key: &Key) {
        self.keys.remove(key.prefix.as_str());
    }

    /// A version, whole.
    ///
    /// # Errors
    /// `version_not_found`.
    pub async fn version(&self, workspace: &WorkspaceId, id: &VersionId) -> Result<Arc<VersionInfo>, Problem> {
        if let Some(info) = self.versions.get(id)
            && info.version.workspace_id == *workspace
        {
            return Ok(info);
        }
        let unknown =
            || Problem::new(Code::VersionNotFound).detail(format!("there is no config version {id} in this workspace"));
        let version = self.store.version(workspace, id).await?.ok_or_else(unknown)?;
        let config = self.store.config(workspace, &version.config_id).await?.ok_or_else(unknown)?;
        let info = Arc::new(VersionInfo { version, slug: config.slug, title: config.title });
        self.versions.insert(id.clone(), Arc::clone(&info));
        Ok(info)
    }

    /// A place for a stream or a wait of a key; given back when dropped.
    ///
    /// # Errors
    /// `too_many_streams`.
    pub fn stream(&self, caller: &Caller) -> Result<OwnedSemaphorePermit, Problem> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let max = self.options.streams_per_key;
        if streams.len() > CACHED {
            streams.retain(|_, places| places.available_permits() < max);
        }
        let places = Arc::clone(streams.entry(caller.key.id.clone()).or_insert_with(|| Arc::new(Semaphore::new(max))));
        drop(streams);
        places.try_acquire_owned().map_err(|_| {
            Problem::new(Code::TooManyStreams)
                .detail(format!("this key has {max} streams and waiting requests open, which is the limit; close some"))
                .retry_after(1)
        })
    }

    /// Whether jobs are taken at all.
    ///
    /// # Errors
    /// `draining`, `safe_mode`, `queue_off`.
    pub fn admits(&self) -> Result<(), Problem> {
        if self.scheduler.is_draining() {
            return Err(Problem::new(Code::Draining)
                .detail("this process is about to stop; submit to another, or again in a moment")
                .retry_after(5));
        }
        if self.options.safe_mode {
            return Err(Code::SafeMode.into());
        }
        if self.options.queue_off {
            return Err(Code::QueueOff.into());
        }
        Ok(())
    }

    async fn authenticate(&self, parts: &Parts) -> Result<Caller, Problem> {
        // Every 401 says how to do better (RFC 9110, 15.5.2).
        let refused = |code: Code, detail: String| {
            Problem::new(code)
                .detail(detail)
                .header(axum::http::header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"))
        };
        let unauthorized = |detail: &str| refused(Code::Unauthorized, detail.to_owned());
        let sent = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = sent.ok_or_else(|| unauthorized("send an API key: Authorization: Bearer ade_…"))?;
        let (scheme, key) = sent.split_once(' ').unwrap_or(("", sent));
        let prefix = scheme.eq_ignore_ascii_case("bearer").then(|| auth::prefix(key.trim())).flatten();
        let prefix = prefix.ok_or_else(|| unauthorized("the Authorization header has no API key of the form ade_…"))?;
        let stored = self.key(prefix).await?;
        let stored = stored
            .filter(|stored| auth::matches(key.trim(), &stored.secret_sha256))
            .ok_or_else(|| unauthorized("the API key is not known here"))?;
        if stored.revoked_at.is_some() {
            return Err(refused(Code::KeyRevoked, format!("the key {} was revoked; use another", stored.prefix)));
        }
        let now = now_ms();
        if stored.expires_at.is_some_and(|expires| expires <= now) {
            return Err(refused(Code::KeyExpired, format!("the key {} has expired; make a new one", stored.prefix)));
        }
        if let Some(rates) = &self.rates
            && let Err(wait) = rates.check_key(&stored.id)
        {
            let wait = wait.wait_time_from(governor::clock::Clock::now(&governor::clock::DefaultClock::default()));
            return Err(Problem::new(Code::RateLimited)
                .detail("this key sends more requests per second than it may (ADE_RATE_LIMIT)")
                .retry_after(wait.as_secs() + 1));
        }
        if stored.last_used_at.is_none_or(|last| last < now - LAST_USE_MS) {
            let mut used = Key::clone(&stored);
            used.last_used_at = Some(now);
            self.keys.insert(used.prefix.clone(), (Arc::new(used), Instant::now()));
            let (store, id) = (self.store.clone(), stored.id.clone());
            tokio::spawn(async move { store.key_used(&id, now).await });
        }
        let request_id = parts.extensions.get::<RequestId>().cloned();
        Ok(Caller { key: stored, request_id: request_id.unwrap_or_else(|| RequestId::of(&parts.headers)) })
    }

    async fn key(&self, prefix: &str) -> Result<Option<Arc<Key>>, Problem> {
        if let Some((key, seen)) = self.keys.get(prefix)
            && seen.elapsed() < BELIEVED
        {
            return Ok(Some(key));
        }
        Ok(self.store.key_by_prefix(prefix).await?.map(|key| {
            let key = Arc::new(key);
            self.keys.insert(prefix.to_owned(), (Arc::clone(&key), Instant::now()));
            key
        }))
    }
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key it came with.
    pub key: Arc<Key>,
    /// Its id.
    pub request_id: RequestId,
}

impl Caller {
    /// The caller as the audit names it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            key_id: self.key.id.clone(),
            name: self.key.name.clone(),
            request_id: self.request_id.as_str().to_owned(),
        }
    }

    /// # Errors
    /// `forbidden`, naming both roles.
    pub fn must_be(&self, role: Role) -> Result<(), Problem> {
        if self.key.role >= role {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden)
            .detail(format!("this needs the role {role}; the key {} is of role {}", self.key.prefix, self.key.role)))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        app.authenticate(parts).await
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(reason, "a request met a database that is not there");
                Self::new(Code::DatabaseUnavailable).retry_after(2)
            }
            StoreError::Full(reason) => {
                tracing::error!(reason, "the database's disk is full");
                Self::new(Code::StorageFull).detail("the database's disk is full").retry_after(30)
            }
            other => {
                tracing::error!(error = %other, "a request failed in the database");
                Self::new(Code::Internal)
            }
        }
    }
}

/// Whether a text can be the slug of a workspace or of a config.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = text.bytes().next().is_some_and(allowed);
    first && text.len() <= 100 && text.bytes().all(|byte| allowed(byte) || byte == b'-')
}

/// Why the service is not ready, as far as uploads are concerned.
///
/// # Errors
/// `storage_unavailable`.
pub fn storage_ready(app: &App) -> Result<(), Problem> {
    let report = app.health.report();
    match report.into_iter().find(|(part, _)| *part == Part::Storage) {
        Some((_, Err(reason))) if reason != "starting" => {
            Err(Problem::new(Code::StorageUnavailable).detail(reason).retry_after(5))
        }
        _ => Ok(()),
    }
}
