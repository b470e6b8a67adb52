//! Dependencies of config packages: installed before any script runs, in a container that sees no job data, into a *dependency
//! set*, a Docker volume that job containers mount read-only.
//!
//! Sets are of one workspace and one engine. What makes a volume a set is its record ([`Record`]), written when the install has
//! ended well; whatever has none is removed. `docs/developers/dependencies.md` has the course of an install.

mod block;
mod download;
mod flight;
mod index;
mod install;
mod secrets;
mod sets;

pub use block::{Block, packages_txt};
pub use download::download;
pub use flight::{Failed, InUse, Step};
pub use index::{Index, PUBLIC_INDEX, Tool, Wheelhouse};
pub use sets::{Listed, Locked, Record, Sets};

use crate::egress::Egress;
use crate::network::Decision;
use crate::packages::Requirements;
use crate::sandbox::{Failure, Pool};
use bollard::Docker;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Where installs happen, and under which labels.
#[derive(Debug, Clone)]
pub struct Place {
    /// Docker Engine.
    pub docker: Docker,
    /// Its containers.
    pub pool: Pool,
    /// Image digest.
    pub image: String,
    /// OCI runtime that the admin asked for.
    pub runtime: Option<String>,
    /// How this node reaches the network.
    pub egress: Arc<Egress>,
    /// CPUs of an installer.
    pub cpus: f64,
    /// Labels of containers and volumes: whose they are.
    pub labels: HashMap<String, String>,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// The workspace; sets are shared inside of it only.
    pub workspace_id: String,
    /// What the package asks for.
    pub requirements: Requirements,
    /// Whether an install may use the network.
    pub network: Decision,
    /// Whether an admin allowed builds from source for this package.
    pub source_builds: bool,
}

/// The dependency sets of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deps {
    index: Arc<Index>,
    sets: Arc<Sets>,
    flights: Arc<flight::Flights>,
}

impl Deps {
    /// Sets whose records lie in the folder of `sets`, filled as `index` says.
    #[must_use]
    pub fn new(index: Index, sets: Sets) -> Self {
        Self { index: Arc::new(index), sets: Arc::new(sets), flights: Arc::default() }
    }

    /// The records.
    #[must_use]
    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// Where packages come from.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The set of these requirements, installed if it is not there. `told` hears of the steps of an install, also of one that
    /// another job has begun. The set stays as it is as long as the answer lives.
    ///
    /// # Errors
    /// Why it cannot be had. `cancelled` when `cancel` turns true; an install goes on as long as another job waits for it.
    pub async fn ensure(
        &self,
        place: &Place,
        want: Want,
        cancel: watch::Receiver<bool>,
        told: &mut (dyn FnMut(Step) + Send),
    ) -> Result<InUse, Failed> {
        flight::ensure(self, place, want, cancel, told).await
    }

    /// What the requirements come to, without installing anything: for filling and checking a wheelhouse.
    ///
    /// # Errors
    /// As for [`ensure`](Self::ensure).
    pub async fn resolve(
        &self,
        place: &Place,
        want: &Want,
        cancel: watch::Receiver<bool>,
        told: &mut (dyn FnMut(Step) + Send),
    ) -> Result<Vec<Locked>, Failed> {
        install::resolve(&self.index, place, want, cancel, told).await.map(|resolved| resolved.packages)
    }

    /// Removes what crashes left: volumes of ours without a record. Records whose volume is gone go as well.
    pub async fn sweep(&self, docker: &Docker) {
        self.sets.sweep(docker).await;
    }
}

fn cancelled() -> Failed {
    Failed::from(Failure::new(
        crate::sandbox::FailureKind::Cancelled,
        "the job was cancelled while its dependencies were made ready",
    ))
}
