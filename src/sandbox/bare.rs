//! Containers in which nothing of ours runs, for what is measured against them.

use super::container::{refused_by_docker, remove};
use super::outcome::Failure;
use super::spec::{self, Class, ContainerSpec};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions, WaitContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

/// What runs in them: the least that an image with nothing but Python can.
const NOTHING: [&str; 6] = ["python3", "-I", "-S", "-B", "-c", "pass"];

/// Makes a container of a job's profile, attaches to it, starts it, waits for its end and removes it: what no job can do without.
/// One that is removed while it runs would cost as much as it happens to have done by then.
///
/// # Errors
/// What Docker refused.
pub async fn start_and_remove(docker: &Docker, name: &str, spec: &ContainerSpec) -> Result<(), Failure> {
    let body = ContainerCreateBody { cmd: Some(NOTHING.map(String::from).to_vec()), ..spec::container(spec) };
    let done = match start(docker, name, body, &spec.class).await {
        // As a service waits for the end of a job's container. It says nothing, so nothing has to be bounded.
        Ok(mut output) => {
            while let Some(Ok(_)) = output.next().await {}
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    remove(docker, name).await?;
    done
}

/// Does what `docker run --rm --network none IMAGE python3 -c pass` does, where there is no such command.
///
/// # Errors
/// What Docker refused.
pub async fn run_plain(docker: &Docker, name: &str, spec: &ContainerSpec) -> Result<(), Failure> {
    let host = HostConfig { network_mode: Some("none".into()), ..HostConfig::default() };
    let body = ContainerCreateBody {
        image: Some(spec.class.image().to_owned()),
        cmd: Some(["python3", "-c", "pass"].map(String::from).to_vec()),
        labels: Some(spec.labels.clone()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    let done = match start(docker, name, body, &spec.class).await {
        Ok(_output) => {
            let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
            docker.wait_container(name, Some(options)).next().await;
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    remove(docker, name).await?;
    done
}

/// Makes a container, attaches to it and starts it; gives what comes out of it.
async fn start(
    docker: &Docker,
    name: &str,
    body: ContainerCreateBody,
    class: &Class,
) -> Result<impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + use<>, Failure> {
    let refused = |error| refused_by_docker(&error, class);
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.map_err(refused)?;
    let options = AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let attached = docker.attach_container(name, Some(options)).await.map_err(refused)?;
    docker.start_container(name, None::<StartContainerOptions>).await.map_err(refused)?;
    Ok(attached.output)
}
