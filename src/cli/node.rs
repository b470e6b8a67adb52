//! Docker and the image, ready for jobs, as a command needs them.

use super::progress::Screen;
use crate::deps::Wheelhouse;
use crate::egress::Egress;
use crate::image::{self, BuildOptions, ImageInfo, Route};
use crate::job::Node;
use crate::sandbox::{Failure, FailureKind, Lender, Pool, SOCKET, reap};
use crate::settings::{Settings, local_data_dir};
use bollard::Docker;
use std::sync::Arc;
use tokio::sync::watch;

/// Label of containers that `ade run` and `ade config validate` make.
const INSTANCE: &str = "cli";

/// Connects to Docker.
///
/// # Errors
/// `engine_unavailable`, with the way out.
pub async fn connect(settings: &Settings) -> Result<Docker, Failure> {
    let unavailable = |what: String| {
        Failure::new(
            FailureKind::EngineUnavailable,
            format!("{what}; is Docker running, and may you use it? `ade doctor` says how to mend it"),
        )
    };
    let docker = match &settings.docker_host {
        Some(host) => Docker::connect_with_host(host),
        None => Docker::connect_with_local_defaults(),
    }
    .map_err(|error| unavailable(format!("cannot connect to Docker: {error}")))?;
    docker.ping().await.map_err(|error| unavailable(format!("Docker does not answer: {error}")))?;
    Ok(docker)
}

/// Connects, finds or builds the image, and removes what crashed runs left.
///
/// # Errors
/// `engine_unavailable` or `image_missing`.
pub async fn ready(settings: &Settings, screen: &Screen) -> Result<Node, Failure> {
    let docker = connect(settings).await?;
    // What earlier commands left that were killed; other instances' containers are not looked at.
    reap(&docker, INSTANCE, |_| false).await;
    let deps = settings.deps(&local_data_dir());
    deps.sweep(&docker).await;
    let image = find_or_build(&docker, settings, screen).await?;
    let lender = Lender { socket: local_data_dir().join(SOCKET), docker_host: settings.docker_host.clone() };
    Ok(Node {
        pool: Pool::of_a_command(&docker, Some(lender)),
        docker,
        image: image.tag,
        image_digest: image.id,
        runtime: settings.runtime.clone(),
        caps: settings.caps(),
        egress: Arc::new(Egress::new(settings)?),
        instance: INSTANCE.to_owned(),
        node: None,
        deps,
    })
}

/// As [`ready`], and gives up as soon as `cancel` turns true.
///
/// # Errors
/// As [`ready`], or `cancelled`.
pub async fn ready_unless(
    settings: &Settings,
    screen: &Screen,
    mut cancel: watch::Receiver<bool>,
) -> Result<Node, Failure> {
    tokio::select! {
        node = ready(settings, screen) => node,
        Ok(_) = cancel.wait_for(|cancelled| *cancelled) => {
            Err(Failure::new(FailureKind::Cancelled, "interrupted before anything was started"))
        }
    }
}

async fn find_or_build(docker: &Docker, settings: &Settings, screen: &Screen) -> Result<ImageInfo, Failure> {
    let mut say = |text: &str| screen.line(text);
    image::ensure(docker, settings.image.as_deref(), &build_options(settings, Route::Auto), &mut say)
        .await
        .map_err(|error| failure(&error))
}

/// The settings that concern the building of the image.
pub fn build_options(settings: &Settings, route: Route) -> BuildOptions {
    BuildOptions {
        route,
        base_image: settings.base_image.clone(),
        debian_mirror: settings.debian_mirror.clone(),
        debian_security_mirror: settings.debian_security_mirror.clone(),
        index_url: settings.index_url.clone(),
        wheelhouse: match &settings.wheelhouse {
            Some(Wheelhouse::Folder(path)) => Some(path.clone()),
            _ => None,
        },
        ca_bundle: settings.ca_bundle.clone(),
    }
}

/// An image error as a failure of the environment.
pub fn failure(error: &image::ImageError) -> Failure {
    let kind =
        if error.kind() == "engine_unavailable" { FailureKind::EngineUnavailable } else { FailureKind::ImageMissing };
    Failure { detail: Some(serde_json::json!({"code": error.kind()})), ..Failure::new(kind, error.to_string()) }
}
