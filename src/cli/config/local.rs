//! Jobs of a package that is being written: run here, looked at, and gone.

use crate::cli::progress::Screen;
use crate::cli::{cancel_on_signals, node, run};
use crate::egress::Grant;
use crate::job::{self, Cells, Identity, Input, JobReport, Node, Prepared, Refusal};
use crate::network::{Decision, Purpose};
use crate::packages::{Manifest, Package};
use crate::sandbox::{Failure, FailureKind, Limits, Outcome, Requested};
use crate::settings::Settings;
use serde_json::Value;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::watch;

/// A package that can run, with what its jobs may use.
pub struct Checked {
    pub package: Arc<Package>,
    pub manifest: Manifest,
    limits: Limits,
    network: Decision,
}

/// The same, and where its jobs run.
pub struct Local {
    checked: Checked,
    node: Node,
    cancel: watch::Receiver<bool>,
}

/// A job that has ended, with its files as long as this lives.
pub struct Done {
    pub report: JobReport,
    /// Its artifact; null when there is none that can be read.
    pub artifact: Value,
    folder: Arc<TempDir>,
}

impl Checked {
    /// Opens a package and checks all that needs no container.
    ///
    /// # Errors
    /// Everything that is wrong with the package.
    pub async fn open(path: &Path, settings: &Settings) -> Result<Self, Refusal> {
        let (path, caps, instance) = (path.to_owned(), settings.caps(), settings.runtime_network_access);
        let opening = tokio::task::spawn_blocking(move || {
            let package = job::open_package(&path)?;
            let manifest = job::manifest_of(&package, &caps)?;
            let limits = job::limits(&manifest, Requested::default(), &caps)?;
            let network = run::undecided(instance, manifest.defaults.runtime_network_access);
            Ok(Self { package: Arc::new(package), manifest, limits, network })
        });
        opening.await.unwrap_or_else(|error| Err(failed("reading the package", &error).into()))
    }

    /// Readies Docker and the image.
    ///
    /// # Errors
    /// A failure of the environment, or `cancelled`.
    pub async fn ready(self, settings: &Settings, screen: &Screen) -> Result<Local, Failure> {
        let cancel = cancel_on_signals();
        let node = node::ready_unless(settings, screen, cancel.clone()).await?;
        Ok(Local { checked: self, node, cancel })
    }
}

impl Local {
    /// The same place for another package.
    pub fn with(self, checked: Checked) -> Self {
        Self { checked, ..self }
    }

    /// Runs the package over inputs.
    ///
    /// # Errors
    /// That the job could not be run, or was interrupted; every other failure is in the report.
    pub async fn run(&self, inputs: Vec<PathBuf>, screen: &mut Screen) -> Result<Done, Failure> {
        let Checked { package, manifest, limits, network } = &self.checked;
        let (of, within) = (Arc::clone(package), limits.clone());
        let beside = self.node.egress.ca_bundle(&Grant::of(network, Purpose::Run)).cloned();
        let opening = tokio::task::spawn_blocking(move || job::open_inputs(&inputs, &of, &within, beside.as_ref()));
        let inputs: Vec<Input> = opening.await.map_err(|error| failed("reading the inputs", &error))??;
        let prepared = Prepared::new(
            Arc::clone(package),
            manifest.clone(),
            inputs,
            limits.clone(),
            Identity::local(),
            network.clone(),
        );
        let folder = tempfile::Builder::new().prefix("ade-").tempdir();
        let folder = Arc::new(folder.map_err(|error| failed("making a temporary folder", &error))?);
        let report = job::run(&self.node, &prepared, &folder, self.cancel.clone(), screen).await?;
        if let Outcome::Cancelled(failure) = report.outcome {
            return Err(failure);
        }
        let path = folder.path().join("artifact.json");
        let reading = tokio::task::spawn_blocking(move || {
            serde_json::from_reader(BufReader::new(std::fs::File::open(path).ok()?)).ok()
        });
        let artifact = reading.await.ok().flatten().unwrap_or_default();
        Ok(Done { report, artifact, folder })
    }

    /// The cells of the workbook of a job.
    ///
    /// # Errors
    /// Why they could not be read.
    pub async fn cells(&self, done: &Done) -> Result<Cells, Failure> {
        let workbook = done.folder.path().join("normalized.xlsx");
        job::read_cells(&self.node, &self.checked.package, &workbook, self.cancel.clone()).await
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(FailureKind::HostIo, format!("{what} failed: {error}"))
}
