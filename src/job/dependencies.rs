//! The dependencies of a job: made ready before its container is started.

use super::request::labels;
use super::{Node, Prepared, Recorder, host_io};
use crate::deps::{Block, Failed, InUse, Place, Want, packages_txt};
use crate::events::Level;
use crate::sandbox::{Failure, Mount, label};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a job has of its dependencies. The set stays in use as long as this lives.
#[derive(Debug, Default)]
pub struct Dependencies {
    pub block: Block,
    set: Option<InUse>,
    pub log: String,
    /// Why there is no set although one is needed.
    pub failure: Option<Failure>,
    pub took_ms: u64,
    /// Which files they left in the staging folder.
    pub files: Vec<&'static str>,
}

impl Dependencies {
    pub fn mounts(&self) -> Vec<Mount> {
        self.set.iter().map(|set| Mount::Set { volume: set.record.volume.clone() }).collect()
    }

    pub fn lock_sha256(&self) -> Option<&str> {
        self.set.as_ref().map(|set| set.record.lock_sha256.as_str())
    }

    /// Writes `packages.txt` and `install.log`, as far as there are any.
    ///
    /// # Errors
    /// `host_io`.
    pub fn write(&mut self, staging: &Path) -> Result<(), Failure> {
        let packages = self.set.as_ref().map(|set| packages_txt(&set.record)).unwrap_or_default();
        for (name, text) in [("packages.txt", &packages), ("install.log", &self.log)] {
            if text.is_empty() {
                continue;
            }
            let path = staging.join(name);
            std::fs::write(&path, text).map_err(|error| host_io(&path, &error))?;
            self.files.push(name);
        }
        Ok(())
    }
}

/// Finds or installs the set of a job, and records the events of it.
pub async fn ready(
    node: &Node,
    job: &Prepared,
    cancel: watch::Receiver<bool>,
    recorder: &mut Recorder<'_>,
) -> Dependencies {
    let Some(requirements) = &job.requirements else { return Dependencies::default() };
    let started = Instant::now();
    recorder.installing();
    let want = Want {
        workspace_id: job.identity.workspace_id.clone(),
        requirements: requirements.clone(),
        network: job.network.clone(),
        source_builds: job.source_builds,
    };
    let place = place(node, &want.workspace_id);
    let ensured = node.deps.ensure(&place, want, cancel, &mut |step| recorder.step(step)).await;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match ensured {
        Ok(set) => {
            let block = Block::of(requirements, &set);
            let (record, installed) = (&set.record, set.installed);
            recorder.note(|log| {
                log.event("deps.ready")
                    .took(took_ms)
                    .with("status", if installed { "installed" } else { "cached" })
                    .with("set_id", record.set_id.clone())
                    .with("source", record.source.clone())
                    .with("packages", record.packages.len())
                    .write()
            });
            let log = node.deps.sets().log(record);
            Dependencies { block, set: Some(set), log, took_ms, ..Dependencies::default() }
        }
        Err(failed) => {
            let block = Block::failed(requirements, &failed, took_ms);
            let Failed { failure, log } = failed;
            recorder.note(|log| {
                log.event("deps.failed")
                    .level(Level::Error)
                    .took(took_ms)
                    .with("kind", failure.kind.as_str())
                    .with("message", failure.message.clone())
                    .write()
            });
            Dependencies { block, log, failure: Some(failure), took_ms, ..Dependencies::default() }
        }
    }
}

/// Where the installs of a node happen.
pub fn place(node: &Node, workspace_id: &str) -> Place {
    // An install has its own time limit; this is for what a crash leaves.
    let lifetime = node.deps.index().timeout + Duration::from_secs(300);
    let mut labels = labels(node, lifetime);
    labels.insert(label::WORKSPACE.to_owned(), workspace_id.to_owned());
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(1));
    Place {
        docker: node.docker.clone(),
        pool: node.pool.clone(),
        image: node.image_digest.clone(),
        runtime: node.runtime.clone(),
        egress: Arc::clone(&node.egress),
        cpus: node.caps.cpus.max(f64::from(cpus.min(2))),
        labels,
    }
}
