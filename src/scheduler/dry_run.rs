//! Trying out the scripts of packages for the API, in the same way as activations: in line, bounded, and cancelled with their caller.

use super::lines::{Caller, Lines, Place};
use super::{Inner, Scheduler};
use crate::ids::{JobId, WorkspaceId};
use crate::job::{self, Identity, Prepared, Refusal};
use crate::network::Stored;
use crate::packages::{Diagnostic, Package};
use crate::sandbox::{Failure, Requested};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::Instrument;
use ulid::Ulid;

/// Whose scripts are to be tried out.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who pays for it, and whose dependency sets it uses.
    pub workspace_id: WorkspaceId,
    /// The package; it has passed the check that needs no container, or this is [`NotTried::Refused`].
    pub package: Arc<Package>,
    /// The network policy that decides whether its dependencies may be fetched.
    pub network: Stored,
}

/// Why nothing can be said.
#[derive(Debug)]
pub enum NotTried {
    /// So many of the workspace wait already.
    Busy(usize),
    /// Docker or the image is not there.
    NoEngine(String),
    /// This process is about to stop.
    Draining,
    /// The package has errors that need no container to be seen.
    Refused(Box<Refusal>),
    /// The machine did not let it be tried.
    Machine(Failure),
    /// The engine failed inside.
    Broken,
}

impl Scheduler {
    /// What only shows when the scripts of a package are imported and called. Dropping the future cancels it.
    ///
    /// # Errors
    /// [`NotTried`]; all that the package is to blame for is a diagnostic.
    pub async fn dry_run(&self, candidate: Candidate) -> Result<Vec<Diagnostic>, NotTried> {
        let inner = &self.inner;
        let lines: &Arc<Lines> = &inner.dry_runs;
        let place = Place::take(lines, &candidate.workspace_id).map_err(NotTried::Busy)?;
        let mut draining = inner.draining.subscribe();
        let turn = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => return Err(NotTried::Draining),
            turn = place.turn() => turn,
        };
        let node = inner.node.borrow().clone().ok_or_else(|| NotTried::NoEngine(inner.why_no_node()))?;
        let identity = Identity {
            job_id: JobId::generate(),
            workspace_id: candidate.workspace_id.to_string(),
            config_version_id: None,
            attempt: 1,
            execution: 1,
            trace_id: Ulid::new().to_string().to_lowercase(),
        };
        let (cancel, cancelled) = watch::channel(false);
        let id = identity.job_id.clone();
        let registered = lines.register(id.clone(), cancel.clone());
        let task = tokio::spawn({
            let inner = Arc::clone(inner);
            let span = tracing::info_span!("dry run", %id, workspace = %candidate.workspace_id);
            async move {
                let _held = (place, turn, registered);
                let prepared = prepare(&inner, &node.caps, candidate, identity).await?;
                let done = job::dry_run(&node, &prepared, cancelled.clone()).await;
                if *cancelled.borrow() {
                    return Err(NotTried::Draining);
                }
                let done = done.map_err(|failure| {
                    if failure.kind.is_infrastructure() {
                        // Docker or the image may not be what it was: look.
                        inner.node.send_replace(None);
                    }
                    NotTried::Machine(failure)
                })?;
                if let Some(container) = &done.left_behind {
                    tracing::warn!("{container}");
                }
                tracing::info!(diagnostics = done.diagnostics.len(), "scripts tried out");
                Ok(done.diagnostics)
            }
            .instrument(span)
        });
        let _caller = Caller(cancel);
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a dry run broke down");
            Err(NotTried::Broken)
        })
    }
}

async fn prepare(
    inner: &Inner,
    caps: &crate::sandbox::Caps,
    candidate: Candidate,
    identity: Identity,
) -> Result<Prepared, NotTried> {
    let (caps, network) = (caps.clone(), inner.network);
    let prepared = tokio::task::spawn_blocking(move || {
        let Candidate { package, network: stored, .. } = candidate;
        let manifest = job::manifest_of(&package, &caps)?;
        let limits = job::limits(&manifest, Requested::default(), &caps)?;
        let decision = stored.decide(network, manifest.defaults.runtime_network_access);
        let prepared = Prepared::new(package, manifest, Vec::new(), limits, identity, decision);
        Ok::<_, Refusal>(prepared.with_source_builds(stored.source_builds))
    });
    match prepared.await {
        Ok(prepared) => prepared.map_err(|refusal| NotTried::Refused(Box::new(refusal))),
        Err(error) => {
            tracing::error!(%error, "checking a package broke down");
            Err(NotTried::Broken)
        }
    }
}
