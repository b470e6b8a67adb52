//! One job from request to result: inputs measured, package checked, limits resolved, events and run request written, the
//! container run, the artifact finished. What it leaves in the staging folder is complete or absent, never half-written.

mod activation;
pub mod artifact;
mod blocks;
mod cells;
mod dependencies;
mod dry_run;
mod execution;
mod identity;
mod inputs;
mod recorder;
mod refusal;
mod request;
mod validation;

pub use activation::{Activation, HookOutput, HookRun, OutputLine, activate};
pub use cells::{Cell, Cells, read_cells};
pub use dependencies::place;
pub use dry_run::{DryRun, dry_run, not_tried};
pub use execution::{Executed, JobReport, execute};
pub use identity::{Identity, container_name};
pub use inputs::{Input, MAX_INPUTS, inputs_fit, open_all as open_inputs};
pub use recorder::{Log, Observer, Recorder};
pub use refusal::{Refusal, checked, limits, manifest_of, no_package, open_package, stored_manifest_of, to_values};
pub use validation::{Validation, validate};

use crate::deps::Deps;
use crate::egress::{Egress, Grant};
use crate::network::{Decision, Purpose};
use crate::packages::{self, Manifest, Package, Requirements};
use crate::sandbox::{
    self, Caps, ContainerSpec, Failure, FailureKind, Ledger, Limits, Pool, PoolParts, PoolSize, Requested, Watcher,
    private_uid,
};
use request::{class, labels};
use std::fs::File;
use std::io::LineWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// Names of the files that a job leaves.
pub const FILES: [&str; 6] =
    ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json", "packages.txt", "install.log"];

/// Where and with what jobs run: one per process.
#[derive(Debug, Clone)]
pub struct Node {
    /// Docker Engine.
    pub docker: bollard::Docker,
    /// Its containers.
    pub pool: Pool,
    /// Image reference, for people.
    pub image: String,
    /// Image digest; containers are made from exactly this.
    pub image_digest: String,
    /// OCI runtime that the admin asked for.
    pub runtime: Option<String>,
    /// The admin's caps.
    pub caps: Caps,
    /// The way to the network.
    pub egress: Arc<Egress>,
    /// Label of this installation's containers.
    pub instance: String,
    /// Label of this process's containers, where several processes share an installation.
    pub node: Option<String>,
    /// Dependency sets.
    pub deps: Deps,
}

impl Node {
    /// The same, with a pool of this size, whose floor is of the class that jobs have whose packages ask for nothing special. Needs
    /// a runtime.
    ///
    /// # Errors
    /// A [`Failure`] when the caps leave no job possible.
    pub fn with_pool(self, ledger: Ledger, size: PoolSize, watcher: Watcher) -> Result<Self, Failure> {
        let limits = default_limits(&self)?;
        let pool = Pool::start(PoolParts {
            docker: self.docker.clone(),
            ledger,
            size,
            usual: Some(class(&self, &limits, &[])),
            labels: labels(&self, Duration::ZERO),
            longest_job: self.caps.timeout + Duration::from_millis(limits.on_job_end_ms),
            watcher,
            lender: None,
        });
        Ok(Self { pool, ..self })
    }
}

/// A job that has passed every check that needs no container.
#[derive(Debug)]
pub struct Prepared {
    package: Arc<Package>,
    manifest: Manifest,
    inputs: Vec<Input>,
    limits: Limits,
    identity: Identity,
    network: Decision,
    requirements: Option<Requirements>,
    source_builds: bool,
}

impl Prepared {
    /// A job whose parts the caller has checked: by [`manifest_of`], [`limits`] and [`inputs_fit`]; `network` is the policy's
    /// decision for it.
    #[must_use]
    pub fn new(
        package: Arc<Package>,
        manifest: Manifest,
        inputs: Vec<Input>,
        limits: Limits,
        identity: Identity,
        network: Decision,
    ) -> Self {
        let requirements = Requirements::of(&package);
        Self { package, manifest, inputs, limits, identity, network, requirements, source_builds: false }
    }

    /// The same, with an admin's word on whether its requirements may be built from source.
    #[must_use]
    pub fn with_source_builds(self, source_builds: bool) -> Self {
        Self { source_builds, ..self }
    }

    /// What has to be installed for it.
    #[must_use]
    pub const fn requirements(&self) -> Option<&Requirements> {
        self.requirements.as_ref()
    }

    /// Which job it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The resolved limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The inputs.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Whether it gets network, and who decided.
    #[must_use]
    pub const fn network(&self) -> &Decision {
        &self.network
    }
}

/// Checks package, limits and inputs on the caller's own disk, for a local job that is to reach the network by way of `egress`;
/// `network` decides about one whose manifest asks for network, or does not. Blocking; nothing is started or written.
///
/// # Errors
/// A [`Refusal`] with everything that is wrong with the package, or the first thing that is wrong with limits or inputs.
pub fn prepare(
    package: &Path,
    inputs: &[PathBuf],
    asked: Requested,
    caps: &Caps,
    egress: &Egress,
    network: impl FnOnce(bool) -> Decision,
) -> Result<Prepared, Refusal> {
    let package = refusal::open_package(package)?;
    let manifest = manifest_of(&package, caps)?;
    let limits = limits(&manifest, asked, caps)?;
    let network = network(manifest.defaults.runtime_network_access);
    let ca_bundle = egress.ca_bundle(&Grant::of(&network, Purpose::Run));
    let inputs = inputs::open_all(inputs, &package, &limits, ca_bundle)?;
    Ok(Prepared::new(Arc::new(package), manifest, inputs, limits, Identity::local(), network))
}

/// Runs a prepared job from beginning to end; its files go to `staging`, an empty folder.
///
/// # Errors
/// A [`Failure`] of kind `host_io` when the staging folder cannot be written; every other failure is in the report.
pub async fn run(
    node: &Node,
    job: &Prepared,
    staging: &Arc<TempDir>,
    cancel: watch::Receiver<bool>,
    observer: &mut dyn Observer,
) -> Result<JobReport, Failure> {
    let events_path = staging.path().join("events.ndjson");
    let events = File::create(&events_path).map_err(|error| host_io(&events_path, &error))?;
    let mut recorder = Recorder::new(LineWriter::new(events), &job.identity, 1, observer);
    recorder.note(|log| log.event("enqueue").state("queued").write());
    let executed = execute(node, job, staging, cancel, &mut recorder).await?;
    let outcome = executed.outcome().clone();
    let report = executed.conclude(outcome, &mut recorder).await?;
    recorder.finish().map_err(|error| host_io(&events_path, &error))?;
    Ok(report)
}

/// Everything about a package that can be told without a container. Blocking.
///
/// # Errors
/// A [`Failure`] when the package cannot even be opened.
pub fn inspect(package: &Path, caps: &Caps) -> Result<(Package, packages::Report), Failure> {
    let package = refusal::open_package(package)?;
    let report = packages::validate(&package, &refusal::package_caps(caps));
    Ok((package, report))
}

/// Starts a container of the hardened profile, waits until its supervisor is ready, and removes it.
///
/// # Errors
/// Why it did not come up.
pub async fn probe(node: &Node) -> Result<sandbox::protocol::Ready, Failure> {
    let Identity { job_id, execution, .. } = Identity::local();
    let spec = usual_container(node, Duration::from_secs(180))?;
    sandbox::probe(&node.pool, &container_name(&job_id, execution), &spec).await
}

/// A container of the class that jobs have whose packages ask for nothing special, which nobody wants any more after this time.
///
/// # Errors
/// A [`Failure`] when the caps leave no job possible.
pub fn usual_container(node: &Node, lifetime: Duration) -> Result<ContainerSpec, Failure> {
    let limits = default_limits(node)?;
    Ok(ContainerSpec { class: class(node, &limits, &[]), uid: private_uid(), labels: labels(node, lifetime) })
}

fn default_limits(node: &Node) -> Result<Limits, Failure> {
    Limits::resolve(&node.caps, Requested::default())
        .map_err(|error| Failure::new(FailureKind::LimitInvalid, error.to_string()))
}

fn host_io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        FailureKind::HostIo,
        format!("cannot write {}: {error}; free space there or choose another folder", path.display()),
    )
}
