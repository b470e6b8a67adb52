//! What the sandbox asks of Docker: make, start, examine and remove one container.

use super::ledger::Held;
use super::outcome::{ContainerExit, Failure, FailureKind};
use super::protocol::Ready;
use super::spec::{self, Class, ContainerSpec};
use super::wire::{NotReady, Wire, wait_until_ready};
use crate::text::plain;
use bollard::Docker;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio::time::Instant;

/// Removes a container of ours with its anonymous volumes; one that is already gone is fine.
///
/// # Errors
/// `engine_unavailable` when Docker does not remove it within some tries; it then goes by its deadline.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), Failure> {
    let mut last = String::new();
    for pause_ms in [0, 100, 400, 1500] {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.remove_container(name, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(Failure::new(
        FailureKind::EngineUnavailable,
        format!(
            "Docker did not remove container {name}: {}; it goes once its deadline has passed, or now with: docker rm -f {name}",
            plain(&last, 300)
        ),
    ))
}

/// A container that was started, whatever came of it.
pub struct Opened {
    /// Removes it when dropped.
    pub held: Held,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    pub wire: Wire,
    pub ready: Result<Ready, NotReady>,
    /// Docker's making of it.
    pub creating: Duration,
    /// From then on, to `READY`.
    pub starting: Duration,
}

/// Makes a container, attaches to it, so that nothing it says is missed, starts it, and waits until its supervisor is ready. When
/// that fails, dropping what was made removes it.
///
/// # Errors
/// What Docker refused.
pub async fn open(
    docker: &Docker,
    mut held: Held,
    spec: &ContainerSpec,
    cancel: &mut watch::Receiver<bool>,
) -> Result<Opened, Failure> {
    let refused = |error| refused_by_docker(&error, &spec.class);
    let began = Instant::now();
    let options = CreateContainerOptionsBuilder::default().name(held.reference()).build();
    let made = docker.create_container(Some(options), spec::container(spec)).await.map_err(refused)?;
    held.made(made.id);
    let created = Instant::now();
    let options = AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = docker.attach_container(held.reference(), Some(options)).await.map_err(refused)?;
    docker.start_container(held.reference(), None::<StartContainerOptions>).await.map_err(refused)?;
    let mut wire = Wire::new(attached.output);
    let ready = wait_until_ready(&mut wire, cancel).await;
    let (creating, starting) = (created - began, created.elapsed());
    Ok(Opened { held, input: attached.input, wire, ready, creating, starting })
}

pub async fn wait_for_exit(docker: &Docker, name: &str) -> Option<ContainerExit> {
    for _ in 0..40 {
        let state = docker.inspect_container(name, None).await.ok()?.state?;
        if state.running != Some(true) {
            return Some(ContainerExit { code: state.exit_code, oom_killed: state.oom_killed.unwrap_or(false) });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What it means that Docker refused to make or start a job container.
pub fn refused_by_docker(error: &bollard::errors::Error, class: &Class) -> Failure {
    let text = plain(&error.to_string(), 500);
    let lower = text.to_lowercase();
    if let Some(runtime) = class.runtime()
        && (lower.contains("runtime specified")
            || lower.contains("runtime name")
            || lower.contains(&format!("\"{runtime}\"")))
    {
        return Failure::new(
            FailureKind::RuntimeMissing,
            format!(
                "Docker has no usable OCI runtime {runtime:?}; nothing was run. Install it and add it to Docker's daemon.json, or unset ADE_RUNTIME. Docker said: {text}"
            ),
        );
    }
    match status(error) {
        Some(404) if lower.contains("image") => Failure::new(
            FailureKind::ImageMissing,
            format!("the base image {} is not on this Docker Engine; build it with `ade image build`", class.image()),
        ),
        _ => Failure::new(
            FailureKind::EngineUnavailable,
            format!(
                "Docker did not start the container: {text}; `ade doctor` checks the engine and says how to mend it"
            ),
        ),
    }
}
