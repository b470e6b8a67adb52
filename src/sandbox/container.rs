//! What the sandbox asks of Docker: make, start, examine and remove one container.

use super::outcome::{ContainerExit, Failure, FailureKind};
use super::spec::{self, ContainerSpec};
use crate::text::plain;
use bollard::Docker;
use bollard::container::AttachContainerResults;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use std::time::Duration;

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

pub async fn create(docker: &Docker, name: &str, spec: &ContainerSpec<'_>) -> Result<(), Failure> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let refused = |error| refused_by_docker(&error, spec.image, spec.runtime);
    docker.create_container(Some(options), spec::container(spec)).await.map(drop).map_err(refused)
}

/// Attaches to a created container, so that nothing it says is missed, and starts it.
pub async fn start(docker: &Docker, name: &str, spec: &ContainerSpec<'_>) -> Result<AttachContainerResults, Failure> {
    let refused = |error| refused_by_docker(&error, spec.image, spec.runtime);
    let options = AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = docker.attach_container(name, Some(options)).await.map_err(refused)?;
    docker.start_container(name, None::<StartContainerOptions>).await.map_err(refused)?;
    Ok(attached)
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
fn refused_by_docker(error: &bollard::errors::Error, image: &str, runtime: Option<&str>) -> Failure {
    let text = plain(&error.to_string(), 500);
    let lower = text.to_lowercase();
    if let Some(runtime) = runtime
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
            format!("the base image {image} is not on this Docker Engine; build it with `ade image build`"),
        ),
        _ => Failure::new(
            FailureKind::EngineUnavailable,
            format!(
                "Docker did not start the container: {text}; `ade doctor` checks the engine and says how to mend it"
            ),
        ),
    }
}
