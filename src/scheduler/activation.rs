//! Activations: one at a time in each workspace. Whoever drops the wish cancels it; its turn ends when its task does.

use super::lines::{Caller, Place};
use super::{Inner, Scheduler};
use crate::ids::{JobId, VersionId};
use crate::job::{self, Activation, Identity, Node, Prepared, Refusal};
use crate::network::Stored;
use crate::sandbox::{Failure, FailureKind, Requested};
use crate::store::{Actor, Moved, StoreError, Version};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::Instrument;
use ulid::Ulid;

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
    /// passes the check, its dependencies can be had and its hooks return. Dropping the future cancels it.
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
        let place = Place::take(&inner.activations, &wish.version.workspace_id).map_err(NotActivated::Busy)?;
        let mut draining = inner.draining.subscribe();
        let turn = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(NotActivated::Draining),
            turn = place.turn() => turn,
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
        let registered = inner.activations.register(identity.job_id.clone(), cancel.clone());
        let span = tracing::info_span!("activation", id = %identity.job_id, version = %wish.version.id);
        let task = tokio::spawn({
            let inner = Arc::clone(inner);
            async move {
                let _held = (place, turn, registered);
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
    pub(super) fn why_no_node(&self) -> String {
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
        let (prepared, remarks) = match self.prepare_activation(node, wish, identity, &stored).await {
            Ok(prepared) => prepared,
            Err(refusal) if refusal.failure.kind.is_infrastructure() => {
                return Err(NotActivated::Machine(refusal.failure));
            }
            Err(refusal) => return Err(NotActivated::Failed(Box::new(refused(refusal)))),
        };
        let mut activation = job::activate(node, &prepared, remarks, cancelled.clone()).await;
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
    ) -> Result<(Prepared, Vec<Value>), Refusal> {
        let sha256 = wish.version.package_sha256.parse().map_err(|_| {
            Failure::new(FailureKind::PackageInvalid, "the record of this version has no hash of its package")
        })?;
        let package = self.packages.get(&self.blobs, &wish.version.workspace_id, &sha256).await?;
        let (checking, caps) = (Arc::clone(&package), node.caps.clone());
        let checked = tokio::task::spawn_blocking(move || job::checked(&checking, &caps)).await;
        let (manifest, remarks) = checked.map_err(|error| {
            Failure::new(FailureKind::HostIo, format!("checking the package broke down: {error}"))
        })??;
        let limits = job::limits(&manifest, Requested::default(), &node.caps)?;
        let network = stored.decide(self.network, manifest.defaults.runtime_network_access);
        let prepared = Prepared::new(package, manifest, Vec::new(), limits, identity, network);
        Ok((prepared.with_source_builds(stored.source_builds), remarks))
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
