//! Activations: one at a time in each workspace, in the order in which they were asked for, and a few at a time on a node.
//!
//! An activation is a task of its own, so that its containers are removed also when nobody waits for it any more: whoever drops
//! the wish cancels it. Its turn ends when the task does.

use super::{Inner, Scheduler};
use crate::ids::{JobId, VersionId, WorkspaceId};
use crate::job::{self, Activation, Identity, Node, Prepared, Refusal};
use crate::network::Stored;
use crate::sandbox::{Failure, FailureKind, Requested};
use crate::store::{Actor, Moved, StoreError, Version};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};
use tracing::Instrument;
use ulid::Ulid;

/// Activations of one workspace that may wait or run.
const IN_LINE: usize = 8;
/// Activations of a node that run.
const AT_ONCE: usize = 4;

/// What is to become the active version, and who wants it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The version.
    pub version: Version,
    /// Who wants it.
    pub by: Actor,
}

/// A version that has become the active one.
#[derive(Debug)]
pub struct Activated {
    /// The one that was active before.
    pub previous: Option<VersionId>,
    /// Since when, ms.
    pub at: i64,
    /// How long it took from its turn on.
    pub took: Duration,
    /// What happened on the way.
    pub activation: Activation,
}

/// Why a version has not become the active one; nothing is changed.
#[derive(Debug)]
pub enum NotActivated {
    /// So many activations of the workspace wait already.
    Busy(usize),
    /// Docker or the image is not there.
    NoEngine(String),
    /// This process is about to stop.
    Draining,
    /// The package did not pass.
    Failed(Box<Activation>),
    /// The machine did not let it be tried.
    Machine(Failure),
    /// What the database says of the version now.
    Refused(Moved),
    /// The database's.
    Store(StoreError),
    /// The engine failed inside.
    Broken,
}

impl NotActivated {
    /// As a label of a metric; stable.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused",
            Self::Busy(_) => "busy",
            Self::Draining => "cancelled",
            Self::NoEngine(_) | Self::Machine(_) | Self::Store(_) | Self::Broken => "error",
        }
    }
}

impl From<StoreError> for NotActivated {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The activations of this node.
#[derive(Debug)]
pub(super) struct Activations {
    lines: Mutex<HashMap<WorkspaceId, Line>>,
    running: Mutex<HashMap<JobId, Running>>,
    places: Arc<Semaphore>,
}

impl Default for Activations {
    fn default() -> Self {
        Self { lines: Mutex::default(), running: Mutex::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

#[derive(Debug, Default)]
struct Line {
    /// Fair: who has waited longest is next.
    turn: Arc<tokio::sync::Mutex<()>>,
    length: usize,
}

#[derive(Debug)]
struct Running {
    containers: [String; 2],
    cancel: watch::Sender<bool>,
}

impl Activations {
    fn lines(&self) -> MutexGuard<'_, HashMap<WorkspaceId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a container belongs to an activation that goes on.
    pub(super) fn owns(&self, container: &str) -> bool {
        self.running().values().any(|running| running.containers.iter().any(|name| name == container))
    }

    /// Whether any goes on.
    pub(super) fn any(&self) -> bool {
        !self.running().is_empty()
    }

    /// Cancels all.
    pub(super) fn stop(&self) {
        for running in self.running().values() {
            running.cancel.send_replace(true);
        }
    }
}

/// A place in a workspace's line; given back when dropped.
struct Place {
    inner: Arc<Inner>,
    workspace: WorkspaceId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Place {
    fn take(inner: &Arc<Inner>, workspace: &WorkspaceId) -> Result<Self, NotActivated> {
        let mut lines = inner.activations.lines();
        let line = lines.entry(workspace.clone()).or_default();
        if line.length >= IN_LINE {
            return Err(NotActivated::Busy(line.length));
        }
        line.length += 1;
        Ok(Self { inner: Arc::clone(inner), workspace: workspace.clone(), turn: Arc::clone(&line.turn) })
    }

    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.inner.activations.lines();
        if let Some(line) = lines.get_mut(&self.workspace) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.workspace);
            }
        }
    }
}

/// Says that an activation and its containers are looked after, until it is dropped.
struct Registered<'a>(&'a Inner, JobId);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.activations.running().remove(&self.1);
    }
}

/// Cancels when it is dropped.
struct Caller(watch::Sender<bool>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// Counts an activation when it is dropped: its caller may go away at any time, which cancels it.
struct Counted<'a> {
    inner: &'a Inner,
    asked: Instant,
    result: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.inner.metrics.activation(self.result, self.asked.elapsed());
    }
}

impl Scheduler {
    /// Makes a version the active one of its workspace: after those that were asked for before, and only when its package
    /// passes the static check, its dependencies can be had and its hooks return. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`NotActivated`]; then nothing is changed.
    pub async fn activate(&self, wish: Wish) -> Result<Activated, NotActivated> {
        let mut counted = Counted { inner: &self.inner, asked: Instant::now(), result: "cancelled" };
        let activated = self.activate_in_turn(wish).await;
        counted.result = activated.as_ref().map_or_else(NotActivated::as_str, |_| "activated");
        activated
    }

    async fn activate_in_turn(&self, wish: Wish) -> Result<Activated, NotActivated> {
        let inner = &self.inner;
        let place = Place::take(inner, &wish.version.workspace_id)?;
        let mut draining = inner.draining.subscribe();
        let (turn, room) = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(NotActivated::Draining),
            turn = async { (place.turn().await, Arc::clone(&inner.activations.places).acquire_owned().await) } => turn,
        };
        let started = Instant::now();
        let node = inner.node.borrow().clone().ok_or_else(|| NotActivated::NoEngine(inner.why_no_node()))?;
        let identity = Identity {
            job_id: JobId::generate(),
            workspace_id: wish.version.workspace_id.to_string(),
            config_version_id: Some(wish.version.id.to_string()),
            attempt: 1,
            execution: 1,
            trace_id: Ulid::new().to_string().to_lowercase(),
        };
        let (cancel, cancelled) = watch::channel(false);
        let running = Running { containers: job::activation_containers(&identity), cancel: cancel.clone() };
        inner.activations.running().insert(identity.job_id.clone(), running);
        let span = tracing::info_span!("activation", id = %identity.job_id, version = %wish.version.id);
        let task = tokio::spawn({
            let inner = Arc::clone(inner);
            async move {
                let _held = (place, turn, room);
                let _registered = Registered(&inner, identity.job_id.clone());
                inner.activate(&node, &wish, identity, cancelled, started).await
            }
            .instrument(span)
        });
        let _caller = Caller(cancel);
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "an activation broke down");
            Err(NotActivated::Broken)
        })
    }
}

impl Inner {
    fn why_no_node(&self) -> String {
        let report = self.health.report();
        report
            .into_iter()
            .find_map(|(part, state)| {
                use crate::health::Part;
                matches!(part, Part::Docker | Part::Image).then(|| state.err()).flatten()
            })
            .unwrap_or_else(|| "this node is not ready for containers".to_owned())
    }

    async fn activate(
        &self,
        node: &Node,
        wish: &Wish,
        identity: Identity,
        cancelled: watch::Receiver<bool>,
        started: Instant,
    ) -> Result<Activated, NotActivated> {
        let Version { id, config_id, workspace_id, .. } = &wish.version;
        let workspace = self.store.workspace(workspace_id).await?.ok_or(NotActivated::Refused(Moved::Gone))?;
        let previous = workspace.active_version_id;
        let stored = self.store.network_of(config_id).await?.ok_or(NotActivated::Refused(Moved::Gone))?;
        let prepared = match self.prepare_activation(node, wish, identity, &stored).await {
            Ok(prepared) => prepared,
            Err(refusal) if refusal.failure.kind.is_infrastructure() => {
                return Err(NotActivated::Machine(refusal.failure));
            }
            Err(refusal) => return Err(NotActivated::Failed(Box::new(refused(refusal)))),
        };
        let mut activation = job::activate(node, &prepared, cancelled.clone()).await;
        if let Some(container) = activation.left_behind.take() {
            tracing::warn!("{container}");
        }
        if *cancelled.borrow() {
            tracing::info!("activation cancelled");
            return Err(NotActivated::Draining);
        }
        if let Some(failure) = &activation.failure {
            tracing::info!(kind = failure.kind.as_str(), "activation failed");
            let engine = matches!(failure.kind, FailureKind::EngineUnavailable | FailureKind::ImageMissing);
            if engine {
                // Docker or the image is not what it was: look.
                self.node.send_replace(None);
            }
            if engine || matches!(failure.kind, FailureKind::HostIo | FailureKind::RuntimeMissing) {
                return Err(NotActivated::Machine(failure.clone()));
            }
            return Err(NotActivated::Failed(Box::new(activation)));
        }
        match self.store.activate_version(workspace_id, id, previous.as_ref(), &wish.by).await? {
            Moved::Active(at) => {
                tracing::info!(workspace = %workspace_id, config = %config_id, previous = ?previous, "version activated");
                Ok(Activated { previous, at, took: started.elapsed(), activation })
            }
            other => Err(NotActivated::Refused(other)),
        }
    }

    async fn prepare_activation(
        &self,
        node: &Node,
        wish: &Wish,
        identity: Identity,
        stored: &Stored,
    ) -> Result<Prepared, Refusal> {
        let sha256 = wish.version.package_sha256.parse().map_err(|_| {
            Failure::new(FailureKind::PackageInvalid, "the record of this version has no hash of its package")
        })?;
        let package = self.packages.get(&self.blobs, &wish.version.workspace_id, &sha256).await?;
        let manifest = job::manifest_of(&package, &node.caps)?;
        let limits = job::limits(&manifest, Requested::default(), &node.caps)?;
        let network = stored.decide(self.network, manifest.defaults.runtime_network_access);
        let prepared = Prepared::new(package, manifest, Vec::new(), limits, identity, network);
        Ok(prepared.with_source_builds(stored.source_builds))
    }
}

fn refused(refusal: Refusal) -> Activation {
    Activation {
        failure: Some(refusal.failure),
        dependencies: json!({"status": "none"}),
        diagnostics: refusal.diagnostics,
        hooks: Vec::new(),
        output: job::HookOutput::default(),
        install_log: String::new(),
        left_behind: None,
    }
}
